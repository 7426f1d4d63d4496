// Recurrent networks against plain loops in double precision, with random sizes: every instruction set, calls that are
// cut anywhere, batches, threads; in memory of exactly the promised sizes, which holds no numbers before it is used.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <vector>

#include "../recurrent_case.h"

using fastvoc_tests::draw;
using Case = fastvoc_tests::RecurrentCase;

namespace {

// Memory that is aligned and ends where it is said to end.
struct Memory {
  explicit Memory(int64_t bytes) : data(static_cast<char*>(std::aligned_alloc(64, (bytes + 63) / 64 * 64)), &std::free) {
    std::memset(data.get(), 0xff, (bytes + 63) / 64 * 64);  // NaN
  }
  std::unique_ptr<char, void (*)(void*)> data;
};

// What a network makes, in calls of so many samples, with the given inputs or with what it draws.
std::vector<float> made(const Case& one, const fastvoc_recurrent& network, const std::vector<int64_t>& calls, int threads,
                        int64_t first, int64_t batch, bool given) {
  Memory packed(fastvoc_recurrent_packed_size(&network));
  Memory workspace(fastvoc_recurrent_workspace_size(&network, threads));
  fastvoc_recurrent_pack(&network, packed.data.get());
  const int64_t rows = fastvoc_recurrent_rows(&network);
  std::vector<float> rings(batch * rows * network.channels, 0), history(batch * network.input_taps, 0);
  std::vector<int64_t> time(batch, 0);
  const int64_t width = given ? network.outputs : 1;
  std::vector<float> result(batch * one.count * width);
  int64_t at = 0;
  for (const int64_t count : calls) {
    const auto cut = [&](const std::vector<float>& from, int64_t before, int64_t behind) {
      return one.cut(from, first, batch, before, behind, at, count);
    };
    const auto condition = cut(one.condition, 1, network.condition), forced = cut(one.forced, 1, 1);
    const auto noise = cut(one.noise, one.kinds(), 1);
    std::vector<float> parameters(batch * count * network.outputs), drawn(batch * count);
    fastvoc_steps steps{};
    steps.threads = threads, steps.batch = batch, steps.count = count;
    steps.time = time.data(), steps.rings = rings.data(), steps.history = history.data();
    steps.condition = condition.data(), steps.noise = noise.data(), steps.temperature = one.temperature.data() + first;
    steps.gates = one.gates.empty() ? nullptr : one.gates.data() + first * network.layers * 2 * network.gated;
    if (given) steps.forced = forced.data(), steps.parameters = parameters.data();
    else steps.drawn = drawn.data();
    if (fastvoc_recurrent_run(&network, packed.data.get(), &steps, workspace.data.get()) != FASTVOC_OK) std::abort();
    const auto& part = given ? parameters : drawn;
    for (int64_t n = 0; n < batch; ++n)
      for (int64_t i = 0; i < count * width; ++i) result[(n * one.count + at) * width + i] = part[n * count * width + i];
    for (int64_t& t : time) t += count;
    at += count;
  }
  return result;
}

bool same(const std::vector<float>& a, const float* b) { return !std::memcmp(a.data(), b, a.size() * sizeof(float)); }

}  // namespace

int main(int argc, char** argv) {
  const int64_t cases = argc > 1 ? std::atoll(argv[1]) : 100;
  for (int64_t number = 0; number < cases; ++number) {
    Case one;
    std::vector<int64_t> calls;
    for (int64_t left = one.count; left > 0; left -= calls.back()) calls.push_back(std::min(left, draw(1, 20)));
    for (int isa = 0; isa < FASTVOC_ISA_COUNT; ++isa) {
      if (!fastvoc_isa_usable(isa)) continue;
      for (const int precision : {FASTVOC_FLOAT32, FASTVOC_BFLOAT16, FASTVOC_INT8}) {
        fastvoc_recurrent network = one.network;
        network.isa = isa, network.precision = precision;
        if (precision == FASTVOC_INT8) network.precision = FASTVOC_BFLOAT16, network.input_scales = one.scales.data();
        const int code = fastvoc_recurrent_check(&network);
        if (code == FASTVOC_BAD_PRECISION && precision != FASTVOC_FLOAT32) continue;
        const auto fail = [&](const char* what) {
          std::fprintf(stderr, "case %ld, %s, precision %d: %s\n", long(number), fastvoc_isa_name(isa), precision, what);
          std::exit(1);
        };
        if (code != FASTVOC_OK) fail("was refused");
        const auto whole = made(one, network, {one.count}, 1, 0, one.batch, true);
        if (!same(made(one, network, calls, int(draw(2, 5)), 0, one.batch, true), whole.data())) fail("cut, other bits");
        const int64_t stream = draw(0, one.batch - 1), size = one.count * network.outputs;
        if (!same(made(one, network, calls, int(draw(1, 2)), stream, 1, true), whole.data() + stream * size))
          fail("alone, other bits");
        const auto expected = one.expected(stream);
        double most = 1, off = 0;
        for (int64_t i = 0; i < size; ++i) {
          most = std::max(most, std::abs(expected[i]));
          off = std::max(off, std::abs(expected[i] - whole[stream * size + i]));
        }
        // a few hundred sums of rounded products, which gates keep from growing
        if (!(off <= most * (precision == FASTVOC_FLOAT32 ? 2e-5 : precision == FASTVOC_BFLOAT16 ? 0.1 : 0.3))) fail("far from plain loops");
        const auto drawn = made(one, network, {one.count}, 1, 0, one.batch, false);
        if (!same(made(one, network, calls, 2, 0, one.batch, false), drawn.data())) fail("drawn in pieces, other bits");
        for (const float value : drawn)
          if (!(network.distribution == FASTVOC_CLASSES ? value >= 0 && value < network.outputs && value == std::floor(value)
                                                        : std::abs(value) <= 1))
            fail("drawn out of range");
      }
    }
  }
  const Case right;
  fastvoc_recurrent network = right.network;  // refused, whatever else is right
  network.isa = 0, network.precision = FASTVOC_FLOAT32;
  const fastvoc_recurrent fine = network;
  int64_t refused = 0;
  for (int64_t fastvoc_recurrent::*size :
       {&fastvoc_recurrent::channels, &fastvoc_recurrent::gated, &fastvoc_recurrent::skips, &fastvoc_recurrent::hidden,
        &fastvoc_recurrent::outputs, &fastvoc_recurrent::taps, &fastvoc_recurrent::input_taps,
        &fastvoc_recurrent::condition})
    for (const int64_t value : {int64_t{-1}, int64_t{1} << 40, std::numeric_limits<int64_t>::max()}) {
      network = fine;
      network.*size = value;
      refused += fastvoc_recurrent_check(&network) != FASTVOC_OK;
    }
  const std::vector<float> absurd(2 * fine.layers, std::numeric_limits<float>::quiet_NaN());
  network = fine;
  network.input_scales = absurd.data();  // without 16 bits, and no numbers
  refused += fastvoc_recurrent_check(&network) == FASTVOC_BAD_PRECISION;
  if (refused != 25) return std::fprintf(stderr, "only %ld of 25 absurd sizes were refused\n", long(refused)), 1;
  std::printf("%ld recurrent networks\n", long(cases));
}
