// The C surface of networks on a GPU: what is null is refused, and the rest is cuda/.

#include "fastvoc_cuda.h"

#include <new>

#include "cuda/device/recurrent.h"
#include "cuda/host/driver.h"
#include "cuda/host/plan.h"

using fastvoc::cuda::Kernels;
using fastvoc::cuda::Plan;

namespace {

const Plan& plan_of(const void* plan) { return *static_cast<const Plan*>(plan); }

// As much as any GPU gives to a block that asks; the driver takes less where there is less.
constexpr unsigned kMostShared = 227 << 10;

bool find_all(Kernels& kernels) {
  const auto find = [&](const char* name, void** function) {
    return fastvoc::cuda::find_function(kernels.module, name, kMostShared, function);
  };
  for (int i = 0; i < fastvoc::cuda::kChainKernels; ++i)
    if (!find(fastvoc::cuda::kChains[i].name, &kernels.chain[i])) return false;
  for (int i = 0; i < fastvoc::cuda::kConvolutionKernels; ++i)
    if (!find(fastvoc::cuda::kConvolutions[i].name, &kernels.convolution[i])) return false;
  for (int i = 0; i < fastvoc::cuda::kWeightGradientKernels; ++i)
    if (!find(fastvoc::cuda::kWeightGradients[i].name, &kernels.weight_gradient[i])) return false;
#define FASTVOC_FIND_RECURRENT(word, precision)                                 \
  if (!find("recurrent_" #word, &kernels.recurrent[fastvoc::cuda::precision]) || \
      !find("hopper_recurrent_" #word, &kernels.recurrent_cluster[fastvoc::cuda::precision])) \
    return false;
  FASTVOC_RECURRENTS(FASTVOC_FIND_RECURRENT)
#define FASTVOC_FIND_SNAKE(word, precision)                                                     \
  if (!find("smooth_snake_" #word, &kernels.smooth_snake[fastvoc::cuda::precision]) ||          \
      !find("smooth_snake_gradient_" #word, &kernels.smooth_snake_gradient[fastvoc::cuda::precision])) \
    return false;
  FASTVOC_SNAKES(FASTVOC_FIND_SNAKE)
  for (int i = 0; i < fastvoc::cuda::kNormaliseKernels; ++i)
    if (!find(fastvoc::cuda::kNormalises[i].name, &kernels.normalise[i])) return false;
  return find("pack", &kernels.pack) && find("enter", &kernels.enter) && find("add_parts", &kernels.add_parts) &&
         find("input_gradient", &kernels.input_gradient);
}

}  // namespace

const char* fastvoc_cuda_missing(void) { return fastvoc::cuda::missing_driver(); }

const char* fastvoc_cuda_message(void) { return fastvoc::cuda::driver_message(); }

int fastvoc_cuda_load(const void* image, void** kernels) {
  if (!image || !kernels) return FASTVOC_BAD_SIZE;
  if (fastvoc::cuda::missing_driver()) return FASTVOC_NO_DRIVER;
  Kernels* const loaded = new (std::nothrow) Kernels();
  if (!loaded) return FASTVOC_BAD_SIZE;
  if (!fastvoc::cuda::load_module(image, &loaded->module) || !find_all(*loaded)) {
    delete loaded;
    return FASTVOC_DRIVER_ERROR;
  }
  *kernels = loaded;
  return FASTVOC_OK;
}

int64_t fastvoc_cuda_plan_size(const fastvoc_network*) { return sizeof(Plan); }

int fastvoc_cuda_plan_make(const fastvoc_network* network, const fastvoc_gpu* gpu, void* plan) {
  if (!network || !gpu || !plan) return FASTVOC_BAD_NETWORK;
  return fastvoc::cuda::compile(*network, *gpu, *static_cast<Plan*>(plan));
}

int64_t fastvoc_cuda_plan_packed_size(const void* plan) { return plan_of(plan).packed; }

int64_t fastvoc_cuda_plan_workspace_size(const void* plan, int64_t batch, int64_t frames) {
  return fastvoc::cuda::workspace_bytes(plan_of(plan), batch, frames);
}

int fastvoc_cuda_plan_pack(const fastvoc_network* network, const void* plan, void* kernels, int narrow, void* packed,
                           void* stream) {
  if (!network || !plan) return FASTVOC_BAD_NETWORK;
  if (!kernels) return FASTVOC_NO_DRIVER;
  return fastvoc::cuda::pack(*network, plan_of(plan), *static_cast<const Kernels*>(kernels), narrow != 0, packed,
                             stream);
}

int64_t fastvoc_cuda_plan_out_frames(const void* plan, int64_t frames) {
  return fastvoc::cuda::out_frames(plan_of(plan), frames);
}

int fastvoc_cuda_plan_launches(const void* plan, int64_t batch, int64_t frames) {
  return fastvoc::cuda::launches(plan_of(plan), batch, frames);
}

const char* fastvoc_cuda_plan_kernel(const void* plan, int64_t batch, int64_t frames, int launch) {
  return fastvoc::cuda::kernel_name(plan_of(plan), batch, frames, launch);
}

double fastvoc_cuda_plan_clocks(const void* plan, int64_t batch, int64_t frames, int launch) {
  return fastvoc::cuda::expected_clocks(plan_of(plan), batch, frames, launch);
}

int fastvoc_cuda_plan_run(const void* plan, void* kernels, const void* packed, void* workspace, void* stream,
                          const fastvoc_cuda_call* call) {
  if (!plan || !call) return FASTVOC_BAD_NETWORK;
  if (!kernels) return FASTVOC_NO_DRIVER;
  return fastvoc::cuda::run(plan_of(plan), *static_cast<const Kernels*>(kernels), packed, workspace, stream, *call);
}
