// Random numbers of the programs here, the same in every run.
#pragma once

#include <cstdint>
#include <random>

namespace fastvoc_tests {

inline std::mt19937& generator() {
  static std::mt19937 state(1);
  return state;
}

inline int64_t draw(int64_t low, int64_t high) {
  return std::uniform_int_distribution<int64_t>(low, high)(generator());
}
inline bool toss() { return draw(0, 1) == 1; }

}  // namespace fastvoc_tests
