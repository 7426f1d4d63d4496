// What every plan asks of a layer, on a CPU or on a GPU.
#pragma once

#include "fastvoc_plan.h"
#include "sizes.h"

namespace fastvoc {

// Whether a result, or the network's input, exists in front of a layer and has so many channels.
static inline bool has_result(const fastvoc_network& network, int index, int from, int64_t channels) {
  if (from == FASTVOC_INPUT) return network.layers[0].in_channels == channels;
  return from >= 0 && from < index && network.layers[from].out_channels == channels;
}

static inline int check_shape(const fastvoc_layer& layer) {
  if (!layer.weight) return FASTVOC_BAD_NETWORK;
  if (!is_count(layer.in_channels) || !is_count(layer.out_channels) || !is_count(layer.taps) ||
      !is_count(layer.dilation) || !is_count(layer.stride) || !fits({layer.dilation, layer.taps}) ||
      !weight_fits(layer.in_channels, layer.out_channels, layer.taps + layer.stride))
    return FASTVOC_BAD_SIZE;
  if (layer.left < 0 || layer.right < 0 || layer.padding_mode < FASTVOC_ZERO || layer.padding_mode > FASTVOC_REPLICATE)
    return FASTVOC_BAD_PADDING;
  return FASTVOC_OK;
}

}  // namespace fastvoc
