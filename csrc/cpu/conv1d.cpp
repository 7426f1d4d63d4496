// conv1d on the CPU.

#include "../isa.h"
#include "kernels/direct.h"

namespace fastvoc::FASTVOC_ISA {
namespace {

int check(const fastvoc_call& call) {
  if (call.stride != 1 || call.groups != 1) return FASTVOC_BAD_OPERATOR;
  const int64_t frames = call.in_frames + call.left + call.right, span = span_of(call);
  if (frames <= span) return FASTVOC_BAD_SIZE;
  for (const int64_t channels : {call.in_channels, call.out_channels})
    if (!fits({call.batch, frames, channels}) || !tiles_fit(call.threads, span, channels)) return FASTVOC_BAD_SIZE;
  if (call.padding_mode < FASTVOC_ZERO || call.padding_mode > FASTVOC_REPLICATE ||
      (call.padding_mode == FASTVOC_REFLECT && larger(call.left, call.right) >= call.in_frames) ||
      (call.padding_mode == FASTVOC_REPLICATE && call.in_frames == 0))
    return FASTVOC_BAD_PADDING;
  return FASTVOC_OK;
}

int64_t packed_size(const fastvoc_call& call) { return packed_floats(call, row_length(call)); }

int64_t workspace_size(const fastvoc_call& call) { return call.threads * thread_floats(call, row_length(call)); }

void pack(const fastvoc_call& call, const float* weight, float* packed) {
  pack_panels(call, row_length(call), weight, packed);
}

void run(const fastvoc_call& call, const float* x, const int64_t* x_strides, const float* packed,
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

const Forward conv1d = {check, packed_size, workspace_size, pack, run};

}  // namespace fastvoc::FASTVOC_ISA
