// What GCC calls of its OpenMP runtime, on plain threads: the thread sanitizer knows how these wait for one another,
// and of the runtime's own threads it does not.

#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

namespace {

struct Team {
  explicit Team(int threads) : count(threads) {}

  void wait() {
    std::unique_lock<std::mutex> lock(mutex);
    const int round = rounds;
    if (++arrived == count) {
      arrived = 0;
      ++rounds;
      all.notify_all();
    } else {
      all.wait(lock, [&] { return rounds != round; });
    }
  }

  const int count;
  int arrived = 0, rounds = 0;
  std::mutex mutex;
  std::condition_variable all;
};

thread_local int number = 0;
thread_local Team* together = nullptr;

}  // namespace

// The library is to find these before those of the runtime.
#pragma GCC visibility push(default)

extern "C" {

void GOMP_parallel(void (*body)(void*), void* data, unsigned threads, unsigned) {
  Team team(threads > 0 ? int(threads) : 1);
  const auto run = [&](int own) {
    const int outer_number = number;
    Team* const outer = together;
    number = own;
    together = &team;
    body(data);
    number = outer_number;
    together = outer;
  };
  std::vector<std::thread> others;
  for (int i = 1; i < team.count; ++i) others.emplace_back(run, i);
  run(0);
  for (std::thread& other : others) other.join();
}

void GOMP_barrier() {
  if (together) together->wait();
}

int omp_get_thread_num() { return number; }

int omp_get_num_threads() { return together ? together->count : 1; }
}

#pragma GCC visibility pop
