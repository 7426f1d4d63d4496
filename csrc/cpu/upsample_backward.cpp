// The gradient of upsample on the CPU.
//
// The gradient of the activated input is a convolution of the result's with a stride. With k = q * stride + p, and with
// `stride` frames seen as one row of stride * out_channels numbers, it is an ordinary one:
//
//     activated[i, s] = sum over q, (p, o) of  weight[i, o, q * stride + p] * grad[o, (s + q) * stride + p - left]

#include "../isa.h"
#include "kernels/input_gradient.h"
#include "kernels/phases.h"
#include "kernels/weight_gradient.h"

namespace fastvoc::FASTVOC_ISA {
namespace {

fastvoc_call adjoint(const fastvoc_call& call) {
  fastvoc_call conv = phase_of(call);
  conv.in_channels = call.stride * call.out_channels;
  conv.in_frames = call.in_frames + conv.taps - 1;
  conv.out_channels = call.in_channels;
  conv.left = conv.right = 0;
  conv.slope = 1;
  return conv;
}

// Rows are whole rows of the result, so that panels take one channel per step, however narrow they are.
template <class Visit>
void for_each_wide_panel(const fastvoc_call& call, Visit visit) {
  for (int64_t first = 0; first < call.out_channels;) {
    const int width = call.out_channels - first > kLanes ? 2 * kLanes : kLanes;
    visit(Panel{first, width, 1, first * call.taps * call.in_channels});
    first += width;
  }
}

int64_t packed_size(const fastvoc_call& call) {
  return round_up(call.out_channels, 2 * kLanes) * call.taps * call.in_channels;
}

Correlation correlation_of(const fastvoc_call& call) {
  return {call.threads,   FASTVOC_ZERO, call.batch, call.in_channels, call.out_channels,
          call.in_frames, call.taps,    1,          call.stride,      call.left};
}

int64_t workspace_size(const fastvoc_call& call) {
  const fastvoc_call conv = adjoint(call);
  return larger(packed_size(conv) + call.threads * thread_floats(conv, conv.in_channels),
                correlation_of(call).workspace_floats());
}

void pack(const fastvoc_call& call, const fastvoc_call& conv, const float* weight, float* packed) {
  const int64_t length = call.out_channels * call.taps;
  for_each_wide_panel(conv, [&](const Panel& panel) {
    float* const begin = packed + panel.offset;
    for (int64_t tap = call.taps; tap < conv.taps * call.stride; ++tap)
      for (int64_t out = 0; out < call.out_channels; ++out)
        for (int64_t lane = 0; lane < panel.width; ++lane)
          begin[(tap * call.out_channels + out) * panel.width + lane] = 0;
    // A panel is a matrix (input channel, output channel and tap) to transpose.
#pragma omp parallel for num_threads(call.threads) if (call.threads > 1 && length * panel.width > 65536)
    for (int64_t m = 0; m < length; m += kLanes)
      for (int64_t lane = 0; lane < panel.width; lane += kLanes) {
        const int64_t count = smaller(kLanes, length - m);
        Vector square[kLanes];
        for (int i = 0; i < kLanes; ++i) {
          const int64_t in = panel.first + lane + i;
          square[i] = Vector{};
          if (in >= call.in_channels) continue;
          if (count == kLanes) {
            square[i] = load(weight + in * length + m);
          } else {
            for (int j = 0; j < count; ++j) square[i][j] = weight[in * length + m + j];
          }
        }
        transpose(square);
        for (int64_t i = 0; i < count; ++i)
          store(begin + ((m + i) % call.taps * call.out_channels + (m + i) / call.taps) * panel.width + lane,
                square[i]);
      }
  });
}

void input_gradient(const fastvoc_call& call, const float* grad, const int64_t* grad_strides, const float* x,
                    const int64_t* x_strides, const float* weight, float* grad_x, const int64_t* grad_x_strides,
                    float* workspace) {
  const fastvoc_call conv = adjoint(call);
  const int64_t row = conv.in_channels, rows = tile_rows(conv, row), stride = call.stride;
  const int64_t tiles = (call.in_frames + rows - 1) / rows, floats = thread_floats(conv, row);
  float* const packed = workspace;
  pack(call, conv, weight, packed);
  fastvoc_call frames{};
  frames.in_channels = call.out_channels;
  frames.in_frames = out_frames_of(call);
  frames.slope = 1.0f;
  share_out(call.threads, call.batch * tiles, [&](int64_t worker, int64_t tile) {
    float* const own = workspace + packed_size(conv) + worker * floats;
    alignas(64) float sums[kChunk * 2 * kLanes + kLanes * kLanes];
    const int64_t batch = tile / tiles, begin = tile % tiles * rows, height = smaller(rows, call.in_frames - begin);
    load_tile(frames, grad + batch * grad_strides[0], grad_strides, begin * stride - call.left,
              (height + conv.taps - 1) * stride, (round_up(height, kRows) + conv.taps - 1) * stride, own,
              call.out_channels);
    for_each_wide_panel(conv, [&](const Panel& panel) {
      const auto to_memory = [&](float* chunk_sums, int64_t chunk, int64_t count) {
        const Rows<float> target = rows_at(grad_x, grad_x_strides, batch, begin + chunk);
        store_chunk(panel, conv, chunk_sums, count, {nullptr, 0, 0}, target);
        const int64_t channels = smaller(panel.width, call.in_channels - panel.first);
        pass_activation(call.slope, channels, count, from_channel(rows_at(x, x_strides, batch, begin + chunk), panel),
                        from_channel(target, panel));
      };
      convolve_panel<kShortChain>(panel, conv, own, row, height, packed, nullptr, sums, to_memory);
    });
  });
}

void run(const fastvoc_call& call, const float* grad, const int64_t* grad_strides, const float* x,
         const int64_t* x_strides, const float* weight, const float*, const int64_t*, float* grad_x,
         const int64_t* grad_x_strides, float* grad_weight, float* grad_bias, float* workspace) {
  const Signal result{grad, grad_strides, call.out_channels, out_frames_of(call), 1.0f};
  if (grad_x) input_gradient(call, grad, grad_strides, x, x_strides, weight, grad_x, grad_x_strides, workspace);
  if (grad_weight) {
    const Signal input{x, x_strides, call.in_channels, call.in_frames, call.slope};
    weight_gradient(correlation_of(call), input, result, grad_weight, workspace);
  }
  if (grad_bias) bias_gradient(result, call.threads, call.batch, grad_bias);
}

}  // namespace

const Backward upsample_backward = {workspace_size, run};

}  // namespace fastvoc::FASTVOC_ISA
