// What kernels ask of the hardware, and nothing else does. In tests the CPU does the same, under the same names:
// csrc/tests/emulator/cuda_on_cpu.h, which is included in front.
#pragma once

#if !defined(FASTVOC_CUDA_ON_CPU)

// Parameters are read where the driver put them; a copy would stand in local memory, because arrays in them are indexed.
// Two blocks of 256 threads shall be on a multiprocessor at once, which leaves 128 registers to a thread; architecture
// 75 has no shared memory for a second one.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
#define FASTVOC_BLOCKS(threads) 1
#else
#define FASTVOC_BLOCKS(threads) ((threads) <= 256 ? 2 : 1)
#endif
#define FASTVOC_DEVICE __device__ __forceinline__
#define FASTVOC_KERNEL(name, Parameter, threads) \
  FASTVOC_SHARING_KERNEL(name, Parameter, threads, FASTVOC_BLOCKS(threads))
// So many blocks share a multiprocessor.
#define FASTVOC_SHARING_KERNEL(name, Parameter, threads, blocks)      \
  extern "C" __global__ void __launch_bounds__(threads, blocks) name( \
      const __grid_constant__ Parameter parameter)

namespace fastvoc::cuda {

struct alignas(16) Vector16 {
  unsigned word[4];
};

FASTVOC_DEVICE int block_x() { return static_cast<int>(blockIdx.x); }
FASTVOC_DEVICE int block_y() { return static_cast<int>(blockIdx.y); }
FASTVOC_DEVICE int block_z() { return static_cast<int>(blockIdx.z); }
FASTVOC_DEVICE int grid_x() { return static_cast<int>(gridDim.x); }
FASTVOC_DEVICE int thread() { return static_cast<int>(threadIdx.x); }

FASTVOC_DEVICE char* shared_memory() {
  extern __shared__ __align__(128) char memory[];
  return memory;
}

FASTVOC_DEVICE unsigned shared_address(const void* shared) {
  return static_cast<unsigned>(__cvta_generic_to_shared(shared));
}

FASTVOC_DEVICE void barrier() { __syncthreads(); }
FASTVOC_DEVICE void barrier(int id, int threads) { asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory"); }
// The same without waiting, for the sake of those that wait there.
FASTVOC_DEVICE void arrive_at_barrier(int id, int threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
FASTVOC_DEVICE void warp_barrier() { __syncwarp(); }

// What the lane has whose number differs in these bits.
FASTVOC_DEVICE float from_lane_across(float value, int bits) { return __shfl_xor_sync(0xffffffffu, value, bits); }

// Matrices of 8 rows of 16 bytes: lane l gives the address of row l % 8 of matrix l / 8, and gets the four bytes l % 4 of
// row l / 4 of each of them.
template <int count>
FASTVOC_DEVICE void load_matrices(unsigned (&m)[count], const void* row) {
  static_assert(count == 1 || count == 2 || count == 4);
  const unsigned address = shared_address(row);
  if constexpr (count == 4) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
                 : "r"(address));
  } else if constexpr (count == 2) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];" : "=r"(m[0]), "=r"(m[1]) : "r"(address));
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];" : "=r"(m[0]) : "r"(address));
  }
}

// The same, but lane l gets elements l / 4 of rows 2 * (l % 4) and the one after it.
template <int count>
FASTVOC_DEVICE void load_matrices_transposed(unsigned (&m)[count], const void* row) {
  static_assert(count == 1 || count == 2 || count == 4);
  const unsigned address = shared_address(row);
  if constexpr (count == 4) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
                 : "r"(address));
  } else if constexpr (count == 2) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
                 : "=r"(m[0]), "=r"(m[1])
                 : "r"(address));
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%0}, [%1];" : "=r"(m[0]) : "r"(address));
  }
}

// sum += a * b with 16 rows, 8 columns, and 32 bytes of each row of a and column of b.
template <int precision>
FASTVOC_DEVICE void multiply_add(float (&sum)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
#if __CUDA_ARCH__ >= 800
  if constexpr (precision == kFloat16) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  } else if constexpr (precision == kBfloat16) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  } else {
    asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  }
#else
  if constexpr (precision == kFloat16) {
    for (int half = 0; half < 2; ++half) {
      asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
          : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
          : "r"(a[2 * half]), "r"(a[2 * half + 1]), "r"(b[half]));
    }
  }
#endif
}

// Two values of 16 bits in one word, rounded to the nearest, ties to even.
template <int precision>
FASTVOC_DEVICE unsigned pack_pair(float low, float high) {
  static_assert(precision == kFloat16 || precision == kBfloat16);
  unsigned pair = 0;
  if constexpr (precision == kFloat16) {
#if __CUDA_ARCH__ >= 800
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
#else
    asm("{ .reg .b16 low, high; cvt.rn.f16.f32 low, %1; cvt.rn.f16.f32 high, %2; mov.b32 %0, {low, high}; }"
        : "=r"(pair)
        : "f"(low), "f"(high));
#endif
  } else {
#if __CUDA_ARCH__ >= 800
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
#endif
  }
  return pair;
}

template <int precision>
FASTVOC_DEVICE void unpack_pair(unsigned pair, float& low, float& high) {
  static_assert(precision == kFloat16 || precision == kBfloat16);
  if constexpr (precision == kFloat16) {
    asm("{ .reg .b16 low, high; mov.b32 {low, high}, %2; cvt.f32.f16 %0, low; cvt.f32.f16 %1, high; }"
        : "=f"(low), "=f"(high)
        : "r"(pair));
  } else {
    low = __uint_as_float(pair << 16);
    high = __uint_as_float(pair & 0xffff0000u);
  }
}

FASTVOC_DEVICE float round_tf32(float value) {
#if __CUDA_ARCH__ >= 800
  unsigned rounded;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(rounded) : "f"(value));
  return __uint_as_float(rounded);
#else
  return value;
#endif
}

FASTVOC_DEVICE float hyperbolic_tangent(float value) { return tanhf(value); }
FASTVOC_DEVICE float power_of_two(float value) { return exp2f(value); }
// Nearly so: off by two units, and zero for what is divided by more than 2^126.
FASTVOC_DEVICE float quotient(float a, float b) { return __fdividef(a, b); }
FASTVOC_DEVICE float exponential(float value) { return expf(value); }
FASTVOC_DEVICE float logarithm(float value) { return logf(value); }
// To 5e-7, of angles up to pi; of others as exact as the product of the angle and 1 / 2 pi.
FASTVOC_DEVICE float quick_sine(float angle) { return __sinf(angle); }
FASTVOC_DEVICE float quick_cosine(float angle) { return __cosf(angle); }
// 2^x, to two units of the last place.
FASTVOC_DEVICE float quick_power_of_two(float exponent) {
  float power;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(exponent));
  return power;
}
FASTVOC_DEVICE float square_root(float value) { return __fsqrt_rn(value); }
FASTVOC_DEVICE float fused(float a, float b, float c) { return __fmaf_rn(a, b, c); }
FASTVOC_DEVICE int to_int(float value) { return __float2int_rn(value); }
FASTVOC_DEVICE float as_float(unsigned bits) { return __uint_as_float(bits); }
FASTVOC_DEVICE unsigned as_bits(float value) { return __float_as_uint(value); }

// 16 bytes on their way to shared memory; zeros where nothing real is there, and then nothing is read.
FASTVOC_DEVICE void copy_async(void* shared, const void* global, bool real) {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)),
               "l"(__cvta_generic_to_global(global)), "r"(real ? 16 : 0)
               : "memory");
#else
  Vector16 value = {};
  if (real) value = *static_cast<const Vector16*>(global);
  *static_cast<Vector16*>(shared) = value;
#endif
}

FASTVOC_DEVICE void commit_copies() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

template <int pending>
FASTVOC_DEVICE void wait_for_copies() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
#endif
}

// What the kernel in front of this one on the stream wrote may only be read behind this, and what it reads, be written.
FASTVOC_DEVICE void wait_for_previous_kernel() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

FASTVOC_DEVICE void let_next_kernel_begin() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// Not by the read-only path: an early kernel begins while that memory is still being written.
template <class T>
FASTVOC_DEVICE T load_global(const T* from) {
  static_assert(sizeof(T) == 2 || sizeof(T) == 4 || sizeof(T) == 8 || sizeof(T) == 16);
  return *from;
}

FASTVOC_DEVICE void trap() { asm volatile("trap;"); }

}  // namespace fastvoc::cuda

#endif

namespace fastvoc::cuda {

// Architecture 75 multiplies float16 alone. Kernels of other precisions exist there, because a module has one list of
// them, and trap.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
template <int precision>
constexpr bool kMultiplies = precision == kFloat16;
#else
template <int precision>
constexpr bool kMultiplies = true;
#endif

// The same values, which the compiler takes for others: so that it does not keep in registers what follows from them
// through a loop in which there is time to make that again; or that sums that begin alike do not share registers at
// first, to be moved about later.
FASTVOC_DEVICE int anew(int value) {
#if !defined(FASTVOC_CUDA_ON_CPU)
  asm volatile("" : "+r"(value));
#endif
  return value;
}
template <class T>
FASTVOC_DEVICE T* anew(T* value) {
#if !defined(FASTVOC_CUDA_ON_CPU)
  asm volatile("" : "+l"(value));
#endif
  return value;
}
FASTVOC_DEVICE void make_anew(float (&value)[4]) {
#if !defined(FASTVOC_CUDA_ON_CPU)
  asm volatile("" : "+f"(value[0]), "+f"(value[1]), "+f"(value[2]), "+f"(value[3]));
#else
  (void)value;
#endif
}

// What all threads of a warp have alike, which the compiler would not know of what follows from their numbers.
FASTVOC_DEVICE int alike(int value) {
#if !defined(FASTVOC_CUDA_ON_CPU)
  return __shfl_sync(0xffffffffu, value, 0);
#else
  return value;
#endif
}

// 128 bytes from here on will be read soon; or later, so that the second level cache is near enough.
FASTVOC_DEVICE void prefetch_to_cache(const void* global) {
#if !defined(FASTVOC_CUDA_ON_CPU)
  asm volatile("prefetch.global.L2 [%0];" ::"l"(__cvta_generic_to_global(global)));
#else
  (void)global;
#endif
}
FASTVOC_DEVICE void prefetch(const void* global) {
#if !defined(FASTVOC_CUDA_ON_CPU)
  asm volatile("prefetch.global.L1 [%0];" ::"l"(__cvta_generic_to_global(global)));
#else
  (void)global;
#endif
}

}  // namespace fastvoc::cuda
