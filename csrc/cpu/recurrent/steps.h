// The steps of a group of streams, by one thread or by two.
//
// Two threads divide a step by what waits for what. The lead goes along the residual path, which one layer hands to the
// next, and does the head. Its companion follows with what the path does not wait for: each layer's skip, as soon as its
// gates are there, and, in between, what coming samples look back on. They tell each other how far they are by counting.
// Where others take the companion's core away, the lead sends it to sleep and goes on alone, until it is back.
#pragma once

#include <atomic>
#include <chrono>
#include <new>
#include <thread>

#include "draw.h"
#include "gate.h"
#include "layout.h"

namespace fastvoc::FASTVOC_ISA {

constexpr int kBlock = 12;        // samples whose other taps and condition are multiplied at once
constexpr int64_t kMostStreams = 32;  // that share what is read of the weights
constexpr int64_t kColumns = 96;  // vectors of a block

static inline int64_t block_of(int64_t streams) {
  return larger(1, smaller(kBlock, kColumns / streams));
}

constexpr int64_t kNobody = -1;

// How far one thread of two is; each count in a line of memory of its own.
struct Progress {
  alignas(64) std::atomic<int64_t> asked{kNobody};  // the sample from which on the companion works
  alignas(64) std::atomic<int> ready{0};            // whether it waits for that
  alignas(64) std::atomic<int64_t> gates{0};   // layers whose gates are there, over all samples
  alignas(64) std::atomic<int64_t> looked{0};  // layers that are looked back for, over all samples
  alignas(64) std::atomic<int64_t> skips{0};   // samples whose skips are summed
};

static inline int64_t now() {  // in nanoseconds
  return std::chrono::nanoseconds(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Wait for something, and return how long that was in nanoseconds, or 0 if it was there soon.
template <class There>
static inline int64_t await(There there) {
  constexpr int kSpins = 200;  // a few microseconds; then the core may be needed by the thread that is waited for
  for (int spins = 0; spins < kSpins; ++spins) {
    if (there()) return 0;
    pause();
  }
  const int64_t begin = now();
  while (!there()) std::this_thread::yield();
  return now() - begin;
}

static inline int64_t await(const std::atomic<int64_t>& count, int64_t least) {
  return await([&] { return count.load(std::memory_order_acquire) >= least; });
}

// Memory of one thread, in floats, for so many streams.
template <class Operand>
struct Workspace {
  Workspace(const fastvoc_recurrent& network, const Layout<Operand>& layout, int64_t streams, float* memory) {
    const auto take = [&](int64_t count) {
      float* const begin = memory ? memory + size : nullptr;
      size += round_up(count, 16);
      return begin;
    };
    progress = take(sizeof(Progress) / sizeof(float));
    x = take(streams * layout.channels);
    y = take(streams * layout.channels);
    g = take(streams * layout.gates);
    z = take(network.layers * streams * layout.half);
    first = take(streams * layout.skips);
    skip = take(streams * layout.skips);
    hidden = take(streams * layout.hidden.rows);
    outputs = take(streams * layout.output.rows);
    bias = take(streams * layout.gates);
    z_room = layout.residual.template filled<Operand>(0);
    room = std::max({layout.past.template depth<Operand>(), layout.current.template depth<Operand>(), z_room,
                     layout.hidden.template depth<Operand>(), layout.output.template depth<Operand>()});
    // operands that are narrow copies, which need no more room than floats
    narrow_z = take(Operand::kCopied ? network.layers * streams * z_room : 0);
    narrow = take(Operand::kCopied ? larger(streams, kColumns) * room : 0);
    cleared = size;  // what fills up vectors is never written
    pre = take(network.layers * block_of(streams) * streams * layout.gates);
  }
  float *progress, *x, *y, *g, *z, *first, *skip, *hidden, *outputs, *bias, *narrow_z, *narrow, *pre;
  int64_t z_room, room, cleared = 0, size = 0;
};

template <class Operand>
class Steps {
 public:
  // `shared` is what both threads see, and `own` is what this one keeps for itself; a thread alone has one memory.
  Steps(const fastvoc_recurrent& network, const void* packed, const fastvoc_steps& steps, int64_t first,
        int64_t streams, float* shared, float* own)
      : network_(network),
        layout_(network),
        steps_(steps),
        packed_(static_cast<const char*>(packed)),
        floats_(reinterpret_cast<const float*>(packed_ + layout_.floats_at)),
        work_(network, layout_, streams, shared),
        own_(network, layout_, streams, own),
        first_(first),
        streams_(streams) {
    for (int64_t l = 0; l < network.layers; ++l) rows_ += ring_of(l);
  }

  void run_alone() {
    for (int64_t t = 0; t < steps_.count; ++t) step_alone(t);
  }

  // `patience` is how long the companion may be waited for in a step, in nanoseconds. Returns how long it was in all.
  int64_t run_lead(Progress& progress, int64_t patience) {
    const int64_t layers = network_.layers;
    bool together = false, late = false;
    int64_t all = 0;
    for (int64_t t = 0; t < steps_.count; ++t) {
      if (together && late) {
        all += await(progress.looked, (t + 1) * layers);  // what it has begun, it must end
        progress.asked.store(kNobody, std::memory_order_release);
        together = false;
      } else if (!together && progress.ready.load(std::memory_order_acquire)) {
        progress.ready.store(0, std::memory_order_relaxed);
        progress.asked.store(t, std::memory_order_release);
        together = true;
      }
      if (!together) {
        step_alone(t);
        continue;
      }
      begin(t);
      int64_t row = 0, waited = 0;
      for (int64_t l = 0; l < layers; ++l) {
        const int64_t number = t * layers + l + 1;
        waited += await(progress.looked, number);
        advance_layer(l, row, t);
        progress.gates.store(number, std::memory_order_release);
        advance_residual(l);
        row += ring_of(l);
      }
      waited += await(progress.skips, t + 1);
      finish(t);
      late = waited > patience;
      all += waited;
    }
    if (!together) progress.asked.store(steps_.count, std::memory_order_release);
    return all;
  }

  void run_companion(Progress& progress) {
    const int64_t layers = network_.layers, count = steps_.count;
    const auto asked = [&] { return progress.asked.load(std::memory_order_acquire); };
    for (int64_t nap = 4; asked() < count; nap = smaller(4 * nap, 1024)) {
      progress.ready.store(1, std::memory_order_release);
      await([&] { return asked() != kNobody; });
      int64_t t = asked(), row = 0;
      for (int64_t l = 0; l < layers && t < count; ++l) {
        look_back_if_due(l, row, t);
        progress.looked.store(t * layers + l + 1, std::memory_order_release);
        row += ring_of(l);
      }
      for (; t < count && follow(progress, t); ++t) {
      }
      if (t >= count) return;
      // its core was taken away: it comes back in milliseconds, and each time in more of them
      for (int64_t i = 0; i < nap && asked() == kNobody; ++i)
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }

 private:
  int64_t ring_of(int64_t l) const { return (network_.taps - 1) * network_.dilations[l]; }
  // The block of samples that one is in. Those of different layers begin at different samples, so that no sample has to
  // wait for all of them.
  struct Block {
    int64_t begin, end;
  };
  Block block(int64_t l, int64_t t) const {
    const int64_t length = smaller(block_of(streams_), network_.dilations[l]), phase = l * 7 % length;
    const int64_t begin = (t + phase) / length * length - phase;
    return {larger(begin, 0), smaller(begin + length, steps_.count)};
  }

  void look_back_if_due(int64_t l, int64_t row, int64_t t) {
    if (const Block its = block(l, t); its.begin == t) look_back(l, row, t, its.end - t);
  }

  void step_alone(int64_t t) {
    begin(t);
    std::copy_n(work_.first, streams_ * layout_.skips, work_.skip);
    int64_t row = 0;
    for (int64_t l = 0; l < network_.layers; ++l) {
      look_back_if_due(l, row, t);
      advance_layer(l, row, t);
      add_skip(l);
      advance_residual(l);
      row += ring_of(l);
    }
    finish(t);
  }

  // The companion's part of a sample: its skips, and what the next one looks back on; or return that it was sent away.
  bool follow(Progress& progress, int64_t t) {
    const int64_t layers = network_.layers, before = t * layers;
    const auto gates = [&] { return progress.gates.load(std::memory_order_acquire); };
    const auto sent_away = [&] {
      const int64_t asked = progress.asked.load(std::memory_order_acquire);
      return asked == kNobody || asked == steps_.count;  // by now, the lead may have made all others alone
    };
    await([&] { return gates() > before || sent_away(); });
    if (gates() <= before) return false;
    std::copy_n(work_.first, streams_ * layout_.skips, work_.skip);
    int64_t skipped = 0, looked = 0, row = 0;
    while (skipped < layers || looked < layers) {
      if (skipped == looked) await(progress.gates, before + skipped + 1);
      // skips come first: the head waits for them
      if (skipped < layers && gates() > before + skipped) {
        add_skip(skipped);
        if (++skipped == layers) progress.skips.store(t + 1, std::memory_order_release);
        continue;
      }
      if (t + 1 < steps_.count) look_back_if_due(looked, row, t + 1);
      row += ring_of(looked);
      ++looked;
      progress.looked.store(before + layers + looked, std::memory_order_release);
    }
    return true;
  }

  // The input of all streams, and what it adds to the skips.
  void begin(int64_t t) {
    for (int64_t n = 0; n < streams_; ++n) {
      if (steps_.forced) push(n, steps_.forced[(first_ + n) * steps_.count + t]);
      take_input(n);
      std::copy_n(floats_ + layout_.skip_bias, layout_.skips, work_.first + n * layout_.skips);
    }
    if (!network_.first_skip) return;
    const Matrix<Operand> matrix(layout_.first_skip, packed_ + layout_.first_skip_at);
    multiply_all(matrix, columns<Operand>(work_.x, layout_.channels, network_.channels).of, work_.first, layout_.skips,
                 work_.first, layout_.skips);
  }

  // The current tap and the gates.
  void advance_layer(int64_t l, int64_t row, int64_t t) {
    const int64_t ring = ring_of(l), channels = layout_.channels, gates = layout_.gates;
    if (ring)
      for (int64_t n = 0; n < streams_; ++n)
        std::copy_n(work_.x + n * channels, network_.channels, ring_row(n, row, ring, t));
    const float scale = input_scale(network_, l, kDilated);
    by_operand<Operand>(scale, [&](auto kind) {
      using Kind = decltype(kind);
      const Matrix<Kind> matrix(layout_.current, layer(l) + layout_.past.template bytes<Kind>());
      multiply_all(matrix, columns<Kind>(work_.x, channels, network_.channels, scale).of, pre(l, t - block(l, t).begin), gates,
                   work_.g, gates);
    });
    const float out_scale = input_scale(network_, l, kOut);
    for (int64_t n = 0; n < streams_; ++n) {
      const float* const g = work_.g + n * gates;
      float* const z = z_of(l, n);
      for (int64_t c = 0; c < layout_.half; c += kLanes) {
        const Vector a = load(g + c), b = load(g + layout_.half + c);
        store(z + c, Operand::kCopied ? rational_gate(a, b) : exact_gate(a, b));
      }
      if constexpr (Operand::kCopied)
        by_operand<Operand>(out_scale, [&](auto kind) {
          using Kind = decltype(kind);
          const int64_t filled = layout_.residual.template filled<Kind>(0);
          column_of<Kind>(z, network_.gated, filled, out_scale, narrow_z(l, n));
        });
    }
  }

  // The gates of a layer as operands.
  template <class Kind, class Use>
  void with_gates(int64_t l, float scale, Use use) const {
    Column<Kind> x[kMostStreams];
    for (int64_t n = 0; n < streams_; ++n)
      if constexpr (Kind::kCopied) {
        x[n] = {static_cast<const typename Kind::Input*>(narrow_z(l, n)), scale};
      } else {
        x[n] = {z_of(l, n), 1};
      }
    use(x);
  }

  void advance_residual(int64_t l) {
    if (l + 1 == network_.layers) return;
    const int64_t channels = layout_.channels;
    const float* const bias = floats_ + layout_.residual_bias + l * channels;
    for (int64_t n = 0; n < streams_; ++n)
      for (int64_t c = n * channels; c < (n + 1) * channels; c += kLanes)
        store(work_.y + c, load(work_.x + c) + load(bias + c - n * channels));
    const float scale = input_scale(network_, l, kOut);
    by_operand<Operand>(scale, [&](auto kind) {
      using Kind = decltype(kind);
      const Matrix<Kind> matrix(layout_.residual, layer(l) + layout_.dilated_bytes);
      with_gates<Kind>(l, scale, [&](const Column<Kind>* x) {
        multiply_all(matrix, x, work_.y, channels, work_.x, channels);
      });
    });
    if (network_.residual_scale != 1)
      for (int64_t i = 0; i < streams_ * channels; i += kLanes)
        store(work_.x + i, load(work_.x + i) * network_.residual_scale);
  }

  void add_skip(int64_t l) {
    const float scale = input_scale(network_, l, kOut);
    by_operand<Operand>(scale, [&](auto kind) {
      using Kind = decltype(kind);
      const Matrix<Kind> matrix(layout_.skip,
                                layer(l) + layout_.dilated_bytes + layout_.residual.template bytes<Kind>());
      with_gates<Kind>(l, scale, [&](const Column<Kind>* x) {
        multiply_all(matrix, x, work_.skip, layout_.skips, work_.skip, layout_.skips);
      });
    });
  }

  // Append to the inputs of a stream.
  void push(int64_t n, float value) {
    float* const history = steps_.history + (first_ + n) * network_.input_taps;
    std::copy(history + 1, history + network_.input_taps, history);
    history[network_.input_taps - 1] = value;
  }

  void take_input(int64_t n) {
    const float* const history = steps_.history + (first_ + n) * network_.input_taps;
    float* const x = work_.x + n * layout_.channels;
    std::copy_n(floats_ + layout_.input_bias, layout_.channels, x);
    for (int64_t i = 0; i < network_.input_taps; ++i) {
      int64_t row = i;
      float factor = history[i];
      if (network_.distribution == FASTVOC_CLASSES) {
        const float last = network_.outputs - 1;  // whatever a caller's memory holds
        row = i * network_.outputs + (history[i] > 0 ? int64_t(std::min(history[i], last)) : 0);
        factor = 1;
      }
      const float* const from = floats_ + row * layout_.channels;
      for (int64_t c = 0; c < layout_.channels; c += kLanes) store(x + c, load(x + c) + load(from + c) * factor);
    }
  }

  const char* layer(int64_t l) const { return packed_ + l * layout_.layer_bytes; }
  float* z_of(int64_t l, int64_t n) const { return work_.z + (l * streams_ + n) * layout_.half; }
  void* narrow_z(int64_t l, int64_t n) const { return work_.narrow_z + (l * streams_ + n) * work_.z_room; }

  float* pre(int64_t layer, int64_t sample) const {
    return work_.pre + (layer * block_of(streams_) + sample) * streams_ * layout_.gates;
  }

  float* ring_row(int64_t n, int64_t row, int64_t ring, int64_t t) const {
    const int64_t at = (steps_.time[first_ + n] + t) % ring;
    return steps_.rings + ((first_ + n) * rows_ + row + at) * network_.channels;
  }

  template <class Kind>
  void* room(int64_t column) const {
    return own_.narrow + column * own_.room;
  }

  // What the gates of a block of samples add up before the current tap: the bias, the other taps, and the condition.
  void look_back(int64_t l, int64_t row, int64_t t, int64_t count) {
    const int64_t gates = layout_.gates;
    for (int64_t n = 0; n < streams_; ++n) {
      float* const bias = own_.bias + n * gates;
      std::copy_n(floats_ + layout_.dilated_bias + l * gates, gates, bias);
      if (!steps_.gates) continue;
      const float* const added = steps_.gates + ((first_ + n) * network_.layers + l) * 2 * network_.gated;
      for (int64_t c = 0; c < network_.gated; ++c)
        bias[c] += added[c], bias[layout_.half + c] += added[network_.gated + c];
    }
    const float scale = input_scale(network_, l, kDilated);
    by_operand<Operand>(scale, [&](auto kind) {
      using Kind = decltype(kind);
      const Matrix<Kind> matrix(layout_.past, layer(l));
      const int64_t taps = network_.taps - 1, ring = ring_of(l), all = count * streams_;
      Column<Kind> x[(kMostTaps + 1) * kColumns];
      const float* init[kColumns];
      float* out[kColumns];
      for (int64_t i = 0; i < all; ++i) {
        const int64_t n = i % streams_, sample = i / streams_;
        init[i] = own_.bias + n * gates;
        out[i] = pre(l, sample) + n * gates;
        char* to = static_cast<char*>(room<Kind>(i));
        const auto add = [&](int s, const float* from, float scale_of_it) {
          const int64_t filled = layout_.past.template filled<Kind>(s);
          x[s * all + i] = column_of<Kind>(from, layout_.past.columns[s], filled, scale_of_it, to);
          to += filled * sizeof(typename Kind::Input);
        };
        // the ring holds the latest `ring` samples, of which j = 0 is the oldest; and it is read before it is written
        for (int64_t j = 0; j < taps; ++j)
          add(int(j), ring_row(n, row, ring, t + sample + ring - (taps - j) * network_.dilations[l]), scale);
        if (network_.condition)
          add(int(taps), steps_.condition + ((first_ + n) * steps_.count + t + sample) * network_.condition, 0);
      }
      multiply<Kind, kFlat>(matrix, all, x, init, out);
    });
  }

  // Vectors of all streams as operands.
  template <class Kind>
  struct Columns {
    Column<Kind> of[2 * kMostStreams];
  };

  template <class Kind>
  Columns<Kind> columns(const float* x, int64_t step, int64_t count, float scale = 0) const {
    Columns<Kind> result;
    for (int64_t n = 0; n < streams_; ++n)
      result.of[n] = column_of<Kind>(x + n * step, count, round_up(count, Kind::kGroup), scale, room<Kind>(n));
    return result;
  }

  // out = init + matrix x, for all streams.
  template <class Kind>
  void multiply_all(const Matrix<Kind>& matrix, const Column<Kind>* x, const float* init, int64_t init_step, float* out,
                    int64_t out_step) const {
    const float* inits[kMostStreams];
    float* outs[kMostStreams];
    for (int64_t n = 0; n < streams_; ++n) inits[n] = init + n * init_step, outs[n] = out + n * out_step;
    multiply<Kind, kTall>(matrix, streams_, x, inits, outs);
  }

  static void rectify(float* x, int64_t count, float scale) {
    for (int64_t c = 0; c < count; c += kLanes) {
      const Vector v = load(x + c) * scale;
      store(x + c, v < 0 ? Vector{} : v);
    }
  }

  void finish(int64_t t) {
    rectify(work_.skip, streams_ * layout_.skips, network_.skip_scale);
    auto x = columns<Operand>(work_.skip, layout_.skips, network_.skips);
    if (network_.hidden_condition)
      for (int64_t n = 0; n < streams_; ++n) {
        const float* const from = steps_.condition + ((first_ + n) * steps_.count + t) * network_.condition;
        const int64_t skips = layout_.hidden.template filled<Operand>(0) * int64_t(sizeof(typename Operand::Input));
        x.of[streams_ + n] =
            column_of<Operand>(from, network_.condition, layout_.hidden.template filled<Operand>(1), 0,
                               static_cast<char*>(room<Operand>(n)) + skips);
      }
    const int64_t hidden = layout_.hidden.rows, outputs = layout_.output.rows;
    multiply_all(Matrix<Operand>(layout_.hidden, packed_ + layout_.hidden_at), x.of, floats_ + layout_.hidden_bias, 0,
                 work_.hidden, hidden);
    rectify(work_.hidden, streams_ * hidden, 1);
    multiply_all(Matrix<Operand>(layout_.output, packed_ + layout_.output_at),
                 columns<Operand>(work_.hidden, hidden, network_.hidden).of, floats_ + layout_.output_bias, 0,
                 work_.outputs, outputs);
    const int64_t numbers = network_.distribution == FASTVOC_LOGISTICS ? 2 : 1;
    for (int64_t n = 0; n < streams_; ++n) {
      const int64_t stream = first_ + n, at = stream * steps_.count + t;
      float* const parameters = work_.outputs + n * outputs;
      if (steps_.parameters) std::copy_n(parameters, network_.outputs, steps_.parameters + at * network_.outputs);
      if (!steps_.drawn) continue;
      const float* const noise = steps_.noise + stream * numbers * steps_.count + t;
      steps_.drawn[at] = draw(network_, parameters, steps_.temperature[stream], noise, steps_.count);
      if (!steps_.forced) push(n, steps_.drawn[at]);
    }
  }

  const fastvoc_recurrent& network_;
  const Layout<Operand> layout_;
  const fastvoc_steps& steps_;
  const char* const packed_;
  const float* const floats_;
  const Workspace<Operand> work_, own_;
  const int64_t first_, streams_;
  int64_t rows_ = 0;
};

}  // namespace fastvoc::FASTVOC_ISA
