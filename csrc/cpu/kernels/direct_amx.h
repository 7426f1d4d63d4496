// Direct convolution with bfloat16 operands in tile registers (AMX-BF16, Sapphire Rapids and later).
//
// A tile of rows is 16 rows of up to 32 channels, read where they are: a tap is a row offset here too. A tile of
// weights is the same channels, in pairs, of 16 output channels. Their product is added to a tile of sums, 16 rows of
// 16 output channels. Three tiles of rows by two of weights make a chunk of 48 rows of a panel of 32 channels: six of
// the eight tiles are sums, which is enough to hide the time that a product takes.
//
// What the tiles hold is a setting of the processor, made by AmxTiles for one layer on one thread.
#pragma once

#if (defined(__AMX_TILE__) && defined(__AMX_BF16__)) || defined(FASTVOC_EMULATE_AMX)

#include "direct_bf16.h"

namespace fastvoc::FASTVOC_ISA {

constexpr int kTileRows = 16;
static_assert(kChunk == 3 * kTileRows && kLanes == 16);

inline int64_t amx_steps(const fastvoc_call& call) { return (call.in_channels + 31) / 32; }

// Channels of a tile of rows: as even as the steps can be cut.
inline int64_t amx_depth(const fastvoc_call& call) {
  return round_up((call.in_channels + amx_steps(call) - 1) / amx_steps(call), 2);
}

// The tiles of a thread while it convolves: 0 to 2 are sums of the lower and 3 to 5 of the upper half of a panel, 6
// holds rows and 7 weights. Layers of the same amx_depth() can share one.
class AmxTiles {
 public:
  explicit AmxTiles(const fastvoc_call& call) {
    struct alignas(64) {
      uint8_t palette = 1, start = 0, reserved[14] = {};
      uint16_t row_bytes[16] = {};
      uint8_t rows[16] = {};
    } config;
    for (int tile = 0; tile < 8; ++tile) {
      config.row_bytes[tile] = 64;
      config.rows[tile] = kTileRows;
    }
    config.row_bytes[6] = static_cast<uint16_t>(2 * amx_depth(call));
    config.rows[7] = static_cast<uint8_t>(amx_depth(call) / 2);
    asm volatile("" : : "r"(&config) : "memory");  // the intrinsic does not say that it reads all of it
    _tile_loadconfig(&config);
  }
  AmxTiles(const AmxTiles&) = delete;
  AmxTiles& operator=(const AmxTiles&) = delete;
  ~AmxTiles() { _tile_release(); }
};

// Up to three tiles of rows by one or two halves of a panel, with the bias.
template <int Tiles, int Halves>
__attribute__((noinline)) void amx_accumulate(const uint16_t* rows, int64_t row, const uint16_t* weight,
                                              const Taps& taps, int64_t steps, int64_t depth, const float* bias,
                                              float* sums) {
  const int64_t across = row * sizeof *rows, along = Halves * kLanes * sizeof *sums;
  asm volatile("" : : : "memory");  // nor do the intrinsics that read memory
  // A stride of zero bytes repeats the bias in every row.
  _tile_loadd(0, bias, 0);
  if constexpr (Tiles > 1) _tile_loadd(1, bias, 0);
  if constexpr (Tiles > 2) _tile_loadd(2, bias, 0);
  if constexpr (Halves > 1) {
    _tile_loadd(3, bias + kLanes, 0);
    if constexpr (Tiles > 1) _tile_loadd(4, bias + kLanes, 0);
    if constexpr (Tiles > 2) _tile_loadd(5, bias + kLanes, 0);
  }
  for (int64_t tap = 0; tap < taps.count; ++tap, weight += taps.gap)
    for (int64_t step = 0; step < steps; ++step) {
      const uint16_t* const x = rows + tap * taps.apart + step * depth;
      _tile_loadd(7, weight, 64);
      _tile_loadd(6, x, across);
      _tile_dpbf16ps(0, 6, 7);
      if constexpr (Tiles > 1) {
        _tile_loadd(6, x + kTileRows * row, across);
        _tile_dpbf16ps(1, 6, 7);
      }
      if constexpr (Tiles > 2) {
        _tile_loadd(6, x + 2 * kTileRows * row, across);
        _tile_dpbf16ps(2, 6, 7);
      }
      weight += depth * kLanes;
      if constexpr (Halves > 1) {
        // The last rows are still there: take the tiles in the opposite order.
        _tile_loadd(7, weight, 64);
        if constexpr (Tiles > 2) {
          _tile_dpbf16ps(5, 6, 7);
          _tile_loadd(6, x + kTileRows * row, across);
        }
        if constexpr (Tiles > 1) {
          _tile_dpbf16ps(4, 6, 7);
          _tile_loadd(6, x, across);
        }
        _tile_dpbf16ps(3, 6, 7);
        weight += depth * kLanes;
      }
    }
  constexpr int kTile = kTileRows * Halves * kLanes;
  _tile_stored(0, sums, along);
  if constexpr (Tiles > 1) _tile_stored(1, sums + kTile, along);
  if constexpr (Tiles > 2) _tile_stored(2, sums + 2 * kTile, along);
  if constexpr (Halves > 1) {
    _tile_stored(3, sums + kLanes, along);
    if constexpr (Tiles > 1) _tile_stored(4, sums + kTile + kLanes, along);
    if constexpr (Tiles > 2) _tile_stored(5, sums + 2 * kTile + kLanes, along);
  }
}

// As Bf16Dots, in tiles.
struct Bf16Tiles {
  static constexpr int kReadRows = kTileRows;

  static int64_t row_length(const fastvoc_call& call) { return amx_steps(call) * amx_depth(call); }

  template <class Visit>
  static void for_each_panel(const fastvoc_call& call, Visit visit) {
    int64_t offset = 0;
    for (int64_t first = 0; first < call.out_channels;) {
      const int width = call.out_channels - first > kLanes ? 2 * kLanes : kLanes;
      visit(Panel{first, width, 1, offset});
      first += width;
      offset += call.taps * row_length(call) * width;
    }
  }

  static int64_t packed_elements(const fastvoc_call& call) {
    int64_t elements = 0;
    for_each_panel(call, [&](const Panel& panel) { elements += call.taps * row_length(call) * panel.width; });
    return elements;
  }

  // Tiles of weights in the order in which they are read: tap, step, half of the panel.
  template <class Weight>
  static void pack(const fastvoc_call& call, Weight weight, uint16_t* packed) {
    const int64_t steps = amx_steps(call), depth = amx_depth(call);
    for_each_panel(call, [&](const Panel& panel) {
      const int64_t halves = panel.vectors();
#pragma omp parallel for num_threads(call.threads) if (call.taps * call.in_channels * panel.width > 65536)
      for (int64_t step = 0; step < steps; ++step)
        for (int64_t tap = 0; tap < call.taps; ++tap)
          for (int64_t half = 0; half < halves; ++half) {
            uint16_t* const tile = packed + panel.offset + ((tap * steps + step) * halves + half) * depth * kLanes;
            for (int64_t i = 0; i < depth * kLanes; ++i) {
              const int64_t out = panel.first + half * kLanes + i / 2 % kLanes;
              const int64_t in = step * depth + i / (2 * kLanes) * 2 + i % 2;
              tile[i] = out < call.out_channels && in < call.in_channels ? weight(out, in, tap) : uint16_t{0};
            }
          }
    });
  }

  template <class ToMemory>
  static void convolve_panel(const Panel& panel, const fastvoc_call& call, const uint16_t* rows, int64_t row,
                             int64_t height, const uint16_t* packed, const float* bias, float* sums,
                             ToMemory to_memory, const Second& second = {}) {
    const AmxTiles tiles(call);
    const int64_t steps = amx_steps(call), depth = amx_depth(call);
    const Taps taps = taps_of(call, row, second, steps * depth * panel.width);
    for (int64_t chunk = 0; chunk < height; chunk += kChunk) {
      const int64_t count = smaller(kChunk, height - chunk);
      const auto run = [&](auto accumulate) {
        accumulate(rows + chunk * row, row, packed + panel.offset, taps, steps, depth, bias, sums);
      };
      if (panel.vectors() == 2) {
        count > 2 * kTileRows ? run(amx_accumulate<3, 2>)
        : count > kTileRows   ? run(amx_accumulate<2, 2>)
                              : run(amx_accumulate<1, 2>);
      } else {
        count > 2 * kTileRows ? run(amx_accumulate<3, 1>)
        : count > kTileRows   ? run(amx_accumulate<2, 1>)
                              : run(amx_accumulate<1, 1>);
      }
      to_memory(sums, chunk, count);
    }
  }
};

}  // namespace fastvoc::FASTVOC_ISA

#endif
