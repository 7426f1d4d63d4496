// Random gated layers, and gates alone with their gradients, against plain loops, in memory of exactly the promised size. Another number of threads, and where
// rows are summed in order a signal that is cut, must give the same bits; what is out of range is refused.
//
// Built with -DFASTVOC_SANITIZE=ON, so that an access beyond any array, or undefined behaviour, ends the program.
// An argument is how many to draw. Exits with 0 if every result is right.

#include "../../fastvoc_gated.h"

#include <cstdio>

#include "calls.h"

namespace {

using namespace fastvoc_tests;

using Call = fastvoc_gated;

int64_t span_of(const Call& call) { return call.dilation * (call.taps - 1); }

// Rows of a condition of which rows of the layer are phases.
int64_t rows_of(const Call& call, int64_t offset, int64_t frames) {
  return (offset + frames - 1) / call.phases + call.condition_taps;
}

Call gated_call() {
  Call call{};
  do call.isa = int(draw(0, FASTVOC_ISA_COUNT - 1));
  while (!fastvoc_isa_usable(call.isa));
  call.precision = call.isa >= FASTVOC_ISA_AVX512_BF16 && toss() ? FASTVOC_BFLOAT16 : FASTVOC_FLOAT32;
  call.threads = int(draw(1, 5));
  call.in_order = toss();
  call.residual = draw(0, 3) > 0;
  call.batch = draw(0, 2);
  call.frames = size(30, 300);
  call.channels = size(20, 70);
  call.gates = size(20, 70);
  call.skips = size(20, 70);
  call.condition = size(20, 90);
  call.phases = call.condition_taps = 1;
  if (toss()) {
    call.phases = draw(1, 9);
    call.condition_taps = draw(1, 4);
    call.offset = draw(0, call.phases - 1);
  }
  call.taps = draw(0, 2) ? 3 : draw(1, 5);
  call.dilation = draw(0, 1) ? draw(1, 3) : draw(1, 20);
  call.before = draw(0, span_of(call));
  return call;
}

struct Weights {
  std::vector<float> weight, bias, condition, residual, residual_bias, skip, skip_bias;

  explicit Weights(const Call& call)
      : weight(filled(2 * call.gates * call.channels * call.taps)),
        bias(filled(2 * call.gates)),
        condition(filled(call.phases * 2 * call.gates * call.condition * call.condition_taps)),
        residual(filled(call.residual ? call.channels * call.gates : 0)),
        residual_bias(filled(call.residual ? call.channels : 0)),
        skip(filled(call.skips * call.gates)),
        skip_bias(filled(call.skips)) {
    for (float& value : weight) value /= std::sqrt(float(call.channels * call.taps));
    for (float& value : condition) value /= std::sqrt(float(call.condition * call.condition_taps));
    for (std::vector<float>* each : {&residual, &skip})
      for (float& value : *each) value /= std::sqrt(float(call.gates));
  }

  fastvoc_gated_weights pointers() const {
    return {weight.data(), bias.data(), condition.data(), residual.data(), residual_bias.data(),
            skip.data(),   skip_bias.data()};
  }
};

struct Inputs {
  std::vector<float> x, condition, skip;
};

struct Results {
  std::vector<float> residual, skip;
};

Results run(const Call& call, const Weights& weights, const Inputs& in, int64_t first, int64_t all_frames) {
  Memory packed(fastvoc_gated_packed_size(&call)), workspace(fastvoc_gated_workspace_size(&call));
  const fastvoc_gated_weights pointers = weights.pointers();
  fastvoc_gated_pack(&call, &pointers, packed.data, workspace.data);
  std::memset(workspace.data, 0xff, fastvoc_gated_workspace_size(&call));
  Results made{unwritten(call.residual ? call.batch * call.frames * call.channels : 0),
               unwritten(call.batch * call.frames * call.skips)};
  const auto input = [&](const std::vector<float>& data, int64_t frames, int64_t channels, int64_t skipped) {
    const float* const from = data.empty() ? nullptr : data.data() + skipped * channels;
    return fastvoc_gated_input{from, frames * channels, channels};
  };
  const auto output = [&](std::vector<float>& data, int64_t channels) {
    return fastvoc_gated_output{data.data(), call.frames * channels, channels};
  };
  const int64_t offset = (call.offset + (call.phases - first % call.phases)) % call.phases;  // of the first row of all
  const fastvoc_gated_input x = input(in.x, all_frames + span_of(call), call.channels, first);
  const fastvoc_gated_input c =
      input(in.condition, rows_of(call, offset, all_frames), call.condition, (offset + first) / call.phases);
  const fastvoc_gated_input s = input(in.skip, all_frames, call.skips, first);
  const fastvoc_gated_output residual = output(made.residual, call.channels), skip = output(made.skip, call.skips);
  fastvoc_gated_run(&call, &x, &c, &s, packed.data, &residual, &skip, workspace.data);
  return made;
}

bool near(const Call& call, const std::vector<float>& got, const std::vector<double>& exact) {
  // operands of eight bits, in two products
  const double allowed = call.precision == FASTVOC_BFLOAT16 ? 0.1 : 1e-4;
  for (size_t i = 0; i < got.size(); ++i)
    if (!(std::fabs(exact[i] - got[i]) < allowed)) return false;
  return true;
}

bool right(const Call& call) {
  if (fastvoc_gated_check(&call) != FASTVOC_OK) return false;
  const Weights w(call);
  const int64_t read = call.frames + span_of(call), gates = call.gates;
  const int64_t rows = rows_of(call, call.offset, call.frames);
  const Inputs in{filled(call.batch * read * call.channels), filled(call.batch * rows * call.condition),
                  toss() ? filled(call.batch * call.frames * call.skips) : std::vector<float>{}};
  const Results made = run(call, w, in, 0, call.frames);

  std::vector<double> residual(made.residual.size()), skip(made.skip.size()), a(2 * gates), g(gates);
  for (int64_t b = 0; b < call.batch; ++b)
    for (int64_t t = 0; t < call.frames; ++t) {
      const int64_t frame = b * call.frames + t;
      const auto x = [&](int64_t row, int64_t c) { return double(in.x[(b * read + row) * call.channels + c]); };
      for (int64_t o = 0; o < 2 * gates; ++o) {
        a[o] = w.bias[o];
        for (int64_t c = 0; c < call.channels; ++c)
          for (int64_t k = 0; k < call.taps; ++k)
            a[o] += w.weight[(o * call.channels + c) * call.taps + k] * x(t + k * call.dilation, c);
        const int64_t at = call.offset + t, phase = at % call.phases, first = b * rows + at / call.phases;
        for (int64_t c = 0; c < call.condition; ++c)
          for (int64_t k = 0; k < call.condition_taps; ++k)
            a[o] += double(w.condition[((phase * 2 * gates + o) * call.condition + c) * call.condition_taps + k]) *
                    in.condition[(first + k) * call.condition + c];
      }
      for (int64_t i = 0; i < gates; ++i) g[i] = std::tanh(a[i]) / (1 + std::exp(-a[gates + i]));
      for (int64_t c = 0; call.residual && c < call.channels; ++c) {
        double sum = x(t + call.before, c) + w.residual_bias[c];
        for (int64_t i = 0; i < gates; ++i) sum += w.residual[c * gates + i] * g[i];
        residual[frame * call.channels + c] = sum;
      }
      for (int64_t c = 0; c < call.skips; ++c) {
        double sum = w.skip_bias[c] + (in.skip.empty() ? 0 : in.skip[frame * call.skips + c]);
        for (int64_t i = 0; i < gates; ++i) sum += w.skip[c * gates + i] * g[i];
        skip[frame * call.skips + c] = sum;
      }
    }
  if (!near(call, made.residual, residual) || !near(call, made.skip, skip)) return false;

  Call other = call;
  other.threads = call.threads % 5 + 1;
  const Results again = run(other, w, in, 0, call.frames);
  if (!same(made.residual, again.residual) || !same(made.skip, again.skip)) return false;
  if (!call.in_order) return true;
  // the last rows alone
  const int64_t skipped = draw(0, call.frames - 1);
  Call cut = call;
  cut.frames -= skipped;
  cut.offset = (call.offset + skipped) % call.phases;
  const Results rest = run(cut, w, in, skipped, call.frames);
  const auto alike = [&](const std::vector<float>& part, const std::vector<float>& whole, int64_t channels) {
    for (int64_t b = 0; b < call.batch && !part.empty(); ++b)
      if (std::memcmp(part.data() + b * cut.frames * channels, whole.data() + (b * call.frames + skipped) * channels,
                      cut.frames * channels * sizeof(float)))
        return false;
    return true;
  };
  return alike(rest.residual, made.residual, call.channels) && alike(rest.skip, made.skip, call.skips);
}

bool gate_is_right() {
  fastvoc_gate call{int(draw(0, FASTVOC_ISA_COUNT - 1)), int(draw(1, 5)), toss(), draw(0, 9), size(30, 9000)};
  if (!fastvoc_isa_usable(call.isa)) call.isa = FASTVOC_ISA_PORTABLE;
  if (fastvoc_gate_check(&call) != FASTVOC_OK) return false;
  const int64_t gates = call.blocks * call.length;
  const std::vector<float> a = filled(2 * gates), grad = filled(gates);
  std::vector<float> g = unwritten(gates), grad_a = unwritten(2 * gates);
  fastvoc_gate_run(&call, a.data(), g.data());
  fastvoc_gate_backward(&call, a.data(), grad.data(), grad_a.data());
  for (int64_t i = 0; i < gates; ++i) {
    const int64_t first = i + i / call.length * call.length, second = first + call.length;
    const int64_t to_tanh = call.sigmoid_first ? second : first, to_sigmoid = call.sigmoid_first ? first : second;
    const double t = std::tanh(double(a[to_tanh])), s = 1 / (1 + std::exp(-double(a[to_sigmoid])));
    if (!(std::fabs(g[i] - t * s) < 1e-6)) return false;
    if (!(std::fabs(grad_a[to_tanh] - grad[i] * s * (1 - t * t)) < 1e-5)) return false;
    if (!(std::fabs(grad_a[to_sigmoid] - grad[i] * t * s * (1 - s)) < 1e-5)) return false;
  }
  return true;
}

// A number that no call may have is refused, wherever it stands.
bool refuses_hostile_calls() {
  constexpr int64_t kHuge = int64_t{1} << 62;
  for (const int64_t value : {int64_t{-1}, kHuge, -kHuge, INT64_MAX, INT64_MIN}) {
    for (int64_t Call::*field : {&Call::batch, &Call::frames, &Call::channels, &Call::gates, &Call::skips,
                                 &Call::condition, &Call::condition_taps, &Call::phases, &Call::offset, &Call::taps,
                                 &Call::dilation, &Call::before}) {
      Call call = gated_call();
      call.*field = value;
      if (fastvoc_gated_check(&call) == FASTVOC_OK) return false;
    }
    for (int Call::*field : {&Call::isa, &Call::threads, &Call::precision, &Call::in_order, &Call::residual}) {
      Call call = gated_call();
      call.*field = value < 0 ? -1 : 1 << 30;
      if (fastvoc_gated_check(&call) == FASTVOC_OK) return false;
    }
    for (int64_t fastvoc_gate::*field : {&fastvoc_gate::blocks, &fastvoc_gate::length}) {
      fastvoc_gate call{FASTVOC_ISA_PORTABLE, 1, 0, 1, 1};
      call.*field = value;
      if (fastvoc_gate_check(&call) == FASTVOC_OK) return false;
    }
  }
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  const int count = argc > 1 ? std::atoi(argv[1]) : 100;
  if (!refuses_hostile_calls()) {
    std::printf("a call that is out of range was taken\n");
    return 1;
  }
  for (int number = 0; number < count; ++number) {
    if (!gate_is_right()) {
      std::printf("gate %d is wrong\n", number);
      return 1;
    }
    const Call call = gated_call();
    if (right(call)) continue;
    std::printf("call %d is wrong: isa %d, precision %d, in order %d, %lld x %lld frames of %lld channels, %lld gates, "
                "%lld skips, condition %lld in %lld taps, phases %lld from %lld, taps %lld, dilation %lld, threads %d\n",
                number, call.isa, call.precision, call.in_order, (long long)call.batch, (long long)call.frames,
                (long long)call.channels, (long long)call.gates, (long long)call.skips, (long long)call.condition, (long long)call.condition_taps,
                (long long)call.phases, (long long)call.offset, (long long)call.taps, (long long)call.dilation,
                call.threads);
    return 1;
  }
  std::printf("%d calls\n", count);
  return 0;
}
