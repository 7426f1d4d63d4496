// WaveNets, one sample after the other: a block makes all samples of up to eight streams, from the first to the last.
//
// What a sample waits for is a chain of steps, with a barrier in front of each: the gates of a layer and then its
// residual, layer after layer, the two matrices of the head, the draw, and the next sample's input. Each step is rows
// of tiles, which the warps share; the first weights of a step, and what its sums begin with, are asked for in front of
// its barrier; they were brought to shared memory while the step before that was made. Sums of skips, which only the
// head reads, fill the steps of the layer and of the next one where these leave warps without work.
//
// The other taps read samples that are a dilation old, so that what they and the condition add to the gates is known
// for eight samples at once, or as many as the dilation has. These are columns of a product, which so reads weights
// once for all of them. Layers take their turns, so that no sample has to wait for all of them.
//
// Columns of a product do not meet, and sums have one order: chunks, batches and blocks change no bit.
#pragma once

#include "instructions.cuh"
#include "recurrent.h"

namespace fastvoc::cuda {

template <int precision>
class RecurrentBlock {
 public:
  FASTVOC_DEVICE explicit RecurrentBlock(const Recurrent& parameter)
      : p(parameter),
        shared(shared_memory()),
        warp(thread() / 32),
        lane(thread() % 32),
        row(lane / 4),
        column(lane % 4 * 2),
        first(block_x() * p.streams),
        streams(p.batch - first < p.streams ? p.batch - first : p.streams),
        ahead(p.ahead + static_cast<long long>(block_x()) * p.layers * kSamplesAhead * p.streams * gate_rows()) {}

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
      draw(t);
      barrier();
      if (t + 1 < p.count) take_input();
    }
    for (int i = thread(); i < streams * p.input_taps; i += kThreads)
      p.history[static_cast<long long>(first) * p.input_taps + i] = at<float>(p.places.history)[i];
  }

 private:
  static constexpr int kThreads = 32 * kStepWarps;
  static constexpr int kAsked = 4;     // pairs of tiles that are on their way at once
  static constexpr int kSlots = kJobSlots;
  static constexpr int kTogether = 4;  // streams that are looked back for with one reading of the weights

  enum Kind { kGates, kResidual, kSkip, kHidden, kOutput };

  // A row of tiles times an operand.
  struct Place {
    int kind, tile, layer, pairs;
    const Vector16* weights;
    const char* operand;
    const float* bias;  // or null
  };
  struct Job : Place {
    Vector16 asked[2 * kAsked];
    float sum[4];
  };

  // One of the jobs that a warp does one after the other: of a sample and a step the number.
  struct Turn {
    int t, step, number;
  };

  template <class T>
  FASTVOC_DEVICE T* at(int place) const {
    return reinterpret_cast<T*>(shared + place);
  }
  FASTVOC_DEVICE const float* floats(long long place) const {
    return reinterpret_cast<const float*>(p.packed + place);
  }
  FASTVOC_DEVICE int gate_rows() const { return 16 * p.weights.gate_tiles; }
  FASTVOC_DEVICE int ring_of(int l) const { return (p.taps - 1) * p.dilation[l]; }

  FASTVOC_DEVICE static void put(char* to, float value) {
    *reinterpret_cast<unsigned short*>(to) = static_cast<unsigned short>(pack_pair<precision>(value, 0));
  }

  // ---- blocks of samples that are looked back for at once

  FASTVOC_DEVICE int block_length(int l) const {
    const int dilation = p.dilation[l];
    return dilation >= kSamplesAhead ? kSamplesAhead : dilation >= 4 ? 4 : dilation >= 2 ? 2 : 1;
  }
  FASTVOC_DEVICE int place_in_block(int l, int t) const { return (t + 7 * l) & (block_length(l) - 1); }
  FASTVOC_DEVICE bool begins_block(int l, int t) const { return t < p.count && place_in_block(l, t) == 0; }

  // Bring what the block of sample t reads to shared memory; the rings are at the sample `before` ones in front of it.
  FASTVOC_DEVICE void gather(int l, int t, int before) const {
    const int begin = place_in_block(l, t), end = block_length(l), ring = ring_of(l);
    const int pitch = operand_pitch(p.weights.past_pairs);
    for (int i = warp; i < streams * kSamplesAhead; i += kStepWarps) {
      const int n = i / kSamplesAhead, sample = i % kSamplesAhead, time = t + sample - begin;
      if (sample < begin || sample >= end || time >= p.count) continue;
      char* to = at<char>(p.places.past) + i * pitch;
      for (int j = 0; j < p.taps - 1; ++j, to += 2 * p.channels) {
        int r = at<int>(p.places.ring)[l * kMostStreamsOfBlock + n] + before + sample - begin -
                (p.taps - 1 - j) * p.dilation[l];
        r += r < 0 ? ring : 0;
        r -= r >= ring ? ring : 0;
        const float* const from = ring_row(n, p.ring_row[l] + r);
        for (int c = lane; c < p.channels; c += 32) put(to + 2 * c, load_global(from + c));
      }
      const float* const from = p.conditions + (static_cast<long long>(first + n) * p.count + time) * p.condition;
      for (int c = lane; c < p.condition; c += 32) put(to + 2 * c, load_global(from + c));
    }
  }

  FASTVOC_DEVICE float* ring_row(int n, int r) const { return p.rings + ((first + n) * p.rows + r) * p.channels; }

  FASTVOC_DEVICE float* ahead_of(int l, int sample, int n) const {
    return ahead + ((static_cast<long long>(l) * kSamplesAhead + sample) * p.streams + n) * gate_rows();
  }

  // A row of tiles of what was gathered, for some streams at once, whose sums need registers.
  FASTVOC_DEVICE void look_back(int l, int tile) const {
    for (int n = 0; n < streams; n += kTogether) look_back(l, tile, n);
  }

  FASTVOC_DEVICE void look_back(int l, int tile, int base) const {
    const int pairs = p.weights.past_pairs, pitch = operand_pitch(pairs), channel = 8 * tile + row;
    const Vector16* const weights = tiles(p.weights.pasts + l * p.weights.past_layer, tile, pairs);
    const float* const bias = floats(p.weights.dilated_bias) + l * gate_rows() + 16 * tile + row;
    float sum[kTogether][4];
#pragma unroll
    for (int i = 0; i < kTogether; ++i) {
      float upper = load_global(bias), lower = load_global(bias + 8);
      if (p.gates && base + i < streams && channel < p.gated) {
        const float* const added =
            p.gates + (static_cast<long long>(first + base + i) * p.layers + l) * 2 * p.gated + channel;
        upper += load_global(added), lower += load_global(added + p.gated);
      }
      sum[i][0] = sum[i][1] = upper, sum[i][2] = sum[i][3] = lower;
    }
#pragma unroll 1
    for (int k = 0; k < pairs; k += kAsked) {
      Vector16 asked[2 * kAsked];
      load_tiles(asked, weights, k, pairs);
#pragma unroll
      for (int j = 0; j < kAsked; ++j) {
#pragma unroll
        for (int i = 0; i < kTogether; ++i)
          if (k + j < pairs && base + i < streams)
            multiply(sum[i], sum[i], asked[2 * j], asked[2 * j + 1],
                     at<char>(p.places.past) + (base + i) * kSamplesAhead * pitch, pitch, k + j);
      }
    }
#pragma unroll
    for (int i = 0; i < kTogether; ++i)
      if (base + i < streams)
#pragma unroll
        for (int j = 0; j < 4; ++j)
          ahead_of(l, column + j % 2, base + i)[16 * tile + row + j / 2 * 8] = sum[i][j];
  }

  // ---- products

  FASTVOC_DEVICE const Vector16* tiles(long long place, int tile, int pairs) const {
    return reinterpret_cast<const Vector16*>(p.packed + place + static_cast<long long>(tile) * pairs * 2 * kTileBytes);
  }

  FASTVOC_DEVICE void load_tiles(Vector16 (&asked)[2 * kAsked], const Vector16* weights, int k, int pairs) const {
#pragma unroll
    for (int i = 0; i < kAsked; ++i) {
      asked[2 * i] = asked[2 * i + 1] = {};
      if (k + i >= pairs) continue;
      asked[2 * i] = load_global(weights + (k + i) * 64 + lane);
      asked[2 * i + 1] = load_global(weights + (k + i) * 64 + 32 + lane);
    }
  }

  // Two neighbouring tiles; each has a sum of its own, so that one need not wait for the other.
  FASTVOC_DEVICE void multiply(float (&even)[4], float (&odd)[4], const Vector16& left, const Vector16& right,
                               const char* operand, int pitch, int pair) const {
    unsigned b[4];
    load_matrices(b, operand + lane % 8 * pitch + lane / 8 * 16 + pair * kPairColumns * 2);
    multiply_add<precision>(even, left.word, {b[0], b[1]});
    multiply_add<precision>(odd, right.word, {b[2], b[3]});
  }

  FASTVOC_DEVICE void finish_product(Job& job) const {
    const int pitch = operand_pitch(job.pairs);
    float odd[4] = {};
#pragma unroll 1
    for (int k = 0; k < job.pairs; k += kAsked) {
      if (k > 0) load_tiles(job.asked, job.weights, k, job.pairs);
#pragma unroll
      for (int i = 0; i < kAsked; ++i) {
        if (k + i < job.pairs)
          multiply(job.sum, odd, job.asked[2 * i], job.asked[2 * i + 1], job.operand, pitch, k + i);
      }
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) job.sum[i] += odd[i];
  }

  // ---- the steps of a sample: gates and residual of each layer, and the matrices of the head

  // Skips of a layer that are summed in the step of its residual; the last layer has none.
  FASTVOC_DEVICE int early_skips(int l) const {
    if (l + 1 == p.layers) return p.weights.skip_tiles;
    const int idle = kStepWarps - p.weights.channel_tiles;
    return idle < 0 ? 0 : idle < p.weights.skip_tiles ? idle : p.weights.skip_tiles;
  }
  FASTVOC_DEVICE int residual_tiles(int l) const { return l + 1 == p.layers ? 0 : p.weights.channel_tiles; }

  FASTVOC_DEVICE int jobs_of(int step) const {
    const int l = step / 2;
    if (step == 2 * p.layers) return p.weights.hidden_tiles;
    if (step > 2 * p.layers) return p.weights.output_tiles;
    if (step % 2) return residual_tiles(l) + early_skips(l);
    return p.weights.gate_tiles + (l > 0 ? p.weights.skip_tiles - early_skips(l - 1) : 0);
  }

  FASTVOC_DEVICE const Vector16* chain(int l) const {
    const char* const from = l < p.resident ? shared + p.places.weights : p.packed;
    return reinterpret_cast<const Vector16*>(from + l * p.weights.chain_layer);
  }

  FASTVOC_DEVICE void find(Place& job, int step, int number) const {
    const RecurrentWeights& w = p.weights;
    const int l = step / 2;
    job.layer = l;
    job.tile = number;
    if (step == 2 * p.layers) {
      job.kind = kHidden, job.pairs = w.skip_pairs, job.operand = at<char>(p.places.skip);
      job.weights = tiles(w.hidden, number, job.pairs);
      job.bias = floats(w.hidden_bias);
    } else if (step > 2 * p.layers) {
      job.kind = kOutput, job.pairs = w.hidden_pairs, job.operand = at<char>(p.places.hidden);
      job.weights = tiles(w.output, number, job.pairs);
      job.bias = floats(w.output_bias);
    } else if (step % 2 == 0 && number < w.gate_tiles) {
      job.kind = kGates, job.pairs = w.channel_pairs, job.operand = at<char>(p.places.x);
      job.weights = chain(l) + number * job.pairs * 64;
      job.bias = nullptr;
    } else if (step % 2 && number < residual_tiles(l)) {
      job.kind = kResidual, job.pairs = w.gated_pairs, job.operand = z_of(l);
      job.weights = chain(l) + (w.gate_tiles * w.channel_pairs + number * job.pairs) * 64;
      job.bias = floats(w.residual_bias) + l * 16 * w.channel_tiles;
    } else {
      job.layer = step % 2 ? l : l - 1;
      job.tile = step % 2 ? number - residual_tiles(l) : number - w.gate_tiles + early_skips(l - 1);
      job.kind = kSkip, job.pairs = w.gated_pairs, job.operand = z_of(job.layer);
      job.weights = tiles(w.skips + job.layer * w.skip_layer, job.tile, job.pairs);
      job.bias = job.layer == 0 ? floats(w.skip_bias) : nullptr;
    }
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
    return at<Vector16>(p.places.slots) + (number % kSlots * kStepWarps + warp) * p.slot_pairs * 64 + lane;
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
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int r = 16 * job.tile + row + i / 2 * 8, n = column + i % 2;
      job.sum[i] = job.bias ? load_global(job.bias + r) : 0;
      if (job.kind == kGates && n < streams) 
        job.sum[i] = load_global(ahead_of(job.layer, place_in_block(job.layer, t), n) + r);
    }
  }

  FASTVOC_DEVICE char* z_of(int l) const {
    return at<char>(p.places.z) + l % 2 * kMostStreamsOfBlock * operand_pitch(p.weights.gated_pairs);
  }

  // All jobs of a step, of which the first is asked for; what it does for samples to come; and then the first of the
  // next step is asked for.
  FASTVOC_DEVICE void work(Job& job, int step, int t) {
    const int jobs = jobs_of(step);
    int number = warp;
    for (bool more = number < jobs;;) {
      if (more) {
        if (job.kind == kResidual || (job.kind == kSkip && job.layer > 0)) {
          const float* const sums = at<float>(job.kind == kResidual ? p.places.x_sums : p.places.skip_sums);
#pragma unroll
          for (int i = 0; i < 4; ++i) job.sum[i] += sums[sum_place(job.tile, i)];
        }
        finish_product(job);
        finish(job, t);
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
      if (begins_block(l, t)) gather(l, t, 1);
    } else if (step % 2 == 0 && l > 0 && begins_block(l - 1, t)) {
      for (; tile < p.weights.gate_tiles; tile += kStepWarps) look_back(l - 1, tile);
    }
  }

  FASTVOC_DEVICE int sum_place(int tile, int i) const {
    return (16 * tile + row + i / 2 * 8) * kMostStreamsOfBlock + column + i % 2;
  }

  FASTVOC_DEVICE void finish(const Job& job, int t) const {
    if (job.kind == kGates) {
      const int pitch = operand_pitch(p.weights.gated_pairs);
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const float open = fused(0.5f, hyperbolic_tangent(0.5f * job.sum[2 + i]), 0.5f);
        put(z_of(job.layer) + (column + i) * pitch + (8 * job.tile + row) * 2, hyperbolic_tangent(job.sum[i]) * open);
      }
      return;
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int r = 16 * job.tile + row + i / 2 * 8, n = column + i % 2;
      if (job.kind == kResidual) {
        set_x(job.layer + 1, r, n, job.sum[i] * p.residual_scale);
      } else if (job.kind == kSkip && job.layer + 1 < p.layers) {
        at<float>(p.places.skip_sums)[sum_place(job.tile, i)] = job.sum[i];
      } else if (job.kind == kSkip) {
        rectify(p.places.skip, p.weights.skip_pairs, r, n, job.sum[i] * p.skip_scale);
      } else if (job.kind == kHidden) {
        rectify(p.places.hidden, p.weights.hidden_pairs, r, n, job.sum[i]);
      } else if (n < streams && r < p.outputs) {
        at<float>(p.places.outputs)[n * p.outputs + r] = job.sum[i];
        if (p.parameters)
          p.parameters[(static_cast<long long>(first + n) * p.count + t) * p.outputs + r] = job.sum[i];
      }
    }
  }

  FASTVOC_DEVICE void rectify(int place, int pairs, int r, int n, float value) const {
    put(at<char>(place) + n * operand_pitch(pairs) + 2 * r, value < 0 ? 0 : value);
  }

  // Channel r of what layer l is given of stream n.
  FASTVOC_DEVICE void set_x(int l, int r, int n, float value) const {
    at<float>(p.places.x_sums)[r * kMostStreamsOfBlock + n] = value;
    put(at<char>(p.places.x) + n * operand_pitch(p.weights.channel_pairs) + 2 * r, value);
    if (n < streams && r < p.channels && p.taps > 1)
      ring_row(n, p.ring_row[l] + at<int>(p.places.ring)[l * kMostStreamsOfBlock + n])[r] = value;
  }

  // ---- inputs and draws

  FASTVOC_DEVICE void begin() {
    for (int i = thread(); i < p.places.weights / 4; i += kThreads) at<unsigned>(0)[i] = 0;
    for (long long i = thread(); i < p.resident * p.weights.chain_layer / 16; i += kThreads)
      copy_async(at<char>(p.places.weights) + 16 * i, p.packed + 16 * i, true);
    commit_copies();
    wait_for_copies<0>();
    barrier();
    for (int i = thread(); i < p.layers * kMostStreamsOfBlock; i += kThreads) {
      const int l = i / kMostStreamsOfBlock, n = i % kMostStreamsOfBlock;
      if (n >= streams || p.taps == 1) continue;
      // without a sign, whatever a caller's memory holds
      const unsigned long long time = static_cast<unsigned long long>(load_global(p.time + first + n));
      at<int>(p.places.ring)[i] = static_cast<int>(time % static_cast<unsigned>(ring_of(l)));
    }
    for (int n = warp; n < streams; n += kStepWarps) {
      if (lane != 0) continue;
      for (int i = 0; i < p.input_taps; ++i)
        history_of(n)[i] = load_global(p.history + static_cast<long long>(first + n) * p.input_taps + i);
      if (p.forced) push(n, load_global(p.forced + static_cast<long long>(first + n) * p.count));
    }
    for (int l = 0; l < p.layers; ++l) {
      barrier();
      gather(l, 0, 0);
      barrier();
      for (int tile = warp; tile < p.weights.gate_tiles; tile += kStepWarps) look_back(l, tile);
    }
    take_input();
    barrier();
  }

  FASTVOC_DEVICE float* history_of(int n) const { return at<float>(p.places.history) + n * p.input_taps; }

  FASTVOC_DEVICE void push(int n, float value) const {
    float* const history = history_of(n);
    for (int i = 0; i + 1 < p.input_taps; ++i) history[i] = history[i + 1];
    history[p.input_taps - 1] = value;
  }

  // What the first layer is given.
  FASTVOC_DEVICE void take_input() const {
    const int width = 16 * p.weights.channel_tiles;
    const bool classes = p.distribution == kClasses;
    for (int n = warp; n < kMostStreamsOfBlock; n += kStepWarps)
      for (int c = lane; c < width; c += 32) {
        float x = n < streams ? load_global(floats(p.weights.input_bias) + c) : 0;
        for (int i = 0; i < p.input_taps && n < streams; ++i) {
          const float given = history_of(n)[i];
          // whatever a caller's memory holds
          const int number = !classes || !(given > 0) ? 0 : given < p.outputs ? static_cast<int>(given) : p.outputs - 1;
          const long long at_row = static_cast<long long>(i) * (classes ? p.outputs : 1) + number;
          x = fused(load_global(floats(p.weights.input) + at_row * width + c), classes ? 1 : given, x);
        }
        set_x(0, c, n, x);
      }
  }

  FASTVOC_DEVICE void draw(int t) const {
    for (int i = thread(); i < p.layers * kMostStreamsOfBlock; i += kThreads) {
      int& at_row = at<int>(p.places.ring)[i];
      at_row = at_row + 1 < ring_of(i / kMostStreamsOfBlock) ? at_row + 1 : 0;
    }
    for (int n = warp; n < streams; n += kStepWarps) {
      const long long item = first + n, sample = item * p.count + t;
      float value = 0;
      if (p.drawn) value = draw_of(n, item, t);
      if (lane != 0) continue;
      if (p.drawn) p.drawn[sample] = value;
      if (!p.forced) {
        push(n, value);
      } else if (t + 1 < p.count) {
        push(n, load_global(p.forced + sample + 1));
      }
    }
  }

  FASTVOC_DEVICE float draw_of(int n, long long item, int t) const {
    const int numbers = p.distribution == kLogistics ? 2 : 1;
    const float* const noise = p.noise + item * numbers * p.count + t;
    const float temperature = load_global(p.temperature + item), number = load_global(noise);
    float* const parameters = at<float>(p.places.outputs) + n * p.outputs;
    if (p.distribution == kGaussian) {
      const float scale = exponential(larger(parameters[1], p.smallest_log_scale)) * temperature;
      return clipped(fused(scale, number, parameters[0]));
    }
    const int count = p.distribution == kLogistics ? p.outputs / 3 : p.outputs;
    const int chosen = draw_class(n, parameters, count, temperature, number);
    if (p.distribution == kClasses) return static_cast<float>(chosen);
    constexpr float kUnlikeliest = 1e-5f;
    const float where = larger(kUnlikeliest, -larger(kUnlikeliest - 1, -load_global(noise + p.count)));
    const float scale = exponential(larger(parameters[2 * count + chosen], p.smallest_log_scale)) * temperature;
    return clipped(fused(scale, logarithm(where) - logarithm(1 - where), parameters[count + chosen]));
  }

  FASTVOC_DEVICE static float larger(float a, float b) { return a < b ? b : a; }
  FASTVOC_DEVICE static float clipped(float value) { return larger(-1, -larger(-1, -value)); }

  // The smallest number whose cumulative probability exceeds `number`. Each lane has a run of neighbours, of which all
  // lanes add up those in front of their own.
  FASTVOC_DEVICE int draw_class(int n, float* logits, int count, float temperature, float number) const {
    float *const largest = at<float>(p.places.largest) + 32 * n, *const runs = at<float>(p.places.runs) + 32 * n;
    int& chosen = at<int>(p.places.chosen)[n];
    const int length = (count + 31) / 32, begin = lane * length, end = begin + length < count ? begin + length : count;
    float most = begin < end ? logits[begin] : -3e38f;
    for (int i = begin + 1; i < end; ++i) most = larger(most, logits[i]);
    largest[lane] = most;
    if (lane == 0) chosen = count - 1;
    warp_barrier();
    for (int i = 0; i < 32; ++i) most = larger(most, largest[i]);
    if (!(temperature > 0)) {
      int earlier = 0;  // lanes that have it too
      for (int i = 0; i < lane; ++i) earlier += largest[i] == most;
      if (!earlier && largest[lane] == most)
        for (int i = end - 1; i >= begin; --i)
          if (logits[i] == most) chosen = i;
    } else {
      float sum = 0;
      for (int i = begin; i < end; ++i) sum += logits[i] = exponential((logits[i] - most) / temperature);
      runs[lane] = sum;
      warp_barrier();
      float before = 0, all = 0;
      for (int i = 0; i < 32; ++i) {
        before = i == lane ? all : before;
        all += runs[i];
      }
      const float threshold = number * all;
      if (before <= threshold && before + sum > threshold) {
        int i = begin;
        for (; i < end - 1; ++i)
          if ((before += logits[i]) > threshold) break;
        chosen = i;
      }
    }
    warp_barrier();
    return chosen;
  }

  const Recurrent& p;
  char* const shared;
  const int warp, lane, row, column;  // row and column: of a tile's sums
  const int first, streams;
  float* const ahead;
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
