// The CPU kernels of upsample: one table per instruction set, filled by cpu.cpp.
#pragma once

#include "../fastvoc.h"

namespace fastvoc {

struct Upsample {
  int64_t (*packed_size)(const fastvoc_upsample_call& call);
  int64_t (*workspace_size)(const fastvoc_upsample_call& call);
  void (*pack)(const fastvoc_upsample_call& call, const float* weight, float* packed);
  void (*run)(const fastvoc_upsample_call& call, const float* x, const int64_t* x_strides, const float* packed,
              const float* bias, float* y, const int64_t* y_strides, float* workspace);
};

namespace portable {
extern const Upsample upsample;
}
namespace avx2 {
extern const Upsample upsample;
}
namespace avx512 {
extern const Upsample upsample;
}
namespace avx512_bf16 {
extern const Upsample upsample;
}

}  // namespace fastvoc
