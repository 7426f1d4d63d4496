// The C surface of smooth_snake on a GPU: what is wrong with a call, into which parts time is cut, and the launch.
#include "../../fastvoc_cuda_smooth_snake.h"

#include <climits>

#include "calls.h"
#include "cost.h"
#include "driver.h"

namespace fastvoc::cuda {
namespace {

constexpr int kMostStretches = 16;

// Instructions of an element, two of the doubled signal, in the loop that sees no end, as they stand in the code for
// architecture 90; what share of its instructions a multiprocessor issues while all of its warps have some; and clocks
// from one to the next where a warp has its scheduler to itself.
constexpr double kInstructions[2][2] = {{47, 71}, {81, 115}};  // [gradient][float32]
constexpr double kIssued = 0.7, kPerClock = 128, kDependent = 2;

int elements_of(int precision) {
  return precision == FASTVOC_FLOAT16    ? kFloat16
         : precision == FASTVOC_BFLOAT16 ? kBfloat16
         : precision == FASTVOC_FLOAT32  ? kTfloat32
                                         : kPrecisions;
}

int64_t lanes_of(const fastvoc_cuda_smooth_snake& call, int stretches) {
  const int64_t parts = (call.frames + snake_frames(stretches) - 1) / snake_frames(stretches);
  return parts * ((call.channels + 1) / 2);
}

// Clocks of the loops, while memory answers at once.
double loop_clocks(const fastvoc_gpu& gpu, const fastvoc_cuda_smooth_snake& call, int stretches) {
  const double instructions = kInstructions[call.grad != nullptr][call.precision == FASTVOC_FLOAT32];
  const double of_lane = 2.0 * kSnakeStep * stretches * instructions;
  const int64_t lanes = call.batch * lanes_of(call, stretches);
  const int64_t most = (lanes + gpu.multiprocessors - 1) / gpu.multiprocessors;
  const double all = double(most) * of_lane / kPerClock / kIssued, alone = of_lane * kDependent;
  return all > alone ? all : alone;
}

// Long parts compute less twice, short ones are more lanes.
int stretches_of(const fastvoc_gpu& gpu, const fastvoc_cuda_smooth_snake& call) {
  int best = kMostStretches;
  for (int stretches = best / 2; stretches > 1; stretches /= 2)
    if (loop_clocks(gpu, call, stretches) < loop_clocks(gpu, call, best)) best = stretches;
  return best;
}

int64_t parts_of(const fastvoc_gpu& gpu, const fastvoc_cuda_smooth_snake& call) {
  const int frames = snake_frames(stretches_of(gpu, call));
  return (call.frames + frames - 1) / frames;
}

int check_sizes(const fastvoc_gpu& gpu, const fastvoc_cuda_smooth_snake& call) {
  const int precision = elements_of(call.precision);
  if (!is_gpu(gpu)) return FASTVOC_BAD_SIZE;
  if (precision == kPrecisions || (gpu.architecture < 80 && precision == kBfloat16)) return FASTVOC_BAD_PRECISION;
  constexpr int64_t kMost = 1 << 30;  // frames behind the last one are counted in 32 bits, and lanes
  if (call.batch < 1 || call.batch > kMostItems || !is_count(call.channels) || call.frames < 1 ||
      call.frames > kMost || (call.channels + 1) * (call.frames + 256) > kMost ||
      !fits({call.batch, call.channels, call.frames, 4}))
    return FASTVOC_BAD_SIZE;
  constexpr int64_t kFarthest = INT_MAX / 4;  // elements between neighbours, of which bytes are counted in 32 bits
  for (const int64_t* strides : {call.x_strides, call.grad_strides, call.y_strides})
    if (strides[0] < -kMostElements || strides[0] > kMostElements || strides[1] < -kFarthest ||
        strides[1] > kFarthest || strides[2] < -kFarthest || strides[2] > kFarthest)
      return FASTVOC_BAD_SIZE;
  return FASTVOC_OK;
}

int check_call(const fastvoc_gpu& gpu, const fastvoc_cuda_smooth_snake& call) {
  if (const int error = check_sizes(gpu, call)) return error;
  const int bytes = element_bytes(elements_of(call.precision));
  if (!call.x || !call.alpha || (call.grad ? !call.y && !call.sums : !call.y) || (call.grad && call.lengths))
    return FASTVOC_BAD_SIZE;
  for (const void* data : {call.x, call.alpha, call.beta, call.grad, static_cast<const void*>(call.y)})
    if (!is_aligned(data, bytes)) return FASTVOC_BAD_SIZE;
  return is_aligned(call.sums, 4) ? FASTVOC_OK : FASTVOC_BAD_SIZE;
}

Snake described(const fastvoc_gpu& gpu, const fastvoc_cuda_smooth_snake& call) {
  const int bytes = element_bytes(elements_of(call.precision));
  // Whether both channels of each lane are one aligned word.
  const auto has_words = [&](const void* data, const int64_t* strides) {
    return !data || (strides[1] == 1 && strides[0] % 2 == 0 && strides[2] % 2 == 0 && is_aligned(data, 2 * bytes));
  };
  Snake snake = {};
  snake.x = call.x, snake.grad = call.grad, snake.alpha = call.alpha, snake.beta = call.beta;
  snake.y = call.y, snake.sums = call.sums, snake.lengths = call.lengths;
  snake.x_item = call.x_strides[0], snake.x_channel = int(call.x_strides[1]), snake.x_frame = int(call.x_strides[2]);
  snake.grad_item = call.grad_strides[0], snake.grad_channel = int(call.grad_strides[1]);
  snake.grad_frame = int(call.grad_strides[2]);
  snake.y_item = call.y_strides[0], snake.y_channel = int(call.y_strides[1]), snake.y_frame = int(call.y_strides[2]);
  snake.channels = int(call.channels), snake.frames = int(call.frames), snake.items = int(call.batch);
  snake.stretches = stretches_of(gpu, call);
  snake.parts = int(parts_of(gpu, call));
  snake.logarithmic = call.logarithmic != 0;
  snake.channels_last = call.x_strides[1] == 1 || call.channels == 1;
  snake.words = call.channels % 2 == 0 && has_words(call.x, call.x_strides) &&
                has_words(call.grad, call.grad_strides) && has_words(call.y, call.y_strides);
  return snake;
}

}  // namespace
}  // namespace fastvoc::cuda

using namespace fastvoc;
using namespace fastvoc::cuda;

int64_t fastvoc_cuda_smooth_snake_parts(const fastvoc_gpu* gpu, const fastvoc_cuda_smooth_snake* call) {
  return gpu && call && check_sizes(*gpu, *call) == FASTVOC_OK ? parts_of(*gpu, *call) : -1;
}

double fastvoc_cuda_smooth_snake_clocks(const fastvoc_gpu* gpu, const fastvoc_cuda_smooth_snake* call) {
  if (!gpu || !call || check_sizes(*gpu, *call) != FASTVOC_OK) return -1;
  const double elements = double(call->batch) * double(call->channels) * double(call->frames);
  const double bytes = elements * (call->precision == FASTVOC_FLOAT32 ? 4 : 2) * (call->grad ? 3 : 2);
  const double memory = bytes / (double(gpu->multiprocessors) * rates_of(gpu->architecture).memory);
  const double loops = loop_clocks(*gpu, *call, stretches_of(*gpu, *call)) + 2 * kFetchClocks;
  return overlapped(memory, loops) + kLaunchClocks;
}

int fastvoc_cuda_smooth_snake_run(const fastvoc_gpu* gpu, void* kernels, void* stream,
                                  const fastvoc_cuda_smooth_snake* call) {
  if (!gpu || !call) return FASTVOC_BAD_SIZE;
  if (!kernels) return FASTVOC_NO_DRIVER;
  if (const int error = check_call(*gpu, *call)) return error;
  const Snake snake = described(*gpu, *call);
  const Kernels& all = *static_cast<const Kernels*>(kernels);
  const int precision = elements_of(call->precision);
  const int64_t lanes = lanes_of(*call, snake.stretches);
  const Shape shape = {{unsigned((lanes + kSnakeThreads - 1) / kSnakeThreads), unsigned(call->batch), 1},
                       unsigned(kSnakeThreads),
                       0};
  void* const function = call->grad ? all.smooth_snake_gradient[precision] : all.smooth_snake[precision];
  return launch(function, shape, &snake, sizeof snake, false, stream) ? FASTVOC_OK : FASTVOC_DRIVER_ERROR;
}
