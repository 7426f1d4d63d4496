// What smooth_snake means.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

namespace fastvoc_tests {

// One channel, in double precision, in plain loops.
inline std::vector<double> smooth_snake_of(const std::vector<double>& x, double frequency, double amount) {
  constexpr double kTaps[12] = {0.002028966449896242, 0.00938946394406788, -0.02554346406529466, -0.05765737547536495,
                                0.1285726090813288,   0.4432098000653667,  0.4432098000653667,   0.1285726090813288,
                                -0.05765737547536495, -0.02554346406529466, 0.00938946394406788, 0.002028966449896242};
  const int64_t frames = int64_t(x.size());
  const auto clamped = [](int64_t at, int64_t count) { return size_t(at < 0 ? 0 : at < count ? at : count - 1); };
  std::vector<double> s(size_t(2 * frames)), y(x.size());
  for (int64_t n = 0; n < 2 * frames; ++n) {
    double u = 0;
    for (int64_t j = 0; j < 6; ++j) u += 2 * kTaps[2 * j + n % 2] * x[clamped(n / 2 - 3 + n % 2 + j, frames)];
    s[size_t(n)] = u + amount * std::sin(frequency * u) * std::sin(frequency * u);
  }
  for (int64_t t = 0; t < frames; ++t)
    for (int64_t j = 0; j < 12; ++j) y[size_t(t)] += kTaps[j] * s[clamped(2 * t - 5 + j, 2 * frames)];
  return y;
}

}  // namespace fastvoc_tests
