// The gate of a layer of WaveNet, and its gradient: one pass over memory each, for training, where what goes into the
// gate is kept. Everything is computed lane by lane, so that a number does not depend on its place.

#include "../isa.h"
#include "kernels/share_out.h"
#include "kernels/tanh.h"

namespace fastvoc::FASTVOC_ISA {
namespace {

// Gates that a thread takes at once: what is read and written of them stays in a second-level cache.
constexpr int64_t kPiece = 16 * 1024;

Vector load_some(const float* from, int64_t count) {
  if (count >= kLanes) return load(from);
  Vector v{};
  __builtin_memcpy(&v, from, count * sizeof(float));
  return v;
}

void store_some(float* to, Vector v, int64_t count) {
  if (count >= kLanes) return store(to, v);
  __builtin_memcpy(to, &v, count * sizeof(float));
}

// Call `each(a, g, count)` for a vector of gates, or what is left of one: their places in the first halves, and among
// the gates.
template <class Each>
void for_each_vector(const fastvoc_gate& call, Each each) {
  const int64_t length = call.length, gates = call.blocks * length;
  share_out(call.threads, (gates + kPiece - 1) / kPiece, [&](int64_t, int64_t piece) {
    const int64_t end = smaller((piece + 1) * kPiece, gates);
    for (int64_t at = piece * kPiece; at < end;) {
      const int64_t block = at / length, last = smaller(end, (block + 1) * length);
      for (; at < last; at += kLanes) each(at + block * length, at, smaller(kLanes, last - at));
      at = last;
    }
  });
}

// The sigmoid is ½ + ½ tanh(b / 2).
struct Halves {
  Vector tanh_a, tanh_half_b;

  Halves(const fastvoc_gate& call, const float* a, int64_t place, int64_t count) {
    const Vector first = load_some(a + place, count), second = load_some(a + place + call.length, count);
    tanh_a = tanh(call.sigmoid_first ? second : first);
    tanh_half_b = tanh(0.5f * (call.sigmoid_first ? first : second));
  }
};

void run(const fastvoc_gate& call, const float* a, float* g) {
  for_each_vector(call, [&](int64_t place, int64_t at, int64_t count) {
    const Halves of(call, a, place, count);
    store_some(g + at, of.tanh_a * (0.5f + 0.5f * of.tanh_half_b), count);
  });
}

void backward(const fastvoc_gate& call, const float* a, const float* grad, float* grad_a) {
  const int64_t to_tanh = call.sigmoid_first ? call.length : 0, to_sigmoid = call.length - to_tanh;
  for_each_vector(call, [&](int64_t place, int64_t at, int64_t count) {
    const Halves of(call, a, place, count);
    const Vector passed = load_some(grad + at, count);
    store_some(grad_a + place + to_tanh, passed * (0.5f + 0.5f * of.tanh_half_b) * (1 - of.tanh_a * of.tanh_a), count);
    store_some(grad_a + place + to_sigmoid, passed * of.tanh_a * (0.25f - 0.25f * of.tanh_half_b * of.tanh_half_b),
               count);
  });
}

}  // namespace

const Gate gate = {run, backward};

}  // namespace fastvoc::FASTVOC_ISA
