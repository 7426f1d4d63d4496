// Which layers can stay in shared memory from one to the next: their steps, buffers, and the rows that each needs.
#pragma once

#include <climits>

#include "fuse.h"
#include "cost.h"

namespace fastvoc::cuda {

constexpr int kMostChained = 2 * kSteps;  // layers: a step has up to two
constexpr float kMostFill = 1.4f;         // a chain's columns to those that mean something; modelled, see cost.h

inline int64_t span_of(const Reading& reading) { return int64_t{reading.dilation} * (reading.taps - 1); }

// Rows that a source needs in front of its result's, and behind them. Near an end, a mirror shows those of the other
// side.
inline int reach_before(const Reading& reading) {
  const int left = reading.left, right = int(span_of(reading)) - left;
  return reading.back == kReflect && right > left ? right : left;
}
inline int reach_after(const Reading& reading) {
  const int left = reading.left, right = int(span_of(reading)) - left;
  return reading.front == kReflect && left > right ? left : right;
}

// The operation of a chain that makes a line, or -1.
inline int maker_of(const Plan& plan, const Launch& launch, int line) {
  for (int s = 0; s < launch.count; ++s)
    if (plan.operation[launch.operation[s]].line == line) return s;
  return -1;
}

// Its width, and which steps at its end have only 8 columns.
inline bool make_width(Plan& plan, Launch& launch) {
  bool used[kSteps], narrow[kSteps];  // used: by a step that is not narrow, or as a residual
  for (int s = 0; s < launch.count; ++s) used[s] = false;
  int widest = 0;
  for (int s = launch.count - 1; s >= 0; --s) {
    const Operation& operation = plan.operation[launch.operation[s]];
    const int columns = operation.stride * operation.channels;
    const bool last = s == launch.count - 1;
    narrow[s] = columns <= 8 && operation.residuals == 0 && !used[s] && (last || plan.line[operation.line].chunks == 1);
    if (!narrow[s] && columns > widest) widest = columns;
    for (int i = 0; i < operation.sources; ++i) {
      const int line = operation.source[i].line, maker = maker_of(plan, launch, line);
      if (maker >= 0 && !narrow[s]) used[maker] = true;
      const int width = plan.line[line].chunks * chunk_channels(plan.precision);
      if (maker < 0 && width > widest) widest = width;
    }
    for (int i = 0; i < operation.residuals; ++i) {
      const int maker = maker_of(plan, launch, operation.residual[i].line);
      if (maker >= 0) used[maker] = true;
    }
  }
  launch.width = 0;
  for (const ChainKernel& kernel : kChains)
    if (kernel.precision == plan.precision && kernel.channels >= widest &&
        (launch.width == 0 || kernel.channels < launch.width))
      launch.width = kernel.channels;
  if (launch.width == 0) return false;
  for (int s = 0; s < launch.count; ++s) {
    Operation& operation = plan.operation[launch.operation[s]];
    operation.narrow = narrow[s] && launch.width > 8;
    operation.columns = operation.narrow ? 8 : launch.width;
    const int columns = operation.stride * operation.channels;
    if (launch.width > 8 && !operation.narrow && launch.width > kMostFill * columns) return false;
  }
  return true;
}

inline bool make_rows(Plan& plan, Launch& launch) {
  launch.before = launch.after = launch.guard = 0;
  for (int s = 0; s < launch.count; ++s) {
    Operation& operation = plan.operation[launch.operation[s]];
    operation.before = operation.after = 0;
  }
  for (int s = launch.count - 1; s >= 0; --s) {
    const Operation& operation = plan.operation[launch.operation[s]];
    const auto need = [&](int line, int before, int after) {
      before += operation.before;
      after += operation.after;
      const int maker = maker_of(plan, launch, line);
      int& most_before = maker >= 0 ? plan.operation[launch.operation[maker]].before : launch.before;
      int& most_after = maker >= 0 ? plan.operation[launch.operation[maker]].after : launch.after;
      if (before > most_before) most_before = before;
      if (after > most_after) most_after = after;
    };
    for (int i = 0; i < operation.sources; ++i) {
      const Reading& reading = operation.source[i];
      if (span_of(reading) > SHRT_MAX / 4) return false;
      need(reading.line, reach_before(reading), reach_after(reading));
      const int right = int(span_of(reading)) - reading.left;
      for (const int side : {reading.left, right})
        if (side > launch.guard) launch.guard = side;
    }
    // Padding stands in the buffer, so that two cannot want it differently.
    const Reading &one = operation.source[0], &other = operation.source[1];
    if (operation.sources == 2 && one.line == other.line && (one.front != other.front || one.back != other.back) &&
        one.left + one.right > 0 && other.left + other.right > 0)
      return false;
    for (int i = 0; i < operation.residuals; ++i)
      if (operation.residual[i].line != launch.added) need(operation.residual[i].line, 0, 0);
    if (operation.before > launch.before) launch.before = operation.before;
    if (operation.after > launch.after) launch.after = operation.after;
  }
  return true;
}

// A buffer for each line, as long as it is needed. A result may take the place of a residual, but not of a source.
inline bool make_buffers(Plan& plan, Launch& launch) {
  int holds[kBuffers], until[kBuffers];  // a line; the last step that reads it
  for (int b = 0; b < kBuffers; ++b) holds[b] = until[b] = -1;
  const auto last_reader = [&](int line) {
    int last = -1;
    for (int s = 0; s < launch.count; ++s) {
      const Operation& operation = plan.operation[launch.operation[s]];
      for (int i = 0; i < operation.sources; ++i)
        if (operation.source[i].line == line) last = s;
      for (int i = 0; i < operation.residuals; ++i)
        if (operation.residual[i].line == line) last = s;
    }
    return last;
  };
  const auto find = [&](int line) {
    for (int b = 0; b < kBuffers; ++b)
      if (holds[b] == line) return b;
    return -1;
  };
  holds[0] = launch.x;
  until[0] = last_reader(launch.x);
  launch.buffers = 1;
  for (int s = 0; s < launch.count; ++s) {
    Operation& operation = plan.operation[launch.operation[s]];
    bool sources[kBuffers] = {};
    for (int i = 0; i < operation.sources; ++i) {
      operation.source[i].buffer = find(operation.source[i].line);
      sources[operation.source[i].buffer] = true;
    }
    int place = -1;
    for (int i = 0; i < operation.residuals; ++i) {
      const int b = operation.residual[i].buffer = find(operation.residual[i].line);
      if (b >= 0 && until[b] == s && !sources[b]) place = b;
    }
    operation.buffer = -1;
    if (s == launch.count - 1) break;
    for (int b = 0; b < kBuffers && place < 0; ++b)
      if (until[b] < s) place = b;
    if (place < 0) return false;
    operation.buffer = place;
    holds[place] = operation.line;
    until[place] = last_reader(operation.line);
    if (place >= launch.buffers) launch.buffers = place + 1;
  }
  return true;
}

inline int chain_shared(const Plan& plan, const Launch& launch, const ChainKernel& kernel) {
  return chain_shared_bytes(plan.precision, launch.width, kernel.rows(), launch.guard, launch.buffers) +
         kernel.hopper * kChainBarrierBytes;
}

// Whether the kernels for architecture 90a take a chain: its sources are read as they are stored, in pairs of slices.
inline bool runs_hopper_chain(const Plan& plan, const Launch& launch) {
  if (plan.gpu.architecture != 90 || !(plan.gpu.hopper & FASTVOC_HOPPER_CHAINS)) return false;
  for (int s = 0; s < launch.count; ++s) {
    const Operation& operation = plan.operation[launch.operation[s]];
    for (int i = 0; i < operation.sources; ++i) {
      const Reading& reading = operation.source[i];
      const int paired = reading.chunks == 1 ? reading.taps : reading.chunks;
      if (paired % 2 != 0 || reading.factor != 1) return false;
    }
  }
  return true;
}

inline int tile_rows(const Launch& launch, const ChainKernel& kernel) {
  return kernel.rows() - launch.before - launch.after;
}

inline bool runs_chain(const Plan& plan, const Launch& launch, const ChainKernel& kernel) {
  return kernel.precision == plan.precision && kernel.channels == launch.width && kernel.hopper == launch.hopper &&
         tile_rows(launch, kernel) >= 1 && chain_shared(plan, launch, kernel) <= plan.gpu.shared_per_block;
}

// Clocks that one block takes by itself. Rows that are not needed are skipped, by all warps alike.
inline double chain_clocks(const Plan& plan, const Launch& launch, const ChainKernel& kernel) {
  double clocks = 0;
  for (int s = 0; s < launch.count; ++s) {
    const Operation& operation = plan.operation[launch.operation[s]];
    const int64_t rows =
        round_up(tile_rows(launch, kernel) + operation.before + operation.after, kernel.hopper ? 64 : 16);
    const float rate =
        kernel.hopper ? warpgroup_multiplies_per_clock(plan.gpu.architecture, operation.columns)
                      : multiplies_per_clock(plan.gpu.architecture, plan.precision, operation.columns, kernel.tiles);
    double slices = 0;
    for (int i = 0; i < operation.sources; ++i)
      slices += round_up(operation.source[i].taps * operation.source[i].chunks, 2);
    clocks += double(rows) * slices * chunk_channels(plan.precision) * operation.columns / rate;
  }
  return clocks;
}

// Bytes that one block asks the cache for: all weights, and its rows.
inline double chain_bytes(const Plan& plan, const Launch& launch, const ChainKernel& kernel) {
  const int result = plan.operation[launch.operation[launch.count - 1]].line;
  double chunks = double(kernel.rows()) * plan.line[launch.x].chunks;
  chunks += double(tile_rows(launch, kernel)) * plan.line[result].chunks * (launch.added >= 0 ? 2 : 1);
  for (int s = 0; s < launch.count; ++s) {
    const Operation& operation = plan.operation[launch.operation[s]];
    for (int i = 0; i < operation.sources; ++i)
      chunks += double(operation.source[i].taps) * operation.source[i].chunks * operation.columns;
  }
  return chunks * kChunkBytes;
}

// The fastest kernel for so many rows of each item, or null; beside it memory takes so many clocks.
inline const ChainKernel* choose_chain(const Plan& plan, const Launch& launch, int64_t rows, int64_t batch,
                                       double memory, double* least) {
  const ChainKernel* best = nullptr;
  for (const ChainKernel& kernel : kChains) {
    if (!runs_chain(plan, launch, kernel)) continue;
    const int64_t tiles = (rows + tile_rows(launch, kernel) - 1) / tile_rows(launch, kernel);
    const int threads = kernel.threads(),
              shared = chain_shared(plan, launch, kernel),
              together = kernel.hopper ? blocks_per_multiprocessor(plan.gpu, threads, shared,
                                                                   hopper_chain_blocks(kernel.channels, kernel.tiles))
                                       : blocks_per_multiprocessor(plan.gpu, threads, shared);
    const double block = chain_clocks(plan, launch, kernel);
    Blocks blocks;
    blocks.add(tiles * batch, block, block, chain_bytes(plan, launch, kernel));
    const double clocks = clocks_of(plan.gpu, blocks, together, threads, memory);
    if (best && clocks >= *least) continue;
    best = &kernel;
    *least = clocks;
  }
  return best;
}

// The layers from `begin` to `end` as one chain. If they make one, they and their operations are marked as its.
inline bool make_chain(Draft& draft, Plan& plan, int begin, int end, Launch& launch) {
  launch = {};
  launch.chain = 1;
  launch.x = launch.added = -1;
  const auto inside = [&](int line) { return line - kResults >= begin && line - kResults < end; };
  const bool made = [&] {
    for (int i = begin; i < end; ++i) {
      draft.segment[i] = begin;
      draft.absorbed[i] = false;
    }
    for (int i = begin; i < end; ++i) {
      const Line &line = plan.line[i + kResults], &input = plan.line[line_of(draft.network.layers[i].input)];
      const bool last = i == end - 1;
      if (!last && (upsamples(draft.network.layers[i]) || draft.last_reader[i + kResults] >= end ||
                    line.rate != input.rate || line.offset != input.offset))
        return false;
      plan.operation[i] = operation_of(draft, plan, i);
    }
    for (int i = begin; i < end; ++i) {
      if (draft.absorbed[i]) continue;
      if (launch.count == kSteps) return false;
      launch.operation[launch.count++] = i;
      const Operation& operation = plan.operation[i];
      for (int s = 0; s < operation.sources; ++s) {
        const int line = operation.source[s].line;
        if (inside(line)) continue;
        if (launch.x >= 0 && launch.x != line) return false;
        launch.x = line;
      }
    }
    for (int s = 0; s < launch.count; ++s) {
      const Operation& operation = plan.operation[launch.operation[s]];
      if (operation.residuals > 2) return false;
      for (int r = 0; r < operation.residuals; ++r) {
        const int line = operation.residual[r].line;
        if (inside(line) || line == launch.x) continue;
        // Whoever is to be added from device memory is so by the last step, and stored as its kind is.
        if (s < launch.count - 1 || launch.added >= 0 || line == kOther ||
            operation.channels % chunk_channels(plan.precision) != 0)
          return false;
        launch.added = line;
      }
    }
    for (const auto make : {make_width, make_rows, make_buffers})
      if (!make(plan, launch)) return false;
    const auto runs = [&](int hopper) {
      launch.hopper = hopper;
      for (const ChainKernel& kernel : kChains)
        if (runs_chain(plan, launch, kernel)) return true;
      return false;
    };
    return (runs_hopper_chain(plan, launch) && runs(1)) || runs(0);
  }();
  if (!made)
    for (int i = begin; i < end; ++i) {
      draft.segment[i] = -1;
      draft.absorbed[i] = false;
    }
  return made;
}

}  // namespace fastvoc::cuda
