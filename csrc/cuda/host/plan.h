// A network compiled for a kind of GPU: what is launched, where weights stand, and which results are in memory when.
//
// A *line* is the result of a layer in device memory, as rows of whole chunks. An *operation* is one or several layers
// that add up (program.h), or a smooth_snake; a *launch* is a chain of operations, or up to kProblems of them side by side.
// All of that is
// decided when the plan is made, so that results have the same bits whatever the batch and the number of frames; only
// the tiles, in which sums do not depend on each other, are chosen by the call.
#pragma once

#include <cstdint>

#include "../../fastvoc_cuda.h"
#include "../device/gradients.h"
#include "../device/normalise.h"
#include "../device/program.h"
#include "../device/snake.h"

namespace fastvoc::cuda {

constexpr int kMaxLayers = 512;
constexpr int64_t kLineAlign = 256;     // bytes: of what is in device memory
constexpr int64_t kMostRows = 1 << 30;  // of a line: kernels count rows in 32 bits
constexpr int64_t kMostItems = 65535;   // of a batch: a grid's second extent

enum { kX, kOther, kResults };  // lines: the network's inputs, and behind them the result of each layer

struct Line {
  int channels;      // of the user's input, or of a layer
  int chunks;        // that a row is stored in
  int rate, offset;  // frames * rate + offset rows
  float stored;      // slope of the leaky ReLU behind which it is stored
  int exact;         // not rounded to TF32: activations read it, and no convolution multiplies it
  int last;          // launch that reads it last, or -1 if it is not in the workspace
  int instead;       // of this line, in whose memory it stands; or -1
};

struct Reading {
  int line, layer;                                      // what is read, with whose weight
  int in_channels, out_channels, layer_taps, upsample;  // of that layer
  int chunks, taps, dilation, left, right;              // right: rows behind the end that are read
  short front, back;
  float factor;
  int64_t weight;  // bytes into the packed block
  int buffer;      // of a chain
};

struct Adding {
  int line;
  float factor;
  int buffer;  // of a chain; -1 is a line in device memory
};

struct Operation {
  Reading source[kSources];
  Adding residual[kResiduals];
  int sources, residuals;
  int line;  // the result
  int columns, channels, stride, crop;
  float scale, slope_after;
  int tanh, gelu;
  int activates;             // a smooth_snake of its source, whose weight are two rows of floats; else a convolution
  int gates, sigmoid_first;  // of a gate (gated.cpp), or 0
  int64_t bias;        // bytes into the packed block
  int buffer, narrow;  // of a chain: where the result is, or -1 for the chain's result
  int before, after;   // rows that are needed in front of those of the chain's result, and behind them
};

struct Launch {
  int chain, count, operation[kSteps];  // operations have the number of their (last) layer
  int hopper;                           // by the kernels for architecture 90
  int activates;                        // as its operations
  int shared;                           // its operations read the same rows at the same time (gated.cpp)
  // Of a chain: lines (added is -1 if there is none), and rows of a tile around those of its result.
  int x, added, width, buffers, before, after, guard;
  int64_t weights, biases;  // bytes into the packed block
};

struct Plan {
  fastvoc_gpu gpu;
  int precision;  // Precision
  int layers, launches;
  int64_t packed;  // bytes
  int uses_other;
  Line line[kMaxLayers + kResults];
  Operation operation[kMaxLayers];
  Launch launch[kMaxLayers];
  // Of each layer what padding asks of its input: more rows than this.
  int least[kMaxLayers], reads[kMaxLayers];
};

// Compiled kernels, as fastvoc_cuda_load leaves them.
constexpr int kChainKernels = sizeof(kChains) / sizeof(kChains[0]);
constexpr int kConvolutionKernels = sizeof(kConvolutions) / sizeof(kConvolutions[0]);
constexpr int kWeightGradientKernels = sizeof(kWeightGradients) / sizeof(kWeightGradients[0]);
struct Kernels {
  void* module;
  void *chain[kChainKernels], *convolution[kConvolutionKernels], *pack, *enter;
  void *weight_gradient[kWeightGradientKernels], *add_parts, *input_gradient;
  void* recurrent[kTfloat32];  // by precision
  void* recurrent_cluster[kTfloat32];
  void *smooth_snake[kPrecisions], *smooth_snake_gradient[kPrecisions], *normalise[kNormaliseKernels];
};

// These return one of FASTVOC_OK and the errors.
int compile(const fastvoc_network& network, const fastvoc_gpu& gpu, Plan& plan);
int pack(const fastvoc_network& network, const Plan& plan, const Kernels& kernels, bool narrow, void* packed,
         void* stream);
int run(const Plan& plan, const Kernels& kernels, const void* packed, void* workspace, void* stream,
        const fastvoc_cuda_call& call);

// -1 if the signal is too short, or more than is taken.
int64_t out_frames(const Plan& plan, int64_t frames);
int64_t workspace_bytes(const Plan& plan, int64_t batch, int64_t frames);
int launches(const Plan& plan, int64_t batch, int64_t frames);

// The kernel of a launch, or null; and the clocks that it is expected to take, or -1.
const char* kernel_name(const Plan& plan, int64_t batch, int64_t frames, int launch);
double expected_clocks(const Plan& plan, int64_t batch, int64_t frames, int launch);

}  // namespace fastvoc::cuda
