// smooth_snake, its gradient, and what begins convnext, by the surface of the library and kernels that the CPU runs,
// against their definitions in double precision. Tensors stand in memory of exactly their size, with any order and gaps;
// what lies in gaps and behind the end of an item holds no numbers, and must stay as it is. Between the calls are some
// that nobody should make: they are refused, or what they are told of sizes is right.
//
// Arguments: how many to draw, and the number of the only one to run. Exits with 0 if all is well.
#include "../emulator/cuda_on_cpu.h"

#include <algorithm>
#include <climits>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "../../fastvoc_cuda_convnext.h"
#include "../../fastvoc_cuda_smooth_snake.h"
#include "../draw.h"
#include "../snake.h"

namespace {

using namespace fastvoc_tests;
using fastvoc::cuda::on_cpu::from_float16;
using fastvoc::cuda::on_cpu::to_bfloat16;
using fastvoc::cuda::on_cpu::to_float16;

constexpr fastvoc_gpu kGpus[] = {{75, 40, 64 << 10, 64 << 10},
                                 {80, 2, 163 << 10, 164 << 10},
                                 {90, 132, 227 << 10, 228 << 10}};
const fastvoc_gpu* gpu;
void* kernels;
int precision;
int64_t taken = 0, refused = 0;

double normal() { return std::normal_distribution<double>()(generator()); }
int bytes_of() { return precision == FASTVOC_FLOAT32 ? 4 : 2; }

// The largest error of a stored value.
double unit(double value) {
  const double size = std::fabs(value);
  return precision == FASTVOC_FLOAT32 ? size * 0x1p-24
         : precision == FASTVOC_FLOAT16 ? std::max(size * 0x1p-11, 0x1p-25)
                                        : size * 0x1p-8;
}

// (items, channels, frames), of which all that is not an element holds no numbers, and each item so many frames.
struct Tensor {
  int64_t items, channels, frames, strides[3];
  std::vector<int> lengths;
  void* memory = nullptr;
  int64_t elements;

  Tensor(int64_t of_items, int64_t of_channels, int64_t of_frames, const std::vector<int>& of_lengths,
         bool dense = false)
      : items(of_items), channels(of_channels), frames(of_frames), lengths(of_lengths) {
    const bool last = dense || draw(0, 2) > 0;
    const int64_t gap = dense || toss() ? 0 : draw(1, 3), inner = (last ? channels : frames) + gap;
    strides[0] = inner * (last ? frames : channels) + (toss() && !dense ? draw(0, 3) : 0);
    strides[1] = last ? 1 : inner, strides[2] = last ? inner : 1;
    elements = (items - 1) * strides[0] + (channels - 1) * strides[1] + (frames - 1) * strides[2] + 1;
    if (posix_memalign(&memory, 16, size_t(elements * bytes_of())) != 0) std::abort();
    std::memset(memory, 0xff, size_t(elements * bytes_of()));
  }
  ~Tensor() { std::free(memory); }
  Tensor(const Tensor&) = delete;
  Tensor& operator=(const Tensor&) = delete;

  int64_t at(int64_t item, int64_t channel, int64_t frame) const {
    return item * strides[0] + channel * strides[1] + frame * strides[2];
  }
  void set(int64_t place, double value) {
    if (precision == FASTVOC_FLOAT32) {
      static_cast<float*>(memory)[place] = float(value);
    } else {
      static_cast<unsigned short*>(memory)[place] = static_cast<unsigned short>(
          precision == FASTVOC_FLOAT16 ? to_float16(float(value)) : to_bfloat16(float(value)));
    }
  }
  double get(int64_t place) const {
    if (precision == FASTVOC_FLOAT32) return static_cast<float*>(memory)[place];
    const unsigned bits = static_cast<unsigned short*>(memory)[place];
    return precision == FASTVOC_FLOAT16 ? from_float16(bits) : fastvoc::cuda::as_float(bits << 16);
  }
  void fill(double scale) {
    for (int64_t i = 0; i < items; ++i)
      for (int64_t c = 0; c < channels; ++c)
        for (int64_t t = 0; t < lengths[size_t(i)]; ++t) set(at(i, c, t), scale * normal());
  }
  std::vector<double> row(int64_t item, int64_t channel) const {
    std::vector<double> values;
    for (int64_t t = 0; t < lengths[size_t(item)]; ++t) values.push_back(get(at(item, channel, t)));
    return values;
  }
  // Whether all that is no element is as it was.
  bool is_whole() const {
    std::vector<char> element(size_t(elements), 0);
    for (int64_t i = 0; i < items; ++i)
      for (int64_t c = 0; c < channels; ++c)
        for (int64_t t = 0; t < lengths[size_t(i)]; ++t) element[size_t(at(i, c, t))] = 1;
    const auto* const all = static_cast<const unsigned char*>(memory);
    for (int64_t e = 0; e < elements * bytes_of(); ++e)
      if (!element[size_t(e / bytes_of())] && all[e] != 0xff) return false;
    return true;
  }
};

bool is_near(const char* what, double got, double expected, double size) {
  if (std::fabs(got - expected) <= unit(expected) + size * 4e-6) return true;
  std::printf("%s is %.9g instead of %.9g\n", what, got, expected);
  return false;
}

// ---- smooth_snake

// The gradients of one channel: of x, and what is summed for the parameters.
struct Gradients {
  std::vector<double> x;
  double frequency = 0, divisor = 0, size = 0;
};

Gradients gradients_of(const std::vector<double>& x, const std::vector<double>& grad, double a, double amount) {
  constexpr double kTaps[6] = {0.002028966449896242, 0.00938946394406788, -0.02554346406529466,
                               -0.05765737547536495, 0.1285726090813288, 0.4432098000653667};
  const auto tap = [&](int64_t j) { return kTaps[j < 6 ? j : 11 - j]; };
  const int64_t frames = int64_t(x.size());
  const auto clamped = [](int64_t at, int64_t count) { return size_t(at < 0 ? 0 : at < count ? at : count - 1); };
  std::vector<double> of_s(size_t(2 * frames));
  for (int64_t t = 0; t < frames; ++t)
    for (int64_t j = 0; j < 12; ++j) of_s[clamped(2 * t - 5 + j, 2 * frames)] += tap(j) * grad[size_t(t)];
  Gradients made;
  made.x.resize(x.size());
  for (int64_t n = 0; n < 2 * frames; ++n) {
    double u = 0;
    for (int64_t j = 0; j < 6; ++j) u += 2 * tap(2 * j + n % 2) * x[clamped(n / 2 - 3 + n % 2 + j, frames)];
    const double g = of_s[size_t(n)], twice = std::sin(2 * a * u), sine = std::sin(a * u);
    made.frequency += g * u * twice, made.divisor += g * sine * sine, made.size += std::fabs(g) * (1 + std::fabs(u));
    for (int64_t j = 0; j < 6; ++j)
      made.x[clamped(n / 2 - 3 + n % 2 + j, frames)] += 2 * tap(2 * j + n % 2) * g * (1 + a * amount * twice);
  }
  return made;
}

bool snake_is_right() {
  const bool gradient = toss(), logarithmic = toss(), ragged = !gradient && toss(), own = toss();
  const int64_t items = draw(1, 3), channels = draw(1, 70), frames = draw(1, toss() ? 12 : 150);
  std::vector<int> lengths(static_cast<size_t>(items), static_cast<int>(frames));
  for (int& length : lengths)
    if (ragged) length = int(draw(0, frames));
  Tensor x(items, channels, frames, lengths), grad(items, channels, frames, lengths);
  Tensor y(items, channels, frames, lengths);
  const std::vector<int> one{int(channels)};
  Tensor alpha(1, 1, channels, one, true), beta(1, 1, channels, one, true);
  x.fill(1.5), grad.fill(1);
  for (Tensor* parameter : {&alpha, &beta})
    for (int64_t c = 0; c < channels; ++c) parameter->set(c, logarithmic ? 0.5 * normal() : 0.5 + std::fabs(normal()));

  fastvoc_cuda_smooth_snake call = {};
  call.precision = precision, call.logarithmic = logarithmic;
  call.batch = items, call.channels = channels, call.frames = frames;
  call.lengths = ragged ? lengths.data() : nullptr;
  call.x = x.memory, call.alpha = alpha.memory, call.beta = own ? beta.memory : nullptr;
  call.grad = gradient ? grad.memory : nullptr;
  call.y = y.memory;
  std::copy(x.strides, x.strides + 3, call.x_strides);
  std::copy(grad.strides, grad.strides + 3, call.grad_strides);
  std::copy(y.strides, y.strides + 3, call.y_strides);
  const int64_t parts = fastvoc_cuda_smooth_snake_parts(gpu, &call);
  if (parts < 1) return false;
  std::vector<float> sums(size_t(2 * items * parts * channels), NAN);
  const bool wants_sums = gradient && toss();
  if (wants_sums) {
    call.sums = sums.data();
    if (toss()) call.y = nullptr;
  }
  if (const int code = fastvoc_cuda_smooth_snake_run(gpu, kernels, nullptr, &call))
    return std::printf("a call that is taken fails: %s\n", fastvoc_error(code)), false;
  ++taken;
  for (int64_t c = 0; c < channels; ++c) {
    const double first = alpha.get(c), second = own ? beta.get(c) : first;
    const double a = logarithmic ? std::exp(first) : first, b = logarithmic ? std::exp(second) : second;
    const double amount = 1 / (b + 1e-9);
    double frequency = 0, divisor = 0, size = 0, got_frequency = 0, got_divisor = 0;
    for (int64_t i = 0; i < items; ++i) {
      const std::vector<double> values = x.row(i, c), given = grad.row(i, c);
      if (values.empty()) continue;
      Gradients all;
      if (gradient) all = gradients_of(values, given, a, amount);
      const std::vector<double> expected = gradient ? all.x : smooth_snake_of(values, a, amount);
      for (size_t t = 0; call.y && t < expected.size(); ++t)
        if (!is_near("an element", y.get(y.at(i, c, int64_t(t))), expected[t], 4 * (1 + a) * (1 + amount)))
          return false;
      frequency += all.frequency, divisor += all.divisor, size += all.size;
      for (int64_t part = 0; part < parts; ++part) {
        got_frequency += double(sums[size_t((i * parts + part) * channels + c)]);
        got_divisor += double(sums[size_t(((items + i) * parts + part) * channels + c)]);
      }
    }
    // Sums are float32 whatever the elements are.
    if (wants_sums && !(std::fabs(got_frequency - frequency) <= size * 4e-6 * (1 + a) &&
                        std::fabs(got_divisor - divisor) <= size * 4e-6 * (1 + a)))
      return std::printf("sums are %.9g, %.9g instead of %.9g, %.9g\n", got_frequency, got_divisor, frequency, divisor),
             false;
  }
  return y.is_whole();
}

// ---- what begins convnext

bool norm_is_right() {
  const bool ragged = toss();
  const int64_t items = draw(1, 3), channels = draw(1, toss() ? 70 : 700), frames = draw(1, 40);
  const int64_t taps = 2 * draw(0, 4) + 1, left = ragged ? taps / 2 : draw(0, taps + 2);
  const int64_t right = ragged ? taps / 2 : std::max<int64_t>(taps - frames - left, draw(0, taps));
  const int64_t made = frames + left + right - taps + 1;
  std::vector<int> lengths(static_cast<size_t>(items), static_cast<int>(frames));
  std::vector<int> results(static_cast<size_t>(items), static_cast<int>(made));
  for (size_t i = 0; i < lengths.size() && ragged; ++i) lengths[i] = results[i] = int(draw(0, frames));
  Tensor x(items, channels, frames, lengths), y(items, channels, made, results, true);
  Tensor weight(1, channels, taps, {int(taps)}, true);
  Tensor bias(1, channels, 1, {1}, true), norm(1, channels, 1, {1}, true), norm_bias(1, channels, 1, {1}, true);
  x.fill(1);
  for (Tensor* parameter : {&weight, &bias, &norm, &norm_bias}) parameter->fill(1);
  fastvoc_cuda_normalise call = {};
  call.precision = precision;
  call.batch = items, call.channels = channels, call.frames = frames, call.taps = taps;
  call.left = left, call.right = right, call.eps = 1e-6f;
  call.lengths = ragged ? lengths.data() : nullptr;
  call.x = x.memory, call.weight = weight.memory, call.bias = bias.memory;
  call.norm = norm.memory, call.norm_bias = norm_bias.memory, call.y = y.memory;
  std::copy(x.strides, x.strides + 3, call.x_strides);
  if (fastvoc_cuda_normalise_clocks(gpu, &call) <= 0) return false;
  if (const int code = fastvoc_cuda_normalise_run(gpu, kernels, nullptr, &call))
    return std::printf("a call that is taken fails: %s\n", fastvoc_error(code)), false;
  ++taken;
  std::vector<double> z(size_t(channels), 0.0);
  for (int64_t i = 0; i < items; ++i)
    for (int64_t t = 0; t < results[size_t(i)]; ++t) {
      double mean = 0, variance = 0;
      for (int64_t c = 0; c < channels; ++c) {
        double& sum = z[size_t(c)] = bias.get(c);
        for (int64_t k = 0; k < taps; ++k) {
          const int64_t from = t + k - left;
          if (from >= 0 && from < lengths[size_t(i)]) sum += weight.get(weight.at(0, c, k)) * x.get(x.at(i, c, from));
        }
        mean += sum / double(channels);
      }
      for (const double value : z) variance += (value - mean) * (value - mean) / double(channels);
      const double factor = 1 / std::sqrt(variance + 1e-6);
      for (int64_t c = 0; c < channels; ++c) {
        const double expected = (z[size_t(c)] - mean) * factor * norm.get(c) + norm_bias.get(c);
        if (!is_near("a norm", y.get(y.at(i, c, t)), expected, (1 + std::fabs(mean)) * (4 + factor) * 4)) return false;
      }
    }
  return y.is_whole();
}

// ---- what nobody should ask for

int64_t hostile() {
  switch (draw(0, 3)) {
    case 0:
      return draw(-3, 3);
    case 1:
      return (int64_t{1} << draw(0, 62)) + draw(-1, 1);
    case 2:
      return toss() ? INT64_MAX - draw(0, 2) : INT64_MIN + draw(0, 2);
    default:
      return draw(1, 64);
  }
}

bool is_error(int code) { return code > FASTVOC_OK && code < FASTVOC_ERROR_COUNT; }

bool hostile_is_safe() {
  alignas(16) static char somewhere[16];
  fastvoc_gpu odd = *gpu;
  if (draw(0, 5) == 0) (toss() ? odd.multiprocessors : odd.shared_per_block) = int(hostile());
  fastvoc_cuda_smooth_snake snake = {};
  snake.precision = toss() ? precision : int(hostile());
  snake.batch = draw(1, 3), snake.channels = draw(1, 20), snake.frames = draw(1, 20);
  fastvoc_cuda_normalise norm = {};
  norm.precision = snake.precision;
  norm.batch = snake.batch, norm.channels = snake.channels, norm.frames = snake.frames, norm.taps = draw(1, 5);
  norm.left = norm.right = norm.taps;
  for (int64_t* number : {&snake.batch, &snake.channels, &snake.frames, &snake.x_strides[draw(0, 2)], &norm.batch,
                          &norm.channels, &norm.frames, &norm.taps, &norm.left, &norm.right,
                          &norm.x_strides[draw(0, 2)]})
    if (draw(0, 5) == 0) *number = hostile();
  snake.x = snake.alpha = snake.y = somewhere;
  norm.x = norm.weight = norm.bias = norm.norm = norm.norm_bias = norm.y = somewhere;
  const int64_t parts = fastvoc_cuda_smooth_snake_parts(&odd, &snake);
  const double clocks = fastvoc_cuda_smooth_snake_clocks(&odd, &snake);
  if (parts < 0 ? !is_error(fastvoc_cuda_smooth_snake_run(&odd, kernels, nullptr, &snake)) || clocks != -1
                : parts < 1 || parts > snake.frames || !(clocks > 0))
    return false;
  const double of_norm = fastvoc_cuda_normalise_clocks(&odd, &norm);
  if (of_norm < 0 ? !is_error(fastvoc_cuda_normalise_run(&odd, kernels, nullptr, &norm)) : !(of_norm > 0)) return false;
  refused += (parts < 0) + (of_norm < 0);
  // What is null, or not where elements are, is refused.
  snake.y = nullptr, norm.y = somewhere + 1;
  return is_error(fastvoc_cuda_smooth_snake_run(gpu, kernels, nullptr, &snake)) &&
         is_error(fastvoc_cuda_normalise_run(gpu, kernels, nullptr, &norm)) &&
         is_error(fastvoc_cuda_smooth_snake_run(gpu, nullptr, nullptr, &snake)) &&
         is_error(fastvoc_cuda_normalise_run(nullptr, kernels, nullptr, &norm)) &&
         fastvoc_cuda_smooth_snake_parts(nullptr, &snake) == -1;
}

}  // namespace

int main(int argc, char** argv) {
  const int64_t count = argc > 1 ? std::atoll(argv[1]) : 100, only = argc > 2 ? std::atoll(argv[2]) : -1;
  const int image = 0;
  if (fastvoc_cuda_load(&image, &kernels) != FASTVOC_OK) return 1;
  constexpr int kPrecisions[] = {FASTVOC_FLOAT32, FASTVOC_FLOAT16, FASTVOC_BFLOAT16};
  for (int64_t number = 0; number < count; ++number) {
    if (only >= 0 && number != only) continue;
    generator().seed(uint32_t(number));
    gpu = &kGpus[draw(0, 2)];
    precision = kPrecisions[draw(0, gpu->architecture < 80 ? 1 : 2)];
    if (!snake_is_right()) return std::printf("snake %lld is wrong\n", (long long)number), 1;
    if (precision == FASTVOC_FLOAT32) precision = FASTVOC_FLOAT16;
    if (!norm_is_right()) return std::printf("norm %lld is wrong\n", (long long)number), 1;
    for (int i = 0; i < 20; ++i)
      if (!hostile_is_safe()) return std::printf("call %lld is not safe\n", (long long)number), 1;
  }
  std::printf("%lld taken, %lld refused\n", (long long)taken, (long long)refused);
  return only < 0 && (refused < count || taken < 2 * count);
}
