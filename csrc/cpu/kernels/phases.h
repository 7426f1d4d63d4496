// A transposed convolution as one small convolution per phase.
//
// With t + left = q * stride + phase, a transposed convolution is, for each phase, an ordinary one over x:
//
//     y[o, t] = sum over i, c of  x[c, q - i] * weight[c, o, phase + i * stride]
//
// so the taps phase, phase + stride, ... in reverse order are its kernel, and the rows q of a tile of x serve all
// phases.
#pragma once

#include "direct.h"

namespace fastvoc::FASTVOC_ISA {

// The convolution of one phase, before the crop.
inline fastvoc_call phase_of(const fastvoc_call& call) {
  fastvoc_call phase = call;
  phase.kind = FASTVOC_CONV1D;
  phase.taps = (call.taps + call.stride - 1) / call.stride;
  phase.stride = 1;
  phase.left = phase.right = phase.taps - 1;
  // what every call has is written here again, so that compilers know it
  phase.dilation = phase.groups = 1;
  phase.padding_mode = FASTVOC_ZERO;
  phase.tanh = 0;
  return phase;
}

// The taps phase, phase + stride, ... of upsample's weight (in_channels, out_channels, taps) as the convolution of that
// phase, one by one: `call` is phase_of(), with ceil(taps / stride) taps, in reverse order.
inline auto phase_weights(const fastvoc_call& call, const float* weight, int64_t taps, int64_t stride, int64_t phase) {
  return [=, &call](int64_t out, int64_t in, int64_t tap) {
    const int64_t from = phase + (call.taps - 1 - tap) * stride;
    return from < taps ? weight[(in * call.out_channels + out) * taps + from] : 0.0f;
  };
}

// One packed weight per phase, each as conv1d's and `size` floats behind the one before.
inline void pack_phases(const fastvoc_call& call, int64_t row, int64_t size, const float* weight,
                        float* packed) {
  const fastvoc_call phase = phase_of(call);
  const int64_t total = call.in_channels * call.out_channels * call.taps;
  if (phase.taps * call.stride != call.taps || row != call.in_channels)
    for (int64_t i = 0; i < call.stride * size; ++i) packed[i] = 0;
  for_each_panel(phase, row, [&](const Panel& panel) {
    const int64_t steps = row / panel.group, width = panel.vectors() * kLanes;
    const auto place = [&](int64_t tap, int64_t step) {
      const int64_t flipped = phase.taps - 1 - tap / call.stride;
      return packed + tap % call.stride * size + panel.offset + (flipped * steps + step) * width;
    };
    if (panel.group > 1) {
      for (int64_t lane = 0; lane < width; ++lane) {
        const int64_t out = panel.first + lane / panel.group;
        for (int64_t in = lane % panel.group; in < call.in_channels; in += panel.group)
          for (int64_t tap = 0; tap < call.taps; ++tap)
            place(tap, in / panel.group)[lane] =
                out < call.out_channels ? weight[(in * call.out_channels + out) * call.taps + tap] : 0;
      }
      return;
    }
#pragma omp parallel for num_threads(call.threads) if (call.in_channels * width * call.taps > 65536)
    for (int64_t in = 0; in < call.in_channels; ++in)
      for (int64_t lane = 0; lane < width; lane += kLanes)
        for (int64_t tap = 0; tap < call.taps; tap += kLanes) {
          const int64_t count = smaller(kLanes, call.taps - tap);
          Vector square[kLanes];
          for (int i = 0; i < kLanes; ++i) {
            const int64_t out = panel.first + lane + i, from = (in * call.out_channels + out) * call.taps + tap;
            square[i] = Vector{};
            if (out >= call.out_channels) continue;
            if (from + kLanes <= total) {
              square[i] = load(weight + from);
            } else {
              for (int64_t j = 0; j < count; ++j) square[i][j] = weight[from + j];
            }
          }
          transpose(square);
          for (int64_t i = 0; i < count; ++i) store(place(tap + i, in) + lane, square[i]);
        }
  });
}

}  // namespace fastvoc::FASTVOC_ISA
