// convnext on the CPU: a depthwise convolution and a norm, frame by frame, and two products over tiles of frames.
//
// A tile of frames passes all four steps while it is in the cache, and meets each panel of the weights once:
//
//     rows    [frame][channel]  normed, in the form in which products read it
//     hidden  [frame][hidden]   behind GELU, likewise
//
// Threads share the frames of the first step and the panels of the products.

#include "../fastvoc_convnext.h"

#include <cmath>

#include "../isa.h"
#include "kernels/gelu.h"
#include "plan/ahead.h"

namespace fastvoc::FASTVOC_ISA {
namespace {

// Frames of a tile, so that its hidden rows and a panel of weights stay in a second-level cache of 1 MiB.
constexpr int64_t kHeldFloats = 160 * 1024;

int64_t padded(int64_t channels) { return round_up(channels, kLanes); }

int64_t frames_of(const fastvoc_convnext& call) { return call.in_frames + call.left + call.right - call.taps + 1; }

template <class P>
struct Sizes {
  fastvoc_call expand, contract;
  int64_t row, hidden_row;  // elements from one row to the next
  int64_t height;           // frames of a tile
  // In the packed weights, in bytes.
  int64_t depthwise_bias, expand_bias, contract_bias, expand_weight, contract_weight, packed;
  // In the workspace, in bytes; frames of floats, one for each thread, come first.
  int64_t rows, hidden_rows, workspace;

  explicit Sizes(const fastvoc_convnext& call)
      : expand(product_of(call.isa, call.threads, call.channels, call.hidden)),
        contract(product_of(call.isa, call.threads, call.hidden, call.channels)) {
    row = P::row_length(expand);  // which is how far products in float32 read
    hidden_row = P::row_length(contract);
    const int64_t held = larger(kHeldFloats / call.hidden / kChunk * kChunk, kChunk), frames = frames_of(call);
    const int64_t tiles = (frames + held - 1) / held;
    height = round_up((frames + tiles - 1) / tiles, kRows);

    int64_t bytes = 0;
    const auto place = [&](int64_t size) {
      const int64_t at = bytes;
      bytes += round_up(size, 64);
      return at;
    };
    place(call.taps * padded(call.channels) * sizeof(float));
    depthwise_bias = place(padded(call.channels) * sizeof(float));
    expand_bias = place(call.hidden * sizeof(float));
    contract_bias = place(call.channels * sizeof(float));
    expand_weight = place(P::packed_bytes(expand, row));
    contract_weight = place(P::packed_bytes(contract, hidden_row));
    packed = bytes;

    bytes = 0;
    place(call.threads * padded(call.channels) * sizeof(float));
    rows = place(round_up(height, kReadRows) * row * sizeof(typename P::Element));
    hidden_rows = place(round_up(height, kReadRows) * hidden_row * sizeof(typename P::Element));
    // folded weights, before they are packed, take the same memory
    workspace = larger(bytes, int64_t(call.channels * call.hidden * sizeof(float)));
  }
};

template <class Function>
auto precisely(const fastvoc_convnext& call, Function function) {
  return in_float_precision(call.precision, function);
}

int check(const fastvoc_convnext& call) { return check_float_precision(call.precision); }

int64_t packed_size(const fastvoc_convnext& call) {
  return precisely(call, [&](auto precision) { return Sizes<decltype(precision)>(call).packed; });
}

int64_t workspace_size(const fastvoc_convnext& call) {
  return precisely(call, [&](auto precision) { return Sizes<decltype(precision)>(call).workspace; });
}

void pack(const fastvoc_convnext& call, const fastvoc_convnext_weights& weights, void* packed, void* workspace) {
  const int64_t channels = call.channels, hidden = call.hidden, width = padded(channels);
  float* const depthwise = at<float>(packed, 0);
  for (int64_t k = 0; k < call.taps; ++k)
    for (int64_t c = 0; c < width; ++c)
      depthwise[k * width + c] = c < channels ? weights.depthwise[c * call.taps + k] : 0;
  precisely(call, [&](auto precision) {
    using P = decltype(precision);
    const Sizes<P> sizes(call);
    float* const depthwise_bias = at<float>(packed, sizes.depthwise_bias);
    for (int64_t c = 0; c < width; ++c) depthwise_bias[c] = c < channels ? weights.depthwise_bias[c] : 0;

    // expand (norm n + norm_bias) + expand_bias
    float* const folded = static_cast<float*>(workspace);
    float* bias = at<float>(packed, sizes.expand_bias);
#pragma omp parallel for num_threads(call.threads) if (channels * hidden > 65536)
    for (int64_t h = 0; h < hidden; ++h) {
      double sum = weights.expand_bias[h];
      for (int64_t c = 0; c < channels; ++c) {
        const double weight = weights.expand[h * channels + c];
        sum += weight * weights.norm_bias[c];
        folded[h * channels + c] = float(weight * weights.norm[c]);
      }
      bias[h] = float(sum);
    }
    P::pack(sizes.expand, sizes.row, folded,
            at<typename P::Element>(packed, sizes.expand_weight));

    // scale (contract h + contract_bias)
    bias = at<float>(packed, sizes.contract_bias);
#pragma omp parallel for num_threads(call.threads) if (channels * hidden > 65536)
    for (int64_t c = 0; c < channels; ++c) {
      const float scale = weights.scale[c];
      bias[c] = scale * weights.contract_bias[c];
      for (int64_t h = 0; h < hidden; ++h) folded[c * hidden + h] = scale * weights.contract[c * hidden + h];
    }
    P::pack(sizes.contract, sizes.hidden_row, folded,
            at<typename P::Element>(packed, sizes.contract_weight));
    return 0;
  });
}

float sum_of(Vector v) {
  float sum = 0;
  for (int lane = 0; lane < kLanes; ++lane) sum += v[lane];
  return sum;
}

// Store so many numbers of a row, whole vectors where they are.
template <class P>
void store_row(const float* from, int64_t count, typename P::Element* to) {
  int64_t c = 0;
  for (; c + kLanes <= count; c += kLanes) P::store(to + c, load(from + c));
  for (; c < count; ++c) P::store(to + c, from[c]);
}

// One frame: the convolution into `z`, its norm in `to`, with zeros up to `row`.
template <class P>
void norm_frame(const fastvoc_convnext& call, const float* x, int64_t x_frame, int64_t frame, const float* depthwise,
                const float* bias, float* z, typename P::Element* to, int64_t row) {
  const int64_t channels = call.channels, width = padded(channels), whole = channels / kLanes * kLanes;
  const int64_t start = frame - call.left;
  const int64_t begin = larger(-start, 0), end = smaller(call.taps, call.in_frames - start);
  for (int64_t c = 0; c < whole; c += kLanes) {
    Vector sum = load(bias + c);
    for (int64_t k = begin; k < end; ++k) sum += load(x + (start + k) * x_frame + c) * load(depthwise + k * width + c);
    store(z + c, sum);
  }
  for (int64_t c = whole; c < channels; ++c) {
    float sum = bias[c];
    for (int64_t k = begin; k < end; ++k) sum += x[(start + k) * x_frame + c] * depthwise[k * width + c];
    z[c] = sum;
  }
  for (int64_t c = channels; c < width; ++c) z[c] = 0;

  Vector total{};
  for (int64_t c = 0; c < width; c += kLanes) total += load(z + c);
  const float mean = sum_of(total) / float(channels);
  for (int64_t c = 0; c < channels; ++c) z[c] -= mean;
  Vector squares{};
  for (int64_t c = 0; c < width; c += kLanes) {
    const Vector v = load(z + c);
    squares += v * v;
  }
  const float factor = 1 / std::sqrt(sum_of(squares) / float(channels) + call.eps);
  for (int64_t c = 0; c < width; c += kLanes) store(z + c, load(z + c) * factor);
  store_row<P>(z, channels, to);
  for (int64_t c = channels; c < row; ++c) P::store(to + c, 0.0f);
}

constexpr int64_t kNormFrames = 4;  // that a thread takes at once

// A product of a tile: threads take panels.
template <class P, class ToMemory>
void multiply(const fastvoc_convnext& call, const fastvoc_call& product, const typename P::Element* rows, int64_t row,
              int64_t height, const typename P::Element* packed, const float* bias, ToMemory to_memory) {
  int64_t panels = 0;
  P::for_each_panel(product, row, [&](const Panel&) { ++panels; });
  share_out(call.threads, panels, [&](int64_t, int64_t item) {
    alignas(64) float sums[kChunk * 2 * kLanes + kLanes * kLanes];
    int64_t number = 0;
    P::for_each_panel(product, row, [&](const Panel& panel) {
      if (number++ != item) return;
      const auto finish = [&](float* chunk_sums, int64_t chunk, int64_t count) {
        to_memory(panel, chunk_sums, chunk, count);
      };
      convolve_panel_ahead<P>(panel, product, rows, row, height, packed, bias, sums, finish);
    });
  });
}

template <class P>
void run_in(const fastvoc_convnext& call, const float* x, int64_t x_batch, int64_t x_frame, const void* packed,
            float* y, int64_t y_batch, int64_t y_frame, void* workspace) {
  const Sizes<P> sizes(call);
  const int64_t frames = frames_of(call), channels = call.channels, hidden = call.hidden;
  const int64_t row = sizes.row, hidden_row = sizes.hidden_row;
  float* const frame_of_thread = at<float>(workspace, 0);
  typename P::Element* const rows = at<typename P::Element>(workspace, sizes.rows);
  typename P::Element* const hidden_rows = at<typename P::Element>(workspace, sizes.hidden_rows);
  for (int64_t batch = 0; batch < call.batch; ++batch, x += x_batch, y += y_batch)
    for (int64_t begin = 0; begin < frames; begin += sizes.height) {
      const int64_t height = smaller(sizes.height, frames - begin);
      share_out(call.threads, (height + kNormFrames - 1) / kNormFrames, [&](int64_t worker, int64_t item) {
        const int64_t first = item * kNormFrames;
        for (int64_t r = first; r < smaller(first + kNormFrames, height); ++r)
          norm_frame<P>(call, x, x_frame, begin + r, at<float>(packed, 0), at<float>(packed, sizes.depthwise_bias),
                        frame_of_thread + worker * padded(channels), rows + r * row, row);
      });
      // rows beyond are multiplied with the others, and what becomes of them is left
      for (int64_t r = height; r < round_up(height, kReadRows); ++r) {
        for (int64_t c = 0; c < row; ++c) P::store(rows + r * row + c, 0.0f);
        for (int64_t c = 0; c < hidden_row; ++c) P::store(hidden_rows + r * hidden_row + c, 0.0f);
      }
      for (int64_t r = 0; r < height; ++r)
        for (int64_t c = hidden; c < hidden_row; ++c) P::store(hidden_rows + r * hidden_row + c, 0.0f);
      multiply<P>(call, sizes.expand, rows, row, height, at<typename P::Element>(packed, sizes.expand_weight),
                  at<float>(packed, sizes.expand_bias),
                  [&](const Panel& panel, float* sums, int64_t chunk, int64_t count) {
                    const int64_t width = smaller(panel.width, hidden - panel.first);
                    for (int64_t i = 0; i < count * panel.width; i += kLanes) store(sums + i, gelu(load(sums + i)));
                    for (int64_t r = 0; r < count; ++r)
                      store_row<P>(sums + r * panel.width, width,
                                   hidden_rows + (chunk + r) * hidden_row + panel.first);
                  });
      const int64_t shown = begin + call.taps / 2 - call.left;  // the input frame that the first row is added to
      multiply<P>(call, sizes.contract, hidden_rows, hidden_row, height,
                  at<typename P::Element>(packed, sizes.contract_weight), at<float>(packed, sizes.contract_bias),
                  [&](const Panel& panel, float* sums, int64_t chunk, int64_t count) {
                    const int64_t width = smaller(panel.width, channels - panel.first);
                    for (int64_t r = 0; r < count; ++r) {
                      const float* const sum = sums + r * panel.width;
                      const int64_t from = shown + chunk + r;
                      const bool inside = from >= 0 && from < call.in_frames;
                      const float* const skip = inside ? x + from * x_frame + panel.first : nullptr;
                      float* const to = y + (begin + chunk + r) * y_frame + panel.first;
                      int64_t c = 0;
                      for (; c + kLanes <= width; c += kLanes)
                        store(to + c, skip ? load(skip + c) + load(sum + c) : load(sum + c));
                      for (; c < width; ++c) to[c] = skip ? skip[c] + sum[c] : sum[c];
                    }
                  });
    }
}

void run(const fastvoc_convnext& call, const float* x, int64_t x_batch, int64_t x_frame, const void* packed, float* y,
         int64_t y_batch, int64_t y_frame, void* workspace) {
  precisely(call, [&](auto precision) {
    run_in<decltype(precision)>(call, x, x_batch, x_frame, packed, y, y_batch, y_frame, workspace);
    return 0;
  });
}

}  // namespace

const Convnext convnext = {check, packed_size, workspace_size, pack, run};

}  // namespace fastvoc::FASTVOC_ISA
