// WaveNets, one sample after the other.
//
// What a sample waits for is the chain: the current tap, gates, residual and skip of each layer, and the head. It is a
// matrix times the vectors of a few streams, and bound by how fast weights arrive. The other taps read samples that are
// a dilation old, so that of min(dilation, kBlock) samples they are known at once; with the condition, they are a
// product of matrices, which reads weights once for all of them. Every sum has one order, whatever is computed beside
// it, so that blocks, chunks, batches and threads change no bit.
#include <algorithm>
#include <cmath>
#include <cstring>
#if defined(__AVX512BF16__)
#include <immintrin.h>
#endif

#include "../isa.h"
#include "kernels/share_out.h"
#include "kernels/tanh.h"

namespace fastvoc::FASTVOC_ISA {

namespace {

// Vectors that a panel is high, and the most columns that registers hold sums of: on the chain, and in blocks.
constexpr int kTall = 4, kStreams = kRegisters == 32 ? 6 : 2;
constexpr int kFlat = 2, kColumns = kRegisters == 32 ? 12 : 6;
constexpr int kBlock = 12;  // samples

// What operands are: how they stand in weights and inputs, and how a vector of products is added.
struct Single {
  using Weight = float;
  using Input = float;
  static constexpr int kGroup = 1;  // neighbours that are multiplied and added at once
  static Weight narrow(float value) { return value; }
  static Vector add(Vector sum, const Weight* w, const Input* x) { return sum + load(w) * splat(*x); }
};

#if defined(__AVX512BF16__)
struct Bfloat16 {
  using Weight = uint16_t;
  using Input = uint16_t;
  static constexpr int kGroup = 2;
  static Weight narrow(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return uint16_t((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
  }
  static Vector add(Vector sum, const Weight* w, const Input* x) {
    int32_t pair;
    std::memcpy(&pair, x, sizeof pair);
    return (Vector)_mm512_dpbf16_ps((__m512)sum, (__m512bh)_mm512_loadu_si512(w), (__m512bh)_mm512_set1_epi32(pair));
  }
};
#endif

// out[n] = init[n] + sum over segments of matrix times x[segment][n], for rows of panels of Height vectors.
template <class Operand, int Height, int Count>
static void product(const typename Operand::Weight* w, int64_t rows, int segments, const int64_t* groups,
                    const typename Operand::Input* const* x, const float* const* init, float* const* out) {
  constexpr int kStep = Height * kLanes;
  for (int64_t row = 0; row < rows; row += kStep) {
    Vector sums[Count][Height];
#pragma GCC unroll 12
    for (int n = 0; n < Count; ++n)
#pragma GCC unroll 4
      for (int v = 0; v < Height; ++v) sums[n][v] = load(init[n] + row + v * kLanes);
    for (int s = 0; s < segments; ++s) {
      const typename Operand::Input* columns[Count];
#pragma GCC unroll 12
      for (int n = 0; n < Count; ++n) columns[n] = x[s * Count + n];
      for (int64_t k = 0; k < groups[s]; ++k) {
#pragma GCC unroll 12
        for (int n = 0; n < Count; ++n)
#pragma GCC unroll 4
          for (int v = 0; v < Height; ++v)
            sums[n][v] = Operand::add(sums[n][v], w + v * kLanes * Operand::kGroup, columns[n] + k * Operand::kGroup);
        w += kStep * Operand::kGroup;
      }
    }
#pragma GCC unroll 12
    for (int n = 0; n < Count; ++n)
#pragma GCC unroll 4
      for (int v = 0; v < Height; ++v) store(out[n] + row + v * kLanes, sums[n][v]);
  }
}

template <class Operand>
using Product = void (*)(const typename Operand::Weight*, int64_t, int, const int64_t*,
                         const typename Operand::Input* const*, const float* const*, float* const*);

template <class Operand, int Height, int... Less>
static Product<Operand> choose(int64_t count, std::integer_sequence<int, Less...>) {
  constexpr Product<Operand> kProducts[] = {&product<Operand, Height, Less + 1>...};
  return kProducts[count - 1];
}

// Where everything stands: sizes with what fills up panels, and offsets in the packed weights.
template <class Operand>
struct Layout {
  static constexpr int64_t kTallRows = kTall * kLanes, kFlatRows = kFlat * kLanes, kGroup = Operand::kGroup;

  explicit Layout(const fastvoc_recurrent& network)
      : half(round_up(network.gated, kLanes)),
        gates(round_up(2 * half, std::max(kTallRows, kFlatRows))),
        channels(round_up(network.channels, kTallRows)),
        skips(round_up(network.skips, kTallRows)),
        hidden(round_up(network.hidden, kTallRows)),
        outputs(round_up(network.outputs, kTallRows)),
        tap(round_up(network.channels, kGroup)),
        condition(round_up(network.condition, kGroup)),
        z(round_up(network.gated, kGroup)),
        skip_in(round_up(network.skips, kGroup)),
        hidden_in(round_up(network.hidden, kGroup)) {
    // weights, in elements of the operand
    past = 0;
    current = gates * ((network.taps - 1) * tap + condition);
    residual = current + gates * tap;
    skip = residual + channels * z;
    layer = skip + skips * z;
    const int64_t head = layer * network.layers;
    first_skip = head;
    hidden_weight = first_skip + (network.first_skip ? skips * tap : 0);
    output = hidden_weight + hidden * skip_in;
    weights = round_up(output + outputs * hidden_in, 64);
    // biases and the input, in floats behind them
    const int64_t inputs = network.distribution == FASTVOC_CLASSES ? network.outputs : network.input_taps;
    input_bias = inputs * channels;
    dilated_bias = input_bias + channels;
    residual_bias = dilated_bias + network.layers * gates;
    skip_bias = residual_bias + network.layers * channels;
    hidden_bias = skip_bias + skips;
    output_bias = hidden_bias + hidden;
    floats = output_bias + outputs;
  }

  int64_t bytes() const { return weights * sizeof(typename Operand::Weight) + floats * sizeof(float); }

  int64_t half, gates, channels, skips, hidden, outputs;  // rows
  int64_t tap, condition, z, skip_in, hidden_in;          // columns
  int64_t past, current, residual, skip, layer, first_skip, hidden_weight, output, weights;
  int64_t input_bias, dilated_bias, residual_bias, skip_bias, hidden_bias, output_bias, floats;
};

// Row `row` of a matrix whose rows are tanh's and sigmoid's, each filled up, or -1 for what fills up.
static int64_t gate_row(const fastvoc_recurrent& network, int64_t half, int64_t row) {
  if (row < half) return row < network.gated ? row : -1;
  return row - half < network.gated ? network.gated + row - half : -1;
}

static int64_t row_below(int64_t count, int64_t row) { return row < count ? row : -1; }

// Write panels of a matrix that `value(row, column)` reads; rows are numbered as they are packed, and columns filled up.
template <class Operand, class Value>
static void pack_panels(typename Operand::Weight* to, int64_t rows, int64_t height, int64_t columns, Value value,
                        int64_t first, int64_t all) {
  constexpr int64_t kGroup = Operand::kGroup;
  for (int64_t row = 0; row < rows; ++row)
    for (int64_t k = 0; k < columns; ++k) {
      const int64_t panel = row / height, at = (first + k) / kGroup;
      to[panel * height * all + (at * height + row % height) * kGroup + (first + k) % kGroup] =
          Operand::narrow(value(row, k));
    }
}

template <class Operand>
static void pack(const fastvoc_recurrent& network, void* packed) {
  const Layout<Operand> layout(network);
  auto* const weights = static_cast<typename Operand::Weight*>(packed);
  auto* const floats = reinterpret_cast<float*>(weights + layout.weights);
  const int64_t tall = layout.kTallRows, flat = layout.kFlatRows;
  const int64_t channels = network.channels, gated = network.gated, taps = network.taps, skips = network.skips;
  std::fill_n(weights, layout.weights, Operand::narrow(0));
  std::fill_n(floats, layout.floats, 0.0f);
  for (int64_t l = 0; l < network.layers; ++l) {
    auto* const layer = weights + l * layout.layer;
    const int64_t all = (taps - 1) * layout.tap + layout.condition;
    const auto gate = [&](int64_t row, int64_t k, int64_t tap) {
      const int64_t at = gate_row(network, layout.half, row);
      return at < 0 || k >= channels ? 0 : network.dilated[((l * 2 * gated + at) * channels + k) * taps + tap];
    };
    for (int64_t j = 0; j < taps - 1; ++j)
      pack_panels<Operand>(layer + layout.past, layout.gates, flat, layout.tap,
                           [&](int64_t row, int64_t k) { return gate(row, k, j); }, j * layout.tap, all);
    pack_panels<Operand>(layer + layout.past, layout.gates, flat, layout.condition, [&](int64_t row, int64_t k) {
      const int64_t at = gate_row(network, layout.half, row);
      return at < 0 || k >= network.condition ? 0 : network.conditions[(l * 2 * gated + at) * network.condition + k];
    }, (taps - 1) * layout.tap, all);
    pack_panels<Operand>(layer + layout.current, layout.gates, tall, layout.tap,
                         [&](int64_t row, int64_t k) { return gate(row, k, taps - 1); }, 0, layout.tap);
    const auto plain = [&](const float* matrix, int64_t rows, int64_t columns) {
      return [=](int64_t row, int64_t k) {
        return row_below(rows, row) < 0 || k >= columns ? 0.0f : matrix[row * columns + k];
      };
    };
    pack_panels<Operand>(layer + layout.residual, layout.channels, tall, layout.z,
                         plain(network.residual + l * channels * gated, channels, gated), 0, layout.z);
    pack_panels<Operand>(layer + layout.skip, layout.skips, tall, layout.z,
                         plain(network.skip + l * skips * gated, skips, gated), 0, layout.z);
    for (int64_t row = 0; row < layout.gates; ++row) {
      const int64_t at = gate_row(network, layout.half, row);
      if (at >= 0) floats[layout.dilated_bias + l * layout.gates + row] = network.dilated_bias[l * 2 * gated + at];
    }
    std::copy_n(network.residual_bias + l * channels, channels, floats + layout.residual_bias + l * layout.channels);
  }
  const auto plain = [](const float* matrix, int64_t rows, int64_t columns) {
    return [=](int64_t row, int64_t k) { return row >= rows || k >= columns ? 0.0f : matrix[row * columns + k]; };
  };
  if (network.first_skip)
    pack_panels<Operand>(weights + layout.first_skip, layout.skips, tall, layout.tap,
                         plain(network.first_skip, skips, channels), 0, layout.tap);
  pack_panels<Operand>(weights + layout.hidden_weight, layout.hidden, tall, layout.skip_in,
                       plain(network.hidden_weight, network.hidden, skips), 0, layout.skip_in);
  pack_panels<Operand>(weights + layout.output, layout.outputs, tall, layout.hidden_in,
                       plain(network.output, network.outputs, network.hidden), 0, layout.hidden_in);
  const bool classes = network.distribution == FASTVOC_CLASSES;
  const int64_t inputs = classes ? network.outputs : network.input_taps;
  for (int64_t i = 0; i < inputs; ++i)
    for (int64_t c = 0; c < channels; ++c)
      floats[i * layout.channels + c] = classes ? network.input[i * channels + c] : network.input[c * inputs + i];
  std::copy_n(network.input_bias, channels, floats + layout.input_bias);
  std::copy_n(network.skip_bias, skips, floats + layout.skip_bias);
  std::copy_n(network.hidden_bias, network.hidden, floats + layout.hidden_bias);
  std::copy_n(network.output_bias, network.outputs, floats + layout.output_bias);
}

// e^y of y <= 0, to two units in the last place, as in `tanh`; 0 below the smallest normal number.
static inline Vector exp_of_negative(Vector y) {
  constexpr float kRound = 12582912.0f;
  const Vector bounded = y > 0 ? Vector{} : y;  // of lanes that fill up a vector
  const Vector inside = bounded < -87.0f ? splat(-87.0f) : bounded;
  const Vector shifted = inside * 1.44269504089f + kRound;
  const Vector n = shifted - kRound;
  const Vector r = inside - n * 0.693359375f - n * -2.12194440e-4f;
  Vector e = r * 1.9875691500e-4f + 1.3981999507e-3f;
  e = e * r + 8.3334519073e-3f;
  e = e * r + 4.1665795894e-2f;
  e = e * r + 1.6666665459e-1f;
  e = e * r + 5.0000001201e-1f;
  e = e * r * r + r + 1;
  const Lanes exponent = ((Lanes)shifted - (Lanes)splat(kRound)) << 23;
  return y < -87.0f ? Vector{} : (Vector)((Lanes)e + exponent);
}

// The smallest number whose cumulative probability exceeds `number`. `logits` is overwritten, and filled up to vectors.
static int64_t draw_class(float* logits, int64_t count, float temperature, float number) {
  const int64_t likeliest = std::max_element(logits, logits + count) - logits;
  if (!(temperature > 0)) return likeliest;
  const float most = logits[likeliest], scale = 1 / temperature;
  for (int64_t i = 0; i < count; i += kLanes) store(logits + i, exp_of_negative((load(logits + i) - most) * scale));
  float sum = 0;
  for (int64_t i = 0; i < count; ++i) logits[i] = sum += logits[i];
  const float threshold = number * sum;
  const int64_t found = std::upper_bound(logits, logits + count, threshold) - logits;
  return std::min(found, count - 1);
}

static float clipped(float value) { return std::min(1.0f, std::max(-1.0f, value)); }

// A sample from the parameters of its distribution.
static float draw(const fastvoc_recurrent& network, float* parameters, float temperature, const float* noise,
                  int64_t stride) {
  if (network.distribution == FASTVOC_CLASSES)
    return float(draw_class(parameters, network.outputs, temperature, noise[0]));
  if (network.distribution == FASTVOC_GAUSSIAN) {
    const float scale = std::exp(std::max(parameters[1], network.smallest_log_scale));
    return clipped(parameters[0] + scale * temperature * noise[0]);
  }
  const int64_t count = network.outputs / 3;
  float weights[kMostLogistics + kLanes];
  std::copy_n(parameters, count, weights);
  const int64_t chosen = draw_class(weights, count, temperature, noise[0]);
  const float number = std::min(1 - 1e-5f, std::max(1e-5f, noise[stride]));
  const float scale = std::exp(std::max(parameters[2 * count + chosen], network.smallest_log_scale));
  return clipped(parameters[count + chosen] + scale * temperature * (std::log(number) - std::log(1 - number)));
}

// Memory of one thread, in floats.
template <class Operand>
struct Workspace {
  Workspace(const fastvoc_recurrent& network, const Layout<Operand>& layout, float* memory) {
    const auto take = [&](int64_t count) {
      float* const begin = memory ? memory + size : nullptr;
      size += round_up(count, 16);
      return begin;
    };
    pre = take(network.layers * kBlock * kStreams * layout.gates);
    x = take(kStreams * layout.channels);
    g = take(kStreams * layout.gates);
    z = take(kStreams * layout.half);
    y = take(kStreams * layout.channels);
    skip = take(kStreams * layout.skips);
    hidden = take(kStreams * layout.hidden);
    outputs = take(kStreams * layout.outputs);
    bias = take(kStreams * layout.gates);
    places = take(network.layers * 2 * 2);  // int64_t for each layer: where its block began and ends
    // operands that have to be narrowed first, which need no more room than floats
    longest = std::max({(network.taps - 1) * layout.tap + layout.condition, layout.tap, layout.z, layout.skip_in,
                        layout.hidden_in});
    narrow = take(Operand::kGroup == 1 ? 0 : kColumns * longest);
  }
  float *pre, *x, *g, *z, *y, *skip, *hidden, *outputs, *bias, *places, *narrow;
  int64_t longest, size = 0;
};

template <class Operand>
class Steps {
 public:
  using Weight = typename Operand::Weight;
  using Input = typename Operand::Input;

  Steps(const fastvoc_recurrent& network, const void* packed, const fastvoc_steps& steps, float* memory)
      : network_(network),
        layout_(network),
        steps_(steps),
        weights_(static_cast<const Weight*>(packed)),
        floats_(reinterpret_cast<const float*>(weights_ + layout_.weights)),
        work_(network, layout_, memory) {
    rows_ = 0;
    for (int64_t l = 0; l < network.layers; ++l) rows_ += (network.taps - 1) * network.dilations[l];
  }

  // Make all samples of up to kStreams streams.
  void run(int64_t first, int64_t count) {
    first_ = first, streams_ = count;
    chain_ = choose<Operand, kTall>(count, std::make_integer_sequence<int, kStreams>{});
    auto* const places = reinterpret_cast<int64_t*>(work_.places);
    std::fill_n(places, 2 * network_.layers, int64_t{0});
    for (int64_t t = 0; t < steps_.count; ++t) step(t, places);
  }

 private:
  void step(int64_t t, int64_t* places) {
    const int64_t channels = layout_.channels, gates = layout_.gates;
    for (int64_t n = 0; n < streams_; ++n) {
      if (steps_.forced) push(n, steps_.forced[(first_ + n) * steps_.count + t]);
      take_input(n);
      std::copy_n(floats_ + layout_.skip_bias, layout_.skips, work_.skip + n * layout_.skips);
    }
    if (network_.first_skip)
      multiply(weights_ + layout_.first_skip, layout_.skips, layout_.tap, work_.x, channels, work_.skip, layout_.skips,
               work_.skip, layout_.skips);
    int64_t row = 0;  // where the ring of the layer begins
    for (int64_t l = 0; l < network_.layers; ++l) {
      const Weight* const layer = weights_ + l * layout_.layer;
      const int64_t ring = (network_.taps - 1) * network_.dilations[l];
      if (t == places[2 * l + 1]) {
        const int64_t count = smaller(smaller(kBlock, network_.dilations[l]), steps_.count - t);
        look_back(l, layer, row, ring, t, count);
        places[2 * l] = t, places[2 * l + 1] = t + count;
      }
      if (ring)
        for (int64_t n = 0; n < streams_; ++n)
          std::copy_n(work_.x + n * channels, network_.channels, ring_row(n, row, ring, t));
      const float* const known = pre(l, t - places[2 * l]);
      multiply(layer + layout_.current, gates, layout_.tap, work_.x, channels, known, gates, work_.g, gates);
      for (int64_t n = 0; n < streams_; ++n) gate(work_.g + n * gates, work_.z + n * layout_.half);
      if (l + 1 < network_.layers) {
        add_bias(l);
        multiply(layer + layout_.residual, channels, layout_.z, work_.z, layout_.half, work_.y, channels, work_.x,
                 channels);
        if (network_.residual_scale != 1)
          for (int64_t i = 0; i < streams_ * channels; i += kLanes)
            store(work_.x + i, load(work_.x + i) * network_.residual_scale);
      }
      multiply(layer + layout_.skip, layout_.skips, layout_.z, work_.z, layout_.half, work_.skip, layout_.skips,
               work_.skip, layout_.skips);
      row += ring;
    }
    finish(t);
  }

  // Append to the inputs of a stream.
  void push(int64_t n, float value) {
    float* const history = steps_.history + (first_ + n) * network_.input_taps;
    std::copy(history + 1, history + network_.input_taps, history);
    history[network_.input_taps - 1] = value;
  }

  void take_input(int64_t n) {
    const float* const history = steps_.history + (first_ + n) * network_.input_taps;
    const float* const bias = floats_ + layout_.input_bias;
    float* const x = work_.x + n * layout_.channels;
    if (network_.distribution == FASTVOC_CLASSES) {
      const float last = network_.outputs - 1;  // whatever a caller's memory holds
      const int64_t number = history[0] > 0 ? int64_t(std::min(history[0], last)) : 0;
      const float* const row = floats_ + number * layout_.channels;
      for (int64_t c = 0; c < layout_.channels; c += kLanes) store(x + c, load(row + c) + load(bias + c));
      return;
    }
    for (int64_t c = 0; c < layout_.channels; c += kLanes) {
      Vector sum = load(bias + c);
      for (int64_t i = 0; i < network_.input_taps; ++i)
        sum += load(floats_ + i * layout_.channels + c) * history[i];
      store(x + c, sum);
    }
  }

  float* pre(int64_t layer, int64_t sample) const {
    return work_.pre + (layer * kBlock + sample) * kStreams * layout_.gates;
  }

  float* ring_row(int64_t n, int64_t row, int64_t ring, int64_t t) const {
    const int64_t at = (steps_.time[first_ + n] + t) % ring;
    return steps_.rings + ((first_ + n) * rows_ + row + at) * network_.channels;
  }

  // What the gates of a block of samples add up before the current tap: the bias, the other taps, and the condition.
  void look_back(int64_t l, const Weight* layer, int64_t row, int64_t ring, int64_t t, int64_t count) {
    const int64_t taps = network_.taps - 1, segments = taps + (network_.condition > 0), gates = layout_.gates;
    for (int64_t n = 0; n < streams_; ++n) {
      float* const bias = work_.bias + n * gates;
      std::copy_n(floats_ + layout_.dilated_bias + l * gates, gates, bias);
      if (!steps_.gates) continue;
      const float* const added = steps_.gates + ((first_ + n) * network_.layers + l) * 2 * network_.gated;
      for (int64_t c = 0; c < network_.gated; ++c)
        bias[c] += added[c], bias[layout_.half + c] += added[network_.gated + c];
    }
    int64_t groups[kMostTaps + 1];
    std::fill_n(groups, taps, layout_.tap / Operand::kGroup);
    groups[taps] = layout_.condition / Operand::kGroup;
    for (int64_t begin = 0; begin < count * streams_; begin += kColumns) {
      const int64_t columns = smaller(kColumns, count * streams_ - begin);
      const Input* x[(kMostTaps + 1) * kColumns];
      const float* init[kColumns];
      float* out[kColumns];
      for (int64_t i = 0; i < columns; ++i) {
        const int64_t n = (begin + i) % streams_, sample = (begin + i) / streams_;
        init[i] = work_.bias + n * gates;
        out[i] = pre(l, sample) + n * gates;
        int64_t place = i * work_.longest;
        for (int64_t j = 0; j < taps; ++j) {
          // the ring holds the latest `ring` samples, of which j = 0 is the oldest; and it is read before it is written
          const int64_t before = (taps - j) * network_.dilations[l];
          const float* const from = ring_row(n, row, ring, t + sample + ring - before);
          x[j * columns + i] = operand(from, network_.channels, layout_.tap, place);
          place += layout_.tap;
        }
        if (network_.condition) {
          const float* const from =
              steps_.condition + ((first_ + n) * steps_.count + t + sample) * network_.condition;
          x[taps * columns + i] = operand(from, network_.condition, layout_.condition, place);
        }
      }
      choose<Operand, kFlat>(columns, std::make_integer_sequence<int, kColumns>{})(
          layer + layout_.past, gates, int(segments), groups, x, init, out);
    }
  }

  // A vector as an operand: itself, or a narrow copy in the workspace.
  const Input* operand(const float* from, int64_t count, int64_t filled, int64_t place) {
    if constexpr (Operand::kGroup == 1) {
      return from;
    } else {
      Input* const to = reinterpret_cast<Input*>(work_.narrow) + place;
      for (int64_t i = 0; i < count; ++i) to[i] = Operand::narrow(from[i]);
      for (int64_t i = count; i < filled; ++i) to[i] = Operand::narrow(0);
      return to;
    }
  }

  // out = init + matrix x, for all streams; x has as many values as columns, filled up with zeros.
  void multiply(const Weight* w, int64_t rows, int64_t columns, const float* x, int64_t x_step, const float* init,
                int64_t init_step, float* out, int64_t out_step) {
    const Input* operands[kStreams];
    const float* inits[kStreams];
    float* outs[kStreams];
    for (int64_t n = 0; n < streams_; ++n) {
      operands[n] = operand(x + n * x_step, columns, columns, n * work_.longest);
      inits[n] = init + n * init_step;
      outs[n] = out + n * out_step;
    }
    const int64_t groups = columns / Operand::kGroup;
    chain_(w, rows, 1, &groups, operands, inits, outs);
  }

  void gate(const float* g, float* z) const {
    for (int64_t c = 0; c < layout_.half; c += kLanes) {
      const Vector sigmoid = 0.5f * tanh(0.5f * load(g + layout_.half + c)) + 0.5f;
      store(z + c, tanh(load(g + c)) * sigmoid);
    }
  }

  void add_bias(int64_t l) {
    const float* const bias = floats_ + layout_.residual_bias + l * layout_.channels;
    for (int64_t n = 0; n < streams_; ++n)
      for (int64_t c = 0; c < layout_.channels; c += kLanes)
        store(work_.y + n * layout_.channels + c, load(work_.x + n * layout_.channels + c) + load(bias + c));
  }

  static void rectify(float* x, int64_t count, float scale) {
    for (int64_t c = 0; c < count; c += kLanes) {
      const Vector v = load(x + c) * scale;
      store(x + c, v < 0 ? Vector{} : v);
    }
  }

  void finish(int64_t t) {
    rectify(work_.skip, streams_ * layout_.skips, network_.skip_scale);
    multiply_with_bias(layout_.hidden_weight, layout_.hidden, layout_.skip_in, work_.skip, layout_.skips,
                       layout_.hidden_bias, work_.hidden);
    rectify(work_.hidden, streams_ * layout_.hidden, 1);
    multiply_with_bias(layout_.output, layout_.outputs, layout_.hidden_in, work_.hidden, layout_.hidden,
                       layout_.output_bias, work_.outputs);
    const int64_t numbers = network_.distribution == FASTVOC_LOGISTICS ? 2 : 1;
    for (int64_t n = 0; n < streams_; ++n) {
      const int64_t stream = first_ + n, at = stream * steps_.count + t;
      float* const parameters = work_.outputs + n * layout_.outputs;
      if (steps_.parameters) std::copy_n(parameters, network_.outputs, steps_.parameters + at * network_.outputs);
      if (!steps_.drawn) continue;
      const float* const noise = steps_.noise + stream * numbers * steps_.count + t;
      steps_.drawn[at] = draw(network_, parameters, steps_.temperature[stream], noise, steps_.count);
      if (!steps_.forced) push(n, steps_.drawn[at]);
    }
  }

  void multiply_with_bias(int64_t weight, int64_t rows, int64_t columns, const float* x, int64_t x_step, int64_t bias,
                          float* out) {
    multiply(weights_ + weight, rows, columns, x, x_step, floats_ + bias, 0, out, rows);
  }

  const fastvoc_recurrent& network_;
  const Layout<Operand> layout_;
  const fastvoc_steps& steps_;
  const Weight* const weights_;
  const float* const floats_;
  Workspace<Operand> work_;
  Product<Operand> chain_ = nullptr;
  int64_t first_ = 0, streams_ = 0, rows_ = 0;
};

template <class Operand>
static int64_t workspace_floats(const fastvoc_recurrent& network) {
  return Workspace<Operand>(network, Layout<Operand>(network), nullptr).size;
}

template <class Operand>
static void run(const fastvoc_recurrent& network, const void* packed, const fastvoc_steps& steps, float* memory) {
  const int64_t size = workspace_floats<Operand>(network), groups = (steps.batch + kStreams - 1) / kStreams;
  const int threads = int(smaller(steps.threads, larger(groups, 1)));
  std::memset(memory, 0, size * threads * sizeof(float));  // what fills up vectors is never written
  share_out(threads, groups, [&](int64_t worker, int64_t group) {
    float* const own = memory + worker * size;
    // as many in each group as in the others, or one less
    const int64_t first = group * steps.batch / groups, last = (group + 1) * steps.batch / groups;
    Steps<Operand>(network, packed, steps, own).run(first, last - first);
  });
}

static bool narrow(const fastvoc_recurrent& network) { return network.precision == FASTVOC_BFLOAT16; }

int check(const fastvoc_recurrent& network) {
#if defined(__AVX512BF16__)
  return network.precision == FASTVOC_FLOAT32 || narrow(network) ? FASTVOC_OK : FASTVOC_BAD_PRECISION;
#else
  return network.precision == FASTVOC_FLOAT32 ? FASTVOC_OK : FASTVOC_BAD_PRECISION;
#endif
}

#if defined(__AVX512BF16__)
#define FASTVOC_BY_PRECISION(call) (narrow(network) ? call(Bfloat16) : call(Single))
#else
#define FASTVOC_BY_PRECISION(call) call(Single)
#endif

int64_t packed_size(const fastvoc_recurrent& network) {
#define FASTVOC_CALL(Operand) Layout<Operand>(network).bytes()
  return FASTVOC_BY_PRECISION(FASTVOC_CALL);
#undef FASTVOC_CALL
}

int64_t workspace_size(const fastvoc_recurrent& network, int threads) {
#define FASTVOC_CALL(Operand) workspace_floats<Operand>(network) * threads * int64_t(sizeof(float))
  return FASTVOC_BY_PRECISION(FASTVOC_CALL);
#undef FASTVOC_CALL
}

void pack_weights(const fastvoc_recurrent& network, void* packed) {
#define FASTVOC_CALL(Operand) pack<Operand>(network, packed)
  FASTVOC_BY_PRECISION(FASTVOC_CALL);
#undef FASTVOC_CALL
}

void run_steps(const fastvoc_recurrent& network, const void* packed, const fastvoc_steps& steps, void* workspace) {
#define FASTVOC_CALL(Operand) run<Operand>(network, packed, steps, static_cast<float*>(workspace))
  FASTVOC_BY_PRECISION(FASTVOC_CALL);
#undef FASTVOC_CALL
}

}  // namespace

extern const Recurrent recurrent{check, packed_size, workspace_size, pack_weights, run_steps};

}  // namespace fastvoc::FASTVOC_ISA
