// tanh of the first half times the sigmoid of the second, to some units in the last place.
#pragma once

#include "exp.h"

namespace fastvoc::FASTVOC_ISA {

// With e = e^(-2a) - 1, which is exact to the last bits where a is small, tanh(a) = -e / (2 + e): one division for both.
// Beyond |a| = 10 tanh is 1, and beyond |b| = 87 the sigmoid is 0 or 1; NaN passes through.
static inline Vector gate_by_exponentials(Vector a, Vector b) {
  Vector y = -2 * a;
  y = y > 20.0f ? splat(20.0f) : y;
  y = y < -20.0f ? splat(-20.0f) : y;
  b = b > 87.0f ? splat(87.0f) : b;
  b = b < -87.0f ? splat(-87.0f) : b;
  const Power of_tanh(y), of_sigmoid(-b);
  const Vector one = splat(1), scale = of_tanh.scaled(one), other = of_sigmoid.scaled(one);
  const Vector e = scale * of_tanh.rest + (scale - 1);
  return -e / ((2 + e) * (other * of_sigmoid.rest + (other + 1)));
}

}  // namespace fastvoc::FASTVOC_ISA
