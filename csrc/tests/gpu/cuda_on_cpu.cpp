// Instructions of a GPU as the CPU runs them, against their definitions, on random data; and that the mistakes this is
// for are noticed: a barrier too few, a wait too few, an address too far, threads that wait for ever.
//
//   cuda_on_cpu [rounds]

#include "../emulator/hopper_on_cpu.h"

#include "../../cuda/device/instructions.cuh"

#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <random>

namespace fastvoc::cuda {

std::mt19937 lots;

#define EXPECT(condition, ...)          \
  do {                                  \
    if (!(condition)) {                 \
      std::printf("%s: ", #condition);  \
      std::printf(__VA_ARGS__);         \
      std::printf("\n");                \
      std::exit(1);                     \
    }                                   \
  } while (false)

// ---- numbers

// A number of so many bits behind the leading one, and exponents up to `most`, by the definition of the format.
double value_of(unsigned bits, int exponent_bits, int fraction_bits) {
  const int bias = (1 << (exponent_bits - 1)) - 1, exponent = int(bits >> fraction_bits & ((1u << exponent_bits) - 1));
  const unsigned fraction = bits & ((1u << fraction_bits) - 1);
  const double sign = bits >> (exponent_bits + fraction_bits) & 1 ? -1 : 1;
  if (exponent == (1 << exponent_bits) - 1) return fraction ? NAN : sign * INFINITY;
  if (exponent == 0) return sign * std::ldexp(double(fraction), 1 - bias - fraction_bits);
  return sign * std::ldexp(double(fraction) + double(1u << fraction_bits), exponent - bias - fraction_bits);
}

template <int precision>
void check_pairs() {
  constexpr int exponents = precision == kFloat16 ? 5 : 8, fractions = precision == kFloat16 ? 10 : 7;
  for (unsigned bits = 0; bits < 65536; ++bits) {
    const double expected = value_of(bits, exponents, fractions);
    float low, high;
    unpack_pair<precision>(bits | (bits ^ 0x8000) << 16, low, high);
    const bool number = !std::isnan(expected);
    EXPECT(number ? double(low) == expected && std::signbit(low) == (bits >> 15 != 0) : std::isnan(low), "%#x", bits);
    EXPECT(number ? double(high) == -expected : std::isnan(high), "%#x", bits);
    EXPECT(number ? pack_pair<precision>(low, high) == (bits | (bits ^ 0x8000) << 16)
                  : std::isnan(value_of(pack_pair<precision>(low, high) & 0xffff, exponents, fractions)), "%#x", bits);
    // Between two neighbours: the middle goes to the even one, anything else to the nearer one.
    if (!number || std::isinf(expected) || bits >> 15) continue;
    const bool last = bits + 1 == unsigned((1 << exponents) - 1) << fractions;
    const double above = last ? std::ldexp(1.0, 1 << (exponents - 1)) : value_of(bits + 1, exponents, fractions);
    const float middle = float((expected + above) / 2);
    const unsigned even = bits % 2 ? bits + 1 : bits;
    EXPECT(pack_pair<precision>(middle, -middle) == (even | (even | 0x8000) << 16), "%#x", bits);
    EXPECT((pack_pair<precision>(std::nextafter(middle, 0.0f), 0) & 0xffff) == bits, "%#x", bits);
    EXPECT((pack_pair<precision>(0, std::nextafter(middle, INFINITY)) >> 16) == bits + 1, "%#x", bits);
  }
}

float random_float() {  // any exponent
  for (;;) {
    const float value = on_cpu::bits_as<float>(unsigned(lots()));
    if (std::isfinite(value)) return value;
  }
}

void check_conversions(int rounds) {
  for (int i = 0; i < rounds * 1000; ++i) {
    const float value = random_float(), rounded = round_tf32(value);
    EXPECT((on_cpu::bits_as<unsigned>(rounded) & 0x1fff) == 0, "%a", value);
    if (std::isinf(rounded)) continue;
    // Half a unit of 10 bits behind the leading one; and the tie is the larger one.
    const double unit = std::ldexp(1.0, std::max(std::ilogb(value == 0 ? 1e-45f : value), -126) - 10);
    const double error = std::fabs(double(rounded)) - std::fabs(double(value));
    EXPECT(error <= unit / 2 && error > -unit / 2, "%a became %a", value, rounded);
  }
  EXPECT(round_tf32(1 + 0x1p-11f) == 1 + 0x1p-10f, "a tie");
  EXPECT(std::isnan(round_tf32(NAN)) && round_tf32(-INFINITY) == -INFINITY, "no numbers");
  EXPECT(to_int(2.5f) == 2 && to_int(3.5f) == 4 && to_int(-0.5f) == 0 && to_int(NAN) == 0, "to_int");
  EXPECT(to_int(1e20f) == 2147483647 && to_int(-1e20f) == -2147483647 - 1, "to_int");
  EXPECT(fused(1 + 0x1p-12f, 1 - 0x1p-12f, -1) == -0x1p-24f, "fused");
}

// ---- what a warp does together

struct Matrices {
  const unsigned char* memory;  // 2048 bytes
  const int* row;               // a row of each lane: in 16 bytes
  unsigned* result;             // [count][lane]
  int transposed, barrier;
};

template <int count>
void load(const Matrices& p) {
  const int lane = thread();
  for (int i = 0; i < 64; ++i) shared_memory()[lane * 64 + i] = char(p.memory[lane * 64 + i]);
  if (p.barrier) warp_barrier();
  unsigned m[count];
  if (p.transposed)
    load_matrices_transposed(m, shared_memory() + p.row[lane] * 16);
  else
    load_matrices(m, shared_memory() + p.row[lane] * 16);
  for (int i = 0; i < count; ++i) p.result[i * 32 + lane] = m[i];
}
FASTVOC_KERNEL(load_1, Matrices, 32) { load<1>(parameter); }
FASTVOC_KERNEL(load_2, Matrices, 32) { load<2>(parameter); }
FASTVOC_KERNEL(load_4, Matrices, 32) { load<4>(parameter); }

void check_load_matrices() {
  std::vector<unsigned char> memory(2048);
  std::vector<int> row(32);
  for (auto& byte : memory) byte = static_cast<unsigned char>(lots());
  for (int& r : row) r = int(lots() % 128);
  for (const int transposed : {0, 1})
    for (const int count : {1, 2, 4}) {
      std::vector<unsigned> result(size_t(count) * 32);
      const auto kernel = count == 1 ? load_1 : count == 2 ? load_2 : load_4;
      Matrices matrices = {memory.data(), row.data(), result.data(), transposed, 0};
      run_on_cpu(kernel, Shape{{1, 1, 1}, 32, 2048}, matrices);
      int missing = 0;  // without a barrier, some of many rows are not there yet
      for (const unsigned word : result) missing += word >> 16 == 0xffff || (word & 0xffff) == 0xffff;
      EXPECT(missing > 0 || count < 4, "x%d %d without a barrier", count, transposed);
      matrices.barrier = 1;
      run_on_cpu(kernel, Shape{{1, 1, 1}, 32, 2048}, matrices);
      // Lane l holds elements 2 * (l % 4) and the next of row l / 4 of matrix i, or, transposed, of column l / 4.
      for (int i = 0; i < count; ++i)
        for (int lane = 0; lane < 32; ++lane)
          for (int j = 0; j < 2; ++j) {
            const int major = lane / 4, minor = lane % 4 * 2 + j;
            const int r = transposed ? minor : major, c = transposed ? major : minor;
            unsigned short expected;
            std::memcpy(&expected, &memory[size_t(row[size_t(i * 8 + r)] * 16 + c * 2)], 2);
            const unsigned got = result[size_t(i * 32 + lane)] >> j * 16 & 0xffff;
            EXPECT(got == expected, "x%d %d, lane %d", count, transposed, lane);
          }
    }
}

struct Product {
  const unsigned *a, *b;  // [register][lane]
  float* sum;
};

template <int precision>
void multiply(const Product& p) {
  const int lane = thread();
  unsigned a[4], b[2];
  float sum[4];
  for (int i = 0; i < 4; ++i) a[i] = p.a[i * 32 + lane], sum[i] = p.sum[i * 32 + lane];
  for (int i = 0; i < 2; ++i) b[i] = p.b[i * 32 + lane];
  multiply_add<precision>(sum, a, b);
  for (int i = 0; i < 4; ++i) p.sum[i * 32 + lane] = sum[i];
}
FASTVOC_KERNEL(multiply_f16, Product, 32) { multiply<kFloat16>(parameter); }
FASTVOC_KERNEL(multiply_bf16, Product, 32) { multiply<kBfloat16>(parameter); }
FASTVOC_KERNEL(multiply_tf32, Product, 32) { multiply<kTfloat32>(parameter); }

template <int precision>
void check_multiply_add(void (*kernel)(const Product&)) {
  constexpr bool wide = precision == kTfloat32;
  constexpr int depth = wide ? 8 : 16, each = wide ? 1 : 2;
  std::normal_distribution<float> normal;
  std::vector<unsigned> a(4 * 32), b(2 * 32);
  std::vector<float> sum(4 * 32);
  double x[16][16] = {}, y[16][8] = {}, expected[16][8], magnitude[16][8];

  // Fragments as the PTX ISA numbers them: groupID = lane / 4, threadID_in_group = lane % 4.
  const auto draw = [&](unsigned& to, double* values[2]) {
    float v[2] = {normal(lots), normal(lots)};
    if (lots() % 500 == 0) v[0] *= 0x1p-17f;  // subnormal in float16
    if (wide) {
      v[0] = round_tf32(v[0]);
      to = on_cpu::bits_as<unsigned>(v[0]);
    } else {
      to = pack_pair<wide ? int(kFloat16) : precision>(v[0], v[1]);
      unpack_pair<wide ? int(kFloat16) : precision>(to, v[0], v[1]);
    }
    for (int i = 0; i < each; ++i) *values[i] = double(v[i]);
  };
  for (int lane = 0; lane < 32; ++lane) {
    const int group = lane / 4, inside = lane % 4;
    for (int i = 0; i < 4; ++i) {
      const int row = i == 0 || i == 2 ? group : group + 8;
      const int k = wide ? (i < 2 ? inside : inside + 4) : (i < 2 ? inside * 2 : inside * 2 + 8);
      double* to[2] = {&x[row][k], &x[row][wide ? k : k + 1]};
      draw(a[size_t(i * 32 + lane)], to);
      const int column = inside * 2 + (i & 1), sum_row = i < 2 ? group : group + 8;
      expected[sum_row][column] = double(sum[size_t(i * 32 + lane)] = normal(lots));
      magnitude[sum_row][column] = std::fabs(expected[sum_row][column]);
    }
    for (int i = 0; i < 2; ++i) {
      const int k = wide ? inside + 4 * i : inside * 2 + 8 * i;
      double* to[2] = {&y[k][group], &y[wide ? k : k + 1][group]};
      draw(b[size_t(i * 32 + lane)], to);
    }
  }
  for (int row = 0; row < 16; ++row)
    for (int column = 0; column < 8; ++column)
      for (int k = 0; k < depth; ++k) {
        expected[row][column] += x[row][k] * y[k][column];
        magnitude[row][column] += std::fabs(x[row][k] * y[k][column]);
      }
  run_on_cpu(kernel, Shape{{1, 1, 1}, 32, 0}, Product{a.data(), b.data(), sum.data()});
  for (int lane = 0; lane < 32; ++lane)
    for (int i = 0; i < 4; ++i) {
      const int row = lane / 4 + (i < 2 ? 0 : 8), column = lane % 4 * 2 + (i & 1);
      const double error = std::fabs(double(sum[size_t(i * 32 + lane)]) - expected[row][column]);
      EXPECT(error <= depth * 0x1p-24 * magnitude[row][column], "precision %d: %g", precision, error);
    }
  // One that is no number stays in its row.
  a[0] = 0xffffffff;
  run_on_cpu(kernel, Shape{{1, 1, 1}, 32, 0}, Product{a.data(), b.data(), sum.data()});
  for (int lane = 0; lane < 32; ++lane)
    for (int i = 0; i < 4; ++i) EXPECT(std::isnan(sum[size_t(i * 32 + lane)]) == (lane < 4 && i < 2), "lane %d", lane);
}

// ---- mistakes

struct Mistake {
  const float* from;
  float* to;
  int kind;
};

enum Kind {
  kNone,
  // The result is wrong.
  kNoBarrier, kNoSecondBarrier, kNoNamedBarrier, kNoWarpBarrier, kNoWait, kNoCommit, kNoBarrierBeforeCopy,
  // The program ends.
  kDeadlock, kEnded, kParted, kOutside, kOutsideMatrix, kBehind, kInFront, kReadBehind, kUnalignedCopy, kCount,
  kForever,
  // In a cluster: the result is wrong or the program ends, and it ends.
  kNoWaitForBlocks, kNoClusterBarrier,
  kNoArrival, kTooManyBytes, kNoSuchBlock, kOutsideOfBlock,
  kKinds
};

// Mirrors 128 numbers twice: through shared memory, and again.
FASTVOC_KERNEL(mirror, Mistake, 128) {
  const int kind = parameter.kind, own = thread();
  float* const shared = reinterpret_cast<float*>(shared_memory());
  shared[own] = parameter.from[own];
  if (kind != kNoBarrier) barrier();
  const float mirrored = shared[127 - own];
  if (kind != kNoSecondBarrier) barrier();
  shared[own] = mirrored;
  if (kind != kNoNamedBarrier) barrier(1, 128);
  parameter.to[own] = shared[127 - own];
}

FASTVOC_KERNEL(mirror_warp, Mistake, 32) {
  float* const shared = reinterpret_cast<float*>(shared_memory());
  shared[thread()] = parameter.from[thread()];
  if (parameter.kind != kNoWarpBarrier) warp_barrier();
  parameter.to[thread()] = shared[31 - thread()];
}

// Four pieces of 128 numbers through two places, as kernels read weights: one is on its way while another is used.
FASTVOC_KERNEL(pipeline, Mistake, 32) {
  float* const shared = reinterpret_cast<float*>(shared_memory());
  const int kind = parameter.kind, own = thread();
  const auto copy = [&](int piece) {
    if (piece < 4) copy_async(shared + piece % 2 * 128 + own * 4, parameter.from + piece * 128 + own * 4, true);
    if (kind != kNoCommit) commit_copies();
  };
  copy(0);
  for (int piece = 0; piece < 4; ++piece) {
    if (kind != kNoBarrierBeforeCopy) warp_barrier();
    copy(piece + 1);
    if (kind != kNoWait) wait_for_copies<1>();
    warp_barrier();
    for (int i = own; i < 128; i += 32) parameter.to[piece * 128 + i] = shared[piece % 2 * 128 + 127 - i];
  }
}

FASTVOC_KERNEL(wrong, Mistake, 64) {
  float* const shared = reinterpret_cast<float*>(shared_memory());
  const int own = thread();
  switch (parameter.kind) {
    case kDeadlock:
      barrier(own < 32 ? 1 : 2, 64);
      break;
    case kEnded:
      if (own == 5) return;
      barrier();
      break;
    case kParted: {
      unsigned m[1];
      if (own % 2)
        warp_barrier();
      else
        load_matrices(m, shared);
      break;
    }
    case kOutside:
      copy_async(shared + own * 4, parameter.from, true);  // 64 * 16 bytes, of 512
      break;
    case kOutsideMatrix: {
      unsigned m[4];
      load_matrices(m, shared + own % 32 * 4 + 4);
      break;
    }
    case kBehind:
      if (own == 9) shared[128] = 1;
      break;
    case kInFront:
      if (own == 9) shared[-1] = 1;
      break;
    case kReadBehind:
      parameter.to[own] = shared[128 + own];  // poison, or noticed by the address sanitizer
      EXPECT(std::isnan(parameter.to[own]), "behind shared memory is a number");
      std::_Exit(3);
    case kUnalignedCopy:
      copy_async(shared, reinterpret_cast<const char*>(parameter.from) + 4, true);
      break;
    case kCount:
      barrier(1, own < 32 ? 64 : 32);
      break;
    case kForever:
      on_cpu::wait_until("what never happens", __FILE__, __LINE__, [] { return false; });
      break;
  }
}

constexpr int kTogether = 5, kRounds = 6;

// Each block of a cluster tells all of them a number, round after round. Nobody is more than a round ahead, so that
// numbers stand in two places in turn.
FASTVOC_HOPPER_KERNEL(exchange, Mistake, 64, 1) {
  const int kind = parameter.kind, own = thread(), rank = block_x() % kTogether;
  Barrier* const all_there = reinterpret_cast<Barrier*>(shared_memory());
  float* const numbers = reinterpret_cast<float*>(shared_memory()) + 4;
  if (own < 2) begin_barrier(all_there + own, kTogether);
  publish_barriers();
  if (kind != kNoClusterBarrier) cluster_barrier();
  for (int round = 0; round < kRounds; ++round) {
    Barrier* const there = all_there + round % 2;
    float* const place = numbers + round % 2 * 4 * kTogether;
    if (own == rank) arrive_expecting(there, 16 * (kTogether - (kind == kTooManyBytes)));
    if (own != rank && own < kTogether && kind != kNoArrival) arrive_in(own, there);
    const unsigned word = as_bits(parameter.from[block_x() * kRounds + round]);
    if (own < kTogether)
      send(own + (kind == kNoSuchBlock), place + (kind == kOutsideOfBlock ? 4096 : 4 * rank), {{word, word, word, word}},
           there);
    if (kind != kNoWaitForBlocks) wait_for_phase(there, round / 2 % 2);
    if (own < 4 * kTogether) parameter.to[(block_x() * kRounds + round) * 4 * kTogether + own] = place[own];
    barrier();
  }
}

// Whether two clusters of blocks do what they must.
bool right_together(Kind kind) {
  std::vector<float> from(2 * kTogether * kRounds), to(from.size() * 4 * kTogether);
  for (size_t i = 0; i < from.size(); ++i) from[i] = float(i);
  run_on_cpu(exchange, Shape{{2 * kTogether, 1, 1}, 64, 512, kTogether}, Mistake{from.data(), to.data(), kind});
  bool good = true;
  for (size_t i = 0; i < to.size(); ++i) {
    const size_t other = i / 4 % kTogether, round = i / (4 * kTogether) % kRounds, block = i / (4 * kTogether * kRounds);
    good = good && to[i] == from[(block / kTogether * kTogether + other) * kRounds + round];
  }
  return good;
}

// How a program ends that makes this mistake.
int end_of(Kind kind) {
  std::fflush(stdout);
  const pid_t child = fork();
  if (child == 0) {
    std::freopen("/dev/null", "w", stderr);
    std::vector<float> from(512), to(512);
    if (kind > kForever) std::_Exit(right_together(kind) ? 0 : 3);
    run_on_cpu(wrong, Shape{{1, 1, 1}, 64, 512}, Mistake{from.data(), to.data(), kind});
    std::_Exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

// Whether a kernel did what it must.
bool right(Kind kind) {
  std::vector<float> from(512), to(512);
  for (size_t i = 0; i < 512; ++i) from[i] = float(i);
  const Mistake mistake = {from.data(), to.data(), kind};
  bool good = true;
  run_on_cpu(mirror, Shape{{1, 1, 1}, 128, 512}, mistake);
  for (size_t i = 0; i < 128; ++i) good = good && to[i] == float(i);
  run_on_cpu(mirror_warp, Shape{{1, 1, 1}, 32, 128}, mistake);
  for (size_t i = 0; i < 32; ++i) good = good && to[i] == float(31 - i);
  run_on_cpu(pipeline, Shape{{1, 1, 1}, 32, 1024}, mistake);
  for (size_t i = 0; i < 512; ++i) good = good && to[i] == float(i / 128 * 128 + 127 - i % 128);
  return good;
}

struct Places {
  int* seen;  // how often each thread of each block came by
};
FASTVOC_KERNEL(count_threads, Places, 96) {
  const int block = (block_z() * 3 + block_y()) * grid_x() + block_x();
  ++parameter.seen[block * 96 + thread()];
  EXPECT(reinterpret_cast<uintptr_t>(shared_memory()) % 128 == 0, "alignment");
  for (int i = 0; i < 100; ++i) EXPECT(shared_memory()[i] == char(0xff), "a block begins with numbers");
  barrier();
  shared_memory()[thread()] = 1;
}

// Threads wait for one another by what they see in shared memory, and the last one for what happens by itself.
bool happened;
FASTVOC_KERNEL(relay, Places, 96) {
  int* const turn = reinterpret_cast<int*>(shared_memory());
  const int own = thread();
  on_cpu::wait_until("a turn", __FILE__, __LINE__, [&] { return own == 0 || *turn == own; });
  if (own == 95) on_cpu::wait_until("what happens by itself", __FILE__, __LINE__, [] { return happened; });
  parameter.seen[own] = own;
  *turn = own + 1;
}

void check(int rounds) {
  check_pairs<kFloat16>();
  check_pairs<kBfloat16>();
  check_conversions(rounds);
  std::vector<int> seen(5 * 3 * 2 * 96);
  run_on_cpu(count_threads, Shape{{5, 3, 2}, 96, 100}, Places{seen.data()});
  for (const int times : seen) EXPECT(times == 1, "a thread ran %d times", times);
  on_cpu::idle.push_back([] { return !std::exchange(happened, true); });
  run_on_cpu(relay, Shape{{1, 1, 1}, 96, 4}, Places{seen.data()});
  for (int i = 0; i < 96; ++i) EXPECT(seen[size_t(i)] == i, "thread %d", i);
  on_cpu::idle.pop_back();
  for (int i = 0; i < rounds; ++i) {
    EXPECT(right_together(kNone), "a cluster, round %d", i);
    check_load_matrices();
    check_multiply_add<kFloat16>(multiply_f16);
    check_multiply_add<kBfloat16>(multiply_bf16);
    check_multiply_add<kTfloat32>(multiply_tf32);
    for (int kind = kNone; kind <= kNoBarrierBeforeCopy; ++kind)
      EXPECT(right(Kind(kind)) == (kind == kNone), "mistake %d, round %d", kind, i);
  }
  for (int kind = kDeadlock; kind < kKinds; ++kind) {
    const int end = end_of(Kind(kind));
    // The address sanitizer has a way to end of its own.
    const bool sanitizer = end == 1 && (kind == kBehind || kind == kInFront || kind == kReadBehind);
    EXPECT(end == 3 || sanitizer, "mistake %d ended with %d", kind, end);
  }
}

}  // namespace fastvoc::cuda

int main(int argc, char** argv) {
  fastvoc::cuda::check(argc > 1 ? std::atoi(argv[1]) : 20);
  std::puts("cuda_on_cpu: instructions do what they should, mistakes are noticed");
}
