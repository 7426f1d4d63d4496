// Independent multiply-adds in registers: the ceiling of every kernel here.

#include "cpu.h"

#include "../common/simd.h"

// A register class that holds a vector, so that the compiler must make each value.
#if defined(__AVX512F__)
#define FASTVOC_KEEP(value) asm("" : "+v"(value))
#elif defined(__x86_64__)
#define FASTVOC_KEEP(value) asm("" : "+x"(value))
#else
#define FASTVOC_KEEP(value) asm("" : "+w"(value))
#endif

namespace fastvoc::FASTVOC_ISA {

int64_t multiply_add(int64_t rounds, float* result) {
  // Enough chains to hide the latency, few enough for 16 registers.
  constexpr int kChains = 12;
  Vector sum[kChains] = {};
  Vector factor = splat(0.5f), term = splat(1.0f);
  for (int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 12
    for (int i = 0; i < kChains; ++i) {
      sum[i] = sum[i] * factor + term;
      FASTVOC_KEEP(sum[i]);  // keeps the compiler from folding rounds together
    }
  }
#pragma GCC unroll 12
  for (int i = 1; i < kChains; ++i) sum[0] += sum[i];
  store(result, sum[0]);
  return rounds * kChains * kLanes * 2;
}

}  // namespace fastvoc::FASTVOC_ISA
