/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading GGUF v2 and v3 (little-endian) from a read-only map. The whole header is walked once at opening:
 * every name, value, array element length and tensor place is checked there, so that the getters need no
 * checks of their own. Values and tensors stay where they are in the map; what is allocated is a record per
 * key and per tensor, bounded by the file's own size before it is asked for. Lookup is a binary search over
 * names sorted at opening, which also finds duplicates; a second sort by place finds overlapping tensors.
 * Source: the GGUF specification (ggml, docs/gguf.md). Left out: version 1 (32-bit lengths), big-endian
 * files, arrays of arrays. Models of several files: gguf_files.c.
 */
#include "gguf_inner.h"

#include <stdlib.h>

#include "checkpoint.h"
#include "gguf_kinds.h"
#include "limits.h"

/* What an opening walks with. */
typedef struct parse {
    linnet_reader reader;
    linnet_gguf *gguf;
    linnet_error *err;
} parse;

/* ---- names ---- */

static int text_compare(linnet_text a, linnet_text b)
{
    size_t n = a.n_bytes < b.n_bytes ? a.n_bytes : b.n_bytes;
    int order = n > 0 ? memcmp(a.bytes, b.bytes, n) : 0;
    if (order != 0)
        return order;
    return (a.n_bytes > b.n_bytes) - (a.n_bytes < b.n_bytes);
}

static int value_name_order(const void *a, const void *b)
{
    return text_compare((*(const linnet_gguf_value *const *)a)->name,
                        (*(const linnet_gguf_value *const *)b)->name);
}

static int tensor_name_order(const void *a, const void *b)
{
    return text_compare((*(const linnet_gguf_tensor *const *)a)->name,
                        (*(const linnet_gguf_tensor *const *)b)->name);
}

static int tensor_place_order(const void *a, const void *b)
{
    const uint8_t *x = (*(const linnet_gguf_tensor *const *)a)->bytes;
    const uint8_t *y = (*(const linnet_gguf_tensor *const *)b)->bytes;
    return (x > y) - (x < y);
}

/* For messages: at most 64 bytes of a name. */
static int shown(linnet_text text)
{
    return text.n_bytes < 64 ? (int)text.n_bytes : 64;
}

linnet_status linnet_gguf_sort_values(linnet_gguf *gguf, linnet_error *err)
{
    const linnet_gguf_value **sorted = gguf->values_by_name;
    for (size_t i = 0; i < gguf->n_values; i++)
        sorted[i] = &gguf->values[i];
    if (gguf->n_values > 1)
        qsort(sorted, gguf->n_values, sizeof(sorted[0]), value_name_order);
    for (size_t i = 1; i < gguf->n_values; i++)
        if (text_compare(sorted[i - 1]->name, sorted[i]->name) == 0)
            return linnet_fail(err, LINNET_ERR_FORMAT, "key '%.*s' occurs twice", shown(sorted[i]->name),
                               sorted[i]->name.bytes);
    return LINNET_OK;
}

linnet_status linnet_gguf_sort_tensors(linnet_gguf *gguf, linnet_error *err)
{
    const linnet_gguf_tensor **sorted = gguf->tensors_by_name;
    for (size_t i = 0; i < gguf->n_tensors; i++)
        sorted[i] = &gguf->tensors[i];
    if (gguf->n_tensors > 1)
        qsort(sorted, gguf->n_tensors, sizeof(sorted[0]), tensor_name_order);
    for (size_t i = 1; i < gguf->n_tensors; i++)
        if (text_compare(sorted[i - 1]->name, sorted[i]->name) == 0)
            return linnet_fail(err, LINNET_ERR_FORMAT, "tensor '%.*s' occurs twice", shown(sorted[i]->name),
                               sorted[i]->name.bytes);
    return LINNET_OK;
}

/* ---- reading the header ---- */

static linnet_status cut(const parse *p)
{
    return linnet_fail(p->err, LINNET_ERR_FORMAT, "the file ends inside its header; it may be cut short");
}

static linnet_status read_text(parse *p, linnet_text *ret)
{
    uint64_t n = linnet_reader_le64(&p->reader);
    if (p->reader.failed || n > p->reader.n_bytes - p->reader.at)
        return cut(p);
    ret->bytes = (const char *)linnet_reader_take(&p->reader, (size_t)n);
    ret->n_bytes = (size_t)n;
    return LINNET_OK;
}

/* Names are looked up and written as C strings, so they hold no zero byte. */
static linnet_status read_name(parse *p, size_t n_max, linnet_text *ret)
{
    linnet_text name = {"", 0};
    linnet_status status = read_text(p, &name);
    if (status != LINNET_OK)
        return status;
    if (name.n_bytes > n_max)
        return linnet_fail(p->err, LINNET_ERR_FORMAT, "a name of %zu bytes; at most %zu are allowed",
                           name.n_bytes, n_max);
    if (name.n_bytes == 0 || memchr(name.bytes, 0, name.n_bytes))
        return linnet_fail(p->err, LINNET_ERR_FORMAT, "a name that is empty or holds a zero byte");
    *ret = name;
    return LINNET_OK;
}

static linnet_status read_strings(parse *p, uint64_t n)
{
    linnet_text text;
    if (n > (p->reader.n_bytes - p->reader.at) / 8) /* each has its length at least */
        return cut(p);
    for (uint64_t i = 0; i < n; i++) {
        linnet_status status = read_text(p, &text);
        if (status != LINNET_OK)
            return status;
    }
    return LINNET_OK;
}

static linnet_status read_fixed(parse *p, uint32_t kind, uint64_t n)
{
    size_t size = linnet_gguf_kind_bytes(kind);
    if (n > (p->reader.n_bytes - p->reader.at) / size)
        return cut(p);
    const uint8_t *bytes = linnet_reader_take(&p->reader, (size_t)n * size);
    for (size_t i = 0; kind == LINNET_GGUF_BOOL && i < (size_t)n; i++)
        if (bytes[i] > 1)
            return linnet_fail(p->err, LINNET_ERR_FORMAT, "a boolean byte of %u; 0 and 1 are allowed",
                               bytes[i]);
    return LINNET_OK;
}

/* n values of one kind, one after the other. */
static linnet_status read_elements(parse *p, uint32_t kind, uint64_t n, linnet_gguf_value *value)
{
    size_t start = p->reader.at;
    linnet_status status;
    if (kind == LINNET_GGUF_STRING)
        status = read_strings(p, n);
    else if (linnet_gguf_kind_bytes(kind) > 0)
        status = read_fixed(p, kind, n);
    else if (kind == LINNET_GGUF_ARRAY)
        status = linnet_fail(p->err, LINNET_ERR_UNSUPPORTED, "an array of arrays");
    else
        status = linnet_fail(p->err, LINNET_ERR_FORMAT, "unknown value kind %u", (unsigned)kind);
    if (status != LINNET_OK)
        return linnet_error_prefix(p->err, status, "key '%.*s'", shown(value->name), value->name.bytes);
    value->n_elements = n;
    value->bytes = p->reader.bytes + start;
    value->n_bytes = p->reader.at - start;
    return LINNET_OK;
}

static linnet_status read_value(parse *p, linnet_gguf_value *value)
{
    linnet_status status = read_name(p, LINNET_GGUF_KEY_BYTES_MAX, &value->name);
    if (status != LINNET_OK)
        return status;
    uint32_t kind = linnet_reader_le32(&p->reader);
    uint32_t element_kind = kind;
    uint64_t n = 1;
    if (!p->reader.failed && kind == LINNET_GGUF_ARRAY) {
        element_kind = linnet_reader_le32(&p->reader);
        n = linnet_reader_le64(&p->reader);
    }
    if (p->reader.failed)
        return cut(p);
    status = read_elements(p, element_kind, n, value);
    if (status != LINNET_OK)
        return status;
    value->kind = (linnet_gguf_kind)kind;
    value->element_kind = (linnet_gguf_kind)element_kind;
    return LINNET_OK;
}

static linnet_status read_values(parse *p)
{
    for (size_t i = 0; i < p->gguf->n_values; i++) {
        linnet_status status = read_value(p, &p->gguf->values[i]);
        if (status != LINNET_OK)
            return status;
    }
    return linnet_gguf_sort_values(p->gguf, p->err);
}

/* Bytes of a tensor from its dimensions, all of which come from the file. */
static linnet_status tensor_size(const parse *p, linnet_gguf_tensor *tensor)
{
    size_t block_elements, block_bytes;
    if (!linnet_tensor_type_info(tensor->type, &block_elements, &block_bytes)) {
        const char *name = linnet_tensor_type_name(tensor->type);
        return linnet_fail(
            p->err, LINNET_ERR_UNSUPPORTED,
            "tensor type %u (%s); linnet reads F32, F16, BF16, Q4_0 to Q8_0, Q2_K to Q6_K, IQ4_NL",
            (unsigned)tensor->type, name ? name : "unknown");
    }
    uint64_t n_elements = 1;
    for (size_t i = 0; i < 4; i++) {
        if (tensor->dims[i] == 0 || n_elements > SIZE_MAX / 8 / tensor->dims[i])
            return linnet_fail(p->err, LINNET_ERR_FORMAT, "impossible dimension %llu",
                               (unsigned long long)tensor->dims[i]);
        n_elements *= tensor->dims[i];
    }
    if (tensor->dims[0] % block_elements != 0)
        return linnet_fail(p->err, LINNET_ERR_FORMAT, "rows of %llu elements are no multiple of %zu (%s)",
                           (unsigned long long)tensor->dims[0], block_elements,
                           linnet_tensor_type_name(tensor->type));
    tensor->n_bytes = (size_t)n_elements / block_elements * block_bytes;
    return LINNET_OK;
}

/* One tensor info; its offset waits until the start of the data is known. */
static linnet_status read_tensor(parse *p, linnet_gguf_tensor *tensor, uint64_t *ret_offset)
{
    linnet_status status = read_name(p, LINNET_GGUF_TENSOR_NAME_BYTES_MAX, &tensor->name);
    if (status != LINNET_OK)
        return status;
    tensor->n_dims = linnet_reader_le32(&p->reader);
    if (p->reader.failed)
        return cut(p);
    if (tensor->n_dims < 1 || tensor->n_dims > 4)
        return linnet_fail(p->err, LINNET_ERR_FORMAT, "tensor '%.*s' has %u dimensions; 1 to 4 are allowed",
                           shown(tensor->name), tensor->name.bytes, (unsigned)tensor->n_dims);
    for (size_t i = 0; i < 4; i++)
        tensor->dims[i] = i < tensor->n_dims ? linnet_reader_le64(&p->reader) : 1;
    tensor->type = linnet_reader_le32(&p->reader);
    *ret_offset = linnet_reader_le64(&p->reader);
    if (p->reader.failed)
        return cut(p);
    status = tensor_size(p, tensor);
    if (status != LINNET_OK)
        return linnet_error_prefix(p->err, status, "tensor '%.*s'", shown(tensor->name), tensor->name.bytes);
    return LINNET_OK;
}

static linnet_status read_tensors(parse *p, uint64_t *offsets)
{
    linnet_gguf *gguf = p->gguf;
    for (size_t i = 0; i < gguf->n_tensors; i++) {
        linnet_status status = read_tensor(p, &gguf->tensors[i], &offsets[i]);
        if (status != LINNET_OK)
            return status;
    }
    return LINNET_OK;
}

/* Where the data starts, relative to the file: after the header, rounded up to the file's alignment. */
static linnet_status data_start(parse *p, size_t *ret_alignment, size_t *ret_start)
{
    uint32_t alignment = LINNET_GGUF_ALIGNMENT_DEFAULT;
    if (linnet_gguf_find(p->gguf, "general.alignment")) {
        linnet_status status = linnet_gguf_get_u32(p->gguf, "general.alignment", &alignment, p->err);
        if (status != LINNET_OK)
            return status;
    }
    if (alignment < LINNET_GGUF_ALIGNMENT_MIN || alignment > LINNET_GGUF_ALIGNMENT_MAX ||
        (alignment & (alignment - 1)) != 0)
        return linnet_fail(p->err, LINNET_ERR_FORMAT, "alignment %u is no power of two from %d to %d",
                           (unsigned)alignment, LINNET_GGUF_ALIGNMENT_MIN, LINNET_GGUF_ALIGNMENT_MAX);
    size_t past;
    if (!linnet_size_add(p->reader.at, alignment - 1, &past))
        return cut(p);
    *ret_alignment = alignment;
    *ret_start = past / alignment * alignment;
    return LINNET_OK;
}

static linnet_status place_tensors(parse *p, const uint64_t *offsets)
{
    linnet_gguf *gguf = p->gguf;
    size_t alignment = 0, start = 0;
    linnet_status status = data_start(p, &alignment, &start);
    if (status != LINNET_OK)
        return status;
    size_t n_data = start < p->reader.n_bytes ? p->reader.n_bytes - start : 0;
    for (size_t i = 0; i < gguf->n_tensors; i++) {
        linnet_gguf_tensor *tensor = &gguf->tensors[i];
        if (offsets[i] % alignment != 0)
            return linnet_fail(p->err, LINNET_ERR_FORMAT,
                               "tensor '%.*s' at offset %llu is not aligned to %zu", shown(tensor->name),
                               tensor->name.bytes, (unsigned long long)offsets[i], alignment);
        if (offsets[i] > n_data || tensor->n_bytes > n_data - (size_t)offsets[i])
            return linnet_fail(p->err, LINNET_ERR_FORMAT,
                               "tensor '%.*s' (%zu bytes at offset %llu) lies outside the file's %zu bytes; "
                               "it may be cut short",
                               shown(tensor->name), tensor->name.bytes, tensor->n_bytes,
                               (unsigned long long)offsets[i], p->reader.n_bytes);
        tensor->bytes = p->reader.bytes + start + (size_t)offsets[i];
    }
    return LINNET_OK;
}

/* Sort by place and look at neighbours, then by name and look again; by name is the order that stays. */
static linnet_status check_tensors(parse *p)
{
    linnet_gguf *gguf = p->gguf;
    const linnet_gguf_tensor **sorted = gguf->tensors_by_name;
    for (size_t i = 0; i < gguf->n_tensors; i++)
        sorted[i] = &gguf->tensors[i];
    if (gguf->n_tensors > 1)
        qsort(sorted, gguf->n_tensors, sizeof(sorted[0]), tensor_place_order);
    for (size_t i = 1; i < gguf->n_tensors; i++)
        if ((size_t)(sorted[i]->bytes - sorted[i - 1]->bytes) < sorted[i - 1]->n_bytes)
            return linnet_fail(p->err, LINNET_ERR_FORMAT, "tensors '%.*s' and '%.*s' overlap",
                               shown(sorted[i - 1]->name), sorted[i - 1]->name.bytes, shown(sorted[i]->name),
                               sorted[i]->name.bytes);
    return linnet_gguf_sort_tensors(gguf, p->err);
}

static linnet_status read_counts(parse *p)
{
    const uint8_t *magic = linnet_reader_take(&p->reader, 4);
    if (!magic || memcmp(magic, "GGUF", 4) != 0)
        return linnet_fail(p->err, LINNET_ERR_FORMAT, "it does not start with GGUF; is it a model file?");
    uint32_t version = linnet_reader_le32(&p->reader);
    uint64_t n_tensors = linnet_reader_le64(&p->reader), n_values = linnet_reader_le64(&p->reader);
    if (p->reader.failed)
        return cut(p);
    if (version == UINT32_C(0x02000000) || version == UINT32_C(0x03000000))
        return linnet_fail(p->err, LINNET_ERR_UNSUPPORTED,
                           "a big-endian GGUF file; convert it to little-endian");
    if (version != 2 && version != 3)
        return linnet_fail(p->err, LINNET_ERR_UNSUPPORTED, "GGUF version %u; versions 2 and 3 are supported",
                           (unsigned)version);
    /* The least bytes of a tensor info are 8+4+8+4+8, of a key 8+4+1: no header can hold more than this. */
    size_t n_left = p->reader.n_bytes - p->reader.at;
    if (n_tensors > n_left / 32 || n_values > n_left / 13)
        return linnet_fail(p->err, LINNET_ERR_FORMAT, "%llu tensors and %llu keys do not fit in %zu bytes",
                           (unsigned long long)n_tensors, (unsigned long long)n_values, p->reader.n_bytes);
    if (n_tensors > LINNET_GGUF_TENSORS_MAX || n_values > LINNET_GGUF_VALUES_MAX)
        return linnet_fail(p->err, LINNET_ERR_LIMIT,
                           "%llu tensors and %llu keys; at most %d and %d are allowed",
                           (unsigned long long)n_tensors, (unsigned long long)n_values,
                           LINNET_GGUF_TENSORS_MAX, LINNET_GGUF_VALUES_MAX);
    p->gguf->n_tensors = (size_t)n_tensors;
    p->gguf->n_values = (size_t)n_values;
    return LINNET_OK;
}

static linnet_status allocate_tables(parse *p, uint64_t **ret_offsets)
{
    linnet_gguf *gguf = p->gguf;
    gguf->values = calloc(gguf->n_values + 1, sizeof(gguf->values[0])); /* + 1: no request for 0 bytes */
    gguf->values_by_name = calloc(gguf->n_values + 1, sizeof(gguf->values_by_name[0]));
    gguf->tensors = calloc(gguf->n_tensors + 1, sizeof(gguf->tensors[0]));
    gguf->tensors_by_name = calloc(gguf->n_tensors + 1, sizeof(gguf->tensors_by_name[0]));
    *ret_offsets = calloc(gguf->n_tensors + 1, sizeof(**ret_offsets));
    if (!gguf->values || !gguf->values_by_name || !gguf->tensors || !gguf->tensors_by_name || !*ret_offsets)
        return linnet_fail(p->err, LINNET_ERR_NOMEM, "out of memory");
    return LINNET_OK;
}

static linnet_status parse_file(parse *p)
{
    uint64_t *offsets = NULL;
    linnet_status status = read_counts(p);
    if (status == LINNET_OK)
        status = allocate_tables(p, &offsets);
    if (status == LINNET_OK)
        status = read_values(p);
    if (status == LINNET_OK)
        status = read_tensors(p, offsets);
    if (status == LINNET_OK)
        status = place_tensors(p, offsets);
    if (status == LINNET_OK)
        status = check_tensors(p);
    free(offsets);
    return status;
}

/* ---- opening ---- */

linnet_status linnet_gguf_parse(const char *path, const void *bytes, size_t n_bytes, linnet_gguf **ret_gguf,
                                linnet_error *err)
{
    linnet_gguf *gguf = calloc(1, sizeof(*gguf));
    if (gguf)
        gguf->path = strdup(path);
    if (!gguf || !gguf->path) {
        linnet_gguf_close(gguf);
        return linnet_fail(err, LINNET_ERR_NOMEM, "GGUF file '%s'", path);
    }
    gguf->bytes = bytes;
    gguf->n_bytes = n_bytes;
    parse p = {.reader = linnet_reader_of(bytes, n_bytes), .gguf = gguf, .err = err};
    linnet_status status = parse_file(&p);
    if (status != LINNET_OK) {
        linnet_gguf_close(gguf);
        return linnet_error_prefix(err, status, "GGUF file '%s', byte %zu", path, p.reader.at);
    }
    *ret_gguf = gguf;
    return LINNET_OK;
}

void linnet_gguf_close(linnet_gguf *gguf)
{
    if (!gguf)
        return;
    for (size_t i = 0; i < gguf->n_parts; i++)
        linnet_gguf_close(gguf->parts[i]);
    free(gguf->parts);
    linnet_checkpoint_release(gguf->checkpoint);
    if (gguf->map.bytes)
        linnet_map_close(&gguf->map);
    free(gguf->values);
    free(gguf->tensors);
    free(gguf->values_by_name);
    free(gguf->tensors_by_name);
    free(gguf->path);
    free(gguf);
}

/* ---- getters ---- */

size_t linnet_gguf_n_values(const linnet_gguf *gguf)
{
    return gguf->n_values;
}

const linnet_gguf_value *linnet_gguf_value_at(const linnet_gguf *gguf, size_t index)
{
    return index < gguf->n_values ? &gguf->values[index] : NULL;
}

const linnet_gguf_value *linnet_gguf_find(const linnet_gguf *gguf, const char *name)
{
    linnet_gguf_value wanted = {.name = {name, strlen(name)}};
    const linnet_gguf_value *pointer = &wanted;
    const linnet_gguf_value **found =
        gguf->n_values > 0
            ? bsearch(&pointer, gguf->values_by_name, gguf->n_values, sizeof(pointer), value_name_order)
            : NULL;
    return found ? *found : NULL;
}

size_t linnet_gguf_n_tensors(const linnet_gguf *gguf)
{
    return gguf->n_tensors;
}

const linnet_gguf_tensor *linnet_gguf_tensor_at(const linnet_gguf *gguf, size_t index)
{
    return index < gguf->n_tensors ? &gguf->tensors[index] : NULL;
}

const linnet_gguf_tensor *linnet_gguf_find_tensor(const linnet_gguf *gguf, const char *name)
{
    linnet_gguf_tensor wanted = {.name = {name, strlen(name)}};
    const linnet_gguf_tensor *pointer = &wanted;
    const linnet_gguf_tensor **found =
        gguf->n_tensors > 0
            ? bsearch(&pointer, gguf->tensors_by_name, gguf->n_tensors, sizeof(pointer), tensor_name_order)
            : NULL;
    return found ? *found : NULL;
}

const char *linnet_gguf_path(const linnet_gguf *gguf)
{
    return gguf->path;
}

size_t linnet_gguf_n_bytes(const linnet_gguf *gguf)
{
    size_t n_bytes = gguf->checkpoint ? linnet_checkpoint_n_bytes(gguf->checkpoint) : gguf->n_bytes;
    for (size_t i = 0; i < gguf->n_parts; i++)
        n_bytes += gguf->parts[i]->n_bytes; /* all of them are mapped at once */
    return n_bytes;
}

bool linnet_gguf_is_checkpoint(const linnet_gguf *gguf)
{
    return gguf->checkpoint != NULL;
}
