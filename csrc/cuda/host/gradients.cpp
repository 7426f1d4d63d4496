// The C surface of gradients on a GPU, and their launches.
#include "calls.h"
#include "driver.h"
#include "fuse.h"
#include "gradient_plan.h"

namespace fastvoc::cuda {
namespace {

bool has_strides(const int64_t* strides) {
  for (int i = 0; i < 3; ++i)
    if (strides[i] < -kMostElements || strides[i] > kMostElements) return false;
  return true;
}

// A tensor of the caller: where it is, or into which rows of whole chunks it is brought first.
struct Given {
  const void* data;
  const int64_t* strides;
  int channels, rows, chunks;
  int64_t offset;  // in the workspace, or -1 if it stays where it is

  Given(const void* from, const int64_t* its_strides, int64_t its_channels, int64_t its_rows, int precision)
      : data(from), strides(its_strides), channels(int(its_channels)), rows(int(its_rows)) {
    const int width = chunk_channels(precision);
    chunks = (channels + width - 1) / width;
    const bool stays = channels % width == 0 && strides[1] == 1 && strides[0] >= 0 && strides[0] % width == 0 &&
                       strides[2] >= 0 && strides[2] % width == 0 && strides[2] <= INT_MAX &&
                       is_aligned(data, kChunkBytes);
    offset = stays ? -1 : 0;
  }
  int64_t bytes(int64_t batch) const {
    return offset < 0 ? 0 : round_up(batch * rows * chunks * kChunkBytes, kLineAlign);
  }
};

class Differentiation {
 public:
  Differentiation(const fastvoc_layer& layer, const fastvoc_gpu& gpu, int precision,
                  const fastvoc_cuda_weight_gradient& call)
      : gpu_(gpu),
        precision_(precision),
        batch_(call.batch),
        up_(layer.kind == FASTVOC_UPSAMPLE),
        x_(call.x, call.x_strides, layer.in_channels, call.frames, precision),
        grad_(call.grad, call.grad_strides, layer.out_channels, result_frames(layer, call.frames), precision) {
    const WeightGradientKernel* const kernel = choose_weight_gradient(
        precision, up_ ? layer.in_channels : layer.out_channels, up_ ? layer.out_channels : layer.in_channels);
    plan_ = plan_gradient(layer, *kernel, gpu, call.batch, call.frames, call.weight, call.bias);
    plan_.add.weight = call.weight;
    plan_.add.bias = call.bias;
    bytes_ = round_up(plan_.parts, kLineAlign);
    for (Given* given : {&x_, &grad_})
      if (const int64_t bytes = needed(*given) ? given->bytes(call.batch) : 0) {
        given->offset = bytes_;
        bytes_ += bytes;
      }
  }

  // -1 if no GPU, or not this one, can launch it.
  int64_t bytes() const {
    const bool fits = plan_.shared <= gpu_.shared_per_block;
    return fits && plan_.grid[1] <= kMostPlaces && plan_.grid[2] <= kMostPlaces ? bytes_ : -1;
  }

  bool run(const Kernels& kernels, char* workspace, void* stream) {
    Signal x = {}, grad = {};
    if (!bring(kernels, x_, workspace, stream, x) || !bring(kernels, grad_, workspace, stream, grad)) return false;
    plan_.sums.fixed = up_ ? x : grad;
    plan_.sums.sliding = up_ ? grad : x;
    plan_.sums.parts = reinterpret_cast<float*>(workspace);
    plan_.add.parts = plan_.sums.parts;
    const Shape shape = {
        {plan_.grid[0], plan_.grid[1], plan_.grid[2]}, unsigned(32 * plan_.kernel->warps), unsigned(plan_.shared)};
    const int64_t blocks = (plan_.add.part + 255) / 256;
    const Shape adding = {{unsigned(blocks < kMostBlocks ? blocks : kMostBlocks), 1, 1}, 256, 0};
    return launch(kernels.weight_gradient[plan_.kernel - kWeightGradients], shape, &plan_.sums, sizeof plan_.sums,
                  stream) &&
           launch(kernels.add_parts, adding, &plan_.add, sizeof plan_.add, stream);
  }

 private:
  // For a bias alone x is not read.
  bool needed(const Given& given) const { return &given == &grad_ || plan_.add.weight; }

  bool launch(void* function, const Shape& shape, const void* parameter, size_t size, void* stream) {
    const bool early = gpu_.architecture >= kFirstLaunched && launched_++ > 0;
    return cuda::launch(function, shape, parameter, size, early, stream);
  }

  bool bring(const Kernels& kernels, const Given& given, char* workspace, void* stream, Signal& rows) {
    if (!needed(given)) return true;
    if (given.offset < 0) {
      rows = {const_cast<void*>(given.data), given.strides[0], int(given.strides[2]), 1, 0};
      return true;
    }
    const int row = given.chunks * chunk_channels(precision_);
    rows = {workspace + given.offset, int64_t{given.rows} * row, row, 1, 0};
    Enter enter = {};
    enter.x = given.data;
    enter.item = given.strides[0], enter.channel = given.strides[1], enter.frame = given.strides[2];
    enter.from = kElements;
    enter.precision = precision_;
    enter.channels = given.channels, enter.chunks = given.chunks;
    enter.frames = given.rows, enter.batch = int(batch_);
    enter.y = rows;
    enter.exact = 1;
    const int64_t blocks = (batch_ * given.rows * given.chunks + 255) / 256;
    const Shape shape = {{unsigned(blocks < kMostBlocks ? blocks : kMostBlocks), 1, 1}, 256, 0};
    return launch(kernels.enter, shape, &enter, sizeof enter, stream);
  }

  const fastvoc_gpu& gpu_;
  int precision_;
  int64_t batch_;
  bool up_;
  Given x_, grad_;
  GradientPlan plan_;
  int64_t bytes_ = 0;
  int launched_ = 0;
};

int check_call(const fastvoc_layer& layer, const fastvoc_gpu& gpu, int precision,
               const fastvoc_cuda_weight_gradient& call) {
  if (!is_gpu(gpu)) return FASTVOC_BAD_SIZE;
  if (precision == kPrecisions || (gpu.architecture < 80 && precision != kFloat16)) return FASTVOC_BAD_PRECISION;
  if (const int error = check_gradient(layer, call.batch, call.frames)) return error;
  const int bytes = element_bytes(precision), width = chunk_channels(precision);
  const int64_t rows = result_frames(layer, call.frames);
  const auto is_tensor = [&](const void* data, const int64_t* strides, int64_t frames, int64_t channels) {
    const int64_t chunks = (channels + width - 1) / width;
    return data && is_aligned(data, bytes) && has_strides(strides) && frames * chunks <= INT_MAX &&
           fits({call.batch, frames, chunks, kChunkBytes});
  };
  if (!is_tensor(call.x, call.x_strides, call.frames, layer.in_channels) ||
      !is_tensor(call.grad, call.grad_strides, rows, layer.out_channels) || (!call.weight && !call.bias) ||
      !is_aligned(call.weight, bytes) || !is_aligned(call.bias, bytes))
    return FASTVOC_BAD_SIZE;
  return FASTVOC_OK;
}

}  // namespace
}  // namespace fastvoc::cuda

using namespace fastvoc;
using namespace fastvoc::cuda;

int64_t fastvoc_cuda_weight_gradient_workspace_size(const fastvoc_layer* layer, const fastvoc_gpu* gpu,
                                                    const fastvoc_cuda_weight_gradient* call) {
  if (!layer || !gpu || !call) return -1;
  const int precision = precision_of(call->precision);
  if (check_call(*layer, *gpu, precision, *call) != FASTVOC_OK) return -1;
  return Differentiation(*layer, *gpu, precision, *call).bytes();
}

int fastvoc_cuda_weight_gradient_run(const fastvoc_layer* layer, const fastvoc_gpu* gpu, void* kernels, void* workspace,
                                     void* stream, const fastvoc_cuda_weight_gradient* call) {
  if (!layer || !gpu || !call) return FASTVOC_BAD_NETWORK;
  if (!kernels) return FASTVOC_NO_DRIVER;
  const int precision = precision_of(call->precision);
  if (const int error = check_call(*layer, *gpu, precision, *call)) return error;
  Differentiation differentiation(*layer, *gpu, precision, *call);
  if (!workspace || !is_aligned(workspace, kLineAlign) || differentiation.bytes() < 0) return FASTVOC_BAD_SIZE;
  return differentiation.run(*static_cast<const Kernels*>(kernels), static_cast<char*>(workspace), stream)
             ? FASTVOC_OK
             : FASTVOC_DRIVER_ERROR;
}

int fastvoc_cuda_input_gradient_run(void* kernels, void* stream, const fastvoc_cuda_input_gradient* call) {
  if (!call) return FASTVOC_BAD_NETWORK;
  if (!kernels) return FASTVOC_NO_DRIVER;
  const int precision = precision_of(call->precision);
  if (precision == kPrecisions) return FASTVOC_BAD_PRECISION;
  constexpr int64_t kMost = 1 << 30;
  if (call->batch < 1 || call->batch > kMostItems || !is_count(call->channels) || call->frames < 1 ||
      call->frames > kMost || call->left < 0 || call->right < 0 || call->left > kMost || call->right > kMost ||
      (call->channels + 8) * (call->frames + call->left + call->right + 32) > kMost)
    return FASTVOC_BAD_SIZE;
  if (call->padding_mode < FASTVOC_ZERO || call->padding_mode > FASTVOC_REPLICATE ||
      (call->padding_mode == FASTVOC_ZERO && (call->left || call->right)) ||
      (call->padding_mode == FASTVOC_REFLECT && (call->left >= call->frames || call->right >= call->frames)))
    return FASTVOC_BAD_PADDING;
  const int bytes = element_bytes(precision);
  for (const void* data : {call->padded, static_cast<const void*>(call->y), call->slope == 1 ? call->padded : call->x})
    if (!data || !is_aligned(data, bytes)) return FASTVOC_BAD_SIZE;
  for (const int64_t* strides : {call->padded_strides, call->x_strides, static_cast<const int64_t*>(call->y_strides)})
    if (!has_strides(strides)) return FASTVOC_BAD_SIZE;
  InputGradient gradient = {};
  gradient.padded = call->padded, gradient.x = call->x, gradient.y = call->y;
  gradient.padded_item = call->padded_strides[0], gradient.padded_channel = call->padded_strides[1];
  gradient.padded_frame = call->padded_strides[2];
  gradient.x_item = call->x_strides[0], gradient.x_channel = call->x_strides[1], gradient.x_frame = call->x_strides[2];
  gradient.y_item = call->y_strides[0], gradient.y_channel = call->y_strides[1], gradient.y_frame = call->y_strides[2];
  gradient.channels = int(call->channels), gradient.frames = int(call->frames);
  gradient.left = int(call->left), gradient.right = int(call->right);
  gradient.mode = call->padding_mode;
  gradient.slope = call->slope;
  gradient.precision = precision;
  const auto has_chunks = [&](const void* data, const int64_t* strides) {
    const int width = chunk_channels(precision);
    return is_aligned(data, kChunkBytes) && strides[0] % width == 0 && strides[1] == 1 && strides[2] % width == 0;
  };
  if (call->padding_mode == FASTVOC_ZERO && call->slope != 1 && call->channels % chunk_channels(precision) == 0 &&
      has_chunks(call->padded, call->padded_strides) && has_chunks(call->x, call->x_strides) &&
      has_chunks(call->y, call->y_strides))
    gradient.chunks = int(call->channels / chunk_channels(precision));
  const int64_t blocks = ((call->frames + 31) / 32 * 32 * ((call->channels + 7) / 8 * 8) + 255) / 256;
  const Shape shape = {{unsigned(blocks < kMostBlocks ? blocks : kMostBlocks), unsigned(call->batch), 1}, 256, 0};
  return launch(static_cast<const Kernels*>(kernels)->input_gradient, shape, &gradient, sizeof gradient, false, stream)
             ? FASTVOC_OK
             : FASTVOC_DRIVER_ERROR;
}
