// gated on the CPU: a layer of WaveGlow over tiles of rows, with the gate in the registers between its products.
//
//     rows     [row][channel]          x in the form in which the convolution reads it
//     added    [row][tanh | sigmoid]   the product of the condition; where rows are of several phases, of one after the
//                                      other, whose weights are so many that each is to be read once
//     gates    [row][gate]             in the form in which the products behind the gate read it
//
// The rows of tanh and of the sigmoid stand side by side in panels of two vectors, whatever the order of the weights: so
// a finished panel has both halves of its gates. By Toom and Cook's method the convolution takes all rows at once, and
// the products before and behind it tile by tile; otherwise a tile passes all three while it is in the cache.

#include "../fastvoc_gated.h"

#include "../isa.h"
#include "kernels/gate.h"
#include "kernels/toom_cook.h"
#include "plan/ahead.h"
#include "recurrent/gate.h"

namespace fastvoc::FASTVOC_ISA {
namespace {

// Rows of the condition and of x that a tile holds, in a second-level cache of 1 MiB beside a panel of weights.
constexpr int64_t kHeldFloats = 112 * 1024;

// Rows for which it is asked whether Toom and Cook's method pays: any number, since a row has to be summed alike in
// calls of any length.
constexpr int64_t kTypicalBlocks = 8;

template <class P>
struct Sizes {
  // Rows that products read at once, though some may not be there.
  static constexpr int64_t kUnit = std::is_same_v<P, Float32> ? kRows : kReadRows;

  fastvoc_call conv, condition, residual, skip;
  bool toom_cook, reads_x;  // where it lies, which that method does
  int64_t gates;                         // whole vectors
  int64_t row, condition_row, gate_row, added_row;  // elements from one row to the next
  int64_t condition_rows;  // of one item, where they are of several phases; else 0
  int64_t height, tiles;
  // Shares of threads in a convolution by Toom and Cook's method: rows in whole blocks, and panels.
  int64_t row_shares, panel_shares, share_rows;
  // In the packed weights, in bytes.
  int64_t bias, residual_bias, skip_bias, conv_weight, condition_weight, residual_weight, skip_weight, packed;
  int64_t condition_size;  // of one phase
  // In the workspace, in bytes.
  int64_t rows, condition_frames, added, gated, own, own_size, workspace;

  explicit Sizes(const fastvoc_gated& call) {
    const int threads = call.threads;
    gates = round_up(call.gates, kLanes);
    conv = product_of(call.isa, threads, call.channels, 2 * gates);
    conv.taps = call.taps;
    conv.dilation = call.dilation;
    condition = product_of(call.isa, threads, call.condition, 2 * gates);
    condition.taps = call.condition_taps;
    residual = product_of(call.isa, threads, call.gates, call.channels);
    skip = product_of(call.isa, threads, call.gates, call.skips);
    toom_cook = std::is_same_v<P, Float32> && !call.in_order && call.taps > 2 &&
                toom_cook_pays(conv, kTypicalBlocks * toom_cook_block(conv));
    reads_x = toom_cook && call.channels >= kLanes;  // it reads whole vectors
    row = P::row_length(conv);
    condition_row = P::row_length(condition);
    gate_row = larger(gates, larger(P::row_length(residual), P::row_length(skip)));

    // As many tiles for each thread, of whole units.
    const bool by_phases = call.phases > 1 || call.condition_taps > 1;
    const int64_t widest = larger(by_phases ? 0 : condition_row, toom_cook ? gate_row : row), frames = larger(call.frames, 1);
    const int64_t held = larger(kHeldFloats / widest, 2 * kChunk);
    tiles = round_up((frames + held - 1) / held, threads);
    height = round_up((frames + tiles - 1) / tiles, kUnit);
    tiles = (frames + height - 1) / height;

    int64_t bytes = 0;
    const auto place = [&](int64_t size) {
      const int64_t at = bytes;
      bytes += round_up(size, 64);
      return at;
    };
    bias = place(2 * gates * sizeof(float));
    residual_bias = place(call.channels * sizeof(float));
    skip_bias = place(call.skips * sizeof(float));
    conv_weight = place(toom_cook ? toom_cook_packed_floats(conv) * sizeof(float) : P::packed_bytes(conv, row));
    condition_size = round_up(P::packed_bytes(condition, condition_row), 64);
    condition_weight = place(call.phases * condition_size);
    residual_weight = place(P::packed_bytes(residual, gate_row));
    skip_weight = place(P::packed_bytes(skip, gate_row));
    packed = bytes;

    const int64_t padded = tiles * height;
    bytes = 0;
    rows = place(reads_x ? 0 : (padded + span_of(conv)) * row * sizeof(typename P::Element) + kLanes * sizeof(float));
    condition_rows = by_phases ? (call.offset + frames - 1) / call.phases + call.condition_taps : 0;
    condition_frames = place((condition_rows + kUnit) * condition_row * sizeof(typename P::Element));
    added_row = 2 * gates + (by_phases ? 16 : 0);  // lest rows of one phase share a set of the cache
    added = place(padded * added_row * sizeof(float));
    gated = place(padded * gate_row * sizeof(typename P::Element));
    own = bytes;
    own_size = by_phases ? 0 : round_up(height * condition_row * sizeof(typename P::Element), 64);
    row_shares = panel_shares = 1;
    share_rows = frames;
    if (toom_cook) {
      const int64_t block = toom_cook_block(conv), blocks = (frames + block - 1) / block;
      row_shares = smaller(threads, blocks);
      share_rows = (blocks + row_shares - 1) / row_shares * block;
      panel_shares = smaller(threads / row_shares, gates / kLanes);
      own_size = larger(own_size, round_up(toom_cook_workspace_floats(conv, smaller(share_rows, frames), true), 16) *
                                      int64_t(sizeof(float)));
    }
    bytes += threads * own_size;
    // weights in the order of panels, before they are packed, take the same memory
    workspace = larger(bytes, 2 * gates * larger(call.channels * call.taps, call.condition * call.condition_taps) *
                                  int64_t(sizeof(float)));
  }
};

template <class Function>
auto precisely(const fastvoc_gated& call, Function function) {
  return in_float_precision(call.precision, function);
}

int check(const fastvoc_gated& call) { return check_float_precision(call.precision); }

int64_t packed_size(const fastvoc_gated& call) {
  return precisely(call, [&](auto precision) { return Sizes<decltype(precision)>(call).packed; });
}

int64_t workspace_size(const fastvoc_gated& call) {
  return precisely(call, [&](auto precision) { return Sizes<decltype(precision)>(call).workspace; });
}

// Bring rows of both halves into the order of panels: a vector of each in turn, and zeros beyond the gates.
void interleave(const fastvoc_gated& call, const float* from, int64_t length, float* to) {
  const int64_t gates = round_up(call.gates, kLanes);
  for (int64_t row = 0; row < 2 * gates; ++row) {
    const int64_t gate = row / (2 * kLanes) * kLanes + row % kLanes, half = row / kLanes % 2;
    for (int64_t i = 0; i < length; ++i)
      to[row * length + i] = gate < call.gates ? from[(half * call.gates + gate) * length + i] : 0;
  }
}

void pack(const fastvoc_gated& call, const fastvoc_gated_weights& weights, void* packed, void* workspace) {
  precisely(call, [&](auto precision) {
    using P = decltype(precision);
    using Element = typename P::Element;
    const Sizes<P> sizes(call);
    float* const ordered = static_cast<float*>(workspace);
    interleave(call, weights.bias, 1, at<float>(packed, sizes.bias));
    interleave(call, weights.weight, call.channels * call.taps, ordered);
    if (sizes.toom_cook) {
      toom_cook_pack(sizes.conv, conv_weights(sizes.conv, ordered), at<float>(packed, sizes.conv_weight));
    } else {
      P::pack(sizes.conv, sizes.row, ordered, at<Element>(packed, sizes.conv_weight));
    }
    const int64_t length = call.condition * call.condition_taps;
    for (int64_t phase = 0; phase < call.phases; ++phase) {
      interleave(call, weights.condition + phase * 2 * call.gates * length, length, ordered);
      P::pack(sizes.condition, sizes.condition_row, ordered,
              at<Element>(packed, sizes.condition_weight + phase * sizes.condition_size));
    }
    for (int64_t c = 0; call.residual && c < call.channels; ++c)
      at<float>(packed, sizes.residual_bias)[c] = weights.residual_bias[c];
    if (call.residual)
      P::pack(sizes.residual, sizes.gate_row, weights.residual, at<Element>(packed, sizes.residual_weight));
    for (int64_t c = 0; c < call.skips; ++c) at<float>(packed, sizes.skip_bias)[c] = weights.skip_bias[c];
    P::pack(sizes.skip, sizes.gate_row, weights.skip, at<Element>(packed, sizes.skip_weight));
    return 0;
  });
}

// A row in the form in which products read it, with zeros up to `length`.
template <class P>
void store_row(const float* from, int64_t count, typename P::Element* to, int64_t length) {
  int64_t c = 0;
  for (; c + kLanes <= count; c += kLanes) P::store(to + c, load(from + c));
  for (; c < length; ++c) P::store(to + c, c < count ? from[c] : 0.0f);
}

// Rows are a few lines each, farther apart than what hardware sees through: those of the next chunk are asked for while
// it is multiplied. For reading, or for `Writing`.
template <bool Writing>
void ask_for(const float* rows, int64_t frame, int64_t first, int64_t end, int64_t width) {
  for (int64_t r = first; r < end; ++r)
    for (int64_t i = 0; i < width; i += 16) __builtin_prefetch(rows + r * frame + i, Writing, 2);
}

template <class P>
struct Run {
  using Element = typename P::Element;

  const fastvoc_gated& call;
  const Sizes<P> sizes;
  const fastvoc_gated_input &x, &c, &s;
  const void* packed;
  const fastvoc_gated_output &residual, &skip;
  void* workspace;

  Element* rows() const { return at<Element>(workspace, sizes.rows); }
  Element* condition_frames() const { return at<Element>(workspace, sizes.condition_frames); }
  float* added() const { return at<float>(workspace, sizes.added); }
  Element* gated() const { return at<Element>(workspace, sizes.gated); }

  // Call a function with every number below `count`, by all threads.
  template <class Function>
  void in_threads(int64_t count, Function function) const {
#pragma omp parallel for num_threads(call.threads) schedule(static, 1) if (call.threads > 1)
    for (int64_t worker = 0; worker < call.threads; ++worker)
      for (int64_t i = worker; i < count; i += call.threads) function(i, worker);
  }

  // All panels of a product of a tile.
  template <class ToMemory>
  void multiply(const fastvoc_call& product, const Element* from, int64_t row, int64_t height, int64_t weight,
                const float* bias, ToMemory to_memory) const {
    alignas(64) float sums[kChunk * 2 * kLanes + kLanes * kLanes];
    const Element* const weights = at<Element>(packed, weight);
    P::for_each_panel(product, row, [&](const Panel& panel) {
      convolve_panel_ahead<P>(
          panel, product, from, row, height, weights, bias, sums,
          [&](const float* finished, int64_t chunk, int64_t count) { to_memory(panel, finished, chunk, count); });
    });
  }

  // Rows [first, first + count) of a panel of the convolution become gates, to the digits that operands have.
  void gate(int64_t panel, const float* sums, int64_t first, int64_t count) const {
    const float* a = added() + first * sizes.added_row + panel;
    ask_for<false>(a, sizes.added_row, count, smaller(2 * count, call.frames - first), 2 * kLanes);
    Element* to = gated() + first * sizes.gate_row + panel / 2;
    for (int64_t r = 0; r < count; ++r, sums += 2 * kLanes, a += sizes.added_row, to += sizes.gate_row) {
      const Vector first_half = load(sums) + load(a), second = load(sums + kLanes) + load(a + kLanes);
      P::store(to, std::is_same_v<P, Float32> ? gate_by_exponentials(first_half, second)
                                              : rational_gate(first_half, second));
    }
  }

  void condition(int64_t batch, int64_t begin, int64_t height, int64_t worker) const {
    Element* const own = at<Element>(workspace, sizes.own + worker * sizes.own_size);
    const float* const from = c.data + batch * c.batch + begin * c.frame;
    const int64_t row = sizes.condition_row;
    for (int64_t r = 0; r < sizes.height; ++r)
      store_row<P>(from + r * c.frame, r < height ? call.condition : 0, own + r * row, row);
    multiply(sizes.condition, own, row, height, sizes.condition_weight, nullptr,
             [&](const Panel& panel, const float* sums, int64_t chunk, int64_t count) {
               hold(panel, sums, begin + chunk, 1, count);
             });
  }

  // Sums of a panel of the condition wait for those of the convolution: `count` rows from `first` on, `step` apart.
  void hold(const Panel& panel, const float* sums, int64_t first, int64_t step, int64_t count) const {
    float* to = added() + first * sizes.added_row + panel.first;
    ask_for<true>(to, step * sizes.added_row, count, smaller(2 * count, (call.frames - first - 1) / step + 1), 2 * kLanes);
    for (int64_t r = 0; r < count; ++r, sums += 2 * kLanes, to += step * sizes.added_row) {
      store(to, load(sums));
      store(to + kLanes, load(sums + kLanes));
    }
  }

  // All rows of one phase.
  void condition_of(int64_t phase) const {
    const int64_t begin = phase < call.offset, first = begin * call.phases + phase - call.offset;
    if (first >= call.frames) return;
    multiply(sizes.condition, condition_frames() + begin * sizes.condition_row, sizes.condition_row,
             (call.frames - first - 1) / call.phases + 1, sizes.condition_weight + phase * sizes.condition_size, nullptr,
             [&](const Panel& panel, const float* sums, int64_t chunk, int64_t count) {
               hold(panel, sums, first + chunk * call.phases, call.phases, count);
             });
  }

  void convolve(int64_t begin, int64_t height) const {
    multiply(sizes.conv, rows() + begin * sizes.row, sizes.row, height, sizes.conv_weight,
             at<float>(packed, sizes.bias), [&](const Panel& panel, const float* sums, int64_t chunk, int64_t count) {
               gate(panel.first, sums, begin + chunk, count);
             });
  }

  void convolve_by_toom_cook(int64_t batch, int64_t share, int64_t worker) const {
    const int64_t begin = share / sizes.panel_shares * sizes.share_rows;
    const int64_t count = smaller(sizes.share_rows, call.frames - begin);
    const int64_t part = share % sizes.panel_shares, panels = sizes.gates / kLanes;
    const int64_t first = part * panels / sizes.panel_shares, last = (part + 1) * panels / sizes.panel_shares;
    if (count <= 0) return;
    fastvoc_call conv = sizes.conv;
    conv.out_channels = (last - first) * 2 * kLanes;
    const int64_t width = toom_cook_packed_floats(sizes.conv) / panels;  // of a panel
    if constexpr (std::is_same_v<P, Float32>) {
      const float* const from = sizes.reads_x ? x.data + batch * x.batch : rows();
      const int64_t row = sizes.reads_x ? x.frame : sizes.row;
      toom_cook(
          conv, from + begin * row, row, count, at<float>(packed, sizes.conv_weight) + first * width,
          at<float>(packed, sizes.bias) + first * 2 * kLanes,
          at<float>(workspace, sizes.own + worker * sizes.own_size), [](int64_t, auto run) { run(); },
          [&](const Panel& panel, const float* sums, int64_t r, int64_t height) {
            gate(first * 2 * kLanes + panel.first, sums, begin + r, height);
          },
          true);
    }
  }

  // `to` = `skip` + product of the gates, of rows [begin, begin + height).
  void connect(const fastvoc_call& product, int64_t weight, int64_t bias, const float* skip_data, int64_t skip_frame,
               float* to_data, int64_t to_frame, int64_t begin, int64_t height) const {
    multiply(product, gated() + begin * sizes.gate_row, sizes.gate_row, height, weight, at<float>(packed, bias),
             [&](const Panel& panel, const float* sums, int64_t chunk, int64_t count) {
               const int64_t width = smaller(panel.width, product.out_channels - panel.first);
               // of this panel, or of the first rows of the next one
               const int64_t next = chunk + count < height ? chunk + count : 0;
               const int64_t channel = next ? panel.first : panel.first + panel.width, last = smaller(next + kChunk, height);
               if (channel < product.out_channels) {
                 if (skip_data)
                   ask_for<false>(skip_data + channel, skip_frame, begin + next, begin + last, panel.width);
                 ask_for<true>(to_data + channel, to_frame, begin + next, begin + last, panel.width);
               }
               const float* from = skip_data ? skip_data + (begin + chunk) * skip_frame + panel.first : nullptr;
               float* to = to_data + (begin + chunk) * to_frame + panel.first;
               const int64_t from_row = skip_frame, to_row = to_frame;  // which no store can change
               if (from && width == 2 * kLanes) {
                 for (int64_t r = 0; r < count; ++r, sums += 2 * kLanes, from += from_row, to += to_row) {
                   store(to, load(from) + load(sums));
                   store(to + kLanes, load(from + kLanes) + load(sums + kLanes));
                 }
                 return;
               }
               for (int64_t r = 0; r < count; ++r, sums += panel.width, from += from ? from_row : 0, to += to_row) {
                 int64_t i = 0;
                 for (; i + kLanes <= width; i += kLanes)
                   store(to + i, from ? load(from + i) + load(sums + i) : load(sums + i));
                 for (; i < width; ++i) to[i] = from ? from[i] + sums[i] : sums[i];
               }
             });
  }

  void connect(int64_t batch, int64_t begin, int64_t height) const {
    if (call.residual)
      connect(sizes.residual, sizes.residual_weight, sizes.residual_bias,
              x.data + batch * x.batch + call.before * x.frame, x.frame, residual.data + batch * residual.batch,
              residual.frame, begin, height);
    connect(sizes.skip, sizes.skip_weight, sizes.skip_bias, s.data ? s.data + batch * s.batch : nullptr, s.frame,
            skip.data + batch * skip.batch, skip.frame, begin, height);
  }

  void item(int64_t batch) const {
    const auto each_tile = [&](auto function) {
      in_threads(sizes.tiles, [&](int64_t tile, int64_t worker) {
        const int64_t begin = tile * sizes.height;
        function(begin, smaller(sizes.height, call.frames - begin), worker);
      });
    };
    const int64_t read = call.frames + span_of(sizes.conv), padded = sizes.tiles * sizes.height;
    in_threads(sizes.reads_x ? 0 : padded + span_of(sizes.conv), [&](int64_t r, int64_t) {
      store_row<P>(x.data + batch * x.batch + r * x.frame, r < read ? call.channels : 0, rows() + r * sizes.row,
                   sizes.row);
    });
    // rows beyond the last are multiplied with the others, and so are columns beyond the gates
    for (int64_t r = 0; r < padded; ++r)
      for (int64_t i = r < call.frames ? sizes.gates : 0; i < sizes.gate_row; ++i)
        P::store(gated() + r * sizes.gate_row + i, 0.0f);
    const bool by_phases = sizes.condition_rows > 0;
    if (by_phases) {
      in_threads(sizes.condition_rows + sizes.kUnit, [&](int64_t r, int64_t) {
        store_row<P>(c.data + batch * c.batch + r * c.frame, r < sizes.condition_rows ? call.condition : 0,
                     condition_frames() + r * sizes.condition_row, sizes.condition_row);
      });
      in_threads(call.phases, [&](int64_t phase, int64_t) { condition_of(phase); });
    }
    if (!sizes.toom_cook)
      return each_tile([&](int64_t begin, int64_t height, int64_t worker) {
        if (!by_phases) condition(batch, begin, height, worker);
        convolve(begin, height);
        connect(batch, begin, height);
      });
    if (!by_phases)
      each_tile([&](int64_t begin, int64_t height, int64_t worker) { condition(batch, begin, height, worker); });
    in_threads(sizes.row_shares * sizes.panel_shares,
               [&](int64_t share, int64_t worker) { convolve_by_toom_cook(batch, share, worker); });
    each_tile([&](int64_t begin, int64_t height, int64_t) { connect(batch, begin, height); });
  }
};

void run(const fastvoc_gated& call, const fastvoc_gated_input& x, const fastvoc_gated_input& c,
         const fastvoc_gated_input& s, const void* packed, const fastvoc_gated_output& residual,
         const fastvoc_gated_output& skip, void* workspace) {
  precisely(call, [&](auto precision) {
    using P = decltype(precision);
    const Run<P> run{call, Sizes<P>(call), x, c, s, packed, residual, skip, workspace};
    for (int64_t batch = 0; batch < call.batch; ++batch) run.item(batch);
    return 0;
  });
}

}  // namespace

const Gated gated = {check, packed_size, workspace_size, pack, run};

}  // namespace fastvoc::FASTVOC_ISA
