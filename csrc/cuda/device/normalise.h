// What the host tells the kernels that begin convnext. NVRTC reads this too.
#pragma once

#include "program.h"

namespace fastvoc::cuda {

// These kernels are not launched early, so that they wait for none.
//
// Each channel is convolved with its own taps, and each frame normalised: a warp makes `frames` neighbouring ones, whose
// channels its lanes hold, two by two. blockIdx.x: tile of kNormaliseWarps times as many frames; y: item. Strides are in
// elements.
struct Normalise {
  const void *x, *weight, *bias, *norm, *norm_bias;  // weight: [tap][channel]
  void* y;                                           // rows of channels, one after the other
  const int* lengths;                                // frames of each item of x, or null
  long long x_item;
  int x_channel, x_frame;  // less than 2^31 bytes
  int channels, frames, out_frames, taps, left;
  float eps;
  int words;  // both channels of a pair can be read at once
};

constexpr int kNormaliseWarps = 4, kNormaliseBlocks = 4;  // that share a multiprocessor: of 128 registers a thread

// A warp has up to `pairs` pairs of channels in each lane, and so many frames.
struct NormaliseKernel {
  const char* name;
  int precision, pairs, frames;
};
#define FASTVOC_NORMALISES(kernel)                                  \
  kernel(f16, kFloat16, 8, 4) kernel(f16, kFloat16, 16, 1)          \
  kernel(bf16, kBfloat16, 8, 4) kernel(bf16, kBfloat16, 16, 1)
#define FASTVOC_NORMALISE_ROW(word, precision, pairs, frames) \
  {"normalise_" #word "_" #pairs "x" #frames, precision, pairs, frames},
constexpr NormaliseKernel kNormalises[] = {FASTVOC_NORMALISES(FASTVOC_NORMALISE_ROW)};
constexpr int kNormaliseKernels = sizeof(kNormalises) / sizeof(kNormalises[0]);

}  // namespace fastvoc::cuda
