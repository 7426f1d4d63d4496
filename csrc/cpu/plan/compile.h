// A network compiled into a plan: which rows stand where, and how long.
//
// A *line* is the result of a layer in one form (behind a leaky ReLU or not, in one precision), as channels-last rows.
// Rows of a tile stand in a *slot* of the workspace, which lines share that are not needed at the same time; the last
// rows of a line, which the next tile needs again, wait in the state. A *stage* is an upsampling and what follows it up
// to the next one; it takes its tiles out of those of the stage before, so that each has the size that suits its width.
#pragma once

#include "../../layer.h"
#include "../kernels/smooth_snake.h"
#include "../kernels/toom_cook.h"
#include "precision.h"

namespace fastvoc::FASTVOC_ISA {

constexpr int kMaxLayers = 512, kForms = 4, kMaxLines = 2 * kMaxLayers, kReaders = 24, kSlots = 64;
constexpr int64_t kAlign = 64;  // bytes: a cache line
// Products in a part of a panel, of which threads take one after the other: some ten microseconds, while a core that is
// away is so for milliseconds.
constexpr int64_t kPartProducts = int64_t{1} << 22;
constexpr int64_t kMostInt8Products = INT32_MAX / (255 * 127);

struct Line {
  int layer;      // whose result it is; FASTVOC_INPUT is the network's
  int mode;       // of the padding
  int stage;      // of the layer; the network's input is in front of stage 0
  int slot;
  int last;       // layer that reads it last in its stage, or kMaxLayers if the next stage does
  int readers;
  short reader[kReaders];
  float slope;    // of the leaky ReLU that it has been through
  int precision;  // of an operand that of its layer; what is added is float32
  float scale;    // if it is 8-bit, as is the next
  int zero_point;
  int64_t row;    // elements
  int64_t width;  // of them, those that the panels of its layer write
  int64_t bytes;  // of a row
  int64_t front, back;  // rows of padding
  int64_t kept;   // most rows from tile to tile
  int64_t slack;  // most rows that a tile adds beyond those of its stage, and rows that may be read behind the end
  int64_t history;  // bytes into the state
};

struct Step {
  fastvoc_call layer;  // as a call of its operator, of one thread
  fastvoc_call call;   // its convolution, or that of one phase
  int toom_cook;
  int input, residual, partial;  // lines, or FASTVOC_NONE
  int shortcut;      // layer whose convolution, of the line `residual`, is summed with this one's; or FASTVOC_NONE
  bool is_shortcut;  // of a later layer, which does it
  int lines[kForms], line_count;
  int64_t before;  // input rows in front of the one of the same time
  int64_t wait;    // input rows behind it
  int64_t block;   // output rows that are only computed together, or of an upsampling rows of its input
  int64_t panels, part_rows;  // that threads share: panels, of so many rows at once
  int64_t packed, packed_phase, bias;  // bytes into the packed weights
  float divisor, slope_after;

  bool upsamples() const { return layer.kind == FASTVOC_UPSAMPLE; }
  bool activates() const { return layer.kind == FASTVOC_SMOOTH_SNAKE; }
};

struct Stage {
  int first, end;  // layers
  int source;      // layer of an earlier stage, or FASTVOC_INPUT
  int64_t stride;  // rows of the stage per row of its source
  int64_t rows;    // of the source, per tile and thread
};

struct Plan {
  int isa, layers, lines, stages, slots, toom_cook_layers;
  int64_t packed, state;  // bytes
  Stage stage[kMaxLayers];
  Line line[kMaxLines];
  Step step[kMaxLayers];
};

// What a stream remembers in front of the rows that its lines keep.
struct Stream {
  int64_t made[kMaxLayers + 1];  // rows of each layer's result; the network's input comes first
  int64_t begin[kMaxLines];      // first row that is kept
  int64_t seen[kMaxLayers];      // rows that a stage has taken from its source
  bool fronted[kMaxLines];       // whether the padding in front of a line has been laid down
};

inline const Stage& stage_of(const Plan& plan, int layer) {
  int stage = 0;
  while (layer >= plan.stage[stage].end) ++stage;
  return plan.stage[stage];
}

inline bool adds(int layer) { return layer != FASTVOC_NONE; }

// Call a function with the precision of a line.
template <class Function>
auto as_precision(const Line& line, Function function) {
  return in_precision(line.precision, line.scale, line.zero_point, function);
}

inline int64_t element_size(const Line& line) {
  return as_precision(line, [](auto precision) -> int64_t { return sizeof(typename decltype(precision)::Element); });
}

// Whether a padding mode needs to see the signal.
inline bool looks(const Line& line) { return line.mode != FASTVOC_ZERO && line.front + line.back > 0; }

// Rows of a tile per thread: enough to use each weight often, few enough for a handful of lines to stay near. HiFi-GAN
// V1 in float32 takes 134 ms with 256, 121 with 512, 111 with 1024 and with 2048; others differ less (one core of an AMD
// EPYC of family 26, 2026-11-20).
inline int64_t stage_rows(int64_t channels) { return larger(1024, 16384 / channels); }

// Output channels with what fills up the last panel.
inline int64_t panels_width(const Plan& plan, const Step& step) {
  int64_t width = 0;
  if (step.activates()) return larger(step.call.out_channels, kLanes);
  const auto widen = [&](const Panel& panel) { width = panel.first + panel.width; };
  if (step.toom_cook) {
    for_each_toom_cook_panel(step.call, widen);
  } else {
    as_precision(plan.line[step.input], [&](auto precision) { precision.for_each_panel(step.call, 1, widen); });
  }
  return width;
}

inline int precision_of(const fastvoc_network& network, const fastvoc_layer& layer) {
  if (layer.kind == FASTVOC_SMOOTH_SNAKE) return FASTVOC_FLOAT32;  // whose sine turns by a rounding of its input
  return layer.input_scale != 0 ? FASTVOC_INT8 : network.precision;
}

// The result of a layer in one form, made if nobody has asked for it yet.
inline int line_of(Plan& plan, int layer, float slope, int precision, float scale = 0, int zero_point = 0) {
  for (int i = 0; i < plan.lines; ++i) {
    const Line& line = plan.line[i];
    if (line.layer == layer && line.slope == slope && line.precision == precision && line.scale == scale &&
        line.zero_point == zero_point)
      return i;
  }
  if (plan.lines == kMaxLines) return -1;
  Line& line = plan.line[plan.lines] = {};
  line.layer = layer;
  line.slope = slope;
  line.precision = precision;
  line.scale = scale;
  line.zero_point = zero_point;
  line.mode = FASTVOC_ZERO;
  line.last = -1;
  return plan.lines++;
}

inline bool reads(Plan& plan, int index, int reader) {
  Line& line = plan.line[index];
  if (line.readers == kReaders) return false;
  line.reader[line.readers++] = (short)reader;
  return true;
}

// Rows of a result of a layer that is no upsampling, beyond those of its input.
inline int64_t longer_by(const fastvoc_layer& layer) {
  if (layer.kind == FASTVOC_SMOOTH_SNAKE) return 0;
  return layer.left + layer.right - layer.dilation * (layer.taps - 1);
}

inline int check_layer(const fastvoc_network& network, int index) {
  const fastvoc_layer& layer = network.layers[index];
  const auto has = [&](int from, int64_t channels) { return has_result(network, index, from, channels); };
  if (layer.kind != FASTVOC_CONV1D && layer.kind != FASTVOC_UPSAMPLE && layer.kind != FASTVOC_SMOOTH_SNAKE)
    return FASTVOC_BAD_NETWORK;
  if (const int error = check_shape(layer)) return error;
  if (layer.gelu) return FASTVOC_BAD_NETWORK;
  if (!fits({layer.left}) || !fits({layer.right})) return FASTVOC_BAD_SIZE;
  if (layer.input_scale != 0) {
    if (!is_known(FASTVOC_INT8)) return FASTVOC_BAD_PRECISION;
    if (!(layer.input_scale > 1e-30f && layer.input_scale < 1e30f) || layer.input_zero_point < 0 ||
        layer.input_zero_point > 255)
      return FASTVOC_BAD_NETWORK;
    // sums of products of 255 and 127 are to stay within 32 bits
    if (layer.in_channels * layer.taps > kMostInt8Products) return FASTVOC_BAD_SIZE;
  }
  if (!has(layer.input, layer.in_channels)) return FASTVOC_BAD_NETWORK;
  for (const int added : {layer.residual, layer.partial})
    if (adds(added) && !has(added, layer.out_channels)) return FASTVOC_BAD_NETWORK;
  if (layer.kind == FASTVOC_SMOOTH_SNAKE) {
    if (adds(layer.residual) || adds(layer.partial) || layer.dilation != 1 || layer.stride != 1 || layer.taps != 2 ||
        layer.in_channels != layer.out_channels || layer.slope != 1.0f || layer.input_scale != 0)
      return FASTVOC_BAD_NETWORK;
    if (layer.left || layer.right || layer.padding_mode != FASTVOC_ZERO) return FASTVOC_BAD_PADDING;
  } else if (layer.kind == FASTVOC_UPSAMPLE) {
    if (adds(layer.residual) || adds(layer.partial) || layer.dilation != 1) return FASTVOC_BAD_NETWORK;
    // What is repeated in front of an upsampling is one row, and what is behind its last row is cropped.
    const bool one = layer.taps <= 2 * layer.stride && layer.right + layer.stride >= layer.taps;
    if (layer.padding_mode == FASTVOC_REFLECT || (layer.padding_mode == FASTVOC_REPLICATE && !one))
      return FASTVOC_BAD_PADDING;
  } else if (layer.left > layer.dilation * (layer.taps - 1) || layer.right > layer.dilation * (layer.taps - 1)) {
    return FASTVOC_BAD_PADDING;
  }
  return FASTVOC_OK;
}

inline fastvoc_call as_call(const fastvoc_network& network, const fastvoc_layer& layer) {
  fastvoc_call call{};
  call.kind = layer.kind;
  call.isa = network.isa;
  call.threads = 1;
  call.padding_mode = layer.padding_mode;
  call.tanh = layer.tanh;
  call.batch = 1;
  call.in_channels = layer.in_channels;
  call.out_channels = layer.out_channels;
  call.taps = layer.taps;
  call.dilation = layer.dilation;
  call.stride = layer.stride;
  call.groups = 1;
  call.left = layer.left;
  call.right = layer.right;
  call.slope = layer.slope;
  return call;
}

// Divide the layers into stages; each may read only itself and one earlier result.
inline int make_stages(const fastvoc_network& network, Plan& plan) {
  int stage_of[kMaxLayers];
  int64_t longer[kMaxLayers];  // than what the stage begins with, by so many rows
  int64_t rate = 1;
  for (int i = 0; i < network.count; ++i) {
    const fastvoc_layer& layer = network.layers[i];
    const bool up = layer.kind == FASTVOC_UPSAMPLE;
    if (i == 0 || up) {
      plan.stage[plan.stages++] = {i, i, layer.input, up ? layer.stride : 1,
                                   larger(stage_rows(layer.out_channels) / (up ? layer.stride : 1), 1)};
      rate *= up ? layer.stride : 1;
      if (!is_count(rate)) return FASTVOC_BAD_SIZE;
    }
    Stage& stage = plan.stage[plan.stages - 1];
    stage.end = i + 1;
    stage_of[i] = plan.stages - 1;
    const auto inside = [&](int from) { return from >= 0 && stage_of[from] == plan.stages - 1; };
    for (const int from : {layer.input, layer.residual, layer.partial}) {
      if (from == FASTVOC_NONE || inside(from)) continue;
      const int before = from == FASTVOC_INPUT ? -1 : stage_of[from];
      if (from != stage.source || before != plan.stages - 2) return FASTVOC_BAD_NETWORK;
      if (i > stage.first && network.layers[stage.first].kind == FASTVOC_UPSAMPLE) return FASTVOC_BAD_NETWORK;
    }
    const auto length = [&](int from) { return inside(from) ? longer[from] : 0; };
    longer[i] = up ? 0 : length(layer.input) + longer_by(layer);
    for (const int added : {layer.residual, layer.partial})
      if (adds(added) && length(added) != longer[i]) return FASTVOC_BAD_NETWORK;
  }
  return FASTVOC_OK;
}

// The layer that adds nothing but another convolution of one tap to this one, as in the units of MelGAN: then both are
// one product of twice the channels, in whose registers the sums stay: 1.1 to 1.2 times as fast with 32 to 64 channels.
// Adding them in another order changes bits. So in float32 it is not done where they are to be the operators', nor in
// networks so narrow that they are so anyway.
inline int shortcut_of(const fastvoc_network& network, const Plan& plan, int index) {
  const fastvoc_layer& layer = network.layers[index];
  const int from = layer.residual, precision = precision_of(network, layer);
  if (from < 0 || from == layer.partial || &stage_of(plan, from) != &stage_of(plan, index)) return FASTVOC_NONE;
  const fastvoc_layer& other = network.layers[from];
  const auto fits_in = [](const fastvoc_layer& of) { return of.kind == FASTVOC_CONV1D && of.taps == 1; };
  if (!fits_in(layer) || !fits_in(other) || other.in_channels != layer.in_channels) return FASTVOC_NONE;
  if (adds(other.residual) || adds(other.partial) || other.tanh || other.divisor != 1 || other.slope_after != 1)
    return FASTVOC_NONE;
  if (precision_of(network, other) != precision || precision == FASTVOC_INT8) return FASTVOC_NONE;
  if (precision == FASTVOC_FLOAT32 && (network.in_order || layer.in_channels < 16)) return FASTVOC_NONE;
  for (int i = 0; i < network.count; ++i) {
    const fastvoc_layer& reader = network.layers[i];
    if (reader.input == from || reader.partial == from || (reader.residual == from && i != index)) return FASTVOC_NONE;
  }
  return from;
}

inline int make_steps(const fastvoc_network& network, Plan& plan) {
  for (int i = 0; i < network.count; ++i) {
    plan.step[i] = {};
    plan.step[i].shortcut = shortcut_of(network, plan, i);
    if (plan.step[i].shortcut >= 0) plan.step[plan.step[i].shortcut].is_shortcut = true;
  }
  for (int i = 0; i < network.count; ++i) {
    const fastvoc_layer& layer = network.layers[i];
    Step& step = plan.step[i];
    step.layer = as_call(network, layer);
    const bool up = step.upsamples();
    step.call = up ? phase_of(step.layer) : step.layer;
    step.call.tanh = 0;  // of the sums, with what is added to them
    const int64_t taps = step.call.taps;
    step.before = up ? taps - 1 : layer.left;
    step.wait = up ? 0 : span_of(step.call) - layer.left;
    if (step.activates()) step.before = step.wait = kSnakeReach;
    const Stage& stage = stage_of(plan, i);
    const int precision = precision_of(network, layer);
    // Its sums cancel, which would lose the bits of a narrow operand.
    step.toom_cook = precision == FASTVOC_FLOAT32 && !network.in_order && !step.activates() &&
                     toom_cook_pays(step.call, stage.rows * (up ? 1 : stage.stride), up ? layer.stride : 1);
    step.block = step.toom_cook ? toom_cook_block(step.call) : 1;
    plan.toom_cook_layers += step.toom_cook;
    step.part_rows = step.toom_cook ? toom_cook_pass_rows(step.call)
                                    : round_up(kPartProducts / (2 * kLanes * layer.in_channels * taps) + 1, kChunk);
    const auto count_panel = [&](const Panel&) { ++step.panels; };
    if (step.toom_cook) {
      for_each_toom_cook_panel(step.call, count_panel);
    } else {
      in_precision(precision, layer.input_scale, layer.input_zero_point,
                   [&](auto operand) { operand.for_each_panel(step.call, 1, count_panel); });
    }
    step.divisor = layer.divisor;
    step.slope_after = layer.slope_after;
    step.input = line_of(plan, layer.input, layer.slope, precision, layer.input_scale,
                         precision == FASTVOC_INT8 ? layer.input_zero_point : 0);
    const auto added = [&](int from) { return adds(from) ? line_of(plan, from, 1.0f, FASTVOC_FLOAT32) : FASTVOC_NONE; };
    step.residual = step.shortcut >= 0 ? plan.step[step.shortcut].input : added(layer.residual);
    step.partial = added(layer.partial);
    if (step.input < 0) return FASTVOC_BAD_NETWORK;
    if (step.is_shortcut) continue;  // another layer reads its input
    for (const int index : {step.input, step.residual, step.partial})
      if (index == -1 || (index >= 0 && !reads(plan, index, i))) return FASTVOC_BAD_NETWORK;
    // What is added is read as wide as the panels are.
    for (const int line : {step.shortcut >= 0 ? FASTVOC_NONE : step.residual, step.partial})
      if (line >= 0) plan.line[line].row = larger(plan.line[line].row, panels_width(plan, step));

    Line& line = plan.line[step.input];
    if (step.activates()) {  // beyond the ends it looks for itself
      line.row = larger(line.row, panels_width(plan, step));
      continue;
    }
    // Behind the end an upsampling looks at zeros as far as its kernel reaches; a convolution at its padding.
    const int64_t front = up ? taps - 1 : layer.left;
    const int64_t back = !up ? layer.right : layer.padding_mode == FASTVOC_ZERO ? taps - 1 : 0;
    if (front + back > 0) {
      if (line.front + line.back > 0 && line.mode != layer.padding_mode) return FASTVOC_BAD_PADDING;
      line.mode = layer.padding_mode;
    }
    line.front = larger(line.front, front);
    line.back = larger(line.back, back);
    as_precision(line, [&](auto operand) { line.row = larger(line.row, operand.row_length(step.call)); });
  }
  return FASTVOC_OK;
}

// The forms of each result, and the lengths of rows.
inline int make_lines(const fastvoc_network& network, Plan& plan) {
  for (int i = 0; i < plan.lines; ++i) {
    Line& line = plan.line[i];
    if (line.layer == FASTVOC_INPUT) {
      line.stage = -1;
      line.row = larger(line.row, network.layers[0].in_channels);
      continue;
    }
    Step& step = plan.step[line.layer];
    if (step.line_count == kForms) return FASTVOC_BAD_NETWORK;
    step.lines[step.line_count++] = i;
    line.width = panels_width(plan, step);
    line.row = larger(line.row, line.width);
    line.stage = int(&stage_of(plan, line.layer) - plan.stage);
  }
  // Two inputs of a product have rows as long, which may make others longer.
  for (bool differ = true; differ;) {
    differ = false;
    for (int i = 0; i < network.count; ++i) {
      if (plan.step[i].shortcut < 0) continue;
      int64_t &one = plan.line[plan.step[i].input].row, &other = plan.line[plan.step[i].residual].row;
      differ |= one != other;
      one = other = larger(one, other);
    }
  }
  for (int i = 0; i < plan.lines; ++i) plan.line[i].bytes = plan.line[i].row * element_size(plan.line[i]);
  for (int i = 0; i + 1 < network.count; ++i)
    if (plan.step[i].line_count == 0 && !plan.step[i].is_shortcut) return FASTVOC_BAD_NETWORK;  // nobody reads it
  return plan.step[network.count - 1].line_count == 0 ? FASTVOC_OK : FASTVOC_BAD_NETWORK;
}

// How many rows lines keep. A layer's result lags behind what its stage has seen by at least `least` and at most `most`
// rows: as many as its inputs lag and it waits for, and those that do not fill a block yet.
inline void measure_lines(Plan& plan) {
  int64_t least[kMaxLayers], most[kMaxLayers];
  for (int s = 0; s < plan.stages; ++s) {
    const Stage& stage = plan.stage[s];
    for (int i = stage.first; i < stage.end; ++i) {
      const Step& step = plan.step[i];
      least[i] = most[i] = 0;
      if (step.upsamples()) continue;
      const auto follow = [&](int line, int64_t wait) {
        if (line < 0) return;
        const int layer = plan.line[line].layer;
        const bool inside = layer >= stage.first;
        least[i] = larger(least[i], (inside ? least[layer] : 0) + wait);
        // a mirror image of the start waits for what it shows
        const int64_t start = plan.line[line].mode == FASTVOC_REFLECT ? plan.line[line].front : 0;
        most[i] = larger(most[i], (inside ? most[layer] : 0) + wait + start);
      };
      follow(step.input, step.wait);
      follow(step.residual, 0);
      follow(step.partial, 0);
      most[i] += step.block - 1;
    }
  }
  for (int l = 0; l < plan.lines; ++l) {
    Line& line = plan.line[l];
    line.kept = looks(line) ? larger(2 * line.front, line.back) + 1 : line.front;
    int64_t farthest = 0;
    for (int r = 0; r < line.readers; ++r) {
      const int reader = line.reader[r];
      const Step& step = plan.step[reader];
      const bool inside = line.layer >= 0 && reader < plan.stage[line.stage].end;
      const int64_t before = step.input == l ? step.before : 0;
      const int64_t lag = step.upsamples() ? (step.layer.right + step.layer.stride - 1) / step.layer.stride + step.block
                                           : most[reader] - (inside ? least[line.layer] : 0);
      line.kept = larger(line.kept, before + lag);
      farthest = larger(farthest, step.block);
      if (inside) {
        line.last = line.last == kMaxLayers ? kMaxLayers : (int)larger(line.last, reader);
      } else {
        line.last = kMaxLayers;
      }
    }
    const int64_t own = line.layer >= 0 ? most[line.layer] + plan.step[line.layer].block : 0;
    // a tile also has the rows of blocks that the one before did not fill, and the end brings those that an upsampling's
    // kernel reaches beyond its last input
    const Step* const first = line.stage >= 0 ? &plan.step[plan.stage[line.stage].first] : nullptr;
    const int64_t beyond =
        first && first->upsamples() ? (first->block - 1) * first->layer.stride + first->layer.taps : 0;
    line.slack = kReadRows + own + beyond + line.back + farthest;
  }
}

// Lines that live at the same time stand in different slots.
inline int make_slots(Plan& plan) {
  int free_from[kSlots];  // layer behind which a slot is free again
  for (int layer = -1; layer < plan.layers; ++layer)
    for (int l = 0; l < plan.lines; ++l) {
      Line& line = plan.line[l];
      if (line.layer != layer) continue;
      int slot = 0;
      while (slot < plan.slots && free_from[slot] >= layer) ++slot;
      if (slot == kSlots) return FASTVOC_BAD_NETWORK;
      if (slot == plan.slots) ++plan.slots;
      free_from[slot] = line.last;
      line.slot = slot;
    }
  return FASTVOC_OK;
}

inline void make_memory(Plan& plan) {
  plan.state = round_up((int64_t)sizeof(Stream), kAlign);
  for (int l = 0; l < plan.lines; ++l) {
    plan.line[l].history = plan.state;
    plan.state += round_up(plan.line[l].kept * plan.line[l].bytes, kAlign);
  }
  for (int i = 0; i < plan.layers; ++i) {
    Step& step = plan.step[i];
    step.packed = plan.packed;
    const Line& input = plan.line[step.input];
    const auto packed_bytes = [&](auto precision) -> int64_t {
      if (step.activates()) return snake_packed_floats(step.call.in_channels) * (int64_t)sizeof(float);
      return precision.packed_bytes(step.call, input.row);
    };
    step.packed_phase = round_up(step.toom_cook ? toom_cook_packed_floats(step.call) * (int64_t)sizeof(float)
                                                : as_precision(input, packed_bytes),
                                 kAlign);
    plan.packed += step.packed_phase * (step.upsamples() ? step.layer.stride : 1);
    step.bias = plan.packed;
    plan.packed += round_up(step.call.out_channels * (int64_t)sizeof(float), kAlign);
  }
}

// Rows that a stage takes or makes in a tile.
inline int64_t tile_rows_of(const Plan& plan, int stage, int threads) {
  return stage < 0 ? plan.stage[0].rows * threads : plan.stage[stage].rows * plan.stage[stage].stride * threads;
}

// Whether the memory of every line is taken, with any number of threads.
inline bool lines_fit(const Plan& plan) {
  for (int l = 0; l < plan.lines; ++l) {
    const Line& line = plan.line[l];
    if (!fits({line.kept + tile_rows_of(plan, line.stage, kMostThreads) + line.slack, line.row})) return false;
  }
  return true;
}

inline int compile(const fastvoc_network& network, Plan& plan) {
  if (network.count < 1 || network.count > kMaxLayers || !network.layers) return FASTVOC_BAD_NETWORK;
  if (!is_known(network.precision) || network.precision == FASTVOC_INT8) return FASTVOC_BAD_PRECISION;
  plan.isa = network.isa;
  plan.layers = network.count;
  plan.lines = plan.stages = plan.slots = plan.toom_cook_layers = 0;
  plan.packed = plan.state = 0;
  for (int i = 0; i < network.count; ++i)
    if (const int error = check_layer(network, i)) return error;
  for (const auto make : {make_stages, make_steps, make_lines})
    if (const int error = make(network, plan)) return error;
  measure_lines(plan);
  if (!lines_fit(plan)) return FASTVOC_BAD_SIZE;
  if (const int error = make_slots(plan)) return error;
  make_memory(plan);
  return FASTVOC_OK;
}

inline int64_t slot_bytes(const Plan& plan, int slot, int threads) {
  int64_t size = 0;
  for (int l = 0; l < plan.lines; ++l) {
    const Line& line = plan.line[l];
    if (line.slot == slot)
      size = larger(size, (line.kept + tile_rows_of(plan, line.stage, threads) + line.slack) * line.bytes);
  }
  // vectors reach beyond the end of the last row
  return round_up(size + kLanes * (int64_t)sizeof(float), kAlign);
}

// What each thread has for itself.
inline int64_t thread_bytes(const Plan& plan, int threads) {
  int64_t floats = 0;
  for (int i = 0; i < plan.layers; ++i) {
    const Step& step = plan.step[i];
    const int stage = int(&stage_of(plan, i) - plan.stage);
    const int64_t most = tile_rows_of(plan, stage, threads) + plan.line[step.input].slack;
    if (step.toom_cook) floats = larger(floats, toom_cook_workspace_floats(step.call, most));
  }
  return round_up(floats * (int64_t)sizeof(float), kAlign);
}

}  // namespace fastvoc::FASTVOC_ISA
