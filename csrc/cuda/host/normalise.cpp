// The C surface of what begins convnext on a GPU: what is wrong with a call, and the launch.
#include <climits>

#include "../../fastvoc_cuda_convnext.h"
#include "calls.h"
#include "cost.h"
#include "driver.h"
#include "fuse.h"

namespace fastvoc::cuda {
namespace {

constexpr int kLaneChannels = 64;  // channels of the pairs of a warp's lanes
// Several frames of a warp share weights, if there are warps enough for that: so many on a multiprocessor.
constexpr int64_t kEnoughNormalising = 4;
// Instructions of two channels, as they stand in the code for architecture 90: of a tap, and of a frame of it; of a frame
// behind the taps.
constexpr double kTapInstructions = 28, kFrameInstructions = 4, kEndInstructions = 24;

int64_t out_frames(const fastvoc_cuda_normalise& call) { return call.frames + call.left + call.right - call.taps + 1; }

int64_t warps_of(const fastvoc_cuda_normalise& call, const NormaliseKernel& kernel) {
  return call.batch * ((out_frames(call) + kernel.frames - 1) / kernel.frames);
}

// The kernel that shares most, if it has enough to do; they give the same bits.
const NormaliseKernel* choose_normalise(const fastvoc_gpu& gpu, const fastvoc_cuda_normalise& call) {
  const int precision = precision_of(call.precision);
  for (const NormaliseKernel& kernel : kNormalises)
    if (kernel.precision == precision && call.channels <= int64_t{kLaneChannels} * kernel.pairs &&
        (kernel.frames == 1 || warps_of(call, kernel) >= kEnoughNormalising * gpu.multiprocessors))
      return &kernel;
  return nullptr;
}

int check_sizes(const fastvoc_gpu& gpu, const fastvoc_cuda_normalise& call) {
  if (!is_gpu(gpu)) return FASTVOC_BAD_SIZE;
  const int precision = precision_of(call.precision);
  if ((precision != kFloat16 && precision != kBfloat16) || (gpu.architecture < 80 && precision != kFloat16))
    return FASTVOC_BAD_PRECISION;
  constexpr int64_t kMost = 1 << 30, kFarthest = INT_MAX / 4;  // rows and bytes between them are counted in 32 bits
  if (call.batch < 1 || call.batch > kMostItems || !is_count(call.channels) || !is_count(call.taps) ||
      call.frames < 1 || call.frames > kMost)
    return FASTVOC_BAD_SIZE;
  if (call.left < 0 || call.right < 0 || call.left > kMostCount || call.right > kMostCount) return FASTVOC_BAD_PADDING;
  if (out_frames(call) < 1 || out_frames(call) > kMost - kMostCount ||
      !fits({call.batch, call.frames + call.left + call.right, call.channels, 2}))
    return FASTVOC_BAD_SIZE;
  const int64_t* const strides = call.x_strides;
  if (strides[0] < -kMostElements || strides[0] > kMostElements || strides[1] < -kFarthest || strides[1] > kFarthest ||
      strides[2] < -kFarthest || strides[2] > kFarthest)
    return FASTVOC_BAD_SIZE;
  return choose_normalise(gpu, call) ? FASTVOC_OK : FASTVOC_BAD_SIZE;
}

int check_call(const fastvoc_gpu& gpu, const fastvoc_cuda_normalise& call) {
  if (const int error = check_sizes(gpu, call)) return error;
  for (const void* data : {call.x, call.weight, call.bias, call.norm, call.norm_bias, static_cast<const void*>(call.y)})
    if (!data || !is_aligned(data, 2)) return FASTVOC_BAD_SIZE;
  return FASTVOC_OK;
}

}  // namespace
}  // namespace fastvoc::cuda

using namespace fastvoc;
using namespace fastvoc::cuda;

int64_t fastvoc_cuda_normalise_channels(void) {
  int64_t most = 0;
  for (const NormaliseKernel& kernel : kNormalises)
    if (kernel.pairs * kLaneChannels > most) most = kernel.pairs * kLaneChannels;
  return most;
}

double fastvoc_cuda_normalise_clocks(const fastvoc_gpu* gpu, const fastvoc_cuda_normalise* call) {
  if (!gpu || !call || check_sizes(*gpu, *call) != FASTVOC_OK) return -1;
  const NormaliseKernel& kernel = *choose_normalise(*gpu, *call);
  const double pairs = double((call->channels + kLaneChannels - 1) / kLaneChannels);
  const double instructions =  // of a warp
      pairs * (double(call->taps) * (kTapInstructions + kernel.frames * kFrameInstructions) +
               kernel.frames * kEndInstructions);
  const int64_t warps = warps_of(*call, kernel), most = (warps + gpu->multiprocessors - 1) / gpu->multiprocessors;
  constexpr double kIssued = 0.5, kSchedulers = 4, kDependent = 2;
  const double issue = double(most) * instructions / kSchedulers / kIssued;
  const double alone = instructions * kDependent + 2 * kFetchClocks;
  const double bytes = double(call->batch * call->channels) * double(call->frames + out_frames(*call)) * 2;
  const double memory = bytes / (double(gpu->multiprocessors) * rates_of(gpu->architecture).memory);
  return overlapped(memory, issue > alone ? issue : alone) + kLaunchClocks;
}

int fastvoc_cuda_normalise_run(const fastvoc_gpu* gpu, void* kernels, void* stream,
                               const fastvoc_cuda_normalise* call) {
  if (!gpu || !call) return FASTVOC_BAD_SIZE;
  if (!kernels) return FASTVOC_NO_DRIVER;
  if (const int error = check_call(*gpu, *call)) return error;
  const NormaliseKernel& kernel = *choose_normalise(*gpu, *call);
  Normalise normalise = {};
  normalise.x = call->x, normalise.weight = call->weight, normalise.bias = call->bias;
  normalise.norm = call->norm, normalise.norm_bias = call->norm_bias;
  normalise.y = call->y;
  normalise.lengths = call->lengths;
  normalise.x_item = call->x_strides[0];
  normalise.x_channel = int(call->x_strides[1]), normalise.x_frame = int(call->x_strides[2]);
  normalise.channels = int(call->channels), normalise.frames = int(call->frames);
  normalise.out_frames = int(out_frames(*call));
  normalise.taps = int(call->taps), normalise.left = int(call->left);
  normalise.eps = call->eps;
  normalise.words = call->channels % 2 == 0 && call->x_strides[1] == 1 && call->x_strides[0] % 2 == 0 &&
                    call->x_strides[2] % 2 == 0;
  for (const void* data : {call->x, call->weight, call->bias, static_cast<const void*>(call->y)})
    if (!is_aligned(data, 4)) normalise.words = 0;
  const int64_t tiles = (warps_of(*call, kernel) / call->batch + kNormaliseWarps - 1) / kNormaliseWarps;
  const Shape shape = {{unsigned(tiles), unsigned(call->batch), 1}, unsigned(32 * kNormaliseWarps), 0};
  const Kernels& all = *static_cast<const Kernels*>(kernels);
  return launch(all.normalise[&kernel - kNormalises], shape, &normalise, sizeof normalise, false, stream)
             ? FASTVOC_OK
             : FASTVOC_DRIVER_ERROR;
}
