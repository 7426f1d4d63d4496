// A layer of WaveNet on a GPU: a convolution that ends in a gate, and the products behind it, side by side in a launch.
//
// A block of the products makes a panel of the residual or of the skip connection; blocks of the same rows are
// neighbours in the grid, so that what the gate let through is read from device memory once. A convolution whose taps
// lie further apart than shared memory reaches is a sum of convolutions of one tap.
#include <cmath>

#include "calls.h"
#include "driver.h"
#include "memory.h"

namespace fastvoc::cuda {
namespace {

// Lines of a layer, and its operations.
enum { kSignal, kCondition, kSkip, kLetThrough, kResidualResult, kSkipResult, kLines };
enum { kGate, kResidualProduct, kSkipProduct };

struct GatedPlan {
  fastvoc_cuda_gated layer;
  Plan plan;
};

const GatedPlan& plan_of(const void* plan) { return *static_cast<const GatedPlan*>(plan); }

int64_t span_of(const fastvoc_cuda_gated& layer) { return layer.dilation * (layer.taps - 1); }

int chunks_of(int64_t channels, int precision) {
  return int((channels + chunk_channels(precision) - 1) / chunk_channels(precision));
}

int check_layer(const fastvoc_cuda_gated& layer, int precision) {
  for (const int64_t count : {layer.channels, layer.gates, layer.taps, layer.dilation})
    if (!is_count(count)) return FASTVOC_BAD_SIZE;
  for (const int64_t count : {layer.skips, layer.condition})
    if (count != 0 && !is_count(count)) return FASTVOC_BAD_SIZE;
  if (layer.residual < 0 || layer.residual > 1 || layer.sigmoid_first < 0 || layer.sigmoid_first > 1 ||
      layer.multiplied < 0 || layer.multiplied > 1 || !std::isfinite(layer.scale) || (!layer.residual && !layer.skips))
    return FASTVOC_BAD_NETWORK;
  if (layer.multiplied ? layer.condition == 0 : layer.condition != 0 && layer.condition != 2 * layer.gates)
    return FASTVOC_BAD_NETWORK;
  // The weight of an operation is reached by 32 bits.
  const auto is_weight = [&](int64_t in, int64_t out, int64_t taps) {
    return fits({taps, chunks_of(in, precision), out + 32, kChunkBytes}) &&
           taps * chunks_of(in, precision) * (out + 32) * kChunkBytes <= INT_MAX;
  };
  if (span_of(layer) > kMostCount || !is_weight(layer.channels, 2 * layer.gates, layer.taps) ||
      !is_weight(layer.condition, 2 * layer.gates, 1) || !is_weight(layer.gates, layer.channels, 1) ||
      !is_weight(layer.gates, layer.skips, 1))
    return FASTVOC_BAD_SIZE;
  if (layer.left < 0 || layer.right < 0 || layer.before < 0 || layer.before > span_of(layer) ||
      layer.left > layer.before || layer.right > span_of(layer) - layer.before)
    return FASTVOC_BAD_PADDING;
  return FASTVOC_OK;
}

Reading reading_of(const Plan& plan, int line, int taps, int dilation, int left) {
  Reading reading = {};
  reading.line = line;
  reading.chunks = plan.line[line].chunks;
  reading.taps = taps;
  reading.dilation = dilation;
  reading.left = left;
  reading.factor = 1;
  return reading;
}

Operation operation_of(int line, int64_t columns, int channels) {
  Operation operation = {};
  operation.line = line;
  operation.columns = int(round_up(columns, 32));
  operation.channels = channels;
  operation.stride = 1;
  operation.scale = operation.slope_after = 1;
  return operation;
}

bool has_kernel(const Plan& plan, const Launch& launch) {
  return choose(plan, launch, kNominal[0].batch, kNominal[0].frames).convolution != nullptr;
}

// The convolution with its gate, of one source or as many as there are taps.
void make_gate(const fastvoc_cuda_gated& layer, bool by_taps, Plan& plan) {
  Operation& gate = plan.operation[kGate];
  gate = operation_of(kLetThrough, 32 * ((layer.gates + 15) / 16),
                      plan.line[kLetThrough].chunks * chunk_channels(plan.precision));
  gate.gates = int(layer.gates);
  gate.sigmoid_first = layer.sigmoid_first;
  const int sources = by_taps ? int(layer.taps) : 1, taps = int(layer.taps) / sources;
  for (int i = 0; i < sources; ++i)
    gate.source[gate.sources++] =
        reading_of(plan, kSignal, taps, taps > 1 ? int(layer.dilation) : 1, int(layer.left - i * layer.dilation));
  if (layer.multiplied) {
    gate.source[gate.sources++] = reading_of(plan, kCondition, 1, 1, 0);
  } else if (layer.condition > 0) {
    gate.residual[gate.residuals++] = {kCondition, 1, 0};
  }
  Launch& launch = plan.launch[0];
  launch = {};
  launch.count = launch.shared = 1;
  launch.operation[0] = kGate;
  launch.hopper = runs_hopper(plan, gate);
}

int make(const fastvoc_cuda_gated& layer, const fastvoc_gpu& gpu, GatedPlan& made) {
  if (gpu.architecture < 75) return FASTVOC_BAD_ISA;
  if (!is_gpu(gpu)) return FASTVOC_BAD_SIZE;
  const int precision = precision_of(layer.precision);
  if (precision == kPrecisions || (gpu.architecture < 80 && precision != kFloat16)) return FASTVOC_BAD_PRECISION;
  if (const int error = check_layer(layer, precision)) return error;
  made.layer = layer;
  Plan& plan = made.plan;
  plan.gpu = gpu;
  plan.gpu.hopper &= ~FASTVOC_HOPPER_IN_TURN;  // both products of a layer are one launch
  plan.precision = precision;
  const int64_t widths[kLines] = {layer.channels, layer.condition, layer.skips,
                                  layer.gates,    layer.channels,  layer.skips};
  for (int line = 0; line < kLines; ++line)
    plan.line[line] = {int(widths[line]), chunks_of(widths[line], precision), 1,
                       line == kSignal ? 0 : int(layer.left + layer.right - span_of(layer)), 1, 0, -1, -1};

  // Blocks of rows that are further apart than they are long would only fill shared memory.
  const bool apart = layer.taps > 1 && layer.taps + layer.multiplied <= kSources;
  make_gate(layer, apart && span_of(layer) > kMostHopperSpan, plan);
  if (!has_kernel(plan, plan.launch[0])) {
    if (!apart) return FASTVOC_BAD_SIZE;
    make_gate(layer, true, plan);
    if (!has_kernel(plan, plan.launch[0])) return FASTVOC_BAD_SIZE;
  }

  Launch& products = plan.launch[1];
  products = {};
  products.shared = products.hopper = 1;
  for (const int product : {kResidualProduct, kSkipProduct}) {
    const bool residual = product == kResidualProduct;
    const int64_t channels = residual ? layer.residual * layer.channels : layer.skips;
    if (channels == 0) continue;
    Operation& operation = plan.operation[product];
    operation = operation_of(residual ? kResidualResult : kSkipResult, channels, int(channels));
    operation.source[operation.sources++] = reading_of(plan, kLetThrough, 1, 1, 0);
    operation.residual[operation.residuals++] = {residual ? kSignal : kSkip, 1, 0};
    operation.scale = residual ? layer.scale : 1;
    products.operation[products.count++] = product;
    products.hopper = products.hopper && runs_hopper(plan, operation);
  }
  if (!has_kernel(plan, products)) return FASTVOC_BAD_SIZE;
  plan.launches = 2;
  return make_packed(plan);
}

int check_call(const GatedPlan& made, const fastvoc_cuda_gated_call& call) {
  const fastvoc_cuda_gated& layer = made.layer;
  const Plan& plan = made.plan;
  if (call.batch < 1 || call.batch > kMostItems || call.frames < 1 || call.frames > kMostRows) return FASTVOC_BAD_SIZE;
  const int64_t frames = rows_of(plan.line[kLetThrough], call.frames);
  const int element = element_bytes(plan.precision);
  const auto is_input = [&](const fastvoc_cuda_gated_input& input, int64_t channels, int64_t rows, bool may_lack) {
    for (const int64_t stride : input.strides)
      if (stride < -kMostElements || stride > kMostElements) return false;
    const int64_t chunks = chunks_of(channels, plan.precision) + 1;
    return (input.data || may_lack) && is_aligned(input.data, element) &&
           fits({call.batch, rows, chunks, kChunkBytes}) && rows * chunks <= INT_MAX;
  };
  const auto is_output = [&](const fastvoc_cuda_gated_output& output, int64_t channels) {
    return output.data && is_aligned(output.data, element) && output.row >= channels && output.row <= INT_MAX &&
           output.item >= 0 && output.item <= kMostElements;
  };
  const bool right = frames >= 1 && is_input(call.x, layer.channels, call.frames, false) &&
                     is_input(call.condition, layer.condition, frames, layer.condition == 0) &&
                     is_input(call.skip, layer.skips, frames, true) &&
                     fits({call.batch, frames, plan.line[kLetThrough].chunks, kChunkBytes}) &&
                     (!layer.residual || is_output(call.residual, layer.channels)) &&
                     (!layer.skips || is_output(call.made, layer.skips));
  return right ? FASTVOC_OK : FASTVOC_BAD_SIZE;
}

// A call that was checked. Tensors of the caller stay where they are if kernels can read them there, or are brought
// into rows.
class Call {
 public:
  Call(const GatedPlan& made, const fastvoc_cuda_gated_call& call)
      : layer_(made.layer), plan_(made.plan), call_(call), frames_(rows_of(plan_.line[kLetThrough], call.frames)) {
    const int width = chunk_channels(plan_.precision);
    const bool exact = plan_.precision == kTfloat32;
    // What is multiplied is read as whole chunks, which are rounded to TF32.
    const bool x_stays = !exact && in_chunks(call.x, layer_.channels);
    place(kSignal, !x_stays);
    // What is added is not rounded.
    residual_ = layer_.residual && exact && !in_rows(call.x, layer_.channels);
    if (residual_) place(kLines, true);
    if (layer_.condition) {
      gated_ = !layer_.multiplied;
      const int64_t channels = gated_ ? layer_.gates : layer_.condition;
      half_ = gated_ ? round_up(layer_.gates, width) : 0;
      place(kCondition, !(in_chunks(call.condition, channels) && (gated_ || !exact)));
    }
    if (layer_.skips && call.skip.data) place(kSkip, !in_rows(call.skip, layer_.skips));
    place(kLetThrough, true);
  }

  int64_t bytes() const { return bytes_; }

  bool run(const Kernels& kernels, const char* packed, char* workspace, void* stream) {
    kernels_ = &kernels;
    packed_ = packed;
    workspace_ = workspace;
    stream_ = stream;
    Signal signal[kLines] = {};
    if (!bring(kSignal, call_.x, layer_.channels, 0, false, signal[kSignal])) return false;
    if (layer_.condition && !bring_condition(signal[kCondition])) return false;
    if (layer_.skips && call_.skip.data && !bring(kSkip, call_.skip, layer_.skips, 0, true, signal[kSkip]))
      return false;
    Signal own = signal[kSignal];  // x as it is added
    if (layer_.residual) {
      if (residual_) {
        if (!bring(kLines, call_.x, layer_.channels, 0, true, own)) return false;
      } else if (in_rows(call_.x, layer_.channels)) {
        own = as_given(call_.x, kSignal);
      }
      const int64_t offset = (layer_.before - layer_.left) * own.row * element_bytes(plan_.precision);
      own.data = static_cast<char*>(own.data) + offset;
    }
    signal[kLetThrough] = in_workspace(kLetThrough, 0);
    signal[kResidualResult] = result(call_.residual, kResidualResult);
    signal[kSkipResult] = result(call_.made, kSkipResult);
    for (int l = 0; l < plan_.launches; ++l)
      if (!multiply(plan_.launch[l], signal, own)) return false;
    return true;
  }

 private:
  // Reserves memory for a line that does not stay where it is. `kLines` is x once more.
  void place(int line, bool moves) {
    moves_[line] = moves;
    if (!moves) return;
    offset_[line] = bytes_;
    bytes_ += round_up(call_.batch * lines(line) * row_of(line) * element_bytes(plan_.precision), kLineAlign);
  }

  int64_t lines(int line) const { return line == kSignal || line == kLines ? call_.frames : frames_; }

  // Elements of a row in the workspace.
  int64_t row_of(int line) const {
    if (line == kCondition && gated_) return 2 * half_;
    return int64_t{plan_.line[line == kLines ? kSignal : line].chunks} * chunk_channels(plan_.precision);
  }

  Signal in_workspace(int line, int64_t channel) const {
    const int row = int(row_of(line));
    const Line& of = plan_.line[line == kLines ? kSignal : line];
    return {workspace_ + offset_[line] + channel * element_bytes(plan_.precision), lines(line) * row, row, of.rate,
            of.offset};
  }

  Signal as_given(const fastvoc_cuda_gated_input& input, int line) const {
    return {const_cast<void*>(input.data), input.strides[0], int(input.strides[2]), plan_.line[line].rate,
            plan_.line[line].offset};
  }

  Signal result(const fastvoc_cuda_gated_output& output, int line) const {
    return {output.data, output.item, int(output.row), plan_.line[line].rate, plan_.line[line].offset};
  }

  // Whether channels of a row are neighbours.
  static bool in_rows(const fastvoc_cuda_gated_input& input, int64_t channels) {
    return (input.strides[1] == 1 || channels == 1) && input.strides[0] >= 0 && input.strides[2] >= channels &&
           input.strides[2] <= INT_MAX;
  }

  // And whether they are whole chunks; of a condition that is added those of each of its halves.
  bool in_chunks(const fastvoc_cuda_gated_input& input, int64_t channels) const {
    const int width = chunk_channels(plan_.precision);
    return in_rows(input, channels) && channels % width == 0 && input.strides[0] % width == 0 &&
           input.strides[2] % width == 0 && is_aligned(input.data, kChunkBytes);
  }

  // Brings channels from `first` on of a tensor into rows, unless they stay where they are.
  bool bring(int line, const fastvoc_cuda_gated_input& input, int64_t channels, int64_t first, bool exact,
             Signal& rows) {
    if (!moves_[line]) {
      rows = as_given(input, line);
      return true;
    }
    const Signal to = in_workspace(line, first > 0 ? half_ : 0);
    if (first == 0) rows = to;
    Enter enter = {};
    enter.x = static_cast<const char*>(input.data) + first * input.strides[1] * element_bytes(plan_.precision);
    enter.item = input.strides[0], enter.channel = input.strides[1], enter.frame = input.strides[2];
    enter.from = kElements;
    enter.precision = plan_.precision;
    enter.channels = int(channels);
    enter.chunks = chunks_of(channels, plan_.precision);
    enter.frames = int(lines(line));
    enter.batch = int(call_.batch);
    enter.y = to;
    enter.exact = exact;
    const int64_t blocks = (call_.batch * enter.frames * enter.chunks + 255) / 256;
    const Shape shape = {{unsigned(blocks < kMostBlocks ? blocks : kMostBlocks), 1, 1}, 256, 0};
    return launch(kernels_->enter, shape, &enter, sizeof enter);
  }

  // The rows of the condition, from the half of tanh on if it is added.
  bool bring_condition(Signal& rows) {
    if (!gated_) return bring(kCondition, call_.condition, layer_.condition, 0, false, rows);
    if (!bring(kCondition, call_.condition, layer_.gates, 0, true, rows)) return false;
    sigmoid_ = moves_[kCondition] ? half_ : layer_.gates;
    if (moves_[kCondition] && !bring(kCondition, call_.condition, layer_.gates, layer_.gates, true, rows)) return false;
    if (layer_.sigmoid_first) {
      rows.data = static_cast<char*>(rows.data) + sigmoid_ * element_bytes(plan_.precision);
      sigmoid_ = -sigmoid_;
    }
    return true;
  }

  bool multiply(const Launch& step, const Signal* signal, const Signal& own) {
    const ConvolutionKernel& kernel = *choose(plan_, step, call_.batch, call_.frames).convolution;
    Convolutions convolutions = {};
    convolutions.lengths = {call_.lengths, int(call_.frames)};
    convolutions.problems = 1;
    for (int p = 0; p < step.count; ++p) {
      const Operation& operation = plan_.operation[step.operation[p]];
      Convolution& convolution = convolutions.problem[p];
      for (int i = 0; i < operation.sources; ++i) {
        const Reading& reading = operation.source[i];
        convolution.source[i] = {signal[reading.line], packed_ + reading.weight, reading.chunks, reading.taps,
                                 reading.dilation,     reading.left,             kZero,          kZero,
                                 1};
      }
      for (int i = 0; i < operation.residuals; ++i) {
        const int line = operation.residual[i].line;
        if (line == kSkip && !call_.skip.data) continue;
        convolution.residual[convolution.residuals++] = {line == kSignal ? own : signal[line], 1};
      }
      convolution.finish = {reinterpret_cast<const float*>(packed_ + operation.bias), operation.scale, 1, 1, 0};
      convolution.y = signal[operation.line];
      convolution.sources = operation.sources;
      convolution.columns = operation.columns;
      convolution.channels = operation.channels;
      convolution.stride = 1;
      convolution.output = operation.gates > 0 || plan_.precision != kTfloat32 ? kElements : kFloats;
      convolution.sigmoid = int(sigmoid_);
      if (p == 1) convolutions.second = convolutions.panels;
      convolutions.panels += panels_of(operation, kernel);
    }
    convolutions.blocks = int((frames_ + kernel.rows - 1) / kernel.rows * convolutions.panels);
    convolutions.items = int(call_.batch);
    const Shape shape = {
        {unsigned(convolutions.blocks), unsigned(call_.batch), 1},
        unsigned(kernel.threads),
        unsigned(convolution_shared_bytes(kernel, int(widest_span(plan_, step))))};
    return launch(kernels_->convolution[&kernel - kConvolutions], shape, &convolutions, sizeof convolutions);
  }

  bool launch(void* function, const Shape& shape, const void* parameter, size_t size) {
    const bool early = plan_.gpu.architecture >= kFirstLaunched && launched_++ > 0;
    return cuda::launch(function, shape, parameter, size, early, stream_);
  }

  const fastvoc_cuda_gated& layer_;
  const Plan& plan_;
  const fastvoc_cuda_gated_call& call_;
  int64_t frames_;  // of the results
  bool moves_[kLines + 1] = {}, residual_ = false, gated_ = false;
  int64_t offset_[kLines + 1] = {}, bytes_ = 0, half_ = 0, sigmoid_ = 0;
  const Kernels* kernels_ = nullptr;
  const char* packed_ = nullptr;
  char* workspace_ = nullptr;
  void* stream_ = nullptr;
  int launched_ = 0;
};

bool is_nothing(const fastvoc_cuda_gated_call& call) {
  return call.batch == 0 && call.frames >= 0 && call.frames <= kMostRows;
}

bool is_size(const GatedPlan& made, int64_t batch, int64_t frames, int launch) {
  return batch >= 1 && batch <= kMostItems && frames >= 1 && frames <= kMostRows && launch >= 0 &&
         launch < made.plan.launches;
}

// One weight: rows from `first` on, of `taps` taps, into the columns of an operation.
struct Packing {
  const Plan& plan;
  const Kernels& kernels;
  bool narrow;
  char* packed;
  void* stream;

  bool operator()(const Operation& operation, int source, const fastvoc_cuda_gated_weight& weight, int64_t first,
                  int64_t in_channels, int64_t rows, int64_t taps) const {
    const Reading& reading = operation.source[source];
    const int64_t element = narrow ? element_bytes(plan.precision) : 4;
    const auto from = [&](const void* data, int64_t each) {
      return data ? static_cast<const char*>(data) + first * each * element : nullptr;
    };
    Pack pack = {};
    pack.weight = from(weight.weight, in_channels * taps);
    pack.bias = from(weight.bias, 1);
    pack.packed = packed + reading.weight;
    pack.packed_bias = reinterpret_cast<float*>(packed + operation.bias);
    pack.from = narrow ? kElements : kFloats;
    pack.precision = plan.precision;
    pack.in_channels = int(in_channels);
    pack.out_channels = int(rows);
    pack.taps = int(taps);
    pack.stride = 1;
    pack.channels = operation.columns;
    pack.chunks = reading.chunks;
    pack.columns = operation.columns;
    pack.first = source == 0;
    pack.gates = operation.gates;
    pack.sigmoid_first = operation.sigmoid_first;
    // Sources of one tap each stand behind each other, as the taps of one do.
    const int64_t elements = taps * reading.chunks * operation.columns * chunk_channels(plan.precision);
    const int64_t blocks = (elements + 255) / 256;
    const Shape shape = {{unsigned(blocks < kMostBlocks ? blocks : kMostBlocks), 1, 1}, 256, 0};
    return launch(kernels.pack, shape, &pack, sizeof pack, false, stream);
  }
};

}  // namespace
}  // namespace fastvoc::cuda

using namespace fastvoc;
using namespace fastvoc::cuda;

int64_t fastvoc_cuda_gated_size(void) { return sizeof(GatedPlan); }

int fastvoc_cuda_gated_make(const fastvoc_cuda_gated* layer, const fastvoc_gpu* gpu, void* plan) {
  if (!layer || !gpu || !plan) return FASTVOC_BAD_NETWORK;
  return make(*layer, *gpu, *static_cast<GatedPlan*>(plan));
}

int64_t fastvoc_cuda_gated_packed_size(const void* plan) { return plan_of(plan).plan.packed; }

int64_t fastvoc_cuda_gated_workspace_size(const void* plan, const fastvoc_cuda_gated_call* call) {
  if (!call) return -1;
  if (is_nothing(*call)) return 0;
  return check_call(plan_of(plan), *call) == FASTVOC_OK ? Call(plan_of(plan), *call).bytes() : -1;
}

int fastvoc_cuda_gated_pack(const void* plan, void* kernels, int narrow, const fastvoc_cuda_gated_weight* convolution,
                            const fastvoc_cuda_gated_weight* condition, const fastvoc_cuda_gated_weight* products,
                            void* packed, void* stream) {
  if (!plan || !convolution || !products || !convolution->weight || !products->weight) return FASTVOC_BAD_NETWORK;
  const fastvoc_cuda_gated& layer = plan_of(plan).layer;
  if (layer.multiplied && (!condition || !condition->weight)) return FASTVOC_BAD_NETWORK;
  if (!kernels) return FASTVOC_NO_DRIVER;
  if (!packed || !is_aligned(packed, kLineAlign)) return FASTVOC_BAD_SIZE;
  const Plan& compiled = plan_of(plan).plan;
  const Packing pack = {compiled, *static_cast<const Kernels*>(kernels), narrow != 0, static_cast<char*>(packed),
                        stream};
  const Operation& gate = compiled.operation[kGate];
  bool right = pack(gate, 0, *convolution, 0, layer.channels, 2 * layer.gates, layer.taps);
  if (layer.multiplied)
    right = right && pack(gate, gate.sources - 1, *condition, 0, layer.condition, 2 * layer.gates, 1);
  if (layer.residual)
    right = right && pack(compiled.operation[kResidualProduct], 0, *products, 0, layer.gates, layer.channels, 1);
  if (layer.skips)
    right = right && pack(compiled.operation[kSkipProduct], 0, *products, layer.residual * layer.channels, layer.gates,
                          layer.skips, 1);
  return right ? FASTVOC_OK : FASTVOC_DRIVER_ERROR;
}

int fastvoc_cuda_gated_run(const void* plan, void* kernels, const void* packed, void* workspace, void* stream,
                           const fastvoc_cuda_gated_call* call) {
  if (!plan || !call) return FASTVOC_BAD_NETWORK;
  if (!kernels) return FASTVOC_NO_DRIVER;
  if (is_nothing(*call)) return FASTVOC_OK;
  if (const int error = check_call(plan_of(plan), *call)) return error;
  if (!packed || !is_aligned(packed, kLineAlign) || !workspace || !is_aligned(workspace, kLineAlign))
    return FASTVOC_BAD_SIZE;
  Call own(plan_of(plan), *call);
  return own.run(*static_cast<const Kernels*>(kernels), static_cast<const char*>(packed), static_cast<char*>(workspace),
                 stream)
             ? FASTVOC_OK
             : FASTVOC_DRIVER_ERROR;
}

int fastvoc_cuda_gated_launches(const void* plan) { return plan_of(plan).plan.launches; }

const char* fastvoc_cuda_gated_kernel(const void* plan, int64_t batch, int64_t frames, int launch) {
  const GatedPlan& made = plan_of(plan);
  if (!is_size(made, batch, frames, launch)) return nullptr;
  return choose(made.plan, made.plan.launch[launch], batch, frames).convolution->name;
}

double fastvoc_cuda_gated_clocks(const void* plan, int64_t batch, int64_t frames, int launch) {
  const GatedPlan& made = plan_of(plan);
  return is_size(made, batch, frames, launch) ? choose(made.plan, made.plan.launch[launch], batch, frames).clocks : -1;
}
