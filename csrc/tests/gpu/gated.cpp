// Layers of WaveNet through their surface for GPUs, whose kernels the CPU runs (driver_on_cpu.cpp), against plain loops
// in double precision: of any width, in all precisions, for several GPUs, with items of different lengths, tensors in any
// memory order, and memory of exactly the promised size that holds no numbers before it is used. What an item becomes has
// the same bits whatever else is in the batch. Every other layer has a number that no caller should pass: it is refused,
// or its sizes are right.
//
// Arguments: how many to draw, and the number of the only one to run. Exits with 0 if all is well.

#include <algorithm>
#include <climits>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "../../fastvoc_cuda.h"
#include "../draw.h"

namespace {

using namespace fastvoc_tests;

constexpr int kPrecisions[] = {FASTVOC_FLOAT16, FASTVOC_BFLOAT16, FASTVOC_TFLOAT32};
constexpr fastvoc_gpu kGpus[] = {{75, 40, 64 << 10, 64 << 10, 0},
                                 {80, 108, 163 << 10, 164 << 10, 0},
                                 {89, 128, 99 << 10, 100 << 10, 0},
                                 {90, 132, 227 << 10, 228 << 10, 0},
                                 {90, 132, 227 << 10, 228 << 10, 1}};
constexpr char kUntouched = char(0xa5);

// ---- numbers as they are stored

double unit_of(double value, int precision) {  // twice the largest error of rounding it
  const int bits = precision == FASTVOC_BFLOAT16 ? 7 : 10;
  int exponent = 0;
  std::frexp(value, &exponent);
  if (precision == FASTVOC_FLOAT16) exponent = std::max(exponent, -13);
  return std::ldexp(1, exponent - 1 - bits);
}
double rounded(double value, int precision) {
  const double unit = unit_of(value, precision);
  return value == 0 ? 0 : std::nearbyint(value / unit) * unit;
}
int bytes_of(int precision) { return precision == FASTVOC_TFLOAT32 ? 4 : 2; }

void write(char* to, double value, int bytes, int precision) {
  const float single = float(value);
  if (bytes == 4) {
    std::memcpy(to, &single, 4);
  } else if (precision == FASTVOC_BFLOAT16) {
    std::memcpy(to, reinterpret_cast<const char*>(&single) + 2, 2);
  } else {
    const _Float16 half = _Float16(value);
    std::memcpy(to, &half, 2);
  }
}
double read(const char* from, int precision) {
  float single = 0;
  if (precision == FASTVOC_TFLOAT32) {
    std::memcpy(&single, from, 4);
  } else if (precision == FASTVOC_BFLOAT16) {
    std::memcpy(reinterpret_cast<char*>(&single) + 2, from, 2);
  } else {
    _Float16 half;
    std::memcpy(&half, from, 2);
    return double(half);
  }
  return single;
}

// A number that a tensor holds: in TF32 of float32, which only multiplications round.
double number(double scale, int precision) {
  const double value = std::normal_distribution<double>()(generator()) * scale;
  return precision == FASTVOC_TFLOAT32 ? double(float(value)) : rounded(value, precision);
}
// As it is multiplied; the instruction rounds ties away from zero.
double factor(double value, int precision) {
  if (precision != FASTVOC_TFLOAT32) return value;
  const double unit = unit_of(value, precision);
  return value == 0 ? 0 : std::copysign(std::floor(std::fabs(value) / unit + 0.5) * unit, value);
}

// ---- memory

// Bytes of 0xff are no numbers in any of the formats.
class Block {
 public:
  explicit Block(int64_t size, int64_t shift = 0, char fill = char(0xff)) : size_(size), shift_(shift) {
    if (size < 0 || posix_memalign(&memory_, 256, size_t(size + shift)) != 0) std::abort();
    std::memset(memory_, fill, size_t(size + shift));
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

// A batch of rows, and what they hold: no numbers behind the last row of an item.
struct Tensor {
  int64_t channels, rows;
  std::vector<double> value;
  fastvoc_cuda_gated_input input = {};
  Block block;

  double at(int64_t item, int64_t row, int64_t channel) const {
    return value[size_t((item * rows + row) * channels + channel)];
  }
  Tensor(const std::vector<int>& lengths, int64_t channels, int64_t rows, double scale, int precision)
      : channels(channels),
        rows(rows),
        value(lengths.size() * size_t(rows * channels)),
        block(size(int64_t(lengths.size())) * bytes_of(precision), draw(0, 2) ? 0 : bytes_of(precision)) {
    for (double& one : value) one = number(scale, precision);
    input.data = block.data();
    for (size_t item = 0; item < lengths.size(); ++item)
      for (int64_t row = 0; row < lengths[item]; ++row)
        for (int64_t channel = 0; channel < channels; ++channel)
          write(block.data() + (int64_t(item) * input.strides[0] + channel * input.strides[1] + row * input.strides[2]) *
                                   bytes_of(precision),
                at(int64_t(item), row, channel), bytes_of(precision), precision);
  }

 private:
  int64_t size(int64_t batch) {  // elements
    const bool last = draw(0, 2) > 0;
    const int64_t gap = draw(0, 2) ? 0 : toss() ? 8 : draw(1, 9);
    input.strides[1] = last ? 1 : rows + gap;
    input.strides[2] = last ? channels + gap : 1;
    const int64_t one = (channels - 1) * input.strides[1] + (rows - 1) * input.strides[2] + 1;
    input.strides[0] = (one + 7) / 8 * 8 + (draw(0, 2) ? 0 : draw(1, 9));
    return (batch - 1) * input.strides[0] + one;
  }
};

// A weight with its bias, as they are given; the bias may be missing.
struct Weight {
  std::vector<double> weight, bias;
  Block weights, biases;
  fastvoc_cuda_gated_weight given;

  Weight(int64_t rows, int64_t channels, int64_t taps, int bytes, int precision)
      : weight(size_t(rows * channels * taps)),
        bias(size_t(rows)),
        weights(rows * channels * taps * bytes),
        biases(rows * bytes),
        given{weights.data(), toss() ? biases.data() : nullptr} {
    const double scale = std::sqrt(1.0 / double(channels * taps));
    const auto fill = [&](std::vector<double>& values, double size, char* to) {
      for (size_t i = 0; i < values.size(); ++i) {
        values[i] = bytes == 4 ? number(size, FASTVOC_TFLOAT32) : number(size, precision);
        write(to + i * size_t(bytes), values[i], bytes, precision);
      }
    };
    fill(weight, scale, weights.data());
    fill(bias, 0.3, biases.data());
    if (!given.bias) std::fill(bias.begin(), bias.end(), 0);
    // Weights are rounded when they are packed.
    for (double& one : weight)
      one = precision == FASTVOC_TFLOAT32 ? factor(one, precision) : rounded(one, precision);
  }
};

// A sum, and how far from it one in float32 may be.
struct Sum {
  double sum = 0, terms = 0, off = 0;
  int count = 0;
  void add(double term) { sum += term, terms += std::fabs(term), ++count; }
  double error() const { return terms * (count + 8) * 0x1p-24 + off; }
};

struct Case {
  fastvoc_cuda_gated layer = {};
  fastvoc_gpu gpu = {};
  int64_t frames = 0;
  std::vector<int> lengths;
  bool ragged = false, skip = false;
  int64_t lost() const { return layer.dilation * (layer.taps - 1) - layer.left - layer.right; }
};

Case draw_case() {
  Case made;
  made.gpu = kGpus[draw(0, 4)];
  fastvoc_cuda_gated& layer = made.layer;
  layer.precision = made.gpu.architecture < 80 ? FASTVOC_FLOAT16 : kPrecisions[draw(0, 2)];
  const auto width = [] { return draw(0, 2) ? draw(1, 40) : toss() ? 16 * draw(1, 5) : draw(60, 90); };
  layer.channels = width(), layer.gates = width();
  layer.residual = draw(0, 3) > 0;
  layer.skips = layer.residual && draw(0, 3) == 0 ? 0 : width();
  layer.sigmoid_first = toss();
  layer.multiplied = draw(0, 2) == 0;
  layer.condition = layer.multiplied ? width() : toss() ? 2 * layer.gates : 0;
  layer.scale = toss() ? 1.0f : 0.70710678f;
  layer.taps = draw(1, 4), layer.dilation = draw(0, 4) ? draw(1, 5) : draw(0, 1) ? draw(20, 60) : draw(250, 600);
  if (layer.taps + layer.multiplied > 3) layer.dilation = std::min<int64_t>(layer.dilation, 9);
  const int64_t span = layer.dilation * (layer.taps - 1);
  layer.before = toss() ? span : span / 2;
  layer.left = draw(0, 2) ? layer.before : draw(0, layer.before);
  layer.right = draw(0, 2) ? span - layer.before : draw(0, span - layer.before);
  made.frames = std::max<int64_t>(0, made.lost()) + (draw(0, 3) ? draw(1, 40) : draw(60, 150));
  made.ragged = toss();
  for (int64_t i = draw(1, 3); i > 0; --i) made.lengths.push_back(int(made.ragged ? draw(0, made.frames) : made.frames));
  made.lengths[size_t(draw(0, int64_t(made.lengths.size()) - 1))] = int(made.frames);
  made.skip = draw(0, 2) > 0;
  return made;
}

// What an item is given, and is to become.
struct Tensors {
  const Tensor &x, *condition, *skip;
  const Weight &convolution, *multiplied, &products;
};

// The gates of a row.
std::vector<Sum> gates_of(const Case& made, const Tensors& tensors, int64_t item, int64_t row) {
  const fastvoc_cuda_gated& layer = made.layer;
  const int precision = layer.precision;
  std::vector<Sum> sums(size_t(2 * layer.gates)), gates(size_t(layer.gates));
  for (int64_t out = 0; out < 2 * layer.gates; ++out) {
    Sum& sum = sums[size_t(out)];
    sum.add(tensors.convolution.bias[size_t(out)]);
    for (int64_t tap = 0; tap < layer.taps; ++tap) {
      const int64_t at = row - layer.left + tap * layer.dilation;
      if (at < 0 || at >= made.lengths[size_t(item)]) continue;
      for (int64_t in = 0; in < layer.channels; ++in)
        sum.add(factor(tensors.x.at(item, at, in), precision) *
                tensors.convolution.weight[size_t((out * layer.channels + in) * layer.taps + tap)]);
    }
    if (!tensors.condition) continue;
    if (!layer.multiplied) sum.add(tensors.condition->at(item, row, out));
    for (int64_t in = 0; layer.multiplied && in < layer.condition; ++in)
      sum.add(factor(tensors.condition->at(item, row, in), precision) *
              tensors.multiplied->weight[size_t(out * layer.condition + in)]);
    if (layer.multiplied) sum.add(tensors.multiplied->bias[size_t(out)]);
  }
  for (int64_t gate = 0; gate < layer.gates; ++gate) {
    const Sum& one = sums[size_t(gate)];
    const Sum& other = sums[size_t(gate + layer.gates)];
    const double a = layer.sigmoid_first ? other.sum : one.sum, b = layer.sigmoid_first ? one.sum : other.sum;
    Sum& made_of = gates[size_t(gate)];
    made_of.sum = std::tanh(a) / (1 + std::exp(-b));
    // Neither function is steeper than 1; both are nearly exact, and what they make is rounded.
    made_of.off = one.error() + other.error() + std::fabs(made_of.sum) * 0x1p-20 + 0x1p-40;
    made_of.off += unit_of(std::fabs(made_of.sum) + made_of.off, precision) / 2;
  }
  return gates;
}

// Channel `channel` of a result, whose product has row `row_of_weight`.
bool is_right(const Case& made, const Tensors& tensors, const std::vector<Sum>& gates, int64_t item, int64_t row,
              int64_t channel, bool residual, double got) {
  const fastvoc_cuda_gated& layer = made.layer;
  const int64_t of = channel + (residual ? 0 : layer.residual * layer.channels);
  Sum sum;
  sum.add(tensors.products.bias[size_t(of)]);
  for (int64_t gate = 0; gate < layer.gates; ++gate) {
    const double weight = tensors.products.weight[size_t(of * layer.gates + gate)];
    sum.add(weight * gates[size_t(gate)].sum);
    sum.off += std::fabs(weight) * gates[size_t(gate)].off;
  }
  if (residual) sum.add(tensors.x.at(item, row + layer.before - layer.left, channel));
  if (!residual && tensors.skip) sum.add(tensors.skip->at(item, row, channel));
  const double scale = residual ? double(layer.scale) : 1, value = scale * sum.sum;
  double allowed = scale * sum.error() + std::fabs(value) * 0x1p-22;
  if (layer.precision != FASTVOC_TFLOAT32) allowed += unit_of(std::fabs(value) + allowed, layer.precision) / 2;
  if (std::fabs(got - value) <= allowed) return true;
  std::printf("item %lld, row %lld, channel %lld of the %s is %.9g instead of %.9g: ", (long long)item, (long long)row,
              (long long)channel, residual ? "residual" : "skip connection", got, value);
  return false;
}

bool layer_is_right(void* kernels) {
  const Case made = draw_case();
  const fastvoc_cuda_gated& layer = made.layer;
  const int precision = layer.precision, element = bytes_of(precision);
  const int64_t batch = int64_t(made.lengths.size()), rows = made.frames - made.lost();
  Block plan(fastvoc_cuda_gated_size());
  if (const int code = fastvoc_cuda_gated_make(&layer, &made.gpu, plan.data()))
    return std::printf("%s: ", fastvoc_error(code)), false;

  std::vector<int> made_rows;
  for (const int length : made.lengths) made_rows.push_back(int(std::max<int64_t>(0, length - made.lost())));
  const Tensor x(made.lengths, layer.channels, made.frames, 1, precision);
  const Tensor condition(made_rows, std::max<int64_t>(1, layer.condition), rows, 1, precision);
  const Tensor skip(made_rows, std::max<int64_t>(1, layer.skips), rows, 1, precision);
  const int bytes = toss() ? 4 : element;
  Weight convolution(2 * layer.gates, layer.channels, layer.taps, bytes, precision);
  Weight multiplied(2 * layer.gates, std::max<int64_t>(1, layer.condition), 1, bytes, precision);
  Weight products(layer.residual * layer.channels + layer.skips, layer.gates, 1, bytes, precision);
  const Tensors tensors = {x,           layer.condition ? &condition : nullptr, made.skip ? &skip : nullptr,
                           convolution, &multiplied,                            products};

  Block packed(fastvoc_cuda_gated_packed_size(plan.data()));
  if (fastvoc_cuda_gated_pack(plan.data(), kernels, bytes != 4, &convolution.given, &multiplied.given, &products.given,
                              packed.data(), nullptr) != FASTVOC_OK)
    return std::printf("not packed: "), false;

  // Results are rows of any distance.
  const int64_t wide = layer.channels + draw(0, 1) * draw(1, 9), wider = std::max<int64_t>(1, layer.skips) + draw(0, 9);
  const auto run = [&](int64_t first, int64_t count, Block& residual, Block& sums) {
    fastvoc_cuda_gated_call call = {};
    call.batch = count, call.frames = made.frames;
    call.lengths = made.ragged ? made.lengths.data() + first : nullptr;
    const auto from = [&](const Tensor& tensor) {
      fastvoc_cuda_gated_input input = tensor.input;
      input.data = static_cast<const char*>(input.data) + first * input.strides[0] * element;
      return input;
    };
    call.x = from(x);
    if (layer.condition) call.condition = from(condition);
    if (layer.skips && made.skip) call.skip = from(skip);
    if (layer.residual) call.residual = {residual.data(), rows * wide, wide};
    if (layer.skips) call.made = {sums.data(), rows * wider, wider};
    Block workspace(fastvoc_cuda_gated_workspace_size(plan.data(), &call));
    return fastvoc_cuda_gated_run(plan.data(), kernels, packed.data(), workspace.data(), nullptr, &call);
  };
  const auto size = [&](int64_t items, int64_t row, int64_t channels) {
    return ((items * rows - 1) * row + channels) * element;
  };
  const int64_t last = std::max<int64_t>(1, layer.skips);
  Block residual(size(batch, wide, layer.channels), 0, kUntouched), sums(size(batch, wider, last), 0, kUntouched);
  if (const int code = run(0, batch, residual, sums)) return std::printf("%s: ", fastvoc_error(code)), false;

  std::vector<char> own(size_t(residual.size()), 0), own_sums(size_t(sums.size()), 0);
  for (int64_t item = 0; item < batch; ++item) {
    Block alone(size(1, wide, layer.channels), 0, kUntouched), alone_sums(size(1, wider, last), 0, kUntouched);
    if (run(item, 1, alone, alone_sums) != FASTVOC_OK) return std::printf("an item is refused: "), false;
    for (int64_t row = 0; row < made_rows[size_t(item)]; ++row) {
      // Of what is far from an end, some will do.
      const bool looked_at = row < 3 || row + 3 > made_rows[size_t(item)] || draw(0, 9) == 0;
      const std::vector<Sum> gates = looked_at ? gates_of(made, tensors, item, row) : std::vector<Sum>();
      const auto is_row = [&](bool of_residual, int64_t distance, int64_t channels, Block& all, Block& one,
                              std::vector<char>& written) {
        for (int64_t channel = 0; channel < channels; ++channel) {
          const int64_t at = ((item * rows + row) * distance + channel) * element;
          std::memset(&written[size_t(at)], 1, size_t(element));
          if (std::memcmp(all.data() + at, one.data() + (row * distance + channel) * element, size_t(element)) != 0)
            return std::printf("an item has other bits alone: "), false;
          if (looked_at && !is_right(made, tensors, gates, item, row, channel, of_residual,
                                     read(all.data() + at, precision)))
            return false;
        }
        return true;
      };
      if ((layer.residual && !is_row(true, wide, layer.channels, residual, alone, own)) ||
          (layer.skips && !is_row(false, wider, layer.skips, sums, alone_sums, own_sums)))
        return false;
    }
  }
  for (int64_t i = 0; i < residual.size(); ++i)
    if (!own[size_t(i)] && residual.data()[i] != kUntouched) return std::printf("it writes beside the residual: "), false;
  for (int64_t i = 0; i < sums.size(); ++i)
    if (!own_sums[size_t(i)] && sums.data()[i] != kUntouched) return std::printf("it writes beside the skips: "), false;
  return true;
}

// ---- what no caller should pass

int64_t hostile() {
  switch (draw(0, 4)) {
    case 0:
      return draw(-3, 3);
    case 1:
      return (int64_t{1} << draw(0, 62)) + draw(-1, 1);
    case 2:
      return toss() ? INT64_MAX - draw(0, 2) : INT64_MIN + draw(0, 2);
    case 3:
      return -(int64_t{1} << draw(0, 62));
    default:
      return draw(INT64_MIN, INT64_MAX);
  }
}
void spoil(int& value) { value = int(hostile()); }
void spoil(int64_t& value) { value = hostile(); }
void spoil(float& value) {
  const float values[] = {0, -1, 1e38f, INFINITY, NAN};
  value = values[draw(0, 4)];
}
template <class... Numbers>
void spoil_one(Numbers&... numbers) {
  int64_t at = draw(0, int64_t(sizeof...(Numbers)) - 1);
  ((at-- == 0 ? spoil(numbers) : void()), ...);
}
bool is_error(int code) { return code > FASTVOC_OK && code < FASTVOC_ERROR_COUNT; }

bool hostile_is_safe(void* kernels) {
  Case made = draw_case();
  fastvoc_cuda_gated& layer = made.layer;
  Block plan(fastvoc_cuda_gated_size());
  for (int64_t count = draw(0, 2); count > 0; --count) {
    spoil_one(layer.precision, layer.residual, layer.sigmoid_first, layer.multiplied, layer.scale, layer.channels,
              layer.gates, layer.skips, layer.condition, layer.taps, layer.dilation, layer.left, layer.right,
              layer.before);
    if (draw(0, 5) == 0)
      spoil_one(made.gpu.architecture, made.gpu.multiprocessors, made.gpu.shared_per_block,
                made.gpu.shared_per_multiprocessor);
  }
  if (!is_error(fastvoc_cuda_gated_make(nullptr, &made.gpu, plan.data())) ||
      !is_error(fastvoc_cuda_gated_make(&layer, nullptr, plan.data())) ||
      !is_error(fastvoc_cuda_gated_make(&layer, &made.gpu, nullptr)))
    return false;
  const int code = fastvoc_cuda_gated_make(&layer, &made.gpu, plan.data());
  if (code != FASTVOC_OK) return is_error(code);
  const int64_t size = fastvoc_cuda_gated_packed_size(plan.data());
  if (size <= 0 || size >= int64_t{1} << 40) return false;

  alignas(256) static char somewhere[256];
  fastvoc_cuda_gated_call call = {};
  call.batch = draw(1, 3), call.frames = made.frames;
  call.x.data = call.condition.data = call.skip.data = call.residual.data = call.made.data = somewhere;
  call.residual.row = layer.channels, call.made.row = layer.skips;
  const auto workspace = [&] { return fastvoc_cuda_gated_workspace_size(plan.data(), &call); };
  const auto run = [&](void* own, const void* packed, void* memory) {
    return fastvoc_cuda_gated_run(plan.data(), own, packed, memory, nullptr, &call);
  };
  const fastvoc_cuda_gated_weight none = {nullptr, nullptr}, some = {somewhere, nullptr};
  const auto pack = [&](const fastvoc_cuda_gated_weight* one, const fastvoc_cuda_gated_weight* two,
                        const fastvoc_cuda_gated_weight* three, void* own, void* memory) {
    return fastvoc_cuda_gated_pack(plan.data(), own, 0, one, two, three, memory, nullptr);
  };
  if (!is_error(pack(&none, &some, &some, kernels, somewhere)) || !is_error(pack(&some, &some, &none, kernels, somewhere)) ||
      !is_error(pack(nullptr, &some, &some, kernels, somewhere)) || !is_error(pack(&some, &some, nullptr, kernels, somewhere)) ||
      (layer.multiplied && (!is_error(pack(&some, nullptr, &some, kernels, somewhere)) ||
                            !is_error(pack(&some, &none, &some, kernels, somewhere)))) ||
      !is_error(pack(&some, &some, &some, nullptr, somewhere)) || !is_error(pack(&some, &some, &some, kernels, nullptr)) ||
      !is_error(pack(&some, &some, &some, kernels, somewhere + 16)))
    return std::printf("weights are taken that must not be: "), false;
  const int64_t room = workspace();
  if (room < -1 || room >= int64_t{1} << 60) return false;
  if (!is_error(run(nullptr, somewhere, somewhere)) || !is_error(run(kernels, nullptr, somewhere)) ||
      !is_error(run(kernels, somewhere, nullptr)) || !is_error(run(kernels, somewhere, somewhere + 16)) ||
      !is_error(fastvoc_cuda_gated_run(nullptr, kernels, somewhere, somewhere, nullptr, &call)) ||
      !is_error(fastvoc_cuda_gated_run(plan.data(), kernels, somewhere, somewhere, nullptr, nullptr)) ||
      fastvoc_cuda_gated_workspace_size(plan.data(), nullptr) != -1)
    return std::printf("a call is taken that must not be: "), false;

  // A number that cannot be is refused by what asks for memory and by what would use it.
  fastvoc_cuda_gated_call before = call;
  spoil_one(call.batch, call.frames, call.x.strides[draw(0, 2)], call.residual.row, call.made.item);
  const int64_t again = workspace();
  if (again < -1 || again >= int64_t{1} << 60) return false;
  if (again == -1 && call.batch != 0 && !is_error(run(kernels, somewhere, somewhere))) return false;
  call = before;
  (layer.residual ? call.residual.data : call.made.data) = nullptr;
  if (workspace() != -1 || !is_error(run(kernels, somewhere, somewhere))) return std::printf("no result: "), false;
  call = before;
  call.x.data = somewhere + 1;
  if (workspace() != -1) return std::printf("odd memory: "), false;
  const int launches = fastvoc_cuda_gated_launches(plan.data());
  const int asked = int(draw(-1, launches));
  const bool real = asked >= 0 && asked < launches;
  const int64_t frames = draw(0, 4) ? draw(1, 100000) : hostile();
  const bool taken = real && frames >= 1 && frames <= 1 << 30;
  return (fastvoc_cuda_gated_kernel(plan.data(), 2, frames, asked) != nullptr) == taken &&
         (fastvoc_cuda_gated_clocks(plan.data(), 2, frames, asked) > 0) == taken;
}

}  // namespace

int main(int argc, char** argv) {
  const int64_t count = argc > 1 ? std::atoll(argv[1]) : 100, only = argc > 2 ? std::atoll(argv[2]) : -1;
  static void* kernels;  // they stay
  const int image = 0;
  if (fastvoc_cuda_load(&image, &kernels) != FASTVOC_OK) return 1;
  for (int64_t i = 0; i < count; ++i) {
    if (only >= 0 && i != only) continue;
    generator().seed(uint32_t(i));
    if (!layer_is_right(kernels)) return std::printf("layer %lld is wrong\n", (long long)i), 1;
    for (int k = 0; k < 10; ++k)
      if (!hostile_is_safe(kernels)) return std::printf("layer %lld is not safe\n", (long long)i), 1;
  }
}
