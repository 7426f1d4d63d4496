// The instruction sets and the operators: the only list of either.
//
// A new operator is a line of FASTVOC_OPERATORS, a kind in fastvoc.h, and the files cpu/<name>.cpp and
// cpu/<name>_backward.cpp; a new instruction set is a line of FASTVOC_ISAS, a number in fastvoc.h, and the compiler's
// options in CMakeLists.txt. Each of those files is compiled once per instruction set, in a namespace of its name.
#pragma once

#include "fastvoc_convnext.h"
#include "fastvoc_gated.h"
#include "fastvoc_griffin_lim.h"
#include "fastvoc_plan.h"
#include "fastvoc_recurrent.h"
#include "sizes.h"

// op(isa, name), in the order of the kinds.
#define FASTVOC_OPERATORS(isa, op) \
  op(isa, conv1d)                  \
  op(isa, upsample)                \
  op(isa, strided_conv1d)          \
  op(isa, smooth_snake)

// isa(number, name, operators, plans, usable), ascending: the namespaces whose operators and whose plans are run, and
// whether the processor and the operating system, which must save wide registers, can. Tile registers serve plans only.
#define FASTVOC_ISAS(isa)                                        \
  isa(PORTABLE, FASTVOC_PORTABLE_NAME, portable, portable, true) \
  FASTVOC_X86_ISAS(isa)

#if defined(__aarch64__)
#define FASTVOC_PORTABLE_NAME "neon"  // which every one of these processors has
#else
#define FASTVOC_PORTABLE_NAME "portable"
#endif

#define FASTVOC_HAS __builtin_cpu_supports
#define FASTVOC_HAS_BF16                                                                                      \
  (FASTVOC_HAS("avx512f") && FASTVOC_HAS("avx512bw") && FASTVOC_HAS("avx512vl") && FASTVOC_HAS("avx512dq") && \
   FASTVOC_HAS("avx512bf16") && FASTVOC_HAS("avx512vnni"))
#if defined(FASTVOC_X86)
#define FASTVOC_X86_ISAS(isa)                                                 \
  isa(AVX2, "avx2", avx2, avx2, FASTVOC_HAS("avx2") && FASTVOC_HAS("fma"))    \
  isa(AVX512, "avx512", avx512, avx512, FASTVOC_HAS("avx512f"))               \
  isa(AVX512_BF16, "avx512_bf16", avx512_bf16, avx512_bf16, FASTVOC_HAS_BF16) \
  FASTVOC_TILE_ISAS(isa)
#else
#define FASTVOC_X86_ISAS(isa)
#endif
#if defined(FASTVOC_AMX)
#define FASTVOC_TILE_ISAS(isa) \
  isa(AVX512_AMX, "avx512_amx", avx512_bf16, avx512_amx, FASTVOC_HAS_BF16 && has_tiles())
#else
#define FASTVOC_TILE_ISAS(isa)
#endif

namespace fastvoc {

// An operator. `check` knows what is this one's own, of a call whose numbers are in range; a packed size of 0 is a
// weight that is read as it is.
struct Forward {
  int (*check)(const fastvoc_call& call);
  int64_t (*packed_size)(const fastvoc_call& call);
  int64_t (*workspace_size)(const fastvoc_call& call);
  void (*pack)(const fastvoc_call& call, const float* weight, float* packed);
  void (*run)(const fastvoc_call& call, const float* x, const int64_t* x_strides, const float* packed,
              const float* bias, const float* residual, const int64_t* residual_strides, float* y,
              const int64_t* y_strides, float* workspace);
};

// Its gradient.
struct Backward {
  int64_t (*workspace_size)(const fastvoc_call& call);
  void (*run)(const fastvoc_call& call, const float* grad, const int64_t* grad_strides, const float* x,
              const int64_t* x_strides, const float* weight, const float* y, const int64_t* y_strides, float* grad_x,
              const int64_t* grad_x_strides, float* grad_weight, float* grad_bias, float* workspace);
};

struct Plans {
  int64_t (*size)(const fastvoc_network& network);
  int (*make)(const fastvoc_network& network, void* plan);
  int64_t (*packed_size)(const void* plan);
  int (*pack)(const fastvoc_network& network, const void* plan, int threads, void* packed);
  int64_t (*state_size)(const void* plan);
  int64_t (*workspace_size)(const void* plan, int threads);
  int (*toom_cook_layers)(const void* plan);
  void (*begin)(const void* plan, void* state);
  int64_t (*ready)(const void* plan, const void* state, int64_t frames, int last);
  int (*run)(const void* plan, const void* packed, void* state, void* workspace, int threads, const float* x,
             const int64_t* x_strides, int64_t frames, int last, float* y, const int64_t* y_strides);
};

// Networks of one sample after the other. `check` knows what is the instruction set's own, and sizes are in bytes.
struct Recurrent {
  int (*check)(const fastvoc_recurrent& network);
  int64_t (*packed_size)(const fastvoc_recurrent& network);
  int64_t (*workspace_size)(const fastvoc_recurrent& network, int threads);
  void (*pack)(const fastvoc_recurrent& network, void* packed);
  void (*run)(const fastvoc_recurrent& network, const void* packed, const fastvoc_steps& steps, void* workspace);
};

// The block of Vocos. `check` knows which precisions there are.
struct Convnext {
  int (*check)(const fastvoc_convnext& call);
  int64_t (*packed_size)(const fastvoc_convnext& call);
  int64_t (*workspace_size)(const fastvoc_convnext& call);
  void (*pack)(const fastvoc_convnext& call, const fastvoc_convnext_weights& weights, void* packed, void* workspace);
  void (*run)(const fastvoc_convnext& call, const float* x, int64_t x_batch, int64_t x_frame, const void* packed,
              float* y, int64_t y_batch, int64_t y_frame, void* workspace);
};

// A gated layer of WaveGlow, likewise.
struct Gated {
  int (*check)(const fastvoc_gated& call);
  int64_t (*packed_size)(const fastvoc_gated& call);
  int64_t (*workspace_size)(const fastvoc_gated& call);
  void (*pack)(const fastvoc_gated& call, const fastvoc_gated_weights& weights, void* packed, void* workspace);
  void (*run)(const fastvoc_gated& call, const fastvoc_gated_input& x, const fastvoc_gated_input& c,
              const fastvoc_gated_input& s, const void* packed, const fastvoc_gated_output& residual,
              const fastvoc_gated_output& skip, void* workspace);
};

// The gate of such a layer, and its gradient.
struct Gate {
  void (*run)(const fastvoc_gate& call, const float* a, float* g);
  void (*backward)(const fastvoc_gate& call, const float* a, const float* grad, float* grad_a);
};

// Griffin-Lim. `check` knows which transforms there are.
struct GriffinLim {
  int (*check)(const fastvoc_griffin_lim& call);
  int64_t (*packed_size)(const fastvoc_griffin_lim& call);
  int64_t (*state_size)(const fastvoc_griffin_lim& call);
  int64_t (*workspace_size)(const fastvoc_griffin_lim& call, int threads, int64_t frames);
  void (*pack)(const fastvoc_griffin_lim& call, const float* filters, void* packed);
  void (*begin)(const fastvoc_griffin_lim& call, void* state);
  int64_t (*ready)(const fastvoc_griffin_lim& call, const void* state, int64_t frames, bool last);
  void (*run)(const fastvoc_griffin_lim& call, const void* packed, void* state, void* workspace, int threads,
              const float* x, int64_t x_row, int64_t frames, bool last, float* y);
};

#define FASTVOC_DECLARE(isa, op) \
  extern const Forward op;       \
  extern const Backward op##_backward;
#define FASTVOC_NAMESPACES(number, name, operators, plans_in, usable)   \
  namespace operators { FASTVOC_OPERATORS(operators, FASTVOC_DECLARE) } \
  namespace operators { extern const Recurrent recurrent; }             \
  namespace operators { extern const Gate gate; }                       \
  namespace operators { extern const GriffinLim griffin_lim; }          \
  namespace plans_in { extern const Plans plans; extern const Convnext convnext; extern const Gated gated; }
FASTVOC_ISAS(FASTVOC_NAMESPACES)
#undef FASTVOC_NAMESPACES
#undef FASTVOC_DECLARE

}  // namespace fastvoc
