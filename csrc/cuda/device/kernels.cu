// All kernels for GPUs, in one translation unit: for nvcc when the package is built, for NVRTC at first use, and for the
// CPU, which runs them in tests (csrc/tests/emulator/cuda_on_cpu.h).
#include "program.h"

#include "instructions.cuh"

#include "chain.cuh"
#include "convolution.cuh"
#include "gradients.cuh"
#include "hopper.cuh"
#include "hopper_chain.cuh"
#include "normalise.cuh"
#include "pack.cuh"
#include "recurrent.cuh"
#include "recurrent_cluster.cuh"
#include "snake.cuh"

namespace fastvoc::cuda {

#define FASTVOC_CHAIN(word, precision, channels, warps, tiles)                       \
  FASTVOC_KERNEL(chain_##word##_##channels##_##warps##x##tiles, Chain, 32 * warps) { \
    chain<precision, channels, warps, tiles>(parameter);                             \
  }
FASTVOC_CHAINS(FASTVOC_CHAIN)

#define FASTVOC_CONVOLUTION(word, precision, rows, columns, threads)               \
  FASTVOC_KERNEL(convolution_##word##_##rows##x##columns, Convolutions, threads) { \
    convolution<precision, rows, columns, threads>(parameter);                     \
  }
FASTVOC_CONVOLUTIONS(FASTVOC_CONVOLUTION)

#define FASTVOC_HOPPER_CONVOLUTION(word, precision, rows, columns, threads)        \
  FASTVOC_HOPPER_KERNEL(hopper_##word##_##rows##x##columns, Convolutions, threads, \
                        hopper_blocks(rows, columns)) {                            \
    static_assert(threads == HopperWork<rows, columns>::block_threads);            \
    hopper_convolution<precision, rows, columns>(parameter);                       \
  }
FASTVOC_HOPPER_CONVOLUTIONS(FASTVOC_HOPPER_CONVOLUTION)

#define FASTVOC_GATED_CONVOLUTION(word, precision, rows, columns, threads)   \
  FASTVOC_KERNEL(gated_##word##_##rows##x##columns, Convolutions, threads) { \
    convolution<precision, rows, columns, threads, true>(parameter);         \
  }
FASTVOC_GATED_CONVOLUTIONS(FASTVOC_GATED_CONVOLUTION)

#define FASTVOC_HOPPER_GATED_CONVOLUTION(word, precision, rows, columns, threads)        \
  FASTVOC_HOPPER_KERNEL(hopper_gated_##word##_##rows##x##columns, Convolutions, threads, \
                        hopper_blocks(rows, columns)) {                                  \
    static_assert(threads == HopperWork<rows, columns>::block_threads);                  \
    hopper_convolution<precision, rows, columns, true>(parameter);                       \
  }
FASTVOC_HOPPER_GATED_CONVOLUTIONS(FASTVOC_HOPPER_GATED_CONVOLUTION)

#define FASTVOC_IN_TURN(word, precision, rows, columns, threads)                                \
  FASTVOC_HOPPER_KERNEL(hopper_in_turn_##word##_##rows##x##columns, Convolutions, threads, 1) { \
    static_assert(threads == HopperWork<rows, columns, true>::block_threads);                   \
    hopper_convolution_in_turn<precision, rows, columns>(parameter);                            \
  }
FASTVOC_HOPPER_CONVOLUTIONS_IN_TURN(FASTVOC_IN_TURN)

#define FASTVOC_HOPPER_CHAIN(word, precision, channels, warps, tiles)                                  \
  FASTVOC_HOPPER_KERNEL(hopper_chain_##word##_##channels##_##warps##x##tiles, Chain, 32 * (warps + 1), \
                        hopper_chain_blocks(channels, tiles)) {                                        \
    hopper_chain<precision, channels, warps, tiles>(parameter);                                        \
  }
FASTVOC_HOPPER_CHAINS(FASTVOC_HOPPER_CHAIN)

FASTVOC_KERNEL(pack, Pack, 256) { pack_weight(parameter); }
FASTVOC_KERNEL(enter, Enter, 256) { enter_signal(parameter); }

#define FASTVOC_WEIGHT_GRADIENT(word, precision, fixed, sliding, rows, warps, taps)          \
  FASTVOC_KERNEL(weight_gradient_##word##_##fixed##x##sliding, WeightGradient, 32 * warps) { \
    weight_gradient<precision, fixed, sliding, rows, warps, taps>(parameter);                \
  }
FASTVOC_WEIGHT_GRADIENTS(FASTVOC_WEIGHT_GRADIENT)
FASTVOC_KERNEL(add_parts, AddParts, 256) { add_shares(parameter); }
FASTVOC_KERNEL(input_gradient, InputGradient, 256) { finish_input_gradient(parameter); }

#define FASTVOC_RECURRENT(word, precision) \
  FASTVOC_KERNEL(recurrent_##word, Recurrent, 32 * kStepWarps) { recurrent<precision>(parameter); }
FASTVOC_RECURRENTS(FASTVOC_RECURRENT)

#define FASTVOC_RECURRENT_CLUSTER(word, precision)                                      \
  FASTVOC_HOPPER_KERNEL(hopper_recurrent_##word, Recurrent, 32 * kClusterWarps, 1) {    \
    recurrent_cluster<precision>(parameter);                                            \
  }
FASTVOC_RECURRENTS(FASTVOC_RECURRENT_CLUSTER)

#define FASTVOC_SNAKE(word, precision)                                                          \
  FASTVOC_SHARING_KERNEL(smooth_snake_##word, Snake, kSnakeThreads, kSnakeBlocks) {             \
    smooth_snake<precision>(parameter);                                                         \
  }                                                                                             \
  FASTVOC_SHARING_KERNEL(smooth_snake_gradient_##word, Snake, kSnakeThreads, kGradientBlocks) { \
    smooth_snake_gradient<precision>(parameter);                                                \
  }
FASTVOC_SNAKES(FASTVOC_SNAKE)

#define FASTVOC_NORMALISE(word, precision, pairs, frames)                                        \
  FASTVOC_SHARING_KERNEL(normalise_##word##_##pairs##x##frames, Normalise, 32 * kNormaliseWarps, \
                         kNormaliseBlocks) {                                                     \
    normalise<precision, pairs, frames>(parameter);                                              \
  }
FASTVOC_NORMALISES(FASTVOC_NORMALISE)

}  // namespace fastvoc::cuda
