// The gradient of a weight on the CPU: what conv1d's and upsample's have in common.
//
// Both are a correlation of two signals, one frame of the first per step and the frames around it of the second:
//
//     gradient[f, s, k] = sum over batch, step t of  fixed[f, t] * sliding[s, t * stride + k * dilation - shift]
//
// Time is cut into tiles. In a tile the fixed signal lies with frames as neighbours, the sliding one, activated and
// padded, in panels of one or two vectors of channels; then a step is an outer product of a few numbers of the one with
// a panel of the other, and a tap is a row offset:
//
//     sums[f][tap][lane] += fixed[f][t] * panel[t * stride + k * dilation][lane]
//
// As many panels as a cache holds the sums of take all of time before the next begin, so that a tile of the fixed signal
// is brought into its order once for them. Threads share the tiles and
// divide the sums among themselves, so that every sum is made by one thread in the order of time: results are equal bit
// for bit at any number of threads.
#pragma once

#include "direct.h"

namespace fastvoc::FASTVOC_ISA {

// Steps of a tile at most: the panel of a tile and the rows that meet it then stay in a first-level cache of 48 KiB. It
// is also the longest chain of additions in one accumulator.
constexpr int64_t kSteps = 2 * kChain;

// Rows of the fixed signal that meet a panel together; those that are left over go in threes.
constexpr int64_t kHeight = rows_in_registers(2);

// Sums of panels that take a tile one behind the other: three quarters of a second-level cache of 1 MiB. They are touched
// once for each tile; half as many took 8 % longer with 512 rows of three taps (one core of an AMD EPYC of family 26).
constexpr int64_t kHeldSums = 192 * 1024;

// Rows of the fixed signal at most that are taken together: of more, a tile would have so few steps that sums are brought
// from memory and back more often than is added to them. 4096 rows at once took 2.3 times as long.
constexpr int64_t kMostRows = 512;

// Frames of a panel that one thread loads.
constexpr int64_t kLoad = 128;

// Up to so many taps, a weight is brought into another order number by number, and by transposing squares beyond that:
// with 256 channels, 3 taps take 56 us against 66 us, 7 take 159 us against 75 us (one core of an AMD EPYC of family
// 26, 2026-11-20).
constexpr int64_t kFew = 3;

struct Signal {
  const float* data;
  const int64_t* strides;  // (batch, channel, frame)
  int64_t channels, frames;
  float slope;  // of the leaky ReLU that it goes through
};

struct Correlation {
  int threads, padding_mode;  // of the sliding signal
  int64_t batch, fixed_channels, sliding_channels, steps, taps, dilation, stride, shift;

  int64_t height() const { return round_up(fixed_channels, 3); }
  int64_t width() const { return sliding_channels > kLanes ? 2 * kLanes : kLanes; }
  int64_t span() const { return dilation * (taps - 1); }

  int64_t tile_steps() const {
    const int64_t held = round_up(128 * 1024 / (height() + width() * stride), 32);
    return smaller(larger(smaller(held, kSteps), 32), round_up(larger(steps, 1), 32));
  }

  // An odd number of cache lines, so that rows do not meet in one set of the cache.
  int64_t pitch() const { return (round_up(tile_steps(), 16) / 16 | 1) * 16; }
  int64_t panel_frames() const { return (tile_steps() - 1) * stride + span() + 1; }

  int64_t panel_sums() const { return height() * taps * width(); }
  int64_t panels_together() const {
    return larger(smaller(kHeldSums / panel_sums(), (sliding_channels + 2 * kLanes - 1) / (2 * kLanes)), 1);
  }
  int64_t sums_floats() const { return panels_together() * panel_sums(); }
  int64_t fixed_floats() const { return round_up(height() * pitch(), 16); }
  int64_t panel_floats() const { return width() * panel_frames(); }
  int64_t floats() const { return sums_floats() + fixed_floats() + panel_floats(); }

  // The rows of the fixed signal that are taken together, from one on.
  Correlation part(int64_t first) const {
    Correlation part = *this;
    part.fixed_channels = smaller(kMostRows, fixed_channels - first);
    return part;
  }

  int64_t workspace_floats() const {
    return larger(part(0).floats(), part((fixed_channels - 1) / kMostRows * kMostRows).floats());
  }
};

// Activated rows [first, first + kLanes) of the fixed signal, from one frame on.
__attribute__((noinline)) inline void load_fixed(const Signal& signal, const float* data, int64_t first, int64_t frame,
                                                 int64_t count, float* tile, int64_t pitch) {
  const int64_t across = signal.strides[1], along = signal.strides[2];
  const int64_t channels = smaller(kLanes, signal.channels - first);
  const float* const from = data + first * across + frame * along;
  float* const to = tile + first * pitch;
  int64_t t = 0;
  if (across == 1 && channels == kLanes) {
    for (; t + kLanes <= count; t += kLanes) {
      Vector square[kLanes];
      for (int i = 0; i < kLanes; ++i) {
        const Vector v = load(from + (t + i) * along);
        square[i] = v > 0 ? v : v * signal.slope;
      }
      transpose(square);
      for (int i = 0; i < kLanes; ++i) store(to + i * pitch + t, square[i]);
    }
  } else if (along == 1) {
    for (; t + kLanes <= count; t += kLanes)
      for (int64_t c = 0; c < channels; ++c) {
        const Vector v = load(from + c * across + t);
        store(to + c * pitch + t, v > 0 ? v : v * signal.slope);
      }
  }
  for (int64_t c = 0; c < channels; ++c)
    for (int64_t i = t; i < count; ++i) to[c * pitch + i] = activate(from[c * across + i * along], signal.slope);
}

// `Rows` x `Vectors` accumulators over all steps. As in `accumulate`, the sizes are run-time numbers, and three rows
// per pointer keep the addresses in few registers.
template <int Rows, int Vectors>
__attribute__((noinline)) void correlate(const float* fixed, int64_t pitch, const float* sliding, int64_t distance,
                                         int64_t steps, bool first, float* sums, int64_t row) {
  static_assert(Rows % 3 == 0);
  Vector sum[Rows][Vectors] = {};
  const float* x[Rows / 3];
#pragma GCC unroll 4
  for (int i = 0; i < Rows / 3; ++i) x[i] = fixed + 3 * i * pitch;
  for (int64_t step = 0; step < steps; ++step) {
    Vector w[Vectors];
#pragma GCC unroll 2
    for (int v = 0; v < Vectors; ++v) w[v] = load(sliding + v * kLanes);
    sliding += distance;
#pragma GCC unroll 4
    for (int i = 0; i < Rows / 3; ++i) {
#pragma GCC unroll 3
      for (int j = 0; j < 3; ++j) {
        const Vector value = splat(x[i][j * pitch]);
#pragma GCC unroll 2
        for (int v = 0; v < Vectors; ++v) sum[3 * i + j][v] += value * w[v];
      }
      ++x[i];
    }
  }
#pragma GCC unroll 12
  for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 2
    for (int v = 0; v < Vectors; ++v) {
      float* const to = sums + r * row + v * kLanes;
      store(to, first ? sum[r][v] : load(to) + sum[r][v]);
    }
}

template <int Vectors>
inline void correlate_rows(int64_t rows, const float* fixed, int64_t pitch, const float* sliding, int64_t distance,
                           int64_t steps, bool first, float* sums, int64_t row) {
  if (rows == 3) return correlate<3, Vectors>(fixed, pitch, sliding, distance, steps, first, sums, row);
  if constexpr (kHeight == 12) {
    if (rows == 9) return correlate<9, Vectors>(fixed, pitch, sliding, distance, steps, first, sums, row);
    if (rows == 12) return correlate<12, Vectors>(fixed, pitch, sliding, distance, steps, first, sums, row);
  }
  correlate<6, Vectors>(fixed, pitch, sliding, distance, steps, first, sums, row);
}

// Sums of one row of the fixed signal and `channels` of the sliding one, from (tap, lane) to memory order
// (channel, tap).
inline void store_row(const float* sums, int64_t width, int64_t taps, int64_t channels, float* gradient) {
  const float* const end = gradient + channels * taps;
  for (int64_t lane = 0; lane < channels; lane += kLanes) {
    int64_t done = 0;
    if (taps > kFew && taps <= kLanes) {
      Vector square[kLanes];
      for (int tap = 0; tap < kLanes; ++tap) square[tap] = tap < taps ? load(sums + tap * width + lane) : Vector{};
      transpose(square);
      // What a vector writes too much, the next one overwrites.
      for (; done < kLanes && gradient + kLanes <= end; ++done, gradient += taps) store(gradient, square[done]);
    }
    for (; done < smaller(kLanes, channels - lane); ++done)
      for (int64_t tap = 0; tap < taps; ++tap) *gradient++ = sums[tap * width + lane + done];
  }
}

// gradient  (fixed channels, sliding channels, taps), contiguous
inline void part_of_weight_gradient(const Correlation& call, const Signal& fixed, const Signal& sliding,
                                    float* gradient, float* workspace) {
  float* const sums = workspace;
  float* const tile = sums + call.sums_floats();
  float* const panel = tile + call.fixed_floats();
  const int64_t steps = call.tile_steps(), pitch = call.pitch(), height = call.height(), taps = call.taps;
  const int64_t blocks = (height + kHeight - 1) / kHeight, loads = (call.fixed_channels + kLanes - 1) / kLanes;
  const bool again = call.batch > 1 || call.steps > steps;
  for (int64_t i = call.fixed_channels * pitch; i < height * pitch; ++i) tile[i] = 0;
  if (call.batch * call.steps == 0)
    for (int64_t i = 0; i < call.sums_floats(); ++i) sums[i] = 0;

  const int64_t together = call.panels_together(), panel_sums = call.panel_sums();
  const auto channels_from = [&](int64_t first) { return smaller(2 * kLanes, call.sliding_channels - first); };
#pragma omp parallel num_threads(call.threads) if (call.threads > 1)
  for (int64_t first = 0; first < call.sliding_channels; first += together * 2 * kLanes) {
    const int64_t end = smaller(first + together * 2 * kLanes, call.sliding_channels);
    for (int64_t batch = 0; batch < call.batch; ++batch)
      for (int64_t begin = 0; begin < call.steps; begin += steps) {
        const int64_t count = smaller(steps, call.steps - begin);
        const int64_t frames = (count - 1) * call.stride + call.span() + 1, pieces = (frames + kLoad - 1) / kLoad;
        for (int64_t at = first; at < end; at += 2 * kLanes) {
          const int64_t channels = channels_from(at), width = channels > kLanes ? 2 * kLanes : kLanes;
          const bool loads_fixed = at == 0 || (at == first && again);
#pragma omp for schedule(static)
          for (int64_t item = 0; item < pieces + (loads_fixed ? loads : 0); ++item) {
            if (item < pieces) {
              const int64_t from = item * kLoad, rows = smaller(kLoad, frames - from);
              fastvoc_call part{};
              part.in_channels = channels;
              part.in_frames = sliding.frames;
              part.padding_mode = call.padding_mode;
              part.slope = sliding.slope;
              load_tile(part, sliding.data + batch * sliding.strides[0] + at * sliding.strides[1], sliding.strides,
                        begin * call.stride - call.shift + from, rows, rows, panel + from * width, width);
            } else {
              load_fixed(fixed, fixed.data + batch * fixed.strides[0], (item - pieces) * kLanes, begin, count, tile,
                         pitch);
            }
          }
          float* const own = sums + (at - first) / (2 * kLanes) * panel_sums;
#pragma omp for schedule(static)
          for (int64_t item = 0; item < blocks * taps; ++item) {
            const int64_t f = item / taps * kHeight, tap = item % taps;
            (width > kLanes ? correlate_rows<2> : correlate_rows<1>)(
                smaller(kHeight, height - f), tile + f * pitch, pitch, panel + tap * call.dilation * width,
                call.stride * width, count, batch + begin == 0, own + (f * taps + tap) * width, taps * width);
          }
        }
      }
#pragma omp for schedule(static)
    for (int64_t f = 0; f < call.fixed_channels; ++f)
      for (int64_t at = first; at < end; at += 2 * kLanes) {
        const int64_t channels = channels_from(at), width = channels > kLanes ? 2 * kLanes : kLanes;
        store_row(sums + (at - first) / (2 * kLanes) * panel_sums + f * taps * width, width, taps, channels,
                  gradient + (f * call.sliding_channels + at) * taps);
      }
  }
}

inline void weight_gradient(const Correlation& call, const Signal& fixed, const Signal& sliding, float* gradient,
                            float* workspace) {
  for (int64_t first = 0; first < call.fixed_channels; first += kMostRows) {
    const Correlation part = call.part(first);
    Signal own = fixed;
    own.data += first * fixed.strides[1];
    own.channels = part.fixed_channels;
    part_of_weight_gradient(part, own, sliding, gradient + first * call.sliding_channels * call.taps, workspace);
  }
}

// The sum of a signal over batch and time, for each channel: the gradient of a bias.
inline void bias_gradient(const Signal& signal, int threads, int64_t batches, float* gradient) {
  constexpr int kVectors = 4;  // of channels that are neighbours: the lines of a cache that hardware fetches together
  typedef double Doubles __attribute__((vector_size(kLanes * sizeof(double))));
  const int64_t across = signal.strides[1], along = signal.strides[2], frames = signal.frames;
  share_out(threads, (signal.channels + kVectors * kLanes - 1) / (kVectors * kLanes), [&](int64_t, int64_t item) {
    const int64_t first = item * kVectors * kLanes, channels = smaller(kVectors * kLanes, signal.channels - first);
    double total[kVectors * kLanes] = {};
    for (int64_t batch = 0; batch < batches; ++batch) {
      const float* const data = signal.data + batch * signal.strides[0] + first * across;
      if (along == 1) {
        for (int64_t c = 0; c < channels; ++c) {
          double sum[kLanes] = {};
          int64_t t = 0;
          for (; t + kLanes <= frames; t += kLanes)
            for (int lane = 0; lane < kLanes; ++lane) sum[lane] += data[c * across + t + lane];
          for (; t < frames; ++t) sum[0] += data[c * across + t];
          for (int lane = 0; lane < kLanes; ++lane) total[c] += sum[lane];
        }
      } else if (across == 1 && channels == kVectors * kLanes) {
        Doubles sum[kVectors];
        __builtin_memcpy(sum, total, sizeof total);
        for (int64_t t = 0; t < frames; ++t)
#pragma GCC unroll 4
          for (int v = 0; v < kVectors; ++v)
            sum[v] += __builtin_convertvector(load(data + t * along + v * kLanes), Doubles);
        __builtin_memcpy(total, sum, sizeof total);
      } else {
        for (int64_t t = 0; t < frames; ++t)
          for (int64_t c = 0; c < channels; ++c) total[c] += data[c * across + t * along];
      }
    }
    for (int64_t c = 0; c < channels; ++c) gradient[first + c] = (float)total[c];
  });
}

}  // namespace fastvoc::FASTVOC_ISA
