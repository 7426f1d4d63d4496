// The CPU kernels of downsample's gradient: one table per instruction set, filled by cpu.cpp.
#pragma once

#include "../fastvoc_downsample.h"

namespace fastvoc {

struct DownsampleBackward {
  int64_t (*workspace_size)(const fastvoc_downsample_call& call);
  void (*run)(const fastvoc_downsample_call& call, const float* grad, const int64_t* grad_strides, const float* x,
              const int64_t* x_strides, const float* weight, const float* y, const int64_t* y_strides, float* grad_x,
              const int64_t* grad_x_strides, float* grad_weight, float* grad_bias, float* workspace);
};

namespace portable {
extern const DownsampleBackward downsample_backward;
}
namespace avx2 {
extern const DownsampleBackward downsample_backward;
}
namespace avx512 {
extern const DownsampleBackward downsample_backward;
}
namespace avx512_bf16 {
extern const DownsampleBackward downsample_backward;
}

}  // namespace fastvoc
