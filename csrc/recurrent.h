// Which recurrent networks are taken, wherever they run.
#pragma once

#include "fastvoc_recurrent.h"
#include "sizes.h"

namespace fastvoc {

static inline int check_recurrent(const fastvoc_recurrent& network) {
  for (const int64_t count : {network.channels, network.gated, network.skips, network.hidden, network.outputs,
                              network.layers, network.taps, network.input_taps})
    if (!is_count(count)) return FASTVOC_BAD_SIZE;
  if (network.condition < 0 || network.condition > kMostCount) return FASTVOC_BAD_SIZE;
  if (network.taps > kMostTaps || network.input_taps > kMostTaps) return FASTVOC_BAD_SIZE;
  int64_t rows = 0;
  for (int64_t l = 0; l < network.layers; ++l) {
    if (!is_count(network.dilations[l])) return FASTVOC_BAD_SIZE;
    rows += (network.taps - 1) * network.dilations[l];
    if (rows > kMostFrames) return FASTVOC_BAD_SIZE;
  }
  const int64_t gates = 2 * network.gated + 128, columns = network.taps * network.channels + network.condition;
  if (!fits({network.layers, gates, columns + 128}) || !fits({rows, network.channels}) ||
      !fits({network.layers, network.channels + 128, gates}) || !fits({network.layers, network.skips + 128, gates}) ||
      !fits({network.skips + network.condition + 128, network.hidden + 128}) ||
      !fits({network.hidden + 128, network.outputs + 128}) ||
      !fits({network.outputs + network.input_taps, network.channels + 128}))
    return FASTVOC_BAD_SIZE;
  switch (network.distribution) {
    case FASTVOC_CLASSES:
      if (!fits({network.input_taps, network.outputs, network.channels + 128})) return FASTVOC_BAD_SIZE;
      break;
    case FASTVOC_LOGISTICS:
      if (network.outputs % 3 || network.outputs / 3 > kMostLogistics) return FASTVOC_BAD_NETWORK;
      break;
    case FASTVOC_GAUSSIAN:
      if (network.outputs != 2) return FASTVOC_BAD_NETWORK;
      break;
    default:
      return FASTVOC_BAD_NETWORK;
  }
  if (!network.conditions != !network.condition) return FASTVOC_BAD_NETWORK;
  if (network.hidden_condition && !network.condition) return FASTVOC_BAD_NETWORK;
  return FASTVOC_OK;
}

// Whether steps are taken, as far as their numbers say it.
static inline bool steps_fit(const fastvoc_recurrent& network, const fastvoc_steps& steps) {
  return fits({steps.batch, steps.count, network.condition + network.outputs + 1});
}

}  // namespace fastvoc
