// WaveNets, one sample after the other: a block makes all samples of up to eight streams, from the first to the last.
//
// There is a barrier in front of each step (recurrent_steps.cuh). The first weights of a step, and what its sums begin
// with, are asked for in front of its barrier; they were brought to shared memory while the step before that was made.
// Sums of skips, which only the head reads, fill the steps of the layer and of the next one where these leave warps
// without work.
#pragma once

#include "recurrent_steps.cuh"

namespace fastvoc::cuda {

// A block that makes its streams alone.
template <int precision>
class RecurrentBlock : RecurrentSteps<precision, 1> {
  using Steps = RecurrentSteps<precision, 1>;
  using typename Steps::Job, typename Steps::Place, typename Steps::Result;
  using Steps::kAsked, Steps::kThreads, Steps::kGates, Steps::kResidual, Steps::kSkip, Steps::kHidden, Steps::kOutput;
  using Steps::p, Steps::warp, Steps::lane, Steps::vectors, Steps::tiles, Steps::residual_tiles, Steps::describe;

 public:
  FASTVOC_DEVICE explicit RecurrentBlock(const Recurrent& parameter) : Steps(parameter) {}

  FASTVOC_DEVICE void run() {
    begin();
    Job job;
    begin_fetching();
    ask(job, 0, 0, warp);
    const int steps = 2 * p.layers + 2;
    for (int t = 0; t < p.count; ++t) {
      for (int step = 0; step < steps; ++step) {
        barrier();
        work(job, step, t);
      }
      barrier();
      this->draw(t, warp, kStepWarps);
      barrier();
      if (t + 1 < p.count) this->take_input(warp, kStepWarps);
    }
    this->keep_history();
  }

 private:
  static constexpr int kSlots = kJobSlots;

  // One of the jobs that a warp does one after the other: of a sample and a step the number.
  struct Turn {
    int t, step, number;
  };

  FASTVOC_DEVICE void begin() {
    this->clear_memory();
    for (long long i = thread(); i < p.resident * p.weights.chain_layer / 16; i += kThreads)
      copy_async(vectors(p.places.weights) + i, p.packed + 16 * i, true);
    commit_copies();
    wait_for_copies<0>();
    barrier();
    this->begin_streams();
    this->take_input(warp, kStepWarps);
    barrier();
  }

  // Skips of a layer that are summed in the step of its residual; the last layer has none.
  FASTVOC_DEVICE int early_skips(int l) const {
    if (l + 1 == p.layers) return p.weights.skip_tiles;
    const int idle = kStepWarps - p.weights.channel_tiles;
    return idle < 0 ? 0 : idle < p.weights.skip_tiles ? idle : p.weights.skip_tiles;
  }

  FASTVOC_DEVICE int jobs_of(int step) const {
    const int l = step / 2;
    if (step == 2 * p.layers) return p.weights.hidden_tiles;
    if (step > 2 * p.layers) return p.weights.output_tiles;
    if (step % 2) return residual_tiles(l) + early_skips(l);
    return p.weights.gate_tiles + (l > 0 ? p.weights.skip_tiles - early_skips(l - 1) : 0);
  }

  FASTVOC_DEVICE void find(Place& job, int step, int number) const {
    const int l = step / 2;
    if (step == 2 * p.layers) return describe(job, kHidden, l, number);
    if (step > 2 * p.layers) return describe(job, kOutput, l, number);
    const int early = step % 2 ? residual_tiles(l) : p.weights.gate_tiles;
    if (number >= early) {
      const int of = step % 2 ? l : l - 1;
      return describe(job, kSkip, of, number - early + (step % 2 ? 0 : early_skips(of)));
    }
    describe(job, step % 2 ? kResidual : kGates, l, number);
    if (stays(job)) job.weights = vectors(p.places.weights) + (job.weights - tiles(0, 0, 0));
  }

  // Bring the first weights of the turn behind those that are on their way to shared memory; each thread brings what it
  // will read itself. Those that stay there are read where they are.
  FASTVOC_DEVICE void fetch() {
    Place job;
    find(job, fetching.step, fetching.number);
    if (fetching.t < p.count && !stays(job)) {
      Vector16* const to = slot(fetched);
      for (int i = 0; i < 2 * job.pairs && i < 2 * p.slot_pairs; ++i)
        copy_async(to + 32 * i, job.weights + 32 * i + lane, true);
    }
    commit_copies();
    ++fetched;
    fetching.number += kStepWarps;
    find_turn();
  }

  // Go on to the next step that has such a job, if there is one.
  FASTVOC_DEVICE void find_turn() {
    const int steps = 2 * p.layers + 2;
    for (int i = 0; i < steps && fetching.number >= jobs_of(fetching.step); ++i) {
      const bool last = fetching.step + 1 == steps;
      fetching = {last ? fetching.t + 1 : fetching.t, last ? 0 : fetching.step + 1, warp};
    }
  }

  FASTVOC_DEVICE void begin_fetching() {
    if (p.slot_pairs == 0) return;
    fetching.number = warp;
    find_turn();
    if (fetching.number >= jobs_of(fetching.step)) return;  // it has none at all
    for (int i = 0; i < kSlots - 1; ++i) fetch();
  }

  FASTVOC_DEVICE bool stays(const Place& job) const {
    return (job.kind == kGates || job.kind == kResidual) && job.layer < p.resident;
  }

  FASTVOC_DEVICE Vector16* slot(int number) const {
    return vectors(p.places.slots) + (number % kSlots * kStepWarps + warp) * p.slot_pairs * 64 + lane;
  }

  // Load the first weights of a job, and ask for what its sums begin with.
  FASTVOC_DEVICE void ask(Job& job, int step, int t, int number) {
    job = {};  // so that no register holds what was
    if (t >= p.count || number >= jobs_of(step)) return;
    find(job, step, number);
    if (p.slot_pairs > 0) {
      fetch();  // into the slot of the job before, whose products are made
      wait_for_copies<kSlots - 1>();
    }
    const bool direct = p.slot_pairs == 0 || stays(job);
    const Vector16* const from = direct ? job.weights + lane : slot(taken);
    ++taken;
#pragma unroll
    for (int i = 0; i < kAsked; ++i) {
      if (i >= job.pairs) continue;
      const Vector16* const pair = direct || i < p.slot_pairs ? from + 64 * i : job.weights + 64 * i + lane;
      job.asked[2 * i] = load_global(pair);
      job.asked[2 * i + 1] = load_global(pair + 32);
    }
    this->begin_sums(job, t);
  }

  // All jobs of a step, of which the first is asked for; what it does for samples to come; and then the first of the
  // next step is asked for.
  FASTVOC_DEVICE void work(Job& job, int step, int t) {
    const int jobs = jobs_of(step);
    int number = warp;
    for (bool more = number < jobs;;) {
      if (more) {
        this->add_sums(job);
        this->finish_product(job);
        if (this->finish(job, t)) {
          const Result result = this->result_of(job);
          this->store(job, result.to, result.pitch);
        }
        number += kStepWarps;
        more = number < jobs;
      }
      if (!more) prepare(step, t + 1, number - jobs);
      const bool last = step == 2 * p.layers + 1;
      ask(job, more ? step : last ? 0 : step + 1, more || !last ? t : t + 1, more ? number : warp);
      if (!more) return;
    }
  }

  // What a step does for sample t and those behind it, beginning with a row of tiles.
  FASTVOC_DEVICE void prepare(int step, int t, int tile) const {
    const int l = step / 2;
    if (step % 2 && l < p.layers) {
      if (this->begins_block(l, t)) this->gather(l, t, 1);
    } else if (step % 2 == 0 && l > 0 && this->begins_block(l - 1, t)) {
      for (; tile < p.weights.gate_tiles; tile += kStepWarps) this->look_back_whole(l - 1, tile);
    }
  }

  Turn fetching = {};          // the next job whose weights are brought
  int fetched = 0, taken = 0;  // jobs so far
};

template <int precision>
FASTVOC_DEVICE void recurrent(const Recurrent& parameter) {
  if constexpr (kMultiplies<precision>) {
    RecurrentBlock<precision>(parameter).run();
  } else {
    trap();
  }
}

}  // namespace fastvoc::cuda
