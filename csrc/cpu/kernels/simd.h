// One vector of floats, as wide as the instruction set that this file is compiled for.
//
// GCC's and Clang's vector extensions give arithmetic on any width; only the two shuffles that they phrase badly are
// written out per instruction set. NEON and SSE2 are the portable width of four.
#pragma once

#include <cstdint>
#include <utility>
#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

// Every instruction set compiles the same templates; a namespace of its own keeps the linker from merging them.
namespace fastvoc::FASTVOC_ISA {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX2__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

// Registers that hold one.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int kRegisters = 32;
#else
constexpr int kRegisters = 16;
#endif

// Rows of sums, of so many vectors each, that registers hold together beside what is multiplied.
constexpr int rows_in_registers(int vectors) { return kRegisters == 32 || vectors == 1 ? 12 : 6; }

typedef float Vector __attribute__((vector_size(kLanes * sizeof(float))));
typedef int32_t Lanes __attribute__((vector_size(kLanes * sizeof(float))));

static inline Vector load(const float* from) {
  Vector v;
  __builtin_memcpy(&v, from, sizeof v);
  return v;
}

static inline void store(float* to, Vector v) { __builtin_memcpy(to, &v, sizeof v); }

static inline Vector splat(float value) { return value - Vector{}; }

// Rounded to the nearest, as the standard asks.
static inline Vector square_root(Vector v) {
#if defined(__AVX512F__)
  return (Vector)_mm512_sqrt_ps((__m512)v);
#elif defined(__AVX2__)
  return (Vector)_mm256_sqrt_ps((__m256)v);
#elif defined(__x86_64__)
  return (Vector)_mm_sqrt_ps((__m128)v);
#elif defined(__aarch64__)
  return (Vector)vsqrtq_f32((float32x4_t)v);
#else
  for (int lane = 0; lane < kLanes; ++lane) v[lane] = __builtin_sqrtf(v[lane]);
  return v;
#endif
}

// `Group` neighbouring floats, repeated to fill the vector.
template <int Group>
static inline Vector repeat(const float* from) {
  if constexpr (Group == 1) {
    return splat(*from);
  } else if constexpr (Group == kLanes) {
    return load(from);
#if defined(__AVX512F__)
  } else if constexpr (Group == 2) {
    double pair;
    __builtin_memcpy(&pair, from, sizeof pair);
    return (Vector)_mm512_set1_pd(pair);
  } else if constexpr (Group == 4) {
    return (Vector)_mm512_broadcast_f32x4(_mm_loadu_ps(from));
  } else if constexpr (Group == 8) {
    return (Vector)_mm512_broadcast_f64x4(_mm256_castps_pd(_mm256_loadu_ps(from)));
#elif defined(__AVX2__)
  } else if constexpr (Group == 2) {
    double pair;
    __builtin_memcpy(&pair, from, sizeof pair);
    return (Vector)_mm256_set1_pd(pair);
  } else if constexpr (Group == 4) {
    return (Vector)_mm256_broadcast_ps((const __m128*)from);
#else
  } else if constexpr (Group == 2) {
    double pair;
    __builtin_memcpy(&pair, from, sizeof pair);
    typedef double Pairs __attribute__((vector_size(kLanes * sizeof(float))));
    return (Vector)Pairs{pair, pair};
#endif
  } else {
    Vector v;
    for (int lane = 0; lane < kLanes; ++lane) v[lane] = from[lane % Group];
    return v;
  }
}

// Lanes of two vectors, numbered through, in any order.
template <int... Lane>
static inline Vector pick(Vector a, Vector b, std::integer_sequence<int, Lane...>) {
#if defined(__clang__) || __GNUC__ >= 12
  return __builtin_shufflevector(a, b, Lane...);
#else
  return __builtin_shuffle(a, b, Lanes{Lane...});
#endif
}

template <int First, int... Lane>
constexpr auto every_second(std::integer_sequence<int, Lane...>) {
  return std::integer_sequence<int, 2 * Lane + First...>{};
}

template <int First, int... Lane>
constexpr auto zipped(std::integer_sequence<int, Lane...>) {
  return std::integer_sequence<int, First + Lane / 2 + Lane % 2 * kLanes...>{};
}

using Sequence = std::make_integer_sequence<int, kLanes>;

// {a0 + a1, a2 + a3, ..., b0 + b1, b2 + b3, ...}
static inline Vector add_neighbours(Vector a, Vector b) {
  return pick(a, b, every_second<0>(Sequence{})) + pick(a, b, every_second<1>(Sequence{}));
}

// Transpose a square of kLanes vectors: zipping halves as often as a lane number has bits.
static inline void transpose(Vector (&square)[kLanes]) {
#pragma GCC unroll 4
  for (int bit = 1; bit < kLanes; bit *= 2) {
    Vector next[kLanes];
#pragma GCC unroll 8
    for (int i = 0; i < kLanes / 2; ++i) {
      next[2 * i] = pick(square[i], square[i + kLanes / 2], zipped<0>(Sequence{}));
      next[2 * i + 1] = pick(square[i], square[i + kLanes / 2], zipped<kLanes / 2>(Sequence{}));
    }
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i) square[i] = next[i];
  }
}

// Tell the core that a loop only waits.
static inline void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

static inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t round_up(int64_t value, int64_t step) { return (value + step - 1) / step * step; }

}  // namespace fastvoc::FASTVOC_ISA
