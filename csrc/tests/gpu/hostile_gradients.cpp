// What no caller should pass to gradients on GPUs: layers, GPUs and calls with some numbers replaced by negative, huge
// and unknown ones, and null pointers. They are refused, or the sizes of what they take are right and runs do no harm.
//
// Kernels are run by the CPU (driver_on_cpu.cpp), built with -DFASTVOC_SANITIZE=ON, so that an access beyond any array,
// an overflow, or a launch that no GPU takes ends the program. An argument is how many to draw. Exits with 0 if all is
// well.

#include <climits>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "../../fastvoc_cuda.h"
#include "../networks.h"

namespace {

using namespace fastvoc_tests;

constexpr int64_t kHeld = 1 << 20;  // bytes; what takes less is really run

int64_t hostile() {
  switch (draw(0, 5)) {
    case 0:
      return draw(-3, 3);
    case 1:
      return (int64_t{1} << draw(0, 62)) + draw(-1, 1);
    case 2:
      return toss() ? INT64_MAX - draw(0, 2) : INT64_MIN + draw(0, 2);
    case 3:
      return -(int64_t{1} << draw(0, 62));
    case 4:
      return draw(1, 64);
    default:
      return draw(INT64_MIN, INT64_MAX);
  }
}

void spoil(int& value) { value = int(hostile()); }
void spoil(int64_t& value) { value = hostile(); }
void spoil(float& value) {
  const float values[] = {0, -1, 1e38f, -1e38f, INFINITY, NAN, 1e-42f};
  value = values[draw(0, 6)];
}

template <class... Numbers>
void spoil_one(Numbers&... numbers) {
  int64_t at = draw(0, int64_t(sizeof...(Numbers)) - 1);
  ((at-- == 0 ? spoil(numbers) : void()), ...);
}

bool is_error(int code) { return code > FASTVOC_OK && code < FASTVOC_ERROR_COUNT; }

// Memory of exactly so many bytes, aligned as device memory is.
class Block {
 public:
  explicit Block(int64_t size) {
    if (posix_memalign(&memory_, 256, size_t(size)) != 0) std::abort();
    std::memset(memory_, 0, size_t(size));
  }
  ~Block() { std::free(memory_); }
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;
  void* data() { return memory_; }

 private:
  void* memory_ = nullptr;
};

// Strides of a tensor, with frames or channels as neighbours.
void lay_out(int64_t* strides, int64_t channels, int64_t frames) {
  const bool last = toss();
  strides[0] = channels * frames, strides[1] = last ? 1 : frames, strides[2] = last ? channels : 1;
}

constexpr int kPrecisions[] = {FASTVOC_FLOAT16, FASTVOC_BFLOAT16, FASTVOC_TFLOAT32};
constexpr fastvoc_gpu kGpus[] = {{75, 40, 64 << 10, 64 << 10},
                                 {80, 108, 163 << 10, 164 << 10},
                                 {89, 128, 99 << 10, 100 << 10},
                                 {90, 132, 227 << 10, 228 << 10}};
int64_t taken = 0, refused = 0;

bool weight_is_safe(void* kernels) {
  fastvoc_layer layer = {};
  layer.kind = toss() ? FASTVOC_CONV1D : FASTVOC_UPSAMPLE;
  layer.in_channels = draw(1, 20), layer.out_channels = draw(1, 20), layer.taps = draw(1, 7);
  layer.dilation = draw(1, 3), layer.stride = draw(1, 3);
  layer.left = draw(0, 3), layer.right = draw(0, 3);
  layer.padding_mode = int(draw(0, 2));
  layer.slope = toss() ? 1.0f : 0.1f;
  fastvoc_gpu gpu = kGpus[draw(0, 3)];
  fastvoc_cuda_weight_gradient call = {};
  call.precision = kPrecisions[draw(0, 2)];
  call.batch = draw(1, 3), call.frames = draw(1, 30);
  for (int64_t count = draw(0, 2); count > 0; --count) {
    spoil_one(layer.kind, layer.padding_mode, layer.in_channels, layer.out_channels, layer.taps, layer.dilation,
              layer.stride, layer.left, layer.right, layer.slope, call.batch, call.frames, call.precision);
    if (draw(0, 5) == 0)
      spoil_one(gpu.architecture, gpu.multiprocessors, gpu.shared_per_block, gpu.shared_per_multiprocessor);
  }
  alignas(16) static char somewhere[16];
  call.x = call.grad = call.weight = call.bias = somewhere;
  if (draw(0, 3) == 0) call.weight = nullptr;
  if (draw(0, 3) == 0) call.bias = nullptr;
  if (draw(0, 9) == 0) spoil(call.x_strides[draw(0, 2)]);
  const int64_t work = fastvoc_cuda_weight_gradient_workspace_size(&layer, &gpu, &call);
  if (work < -1 || work >= int64_t{1} << 60) return false;
  if (work < 0) {
    ++refused;
    return is_error(fastvoc_cuda_weight_gradient_run(&layer, &gpu, kernels, somewhere, nullptr, &call));
  }
  if (fastvoc_cuda_weight_gradient_workspace_size(nullptr, &gpu, &call) != -1 ||
      fastvoc_cuda_weight_gradient_workspace_size(&layer, nullptr, &call) != -1 ||
      fastvoc_cuda_weight_gradient_workspace_size(&layer, &gpu, nullptr) != -1)
    return false;

  // What is taken has sizes that can be computed with.
  const bool up = layer.kind == FASTVOC_UPSAMPLE;
  const int64_t frames = up ? (call.frames - 1) * layer.stride + layer.taps - layer.left - layer.right
                            : call.frames + layer.left + layer.right - layer.dilation * (layer.taps - 1);
  const int64_t weights = layer.in_channels * layer.out_channels * layer.taps;
  if (call.batch * layer.in_channels > kHeld || call.batch * layer.in_channels * call.frames > kHeld ||
      call.batch * layer.out_channels > kHeld || call.batch * layer.out_channels * frames > kHeld || weights > kHeld ||
      layer.stride > 256)
    return true;
  Block x(call.batch * layer.in_channels * call.frames * 4), grad(call.batch * layer.out_channels * frames * 4);
  Block weight(weights * 4), bias(layer.out_channels * 4);
  call.x = x.data(), call.grad = grad.data();
  lay_out(call.x_strides, layer.in_channels, call.frames);
  lay_out(call.grad_strides, layer.out_channels, frames);
  if (call.weight) call.weight = weight.data();
  if (call.bias) call.bias = bias.data();
  const int64_t needed = fastvoc_cuda_weight_gradient_workspace_size(&layer, &gpu, &call);
  if (needed < 0 || needed > 64 * kHeld) return needed >= 0;
  Block workspace(needed);
  const auto run = [&](void* own_kernels, void* memory) {
    return fastvoc_cuda_weight_gradient_run(&layer, &gpu, own_kernels, memory, nullptr, &call);
  };
  if (!is_error(run(nullptr, workspace.data())) || !is_error(run(kernels, nullptr)) ||
      !is_error(run(kernels, static_cast<char*>(workspace.data()) + 16)) ||
      !is_error(fastvoc_cuda_weight_gradient_run(&layer, &gpu, kernels, workspace.data(), nullptr, nullptr)))
    return false;
  ++taken;
  if (const int code = run(kernels, workspace.data()))
    return std::printf("a call that is taken fails (%s: %s): ", fastvoc_error(code), fastvoc_cuda_message()), false;
  call.x = nullptr;
  return is_error(run(kernels, workspace.data()));
}

bool input_is_safe(void* kernels) {
  fastvoc_cuda_input_gradient call = {};
  call.precision = kPrecisions[draw(0, 2)];
  call.padding_mode = int(draw(0, 2));
  call.batch = draw(1, 3), call.channels = draw(1, 20), call.frames = draw(1, 20);
  if (call.padding_mode != FASTVOC_ZERO) call.left = draw(0, 3), call.right = draw(0, 3);
  call.slope = toss() ? 1.0f : 0.1f;
  for (int64_t count = draw(0, 2); count > 0; --count)
    spoil_one(call.precision, call.padding_mode, call.batch, call.channels, call.frames, call.left, call.right,
              call.slope);
  const auto fits = [](int64_t value, int64_t least) { return value >= least && value <= 4096; };
  if (!fits(call.batch, 1) || !fits(call.channels, 1) || !fits(call.frames, 1) || !fits(call.left, 0) ||
      !fits(call.right, 0) || call.batch * call.channels * call.frames > kHeld ||
      call.batch * call.channels * (call.left + call.right) > kHeld) {
    alignas(16) static char somewhere[16];
    call.padded = call.x = call.y = somewhere;
    call.x_strides[draw(0, 2)] = INT64_MAX;
    return is_error(fastvoc_cuda_input_gradient_run(kernels, nullptr, &call));
  }
  const int64_t rows = call.left + call.frames + call.right;
  Block padded(call.batch * call.channels * rows * 4), x(call.batch * call.channels * call.frames * 4),
      y(call.batch * call.channels * call.frames * 4);
  lay_out(call.padded_strides, call.channels, rows);
  lay_out(call.x_strides, call.channels, call.frames);
  lay_out(call.y_strides, call.channels, call.frames);
  call.padded = padded.data(), call.y = y.data();
  call.x = call.slope == 1 ? nullptr : x.data();
  const int code = fastvoc_cuda_input_gradient_run(kernels, nullptr, &call);
  if (code != FASTVOC_OK) return ++refused, is_error(code);
  ++taken;
  if (!is_error(fastvoc_cuda_input_gradient_run(nullptr, nullptr, &call)) ||
      !is_error(fastvoc_cuda_input_gradient_run(kernels, nullptr, nullptr)))
    return false;
  (toss() ? call.padded : call.x) = nullptr;
  return (call.padded && call.slope == 1) || is_error(fastvoc_cuda_input_gradient_run(kernels, nullptr, &call));
}

}  // namespace

int main(int argc, char** argv) {
  const int64_t count = argc > 1 ? std::atoll(argv[1]) : 400, only = argc > 2 ? std::atoll(argv[2]) : -1;
  static void* kernels;  // they stay
  const int image = 0;
  if (fastvoc_cuda_load(&image, &kernels) != FASTVOC_OK) return 1;
  for (int64_t number = 0; number < count; ++number) {
    if (only >= 0 && number != only) continue;
    generator().seed(uint32_t(number));
    if (!weight_is_safe(kernels)) return std::printf("weight %lld is not safe\n", (long long)number), 1;
    if (!input_is_safe(kernels)) return std::printf("input %lld is not safe\n", (long long)number), 1;
  }
  std::printf("%lld taken, %lld refused\n", (long long)taken, (long long)refused);
  // Calls that are all refused would prove nothing.
  return only < 0 && (50 * taken < refused || 50 * refused < taken);
}
