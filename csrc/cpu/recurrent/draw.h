// Samples from the parameters of their distributions.
#pragma once

#include <algorithm>
#include <cmath>

#include "../../isa.h"
#include "../kernels/exp.h"

namespace fastvoc::FASTVOC_ISA {

// e^y of y <= 0, to two units in the last place; 0 below the smallest normal number.
static inline Vector exp_of_negative(Vector y) {
  const Vector bounded = y > 0 ? Vector{} : y;  // of lanes that fill up a vector
  const Vector inside = bounded < -87.0f ? splat(-87.0f) : bounded;
  return y < -87.0f ? Vector{} : exp_within_87(inside);
}

// The smallest number whose cumulative probability exceeds `number`. `logits` is overwritten, and filled up to vectors.
// Sums are of runs first, which do not wait for one another.
static inline int64_t draw_class(float* logits, int64_t count, float temperature, float number) {
  if (!(temperature > 0)) return std::max_element(logits, logits + count) - logits;
  constexpr int64_t kRun = 16;
  Vector highest = splat(logits[0]);
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) highest = load(logits + i) > highest ? load(logits + i) : highest;
  float most = highest[0];
  for (int lane = 1; lane < kLanes; ++lane) most = std::max(most, highest[lane]);
  for (; i < count; ++i) most = std::max(most, logits[i]);
  const float scale = 1 / temperature;
  for (i = 0; i < count; i += kLanes) store(logits + i, exp_of_negative((load(logits + i) - most) * scale));
  const auto run = [&](int64_t begin) {
    float sum = 0;
    for (int64_t k = begin; k < smaller(begin + kRun, count); ++k) sum += logits[k];
    return sum;
  };
  float sum = 0;
  for (i = 0; i < count; i += kRun) sum += run(i);
  const float threshold = number * sum;
  float before = 0;
  for (i = 0; i + kRun < count; i += kRun) {
    const float behind = before + run(i);
    if (behind > threshold) break;
    before = behind;
  }
  const int64_t last = smaller(i + kRun, count) - 1;
  for (; i < last; ++i)
    if ((before += logits[i]) > threshold) break;
  return i;
}

static inline float clipped(float value) { return std::min(1.0f, std::max(-1.0f, value)); }

static inline float draw(const fastvoc_recurrent& network, float* parameters, float temperature, const float* noise,
                         int64_t stride) {
  if (network.distribution == FASTVOC_CLASSES)
    return float(draw_class(parameters, network.outputs, temperature, noise[0]));
  if (network.distribution == FASTVOC_GAUSSIAN) {
    const float scale = std::exp(std::max(parameters[1], network.smallest_log_scale));
    return clipped(parameters[0] + scale * temperature * noise[0]);
  }
  const int64_t count = network.outputs / 3;
  float weights[kMostLogistics + kLanes];
  std::copy_n(parameters, count, weights);
  const int64_t chosen = draw_class(weights, count, temperature, noise[0]);
  const float number = std::min(1 - 1e-5f, std::max(1e-5f, noise[stride]));
  const float scale = std::exp(std::max(parameters[2 * count + chosen], network.smallest_log_scale));
  return clipped(parameters[count + chosen] + scale * temperature * (std::log(number) - std::log(1 - number)));
}

}  // namespace fastvoc::FASTVOC_ISA
