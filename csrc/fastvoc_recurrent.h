/* The native surface of fastvoc: networks that make one sample after the other. Errors and instruction sets are in
 * fastvoc.h, precisions in fastvoc_plan.h.
 */
#ifndef FASTVOC_RECURRENT_H
#define FASTVOC_RECURRENT_H

#include "fastvoc_plan.h"

#if defined(__GNUC__)
#pragma GCC visibility push(default)
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* A WaveNet: causal dilated convolutions with gates, each of which hands a residual to the next one and a skip to the
 * head (van den Oord and others 2016). With x = input(samples before t), for each layer
 *
 *   g = bias + sum over taps j of dilated[j] x[t - dilation (taps - 1 - j)] + condition c[t] + gates
 *   z = tanh(first half of g) sigmoid(second half of g)
 *   skip += skip z
 *   x = (x + residual z + bias) residual_scale
 *
 * and the head, relu(skip skip_scale), a matrix (and one of the condition, if it takes one too), relu, a matrix, makes the
 * distribution that the sample is drawn from.
 * All of a layer that does not depend on the sample before is computed for a block of samples at once.
 *
 * The result of a stream is the same to the bit however its samples are divided among calls, whatever stands beside it
 * in a batch, and with any number of threads.
 */

/* What is given back as an input, and drawn: the number of a class, or a sample in [-1, 1]. */
enum { FASTVOC_CLASSES, FASTVOC_LOGISTICS, FASTVOC_GAUSSIAN };

typedef struct {
  int isa, precision;    /* FASTVOC_FLOAT32 or FASTVOC_BFLOAT16: of what is multiplied; sums are in float32 */
  int distribution;      /* of which the head makes the parameters */
  int64_t channels;      /* of the residual path */
  int64_t gated;         /* channels behind the gates, half of those in front of them */
  int64_t skips, hidden; /* channels of the skips and behind the head's first matrix */
  int64_t outputs;       /* classes; three for each logistic; two of a Gaussian */
  int64_t layers, taps, condition, input_taps;
  const int64_t* dilations;           /* (layers,) */
  float residual_scale, skip_scale;
  float smallest_log_scale;           /* of logistics and the Gaussian */
  /* Weights, contiguous. The taps of an input of classes are a table each; others are convolved. Oldest first. */
  const float* input;                 /* (input_taps, classes, channels), or (channels, input_taps) */
  const float* input_bias;            /* (channels,) */
  const float* dilated;               /* (layers, 2 gated, channels, taps) */
  const float* dilated_bias;          /* (layers, 2 gated) */
  const float* conditions;            /* (layers, 2 gated, condition), or null where condition is 0 */
  const float* residual;              /* (layers, channels, gated); the last one is not read */
  const float* residual_bias;         /* (layers, channels) */
  const float* skip;                  /* (layers, skips, gated) */
  const float* skip_bias;             /* (skips,), the sum of all layers' */
  const float* first_skip;            /* (skips, channels), of the input itself, or null */
  const float* hidden_weight;         /* (hidden, skips) */
  const float* hidden_bias;           /* (hidden,) */
  const float* hidden_condition;      /* (hidden, condition), or null */
  const float* output;                /* (outputs, hidden) */
  const float* output_bias;           /* (outputs,) */
  /* With FASTVOC_BFLOAT16, what is multiplied in 8 bits: (layers, 2), or null. The dilated convolution of a layer, and
   * residual and skip together, read scale * q with q in -127..127 where this scale is not 0, beyond that the nearest; a
   * condition has a scale for each row that is its own. Each row of a tap, a residual or a skip has one, too. */
  const float* input_scales;
} fastvoc_recurrent;

/* Some steps of some streams. Numbers drawn are uniform in (0, 1), one for each class, two for each logistic: which, and
 * where in it; or one standard normal for each sample of a Gaussian. */
typedef struct {
  int threads;
  int64_t batch, count;        /* streams, and samples of each */
  const int64_t* time;         /* (batch,) samples that each has made before */
  float* rings;                /* (batch, rows, channels), begun with zeros: see fastvoc_recurrent_rows */
  float* history;              /* (batch, input_taps) latest inputs, newest last */
  const float* condition;      /* (batch, count, condition) */
  const float* gates;          /* (batch, layers, 2 gated) added to all steps, or null */
  const float* noise;          /* (batch, numbers, count) */
  const float* temperature;    /* (batch,); 0 takes what is most likely */
  const float* forced;         /* (batch, count) inputs that are given instead of what was drawn, or null */
  float* drawn;                /* (batch, count), or null if nothing is to be drawn and all is forced */
  float* parameters;           /* (batch, count, outputs), or null */
  int alone;                   /* whether no thread has a second one that helps it */
  int* late;                   /* where one has: whether it was waited for in an eighth of the time or more; or null */
} fastvoc_steps;

/* FASTVOC_OK if the network can be run. The functions below expect one that was checked. */
int fastvoc_recurrent_check(const fastvoc_recurrent* network);

/* Rows that a stream remembers of all layers: for each (taps - 1) dilation, of which row t modulo that is of time t. */
int64_t fastvoc_recurrent_rows(const fastvoc_recurrent* network);

/* Bytes, in memory that is aligned to 64 of them. */
int64_t fastvoc_recurrent_packed_size(const fastvoc_recurrent* network);
int64_t fastvoc_recurrent_workspace_size(const fastvoc_recurrent* network, int threads);

int fastvoc_recurrent_pack(const fastvoc_recurrent* network, void* packed);

int fastvoc_recurrent_run(const fastvoc_recurrent* network, const void* packed, const fastvoc_steps* steps,
                          void* workspace);

#ifdef __cplusplus
}
#endif

#if defined(__GNUC__)
#pragma GCC visibility pop
#endif

#endif
