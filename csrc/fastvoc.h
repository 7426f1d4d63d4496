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
       FASTVOC_NO_DRIVER, FASTVOC_DRIVER_ERROR, FASTVOC_BAD_OPERATOR, FASTVOC_ERROR_COUNT };

/* What an error means, as half a sentence. */
const char* fastvoc_error(int error);

/* Instruction sets, ascending; a later one is faster where it is usable. The portable one of AArch64 is NEON. */
enum { FASTVOC_ISA_PORTABLE, FASTVOC_ISA_AVX2, FASTVOC_ISA_AVX512, FASTVOC_ISA_AVX512_BF16,
       FASTVOC_ISA_AVX512_AMX, FASTVOC_ISA_COUNT };

const char* fastvoc_isa_name(int isa);

/* Whether the library was compiled for it and this processor and operating system have it. */
int fastvoc_isa_usable(int isa);

/* Operators. All but the last are convolutions of
 *
 *   x         (batch, in_channels, in_frames)      float32
 *   bias      (out_channels,)                      float32, contiguous, or null
 *   y         (batch, out_channels, out_frames)    float32
 *
 * with a weight that is float32 and contiguous, and not flipped:
 *
 * conv1d: y = tanh?(residual? + bias? + weight * pad(leaky_relu(x)))
 *
 *   weight    (out_channels, in_channels, taps)
 *   residual  (batch, out_channels, out_frames)    float32, or null
 *   y         contiguous or channels-last
 *
 *   out_frames = in_frames + left + right - dilation * (taps - 1)
 *
 * upsample: y = bias? + crop(transposed weight * leaky_relu(x))
 *
 *   weight    (in_channels, out_channels, taps)
 *   y         contiguous or channels-last
 *
 *   out_frames = (in_frames - 1) * stride + taps - left - right, where left and right are cropped
 *
 * strided_conv1d: y = leaky_relu(bias? + weight * pad(x)), with a stride, in groups of channels that do not meet; what
 * discriminators are made of
 *
 *   weight    (out_channels, in_channels / groups, taps)
 *
 *   out_frames = (in_frames + left + right - taps) / stride + 1, rounded down; left and right are zeros; the slope is
 *   positive
 *
 * smooth_snake: y = down(s), s = u + amount * sin^2(frequency * u), u = up(x), where up and down double and halve the
 * rate by filters of 12 taps; x and s are repeated beyond their ends; BigVGAN's activation
 *
 *   weight    (channels, 2)                        per channel the frequency and the amount
 *
 *   taps are 2, groups and out_channels are the channels, out_frames = in_frames; there is no bias
 *
 * Every output is summed in one order, whatever the threads, so that results are equal bit for bit at any number of
 * them.
 */
enum { FASTVOC_CONV1D, FASTVOC_UPSAMPLE, FASTVOC_STRIDED_CONV1D, FASTVOC_SMOOTH_SNAKE, FASTVOC_OPERATOR_COUNT };
enum { FASTVOC_ZERO, FASTVOC_REFLECT, FASTVOC_REPLICATE };

typedef struct {
  int kind; /* the operator */
  int isa, threads;
  int padding_mode, tanh; /* conv1d's alone: FASTVOC_ZERO and 0 in others */
  int64_t batch, in_channels, in_frames, out_channels, taps;
  int64_t dilation, stride, groups; /* 1 in operators that have none */
  int64_t left, right;
  float slope; /* of the leaky ReLU; 1 is no activation */
} fastvoc_call;

/* FASTVOC_OK if the call can be run. The functions below expect a call that was checked. */
int fastvoc_call_check(const fastvoc_call* call);

/* How many floats the packed weight and the work of all threads take. A kernel that packs nothing reads the weight as
 * it is, in place of a packed one. */
int64_t fastvoc_call_packed_size(const fastvoc_call* call);
int64_t fastvoc_call_workspace_size(const fastvoc_call* call);

/* Bring a weight into the order in which the kernel of this instruction set reads it. */
int fastvoc_call_pack(const fastvoc_call* call, const float* weight, float* packed);

int fastvoc_call_run(const fastvoc_call* call, const float* x, const int64_t* x_strides, const float* packed,
                     const float* bias, const float* residual, const int64_t* residual_strides, float* y,
                     const int64_t* y_strides, float* workspace);

/* The gradient, where `grad` is that of weight * pad(leaky_relu(x)) + bias, without `tanh`; strided_conv1d takes the
 * gradient of y, whose signs tell the slope, and is alone in reading y. Results have the shapes of what they belong to:
 * grad_x contiguous or channels-last, grad_weight and grad_bias contiguous. One that is null is not computed. The weight
 * is read as it is.
 */
int64_t fastvoc_call_backward_workspace_size(const fastvoc_call* call);
int fastvoc_call_backward(const fastvoc_call* call, const float* grad, const int64_t* grad_strides, const float* x,
                          const int64_t* x_strides, const float* weight, const float* y, const int64_t* y_strides,
                          float* grad_x, const int64_t* grad_x_strides, float* grad_weight, float* grad_bias,
                          float* workspace);

#ifdef __cplusplus
}
#endif

#if defined(__GNUC__)
#pragma GCC visibility pop
#endif

#endif
