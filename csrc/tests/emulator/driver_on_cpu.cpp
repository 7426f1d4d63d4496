// In place of cuda/host/driver.cpp: a launch runs the kernel on the CPU, at once. What the driver would refuse is refused;
// what it would not notice, and what no host must do, ends the program with a sentence and exit code 3.
//
// A kernel that was launched early finds no numbers where those before it wrote, until one of its threads has waited.

#include "hopper_on_cpu.h"

#include "../../cuda/device/kernels.cu"

#include <algorithm>
#include <string>
#include <vector>

namespace fastvoc::cuda {
namespace {

struct Bytes {
  char* begin;
  size_t size;
};

using Written = std::vector<Bytes>;

thread_local std::string message;

bool refuse(const std::string& why) {
  message = why;
  return false;
}

// ---- what a kernel writes, and how much shared memory it needs, as its parameter says

void add_signal(Written& written, const Signal& y, const Lengths& lengths, unsigned items, int channels,
                size_t element) {
  for (unsigned item = 0; item < items; ++item) {
    const long long frames = lengths.items ? lengths.items[item] : lengths.frames, rows = frames * y.rate + y.offset;
    if (rows <= 0) continue;
    written.push_back({static_cast<char*>(y.data) + item * y.item * static_cast<long long>(element),
                       (size_t(rows - 1) * size_t(y.row) + size_t(channels)) * element});
  }
}

size_t output_bytes(int output, int precision) {
  return output == kFloats ? 4 : output == kInt16 ? 2 : size_t(element_bytes(precision));
}

Written written_by(const Chain& chain, const Shape& shape, int precision) {
  Written written;
  add_signal(written, chain.y, chain.lengths, shape.grid[1], chain.channels, output_bytes(chain.output, precision));
  return written;
}

Written written_by(const Convolutions& all, const Shape&, int precision) {
  Written written;
  for (int i = 0; i < all.problems + (all.second > 0); ++i)
    add_signal(written, all.problem[i].y, all.lengths, unsigned(all.items), all.problem[i].channels,
               output_bytes(all.problem[i].output, precision));
  return written;
}

Written written_by(const Pack& pack, const Shape&, int) {
  const size_t taps = size_t((pack.taps + pack.stride - 1) / pack.stride);
  return {{static_cast<char*>(pack.packed), taps * size_t(pack.chunks) * size_t(pack.columns) * kChunkBytes},
          {reinterpret_cast<char*>(pack.packed_bias), size_t(pack.columns) * sizeof(float)}};
}

Written written_by(const Enter& enter, const Shape&, int) {
  Written written;
  for (int item = 0; item < enter.batch && enter.frames > 0; ++item)
    written.push_back({static_cast<char*>(enter.y.data) + item * enter.y.item * element_bytes(enter.precision),
                       size_t(enter.frames - 1) * size_t(enter.y.row) * size_t(element_bytes(enter.precision)) +
                           size_t(enter.chunks) * kChunkBytes});
  return written;
}

Written written_by(const WeightGradient& sums, const Shape& shape, int) {
  return {{reinterpret_cast<char*>(sums.parts), shape.grid[0] * size_t(sums.part) * sizeof(float)}};
}

Written written_by(const AddParts& add, const Shape&, int) {
  const size_t element = size_t(element_bytes(add.precision));
  Written written;
  if (add.weight)
    written.push_back({static_cast<char*>(add.weight),
                       size_t(add.fixed_channels) * size_t(add.sliding_channels) * size_t(add.taps) * element});
  if (add.bias) written.push_back({static_cast<char*>(add.bias), size_t(add.biases) * element});
  return written;
}

// It may lie between what others have written. No kernel that is launched early reads it.
Written written_by(const InputGradient&, const Shape&, int) { return {}; }

Written written_by(const Recurrent&, const Shape&, int) { return {}; }  // nothing is launched early behind it

size_t shared_bytes(const Recurrent& steps) {
  const int slots = kJobSlots * kStepWarps * steps.slot_pairs * 2 * kTileBytes;
  return size_t(steps.places.weights + steps.resident * steps.weights.chain_layer + slots);
}

size_t shared_bytes_in_cluster(const Recurrent& steps) {
  const int pairs = steps.head * steps.shares.head + steps.resident * steps.shares.layer;
  return size_t(steps.places.weights + pairs * 2 * kTileBytes);
}

// Results in a plan have channels that are neighbours; those of operators, and gradients, nothing follows early.
Written written_by(const Snake& snake, const Shape& shape, int precision) {
  Written written;
  for (unsigned i = 0; i < shape.grid[2] && snake.parameters == kPackedNumbers; ++i)
    add_signal(written, {snake.problem[i].y, snake.y_item, snake.y_frame, snake.rate, snake.offset}, snake.lengths,
               unsigned(snake.items), snake.channels, size_t(element_bytes(precision)));
  return written;
}

Written written_by(const Normalise&, const Shape&, int) { return {}; }  // a launch of its own

size_t shared_bytes(const WeightGradient& sums, const WeightGradientKernel& kernel) {
  return size_t(gradient_shared_bytes(kernel, sums.group_taps > 1 ? sums.dilation * (sums.group_taps - 1) : 0));
}

size_t shared_bytes(const Chain& chain, const ChainKernel& kernel) {
  return size_t(chain_shared_bytes(kernel.precision, kernel.channels, kernel.rows(), chain.guard, chain.buffers) +
                kernel.hopper * kChainBarrierBytes);
}

size_t shared_bytes(const Convolutions& all, const ConvolutionKernel& kernel) {
  int span = 0;
  for (int i = 0; i < all.problems + (all.second > 0); ++i)
    for (int j = 0; j < all.problem[i].sources; ++j) {
      const Source& source = all.problem[i].source[j];
      span = std::max(span, source.dilation * (source.taps - 1));
    }
  return size_t(convolution_shared_bytes(kernel, span));
}

// Whether blocks that read the same rows are neighbours, and what takes longest begins first.
void check_order(const Convolutions& all, const Shape& shape, bool in_turn) {
  const bool fits = in_turn ? shape.grid[0] == unsigned(all.stay) && shape.grid[1] * shape.grid[2] == 1
                            : shape.grid[0] == unsigned(all.blocks) && shape.grid[1] == unsigned(all.items) &&
                                  shape.grid[2] == unsigned(all.problems);
  if (!fits || all.blocks % all.panels != 0)
    on_cpu::fail("has a grid of %u, %u, %u for %d problems of %d panels", shape.grid[0], shape.grid[1], shape.grid[2],
                 all.problems, all.panels);
  int before = 0;
  for (int i = 0; i < all.problems; ++i) {
    int slices = 0;
    for (int s = 0; s < all.problem[i].sources; ++s)
      slices += all.problem[i].source[s].taps * all.problem[i].source[s].chunks;
    if (i > 0 && slices > before) on_cpu::fail("begins with a problem of %d slices before one of %d", before, slices);
    before = slices;
  }
}

// ---- kernels by name

struct Function {
  const char* name;
  unsigned threads;
  size_t size;  // of the parameter
  int precision;
  unsigned most_shared = 0, cluster = 1;
  size_t (*needs)(const void* parameter, const Function&) = nullptr;
  Written (*writes)(const void* parameter, const Shape&, int precision) = nullptr;
  void (*run)(const Function&, const Shape&, const void* parameter) = nullptr;
  const ChainKernel* chain = nullptr;
  const ConvolutionKernel* convolution = nullptr;
  const WeightGradientKernel* gradient = nullptr;
};

template <class Parameter, void (*kernel)(const Parameter&)>
Function function(const char* name, unsigned threads, int precision) {
  Function f = {name, threads, sizeof(Parameter), precision};
  f.writes = [](const void* parameter, const Shape& shape, int of) {
    return written_by(*static_cast<const Parameter*>(parameter), shape, of);
  };
  f.run = [](const Function& own, const Shape& shape, const void* parameter) {
    run_on_cpu<Parameter>(own.name, kernel, shape, parameter);
  };
  return f;
}

std::vector<Function> all_functions() {
  std::vector<Function> all;
#define FASTVOC_TABLE_ROW(Parameter, kernel, precision) \
  all.push_back(function<Parameter, kernel>(#kernel, kernel##_threads, precision));
#define FASTVOC_TABLE_CHAIN(word, precision, channels, warps, tiles) \
  FASTVOC_TABLE_ROW(Chain, chain_##word##_##channels##_##warps##x##tiles, precision)
  FASTVOC_CHAINS(FASTVOC_TABLE_CHAIN)
#define FASTVOC_TABLE_CONVOLUTION(word, precision, rows, columns, threads) \
  FASTVOC_TABLE_ROW(Convolutions, convolution_##word##_##rows##x##columns, precision)
  FASTVOC_CONVOLUTIONS(FASTVOC_TABLE_CONVOLUTION)
#define FASTVOC_TABLE_GATED(word, precision, rows, columns, threads) \
  FASTVOC_TABLE_ROW(Convolutions, gated_##word##_##rows##x##columns, precision)
  FASTVOC_GATED_CONVOLUTIONS(FASTVOC_TABLE_GATED)
#define FASTVOC_TABLE_HOPPER_GATED(word, precision, rows, columns, threads) \
  FASTVOC_TABLE_ROW(Convolutions, hopper_gated_##word##_##rows##x##columns, precision)
  FASTVOC_HOPPER_GATED_CONVOLUTIONS(FASTVOC_TABLE_HOPPER_GATED)
#define FASTVOC_TABLE_HOPPER(word, precision, rows, columns, threads) \
  FASTVOC_TABLE_ROW(Convolutions, hopper_##word##_##rows##x##columns, precision)
  FASTVOC_HOPPER_CONVOLUTIONS(FASTVOC_TABLE_HOPPER)
#define FASTVOC_TABLE_IN_TURN(word, precision, rows, columns, threads) \
  FASTVOC_TABLE_ROW(Convolutions, hopper_in_turn_##word##_##rows##x##columns, precision)
  FASTVOC_HOPPER_CONVOLUTIONS_IN_TURN(FASTVOC_TABLE_IN_TURN)
#define FASTVOC_TABLE_HOPPER_CHAIN(word, precision, channels, warps, tiles) \
  FASTVOC_TABLE_ROW(Chain, hopper_chain_##word##_##channels##_##warps##x##tiles, precision)
  FASTVOC_HOPPER_CHAINS(FASTVOC_TABLE_HOPPER_CHAIN)
  FASTVOC_TABLE_ROW(Pack, pack, kPrecisions)
  FASTVOC_TABLE_ROW(Enter, enter, kPrecisions)
#define FASTVOC_TABLE_GRADIENT(word, precision, fixed, sliding, rows, warps, taps) \
  FASTVOC_TABLE_ROW(WeightGradient, weight_gradient_##word##_##fixed##x##sliding, precision)
  FASTVOC_WEIGHT_GRADIENTS(FASTVOC_TABLE_GRADIENT)
  FASTVOC_TABLE_ROW(AddParts, add_parts, kPrecisions)
  FASTVOC_TABLE_ROW(InputGradient, input_gradient, kPrecisions)
#define FASTVOC_TABLE_RECURRENT(word, precision)                              \
  FASTVOC_TABLE_ROW(Recurrent, recurrent_##word, precision)                   \
  all.back().needs = [](const void* parameter, const Function&) {             \
    return shared_bytes(*static_cast<const Recurrent*>(parameter));           \
  };
  FASTVOC_RECURRENTS(FASTVOC_TABLE_RECURRENT)
#define FASTVOC_TABLE_RECURRENT_CLUSTER(word, precision)                         \
  FASTVOC_TABLE_ROW(Recurrent, hopper_recurrent_##word, precision)               \
  all.back().cluster = kClusterBlocks;                                           \
  all.back().needs = [](const void* parameter, const Function&) {                \
    return shared_bytes_in_cluster(*static_cast<const Recurrent*>(parameter));   \
  };
  FASTVOC_RECURRENTS(FASTVOC_TABLE_RECURRENT_CLUSTER)
#define FASTVOC_TABLE_SNAKE(word, precision)                  \
  FASTVOC_TABLE_ROW(Snake, smooth_snake_##word, precision) \
  FASTVOC_TABLE_ROW(Snake, smooth_snake_gradient_##word, precision)
  FASTVOC_SNAKES(FASTVOC_TABLE_SNAKE)
#define FASTVOC_TABLE_NORMALISE(word, precision, pairs, frames) \
  FASTVOC_TABLE_ROW(Normalise, normalise_##word##_##pairs##x##frames, precision)
  FASTVOC_NORMALISES(FASTVOC_TABLE_NORMALISE)

  for (Function& f : all) {
    for (const ChainKernel& kernel : kChains)
      if (std::string(kernel.name) == f.name) f.chain = &kernel;
    for (const ConvolutionKernel& kernel : kConvolutions)
      if (std::string(kernel.name) == f.name) f.convolution = &kernel;
    for (const WeightGradientKernel& kernel : kWeightGradients)
      if (std::string(kernel.name) == f.name) f.gradient = &kernel;
    if (f.gradient)
      f.needs = [](const void* parameter, const Function& own) {
        return shared_bytes(*static_cast<const WeightGradient*>(parameter), *own.gradient);
      };
    if (f.chain)
      f.needs = [](const void* parameter, const Function& own) {
        return shared_bytes(*static_cast<const Chain*>(parameter), *own.chain);
      };
    if (f.convolution)
      f.needs = [](const void* parameter, const Function& own) {
        return shared_bytes(*static_cast<const Convolutions*>(parameter), *own.convolution);
      };
  }
  return all;
}

std::vector<Function>& functions() {
  static std::vector<Function> all = all_functions();
  return all;
}

// ---- kernels that begin before the one in front of them has ended

struct Hidden {
  Bytes place;
  std::vector<char> numbers;
};

Written recent;              // what was written since the last kernel that was not early, and by that one
std::vector<Hidden> hidden;  // until the kernel that runs waits

void hide() {
  for (const Bytes& bytes : recent) {
    hidden.push_back({bytes, std::vector<char>(bytes.begin, bytes.begin + bytes.size)});
    std::memset(bytes.begin, 0xff, bytes.size);
  }
}

void show() {
  // Backwards: where two overlap, the first one to be hidden knew the numbers.
  for (auto one = hidden.rbegin(); one != hidden.rend(); ++one)
    std::memcpy(one->place.begin, one->numbers.data(), one->place.size);
  hidden.clear();
}

// Whoever waits for a kernel relies on those before it too, so that a block waits even if it has nothing to do.
bool runs_early = false;
long long waits_before_block = 0;

[[maybe_unused]] const bool watched = [] {
  on_cpu::begin_block.push_back([] { waits_before_block = on_cpu::machine.waits_for_previous; });
  on_cpu::end_block.push_back([] {
    if (runs_early && on_cpu::machine.waits_for_previous == waits_before_block)
      on_cpu::fail("was launched before others had ended, and no thread of this block waited for them");
  });
  return true;
}();

}  // namespace

const char* missing_driver() { return nullptr; }

const char* driver_message() { return message.c_str(); }

bool load_module(const void* image, void** module) {
  if (!image) return refuse("the image is null");
  *module = &functions();
  return true;
}

bool find_function(void* module, const char* name, unsigned most_shared, void** found) {
  if (module != &functions()) return refuse("there is no such module");
  for (Function& f : functions()) {
    if (std::string(f.name) != name) continue;
    if (most_shared > on_cpu::kMostShared) return refuse(std::string(name) + " cannot have so much shared memory");
    f.most_shared = std::max(f.most_shared, most_shared);
    *found = &f;
    return true;
  }
  return refuse(std::string("there is no function ") + name);
}

bool launch(void* found, const Shape& shape, const void* parameter, size_t size, bool early, void*) {
  const Function& f = *static_cast<const Function*>(found);
  on_cpu::machine.kernel = f.name;
  on_cpu::machine.current = nullptr;
  const unsigned* grid = shape.grid;
  if (!grid[0] || !grid[1] || !grid[2] || grid[1] > 65535 || grid[2] > 65535)
    return refuse(std::string(f.name) + ": a grid that cannot be");
  if (shape.shared > std::max(f.most_shared, 48u << 10))
    return refuse(std::string(f.name) + ": more shared memory than was said");
  if (shape.cluster != f.cluster || grid[0] % f.cluster)
    on_cpu::fail("is launched in clusters of %u, of %u blocks", shape.cluster, grid[0]);
  if (shape.threads != f.threads) on_cpu::fail("is launched with %u threads instead of %u", shape.threads, f.threads);
  if (size != f.size) on_cpu::fail("is launched with a parameter of %zu bytes instead of %zu", size, f.size);
  if (f.needs && shape.shared < f.needs(parameter, f))
    on_cpu::fail("is launched with %u bytes of shared memory, and needs %zu", shape.shared, f.needs(parameter, f));
  if (f.convolution) check_order(*static_cast<const Convolutions*>(parameter), shape, f.convolution->in_turn);

  if (early) {
    hide();
  } else {
    recent.clear();
  }
  runs_early = early;
  on_cpu::machine.first_wait = early ? show : nullptr;
  f.run(f, shape, parameter);
  on_cpu::machine.current = nullptr;
  on_cpu::machine.first_wait = nullptr;
  for (const Bytes& bytes : f.writes(parameter, shape, f.precision)) {
    const auto same = [&](const Bytes& other) { return other.begin == bytes.begin && other.size == bytes.size; };
    if (std::none_of(recent.begin(), recent.end(), same)) recent.push_back(bytes);
  }
  return true;
}

}  // namespace fastvoc::cuda
