// How threads share the work of a plan, on cores that other programs may take away at any moment.
//
// Work comes in rounds, such as a layer of a tile, and a round in items. A thread begins with the share of the rows that
// it has in every round, so that rows stay near it, and says in a slot of its own which item it is at and where its
// range ends. One that has nothing left takes the later half of what another one has not begun, or all of it if that one
// has not come yet. An item that lasts much longer than the others did belongs to a thread without a core: whoever waits
// overtakes it, and does the item again. Sums are made in memory of the thread, and rows are only written while the item
// is still its own; so a thread that wakes up too late writes nothing, and what it has read of rows that are no longer
// there is thrown away.
//
// A round is over when its items are done, and not when all threads have been there; who comes late passes over it.
// Who does an item, and how often it was begun, changes no bit.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <new>
#include <thread>
#if defined(__linux__)
#include <linux/membarrier.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "../kernels/simd.h"

namespace fastvoc::FASTVOC_ISA {

using Clock = std::chrono::steady_clock;

// Sanitized programs have threads lose their cores wherever that could matter.
#if defined(FASTVOC_STALLS)
inline void stall() {
  static std::atomic<uint32_t> seeds{1};
  static thread_local uint32_t state = seeds.fetch_add(0x9e3779b9u, std::memory_order_relaxed) | 1;
  state ^= state << 13, state ^= state >> 17, state ^= state << 5;
  if (state % 256 == 0) std::this_thread::sleep_for(std::chrono::microseconds(state / 256 % 500));
}
#else
inline void stall() {}
#endif

// All threads of the process pass a fence, wherever they are: so that those that work need none. Returns whether the
// system can do that; without it nobody is overtaken. Nor are they where the thread sanitizer would see that a thread
// which was overtaken still reads.
inline bool fence_all_threads() {
#if defined(__linux__) && !defined(__SANITIZE_THREAD__)
  static const bool registered = syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) == 0;
  return registered && syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0) == 0;
#else
  return false;
#endif
}

// What threads wait for comes in some ten microseconds, or not before another program gives a core back. A core that
// sleeps then is one that the thread without any can have; one that only yields is not.
class Patience {
 public:
  explicit Patience(Clock::time_point since = Clock::now()) : since_(since) {}

  // Wait some microseconds; returns whether it has come.
  template <class Has>
  bool wait(Has come) {
    for (int spin = 0; spin < 100; ++spin) {
      if (come()) return true;
      pause();
    }
    if (waited() > std::chrono::microseconds(100)) std::this_thread::sleep_for(std::chrono::microseconds(50));
    return come();
  }

  Clock::duration waited() const { return Clock::now() - since_; }

 private:
  Clock::time_point since_;
};

// What a slot says, in one word: items [first, next) of a round are done, item `next` is being done, if it is before
// `end`, and the others are to be. Rounds are counted modulo 2^22, which is more than a call of the package has.
struct Range {
  static constexpr int kBits = 14;
  static constexpr uint32_t kMost = (1u << kBits) - 1, kRounds = (1u << 22) - 1;

  uint32_t round, first, next, end;

  explicit Range(uint64_t word)
      : round(uint32_t(word >> (3 * kBits))), first(field(word, 2)), next(field(word, 1)), end(field(word, 0)) {}
  Range(uint32_t in_round, uint32_t from, uint32_t to)
      : round(in_round & kRounds), first(from), next(from), end(to) {}

  uint64_t word() const {
    return uint64_t(round) << (3 * kBits) | uint64_t(first) << (2 * kBits) | uint64_t(next) << kBits | end;
  }

  bool is_of(uint32_t other) const { return round == (other & kRounds); }
  bool is_before(uint32_t other) const { return ((other - round) & kRounds) - 1 < kRounds / 2; }

 private:
  static uint32_t field(uint64_t word, int place) { return uint32_t(word >> (place * kBits)) & kMost; }
};

struct alignas(64) Slot {
  std::atomic<uint64_t> word{Range(0, 0, 0).word()};
  std::atomic<bool> writes{false};  // whether its thread may be writing rows
};

// What the threads of a call share.
struct Team {
  const int threads;
  Slot* const slots;
  alignas(64) std::atomic<uint64_t> progress{uint64_t(1) << 32};  // the round, and how many of its items are done
  alignas(64) std::atomic<uint32_t> chores{0};                    // the last round whose chores somebody does
  std::atomic<bool> finished{false};  // whether a thread has been through all rounds
  std::atomic<int> gone{0};           // threads that read and write nothing any more

  Team(int count, void* memory) : threads(count), slots(static_cast<Slot*>(memory)) {
    for (int t = 0; t < threads; ++t) new (&slots[t]) Slot;
  }

  static int64_t bytes(int threads) { return threads * int64_t(sizeof(Slot)); }
};

// A thread of a team.
class Member {
 public:
  Member(Team& team, int thread) : team_(team), thread_(thread), own_(team.slots[thread]) {}

  int threads() const { return team_.threads; }

  // A round, in which one thread does `chores`, if there are any, while others may be at the rows already. Of `rows` each
  // thread has a share in whole `unit`s; `parts_of(n)` says in how many parts n of them are done, and
  // `visit(begin, end, first, part)` goes through those of rows [begin, end) in order, from the part `first` on:
  // `part(number, run)` runs one, and says whether to go on. Returns whether this thread is still needed.
  template <class Chores, class PartsOf, class Visit>
  bool round(bool any_chores, Chores chores, int64_t rows, int64_t unit, PartsOf parts_of, Visit visit) {
    if (team_.threads == 1) {
      if (any_chores) chores();
      if (rows > 0) visit(int64_t{0}, rows, int64_t{0}, Part{*this});
      return true;
    }
    if (rows == 0 && !any_chores) return true;  // nobody has to meet for that
    ++round_;
    if (is_over()) return thread_ == 0 || !team_.finished.load(std::memory_order_relaxed);
    divide(rows, unit, parts_of);
    total_ = full_ * items_ + last_items_ + any_chores;
    const auto do_chores = [&] {
      uint32_t last = team_.chores.load(std::memory_order_relaxed);
      if (!any_chores || int32_t(last - round_) >= 0) return;
      stall();
      if (!team_.chores.compare_exchange_strong(last, round_, std::memory_order_acq_rel)) return;
      chores();
      stall();
      count(1);
    };
    Clock::time_point now = Clock::now();
    patience_ = std::chrono::microseconds(200);
    const auto run = [&](const Range& range) {
      const int64_t owner = range.next / stride_, from = owner * each_;
      item_ = range.next;
      base_ = uint32_t(owner * stride_);
      lost_ = false;
      visit(from, smaller(from + each_, rows), (range.next - base_) * grain_, Part{*this});
      if (!lost_) advance();
      const Clock::time_point begin = now;
      now = Clock::now();
      patience_ = (now - begin) / larger(int64_t(item_) - range.next, 1) * 2 + std::chrono::microseconds(20);
    };
    stall();
    const Range share = share_of(thread_);
    uint64_t before = own_.word.load(std::memory_order_acquire);
    const bool came = Range(before).is_before(round_) && exchange(own_, before, share);
    if (thread_ == 0) do_chores();
    if (came && share.next < share.end) run(share);
    // Slots are looked at now and then only, since that slows down whose they are.
    for (Patience patience(now); !patience.wait([&] { return is_over(); });) {
      do_chores();
      const Range taken = take_over(patience.waited());
      if (taken.next == taken.end) continue;
      now = Clock::now();
      run(taken);
      patience = Patience(now);
    }
    return true;
  }

  // Write rows of the item at hand, unless somebody has taken it away.
  template <class Function>
  void commit(Function write) {
    if (team_.threads == 1) return write();
    stall();
    // Whoever overtakes has all threads pass a fence between his exchange of the word and his look at this.
    own_.writes.store(true, std::memory_order_relaxed);
    std::atomic_signal_fence(std::memory_order_seq_cst);
    if (owns()) {
      stall();
      write();
    }
    own_.writes.store(false, std::memory_order_release);
  }

  // This thread has been through all rounds, or is not needed for the others.
  void leave() {
    team_.finished.store(true, std::memory_order_relaxed);
    team_.gone.fetch_add(1, std::memory_order_acq_rel);
  }

  // Wait until all that are there have left: the system may have had fewer threads than the team was made for.
  void stay(int present) {
    for (Patience patience; !patience.wait([&] { return team_.gone.load(std::memory_order_acquire) == present; });) {
    }
  }

 private:
  struct Part {
    Member& member;

    template <class Run>
    bool operator()(int64_t part, Run run) const {
      if (member.team_.threads > 1 && !member.begins(part)) return false;
      run();
      return true;
    }
  };

  bool is_over() const { return uint32_t(team_.progress.load(std::memory_order_acquire) >> 32) != round_; }

  void count(uint32_t items) {
    const uint64_t before = team_.progress.fetch_add(items, std::memory_order_acq_rel);
    if (uint32_t(before) + items == total_) team_.progress.store(uint64_t(round_ + 1) << 32, std::memory_order_release);
  }

  static bool exchange(Slot& slot, uint64_t& from, const Range& to) {
    return slot.word.compare_exchange_strong(from, to.word(), std::memory_order_acq_rel, std::memory_order_acquire);
  }

  template <class PartsOf>
  void divide(int64_t rows, int64_t unit, PartsOf parts_of) {
    each_ = round_up((rows + team_.threads - 1) / team_.threads, unit);
    const int64_t full = each_ > 0 ? rows / each_ : 0, left = rows - full * each_;
    const int64_t parts = full > 0 ? parts_of(each_) : 0, last_parts = left > 0 ? parts_of(left) : 0;
    const int64_t most = larger(parts, last_parts);
    grain_ = 1;
    if (most * team_.threads >= Range::kMost) grain_ += most * team_.threads / (Range::kMost - team_.threads);
    full_ = uint32_t(full);
    items_ = uint32_t((parts + grain_ - 1) / grain_);
    last_items_ = uint32_t((last_parts + grain_ - 1) / grain_);
    stride_ = uint32_t(larger(larger(items_, last_items_), 1));
  }

  Range share_of(int thread) const {
    const uint32_t from = uint32_t(thread) * stride_;
    return {round_, from, from + (uint32_t(thread) < full_ ? items_ : uint32_t(thread) == full_ ? last_items_ : 0)};
  }

  // Whether the item at hand is still this thread's.
  bool owns() {
    const Range now(own_.word.load(std::memory_order_relaxed));
    if (!now.is_of(round_) || now.next != item_ || item_ >= now.end) lost_ = true;
    return !lost_;
  }

  // Whether this thread is to do a part.
  bool begins(int64_t part) {
    if (lost_) return false;
    stall();
    return base_ + uint32_t(part / grain_) == item_ || advance();
  }

  // The item is done: go on to the next one of the range, if there is one.
  bool advance() {
    uint64_t word = own_.word.load(std::memory_order_relaxed);
    for (;;) {
      stall();
      const Range now(word);
      if (!now.is_of(round_) || now.next != item_ || item_ >= now.end) return !(lost_ = true);
      Range then = now;
      ++then.next;
      // before it is counted: the next round may then begin
      if (!exchange(own_, word, then)) continue;
      ++item_;
      if (item_ < now.end) return true;
      lost_ = true;
      stall();
      count(now.end - now.first);
      return false;
    }
  }

  // Take work away from another thread; the range is empty if there is none.
  Range take_over(Clock::duration waited) {
    for (int other = 1; other < team_.threads; ++other) {
      const int thread = (thread_ + other) % team_.threads;
      Slot& slot = team_.slots[thread];
      uint64_t word = slot.word.load(std::memory_order_acquire);
      const Range now(word);
      Range left = now;
      stall();
      if (now.is_before(round_)) {  // it has not come yet
        const Range share = share_of(thread);
        left = share;
        left.end = share.next;
        if (share.next < share.end && exchange(slot, word, left)) return announced(share.next, share.end);
      } else if (now.is_of(round_) && now.next + 1 < now.end) {
        left.end = now.next + 1 + (now.end - now.next - 1) / 2;
        if (exchange(slot, word, left)) return announced(left.end, now.end);
      } else if (now.is_of(round_) && now.next < now.end && waited > patience_ && fence_all_threads()) {
        left.end = now.next;
        if (!exchange(slot, word, left)) continue;
        stall();
        fence_all_threads();
        const auto has_stopped = [&] { return !slot.writes.load(std::memory_order_acquire); };
        for (Patience patience; !patience.wait(has_stopped);) {
        }
        count(now.next - now.first);
        return announced(now.next, now.end);
      }
    }
    return {round_, 0, 0};
  }

  Range announced(uint32_t from, uint32_t to) {
    const Range range(round_, from, to);
    own_.word.store(range.word(), std::memory_order_release);
    return range;
  }

  Team& team_;
  const int thread_;
  Slot& own_;
  uint32_t round_ = 0;
  // of the round
  int64_t each_ = 0, grain_ = 1;  // rows of a share, parts of an item
  uint32_t full_ = 0, items_ = 0, last_items_ = 0, stride_ = 1, total_ = 0;
  // of the range
  uint32_t item_ = 0, base_ = 0;
  bool lost_ = false;
  Clock::duration patience_{};
};

}  // namespace fastvoc::FASTVOC_ISA
