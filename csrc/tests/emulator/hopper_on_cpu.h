// Runs what only architecture 90a has on the CPU (see cuda_on_cpu.h). To be
// included in front of cuda/device/hopper.cuh.
//
// What hardware may do at any time is done as late as it may be, or at once, by lot:
// - A copy of a run happens at once, or when no thread can run; and so does what blocks of a cluster send each other.
// - Multiplications happen when somebody waits for them. Their operands must not have changed since they were asked
//   for.
//
// The asynchronous proxy sees shared memory in a copy of its own: runs arrive in both, and what threads write arrives
// in the other one when they call publish_writes.
#pragma once

#include <map>

#include "cuda_on_cpu.h"

#include "../../cuda/device/hopper_instructions.cuh"

#define FASTVOC_HOPPER_KERNEL(name, Parameter, threads, blocks) FASTVOC_KERNEL(name, Parameter, threads)

namespace fastvoc::cuda {

constexpr bool kWarpgroups = true;
using Barrier = unsigned long long;

namespace on_cpu {

constexpr Barrier kBegun = 0xba55ba11ba55ba11;

struct Phases {
  int expected, missing;
  long long bytes = 0;  // less than none, where more has come than is expected so far
  unsigned ended = 0;
  bool published = false;
  std::vector<Fibre*> waiting = {};
};

struct Run {
  char* shared;
  const void* global;
  size_t bytes;
  Barrier* barrier;
};

struct Sent {
  char* to;
  Vector16 value;
  Phases* barrier;
};

struct Product {
  unsigned a, b;
  unsigned long long bytes_then;  // bytes_then: a number made of the operands when it was asked for
  int precision, columns;
  bool fenced;
  unsigned group;
  float* sum[kWarp];
};

struct WarpProducts {
  std::vector<Product> waiting;
  unsigned groups = 0, all = 0;  // all: a number made of everything that the warp has asked for
  bool fenced = false;
  float* sum[kWarp];
  unsigned a[kWarp], b[kWarp];
};

struct Hopper {
  std::map<const void*, Phases> barriers;
  std::vector<Run> runs;
  std::vector<Sent> sent;
  std::vector<char> proxy;  // shared memory as the asynchronous proxy sees it
  WarpProducts warp[kAllWarps];

  Hopper();
};
inline Hopper hopper;

// The place of a block's shared memory that the current one's has in its own.
template <class T>
T* place_in(int block, T* own, size_t bytes, size_t alignment, const char* what) {
  check_shared(own, bytes, alignment, what);
  if (block < 0 || block >= machine.blocks) fail("%s: there is no block %d in this cluster", what, block);
  return reinterpret_cast<T*>(machine.shared_of[block] + (reinterpret_cast<char*>(own) - machine.shared));
}

inline Phases& phases_at(Barrier* barrier, const char* what) {
  const auto found = hopper.barriers.find(barrier);
  if (found == hopper.barriers.end()) fail("%s: there is no barrier", what);
  if (*barrier != kBegun) fail("%s: something was written over the barrier", what);
  return found->second;
}
inline Phases& phases(Barrier* barrier, const char* what) {
  check_shared(barrier, sizeof *barrier, sizeof *barrier, what);
  return phases_at(barrier, what);
}

inline void end_phase_if_complete(Phases& state) {
  if (!state.missing && state.bytes < 0) fail("a phase does not expect so many bytes");
  if (state.missing || state.bytes) return;
  ++state.ended;
  state.missing = state.expected;
  for (const Fibre* fibre : state.waiting) machine.warp[fibre->warp].runnable |= 1u << fibre->slot;
  state.waiting.clear();
}

inline void arrive(Phases& state, int bytes) {
  state.bytes += bytes;
  if (state.missing-- == 0) fail("arrive: %d threads have already arrived", state.expected);
  end_phase_if_complete(state);
}

inline void finish_run(size_t number) {
  const Run run = hopper.runs[number];
  hopper.runs.erase(hopper.runs.begin() + long(number));
  std::memcpy(run.shared, run.global, run.bytes);
  std::memcpy(&hopper.proxy[size_t(run.shared - machine.shared)], run.global, run.bytes);
  Phases& state = phases(run.barrier, "copy_run");
  state.bytes -= long(run.bytes);
  if (state.bytes < 0) fail("copy_run: the phase does not expect so many bytes");
  end_phase_if_complete(state);
}

inline void finish_sent(size_t number) {
  const Sent sent = hopper.sent[number];
  hopper.sent.erase(hopper.sent.begin() + long(number));
  std::memcpy(sent.to, &sent.value, sizeof sent.value);
  sent.barrier->bytes -= long(sizeof sent.value);
  end_phase_if_complete(*sent.barrier);
}

inline void wait_for_phase(Phases& state, int parity, const char* file, int line) {
  Fibre& fibre = *machine.current;
  while (int(state.ended & 1) == parity) {
    state.waiting.push_back(&fibre);
    fibre.what = "a phase", fibre.file = file, fibre.line = line;
    sleep();
    fibre.what = nullptr;
  }
}

// Byte `k` of row or column `row` of an operand.
inline const char* element(unsigned operand, int row, int k) {
  const unsigned start = (operand & 0x3fff) << 4, leading = (operand >> 16 & 0x3fff) << 4, stride = 128;
  if (operand >> 14 & 3 || operand >> 30) fail("multiply_by_warpgroup: an operand that is none");
  const unsigned offset = start + row % 8 * 16 + row / 8 * stride + k / 16 * leading + k % 16;
  if (offset / 16 * 16 + 16 > machine.shared_bytes)
    fail("multiply_by_warpgroup: byte %u of shared memory, which has %zu", offset, machine.shared_bytes);
  return &hopper.proxy[offset];
}

__attribute__((noinline, no_sanitize("address"), no_sanitize("undefined"))) inline unsigned long long bytes_of(
    const Product& product, int warp) {
  unsigned long long all = 1;
  const auto add = [&](const char* chunk) {
    unsigned long long word[2];
    std::memcpy(word, chunk, 16);
    all = ((all ^ word[0]) * 0x9e3779b97f4a7c15 ^ word[1]) * 0xbf58476d1ce4e5b9;
    all ^= all >> 29;
  };
  for (int k = 0; k < 32; k += 16) {
    for (int row = 0; row < 16; ++row) add(element(product.a, warp % 4 * 16 + row, k));
    for (int column = 0; column < product.columns; ++column) add(element(product.b, column, k));
  }
  return all;
}

inline float number(const char* from, int precision) {
  unsigned short bits;
  std::memcpy(&bits, from, 2);
  return precision == kFloat16 ? from_float16(bits) : bits_as<float>(static_cast<unsigned>(bits) << 16);
}

__attribute__((noinline, no_sanitize("address"), no_sanitize("undefined"))) inline void multiply_now(
    const Product& product, int warp) {
  if (bytes_of(product, warp) != product.bytes_then)
    fail("multiply_by_warpgroup: operands of warp %d changed before somebody waited for the product", warp);
  float a[16][16];
  std::vector<float> b(size_t(16 * product.columns));
  for (int k = 0; k < 16; ++k) {
    const auto at = [&](unsigned operand, int row) { return number(element(operand, row, 2 * k), product.precision); };
    for (int row = 0; row < 16; ++row) a[row][k] = at(product.a, warp % 4 * 16 + row);
    for (int column = 0; column < product.columns; ++column)
      b[size_t(k * product.columns + column)] = at(product.b, column);
  }
  std::vector<float> line(static_cast<size_t>(product.columns));
  for (int row = 0; row < 16; ++row) {
    // Column c of row r is element c / 8 * 4 + r / 8 * 2 + c % 2 of lane r % 8 * 4 + c % 8 / 2.
    const auto sum = [&](int c) -> float& {
      return product.sum[row % 8 * 4 + c % 8 / 2][c / 8 * 4 + row / 8 * 2 + c % 2];
    };
    for (int c = 0; c < product.columns; ++c) line[size_t(c)] = sum(c);
    for (int k = 0; k < 16; ++k) {
      const float factor = a[row][k];
      const float* of_k = &b[size_t(k * product.columns)];
      for (int c = 0; c < product.columns; ++c) line[size_t(c)] += factor * of_k[c];
    }
    for (int c = 0; c < product.columns; ++c) sum(c) = product.fenced ? line[size_t(c)] : bits_as<float>(0x7fffffffu);
  }
}

inline Hopper::Hopper() {
  begin_block.push_back([] {
    hopper.barriers.clear();
    hopper.proxy.assign(machine.shared_bytes, char(0xff));
    for (WarpProducts& products : hopper.warp) products = WarpProducts();
  });
  idle.push_back([]() -> bool {
    if (hopper.runs.empty()) return false;
    finish_run(random(unsigned(hopper.runs.size())));
    return true;
  });
  idle.push_back([]() -> bool {
    if (hopper.sent.empty()) return false;
    finish_sent(random(unsigned(hopper.sent.size())));
    return true;
  });
  end_block.push_back([] {
    if (!hopper.runs.empty() || !hopper.sent.empty()) fail("a block ended while something was on its way to it");
    for (const auto& barrier : hopper.barriers)
      if (machine.blocks > 1 && (barrier.second.missing != barrier.second.expected || barrier.second.bytes))
        fail("a cluster ended in the middle of a phase");
    for (int w = 0; w < machine.warps; ++w) {
      if (!hopper.warp[w].waiting.empty()) fail("a block ended while warp %d was multiplying", w);
      if (hopper.warp[w].all != hopper.warp[w / 4 * 4].all) fail("the warps of a warpgroup did not multiply the same");
    }
  });
}

}  // namespace on_cpu

inline void begin_barrier(Barrier* barrier, int arrivals) {
  on_cpu::check_shared(barrier, sizeof *barrier, sizeof *barrier, "begin_barrier");
  if (arrivals < 1 || !on_cpu::hopper.barriers.insert({barrier, {arrivals, arrivals}}).second)
    on_cpu::fail("begin_barrier: %d arrivals, or there already is one", arrivals);
  *barrier = on_cpu::kBegun;
}
inline void publish_barriers(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  if (on_cpu::skipped(file, line)) return;
  for (auto& barrier : on_cpu::hopper.barriers) barrier.second.published = true;
}
inline void arrive(Barrier* barrier, const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  if (!on_cpu::skipped(file, line)) on_cpu::arrive(on_cpu::phases(barrier, "arrive"), 0);
}
inline void arrive_expecting(Barrier* barrier, int bytes, const char* file = __builtin_FILE(),
                             int line = __builtin_LINE()) {
  if (!on_cpu::skipped(file, line)) on_cpu::arrive(on_cpu::phases(barrier, "arrive"), bytes);
}
inline void wait_for_phase(Barrier* barrier, int parity, const char* file = __builtin_FILE(),
                           int line = __builtin_LINE()) {
  if (on_cpu::skipped(file, line)) return;
  on_cpu::wait_for_phase(on_cpu::phases(barrier, "wait_for_phase"), parity, file, line);
}
inline void copy_run(void* shared, const void* global, int bytes, Barrier* barrier) {
  on_cpu::check_shared(shared, size_t(bytes), 16, "copy_run");
  if (bytes <= 0 || bytes % 16 || reinterpret_cast<uintptr_t>(global) % 16)
    on_cpu::fail("copy_run: %d bytes, or a source that is not aligned to 16", bytes);
  if (!on_cpu::phases(barrier, "copy_run").published) on_cpu::fail("copy_run: the barrier has not been published");
  on_cpu::hopper.runs.push_back({static_cast<char*>(shared), global, size_t(bytes), barrier});
  if (on_cpu::random(2)) on_cpu::finish_run(on_cpu::hopper.runs.size() - 1);
}

// ---- blocks of a cluster

inline void cluster_barrier(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  if (on_cpu::skipped(file, line)) return;
  on_cpu::meet(on_cpu::machine.all_blocks, on_cpu::machine.warps * on_cpu::kWarp, "cluster barrier", file, line, [] {});
}
inline void arrive_in(int block, Barrier* barrier, const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  if (on_cpu::skipped(file, line)) return;
  Barrier* const there = on_cpu::place_in(block, barrier, sizeof *barrier, sizeof *barrier, "arrive_in");
  on_cpu::arrive(on_cpu::phases_at(there, "arrive_in"), 0);
}
inline void send(int block, void* place, const Vector16& value, Barrier* barrier) {
  char* const to = on_cpu::place_in(block, static_cast<char*>(place), 16, 16, "send");
  on_cpu::Phases& state =
      on_cpu::phases_at(on_cpu::place_in(block, barrier, sizeof *barrier, sizeof *barrier, "send"), "send");
  if (!state.published) on_cpu::fail("send: the barrier has not been published");
  on_cpu::hopper.sent.push_back({to, value, &state});
  if (on_cpu::random(2)) on_cpu::finish_sent(on_cpu::hopper.sent.size() - 1);
}

inline void publish_writes(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  if (on_cpu::skipped(file, line)) return;
  std::memcpy(on_cpu::hopper.proxy.data(), on_cpu::machine.shared, on_cpu::machine.shared_bytes);
}

inline unsigned operand(const void* first, int chunk) {
  on_cpu::check_shared(first, 16, 16, "operand");
  const auto offset = static_cast<unsigned>(static_cast<const char*>(first) - on_cpu::machine.shared);
  return offset >> 4 | static_cast<unsigned>(chunk) >> 4 << 16;
}

inline void begin_products(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  if (on_cpu::skipped(file, line)) return;
  const int w = on_cpu::machine.current->warp;
  on_cpu::meet_warp("begin_products", [w](on_cpu::Warp&) { on_cpu::hopper.warp[w].fenced = true; });
}
inline void commit_products(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  if (on_cpu::skipped(file, line)) return;
  const int w = on_cpu::machine.current->warp;
  on_cpu::meet_warp("commit_products", [w](on_cpu::Warp&) {
    ++on_cpu::hopper.warp[w].groups;
    on_cpu::hopper.warp[w].fenced = false;
  });
}
template <int pending>
inline void wait_for_products(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  if (on_cpu::skipped(file, line)) return;
  const int w = on_cpu::machine.current->warp;
  on_cpu::meet_warp("wait_for_products", [w](on_cpu::Warp&) {
    on_cpu::WarpProducts& warp = on_cpu::hopper.warp[w];
    size_t done = 0;
    for (; done < warp.waiting.size() && int(warp.groups - warp.waiting[done].group) > pending; ++done)
      on_cpu::multiply_now(warp.waiting[done], w);
    warp.waiting.erase(warp.waiting.begin(), warp.waiting.begin() + long(done));
  });
}
template <int columns>
inline void hold(float (&)[columns / 8][4]) {}

template <int precision, int columns>
inline void multiply_by_warpgroup(float (&sum)[columns / 8][4], unsigned a, unsigned b) {
  static_assert(precision != kTfloat32 && columns % 8 == 0 && columns >= 8 && columns <= 256);
  const int w = on_cpu::machine.current->warp, lane = on_cpu::lane();
  on_cpu::WarpProducts& own = on_cpu::hopper.warp[w];
  own.sum[lane] = &sum[0][0], own.a[lane] = a, own.b[lane] = b;
  on_cpu::meet_warp("multiply_by_warpgroup", [w](on_cpu::Warp&) {
    on_cpu::WarpProducts& warp = on_cpu::hopper.warp[w];
    for (int i = 1; i < on_cpu::kWarp; ++i)
      if (warp.a[i] != warp.a[0] || warp.b[i] != warp.b[0])
        on_cpu::fail("multiply_by_warpgroup: lanes of warp %d differ in operands", w);
    on_cpu::Product product{warp.a[0], warp.b[0], 0, precision, columns, warp.fenced, warp.groups, {}};
    std::memcpy(product.sum, warp.sum, sizeof product.sum);
    product.bytes_then = on_cpu::bytes_of(product, w);
    warp.all = (warp.all * 31 + product.a) * 31 + product.b + unsigned(columns);
    warp.waiting.push_back(product);
  });
}

// The hardware takes multiples of 8.
template <int registers>
inline void give_registers() {
  static_assert(registers % 8 == 0 && registers >= 24 && registers <= 256);
}
template <int registers>
inline void take_registers() {
  static_assert(registers % 8 == 0 && registers >= 24 && registers <= 256);
}

}  // namespace fastvoc::cuda
