// Chains (cuda/device/chain.cuh and hopper_chain.cuh), run by the CPU, against plain loops: every kernel, with random
// operations on random buffers.
//
// Half of the cases consist of small whole numbers, so that sums are exact in any order: results must be equal to the
// bit, and where the signal holds something that is no number, so does the result there and only there. The others are
// as networks are; rounding every stored value, plain loops are some error away from loops that round nothing, and the
// kernel may be twice as far.
//
// Shared memory, and everything in device memory that is not promised to hold something, begins as no number.
#include "../emulator/hopper_on_cpu.h"

#include "../../cuda/device/program.h"

#include "../../cuda/device/instructions.cuh"

#include "../../cuda/device/hopper_chain.cuh"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <new>
#include <random>
#include <vector>

namespace fastvoc::cuda {

#define FASTVOC_CHAIN(word, precision, channels, warps, tiles)                             \
  FASTVOC_KERNEL(chain_##word##_##channels##_##warps##x##tiles, Chain, 32 * warps) {       \
    chain<precision, channels, warps, tiles>(parameter);                                   \
  }
FASTVOC_CHAINS(FASTVOC_CHAIN)
#define FASTVOC_CHAIN_FUNCTION(word, precision, channels, warps, tiles) chain_##word##_##channels##_##warps##x##tiles,
#define FASTVOC_HOPPER_CHAIN(word, precision, channels, warps, tiles)                              \
  FASTVOC_HOPPER_KERNEL(hopper_chain_##word##_##channels##_##warps##x##tiles, Chain, 32 * (warps + 1), \
                        hopper_chain_blocks(channels, tiles)) {                                     \
    hopper_chain<precision, channels, warps, tiles>(parameter);                                     \
  }
FASTVOC_HOPPER_CHAINS(FASTVOC_HOPPER_CHAIN)
#define FASTVOC_HOPPER_CHAIN_FUNCTION(word, precision, channels, warps, tiles) \
  hopper_chain_##word##_##channels##_##warps##x##tiles,
void (*const kFunctions[])(const Chain&) = {FASTVOC_CHAINS(FASTVOC_CHAIN_FUNCTION)
                                                FASTVOC_HOPPER_CHAINS(FASTVOC_HOPPER_CHAIN_FUNCTION)};

namespace {

constexpr float kNone = std::numeric_limits<float>::quiet_NaN();

std::mt19937_64 generator;
int draw(int from, int to) { return std::uniform_int_distribution<int>(from, to)(generator); }
bool chance(int percent) { return draw(1, 100) <= percent; }
float draw_normal() { return std::normal_distribution<float>()(generator); }
template <class T>
T draw_one(std::initializer_list<T> items) {
  return items.begin()[draw(0, int(items.size()) - 1)];
}

// A number as it is stored.
float stored(int precision, float value) {
  if (precision == kFloat16) return on_cpu::from_float16(on_cpu::to_float16(value));
  return precision == kBfloat16 ? on_cpu::bits_as<float>(on_cpu::to_bfloat16(value) << 16) : value;
}
// A number as it is multiplied.
float operand(int precision, float value) {
  return precision == kTfloat32 ? round_tf32(value) : stored(precision, value);
}

void put(int precision, char* memory, size_t element, float value) {
  if (precision == kTfloat32) {
    std::memcpy(memory + 4 * element, &value, 4);
  } else {
    const unsigned short bits =
        (unsigned short)(precision == kFloat16 ? on_cpu::to_float16(value) : on_cpu::to_bfloat16(value));
    std::memcpy(memory + 2 * element, &bits, 2);
  }
}
float get(int precision, const char* memory, size_t element) {
  if (precision == kTfloat32) {
    float value;
    std::memcpy(&value, memory + 4 * element, 4);
    return value;
  }
  unsigned short bits;
  std::memcpy(&bits, memory + 2 * element, 2);
  return precision == kFloat16 ? on_cpu::from_float16(bits) : on_cpu::bits_as<float>(unsigned(bits) << 16);
}

template <class Number>
Number rectified(Number value, float slope) {
  return value < 0 ? value * Number(slope) : value;
}

struct Layout {
  int frames = 0, batch = 0, extra = 0;  // extra: rows that the last operation makes behind those of the others
  bool whole = false;
  std::vector<int> lengths;
};

struct Case : Layout {
  Chain chain = {};
  ChainKernel kernel = kChains[0];
  std::vector<float> weights, biases;  // weights as numbers, in packed order
  std::vector<float> x, added;         // [item][row][channel], as stored
  int x_rows = 0, x_channels = 0, y_rows = 0;

  int rows_of(const Signal& signal, int item) const {
    return std::max(0, (chain.lengths.items ? lengths[size_t(item)] : frames) * signal.rate + signal.offset);
  }
};

// Rows of a signal, one after the other, in one of two arithmetics: float32 with stored numbers rounded, or exact.
template <class Number>
struct Loops {
  const Case& c;
  int item, length, width;
  bool exact = true;  // no sum was rounded
  std::vector<std::vector<Number>> buffers;
  std::vector<Number> y;
  static constexpr bool kRounds = sizeof(Number) == 4;

  Loops(const Case& c, int item)
      : c(c), item(item), length(c.rows_of(c.chain.x, item)), width(c.kernel.channels),
        buffers(kBuffers, std::vector<Number>(size_t(length) * size_t(width), Number(kNone))) {
    for (int row = 0; row < length; ++row)
      for (int channel = 0; channel < width; ++channel)
        buffers[0][size_t(row * width + channel)] =
            channel < c.x_channels ? c.x[size_t((item * c.x_rows + row) * c.x_channels + channel)] : 0;
    for (int i = 0; i < c.chain.steps; ++i) run(c.chain.step[i]);
  }

  Number read(const ChainSource& source, int row, int channel) const {
    int mode = kZero;
    if (row < 0) mode = source.front;
    if (row >= length) mode = source.back;
    if (row < 0 || row >= length) {
      if (mode == kZero) return 0;
      if (mode == kReplicate || length == 1) row = row < 0 ? 0 : length - 1;
      while (row < 0 || row >= length) row = row < 0 ? -row : 2 * (length - 1) - row;
    }
    const Number value = rectified(buffers[size_t(source.buffer)][size_t(row * width + channel)], source.factor);
    return kRounds ? Number(operand(c.kernel.precision, float(value))) : value;
  }

  void run(const ChainStep& step) {
    const int columns = step.narrow ? 8 : width, per = chunk_channels(c.kernel.precision);
    const int rows = length + (step.output < 0 ? c.extra : 0);
    std::vector<Number> result(size_t(rows) * size_t(columns));
    for (int row = 0; row < rows; ++row) {
      for (int column = 0; column < columns; ++column) {
        Number sum = c.biases[size_t(step.bias + column)];
        double twin = sum;
        for (int k = 0; k < step.sources; ++k) {
          const ChainSource& source = step.source[k];
          const float* weight = &c.weights[size_t(source.weight / element_bytes(c.kernel.precision))];
          for (int tap = 0; tap < source.taps; ++tap)
            for (int channel = 0; channel < source.chunks * per; ++channel) {
              const int slice = tap * source.chunks + channel / per;
              const Number term = read(source, row - source.left + tap * source.dilation, channel) *
                                  Number(weight[(slice * columns + column) * per + channel % per]);
              sum += term;
              twin += double(term);
            }
        }
        exact = exact && !(double(sum) != twin && twin == twin);
        const int channel = channel_of(column, columns);
        result[size_t(row * columns + channel)] = sum;
      }
    }
    if (step.output < 0) return finish_y(step, result, rows, columns);
    std::vector<Number>& to = buffers[size_t(step.output)];
    std::vector<Number> next(to.size(), Number(kNone));
    for (int row = 0; row < rows; ++row)
      for (int channel = 0; channel < columns; ++channel) {
        Number sum = result[size_t(row * columns + channel)];
        for (int k = 0; k < step.residuals; ++k) {
          const ChainResidual& residual = step.residual[k];
          sum += rectified(buffers[size_t(residual.buffer)][size_t(row * width + channel)], residual.factor);
        }
        sum = finish(step, sum);
        next[size_t(row * width + channel)] = kRounds ? Number(stored(c.kernel.precision, float(sum))) : sum;
      }
    to = next;
  }

  static Number finish(const ChainStep& step, Number sum) {
    sum = rectified(sum * Number(step.scale), step.slope_after);
    if (step.tanh) sum = std::tanh(sum);
    return rectified(sum, step.stored);
  }

  void finish_y(const ChainStep& step, const std::vector<Number>& result, int rows, int columns) {
    const Chain& chain = c.chain;
    y.assign(size_t(c.rows_of(chain.y, item)) * size_t(chain.channels), Number(kNone));
    for (int row = 0; row < rows; ++row)
      for (int column = 0; column < chain.stride * chain.channels; ++column) {
        const int at = row * chain.stride + column / chain.channels - chain.crop, channel = column % chain.channels;
        if (at < 0 || at >= c.rows_of(chain.y, item)) continue;
        Number sum = result[size_t(row * columns + column)];
        for (int k = 0; k < step.residuals; ++k) {
          const ChainResidual& residual = step.residual[k];
          const Number value = residual.buffer < 0
                                   ? Number(c.added[size_t((item * c.y_rows + at) * width + channel)])
                                   : buffers[size_t(residual.buffer)][size_t(row * width + column)];
          sum += rectified(value, residual.factor);
        }
        sum = finish(step, sum);
        if (kRounds && chain.output == kElements) sum = Number(operand(c.kernel.precision, float(sum)));
        if (chain.output == kInt16) {
          const double scaled = kRounds ? double(32767 * float(sum)) : 32767 * double(sum);
          const double whole = kRounds ? std::nearbyint(scaled) : scaled;
          sum = scaled != scaled ? 0 : Number(std::min(std::max(whole, -32768.0), 32767.0));
        }
        y[size_t(at * chain.channels + channel)] = sum;
      }
  }
};

// What of a buffer is read by later steps: rows in front of those of the result and behind.
struct Reach {
  int before = -1, after = -1;
  void include(int b, int a) { before = std::max(before, b), after = std::max(after, a); }
};

ChainSource draw_source(const Case& c, int buffer, int chunks, int most_reach, bool exact_length) {
  ChainSource source = {};
  source.buffer = short(buffer);
  source.chunks = short(chance(85) ? chunks : draw(1, chunks));
  source.taps = short(draw_one({1, 1, 2, 3, 3, 3, 5, 7}));
  if (c.kernel.hopper) {  // slices in pairs
    if (source.chunks > 1)
      source.chunks = short(source.chunks / 2 * 2);
    else
      source.taps = short((source.taps + 1) / 2 * 2);
  }
  source.dilation = short(source.taps == 1 ? 1 : draw(1, std::max(1, std::min(9, most_reach / (source.taps - 1)))));
  const int span = (source.taps - 1) * source.dilation;
  source.left = short(chance(70) ? span / 2 : draw(0, span));
  source.right = short(span - source.left + (exact_length ? 0 : c.extra));
  source.front = short(draw(kZero, kReplicate));
  source.back = short(exact_length || c.extra == 0 ? (chance(70) ? source.front : draw(kZero, kReplicate)) : kZero);
  source.factor = c.kernel.hopper || chance(80) ? 1.0f : draw_one({2.0f, 0.5f});
  return source;
}

void draw_weights(Case& c, ChainStep& step) {
  const int columns = step.narrow ? 8 : c.kernel.channels, per = chunk_channels(c.kernel.precision);
  int terms = 0;
  for (int k = 0; k < step.sources; ++k) terms += step.source[k].taps * step.source[k].chunks * per;
  for (int k = 0; k < step.sources; ++k) {
    ChainSource& source = step.source[k];
    // Sources stand anywhere, not one behind the other.
    c.weights.resize((c.weights.size() + size_t(draw(0, 3)) * 16 + 15) / 16 * 16, kNone);
    source.weight = int(c.weights.size()) * element_bytes(c.kernel.precision);
    for (int i = 0; i < source.taps * source.chunks * columns * per; ++i)
      c.weights.push_back(c.whole ? (draw(1, terms) <= 3 ? draw_one({-1.0f, 1.0f}) : 0.0f)
                                  : operand(c.kernel.precision, draw_normal() / std::sqrt(float(terms))));
  }
  step.bias = int(c.biases.size());
  for (int i = 0; i < columns; ++i) c.biases.push_back(c.whole ? float(draw(-2, 2)) : 0.1f * draw_normal());
}

bool draw_steps(Case& c) {
  Chain& chain = c.chain;
  const int width = c.kernel.channels, chunks = width / chunk_channels(c.kernel.precision);
  const int narrow_chunks = 8 / chunk_channels(c.kernel.precision);
  enum { kEmpty, kWide, kNarrow } holds[kBuffers] = {kWide};
  chain.buffers = draw(2, kBuffers);
  chain.steps = draw(1, 7);
  const int narrow_steps = chance(40) ? draw(1, std::min(2, chain.steps)) : 0;
  const int most_reach = std::max(2, c.kernel.rows() / 4 / chain.steps);
  for (int i = 0; i < chain.steps; ++i) {
    ChainStep& step = chain.step[i];
    const bool last = i + 1 == chain.steps;
    step.narrow = short(i >= chain.steps - narrow_steps || (width == 8 && chance(50)));
    const auto pick = [&](auto suits) {
      std::vector<int> found;
      for (int b = 0; b < chain.buffers; ++b)
        if (suits(b)) found.push_back(b);
      return found.empty() ? -1 : found[size_t(draw(0, int(found.size()) - 1))];
    };
    step.sources = short(chance(70) ? 1 : 2);
    bool read[kBuffers] = {};
    for (int k = 0; k < step.sources; ++k) {
      const int buffer = pick([&](int b) { return holds[b] != kEmpty; });
      step.source[k] = draw_source(c, buffer, holds[buffer] == kNarrow ? narrow_chunks : chunks, most_reach, !last);
      read[buffer] = true;
      // Two ways of padding cannot be in one buffer at once.
      if (k == 1 && step.source[0].buffer == buffer) {
        step.source[1].front = step.source[0].front, step.source[1].back = step.source[0].back;
        const bool paired = c.kernel.hopper && step.source[1].chunks == 1;
        if (!paired && chance(30)) step.source[1].taps = step.source[1].dilation = 1, step.source[1].left = 0,
                        step.source[1].right = short(last ? c.extra : 0);
      }
    }
    step.residuals = short(draw(0, 2));
    for (int k = 0; k < step.residuals; ++k) {
      const int buffer = pick([&](int b) { return holds[b] == kWide || (holds[b] == kNarrow && step.narrow); });
      // Rows behind the last one are no residuals.
      if (buffer < 0 || (last && c.extra)) step.residuals = 0;
      step.residual[k] = {buffer, chance(30) ? 1.0f : draw_one({2.0f, 4.0f, 0.5f})};
    }
    step.scale = chance(60) ? 1.0f : 0.5f;
    step.slope_after = chance(70) ? 1.0f : 0.5f;
    step.stored = chance(30) ? 1.0f : draw_one({0.5f, 0.25f});
    step.tanh = chance(step.narrow || last ? 30 : 10);
    step.output = -1;
    if (last) break;
    int to = pick([&](int b) {
      return !read[b] && step.residuals > 0 && b == step.residual[0].buffer;
    });
    if (to < 0 || chance(50)) to = pick([&](int b) { return !read[b]; });
    if (to < 0) return false;
    step.output = short(to);
    holds[to] = step.narrow ? kNarrow : kWide;
  }
  // A residual in device memory, as long as y.
  ChainStep& last = chain.step[chain.steps - 1];
  if (!last.narrow && chain.stride == 1 && chain.channels == width && chance(40))
    last.residual[last.residuals > 1 ? 1 : last.residuals++] = {-1, draw_one({1.0f, 2.0f})};
  for (int i = 0; i < chain.steps; ++i) draw_weights(c, chain.step[i]);
  return true;
}

int shared_bytes(const Case& c) {
  return chain_shared_bytes(c.kernel.precision, c.kernel.channels, c.kernel.rows(), c.chain.guard, c.chain.buffers) +
         c.kernel.hopper * kChainBarrierBytes;
}

// Which rows of a tile are needed of what, from the last step to the first.
bool lay_out_tile(Case& c) {
  Chain& chain = c.chain;
  Reach reach[kBuffers], of_step[kSteps];
  for (int i = chain.steps - 1; i >= 0; --i) {
    const ChainStep& step = chain.step[i];
    Reach out;
    if (step.output < 0)
      out = {0, 0};
    else
      std::swap(out, reach[step.output]);
    of_step[i] = out;
    if (out.before < 0) continue;  // nobody reads it
    for (int k = 0; k < step.sources; ++k) {
      const ChainSource& source = step.source[k];
      int before = source.left, after = (source.taps - 1) * source.dilation - source.left;
      chain.guard = std::max({chain.guard, before, after});
      if (source.front == kReflect || source.back == kReflect) before = after = std::max(before, after);
      reach[source.buffer].include(out.before + before, out.after + after);
    }
    for (int k = 0; k < step.residuals; ++k)
      if (step.residual[k].buffer >= 0) reach[step.residual[k].buffer].include(out.before, out.after);
  }
  chain.before = 0;
  int after = 0;
  for (int i = 0; i < chain.steps; ++i)
    chain.before = std::max(chain.before, of_step[i].before), after = std::max(after, of_step[i].after);
  chain.before = std::max(chain.before, reach[0].before), after = std::max(after, reach[0].after);
  const int most = c.kernel.rows() - chain.before - after;
  if (most < 1) return false;
  chain.rows = chance(60) ? most : draw(std::max(1, most / 2), most);
  for (int i = 0; i < chain.steps; ++i) {
    ChainStep& step = chain.step[i];
    if (of_step[i].before < 0) continue;  // first and last are 0: all of it is skipped
    step.first = short(chain.before - of_step[i].before);
    step.last = short(chain.before + chain.rows + of_step[i].after);
  }
  return shared_bytes(c) <= 227 << 10;
}

bool draw_case(Case& c) {
  Chain& chain = c.chain;
  const int number = draw(0, int(std::size(kChains)) - 1);
  c.kernel = kChains[number];
  const int width = c.kernel.channels, per = chunk_channels(c.kernel.precision);
  c.whole = chance(50);
  c.extra = chance(20);
  const bool narrow = chance(40);
  if (chance(50)) {
    chain.stride = 1, chain.channels = narrow ? draw(1, 8) : chance(70) ? width : draw(1, width);
  } else {
    chain.stride = draw(1, 4), chain.channels = std::max(1, (narrow ? 8 : width) / chain.stride);
    if (chance(30)) chain.channels = draw(1, chain.channels);
    chain.crop = draw(0, chain.stride);
  }
  if (!draw_steps(c)) return false;
  if (chain.step[chain.steps - 1].narrow && chain.stride * chain.channels > 8) return false;
  if (!lay_out_tile(c)) return false;
  chain.output = draw_one({kElements, kElements, kFloats, kInt16});

  c.batch = draw(1, 3);
  chain.x.rate = draw_one({1, 1, 1, 2, 3});
  chain.x.offset = chain.x.rate == 1 ? draw_one({0, 0, 5}) : draw(-5, 5);
  const int most_rows = chance(30) ? draw(0, 6) : draw(0, std::min(3 * chain.rows, 400));
  c.frames = most_rows / chain.x.rate;
  const int y_extra = c.extra * draw(0, chain.stride) - chain.crop - draw(0, 1);
  chain.y.rate = chain.x.rate * chain.stride;
  chain.y.offset = chain.x.offset * chain.stride + y_extra;
  c.lengths.assign(size_t(c.batch), c.frames);
  if (chance(60))
    for (int& length : c.lengths) length = draw(0, c.frames);
  chain.lengths.frames = c.frames;

  c.x_rows = std::max(0, c.frames * chain.x.rate + chain.x.offset);
  c.y_rows = std::max(0, c.frames * chain.y.rate + chain.y.offset);
  chain.x_chunks = chance(70) ? width / per : draw(1, width / per);
  c.x_channels = chain.x_chunks * per;
  c.x.resize(size_t(c.batch * c.x_rows * c.x_channels));
  c.added.resize(size_t(c.batch * c.y_rows * width));
  for (std::vector<float>* signal : {&c.x, &c.added})
    for (float& value : *signal) value = c.whole ? float(draw(-4, 4)) : stored(c.kernel.precision, draw_normal());
  if (c.whole && !c.x.empty() && chance(40)) c.x[size_t(draw(0, int(c.x.size()) - 1))] = kNone;
  return true;
}

// Aligned memory that ends where it ends.
struct Memory {
  size_t size;
  char* bytes;
  explicit Memory(size_t size) : size(size), bytes(static_cast<char*>(::operator new(size, std::align_val_t(64)))) {
    std::memset(bytes, 0xff, size);
  }
  ~Memory() { ::operator delete(bytes, std::align_val_t(64)); }
  Memory(const Memory&) = delete;
};

std::vector<char> late_x;  // what x will hold when the kernel in front has ended
char* x_memory = nullptr;

// A sentence, or nothing.
std::string check(Case& c) {
  Chain& chain = c.chain;
  const int precision = c.kernel.precision, element = element_bytes(precision), per = chunk_channels(precision);
  Memory weights(c.weights.size() * size_t(element)), biases(c.biases.size() * 4);
  for (size_t i = 0; i < c.weights.size(); ++i) put(precision, weights.bytes, i, c.weights[i]);
  std::memcpy(biases.bytes, c.biases.data(), biases.size);
  chain.weights = weights.bytes;
  chain.biases = reinterpret_cast<const float*>(biases.bytes);
  if (chance(70)) chain.lengths.items = c.lengths.data();

  // Signals with gaps between rows and between items.
  const auto lay = [&](Signal& signal, int rows, int channels, int unit) {
    signal.row = (channels + unit - 1) / unit * unit + unit * draw(0, 1);
    signal.item = (long long)rows * signal.row + unit * draw(0, 2);
    if (chance(50)) signal.item = (signal.item + 7) / 8 * 8;
    return size_t(std::max(1LL, c.batch * signal.item + signal.row));
  };
  Memory x(lay(chain.x, c.x_rows, c.x_channels, per) * size_t(element));
  late_x.assign(x.size, char(0xff));
  for (int item = 0; item < c.batch; ++item)
    for (int row = 0; row < c.rows_of(chain.x, item); ++row)
      for (int channel = 0; channel < c.x_channels; ++channel)
        put(precision, late_x.data(), size_t(item * chain.x.item + row * chain.x.row + channel),
            c.x[size_t((item * c.x_rows + row) * c.x_channels + channel)]);
  chain.x.data = x_memory = x.bytes;
  on_cpu::machine.first_wait = [] { std::copy(late_x.begin(), late_x.end(), x_memory); };

  chain.added.rate = chain.y.rate, chain.added.offset = chain.y.offset;
  Memory added(lay(chain.added, c.y_rows, c.kernel.channels, per) * size_t(element));
  for (int item = 0; item < c.batch; ++item)
    for (int row = 0; row < c.rows_of(chain.y, item); ++row)
      for (int channel = 0; channel < c.kernel.channels; ++channel)
        put(precision, added.bytes, size_t(item * chain.added.item + row * chain.added.row + channel),
            c.added[size_t((item * c.y_rows + row) * c.kernel.channels + channel)]);
  chain.added.data = added.bytes;

  const int y_element = chain.output == kElements ? element : chain.output == kFloats ? 4 : 2;
  const bool whole_chunks = chance(50) && chain.channels % per == 0;
  Memory y(lay(chain.y, c.y_rows, chain.channels, whole_chunks ? per : 1) * size_t(y_element));
  chain.y.data = y.bytes;

  const int tiles = std::max(1, (c.x_rows + c.extra + chain.rows - 1) / chain.rows);
  const unsigned threads = unsigned(c.kernel.threads()), shared = unsigned(shared_bytes(c));
  const Shape shape = {{unsigned(tiles), unsigned(c.batch), 1}, threads, shared};
  int number = 0;
  while (std::string(kChains[number].name) != c.kernel.name) ++number;
  run_on_cpu(c.kernel.name, kFunctions[number], shape, &chain);
  if (on_cpu::machine.waits_for_previous != 32LL * c.kernel.warps * tiles * c.batch)
    return "not every thread has waited for the kernel in front";

  double error = 0, allowed = 0;
  std::vector<char> touched(y.size);
  for (int item = 0; item < c.batch; ++item) {
    if (c.rows_of(chain.x, item) == 0) continue;  // whatever it holds, no row of y may be written
    const Loops<float> rounded(c, item);
    const Loops<double> exact(c, item);
    for (int row = 0; row < c.rows_of(chain.y, item); ++row)
      for (int channel = 0; channel < chain.channels; ++channel) {
        const size_t at = size_t(item * chain.y.item + row * chain.y.row + channel);
        std::fill_n(touched.begin() + long(at * size_t(y_element)), y_element, 1);
        float found;
        if (chain.output == kInt16) {
          short value;
          std::memcpy(&value, y.bytes + 2 * at, 2);
          found = value;
        } else {
          found = get(chain.output == kFloats ? int(kTfloat32) : precision, y.bytes, at);
        }
        const float wanted = rounded.y[size_t(row * chain.channels + channel)];
        const double truth = exact.y[size_t(row * chain.channels + channel)];
        const bool same = found == wanted || (found != found && wanted != wanted);
        if ((c.whole && rounded.exact && !same) || (found != found) != (wanted != wanted)) {
          char text[200];
          std::snprintf(text, sizeof text, "item %d, row %d of %d, channel %d is %g instead of %g", item, row,
                        c.rows_of(chain.y, item), channel, double(found), double(wanted));
          return text;
        }
        if (found != found) continue;
        error += (found - truth) * (found - truth);
        allowed += (wanted - truth) * (wanted - truth);
      }
  }
  // A result that is rounded to whole numbers may be off by half, whatever is in front.
  if (std::sqrt(error) > 2 * std::sqrt(allowed) + 1e-6 * std::sqrt(double(c.batch * c.y_rows * chain.channels)))
    return "error " + std::to_string(std::sqrt(error)) + ", of plain loops " + std::to_string(std::sqrt(allowed));
  for (size_t i = 0; i < touched.size(); ++i)
    if (!touched[i] && y.bytes[i] != char(0xff))
      return "byte " + std::to_string(i) + " of y was written, which is behind the end of a signal or between rows";
  return "";
}

void describe(const Case& c) {
  const Chain& chain = c.chain;
  std::fprintf(stderr, "%s: %s numbers, frames", c.kernel.name, c.whole ? "whole" : "real");
  for (const int length : c.lengths) std::fprintf(stderr, " %d", length);
  std::fprintf(stderr, "; tile of %d rows, %d before, guard %d; x %d chunks; ", chain.rows, chain.before, chain.guard,
               chain.x_chunks);
  std::fprintf(stderr, "y %d channels, stride %d, crop %d, output %d\n", chain.channels, chain.stride, chain.crop,
               chain.output);
  for (int i = 0; i < chain.steps; ++i) {
    const ChainStep& step = chain.step[i];
    std::fprintf(stderr, "  to %d: rows %d to %d, narrow %d, scale %g, after %g, stored %g, tanh %d\n", step.output,
                 step.first, step.last, step.narrow, double(step.scale), double(step.slope_after), double(step.stored),
                 step.tanh);
    for (int k = 0; k < step.sources; ++k) {
      const ChainSource& source = step.source[k];
      std::fprintf(stderr, "    source %d: %d chunks, %d taps, dilation %d, %d left, %d right, ", source.buffer,
                   source.chunks, source.taps, source.dilation, source.left, source.right);
      std::fprintf(stderr, "padding %d %d, factor %g\n", source.front, source.back, double(source.factor));
    }
    for (int k = 0; k < step.residuals; ++k)
      std::fprintf(stderr, "    residual %d: factor %g\n", step.residual[k].buffer, double(step.residual[k].factor));
  }
}

}  // namespace
}  // namespace fastvoc::cuda

int main(int arguments, char** argument) {
  using namespace fastvoc::cuda;
  const int count = arguments > 1 ? std::atoi(argument[1]) : 40;
  const int only = arguments > 2 ? std::atoi(argument[2]) : -1;
  for (int number = only < 0 ? 0 : only; number < (only < 0 ? count : only + 1); ++number) {
    generator.seed(uint64_t(number));
    Case c;
    while (!draw_case(c)) c = Case();
    if (only >= 0) describe(c);
    const std::string wrong = check(c);
    if (!wrong.empty()) {
      describe(c);
      std::fprintf(stderr, "chain %d, %s: %s\n", number, c.kernel.name, wrong.c_str());
      return 1;
    }
  }
  std::printf("%d chains are as plain loops are\n", only < 0 ? count : 1);
  return 0;
}
