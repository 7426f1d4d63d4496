// A run of operations over a tile of rows that stays in shared memory (see program.h: Chain).
//
// A warp owns `tiles` times 16 rows of the tile, and all columns of them. What it has summed stays in registers until
// the end of a step, and then goes to shared memory in whole chunks. Weights come as one stream of slices, in the order
// of steps and sources, through a ring of stages: a step begins while the weights of the next one are on their way.
// There is one barrier per stage. Since a step begins with a stage, the barrier also says that everybody has written
// the step before; and what a step writes, nobody else reads in it (a source is never written, and of a residual a
// thread reads what it then writes itself). So there are no others, but where a tile touches an end of the signal.
//
// Most rows of a tile are halo sometime: of the result of a step only rows first <= r < last are needed, and of those
// only the ones that the signal has. Whatever else is computed is wrong, because what it reads is, or is not even a
// number. That does not spread: a row of a product depends on one row of each slice, which is a row of the source; and
// the host has chosen `first` and `last` so that what needed rows read are needed rows of the step before, or padding,
// which is filled in before the step. The guard is read for rows alone that are not needed.
#pragma once

#include "instructions.cuh"

namespace fastvoc::cuda {

template <int count>
struct alignas(4 * count) ChainWords {
  unsigned word[count];
};

template <int value>
struct ChainCount {};

FASTVOC_DEVICE int least(int a, int b) { return a < b ? a : b; }
FASTVOC_DEVICE int most(int a, int b) { return a > b ? a : b; }
FASTVOC_DEVICE float rectify(float value, float slope) { return value < 0 ? value * slope : value; }

template <int precision, int channels, int warps, int tiles>
struct ChainTile {
  static constexpr int kThreads = 32 * warps, kRows = 16 * warps * tiles, kNextTile = 16 * warps;
  static constexpr int kChunkChannels = chunk_channels(precision), kChunks = channels / kChunkChannels;
  static constexpr int kElement = element_bytes(precision);
  // How many tiles of a warp are not skipped: there is a loop for each of tiles, tiles - kFewer, and so on.
  static constexpr int kFewer = tiles > 6 ? 4 : tiles > 4 ? 2 : 1;
  // Slices are of an even number, but where a signal has one chunk, or seldom.
  static constexpr bool kOdd = kChunks % 2 == 1;

  // Slices of a stage: an even number, so that a pair of them is never in two.
  static constexpr FASTVOC_BOTH int capacity(int columns) { return kStageBytes / (2 * columns * kChunkBytes) * 2; }

  const Chain& chain;
  int me;      // the thread
  int begin;   // row of the signals that is row 0 of the tile
  int frames;  // of the item
  int length;  // rows of x, and of what all steps but the last make
  int pitch;   // bytes from chunk to chunk

  // The ring: which weights are fetched next, where the current stage is, and how many of its slices are used.
  int next_step = 0, next_source = 0, next_slice = 0, stage = kStages - 1, used = 0;

  FASTVOC_DEVICE explicit ChainTile(const Chain& chain) : chain(chain) {}

  FASTVOC_DEVICE char* row(int buffer, int chunk, int row) const {
    return shared_memory() + kStages * kStageBytes + (buffer * kChunks + chunk) * pitch +
           (chain.guard + row) * kChunkBytes;
  }
  FASTVOC_DEVICE int y_rows() const { return frames * chain.y.rate + chain.y.offset; }

  FASTVOC_DEVICE void run() {
    let_next_kernel_begin();
    me = thread();
    begin = block_x() * chain.rows - chain.before;
    frames = chain.lengths.items ? load_global(chain.lengths.items + block_y()) : chain.lengths.frames;
    length = frames * chain.x.rate + chain.x.offset;
    if (length <= 0 || (begin + chain.before) * chain.stride - chain.crop >= y_rows()) {
      wait_for_previous_kernel();  // whoever waits for this kernel relies on those before it, too
      return;
    }
    pitch = chain_pitch(kRows, chain.guard) * kChunkBytes;
    // Each step begins with its biases.
    for (int i = me; i < chain.steps; i += kThreads) prefetch(chain.biases + chain.step[i].bias);
#pragma unroll 1
    for (int i = 0; i < kStages - 1; ++i) {
      fetch_weights(i);
      if (i == 0) {
        wait_for_previous_kernel();
        fetch_x();
      }
      commit_copies();
    }
#pragma unroll 1
    for (int i = 0; i < chain.steps; ++i) {
      if (channels > 8 && chain.step[i].narrow) {
        run_step<8>(chain.step[i]);
      } else {
        run_step<channels>(chain.step[i]);
      }
    }
  }

  FASTVOC_DEVICE void fetch_x() const {
    const char* const x = static_cast<const char*>(chain.x.data) + block_y() * chain.x.item * kElement;
#pragma unroll 4
    for (int i = me; i < kRows * kChunks; i += kThreads) {
      const int chunk = i % kChunks, at = begin + i / kChunks;
      const bool real = at >= 0 && at < length && chunk < chain.x_chunks;
      copy_async(row(0, chunk, i / kChunks),
                 x + (real ? static_cast<long long>(at) * chain.x.row * kElement + chunk * kChunkBytes : 0), real);
    }
  }

  // A stage holds slices of one step, of all of its sources, each of which begins with an even slice.
  FASTVOC_DEVICE void fetch_weights(int into) {
    if (next_step >= chain.steps) return;
    const ChainStep& step = chain.step[next_step];
    const int columns = step.narrow ? 8 : channels, room = step.narrow ? capacity(8) : capacity(channels);
    char* const to = shared_memory() + into * kStageBytes;
#pragma unroll 1
    for (int at = 0; at < room;) {
      const ChainSource& source = step.source[next_source];
      const int left = source.taps * source.chunks - next_slice, count = least(left, room - at);
      const char* const from = chain.weights + source.weight + next_slice * columns * kChunkBytes;
#pragma unroll 1
      for (int i = me; i < count * columns; i += kThreads) {
        copy_async(to + (at * columns + i) * kChunkBytes, from + i * kChunkBytes, true);
      }
      at += (count + 1) / 2 * 2;
      next_slice += count;
      if (count < left) return;
      next_slice = 0;
      if (++next_source == step.sources) {
        next_source = 0;
        ++next_step;
        return;
      }
    }
  }

  // Behind the barrier nobody is in the stage before any more, or in the step before if this one has just begun.
  FASTVOC_DEVICE void next_stage() {
    wait_for_copies<kStages - 2>();
    barrier();
    fetch_weights(stage);
    commit_copies();
    stage = stage + 1 < kStages ? stage + 1 : 0;
    used = 0;
  }

  // Rows of a source outside of the signal, as far as padding reads them.
  FASTVOC_DEVICE void pad(const ChainSource& source) const {
#pragma unroll 1
    for (int i = 0; i < 2; ++i) {
      const int from = i == 0 ? most(-source.left - begin, 0) : most(length - begin, 0);
      const int to = least(i == 0 ? -begin : length + source.right - begin, kRows);
      const int mode = i == 0 ? source.front : source.back;
#pragma unroll 1
      for (int j = from + (me & 31); j < to; j += 32) {
        int at = begin + j;
        if (mode == kReplicate || length == 1) at = at < 0 ? 0 : length - 1;
        while (at < 0 || at >= length) at = at < 0 ? -at : 2 * (length - 1) - at;
        // In a tile without needed rows the row may be elsewhere.
        at = least(most(at - begin, 0), kRows - 1);
#pragma unroll 1
        for (int chunk = me >> 5; chunk < source.chunks; chunk += warps) {
          Vector16 value = {};
          if (mode != kZero) value = *reinterpret_cast<const Vector16*>(row(source.buffer, chunk, at));
          *reinterpret_cast<Vector16*>(row(source.buffer, chunk, j)) = value;
        }
      }
    }
  }
  FASTVOC_DEVICE static bool is_seldom(const ChainSource& source) {
    return source.factor != 1 || (!kOdd && source.taps * source.chunks % 2 == 1);
  }
  FASTVOC_DEVICE bool is_padded(const ChainSource& source) const {
    return (begin < 0 && source.left > 0) || (begin + kRows > length && source.right > 0);
  }

  template <int columns>
  FASTVOC_DEVICE void run_step(const ChainStep& step) {
    // What follows from these is made again in every step; there are not registers enough to keep it.
    me = anew(me), pitch = anew(pitch), begin = anew(begin), frames = anew(frames);
    // Tiles of 16 rows go round among the warps, so that those that are skipped are of all of them.
    const int warp = me >> 5, lane = me & 31;
    const int end = step.output < 0 ? (y_rows() + chain.crop + chain.stride - 1) / chain.stride : length;
    const int first = most(step.first, -begin), last = most(least(step.last, end - begin), 0);
    int from = (first / 16 - warp + warps - 1) / warps;
    int active = most(((last + 15) / 16 - warp + warps - 1) / warps - from, 0);
    active = (active + kFewer - 1) / kFewer * kFewer;
    bool seldom = false, padded = false;
#pragma unroll 1
    for (int i = 0; i < step.sources; ++i) {
      seldom = seldom || is_seldom(step.source[i]);
      padded = padded || is_padded(step.source[i]);
    }
    if (seldom && active > 0) active = tiles;
    from = (least(from, tiles - active) * warps + warp) * 16;

    float sum[tiles][columns / 8][4];
#pragma unroll
    for (int i = 0; i < columns / 8; ++i) {
      const ChainWords<2> bias =
          load_global(reinterpret_cast<const ChainWords<2>*>(chain.biases + step.bias + i * 8 + lane % 4 * 2));
#pragma unroll
      for (int j = 0; j < tiles; ++j) {
        sum[j][i][0] = sum[j][i][2] = as_float(bias.word[0]);
        sum[j][i][1] = sum[j][i][3] = as_float(bias.word[1]);
        make_anew(sum[j][i]);
      }
    }

    used = capacity(columns);
#pragma unroll 1
    for (int i = 0; i < step.sources; ++i) add_source<columns>(step, i, padded && i == 0, from, active, sum);
    me = anew(me);
    finish<columns, 0>(step, from + (me >> 2 & 7), active, sum);
  }

  // How the rows that a lane gives the address of go from slice to slice, two at a time.
  struct Walk {
    const char* rows;
    int chunk, chunks, across, back;

    FASTVOC_DEVICE void advance() {
      rows += across;
      chunk += 2;
      if (chunk >= chunks) {
        chunk -= chunks;
        rows += back;
      }
    }
  };

  template <int columns>
  FASTVOC_DEVICE void add_source(const ChainStep& step, int index, bool padded, int from, int active,
                                 float (&sum)[tiles][columns / 8][4]) {
    const ChainSource& source = step.source[index];
    const int lane = me & 31;
    // One chunk is as two, the second of which is the next tap.
    const bool single = source.chunks == 1;
    const int tap = source.dilation * kChunkBytes, next_chunk = single ? tap : pitch;
    Walk walk;
    walk.chunk = lane / 16;
    walk.chunks = single ? 2 : source.chunks;
    walk.across = 2 * next_chunk;
    walk.back = (single ? 2 * tap : tap) - walk.chunks * next_chunk;
    walk.rows = row(source.buffer, 0, from + lane % 16 - source.left) + walk.chunk * next_chunk;
    const int column = (lane / 8 % 2 * columns + lane / 16 * 8 + lane % 8) * kChunkBytes;

#pragma unroll 1
    for (int left = source.taps * source.chunks; left > 0;) {
      if (used == capacity(columns)) {
        next_stage();
        if (padded) {
#pragma unroll 1
          for (int i = 0; i < step.sources; ++i) pad(step.source[i]);
          barrier();
          padded = false;
        }
      }
      const int slices = least(left, capacity(columns) - used);
      const char* const weight = shared_memory() + stage * kStageBytes + used * columns * kChunkBytes + column;
      if (is_seldom(source)) {
        // In two halves, because what restores signals takes registers.
        constexpr int half = tiles > 4 ? tiles / 2 : tiles;
        Walk again = walk;
        if (active > 0) add_slices<columns, 0, half, true>(walk, weight, slices, source.factor, sum);
        if (active > 0 && half < tiles) {
          add_slices<columns, half, tiles, true>(again, weight, slices, source.factor, sum);
        }
      } else {
        add_counted<columns>(active, walk, weight, slices, sum, ChainCount<tiles>());
      }
      used += (slices + 1) / 2 * 2;
      left -= slices;
    }
  }

  template <int columns, int count>
  FASTVOC_DEVICE void add_counted(int active, Walk& walk, const char* weight, int slices,
                                  float (&sum)[tiles][columns / 8][4], ChainCount<count>) {
    if (active == count) {
      add_slices<columns, 0, count, false>(walk, weight, slices, 1, sum);
    } else if constexpr (count > kFewer) {
      add_counted<columns>(active, walk, weight, slices, sum, ChainCount<count - kFewer>());
    }
  }

  template <int columns, int begin_tile, int end_tile, bool seldom>
  FASTVOC_DEVICE void add_slices(Walk& walk, const char* weight, int slices, float factor,
                                 float (&sum)[tiles][columns / 8][4]) {
#pragma unroll 1
    for (int i = 0; i < slices / 2; ++i) {
      add_pair<columns, begin_tile, end_tile, seldom, false>(walk.rows, weight, factor, sum);
      walk.advance();
      weight += 2 * columns * kChunkBytes;
    }
    if constexpr (seldom || kOdd) {
      // Half of the lanes are ahead, where there may be no row. Their addresses do not matter, but must be some.
      if (slices % 2) {
        const char* const rows = walk.rows - (me >> 4 & 1) * (walk.across / 2);
        add_pair<columns, begin_tile, end_tile, seldom, true>(rows, weight, factor, sum);
      }
    }
  }

  // The second slice of the last pair may be missing. Weights of zero would not do: no number times zero is not zero.
  template <int columns, int begin_tile, int end_tile, bool seldom, bool half>
  FASTVOC_DEVICE void add_pair(const char* rows, const char* weight, float factor,
                               float (&sum)[tiles][columns / 8][4]) {
    unsigned b[columns / 8][2];
    if constexpr (columns == 8) {
      load_matrices(b[0], weight);
    } else {
#pragma unroll
      for (int i = 0; i < columns / 8; i += 2) {
        unsigned both[4];
        load_matrices(both, weight + i * 8 * kChunkBytes);
        b[i][0] = both[0], b[i][1] = both[1];
        b[i + 1][0] = both[2], b[i + 1][1] = both[3];
      }
    }
    if constexpr (half) {
#pragma unroll
      for (int i = 0; i < columns / 8; ++i) b[i][1] = 0;
    }
#pragma unroll
    for (int j = begin_tile; j < end_tile; ++j) {
      unsigned a[4] = {};
      if constexpr (half) {
        unsigned slice[2];
        load_matrices(slice, rows + j * kNextTile * kChunkBytes);
        a[0] = slice[0], a[1] = slice[1];
      } else {
        load_matrices(a, rows + j * kNextTile * kChunkBytes);
      }
      prepare<seldom>(a, factor);
#pragma unroll
      for (int i = 0; i < columns / 8; ++i) multiply_add<precision>(sum[j][i], a, b[i]);
    }
  }

  template <bool seldom>
  FASTVOC_DEVICE static void prepare(unsigned (&a)[4], float factor) {
#pragma unroll
    for (unsigned& word : a) {
      if constexpr (precision == kTfloat32) {
        word = as_bits(round_tf32(seldom ? rectify(as_float(word), factor) : as_float(word)));
      } else if constexpr (seldom) {
        float low, high;
        unpack_pair<precision>(word, low, high);
        word = pack_pair<precision>(rectify(low, factor), rectify(high, factor));
      }
    }
  }

  struct Additions {
    int from[2];  // bytes from buffer 0; or less than 0
    float factor[2];
    bool outside;  // there is one in device memory, whose factor is the last
    float outside_factor;
  };

  // Whether what a thread has of a row of the sum is in one row of y, in whole chunks.
  FASTVOC_DEVICE bool is_whole() const {
    return chain.output == kElements && chain.channels % 8 == 0 && chain.y.row % kChunkChannels == 0 &&
           chain.y.item % kChunkChannels == 0 &&
           reinterpret_cast<unsigned long long>(chain.y.data) % kChunkBytes == 0;
  }

  // The group of columns from `column` on: a thread has neighbouring channels of rows row + 8 * i (see channel_of).
  template <int columns, int column>
  FASTVOC_DEVICE void finish(const ChainStep& step, int row, int active, float (&sum)[tiles][columns / 8][4]) {
    constexpr int width = group_width(column, columns), count = width / 4;
    const int channel = column + (me & 3) * count;
    Additions added = {};
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const bool real = i < step.residuals;
      added.from[i] = real ? step.residual[i].buffer * kChunks * pitch : -1;
      added.factor[i] = step.residual[i].factor;
      if (real && step.residual[i].buffer < 0) added.outside = true, added.outside_factor = step.residual[i].factor;
    }
    if (columns == channels && !step.tanh && (step.output >= 0 || is_whole())) {
      const int phase = step.output < 0 ? channel / chain.channels : 0;
#pragma unroll
      for (int i = 0; i < 2 * tiles; ++i) {
        if (i / 2 >= active) break;
        float value[count];
#pragma unroll
        for (int j = 0; j < count; ++j) value[j] = sum[i / 2][column / 8 + j / 2][i % 2 * 2 + j % 2];
        const int at = row + i / 2 * kNextTile + i % 2 * 8;
        add_buffers(added, at, channel, value);
        if (step.output >= 0) {
          store<false>(step, at, channel, value);
        } else {
          write_chunks(step, added, at, phase, channel - phase * chain.channels, value);
        }
      }
    } else {
      // Here little code matters more than time: sums move up, so that the first ones are always next.
#pragma unroll 1
      for (int i = 0; i < 2 * active; ++i) {
        float value[count];
#pragma unroll
        for (int j = 0; j < count; ++j) {
          value[j] = sum[0][column / 8 + j / 2][j % 2];
#pragma unroll
          for (int k = 0; k < 2 * tiles - 1; ++k) {
            sum[k / 2][column / 8 + j / 2][k % 2 * 2 + j % 2] =
                sum[(k + 1) / 2][column / 8 + j / 2][(k + 1) % 2 * 2 + j % 2];
          }
        }
        const int at = row + i / 2 * kNextTile + i % 2 * 8;
        add_buffers(added, at, channel, value);
        if (step.output >= 0) {
          store<true>(step, at, channel, value);
        } else {
          write_singly(step, added, at, channel, value);
        }
      }
    }
    if constexpr (column + width < columns) finish<columns, column + width>(step, row, active, sum);
  }

  // Where a thread has its channels of a row of buffer 0.
  FASTVOC_DEVICE char* place(int at, int channel) const {
    return row(0, channel / kChunkChannels, at) + channel % kChunkChannels * kElement;
  }

  template <int count>
  FASTVOC_DEVICE void add_buffers(const Additions& added, int at, int channel, float (&value)[count]) const {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      if (added.from[i] < 0) continue;
      unsigned word[count * kElement / 4];
      load_words<false>(word, place(at, channel) + added.from[i], pitch);
      add_words(value, word, added.factor[i]);
    }
  }

  template <bool may_bend, int count>
  FASTVOC_DEVICE void store(const ChainStep& step, int at, int channel, float (&value)[count]) const {
    shape<may_bend>(step, value);
    unsigned word[count * kElement / 4] = {};
    narrow_values(word, value);
    store_words(place(at, channel) + step.output * kChunks * pitch, word, pitch);
  }

  // Row r of the sum has rows of y from this one on.
  FASTVOC_DEVICE int y_row(int at) const { return (begin + at) * chain.stride - chain.crop; }
  FASTVOC_DEVICE bool is_result(int at) const { return at >= chain.before && at < chain.before + chain.rows; }
  FASTVOC_DEVICE bool is_row(int phase, int to) const { return phase < chain.stride && to >= 0 && to < y_rows(); }

  template <int count>
  FASTVOC_DEVICE void write_chunks(const ChainStep& step, const Additions& added, int at, int phase, int channel,
                                   float (&value)[count]) const {
    const int to = y_row(at) + phase;
    if (!is_result(at) || !is_row(phase, to)) return;
    unsigned word[count * kElement / 4] = {};
    if (added.outside) {
      load_words<true>(word, element(chain.added, kElement, to, channel), kChunkBytes);
      add_words(value, word, added.outside_factor);
    }
    shape<false>(step, value);
#pragma unroll
    for (float& v : value) v = precision == kTfloat32 ? round_tf32(v) : v;
    narrow_values(word, value);
    store_words(element(chain.y, kElement, to, channel), word, kChunkBytes);
  }

  // Here, too, values move up.
  template <int count>
  FASTVOC_DEVICE void write_singly(const ChainStep& step, const Additions& added, int at, int channel,
                                   float (&value)[count]) const {
    if (!is_result(at)) return;
#pragma unroll 1
    for (int i = 0; i < count; ++i) {
      const int phase = (channel + i) / chain.channels, to = y_row(at) + phase;
      if (is_row(phase, to)) write_value(step, added, to, channel + i - phase * chain.channels, value[0]);
#pragma unroll
      for (int j = 0; j < count - 1; ++j) value[j] = value[j + 1];
    }
  }

  FASTVOC_DEVICE void write_value(const ChainStep& step, const Additions& added, int at, int channel,
                                  float sum) const {
    if (added.outside) {
      const char* const from = element(chain.added, kElement, at, channel);
      float value, none;
      if constexpr (precision == kTfloat32) {
        value = load_global(reinterpret_cast<const float*>(from));
      } else {
        unpack_pair<precision>(load_global(reinterpret_cast<const unsigned short*>(from)), value, none);
      }
      sum += rectify(value, added.outside_factor);
    }
    float value[1] = {sum};
    shape<true>(step, value);
    if (chain.output == kInt16) {
      *reinterpret_cast<short*>(element(chain.y, 2, at, channel)) =
          static_cast<short>(least(most(to_int(32767 * value[0]), -32768), 32767));
    } else if (chain.output == kFloats) {
      *reinterpret_cast<float*>(element(chain.y, 4, at, channel)) = value[0];
    } else if constexpr (precision == kTfloat32) {
      *reinterpret_cast<float*>(element(chain.y, 4, at, channel)) = round_tf32(value[0]);
    } else {
      *reinterpret_cast<unsigned short*>(element(chain.y, 2, at, channel)) =
          static_cast<unsigned short>(pack_pair<precision>(value[0], 0) & 0xffff);
    }
  }

  FASTVOC_DEVICE char* element(const Signal& signal, int bytes, int at, int channel) const {
    return static_cast<char*>(signal.data) +
           (block_y() * signal.item + static_cast<long long>(at) * signal.row + channel) * bytes;
  }

  template <bool may_bend, int count>
  FASTVOC_DEVICE static void shape(const ChainStep& step, float (&value)[count]) {
    if (step.scale != 1 || step.slope_after != 1) {
#pragma unroll
      for (float& v : value) v = rectify(v * step.scale, step.slope_after);
    }
    if constexpr (may_bend) {
      if (step.tanh) {
#pragma unroll 1
        for (int i = 0; i < count; ++i) {
          const float first = hyperbolic_tangent(value[0]);
#pragma unroll
          for (int j = 0; j < count - 1; ++j) value[j] = value[j + 1];
          value[count - 1] = first;
        }
      }
    }
#pragma unroll
    for (float& v : value) v = rectify(v, step.stored);
  }

  template <int count>
  FASTVOC_DEVICE static void add_words(float (&value)[count], const unsigned (&word)[count * kElement / 4],
                                       float factor) {
#pragma unroll
    for (int i = 0; i < count; ++i) {
      if constexpr (precision == kTfloat32) {
        value[i] += rectify(as_float(word[i]), factor);
      } else if (i % 2 == 0) {
        float low, high;
        unpack_pair<precision>(word[i / 2], low, high);
        value[i] += rectify(low, factor);
        value[i + 1] += rectify(high, factor);
      }
    }
  }

  template <int count>
  FASTVOC_DEVICE static void narrow_values(unsigned (&word)[count * kElement / 4], const float (&value)[count]) {
#pragma unroll
    for (int i = 0; i < count; ++i) {
      if constexpr (precision == kTfloat32) {
        word[i] = as_bits(value[i]);
      } else if (i % 2 == 0) {
        word[i / 2] = pack_pair<precision>(value[i], value[i + 1]);
      }
    }
  }

  // Words of a row: of one chunk, or of two that are `next` bytes apart.
  template <bool global, int count>
  FASTVOC_DEVICE static void load_words(unsigned (&word)[count], const char* from, int next) {
    constexpr int run = count < 4 ? count : 4;
#pragma unroll
    for (int i = 0; i < count; i += run) {
      const ChainWords<run>* const at = reinterpret_cast<const ChainWords<run>*>(from + i / 4 * next);
      const ChainWords<run> words = global ? load_global(at) : *at;
#pragma unroll
      for (int j = 0; j < run; ++j) word[i + j] = words.word[j];
    }
  }
  template <int count>
  FASTVOC_DEVICE static void store_words(char* to, const unsigned (&word)[count], int next) {
    constexpr int run = count < 4 ? count : 4;
#pragma unroll
    for (int i = 0; i < count; i += run) {
      ChainWords<run> words;
#pragma unroll
      for (int j = 0; j < run; ++j) words.word[j] = word[i + j];
      *reinterpret_cast<ChainWords<run>*>(to + i / 4 * next) = words;
    }
  }
};

template <int precision, int channels, int warps, int tiles>
FASTVOC_DEVICE void chain(const Chain& chain) {
  if constexpr (kMultiplies<precision>) {
    ChainTile<precision, channels, warps, tiles>(chain).run();
  } else {
    trap();
  }
}

}  // namespace fastvoc::cuda
