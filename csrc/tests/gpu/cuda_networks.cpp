// Networks through plans for GPUs, whose kernels the CPU runs (driver_on_cpu.cpp), against plain loops in double
// precision: random ones and those of the field, in all precisions, for several GPUs, with items of different lengths,
// inputs in any memory order, and memory of exactly the promised size that holds no numbers before it is used.
//
// What an item of a batch becomes has the same bits whatever else is in the batch and however long its bucket is.
//
// A result may differ from the exact one by twice of what the same network in double precision does if it rounds all
// that layers multiply and make. Arguments: how many to draw, and the number of the only one to run. Exits with 0 if
// all is well.

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "../../fastvoc_cuda.h"
#include "../networks.h"

namespace {

using namespace fastvoc_tests;

// ---- numbers as they are stored

int mantissa_of(int precision) { return precision == FASTVOC_BFLOAT16 ? 7 : 10; }

// To the nearest, ties to even; of float16 also where it has fewer bits.
double rounded(double value, int precision) {
  if (value == 0 || !std::isfinite(value)) return value;
  int exponent;
  std::frexp(value, &exponent);
  int unit = exponent - 1 - mantissa_of(precision);
  if (precision == FASTVOC_FLOAT16) unit = std::max(unit, -24);
  return std::ldexp(std::nearbyint(std::ldexp(value, -unit)), unit);
}

int element_bytes(int precision) { return precision == FASTVOC_TFLOAT32 ? 4 : 2; }

void write_element(char* to, double value, int type, int precision) {
  if (type == FASTVOC_FLOATS || precision == FASTVOC_TFLOAT32) {
    const float exact = float(value);
    std::memcpy(to, &exact, 4);
    return;
  }
  uint16_t bits;
  if (precision == FASTVOC_BFLOAT16) {
    const float exact = float(rounded(value, precision));
    std::memcpy(&bits, reinterpret_cast<const char*>(&exact) + 2, 2);
  } else {
    const _Float16 exact = _Float16(value);
    std::memcpy(&bits, &exact, 2);
  }
  std::memcpy(to, &bits, 2);
}

double read_element(const char* from, int type, int precision) {
  if (type == FASTVOC_INT16) {
    int16_t value;
    std::memcpy(&value, from, 2);
    return value;
  }
  if (type == FASTVOC_FLOATS || precision == FASTVOC_TFLOAT32) {
    float value;
    std::memcpy(&value, from, 4);
    return value;
  }
  if (precision == FASTVOC_BFLOAT16) {
    float value = 0;
    std::memcpy(reinterpret_cast<char*>(&value) + 2, from, 2);
    return value;
  }
  _Float16 value;
  std::memcpy(&value, from, 2);
  return double(value);
}

// ---- memory

// Bytes of 0xff are not numbers, in any of the formats.
class Block {
 public:
  explicit Block(int64_t size, int64_t shift = 0) : size_(size), shift_(shift) {
    if (size < 0 || posix_memalign(&memory_, 256, size_t(size + shift)) != 0) std::abort();
    std::memset(memory_, 0xff, size_t(size + shift));
  }
  ~Block() { std::free(memory_); }
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;
  char* data() { return static_cast<char*>(memory_) + shift_; }
  int64_t size() const { return size_; }

 private:
  void* memory_ = nullptr;
  int64_t size_, shift_;
};

// A batch of (channels, frames) in any memory order.
struct Input {
  int64_t channels, frames;
  int type;
  int64_t strides[3];
  Block block;

  static int64_t gap() { return draw(0, 2) ? 0 : draw(1, 9); }
  Input(const std::vector<Rows>& items, int64_t channels, int64_t frames, int precision, bool last)
      : channels(channels),
        frames(frames),
        type(toss() ? FASTVOC_ELEMENTS : FASTVOC_FLOATS),
        strides{0, last ? 1 : frames + gap(), last ? channels + (toss() ? 0 : 8 * draw(0, 1)) + gap() : 1},
        block(bytes(int64_t(items.size()), precision), draw(0, 3) ? 0 : element(precision)) {
    for (size_t item = 0; item < items.size(); ++item)
      for (int64_t t = 0; t < items[item].frames(); ++t)
        for (int64_t c = 0; c < channels; ++c)
          write_element(
              block.data() + (int64_t(item) * strides[0] + c * strides[1] + t * strides[2]) * element(precision),
              items[item].row(t)[c], type, precision);
  }
  int64_t element(int precision) const { return type == FASTVOC_FLOATS ? 4 : element_bytes(precision); }
  int64_t bytes(int64_t batch, int precision) {
    const int64_t one = (channels - 1) * strides[1] + (frames - 1) * strides[2] + 1;
    strides[0] = (one + 7) / 8 * 8 + (draw(0, 2) ? 0 : draw(1, 9));
    return ((batch - 1) * strides[0] + one) * element(precision);
  }
};

// ---- networks

struct Case {
  const char* name;
  Network net;
  bool other = false;  // whether a layer adds a second input
};

fastvoc_layer& add(Network& net, int kind, int input, int64_t in, int64_t out, int64_t taps, float slope) {
  fastvoc_layer layer = {};
  layer.kind = kind;
  layer.input = input;
  layer.residual = layer.partial = FASTVOC_NONE;
  layer.padding_mode = FASTVOC_ZERO;
  layer.in_channels = in;
  layer.out_channels = out;
  layer.taps = taps;
  layer.dilation = layer.stride = 1;
  layer.slope = slope;
  layer.divisor = layer.slope_after = 1;
  net.layers.push_back(layer);
  return net.layers.back();
}

int add_conv(Network& net, int input, int64_t in, int64_t out, int64_t taps, int64_t dilation, float slope,
             int mode = FASTVOC_ZERO, bool causal = false) {
  fastvoc_layer& layer = add(net, FASTVOC_CONV1D, input, in, out, taps, slope);
  const int64_t span = dilation * (taps - 1);
  layer.dilation = dilation;
  layer.padding_mode = mode;
  layer.left = causal ? span : span / 2;
  layer.right = span - layer.left;
  return net.last();
}

int add_upsample(Network& net, int input, int64_t in, int64_t out, int64_t taps, int64_t stride, float slope,
                 int64_t left, int64_t right) {
  fastvoc_layer& layer = add(net, FASTVOC_UPSAMPLE, input, in, out, taps, slope);
  layer.stride = stride;
  layer.left = left;
  layer.right = right;
  return net.last();
}

void fill_weights(Network& net) {
  std::normal_distribution<float> normal;
  for (const fastvoc_layer& layer : net.layers) {
    const double terms = double(layer.in_channels * layer.taps) / double(layer.stride);
    const bool activates = layer.kind == FASTVOC_SMOOTH_SNAKE;
    std::vector<float> weight(size_t((activates ? 1 : layer.in_channels) * layer.out_channels * layer.taps));
    for (float& value : weight)
      value = activates ? std::exp(0.3f * normal(generator())) : normal(generator()) / float(std::sqrt(terms > 1 ? terms : 1));
    net.weights.push_back(std::move(weight));
    if (activates) {
      net.biases.emplace_back();
      continue;
    }
    net.biases.emplace_back(draw(0, 5) ? size_t(layer.out_channels) : 0);
    for (float& value : net.biases.back()) value = 0.3f * normal(generator());
  }
}

int draw_mode() { return int(draw(FASTVOC_ZERO, FASTVOC_REPLICATE)); }

// HiFi-GAN's: V1 and V2 have two convolutions per unit, V3 one.
Case hifigan(int64_t channels, std::vector<int64_t> rates, bool two, std::vector<int64_t> taps,
             std::vector<std::vector<int64_t>> dilations) {
  Case result = {two ? (channels > 64 ? "HiFi-GAN V1" : "HiFi-GAN V2") : "HiFi-GAN V3", {}};
  Network& net = result.net;
  net.in_channels = draw(0, 1) ? 20 : 16;
  const bool causal = draw(0, 3) == 0;
  const int mode = draw(0, 2) ? FASTVOC_ZERO : draw_mode();
  int x = add_conv(net, FASTVOC_INPUT, net.in_channels, channels, 7, 1, 1, mode, causal);
  for (const int64_t rate : rates) {
    x = add_upsample(net, x, channels, channels / 2, 2 * rate, rate, 0.1f, causal ? 0 : rate / 2,
                     causal ? rate : rate - rate / 2);
    if (causal) net.layers.back().padding_mode = FASTVOC_REPLICATE;
    channels /= 2;
    int total = FASTVOC_NONE;
    for (size_t branch = 0; branch < taps.size(); ++branch) {
      int y = x;
      for (size_t unit = 0; unit < dilations[branch].size(); ++unit) {
        int z = add_conv(net, y, channels, channels, taps[branch], dilations[branch][unit], 0.1f, mode, causal);
        if (two) z = add_conv(net, z, channels, channels, taps[branch], 1, 0.1f, mode, causal);
        net.layers.back().residual = y;
        if (unit + 1 == dilations[branch].size()) {
          net.layers.back().partial = total;
          if (branch + 1 == taps.size()) net.layers.back().divisor = float(taps.size());
        }
        y = z;
      }
      total = y;
    }
    x = total;
  }
  add_conv(net, x, channels, 1, 7, 1, 0.01f, mode, causal);
  net.layers.back().tanh = 1;
  return result;
}

int add_snake(Network& net, int input, int64_t channels) {
  add(net, FASTVOC_SMOOTH_SNAKE, input, channels, channels, 2, 1);
  return net.last();
}

// Of each stage, branches side by side that read the same rows; an activation before each convolution but upsamplings.
Case bigvgan(int64_t channels, std::vector<int64_t> rates, std::vector<int64_t> taps, std::vector<int64_t> dilations) {
  Case result = {"BigVGAN", {}};
  Network& net = result.net;
  net.in_channels = draw(0, 1) ? 20 : 16;
  const bool stem = draw(0, 3) > 0;  // or else an activation reads what is given
  if (!stem) net.in_channels = channels;
  int x = stem ? add_conv(net, FASTVOC_INPUT, net.in_channels, channels, 7, 1, 1)
               : add_conv(net, add_snake(net, FASTVOC_INPUT, channels), channels, channels, 3, 1, 1);
  for (const int64_t rate : rates) {
    x = add_upsample(net, x, channels, channels / 2, 2 * rate, rate, 1, rate / 2, rate - rate / 2);
    channels /= 2;
    int total = FASTVOC_NONE;
    for (size_t branch = 0; branch < taps.size(); ++branch) {
      int y = x;
      for (const int64_t dilation : dilations) {
        const int z = add_conv(net, add_snake(net, y, channels), channels, channels, taps[branch], dilation, 1);
        const int last = add_conv(net, add_snake(net, z, channels), channels, channels, taps[branch], 1, 1);
        net.layers.back().residual = y;
        y = last;
      }
      net.layers.back().partial = total;
      total = y;
    }
    net.layers.back().divisor = float(taps.size());
    x = total;
  }
  add_conv(net, add_snake(net, x, channels), channels, 1, 7, 1, 1);
  net.layers.back().tanh = toss();
  return result;
}

Case melgan(int64_t channels, std::vector<int64_t> rates, int units, int64_t bands) {
  Case result = {bands > 1 ? "multi-band MelGAN" : "MelGAN", {}};
  Network& net = result.net;
  net.in_channels = 20;
  const int mode = draw(0, 2) ? FASTVOC_REFLECT : FASTVOC_ZERO;
  int x = add_conv(net, FASTVOC_INPUT, net.in_channels, channels, 7, 1, 1, mode);
  for (const int64_t rate : rates) {
    x = add_upsample(net, x, channels, channels / 2, 2 * rate, rate, 0.2f, rate / 2 + rate % 2,
                     rate - rate / 2 - rate % 2);
    channels /= 2;
    int64_t dilation = 1;
    for (int unit = 0; unit < units; ++unit, dilation *= 3) {
      const int shortcut = add_conv(net, x, channels, channels, 1, 1, 1);
      const int y = add_conv(net, x, channels, channels, 3, dilation, 0.2f, mode);
      x = add_conv(net, y, channels, channels, 1, 1, 0.2f);
      net.layers.back().residual = shortcut;
    }
  }
  x = add_conv(net, x, channels, bands, 7, 1, 0.2f, mode);
  net.layers.back().tanh = 1;
  if (bands > 1) add_upsample(net, x, bands, 1, 16 * bands - 1, bands, 1, 8 * bands - 1, 7 * bands);
  return result;
}

// A single operator: a convolution or an upsampling, maybe with something added.
Case single() {
  constexpr int64_t kChannels[] = {1, 4, 8, 12, 20, 32, 40, 64, 96, 130, 256};
  Case result = {"an operator", {}};
  Network& net = result.net;
  const int64_t in = kChannels[draw(0, 10)], out = kChannels[draw(0, 10)];
  net.in_channels = in;
  if (draw(0, 2)) {
    const int64_t taps = draw(1, 9), dilation = draw(1, 4), span = dilation * (taps - 1);
    add_conv(net, FASTVOC_INPUT, in, out, taps, dilation, toss() ? 0.1f : 1, draw_mode());
    fastvoc_layer& layer = net.layers.back();
    layer.left = draw(0, span);
    layer.right = draw(0, span);
    layer.gelu = draw(0, 3) == 0;
    layer.tanh = !layer.gelu && toss();
    if (toss()) {
      (toss() ? layer.residual : layer.partial) = FASTVOC_OTHER_INPUT;
      result.other = true;
    } else if (in == out && layer.left + layer.right == span) {
      layer.residual = FASTVOC_INPUT;
    }
  } else {
    const int64_t stride = draw(1, 8), taps = draw(1, 3 * stride);
    add_upsample(net, FASTVOC_INPUT, in, out, taps, stride, toss() ? 0.1f : 1, draw(0, taps), 0);
    net.layers.back().right = draw(0, std::max<int64_t>(0, stride - 1));
  }
  return result;
}

// Narrow layers with shortcuts of their own, each with another padding, as uneven as it may be.
Case uneven() {
  constexpr int64_t kChannels[] = {8, 12, 16, 32, 48};
  Case result = {"uneven layers", {}};
  Network& net = result.net;
  const int64_t channels = net.in_channels = kChannels[draw(0, 4)];
  const auto add_uneven = [&](int input, int64_t most) {
    const int64_t taps = draw(1, most), dilation = draw(1, 4), span = dilation * (taps - 1);
    add_conv(net, input, channels, channels, taps, dilation, toss() ? 0.1f : 1, draw_mode());
    fastvoc_layer& layer = net.layers.back();
    layer.left = toss() ? draw(0, span) : toss() ? span : 0;
    layer.right = span - layer.left;
    return net.last();
  };
  int x = FASTVOC_INPUT;
  for (int64_t unit = draw(2, 4); unit > 0; --unit) {
    const int shortcut = add_uneven(x, 5);
    if (draw(0, 3) == 0) net.layers.back().divisor = 2;
    if (draw(0, 3) == 0) net.layers.back().slope_after = 0.3f;
    const int y = toss() ? add_uneven(x, 7) : x;
    x = add_uneven(y, 5);
    (toss() ? net.layers.back().residual : net.layers.back().partial) = shortcut;
    if (draw(0, 3) == 0) net.layers.back().tanh = 1;
  }
  return result;
}

Case draw_case(int64_t number) {
  Case result;
  switch (number % 10) {
    case 0:
      result = hifigan(draw(0, 1) ? 128 : 64, {draw(2, 3), 2}, true, {3, 7, 11}, {{1, 3}, {1, 3}, {1, 5}});
      break;
    case 1:
      result = hifigan(64, {2, 2, draw(2, 3)}, true, {3, 5, 7}, {{1, 3, 5}, {1, 3, 5}, {1, 3, 5}});
      break;
    case 2:
      result = hifigan(draw(0, 1) ? 128 : 64, {2, 4}, false, {3, 5, 7}, {{1, 2}, {2, 6}, {3, 12}});
      break;
    case 3:
      result = melgan(draw(0, 1) ? 128 : 32, {2, draw(2, 3)}, 3, 1);
      break;
    case 4:
      result = melgan(draw(0, 1) ? 96 : 192, {3, 2}, 3, 4);
      break;
    case 5:
      result = single();
      break;
    case 6:
      result = uneven();
      break;
    case 7:
      result = bigvgan(draw(0, 2) ? 2 * draw(10, 40) : 256, {draw(2, 3), 2}, {3, 7, 11}, {1, draw(2, 5)});
      break;
    default:
      result = {"a random network", Network::random()};
      return result;
  }
  fill_weights(result.net);
  return result;
}

// ---- what layers mean

int64_t padded_row(int64_t row, int64_t rows, int mode) {
  if (row >= 0 && row < rows) return row;
  if (mode == FASTVOC_ZERO) return -1;
  if (mode == FASTVOC_REPLICATE) return row < 0 ? 0 : rows - 1;
  return row < 0 ? -row : 2 * (rows - 1) - row;
}

// With what is multiplied and what is made rounded, or only what was given.
Rows result_of(const Network& net, const Rows& x, const Rows& other, int precision, bool rounds) {
  std::vector<Rows> results;
  const auto round = [&](double value) { return rounds ? rounded(value, precision) : value; };
  for (size_t i = 0; i < net.layers.size(); ++i) {
    const fastvoc_layer& layer = net.layers[i];
    const auto of = [&](int from) -> const Rows& {
      return from == FASTVOC_INPUT ? x : from == FASTVOC_OTHER_INPUT ? other : results[size_t(from)];
    };
    const bool up = layer.kind == FASTVOC_UPSAMPLE;
    const Rows& input = of(layer.input);
    const int64_t rows = input.frames(), count = Network::out_frames(layer, rows), outs = layer.out_channels;
    std::vector<double> operand(input.values), weight(net.weights[i].begin(), net.weights[i].end());
    for (double& value : operand) value = round(value < 0 ? value * layer.slope : value);
    if (layer.kind == FASTVOC_SMOOTH_SNAKE) {
      Rows y = Network::smoothed(layer, {outs, operand}, net.weights[i]);
      for (double& value : y.values) value = round(value);
      results.push_back(std::move(y));
      continue;
    }
    for (double& value : weight) value = rounded(value, precision);
    Rows y{outs, std::vector<double>(size_t(count * outs))};
    for (int64_t t = 0; t < count; ++t)
      for (int64_t k = up ? (t + layer.left) % layer.stride : 0; k < layer.taps; k += up ? layer.stride : 1) {
        int64_t from = up ? (t + layer.left - k) / layer.stride : t + k * layer.dilation - layer.left;
        if (up && t + layer.left < k) from = layer.padding_mode == FASTVOC_REPLICATE ? 0 : -1;
        if (up && from >= rows) from = -1;
        if (!up) from = padded_row(from, rows, layer.padding_mode);
        if (from < 0) continue;
        for (int64_t in = 0; in < layer.in_channels; ++in)
          for (int64_t out = 0; out < outs; ++out)
            y.values[size_t(t * outs + out)] +=
                operand[size_t(from * layer.in_channels + in)] *
                weight[size_t((up ? in * outs + out : out * layer.in_channels + in) * layer.taps + k)];
      }
    for (size_t v = 0; v < y.values.size(); ++v) {
      double& value = y.values[v];
      if (!net.biases[i].empty()) value += net.biases[i][v % size_t(outs)];
      for (const int added : {layer.residual, layer.partial})
        if (added != FASTVOC_NONE) value += of(added).values[v];
      if (layer.gelu) value *= 0.5 * std::erfc(-value * 0.7071067811865476);
      value /= layer.divisor;
      if (value < 0) value *= layer.slope_after;
      if (layer.tanh) value = std::tanh(value);
      value = round(value);
    }
    results.push_back(std::move(y));
  }
  return std::move(results.back());
}

// ---- one case

struct Setting {
  fastvoc_gpu gpu;
  int precision;
  bool narrow;  // weights are given in the precision
};

struct Made {
  Block plan, packed;
};

int64_t plans = 0, refused = 0, launched = 0, chains = 0, hoppers = 0;

// Elements of the result of a run: [item][row][channel], as they are written.
struct Output {
  std::vector<int64_t> rows;
  std::vector<std::vector<char>> items;
};

struct Given {
  std::vector<Rows> x, other;
  std::vector<int> lengths;
};

const char* run_batch(const Case& drawn, const Setting& setting, Made& made, void* kernels, const Given& given,
                      int64_t frames, bool ragged, int y_type, Output& output) {
  const fastvoc_layer& last = drawn.net.layers.back();
  const int64_t batch = int64_t(given.x.size()), channels = last.out_channels;
  const int64_t rows = fastvoc_cuda_plan_out_frames(made.plan.data(), frames);
  if (rows < 1) return "no result";
  Input x(given.x, drawn.net.in_channels, frames, setting.precision, toss());
  const Input other(given.other, channels, drawn.other ? rows : 1, setting.precision, toss());
  const int64_t work = fastvoc_cuda_plan_workspace_size(made.plan.data(), batch, frames);
  if (work < 0) return "no workspace";
  Block workspace(work), lengths(batch * 4);
  std::memcpy(lengths.data(), given.lengths.data(), size_t(batch * 4));
  fastvoc_cuda_call call = {};
  call.batch = batch;
  call.frames = frames;
  call.lengths = ragged ? reinterpret_cast<const int*>(lengths.data()) : nullptr;
  call.x = x.block.data();
  call.x_type = x.type;
  std::copy(x.strides, x.strides + 3, call.x_strides);
  Input& second = const_cast<Input&>(other);
  call.other = drawn.other ? second.block.data() : nullptr;
  call.other_type = other.type;
  std::copy(other.strides, other.strides + 3, call.other_strides);
  const int64_t element = y_type == FASTVOC_FLOATS ? 4 : y_type == FASTVOC_INT16 ? 2 : element_bytes(setting.precision);
  call.y_row = channels + (draw(0, 2) ? 0 : draw(1, 9));
  call.y_item = (rows - 1) * call.y_row + channels + (draw(0, 2) ? 0 : draw(1, 9));
  call.y_type = y_type;
  Block y(((batch - 1) * call.y_item + (rows - 1) * call.y_row + channels) * element, draw(0, 3) ? 0 : element);
  call.y = y.data();
  if (const int code =
          fastvoc_cuda_plan_run(made.plan.data(), kernels, made.packed.data(), workspace.data(), nullptr, &call)) {
    std::printf("%s (%s): ", fastvoc_error(code), fastvoc_cuda_message());
    return "a run that fails";
  }
  const int launches = fastvoc_cuda_plan_launches(made.plan.data(), batch, frames);
  launched += launches;
  for (int i = 0; i < launches; ++i) {
    const char* const name = fastvoc_cuda_plan_kernel(made.plan.data(), batch, frames, i);
    if (!name) return "a kernel without a name";
    chains += std::strncmp(name, "chain", 5) == 0;
    hoppers += std::strncmp(name, "hopper", 6) == 0;
  }
  if (fastvoc_cuda_plan_kernel(made.plan.data(), batch, frames, launches)) return "a kernel too many";
  std::vector<bool> own(size_t(y.size()));
  for (int64_t item = 0; item < batch; ++item) {
    const int length = given.lengths[size_t(item)];
    const int64_t count = length == 0 ? 0 : fastvoc_cuda_plan_out_frames(made.plan.data(), length);
    std::vector<char> values;
    for (int64_t t = 0; t < count; ++t) {
      const int64_t at = (item * call.y_item + t * call.y_row) * element;
      values.insert(values.end(), y.data() + at, y.data() + at + channels * element);
      for (int64_t i = at; i < at + channels * element; ++i) own[size_t(i)] = true;
    }
    output.rows.push_back(count);
    output.items.push_back(std::move(values));
  }
  for (int64_t i = 0; i < y.size(); ++i)
    if (!own[size_t(i)] && y.data()[i] != char(0xff)) return "more than the result is written";
  return nullptr;
}

// Whether a result is as near to the exact one as the rounded one is, within a factor.
const char* compare(const std::vector<char>& values, int y_type, int precision, const Rows& exact, const Rows& near) {
  const int64_t element = y_type == FASTVOC_FLOATS ? 4 : y_type == FASTVOC_INT16 ? 2 : element_bytes(precision);
  if (values.size() != exact.values.size() * size_t(element)) return "another length";
  double worst = 0, mean = 0, worst_near = 0, mean_near = 0, largest = 0;
  size_t where = 0;
  for (size_t i = 0; i < exact.values.size(); ++i) {
    const double own = read_element(values.data() + i * size_t(element), y_type, precision);
    double want = exact.values[i], also = near.values[i];
    if (y_type == FASTVOC_INT16) {
      want = std::fmax(std::fmin(32767 * want, 32767), -32768);
      also = std::nearbyint(std::fmax(std::fmin(32767 * also, 32767), -32768));
    }
    if (!(std::fabs(own - want) <= worst)) {
      worst = std::isnan(own) ? INFINITY : std::fabs(own - want);
      where = i;
    }
    worst_near = std::fmax(worst_near, std::fabs(also - want));
    mean += (own - want) * (own - want);
    mean_near += (also - want) * (also - want);
    largest = std::fmax(largest, std::fabs(want));
  }
  // Of few values, by chance all may lie where rounding does nothing.
  const double unit = std::ldexp(1.0, -mantissa_of(precision) - 1);
  const double floor = y_type == FASTVOC_INT16 ? largest * unit + 0.5 : largest * unit;
  const double count = double(exact.values.size());
  if (std::sqrt(mean / count) <= 2 * std::sqrt(mean_near / count) + floor / 2 && worst <= 3 * worst_near + 2 * floor)
    return nullptr;
  std::printf("row %zu, channel %zu: off by %g, where rounding makes %g of %g (means %g, %g): ",
              where / size_t(exact.channels), where % size_t(exact.channels), worst, worst_near, largest,
              std::sqrt(mean / count), std::sqrt(mean_near / count));
  return "a wrong result";
}

constexpr int64_t kWork = 40000000;  // multiply-adds of an item

const char* wrong(Case& drawn, const Setting& setting, void* kernels) {
  Network& net = drawn.net;
  for (size_t i = 0; i < net.layers.size(); ++i) {
    net.layers[i].weight = net.weights[i].data();
    net.layers[i].bias = net.biases[i].empty() ? nullptr : net.biases[i].data();
    net.layers[i].input_scale = 0;
  }
  fastvoc_network network = {0, setting.precision, 0, int(net.layers.size()), net.layers.data()};
  Block probe(fastvoc_cuda_plan_size(&network));
  ++plans;
  if (const int code = fastvoc_cuda_plan_make(&network, &setting.gpu, probe.data())) {
    ++refused;
    std::printf("%s is refused: %s\n", drawn.name, fastvoc_error(code));
    return code == FASTVOC_BAD_SIZE || (code == FASTVOC_BAD_PADDING && setting.precision >= 0) ? nullptr : "no plan";
  }
  Made made = {Block(probe.size()), Block(fastvoc_cuda_plan_packed_size(probe.data()))};
  std::memcpy(made.plan.data(), probe.data(), size_t(probe.size()));

  // Weights that are given in the precision, or as floats.
  std::vector<std::vector<char>> narrow;
  std::vector<fastvoc_layer> layers = net.layers;
  if (setting.narrow) {
    const auto convert = [&](const std::vector<float>& from) -> const float* {
      if (from.empty()) return nullptr;
      narrow.emplace_back(from.size() * size_t(element_bytes(setting.precision)));
      for (size_t i = 0; i < from.size(); ++i)
        write_element(narrow.back().data() + i * size_t(element_bytes(setting.precision)), from[i], FASTVOC_ELEMENTS,
                      setting.precision);
      return reinterpret_cast<const float*>(narrow.back().data());
    };
    for (size_t i = 0; i < layers.size(); ++i) {
      if (layers[i].kind == FASTVOC_SMOOTH_SNAKE) continue;  // whose weight is float32
      layers[i].weight = convert(net.weights[i]);
      layers[i].bias = convert(net.biases[i]);
      for (float& value : net.biases[i]) value = float(rounded(value, setting.precision));
    }
    network.layers = layers.data();
  }
  if (fastvoc_cuda_plan_pack(&network, made.plan.data(), kernels, setting.narrow, made.packed.data(), nullptr))
    return "a plan that cannot be packed";

  // Lengths that padding can live with.
  const int64_t batch = draw(1, 3);
  Given given;
  const int64_t work = net.work(100) / 100 + 1, longest = std::max<int64_t>(4, std::min<int64_t>(600, kWork / work));
  int64_t shortest = 1;
  while (shortest < 200 && fastvoc_cuda_plan_out_frames(made.plan.data(), shortest) < 1) ++shortest;
  if (shortest == 200) return nullptr;
  std::normal_distribution<float> normal;
  const auto rows = [&](int64_t count, int64_t channels) {
    Rows result{channels, std::vector<double>(size_t(count * channels))};
    for (double& value : result.values) value = rounded(normal(generator()), setting.precision);
    return result;
  };
  int64_t most = 0;
  for (int64_t item = 0; item < batch; ++item) {
    const int64_t frames = draw(shortest, std::max(shortest, longest));
    const int64_t count = fastvoc_cuda_plan_out_frames(made.plan.data(), frames);
    if (count < 1) return "a longer signal is refused";
    given.lengths.push_back(int(frames));
    given.x.push_back(rows(frames, net.in_channels));
    given.other.push_back(rows(drawn.other ? count : 1, net.layers.back().out_channels));
    most = std::max(most, frames);
  }
  const int y_type = int(draw(FASTVOC_ELEMENTS, FASTVOC_INT16));
  Output all;
  const int64_t bucket = draw(0, 2) ? most : most + draw(1, 40);
  const bool same = std::all_of(given.lengths.begin(), given.lengths.end(), [&](int l) { return l == bucket; });
  if (const char* what = run_batch(drawn, setting, made, kernels, given, bucket, !same || toss(), y_type, all))
    return what;
  for (int64_t item = 0; item < batch; ++item) {
    const Rows exact = result_of(net, given.x[size_t(item)], given.other[size_t(item)], setting.precision, false);
    const Rows near = result_of(net, given.x[size_t(item)], given.other[size_t(item)], setting.precision, true);
    if (const char* what = compare(all.items[size_t(item)], y_type, setting.precision, exact, near)) return what;
    // By itself, in a bucket of its own.
    Given one;
    one.x.push_back(given.x[size_t(item)]);
    one.other.push_back(given.other[size_t(item)]);
    one.lengths.push_back(given.lengths[size_t(item)]);
    Output alone;
    const bool padded = toss();
    if (const char* what =
            run_batch(drawn, setting, made, kernels, one, one.lengths[0] + (padded ? draw(1, toss() ? 40 : 2000) : 0),
                      padded || toss(), y_type, alone))
      return what;
    if (alone.items[0] != all.items[size_t(item)]) return "other bits by itself";
    if (batch > 1 && toss()) break;
  }
  return nullptr;
}

// GPUs by their shared memory; how many multiprocessors there are decides about the size of tiles.
Setting draw_setting() {
  constexpr fastvoc_gpu kGpus[] = {{75, 40, 64 << 10, 64 << 10},
                                   {80, 108, 163 << 10, 164 << 10},
                                   {89, 128, 99 << 10, 100 << 10},
                                   {90, 132, 227 << 10, 228 << 10},
                                   {90, 132, 227 << 10, 228 << 10, FASTVOC_HOPPER_CHAINS | FASTVOC_HOPPER_IN_TURN}};
  Setting setting = {kGpus[draw(0, 4)], FASTVOC_FLOAT16, toss()};
  if (setting.gpu.architecture >= 80) {
    constexpr int kPrecisions[] = {FASTVOC_FLOAT16, FASTVOC_BFLOAT16, FASTVOC_TFLOAT32};
    setting.precision = kPrecisions[draw(0, 2)];
  }
  if (toss()) setting.gpu.multiprocessors = int(draw(1, 3));
  return setting;
}

Case current;
Setting current_setting;
int64_t current_number;

void print_case() {
  std::printf("%s, number %lld, architecture %d with %d multiprocessors, precision %d\n", current.name,
              (long long)current_number, current_setting.gpu.architecture, current_setting.gpu.multiprocessors,
              current_setting.precision);
  for (size_t i = 0; i < current.net.layers.size(); ++i) {
    const fastvoc_layer& l = current.net.layers[i];
    std::printf(
        "  %2zu %s of %d + %d + %d: mode %d tanh %d, %lld -> %lld, taps %lld dilation %lld stride %lld "
        "padding %lld %lld, slope %g divisor %g after %g bias %d\n",
        i, l.kind == FASTVOC_UPSAMPLE ? "up  " : l.kind == FASTVOC_CONV1D ? "conv" : "act ", l.input, l.residual, l.partial, l.padding_mode, l.tanh,
        (long long)l.in_channels, (long long)l.out_channels, (long long)l.taps, (long long)l.dilation,
        (long long)l.stride, (long long)l.left, (long long)l.right, l.slope, l.divisor, l.slope_after,
        l.bias != nullptr);
  }
  std::fflush(stdout);
}

}  // namespace

extern "C" void __sanitizer_set_death_callback(void (*callback)()) __attribute__((weak));

int main(int argc, char** argv) {
  if (__sanitizer_set_death_callback) __sanitizer_set_death_callback(print_case);
  const int64_t count = argc > 1 ? std::atoll(argv[1]) : 40, only = argc > 2 ? std::atoll(argv[2]) : -1;
  static void* kernels;  // they stay
  const int image = 0;
  if (fastvoc_cuda_load(&image, &kernels)) return std::printf("no kernels: %s\n", fastvoc_cuda_message()), 1;
  int64_t failures = 0;
  for (int64_t number = 0; number < count; ++number) {
    if (only >= 0 && number != only) continue;
    generator().seed(uint32_t(number));
    current_number = number;
    current = draw_case(number);
    current_setting = draw_setting();
    if (const char* what = wrong(current, current_setting, kernels)) {
      std::printf("%s: ", what);
      print_case();
      ++failures;
    }
  }
  std::printf("%lld plans, %lld refused, %lld launches, %lld of chains, %lld of Hopper's kernels\n", (long long)plans,
              (long long)refused, (long long)launched, (long long)chains, (long long)hoppers);
  return failures > 0 || 8 * refused > plans;
}
