/* The native surface of fastvoc: what begins convnext on a GPU; its products are a network of two layers. Contexts, streams
 * and kernels are those of fastvoc_cuda.h. */
#ifndef FASTVOC_CUDA_CONVNEXT_H
#define FASTVOC_CUDA_CONVNEXT_H

#include "fastvoc_cuda.h"

#if defined(__GNUC__)
#pragma GCC visibility push(default)
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* y = (z - mean z) / sqrt(var z + eps) * norm + norm_bias over the channels of each frame, of which z is convolved with
 * its own taps: z[c, t] = bias[c] + sum_k weight[k, c] x[c, t + k - left], x being zero beyond its ends
 *
 * Tensors are in device memory, of the precision: FASTVOC_FLOAT16 or FASTVOC_BFLOAT16. x has any strides (batch, channels,
 * frames; in elements); the weight is (taps, channels), contiguous as the other parameters are, and y (batch, frames +
 * left + right - taps + 1, channels). What is computed is float32, and rounded once.
 */
typedef struct {
  int precision;
  int64_t batch, channels, frames, taps, left, right;
  const int* lengths; /* frames of each item of x, at most `frames`; or null, if all are as long */
  const void *x, *weight, *bias, *norm, *norm_bias;
  void* y;
  int64_t x_strides[3];
  float eps;
} fastvoc_cuda_normalise;

/* How many channels are taken at most. */
int64_t fastvoc_cuda_normalise_channels(void);

/* How many clocks the kernel is expected to take, or -1 if the call is refused. Of a call only precision, sizes and
 * strides are looked at. */
double fastvoc_cuda_normalise_clocks(const fastvoc_gpu* gpu, const fastvoc_cuda_normalise* call);

int fastvoc_cuda_normalise_run(const fastvoc_gpu* gpu, void* kernels, void* stream, const fastvoc_cuda_normalise* call);

#ifdef __cplusplus
}
#endif

#if defined(__GNUC__)
#pragma GCC visibility pop
#endif

#endif
