/* The whole native surface of fastvoc.
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
       FASTVOC_ERROR_COUNT };

/* What an error means, as half a sentence. */
const char* fastvoc_error(int error);

/* Instruction sets, ascending; a later one is faster where it is usable. The portable one of AArch64 is NEON. */
enum {
  FASTVOC_ISA_PORTABLE,
  FASTVOC_ISA_AVX2,
  FASTVOC_ISA_AVX512,
  FASTVOC_ISA_AVX512_BF16,
  FASTVOC_ISA_AVX512_AMX, /* as the one before, but for plans in bfloat16 */
  FASTVOC_ISA_COUNT
};

const char* fastvoc_isa_name(int isa);

/* Whether the library was compiled for it and this processor and operating system have it. */
int fastvoc_isa_usable(int isa);

/* Multiply and add in registers of one core, to measure what it can do at best. Writes 16 floats that mean nothing and
 * returns the floating point operations done, or 0 where the instruction set is not usable. */
int64_t fastvoc_multiply_add(int isa, int64_t rounds, float* result);

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

/* The gradient of conv1d, where `grad` is the gradient of weight * pad(leaky_relu(x)) + bias.
 *
 *   grad           (batch, out_channels, out_frames)       float32
 *   grad_x         (batch, in_channels, in_frames)         float32, contiguous or channels-last, or null
 *   grad_weight    (out_channels, in_channels, taps)       float32, contiguous, or null
 *   grad_bias      (out_channels,)                         float32, contiguous, or null
 *
 * What is null is not computed. The weight is read as it is; `tanh` is not.
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

/* plan: a whole network over time tiles, in one call
 *
 * A network is a list of layers. Each reads the result of an earlier one, or the network's input; the last one's result
 * is the network's. A layer is
 *
 *   y = tanh?(leaky_relu_after((partial? + (convolution + bias? + residual?)) / divisor))
 *
 * where the convolution is conv1d's or upsample's, of leaky_relu(input).
 *
 * A plan is a network compiled for one instruction set. Signals are cut into tiles, and a tile passes many layers
 * while it is in the cache; what later tiles still need of it is kept, so that nothing is computed twice. What is kept
 * between two calls is the state of a stream: a signal may come in pieces, and how it is cut changes no bit of the
 * result, nor does the number of threads.
 *
 * The caller owns all memory, each block aligned to 64 bytes: the plan, its packed weights, one state per stream, and
 * a workspace per call. Sizes are in bytes.
 */
enum { FASTVOC_CONV1D, FASTVOC_UPSAMPLE };
enum { FASTVOC_INPUT = -1, FASTVOC_NONE = -2 };
enum { FASTVOC_FLOAT32, FASTVOC_BFLOAT16, FASTVOC_INT8 };

typedef struct {
  int kind;
  int input, residual, partial; /* whose results: numbers of earlier layers; FASTVOC_INPUT; FASTVOC_NONE to add nothing */
  int padding_mode, tanh;
  int64_t in_channels, out_channels, taps, dilation, stride, left, right; /* as in the calls above */
  float slope, divisor, slope_after;
  const float *weight, *bias; /* as in the calls above; not read after packing */
  /* If the scale is not 0, the layer multiplies in 8 bits: what it reads, behind the leaky ReLU, is
   * input_scale * (q - input_zero_point) with q in 0..255; each output channel of the weight has a scale of its own. */
  float input_scale;
  int input_zero_point;
} fastvoc_layer;

typedef struct {
  int isa;
  int precision; /* of the operands of multiplications, where layers have no scale of their own: FASTVOC_FLOAT32 or
                  * FASTVOC_BFLOAT16; sums, and what is added to them, are float32 */
  int in_order;  /* sum every output in conv1d's order, instead of in the fastest one */
  int count;
  const fastvoc_layer* layers;
} fastvoc_network;

int64_t fastvoc_plan_size(const fastvoc_network* network);

/* Check a network and compile it; the plan is then what the others expect. */
int fastvoc_plan_make(const fastvoc_network* network, void* plan);
int64_t fastvoc_plan_packed_size(const void* plan);
int fastvoc_plan_pack(const fastvoc_network* network, const void* plan, void* packed);
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
