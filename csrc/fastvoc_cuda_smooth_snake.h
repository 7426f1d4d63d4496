/* The native surface of fastvoc: smooth_snake on a GPU. Contexts, streams and kernels are those of fastvoc_cuda.h. */
#ifndef FASTVOC_CUDA_SMOOTH_SNAKE_H
#define FASTVOC_CUDA_SMOOTH_SNAKE_H

#include "fastvoc_cuda.h"

#if defined(__GNUC__)
#pragma GCC visibility push(default)
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* smooth_snake: y = down(s), s = u + sin(a u)^2 / (b + 1e-9), u = up(x); a and b are e^alpha and e^beta if logarithmic
 *
 * Tensors are in device memory, of the precision (FASTVOC_FLOAT16, FASTVOC_BFLOAT16 or FASTVOC_FLOAT32), with any strides
 * (batch, channels, frames; in elements); alpha and beta are contiguous. Inside everything is float32, and rounded once.
 *
 * With `grad`, the gradient of the result, the kernel makes that of x in `y`, if that is not null, and with `sums` those
 * of the parameters: for each item, part of time and channel the sums of g u sin(2 a u), and behind all of them those of
 * g sin(a u)^2, (2, batch, parts, channels). The gradient of a is 1 / (b + 1e-9) times the former, that of b
 * -1 / (b + 1e-9)^2 times the latter.
 */
typedef struct {
  int precision, logarithmic;
  int64_t batch, channels, frames;
  const int* lengths; /* frames of each item, at most `frames`; or null, if all are as long; of no gradient */
  const void *x, *alpha, *beta, *grad; /* beta: null for that of Snake, which is alpha */
  void* y;
  float* sums;
  int64_t x_strides[3], grad_strides[3], y_strides[3];
} fastvoc_cuda_smooth_snake;

/* How many parts time has, or -1 if the call is refused; and how many clocks the kernel is expected to take, or -1. Of a
 * call only precision, sizes, strides and whether there is a gradient are looked at. */
int64_t fastvoc_cuda_smooth_snake_parts(const fastvoc_gpu* gpu, const fastvoc_cuda_smooth_snake* call);
double fastvoc_cuda_smooth_snake_clocks(const fastvoc_gpu* gpu, const fastvoc_cuda_smooth_snake* call);

int fastvoc_cuda_smooth_snake_run(const fastvoc_gpu* gpu, void* kernels, void* stream,
                                  const fastvoc_cuda_smooth_snake* call);

#ifdef __cplusplus
}
#endif

#if defined(__GNUC__)
#pragma GCC visibility pop
#endif

#endif
