// smooth_snake on the CPU.

#include "kernels/smooth_snake.h"

namespace fastvoc::FASTVOC_ISA {
namespace {

int check(const fastvoc_call& call) {
  if (call.dilation != 1 || call.stride != 1 || call.padding_mode != FASTVOC_ZERO || call.tanh || call.left ||
      call.right || call.taps != 2)
    return FASTVOC_BAD_OPERATOR;
  if (call.in_frames < 1 || call.out_channels != call.in_channels || call.groups != call.in_channels ||
      !fits({call.batch, call.in_frames + 64, call.in_channels + 64}) || !tiles_fit(call.threads, 0, call.in_channels))
    return FASTVOC_BAD_SIZE;
  return FASTVOC_OK;
}

// Frames of a tile, which is brought into the order of the kernel if the input is in another.
int64_t rows_of(const fastvoc_call& call) {
  const int64_t held = larger(kTileFloats / round_up(call.in_channels, kLanes), 64);
  return larger(smaller(held, larger(call.batch, 1) * call.in_frames / call.threads + 1), kLanes);
}

int64_t tile_floats(const fastvoc_call& call) {
  return (rows_of(call) + 2 * kSnakeReach + 2) * round_up(call.in_channels, kLanes);
}

int64_t packed_size(const fastvoc_call& call) { return snake_packed_floats(call.in_channels); }

void pack(const fastvoc_call& call, const float* weight, float* packed) {
  snake_pack(call.in_channels, weight, packed);
}

int64_t workspace_size(const fastvoc_call& call) { return call.threads * tile_floats(call); }

void run(const fastvoc_call& call, const float* x, const int64_t* x_strides, const float* packed, const float*,
         const float*, const int64_t*, float* y, const int64_t* y_strides, float* workspace) {
  const int64_t channels = call.in_channels, row = round_up(channels, kLanes), frames = call.in_frames;
  const int64_t height = rows_of(call), tiles = (frames + height - 1) / height;
  const bool in_order = x_strides[1] == 1 && channels >= kLanes && x_strides[2] >= channels;
  fastvoc_call signal{};
  signal.in_channels = channels;
  signal.in_frames = frames;
  signal.slope = 1.0f;
  share_out(call.threads, call.batch * tiles, [&](int64_t worker, int64_t tile) {
    float* const own = workspace + worker * tile_floats(call);
    alignas(64) float sums[kSnakeChunk * kLanes + kLanes * kLanes];
    const int64_t batch = tile / tiles, begin = tile % tiles * height, count = smaller(height, frames - begin);
    SnakeRows rows{x + batch * x_strides[0], x_strides[2], 0, frames};
    if (!in_order) {
      rows = {own, row, larger(begin - kSnakeReach, 0), frames};
      const int64_t end = smaller(begin + count + kSnakeReach, frames);
      load_tile(signal, x + batch * x_strides[0], x_strides, rows.base, end - rows.base, end - rows.base, own, row);
    }
    for_each_snake_vector(channels, [&](int64_t first, int64_t width) {
      const Panel panel{first, kLanes, 1, 0};
      fastvoc_call part = call;
      part.out_channels = first + width;
      SnakeRows vector = rows;
      vector.data += first;
      smooth_snake_vector(vector, snake_parameters(packed, channels, first), begin, count, sums,
                          [&](float* made, int64_t chunk, int64_t made_rows) {
                            store_chunk(panel, part, made, made_rows, {nullptr, 0, 0},
                                        rows_at(y, y_strides, batch, begin + chunk));
                          });
    });
  });
}

}  // namespace

const Forward smooth_snake = {check, packed_size, workspace_size, pack, run};

}  // namespace fastvoc::FASTVOC_ISA
