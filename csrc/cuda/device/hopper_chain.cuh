// Chains (chain.cuh) on architecture 90a, where tensor cores read both operands from shared memory: the buffers of a
// chain are operands as they stand, and a tap begins some rows further on.
//
// One warp behind those that multiply brings weights, by runs of bytes through a ring of stages; barriers of a place say
// that it is full, and that it is free again. So it may be steps ahead, and those that multiply meet once a step, when
// all have written its result. Tiles of 64 rows go round among warpgroups; a thread has the rows that it has in
// chain.cuh, so that steps end as they do there. The sum runs in the order of chain.cuh.
//
// A source's slices come in pairs of one tap, or, if it has one chunk, of two taps; it is read as it is stored.
#pragma once

#include "chain.cuh"
#include "hopper.cuh"

namespace fastvoc::cuda {

template <int precision, int channels, int warps, int tiles>
struct HopperChain : ChainTile<precision, channels, warps, tiles> {
  using Tile = ChainTile<precision, channels, warps, tiles>;
  using Tile::begin, Tile::chain, Tile::frames, Tile::length, Tile::me, Tile::pitch;
  using Tile::kRows, Tile::kThreads;
  static constexpr int kGroups = warps / 4;
  static_assert(warps % 4 == 0 && precision != kTfloat32 && channels >= 16);

  Place<kStages> place;  // of the ring: what is brought, or multiplied, next
  bool begun = false;    // whether the stage before is still multiplied

  FASTVOC_DEVICE explicit HopperChain(const Chain& chain) : Tile(chain) {}

  FASTVOC_DEVICE Barrier* full(int number) const {
    return reinterpret_cast<Barrier*>(
               shared_memory() + chain_shared_bytes(precision, channels, kRows, chain.guard, chain.buffers)) +
           number;
  }
  FASTVOC_DEVICE Barrier* free(int number) const { return full(kStages + number); }
  FASTVOC_DEVICE static void meet() { barrier(1, kThreads); }  // without the warp that brings weights
  FASTVOC_DEVICE static constexpr int room(int columns) { return Tile::capacity(columns); }

  FASTVOC_DEVICE void run() {
    let_next_kernel_begin();
    me = thread();
    begin = block_x() * chain.rows - chain.before;
    frames = chain.lengths.items ? load_global(chain.lengths.items + block_y()) : chain.lengths.frames;
    length = frames * chain.x.rate + chain.x.offset;
    if (length <= 0 || (begin + chain.before) * chain.stride - chain.crop >= Tile::y_rows()) {
      if (me < kThreads) wait_for_previous_kernel();  // whoever waits for this kernel relies on those before it, too
      return;
    }
    pitch = chain_pitch(kRows, chain.guard) * kChunkBytes;
    if (me == 0) {
      for (int i = 0; i < kStages; ++i) {
        begin_barrier(full(i), 1);
        begin_barrier(free(i), warps);
      }
      publish_barriers();
    }
    barrier();
    if (me >= kThreads) {
      if (me == kThreads) bring_weights();
      return;
    }
    for (int i = me; i < chain.steps; i += kThreads) prefetch(chain.biases + chain.step[i].bias);
    wait_for_previous_kernel();
    Tile::fetch_x();
    commit_copies();
    wait_for_copies<0>();
#pragma unroll 1
    for (int i = 0; i < chain.steps; ++i) {
      publish_writes();
      meet();
      if (chain.step[i].narrow) {
        run_step<8>(chain.step[i]);
      } else {
        run_step<channels>(chain.step[i]);
      }
    }
  }

  // A stage holds slices of one source.
  FASTVOC_DEVICE void bring_weights() {
#pragma unroll 1
    for (int i = 0; i < chain.steps; ++i) {
      const ChainStep& step = chain.step[i];
      const int columns = step.narrow ? 8 : channels, most = step.narrow ? room(8) : room(channels);
#pragma unroll 1
      for (int s = 0; s < step.sources; ++s) {
        const ChainSource& source = step.source[s];
        const char* from = chain.weights + source.weight;
#pragma unroll 1
        for (int left = source.taps * source.chunks; left > 0; left -= most) {
          const int bytes = least(left, most) * columns * kChunkBytes;
          wait_for_phase(free(place.number()), place.parity() ^ 1);
          arrive_expecting(full(place.number()), bytes);
          copy_run(shared_memory() + place.number() * kStageBytes, from, bytes, full(place.number()));
          from += bytes;
          place.advance();
        }
      }
    }
  }

  template <int columns>
  FASTVOC_DEVICE void run_step(const ChainStep& step) {
    me = anew(me), pitch = anew(pitch), begin = anew(begin), frames = anew(frames);
    bool padded = false;
#pragma unroll 1
    for (int i = 0; i < step.sources; ++i) padded = padded || Tile::is_padded(step.source[i]);
    if (padded) {
#pragma unroll 1
      for (int i = 0; i < step.sources; ++i) Tile::pad(step.source[i]);
      publish_writes();
      meet();
    }
    const int group = me / kWarpgroup;
    const int end = step.output < 0 ? (Tile::y_rows() + chain.crop + chain.stride - 1) / chain.stride : length;
    const int first = most(step.first, -begin), last = most(least(step.last, end - begin), 0);
    const int from = (first / 64 - group + kGroups - 1) / kGroups;
    const int until = ((last + 63) / 64 - group + kGroups - 1) / kGroups;
    run_counted<columns>(step, from, alike(most(until - from, 0)), ChainCount<tiles>());
  }

  template <int columns, int count>
  FASTVOC_DEVICE void run_counted(const ChainStep& step, int from, int active, ChainCount<count>) {
    if (active == count) {
      run_tiles<columns, count>(step, from);
    } else if constexpr (count > 0) {
      run_counted<columns>(step, from, active, ChainCount<count - 1>());
    }
  }

  // `count` tiles of this warpgroup, from its tile `from` on.
  template <int columns, int count>
  FASTVOC_DEVICE void run_tiles(const ChainStep& step, int from) {
    const int lane = me & 31;
    float sum[tiles][columns / 8][4];
#pragma unroll
    for (int i = 0; i < columns / 8; ++i) {
      const ChainWords<2> bias =
          load_global(reinterpret_cast<const ChainWords<2>*>(chain.biases + step.bias + i * 8 + lane % 4 * 2));
#pragma unroll
      for (int j = 0; j < count; ++j) {
        sum[j][i][0] = sum[j][i][2] = as_float(bias.word[0]);
        sum[j][i][1] = sum[j][i][3] = as_float(bias.word[1]);
        make_anew(sum[j][i]);
      }
    }
    const int row = (from * kGroups + me / kWarpgroup) * 64;
    // At least one, and the compiler has to see it, or it would wait for every single product.
    int i = 0;
#pragma unroll 1
    do {
      add_source<columns, count>(step.source[i], row, sum);
    } while (++i < step.sources);
    wait_for_products<0>();
#pragma unroll
    for (int j = 0; j < count; ++j) hold<columns>(sum[j]);
    if (me % 32 == 0) arrive(free(place.before()));
    begun = false;
    me = anew(me);
    if constexpr (count > 0) {
      Tile::template finish<columns, 0>(step, row + (me >> 5) % 4 * 16 + (me >> 2 & 7), count, sum);
    }
  }

  template <int columns, int count>
  FASTVOC_DEVICE void add_source(const ChainSource& source, int row, float (&sum)[tiles][columns / 8][4]) {
    // In units of 16 bytes. One chunk is as two, the second of which is the next tap.
    const bool single = source.chunks == 1;
    const int next = single ? source.dilation : pitch / kChunkBytes;
    const int chunks = single ? 2 : source.chunks, back = (single ? 2 : 1) * source.dilation - chunks * next;
    unsigned a = operand(Tile::row(source.buffer, 0, row - source.left), next * kChunkBytes);
    int chunk = 0;
    constexpr int next_tile = 64 * kGroups;
#pragma unroll 1
    for (int left = source.taps * source.chunks; left > 0; left -= room(columns)) {
      unsigned b = operand(shared_memory() + place.number() * kStageBytes, columns * kChunkBytes);
      wait_for_phase(full(place.number()), place.parity());
      int pairs = least(left, room(columns)) / 2;
#pragma unroll 1
      do {
        // What is asked for and its commitment stand in a row, or the compiler would wait for every single product.
        begin_products();
#pragma unroll
        for (int j = 0; j < count; ++j) {
          multiply_by_warpgroup<precision, columns>(sum[j], a + j * next_tile, b);
        }
        commit_products();
        wait_for_products<1>();
        b += 2 * columns;
        a += 2 * next;
        chunk += 2;
        if (chunk >= chunks) {
          chunk = 0;
          a += back;
        }
        // What was asked for before this has been done.
        if (begun && me % 32 == 0) arrive(free(place.before()));
        begun = false;
      } while (--pairs > 0);
      begun = true;
      place.advance();
    }
  }
};

template <int precision, int channels, int warps, int tiles>
FASTVOC_DEVICE void hopper_chain(const Chain& chain) {
  if constexpr (!kWarpgroups) {
    trap();
  } else {
    HopperChain<precision, channels, warps, tiles>(chain).run();
  }
}

}  // namespace fastvoc::cuda
