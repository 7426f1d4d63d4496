// What plans and gradients ask of every call, and how they launch.
#pragma once

#include <cstdint>

#include "../../sizes.h"
#include "../../fastvoc_cuda.h"

namespace fastvoc::cuda {

constexpr int kFirstLaunched = 90;  // architecture from which on a kernel may begin before the one in front has ended
constexpr int64_t kMostBlocks = 4096;  // of kernels whose blocks go on with the next element

inline bool is_gpu(const fastvoc_gpu& gpu) {
  constexpr int kMostShared = 1 << 24;
  const bool off = gpu.hopper & FASTVOC_HOPPER_OFF;
  if (gpu.hopper < 0 || (off && gpu.hopper != FASTVOC_HOPPER_OFF)) return false;
  return is_count(gpu.multiprocessors) && gpu.shared_per_block >= 1 && gpu.shared_per_block <= kMostShared &&
         gpu.shared_per_multiprocessor >= gpu.shared_per_block && gpu.shared_per_multiprocessor <= kMostShared;
}

inline bool is_aligned(const void* memory, int64_t bytes) { return reinterpret_cast<uintptr_t>(memory) % bytes == 0; }

}  // namespace fastvoc::cuda
