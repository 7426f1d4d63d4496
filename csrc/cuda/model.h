// How long kernels take. Nothing here has been measured: the numbers are peaks of data sheets and what shared memory
// can deliver, so they only choose between ways to do the same thing. Replace them by times as soon as there are some.
#pragma once

#include "plan.h"

namespace fastvoc::cuda {

// Of one multiprocessor and clock: multiply-adds of 16-bit operands by mma and by wgmma, at the peak of a common GPU of
// the architecture, and bytes of device memory.
struct Rates {
  int architecture;
  float multiplies, warpgroups, bytes;
};
constexpr Rates kRates[] = {{75, 512, 0, 4.8f},    // T4: 65 TFLOP/s, 320 GB/s
                            {80, 1024, 0, 11.5f},  // A100: 312 TFLOP/s, 1.75 TB/s
                            {86, 512, 0, 5.0f},    // A10, RTX 3090
                            {89, 256, 0, 2.9f},    // RTX 4090: 165 TFLOP/s with sums in float32, 1 TB/s
                            {90, 1270, 2048, 19},  // H200: mma reaches some 60 % of wgmma; 4.3 TB/s
                            {100, 1270, 0, 28},    // B200
                            {120, 256, 0, 4.4f}};  // RTX 5090
constexpr float kReached = 0.75f;                  // of such a peak, by a loop that also loads
constexpr float kFewWarps = 0.6f;                  // of that, what very few warps reach; kEnoughWarps reach all of it
constexpr int kEnoughWarps = 16;                   // on a multiprocessor
constexpr float kNotOverlapped = 0.5f;             // of memory and multiplications, of that which takes less time
constexpr float kLaunchClocks = 4000;              // a launch, and what blocks take to begin and to end: some 2 us
constexpr float kNominalFrames = 256;              // of an item, when it is decided what becomes a chain: 3 s
constexpr int kNominalBatch = 64;                  // of items that a launch counts for once, so that rounds are full
constexpr int kSharedBytesPerClock = 128;          // of a multiprocessor

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
// many threads, as kernels of this kind use them.
constexpr int kThreadsByRegisters = 512, kHopperThreadsByRegisters = 768;
inline int blocks_per_multiprocessor(const fastvoc_gpu& gpu, int threads, int shared, bool hopper) {
  const int reserved = gpu.architecture >= 80 ? 1024 : 0;
  const int by_shared = gpu.shared_per_multiprocessor / (shared + reserved);
  const int by_threads = threads_per_multiprocessor(gpu.architecture) / threads;
  const int by_registers = (hopper ? kHopperThreadsByRegisters : kThreadsByRegisters) / threads;
  int blocks = by_shared < by_threads ? by_shared : by_threads;
  if (by_registers < blocks) blocks = by_registers;
  return blocks > 1 ? blocks : 1;
}

// Clocks of a launch: rounds of blocks, each as many as the GPU holds at once.
inline double clocks_of(const fastvoc_gpu& gpu, int64_t blocks, int together, int threads, double clocks_of_block) {
  const int64_t held = int64_t{gpu.multiprocessors} * together, rounds = (blocks + held - 1) / held;
  // A round that is not full leaves each of its blocks more of the multiprocessor.
  const int64_t last = blocks - (rounds - 1) * held;
  const auto round = [&](int64_t beside) {
    const int64_t warps = beside * threads / 32;
    const double reached = warps < kEnoughWarps ? kFewWarps + (1 - kFewWarps) * warps / kEnoughWarps : 1;
    return beside * clocks_of_block / reached;
  };
  return (rounds - 1) * round(together) + round((last + gpu.multiprocessors - 1) / gpu.multiprocessors);
}

}  // namespace fastvoc::cuda
