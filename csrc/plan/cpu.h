// Plans on the CPU: one table per instruction set, filled by cpu.cpp.
#pragma once

#include "../fastvoc_plan.h"

namespace fastvoc {

struct Plans {
  int64_t (*size)(const fastvoc_network& network);
  int (*make)(const fastvoc_network& network, void* plan);
  int64_t (*packed_size)(const void* plan);
  int (*pack)(const fastvoc_network& network, const void* plan, void* packed);
  int64_t (*state_size)(const void* plan);
  int64_t (*workspace_size)(const void* plan, int threads);
  int (*toom_cook_layers)(const void* plan);
  void (*begin)(const void* plan, void* state);
  int64_t (*ready)(const void* plan, const void* state, int64_t frames, int last);
  int (*run)(const void* plan, const void* packed, void* state, void* workspace, int threads, const float* x,
             const int64_t* x_strides, int64_t frames, int last, float* y, const int64_t* y_strides);
};

namespace portable {
extern const Plans plans;
}
namespace avx2 {
extern const Plans plans;
}
namespace avx512 {
extern const Plans plans;
}
namespace avx512_bf16 {
extern const Plans plans;
}
namespace avx512_amx {
extern const Plans plans;
}

}  // namespace fastvoc
