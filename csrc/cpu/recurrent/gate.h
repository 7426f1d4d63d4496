// tanh of the first half times the sigmoid of the second.
#pragma once

#include "../kernels/tanh.h"

namespace fastvoc::FASTVOC_ISA {

static inline Vector exact_gate(Vector a, Vector b) { return tanh(a) * (0.5f * tanh(0.5f * b) + 0.5f); }

// As a quotient of polynomials, Lambert's continued fraction of tanh, which is within 1e-4 of it: less than the narrow
// operand that it becomes has. One division serves both.
static inline Vector rational_gate(Vector a, Vector b) {
  const auto bounded = [](Vector x, float end) {
    const Vector low = x < -end ? splat(-end) : x;
    return low > end ? splat(end) : low;
  };
  constexpr float kEnd = 4.97f;  // where the quotient reaches 1
  const Vector x = bounded(a, kEnd), y = bounded(0.5f * b, kEnd);
  const auto above = [](Vector v, Vector square) {
    return v * (((square + 378.0f) * square + 17325.0f) * square + 135135.0f);
  };
  const auto below = [](Vector square) { return ((28.0f * square + 3150.0f) * square + 62370.0f) * square + 135135.0f; };
  const Vector xx = x * x, yy = y * y, denominator = below(yy);
  return above(x, xx) * (above(y, yy) + denominator) / (2.0f * below(xx) * denominator);
}

}  // namespace fastvoc::FASTVOC_ISA
