// Direct convolution with dot product instructions: direct.h for operands of 16 or 8 bits, summed in 32.
//
// A lane takes a word of 32 bits at once: two bfloat16 channels or four 8-bit ones. So a row is read word by word where
// direct.h reads channel by channel, and panels of less than two vectors take `group` words per step. What a word is,
// and which instruction multiplies and adds it, is the template parameter Dot; what a finished sum becomes is Finish.
// Where Dot::kAhead is not 0, weights that come from memory are asked for so many elements before they are read.
//
// These instructions take longer than a multiply-add (vdpbf16ps six cycles, two begun in each, on Zen 5), so that a
// panel of one vector needs 24 rows to keep them busy. An output is summed in one order in blocks of any height.
#pragma once

#include <immintrin.h>

#include "direct.h"

namespace fastvoc::FASTVOC_ISA {

typedef __m512i Words;

template <class Dot>
inline int64_t words_of(const fastvoc_call& call) {
  return (call.in_channels + Dot::kDepth - 1) / Dot::kDepth;
}

// The panel that begins at an output channel, in elements of Dot.
template <class Dot>
inline Panel dot_panel_at(int64_t first, const fastvoc_call& call, int64_t offset) {
  Panel panel = panel_at(first, call.out_channels, offset);
  // Words beyond the input would be zeros.
  while (panel.group > 1 && panel.group / 2 * Dot::kDepth >= call.in_channels) {
    panel.group /= 2;
    panel.width *= 2;
  }
  // A word per instruction is more than can be loaded: two words feed two vectors.
  if (panel.width == kLanes && call.in_channels > Dot::kDepth) panel.group = 2;
  if (panel.width == 8 && words_of<Dot>(call) == 4) panel.group = 1;
  return panel;
}

// Eight outputs of rows of four words need no groups: four whole rows are a vector.
inline bool is_quartered(const Panel& panel) { return panel.width == 8 && panel.group == 1; }

template <class Dot>
inline int64_t dot_steps(const Panel& panel, const fastvoc_call& call) {
  return (words_of<Dot>(call) + panel.group - 1) / panel.group;
}

template <class Dot>
inline int64_t dot_panel_elements(const Panel& panel, const fastvoc_call& call) {
  return call.taps * dot_steps<Dot>(panel, call) * panel.group * panel.width * Dot::kDepth;
}

template <class Dot, class Visit>
inline void dot_for_each_panel(const fastvoc_call& call, Visit visit) {
  int64_t offset = 0;
  for (int64_t first = 0; first < call.out_channels;) {
    const Panel panel = dot_panel_at<Dot>(first, call, offset);
    visit(panel);
    first += panel.width;
    offset += dot_panel_elements<Dot>(panel, call);
  }
}

// Channels of a row that are read, with the zeros at its end.
template <class Dot>
inline int64_t dot_row_length(const fastvoc_call& call) {
  int64_t length = 0;
  dot_for_each_panel<Dot>(call, [&](const Panel& panel) {
    length = larger(length, dot_steps<Dot>(panel, call) * panel.group * Dot::kDepth);
  });
  return length;
}

template <class Dot>
inline int64_t dot_packed_elements(const fastvoc_call& call) {
  int64_t elements = 0;
  dot_for_each_panel<Dot>(call, [&](const Panel& panel) { elements += dot_panel_elements<Dot>(panel, call); });
  return elements;
}

// Lay weights out as they are read; `weight(out, in, tap)` gives them, and zero ends rows and panels.
template <class Dot, class Weight>
inline void dot_pack(const fastvoc_call& call, Weight weight, typename Dot::Weight* packed) {
  dot_for_each_panel<Dot>(call, [&](const Panel& panel) {
    const int64_t steps = dot_steps<Dot>(panel, call), lanes = panel.group * panel.width, depth = Dot::kDepth;
#pragma omp parallel for num_threads(call.threads) if (call.taps * call.in_channels * lanes > 65536)
    for (int64_t step = 0; step < steps; ++step)
      for (int64_t tap = 0; tap < call.taps; ++tap)
        for (int64_t lane = 0; lane < lanes; ++lane)
          for (int64_t part = 0; part < depth; ++part) {
            const int64_t out = panel.first + lane / panel.group;
            const int64_t in = (step * panel.group + lane % panel.group) * depth + part;
            const bool inside = out < call.out_channels && in < call.in_channels;
            packed[panel.offset + ((tap * steps + step) * lanes + lane) * depth + part] =
                inside ? weight(out, in, tap) : typename Dot::Weight{0};
          }
  });
}

// `Group` neighbouring words, repeated to fill the vector.
template <int Group>
inline Words repeat_words(const void* from) {
  if constexpr (Group == 1) {
    int32_t word;
    __builtin_memcpy(&word, from, sizeof word);
    return _mm512_set1_epi32(word);
  } else if constexpr (Group == 2) {
    int64_t words;
    __builtin_memcpy(&words, from, sizeof words);
    return _mm512_set1_epi64(words);
  } else if constexpr (Group == 4) {
    return _mm512_broadcast_i32x4(_mm_loadu_si128(static_cast<const __m128i*>(from)));
  } else if constexpr (Group == 8) {
    return _mm512_broadcast_i64x4(_mm256_loadu_si256(static_cast<const __m256i*>(from)));
  } else {
    return _mm512_loadu_si512(from);
  }
}

// As fold() in direct.h: the lanes of each group are added, and the first vectors hold finished sums, row after row.
template <int Count, int Group, int Size>
inline void fold_words(Vector (&sum)[Size]) {
  if constexpr (Group > 1) {
    constexpr int kHalf = (Count + 1) / 2;
#pragma GCC unroll 12
    for (int i = 0; i < kHalf; ++i)
      sum[i] = add_neighbours(sum[2 * i], 2 * i + 1 < Count ? sum[2 * i + 1] : Vector{});
    fold_words<kHalf, Group / 2>(sum);
  }
}

// Sums of `blocks` times `Rows` rows. Like accumulate() in direct.h out of line, with run-time taps and channels.
template <class Dot, int Rows, int Vectors, int Group, class Finish>
__attribute__((noinline)) void dot_accumulate(const typename Dot::Element* rows, int64_t row,
                                              const typename Dot::Weight* packed, const Taps& taps, int64_t steps,
                                              int64_t blocks, const Finish& finish, float* sums) {
  static_assert(Rows % 3 == 0);
  for (int64_t block = 0; block < blocks; ++block) {
    const typename Dot::Weight* weight = packed;
    typename Dot::Sum sum[Rows][Vectors] = {};
    for (int64_t tap = 0; tap < taps.count; ++tap, weight += taps.gap) {
      const typename Dot::Element* x[Rows / 3];
#pragma GCC unroll 8
      for (int i = 0; i < Rows / 3; ++i) x[i] = rows + tap * taps.apart + 3 * i * row;
      for (int64_t step = 0; step < steps; ++step) {
        Words w[Vectors];
#pragma GCC unroll 2
        for (int v = 0; v < Vectors; ++v) w[v] = _mm512_loadu_si512(weight + v * kLanes * Dot::kDepth);
        if constexpr (Dot::kAhead > 0) {
#pragma GCC unroll 2
          for (int v = 0; v < Vectors; ++v) __builtin_prefetch(weight + v * kLanes * Dot::kDepth + Dot::kAhead);
        }
        weight += Vectors * kLanes * Dot::kDepth;
#pragma GCC unroll 8
        for (int i = 0; i < Rows / 3; ++i) {
#pragma GCC unroll 3
          for (int j = 0; j < 3; ++j) {
            const Words values = repeat_words<Group>(x[i] + j * row);
#pragma GCC unroll 2
            for (int v = 0; v < Vectors; ++v) sum[3 * i + j][v] = Dot::add(sum[3 * i + j][v], values, w[v]);
          }
          x[i] += Group * Dot::kDepth;
        }
      }
    }
    Vector result[Rows * Vectors];
#pragma GCC unroll 24
    for (int i = 0; i < Rows * Vectors; ++i) result[i] = Dot::as_float(sum[i / Vectors][i % Vectors]);
    fold_words<Rows * Vectors, Group>(result);
    constexpr int kWidth = Vectors * kLanes / Group, kStores = folded(Rows * Vectors, Group);
#pragma GCC unroll 24
    for (int i = 0; i < kStores; ++i) store(sums + i * kLanes, finish(result[i], i * kLanes % kWidth / kLanes));
    rows += Rows * row;
    sums += Rows * kWidth;
  }
}

// Four neighbouring rows of four words. Rows without a gap are the fast case.
template <class Dot, bool Dense>
inline Words load_rows(const typename Dot::Element* rows, int64_t row) {
  if constexpr (Dense) return _mm512_loadu_si512(rows);
  const auto at = [&](int r) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(rows + r * row)); };
  const __m256i low = _mm256_inserti128_si256(_mm256_castsi128_si256(at(0)), at(1), 1);
  const __m256i high = _mm256_inserti128_si256(_mm256_castsi128_si256(at(2)), at(3), 1);
  return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
}

template <class Dot, bool Dense, int Word, int Quads>
__attribute__((always_inline)) inline void add_word(const typename Dot::Element* x, int64_t row,
                                                    const typename Dot::Weight* weight,
                                                    typename Dot::Sum (&sum)[Quads][2]) {
  const Words low = repeat_words<4>(weight + 8 * Word * Dot::kDepth);
  const Words high = repeat_words<4>(weight + (8 * Word + 4) * Dot::kDepth);
#pragma GCC unroll 12
  for (int q = 0; q < Quads; ++q) {
    constexpr auto kRepeat = static_cast<_MM_PERM_ENUM>(Word * 0x55);
    const Words values = _mm512_shuffle_epi32(load_rows<Dot, Dense>(x + 4 * q * row, row), kRepeat);
    sum[q][0] = Dot::add(sum[q][0], values, low);
    sum[q][1] = Dot::add(sum[q][1], values, high);
  }
}

// As dot_accumulate(), for eight outputs of rows of four words: a quarter of a vector is a row, and its lanes are the
// lower or the upper four outputs.
template <class Dot, int Rows, bool Dense, class Finish>
__attribute__((noinline)) void dot_accumulate_quarters(const typename Dot::Element* rows, int64_t row,
                                                       const typename Dot::Weight* packed, const Taps& taps, int64_t,
                                                       int64_t blocks, const Finish& finish, float* sums) {
  constexpr int kQuads = Rows / 4;
  if (Dense) row = 4 * Dot::kDepth;
  for (int64_t block = 0; block < blocks; ++block) {
    const typename Dot::Element* x = rows;
    const typename Dot::Weight* weight = packed;
    typename Dot::Sum sum[kQuads][2] = {};
    for (int64_t tap = 0; tap < taps.count; ++tap) {
      add_word<Dot, Dense, 0>(x, row, weight, sum);
      add_word<Dot, Dense, 1>(x, row, weight, sum);
      add_word<Dot, Dense, 2>(x, row, weight, sum);
      add_word<Dot, Dense, 3>(x, row, weight, sum);
      x += taps.apart;
      weight += 4 * 8 * Dot::kDepth + taps.gap;
    }
    using std::integer_sequence;
    const integer_sequence<int, 0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23> first;
    const integer_sequence<int, 8, 9, 10, 11, 24, 25, 26, 27, 12, 13, 14, 15, 28, 29, 30, 31> second;
#pragma GCC unroll 12
    for (int q = 0; q < kQuads; ++q) {
      const Vector low = Dot::as_float(sum[q][0]), high = Dot::as_float(sum[q][1]);
      store(sums + 2 * q * kLanes, finish(pick(low, high, first), 0));
      store(sums + (2 * q + 1) * kLanes, finish(pick(low, high, second), 0));
    }
    rows += Rows * row;
    sums += Rows * 8;
  }
}

// The kernel of a panel: `tall` takes blocks of rows while there are enough, `low` what they leave. Blocks lower than
// these would wait for their own sums.
template <class Dot, class Finish>
struct DotKernel {
  using Accumulate = void (*)(const typename Dot::Element*, int64_t, const typename Dot::Weight*, const Taps&, int64_t,
                              int64_t, const Finish&, float*);
  Accumulate tall, low;
  int tall_rows, low_rows;
};

template <class Dot, class Finish>
inline DotKernel<Dot, Finish> dot_kernel(const Panel& panel, int64_t row) {
  const auto quarters = [](auto dense) -> DotKernel<Dot, Finish> {
    constexpr bool kDense = decltype(dense)::value;
    return {dot_accumulate_quarters<Dot, kChunk, kDense, Finish>, dot_accumulate_quarters<Dot, kRows, kDense, Finish>,
            kChunk, kRows};
  };
  const auto two_vectors = [](auto group) -> DotKernel<Dot, Finish> {
    constexpr int kGroup = decltype(group)::value;
    return {dot_accumulate<Dot, kRows, 2, kGroup, Finish>, dot_accumulate<Dot, kRows / 2, 2, kGroup, Finish>, kRows,
            kRows / 2};
  };
  const auto one_vector = [](auto group) -> DotKernel<Dot, Finish> {
    constexpr int kGroup = decltype(group)::value;
    return {dot_accumulate<Dot, 2 * kRows, 1, kGroup, Finish>, dot_accumulate<Dot, kRows, 1, kGroup, Finish>,
            2 * kRows, kRows};
  };
  using std::integral_constant;
  if (is_quartered(panel) && row == 4 * Dot::kDepth) return quarters(integral_constant<bool, true>{});
  if (is_quartered(panel)) return quarters(integral_constant<bool, false>{});
  if (panel.width == 2 * kLanes) return two_vectors(integral_constant<int, 1>{});
  if (panel.width == kLanes && panel.group == 2) return two_vectors(integral_constant<int, 2>{});
  if (panel.group == 1) return one_vector(integral_constant<int, 1>{});
  if (panel.group == 2) return one_vector(integral_constant<int, 2>{});
  if (panel.group == 4) return one_vector(integral_constant<int, 4>{});
  if (panel.group == 8) return one_vector(integral_constant<int, 8>{});
  return one_vector(integral_constant<int, 16>{});
}

// convolve_panel() of direct.h: `to_memory(sums, chunk, count)` takes the sums, kChunk rows at a time.
template <class Dot, class Finish, class ToMemory>
inline void dot_convolve_panel(const Panel& panel, const fastvoc_call& call, const typename Dot::Element* rows,
                               int64_t row, int64_t height, const typename Dot::Weight* packed, const Finish& finish,
                               float* sums, ToMemory to_memory, const Second& second = {}) {
  const DotKernel<Dot, Finish> kernel = dot_kernel<Dot, Finish>(panel, row);
  const int64_t steps = dot_steps<Dot>(panel, call);
  const Taps taps = taps_of(call, row, second, steps * panel.group * panel.width * Dot::kDepth);
  const auto run = [&](auto accumulate, int64_t from, int64_t at, int64_t blocks) {
    if (blocks > 0)
      accumulate(rows + (from + at) * row, row, packed + panel.offset, taps, steps, blocks, finish,
                 sums + at * panel.width);
  };
  for (int64_t chunk = 0; chunk < height; chunk += kChunk) {
    const int64_t count = smaller(kChunk, height - chunk);
    const int64_t padded = round_up(count, kernel.low_rows);
    const int64_t tall = padded / kernel.tall_rows, rest = padded - tall * kernel.tall_rows;
    run(kernel.tall, chunk, 0, tall);
    run(kernel.low, chunk, tall * kernel.tall_rows, rest / kernel.low_rows);
    to_memory(sums, chunk, count);
  }
}

}  // namespace fastvoc::FASTVOC_ISA
