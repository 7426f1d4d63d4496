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

#include "../../fastvoc_recurrent.h"
#include "../draw.h"

using fastvoc_tests::draw;
using fastvoc_tests::toss;

namespace {

std::vector<float> numbers(int64_t count, double size) {
  std::vector<float> values(count);
  for (float& value : values) value = float(size * std::uniform_real_distribution<double>(-1, 1)(fastvoc_tests::generator()));
  return values;
}

// Memory that is aligned and ends where it is said to end.
struct Memory {
  explicit Memory(int64_t bytes) : data(static_cast<char*>(std::aligned_alloc(64, (bytes + 63) / 64 * 64)), &std::free) {
    std::memset(data.get(), 0xff, (bytes + 63) / 64 * 64);  // NaN
  }
  std::unique_ptr<char, void (*)(void*)> data;
};

struct Case {
  fastvoc_recurrent network{};
  std::vector<int64_t> dilations;
  std::vector<std::vector<float>> kept;
  int64_t batch, count;
  std::vector<float> condition, gates, noise, temperature, forced, scales;

  const float* keep(int64_t size, double scale) {
    kept.push_back(numbers(std::max<int64_t>(size, 1), scale));
    return kept.back().data();
  }

  Case() {
    auto& n = network;
    kept.reserve(32);
    n.distribution = int(draw(0, 2));
    n.channels = draw(1, 40), n.gated = draw(1, 40), n.skips = draw(1, 70), n.hidden = draw(1, 70);
    n.outputs = n.distribution == FASTVOC_CLASSES ? draw(1, 70) : n.distribution == FASTVOC_LOGISTICS ? 3 * draw(1, 5) : 2;
    n.layers = draw(1, 5), n.taps = draw(1, 4), n.condition = draw(0, 20);
    n.input_taps = draw(1, 3);
    if (draw(0, 5) == 0) n.channels = n.gated = 128, n.layers = 3;  // large enough for two threads
    for (int64_t l = 0; l < n.layers; ++l) dilations.push_back(draw(1, toss() ? 4 : 40));
    n.dilations = dilations.data();
    n.residual_scale = toss() ? 1 : 0.7f, n.skip_scale = 0.5f, n.smallest_log_scale = -7;
    const double wide = 1 / std::sqrt(double(n.channels)), narrow = 1 / std::sqrt(double(n.gated));
    n.input = keep(n.input_taps * n.channels * (n.distribution == FASTVOC_CLASSES ? n.outputs : 1), 1);
    n.input_bias = keep(n.channels, 0.1);
    n.dilated = keep(n.layers * 2 * n.gated * n.channels * n.taps, 2 * wide);
    n.dilated_bias = keep(n.layers * 2 * n.gated, 0.1);
    n.conditions = n.condition ? keep(n.layers * 2 * n.gated * n.condition, 0.3) : nullptr;
    n.residual = keep(n.layers * n.channels * n.gated, narrow), n.residual_bias = keep(n.layers * n.channels, 0.1);
    n.skip = keep(n.layers * n.skips * n.gated, narrow), n.skip_bias = keep(n.skips, 0.1);
    n.first_skip = toss() ? keep(n.skips * n.channels, wide) : nullptr;
    n.hidden_weight = keep(n.hidden * n.skips, 1 / std::sqrt(double(n.skips))), n.hidden_bias = keep(n.hidden, 0.1);
    n.hidden_condition = n.condition && toss() ? keep(n.hidden * n.condition, 0.3) : nullptr;
    n.output = keep(n.outputs * n.hidden, 1 / std::sqrt(double(n.hidden))), n.output_bias = keep(n.outputs, 0.1);
    // what is multiplied stays below these, or is cut off there
    for (int64_t i = 0; i < 2 * n.layers; ++i) scales.push_back(draw(0, 3) ? (i % 2 ? 1.0f : 8.0f) / 127 : 0.0f);
    batch = draw(0, 9) ? draw(1, 9) : draw(30, 40), count = draw(1, 60);
    condition = numbers(batch * count * n.condition, 1);
    if (toss()) gates = numbers(batch * n.layers * 2 * n.gated, 0.3);
    forced = numbers(batch * count, 0.5);
    if (n.distribution == FASTVOC_CLASSES)
      for (float& value : forced) value = float(draw(0, n.outputs - 1));
  }

  // The parameters of the sample behind each input, in double precision.
  std::vector<double> expected(int64_t stream) const {
    const auto& n = network;
    std::vector<double> result;
    std::vector<std::vector<std::vector<double>>> past(n.layers);  // the inputs of each layer
    std::vector<double> inputs(n.input_taps, 0);
    for (int64_t t = 0; t < count; ++t) {
      inputs.erase(inputs.begin()), inputs.push_back(forced[stream * count + t]);
      std::vector<double> x(n.channels), skips(n.skip_bias, n.skip_bias + n.skips);
      for (int64_t c = 0; c < n.channels; ++c) {
        x[c] = n.input_bias[c];
        for (int64_t j = 0; j < n.input_taps; ++j)
          x[c] += n.distribution == FASTVOC_CLASSES ? n.input[(j * n.outputs + int64_t(inputs[j])) * n.channels + c]
                                                    : n.input[c * n.input_taps + j] * inputs[j];
      }
      if (n.first_skip)
        for (int64_t s = 0; s < n.skips; ++s)
          for (int64_t c = 0; c < n.channels; ++c) skips[s] += n.first_skip[s * n.channels + c] * x[c];
      for (int64_t l = 0; l < n.layers; ++l) {
        past[l].push_back(x);
        std::vector<double> g(2 * n.gated), z(n.gated);
        for (int64_t r = 0; r < 2 * n.gated; ++r) {
          const int64_t row = l * 2 * n.gated + r;
          g[r] = n.dilated_bias[row] + (gates.empty() ? 0 : gates[stream * n.layers * 2 * n.gated + row]);
          for (int64_t j = 0; j < n.taps; ++j) {
            const int64_t at = t - (n.taps - 1 - j) * n.dilations[l];
            for (int64_t c = 0; c < n.channels && at >= 0; ++c)
              g[r] += n.dilated[(row * n.channels + c) * n.taps + j] * past[l][at][c];
          }
          for (int64_t k = 0; k < n.condition; ++k)
            g[r] += n.conditions[row * n.condition + k] * condition[(stream * count + t) * n.condition + k];
        }
        for (int64_t c = 0; c < n.gated; ++c) z[c] = std::tanh(g[c]) / (1 + std::exp(-g[n.gated + c]));
        for (int64_t s = 0; s < n.skips; ++s)
          for (int64_t c = 0; c < n.gated; ++c) skips[s] += n.skip[(l * n.skips + s) * n.gated + c] * z[c];
        for (int64_t r = 0; r < n.channels; ++r) {
          double sum = x[r] + n.residual_bias[l * n.channels + r];
          for (int64_t c = 0; c < n.gated; ++c) sum += n.residual[(l * n.channels + r) * n.gated + c] * z[c];
          x[r] = sum * n.residual_scale;
        }
      }
      std::vector<double> hidden(n.hidden_bias, n.hidden_bias + n.hidden);
      for (int64_t r = 0; r < n.hidden; ++r) {
        for (int64_t s = 0; s < n.skips; ++s)
          hidden[r] += n.hidden_weight[r * n.skips + s] * std::max(0.0, skips[s] * n.skip_scale);
        for (int64_t k = 0; k < n.condition && n.hidden_condition; ++k)
          hidden[r] += n.hidden_condition[r * n.condition + k] * condition[(stream * count + t) * n.condition + k];
      }
      for (int64_t r = 0; r < n.outputs; ++r) {
        double sum = n.output_bias[r];
        for (int64_t s = 0; s < n.hidden; ++s) sum += n.output[r * n.hidden + s] * std::max(0.0, hidden[s]);
        result.push_back(sum);
      }
    }
    return result;
  }
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
  const int64_t kinds = network.distribution == FASTVOC_LOGISTICS ? 2 : 1, width = given ? network.outputs : 1;
  std::vector<float> result(batch * one.count * width);
  int64_t at = 0;
  for (const int64_t count : calls) {
    const auto cut = [&](const std::vector<float>& from, int64_t before, int64_t behind) {
      std::vector<float> part(batch * before * count * behind);
      for (int64_t n = 0; n < batch; ++n)
        for (int64_t b = 0; b < before; ++b)
          for (int64_t i = 0; i < count * behind; ++i)
            part[((n * before + b) * count) * behind + i] =
                from[(((first + n) * before + b) * one.count + at) * behind + i];
      return part;
    };
    const auto condition = cut(one.condition, 1, network.condition), forced = cut(one.forced, 1, 1);
    const auto noise = cut(one.noise, kinds, 1);
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
    const int64_t kinds = one.network.distribution == FASTVOC_LOGISTICS ? 2 : 1;
    for (int64_t i = 0; i < one.batch * kinds * one.count; ++i)
      one.noise.push_back(std::uniform_real_distribution<float>(0.001f, 0.999f)(fastvoc_tests::generator()));
    for (int64_t n = 0; n < one.batch; ++n) one.temperature.push_back(draw(0, 3) ? float(draw(1, 20)) / 10 : 0.0f);
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
