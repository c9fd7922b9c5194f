/* SPDX-License-Identifier: Apache-2.0 */

/* What this device refuses, whatever the coordinator asks: an INI file with one section. Reading it is
 * strict, since a floor that is silently ignored is no floor. What the floors mean is in policy_refusal.c. */

#include "linnet/device.h"

#include <ctype.h>
#include <errno.h>
#include <ini.h>
#include <math.h>
#include <stdlib.h>

#include "linnet/file.h"
#include "linnet/limits.h"

#define POLICY_BYTES_MAX ((size_t)16 << 10)

typedef enum policy_kind {
    POLICY_U32,
    POLICY_U64,
    POLICY_NUMBER,
    POLICY_SWITCH,
    POLICY_PIN,
    POLICY_PATH
} policy_kind;

typedef struct policy_key {
    const char *name;
    policy_kind kind;
    size_t offset, flag_offset; /* flag: of a pin */
    double min, max;
} policy_key;

#define AT(field) offsetof(linnet_policy, field)

static const policy_key keys[] = {
    {"cohort_min", POLICY_U32, AT(cohort_min), 0, 1, LINNET_COHORT_MAX},
    {"survivors_min", POLICY_U32, AT(survivors_min), 0, LINNET_SECURE_COHORT_MIN, LINNET_COHORT_MAX},
    {"corrupt_min", POLICY_NUMBER, AT(corrupt_min), 0, 0, 0.3},
    {"phase_deadline_min", POLICY_U32, AT(phase_min_s), 0, 1, 86400},
    {"noise_min", POLICY_NUMBER, AT(noise_min), 0, 0, 1000},
    {"epsilon_max", POLICY_NUMBER, AT(dp_epsilon_max), 0, 0, 1000},
    {"delta", POLICY_NUMBER, AT(dp_delta), 0, 1e-12, 0.1},
    {"upload_bytes_max", POLICY_U64, AT(upload_bytes_max), 0, 1024, LINNET_OBJECT_BYTES_MAX},
    {"download_bytes_max", POLICY_U64, AT(download_bytes_max), 0, 1024, LINNET_OBJECT_BYTES_MAX},
    {"local_steps_max", POLICY_U32, AT(local_steps_max), 0, 1, 1000000},
    {"context_tokens_max", POLICY_U32, AT(context_tokens_max), 0, 8, 131072},
    {"allow_plain", POLICY_SWITCH, AT(allow_plain), 0, 0, 0},
    {"allow_central_noise", POLICY_SWITCH, AT(allow_central_noise), 0, 0, 0},
    {"round_key_on_disk", POLICY_SWITCH, AT(round_key_on_disk), 0, 0, 0},
    {"coordinator_key", POLICY_PIN, AT(coordinator), AT(has_coordinator), 0, 0},
    {"authority_key", POLICY_PIN, AT(authority), AT(has_authority), 0, 0},
    {"plan_hash", POLICY_PIN, AT(plan), AT(has_plan), 0, 0},
    {"base_hash", POLICY_PIN, AT(base), AT(has_base), 0, 0},
    {"consortium", POLICY_PATH, AT(consortium), 0, 1, LINNET_POLICY_PATH_MAX - 1},
};

linnet_policy linnet_policy_default(void)
{
    return (linnet_policy){
        .cohort_min = 1,
        .survivors_min = LINNET_SECURE_COHORT_MIN,
        .corrupt_min = 0.05,
        .phase_min_s = 1,
        .dp_delta = 1e-5,
        .upload_bytes_max = (uint64_t)64 << 20,
        .download_bytes_max = LINNET_OBJECT_BYTES_MAX,
        .local_steps_max = 10000,
        .context_tokens_max = 131072,
        .allow_plain = false,
    };
}

typedef struct policy_parser {
    const char *file, *text;
    size_t n_bytes, at;
    int line;
    bool seen[ARRAY_LEN(keys)];
    linnet_policy policy;
    linnet_status status;
    linnet_error *err;
} policy_parser;

static linnet_status not_allowed(const policy_key *key, const char *text, linnet_error *err)
{
    return linnet_fail(err, LINNET_ERR_RANGE, "%s: '%.40s' is not allowed, must be %.10g to %.10g", key->name,
                       text, key->min, key->max);
}

static linnet_status parse_count(const policy_key *key, const char *text, uint64_t *ret_value,
                                 linnet_error *err)
{
    char *end = NULL;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end != '\0' || errno != 0 || (double)value < key->min ||
        (double)value > key->max)
        return not_allowed(key, text, err);
    *ret_value = value;
    return LINNET_OK;
}

/* Digits with a point and an exponent, the point whatever the process's locale. At most 15 digits, so that
 * the value is the nearest double. */
static bool read_decimal(const char *text, double *ret_value)
{
    uint64_t digits = 0;
    int n_digits = 0, scale = 0;
    bool has_point = false;
    for (; isdigit((unsigned char)*text) || (*text == '.' && !has_point); text++) {
        if (*text == '.') {
            has_point = true;
            continue;
        }
        digits = 10 * digits + (uint64_t)(*text - '0');
        scale -= has_point;
        if (++n_digits > 15)
            return false;
    }
    if (n_digits > 0 && (*text == 'e' || *text == 'E')) {
        bool is_negative = *++text == '-';
        text += is_negative || *text == '+';
        if (!isdigit((unsigned char)text[0]) || (text[1] != '\0' && !isdigit((unsigned char)text[1])) ||
            (text[1] != '\0' && text[2] != '\0'))
            return false;
        int exponent = text[1] == '\0' ? text[0] - '0' : 10 * (text[0] - '0') + text[1] - '0';
        scale += is_negative ? -exponent : exponent;
        text += text[1] == '\0' ? 1 : 2;
    }
    if (n_digits == 0 || *text != '\0')
        return false;
    *ret_value = scale < 0 ? (double)digits / pow(10, -scale) : (double)digits * pow(10, scale);
    return true;
}

static linnet_status parse_number(const policy_key *key, const char *text, double *ret_value,
                                  linnet_error *err)
{
    double value = 0;
    if (!read_decimal(text, &value) || !(value >= key->min && value <= key->max))
        return not_allowed(key, text, err);
    *ret_value = value;
    return LINNET_OK;
}

static linnet_status parse_path(const policy_key *key, const char *text, char *ret_path, linnet_error *err)
{
    size_t n = strlen(text);
    if (n == 0 || n >= LINNET_POLICY_PATH_MAX)
        return linnet_fail(err, LINNET_ERR_RANGE, "%s: must be a path of 1 to %d bytes", key->name,
                           LINNET_POLICY_PATH_MAX - 1);
    memcpy(ret_path, text, n + 1);
    return LINNET_OK;
}

static linnet_status parse_value(const policy_key *key, const char *text, linnet_policy *policy,
                                 linnet_error *err)
{
    void *value = (char *)policy + key->offset;
    uint64_t count = 0;
    linnet_status status = LINNET_OK;
    switch (key->kind) {
    case POLICY_U32:
        status = parse_count(key, text, &count, err);
        if (status == LINNET_OK)
            *(uint32_t *)value = (uint32_t)count;
        return status;
    case POLICY_U64:
        return parse_count(key, text, value, err);
    case POLICY_NUMBER:
        return parse_number(key, text, value, err);
    case POLICY_SWITCH:
        if (strcmp(text, "on") != 0 && strcmp(text, "off") != 0)
            return linnet_fail(err, LINNET_ERR_FORMAT, "%s: '%.40s' is not allowed, must be on|off",
                               key->name, text);
        *(bool *)value = text[1] == 'n';
        return LINNET_OK;
    case POLICY_PIN: /* hashes and public keys have 32 bytes */
        if (linnet_hex_read(text, value, LINNET_HASH_BYTES) != LINNET_OK)
            return linnet_fail(err, LINNET_ERR_FORMAT, "%s: must be 64 hex digits", key->name);
        *(bool *)((char *)policy + key->flag_offset) = true;
        return LINNET_OK;
    case POLICY_PATH:
        return parse_path(key, text, value, err);
    }
    return LINNET_ERR_INTERNAL;
}

static linnet_status unknown_key(const char *name, linnet_error *err)
{
    char known[400];
    size_t n = 0;
    for (size_t i = 0; i < ARRAY_LEN(keys) && n < sizeof(known); i++)
        n += (size_t)snprintf(known + n, sizeof(known) - n, "%s%s", i > 0 ? ", " : "", keys[i].name);
    return linnet_fail(err, LINNET_ERR_FORMAT, "there is no key '%.40s'; known: %s", name, known);
}

static int on_value(void *user, const char *section, const char *name, const char *text)
{
    policy_parser *parser = user;
    size_t i = 0;
    if (parser->status != LINNET_OK)
        return 0;
    while (i < ARRAY_LEN(keys) && strcmp(keys[i].name, name) != 0)
        i++;
    if (strcmp(section, "policy") != 0)
        parser->status =
            linnet_fail(parser->err, LINNET_ERR_FORMAT, "section [%.40s]: the only one is [policy]", section);
    else if (i == ARRAY_LEN(keys))
        parser->status = unknown_key(name, parser->err);
    else if (parser->seen[i])
        parser->status =
            linnet_fail(parser->err, LINNET_ERR_FORMAT, "key %s stands here a second time", name);
    else
        parser->status = parse_value(&keys[i], text, &parser->policy, parser->err);
    if (parser->status != LINNET_OK)
        return 0;
    parser->seen[i] = true;
    return 1;
}

/* One line for inih, unindented so that it never counts as a continuation; a line too long for it ends the
 * parse. */
static char *next_line(char *line, int n_line, void *stream)
{
    policy_parser *parser = stream;
    if (parser->status != LINNET_OK || parser->at == parser->n_bytes)
        return NULL;
    parser->line++;
    const char *start = parser->text + parser->at;
    const char *newline = memchr(start, '\n', parser->n_bytes - parser->at);
    size_t n = newline ? (size_t)(newline - start) : parser->n_bytes - parser->at;
    parser->at += newline ? n + 1 : n;
    for (; n > 0 && (*start == ' ' || *start == '\t'); n--)
        start++;
    if (n + 2 > (size_t)n_line || memchr(start, '\0', n)) {
        parser->status =
            linnet_fail(parser->err, LINNET_ERR_FORMAT, "a line holds text of at most %d bytes", n_line - 2);
        return NULL;
    }
    memcpy(line, start, n);
    memcpy(line + n, "\n", 2);
    return line;
}

linnet_status linnet_policy_parse(const char *file, const char *text, size_t n_bytes,
                                  linnet_policy *ret_policy, linnet_error *err)
{
    policy_parser parser = {
        .file = file, .text = text, .n_bytes = n_bytes, .policy = linnet_policy_default(), .err = err};
    int bad_line = ini_parse_stream(next_line, &parser, on_value, &parser);
    if (parser.status == LINNET_OK && bad_line != 0)
        return linnet_fail(err, LINNET_ERR_FORMAT,
                           "policy '%s', line %d: neither [policy], key = value nor a comment", file,
                           bad_line);
    if (parser.status != LINNET_OK)
        return linnet_error_prefix(err, parser.status, "policy '%s', line %d", file, parser.line);
    *ret_policy = parser.policy;
    return LINNET_OK;
}

linnet_status linnet_policy_load(const char *path, linnet_policy *ret_policy, linnet_error *err)
{
    linnet_buffer text = {0};
    linnet_status status = linnet_file_read(path, POLICY_BYTES_MAX, &text, err);
    if (status == LINNET_OK)
        status = linnet_policy_parse(path, (const char *)text.bytes, text.n_bytes, ret_policy, err);
    linnet_buffer_release(&text);
    return status;
}
