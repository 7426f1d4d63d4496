// Random calls of conv1d, upsample and smooth_snake against plain loops, in memory of exactly the promised size.
//
// Built with -DFASTVOC_SANITIZE=ON, so that an access beyond any array, or undefined behaviour, ends the program.
// An argument is how many to draw. Exits with 0 if every result is right.

#include <cstdio>
#include <cstdlib>

#include "../../fastvoc.h"
#include "../snake.h"
#include "calls.h"

namespace {

using namespace fastvoc_tests;

int64_t source(const fastvoc_call& call, int64_t frame) {
  if (frame >= 0 && frame < call.in_frames) return frame;
  if (call.padding_mode == FASTVOC_ZERO) return -1;
  if (call.padding_mode == FASTVOC_REPLICATE) return frame < 0 ? 0 : call.in_frames - 1;
  return frame < 0 ? -frame : 2 * (call.in_frames - 1) - frame;
}

fastvoc_call conv1d_call() {
  fastvoc_call call{};
  call.kind = FASTVOC_CONV1D;
  call.isa = int(draw(0, FASTVOC_ISA_COUNT - 1));
  call.threads = int(draw(1, 3));
  call.batch = draw(0, 2);
  call.in_channels = size(20, 70);
  call.in_frames = size(70, 300);
  call.out_channels = size(20, 100);
  call.taps = draw(1, 8);
  call.dilation = draw(1, 5);
  call.stride = call.groups = 1;
  call.left = draw(0, 20);
  call.right = draw(0, 20);
  call.padding_mode = int(draw(FASTVOC_ZERO, FASTVOC_REPLICATE));
  call.tanh = toss();
  call.slope = toss() ? 0.1f : 1.0f;
  return call;
}

bool conv1d_is_right() {
  const fastvoc_call call = conv1d_call();
  if (fastvoc_call_check(&call) != FASTVOC_OK) return true;

  const int64_t frames = call.in_frames + call.left + call.right - call.dilation * (call.taps - 1);
  Signal x{call.batch, call.in_channels, call.in_frames}, y{call.batch, call.out_channels, frames},
      residual{call.batch, call.out_channels, frames};
  fill(x.data);
  fill(residual.data);
  const auto weight = filled(call.out_channels * call.in_channels * call.taps), bias = filled(call.out_channels);
  const bool biased = toss(), added = toss();
  auto packed = unwritten(fastvoc_call_packed_size(&call)), work = unwritten(fastvoc_call_workspace_size(&call));
  fastvoc_call_pack(&call, weight.data(), packed.data());
  fastvoc_call_run(&call, x.data.data(), x.strides, packed.data(), biased ? bias.data() : nullptr,
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

fastvoc_call upsample_call() {
  fastvoc_call call{};
  call.kind = FASTVOC_UPSAMPLE;
  call.isa = int(draw(0, FASTVOC_ISA_COUNT - 1));
  call.threads = int(draw(1, 3));
  call.batch = draw(0, 2);
  call.in_channels = size(20, 70);
  call.in_frames = size(60, 150);
  call.out_channels = size(20, 100);
  call.taps = draw(1, 20);
  call.stride = draw(1, 9);
  call.dilation = call.groups = 1;
  call.left = draw(0, 8);
  call.right = draw(0, 8);
  // Often a single frame is left, where both memory orders look alike.
  if (toss()) call.right = (call.in_frames - 1) * call.stride + call.taps - call.left - 1;
  call.slope = toss() ? 0.1f : 1.0f;
  return call;
}

bool upsample_is_right() {
  const fastvoc_call call = upsample_call();
  if (fastvoc_call_check(&call) != FASTVOC_OK) return true;

  const int64_t frames = (call.in_frames - 1) * call.stride + call.taps - call.left - call.right;
  Signal x{call.batch, call.in_channels, call.in_frames}, y{call.batch, call.out_channels, frames};
  fill(x.data);
  const auto weight = filled(call.in_channels * call.out_channels * call.taps), bias = filled(call.out_channels);
  const bool biased = toss();
  auto packed = unwritten(fastvoc_call_packed_size(&call)),
       work = unwritten(fastvoc_call_workspace_size(&call));
  fastvoc_call_pack(&call, weight.data(), packed.data());
  fastvoc_call_run(&call, x.data.data(), x.strides, packed.data(), biased ? bias.data() : nullptr, nullptr,
                   nullptr, y.data.data(), y.strides, work.data());

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
  const fastvoc_call call = conv1d_call();
  if (fastvoc_call_check(&call) != FASTVOC_OK) return true;

  const int64_t frames = call.in_frames + call.left + call.right - call.dilation * (call.taps - 1);
  Signal x{call.batch, call.in_channels, call.in_frames}, grad{call.batch, call.out_channels, frames};
  fill(x.data);
  fill(grad.data);
  const auto weight = filled(call.out_channels * call.in_channels * call.taps);
  Gradients got(call.batch, call.in_channels, call.in_frames, (int64_t)weight.size(), call.out_channels);
  auto work = unwritten(fastvoc_call_backward_workspace_size(&call));
  fastvoc_call_backward(&call, grad.data.data(), grad.strides, x.data.data(), x.strides, weight.data(), nullptr,
                        nullptr, got.wanted_x(), got.x.strides, got.wanted_weight(), got.wanted_bias(), work.data());

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
  const fastvoc_call call = upsample_call();
  if (fastvoc_call_check(&call) != FASTVOC_OK) return true;

  const int64_t frames = (call.in_frames - 1) * call.stride + call.taps - call.left - call.right;
  Signal x{call.batch, call.in_channels, call.in_frames}, grad{call.batch, call.out_channels, frames};
  fill(x.data);
  fill(grad.data);
  const auto weight = filled(call.in_channels * call.out_channels * call.taps);
  Gradients got(call.batch, call.in_channels, call.in_frames, (int64_t)weight.size(), call.out_channels);
  auto work = unwritten(fastvoc_call_backward_workspace_size(&call));
  fastvoc_call_backward(&call, grad.data.data(), grad.strides, x.data.data(), x.strides, weight.data(), nullptr,
                        nullptr, got.wanted_x(), got.x.strides, got.wanted_weight(), got.wanted_bias(), work.data());

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

// The gradient against differences of the result along random directions.
bool smooth_snake_is_right() {
  fastvoc_call call{};
  call.kind = FASTVOC_SMOOTH_SNAKE;
  call.isa = int(draw(0, FASTVOC_ISA_COUNT - 1));
  call.threads = int(draw(1, 3));
  call.batch = draw(0, 2);
  call.in_channels = call.out_channels = call.groups = size(20, 70);
  call.in_frames = size(70, 300);
  call.taps = 2;
  call.dilation = call.stride = 1;
  call.slope = 1;
  if (fastvoc_call_check(&call) != FASTVOC_OK) return true;
  const int64_t channels = call.in_channels, frames = call.in_frames;
  Signal x{call.batch, channels, frames}, y{call.batch, channels, frames}, grad{call.batch, channels, frames},
      grad_x{call.batch, channels, frames};
  fill(x.data);
  fill(grad.data);
  auto weight = filled(2 * channels), grad_weight = unwritten(2 * channels);
  for (float& value : weight) value = 0.5f + std::fabs(value);
  auto packed = unwritten(fastvoc_call_packed_size(&call)), work = unwritten(fastvoc_call_workspace_size(&call)),
       more = unwritten(fastvoc_call_backward_workspace_size(&call));
  fastvoc_call_pack(&call, weight.data(), packed.data());
  fastvoc_call_run(&call, x.data.data(), x.strides, packed.data(), nullptr, nullptr, nullptr, y.data.data(), y.strides,
                   work.data());
  fastvoc_call_backward(&call, grad.data.data(), grad.strides, x.data.data(), x.strides, weight.data(), nullptr,
                        nullptr, grad_x.data.data(), grad_x.strides, grad_weight.data(), nullptr, more.data());
  for (int64_t c = 0; c < channels; ++c) {
    double along = 0, expected = 0, scale = 0;
    const double step = 1e-6, turn[2] = {0.7, -0.4};
    for (int64_t b = 0; b < call.batch; ++b) {
      std::vector<double> signal(static_cast<size_t>(frames)), moved[2];
      for (int64_t t = 0; t < frames; ++t) signal[size_t(t)] = x.at(b, c, t);
      const std::vector<double> exact = smooth_snake_of(signal, weight[size_t(2 * c)], weight[size_t(2 * c + 1)]);
      for (int side = 0; side < 2; ++side) {
        const double by = side ? step : -step;
        std::vector<double> other = signal;
        for (int64_t t = 0; t < frames; ++t) other[size_t(t)] += by * (t % 3 - 1);
        moved[side] = smooth_snake_of(other, weight[size_t(2 * c)] + by * turn[0], weight[size_t(2 * c + 1)] + by * turn[1]);
      }
      for (int64_t t = 0; t < frames; ++t) {
        if (!close(exact[size_t(t)], y.at(b, c, t))) return false;
        expected += grad.at(b, c, t) * (moved[1][size_t(t)] - moved[0][size_t(t)]) / (2 * step);
        along += grad_x.at(b, c, t) * double(t % 3 - 1);
        scale += std::fabs(grad_x.at(b, c, t));
      }
    }
    along += turn[0] * grad_weight[size_t(2 * c)] + turn[1] * grad_weight[size_t(2 * c + 1)];
    if (!(std::fabs(along - expected) <= 1e-4 * (1 + scale))) return false;
  }
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  const int count = argc > 1 ? std::atoi(argv[1]) : 1000;
  for (int call = 0; call < count; ++call) {
    if (!conv1d_is_right()) return std::printf("conv1d: call %d is wrong\n", call), 1;
    if (!upsample_is_right()) return std::printf("upsample: call %d is wrong\n", call), 1;
    if (!conv1d_backward_is_right()) return std::printf("conv1d_backward: call %d is wrong\n", call), 1;
    if (!smooth_snake_is_right()) return std::printf("smooth_snake: call %d is wrong\n", call), 1;
    if (!upsample_backward_is_right()) return std::printf("upsample_backward: call %d is wrong\n", call), 1;
  }
}
