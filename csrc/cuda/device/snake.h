// What the host tells the kernels of smooth_snake and of its gradient. NVRTC reads this too.
#pragma once

#include "program.h"

namespace fastvoc::cuda {

// How alpha and beta are given: as numbers or as logarithms of them, of the precision; or packed, as floats: the
// frequency, and what multiplies sin².
enum SnakeParameters { kNumbers, kLogarithms, kPackedNumbers };

// Signals of one shape have parameters of their own.
struct SnakeProblem {
  const void *x, *alpha, *beta;  // beta may be null: it is alpha then
  void* y;                       // the result, or the gradient of x; or null, if nobody wants that
};

// A lane makes the frames of a part of two neighbouring channels. A part is `stretches` times six frames without the
// five that only its neighbour can make. Strides are in elements. blockIdx.x: lanes; y: item; z: problem. An item has
// `rate` times its length and `offset` frames, none if that is negative. Gradients are not launched early, so that they
// wait for none, and have one problem.
struct Snake {
  SnakeProblem problem[kProblems];
  const void* grad;  // of the result, if this is a gradient
  float* sums;       // of a gradient: [2][item][part][channel], or null
  Lengths lengths;
  int rate, offset;
  long long x_item, grad_item, y_item;
  int x_channel, x_frame, grad_channel, grad_frame, y_channel, y_frame;  // less than 2^31 bytes
  int channels, items, stretches, parts;
  int parameters;     // SnakeParameters
  int rounds;         // whether float32 is rounded to TF32, for who multiplies it
  int channels_last;  // neighbouring lanes are neighbouring channels, or else neighbouring parts
  int words;          // both channels of a lane can be read and written at once
};

constexpr int kSnakeThreads = 128, kSnakeStep = 6;
constexpr int kSnakeBlocks = 5, kGradientBlocks = 3;  // that share a multiprocessor: of 96 and 168 registers a thread
FASTVOC_BOTH constexpr int snake_frames(int stretches) { return kSnakeStep * stretches - 5; }

// float32 is not rounded to kTfloat32, whose elements these are.
#define FASTVOC_SNAKES(kernel) kernel(f16, kFloat16) kernel(bf16, kBfloat16) kernel(f32, kTfloat32)

}  // namespace fastvoc::cuda
