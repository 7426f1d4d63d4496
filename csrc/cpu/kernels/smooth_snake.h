// BigVGAN's activation on channels-last rows: double the rate, Snake, halve the rate, for one vector of channels at once.
//
//     u[2n]     = sum over j of  2 f[2j] x[n - 3 + j]           s = u + amount * sin^2(frequency * u)
//     u[2n + 1] = sum over j of  2 f[2j + 1] x[n - 2 + j]       y[t] = sum over j of  f[j] s[2t - 5 + j]
//
// with j = 0 .. 5, 0 .. 5 and 0 .. 11, and with x and s repeated beyond their ends. A row of x is seven vectors that move
// on by one; the doubled signal of a chunk stays in the first-level cache. Every result is computed in one order, wherever
// a chunk begins.
#pragma once

#include "../../isa.h"
#include "direct.h"

namespace fastvoc::FASTVOC_ISA {

constexpr int64_t kSnakeReach = 5;

// Rows of a chunk: as many as there is room for beside the sums of a convolution.
constexpr int64_t kSnakeChunk = 2 * kChunk;

// Rows of the doubled signal that are around those of a chunk.
constexpr int64_t kSnakeHalo = 6;

constexpr float kFilter[6] = {0.002028966449896242f, 0.00938946394406788f, -0.02554346406529466f,
                              -0.05765737547536495f, 0.1285726090813288f,  0.4432098000653667f};

// Taps 2j of the filter; taps 2j + 1 are the same ones backwards.
constexpr float kEven[6] = {kFilter[0], kFilter[2], kFilter[4], kFilter[5], kFilter[3], kFilter[1]};

// Rows of a signal of so many frames, of which frame `base` is the first in memory.
struct SnakeRows {
  const float* data;
  int64_t row, base, frames;

  const float* at(int64_t frame) const { return data + (frame - base) * row; }
};

// Per channel the frequency over pi, its inverse in two parts, and the amount; each padded to whole vectors.
inline int64_t snake_packed_floats(int64_t channels) { return 4 * round_up(channels, kLanes); }

inline void snake_pack(int64_t channels, const float* weight, float* packed) {
  const int64_t padded = round_up(channels, kLanes);
  for (int64_t c = 0; c < padded; ++c) {
    const double turns = c < channels ? weight[2 * c] * 0.31830988618379067154 : 0, period = 1 / turns;
    // The first part has so few bits that its products with whole numbers are exact. Of a frequency near zero there
    // are no whole turns.
    const float whole = float(period) * 4097, first = whole - (whole - float(period));
    const bool turning = __builtin_isfinite(whole);
    packed[c] = float(turns);
    packed[padded + c] = turning ? first : 0;
    packed[2 * padded + c] = turning ? float(period - first) : 0;
    packed[3 * padded + c] = c < channels ? weight[2 * c + 1] : 0;
  }
}

struct SnakeParameters {
  Vector turns, period, rest, amount;  // the frequency over pi, whose inverse is period + rest
};

inline SnakeParameters snake_parameters(const float* packed, int64_t channels, int64_t first) {
  const int64_t padded = round_up(channels, kLanes);
  const auto part = [&](int64_t index) { return load(packed + index * padded + first); };
  return {part(0), part(1), part(2), part(3)};
}

// Visit the first channel of each vector: the last one begins earlier rather than to end behind the last channel.
template <class Visit>
inline void for_each_snake_vector(int64_t channels, Visit visit) {
  for (int64_t first = 0; first < channels; first += kLanes)
    visit(larger(smaller(first, channels - kLanes), 0), smaller(kLanes, channels));
}

// What is left of the turns of u behind whole ones, in -1/2 .. 1/2.
static inline Vector fraction(Vector u, const SnakeParameters& of) {
  constexpr float kRound = 12582912.0f;  // adding 1.5 * 2^23 rounds to an integer
  const Vector whole = (u * of.turns + kRound) - kRound;
  return ((u - whole * of.period) - whole * of.rest) * of.turns;
}

// u + amount * sin^2: a polynomial of the square of the fraction, to 2e-7. Where float32 knows no fraction, any will do.
static inline Vector snake(Vector u, const SnakeParameters& of) {
  const Vector r = fraction(u, of);
  Vector q = r * r;
  q = q > 0.25f ? splat(0.25f) : q;
  Vector p = q * -3.2729463f + 12.9907306f;
  p = p * q + -30.0859532f;
  p = p * q + 42.7253848f;
  p = p * q + -32.4695811f;
  p = p * q + 9.86960292f;
  return u + of.amount * (q * p);
}

// The sum over j of taps f[2j] (or backwards, f[2j + 1]) of neighbouring vectors.
template <bool Backwards>
static inline Vector filtered(const Vector* x) {
  Vector sum = x[0] * kEven[Backwards ? 5 : 0];
#pragma GCC unroll 5
  for (int j = 1; j < 6; ++j) sum += x[j] * kEven[Backwards ? 5 - j : j];
  return sum;
}

// Both frames of the doubled signal behind the Snake, from x[n - 3 .. n + 3].
static inline void doubled(const Vector (&x)[7], const SnakeParameters& of, float* even, float* odd) {
  store(even, snake(2 * filtered<false>(x), of));
  store(odd, snake(2 * filtered<true>(x + 1), of));
}

// Frames `begin` and following of a vector of channels: `to_memory(rows, chunk, count)` takes rows of `kLanes` numbers.
// No row of x is read but those within reach.
template <class ToMemory>
inline void smooth_snake_vector(const SnakeRows& x, const SnakeParameters& of, int64_t begin, int64_t count,
                                float* rows, ToMemory to_memory) {
  alignas(64) float even[(kSnakeChunk + kSnakeHalo) * kLanes], odd[(kSnakeChunk + kSnakeHalo) * kLanes];
  int64_t known = 0;  // rows of the doubled signal, of which the first is frame `at`
  const int64_t low = larger(begin - kSnakeReach, 0), high = smaller(begin + count + kSnakeReach, x.frames) - 1;
  const auto row_at = [&](int64_t frame) { return load(x.at(smaller(larger(frame, low), high))); };
  for (int64_t chunk = 0; chunk < count; chunk += kSnakeChunk) {
    const int64_t height = smaller(kSnakeChunk, count - chunk), at = begin + chunk - 3;
    for (int64_t i = 0; i < known * kLanes; i += kLanes) {
      store(even + i, load(even + kSnakeChunk * kLanes + i));
      store(odd + i, load(odd + kSnakeChunk * kLanes + i));
    }
    // Frames beyond the ends are copies of the first even one and of the last odd one.
    const int64_t inside = larger(smaller(-at, height + kSnakeHalo), known);
    const int64_t outside = smaller(x.frames - at, height + kSnakeHalo);
    // A row beyond reach, in the first and the last window, stands where no result looks.
    const auto near = [&](int64_t k, int64_t until) {
      for (; k < until; ++k) {
        Vector window[7];
        for (int j = 0; j < 7; ++j) window[j] = row_at(at + k + j - 3);
        doubled(window, of, even + k * kLanes, odd + k * kLanes);
      }
    };
    const int64_t from = smaller(larger(inside, low + 3 - at), outside), to = larger(smaller(outside, high - 2 - at), from);
    near(inside, from);
    if (from < to) {
      Vector window[7];
      const float* next = x.at(at + from - 3);
#pragma GCC unroll 6
      for (int j = 0; j < 6; ++j, next += x.row) window[j] = load(next);
      for (int64_t k = from; k < to; ++k, next += x.row) {
        window[6] = load(next);
        doubled(window, of, even + k * kLanes, odd + k * kLanes);
#pragma GCC unroll 6
        for (int j = 0; j < 6; ++j) window[j] = window[j + 1];
      }
    }
    near(to, outside);
    for (int64_t k = known; k < inside; ++k) {
      store(even + k * kLanes, load(even + inside * kLanes));
      store(odd + k * kLanes, load(even + inside * kLanes));
    }
    for (int64_t k = outside; k < height + kSnakeHalo; ++k) {
      store(even + k * kLanes, load(odd + (outside - 1) * kLanes));
      store(odd + k * kLanes, load(odd + (outside - 1) * kLanes));
    }
    for (int64_t r = 0; r < height; ++r) {
      Vector e[6], o[6];
#pragma GCC unroll 6
      for (int j = 0; j < 6; ++j) {
        e[j] = load(even + (r + 1 + j) * kLanes);
        o[j] = load(odd + (r + j) * kLanes);
      }
      store(rows + r * kLanes, filtered<true>(e) + filtered<false>(o));
    }
    to_memory(rows, chunk, height);
    known = kSnakeHalo;
  }
}

}  // namespace fastvoc::FASTVOC_ISA
