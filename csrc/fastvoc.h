/* The native surface of fastvoc: operators. Whole networks are in fastvoc_plan.h.
 *
 * Pointers in, pointers out: nothing here allocates, keeps state or knows a framework. Activations have the shape
 * (batch, channels, frames); their strides, in elements and in that order, come with them, so that contiguous and
 * channels-last memory are read as they are. Python reads these declarations out of this very file.
 */
#ifndef FASTVOC_H
#define FASTVOC_H

#include <stdint.h>

#if defined(__GNUC__)
#pragma GCC visibility push(default)
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Errors. Functions that return int return one of these. */
enum { FASTVOC_OK, FASTVOC_BAD_ISA, FASTVOC_BAD_SIZE, FASTVOC_BAD_PADDING, FASTVOC_BAD_NETWORK, FASTVOC_BAD_PRECISION,
       FASTVOC_NO_DRIVER, FASTVOC_DRIVER_ERROR, FASTVOC_ERROR_COUNT };

/* What an error means, as half a sentence. */
const char* fastvoc_error(int error);

/* Instruction sets, ascending; a later one is faster where it is usable. The portable one of AArch64 is NEON. */
enum { FASTVOC_ISA_PORTABLE, FASTVOC_ISA_AVX2, FASTVOC_ISA_AVX512, FASTVOC_ISA_AVX512_BF16,
       FASTVOC_ISA_AVX512_AMX, FASTVOC_ISA_COUNT };

const char* fastvoc_isa_name(int isa);

/* Whether the library was compiled for it and this processor and operating system have it. */
int fastvoc_isa_usable(int isa);

/* Multiply and add in registers of one core, to measure what it can do at best in a precision (of fastvoc_plan.h). Writes
 * 16 floats that mean nothing and returns the operations done, or 0 where the instruction set cannot do any. */
int64_t fastvoc_multiply_add(int isa, int precision, int64_t rounds, float* result);

/* conv1d: y = tanh?(residual? + bias? + weight * pad(leaky_relu(x)))
 *
 *   x         (batch, in_channels, in_frames)      float32
 *   weight    (out_channels, in_channels, taps)    float32, contiguous, not flipped
 *   bias      (out_channels,)                      float32, contiguous, or null
 *   residual  (batch, out_channels, out_frames)    float32, or null
 *   y         (batch, out_channels, out_frames)    float32, contiguous or channels-last
 *
 * out_frames = in_frames + left + right - dilation * (taps - 1). Every output is summed in one order, whatever the
 * threads, so that results are equal bit for bit at any number of them.
 */
enum { FASTVOC_ZERO, FASTVOC_REFLECT, FASTVOC_REPLICATE };

typedef struct {
  int isa, threads;
  int64_t batch, in_channels, in_frames, out_channels, taps, dilation, left, right;
  int padding_mode, tanh;
  float slope; /* of the leaky ReLU; 1 is no activation */
} fastvoc_conv1d_call;

/* FASTVOC_OK if the call can be run. The functions below expect a call that was checked. */
int fastvoc_conv1d_check(const fastvoc_conv1d_call* call);

/* How many floats the packed weight and the work of all threads take. */
int64_t fastvoc_conv1d_packed_size(const fastvoc_conv1d_call* call);
int64_t fastvoc_conv1d_workspace_size(const fastvoc_conv1d_call* call);

/* Bring a weight into the order in which the kernel of this instruction set reads it. */
int fastvoc_conv1d_pack(const fastvoc_conv1d_call* call, const float* weight, float* packed);

int fastvoc_conv1d(const fastvoc_conv1d_call* call, const float* x, const int64_t* x_strides, const float* packed,
                   const float* bias, const float* residual, const int64_t* residual_strides, float* y,
                   const int64_t* y_strides, float* workspace);

/* The gradient of conv1d, where `grad` is the gradient of weight * pad(leaky_relu(x)) + bias. Results have the shapes of
 * what they belong to: grad_x contiguous or channels-last, grad_weight and grad_bias contiguous. One that is null is not
 * computed. The weight is read as it is; `tanh` is not.
 */
int64_t fastvoc_conv1d_backward_workspace_size(const fastvoc_conv1d_call* call);
int fastvoc_conv1d_backward(const fastvoc_conv1d_call* call, const float* grad, const int64_t* grad_strides,
                            const float* x, const int64_t* x_strides, const float* weight, float* grad_x,
                            const int64_t* grad_x_strides, float* grad_weight, float* grad_bias, float* workspace);

/* upsample: y = bias? + crop(transposed weight * leaky_relu(x))
 *
 *   x        (batch, in_channels, in_frames)      float32
 *   weight   (in_channels, out_channels, taps)    float32, contiguous
 *   bias     (out_channels,)                      float32, contiguous, or null
 *   y        (batch, out_channels, out_frames)    float32, contiguous or channels-last
 *
 * out_frames = (in_frames - 1) * stride + taps - left - right, where left and right are cropped.
 */
typedef struct {
  int isa, threads;
  int64_t batch, in_channels, in_frames, out_channels, taps, stride, left, right;
  float slope; /* of the leaky ReLU; 1 is no activation */
} fastvoc_upsample_call;

int fastvoc_upsample_check(const fastvoc_upsample_call* call);
int64_t fastvoc_upsample_packed_size(const fastvoc_upsample_call* call);
int64_t fastvoc_upsample_workspace_size(const fastvoc_upsample_call* call);
int fastvoc_upsample_pack(const fastvoc_upsample_call* call, const float* weight, float* packed);
int fastvoc_upsample(const fastvoc_upsample_call* call, const float* x, const int64_t* x_strides, const float* packed,
                     const float* bias, float* y, const int64_t* y_strides, float* workspace);

/* The gradient of upsample, as that of conv1d: grad_weight has the shape (in_channels, out_channels, taps). */
int64_t fastvoc_upsample_backward_workspace_size(const fastvoc_upsample_call* call);
int fastvoc_upsample_backward(const fastvoc_upsample_call* call, const float* grad, const int64_t* grad_strides,
                              const float* x, const int64_t* x_strides, const float* weight, float* grad_x,
                              const int64_t* grad_x_strides, float* grad_weight, float* grad_bias, float* workspace);

#ifdef __cplusplus
}
#endif

#if defined(__GNUC__)
#pragma GCC visibility pop
#endif

#endif
