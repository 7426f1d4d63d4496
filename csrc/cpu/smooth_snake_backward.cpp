// The gradient of smooth_snake on the CPU: the doubled signal is made again, and both filters are transposed.
//
//     ds[2n]     = sum over i of  f[2i + 1] dy[n + 2 - i]         du = ds (1 + amount a sin(2 a u))
//     ds[2n + 1] = sum over i of  f[2i] dy[n + 3 - i]             da = sum of ds amount u sin(2 a u)
//     dx[t]      = sum over j of  2 f[2j] du[2(t + 3 - j)]        d amount = sum of ds sin^2(a u)
//                               + 2 f[2j + 1] du[2(t + 2 - j) + 1]
//
// What copies beyond the ends receive is added to the frame that they are copies of.

#include "kernels/smooth_snake.h"

namespace fastvoc::FASTVOC_ISA {
namespace {

// Frames of a tile. Sums over tiles are added in their order, which must not depend on threads.
constexpr int64_t kTile = 128;
constexpr int64_t kAround = 6;  // frames of x and of the gradient around those of a tile

struct Tile {
  int64_t begin, end, frames;
  const float *x, *grad;  // rows, of which the first is frame begin - kAround; zeros stand beyond the gradient's ends
  int64_t row;

  Vector at(const float* rows, int64_t frame) const { return load(rows + (frame - begin + kAround) * row); }

  Vector gradient(int64_t frame) const { return frame < 0 || frame >= frames ? Vector{} : at(grad, frame); }
};

int64_t tiles_of(const fastvoc_call& call) { return (call.in_frames + kTile - 1) / kTile; }

int64_t tile_floats(const fastvoc_call& call) {
  return 2 * (kTile + 2 * kAround + 1) * round_up(call.in_channels, kLanes) + kLanes;
}

// Per tile and channel the sums of both parameters.
int64_t sums_floats(const fastvoc_call& call) {
  return call.batch * tiles_of(call) * 2 * round_up(call.in_channels, kLanes);
}

int64_t workspace_size(const fastvoc_call& call) {
  return snake_packed_floats(call.in_channels) + sums_floats(call) + call.threads * tile_floats(call);
}

// sin(pi r), |r| <= 1/2.
Vector sine_of(Vector r) {
  const Vector q = r * r;
  Vector s = q * -0.00700050055f + 0.0820312303f;
  s = s * q + -0.599247405f;
  s = s * q + 2.55016279f;
  s = s * q + -5.16771274f;
  s = s * q + -8.74227766e-8f;  // what float32 leaves of pi
  return r * s + r * 3.14159274f;
}

void sine_and_cosine(Vector r, Vector& sine, Vector& cosine) {
  r = r > 0.5f ? splat(0.5f) : r < -0.5f ? splat(-0.5f) : r;  // where float32 knows no fraction
  sine = sine_of(r);
  cosine = sine_of(0.5f - (r < 0 ? -r : r));  // as exact as it is small
}

// The gradients of both frames n of the doubled signal behind the Snake, in front of their copies.
void halved_backward(const Tile& tile, int64_t n, Vector& even, Vector& odd) {
  Vector gradients[7];
#pragma GCC unroll 7
  for (int j = 0; j < 7; ++j) gradients[j] = tile.gradient(n - 3 + j);
  even = filtered<false>(gradients);
  odd = filtered<true>(gradients + 1);
}

// The sums of a vector of channels over a tile, and the gradients of its input as rows.
void tile_backward(const Tile& tile, const SnakeParameters& of, float* rows, float* frequency, float* amount) {
  constexpr int64_t kHalo = 3, kMost = kTile + 2 * kHalo;
  alignas(64) float even[kMost * kLanes], odd[kMost * kLanes];
  const Vector slope = of.amount * of.turns * 6.28318530717958648f;
  Vector sums[2] = {}, chains[2] = {};  // sums of short chains, whose rounding is smaller
  const int64_t low = tile.begin - kHalo, high = tile.end + kHalo;
  for (int64_t n = low; n < high; ++n) {
    Vector ds[2] = {};
    if (n >= 0 && n < tile.frames) {
      halved_backward(tile, n, ds[0], ds[1]);
      if (n == 0 || n == tile.frames - 1) {
        for (int64_t copy = 1; copy <= 3; ++copy) {
          Vector e, o;
          if (n == 0) {
            halved_backward(tile, -copy, e, o);
            ds[0] += e + o;
          }
          if (n == tile.frames - 1) {
            halved_backward(tile, n + copy, e, o);
            ds[1] += e + o;
          }
        }
      }
      Vector x[7];
#pragma GCC unroll 7
      for (int j = 0; j < 7; ++j) x[j] = tile.at(tile.x, n - 3 + j);
      const Vector u[2] = {2 * filtered<false>(x), 2 * filtered<true>(x + 1)};
      const bool own = n >= tile.begin && n < tile.end;
      for (int i = 0; i < 2; ++i) {
        Vector sine, cosine;
        sine_and_cosine(fraction(u[i], of), sine, cosine);
        const Vector product = sine * cosine;
        if (own) {
          chains[0] += ds[i] * u[i] * product;
          chains[1] += ds[i] * sine * sine;
        }
        ds[i] += ds[i] * slope * product;
      }
    }
    if (n % 8 == 0 || n == high - 1)
      for (int i = 0; i < 2; ++i) {
        sums[i] += chains[i];
        chains[i] = Vector{};
      }
    store(even + (n - low) * kLanes, ds[0]);
    store(odd + (n - low) * kLanes, ds[1]);
  }
  store(frequency, 2 * of.amount * sums[0]);
  store(amount, sums[1]);
  if (!rows) return;
  const auto doubled_backward = [&](int64_t t) {
    Vector e[6], o[6];
#pragma GCC unroll 6
    for (int k = 0; k < 6; ++k) {
      const int64_t at_even = t - 2 + k - low, at_odd = t - 3 + k - low;
      e[k] = at_even >= 0 && at_even < high - low ? load(even + at_even * kLanes) : Vector{};
      o[k] = at_odd >= 0 && at_odd < high - low ? load(odd + at_odd * kLanes) : Vector{};
    }
    return 2 * (filtered<true>(e) + filtered<false>(o));
  };
  for (int64_t t = tile.begin; t < tile.end; ++t) {
    Vector sum = doubled_backward(t);
    for (int64_t copy = 1; t == 0 && copy <= 3; ++copy) sum += doubled_backward(-copy);
    for (int64_t copy = 1; t == tile.frames - 1 && copy <= 3; ++copy) sum += doubled_backward(t + copy);
    store(rows + (t - tile.begin) * kLanes, sum);
  }
}

void run(const fastvoc_call& call, const float* grad, const int64_t* grad_strides, const float* x,
         const int64_t* x_strides, const float* weight, const float*, const int64_t*, float* grad_x,
         const int64_t* grad_x_strides, float* grad_weight, float*, float* workspace) {
  const int64_t channels = call.in_channels, row = round_up(channels, kLanes), tiles = tiles_of(call);
  float* const packed = workspace;
  float* const sums = packed + snake_packed_floats(channels);
  float* const memory = sums + sums_floats(call);
  snake_pack(channels, weight, packed);
  fastvoc_call signal{};
  signal.in_channels = channels;
  signal.in_frames = call.in_frames;
  signal.slope = 1.0f;
  share_out(call.threads, call.batch * tiles, [&](int64_t worker, int64_t item) {
    float* const x_rows = memory + worker * tile_floats(call);
    float* const grad_rows = x_rows + (kTile + 2 * kAround) * row;
    alignas(64) float made[kTile * kLanes + kLanes * kLanes];
    const int64_t batch = item / tiles, begin = item % tiles * kTile;
    const int64_t end = smaller(begin + kTile, call.in_frames), count = end - begin + 2 * kAround;
    fastvoc_call part = signal;
    part.padding_mode = FASTVOC_REPLICATE;
    load_tile(part, x + batch * x_strides[0], x_strides, begin - kAround, count, count, x_rows, row);
    part.padding_mode = FASTVOC_ZERO;
    load_tile(part, grad + batch * grad_strides[0], grad_strides, begin - kAround, count, count, grad_rows, row);
    for_each_snake_vector(channels, [&](int64_t first, int64_t width) {
      const Tile tile{begin, end, call.in_frames, x_rows + first, grad_rows + first, row};
      float* const own = sums + item * 2 * row + first;
      tile_backward(tile, snake_parameters(packed, channels, first), grad_x ? made : nullptr, own, own + row);
      if (!grad_x) return;
      part.out_channels = first + width;
      store_chunk({first, kLanes, 1, 0}, part, made, end - begin, {nullptr, 0, 0},
                  rows_at(grad_x, grad_x_strides, batch, begin));
    });
  });
  for (int64_t c = 0; grad_weight && c < channels; ++c)
    for (int parameter = 0; parameter < 2; ++parameter) {
      double sum = 0;
      for (int64_t item = 0; item < call.batch * tiles; ++item) sum += sums[(2 * item + parameter) * row + c];
      grad_weight[2 * c + parameter] = float(sum);
    }
}

}  // namespace

const Backward smooth_snake_backward = {workspace_size, run};

}  // namespace fastvoc::FASTVOC_ISA
