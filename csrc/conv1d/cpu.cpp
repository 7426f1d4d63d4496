// conv1d on the CPU.

#include "cpu.h"

#include "../common/direct.h"

namespace fastvoc::FASTVOC_ISA {
namespace {

int64_t workspace_size(const fastvoc_conv1d_call& call) { return call.threads * thread_floats(call, row_length(call)); }

void pack(const fastvoc_conv1d_call& call, const float* weight, float* packed) {
  const int64_t row = row_length(call), taps = call.taps, length = call.in_channels * taps;
  for_each_panel(call, row, [&](const Panel& panel) {
    const int64_t steps = row / panel.group, width = panel.vectors() * kLanes;
    float* const begin = packed + panel.offset;
    if (panel.group == 1) {
      // A panel is a matrix (output channel, input channel and tap) to transpose.
#pragma omp parallel for num_threads(call.threads) if (length * width > 65536)
      for (int64_t m = 0; m < length; m += kLanes)
        for (int64_t lane = 0; lane < width; lane += kLanes) {
          const int64_t at = smaller(m, larger(length - kLanes, 0)), count = smaller(kLanes, length);
          Vector square[kLanes];
          for (int i = 0; i < kLanes; ++i) {
            const int64_t out = panel.first + lane + i;
            square[i] = Vector{};
            if (out >= call.out_channels) continue;
            if (count == kLanes) {
              square[i] = load(weight + out * length + at);
            } else {
              for (int j = 0; j < count; ++j) square[i][j] = weight[out * length + at + j];
            }
          }
          transpose(square);
          for (int64_t i = 0; i < count; ++i)
            store(begin + ((at + i) % taps * steps + (at + i) / taps) * width + lane, square[i]);
        }
    } else {
      for (int64_t step = 0; step < steps; ++step)
        for (int64_t tap = 0; tap < taps; ++tap)
          for (int64_t lane = 0; lane < width; ++lane) {
            const int64_t out = panel.first + lane / panel.group, in = step * panel.group + lane % panel.group;
            const bool inside = out < call.out_channels && in < call.in_channels;
            begin[(tap * steps + step) * width + lane] =
                inside ? weight[(out * call.in_channels + in) * taps + tap] : 0;
          }
    }
    // Where a later panel has a wider group, rows end in zeros, and so do the weights that meet them.
    for (int64_t step = call.in_channels; panel.group == 1 && step < steps; ++step)
      for (int64_t tap = 0; tap < taps; ++tap)
        for (int64_t lane = 0; lane < width; lane += kLanes)
          store(begin + (tap * steps + step) * width + lane, Vector{});
  });
}

void run(const fastvoc_conv1d_call& call, const float* x, const int64_t* x_strides, const float* packed,
         const float* bias, const float* residual, const int64_t* residual_strides, float* y, const int64_t* y_strides,
         float* workspace) {
  const auto convolve = [&](const float* rows, int64_t row, int64_t batch, int64_t begin, int64_t height, float* sums) {
    for_each_panel(call, row, [&](const Panel& panel) {
      const auto to_memory = [&](float* chunk_sums, int64_t chunk, int64_t count) {
        store_chunk(panel, call, chunk_sums, count, rows_at(residual, residual_strides, batch, begin + chunk),
                    rows_at(y, y_strides, batch, begin + chunk));
      };
      convolve_panel(panel, call, rows, row, height, packed, bias, sums, to_memory);
    });
  };
  for_each_tile(call, x, x_strides, workspace, convolve);
}

}  // namespace

const Conv1d conv1d = {packed_floats, workspace_size, pack, run};

}  // namespace fastvoc::FASTVOC_ISA
