// Where everything of a network stands in its packed weights: layer by layer in the order of use, the head, and floats.
#pragma once

#include "../../isa.h"
#include "product.h"

namespace fastvoc::FASTVOC_ISA {

// Whether the operands of a convolution have 8 bits: of a layer's dilated one, and of the two that follow its gates.
static inline float input_scale(const fastvoc_recurrent& network, int64_t layer, int convolution) {
  return network.input_scales ? network.input_scales[2 * layer + convolution] : 0;
}
enum { kDilated, kOut };

// A network with `Operand`, and 8 bits where it has scales.
template <class Operand>
struct Layout {
#if defined(FASTVOC_RECURRENT_INT8)
  using Narrowest = std::conditional_t<std::is_same_v<Operand, Bfloat16>, Int8, Operand>;
#else
  using Narrowest = Operand;
#endif

  explicit Layout(const fastvoc_recurrent& network)
      : half(round_up(network.gated, kLanes)), gates(round_up(2 * half, kTall * kLanes)) {
    constexpr int64_t kRows = kTall * kLanes;
    channels = round_up(network.channels, kRows), skips = round_up(network.skips, kRows);
    past = {gates, kFlat, 0, {}};
    for (int64_t j = 0; j < network.taps - 1; ++j) past.columns[past.segments++] = network.channels;
    if (network.condition) past.columns[past.segments++] = network.condition;
    current = {gates, kTall, 1, {network.channels}};
    residual = {channels, kTall, 1, {network.gated}};
    skip = {skips, kTall, 1, {network.gated}};
    first_skip = {skips, kTall, network.first_skip ? 1 : 0, {network.channels}};
    hidden = {round_up(network.hidden, kRows), kTall, network.hidden_condition ? 2 : 1, {network.skips, network.condition}};
    output = {round_up(network.outputs, kRows), kTall, 1, {network.hidden}};
    dilated_bytes = std::max(pair_bytes<Operand>(past, current), pair_bytes<Narrowest>(past, current));
    layer_bytes = dilated_bytes + std::max(pair_bytes<Operand>(residual, skip), pair_bytes<Narrowest>(residual, skip));
    first_skip_at = layer_bytes * network.layers;
    hidden_at = first_skip_at + first_skip.bytes<Operand>();
    output_at = hidden_at + hidden.bytes<Operand>();
    floats_at = output_at + output.bytes<Operand>();
    // in floats behind that
    const bool classes = network.distribution == FASTVOC_CLASSES;
    input_bias = network.input_taps * (classes ? network.outputs : 1) * channels;
    dilated_bias = input_bias + channels;
    residual_bias = dilated_bias + network.layers * gates;
    skip_bias = residual_bias + network.layers * channels;
    hidden_bias = skip_bias + skips;
    output_bias = hidden_bias + hidden.rows;
    floats = output_bias + output.rows;
  }

  template <class Kind>
  static int64_t pair_bytes(const Shape& first, const Shape& second) {
    return first.bytes<Kind>() + second.bytes<Kind>();
  }

  int64_t bytes() const { return floats_at + floats * int64_t(sizeof(float)); }

  int64_t half, gates, channels, skips;  // rows with what fills up panels
  Shape past, current, residual, skip, first_skip, hidden, output;
  int64_t dilated_bytes, layer_bytes, first_skip_at, hidden_at, output_at, floats_at;
  int64_t input_bias, dilated_bias, residual_bias, skip_bias, hidden_bias, output_bias, floats;
};

// Call `function` with what the operands of a convolution are.
template <class Operand, class Function>
static inline void by_operand(float scale, Function function) {
  using Narrowest = typename Layout<Operand>::Narrowest;
  if constexpr (!std::is_same_v<Operand, Narrowest>)
    if (scale > 0) return function(Narrowest{});
  function(Operand{});
}

template <class Operand>
static void pack(const fastvoc_recurrent& network, char* packed) {
  const Layout<Operand> layout(network);
  const int64_t channels = network.channels, gated = network.gated, taps = network.taps, skips = network.skips;
  const auto plain = [](const float* matrix, int64_t rows, int64_t columns) {
    return [=](int64_t row, int, int64_t k) { return row < rows ? matrix[row * columns + k] : 0.0f; };
  };
  // rows are tanh's and sigmoid's, each filled up; -1 is what fills up
  const auto gate_row = [&](int64_t row) {
    const int64_t in_half = row < layout.half ? row : row - layout.half;
    return in_half < gated ? in_half + (row < layout.half ? 0 : gated) : -1;
  };
  auto* const floats = reinterpret_cast<float*>(packed + layout.floats_at);
  std::fill_n(floats, layout.floats, 0.0f);
  for (int64_t l = 0; l < network.layers; ++l) {
    const auto gate = [&](int64_t row, int64_t k, int64_t tap) {
      const int64_t at = gate_row(row);
      return at < 0 ? 0.0f : network.dilated[((l * 2 * gated + at) * channels + k) * taps + tap];
    };
    by_operand<Operand>(input_scale(network, l, kDilated), [&](auto kind) {
      using Kind = decltype(kind);
      char* const at = packed + l * layout.layer_bytes;
      pack_matrix<Kind>(layout.past, at, [&](int64_t row, int s, int64_t k) {
        if (s < taps - 1) return gate(row, k, s);
        const int64_t own = gate_row(row);
        return own < 0 ? 0.0f : network.conditions[(l * 2 * gated + own) * network.condition + k];
      });
      pack_matrix<Kind>(layout.current, at + layout.past.template bytes<Kind>(),
                        [&](int64_t row, int, int64_t k) { return gate(row, k, taps - 1); });
    });
    by_operand<Operand>(input_scale(network, l, kOut), [&](auto kind) {
      using Kind = decltype(kind);
      char* const at = packed + l * layout.layer_bytes + layout.dilated_bytes;
      pack_matrix<Kind>(layout.residual, at, plain(network.residual + l * channels * gated, channels, gated));
      pack_matrix<Kind>(layout.skip, at + layout.residual.template bytes<Kind>(),
                        plain(network.skip + l * skips * gated, skips, gated));
    });
    for (int64_t row = 0; row < layout.gates; ++row)
      if (const int64_t at = gate_row(row); at >= 0)
        floats[layout.dilated_bias + l * layout.gates + row] = network.dilated_bias[l * 2 * gated + at];
    std::copy_n(network.residual_bias + l * channels, channels, floats + layout.residual_bias + l * layout.channels);
  }
  if (network.first_skip)
    pack_matrix<Operand>(layout.first_skip, packed + layout.first_skip_at, plain(network.first_skip, skips, channels));
  pack_matrix<Operand>(layout.hidden, packed + layout.hidden_at, [&](int64_t row, int s, int64_t k) {
    if (row >= network.hidden) return 0.0f;
    return s ? network.hidden_condition[row * network.condition + k] : network.hidden_weight[row * skips + k];
  });
  pack_matrix<Operand>(layout.output, packed + layout.output_at, plain(network.output, network.outputs, network.hidden));
  const bool classes = network.distribution == FASTVOC_CLASSES;
  const int64_t inputs = network.input_taps * (classes ? network.outputs : 1);
  for (int64_t i = 0; i < inputs; ++i)
    for (int64_t c = 0; c < channels; ++c)
      floats[i * layout.channels + c] = classes ? network.input[i * channels + c] : network.input[c * inputs + i];
  std::copy_n(network.input_bias, channels, floats + layout.input_bias);
  std::copy_n(network.skip_bias, skips, floats + layout.skip_bias);
  std::copy_n(network.hidden_bias, network.hidden, floats + layout.hidden_bias);
  std::copy_n(network.output_bias, network.outputs, floats + layout.output_bias);
}

}  // namespace fastvoc::FASTVOC_ISA
