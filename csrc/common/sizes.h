// Which sizes are taken: more than a machine can hold, yet so few that nothing computed from them overflows.
#pragma once

#include <cstdint>
#include <initializer_list>

namespace fastvoc {

constexpr int kMostThreads = 4096;
constexpr int64_t kMostCount = int64_t{1} << 24;  // of channels, taps, a dilation, a stride
constexpr int64_t kMostFrames = int64_t{1} << 32;
constexpr int64_t kMostElements = int64_t{1} << 40;

inline bool is_threads(int value) { return value >= 1 && value <= kMostThreads; }
inline bool is_count(int64_t value) { return value >= 1 && value <= kMostCount; }

// Whether an array of this shape is taken; of no size either.
inline bool fits(std::initializer_list<int64_t> shape) {
  int64_t elements = 1;
  for (const int64_t size : shape)
    if (size < 0 || __builtin_mul_overflow(elements, size > 0 ? size : 1, &elements) || elements > kMostElements)
      return false;
  return true;
}

// Whether the weight of a layer is, with what fills up its panels.
inline bool weight_fits(int64_t in_channels, int64_t out_channels, int64_t taps) {
  return fits({in_channels + 64, out_channels + 64, taps});
}

}  // namespace fastvoc
