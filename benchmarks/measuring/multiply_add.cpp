// Independent multiply-adds in registers of one core: the most that any kernel can reach. ceilings.py compiles it,
// for all instruction sets at once.

#include <cstdint>
#include <cstring>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace {

// All indices are constant: one that is not would move the sums from registers to memory.
#define REPEAT_6(first, step, ...)                                                   \
  step(first, __VA_ARGS__) step(first + 1, __VA_ARGS__) step(first + 2, __VA_ARGS__) \
  step(first + 3, __VA_ARGS__) step(first + 4, __VA_ARGS__) step(first + 5, __VA_ARGS__)
#define REPEAT_12(...) REPEAT_6(0, __VA_ARGS__) REPEAT_6(6, __VA_ARGS__)
#define REPEAT_24(...) REPEAT_12(__VA_ARGS__) REPEAT_6(12, __VA_ARGS__) REPEAT_6(18, __VA_ARGS__)

// A step of a chain; the empty assembly keeps the compiler from folding rounds together.
#define STEP(i, add, in) sums[i] = add(sums[i]); asm("" : "+" in(sums[i]));
#define TOTAL(i, total) total += sums[i];

// A function `name` of so many chains that they hide the latency, so few that they fit into the registers; a step of
// one is so many `operations`.
#define CHAINS(name, options, Sum, in, chains, operations, ...)                                 \
  options inline Sum name##_step(Sum sum) { return __VA_ARGS__; }                               \
  options int64_t name(int64_t rounds, float* result) {                                         \
    Sum sums[chains] = {}, total = {};                                                          \
    for (int64_t round = 0; round < rounds; ++round) { REPEAT_##chains(STEP, name##_step, in) } \
    REPEAT_##chains(TOTAL, total)                                                               \
    std::memcpy(result, &total, sizeof total);                                                  \
    return rounds * chains * operations;                                                        \
  }

typedef float Four __attribute__((vector_size(16)));
#if defined(__x86_64__)
typedef float Eight __attribute__((vector_size(32)));
typedef float Sixteen __attribute__((vector_size(64)));
typedef int32_t Words __attribute__((vector_size(64)));
#define TARGET(name) __attribute__((target(name)))

CHAINS(portable, , Four, "x", 12, 8, sum * 0.5f + 1.0f)
CHAINS(avx2, TARGET("avx2,fma"), Eight, "x", 12, 16, sum * 0.5f + 1.0f)
CHAINS(avx512, TARGET("avx512f"), Sixteen, "v", 12, 32, sum * 0.5f + 1.0f)
CHAINS(avx512_bfloat16, TARGET("avx512f,avx512bf16"), Sixteen, "v", 24, 64,
       (Sixteen)_mm512_dpbf16_ps((__m512)sum, (__m512bh)_mm512_set1_epi16(0x3f80), (__m512bh)_mm512_set1_epi16(0x3f80)))
CHAINS(avx512_int8, TARGET("avx512f,avx512vnni"), Words, "v", 24, 128,
       (Words)_mm512_dpbusd_epi32((__m512i)sum, _mm512_set1_epi8(1), _mm512_set1_epi8(1)))
#else
CHAINS(portable, , Four, "w", 12, 8, sum * 0.5f + 1.0f)
#endif

}  // namespace

// Writes 16 floats that mean nothing and returns the operations done, or 0 where an instruction set cannot do any.
extern "C" int64_t multiply_add(const char* isa, const char* precision, int64_t rounds, float* result) {
  const auto is = [](const char* one, const char* other) { return std::strcmp(one, other) == 0; };
#if defined(__x86_64__)
  if (is(isa, "avx512_bf16") || is(isa, "avx512_amx")) {
    if (is(precision, "bfloat16")) return avx512_bfloat16(rounds, result);
    if (is(precision, "int8")) return avx512_int8(rounds, result);
  }
#endif
  if (!is(precision, "float32")) return 0;
#if defined(__x86_64__)
  if (std::strncmp(isa, "avx512", 6) == 0) return avx512(rounds, result);
  if (is(isa, "avx2")) return avx2(rounds, result);
#endif
  return portable(rounds, result);
}
