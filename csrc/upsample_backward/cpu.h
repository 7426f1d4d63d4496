// The CPU kernels of upsample's gradient: one table per instruction set, filled by cpu.cpp.
#pragma once

#include "../fastvoc.h"

namespace fastvoc {

struct UpsampleBackward {
  int64_t (*workspace_size)(const fastvoc_upsample_call& call);
  void (*run)(const fastvoc_upsample_call& call, const float* grad, const int64_t* grad_strides, const float* x,
              const int64_t* x_strides, const float* weight, float* grad_x, const int64_t* grad_x_strides,
              float* grad_weight, float* grad_bias, float* workspace);
};

namespace portable {
extern const UpsampleBackward upsample_backward;
}
namespace avx2 {
extern const UpsampleBackward upsample_backward;
}
namespace avx512 {
extern const UpsampleBackward upsample_backward;
}
namespace avx512_bf16 {
extern const UpsampleBackward upsample_backward;
}

}  // namespace fastvoc
