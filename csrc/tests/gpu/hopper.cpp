// The kernels for architecture 90a, run by the CPU, against plain loops in double precision. All of them must give the
// same bits. Arguments: how many launches to draw, and the number of the only one to run.
#include "../emulator/hopper_on_cpu.h"

#include "../../cuda/device/program.h"

#include "../../cuda/device/instructions.cuh"

#include "../../cuda/device/hopper.cuh"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

namespace fastvoc::cuda {

#define FASTVOC_HOPPER_CONVOLUTION(word, precision, rows, columns, threads)                                        \
  FASTVOC_HOPPER_KERNEL(hopper_##word##_##rows##x##columns, Convolutions, threads, hopper_blocks(rows, columns)) { \
    static_assert(threads == HopperWork<rows, columns>::block_threads);                                                  \
    hopper_convolution<precision, rows, columns>(parameter);                                                       \
  }
FASTVOC_HOPPER_CONVOLUTIONS(FASTVOC_HOPPER_CONVOLUTION)
#define FASTVOC_IN_TURN(word, precision, rows, columns, threads)                                   \
  FASTVOC_HOPPER_KERNEL(hopper_in_turn_##word##_##rows##x##columns, Convolutions, threads, 1) { \
    hopper_convolution_in_turn<precision, rows, columns>(parameter);                               \
  }
FASTVOC_HOPPER_CONVOLUTIONS_IN_TURN(FASTVOC_IN_TURN)

}  // namespace fastvoc::cuda

namespace {

using namespace fastvoc::cuda;

struct Kernel {
  ConvolutionKernel row;
  void (*function)(const Convolutions&);
};
#define FASTVOC_ROW(word, precision, rows, columns, threads)                          \
  {{"hopper_" #word "_" #rows "x" #columns, precision, rows, columns, threads, 1, 0, 0}, \
   hopper_##word##_##rows##x##columns},
#define FASTVOC_ROW_IN_TURN(word, precision, rows, columns, threads)                           \
  {{"hopper_in_turn_" #word "_" #rows "x" #columns, precision, rows, columns, threads, 1, 0, 1}, \
   hopper_in_turn_##word##_##rows##x##columns},
const Kernel kKernels[] = {FASTVOC_HOPPER_CONVOLUTIONS(FASTVOC_ROW)
                               FASTVOC_HOPPER_CONVOLUTIONS_IN_TURN(FASTVOC_ROW_IN_TURN)};

std::mt19937 generator;
int draw(int low, int high) { return std::uniform_int_distribution<int>(low, high)(generator); }
bool toss() { return draw(0, 1) == 1; }
float normal() { return std::normal_distribution<float>()(generator); }

constexpr char kUntouched = char(0xa5), kNoNumbers = char(0xff);

unsigned short to_bits(float value, int precision) {
  return static_cast<unsigned short>(precision == kFloat16 ? on_cpu::to_float16(value) : on_cpu::to_bfloat16(value));
}
float from_bits(unsigned short bits, int precision) {
  return precision == kFloat16 ? on_cpu::from_float16(bits) : on_cpu::bits_as<float>(unsigned(bits) << 16);
}

// Memory of exactly so many bytes, aligned to 16, or so many bytes behind that.
struct Memory {
  std::vector<char> all;
  size_t before;
  Memory(size_t bytes, char fill, size_t in_front = 0) : all(bytes + in_front, fill), before(in_front) {}
  char* data() { return all.data() + before; }
};

// Rows of channels, and what they hold. All of `stored` channels are there.
struct Rows {
  Signal signal;
  std::vector<int> lengths;
  int stored, element;
  Memory memory;
  std::vector<unsigned short> held;  // of the elements in memory, before they arrive there

  char* address(int item, int row, int channel) {
    return memory.data() + (item * signal.item + int64_t(row) * signal.row + channel) * element;
  }
  float at(int item, int row, int channel, int precision) const {
    return from_bits(held[size_t(item * signal.item + int64_t(row) * signal.row + channel)], precision);
  }
};

Rows make_rows(const std::vector<int>& frames, int rate, int offset, int stored, int element, bool whole, char fill) {
  std::vector<int> lengths;
  for (const int f : frames) lengths.push_back(std::max(0, f * rate + offset));
  const int most = *std::max_element(lengths.begin(), lengths.end()), unit = whole ? 16 / element : 1;
  Signal signal = {};
  signal.row = stored + unit * draw(0, 1);
  signal.item = int64_t(signal.row) * most + unit * draw(0, 1);
  signal.rate = rate, signal.offset = offset;
  const int64_t last_item = signal.item * int64_t(frames.size() - 1), last_row = int64_t(signal.row) * (most - 1);
  const int64_t elements = most ? last_item + last_row + stored : 0;
  Rows rows{signal, lengths, stored, element,
            Memory(size_t(elements * element), fill, whole || toss() ? 0 : size_t(element)), {}};
  rows.signal.data = rows.memory.data();
  return rows;
}

void fill_rows(Rows& rows, int precision) {
  rows.held.resize((rows.memory.all.size() - rows.memory.before) / 2);
  for (unsigned short& element : rows.held) element = to_bits(normal(), precision);
}

struct Problem {
  std::vector<Rows> x, residual;
  std::vector<std::vector<unsigned short>> weight;  // [slice][column][8], in the order of the kernel
  std::vector<float> bias;                          // likewise
};

// What arrives when a kernel has waited for the one before it.
std::vector<Problem>* arriving;
void arrive_now() {
  for (Problem& problem : *arriving) {
    for (auto* const group : {&problem.x, &problem.residual}) {
      for (Rows& rows : *group) {
        if (!rows.held.empty()) std::memcpy(rows.memory.data(), rows.held.data(), rows.held.size() * 2);
      }
    }
  }
}

// Every block must have waited for the kernel before it, and must leave nothing behind.
long long waits_before;
void begin_block() { waits_before = on_cpu::machine.waits_for_previous; }
void end_block() {
  if (on_cpu::machine.waits_for_previous == waits_before) on_cpu::fail("nobody waited for the kernel before this one");
  for (int i = 0; i < on_cpu::machine.threads; ++i) {
    if (on_cpu::machine.fibres[size_t(i)]->copies.empty()) continue;
    on_cpu::fail("a block ended while copies were on their way");
  }
}

// The row that padding reads in place of another, -1 for zeros, or -2 where that is not defined.
int padded(int row, int rows, int front, int back) {
  if (row >= 0 && row < rows) return row;
  const int mode = row < 0 ? front : back;
  if (mode == kZero || rows == 0) return -1;
  const int other = mode == kReplicate ? (row < 0 ? 0 : rows - 1) : row < 0 ? -row : 2 * (rows - 1) - row;
  return other >= 0 && other < rows ? other : -2;
}

double leak(double value, double slope) { return value < 0 ? value * slope : value; }

struct Expected {
  double value, allowed;  // how far from it a result may be
  bool defined;
};

// Channel `channel` of row `row` of an item of the result.
Expected expected_of(const Convolution& operation, const Problem& problem, int precision, int item, int row,
                     int channel) {
  const int columns = operation.columns, of = (row + operation.crop) / operation.stride;
  const int unpermuted = (row + operation.crop) % operation.stride * operation.channels + channel;
  int column = unpermuted / 32 * 32;
  while (channel_of(column, columns) != unpermuted) ++column;

  double sum = operation.finish.bias[column], terms = std::fabs(sum);
  int count = 1;
  const auto add = [&](double term) { sum += term, terms += std::fabs(term), ++count; };
  for (int s = 0; s < operation.sources; ++s) {
    const Source& source = operation.source[s];
    const Rows& x = problem.x[size_t(s)];
    for (int tap = 0; tap < source.taps; ++tap) {
      const int length = x.lengths[size_t(item)];
      const int at = padded(of - source.left + tap * source.dilation, length, source.front, source.back);
      if (at == -2) return {0, 0, false};
      if (at < 0) continue;
      for (int in = 0; in < 8 * source.chunks; ++in) {
        float value = x.at(item, at, in, precision);
        if (value < 0) value = from_bits(to_bits(value * source.factor, precision), precision);
        const int slice = tap * source.chunks + in / 8;
        const size_t element = (size_t(slice) * size_t(columns) + size_t(column)) * 8 + size_t(in % 8);
        add(double(value) * from_bits(problem.weight[size_t(s)][element], precision));
      }
    }
  }
  for (int r = 0; r < operation.residuals; ++r) {
    add(leak(problem.residual[size_t(r)].at(item, row, channel, precision), operation.residual[r].factor));
  }

  const Finish& finish = operation.finish;
  if (finish.gelu) sum *= 0.5 * std::erfc(-sum * 0.7071067811865476), terms = 1.2 * terms + 1;
  double value = leak(finish.scale * sum, finish.slope_after);
  if (finish.tanh) value = std::tanh(value);
  value = leak(value, finish.stored);
  // Every term is added in float32, and what is stored is off by half a unit.
  double allowed = finish.scale * terms * (count + 8) * 0x1p-24 + std::fabs(value) * 0x1p-20;
  if (operation.output == kInt16) {
    value = std::fmax(-32768, std::fmin(32767, 32767 * value));
    allowed = 32767 * allowed + 0.5;
  } else if (operation.output == kElements) {
    const double size = std::fabs(value) + allowed;
    allowed += precision == kFloat16 ? std::max(size * 0x1p-11, 0x1p-25) : size * 0x1p-8;
  }
  return {value, allowed, true};
}

double read_result(const char* from, int output, int precision) {
  if (output == kFloats) {
    float value;
    std::memcpy(&value, from, 4);
    return value;
  }
  unsigned short bits;
  std::memcpy(&bits, from, 2);
  return output == kInt16 ? double(short(bits)) : from_bits(bits, precision);
}

// Prints what is wrong with a result.
bool result_is_right(int number, const char* kernel, const Convolution& operation, const Problem& problem, Rows& y,
                     int precision) {
  std::vector<char> written(y.memory.all.size(), 0);
  for (int item = 0; item < int(y.lengths.size()); ++item) {
    const int length = y.lengths[size_t(item)];
    for (int row = 0; row < length; ++row) {
      for (int channel = 0; channel < operation.channels; ++channel) {
        const char* const address = y.address(item, row, channel);
        std::memset(&written[size_t(address - y.memory.all.data())], 1, size_t(y.element));
        // Of what is not near an end, some will do.
        if (draw(0, 7) && row > 2 && row + 3 < length) continue;
        const Expected expected = expected_of(operation, problem, precision, item, row, channel);
        const double got = read_result(address, operation.output, precision);
        if (!expected.defined || std::fabs(got - expected.value) <= expected.allowed) continue;
        std::printf("launch %d: %s: item %d of %d rows, row %d, channel %d is %.9g instead of %.9g\n", number, kernel,
                    item, length, row, channel, got, expected.value);
        std::printf("  (%d columns, %d channels, stride %d, crop %d, %d sources, %d residuals, output %d)\n",
                    operation.columns, operation.channels, operation.stride, operation.crop, operation.sources,
                    operation.residuals, operation.output);
        return false;
      }
    }
  }
  for (size_t i = 0; i < written.size(); ++i) {
    if (written[i] || y.memory.all[i] == kUntouched) continue;
    return std::printf("launch %d: %s writes byte %zu, which is not its own\n", number, kernel, i), false;
  }
  return true;
}

bool launch_is_right(int number) {
  const int precision = toss() ? kFloat16 : kBfloat16;
  const int stride = draw(0, 2) ? 1 : draw(2, 4), crop = stride > 1 ? draw(0, stride) : draw(0, 3) ? 0 : draw(1, 3);
  const bool plain = draw(0, 2) != 0;  // whole chunks of elements, as between operations
  const int channels = plain ? 8 * draw(stride > 1 ? 1 : 5, stride > 1 ? 12 : 40) : draw(20, 150) / stride;
  const int columns = (stride * channels + 31) / 32 * 32;
  const int rate = draw(1, 2), offset = draw(-1, 1), longer = draw(-2, 2);
  const int problems = draw(0, 2) ? 1 : 2, sources = draw(0, 2) ? 1 : draw(2, kSources), residuals = draw(0, 2);
  std::vector<int> frames;
  for (int i = draw(1, 2); i > 0; --i) frames.push_back(draw(0, 9) ? draw(0, 3) ? draw(0, 70) : draw(120, 300) : 0);
  const auto make_result = [&](int bytes, char fill) {
    return make_rows(frames, rate * stride, offset * stride + longer, channels, bytes, plain, fill);
  };

  Convolutions launch = {};
  launch.problems = problems;
  launch.lengths = {frames.data(), 0};
  if (frames.size() == 1 && toss()) launch.lengths = {nullptr, frames[0]};
  const int output = plain ? kElements : draw(kElements, kInt16), element = output == kFloats ? 4 : 2;

  std::vector<Problem> all;
  int span = 0;
  for (int p = 0; p < problems; ++p) {
    Problem problem;
    Convolution& operation = launch.problem[p];
    operation.sources = sources, operation.residuals = residuals;
    operation.columns = columns, operation.channels = channels, operation.stride = stride, operation.crop = crop;
    operation.output = output;
    for (int s = 0; s < sources; ++s) {
      // Often more blocks of chunks, or taps, than there are places for them; sometimes part of a block.
      const int chunks = toss() ? 8 * draw(1, 3) : 2 * draw(1, 11);
      Source& source = operation.source[s];
      source.chunks = chunks, source.taps = draw(1, chunks > 8 ? 4 : 7), source.dilation = draw(1, 5);
      source.left = draw(0, (source.taps - 1) * source.dilation);
      source.front = short(draw(kZero, kReplicate)), source.back = short(draw(kZero, kReplicate));
      source.factor = toss() ? 1.0f : toss() ? 10.0f : 0.2f;
      span = std::max(span, (source.taps - 1) * source.dilation);
      problem.x.push_back(make_rows(frames, rate, offset, 8 * chunks, 2, true, kNoNumbers));
      fill_rows(problem.x.back(), precision);
      std::vector<unsigned short> weight(size_t(source.taps * chunks * columns * 8));
      const float scale = 1 / std::sqrt(float(source.taps * chunks * 8));
      for (unsigned short& value : weight) value = to_bits(normal() * scale, precision);
      problem.weight.push_back(std::move(weight));
    }
    for (int r = 0; r < residuals; ++r) {
      problem.residual.push_back(make_result(2, kNoNumbers));
      fill_rows(problem.residual.back(), precision);
      operation.residual[r].factor = toss() ? 1.0f : 10.0f;
    }
    for (int i = 0; i < columns; ++i) problem.bias.push_back(normal());
    operation.finish = {nullptr, toss() ? 1.0f : 0.5f, toss() ? 1.0f : draw(-1, 1) * 0.1f, toss() ? 1.0f : 0.2f,
                        plain ? 0 : toss(), draw(0, 3) == 0};
    // What vectors hold stays where it is when they move.
    for (int s = 0; s < sources; ++s) {
      operation.source[s].x = problem.x[size_t(s)].signal;
      operation.source[s].weight = problem.weight[size_t(s)].data();
    }
    for (int r = 0; r < residuals; ++r) operation.residual[r].x = problem.residual[size_t(r)].signal;
    operation.finish.bias = problem.bias.data();
    all.push_back(std::move(problem));
  }

  std::vector<std::vector<char>> expected;
  const std::mt19937 before = generator;
  int tried = 0;
  for (const Kernel& kernel : kKernels) {
    if (kernel.row.precision != precision) continue;
    // Three of them, to be quick.
    if ((number + tried++) % 8 > 2) continue;
    generator = before;
    std::vector<Rows> results;
    for (int p = 0; p < problems; ++p) {
      results.push_back(make_result(element, kUntouched));
      launch.problem[p].y = results.back().signal;
    }
    const int most = *std::max_element(results[0].lengths.begin(), results[0].lengths.end());
    const int sums = (most + crop + stride - 1) / stride;
    const int tiles = std::max(1, (sums + kernel.row.rows - 1) / kernel.row.rows);
    launch.panels = (columns + kernel.row.columns - 1) / kernel.row.columns;
    launch.blocks = tiles * launch.panels, launch.items = int(frames.size()), launch.stay = draw(1, 3);
    const Shape all_blocks = {{unsigned(launch.blocks), unsigned(frames.size()), unsigned(problems)}, 0, 0};
    const Shape staying = {{unsigned(launch.stay), 1, 1}, 0, 0};
    const unsigned* const grid = (kernel.row.in_turn ? staying : all_blocks).grid;
    const Shape shape = {{grid[0], grid[1], grid[2]},
                         unsigned(kernel.row.threads), unsigned(convolution_shared_bytes(kernel.row, span))};
    for (Problem& problem : all) {
      for (auto* const group : {&problem.x, &problem.residual}) {
        for (Rows& rows : *group) std::fill(rows.memory.all.begin(), rows.memory.all.end(), kNoNumbers);
      }
    }
    arriving = &all;
    on_cpu::machine.first_wait = arrive_now;
    run_on_cpu(kernel.row.name, kernel.function, shape, &launch);
    on_cpu::machine.first_wait = nullptr;

    const bool again = !expected.empty();
    for (int p = 0; p < problems; ++p) {
      Rows& y = results[size_t(p)];
      const char* const name = kernel.row.name;
      if (!again && !result_is_right(number, name, launch.problem[p], all[size_t(p)], y, precision)) return false;
      if (again && y.memory.all != expected[size_t(p)]) {
        return std::printf("launch %d: %s gives other bits than others\n", number, name), false;
      }
    }
    if (!again) {
      for (Rows& y : results) expected.push_back(y.memory.all);
    }
  }
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  const int count = argc > 1 ? std::atoi(argv[1]) : 20, only = argc > 2 ? std::atoi(argv[2]) : -1;
  on_cpu::begin_block.push_back(begin_block);
  on_cpu::end_block.push_back(end_block);
  for (int i = 0; i < count; ++i) {
    if (only >= 0 && i != only) continue;
    generator.seed(unsigned(i));
    if (!launch_is_right(i)) return 1;
  }
}
