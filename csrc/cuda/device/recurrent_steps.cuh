// WaveNets, one sample after the other: what a block knows of a sample, whether it makes all of it (recurrent.cuh) or
// shares it with others (recurrent_cluster.cuh).
//
// What a sample waits for is a chain of steps, each of which waits for the one before: the gates of a layer and then
// its residual, layer after layer, the two matrices of the head, the draw, and the next sample's input. Each step is
// rows of tiles, the jobs that warps share. Sums of skips are read by the head alone.
//
// The other taps read samples that are a dilation old, so that what they and the condition add to the gates is known
// for eight samples at once, or as many as the dilation has. These are columns of a product, which so reads weights
// once for all of them. Layers take their turns, so that no sample has to wait for all of them.
//
// Columns of a product do not meet, and sums have one order: chunks, batches, blocks and who does what change no bit.
#pragma once

#include "instructions.cuh"
#include "recurrent.h"

namespace fastvoc::cuda {

// What a block knows of the steps of a sample, whoever makes which of them: it alone, or as one of several `blocks`.
template <int precision, int blocks>
class RecurrentSteps {
 protected:
  static constexpr bool kAlone = blocks == 1;
  static constexpr int kWarps = kAlone ? kStepWarps : kClusterWarps, kThreads = 32 * kWarps;
  static constexpr int kPasts = kAlone ? 1 : kClusterPasts;  // operands of looking back
  static constexpr int kAsked = kAlone ? 4 : 6;              // pairs of tiles that are on their way at once
  static constexpr int kTogether = 4;  // streams that are looked back for with one reading of the weights

  FASTVOC_DEVICE explicit RecurrentSteps(const Recurrent& parameter)
      : p(parameter),
        shared(shared_memory()),
        packed(p.packed),
        warp(thread() / 32),
        lane(thread() % 32),
        row(lane / 4),
        column(lane % 4 * 2),
        rank(block_x() % blocks),
        first(block_x() / blocks * p.streams),
        streams(p.batch - first < p.streams ? p.batch - first : p.streams),
        ahead(p.ahead + static_cast<long long>(block_x() / blocks) * p.layers * kSamplesAhead * p.streams * gate_rows()) {
  }

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

  // Where the results of a row of tiles stand for who reads them: a column of each stream.
  struct Result {
    char* to;
    int pitch, bytes;  // from column to column, and of one
  };

  template <class T>
  FASTVOC_DEVICE T* at(int place) const {
    return reinterpret_cast<T*>(shared + place);
  }
  FASTVOC_DEVICE Vector16* vectors(int place) const { return at<Vector16>(place); }
  FASTVOC_DEVICE const float* floats(long long place) const {
    return reinterpret_cast<const float*>(packed + place);
  }
  FASTVOC_DEVICE int gate_rows() const { return 16 * p.weights.gate_tiles; }
  FASTVOC_DEVICE int ring_of(int l) const { return (p.taps - 1) * p.dilation[l]; }

  FASTVOC_DEVICE char* x_of(int l) const {
    return at<char>(p.places.x) + l % 2 * kMostStreamsOfBlock * operand_pitch(p.weights.channel_pairs);
  }
  FASTVOC_DEVICE char* z_of(int l) const {
    return at<char>(p.places.z) + l % 2 * kMostStreamsOfBlock * operand_pitch(p.weights.gated_pairs);
  }
  // Of stream n and a sample of the block of samples that layer l looks back for.
  FASTVOC_DEVICE char* past_of(int l, int n, int sample) const {
    return at<char>(p.places.past) +
           ((l % kPasts * p.streams + n) * kSamplesAhead + sample) * operand_pitch(p.weights.past_pairs);
  }
  FASTVOC_DEVICE int outputs_pitch() const { return 16 * p.weights.output_tiles; }

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
    const int begin = place_in_block(l, t), end = block_length(l);
    for (int i = warp; i < streams * kSamplesAhead; i += kWarps) {
      const int n = i / kSamplesAhead, sample = i % kSamplesAhead, time = t + sample - begin;
      if (sample < begin || sample >= end || time >= p.count) continue;
      char* to = past_of(l, n, sample);
      for (int j = 0; j < p.taps - 1; ++j, to += 2 * p.channels) {
        const float* const from = tap_of(l, n, j, before + sample - begin);
        for (int c = lane; c < p.channels; c += 32) put(to + 2 * c, load_global(from + c));
      }
      const float* const from = p.conditions + (static_cast<long long>(first + n) * p.count + time) * p.condition;
      for (int c = lane; c < p.condition; c += 32) put(to + 2 * c, load_global(from + c));
    }
  }

  // The row that tap j of a layer reads, so many samples behind the one at which its ring is.
  FASTVOC_DEVICE const float* tap_of(int l, int n, int j, int behind) const {
    const int ring = ring_of(l);
    int r = at<int>(p.places.ring)[l * kMostStreamsOfBlock + n] + behind - (p.taps - 1 - j) * p.dilation[l];
    r += r < 0 ? ring : 0;
    r -= r >= ring ? ring : 0;
    return ring_row(n, p.ring_row[l] + r);
  }

  FASTVOC_DEVICE float* ring_row(int n, int r) const { return p.rings + ((first + n) * p.rows + r) * p.channels; }

  FASTVOC_DEVICE float* ahead_of(int l, int sample, int n) const {
    return ahead + ((static_cast<long long>(l) * kSamplesAhead + sample) * p.streams + n) * gate_rows();
  }

  FASTVOC_DEVICE const Vector16* pasts(int l, int tile) const {
    return tiles(p.weights.pasts + l * p.weights.past_layer, tile, p.weights.past_pairs);
  }

  // A row of tiles of what was gathered: from one pair of its columns on, of which the first ones are asked for, to
  // another.
  FASTVOC_DEVICE void look_back(int l, int tile, int from, int to, Vector16 (&asked)[2 * kAsked]) const {
    for (int n = 0; n < streams; n += kTogether) {
      if (n > 0) load_tiles(asked, pasts(l, tile), from, to);
      look_back(l, tile, from, to, asked, n);
    }
  }

  // The same for some streams at once, whose sums need registers.
  FASTVOC_DEVICE void look_back(int l, int tile, int from, int to, Vector16 (&asked)[2 * kAsked], int base) const {
    const int pitch = operand_pitch(p.weights.past_pairs), channel = 8 * tile + row;
    const float* const bias = floats(p.weights.dilated_bias) + l * gate_rows() + 16 * tile + row;
    float sum[kTogether][4];
#pragma unroll
    for (int i = 0; i < kTogether; ++i) {
      if (from > 0) {
#pragma unroll
        for (int j = 0; j < 4; ++j)
          sum[i][j] = base + i < streams ? *sum_ahead(l, tile, base + i, j) : 0;
        continue;
      }
      float upper = load_global(bias), lower = load_global(bias + 8);
      if (p.gates && base + i < streams && channel < p.gated) {
        const float* const added =
            p.gates + (static_cast<long long>(first + base + i) * p.layers + l) * 2 * p.gated + channel;
        upper += load_global(added), lower += load_global(added + p.gated);
      }
      sum[i][0] = sum[i][1] = upper, sum[i][2] = sum[i][3] = lower;
    }
#pragma unroll 1
    for (int k = from; k < to; k += kAsked) {
      if (k > from) load_tiles(asked, pasts(l, tile), k, to);
#pragma unroll
      for (int j = 0; j < kAsked; ++j) {
#pragma unroll
        for (int i = 0; i < kTogether; ++i)
          if (k + j < to && base + i < streams)
            multiply(sum[i], sum[i], asked[2 * j], asked[2 * j + 1], past_of(l, base + i, 0), pitch, k + j);
      }
    }
#pragma unroll
    for (int i = 0; i < kTogether; ++i)
      if (base + i < streams)
#pragma unroll
        for (int j = 0; j < 4; ++j) *sum_ahead(l, tile, base + i, j) = sum[i][j];
  }

  // Of a row of tiles what this thread's sum j becomes, which is of a sample.
  FASTVOC_DEVICE float* sum_ahead(int l, int tile, int n, int j) const {
    return ahead_of(l, column + j % 2, n) + 16 * tile + row + j / 2 * 8;
  }

  // ---- products

  FASTVOC_DEVICE const Vector16* tiles(long long place, int tile, int pairs) const {
    return reinterpret_cast<const Vector16*>(packed + place + static_cast<long long>(tile) * pairs * 2 * kTileBytes);
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

  FASTVOC_DEVICE int residual_tiles(int l) const { return l + 1 == p.layers ? 0 : p.weights.channel_tiles; }

  FASTVOC_DEVICE void describe(Place& job, int kind, int l, int tile) const {
    const RecurrentWeights& w = p.weights;
    job.kind = kind, job.layer = l, job.tile = tile, job.bias = nullptr;
    if (kind == kGates) {
      job.pairs = w.channel_pairs, job.operand = x_of(l);
      job.weights = tiles(l * w.chain_layer, tile, job.pairs);
    } else if (kind == kResidual) {
      job.pairs = w.gated_pairs, job.operand = z_of(l);
      job.weights = tiles(l * w.chain_layer, w.gate_tiles * w.channel_pairs, 1) + tile * job.pairs * 64;
      job.bias = floats(w.residual_bias) + l * 16 * w.channel_tiles;
    } else if (kind == kSkip) {
      job.pairs = w.gated_pairs, job.operand = z_of(l);
      job.weights = tiles(w.skips + l * w.skip_layer, tile, job.pairs);
      if (l == 0) job.bias = floats(w.skip_bias);
    } else if (kind == kHidden) {
      job.pairs = w.skip_pairs, job.operand = at<char>(p.places.skip);
      job.weights = tiles(w.hidden, tile, job.pairs);
      job.bias = floats(w.hidden_bias);
    } else {
      job.pairs = w.hidden_pairs, job.operand = at<char>(p.places.hidden);
      job.weights = tiles(w.output, tile, job.pairs);
      job.bias = floats(w.output_bias);
    }
  }

  // What the sums of a job of sample t begin with.
  FASTVOC_DEVICE void begin_sums(Job& job, int t) const {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int r = 16 * job.tile + row + i / 2 * 8, n = column + i % 2;
      job.sum[i] = job.bias ? load_global(job.bias + r) : 0;
      if (job.kind == kGates && n < streams)
        job.sum[i] = load_global(ahead_of(job.layer, place_in_block(job.layer, t), n) + r);
    }
  }

  // ... and what is added to them, which the step before may have made.
  FASTVOC_DEVICE void add_sums(Job& job) const {
    if (job.kind != kResidual && (job.kind != kSkip || job.layer == 0)) return;
    const float* const sums = at<float>(job.kind == kResidual ? p.places.x_sums : p.places.skip_sums);
#pragma unroll
    for (int i = 0; i < 4; ++i) job.sum[i] += sums[sum_place(job.tile, i)];
  }

  FASTVOC_DEVICE int sum_place(int tile, int i) const {
    return (16 * tile + row + i / 2 * 8) * kMostStreamsOfBlock + column + i % 2;
  }

  // Sums become results; of gates only the upper two. False if the thread keeps them.
  FASTVOC_DEVICE bool finish(Job& job, int t) const {
    if (job.kind == kGates) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const float open = fused(0.5f, hyperbolic_tangent(0.5f * job.sum[2 + i]), 0.5f);
        job.sum[i] = hyperbolic_tangent(job.sum[i]) * open;
      }
      return true;
    }
    const bool keeps = job.kind == kSkip && job.layer + 1 < p.layers;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int r = 16 * job.tile + row + i / 2 * 8, n = column + i % 2;
      float& value = job.sum[i];
      if (job.kind == kResidual) {
        value *= p.residual_scale;
        keep_x(job.layer + 1, r, n, value);
      } else if (keeps) {
        at<float>(p.places.skip_sums)[sum_place(job.tile, i)] = value;
      } else if (job.kind == kOutput) {
        if (p.parameters && n < streams && r < p.outputs)
          p.parameters[(static_cast<long long>(first + n) * p.count + t) * p.outputs + r] = value;
      } else {
        if (job.kind == kSkip) value *= p.skip_scale;
        value = value < 0 ? 0 : value;
      }
    }
    return !keeps;
  }

  FASTVOC_DEVICE Result result_of(const Place& job) const {
    const RecurrentWeights& w = p.weights;
    if (job.kind == kOutput) return {at<char>(p.places.outputs) + 64 * job.tile, 4 * outputs_pitch(), 64};
    if (job.kind == kGates) return {z_of(job.layer) + 16 * job.tile, operand_pitch(w.gated_pairs), 16};
    if (job.kind == kResidual) return {x_of(job.layer + 1) + 32 * job.tile, operand_pitch(w.channel_pairs), 32};
    if (job.kind == kSkip) return {at<char>(p.places.skip) + 32 * job.tile, operand_pitch(w.skip_pairs), 32};
    return {at<char>(p.places.hidden) + 32 * job.tile, operand_pitch(w.hidden_pairs), 32};
  }

  FASTVOC_DEVICE void store(const Job& job, char* to, int pitch) const {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int r = row + i / 2 * 8, n = column + i % 2;
      if (job.kind != kOutput) {
        if (i < 2 || job.kind != kGates) put(to + n * pitch + 2 * r, job.sum[i]);
      } else if (n < streams) {
        reinterpret_cast<float*>(to + n * pitch)[r] = job.sum[i];
      }
    }
  }

  // Channel r of what layer l is given of stream n, as those keep it who add to it and who look back.
  FASTVOC_DEVICE void keep_x(int l, int r, int n, float value) const {
    at<float>(p.places.x_sums)[r * kMostStreamsOfBlock + n] = value;
    if (n < streams && r < p.channels && p.taps > 1 && owns_channel(r))
      ring_row(n, p.ring_row[l] + at<int>(p.places.ring)[l * kMostStreamsOfBlock + n])[r] = value;
  }

  // Whether this block writes a channel to the rings: the one that makes it, as its numbers of jobs say.
  FASTVOC_DEVICE bool owns_channel(int r) const {
    return kAlone || r / 16 % blocks == rank;
  }

  // ---- inputs and draws

  FASTVOC_DEVICE void clear_memory() const {
    for (int i = thread(); i < p.places.weights / 4; i += kThreads) at<unsigned>(0)[i] = 0;
  }

  // What streams are at, and what all layers' first blocks of samples look back at.
  FASTVOC_DEVICE void begin_streams() const {
    for (int i = thread(); i < p.layers * kMostStreamsOfBlock; i += kThreads) {
      const int l = i / kMostStreamsOfBlock, n = i % kMostStreamsOfBlock;
      if (n >= streams || p.taps == 1) continue;
      // without a sign, whatever a caller's memory holds
      const unsigned long long time = static_cast<unsigned long long>(load_global(p.time + first + n));
      at<int>(p.places.ring)[i] = static_cast<int>(time % static_cast<unsigned>(ring_of(l)));
    }
    for (int n = warp; n < streams; n += kWarps) {
      if (lane != 0) continue;
      for (int i = 0; i < p.input_taps; ++i)
        history_of(n)[i] = load_global(p.history + static_cast<long long>(first + n) * p.input_taps + i);
      if (p.forced) push(n, load_global(p.forced + static_cast<long long>(first + n) * p.count));
    }
    for (int l = 0; l < p.layers; ++l) {
      barrier();
      gather(l, 0, 0);
      barrier();
      for (int tile = rank + blocks * warp; tile < p.weights.gate_tiles; tile += blocks * kWarps)
        look_back_whole(l, tile);
    }
  }

  FASTVOC_DEVICE void look_back_whole(int l, int tile) const {
    Vector16 asked[2 * kAsked];
    load_tiles(asked, pasts(l, tile), 0, p.weights.past_pairs);
    look_back(l, tile, 0, p.weights.past_pairs, asked);
  }

  FASTVOC_DEVICE void keep_history() const {
    for (int i = thread(); rank == 0 && i < streams * p.input_taps; i += kThreads)
      p.history[static_cast<long long>(first) * p.input_taps + i] = at<float>(p.places.history)[i];
  }

  FASTVOC_DEVICE float* history_of(int n) const { return at<float>(p.places.history) + n * p.input_taps; }

  FASTVOC_DEVICE void push(int n, float value) const {
    float* const history = history_of(n);
    for (int i = 0; i + 1 < p.input_taps; ++i) history[i] = history[i + 1];
    history[p.input_taps - 1] = value;
  }

  // What the first layer is given, by warp `who` of so many.
  FASTVOC_DEVICE void take_input(int who, int all) const {
    const int width = 16 * p.weights.channel_tiles;
    const bool classes = p.distribution == kClasses;
    for (int n = who; n < kMostStreamsOfBlock; n += all)
      for (int c = lane; c < width; c += 32) {
        float x = n < streams ? load_global(floats(p.weights.input_bias) + c) : 0;
        for (int i = 0; i < p.input_taps && n < streams; ++i) {
          const float given = history_of(n)[i];
          // whatever a caller's memory holds
          const int number = !classes || !(given > 0) ? 0 : given < p.outputs ? static_cast<int>(given) : p.outputs - 1;
          const long long at_row = static_cast<long long>(i) * (classes ? p.outputs : 1) + number;
          x = fused(load_global(floats(p.weights.input) + at_row * width + c), classes ? 1 : given, x);
        }
        put(x_of(0) + n * operand_pitch(p.weights.channel_pairs) + 2 * c, x);
        keep_x(0, c, n, x);
      }
  }

  FASTVOC_DEVICE void draw(int t, int who, int all) const {
    for (int i = 32 * who + lane; i < p.layers * kMostStreamsOfBlock; i += 32 * all) {
      int& at_row = at<int>(p.places.ring)[i];
      at_row = at_row + 1 < ring_of(i / kMostStreamsOfBlock) ? at_row + 1 : 0;
    }
    for (int n = who; n < streams; n += all) {
      const long long item = first + n, sample = item * p.count + t;
      float value = 0;
      if (p.drawn) value = draw_of(n, item, t);
      if (lane != 0) continue;
      if (p.drawn && rank == 0) p.drawn[sample] = value;
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
    float* const parameters = at<float>(p.places.outputs) + n * outputs_pitch();
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
  char* shared;
  const char* packed;
  int warp, lane, row, column;  // row and column: of a tile's sums
  int rank, first, streams;     // rank: among those blocks that make the same streams
  float* const ahead;
};

}  // namespace fastvoc::cuda
