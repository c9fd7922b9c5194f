/* SPDX-License-Identifier: Apache-2.0 */
/* A scenario is a handful of probabilities in INI form. */
#include "linnet/simulation.h"

#include <ini.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name;
    size_t offset;
    double max;
} keys[] = {
    {"participation", offsetof(linnet_scenario, participation), 1},
    {"drop_out", offsetof(linnet_scenario, drop_out), 1},
    {"lose", offsetof(linnet_scenario, lose), 1},
    {"duplicate", offsetof(linnet_scenario, duplicate), 1},
    {"corrupt", offsetof(linnet_scenario, corrupt), 1},
    {"restart", offsetof(linnet_scenario, restart), 1},
    {"kills", offsetof(linnet_scenario, kills), 10000},
};

void linnet_scenario_default(linnet_scenario *scenario)
{
    *scenario = (linnet_scenario){.participation = 1};
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

static int take_key(void *context, const char *section, const char *name, const char *value)
{
    parse_state *state = context;
    const char *names[ARRAY_LEN(keys)];
    char *end = NULL;
    double number = strtod(value, &end);
    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        names[i] = keys[i].name;
        if (strcmp(section, "scenario") != 0 || strcmp(name, keys[i].name) != 0)
            continue;
        if (end == value || *end || !isfinite(number) || number < 0 || number > keys[i].max) {
            state->status = linnet_fail(state->err, LINNET_ERR_RANGE,
                                        "scenario '%s': %s = '%s': a number from 0 to %.0f is wanted",
                                        state->path, name, is_text(value) ? value : "?", keys[i].max);
            return 0;
        }
        memcpy((char *)&state->scenario + keys[i].offset, &number, sizeof(number));
        return 1;
    }
    if (!is_text(section) || !is_text(name)) {
        state->status =
            linnet_fail(state->err, LINNET_ERR_FORMAT, "scenario '%s': this is no text", state->path);
        return 0;
    }
    const char *nearest = linnet_nearest_name(name, names, ARRAY_LEN(names));
    state->status =
        linnet_fail(state->err, LINNET_ERR_FORMAT, "scenario '%s': unknown key [%s] %s%s%s", state->path,
                    section, name, nearest ? ", did you mean [scenario] " : "", nearest ? nearest : "");
    return 0;
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
