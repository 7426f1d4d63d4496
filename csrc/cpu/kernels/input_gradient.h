// The gradient of an input on the CPU: what conv1d's and upsample's have in common.
#pragma once

#include "direct.h"

namespace fastvoc::FASTVOC_ISA {

// Chains of additions in gradients, where PyTorch is more exact than in convolutions: chains of 128 for sums of 224
// products were off by a little more than twice as much. Chains of half of 32 would be too short: of a sum of 4096, what
// is lost between the chains is then more than what is lost in them.
constexpr int64_t kShortChain = kChain > 64 ? kChain / 2 : kChain;

template <class Float>
inline Rows<Float> from_channel(Rows<Float> rows, const Panel& panel) {
  return {rows.data + panel.first * rows.across, rows.across, rows.along};
}

// Multiply `count` rows of a result by the slope wherever the input was not positive.
inline void pass_activation(float slope, int64_t channels, int64_t count, Rows<const float> x, Rows<float> y) {
  if (slope == 1.0f) return;
  if (y.along == 1 && x.along == 1) {
    for (int64_t c = 0; c < channels; ++c) {
      float* const to = y.data + c * y.across;
      const float* const from = x.data + c * x.across;
      for (int64_t r = 0; r < count; ++r) to[r] = from[r] > 0 ? to[r] : to[r] * slope;
    }
  } else {
    for (int64_t r = 0; r < count; ++r) {
      float* const to = y.data + r * y.along;
      const float* const from = x.data + r * x.along;
      if (y.across == 1 && x.across == 1) {
        for (int64_t c = 0; c < channels; ++c) to[c] = from[c] > 0 ? to[c] : to[c] * slope;
      } else {
        for (int64_t c = 0; c < channels; ++c)
          to[c * y.across] *= from[c * x.across] > 0 ? 1 : slope;
      }
    }
  }
}

}  // namespace fastvoc::FASTVOC_ISA
