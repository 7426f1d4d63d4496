// Sizes that no caller should pass: calls and networks with some numbers replaced by negative, huge and unknown ones.
// They are refused, or the sizes of what they take are right.
//
// Built with -DFASTVOC_SANITIZE=ON, so that an overflow or an access beyond any array ends the program. An argument is
// how many to draw. Exits with 0 if all is well.

#include <cstdio>
#include <cstdlib>

#include "../networks.h"

namespace {

using namespace fastvoc_tests;

constexpr int64_t kHeld = 1 << 20;  // what is less is really run

int64_t hostile() {
  switch (draw(0, 5)) {
    case 0:
      return draw(-3, 3);
    case 1:
      return (int64_t{1} << draw(0, 62)) + draw(-1, 1);
    case 2:
      return draw(0, 1) ? INT64_MAX - draw(0, 2) : INT64_MIN + draw(0, 2);
    case 3:
      return -(int64_t{1} << draw(0, 62));
    case 4:
      return draw(1, 64);
    default:
      return draw(INT64_MIN, INT64_MAX);
  }
}

float hostile_float() {
  const float values[] = {0, -1, 1e38f, -1e38f, INFINITY, NAN, 1e-42f};
  return values[draw(0, 6)];
}

// Spoil one of the numbers of a struct.
void spoil(int& value) { value = int(hostile()); }
void spoil(int64_t& value) { value = hostile(); }
void spoil(float& value) { value = hostile_float(); }

template <class... Numbers>
void spoil_one(Numbers&... numbers) {
  int64_t at = draw(0, int64_t(sizeof...(Numbers)) - 1);
  ((at-- == 0 ? spoil(numbers) : void()), ...);
}

bool is_error(int code) { return code > FASTVOC_OK && code < FASTVOC_ERROR_COUNT; }

// Sizes of calls that are taken are no larger than what they are made of.
bool is_size(int64_t size) { return size >= 0 && size < int64_t{1} << 60; }

std::vector<float> filled(int64_t count) { return std::vector<float>(size_t(count), 0.5f); }

int64_t taken = 0, refused = 0;

// A call that is taken if nothing spoils it, as often as there are channels and frames enough.
fastvoc_call drawn(int kind) {
  const int64_t groups = kind == FASTVOC_STRIDED_CONV1D ? draw(1, 4) : 1;
  fastvoc_call call{};
  call.kind = kind;
  call.isa = int(draw(0, FASTVOC_ISA_COUNT - 1));
  call.threads = int(draw(1, 3));
  call.batch = draw(0, 2);
  call.in_channels = groups * draw(1, 16);
  call.out_channels = groups * draw(1, 16);
  call.in_frames = draw(0, 40);
  call.taps = draw(1, 9);
  call.dilation = kind == FASTVOC_CONV1D ? draw(1, 3) : 1;
  call.stride = kind == FASTVOC_CONV1D ? 1 : draw(1, 5);
  call.groups = groups;
  call.left = draw(0, 9);
  call.right = draw(0, 9);
  call.padding_mode = kind == FASTVOC_CONV1D ? int(draw(FASTVOC_ZERO, FASTVOC_REPLICATE)) : FASTVOC_ZERO;
  call.tanh = kind == FASTVOC_CONV1D && toss();
  call.slope = 0.1f;
  if (kind == FASTVOC_SMOOTH_SNAKE) {
    call.out_channels = call.groups = call.in_channels;
    call.taps = 2;
    call.stride = 1;
    call.left = call.right = 0;
  }
  return call;
}

// Frames of a result, or -1 if the numbers do not make any.
int64_t frames_of(const fastvoc_call& call) {
  if (call.kind == FASTVOC_SMOOTH_SNAKE) return call.in_frames;
  if (call.kind == FASTVOC_UPSAMPLE) return (call.in_frames - 1) * call.stride + call.taps - call.left - call.right;
  if (call.stride < 1) return -1;
  return (call.in_frames + call.left + call.right - call.dilation * (call.taps - 1) - 1) / call.stride + 1;
}

bool call_is_safe(int kind) {
  fastvoc_call call = drawn(kind);
  for (int64_t count = draw(1, 4); count > 0; --count)
    spoil_one(call.kind, call.isa, call.threads, call.padding_mode, call.tanh, call.batch, call.in_channels,
              call.in_frames, call.out_channels, call.taps, call.dilation, call.stride, call.groups, call.left,
              call.right, call.slope);
  if (const int code = fastvoc_call_check(&call)) return ++refused, is_error(code);
  ++taken;
  const int64_t packed = fastvoc_call_packed_size(&call), work = fastvoc_call_workspace_size(&call);
  const int64_t work_backward = fastvoc_call_backward_workspace_size(&call), frames = frames_of(call);
  if (call.groups < 1 || call.in_channels % call.groups || call.out_channels % call.groups || frames < 1) return false;
  const int64_t from = call.batch * call.in_channels * call.in_frames, to = call.batch * call.out_channels * frames;
  const int64_t weights = call.out_channels * (call.in_channels / call.groups) * call.taps;
  for (const int64_t size : {packed, work, work_backward, from, to, weights})
    if (!is_size(size)) return false;
  if (packed + work + work_backward + from + to + weights > kHeld || call.threads > 8) return true;
  auto x = filled(from), weight = filled(weights), y = filled(to), grad_x = filled(from), grad_weight = filled(weights);
  auto grad_bias = filled(call.out_channels), prepared = filled(packed), memory = filled(work),
       memory_backward = filled(work_backward);
  const int64_t x_strides[] = {call.in_channels * call.in_frames, call.in_frames, 1};
  const int64_t y_strides[] = {call.out_channels * frames, frames, 1};
  fastvoc_call_pack(&call, weight.data(), prepared.data());
  fastvoc_call_run(&call, x.data(), x_strides, packed ? prepared.data() : weight.data(), nullptr, nullptr, nullptr,
                   y.data(), y_strides, memory.data());
  fastvoc_call_backward(&call, y.data(), y_strides, x.data(), x_strides, weight.data(), y.data(), y_strides,
                        grad_x.data(), x_strides, grad_weight.data(), grad_bias.data(), memory_backward.data());
  return true;
}

bool network_is_safe() {
  Network net = Network::random(true);
  fastvoc_network network = net.described(int(draw(0, FASTVOC_ISA_COUNT - 1)), int(draw(0, FASTVOC_INT8)), toss());
  for (int64_t count = draw(1, 3); count > 0; --count) {
    fastvoc_layer& layer = net.layers[size_t(draw(0, int64_t(net.layers.size()) - 1))];
    if (draw(0, 15) == 0) layer.weight = nullptr;
    if (draw(0, 15) == 0) network.layers = nullptr;
    if (draw(0, 7) == 0) spoil_one(network.isa, network.precision, network.in_order);
    if (draw(0, 7) == 0) network.count = int(draw(-2, int64_t(net.layers.size())));
    spoil_one(layer.kind, layer.input, layer.residual, layer.partial, layer.padding_mode, layer.tanh, layer.in_channels,
              layer.out_channels, layer.taps, layer.dilation, layer.stride, layer.left, layer.right, layer.slope,
              layer.divisor, layer.slope_after, layer.input_scale, layer.input_zero_point, layer.gelu);
  }
  const int64_t size = fastvoc_plan_size(&network);
  if (size < 1 || size > kHeld) return false;
  void* plan = nullptr;
  if (posix_memalign(&plan, 64, size_t(size)) != 0) return false;
  const bool safe = [&] {
    if (const int code = fastvoc_plan_make(&network, plan)) return ++refused, is_error(code);
    ++taken;
    const int64_t packed = fastvoc_plan_packed_size(plan), state = fastvoc_plan_state_size(plan);
    const int threads[] = {1, 3, 4096, int(hostile())};
    for (const int count : threads) {
      const int64_t work = fastvoc_plan_workspace_size(plan, count);
      if (count < 1 || count > 4096 ? work != -1 : !is_size(work)) return false;
    }
    if (!is_size(packed) || !is_size(state)) return false;
    if (state > 64 * kHeld) return true;
    std::vector<char> memory(static_cast<size_t>(state) + 64);
    void* const aligned = memory.data() + (64 - reinterpret_cast<uintptr_t>(memory.data()) % 64) % 64;
    fastvoc_plan_begin(plan, aligned);
    const int64_t ready = fastvoc_plan_ready(plan, aligned, draw(0, 2000), 1);
    const int64_t none = fastvoc_plan_ready(plan, aligned, -draw(1, INT64_MAX), 1);
    const int64_t strides[] = {0, 1, 1};
    const int code = fastvoc_plan_run(plan, nullptr, aligned, nullptr, -int(draw(0, 5)), nullptr, strides, 1, 0,
                                      nullptr, strides);
    network.count = -1;
    return ready >= -1 && none == -1 && code == FASTVOC_BAD_SIZE &&
           fastvoc_plan_pack(&network, plan, 1, nullptr) == FASTVOC_BAD_NETWORK &&
           fastvoc_plan_pack(&network, plan, -int(draw(0, 5)), nullptr) == FASTVOC_BAD_SIZE;
  }();
  std::free(plan);
  return safe;
}

// Memory that ends where the sanitizer sees it: nothing beyond is read, and another value in the middle is noticed.
bool fingerprint_is_safe() {
  const int64_t sizes[] = {draw(0, 9), draw(1, 300), draw(64, 5000)};
  std::vector<std::vector<char>> pieces;
  const void* pointers[3];
  for (int i = 0; i < 3; ++i) {
    pieces.emplace_back(size_t(sizes[i]), char(draw(0, 100)));
    pieces.back().shrink_to_fit();
    pointers[i] = pieces.back().data();
  }
  const uint64_t before = fastvoc_fingerprint(3, pointers, sizes);
  for (char& byte : pieces[size_t(draw(1, 2))]) ++byte;
  return fastvoc_fingerprint(3, pointers, sizes) != before;
}

}  // namespace

int main(int argc, char** argv) {
  const int64_t count = argc > 1 ? std::atoll(argv[1]) : 20000;
  for (int64_t call = 0; call < count; ++call) {
    generator().seed(uint32_t(call));
    for (int kind = 0; kind < FASTVOC_OPERATOR_COUNT; ++kind)
      if (!call_is_safe(kind)) return std::printf("operator %d: call %lld is not safe\n", kind, (long long)call), 1;
    if (!fingerprint_is_safe()) return std::printf("fingerprint: call %lld is not safe\n", (long long)call), 1;
    if (call % 8 == 0 && !network_is_safe()) return std::printf("network %lld is not safe\n", (long long)call), 1;
  }
  std::printf("%lld taken, %lld refused\n", (long long)taken, (long long)refused);
  // Sizes that are all refused would prove nothing.
  return 50 * taken < refused || 50 * refused < taken;
}
