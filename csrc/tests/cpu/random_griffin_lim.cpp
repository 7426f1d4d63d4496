// Random calls of griffin_lim against plain loops and transforms by their definition, in memory of exactly the promised
// size. Streams that are cut anywhere, with one to three threads, must give the same bits; what is out of range is
// refused.
//
// Built with -DFASTVOC_SANITIZE=ON, so that an access beyond any array, or undefined behaviour, ends the program.
// An argument is how many to draw. Exits with 0 if every result is right.

#include "../../fastvoc_griffin_lim.h"

#include <complex>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "calls.h"

namespace {

using namespace fastvoc_tests;

using Call = fastvoc_griffin_lim;
using Spectrum = std::vector<std::complex<double>>;

constexpr int64_t kSizes[][2] = {{2, 2}, {4, 4}, {4, 2}, {8, 2}, {10, 2}, {12, 4}, {16, 4}, {18, 6}, {24, 4}, {30, 10},
                                 {32, 8}, {32, 32}, {40, 8}, {48, 6}, {50, 10}, {64, 16}, {64, 2}, {128, 32}};

Call griffin_lim_call() {
  Call call{};
  do call.isa = int(draw(0, FASTVOC_ISA_COUNT - 1));
  while (!fastvoc_isa_usable(call.isa));
  const auto& [size, hop] = kSizes[draw(0, std::size(kSizes) - 1)];
  call.size = size;
  call.hop = hop;
  call.bands = draw(1, 6);
  call.before = draw(0, 2);
  call.after = draw(0, 2);
  call.iterations = draw(0, 3);
  call.revisions = draw(0, 3);
  call.momentum = toss() ? 0 : 0.4975f;
  call.floor = 1e-5f;
  return call;
}

// Memory of so many bytes, aligned to 64, that holds no numbers.
struct Memory {
  void* data;
  explicit Memory(int64_t bytes) : data(std::aligned_alloc(64, (bytes + 63) / 64 * 64)) {
    std::memset(data, 0xff, bytes);
  }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  ~Memory() { std::free(data); }
};

int64_t bins_of(const Call& call) { return call.size / 2 + 1; }

// The definition, of x with a row for each bin and then each band.
struct Exact {
  const Call& call;
  const std::vector<float>& filters;
  const std::vector<float>& x;
  int64_t frames, bins = bins_of(call), length = (frames - 1) * call.hop + call.size;
  std::vector<double> window = std::vector<double>(call.size);
  double amplified = 0;  // how much a round makes at most of an error of what it has rebuilt

  double target(int64_t band, int64_t t) const {
    return std::fmin(std::exp(double(x[(bins + band) * frames + t])), double(call.size) / 2);
  }

  void towards(std::vector<double>& magnitude, int64_t t) const {
    std::vector<double> ratio(call.bands);
    for (int64_t b = 0; b < call.bands; ++b) {
      double sum = 0;
      for (int64_t k = 0; k < bins; ++k) sum += filters[b * bins + k] * magnitude[k];
      ratio[b] = target(b, t) / std::fmax(sum, call.floor);
    }
    for (int64_t k = 0; k < bins; ++k) {
      double reach = 0, sum = 0;
      for (int64_t b = 0; b < call.bands; ++b) {
        reach += filters[b * bins + k];
        sum += filters[b * bins + k] * ratio[b];
      }
      if (reach > 0) magnitude[k] *= sum / reach;
    }
  }

  std::vector<double> wave(const std::vector<Spectrum>& spectra) const {
    std::vector<double> sums(length), squares(length);
    double greatest = 0;
    for (int64_t t = 0; t < frames; ++t)
      for (int64_t n = 0; n < call.size; ++n) {
        double value = 0;
        for (int64_t k = 0; k < bins; ++k) {
          const double weight = k == 0 || 2 * k == call.size ? 1 : 2;
          value += weight * (spectra[t][k] * std::polar(1.0, 2 * M_PI * double(k * n % call.size) / call.size)).real();
        }
        sums[t * call.hop + n] += window[n] * value / double(call.size);
        squares[t * call.hop + n] += window[n] * window[n];
      }
    for (const double square : squares) greatest = std::fmax(greatest, square);
    for (int64_t n = 0; n < length; ++n) sums[n] /= std::fmax(squares[n], 0.01 * greatest);
    return sums;
  }

  std::vector<double> run() {
    for (int64_t n = 0; n < call.size; ++n) window[n] = 0.5 - 0.5 * std::cos(2 * M_PI * double(n) / double(call.size));
    std::vector<std::vector<double>> magnitudes(frames);
    std::vector<Spectrum> spectra(frames, Spectrum(bins)), before;
    for (int64_t t = 0; t < frames; ++t) {
      std::vector<double>& magnitude = magnitudes[t];
      magnitude.assign(bins, 1);
      for (int64_t n = 0; n < call.before; ++n) towards(magnitude, t);
      for (int64_t k = 0; k < bins; ++k)
        magnitude[k] = std::fmin(std::fmax(magnitude[k], call.floor) * std::exp(double(x[k * frames + t])),
                                 double(call.size) / 2);
      for (int64_t n = 0; n < call.after; ++n) towards(magnitude, t);
      for (int64_t k = 0; k < bins; ++k) spectra[t][k] = k % 2 ? -magnitude[k] : magnitude[k];
    }
    for (int64_t round = 0; round < call.iterations + call.revisions; ++round) {
      const std::vector<double> wave = this->wave(spectra);
      std::vector<Spectrum> rebuilt(frames, Spectrum(bins));
      for (int64_t t = 0; t < frames; ++t) {
        for (int64_t k = 0; k < bins; ++k)
          for (int64_t n = 0; n < call.size; ++n)
            rebuilt[t][k] += window[n] * wave[t * call.hop + n] *
                             std::polar(1.0, -2 * M_PI * double(k * n % call.size) / double(call.size));
        if (round >= call.iterations) {
          for (int64_t k = 0; k < bins; ++k)
            magnitudes[t][k] = std::sqrt(std::fmax(std::norm(rebuilt[t][k]), 1e-14));
          towards(magnitudes[t], t);
        }
        for (int64_t k = 0; k < bins; ++k) {
          std::complex<double> ahead = rebuilt[t][k];
          if (round) ahead -= double(call.momentum) * before[t][k];
          const double factor = magnitudes[t][k] / std::sqrt(std::norm(ahead) + 1e-16);
          amplified = std::fmax(amplified, factor);
          spectra[t][k] = ahead * factor;
        }
      }
      before = rebuilt;
    }
    const std::vector<double> whole = wave(spectra);
    const auto start = whole.begin() + (call.size - call.hop) / 2;
    return {start, start + frames * call.hop};
  }
};

// A stream in pieces: where it is cut, and threads, are drawn by lot.
std::vector<float> run(const Call& call, const void* packed, const std::vector<float>& x, int64_t frames, bool whole) {
  const int64_t rows = bins_of(call) + call.bands, overlap = call.size / call.hop;
  Memory state(fastvoc_griffin_lim_state_size(&call));
  fastvoc_griffin_lim_begin(&call, state.data);
  std::vector<float> y;
  for (int64_t done = 0; done < frames || (done == frames && !whole);) {
    int64_t count = whole ? frames : draw(0, 1) ? draw(0, 120) : draw(0, 3);
    count = done || whole ? count : count + overlap;
    const bool last = whole || done + count >= frames;
    count = last ? frames - done : count;
    std::vector<float> piece(rows * count);
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t t = 0; t < count; ++t) piece[r * count + t] = x[r * frames + done + t];
    const int threads = int(draw(1, 3));
    Memory workspace(fastvoc_griffin_lim_workspace_size(&call, threads, count));
    const int64_t ready = fastvoc_griffin_lim_ready(&call, state.data, count, last);
    if (ready < 0) return {};
    std::vector<float> made = unwritten(ready);
    if (fastvoc_griffin_lim_run(&call, packed, state.data, workspace.data, threads, piece.data(), count, count, last,
                                made.data()) != FASTVOC_OK)
      return {};
    y.insert(y.end(), made.begin(), made.end());
    done += count;
    if (last) break;
  }
  return y;
}

int compared = 0;  // calls whose values say something

bool right(const Call& call) {
  if (fastvoc_griffin_lim_check(&call) != FASTVOC_OK) return false;
  const int64_t bins = bins_of(call), overlap = call.size / call.hop, frames = size(20, 150);
  std::vector<float> filters(call.bands * bins);
  for (float& weight : filters) weight = draw(0, 2) ? 0 : float(draw(1, 100)) / 100;
  // pulses so far apart that they do not cancel: what rounds divide by is then not near zero
  std::vector<float> x = filled((bins + call.bands) * frames);
  for (int64_t i = 0; i < bins * frames; ++i) {
    const int64_t t = i % frames;
    x[i] = 0.03f * x[i] + (t % overlap ? -5 : 0);
  }
  for (int64_t i = bins * frames; i < int64_t(x.size()); ++i) x[i] = 0.3f * x[i] + (i % frames % overlap ? -5 : 0);
  Memory packed(fastvoc_griffin_lim_packed_size(&call));
  fastvoc_griffin_lim_pack(&call, filters.data(), packed.data);
  const std::vector<float> y = run(call, packed.data, x, frames, true);
  Exact exact{call, filters, x, frames};
  const std::vector<double> expected = exact.run();
  if (y.size() != expected.size()) return false;
  double error = 0, energy = 1e-20;
  for (size_t i = 0; i < y.size(); ++i) {
    if (!std::isfinite(y[i])) return false;
    error += (expected[i] - y[i]) * (expected[i] - y[i]);
    energy += expected[i] * expected[i];
  }
  // where a round divides by nearly nothing, a rounding becomes a phase, and says nothing
  const bool compares = exact.amplified < 100;
  compared += compares;
  if (compares && !(error < 1e-6 * energy)) return false;
  const std::vector<float> pieces = run(call, packed.data, x, frames, false);
  return pieces.size() == y.size() && std::memcmp(pieces.data(), y.data(), y.size() * sizeof(float)) == 0;
}

// A number that no call may have is refused, wherever it stands.
bool refuses_hostile_calls() {
  constexpr int64_t kHuge = int64_t{1} << 62;
  for (const int64_t value : {int64_t{-1}, kHuge, -kHuge, INT64_MAX, INT64_MIN}) {
    for (int64_t Call::*field : {&Call::bands, &Call::size, &Call::hop, &Call::before, &Call::after, &Call::iterations,
                                 &Call::revisions}) {
      Call call = griffin_lim_call();
      call.*field = value;
      if (fastvoc_griffin_lim_check(&call) == FASTVOC_OK) return false;
    }
    Call call = griffin_lim_call();
    if (fastvoc_griffin_lim_workspace_size(&call, 1, value) >= 0) return false;
    call.isa = value < 0 ? -1 : 1 << 30;
    if (fastvoc_griffin_lim_check(&call) == FASTVOC_OK) return false;
  }
  for (const auto& [size, hop] : {std::pair{15, 5}, {16, 5}, {14, 14}, {1024, 8}, {16, 0}, {16, 32}, {12, 3}}) {
    Call call = griffin_lim_call();
    call.size = size;
    call.hop = hop;
    if (fastvoc_griffin_lim_check(&call) == FASTVOC_OK) return false;
  }
  return true;
}

// What a stream begins with has to be as many frames as overlap, unless they are all.
bool refuses_a_short_beginning() {
  Call call = griffin_lim_call();
  call.size = 64;
  call.hop = 16;
  Memory state(fastvoc_griffin_lim_state_size(&call));
  fastvoc_griffin_lim_begin(&call, state.data);
  return fastvoc_griffin_lim_ready(&call, state.data, 3, false) == -1 &&
         fastvoc_griffin_lim_ready(&call, state.data, 3, true) == 48 &&
         fastvoc_griffin_lim_run(&call, nullptr, state.data, nullptr, 1, nullptr, 3, 3, false, nullptr) ==
             FASTVOC_BAD_SIZE;
}

}  // namespace

int main(int argc, char** argv) {
  const int count = argc > 1 ? std::atoi(argv[1]) : 100;
  if (!refuses_hostile_calls() || !refuses_a_short_beginning()) {
    std::printf("a call that is out of range was taken\n");
    return 1;
  }
  for (int number = 0; number < count; ++number) {
    const Call call = griffin_lim_call();
    if (right(call)) continue;
    std::printf("call %d is wrong: isa %d, size %lld, hop %lld, %lld bands, updates %lld and %lld, rounds %lld and %lld\n",
                number, call.isa, (long long)call.size, (long long)call.hop, (long long)call.bands,
                (long long)call.before, (long long)call.after, (long long)call.iterations, (long long)call.revisions);
    return 1;
  }
  std::printf("%d calls, the values of %d compared\n", count, compared);
  return compared < count / 2;
}
