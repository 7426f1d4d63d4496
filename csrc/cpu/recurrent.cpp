// WaveNets, one sample after the other.
//
// What a sample waits for is the chain: the current tap, gates, residual and skip of each layer, and the head. It is a
// matrix times the vectors of a few streams, and bound by how fast weights arrive. The other taps read samples that are
// a dilation old, so that of min(dilation, kBlock) samples they are known at once; with the condition, they are a
// product of matrices, which reads weights once for all of them. Every sum has one order, whatever is computed beside
// it, so that blocks, chunks, batches and threads change no bit.
#if defined(_OPENMP)
#include <omp.h>
#endif

#include "recurrent/steps.h"

namespace fastvoc::FASTVOC_ISA {

namespace {

// How the streams of a call are divided.
struct Division {
  int64_t groups;
  bool pairs;  // of threads, one for each group
  int threads;
  int64_t patience;  // of a lead, in nanoseconds
};

Division divide(const fastvoc_recurrent& network, const fastvoc_steps& steps) {
  // A smaller step is over before two threads have told each other so.
  constexpr int64_t kLeast = 100000;
  // Weights that no cache holds are read once for many streams; of others, what many streams remember takes their place.
  constexpr int64_t kLarge = int64_t{1} << 24;
  const int64_t chain = network.layers * network.gated * (3 * network.channels + network.skips);
  const int64_t all = chain + network.layers * network.gated * 2 * (network.taps - 1) * network.channels;
  const int64_t together = most_columns(kTall), most = (steps.batch + together - 1) / together;
  const int64_t least = all < kLarge ? most : (steps.batch + kMostStreams - 1) / kMostStreams;
  const int64_t groups = larger(least, smaller(steps.threads, most));
  const bool pairs = !steps.alone && 2 * groups <= steps.threads && chain >= kLeast;
  // a thread that runs is never later than a step takes
  constexpr int64_t kShort = 50000, kWeightsPerNanosecond = 20;
  const int64_t patience = kShort + chain / kWeightsPerNanosecond;
  return {groups, pairs, int(smaller(steps.threads, groups * (pairs ? 2 : 1))), patience};
}

template <class Operand>
int64_t workspace_floats(const fastvoc_recurrent& network) {
  const Layout<Operand> layout(network);
  int64_t most = 0;  // blocks of more streams have fewer samples, so that no number of streams is the largest
  for (int64_t streams = 1; streams <= kMostStreams; ++streams)
    most = larger(most, Workspace<Operand>(network, layout, streams, nullptr).size);
  return most;
}

template <class Operand>
void run(const fastvoc_recurrent& network, const void* packed, const fastvoc_steps& steps, float* memory) {
  const Division division = divide(network, steps);
  const int64_t size = workspace_floats<Operand>(network), groups = division.groups;
  const Layout<Operand> layout(network);
  const auto first = [&](int64_t group) { return group * steps.batch / groups; };
  for (int thread = 0; thread < division.threads; ++thread) {
    float* const own = memory + thread * size;
    const int64_t streams = (steps.batch + groups - 1) / groups;
    std::memset(own, 0, Workspace<Operand>(network, layout, streams, own).cleared * sizeof(float));
    new (own) Progress;
  }
  std::atomic<int64_t> next{0};  // a group that no thread has taken
  const int64_t begin = now();
  std::atomic<int64_t> waited{0}, made{begin}, going_on{groups};
#if defined(_OPENMP)
#pragma omp parallel num_threads(division.threads) if (division.threads > 1)
#endif
  {
#if defined(_OPENMP)
    const int team = omp_get_num_threads(), thread = omp_get_thread_num();
#else
    const int team = 1, thread = 0;
#endif
    float* const own = memory + thread * size;
    const auto steps_of = [&](int64_t group, float* shared) {
      return Steps<Operand>(network, packed, steps, first(group), first(group + 1) - first(group), shared, own);
    };
    if (division.pairs && team == division.threads) {
      float* const shared = memory + thread / 2 * 2 * size;
      Progress& progress = *std::launder(reinterpret_cast<Progress*>(shared));
      if (thread % 2 == 0) {
        waited += steps_of(thread / 2, shared).run_lead(progress, division.patience);
        if (--going_on == 0) made = now();
      } else {
        steps_of(thread / 2, shared).run_companion(progress);
      }
    } else {
      for (int64_t group; (group = next.fetch_add(1, std::memory_order_relaxed)) < groups;)
        steps_of(group, own).run_alone();
    }
  }
  // the end waits for companions, too, though all samples are made
  const int64_t end = now();
  if (division.pairs && steps.late) *steps.late = 8 * (waited / groups + end - made) >= end - begin;
}

int check(const fastvoc_recurrent& network) {
#if defined(__AVX512BF16__)
  if (network.precision != FASTVOC_FLOAT32 && network.precision != FASTVOC_BFLOAT16) return FASTVOC_BAD_PRECISION;
#else
  if (network.precision != FASTVOC_FLOAT32) return FASTVOC_BAD_PRECISION;
#endif
  if (!network.input_scales) return FASTVOC_OK;
  if (network.precision != FASTVOC_BFLOAT16) return FASTVOC_BAD_PRECISION;
  constexpr int64_t kMost = 1 << 16;  // columns whose products of 8 bits a sum of 32 holds
  if (std::max({network.channels, network.gated, network.condition}) > kMost) return FASTVOC_BAD_SIZE;
  for (int64_t i = 0; i < 2 * network.layers; ++i)
    if (!(network.input_scales[i] >= 0) || !std::isfinite(network.input_scales[i])) return FASTVOC_BAD_NETWORK;
  return FASTVOC_OK;
}

#if defined(__AVX512BF16__)
#define FASTVOC_BY_PRECISION(call) (network.precision == FASTVOC_BFLOAT16 ? call(Bfloat16) : call(Single))
#else
#define FASTVOC_BY_PRECISION(call) call(Single)
#endif

int64_t packed_size(const fastvoc_recurrent& network) {
#define FASTVOC_CALL(Operand) Layout<Operand>(network).bytes()
  return FASTVOC_BY_PRECISION(FASTVOC_CALL);
#undef FASTVOC_CALL
}

int64_t workspace_size(const fastvoc_recurrent& network, int threads) {
#define FASTVOC_CALL(Operand) workspace_floats<Operand>(network) * threads * int64_t(sizeof(float))
  return FASTVOC_BY_PRECISION(FASTVOC_CALL);
#undef FASTVOC_CALL
}

void pack_weights(const fastvoc_recurrent& network, void* packed) {
#define FASTVOC_CALL(Operand) pack<Operand>(network, static_cast<char*>(packed))
  FASTVOC_BY_PRECISION(FASTVOC_CALL);
#undef FASTVOC_CALL
}

void run_steps(const fastvoc_recurrent& network, const void* packed, const fastvoc_steps& steps, void* workspace) {
#define FASTVOC_CALL(Operand) run<Operand>(network, packed, steps, static_cast<float*>(workspace))
  FASTVOC_BY_PRECISION(FASTVOC_CALL);
#undef FASTVOC_CALL
}

}  // namespace

extern const Recurrent recurrent{check, packed_size, workspace_size, pack_weights, run_steps};

}  // namespace fastvoc::FASTVOC_ISA
