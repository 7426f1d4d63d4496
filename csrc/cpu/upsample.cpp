// upsample on the CPU.

#include "../isa.h"
#include "kernels/phases.h"

namespace fastvoc::FASTVOC_ISA {
namespace {

int check(const fastvoc_call& call) {
  if (call.dilation != 1 || call.groups != 1 || call.padding_mode != FASTVOC_ZERO || call.tanh)
    return FASTVOC_BAD_OPERATOR;
  if (call.in_frames < 1 || !fits({call.batch, call.in_frames, call.stride}) ||
      !weight_fits(call.in_channels, call.out_channels, call.taps + call.stride))
    return FASTVOC_BAD_SIZE;
  const int64_t frames = (call.in_frames - 1) * call.stride + call.taps;
  if (frames <= call.left + call.right || !fits({call.batch, call.in_frames + call.taps, call.in_channels}) ||
      !fits({call.batch, frames, call.out_channels}) || !tiles_fit(call.threads, call.taps, call.in_channels) ||
      !tiles_fit(call.threads, call.taps, call.stride * call.out_channels))
    return FASTVOC_BAD_SIZE;
  return FASTVOC_OK;
}

int64_t packed_size(const fastvoc_call& call) {
  const fastvoc_call phase = phase_of(call);
  return call.stride * packed_floats(phase, row_length(phase));
}

int64_t workspace_size(const fastvoc_call& call) {
  const fastvoc_call phase = phase_of(call);
  return call.threads * thread_floats(phase, row_length(phase));
}

void pack(const fastvoc_call& call, const float* weight, float* packed) {
  const fastvoc_call phase = phase_of(call);
  const int64_t row = row_length(phase);
  pack_phases(call, row, packed_floats(phase, row), weight, packed);
}

void run(const fastvoc_call& call, const float* x, const int64_t* x_strides, const float* packed,
         const float* bias, const float*, const int64_t*, float* y, const int64_t* y_strides, float* workspace) {
  const fastvoc_call phase = phase_of(call);
  const int64_t size = packed_floats(phase, row_length(phase)), stride = call.stride;
  const int64_t frames = out_frames_of(call);
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

const Forward upsample = {check, packed_size, workspace_size, pack, run};

}  // namespace fastvoc::FASTVOC_ISA
