// Matrices times vectors: what operands are, how they are packed, and the loops.
//
// Weights lie in panels of some vectors of rows, column by column. A product keeps its sums in registers, and each sum
// adds its columns in one order, however many vectors are multiplied, and however many panels are read at once. So
// neither blocks, nor batches, nor threads change a bit.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>

#include "../../sizes.h"
#include "../kernels/simd.h"

namespace fastvoc::FASTVOC_ISA {

// Vectors that a panel is high, and the most columns that registers hold sums of: on the chain, and in blocks.
constexpr int kTall = 4, kFlat = 2;
constexpr int kSums = kRegisters == 32 ? 24 : 8;
constexpr int most_columns(int height) { return height == kTall ? (kRegisters == 32 ? 6 : 2) : kRegisters == 32 ? 12 : 6; }

// What operands are: how they stand in weights and inputs, and how a vector of products is added.
struct Single {
  using Weight = float;
  using Input = float;
  using Sum = Vector;
  static constexpr int kGroup = 1;  // neighbours that are multiplied and added at once
  static constexpr bool kScaled = false, kCopied = false;
  static Weight narrow(float value) { return value; }
  static Sum add(Sum sum, const Weight* w, const Input* x) { return sum + load(w) * splat(*x); }
};

#if defined(__AVX512BF16__)
struct Bfloat16 {
  using Weight = uint16_t;
  using Input = uint16_t;
  using Sum = Vector;
  static constexpr int kGroup = 2;
  static constexpr bool kScaled = false, kCopied = true;
  static Weight narrow(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return uint16_t((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
  }
  static Sum add(Sum sum, const Weight* w, const Input* x) {
    int32_t pair;
    std::memcpy(&pair, x, sizeof pair);
    return (Vector)_mm512_dpbf16_ps((__m512)sum, (__m512bh)_mm512_loadu_si512(w), (__m512bh)_mm512_set1_epi32(pair));
  }
};
#define FASTVOC_RECURRENT_INT8

// A weight is scale * q with q in -127..127 and a scale for each row and segment; an input is scale * (q - 128) with a
// scale of its own. Sums of integers are exact, so that an order matters only among segments.
struct Int8 {
  using Weight = int8_t;
  using Input = uint8_t;
  using Sum = Lanes;
  static constexpr int kGroup = 4;
  static constexpr bool kScaled = true, kCopied = true;
  static constexpr int32_t kZero = 128, kMost = 127;
  static Sum add(Sum sum, const Weight* w, const Input* x) {
    int32_t four;
    std::memcpy(&four, x, sizeof four);
    return (Lanes)_mm512_dpbusd_epi32((__m512i)sum, _mm512_set1_epi32(four), _mm512_loadu_si512(w));
  }
};
#endif

// A vector that is multiplied.
template <class Operand>
struct Column {
  const typename Operand::Input* values;
  float scale;
};

// A vector as an operand: itself, or a narrow copy in `room`, filled up to `filled` values. A scale of 0 is chosen so
// that the largest value is the last step; beyond the range stands its nearest end.
template <class Operand>
static inline Column<Operand> column_of(const float* from, [[maybe_unused]] int64_t count, [[maybe_unused]] int64_t filled,
                                        [[maybe_unused]] float scale, [[maybe_unused]] void* room) {
  if constexpr (!Operand::kCopied) {
    return {from, 1};
  } else {
#if defined(FASTVOC_RECURRENT_INT8)
    const auto lanes = [&](int64_t i) {
      return static_cast<__mmask16>(count - i >= kLanes ? 0xffff : i >= count ? 0 : (1u << (count - i)) - 1);
    };
    auto* const to = static_cast<typename Operand::Input*>(room);
    if constexpr (!Operand::kScaled) {
      for (int64_t i = 0; i < filled; i += kLanes) {
        const __m256i narrow = (__m256i)_mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(lanes(i), from + i));
        const int64_t left = smaller(filled - i, kLanes);
        _mm256_mask_storeu_epi16(to + i, static_cast<__mmask16>((1u << left) - 1), narrow);
      }
    } else {
      if (scale == 0) {
        __m512 most = _mm512_setzero_ps();
        for (int64_t i = 0; i < count; i += kLanes)
          most = _mm512_max_ps(_mm512_abs_ps(_mm512_maskz_loadu_ps(lanes(i), from + i)), most);
        scale = _mm512_reduce_max_ps(most) / Operand::kMost;
      }
      const __m512 steps = _mm512_set1_ps(scale > 0 ? 1 / scale : 0), end = _mm512_set1_ps(Operand::kMost);
      for (int64_t i = 0; i < filled; i += kLanes) {
        const __m512 value = _mm512_mul_ps(_mm512_maskz_loadu_ps(lanes(i), from + i), steps);
        // of what is no number, the smaller of it and the end is the end
        const __m512 bound = _mm512_max_ps(_mm512_min_ps(value, end), _mm512_sub_ps(_mm512_setzero_ps(), end));
        const __m512i q = _mm512_add_epi32(_mm512_cvtps_epi32(bound), _mm512_set1_epi32(Operand::kZero));
        const int64_t left = smaller(filled - i, kLanes);
        _mm512_mask_cvtepi32_storeu_epi8(to + i, static_cast<__mmask16>((1u << left) - 1), q);
      }
    }
    return {to, scale};
#endif
  }
}

// Sizes of a matrix: its columns are of one vector after the other, the segments, each filled up to whole groups.
struct Shape {
  int64_t rows, height;  // of panels, in vectors
  int segments;
  int64_t columns[kMostTaps + 1];

  template <class Operand>
  int64_t filled(int segment) const {
    return round_up(columns[segment], Operand::kGroup);
  }

  template <class Operand>
  int64_t depth() const {
    int64_t sum = 0;
    for (int s = 0; s < segments; ++s) sum += filled<Operand>(s);
    return sum;
  }

  // Scales and offsets of rows stand in front of the panels.
  template <class Operand>
  int64_t head_bytes() const {
    return Operand::kScaled ? round_up(rows * segments * 8, 64) : 0;
  }

  template <class Operand>
  int64_t bytes() const {
    return head_bytes<Operand>() + round_up(rows * depth<Operand>() * int64_t(sizeof(typename Operand::Weight)), 64);
  }
};

// A packed matrix.
template <class Operand>
struct Matrix {
  using Weight = typename Operand::Weight;

  Matrix(const Shape& shape, const char* packed)
      : rows(shape.rows),
        depth(shape.depth<Operand>()),
        segments(shape.segments),
        scales(reinterpret_cast<const float*>(packed)),
        offsets(reinterpret_cast<const int32_t*>(packed) + rows * segments),
        panels(reinterpret_cast<const Weight*>(packed + shape.head_bytes<Operand>())) {
    for (int s = 0; s < segments; ++s) groups[s] = shape.filled<Operand>(s) / Operand::kGroup;
  }

  int64_t rows, depth;
  int segments;
  const float* scales;
  const int32_t* offsets;
  const Weight* panels;
  int64_t groups[kMostTaps + 1];
};

// Write a matrix that `value(row, segment, column)` reads, in rows as they are packed, 0 in those that fill up.
template <class Operand, class Value>
static void pack_matrix(const Shape& shape, char* packed, Value value) {
  using Weight = typename Operand::Weight;
  std::memset(packed, 0, shape.bytes<Operand>());
  auto* const panels = reinterpret_cast<Weight*>(packed + shape.head_bytes<Operand>());
  const int64_t depth = shape.depth<Operand>(), height = shape.height * kLanes;
  for (int64_t row = 0; row < shape.rows; ++row) {
    int64_t first = 0;
    for (int s = 0; s < shape.segments; ++s) {
      float scale = 1;
      int32_t total = 0;
      if constexpr (Operand::kScaled) {
        float most = 0;
        for (int64_t k = 0; k < shape.columns[s]; ++k) most = std::fmax(most, std::fabs(value(row, s, k)));
        scale = most > 0 && std::isfinite(most) ? most / Operand::kMost : 1;
      }
      for (int64_t k = 0; k < shape.columns[s]; ++k) {
        const int64_t at = (first + k) / Operand::kGroup;
        Weight& to = panels[row / height * height * depth + (at * height + row % height) * Operand::kGroup +
                            (first + k) % Operand::kGroup];
        if constexpr (Operand::kScaled) {
          const float steps = value(row, s, k) / scale;
          to = std::isfinite(steps) ? Weight(std::nearbyint(std::fmin(127.0f, std::fmax(-127.0f, steps)))) : Weight(0);
          total += to;
        } else {
          to = Operand::narrow(value(row, s, k));
        }
      }
      if constexpr (Operand::kScaled) {
        reinterpret_cast<float*>(packed)[s * shape.rows + row] = scale;
        reinterpret_cast<int32_t*>(packed)[(shape.segments + s) * shape.rows + row] = -Operand::kZero * total;
      }
      first += shape.filled<Operand>(s);
    }
  }
}

// out[n] = init[n] + matrix x[., n], for the rows of some panels that follow each other; x[s * all + n] is a segment's.
template <class Operand, int Height, int Panels, int Count>
static inline void multiply_panels(const Matrix<Operand>& m, int64_t row, const Column<Operand>* x, int64_t all,
                                   const float* const* init, float* const* out) {
  constexpr int kVectors = Height * Panels, kStep = Height * kLanes * Operand::kGroup;
  using Sum = typename Operand::Sum;
  const int64_t panel = Height * kLanes * m.depth;
  const typename Operand::Weight* w = m.panels + row * m.depth;
  Sum sums[Count][kVectors];
  if constexpr (!Operand::kScaled)
#pragma GCC unroll 12
    for (int n = 0; n < Count; ++n)
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) sums[n][v] = load(init[n] + row + v * kLanes);
  for (int s = 0; s < m.segments; ++s) {
    const typename Operand::Input* values[Count];
#pragma GCC unroll 12
    for (int n = 0; n < Count; ++n) values[n] = x[s * all + n].values;
    if constexpr (Operand::kScaled)
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) {
        std::memcpy(&sums[0][v], m.offsets + s * m.rows + row + v * kLanes, sizeof(Sum));
#pragma GCC unroll 12
        for (int n = 1; n < Count; ++n) sums[n][v] = sums[0][v];
      }
    for (int64_t k = 0; k < m.groups[s]; ++k) {
#pragma GCC unroll 12
      for (int n = 0; n < Count; ++n)
#pragma GCC unroll 8
        for (int v = 0; v < kVectors; ++v)
          sums[n][v] = Operand::add(sums[n][v], w + v / Height * panel + v % Height * kLanes * Operand::kGroup,
                                    values[n] + k * Operand::kGroup);
      w += kStep;
    }
    if constexpr (Operand::kScaled)
#pragma GCC unroll 12
      for (int n = 0; n < Count; ++n)
#pragma GCC unroll 8
        for (int v = 0; v < kVectors; ++v) {
          const int64_t at = row + v * kLanes;
          const Vector before = load((s ? out[n] : init[n]) + at);
          store(out[n] + at, before + __builtin_convertvector(sums[n][v], Vector) *
                                          (load(m.scales + s * m.rows + at) * x[s * all + n].scale));
        }
  }
  if constexpr (!Operand::kScaled)
#pragma GCC unroll 12
    for (int n = 0; n < Count; ++n)
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) store(out[n] + row + v * kLanes, sums[n][v]);
}

// Rows first to last - 1, which are whole panels.
template <class Operand, int Height, int Count>
static void multiply_rows(const Matrix<Operand>& m, int64_t first, int64_t last, const Column<Operand>* x, int64_t all,
                          const float* const* init, float* const* out) {
  constexpr int64_t kRows = Height * kLanes;
  // a few sums alone would wait for one another
  constexpr int kFit = kSums / (Height * Count), kPanels = kFit >= 4 && Height == kFlat ? 4 : kFit >= 2 ? 2 : 1;
  int64_t row = first;
  for (; row + kPanels * kRows <= last; row += kPanels * kRows)
    multiply_panels<Operand, Height, kPanels, Count>(m, row, x, all, init, out);
  for (; row < last; row += kRows) multiply_panels<Operand, Height, 1, Count>(m, row, x, all, init, out);
}

template <class Operand, int Height, int... Less>
static auto multiply_rows_of(int64_t count, std::integer_sequence<int, Less...>) {
  using Rows = void (*)(const Matrix<Operand>&, int64_t, int64_t, const Column<Operand>*, int64_t, const float* const*,
                        float* const*);
  constexpr Rows kRows[] = {&multiply_rows<Operand, Height, Less + 1>...};
  return kRows[count - 1];
}

// The whole matrix and any number of vectors, of which those that registers do not hold sums of share a panel in cache.
template <class Operand, int Height>
static void multiply(const Matrix<Operand>& m, int64_t count, const Column<Operand>* x, const float* const* init,
                     float* const* out) {
  constexpr int kMost = most_columns(Height);
  constexpr auto kCounts = std::make_integer_sequence<int, kMost>{};
  if (count <= kMost) return multiply_rows_of<Operand, Height>(count, kCounts)(m, 0, m.rows, x, count, init, out);
  const int64_t parts = (count + kMost - 1) / kMost, step = Height * kLanes;
  for (int64_t row = 0; row < m.rows; row += step)
    for (int64_t part = 0; part < parts; ++part) {
      const int64_t first = part * count / parts, last = (part + 1) * count / parts;
      multiply_rows_of<Operand, Height>(last - first, kCounts)(m, row, row + step, x + first, count, init + first,
                                                                out + first);
    }
}

}  // namespace fastvoc::FASTVOC_ISA
