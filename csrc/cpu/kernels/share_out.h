// How operators share their work among threads.
#pragma once

#include <atomic>
#include <cstdint>
#if defined(_OPENMP)
#include <omp.h>
#endif

namespace fastvoc::FASTVOC_ISA {

// Call `each(worker, item)` for all items, whose results must not depend on who makes them. Workers are numbers below
// `threads`. Each takes the next item as it comes free, so that one without a core is waited for only while it has one.
template <class Each>
inline void share_out(int threads, int64_t items, Each each) {
  std::atomic<int64_t> next{0};
#pragma omp parallel num_threads(threads) if (threads > 1 && items > 1)
  {
#if defined(_OPENMP)
    const int64_t worker = omp_get_thread_num();
#else
    const int64_t worker = 0;
#endif
    for (int64_t item; (item = next.fetch_add(1, std::memory_order_relaxed)) < items;) each(worker, item);
  }
}

}  // namespace fastvoc::FASTVOC_ISA
