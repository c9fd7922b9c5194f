/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_PLAN_KEYS_H
#define LINNET_PLAN_KEYS_H

/* The one table of the plan's keys, and the text form of one value. */

#include "linnet/plan.h"

typedef enum linnet_plan_kind {
    LINNET_PLAN_NAME,     /* char[64] */
    LINNET_PLAN_HASH,     /* linnet_hash with has_base_hash: 64 hex digits, or auto */
    LINNET_PLAN_TARGETS,  /* uint32_t mask */
    LINNET_PLAN_COUNT,    /* uint32_t */
    LINNET_PLAN_SEED,     /* uint64_t */
    LINNET_PLAN_NUMBER,   /* double */
    LINNET_PLAN_CHOICE,   /* int: choices[0] is the value min */
    LINNET_PLAN_SWITCH,   /* bool: on, off */
    LINNET_PLAN_DURATION, /* uint32_t seconds: 90, 10m, 1h, 2d */
} linnet_plan_kind;

typedef struct linnet_plan_key_info {
    const char *name; /* "section.key" */
    const char *section, *key;
    linnet_plan_kind kind;
    size_t offset; /* in linnet_plan */
    double min, max;
    const char *choices; /* "a|b|c" */
    const char *unit, *meaning;
} linnet_plan_key_info;

/** Key i, NULL past the end. */
const linnet_plan_key_info *linnet_plan_key_at(size_t i);
/** Set one value from text. RANGE or FORMAT, with what is allowed in the message. */
linnet_status linnet_plan_value_parse(const linnet_plan_key_info *key, const char *text, linnet_plan *plan,
                                      linnet_error *err) LINNET_NODISCARD;
/** Append one value as canonical text: parsing it gives the same bits. */
void linnet_plan_value_write(const linnet_plan_key_info *key, const linnet_plan *plan, linnet_buffer *text);
/** "1 to 256", "adamw|sgd": for errors and the table. */
void linnet_plan_value_allowed(const linnet_plan_key_info *key, char *text, size_t n_text);
/** Over the defaults: what a preset sets. 0 none, 1 wearables, 2 clinics, 3 wearables-dp, 4 clinics-dp. */
#define LINNET_PLAN_PRESETS 5
void linnet_plan_preset_apply(int preset, linnet_plan *plan);
/** Numbers are written and read with a point, whatever the process's locale: begin, then end with what begin
 * returned. */
void *linnet_plan_numbers_begin(void);
void linnet_plan_numbers_end(void *previous);

#endif
