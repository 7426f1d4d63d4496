// WaveNets, one sample after the other: the blocks of a cluster make all samples of up to eight streams together
// (architecture 90a). Each has every eighth row of tiles of a step, whose weights stay in its shared memory as far as
// there is room, and sends what it makes to all of them.
//
// Nobody waits for a whole cluster. A step begins in a block when the results of the step before are there and all blocks
// have begun that step: a barrier counts both, bytes and blocks, and steps use two of them in turn. A block has begun
// a step when all of its warps have; one more warp tells that to the others, while these are at work. So of two
// blocks one may be in the step behind the other's: what a step sends must not stand where the step before it reads,
// and what warps of one block leave to each other is read two steps later.
//
// A group of warps makes the steps that are even, gates, and one the odd ones: residuals and skips. Each asks for the
// first weights of its next step while the other works. Two more groups look back, for layers in turn: in one step each
// block sends what it knows of the past, its own channels and a part of the condition, and in two more ones multiply what
// came. Draws and inputs are made by every block for itself.
#pragma once

#include "hopper_instructions.cuh"
#include "recurrent_steps.cuh"

namespace fastvoc::cuda {

template <int precision>
class RecurrentCluster : RecurrentSteps<precision, kClusterBlocks> {
  using Steps = RecurrentSteps<precision, kClusterBlocks>;
  using typename Steps::Job, typename Steps::Place, typename Steps::Result;
  using Steps::kAsked, Steps::kThreads, Steps::kWarps;
  using Steps::kGates, Steps::kResidual, Steps::kSkip, Steps::kHidden, Steps::kOutput;
  using Steps::p, Steps::shared, Steps::packed, Steps::warp, Steps::lane, Steps::rank, Steps::first, Steps::streams, Steps::vectors;
  using Steps::residual_tiles, Steps::describe, Steps::load_tiles, Steps::pasts;

 public:
  FASTVOC_DEVICE explicit RecurrentCluster(const Recurrent& parameter)
      : Steps(parameter), group(warp / kGroupWarps), turn(warp % kGroupWarps) {}

  FASTVOC_DEVICE void run() {
    begin();
    if (group == 0) {
      make_steps<0>();
    } else if (group == 1) {
      make_steps<1>();
    } else {
      make_the_rest();
    }
    this->keep_history();
  }

 private:
  FASTVOC_DEVICE int steps() const { return 2 * p.layers + 4; }  // an even number
  FASTVOC_DEVICE Barrier* barriers() const { return reinterpret_cast<Barrier*>(shared + p.places.barriers); }
  FASTVOC_DEVICE Barrier* full(int step) const { return barriers() + step % 2; }
  FASTVOC_DEVICE Barrier* gathered(int l) const { return barriers() + 2 + l % 2; }

  FASTVOC_DEVICE void begin() const {
    this->clear_memory();
    barrier();
    if (thread() == 0) {
      for (int i = 0; i < 2; ++i) {
        begin_barrier(full(i), kClusterBlocks);
        begin_barrier(gathered(i), 1);
      }
      publish_barriers();
    }
    bring_weights();
    this->begin_streams();
    cluster_barrier();  // nobody sends before this, or writes to the rings
    this->take_input(warp, kWarps);
    barrier();
  }

  // ---- who makes what

  FASTVOC_DEVICE int jobs_of(int step) const {
    const RecurrentWeights& w = p.weights;
    if (step >= 2 * p.layers) return step == 2 * p.layers ? w.hidden_tiles : step < steps() - 2 ? w.output_tiles : 0;
    return step % 2 ? w.channel_tiles + w.skip_tiles : w.gate_tiles;
  }

  // The first job of a step that this block has on warp `turn` of a group. All layers have the same numbers of skips, whose
  // sums stay with a thread; the last one has no residuals.
  FASTVOC_DEVICE int first_job(int step) const {
    int number = rank + kClusterBlocks * turn;
    for (; step == 2 * p.layers - 1 && number < p.weights.channel_tiles;) number += kClusterBlocks * kGroupWarps;
    return number;
  }

  FASTVOC_DEVICE void find(Place& job, int step, int number) const {
    const int l = step / 2, residuals = p.weights.channel_tiles;
    if (step >= 2 * p.layers) {
      describe(job, step % 2 ? kOutput : kHidden, l, number);
    } else if (step % 2 == 0) {
      describe(job, kGates, l, number);
    } else {
      describe(job, number < residuals ? kResidual : kSkip, l, number < residuals ? number : number - residuals);
    }
  }

  // Where the weights of a job stay in shared memory, or null.
  FASTVOC_DEVICE Vector16* place_of(int step, int number) const {
    const RecurrentWeights& w = p.weights;
    const int l = step / 2, own = number / kClusterBlocks;
    if (step < 2 * p.layers ? l >= p.resident : !p.head) return nullptr;
    const RecurrentShares& s = p.shares;
    int pairs = step % 2 ? s.hidden + own * w.hidden_pairs : own * w.skip_pairs;
    if (step < 2 * p.layers)
      pairs = s.head + l * s.layer + (step % 2 ? s.gates + own * w.gated_pairs : own * w.channel_pairs);
    return vectors(p.places.weights) + pairs * 64;
  }

  FASTVOC_DEVICE void bring_weights() const {
    for (int step = warp; step < steps() - 2; step += kWarps)
      for (int number = rank; number < jobs_of(step); number += kClusterBlocks) {
        Vector16* const to = place_of(step, number);
        if (!to) continue;
        Place job;
        find(job, step, number);
        for (int i = lane; i < 64 * job.pairs; i += 32) copy_async(to + i, job.weights + i, true);
      }
    commit_copies();
    wait_for_copies<0>();
  }

  // ---- steps

  // That this block has begun a step, and what it waits for in it.
  FASTVOC_DEVICE void tell(int step) const {
    if (warp + 1 < kWarps) return arrive_at_barrier(1, kThreads);
    barrier(1, kThreads);
    if (lane == rank) arrive_expecting(full(step), bytes_of(step));
    if (lane != rank && lane < kClusterBlocks) arrive_in(lane, full(step));
  }

  // Of the results that all blocks send to this one.
  FASTVOC_DEVICE int bytes_of(int step) const {
    if (step >= 2 * p.layers) return streams * jobs_of(step) * (step % 2 ? 64 : 32);
    if (step % 2 == 0) return streams * jobs_of(step) * 16;
    const int residuals = residual_tiles(step / 2);  // of skips only those of the last layer, which has no residual
    return streams * (residuals ? residuals : p.weights.skip_tiles) * 32;
  }

  // Groups have loops of their own, so that they have registers for what they do alone. Of the chain one has the steps that
  // are even, and one the others.
  template <int parity>
  FASTVOC_DEVICE void make_steps() {
    Job job = {};
    if (parity == 0) ask(job, 0, 0, first_job(0));
    for (int t = 0; t < p.count; ++t)
      for (int step = 0; step < steps(); ++step) {
        forget();
        tell(step);
        if (step % 2 == parity) {
          make<parity>(job, step, t);
        } else {
          const bool last = step + 1 == steps();
          ask(job, last ? 0 : step + 1, last ? t + 1 : t, first_job(step + 1));
        }
        end(step, t);
      }
  }

  // The others look back, draw and take inputs.
  FASTVOC_DEVICE void make_the_rest() {
    constexpr int kBefore = 2 * kGroupWarps;
    Vector16 asked[2 * kAsked] = {};
    for (int t = 0; t < p.count; ++t)
      for (int step = 0; step < steps(); ++step) {
        forget();
        tell(step);
        if (group < 4) look_back(asked, step, t + 1);
        if (step == steps() - 2) this->draw(t, warp - kBefore, kWarps - kBefore);
        if (step == steps() - 1 && t + 1 < p.count) this->take_input(warp - kBefore, kWarps - kBefore);
        end(step, t);
      }
  }

  FASTVOC_DEVICE void end(int step, int t) const {
    if (step >= steps() - 2) barrier(2, kThreads);  // draws and inputs are for this block alone
    wait_for_phase(full(step), static_cast<int>((static_cast<unsigned>(t) * (steps() / 2) + step / 2) % 2));
  }

  // What follows from a thread's numbers has no register from step to step.
  FASTVOC_DEVICE void forget() {
    shared = anew(shared), packed = anew(packed), warp = anew(warp), lane = anew(lane), this->row = anew(this->row), this->column = anew(this->column);
    rank = anew(rank), first = anew(first), streams = anew(streams), group = anew(group), turn = anew(turn);
  }

  template <int parity>
  FASTVOC_DEVICE void make(Job& job, int step, int t) {
    const int begin = first_job(step);
    for (int number = begin; number < jobs_of(step); number += kClusterBlocks * kGroupWarps) {
      if (number != begin) ask(job, step, t, number);
      this->add_sums(job);
      this->finish_product(job);
      if (this->finish(job, t)) hand_on(job, step);
    }
  }

  // Load the first weights of a job, and what its sums begin with.
  FASTVOC_DEVICE void ask(Job& job, int step, int t, int number) const {
    job = {};  // so that no register holds what was
    if (t >= p.count || number >= jobs_of(step)) return;
    find(job, step, number);
    if (const Vector16* const stays = place_of(step, number)) job.weights = stays;
    load_tiles(job.asked, job.weights, 0, job.pairs);
    this->begin_sums(job, t);
  }

  // Send what a row of tiles made to all blocks, this one among them, by 16 bytes. Memory for that is used in turn, so
  // that nobody writes while others still read.
  FASTVOC_DEVICE void hand_on(const Job& job, int step) {
    const Result result = this->result_of(job);
    char* const from = shared + p.places.results + (2 * warp + handed++ % 2) * kResultBytes;
    this->store(job, from, result.bytes);
    warp_barrier();
    const int chunks = result.bytes / 16;
    for (int i = lane; i < streams * chunks * kClusterBlocks; i += 32) {
      const int block = i % kClusterBlocks, chunk = i / kClusterBlocks % chunks, n = i / kClusterBlocks / chunks;
      send(block, result.to + n * result.pitch + 16 * chunk,
           *reinterpret_cast<const Vector16*>(from + n * result.bytes + 16 * chunk), full(step));
    }
  }

  // ---- looking back

  // What a step does for the block of samples that begins with sample t.
  FASTVOC_DEVICE void look_back(Vector16 (&asked)[2 * kAsked], int step, int t) {
    int l = (step - 1) / 2;
    l -= (l + group) % 2;  // one group has the even layers
    const int part = step - 2 - 2 * l, pairs = p.weights.past_pairs, half = (pairs + 1) / 2;
    if (l < 0 || l >= p.layers || part < -1 || part > 1 || !this->begins_block(l, t)) return;
    if (part < 0) gather_for_all(l, t);
    if (part == 0) wait_for_phase(gathered(l), gathers++ % 2);
    for (int i = turn; part >= 0 && rank + kClusterBlocks * i < p.weights.gate_tiles; i += kGroupWarps) {
      const int tile = rank + kClusterBlocks * i, from = part ? half : 0, to = part ? pairs : half;
      if (i != turn) load_tiles(asked, pasts(l, tile), from, to);
      Steps::look_back(l, tile, from, to, asked);
    }
    const int next = rank + kClusterBlocks * turn;
    if (part < 1 && next < p.weights.gate_tiles)
      load_tiles(asked, pasts(l, next), part ? 0 : half, part ? half : pairs);
  }

  // Send what this block knows of the past to all blocks, by eight columns: the channels that it writes to the rings,
  // which are one sample in front of t, and every eighth part of the condition.
  FASTVOC_DEVICE void gather_for_all(int l, int t) const {
    const int taps = p.taps - 1, chunks = p.channels / 8, conditions = (p.condition + 7) / 8;
    const int tiles = share_of(p.weights.channel_tiles - rank), parts = share_of(conditions - rank);
    const int each = 2 * taps * tiles + parts;
    const int length = this->block_length(l), samples = p.count - t < length ? p.count - t : length;
    const int me = 32 * turn + lane;
    if (me == 0) arrive_expecting(gathered(l), streams * samples * (taps * chunks + conditions) * 16);
    constexpr int kAtOnce = 2;  // whose answers from memory a thread waits for together
#pragma unroll 1
    for (int begin = me; begin < streams * samples * each; begin += kAtOnce * 32 * kGroupWarps) {
      float value[kAtOnce][8];
      char* to[kAtOnce];
#pragma unroll
      for (int k = 0; k < kAtOnce; ++k) {
        const int i = begin + k * 32 * kGroupWarps, part = i % each, sample = i / each % samples, n = i / each / samples;
        const float* from = nullptr;
        int columns = 0;
        to[k] = nullptr;
        if (i < streams * samples * each && part < 2 * taps * tiles) {
          const int tap = part / (2 * tiles), chunk = 2 * (rank + kClusterBlocks * (part / 2 % tiles)) + part % 2;
          if (chunk < chunks) {
            from = this->tap_of(l, n, tap, 1 + sample) + 8 * chunk, columns = 8;
            to[k] = this->past_of(l, n, sample) + 2 * p.channels * tap + 16 * chunk;
          }
        } else if (i < streams * samples * each) {
          const int chunk = rank + kClusterBlocks * (part - 2 * taps * tiles);
          from = p.conditions + (static_cast<long long>(first + n) * p.count + t + sample) * p.condition + 8 * chunk;
          columns = p.condition - 8 * chunk;
          to[k] = this->past_of(l, n, sample) + 2 * p.channels * taps + 16 * chunk;
        }
#pragma unroll
        for (int c = 0; c < 8; ++c) value[k][c] = c < columns ? load_global(from + c) : 0;
      }
#pragma unroll
      for (int k = 0; k < kAtOnce; ++k) {
        Vector16 packed;
#pragma unroll
        for (int c = 0; c < 4; ++c) packed.word[c] = pack_pair<precision>(value[k][2 * c], value[k][2 * c + 1]);
#pragma unroll 1
        for (int block = 0; to[k] && block < kClusterBlocks; ++block) send(block, to[k], packed, gathered(l));
      }
    }
  }

  int group, turn;
  int handed = 0, gathers = 0;
};

template <int precision>
FASTVOC_DEVICE void recurrent_cluster(const Recurrent& parameter) {
  if constexpr (kWarpgroups) {
    RecurrentCluster<precision>(parameter).run();
  } else {
    trap();
  }
}

}  // namespace fastvoc::cuda
