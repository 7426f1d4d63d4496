// Direct convolution with bfloat16 operands and float32 sums (vdpbf16ps, AVX512_BF16).
//
// Rows are channels-last bfloat16, activated and padded, at any stride of at least row_length() elements, with
// zeros where that exceeds the channels. Rounding to bfloat16 is to nearest even; subnormal numbers become zero.
#pragma once

#include "direct_dot.h"

namespace fastvoc::FASTVOC_ISA {

// Vectors of floats to and from memory in bfloat16. NaN stays NaN.
inline void store_bf16(uint16_t* to, Vector v) {
  const __m256bh narrow = _mm512_cvtneps_pbh((__m512)v);
  __builtin_memcpy(to, &narrow, sizeof narrow);
}

inline Vector load_bf16(const uint16_t* from) {
  const __m256i narrow = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  return (Vector)_mm512_slli_epi32(_mm512_cvtepu16_epi32(narrow), 16);
}

// The first `count` lanes only, at most kLanes; lanes beyond are read as zeros.
inline void store_bf16(uint16_t* to, Vector v, int64_t count) {
  const __mmask16 mask = static_cast<__mmask16>((1u << count) - 1);
  _mm256_mask_storeu_epi16(to, mask, (__m256i)_mm512_cvtneps_pbh((__m512)v));
}

inline Vector load_bf16(const uint16_t* from, int64_t count) {
  const __mmask16 mask = static_cast<__mmask16>((1u << count) - 1);
  return (Vector)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, from)), 16);
}

inline uint16_t round_to_bf16(float value) {
  return static_cast<uint16_t>(_mm_extract_epi16((__m128i)_mm_cvtneps_pbh(_mm_set_ss(value)), 0));
}

struct Bf16Dot {
  using Element = uint16_t;
  using Weight = uint16_t;
  using Sum = Vector;
  static constexpr int kDepth = 2, kAhead = 0;

  static Sum add(Sum sum, Words values, Words weights) {
    return (Vector)_mm512_dpbf16_ps((__m512)sum, (__m512bh)values, (__m512bh)weights);
  }
  static Vector as_float(Sum sum) { return sum; }
};

struct AddBias {
  const float* bias;

  Vector operator()(Vector sum, int v) const { return sum + load(bias + v * kLanes); }
};

// What conv_weights() or phase_weights() gives, rounded.
template <class Weight>
inline auto bf16_weights(Weight weight) {
  return [weight](int64_t out, int64_t in, int64_t tap) { return round_to_bf16(weight(out, in, tap)); };
}

// How operands stand in memory, and what multiplies them; Bf16Tiles in direct_amx.h is another way.
struct Bf16Dots {
  static constexpr int kReadRows = kRows;  // blocks of rows that are read at once, though some may not be there

  template <class Visit>
  static void for_each_panel(const fastvoc_call& call, Visit visit) {
    dot_for_each_panel<Bf16Dot>(call, visit);
  }

  // Elements of a row that are read.
  static int64_t row_length(const fastvoc_call& call) { return dot_row_length<Bf16Dot>(call); }

  static int64_t packed_elements(const fastvoc_call& call) { return dot_packed_elements<Bf16Dot>(call); }

  // Weights come from bf16_weights().
  template <class Weight>
  static void pack(const fastvoc_call& call, Weight weight, uint16_t* packed) {
    dot_pack<Bf16Dot>(call, weight, packed);
  }

  // All rows of a loaded tile, for one panel: `to_memory(sums, chunk, count)` takes them, kChunk at a time.
  // Rows up to round_up(height, kReadRows) + dilation * (taps - 1) are read. `bias` is what load_bias() makes.
  template <class ToMemory>
  static void convolve_panel(const Panel& panel, const fastvoc_call& call, const uint16_t* rows, int64_t row,
                             int64_t height, const uint16_t* packed, const float* bias, float* sums,
                             ToMemory to_memory, const Second& second = {}) {
    dot_convolve_panel<Bf16Dot>(panel, call, rows, row, height, packed, AddBias{bias}, sums, to_memory, second);
  }
};

}  // namespace fastvoc::FASTVOC_ISA
