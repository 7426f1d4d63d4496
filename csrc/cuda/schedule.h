// Which layers become chains, which operations are launched together, and in which order.
#pragma once

#include "chains.h"

namespace fastvoc::cuda {

constexpr int kMostHopperSpan = 256;          // rows: their tiles are higher
constexpr int kMostGroupedColumns = 1 << 14;  // of operations that are launched together: a grid's third extent

// Whether the kernels for architecture 90 take an operation. Their sums may round otherwise than those of the others,
// so that this may not depend on the call.
inline bool runs_hopper(const Plan& plan, const Operation& operation) {
  if (plan.gpu.architecture != 90 || plan.precision == kTfloat32 || operation.columns < 64) return false;
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

inline bool runs_convolution(const Plan& plan, const Launch& launch, const ConvolutionKernel& kernel) {
  const Operation& operation = plan.operation[launch.operation[0]];
  const int64_t span = widest_span(plan, launch);
  return kernel.precision == plan.precision && kernel.hopper == launch.hopper &&
         (operation.columns == 8) == (kernel.columns == 8) &&
         launch.count * panels_of(operation, kernel) <= kMostItems && span <= plan.gpu.shared_per_block / kChunkBytes &&
         convolution_shared_bytes(kernel, int(span)) <= plan.gpu.shared_per_block;
}

// Rows of sums that a result of so many rows takes.
inline int64_t sum_rows(const Operation& operation, int64_t rows) {
  return (rows + operation.crop + operation.stride - 1) / operation.stride;
}

inline const ConvolutionKernel* choose_convolution(const Plan& plan, const Launch& launch, int64_t rows, int64_t batch,
                                                   double* least) {
  const int span = int(widest_span(plan, launch));
  const ConvolutionKernel* best = nullptr;
  for (const ConvolutionKernel& kernel : kConvolutions) {
    if (!runs_convolution(plan, launch, kernel)) continue;
    const Operation& first = plan.operation[launch.operation[0]];
    const int64_t tiles = (sum_rows(first, rows) + kernel.rows - 1) / kernel.rows;
    double slices = 0;
    for (int p = 0; p < launch.count; ++p)
      for (int i = 0; i < plan.operation[launch.operation[p]].sources; ++i) {
        const Reading& reading = plan.operation[launch.operation[p]].source[i];
        slices += double(reading.taps) * reading.chunks;
      }
    const int across = kernel.columns / (kernel.columns < 32 ? kernel.columns : 32);
    const float rate = kernel.hopper
                           ? warpgroup_multiplies_per_clock(plan.gpu.architecture, kernel.columns)
                           : multiplies_per_clock(plan.gpu.architecture, plan.precision, kernel.columns / across,
                                                  kernel.rows / 16 * across / (kernel.threads / 32));
    const double block = kernel.rows * slices / launch.count * chunk_channels(plan.precision) * kernel.columns / rate;
    // Two blocks share the registers of a multiprocessor, unless they hold the most sums.
    const int together = blocks_per_multiprocessor(plan.gpu, kernel.threads, convolution_shared_bytes(kernel, span),
                                                   kernel.hopper && kernel.rows * kernel.columns <= 128 * 128);
    const double clocks = clocks_of(plan.gpu, tiles * batch * launch.count * panels_of(first, kernel), together,
                                    kernel.hopper ? 32 * kEnoughWarps : kernel.threads, block);
    if (best && clocks >= *least) continue;
    best = &kernel;
    *least = clocks;
  }
  return best;
}

inline bool are_alike(const Plan& plan, const Operation& a, const Operation& b) {
  const Line &one = plan.line[a.line], &other = plan.line[b.line];
  return a.columns <= kMostGroupedColumns && a.columns == b.columns && a.channels == b.channels &&
         a.stride == b.stride && a.crop == b.crop && one.rate == other.rate && one.offset == other.offset &&
         runs_hopper(plan, a) == runs_hopper(plan, b);
}

// Launches in an order in which all that is read has been written. Operations that are alike and need not wait for each
// other go together.
inline void make_launches(Draft& draft, Plan& plan) {
  plan.launches = 0;
  bool written[kMaxLayers + kResults] = {true, true}, launched[kMaxLayers] = {};
  for (int i = 0; i < plan.layers; ++i)
    if (draft.segment[i] < 0) plan.operation[i] = operation_of(draft, plan, i);
  const auto is_ready = [&](const Operation& operation) {
    for (int i = 0; i < operation.sources; ++i)
      if (!written[operation.source[i].line]) return false;
    for (int i = 0; i < operation.residuals; ++i)
      if (!written[operation.residual[i].line]) return false;
    return true;
  };
  for (int i = 0; i < plan.layers; ++i) {
    if (launched[i] || draft.absorbed[i]) continue;
    Launch& launch = plan.launch[plan.launches++];
    if (draft.segment[i] >= 0) {
      int end = i;
      while (end < plan.layers && draft.segment[end] == i) launched[end++] = true;
      make_chain(draft, plan, i, end, launch);
    } else {
      launch = {};
      launch.x = launch.added = -1;
      launch.operation[launch.count++] = i;
      launched[i] = true;
      for (int j = i + 1; j < plan.layers && launch.count < kProblems; ++j) {
        if (launched[j] || draft.absorbed[j] || draft.segment[j] >= 0) continue;
        if (!are_alike(plan, plan.operation[i], plan.operation[j]) || !is_ready(plan.operation[j])) continue;
        launch.operation[launch.count++] = j;
        launched[j] = true;
      }
      launch.hopper = runs_hopper(plan, plan.operation[i]);
    }
    for (int p = 0; p < launch.count; ++p) written[plan.operation[launch.operation[p]].line] = true;
  }
}

// Clocks at the nominal size that device memory takes for a line.
inline double line_clocks(const Plan& plan, int line) {
  const Line& of = plan.line[line];
  const double bytes = (of.rate * double{kNominalFrames} + of.offset) * of.chunks * kChunkBytes;
  return bytes / (double(plan.gpu.multiprocessors) * rates_of(plan.gpu.architecture).bytes);
}

inline int64_t nominal_rows(const Plan& plan, const Operation& operation) {
  return plan.line[operation.line].rate * int64_t{int(kNominalFrames)} + plan.line[operation.line].offset;
}

// Clocks of a chain at the nominal size.
inline double nominal_clocks(const Draft& draft, const Plan& plan, const Launch& launch) {
  const Operation& last = plan.operation[launch.operation[launch.count - 1]];
  double clocks = 0;
  const ChainKernel& kernel =
      *choose_chain(plan, launch, sum_rows(last, nominal_rows(plan, last)), kNominalBatch, &clocks);
  clocks /= kNominalBatch;
  double memory =
      line_clocks(plan, last.line) + line_clocks(plan, launch.x) * kernel.rows() / tile_rows(launch, kernel);
  if (launch.added >= 0) memory += line_clocks(plan, launch.added);
  double total = overlapped(memory, clocks) + kLaunchClocks;
  // By itself it would not have been stored.
  if (launch.added >= kResults && is_sum(draft, launch.added - kResults))
    total += line_clocks(plan, launch.added) + kLaunchClocks;
  return total;
}

// What layers cost without chains. One that another one absorbs is neither launched nor stored.
inline int measure_layers(Draft& draft, Plan& plan, double* alone) {
  make_launches(draft, plan);
  double launched[kMaxLayers] = {};
  for (int l = 0; l < plan.launches; ++l)
    for (int p = 0; p < plan.launch[l].count; ++p)
      launched[plan.launch[l].operation[p]] = kLaunchClocks / plan.launch[l].count;
  for (int i = 0; i < plan.layers; ++i) {
    Operation& operation = plan.operation[i];
    Launch launch = {};
    launch.count = 1;
    launch.operation[0] = i;
    launch.hopper = runs_hopper(plan, operation);
    const int sources = operation.sources;
    operation.sources = 1;
    bool runs = false;
    for (const ConvolutionKernel& kernel : kConvolutions) runs = runs || runs_convolution(plan, launch, kernel);
    if (!runs) return FASTVOC_BAD_SIZE;
    double clocks = 0, memory = line_clocks(plan, operation.source[0].line);
    choose_convolution(plan, launch, nominal_rows(plan, operation), kNominalBatch, &clocks);
    operation.sources = sources;
    clocks /= kNominalBatch;
    for (const int from : {draft.network.layers[i].residual, draft.network.layers[i].partial})
      if (adds(from) && !(from >= 0 && draft.absorbed[from])) memory += line_clocks(plan, line_of(from));
    if (!draft.absorbed[i]) memory += line_clocks(plan, operation.line);
    alone[i] = overlapped(memory, clocks) + launched[i];
  }
  for (int i = 0; i < plan.layers; ++i) draft.absorbed[i] = false;
  return FASTVOC_OK;
}

// The cheapest way to cut the layers into chains and single ones.
inline void make_segments(Draft& draft, Plan& plan, const double* alone) {
  double least[kMaxLayers + 1];  // from a layer to the end
  int end[kMaxLayers];           // of what begins with that layer
  least[plan.layers] = 0;
  Launch launch;
  for (int i = plan.layers - 1; i >= 0; --i) {
    least[i] = alone[i] + least[i + 1];
    end[i] = i + 1;
    const int x = line_of(draft.network.layers[i].input);
    for (int j = i + 1; j <= plan.layers && j - i <= kMostChained; ++j) {
      // What no longer run can mend either.
      const fastvoc_layer& layer = draft.network.layers[j - 1];
      const int from = line_of(layer.input);
      if ((from != x && from - kResults < i) || plan.line[from].chunks * chunk_channels(plan.precision) > 64) break;
      if (j - i >= 2 && make_chain(draft, plan, i, j, launch)) {
        const double clocks = nominal_clocks(draft, plan, launch) + least[j];
        if (clocks < least[i]) {
          least[i] = clocks;
          end[i] = j;
        }
        for (int k = i; k < j; ++k) {
          draft.segment[k] = -1;
          draft.absorbed[k] = false;
        }
      }
      if (upsamples(layer)) break;
    }
  }
  for (int i = 0; i < plan.layers; i = end[i])
    for (int k = i; k < end[i] && end[i] - i > 1; ++k) draft.segment[k] = i;
}

}  // namespace fastvoc::cuda
