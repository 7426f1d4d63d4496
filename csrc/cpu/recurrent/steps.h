// The steps of a group of streams, by one thread or by two.
//
// Two threads divide a step by what waits for what. The lead goes along the residual path, which one layer hands to the
// next, and does the head. Its companion follows with what the path does not wait for: each layer's skip, as soon as its
// gates are there, and, in between, what coming samples look back on. They tell each other how far they are by counting.
#pragma once

#include <atomic>
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

// How far one thread of two is; each count in a line of memory of its own.
struct Progress {
  alignas(64) std::atomic<int64_t> gates{0};   // layers whose gates are there, over all samples
  alignas(64) std::atomic<int64_t> looked{0};  // layers that are looked back for, over all samples
  alignas(64) std::atomic<int64_t> skips{0};   // samples whose skips are summed
};

static inline void await(const std::atomic<int64_t>& count, int64_t least) {
  constexpr int kSpins = 200;  // a few microseconds; then the core may be needed by the thread that is waited for
  for (int spins = 0; count.load(std::memory_order_acquire) < least; ++spins) {
    if (spins < kSpins) {
      pause();
    } else {
      std::this_thread::yield();
    }
  }
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
    ends = take(network.layers * 2 * 2);
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
  float *progress, *ends, *x, *y, *g, *z, *first, *skip, *hidden, *outputs, *bias, *narrow_z, *narrow, *pre;
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
        ends_(reinterpret_cast<int64_t*>(own_.ends)),
        first_(first),
        streams_(streams) {
    for (int64_t l = 0; l < network.layers; ++l) {
      rows_ += ring_of(l);
      // blocks of different layers begin at different samples, so that no sample has to wait for all of them
      const int64_t block = smaller(block_of(streams), network.dilations[l]);
      begin_of(l) = 0, end_of(l) = -(l * 7 % block);
    }
  }

  void run_alone() {
    for (int64_t t = 0; t < steps_.count; ++t) {
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
  }

  void run_lead(Progress& progress) {
    for (int64_t t = 0; t < steps_.count; ++t) {
      begin(t);
      int64_t row = 0;
      for (int64_t l = 0; l < network_.layers; ++l) {
        const int64_t number = t * network_.layers + l + 1;
        await(progress.looked, number);
        count_block(l, t);
        advance_layer(l, row, t);
        progress.gates.store(number, std::memory_order_release);
        advance_residual(l);
        row += ring_of(l);
      }
      await(progress.skips, t + 1);
      finish(t);
    }
  }

  void run_companion(Progress& progress) {
    int64_t row = 0;
    for (int64_t l = 0; l < network_.layers; ++l) {
      look_back_if_due(l, row, 0);
      progress.looked.store(l + 1, std::memory_order_release);
      row += ring_of(l);
    }
    for (int64_t t = 0; t < steps_.count; ++t) {
      const int64_t before = t * network_.layers;
      int64_t skipped = 0, looked = 0;
      row = 0;
      while (skipped < network_.layers || looked < network_.layers) {
        if (skipped == looked) await(progress.gates, before + skipped + 1);
        // skips come first: the head waits for them
        if (skipped < network_.layers && progress.gates.load(std::memory_order_acquire) > before + skipped) {
          if (skipped == 0) std::copy_n(work_.first, streams_ * layout_.skips, work_.skip);
          add_skip(skipped);
          if (++skipped == network_.layers) progress.skips.store(t + 1, std::memory_order_release);
          continue;
        }
        if (t + 1 < steps_.count) look_back_if_due(looked, row, t + 1);
        row += ring_of(looked);
        ++looked;
        progress.looked.store(before + network_.layers + looked, std::memory_order_release);
      }
    }
  }

 private:
  int64_t ring_of(int64_t l) const { return (network_.taps - 1) * network_.dilations[l]; }
  int64_t& begin_of(int64_t l) const { return ends_[2 * l]; }
  int64_t& end_of(int64_t l) const { return ends_[2 * l + 1]; }

  // Whether a block of samples begins; and note where it ends.
  bool count_block(int64_t l, int64_t t) {
    if (t < end_of(l)) return false;
    const int64_t block = smaller(block_of(streams_), network_.dilations[l]);
    begin_of(l) = t, end_of(l) = smaller(t + block + (t ? 0 : end_of(l)), steps_.count);
    return true;
  }

  void look_back_if_due(int64_t l, int64_t row, int64_t t) {
    if (count_block(l, t)) look_back(l, row, t, end_of(l) - t);
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
      multiply_all(matrix, columns<Kind>(work_.x, channels, network_.channels, scale).of, pre(l, t - begin_of(l)), gates,
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
  int64_t* const ends_;
  const int64_t first_, streams_;
  int64_t rows_ = 0;
};

}  // namespace fastvoc::FASTVOC_ISA
