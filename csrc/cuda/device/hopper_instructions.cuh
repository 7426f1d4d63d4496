// What kernels ask of architecture 90a and no other has: barriers in shared memory that count arrivals and bytes,
// copies of whole runs of bytes, multiplications by four warps at once, a warpgroup, and what blocks of a cluster send
// each other.
//
// Copies of whole runs and multiplications see shared memory through a door of their own, the asynchronous proxy: what
// threads write by themselves, they see once its writer has called publish_writes.
#pragma once

#include "instructions.cuh"

namespace fastvoc::cuda {

// Sums of one thread: of each 32 columns what write_tiles takes, or of each 8 what the instructions take.
template <int columns>
struct WarpgroupSum {
  float group[columns / 32][1][4][4];
  FASTVOC_DEVICE float (&eights())[columns / 8][4] { return reinterpret_cast<float(&)[columns / 8][4]>(group); }
};

}  // namespace fastvoc::cuda

#if !defined(FASTVOC_CUDA_ON_CPU)

// So many blocks share a multiprocessor, and its registers.
#define FASTVOC_HOPPER_KERNEL(name, Parameter, threads, blocks) \
  extern "C" __global__ void __launch_bounds__(threads, blocks) name(const __grid_constant__ Parameter parameter)

namespace fastvoc::cuda {

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
constexpr bool kWarpgroups = true;
#else
constexpr bool kWarpgroups = false;
#endif

// A phase of a barrier ends when all arrivals and bytes that it expects are there. Phases are told apart by their
// parity.
using Barrier = unsigned long long;

FASTVOC_DEVICE void begin_barrier(Barrier* barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(arrivals) : "memory");
}

// Behind begin_barrier, and in front of what lets other threads go on.
FASTVOC_DEVICE void publish_barriers() {
  asm volatile("fence.mbarrier_init.release.cluster;\n\tfence.proxy.async.shared::cta;" ::: "memory");
}

FASTVOC_DEVICE void arrive(Barrier* barrier) {
  asm volatile("mbarrier.arrive.release.cta.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier)) : "memory");
}

// Arrives, and has the phase wait for bytes too.
FASTVOC_DEVICE void arrive_expecting(Barrier* barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.release.cta.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)),
               "r"(bytes)
               : "memory");
}

// Waits for the end of the phase of this parity. At first the one before the first phase, of parity 1, has ended.
FASTVOC_DEVICE void wait_for_phase(Barrier* barrier, int parity) {
  int ended;
  do {
    asm volatile(
        "{\n\t.reg .pred ended;\n\tmbarrier.try_wait.parity.acquire.cta.shared::cta.b64 ended, [%1], %2;\n\t"
        "selp.b32 %0, 1, 0, ended;\n\t}"
        : "=r"(ended)
        : "r"(shared_address(barrier)), "r"(parity)
        : "memory");
  } while (!ended);
}

// Addresses and size are multiples of 16.
FASTVOC_DEVICE void copy_run(void* shared, const void* global, int bytes, Barrier* barrier) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                   shared_address(shared)),
               "l"(__cvta_generic_to_global(global)), "r"(bytes), "r"(shared_address(barrier))
               : "memory");
}

// ---- blocks of a cluster, which are numbered along x

// A place of this block's shared memory in that of another one.
FASTVOC_DEVICE unsigned address_in(int block, const void* own) {
  unsigned address;
  asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(address) : "r"(shared_address(own)), "r"(block));
  return address;
}

// 16 bytes on their way to a place of another block, where they count among those that a barrier waits for.
FASTVOC_DEVICE void send(int block, void* place, const Vector16& value, Barrier* barrier) {
  asm volatile("st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.b32 [%0], {%1, %2, %3, %4}, [%5];" ::"r"(
                   address_in(block, place)),
               "r"(value.word[0]), "r"(value.word[1]), "r"(value.word[2]), "r"(value.word[3]),
               "r"(address_in(block, barrier))
               : "memory");
}

// Says that this block is done with what others will overwrite in its shared memory, and nothing of what it wrote: an
// arrival that releases to the cluster waits for all stores to global memory, and one who waits and acquires from the
// cluster, instead of wait_for_phase, loses the first level cache, which shared memory has no use for.
FASTVOC_DEVICE void arrive_in(int block, Barrier* barrier) {
  asm volatile("mbarrier.arrive.shared::cluster.b64 _, [%0];" ::"r"(address_in(block, barrier)) : "memory");
}

// Of all threads of all blocks.
FASTVOC_DEVICE void cluster_barrier() {
  asm volatile("barrier.cluster.arrive.release.aligned;\n\tbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}

FASTVOC_DEVICE void publish_writes() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// An operand in shared memory, as [chunk][row]: 8 rows of one chunk are 128 bytes in a row, and chunks are `chunk`
// bytes apart. One more is the operand that begins a row, or 16 bytes, further on. This is the lower half of what the
// hardware calls a matrix descriptor, of a matrix that is not swizzled; the upper half is the distance of 8 rows, in
// units of 16 bytes.
FASTVOC_DEVICE unsigned operand(const void* first, int chunk) {
  return (shared_address(first) & 0x3ffff) >> 4 | static_cast<unsigned>(chunk) >> 4 << 16;
}

// In front of the multiplications of a group: what was done to their registers has been done.
FASTVOC_DEVICE void begin_products() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
FASTVOC_DEVICE void commit_products() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

// Waits for all groups but the last `pending`.
template <int pending>
FASTVOC_DEVICE void wait_for_products() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(pending) : "memory");
}

// Keeps what follows from reading sums before they are waited for.
template <int columns>
FASTVOC_DEVICE void hold(float (&sum)[columns / 8][4]) {
#pragma unroll
  for (int i = 0; i < columns / 2; ++i) asm volatile("" : "+f"(sum[i / 4][i % 4])::"memory");
}

#define FASTVOC_TEN(t) \
  "%" #t "0, %" #t "1, %" #t "2, %" #t "3, %" #t "4, %" #t "5, %" #t "6, %" #t "7, %" #t "8, %" #t "9, "
#define FASTVOC_TEXT_4 "%0, %1, %2, %3"
#define FASTVOC_TEXT_8 "%0, %1, %2, %3, %4, %5, %6, %7"
#define FASTVOC_TEXT_16 FASTVOC_TEN() "%10, %11, %12, %13, %14, %15"
#define FASTVOC_TEXT_24 FASTVOC_TEN() FASTVOC_TEN(1) "%20, %21, %22, %23"
#define FASTVOC_TEXT_32 FASTVOC_TEN() FASTVOC_TEN(1) FASTVOC_TEN(2) "%30, %31"
#define FASTVOC_TEXT_64 \
  FASTVOC_TEN() FASTVOC_TEN(1) FASTVOC_TEN(2) FASTVOC_TEN(3) FASTVOC_TEN(4) FASTVOC_TEN(5) "%60, %61, %62, %63"
#define FASTVOC_TEXT_128                                                                                              \
  FASTVOC_TEN()                                                                                                       \
  FASTVOC_TEN(1) FASTVOC_TEN(2) FASTVOC_TEN(3) FASTVOC_TEN(4) FASTVOC_TEN(5) FASTVOC_TEN(6) FASTVOC_TEN(7)            \
      FASTVOC_TEN(8) FASTVOC_TEN(9) FASTVOC_TEN(10) FASTVOC_TEN(11) "%120, %121, %122, %123, %124, %125, %126, %127"
#define FASTVOC_SUM_4(i) \
  "+f"(sum[(i) / 4][0]), "+f"(sum[(i) / 4][1]), "+f"(sum[(i) / 4][2]), "+f"(sum[(i) / 4][3])
#define FASTVOC_SUM_8(i) FASTVOC_SUM_4(i), FASTVOC_SUM_4(i + 4)
#define FASTVOC_SUM_16(i) FASTVOC_SUM_8(i), FASTVOC_SUM_8(i + 8)
#define FASTVOC_SUM_24(i) FASTVOC_SUM_16(i), FASTVOC_SUM_8(i + 16)
#define FASTVOC_SUM_32(i) FASTVOC_SUM_16(i), FASTVOC_SUM_16(i + 16)
#define FASTVOC_SUM_64(i) FASTVOC_SUM_32(i), FASTVOC_SUM_32(i + 32)
#define FASTVOC_SUM_128(i) FASTVOC_SUM_64(i), FASTVOC_SUM_64(i + 64)
#define FASTVOC_WARPGROUP(type, columns, count, a_text, b_text, one_text)                                      \
  asm volatile("{\n\t.reg .pred add;\n\tsetp.ne.b32 add, " one_text ", 0;\n\twgmma.mma_async.sync.aligned.m64n" \
               #columns "k16.f32." type "." type " {" FASTVOC_TEXT_##count "}, " a_text ", " b_text             \
               ", add, 1, 1, 0, 0;\n\t}"                                                                       \
               : FASTVOC_SUM_##count(0)                                                                        \
               : "l"(a), "l"(b), "n"(1))

// sum += a * b by the four warps of a warpgroup: 64 rows, and 32 bytes of each row of a and column of b. Warp w has
// rows 16 * w and following of the sum, and a thread the same elements of each 8 columns as after multiply_add.
template <int precision, int columns>
FASTVOC_DEVICE void multiply_by_warpgroup(float (&sum)[columns / 8][4], unsigned a_low, unsigned b_low) {
  static_assert(precision == kFloat16 || precision == kBfloat16);
  const unsigned long long a = 8ull << 32 | a_low, b = 8ull << 32 | b_low;
#define FASTVOC_OF_WIDTH(type)                                                               \
  if constexpr (columns == 8) FASTVOC_WARPGROUP(type, 8, 4, "%4", "%5", "%6");               \
  if constexpr (columns == 16) FASTVOC_WARPGROUP(type, 16, 8, "%8", "%9", "%10");            \
  if constexpr (columns == 32) FASTVOC_WARPGROUP(type, 32, 16, "%16", "%17", "%18");         \
  if constexpr (columns == 48) FASTVOC_WARPGROUP(type, 48, 24, "%24", "%25", "%26");         \
  if constexpr (columns == 64) FASTVOC_WARPGROUP(type, 64, 32, "%32", "%33", "%34");         \
  if constexpr (columns == 128) FASTVOC_WARPGROUP(type, 128, 64, "%64", "%65", "%66");       \
  if constexpr (columns == 256) FASTVOC_WARPGROUP(type, 256, 128, "%128", "%129", "%130");
  if constexpr (precision == kFloat16) {
    FASTVOC_OF_WIDTH("f16")
  } else {
    FASTVOC_OF_WIDTH("bf16")
  }
#undef FASTVOC_OF_WIDTH
}

#undef FASTVOC_WARPGROUP
#undef FASTVOC_SUM_128
#undef FASTVOC_SUM_64
#undef FASTVOC_SUM_32
#undef FASTVOC_SUM_24
#undef FASTVOC_SUM_16
#undef FASTVOC_SUM_8
#undef FASTVOC_SUM_4
#undef FASTVOC_TEXT_128
#undef FASTVOC_TEXT_64
#undef FASTVOC_TEXT_32
#undef FASTVOC_TEXT_24
#undef FASTVOC_TEXT_16
#undef FASTVOC_TEXT_8
#undef FASTVOC_TEXT_4
#undef FASTVOC_TEN

// All warps of a warpgroup have fewer or more registers from here on.
template <int registers>
FASTVOC_DEVICE void give_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(registers));
}

template <int registers>
FASTVOC_DEVICE void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(registers));
}

}  // namespace fastvoc::cuda

#endif
