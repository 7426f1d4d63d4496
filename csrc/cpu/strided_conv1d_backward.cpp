// The gradient of strided_conv1d on the CPU.
//
// With g = grad * (1 where y > 0, else slope), in a field of its own:
//
//   - The input's is a transposed convolution. Frames t with (t + left) % stride = r are one phase: it meets the taps
//     r, r + stride, ... only, and what it reads of g is a strip, the last tap first.
//   - The weight's is a correlation of g with the strips of the input: weight[o][p] = sum over m of g[m][o] strip(m)[p].

#include "../isa.h"
#include "kernels/strips.h"
#include "kernels/weight_gradient.h"

namespace fastvoc::FASTVOC_ISA {
namespace {

// Output channels of a weight whose sums one thread makes together.
constexpr int64_t kChannels = 64;

// Frames that are summed before sums go to memory.
constexpr int64_t kSteps = kChain;

// With `before` and `after`, the strip of every frame of the input lies inside.
Field gradient_field(const fastvoc_call& call) {
  const int64_t frames = out_frames_of(call), reached = (call.in_frames - 1 + call.left) / call.stride + 1;
  return {call.groups, call.batch, call.out_channels / call.groups, (call.taps - 1) / call.stride, frames,
          larger(reached - frames, 0)};
}

// How the positions (tap, channel) of a strip are cut: into blocks, each of several pieces of two vectors. A piece is a
// tap of some channels; narrow groups are taken across taps, so that lanes are full.
struct Cut {
  bool across;
  int64_t blocks, pieces;

  Cut(const Field& input, int64_t taps)
      : across(input.channels < 2 * kLanes),
        blocks(across ? 1 : panels_of(input.channels)),
        pieces(across ? panels_of(input.channels * taps) : taps) {}

  int64_t row() const { return pieces * 2 * kLanes; }
};

// Memory of one thread for the gradient of a weight: sums, and the tiles of both signals.
struct Tiles {
  int64_t sums, gradient, input;

  Tiles(const fastvoc_call& call, const Cut& cut)
      : sums(kChannels * cut.row()),
        gradient(kSteps * kChannels + kLanes),
        // a single frame takes no step, which may be far longer than the signal
        input(cut.across ? 0 : kSteps * larger(call.taps, out_frames_of(call) > 1 ? call.stride : 0) * 2 * kLanes) {}

  int64_t floats() const { return sums + gradient + input; }
};

int64_t thread_floats(const fastvoc_call& call) {
  const int64_t panel = call.out_channels / call.groups * call.taps * 2 * kLanes;
  return round_up(larger(panel, Tiles(call, Cut(input_field(call), call.taps)).floats()), 16);
}

int64_t workspace_size(const fastvoc_call& call) {
  return gradient_field(call).floats() + input_field(call).floats() + call.threads * thread_floats(call);
}

// One panel of input channels of the frames of all phases.
template <int Vectors>
void run_panel(const fastvoc_call& call, const Field& field, const float* group_rows, int64_t group,
               int64_t first, int64_t channels, int64_t part, int64_t parts, const float* weight, float* panel,
               float* grad_x, const int64_t* strides) {
  constexpr int kWidth = Vectors * kLanes;
  const int64_t taps = call.taps, stride = call.stride, out = field.channels, in = call.in_channels / call.groups;
  const auto taps_of = [&](int64_t phase) { return phase < taps ? (taps - 1 - phase) / stride + 1 : 0; };
  const float* const end = weight + call.out_channels * in * taps;
  // A few taps of all channels before the next ones: each of them is then one stream of writes.
  for (int64_t begin = 0; begin < taps; begin += kLanes) {
    const int64_t some = smaller(kLanes, taps - begin);
    int64_t places[kLanes];
    for (int64_t i = 0; i < some; ++i) {
      const int64_t tap = begin + i, phase = tap % stride;
      // phases before this one have this many taps together
      const int64_t before = phase * (taps / stride) + smaller(phase, taps % stride);
      places[i] = (before + taps_of(phase) - 1 - tap / stride) * out * kWidth;
    }
    for (int64_t o = 0; o < out; ++o)
      transpose_rows(weight + ((group * out + o) * in + first) * taps + begin, taps, channels, some, end,
                     8 * in * taps, [&](int64_t i) { return panel + places[i] + o * kWidth; });
  }
  alignas(64) float start[kWidth] = {}, sums[kStrips * kWidth];
  const float* strips[kStrips];
  int64_t before = 0;
  for (int64_t phase = 0; phase < stride; ++phase) {
    const int64_t count = taps_of(phase);
    const int64_t lowest = call.left > phase ? (call.left - phase + stride - 1) / stride : 0;
    const int64_t span = call.in_frames - 1 + call.left - phase;
    const int64_t frames = span < 0 ? 0 : larger(span / stride + 1 - lowest, 0), all = call.batch * frames;
    const Strip strip(field, count);
    for (int64_t m = all * part / parts, last = all * (part + 1) / parts; m < last; m += kStrips) {
      const int64_t rows = smaller(kStrips, last - m);
      for (int64_t i = 0; i < rows; ++i) {
        const int64_t batch = (m + i) / frames, q = lowest + (m + i) % frames;
        strips[i] = group_rows + (batch * field.rows() + field.before + q - count + 1) * field.pitch();
      }
      if (count > 0) {
        multiply_strips<Vectors>(strip, strips, rows, panel + before * out * kWidth, start, sums);
      } else {
        for (int64_t i = 0; i < rows * kWidth; ++i) sums[i] = 0;
      }
      for (int64_t i = 0; i < rows; ++i) {
        const int64_t batch = (m + i) / frames, t = (lowest + (m + i) % frames) * stride + phase - call.left;
        float* const to = grad_x + batch * strides[0] + (group * in + first) * strides[1] + t * strides[2];
        store_activated(sums + i * kWidth, channels, 1.0f, to, strides[1]);
      }
    }
    before += count;
  }
}

void input_gradient(const fastvoc_call& call, const Field& field, const float* rows, const float* weight,
                    float* grad_x, const int64_t* strides, float* workspace) {
  const int64_t in = call.in_channels / call.groups, panels = panels_of(in);
  const int64_t parts = parts_of(call.groups * panels, call.batch * call.in_frames / call.stride, call.threads);
  share_out(call.threads, call.groups * panels * parts, [&](int64_t worker, int64_t item) {
    const int64_t group = item / parts / panels, first = item / parts % panels * 2 * kLanes;
    const int64_t channels = smaller(2 * kLanes, in - first);
    (channels > kLanes ? run_panel<2> : run_panel<1>)(
        call, field, rows + group * field.group_floats(), group, first, channels, item % parts, parts, weight,
        workspace + worker * thread_floats(call), grad_x, strides);
  });
}

// `Rows` channels of g times two vectors of the input's strips, over the steps of a tile.
template <int Rows>
__attribute__((noinline)) void correlate_strips(const float* g, const float* x, const int64_t* places, int64_t steps,
                                                bool first, float* sums, int64_t row) {
  Vector sum[Rows][2] = {};
  for (int64_t step = 0; step < steps; ++step) {
    const float* const strip = x + places[step];
    const Vector w[2] = {load(strip), load(strip + kLanes)};
#pragma GCC unroll 12
    for (int r = 0; r < Rows; ++r) {
      const Vector value = splat(g[r]);
      sum[r][0] += value * w[0];
      sum[r][1] += value * w[1];
    }
    g += Rows;
  }
#pragma GCC unroll 12
  for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 2
    for (int v = 0; v < 2; ++v) {
      float* const to = sums + r * row + v * kLanes;
      store(to, first ? sum[r][v] : load(to) + sum[r][v]);
    }
}

using Correlate = void (*)(const float*, const float*, const int64_t*, int64_t, bool, float*, int64_t);

template <int... Row>
constexpr std::array<Correlate, sizeof...(Row)> correlates(std::integer_sequence<int, Row...>) {
  return {correlate_strips<Row + 1>...};
}

// Copy the rows of one panel that the strips of neighbouring frames of an item cover, and return how many there are.
int64_t copy_rows(const float* from, int64_t pitch, int64_t rows, float* to) {
  for (int64_t r = 0; r < rows; ++r, from += pitch, to += 2 * kLanes) {
    store(to, load(from));
    store(to + kLanes, load(from + kLanes));
  }
  return rows;
}

// Sums of one output channel, from positions of strips to the weight's own order (channel, tap).
void store_weight(const Cut& cut, const float* sums, int64_t first, int64_t channels, int64_t taps, float* gradient) {
  if (!cut.across) {
    store_row(sums, 2 * kLanes, taps, smaller(2 * kLanes, channels - first), gradient + first * taps);
    return;
  }
  for (int64_t c = 0; c < channels; ++c)
    for (int64_t tap = 0; tap < taps; ++tap) gradient[c * taps + tap] = sums[tap * channels + c];
}

// The sums of one panel of positions and up to kChannels output channels, over all frames.
void correlate_block(const fastvoc_call& call, const Cut& cut, const Field& field, const float* g,
                     int64_t channels, const Field& input, const float* x, float* memory) {
  constexpr int kHeight = height_of(2);
  static constexpr auto kTable = correlates(std::make_integer_sequence<int, kHeight>{});
  const Tiles tiles(call, cut);
  float* const sums = memory;
  float* const tile = sums + tiles.sums;
  float* const copy = tile + tiles.gradient;
  const int64_t frames = field.frames, all = call.batch * frames;
  int64_t places[kSteps];
  const float* values[kSteps];
  for (int64_t i = 0; i < channels * cut.row() && all == 0; ++i) sums[i] = 0;
  for (int64_t begin = 0; begin < all; begin += kSteps) {
    // A row of either signal may be a page of its own: what is read over and over is copied to where it is dense.
    const int64_t steps = smaller(kSteps, all - begin);
    int64_t copied = 0;
    for (int64_t step = 0; step < steps;) {
      const int64_t batch = (begin + step) / frames, t = (begin + step) % frames;
      const int64_t count = smaller(frames - t, steps - step);  // of this item
      const int64_t place = (batch * input.rows() + t * call.stride) * input.pitch();
      for (int64_t i = 0; i < count; ++i) {
        values[step + i] = g + (batch * field.rows() + field.before + t + i) * field.pitch();
        places[step + i] =
            cut.across ? place + i * call.stride * input.pitch() : (copied + i * call.stride) * 2 * kLanes;
      }
      if (!cut.across)
        copied += copy_rows(x + place, input.pitch(), (count - 1) * call.stride + call.taps,
                            copy + copied * 2 * kLanes);
      step += count;
    }
    for_each_block(channels, kHeight, [&](int64_t o, int64_t height) {
      // whole vectors: what one writes too much, the next one overwrites
      float* to = tile + o * kSteps;
      for (int64_t step = 0; step < steps; ++step, to += height)
        for (int64_t c = 0; c < height; c += kLanes) store(to + c, load(values[step] + o + c));
      for (int64_t piece = 0; piece < cut.pieces; ++piece)
        kTable[height - 1](tile + o * kSteps, (cut.across ? x : copy) + piece * 2 * kLanes, places, steps, begin == 0,
                           sums + o * cut.row() + piece * 2 * kLanes, cut.row());
    });
  }
}

void weight_gradient(const fastvoc_call& call, const Field& field, const float* rows, const Field& input,
                     const float* input_rows, float* gradient, float* workspace) {
  const Cut cut(input, call.taps);
  const int64_t out = field.channels, chunks = (out + kChannels - 1) / kChannels;
  const int64_t length = input.channels * call.taps;
  share_out(call.threads, call.groups * cut.blocks * chunks, [&](int64_t worker, int64_t item) {
    float* const sums = workspace + worker * thread_floats(call);
    const int64_t group = item / chunks / cut.blocks, first = item / chunks % cut.blocks * 2 * kLanes;
    const int64_t chunk = item % chunks * kChannels, channels = smaller(kChannels, out - chunk);
    correlate_block(call, cut, field, rows + group * field.group_floats() + chunk, channels, input,
                    input_rows + group * input.group_floats() + first, sums);
    for (int64_t o = 0; o < channels; ++o)
      store_weight(cut, sums + o * cut.row(), first, input.channels, call.taps,
                   gradient + (group * out + chunk + o) * length);
  });
}

// The sum of g over batch and time.
void bias_gradient(const Field& field, const float* rows, int threads, float* gradient) {
  share_out(threads, field.groups, [&](int64_t, int64_t group) {
    for (int64_t first = 0; first < field.channels; first += kLanes) {
      const int64_t channels = smaller(kLanes, field.channels - first);
      double total[kLanes] = {};
      for (int64_t batch = 0; batch < field.batch; ++batch)
        for (int64_t t = 0; t < field.frames; ++t) {
          const int64_t row = batch * field.rows() + field.before + t;
          const float* const values = rows + group * field.group_floats() + row * field.pitch() + first;
          for (int64_t c = 0; c < channels; ++c) total[c] += values[c];
        }
      for (int64_t c = 0; c < channels; ++c) gradient[group * field.channels + first + c] = (float)total[c];
    }
  });
}

void run(const fastvoc_call& call, const float* grad, const int64_t* grad_strides, const float* x,
         const int64_t* x_strides, const float* weight, const float* y, const int64_t* y_strides, float* grad_x,
         const int64_t* grad_x_strides, float* grad_weight, float* grad_bias, float* workspace) {
  const Field field = gradient_field(call), input = input_field(call);
  float* const rows = workspace;
  float* const input_rows = rows + field.floats();
  float* const rest = input_rows + input.floats();
  const Tensor gate{y, y_strides};
  fill(field, {grad, grad_strides}, call.slope == 1.0f ? nullptr : &gate, call.slope, call.threads, rows);
  if (grad_x) input_gradient(call, field, rows, weight, grad_x, grad_x_strides, rest);
  if (grad_weight) {
    fill(input, {x, x_strides}, nullptr, 1.0f, call.threads, input_rows);
    weight_gradient(call, field, rows, input, input_rows, grad_weight, rest);
  }
  if (grad_bias) bias_gradient(field, rows, call.threads, grad_bias);
}

}  // namespace

const Backward strided_conv1d_backward = {workspace_size, run};

}  // namespace fastvoc::FASTVOC_ISA
