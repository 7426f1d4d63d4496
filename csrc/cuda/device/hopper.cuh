// The convolutions of convolution.cuh on architecture 90a, where tensor cores read both operands from shared memory.
//
// Some warps bring operands there; two warpgroups multiply, each with half of the block's rows, or one with all of 64.
// Signals stand as [chunk][row], which is how the tensor cores take an operand; so a tap is an operand that begins some
// rows further on, and all taps share what was read once. The sum runs in the order of convolution.cuh.
//
// The number of chunks of every source must be even, and that of columns a multiple of 32.
#pragma once

#include "convolution.cuh"
#include "hopper_instructions.cuh"

namespace fastvoc::cuda {

constexpr int kWarpgroup = 128;
constexpr int kBarrierBytes = 256;  // of shared memory

// Threads that multiply, the first ones of a block, and tiles of 64 rows of each of their warpgroups. One warp behind
// them loads weights. A block that has a multiprocessor to itself loads by a whole warpgroup, so that that can leave
// registers to those that multiply.
FASTVOC_BOTH constexpr int hopper_multipliers(int rows) { return rows == 64 ? kWarpgroup : 2 * kWarpgroup; }
FASTVOC_BOTH constexpr int hopper_tiles(int rows) { return rows / 64 / (hopper_multipliers(rows) / kWarpgroup); }
FASTVOC_BOTH constexpr int hopper_threads(int rows, int columns) {
  return hopper_multipliers(rows) + (hopper_blocks(rows, columns) == 1 ? kWarpgroup : 64);
}
constexpr int kLoaderRegisters = 56, kMultiplierRegisters = 224;
static_assert(kLoaderRegisters + 2 * kMultiplierRegisters <= 3 * (65536 / (3 * kWarpgroup) / 8 * 8));

// Shared memory: barriers, stages of weights, blocks of signals. The latter two are rings: one barrier of a place says
// that it is full, and another one that it is free again.
template <int rows, int columns>
struct HopperMemory {
  static constexpr int stages = hopper_stages(rows);
  static_assert((2 * stages + 4) * sizeof(Barrier) <= kBarrierBytes);
  char* memory;
  int pitch;  // of signals: the same for all sources, so that places do not move

  FASTVOC_DEVICE Barrier* weights_full(int place) const { return reinterpret_cast<Barrier*>(memory) + place; }
  FASTVOC_DEVICE Barrier* weights_free(int place) const { return weights_full(stages + place); }
  FASTVOC_DEVICE Barrier* signal_full(int place) const { return weights_full(2 * stages + place); }
  FASTVOC_DEVICE Barrier* signal_free(int place) const { return weights_full(2 * stages + 2 + place); }
  FASTVOC_DEVICE char* weights(int place) const {
    return memory + kBarrierBytes + place * (kBlockChunks * columns * kChunkBytes);
  }
  FASTVOC_DEVICE char* signal(int place) const {
    return weights(stages) + place * (kBlockChunks * pitch * kChunkBytes);
  }
};

// A place in a ring, and the parity of the phase in which it is filled.
template <int places>
struct Place {
  int number = 0, parity = 0;
  FASTVOC_DEVICE void advance() {
    if (++number == places) {
      number = 0;
      parity ^= 1;
    }
  }
};

FASTVOC_DEVICE int rows_beyond(const Source& source) { return source.dilation * (source.taps - 1); }

FASTVOC_DEVICE int hopper_chunks(const Source& source, int chunk) {
  const int left = source.chunks - chunk;
  return left < kBlockChunks ? left : kBlockChunks;
}

// By one thread. A stage is one tap of a block of chunks. Columns that the operation does not have are left as they
// are: each column of the product depends on its own weights only.
template <int rows, int columns>
FASTVOC_DEVICE void load_weights(const Convolution& operation, int first_column,
                                 const HopperMemory<rows, columns>& shared) {
  const int left = operation.columns - first_column, slice = operation.columns * kChunkBytes;
  const int run = (left < columns ? left : columns) * kChunkBytes;
  Place<hopper_stages(rows)> place;
  for (int s = 0; s < operation.sources; ++s) {
    const Source& source = operation.source[s];
    const char* const weight = static_cast<const char*>(source.weight) + first_column * kChunkBytes;
    for (int chunk = 0; chunk < source.chunks; chunk += kBlockChunks) {
      const int chunks = hopper_chunks(source, chunk);
      for (int tap = 0; tap < source.taps; ++tap) {
        Barrier* const full = shared.weights_full(place.number);
        const char* const from = weight + static_cast<long long>(tap * source.chunks + chunk) * slice;
        char* const to = shared.weights(place.number);
        wait_for_phase(shared.weights_free(place.number), place.parity ^ 1);
        arrive_expecting(full, chunks * run);
        if (operation.columns == columns) {
          copy_run(to, from, chunks * run, full);
        } else {
          for (int i = 0; i < chunks; ++i) copy_run(to + i * (columns * kChunkBytes), from + i * slice, run, full);
        }
        place.advance();
      }
    }
  }
}

// By the last threads of a block. Of eight neighbours each brings one of four chunks of two rows, which meet no bank
// twice; of 32, all chunks of four rows, which are whole lines of device memory.
template <int precision, int rows, int columns>
FASTVOC_DEVICE void load_signals(const Convolution& operation, int item, int frames, int first_row,
                                 const HopperMemory<rows, columns>& shared) {
  constexpr int first = hopper_multipliers(rows) + 32, step = (hopper_threads(rows, columns) - first) / 8;
  const int lane = thread() % 32, own_chunk = lane % 4 + lane / 8 % 2 * 4;
  const int own_row = (thread() - first) / 32 * 4 + lane / 16 * 2 + lane / 4 % 2;
  Place<2> place;
  for (int s = 0; s < operation.sources; ++s) {
    const Source& source = operation.source[s];
    const int read = rows + rows_beyond(source);
    const int begin = first_row - source.left, length = rows_of(source.x, frames), last = length - 1;
    const long long row_bytes = static_cast<long long>(source.x.row) * element_bytes(precision);
    const char* const x = static_cast<const char*>(source.x.data) + item * source.x.item * element_bytes(precision) +
                          own_chunk * kChunkBytes;
    for (int chunk = 0; chunk < source.chunks; chunk += kBlockChunks) {
      const int end = own_chunk < hopper_chunks(source, chunk) ? read : 0;
      char* const tile = shared.signal(place.number) + own_chunk * shared.pitch * kChunkBytes;
      wait_for_phase(shared.signal_free(place.number), place.parity ^ 1);
      if (begin >= 0 && begin + read <= length) {
        const char* from = x + chunk * kChunkBytes + (begin + own_row) * row_bytes;
#pragma unroll 4
        for (int row = own_row; row < end; row += step, from += step * row_bytes) {
          copy_async(tile + row * kChunkBytes, from, true);
        }
      } else {
#pragma unroll 1
        for (int row = own_row; row < end; row += step) {
          int at = begin + row;
          bool real = length > 0;
          if (at < 0) {
            real = real && source.front != kZero;
            at = source.front == kReflect ? -at : 0;
          } else if (at > last) {
            real = real && source.back != kZero;
            at = source.back == kReflect ? 2 * last - at : last;
          }
          // Rows that nobody needs may be mirrored to where there is nothing.
          at = at < last ? at : last;
          at = at > 0 ? at : 0;
          copy_async(tile + row * kChunkBytes, x + chunk * kChunkBytes + at * row_bytes, real);
        }
      }
      commit_copies();
      wait_for_copies<0>();
      if (source.factor != 1) {
#pragma unroll 1
        for (int row = own_row; row < end; row += step) {
          for (unsigned& word : reinterpret_cast<Vector16*>(tile + row * kChunkBytes)->word) {
            float low, high;
            unpack_pair<precision>(word, low, high);
            word = pack_pair<precision>(low < 0 ? low * source.factor : low, high < 0 ? high * source.factor : high);
          }
        }
      }
      publish_writes();
      arrive(shared.signal_full(place.number));
      place.advance();
    }
  }
}

// Sums begin with their biases, and residuals come near, while the first operands are on their way: later, everybody
// would wait for them. No instruction of another kind may touch sums from here on, or the compiler would wait for every
// single product.
template <int precision, int rows, int columns>
FASTVOC_DEVICE void begin_sums(WarpgroupSum<columns> (&sum)[hopper_tiles(rows)], const Convolution& operation, int item,
                               int result_rows, int first_row, int first_column) {
#pragma unroll
  for (int tile = 0; tile < hopper_tiles(rows); ++tile) {
#pragma unroll
    for (int group = 0; group < columns / 32; ++group) {
      add_biases(operation, first_column + 32 * group, sum[tile].group[group]);
    }
  }
  if (operation.stride != 1 || first_column >= operation.channels) return;
  constexpr int lines = columns * element_bytes(precision) / 128;
#pragma unroll 1
  for (int r = 0; r < operation.residuals; ++r) {
    const Signal& x = operation.residual[r].x;
#pragma unroll 1
    for (int i = thread(); i < rows * lines; i += hopper_multipliers(rows)) {
      const int at = first_row + i / lines - operation.crop;
      if (at < 0 || at >= result_rows) continue;
      prefetch_to_cache(element_of(x, element_bytes(precision), item, at, first_column) + i % lines * 128);
    }
  }
}

// By the warps of warpgroups.
template <int precision, int rows, int columns>
FASTVOC_DEVICE void multiply_all(WarpgroupSum<columns> (&sum)[hopper_tiles(rows)], const Convolution& operation,
                                 int first_row, const HopperMemory<rows, columns>& shared) {
  const bool first_lane = thread() % 32 == 0;
  Place<hopper_stages(rows)> weights;
  Place<2> signal;
  const int pitch = shared.pitch;
  bool begun = false;
  for (int s = 0; s < operation.sources; ++s) {
    const Source& source = operation.source[s];
    for (int chunk = 0; chunk < source.chunks; chunk += kBlockChunks) {
      const int pairs = hopper_chunks(source, chunk) / 2;
      unsigned a = operand(shared.signal(signal.number) + first_row * kChunkBytes, pitch * kChunkBytes);
      wait_for_phase(shared.signal_full(signal.number), signal.parity);
      for (int tap = 0; tap < source.taps; ++tap) {
        const unsigned b = operand(shared.weights(weights.number), columns * kChunkBytes);
        wait_for_phase(shared.weights_full(weights.number), weights.parity);
        // What is asked for and its commitment stand in a row, or the compiler would wait for every single product.
        if (pairs == kBlockChunks / 2) {
          begin_products();
#pragma unroll
          for (int pair = 0; pair < kBlockChunks / 2; ++pair) {
#pragma unroll
            for (int tile = 0; tile < hopper_tiles(rows); ++tile) {
              multiply_by_warpgroup<precision>(sum[tile], a + 2 * pair * pitch + 64 * tile, b + 2 * pair * columns);
            }
          }
          commit_products();
          wait_for_products<1>();
        } else {
          int pair = 0;
#pragma unroll 1
          do {
            begin_products();
#pragma unroll
            for (int tile = 0; tile < hopper_tiles(rows); ++tile) {
              multiply_by_warpgroup<precision>(sum[tile], a + 2 * pair * pitch + 64 * tile, b + 2 * pair * columns);
            }
            commit_products();
            wait_for_products<1>();
          } while (++pair < pairs);
        }
        // What was asked for before this has been done.
        if (first_lane && begun) {
          arrive(shared.weights_free(weights.number > 0 ? weights.number - 1 : hopper_stages(rows) - 1));
          if (tap == 0) arrive(shared.signal_free(signal.number ^ 1));
        }
        begun = true;
        weights.advance();
        a += source.dilation;
      }
      signal.advance();
    }
  }
  wait_for_products<0>();
#pragma unroll
  for (int tile = 0; tile < hopper_tiles(rows); ++tile) hold(sum[tile]);
}

// What most operations end with: whole chunks of elements. Row `row` is the first of this thread.
template <int precision, int rows, int columns>
FASTVOC_DEVICE void write_chunks(const Convolution& operation, int item, int result_rows, int row, int first_column,
                                 WarpgroupSum<columns> (&sum)[hopper_tiles(rows)]) {
  constexpr int groups = columns / 32, together = hopper_blocks(rows, columns) == 1 ? 2 : 1;  // that are read
  // Where chunk `half` of a group is; outside of the result, somewhere inside of it.
  struct Where {
    int at, channel;
    bool inside;
  };
  const int own_column = first_column + 8 * (thread() % 4);
  const auto where = [&](int begin, int tile, int group, int half) {
    const int column = own_column + 32 * group;
    const int phase = operation.stride == 1 ? column >= operation.channels : column / operation.channels;
    const int at = (begin + 64 * tile + 8 * half) * operation.stride + phase - operation.crop;
    const bool inside = at >= 0 && at < result_rows && phase < operation.stride;
    return Where{inside ? at : 0, inside ? column - phase * operation.channels : 0, inside};
  };
  const auto address = [&](const Signal& signal, const Where& place) {
    const long long element = item * signal.item + static_cast<long long>(place.at) * signal.row + place.channel;
    return static_cast<char*>(signal.data) + element * element_bytes(precision);
  };

#pragma unroll 1
  for (int r = 0; r < operation.residuals; ++r) {
    const Residual& residual = operation.residual[r];
    const int row_here = anew(row);
#pragma unroll
    for (int tile = 0; tile < hopper_tiles(rows); ++tile) {
#pragma unroll
      for (int begin = 0; begin < groups; begin += together) {
        Vector16 chunk[together][2];
#pragma unroll
        for (int i = 0; i < 2 * together; ++i) {
          const Where place = where(row_here, tile, begin + i / 2, i % 2);
          chunk[i / 2][i % 2] = load_global(reinterpret_cast<const Vector16*>(address(residual.x, place)));
        }
#pragma unroll
        for (int i = 0; i < 2 * together; ++i) {
          float(&eights)[4][4] = sum[tile].group[begin + i / 2][0];
#pragma unroll
          for (int j = 0; j < 4; ++j) {
            float low, high;
            unpack_pair<precision>(chunk[i / 2][i % 2].word[j], low, high);
            eights[j][i % 2 * 2] += leaky(low, residual.factor);
            eights[j][i % 2 * 2 + 1] += leaky(high, residual.factor);
          }
        }
      }
    }
  }

  const Finish& finish = operation.finish;
  if (finish.gelu) {
    // As gelu_tiles.
    constexpr int all = hopper_tiles(rows) * groups;
#pragma unroll 1
    for (int unit = 0; unit < all; ++unit) {
      gelu_group(sum[0].group[0][0]);
#pragma unroll
      for (int i = 0; i < 16; ++i) {
        const float made = sum[0].group[0][0][i / 4][i % 4];
#pragma unroll
        for (int k = 0; k + 1 < all; ++k) {
          sum[k / groups].group[k % groups][0][i / 4][i % 4] =
              sum[(k + 1) / groups].group[(k + 1) % groups][0][i / 4][i % 4];
        }
        sum[hopper_tiles(rows) - 1].group[groups - 1][0][i / 4][i % 4] = made;
      }
    }
  }
  const int row_here = anew(row);
  // One slope for both leaky ReLUs: what is negative behind the first one is so in front of it, if that keeps the sign.
  const float slope = finish.slope_after > 0 ? finish.slope_after * finish.stored : finish.slope_after;
  const auto finished = [&](float value) { return leaky(value * finish.scale, slope); };
#pragma unroll
  for (int tile = 0; tile < hopper_tiles(rows); ++tile) {
#pragma unroll
    for (int group = 0; group < groups; ++group) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        Vector16 chunk;
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          const float(&pair)[4] = sum[tile].group[group][0][j];
          chunk.word[j] = pack_pair<precision>(finished(pair[2 * half]), finished(pair[2 * half + 1]));
        }
        const Where place = where(row_here, tile, group, half);
        if (place.inside) *reinterpret_cast<Vector16*>(address(operation.y, place)) = chunk;
      }
    }
  }
}

// The same for all others. Little code matters more here than time: sums move up, so that the first ones are always
// next.
template <int precision, int rows, int columns>
FASTVOC_DEVICE void write_others(const Convolution& operation, int item, int result_rows, int row, int first_column,
                                 WarpgroupSum<columns> (&sum)[hopper_tiles(rows)]) {
  constexpr int groups = columns / 32, all = hopper_tiles(rows) * groups;
#pragma unroll 1
  for (int next = 0; next < all; ++next) {
    write_tiles<precision>(operation, item, result_rows, row + next / groups * 64, first_column + next % groups * 32,
                           sum[0].group[0]);
#pragma unroll
    for (int i = 0; i + 1 < all; ++i) {
#pragma unroll
      for (int j = 0; j < 16; ++j) {
        sum[i / groups].group[i % groups][0][j / 4][j % 4] =
            sum[(i + 1) / groups].group[(i + 1) % groups][0][j / 4][j % 4];
      }
    }
  }
}

template <int precision, int rows, int columns>
FASTVOC_DEVICE void hopper_convolution(const Convolutions& launch) {
  static_assert(rows % 64 == 0 && columns % 64 == 0 && precision != kTfloat32);
  if constexpr (!kWarpgroups) {
    trap();
  } else {
    constexpr bool alone = hopper_blocks(rows, columns) == 1;
    constexpr int multipliers = hopper_multipliers(rows);
    const Convolution& operation = launch.problem[block_z()];
    const int first_column = block_x() % launch.panels * columns, first_row = block_x() / launch.panels * rows;
    const int item = block_y();
    const int frames = frames_of(launch.lengths, item), result_rows = rows_of(operation.y, frames);
    int span = 0;
    for (int s = 0; s < operation.sources; ++s) {
      span = rows_beyond(operation.source[s]) > span ? rows_beyond(operation.source[s]) : span;
    }
    const HopperMemory<rows, columns> shared{shared_memory(), convolution_pitch(rows, span)};
    let_next_kernel_begin();
    if (thread() == 0) {
      for (int place = 0; place < hopper_stages(rows); ++place) {
        begin_barrier(shared.weights_full(place), 1);
        begin_barrier(shared.weights_free(place), multipliers / 32);
      }
      for (int place = 0; place < 2; ++place) {
        begin_barrier(shared.signal_full(place), hopper_threads(rows, columns) - multipliers - 32);
        begin_barrier(shared.signal_free(place), multipliers / 32);
      }
      publish_barriers();
    }
    barrier();

    // Weights need not wait: no kernel that may still be running wrote them. Nor did one write the lengths.
    const bool loads_weights = thread() / 32 == multipliers / 32;
    if (!loads_weights) wait_for_previous_kernel();
    if (result_rows == 0 || first_row * operation.stride - operation.crop >= result_rows) return;

    if (thread() >= multipliers) {
      if constexpr (alone) give_registers<kLoaderRegisters>();
      if (!loads_weights) {
        load_signals<precision, rows>(operation, item, frames, first_row, shared);
      } else if (thread() % 32 == 0) {
        load_weights(operation, first_column, shared);
      }
    } else {
      if constexpr (alone) take_registers<kMultiplierRegisters>();
      WarpgroupSum<columns> sum[hopper_tiles(rows)] = {};
      begin_sums<precision, rows>(sum, operation, item, result_rows, first_row, first_column);
      const int own_row = thread() / kWarpgroup * (64 * hopper_tiles(rows));
      multiply_all<precision, rows>(sum, operation, own_row, shared);
      const int block = anew(block_x()), own_column = block % launch.panels * columns;
      const int row = block / launch.panels * rows + own_row + thread() / 32 % 4 * 16;
      if (operation.output == kElements && !operation.finish.tanh && in_runs<precision, 8>(operation)) {
        write_chunks<precision, rows>(operation, item, result_rows, row + thread() % 32 / 4, own_column, sum);
      } else {
        write_others<precision, rows>(operation, item, result_rows, row, own_column, sum);
      }
    }
  }
}

}  // namespace fastvoc::cuda
