/* SPDX-License-Identifier: Apache-2.0 */

/* A plan as INI text: reading through inih, writing in canonical form, the table for people. inih cuts long
 * lines silently and joins indented ones to the line before, so lines are handed to it one by one by a reader
 * of our own that refuses the first and strips the indentation of the second. A wrong key is an error that
 * names the nearest known one. */

#include "linnet/plan.h"

#include <ini.h>
#include <stdlib.h>

#include "linnet/file.h"
#include "linnet/limits.h"
#include "plan_keys.h"

#define KEYS_MAX 64
#define WORD_MAX 63 /* longest word the edit distance looks at */

typedef struct plan_parser {
    const char *file, *text;
    size_t n_bytes, at;
    int line;         /* of what the handler sees, from 1 */
    bool preset_pass; /* first pass: look for task.preset only */
    bool seen[KEYS_MAX];
    linnet_plan *plan;
    linnet_status status;
    linnet_error *err;
} plan_parser;

static size_t smallest(size_t a, size_t b, size_t c)
{
    size_t m = a < b ? a : b;
    return m < c ? m : c;
}

/* Levenshtein distance; words longer than WORD_MAX count as far from everything. */
static size_t edit_distance(const char *a, const char *b)
{
    size_t n_a = strlen(a), n_b = strlen(b), row[WORD_MAX + 1];
    if (n_a > WORD_MAX || n_b > WORD_MAX)
        return WORD_MAX;
    for (size_t j = 0; j <= n_b; j++)
        row[j] = j;
    for (size_t i = 1; i <= n_a; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= n_b; j++) {
            size_t above = row[j];
            row[j] = smallest(above + 1, row[j - 1] + 1, diagonal + (a[i - 1] != b[j - 1]));
            diagonal = above;
        }
    }
    return row[n_b];
}

/* The known key nearest to section.key; the right name in the wrong section counts as near. */
static const char *nearest_key(const char *section, const char *key)
{
    const char *best = NULL;
    size_t best_distance = WORD_MAX;
    for (size_t i = 0; linnet_plan_key_at(i); i++) {
        const linnet_plan_key_info *known = linnet_plan_key_at(i);
        size_t distance = edit_distance(key, known->key);
        size_t section_distance = edit_distance(section, known->section);
        distance += section_distance < 2 ? section_distance : 2;
        if (distance < best_distance) {
            best_distance = distance;
            best = known->name;
        }
    }
    return best;
}

static int refuse(plan_parser *parser, linnet_status status)
{
    parser->status =
        linnet_error_prefix(parser->err, status, "plan '%s', line %d", parser->file, parser->line);
    return 0;
}

static int on_value(void *user, const char *section, const char *key, const char *value)
{
    plan_parser *parser = user;
    size_t i = 0;
    const linnet_plan_key_info *known = linnet_plan_key_at(0);
    if (parser->status != LINNET_OK)
        return 0;
    while (known && (strcmp(known->section, section) != 0 || strcmp(known->key, key) != 0))
        known = linnet_plan_key_at(++i);
    if (parser->preset_pass) {
        if (!known || known->offset != offsetof(linnet_plan, preset))
            return 1;
        linnet_status status = linnet_plan_value_parse(known, value, parser->plan, parser->err);
        return status == LINNET_OK ? 1 : refuse(parser, status);
    }
    if (!known)
        return refuse(parser,
                      linnet_fail(parser->err, LINNET_ERR_FORMAT,
                                  "there is no key '%.60s' in section [%.60s]; the nearest known one is %s",
                                  key, section, nearest_key(section, key)));
    if (parser->seen[i])
        return refuse(parser, linnet_fail(parser->err, LINNET_ERR_FORMAT, "key %s stands here a second time",
                                          known->name));
    parser->seen[i] = true;
    linnet_status status = linnet_plan_value_parse(known, value, parser->plan, parser->err);
    return status == LINNET_OK ? 1 : refuse(parser, status);
}

/* fgets over the text, without indentation; a line that inih could not hold whole ends the parse. */
static char *next_line(char *line, int n_line, void *stream)
{
    plan_parser *parser = stream;
    if (parser->status != LINNET_OK || parser->at == parser->n_bytes)
        return NULL;
    parser->line++;
    const char *start = parser->text + parser->at;
    size_t n_left = parser->n_bytes - parser->at;
    const char *newline = memchr(start, '\n', n_left);
    size_t n = newline ? (size_t)(newline - start) : n_left;
    parser->at += newline ? n + 1 : n;
    while (n > 0 && (*start == ' ' || *start == '\t')) {
        start++;
        n--;
    }
    if (n + 2 > (size_t)n_line || memchr(start, '\0', n)) {
        refuse(parser, linnet_fail(parser->err, LINNET_ERR_FORMAT, "a line holds text of at most %d bytes",
                                   n_line - 2));
        return NULL;
    }
    memcpy(line, start, n);
    memcpy(line + n, "\n", 2);
    return line;
}

static linnet_status parse_pass(plan_parser *parser, bool preset_pass)
{
    parser->preset_pass = preset_pass;
    parser->at = 0;
    parser->line = 0;
    int first_bad_line = ini_parse_stream(next_line, parser, on_value, parser);
    if (parser->status == LINNET_OK && first_bad_line != 0)
        parser->status = linnet_fail(parser->err, LINNET_ERR_FORMAT,
                                     "plan '%s', line %d: neither [section], key = value nor a comment",
                                     parser->file, first_bad_line);
    return parser->status;
}

linnet_status linnet_plan_parse(const char *file, const char *text, size_t n_bytes, linnet_plan *ret_plan,
                                linnet_error *err)
{
    linnet_plan plan;
    plan_parser parser = {.file = file, .text = text, .n_bytes = n_bytes, .plan = &plan, .err = err};
    linnet_plan_default(&plan);
    if (n_bytes > LINNET_PLAN_BYTES_MAX)
        return linnet_fail(err, LINNET_ERR_LIMIT, "plan '%s': %zu bytes, at most %zu", file, n_bytes,
                           LINNET_PLAN_BYTES_MAX);
    void *locale = linnet_plan_numbers_begin();
    linnet_status status = parse_pass(&parser, true);
    if (status == LINNET_OK) {
        linnet_plan_preset_apply(plan.preset, &plan);
        status = parse_pass(&parser, false);
    }
    linnet_plan_numbers_end(locale);
    if (status != LINNET_OK)
        return status;
    if (plan.profile == LINNET_PROFILE_CENTRAL_DP && plan.mechanism == LINNET_DP_NONE)
        plan.mechanism = LINNET_DP_CENTRAL; /* the profile has no other */
    status = linnet_plan_check(&plan, err);
    if (status != LINNET_OK)
        return linnet_error_prefix(err, status, "plan '%s'", file);
    memcpy(ret_plan, &plan, sizeof(plan));
    return LINNET_OK;
}

linnet_status linnet_plan_load(const char *path, linnet_plan *ret_plan, linnet_error *err)
{
    linnet_buffer text = {0};
    linnet_status status = linnet_file_read(path, LINNET_PLAN_BYTES_MAX, &text, err);
    if (status == LINNET_OK)
        status = linnet_plan_parse(path, (const char *)text.bytes, text.n_bytes, ret_plan, err);
    linnet_buffer_release(&text);
    return status;
}

linnet_status linnet_plan_write(const linnet_plan *plan, linnet_buffer *text, linnet_error *err)
{
    const char *section = "";
    void *locale = linnet_plan_numbers_begin();
    for (size_t i = 0; linnet_plan_key_at(i); i++) {
        const linnet_plan_key_info *key = linnet_plan_key_at(i);
        if (strcmp(section, key->section) != 0)
            linnet_buffer_append_format(text, "%s[%s]\n", i > 0 ? "\n" : "", key->section);
        section = key->section;
        linnet_buffer_append_format(text, "%s = ", key->key);
        linnet_plan_value_write(key, plan, text);
        linnet_buffer_append_text(text, "\n");
    }
    linnet_plan_numbers_end(locale);
    return text->failed ? linnet_fail(err, LINNET_ERR_NOMEM, "plan") : LINNET_OK;
}

linnet_hash linnet_plan_hash(const void *text, size_t n_bytes)
{
    return linnet_hash_of(LINNET_LABEL_PLAN, text, n_bytes);
}

void linnet_plan_describe(FILE *out)
{
    linnet_plan defaults;
    linnet_plan_default(&defaults);
    fprintf(out, "%-31s %-9s %-22s %-9s %s\n", "key", "default", "allowed", "unit", "meaning");
    for (size_t i = 0; linnet_plan_key_at(i); i++) {
        const linnet_plan_key_info *key = linnet_plan_key_at(i);
        char allowed[96];
        linnet_buffer value = {0};
        linnet_plan_value_allowed(key, allowed, sizeof(allowed));
        linnet_plan_value_write(key, &defaults, &value);
        linnet_buffer_append_u8(&value, 0);
        fprintf(out, "%-31s %-9s %-22s %-9s %s\n", key->name, value.failed ? "" : (const char *)value.bytes,
                allowed, key->unit, key->meaning);
        linnet_buffer_release(&value);
    }
}
