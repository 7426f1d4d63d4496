// Which sizes are taken: more than a machine can hold, yet so few that nothing computed from them overflows. The
// functions are static, because the same one is compiled for several instruction sets.
#pragma once

#include <cstdint>
#include <initializer_list>

namespace fastvoc {

constexpr int kMostThreads = 4096;
constexpr int64_t kMostCount = int64_t{1} << 24;  // of channels, taps, a dilation, a stride
constexpr int kMostTaps = 8, kMostLogistics = 256;        // of a recurrent network
constexpr int64_t kMostTransformed = 1 << 16, kMostRounds = 4096, kMostFramesAtOnce = 1 << 16;  // of Griffin-Lim
constexpr int64_t kMostFrames = int64_t{1} << 32;
constexpr int64_t kMostElements = int64_t{1} << 40;

static inline bool is_threads(int value) { return value >= 1 && value <= kMostThreads; }
static inline bool is_count(int64_t value) { return value >= 1 && value <= kMostCount; }

// Whether an array of this shape is taken; of no size either.
static inline bool fits(std::initializer_list<int64_t> shape) {
  int64_t elements = 1;
  for (const int64_t size : shape)
    if (size < 0 || __builtin_mul_overflow(elements, size > 0 ? size : 1, &elements) || elements > kMostElements)
      return false;
  return true;
}

// Whether the weight of a layer is, with what fills up its panels.
static inline bool weight_fits(int64_t in_channels, int64_t out_channels, int64_t taps) {
  return fits({in_channels + 64, out_channels + 64, taps});
}

// Whether what all threads hold of a signal at once is: some hundred rows and their halo.
static inline bool tiles_fit(int threads, int64_t span, int64_t channels) {
  return fits({threads, span + 1024, channels + 64});
}

}  // namespace fastvoc
