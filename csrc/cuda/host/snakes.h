// smooth_snake: into which parts the lanes cut time, and how long that takes.
#pragma once

#include "cost.h"

namespace fastvoc::cuda {

constexpr int kMostStretches = 16;

// Instructions of an element, two of the doubled signal, in the loop that sees no end, as they stand in the code for
// architecture 90; what share of its instructions a multiprocessor issues while all of its warps have some; and clocks
// from one to the next where a warp has its scheduler to itself.
constexpr double kSnakeInstructions[2][2] = {{47, 71}, {81, 115}};  // [gradient][float32]
constexpr double kIssued = 0.7, kPerClock = 128, kDependent = 2;

#define FASTVOC_SNAKE_NAME(word, precision) "smooth_snake_" #word,
constexpr const char* kSnakeNames[] = {FASTVOC_SNAKES(FASTVOC_SNAKE_NAME)};  // by precision

// Of a launch: all items of all problems.
struct SnakeSize {
  int precision;  // kTfloat32: float32
  bool gradient;
  int64_t items, channels, frames;
};

constexpr int64_t kMostSnakeElements = 1 << 30;  // of an item: frames behind the last one are counted in 32 bits, and lanes
inline bool snake_fits(int64_t channels, int64_t frames) {
  return frames <= kMostSnakeElements && (channels + 1) * (frames + 256) <= kMostSnakeElements;
}

inline int64_t parts_of(const SnakeSize& size, int stretches) {
  return (size.frames + snake_frames(stretches) - 1) / snake_frames(stretches);
}

inline int64_t lanes_of(const SnakeSize& size, int stretches) {
  return parts_of(size, stretches) * ((size.channels + 1) / 2);
}

// Clocks of the loops, while memory answers at once.
inline double loop_clocks(const fastvoc_gpu& gpu, const SnakeSize& size, int stretches) {
  const double instructions = kSnakeInstructions[size.gradient][size.precision == kTfloat32];
  const double of_lane = 2.0 * kSnakeStep * stretches * instructions;
  const int64_t lanes = size.items * lanes_of(size, stretches);
  const int64_t most = (lanes + gpu.multiprocessors - 1) / gpu.multiprocessors;
  const double all = double(most) * of_lane / kPerClock / kIssued, alone = of_lane * kDependent;
  return all > alone ? all : alone;
}

// Long parts compute less twice, short ones are more lanes.
inline int stretches_of(const fastvoc_gpu& gpu, const SnakeSize& size) {
  int best = kMostStretches;
  for (int stretches = best / 2; stretches > 1; stretches /= 2)
    if (loop_clocks(gpu, size, stretches) < loop_clocks(gpu, size, best)) best = stretches;
  return best;
}

inline double snake_clocks(const fastvoc_gpu& gpu, const SnakeSize& size) {
  const double elements = double(size.items) * double(size.channels) * double(size.frames);
  const double bytes = elements * element_bytes(size.precision) * (size.gradient ? 3 : 2);
  const double memory = bytes / (double(gpu.multiprocessors) * rates_of(gpu.architecture).memory);
  return overlapped(memory, loop_clocks(gpu, size, stretches_of(gpu, size)) + 2 * kFetchClocks);
}

// The blocks of a launch with so many lanes of an item.
inline unsigned snake_blocks(const SnakeSize& size, int stretches) {
  return unsigned((lanes_of(size, stretches) + kSnakeThreads - 1) / kSnakeThreads);
}

}  // namespace fastvoc::cuda
