// Toom-Cook convolution on the CPU: fewer multiplications than the sum itself has.
//
// A convolution is a product of polynomials, and a product is known from its values at enough points. Here in the
// transposed form that filters use: `tile` outputs of a filter of t taps take tile + t - 1 inputs, and as many products
//
//     y = A [ (G w) * (B x) ]        B: inputs to points,  G: taps to points,  A: points to outputs
//
// where * is one product per point and pair of channels, so that over the channels each point is a matrix product, which
// the register-blocked kernel of direct.h does. The points are 0, 1, -1, 1/2, -1/2, 2, -2 and, where eight are needed,
// infinity: 3 taps take 8 products for 6 outputs instead of 18, and 5 take 8 for 4 instead of 20. No other points lose as
// few digits, and with one more the error triples; so longer filters are cut into groups of four taps, which shift by
// exactly one tile. A filter of groups is again a convolution, now of tiles, and takes the points 0, 1, -1, infinity:
//
//     7 or 8 taps      2 groups, 3 tiles to a block    28 products for 12 outputs instead of 84 or 96
//     11 or 12 taps    3 groups, 2 tiles to a block    28 products for 8 outputs instead of 88 or 96
//
// One product less if a zero comes before the first tap: it is the value of the first group at 0. Other filters sum over
// groups directly. A dilation d interleaves d signals: block i of signal r is column i * d + r of the transformed input,
// so that its columns in memory, too, are rows of the kernel.
//
// Transformed values of the input are of the order of 5 times the input and cancel later: the error is some five times
// that of the direct sum.
#pragma once

#include "direct.h"

namespace fastvoc::FASTVOC_ISA {

constexpr int64_t kTransformedFloats = 160 * 1024;

struct ToomCook {
  int tile;         // outputs of one inner transform
  int points;       // 7, or 8 with infinity
  int outer_tiles;  // tiles of a block
  int outer_taps;   // groups of taps that the outer transform takes; 1: there is none
  int step;         // taps from one group to the next
  int groups;       // groups that are summed directly
  int front;        // zeros before the first tap: 0 or 1

  int block() const { return tile * outer_tiles; }
  int outer_points() const { return outer_taps == 1 ? 1 : 4; }
  int all_points() const { return points * outer_points(); }
  // Inputs that a column is made of.
  int window() const { return points + (outer_taps == 1 ? 0 : 3 * tile); }
  // Blocks whose columns the groups beyond the first take.
  int extra() const { return (groups - 1) * step / block(); }
  // The groups in which a point has a value that is not zero: [first_group, groups).
  int first_group(int point) const {
    if (point == 7) return groups - 1;
    return point == 0 ? front : 0;
  }
};

// Inputs of a column beyond those that its outputs need would make results depend on what follows, so the taps always
// fill their groups: seven points take 5 taps for 3 outputs, or 4 for 4; a zero in front and infinity each save one.
inline ToomCook toom_cook_of(int64_t all_taps) {
  const int taps = int(all_taps), front = taps % 4 == 3, fours = (taps + front) / 4;
  if (taps == 3) return {6, 8, 1, 1, 3, 1, 0};
  if (taps % 4 == 1) return {4, 8, 1, 1, 4, (taps - 1) / 4, 0};
  if (taps % 4 == 2 && taps % 3 == 0) return {3, 8, 1, 1, 3, taps / 3 - 1, 0};
  if (taps % 4 == 2) return {3, 7, 1, 1, 3, (taps - 1) / 3, taps % 3 == 1};
  if (fours == 2) return {4, 7, 3, 2, 4, 1, front};
  if (fours == 3) return {4, 7, 2, 3, 4, 1, front};
  return {4, 7, 1, 1, 4, fours, front};
}

// Rows of a block: results depend on the block in which they lie, and on nothing else.
inline int64_t toom_cook_block(const fastvoc_conv1d_call& call) {
  return toom_cook_of(call.taps).block() * call.dilation;
}

// Rows that must be readable, the last one for at least kLanes floats. What lies beyond count + span, and beyond the
// channels of a row, is not used.
inline int64_t toom_cook_rows_read(const fastvoc_conv1d_call& call, int64_t count) { return count + span_of(call); }

// Whether it is faster than the direct sum for calls of that many rows.
inline bool toom_cook_pays(const fastvoc_conv1d_call& call, int64_t count) {
  return call.taps >= 3 && call.in_channels >= 32 && call.out_channels >= 32 && count >= toom_cook_block(call);
}

// Columns are rows of the kernel, `toom_cook_row` floats apart: an odd number of cache lines, lest twelve of them share
// one set of the cache.
inline int64_t toom_cook_row(const fastvoc_conv1d_call& call) {
  const int64_t row = round_up(call.in_channels, 16);
  return row % 32 == 0 ? row + 16 : row;
}

// Blocks of which the transformed input is held at once.
inline int64_t toom_cook_pass(const fastvoc_conv1d_call& call, int64_t count) {
  const int64_t floats = toom_cook_of(call.taps).all_points() * toom_cook_row(call) * call.dilation;
  const int64_t wanted = larger(kTransformedFloats / floats, 48 / call.dilation);
  const int64_t unit = larger(1, 12 / call.dilation);
  return smaller(round_up(wanted, unit), (count + toom_cook_block(call) - 1) / toom_cook_block(call));
}

// Blocks whose products wait for their transform at once: at least kRows columns.
inline int64_t toom_cook_batch(const fastvoc_conv1d_call& call, int64_t pass) {
  const int64_t most = larger(1, 12 / call.dilation);
  return smaller(most, pass);
}

struct ToomCookWork {
  int64_t pass, batch;           // blocks
  int64_t columns, products;     // from one point to the next, in columns
  int64_t zeros, transformed, product, sums, total;  // floats: sizes and where they begin
};

inline ToomCookWork toom_cook_work(const fastvoc_conv1d_call& call, int64_t count) {
  const ToomCook plan = toom_cook_of(call.taps);
  ToomCookWork work{};
  work.pass = toom_cook_pass(call, count);
  work.batch = toom_cook_batch(call, work.pass);
  work.columns = (work.pass + plan.extra()) * call.dilation;
  work.products = round_up(work.batch * call.dilation, 3);
  work.transformed = toom_cook_row(call);
  work.product = work.transformed + (plan.all_points() * work.columns + kRows) * toom_cook_row(call);
  work.sums = work.product + plan.all_points() * work.products * 2 * kLanes;
  work.total = round_up(work.sums + work.batch * toom_cook_block(call) * 2 * kLanes, 16);
  return work;
}

// Floats of workspace for one thread.
inline int64_t toom_cook_workspace_floats(const fastvoc_conv1d_call& call, int64_t count) {
  return toom_cook_work(call, count).total;
}

// Panels of whole vectors.
inline Panel toom_cook_panel(const fastvoc_conv1d_call& call, int64_t first, int64_t offset) {
  return {first, call.out_channels - first > kLanes ? 2 * kLanes : kLanes, 1, offset};
}

// Products per pair of channels, over all points and groups.
inline int64_t toom_cook_products(const fastvoc_conv1d_call& call) {
  const ToomCook plan = toom_cook_of(call.taps);
  int64_t products = 0;
  for (int outer = 0; outer < plan.outer_points(); ++outer)
    for (int point = 0; point < plan.points; ++point)
      products += plan.groups - (outer == 0 ? plan.first_group(point) : 0);
  return products;
}

template <class Visit>
void for_each_toom_cook_panel(const fastvoc_conv1d_call& call, Visit visit) {
  const int64_t products = toom_cook_products(call);
  int64_t offset = 0;
  for (int64_t first = 0; first < call.out_channels;) {
    const Panel panel = toom_cook_panel(call, first, offset);
    visit(panel);
    first += panel.width;
    offset += products * call.in_channels * panel.width;
  }
}

inline int64_t toom_cook_packed_floats(const fastvoc_conv1d_call& call) {
  return toom_cook_products(call) * call.in_channels * round_up(call.out_channels, kLanes);
}

// The values at all points of one group of taps, in float64.
inline void toom_cook_values(const ToomCook& plan, const double* taps, int count, double* values) {
  constexpr double kPoints[7] = {0, 1, -1, 0.5, -0.5, 2, -2};
  // The product of the distances from the other points.
  constexpr double kScales[7] = {-1, -4.5, -4.5, 1.40625, 1.40625, 90, 90};
  for (int point = 0; point < 7; ++point) {
    double value = 0;
    for (int k = count; k-- > 0;) value = value * kPoints[point] + taps[k];
    values[point] = value / kScales[point];
  }
  if (plan.points == 8) values[7] = taps[count - 1];
}

inline void toom_cook_pack(const fastvoc_conv1d_call& call, const float* weight, float* packed) {
  const ToomCook plan = toom_cook_of(call.taps);
  for_each_toom_cook_panel(call, [&](const Panel& panel) {
    float* const begin = packed + panel.offset;
    const int64_t total = toom_cook_products(call), step = call.in_channels * panel.width;
    (void)total;
    for (int64_t in = 0; in < call.in_channels; ++in)
      for (int64_t lane = 0; lane < panel.width; ++lane) {
        const int64_t out = panel.first + lane;
        const float* from = out < call.out_channels ? weight + (out * call.in_channels + in) * call.taps : nullptr;
        const auto tap = [&](int64_t k) {
          return from && k >= plan.front && k < call.taps + plan.front ? double(from[k - plan.front]) : 0.0;
        };
        float* to = begin + in * panel.width + lane;
        const auto values_of = [&](int64_t first, int64_t count, double* values) {
          double taps[8] = {};
          for (int64_t k = 0; k < count; ++k) taps[k] = tap(first + k);
          toom_cook_values(plan, taps, int(count), values);
        };
        if (plan.outer_taps > 1) {
          double groups[3][8] = {};
          for (int g = 0; g < plan.outer_taps; ++g) values_of(4 * g, 4, groups[g]);
          for (int outer = 0; outer < 4; ++outer)
            for (int point = 0; point < 7; ++point) {
              if (outer == 0 && plan.first_group(point) > 0) continue;
              const double a = groups[0][point], b = groups[1][point], c = groups[2][point];
              *to = float(outer == 0   ? -a
                          : outer == 1 ? (a + b + c) / 2
                          : outer == 2 ? (a - b + c) / 2
                                       : groups[plan.outer_taps - 1][point]);
              to += step;
            }
        } else {
          for (int point = 0; point < plan.points; ++point)
            for (int group = plan.first_group(point); group < plan.groups; ++group) {
              const int64_t first = group * plan.step, left = call.taps + plan.front - first;
              double values[8];
              values_of(first, group < plan.groups - 1 ? plan.step : left, values);
              *to = float(values[point]);
              to += step;
            }
        }
      }
  });
}

// Values of a window of inputs at the points, for kLanes channels.
template <int Points>
inline void toom_cook_inputs(const Vector (&d)[8], float* to, int64_t stride) {
  const auto pair = [&](int point, float scale, float middle, float times) {
    const Vector even = scale * d[2] - middle * d[4] + d[6], odd = scale * d[1] - middle * d[3] + d[5];
    store(to + point * stride, even + times * odd);
    store(to + (point + 1) * stride, even - times * odd);
  };
  store(to, d[6] - d[0] + 5.25f * (d[2] - d[4]));
  pair(1, 1, 4.25f, 1);
  pair(3, 4, 5, 0.5f);
  pair(5, 0.25f, 1.25f, 2);
  if constexpr (Points == 8) store(to + 7 * stride, d[7] - d[1] + 5.25f * (d[3] - d[5]));
}

// One column of the transformed input; `inputs` are the rows of its window.
template <int Points, bool Outer>
inline void toom_cook_column(const float* const* inputs, int64_t channels, float* to, int64_t stride) {
  for (int64_t c = 0; c < channels; c += kLanes) {
    const int64_t at = larger(0, smaller(c, channels - kLanes));
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

// The sums of a tile from its products. M: from point to point.
template <int Tile, int Points>
inline void toom_cook_tile(const float* products, int64_t stride, Vector (&y)[Tile]) {
  const auto m = [&](int point) { return load(products + point * stride); };
  const Vector s1 = m(1) + m(2), d1 = m(1) - m(2), sh = m(3) + m(4), dh = m(3) - m(4), s2 = m(5) + m(6),
               d2 = m(5) - m(6);
  y[0] = m(0) + s1 + sh + s2;
  float power = 1;
#pragma GCC unroll 6
  for (int j = 1; j < Tile; ++j) {
    power *= 2;
    y[j] = j % 2 ? d1 + (1 / power) * dh + power * d2 : s1 + (1 / power) * sh + power * s2;
  }
  if constexpr (Points == 8) y[Tile - 1] += m(7);
}

template <int Tile, int Points, int OuterTiles>
inline void toom_cook_outputs(const float* products, int64_t stride, int64_t length, float* sums, int64_t along) {
  for (int64_t c = 0; c < length; c += kLanes) {
    if constexpr (OuterTiles == 1) {
      Vector y[Tile];
      toom_cook_tile<Tile, Points>(products + c, stride, y);
#pragma GCC unroll 6
      for (int j = 0; j < Tile; ++j) store(sums + c + j * along, y[j]);
    } else {
      Vector y[4][Tile];
#pragma GCC unroll 4
      for (int outer = 0; outer < 4; ++outer)
        toom_cook_tile<Tile, Points>(products + c + outer * Points * stride, stride, y[outer]);
#pragma GCC unroll 4
      for (int j = 0; j < Tile; ++j) {
        const Vector sum = y[1][j] + y[2][j], difference = y[1][j] - y[2][j];
        float* to = sums + c + j * along;
        store(to, y[0][j] + sum);
        if constexpr (OuterTiles == 2) {
          store(to + Tile * along, difference + y[3][j]);
        } else {
          store(to + Tile * along, difference);
          store(to + 2 * Tile * along, sum + y[3][j]);
        }
      }
    }
  }
}

// Products of `count` columns at one point.
inline void toom_cook_multiply(const Panel& panel, const float* columns, int64_t row, const float* weight,
                               int64_t groups, int64_t shift, int64_t channels, const float* bias, int64_t count,
                               float* products) {
  const auto run = [&](auto function, int64_t& at, int height) {
    function(columns + at * row, row, weight, groups, shift, channels, bias, products + at * panel.width);
    at += height;
  };
  for (int64_t at = 0; at < count;) {
    const int64_t left = count - at;
    if (panel.vectors() == 2) {
      if constexpr (kLanes == 16) {
        if (left > 6) {
          run(accumulate<12, 2, 1>, at, 12);
          continue;
        }
      }
      left > 3 ? run(accumulate<6, 2, 1>, at, 6) : run(accumulate<3, 2, 1>, at, 3);
    } else {
      left > 6 ? run(accumulate<12, 1, 1>, at, 12) : left > 3 ? run(accumulate<6, 1, 1>, at, 6) : run(accumulate<3, 1, 1>, at, 3);
    }
  }
}

template <int Tile, int Points, int OuterTiles, class ToMemory>
void toom_cook_run(const fastvoc_conv1d_call& call, const float* rows, int64_t row, int64_t count, const float* packed,
                   const float* bias, float* workspace, ToMemory to_memory) {
  constexpr bool kOuter = OuterTiles > 1;
  const ToomCook plan = toom_cook_of(call.taps);
  const ToomCookWork work = toom_cook_work(call, count);
  const int64_t d = call.dilation, channels = call.in_channels, length = toom_cook_row(call), valid = count + span_of(call);
  const int64_t blocks = (count + toom_cook_block(call) - 1) / toom_cook_block(call), shift = plan.step / plan.block() * d;
  float *const zeros = workspace, *const transformed = workspace + work.transformed,
               *const products = workspace + work.product, *const sums = workspace + work.sums;
  for (int64_t c = 0; c < length; ++c) zeros[c] = 0;
  const int64_t stride = work.columns * length;
  for (int64_t begin = 0; begin < blocks; begin += work.pass) {
    const int64_t pass = smaller(work.pass, blocks - begin);
    for (int64_t i = 0; i < pass + plan.extra(); ++i)
      for (int64_t r = 0; r < d; ++r) {
        const float* inputs[19];
        for (int j = 0; j < plan.window(); ++j) {
          const int64_t at = ((begin + i) * plan.block() + j - plan.front) * d + r;
          inputs[j] = at >= 0 && at < valid ? rows + at * row : zeros;
        }
        toom_cook_column<Points, kOuter>(inputs, channels, transformed + (i * d + r) * length, stride);
      }
    for_each_toom_cook_panel(call, [&](const Panel& panel) {
      alignas(64) float lanes[2 * kLanes], none[2 * kLanes] = {};
      load_bias(panel, call, bias, lanes);
      for (int64_t first = 0; first < pass; first += work.batch) {
        const int64_t batch = smaller(work.batch, pass - first);
        const float* weight = packed + panel.offset;
        const int64_t across = work.products * panel.width;
        for (int outer = 0; outer < (kOuter ? 4 : 1); ++outer)
          for (int point = 0; point < Points; ++point) {
            const int64_t group = outer == 0 ? plan.first_group(point) : 0, groups = plan.groups - group;
            float* to = products + (outer * Points + point) * across;
            if (groups == 0) {
              for (int64_t k = 0; k < across; ++k) to[k] = 0;
              continue;
            }
            const float* columns = transformed + (outer * Points + point) * stride + (first * d + group * shift) * length;
            const bool constant = point == 1 && outer == (kOuter ? 1 : 0);
            toom_cook_multiply(panel, columns, length, weight, groups, shift, channels, constant ? lanes : none,
                               batch * d, to);
            weight += groups * channels * panel.width;
          }
        for (int64_t i = 0; i < batch; ++i)
          for (int64_t r = 0; r < d; ++r)
            toom_cook_outputs<Tile, Points, OuterTiles>(products + (i * d + r) * panel.width, across, panel.width,
                                                        sums + (i * plan.block() * d + r) * panel.width,
                                                        d * panel.width);
        const int64_t from = (begin + first) * toom_cook_block(call);
        to_memory(panel, sums, from, smaller(batch * toom_cook_block(call), count - from));
      }
    });
  }
}

template <class ToMemory>
void toom_cook(const fastvoc_conv1d_call& call, const float* rows, int64_t row, int64_t count, const float* packed,
               const float* bias, float* workspace, ToMemory to_memory) {
  const ToomCook plan = toom_cook_of(call.taps);
  const auto run = [&](auto function) { function(call, rows, row, count, packed, bias, workspace, to_memory); };
  if (plan.tile == 6) return run(toom_cook_run<6, 8, 1, ToMemory>);
  if (plan.tile == 3) return plan.points == 7 ? run(toom_cook_run<3, 7, 1, ToMemory>) : run(toom_cook_run<3, 8, 1, ToMemory>);
  if (plan.points == 8) return run(toom_cook_run<4, 8, 1, ToMemory>);
  if (plan.outer_tiles == 3) return run(toom_cook_run<4, 7, 3, ToMemory>);
  if (plan.outer_tiles == 2) return run(toom_cook_run<4, 7, 2, ToMemory>);
  run(toom_cook_run<4, 7, 1, ToMemory>);
}

}  // namespace fastvoc::FASTVOC_ISA
