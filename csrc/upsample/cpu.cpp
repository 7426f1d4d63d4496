// upsample on the CPU: one small convolution per phase.
//
// With t + left = q * stride + phase, a transposed convolution is, for each phase, an ordinary one over x:
//
//     y[o, t] = sum over i, c of  x[c, q - i] * weight[c, o, phase + i * stride]
//
// so the taps phase, phase + stride, ... in reverse order are its kernel, and the rows q of a tile of x serve all
// phases.

#include "cpu.h"

#include "../common/direct.h"

namespace fastvoc::FASTVOC_ISA {
namespace {

// The convolution of one phase, before the crop.
fastvoc_conv1d_call phase_of(const fastvoc_upsample_call& call) {
  const int64_t taps = (call.taps + call.stride - 1) / call.stride;
  return {call.isa, call.threads, call.batch, call.in_channels, call.in_frames, call.out_channels, taps, 1, taps - 1,
          taps - 1, FASTVOC_ZERO, 0,          call.slope};
}

int64_t packed_size(const fastvoc_upsample_call& call) { return call.stride * packed_floats(phase_of(call)); }

int64_t workspace_size(const fastvoc_upsample_call& call) {
  const fastvoc_conv1d_call phase = phase_of(call);
  return call.threads * thread_floats(phase, row_length(phase));
}

// One packed weight per phase, each as conv1d's.
void pack(const fastvoc_upsample_call& call, const float* weight, float* packed) {
  const fastvoc_conv1d_call phase = phase_of(call);
  const int64_t row = row_length(phase), size = packed_floats(phase),
                total = call.in_channels * call.out_channels * call.taps;
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

void run(const fastvoc_upsample_call& call, const float* x, const int64_t* x_strides, const float* packed,
         const float* bias, float* y, const int64_t* y_strides, float* workspace) {
  const fastvoc_conv1d_call phase = phase_of(call);
  const int64_t size = packed_floats(phase), stride = call.stride;
  const int64_t frames = (call.in_frames - 1) * stride + call.taps - call.left - call.right;
  const auto convolve = [&](const float* rows, int64_t row, int64_t batch, int64_t begin, int64_t height, float* sums) {
    for_each_panel(phase, row, [&](const Panel& panel) {
      for (int64_t p = 0; p < stride; ++p) {
        // Rows q in [first, last) land inside the result: 0 <= q * stride + p - left < frames.
        const int64_t first = (larger(call.left - p, 0) + stride - 1) / stride;
        const int64_t last = (frames + call.left - p + stride - 1) / stride;
        const auto to_memory = [&](float* chunk_sums, int64_t chunk, int64_t count) {
          const int64_t from = larger(begin + chunk, first), to = smaller(begin + chunk + count, last);
          if (from >= to) return;
          Rows<float> target = rows_at(y, y_strides, batch, from * stride + p - call.left);
          target.along *= stride;
          store_chunk(panel, phase, chunk_sums + (from - begin - chunk) * panel.width, to - from, {nullptr, 0, 0},
                      target);
        };
        convolve_panel(panel, phase, rows, row, height, packed + p * size, bias, sums, to_memory);
      }
    });
  };
  for_each_tile(phase, x, x_strides, workspace, convolve);
}

}  // namespace

const Upsample upsample = {packed_size, workspace_size, pack, run};

}  // namespace fastvoc::FASTVOC_ISA
