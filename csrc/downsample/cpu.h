// The CPU kernels of downsample: one table per instruction set, filled by cpu.cpp.
#pragma once

#include "../fastvoc_downsample.h"

namespace fastvoc {

struct Downsample {
  int64_t (*workspace_size)(const fastvoc_downsample_call& call);
  void (*run)(const fastvoc_downsample_call& call, const float* x, const int64_t* x_strides, const float* weight,
              const float* bias, float* y, const int64_t* y_strides, float* workspace);
};

namespace portable {
extern const Downsample downsample;
}
namespace avx2 {
extern const Downsample downsample;
}
namespace avx512 {
extern const Downsample downsample;
}
namespace avx512_bf16 {
extern const Downsample downsample;
}

}  // namespace fastvoc
