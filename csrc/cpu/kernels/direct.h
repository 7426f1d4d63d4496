// Direct convolution on the CPU, register-blocked, on channels-last tiles: what conv1d and upsample are made of.
//
// The signal is cut into tiles. A tile of the input, with its halo, is activated, padded and laid channels-last into
// the thread's workspace; then a tap is a row offset, and dilation costs nothing:
//
//     workspace row   r = 0 .. rows + span        x[t0 - left + r], 0 / mirrored / repeated beyond the ends
//     output row      r = 0 .. rows               sum over tap k, channel c of  row[r + k * dilation][c] * w[k][c][:]
//
// Output channels are cut into panels of one or two vectors; the weight of a panel stays in the cache while all rows of
// the tile pass. A panel narrower than a vector (the head has one channel) takes `group` input channels per step
// instead, and adds neighbouring lanes at the end: with a group of all lanes it is a dot product.
//
// 12 rows x 2 vectors of accumulators fill the 32 registers of AVX-512 and NEON, 6 x 2 the 16 of AVX2.
#pragma once

#include "../../fastvoc.h"
#include "share_out.h"
#include "simd.h"
#include "tanh.h"

namespace fastvoc::FASTVOC_ISA {

constexpr int kRows = 12;

// Rows that are summed before they go to memory together: whole blocks of 12, and whole squares to transpose.
constexpr int kChunk = 48;

// Longest chain of additions in one accumulator; longer sums are sums of such chains, which keeps rounding as small as
// that of blocked libraries (768 to 2816 terms: a third of the error of one chain). Where products are rounded before
// they are added, chains are shorter for that.
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
constexpr int64_t kChain = 128;
#else
constexpr int64_t kChain = 32;
#endif

// Half of a 1 MiB second-level cache, with room for a panel of weights beside it.
constexpr int64_t kTileFloats = 48 * 1024;

struct Panel {
  int64_t first;   // output channel
  int width;       // output channels, padded
  int group;       // input channels per step
  int64_t offset;  // in the packed weight

  int vectors() const { return width > kLanes ? 2 : 1; }
};

// The panel that begins at an output channel.
inline Panel panel_at(int64_t first, int64_t out_channels, int64_t offset) {
  const int64_t left = out_channels - first;
  if (left > kLanes + kLanes / 2) return {first, 2 * kLanes, 1, offset};
  int width = kLanes;
  while (width / 2 >= left) width /= 2;
  return {first, width, kLanes / width, offset};
}

// Input channels of a workspace row: padded with zeros to whole groups. The last panel has the widest group.
inline int64_t row_length(const fastvoc_call& call) {
  Panel panel = panel_at(0, call.out_channels, 0);
  while (panel.first + panel.width < call.out_channels)
    panel = panel_at(panel.first + panel.width, call.out_channels, 0);
  return round_up(call.in_channels, panel.group);
}

template <class Visit>
void for_each_panel(const fastvoc_call& call, int64_t row, Visit visit) {
  int64_t offset = 0;
  for (int64_t first = 0; first < call.out_channels;) {
    const Panel panel = panel_at(first, call.out_channels, offset);
    visit(panel);
    first += panel.width;
    offset += call.taps * row * panel.width;
  }
}

inline int64_t span_of(const fastvoc_call& call) { return call.dilation * (call.taps - 1); }

inline int64_t out_frames_of(const fastvoc_call& call) {
  if (call.kind == FASTVOC_UPSAMPLE) return (call.in_frames - 1) * call.stride + call.taps - call.left - call.right;
  return (call.in_frames + call.left + call.right - span_of(call) - 1) / call.stride + 1;
}

// Rows of a tile: as many as the cache holds, but a share for every thread.
inline int64_t tile_rows(const fastvoc_call& call, int64_t row) {
  const int64_t held = larger(kTileFloats / row - span_of(call), 8 * kRows);
  const int64_t share = larger(call.batch, 1) * out_frames_of(call) / call.threads + 1;
  return larger(round_up(smaller(smaller(held, share), out_frames_of(call)), kRows), kRows);
}

inline int64_t thread_floats(const fastvoc_call& call, int64_t row) {
  return round_up((tile_rows(call, row) + span_of(call)) * row + kLanes, 16);
}

// The input frame that a padded frame shows, or -1 for a zero.
inline int64_t source(const fastvoc_call& call, int64_t frame) {
  if (frame >= 0 && frame < call.in_frames) return frame;
  if (call.padding_mode == FASTVOC_ZERO) return -1;
  if (call.padding_mode == FASTVOC_REPLICATE) return frame < 0 ? 0 : call.in_frames - 1;
  return frame < 0 ? -frame : 2 * (call.in_frames - 1) - frame;
}

// NaN is not positive and stays NaN.
inline float activate(float value, float slope) { return value > 0 ? value : value * slope; }

// Fill rows [0, count) of a workspace with activated input from padded frame `frame` on; rows beyond `valid` are zeros.
// Out of line, because it is long and many call it.
__attribute__((noinline)) inline void load_tile(const fastvoc_call& call, const float* x, const int64_t* strides,
                                                int64_t frame, int64_t valid, int64_t count, float* rows,
                                                int64_t row) {
  const int64_t channels = call.in_channels, across = strides[1], along = strides[2];
  const float slope = call.slope;
  const int64_t begin = smaller(larger(-frame, 0), valid);
  const int64_t end = larger(smaller(call.in_frames - frame, valid), begin);
  const auto fill = [&](int64_t r, int64_t from) {
    float* to = rows + r * row;
    const float* in = from < 0 ? nullptr : x + from * along;
    if (from < 0) {
      for (int64_t c = 0; c < row; ++c) to[c] = 0;
    } else if (across == 1) {
      for (int64_t c = 0; c < channels; ++c) to[c] = activate(in[c], slope);
      for (int64_t c = channels; c < row; ++c) to[c] = 0;
    } else {
      for (int64_t c = 0; c < channels; ++c) to[c] = activate(in[c * across], slope);
      for (int64_t c = channels; c < row; ++c) to[c] = 0;
    }
  };
  for (int64_t r = 0; r < begin; ++r) fill(r, source(call, frame + r));
  if (along == 1 && across != 1 && end - begin >= kLanes) {
    // Frames are neighbours: transpose squares. A square wider than what is left of a row spills into the next one, so
    // columns go from last to first and rows from first to last; the last rows are done twice rather than in part.
    // Rows are the inner loop, because hardware follows kLanes streams at once but not one per channel.
    for (int64_t c = round_up(row, kLanes) - kLanes; c >= 0; c -= kLanes) {
      for (int64_t r = begin; r < end; r += kLanes) {
        const int64_t at = smaller(r, end - kLanes);
        Vector square[kLanes];
        for (int i = 0; i < kLanes; ++i) {
          const Vector v = c + i < channels ? load(x + (c + i) * across + frame + at) : Vector{};
          square[i] = v > 0 ? v : v * slope;
        }
        transpose(square);
        for (int i = 0; i < kLanes; ++i) store(rows + (at + i) * row + c, square[i]);
      }
    }
  } else {
    for (int64_t r = begin; r < end; ++r) fill(r, frame + r);
  }
  for (int64_t r = end; r < valid; ++r) fill(r, source(call, frame + r));
  for (int64_t r = valid; r < count; ++r) fill(r, -1);
}

constexpr int folded(int count, int group) { return group > 1 ? folded((count + 1) / 2, group / 2) : count; }

// Add the lanes of each group, so that the first vectors hold finished sums, row after row. All indices are constant:
// one that is not would move the accumulators from registers to memory.
template <int Count, int Group, int Rows, int Vectors>
inline void fold(Vector (&sum)[Rows][Vectors]) {
  if constexpr (Group > 1) {
    constexpr int kHalf = (Count + 1) / 2;
#pragma GCC unroll 6
    for (int i = 0; i < kHalf; ++i)
      sum[i][0] = add_neighbours(sum[2 * i][0], 2 * i + 1 < Count ? sum[2 * i + 1][0] : Vector{});
    fold<kHalf, Group / 2>(sum);
  }
}

// Add the accumulators to `sums`, or if they are the first write them there with the bias, and clear them.
template <int Rows, int Vectors, int Group>
inline void flush(Vector (&sum)[Rows][Vectors], const float* bias, float* sums) {
  fold<Rows, Group>(sum);
  constexpr int kHeight = folded(Rows, Group);
#pragma GCC unroll 12
  for (int r = 0; r < kHeight; ++r)
#pragma GCC unroll 2
    for (int v = 0; v < Vectors; ++v) {
      float* to = sums + (r * Vectors + v) * kLanes;
      store(to, sum[r][v] + load(bias ? bias + v * kLanes : to));
    }
#pragma GCC unroll 12
  for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 2
    for (int v = 0; v < Vectors; ++v) sum[r][v] = Vector{};
}

// What a kernel adds up, one after the other: taps, of rows so many elements apart, and of weights that follow one another
// but for so many elements.
struct Taps {
  int64_t count, apart, gap;
};

// A second input of a convolution of one tap, which is summed with the first: how far its rows, and its packed weights,
// are behind those of the first, in elements. Both have as many channels, and rows as long.
struct Second {
  int64_t rows = 0, weights = 0;
};

// `length` elements of a panel's weights belong to a tap.
inline Taps taps_of(const fastvoc_call& call, int64_t row, const Second& second, int64_t length) {
  if (second.weights == 0) return {call.taps, call.dilation * row, 0};
  return {2, second.rows, second.weights - length};
}

// `Rows` x `Vectors` accumulators over all taps and channels. The taps and the channels are
// run-time numbers on purpose, and the function is kept out of line: constant ones make GCC spill accumulators.
// Weights that come from memory are asked for `Ahead` floats before they are read.
template <int Rows, int Vectors, int Group, int64_t Chain = kChain, int Ahead = 0>
__attribute__((noinline)) void accumulate(const float* rows, int64_t row, const float* weight, const Taps& taps,
                                          int64_t steps, const float* bias, float* sums) {
  static_assert(Rows % 3 == 0);
  Vector sum[Rows][Vectors] = {};
  int64_t chained = 0;
  for (int64_t tap = 0; tap < taps.count; ++tap, rows += taps.apart, weight += taps.gap) {
    // Three rows per pointer keep the addresses in few registers.
    const float* x[Rows / 3];
#pragma GCC unroll 4
    for (int i = 0; i < Rows / 3; ++i) x[i] = rows + 3 * i * row;
    for (int64_t step = 0; step < steps;) {
      const int64_t end = smaller(step + Chain - chained, steps);
      chained += end - step;
      for (; step < end; ++step) {
        Vector w[Vectors];
#pragma GCC unroll 2
        for (int v = 0; v < Vectors; ++v) w[v] = load(weight + v * kLanes);
        if constexpr (Ahead > 0) {
#pragma GCC unroll 2
          for (int v = 0; v < Vectors; ++v) __builtin_prefetch(weight + v * kLanes + Ahead);
        }
        weight += Vectors * kLanes;
#pragma GCC unroll 4
        for (int i = 0; i < Rows / 3; ++i) {
#pragma GCC unroll 3
          for (int j = 0; j < 3; ++j) {
            const Vector value = repeat<Group>(x[i] + j * row);
#pragma GCC unroll 2
            for (int v = 0; v < Vectors; ++v) sum[3 * i + j][v] += value * w[v];
          }
          x[i] += Group;
        }
      }
      if (chained == Chain) {
        flush<Rows, Vectors, Group>(sum, bias, sums);
        bias = nullptr;
        chained = 0;
      }
    }
  }
  if (chained > 0) flush<Rows, Vectors, Group>(sum, bias, sums);
}

// Sums of `count` rows of a panel, or of kRows, row after row, `panel.width` floats each.
template <int64_t Chain = kChain, int Ahead = 0>
inline void accumulate_panel(const Panel& panel, const fastvoc_call& call, const float* rows, int64_t row,
                             const float* packed, const float* bias, float* sums, const Second& second,
                             int64_t count = kRows) {
  const int64_t steps = row / panel.group;
  const Taps taps = taps_of(call, row, second, steps * panel.vectors() * kLanes);
  const auto run = [&](auto function, int height) {
    for (int r = 0; r < kRows; r += height)
      function(rows + r * row, row, packed + panel.offset, taps, steps, bias, sums + r * panel.width);
  };
  constexpr int kHeight = rows_in_registers(2);
  if constexpr (kHeight > 6) {
    if (count <= 6 && panel.vectors() == 2)
      return accumulate<6, 2, 1, Chain, Ahead>(rows, row, packed + panel.offset, taps, steps, bias, sums);
  }
  if (panel.vectors() == 2) return run(accumulate<kHeight, 2, 1, Chain, Ahead>, kHeight);
  if (panel.group == 1) return run(accumulate<kRows, 1, 1, Chain>, kRows);
  if (panel.group == 2) return run(accumulate<kRows, 1, 2, Chain>, kRows);
  if (panel.group == 4) return run(accumulate<kRows, 1, 4, Chain>, kRows);
  if constexpr (kLanes >= 8) {
    if (panel.group == 8) return run(accumulate<kRows, 1, 8, Chain>, kRows);
  }
  if constexpr (kLanes >= 16) return run(accumulate<kRows, 1, 16, Chain>, kRows);
}

// The bias of a panel in the lanes of its finished sums.
inline void load_bias(const Panel& panel, const fastvoc_call& call, const float* bias, float* lanes) {
  for (int lane = 0; lane < 2 * kLanes; ++lane) {
    const int64_t out = panel.first + lane % panel.width;
    lanes[lane] = bias && out < call.out_channels ? bias[out] : 0;
  }
}

// A (channels, frames) matrix in memory from some frame on; `Float` is const for what is only read.
template <class Float>
struct Rows {
  Float* data;
  int64_t across, along;
};

template <class Float>
inline Rows<Float> rows_at(Float* data, const int64_t* strides, int64_t batch, int64_t frame) {
  if (!data) return {nullptr, 0, 0};
  return {data + batch * strides[0] + frame * strides[2], strides[1], strides[2]};
}

// Residual and tanh, and the way to memory, of `count` rows of a panel.
inline void store_chunk(const Panel& panel, const fastvoc_call& call, float* sums, int64_t count,
                        Rows<const float> residual, Rows<float> y) {
  const int64_t width = smaller(panel.width, call.out_channels - panel.first), stride = panel.width;
  y.data += panel.first * y.across;
  if (residual.data) residual.data += panel.first * residual.across;
  if (call.tanh) {
    for (int64_t r = 0; residual.data && r < count; ++r)
      for (int64_t c = 0; c < width; ++c)
        sums[r * stride + c] += residual.data[c * residual.across + r * residual.along];
    residual.data = nullptr;
    for (int64_t i = 0; i < count * stride; i += kLanes) store(sums + i, tanh(load(sums + i)));
  }
  const bool one = call.out_channels == 1;
  const auto dense = [&](const auto& rows) { return (rows.across == 1 || one) && rows.along == width; };
  const auto store_row = [&](const float* sum, const float* skip, float* to, int64_t length) {
    int64_t c = 0;
    for (; c + kLanes <= length; c += kLanes) store(to + c, skip ? load(sum + c) + load(skip + c) : load(sum + c));
    for (; c < length; ++c) to[c] = skip ? sum[c] + skip[c] : sum[c];
  };
  if (width == stride && dense(y) && (!residual.data || dense(residual))) {
    store_row(sums, residual.data, y.data, count * stride);
  } else if (y.across == 1 && (!residual.data || residual.across == 1)) {
    for (int64_t r = 0; r < count; ++r)
      store_row(sums + r * stride, residual.data ? residual.data + r * residual.along : nullptr, y.data + r * y.along,
                width);
  } else if (y.along == 1 && (!residual.data || residual.along == 1) && count >= kLanes) {
    for (int64_t c = 0; c < width; c += kLanes)
      for (int64_t r = 0; r < count; r += kLanes) {
        const int64_t at = smaller(r, count - kLanes);
        Vector square[kLanes];
        for (int i = 0; i < kLanes; ++i) square[i] = load(sums + (at + i) * stride + c);
        transpose(square);
        for (int i = 0; i < smaller(kLanes, width - c); ++i) {
          const int64_t channel = c + i;
          const Vector sum =
              residual.data ? square[i] + load(residual.data + channel * residual.across + at) : square[i];
          store(y.data + channel * y.across + at, sum);
        }
      }
  } else {
    for (int64_t c = 0; c < width; ++c)
      for (int64_t r = 0; r < count; ++r)
        y.data[c * y.across + r * y.along] =
            sums[r * stride + c] + (residual.data ? residual.data[c * residual.across + r * residual.along] : 0);
  }
}

inline int64_t packed_floats(const fastvoc_call& call, int64_t row) {
  int64_t size = 0;
  for_each_panel(call, row, [&](const Panel& panel) { size = panel.offset + call.taps * row * panel.width; });
  return size;
}

// conv1d's weight (out_channels, in_channels, taps), one by one.
inline auto conv_weights(const fastvoc_call& call, const float* weight) {
  return [&call, weight](int64_t out, int64_t in, int64_t tap) {
    return weight[(out * call.in_channels + in) * call.taps + tap];
  };
}

// Bring a weight (out_channels, in_channels, taps) into the order in which the panels are read.
inline void pack_panels(const fastvoc_call& call, int64_t row, const float* weight, float* packed) {
  const int64_t taps = call.taps, length = call.in_channels * taps;
  for_each_panel(call, row, [&](const Panel& panel) {
    const int64_t steps = row / panel.group, width = panel.vectors() * kLanes;
    float* const begin = packed + panel.offset;
    if (panel.group == 1) {
      // A panel is a matrix (output channel, input channel and tap) to transpose.
#pragma omp parallel for num_threads(call.threads) if (length * width > 65536)
      for (int64_t m = 0; m < length; m += kLanes)
        for (int64_t lane = 0; lane < width; lane += kLanes) {
          const int64_t at = smaller(m, larger(length - kLanes, 0)), count = smaller(kLanes, length);
          Vector square[kLanes];
          for (int i = 0; i < kLanes; ++i) {
            const int64_t out = panel.first + lane + i;
            square[i] = Vector{};
            if (out >= call.out_channels) continue;
            if (count == kLanes) {
              square[i] = load(weight + out * length + at);
            } else {
              for (int j = 0; j < count; ++j) square[i][j] = weight[out * length + at + j];
            }
          }
          transpose(square);
          for (int64_t i = 0; i < count; ++i)
            store(begin + ((at + i) % taps * steps + (at + i) / taps) * width + lane, square[i]);
        }
    } else {
      for (int64_t step = 0; step < steps; ++step)
        for (int64_t tap = 0; tap < taps; ++tap)
          for (int64_t lane = 0; lane < width; ++lane) {
            const int64_t out = panel.first + lane / panel.group, in = step * panel.group + lane % panel.group;
            const bool inside = out < call.out_channels && in < call.in_channels;
            begin[(tap * steps + step) * width + lane] =
                inside ? weight[(out * call.in_channels + in) * taps + tap] : 0;
          }
    }
    // Where a later panel has a wider group, rows end in zeros, and so do the weights that meet them.
    for (int64_t step = call.in_channels; panel.group == 1 && step < steps; ++step)
      for (int64_t tap = 0; tap < taps; ++tap)
        for (int64_t lane = 0; lane < width; lane += kLanes)
          store(begin + (tap * steps + step) * width + lane, Vector{});
  });
}

// All rows of a loaded tile, for one panel: `to_memory(sums, chunk, count)` takes them, kChunk at a time.
template <int64_t Chain = kChain, int Ahead = 0, class ToMemory>
inline void convolve_panel(const Panel& panel, const fastvoc_call& call, const float* rows, int64_t row,
                           int64_t height, const float* packed, const float* bias, float* sums, ToMemory to_memory,
                           const Second& second = {}) {
  alignas(64) float lanes[2 * kLanes];
  load_bias(panel, call, bias, lanes);
  for (int64_t chunk = 0; chunk < height; chunk += kChunk) {
    const int64_t count = smaller(kChunk, height - chunk);
    for (int64_t r = 0; r < count; r += kRows)
      accumulate_panel<Chain, Ahead>(panel, call, rows + (chunk + r) * row, row, packed, lanes, sums + r * panel.width,
                                     second, count - r);
    to_memory(sums, chunk, count);
  }
}

// Load each tile once and hand it on as `convolve(rows, row, batch, begin, height, sums)`. Each thread has a part
// of the workspace of its own.
template <class Convolve>
inline void for_each_tile(const fastvoc_call& call, const float* x, const int64_t* x_strides, float* workspace,
                          Convolve convolve) {
  const int64_t frames = out_frames_of(call), row = row_length(call), rows = tile_rows(call, row);
  const int64_t tiles = (frames + rows - 1) / rows, floats = thread_floats(call, row);
  share_out(call.threads, call.batch * tiles, [&](int64_t worker, int64_t tile) {
    float* own = workspace + worker * floats;
    alignas(64) float sums[kChunk * 2 * kLanes + kLanes * kLanes];
    const int64_t batch = tile / tiles, begin = tile % tiles * rows, height = smaller(rows, frames - begin);
    load_tile(call, x + batch * x_strides[0], x_strides, begin - call.left, height + span_of(call),
              round_up(height, kRows) + span_of(call), own, row);
    convolve(own, row, batch, begin, height, sums);
  });
}

}  // namespace fastvoc::FASTVOC_ISA
