// Which kernel a launch of a call runs, and how many clocks that is expected to take.
#pragma once

#include <algorithm>

#include "chains.h"
#include "snakes.h"

namespace fastvoc::cuda {

constexpr int kMostHopperSpan = 256;  // rows

// Whether the kernels for architecture 90 take an operation. Their sums may round otherwise than those of the others,
// so that this may not depend on the call.
inline bool runs_hopper(const Plan& plan, const Operation& operation) {
  if (plan.gpu.architecture != 90 || (plan.gpu.hopper & FASTVOC_HOPPER_OFF)) return false;
  if (plan.precision == kTfloat32 || operation.columns < 64 || operation.activates) return false;
  for (int i = 0; i < operation.sources; ++i)
    if (operation.source[i].chunks % 2 != 0 || span_of(operation.source[i]) > kMostHopperSpan) return false;
  return true;
}

inline int64_t widest_span(const Plan& plan, const Launch& launch) {
  int64_t widest = 0;
  for (int p = 0; p < launch.count; ++p) {
    const Operation& operation = plan.operation[launch.operation[p]];
    for (int i = 0; i < operation.sources; ++i)
      if (span_of(operation.source[i]) > widest) widest = span_of(operation.source[i]);
  }
  return widest;
}

inline int panels_of(const Operation& operation, const ConvolutionKernel& kernel) {
  return (operation.columns + kernel.columns - 1) / kernel.columns;
}

// Blocks of a kernel for so many rows of each of `batch` items: of an item and a problem, and of all.
struct Count {
  int64_t blocks, all;
};
inline Count count_blocks(const Plan& plan, const Launch& launch, const ConvolutionKernel& kernel, int64_t sum_rows,
                          int64_t batch) {
  const int64_t tiles = (sum_rows + kernel.rows - 1) / kernel.rows;
  const int64_t blocks = tiles * panels_of(plan.operation[launch.operation[0]], kernel);
  return {blocks, blocks * batch * launch.count};
}

// Blocks that stay are worth it where each has several turns.
constexpr int kFewestTurns = 4;
inline bool takes_turns(const Plan& plan, const Launch& launch, const ConvolutionKernel& kernel, int64_t sum_rows,
                        int64_t batch) {
  const int64_t all = count_blocks(plan, launch, kernel, sum_rows, batch).all;
  return kernel.in_turn && plan.gpu.hopper & FASTVOC_HOPPER_IN_TURN && all <= INT_MAX / 2 &&
         all >= int64_t{kFewestTurns} * plan.gpu.multiprocessors;
}

inline bool runs_convolution(const Plan& plan, const Launch& launch, const ConvolutionKernel& kernel) {
  const Operation& operation = plan.operation[launch.operation[0]];
  const int64_t span = widest_span(plan, launch);
  return kernel.precision == plan.precision && kernel.hopper == launch.hopper &&
         kernel.gated == (operation.gates > 0) &&
         (operation.columns == 8) == (kernel.columns == 8) &&
         span <= plan.gpu.shared_per_block / kChunkBytes &&
         convolution_shared_bytes(kernel, int(span)) <= plan.gpu.shared_per_block;
}

inline int64_t rows_of(const Line& line, int64_t frames) {
  const int64_t rows = frames * line.rate + line.offset;
  return rows > 0 ? rows : 0;
}

// Rows of sums that a result of so many rows takes.
inline int64_t sum_rows(const Operation& operation, int64_t rows) {
  return (rows + operation.crop + operation.stride - 1) / operation.stride;
}

// A problem of a launch as a kernel would run it, with so many blocks.
inline void add_problem(const Plan& plan, const Operation& operation, const ConvolutionKernel& kernel, int together,
                        int64_t count, Blocks& blocks) {
  const int across = kernel.columns / (kernel.columns < 32 ? kernel.columns : 32);
  const float rate = kernel.hopper
                         ? warpgroup_multiplies_per_clock(plan.gpu.architecture, kernel.columns)
                         : multiplies_per_clock(plan.gpu.architecture, plan.precision, kernel.columns / across,
                                                kernel.rows / 16 * across / (kernel.threads / 32));
  const double sums = double(kernel.rows) * kernel.columns, slice = sums * chunk_channels(plan.precision) / rate;
  double multiplies = 0, alone = 0, chunks = 0;
  for (int i = 0; i < operation.sources; ++i) {
    const Reading& reading = operation.source[i];
    multiplies += slice * reading.taps * reading.chunks;
    // No block of signals is there sooner than memory answers.
    const int whole = reading.chunks / kBlockChunks, rest = reading.chunks % kBlockChunks;
    const double tap = slice * reading.taps;
    alone += whole * std::max<double>(tap * kBlockChunks, kFetchClocks);
    if (rest > 0) alone += std::max<double>(tap * rest, kFetchClocks);
    chunks += double(reading.chunks) * (double(reading.taps) * kernel.columns + kernel.rows + double(span_of(reading)));
  }
  const int ends_of = 1 + operation.residuals;
  const double bytes = chunks * kChunkBytes + sums * element_bytes(plan.precision) * ends_of;
  const int finished = operation.gates > 0 ? kGatedSumsPerClock : kSumsPerClock;
  const double port = bytes / kCacheBytesPerClock, ends = kAddedClocks * ends_of + sums / finished;
  // What begins and ends a block is hidden, in part, behind others on its multiprocessor; or all of it, by the next turn.
  const double shown = kernel.in_turn ? std::max(0.0, ends - multiplies) : (together > 1 ? kNotOverlapped : 1) * ends;
  blocks.add(count, (alone > port ? alone : port) + ends, multiplies + shown, bytes);
}

// The fastest kernel for so many rows of each item, or null; beside it memory takes so many clocks.
inline const ConvolutionKernel* choose_convolution(const Plan& plan, const Launch& launch, int64_t rows, int64_t batch,
                                                   double memory, double* least) {
  const int span = int(widest_span(plan, launch));
  const Operation& first = plan.operation[launch.operation[0]];
  const ConvolutionKernel* best = nullptr;
  for (const ConvolutionKernel& kernel : kConvolutions) {
    if (!runs_convolution(plan, launch, kernel)) continue;
    const bool in_turn = takes_turns(plan, launch, kernel, sum_rows(first, rows), batch);
    if (kernel.in_turn && !in_turn) continue;
    const int64_t tiles = (sum_rows(first, rows) + kernel.rows - 1) / kernel.rows;
    const int shared = convolution_shared_bytes(kernel, span);
    const int together = kernel.in_turn  ? 1
                         : kernel.hopper ? blocks_per_multiprocessor(plan.gpu, kernel.threads, shared,
                                                                     hopper_blocks(kernel.rows, kernel.columns))
                                       : blocks_per_multiprocessor(plan.gpu, kernel.threads, shared);
    Blocks blocks;
    for (int p = 0; p < launch.count; ++p)
      add_problem(plan, plan.operation[launch.operation[p]], kernel, together,
                  tiles * batch * panels_of(plan.operation[launch.operation[p]], kernel), blocks);
    const double clocks = clocks_of(plan.gpu, blocks, together,
                                    kernel.hopper ? 32 * kEnoughWarps : kernel.threads, memory);
    // Who asks for turns wants to measure them, whatever the model expects.
    if (best && (best->in_turn != kernel.in_turn ? best->in_turn : clocks >= *least)) continue;
    best = &kernel;
    *least = clocks;
  }
  return best;
}

// Bytes that a launch reads and writes in device memory.
inline double memory_bytes(const Plan& plan, const Launch& launch, int64_t batch, int64_t frames) {
  double bytes = 0;
  const auto add = [&](int line) {
    if (line >= 0)
      bytes += double(batch * rows_of(plan.line[line], frames)) * plan.line[line].chunks * kChunkBytes;
  };
  for (int p = launch.chain ? launch.count - 1 : 0; p < launch.count; ++p) {
    const Operation& operation = plan.operation[launch.operation[p]];
    add(operation.line);
    if (launch.chain) continue;
    for (int i = 0; i < operation.sources; ++i) {
      const bool again = launch.shared && (p > 0 || (i > 0 && operation.source[i].line == operation.source[0].line));
      if (!again) add(operation.source[i].line);
    }
    for (int i = 0; i < operation.residuals; ++i) add(operation.residual[i].line);
  }
  if (launch.chain) {
    add(launch.x);
    add(launch.added);
  }
  return bytes;
}

inline double memory_clocks(const Plan& plan, double bytes) {
  return bytes / (double(plan.gpu.multiprocessors) * rates_of(plan.gpu.architecture).memory);
}

inline SnakeSize snake_size(const Plan& plan, const Launch& launch, int64_t batch, int64_t rows) {
  return {plan.precision, false, batch * launch.count, plan.operation[launch.operation[0]].channels, rows};
}

// The kernel that a launch of a call runs, and how many clocks that takes.
struct Choice {
  const ChainKernel* chain;
  const ConvolutionKernel* convolution;
  const char* activation;  // its name; of these three, two are null
  double clocks;

  // Or null.
  const char* kernel() const { return chain ? chain->name : convolution ? convolution->name : activation; }
};
inline Choice choose(const Plan& plan, const Launch& launch, int64_t batch, int64_t frames) {
  const Operation& last = plan.operation[launch.operation[launch.count - 1]];
  // An item that is too short for this call may be long enough for another one.
  const int64_t rows = std::max<int64_t>(1, rows_of(plan.line[last.line], frames));
  const double memory = memory_clocks(plan, memory_bytes(plan, launch, batch, frames));
  Choice choice = {};
  if (launch.activates) {
    choice.activation = kSnakeNames[plan.precision];
    choice.clocks = snake_clocks(plan.gpu, snake_size(plan, launch, batch, rows));
  } else if (launch.chain) {
    choice.chain = choose_chain(plan, launch, sum_rows(last, rows), batch, memory, &choice.clocks);
  } else {
    choice.convolution = choose_convolution(plan, launch, rows, batch, memory, &choice.clocks);
  }
  choice.clocks += kLaunchClocks;
  return choice;
}

// Clocks of a launch in the calls that plans are made for, of one item in each.
inline double nominal_clocks(const Plan& plan, const Launch& launch) {
  double clocks = 0;
  for (const Nominal& call : kNominal) clocks += choose(plan, launch, call.batch, call.frames).clocks / call.batch;
  return clocks;
}

}  // namespace fastvoc::cuda
