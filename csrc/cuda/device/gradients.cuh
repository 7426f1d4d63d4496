// Gradients (see gradients.h): of weights and biases, as products of matrices over time, and what is left of the
// gradient of an input behind the convolution that makes most of it.
//
// Time is what a product is summed over, while neighbours in memory are channels. In 16 bits matrices are transposed as
// they are loaded; in 32 bits every lane loads its numbers one by one. A tap is a row further on in either case.
#pragma once

#include "gradients.h"
#include "pack.cuh"

namespace fastvoc::cuda {

// Which chunk and row of a tile of `chunks` chunks a thread copies: eight neighbours four rows of two chunks.
template <int chunks>
FASTVOC_DEVICE int gradient_chunk() {
  return thread() % 2 + thread() / 8 % (chunks / 2) * 2;
}
template <int chunks>
FASTVOC_DEVICE int gradient_row() {
  return thread() / 2 % 4 + thread() / 8 / (chunks / 2) * 4;
}

// Where rows of a signal come from: step t of the tap in question is row (t * hop + begin). Rows outside are padding.
struct GradientRows {
  const char* data;
  long long row_bytes;
  int chunks;  // from here on
  int hop, begin, rows;
  short front, back;
};

// Rows of `chunks` chunks, step by step. Chunks that do not exist stay what they are: what is made of them is not kept.
template <int chunks, int threads>
FASTVOC_DEVICE void copy_steps(const GradientRows& from, int steps, int pitch, char* tile) {
  constexpr int across = chunks < 8 ? chunks : 8;
  const int last = from.rows - 1;
#pragma unroll 1
  for (int first = 0; first < chunks; first += across) {
    const int chunk = first + gradient_chunk<across>();
    if (chunk >= from.chunks) return;
    const char* const data = from.data + chunk * kChunkBytes;
#pragma unroll 1
    for (int step = gradient_row<across>(); step < steps; step += threads / across) {
      int at = step * from.hop + from.begin;
      bool real = true;
      if (at < 0) {
        real = from.front != kZero;
        at = from.front == kReflect ? -at : 0;
      } else if (at > last) {
        real = from.back != kZero;
        at = from.back == kReflect ? 2 * last - at : last;
      }
      // Rows that nobody needs may be mirrored to where there is nothing.
      at = at < last ? at : last;
      at = at > 0 ? at : 0;
      copy_async(tile + (chunk * pitch + step) * kChunkBytes, data + at * from.row_bytes, real);
    }
  }
}

// The leaky ReLU of what this thread has copied.
template <int precision, int chunks, int threads>
FASTVOC_DEVICE void rectify_steps(float slope, int real_chunks, int steps, int pitch, char* tile) {
  constexpr int across = chunks < 8 ? chunks : 8;
#pragma unroll 1
  for (int first = 0; first < chunks; first += across) {
    const int chunk = first + gradient_chunk<across>();
    if (chunk >= real_chunks) return;
#pragma unroll 1
    for (int step = gradient_row<across>(); step < steps; step += threads / across) {
      Vector16& elements = *reinterpret_cast<Vector16*>(tile + (chunk * pitch + step) * kChunkBytes);
#pragma unroll
      for (unsigned& word : elements.word) {
        if constexpr (precision == kTfloat32) {
          const float value = as_float(word);
          word = as_bits(value < 0 ? value * slope : value);
        } else {
          float low, high;
          unpack_pair<precision>(word, low, high);
          word = pack_pair<precision>(low < 0 ? low * slope : low, high < 0 ? high * slope : high);
        }
      }
    }
  }
}

// Operands of a multiplication: 16 fixed channels, or twice 8 sliding ones, of as many steps as a multiplication adds
// up. `from` is where this lane reads.
template <int precision>
FASTVOC_DEVICE void load_fixed(unsigned (&a)[4], const char* from, int pitch) {
  if constexpr (precision == kTfloat32) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      a[i] = *reinterpret_cast<const unsigned*>(from + (i % 2 * 2 * pitch + i / 2 * 4) * kChunkBytes);
    }
  } else {
    load_matrices_transposed(a, from);
  }
}
template <int precision>
FASTVOC_DEVICE void load_sliding(unsigned (&b)[2][2], const char* from, int pitch) {
  if constexpr (precision == kTfloat32) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      b[i / 2][i % 2] = *reinterpret_cast<const unsigned*>(from + (i / 2 * 2 * pitch + i % 2 * 4) * kChunkBytes);
    }
  } else {
    unsigned both[4];
    load_matrices_transposed(both, from);
    b[0][0] = both[0], b[0][1] = both[1];
    b[1][0] = both[2], b[1][1] = both[3];
  }
}

template <int precision, int count>
FASTVOC_DEVICE void round_operand(unsigned (&words)[count]) {
  if constexpr (precision == kTfloat32) {
#pragma unroll
    for (unsigned& word : words) word = as_bits(round_tf32(as_float(word)));
  }
}

// No steps but `left` ones. Behind the last fixed row are zeros, but zero times what may meet them is not always zero.
template <int precision>
FASTVOC_DEVICE void clear_steps(unsigned (&b)[2][2], int left) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if constexpr (precision == kTfloat32) {
      if (thread() % 4 + i % 2 * 4 >= left) b[i / 2][i % 2] = 0;
    } else {
      const int first = thread() % 4 * 2 + i % 2 * 8;
      if (first + 1 >= left) b[i / 2][i % 2] &= first < left ? 0xffffu : 0;
    }
  }
}

// What rounding takes away, to be added apart: a sum of numbers is as exact as they are.
template <int precision, int count>
FASTVOC_DEVICE void keep_remainder(unsigned (&words)[count]) {
#pragma unroll
  for (unsigned& word : words) word = as_bits(round_tf32(as_float(word) - round_tf32(as_float(word))));
}

template <int precision>
FASTVOC_DEVICE unsigned ones() {
  return precision == kTfloat32 ? 0x3f800000u : precision == kFloat16 ? 0x3c003c00u : 0x3f803f80u;
}

// The sums of 16 channels over the steps of a tile, added to those of the tiles before: products with ones.
template <int precision>
FASTVOC_DEVICE void add_fixed(float* to, int steps, const char* from, int pitch) {
  constexpr int depth = precision == kTfloat32 ? 8 : 16;
  const unsigned one[2] = {ones<precision>(), ones<precision>()};
  float sum[4] = {};
#pragma unroll 1
  for (int at = 0; at < steps; at += depth) {
    unsigned a[4], rest[4];
    load_fixed<precision>(a, from + at * kChunkBytes, pitch);
#pragma unroll
    for (int i = 0; i < 4; ++i) rest[i] = a[i];
    round_operand<precision>(a);
    multiply_add<precision>(sum, a, one);
    if constexpr (precision == kTfloat32) {
      keep_remainder<precision>(rest);
      multiply_add<precision>(sum, rest, one);
    }
  }
  if (thread() % 4 == 0) {
    to[thread() % 32 / 4] += sum[0];
    to[thread() % 32 / 4 + 8] += sum[2];
  }
}
template <int precision>
FASTVOC_DEVICE void add_sliding(float* to, int steps, const char* from, int pitch) {
  constexpr int depth = precision == kTfloat32 ? 8 : 16;
  const unsigned one[4] = {ones<precision>(), ones<precision>(), ones<precision>(), ones<precision>()};
  float sum[2][4] = {};
#pragma unroll 1
  for (int at = 0; at < steps; at += depth) {
    unsigned b[2][2];
    load_sliding<precision>(b, from + at * kChunkBytes, pitch);
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      unsigned rest[2] = {b[j][0], b[j][1]};
      round_operand<precision>(b[j]);
      multiply_add<precision>(sum[j], one, b[j]);
      if constexpr (precision == kTfloat32) {
        keep_remainder<precision>(rest);
        multiply_add<precision>(sum[j], one, rest);
      }
    }
  }
  if (thread() % 32 < 4) {
#pragma unroll
    for (int j = 0; j < 2; ++j) {
#pragma unroll
      for (int i = 0; i < 2; ++i) to[j * 8 + thread() % 32 * 2 + i] += sum[j][i];
    }
  }
}

// The products of one tile for the own taps of a warp. There are fixed rows for `left` steps.
template <int precision, int tap_warps, int own_taps, int sixteens, int eights>
FASTVOC_DEVICE void multiply_steps(float (&sum)[own_taps][sixteens][eights][4], const char* fixed, int fixed_pitch,
                                   const char* sliding, int sliding_pitch, int dilation, int own, int steps, int left) {
  constexpr int depth = precision == kTfloat32 ? 8 : 16, width = chunk_channels(precision);
#pragma unroll 1
  for (; steps > 0; steps -= depth, left -= depth, fixed += depth * kChunkBytes, sliding += depth * kChunkBytes) {
    unsigned a[sixteens][4];
#pragma unroll
    for (int i = 0; i < sixteens; ++i) {
      load_fixed<precision>(a[i], fixed + i * 16 / width * fixed_pitch * kChunkBytes, fixed_pitch);
      round_operand<precision>(a[i]);
    }
#pragma unroll
    for (int tap = 0; tap < own_taps; ++tap) {
      if (tap >= own) break;
#pragma unroll
      for (int j = 0; j < eights; j += 2) {
        unsigned b[2][2];
        load_sliding<precision>(b, sliding + (tap * tap_warps * dilation + j * 8 / width * sliding_pitch) * kChunkBytes,
                                sliding_pitch);
        if (left < depth) clear_steps<precision>(b, left);
#pragma unroll
        for (int k = 0; k < 2; ++k) {
          round_operand<precision>(b[k]);
#pragma unroll
          for (int i = 0; i < sixteens; ++i) multiply_add<precision>(sum[tap][i][j + k], a[i], b[k]);
        }
      }
    }
  }
}

// The sums of a warp, from its first tap and channels on.
template <int tap_warps, int own_taps, int sixteens, int eights>
FASTVOC_DEVICE void leave_sums(const WeightGradient& call, float (&sum)[own_taps][sixteens][eights][4], int own,
                               float* to, int fixed, int sliding) {
  fixed += thread() % 32 / 4, sliding += thread() % 4 * 2;
  // Little code matters more here than time: sums move up, so that the first ones are always next.
#pragma unroll 1
  for (int tap = 0; tap < own; ++tap) {
#pragma unroll
    for (int i = 0; i < sixteens; ++i) {
#pragma unroll
      for (int j = 0; j < eights; ++j) {
#pragma unroll
        for (int k = 0; k < 4; ++k) {
          const int f = fixed + i * 16 + k / 2 * 8, s = sliding + j * 8 + k % 2;
          if (f < call.fixed_channels && s < call.sliding_channels) to[f * call.sliding_channels + s] = sum[0][i][j][k];
#pragma unroll
          for (int l = 0; l + 1 < own_taps; ++l) sum[l][i][j][k] = sum[l + 1][i][j][k];
        }
      }
    }
    to += tap_warps * call.hop * call.fixed_channels * call.sliding_channels;
  }
}

// Two tiles are in shared memory at once: one on its way while the other one is multiplied.
template <int precision, int fixed_width, int sliding_width, int rows, int warps, int own_taps>
FASTVOC_DEVICE void weight_gradient(const WeightGradient& call) {
  if constexpr (!kMultiplies<precision>) {
    trap();
    return;
  }
  constexpr int threads = 32 * warps, width = chunk_channels(precision);
  constexpr int depth = precision == kTfloat32 ? 8 : 16;  // steps that a multiplication adds up
  constexpr int tile_fixed = fixed_width < 32 ? fixed_width : 32,
                tile_sliding = sliding_width < 32 ? sliding_width : 32;
  constexpr int across_fixed = fixed_width / tile_fixed, across_sliding = sliding_width / tile_sliding;
  constexpr int tap_warps = warps / across_fixed / across_sliding;
  constexpr int sixteens = tile_fixed / 16, eights = tile_sliding / 8;
  static_assert(tap_warps * across_fixed * across_sliding == warps && rows % depth == 0);

  let_next_kernel_begin();
  const int fixed_panel = block_y() / call.sliding_panels, sliding_panel = block_y() % call.sliding_panels;
  const int phase = block_z() / call.groups, group = block_z() % call.groups;
  const int first_fixed = fixed_panel * fixed_width, first_sliding = sliding_panel * sliding_width;
  const int first_tap = group * call.group_taps;
  int taps = (call.taps - phase + call.hop - 1) / call.hop - first_tap;
  taps = taps < call.group_taps ? taps : call.group_taps;
  taps = taps > 0 ? taps : 0;
  const bool fixed_bias = call.bias == kFixed && sliding_panel == 0 && block_z() == 0;
  const bool sliding_bias = call.bias == kSliding && fixed_panel == 0 && group == 0;
  wait_for_previous_kernel();
  if (taps == 0 && !fixed_bias && !sliding_bias) return;

  const int warp = thread() / 32, lane = thread() % 32;
  const int warp_fixed = warp % across_fixed * tile_fixed,
            warp_sliding = warp / across_fixed % across_sliding * tile_sliding;
  const int warp_tap = warp / across_fixed / across_sliding;
  const int span = taps > 0 ? call.dilation * (taps - 1) : 0;
  const int fixed_pitch = gradient_pitch(rows), sliding_pitch = gradient_pitch(rows + span);
  const int sliding_begin = fixed_width / width * fixed_pitch * kChunkBytes;
  const int tile_bytes = sliding_begin + sliding_width / width * sliding_pitch * kChunkBytes;
  const int fixed_chunks = call.fixed_chunks - first_fixed / width,
            sliding_chunks = call.sliding_chunks - first_sliding / width;

  const int tiles = (call.steps + rows - 1) / rows;
  const long long all = static_cast<long long>(tiles) * call.items;
  const int begin = static_cast<int>(all * block_x() / grid_x()),
            end = static_cast<int>(all * (block_x() + 1) / grid_x());
  float* const bias = reinterpret_cast<float*>(shared_memory());
  char* const memory = shared_memory() + kBiasBytes;

  const auto fetch = [&](int tile, char* to) {
    const int item = tile / tiles, step = (tile - item * tiles) * rows;
    const char* const fixed =
        static_cast<const char*>(call.fixed.data) + item * call.fixed.item * element_bytes(precision);
    const char* const sliding =
        static_cast<const char*>(call.sliding.data) + item * call.sliding.item * element_bytes(precision);
    const long long fixed_row = call.fixed.row * element_bytes(precision),
                    sliding_row = call.sliding.row * element_bytes(precision);
    copy_steps<fixed_width / width, threads>(
        {fixed + first_fixed / width * kChunkBytes, fixed_row, fixed_chunks, 1, step, call.fixed_rows, kZero, kZero},
        rows, fixed_pitch, to);
    copy_steps<sliding_width / width, threads>(
        {sliding + first_sliding / width * kChunkBytes, sliding_row, sliding_chunks, call.hop,
         (step + first_tap * call.dilation) * call.hop + phase - call.shift, call.sliding_rows, call.front, call.back},
        rows + span, sliding_pitch, to + sliding_begin);
  };

  // Of a transposed matrix a lane gives the address of a step; else it reads channel lane / 4 of step lane % 4.
  int fixed_lane, sliding_lane;
  if constexpr (precision == kTfloat32) {
    fixed_lane = (lane / 16 * fixed_pitch + lane % 4) * kChunkBytes + lane / 4 % 4 * 4;
    sliding_lane = (lane / 16 * sliding_pitch + lane % 4) * kChunkBytes + lane / 4 % 4 * 4;
  } else {
    fixed_lane = (lane / 8 % 2 * fixed_pitch + lane / 16 * 8 + lane % 8) * kChunkBytes;
    sliding_lane = (lane / 16 * sliding_pitch + lane / 8 % 2 * 8 + lane % 8) * kChunkBytes;
  }
  const int own_fixed = warp_fixed / width * fixed_pitch * kChunkBytes + fixed_lane;
  const int own_sliding =
      sliding_begin + (warp_sliding / width * sliding_pitch + warp_tap * call.dilation) * kChunkBytes + sliding_lane;
  const int own = (taps - warp_tap + tap_warps - 1) / tap_warps;  // taps of this warp: every so many of the block's
  const bool works = own > 0 && warp_fixed / width < fixed_chunks && warp_sliding / width < sliding_chunks;
  const bool adds_fixed = fixed_bias && warp_sliding == 0 && warp_tap == 0 && warp_fixed / width < fixed_chunks;
  const bool adds_sliding = sliding_bias && warp_fixed == 0 && warp_tap == 0 && warp_sliding / width < sliding_chunks;

  float sum[own_taps][sixteens][eights][4] = {};
  if (adds_fixed) bias[warp_fixed + lane % tile_fixed] = 0;
  if (adds_sliding) bias[warp_sliding + lane % tile_sliding] = 0;
  if (begin < end) fetch(begin, memory);
  commit_copies();
  int here = 0;
#pragma unroll 1
  for (int tile = begin; tile < end; ++tile) {
    wait_for_copies<0>();
    if (call.rectified == kFixed) {
      rectify_steps<precision, fixed_width / width, threads>(call.slope, fixed_chunks, rows, fixed_pitch,
                                                             memory + here);
    } else if (call.rectified == kSliding) {
      rectify_steps<precision, sliding_width / width, threads>(call.slope, sliding_chunks, rows + span, sliding_pitch,
                                                               memory + here + sliding_begin);
    }
    barrier();
    if (tile + 1 < end) fetch(tile + 1, memory + tile_bytes - here);
    commit_copies();

    const int step = tile % tiles * rows, steps = call.steps - step < rows ? call.steps - step : rows;
    const char *fixed = memory + own_fixed + here, *sliding = memory + own_sliding + here;
    if (adds_fixed) {
#pragma unroll 1
      for (int i = 0; i < sixteens; ++i) {
        add_fixed<precision>(bias + warp_fixed + i * 16, steps, fixed + i * 16 / width * fixed_pitch * kChunkBytes,
                             fixed_pitch);
      }
    }
    if (adds_sliding) {
#pragma unroll 1
      for (int j = 0; j < eights; j += 2) {
        add_sliding<precision>(bias + warp_sliding + j * 8, steps,
                               sliding + j * 8 / width * sliding_pitch * kChunkBytes, sliding_pitch);
      }
    }
    if (works) {
      multiply_steps<precision, tap_warps>(sum, fixed, fixed_pitch, sliding, sliding_pitch, call.dilation, own, steps,
                                           call.fixed_rows - step);
    }
    here = tile_bytes - here;
  }

  float* const part = call.parts + block_x() * call.part;
  const int of_tap = call.fixed_channels * call.sliding_channels;  // all weights are less than 2^30
  if (works) {
    leave_sums<tap_warps>(call, sum, own, part + ((first_tap + warp_tap) * call.hop + phase) * of_tap,
                          first_fixed + warp_fixed, first_sliding + warp_sliding);
  }
  float* const biases = part + call.taps * of_tap;
  // A lane writes what others have added up.
  warp_barrier();
  if (adds_fixed) {
    const int f = first_fixed + warp_fixed + lane;
    if (lane < tile_fixed && f < call.fixed_channels) biases[f] = bias[warp_fixed + lane];
  } else if (adds_sliding) {
    const int s = first_sliding + warp_sliding + lane;
    if (lane < tile_sliding && s < call.sliding_channels) {
      biases[phase * call.sliding_channels + s] = bias[warp_sliding + lane];
    }
  }
}

FASTVOC_DEVICE void store_given(void* to, long long element, float value, int precision) {
  if (precision == kTfloat32) {
    static_cast<float*>(to)[element] = value;
  } else {
    static_cast<unsigned short*>(to)[element] = static_cast<unsigned short>(rounded_pair(value, 0, precision));
  }
}

FASTVOC_DEVICE void add_shares(const AddParts& add) {
  let_next_kernel_begin();
  wait_for_previous_kernel();
  const long long channels = static_cast<long long>(add.fixed_channels) * add.sliding_channels;
  const long long weights = channels * add.taps, numbers = weights + add.biases;
  for (long long i = block_x() * 256ll + thread(); i < numbers; i += grid_x() * 256ll) {
    const int phases = i < weights ? 1 : add.phases;
    float sum = 0;
    for (int phase = 0; phase < phases; ++phase) {
      const float* from = add.parts + i + static_cast<long long>(phase) * add.biases;
      for (int share = 0; share < add.shares; ++share, from += add.part) sum += load_global(from);
    }
    if (i < weights) {
      const long long tap = i / channels;
      store_given(add.weight, (i - tap * channels) * add.taps + tap, sum, add.precision);
    } else {
      store_given(add.bias, i - weights, sum, add.precision);
    }
  }
}

FASTVOC_DEVICE unsigned passed(unsigned gradient, unsigned x, float slope, int precision) {
  if (precision == kTfloat32) return as_float(x) > 0 ? gradient : as_bits(as_float(gradient) * slope);
  float low, high, x_low, x_high;
  if (precision == kFloat16) {
    unpack_pair<kFloat16>(gradient, low, high);
    unpack_pair<kFloat16>(x, x_low, x_high);
  } else {
    unpack_pair<kBfloat16>(gradient, low, high);
    unpack_pair<kBfloat16>(x, x_low, x_high);
  }
  return rounded_pair(x_low > 0 ? low : low * slope, x_high > 0 ? high : high * slope, precision);
}

FASTVOC_DEVICE void pass_chunks(const InputGradient& call, int item) {
  const int bytes = element_bytes(call.precision);
  const char* const padded = static_cast<const char*>(call.padded) + item * call.padded_item * bytes;
  const char* const x = static_cast<const char*>(call.x) + item * call.x_item * bytes;
  char* const y = static_cast<char*>(call.y) + item * call.y_item * bytes;
  for (int i = block_x() * 256 + thread(); i < call.chunks * call.frames; i += grid_x() * 256) {
    const int frame = i / call.chunks, inside = (i - frame * call.chunks) * kChunkBytes;
    Vector16 gradient =
        load_global(reinterpret_cast<const Vector16*>(padded + frame * call.padded_frame * bytes + inside));
    const Vector16 value = load_global(reinterpret_cast<const Vector16*>(x + frame * call.x_frame * bytes + inside));
#pragma unroll
    for (int j = 0; j < 4; ++j) gradient.word[j] = passed(gradient.word[j], value.word[j], call.slope, call.precision);
    *reinterpret_cast<Vector16*>(y + frame * call.y_frame * bytes + inside) = gradient;
  }
}

FASTVOC_DEVICE void finish_input_gradient(const InputGradient& call) {
  let_next_kernel_begin();
  wait_for_previous_kernel();
  const int item = block_y(), last = call.frames - 1;
  if (call.chunks > 0) {
    pass_chunks(call, item);
    return;
  }
  // Neighbours write neighbouring elements. Where those are frames, the eight warps read neighbouring channels.
  const bool channels_last = call.y_channel == 1;
  const int thirty_twos = (call.frames + 31) / 32;
  const int all = channels_last ? call.channels * call.frames : thirty_twos * ((call.channels + 7) / 8) * 256;
  for (int i = block_x() * 256 + thread(); i < all; i += grid_x() * 256) {
    int channel, frame;
    if (channels_last) {
      frame = i / call.channels, channel = i - frame * call.channels;
    } else {
      frame = i / 256 % thirty_twos * 32 + i % 32, channel = i / 256 / thirty_twos * 8 + i % 256 / 32;
      if (frame > last || channel >= call.channels) continue;
    }
    const auto gradient = [&](int row) {
      const long long at = item * call.padded_item + channel * call.padded_channel + row * call.padded_frame;
      return given_element(call.padded, at, kElements, call.precision);
    };
    float sum = gradient(call.left + frame);
    if (call.mode == kReflect) {
      if (frame >= 1 && frame <= call.left) sum += gradient(call.left - frame);
      if (frame < last && last - frame <= call.right) sum += gradient(call.left + 2 * last - frame);
    } else if (call.mode == kReplicate) {
      for (int row = 0; frame == 0 && row < call.left; ++row) sum += gradient(row);
      for (int row = 0; frame == last && row < call.right; ++row) sum += gradient(call.left + call.frames + row);
    }
    if (call.slope != 1) {
      const long long at = item * call.x_item + channel * call.x_channel + frame * call.x_frame;
      const float x = given_element(call.x, at, kElements, call.precision);
      sum = x > 0 ? sum : sum * call.slope;
    }
    store_given(call.y, item * call.y_item + channel * call.y_channel + frame * call.y_frame, sum, call.precision);
  }
}

}  // namespace fastvoc::cuda
