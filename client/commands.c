/* SPDX-License-Identifier: Apache-2.0 */
/* What the commands of linnet-client share: opening a model with its tokenizer and adapter, JSON fields,
 * clocks. */
#include "commands.h"

#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

/* "PATH" or "PATH:SCALE": a number behind the last colon is a scale, unless all of it is a path. NULL: no
 * memory. */
static char *split_scale(const char *text, float *ret_scale)
{
    const char *colon = strrchr(text, ':');
    char *end = NULL;
    double scale = colon && colon[1] != '\0' ? strtod(colon + 1, &end) : 1;
    bool has_scale = end && *end == '\0' && access(text, F_OK) != 0;
    *ret_scale = has_scale ? (float)scale : 1;
    return has_scale ? strndup(text, (size_t)(colon - text)) : strdup(text);
}

static linnet_status open_adapters(const linnet_texts *texts, client_model *m, linnet_error *err)
{
    char *paths[LINNET_TEXTS_MAX] = {NULL};
    float scales[LINNET_TEXTS_MAX];
    linnet_status status = LINNET_OK;
    for (size_t i = 0; i < texts->n_items; i++) {
        paths[i] = split_scale(texts->items[i], &scales[i]);
        if (!paths[i])
            status = linnet_fail(err, LINNET_ERR_NOMEM, "path");
    }
    if (status == LINNET_OK)
        status = linnet_adapters_load(m->model, (const char *const *)paths, scales, texts->n_items,
                                      &m->adapter, err);
    for (size_t i = 0; i < texts->n_items; i++)
        free(paths[i]);
    return status;
}

linnet_status client_model_open(const linnet_cli *cli, const char *path, const linnet_texts *adapters,
                                client_model *m, linnet_error *err)
{
    linnet_status status = linnet_runtime_open(path, (unsigned)cli->n_threads, m, err);
    if (status == LINNET_OK && adapters && adapters->n_items > 0)
        status = open_adapters(adapters, m, err);
    return status;
}

void client_model_close(client_model *m)
{
    linnet_runtime_close(m);
}

linnet_status client_context(const client_model *m, uint64_t wanted, uint32_t usual, uint32_t *ret_context,
                             linnet_error *err)
{
    *ret_context = linnet_context_choose(m->model, wanted, usual);
    if (*ret_context == 0)
        return linnet_fail(err, LINNET_ERR_LIMIT, "--context %llu is more than the model's %u",
                           (unsigned long long)wanted, (unsigned)linnet_model_shape_of(m->model)->context);
    return LINNET_OK;
}

/* ---- JSON ---- */

json_t *client_event(const char *event)
{
    return json_pack("{s:s}", "event", event);
}

void client_put_number(json_t *object, const char *name, double value)
{
    (void)json_object_set_new(object, name,
                              linnet_json_number(value)); /* a missing field is seen by its reader */
}

void client_put_count(json_t *object, const char *name, uint64_t value)
{
    (void)json_object_set_new(object, name, json_integer((json_int_t)value));
}

json_t *client_json_text(const void *bytes, size_t n_bytes)
{
    linnet_buffer valid = {0};
    (void)linnet_utf8_repair(bytes, n_bytes, true, &valid);
    json_t *result = json_stringn(valid.bytes ? (const char *)valid.bytes : "", valid.n_bytes);
    linnet_buffer_release(&valid);
    return result;
}

void client_put_text(json_t *object, const char *name, const void *bytes, size_t n_bytes)
{
    (void)json_object_set_new(object, name, client_json_text(bytes, n_bytes));
}

void client_put_ids(json_t *object, const char *name, const int32_t *ids, size_t n)
{
    json_t *array = json_array();
    for (size_t i = 0; i < n; i++)
        (void)json_array_append_new(array, json_integer(ids[i]));
    (void)json_object_set_new(object, name, array);
}

void client_append_line(linnet_buffer *line, const void *bytes, size_t n_bytes)
{
    const uint8_t *text = bytes;
    for (size_t i = 0; i < n_bytes; i++)
        linnet_buffer_append_u8(line, text[i] < ' ' || text[i] == 0x7F ? ' ' : text[i]);
}

/* ---- clocks and memory ---- */

double client_seconds(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now); /* cannot fail for this clock */
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

uint64_t client_peak_rss(void)
{
    struct rusage usage;
    return getrusage(RUSAGE_SELF, &usage) == 0 ? (uint64_t)usage.ru_maxrss * 1024 : 0;
}
