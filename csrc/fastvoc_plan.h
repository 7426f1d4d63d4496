/* The native surface of fastvoc: whole networks. Operators, errors and instruction sets are in fastvoc.h. */
#ifndef FASTVOC_PLAN_H
#define FASTVOC_PLAN_H

#include "fastvoc.h"

#if defined(__GNUC__)
#pragma GCC visibility push(default)
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* plan: a whole network over time tiles, in one call
 *
 * A network is a list of layers. Each reads the result of an earlier one, or the network's input; the last one's result
 * is the network's. A layer is
 *
 *   y = tanh?(leaky_relu_after((partial? + (convolution + bias? + residual?)) / divisor))
 *
 * where the convolution is conv1d's or upsample's, of leaky_relu(input); or smooth_snake of the input stands in its place,
 * whose taps are 2, and to which nothing is added; on a GPU it is not the last layer.
 *
 * A plan is a network compiled for one instruction set. Signals are cut into tiles, and a tile passes many layers
 * while it is in the cache; what later tiles still need of it is kept, so that nothing is computed twice. What is kept
 * between two calls is the state of a stream: a signal may come in pieces, and how it is cut changes no bit of the
 * result, nor does the number of threads.
 *
 * The caller owns all memory, each block aligned to 64 bytes: the plan, its packed weights, one state per stream, and
 * a workspace per call. Sizes are in bytes.
 */
enum { FASTVOC_INPUT = -1, FASTVOC_NONE = -2 };
enum { FASTVOC_FLOAT32, FASTVOC_BFLOAT16, FASTVOC_INT8, FASTVOC_FLOAT16, FASTVOC_TFLOAT32 }; /* the last two: on GPUs */

typedef struct {
  int kind; /* FASTVOC_CONV1D, FASTVOC_UPSAMPLE or FASTVOC_SMOOTH_SNAKE */
  int input, residual, partial; /* whose results: numbers of earlier layers; FASTVOC_INPUT; FASTVOC_NONE to add nothing */
  int padding_mode, tanh;
  int64_t in_channels, out_channels, taps, dilation, stride, left, right; /* as in a call */
  float slope, divisor, slope_after;
  const float *weight, *bias; /* as in a call; not read after packing */
  /* If the scale is not 0, the layer multiplies in 8 bits: what it reads, behind the leaky ReLU, is
   * input_scale * (q - input_zero_point) with q in 0..255; each output channel of the weight has a scale of its own. */
  float input_scale;
  int input_zero_point;
  int gelu; /* on GPUs: an exact GELU takes the place of all that follows the sum, divisor and slope being 1 */
} fastvoc_layer;

typedef struct {
  int isa;
  int precision; /* of the operands of multiplications, where layers have no scale of their own: FASTVOC_FLOAT32 or
                  * FASTVOC_BFLOAT16; sums, and what is added to them, are float32 */
  int in_order;  /* in float32 sum every output in conv1d's order, instead of in the fastest one */
  int count;
  const fastvoc_layer* layers;
} fastvoc_network;

int64_t fastvoc_plan_size(const fastvoc_network* network);

/* A number made of a few values of each of `count` pieces of memory, such as weights that were packed: another one where
 * most of a piece was written. `sizes` are in bytes. */
uint64_t fastvoc_fingerprint(int64_t count, const void* const* pieces, const int64_t* sizes);

/* Check a network and compile it; the plan is then what the others expect. */
int fastvoc_plan_make(const fastvoc_network* network, void* plan);
int64_t fastvoc_plan_packed_size(const void* plan);
int fastvoc_plan_pack(const fastvoc_network* network, const void* plan, int threads, void* packed);
int64_t fastvoc_plan_state_size(const void* plan);
int64_t fastvoc_plan_workspace_size(const void* plan, int threads);

/* How many layers multiply less by Toom-Cook's method. */
int fastvoc_plan_toom_cook_layers(const void* plan);

/* Begin a stream. */
int fastvoc_plan_begin(const void* plan, void* state);

/* How many frames of the result the next `frames` of the input make certain. */
int64_t fastvoc_plan_ready(const void* plan, const void* state, int64_t frames, int last);

/* Advance a stream.
 *
 *   x  (in_channels, frames)      float32, any strides; `last` says that no others follow
 *   y  (out_channels, ready)      float32, any strides
 */
int fastvoc_plan_run(const void* plan, const void* packed, void* state, void* workspace, int threads, const float* x,
                     const int64_t* x_strides, int64_t frames, int last, float* y, const int64_t* y_strides);

#ifdef __cplusplus
}
#endif

#if defined(__GNUC__)
#pragma GCC visibility pop
#endif

#endif
