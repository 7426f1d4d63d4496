// Matrix products over strips of memory: what strided_conv1d and its gradient are made of.
//
// A signal is copied once into a *field*: for each group of channels and each item of the batch, channels-last rows with
// zeros before and behind. All that an output frame of a strided convolution reads is then one strip of neighbouring
// numbers, `taps` rows long, and the next frame's strip begins `stride` rows on:
//
//     y[m][o] = sum over p of  strip(m)[p] * weight[p][o],    p = (tap, channel)
//
// So stride, groups, batch and a wave folded into columns all become addresses of strips, and blocks of rows run over
// the seams between items. Output channels are cut into panels of one or two vectors, as in direct.h; a panel of the
// weight is brought into the order of the sum once, and all strips pass before the next one is.
#pragma once

#include <array>

#include "direct.h"

namespace fastvoc::FASTVOC_ISA {

// Strips whose sums are in the first-level cache together, while a piece of the panel stays there.
constexpr int64_t kStrips = 96;

// Strips that meet a panel together: as many as there are registers for sums, or for addresses.
constexpr int height_of(int vectors) { return kRegisters == 16 && vectors == 1 ? 9 : rows_in_registers(vectors); }

struct Field {
  int64_t groups, batch, channels, before, frames, after;  // channels of a group; rows of zeros around the frames

  // Rows that are a multiple of 4 KiB apart would meet in one set of the cache.
  int64_t pitch() const { return channels % 256 == 0 ? channels + 16 : channels; }
  int64_t rows() const { return before + frames + after; }
  int64_t group_floats() const { return batch * rows() * pitch(); }
  // A vector may read beyond the last row.
  int64_t floats() const { return round_up(groups * group_floats() + 2 * kLanes, 16); }
};

// The input of a strided_conv1d, with its padding.
inline Field input_field(const fastvoc_call& call) {
  return {call.groups, call.batch, call.in_channels / call.groups, call.left, call.in_frames, call.right};
}

// A (batch, channels, frames) tensor.
struct Tensor {
  const float* data;
  const int64_t* strides;
};

// Copy a signal into its field. With a gate, numbers where that is not positive are multiplied by the slope.
inline void fill(const Field& field, const Tensor& from, const Tensor* gate, float slope, int threads, float* to) {
  constexpr int64_t kPiece = 32;  // rows that all groups take before the next ones
  const int64_t pitch = field.pitch(), rows = field.rows(), pieces = (rows + kPiece - 1) / kPiece;
  const int64_t across = from.strides[1], along = from.strides[2];
  const Tensor sign = gate ? *gate : from;
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
  for (int64_t item = 0; item < field.batch * pieces; ++item) {
    const int64_t batch = item / pieces, first = item % pieces * kPiece, last = smaller(first + kPiece, rows);
    const int64_t begin = smaller(larger(field.before, first), last);
    const int64_t end = larger(smaller(field.before + field.frames, last), begin);
    for (int64_t group = 0; group < field.groups; ++group) {
      const int64_t channel = group * field.channels;
      const float* const in = from.data + batch * from.strides[0] + channel * across;
      const float* const signs = sign.data + batch * sign.strides[0] + channel * sign.strides[1];
      float* const out = to + group * field.group_floats() + batch * rows * pitch;
      for (int64_t i = first * pitch; i < begin * pitch; ++i) out[i] = 0;
      for (int64_t i = end * pitch; i < last * pitch; ++i) out[i] = 0;
      for (int64_t r = begin; r < end; ++r)
        for (int64_t c = field.channels; c < pitch; ++c) out[r * pitch + c] = 0;
      if (across == 1 && sign.strides[1] == 1) {
        for (int64_t r = begin; r < end; ++r) {
          float* const row = out + r * pitch;
          const float* const values = in + (r - field.before) * along;
          const float* const passes = signs + (r - field.before) * sign.strides[2];
          int64_t c = 0;
          for (; c + kLanes <= field.channels; c += kLanes) {
            const Vector value = load(values + c);
            store(row + c, !gate || load(passes + c) > 0 ? value : value * slope);
          }
          for (; c < field.channels; ++c) row[c] = !gate || passes[c] > 0 ? values[c] : values[c] * slope;
        }
      } else {
        for (int64_t c = 0; c < field.channels; ++c)
          for (int64_t r = begin; r < end; ++r) {
            const int64_t t = r - field.before;
            const float value = in[c * across + t * along];
            const bool passes = !gate || signs[c * sign.strides[1] + t * sign.strides[2]] > 0;
            out[r * pitch + c] = passes ? value : value * slope;
          }
      }
    }
  }
  for (int64_t i = field.groups * field.group_floats(); i < field.floats(); ++i) to[i] = 0;
}

// `Rows` x `Vectors` accumulators over neighbouring numbers of the strips; with a bias the sums begin with it.
template <int Rows, int Vectors>
__attribute__((noinline)) void multiply(const float* const* strips, int64_t offset, int64_t steps, const float* weight,
                                        const float* bias, float* sums) {
  Vector sum[Rows][Vectors] = {};
  const float* x[Rows];
#pragma GCC unroll 12
  for (int r = 0; r < Rows; ++r) x[r] = strips[r] + offset;
  for (int64_t step = 0; step < steps; ++step) {
    Vector w[Vectors];
#pragma GCC unroll 2
    for (int v = 0; v < Vectors; ++v) w[v] = load(weight + v * kLanes);
    weight += Vectors * kLanes;
#pragma GCC unroll 12
    for (int r = 0; r < Rows; ++r) {
      const Vector value = splat(x[r][step]);
#pragma GCC unroll 2
      for (int v = 0; v < Vectors; ++v) sum[r][v] += value * w[v];
    }
  }
#pragma GCC unroll 12
  for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 2
    for (int v = 0; v < Vectors; ++v) {
      float* const to = sums + (r * Vectors + v) * kLanes;
      store(to, sum[r][v] + load(bias ? bias + v * kLanes : to));
    }
}

using Multiply = void (*)(const float* const*, int64_t, int64_t, const float*, const float*, float*);

template <int Vectors, int... Row>
constexpr std::array<Multiply, sizeof...(Row)> multiplies(std::integer_sequence<int, Row...>) {
  return {multiply<Row + 1, Vectors>...};
}

// Visit (first, count) of as few blocks as there can be, all about as high.
template <class Visit>
inline void for_each_block(int64_t count, int64_t height, Visit visit) {
  const int64_t blocks = (count + height - 1) / height;
  for (int64_t n = 0; n < blocks; ++n) {
    const int64_t first = n * count / blocks;
    visit(first, (n + 1) * count / blocks - first);
  }
}

// How the numbers of a strip follow each other: `runs` of `length` neighbours, `distance` apart.
struct Strip {
  int64_t runs, length, distance;

  Strip(const Field& field, int64_t taps)
      : runs(field.pitch() == field.channels ? 1 : taps),
        length(runs == 1 ? taps * field.channels : field.channels),
        distance(field.pitch()) {}
};

// The products of `count` strips, at most kStrips, with a panel: sums[strip][lane].
template <int Vectors>
inline void multiply_strips(const Strip& strip, const float* const* strips, int64_t count, const float* panel,
                            const float* bias, float* sums) {
  constexpr int kHeight = height_of(Vectors), kWidth = Vectors * kLanes;
  static constexpr auto kTable = multiplies<Vectors>(std::make_integer_sequence<int, kHeight>{});
  // A chain of channels in all taps before the next ones: taps read the same rows again while these are near.
  for_each_block(strip.length, kChain, [&](int64_t begin, int64_t steps) {
    for (int64_t run = 0; run < strip.runs; ++run) {
      const float* const weight = panel + (run * strip.length + begin) * kWidth;
      const float* const start = run + begin == 0 ? bias : nullptr;
      for_each_block(count, kHeight, [&](int64_t first, int64_t rows) {
        kTable[rows - 1](strips + first, run * strip.distance + begin, steps, weight, start, sums + first * kWidth);
      });
    }
  });
}

// Transpose `lanes` rows of `length` numbers, `distance` apart: number `i` of each goes to the lanes at place(i). Lanes
// up to a whole number of vectors become zeros. Nothing is read from `end` on. All lanes of a place are written at once,
// because places are often a multiple of 4 KiB apart and push each other out of the cache. What lies `ahead` is asked
// for: rows are too many, or too short, for hardware to see where they go on.
template <class Place>
inline void transpose_rows(const float* from, int64_t distance, int64_t lanes, int64_t length, const float* end,
                           int64_t ahead, Place place) {
  for (int64_t i = 0; i < length; i += kLanes)
    for (int64_t lane = 0; lane < lanes; lane += kLanes) {
      Vector square[kLanes];
      for (int n = 0; n < kLanes; ++n) {
        const float* const row = from + (lane + n) * distance + i;
        __builtin_prefetch(row + ahead);
        if (lane + n >= lanes) {
          square[n] = Vector{};
        } else if (row + kLanes <= end) {
          square[n] = load(row);
        } else {
          for (int k = 0; k < kLanes; ++k) square[n][k] = row + k < end ? row[k] : 0;
        }
      }
      transpose(square);
      for (int64_t k = 0; k < smaller(kLanes, length - i); ++k) store(place(i + k) + lane, square[k]);
    }
}

// How many panels so many channels make.
inline int64_t panels_of(int64_t channels) { return (channels + 2 * kLanes - 1) / (2 * kLanes); }

// Parts in which the strips of a panel are shared out, so that there is work for every thread.
inline int64_t parts_of(int64_t panels, int64_t strips, int threads) {
  const int64_t wanted = threads == 1 ? 1 : (2 * threads + panels - 1) / panels;
  return smaller(wanted, larger((strips + kStrips - 1) / kStrips, 1));
}

// `count` sums of one frame, `across` apart in memory.
inline void store_activated(const float* sums, int64_t count, float slope, float* to, int64_t across) {
  int64_t c = 0;
  for (; across == 1 && c + kLanes <= count; c += kLanes) {
    const Vector sum = load(sums + c);
    store(to + c, sum > 0 ? sum : sum * slope);
  }
  for (; c < count; ++c) to[c * across] = activate(sums[c], slope);
}

}  // namespace fastvoc::FASTVOC_ISA
