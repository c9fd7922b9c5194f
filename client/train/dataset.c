/* SPDX-License-Identifier: Apache-2.0 */
/* JSON Lines into records. One line is one JSON object of exactly one of three forms; what is wrong with it
 * is said by file, line and key, never by quoting the text, which is somebody's. Tokens are not made here
 * (encode.c). */
#include "linnet/dataset.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- one record ---- */

static linnet_status copy_text(const json_t *value, const char *key, char **ret_text, linnet_error *err)
{
    if (!json_is_string(value))
        return linnet_fail(err, LINNET_ERR_FORMAT, "\"%s\" is no string", key);
    *ret_text = strdup(json_string_value(value));
    return *ret_text ? LINNET_OK : linnet_fail(err, LINNET_ERR_NOMEM, "no memory for a record");
}

static bool is_role(const json_t *role)
{
    static const char *const roles[] = {"user", "assistant", "system"};
    for (size_t i = 0; i < ARRAY_LEN(roles); i++) {
        if (json_is_string(role) && strcmp(json_string_value(role), roles[i]) == 0)
            return true;
    }
    return false;
}

static linnet_status parse_messages(const json_t *messages, linnet_record *record, linnet_error *err)
{
    size_t n = json_array_size(messages);
    if (n == 0)
        return linnet_fail(err, LINNET_ERR_FORMAT, "\"messages\" is no array of messages");
    record->messages = calloc(n, sizeof(*record->messages));
    if (!record->messages)
        return linnet_fail(err, LINNET_ERR_NOMEM, "no memory for %zu messages", n);
    record->n_messages = n;
    for (size_t i = 0; i < n; i++) {
        const json_t *message = json_array_get(messages, i), *role = json_object_get(message, "role");
        if (!is_role(role))
            return linnet_fail(err, LINNET_ERR_FORMAT,
                               "message %zu: \"role\" is not user, assistant or system", i + 1);
        linnet_status status = copy_text(role, "role", &record->messages[i].role, err);
        if (status == LINNET_OK)
            status =
                copy_text(json_object_get(message, "content"), "content", &record->messages[i].content, err);
        if (status != LINNET_OK)
            return linnet_error_prefix(err, status, "message %zu", i + 1);
    }
    return LINNET_OK;
}

/* What is no label is one that no model has: whether that matters is the model's to say. */
static linnet_status parse_label(const json_t *object, linnet_record *record, linnet_error *err)
{
    const json_t *label = json_object_get(object, "label");
    record->has_label = label != NULL;
    record->has_pair = json_object_get(object, "text_pair") != NULL;
    record->label_index = UINT32_MAX;
    if (json_is_string(label))
        return copy_text(label, "label", &record->label, err);
    if (json_is_integer(label) && json_integer_value(label) >= 0 && json_integer_value(label) < UINT32_MAX)
        record->label_index = (uint32_t)json_integer_value(label);
    return LINNET_OK;
}

static linnet_status parse_forms(const json_t *object, linnet_record *record, linnet_error *err)
{
    const json_t *text = json_object_get(object, "text"), *prompt = json_object_get(object, "prompt");
    const json_t *completion = json_object_get(object, "completion"),
                 *messages = json_object_get(object, "messages");
    int n_forms = (text != NULL) + (prompt || completion) + (messages != NULL);
    if (n_forms != 1)
        return linnet_fail(err, LINNET_ERR_FORMAT,
                           "%s of \"text\", \"prompt\" and \"completion\", or \"messages\"",
                           n_forms == 0 ? "none" : "more than one");
    if (text) {
        record->kind = LINNET_RECORD_TEXT;
        linnet_status status = parse_label(object, record, err);
        return status == LINNET_OK ? copy_text(text, "text", &record->text, err) : status;
    }
    if (messages) {
        record->kind = LINNET_RECORD_MESSAGES;
        return parse_messages(messages, record, err);
    }
    if (!prompt || !completion)
        return linnet_fail(err, LINNET_ERR_FORMAT, "\"%s\" is missing", prompt ? "completion" : "prompt");
    record->kind = LINNET_RECORD_COMPLETION;
    linnet_status status = copy_text(prompt, "prompt", &record->text, err);
    return status == LINNET_OK ? copy_text(completion, "completion", &record->completion, err) : status;
}

linnet_status linnet_record_parse(const char *line, size_t n_bytes, linnet_record *ret_record,
                                  linnet_error *err)
{
    json_error_t json_err;
    linnet_record record = {0};
    linnet_status status = LINNET_OK;
    if (n_bytes > LINNET_RECORD_BYTES_MAX)
        return linnet_fail(err, LINNET_ERR_LIMIT, "the line is longer than %zu bytes",
                           LINNET_RECORD_BYTES_MAX);
    json_t *object = json_loadb(line, n_bytes, JSON_REJECT_DUPLICATES, &json_err);
    if (!object)
        return linnet_fail(err, LINNET_ERR_FORMAT, "no valid JSON at byte %d", json_err.position);
    if (!json_is_object(object))
        status = linnet_fail(err, LINNET_ERR_FORMAT, "no JSON object");
    else
        status = parse_forms(object, &record, err);
    const json_t *client = json_object_get(object, "client"), *unit = json_object_get(object, "unit");
    if (status == LINNET_OK && client)
        status = copy_text(client, "client", &record.client, err);
    if (status == LINNET_OK && unit)
        status = copy_text(unit, "unit", &record.unit, err);
    json_decref(object);
    if (status != LINNET_OK) {
        linnet_record_release(&record);
        return status;
    }
    *ret_record = record;
    return LINNET_OK;
}

void linnet_record_release(linnet_record *record)
{
    for (size_t i = 0; i < record->n_messages; i++) {
        free(record->messages[i].role);
        free(record->messages[i].content);
    }
    free(record->messages);
    free(record->client);
    free(record->unit);
    free(record->text);
    free(record->completion);
    free(record->label);
    *record = (linnet_record){0};
}

/* ---- a set of them ---- */

linnet_dataset *linnet_dataset_create(void)
{
    return calloc(1, sizeof(linnet_dataset));
}

linnet_status linnet_dataset_add(linnet_dataset *dataset, linnet_record *record, linnet_error *err)
{
    linnet_record *records =
        linnet_array_grow(dataset->records, dataset->n_records, &dataset->capacity, sizeof(*records));
    if (!records) {
        linnet_record_release(record);
        return linnet_fail(err, LINNET_ERR_NOMEM, "no memory for another record");
    }
    dataset->records = records;
    records[dataset->n_records++] = *record;
    *record = (linnet_record){0};
    return LINNET_OK;
}

linnet_status linnet_record_place(const linnet_dataset *dataset, const linnet_record *record,
                                  linnet_status status, linnet_error *err)
{
    if (dataset->path)
        return linnet_error_prefix(err, status, "%s:%zu", dataset->path, record->line);
    return linnet_error_prefix(err, status, "record of line %zu", record->line);
}

void linnet_dataset_destroy(linnet_dataset *dataset)
{
    if (!dataset)
        return;
    for (size_t i = 0; i < dataset->n_records; i++)
        linnet_record_release(&dataset->records[i]);
    free(dataset->records);
    free(dataset->path);
    free(dataset);
}

/* ---- a file of them ---- */

typedef struct loader {
    const char *path;
    bool skip_bad;
    linnet_dataset *dataset;
    size_t line,
        blank_line; /* blank_line: the first of a run of blank ones, which only the file's end may follow */
} loader;

static bool is_blank(const uint8_t *line, size_t n_bytes)
{
    for (size_t i = 0; i < n_bytes; i++) {
        if (line[i] != ' ' && line[i] != '\t' && line[i] != '\r')
            return false;
    }
    return true;
}

static linnet_status take_line(loader *l, const uint8_t *line, size_t n_bytes, linnet_error *err)
{
    linnet_record record = {0};
    linnet_status status = LINNET_OK;
    l->line++;
    if (l->line == 1 && n_bytes >= 3 && memcmp(line, "\xef\xbb\xbf", 3) == 0) {
        line += 3; /* a byte order mark, which some editors put there */
        n_bytes -= 3;
    }
    if (is_blank(line, n_bytes)) {
        if (l->blank_line == 0)
            l->blank_line = l->line;
        return LINNET_OK;
    }
    if (l->blank_line != 0 && !l->skip_bad)
        return linnet_fail(err, LINNET_ERR_FORMAT, "%s:%zu: the line is blank", l->path, l->blank_line);
    l->dataset->n_skipped += l->blank_line != 0 ? l->line - l->blank_line : 0;
    l->blank_line = 0;
    status = linnet_record_parse((const char *)line, n_bytes, &record, err);
    if (status == LINNET_OK) {
        record.line = l->line;
        return linnet_dataset_add(l->dataset, &record, err);
    }
    if (l->skip_bad && status != LINNET_ERR_NOMEM) {
        l->dataset->n_skipped++;
        return LINNET_OK;
    }
    return linnet_error_prefix(err, status, "%s:%zu", l->path, l->line);
}

/* Cuts the file into lines without reading it whole; of a line that is too long only the start is kept, which
 * is enough to refuse it. */
static linnet_status read_lines(loader *l, FILE *file, linnet_error *err)
{
    linnet_buffer line = {0};
    linnet_status status = LINNET_OK;
    char chunk[16384];
    for (size_t n; status == LINNET_OK && (n = fread(chunk, 1, sizeof(chunk), file)) > 0;) {
        for (size_t at = 0; at < n && status == LINNET_OK;) {
            const char *newline = memchr(chunk + at, '\n', n - at);
            size_t n_part = newline ? (size_t)(newline - chunk) - at : n - at;
            if (line.n_bytes <= LINNET_RECORD_BYTES_MAX)
                linnet_buffer_append(&line, chunk + at, n_part);
            if (line.failed)
                status = linnet_fail(err, LINNET_ERR_NOMEM, "no memory for a line of '%s'", l->path);
            else if (newline) {
                status = take_line(l, line.bytes, line.n_bytes, err);
                linnet_buffer_clear(&line);
            }
            at += n_part + (newline ? 1 : 0);
        }
    }
    if (status == LINNET_OK && ferror(file))
        status = linnet_fail_errno(err, errno, "cannot read '%s'", l->path);
    if (status == LINNET_OK && line.n_bytes > 0)
        status = take_line(l, line.bytes, line.n_bytes, err);
    linnet_buffer_release(&line);
    return status;
}

linnet_status linnet_dataset_load(const char *path, bool skip_bad, linnet_dataset **ret_dataset,
                                  linnet_error *err)
{
    linnet_status status;
    loader l = {.path = path, .skip_bad = skip_bad};
    FILE *file = fopen(path, "rbe");
    if (!file)
        return linnet_fail_errno(err, errno, "cannot open '%s'", path);
    l.dataset = linnet_dataset_create();
    if (l.dataset)
        l.dataset->path = strdup(path);
    if (!l.dataset || !l.dataset->path)
        status = linnet_fail(err, LINNET_ERR_NOMEM, "no memory for the records of '%s'", path);
    else
        status = read_lines(&l, file, err);
    (void)fclose(file); /* opened for reading: nothing can be lost */
    if (status == LINNET_OK && l.dataset->n_records == 0)
        status = linnet_fail(err, LINNET_ERR_FORMAT, "'%s' has no %srecord", path, skip_bad ? "good " : "");
    if (status != LINNET_OK) {
        linnet_dataset_destroy(l.dataset);
        return status;
    }
    *ret_dataset = l.dataset;
    return LINNET_OK;
}
