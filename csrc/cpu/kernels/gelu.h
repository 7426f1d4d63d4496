// The exact GELU of a vector, x times the normal distribution up to x, to 2e-7 of one.
#pragma once

#include "simd.h"

namespace fastvoc::FASTVOC_ISA {

// max(x, 0) - a P(a) with a = |x| and P(a) the distribution beyond a: log2 P is nearly a parabola, here a polynomial
// whose errors were weighted by what they make of the result (Remez-like least squares, 4e-8). No cancellation: where x
// is negative, what is left is the second term alone. Beyond 9 it is 1e-18. NaN fails every comparison and passes
// through.
static inline Vector gelu(Vector x) {
  Vector a = x < 0 ? -x : x;
  a = a > 9.0f ? splat(9.0f) : a;
  Vector q = a * 2.5761821120795503e-7f - 5.717304247809807e-6f;
  q = q * a + 5.109415724291466e-5f;
  q = q * a - 2.0473809854593128e-4f;
  q = q * a - 1.400091132381931e-4f;
  q = q * a + 7.1109686978161335e-3f;
  q = q * a - 5.2556417882442474e-2f;
  q = q * a - 4.59176629781723e-1f;
  q = q * a - 1.1511120796203613f;
  q = q * a - 9.999995827674866e-1f;
  constexpr float kRound = 12582912.0f;  // adding 1.5 * 2^23 rounds to an integer
  const Vector shifted = q + kRound;
  const Vector r = q - (shifted - kRound);
  Vector e = r * 1.53459157445468e-4f + 1.3399932067841291e-3f;  // 2^r, |r| <= 1/2, to 2e-9
  e = e * r + 9.618488140404224e-3f;
  e = e * r + 5.550328642129898e-2f;
  e = e * r + 2.4022646248340607e-1f;
  e = e * r + 6.931471824645996e-1f;
  e = e * r + 1;
  const Lanes exponent = ((Lanes)shifted - (Lanes)splat(kRound)) << 23;
  const Vector beyond = (Vector)((Lanes)e + exponent);
  return (x > 0 ? x : Vector{}) - a * beyond;
}

}  // namespace fastvoc::FASTVOC_ISA
