/* SPDX-License-Identifier: Apache-2.0 */
/* A scenario is a handful of probabilities and the name of an attack, in INI form. */
#include "linnet/simulation.h"

#include <ini.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define KILLS_MAX 10000
#define ATTACK_SCALE_MAX 1e6

void linnet_scenario_default(linnet_scenario *scenario)
{
    *scenario = (linnet_scenario){.participation = 1, .attack_scale = 10};
}

typedef struct parse_state {
    const char *path;
    linnet_scenario scenario;
    linnet_error *err;
    linnet_status status;
} parse_state;

/* Messages go to terminals: nothing from a file that one would obey. */
static bool is_text(const char *bytes)
{
    for (; *bytes; bytes++)
        if ((unsigned char)*bytes < 0x20 || *bytes == 0x7f)
            return false;
    return true;
}

/* One key: how its text becomes the field at offset; max is for numbers. */
typedef struct scenario_key {
    const char *name;
    size_t offset;
    double max;
    linnet_status (*read)(parse_state *state, const struct scenario_key *key, const char *value);
} scenario_key;

static linnet_status read_number(parse_state *state, const scenario_key *key, const char *value)
{
    char *end = NULL;
    double number = strtod(value, &end);
    if (end == value || *end || !isfinite(number) || number < 0 || number > key->max)
        return linnet_fail(state->err, LINNET_ERR_RANGE,
                           "scenario '%s': %s = '%s': a number from 0 to %.0f is wanted", state->path,
                           key->name, is_text(value) ? value : "?", key->max);
    memcpy((char *)&state->scenario + key->offset, &number, sizeof(number));
    return LINNET_OK;
}

static linnet_status read_attack(parse_state *state, const scenario_key *key, const char *value)
{
    const char *names[LINNET_ATTACKS];
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        linnet_attack attack = (linnet_attack)i;
        names[i] = linnet_attack_name(attack);
        if (strcmp(value, names[i]) == 0) {
            memcpy((char *)&state->scenario + key->offset, &attack, sizeof(attack));
            return LINNET_OK;
        }
    }
    const char *nearest = linnet_nearest_name(value, names, ARRAY_LEN(names));
    return linnet_fail(state->err, LINNET_ERR_RANGE, "scenario '%s': %s = '%s' is no attack%s%s", state->path,
                       key->name, is_text(value) ? value : "?", nearest ? ", did you mean " : "",
                       nearest ? nearest : "");
}

static const scenario_key keys[] = {
    {"participation", offsetof(linnet_scenario, participation), 1, read_number},
    {"drop_out", offsetof(linnet_scenario, drop_out), 1, read_number},
    {"lose", offsetof(linnet_scenario, lose), 1, read_number},
    {"duplicate", offsetof(linnet_scenario, duplicate), 1, read_number},
    {"corrupt", offsetof(linnet_scenario, corrupt), 1, read_number},
    {"restart", offsetof(linnet_scenario, restart), 1, read_number},
    {"kills", offsetof(linnet_scenario, kills), KILLS_MAX, read_number},
    {"attack", offsetof(linnet_scenario, attack), 0, read_attack},
    {"attackers", offsetof(linnet_scenario, attackers), 1, read_number},
    {"attack_scale", offsetof(linnet_scenario, attack_scale), ATTACK_SCALE_MAX, read_number},
};

static linnet_status fail_unknown(const parse_state *state, const char *section, const char *name)
{
    const char *names[ARRAY_LEN(keys)];
    if (!is_text(section) || !is_text(name))
        return linnet_fail(state->err, LINNET_ERR_FORMAT, "scenario '%s': this is no text", state->path);
    for (size_t i = 0; i < ARRAY_LEN(keys); i++)
        names[i] = keys[i].name;
    const char *nearest = linnet_nearest_name(name, names, ARRAY_LEN(names));
    return linnet_fail(state->err, LINNET_ERR_FORMAT, "scenario '%s': unknown key [%s] %s%s%s", state->path,
                       section, name, nearest ? ", did you mean [scenario] " : "", nearest ? nearest : "");
}

static int take_key(void *context, const char *section, const char *name, const char *value)
{
    parse_state *state = context;
    const scenario_key *key = NULL;
    for (size_t i = 0; i < ARRAY_LEN(keys); i++)
        if (strcmp(section, "scenario") == 0 && strcmp(name, keys[i].name) == 0)
            key = &keys[i];
    state->status = key ? key->read(state, key, value) : fail_unknown(state, section, name);
    return state->status == LINNET_OK;
}

linnet_status linnet_scenario_load(const char *path, linnet_scenario *ret_scenario, linnet_error *err)
{
    parse_state state = {.path = path, .err = err};
    linnet_scenario_default(&state.scenario);
    int line = ini_parse(path, take_key, &state);
    if (state.status != LINNET_OK)
        return state.status;
    if (line < 0)
        return linnet_fail(err, LINNET_ERR_NOT_FOUND, "cannot read the scenario '%s'", path);
    if (line > 0)
        return linnet_fail(err, LINNET_ERR_FORMAT,
                           "scenario '%s': line %d is no 'key = value' and no [section]", path, line);
    *ret_scenario = state.scenario;
    return LINNET_OK;
}
