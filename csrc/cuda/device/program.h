// What the host tells the kernels, in words that both understand. NVRTC reads this too, so it includes nothing.
//
// An operation is
//
//   y = store(tanh?(leaky_relu_after(scale * gelu?(sum of sources + bias + sum of residuals))))
//
// where a source is a convolution of a signal, and an upsampling is a convolution too: row r of it has `stride` rows of
// the result side by side, each of as many columns as the result has channels (kernels of the phases of the stride).
//
// A signal is stored as rows of channels, behind the leaky ReLU of who reads it. Since that can be inverted, one form
// serves all: whoever wants another one multiplies negative values by a factor.
//
// The unit of memory is a chunk of 16 bytes: 8 channels in 16 bits, or 4 in 32. In shared memory a signal stands chunk by
// chunk, [chunk][row], so that a tap of a convolution is a row further on. A *slice* is one chunk of one tap: the sum of
// a convolution runs over slices, [tap][chunk], two at a time.
#pragma once

#if defined(__CUDACC__)
#define FASTVOC_BOTH __host__ __device__
#else
#define FASTVOC_BOTH
#endif

namespace fastvoc::cuda {

enum Precision { kFloat16, kBfloat16, kTfloat32, kPrecisions };
enum Padding { kZero, kReflect, kReplicate };  // as FASTVOC_ZERO and so on

constexpr int kChunkBytes = 16;
constexpr int kSources = 3, kResiduals = 3, kProblems = 3;  // of a convolution; of a launch
constexpr int kBuffers = 4, kSteps = 22;                    // of a chain

FASTVOC_BOTH constexpr int element_bytes(int precision) { return precision == kTfloat32 ? 4 : 2; }
FASTVOC_BOTH constexpr int chunk_channels(int precision) { return kChunkBytes / element_bytes(precision); }

// The multiplication leaves each thread two neighbouring columns of every eight. Columns are so permuted among up to 32
// that a thread ends up with neighbouring channels: 8 of 32, 4 of 16, 2 of 8. Groups of 32 come first, then one of 16,
// then one of 8. Packed weights and biases are in the order of columns.
FASTVOC_BOTH constexpr int group_width(int column, int columns) {
  const int left = columns - column / 32 * 32;
  if (left >= 32) return 32;
  return left >= 16 && column % 32 < 16 ? 16 : 8;
}
FASTVOC_BOTH constexpr int group_begin(int column, int columns) {
  const int begin = column / 32 * 32, left = columns - begin;
  return left >= 32 || left < 16 || column - begin < 16 ? begin : begin + 16;
}
FASTVOC_BOTH constexpr int channel_of(int column, int columns) {
  const int begin = group_begin(column, columns), width = group_width(column, columns), inside = column - begin;
  return begin + inside % 8 / 2 * (width / 4) + inside / 8 * 2 + inside % 2;
}

// Frames of each item of the batch.
struct Lengths {
  const int* items;  // or null, if every item has
  int frames;
};

// Rows of channels in device memory. An item of f frames has f * rate + offset rows (none if that is negative), each
// `row` elements after the one before; items are `item` elements apart.
struct Signal {
  void* data;
  long long item;
  int row, rate, offset;
};

// Row r of a convolution reads rows r - left + tap * dilation of its signal, of `chunks` chunks. Rows before its first
// and behind its last are zero, mirrored, or repeated.
struct Source {
  Signal x;
  const void* weight;  // packed: [slice][column][16 bytes]
  int chunks, taps, dilation, left;
  short front, back;  // Padding
  float factor;       // of negative values that are read
};

struct Residual {
  Signal x;
  float factor;  // of negative values: restores what was stored behind a leaky ReLU
};

// What becomes of a sum. The result is stored behind a leaky ReLU of slope `stored`.
struct Finish {
  const float* bias;  // per column
  float scale, slope_after, stored;
  int tanh, gelu;
};

enum Output { kElements, kFloats, kInt16 };  // how a result is written: as the precision says; float; 32767 * y, rounded

// One operation of any width. Its result has `channels` channels; row r and column c of the sum are row
// r * stride + c / channels - crop and channel c % channels of the result, if it has such a row. Columns from
// stride * channels on are fill, up to 8 columns in all or a multiple of 32. Signals between operations have whole chunks,
// aligned to 16 bytes, with zeros in channels that are fill; what comes from and goes to the user (residuals, y) need not.
// The result may stand in place of a residual, of which each thread reads what it then writes.
struct Convolution {
  Source source[kSources];
  Residual residual[kResiduals];
  Finish finish;
  Signal y;
  int sources, residuals;
  int columns, channels, stride, crop;
  int output;  // Output
  // Of a gate, whose columns are those of 16 gates in every 32, as gated_row says, and whose channels are gates. Its
  // residuals have two halves, in whole chunks with zeros in fill: that of tanh, and so many elements further on that of
  // the sigmoid. Its result is between operations; scale, slopes and tanh do not matter.
  int sigmoid;
};

// blockIdx.x: tile of rows * panels + panel, a panel being as many columns as a block makes; y: item of the batch;
// z: problem. So blocks that read the same rows run at the same time, and the first problem before the others. Problems
// differ in taps and signals, not in shape. Or, where two read the same rows, panels from `second` on are those of the
// second problem, and z is 0; `second` is 0 if there is none such. These may have as many columns as they like.
//
// Kernels whose warpgroups work in turn have a grid of `stay` blocks, each of which makes what others leave to blocks
// of their own: every `stay`-th of as many as there are of `blocks` blockIdx.x, `items` and problems.
struct Convolutions {
  Convolution problem[kProblems];
  Lengths lengths;
  int problems, panels, second;
  int items, blocks, stay;
};

// The row of a gate's weight that is a column of it, counted as all of tanh and then all of the sigmoid, each of so many
// gates as there are columns for.
FASTVOC_BOTH constexpr int gated_row(int column, int columns) {
  const int order = channel_of(column, columns), gate = order / 32 * 16 + order % 32 / 8 * 4 + order % 4;
  return order % 8 / 4 * (columns / 2) + gate;
}

// One operation of a chain: signals are buffers in shared memory, all of the chain's width but for the last steps, and
// the result is a buffer, or the chain's y. A source may be a buffer that the step before wrote. The result may be the
// buffer of a residual (each thread reads what it then writes), but not of a source.
struct ChainSource {
  short buffer, chunks, taps, dilation, left, right;  // left and right: rows of padding that it reads at the ends
  short front, back;
  int weight;  // bytes behind the chain's weights
  float factor;
};

struct ChainResidual {
  int buffer;  // or -1, in the last step: the chain's `added`
  float factor;
};

struct ChainStep {
  ChainSource source[2];
  ChainResidual residual[2];
  short sources, residuals;
  short output;       // a buffer, or -1: y in device memory
  short narrow;       // 8 columns instead of the chain's width; the result of a narrow step has one chunk
  short first, last;  // rows of the tile, first <= r < last, that later steps need
  int bias;           // floats behind the chain's biases
  float scale, slope_after, stored;
  int tanh;
};

// Operations over tiles of rows that stay in shared memory. Row r of a tile is row r - before + tile * rows of the
// signals (blockIdx.x: tile; y: item of the batch).
// Row r, column c of the last step is row r * stride + c / channels - crop, channel c % channels of y.
struct Chain {
  Signal x, y;  // x is loaded into buffer 0; x.data and y.data are in device memory
  const char* weights;
  const float* biases;
  Lengths lengths;
  int rows;         // of a tile that are results
  int before;       // rows of a tile in front of them
  int guard;        // rows in front of and behind every buffer that taps may reach, and that mean nothing
  int x_chunks;     // of x, at most those of the chain's width; the others of buffer 0 are zero
  int buffers, steps;
  int channels, stride, crop;
  int output;       // Output
  ChainStep step[kSteps];
  Signal added;     // residual of the last step that is in device memory: as long as y, in whole chunks; y may replace it
};

// Rows between chunks of a buffer: two more than a multiple of 8, so that the 16-byte stores of a quarter of a warp (two
// rows, four chunks) meet no bank twice.
FASTVOC_BOTH constexpr int chain_pitch(int rows, int guard) { return (rows + 2 * guard + 5) / 8 * 8 + 2; }

// Weights of a chain pass through shared memory in stages of whole slices.
constexpr int kStageBytes = 8192, kStages = 3;
FASTVOC_BOTH constexpr int chain_shared_bytes(int precision, int channels, int rows, int guard, int buffers) {
  return kStages * kStageBytes +
         buffers * (channels / chunk_channels(precision)) * chain_pitch(rows, guard) * kChunkBytes;
}

// On architecture 90a barriers stand behind that, and so many blocks share the registers of a multiprocessor.
constexpr int kChainBarrierBytes = 64;
FASTVOC_BOTH constexpr int hopper_chain_blocks(int channels, int tiles) { return channels * tiles > 64 ? 1 : 2; }

// Kernels, as the host chooses among them. The name is that of the function in the module.
struct ChainKernel {
  const char* name;
  int precision, channels, warps, tiles;  // a warp has `tiles` times 16 rows
  int hopper;                             // by wgmma, on sm_90a only; one more warp brings weights
  FASTVOC_BOTH constexpr int rows() const { return warps * tiles * 16; }
  FASTVOC_BOTH constexpr int threads() const { return 32 * (warps + hopper); }
};
#define FASTVOC_CHAINS(kernel)                                                                     \
  kernel(f16, kFloat16, 8, 8, 8) kernel(f16, kFloat16, 8, 4, 2)                                    \
  kernel(f16, kFloat16, 16, 8, 6) kernel(f16, kFloat16, 16, 4, 4)                                  \
  kernel(f16, kFloat16, 32, 8, 4) kernel(f16, kFloat16, 32, 8, 2)                                  \
  kernel(f16, kFloat16, 48, 8, 3) kernel(f16, kFloat16, 48, 8, 2)                                  \
  kernel(f16, kFloat16, 64, 12, 2) kernel(f16, kFloat16, 64, 8, 2)                                 \
  kernel(bf16, kBfloat16, 8, 8, 8) kernel(bf16, kBfloat16, 8, 4, 2)                                \
  kernel(bf16, kBfloat16, 16, 8, 6) kernel(bf16, kBfloat16, 16, 4, 4)                              \
  kernel(bf16, kBfloat16, 32, 8, 4) kernel(bf16, kBfloat16, 32, 8, 2)                              \
  kernel(bf16, kBfloat16, 48, 8, 3) kernel(bf16, kBfloat16, 48, 8, 2)                              \
  kernel(bf16, kBfloat16, 64, 12, 2) kernel(bf16, kBfloat16, 64, 8, 2)                             \
  kernel(tf32, kTfloat32, 8, 8, 4) kernel(tf32, kTfloat32, 8, 4, 2)                                \
  kernel(tf32, kTfloat32, 16, 8, 4) kernel(tf32, kTfloat32, 16, 4, 4)                              \
  kernel(tf32, kTfloat32, 32, 8, 2) kernel(tf32, kTfloat32, 48, 8, 2) kernel(tf32, kTfloat32, 64, 8, 2)
#define FASTVOC_HOPPER_CHAINS(kernel)                                                              \
  kernel(f16, kFloat16, 16, 8, 4) kernel(f16, kFloat16, 32, 8, 4) kernel(f16, kFloat16, 32, 8, 2)  \
  kernel(f16, kFloat16, 48, 8, 3) kernel(f16, kFloat16, 64, 12, 2) kernel(f16, kFloat16, 64, 8, 2) \
  kernel(bf16, kBfloat16, 16, 8, 4) kernel(bf16, kBfloat16, 32, 8, 4) kernel(bf16, kBfloat16, 32, 8, 2) \
  kernel(bf16, kBfloat16, 48, 8, 3) kernel(bf16, kBfloat16, 64, 12, 2) kernel(bf16, kBfloat16, 64, 8, 2)
#define FASTVOC_CHAIN_ROW(word, precision, channels, warps, tiles) \
  {"chain_" #word "_" #channels "_" #warps "x" #tiles, precision, channels, warps, tiles, 0},
#define FASTVOC_HOPPER_CHAIN_ROW(word, precision, channels, warps, tiles) \
  {"hopper_chain_" #word "_" #channels "_" #warps "x" #tiles, precision, channels, warps, tiles, 1},
// One for all sources of the host, which tell kernels by their place in it.
inline constexpr ChainKernel kChains[] = {FASTVOC_CHAINS(FASTVOC_CHAIN_ROW)
                                       FASTVOC_HOPPER_CHAINS(FASTVOC_HOPPER_CHAIN_ROW)};

// Signals are read in blocks of `kBlockChunks` chunks, of which two are there at once. Weights pass through stages.
constexpr int kBlockChunks = 8, kWeightStages = 3;

// A kernel for architecture 90 of 64 rows has one warpgroup that multiplies, and so little to do for each stage that
// more of them must be on their way.
FASTVOC_BOTH constexpr int hopper_stages(int rows) { return rows == 64 ? 2 * kWeightStages : kWeightStages; }

// How many of its blocks share a multiprocessor: one of them loads or writes while others multiply. A large block has
// it to itself.
FASTVOC_BOTH constexpr int hopper_blocks(int rows, int columns) {
  const int sums = rows * columns;
  return sums > 128 * 128 ? 1 : sums > 128 * 64 ? 2 : sums > 64 * 64 ? 3 : 4;
}

// Where its warpgroups work in turn, the weights of the next one are to be there, too.
constexpr int kStagesInTurn = 2 * kWeightStages;

// A block of a convolution makes `rows` rows of one panel of `columns` columns with `threads` threads.
struct ConvolutionKernel {
  const char* name;
  int precision, rows, columns, threads, hopper, gated;  // hopper: by wgmma, on sm_90a only
  int in_turn;                                           // of these, those whose blocks stay
  FASTVOC_BOTH constexpr int stages() const {
    return in_turn ? kStagesInTurn : hopper ? hopper_stages(rows) : kWeightStages;
  }
};
#define FASTVOC_CONVOLUTIONS(kernel)                                                               \
  kernel(f16, kFloat16, 128, 128, 256) kernel(f16, kFloat16, 64, 64, 128)                          \
  kernel(f16, kFloat16, 128, 32, 128) kernel(f16, kFloat16, 128, 8, 128)                           \
  kernel(bf16, kBfloat16, 128, 128, 256) kernel(bf16, kBfloat16, 64, 64, 128)                      \
  kernel(bf16, kBfloat16, 128, 32, 128) kernel(bf16, kBfloat16, 128, 8, 128)                       \
  kernel(tf32, kTfloat32, 128, 64, 256) kernel(tf32, kTfloat32, 64, 64, 128)                       \
  kernel(tf32, kTfloat32, 128, 32, 128) kernel(tf32, kTfloat32, 128, 8, 128)
#define FASTVOC_HOPPER_CONVOLUTIONS(kernel)                                                              \
  kernel(f16, kFloat16, 256, 128, 384) kernel(f16, kFloat16, 128, 256, 384)                              \
  kernel(f16, kFloat16, 256, 64, 320) kernel(f16, kFloat16, 128, 128, 320) kernel(f16, kFloat16, 128, 64, 320) \
  kernel(f16, kFloat16, 64, 64, 192)                                                                     \
  kernel(bf16, kBfloat16, 256, 128, 384) kernel(bf16, kBfloat16, 128, 256, 384)                          \
  kernel(bf16, kBfloat16, 256, 64, 320) kernel(bf16, kBfloat16, 128, 128, 320) kernel(bf16, kBfloat16, 128, 64, 320) \
  kernel(bf16, kBfloat16, 64, 64, 192)
#define FASTVOC_GATED_CONVOLUTIONS(kernel)                                                   \
  kernel(f16, kFloat16, 128, 128, 256) kernel(f16, kFloat16, 64, 64, 128)                    \
  kernel(bf16, kBfloat16, 128, 128, 256) kernel(bf16, kBfloat16, 64, 64, 128)                \
  kernel(tf32, kTfloat32, 128, 64, 256) kernel(tf32, kTfloat32, 64, 64, 128)
#define FASTVOC_HOPPER_GATED_CONVOLUTIONS(kernel)                                            \
  kernel(f16, kFloat16, 256, 128, 384) kernel(f16, kFloat16, 128, 128, 320)                  \
  kernel(f16, kFloat16, 64, 64, 192)                                                         \
  kernel(bf16, kBfloat16, 256, 128, 384) kernel(bf16, kBfloat16, 128, 128, 320)              \
  kernel(bf16, kBfloat16, 64, 64, 192)
#define FASTVOC_HOPPER_CONVOLUTIONS_IN_TURN(kernel)                               \
  kernel(f16, kFloat16, 128, 128, 384) kernel(f16, kFloat16, 256, 64, 384)    \
  kernel(bf16, kBfloat16, 128, 128, 384) kernel(bf16, kBfloat16, 256, 64, 384)
#define FASTVOC_CONVOLUTION_ROW(word, precision, rows, columns, threads) \
  {"convolution_" #word "_" #rows "x" #columns, precision, rows, columns, threads, 0, 0, 0},
#define FASTVOC_HOPPER_ROW(word, precision, rows, columns, threads) \
  {"hopper_" #word "_" #rows "x" #columns, precision, rows, columns, threads, 1, 0, 0},
#define FASTVOC_GATED_ROW(word, precision, rows, columns, threads) \
  {"gated_" #word "_" #rows "x" #columns, precision, rows, columns, threads, 0, 1, 0},
#define FASTVOC_HOPPER_GATED_ROW(word, precision, rows, columns, threads) \
  {"hopper_gated_" #word "_" #rows "x" #columns, precision, rows, columns, threads, 1, 1, 0},
#define FASTVOC_IN_TURN_ROW(word, precision, rows, columns, threads) \
  {"hopper_in_turn_" #word "_" #rows "x" #columns, precision, rows, columns, threads, 1, 0, 1},
inline constexpr ConvolutionKernel kConvolutions[] = {
    FASTVOC_CONVOLUTIONS(FASTVOC_CONVOLUTION_ROW) FASTVOC_HOPPER_CONVOLUTIONS(FASTVOC_HOPPER_ROW)
        FASTVOC_GATED_CONVOLUTIONS(FASTVOC_GATED_ROW) FASTVOC_HOPPER_GATED_CONVOLUTIONS(FASTVOC_HOPPER_GATED_ROW)
            FASTVOC_HOPPER_CONVOLUTIONS_IN_TURN(FASTVOC_IN_TURN_ROW)};

// Shared memory of a convolution whose sources reach over at most `span` = dilation * (taps - 1) rows beyond their own.
FASTVOC_BOTH constexpr int convolution_pitch(int rows, int span) { return (rows + span + 5) / 8 * 8 + 2; }
FASTVOC_BOTH constexpr int convolution_shared_bytes(const ConvolutionKernel& kernel, int span) {
  return 2 * kBlockChunks * convolution_pitch(kernel.rows, span) * kChunkBytes +
         kernel.stages() * kBlockChunks * kernel.columns * kChunkBytes + 256;  // barriers
}

// Brings a weight of conv1d, (out, in, taps), or of upsample, (in, out, taps), into the order of kernels, and adds a bias
// to what stands there (several sources of an operation share one). One thread per element of the result.
struct Pack {
  const void *weight, *bias;  // contiguous; the bias may be null
  void* packed;               // [slice][columns][chunk]
  float* packed_bias;         // [columns]
  int from;                   // of weight and bias: kFloats, or kElements of the precision
  int precision;
  int upsample, in_channels, out_channels, taps;  // of the layer
  int stride;    // 1 for conv1d; an upsampling has (taps + stride - 1) / stride taps for each of its phases, the earliest
                 // row of x first
  int channels;  // of the result as it is stored, with fill: columns of a phase
  int chunks;    // of the signal that is read
  int columns;   // with fill, and permuted as channel_of(column, columns) says
  int first;     // replaces the bias instead of adding to it
  int gates;     // of a gate, in the order of gated_row; or 0
  int sigmoid_first;  // the rows of the sigmoid come first in the weight
};

// Reads a batch of (channels, frames) with any strides, and writes rows of chunks.
struct Enter {
  const void* x;
  long long item, channel, frame;  // strides in elements
  int from, precision;             // as in Pack
  int channels, chunks, frames, batch;
  Signal y;
  int exact;  // whether float stays float, and is not rounded to TF32
};

}  // namespace fastvoc::cuda
