// Random networks for plans, and what their layers mean in plain loops.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "../fastvoc_plan.h"
#include "draw.h"
#include "snake.h"

namespace fastvoc_tests {

// A result: rows of channels, in double precision.
struct Rows {
  int64_t channels = 0;
  std::vector<double> values;

  int64_t frames() const { return int64_t(values.size()) / channels; }
  const double* row(int64_t frame) const { return values.data() + frame * channels; }
};

class Network {
 public:
  std::vector<fastvoc_layer> layers;
  std::vector<std::vector<float>> weights, biases;
  int64_t in_channels = 0;

  // A stem, or none; stages of upsampling and random layers; a head, or none. Plans for GPUs do not end with a
  // smooth_snake.
  static Network random(bool smooths = false) {
    Network net;
    net.smooths = smooths;
    net.in_channels = net.channels();
    int64_t channels = net.channels();
    const int64_t stages = draw(0, 3);
    if (draw(0, 4) == 0) {
      channels = net.in_channels;
    } else if (stages == 0 || draw(0, 3)) {
      net.add_conv(FASTVOC_INPUT, net.in_channels, channels);
    } else {
      net.add_upsample(FASTVOC_INPUT, net.in_channels, channels);
    }
    net.add_body(channels);
    for (int64_t stage = 0; stage < stages; ++stage) {
      const int64_t next = draw(0, 2) ? (channels + 1) / 2 : net.channels();
      net.add_upsample(net.last(), channels, next);
      channels = next;
      net.add_body(channels);
    }
    if (draw(0, 3) || net.layers.empty()) {
      fastvoc_layer& head = net.add_conv(net.last(), channels, draw(0, 2) ? 1 : net.channels());
      head.tanh = toss();
      if (draw(0, 3) == 0) net.add_upsample(net.last(), head.out_channels, 1);
    }
    return net;
  }

  int last() const { return int(layers.size()) - 1; }

  // Of a network in 8 bits every third layer stays in bfloat16. Those that read the same result quantise it alike, and
  // cut off what is beyond 255 steps.
  fastvoc_network described(int isa, int precision, bool in_order) {
    for (size_t i = 0; i < layers.size(); ++i) {
      const bool int8 = precision == FASTVOC_INT8 && i % 3 != 2 && layers[i].kind != FASTVOC_SMOOTH_SNAKE;
      layers[i].input_scale = int8 ? 0.03f : 0;
      layers[i].input_zero_point = int8 ? (64 + 37 * layers[i].input) & 255 : 0;
      layers[i].weight = weights[i].data();
      layers[i].bias = biases[i].empty() ? nullptr : biases[i].data();
    }
    narrow = precision != FASTVOC_FLOAT32;
    return {isa, narrow ? FASTVOC_BFLOAT16 : FASTVOC_FLOAT32, in_order, int(layers.size()), layers.data()};
  }

  // Multiply-adds and frames of the result, for signals of this length.
  int64_t work(int64_t frames) const {
    int64_t sum = 0;
    std::vector<int64_t> lengths;
    for (const fastvoc_layer& layer : layers) {
      lengths.push_back(out_frames(layer, layer.input < 0 ? frames : lengths[layer.input]));
      sum += lengths.back() * layer.in_channels * layer.out_channels * layer.taps / layer.stride;
    }
    return sum;
  }

  static int64_t out_frames(const fastvoc_layer& layer, int64_t frames) {
    if (layer.kind == FASTVOC_SMOOTH_SNAKE) return frames;
    const int64_t length = layer.kind == FASTVOC_CONV1D
                               ? frames + layer.left + layer.right - layer.dilation * (layer.taps - 1)
                           : frames == 0 ? 0
                                         : (frames - 1) * layer.stride + layer.taps - layer.left - layer.right;
    return length > 0 ? length : 0;
  }

  // Whether padding can see what it shows of every signal on the way.
  bool can_pad(int64_t frames) const {
    std::vector<int64_t> lengths;
    for (const fastvoc_layer& layer : layers) {
      const int64_t length = layer.input < 0 ? frames : lengths[layer.input];
      const bool up = layer.kind == FASTVOC_UPSAMPLE;
      const int64_t front = up ? (layer.taps - 1) / layer.stride : layer.left, back = up ? 0 : layer.right;
      if (layer.padding_mode == FASTVOC_REFLECT && front + back > 0 && length <= (front > back ? front : back))
        return false;
      if (layer.padding_mode == FASTVOC_REPLICATE && front + back > 0 && length == 0) return false;
      lengths.push_back(out_frames(layer, length));
    }
    return true;
  }

  // The layers that the result of one is made of, as a network whose result it is.
  std::vector<fastvoc_layer> up_to(int index) const {
    std::vector<bool> needed(size_t(index) + 1);
    needed[index] = true;
    for (int i = index; i >= 0; --i)
      for (const int from : {layers[i].input, layers[i].residual, layers[i].partial})
        if (needed[i] && from >= 0) needed[from] = true;
    std::vector<fastvoc_layer> part;
    std::vector<int> number(needed.size());
    for (int i = 0; i <= index; ++i) {
      if (!needed[i]) continue;
      number[i] = int(part.size());
      part.push_back(layers[i]);
      for (int* const from : {&part.back().input, &part.back().residual, &part.back().partial})
        if (*from >= 0) *from = number[*from];
    }
    return part;
  }

  // The result of a layer in double precision, of results of those before it; with operands of multiplications rounded
  // as in the plan that was described last.
  Rows result(int index, const Rows& input, const std::vector<Rows>& results) const {
    const fastvoc_layer& layer = layers[index];
    const auto of = [&](int from) -> const Rows& { return from == FASTVOC_INPUT ? input : results[from]; };
    const auto operand = [&](double value) {
      if (layer.input_scale != 0) return quantised(float(value), layer);
      return narrow ? rounded(float(value)) : value;
    };
    if (layer.kind == FASTVOC_SMOOTH_SNAKE) return smoothed(layer, of(layer.input), weights[index]);
    Rows x = of(layer.input);
    for (double& value : x.values) value = operand(value > 0 ? value : value * layer.slope);
    std::vector<double> weight(weights[index].begin(), weights[index].end());
    if (layer.input_scale != 0) {
      quantise(weight, layer);
    } else {
      for (double& value : weight) value = operand(value);
    }
    Rows y = layer.kind == FASTVOC_CONV1D ? convolved(layer, x, weight) : upsampled(layer, x, weight);
    for (size_t v = 0; v < y.values.size(); ++v) {
      double& value = y.values[v];
      if (!biases[index].empty()) value += biases[index][v % size_t(y.channels)];
      if (layer.residual != FASTVOC_NONE) value += of(layer.residual).values[v];
      if (layer.partial != FASTVOC_NONE) value += of(layer.partial).values[v];
      value /= layer.divisor;
      if (value < 0) value *= layer.slope_after;
      if (layer.tanh) value = std::tanh(value);
    }
    return y;
  }

  // A smooth_snake of each channel.
  static Rows smoothed(const fastvoc_layer& layer, const Rows& x, const std::vector<float>& weight) {
    Rows y = x;
    const size_t channels = size_t(layer.in_channels);
    for (size_t c = 0; c < channels && x.frames() > 0; ++c) {
      std::vector<double> signal;
      for (size_t v = c; v < x.values.size(); v += channels) signal.push_back(x.values[v]);
      signal = smooth_snake_of(signal, weight[2 * c], weight[2 * c + 1]);
      for (size_t t = 0; t < signal.size(); ++t) y.values[t * channels + c] = signal[t];
    }
    return y;
  }

 private:
  bool smooths = false;
  bool narrow = false;  // whether operands have fewer bits than float32
  int mode = int(draw(FASTVOC_ZERO, FASTVOC_REPLICATE));  // of the padding of a body: layers that read one result agree

  // To nearest, ties to even, as the definition of the format has it.
  static float rounded(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    bits = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000;
    std::memcpy(&value, &bits, sizeof value);
    return std::fabs(value) < 1.17549435e-38f ? 0 : value;
  }

  // By a multiplication in float32, as plans have it: a division would differ halfway between two steps.
  static double quantised(float value, const fastvoc_layer& layer) {
    const double steps = std::nearbyint(value * (1 / layer.input_scale)) + layer.input_zero_point;
    return layer.input_scale * (std::fmin(std::fmax(steps, 0), 255) - layer.input_zero_point);
  }

  // 255 steps for each output channel; and of an upsampling for each phase, whose taps are a stride apart.
  static void quantise(std::vector<double>& weight, const fastvoc_layer& layer) {
    const bool up = layer.kind == FASTVOC_UPSAMPLE;
    const int64_t outs = layer.out_channels, ins = layer.in_channels, taps = layer.taps, phases = up ? layer.stride : 1;
    for (int64_t out = 0; out < outs; ++out)
      for (int64_t phase = 0; phase < phases; ++phase) {
        const auto for_each = [&](auto visit) {
          for (int64_t in = 0; in < ins; ++in)
            for (int64_t tap = phase; tap < taps; tap += phases)
              visit(weight[size_t((up ? in * outs + out : out * ins + in) * taps + tap)]);
        };
        double largest = 0;
        for_each([&](double& value) { largest = std::fmax(largest, std::fabs(value)); });
        const float scale = largest > 0 ? float(largest) / 127 : 1;
        for_each([&](double& value) { value = scale * std::nearbyint(float(value) / scale); });
      }
  }

  static int64_t source(const fastvoc_layer& layer, int64_t frame, int64_t frames) {
    if (frame >= 0 && frame < frames) return frame;
    if (layer.padding_mode == FASTVOC_ZERO) return -1;
    if (layer.padding_mode == FASTVOC_REPLICATE) return frame < 0 ? 0 : frames - 1;
    return frame < 0 ? -frame : 2 * (frames - 1) - frame;
  }

  static Rows convolved(const fastvoc_layer& layer, const Rows& x, const std::vector<double>& weight) {
    const int64_t frames = x.frames(), count = out_frames(layer, frames);
    Rows y{layer.out_channels, std::vector<double>(count * layer.out_channels)};
    for (int64_t t = 0; t < count; ++t)
      for (int64_t k = 0; k < layer.taps; ++k) {
        const int64_t from = source(layer, t + k * layer.dilation - layer.left, frames);
        if (from < 0) continue;
        for (int64_t o = 0; o < layer.out_channels; ++o) {
          const double* w = weight.data() + o * layer.in_channels * layer.taps + k;
          double sum = 0;
          for (int64_t i = 0; i < layer.in_channels; ++i) sum += x.row(from)[i] * w[i * layer.taps];
          y.values[t * layer.out_channels + o] += sum;
        }
      }
    return y;
  }

  static Rows upsampled(const fastvoc_layer& layer, const Rows& x, const std::vector<double>& weight) {
    const int64_t frames = x.frames(), count = out_frames(layer, frames), taps = layer.taps;
    Rows y{layer.out_channels, std::vector<double>(count * layer.out_channels)};
    for (int64_t t = 0; t < count; ++t)
      for (int64_t k = (t + layer.left) % layer.stride; k < taps; k += layer.stride) {
        int64_t from = t + layer.left < k ? -1 : (t + layer.left - k) / layer.stride;
        if (from < 0 && layer.padding_mode == FASTVOC_REPLICATE) from = 0;
        if (from < 0 || from >= frames) continue;
        for (int64_t i = 0; i < layer.in_channels; ++i) {
          const double value = x.row(from)[i], *w = weight.data() + i * layer.out_channels * taps + k;
          for (int64_t o = 0; o < layer.out_channels; ++o) y.values[t * layer.out_channels + o] += value * w[o * taps];
        }
      }
    return y;
  }

  // Sizes on both sides of panels of every width, and of what multiplies less by Toom-Cook's method.
  static int64_t channels() {
    constexpr int64_t kSizes[] = {1, 2, 3, 5, 8, 16, 17, 24, 31, 32, 33, 35, 40, 47, 48, 52, 64, 70};
    return kSizes[draw(0, 17)];
  }

  static float some_slope() { return toss() ? 0.1f : draw(0, 2) ? 1.0f : 0.0f; }

  fastvoc_layer& add(const fastvoc_layer& layer) {
    layers.push_back(layer);
    std::normal_distribution<float> normal;
    // Results are about as large as inputs.
    const double terms = double(layer.in_channels * layer.taps) / double(layer.stride);
    std::vector<float> weight(layer.in_channels * layer.out_channels * layer.taps);
    for (float& value : weight) value = normal(generator()) / float(std::sqrt(terms > 1 ? terms : 1));
    weights.push_back(std::move(weight));
    biases.emplace_back(draw(0, 3) ? layer.out_channels : 0);
    for (float& value : biases.back()) value = normal(generator());
    return layers.back();
  }

  fastvoc_layer& add_conv(int input, int64_t in, int64_t out) {
    const int64_t taps = draw(0, 4) ? draw(0, 5) * 2 + 1 : draw(1, 13), dilation = toss() ? 1 : draw(1, 6);
    fastvoc_layer layer{FASTVOC_CONV1D, input, FASTVOC_NONE, FASTVOC_NONE, mode, 0,
                        in, out, taps, dilation, 1, 0, 0, some_slope(), 1.0f, 1.0f, nullptr, nullptr};
    pad(layer);
    if (draw(0, 9) == 0) layer.right = draw(0, dilation * (taps - 1));
    if (draw(0, 9) == 0) layer.slope_after = 0.2f;
    return add(layer);
  }

  // As many frames result as come.
  static void pad(fastvoc_layer& layer) {
    const int64_t span = layer.dilation * (layer.taps - 1), kind = draw(0, 3);
    layer.left = kind == 0 ? span : kind == 1 ? draw(0, span) : span / 2;
    layer.right = span - layer.left;
  }

  fastvoc_layer& add_upsample(int input, int64_t in, int64_t out) {
    const int64_t stride = draw(1, toss() ? 9 : 3);
    fastvoc_layer layer{FASTVOC_UPSAMPLE, input, FASTVOC_NONE, FASTVOC_NONE, FASTVOC_ZERO, 0, in, out, 0, 1, stride, 0,
                        0, some_slope(), 1.0f, toss() ? 1.0f : 0.2f, nullptr, nullptr};
    if (draw(0, 3) == 0) {
      layer.padding_mode = FASTVOC_REPLICATE;
      layer.taps = draw(1, 2 * stride);
      layer.left = draw(0, stride);
      layer.right = layer.taps > stride ? layer.taps - stride + draw(0, 1) : draw(0, 2);
    } else {
      layer.taps = toss() ? 2 * stride : draw(1, 4 * stride);
      const int64_t over = layer.taps > stride ? layer.taps - stride : 0;
      layer.left = toss() ? over / 2 : draw(0, layer.taps + stride);
      layer.right = toss() ? over - over / 2 : draw(0, layer.taps + 2);
    }
    return add(layer);
  }

  // A layer that has as many channels and frames as its input.
  fastvoc_layer& add_same(int input, int64_t channels) {
    fastvoc_layer& layer = add_conv(input, channels, channels);
    if (layer.left + layer.right != layer.dilation * (layer.taps - 1)) pad(layer);
    return layer;
  }

  // A product of single rows.
  fastvoc_layer& add_product(int input, int64_t channels) {
    return add({FASTVOC_CONV1D, input, FASTVOC_NONE, FASTVOC_NONE, mode, 0, channels, channels, 1, 1, 1, 0, 0, some_slope(),
                1.0f, 1.0f, nullptr, nullptr});
  }

  void add_body(int64_t channels) {
    mode = int(draw(FASTVOC_ZERO, FASTVOC_REPLICATE));
    const int64_t kind = draw(0, 5);
    if (kind == 0) return;
    if (kind == 1) {
      for (int64_t count = draw(1, 3); count > 0; --count) add_conv(last(), channels, channels);
    } else if (kind == 2) {
      add_shortcuts(channels);
    } else if (kind == 3) {
      add_anything(channels);
    } else {
      add_branches(channels);
    }
  }

  // BigVGAN's activation, so weak that it adds little to roundings.
  void add_snake(int input, int64_t channels) {
    fastvoc_layer layer{FASTVOC_SMOOTH_SNAKE, input, FASTVOC_NONE, FASTVOC_NONE, FASTVOC_ZERO, 0, channels, channels, 2, 1,
                        1, 0, 0, 1.0f, 1.0f, 1.0f, nullptr, nullptr};
    add(layer);
    biases.back().clear();
    weights.back().resize(size_t(2 * channels));
    for (size_t i = 0; i < weights.back().size(); ++i) weights.back()[i] = 0.1f * float(draw(5, 10)) * (i % 2 ? 0.5f : 1);
  }

  // HiFi-GAN's: the mean of several branches of pairs of layers, each pair added to its input.
  void add_branches(int64_t channels) {
    const int begin = last();
    const int64_t branches = draw(1, 3), units = draw(1, 2);
    const bool pairs = toss();
    int total = FASTVOC_NONE;
    for (int64_t branch = 0; branch < branches; ++branch) {
      int input = begin;
      for (int64_t unit = 0; unit < units; ++unit) {
        const bool smooth = smooths && draw(0, 3) == 0;
        if (smooth) add_snake(input, channels);
        if (pairs) add_same(smooth ? last() : input, channels);
        fastvoc_layer& layer = add_same(pairs || smooth ? last() : input, channels);
        layer.residual = input;
        if (unit == units - 1) layer.partial = total;
        if (unit == units - 1 && branch == branches - 1) layer.divisor = float(branches);
        input = last();
      }
      total = input;
    }
  }

  // MelGAN's: a shortcut with a weight of its own beside a pair of layers.
  void add_shortcuts(int64_t channels) {
    for (int64_t unit = draw(1, 3); unit > 0; --unit) {
      const int input = last();
      const bool products = draw(0, 2) > 0;
      if (products) {
        add_product(input, channels);
      } else {
        add_same(input, channels).slope = 1;
      }
      const int beside = last();
      add_same(input, channels);
      (products ? add_product(last(), channels) : add_same(last(), channels)).residual = beside;
    }
  }

  // Every layer reads any result that there is; in the end all have been read.
  void add_anything(int64_t channels) {
    std::vector<int> results{last()}, unread{last()};
    const auto take_unread = [&] {
      const int64_t at = draw(0, int64_t(unread.size()) - 1);
      const int result = unread[at];
      unread.erase(unread.begin() + at);
      return result;
    };
    for (int64_t left = draw(1, 6); left > 0 || unread.size() > 1; --left) {
      const bool gather = left <= 0 || unread.size() > 3;
      const auto any = [&] { return results[draw(0, int64_t(results.size()) - 1)]; };
      const auto forget = [&](int result) {
        for (size_t i = 0; i < unread.size(); ++i)
          if (unread[i] == result) unread.erase(unread.begin() + int64_t(i));
        return result;
      };
      fastvoc_layer& layer = add_same(gather || toss() ? take_unread() : forget(any()), channels);
      if (gather ? !unread.empty() : toss()) layer.residual = gather ? take_unread() : forget(any());
      if (gather ? !unread.empty() : draw(0, 3) == 0) layer.partial = gather ? take_unread() : forget(any());
      if (draw(0, 3) == 0) layer.divisor = 2;
      if (draw(0, 7) == 0) layer.tanh = 1;
      results.push_back(last());
      unread.push_back(last());
    }
  }
};

}  // namespace fastvoc_tests
