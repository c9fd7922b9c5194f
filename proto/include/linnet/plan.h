/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_PLAN_H
#define LINNET_PLAN_H

/* The plan of a task: one INI file, every value with a default, a unit and a documented range. Its bytes
 * travel as a content-addressed object; its hash stands in every signed release. A plan is data: nothing in
 * it is ever run. */

#include "linnet/accountant.h"
#include "linnet/aggregate.h"
#include "linnet/ring.h"
#include "linnet/robust.h"

#include <stdio.h>

typedef enum linnet_profile { /* values are on the wire */
                              LINNET_PROFILE_PLAIN =
                                  1, /* the coordinator is trusted and sees single deltas */
                              LINNET_PROFILE_SECURE = 2,     /* it sees masked sums only */
                              LINNET_PROFILE_SECURE_DP = 3,  /* and the sums carry the devices' noise */
                              LINNET_PROFILE_CENTRAL_DP = 4, /* plain with clipped deltas: a trusted
                                                                coordinator adds the noise */
} linnet_profile;

/** Where the noise of differential privacy comes from (SECURE-AGGREGATION 3.2, 3.6). */
typedef enum linnet_dp_mechanism { /* values are on the wire */
                                   LINNET_DP_NONE = 0,
                                   LINNET_DP_DISTRIBUTED = 1,  /* every device adds a share of it */
                                   LINNET_DP_RECORD_LOCAL = 2, /* DP-SGD on the device, full noise a step */
                                   LINNET_DP_CENTRAL = 3,      /* the coordinator adds it to the sum */
} linnet_dp_mechanism;

/** Whose presence epsilon hides. */
typedef enum linnet_dp_unit { /* values are on the wire */
                              LINNET_DP_UNIT_NONE = 0,
                              LINNET_DP_UNIT_DEVICE = 1, /* all that one device holds */
                              LINNET_DP_UNIT_RECORD = 2, /* one record, or all records of one `unit` */
} linnet_dp_unit;

typedef struct linnet_plan {
    /* [task] */
    char name[64];   /* letters, digits, - and _ */
    int preset;      /* none, wearables, clinics, wearables-dp, clinics-dp */
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
    double dropout; /* share that side paths do not see of their inputs */
    bool end_token;
    double held_out; /* fraction of a device's records kept for its own evaluation */
    /* [cohort] */
    uint32_t goal, minimum; /* contributions that close a round; the fewest that count at the deadline */
    double over_selection;  /* joined devices at most = ceil(goal x this) */
    uint32_t deadline_s;    /* from the first join of a round to its end */
    uint32_t poll_s;        /* mean pause between the polls of a device with nothing to do */
    uint32_t cohorts; /* of a round, each with its own announcement, roster and sum; goal and minimum are
                         of each */
    /* [secure] */
    int profile;        /* linnet_profile */
    double corrupt;     /* share of a roster assumed to be with the adversary; C = max(1, ceil(it n)) */
    uint32_t survivors; /* m_min, fewest devices in an opened sum; 0: linnet_plan_survivors_min */
    uint32_t phase_deadline_s; /* of each interactive phase */
    /* [privacy] */
    int mechanism;             /* linnet_dp_mechanism */
    double noise_multiplier;   /* z: noise over sensitivity, in the sum */
    double clip;               /* Delta: L2 norm of a whole delta, or of one unit's gradient (record-local) */
    double dp_delta;           /* at which dp_epsilon is told */
    double dp_epsilon_max;     /* budget of the task; 0: none */
    double record_probability; /* p with which a step draws a unit (record-local) */
    uint32_t record_units;     /* nominal number of units a device holds: p x this divides a step's sum */
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
    int combine;              /* linnet_robust_rule over deltas (plain) or means of cohorts (secure) */
    double trim;              /* trimmed-mean: fraction cut on each side */
    uint32_t assumed_corrupt; /* f of (multi-)krum */
    double norm_clip;         /* each of what is combined, in times the median norm; 0: off */
    double step_clip;         /* L2 norm of the combined delta, all active factors together; 0: off */
    /* [evaluation] */
    double install_tolerance; /* a device installs an adapter whose held-out loss is at most this factor of
                                 the present one's */
    double gate_tolerance;    /* an adapter whose loss at the gate is above this factor of the present one's
                                 is not released; 0: no gate */
} linnet_plan;

void linnet_plan_default(linnet_plan *plan);
/** Parse text (need not end with zero), then linnet_plan_check. FORMAT/RANGE name `file`, the line, the key,
 * the allowed range or the nearest known key. A preset is applied before the other keys, wherever it
 * stands. */
linnet_status linnet_plan_parse(const char *file, const char *text, size_t n_bytes, linnet_plan *ret_plan,
                                linnet_error *err) LINNET_NODISCARD;
linnet_status linnet_plan_load(const char *path, linnet_plan *ret_plan, linnet_error *err) LINNET_NODISCARD;
/** Canonical text with every key: what init stores and devices fetch. Appended to text. */
linnet_status linnet_plan_write(const linnet_plan *plan, linnet_buffer *text,
                                linnet_error *err) LINNET_NODISCARD;
/** H("plan.", canonical text). */
linnet_hash linnet_plan_hash(const void *text, size_t n_bytes);
/** What one key cannot say: minimum <= goal, cohort and weights fit the ring, thresholds can be met, privacy
 * agrees with profile, rule and weights. RANGE or UNSUPPORTED names the keys and the reason. */
linnet_status linnet_plan_check(const linnet_plan *plan, linnet_error *err) LINNET_NODISCARD;
/** The table of all keys with units, defaults, ranges and meaning, for docs and --help. */
void linnet_plan_describe(FILE *out);
/** Key i of the table as "section.key", NULL past the end. */
const char *linnet_plan_key(size_t i);
/** "secure+dp", "record-local", "device": the words of the plan. "?" for what is none. */
const char *linnet_profile_name(int profile);
const char *linnet_dp_mechanism_name(int mechanism);
const char *linnet_dp_unit_name(int unit);

/* ---- what follows from a plan ---- */
/** ceil(goal x over_selection), at most LINNET_COHORT_MAX. */
uint32_t linnet_plan_join_max(const linnet_plan *plan);
uint32_t linnet_plan_weight(const linnet_plan *plan, uint64_t counted_tokens);
/** How what came in is combined. */
void linnet_plan_robust(const linnet_plan *plan, linnet_robust_config *ret_config);
/** More than a weighted mean: vectors are compared with each other. */
bool linnet_plan_compares(const linnet_plan *plan);
/** Masked sums: profiles secure and secure+dp. */
bool linnet_profile_is_secure(int profile);
/** m_min. With masks: secure.survivors, or where that is 0 three quarters of cohort.minimum, rounded up (48
 * of 64, 4 of 5); otherwise cohort.minimum. */
uint32_t linnet_plan_survivors_min(const linnet_plan *plan);
/** secure.corrupt as the announcement carries it; 0 without masks. */
uint32_t linnet_plan_corrupt_permille(const linnet_plan *plan);
/** linnet_dp_unit of the plan's mechanism. */
linnet_dp_unit linnet_plan_dp_unit(const linnet_plan *plan);
/** The learning rates of a step from `version` (0-based), after the schedule. */
void linnet_plan_rates(const linnet_plan *plan, uint64_t version, double *ret_rate_b, double *ret_rate_a);
/** The vectors of a contribution to a step from `version`, and how they are encoded: at most
 * LINNET_VECTORS_MAX, in the order in which they are packed: [factor B (id 0)], [factor A (id 2)], lanes (id
 * 1). */
linnet_status linnet_plan_vectors(const linnet_plan *plan, const linnet_layout *layout, uint64_t version,
                                  linnet_ring_spec ret_specs[3], size_t *ret_n,
                                  linnet_error *err) LINNET_NODISCARD;

/** What one round means for privacy: the lattice, the noise and their bounds (SECURE-AGGREGATION 3.2, 3.6).
 * The same for device, coordinator and plan-check. */
typedef struct linnet_privacy {
    linnet_dp_mechanism mechanism;
    linnet_dp_unit unit;
    bool rotates;            /* sign flip and Walsh-Hadamard before rounding; length is padded for it */
    uint64_t dimension;      /* d: coordinates of what is clipped as one, padded */
    int32_t exponent;        /* f of its lattice; s = 2^f */
    double clip;             /* Delta */
    uint64_t bound2;         /* D2^2, floored: the integer test of conditional rounding */
    uint64_t sigma2;         /* lattice variance of one draw: a device's share, a step's or the sum's noise */
    double noise_multiplier; /* z that sigma2 implies under the assumption below, at least the plan's */
    uint32_t
        survivors_min; /* m_min, and C of the largest roster: distributed noise counts m_min - C shares */
    uint32_t corrupt;
    double probability; /* record-local: p, n_steps a round, and the public divisor p x record_units */
    uint32_t n_steps;
    double divisor;
} linnet_privacy;
/** All zero where the plan has no differential privacy. RANGE where no exponent gives at least 4 lattice
 * units of noise to every draw, at most 2^24 of variance, and a sum that cannot wrap. */
linnet_status linnet_plan_privacy(const linnet_plan *plan, const linnet_layout *layout, uint64_t version,
                                  linnet_privacy *ret_privacy, linnet_error *err) LINNET_NODISCARD;
/** Add what n_rounds rounds spend to a ledger; nothing without differential privacy. */
void linnet_privacy_spend(const linnet_privacy *privacy, double n_rounds, linnet_rdp *rdp);
/** dp_epsilon after n_rounds at the plan's dp_delta and noise multiplier, which the noise of
 * linnet_plan_privacy never falls short of: an upper bound that needs no model. infinity without differential
 * privacy, 0 for 0 rounds. */
double linnet_plan_epsilon(const linnet_plan *plan, double n_rounds);

/* With differential privacy the lane vector holds LINNET_LANE_PARTICIPANTS alone. */
#define LINNET_DP_LANES 1

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
