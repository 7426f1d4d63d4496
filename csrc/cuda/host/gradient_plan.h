// What is launched for the gradient of a weight: which kernel, with which shares of time, and what it leaves where.
#pragma once

#include <climits>

#include "../../sizes.h"
#include "../device/gradients.h"
#include "cost.h"

namespace fastvoc::cuda {

constexpr int kMostParts = 1 << 28;      // bytes of the sums of all shares, unless there is only one
constexpr unsigned kMostPlaces = 65535;  // of a grid's second and third extent

// Everything but addresses and strides.
struct GradientPlan {
  const WeightGradientKernel* kernel;
  WeightGradient sums;
  AddParts add;
  unsigned grid[3];
  int shared;     // bytes
  int64_t parts;  // bytes
};

inline int64_t result_frames(const fastvoc_layer& layer, int64_t frames) {
  return layer.kind == FASTVOC_UPSAMPLE ? (frames - 1) * layer.stride + layer.taps - layer.left - layer.right
                                        : frames + layer.left + layer.right - layer.dilation * (layer.taps - 1);
}

// One of FASTVOC_OK and the errors.
inline int check_gradient(const fastvoc_layer& layer, int64_t batch, int64_t frames) {
  const bool up = layer.kind == FASTVOC_UPSAMPLE;
  if (!up && layer.kind != FASTVOC_CONV1D) return FASTVOC_BAD_NETWORK;
  const int64_t dilation = up ? 1 : layer.dilation, hop = up ? layer.stride : 1;
  for (const int64_t count : {layer.in_channels, layer.out_channels, layer.taps, dilation, hop})
    if (!is_count(count)) return FASTVOC_BAD_SIZE;
  for (const int64_t padding : {layer.left, layer.right})
    if (padding < 0 || padding > kMostCount) return FASTVOC_BAD_PADDING;
  // Rows, those that tiles reach beyond the last one, and weights are counted in 32 bits.
  constexpr int64_t kMost = 1 << 30, kBeyond = 256;
  const int64_t span = dilation * (layer.taps - 1);
  if (batch < 1 || frames < 1 || batch > kMostItems || frames > kMost || span > kMost ||
      hop * (frames + span + kBeyond) > kMost || batch * ((frames + span) / 64 + 2) > kMost ||
      !fits({layer.in_channels, layer.out_channels, layer.taps}) ||
      layer.in_channels * layer.out_channels * layer.taps > kMost)
    return FASTVOC_BAD_SIZE;
  const int mode = up ? FASTVOC_ZERO : layer.padding_mode;
  if (mode < FASTVOC_ZERO || mode > FASTVOC_REPLICATE || (mode == FASTVOC_REFLECT && layer.left >= frames) ||
      (mode == FASTVOC_REFLECT && layer.right >= frames))
    return FASTVOC_BAD_PADDING;
  const int64_t result = result_frames(layer, frames);
  return result >= 1 && result <= kMost ? FASTVOC_OK : FASTVOC_BAD_SIZE;
}

// The kernel whose blocks suit the narrower of two signals.
inline const WeightGradientKernel* choose_weight_gradient(int precision, int64_t fixed, int64_t sliding) {
  const int64_t least = fixed < sliding ? fixed : sliding;
  const int width = least <= 16 ? 16 : least <= 32 ? 32 : 64;
  for (const WeightGradientKernel& kernel : kWeightGradients)
    if (kernel.precision == precision && kernel.fixed == width) return &kernel;
  return nullptr;
}

// Of a layer that was checked; `weight` and `bias` say what is wanted.
inline GradientPlan plan_gradient(const fastvoc_layer& layer, const WeightGradientKernel& kernel,
                                  const fastvoc_gpu& gpu, int64_t batch, int64_t frames, bool weight, bool bias) {
  const bool up = layer.kind == FASTVOC_UPSAMPLE;
  const int width = chunk_channels(kernel.precision), result = int(result_frames(layer, frames));
  GradientPlan plan = {};
  plan.kernel = &kernel;
  WeightGradient& sums = plan.sums;
  sums.items = int(batch);
  sums.fixed_channels = int(up ? layer.in_channels : layer.out_channels);
  sums.sliding_channels = int(up ? layer.out_channels : layer.in_channels);
  sums.fixed_rows = up ? int(frames) : result;
  sums.sliding_rows = up ? result : int(frames);
  sums.taps = weight ? int(layer.taps) : 0;
  sums.dilation = up ? 1 : int(layer.dilation);
  sums.hop = up ? int(layer.stride) : 1;
  sums.shift = int(layer.left);
  sums.front = sums.back = short(up ? kZero : layer.padding_mode);
  sums.rectified = layer.slope == 1 ? kNeither : up ? kFixed : kSliding;
  sums.slope = layer.slope;
  sums.bias = !bias ? kNeither : up ? kSliding : kFixed;
  // Of the gradient of an upsampling there may be rows that no tap meets, behind the last step or between steps.
  sums.steps = sums.fixed_rows;
  if (sums.bias == kSliding && (result + sums.shift + sums.hop - 1) / sums.hop > sums.steps)
    sums.steps = (result + sums.shift + sums.hop - 1) / sums.hop;
  // Nobody needs the other signal for a bias.
  if (weight || sums.bias == kFixed) sums.fixed_chunks = (sums.fixed_channels + width - 1) / width;
  if (weight || sums.bias == kSliding) sums.sliding_chunks = (sums.sliding_channels + width - 1) / width;

  const int phase_taps = (sums.taps + sums.hop - 1) / sums.hop;
  const auto take = [&](int most) {  // taps of a block, as many in each
    sums.groups = phase_taps > most ? (phase_taps + most - 1) / most : 1;
    sums.group_taps = (phase_taps + sums.groups - 1) / sums.groups;
    plan.shared = gradient_shared_bytes(kernel, sums.group_taps > 1 ? sums.dilation * (sums.group_taps - 1) : 0);
  };
  // Two blocks hide each other's waiting, if there is room for them; dilations can be so large that there is not.
  const int half = gpu.shared_per_multiprocessor / 2 - 1024;
  const auto fits_in = [&](int bytes) {
    for (int most = kernel.block_taps(); most > 0; --most) {
      if (int64_t{sums.dilation} * (most - 1) > gpu.shared_per_block / kChunkBytes) continue;
      take(most);
      if (plan.shared <= bytes) return true;
    }
    return false;
  };
  if (!fits_in(half < gpu.shared_per_block ? half : gpu.shared_per_block)) fits_in(gpu.shared_per_block);

  const auto panels = [&](int channels, int of) { return (channels + of - 1) / of; };
  sums.sliding_panels = weight || sums.bias == kSliding ? panels(sums.sliding_channels, kernel.sliding) : 1;
  const int fixed_panels = weight || sums.bias == kFixed ? panels(sums.fixed_channels, kernel.fixed) : 1;
  plan.grid[1] = unsigned(fixed_panels * sums.sliding_panels);
  plan.grid[2] = unsigned(sums.hop * sums.groups);

  AddParts& add = plan.add;
  add.fixed_channels = sums.fixed_channels;
  add.sliding_channels = sums.sliding_channels;
  add.taps = sums.taps;
  add.phases = sums.bias == kSliding ? sums.hop : 1;
  add.biases = !bias ? 0 : sums.bias == kSliding ? sums.sliding_channels : sums.fixed_channels;
  add.precision = kernel.precision;
  add.part = sums.part =
      int64_t{sums.fixed_channels} * sums.sliding_channels * sums.taps + int64_t{add.phases} * add.biases;

  const int64_t tiles = batch * ((sums.steps + kernel.rows - 1) / kernel.rows);
  int together = blocks_per_multiprocessor(gpu, 32 * kernel.warps, plan.shared);
  if (kernel.fixed == 32 && together > 3) together = 3;  // of up to 168 registers
  const int64_t held = int64_t{gpu.multiprocessors} * together;
  int64_t shares = held / (int64_t{plan.grid[1]} * plan.grid[2]);
  const int64_t room = kMostParts / (add.part * int64_t{sizeof(float)});
  shares = shares < room ? shares : room;
  shares = shares < tiles ? shares : tiles;
  add.shares = int(shares > 1 ? shares : 1);
  plan.grid[0] = unsigned(add.shares);
  plan.parts = add.shares * add.part * int64_t{sizeof(float)};
  return plan;
}

}  // namespace fastvoc::cuda
