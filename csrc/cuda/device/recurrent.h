// What the host tells the kernel that makes one sample after the other. NVRTC reads this too.
//
// A matrix is stored in tiles of 16 rows and 16 columns, as a warp multiplies them: tile after tile of a row of tiles,
// and in each 16 bytes for every lane. Columns are filled up to 32, rows to 16. A tile of gates has eight rows of tanh
// and, below them, the same eight of the sigmoid, so that a thread ends up with both.
//
// A product has eight columns. They are streams, side by side, where samples wait for each other; and eight samples of
// one stream, in the products of what is known ahead.
#pragma once

#include "program.h"

namespace fastvoc::cuda {

enum Distribution { kClasses, kLogistics, kGaussian };  // as FASTVOC_CLASSES and so on

constexpr int kStepWarps = 16;
constexpr int kMostStreamsOfBlock = 8, kSamplesAhead = 8;  // columns of a product
constexpr int kMostDilations = 256;
constexpr int kJobSlots = 2;   // of a warp, for weights on their way
constexpr int kSlotPairs = 4;  // the most that a slot holds
constexpr int kTileBytes = 512;

// Blocks of a cluster that make samples together. Warps come in four groups, two for the chain and two that look back, and
// one more tells the others how far a block is. Were there more warps, threads would have fewer than 168 registers.
constexpr int kClusterBlocks = 8, kGroupWarps = 2, kClusterWarps = 4 * kGroupWarps + 1;
constexpr int kClusterPasts = 2;      // operands of looking back
constexpr int kResultBytes = 8 * 64;  // the most that a row of tiles hands on
constexpr int kPairColumns = 32;  // a pair of neighbouring tiles is what loads of operands serve

FASTVOC_BOTH constexpr int row_tiles(long long rows) { return int((rows + 15) / 16); }
FASTVOC_BOTH constexpr int tile_pairs(long long columns) { return int((columns + kPairColumns - 1) / kPairColumns); }
// Bytes from one column of an operand in shared memory to the next: an odd number of 16 bytes, so that no bank is met
// twice.
FASTVOC_BOTH constexpr int operand_pitch(int pairs) { return pairs * kPairColumns * 2 + 16; }

// Where everything of a network stands in its packed weights. Of each layer its chain, which the next sample waits for:
// the current tap and the residual; then what it does not wait for. Offsets are in bytes.
struct RecurrentWeights {
  int gate_tiles, channel_tiles, skip_tiles, hidden_tiles, output_tiles;    // rows
  int channel_pairs, gated_pairs, skip_pairs, hidden_pairs, past_pairs;     // columns
  long long chain_layer, skips, skip_layer, pasts, past_layer, hidden, output;
  // floats: rows are filled up as those of tiles
  long long input, input_bias, dilated_bias, residual_bias, skip_bias, hidden_bias, output_bias, bytes;
};

// Bytes into the shared memory of a block.
struct RecurrentPlaces {
  int x, z, skip, hidden, past;  // operands: columns of 16 bits; of x and z two, which layers use in turn
  int x_sums, skip_sums;         // floats, [row][column]
  int outputs;                   // floats, [stream][row]
  int largest, runs, chosen;     // of a draw: [stream][lane] twice, and [stream]
  int ring, history;             // [layer][stream] the row of this sample in the layer's ring, and [stream][tap]
  int weights;                   // the chains of the first layers, which stay
  int slots;                     // [slot][warp] first weights of the jobs to come
  int results, barriers;         // of a cluster: [warp][turn] what is handed on, and barriers
};

// A block of a cluster has every eighth of the rows of tiles that a step is made of, and room for as many as any has.
FASTVOC_BOTH constexpr int share_of(int tiles) { return (tiles + kClusterBlocks - 1) / kClusterBlocks; }

// Pairs of tiles of a block: of the hidden matrix and of the whole head, of gates and of a whole layer.
struct RecurrentShares {
  int hidden, head, gates, layer;
};

struct Recurrent {
  const char* packed;
  RecurrentWeights weights;
  RecurrentPlaces places;
  int resident;    // layers whose chains stay in shared memory; in a cluster, with their skips
  int head;        // in a cluster, whether the head stays, in front of layers
  RecurrentShares shares;
  int slot_pairs;  // pairs of tiles that a slot holds, or 0, and then weights are read where they are
  int channels, gated, skips, hidden, outputs, layers, taps, condition, input_taps;
  int distribution;
  float residual_scale, skip_scale, smallest_log_scale;
  int batch, count, streams;  // streams of a block
  long long rows;             // of a stream's rings
  // As in fastvoc_steps, in device memory.
  const long long* time;
  float *rings, *history;
  const float *conditions, *gates, *noise, *temperature, *forced;
  float *drawn, *parameters;
  float* ahead;  // of each block [layer][sample][stream][row]: what gates add up before the current tap
  int dilation[kMostDilations], ring_row[kMostDilations];  // ring_row: where a layer's ring begins among the rows
};

#define FASTVOC_RECURRENTS(kernel) kernel(f16, kFloat16) kernel(bf16, kBfloat16)

}  // namespace fastvoc::cuda
