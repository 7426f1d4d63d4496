// The gradient of conv1d on the CPU.
//
// The gradient of the padded, activated input is a transposed convolution of stride 1, which is a convolution with the
// weight flipped and its channels exchanged:
//
//     padded[i, p] = sum over o, k of  weight[o, i, k] * grad[o, p - k * dilation]
//
// What padding repeated gives back to its source; the leaky ReLU passes on its slope.

#include "../isa.h"
#include "kernels/input_gradient.h"
#include "kernels/weight_gradient.h"

namespace fastvoc::FASTVOC_ISA {
namespace {

// The convolution of the gradient whose result are the padded frames [first, last).
fastvoc_call adjoint(const fastvoc_call& call, int64_t first, int64_t last) {
  fastvoc_call window = call;
  window.in_channels = call.out_channels;
  window.in_frames = out_frames_of(call);
  window.out_channels = call.in_channels;
  window.left = span_of(call) - first;
  window.right = last - window.in_frames;
  window.padding_mode = FASTVOC_ZERO;
  window.tanh = 0;
  window.slope = 1;
  return window;
}

bool copies(const fastvoc_call& call) {
  return call.padding_mode != FASTVOC_ZERO && call.left + call.right > 0;
}

// What lies in the workspace when the gradient of the input is made: packed weight, tiles, gradients of the padding.
struct Work {
  int64_t row, packed, tiles, edges;

  explicit Work(const fastvoc_call& call) {
    const int64_t end = call.left + call.in_frames;
    const fastvoc_call whole = adjoint(call, call.left, end);
    row = row_length(whole);
    packed = round_up(packed_floats(whole, row), 16);
    tiles = thread_floats(whole, row);
    edges = 0;
    if (!copies(call)) return;
    tiles = larger(tiles, thread_floats(adjoint(call, 0, call.left), row));
    tiles = larger(tiles, thread_floats(adjoint(call, end, end + call.right), row));
    edges = call.batch * (call.left + call.right) * call.in_channels;
  }

  int64_t floats(int threads) const { return packed + threads * tiles + edges; }
};

// The weight, flipped and with its channels exchanged, in the order in which the panels are read.
void pack(const fastvoc_call& call, const fastvoc_call& whole, int64_t row, const float* weight,
          float* packed) {
  const int64_t taps = call.taps;
  const float* const end = weight + call.out_channels * call.in_channels * taps;
  for_each_panel(whole, row, [&](const Panel& panel) {
    float* const begin = packed + panel.offset;
    const int64_t stride = row * panel.width, width = smaller(panel.width, call.in_channels - panel.first);
    if (width < panel.width || row > call.out_channels)
      for (int64_t i = 0; i < taps * stride; ++i) begin[i] = 0;
#pragma omp parallel for num_threads(call.threads) if (call.threads > 1 && taps * stride > 65536)
    for (int64_t out = 0; out < call.out_channels; ++out) {
      const float* const from = weight + (out * call.in_channels + panel.first) * taps;
      float* const to = begin + out / panel.group * panel.group * panel.width + out % panel.group;
      int64_t done = 0;
      for (; panel.group == 1 && taps > kFew && taps <= kLanes && done + kLanes <= width; done += kLanes) {
        if (from + (done + kLanes - 1) * taps + kLanes > end) break;
        Vector square[kLanes];
        for (int lane = 0; lane < kLanes; ++lane) square[lane] = load(from + (done + lane) * taps);
        transpose(square);
        for (int64_t tap = 0; tap < taps; ++tap) store(to + (taps - 1 - tap) * stride + done, square[tap]);
      }
      for (int64_t tap = 0; tap < taps; ++tap)
        for (int64_t lane = done; lane < width; ++lane)
          to[(taps - 1 - tap) * stride + lane * panel.group] = from[lane * taps + tap];
    }
  });
}

Correlation correlation_of(const fastvoc_call& call) {
  return {call.threads,        call.padding_mode, call.batch,    call.out_channels, call.in_channels,
          out_frames_of(call), call.taps,         call.dilation, 1,                 call.left};
}

int64_t workspace_size(const fastvoc_call& call) {
  return larger(Work(call).floats(call.threads), correlation_of(call).workspace_floats());
}

// The padded frames [first, last) of the gradient; with `x`, behind the leaky ReLU.
void run_window(const fastvoc_call& call, int64_t first, int64_t last, const float* grad,
                const int64_t* grad_strides, const float* packed, const float* x, const int64_t* x_strides, float* y,
                const int64_t* y_strides, float* workspace) {
  const fastvoc_call window = adjoint(call, first, last);
  const auto convolve = [&](const float* rows, int64_t row, int64_t batch, int64_t begin, int64_t height, float* sums) {
    for_each_panel(window, row, [&](const Panel& panel) {
      const auto to_memory = [&](float* chunk_sums, int64_t chunk, int64_t count) {
        const Rows<float> target = rows_at(y, y_strides, batch, begin + chunk);
        store_chunk(panel, window, chunk_sums, count, {nullptr, 0, 0}, target);
        if (!x) return;
        const int64_t channels = smaller(panel.width, call.in_channels - panel.first);
        pass_activation(call.slope, channels, count, from_channel(rows_at(x, x_strides, batch, begin + chunk), panel),
                        from_channel(target, panel));
      };
      convolve_panel<kShortChain>(panel, window, rows, row, height, packed, nullptr, sums, to_memory);
    });
  };
  for_each_tile(window, grad, grad_strides, workspace, convolve);
}

void input_gradient(const fastvoc_call& call, const float* grad, const int64_t* grad_strides, const float* x,
                    const int64_t* x_strides, const float* weight, float* grad_x, const int64_t* grad_x_strides,
                    float* workspace) {
  const Work work(call);
  float* const packed = workspace;
  float* const tiles = packed + work.packed;
  float* const edges = tiles + call.threads * work.tiles;
  const int64_t end = call.left + call.in_frames, channels = call.in_channels, padding = call.left + call.right;
  pack(call, adjoint(call, call.left, end), work.row, weight, packed);
  run_window(call, call.left, end, grad, grad_strides, packed, x, x_strides, grad_x, grad_x_strides, tiles);
  if (!copies(call)) return;
  const int64_t edge_strides[] = {padding * channels, 1, channels};
  run_window(call, 0, call.left, grad, grad_strides, packed, nullptr, nullptr, edges, edge_strides, tiles);
  run_window(call, end, end + call.right, grad, grad_strides, packed, nullptr, nullptr,
             edges + call.left * channels, edge_strides, tiles);
  for (int64_t batch = 0; batch < call.batch; ++batch)
    for (int64_t p = 0; p < padding; ++p) {
      const int64_t to = source(call, p < call.left ? p - call.left : call.in_frames + p - call.left);
      const Rows<const float> from = rows_at(x, x_strides, batch, to);
      const Rows<float> target = rows_at(grad_x, grad_x_strides, batch, to);
      const float* const edge = edges + (batch * padding + p) * channels;
      for (int64_t c = 0; c < channels; ++c)
        target.data[c * target.across] += from.data[c * from.across] > 0 ? edge[c] : edge[c] * call.slope;
    }
}

void run(const fastvoc_call& call, const float* grad, const int64_t* grad_strides, const float* x,
         const int64_t* x_strides, const float* weight, const float*, const int64_t*, float* grad_x,
         const int64_t* grad_x_strides, float* grad_weight, float* grad_bias, float* workspace) {
  const Signal result{grad, grad_strides, call.out_channels, out_frames_of(call), 1.0f};
  if (grad_x) input_gradient(call, grad, grad_strides, x, x_strides, weight, grad_x, grad_x_strides, workspace);
  if (grad_weight) {
    const Signal input{x, x_strides, call.in_channels, call.in_frames, call.slope};
    weight_gradient(correlation_of(call), result, input, grad_weight, workspace);
  }
  if (grad_bias) bias_gradient(result, call.threads, call.batch, grad_bias);
}

}  // namespace

const Backward conv1d_backward = {workspace_size, run};

}  // namespace fastvoc::FASTVOC_ISA
