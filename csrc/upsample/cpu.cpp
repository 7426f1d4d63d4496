// upsample on the CPU.

#include "cpu.h"

#include "phases.h"

namespace fastvoc::FASTVOC_ISA {
namespace {

int64_t packed_size(const fastvoc_upsample_call& call) {
  const fastvoc_conv1d_call phase = phase_of(call);
  return call.stride * packed_floats(phase, row_length(phase));
}

int64_t workspace_size(const fastvoc_upsample_call& call) {
  const fastvoc_conv1d_call phase = phase_of(call);
  return call.threads * thread_floats(phase, row_length(phase));
}

void pack(const fastvoc_upsample_call& call, const float* weight, float* packed) {
  const fastvoc_conv1d_call phase = phase_of(call);
  const int64_t row = row_length(phase);
  pack_phases(call, row, packed_floats(phase, row), weight, packed);
}

void run(const fastvoc_upsample_call& call, const float* x, const int64_t* x_strides, const float* packed,
         const float* bias, float* y, const int64_t* y_strides, float* workspace) {
  const fastvoc_conv1d_call phase = phase_of(call);
  const int64_t size = packed_floats(phase, row_length(phase)), stride = call.stride;
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
