// Random calls of strided_conv1d and its gradient against plain loops, in memory of exactly the promised size. Another
// number of threads, other orders of memory and other wanted gradients must give the same bits.
//
// Built with -DFASTVOC_SANITIZE=ON, so that an access beyond any array, or undefined behaviour, ends the program.
// An argument is how many to draw. Exits with 0 if every result is right.

#include <cstdio>
#include <cstdlib>

#include "../../fastvoc.h"
#include "calls.h"

namespace {

using namespace fastvoc_tests;

using Call = fastvoc_call;

int64_t frames_of(const Call& call) {
  return (call.in_frames + call.left + call.right - call.taps) / call.stride + 1;
}

// Products of the call: plain loops in a sanitized program make some ten million in a second.
int64_t products_of(const Call& call) {
  return call.batch * frames_of(call) * call.out_channels * (call.in_channels / call.groups) * call.taps;
}

// Channels of a group: sometimes one, sometimes as many as make rows of fields move apart.
int64_t channels_of_a_group() {
  const int64_t kind = draw(0, 11);
  return kind == 0 ? 256 : kind < 3 ? 1 : size(20, 100);
}

Call strided_conv1d_call() {
  Call call{};
  call.kind = FASTVOC_STRIDED_CONV1D;
  call.dilation = 1;
  do {
    do call.isa = int(draw(0, FASTVOC_ISA_COUNT - 1));
    while (!fastvoc_isa_usable(call.isa));
    call.threads = int(draw(1, 3));
    call.batch = draw(0, 3);
    call.groups = toss() ? 1 : draw(2, 9);
    call.in_channels = channels_of_a_group() * call.groups;
    call.out_channels = channels_of_a_group() * call.groups;
    call.in_frames = draw(0, 19) ? size(70, 400) : 0;
    call.taps = size(8, 45);
    call.stride = size(5, 60);  // often larger than the taps, so that no step reaches some frames
    call.left = toss() ? 0 : size(6, 60);
    call.right = toss() ? 0 : size(6, 60);
    call.slope = toss() ? 0.1f : 1.0f;
    const int64_t missing = call.taps - call.in_frames - call.left - call.right;
    if (missing > 0) call.right += missing;  // a single frame is left
  } while (products_of(call) > 3000000);
  return call;
}

// In any of three orders; a wave that is folded into columns has the items of the batch innermost.
Signal signal(int64_t batch, int64_t channels, int64_t frames) {
  Signal made{batch, channels, frames};
  if (draw(0, 2) == 0) {
    made.strides[0] = 1;
    made.strides[1] = frames * batch;
    made.strides[2] = batch;
  }
  return made;
}

// The same numbers, perhaps in another order.
Signal reordered(Signal& from) {
  Signal to = signal(from.batch, from.channels, from.frames);
  for (int64_t b = 0; b < from.batch; ++b)
    for (int64_t c = 0; c < from.channels; ++c)
      for (int64_t t = 0; t < from.frames; ++t) to.at(b, c, t) = from.at(b, c, t);
  return to;
}

bool equal(Signal& one, Signal& other) {
  for (int64_t b = 0; b < one.batch; ++b)
    for (int64_t c = 0; c < one.channels; ++c)
      for (int64_t t = 0; t < one.frames; ++t)
        if (one.at(b, c, t) != other.at(b, c, t)) return false;
  return true;
}

// Visit all products: of batch, output channel, frame and number of the weight, with input channel and frame.
template <class Visit>
void for_each_product(const Call& call, Visit visit) {
  const int64_t in = call.in_channels / call.groups, out = call.out_channels / call.groups;
  for (int64_t b = 0; b < call.batch; ++b)
    for (int64_t o = 0; o < call.out_channels; ++o)
      for (int64_t t = 0; t < frames_of(call); ++t)
        for (int64_t k = 0; k < call.taps; ++k) {
          const int64_t from = t * call.stride + k - call.left;
          for (int64_t i = 0; from >= 0 && from < call.in_frames && i < in; ++i)
            visit(b, o, t, (o * in + i) * call.taps + k, o / out * in + i, from);
        }
}

int64_t weights_of(const Call& call) { return call.out_channels * (call.in_channels / call.groups) * call.taps; }

Signal run(const Call& call, Signal& x, const std::vector<float>& weight, const float* bias) {
  Signal y = signal(call.batch, call.out_channels, frames_of(call));
  auto work = unwritten(fastvoc_call_workspace_size(&call));
  fastvoc_call_run(&call, x.data.data(), x.strides, weight.data(), bias, nullptr, nullptr, y.data.data(), y.strides,
                   work.data());
  return y;
}

bool strided_conv1d_is_right(Call call) {
  Signal x = signal(call.batch, call.in_channels, call.in_frames);
  fill(x.data);
  const auto weight = filled(weights_of(call)), biases = filled(call.out_channels);
  const float* const bias = toss() ? biases.data() : nullptr;
  Signal y = run(call, x, weight, bias);

  std::vector<double> sums(y.data.size());
  for (int64_t b = 0; bias && b < y.batch; ++b)
    for (int64_t o = 0; o < y.channels; ++o)
      for (int64_t t = 0; t < y.frames; ++t) sums[y.place(b, o, t)] = bias[o];
  for_each_product(call, [&](int64_t b, int64_t o, int64_t t, int64_t at, int64_t channel, int64_t from) {
    sums[y.place(b, o, t)] += double(x.at(b, channel, from)) * weight[at];
  });
  for (size_t i = 0; i < sums.size(); ++i)
    if (!close(activate(sums[i], call.slope), y.data[i])) return false;

  call.threads = call.threads == 1 ? 3 : 1;
  Signal same_x = reordered(x), same_y = run(call, same_x, weight, bias);
  return equal(y, same_y);
}

void run(const Call& call, Signal& grad, Signal& x, const std::vector<float>& weight, Signal& y, Gradients& got) {
  auto work = unwritten(fastvoc_call_backward_workspace_size(&call));
  fastvoc_call_backward(&call, grad.data.data(), grad.strides, x.data.data(), x.strides, weight.data(),
                        y.data.data(), y.strides, got.wanted_x(), got.x.strides, got.wanted_weight(),
                        got.wanted_bias(), work.data());
}

bool strided_conv1d_backward_is_right(Call call) {
  // Of y only the signs matter, so that any will do.
  Signal x = signal(call.batch, call.in_channels, call.in_frames);
  Signal y = signal(call.batch, call.out_channels, frames_of(call)), grad = signal(y.batch, y.channels, y.frames);
  for (Signal* const random : {&x, &y, &grad}) fill(random->data);
  const auto weight = filled(weights_of(call));
  Gradients got(signal(x.batch, x.channels, x.frames), weights_of(call), call.out_channels);
  run(call, grad, x, weight, y, got);

  const auto passed_to = [&](int64_t b, int64_t o, int64_t t) {
    return double(grad.at(b, o, t)) * passed_on(y.at(b, o, t), call.slope);
  };
  for (int64_t b = 0; b < y.batch; ++b)
    for (int64_t o = 0; o < y.channels; ++o)
      for (int64_t t = 0; t < y.frames; ++t) got.exact_bias[o] += passed_to(b, o, t);
  for_each_product(call, [&](int64_t b, int64_t o, int64_t t, int64_t at, int64_t channel, int64_t from) {
    const double g = passed_to(b, o, t);
    got.exact_weight[at] += g * x.at(b, channel, from);
    got.exact_x_at(b, channel, from) += g * weight[at];
  });
  if (!got.right()) return false;

  call.threads = call.threads == 1 ? 3 : 1;
  Signal same_grad = reordered(grad), same_x = reordered(x), same_y = reordered(y);
  Gradients again(signal(x.batch, x.channels, x.frames), weights_of(call), call.out_channels);
  run(call, same_grad, same_x, weight, same_y, again);
  const auto both = [&](int gradient) { return got.wanted[gradient] && again.wanted[gradient]; };
  return (!both(0) || equal(got.x, again.x)) && (!both(1) || got.weight == again.weight) &&
         (!both(2) || got.bias == again.bias);
}

}  // namespace

int main(int argc, char** argv) {
  const int count = argc > 1 ? std::atoi(argv[1]) : 1000;
  for (int number = 0; number < count; ++number) {
    generator().seed(uint32_t(number));
    const Call call = strided_conv1d_call();
    const char* const wrong = fastvoc_call_check(&call) != FASTVOC_OK ? "check"
                              : !strided_conv1d_is_right(call)                  ? "strided_conv1d"
                              : !strided_conv1d_backward_is_right(call)         ? "strided_conv1d_backward"
                                                                            : nullptr;
    if (!wrong) continue;
    std::printf("%s: call %d is wrong: isa %d, threads %d, batch %lld, channels %lld to %lld in %lld groups, frames "
                "%lld + %lld + %lld, taps %lld, stride %lld, slope %g\n", wrong, number, call.isa, call.threads,
                (long long)call.batch, (long long)call.in_channels, (long long)call.out_channels,
                (long long)call.groups, (long long)call.left, (long long)call.in_frames, (long long)call.right,
                (long long)call.taps, (long long)call.stride, double(call.slope));
    return 1;
  }
}
