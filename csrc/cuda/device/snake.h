// What the host tells the kernels of smooth_snake and of its gradient. NVRTC reads this too.
#pragma once

#include "program.h"

namespace fastvoc::cuda {

// These kernels are not launched early, so that they wait for none.
//
// A lane makes the frames of a part of two neighbouring channels. A part is `stretches` times six frames without the
// five that only its neighbour can make. Strides are in elements. blockIdx.x: lanes; y: item.
struct Snake {
  const void *x, *grad, *alpha, *beta;  // grad: of the result, if this is a gradient; beta may be null: it is alpha then
  void* y;                              // the result, or the gradient of x; or null, if nobody wants that
  float* sums;                          // of a gradient: [2][item][part][channel], or null
  const int* lengths;                   // frames of each item, or null
  long long x_item, grad_item, y_item;
  int x_channel, x_frame, grad_channel, grad_frame, y_channel, y_frame;  // less than 2^31 bytes
  int channels, frames, items, stretches, parts;
  int logarithmic;
  int channels_last;  // neighbouring lanes are neighbouring channels, or else neighbouring parts
  int words;          // both channels of a lane can be read and written at once
};

constexpr int kSnakeThreads = 128, kSnakeStep = 6;
constexpr int kSnakeBlocks = 5, kGradientBlocks = 3;  // that share a multiprocessor: of 96 and 168 registers a thread
FASTVOC_BOTH constexpr int snake_frames(int stretches) { return kSnakeStep * stretches - 5; }

// float32 is not rounded to kTfloat32, whose elements these are.
#define FASTVOC_SNAKES(kernel) kernel(f16, kFloat16) kernel(bf16, kBfloat16) kernel(f32, kTfloat32)

}  // namespace fastvoc::cuda
