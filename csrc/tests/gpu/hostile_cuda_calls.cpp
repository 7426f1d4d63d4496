// What no caller should pass to plans for GPUs: networks, GPUs and calls with some numbers replaced by negative, huge
// and unknown ones, and null pointers. They are refused, or the sizes of what they take are right and runs do no harm.
//
// Kernels are run by the CPU (driver_on_cpu.cpp), built with -DFASTVOC_SANITIZE=ON, so that an access beyond any array,
// an overflow, or a launch that no GPU takes ends the program. An argument is how many to draw. Exits with 0 if all is
// well.

#include <climits>
#include <cstdio>
#include <cstdlib>

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
bool is_size(int64_t size) { return size >= -1 && size < int64_t{1} << 60; }

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

int64_t taken = 0, refused = 0, run = 0, run_refused = 0, current = 0;

void print_number() {
  std::printf("network %lld\n", (long long)current);
  std::fflush(stdout);
}

// A call that is right, and the same one spoiled. Strides may lead anywhere, so that those are not spoiled of what
// runs.
bool calls_are_safe(const fastvoc_network& network, void* plan, void* kernels, void* packed, bool other) {
  const fastvoc_layer& last = network.layers[network.count - 1];
  const int64_t in = network.layers[0].in_channels, out = last.out_channels;
  const int64_t batch = draw(0, 2), frames = draw(0, 30), rows = fastvoc_cuda_plan_out_frames(plan, frames);
  const int64_t work = fastvoc_cuda_plan_workspace_size(plan, batch, frames);
  if ((rows >= 0) != (work >= 0) && batch > 0) return std::printf("sizes do not agree: "), false;
  if (rows < 0 || work > kHeld || rows * out > kHeld) return true;
  Block x(batch * frames * in * 4), y(batch * rows * out * 4), second(batch * rows * out * 4), workspace(work);
  fastvoc_cuda_call call = {};
  call.batch = batch;
  call.frames = frames;
  call.x = x.data();
  call.y = y.data();
  call.x_type = call.other_type = call.y_type = FASTVOC_FLOATS;
  const int64_t x_strides[] = {in * frames, frames, 1}, other_strides[] = {out * rows, rows, 1};
  std::memcpy(call.x_strides, x_strides, sizeof x_strides);
  std::memcpy(call.other_strides, other_strides, sizeof other_strides);
  if (other) call.other = second.data();
  call.y_item = rows * out;
  call.y_row = out;
  if (const int code = fastvoc_cuda_plan_run(plan, kernels, packed, workspace.data(), nullptr, &call)) {
    std::printf("a sound call is refused (%s: %s): ", fastvoc_error(code), fastvoc_cuda_message());
    return false;
  }
  ++run;
  const void* nothing = nullptr;
  fastvoc_cuda_call spoiled = call;
  void *own_kernels = kernels, *own_workspace = workspace.data();
  const void *own_packed = packed, *own_plan = plan;
  bool must_fail = true;
  switch (draw(0, 9)) {
    case 0:
      spoiled.x = nothing;
      break;
    case 1:
      spoiled.y = nullptr;
      break;
    case 2:
      own_kernels = nullptr;
      break;
    case 3:
      own_packed = nothing;
      break;
    case 4:
      spoiled.other = other ? nothing : x.data();
      break;
    case 5:
      own_plan = nothing;
      break;
    case 6:
      if (work > 0) own_workspace = nullptr;
      must_fail = work > 0;
      break;
    case 7:
      spoil_one(spoiled.x_type, spoiled.y_type, spoiled.other_type);
      must_fail = false;
      // Elements are no wider than floats, so that memory suffices for all that is taken.
      break;
    case 8:
      spoiled.y_row = draw(0, 1) ? out - draw(1, 5) : INT_MAX + draw(1, 9);
      break;
    default:
      spoil_one(spoiled.batch, spoiled.frames);
      // What is not refused must be no more than there is memory for.
      if (spoiled.batch >= 0 && spoiled.batch <= batch && spoiled.frames >= 0 && spoiled.frames <= frames) return true;
      if (fastvoc_cuda_plan_workspace_size(plan, spoiled.batch, spoiled.frames) != -1) return true;
      break;
  }
  if (batch == 0 || frames == 0) return true;
  const int code = fastvoc_cuda_plan_run(own_plan, own_kernels, own_packed, own_workspace, nullptr, &spoiled);
  run_refused += code != FASTVOC_OK;
  if (must_fail && !is_error(code)) return std::printf("a call that cannot be is taken: "), false;
  return code == FASTVOC_OK || is_error(code);
}

bool network_is_safe(void* kernels) {
  Network net = Network::random();
  fastvoc_network network = net.described(0, FASTVOC_FLOAT32, false);
  constexpr int kPrecisions[] = {FASTVOC_FLOAT16, FASTVOC_BFLOAT16, FASTVOC_TFLOAT32};
  network.precision = kPrecisions[draw(0, 2)];
  constexpr fastvoc_gpu kGpus[] = {{75, 40, 64 << 10, 64 << 10},
                                   {80, 108, 163 << 10, 164 << 10},
                                   {89, 128, 99 << 10, 100 << 10},
                                   {90, 132, 227 << 10, 228 << 10},
                                   {90, 132, 227 << 10, 228 << 10, FASTVOC_HOPPER_CHAINS | FASTVOC_HOPPER_IN_TURN}};
  fastvoc_gpu gpu = kGpus[draw(0, 4)];
  bool other = false;
  if (draw(0, 3) == 0 && net.layers.back().kind == FASTVOC_CONV1D && net.layers.back().residual == FASTVOC_NONE) {
    net.layers.back().residual = FASTVOC_OTHER_INPUT;
    other = true;
  }
  for (int64_t count = draw(0, 3); count > 0; --count) {
    fastvoc_layer& layer = net.layers[size_t(draw(0, int64_t(net.layers.size()) - 1))];
    if (draw(0, 15) == 0) layer.weight = nullptr;
    if (draw(0, 15) == 0) network.layers = nullptr;
    if (draw(0, 7) == 0) spoil_one(network.isa, network.precision, network.in_order);
    if (draw(0, 7) == 0) network.count = int(draw(-2, int64_t(net.layers.size())));
    if (draw(0, 5) == 0)
      spoil_one(gpu.architecture, gpu.multiprocessors, gpu.shared_per_block, gpu.shared_per_multiprocessor);
    spoil_one(layer.kind, layer.input, layer.residual, layer.partial, layer.padding_mode, layer.tanh, layer.in_channels,
              layer.out_channels, layer.taps, layer.dilation, layer.stride, layer.left, layer.right, layer.slope,
              layer.divisor, layer.slope_after, layer.input_scale, layer.input_zero_point, layer.gelu);
  }
  const int64_t size = fastvoc_cuda_plan_size(&network);
  if (size < 1 || size > 4 * kHeld) return false;
  Block memory(size);
  void* const plan = memory.data();
  if (fastvoc_cuda_plan_make(nullptr, &gpu, plan) == FASTVOC_OK ||
      fastvoc_cuda_plan_make(&network, nullptr, plan) == FASTVOC_OK)
    return false;
  if (const int code = fastvoc_cuda_plan_make(&network, &gpu, plan)) return ++refused, is_error(code);
  ++taken;
  other = false;
  bool inside = false;  // a second input that is not as long as the result
  for (int i = 0; i < network.count; ++i) {
    const fastvoc_layer& layer = network.layers[i];
    if (layer.residual != FASTVOC_OTHER_INPUT && layer.partial != FASTVOC_OTHER_INPUT) continue;
    other = true;
    inside = inside || i + 1 < network.count;
  }
  const int64_t packed_size = fastvoc_cuda_plan_packed_size(plan);
  if (!is_size(packed_size) || packed_size < 1) return false;
  for (int i = 0; i < 4; ++i) {
    const int64_t batch = toss() ? hostile() : draw(1, 3), frames = toss() ? hostile() : draw(1, 3000);
    const int64_t work = fastvoc_cuda_plan_workspace_size(plan, batch, frames);
    const int launches = fastvoc_cuda_plan_launches(plan, batch, frames);
    if (!is_size(work) || (work < 0) != (launches < 0)) return false;
    for (const int launch : {-1, 0, launches - 1, launches, int(hostile())}) {
      const char* const name = fastvoc_cuda_plan_kernel(plan, batch, frames, launch);
      const double clocks = fastvoc_cuda_plan_clocks(plan, batch, frames, launch);
      if ((name != nullptr) != (launch >= 0 && launch < launches) || (name != nullptr) != (clocks > 0)) return false;
    }
    const int64_t rows = fastvoc_cuda_plan_out_frames(plan, frames);
    if (rows < -1 || rows > INT_MAX) return false;
  }
  if (packed_size > 8 * kHeld) return true;
  Block packed(packed_size);
  // Weights are as long as the network said before it was spoiled.
  bool same = true;
  for (int i = 0; i < network.count; ++i) {
    const fastvoc_layer& layer = network.layers[i];
    same = same && int64_t(net.weights[size_t(i)].size()) == layer.in_channels * layer.out_channels * layer.taps &&
           (!layer.bias || int64_t(net.biases[size_t(i)].size()) == layer.out_channels);
  }
  if (!same) return true;
  fastvoc_network spoiled = network;
  spoiled.count = -1;
  if (fastvoc_cuda_plan_pack(&spoiled, plan, kernels, 0, packed.data(), nullptr) != FASTVOC_BAD_NETWORK ||
      !is_error(fastvoc_cuda_plan_pack(&network, plan, nullptr, 0, packed.data(), nullptr)) ||
      !is_error(fastvoc_cuda_plan_pack(&network, plan, kernels, 0, nullptr, nullptr)) ||
      !is_error(fastvoc_cuda_plan_pack(nullptr, plan, kernels, 0, packed.data(), nullptr)))
    return false;
  if (fastvoc_cuda_plan_pack(&network, plan, kernels, 0, packed.data(), nullptr)) return false;
  return inside || calls_are_safe(network, plan, kernels, packed.data(), other);
}

}  // namespace

extern "C" void __sanitizer_set_death_callback(void (*callback)()) __attribute__((weak));

int main(int argc, char** argv) {
  if (__sanitizer_set_death_callback) __sanitizer_set_death_callback(print_number);
  const int64_t count = argc > 1 ? std::atoll(argv[1]) : 400, only = argc > 2 ? std::atoll(argv[2]) : -1;
  static void* kernels;  // they stay
  const int image = 0;
  if (fastvoc_cuda_load(nullptr, &kernels) == FASTVOC_OK || fastvoc_cuda_load(&image, nullptr) == FASTVOC_OK ||
      fastvoc_cuda_load(&image, &kernels) != FASTVOC_OK)
    return 1;
  for (int64_t number = 0; number < count; ++number) {
    if (only >= 0 && number != only) continue;
    current = number;
    generator().seed(uint32_t(number));
    if (!network_is_safe(kernels)) return std::printf("network %lld is not safe\n", (long long)number), 1;
  }
  std::printf("%lld taken, %lld refused, %lld run, %lld runs refused\n", (long long)taken, (long long)refused,
              (long long)run, (long long)run_refused);
  // Networks that are all refused would prove nothing.
  return only < 0 && (50 * taken < refused || 50 * refused < taken || run == 0);
}
