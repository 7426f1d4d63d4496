// Toom-Cook convolution on the CPU: fewer multiplications than the sum itself has.
//
// A convolution is a product of polynomials, and a product is known from its values at enough points. Transposed, as
// filters need it, that is
//
//     y = A [ (G w) * (B x) ]        B: inputs to points,  G: taps to points,  A: points to outputs
//
// where n outputs of t taps take n + t - 1 inputs, points and products, instead of n t products. Over the channels each
// point is a product of matrices, for a register-blocked kernel as in direct.h. The points are 0, 1, -1, 1/2 and infinity
// for
//
//     2 taps             5 products for 4 outputs instead of 8
//
// as the phases of most transposed convolutions have them, and otherwise 0, 1, -1, 1/2, -1/2, 2, -2 and, where eight are
// needed, infinity:
//
//     3 taps             8 products for 6 outputs instead of 18
//     5 taps             8 products for 4 outputs instead of 20
//
// No other points lose so few digits, and with one more the error triples. (Seven points would do for 6 outputs of 2 taps
// and save another 7 %, but their weights are 1.4 times as large, which is slower from 128 channels of the result on, and
// the error is 1.7 times as large.) So longer filters are cut into groups of four taps, each of which is one tile of four
// outputs further on. A filter of groups is again a convolution, now of tiles, and takes the points 0, 1, -1 and infinity
// of its own:
//
//     7 or 8 taps        2 groups, 3 tiles to a block: 28 products for 12 outputs instead of 84 or 96
//     11 or 12 taps      3 groups, 2 tiles to a block: 28 products for 8 outputs instead of 88 or 96
//
// A zero before the first of 7 or 11 taps saves one more, the value of the first group at 0. All other filters add up
// their groups as they are.
//
// A dilation d interleaves d signals. Block i of signal r becomes column i * d + r of the transformed input, so that
// outputs of a block are rows block * i + r, + d, + 2d ... and the groups of a filter are d columns apart.
//
// Products are larger than the sums that they make: the error is two to three times that of the direct sum, which is
// 4e-7 to 7e-7 of the signal (root mean square, 16 to 512 channels).
#pragma once

#include <numeric>

#include "direct.h"

namespace fastvoc::FASTVOC_ISA {

// How a filter is cut.
struct ToomCook {
  int tile;         // outputs of one inner transform
  int points;       // 7, or with infinity 8 or, of few taps, 5
  int outer_tiles;  // tiles of a block
  int outer_taps;   // groups that an outer transform takes, or 1 if there is none
  int step;         // taps from one group to the next
  int groups;       // groups that are added up as they are
  int front;        // zeros before the first tap: 0 or 1

  int block() const { return tile * outer_tiles; }
  int outer_points() const { return outer_taps > 1 ? 4 : 1; }
  int all_points() const { return outer_points() * points; }
  // Inputs of a column.
  int window() const { return points + (outer_taps > 1 ? 3 * tile : 0); }
  // Blocks of input beyond the last block of output.
  int extra() const { return (groups - 1) * step / block(); }
  // A point has products with groups [first_group, groups): all others are zero there.
  int first_group(int outer, int point) const {
    if (point == 7) return groups - 1;  // infinity
    return outer == 0 && point == 0 ? front : 0;
  }
};

// A column must not take inputs that its outputs do not need, lest results depend on what comes later: so taps always
// fill their groups. The last group has 5 taps with infinity, 4 without, for tiles of 4; 6 and 5 for tiles of 3; a zero
// in front counts as a tap.
inline ToomCook toom_cook_of(int64_t all_taps) {
  const int taps = int(all_taps), front = taps % 4 == 3, fours = (taps + front) / 4;
  if (taps == 2) return {4, 5, 1, 1, 2, 1, 0};
  if (taps == 3) return {6, 8, 1, 1, 3, 1, 0};
  if (taps % 4 == 1) return {4, 8, 1, 1, 4, (taps - 1) / 4, 0};
  if (taps % 4 == 2 && taps % 3 == 0) return {3, 8, 1, 1, 3, taps / 3 - 1, 0};
  if (taps % 4 == 2) return {3, 7, 1, 1, 3, (taps - 1) / 3, taps % 3 == 1};
  if (fours == 2) return {4, 7, 3, 2, 4, 1, front};
  if (fours == 3) return {4, 7, 2, 3, 4, 1, front};
  return {4, 7, 1, 1, 4, fours, front};
}

// Rows of a block. An output depends on the inputs of its block, aligned to the first row of the call, and on nothing
// else: neither on the rows of the call nor on its place in it.
inline int64_t toom_cook_block(const fastvoc_call& call) {
  return toom_cook_of(call.taps).block() * call.dilation;
}

// Rows that must be readable, the last for kLanes floats at least. Beyond them, and beyond the channels of a row,
// anything may lie; where the last block is not whole, its missing inputs count as zeros.
inline int64_t toom_cook_rows_read(const fastvoc_call& call, int64_t count) { return count + span_of(call); }

// Products per pair of channels and column.
inline int64_t toom_cook_products(const ToomCook& plan) {
  int64_t products = 0;
  for (int outer = 0; outer < plan.outer_points(); ++outer)
    for (int point = 0; point < plan.points; ++point) products += plan.groups - plan.first_group(outer, point);
  return products;
}

inline int64_t toom_cook_packed_floats(const fastvoc_call& call) {
  return toom_cook_products(toom_cook_of(call.taps)) * call.in_channels * round_up(call.out_channels, kLanes);
}

// Whether it is faster than the direct sum of `count` rows, of one convolution or of so many phases.
//
// Each point of a column costs as much to transform, per vector of channels, as multiplying 8 vectors with AVX-512, and
// less with narrower ones; few columns cost as much as one more. Measured with AVX-512 on a busy core of an EPYC 9005,
// as a multiple of the speed of the direct sum, medians over 256 to 2048 rows and dilations 1, 3 and 5:
//
//     channels       8     16     24     32     64    128    256    512
//      3 taps      0.6    1.1    1.6    1.5    1.7    1.7    1.8    1.7
//      5 taps      0.7    1.2    1.8    1.7    1.8    2.0    2.0    2.0
//      7 taps      0.9    1.4    1.9    1.9    2.1    2.0    1.9    2.2
//     11 taps      1.0    1.6    2.1    2.2    2.3    2.4    2.2    2.4
//
// and for 2 to 8 phases of 2 taps that halve the channels, by those of the result:
//
//      2 taps      0.7    1.1    1.2    1.3    1.4    1.4    1.3
//
// 96 rows are slower where they are no whole blocks, down to 1.2 times with 32 channels, 3 taps and dilation 5.
inline bool toom_cook_pays(const fastvoc_call& call, int64_t count, int64_t phases = 1) {
  constexpr int64_t kTransform = 8;
  if (call.taps < 2) return false;
  const ToomCook plan = toom_cook_of(call.taps);
  const int64_t in = call.in_channels, blocks = (count - 1) / toom_cook_block(call) + 1;
  const int64_t in_vectors = (in - 1) / kLanes + 1, out_vectors = phases * ((call.out_channels - 1) / kLanes + 1);
  const int64_t column =
      toom_cook_products(plan) * in * out_vectors + kTransform * plan.all_points() * (in_vectors + out_vectors);
  int64_t lanes = 0;
  for_each_panel(call, in, [&](const Panel& panel) { lanes += phases * panel.width; });
  return (round_up(blocks * call.dilation, 3) + 1) * column * kLanes < round_up(count, kRows) * call.taps * in * lanes;
}

// From one column to the next: an odd number of cache lines, lest the rows of a kernel share one set of the cache.
inline int64_t odd_lines(int64_t floats) { return round_up(floats, 16) | 16; }

// Where the parts of a workspace begin, in floats.
struct ToomCookWork {
  int64_t pass;         // blocks whose transformed input is held at once
  int64_t signals;      // of a dilation's that are held at once: all of them, or some of a single block
  int64_t row, stride;  // of the transformed input: from column to column, from point to point
  int64_t ring;         // blocks whose sums wait for memory at once: all that kRows columns can touch
  int64_t transformed, products, sums, end;
};

// Where it does not matter how many parts there are, `signals` that do not fit may be held one after the other.
inline ToomCookWork toom_cook_work(const fastvoc_call& call, int64_t count, bool apart = false) {
  // A third of a second-level cache, but enough columns for the weights that pass by.
  constexpr int64_t kHeldFloats = 96 * 1024, kHeldColumns = 48;
  const ToomCook plan = toom_cook_of(call.taps);
  ToomCookWork work{};
  work.row = odd_lines(call.in_channels);
  const int64_t held = larger(kHeldFloats / (plan.all_points() * work.row), kHeldColumns);
  const int64_t some = held / kRows * kRows;
  const int64_t d = apart ? smaller(call.dilation, some) : call.dilation, block = toom_cook_block(call);
  work.signals = d;
  // Whole kernels of 12 columns or, if they take many blocks, of 6 or 3.
  int64_t unit = kRows;
  while (unit > 3 && unit / std::gcd(unit, d) * d > held) unit /= 2;
  work.pass = smaller(round_up(larger(held / d, 1), unit / std::gcd(unit, d)), (count + block - 1) / block);
  if (apart && d > some / 2) work.pass = 1;
  work.stride = odd_lines((work.pass + plan.extra()) * d * work.row);
  work.ring = kRows % d == 0 ? kRows / d : (kRows - 1) / d + 2;
  work.transformed = work.row;
  work.products = work.transformed + plan.all_points() * work.stride + kRows * work.row;
  work.sums = work.products + plan.all_points() * kRows * 2 * kLanes;
  // store_chunk reads whole squares.
  work.end = work.sums + work.ring * plan.block() * d * 2 * kLanes + kLanes * kLanes;
  return work;
}

// Floats of workspace for one thread, which also serve fewer rows.
inline int64_t toom_cook_workspace_floats(const fastvoc_call& call, int64_t count, bool apart = false) {
  return toom_cook_work(call, count, apart).end;
}

// Rows whose transformed input is held at once, if there are as many.
inline int64_t toom_cook_pass_rows(const fastvoc_call& call) {
  constexpr int64_t kMany = int64_t{1} << 40;
  return toom_cook_work(call, kMany).pass * toom_cook_block(call);
}

// Panels are whole vectors here: `visit(panel)`.
template <class Visit>
void for_each_toom_cook_panel(const fastvoc_call& call, Visit visit) {
  const int64_t products = toom_cook_products(toom_cook_of(call.taps));
  int64_t offset = 0;
  for (int64_t first = 0; first < call.out_channels;) {
    const Panel panel{first, call.out_channels - first > kLanes ? 2 * kLanes : kLanes, 1, offset};
    visit(panel);
    first += panel.width;
    offset += products * call.in_channels * panel.width;
  }
}

// The weights of a vector of output channels, in the precision in which they are transformed.
typedef double Doubles __attribute__((vector_size(kLanes * sizeof(double))));

// The value at a point of `count` taps, divided by what B leaves out.
inline Doubles toom_cook_value(const ToomCook& plan, const Doubles* taps, int64_t count, int point) {
  constexpr double kPoints[7] = {0, 1, -1, 0.5, -0.5, 2, -2};
  constexpr double kDistances[7] = {-1, -4.5, -4.5, 1.40625, 1.40625, 90, 90}, kOfFive[4] = {0.5, 1, -3, -0.375};
  if (point == 7 || (point == 4 && plan.points == 5)) return taps[count - 1];
  Doubles value = taps[count - 1];
  for (int64_t k = count - 1; k-- > 0;) value = value * kPoints[point] + taps[k];
  return value / (plan.points == 5 ? kOfFive : kDistances)[point];
}

// The transformed weights of an input channel: `gather(first, count, taps)` fetches taps, `put(number, value)` takes what
// is multiplied as the number-th.
template <class Gather, class Put>
inline void toom_cook_weights(const ToomCook& plan, int64_t count, Gather gather, Put put) {
  Doubles taps[12];  // of three groups, or of the last one, which has six at most
  if (plan.outer_taps == 1) {
    for (int group = 0; group < plan.groups; ++group) {
      const int64_t first = group * plan.step, own = group + 1 == plan.groups ? count - first : plan.step;
      gather(first, own, taps);
      for (int point = 0; point < plan.points; ++point)
        if (const int begin = plan.first_group(0, point); group >= begin)
          put(point * plan.groups - (point > 0 ? plan.first_group(0, 0) : 0) + group - begin,
              toom_cook_value(plan, taps, own, point));
    }
    return;
  }
  gather(0, count, taps);
  const int front = plan.first_group(0, 0);
  for (int point = 0; point < 7; ++point) {
    const Doubles a = toom_cook_value(plan, taps, 4, point), b = toom_cook_value(plan, taps + 4, 4, point),
                  c = plan.outer_taps == 3 ? toom_cook_value(plan, taps + 8, 4, point) : Doubles{};
    if (point >= front) put(point - front, -a);
    put(7 - front + point, (a + b + c) / 2);
    put(14 - front + point, (a - b + c) / 2);
    put(21 - front + point, plan.outer_taps == 3 ? c : b);
  }
}

// Bring a weight, which `weight(out, in, tap)` gives, into the order in which it is read.
template <class Weight>
inline void toom_cook_pack(const fastvoc_call& call, Weight weight, float* packed) {
  const ToomCook plan = toom_cook_of(call.taps);
  for_each_toom_cook_panel(call, [&](const Panel& panel) {
#pragma omp parallel for num_threads(call.threads) if (call.in_channels * call.taps * panel.width > 65536)
    for (int64_t in = 0; in < call.in_channels; ++in)
      for (int64_t lane = 0; lane < panel.width; lane += kLanes) {
        const int64_t out = panel.first + lane, outs = smaller(call.out_channels - out, kLanes);
        const auto gather = [&](int64_t first, int64_t count, Doubles* taps) {
          for (int64_t k = 0; k < count; ++k) taps[k] = Doubles{};
          const int64_t before = larger(plan.front - first, 0);
          for (int64_t o = 0; o < outs; ++o)
            for (int64_t k = before; k < count; ++k) taps[k][o] = weight(out + o, in, first + k - plan.front);
        };
        toom_cook_weights(plan, plan.front + call.taps, gather, [&](int64_t number, Doubles value) {
          store(packed + panel.offset + (number * call.in_channels + in) * panel.width + lane,
                __builtin_convertvector(value, Vector));
        });
      }
  });
}

// The values at a point and its opposite, from the inputs of even and of odd number.
__attribute__((always_inline)) inline void toom_cook_pair(const Vector (&d)[8], float first, float middle, float point,
                                                          float* plus, float* minus) {
  const Vector even = d[6] - middle * d[4] + first * d[2], odd = d[5] - middle * d[3] + first * d[1];
  store(plus, even + point * odd);
  store(minus, even - point * odd);
}

// The values of a window of inputs at all points. Out of line, the window would go through memory.
template <int Points>
__attribute__((always_inline)) inline void toom_cook_inputs(const Vector (&d)[8], float* to, int64_t stride) {
  if constexpr (Points == 5) {
    const Vector odd = d[3] - d[1];
    store(to, 0.5f * (d[0] - d[2]) + odd);
    store(to + stride, 0.5f * (d[2] - d[1]) + d[3]);
    store(to + 2 * stride, 0.5f * d[1] - 1.5f * d[2] + d[3]);
    store(to + 3 * stride, odd);
    return store(to + 4 * stride, d[4] - d[2] - 0.5f * odd);
  }
  store(to, d[6] - d[0] + 5.25f * (d[2] - d[4]));
  toom_cook_pair(d, 1, 4.25f, 1, to + stride, to + 2 * stride);
  toom_cook_pair(d, 4, 5, 0.5f, to + 3 * stride, to + 4 * stride);
  toom_cook_pair(d, 0.25f, 1.25f, 2, to + 5 * stride, to + 6 * stride);
  if constexpr (Points == 8) store(to + 7 * stride, d[7] - d[1] + 5.25f * (d[3] - d[5]));
}

// A column of the transformed input; `inputs` are the rows of its window. The outer transform comes first, because its
// values need fewer registers than its points.
template <int Points, bool Outer>
inline void toom_cook_column(const float* const* inputs, int64_t channels, float* to, int64_t stride) {
  for (int64_t c = 0; c < channels; c += kLanes) {
    // The last channels are done twice rather than in part.
    const int64_t at = larger(smaller(c, channels - kLanes), 0);
    const auto in = [&](int j) { return load(inputs[j] + at); };
    Vector d[8] = {};
    if constexpr (Outer) {
#pragma GCC unroll 7
      for (int j = 0; j < 7; ++j) d[j] = in(j + 8) - in(j);
      toom_cook_inputs<7>(d, to + at, stride);
#pragma GCC unroll 7
      for (int j = 0; j < 7; ++j) d[j] = in(j + 8) + in(j + 4);
      toom_cook_inputs<7>(d, to + at + 7 * stride, stride);
#pragma GCC unroll 7
      for (int j = 0; j < 7; ++j) d[j] = in(j + 8) - in(j + 4);
      toom_cook_inputs<7>(d, to + at + 14 * stride, stride);
#pragma GCC unroll 7
      for (int j = 0; j < 7; ++j) d[j] = in(j + 12) - in(j + 4);
      toom_cook_inputs<7>(d, to + at + 21 * stride, stride);
    } else {
#pragma GCC unroll 8
      for (int j = 0; j < Points; ++j) d[j] = in(j);
      toom_cook_inputs<Points>(d, to + at, stride);
    }
  }
}

// Products of `Rows` columns at one point, summed over channels and groups: `accumulate` of direct.h, out of line for
// the same reason, with shorter chains of additions. Their rounding is magnified by what follows, and chains of 32
// halve it at no cost. The weights of all points are more than a cache holds and are read in one stream, which is
// fetched 64 steps ahead: 10 to 20 % less time than with 24 for 64 to 144 rows of 256 to 512 channels, and 2 to 4 % for
// more rows or fewer channels.
template <int Rows, int Vectors>
__attribute__((noinline)) void toom_cook_multiply(const float* columns, int64_t row, const float* weight,
                                                  int64_t groups, int64_t shift, int64_t channels, const float* start,
                                                  float* products) {
  static_assert(Rows % 3 == 0);
  constexpr int kTerms = 32, kAhead = 64;
  Vector sum[Rows][Vectors] = {};
  for (int64_t group = 0; group < groups; ++group) {
    const float* x[Rows / 3];
#pragma GCC unroll 4
    for (int i = 0; i < Rows / 3; ++i) x[i] = columns + (group * shift + 3 * i) * row;
    for (int64_t channel = 0; channel < channels;) {
      for (const int64_t end = smaller(channel + kTerms, channels); channel < end; ++channel) {
        Vector w[Vectors];
#pragma GCC unroll 2
        for (int v = 0; v < Vectors; ++v) {
          w[v] = load(weight + v * kLanes);
          __builtin_prefetch(weight + (kAhead * Vectors + v) * kLanes);
        }
        weight += Vectors * kLanes;
#pragma GCC unroll 4
        for (int i = 0; i < Rows / 3; ++i) {
#pragma GCC unroll 3
          for (int j = 0; j < 3; ++j) {
            const Vector value = splat(x[i][j * row]);
#pragma GCC unroll 2
            for (int v = 0; v < Vectors; ++v) sum[3 * i + j][v] += value * w[v];
          }
          ++x[i];
        }
      }
      flush<Rows, Vectors, 1>(sum, start, products);
      start = nullptr;
    }
  }
}

// The outputs of a tile from its products.
template <int Tile, int Points>
__attribute__((always_inline)) inline void toom_cook_tile(const float* products, int64_t stride, Vector (&y)[Tile]) {
  const auto m = [&](int point) { return load(products + point * stride); };
  if constexpr (Points == 5) {
    const Vector sum = m(1) + m(2), difference = m(1) - m(2), half = m(3);
    y[0] = m(0) + sum + half;
    y[1] = difference + 0.5f * half;
    y[2] = sum + 0.25f * half;
    y[3] = difference + 0.125f * half + m(4);
    return;
  }
  const Vector sum_1 = m(1) + m(2), difference_1 = m(1) - m(2), sum_half = m(3) + m(4), difference_half = m(3) - m(4),
               sum_2 = m(5) + m(6), difference_2 = m(5) - m(6);
  y[0] = m(0) + sum_1 + sum_half + sum_2;
  float power = 1;
#pragma GCC unroll 6
  for (int j = 1; j < Tile; ++j) {
    power *= 2;
    y[j] = j % 2 ? difference_1 + (1 / power) * difference_half + power * difference_2
                 : sum_1 + (1 / power) * sum_half + power * sum_2;
  }
  if constexpr (Points == 8) y[Tile - 1] += m(7);
}

// The outputs of a column, `along` floats from one to the next.
template <int Tile, int Points, int OuterTiles, int Vectors>
inline void toom_cook_outputs(const float* products, float* sums, int64_t along) {
  constexpr int kStride = kRows * Vectors * kLanes;
  for (int v = 0; v < Vectors; ++v, products += kLanes, sums += kLanes) {
    float* to = sums;
    if constexpr (OuterTiles == 1) {
      Vector y[Tile];
      toom_cook_tile<Tile, Points>(products, kStride, y);
#pragma GCC unroll 6
      for (int j = 0; j < Tile; ++j, to += along) store(to, y[j]);
    } else {
      Vector y[4][Tile];
#pragma GCC unroll 4
      for (int outer = 0; outer < 4; ++outer)
        toom_cook_tile<Tile, Points>(products + outer * Points * kStride, kStride, y[outer]);
#pragma GCC unroll 4
      for (int j = 0; j < Tile; ++j, to += along) store(to, y[0][j] + y[1][j] + y[2][j]);
#pragma GCC unroll 4
      for (int j = 0; j < Tile; ++j, to += along)
        store(to, OuterTiles == 2 ? y[1][j] - y[2][j] + y[3][j] : y[1][j] - y[2][j]);
#pragma GCC unroll 4
      for (int j = 0; OuterTiles == 3 && j < Tile; ++j, to += along) store(to, y[1][j] + y[2][j] + y[3][j]);
    }
  }
}

// One call, with the plan's numbers as constants.
template <int Tile, int Points, int OuterTiles>
struct ToomCookRun {
  static constexpr int kOuterPoints = OuterTiles > 1 ? 4 : 1;

  const fastvoc_call& call;
  const ToomCook& plan;
  const ToomCookWork& work;
  float* const workspace;

  // Columns [0, columns) of the transformed input, of so many signals of the blocks from output `begin` on.
  void transform(const float* rows, int64_t row, int64_t valid, int64_t begin, int64_t columns, int64_t signals) const {
    const int64_t d = call.dilation, block = toom_cook_block(call);
    const int window = plan.window();
    int64_t first = begin - plan.front * d, signal = 0;
    for (int64_t column = 0; column < columns; ++column) {
      const float* inputs[8 + 3 * 4];
      if (first >= 0 && first + (window - 1) * d < valid) {
        for (int j = 0; j < window; ++j) inputs[j] = rows + first * row + j * (d * row);
      } else {
        for (int j = 0; j < window; ++j) {
          const int64_t at = first + j * d;
          inputs[j] = at >= 0 && at < valid ? rows + at * row : workspace;
        }
      }
      toom_cook_column<Points, (OuterTiles > 1)>(inputs, call.in_channels,
                                                 workspace + work.transformed + column * work.row, work.stride);
      ++first;
      if (++signal == signals) {
        signal = 0;
        first += block - signals;
      }
    }
  }

  // Products of up to kRows columns at all points. The bias is the same for all outputs, and so is what the point 1
  // adds to them: its sums begin with the bias.
  template <int Vectors>
  void multiply(const float* columns, int64_t count, const float* weight, const float* bias, int64_t signals) const {
    const int64_t channels = call.in_channels, shift = plan.step / plan.block() * signals;
    alignas(64) const float none[2 * kLanes] = {};
    float* products = workspace + work.products;
    for (int outer = 0; outer < kOuterPoints; ++outer)
      for (int point = 0; point < Points; ++point, columns += work.stride, products += kRows * Vectors * kLanes) {
        const int64_t first = plan.first_group(outer, point), groups = plan.groups - first;
        if (groups == 0) {
          for (int k = 0; k < kRows * Vectors; ++k) store(products + k * kLanes, Vector{});
          continue;
        }
        const float* start = point == 1 && outer == (kOuterPoints > 1) ? bias : none;
        const auto run = [&](auto function, int64_t at) {
          function(columns + (first * shift + at) * work.row, work.row, weight, groups, shift, channels, start,
                   products + at * Vectors * kLanes);
        };
        for (int64_t at = 0; at < count;) {
          const int64_t left = count - at;
          if constexpr (rows_in_registers(Vectors) == 12) {
            if (left > 6) {
              left > 9 ? run(toom_cook_multiply<12, Vectors>, at) : run(toom_cook_multiply<9, Vectors>, at);
              break;
            }
          }
          left > 3 ? run(toom_cook_multiply<6, Vectors>, at) : run(toom_cook_multiply<3, Vectors>, at);
          at += 6;
        }
        weight += groups * channels * Vectors * kLanes;
      }
  }

  // All columns, of `d` signals, for a panel, and its finished blocks, outputs [begin, end), to memory.
  template <int Vectors, class ToMemory>
  void panel(const Panel& panel, const float* packed, const float* bias, int64_t begin, int64_t end, int64_t columns,
             int64_t d, ToMemory to_memory) const {
    constexpr int kWidth = Vectors * kLanes;
    const int64_t block = plan.block() * d;
    float* const sums = workspace + work.sums;
    alignas(64) float lanes[2 * kLanes];
    load_bias(panel, call, bias, lanes);
    int64_t slot = 0, signal = 0, written = 0;
    for (int64_t first = 0; first < columns; first += kRows) {
      const int64_t count = smaller(kRows, columns - first);
      multiply<Vectors>(workspace + work.transformed + first * work.row, count, packed + panel.offset, lanes, d);
      for (int64_t column = 0; column < count; ++column) {
        toom_cook_outputs<Tile, Points, OuterTiles, Vectors>(workspace + work.products + column * kWidth,
                                                             sums + (slot * block + signal) * kWidth, d * kWidth);
        if (++signal == d) {
          signal = 0;
          if (++slot == work.ring) slot = 0;
        }
      }
      const int64_t finished = first + count < columns ? (first + count) / d : (columns + d - 1) / d;
      while (written < finished) {
        const int64_t at = written % work.ring, blocks = smaller(finished - written, work.ring - at);
        const int64_t row = begin + written * block;
        if (d == call.dilation) {
          to_memory(panel, sums + at * block * kWidth, row, smaller(blocks * block, end - row));
        } else {  // some signals of one block
          for (int64_t j = 0, to = row; j < plan.block() && to < end; ++j, to += call.dilation)
            to_memory(panel, sums + j * d * kWidth, to, smaller(d, end - to));
        }
        written += blocks;
      }
    }
  }

  template <class Part, class ToMemory>
  void operator()(const float* rows, int64_t row, int64_t count, const float* packed, int64_t phases, int64_t size,
                  const float* bias, Part part, ToMemory to_memory) const {
    const int64_t d = call.dilation, block = toom_cook_block(call);
    int64_t number = 0;
    for (int64_t c = 0; c < work.row; ++c) workspace[c] = 0;
    for (int64_t begin = 0; begin < count; begin += work.pass * block) {
      const int64_t end = smaller(begin + work.pass * block, count), last = (end - begin - 1) / block;
      for (int64_t from = 0; from < d; from += work.signals) {
        // The signals of the last block may end before they begin.
        const int64_t signals = smaller(work.signals, d - from), left = end - begin - last * block - from;
        const int64_t columns = last * signals + smaller(larger(left, 0), signals);
        if (columns == 0) continue;
        bool transformed = false;
        for_each_toom_cook_panel(call, [&](const Panel& at) {
          for (int64_t phase = 0; phase < phases; ++phase)
            part(number++, [&] {
              if (!transformed)
                transform(rows, row, count + span_of(call), begin + from, columns + plan.extra() * signals, signals);
              transformed = true;
              const float* const weight = packed + phase * size;
              const auto take = [&](const Panel& of, float* sums, int64_t first, int64_t height) {
                to_memory(of, phase, sums, first, height);
              };
              at.vectors() == 2 ? panel<2>(at, weight, bias, begin + from, end, columns, signals, take)
                                : panel<1>(at, weight, bias, begin + from, end, columns, signals, take);
            });
        });
      }
    }
  }
};

// Rows [0, count) of convolutions, with 2 taps or more, of `rows` that are padded, activated and `row` floats apart:
//
//     output row r        sum over tap k, channel c of  rows[r + k * dilation][c] * weight[:][c][k]
//
// The convolutions, such as the phases of a transposed one, have packed weights `size` floats apart, and share the
// transformed input. `to_memory(panel, phase, sums, first, count)` takes the finished sums, bias and all, of `count` rows
// of a panel from row `first` on, panel.width floats each. Some blocks of a panel of a phase are a part;
// `part(number, run)` runs it, or leaves it out; `apart` as in toom_cook_work().
template <class Part, class ToMemory>
void toom_cook_phases(const fastvoc_call& call, const float* rows, int64_t row, int64_t count, const float* packed,
                      int64_t phases, int64_t size, const float* bias, float* workspace, Part part,
                      ToMemory to_memory, bool apart = false) {
  const ToomCook plan = toom_cook_of(call.taps);
  const ToomCookWork work = toom_cook_work(call, count, apart);
  const auto run = [&](const auto& with) { with(rows, row, count, packed, phases, size, bias, part, to_memory); };
  if (plan.points == 5) return run(ToomCookRun<4, 5, 1>{call, plan, work, workspace});
  if (plan.tile == 6) return run(ToomCookRun<6, 8, 1>{call, plan, work, workspace});
  if (plan.tile == 3 && plan.points == 8) return run(ToomCookRun<3, 8, 1>{call, plan, work, workspace});
  if (plan.tile == 3) return run(ToomCookRun<3, 7, 1>{call, plan, work, workspace});
  if (plan.points == 8) return run(ToomCookRun<4, 8, 1>{call, plan, work, workspace});
  if (plan.outer_tiles == 3) return run(ToomCookRun<4, 7, 3>{call, plan, work, workspace});
  if (plan.outer_tiles == 2) return run(ToomCookRun<4, 7, 2>{call, plan, work, workspace});
  run(ToomCookRun<4, 7, 1>{call, plan, work, workspace});
}

// A single convolution: `to_memory(panel, sums, first, count)`.
template <class Part, class ToMemory>
void toom_cook(const fastvoc_call& call, const float* rows, int64_t row, int64_t count, const float* packed,
               const float* bias, float* workspace, Part part, ToMemory to_memory, bool apart = false) {
  const auto take = [&](const Panel& panel, int64_t, float* sums, int64_t first, int64_t height) {
    to_memory(panel, sums, first, height);
  };
  toom_cook_phases(call, rows, row, count, packed, 1, 0, bias, workspace, part, take, apart);
}

}  // namespace fastvoc::FASTVOC_ISA
