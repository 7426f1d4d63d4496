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

// How a block works. Its first threads multiply; one warp behind them loads weights, and the others signals. A block
// that has a multiprocessor to itself loads by a whole warpgroup, so that that can leave registers to those that multiply.
// Its warpgroups multiply together, each some rows of a block's; or in turn, each all rows of one of several: while one
// multiplies, the other one ends what it has summed and begins the next sums.
template <int of_rows, int of_columns, bool takes_turns = false>
struct HopperWork {
  static constexpr int rows = of_rows, columns = of_columns;
  static constexpr bool in_turn = takes_turns;
  static constexpr bool alone = in_turn || hopper_blocks(rows, columns) == 1;
  static constexpr int multipliers = !in_turn && rows == 64 ? kWarpgroup : 2 * kWarpgroup;
  static constexpr int block_threads = multipliers + (alone ? kWarpgroup : 64);
  static constexpr int readers = in_turn ? kWarpgroup : multipliers;  // threads that multiply what is in a place
  static constexpr int tiles = rows / 64 / (readers / kWarpgroup);    // of 64 rows of a warpgroup
  static constexpr int stages = in_turn ? kStagesInTurn : hopper_stages(rows);
  using Sums = WarpgroupSum<columns>[tiles];
};
constexpr int kLoaderRegisters = 56, kMultiplierRegisters = 224;
static_assert(kLoaderRegisters + 2 * kMultiplierRegisters <= 3 * (65536 / (3 * kWarpgroup) / 8 * 8));

// Shared memory: barriers, stages of weights, blocks of signals. The latter two are rings: one barrier of a place says
// that it is full, and another one that it is free again.
template <class Work>
struct HopperMemory {
  static constexpr int stages = Work::stages;
  static_assert((2 * stages + 6) * sizeof(Barrier) <= kBarrierBytes);
  char* memory;
  int pitch;  // of signals: the same for all sources, so that places do not move

  FASTVOC_DEVICE Barrier* weights_full(int place) const { return reinterpret_cast<Barrier*>(memory) + place; }
  FASTVOC_DEVICE Barrier* weights_free(int place) const { return weights_full(stages + place); }
  FASTVOC_DEVICE Barrier* signal_full(int place) const { return weights_full(2 * stages + place); }
  FASTVOC_DEVICE Barrier* signal_free(int place) const { return weights_full(2 * stages + 2 + place); }
  FASTVOC_DEVICE Barrier* turn(int warpgroup) const { return weights_full(2 * stages + 4 + warpgroup); }
  FASTVOC_DEVICE char* weights(int place) const {
    return memory + kBarrierBytes + place * (kBlockChunks * Work::columns * kChunkBytes);
  }
  FASTVOC_DEVICE char* signal(int place) const {
    return weights(stages) + place * (kBlockChunks * pitch * kChunkBytes);
  }
};

// A place in a ring, and the parity of the phase in which it is filled: one number, as there are few registers.
template <int places>
struct Place {
  int at = 0;
  FASTVOC_DEVICE int number() const { return at < places ? at : at - places; }
  FASTVOC_DEVICE int before() const { return number() > 0 ? number() - 1 : places - 1; }
  FASTVOC_DEVICE int parity() const { return at < places ? 0 : 1; }
  FASTVOC_DEVICE void advance() { at = at + 1 < 2 * places ? at + 1 : 0; }
  FASTVOC_DEVICE void skip(int count) { at = (at + count) % (2 * places); }
};

template <class Work>
struct Places {
  Place<Work::stages> weights;
  Place<2> signal;
};

FASTVOC_DEVICE int rows_beyond(const Source& source) { return source.dilation * (source.taps - 1); }

FASTVOC_DEVICE int hopper_chunks(const Source& source, int chunk) {
  const int left = source.chunks - chunk;
  return left < kBlockChunks ? left : kBlockChunks;
}

// By one thread. A stage is one tap of a block of chunks. Columns that the operation does not have are left as they
// are: each column of the product depends on its own weights only.
template <class Work>
FASTVOC_DEVICE void load_weights(const Convolution& operation, int first_column, const HopperMemory<Work>& shared,
                                 Place<Work::stages>& place) {
  constexpr int columns = Work::columns;
  const int left = operation.columns - first_column, slice = operation.columns * kChunkBytes;
  const int run = (left < columns ? left : columns) * kChunkBytes;
  for (int s = 0; s < operation.sources; ++s) {
    const Source& source = operation.source[s];
    const char* const weight = static_cast<const char*>(source.weight) + first_column * kChunkBytes;
    for (int chunk = 0; chunk < source.chunks; chunk += kBlockChunks) {
      const int chunks = hopper_chunks(source, chunk);
      for (int tap = 0; tap < source.taps; ++tap) {
        Barrier* const full = shared.weights_full(place.number());
        const char* const from = weight + static_cast<long long>(tap * source.chunks + chunk) * slice;
        char* const to = shared.weights(place.number());
        wait_for_phase(shared.weights_free(place.number()), place.parity() ^ 1);
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
template <int precision, class Work>
FASTVOC_DEVICE void load_signals(const Convolution& operation, int item, int frames, int first_row,
                                 const HopperMemory<Work>& shared, Place<2>& place) {
  constexpr int rows = Work::rows, first = Work::multipliers + 32, step = (Work::block_threads - first) / 8;
  const int lane = thread() % 32, own_chunk = lane % 4 + lane / 8 % 2 * 4;
  const int own_row = (thread() - first) / 32 * 4 + lane / 16 * 2 + lane / 4 % 2;
  for (int s = 0; s < operation.sources; ++s) {
    const Source& source = operation.source[s];
    const int read = rows + rows_beyond(source);
    const int begin = first_row - source.left, length = rows_of(source.x, frames), last = length - 1;
    const long long row_bytes = static_cast<long long>(source.x.row) * element_bytes(precision);
    const char* const x = static_cast<const char*>(source.x.data) + item * source.x.item * element_bytes(precision) +
                          own_chunk * kChunkBytes;
    for (int chunk = 0; chunk < source.chunks; chunk += kBlockChunks) {
      const int end = own_chunk < hopper_chunks(source, chunk) ? read : 0;
      char* const tile = shared.signal(place.number()) + own_chunk * shared.pitch * kChunkBytes;
      wait_for_phase(shared.signal_free(place.number()), place.parity() ^ 1);
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
      arrive(shared.signal_full(place.number()));
      place.advance();
    }
  }
}

// Sums begin with their biases, and residuals come near, while the first operands are on their way: later, everybody
// would wait for them. No instruction of another kind may touch sums from here on, or the compiler would wait for every
// single product.
template <int precision, class Work, bool gated>
FASTVOC_DEVICE void begin_sums(typename Work::Sums& sum, const Convolution& operation, int item, int result_rows,
                               int first_row, int first_column) {
  constexpr int rows = Work::rows, columns = Work::columns;
#pragma unroll
  for (int tile = 0; tile < Work::tiles; ++tile) {
#pragma unroll
    for (int group = 0; group < columns / 32; ++group) {
      add_biases(operation, first_column + 32 * group, sum[tile].group[group]);
    }
  }
  if constexpr (gated) {
    prefetch_condition<precision, rows, columns, Work::multipliers>(operation, item, result_rows, first_row,
                                                                           first_column);
    return;
  }
  if (operation.stride != 1 || first_column >= operation.channels) return;
  constexpr int lines = columns * element_bytes(precision) / 128;
#pragma unroll 1
  for (int r = 0; r < operation.residuals; ++r) {
    const Signal& x = operation.residual[r].x;
#pragma unroll 1
    for (int i = thread() % Work::readers; i < rows * lines; i += Work::readers) {
      const int at = first_row + i / lines - operation.crop;
      if (at < 0 || at >= result_rows) continue;
      prefetch_to_cache(element_of(x, element_bytes(precision), item, at, first_column) + i % lines * 128);
    }
  }
}

// By the warps of warpgroups. `over` is called when all has been asked for.
template <int precision, class Work, class Over>
FASTVOC_DEVICE void multiply_all(typename Work::Sums& sum, const Convolution& operation, int first_row,
                                 const HopperMemory<Work>& shared, Places<Work>& places, const Over& over) {
  constexpr int columns = Work::columns;
  const bool first_lane = thread() % 32 == 0;
  const int pitch = shared.pitch;
  bool begun = false;
  for (int s = 0; s < operation.sources; ++s) {
    const Source& source = operation.source[s];
    for (int chunk = 0; chunk < source.chunks; chunk += kBlockChunks) {
      const int pairs = hopper_chunks(source, chunk) / 2;
      unsigned a = operand(shared.signal(places.signal.number()) + first_row * kChunkBytes, pitch * kChunkBytes);
      wait_for_phase(shared.signal_full(places.signal.number()), places.signal.parity());
      for (int tap = 0; tap < source.taps; ++tap) {
        const unsigned b = operand(shared.weights(places.weights.number()), columns * kChunkBytes);
        wait_for_phase(shared.weights_full(places.weights.number()), places.weights.parity());
        // What is asked for and its commitment stand in a row, or the compiler would wait for every single product.
        if (pairs == kBlockChunks / 2) {
          begin_products();
#pragma unroll
          for (int pair = 0; pair < kBlockChunks / 2; ++pair) {
#pragma unroll
            for (int tile = 0; tile < Work::tiles; ++tile) {
              multiply_by_warpgroup<precision, columns>(sum[tile].eights(), a + 2 * pair * pitch + 64 * tile,
                                                        b + 2 * pair * columns);
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
            for (int tile = 0; tile < Work::tiles; ++tile) {
              multiply_by_warpgroup<precision, columns>(sum[tile].eights(), a + 2 * pair * pitch + 64 * tile,
                                                        b + 2 * pair * columns);
            }
            commit_products();
            wait_for_products<1>();
          } while (++pair < pairs);
        }
        // What was asked for before this has been done.
        if (first_lane && begun) {
          arrive(shared.weights_free(places.weights.before()));
          if (tap == 0) arrive(shared.signal_free(places.signal.number() ^ 1));
        }
        begun = true;
        places.weights.advance();
        a += source.dilation;
      }
      places.signal.advance();
    }
  }
  over();
  wait_for_products<0>();
#pragma unroll
  for (int tile = 0; tile < Work::tiles; ++tile) hold<columns>(sum[tile].eights());
}

// What most operations end with: whole chunks of elements. Row `row` is the first of this thread.
template <int precision, class Work>
FASTVOC_DEVICE void write_chunks(const Convolution& operation, int item, int result_rows, int row, int first_column,
                                 typename Work::Sums& sum) {
  constexpr int groups = Work::columns / 32, together = Work::alone ? 2 : 1;  // that are read
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
    for (int tile = 0; tile < Work::tiles; ++tile) {
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
    constexpr int all = Work::tiles * groups;
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
        sum[Work::tiles - 1].group[groups - 1][0][i / 4][i % 4] = made;
      }
    }
  }
  const int row_here = anew(row);
  // One slope for both leaky ReLUs: what is negative behind the first one is so in front of it, if that keeps the sign.
  const float slope = finish.slope_after > 0 ? finish.slope_after * finish.stored : finish.slope_after;
  const auto finished = [&](float value) { return leaky(value * finish.scale, slope); };
#pragma unroll
  for (int tile = 0; tile < Work::tiles; ++tile) {
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
template <int precision, class Work>
FASTVOC_DEVICE void write_others(const Convolution& operation, int item, int result_rows, int row, int first_column,
                                 typename Work::Sums& sum) {
  constexpr int groups = Work::columns / 32, all = Work::tiles * groups;
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

template <int precision, class Work>
FASTVOC_DEVICE void write_sums(const Convolution& operation, int item, int result_rows, int row, int first_column,
                               typename Work::Sums& sum) {
  if (operation.output == kElements && !operation.finish.tanh && in_runs<precision, 8>(operation)) {
    write_chunks<precision, Work>(operation, item, result_rows, row + thread() % 32 / 4, first_column, sum);
  } else {
    write_others<precision, Work>(operation, item, result_rows, row, first_column, sum);
  }
}

// By thread 0.
template <class Work>
FASTVOC_DEVICE void begin_barriers(const HopperMemory<Work>& shared) {
  for (int place = 0; place < Work::stages; ++place) {
    begin_barrier(shared.weights_full(place), 1);
    begin_barrier(shared.weights_free(place), Work::readers / 32);
  }
  for (int place = 0; place < 2; ++place) {
    begin_barrier(shared.signal_full(place), Work::block_threads - Work::multipliers - 32);
    begin_barrier(shared.signal_free(place), Work::readers / 32);
    if constexpr (Work::in_turn) begin_barrier(shared.turn(place), Work::readers / 32);
  }
  publish_barriers();
}

FASTVOC_DEVICE int widest_span(const Convolution& operation) {
  int span = 0;
  for (int s = 0; s < operation.sources; ++s) {
    span = rows_beyond(operation.source[s]) > span ? rows_beyond(operation.source[s]) : span;
  }
  return span;
}

template <int precision, int rows, int columns, bool gated = false>
FASTVOC_DEVICE void hopper_convolution(const Convolutions& launch) {
  static_assert(rows % 64 == 0 && columns % 64 == 0 && precision != kTfloat32);
  if constexpr (!kWarpgroups) {
    trap();
  } else {
    using Work = HopperWork<rows, columns>;
    const Panel panel = panel_of(launch, block_x());
    const Convolution& operation = launch.problem[panel.problem];
    const int first_column = panel.number * columns, first_row = block_x() / launch.panels * rows;
    const int item = block_y();
    const int frames = frames_of(launch.lengths, item), result_rows = rows_of(operation.y, frames);
    const HopperMemory<Work> shared{shared_memory(), convolution_pitch(rows, widest_span(operation))};
    let_next_kernel_begin();
    if (thread() == 0) begin_barriers(shared);
    barrier();

    // Weights need not wait: no kernel that may still be running wrote them. Nor did one write the lengths.
    const bool loads_weights = thread() / 32 == Work::multipliers / 32;
    if (!loads_weights) wait_for_previous_kernel();
    if (result_rows == 0 || first_row * operation.stride - operation.crop >= result_rows) return;

    Places<Work> places;
    if (thread() >= Work::multipliers) {
      if constexpr (Work::alone) give_registers<kLoaderRegisters>();
      if (!loads_weights) {
        load_signals<precision>(operation, item, frames, first_row, shared, places.signal);
      } else if (thread() % 32 == 0) {
        load_weights(operation, first_column, shared, places.weights);
      }
    } else {
      if constexpr (Work::alone) take_registers<kMultiplierRegisters>();
      typename Work::Sums sum = {};
      begin_sums<precision, Work, gated>(sum, operation, item, result_rows, first_row, first_column);
      const int own_row = thread() / kWarpgroup * (64 * Work::tiles);
      multiply_all<precision>(sum, operation, own_row, shared, places, [] {});
      const int block = anew(block_x()), own_column = panel_of(launch, block).number * columns;
      const int row = block / launch.panels * rows + own_row + thread() / 32 % 4 * 16;
      if constexpr (gated) {
#pragma unroll
        for (int tile = 0; tile < Work::tiles; ++tile) {
#pragma unroll
          for (int group = 0; group < columns / 32; ++group) {
            gate_tiles<precision>(operation, item, result_rows, row + 64 * tile, own_column + 32 * group,
                                  sum[tile].group[group]);
          }
        }
      } else {
        write_sums<precision, Work>(operation, item, result_rows, row, own_column, sum);
      }
    }
  }
}

// What a block of those below makes next: rows of one panel of an item of a problem, in the order of the other kernels.
template <class Work>
struct Task {
  const Convolution& operation;
  int item, frames, result_rows, first_row, first_column;

  FASTVOC_DEVICE Task(const Convolutions& launch, int number)
      : operation(launch.problem[number / (launch.items * launch.blocks)]),
        item(number / launch.blocks % launch.items),
        frames(frames_of(launch.lengths, item)),
        result_rows(rows_of(operation.y, frames)),
        first_row(number % launch.blocks / launch.panels * Work::rows),
        first_column(number % launch.blocks % launch.panels * Work::columns) {}

  // Items are not all as long as the longest.
  FASTVOC_DEVICE bool is_empty() const {
    return result_rows == 0 || first_row * operation.stride - operation.crop >= result_rows;
  }
  FASTVOC_DEVICE void skip(Places<Work>& places) const {
    for (int s = 0; s < operation.sources; ++s) {
      const int blocks = (operation.source[s].chunks + kBlockChunks - 1) / kBlockChunks;
      places.signal.skip(blocks);
      places.weights.skip(blocks * operation.source[s].taps);
    }
  }
};

// A block stays for as many tasks as there are for it, which its warpgroups take in turn, so that what one of them ends
// and begins costs no time of the tensor cores. Those that load are ahead, across tasks.
template <int precision, int rows, int columns>
FASTVOC_DEVICE void hopper_convolution_in_turn(const Convolutions& launch) {
  static_assert(rows % 64 == 0 && columns % 64 == 0 && precision != kTfloat32);
  if constexpr (!kWarpgroups) {
    trap();
  } else {
    using Work = HopperWork<rows, columns, true>;
    int span = 0;
    for (int p = 0; p < launch.problems; ++p) {
      const int of_problem = widest_span(launch.problem[p]);
      span = of_problem > span ? of_problem : span;
    }
    const HopperMemory<Work> shared{shared_memory(), convolution_pitch(rows, span)};
    let_next_kernel_begin();
    if (thread() == 0) begin_barriers(shared);
    barrier();

    const int tasks = launch.problems * launch.items * launch.blocks;
    const bool loads_weights = thread() / 32 == Work::multipliers / 32;
    if (!loads_weights) wait_for_previous_kernel();
    Places<Work> places;
    if (thread() >= Work::multipliers) {
      give_registers<kLoaderRegisters>();
      if (loads_weights && thread() % 32 != 0) return;
#pragma unroll 1
      for (int number = block_x(); number < tasks; number += launch.stay) {
        const Task<Work> task(launch, number);
        if (task.is_empty()) continue;
        if (loads_weights) {
          load_weights(task.operation, task.first_column, shared, places.weights);
        } else {
          load_signals<precision>(task.operation, task.item, task.frames, task.first_row, shared, places.signal);
        }
      }
    } else {
      take_registers<kMultiplierRegisters>();
      int count = 0;  // of tasks of both: each second one is this warpgroup's
#pragma unroll 1
      for (int number = block_x(); number < tasks; number += launch.stay) {
        const Task<Work> task(launch, number);
        if (task.is_empty()) continue;
        const int own = thread() / kWarpgroup;
        if (count % 2 == own) {
          typename Work::Sums sum = {};
          begin_sums<precision, Work, false>(sum, task.operation, task.item, task.result_rows, task.first_row,
                                      task.first_column);
          wait_for_phase(shared.turn(own), (count / 2 + own + 1) % 2);
          multiply_all<precision>(sum, task.operation, 0, shared, places, [&] {
            if (thread() % 32 == 0) arrive(shared.turn(thread() / kWarpgroup ^ 1));
          });
          if (thread() % 32 == 0) {
            arrive(shared.weights_free(places.weights.before()));
            arrive(shared.signal_free(places.signal.number() ^ 1));
          }
          const Task<Work> again(launch, anew(number));
          write_sums<precision, Work>(again.operation, again.item, again.result_rows,
                                      again.first_row + thread() / 32 % 4 * 16, again.first_column, sum);
        } else {
          task.skip(places);
        }
        ++count;
      }
    }
  }
}

}  // namespace fastvoc::cuda
