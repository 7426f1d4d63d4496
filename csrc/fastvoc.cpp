// The C surface: checks, and the choice of the instruction set.

#include "fastvoc.h"

#include <algorithm>
#include <cstring>
#if defined(FASTVOC_AMX) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "isa.h"
#include "recurrent.h"

namespace {

using namespace fastvoc;

#if defined(FASTVOC_AMX)
// Linux keeps room for tiles only for processes that ask for it: once, before the first use.
bool has_tiles() {
#if defined(FASTVOC_EMULATE_AMX)
  return true;
#elif defined(__linux__)
  constexpr long kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  static const bool granted = FASTVOC_HAS("amx-tile") && FASTVOC_HAS("amx-bf16") &&
                              syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
  return granted;
#else
  return false;
#endif
}
#endif

struct Isa {
  int number;
  const char* name;
  bool (*usable)();
  const Forward* forward[FASTVOC_OPERATOR_COUNT];
  const Backward* backward[FASTVOC_OPERATOR_COUNT];
  const Plans* plans;
  const Recurrent* recurrent;
  const Convnext* convnext;
  const Gated* gated;
  const Gate* gate;
  const GriffinLim* griffin_lim;
};

#define FASTVOC_FORWARD(isa, op) &isa::op,
#define FASTVOC_BACKWARD(isa, op) &isa::op##_backward,
#define FASTVOC_ISA_ENTRY(number, name, operators, plans_in, usable) \
  {FASTVOC_ISA_##number, name, [] { return bool(usable); },          \
   {FASTVOC_OPERATORS(operators, FASTVOC_FORWARD)},                  \
   {FASTVOC_OPERATORS(operators, FASTVOC_BACKWARD)}, &plans_in::plans, &operators::recurrent, &plans_in::convnext, \
   &plans_in::gated, &operators::gate, &operators::griffin_lim},

constexpr Isa kIsas[] = {FASTVOC_ISAS(FASTVOC_ISA_ENTRY)};

// The one of a number, or null if the library was not compiled for it.
const Isa* find_isa(int number) {
  for (const Isa& isa : kIsas)
    if (isa.number == number) return &isa;
  return nullptr;
}

const Forward& forward_of(const fastvoc_call& call) { return *find_isa(call.isa)->forward[call.kind]; }
const Backward& backward_of(const fastvoc_call& call) { return *find_isa(call.isa)->backward[call.kind]; }

// A plan begins with the instruction set that it was made for.
const Plans& plans_of(const void* plan) { return *find_isa(*static_cast<const int*>(plan))->plans; }

}  // namespace

const char* fastvoc_error(int error) {
  switch (error) {
    case FASTVOC_OK:
      return "no error";
    case FASTVOC_BAD_ISA:
      return "the instruction set is not usable on this processor; ask fastvoc_isa_usable first";
    case FASTVOC_BAD_SIZE:
      return "a size is out of range; sizes are positive, at least one frame results, and memory is there to hold it";
    case FASTVOC_BAD_PADDING:
      return "padding or crop is negative, its mode is unknown, or reflection is longer than the input";
    case FASTVOC_BAD_PRECISION:
      return "the instruction set, or the GPU, has no multiplications in this precision";
    case FASTVOC_BAD_NETWORK:
      return "the layers do not make a network that a plan can run";
    case FASTVOC_BAD_OPERATOR:
      return "the operator is unknown, or has no such setting";
    case FASTVOC_NO_DRIVER:
      return "there is no driver for GPUs, or no kernels were loaded; fastvoc_cuda_missing says why";
    case FASTVOC_DRIVER_ERROR:
      return "the driver refused a call; fastvoc_cuda_message says which";
    default:
      return "unknown error";
  }
}

const char* fastvoc_isa_name(int isa) {
  const Isa* const found = find_isa(isa);
  return found ? found->name : "unknown";
}

int fastvoc_isa_usable(int isa) {
  const Isa* const found = find_isa(isa);
  return found && found->usable();
}

uint64_t fastvoc_fingerprint(int64_t count, const void* const* pieces, const int64_t* sizes) {
  constexpr int64_t kSamples = 8, kBytes = 4;
  uint64_t sum = 0;
  for (int64_t i = 0; i < count; ++i) {
    const char* piece = static_cast<const char*>(pieces[i]);
    if (sizes[i] == 0) continue;  // empty memory may be nowhere
    for (int64_t k = 0; k < kSamples; ++k) {
      // the middles of as many stretches, since ends are more often left as they are
      const int64_t at = (2 * k + 1) * sizes[i] / (2 * kSamples) / kBytes * kBytes;
      uint32_t value = 0;
      std::memcpy(&value, piece + at, std::min(kBytes, sizes[i] - at));
      sum = (sum ^ value) * 0x9e3779b97f4a7c15u;
      sum ^= sum >> 29;
    }
  }
  return sum;
}

int fastvoc_call_check(const fastvoc_call* call) {
  if (!fastvoc_isa_usable(call->isa)) return FASTVOC_BAD_ISA;
  if (call->kind < 0 || call->kind >= FASTVOC_OPERATOR_COUNT) return FASTVOC_BAD_OPERATOR;
  for (const int64_t count :
       {call->in_channels, call->out_channels, call->taps, call->dilation, call->stride, call->groups})
    if (!is_count(count)) return FASTVOC_BAD_SIZE;
  if (!is_threads(call->threads) || !fits({call->batch, call->in_frames}) ||
      !weight_fits(call->in_channels, call->out_channels, call->taps))
    return FASTVOC_BAD_SIZE;
  if (call->left < 0 || call->right < 0) return FASTVOC_BAD_PADDING;
  if (!fits({call->left}) || !fits({call->right})) return FASTVOC_BAD_SIZE;
  return forward_of(*call).check(*call);
}

int64_t fastvoc_call_packed_size(const fastvoc_call* call) { return forward_of(*call).packed_size(*call); }

int64_t fastvoc_call_workspace_size(const fastvoc_call* call) { return forward_of(*call).workspace_size(*call); }

int fastvoc_call_pack(const fastvoc_call* call, const float* weight, float* packed) {
  forward_of(*call).pack(*call, weight, packed);
  return FASTVOC_OK;
}

int fastvoc_call_run(const fastvoc_call* call, const float* x, const int64_t* x_strides, const float* packed,
                     const float* bias, const float* residual, const int64_t* residual_strides, float* y,
                     const int64_t* y_strides, float* workspace) {
  forward_of(*call).run(*call, x, x_strides, packed, bias, residual, residual_strides, y, y_strides, workspace);
  return FASTVOC_OK;
}

int64_t fastvoc_call_backward_workspace_size(const fastvoc_call* call) {
  return backward_of(*call).workspace_size(*call);
}

int fastvoc_call_backward(const fastvoc_call* call, const float* grad, const int64_t* grad_strides, const float* x,
                          const int64_t* x_strides, const float* weight, const float* y, const int64_t* y_strides,
                          float* grad_x, const int64_t* grad_x_strides, float* grad_weight, float* grad_bias,
                          float* workspace) {
  backward_of(*call).run(*call, grad, grad_strides, x, x_strides, weight, y, y_strides, grad_x, grad_x_strides,
                         grad_weight, grad_bias, workspace);
  return FASTVOC_OK;
}

int fastvoc_convnext_check(const fastvoc_convnext* call) {
  if (!fastvoc_isa_usable(call->isa)) return FASTVOC_BAD_ISA;
  for (const int64_t count : {call->channels, call->hidden, call->taps})
    if (!is_count(count)) return FASTVOC_BAD_SIZE;
  if (!is_threads(call->threads) || call->taps % 2 == 0 || !(call->eps > 0) || call->in_frames < 0) return FASTVOC_BAD_SIZE;
  if (call->left < 0 || call->right < 0) return FASTVOC_BAD_PADDING;
  if (!fits({call->left}) || !fits({call->right}) || !fits({call->in_frames})) return FASTVOC_BAD_SIZE;
  const int64_t frames = call->in_frames + call->left + call->right;
  if (frames < call->taps || !fits({call->batch, frames, call->channels}) || !fits({call->taps, call->channels + 64}) ||
      !weight_fits(call->channels, call->hidden, 1) || !tiles_fit(call->threads, 0, call->channels) ||
      !tiles_fit(1, 0, call->hidden))
    return FASTVOC_BAD_SIZE;
  return find_isa(call->isa)->convnext->check(*call);
}

int64_t fastvoc_convnext_packed_size(const fastvoc_convnext* call) {
  return find_isa(call->isa)->convnext->packed_size(*call);
}

int64_t fastvoc_convnext_workspace_size(const fastvoc_convnext* call) {
  return find_isa(call->isa)->convnext->workspace_size(*call);
}

int fastvoc_convnext_pack(const fastvoc_convnext* call, const fastvoc_convnext_weights* weights, void* packed,
                          void* workspace) {
  find_isa(call->isa)->convnext->pack(*call, *weights, packed, workspace);
  return FASTVOC_OK;
}

int fastvoc_convnext_run(const fastvoc_convnext* call, const float* x, int64_t x_batch, int64_t x_frame,
                         const void* packed, float* y, int64_t y_batch, int64_t y_frame, void* workspace) {
  find_isa(call->isa)->convnext->run(*call, x, x_batch, x_frame, packed, y, y_batch, y_frame, workspace);
  return FASTVOC_OK;
}

int fastvoc_gated_check(const fastvoc_gated* call) {
  if (!fastvoc_isa_usable(call->isa)) return FASTVOC_BAD_ISA;
  for (const int64_t count : {call->channels, call->gates, call->skips, call->taps, call->dilation, call->condition,
                              call->condition_taps, call->phases})
    if (!is_count(count)) return FASTVOC_BAD_SIZE;
  if (!is_threads(call->threads) || call->frames < 1 || !fits({call->frames})) return FASTVOC_BAD_SIZE;
  if ((call->in_order | call->residual | 1) != 1) return FASTVOC_BAD_OPERATOR;
  if (call->offset < 0 || call->offset >= call->phases) return FASTVOC_BAD_SIZE;
  const int64_t span = call->dilation * (call->taps - 1);
  if (call->before < 0 || call->before > span) return FASTVOC_BAD_PADDING;
  const int64_t widest = std::max({call->channels, 2 * call->gates, call->skips, call->condition});
  // what is held of each row, with what fills up blocks of rows and vectors
  if (!fits({call->frames + span + 1024 * call->threads, widest + 64}) ||
      !fits({call->batch, call->frames + span, widest}) ||
      !weight_fits(call->channels, 2 * call->gates + 64, 4 * call->taps) ||
      !weight_fits(call->condition + 64, 2 * call->gates + 64, call->condition_taps) ||
      !fits({call->phases, call->condition + 64, 2 * call->gates + 128, call->condition_taps}) ||
      !fits({call->frames + call->condition_taps + 1024 * call->threads, call->condition + 64}) ||
      !weight_fits(call->gates, std::max(call->channels, call->skips), 1) ||
      !tiles_fit(call->threads, 16 * span, 8 * widest))
    return FASTVOC_BAD_SIZE;
  return find_isa(call->isa)->gated->check(*call);
}

int64_t fastvoc_gated_packed_size(const fastvoc_gated* call) {
  return find_isa(call->isa)->gated->packed_size(*call);
}

int64_t fastvoc_gated_workspace_size(const fastvoc_gated* call) {
  return find_isa(call->isa)->gated->workspace_size(*call);
}

int fastvoc_gated_pack(const fastvoc_gated* call, const fastvoc_gated_weights* weights, void* packed, void* workspace) {
  find_isa(call->isa)->gated->pack(*call, *weights, packed, workspace);
  return FASTVOC_OK;
}

int fastvoc_gated_run(const fastvoc_gated* call, const fastvoc_gated_input* x, const fastvoc_gated_input* c,
                      const fastvoc_gated_input* s, const void* packed, const fastvoc_gated_output* residual,
                      const fastvoc_gated_output* skip, void* workspace) {
  find_isa(call->isa)->gated->run(*call, *x, *c, *s, packed, *residual, *skip, workspace);
  return FASTVOC_OK;
}

int fastvoc_gate_check(const fastvoc_gate* call) {
  if (!fastvoc_isa_usable(call->isa)) return FASTVOC_BAD_ISA;
  if ((call->sigmoid_first | 1) != 1) return FASTVOC_BAD_OPERATOR;
  return is_threads(call->threads) && fits({call->blocks, call->length, 2}) ? FASTVOC_OK : FASTVOC_BAD_SIZE;
}

int fastvoc_gate_run(const fastvoc_gate* call, const float* a, float* g) {
  find_isa(call->isa)->gate->run(*call, a, g);
  return FASTVOC_OK;
}

int fastvoc_gate_backward(const fastvoc_gate* call, const float* a, const float* grad, float* grad_a) {
  find_isa(call->isa)->gate->backward(*call, a, grad, grad_a);
  return FASTVOC_OK;
}

int fastvoc_griffin_lim_check(const fastvoc_griffin_lim* call) {
  if (!fastvoc_isa_usable(call->isa)) return FASTVOC_BAD_ISA;
  for (const int64_t count : {call->bands, call->size, call->hop})
    if (!is_count(count) || count > kMostTransformed) return FASTVOC_BAD_SIZE;
  for (const int64_t count : {call->before, call->after, call->iterations, call->revisions})
    if (count < 0 || count > kMostRounds) return FASTVOC_BAD_SIZE;
  if (call->size % call->hop || (call->size - call->hop) % 2 || call->size % 2) return FASTVOC_BAD_SIZE;
  return find_isa(call->isa)->griffin_lim->check(*call);
}

int64_t fastvoc_griffin_lim_packed_size(const fastvoc_griffin_lim* call) {
  return find_isa(call->isa)->griffin_lim->packed_size(*call);
}

int64_t fastvoc_griffin_lim_state_size(const fastvoc_griffin_lim* call) {
  return find_isa(call->isa)->griffin_lim->state_size(*call);
}

int64_t fastvoc_griffin_lim_workspace_size(const fastvoc_griffin_lim* call, int threads, int64_t frames) {
  if (!is_threads(threads) || frames < 0 || frames > kMostFramesAtOnce) return -1;
  return find_isa(call->isa)->griffin_lim->workspace_size(*call, threads, frames);
}

int fastvoc_griffin_lim_pack(const fastvoc_griffin_lim* call, const float* filters, void* packed) {
  find_isa(call->isa)->griffin_lim->pack(*call, filters, packed);
  return FASTVOC_OK;
}

int fastvoc_griffin_lim_begin(const fastvoc_griffin_lim* call, void* state) {
  find_isa(call->isa)->griffin_lim->begin(*call, state);
  return FASTVOC_OK;
}

int64_t fastvoc_griffin_lim_ready(const fastvoc_griffin_lim* call, const void* state, int64_t frames, int last) {
  if (frames < 0 || frames > kMostFrames) return -1;
  return find_isa(call->isa)->griffin_lim->ready(*call, state, frames, last);
}

int fastvoc_griffin_lim_run(const fastvoc_griffin_lim* call, const void* packed, void* state, void* workspace,
                            int threads, const float* x, int64_t x_row, int64_t frames, int last, float* y) {
  if (!is_threads(threads) || frames < 0 || frames > kMostFramesAtOnce ||
      fastvoc_griffin_lim_ready(call, state, frames, last) < 0)
    return FASTVOC_BAD_SIZE;
  find_isa(call->isa)->griffin_lim->run(*call, packed, state, workspace, threads, x, x_row, frames, last, y);
  return FASTVOC_OK;
}

int64_t fastvoc_plan_size(const fastvoc_network* network) {
  const Isa* const isa = find_isa(network->isa);
  return (isa ? isa : kIsas)->plans->size(*network);  // fastvoc_plan_make says what is wrong with it
}

int fastvoc_plan_make(const fastvoc_network* network, void* plan) {
  if (!fastvoc_isa_usable(network->isa)) return FASTVOC_BAD_ISA;
  return find_isa(network->isa)->plans->make(*network, plan);
}

int64_t fastvoc_plan_packed_size(const void* plan) { return plans_of(plan).packed_size(plan); }

int fastvoc_plan_pack(const fastvoc_network* network, const void* plan, int threads, void* packed) {
  return is_threads(threads) ? plans_of(plan).pack(*network, plan, threads, packed) : FASTVOC_BAD_SIZE;
}

int64_t fastvoc_plan_state_size(const void* plan) { return plans_of(plan).state_size(plan); }

int64_t fastvoc_plan_workspace_size(const void* plan, int threads) {
  return is_threads(threads) ? plans_of(plan).workspace_size(plan, threads) : -1;
}

int fastvoc_plan_toom_cook_layers(const void* plan) { return plans_of(plan).toom_cook_layers(plan); }

int fastvoc_plan_begin(const void* plan, void* state) {
  plans_of(plan).begin(plan, state);
  return FASTVOC_OK;
}

int64_t fastvoc_plan_ready(const void* plan, const void* state, int64_t frames, int last) {
  return frames >= 0 && frames <= kMostFrames ? plans_of(plan).ready(plan, state, frames, last) : -1;
}

int fastvoc_plan_run(const void* plan, const void* packed, void* state, void* workspace, int threads, const float* x,
                     const int64_t* x_strides, int64_t frames, int last, float* y, const int64_t* y_strides) {
  if (!is_threads(threads) || frames < 0 || frames > kMostFrames) return FASTVOC_BAD_SIZE;
  return plans_of(plan).run(plan, packed, state, workspace, threads, x, x_strides, frames, last, y, y_strides);
}

int fastvoc_recurrent_check(const fastvoc_recurrent* network) {
  if (!fastvoc_isa_usable(network->isa)) return FASTVOC_BAD_ISA;
  if (const int error = fastvoc::check_recurrent(*network)) return error;
  return find_isa(network->isa)->recurrent->check(*network);
}

int64_t fastvoc_recurrent_rows(const fastvoc_recurrent* network) {
  int64_t rows = 0;
  for (int64_t l = 0; l < network->layers; ++l) rows += (network->taps - 1) * network->dilations[l];
  return rows;
}

int64_t fastvoc_recurrent_packed_size(const fastvoc_recurrent* network) {
  return find_isa(network->isa)->recurrent->packed_size(*network);
}

int64_t fastvoc_recurrent_workspace_size(const fastvoc_recurrent* network, int threads) {
  return is_threads(threads) ? find_isa(network->isa)->recurrent->workspace_size(*network, threads) : -1;
}

int fastvoc_recurrent_pack(const fastvoc_recurrent* network, void* packed) {
  find_isa(network->isa)->recurrent->pack(*network, packed);
  return FASTVOC_OK;
}

int fastvoc_recurrent_run(const fastvoc_recurrent* network, const void* packed, const fastvoc_steps* steps,
                          void* workspace) {
  if (!is_threads(steps->threads) || !fastvoc::steps_fit(*network, *steps)) return FASTVOC_BAD_SIZE;
  for (int64_t n = 0; n < steps->batch; ++n)
    if (steps->time[n] < 0 || steps->time[n] > kMostElements) return FASTVOC_BAD_SIZE;
  if (!steps->drawn && !steps->forced) return FASTVOC_BAD_NETWORK;
  if (steps->batch && steps->count) find_isa(network->isa)->recurrent->run(*network, packed, *steps, workspace);
  return FASTVOC_OK;
}
