/* SPDX-License-Identifier: Apache-2.0 */

/* The keys of a plan in one table: parsing, writing, checking of ranges, the documentation and the order of
 * the canonical text all come from it. The defaults are those measured in FEDERATED-LORA 7.1 and 12.1; the
 * presets follow DESIGN.md section 2 and SECURE-AGGREGATION 2.8. */

#include "plan_keys.h"

#include <ctype.h>
#include <errno.h>
#include <locale.h>
#include <math.h>
#include <stdlib.h>

#include "linnet/limits.h"

#define KEY(section, key) section "." key, section, key
#define AT(field) offsetof(linnet_plan, field)

static const linnet_plan_key_info keys[] = {
    {KEY("task", "name"), LINNET_PLAN_NAME, AT(name), 1, 63, NULL, "",
     "name of the task: letters, digits, - and _"},
    {KEY("task", "preset"), LINNET_PLAN_CHOICE, AT(preset), 0, 4,
     "none|wearables|clinics|wearables-dp|clinics-dp", "",
     "a set of defaults, applied before every other key"},
    {KEY("task", "seed"), LINNET_PLAN_SEED, AT(seed), 0, 0, NULL, "", "seed of the initial adapter"},
    {KEY("task", "rounds"), LINNET_PLAN_COUNT, AT(rounds), 0, 1000000, NULL, "rounds",
     "horizon of the schedule and end of the task; 0: no end, constant rates"},

    {KEY("model", "base_hash"), LINNET_PLAN_HASH, AT(base_hash), 0, 0, NULL, "",
     "content hash of the base model file; auto: taken from the model at init"},

    {KEY("adapter", "rank"), LINNET_PLAN_COUNT, AT(rank), 1, LINNET_RANK_MAX, NULL, "",
     "rank of the LoRA factors"},
    {KEY("adapter", "alpha"), LINNET_PLAN_NUMBER, AT(alpha), 0.001, 4096, NULL, "",
     "LoRA scale: the product B A counts alpha / rank"},
    {KEY("adapter", "targets"), LINNET_PLAN_TARGETS, AT(targets), 0, 0, NULL, "",
     "all, or names of adapted linears with commas: attn_q,attn_v"},

    {KEY("training", "optimizer"), LINNET_PLAN_CHOICE, AT(optimizer), 0, 1, "adamw|sgd", "",
     "optimiser on the device; its moments start anew each round"},
    {KEY("training", "learning_rate_b"), LINNET_PLAN_NUMBER, AT(learning_rate_b), 1e-8, 10, NULL, "",
     "peak rate of factor B"},
    {KEY("training", "learning_rate_a"), LINNET_PLAN_NUMBER, AT(learning_rate_a), 0, 10, NULL, "",
     "peak rate of factor A; 0: as B, or a quarter of it where a round trains both"},
    {KEY("training", "schedule_final"), LINNET_PLAN_NUMBER, AT(schedule_final), 0.001, 1, NULL, "fraction",
     "share of the peak rate that is left in the last round"},
    {KEY("training", "cosine"), LINNET_PLAN_SWITCH, AT(cosine), 0, 0, NULL, "",
     "cosine by round from the peak to schedule_final; constant within a round"},
    {KEY("training", "local_steps"), LINNET_PLAN_COUNT, AT(local_steps), 1, 10000, NULL, "steps",
     "optimiser steps of one local training"},
    {KEY("training", "batch_records"), LINNET_PLAN_COUNT, AT(batch_records), 1, 1024, NULL, "records",
     "records of one step"},
    {KEY("training", "context_tokens"), LINNET_PLAN_COUNT, AT(context_tokens), 8, 131072, NULL, "tokens",
     "longest sequence; longer records are cut"},
    {KEY("training", "warmup_steps"), LINNET_PLAN_COUNT, AT(warmup_steps), 0, 10000, NULL, "steps",
     "linear warm-up inside every round; 0: none"},
    {KEY("training", "clip_norm"), LINNET_PLAN_NUMBER, AT(clip_norm), 0, 1e6, NULL, "",
     "gradient norm above which a step is scaled down; 0: off"},
    {KEY("training", "weight_decay"), LINNET_PLAN_NUMBER, AT(weight_decay), 0, 1, NULL, "",
     "decoupled weight decay; 0: off"},
    {KEY("training", "prox_mu"), LINNET_PLAN_NUMBER, AT(prox_mu), 0, 100, NULL, "",
     "FedProx: pull towards the release; 0: off"},
    {KEY("training", "dropout"), LINNET_PLAN_NUMBER, AT(dropout), 0, 0.999, NULL, "fraction",
     "LoRA dropout: share that the adapter's side paths do not see of their inputs; 0: off"},
    {KEY("training", "end_token"), LINNET_PLAN_SWITCH, AT(end_token), 0, 0, NULL, "",
     "texts and completions end with end-of-text, which counts"},
    {KEY("training", "held_out"), LINNET_PLAN_NUMBER, AT(held_out), 0, 0.5, NULL, "fraction",
     "share of a device's records kept for its own evaluation"},

    {KEY("cohort", "goal"), LINNET_PLAN_COUNT, AT(goal), 1, LINNET_COHORT_MAX, NULL, "devices",
     "contributions that close a round"},
    {KEY("cohort", "minimum"), LINNET_PLAN_COUNT, AT(minimum), 1, LINNET_COHORT_MAX, NULL, "devices",
     "fewest contributions that count at the deadline"},
    {KEY("cohort", "over_selection"), LINNET_PLAN_NUMBER, AT(over_selection), 1, 10, NULL, "times",
     "a round takes up to goal x this joined devices"},
    {KEY("cohort", "deadline"), LINNET_PLAN_DURATION, AT(deadline_s), 1, 30 * 86400.0, NULL, "time",
     "from the first join of a round to its end"},
    {KEY("cohort", "poll"), LINNET_PLAN_DURATION, AT(poll_s), 1, 7 * 86400.0, NULL, "time",
     "mean pause between the polls of a device with nothing to do"},
    {KEY("cohort", "cohorts"), LINNET_PLAN_COUNT, AT(cohorts), 1, 64, NULL, "cohorts",
     "cohorts of a round, each with a roster, a sum and noise of its own; goal and minimum are of each"},

    {KEY("secure", "profile"), LINNET_PLAN_CHOICE, AT(profile), 1, 4, "plain|secure|secure+dp|central-dp", "",
     "plain: the coordinator is trusted and sees single deltas; secure: it sees masked sums only; secure+dp: "
     "and the sums carry noise; central-dp: a trusted coordinator sees single clipped deltas and adds noise"},
    {KEY("secure", "corrupt"), LINNET_PLAN_NUMBER, AT(corrupt), 0, 0.3, NULL, "fraction",
     "share of a roster, rounded up and at least one device, that may work with the adversary"},
    {KEY("secure", "survivors"), LINNET_PLAN_COUNT, AT(survivors), 0, LINNET_COHORT_MAX, NULL, "devices",
     "fewest contributions in a sum that is opened; 0: three quarters of cohort.minimum, rounded up"},
    {KEY("secure", "phase_deadline"), LINNET_PLAN_DURATION, AT(phase_deadline_s), 1, 86400, NULL, "time",
     "end of each phase of a masked round: roster, shares, masked vectors, survivors, opening"},

    {KEY("privacy", "mechanism"), LINNET_PLAN_CHOICE, AT(mechanism), 0, 3,
     "none|distributed|record-local|central", "",
     "distributed: every device adds a share of the noise; record-local: DP-SGD on the device, per record or "
     "unit; central: the coordinator adds it (follows from central-dp)"},
    {KEY("privacy", "noise_multiplier"), LINNET_PLAN_NUMBER, AT(noise_multiplier), 0, 1000, NULL, "times",
     "z: standard deviation of the noise over the sensitivity"},
    {KEY("privacy", "clip"), LINNET_PLAN_NUMBER, AT(clip), 0, 1e6, NULL, "",
     "largest L2 norm of a whole delta (distributed, central), or of one unit's gradient (record-local)"},
    {KEY("privacy", "delta"), LINNET_PLAN_NUMBER, AT(dp_delta), 1e-12, 0.1, NULL, "",
     "the delta at which epsilon is told; well below one over the number of units"},
    {KEY("privacy", "epsilon_max"), LINNET_PLAN_NUMBER, AT(dp_epsilon_max), 0, 1000, NULL, "",
     "budget of the task: a plan that spends more in its rounds is refused; 0: none"},
    {KEY("privacy", "record_probability"), LINNET_PLAN_NUMBER, AT(record_probability), 0, 1, NULL, "",
     "record-local: probability with which a step draws each unit"},
    {KEY("privacy", "record_units"), LINNET_PLAN_COUNT, AT(record_units), 0, 100000000, NULL, "units",
     "record-local: nominal number of units a device holds; a step's sum is divided by record_probability x "
     "this"},

    {KEY("encoding", "ring_bits"), LINNET_PLAN_COUNT, AT(ring_bits), 16, 32, NULL, "bits",
     "width of a coordinate: 16, 20, 24 or 32"},
    {KEY("encoding", "value_bits"), LINNET_PLAN_COUNT, AT(value_bits), 0, 31, NULL, "bits",
     "width of one device's value; 0: as wide as the ring allows"},
    {KEY("encoding", "range"), LINNET_PLAN_NUMBER, AT(range), 0.01, 100, NULL, "times",
     "clipping range over the natural range of a delta (rate x warm-up sum: below 3e-4 of values saturate)"},
    {KEY("encoding", "weight_max"), LINNET_PLAN_COUNT, AT(weight_max), 1, 63, NULL, "",
     "largest weight of a contribution"},
    {KEY("encoding", "weight_unit_tokens"), LINNET_PLAN_COUNT, AT(weight_unit_tokens), 0, 1000000000, NULL,
     "tokens", "weight = ceil(counted tokens / unit), 1 to weight_max; 0: all weigh 1"},

    {KEY("aggregation", "rule"), LINNET_PLAN_CHOICE, AT(rule), 0, 2, "alternate|ffa|fedavg", "",
     "factors of a round: B and A in turn, B only, both at once"},
    {KEY("aggregation", "server_optimizer"), LINNET_PLAN_CHOICE, AT(server_optimizer), 0, 1, "fedavg|fedavgm",
     "", "how the mean delta becomes the next adapter"},
    {KEY("aggregation", "server_rate"), LINNET_PLAN_NUMBER, AT(server_rate), 0.001, 10, NULL, "",
     "step of the server optimiser"},
    {KEY("aggregation", "server_momentum"), LINNET_PLAN_NUMBER, AT(server_momentum), 0, 0.999, NULL, "",
     "momentum of fedavgm"},
    {KEY("aggregation", "combine"), LINNET_PLAN_CHOICE, AT(combine), 0, 5,
     "mean|median|trimmed-mean|geometric-median|krum|multi-krum", "",
     "how single deltas (profile plain) or the means of cohorts (secure, secure+dp: at least 3, better 5 or "
     "more cohorts) become one; all but mean stand a few bad ones and bias what is not alike"},
    {KEY("aggregation", "trim"), LINNET_PLAN_NUMBER, AT(trim), 0, 0.49, NULL, "fraction",
     "trimmed-mean: share of the values that is cut on each side, rounded up"},
    {KEY("aggregation", "assumed_corrupt"), LINNET_PLAN_COUNT, AT(assumed_corrupt), 0, LINNET_COHORT_MAX,
     NULL, "devices", "krum, multi-krum: f bad deltas are expected; cohort.minimum is at least 2 f + 3"},
    {KEY("aggregation", "norm_clip"), LINNET_PLAN_NUMBER, AT(norm_clip), 0, 1000, NULL, "times",
     "each delta or mean of a cohort is first scaled down to this times the median norm; 0: off"},
    {KEY("aggregation", "step_clip"), LINNET_PLAN_NUMBER, AT(step_clip), 0, 1e6, NULL, "",
     "L2 norm, over all factors, to which the combined delta is scaled down; 0: off"},

    {KEY("evaluation", "install_tolerance"), LINNET_PLAN_NUMBER, AT(install_tolerance), 0.5, 100, NULL,
     "times", "a device installs an adapter whose held-out loss is at most this factor of the present one's"},
    {KEY("evaluation", "gate_tolerance"), LINNET_PLAN_NUMBER, AT(gate_tolerance), 0, 100, NULL, "times",
     "the coordinator releases an adapter only if its loss on the operator's held-out records is at most "
     "this factor of the present one's; needs serve --gate; 0: no gate"},
};

const linnet_plan_key_info *linnet_plan_key_at(size_t i)
{
    return i < ARRAY_LEN(keys) ? &keys[i] : NULL;
}

const char *linnet_plan_key(size_t i)
{
    return i < ARRAY_LEN(keys) ? keys[i].name : NULL;
}

void linnet_plan_default(linnet_plan *plan)
{
    memset(plan, 0, sizeof(*plan)); /* padding too: plans are compared as bytes by tests */
    memcpy(plan->name, "linnet", sizeof("linnet"));
    plan->seed = 1;
    plan->rounds = 20;
    plan->rank = 8;
    plan->alpha = 16;
    plan->targets = LINNET_TARGETS_ALL;
    plan->learning_rate_b = 5e-3;
    plan->schedule_final = 0.02;
    plan->cosine = true;
    plan->local_steps = 10;
    plan->batch_records = 4;
    plan->context_tokens = 256;
    plan->warmup_steps = 3;
    plan->clip_norm = 1;
    plan->end_token = true;
    plan->held_out = 0.2;
    plan->goal = 5;
    plan->minimum = 3;
    plan->over_selection = 1.2;
    plan->deadline_s = 600;
    plan->poll_s = 60;
    plan->cohorts = 1;
    plan->profile = LINNET_PROFILE_SECURE;
    plan->corrupt = 0.05;
    plan->phase_deadline_s = 120;
    plan->dp_delta = 1e-5;
    plan->ring_bits = 24;
    plan->range = 1;
    plan->weight_max = 15;
    plan->weight_unit_tokens = 256;
    plan->server_rate = 1;
    plan->trim = 0.2;
    plan->install_tolerance = 1;
}

static void preset_wearables(linnet_plan *plan)
{
    plan->rounds = 100;
    plan->rule = LINNET_RULE_ALTERNATE;
    plan->context_tokens = 128;
    plan->goal = 128;
    plan->minimum = 64;
    plan->deadline_s = 12 * 3600; /* one night's charging */
    plan->poll_s = 15 * 60;
    plan->ring_bits = 16;
    plan->value_bits = 8;
    plan->weight_max = 1; /* 154 devices x 127 fit 16 bits */
    plan->weight_unit_tokens = 0;
}

static void preset_clinics(linnet_plan *plan)
{
    plan->rounds = 20;
    plan->rule = LINNET_RULE_FEDAVG;
    plan->goal = 6; /* set it to the number of clinics: everybody is in the cohort */
    plan->minimum = 5;
    plan->over_selection = 1;
    plan->deadline_s = 3600;
    plan->poll_s = 30;
    plan->ring_bits = 32;
    plan->weight_unit_tokens = 3072;
}

/* One cohort as large as there is: noise in the mean is z clip sqrt(d) / n, and every cohort carries its
 * own. */
static void preset_wearables_dp(linnet_plan *plan)
{
    preset_wearables(plan);
    plan->rounds = 20;
    plan->rank = 4;
    plan->rule = LINNET_RULE_FFA;
    plan->goal = 1000;
    plan->minimum = 800;
    plan->over_selection = 1.024;
    plan->profile = LINNET_PROFILE_SECURE_DP;
    plan->survivors = 700;
    plan->mechanism = LINNET_DP_DISTRIBUTED;
    plan->noise_multiplier = 1.5;
    plan->clip = 1;
    plan->ring_bits = 20;
    plan->value_bits = 0;
}

static void preset_clinics_dp(linnet_plan *plan)
{
    preset_clinics(plan);
    plan->rank = 4;
    plan->rule = LINNET_RULE_FFA;
    plan->profile = LINNET_PROFILE_SECURE_DP;
    plan->mechanism = LINNET_DP_RECORD_LOCAL;
    plan->noise_multiplier = 1;
    plan->clip = 0.5;
    plan->record_probability = 0.05;
    plan->record_units = 1000; /* set it to what a clinic holds */
    plan->weight_max = 1;
    plan->weight_unit_tokens = 0;
}

void linnet_plan_preset_apply(int preset, linnet_plan *plan)
{
    static void (*const presets[])(linnet_plan *) = {preset_wearables, preset_clinics, preset_wearables_dp,
                                                     preset_clinics_dp};
    plan->preset = preset;
    if (preset >= 1 && preset <= (int)ARRAY_LEN(presets))
        presets[preset - 1](plan);
}

void *linnet_plan_numbers_begin(void)
{
    locale_t c = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    return c ? uselocale(c) : NULL;
}

void linnet_plan_numbers_end(void *previous)
{
    if (!previous)
        return;
    locale_t c = uselocale(previous);
    if (c != LC_GLOBAL_LOCALE)
        freelocale(c);
}

void linnet_plan_value_allowed(const linnet_plan_key_info *key, char *text, size_t n_text)
{
    switch (key->kind) {
    case LINNET_PLAN_NAME:
        snprintf(text, n_text, "1 to 63 characters");
        break;
    case LINNET_PLAN_HASH:
        snprintf(text, n_text, "64 hex digits|auto");
        break;
    case LINNET_PLAN_TARGETS:
        snprintf(text, n_text, "all|names");
        break;
    case LINNET_PLAN_SEED:
        snprintf(text, n_text, "0 to 2^64 - 1");
        break;
    case LINNET_PLAN_CHOICE:
        snprintf(text, n_text, "%s", key->choices);
        break;
    case LINNET_PLAN_SWITCH:
        snprintf(text, n_text, "on|off");
        break;
    case LINNET_PLAN_DURATION:
        snprintf(text, n_text, "%.0fs to %.0fd", key->min, key->max / 86400);
        break;
    case LINNET_PLAN_COUNT:
    case LINNET_PLAN_NUMBER:
        snprintf(text, n_text, "%.10g to %.10g", key->min, key->max);
        break;
    }
}

static linnet_status not_allowed(const linnet_plan_key_info *key, linnet_status status, const char *text,
                                 linnet_error *err)
{
    char allowed[96];
    linnet_plan_value_allowed(key, allowed, sizeof(allowed));
    return linnet_fail(err, status, "%s: '%.60s' is not allowed, must be %s", key->name, text, allowed);
}

static linnet_status parse_name(const linnet_plan_key_info *key, const char *text, char *ret_name,
                                linnet_error *err)
{
    size_t n = strlen(text);
    if (n < 1 || n > 63)
        return not_allowed(key, LINNET_ERR_RANGE, text, err);
    for (size_t i = 0; i < n; i++)
        if (!((text[i] >= '0' && text[i] <= '9') || (text[i] >= 'a' && text[i] <= 'z') ||
              (text[i] >= 'A' && text[i] <= 'Z') || text[i] == '-' || text[i] == '_'))
            return linnet_fail(err, LINNET_ERR_FORMAT,
                               "task.name: '%.60s' may hold letters, digits, - and _ only", text);
    memset(ret_name, 0, 64);
    memcpy(ret_name, text, n);
    return LINNET_OK;
}

static linnet_status parse_hash(const linnet_plan_key_info *key, const char *text, linnet_plan *plan,
                                linnet_error *err)
{
    linnet_hash hash = {{0}};
    bool given = strcmp(text, "auto") != 0;
    if (given && linnet_hex_read(text, hash.bytes, sizeof(hash.bytes)) != LINNET_OK)
        return not_allowed(key, LINNET_ERR_FORMAT, text, err);
    plan->base_hash = hash;
    plan->has_base_hash = given;
    return LINNET_OK;
}

/* Decimal digits only, at most 2^64 - 1; *end is the first character behind them. */
static bool parse_digits(const char *text, uint64_t *ret_value, const char **ret_end)
{
    if (!isdigit((unsigned char)text[0]))
        return false;
    errno = 0;
    char *end = NULL;
    unsigned long long value = strtoull(text, &end, 10);
    if (errno != 0)
        return false;
    *ret_value = value;
    *ret_end = end;
    return true;
}

static linnet_status parse_count(const linnet_plan_key_info *key, const char *text, uint32_t *ret_value,
                                 linnet_error *err)
{
    uint64_t value = 0;
    const char *end = NULL;
    if (!parse_digits(text, &value, &end) || *end != '\0')
        return not_allowed(key, LINNET_ERR_FORMAT, text, err);
    if ((double)value < key->min || (double)value > key->max)
        return not_allowed(key, LINNET_ERR_RANGE, text, err);
    *ret_value = (uint32_t)value;
    return LINNET_OK;
}

static linnet_status parse_duration(const linnet_plan_key_info *key, const char *text, uint32_t *ret_value,
                                    linnet_error *err)
{
    static const char units[] = "smhd";
    static const uint32_t seconds[] = {1, 60, 3600, 86400};
    uint64_t value = 0;
    const char *end = NULL;
    if (!parse_digits(text, &value, &end))
        return not_allowed(key, LINNET_ERR_FORMAT, text, err);
    const char *unit = *end ? strchr(units, *end) : units;
    if (!unit || (*end && end[1] != '\0'))
        return not_allowed(key, LINNET_ERR_FORMAT, text, err);
    double total = (double)value * seconds[unit - units];
    if (total < key->min || total > key->max)
        return not_allowed(key, LINNET_ERR_RANGE, text, err);
    *ret_value = (uint32_t)total;
    return LINNET_OK;
}

static linnet_status parse_number(const linnet_plan_key_info *key, const char *text, double *ret_value,
                                  linnet_error *err)
{
    char *end = NULL;
    if (text[0] == '\0' || strspn(text, "0123456789+-.eE") != strlen(text))
        return not_allowed(key, LINNET_ERR_FORMAT, text, err);
    double value = strtod(text, &end);
    if (*end != '\0')
        return not_allowed(key, LINNET_ERR_FORMAT, text, err);
    if (!(value >= key->min && value <= key->max))
        return not_allowed(key, LINNET_ERR_RANGE, text, err);
    *ret_value = value == 0 ? 0 : value; /* -0 would not survive a comparison of bytes */
    return LINNET_OK;
}

/* Words that are known and refused, each with the reason: more use than a list of what is allowed. */
static const struct {
    const char *key, *word, *reason;
} refused_words[] = {
    {"privacy.mechanism", "record-joint",
     "after a first local step with noise shared across clinics a clinic's own weights carry only its small "
     "share, and one record then moves the released sum by far more than the clip norm; use record-local, "
     "where every step carries the full noise"},
};

static linnet_status parse_choice(const linnet_plan_key_info *key, const char *text, int *ret_value,
                                  linnet_error *err)
{
    size_t n = strlen(text);
    int index = 0;
    for (const char *choice = key->choices; choice; index++) {
        const char *end = strchr(choice, '|');
        size_t n_choice = end ? (size_t)(end - choice) : strlen(choice);
        if (n == n_choice && memcmp(choice, text, n) == 0) {
            *ret_value = index + (int)key->min;
            return LINNET_OK;
        }
        choice = end ? end + 1 : NULL;
    }
    for (size_t i = 0; i < ARRAY_LEN(refused_words); i++)
        if (strcmp(key->name, refused_words[i].key) == 0 && strcmp(text, refused_words[i].word) == 0)
            return linnet_fail(err, LINNET_ERR_UNSUPPORTED, "%s: %s is refused: %s", key->name, text,
                               refused_words[i].reason);
    return not_allowed(key, LINNET_ERR_RANGE, text, err);
}

static linnet_status parse_switch(const linnet_plan_key_info *key, const char *text, bool *ret_value,
                                  linnet_error *err)
{
    if (strcmp(text, "on") != 0 && strcmp(text, "off") != 0)
        return not_allowed(key, LINNET_ERR_FORMAT, text, err);
    *ret_value = text[1] == 'n';
    return LINNET_OK;
}

static linnet_status parse_targets(const linnet_plan_key_info *key, const char *text, uint32_t *ret_mask,
                                   linnet_error *err)
{
    linnet_status status = linnet_targets_parse(text, ret_mask, err);
    return status == LINNET_OK ? LINNET_OK : linnet_error_prefix(err, status, "%s", key->name);
}

linnet_status linnet_plan_value_parse(const linnet_plan_key_info *key, const char *text, linnet_plan *plan,
                                      linnet_error *err)
{
    void *value = (char *)plan + key->offset;
    const char *end = NULL;
    switch (key->kind) {
    case LINNET_PLAN_NAME:
        return parse_name(key, text, value, err);
    case LINNET_PLAN_HASH:
        return parse_hash(key, text, plan, err);
    case LINNET_PLAN_TARGETS:
        return parse_targets(key, text, value, err);
    case LINNET_PLAN_COUNT:
        return parse_count(key, text, value, err);
    case LINNET_PLAN_SEED:
        if (!parse_digits(text, value, &end) || *end != '\0')
            return not_allowed(key, LINNET_ERR_FORMAT, text, err);
        return LINNET_OK;
    case LINNET_PLAN_NUMBER:
        return parse_number(key, text, value, err);
    case LINNET_PLAN_CHOICE:
        return parse_choice(key, text, value, err);
    case LINNET_PLAN_SWITCH:
        return parse_switch(key, text, value, err);
    case LINNET_PLAN_DURATION:
        return parse_duration(key, text, value, err);
    }
    return LINNET_ERR_INTERNAL;
}

static void write_number(double value, linnet_buffer *text)
{
    char digits[40];
    for (int precision = 1; precision <= 17; precision++) {
        snprintf(digits, sizeof(digits), "%.*g", precision, value);
        if (strtod(digits, NULL) == value)
            break;
    }
    linnet_buffer_append_text(text, digits);
}

static void write_targets(uint32_t mask, linnet_buffer *text)
{
    if (mask == LINNET_TARGETS_ALL) {
        linnet_buffer_append_text(text, "all");
        return;
    }
    const char *separator = "";
    for (int t = 0; t < LINNET_TARGETS; t++) {
        if (!(mask & 1u << t))
            continue;
        linnet_buffer_append_format(text, "%s%s", separator, linnet_target_name((linnet_target)t));
        separator = ",";
    }
}

static void write_choice(const linnet_plan_key_info *key, int value, linnet_buffer *text)
{
    const char *choice = key->choices;
    for (int i = (int)key->min; i < value; i++)
        choice = strchr(choice, '|') + 1;
    linnet_buffer_append(text, choice, strcspn(choice, "|"));
}

static void write_duration(uint32_t seconds, linnet_buffer *text)
{
    if (seconds % 86400 == 0)
        linnet_buffer_append_format(text, "%ud", (unsigned)(seconds / 86400));
    else if (seconds % 3600 == 0)
        linnet_buffer_append_format(text, "%uh", (unsigned)(seconds / 3600));
    else if (seconds % 60 == 0)
        linnet_buffer_append_format(text, "%um", (unsigned)(seconds / 60));
    else
        linnet_buffer_append_format(text, "%us", (unsigned)seconds);
}

static void write_hash(const linnet_plan *plan, linnet_buffer *text)
{
    char hex[2 * LINNET_HASH_BYTES + 1] = "auto";
    if (plan->has_base_hash)
        linnet_hex_write(plan->base_hash.bytes, LINNET_HASH_BYTES, hex);
    linnet_buffer_append_text(text, hex);
}

void linnet_plan_value_write(const linnet_plan_key_info *key, const linnet_plan *plan, linnet_buffer *text)
{
    const void *value = (const char *)plan + key->offset;
    switch (key->kind) {
    case LINNET_PLAN_NAME:
        linnet_buffer_append_text(text, value);
        break;
    case LINNET_PLAN_HASH:
        write_hash(plan, text);
        break;
    case LINNET_PLAN_TARGETS:
        write_targets(*(const uint32_t *)value, text);
        break;
    case LINNET_PLAN_COUNT:
        linnet_buffer_append_format(text, "%u", (unsigned)*(const uint32_t *)value);
        break;
    case LINNET_PLAN_SEED:
        linnet_buffer_append_format(text, "%llu", (unsigned long long)*(const uint64_t *)value);
        break;
    case LINNET_PLAN_NUMBER:
        write_number(*(const double *)value, text);
        break;
    case LINNET_PLAN_CHOICE:
        write_choice(key, *(const int *)value, text);
        break;
    case LINNET_PLAN_SWITCH:
        linnet_buffer_append_text(text, *(const bool *)value ? "on" : "off");
        break;
    case LINNET_PLAN_DURATION:
        write_duration(*(const uint32_t *)value, text);
        break;
    }
}
