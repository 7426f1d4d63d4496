#include "plan.h"

#include "calls.h"
#include "driver.h"
#include "memory.h"

namespace fastvoc::cuda {
namespace {

// Whether a signal of so many frames is taken: padding can see what it shows, and rows can be counted.
bool is_length(const Plan& plan, int64_t frames) {
  if (frames < 1 || frames > kMostRows) return false;
  for (int i = 0; i < plan.layers; ++i)
    if (frames * plan.line[plan.reads[i]].rate + plan.line[plan.reads[i]].offset <= plan.least[i]) return false;
  for (int l = 0; l < plan.layers + kResults; ++l)
    if (rows_of(plan.line[l], frames) > kMostRows) return false;
  return rows_of(plan.line[plan.layers - 1 + kResults], frames) > 0;
}

bool is_taken(const Plan& plan, int64_t batch, int64_t frames) {
  if (batch < 1 || batch > kMostItems || !is_length(plan, frames)) return false;
  for (int l = 0; l < plan.layers + kResults; ++l)
    if (!fits({batch, rows_of(plan.line[l], frames), plan.line[l].chunks, kChunkBytes})) return false;
  for (int l = 0; l < plan.launches; ++l) {
    const Operation& operation = plan.operation[plan.launch[l].operation[0]];
    if (operation.activates && !snake_fits(operation.channels, rows_of(plan.line[operation.line], frames))) return false;
  }
  for (const int input : {kX, kOther})  // their chunks are counted in 32 bits
    if (rows_of(plan.line[input], frames) * plan.line[input].chunks > INT_MAX) return false;
  return true;
}

bool is_nothing(int64_t batch, int64_t frames) {
  return (batch == 0 && frames >= 0 && frames <= kMostRows) || (frames == 0 && batch >= 0 && batch <= kMostItems);
}

// One call: what the kernels are told.
class Run {
 public:
  Run(const Plan& plan, const Kernels& kernels, const void* packed, void* workspace, void* stream,
      const fastvoc_cuda_call& call)
      : plan_(plan),
        kernels_(kernels),
        packed_(static_cast<const char*>(packed)),
        workspace_(static_cast<char*>(workspace)),
        stream_(stream),
        call_(call) {
    lengths_ = {call.lengths, int(call.frames)};
    place_lines(plan, call.batch, call.frames, offset_);
    for (int line = 0; line < plan.layers + kResults; ++line) signal_[line] = in_workspace(line);
    const int result = plan.layers - 1 + kResults;
    signal_[result].data = call.y;
    signal_[result].item = call.y_item;
    signal_[result].row = int(call.y_row);
  }

  bool all() {
    if (!inputs()) return false;
    for (int l = 0; l < plan_.launches; ++l) {
      const Launch& step = plan_.launch[l];
      if (!(step.activates ? activations(step) : step.chain ? chain(step) : convolutions(step))) return false;
    }
    return true;
  }

 private:
  Signal in_workspace(int line) const {
    const Line& of = plan_.line[line];
    const int row = of.chunks * chunk_channels(plan_.precision);
    return {workspace_ + offset_[line], rows_of(of, call_.frames) * row, row, of.rate, of.offset};
  }

  bool launch(void* function, const Shape& shape, const void* parameter, size_t size) {
    const bool early = plan_.gpu.architecture >= kFirstLaunched && launched_++ > 0;
    return cuda::launch(function, shape, parameter, size, early, stream_);
  }

  // What a kernel can read as it is stays where it is: x as rows of whole chunks; what is added as neighbouring
  // channels.
  bool inputs() {
    const int width = chunk_channels(plan_.precision);
    const auto stays = [&](int line, const void* data, const int64_t* strides, int type) {
      const bool elements = type == FASTVOC_ELEMENTS || plan_.precision == kTfloat32;
      if (!elements || (strides[1] != 1 && plan_.line[line].channels > 1)) return false;
      if (strides[0] < 0 || strides[2] < plan_.line[line].channels || strides[2] > INT_MAX) return false;
      if (line == kX && (plan_.precision == kTfloat32 || plan_.line[line].channels % width != 0 ||
                         strides[0] % width != 0 || strides[2] % width != 0 || !is_aligned(data, kChunkBytes)))
        return false;
      signal_[line].data = const_cast<void*>(data);
      signal_[line].item = strides[0];
      signal_[line].row = int(strides[2]);
      return true;
    };
    if (!stays(kX, call_.x, call_.x_strides, call_.x_type) && !enter(kX, call_.x, call_.x_strides, call_.x_type))
      return false;
    return !plan_.uses_other || stays(kOther, call_.other, call_.other_strides, call_.other_type) ||
           enter(kOther, call_.other, call_.other_strides, call_.other_type);
  }

  bool enter(int line, const void* data, const int64_t* strides, int type) {
    const Line& of = plan_.line[line];
    Enter enter = {};
    enter.x = data;
    enter.item = strides[0], enter.channel = strides[1], enter.frame = strides[2];
    enter.from = type == FASTVOC_FLOATS ? kFloats : kElements;
    enter.precision = plan_.precision;
    enter.channels = of.channels;
    enter.chunks = of.chunks;
    enter.frames = int(rows_of(of, call_.frames));
    enter.batch = int(call_.batch);
    enter.y = signal_[line];
    enter.exact = line == kOther || of.exact;  // it is not multiplied
    const int64_t blocks = (call_.batch * enter.frames * of.chunks + 255) / 256;
    const Shape shape = {{unsigned(blocks < kMostBlocks ? blocks : kMostBlocks), 1, 1}, 256, 0};
    return launch(kernels_.enter, shape, &enter, sizeof enter);
  }

  bool chain(const Launch& step) {
    const Operation& last = plan_.operation[step.operation[step.count - 1]];
    const int64_t rows = sum_rows(last, rows_of(plan_.line[last.line], call_.frames));
    const ChainKernel& kernel = *choose(plan_, step, call_.batch, call_.frames).chain;
    Chain chain = {};
    chain.x = signal_[step.x];
    chain.y = signal_[last.line];
    chain.weights = packed_ + step.weights;
    chain.biases = reinterpret_cast<const float*>(packed_ + step.biases);
    chain.lengths = lengths_;
    chain.rows = tile_rows(step, kernel);
    chain.before = step.before;
    chain.guard = step.guard;
    chain.x_chunks = plan_.line[step.x].chunks;
    chain.buffers = step.buffers;
    chain.steps = step.count;
    chain.channels = last.channels;
    chain.stride = last.stride;
    chain.crop = last.crop;
    chain.output = output_of(last);
    if (step.added >= 0) chain.added = signal_[step.added];
    for (int s = 0; s < step.count; ++s) chain.step[s] = step_of(step, plan_.operation[step.operation[s]], chain.rows);
    const Shape shape = {{unsigned((rows + chain.rows - 1) / chain.rows), unsigned(call_.batch), 1},
                         unsigned(kernel.threads()),
                         unsigned(chain_shared(plan_, step, kernel))};
    return launch(kernels_.chain[&kernel - kChains], shape, &chain, sizeof chain);
  }

  ChainStep step_of(const Launch& launch, const Operation& operation, int rows) const {
    ChainStep step = {};
    for (int i = 0; i < operation.sources; ++i) {
      const Reading& reading = operation.source[i];
      ChainSource& source = step.source[i];
      source.buffer = short(reading.buffer);
      source.chunks = short(reading.chunks);
      source.taps = short(reading.taps);
      source.dilation = short(reading.dilation);
      source.left = short(reading.left);
      source.right = short(reading.right);
      source.front = reading.front;
      source.back = reading.back;
      source.weight = int(reading.weight - launch.weights);
      source.factor = reading.factor;
    }
    for (int i = 0; i < operation.residuals; ++i)
      step.residual[i] = {operation.residual[i].buffer, operation.residual[i].factor};
    step.sources = short(operation.sources);
    step.residuals = short(operation.residuals);
    step.output = short(operation.buffer);
    step.narrow = short(operation.narrow);
    step.first = short(launch.before - operation.before);
    step.last = short(launch.before + rows + operation.after);
    step.bias = int((operation.bias - launch.biases) / int64_t{sizeof(float)});
    step.scale = operation.scale;
    step.slope_after = operation.slope_after;
    step.stored = plan_.line[operation.line].stored;
    step.tanh = operation.tanh;
    return step;
  }

  bool convolutions(const Launch& step) {
    const Operation& first = plan_.operation[step.operation[0]];
    const int64_t rows = sum_rows(first, rows_of(plan_.line[first.line], call_.frames));
    const ConvolutionKernel& kernel = *choose(plan_, step, call_.batch, call_.frames).convolution;
    Convolutions convolutions = {};
    for (int p = 0; p < step.count; ++p) convolutions.problem[p] = convolution_of(plan_.operation[step.operation[p]]);
    convolutions.lengths = lengths_;
    convolutions.problems = step.count;
    convolutions.panels = panels_of(first, kernel);
    // Lines fit into memory, so that tiles and panels do into a grid.
    const Count count = count_blocks(plan_, step, kernel, rows, call_.batch);
    convolutions.blocks = int(count.blocks);
    convolutions.items = int(call_.batch);
    convolutions.stay = plan_.gpu.multiprocessors;  // of which there are more to do
    const unsigned x = kernel.in_turn ? convolutions.stay : convolutions.blocks;
    const Shape shape = {{x, kernel.in_turn ? 1 : unsigned(call_.batch), kernel.in_turn ? 1 : unsigned(step.count)},
                         unsigned(kernel.threads),
                         unsigned(convolution_shared_bytes(kernel, int(widest_span(plan_, step))))};
    return launch(kernels_.convolution[&kernel - kConvolutions], shape, &convolutions, sizeof convolutions);
  }

  bool activations(const Launch& step) {
    const Operation& first = plan_.operation[step.operation[0]];
    const int64_t rows = rows_of(plan_.line[first.line], call_.frames);
    const SnakeSize size = snake_size(plan_, step, call_.batch, rows);
    Snake snake = {};
    for (int p = 0; p < step.count; ++p) {
      const Operation& operation = plan_.operation[step.operation[p]];
      const auto* const weight = reinterpret_cast<const float*>(packed_ + operation.source[0].weight);
      snake.problem[p] = {signal_[operation.source[0].line].data, weight, weight + operation.channels,
                          signal_[operation.line].data};
    }
    const Signal &x = signal_[first.source[0].line], &y = signal_[first.line];
    snake.lengths = lengths_;
    snake.rate = x.rate, snake.offset = x.offset;
    snake.x_item = x.item, snake.x_channel = 1, snake.x_frame = x.row;
    snake.y_item = y.item, snake.y_channel = 1, snake.y_frame = y.row;
    snake.channels = first.channels, snake.items = int(call_.batch);
    snake.stretches = stretches_of(plan_.gpu, size);
    snake.parts = int(parts_of(size, snake.stretches));
    snake.parameters = kPackedNumbers;
    snake.rounds = snake.channels_last = snake.words = 1;
    const Shape shape = {{snake_blocks(size, snake.stretches), unsigned(call_.batch), unsigned(step.count)},
                         unsigned(kSnakeThreads),
                         0};
    return launch(kernels_.smooth_snake[plan_.precision], shape, &snake, sizeof snake);
  }

  Convolution convolution_of(const Operation& operation) const {
    Convolution convolution = {};
    for (int i = 0; i < operation.sources; ++i) {
      const Reading& reading = operation.source[i];
      convolution.source[i] = {signal_[reading.line], packed_ + reading.weight,
                               reading.chunks,        reading.taps,
                               reading.dilation,      reading.left,
                               reading.front,         reading.back,
                               reading.factor};
    }
    for (int i = 0; i < operation.residuals; ++i)
      convolution.residual[i] = {signal_[operation.residual[i].line], operation.residual[i].factor};
    convolution.finish = {reinterpret_cast<const float*>(packed_ + operation.bias), operation.scale,
                          operation.slope_after, plan_.line[operation.line].stored, operation.tanh, operation.gelu};
    convolution.y = signal_[operation.line];
    convolution.sources = operation.sources;
    convolution.residuals = operation.residuals;
    convolution.columns = operation.columns;
    convolution.channels = operation.channels;
    convolution.stride = operation.stride;
    convolution.crop = operation.crop;
    convolution.output = output_of(operation);
    return convolution;
  }

  int output_of(const Operation& operation) const {
    if (plan_.line[operation.line].exact) return kFloats;
    if (operation.line != plan_.layers - 1 + kResults || call_.y_type == FASTVOC_ELEMENTS) return kElements;
    return call_.y_type == FASTVOC_INT16 ? kInt16 : kFloats;
  }

  const Plan& plan_;
  const Kernels& kernels_;
  const char* packed_;
  char* workspace_;
  void* stream_;
  const fastvoc_cuda_call& call_;
  Lengths lengths_;
  int64_t offset_[kMaxLayers + kResults] = {};
  Signal signal_[kMaxLayers + kResults];
  int launched_ = 0;
};

int check_call(const Plan& plan, const void* packed, const void* workspace, const fastvoc_cuda_call& call) {
  if (!is_taken(plan, call.batch, call.frames)) return FASTVOC_BAD_SIZE;
  const auto has_strides = [](const int64_t* strides) {
    for (int i = 0; i < 3; ++i)
      if (strides[i] < -kMostElements || strides[i] > kMostElements) return false;
    return true;
  };
  const auto is_input = [&](const void* data, const int64_t* strides, int type) {
    return data && has_strides(strides) && (type == FASTVOC_ELEMENTS || type == FASTVOC_FLOATS) &&
           is_aligned(data, type == FASTVOC_FLOATS ? 4 : element_bytes(plan.precision));
  };
  if (!is_input(call.x, call.x_strides, call.x_type)) return FASTVOC_BAD_SIZE;
  if (plan.uses_other ? !is_input(call.other, call.other_strides, call.other_type) : call.other != nullptr)
    return FASTVOC_BAD_SIZE;
  const int element = call.y_type == FASTVOC_ELEMENTS ? element_bytes(plan.precision)
                      : call.y_type == FASTVOC_FLOATS ? 4
                      : call.y_type == FASTVOC_INT16  ? 2
                                                      : 0;
  if (!element || !call.y || !is_aligned(call.y, element) ||
      call.y_row < plan.line[plan.layers - 1 + kResults].channels || call.y_row > INT_MAX || call.y_item < 0 ||
      call.y_item > kMostElements)
    return FASTVOC_BAD_SIZE;
  if (!packed || !is_aligned(packed, kLineAlign) || !is_aligned(workspace, kLineAlign)) return FASTVOC_BAD_SIZE;
  return workspace || workspace_bytes(plan, call.batch, call.frames) == 0 ? FASTVOC_OK : FASTVOC_BAD_SIZE;
}

}  // namespace

int compile(const fastvoc_network& network, const fastvoc_gpu& gpu, Plan& plan) {
  if (network.count < 1 || network.count > kMaxLayers || !network.layers) return FASTVOC_BAD_NETWORK;
  if (gpu.architecture < 75) return FASTVOC_BAD_ISA;
  if (!is_gpu(gpu)) return FASTVOC_BAD_SIZE;
  const int precision = precision_of(network.precision);
  // There are no multiplications of other operands before 80.
  if (precision == kPrecisions || (gpu.architecture < 80 && precision != kFloat16)) return FASTVOC_BAD_PRECISION;
  for (int i = 0; i < network.count; ++i)
    if (const int error = check_layer(network, i)) return error;
  plan.gpu = gpu;
  plan.precision = precision;
  plan.layers = network.count;
  plan.launches = plan.uses_other = 0;
  Draft draft = {network, {}, {}, {}, {}};
  if (const int error = measure_lines(draft, plan)) return error;
  if (const int error = read_lines(draft, plan)) return error;
  double alone[kMaxLayers];
  if (const int error = measure_layers(draft, plan, alone)) return error;
  make_segments(draft, plan, alone);
  make_launches(draft, plan);
  make_lives(plan);
  return make_packed(plan);
}

// (C, 1, 2) becomes two rows of floats, with zeros in fill.
static bool pack_activation(const Operation& operation, const Kernels& kernels, const fastvoc_layer& layer, char* packed,
                            void* stream) {
  Enter enter = {};
  enter.x = layer.weight;
  enter.channel = layer.taps, enter.frame = 1;
  enter.from = kFloats, enter.precision = kTfloat32;
  enter.channels = int(layer.in_channels), enter.chunks = operation.channels / chunk_channels(kTfloat32);
  enter.frames = int(layer.taps), enter.batch = 1;
  enter.y = {packed + operation.source[0].weight, 0, operation.channels, 1, 0};
  enter.exact = 1;
  const Shape shape = {{unsigned((enter.frames * enter.chunks + 255) / 256), 1, 1}, 256, 0};
  return launch(kernels.enter, shape, &enter, sizeof enter, false, stream);
}

int pack(const fastvoc_network& network, const Plan& plan, const Kernels& kernels, bool narrow, void* packed,
         void* stream) {
  if (network.count != plan.layers || !network.layers || precision_of(network.precision) != plan.precision)
    return FASTVOC_BAD_NETWORK;
  if (!packed || !is_aligned(packed, kLineAlign)) return FASTVOC_BAD_SIZE;
  char* const block = static_cast<char*>(packed);
  for (int l = 0; l < plan.launches; ++l)
    for (int p = 0; p < plan.launch[l].count; ++p) {
      const Operation& operation = plan.operation[plan.launch[l].operation[p]];
      for (int i = 0; i < operation.sources; ++i) {
        const Reading& reading = operation.source[i];
        const fastvoc_layer& layer = network.layers[reading.layer];
        if (!layer.weight || layer.in_channels != reading.in_channels || layer.out_channels != reading.out_channels ||
            layer.taps != reading.layer_taps || upsamples(layer) != bool(reading.upsample) ||
            (reading.upsample && layer.stride != operation.stride) || activates(layer) != bool(operation.activates))
          return FASTVOC_BAD_NETWORK;
        if (operation.activates) {
          if (!pack_activation(operation, kernels, layer, block, stream)) return FASTVOC_DRIVER_ERROR;
          continue;
        }
        Pack pack = {};
        pack.weight = layer.weight;
        pack.bias = layer.bias;
        pack.packed = block + reading.weight;
        pack.packed_bias = reinterpret_cast<float*>(block + operation.bias);
        pack.from = narrow ? kElements : kFloats;
        pack.precision = plan.precision;
        pack.upsample = reading.upsample;
        pack.in_channels = reading.in_channels;
        pack.out_channels = reading.out_channels;
        pack.taps = reading.layer_taps;
        pack.stride = operation.stride;
        pack.channels = operation.channels;
        pack.chunks = reading.chunks;
        pack.columns = operation.columns;
        pack.first = i == 0;
        const int64_t elements = weight_bytes(reading, operation.columns) / element_bytes(plan.precision);
        const int64_t blocks = (elements + 255) / 256;
        const Shape shape = {{unsigned(blocks < kMostBlocks ? blocks : kMostBlocks), 1, 1}, 256, 0};
        if (!launch(kernels.pack, shape, &pack, sizeof pack, false, stream)) return FASTVOC_DRIVER_ERROR;
      }
    }
  return FASTVOC_OK;
}

int run(const Plan& plan, const Kernels& kernels, const void* packed, void* workspace, void* stream,
        const fastvoc_cuda_call& call) {
  if (is_nothing(call.batch, call.frames)) return FASTVOC_OK;
  if (const int error = check_call(plan, packed, workspace, call)) return error;
  return Run(plan, kernels, packed, workspace, stream, call).all() ? FASTVOC_OK : FASTVOC_DRIVER_ERROR;
}

int64_t out_frames(const Plan& plan, int64_t frames) {
  if (frames == 0) return 0;
  return is_length(plan, frames) ? rows_of(plan.line[plan.layers - 1 + kResults], frames) : -1;
}

int64_t workspace_bytes(const Plan& plan, int64_t batch, int64_t frames) {
  if (is_nothing(batch, frames)) return 0;
  if (!is_taken(plan, batch, frames)) return -1;
  int64_t offset[kMaxLayers + kResults];
  return place_lines(plan, batch, frames, offset);
}

int launches(const Plan& plan, int64_t batch, int64_t frames) {
  if (is_nothing(batch, frames)) return 0;
  return is_taken(plan, batch, frames) ? 1 + plan.uses_other + plan.launches : -1;
}

const char* kernel_name(const Plan& plan, int64_t batch, int64_t frames, int launch) {
  if (launch < 0 || launch >= launches(plan, batch, frames)) return nullptr;
  const int inputs = 1 + plan.uses_other;
  if (launch < inputs) return "enter";
  return choose(plan, plan.launch[launch - inputs], batch, frames).kernel();
}

double expected_clocks(const Plan& plan, int64_t batch, int64_t frames, int launch) {
  if (launch < 0 || launch >= launches(plan, batch, frames)) return -1;
  const int inputs = 1 + plan.uses_other;
  if (launch >= inputs) return choose(plan, plan.launch[launch - inputs], batch, frames).clocks;
  const Line& line = plan.line[launch == 0 ? kX : kOther];  // it is read as elements, and written once more
  return 2 * memory_clocks(plan, line_bytes(line, batch, frames)) + kLaunchClocks;
}

}  // namespace fastvoc::cuda
