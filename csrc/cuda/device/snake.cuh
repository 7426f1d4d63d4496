// smooth_snake and its gradient: Snake at twice the rate between two filters, in one pass.
//
// A lane goes through the time of two channels once, and keeps what its filters reach in registers: six frames of the
// input, and six even and six odd ones of the doubled signal. Six steps are one stretch of a loop: as many frames later
// a register holds the same of the six again, so that nothing is moved. What the next stretch reads is on its way
// while this one computes. A warp reads and writes 64 neighbouring channels; five frames at the end of each part are
// computed by two lanes, since none sees what another one computes. Every frame is the same sum in the same order,
// whatever the parts.
#pragma once

#include "instructions.cuh"
#include "pack.cuh"
#include "snake.h"

namespace fastvoc::cuda {

// Half of the filter; the other half is the same, backwards, so that its odd taps are its even ones backwards.
constexpr float kTap0 = 0.002028966449896242f, kTap1 = 0.00938946394406788f, kTap2 = -0.02554346406529466f,
                kTap3 = -0.05765737547536495f, kTap4 = 0.1285726090813288f, kTap5 = 0.4432098000653667f;
constexpr float kLeast = 1e-9f;       // is added to what divides
constexpr float kMagic = 12582912.f;  // 1.5 * 2^23: what is added to it is rounded to a whole number

// Six values by taps 0, 2, ..., 10; backwards they are taps 1, 3, ..., 11. Small taps round first.
FASTVOC_DEVICE float even_taps(float v0, float v1, float v2, float v3, float v4, float v5) {
  return fused(kTap5, v3, fused(kTap4, v2, fused(kTap3, v4, fused(kTap2, v1, fused(kTap1, v5, kTap0 * v0)))));
}

// The six values of a window, of which `newest` came last; the first one is the oldest, or the newest if backwards.
FASTVOC_DEVICE float filtered(const float (&window)[6], int newest) {
  return even_taps(window[(newest + 1) % 6], window[(newest + 2) % 6], window[(newest + 3) % 6],
                   window[(newest + 4) % 6], window[(newest + 5) % 6], window[newest]);
}
FASTVOC_DEVICE float filtered_backwards(const float (&window)[6], int newest) {
  return even_taps(window[newest], window[(newest + 5) % 6], window[(newest + 4) % 6], window[(newest + 3) % 6],
                   window[(newest + 2) % 6], window[(newest + 1) % 6]);
}

// e^x to an ulp, between e^-87 and e^88: the hardware's is an approximation of 2^x, some ulp off.
FASTVOC_DEVICE float exact_exponential(float x) {
  x = x < -87 ? -87 : x > 88 ? 88 : x;  // what is no number stays that
  const float whole = fused(x, 1.44269504f, kMagic) - kMagic;
  x = fused(whole, 2.12194440e-4f, fused(whole, -0.693359375f, x));  // ln 2, of which the first part has nine bits
  float size = fused(x, 0.00139560561f, 0.00837512857f);
  size = fused(x, size, 0.0416660836f);
  size = fused(x, size, 0.166664155f);
  size = fused(x, size, 0.500000017f);
  size = fused(x, fused(x, size, 1.00000004f), 1);
  return size * as_float(static_cast<unsigned>(to_int(whole) + 127) << 23);
}

// An angle without whole half turns: sin² and sin 2x are the same behind that. pi in three parts, of which the first
// two are so short that their products are exact.
FASTVOC_DEVICE float reduced(float angle) {
  const float turns = fused(angle, 0.318309886f, kMagic) - kMagic;
  return fused(turns, -1.509957990978376e-7f, fused(turns, -9.67502593994140625e-4f, fused(turns, -3.140625f, angle)));
}

// sin² of an angle, in 16 bits by the hardware's sine, which is off by 5e-7.
template <int precision>
FASTVOC_DEVICE float sine_squared(float angle) {
  if constexpr (precision != kTfloat32) {
    const float sine = quick_sine(angle);
    return sine * sine;
  } else {
    angle = reduced(angle);
    float square = angle * angle;
    square = square > 2.4674011f ? 2.4674011f : square;  // sin² is one at most of what is too large to be reduced, too
    float size = fused(square, 8.13450343e-8f, -4.23375050e-6f);
    size = fused(square, size, 1.41024015e-4f);
    size = fused(square, size, -3.17454367e-3f);
    size = fused(square, size, 4.44444201e-2f);
    size = fused(square, size, -3.33333330e-1f);
    return square * fused(square, size, 1);
  }
}

template <int precision>
FASTVOC_DEVICE void sine_and_cosine(float angle, float& sine, float& cosine) {
  if constexpr (precision != kTfloat32) {
    sine = quick_sine(angle);
    cosine = quick_cosine(angle);
  } else {
    angle = reduced(angle);
    angle = angle > 1.5707964f ? 1.5707964f : angle < -1.5707964f ? -1.5707964f : angle;
    const float square = angle * angle;
    float size = fused(square, -2.38897790e-8f, 2.75253044e-6f);
    size = fused(square, size, -1.98408619e-4f);
    size = fused(square, size, 8.33333098e-3f);
    size = fused(square, size, -1.66666666e-1f);
    sine = fused(angle * square, size, angle);
    size = fused(square, -2.60514953e-7f, 2.47601614e-5f);
    size = fused(square, size, -1.38883614e-3f);
    size = fused(square, size, 4.16666363e-2f);
    size = fused(square, size, -4.99999994e-1f);
    cosine = fused(square, size, 1);
  }
}

// Snake of one value of the doubled signal: u + sin²(a u) * amount, where half of u is given.
template <int precision>
FASTVOC_DEVICE float snake(float half, float a, float amount) {
  const float u = 2 * half;
  return fused(sine_squared<precision>(a * u), amount, u);
}

// Two channels of a frame, as they are in memory.
template <int precision>
struct Pair {
  unsigned word[precision == kTfloat32 ? 2 : 1];
};

// Rows of the two channels of a lane; `second` is the distance between the channels. Beyond the ends the outermost
// frames are repeated, or nothing is there.
template <int precision, bool edges, bool words>
struct Rows {
  const char* first_row;
  int row_bytes, second, frames;

  FASTVOC_DEVICE Pair<precision> at(int row, bool repeated) const {
    bool real = true;
    if constexpr (edges) {
      real = repeated || (row >= 0 && row < frames);
      row = row < 0 ? 0 : row < frames ? row : frames - 1;
    }
    const char* const from = first_row + static_cast<long long>(row) * row_bytes;
    Pair<precision> pair = {};
    if (!real) return pair;
    if constexpr (precision == kTfloat32) {
      if constexpr (words) {
        const unsigned long long both = load_global(reinterpret_cast<const unsigned long long*>(from));
        pair.word[0] = static_cast<unsigned>(both), pair.word[1] = static_cast<unsigned>(both >> 32);
      } else {
        pair.word[0] = load_global(reinterpret_cast<const unsigned*>(from));
        pair.word[1] = load_global(reinterpret_cast<const unsigned*>(from + second));
      }
    } else if constexpr (words) {
      pair.word[0] = load_global(reinterpret_cast<const unsigned*>(from));
    } else {
      const unsigned low = load_global(reinterpret_cast<const unsigned short*>(from));
      pair.word[0] = low | static_cast<unsigned>(load_global(reinterpret_cast<const unsigned short*>(from + second)))
                               << 16;
    }
    return pair;
  }
};

template <int precision>
FASTVOC_DEVICE void unpack(const Pair<precision>& pair, float& low, float& high) {
  if constexpr (precision == kTfloat32) {
    low = as_float(pair.word[0]), high = as_float(pair.word[1]);
  } else {
    unpack_pair<precision>(pair.word[0], low, high);
  }
}

// `both`: whether the second channel exists.
template <int precision, bool words>
FASTVOC_DEVICE void store_pair(char* to, int second, bool both, float low, float high) {
  if constexpr (precision == kTfloat32) {
    if constexpr (words) {
      *reinterpret_cast<unsigned long long*>(to) =
          as_bits(low) | static_cast<unsigned long long>(as_bits(high)) << 32;
    } else {
      *reinterpret_cast<float*>(to) = low;
      if (both) *reinterpret_cast<float*>(to + second) = high;
    }
  } else {
    const unsigned pair = pack_pair<precision>(low, high);
    if constexpr (words) {
      *reinterpret_cast<unsigned*>(to) = pair;
    } else {
      *reinterpret_cast<unsigned short*>(to) = static_cast<unsigned short>(pair);
      if (both) *reinterpret_cast<unsigned short*>(to + second) = static_cast<unsigned short>(pair >> 16);
    }
  }
}

// What a lane does, and of which channels.
struct SnakeLane {
  int part, first, frames, channel;  // frames: of the item
  bool both;
  float a[2], amount[2];
};

template <int precision>
FASTVOC_DEVICE bool begin_lane(const Snake& call, SnakeLane& lane) {
  const int pairs = (call.channels + 1) / 2, number = block_x() * kSnakeThreads + thread();
  const int outer = number / (call.channels_last ? pairs : call.parts);
  const int inner = number - outer * (call.channels_last ? pairs : call.parts);
  lane.part = call.channels_last ? outer : inner;
  lane.channel = 2 * (call.channels_last ? inner : outer);
  lane.first = lane.part * snake_frames(call.stretches);
  const int length = call.lengths.items ? load_global(call.lengths.items + block_y()) : call.lengths.frames;
  lane.frames = length * call.rate + call.offset;
  if (lane.part >= call.parts || lane.channel >= call.channels) return false;
  lane.both = lane.channel + 1 < call.channels;
  const SnakeProblem& problem = call.problem[block_z()];
  const int type = call.parameters == kPackedNumbers ? kFloats : kElements;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int channel = lane.channel + (lane.both ? i : 0);
    float a = given_element(problem.alpha, channel, type, precision);
    float b = problem.beta ? given_element(problem.beta, channel, type, precision) : a;
    if (call.parameters == kLogarithms) a = exact_exponential(a), b = exact_exponential(b);
    lane.a[i] = a, lane.amount[i] = call.parameters == kPackedNumbers ? b : 1 / (b + kLeast);
  }
  return true;
}

// Where the two channels of a lane are, in a tensor with these strides.
template <int precision>
FASTVOC_DEVICE long long offset_of(const SnakeLane& lane, long long item, int channel) {
  return (block_y() * item + static_cast<long long>(lane.channel) * channel) * element_bytes(precision);
}

template <int precision, bool edges, bool words>
FASTVOC_DEVICE void snake_frames_of(const Snake& call, const SnakeLane& lane) {
  constexpr int bytes = element_bytes(precision);
  const SnakeProblem& problem = call.problem[block_z()];
  const Rows<precision, edges, words> x = {
      static_cast<const char*>(problem.x) + offset_of<precision>(lane, call.x_item, call.x_channel), call.x_frame * bytes,
      lane.both ? call.x_channel * bytes : 0, lane.frames};
  char* const y = static_cast<char*>(problem.y) + offset_of<precision>(lane, call.y_item, call.y_channel);
  const int y_row = call.y_frame * bytes, y_second = call.y_channel * bytes;
  float window[2][6], even[2][6] = {}, odd[2][6] = {}, begin[2], end[2];
  Pair<precision> next[6];
  if constexpr (edges) {
    // What is repeated in front of the doubled signal, and behind it.
#pragma unroll
    for (int i = 0; i < 6; ++i) unpack(x.at(i - 3, true), window[0][i], window[1][i]);
#pragma unroll
    for (int i = 0; i < 2; ++i) begin[i] = snake<precision>(filtered(window[i], 5), lane.a[i], lane.amount[i]);
#pragma unroll
    for (int i = 0; i < 6; ++i) unpack(x.at(lane.frames - 3 + i, true), window[0][i], window[1][i]);
#pragma unroll
    for (int i = 0; i < 2; ++i) end[i] = snake<precision>(filtered_backwards(window[i], 5), lane.a[i], lane.amount[i]);
  }
#pragma unroll
  for (int i = 0; i < 6; ++i) {
    unpack(x.at(lane.first - 6 + i, true), window[0][i], window[1][i]);
    next[i] = x.at(lane.first + i, true);
  }
  int row = lane.first;
#pragma unroll 1
  for (int stretch = 0; stretch < call.stretches; ++stretch) {
    row = anew(row);
    [[maybe_unused]] const int rounds = anew(call.rounds);  // lest there be a loop for either
    Pair<precision> here[6];
#pragma unroll
    for (int i = 0; i < 6; ++i) here[i] = next[i];
    if (stretch + 1 < call.stretches) {
#pragma unroll
      for (int i = 0; i < 6; ++i) next[i] = x.at(row + 6 + i, true);
    }
#pragma unroll
    for (int step = 0; step < 6; ++step, ++row) {
      unpack(here[step], window[0][step], window[1][step]);
      float made[2];
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        // Even frame row - 2 and odd frame row - 3 of the doubled signal.
        even[i][step] = snake<precision>(filtered(window[i], step), lane.a[i], lane.amount[i]);
        odd[i][step] = snake<precision>(filtered_backwards(window[i], step), lane.a[i], lane.amount[i]);
        if constexpr (edges) {
          if (row < 2) even[i][step] = begin[i];
          if (row - 2 >= lane.frames) even[i][step] = end[i];
          if (row < 3) odd[i][step] = begin[i];
          if (row - 3 >= lane.frames) odd[i][step] = end[i];
        }
        made[i] = filtered_backwards(even[i], step) + filtered(odd[i], step);
        if constexpr (precision == kTfloat32) {
          if (rounds) made[i] = round_tf32(made[i]);
        }
      }
      if ((step == 5 || stretch > 0) && (!edges || row - 5 < lane.frames)) {
        store_pair<precision, words>(y + static_cast<long long>(row - 5) * y_row, y_second, lane.both, made[0], made[1]);
      }
    }
  }
}

template <int precision>
FASTVOC_DEVICE void smooth_snake(const Snake& call) {
  if constexpr (precision == kBfloat16 && !kMultiplies<precision>) {
    trap();
    return;
  }
  let_next_kernel_begin();
  wait_for_previous_kernel();
  SnakeLane lane;
  if (!begin_lane<precision>(call, lane) || lane.first >= lane.frames) return;
  const bool edges = lane.first < 6 || lane.first + snake_frames(call.stretches) + 5 > lane.frames;
  if (!call.words) {
    snake_frames_of<precision, true, false>(call, lane);
  } else if (edges) {
    snake_frames_of<precision, true, true>(call, lane);
  } else {
    snake_frames_of<precision, false, true>(call, lane);
  }
}

// The gradients of the filters are the filters backwards, over the same frames. What was repeated beyond an end gives
// its gradient back to the outermost frame: a sum over frames that are at hand then. The sums of a lane are of
// g u sin(2 a u) and of g sin²(a u), over its own frames of the doubled signal.
template <int precision, bool edges, bool words>
FASTVOC_DEVICE void snake_gradients_of(const Snake& call, const SnakeLane& lane) {
  constexpr int bytes = element_bytes(precision);
  constexpr float two = kTap0 + kTap2, three = kTap0 + kTap1 + kTap2, five = kTap0 + kTap1 + kTap2 + kTap3 + kTap4;
  const SnakeProblem& problem = call.problem[0];
  const Rows<precision, edges, words> x = {
      static_cast<const char*>(problem.x) + offset_of<precision>(lane, call.x_item, call.x_channel), call.x_frame * bytes,
      lane.both ? call.x_channel * bytes : 0, lane.frames};
  const Rows<precision, edges, words> grad = {
      static_cast<const char*>(call.grad) + offset_of<precision>(lane, call.grad_item, call.grad_channel),
      call.grad_frame * bytes, lane.both ? call.grad_channel * bytes : 0, lane.frames};
  char* const y = static_cast<char*>(problem.y) + offset_of<precision>(lane, call.y_item, call.y_channel);
  const int y_row = call.y_frame * bytes, y_second = call.y_channel * bytes;
  float window[2][6], given[2][6], even[2][6] = {}, odd[2][6] = {}, frequency[2] = {}, divisor[2] = {};
#pragma unroll
  for (int i = 0; i < 6; ++i) {
    unpack(x.at(lane.first - 6 + i, true), window[0][i], window[1][i]);
    unpack(grad.at(lane.first - 6 + i, false), given[0][i], given[1][i]);
  }
  int row = lane.first;
  // A step takes so long that the next one's frames are there then.
  Pair<precision> here = x.at(row, true), there = grad.at(row, false);
#pragma unroll 1
  for (int stretch = 0; stretch < call.stretches; ++stretch) {
    const bool begins = stretch == 0, ends = stretch + 1 == call.stretches;
#pragma unroll
    for (int step = 0; step < 6; ++step, ++row) {
      unpack(here, window[0][step], window[1][step]);
      unpack(there, given[0][step], given[1][step]);
      row = anew(row);
      if (step < 5 || !ends) here = x.at(row + 1, true), there = grad.at(row + 1, false);
      float made[2];
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const float a = lane.a[i], amount = lane.amount[i];
        const float(&g)[6] = given[i];
        const auto ago = [&](const float(&values)[6], int steps) { return values[(step + 6 - steps) % 6]; };
        // Of s: even frame row - 2, and odd frame row - 3.
        float of_even = filtered(g, step), of_odd = filtered_backwards(g, step);
        if constexpr (edges) {
          if (row == 2) of_even += five * ago(g, 2) + (three * ago(g, 1) + kTap0 * ago(g, 0));
          if (row - 3 == lane.frames - 1) of_odd += five * ago(g, 3) + (three * ago(g, 4) + kTap0 * ago(g, 5));
          if (row < 2 || row - 2 >= lane.frames) of_even = 0;
          if (row < 3 || row - 3 >= lane.frames) of_odd = 0;
        }
        // Of u: ds = du (1 + a sin(2 a u) amount). Other lanes compute some of these frames too.
        const auto back = [&](float half, float g_here, bool counts) {
          const float u = 2 * half;
          float sine, cosine;
          sine_and_cosine<precision>(a * u, sine, cosine);
          const float twice = 2 * sine * cosine, counted = counts ? g_here : 0;
          frequency[i] = fused(counted, u * twice, frequency[i]);
          divisor[i] = fused(counted, sine * sine, divisor[i]);
          return g_here * fused(a * amount, twice, 1);
        };
        even[i][step] = back(filtered(window[i], step), of_even, (step >= 2 || !begins) && (step < 3 || !ends));
        odd[i][step] = back(filtered_backwards(window[i], step), of_odd,
                            (step >= 3 || !begins) && (step < 4 || !ends));
        // Of x: frame row - 5.
        float total = filtered_backwards(even[i], step) + filtered(odd[i], step);
        if constexpr (edges) {
          const float(&e)[6] = even[i], (&o)[6] = odd[i];
          if (row == 5) {
            total += (two + kTap4) * ago(e, 3) + two * ago(e, 2) + kTap0 * ago(e, 1) + (kTap1 + kTap3) * ago(o, 2) +
                     kTap1 * ago(o, 1);
          }
          if (row - 5 == lane.frames - 1) {
            total += (two + kTap4) * ago(o, 2) + two * ago(o, 3) + kTap0 * ago(o, 4) + (kTap1 + kTap3) * ago(e, 3) +
                     kTap1 * ago(e, 4);
          }
        }
        made[i] = 2 * total;
      }
      if (problem.y && (step == 5 || !begins) && (!edges || row - 5 < lane.frames)) {
        store_pair<precision, words>(y + static_cast<long long>(row - 5) * y_row, y_second, lane.both, made[0], made[1]);
      }
    }
  }
  if (!call.sums) return;
  const long long all = static_cast<long long>(call.items) * call.parts * call.channels;
  float* const sums =
      call.sums + (static_cast<long long>(block_y()) * call.parts + lane.part) * call.channels + lane.channel;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    if (i == 1 && !lane.both) break;
    sums[i] = frequency[i];
    sums[all + i] = divisor[i];
  }
}

template <int precision>
FASTVOC_DEVICE void smooth_snake_gradient(const Snake& call) {
  if constexpr (precision == kBfloat16 && !kMultiplies<precision>) {
    trap();
    return;
  }
  SnakeLane lane;
  if (!begin_lane<precision>(call, lane)) return;
  const bool edges = lane.first < 6 || lane.first + snake_frames(call.stretches) + 5 > lane.frames;
  if (!call.words) {
    snake_gradients_of<precision, true, false>(call, lane);
  } else if (edges) {
    snake_gradients_of<precision, true, true>(call, lane);
  } else {
    snake_gradients_of<precision, false, true>(call, lane);
  }
}

}  // namespace fastvoc::cuda
