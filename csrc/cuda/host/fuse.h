// Layers become operations: which are sound, how long results are, in which form they are stored, and what adds up.
#pragma once

#include "../../layer.h"
#include "plan.h"

namespace fastvoc::cuda {

// A slope outside of these is not stored: it could not be undone, or what it leaves would lose its bits in float16.
constexpr float kLeastStored = 1.0f / 128, kMostStored = 1;

// What is known of layers before it is decided how they run.
struct Draft {
  const fastvoc_network& network;
  int readers[kMaxLayers + kResults];      // of a line
  int last_reader[kMaxLayers + kResults];  // a layer
  bool absorbed[kMaxLayers];               // it has become a source of another one
  int segment[kMaxLayers];                 // the first layer of the chain that it belongs to, or -1
};

inline bool adds(int from) { return from != FASTVOC_NONE; }
inline int line_of(int from) {
  return from == FASTVOC_INPUT ? kX : from == FASTVOC_OTHER_INPUT ? kOther : from + kResults;
}
inline bool upsamples(const fastvoc_layer& layer) { return layer.kind == FASTVOC_UPSAMPLE; }
inline bool activates(const fastvoc_layer& layer) { return layer.kind == FASTVOC_SMOOTH_SNAKE; }
inline int64_t taps_of(const fastvoc_layer& layer) {
  return upsamples(layer) ? (layer.taps + layer.stride - 1) / layer.stride : layer.taps;
}
inline int64_t round_up(int64_t value, int64_t unit) { return (value + unit - 1) / unit * unit; }
inline int columns_of(int64_t columns) { return columns <= 8 ? 8 : int(round_up(columns, 32)); }

inline int precision_of(int precision) {
  switch (precision) {
    case FASTVOC_FLOAT16:
      return kFloat16;
    case FASTVOC_BFLOAT16:
      return kBfloat16;
    case FASTVOC_TFLOAT32:
      return kTfloat32;
    default:
      return kPrecisions;
  }
}

inline int check_layer(const fastvoc_network& network, int index) {
  const fastvoc_layer& layer = network.layers[index];
  const auto has = [&](int from, int64_t channels) { return has_result(network, index, from, channels); };
  if (layer.kind != FASTVOC_CONV1D && !upsamples(layer) && !activates(layer)) return FASTVOC_BAD_NETWORK;
  if (const int error = check_shape(layer)) return error;
  if (!is_count(layer.stride * (layer.out_channels + 64)) || !is_count(layer.taps * (layer.in_channels + 64)) ||
      layer.left >= kMostCount || layer.right >= kMostCount)
    return FASTVOC_BAD_SIZE;
  if (layer.input_scale != 0) return FASTVOC_BAD_PRECISION;
  if (layer.gelu && (layer.divisor != 1 || layer.slope_after != 1 || layer.tanh)) return FASTVOC_BAD_NETWORK;
  if (!has(layer.input, layer.in_channels)) return FASTVOC_BAD_NETWORK;
  for (const int added : {layer.residual, layer.partial})
    if (adds(added) && added != FASTVOC_OTHER_INPUT && !has(added, layer.out_channels)) return FASTVOC_BAD_NETWORK;
  if (activates(layer)) {
    // As on the CPU; and a convolution stands behind it.
    const bool adds_none = !adds(layer.residual) && !adds(layer.partial), changes = layer.tanh || layer.gelu;
    if (!adds_none || changes || layer.divisor != 1 || layer.slope_after != 1 || layer.slope != 1 ||
        layer.dilation != 1 || layer.stride != 1 || layer.taps != 2 || layer.in_channels != layer.out_channels ||
        index + 1 == network.count)
      return FASTVOC_BAD_NETWORK;
    if (layer.left || layer.right || layer.padding_mode != FASTVOC_ZERO) return FASTVOC_BAD_PADDING;
  } else if (upsamples(layer)) {
    if (adds(layer.residual) || adds(layer.partial) || layer.dilation != 1) return FASTVOC_BAD_NETWORK;
    // As on the CPU: what is repeated in front is one row, and what is behind the last row is cropped.
    const bool one = layer.taps <= 2 * layer.stride && layer.right + layer.stride >= layer.taps;
    if (layer.padding_mode == FASTVOC_REFLECT || (layer.padding_mode == FASTVOC_REPLICATE && !one))
      return FASTVOC_BAD_PADDING;
  } else if (layer.left > layer.dilation * (layer.taps - 1) || layer.right > layer.dilation * (layer.taps - 1)) {
    return FASTVOC_BAD_PADDING;
  }
  return FASTVOC_OK;
}

// How long and how wide results are. What is added must be as long as what it is added to.
inline int measure_lines(const Draft& draft, Plan& plan) {
  const fastvoc_network& network = draft.network;
  const int width = chunk_channels(plan.precision);
  const auto chunks = [&](int64_t channels) { return int((channels + width - 1) / width); };
  plan.line[kX] = {int(network.layers[0].in_channels), chunks(network.layers[0].in_channels), 1, 0, 1, 0, -1, -1};
  Line& other = plan.line[kOther] = {0, 0, 0, 0, 1, 0, -1, -1};
  for (int i = 0; i < network.count; ++i) {
    const fastvoc_layer& layer = network.layers[i];
    const Line& input = plan.line[line_of(layer.input)];
    const int64_t rate = upsamples(layer) ? input.rate * layer.stride : input.rate;
    const int64_t offset = upsamples(layer)
                               ? input.offset * layer.stride + layer.taps - layer.stride - layer.left - layer.right
                           : activates(layer)
                               ? input.offset
                               : input.offset + layer.left + layer.right - layer.dilation * (layer.taps - 1);
    if (!is_count(rate) || offset < -kMostCount || offset > kMostCount) return FASTVOC_BAD_SIZE;
    plan.line[i + kResults] = {int(layer.out_channels), chunks(layer.out_channels), int(rate), int(offset), 1, 0, -1, -1};
    const Line& line = plan.line[i + kResults];
    for (const int added : {layer.residual, layer.partial}) {
      if (!adds(added)) continue;
      if (added == FASTVOC_OTHER_INPUT && other.channels == 0) {
        other = line;
        plan.uses_other = 1;
      }
      const Line& from = plan.line[line_of(added)];
      if (from.rate != line.rate || from.offset != line.offset || from.channels != line.channels)
        return FASTVOC_BAD_NETWORK;
    }
    plan.reads[i] = line_of(layer.input);
    const int64_t most = layer.left > layer.right ? layer.left : layer.right;
    plan.least[i] = layer.padding_mode == FASTVOC_REFLECT ? int(most) : 0;
  }
  return FASTVOC_OK;
}

// A result is stored behind the leaky ReLU of the convolution that reads it with most taps, if that can be undone.
inline int read_lines(Draft& draft, Plan& plan) {
  const fastvoc_network& network = draft.network;
  int64_t most[kMaxLayers + kResults] = {};
  bool multiplied[kMaxLayers + kResults] = {};
  for (int i = 0; i < network.count; ++i) {
    const int line = line_of(network.layers[i].input);
    if (activates(network.layers[i])) {
      plan.line[line].exact = plan.precision == kTfloat32;
      most[line] = kMostCount;  // it reads what there is
    } else {
      multiplied[line] = true;
    }
  }
  for (int l = 0; l < network.count + kResults; ++l)
    if (multiplied[l]) plan.line[l].exact = 0;
  for (int i = 0; i < network.count; ++i) {
    const fastvoc_layer& layer = network.layers[i];
    draft.absorbed[i] = false;
    draft.segment[i] = -1;
    for (const int from : {layer.input, layer.residual, layer.partial}) {
      if (!adds(from)) continue;
      ++draft.readers[line_of(from)];
      draft.last_reader[line_of(from)] = i;
    }
    // The network's inputs come as they are.
    const int line = line_of(layer.input);
    if (line < kResults || taps_of(layer) <= most[line]) continue;
    most[line] = taps_of(layer);
    plan.line[line].stored = layer.slope >= kLeastStored && layer.slope <= kMostStored ? layer.slope : 1;
  }
  for (int i = 0; i + 1 < network.count; ++i)
    if (draft.readers[i + kResults] == 0) return FASTVOC_BAD_NETWORK;
  return draft.readers[network.count - 1 + kResults] == 0 ? FASTVOC_OK : FASTVOC_BAD_NETWORK;
}

// Whether a layer that one other adds is nothing but a further sum in it.
inline bool is_sum(const Draft& draft, int layer) {
  const fastvoc_layer& from = draft.network.layers[layer];
  return !upsamples(from) && !activates(from) && draft.readers[layer + kResults] == 1 && from.divisor == 1 && from.slope_after == 1 &&
         !from.tanh && !from.gelu;
}

inline Reading reading_of(const Draft& draft, const Plan& plan, int index) {
  const fastvoc_layer& layer = draft.network.layers[index];
  const Line& line = plan.line[line_of(layer.input)];
  const bool up = upsamples(layer);
  Reading reading = {};
  reading.line = line_of(layer.input);
  reading.layer = index;
  reading.in_channels = int(layer.in_channels);
  reading.out_channels = int(layer.out_channels);
  reading.layer_taps = int(layer.taps);
  reading.upsample = up;
  reading.chunks = line.chunks;
  reading.taps = int(taps_of(layer));
  reading.dilation = layer.taps > 1 ? int(layer.dilation) : 1;
  reading.left = up ? reading.taps - 1 : int(layer.left);
  reading.right = up ? reading.taps - 1 : int(layer.right);
  reading.front = short(layer.padding_mode);
  reading.back = up ? short(kZero) : short(layer.padding_mode);
  reading.factor = layer.slope / line.stored;
  return reading;
}

inline Operation activation_of(const Draft& draft, const Plan& plan, int index) {
  const fastvoc_layer& layer = draft.network.layers[index];
  Operation operation = {};
  operation.activates = operation.sources = operation.stride = 1;
  operation.line = index + kResults;
  operation.source[0].line = line_of(layer.input);
  operation.source[0].layer = index;
  operation.source[0].in_channels = operation.source[0].out_channels = int(layer.in_channels);
  operation.source[0].layer_taps = int(layer.taps);
  operation.channels = plan.line[operation.line].chunks * chunk_channels(plan.precision);
  return operation;
}

// A layer as an operation, with what it absorbs: sums that are in the same chain, or in none like itself. In a chain
// only those without residuals, because what they read stays in shared memory until then.
inline Operation operation_of(Draft& draft, const Plan& plan, int index) {
  const fastvoc_layer& layer = draft.network.layers[index];
  if (activates(layer)) return activation_of(draft, plan, index);
  const bool chained = draft.segment[index] >= 0;
  const int most = chained ? 2 : kSources;
  const bool last = index + 1 == draft.network.count;
  const Line& line = plan.line[index + kResults];
  Operation operation = {};
  operation.source[operation.sources++] = reading_of(draft, plan, index);
  operation.line = index + kResults;
  operation.channels = last ? line.channels : line.chunks * chunk_channels(plan.precision);
  operation.stride = upsamples(layer) ? int(layer.stride) : 1;
  operation.crop = upsamples(layer) ? int(layer.left) : 0;
  operation.columns = columns_of(int64_t{operation.stride} * operation.channels);
  operation.scale = 1 / layer.divisor;
  operation.slope_after = layer.slope_after;
  operation.tanh = layer.tanh != 0;
  operation.gelu = layer.gelu != 0;
  int left = adds(layer.residual) + adds(layer.partial);
  for (const int from : {layer.partial, layer.residual}) {
    if (!adds(from)) continue;
    --left;  // those that are still to come take a residual each
    if (from >= 0 && is_sum(draft, from) && draft.segment[from] == draft.segment[index]) {
      const Operation& sum = plan.operation[from];
      if (operation.sources + sum.sources <= most && operation.residuals + sum.residuals + left <= kResiduals &&
          (!chained || sum.residuals == 0)) {
        for (int i = 0; i < sum.sources; ++i) operation.source[operation.sources++] = sum.source[i];
        for (int i = 0; i < sum.residuals; ++i) operation.residual[operation.residuals++] = sum.residual[i];
        draft.absorbed[from] = true;
        continue;
      }
    }
    operation.residual[operation.residuals++] = {line_of(from), 1 / plan.line[line_of(from)].stored, 0};
  }
  return operation;
}

}  // namespace fastvoc::cuda
