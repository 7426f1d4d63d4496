/* The native surface of fastvoc: the operator that discriminators are made of. It follows the rules of fastvoc.h. */
#ifndef FASTVOC_DOWNSAMPLE_H
#define FASTVOC_DOWNSAMPLE_H

#include "fastvoc.h"

#if defined(__GNUC__)
#pragma GCC visibility push(default)
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* downsample: y = leaky_relu(bias? + weight * pad(x)), with a stride, in groups of channels that do not meet
 *
 *   x        (batch, in_channels, in_frames)               float32
 *   weight   (out_channels, in_channels / groups, taps)    float32, contiguous, not flipped
 *   bias     (out_channels,)                               float32, contiguous, or null
 *   y        (batch, out_channels, out_frames)             float32
 *
 * out_frames = (in_frames + left + right - taps) / stride + 1, rounded down; left and right are zeros.
 */
typedef struct {
  int isa, threads;
  int64_t batch, in_channels, in_frames, out_channels, taps, stride, left, right, groups;
  float slope; /* of the leaky ReLU, positive; 1 is no activation */
} fastvoc_downsample_call;

int fastvoc_downsample_check(const fastvoc_downsample_call* call);
int64_t fastvoc_downsample_workspace_size(const fastvoc_downsample_call* call);
int fastvoc_downsample(const fastvoc_downsample_call* call, const float* x, const int64_t* x_strides,
                       const float* weight, const float* bias, float* y, const int64_t* y_strides, float* workspace);

/* The gradient of downsample, where `grad` is the gradient of y, whose signs tell the slope. Results have the shapes of
 * what they belong to, grad_weight and grad_bias contiguous. One that is null is not computed.
 */
int64_t fastvoc_downsample_backward_workspace_size(const fastvoc_downsample_call* call);
int fastvoc_downsample_backward(const fastvoc_downsample_call* call, const float* grad, const int64_t* grad_strides,
                                const float* x, const int64_t* x_strides, const float* weight, const float* y,
                                const int64_t* y_strides, float* grad_x, const int64_t* grad_x_strides,
                                float* grad_weight, float* grad_bias, float* workspace);

#ifdef __cplusplus
}
#endif

#if defined(__GNUC__)
#pragma GCC visibility pop
#endif

#endif
