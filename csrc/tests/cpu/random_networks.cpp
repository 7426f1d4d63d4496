// Random networks through plans against plain loops, in memory of exactly the promised size that holds no numbers
// before it is used; in fewer bits than float32 layer by layer. Streams are cut anywhere and run with any number of
// threads, and must give the same bits.
//
// Built with -DFASTVOC_SANITIZE=ON, so that an access beyond any block, or undefined behaviour, ends the program. The
// arguments are how many networks to draw, and the number of the first. Exits with 0 if every result is right.

#include <cstdio>
#include <cstdlib>
#include <new>

#include "../networks.h"

namespace {

using namespace fastvoc_tests;

// Memory as a caller of plans has it. Bytes of 0xff are not numbers, in either precision.
class Block {
 public:
  explicit Block(int64_t size) : size_(size) {
    if (size < 0 || posix_memalign(&memory_, 64, size_t(size)) != 0) throw std::bad_alloc();
    forget();
  }
  ~Block() { std::free(memory_); }
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;

  void forget() { std::memset(memory_, 0xff, size_t(size_)); }
  operator void*() { return memory_; }

 private:
  void* memory_ = nullptr;
  int64_t size_;
};

// A (channels, frames) matrix in memory, in either order and with gaps.
struct Signal {
  int64_t channels, frames, gap = draw(0, 2) ? 0 : draw(1, 9), step = draw(0, 7) ? 1 : 2;
  bool last = toss();
  int64_t strides[3] = {0, last ? step : frames * step + gap, last ? channels * step + gap : step};
  std::vector<float> data = std::vector<float>(size(), NAN);

  size_t size() const {
    return channels * frames == 0 ? 0 : size_t((channels - 1) * strides[1] + (frames - 1) * strides[2] + 1);
  }
  float& at(int64_t c, int64_t t) { return data[c * strides[1] + t * strides[2]]; }
  // What lies between the elements is not touched.
  bool untouched() const {
    std::vector<bool> own(data.size());
    for (int64_t c = 0; c < channels; ++c)
      for (int64_t t = 0; t < frames; ++t) own[c * strides[1] + t * strides[2]] = true;
    for (size_t i = 0; i < data.size(); ++i)
      if (!own[i] && !std::isnan(data[i])) return false;
    return true;
  }
};

// One stream, cut at random into at most so many pieces: rows of the result. Empty, and `error` set, if it fails.
std::vector<float> stream(void* plan, void* packed, const Rows& input, int64_t channels, int threads, int64_t pieces,
                          const char** error) {
  Block state(fastvoc_plan_state_size(plan)), workspace(fastvoc_plan_workspace_size(plan, threads));
  fastvoc_plan_begin(plan, state);
  std::vector<float> rows;
  const int64_t frames = input.frames();
  for (int64_t from = 0, piece = 1;; ++piece) {
    const int64_t longest = toss() ? 3 : frames / 2 + 1;
    const int64_t left = frames - from, drawn = draw(0, longest);
    const bool last = piece == pieces || (drawn >= left && toss());
    const int64_t count = last || drawn > left ? left : drawn;
    Signal x{input.channels, count};
    for (int64_t c = 0; c < input.channels; ++c)
      for (int64_t t = 0; t < count; ++t) x.at(c, t) = float(input.row(from + t)[c]);
    const int64_t ready = fastvoc_plan_ready(plan, state, count, last);
    Signal y{channels, ready < 0 ? 0 : ready};
    workspace.forget();
    const int code = fastvoc_plan_run(plan, packed, state, workspace, threads, x.data.data(), x.strides, count, last,
                                      y.data.data(), y.strides);
    if ((code != FASTVOC_OK) != (ready < 0)) return *error = "ready does not know that run fails", rows;
    if (code != FASTVOC_OK) return *error = "refused", rows;
    if (!y.untouched()) return *error = "more than the result is written", rows;
    for (int64_t t = 0; t < ready; ++t)
      for (int64_t c = 0; c < channels; ++c) rows.push_back(y.at(c, t));
    from += count;
    if (last) return rows;
  }
}

int64_t plans = 0, refused = 0, toom_cook_layers = 0;

// What is wrong with one plan for a network, or null. The exact result becomes the plan's.
const char* wrong_plan(const fastvoc_network& network, bool padded, bool cut, const Rows& input, Rows& result) {
  Block plan(fastvoc_plan_size(&network));
  ++plans;
  if (const int code = fastvoc_plan_make(&network, plan)) {
    ++refused;
    return code == FASTVOC_BAD_NETWORK || code == FASTVOC_BAD_PADDING ? nullptr : "no plan";
  }
  toom_cook_layers += fastvoc_plan_toom_cook_layers(plan);
  Block packed(fastvoc_plan_packed_size(plan));
  if (fastvoc_plan_pack(&network, plan, 1 + plans % 3, packed)) return "weights are not packed";
  const int64_t channels = result.channels;
  const char* error = nullptr;
  const std::vector<float> whole = stream(plan, packed, input, channels, 1, 1, &error);
  if (!padded) return error ? nullptr : "a signal too short to be padded is not refused";
  if (error) return error;
  if (whole.size() != result.values.size()) return "another length";
  double largest = 1;
  for (const double value : result.values) largest = std::fmax(largest, std::fabs(value));
  // Of the sums of all layers, or of those of one.
  const double tolerance = network.precision == FASTVOC_FLOAT32 ? 1e-4 : 1e-5;
  for (size_t i = 0; i < whole.size(); ++i)
    if (!(std::fabs(whole[i] - result.values[i]) <= tolerance * largest)) {
      std::printf("row %zu of %lld, channel %zu: %g instead of %g\n", i / size_t(channels),
                  (long long)result.frames(), i % size_t(channels), whole[i], result.values[i]);
      return "a wrong result";
    }
  result.values.assign(whole.begin(), whole.end());
  for (int again = 0; cut && again < 2; ++again) {
    const int threads = int(draw(1, 3));
    const int64_t pieces = again == 0 ? 1000000 : draw(1, 5);
    const std::vector<float> joined = stream(plan, packed, input, channels, threads, pieces, &error);
    if (error) return error;
    if (joined.size() != whole.size()) return "another length in pieces";
    if (!joined.empty() && std::memcmp(joined.data(), whole.data(), joined.size() * sizeof(float)) != 0)
      return threads > 1 ? "other bits in pieces and threads" : "other bits in pieces";
  }
  return nullptr;
}

// What is wrong with plans for a network, or null. `results` are exact ones of its layers, as far as they are known.
//
// In fewer bits than float32 has, the last bit of a sum decides which way the next layer's operand is rounded: there a
// step of 8 bits is 0.03, and what comes of it is more from layer to layer, so that no tolerance of the last result is
// both small and right. So each layer is held against plain loops over what plans make of the layers before it: then
// all operands are the same, and only sums differ.
const char* wrong(const fastvoc_network& network, const Network& net, bool padded, const Rows& input,
                  std::vector<Rows>& results) {
  const int last = network.count - 1;
  for (int i = 0; padded && i <= last; ++i) {
    if (int(results.size()) == i) results.push_back(net.result(i, input, results));
    if (i == last || network.precision == FASTVOC_FLOAT32) continue;
    const std::vector<fastvoc_layer> layers = net.up_to(i);
    fastvoc_network part = network;
    part.count = int(layers.size());
    part.layers = layers.data();
    if (const char* what = wrong_plan(part, true, false, input, results[i])) return std::printf("layer %d, ", i), what;
  }
  Rows result = padded ? results[last] : Rows{net.layers[last].out_channels, {}};
  return wrong_plan(network, padded, true, input, result);
}

// The network at hand, to print when something is wrong with it, or when a sanitizer ends the program.
struct Case {
  Network net;
  int64_t number, frames;
  int isa, precision;
  bool in_order;
} current;

void print_case() {
  std::printf("network %lld, %s, precision %d, in order %d, %lld frames\n", (long long)current.number,
              fastvoc_isa_name(current.isa), current.precision, current.in_order, (long long)current.frames);
  for (size_t i = 0; i < current.net.layers.size(); ++i) {
    const fastvoc_layer& l = current.net.layers[i];
    std::printf("  %2zu %s of %d + %d + %d: mode %d tanh %d, %lld -> %lld, taps %lld dilation %lld stride %lld "
                "padding %lld %lld, slope %g divisor %g after %g bias %d\n",
                i, l.kind == FASTVOC_UPSAMPLE ? "up  " : "conv", l.input, l.residual, l.partial, l.padding_mode, l.tanh,
                (long long)l.in_channels, (long long)l.out_channels, (long long)l.taps, (long long)l.dilation,
                (long long)l.stride, (long long)l.left, (long long)l.right, l.slope, l.divisor, l.slope_after,
                l.bias != nullptr);
  }
  std::fflush(stdout);
}

bool is_right(int64_t number) {
  generator().seed(uint32_t(number));
  current.net = Network::random(true);
  current.number = number;
  Network& net = current.net;
  constexpr int64_t kWork = 6000000;
  const int64_t longest = kWork / (net.work(100) / 100 + 1) + 1;
  const int64_t frames = draw(0, 9) ? draw(1, longest < 1500 ? longest : 1500) : draw(0, 12);
  std::normal_distribution<float> normal;
  Rows input{net.in_channels, std::vector<double>(frames * net.in_channels)};
  for (double& value : input.values) value = normal(generator());
  current.frames = frames;
  const bool padded = net.can_pad(frames);
  for (int precision = FASTVOC_FLOAT32; precision <= FASTVOC_INT8; ++precision) {
    std::vector<Rows> results;
    for (int isa = 0; isa < FASTVOC_ISA_COUNT; ++isa) {
      if (!fastvoc_isa_usable(isa)) continue;
      const bool in_order = draw(0, 3) == 0;
      const fastvoc_network network = net.described(isa, precision, in_order);
      Block plan(fastvoc_plan_size(&network));
      if (fastvoc_plan_make(&network, plan) == FASTVOC_BAD_PRECISION) continue;
      if (precision != FASTVOC_FLOAT32) results.clear();
      current.isa = isa, current.precision = precision, current.in_order = in_order;
      if (const char* what = wrong(network, net, padded, input, results)) {
        std::printf("%s: ", what);
        print_case();
        return false;
      }
    }
  }
  return true;
}

}  // namespace

extern "C" void __sanitizer_set_death_callback(void (*callback)()) __attribute__((weak));

int main(int argc, char** argv) {
  if (__sanitizer_set_death_callback) __sanitizer_set_death_callback(print_case);
  const int64_t count = argc > 1 ? std::atoll(argv[1]) : 200, first = argc > 2 ? std::atoll(argv[2]) : 0;
  int64_t failures = 0;
  for (int64_t number = first; number < first + count; ++number) failures += !is_right(number);
  std::printf("%lld plans, %lld refused, %lld layers by Toom-Cook\n", (long long)plans, (long long)refused,
              (long long)toom_cook_layers);
  // A generator of networks that no plan runs would prove nothing.
  return failures > 0 || 8 * refused > plans || (count > 50 && toom_cook_layers == 0);
}
