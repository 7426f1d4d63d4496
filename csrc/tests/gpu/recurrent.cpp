// Recurrent networks through the kernel for GPUs, which the CPU runs (driver_on_cpu.cpp), against plain loops in double
// precision; in memory of exactly the promised sizes, which holds no numbers before it is used.
//
// Parameters of distributions may differ from exact ones by twice of what the same network in double precision does if
// it rounds all that it multiplies. What is drawn must be what the parameters say, but where a number lies at a boundary.
// Samples have the same bits in whatever calls they are made, whatever stands beside their stream, and on any GPU.
//
// Arguments: how many to draw, and the number of the only one to run. Exits with 0 if all is well.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>

#include "../../fastvoc_cuda.h"
#include "../recurrent_case.h"

namespace {

using fastvoc_tests::draw;
using Case = fastvoc_tests::RecurrentCase;

// As precise as a number that is multiplied: to the nearest, ties to even.
double rounded(double value, int precision) {
  if (value == 0) return value;
  int exponent;
  std::frexp(value, &exponent);
  int unit = exponent - 1 - (precision == FASTVOC_BFLOAT16 ? 7 : 10);
  if (precision == FASTVOC_FLOAT16) unit = std::max(unit, -24);
  return std::ldexp(std::nearbyint(std::ldexp(value, -unit)), unit);
}

// Memory that is aligned to 256 bytes and ends where it is said to end.
struct Memory {
  explicit Memory(int64_t bytes) {
    void* memory = nullptr;
    if (bytes < 0 || posix_memalign(&memory, 256, size_t(bytes))) std::abort();
    data.reset(static_cast<char*>(memory));
    std::memset(memory, 0xff, size_t(bytes));
  }
  struct Free {
    void operator()(char* memory) const { std::free(memory); }
  };
  std::unique_ptr<char, Free> data;
};

struct Made {
  std::vector<float> drawn, parameters;
};

// What a network makes of streams, in calls of so many samples, of given inputs or of those that it draws.
Made made(const Case& one, const fastvoc_recurrent& network, const fastvoc_gpu& gpu, const std::vector<int64_t>& calls,
          int64_t first, int64_t batch, const std::vector<float>* given) {
  static void* kernels = nullptr;
  if (!kernels && fastvoc_cuda_load("nothing", &kernels) != FASTVOC_OK) std::abort();
  Memory packed(fastvoc_cuda_recurrent_packed_size(&network));
  fastvoc_cuda_recurrent_pack(&network, packed.data.get());
  std::vector<float> rings(batch * fastvoc_recurrent_rows(&network) * network.channels, 0);
  std::vector<float> history(batch * network.input_taps, 0);
  std::vector<int64_t> time(batch, 0);
  Made all = {std::vector<float>(batch * one.count), std::vector<float>(batch * one.count * network.outputs)};
  int64_t at = 0;
  for (const int64_t count : calls) {
    Memory workspace(fastvoc_cuda_recurrent_workspace_size(&network, &gpu, batch));
    const auto cut = [&](const std::vector<float>& from, int64_t before, int64_t behind) {
      return one.cut(from, first, batch, before, behind, at, count);
    };
    const auto condition = cut(one.condition, 1, network.condition), noise = cut(one.noise, one.kinds(), 1);
    std::vector<float> parameters(batch * count * network.outputs), drawn(batch * count), forced;
    if (given) forced = cut(*given, 1, 1);
    fastvoc_steps steps{};
    steps.batch = batch, steps.count = count;
    steps.time = time.data(), steps.rings = rings.data(), steps.history = history.data();
    steps.condition = condition.data(), steps.noise = noise.data(), steps.temperature = one.temperature.data() + first;
    steps.gates = one.gates.empty() ? nullptr : one.gates.data() + first * network.layers * 2 * network.gated;
    steps.forced = given ? forced.data() : nullptr;
    steps.drawn = drawn.data(), steps.parameters = parameters.data();
    if (fastvoc_cuda_recurrent_run(&network, &gpu, kernels, packed.data.get(), &steps, workspace.data.get(), nullptr)) {
      std::fprintf(stderr, "was not run: %s\n", fastvoc_cuda_message());
      std::exit(1);
    }
    for (int64_t n = 0; n < batch; ++n) {
      std::copy_n(drawn.begin() + n * count, count, all.drawn.begin() + n * one.count + at);
      std::copy_n(parameters.begin() + n * count * network.outputs, count * network.outputs,
                  all.parameters.begin() + (n * one.count + at) * network.outputs);
    }
    for (int64_t& t : time) t += count;
    at += count;
  }
  return all;
}

bool same(const std::vector<float>& a, const float* b) { return !std::memcmp(a.data(), b, a.size() * sizeof(float)); }
bool same(const Made& a, const Made& b, int64_t first) {
  const int64_t outputs = int64_t(a.parameters.size() / a.drawn.size()), samples = int64_t(b.drawn.size()) - first;
  return first + int64_t(a.drawn.size()) <= samples + first && same(a.drawn, b.drawn.data() + first) &&
         same(a.parameters, b.parameters.data() + first * outputs);
}

// The smallest class whose cumulative probability exceeds a number, or -1 where two could be that.
int64_t class_of(const float* logits, int64_t count, float temperature, double number) {
  const float most = *std::max_element(logits, logits + count);
  if (!(temperature > 0)) return std::find(logits, logits + count, most) - logits;
  double all = 0, sum = 0;
  for (int64_t i = 0; i < count; ++i) all += std::exp(double(logits[i] - most) / temperature);
  for (int64_t i = 0; i < count; ++i) {
    sum += std::exp(double(logits[i] - most) / temperature);
    if (std::abs(sum - number * all) < 1e-5 * all) return -1;
    if (sum > number * all) return i;
  }
  return count - 1;
}

bool is_drawn(const fastvoc_recurrent& n, const float* parameters, float temperature, const float* noise,
              int64_t stride, float drawn) {
  const auto clipped = [](double value) { return std::min(1.0, std::max(-1.0, value)); };
  const auto scale = [&](float log_scale) {
    return std::exp(double(std::max(log_scale, n.smallest_log_scale))) * temperature;
  };
  if (n.distribution == FASTVOC_GAUSSIAN)
    return std::abs(drawn - clipped(parameters[0] + scale(parameters[1]) * noise[0])) < 1e-5;
  const int64_t count = n.distribution == FASTVOC_LOGISTICS ? n.outputs / 3 : n.outputs;
  const int64_t chosen = class_of(parameters, count, temperature, noise[0]);
  if (chosen < 0) return true;
  if (n.distribution == FASTVOC_CLASSES) return drawn == float(chosen);
  const double where = std::log(double(noise[stride])) - std::log1p(-double(noise[stride]));
  return std::abs(drawn - clipped(parameters[count + chosen] + scale(parameters[2 * count + chosen]) * where)) < 1e-5;
}

}  // namespace

int main(int argc, char** argv) {
  const int64_t cases = argc > 1 ? std::atoll(argv[1]) : 20, only = argc > 2 ? std::atoll(argv[2]) : -1;
  // many multiprocessors, so that a stream has one; few, so that streams share a block; and one that is small
  const fastvoc_gpu gpus[] = {{80, 108, 163 << 10, 164 << 10, 0}, {90, 1, 227 << 10, 228 << 10, 0},
                              {75, 2, 64 << 10, 64 << 10, 0}};
  int64_t together = 0;  // calls by clusters
  for (int64_t number = 0; number < cases; ++number) {
    Case one(draw(0, 1) ? 8 : 1);
    one.network.first_skip = one.network.hidden_condition = nullptr;
    one.count = std::min<int64_t>(one.count, 50);
    if (number % 4 == 0) one.network.layers = 1;  // whose steps have the fewest barriers between them
    std::vector<int64_t> calls;
    for (int64_t left = one.count; left > 0; left -= calls.back()) calls.push_back(std::min(left, draw(1, 20)));
    const int64_t stream = draw(0, one.batch - 1), which = draw(1, 2), spare = draw(0, 160 << 10);
    const int clusters = int(draw(1, 6));
    if (only >= 0 && number != only) continue;
    for (const int precision : {FASTVOC_FLOAT16, FASTVOC_BFLOAT16}) {
      fastvoc_recurrent network = one.network;
      network.precision = precision;
      fastvoc_gpu gpu = gpus[0];  // some or all weights stay in its shared memory, or none has room there
      gpu.shared_per_block = int(std::min(fastvoc_cuda_recurrent_shared(&network) + spare, int64_t{227} << 10));
      gpu.shared_per_multiprocessor = gpu.shared_per_block;
      const fastvoc_gpu& other = gpus[precision == FASTVOC_FLOAT16 ? which : 1];
      const auto fail = [&](const char* what) {
        std::fprintf(stderr, "case %ld, precision %d: %s\n", long(number), precision, what);
        std::exit(1);
      };
      for (const fastvoc_gpu* one_of : {static_cast<const fastvoc_gpu*>(&gpu), &other})
        if (fastvoc_cuda_recurrent_check(&network, one_of) != FASTVOC_OK) fail("was refused");
      const Made whole = made(one, network, gpu, {one.count}, stream, 1, &one.forced);
      const auto expected = one.expected(stream);
      const auto narrow = one.expected(stream, [&](double value) { return rounded(value, precision); });
      double most = 0, off = 0, allowed = 0;
      for (size_t i = 0; i < expected.size(); ++i) {
        most = std::max(most, std::abs(expected[i]));
        off = std::max(off, std::abs(expected[i] - whole.parameters[i]));
        allowed = std::max(allowed, std::abs(expected[i] - narrow[i]));
        if (std::isnan(whole.parameters[i])) fail("makes no numbers");
      }
      if (off > 2 * allowed + most * (precision == FASTVOC_FLOAT16 ? 0x1p-10 : 0x1p-7)) fail("far from plain loops");
      const int64_t begin = stream * one.count;
      if (!same(whole, made(one, network, other, calls, 0, one.batch, &one.forced), begin))
        fail("cut and beside others, other bits");
      const Made drawn = made(one, network, other, calls, 0, one.batch, nullptr);
      for (int64_t n = 0; n < one.batch; ++n)
        for (int64_t t = 0; t < one.count; ++t)
          if (!is_drawn(network, drawn.parameters.data() + (n * one.count + t) * network.outputs, one.temperature[n],
                        one.noise.data() + n * one.kinds() * one.count + t, one.count, drawn.drawn[n * one.count + t]))
            fail("draws something else");
      const Made alone = made(one, network, gpu, {one.count}, stream, 1, nullptr);
      if (!same(alone, drawn, begin)) fail("drawn alone, other bits");
      std::vector<float> before(one.batch * one.count, 0);  // each sample is the next one's input
      for (int64_t i = 0; i < int64_t(before.size()); ++i)
        if (i % one.count) before[i] = drawn.drawn[i - 1];
      const Made again = made(one, network, gpu, {one.count}, stream, 1, &before);
      if (!same(again, drawn, begin)) fail("given what it drew, other bits");
      // By clusters, as many as there are multiprocessors for, in which some or all weights stay.
      fastvoc_gpu hopper = {90, 8 * clusters, std::min(gpu.shared_per_block + (32 << 10), 227 << 10), 228 << 10,
                            FASTVOC_HOPPER_CLUSTERS};
      if (!fastvoc_cuda_recurrent_clusters(&network, &hopper, one.batch)) continue;
      ++together;
      if (!same(made(one, network, hopper, calls, 0, one.batch, nullptr), drawn, 0)) fail("by clusters, other bits");
      if (!same(made(one, network, hopper, {one.count}, stream, 1, &one.forced), whole, 0))
        fail("by a cluster, other bits");
    }
  }
  const Case right;
  fastvoc_recurrent fine = right.network;  // refused, whatever else is right
  fine.precision = FASTVOC_FLOAT16, fine.first_skip = fine.hidden_condition = nullptr;
  if (fastvoc_cuda_recurrent_check(&fine, &gpus[0])) return std::fprintf(stderr, "a right one is refused\n"), 1;
  int64_t refused = 0;
  const auto refuse = [&](fastvoc_recurrent network, const fastvoc_gpu& gpu) {
    refused += fastvoc_cuda_recurrent_check(&network, &gpu) != FASTVOC_OK;
  };
  for (int64_t fastvoc_recurrent::*size :
       {&fastvoc_recurrent::channels, &fastvoc_recurrent::gated, &fastvoc_recurrent::skips, &fastvoc_recurrent::hidden,
        &fastvoc_recurrent::outputs, &fastvoc_recurrent::taps, &fastvoc_recurrent::input_taps,
        &fastvoc_recurrent::condition})
    for (const int64_t value : {int64_t{-1}, int64_t{1} << 20, int64_t{1} << 40, std::numeric_limits<int64_t>::max()}) {
      fastvoc_recurrent network = fine;
      network.*size = value;
      refuse(network, gpus[0]);
    }
  fastvoc_recurrent network = fine;
  network.precision = FASTVOC_FLOAT32;
  refuse(network, gpus[0]);
  network.precision = FASTVOC_BFLOAT16;
  refuse(network, gpus[2]);
  network = fine;
  network.first_skip = fine.skip;
  refuse(network, gpus[0]);
  network = fine;
  network.input_scales = right.scales.data();
  refuse(network, gpus[0]);
  refuse(fine, {90, 0, 1 << 10, 1 << 10, 0});
  if (refused != 37) return std::fprintf(stderr, "only %ld of 37 are refused\n", long(refused)), 1;
  std::printf("%ld recurrent networks, %ld times by clusters\n", long(cases), long(together));
}
