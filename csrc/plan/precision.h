// What a plan multiplies in: how operands stand in rows and weights, and which kernel takes them.
#pragma once

#include "../upsample/phases.h"
#if defined(__AVX512BF16__)
#include "../common/direct_bf16.h"
#endif

namespace fastvoc::FASTVOC_ISA {

struct Float32 {
  using Element = float;
  static constexpr bool kToomCook = true;

  static int64_t row_length(const fastvoc_conv1d_call& call) { return FASTVOC_ISA::row_length(call); }

  template <class Visit>
  static void for_each_panel(const fastvoc_conv1d_call& call, int64_t row, Visit visit) {
    FASTVOC_ISA::for_each_panel(call, row, visit);
  }

  static int64_t packed_bytes(const fastvoc_conv1d_call& call, int64_t row) {
    return packed_floats(call, row) * sizeof(float);
  }

  static void pack(const fastvoc_conv1d_call& call, int64_t row, const float* weight, Element* packed) {
    pack_panels(call, row, weight, packed);
  }

  // One packed weight per phase, `size` bytes apart.
  static void pack_phases(const fastvoc_upsample_call& call, int64_t row, int64_t size, const float* weight,
                          Element* packed) {
    FASTVOC_ISA::pack_phases(call, row, size / sizeof(float), weight, packed);
  }

  template <class ToMemory>
  static void convolve_panel(const Panel& panel, const fastvoc_conv1d_call& call, const Element* rows, int64_t row,
                             int64_t height, const Element* packed, const float* bias, float* sums,
                             ToMemory to_memory) {
    FASTVOC_ISA::convolve_panel(panel, call, rows, row, height, packed, bias, sums, to_memory);
  }

  static void store(Element* to, Vector v) { FASTVOC_ISA::store(to, v); }
  static void store(Element* to, float v) { *to = v; }
};

#if defined(__AVX512BF16__)
struct Bfloat16 {
  using Element = uint16_t;
  static constexpr bool kToomCook = false;  // its cancelling sums would lose the eight bits there are

  static int64_t row_length(const fastvoc_conv1d_call& call) { return bf16_row_length(call); }

  template <class Visit>
  static void for_each_panel(const fastvoc_conv1d_call& call, int64_t, Visit visit) {
    bf16_for_each_panel(call, visit);
  }

  static int64_t packed_bytes(const fastvoc_conv1d_call& call, int64_t) {
    return bf16_packed_elements(call) * sizeof(Element);
  }

  static void pack(const fastvoc_conv1d_call& call, int64_t, const float* weight, Element* packed) {
    bf16_pack(call, weight, packed);
  }

  static void pack_phases(const fastvoc_upsample_call& call, int64_t, int64_t size, const float* weight,
                          Element* packed) {
    const fastvoc_conv1d_call phase = phase_of(call);
    for (int64_t p = 0; p < call.stride; ++p)
      bf16_pack_phase(phase, weight, call.taps, call.stride, p, packed + p * size / sizeof(Element));
  }

  template <class ToMemory>
  static void convolve_panel(const Panel& panel, const fastvoc_conv1d_call& call, const Element* rows, int64_t row,
                             int64_t height, const Element* packed, const float* bias, float* sums,
                             ToMemory to_memory) {
    alignas(64) float lanes[2 * kLanes];
    load_bias(panel, call, bias, lanes);
    bf16_convolve_panel(panel, call, rows, row, height, packed, lanes, sums, to_memory);
  }

  static void store(Element* to, Vector v) { store_bf16(to, v); }
  static void store(Element* to, float v) { *to = round_to_bf16(v); }
};
#endif

}  // namespace fastvoc::FASTVOC_ISA
