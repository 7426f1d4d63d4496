// What happens once per weight, and at the door: other people's orders become those of kernels.
#pragma once

#include "instructions.cuh"

namespace fastvoc::cuda {

// An element of what the user gave: float, or of the precision.
FASTVOC_DEVICE float given_element(const void* from, long long element, int type, int precision) {
  if (type == kFloats || precision == kTfloat32) return load_global(static_cast<const float*>(from) + element);
  const unsigned bits = load_global(static_cast<const unsigned short*>(from) + element);
  float value, nothing;
  if (precision == kFloat16) {
    unpack_pair<kFloat16>(bits, value, nothing);
  } else {
    unpack_pair<kBfloat16>(bits, value, nothing);
  }
  return value;
}

FASTVOC_DEVICE unsigned rounded_pair(float low, float high, int precision) {
  return precision == kFloat16 ? pack_pair<kFloat16>(low, high) : pack_pair<kBfloat16>(low, high);
}

FASTVOC_DEVICE void pack_weight(const Pack& pack) {
  let_next_kernel_begin();
  wait_for_previous_kernel();
  const int taps = (pack.taps + pack.stride - 1) / pack.stride, width = chunk_channels(pack.precision);
  const int elements = taps * pack.chunks * pack.columns * width;  // less than 2 GB
  for (int i = block_x() * 256 + thread(); i < elements; i += grid_x() * 256) {
    const int column = i / width % pack.columns, slice = i / width / pack.columns;
    const int in = slice % pack.chunks * width + i % width;
    const int order = channel_of(column, pack.columns), phase = pack.gates ? 0 : order / pack.channels;
    const int half = pack.columns / 2, row = gated_row(column, pack.columns);
    const bool fill = pack.gates && row % half >= pack.gates, first = (row < half) != (pack.sigmoid_first != 0);
    const int out = pack.gates ? row % half + (first ? 0 : pack.gates) : order % pack.channels;
    // In an upsampling, later rows of x meet earlier taps.
    const int tap = pack.upsample ? phase + (taps - 1 - slice / pack.chunks) * pack.stride : slice / pack.chunks;
    const bool exists = !fill && phase < pack.stride && out < pack.out_channels;
    float value = 0;
    if (exists && in < pack.in_channels && tap < pack.taps) {
      const long long outer = pack.upsample ? static_cast<long long>(in) * pack.out_channels + out
                                            : static_cast<long long>(out) * pack.in_channels + in;
      value = given_element(pack.weight, outer * pack.taps + tap, pack.from, pack.precision);
    }
    if (pack.precision == kTfloat32) {
      static_cast<float*>(pack.packed)[i] = round_tf32(value);
    } else {
      static_cast<unsigned short*>(pack.packed)[i] =
          static_cast<unsigned short>(rounded_pair(value, 0, pack.precision));
    }
    if (slice == 0 && i % width == 0) {
      const float bias = exists && pack.bias ? given_element(pack.bias, out, pack.from, pack.precision) : 0;
      pack.packed_bias[column] = pack.first ? bias : pack.packed_bias[column] + bias;
    }
  }
}

// One thread per chunk. Neighbours read neighbouring frames where those are neighbours in memory, else neighbouring
// channels.
FASTVOC_DEVICE void enter_signal(const Enter& enter) {
  let_next_kernel_begin();
  wait_for_previous_kernel();
  const int width = chunk_channels(enter.precision);
  const long long chunks = static_cast<long long>(enter.batch) * enter.frames * enter.chunks;
  for (long long i = block_x() * 256ll + thread(); i < chunks; i += grid_x() * 256ll) {
    const bool along = enter.frame == 1;
    const int item = static_cast<int>(i / enter.chunks / enter.frames);
    const int inside = static_cast<int>(i - static_cast<long long>(item) * enter.chunks * enter.frames);
    const int frame = along ? inside % enter.frames : inside / enter.chunks;
    const int chunk = along ? inside / enter.frames : inside % enter.chunks;
    float value[8];
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      const int channel = chunk * width + j;
      value[j] = j < width && channel < enter.channels
                     ? given_element(enter.x, item * enter.item + channel * enter.channel + frame * enter.frame,
                                     enter.from, enter.precision)
                     : 0;
    }
    Vector16 rounded;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      rounded.word[j] = enter.precision == kTfloat32 ? as_bits(enter.exact ? value[j] : round_tf32(value[j]))
                                                     : rounded_pair(value[2 * j], value[2 * j + 1], enter.precision);
    }
    char* const y =
        static_cast<char*>(enter.y.data) +
        (item * enter.y.item + static_cast<long long>(frame) * enter.y.row) * element_bytes(enter.precision);
    *reinterpret_cast<Vector16*>(y + chunk * kChunkBytes) = rounded;
  }
}

}  // namespace fastvoc::cuda
