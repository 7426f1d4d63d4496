// Random calls of convnext against plain loops, in memory of exactly the promised size. Another number of threads, and a
// signal that is cut, must give the same bits; what is out of range is refused.
//
// Built with -DFASTVOC_SANITIZE=ON, so that an access beyond any array, or undefined behaviour, ends the program.
// An argument is how many to draw. Exits with 0 if every result is right.

#include "../../fastvoc_convnext.h"

#include <cstdio>
#include <cstring>

#include "calls.h"

namespace {

using namespace fastvoc_tests;

using Call = fastvoc_convnext;

int64_t frames_of(const Call& call) { return call.in_frames + call.left + call.right - call.taps + 1; }

Call convnext_call() {
  Call call{};
  do call.isa = int(draw(0, FASTVOC_ISA_COUNT - 1));
  while (!fastvoc_isa_usable(call.isa));
  call.precision = call.isa >= FASTVOC_ISA_AVX512_BF16 && toss() ? FASTVOC_BFLOAT16 : FASTVOC_FLOAT32;
  call.threads = int(draw(1, 3));
  call.batch = draw(0, 3);
  call.channels = size(20, 90);
  call.hidden = size(40, 200);
  call.taps = 2 * draw(0, 4) + 1;
  call.in_frames = draw(0, 19) ? size(20, 130) : 0;
  call.left = draw(0, 5);
  call.right = draw(0, 5);
  call.eps = 1e-6f;
  const int64_t missing = call.taps - call.in_frames - call.left - call.right;
  if (missing > 0) call.right += missing;
  return call;
}

struct Weights {
  std::vector<float> depthwise, depthwise_bias, norm, norm_bias, expand, expand_bias, contract, contract_bias, scale;

  explicit Weights(const Call& call)
      : depthwise(filled(call.channels * call.taps)),
        depthwise_bias(filled(call.channels)),
        norm(filled(call.channels)),
        norm_bias(filled(call.channels)),
        expand(filled(call.hidden * call.channels)),
        expand_bias(filled(call.hidden)),
        contract(filled(call.channels * call.hidden)),
        contract_bias(filled(call.channels)),
        scale(filled(call.channels)) {
    for (float& weight : expand) weight /= std::sqrt(float(call.channels));
    for (float& weight : contract) weight /= std::sqrt(float(call.hidden));
  }

  fastvoc_convnext_weights pointers() const {
    return {depthwise.data(), depthwise_bias.data(), norm.data(),          norm_bias.data(), expand.data(),
            expand_bias.data(), contract.data(),     contract_bias.data(), scale.data()};
  }
};

std::vector<double> exact(const Call& call, const Weights& w, const std::vector<float>& x) {
  const int64_t channels = call.channels, frames = frames_of(call);
  std::vector<double> y(call.batch * frames * channels), z(channels), h(call.hidden);
  for (int64_t b = 0; b < call.batch; ++b)
    for (int64_t t = 0; t < frames; ++t) {
      const auto input = [&](int64_t tap, int64_t c) -> double {
        const int64_t from = t + tap - call.left;
        return from >= 0 && from < call.in_frames ? x[(b * call.in_frames + from) * channels + c] : 0;
      };
      double mean = 0, variance = 0;
      for (int64_t c = 0; c < channels; ++c) {
        z[c] = w.depthwise_bias[c];
        for (int64_t k = 0; k < call.taps; ++k) z[c] += w.depthwise[c * call.taps + k] * input(k, c);
        mean += z[c] / double(channels);
      }
      for (int64_t c = 0; c < channels; ++c) variance += (z[c] - mean) * (z[c] - mean) / double(channels);
      for (int64_t c = 0; c < channels; ++c)
        z[c] = (z[c] - mean) / std::sqrt(variance + call.eps) * w.norm[c] + w.norm_bias[c];
      for (int64_t i = 0; i < call.hidden; ++i) {
        double sum = w.expand_bias[i];
        for (int64_t c = 0; c < channels; ++c) sum += w.expand[i * channels + c] * z[c];
        h[i] = sum / 2 * (1 + std::erf(sum / std::sqrt(2.0)));
      }
      for (int64_t c = 0; c < channels; ++c) {
        double sum = w.contract_bias[c];
        for (int64_t i = 0; i < call.hidden; ++i) sum += w.contract[c * call.hidden + i] * h[i];
        y[(b * frames + t) * channels + c] = input(call.taps / 2, c) + w.scale[c] * sum;
      }
    }
  return y;
}

std::vector<float> run(const Call& call, const Weights& weights, const float* x, int64_t x_batch) {
  const int64_t frames = frames_of(call);
  Memory packed(fastvoc_convnext_packed_size(&call)), workspace(fastvoc_convnext_workspace_size(&call));
  const fastvoc_convnext_weights pointers = weights.pointers();
  fastvoc_convnext_pack(&call, &pointers, packed.data, workspace.data);
  std::memset(workspace.data, 0xff, fastvoc_convnext_workspace_size(&call));
  std::vector<float> y = unwritten(call.batch * frames * call.channels);
  fastvoc_convnext_run(&call, x, x_batch, call.channels, packed.data, y.data(), frames * call.channels, call.channels,
                       workspace.data);
  return y;
}

bool right(const Call& call) {
  if (fastvoc_convnext_check(&call) != FASTVOC_OK) return false;
  const Weights weights(call);
  const int64_t item = call.in_frames * call.channels;
  const std::vector<float> x = filled(call.batch * item);
  const std::vector<float> y = run(call, weights, x.data(), item);
  const std::vector<double> expected = exact(call, weights, x);
  // operands of eight bits, in two products; a norm of a frame of like channels makes much of a rounding
  const double narrow = call.precision == FASTVOC_BFLOAT16 ? 0.1 : 0, wide = call.channels < 4 ? 5e-2 : 2e-4;
  double largest = 1;
  for (const double value : expected) largest = std::fmax(largest, std::fabs(value));
  for (size_t i = 0; i < y.size(); ++i)
    if (!(std::fabs(expected[i] - y[i]) < (narrow + wide) * largest)) return false;
  Call other = call;
  other.threads = call.threads % 3 + 1;
  if (!same(y, run(other, weights, x.data(), item))) return false;
  // the last frames alone, which need no more than the taps before them
  const int64_t frames = frames_of(call), skipped = draw(0, frames - 1);
  const int64_t start = skipped - call.left;
  if (start < 0 || start >= call.in_frames) return true;
  Call cut = call;
  cut.left = 0;
  cut.in_frames = call.in_frames - start;
  const std::vector<float> rest = run(cut, weights, x.data() + start * call.channels, item);
  for (int64_t b = 0; b < call.batch; ++b) {
    const int64_t kept = (frames - skipped) * call.channels;
    if (std::memcmp(rest.data() + b * kept, y.data() + (b * frames + skipped) * call.channels, kept * sizeof(float)))
      return false;
  }
  return true;
}

// A number that no call may have is refused, wherever it stands.
bool refuses_hostile_calls() {
  constexpr int64_t kHuge = int64_t{1} << 62;
  for (const int64_t value : {int64_t{-1}, kHuge, -kHuge, INT64_MAX, INT64_MIN}) {
    for (int64_t Call::*field : {&Call::batch, &Call::in_frames, &Call::channels, &Call::hidden, &Call::taps,
                                 &Call::left, &Call::right}) {
      Call call = convnext_call();
      call.*field = value;
      if (fastvoc_convnext_check(&call) == FASTVOC_OK) return false;
    }
    for (int Call::*field : {&Call::isa, &Call::threads, &Call::precision}) {
      Call call = convnext_call();
      call.*field = value < 0 ? -1 : 1 << 30;
      if (fastvoc_convnext_check(&call) == FASTVOC_OK) return false;
    }
  }
  Call call = convnext_call();
  for (const int64_t even : {0, 2}) {
    call.taps = even;
    if (fastvoc_convnext_check(&call) == FASTVOC_OK) return false;
  }
  call = convnext_call();
  call.eps = NAN;
  return fastvoc_convnext_check(&call) != FASTVOC_OK;
}

}  // namespace

int main(int argc, char** argv) {
  const int count = argc > 1 ? std::atoi(argv[1]) : 100;
  if (!refuses_hostile_calls()) {
    std::printf("a call that is out of range was taken\n");
    return 1;
  }
  for (int number = 0; number < count; ++number) {
    const Call call = convnext_call();
    if (right(call)) continue;
    std::printf("call %d is wrong: isa %d, precision %d, %lld x %lld frames of %lld channels, hidden %lld, taps %lld\n",
                number, call.isa, call.precision, (long long)call.batch, (long long)call.in_frames,
                (long long)call.channels, (long long)call.hidden, (long long)call.taps);
    return 1;
  }
  std::printf("%d calls\n", count);
  return 0;
}
