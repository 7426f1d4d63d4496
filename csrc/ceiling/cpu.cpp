// Independent multiply-adds in registers: the ceiling of every kernel here.

#include "cpu.h"

#include "../common/simd.h"
#include "../fastvoc_plan.h"
#if defined(__AVX512BF16__)
#include "../common/direct_bf16.h"
#include "../common/direct_int8.h"
#endif

// A register class that holds a vector, so that the compiler must make each value.
#if defined(__AVX512F__)
#define FASTVOC_KEEP(value) asm("" : "+v"(value))
#elif defined(__x86_64__)
#define FASTVOC_KEEP(value) asm("" : "+x"(value))
#else
#define FASTVOC_KEEP(value) asm("" : "+w"(value))
#endif

namespace fastvoc::FASTVOC_ISA {

// So many chains that they hide the latency, so few that they fit into the registers.
template <int Chains, class Sum, class Add>
int64_t in_chains(int64_t rounds, Sum& result, Add add) {
  Sum sum[Chains] = {};
  for (int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 24
    for (int i = 0; i < Chains; ++i) {
      sum[i] = add(sum[i]);
      FASTVOC_KEEP(sum[i]);  // keeps the compiler from folding rounds together
    }
  }
#pragma GCC unroll 24
  for (int i = 1; i < Chains; ++i) sum[0] += sum[i];
  result = sum[0];
  return rounds * Chains * kLanes * 2;
}

#if defined(__AVX512BF16__)
template <class Dot>
int64_t dots_in_chains(int64_t rounds, float* result) {
  const Words ones = _mm512_set1_epi8(1);
  typename Dot::Sum sum;
  const int64_t done = in_chains<24>(rounds, sum, [&](typename Dot::Sum x) { return Dot::add(x, ones, ones); });
  store(result, Dot::as_float(sum));
  return done * Dot::kDepth;
}
#endif

int64_t multiply_add(int precision, int64_t rounds, float* result) {
#if defined(__AVX512BF16__)
  if (precision == FASTVOC_BFLOAT16) return dots_in_chains<Bf16Dot>(rounds, result);
  if (precision == FASTVOC_INT8) return dots_in_chains<Int8Dot>(rounds, result);
#endif
  if (precision != FASTVOC_FLOAT32) return 0;
  const Vector factor = splat(0.5f), term = splat(1.0f);
  Vector sum;
  const int64_t done = in_chains<12>(rounds, sum, [&](Vector x) { return x * factor + term; });
  store(result, sum);
  return done;
}

}  // namespace fastvoc::FASTVOC_ISA
