// Plans on the CPU: a network runs tile by tile.
//
// All threads walk through the same layers, and share the rows of each (team.h); what they know of the progress they
// count each for itself, so that nothing else is shared.

#include <algorithm>
#include <cstring>
#if defined(_OPENMP)
#include <omp.h>
#endif

#include "../../isa.h"
#include "compile.h"
#include "team.h"

namespace fastvoc::FASTVOC_ISA {
namespace {

template <class Precision>
using Element = typename Precision::Element;

constexpr int kDismissed = -1;  // others have done all that there was to do

// One thread's walk.
struct Walk {
  const Plan& plan;
  Member member;
  const char* packed;
  char* state;
  char* slot[kSlots];
  float* workspace;  // of this thread
  const float* x;
  const int64_t* x_strides;
  float* y;
  const int64_t* y_strides;
  int64_t x_first, x_frames;  // of the input's rows, those of this call
  int64_t y_first;            // of the result's rows
  bool works;  // or only counts
  Stream now;
  alignas(64) float sums[kChunk * 2 * kLanes + kLanes * kLanes];

  int64_t& made(int layer) { return now.made[layer + 1]; }

  char* at(int line, int64_t row) {
    const Line& of = plan.line[line];
    return slot[of.slot] + (row - now.begin[line]) * of.bytes;
  }

  template <class Kind>
  Kind* at(int line, int64_t row) {
    return reinterpret_cast<Kind*>(at(line, row));
  }

  // Take back what the last tile kept, up to row `end`.
  void open(int line, int64_t end) {
    const Line& of = plan.line[line];
    std::memcpy(slot[of.slot], state + of.history, (end - now.begin[line]) * of.bytes);
  }

  // The first row that readers still need.
  int64_t needed(int line) {
    const Line& of = plan.line[line];
    const int64_t end = made(of.layer);
    int64_t needed = end;
    for (int r = 0; r < of.readers; ++r) {
      const int reader = of.reader[r];
      const Step& step = plan.step[reader];
      if (step.residual == line || step.partial == line) needed = smaller(needed, made(reader));
      if (step.input != line) continue;
      const int64_t same = step.upsamples() ? (made(reader) + step.layer.left) / step.layer.stride : made(reader);
      needed = smaller(needed, same - step.before);
    }
    if (looks(of)) needed = smaller(needed, end - of.back - 1);  // the end may come, and show these
    return now.fronted[line] ? larger(needed, now.begin[line]) : now.begin[line];
  }

  // Keep what readers still need.
  void keep(int line) {
    const Line& of = plan.line[line];
    const int64_t from = needed(line);
    std::memcpy(state + of.history, at(line, from), (made(of.layer) - from) * of.bytes);
  }

  // A round of what one thread does.
  template <class Chores>
  bool alone(Chores chores) {
    const auto none = [](int64_t) { return int64_t{0}; };
    return !works || member.round(true, chores, 0, 1, none, [](int64_t, int64_t, int64_t, auto) {});
  }

  // Lay down padding that looks at the signal, as soon as enough of it is there; zeros are laid down elsewhere.
  int pad(int line, bool last) {
    const Line& of = plan.line[line];
    if (!looks(of)) return FASTVOC_OK;
    const bool mirrors = of.mode == FASTVOC_REFLECT;
    const int64_t end = made(of.layer);
    const bool begins = !now.fronted[line] && end > (mirrors ? of.front : 0);
    if (last && !begins && !now.fronted[line]) return FASTVOC_BAD_PADDING;
    if (last && end <= (mirrors ? of.back : 0)) return FASTVOC_BAD_PADDING;
    if (!begins && !last) return FASTVOC_OK;
    const auto copy = [&](int64_t to, int64_t from) {
      std::memcpy(at(line, to), at(line, from), of.bytes);
    };
    const bool needed = alone([&] {
      for (int64_t i = 1; begins && i <= of.front; ++i) copy(-i, mirrors ? i : 0);
      for (int64_t i = 0; last && i < of.back; ++i) copy(end + i, mirrors ? end - 2 - i : end - 1);
    });
    if (!needed) return kDismissed;
    now.fronted[line] = true;
    return FASTVOC_OK;
  }

  void pad_with_zeros(int line) {
    const Line& of = plan.line[line];
    if (of.mode != FASTVOC_ZERO) return;
    std::memset(at(line, made(of.layer)), of.zero_point, of.back * of.bytes);
  }

  // Bring rows [begin, end) of new frames into a line.
  void take(int line, int64_t begin, int64_t end) {
    const Line& of = plan.line[line];
    fastvoc_call call{};
    call.in_channels = plan.step[0].call.in_channels;
    call.in_frames = x_frames;
    call.slope = of.slope;
    const int64_t from = made(FASTVOC_INPUT) - x_first;
    if (of.precision == FASTVOC_FLOAT32)
      return load_tile(call, x, x_strides, from + begin, end - begin, end - begin,
                       at<float>(line, made(FASTVOC_INPUT) + begin), of.row);
    as_precision(of, [&](auto precision) {
      for (int64_t t = begin; t < end; ++t) {
        auto* const to = at<Element<decltype(precision)>>(line, made(FASTVOC_INPUT) + t);
        const float* const row = x + (from + t) * x_strides[2];
        int64_t c = 0;
        if (x_strides[1] == 1)
          for (; c + kLanes <= call.in_channels; c += kLanes) precision.store(to + c, leaky(load(row + c), of.slope));
        for (; c < of.row; ++c)
          precision.store(to + c, activate(c < call.in_channels ? row[c * x_strides[1]] : 0, of.slope));
      }
    });
  }

  // Call a function with each form of a layer's result.
  template <class Each>
  void for_each_form(int layer, Each each) const {
    for (int l = 0; l < plan.lines; ++l)
      if (plan.line[l].layer == layer) each(l);
  }

  // Take frames of the network's input.
  int take(int64_t count, bool last) {
    int64_t forms = 0;
    bool spills = false;  // rows of odd length do, into the next one
    for_each_form(FASTVOC_INPUT, [&](int line) {
      ++forms;
      spills |= plan.line[line].row % kLanes != 0;
    });
    const auto open_all = [&] { for_each_form(FASTVOC_INPUT, [&](int line) { open(line, made(FASTVOC_INPUT)); }); };
    const auto take_rows = [&](int64_t begin, int64_t end, int64_t first, auto part) {
      int64_t form = 0;
      for_each_form(FASTVOC_INPUT, [&](int line) {
        if (const int64_t number = form++; number >= first)
          part(number, [&] { member.commit([&] { take(line, begin, end); }); });
      });
    };
    const auto parts = [&](int64_t) { return forms; };
    if (works && !member.round(true, open_all, count, spills ? larger(count, 1) : kLanes, parts, take_rows))
      return kDismissed;
    made(FASTVOC_INPUT) += count;
    const auto end = [&] { for_each_form(FASTVOC_INPUT, [&](int line) { pad_with_zeros(line); }); };
    if (last && !alone(end)) return kDismissed;
    return pad_all(FASTVOC_INPUT, last);
  }

  // Pad the new rows of a layer where padding looks at them.
  int pad_all(int layer, bool last) {
    int error = FASTVOC_OK;
    for_each_form(layer, [&](int line) {
      if (error == FASTVOC_OK) error = pad(line, last);
    });
    return error;
  }

  // Rows of a line that may be read.
  int64_t visible(int line, const Stage& stage, int index) {
    const Line& of = plan.line[line];
    if (looks(of) && !now.fronted[line]) return -1;
    return of.layer < stage.first ? now.seen[index] : made(of.layer);
  }

  // Rows of a layer's result that can be known.
  int64_t ready(const Step& step, int index, bool last) {
    const Stage& stage = plan.stage[index];
    const int64_t seen = visible(step.input, stage, index);
    if (seen < 0) return 0;
    int64_t rows;
    if (step.upsamples()) {
      const int64_t total = (seen - 1) * step.layer.stride + step.layer.taps - step.layer.left - step.layer.right;
      rows = last ? total : smaller(total, seen * step.layer.stride - step.layer.left);
      if (seen == 0) rows = 0;
    } else if (step.activates()) {
      rows = last ? seen : larger(seen - step.wait, 0);
    } else {
      rows = last ? seen + step.layer.left + step.layer.right - span_of(step.call) : seen - step.wait;
    }
    for (const int line : {step.residual, step.partial})
      if (line >= 0) rows = smaller(rows, visible(line, stage, index));
    if (last || step.block == 1) return rows;
    if (!step.upsamples()) return rows / step.block * step.block;
    // whole blocks of rows of the input, from the first that counts on
    const int64_t first = step.layer.left / step.layer.stride;
    const int64_t blocks = larger((rows + step.layer.left) / step.layer.stride - first, 0) / step.block;
    return (first + blocks * step.block) * step.layer.stride - step.layer.left;
  }

  // Visit `count` rows of `width` numbers, vectors first; rows without a gap are one long row.
  template <class Each>
  static void for_each_vector(int64_t count, int64_t width, bool dense, Each each) {
    const int64_t rows = dense ? 1 : count, length = dense ? count * width : width;
    for (int64_t r = 0; r < rows; ++r) {
      int64_t c = 0;
      for (; c + kLanes <= length; c += kLanes) each(r, c, Vector{});
      for (; c < length; ++c) each(r, c, float{});
    }
  }

  template <class Value>
  static Value fetch(const float* from) {
    Value value;
    __builtin_memcpy(&value, from, sizeof value);
    return value;
  }

  template <class Value>
  static Value leaky(Value value, float slope) {
    return value > 0 ? value : value * slope;
  }

  // From sums to rows: add, divide, activate, and store each form. The sums are in the first-level cache, so that one
  // thing is done to all of them at a time.
  void finish(const Step& step, const Panel& panel, float* part, int64_t row, int64_t count, int64_t apart) {
    const int64_t width = panel.width;
    const auto change = [&](auto function) {
      for_each_vector(count, width, true, [&](int64_t, int64_t c, auto kind) {
        Float32::store(part + c, function(fetch<decltype(kind)>(part + c)));
      });
    };
    const auto combine = [&](int line, auto function) {
      if (line < 0) return;
      const float* from = at<float>(line, row) + panel.first;
      const int64_t length = plan.line[line].row;
      for_each_vector(count, width, length == width, [&](int64_t r, int64_t c, auto kind) {
        using Value = decltype(kind);
        float* sum = part + r * width + c;
        Float32::store(sum, function(fetch<Value>(sum), fetch<Value>(from + r * length + c)));
      });
    };
    if (step.shortcut < 0) combine(step.residual, [](auto sum, auto skip) { return sum + skip; });
    combine(step.partial, [](auto sum, auto others) { return others + sum; });
    if (step.divisor != 1.0f) change([&](auto sum) { return sum / step.divisor; });
    if (step.slope_after != 1.0f) change([&](auto sum) { return leaky(sum, step.slope_after); });
    if (step.layer.tanh)  // only vectors have one, and there is room behind the last sum
      for (int64_t i = 0; i < count * width; i += kLanes) store(part + i, tanh(load(part + i)));

    for (int f = 0; f < step.line_count; ++f) {
      const int line = step.lines[f];
      as_precision(plan.line[line], [&](auto precision) {
        put(precision, plan.line[line], at<Element<decltype(precision)>>(line, row), panel, part, count, apart);
      });
    }
    if (step.line_count == 0) {
      Rows<float> target = rows_at(y, y_strides, 0, row - y_first);
      target.along *= apart;
      store_chunk(panel, step.call, part, count, {nullptr, 0, 0}, target);
    }
  }

  // Store one form of a panel's results in every `apart`-th row.
  template <class Precision>
  static void put(const Precision precision, const Line& line, Element<Precision>* rows, const Panel& panel,
                  const float* part, int64_t count, int64_t apart) {
    const int64_t width = panel.width, along = line.row * apart;
    Element<Precision>* const to = rows + panel.first;
    const auto store_all = [&](auto function) {
      for_each_vector(count, width, along == width, [&](int64_t r, int64_t c, auto kind) {
        precision.store(to + r * along + c, function(fetch<decltype(kind)>(part + r * width + c)));
      });
    };
    if (line.slope == 1.0f) {
      store_all([](auto value) { return value; });
    } else {
      store_all([slope = line.slope](auto value) { return leaky(value, slope); });
    }
    // Channels that only fill up a row meet weights of zero, but must be numbers.
    if (panel.first + width >= line.width)
      for (int64_t r = 0; r < count; ++r)
        for (int64_t c = width; c < line.row - panel.first; ++c) precision.store(to + r * along + c, 0.0f);
  }

  // Parts of `count` rows of a layer.
  int64_t parts_of(const Step& step, int64_t count) const {
    if (step.activates()) return larger(step.call.in_channels / kLanes, 1);
    const int64_t phases = step.upsamples() ? step.layer.stride : 1;
    const bool at_once = step.upsamples() && !step.toom_cook;
    return step.panels * phases * (at_once ? 1 : (count + step.part_rows - 1) / step.part_rows);
  }

  // Rows [begin, end) of those from `from` on, as are those of the next two.
  template <class Part>
  void convolve(const Step& step, int64_t from, int64_t begin, int64_t end, int64_t first, Part part) {
    const int64_t row = plan.line[step.input].row;
    const float* bias = reinterpret_cast<const float*>(packed + step.bias);
    if (step.toom_cook) {
      const float* rows = at<float>(step.input, from + begin - step.before);
      const auto only = [&](int64_t number, auto run) { return number < first || part(number, run); };
      return toom_cook(step.call, rows, row, end - begin, reinterpret_cast<const float*>(packed + step.packed), bias,
                       workspace, only, [&](const Panel& panel, float* made, int64_t chunk, int64_t height) {
                         member.commit([&] { finish(step, panel, made, from + begin + chunk, height, 1); });
                       });
    }
    as_precision(plan.line[step.input], [&](auto precision) {
      using Operand = Element<decltype(precision)>;
      const Operand* rows = at<Operand>(step.input, from + begin - step.before);
      Second second;
      if (step.shortcut >= 0)
        second = {at<Operand>(step.residual, from + begin) - rows,
                  (plan.step[step.shortcut].packed - step.packed) / int64_t{sizeof(Operand)}};
      int64_t number = 0;
      precision.for_each_panel(step.call, row, [&](const Panel& panel) {
        for (int64_t block = 0; block < end - begin; block += step.part_rows, ++number) {
          if (number < first) continue;
          const auto run = [&] {
            precision.convolve_panel(
                panel, step.call, rows + block * row, row, smaller(step.part_rows, end - begin - block),
                reinterpret_cast<const Operand*>(packed + step.packed), bias, sums,
                [&](float* made, int64_t chunk, int64_t height) {
                  member.commit([&] { finish(step, panel, made, from + begin + block + chunk, height, 1); });
                },
                second);
          };
          if (!part(number, run)) return;
        }
      });
    });
  }

  // Rows of the input, of which row q begins the rows q * stride - left and following; `from` to `to` are wanted.
  template <class Part>
  void upsample(const Step& step, int64_t from, int64_t to, int64_t begin, int64_t end, int64_t first, Part part) {
    const int64_t row = plan.line[step.input].row;
    const float* bias = reinterpret_cast<const float*>(packed + step.bias);
    const auto finish_phase = [&](const Panel& panel, int64_t phase, float* made, int64_t chunk, int64_t height) {
      const int64_t q = begin + chunk, shift = phase - step.layer.left;
      const int64_t skipped = q * step.layer.stride + shift < from;
      const int64_t over = (q + height - 1) * step.layer.stride + shift >= to;
      if (height > skipped + over)
        finish(step, panel, made + skipped * panel.width, (q + skipped) * step.layer.stride + shift,
               height - skipped - over, step.layer.stride);
    };
    if (step.toom_cook) {
      const auto only = [&](int64_t number, auto run) { return number < first || part(number, run); };
      return toom_cook_phases(
          step.call, at<float>(step.input, begin - step.before), row, end - begin,
          reinterpret_cast<const float*>(packed + step.packed), step.layer.stride,
          step.packed_phase / int64_t{sizeof(float)}, bias, workspace, only,
          [&](const Panel& panel, int64_t phase, float* made, int64_t chunk, int64_t height) {
            member.commit([&] { finish_phase(panel, phase, made, chunk, height); });
          });
    }
    as_precision(plan.line[step.input], [&](auto precision) {
      using Operand = Element<decltype(precision)>;
      const Operand* rows = at<Operand>(step.input, begin - step.before);
      int64_t number = 0;
      precision.for_each_panel(step.call, row, [&](const Panel& panel) {
        for (int64_t phase = 0; phase < step.layer.stride; ++phase, ++number) {
          if (number < first) continue;
          const auto run = [&] {
            precision.convolve_panel(panel, step.call, rows, row, end - begin,
                                     reinterpret_cast<const Operand*>(packed + step.packed + phase * step.packed_phase),
                                     bias, sums, [&](float* made, int64_t chunk, int64_t height) {
                                       member.commit([&] { finish_phase(panel, phase, made, chunk, height); });
                                     });
          };
          if (!part(number, run)) return;
        }
      });
    });
  }

  // Of a signal that has not ended yet, more rows than it will have.
  template <class Part>
  void smooth(const Step& step, int64_t from, int64_t frames, int64_t begin, int64_t end, int64_t first, Part part) {
    const int64_t channels = step.call.in_channels;
    const float* const weight = reinterpret_cast<const float*>(packed + step.packed);
    int64_t vectors = 0;
    for_each_snake_vector(channels, [&](int64_t channel, int64_t) {
      const int64_t own = smaller(vectors++, larger(channels / kLanes, 1) - 1);  // the last two may share channels
      if (own < first) return;
      part(own, [&] {
        const int64_t base = now.begin[step.input];
        const SnakeRows rows{at<float>(step.input, base) + channel, plan.line[step.input].row, base, frames};
        smooth_snake_vector(
            rows, snake_parameters(weight, channels, channel), from + begin, end - begin, sums,
            [&](float* made, int64_t chunk, int64_t height) {
              member.commit([&] { finish(step, {channel, kLanes, 1, 0}, made, from + begin + chunk, height, 1); });
            });
      });
    });
  }

  int run_layer(int layer, int stage, bool last) {
    const Step& step = plan.step[layer];
    const int64_t from = made(layer), to = larger(ready(step, stage, last), from);
    made(layer) = to;
    int read_last[3], count = 0;
    for (const int line : {step.input, step.residual, step.partial})
      if (line >= 0 && plan.line[line].last == layer && !std::count(read_last, read_last + count, line))
        read_last[count++] = line;
    const auto chores = [&] {
      for (int f = 0; f < step.line_count; ++f) open(step.lines[f], from);
      for (int r = 0; r < count && !last; ++r) keep(read_last[r]);
      for (int f = 0; f < step.line_count && last; ++f) pad_with_zeros(step.lines[f]);
    };
    // Of an upsampling, rows of its input are shared.
    const int64_t stride = step.layer.stride, left = step.layer.left;
    const bool up = step.upsamples() && to > from;
    const int64_t first = up ? (from + left) / stride : 0, rows = up ? (to - 1 + left) / stride + 1 - first : to - from;
    const auto visit = [&](int64_t begin, int64_t end, int64_t part_from, auto part) {
      if (step.upsamples()) {
        upsample(step, from, to, first + begin, first + end, part_from, part);
      } else if (step.activates()) {
        smooth(step, from, last ? to : kMostFrames * kMostCount, begin, end, part_from, part);
      } else {
        convolve(step, from, begin, end, part_from, part);
      }
    };
    const auto parts = [&](int64_t some) { return parts_of(step, some); };
    const int64_t unit = step.toom_cook ? step.block : kRows;
    if (works && !member.round(step.line_count + count > 0, chores, rows, unit, parts, visit)) return kDismissed;
    for (int r = 0; r < count; ++r) now.begin[read_last[r]] = needed(read_last[r]);
    return pad_all(layer, last);
  }

  int run_stage(int index, bool last) {
    if (index == plan.stages) return FASTVOC_OK;
    const Stage& stage = plan.stage[index];
    for (const int64_t end = made(stage.source);;) {
      now.seen[index] = smaller(now.seen[index] + stage.rows * member.threads(), end);
      const bool all = now.seen[index] == end, ends = last && all;
      for (int layer = stage.first; layer < stage.end; ++layer) {
        if (plan.step[layer].is_shortcut) continue;
        if (const int error = run_layer(layer, index, ends)) return error;
      }
      if (const int error = run_stage(index + 1, ends)) return error;
      if (const int error = close_behind(index, ends)) return error;
      if (all) return FASTVOC_OK;
    }
  }

  // Close the lines that the next stage has read.
  int close_behind(int index, bool last) {
    const auto for_each_line = [&](auto each) {
      for (int l = 0; l < plan.lines; ++l)
        if (plan.line[l].stage == index && plan.line[l].last == kMaxLayers) each(l);
    };
    if (!last && !alone([&] { for_each_line([&](int line) { keep(line); }); })) return kDismissed;
    for_each_line([&](int line) { now.begin[line] = needed(line); });
    return FASTVOC_OK;
  }

  int run(int64_t frames, bool last) {
    for (int64_t left = frames;;) {
      const int64_t count = smaller(left, plan.stage[0].rows * member.threads());
      left -= count;
      const bool ends = last && left == 0;
      if (const int error = take(count, ends)) return error;
      if (const int error = run_stage(0, ends)) return error;
      if (const int error = close_behind(-1, ends)) return error;
      if (left == 0) return FASTVOC_OK;
    }
  }
};

const Plan& plan_at(const void* memory) { return *static_cast<const Plan*>(memory); }

int64_t size(const fastvoc_network&) { return sizeof(Plan); }

int make(const fastvoc_network& network, void* memory) { return compile(network, *static_cast<Plan*>(memory)); }

int64_t packed_size(const void* memory) { return plan_at(memory).packed; }

int64_t state_size(const void* memory) { return plan_at(memory).state; }

int64_t workspace_size(const void* memory, int threads) {
  int64_t bytes = threads * thread_bytes(plan_at(memory), threads) + Team::bytes(threads);
  for (int s = 0; s < plan_at(memory).slots; ++s) bytes += slot_bytes(plan_at(memory), s, threads);
  return bytes;
}

int toom_cook_layers(const void* memory) { return plan_at(memory).toom_cook_layers; }

template <class Precision>
void pack_weight(Precision, const fastvoc_layer& layer, const Step& step, int64_t row, char* packed) {
  auto* const to = reinterpret_cast<Element<Precision>*>(packed + step.packed);
  if (step.activates()) {
    snake_pack(layer.in_channels, layer.weight, reinterpret_cast<float*>(packed + step.packed));
  } else if (step.toom_cook && step.upsamples()) {
    for (int64_t phase = 0; phase < layer.stride; ++phase)
      toom_cook_pack(step.call, phase_weights(step.call, layer.weight, layer.taps, layer.stride, phase),
                     reinterpret_cast<float*>(packed + step.packed + phase * step.packed_phase));
  } else if (step.toom_cook) {
    toom_cook_pack(step.call, conv_weights(step.call, layer.weight), reinterpret_cast<float*>(to));
  } else if (step.upsamples()) {
    Precision::pack_phases(step.layer, row, step.packed_phase, layer.weight, to);
  } else {
    Precision::pack(step.call, row, layer.weight, to);
  }
}

// Whether a plan was made for this network.
bool is_of(const Plan& plan, const fastvoc_network& network) {
  if (network.isa != plan.isa || network.count != plan.layers) return false;
  for (int i = 0; i < plan.layers; ++i) {
    const Step& step = plan.step[i];
    const fastvoc_layer& layer = network.layers[i];
    if (!layer.weight || layer.kind != step.layer.kind || layer.taps != step.layer.taps ||
        layer.stride != step.layer.stride || precision_of(network, layer) != plan.line[step.input].precision ||
        layer.in_channels != step.call.in_channels ||
        layer.out_channels != step.call.out_channels)
      return false;
  }
  return true;
}

int pack(const fastvoc_network& network, const void* memory, int threads, void* packed) {
  const Plan& plan = plan_at(memory);
  if (!is_of(plan, network)) return FASTVOC_BAD_NETWORK;
#pragma omp parallel for num_threads(threads) schedule(static, 1) if (threads > 1)
  for (int i = 0; i < plan.layers; ++i) {
    const Step& step = plan.step[i];
    const Line& input = plan.line[step.input];
    const fastvoc_layer& layer = network.layers[i];
    char* const bytes = static_cast<char*>(packed);
    as_precision(input, [&](auto precision) { pack_weight(precision, layer, step, input.row, bytes); });
    float* const bias = reinterpret_cast<float*>(bytes + step.bias);
    const float* const other = step.shortcut >= 0 ? network.layers[step.shortcut].bias : nullptr;
    for (int64_t c = 0; c < layer.out_channels; ++c) bias[c] = (layer.bias ? layer.bias[c] : 0) + (other ? other[c] : 0);
  }
  return FASTVOC_OK;
}

void begin(const void* memory, void* state) {
  const Plan& plan = plan_at(memory);
  std::memset(state, 0, sizeof(Stream));
  Stream& stream = *static_cast<Stream*>(state);
  for (int l = 0; l < plan.lines; ++l) {
    const Line& line = plan.line[l];
    stream.begin[l] = -line.front;
    stream.fronted[l] = !looks(line);
    // the others are read only behind what was kept
    std::memset(static_cast<char*>(state) + line.history, line.zero_point, line.front * line.bytes);
  }
}

int64_t ready(const void* memory, const void* state, int64_t frames, int last) {
  const Plan& plan = plan_at(memory);
  Slot nothing;
  Team nobody(1, &nothing);
  Walk walk{plan, Member(nobody, 0)};
  std::memcpy(&walk.now, state, sizeof(Stream));
  const int64_t before = walk.made(plan.layers - 1);
  return walk.run(frames, last) == FASTVOC_OK ? walk.made(plan.layers - 1) - before : -1;
}

int run(const void* memory, const void* packed, void* state, void* workspace, int threads, const float* x,
        const int64_t* x_strides, int64_t frames, int last, float* y, const int64_t* y_strides) {
  const Plan& plan = plan_at(memory);
  int result = FASTVOC_OK;
  const auto run = [&](Team& team, int thread, int present) {
    Walk walk{plan, Member(team, thread), static_cast<const char*>(packed), static_cast<char*>(state)};
    char* place = static_cast<char*>(workspace) + Team::bytes(threads);
    for (int s = 0; s < plan.slots; ++s) {
      walk.slot[s] = place;
      place += slot_bytes(plan, s, threads);
    }
    walk.x = x;
    walk.x_strides = x_strides;
    walk.x_frames = frames;
    walk.y = y;
    walk.y_strides = y_strides;
    walk.workspace = reinterpret_cast<float*>(place + thread * thread_bytes(plan, threads));
    walk.works = true;
    std::memcpy(&walk.now, state, sizeof(Stream));
    walk.x_first = walk.made(FASTVOC_INPUT);
    walk.y_first = walk.made(plan.layers - 1);
    const int error = walk.run(frames, last);
    walk.member.leave();
    if (thread > 0) return;
    walk.member.stay(present);  // lest its memory go while others read it
    result = error;
    std::memcpy(state, &walk.now, sizeof(Stream));
  };
  Team team(threads, workspace);
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
#if defined(_OPENMP)
    run(team, omp_get_thread_num(), omp_get_num_threads());
#else
    run(team, 0, 1);
#endif
  }
  return result;
}

}  // namespace

const Plans plans = {size, make, packed_size, pack, state_size, workspace_size, toom_cook_layers, begin, ready, run};

}  // namespace fastvoc::FASTVOC_ISA
