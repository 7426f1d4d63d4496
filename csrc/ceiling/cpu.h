// The fastest that a core can multiply and add in a precision, for benchmarks to compare with; 0 where it cannot.
#pragma once

#include <cstdint>

namespace fastvoc {
namespace portable {
int64_t multiply_add(int precision, int64_t rounds, float* result);
}
namespace avx2 {
int64_t multiply_add(int precision, int64_t rounds, float* result);
}
namespace avx512 {
int64_t multiply_add(int precision, int64_t rounds, float* result);
}
namespace avx512_bf16 {
int64_t multiply_add(int precision, int64_t rounds, float* result);
}
}  // namespace fastvoc
