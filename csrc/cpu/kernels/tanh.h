// Hyperbolic tangent of a vector, to two units in the last place.
#pragma once

#include "exp.h"

namespace fastvoc::FASTVOC_ISA {

// |x| < 0.625: x + x^3 p(x^2), p fitted by the author of Cephes (S. Moshier). Above: 1 - 2 / (e^2|x| + 1). NaN
// fails every comparison and passes through.
static inline Vector tanh(Vector x) {
  const Vector size = x < 0 ? -x : x;

  const Vector z = x * x;
  Vector p = z * -5.70498872745e-3f + 2.06390887954e-2f;
  p = p * z + -5.37397155531e-2f;
  p = p * z + 1.33314422036e-1f;
  p = p * z + -3.33332819422e-1f;
  const Vector small = x + x * z * p;

  const Vector y = size > 10.0f ? splat(20.0f) : 2 * size;
  const Vector large = 1 - 2 / (exp_within_87(y) + 1);

  return size < 0.625f ? small : x < 0 ? -large : large;
}

}  // namespace fastvoc::FASTVOC_ISA
