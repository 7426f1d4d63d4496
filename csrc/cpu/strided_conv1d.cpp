// strided_conv1d on the CPU.

#include "../isa.h"
#include "kernels/strips.h"

namespace fastvoc::FASTVOC_ISA {
namespace {

int check(const fastvoc_call& call) {
  if (call.dilation != 1 || call.padding_mode != FASTVOC_ZERO || call.tanh) return FASTVOC_BAD_OPERATOR;
  // What is read of the gradient may end later than the result, by as much as the padding.
  const int64_t frames = call.in_frames + call.left + call.right;
  if (call.in_channels % call.groups || call.out_channels % call.groups || !(call.slope > 0) ||
      !__builtin_isfinite(call.slope) || frames < call.taps)
    return FASTVOC_BAD_SIZE;
  for (const int64_t channels : {call.in_channels, call.out_channels})
    if (!fits({call.batch, frames + call.taps, channels + 16 * call.groups}) ||
        !fits({call.threads, call.taps + 64, channels + 64, 64}))
      return FASTVOC_BAD_SIZE;
  return FASTVOC_OK;
}

int64_t packed_size(const fastvoc_call&) { return 0; }

void pack(const fastvoc_call&, const float*, float*) {}

int64_t panel_floats(const fastvoc_call& call) {
  return call.in_channels / call.groups * call.taps * 2 * kLanes;
}

int64_t workspace_size(const fastvoc_call& call) {
  return input_field(call).floats() + call.threads * panel_floats(call);
}

template <int Vectors>
void run_panel(const fastvoc_call& call, const Field& field, const float* group_rows, int64_t first,
               int64_t channels, int64_t begin, int64_t end, const float* weight, const float* bias, float* panel,
               float* y, const int64_t* y_strides) {
  constexpr int kWidth = Vectors * kLanes;
  const int64_t frames = (call.in_frames + call.left + call.right - call.taps) / call.stride + 1, length = field.channels * call.taps;
  const float* const last = weight + call.out_channels * length;
  const float* const from = weight + first * length;
  if (call.taps < kLanes) {
    // Whole squares of (channel, tap). Where their numbers go repeats itself: divisions would take longer than that.
    const int64_t block = kLanes * call.taps;
    int64_t places[kLanes * kLanes];
    for (int64_t i = 0; i < block; ++i) places[i] = (i % call.taps * field.channels + i / call.taps) * kWidth;
    for (int64_t begin = 0; begin < length; begin += block) {
      float* const to = panel + begin / call.taps * kWidth;
      transpose_rows(from + begin, length, channels, smaller(block, length - begin), last, 64,
                     [&](int64_t i) { return to + places[i]; });
    }
  } else {
    // A few taps of all channels before the next ones: each of them is then one stream of writes.
    for (int64_t tap = 0; tap < call.taps; tap += kLanes)
      for (int64_t c = 0; c < field.channels; ++c)
        transpose_rows(from + c * call.taps + tap, length, channels, smaller(kLanes, call.taps - tap), last,
                       8 * call.taps, [&](int64_t i) { return panel + ((tap + i) * field.channels + c) * kWidth; });
  }
  alignas(64) float start[kWidth] = {}, sums[kStrips * kWidth];
  for (int64_t c = 0; bias && c < channels; ++c) start[c] = bias[first + c];
  const Strip strip(field, call.taps);
  const float* strips[kStrips];
  for (; begin < end; begin += kStrips) {
    const int64_t count = smaller(kStrips, end - begin);
    for (int64_t i = 0; i < count; ++i) {
      const int64_t batch = (begin + i) / frames, t = (begin + i) % frames;
      strips[i] = group_rows + (batch * field.rows() + t * call.stride) * field.pitch();
    }
    multiply_strips<Vectors>(strip, strips, count, panel, start, sums);
    for (int64_t i = 0; i < count; ++i) {
      const int64_t batch = (begin + i) / frames, t = (begin + i) % frames;
      float* const to = y + batch * y_strides[0] + first * y_strides[1] + t * y_strides[2];
      store_activated(sums + i * kWidth, channels, call.slope, to, y_strides[1]);
    }
  }
}

void run(const fastvoc_call& call, const float* x, const int64_t* x_strides, const float* weight,
         const float* bias, const float*, const int64_t*, float* y, const int64_t* y_strides, float* workspace) {
  const Field field = input_field(call);
  float* const rows = workspace;
  fill(field, {x, x_strides}, nullptr, 1.0f, call.threads, rows);
  const int64_t out = call.out_channels / call.groups, panels = panels_of(out);
  const int64_t strips = call.batch * out_frames_of(call);
  const int64_t parts = parts_of(call.groups * panels, strips, call.threads);
  share_out(call.threads, call.groups * panels * parts, [&](int64_t worker, int64_t item) {
    float* const panel = workspace + field.floats() + worker * panel_floats(call);
    const int64_t group = item / parts / panels, first = item / parts % panels * 2 * kLanes, part = item % parts;
    const int64_t channels = smaller(2 * kLanes, out - first);
    (channels > kLanes ? run_panel<2> : run_panel<1>)(
        call, field, rows + group * field.group_floats(), group * out + first, channels, strips * part / parts,
        strips * (part + 1) / parts, weight, bias, panel, y, y_strides);
  });
}

}  // namespace

const Forward strided_conv1d = {check, packed_size, workspace_size, pack, run};

}  // namespace fastvoc::FASTVOC_ISA
