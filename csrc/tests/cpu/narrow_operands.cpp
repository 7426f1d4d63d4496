// Random convolutions with bfloat16 and 8-bit operands against plain loops over the same operands in double precision,
// in memory of exactly the promised size. Vector instructions, and tiles with the meaning that amx_on_any_cpu.h gives.
//
// Compiled with the flags of avx512-bf16. An argument is how many to draw. Exits with 0
// if every result is right, or if this processor has not the instructions.

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

#include "../emulator/amx_on_any_cpu.h"

#include "../../cpu/kernels/direct_amx.h"
#include "../../cpu/kernels/direct_bf16.h"
#include "../../cpu/kernels/direct_int8.h"
#include "../../cpu/kernels/phases.h"

namespace {

using namespace fastvoc::FASTVOC_ISA;

// Made when it is first asked for: before main nothing may run that the processor might not have.
std::mt19937& generator() {
  static std::mt19937 state(1);
  return state;
}

int64_t draw(int64_t low, int64_t high) { return std::uniform_int_distribution<int64_t>(low, high)(generator()); }
bool toss() { return draw(0, 1) == 1; }

void fill(std::vector<float>& values) {
  std::normal_distribution<float> normal;
  for (float& value : values) value = normal(generator());
}

float from_bf16(uint16_t narrow) {
  const uint32_t bits = uint32_t{narrow} << 16;
  float value;
  __builtin_memcpy(&value, &bits, sizeof value);
  return value;
}

// To nearest, ties to even, as the definition of the format has it. Subnormal numbers are not drawn.
uint16_t to_bf16(float value) {
  uint32_t bits;
  __builtin_memcpy(&bits, &value, sizeof bits);
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

// A weight of conv1d, or one phase of upsample's.
struct Weight {
  fastvoc_call call{};
  int64_t taps, stride = 1, phase = 0;
  std::vector<float> values;

  Weight() {
    const auto channels = [] { return draw(0, 3) ? draw(1, 40) : int64_t{8} << draw(0, 4); };
    call.threads = 1;
    call.in_channels = channels();
    call.out_channels = toss() ? call.in_channels : channels();
    if (draw(0, 5) == 0) call.in_channels = draw(7, 16), call.out_channels = draw(5, 8);
    taps = call.taps = draw(1, 11);
    call.dilation = draw(1, 5);
    if (toss()) {
      stride = draw(2, 8);
      phase = draw(0, stride - 1);
      call.taps = (taps + stride - 1) / stride;
      call.dilation = 1;
    }
    values.resize(call.in_channels * call.out_channels * taps);
    fill(values);
  }

  // Pack it, as `pack(weight)` does, which gives it one by one.
  template <class Pack>
  void pack(Pack pack) const {
    if (stride == 1) return pack(conv_weights(call, values.data()));
    pack(phase_weights(call, values.data(), taps, stride, phase));
  }

  float at(int64_t out, int64_t in, int64_t tap) const {
    if (stride == 1) return values[(out * call.in_channels + in) * taps + tap];
    const int64_t from = phase + (call.taps - 1 - tap) * stride;
    return from < taps ? values[(in * call.out_channels + out) * taps + from] : 0;
  }
};

template <class Kernels>
struct Bf16 {
  using Element = uint16_t;
  static constexpr int64_t kBlock = Kernels::kReadRows;
  std::vector<uint16_t> packed;

  static int64_t row_length(const fastvoc_call& call) { return Kernels::row_length(call); }
  static void quantise_row(const float* from, int64_t count, uint16_t* to) {
    int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes) store_bf16(to + i, load(from + i));
    for (; i < count; ++i) to[i] = to_bf16(from[i]);
  }
  static double value(uint16_t element) { return from_bf16(element); }

  explicit Bf16(const Weight& w) : packed(Kernels::packed_elements(w.call), 0x7fc0) {
    w.pack([&](auto weight) { Kernels::pack(w.call, bf16_weights(weight), packed.data()); });
  }
  double weight(const Weight& w, int64_t out, int64_t in, int64_t tap) const {
    return from_bf16(to_bf16(w.at(out, in, tap)));
  }
  template <class ToMemory>
  void convolve(const fastvoc_call& call, const uint16_t* rows, int64_t row, int64_t height, const float* bias,
                float* sums, ToMemory to_memory) const {
    Kernels::for_each_panel(call, [&](const Panel& panel) {
      alignas(64) float lanes[2 * kLanes];
      load_bias(panel, call, bias, lanes);
      const auto take = [&](const float* from, int64_t chunk, int64_t count) { to_memory(panel, from, chunk, count); };
      Kernels::convolve_panel(panel, call, rows, row, height, packed.data(), lanes, sums, take);
    });
  }
};

struct Int8 {
  using Element = uint8_t;
  static constexpr int64_t kBlock = kRows;
  static constexpr Int8Scale kScale = {0.03f, 100};  // -3 to 4.65, so that some are clamped
  std::vector<int8_t> packed;
  std::vector<float> scales;
  std::vector<int32_t> totals;

  static int64_t row_length(const fastvoc_call& call) { return int8_row_length(call); }
  static void quantise_row(const float* from, int64_t count, uint8_t* to) { quantise(from, count, kScale, to); }
  static double value(uint8_t element) { return double{kScale.scale} * (element - kScale.zero_point); }

  explicit Int8(const Weight& w)
      : packed(int8_packed_elements(w.call), 77), scales(w.call.out_channels), totals(w.call.out_channels) {
    w.pack([&](auto weight) { int8_pack(w.call, weight, packed.data(), scales.data(), totals.data()); });
  }
  double weight(const Weight& w, int64_t out, int64_t in, int64_t tap) const {
    return double{scales[out]} * std::nearbyint(w.at(out, in, tap) / scales[out]);
  }
  template <class ToMemory>
  void convolve(const fastvoc_call& call, const uint8_t* rows, int64_t row, int64_t height, const float* bias,
                float* sums, ToMemory to_memory) const {
    int8_for_each_panel(call, [&](const Panel& panel) {
      const Dequantise lanes = dequantise(panel, call, kScale, scales.data(), totals.data(), bias);
      const auto take = [&](const float* from, int64_t chunk, int64_t count) { to_memory(panel, from, chunk, count); };
      int8_convolve_panel(panel, call, rows, row, height, packed.data(), lanes, sums, take);
    });
  }
};

template <class Operands>
std::vector<float> convolve(const Operands& operands, const fastvoc_call& call,
                            const typename Operands::Element* rows, int64_t row, int64_t height, const float* bias) {
  std::vector<float> y(height * call.out_channels, NAN), sums(kChunk * 2 * kLanes + kLanes * kLanes, NAN);
  operands.convolve(call, rows, row, height, bias, sums.data(),
                    [&](const Panel& panel, const float* from, int64_t chunk, int64_t count) {
                      for (int64_t r = 0; r < count; ++r)
                        for (int64_t c = 0; c < smaller(panel.width, call.out_channels - panel.first); ++c)
                          y[(chunk + r) * call.out_channels + panel.first + c] = from[r * panel.width + c];
                    });
  return y;
}

template <class Operands>
bool is_right() {
  const Weight w;
  const fastvoc_call& call = w.call;
  const Operands operands(w);
  const int64_t channels = call.in_channels, span = call.dilation * (call.taps - 1);
  const int64_t height = draw(1, toss() ? 20 : 130);
  const int64_t length = Operands::row_length(call), row = length + (toss() ? 0 : 2 * draw(0, 5));
  const auto readable = [&](int64_t rows) { return (round_up(rows, Operands::kBlock) + span - 1) * row + length; };
  std::vector<float> values(channels), bias(call.out_channels);
  fill(bias);
  std::vector<typename Operands::Element> rows(readable(height));
  for (int64_t r = 0; r < height + span; ++r) {
    fill(values);
    Operands::quantise_row(values.data(), channels, rows.data() + r * row);
  }
  const std::vector<float> y = convolve(operands, call, rows.data(), row, height, bias.data());

  for (int64_t t = 0; t < height; ++t)
    for (int64_t o = 0; o < call.out_channels; ++o) {
      double sum = bias[o], size = std::fabs(sum);
      for (int64_t k = 0; k < call.taps; ++k)
        for (int64_t i = 0; i < channels; ++i) {
          const double weight = operands.weight(w, o, i, k);
          sum += Operands::value(rows[(t + k * call.dilation) * row + i]) * weight;
          size += 8 * std::fabs(weight);  // no activation, zero point included, is as large
        }
      // At most 1408 additions, each with half a unit in the last place of a partial sum: 8e-5, if all had one sign.
      if (!(std::fabs(sum - y[t * call.out_channels + o]) < 1e-6 * size)) return false;
    }

  // A part of the rows by itself: the same bits.
  const int64_t from = draw(0, height - 1), count = draw(1, height - from);
  std::vector<typename Operands::Element> part(readable(count));
  for (int64_t i = 0; i < smaller(part.size(), rows.size() - from * row); ++i) part[i] = rows[from * row + i];
  const std::vector<float> z = convolve(operands, call, part.data(), row, count, bias.data());
  return __builtin_memcmp(z.data(), y.data() + from * call.out_channels, z.size() * sizeof(float)) == 0;
}

bool rounding_is_right() {
  for (int i = 0; i < 100000; ++i) {
    float value = 0;
    while (!std::isnormal(value)) {
      const uint32_t bits = generator()();
      __builtin_memcpy(&value, &bits, sizeof value);
    }
    uint16_t narrow[kLanes];
    store_bf16(narrow, splat(value));
    if (narrow[i % kLanes] != to_bf16(value) || round_to_bf16(value) != to_bf16(value)) return false;
    if (load_bf16(narrow)[i % kLanes] != from_bf16(narrow[0])) return false;
  }
  const float special[] = {NAN, INFINITY, -INFINITY, 1e30f, -1e30f, 0.0f, 0.5f, 1.5f, 2.5f, -0.5f, -1.5f, 254.4f};
  const uint8_t steps[] = {30, 255, 0, 255, 0, 30, 30, 32, 32, 30, 28, 255};
  uint8_t quantised[12];
  quantise(special, 12, {1, 30}, quantised);
  uint16_t narrow[kLanes];
  store_bf16(narrow, splat(NAN));
  return __builtin_memcmp(quantised, steps, sizeof steps) == 0 && std::isnan(from_bf16(narrow[0]));
}

}  // namespace

int main(int argc, char** argv) {
  if (!__builtin_cpu_supports("avx512bf16") || !__builtin_cpu_supports("avx512vnni")) return 0;
  if (!rounding_is_right()) return std::printf("rounding is wrong\n"), 1;
  const int count = argc > 1 ? std::atoi(argv[1]) : 500;
  for (int call = 0; call < count; ++call) {
    if (!is_right<Bf16<Bf16Dots>>()) return std::printf("bfloat16: call %d is wrong\n", call), 1;
    if (!is_right<Int8>()) return std::printf("8 bits: call %d is wrong\n", call), 1;
    if (call % 8 == 0 && !is_right<Bf16<Bf16Tiles>>()) return std::printf("tiles: call %d is wrong\n", call), 1;
  }
}
