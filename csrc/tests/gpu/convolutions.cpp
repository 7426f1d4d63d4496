// The kernel for one operation of any width, and those that pack weights and take in signals, run by the CPU, against
// their definitions in double precision. Signals stand in memory of exactly their size, hold no numbers behind their
// last row, and before the kernel has waited for the one before it none at all.
//
// All kernels that suit an operation must give the same bits. Arguments: how many to draw, and the number of the only
// one to run.
#include "../emulator/cuda_on_cpu.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "../../cuda/device/convolution.cuh"
#include "../../cuda/device/pack.cuh"

namespace fastvoc::cuda {

#define FASTVOC_CONVOLUTION(word, precision, rows, columns, threads)               \
  FASTVOC_KERNEL(convolution_##word##_##rows##x##columns, Convolutions, threads) { \
    convolution<precision, rows, columns, threads>(parameter);                     \
  }
FASTVOC_CONVOLUTIONS(FASTVOC_CONVOLUTION)
FASTVOC_KERNEL(pack, Pack, 256) { pack_weight(parameter); }
FASTVOC_KERNEL(enter, Enter, 256) { enter_signal(parameter); }

}  // namespace fastvoc::cuda

namespace {

using namespace fastvoc::cuda;

#define FASTVOC_FUNCTION(word, precision, rows, columns, threads) convolution_##word##_##rows##x##columns,
void (*const kFunctions[])(const Convolutions&) = {FASTVOC_CONVOLUTIONS(FASTVOC_FUNCTION)};
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

// Memory of exactly so many bytes behind an address that is aligned to 16, or is `odd` bytes further on.
struct Memory {
  size_t bytes;
  int odd;
  std::unique_ptr<char[]> all;
  explicit Memory(size_t bytes, int odd = 0, char fill = char(0xff))
      : bytes(bytes), odd(odd), all(new char[bytes + 32]) {
    std::memset(data(), fill, bytes);
    guard(true);
  }
  Memory(Memory&&) = default;
  ~Memory() {
    if (all) guard(false);
  }
  char* data() const { return reinterpret_cast<char*>((reinterpret_cast<uintptr_t>(all.get()) + 15) / 16 * 16) + odd; }
  void guard(bool on) const {
#if defined(__SANITIZE_ADDRESS__)
    char* const end = data() + bytes;
    if (on) {
      __asan_poison_memory_region(end, size_t(all.get() + bytes + 32 - end));
    } else {
      __asan_unpoison_memory_region(end, size_t(all.get() + bytes + 32 - end));
    }
#else
    (void)on;
#endif
  }
};

void write_element(char* to, float value, int type, int precision) {
  if (type == kFloats || precision == kTfloat32) {
    std::memcpy(to, &value, 4);
  } else {
    const unsigned bits = precision == kFloat16 ? pack_pair<kFloat16>(value, 0) : pack_pair<kBfloat16>(value, 0);
    const unsigned short half = static_cast<unsigned short>(bits);
    std::memcpy(to, &half, 2);
  }
}

float read_element(const char* from, int type, int precision) {
  if (type == kInt16) {
    short value;
    std::memcpy(&value, from, 2);
    return value;
  }
  if (type == kFloats || precision == kTfloat32) {
    float value;
    std::memcpy(&value, from, 4);
    return value;
  }
  unsigned short bits;
  std::memcpy(&bits, from, 2);
  float value, nothing;
  if (precision == kFloat16) {
    unpack_pair<kFloat16>(bits, value, nothing);
  } else {
    unpack_pair<kBfloat16>(bits, value, nothing);
  }
  return value;
}

// Rows of channels, with what is in them by item, row and channel.
struct Rows {
  Signal signal;
  int channels, stored, element;  // channels that mean something, and that are there; bytes
  std::vector<int> lengths;       // rows of each item
  Memory memory;
  std::vector<float> value;

  float at(int item, int row, int channel) const {
    return value[(size_t(item) * size_t(most()) + size_t(row)) * size_t(stored) + size_t(channel)];
  }
  int most() const {
    int rows = 0;
    for (const int length : lengths) rows = std::max(rows, length);
    return rows;
  }
  char* address(int item, int row, int channel) const {
    return memory.data() + (item * signal.item + int64_t(row) * signal.row + channel) * element;
  }
};

Rows make_rows(const std::vector<int>& frames, int rate, int offset, int channels, int stored, int element, bool whole,
               char fill = char(0xff)) {
  std::vector<int> lengths;
  int most = 0;
  for (const int f : frames) {
    lengths.push_back(std::max(0, f * rate + offset));
    most = std::max(most, lengths.back());
  }
  const int unit = whole ? kChunkBytes / element : 1;
  Signal signal{};
  signal.row = stored + unit * (toss() ? draw(0, 2) : 0);
  signal.item = int64_t(signal.row) * most + unit * (toss() ? draw(0, 2) : 0);
  signal.rate = rate, signal.offset = offset;
  const int64_t elements =
      most > 0 ? signal.item * int64_t(frames.size() - 1) + int64_t(signal.row) * (most - 1) + stored : 0;
  Rows rows{signal,  channels, stored,
            element, lengths,  Memory(size_t(elements) * size_t(element), whole || toss() ? 0 : element, fill),
            {}};
  rows.signal.data = rows.memory.data();
  return rows;
}

// Numbers in the channels that mean something, zeros in others. They come into memory later.
void fill_rows(Rows& rows, int precision) {
  rows.value.resize(rows.lengths.size() * size_t(rows.most()) * size_t(rows.stored));
  for (size_t i = 0; i < rows.value.size(); ++i) {
    rows.value[i] = int(i % size_t(rows.stored)) < rows.channels ? rounded(normal(), precision) : 0;
  }
}

void bring_rows(const Rows& rows, int precision) {
  for (int item = 0; item < int(rows.lengths.size()); ++item) {
    for (int row = 0; row < rows.lengths[size_t(item)]; ++row) {
      for (int channel = 0; channel < rows.stored; ++channel) {
        write_element(rows.address(item, row, channel), rows.at(item, row, channel), kElements, precision);
      }
    }
  }
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

struct Layer {
  int in, taps, dilation, left, front, back;
  float factor;
  int upsample, stride;
  std::vector<float> weight, bias;  // as the user gave them; the bias may be empty
  Rows x;
};

struct Problem {
  std::vector<Layer> layers;
  std::vector<Rows> residuals;
  std::vector<float> factors;
  Finish finish;
};

// The row that padding reads in place of another, -1 for zeros, or -2 where it is not defined.
int padded(int row, int rows, int front, int back) {
  if (row >= 0 && row < rows) return row;
  const int mode = row < 0 ? front : back;
  if (mode == kZero || rows == 0) return -1;
  const int other = mode == kReplicate ? (row < 0 ? 0 : rows - 1) : row < 0 ? -row : 2 * (rows - 1) - row;
  return other >= 0 && other < rows ? other : -2;
}

// A sum, how large its terms are, and whether it is defined.
struct Sum {
  double sum = 0, terms = 0;
  int count = 0;
  bool defined = true;
  void add(double term) { sum += term, terms += std::fabs(term), ++count; }
};

void add_layer(Sum& sum, const Layer& layer, int out_channels, int item, int row, int channel, int crop,
               int precision) {
  const int rows = layer.x.lengths[size_t(item)];
  if (!layer.bias.empty()) sum.add(layer.bias[size_t(channel)]);
  for (int tap = 0; tap < layer.taps; ++tap) {
    int at = row - layer.left + tap * layer.dilation;
    if (layer.upsample) {
      // Row t of x adds to rows t * stride - crop and on.
      const int ahead = row + crop - tap;
      at = ahead >= 0 && ahead % layer.stride == 0 && ahead / layer.stride < rows ? ahead / layer.stride : -1;
    } else {
      at = padded(at, rows, layer.front, layer.back);
    }
    if (at == -2) sum.defined = false;
    if (at < 0) continue;
    for (int in = 0; in < layer.in; ++in) {
      const float x = layer.x.at(item, at, in), factor = x < 0 ? layer.factor : 1;
      const int64_t outer = layer.upsample ? int64_t(in) * out_channels + channel : int64_t(channel) * layer.in + in;
      sum.add(double(rounded(x * factor, precision)) *
              double(rounded(layer.weight[size_t(outer * layer.taps + tap)], precision)));
    }
  }
}

double leak(double value, double slope) { return value < 0 ? value * slope : value; }

double unit(double value, int precision) {  // the largest error of a stored value of this size
  const double size = std::fabs(value);
  if (precision == kFloat16) return std::max(size * 0x1p-11, 0x1p-25);
  return size * (precision == kBfloat16 ? 0x1p-8 : 0x1p-11);
}

std::vector<float> numbers(size_t count, float scale, int type, int precision) {
  std::vector<float> values(count);
  for (float& value : values) value = type == kFloats ? normal() * scale : rounded(normal() * scale, precision);
  return values;
}

Memory as_given(const std::vector<float>& values, int type, int precision) {
  const size_t element = type == kFloats ? 4 : size_t(element_bytes(precision));
  Memory memory(values.size() * element);
  for (size_t i = 0; i < values.size(); ++i) write_element(memory.data() + i * element, values[i], type, precision);
  return memory;
}

int ceiling(int number, int unit) { return (number + unit - 1) / unit * unit; }

bool operation_is_right(int number) {
  const int precision = draw(kFloat16, kTfloat32), element = element_bytes(precision),
            chunk = chunk_channels(precision);
  const int batch = draw(1, 3), problems = draw(0, 2) ? 1 : draw(2, kProblems);
  const bool narrow = draw(0, 3) == 0, user = narrow || draw(0, 3) == 0;

  // Mostly less than a tile of rows, sometimes more than one.
  const int rate = draw(1, 2), offset = draw(-1, 1);
  const int most = draw(0, 2) ? draw(1, 40) : draw(60, 150);
  const bool ragged = toss();
  std::vector<int> frames;
  for (int i = 0; i < batch; ++i) frames.push_back(ragged ? draw(0, most) : most);
  if (ragged) frames[size_t(draw(0, batch - 1))] = most;

  const int stride = toss() ? 1 : draw(2, 5), upsample = stride > 1 || draw(0, 4) == 0;
  const int out = narrow ? draw(1, std::max(1, 8 / stride)) : draw(1, stride > 1 ? 50 : 150);
  // Between operations rows have whole chunks, and what is fill is zero.
  const int channels = user ? out : ceiling(out, chunk);
  const int columns = stride * channels <= 8 ? 8 : ceiling(stride * channels, 32);
  const int crop = upsample ? draw(0, 3) : 0, longer = draw(-2, 3);
  const int output = draw(0, 2) && !user ? kElements : draw(kElements, kInt16);
  const int out_element = output == kFloats ? 4 : output == kInt16 ? 2 : element;
  const bool row_whole = !user || draw(0, 2) == 0;

  const int sources = draw(1, kSources), residuals = draw(0, kResiduals);
  std::vector<Problem> all;
  int span = 0;
  for (int p = 0; p < problems; ++p) {
    Problem problem;
    for (int s = 0; s < sources; ++s) {
      const int in = draw(0, 2) ? draw(1, 40) : draw(60, 150), most_taps = in > 40 ? 4 : 9;
      Layer layer{in,
                  draw(1, most_taps),
                  draw(1, 4),
                  0,
                  0,
                  0,
                  toss()   ? 1.0f
                  : toss() ? 10.0f
                           : 0.1f,
                  upsample,
                  stride,
                  {},
                  {},
                  make_rows(frames, rate, offset, in, ceiling(in, chunk), element, true)};
      if (upsample) {
        layer.dilation = 1;
        layer.left = (layer.taps + stride - 1) / stride - 1;
      } else {
        layer.left = draw(0, (layer.taps - 1) * layer.dilation);
        layer.front = draw(kZero, kReplicate), layer.back = draw(kZero, kReplicate);
      }
      fill_rows(layer.x, precision);
      // No number, which those results meet that it belongs to (and those for which upsamplings have fill among taps).
      if (!layer.x.value.empty() && layer.taps % stride == 0 && draw(0, 5) == 0) {
        layer.x
            .value[size_t(draw(0, int(layer.x.value.size()) - 1)) / size_t(layer.x.stored) * size_t(layer.x.stored)] =
            NAN;
      }
      problem.layers.push_back(std::move(layer));
      const int taps = (problem.layers.back().taps + stride - 1) / stride;
      span = std::max(span, (taps - 1) * problem.layers.back().dilation);
    }
    for (int r = 0; r < residuals; ++r) {
      problem.residuals.push_back(make_rows(frames, rate * stride, offset * stride + longer, channels, channels,
                                            element, row_whole && channels % chunk == 0));
      fill_rows(problem.residuals.back(), precision);
      problem.factors.push_back(toss() ? 1.0f : 10.0f);
    }
    problem.finish = {nullptr, toss() ? 1.0f : 0.5f, toss() ? 1.0f : 0.1f, toss() ? 1.0f : 0.2f, toss(),
                      draw(0, 3) == 0};
    all.push_back(std::move(problem));
  }

  // Weights and biases.
  Convolutions launch{};
  launch.problems = problems;
  Memory items(frames.size() * 4);
  launch.lengths = {ragged ? reinterpret_cast<const int*>(items.data()) : nullptr, most};
  std::vector<Memory> kept;
  for (int p = 0; p < problems; ++p) {
    Convolution& operation = launch.problem[p];
    operation.sources = sources, operation.residuals = residuals;
    operation.columns = columns, operation.channels = channels, operation.stride = stride, operation.crop = crop;
    operation.output = output;
    operation.finish = all[size_t(p)].finish;
    kept.emplace_back(size_t(columns) * 4);
    float* const bias = reinterpret_cast<float*>(kept.back().data());
    operation.finish.bias = bias;
    for (int s = 0; s < sources; ++s) {
      Layer& layer = all[size_t(p)].layers[size_t(s)];
      const int type = toss() ? kFloats : kElements, chunks = layer.x.stored / chunk;
      layer.weight = numbers(size_t(layer.in) * size_t(out) * size_t(layer.taps),
                             1 / std::sqrt(float(layer.in * layer.taps)), type, precision);
      if (toss()) layer.bias = numbers(size_t(out), 1, type, precision);
      const int taps = (layer.taps + stride - 1) / stride;
      kept.emplace_back(size_t(taps) * size_t(chunks) * size_t(columns) * kChunkBytes);
      char* const packed = kept.back().data();
      const Memory weight = as_given(layer.weight, type, precision), given = as_given(layer.bias, type, precision);
      const Memory weight_later(weight.bytes), given_later(given.bytes);
      const Pack parameter{weight_later.data(),
                           layer.bias.empty() ? nullptr : given_later.data(),
                           packed,
                           bias,
                           type,
                           precision,
                           upsample,
                           layer.in,
                           out,
                           layer.taps,
                           stride,
                           channels,
                           chunks,
                           columns,
                           s == 0};
      run_late(pack, {{unsigned(draw(1, 3)), 1, 1}, 256, 0}, parameter, [&] {
        std::memcpy(weight_later.data(), weight.data(), weight.bytes);
        std::memcpy(given_later.data(), given.data(), given.bytes);
      });
      operation.source[s] = {
          layer.x.signal,    packed,      chunks, taps, layer.dilation, layer.left, short(layer.front),
          short(layer.back), layer.factor};
    }
    for (int r = 0; r < residuals; ++r) {
      operation.residual[r] = {all[size_t(p)].residuals[size_t(r)].signal, all[size_t(p)].factors[size_t(r)]};
    }
  }

  std::vector<Rows> expected;  // of the first kernel, of each problem
  for (int k = 0; k < kCount; ++k) {
    const ConvolutionKernel& kernel = kConvolutions[k];
    if (kernel.precision != precision || (kernel.columns == 8) != (columns == 8)) continue;

    const char untouched = char(0xa5);
    std::vector<Rows> results;
    const std::mt19937 before = generator;
    for (int p = 0; p < problems; ++p) {
      results.push_back(
          make_rows(frames, rate * stride, offset * stride + longer, out, channels, out_element, row_whole, untouched));
      launch.problem[p].y = results.back().signal;
      launch.problem[p].y.data = results.back().memory.data();
    }
    if (k + 1 < kCount) generator = before;

    const std::vector<int> lengths = results[0].lengths;
    const int rows = (results[0].most() + crop - 1) / stride + 1;
    launch.panels = (columns + kernel.columns - 1) / kernel.columns;
    const Shape shape{{unsigned(std::max(1, (rows + kernel.rows - 1) / kernel.rows) * launch.panels), unsigned(batch),
                       unsigned(problems)},
                      unsigned(kernel.threads),
                      unsigned(convolution_shared_bytes(kernel, span))};
    for (Problem& problem : all) {
      for (Layer& layer : problem.layers) std::memset(layer.x.memory.data(), 0xff, layer.x.memory.bytes);
      for (Rows& residual : problem.residuals) std::memset(residual.memory.data(), 0xff, residual.memory.bytes);
    }
    std::memset(items.data(), 0, items.bytes);
    run_late(kFunctions[k], shape, launch, [&] {
      std::memcpy(items.data(), frames.data(), items.bytes);
      for (Problem& problem : all) {
        for (Layer& layer : problem.layers) bring_rows(layer.x, precision);
        for (Rows& residual : problem.residuals) bring_rows(residual, precision);
      }
    });
    if (left_copies)
      return std::printf("operation %d: %s ends while copies are on their way\n", number, kernel.name), false;

    for (int p = 0; p < problems; ++p) {
      const Rows& y = results[size_t(p)];
      const Problem& problem = all[size_t(p)];
      if (!expected.empty()) {
        if (std::memcmp(y.memory.data(), expected[size_t(p)].memory.data(), y.memory.bytes) == 0) continue;
        return std::printf("operation %d: %s gives other bits than the kernel before\n", number, kernel.name), false;
      }
      std::vector<char> written(y.memory.bytes, 0);
      for (int item = 0; item < batch; ++item) {
        for (int row = 0; row < lengths[size_t(item)]; ++row) {
          for (int channel = 0; channel < channels; ++channel) {
            const char* const address = y.address(item, row, channel);
            std::memset(&written[size_t(address - y.memory.data())], 1, size_t(out_element));
            const double got = read_element(address, output, precision);
            if (channel >= out && residuals == 0) {
              if (!(got == 0 || std::isnan(got))) return std::printf("operation %d: fill is not zero\n", number), false;
              continue;
            }
            Sum sum;
            if (channel < out) {
              for (const Layer& layer : problem.layers) {
                add_layer(sum, layer, out, item, row, channel, crop, precision);
              }
            }
            for (int r = 0; r < residuals; ++r) {
              sum.add(leak(problem.residuals[size_t(r)].at(item, row, channel), problem.factors[size_t(r)]));
            }
            if (!sum.defined || (channel >= out && (std::isnan(got) || output == kInt16))) continue;
            const Finish& finish = problem.finish;
            if (finish.gelu) sum.sum *= 0.5 * std::erfc(-sum.sum * 0.7071067811865476), sum.terms = 1.2 * sum.terms + 1;
            const double error = finish.scale * sum.terms * (sum.count + 8) * 0x1p-24;
            double value = leak(finish.scale * sum.sum, finish.slope_after);
            if (finish.tanh) value = std::tanh(value);
            value = leak(value, finish.stored);
            double wrong = std::fabs(got - value), allowed = error + std::fabs(value) * 0x1p-20;
            if (std::isnan(value)) {
              wrong = output == kInt16 ? std::fabs(got) : std::isnan(got) ? 0 : NAN, allowed = 0;
            } else if (output == kInt16) {
              wrong = std::fabs(got - std::fmax(-32768, std::fmin(32767, 32767 * value)));
              allowed = 32767 * allowed + 0.5;
            } else if (output == kElements) {
              allowed += unit(std::fabs(value) + allowed, precision);
            }
            if (!(wrong <= allowed)) {
              return std::printf(
                         "operation %d: %s: problem %d, item %d of %d rows, row %d, channel %d is %.9g instead of "
                         "%.9g\n"
                         "  (%d columns, stride %d, crop %d, %d sources, %d residuals, output %d)\n",
                         number, kernel.name, p, item, lengths[size_t(item)], row, channel, got, value, columns, stride,
                         crop, sources, residuals, output),
                     false;
            }
          }
        }
      }
      for (size_t i = 0; i < written.size(); ++i) {
        if (!written[i] && y.memory.data()[i] != untouched) {
          return std::printf("operation %d: %s writes byte %zu of problem %d, which is not its own\n", number,
                             kernel.name, i, p),
                 false;
        }
      }
    }
    if (expected.empty()) expected = std::move(results);
  }
  return true;
}

bool signal_is_right(int number) {
  const int precision = draw(kFloat16, kTfloat32), type = toss() ? kFloats : kElements,
            element = element_bytes(precision);
  const int channels = draw(1, 30), chunks = (channels - 1) / chunk_channels(precision) + draw(1, 2);
  const int batch = draw(1, 3), frames = draw(1, 40);
  const bool last = toss();  // channels
  const int wide = toss() ? 1 : 2;
  Enter parameter{};
  parameter.channel = last ? wide : frames * wide, parameter.frame = last ? channels * wide : wide;
  parameter.item = int64_t(channels) * frames * wide;
  parameter.from = type, parameter.precision = precision;
  parameter.channels = channels, parameter.chunks = chunks, parameter.frames = frames, parameter.batch = batch;
  const size_t elements = size_t(parameter.item) * size_t(batch) - size_t(wide - 1);
  const std::vector<float> values = numbers(elements, 1, type, precision);
  const Memory memory = as_given(values, type, precision), later(memory.bytes);
  parameter.x = later.data();
  const Rows y = make_rows(std::vector<int>(size_t(batch), frames), 1, 0, channels, chunks * chunk_channels(precision),
                           element, true, char(0xa5));
  parameter.y = y.signal;
  parameter.y.data = y.memory.data();
  run_late(enter, {{unsigned(draw(1, 3)), 1, 1}, 256, 0}, parameter,
           [&] { std::memcpy(later.data(), memory.data(), memory.bytes); });
  for (int item = 0; item < batch; ++item) {
    for (int frame = 0; frame < frames; ++frame) {
      for (int channel = 0; channel < y.stored; ++channel) {
        const int64_t at = item * parameter.item + channel * parameter.channel + frame * parameter.frame;
        const float value = channel < channels ? rounded(values[size_t(at)], precision) : 0;
        if (read_element(y.address(item, frame, channel), kElements, precision) == value) continue;
        return std::printf("signal %d: item %d, frame %d, channel %d is wrong\n", number, item, frame, channel), false;
      }
    }
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
    if (!operation_is_right(i) || !signal_is_right(i)) return 1;
  }
}
