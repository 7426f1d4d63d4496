// The kernels that begin convnext: a depthwise convolution, and the layer norm of each frame behind it.
//
// Nothing is rounded between the two, and nobody waits for another warp: a frame's channels are in the registers of one.
// A lane goes through the taps of two channels once for all of its frames. Channels and lanes are added in one order,
// whatever the kernel.
#pragma once

#include "normalise.h"
#include "snake.cuh"

namespace fastvoc::cuda {

FASTVOC_DEVICE float sum_of_warp(float value) {
#pragma unroll
  for (int bits = 16; bits > 0; bits /= 2) value += from_lane_across(value, bits);
  return value;
}

template <int precision, int most, int frames, bool words>
FASTVOC_DEVICE void normalise_frames(const Normalise& call) {
  constexpr int bytes = element_bytes(precision);
  const int lane = thread() % 32, item = block_y();
  const int first = (block_x() * kNormaliseWarps + thread() / 32) * frames;
  const int length = call.lengths ? load_global(call.lengths + item) : call.frames;
  const int missing = call.frames - length, last = call.out_frames - missing;
  if (first >= last) return;
  const int pairs = (call.channels + 63) / 64;

  float sum[most][frames][2];
#pragma unroll
  for (int pair = 0; pair < most; ++pair) {
#pragma unroll
    for (int i = 0; i < frames; ++i) sum[pair][i][0] = sum[pair][i][1] = 0;
    const int channel = (pair * 32 + lane) * 2;
    if (pair >= pairs || channel >= call.channels) continue;
    const bool both = channel + 1 < call.channels;
    const Rows<precision, true, words> x = {
        static_cast<const char*>(call.x) +
            (item * call.x_item + static_cast<long long>(channel) * call.x_channel) * bytes,
        call.x_frame * bytes, both ? call.x_channel * bytes : 0, length};
    const auto parameter = [&](const void* from, long long at, float& low, float& high) {
      const Rows<precision, false, words> values = {static_cast<const char*>(from) + at * bytes, 0, both ? bytes : 0,
                                                    1};
      unpack(values.at(0, true), low, high);
    };
    float low, high, window[frames][2];
    parameter(call.bias, channel, low, high);
#pragma unroll
    for (int i = 0; i < frames; ++i) sum[pair][i][0] = low, sum[pair][i][1] = high;
#pragma unroll
    for (int i = 0; i + 1 < frames; ++i) unpack(x.at(first - call.left + i, false), window[i + 1][0], window[i + 1][1]);
#pragma unroll 1
    for (int tap = 0; tap < call.taps; ++tap) {
#pragma unroll
      for (int i = 0; i + 1 < frames; ++i) window[i][0] = window[i + 1][0], window[i][1] = window[i + 1][1];
      unpack(x.at(first - call.left + tap + frames - 1, false), window[frames - 1][0], window[frames - 1][1]);
      parameter(call.weight, static_cast<long long>(tap) * call.channels + channel, low, high);
#pragma unroll
      for (int i = 0; i < frames; ++i) {
        sum[pair][i][0] = fused(window[i][0], low, sum[pair][i][0]);
        sum[pair][i][1] = fused(window[i][1], high, sum[pair][i][1]);
      }
    }
    if (!both) {
#pragma unroll
      for (int i = 0; i < frames; ++i) sum[pair][i][1] = 0;
    }
  }

  const auto real = [&](int pair, int i) { return (pair * 32 + lane) * 2 + i < call.channels; };
  float factor[frames];
#pragma unroll
  for (int i = 0; i < frames; ++i) {
    float total = 0;
#pragma unroll
    for (int pair = 0; pair < most; ++pair) total += sum[pair][i][0] + sum[pair][i][1];
    const float mean = sum_of_warp(total) / static_cast<float>(call.channels);
    float squares = 0;
#pragma unroll
    for (int pair = 0; pair < most; ++pair) {
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        sum[pair][i][j] = real(pair, j) ? sum[pair][i][j] - mean : 0;
        squares = fused(sum[pair][i][j], sum[pair][i][j], squares);
      }
    }
    factor[i] = 1 / square_root(sum_of_warp(squares) / static_cast<float>(call.channels) + call.eps);
  }
  char* const y = static_cast<char*>(call.y) + static_cast<long long>(item) * call.out_frames * call.channels * bytes;
#pragma unroll
  for (int pair = 0; pair < most; ++pair) {
    const int channel = (pair * 32 + lane) * 2;
    if (pair >= pairs || channel >= call.channels) continue;
    const bool both = channel + 1 < call.channels;
    float scale[2], shift[2];
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      scale[j] = given_element(call.norm, channel + (both ? j : 0), kElements, precision);
      shift[j] = given_element(call.norm_bias, channel + (both ? j : 0), kElements, precision);
    }
#pragma unroll
    for (int i = 0; i < frames; ++i) {
      if (first + i >= last) continue;
      store_pair<precision, words>(y + (static_cast<long long>(first + i) * call.channels + channel) * bytes, bytes, both,
                                   fused(sum[pair][i][0] * factor[i], scale[0], shift[0]),
                                   fused(sum[pair][i][1] * factor[i], scale[1], shift[1]));
    }
  }
}

template <int precision, int most, int frames>
FASTVOC_DEVICE void normalise(const Normalise& call) {
  if constexpr (!kMultiplies<precision>) {
    trap();
    return;
  }
  if (call.words) {
    normalise_frames<precision, most, frames, true>(call);
  } else {
    normalise_frames<precision, most, frames, false>(call);
  }
}

}  // namespace fastvoc::cuda
