// Where weights stand in the packed block, and results in the workspace.
#pragma once

#include "schedule.h"

namespace fastvoc::cuda {

inline int64_t weight_bytes(const Reading& reading, int columns) {
  return int64_t{reading.taps} * reading.chunks * columns * kChunkBytes;
}

// Two rows, of the frequency and of what multiplies sin².
inline int64_t snake_weight_bytes(const Operation& operation) {
  return 2 * operation.channels * int64_t{sizeof(float)};
}

inline int make_packed(Plan& plan) {
  plan.packed = 0;
  const auto place = [&](int64_t bytes) {
    const int64_t at = plan.packed;
    plan.packed += round_up(bytes, kLineAlign);
    return at;
  };
  for (int l = 0; l < plan.launches; ++l) {
    Launch& launch = plan.launch[l];
    launch.weights = plan.packed;
    for (int p = 0; p < launch.count; ++p) {
      Operation& operation = plan.operation[launch.operation[p]];
      for (int i = 0; i < operation.sources; ++i)
        operation.source[i].weight = place(operation.activates ? snake_weight_bytes(operation)
                                                               : weight_bytes(operation.source[i], operation.columns));
      if (!fits({plan.packed})) return FASTVOC_BAD_SIZE;
    }
    launch.biases = plan.packed;
    for (int p = 0; p < launch.count; ++p) {
      Operation& operation = plan.operation[launch.operation[p]];
      operation.bias = place(operation.columns * int64_t{sizeof(float)});
    }
  }
  return FASTVOC_OK;
}

// How often a launch reads a line in device memory.
inline int readings_of(const Plan& plan, const Launch& launch, int line) {
  if (launch.chain) return (launch.x == line) + (launch.added == line);
  int readings = 0;
  for (int p = 0; p < launch.count; ++p) {
    const Operation& operation = plan.operation[launch.operation[p]];
    for (int i = 0; i < operation.sources; ++i) readings += operation.source[i].line == line;
    for (int i = 0; i < operation.residuals; ++i) readings += operation.residual[i].line == line;
  }
  return readings;
}

// How long lines are needed. A result stands in place of what is added to it, if nobody else wants that: a thread reads
// of a residual what it then writes.
inline void make_lives(Plan& plan) {
  const int result = plan.layers - 1 + kResults;
  for (int l = 0; l < plan.launches; ++l)
    for (int line = 0; line < plan.layers + kResults; ++line)
      if (readings_of(plan, plan.launch[l], line) > 0) plan.line[line].last = l;
  plan.line[result].last = -1;  // it is in the caller's memory
  for (int l = 0; l < plan.launches; ++l) {
    const Launch& launch = plan.launch[l];
    for (int p = launch.chain ? launch.count - 1 : 0; p < launch.count; ++p) {
      const Operation& operation = plan.operation[launch.operation[p]];
      for (int i = 0; i < operation.residuals; ++i) {
        const int added = operation.residual[i].line;
        if (operation.line != result && added >= kResults && plan.line[added].last == l &&
            readings_of(plan, launch, added) == 1 && (!launch.chain || launch.added == added))
          plan.line[operation.line].instead = added;
      }
    }
  }
}

inline int64_t line_bytes(const Line& line, int64_t batch, int64_t frames) {
  return round_up(batch * rows_of(line, frames) * line.chunks * kChunkBytes, kLineAlign);
}

// Bytes of the workspace, and where each line begins: in the first gap that is large enough between those that are
// still needed.
inline int64_t place_lines(const Plan& plan, int64_t batch, int64_t frames, int64_t* offset) {
  int live[kMaxLayers + kResults], count = 0;  // by offset
  int64_t total = 0;
  for (int l = 0; l < plan.launches; ++l) {
    int left = 0;
    for (int i = 0; i < count; ++i)
      if (plan.line[live[i]].last >= l) live[left++] = live[i];
    count = left;
    const auto place = [&](int line) {
      if (plan.line[line].last < 0) return;
      if (plan.line[line].instead >= 0) {
        int at = 0;
        while (live[at] != plan.line[line].instead) ++at;
        live[at] = line;
        offset[line] = offset[plan.line[line].instead];
        return;
      }
      const int64_t bytes = line_bytes(plan.line[line], batch, frames);
      int at = 0;
      int64_t begin = 0;
      while (at < count && offset[live[at]] - begin < bytes) {
        begin = offset[live[at]] + line_bytes(plan.line[live[at]], batch, frames);
        ++at;
      }
      for (int i = count++; i > at; --i) live[i] = live[i - 1];
      live[at] = line;
      offset[line] = begin;
      if (begin + bytes > total) total = begin + bytes;
    };
    if (l == 0) {
      place(kX);
      if (plan.uses_other) place(kOther);
    }
    const Launch& launch = plan.launch[l];
    for (int p = launch.chain ? launch.count - 1 : 0; p < launch.count; ++p)
      place(plan.operation[launch.operation[p]].line);
  }
  return total;
}

}  // namespace fastvoc::cuda
