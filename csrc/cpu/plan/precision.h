// What a layer multiplies in: how operands stand in rows and weights, and which kernel takes them.
#pragma once

#include <type_traits>

#include "../kernels/phases.h"
#if defined(__AVX512BF16__)
#include "../kernels/direct_amx.h"
#include "../kernels/direct_bf16.h"
#include "../kernels/direct_int8.h"
#endif

namespace fastvoc::FASTVOC_ISA {

struct Float32 {
  using Element = float;

  static int64_t row_length(const fastvoc_call& call) { return FASTVOC_ISA::row_length(call); }

  template <class Visit>
  static void for_each_panel(const fastvoc_call& call, int64_t row, Visit visit) {
    FASTVOC_ISA::for_each_panel(call, row, visit);
  }

  static int64_t packed_bytes(const fastvoc_call& call, int64_t row) {
    return packed_floats(call, row) * sizeof(float);
  }

  static void pack(const fastvoc_call& call, int64_t row, const float* weight, Element* packed) {
    pack_panels(call, row, weight, packed);
  }

  // One packed weight per phase, `size` bytes apart.
  static void pack_phases(const fastvoc_call& call, int64_t row, int64_t size, const float* weight,
                          Element* packed) {
    FASTVOC_ISA::pack_phases(call, row, size / sizeof(float), weight, packed);
  }

  template <class ToMemory>
  static void convolve_panel(const Panel& panel, const fastvoc_call& call, const Element* rows, int64_t row,
                             int64_t height, const Element* packed, const float* bias, float* sums,
                             ToMemory to_memory, const Second& second = {}) {
    FASTVOC_ISA::convolve_panel(panel, call, rows, row, height, packed, bias, sums, to_memory, second);
  }

  static void store(Element* to, Vector v) { FASTVOC_ISA::store(to, v); }
  static void store(Element* to, float v) { *to = v; }
};

#if defined(__AVX512BF16__)
template <class Kernels>
struct Bf16Operands {
  using Element = uint16_t;

  static int64_t row_length(const fastvoc_call& call) { return Kernels::row_length(call); }

  template <class Visit>
  static void for_each_panel(const fastvoc_call& call, int64_t, Visit visit) {
    Kernels::for_each_panel(call, visit);
  }

  static int64_t packed_bytes(const fastvoc_call& call, int64_t) {
    return Kernels::packed_elements(call) * sizeof(Element);
  }

  static void pack(const fastvoc_call& call, int64_t, const float* weight, Element* packed) {
    Kernels::pack(call, bf16_weights(conv_weights(call, weight)), packed);
  }

  static void pack_phases(const fastvoc_call& call, int64_t, int64_t size, const float* weight,
                          Element* packed) {
    const fastvoc_call phase = phase_of(call);
    for (int64_t p = 0; p < call.stride; ++p)
      Kernels::pack(phase, bf16_weights(phase_weights(phase, weight, call.taps, call.stride, p)),
                    packed + p * size / sizeof(Element));
  }

  template <class ToMemory>
  static void convolve_panel(const Panel& panel, const fastvoc_call& call, const Element* rows, int64_t row,
                             int64_t height, const Element* packed, const float* bias, float* sums,
                             ToMemory to_memory, const Second& second = {}) {
    alignas(64) float lanes[2 * kLanes];
    load_bias(panel, call, bias, lanes);
    Kernels::convolve_panel(panel, call, rows, row, height, packed, lanes, sums, to_memory, second);
  }

  static void store(Element* to, Vector v) { store_bf16(to, v); }
  static void store(Element* to, float v) { *to = round_to_bf16(v); }
};

#if (defined(__AMX_TILE__) && defined(__AMX_BF16__)) || defined(FASTVOC_EMULATE_AMX)
using Bf16Kernels = Bf16Tiles;
#else
using Bf16Kernels = Bf16Dots;
#endif
using Bfloat16 = Bf16Operands<Bf16Kernels>;
constexpr int kReadRows = Bf16Kernels::kReadRows;

// A packed weight is followed by the scale and then by the total of each output channel.
struct Int8 {
  using Element = uint8_t;

  Int8Scale scale;  // of the operands

  static int64_t row_length(const fastvoc_call& call) { return int8_row_length(call); }

  template <class Visit>
  static void for_each_panel(const fastvoc_call& call, int64_t, Visit visit) {
    int8_for_each_panel(call, visit);
  }

  static int64_t weight_bytes(const fastvoc_call& call) { return round_up(int8_packed_elements(call), 64); }

  static int64_t packed_bytes(const fastvoc_call& call, int64_t) {
    return weight_bytes(call) + call.out_channels * (sizeof(float) + sizeof(int32_t));
  }

  // Where in a packed weight these are.
  template <class Byte>
  static auto scales_of(const fastvoc_call& call, Byte* packed) {
    using Scale = std::conditional_t<std::is_const_v<Byte>, const float, float>;
    return reinterpret_cast<Scale*>(packed + weight_bytes(call));
  }

  template <class Byte>
  static auto totals_of(const fastvoc_call& call, Byte* packed) {
    using Total = std::conditional_t<std::is_const_v<Byte>, const int32_t, int32_t>;
    return reinterpret_cast<Total*>(scales_of(call, packed) + call.out_channels);
  }

  static void pack(const fastvoc_call& call, int64_t, const float* weight, Element* packed) {
    int8_pack(call, conv_weights(call, weight), reinterpret_cast<int8_t*>(packed), scales_of(call, packed),
              totals_of(call, packed));
  }

  static void pack_phases(const fastvoc_call& call, int64_t, int64_t size, const float* weight,
                          Element* packed) {
    const fastvoc_call phase = phase_of(call);
    for (int64_t p = 0; p < call.stride; ++p, packed += size)
      int8_pack(phase, phase_weights(phase, weight, call.taps, call.stride, p), reinterpret_cast<int8_t*>(packed),
                scales_of(phase, packed), totals_of(phase, packed));
  }

  template <class ToMemory>
  void convolve_panel(const Panel& panel, const fastvoc_call& call, const Element* rows, int64_t row,
                      int64_t height, const Element* packed, const float* bias, float* sums,
                      ToMemory to_memory, const Second& = {}) const {
    const Dequantise lanes = dequantise(panel, call, scale, scales_of(call, packed), totals_of(call, packed), bias);
    int8_convolve_panel(panel, call, rows, row, height, reinterpret_cast<const int8_t*>(packed), lanes, sums,
                        to_memory);
  }

  void store(Element* to, Vector v) const { store_int8(to, v, scale); }
  void store(Element* to, float v) const { store_int8(to, splat(v), scale, 1); }
};
#else
constexpr int kReadRows = kRows;
#endif

inline bool is_known(int precision) {
#if defined(__AVX512BF16__)
  return precision >= FASTVOC_FLOAT32 && precision <= FASTVOC_INT8;
#else
  return precision == FASTVOC_FLOAT32;
#endif
}

// Call a function with a precision that is known.
template <class Function>
auto in_precision(int precision, [[maybe_unused]] float scale, [[maybe_unused]] int zero_point, Function function) {
#if defined(__AVX512BF16__)
  if (precision == FASTVOC_BFLOAT16) return function(Bfloat16{});
  if (precision == FASTVOC_INT8) return function(Int8{{scale, zero_point}});
#endif
  return function(Float32{});
}

}  // namespace fastvoc::FASTVOC_ISA
