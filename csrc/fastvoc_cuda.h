/* The native surface of fastvoc: networks on a GPU. What a network is, is said in fastvoc_plan.h.
 *
 * Kernels are compiled apart: when the package is built, or at first use. They are launched through the driver, which is
 * looked for when somebody asks; nothing here is linked to it. Functions that take a context use the current one of the
 * calling thread. Nothing synchronises, and nothing allocates but fastvoc_cuda_load, so that runs can be captured.
 */
#ifndef FASTVOC_CUDA_H
#define FASTVOC_CUDA_H

#include "fastvoc_recurrent.h"

#if defined(__GNUC__)
#pragma GCC visibility push(default)
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Why there is no driver, as half a sentence, or null. */
const char* fastvoc_cuda_missing(void);

/* What the driver said of the last FASTVOC_DRIVER_ERROR of this thread. */
const char* fastvoc_cuda_message(void);

/* What is done with kernels that only architecture 90 can run: none of them; or beside those of convolutions also
 * those of chains, those of convolutions whose warpgroups work in turn, and those of recurrent networks whose samples
 * the blocks of a cluster make together. */
enum { FASTVOC_HOPPER_OFF = 1, FASTVOC_HOPPER_CHAINS = 2, FASTVOC_HOPPER_IN_TURN = 4, FASTVOC_HOPPER_CLUSTERS = 8 };

typedef struct {
  int architecture;              /* 10 * major + minor */
  int multiprocessors;
  int shared_per_block;          /* bytes that a block may have, if it asks */
  int shared_per_multiprocessor; /* bytes */
  int hopper;                    /* FASTVOC_HOPPER_OFF, or the sum of others, or 0 */
} fastvoc_gpu;

/* Load compiled kernels (a fatbin or a cubin) into the current context. They stay until the process ends. */
int fastvoc_cuda_load(const void* image, void** kernels);

/* A network compiled for a kind of GPU. `isa` and `in_order` are not looked at; the precision is FASTVOC_FLOAT16,
 * FASTVOC_BFLOAT16 or FASTVOC_TFLOAT32: of operands of multiplications and of stored results; sums are float32. A layer may
 * add FASTVOC_OTHER_INPUT, a second input as long as its result. */
enum { FASTVOC_OTHER_INPUT = -3 };

int64_t fastvoc_cuda_plan_size(const fastvoc_network* network);
int fastvoc_cuda_plan_make(const fastvoc_network* network, const fastvoc_gpu* gpu, void* plan);

/* Bytes of device memory, aligned to 256. */
int64_t fastvoc_cuda_plan_packed_size(const void* plan);
int64_t fastvoc_cuda_plan_workspace_size(const void* plan, int64_t batch, int64_t frames);

/* Bring the weights into the order of the kernels, on a stream. Here `weight` and `bias` of a layer are in device memory:
 * float32, or if `narrow` of the plan's precision; those of a smooth_snake are float32. */
int fastvoc_cuda_plan_pack(const fastvoc_network* network, const void* plan, void* kernels, int narrow, void* packed,
                           void* stream);

/* How many frames the result has. */
int64_t fastvoc_cuda_plan_out_frames(const void* plan, int64_t frames);

/* How many kernels a run launches, what they are (a name such as chain_f16_32_8x4, or null), and how many clocks of the
 * GPU each is expected to take (or -1): by a model of it, from data sheets, which also chose them. */
int fastvoc_cuda_plan_launches(const void* plan, int64_t batch, int64_t frames);
const char* fastvoc_cuda_plan_kernel(const void* plan, int64_t batch, int64_t frames, int launch);
double fastvoc_cuda_plan_clocks(const void* plan, int64_t batch, int64_t frames, int launch);

enum { FASTVOC_ELEMENTS, FASTVOC_FLOATS, FASTVOC_INT16 };

/* One run. Inputs have any strides (batch, channels, frames; in elements); the result has rows of neighbouring channels. */
typedef struct {
  int64_t batch, frames;
  const int* lengths; /* in device memory: frames of each item, at most `frames`; or null, if all are as long */
  const void *x, *other;
  int64_t x_strides[3], other_strides[3];
  int x_type, other_type; /* FASTVOC_ELEMENTS: as the plan's precision; FASTVOC_FLOATS */
  void* y;
  int64_t y_item, y_row; /* elements from item to item, and from frame to frame */
  int y_type;            /* or FASTVOC_INT16: 32767 * y, rounded */
} fastvoc_cuda_call;

int fastvoc_cuda_plan_run(const void* plan, void* kernels, const void* packed, void* workspace, void* stream,
                          const fastvoc_cuda_call* call);

/* gradients of one layer: of its weight and bias, and what is left of that of its input
 *
 * Tensors are of the precision (float32 for FASTVOC_TFLOAT32) and in device memory, with any strides (batch, channels,
 * frames; in elements); the results for weight and bias are contiguous and ordered as those are. Of the layer only the
 * convolution and its slope are looked at. Sums are float32, and the same call gives the same bits.
 */
typedef struct {
  int precision;
  int64_t batch, frames;  /* of x */
  const void *x, *grad;   /* grad: the gradient of the convolution's result */
  int64_t x_strides[3], grad_strides[3];
  void *weight, *bias;    /* or null, if nobody wants it */
} fastvoc_cuda_weight_gradient;

/* Bytes, aligned to 256, or -1 if the call is refused. */
int64_t fastvoc_cuda_weight_gradient_workspace_size(const fastvoc_layer* layer, const fastvoc_gpu* gpu,
                                                    const fastvoc_cuda_weight_gradient* call);
int fastvoc_cuda_weight_gradient_run(const fastvoc_layer* layer, const fastvoc_gpu* gpu, void* kernels, void* workspace,
                                     void* stream, const fastvoc_cuda_weight_gradient* call);

/* From the gradient of the padded input, behind the leaky ReLU, to that of x: what padding repeated gives back to where
 * it came from, and what is not positive passes by the slope. Rows of zeros have no gradient: left and right are 0. */
typedef struct {
  int precision, padding_mode;
  int64_t batch, channels, frames, left, right; /* frames of x */
  float slope;
  const void *padded, *x; /* x is not read if the slope is 1 */
  void* y;
  int64_t padded_strides[3], x_strides[3], y_strides[3];
} fastvoc_cuda_input_gradient;

int fastvoc_cuda_input_gradient_run(void* kernels, void* stream, const fastvoc_cuda_input_gradient* call);

/* gated: a layer of WaveNet, in two launches
 *
 *   a = weight * x + bias + c, the first with taps `dilation` rows apart; or weight * x + bias + its weight * c + its bias
 *   g = tanh(first half of a) * sigmoid(second half of a), or the other way round
 *   residual = scale * (x' + product of g), where x' is the row of x that lies `before` rows behind the first tap
 *   skip     = s + product of g
 *
 * Tensors are of the precision (float32 for FASTVOC_TFLOAT32) and in device memory. Sums are float32; g is rounded once.
 */
typedef struct {
  int precision;     /* as in a plan for GPUs */
  int residual;      /* whether there is one: 0 or 1 */
  int sigmoid_first; /* which half of the weight is that of the sigmoid */
  int multiplied;    /* whether the condition is multiplied by a weight, or added */
  float scale;
  int64_t channels, gates, skips, condition; /* skips and condition may be 0; a condition that is added has 2 gates */
  int64_t taps, dilation, left, right, before;
} fastvoc_cuda_gated;

typedef struct {
  const void *weight, *bias; /* contiguous (rows, channels, taps) and (rows,); a bias may be null */
} fastvoc_cuda_gated_weight;

typedef struct {
  const void* data;   /* null where the layer has none */
  int64_t strides[3]; /* batch, channels, frames; in elements */
} fastvoc_cuda_gated_input;

typedef struct {
  void* data;        /* rows of neighbouring channels; null where the layer has none */
  int64_t item, row; /* elements from item to item, and from frame to frame */
} fastvoc_cuda_gated_output;

typedef struct {
  int64_t batch, frames; /* of x */
  const int* lengths;    /* as in a call of a plan */
  fastvoc_cuda_gated_input x, condition, skip;
  fastvoc_cuda_gated_output residual, made; /* the latter is the skip connection */
} fastvoc_cuda_gated_call;

/* A layer compiled for a kind of GPU, in so many bytes of the caller; FASTVOC_BAD_SIZE also if no kernel takes it. */
int64_t fastvoc_cuda_gated_size(void);
int fastvoc_cuda_gated_make(const fastvoc_cuda_gated* layer, const fastvoc_gpu* gpu, void* plan);

/* Bytes of device memory, aligned to 256; of the workspace -1 if the call is refused. Both are asked of what runs. */
int64_t fastvoc_cuda_gated_packed_size(const void* plan);
int64_t fastvoc_cuda_gated_workspace_size(const void* plan, const fastvoc_cuda_gated_call* call);

/* The weights of the convolution, of the condition where it is multiplied, and of the products, whose rows are those of
 * the residual and then those of the skip connection: float32, or if `narrow` of the precision. */
int fastvoc_cuda_gated_pack(const void* plan, void* kernels, int narrow, const fastvoc_cuda_gated_weight* convolution,
                            const fastvoc_cuda_gated_weight* condition, const fastvoc_cuda_gated_weight* products,
                            void* packed, void* stream);
int fastvoc_cuda_gated_run(const void* plan, void* kernels, const void* packed, void* workspace, void* stream,
                           const fastvoc_cuda_gated_call* call);

/* As fastvoc_cuda_plan_launches and so on, without what brings the call's tensors into rows. */
int fastvoc_cuda_gated_launches(const void* plan);
const char* fastvoc_cuda_gated_kernel(const void* plan, int64_t batch, int64_t frames, int launch);
double fastvoc_cuda_gated_clocks(const void* plan, int64_t batch, int64_t frames, int launch);

/* networks that make one sample after the other: see fastvoc_recurrent.h
 *
 * One launch makes all samples of a call. The precision is FASTVOC_FLOAT16 or FASTVOC_BFLOAT16, `isa` and `threads` are
 * not looked at, and `first_skip`, `hidden_condition` and `input_scales` must be null.
 */
/* FASTVOC_OK if this GPU can run the network. The functions below expect one that was checked. */
int fastvoc_cuda_recurrent_check(const fastvoc_recurrent* network, const fastvoc_gpu* gpu);

/* Bytes of shared memory that a block needs for one stream, of any network that fastvoc_recurrent_check takes. */
int64_t fastvoc_cuda_recurrent_shared(const fastvoc_recurrent* network);

/* How many clusters of blocks make the samples of a batch, or 0 if blocks make streams alone: where clusters were not
 * asked for, or there are more than eight streams for each, fewer than 8 multiprocessors, too little shared memory, or
 * channels that do not come in eights. */
int64_t fastvoc_cuda_recurrent_clusters(const fastvoc_recurrent* network, const fastvoc_gpu* gpu, int64_t batch);

/* Bytes, aligned to 256; -1 if the batch is refused. */
int64_t fastvoc_cuda_recurrent_packed_size(const fastvoc_recurrent* network);
int64_t fastvoc_cuda_recurrent_workspace_size(const fastvoc_recurrent* network, const fastvoc_gpu* gpu, int64_t batch);

/* Weights in the order of the kernel. Here all memory is the host's; what is packed then goes to the GPU as it is. */
int fastvoc_cuda_recurrent_pack(const fastvoc_recurrent* network, void* packed);

/* Some steps; of the network only numbers and dilations are looked at. What `steps` points to is in device memory. */
int fastvoc_cuda_recurrent_run(const fastvoc_recurrent* network, const fastvoc_gpu* gpu, void* kernels,
                               const void* packed, const fastvoc_steps* steps, void* workspace, void* stream);

#ifdef __cplusplus
}
#endif

#if defined(__GNUC__)
#pragma GCC visibility pop
#endif

#endif
