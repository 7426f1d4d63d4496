// The kernels of gradients, run by the CPU, against their definitions in double precision. Signals stand in memory of
// exactly their size, hold no numbers in channels that are fill, and before the kernel has waited for the one before it
// none at all.
//
// Every case runs with all kernels of its precision, in any number of shares, and twice: the same call must give the
// same bits, whoever is first. Arguments: how many to draw, and the number of the only one to run.
#include "../emulator/cuda_on_cpu.h"

#include "../../cuda/device/gradients.cuh"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <vector>

#include "../../cuda/host/gradient_plan.h"

namespace fastvoc::cuda {

#define FASTVOC_WEIGHT_GRADIENT(word, precision, fixed, sliding, rows, warps, taps)          \
  FASTVOC_KERNEL(weight_gradient_##word##_##fixed##x##sliding, WeightGradient, 32 * warps) { \
    weight_gradient<precision, fixed, sliding, rows, warps, taps>(parameter);                \
  }
FASTVOC_WEIGHT_GRADIENTS(FASTVOC_WEIGHT_GRADIENT)
FASTVOC_KERNEL(add_parts, AddParts, 256) { add_shares(parameter); }
FASTVOC_KERNEL(input_gradient, InputGradient, 256) { finish_input_gradient(parameter); }

}  // namespace fastvoc::cuda

namespace {

using namespace fastvoc::cuda;

#define FASTVOC_FUNCTION(word, precision, fixed, sliding, rows, warps, taps) \
  weight_gradient_##word##_##fixed##x##sliding,
void (*const kFunctions[])(const WeightGradient&) = {FASTVOC_WEIGHT_GRADIENTS(FASTVOC_FUNCTION)};
constexpr int kCount = sizeof kFunctions / sizeof *kFunctions;

std::mt19937 generator;
int draw(int low, int high) { return std::uniform_int_distribution<int>(low, high)(generator); }
bool toss() { return draw(0, 1) == 1; }
float normal() { return std::normal_distribution<float>()(generator); }

float rounded(float value, int precision) {
  if (precision == kTfloat32) return round_tf32(value);
  float result, nothing;
  if (precision == kFloat16) {
    unpack_pair<kFloat16>(pack_pair<kFloat16>(value, 0), result, nothing);
  } else {
    unpack_pair<kBfloat16>(pack_pair<kBfloat16>(value, 0), result, nothing);
  }
  return result;
}

float as_stored(float value, int precision) { return precision == kTfloat32 ? value : rounded(value, precision); }

double unit(double value, int precision) {  // the largest error of a stored value of this size
  const double size = std::fabs(value);
  if (precision == kFloat16) return std::max(size * 0x1p-11, 0x1p-25);
  return size * (precision == kBfloat16 ? 0x1p-8 : 0x1p-24);
}

// Memory of exactly so many bytes, aligned to 16, that holds no numbers.
struct Memory {
  size_t bytes;
  std::unique_ptr<char[]> all;
  explicit Memory(size_t size) : bytes(size), all(new char[size + 32]) {
    std::memset(data(), 0xff, bytes);
    guard(true);
  }
  Memory(Memory&&) = default;
  ~Memory() {
    if (all) guard(false);
  }
  char* data() const { return reinterpret_cast<char*>((reinterpret_cast<uintptr_t>(all.get()) + 15) / 16 * 16); }
  void guard([[maybe_unused]] bool on) const {
#if defined(__SANITIZE_ADDRESS__)
    char* const end = data() + bytes;
    (on ? __asan_poison_memory_region : __asan_unpoison_memory_region)(end, size_t(all.get() + bytes + 32 - end));
#endif
  }
};

void write_element(char* to, float value, int precision) {
  if (precision == kTfloat32) {
    std::memcpy(to, &value, 4);
    return;
  }
  const unsigned bits = precision == kFloat16 ? pack_pair<kFloat16>(value, 0) : pack_pair<kBfloat16>(value, 0);
  const unsigned short half = static_cast<unsigned short>(bits);
  std::memcpy(to, &half, 2);
}

float read_element(const char* from, int precision) {
  float value, nothing;
  if (precision == kTfloat32) {
    std::memcpy(&value, from, 4);
    return value;
  }
  unsigned short bits;
  std::memcpy(&bits, from, 2);
  if (precision == kFloat16) {
    unpack_pair<kFloat16>(bits, value, nothing);
  } else {
    unpack_pair<kBfloat16>(bits, value, nothing);
  }
  return value;
}

// Items of (row, channel) anywhere in memory, with strides in elements.
struct Tensor {
  int items, rows, channels, precision;
  int64_t item, row, channel;
  Memory memory;
  std::vector<float> value;

  float& at(int i, int r, int c) {
    return value[(size_t(i) * size_t(rows) + size_t(r)) * size_t(channels) + size_t(c)];
  }
  char* address(int i, int r, int c) const {
    return memory.data() + (i * item + r * row + c * channel) * element_bytes(precision);
  }
  void bring() {
    for (int i = 0; i < items; ++i)
      for (int r = 0; r < rows; ++r)
        for (int c = 0; c < channels; ++c) write_element(address(i, r, c), at(i, r, c), precision);
  }
};

// `unit` neighbouring channels at least, and sometimes more; or frames as neighbours.
Tensor make_tensor(int items, int rows, int channels, int precision, int unit, bool channels_last = true) {
  const int64_t stored = (channels + unit - 1) / unit * unit, spare = unit * (toss() ? draw(0, 2) : 0);
  const int64_t along = channels_last ? stored + spare : 1, across = channels_last ? 1 : rows + spare;
  const int64_t item = (channels_last ? along * rows : across * channels) + unit * (toss() ? draw(0, 2) : 0);
  const int64_t last = channels_last ? (rows - 1) * along + stored : (channels - 1) * across + rows;
  Tensor tensor{items, rows,  channels, precision,
                item,  along, across,   Memory(size_t(item * (items - 1) + last) * size_t(element_bytes(precision))),
                {}};
  tensor.value.resize(size_t(items) * size_t(rows) * size_t(channels));
  for (float& value : tensor.value) value = as_stored(normal(), precision);
  return tensor;
}

// What comes into memory when a kernel waits for the one before it.
std::function<void()> arrives;
void arrive() { arrives(); }

template <class Parameter>
void run_late(void (*kernel)(const Parameter&), const Shape& shape, const Parameter& parameter,
              std::function<void()> what) {
  arrives = std::move(what);
  on_cpu::machine.first_wait = arrive;
  run_on_cpu(kernel, shape, parameter);
  on_cpu::machine.first_wait = nullptr;
}

// The shared memory of a block is another one's when it has ended.
bool left_copies = false;
void look_for_copies() {
  for (int i = 0; i < on_cpu::machine.threads; ++i)
    left_copies = left_copies || !on_cpu::machine.fibres[i]->copies.empty();
}

// The row that padding reads in place of another, or -1 for zeros.
int padded(int row, int rows, int mode) {
  if (row >= 0 && row < rows) return row;
  if (mode == kZero) return -1;
  if (mode == kReplicate) return row < 0 ? 0 : rows - 1;
  return row < 0 ? -row : 2 * (rows - 1) - row;
}

struct Sum {
  double sum = 0, terms = 0;
  int count = 0;
  void add(double term) { sum += term, terms += std::fabs(term), ++count; }
  // Whether this is the sum, rounded once. Sums of sixteen may have been made in any order.
  bool is(float got, int precision) const {
    if (!std::isfinite(sum)) return std::isnan(sum) ? std::isnan(got) : got == sum;
    const double error = terms * (count + 8) * 0x1p-24;
    return std::fabs(got - sum) <= error + unit(std::fabs(sum) + error, precision);
  }
};

fastvoc_layer draw_layer(int frames) {
  fastvoc_layer layer{};
  const bool up = toss(), wide = draw(0, 3) == 0;
  layer.kind = up ? FASTVOC_UPSAMPLE : FASTVOC_CONV1D;
  layer.in_channels = wide ? draw(60, 150) : draw(1, 40), layer.out_channels = draw(0, 3) ? draw(1, 40) : draw(60, 90);
  layer.taps = wide ? draw(1, 4) : draw(1, 17), layer.dilation = up ? 1 : draw(1, 5);
  layer.stride = up ? draw(1, 5) : 1;
  layer.slope = toss() ? 1.0f : 0.1f;
  const int64_t span = layer.dilation * (layer.taps - 1);
  if (up) {
    const int64_t all = (frames - 1) * layer.stride + layer.taps;
    layer.left = draw(0, int(std::min<int64_t>(all - 1, 6)));
    layer.right = draw(0, int(std::min<int64_t>(all - 1 - layer.left, 6)));
  } else {
    layer.padding_mode = draw(FASTVOC_ZERO, FASTVOC_REPLICATE);
    const int most = layer.padding_mode == FASTVOC_REFLECT ? frames - 1 : int(span) + 3;
    layer.left = draw(0, std::min(most, int(span) + 3)), layer.right = draw(0, std::min(most, int(span) + 3));
    if (frames + layer.left + layer.right <= span) {
      layer.padding_mode = FASTVOC_ZERO;
      layer.left = span;
    }
  }
  return layer;
}

const fastvoc_gpu kGpu = {80, 4, 163 << 10, 164 << 10}, kSmall = {80, 4, 48 << 10, 64 << 10};

bool weight_is_right(int number) {
  const int precision = draw(kFloat16, kTfloat32), width = chunk_channels(precision);
  const int batch = draw(1, 3), frames = draw(0, 2) ? draw(1, 40) : draw(60, 300);
  const fastvoc_layer layer = draw_layer(frames);
  const bool up = layer.kind == FASTVOC_UPSAMPLE;
  const int in = int(layer.in_channels), out = int(layer.out_channels), taps = int(layer.taps);
  const int result = int(result_frames(layer, frames));
  const bool bias = draw(0, 2) > 0, weight = !bias || draw(0, 4) > 0;
  if (check_gradient(layer, batch, frames) != FASTVOC_OK)
    return std::printf("weight %d: a layer that is right is refused\n", number), false;

  Tensor x = make_tensor(batch, frames, in, precision, width), grad = make_tensor(batch, result, out, precision, width);
  if (draw(0, 4) == 0) x.value[size_t(draw(0, int(x.value.size()) - 1))] = toss() ? INFINITY : NAN;
  if (draw(0, 4) == 0) grad.value[size_t(draw(0, int(grad.value.size()) - 1))] = NAN;
  Tensor operand = make_tensor(batch, frames, in, precision, width);  // of multiplications
  for (size_t i = 0; i < x.value.size(); ++i) {
    const float value = x.value[i];
    operand.value[i] = rounded(value < 0 ? value * layer.slope : value, precision);
  }

  std::vector<Sum> weights(weight ? size_t(in * out * taps) : 0), biases(bias ? size_t(out) : 0);
  for (int i = 0; i < batch; ++i)
    for (int t = 0; t < (up ? frames : result); ++t)
      for (int tap = 0; tap < (weight ? taps : 0); ++tap) {
        const int at = up ? t * int(layer.stride) + tap - int(layer.left)
                          : padded(t + tap * int(layer.dilation) - int(layer.left), frames, layer.padding_mode);
        for (int c = 0; c < in; ++c)
          for (int o = 0; o < out; ++o) {
            const bool zero = at < 0 || at >= (up ? result : frames);
            const double a = up ? operand.at(i, t, c) : zero ? 0 : operand.at(i, at, c);
            const double g = !up    ? rounded(grad.at(i, t, o), precision)
                             : zero ? 0
                                    : rounded(grad.at(i, at, o), precision);
            weights[size_t(((up ? c : o) * (up ? out : in) + (up ? o : c)) * taps + tap)].add(a * g);
          }
      }
  for (int i = 0; i < batch && bias; ++i)
    for (int t = 0; t < result; ++t)
      for (int o = 0; o < out; ++o) biases[size_t(o)].add(grad.at(i, t, o));

  for (int k = 0; k < kCount; ++k) {
    const WeightGradientKernel& kernel = kWeightGradients[k];
    if (kernel.precision != precision) continue;
    GradientPlan plan = plan_gradient(layer, kernel, toss() ? kGpu : kSmall, batch, frames, weight, bias);
    if (toss()) plan.add.shares = draw(1, 7), plan.grid[0] = unsigned(plan.add.shares);
    const auto signal = [](const Tensor& tensor) {
      return Signal{tensor.memory.data(), tensor.item, int(tensor.row), 1, 0};
    };
    plan.sums.fixed = signal(up ? x : grad), plan.sums.sliding = signal(up ? grad : x);
    const size_t floats = size_t(plan.add.shares) * size_t(plan.add.part);
    const Memory parts(floats * 4), later(floats * 4);
    const size_t element = size_t(element_bytes(precision));
    const Memory weight_made(weights.size() * element), bias_made(biases.size() * element);
    std::vector<char> before;
    for (int again = 0; again < 2; ++again) {
      std::memset(parts.data(), 0xff, parts.bytes);
      std::memset(x.memory.data(), 0xff, x.memory.bytes);
      std::memset(grad.memory.data(), 0xff, grad.memory.bytes);
      plan.sums.parts = reinterpret_cast<float*>(parts.data());
      run_late(kFunctions[k],
               {{plan.grid[0], plan.grid[1], plan.grid[2]}, unsigned(32 * kernel.warps), unsigned(plan.shared)},
               plan.sums, [&] { x.bring(), grad.bring(); });
      if (left_copies)
        return std::printf("weight %d: %s ends while copies are on their way\n", number, kernel.name), false;
      std::memset(later.data(), 0xff, later.bytes);
      plan.add.parts = reinterpret_cast<const float*>(later.data());
      plan.add.weight = weight ? weight_made.data() : nullptr, plan.add.bias = bias ? bias_made.data() : nullptr;
      run_late(add_parts, {{unsigned(draw(1, 3)), 1, 1}, 256, 0}, plan.add,
               [&] { std::memcpy(later.data(), parts.data(), parts.bytes); });
      std::vector<char> made(weight_made.data(), weight_made.data() + weight_made.bytes);
      made.insert(made.end(), bias_made.data(), bias_made.data() + bias_made.bytes);
      if (again && made != before)
        return std::printf("weight %d: %s gives other bits when it runs again\n", number, kernel.name), false;
      before = made;
    }
    for (size_t i = 0; i < weights.size() + biases.size(); ++i) {
      const Sum& sum = i < weights.size() ? weights[i] : biases[i - weights.size()];
      const char* const at =
          i < weights.size() ? weight_made.data() + i * element : bias_made.data() + (i - weights.size()) * element;
      const float got = read_element(at, precision);
      if (sum.is(got, precision)) continue;
      return std::printf(
                 "weight %d: %s: number %zu of %zu and %zu is %.9g instead of %.9g\n"
                 "  (%s, batch %d, %d frames, %d to %d channels, %d taps, dilation %d, stride %d, padding %d and "
                 "%d, mode %d, slope %g, %d shares, %d groups)\n",
                 number, kernel.name, i, weights.size(), biases.size(), double(got), sum.sum,
                 up ? "upsample" : "conv1d", batch, frames, in, out, taps, int(layer.dilation), int(layer.stride),
                 int(layer.left), int(layer.right), layer.padding_mode, double(layer.slope), plan.add.shares,
                 plan.sums.groups),
             false;
    }
  }
  return true;
}

bool input_is_right(int number) {
  const int precision = draw(kFloat16, kTfloat32), mode = draw(kZero, kReplicate);
  const int width = chunk_channels(precision);
  const bool whole = mode == kZero && toss();  // chunks
  const int batch = draw(1, 3), channels = whole ? width * draw(1, 5) : draw(1, 40);
  const int frames = draw(0, 2) ? draw(1, 9) : draw(30, 90);
  const int most = mode == kReflect ? frames - 1 : 12;
  InputGradient call{};
  call.mode = mode, call.precision = precision, call.channels = channels, call.frames = frames;
  call.left = mode == kZero ? 0 : draw(0, most), call.right = mode == kZero ? 0 : draw(0, most);
  call.slope = whole || draw(0, 3) ? 0.2f : 1.0f;
  call.chunks = whole ? channels / width : 0;
  const bool last = whole || toss();
  Tensor padded_gradient =
      make_tensor(batch, frames + call.left + call.right, channels, precision, whole ? width : 1, whole || toss());
  Tensor x = make_tensor(batch, frames, channels, precision, whole ? width : 1, last);
  Tensor y = make_tensor(batch, frames, channels, precision, whole ? width : 1, whole || toss() ? last : !last);
  for (float& value : x.value) value = draw(0, 5) ? value : draw(0, 5) ? 0 : NAN;
  call.padded = padded_gradient.memory.data(), call.x = call.slope == 1 ? nullptr : x.memory.data();
  call.y = y.memory.data();
  call.padded_item = padded_gradient.item, call.padded_channel = padded_gradient.channel;
  call.padded_frame = padded_gradient.row;
  call.x_item = x.item, call.x_channel = x.channel, call.x_frame = x.row;
  call.y_item = y.item, call.y_channel = y.channel, call.y_frame = y.row;
  run_late(input_gradient, {{unsigned(draw(1, 3)), unsigned(batch), 1}, 256, 0}, call,
           [&] { padded_gradient.bring(), x.bring(); });
  std::vector<Sum> sums(y.value.size());
  for (int i = 0; i < batch; ++i)
    for (int r = 0; r < padded_gradient.rows; ++r)
      for (int c = 0; c < channels; ++c) {
        const int frame = padded(r - call.left, frames, mode);
        const double factor = x.at(i, frame, c) > 0 ? 1 : double(call.slope);
        sums[(size_t(i) * size_t(frames) + size_t(frame)) * size_t(channels) + size_t(c)].add(
            padded_gradient.at(i, r, c) * factor);
      }
  for (int i = 0; i < batch; ++i)
    for (int r = 0; r < frames; ++r)
      for (int c = 0; c < channels; ++c) {
        const Sum& sum = sums[(size_t(i) * size_t(frames) + size_t(r)) * size_t(channels) + size_t(c)];
        const float got = read_element(y.address(i, r, c), precision);
        if (sum.is(got, precision)) continue;
        return std::printf("input %d: item %d, frame %d of %d, channel %d is %.9g instead of %.9g\n", number, i, r,
                           frames, c, double(got), sum.sum),
               false;
      }
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  const int count = argc > 1 ? std::atoi(argv[1]) : 50, only = argc > 2 ? std::atoi(argv[2]) : -1;
  on_cpu::end_block.push_back(look_for_copies);
  for (int i = 0; i < count; ++i) {
    if (only >= 0 && i != only) continue;
    generator.seed(unsigned(i));
    if (!weight_is_right(i) || !input_is_right(i)) return 1;
  }
}
