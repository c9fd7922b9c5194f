/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_PLAN_H
#define LINNET_PLAN_H

/* The plan of a task: one INI file, every value with a default, a unit and a documented range. Its bytes
 * travel as a content-addressed object; its hash stands in every signed release. A plan is data: nothing in
 * it is ever run. */

#include "linnet/aggregate.h"
#include "linnet/ring.h"

#include <stdio.h>

typedef enum linnet_profile {
    LINNET_PROFILE_PLAIN = 1 /* SECURE = 2, SECURE_DP = 3: with secure aggregation */
} linnet_profile;

typedef struct linnet_plan {
    /* [task] */
    char name[64];   /* letters, digits, - and _ */
    int preset;      /* none, wearables, clinics */
    uint64_t seed;   /* of the initial adapter and the data order */
    uint32_t rounds; /* horizon of the schedule; the task ends after it (0: never ends, constant rates) */
    /* [model] */
    linnet_hash base_hash; /* H(OBJECT, file); all zero: taken from the model at init */
    bool has_base_hash;
    /* [adapter] */
    uint32_t rank;
    double alpha;
    uint32_t targets; /* mask of linnet_target */
    /* [training] */
    int optimizer;                                           /* 0 adamw, 1 sgd */
    double learning_rate_b, learning_rate_a, schedule_final; /* learning_rate_a 0: as B */
    bool cosine;                                             /* by round; constant otherwise */
    uint32_t local_steps, batch_records, context_tokens, warmup_steps;
    double clip_norm, weight_decay, prox_mu;
    bool end_token;
    double held_out; /* fraction of a device's records kept for its own evaluation */
    /* [cohort] */
    uint32_t goal, minimum; /* contributions that close a round; the fewest that count at the deadline */
    double over_selection;  /* joined devices at most = ceil(goal x this) */
    uint32_t deadline_s;    /* from the first join of a round to its end */
    uint32_t poll_s;        /* mean pause between the polls of a device with nothing to do */
    /* [secure] */
    int profile; /* linnet_profile */
    /* [encoding] */
    uint32_t ring_bits;          /* 16, 20, 24, 32 */
    uint32_t value_bits;         /* 0: as wide as the ring allows */
    double range;                /* times the natural range of a delta, linnet_delta_range */
    uint32_t weight_max;         /* contributions weigh 1..this by their counted tokens */
    uint32_t weight_unit_tokens; /* weight = clamp(ceil(tokens / unit), 1, weight_max); 0: all weigh 1 */
    /* [aggregation] */
    int rule;             /* linnet_rule */
    int server_optimizer; /* linnet_server_optimizer */
    double server_rate, server_momentum;
    /* [evaluation] */
    double install_tolerance; /* a device installs an adapter whose held-out loss is at most this factor of
                                 the present one's */
} linnet_plan;

void linnet_plan_default(linnet_plan *plan);
/** Parse text (need not end with zero), then linnet_plan_check. FORMAT/RANGE name `file`, the line, the key,
 * the allowed range or the nearest known key. A preset is applied before the other keys, wherever it stands.
 */
linnet_status linnet_plan_parse(const char *file, const char *text, size_t n_bytes, linnet_plan *ret_plan,
                                linnet_error *err) LINNET_NODISCARD;
linnet_status linnet_plan_load(const char *path, linnet_plan *ret_plan, linnet_error *err) LINNET_NODISCARD;
/** Canonical text with every key: what init stores and devices fetch. Appended to text. */
linnet_status linnet_plan_write(const linnet_plan *plan, linnet_buffer *text,
                                linnet_error *err) LINNET_NODISCARD;
/** H("plan.", canonical text). */
linnet_hash linnet_plan_hash(const void *text, size_t n_bytes);
/** What one key cannot say: minimum <= goal, cohort and weights fit the ring, profile known. */
linnet_status linnet_plan_check(const linnet_plan *plan, linnet_error *err) LINNET_NODISCARD;
/** The table of all keys with units, defaults, ranges and meaning, for docs and --help. */
void linnet_plan_describe(FILE *out);
/** Key i of the table as "section.key", NULL past the end. */
const char *linnet_plan_key(size_t i);

/* ---- what follows from a plan ---- */
/** ceil(goal x over_selection), at most LINNET_COHORT_MAX. */
uint32_t linnet_plan_join_max(const linnet_plan *plan);
uint32_t linnet_plan_weight(const linnet_plan *plan, uint64_t counted_tokens);
/** The learning rates of a step from `version` (0-based), after the schedule. */
void linnet_plan_rates(const linnet_plan *plan, uint64_t version, double *ret_rate_b, double *ret_rate_a);
/** The vectors of a contribution to a step from `version`, and how they are encoded: at most
 * LINNET_VECTORS_MAX, in the order in which they are packed: [factor B (id 0)], [factor A (id 2)], lanes (id
 * 1). */
linnet_status linnet_plan_vectors(const linnet_plan *plan, const linnet_layout *layout, uint64_t version,
                                  linnet_ring_spec ret_specs[3], size_t *ret_n,
                                  linnet_error *err) LINNET_NODISCARD;

/* The lanes of vector 1: 32-bit ring, exponent 0, weights multiplied in by the device. */
typedef enum linnet_lane {
    LINNET_LANE_PARTICIPANTS, /* 1 */
    LINNET_LANE_WEIGHT,       /* w */
    LINNET_LANE_LOSS, /* w x round(1024 x min(loss, 32)): held-out loss of the release on the device's own
                         records */
    LINNET_LANE_LOSS_WEIGHT, /* w where a loss is reported, else 0 */
    LINNET_LANES
} linnet_lane;
#define LINNET_LANE_LOSS_SCALE 1024
#define LINNET_LANE_LOSS_MAX 32

#endif
