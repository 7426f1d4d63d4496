// Fourier transforms of as many signals at once as a vector has lanes: every step of a butterfly is one of vectors, and
// a signal's result depends on no other lane.
//
// Decimation in frequency, in place: a pass of radix r makes of a block of `length` numbers r blocks of `length / r`, of
// which block s holds every r-th frequency from s on. So frequencies end in the order of reversed digits, `position`;
// the inverse takes them in that order, runs the passes backwards, and leaves time in order. An inverse transform is a
// transform with real and imaginary parts exchanged before and behind it.
#pragma once

#include <cmath>

#include "simd.h"

namespace fastvoc::FASTVOC_ISA {

struct Complex {
  Vector re, im;
};

static inline Complex operator+(Complex a, Complex b) { return {a.re + b.re, a.im + b.im}; }
static inline Complex operator-(Complex a, Complex b) { return {a.re - b.re, a.im - b.im}; }
static inline Complex operator*(Complex a, float b) { return {a.re * b, a.im * b}; }

static inline Complex times(Complex a, const float* w) {
  return {a.re * w[0] - a.im * w[1], a.im * w[0] + a.re * w[1]};
}

// Times -i.
static inline Complex turned(Complex a) { return {a.im, -a.re}; }

// Where number i of a block is: its real parts, then its imaginary ones.
static inline float* complex_at(float* z, int64_t i) { return z + i * 2 * kLanes; }

template <bool Exchanged>
static inline Complex load_complex(const float* from) {
  const Vector first = load(from), second = load(from + kLanes);
  return Exchanged ? Complex{second, first} : Complex{first, second};
}

template <bool Exchanged>
static inline void store_complex(float* to, Complex a) {
  store(to, Exchanged ? a.im : a.re);
  store(to + kLanes, Exchanged ? a.re : a.im);
}

// a[k] = sum_m a[m] e^(-2 pi i k m / Radix)
template <int Radix>
static inline void butterfly(Complex (&a)[Radix]) {
  if constexpr (Radix == 2) {
    const Complex b = a[0] - a[1];
    a[0] = a[0] + a[1];
    a[1] = b;
  } else if constexpr (Radix == 3) {
    const Complex sum = a[1] + a[2], middle = a[0] - sum * 0.5f, side = turned(a[1] - a[2]) * 0.866025403784438647f;
    a[0] = a[0] + sum;
    a[1] = middle + side;
    a[2] = middle - side;
  } else if constexpr (Radix == 4) {
    const Complex even = a[0] + a[2], odd = a[0] - a[2], other = a[1] + a[3], side = turned(a[1] - a[3]);
    a[0] = even + other;
    a[1] = odd + side;
    a[2] = even - other;
    a[3] = odd - side;
  } else if constexpr (Radix == 5) {
    constexpr float kCos1 = 0.309016994374947424f, kCos2 = -0.809016994374947424f;
    constexpr float kSin1 = 0.951056516295153572f, kSin2 = 0.587785252292473129f;
    const Complex outer = a[1] + a[4], inner = a[2] + a[3], outer_side = a[1] - a[4], inner_side = a[2] - a[3];
    const Complex middle1 = a[0] + outer * kCos1 + inner * kCos2, middle2 = a[0] + outer * kCos2 + inner * kCos1;
    const Complex side1 = turned(outer_side * kSin1 + inner_side * kSin2);
    const Complex side2 = turned(outer_side * kSin2 - inner_side * kSin1);
    a[0] = a[0] + outer + inner;
    a[1] = middle1 + side1;
    a[2] = middle2 + side2;
    a[3] = middle2 - side2;
    a[4] = middle1 - side1;
  } else {
    static_assert(Radix == 8);
    constexpr float kHalf = 0.707106781186547524f;
    Complex even[4] = {a[0], a[2], a[4], a[6]}, odd[4] = {a[1], a[3], a[5], a[7]};
    butterfly(even);
    butterfly(odd);
    odd[1] = Complex{odd[1].re + odd[1].im, odd[1].im - odd[1].re} * kHalf;
    odd[2] = turned(odd[2]);
    odd[3] = Complex{odd[3].im - odd[3].re, -odd[3].re - odd[3].im} * kHalf;
#pragma GCC unroll 4
    for (int k = 0; k < 4; ++k) {
      a[k] = even[k] + odd[k];
      a[k + 4] = even[k] - odd[k];
    }
  }
}

class Fft {
 public:
  static constexpr int kMostPasses = 24;

  // A length that `takes` takes.
  explicit Fft(int64_t length) : length_(length) {
    for (const int radix : {8, 4, 2, 3, 5})
      while (length % radix == 0) {
        radices_[passes_++] = radix;
        length /= radix;
      }
  }

  static bool takes(int64_t length) {
    for (const int radix : {2, 3, 5})
      while (length > 0 && length % radix == 0) length /= radix;
    return length == 1;
  }

  // Floats of the table.
  int64_t table_size() const {
    int64_t count = 0, block = length_;
    for (int pass = 0; pass < passes_; block /= radices_[pass++]) count += 2 * (block - block / radices_[pass]);
    return count;
  }

  // Fill the table that transforms read, e^(-2 pi i j s / block) of each pass.
  void fill(float* table) const {
    int64_t block = length_;
    for (int pass = 0; pass < passes_; ++pass) {
      const int64_t part = block / radices_[pass];
      for (int64_t j = 0; j < part; ++j)
        for (int64_t s = 1; s < radices_[pass]; ++s) {
          const double angle = -2 * M_PI * double(j * s) / double(block);
          *table++ = float(std::cos(angle));
          *table++ = float(std::sin(angle));
        }
      block = part;
    }
  }

  // Where a frequency is.
  int64_t position(int64_t frequency) const {
    int64_t at = 0, block = length_;
    for (int pass = 0; pass < passes_; ++pass) {
      block /= radices_[pass];
      at += frequency % radices_[pass] * block;
      frequency /= radices_[pass];
    }
    return at;
  }

  // Transform numbers that `read(i)` returns into z.
  template <class Read>
  void forward(const float* table, float* z, Read read) const {
    if (!passes_) return store_complex<false>(z, read(0));
    const int64_t part = length_ / radices_[0];
    with_radix(radices_[0], [&](auto radix) {
      constexpr int kRadix = decltype(radix)::value;
      for (int64_t j = 0; j < part; ++j) {
        Complex a[kRadix];
#pragma GCC unroll 8
        for (int m = 0; m < kRadix; ++m) a[m] = read(j + m * part);
        butterfly(a);
        store_turned<kRadix>(a, table + j * 2 * (kRadix - 1), z, j, part);
      }
    });
    for (int s = 0; s < radices_[0]; ++s)
      forward_block(table + part * 2 * (radices_[0] - 1), complex_at(z, s * part), 1, part);
  }

  // Transform z back, times its length, and hand each number to `write(i, number)`.
  template <class Write>
  void inverse(const float* table, float* z, Write write) const {
    if (!passes_) return write(0, load_complex<false>(z));
    const int64_t part = length_ / radices_[0];
    for (int s = 0; s < radices_[0]; ++s)
      inverse_block(table + part * 2 * (radices_[0] - 1), complex_at(z, s * part), 1, part);
    with_radix(radices_[0], [&](auto radix) {
      constexpr int kRadix = decltype(radix)::value;
      for (int64_t j = 0; j < part; ++j) {
        Complex a[kRadix];
        load_turned<kRadix>(a, table + j * 2 * (kRadix - 1), z, j, part);
        butterfly(a);
#pragma GCC unroll 8
        for (int m = 0; m < kRadix; ++m) write(j + m * part, Complex{a[m].im, a[m].re});
      }
    });
  }

 private:
  int64_t length_;
  int passes_ = 0;
  int radices_[kMostPasses];

  template <int Radix>
  struct Number {
    static constexpr int value = Radix;
  };

  template <class Function>
  static void with_radix(int radix, Function function) {
    switch (radix) {
      case 2: return function(Number<2>{});
      case 3: return function(Number<3>{});
      case 4: return function(Number<4>{});
      case 5: return function(Number<5>{});
      default: return function(Number<8>{});
    }
  }

  template <int Radix>
  static void store_turned(const Complex (&a)[Radix], const float* w, float* z, int64_t j, int64_t part) {
    store_complex<false>(complex_at(z, j), a[0]);
#pragma GCC unroll 8
    for (int s = 1; s < Radix; ++s) store_complex<false>(complex_at(z, j + s * part), times(a[s], w + 2 * (s - 1)));
  }

  template <int Radix>
  static void load_turned(Complex (&a)[Radix], const float* w, float* z, int64_t j, int64_t part) {
    a[0] = load_complex<true>(complex_at(z, j));
#pragma GCC unroll 8
    for (int s = 1; s < Radix; ++s)
      a[s] = times(load_complex<true>(complex_at(z, j + s * part)), w + 2 * (s - 1));
  }

  // The last pass, which turns nothing, of so many blocks.
  template <bool Inverse>
  void last_pass(float* z, int64_t count) const {
    with_radix(radices_[passes_ - 1], [&](auto radix) {
      constexpr int kRadix = decltype(radix)::value;
      for (int64_t b = 0; b < count; ++b, z += 2 * kLanes * kRadix) {
        Complex a[kRadix];
#pragma GCC unroll 8
        for (int m = 0; m < kRadix; ++m) a[m] = load_complex<Inverse>(complex_at(z, m));
        butterfly(a);
#pragma GCC unroll 8
        for (int m = 0; m < kRadix; ++m) store_complex<Inverse>(complex_at(z, m), a[m]);
      }
    });
  }

  void forward_block(const float* table, float* z, int pass, int64_t block) const {
    if (pass >= passes_) return;
    if (pass == passes_ - 1) return last_pass<false>(z, 1);
    const int own = radices_[pass];
    const int64_t part = block / own;
    with_radix(own, [&](auto radix) {
      constexpr int kRadix = decltype(radix)::value;
      for (int64_t j = 0; j < part; ++j) {
        Complex a[kRadix];
#pragma GCC unroll 8
        for (int m = 0; m < kRadix; ++m) a[m] = load_complex<false>(complex_at(z, j + m * part));
        butterfly(a);
        store_turned<kRadix>(a, table + j * 2 * (kRadix - 1), z, j, part);
      }
    });
    if (pass + 1 == passes_ - 1) return last_pass<false>(z, own);
    for (int s = 0; s < own; ++s)
      forward_block(table + part * 2 * (own - 1), complex_at(z, s * part), pass + 1, part);
  }

  void inverse_block(const float* table, float* z, int pass, int64_t block) const {
    if (pass >= passes_) return;
    if (pass == passes_ - 1) return last_pass<true>(z, 1);
    const int own = radices_[pass];
    const int64_t part = block / own;
    if (pass + 1 == passes_ - 1) {
      last_pass<true>(z, own);
    } else {
      for (int s = 0; s < own; ++s)
        inverse_block(table + part * 2 * (own - 1), complex_at(z, s * part), pass + 1, part);
    }
    with_radix(own, [&](auto radix) {
      constexpr int kRadix = decltype(radix)::value;
      for (int64_t j = 0; j < part; ++j) {
        Complex a[kRadix];
        load_turned<kRadix>(a, table + j * 2 * (kRadix - 1), z, j, part);
        butterfly(a);
#pragma GCC unroll 8
        for (int m = 0; m < kRadix; ++m) store_complex<true>(complex_at(z, j + m * part), a[m]);
      }
    });
  }
};

}  // namespace fastvoc::FASTVOC_ISA
