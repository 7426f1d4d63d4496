// The gate of a layer of WaveNet, at the end of a convolution: tanh(a + c) * sigmoid(b + d), of sums a and b and of two
// rows of what the layer is conditioned on.
//
// Columns are so permuted that a thread ends up with four neighbouring gates, a's sums in front of b's, of every 32.
#pragma once

#include "instructions.cuh"

namespace fastvoc::cuda {

// tanh(a) / (1 + e^-b), by one division. Of a small a it is a polynomial, since 1 - e^-2a would cancel.
FASTVOC_DEVICE float gate(float a, float b) {
  constexpr float kLog2E = 1.44269504f;
  const float square = a * a;
  float size = fused(square, -0.00561560340f, 0.0205528200f);
  size = fused(square, size, -0.0537098377f);
  size = fused(square, size, 0.133309969f);
  size = fused(square, size, -0.333332555f);
  const bool small = square < 0.4f;
  const float decay = power_of_two(-2 * kLog2E * (a < 0 ? -a : a));
  const float above = small ? fused(a * square, size, a) : a < 0 ? decay - 1 : 1 - decay;
  return quotient(above, (small ? 1 : 1 + decay) * (1 + power_of_two(-kLog2E * b)));
}

// Four neighbouring elements.
template <int precision>
FASTVOC_DEVICE void load_four(float (&value)[4], const char* from) {
  if constexpr (precision == kTfloat32) {
    const Vector16 four = load_global(reinterpret_cast<const Vector16*>(from));
#pragma unroll
    for (int i = 0; i < 4; ++i) value[i] = as_float(four.word[i]);
  } else {
    const unsigned long long four = load_global(reinterpret_cast<const unsigned long long*>(from));
    unpack_pair<precision>(static_cast<unsigned>(four), value[0], value[1]);
    unpack_pair<precision>(static_cast<unsigned>(four >> 32), value[2], value[3]);
  }
}

template <int precision>
FASTVOC_DEVICE void store_four(char* to, const float (&value)[4]) {
  if constexpr (precision == kTfloat32) {
    *reinterpret_cast<Vector16*>(to) = Vector16{{as_bits(round_tf32(value[0])), as_bits(round_tf32(value[1])),
                                                 as_bits(round_tf32(value[2])), as_bits(round_tf32(value[3]))}};
  } else {
    const unsigned low = pack_pair<precision>(value[0], value[1]), high = pack_pair<precision>(value[2], value[3]);
    *reinterpret_cast<unsigned long long*>(to) = static_cast<unsigned long long>(high) << 32 | low;
  }
}

// Where four gates of a row are.
template <int precision>
FASTVOC_DEVICE char* gates_of(const Signal& signal, int item, int row, int gate) {
  return static_cast<char*>(signal.data) +
         (item * signal.item + static_cast<long long>(row) * signal.row + gate) * element_bytes(precision);
}

// A group of 32 columns, as write_tiles gets it.
template <int precision, int tiles>
FASTVOC_DEVICE void gate_tiles(const Convolution& operation, int item, int rows, int row, int column,
                               float (&sum)[tiles][4][4]) {
  row += thread() % 32 / 4;
  const int first = column / 2 + thread() % 4 * 4;
  if (first >= operation.channels) return;
  const auto inside = [&](int run) { return row + 8 * run < rows; };

#pragma unroll 1
  for (int i = 0; i < operation.residuals; ++i) {
    const Signal& condition = operation.residual[i].x;
#pragma unroll
    for (int run = 0; run < 2 * tiles; ++run) {
      // What is outside of the result reads something inside of it.
      const char* const from = gates_of<precision>(condition, item, inside(run) ? row + 8 * run : 0, first);
      float a[4], b[4];
      load_four<precision>(a, from);
      load_four<precision>(b, from + operation.sigmoid * element_bytes(precision));
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        sum[run / 2][j / 2][run % 2 * 2 + j % 2] += a[j];
        sum[run / 2][2 + j / 2][run % 2 * 2 + j % 2] += b[j];
      }
    }
  }
#pragma unroll
  for (int run = 0; run < 2 * tiles; ++run) {
    float value[4];
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int place = run % 2 * 2 + j % 2;
      value[j] = gate(sum[run / 2][j / 2][place], sum[run / 2][2 + j / 2][place]);
    }
    if (inside(run)) store_four<precision>(gates_of<precision>(operation.y, item, row + 8 * run, first), value);
  }
}

// What a block will read of the condition comes near.
template <int precision, int rows, int columns, int threads>
FASTVOC_DEVICE void prefetch_condition(const Convolution& operation, int item, int result_rows, int first_row,
                                       int first_column) {
  constexpr int bytes = columns / 2 * element_bytes(precision), lines = bytes < 128 ? 1 : bytes / 128;
#pragma unroll 1
  for (int r = 0; r < operation.residuals; ++r) {
#pragma unroll 1
    for (int i = thread(); i < 2 * rows * lines; i += threads) {
      const int at = first_row + i / (2 * lines);
      if (at >= result_rows) break;
      const char* const from = gates_of<precision>(operation.residual[r].x, item, at, first_column / 2);
      prefetch_to_cache(from + i % 2 * (operation.sigmoid * element_bytes(precision)) + i / 2 % lines * 128);
    }
  }
}

}  // namespace fastvoc::cuda
