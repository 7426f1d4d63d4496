// Recurrent networks of random sizes, and plain loops in double precision that say what they make.
#pragma once

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "../fastvoc_recurrent.h"
#include "draw.h"

namespace fastvoc_tests {

inline std::vector<float> numbers(int64_t count, double size) {
  std::vector<float> values(count);
  for (float& value : values) value = float(size * std::uniform_real_distribution<double>(-1, 1)(generator()));
  return values;
}

struct RecurrentCase {
  fastvoc_recurrent network{};
  std::vector<int64_t> dilations;
  std::vector<std::vector<float>> kept;
  int64_t batch, count;
  std::vector<float> condition, gates, noise, temperature, forced, scales;

  // Items of (before, count, behind), of which some samples are taken.
  std::vector<float> cut(const std::vector<float>& from, int64_t first, int64_t items, int64_t before, int64_t behind,
                         int64_t at, int64_t samples) const {
    std::vector<float> part;
    for (int64_t i = first * before; i < (first + items) * before; ++i) {
      const auto begin = from.begin() + (i * count + at) * behind;
      part.insert(part.end(), begin, begin + samples * behind);
    }
    return part;
  }

  const float* keep(int64_t size, double scale) {
    kept.push_back(numbers(std::max<int64_t>(size, 1), scale));
    return kept.back().data();
  }

  // Random numbers of a sample.
  int64_t kinds() const { return network.distribution == FASTVOC_LOGISTICS ? 2 : 1; }

  // Channels come in so many.
  explicit RecurrentCase(int64_t multiple = 1) {
    auto& n = network;
    kept.reserve(32);
    n.distribution = int(draw(0, 2));
    n.channels = draw(1, 40), n.gated = draw(1, 40), n.skips = draw(1, 70), n.hidden = draw(1, 70);
    n.outputs = n.distribution == FASTVOC_CLASSES     ? draw(1, 70)
                : n.distribution == FASTVOC_LOGISTICS ? 3 * draw(1, 5)
                                                      : 2;
    n.channels = (n.channels + multiple - 1) / multiple * multiple;
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
    for (int64_t i = 0; i < batch * kinds() * count; ++i)
      noise.push_back(std::uniform_real_distribution<float>(0.001f, 0.999f)(generator()));
    for (int64_t n = 0; n < batch; ++n) temperature.push_back(draw(0, 3) ? float(draw(1, 20)) / 10 : 0.0f);
  }

  // The parameters of the sample behind each input, in double precision; `rounded` is what becomes of a number that is
  // multiplied with another one.
  template <class Rounded>
  std::vector<double> expected(int64_t stream, Rounded rounded) const {
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
          for (int64_t c = 0; c < n.channels; ++c)
            skips[s] += rounded(n.first_skip[s * n.channels + c]) * rounded(x[c]);
      for (int64_t l = 0; l < n.layers; ++l) {
        past[l].push_back(x);
        std::vector<double> g(2 * n.gated), z(n.gated);
        for (int64_t r = 0; r < 2 * n.gated; ++r) {
          const int64_t row = l * 2 * n.gated + r;
          g[r] = n.dilated_bias[row] + (gates.empty() ? 0 : gates[stream * n.layers * 2 * n.gated + row]);
          for (int64_t j = 0; j < n.taps; ++j) {
            const int64_t at = t - (n.taps - 1 - j) * n.dilations[l];
            for (int64_t c = 0; c < n.channels && at >= 0; ++c)
              g[r] += rounded(n.dilated[(row * n.channels + c) * n.taps + j]) * rounded(past[l][at][c]);
          }
          for (int64_t k = 0; k < n.condition; ++k)
            g[r] += rounded(n.conditions[row * n.condition + k]) *
                    rounded(condition[(stream * count + t) * n.condition + k]);
        }
        for (int64_t c = 0; c < n.gated; ++c) z[c] = std::tanh(g[c]) / (1 + std::exp(-g[n.gated + c]));
        for (int64_t s = 0; s < n.skips; ++s)
          for (int64_t c = 0; c < n.gated; ++c)
            skips[s] += rounded(n.skip[(l * n.skips + s) * n.gated + c]) * rounded(z[c]);
        for (int64_t r = 0; r < n.channels; ++r) {
          double sum = x[r] + n.residual_bias[l * n.channels + r];
          for (int64_t c = 0; c < n.gated; ++c)
            sum += rounded(n.residual[(l * n.channels + r) * n.gated + c]) * rounded(z[c]);
          x[r] = sum * n.residual_scale;
        }
      }
      std::vector<double> hidden(n.hidden_bias, n.hidden_bias + n.hidden);
      for (int64_t r = 0; r < n.hidden; ++r) {
        for (int64_t s = 0; s < n.skips; ++s)
          hidden[r] += rounded(n.hidden_weight[r * n.skips + s]) * rounded(std::max(0.0, skips[s] * n.skip_scale));
        for (int64_t k = 0; k < n.condition && n.hidden_condition; ++k)
          hidden[r] += rounded(n.hidden_condition[r * n.condition + k]) *
                       rounded(condition[(stream * count + t) * n.condition + k]);
      }
      for (int64_t r = 0; r < n.outputs; ++r) {
        double sum = n.output_bias[r];
        for (int64_t s = 0; s < n.hidden; ++s)
          sum += rounded(n.output[r * n.hidden + s]) * rounded(std::max(0.0, hidden[s]));
        result.push_back(sum);
      }
    }
    return result;
  }
  std::vector<double> expected(int64_t stream) const {
    return expected(stream, [](double value) { return value; });
  }
};

}  // namespace fastvoc_tests
