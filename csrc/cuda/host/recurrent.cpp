// WaveNets on a GPU: where their weights and a block's memory are, and the launch.
#include <algorithm>
#include <climits>
#include <cstring>

#include "../../recurrent.h"
#include "../device/recurrent.h"
#include "calls.h"
#include "driver.h"
#include "plan.h"

namespace fastvoc::cuda {
namespace {

constexpr int64_t kMostShared = 227 << 10;  // of any GPU's block
constexpr int64_t kMostSteps = 1 << 30;     // of a call, and rows of a stream's rings: kernels count them in 32 bits

int64_t aligned(int64_t bytes) { return (bytes + 15) / 16 * 16; }

RecurrentWeights weights_of(const fastvoc_recurrent& n) {
  RecurrentWeights w = {};
  w.gate_tiles = int((n.gated + 7) / 8);
  w.channel_tiles = row_tiles(n.channels), w.skip_tiles = row_tiles(n.skips);
  w.hidden_tiles = row_tiles(n.hidden), w.output_tiles = row_tiles(n.outputs);
  w.channel_pairs = tile_pairs(n.channels), w.gated_pairs = tile_pairs(n.gated);
  w.skip_pairs = tile_pairs(n.skips), w.hidden_pairs = tile_pairs(n.hidden);
  w.past_pairs = tile_pairs((n.taps - 1) * n.channels + n.condition);
  const auto matrix = [](int64_t tiles, int64_t pairs) { return tiles * pairs * 2 * kTileBytes; };
  w.chain_layer = matrix(w.gate_tiles, w.channel_pairs) + matrix(w.channel_tiles, w.gated_pairs);
  w.skip_layer = matrix(w.skip_tiles, w.gated_pairs);
  w.past_layer = matrix(w.gate_tiles, w.past_pairs);
  int64_t bytes = n.layers * w.chain_layer;
  const auto take = [&](int64_t size) {
    const int64_t begin = bytes;
    bytes += aligned(size);
    return begin;
  };
  const auto floats = [&](int64_t count) { return take(count * int64_t(sizeof(float))); };
  w.skips = take(n.layers * w.skip_layer);
  w.pasts = take(n.layers * w.past_layer);
  w.hidden = take(matrix(w.hidden_tiles, w.skip_pairs));
  w.output = take(matrix(w.output_tiles, w.hidden_pairs));
  w.input = floats(n.input_taps * (n.distribution == FASTVOC_CLASSES ? n.outputs : 1) * 16 * w.channel_tiles);
  w.input_bias = floats(16 * w.channel_tiles);
  w.dilated_bias = floats(n.layers * 16 * w.gate_tiles);
  w.residual_bias = floats(n.layers * 16 * w.channel_tiles);
  w.skip_bias = floats(16 * w.skip_tiles);
  w.hidden_bias = floats(16 * w.hidden_tiles);
  w.output_bias = floats(16 * w.output_tiles);
  w.bytes = bytes;
  return w;
}

// Of a block of so many streams, alone or in a cluster, without weights that stay.
int64_t shared_of(const fastvoc_recurrent& n, const RecurrentWeights& w, int64_t streams, bool cluster,
                  RecurrentPlaces& places) {
  int64_t bytes = 0;
  const auto take = [&](int& place, int64_t size) {
    place = int(std::min(bytes, int64_t{INT_MAX}));
    bytes += aligned(size);
  };
  constexpr int64_t kColumns = kMostStreamsOfBlock, kFloat = sizeof(float);
  take(places.x, 2 * kColumns * operand_pitch(w.channel_pairs));
  take(places.z, 2 * kColumns * operand_pitch(w.gated_pairs));
  take(places.skip, kColumns * operand_pitch(w.skip_pairs));
  take(places.hidden, kColumns * operand_pitch(w.hidden_pairs));
  take(places.past, (cluster ? kClusterPasts : 1) * streams * kSamplesAhead * operand_pitch(w.past_pairs));
  take(places.x_sums, 16 * w.channel_tiles * kColumns * kFloat);
  take(places.skip_sums, 16 * w.skip_tiles * kColumns * kFloat);
  take(places.outputs, streams * 16 * w.output_tiles * kFloat);
  take(places.largest, streams * 32 * kFloat);
  take(places.runs, streams * 32 * kFloat);
  take(places.chosen, streams * kFloat);
  take(places.ring, n.layers * kColumns * kFloat);
  take(places.history, streams * n.input_taps * kFloat);
  if (cluster) {
    take(places.results, 2 * 2 * kGroupWarps * kResultBytes);
    take(places.barriers, 4 * int64_t(sizeof(int64_t)));
  }
  take(places.weights, 0);
  return bytes;
}

// How the streams of a call are divided among blocks, or among clusters of them: each has as few as there are.
struct Division {
  RecurrentWeights weights;
  RecurrentPlaces places = {};
  int64_t streams, blocks, shared, resident, slot_pairs = 0, clusters;
  RecurrentShares shares = {};
  bool head = false;

  Division(const fastvoc_recurrent& network, const fastvoc_gpu& gpu, int64_t batch) : weights(weights_of(network)) {
    const int64_t room = std::min<int64_t>(gpu.shared_per_block, kMostShared);
    const auto divide = [&](int64_t among, bool cluster) {
      streams = std::clamp<int64_t>((batch + among - 1) / among, 1, kMostStreamsOfBlock);
      while (streams > 1 && shared_of(network, weights, streams, cluster, places) > room) --streams;
      shared = shared_of(network, weights, streams, cluster, places);
      return (batch + streams - 1) / streams;
    };
    const int64_t at_once = gpu.multiprocessors / kClusterBlocks;
    const bool asked = gpu.architecture == 90 && gpu.hopper & FASTVOC_HOPPER_CLUSTERS;
    clusters = asked && at_once && network.channels % 8 == 0 ? divide(at_once, true) : 0;
    if (clusters > at_once || shared > room) clusters = 0;
    if (clusters) {
      const RecurrentWeights& w = weights;
      shares.hidden = share_of(w.hidden_tiles) * w.skip_pairs, shares.gates = share_of(w.gate_tiles) * w.channel_pairs;
      shares.head = shares.hidden + share_of(w.output_tiles) * w.hidden_pairs;
      shares.layer = shares.gates + share_of(w.skip_tiles + w.channel_tiles) * w.gated_pairs;
      const auto fits = [&](int64_t pairs) { return (room - shared) / (2 * kTileBytes * pairs); };
      blocks = clusters * kClusterBlocks;
      head = fits(shares.head) > 0;
      if (head) shared += 2 * kTileBytes * shares.head;
      resident = head ? std::min(fits(shares.layer), network.layers) : 0;
      shared += 2 * kTileBytes * resident * shares.layer;
      return;
    }
    blocks = divide(gpu.multiprocessors, false);
    // What stays need not be brought; else there are slots, where copies pass threads by.
    constexpr int kFirstWithCopies = 80;
    slot_pairs = std::min(kSlotPairs, std::max(weights.channel_pairs, weights.gated_pairs));
    int64_t slots = int64_t{kJobSlots} * kStepWarps * slot_pairs * 2 * kTileBytes;
    if (gpu.architecture < kFirstWithCopies || shared + slots > room) slot_pairs = slots = 0;
    resident = std::clamp<int64_t>((room - shared - slots) / weights.chain_layer, 0, network.layers);
    shared += resident * weights.chain_layer;
    places.slots = int(shared);
    shared += slots;
  }

  int64_t ahead_bytes(const fastvoc_recurrent& network) const {
    const int64_t sets = clusters ? clusters : blocks;
    return sets * network.layers * kSamplesAhead * streams * 16 * weights.gate_tiles * int64_t(sizeof(float));
  }
};

// To the nearest, ties to even.
uint16_t narrow(float value, bool bfloat16) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  const uint32_t sign = bits >> 16 & 0x8000;
  const bool number = (bits & 0x7fffffff) <= 0x7f800000;
  if (bfloat16) return uint16_t(number ? (bits + 0x7fff + (bits >> 16 & 1)) >> 16 : 0x7fff);
  bits &= 0x7fffffff;
  if (!number) return 0x7fff;
  if (bits >= 0x47800000) return uint16_t(sign | 0x7c00);
  if (bits >= 0x38800000) return uint16_t(sign | ((bits + 0xfff + (bits >> 13 & 1) - 0x38000000) >> 13));
  float size;  // the unit of subnormal numbers is that of the last bits of a sum with one half
  std::memcpy(&size, &bits, sizeof size);
  size += 0.5f;
  std::memcpy(&bits, &size, sizeof bits);
  return uint16_t(sign | (bits - 0x3f000000));
}

// Rows of tiles, filled up with zeros. Lane l has rows l / 4 and eight below, and columns 2 (l % 4), the one behind it,
// and those eight further on.
template <class Element>
void pack_matrix(char* to, int64_t row_count, int64_t pairs, bool bfloat16, Element element) {
  auto* out = reinterpret_cast<uint16_t*>(to);
  for (int64_t tile = 0; tile < row_count; ++tile)
    for (int64_t k = 0; k < 2 * pairs; ++k)
      for (int lane = 0; lane < 32; ++lane)
        for (int i = 0; i < 8; ++i) {
          const int64_t row = 16 * tile + lane / 4 + i / 2 % 2 * 8, column = 16 * k + lane % 4 * 2 + i % 2 + i / 4 * 8;
          *out++ = narrow(element(row, column), bfloat16);
        }
}

void pack_weights(const fastvoc_recurrent& n, char* packed) {
  const RecurrentWeights w = weights_of(n);
  const bool bfloat16 = n.precision == FASTVOC_BFLOAT16;
  const auto rows = [&](const float* matrix, int64_t count, int64_t columns) {
    return [=](int64_t row, int64_t k) { return row < count && k < columns ? matrix[row * columns + k] : 0.0f; };
  };
  // Row of the dilated convolution, or -1: eight of tanh, then the same eight of the sigmoid.
  const auto gate_row = [&](int64_t row) {
    const int64_t channel = row / 16 * 8 + row % 8;
    return channel < n.gated ? channel + row % 16 / 8 * n.gated : -1;
  };
  auto* const all = reinterpret_cast<float*>(packed + w.input);
  std::fill(all, reinterpret_cast<float*>(packed + w.bytes), 0.0f);
  const auto floats = [&](int64_t place) { return reinterpret_cast<float*>(packed + place); };
  const int64_t past = n.taps - 1, width = 16 * w.channel_tiles;
  for (int64_t l = 0; l < n.layers; ++l) {
    const auto tap = [&](int64_t row, int64_t k, int64_t j) {
      return n.dilated[((l * 2 * n.gated + row) * n.channels + k) * n.taps + j];
    };
    char* const chain = packed + l * w.chain_layer;
    pack_matrix(chain, w.gate_tiles, w.channel_pairs, bfloat16, [&](int64_t row, int64_t k) {
      return gate_row(row) < 0 || k >= n.channels ? 0 : tap(gate_row(row), k, past);
    });
    pack_matrix(chain + w.gate_tiles * w.channel_pairs * 2 * kTileBytes, w.channel_tiles, w.gated_pairs, bfloat16,
                rows(n.residual + l * n.channels * n.gated, n.channels, n.gated));
    pack_matrix(packed + w.skips + l * w.skip_layer, w.skip_tiles, w.gated_pairs, bfloat16,
                rows(n.skip + l * n.skips * n.gated, n.skips, n.gated));
    pack_matrix(packed + w.pasts + l * w.past_layer, w.gate_tiles, w.past_pairs, bfloat16,
                [&](int64_t row, int64_t k) {
                  const int64_t its = gate_row(row), in_condition = k - past * n.channels;
                  if (its < 0 || in_condition >= n.condition) return 0.0f;
                  if (in_condition < 0) return tap(its, k % n.channels, k / n.channels);
                  return n.conditions[(l * 2 * n.gated + its) * n.condition + in_condition];
                });
    for (int64_t row = 0; row < 16 * w.gate_tiles; ++row)
      if (gate_row(row) >= 0)
        floats(w.dilated_bias)[l * 16 * w.gate_tiles + row] = n.dilated_bias[l * 2 * n.gated + gate_row(row)];
    std::copy_n(n.residual_bias + l * n.channels, n.channels, floats(w.residual_bias) + l * width);
  }
  pack_matrix(packed + w.hidden, w.hidden_tiles, w.skip_pairs, bfloat16, rows(n.hidden_weight, n.hidden, n.skips));
  pack_matrix(packed + w.output, w.output_tiles, w.hidden_pairs, bfloat16, rows(n.output, n.outputs, n.hidden));
  const bool classes = n.distribution == FASTVOC_CLASSES;
  const int64_t inputs = n.input_taps * (classes ? n.outputs : 1);
  for (int64_t i = 0; i < inputs; ++i)
    for (int64_t c = 0; c < n.channels; ++c)
      floats(w.input)[i * width + c] = classes ? n.input[i * n.channels + c] : n.input[c * inputs + i];
  std::copy_n(n.input_bias, n.channels, floats(w.input_bias));
  std::copy_n(n.skip_bias, n.skips, floats(w.skip_bias));
  std::copy_n(n.hidden_bias, n.hidden, floats(w.hidden_bias));
  std::copy_n(n.output_bias, n.outputs, floats(w.output_bias));
}

bool can_divide(const fastvoc_gpu* gpu, int64_t batch) {
  constexpr int64_t kMostStreams = 1 << 20;
  return gpu && is_gpu(*gpu) && batch >= 0 && batch <= kMostStreams;
}

}  // namespace
}  // namespace fastvoc::cuda

using namespace fastvoc::cuda;

int64_t fastvoc_cuda_recurrent_shared(const fastvoc_recurrent* network) {
  RecurrentPlaces places;
  return shared_of(*network, weights_of(*network), 1, false, places);
}

int fastvoc_cuda_recurrent_check(const fastvoc_recurrent* network, const fastvoc_gpu* gpu) {
  if (!network || !gpu || !is_gpu(*gpu)) return FASTVOC_BAD_NETWORK;
  constexpr int kFirstWithBfloat16 = 80;
  if (network->precision != FASTVOC_FLOAT16 &&
      (network->precision != FASTVOC_BFLOAT16 || gpu->architecture < kFirstWithBfloat16))
    return FASTVOC_BAD_PRECISION;
  if (const int error = fastvoc::check_recurrent(*network)) return error;
  if (network->first_skip || network->hidden_condition || network->input_scales) return FASTVOC_BAD_NETWORK;
  if (network->layers > kMostDilations || fastvoc_recurrent_rows(network) > kMostSteps) return FASTVOC_BAD_SIZE;
  const int64_t room = std::min<int64_t>(gpu->shared_per_block, kMostShared);
  return fastvoc_cuda_recurrent_shared(network) > room ? FASTVOC_BAD_SIZE : FASTVOC_OK;
}

int64_t fastvoc_cuda_recurrent_clusters(const fastvoc_recurrent* network, const fastvoc_gpu* gpu, int64_t batch) {
  return can_divide(gpu, batch) ? Division(*network, *gpu, batch).clusters : 0;
}

int64_t fastvoc_cuda_recurrent_packed_size(const fastvoc_recurrent* network) { return weights_of(*network).bytes; }

int fastvoc_cuda_recurrent_pack(const fastvoc_recurrent* network, void* packed) {
  pack_weights(*network, static_cast<char*>(packed));
  return FASTVOC_OK;
}

int64_t fastvoc_cuda_recurrent_workspace_size(const fastvoc_recurrent* network, const fastvoc_gpu* gpu, int64_t batch) {
  return can_divide(gpu, batch) ? Division(*network, *gpu, batch).ahead_bytes(*network) : -1;
}

int fastvoc_cuda_recurrent_run(const fastvoc_recurrent* network, const fastvoc_gpu* gpu, void* kernels,
                               const void* packed, const fastvoc_steps* steps, void* workspace, void* stream) {
  if (!kernels) return FASTVOC_NO_DRIVER;
  if (!can_divide(gpu, steps->batch) || !fastvoc::steps_fit(*network, *steps) || steps->count > kMostSteps)
    return FASTVOC_BAD_SIZE;
  if (!steps->drawn && !steps->forced) return FASTVOC_BAD_NETWORK;
  if (!is_aligned(packed, kLineAlign) || !is_aligned(workspace, kLineAlign)) return FASTVOC_BAD_SIZE;
  if (!steps->batch || !steps->count) return FASTVOC_OK;
  const Division division(*network, *gpu, steps->batch);
  Recurrent r = {};
  r.packed = static_cast<const char*>(packed);
  r.weights = division.weights, r.places = division.places;
  r.resident = int(division.resident);
  r.head = division.head, r.shares = division.shares, r.slot_pairs = int(division.slot_pairs);
  r.channels = int(network->channels), r.gated = int(network->gated), r.skips = int(network->skips);
  r.hidden = int(network->hidden), r.outputs = int(network->outputs), r.layers = int(network->layers);
  r.taps = int(network->taps), r.condition = int(network->condition), r.input_taps = int(network->input_taps);
  r.distribution = network->distribution == FASTVOC_CLASSES     ? kClasses
                   : network->distribution == FASTVOC_LOGISTICS ? kLogistics
                                                                : kGaussian;
  r.residual_scale = network->residual_scale, r.skip_scale = network->skip_scale;
  r.smallest_log_scale = network->smallest_log_scale;
  r.batch = int(steps->batch), r.count = int(steps->count), r.streams = int(division.streams);
  r.rows = fastvoc_recurrent_rows(network);
  static_assert(sizeof(long long) == sizeof(int64_t));
  r.time = reinterpret_cast<const long long*>(steps->time);
  r.rings = steps->rings, r.history = steps->history, r.conditions = steps->condition, r.gates = steps->gates;
  r.noise = steps->noise, r.temperature = steps->temperature, r.forced = steps->forced;
  r.drawn = steps->drawn, r.parameters = steps->parameters;
  r.ahead = static_cast<float*>(workspace);
  int row = 0;
  for (int l = 0; l < r.layers; ++l) {
    r.dilation[l] = int(network->dilations[l]), r.ring_row[l] = row;
    row += (r.taps - 1) * r.dilation[l];
  }
  const Kernels& loaded = *static_cast<const Kernels*>(kernels);
  const int precision = network->precision == FASTVOC_BFLOAT16 ? kBfloat16 : kFloat16;
  const bool together = division.clusters > 0;
  void* const kernel = (together ? loaded.recurrent_cluster : loaded.recurrent)[precision];
  const Shape shape = {{unsigned(division.blocks), 1, 1},
                       unsigned(32 * (together ? kClusterWarps : kStepWarps)),
                       unsigned(division.shared),
                       unsigned(together ? kClusterBlocks : 1)};
  return launch(kernel, shape, &r, sizeof r, false, stream) ? FASTVOC_OK : FASTVOC_DRIVER_ERROR;
}
