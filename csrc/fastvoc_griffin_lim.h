/* The native surface of fastvoc: magnitudes from a mel, and rounds of Griffin-Lim. Errors and instruction sets are in
 * fastvoc.h. */
#ifndef FASTVOC_GRIFFIN_LIM_H
#define FASTVOC_GRIFFIN_LIM_H

#include "fastvoc.h"

#if defined(__GNUC__)
#pragma GCC visibility push(default)
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* griffin_lim: the wave of a mel and of a correction of its magnitudes, frame by frame, as a stream
 *
 *   x  (size / 2 + 1 + bands, frames)  float32, frames neighbours in memory: the correction c, then the mel
 *   y  (samples,)                      float32
 *
 * With the filters F (bands, size / 2 + 1), the rows' target = min(e^mel, size / 2), and
 *
 *   towards(m) = m * F^T (target / max(F m, floor)) / F^T 1, where F^T 1 > 0, and m elsewhere
 *   magnitude = towards^after(min(max(towards^before(1), floor) * e^c, size / 2))
 *   spectrum = magnitude * (-1)^bin
 *
 * each round, of `iterations` and then `revisions`, does
 *
 *   wave = sum of the inverse transforms, under the window, by the sum of the squared windows
 *   rebuilt = transforms of the wave under the window
 *   magnitude = towards(|rebuilt|), in revisions
 *   spectrum = magnitude * ahead / |ahead|, ahead = rebuilt - momentum * the rebuilt of the round before
 *
 * and y is the wave of the last spectrum without (size - hop) / 2 samples at its ends, hop for each frame. The window is
 * a Hann of `size`; its squares are taken as at least a hundredth of the largest sum of them.
 *
 * Every lane of a vector is a frame, so that neither threads nor where a stream is cut change a bit.
 */
typedef struct {
  int isa;
  int64_t bands, size, hop; /* size is a multiple of hop, both even or odd; half of it is made of 2, 3 and 5 */
  int64_t before, after, iterations, revisions;
  float momentum, floor;
} fastvoc_griffin_lim;

/* FASTVOC_OK if it can be run. The functions below expect one that was checked. */
int fastvoc_griffin_lim_check(const fastvoc_griffin_lim* call);

/* In bytes, each aligned to 64. The work is that of a call of so many frames. */
int64_t fastvoc_griffin_lim_packed_size(const fastvoc_griffin_lim* call);
int64_t fastvoc_griffin_lim_state_size(const fastvoc_griffin_lim* call);
int64_t fastvoc_griffin_lim_workspace_size(const fastvoc_griffin_lim* call, int threads, int64_t frames);

/* `filters` are (bands, size / 2 + 1), contiguous. */
int fastvoc_griffin_lim_pack(const fastvoc_griffin_lim* call, const float* filters, void* packed);

/* Begin a stream. */
int fastvoc_griffin_lim_begin(const fastvoc_griffin_lim* call, void* state);

/* How many samples the next frames make certain, or -1 if the stream cannot go on with them: those that it begins with
 * are at least size / hop, unless they are all. */
int64_t fastvoc_griffin_lim_ready(const fastvoc_griffin_lim* call, const void* state, int64_t frames, int last);

/* Advance a stream. `x_row` is in floats, from one row to the next; `last` says that no other frames follow. */
int fastvoc_griffin_lim_run(const fastvoc_griffin_lim* call, const void* packed, void* state, void* workspace,
                            int threads, const float* x, int64_t x_row, int64_t frames, int last, float* y);

#ifdef __cplusplus
}
#endif

#if defined(__GNUC__)
#pragma GCC visibility pop
#endif

#endif
