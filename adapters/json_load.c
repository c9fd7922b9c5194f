/* SPDX-License-Identifier: Apache-2.0 */
/*
 * JSON through jansson, which checks syntax and UTF-8 but recurses to a depth of 2048 and allocates as long
 * as the text goes on. A scan before it counts brackets and commas outside of strings, and stops there.
 */
#include "linnet/json_load.h"

#include "linnet/file.h"

#include <stdlib.h>

#include "limits.h"

static linnet_status check_size(const char *text, size_t n_bytes, size_t n_values_max, linnet_error *err)
{
    size_t depth = 0, n_values = 0;
    bool in_string = false;
    for (size_t i = 0; i < n_bytes; i++) {
        char c = text[i];
        if (in_string && c == '\\') {
            i++;
        } else if (c == '"') {
            in_string = !in_string;
        } else if (!in_string && (c == '{' || c == '[')) {
            depth++;
            n_values++;
        } else if (!in_string && (c == '}' || c == ']')) {
            depth -= depth > 0;
        } else if (!in_string && c == ',') {
            n_values++;
        }
        if (depth > LINNET_JSON_DEPTH_MAX || n_values > n_values_max)
            return linnet_fail(err, LINNET_ERR_LIMIT,
                               "its JSON nests deeper than %d or has more than %zu values",
                               LINNET_JSON_DEPTH_MAX, n_values_max);
    }
    return LINNET_OK;
}

static linnet_status load(const void *bytes, size_t n_bytes, size_t n_values_max, size_t flags,
                          json_t **ret_object, linnet_error *err)
{
    json_error_t error = {0};
    linnet_status status = check_size(bytes, n_bytes, n_values_max, err);
    if (status != LINNET_OK)
        return status;
    json_t *object = json_loadb(bytes, n_bytes, JSON_REJECT_DUPLICATES | flags, &error);
    if (!object && (json_error_code(&error) == json_error_out_of_memory || error.text[0] == '\0'))
        return linnet_fail(err, LINNET_ERR_NOMEM, "no memory for its JSON of %zu bytes", n_bytes);
    if (!object)
        return linnet_fail(err, LINNET_ERR_FORMAT, "its JSON is malformed at byte %d: %s", error.position,
                           error.text);
    if (!json_is_object(object)) {
        json_decref(object);
        return linnet_fail(err, LINNET_ERR_FORMAT, "its JSON is no object");
    }
    *ret_object = object;
    return LINNET_OK;
}

linnet_status linnet_json_load(const void *bytes, size_t n_bytes, json_t **ret_object, linnet_error *err)
{
    return load(bytes, n_bytes, LINNET_JSON_VALUES_MAX, 0, ret_object, err);
}

linnet_status linnet_json_load_file(const char *directory, const char *name, size_t n_bytes_max,
                                    size_t n_values_max, size_t flags, json_t **ret_object, linnet_error *err)
{
    linnet_buffer bytes = {0};
    char *path = linnet_path_join(directory, name);
    if (!path)
        return linnet_fail(err, LINNET_ERR_NOMEM, "no memory for a path");
    linnet_status status = linnet_file_read(path, n_bytes_max, &bytes, err);
    if (status == LINNET_OK) {
        status = load(bytes.bytes, bytes.n_bytes, n_values_max, flags, ret_object, err);
        if (status != LINNET_OK)
            status = linnet_error_prefix(err, status, "'%s'", path);
    }
    linnet_buffer_release(&bytes);
    free(path);
    return status;
}
