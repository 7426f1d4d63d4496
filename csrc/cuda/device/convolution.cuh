// One operation of any width (see program.h), as a product of matrices: rows of signals, times weights.
//
// A block makes `rows` rows of one panel of `columns` columns. It goes through the channels of its sources in blocks of
// kBlockChunks chunks, and in each of them through the taps: the signal's rows stand in shared memory once, and a tap
// is a row further on. Weights pass through a ring of stages of kBlockChunks slices, whatever taps they belong to. What
// is summed in which order depends on the operation alone, so that all kernels for it give the same bits.
#pragma once

#include "gate.cuh"
#include "instructions.cuh"

namespace fastvoc::cuda {

FASTVOC_DEVICE int rows_of(const Signal& signal, int frames) {
  const int rows = frames * signal.rate + signal.offset;
  return rows > 0 ? rows : 0;
}

FASTVOC_DEVICE int frames_of(const Lengths& lengths, int item) {
  return lengths.items ? load_global(lengths.items + item) : lengths.frames;
}

// Where in the sum of an operation a stage stands.
struct Position {
  int source = -1, chunk = 0;  // where the block of chunks begins
  int chunks = 0, taps = 0;    // of the block; no taps: the end
  int reciprocal = 0;          // of chunks: slice * reciprocal >> 7 is slice / chunks, for up to 15 slices
  int tap = 0, inside = 0;     // of the stage's first slice; chunks are counted inside the block
};

FASTVOC_DEVICE void next_block(const Convolution& operation, Position& position) {
  position.chunk += kBlockChunks;
  if (position.source < 0 || position.chunk >= operation.source[position.source].chunks) {
    position.chunk = 0;
    ++position.source;
  }
  position.tap = position.inside = position.taps = 0;
  if (position.source >= operation.sources) return;
  const Source& source = operation.source[position.source];
  const int chunks = source.chunks - position.chunk;
  position.taps = source.taps;
  position.chunks = chunks < kBlockChunks ? chunks : kBlockChunks;
  position.reciprocal = static_cast<int>(0x1013161a202b4080ull >> (8 * (position.chunks - 1)) & 255);
}

FASTVOC_DEVICE void next_stage(const Convolution& operation, Position& position) {
  const int slices = position.inside + kBlockChunks, taps = slices * position.reciprocal >> 7;
  position.tap += taps;
  position.inside = slices - taps * position.chunks;
  if (position.tap >= position.taps) next_block(operation, position);
}

// Columns from `first` on, of `all`, of the slices of a stage. What is behind the last slice or column is zero. A
// weight has less than 2 GB.
template <int columns, int threads>
FASTVOC_DEVICE void copy_weights(const Source& source, const Position& position, int first, int all, char* stage) {
  static_assert(threads % columns == 0);
  constexpr int step = threads / columns;
  const int begin = thread() / columns, column = first + thread() % columns;
  if (step > kBlockChunks && begin >= kBlockChunks) return;
  const bool real = column < all;
  const int slice_bytes = all * kChunkBytes, source_chunks = source.chunks;
  const char* const weight = static_cast<const char*>(source.weight) + (real ? column : 0) * kChunkBytes;
  stage += thread() * kChunkBytes;
  if (position.chunks == kBlockChunks) {
    const char* const from = weight + (position.tap * source_chunks + position.chunk + begin) * slice_bytes;
#pragma unroll
    for (int i = 0; i < kBlockChunks; i += step) {
      copy_async(stage + i * columns * kChunkBytes, from + i * slice_bytes, real);
    }
    return;
  }
#pragma unroll
  for (int i = 0; i < kBlockChunks; i += step) {
    const int inside = position.inside + begin + i, taps = inside * position.reciprocal >> 7, tap = position.tap + taps;
    const int slice = tap < position.taps ? tap * source_chunks + position.chunk + inside - taps * position.chunks : 0;
    copy_async(stage + i * columns * kChunkBytes, weight + slice * slice_bytes, real && tap < position.taps);
  }
}

// Which chunk of a block and which row a thread copies: eight neighbours two rows of four chunks, which meet no bank
// twice, and thirty-two four rows of all.
FASTVOC_DEVICE int copied_chunk() { return thread() % 4 + thread() / 8 % 2 * 4; }
FASTVOC_DEVICE int copied_row() { return thread() / 4 % 2 + thread() / 16 % 2 * 2 + thread() / 32 * 4; }

// The rows from `begin` on of a block of chunks. A chunk of zeros follows an odd number of them.
template <int threads>
FASTVOC_DEVICE void copy_signal(const Source& source, const Position& position, int precision, int item, int frames,
                                int begin, int rows, int pitch, char* tile) {
  const int chunks = position.chunks, mine = copied_chunk();
  if (mine >= chunks + chunks % 2) return;
  const long long element = element_bytes(precision), row_bytes = source.x.row * element;
  const char* x =
      static_cast<const char*>(source.x.data) + item * source.x.item * element + (position.chunk + mine) * kChunkBytes;
  const int length = rows_of(source.x, frames), last = length - 1;
  for (int row = copied_row(); row < rows; row += threads / 8) {
    int at = begin + row;
    bool real = true;
    if (at < 0) {
      real = source.front != kZero;
      at = source.front == kReflect ? -at : 0;
    } else if (at > last) {
      real = source.back != kZero;
      at = source.back == kReflect ? 2 * last - at : last;
    }
    // Rows that nobody needs may be mirrored to where there is nothing.
    at = at < last ? at : last;
    at = at > 0 ? at : 0;
    real = real && mine < chunks && length > 0;
    copy_async(tile + (mine * pitch + row) * kChunkBytes, mine < chunks ? x + at * row_bytes : x, real);
  }
}

// Multiply the negative values of what this thread has copied.
template <int precision, int threads>
FASTVOC_DEVICE void restore_signal(float factor, const Position& position, int rows, int pitch, char* tile) {
  if (copied_chunk() >= position.chunks) return;
  for (int row = copied_row(); row < rows; row += threads / 8) {
    Vector16& elements = *reinterpret_cast<Vector16*>(tile + (copied_chunk() * pitch + row) * kChunkBytes);
    for (unsigned& word : elements.word) {
      if constexpr (precision == kTfloat32) {
        const float value = as_float(word);
        word = as_bits(value < 0 ? round_tf32(value * factor) : value);
      } else {
        float low, high;
        unpack_pair<precision>(word, low, high);
        word = pack_pair<precision>(low < 0 ? low * factor : low, high < 0 ? high * factor : high);
      }
    }
  }
}

// Neighbouring elements, as words.
template <int words>
FASTVOC_DEVICE void load_words(unsigned (&word)[words], const char* from) {
  if constexpr (words % 4 == 0) {
#pragma unroll
    for (int i = 0; i < words; i += 4) {
      const Vector16 four = load_global(reinterpret_cast<const Vector16*>(from) + i / 4);
#pragma unroll
      for (int j = 0; j < 4; ++j) word[i + j] = four.word[j];
    }
  } else {
#pragma unroll
    for (int i = 0; i < words; ++i) word[i] = load_global(reinterpret_cast<const unsigned*>(from) + i);
  }
}

template <int words>
FASTVOC_DEVICE void store_words(char* to, const unsigned (&word)[words]) {
  if constexpr (words % 4 == 0) {
#pragma unroll
    for (int i = 0; i < words; i += 4) {
      *(reinterpret_cast<Vector16*>(to) + i / 4) = Vector16{{word[i], word[i + 1], word[i + 2], word[i + 3]}};
    }
  } else {
#pragma unroll
    for (int i = 0; i < words; ++i) *(reinterpret_cast<unsigned*>(to) + i) = word[i];
  }
}

FASTVOC_DEVICE int to_int16(float value) {
  const int rounded = to_int(32767 * value);
  return rounded < -32768 ? -32768 : rounded > 32767 ? 32767 : rounded;
}

template <int precision>
FASTVOC_DEVICE float load_element(const char* from) {
  if constexpr (precision == kTfloat32) {
    return load_global(reinterpret_cast<const float*>(from));
  } else {
    float value, nothing;
    unpack_pair<precision>(load_global(reinterpret_cast<const unsigned short*>(from)), value, nothing);
    return value;
  }
}

template <int precision>
FASTVOC_DEVICE void store_element(char* to, float value, int output) {
  if (output == kInt16) {
    *reinterpret_cast<short*>(to) = static_cast<short>(to_int16(value));
  } else if (output == kFloats) {
    *reinterpret_cast<float*>(to) = value;
  } else if constexpr (precision == kTfloat32) {
    *reinterpret_cast<float*>(to) = round_tf32(value);
  } else {
    *reinterpret_cast<unsigned short*>(to) = static_cast<unsigned short>(pack_pair<precision>(value, 0));
  }
}

template <int precision>
FASTVOC_DEVICE int output_bytes(int output) {
  return output == kInt16 ? 2 : output == kFloats ? 4 : element_bytes(precision);
}

FASTVOC_DEVICE float leaky(float value, float slope) { return value < 0 ? value * slope : value; }

// The exact GELU, to 4e-7 of one: max(x, 0) - a P(a) with a = |x| and P(a) the normal distribution beyond a, whose
// logarithm is nearly a parabola: the polynomial is csrc/cpu/kernels/gelu.h's. Beyond 9 it is 1e-18.
FASTVOC_DEVICE float gelu(float value) {
  float a = value < 0 ? -value : value;
  a = a > 9 ? 9 : a;
  float exponent = fused(a, 2.5761821120795503e-7f, -5.717304247809807e-6f);
  exponent = fused(exponent, a, 5.109415724291466e-5f);
  exponent = fused(exponent, a, -2.0473809854593128e-4f);
  exponent = fused(exponent, a, -1.400091132381931e-4f);
  exponent = fused(exponent, a, 7.1109686978161335e-3f);
  exponent = fused(exponent, a, -5.2556417882442474e-2f);
  exponent = fused(exponent, a, -4.59176629781723e-1f);
  exponent = fused(exponent, a, -1.1511120796203613f);
  exponent = fused(exponent, a, -9.999995827674866e-1f);
  return fused(-a, quick_power_of_two(exponent), value > 0 ? value : 0);
}

// The GELU of sums. Little code and few registers matter more here than time: sums move up, so that the first ones are
// always next.
template <int eights>
FASTVOC_DEVICE void gelu_group(float (&sum)[eights][4]) {
#pragma unroll 1
  for (int eight = 0; eight < eights; ++eight) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float made = gelu(sum[0][i]);
#pragma unroll
      for (int j = 0; j + 1 < eights; ++j) sum[j][i] = sum[j + 1][i];
      sum[eights - 1][i] = made;
    }
  }
}
template <int tiles, int eights>
FASTVOC_DEVICE void gelu_tiles(float (&sum)[tiles][eights][4]) {
#pragma unroll 1
  for (int tile = 0; tile < tiles; ++tile) {
    gelu_group(sum[0]);
#pragma unroll
    for (int i = 0; i < eights * 4; ++i) {
      const float made = sum[0][i / 4][i % 4];
#pragma unroll
      for (int k = 0; k + 1 < tiles; ++k) sum[k][i / 4][i % 4] = sum[k + 1][i / 4][i % 4];
      sum[tiles - 1][i / 4][i % 4] = made;
    }
  }
}

FASTVOC_DEVICE float finished(const Finish& finish, float value) {
  if (finish.gelu) value = gelu(value);
  value = leaky(value * finish.scale, finish.slope_after);
  if (finish.tanh) value = hyperbolic_tangent(value);
  return leaky(value, finish.stored);
}

// Whether all runs of `width` channels of a signal can be read or written whole.
FASTVOC_DEVICE bool in_runs(const Signal& signal, int bytes, int width) {
  const int mask = width * bytes < 16 ? width * bytes - 1 : 15;
  return ((reinterpret_cast<unsigned long long>(signal.data) | static_cast<unsigned long long>(signal.item * bytes) |
           static_cast<unsigned long long>(signal.row) * bytes) &
          mask) == 0;
}

template <int precision, int width>
FASTVOC_DEVICE bool in_runs(const Convolution& operation) {
  bool all = operation.channels % width == 0 && in_runs(operation.y, output_bytes<precision>(operation.output), width);
#pragma unroll 1
  for (int i = 0; i < operation.residuals; ++i) {
    all = all && in_runs(operation.residual[i].x, element_bytes(precision), width);
  }
  return all;
}

// Where element `channel` of a row of a signal is.
FASTVOC_DEVICE char* element_of(const Signal& signal, int bytes, int item, int row, int channel) {
  return static_cast<char*>(signal.data) +
         (item * signal.item + static_cast<long long>(row) * signal.row + channel) * bytes;
}

// A group of up to 32 columns, as a warp has summed them: thread t has rows t / 4 and t / 4 + 8 of every tile of 16
// rows, and columns 2 * (t % 4) and the next one of every eight, which are neighbouring channels. `row` is the thread's
// first one, and `column` its first column in the order of channels. Biases are in the sums. `rows` are those of the
// result.

// What most operations end with: whole runs of elements (or floats, where those are as large).
template <int precision, int tiles, int eights>
FASTVOC_DEVICE void write_runs(const Convolution& operation, int item, int rows, int row, int column,
                               float (&sum)[tiles][eights][4]) {
  constexpr int runs = 2 * tiles, words = 2 * eights * element_bytes(precision) / 4, element = element_bytes(precision);
  const int phase = column / operation.channels, channel = column - phase * operation.channels;
  if (phase >= operation.stride) return;
  const int stride = operation.stride, first = row * stride + phase - operation.crop;
  // What is outside of the result reads something inside of it.
  const auto inside = [&](int run) { return first + 8 * run * stride >= 0 && first + 8 * run * stride < rows; };

#pragma unroll 1
  for (int i = 0; i < operation.residuals; ++i) {
    const Residual& residual = operation.residual[i];
    const float factor = residual.factor;
    const char* const x = element_of(residual.x, element, item, 0, channel);
    const long long row_bytes = residual.x.row * element;
    unsigned word[runs][words];
#pragma unroll
    for (int run = 0; run < runs; ++run) {
      load_words(word[run], x + (inside(run) ? first + 8 * run * stride : 0) * row_bytes);
    }
#pragma unroll
    for (int run = 0; run < runs; ++run) {
#pragma unroll
      for (int j = 0; j < eights; ++j) {
        float low, high;
        if constexpr (precision == kTfloat32) {
          low = as_float(word[run][2 * j]), high = as_float(word[run][2 * j + 1]);
        } else {
          unpack_pair<precision>(word[run][j], low, high);
        }
        sum[run / 2][j][run % 2 * 2] += leaky(low, factor);
        sum[run / 2][j][run % 2 * 2 + 1] += leaky(high, factor);
      }
    }
  }

  if (operation.finish.gelu) gelu_tiles(sum);
  const float scale = operation.finish.scale, slope_after = operation.finish.slope_after,
              stored = operation.finish.stored;
  char* const y = element_of(operation.y, element, item, 0, channel);
  const long long row_bytes = operation.y.row * element;
  [[maybe_unused]] const bool exact = operation.output == kFloats;
#pragma unroll
  for (int run = 0; run < runs; ++run) {
    unsigned word[words];
#pragma unroll
    for (int j = 0; j < eights; ++j) {
      float* const pair = &sum[run / 2][j][run % 2 * 2];
      const float low = leaky(leaky(pair[0] * scale, slope_after), stored);
      const float high = leaky(leaky(pair[1] * scale, slope_after), stored);
      if constexpr (precision == kTfloat32) {
        word[2 * j] = as_bits(exact ? low : round_tf32(low)),
                 word[2 * j + 1] = as_bits(exact ? high : round_tf32(high));
      } else {
        word[j] = pack_pair<precision>(low, high);
      }
    }
    if (inside(run)) store_words(y + (first + 8 * run * stride) * row_bytes, word);
  }
}

// One by one, for all other results.
template <int precision, int width>
FASTVOC_DEVICE void write_singly(const Convolution& operation, int item, int rows, int row, int column,
                                 const float (&sum)[width]) {
#pragma unroll
  for (int j = 0; j < width; ++j) {
    const int phase = (column + j) / operation.channels, channel = column + j - phase * operation.channels;
    const int at = row * operation.stride + phase - operation.crop;
    if (at < 0 || at >= rows || phase >= operation.stride) continue;
    float value = sum[j];
#pragma unroll 1
    for (int i = 0; i < operation.residuals; ++i) {
      const Residual& residual = operation.residual[i];
      const char* const x = element_of(residual.x, element_bytes(precision), item, at, channel);
      value += leaky(load_element<precision>(x), residual.factor);
    }
    store_element<precision>(element_of(operation.y, output_bytes<precision>(operation.output), item, at, channel),
                             finished(operation.finish, value), operation.output);
  }
}

// The biases of a group whose first column is `column`. Columns that the operation does not have get any: nobody writes
// them.
template <int tiles, int eights>
FASTVOC_DEVICE void add_biases(const Convolution& operation, int column, float (&sum)[tiles][eights][4]) {
  column = column < operation.columns ? column : 0;
#pragma unroll
  for (int i = 0; i < 2 * eights; ++i) {
    const float bias = load_global(operation.finish.bias + column + i / 2 * 8 + 2 * (thread() % 4) + i % 2);
#pragma unroll
    for (int tile = 0; tile < tiles; ++tile) {
      sum[tile][i / 2][i % 2] += bias;
      sum[tile][i / 2][2 + i % 2] += bias;
    }
  }
}

// All rows of a group, from `row` on, and all of its columns.
template <int precision, int tiles, int eights>
FASTVOC_DEVICE void write_tiles(const Convolution& operation, int item, int rows, int row, int column,
                                float (&sum)[tiles][eights][4]) {
  if (column >= operation.columns) return;
  constexpr int width = 2 * eights;
  row += thread() % 32 / 4;
  column += thread() % 4 * width;

  const bool elements = operation.output == kElements || (operation.output == kFloats && precision == kTfloat32);
  if (elements && !operation.finish.tanh && in_runs<precision, width>(operation)) {
    write_runs<precision>(operation, item, rows, row, column, sum);
    return;
  }
  // Little code matters more here than time: sums move up, so that the first ones are always next.
#pragma unroll 1
  for (int run = 0; run < 2 * tiles; ++run) {
    float value[width];
#pragma unroll
    for (int j = 0; j < width; ++j) value[j] = sum[0][j / 2][j % 2];
    write_singly<precision>(operation, item, rows, row + 8 * run, column, value);
#pragma unroll
    for (int j = 0; j < width; ++j) {
#pragma unroll
      for (int k = 0; k + 1 < 2 * tiles; ++k) {
        sum[k / 2][j / 2][k % 2 * 2 + j % 2] = sum[(k + 1) / 2][j / 2][(k + 1) % 2 * 2 + j % 2];
      }
    }
  }
}

// Two slices: `signal` and `weight` are the rows whose addresses this lane gives.
template <int precision, int tiles, int eights>
FASTVOC_DEVICE void multiply_slices(float (&sum)[tiles][eights][4], const char* signal, const char* weight) {
  unsigned a[tiles][4], b[eights][2];
#pragma unroll
  for (int i = 0; i < tiles; ++i) load_matrices(a[i], signal + i * 16 * kChunkBytes);
  if constexpr (eights == 1) {
    load_matrices(b[0], weight);
  } else {
#pragma unroll
    for (int j = 0; j < eights; j += 2) {
      unsigned both[4];
      load_matrices(both, weight + j * 8 * kChunkBytes);
      b[j][0] = both[0], b[j][1] = both[1];
      b[j + 1][0] = both[2], b[j + 1][1] = both[3];
    }
  }
#pragma unroll
  for (int i = 0; i < tiles; ++i) {
#pragma unroll
    for (int j = 0; j < eights; ++j) multiply_add<precision>(sum[i][j], a[i], b[j]);
  }
}

// Which panel of which problem a block makes.
struct Panel {
  int problem, number;
};
FASTVOC_DEVICE Panel panel_of(const Convolutions& launch, int block) {
  const int number = block % launch.panels;
  const bool second = launch.second > 0 && number >= launch.second;
  return {block_z() + second, second ? number - launch.second : number};
}

template <int precision, int rows, int columns, int threads, bool gated = false>
FASTVOC_DEVICE void convolution(const Convolutions& launch) {
  if constexpr (!kMultiplies<precision>) {
    trap();
    return;
  }
  constexpr int width = columns < 32 ? columns : 32, across = columns / width;  // of a warp; warps side by side
  constexpr int tiles = rows / 16 / (threads / 32 / across), eights = width / 8;
  constexpr int stage_bytes = kBlockChunks * columns * kChunkBytes;
  static_assert(columns % width == 0 && tiles * 16 * (threads / 32) == rows * across);

  let_next_kernel_begin();
  const Panel panel = panel_of(launch, block_x());
  const Convolution& operation = launch.problem[panel.problem];
  const int first_column = panel.number * columns, first_row = block_x() / launch.panels * rows;
  const int item = block_y();
  const int warp = thread() / 32, lane = thread() % 32;
  const int warp_row = warp / across * tiles * 16, warp_column = warp % across * width;

  int span = 0;
  for (int i = 0; i < operation.sources; ++i) {
    const int reach = operation.source[i].dilation * (operation.source[i].taps - 1);
    span = reach > span ? reach : span;
  }
  const int pitch = convolution_pitch(rows, span), block_bytes = kBlockChunks * pitch * kChunkBytes;
  char* const stages = shared_memory();
  char* const blocks = stages + kWeightStages * stage_bytes;

  // What comes next: of weights, two stages ahead of what is multiplied; of signals, a block ahead.
  Position weights, signals, here;
  next_block(operation, weights);
  signals = here = weights;
  const int all_columns = operation.columns;
  int free_stage = 0, stage = 0, free_block = 0, block = 0, frames = 0;
  const auto fetch_weights = [&] {
    if (weights.taps == 0) return;
    copy_weights<columns, threads>(operation.source[weights.source], weights, first_column, all_columns,
                                   stages + free_stage);
    next_stage(operation, weights);
    free_stage = free_stage < (kWeightStages - 1) * stage_bytes ? free_stage + stage_bytes : 0;
  };
  const auto fetch_signal = [&] {
    if (signals.taps == 0) return;
    const Source& source = operation.source[signals.source];
    copy_signal<threads>(source, signals, precision, item, frames, first_row - source.left,
                         rows + source.dilation * (source.taps - 1), pitch, blocks + free_block);
    next_block(operation, signals);
    free_block = block_bytes - free_block;
  };

  fetch_weights();
  wait_for_previous_kernel();
  frames = frames_of(launch.lengths, item);
  const int result_rows = rows_of(operation.y, frames);
  if (first_row * operation.stride - operation.crop >= result_rows) {
    // What is on its way must not arrive in the memory of another block.
    commit_copies();
    wait_for_copies<0>();
    return;
  }
  fetch_signal();
  commit_copies();
  for (int i = 1; i < kWeightStages - 1; ++i) {
    fetch_weights();
    commit_copies();
  }

  // The rows of a tap, and the columns of a slice, that this lane gives the addresses of.
  const int half = lane / 16;
  const char* const own_rows = blocks + (half * pitch + warp_row + lane % 16) * kChunkBytes;
  const char* const own_columns =
      stages + (lane / 8 % 2 * columns + warp_column + lane % 8 + (eights > 1 ? half * 8 : 0)) * kChunkBytes;
  constexpr int steps = kBlockChunks / 2;

  float sum[tiles][eights][4] = {};
  int tap_bytes = 0;
  bool soon = false;  // the block of signals was asked for only a stage ago
  while (here.taps > 0) {
    const bool begins = here.tap == 0 && here.inside == 0;
    if (soon) {
      wait_for_copies<0>();
    } else {
      wait_for_copies<kWeightStages - 2>();
    }
    if (begins) {
      const Source& source = operation.source[here.source];
      tap_bytes = source.dilation * kChunkBytes;
      if (source.factor != 1) {
        restore_signal<precision, threads>(source.factor, here, rows + source.dilation * (source.taps - 1), pitch,
                                           blocks + block);
      }
    }
    barrier();
    fetch_weights();
    if (begins) fetch_signal();
    commit_copies();

    const int left = (here.taps - here.tap) * here.chunks - here.inside;
    const char* const weight = own_columns + stage;
    const char* const signal = own_rows + block;
    const auto slices = [&](int step) {
      const int inside = here.inside + 2 * step + half, taps = inside * here.reciprocal >> 7, tap = here.tap + taps;
      // Behind the last slice of an odd number, a chunk of zeros.
      const int chunk = tap < here.taps ? inside - taps * here.chunks : here.chunks;
      return signal + (chunk - half) * pitch * kChunkBytes + (tap < here.taps ? tap * tap_bytes : 0);
    };
    if (left >= kBlockChunks - 1) {
      const char* from[steps];
      if (here.chunks == kBlockChunks) {
#pragma unroll
        for (int step = 0; step < steps; ++step) {
          from[step] = signal + here.tap * tap_bytes + 2 * step * pitch * kChunkBytes;
        }
      } else {
#pragma unroll
        for (int step = 0; step < steps; ++step) from[step] = slices(step);
      }
#pragma unroll
      for (int step = 0; step < steps; ++step) {
        multiply_slices<precision>(sum, from[step], weight + 2 * step * columns * kChunkBytes);
      }
    } else {
#pragma unroll 1
      for (int step = 0; 2 * step < left; ++step) {
        multiply_slices<precision>(sum, slices(step), weight + 2 * step * columns * kChunkBytes);
      }
    }

    stage = stage < (kWeightStages - 1) * stage_bytes ? stage + stage_bytes : 0;
    soon = begins && left <= kBlockChunks;
    if (left <= kBlockChunks) block = block_bytes - block;
    next_stage(operation, here);
  }

  add_biases(operation, first_column + warp_column, sum);
  if constexpr (gated) {
    gate_tiles<precision>(operation, item, result_rows, first_row + warp_row, first_column + warp_column, sum);
  } else {
    write_tiles<precision>(operation, item, result_rows, first_row + warp_row, first_column + warp_column, sum);
  }
}

}  // namespace fastvoc::cuda
