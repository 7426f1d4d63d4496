/* The native surface of fastvoc: a gated layer of WaveGlow, and a gate alone. Errors, instruction sets and precisions are in fastvoc.h and
 * fastvoc_plan.h. */
#ifndef FASTVOC_GATED_H
#define FASTVOC_GATED_H

#include "fastvoc_plan.h"

#if defined(__GNUC__)
#pragma GCC visibility push(default)
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* gated: of each row, with products of matrices
 *
 *   a = weight * x + condition * c + bias, the first with taps `dilation` rows apart, beginning at the row itself
 *
 * where c has one row for so many `phases` of the others, of which each has a weight of its own: row r, counted from the
 * beginning of the first row of c, which lies `offset` rows before the first row of results, takes rows r / phases, and
 * the next ones for as many taps as the condition has, and the weight of phase r % phases. And
 *
 *   g = tanh(first half of a) * sigmoid(second half of a)
 *   residual = x' + residual * g + residual_bias, where x' is the row of x that lies `before` rows further on
 *   skip     = s + skip * g + skip_bias
 *
 *   x         (batch, frames + dilation * (taps - 1), channels)
 *   c         (batch, (offset + frames - 1) / phases + condition_taps, condition)
 *   s, skip   (batch, frames, skips)
 *   residual  (batch, frames, channels), unless the layer has none
 *
 * all float32, with channels as neighbours in memory. Results may not overlap x and c; skip may be written where s is.
 *
 * In float32 the convolution multiplies less by Toom and Cook's method, unless outputs are to be summed in order: then
 * a row does not depend on where it stands in a call. Nothing depends on the threads.
 */
typedef struct {
  int isa, threads;
  int precision; /* of the operands of all products: FASTVOC_FLOAT32 or FASTVOC_BFLOAT16; all else is float32 */
  int in_order;  /* 0 or 1 */
  int residual;  /* whether there is one: 0 or 1 */
  int64_t batch, frames, channels, gates, skips, taps, dilation, before;
  int64_t condition, condition_taps, phases, offset; /* the last from 0 up to, but not, phases */
} fastvoc_gated;

/* All float32 and contiguous. */
typedef struct {
  const float *weight, *bias;            /* (2 gates, channels, taps), (2 gates,) */
  const float* condition;                /* (phases, 2 gates, condition, condition_taps) */
  const float *residual, *residual_bias; /* (channels, gates), (channels,); null where there is none */
  const float *skip, *skip_bias;         /* (skips, gates), (skips,) */
} fastvoc_gated_weights;

/* Memory of a call; strides are in floats, from one item and from one frame to the next. */
typedef struct {
  const float* data;
  int64_t batch, frame;
} fastvoc_gated_input;

typedef struct {
  float* data;
  int64_t batch, frame;
} fastvoc_gated_output;

/* FASTVOC_OK if the call can be run. The functions below expect a call that was checked. */
int fastvoc_gated_check(const fastvoc_gated* call);

/* How many bytes the packed weights, which depend on neither batch, frames nor threads, and the work of all threads take,
 * each aligned to 64 bytes. */
int64_t fastvoc_gated_packed_size(const fastvoc_gated* call);
int64_t fastvoc_gated_workspace_size(const fastvoc_gated* call);

int fastvoc_gated_pack(const fastvoc_gated* call, const fastvoc_gated_weights* weights, void* packed, void* workspace);

/* `s` without data is zeros, and so is `residual` where there is none. */
int fastvoc_gated_run(const fastvoc_gated* call, const fastvoc_gated_input* x, const fastvoc_gated_input* c,
                      const fastvoc_gated_input* s, const void* packed, const fastvoc_gated_output* residual,
                      const fastvoc_gated_output* skip, void* workspace);

/* gate: g = tanh(first half of a) * sigmoid(second half of a), in `blocks` that lie one behind the other
 *
 *   a  (blocks, 2, length)
 *   g  (blocks, length)
 *
 * all float32 and contiguous: with channels as neighbours a block is a row, otherwise an item of a batch.
 */
typedef struct {
  int isa, threads;
  int sigmoid_first; /* 0, or 1 where the halves go through the functions the other way round */
  int64_t blocks, length;
} fastvoc_gate;

/* FASTVOC_OK if the call can be run. The functions below expect a call that was checked. */
int fastvoc_gate_check(const fastvoc_gate* call);
int fastvoc_gate_run(const fastvoc_gate* call, const float* a, float* g);

/* The gradient of a, from that of g. */
int fastvoc_gate_backward(const fastvoc_gate* call, const float* a, const float* grad, float* grad_a);

#ifdef __cplusplus
}
#endif

#if defined(__GNUC__)
#pragma GCC visibility pop
#endif

#endif
