// How long kernels take. Nothing here has been measured: the numbers are peaks of data sheets and what shared memory
// can deliver, so they only choose between ways to do the same thing. Replace them by times as soon as there are some.
#pragma once

#include <cmath>

#include "plan.h"

namespace fastvoc::cuda {

// Of one multiprocessor and clock: multiply-adds of 16-bit operands by mma and by wgmma, at the peak of a common GPU of
// the architecture, and bytes of device memory and of the second level cache, while all of them ask for some.
struct Rates {
  int architecture;
  float multiplies, warpgroups, memory, cache;
};
constexpr Rates kRates[] = {{75, 512, 0, 4.8f, 20},    // T4: 65 TFLOP/s, 320 GB/s
                            {80, 1024, 0, 11.5f, 30},  // A100: 312 TFLOP/s, 1.75 TB/s
                            {86, 512, 0, 5.0f, 15},    // A10, RTX 3090
                            {89, 256, 0, 2.9f, 15},    // RTX 4090: 165 TFLOP/s with sums in float32, 1 TB/s
                            {90, 1270, 2048, 19, 27},  // H200: mma reaches some 60 % of wgmma; 4.3 TB/s
                            {100, 1270, 0, 28, 27},    // B200
                            {120, 256, 0, 4.4f, 15}};  // RTX 5090
constexpr float kReached = 0.75f;          // of such a peak, by a loop that also loads
constexpr float kFewWarps = 0.6f;          // of that, what very few warps reach; kEnoughWarps reach all of it
constexpr int kEnoughWarps = 16;           // on a multiprocessor
constexpr float kNotOverlapped = 0.5f;     // of memory and multiplications, of that which takes less time
constexpr float kLaunchClocks = 4000;      // a launch, until the next one begins: some 2 us
constexpr int kSharedBytesPerClock = 128;  // of a multiprocessor
constexpr int kCacheBytesPerClock = 64;    // that a multiprocessor gets from the cache, if others leave it so many
constexpr float kFetchClocks = 700;        // from a request to the cache until a block of signals is there
constexpr float kAddedClocks = 1000;       // until a residual is there; or until the first operands are
constexpr int kSumsPerClock = 16;          // that a block finishes, while it does not multiply
constexpr int kGatedSumsPerClock = 8;      // the same of gates: two exponentials and a division for two sums

// What plans are made for: a second by itself, and an item of a large batch of four seconds, which count alike.
struct Nominal {
  int batch, frames;
};
constexpr Nominal kNominal[] = {{1, 86}, {32, 344}};

inline const Rates& rates_of(int architecture) {
  const Rates* best = kRates;
  for (const Rates& rates : kRates)
    if (rates.architecture <= architecture) best = &rates;
  return *best;
}

// Multiply-adds per clock of a multiprocessor by warps that have `tiles` times 16 rows and so many columns. For 32
// bytes of 16 rows and of every column, which shared memory has to deliver, there are 16 * 16 * columns of them in 16
// bits.
inline float multiplies_per_clock(int architecture, int precision, int columns, int tiles) {
  const float bytes = 16 * 32 + columns * 32.0f / tiles;
  const float fed = 256.0f * columns * kSharedBytesPerClock / bytes;
  const float peak = kReached * rates_of(architecture).multiplies;
  return (fed < peak ? fed : peak) * (precision == kTfloat32 ? 0.5f : 1);
}

// The same by wgmma, which reads 64 rows and all columns from shared memory.
inline float warpgroup_multiplies_per_clock(int architecture, int columns) {
  const float products = 64.0f * columns * 16, bytes = (64 + columns) * 32;
  const float clocks = products / rates_of(architecture).warpgroups, reading = bytes / kSharedBytesPerClock;
  return kReached * products / (clocks + kNotOverlapped / 2 * reading);
}

inline double overlapped(double one, double other) {
  return one > other ? one + kNotOverlapped * other : other + kNotOverlapped * one;
}

inline int threads_per_multiprocessor(int architecture) {
  switch (architecture) {
    case 75:
      return 1024;
    case 86:
    case 89:
    case 120:
      return 1536;
    default:
      return 2048;
  }
}

// Blocks that a multiprocessor holds at once; every block takes a kilobyte more than it asks for. Registers allow so
// many threads, as kernels without warpgroups use them, or so many blocks.
constexpr int kThreadsByRegisters = 512;
inline int blocks_per_multiprocessor(const fastvoc_gpu& gpu, int threads, int shared, int by_registers) {
  const int reserved = gpu.architecture >= 80 ? 1024 : 0;
  const int by_shared = gpu.shared_per_multiprocessor / (shared + reserved);
  const int by_threads = threads_per_multiprocessor(gpu.architecture) / threads;
  int blocks = by_shared < by_threads ? by_shared : by_threads;
  if (by_registers < blocks) blocks = by_registers;
  return blocks > 1 ? blocks : 1;
}

inline int blocks_per_multiprocessor(const fastvoc_gpu& gpu, int threads, int shared) {
  return blocks_per_multiprocessor(gpu, threads, shared, kThreadsByRegisters / threads);
}

// A launch: so many blocks of each of its problems, the longest first.
struct Blocks {
  double longest = 0, shortest = 0;  // clocks: of a block by itself; of one that shares a multiprocessor
  double all = 0;                    // clocks of one multiprocessor that they share
  double bytes = 0;                  // that they ask the cache for
  int64_t count = 0;

  // Blocks that take so many clocks by themselves, and keep a multiprocessor that they share busy for so many.
  void add(int64_t blocks, double clocks, double busy, double block_bytes) {
    if (count == 0 || clocks > longest) longest = clocks;
    if (count == 0 || busy < shortest) shortest = busy;
    all += double(blocks) * busy;
    bytes += double(blocks) * block_bytes;
    count += blocks;
  }
};

// Clocks of a launch: of its longest block, or of all of them, in rounds as long as the shortest one; while memory and
// the cache bring what they need.
inline double clocks_of(const fastvoc_gpu& gpu, const Blocks& blocks, int together, int threads, double memory) {
  const int64_t most = (blocks.count + gpu.multiprocessors - 1) / gpu.multiprocessors;
  const int64_t warps = (most < together ? most : together) * threads / 32;
  const double reached = warps < kEnoughWarps ? kFewWarps + (1 - kFewWarps) * warps / kEnoughWarps : 1;
  const double rounds = std::ceil(blocks.all / (double(gpu.multiprocessors) * blocks.shortest) - 1e-9);
  const double full = rounds * blocks.shortest;
  const double cache = blocks.bytes / (double(gpu.multiprocessors) * rates_of(gpu.architecture).cache);
  return overlapped(cache > memory ? cache : memory, (full > blocks.longest ? full : blocks.longest) / reached);
}

}  // namespace fastvoc::cuda
