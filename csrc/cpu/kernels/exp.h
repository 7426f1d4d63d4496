// The exponential of a vector, to two units in the last place.
#pragma once

#include "simd.h"

namespace fastvoc::FASTVOC_ISA {

// e^y = 2^n (1 + rest) of |y| <= 87, where 1 + rest is the series of e^r, |r| <= ln(2) / 2, with the coefficients of Cephes
// (S. Moshier).
struct Power {
  Lanes exponent;  // n, where floats have theirs
  Vector rest;

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
    rest = e * r * r + r;
    exponent = ((Lanes)shifted - (Lanes)splat(kRound)) << 23;
  }

  Vector scaled(Vector v) const { return (Vector)((Lanes)v + exponent); }
};

static inline Vector exp_within_87(Vector y) {
  const Power power(y);
  return power.scaled(power.rest + 1);
}

// Beyond ±87 it stays where it is, between 1e-38 and 6e37; NaN passes through.
static inline Vector exp(Vector x) {
  Vector y = x > 87.0f ? splat(87.0f) : x;
  y = y < -87.0f ? splat(-87.0f) : y;
  const Vector power = exp_within_87(y);
  return x == x ? power : x;
}

}  // namespace fastvoc::FASTVOC_ISA
