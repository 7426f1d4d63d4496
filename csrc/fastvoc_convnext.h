/* The native surface of fastvoc: the block of Vocos. Errors, instruction sets and precisions are in fastvoc.h and
 * fastvoc_plan.h. */
#ifndef FASTVOC_CONVNEXT_H
#define FASTVOC_CONVNEXT_H

#include "fastvoc_plan.h"

#if defined(__GNUC__)
#pragma GCC visibility push(default)
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* convnext: y = x' + scale * (contract gelu(expand n + expand_bias) + contract_bias), of each frame
 *
 *   n = norm * (z - mean z) / sqrt(variance z + eps) + norm_bias, over the channels of the frame
 *   z = depthwise * pad(x) + depthwise_bias, each channel with taps of its own, `left` and `right` zeros around
 *   x' is what the middle tap sees
 *
 *   x  (batch, in_frames, channels)   float32, channels neighbours in memory
 *   y  (batch, out_frames, channels)  float32, likewise; out_frames = in_frames + left + right - taps + 1
 *
 * What the norm multiplies by and adds is made a part of `expand`, and `scale` one of `contract`, when weights are
 * packed. Every output is summed in one order, whatever the threads and wherever a signal is cut.
 */
typedef struct {
  int isa, threads;
  int precision; /* of the operands of both products: FASTVOC_FLOAT32 or FASTVOC_BFLOAT16; all else is float32 */
  int64_t batch, in_frames, channels, hidden, taps, left, right; /* taps are odd */
  float eps;
} fastvoc_convnext;

/* All float32 and contiguous. */
typedef struct {
  const float *depthwise, *depthwise_bias; /* (channels, taps), (channels,) */
  const float *norm, *norm_bias;           /* (channels,) each */
  const float *expand, *expand_bias;       /* (hidden, channels), (hidden,) */
  const float *contract, *contract_bias;   /* (channels, hidden), (channels,) */
  const float* scale;                      /* (channels,) */
} fastvoc_convnext_weights;

/* FASTVOC_OK if the call can be run. The functions below expect a call that was checked. */
int fastvoc_convnext_check(const fastvoc_convnext* call);

/* How many bytes the packed weights, which depend on neither batch, frames nor padding, and the work of all threads
 * take, each aligned to 64 bytes. */
int64_t fastvoc_convnext_packed_size(const fastvoc_convnext* call);
int64_t fastvoc_convnext_workspace_size(const fastvoc_convnext* call);

int fastvoc_convnext_pack(const fastvoc_convnext* call, const fastvoc_convnext_weights* weights, void* packed,
                          void* workspace);

/* Strides are in floats, from one item and from one frame to the next. */
int fastvoc_convnext_run(const fastvoc_convnext* call, const float* x, int64_t x_batch, int64_t x_frame,
                         const void* packed, float* y, int64_t y_batch, int64_t y_frame, void* workspace);

#ifdef __cplusplus
}
#endif

#if defined(__GNUC__)
#pragma GCC visibility pop
#endif

#endif
