// The C surface of smooth_snake on a GPU: what is wrong with a call, into which parts time is cut, and the launch.
#include "../../fastvoc_cuda_smooth_snake.h"

#include <climits>

#include "calls.h"
#include "driver.h"
#include "snakes.h"

namespace fastvoc::cuda {
namespace {

int elements_of(int precision) {
  return precision == FASTVOC_FLOAT16    ? kFloat16
         : precision == FASTVOC_BFLOAT16 ? kBfloat16
         : precision == FASTVOC_FLOAT32  ? kTfloat32
                                         : kPrecisions;
}

SnakeSize size_of(const fastvoc_cuda_smooth_snake& call) {
  return {elements_of(call.precision), call.grad != nullptr, call.batch, call.channels, call.frames};
}

int check_sizes(const fastvoc_gpu& gpu, const fastvoc_cuda_smooth_snake& call) {
  const int precision = elements_of(call.precision);
  if (!is_gpu(gpu)) return FASTVOC_BAD_SIZE;
  if (precision == kPrecisions || (gpu.architecture < 80 && precision == kBfloat16)) return FASTVOC_BAD_PRECISION;
  if (call.batch < 1 || call.batch > kMostItems || !is_count(call.channels) || call.frames < 1 ||
      !snake_fits(call.channels, call.frames) || !fits({call.batch, call.channels, call.frames, 4}))
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
  snake.problem[0] = {call.x, call.alpha, call.beta, call.y};
  snake.grad = call.grad, snake.sums = call.sums;
  snake.lengths = {call.lengths, int(call.frames)};
  snake.rate = 1;
  snake.x_item = call.x_strides[0], snake.x_channel = int(call.x_strides[1]), snake.x_frame = int(call.x_strides[2]);
  snake.grad_item = call.grad_strides[0], snake.grad_channel = int(call.grad_strides[1]);
  snake.grad_frame = int(call.grad_strides[2]);
  snake.y_item = call.y_strides[0], snake.y_channel = int(call.y_strides[1]), snake.y_frame = int(call.y_strides[2]);
  snake.channels = int(call.channels), snake.items = int(call.batch);
  snake.stretches = stretches_of(gpu, size_of(call));
  snake.parts = int(parts_of(size_of(call), snake.stretches));
  snake.parameters = call.logarithmic ? kLogarithms : kNumbers;
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
  if (!gpu || !call || check_sizes(*gpu, *call) != FASTVOC_OK) return -1;
  return parts_of(size_of(*call), stretches_of(*gpu, size_of(*call)));
}

double fastvoc_cuda_smooth_snake_clocks(const fastvoc_gpu* gpu, const fastvoc_cuda_smooth_snake* call) {
  if (!gpu || !call || check_sizes(*gpu, *call) != FASTVOC_OK) return -1;
  return snake_clocks(*gpu, size_of(*call)) + kLaunchClocks;
}

int fastvoc_cuda_smooth_snake_run(const fastvoc_gpu* gpu, void* kernels, void* stream,
                                  const fastvoc_cuda_smooth_snake* call) {
  if (!gpu || !call) return FASTVOC_BAD_SIZE;
  if (!kernels) return FASTVOC_NO_DRIVER;
  if (const int error = check_call(*gpu, *call)) return error;
  const Snake snake = described(*gpu, *call);
  const Kernels& all = *static_cast<const Kernels*>(kernels);
  const int precision = elements_of(call->precision);
  const Shape shape = {
      {snake_blocks(size_of(*call), snake.stretches), unsigned(call->batch), 1}, unsigned(kSnakeThreads), 0};
  void* const function = call->grad ? all.smooth_snake_gradient[precision] : all.smooth_snake[precision];
  return launch(function, shape, &snake, sizeof snake, false, stream) ? FASTVOC_OK : FASTVOC_DRIVER_ERROR;
}
