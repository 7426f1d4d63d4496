// Products whose weights come from memory: they are asked for before they are read.
#pragma once

#include "precision.h"

namespace fastvoc::FASTVOC_ISA {

// So many weights earlier, which is about a panel. That took 1.24 ms instead of 1.46 for a block of Vocos with 512 and
// 1536 channels on 94 frames, and 0.17 instead of 0.31 on 8 (one core of an AMD EPYC of family 26).
constexpr int kAhead = 16384;

#if defined(__AVX512BF16__)
struct Bf16DotAhead : Bf16Dot {
  static constexpr int kAhead = FASTVOC_ISA::kAhead;
};
#endif

// A product as the convolution of one tap that panels are made for.
inline fastvoc_call product_of(int isa, int threads, int64_t in, int64_t out) {
  fastvoc_call made{};
  made.kind = FASTVOC_CONV1D;
  made.isa = isa;
  made.threads = threads;
  made.batch = made.in_frames = made.taps = made.dilation = made.stride = made.groups = 1;
  made.in_channels = in;
  made.out_channels = out;
  made.slope = 1;
  return made;
}

// P::convolve_panel, with weights from memory.
template <class P, class ToMemory>
void convolve_panel_ahead(const Panel& panel, const fastvoc_call& call, const typename P::Element* rows, int64_t row,
                          int64_t height, const typename P::Element* packed, const float* bias, float* sums,
                          ToMemory to_memory) {
  if constexpr (std::is_same_v<P, Float32>) {
    convolve_panel<kChain, kAhead>(panel, call, rows, row, height, packed, bias, sums, to_memory);
#if defined(__AVX512BF16__)
  } else if constexpr (std::is_same_v<Bf16Kernels, Bf16Dots>) {
    alignas(64) float lanes[2 * kLanes];
    load_bias(panel, call, bias, lanes);
    dot_convolve_panel<Bf16DotAhead>(panel, call, rows, row, height, packed, AddBias{lanes}, sums, to_memory);
#endif
  } else {
    P::convolve_panel(panel, call, rows, row, height, packed, bias, sums, to_memory);
  }
}

// Parts of a memory, by their place in bytes.
template <class T>
T* at(void* memory, int64_t bytes) {
  return reinterpret_cast<T*>(static_cast<char*>(memory) + bytes);
}

template <class T>
const T* at(const void* memory, int64_t bytes) {
  return reinterpret_cast<const T*>(static_cast<const char*>(memory) + bytes);
}

// Call a function with one of the precisions in which weights are packed apart from plans.
template <class Function>
auto in_float_precision([[maybe_unused]] int precision, Function function) {
#if defined(__AVX512BF16__)
  if (precision == FASTVOC_BFLOAT16) return function(Bfloat16{});
#endif
  return function(Float32{});
}

inline int check_float_precision(int precision) {
  const bool narrow = precision == FASTVOC_BFLOAT16 && is_known(precision);
  return narrow || precision == FASTVOC_FLOAT32 ? FASTVOC_OK : FASTVOC_BAD_PRECISION;
}

}  // namespace fastvoc::FASTVOC_ISA
