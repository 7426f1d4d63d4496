// griffin_lim on the CPU: a tile of frames, one in each lane, passes all rounds while it is in the cache.
//
// Frames overlap, so that a round sees D = size / hop - 1 of them less than the one before: with `now` frames known, the
// spectra of round r are known up to now - r D, and so is its wave in hops, and its rebuilt spectra up to
// now - (r + 1) D. A tile advances `now` by as many frames as a vector has lanes; behind the last frame it goes on
// without any until all rounds have caught up. What a round needs of earlier tiles are the latest few columns of its rows:
//
//     frames   [sample of a frame][frame]   inverse transforms, whose overlapping parts make hops
//     wave     [sample of a hop][hop]       whose hops are parts of frames again
//     rebuilt  [bin, real and imaginary]    for the momentum of the next round, which is D frames behind
//
// They are the state of a stream, as a tail of columns for each row, beside the magnitudes and mels that later rounds
// still ask for. Columns further back are lanes that are moved on, with the tail before them.
//
// Threads take tiles as they come free. Round r of a tile begins when that of the tile before is done, so that they
// follow one another through the rounds, and one that is slow holds up the others by its own work only.

#include "../fastvoc_griffin_lim.h"

#include <atomic>
#include <chrono>
#include <cstring>
#include <new>
#include <thread>

#include "../isa.h"
#include "kernels/exp.h"
#include "kernels/fft.h"

namespace fastvoc::FASTVOC_ISA {
namespace {

constexpr int64_t kMostOverlap = 64;

using Call = fastvoc_griffin_lim;

struct Sizes {
  int64_t bins, half, overlap, back, rounds;  // back: D
  int64_t tail, row;                          // columns of a tail, and with those of a tile
  Fft fft;

  explicit Sizes(const Call& call)
      : bins(call.size / 2 + 1),
        half(call.size / 2),
        overlap(call.size / call.hop),
        back(overlap - 1),
        rounds(call.iterations + call.revisions),
        tail(round_up(back, 4)),
        row(tail + kLanes),
        fft(half) {}
};

// Places in memory, one behind the other, each aligned to 64 bytes.
class Places {
 public:
  template <class T>
  int64_t take(int64_t count) {
    const int64_t at = bytes_;
    bytes_ += round_up(count * int64_t(sizeof(T)), 64);
    return at;
  }
  int64_t bytes() const { return bytes_; }

 private:
  int64_t bytes_ = 0;
};

template <class T>
T* at(void* memory, int64_t bytes) {
  return reinterpret_cast<T*>(static_cast<char*>(memory) + bytes);
}

template <class T>
const T* at(const void* memory, int64_t bytes) {
  return reinterpret_cast<const T*>(static_cast<const char*>(memory) + bytes);
}

// Part of a matrix of filters: of each row, the columns from its first number that is not zero to its last.
struct Range {
  int32_t first, count;
  int64_t weight;
};

// What depends on sizes and filters alone.
struct Packed {
  // halves of the window for transforms, a part of it by the size for inverse ones; e^(-2 pi i k / size) of each bin
  int64_t analysis, synthesis, twiddles, roots;
  int64_t positions, columns;             // of frequencies in a transform; of a frame's samples in the rows of a wave
  int64_t gains;                          // of each first and last part of a frame that a hop has, and each of its samples
  int64_t band_ranges, bin_ranges, band_weights, bin_weights;
  int64_t bytes;

  Packed(const Call& call, const Sizes& sizes) {
    Places places;
    analysis = places.take<float>(call.size);
    synthesis = places.take<float>(call.size);
    twiddles = places.take<float>(sizes.fft.table_size());
    roots = places.take<float>(2 * (sizes.half / 2 + 1));
    positions = places.take<int32_t>(sizes.half);
    columns = places.take<int32_t>(call.size);
    gains = places.take<float>(sizes.overlap * sizes.overlap * call.hop);
    band_ranges = places.take<Range>(call.bands);
    bin_ranges = places.take<Range>(sizes.bins);
    band_weights = places.take<float>(call.bands * sizes.bins);
    bin_weights = places.take<float>(call.bands * sizes.bins);
    bytes = places.bytes();
  }
};

// A stream: how far it is, the latest magnitudes and mels, and the latest columns of each round.
struct State {
  int64_t magnitudes, targets, rounds;
  int64_t magnitude_frames, target_frames;
  int64_t frames, wave, rebuilt, round;  // in the floats of a round
  int64_t bytes;

  State(const Call& call, const Sizes& sizes) {
    magnitude_frames = call.iterations * sizes.back;
    target_frames = call.revisions ? sizes.rounds * sizes.back : 0;
    frames = 0;
    wave = frames + (call.size - call.hop) * sizes.tail;
    rebuilt = wave + call.hop * sizes.tail;
    round = rebuilt + 2 * sizes.bins * sizes.tail;
    Places places;
    places.take<int64_t>(1);
    magnitudes = places.take<float>(sizes.bins * magnitude_frames);
    targets = places.take<float>(call.bands * target_frames);
    rounds = places.take<float>((sizes.rounds + 1) * round);
    bytes = places.bytes();
  }
};

// The work of a call: magnitudes and mels of its frames behind those that are remembered, how far each tile is, and
// what each thread has for itself.
struct Work {
  int64_t magnitudes, targets, magnitude_row, target_row, progress, gains, threads;
  int64_t spectrum, wave, rebuilt, reached, ratios, thread;  // in the bytes of a thread
  int64_t bytes;

  Work(const Call& call, const Sizes& sizes, const State& state, int count, int64_t new_frames) {
    const int64_t beyond = new_frames + kLanes;
    // rows that are a power of two apart would share few lines of a cache
    magnitude_row = round_up(state.magnitude_frames + beyond, 32) + 16;
    target_row = round_up(state.target_frames + beyond, 32) + 16;
    Places places;
    magnitudes = places.take<float>(sizes.bins * magnitude_row);
    targets = places.take<float>(call.bands * target_row);
    progress = places.take<std::atomic<int64_t>>(tiles(sizes, new_frames, true) + 1);
    gains = places.take<float>(sizes.overlap * sizes.overlap * call.hop);
    Places own;
    spectrum = own.take<float>(sizes.half * 2 * kLanes);
    wave = own.take<float>(call.hop * sizes.row);
    rebuilt = own.take<float>(2 * sizes.bins * kLanes);
    reached = own.take<float>(sizes.bins * kLanes);
    ratios = own.take<float>(call.bands * kLanes);
    thread = own.bytes();
    threads = places.take<char>(count * thread);
    bytes = places.bytes();
  }

  static int64_t tiles(const Sizes& sizes, int64_t new_frames, bool last) {
    return (new_frames + (last ? (sizes.rounds + 1) * sizes.back : 0) + kLanes - 1) / kLanes;
  }
};

Vector at_least(Vector x, float least) { return x < least ? splat(least) : x; }
Vector at_most(Vector x, float most) { return x > most ? splat(most) : x; }
Vector masked(Vector x, Lanes mask) { return (Vector)((Lanes)x & mask); }

// So many numbers, and zeros.
Vector load_some(const float* from, int64_t count) {
  if (count == kLanes) return load(from);
  float lanes[kLanes] = {};
  std::memcpy(lanes, from, count * sizeof(float));
  return load(lanes);
}

void store_some(float* to, Vector v, int64_t count) {
  if (count == kLanes) return store(to, v);
  float lanes[kLanes];
  store(lanes, v);
  std::memcpy(to, lanes, count * sizeof(float));
}

// How many columns overlap, D, where it is known when this is compiled: the usual three, or any.
constexpr int kAny = -1, kUsual = 3;

template <int Back>
void copy_tail(float* to, const float* from, int64_t tail) {
  std::memcpy(to, from, (Back == kAny ? tail : 4) * sizeof(float));
}

template <int K, int... Lane>
constexpr auto moved(std::integer_sequence<int, Lane...>) {
  return std::integer_sequence<int, kLanes - K + Lane...>{};
}

// The columns that are k before those of some lanes.
template <int K>
Vector before(Vector lanes, const float* tail) {
  return pick(repeat<4>(tail), lanes, moved<K>(Sequence{}));
}

Vector before(Vector lanes, const float* tail, int64_t columns, int64_t k) {
  float row[kMostOverlap + kLanes];
  std::memcpy(row, tail, columns * sizeof(float));
  store(row + columns, lanes);
  return load(row + columns - k);
}

// Make the latest columns, of which so many lanes are new, the tail.
template <int Back>
void move_tail(float* tail, Vector lanes, int64_t columns, int64_t count) {
  typedef float Four __attribute__((vector_size(16)));
  if (Back != kAny && count == kLanes) {
    Four last;
    std::memcpy(&last, reinterpret_cast<const char*>(&lanes) + (kLanes - 4) * sizeof(float), sizeof last);
    std::memcpy(tail, &last, sizeof last);
    return;
  }
  float row[kMostOverlap + kLanes];
  std::memcpy(row, tail, columns * sizeof(float));
  store(row + columns, lanes);
  std::memcpy(tail, row + count, columns * sizeof(float));
}

// Samples that are certain once so many frames are known, of which so many are all if they are the last.
int64_t samples_of(const Call& call, const Sizes& sizes, int64_t frames, bool last) {
  if (last) return frames * call.hop;
  return larger(0, (frames - sizes.rounds * sizes.back) * call.hop - (call.size - call.hop) / 2);
}

int check(const Call& call) {
  const Sizes sizes(call);
  if (!Fft::takes(sizes.half) || sizes.overlap > kMostOverlap) return FASTVOC_BAD_SIZE;
  return FASTVOC_OK;
}

int64_t packed_size(const Call& call) { return Packed(call, Sizes(call)).bytes; }
int64_t state_size(const Call& call) { return State(call, Sizes(call)).bytes; }

int64_t workspace_size(const Call& call, int threads, int64_t frames) {
  const Sizes sizes(call);
  return Work(call, sizes, State(call, sizes), threads, frames).bytes;
}

// The sum of squared windows at a sample of a hop that parts first ... last of frames cover.
double covered(const Call& call, const float* halves, int64_t first, int64_t last, int64_t sample) {
  double sum = 0;
  for (int64_t k = first; k <= last; ++k) {
    const double w = 2 * double(halves[k * call.hop + sample]);
    sum += w * w;
  }
  return sum;
}

// What sums of frames are multiplied by, where a signal has at most so many that overlap.
void fill_gains(const Call& call, int64_t overlap, int64_t most, const float* halves, float* gains) {
  double greatest = 0;
  for (int64_t first = 0; first < overlap; ++first)
    for (int64_t h = 0; h < call.hop; ++h) {
      const double sum = covered(call, halves, first, smaller(overlap, first + most) - 1, h);
      greatest = sum > greatest ? sum : greatest;
    }
  for (int64_t first = 0; first < overlap; ++first)
    for (int64_t last = first; last < overlap; ++last)
      for (int64_t h = 0; h < call.hop; ++h) {
        const double sum = covered(call, halves, first, last, h), least = 0.01 * greatest;
        gains[(first * overlap + last) * call.hop + h] = float(1 / (sum > least ? sum : least));
      }
}

// The parts of the rows of a matrix that are not zero, given by (row, column).
template <class Weight>
void fill_ranges(int64_t rows, int64_t columns, Weight weight, Range* ranges, float* weights) {
  int64_t used = 0;
  for (int64_t r = 0; r < rows; ++r) {
    int64_t first = 0, end = columns;
    while (first < end && weight(r, first) == 0) ++first;
    while (first < end && weight(r, end - 1) == 0) --end;
    ranges[r] = {int32_t(first), int32_t(end - first), used};
    for (int64_t c = first; c < end; ++c) weights[used++] = float(weight(r, c));
  }
}

void pack(const Call& call, const float* filters, void* memory) {
  const Sizes sizes(call);
  const Packed packed(call, sizes);
  float* const halves = at<float>(memory, packed.analysis);
  for (int64_t s = 0; s < call.size; ++s) {
    const double hann = 0.5 - 0.5 * std::cos(2 * M_PI * double(s) / double(call.size));
    halves[s] = float(hann / 2);
    at<float>(memory, packed.synthesis)[s] = float(hann / double(call.size));
    at<int32_t>(memory, packed.columns)[s] =
        int32_t(s % call.hop * sizes.row + sizes.tail - sizes.back + s / call.hop);
  }
  sizes.fft.fill(at<float>(memory, packed.twiddles));
  for (int64_t k = 0; k <= sizes.half / 2; ++k) {
    at<float>(memory, packed.roots)[2 * k] = float(std::cos(2 * M_PI * double(k) / double(call.size)));
    at<float>(memory, packed.roots)[2 * k + 1] = float(-std::sin(2 * M_PI * double(k) / double(call.size)));
  }
  for (int64_t k = 0; k < sizes.half; ++k) at<int32_t>(memory, packed.positions)[k] = int32_t(sizes.fft.position(k));
  fill_gains(call, sizes.overlap, sizes.overlap, halves, at<float>(memory, packed.gains));
  fill_ranges(
      call.bands, sizes.bins, [&](int64_t band, int64_t bin) -> double { return filters[band * sizes.bins + bin]; },
      at<Range>(memory, packed.band_ranges), at<float>(memory, packed.band_weights));
  // where no filter reaches, the mel says nothing and the magnitude stays: a range of none
  int64_t reached_bin = -1;
  double reach = 0;
  fill_ranges(
      sizes.bins, call.bands,
      [&](int64_t bin, int64_t band) -> double {
        if (bin != reached_bin) {
          reached_bin = bin;
          reach = 0;
          for (int64_t b = 0; b < call.bands; ++b) reach += filters[b * sizes.bins + bin];
        }
        return reach > 0 ? filters[band * sizes.bins + bin] / reach : 0;
      },
      at<Range>(memory, packed.bin_ranges), at<float>(memory, packed.bin_weights));
}

void begin(const Call& call, void* state) { std::memset(state, 0, state_size(call)); }

int64_t ready(const Call& call, const void* state, int64_t frames, bool last) {
  const Sizes sizes(call);
  const int64_t known = *static_cast<const int64_t*>(state);
  if (!last && known + frames > 0 && known + frames < sizes.overlap) return -1;
  return samples_of(call, sizes, known + frames, last) - samples_of(call, sizes, known, false);
}

// A call, as all its threads see it.
struct Run {
  const Call& call;
  const Sizes& sizes;
  const Packed& packed;
  const State& state;
  const Work& work;
  const void* tables;
  void* stream;
  void* memory;
  const float* gains;
  const float* x;
  int64_t x_row, known, frames;
  bool last;
  int64_t end = 0;                 // frames of the signal; more than any has, before its last
  int64_t tiles = 0, written = 0;  // `written`: samples before the first of y
  float* y = nullptr;
  std::atomic<int64_t>* progress = nullptr;
  std::atomic<int64_t> next{0};
};

// What one thread does.
template <int Back>
class Worker {
 public:
  Worker(Run& run, int thread) : run_(run), sizes_(run.sizes) {
    char* const own = at<char>(run.memory, run.work.threads) + thread * run.work.thread;
    spectrum_ = at<float>(own, run.work.spectrum);
    wave_ = at<float>(own, run.work.wave);
    rebuilt_ = at<float>(own, run.work.rebuilt);
    reached_ = at<float>(own, run.work.reached);
    ratios_ = at<float>(own, run.work.ratios);
  }

  void work() {
    for (int64_t tile; (tile = run_.next.fetch_add(1, std::memory_order_relaxed)) < run_.tiles;) {
      advance(tile);
      run_.progress[tile].store(sizes_.rounds + 1, std::memory_order_release);
    }
  }

 private:
  Run& run_;
  const Sizes& sizes_;
  float *spectrum_, *wave_, *rebuilt_, *reached_, *ratios_;
  int64_t count_ = 0;  // lanes of the tile
  Lanes mask_{};       // of the frames that there are

  static constexpr int kSpins = 2000;  // some ten microseconds
  static constexpr std::chrono::microseconds kNap{50};
  static constexpr int64_t kLead = 4;

  // Until the tile before has done a round: and then some more, so that its next ones are not waited for one by one. A
  // core that sleeps takes over the thread that is late, if that one's core is taken by others.
  void wait(int64_t tile, int64_t round) {
    if (!tile || run_.progress[tile - 1].load(std::memory_order_acquire) > round) return;
    const int64_t last = smaller(round + kLead, sizes_.rounds);
    for (int spins = 0; run_.progress[tile - 1].load(std::memory_order_acquire) <= last; ++spins) {
      if (spins < kSpins) {
        pause();
      } else {
        std::this_thread::sleep_for(kNap);
      }
    }
  }

  void advance(int64_t tile) {
    const int64_t start = tile * kLanes;  // of the frames of this call
    count_ = smaller(kLanes, run_.frames + (run_.last ? (sizes_.rounds + 1) * sizes_.back : 0) - start);
    const int64_t now = run_.known + start;
    if (start < run_.frames) estimate(start);
    bool ran = start < run_.frames;  // whether `spectrum_` holds that of this round
    for (int64_t r = 0; r <= sizes_.rounds; ++r) {
      const int64_t first = now - r * sizes_.back;
      if (first + count_ <= 0) return;
      if (first >= run_.end + sizes_.back) {
        ran = false;
        continue;
      }
      wait(tile, r);
      float* const own = at<float>(run_.stream, run_.state.rounds) + r * run_.state.round;
      to_wave(own, first, ran);
      if (r == sizes_.rounds) {
        write(first);
      } else {
        to_spectrum(r ? own - run_.state.round : nullptr, r, first - sizes_.back);
        ran = true;
      }
      run_.progress[tile].store(r + 1, std::memory_order_release);
    }
  }

  void set_mask(int64_t first) {
    for (int lane = 0; lane < kLanes; ++lane)
      mask_[lane] = lane < count_ && first + lane >= 0 && first + lane < run_.end ? -1 : 0;
  }

  // Magnitudes and targets of frames of this call, and the first spectrum.
  void estimate(int64_t start) {
    const Call& call = run_.call;
    const int64_t count = smaller(kLanes, run_.frames - start);
    float* const target = at<float>(run_.memory, run_.work.targets) + run_.state.target_frames + start;
    const float* const mel = run_.x + sizes_.bins * run_.x_row + start;
    const float ceiling = float(call.size) / 2;
    for (int64_t b = 0; b < call.bands; ++b)
      store_some(target + b * run_.work.target_row, at_most(exp(load_some(mel + b * run_.x_row, count)), ceiling), count);
    for (int64_t k = 0; k < sizes_.bins; ++k) store(reached_ + k * kLanes, splat(1));
    for (int64_t n = 0; n < call.before; ++n) move_towards(target, count);
    for (int64_t k = 0; k < sizes_.bins; ++k) {
      const Vector factor = exp(load_some(run_.x + k * run_.x_row + start, count));
      store(reached_ + k * kLanes, at_most(at_least(load(reached_ + k * kLanes), call.floor) * factor, ceiling));
    }
    for (int64_t n = 0; n < call.after; ++n) move_towards(target, count);
    float* const magnitude = at<float>(run_.memory, run_.work.magnitudes) + run_.state.magnitude_frames + start;
    for (int64_t k = 0; k < sizes_.bins; ++k)
      store_some(magnitude + k * run_.work.magnitude_row, load(reached_ + k * kLanes), count);

    set_mask(run_.known + start);
    for (int64_t k = 0; k <= sizes_.half / 2; ++k) {
      const int64_t other = sizes_.half - k;
      const Vector m = masked(load(reached_ + k * kLanes), mask_), n = masked(load(reached_ + other * kLanes), mask_);
      store_pair(k, Complex{k % 2 ? -m : m, Vector{}}, Complex{other % 2 ? -n : n, Vector{}});
    }
  }

  // Ratios of the bands of a target to those of `reached_`.
  void compare(const float* target, int64_t count) {
    const Range* const ranges = at<Range>(run_.tables, run_.packed.band_ranges);
    for (int64_t b = 0; b < run_.call.bands; ++b) {
      const float* const weights = at<float>(run_.tables, run_.packed.band_weights) + ranges[b].weight;
      const float* const from = reached_ + ranges[b].first * kLanes;
      Vector sum{};
      for (int64_t i = 0; i < ranges[b].count; ++i) sum += load(from + i * kLanes) * weights[i];
      const Vector wanted = load_some(target + b * run_.work.target_row, count);
      store(ratios_ + b * kLanes, wanted / at_least(sum, run_.call.floor));
    }
  }

  // What a bin is multiplied by to come closer.
  Vector factor(int64_t bin) const {
    const Range range = at<Range>(run_.tables, run_.packed.bin_ranges)[bin];
    if (!range.count) return splat(1);
    const float* const weights = at<float>(run_.tables, run_.packed.bin_weights) + range.weight;
    const float* const from = ratios_ + range.first * kLanes;
    Vector sum{};
    for (int64_t i = 0; i < range.count; ++i) sum += load(from + i * kLanes) * weights[i];
    return sum;
  }

  void move_towards(const float* target, int64_t count) {
    compare(target, count);
    for (int64_t k = 0; k < sizes_.bins; ++k)
      store(reached_ + k * kLanes, load(reached_ + k * kLanes) * factor(k));
  }

  float* place(int64_t frequency) const {
    return complex_at(spectrum_, at<int32_t>(run_.tables, run_.packed.positions)[frequency]);
  }

  // Bins k and size / 2 - k of a real signal as two of the transform of half the length, whose real parts are the even
  // samples and whose imaginary parts are the odd ones.
  void store_pair(int64_t k, Complex first, Complex second) {
    const float* const root = at<float>(run_.tables, run_.packed.roots) + 2 * k;
    const Complex even{first.re + second.re, first.im - second.im};
    const Complex difference{first.re - second.re, first.im + second.im};
    const Complex odd{difference.re * root[0] + difference.im * root[1],
                      difference.im * root[0] - difference.re * root[1]};
    if (k > 0 && 2 * k != sizes_.half)
      store_complex<false>(place(sizes_.half - k), {even.re + odd.im, odd.re - even.im});
    store_complex<false>(place(k), {even.re - odd.im, even.im + odd.re});
  }

  // Spectra to hops: inverse transforms, of which hop j adds part 0 of frame j, part 1 of frame j - 1, and so on.
  void to_wave(float* own, int64_t first, bool ran) {
    const Call& call = run_.call;
    if (ran) {
      // in order of time, real and imaginary parts in turn are samples in order
      sizes_.fft.inverse(at<float>(run_.tables, run_.packed.twiddles), spectrum_,
                         [&](int64_t i, Complex value) { store_complex<false>(complex_at(spectrum_, i), value); });
    } else {
      for (int64_t s = 0; s < call.size; ++s) store(spectrum_ + s * kLanes, Vector{});
    }
    const float* const window = at<float>(run_.tables, run_.packed.synthesis);
    const float* gains[kLanes];
    const bool inside = find_gains(first, gains);
    float* const tails = own + run_.state.wave;
    for (int64_t h = 0; h < call.hop; ++h) {
      Vector sum{};
      if constexpr (Back == kUsual) {
        add_part<3>(sum, own, window, h);
        add_part<2>(sum, own, window, h);
        add_part<1>(sum, own, window, h);
      } else {
        for (int64_t k = sizes_.back; k > 0; --k) add_part<kAny>(sum, own, window, h, k);
      }
      sum += load(spectrum_ + h * kLanes) * window[h];
      Vector gain;
      if (inside) {
        gain = splat(gains[0][h]);
      } else {
        for (int lane = 0; lane < kLanes; ++lane) gain[lane] = gains[lane][h];
      }
      sum *= gain;
      float *const to = wave_ + h * sizes_.row, *const tail = tails + h * sizes_.tail;
      copy_tail<Back>(to, tail, sizes_.tail);
      store(to + sizes_.tail, sum);
      move_tail<Back>(tail, sum, sizes_.tail, count_);
    }
  }

  template <int K>
  void add_part(Vector& sum, float* tails, const float* window, int64_t h, int64_t k = K) const {
    const int64_t sample = k * run_.call.hop + h;
    const Vector part = load(spectrum_ + sample * kLanes);
    float* const tail = tails + (sample - run_.call.hop) * sizes_.tail;
    if constexpr (K == kAny) {
      sum += before(part, tail, sizes_.tail, k) * window[sample];
    } else {
      sum += before<K>(part, tail) * window[sample];
    }
    move_tail<Back>(tail, part, sizes_.tail, count_);
  }

  // The gains of each lane's hop, and whether they are all the same.
  bool find_gains(int64_t first, const float* (&gains)[kLanes]) const {
    bool inside = true;
    for (int lane = 0; lane < kLanes; ++lane) {
      const int64_t hop = first + lane, back = sizes_.back;
      int64_t begin = larger(0, hop - run_.end + 1), end = smaller(back, hop);
      if (hop < 0 || begin > back) begin = 0, end = back;  // there is nothing
      inside = inside && begin == 0 && end == back;
      gains[lane] = run_.gains + (begin * sizes_.overlap + end) * run_.call.hop;
    }
    return inside;
  }

  // Hops to spectra of the next round, of frames from `first` on. `own` is what is kept of the round before.
  void to_spectrum(float* own, int64_t round, int64_t first) {
    const Call& call = run_.call;
    const float* const window = at<float>(run_.tables, run_.packed.analysis);
    const int32_t* const columns = at<int32_t>(run_.tables, run_.packed.columns);
    sizes_.fft.forward(at<float>(run_.tables, run_.packed.twiddles), spectrum_, [&](int64_t i) {
      return Complex{load(wave_ + columns[2 * i]) * window[2 * i], load(wave_ + columns[2 * i + 1]) * window[2 * i + 1]};
    });
    set_mask(first);
    const bool revised = round >= call.iterations;
    float* const tails = own ? own + run_.state.rebuilt : nullptr;
    if (!revised) {
      const int64_t column = run_.state.magnitude_frames + first - run_.known;
      const float* const magnitude = at<float>(run_.memory, run_.work.magnitudes) + column;
      for (int64_t k = 0; k <= sizes_.half / 2; ++k) {
        const int64_t other = sizes_.half - k;
        Complex a, b;
        rebuild(k, tails, a, b);
        a = with_magnitude(a, load(magnitude + k * run_.work.magnitude_row));
        b = with_magnitude(b, load(magnitude + other * run_.work.magnitude_row));
        store_pair(k, a, b);
      }
      return;
    }
    for (int64_t k = 0; k <= sizes_.half / 2; ++k) {
      Complex a, b;
      rebuild(k, tails, a, b);
      // the lowest and the highest bin share a place, and are real
      if (k == 0) {
        store_complex<false>(place(0), {a.re, b.re});
      } else {
        store_complex<false>(place(sizes_.half - k), b);
        store_complex<false>(place(k), a);
      }
      reached_of(k);
      reached_of(sizes_.half - k);
    }
    const int64_t column = run_.state.target_frames + first - run_.known;
    compare(at<float>(run_.memory, run_.work.targets) + column, kLanes);
    for (int64_t k = 0; k <= sizes_.half / 2; ++k) {
      const int64_t other = sizes_.half - k;
      Complex a = load_complex<false>(place(k)), b = load_complex<false>(place(k ? other : 0));
      if (k == 0) {
        b = {a.im, Vector{}};
        a = {a.re, Vector{}};
      }
      a = with_magnitude(a, load(reached_ + k * kLanes) * factor(k));
      b = with_magnitude(b, load(reached_ + other * kLanes) * factor(other));
      store_pair(k, a, b);
    }
  }

  // Bins k and size / 2 - k of the transform, kept in their rows, and what momentum makes of them.
  void rebuild(int64_t k, float* tails, Complex& first, Complex& second) {
    const int64_t other = sizes_.half - k;
    const Complex a = load_complex<false>(place(k)), b = load_complex<false>(place(k ? other : 0));
    const float* const root = at<float>(run_.tables, run_.packed.roots) + 2 * k;
    const Complex even{a.re + b.re, a.im - b.im}, odd{a.im + b.im, b.re - a.re};
    const Complex turned_odd = times(odd, root);
    const Complex sum = even + turned_odd, difference = even - turned_odd;
    first = ahead(k, sum, tails);
    second = k == other ? first : ahead(other, {difference.re, -difference.im}, tails);
  }

  Complex ahead(int64_t bin, Complex rebuilt, float* tails) {
    return {ahead_row(2 * bin, rebuilt.re, tails), ahead_row(2 * bin + 1, rebuilt.im, tails)};
  }

  // The rows hold what the round before has made in this tile, which is D frames further.
  Vector ahead_row(int64_t number, Vector rebuilt, float* tails) {
    float* const row = rebuilt_ + number * kLanes;
    const Vector lanes = load(row);
    store(row, rebuilt);
    if (!tails) return rebuilt;
    float* const tail = tails + number * sizes_.tail;
    Vector old;
    if constexpr (Back == kAny) {
      old = before(lanes, tail, sizes_.tail, sizes_.back);
    } else {
      old = before<Back>(lanes, tail);
    }
    move_tail<Back>(tail, lanes, sizes_.tail, count_);
    return rebuilt - old * run_.call.momentum;
  }

  void reached_of(int64_t bin) {
    const float* const row = rebuilt_ + 2 * bin * kLanes;
    const Vector re = load(row), im = load(row + kLanes);
    store(reached_ + bin * kLanes, square_root(at_least(re * re + im * im, 1e-14f)));
  }

  Complex with_magnitude(Complex ahead, Vector magnitude) const {
    const Vector factor = magnitude / square_root(ahead.re * ahead.re + ahead.im * ahead.im + 1e-16f);
    return {masked(ahead.re * factor, mask_), masked(ahead.im * factor, mask_)};
  }

  // The samples of hops from `first` on.
  void write(int64_t first) {
    const int64_t hop = run_.call.hop, side = (run_.call.size - hop) / 2;
    const int64_t most = run_.last ? run_.end * hop : INT64_MAX / 2;
    for (int64_t lane = 0; lane < count_; ++lane) {
      const int64_t begin = (first + lane) * hop - side;
      const float* const from = wave_ + sizes_.tail + lane;
      for (int64_t h = larger(0, -begin), end = smaller(hop, most - begin); h < end; ++h)
        run_.y[begin + h - run_.written] = from[h * sizes_.row];
    }
  }
};

// Rows of so many numbers.
void copy_rows(float* to, int64_t to_row, const float* from, int64_t from_row, int64_t rows, int64_t count) {
  for (int64_t r = 0; r < rows; ++r) std::memcpy(to + r * to_row, from + r * from_row, count * sizeof(float));
}

void run(const Call& call, const void* tables, void* stream, void* memory, int threads, const float* x, int64_t x_row,
         int64_t frames, bool last, float* y) {
  const Sizes sizes(call);
  const Packed packed(call, sizes);
  const State state(call, sizes);
  const Work work(call, sizes, state, threads, frames);
  const int64_t known = *static_cast<int64_t*>(stream);
  if (known + frames == 0) return;
  const float* gains = at<float>(tables, packed.gains);
  if (known + frames < sizes.overlap) {  // a signal of so few frames is a wave of its own kind
    float* const own = at<float>(memory, work.gains);
    fill_gains(call, sizes.overlap, known + frames, at<float>(tables, packed.analysis), own);
    gains = own;
  }
  Run run{call, sizes, packed, state, work, tables, stream, memory, gains, x, x_row, known, frames, last};
  run.end = last ? known + frames : INT64_MAX / 4;
  run.tiles = Work::tiles(sizes, frames, last);
  run.written = samples_of(call, sizes, known, false);
  run.y = y;
  run.progress = at<std::atomic<int64_t>>(memory, work.progress);
  for (int64_t tile = 0; tile < run.tiles; ++tile) new (run.progress + tile) std::atomic<int64_t>(0);

  float* const magnitudes = at<float>(memory, work.magnitudes);
  float* const targets = at<float>(memory, work.targets);
  copy_rows(magnitudes, work.magnitude_row, at<float>(stream, state.magnitudes), state.magnitude_frames, sizes.bins,
            state.magnitude_frames);
  copy_rows(targets, work.target_row, at<float>(stream, state.targets), state.target_frames, call.bands,
            state.target_frames);
  // of few frames, other threads would be waited for longer than they work
  const int used = int(smaller(threads, larger(1, frames / (2 * kLanes))));
#pragma omp parallel for num_threads(used) schedule(static, 1) if (used > 1)
  for (int thread = 0; thread < used; ++thread) {
    if (sizes.back == kUsual) {
      Worker<kUsual>(run, thread).work();
    } else {
      Worker<kAny>(run, thread).work();
    }
  }
  copy_rows(at<float>(stream, state.magnitudes), state.magnitude_frames, magnitudes + frames, work.magnitude_row,
            sizes.bins, state.magnitude_frames);
  copy_rows(at<float>(stream, state.targets), state.target_frames, targets + frames, work.target_row, call.bands,
            state.target_frames);
  *static_cast<int64_t*>(stream) = known + frames;
}

}  // namespace

const GriffinLim griffin_lim = {check, packed_size, state_size, workspace_size, pack, begin, ready, run};

}  // namespace fastvoc::FASTVOC_ISA
