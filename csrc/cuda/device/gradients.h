// What the host tells the kernels of gradients, as program.h does for those of networks. NVRTC reads this too.
//
// The gradient of a weight pairs, for each tap, rows of one signal with rows of another:
//
//   gradient[f][s][tap] = sum over items and steps t of  fixed[t][f] * sliding[t * hop + tap * dilation - shift][s]
//
// conv1d's fixed signal is the gradient of its result, and x slides, with a hop of 1. upsample's fixed signal is x, and
// the gradient slides, with a hop of the stride and a dilation of 1: tap q * hop + p of step t meets row (t + q) * hop
// + p
// - shift, so that for each phase p it is a sum without a hop.
#pragma once

#include "program.h"

namespace fastvoc::cuda {

enum Operand { kNeither, kFixed, kSliding };

// blockIdx.x: share of the tiles of all items; y: fixed panel * sliding_panels + sliding panel; z: phase * groups +
// group of the phase's taps. Every block leaves its sums in the part of its share.
struct WeightGradient {
  Signal fixed, sliding;  // rows of whole chunks; rate and offset do not matter
  float* parts;      // of each share [tap][fixed channel][sliding channel], and behind that [phase][channel of bias]
  long long part;    // floats of a share
  int items, steps;  // steps: rows of the fixed signal, or more, if the sums of the sliding one need them
  int fixed_rows, sliding_rows, fixed_channels, sliding_channels, fixed_chunks, sliding_chunks;
  int taps, dilation, hop, shift;  // no taps: only the bias
  int sliding_panels, groups, group_taps;
  short front, back;  // Padding of the sliding signal
  int rectified;      // Operand that goes through a leaky ReLU of this slope
  float slope;
  int bias;  // Operand whose rows are summed
};

// A block adds up products of `fixed` and `sliding` channels. A warp has up to 32 of each, and up to `taps` taps; the
// other warps have other channels, then other taps. Signals are read in tiles of so many rows.
struct WeightGradientKernel {
  const char* name;
  int precision, fixed, sliding, rows, warps, taps;
  FASTVOC_BOTH constexpr int block_taps() const {
    return taps * warps / ((fixed < 32 ? 1 : fixed / 32) * (sliding < 32 ? 1 : sliding / 32));
  }
};
#define FASTVOC_WEIGHT_GRADIENTS(kernel)                                                                 \
  kernel(f16, kFloat16, 64, 64, 64, 8, 2) kernel(f16, kFloat16, 32, 32, 128, 4, 3)                       \
  kernel(f16, kFloat16, 16, 16, 128, 4, 4)                                                               \
  kernel(bf16, kBfloat16, 64, 64, 64, 8, 2) kernel(bf16, kBfloat16, 32, 32, 128, 4, 3)                   \
  kernel(bf16, kBfloat16, 16, 16, 128, 4, 4)                                                             \
  kernel(tf32, kTfloat32, 64, 64, 64, 8, 2) kernel(tf32, kTfloat32, 32, 32, 64, 4, 3)                    \
  kernel(tf32, kTfloat32, 16, 16, 64, 4, 4)
#define FASTVOC_WEIGHT_GRADIENT_ROW(word, precision, fixed, sliding, rows, warps, taps) \
  {"weight_gradient_" #word "_" #fixed "x" #sliding, precision, fixed, sliding, rows, warps, taps},
constexpr WeightGradientKernel kWeightGradients[] = {FASTVOC_WEIGHT_GRADIENTS(FASTVOC_WEIGHT_GRADIENT_ROW)};

// Rows between chunks of a tile: four more than a multiple of 8. Then neither the stores of 16 bytes of a quarter of a
// warp (four rows, two chunks) meet in a bank, nor the loads of single floats (four rows, eight channels).
FASTVOC_BOTH constexpr int gradient_pitch(int rows) { return (rows + 3) / 8 * 8 + 4; }

constexpr int kBiasBytes = 256;  // sums of rows of up to 64 channels

// Shared memory of tiles whose sliding rows reach over `span` = dilation * (taps - 1) more than the fixed ones: two at
// once.
FASTVOC_BOTH constexpr int gradient_tile_bytes(const WeightGradientKernel& kernel, int span) {
  return (kernel.fixed * gradient_pitch(kernel.rows) + kernel.sliding * gradient_pitch(kernel.rows + span)) *
         element_bytes(kernel.precision);
}
FASTVOC_BOTH constexpr int gradient_shared_bytes(const WeightGradientKernel& kernel, int span) {
  return kBiasBytes + 2 * gradient_tile_bytes(kernel, span);
}

// Adds up the parts of all shares in order, one thread per number of the result.
struct AddParts {
  const float* parts;
  long long part;
  int shares;
  int fixed_channels, sliding_channels, taps;
  int phases, biases;   // of the sums that are the bias's
  void *weight, *bias;  // [fixed][sliding][tap] and [channel], as elements; null if nobody wants it
  int precision;
};

// From the gradient of a padded signal to that of x in front of its leaky ReLU: rows that padding made give back to
// where they came from, and negative values pass by the slope. blockIdx.y: item. Strides are in elements.
struct InputGradient {
  const void *padded, *x;  // x is not read if the slope is 1
  void* y;
  long long padded_item, padded_channel, padded_frame, x_item, x_channel, x_frame, y_item, y_channel, y_frame;
  int channels, frames, left, right, mode;  // Padding; zeros have no rows here, so that left and right are 0 then
  float slope;
  int precision;
  int chunks;  // if not 0, all three have rows of so many whole chunks, and none gives back
};

}  // namespace fastvoc::cuda
