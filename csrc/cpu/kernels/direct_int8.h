// Direct convolution with 8-bit operands and 32-bit integer sums (vpdpbusd, AVX512_VNNI).
//
// An activation is scale * (q - zero_point) with q in 0..255, so that what a leaky ReLU lets through has most of the
// steps; signed activations are those with a zero point of 128. A weight is scale * q with q in -127..127 and a scale
// for each output channel. With the quantised weights' total of each output channel,
//
//     sum over weight * value = input_scale * weight_scale * (sum over q_weight * q_value - zero_point * total)
//
// Padding is zero_point, not 0, in rows; at the ends of rows it is any number, because the weights there are zeros.
#pragma once

#include <cmath>

#include "direct_dot.h"

namespace fastvoc::FASTVOC_ISA {

struct Int8Dot {
  using Element = uint8_t;
  using Weight = int8_t;
  using Sum = Lanes;
  static constexpr int kDepth = 4, kAhead = 0;

  static Sum add(Sum sum, Words values, Words weights) {
    return (Lanes)_mm512_dpbusd_epi32((__m512i)sum, values, weights);
  }
  static Vector as_float(Sum sum) { return __builtin_convertvector(sum, Vector); }
};

// How the activations of a layer are written.
struct Int8Scale {
  float scale;
  int32_t zero_point;
};

// A vector of floats to memory: to the nearest step, ties to even, beyond the range its nearest end, NaN as zero_point.
inline void store_int8(uint8_t* to, Vector v, Int8Scale as, int64_t count = kLanes) {
  const __mmask16 mask = static_cast<__mmask16>((1u << count) - 1);
  const __m512 steps = (__m512)(v * (1 / as.scale));
  const __m512 number = _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(steps, steps, _CMP_ORD_Q), steps);
  const __m512 bound = _mm512_min_ps(_mm512_max_ps(number, _mm512_set1_ps(static_cast<float>(-as.zero_point))),
                                     _mm512_set1_ps(static_cast<float>(255 - as.zero_point)));
  const __m512i q = _mm512_add_epi32(_mm512_cvtps_epi32(bound), _mm512_set1_epi32(as.zero_point));
  _mm512_mask_cvtepi32_storeu_epi8(to, mask, q);
}

// `count` floats, such as a row.
inline void quantise(const float* from, int64_t count, Int8Scale as, uint8_t* to) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) store_int8(to + i, load(from + i), as);
  if (i == count) return;
  const __mmask16 mask = static_cast<__mmask16>((1u << (count - i)) - 1);
  store_int8(to + i, (Vector)_mm512_maskz_loadu_ps(mask, from + i), as, count - i);
}

template <class Visit>
inline void int8_for_each_panel(const fastvoc_call& call, Visit visit) {
  dot_for_each_panel<Int8Dot>(call, visit);
}

// Elements of a row that are read.
inline int64_t int8_row_length(const fastvoc_call& call) { return dot_row_length<Int8Dot>(call); }

inline int64_t int8_packed_elements(const fastvoc_call& call) { return dot_packed_elements<Int8Dot>(call); }

// Quantise and pack the weights that `weight(out, in, tap)` gives; writes the scale and the total of each output
// channel.
template <class Weight>
inline void int8_pack(const fastvoc_call& call, Weight weight, int8_t* packed, float* scales, int32_t* totals) {
  const auto quantised = [&](int64_t out, int64_t in, int64_t tap) {
    return static_cast<int8_t>(std::nearbyint(weight(out, in, tap) / scales[out]));
  };
  for (int64_t out = 0; out < call.out_channels; ++out) {
    float largest = 0;
    for (int64_t in = 0; in < call.in_channels; ++in)
      for (int64_t tap = 0; tap < call.taps; ++tap) largest = std::fmax(largest, std::fabs(weight(out, in, tap)));
    scales[out] = largest > 0 ? largest / 127 : 1;
    totals[out] = 0;
    for (int64_t in = 0; in < call.in_channels; ++in)
      for (int64_t tap = 0; tap < call.taps; ++tap) totals[out] += quantised(out, in, tap);
  }
  dot_pack<Int8Dot>(call, quantised, packed);
}

// From integer sums to floats, lane by lane of a panel.
struct Dequantise {
  alignas(64) float factor[2 * kLanes], term[2 * kLanes];

  Vector operator()(Vector sum, int v) const { return sum * load(factor + v * kLanes) + load(term + v * kLanes); }
};

inline Dequantise dequantise(const Panel& panel, const fastvoc_call& call, Int8Scale input,
                             const float* scales, const int32_t* totals, const float* bias) {
  Dequantise lanes;
  for (int lane = 0; lane < 2 * kLanes; ++lane) {
    const int64_t out = panel.first + lane % panel.width;
    const bool inside = out < call.out_channels;
    lanes.factor[lane] = inside ? input.scale * scales[out] : 0;
    lanes.term[lane] = inside ? (bias ? bias[out] : 0) -
                                    lanes.factor[lane] * static_cast<float>(int64_t{input.zero_point} * totals[out])
                              : 0;
  }
  return lanes;
}

// As Bf16Dots::convolve_panel(), with dequantise()'s lanes instead of the bias.
template <class ToMemory>
inline void int8_convolve_panel(const Panel& panel, const fastvoc_call& call, const uint8_t* rows, int64_t row,
                                int64_t height, const int8_t* packed, const Dequantise& lanes, float* sums,
                                ToMemory to_memory) {
  dot_convolve_panel<Int8Dot>(panel, call, rows, row, height, packed, lanes, sums, to_memory);
}

}  // namespace fastvoc::FASTVOC_ISA
