/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The safetensors container (huggingface/safetensors, "Format"): u64 header length, a JSON object of tensors,
 * then their bytes. As the format demands, the tensors must cover the bytes without holes or overlaps; sorted
 * by place, each one has to begin where the one before it ended. Left out: types other than F32, F16 and
 * BF16, and empty tensors.
 */
#include "linnet/safetensors.h"

#include <stdlib.h>

#include "half.h"
#include "linnet/json_load.h"
#include "limits.h"

struct linnet_safetensors {
    linnet_map map; /* open where the file was mapped; else empty */
    size_t n_bytes, n_tensors;
    linnet_safetensors_tensor *tensors; /* owned, by place */
};

static const struct {
    const char *name;
    size_t bytes;
} types[] = {
    [LINNET_SAFETENSORS_F32] = {"F32", 4},
    [LINNET_SAFETENSORS_F16] = {"F16", 2},
    [LINNET_SAFETENSORS_BF16] = {"BF16", 2},
};

/* ---- reading ---- */

static bool read_size(const json_t *array, size_t i, uint64_t *ret)
{
    const json_t *number = json_array_get(array, i);
    if (!json_is_integer(number) || json_integer_value(number) < 0)
        return false;
    *ret = (uint64_t)json_integer_value(number);
    return true;
}

static linnet_status read_type(const json_t *info, linnet_safetensors_tensor *tensor, linnet_error *err)
{
    const char *dtype = json_string_value(json_object_get(info, "dtype"));
    if (!dtype)
        return linnet_fail(err, LINNET_ERR_FORMAT, "tensor '%s' has no dtype", tensor->name);
    for (size_t i = 0; i < ARRAY_LEN(types); i++) {
        if (strcmp(dtype, types[i].name) != 0)
            continue;
        tensor->type = (linnet_safetensors_type)i;
        return LINNET_OK;
    }
    return linnet_fail(err, LINNET_ERR_UNSUPPORTED,
                       "tensor '%s' has dtype %.16s; F32, F16 and BF16 are supported", tensor->name, dtype);
}

static linnet_status read_shape(const json_t *info, linnet_safetensors_tensor *tensor, linnet_error *err)
{
    const json_t *shape = json_object_get(info, "shape");
    size_t n = json_array_size(shape), n_bytes = types[tensor->type].bytes;
    bool fits = json_is_array(shape) && n <= 4;
    for (size_t i = 0; i < 4; i++)
        tensor->dims[i] = 1;
    for (size_t i = 0; fits && i < n; i++)
        fits = read_size(shape, i, &tensor->dims[i]) && tensor->dims[i] > 0 && tensor->dims[i] <= SIZE_MAX &&
               linnet_size_mul(n_bytes, (size_t)tensor->dims[i], &n_bytes);
    if (!fits)
        return linnet_fail(err, LINNET_ERR_FORMAT, "tensor '%s' has no usable shape of 0 to 4 dimensions",
                           tensor->name);
    tensor->n_dims = (uint32_t)n;
    tensor->n_bytes = n_bytes;
    return LINNET_OK;
}

/* Where its bytes lie among the n_data bytes behind the header. */
static linnet_status read_place(const json_t *info, const uint8_t *data, size_t n_data,
                                linnet_safetensors_tensor *tensor, linnet_error *err)
{
    const json_t *offsets = json_object_get(info, "data_offsets");
    uint64_t begin = 0, end = 0;
    if (!json_is_array(offsets) || json_array_size(offsets) != 2 || !read_size(offsets, 0, &begin) ||
        !read_size(offsets, 1, &end))
        return linnet_fail(err, LINNET_ERR_FORMAT, "tensor '%s' has no data_offsets", tensor->name);
    if (begin > end || end > n_data || end - begin != tensor->n_bytes)
        return linnet_fail(
            err, LINNET_ERR_FORMAT,
            "tensor '%s' at bytes %llu to %llu has not the %zu bytes of its shape, or lies outside the "
            "%zu bytes of data; the file may be cut short",
            tensor->name, (unsigned long long)begin, (unsigned long long)end, tensor->n_bytes, n_data);
    tensor->bytes = data + begin;
    return LINNET_OK;
}

static linnet_status read_tensor(const char *name, const json_t *info, const uint8_t *data, size_t n_data,
                                 linnet_safetensors_tensor *tensor, linnet_error *err)
{
    if (strlen(name) >= sizeof(tensor->name))
        return linnet_fail(err, LINNET_ERR_FORMAT, "a tensor's name has %zu bytes; at most %zu are allowed",
                           strlen(name), sizeof(tensor->name) - 1);
    memcpy(tensor->name, name, strlen(name) + 1);
    linnet_status status = read_type(info, tensor, err);
    if (status == LINNET_OK)
        status = read_shape(info, tensor, err);
    if (status == LINNET_OK)
        status = read_place(info, data, n_data, tensor, err);
    return status;
}

static int place_order(const void *a, const void *b)
{
    const uint8_t *x = ((const linnet_safetensors_tensor *)a)->bytes;
    const uint8_t *y = ((const linnet_safetensors_tensor *)b)->bytes;
    return (x > y) - (x < y);
}

static linnet_status check_cover(linnet_safetensors *file, const uint8_t *data, size_t n_data,
                                 linnet_error *err)
{
    const uint8_t *at = data;
    if (file->n_tensors > 1)
        qsort(file->tensors, file->n_tensors, sizeof(file->tensors[0]), place_order);
    for (size_t i = 0; i < file->n_tensors; i++) {
        if (file->tensors[i].bytes != at)
            return linnet_fail(err, LINNET_ERR_FORMAT,
                               "tensor '%s' overlaps another or leaves a hole before it",
                               file->tensors[i].name);
        at += file->tensors[i].n_bytes;
    }
    if (at != data + n_data)
        return linnet_fail(err, LINNET_ERR_FORMAT, "%zu bytes behind the last tensor",
                           (size_t)(data + n_data - at));
    return LINNET_OK;
}

static linnet_status read_tensors(linnet_safetensors *file, json_t *header, const uint8_t *data,
                                  size_t n_data, linnet_error *err)
{
    const char *name;
    json_t *info;
    size_t n = json_object_size(header);
    if (n > LINNET_SAFETENSORS_TENSORS_MAX + 1) /* + 1: the metadata */
        return linnet_fail(err, LINNET_ERR_LIMIT, "%zu tensors; at most %d are allowed", n,
                           LINNET_SAFETENSORS_TENSORS_MAX);
    file->tensors = calloc(n + 1, sizeof(file->tensors[0])); /* + 1: no request for 0 bytes */
    if (!file->tensors)
        return linnet_fail(err, LINNET_ERR_NOMEM, "no memory for %zu tensors", n);
    json_object_foreach(header, name, info)
    {
        if (strcmp(name, "__metadata__") == 0) /* strings for people */
            continue;
        linnet_status status = read_tensor(name, info, data, n_data, &file->tensors[file->n_tensors], err);
        if (status != LINNET_OK)
            return status;
        file->n_tensors++;
    }
    return check_cover(file, data, n_data, err);
}

linnet_status linnet_safetensors_open_bytes(const void *bytes, size_t n_bytes, linnet_safetensors **ret_file,
                                            linnet_error *err)
{
    const uint8_t *at = bytes;
    json_t *header = NULL;
    if (n_bytes < 8)
        return linnet_fail(err, LINNET_ERR_FORMAT, "safetensors file of %zu bytes has no header", n_bytes);
    uint64_t n_header = linnet_load_le64(at);
    if (n_header > n_bytes - 8)
        return linnet_fail(err, LINNET_ERR_FORMAT, "safetensors header of %llu bytes in a file of %zu",
                           (unsigned long long)n_header, n_bytes);
    if (n_header > LINNET_SAFETENSORS_HEADER_MAX)
        return linnet_fail(err, LINNET_ERR_LIMIT, "safetensors header of %llu bytes; at most %zu are allowed",
                           (unsigned long long)n_header, LINNET_SAFETENSORS_HEADER_MAX);
    linnet_safetensors *file = calloc(1, sizeof(*file));
    if (!file)
        return linnet_fail(err, LINNET_ERR_NOMEM, "no memory for a safetensors file");
    linnet_status status = linnet_json_load(at + 8, (size_t)n_header, &header, err);
    if (status == LINNET_OK)
        status = read_tensors(file, header, at + 8 + n_header, n_bytes - 8 - (size_t)n_header, err);
    json_decref(header); /* takes NULL */
    file->n_bytes = n_bytes;
    if (status != LINNET_OK) {
        linnet_safetensors_close(file);
        return linnet_error_prefix(err, status, "safetensors");
    }
    *ret_file = file;
    return LINNET_OK;
}

linnet_status linnet_safetensors_open(const char *path, linnet_safetensors **ret_file, linnet_error *err)
{
    linnet_map map = {0};
    linnet_safetensors *file = NULL;
    linnet_status status = linnet_map_open(path, &map, err);
    if (status != LINNET_OK)
        return status;
    status = linnet_safetensors_open_bytes(map.bytes, map.n_bytes, &file, err);
    if (status != LINNET_OK) {
        linnet_map_close(&map);
        return linnet_error_prefix(err, status, "'%s'", path);
    }
    file->map = map; /* ownership moves to the object */
    *ret_file = file;
    return LINNET_OK;
}

void linnet_safetensors_close(linnet_safetensors *file)
{
    if (!file)
        return;
    linnet_map_close(&file->map);
    free(file->tensors);
    free(file);
}

size_t linnet_safetensors_n_bytes(const linnet_safetensors *file)
{
    return file->n_bytes;
}

size_t linnet_safetensors_n_tensors(const linnet_safetensors *file)
{
    return file->n_tensors;
}

const linnet_safetensors_tensor *linnet_safetensors_at(const linnet_safetensors *file, size_t index)
{
    return index < file->n_tensors ? &file->tensors[index] : NULL;
}

void linnet_safetensors_read(const linnet_safetensors_tensor *tensor, float *values)
{
    size_t n = tensor->n_bytes / types[tensor->type].bytes;
    for (size_t i = 0; i < n; i++) {
        if (tensor->type == LINNET_SAFETENSORS_F32)
            values[i] = linnet_load_f32(tensor->bytes + 4 * i);
        else if (tensor->type == LINNET_SAFETENSORS_F16)
            values[i] = linnet_f16_widen(linnet_load_le16(tensor->bytes + 2 * i));
        else
            values[i] = linnet_bf16_widen(linnet_load_le16(tensor->bytes + 2 * i));
    }
}

/* ---- writing ---- */

/* Names are ours and plain: nothing in them needs an escape. */
static bool is_plain(const char *name)
{
    for (; *name; name++)
        if (*name < 0x20 || *name > 0x7e || *name == '"' || *name == '\\')
            return false;
    return true;
}

static linnet_status check_tensor(const linnet_safetensors_tensor *tensor, linnet_error *err)
{
    size_t n_bytes = sizeof(float);
    bool fits = is_plain(tensor->name) && tensor->type == LINNET_SAFETENSORS_F32 && tensor->n_dims <= 4;
    for (uint32_t d = 0; fits && d < tensor->n_dims; d++)
        fits = tensor->dims[d] > 0 && tensor->dims[d] <= SIZE_MAX &&
               linnet_size_mul(n_bytes, (size_t)tensor->dims[d], &n_bytes);
    if (!fits || n_bytes != tensor->n_bytes)
        return linnet_fail(err, LINNET_ERR_ARG, "tensor '%s' of %zu bytes cannot be written as safetensors",
                           tensor->name, tensor->n_bytes);
    return LINNET_OK;
}

static void append_header(linnet_buffer *buffer, const linnet_safetensors_tensor *tensors, size_t n_tensors)
{
    uint64_t at = 0;
    linnet_buffer_append_le64(buffer, 0); /* the length, once it is known */
    linnet_buffer_append_text(buffer, "{\"__metadata__\":{\"format\":\"pt\"}");
    for (size_t i = 0; i < n_tensors; i++) {
        const linnet_safetensors_tensor *tensor = &tensors[i];
        linnet_buffer_append_format(buffer, ",\"%s\":{\"dtype\":\"F32\",\"shape\":[", tensor->name);
        for (uint32_t d = 0; d < tensor->n_dims; d++)
            linnet_buffer_append_format(buffer, "%s%llu", d ? "," : "", (unsigned long long)tensor->dims[d]);
        linnet_buffer_append_format(buffer, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)at,
                                    (unsigned long long)(at + tensor->n_bytes));
        at += tensor->n_bytes;
    }
    linnet_buffer_append_u8(buffer, '}');
    while (!buffer->failed && buffer->n_bytes % 8 != 0)
        linnet_buffer_append_u8(buffer, ' ');
    if (!buffer->failed)
        linnet_store_le64(buffer->bytes, buffer->n_bytes - 8);
}

linnet_status linnet_safetensors_write(const char *path, const linnet_safetensors_tensor *tensors,
                                       size_t n_tensors, linnet_error *err)
{
    linnet_buffer buffer = {0};
    linnet_status status = LINNET_OK;
    for (size_t i = 0; status == LINNET_OK && i < n_tensors; i++)
        status = check_tensor(&tensors[i], err);
    if (status != LINNET_OK)
        return status;
    append_header(&buffer, tensors, n_tensors);
    for (size_t i = 0; i < n_tensors; i++)
        linnet_buffer_append(&buffer, tensors[i].bytes, tensors[i].n_bytes);
    if (buffer.failed)
        status = linnet_fail(err, LINNET_ERR_NOMEM, "no memory to write '%s'", path);
    if (status == LINNET_OK)
        status = linnet_file_write(path, buffer.bytes, buffer.n_bytes, 0644, err);
    linnet_buffer_release(&buffer);
    return status;
}
