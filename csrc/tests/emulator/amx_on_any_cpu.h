// The tile instructions that cpu/kernels/direct_amx.h uses, in plain C++, to be included in front of it: so that it can
// be tested where the processor has none.
//
// Misuse that the processor would answer with a fault ends the program, and memory is touched as far as a tile reaches
// and no further, so that sanitizers see it.
#pragma once

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#define FASTVOC_EMULATE_AMX
#undef _tile_loadconfig
#undef _tile_release
#undef _tile_loadd
#undef _tile_stored
#undef _tile_dpbf16ps
#define _tile_loadconfig(config) fastvoc_amx::tiles.configure(config)
#define _tile_release() fastvoc_amx::tiles.release()
#define _tile_loadd(tile, base, stride) fastvoc_amx::tiles.load(tile, base, stride)
#define _tile_stored(tile, base, stride) fastvoc_amx::tiles.store(tile, base, stride)
#define _tile_dpbf16ps(sum, a, b) fastvoc_amx::tiles.multiply_add(sum, a, b)

namespace fastvoc_amx {

class Tiles {
 public:
  void configure(const void* config) {
    const auto* bytes = static_cast<const uint8_t*>(config);
    expect(bytes[0] == 1 && bytes[1] == 0, "palette 1");
    for (int i = 2; i < 16; ++i) expect(bytes[i] == 0, "reserved bytes of zero");
    for (int t = 0; t < 16; ++t) {
      uint16_t columns;
      std::memcpy(&columns, bytes + 16 + 2 * t, sizeof columns);
      const uint8_t rows = bytes[48 + t];
      expect(t < 8 ? columns <= 64 && rows <= 16 : columns == 0 && rows == 0, "tiles that exist");
      expect((columns == 0) == (rows == 0), "a shape");
      if (t < 8) tile_[t] = {columns, rows, {}};
    }
    configured_ = true;
  }

  void release() {
    *this = Tiles();
  }

  void load(int t, const void* base, int64_t stride) {
    Tile& tile = used(t);
    std::memset(tile.data, 0, sizeof tile.data);
    for (int r = 0; r < tile.rows; ++r)
      std::memcpy(tile.data[r], static_cast<const char*>(base) + r * stride, tile.columns);
  }

  void store(int t, void* base, int64_t stride) {
    const Tile& tile = used(t);
    for (int r = 0; r < tile.rows; ++r) std::memcpy(static_cast<char*>(base) + r * stride, tile.data[r], tile.columns);
  }

  // Even and odd products of a row are summed each by themselves, subnormal numbers as zeros.
  void multiply_add(int sum, int a, int b) {
    Tile &c = used(sum), &left = used(a), &right = used(b);
    expect(sum != a && sum != b && a != b, "three tiles");
    expect(left.columns % 4 == 0 && right.columns % 4 == 0, "whole pairs");
    expect(c.rows == left.rows && c.columns == right.columns && left.columns / 4 == right.rows, "shapes that match");
    for (int m = 0; m < c.rows; ++m)
      for (int n = 0; n < c.columns / 4; ++n) {
        float parts[2] = {};
        for (int k = 0; k < right.rows; ++k)
          for (int part = 0; part < 2; ++part)
            parts[part] = flushed(__builtin_fmaf(number(left, m, 2 * k + part), number(right, k, 2 * n + part),
                                                 parts[part]));
        float total;
        std::memcpy(&total, c.data[m] + 4 * n, sizeof total);
        total = flushed(flushed(total) + flushed(parts[0] + parts[1]));
        std::memcpy(c.data[m] + 4 * n, &total, sizeof total);
      }
  }

 private:
  struct Tile {
    int columns, rows;  // bytes, rows
    uint8_t data[16][64];
  };

  static void expect(bool met, const char* what) {
    if (met) return;
    std::fprintf(stderr, "amx: expected %s\n", what);
    std::abort();
  }

  static float flushed(float value) { return __builtin_fabsf(value) < 1.17549435e-38f ? 0 : value; }

  static float number(const Tile& tile, int row, int column) {
    uint16_t narrow;
    std::memcpy(&narrow, tile.data[row] + 2 * column, sizeof narrow);
    const uint32_t bits = uint32_t{narrow} << 16;
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return flushed(value);
  }

  Tile& used(int t) {
    expect(configured_ && tile_[t].rows > 0, "a configured tile");
    return tile_[t];
  }

  Tile tile_[8] = {};
  bool configured_ = false;
};

inline thread_local Tiles tiles;

}  // namespace fastvoc_amx
