// tanh of the first half times the sigmoid of the second, to some units in the last place.
#pragma once

#include "simd.h"

namespace fastvoc::FASTVOC_ISA {

// e^y = 2^n (1 + p) for |y| <= 87, with the series of e^r, |r| <= ln(2) / 2, of Cephes (S. Moshier).
struct Power {
  Vector scale, rest;  // 2^n, p

  explicit Power(Vector y) {
    constexpr float kRound = 12582912.0f;  // adding 1.5 * 2^23 rounds to an integer
    const Vector shifted = y * 1.44269504089f + kRound;
    const Vector n = shifted - kRound;
    const Vector r = y - n * 0.693359375f - n * -2.12194440e-4f;  // ln 2 in two parts
    Vector e = r * 1.9875691500e-4f + 1.3981999507e-3f;
    e = e * r + 8.3334519073e-3f;
    e = e * r + 4.1665795894e-2f;
    e = e * r + 1.6666665459e-1f;
    e = e * r + 5.0000001201e-1f;
    rest = e * (r * r) + r;
    scale = (Vector)(((Lanes)shifted << 23) + (Lanes)splat(1.0f));  // the other bits of kRound are shifted out
  }
};

// With e = e^(-2a) - 1, which is exact to the last bits where a is small, tanh(a) = -e / (2 + e): one division for both.
// Beyond |a| = 10 tanh is 1, and beyond |b| = 87 the sigmoid is 0 or 1; NaN passes through.
static inline Vector gate_by_exponentials(Vector a, Vector b) {
  Vector y = -2 * a;
  y = y > 20.0f ? splat(20.0f) : y;
  y = y < -20.0f ? splat(-20.0f) : y;
  b = b > 87.0f ? splat(87.0f) : b;
  b = b < -87.0f ? splat(-87.0f) : b;
  const Power of_tanh(y), of_sigmoid(-b);
  const Vector e = of_tanh.scale * of_tanh.rest + (of_tanh.scale - 1);
  const Vector below = of_sigmoid.scale * of_sigmoid.rest + (of_sigmoid.scale + 1);
  return -e / ((2 + e) * below);
}

}  // namespace fastvoc::FASTVOC_ISA
