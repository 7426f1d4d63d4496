// What downsample and its gradient share: the fields of a call, and the way of sums to memory.
#pragma once

#include "../common/strips.h"
#include "../fastvoc_downsample.h"

namespace fastvoc::FASTVOC_ISA {

inline int64_t out_frames_of(const fastvoc_downsample_call& call) {
  return (call.in_frames + call.left + call.right - call.taps) / call.stride + 1;
}

inline Field input_field(const fastvoc_downsample_call& call) {
  return {call.groups, call.batch, call.in_channels / call.groups, call.left, call.in_frames, call.right};
}

// `count` sums of one frame, `across` apart in memory.
inline void store_activated(const float* sums, int64_t count, float slope, float* to, int64_t across) {
  int64_t c = 0;
  for (; across == 1 && c + kLanes <= count; c += kLanes) {
    const Vector sum = load(sums + c);
    store(to + c, sum > 0 ? sum : sum * slope);
  }
  for (; c < count; ++c) to[c * across] = activate(sums[c], slope);
}

}  // namespace fastvoc::FASTVOC_ISA
