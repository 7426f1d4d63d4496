// Random calls of conv1d and upsample against plain loops, in memory of exactly the promised size.
//
// Built with -DFASTVOC_SANITIZE=ON, so that an access beyond any array, or undefined behaviour, ends the program.
// An argument is how many to draw. Exits with 0 if every result is right.

#include <cstdio>
#include <cstdlib>

#include "../fastvoc.h"
#include "calls.h"

namespace {

using namespace fastvoc_check;

int64_t source(const fastvoc_conv1d_call& call, int64_t frame) {
  if (frame >= 0 && frame < call.in_frames) return frame;
  if (call.padding_mode == FASTVOC_ZERO) return -1;
  if (call.padding_mode == FASTVOC_REPLICATE) return frame < 0 ? 0 : call.in_frames - 1;
  return frame < 0 ? -frame : 2 * (call.in_frames - 1) - frame;
}

fastvoc_conv1d_call conv1d_call() {
  fastvoc_conv1d_call call{};
  call.isa = int(draw(0, FASTVOC_ISA_COUNT - 1));
  call.threads = int(draw(1, 3));
  call.batch = draw(0, 2);
  call.in_channels = size(20, 70);
  call.in_frames = size(70, 300);
  call.out_channels = size(20, 100);
  call.taps = draw(1, 8);
  call.dilation = draw(1, 5);
  call.left = draw(0, 20);
  call.right = draw(0, 20);
  call.padding_mode = int(draw(FASTVOC_ZERO, FASTVOC_REPLICATE));
  call.tanh = toss();
  call.slope = toss() ? 0.1f : 1.0f;
  return call;
}

bool conv1d_is_right() {
  const fastvoc_conv1d_call call = conv1d_call();
  if (fastvoc_conv1d_check(&call) != FASTVOC_OK) return true;

  const int64_t frames = call.in_frames + call.left + call.right - call.dilation * (call.taps - 1);
  Signal x{call.batch, call.in_channels, call.in_frames}, y{call.batch, call.out_channels, frames},
      residual{call.batch, call.out_channels, frames};
  fill(x.data);
  fill(residual.data);
  const auto weight = filled(call.out_channels * call.in_channels * call.taps), bias = filled(call.out_channels);
  const bool biased = toss(), added = toss();
  auto packed = unwritten(fastvoc_conv1d_packed_size(&call)), work = unwritten(fastvoc_conv1d_workspace_size(&call));
  fastvoc_conv1d_pack(&call, weight.data(), packed.data());
  fastvoc_conv1d(&call, x.data.data(), x.strides, packed.data(), biased ? bias.data() : nullptr,
                 added ? residual.data.data() : nullptr, residual.strides, y.data.data(), y.strides, work.data());

  for (int64_t b = 0; b < call.batch; ++b)
    for (int64_t o = 0; o < call.out_channels; ++o)
      for (int64_t t = 0; t < frames; ++t) {
        double sum = biased ? bias[o] : 0;
        for (int64_t k = 0; k < call.taps; ++k) {
          const int64_t from = source(call, t + k * call.dilation - call.left);
          for (int64_t i = 0; from >= 0 && i < call.in_channels; ++i)
            sum += activate(x.at(b, i, from), call.slope) * weight[(o * call.in_channels + i) * call.taps + k];
        }
        if (added) sum += residual.at(b, o, t);
        if (!close(call.tanh ? std::tanh(sum) : sum, y.at(b, o, t))) return false;
      }
  return true;
}

fastvoc_upsample_call upsample_call() {
  fastvoc_upsample_call call{};
  call.isa = int(draw(0, FASTVOC_ISA_COUNT - 1));
  call.threads = int(draw(1, 3));
  call.batch = draw(0, 2);
  call.in_channels = size(20, 70);
  call.in_frames = size(60, 150);
  call.out_channels = size(20, 100);
  call.taps = draw(1, 20);
  call.stride = draw(1, 9);
  call.left = draw(0, 8);
  call.right = draw(0, 8);
  // Often a single frame is left, where both memory orders look alike.
  if (toss()) call.right = (call.in_frames - 1) * call.stride + call.taps - call.left - 1;
  call.slope = toss() ? 0.1f : 1.0f;
  return call;
}

bool upsample_is_right() {
  const fastvoc_upsample_call call = upsample_call();
  if (fastvoc_upsample_check(&call) != FASTVOC_OK) return true;

  const int64_t frames = (call.in_frames - 1) * call.stride + call.taps - call.left - call.right;
  Signal x{call.batch, call.in_channels, call.in_frames}, y{call.batch, call.out_channels, frames};
  fill(x.data);
  const auto weight = filled(call.in_channels * call.out_channels * call.taps), bias = filled(call.out_channels);
  const bool biased = toss();
  auto packed = unwritten(fastvoc_upsample_packed_size(&call)),
       work = unwritten(fastvoc_upsample_workspace_size(&call));
  fastvoc_upsample_pack(&call, weight.data(), packed.data());
  fastvoc_upsample(&call, x.data.data(), x.strides, packed.data(), biased ? bias.data() : nullptr, y.data.data(),
                   y.strides, work.data());

  for (int64_t b = 0; b < call.batch; ++b)
    for (int64_t o = 0; o < call.out_channels; ++o)
      for (int64_t t = 0; t < frames; ++t) {
        double sum = biased ? bias[o] : 0;
        for (int64_t k = (t + call.left) % call.stride; k < call.taps; k += call.stride) {
          const int64_t from = (t + call.left - k) / call.stride;
          if (t + call.left < k || from >= call.in_frames) continue;
          for (int64_t i = 0; i < call.in_channels; ++i)
            sum += activate(x.at(b, i, from), call.slope) * weight[(i * call.out_channels + o) * call.taps + k];
        }
        if (!close(sum, y.at(b, o, t))) return false;
      }
  return true;
}

bool conv1d_backward_is_right() {
  const fastvoc_conv1d_call call = conv1d_call();
  if (fastvoc_conv1d_check(&call) != FASTVOC_OK) return true;

  const int64_t frames = call.in_frames + call.left + call.right - call.dilation * (call.taps - 1);
  Signal x{call.batch, call.in_channels, call.in_frames}, grad{call.batch, call.out_channels, frames};
  fill(x.data);
  fill(grad.data);
  const auto weight = filled(call.out_channels * call.in_channels * call.taps);
  Gradients got(call.batch, call.in_channels, call.in_frames, (int64_t)weight.size(), call.out_channels);
  auto work = unwritten(fastvoc_conv1d_backward_workspace_size(&call));
  fastvoc_conv1d_backward(&call, grad.data.data(), grad.strides, x.data.data(), x.strides, weight.data(),
                          got.wanted_x(), got.x.strides, got.wanted_weight(), got.wanted_bias(), work.data());

  for (int64_t b = 0; b < call.batch; ++b)
    for (int64_t o = 0; o < call.out_channels; ++o)
      for (int64_t t = 0; t < frames; ++t) {
        const double g = grad.at(b, o, t);
        got.exact_bias[o] += g;
        for (int64_t k = 0; k < call.taps; ++k) {
          const int64_t from = source(call, t + k * call.dilation - call.left);
          for (int64_t i = 0; from >= 0 && i < call.in_channels; ++i) {
            const int64_t at = (o * call.in_channels + i) * call.taps + k;
            const float value = x.at(b, i, from);
            got.exact_weight[at] += g * activate(value, call.slope);
            got.exact_x_at(b, i, from) += g * weight[at] * passed_on(value, call.slope);
          }
        }
      }
  return got.right();
}

bool upsample_backward_is_right() {
  const fastvoc_upsample_call call = upsample_call();
  if (fastvoc_upsample_check(&call) != FASTVOC_OK) return true;

  const int64_t frames = (call.in_frames - 1) * call.stride + call.taps - call.left - call.right;
  Signal x{call.batch, call.in_channels, call.in_frames}, grad{call.batch, call.out_channels, frames};
  fill(x.data);
  fill(grad.data);
  const auto weight = filled(call.in_channels * call.out_channels * call.taps);
  Gradients got(call.batch, call.in_channels, call.in_frames, (int64_t)weight.size(), call.out_channels);
  auto work = unwritten(fastvoc_upsample_backward_workspace_size(&call));
  fastvoc_upsample_backward(&call, grad.data.data(), grad.strides, x.data.data(), x.strides, weight.data(),
                            got.wanted_x(), got.x.strides, got.wanted_weight(), got.wanted_bias(), work.data());

  for (int64_t b = 0; b < call.batch; ++b)
    for (int64_t o = 0; o < call.out_channels; ++o)
      for (int64_t t = 0; t < frames; ++t) {
        const double g = grad.at(b, o, t);
        got.exact_bias[o] += g;
        for (int64_t k = (t + call.left) % call.stride; k < call.taps; k += call.stride) {
          const int64_t from = (t + call.left - k) / call.stride;
          if (t + call.left < k || from >= call.in_frames) continue;
          for (int64_t i = 0; i < call.in_channels; ++i) {
            const int64_t at = (i * call.out_channels + o) * call.taps + k;
            const float value = x.at(b, i, from);
            got.exact_weight[at] += g * activate(value, call.slope);
            got.exact_x_at(b, i, from) += g * weight[at] * passed_on(value, call.slope);
          }
        }
      }
  return got.right();
}

}  // namespace

int main(int argc, char** argv) {
  const int count = argc > 1 ? std::atoi(argv[1]) : 1000;
  for (int call = 0; call < count; ++call) {
    if (!conv1d_is_right()) return std::printf("conv1d: call %d is wrong\n", call), 1;
    if (!upsample_is_right()) return std::printf("upsample: call %d is wrong\n", call), 1;
    if (!conv1d_backward_is_right()) return std::printf("conv1d_backward: call %d is wrong\n", call), 1;
    if (!upsample_backward_is_right()) return std::printf("upsample_backward: call %d is wrong\n", call), 1;
  }
}
