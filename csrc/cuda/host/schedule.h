// Which layers become chains, which operations are launched together, and in which order.
#pragma once

#include <algorithm>

#include "choice.h"

namespace fastvoc::cuda {

inline bool are_alike(const Plan& plan, const Operation& a, const Operation& b) {
  const Line &one = plan.line[a.line], &other = plan.line[b.line];
  // Activations of one launch read rows of one kind: those of the workspace, or of the network's input.
  const int read = a.source[0].line, also_read = b.source[0].line;
  if (a.activates != b.activates || (a.activates && read != also_read && (read < kResults || also_read < kResults)))
    return false;
  return a.columns == b.columns && a.channels == b.channels && a.stride == b.stride && a.crop == b.crop &&
         one.rate == other.rate && one.offset == other.offset && runs_hopper(plan, a) == runs_hopper(plan, b);
}

// What decides how long a block of an operation takes.
inline int64_t slices_of(const Operation& operation) {
  int64_t slices = 0;
  for (int i = 0; i < operation.sources; ++i) slices += int64_t{operation.source[i].taps} * operation.source[i].chunks;
  return slices;
}

// Launches in an order in which all that is read has been written. Operations that are alike and need not wait for each
// other go together, the longest first: what is begun last should end soon.
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
      launch.activates = plan.operation[i].activates;
      std::stable_sort(launch.operation, launch.operation + launch.count, [&](int one, int other) {
        return slices_of(plan.operation[one]) > slices_of(plan.operation[other]);
      });
    }
    for (int p = 0; p < launch.count; ++p) written[plan.operation[launch.operation[p]].line] = true;
  }
}

// What layers cost without chains: their shares of launches.
inline int measure_layers(Draft& draft, Plan& plan, double* alone) {
  make_launches(draft, plan);
  for (int l = 0; l < plan.launches; ++l) {
    const Launch& launch = plan.launch[l];
    if (!choose(plan, launch, kNominal[0].batch, kNominal[0].frames).kernel()) return FASTVOC_BAD_SIZE;
    const double clocks = nominal_clocks(plan, launch);
    if (launch.activates) {
      for (int p = 0; p < launch.count; ++p) alone[launch.operation[p]] = clocks / launch.count;
      continue;
    }
    double slices = 0;
    for (int p = 0; p < launch.count; ++p) slices += double(slices_of(plan.operation[launch.operation[p]]));
    for (int p = 0; p < launch.count; ++p)
      for (int i = 0; i < plan.operation[launch.operation[p]].sources; ++i) {
        const Reading& reading = plan.operation[launch.operation[p]].source[i];
        alone[reading.layer] = clocks * reading.taps * reading.chunks / slices;
      }
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
      const auto breaks = [](const fastvoc_layer& of) { return of.gelu || activates(of); };  // chains have none
      if (breaks(layer) || breaks(draft.network.layers[i])) break;
      if ((from != x && from - kResults < i) || plan.line[from].chunks * chunk_channels(plan.precision) > 64) break;
      if (j - i >= 2 && make_chain(draft, plan, i, j, launch)) {
        const double clocks = nominal_clocks(plan, launch) + least[j];
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
