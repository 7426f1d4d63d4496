// Hyperbolic tangent of a vector, to two units in the last place.
#pragma once

#include "simd.h"

namespace fastvoc::FASTVOC_ISA {

// |x| < 0.625: x + x^3 p(x^2), p fitted by the author of Cephes (S. Moshier). Above: 1 - 2 / (e^2|x| + 1), where e^y is
// 2^n times the series of e^r, |r| <= ln(2) / 2. NaN fails every comparison and passes through.
static inline Vector tanh(Vector x) {
  const Vector size = x < 0 ? -x : x;

  const Vector z = x * x;
  Vector p = z * -5.70498872745e-3f + 2.06390887954e-2f;
  p = p * z + -5.37397155531e-2f;
  p = p * z + 1.33314422036e-1f;
  p = p * z + -3.33332819422e-1f;
  const Vector small = x + x * z * p;

  const Vector y = size > 10.0f ? splat(20.0f) : 2 * size;
  constexpr float kRound = 12582912.0f;  // adding 1.5 * 2^23 rounds to an integer
  const Vector shifted = y * 1.44269504089f + kRound;
  const Vector n = shifted - kRound;
  const Vector r = y - n * 0.693359375f - n * -2.12194440e-4f;  // ln 2 in two parts
  Vector e = r * 1.9875691500e-4f + 1.3981999507e-3f;
  e = e * r + 8.3334519073e-3f;
  e = e * r + 4.1665795894e-2f;
  e = e * r + 1.6666665459e-1f;
  e = e * r + 5.0000001201e-1f;
  e = e * r * r + r + 1;
  const Lanes exponent = ((Lanes)shifted - (Lanes)splat(kRound)) << 23;
  const Vector power = (Vector)((Lanes)e + exponent);
  const Vector large = 1 - 2 / (power + 1);

  return size < 0.625f ? small : x < 0 ? -large : large;
}

}  // namespace fastvoc::FASTVOC_ISA
