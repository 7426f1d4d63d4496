// Random Toom-Cook convolutions against plain loops, in memory of exactly the promised size and full of NaN elsewhere.
//
// Compiled once per instruction set, because what it calls is not part of the surface. Exits with 0 if every result is
// right and no bit of it depends on the rows of the call or on the place of a block among them.

#include "../../cpu/kernels/toom_cook.h"

#include <cmath>
#include <cstdio>
#include <cstring>
#include <random>
#include <vector>

namespace {

using namespace fastvoc::FASTVOC_ISA;

std::mt19937 generator(1);
std::normal_distribution<float> normal;

int64_t draw(int64_t low, int64_t high) { return std::uniform_int_distribution<int64_t>(low, high)(generator); }

std::vector<float> unwritten(int64_t count) { return std::vector<float>(count, NAN); }

std::vector<float> filled(int64_t count) {
  std::vector<float> values(count);
  for (float& value : values) value = normal(generator);
  return values;
}

// Rows [0, count) of a call whose input begins at `rows`.
struct Convolution {
  fastvoc_call call{};
  int64_t row;
  std::vector<float> weight, bias, packed;

  int64_t needed(int64_t count) const {
    return (toom_cook_rows_read(call, count) - 1) * row + larger(call.in_channels, kLanes);
  }

  std::vector<float> operator()(const std::vector<float>& rows, int64_t count, bool apart = false) const {
    const int64_t channels = call.out_channels;
    std::vector<float> y = unwritten(count * channels);
    std::vector<float> work = unwritten(toom_cook_workspace_floats(call, count, apart));
    toom_cook(call, rows.data(), row, count, packed.data(), bias.empty() ? nullptr : bias.data(), work.data(),
              [](int64_t, auto run) { run(); },
              [&](const Panel& panel, const float* sums, int64_t first, int64_t height) {
                for (int64_t r = 0; r < height; ++r)
                  for (int64_t c = 0; c < smaller(panel.width, channels - panel.first); ++c)
                    y.at((first + r) * channels + panel.first + c) = sums[r * panel.width + c];
              }, apart);
    return y;
  }
};

// The error is four times that of the direct sum, which is a third of 1e-6 of the signal at most; the largest of all
// outputs is six times the root mean square.
bool is_right(const Convolution& convolve, const std::vector<float>& rows, const std::vector<float>& y, int64_t count) {
  const fastvoc_call& call = convolve.call;
  const double tolerance = 6 * 4 * 0.4e-6 * std::sqrt(double(call.in_channels * call.taps + 1));
  for (int64_t t = 0; t < count; ++t)
    for (int64_t o = 0; o < call.out_channels; ++o) {
      double sum = convolve.bias.empty() ? 0 : convolve.bias[o];
      for (int64_t k = 0; k < call.taps; ++k)
        for (int64_t c = 0; c < call.in_channels; ++c)
          sum += double(rows[(t + k * call.dilation) * convolve.row + c]) *
                 convolve.weight[(o * call.in_channels + c) * call.taps + k];
      if (!(std::fabs(sum - y[t * call.out_channels + o]) < tolerance)) return false;
    }
  return true;
}

// Whole blocks, somewhere among others, have the same bits as alone.
bool is_alone(const Convolution& convolve, const std::vector<float>& rows, const std::vector<float>& y, int64_t count) {
  const fastvoc_call& call = convolve.call;
  const int64_t block = toom_cook_block(call), blocks = count / block;
  if (blocks == 0) return true;
  const int64_t first = draw(0, blocks - 1) * block, height = draw(1, blocks - first / block) * block;
  std::vector<float> part = unwritten(convolve.needed(height));
  for (int64_t r = 0; r < height + span_of(call); ++r)
    for (int64_t c = 0; c < call.in_channels; ++c) part[r * convolve.row + c] = rows[(first + r) * convolve.row + c];
  const std::vector<float> alone = convolve(part, height);
  return std::memcmp(alone.data(), y.data() + first * call.out_channels, alone.size() * sizeof(float)) == 0;
}

bool call_is_right(int64_t taps) {
  Convolution convolve;
  fastvoc_call& call = convolve.call;
  call.threads = int(draw(1, 2));
  call.in_channels = draw(1, 70);
  call.out_channels = draw(1, 70);
  call.taps = taps;
  call.dilation = draw(0, 3) ? draw(1, 6) : draw(1, 30);
  if (taps == 3 && draw(0, 1)) call.dilation = draw(100, 300);
  convolve.row = draw(0, 1) ? round_up(call.in_channels, kLanes) : call.in_channels + draw(0, 5);
  convolve.weight = filled(call.out_channels * call.in_channels * taps);
  if (draw(0, 1)) convolve.bias = filled(call.out_channels);
  convolve.packed = unwritten(toom_cook_packed_floats(call));
  toom_cook_pack(call, conv_weights(call, convolve.weight.data()), convolve.packed.data());

  const int64_t count = draw(0, 1) ? draw(1, 4) * toom_cook_block(call) : draw(1, 400);
  std::vector<float> rows = unwritten(convolve.needed(count));
  for (int64_t r = 0; r < count + span_of(call); ++r)
    for (int64_t c = 0; c < call.in_channels; ++c) rows[r * convolve.row + c] = normal(generator);
  const std::vector<float> y = convolve(rows, count);
  const std::vector<float> apart = convolve(rows, count, true);
  return is_right(convolve, rows, y, count) && is_alone(convolve, rows, y, count) &&
         std::memcmp(apart.data(), y.data(), y.size() * sizeof(float)) == 0;
}

}  // namespace

int main() {
  for (int call = 0; call < 300; ++call) {
    const int64_t taps = 2 + call % 24;
    if (!call_is_right(taps)) return std::printf("toom_cook: call %d, with %d taps, is wrong\n", call, int(taps)), 1;
  }
}
