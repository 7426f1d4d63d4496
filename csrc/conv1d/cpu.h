// The CPU kernels of conv1d: one table per instruction set, filled by cpu.cpp.
#pragma once

#include "../fastvoc.h"

namespace fastvoc {

struct Conv1d {
  int64_t (*packed_size)(const fastvoc_conv1d_call& call);
  int64_t (*workspace_size)(const fastvoc_conv1d_call& call);
  void (*pack)(const fastvoc_conv1d_call& call, const float* weight, float* packed);
  void (*run)(const fastvoc_conv1d_call& call, const float* x, const int64_t* x_strides, const float* packed,
              const float* bias, const float* residual, const int64_t* residual_strides, float* y,
              const int64_t* y_strides, float* workspace);
};

namespace portable {
extern const Conv1d conv1d;
}
namespace avx2 {
extern const Conv1d conv1d;
}
namespace avx512 {
extern const Conv1d conv1d;
}
namespace avx512_bf16 {
extern const Conv1d conv1d;
}

}  // namespace fastvoc
