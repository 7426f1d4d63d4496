// The C surface: checks, and the choice of the instruction set.

#include "fastvoc.h"

#include "ceiling/cpu.h"
#include "common/direct_amx.h"
#include "common/sizes.h"
#include "conv1d/cpu.h"
#include "conv1d_backward/cpu.h"
#include "downsample/cpu.h"
#include "downsample_backward/cpu.h"
#include "plan/cpu.h"
#include "upsample/cpu.h"
#include "upsample_backward/cpu.h"

namespace {

const fastvoc::Conv1d& conv1d_of(int isa) {
#if defined(FASTVOC_X86)
  if (isa >= FASTVOC_ISA_AVX512_BF16) return fastvoc::avx512_bf16::conv1d;
  if (isa == FASTVOC_ISA_AVX512) return fastvoc::avx512::conv1d;
  if (isa == FASTVOC_ISA_AVX2) return fastvoc::avx2::conv1d;
#endif
  return fastvoc::portable::conv1d;
}

const fastvoc::Upsample& upsample_of(int isa) {
#if defined(FASTVOC_X86)
  if (isa >= FASTVOC_ISA_AVX512_BF16) return fastvoc::avx512_bf16::upsample;
  if (isa == FASTVOC_ISA_AVX512) return fastvoc::avx512::upsample;
  if (isa == FASTVOC_ISA_AVX2) return fastvoc::avx2::upsample;
#endif
  return fastvoc::portable::upsample;
}

const fastvoc::Conv1dBackward& conv1d_backward_of(int isa) {
#if defined(FASTVOC_X86)
  if (isa >= FASTVOC_ISA_AVX512_BF16) return fastvoc::avx512_bf16::conv1d_backward;
  if (isa == FASTVOC_ISA_AVX512) return fastvoc::avx512::conv1d_backward;
  if (isa == FASTVOC_ISA_AVX2) return fastvoc::avx2::conv1d_backward;
#endif
  return fastvoc::portable::conv1d_backward;
}

const fastvoc::UpsampleBackward& upsample_backward_of(int isa) {
#if defined(FASTVOC_X86)
  if (isa >= FASTVOC_ISA_AVX512_BF16) return fastvoc::avx512_bf16::upsample_backward;
  if (isa == FASTVOC_ISA_AVX512) return fastvoc::avx512::upsample_backward;
  if (isa == FASTVOC_ISA_AVX2) return fastvoc::avx2::upsample_backward;
#endif
  return fastvoc::portable::upsample_backward;
}

const fastvoc::Downsample& downsample_of(int isa) {
#if defined(FASTVOC_X86)
  if (isa >= FASTVOC_ISA_AVX512_BF16) return fastvoc::avx512_bf16::downsample;
  if (isa == FASTVOC_ISA_AVX512) return fastvoc::avx512::downsample;
  if (isa == FASTVOC_ISA_AVX2) return fastvoc::avx2::downsample;
#endif
  return fastvoc::portable::downsample;
}

const fastvoc::DownsampleBackward& downsample_backward_of(int isa) {
#if defined(FASTVOC_X86)
  if (isa >= FASTVOC_ISA_AVX512_BF16) return fastvoc::avx512_bf16::downsample_backward;
  if (isa == FASTVOC_ISA_AVX512) return fastvoc::avx512::downsample_backward;
  if (isa == FASTVOC_ISA_AVX2) return fastvoc::avx2::downsample_backward;
#endif
  return fastvoc::portable::downsample_backward;
}

const fastvoc::Plans& plans_of(int isa) {
#if defined(FASTVOC_X86)
#if defined(FASTVOC_AMX)
  if (isa == FASTVOC_ISA_AVX512_AMX) return fastvoc::avx512_amx::plans;
#endif
  if (isa >= FASTVOC_ISA_AVX512_BF16) return fastvoc::avx512_bf16::plans;
  if (isa == FASTVOC_ISA_AVX512) return fastvoc::avx512::plans;
  if (isa == FASTVOC_ISA_AVX2) return fastvoc::avx2::plans;
#endif
  return fastvoc::portable::plans;
}

// A plan begins with the instruction set that it was made for.
const fastvoc::Plans& plans_of(const void* plan) { return plans_of(*static_cast<const int*>(plan)); }

using fastvoc::fits;

// Whether what all threads hold of a signal at once does: some hundred rows and their halo.
bool tiles_fit(int threads, int64_t span, int64_t channels) { return fits({threads, span + 1024, channels + 64}); }

}  // namespace

const char* fastvoc_error(int error) {
  switch (error) {
    case FASTVOC_OK:
      return "no error";
    case FASTVOC_BAD_ISA:
      return "the instruction set is not usable on this processor; ask fastvoc_isa_usable first";
    case FASTVOC_BAD_SIZE:
      return "a size is out of range; sizes are positive, at least one frame results, and memory is there to hold it";
    case FASTVOC_BAD_PADDING:
      return "padding or crop is negative, its mode is unknown, or reflection is longer than the input";
    case FASTVOC_BAD_PRECISION:
      return "the instruction set, or the GPU, has no multiplications in this precision";
    case FASTVOC_BAD_NETWORK:
      return "the layers do not make a network that a plan can run";
    case FASTVOC_NO_DRIVER:
      return "there is no driver for GPUs, or no kernels were loaded; fastvoc_cuda_missing says why";
    case FASTVOC_DRIVER_ERROR:
      return "the driver refused a call; fastvoc_cuda_message says which";
    default:
      return "unknown error";
  }
}

const char* fastvoc_isa_name(int isa) {
  switch (isa) {
    case FASTVOC_ISA_PORTABLE:
#if defined(__aarch64__)
      return "neon";  // which every one of these processors has
#else
      return "portable";
#endif
    case FASTVOC_ISA_AVX2:
      return "avx2";
    case FASTVOC_ISA_AVX512:
      return "avx512";
    case FASTVOC_ISA_AVX512_BF16:
      return "avx512_bf16";
    case FASTVOC_ISA_AVX512_AMX:
      return "avx512_amx";
    default:
      return "unknown";
  }
}

int fastvoc_isa_usable(int isa) {
#if defined(FASTVOC_X86)
  // These ask the operating system too: it must save the wide registers.
#if defined(FASTVOC_AMX_EMULATED)
  if (isa == FASTVOC_ISA_AVX512_AMX) return fastvoc_isa_usable(FASTVOC_ISA_AVX512_BF16);
#elif defined(FASTVOC_AMX)
  if (isa == FASTVOC_ISA_AVX512_AMX) {
    static const bool granted = __builtin_cpu_supports("amx-tile") && __builtin_cpu_supports("amx-bf16") &&
                                fastvoc_isa_usable(FASTVOC_ISA_AVX512_BF16) && fastvoc::request_amx();
    return granted;
  }
#endif
  if (isa == FASTVOC_ISA_AVX512_BF16)
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vnni");
  if (isa == FASTVOC_ISA_AVX512) return __builtin_cpu_supports("avx512f") != 0;
  if (isa == FASTVOC_ISA_AVX2) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
  return isa == FASTVOC_ISA_PORTABLE;
}

int64_t fastvoc_multiply_add(int isa, int precision, int64_t rounds, float* result) {
  if (!fastvoc_isa_usable(isa)) return 0;
#if defined(FASTVOC_X86)
  if (isa >= FASTVOC_ISA_AVX512_BF16) return fastvoc::avx512_bf16::multiply_add(precision, rounds, result);
  if (isa == FASTVOC_ISA_AVX512) return fastvoc::avx512::multiply_add(precision, rounds, result);
  if (isa == FASTVOC_ISA_AVX2) return fastvoc::avx2::multiply_add(precision, rounds, result);
#endif
  return fastvoc::portable::multiply_add(precision, rounds, result);
}

int fastvoc_conv1d_check(const fastvoc_conv1d_call* call) {
  if (!fastvoc_isa_usable(call->isa)) return FASTVOC_BAD_ISA;
  if (!fastvoc::is_threads(call->threads) || !fastvoc::is_count(call->in_channels) ||
      !fastvoc::is_count(call->out_channels) || !fastvoc::is_count(call->taps) || !fastvoc::is_count(call->dilation) ||
      !fits({call->batch, call->in_frames}) ||
      !fastvoc::weight_fits(call->in_channels, call->out_channels, call->taps))
    return FASTVOC_BAD_SIZE;
  if (call->left < 0 || call->right < 0) return FASTVOC_BAD_PADDING;
  if (!fits({call->left}) || !fits({call->right})) return FASTVOC_BAD_SIZE;
  const int64_t frames = call->in_frames + call->left + call->right, span = call->dilation * (call->taps - 1);
  if (frames <= span || !fits({call->batch, frames, call->in_channels}) ||
      !fits({call->batch, frames, call->out_channels}) || !tiles_fit(call->threads, span, call->in_channels) ||
      !tiles_fit(call->threads, span, call->out_channels))
    return FASTVOC_BAD_SIZE;
  const int64_t widest = call->left > call->right ? call->left : call->right;
  if (call->padding_mode < FASTVOC_ZERO || call->padding_mode > FASTVOC_REPLICATE ||
      (call->padding_mode == FASTVOC_REFLECT && widest >= call->in_frames) ||
      (call->padding_mode == FASTVOC_REPLICATE && call->in_frames == 0))
    return FASTVOC_BAD_PADDING;
  return FASTVOC_OK;
}

int64_t fastvoc_conv1d_packed_size(const fastvoc_conv1d_call* call) { return conv1d_of(call->isa).packed_size(*call); }

int64_t fastvoc_conv1d_workspace_size(const fastvoc_conv1d_call* call) {
  return conv1d_of(call->isa).workspace_size(*call);
}

int fastvoc_conv1d_pack(const fastvoc_conv1d_call* call, const float* weight, float* packed) {
  conv1d_of(call->isa).pack(*call, weight, packed);
  return FASTVOC_OK;
}

int fastvoc_conv1d(const fastvoc_conv1d_call* call, const float* x, const int64_t* x_strides, const float* packed,
                   const float* bias, const float* residual, const int64_t* residual_strides, float* y,
                   const int64_t* y_strides, float* workspace) {
  conv1d_of(call->isa).run(*call, x, x_strides, packed, bias, residual, residual_strides, y, y_strides, workspace);
  return FASTVOC_OK;
}

int64_t fastvoc_conv1d_backward_workspace_size(const fastvoc_conv1d_call* call) {
  return conv1d_backward_of(call->isa).workspace_size(*call);
}

int fastvoc_conv1d_backward(const fastvoc_conv1d_call* call, const float* grad, const int64_t* grad_strides,
                            const float* x, const int64_t* x_strides, const float* weight, float* grad_x,
                            const int64_t* grad_x_strides, float* grad_weight, float* grad_bias, float* workspace) {
  conv1d_backward_of(call->isa)
      .run(*call, grad, grad_strides, x, x_strides, weight, grad_x, grad_x_strides, grad_weight, grad_bias, workspace);
  return FASTVOC_OK;
}

int fastvoc_upsample_check(const fastvoc_upsample_call* call) {
  if (!fastvoc_isa_usable(call->isa)) return FASTVOC_BAD_ISA;
  if (!fastvoc::is_threads(call->threads) || !fastvoc::is_count(call->in_channels) ||
      !fastvoc::is_count(call->out_channels) || !fastvoc::is_count(call->taps) || !fastvoc::is_count(call->stride) ||
      call->in_frames < 1 || !fits({call->batch, call->in_frames, call->stride}) ||
      !fastvoc::weight_fits(call->in_channels, call->out_channels, call->taps + call->stride))
    return FASTVOC_BAD_SIZE;
  if (call->left < 0 || call->right < 0) return FASTVOC_BAD_PADDING;
  if (!fits({call->left}) || !fits({call->right})) return FASTVOC_BAD_SIZE;
  const int64_t frames = (call->in_frames - 1) * call->stride + call->taps;
  if (frames <= call->left + call->right || !fits({call->batch, call->in_frames + call->taps, call->in_channels}) ||
      !fits({call->batch, frames, call->out_channels}) || !tiles_fit(call->threads, call->taps, call->in_channels) ||
      !tiles_fit(call->threads, call->taps, call->stride * call->out_channels))
    return FASTVOC_BAD_SIZE;
  return FASTVOC_OK;
}

int64_t fastvoc_upsample_packed_size(const fastvoc_upsample_call* call) {
  return upsample_of(call->isa).packed_size(*call);
}

int64_t fastvoc_upsample_workspace_size(const fastvoc_upsample_call* call) {
  return upsample_of(call->isa).workspace_size(*call);
}

int fastvoc_upsample_pack(const fastvoc_upsample_call* call, const float* weight, float* packed) {
  upsample_of(call->isa).pack(*call, weight, packed);
  return FASTVOC_OK;
}

int fastvoc_upsample(const fastvoc_upsample_call* call, const float* x, const int64_t* x_strides, const float* packed,
                     const float* bias, float* y, const int64_t* y_strides, float* workspace) {
  upsample_of(call->isa).run(*call, x, x_strides, packed, bias, y, y_strides, workspace);
  return FASTVOC_OK;
}

int64_t fastvoc_upsample_backward_workspace_size(const fastvoc_upsample_call* call) {
  return upsample_backward_of(call->isa).workspace_size(*call);
}

int fastvoc_upsample_backward(const fastvoc_upsample_call* call, const float* grad, const int64_t* grad_strides,
                              const float* x, const int64_t* x_strides, const float* weight, float* grad_x,
                              const int64_t* grad_x_strides, float* grad_weight, float* grad_bias, float* workspace) {
  upsample_backward_of(call->isa)
      .run(*call, grad, grad_strides, x, x_strides, weight, grad_x, grad_x_strides, grad_weight, grad_bias, workspace);
  return FASTVOC_OK;
}

int fastvoc_downsample_check(const fastvoc_downsample_call* call) {
  if (!fastvoc_isa_usable(call->isa)) return FASTVOC_BAD_ISA;
  if (!fastvoc::is_threads(call->threads) || !fastvoc::is_count(call->in_channels) ||
      !fastvoc::is_count(call->out_channels) || !fastvoc::is_count(call->taps) || !fastvoc::is_count(call->stride) ||
      !fastvoc::is_count(call->groups) || call->in_channels % call->groups || call->out_channels % call->groups ||
      !(call->slope > 0) || !__builtin_isfinite(call->slope) || !fits({call->batch, call->in_frames}) ||
      !fastvoc::weight_fits(call->in_channels, call->out_channels, call->taps))
    return FASTVOC_BAD_SIZE;
  if (call->left < 0 || call->right < 0) return FASTVOC_BAD_PADDING;
  if (!fits({call->left}) || !fits({call->right})) return FASTVOC_BAD_SIZE;
  // What is read of the gradient may end later than the result, by as much as the padding.
  const int64_t frames = call->in_frames + call->left + call->right;
  if (frames < call->taps || !fits({call->batch, frames + call->taps, call->in_channels + 16 * call->groups}) ||
      !fits({call->batch, frames + call->taps, call->out_channels + 16 * call->groups}) ||
      !fits({call->threads, call->taps + 64, call->in_channels + 64, 64}) ||
      !fits({call->threads, call->taps + 64, call->out_channels + 64, 64}))
    return FASTVOC_BAD_SIZE;
  return FASTVOC_OK;
}

int64_t fastvoc_downsample_workspace_size(const fastvoc_downsample_call* call) {
  return downsample_of(call->isa).workspace_size(*call);
}

int fastvoc_downsample(const fastvoc_downsample_call* call, const float* x, const int64_t* x_strides,
                       const float* weight, const float* bias, float* y, const int64_t* y_strides, float* workspace) {
  downsample_of(call->isa).run(*call, x, x_strides, weight, bias, y, y_strides, workspace);
  return FASTVOC_OK;
}

int64_t fastvoc_downsample_backward_workspace_size(const fastvoc_downsample_call* call) {
  return downsample_backward_of(call->isa).workspace_size(*call);
}

int fastvoc_downsample_backward(const fastvoc_downsample_call* call, const float* grad, const int64_t* grad_strides,
                                const float* x, const int64_t* x_strides, const float* weight, const float* y,
                                const int64_t* y_strides, float* grad_x, const int64_t* grad_x_strides,
                                float* grad_weight, float* grad_bias, float* workspace) {
  downsample_backward_of(call->isa)
      .run(*call, grad, grad_strides, x, x_strides, weight, y, y_strides, grad_x, grad_x_strides, grad_weight,
           grad_bias, workspace);
  return FASTVOC_OK;
}

int64_t fastvoc_plan_size(const fastvoc_network* network) { return plans_of(network->isa).size(*network); }

int fastvoc_plan_make(const fastvoc_network* network, void* plan) {
  if (!fastvoc_isa_usable(network->isa)) return FASTVOC_BAD_ISA;
  return plans_of(network->isa).make(*network, plan);
}

int64_t fastvoc_plan_packed_size(const void* plan) { return plans_of(plan).packed_size(plan); }

int fastvoc_plan_pack(const fastvoc_network* network, const void* plan, void* packed) {
  return plans_of(plan).pack(*network, plan, packed);
}

int64_t fastvoc_plan_state_size(const void* plan) { return plans_of(plan).state_size(plan); }

int64_t fastvoc_plan_workspace_size(const void* plan, int threads) {
  return fastvoc::is_threads(threads) ? plans_of(plan).workspace_size(plan, threads) : -1;
}

int fastvoc_plan_toom_cook_layers(const void* plan) { return plans_of(plan).toom_cook_layers(plan); }

int fastvoc_plan_begin(const void* plan, void* state) {
  plans_of(plan).begin(plan, state);
  return FASTVOC_OK;
}

int64_t fastvoc_plan_ready(const void* plan, const void* state, int64_t frames, int last) {
  return frames >= 0 && frames <= fastvoc::kMostFrames ? plans_of(plan).ready(plan, state, frames, last) : -1;
}

int fastvoc_plan_run(const void* plan, const void* packed, void* state, void* workspace, int threads, const float* x,
                     const int64_t* x_strides, int64_t frames, int last, float* y, const int64_t* y_strides) {
  if (!fastvoc::is_threads(threads) || frames < 0 || frames > fastvoc::kMostFrames) return FASTVOC_BAD_SIZE;
  return plans_of(plan).run(plan, packed, state, workspace, threads, x, x_strides, frames, last, y, y_strides);
}
