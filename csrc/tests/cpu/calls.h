// What random calls of operators share: sizes, arrays that hold no numbers before they are used, and comparisons.
#pragma once

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "../draw.h"

namespace fastvoc_tests {

// Mostly small, sometimes tiny, sometimes more than a chunk of rows or a panel of channels.
inline int64_t size(int64_t small, int64_t large) {
  const int64_t kind = draw(0, 3);
  return draw(1, kind == 0 ? 2 : kind == 1 ? large : small);
}

struct Signal {
  int64_t batch, channels, frames;
  bool last = toss();
  std::vector<float> data = std::vector<float>(batch * channels * frames, NAN);
  int64_t strides[3] = {channels * frames, last ? 1 : frames, last ? channels : 1};

  int64_t place(int64_t b, int64_t c, int64_t t) const { return b * strides[0] + c * strides[1] + t * strides[2]; }
  float& at(int64_t b, int64_t c, int64_t t) { return data[place(b, c, t)]; }
};

inline void fill(std::vector<float>& values) {
  std::normal_distribution<float> normal;
  for (float& value : values) value = normal(generator());
}

inline std::vector<float> unwritten(int64_t count) { return std::vector<float>(count, NAN); }

inline std::vector<float> filled(int64_t count) {
  std::vector<float> values(count);
  fill(values);
  return values;
}

// Memory of so many bytes, aligned to 64, that holds no numbers.
struct Memory {
  void* data;
  explicit Memory(int64_t bytes) : data(std::aligned_alloc(64, (bytes + 63) / 64 * 64)) {
    std::memset(data, 0xff, bytes);
  }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  ~Memory() { std::free(data); }
};

inline bool same(const std::vector<float>& a, const std::vector<float>& b) {
  return a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

inline double activate(double value, float slope) { return value > 0 ? value : value * slope; }
inline double passed_on(float x, float slope) { return x > 0 ? 1 : slope; }

// Sums of some thousand products of normal numbers in float32 stay well within this.
inline bool close(double exact, float got) { return std::fabs(exact - got) < 2e-4; }

// Gradients in double, and those of the library, each of them now and then not asked for.
struct Gradients {
  Signal x;
  std::vector<double> exact_x, exact_weight, exact_bias;
  std::vector<float> weight, bias;
  bool wanted[3] = {toss(), toss(), toss()};

  Gradients(const Signal& of_x, int64_t weights, int64_t biases)
      : x(of_x),
        exact_x(x.data.size()),
        exact_weight(weights),
        exact_bias(biases),
        weight(unwritten(weights)),
        bias(unwritten(biases)) {}

  Gradients(int64_t batch, int64_t channels, int64_t frames, int64_t weights, int64_t biases)
      : Gradients(Signal{batch, channels, frames}, weights, biases) {}

  double& exact_x_at(int64_t b, int64_t c, int64_t t) { return exact_x[x.place(b, c, t)]; }

  float* wanted_x() { return wanted[0] ? x.data.data() : nullptr; }
  float* wanted_weight() { return wanted[1] ? weight.data() : nullptr; }
  float* wanted_bias() { return wanted[2] ? bias.data() : nullptr; }

  bool right() const {
    const auto same = [](const std::vector<double>& exact, const std::vector<float>& got) {
      for (size_t i = 0; i < exact.size(); ++i)
        if (!close(exact[i], got[i])) return false;
      return true;
    };
    return (!wanted[0] || same(exact_x, x.data)) && (!wanted[1] || same(exact_weight, weight)) &&
           (!wanted[2] || same(exact_bias, bias));
  }
};

}  // namespace fastvoc_tests
