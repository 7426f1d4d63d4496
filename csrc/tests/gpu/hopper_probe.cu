// Whether a GPU of architecture 90 multiplies as cuda/device/hopper.cuh takes for granted, and how fast: operands as
// [chunk][row] that are not swizzled and begin at any row. Everything else has been tried on the CPU, but this can only
// be seen on such a GPU. Built by nvcc alone:
//
//   nvcc -std=c++17 -gencode arch=compute_90a,code=sm_90a -o hopper_probe csrc/tests/gpu/hopper_probe.cu && ./hopper_probe
//
// For every width it prints the largest difference from products in double precision for operands that begin 0, 1, ...
// rows further on, and the clocks that 64 x columns x 16 multiply-adds take when two warpgroups of a multiprocessor do
// nothing else. It exits with 1 if a difference is too large.
#include "../../cuda/device/program.h"

#include "../../cuda/device/hopper_instructions.cuh"

#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

namespace fastvoc::cuda {

constexpr int kChunks = 8, kShifts = 34, kGroups = 2, kRepeats = 256;
constexpr int kPitch = convolution_pitch(kGroups * 64, kShifts);

struct Probe {
  const Vector16 *signal, *weight;  // [kChunks][kPitch], [kChunks][columns]
  float* sum;                       // [kGroups][64][columns]
  long long* clocks;                // of each warpgroup
  int shift, repeats;
};

template <int precision, int columns>
FASTVOC_DEVICE void multiply_once(WarpgroupSum<columns>& sum, unsigned a, unsigned b) {
  begin_products();
#pragma unroll
  for (int pair = 0; pair < kChunks / 2; ++pair) {
    multiply_by_warpgroup<precision>(sum, a + 2 * pair * kPitch, b + 2 * pair * columns);
  }
  commit_products();
}

template <int precision, int columns>
__global__ void __launch_bounds__(kGroups * 128) probe(const Probe parameter) {
  if constexpr (kWarpgroups) {
    Barrier* const full = reinterpret_cast<Barrier*>(shared_memory());
    char* const weights = shared_memory() + 128;
    char* const signal = weights + kChunks * columns * kChunkBytes;
    if (thread() == 0) {
      begin_barrier(full, 1);
      publish_barriers();
    }
    barrier();
    if (thread() == 0) {
      arrive_expecting(full, kChunks * columns * kChunkBytes);
      copy_run(weights, parameter.weight, kChunks * columns * kChunkBytes, full);
    }
    for (int i = thread(); i < kChunks * kPitch; i += kGroups * 128) {
      copy_async(signal + i * kChunkBytes, parameter.signal + i, true);
    }
    commit_copies();
    wait_for_copies<0>();
    publish_writes();
    barrier();
    wait_for_phase(full, 0);

    const int group = thread() / 128;
    const unsigned a = operand(signal, kPitch * kChunkBytes) + group * 64 + parameter.shift;
    const unsigned b = operand(weights, columns * kChunkBytes);
    WarpgroupSum<columns> sum = {};
    multiply_once<precision>(sum, a, b);
    wait_for_products<0>();
    hold(sum);
    const int row = group * 64 + thread() / 32 % 4 * 16 + thread() % 32 / 4;
#pragma unroll
    for (int i = 0; i < columns / 2; ++i) {
      parameter.sum[(row + i / 2 % 2 * 8) * columns + i / 4 * 8 + thread() % 4 * 2 + i % 2] =
          sum.group[i / 16][0][i / 4 % 4][i % 4];
    }

    barrier();
    const long long begin = clock64();
#pragma unroll 1
    for (int i = 0; i < parameter.repeats; ++i) {
      multiply_once<precision>(sum, a, b);
      wait_for_products<1>();
    }
    wait_for_products<0>();
    hold(sum);
    if (thread() % 128 == 0) parameter.clocks[group] = clock64() - begin;
    // Never so; but the compiler does not know, and keeps the loop.
    if (sum.group[0][0][0][0] == 1e30f) parameter.sum[0] = 0;
  }
}

}  // namespace fastvoc::cuda

namespace {

using namespace fastvoc::cuda;

std::mt19937 generator;

bool succeeded(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return true;
  std::printf("%s: %s\n", what, cudaGetErrorString(error));
  return false;
}

// Multiples of 1/128 below 1 in size, which both formats hold exactly, as float does sums of so few products.
struct Operand {
  std::vector<unsigned short> bits;
  std::vector<double> value;
};

Operand draw(size_t count, int precision) {
  Operand operand;
  std::uniform_int_distribution<int> number(-127, 127);
  for (size_t i = 0; i < count; ++i) {
    const double value = number(generator) / 128.0;
    const float narrow = static_cast<float>(value);
    unsigned bits;
    static_assert(sizeof bits == sizeof narrow);
    __builtin_memcpy(&bits, &narrow, sizeof bits);
    // Neither format rounds seven bits, and none of these is subnormal.
    const unsigned sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
    operand.bits.push_back(static_cast<unsigned short>(
        precision == kBfloat16 ? bits >> 16 : magnitude == 0 ? 0 : sign | (magnitude - 0x38000000) >> 13));
    operand.value.push_back(value);
  }
  return operand;
}

template <int precision, int columns>
bool is_right(const char* name) {
  constexpr int bytes = 128 + kChunks * (columns + kPitch) * kChunkBytes, rows = kGroups * 64;
  const Operand signal = draw(size_t(kChunks) * kPitch * 8, precision);
  const Operand weight = draw(size_t(kChunks) * columns * 8, precision);
  Probe parameter = {};
  void *signal_there, *weight_there, *sum_there, *clocks_there;
  const size_t signal_bytes = signal.bits.size() * 2, weight_bytes = weight.bits.size() * 2;
  const auto kernel = probe<precision, columns>;
  if (!succeeded(cudaMalloc(&signal_there, signal_bytes), "memory") ||
      !succeeded(cudaMalloc(&weight_there, weight_bytes), "memory") ||
      !succeeded(cudaMalloc(&sum_there, rows * columns * sizeof(float)), "memory") ||
      !succeeded(cudaMalloc(&clocks_there, kGroups * sizeof(long long)), "memory") ||
      !succeeded(cudaMemcpy(signal_there, signal.bits.data(), signal_bytes, cudaMemcpyHostToDevice), "copy") ||
      !succeeded(cudaMemcpy(weight_there, weight.bits.data(), weight_bytes, cudaMemcpyHostToDevice), "copy") ||
      !succeeded(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes), "shared memory"))
    return false;
  parameter.signal = static_cast<const Vector16*>(signal_there);
  parameter.weight = static_cast<const Vector16*>(weight_there);
  parameter.sum = static_cast<float*>(sum_there);
  parameter.clocks = static_cast<long long*>(clocks_there);
  parameter.repeats = kRepeats;

  bool right = true;
  std::printf("%s, %d columns: shift: largest difference, clocks of a product\n", name, columns);
  for (int shift = 0; shift < kShifts; ++shift) {
    parameter.shift = shift;
    std::vector<float> sum(size_t(rows) * columns, NAN);
    long long clocks[kGroups] = {};
    if (!succeeded(cudaMemset(sum_there, 0xff, sum.size() * sizeof(float)), "memory")) return false;
    kernel<<<1, kGroups * 128, bytes>>>(parameter);
    if (!succeeded(cudaGetLastError(), "launch") || !succeeded(cudaDeviceSynchronize(), "kernel") ||
        !succeeded(cudaMemcpy(sum.data(), sum_there, sum.size() * sizeof(float), cudaMemcpyDeviceToHost), "copy") ||
        !succeeded(cudaMemcpy(clocks, clocks_there, sizeof clocks, cudaMemcpyDeviceToHost), "copy"))
      return false;
    double largest = 0;
    for (int row = 0; row < rows; ++row) {
      for (int column = 0; column < columns; ++column) {
        double expected = 0;
        for (int k = 0; k < kChunks * 8; ++k) {
          expected += signal.value[(size_t(k / 8) * kPitch + size_t(row + shift)) * 8 + size_t(k % 8)] *
                      weight.value[(size_t(k / 8) * columns + size_t(column)) * 8 + size_t(k % 8)];
        }
        const double difference = std::fabs(sum[size_t(row) * columns + size_t(column)] - expected);
        if (!(difference <= largest)) largest = difference;
      }
    }
    // Of 64 products below 1, each may have been cut off at 2^-13. Rows or columns that are others differ by more.
    const bool fine = largest <= 64 * 0x1p-13;
    right = right && fine;
    const double each = double(clocks[0] > clocks[1] ? clocks[0] : clocks[1]) / (kRepeats * kGroups * kChunks / 2);
    std::printf("  %2d: %.3g, %.1f%s\n", shift, largest, each, fine ? "" : "  WRONG");
  }
  cudaFree(signal_there), cudaFree(weight_there), cudaFree(sum_there), cudaFree(clocks_there);
  return right;
}

}  // namespace

int main() {
  cudaDeviceProp device;
  if (!succeeded(cudaGetDeviceProperties(&device, 0), "GPU")) return 1;
  if (device.major != 9) return std::printf("%s is not of architecture 90\n", device.name), 1;
  std::printf("%s\n", device.name);
  bool right = is_right<kFloat16, 64>("float16");
  right = is_right<kFloat16, 128>("float16") && right;
  right = is_right<kFloat16, 256>("float16") && right;
  right = is_right<kBfloat16, 64>("bfloat16") && right;
  right = is_right<kBfloat16, 128>("bfloat16") && right;
  right = is_right<kBfloat16, 256>("bfloat16") && right;
  std::printf(right ? "all right\n" : "WRONG\n");
  return right ? 0 : 1;
}
