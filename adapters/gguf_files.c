/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening models of one file or of several. A split model is what llama.cpp's gguf-split and gguf-py write:
 * each file says which part of how many it is (split.no, split.count) and has tensors of its own; the first
 * has the metadata and says how many tensors there are in all (split.tensors.count). The parts become one
 * table of tensors, and the keys that tell of the splitting are left out, so that nobody else need know.
 * Values of further parts are not looked at, as in llama.cpp.
 */
#include "gguf_inner.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "checkpoint.h"
#include "limits.h"

typedef struct split_keys {
    uint32_t no, count; /* part no of 0..count - 1; count 1: not split */
    uint32_t n_tensors; /* of all parts; UINT32_MAX: it does not say */
} split_keys;

/* ---- one file's keys ---- */

static linnet_status get_optional(const linnet_gguf *gguf, const char *name, uint32_t *ret, linnet_error *err)
{
    return linnet_gguf_find(gguf, name) ? linnet_gguf_get_u32(gguf, name, ret, err) : LINNET_OK;
}

/* A merged file says split.count 0. */
static linnet_status read_split(const linnet_gguf *gguf, split_keys *ret_keys, linnet_error *err)
{
    split_keys keys = {.no = 0, .count = 1, .n_tensors = UINT32_MAX};
    linnet_status status = get_optional(gguf, "split.no", &keys.no, err);
    if (status == LINNET_OK)
        status = get_optional(gguf, "split.count", &keys.count, err);
    if (status == LINNET_OK)
        status = get_optional(gguf, "split.tensors.count", &keys.n_tensors, err);
    if (status != LINNET_OK)
        return status;
    if (keys.count == 0)
        keys.count = 1;
    if (keys.count > LINNET_GGUF_PARTS_MAX)
        return linnet_fail(err, LINNET_ERR_LIMIT,
                           "GGUF file '%s' is of a model in %u files; at most %d are allowed", gguf->path,
                           (unsigned)keys.count, LINNET_GGUF_PARTS_MAX);
    if (keys.no >= keys.count)
        return linnet_fail(err, LINNET_ERR_FORMAT, "GGUF file '%s': split.no is %u of %u", gguf->path,
                           (unsigned)keys.no, (unsigned)keys.count);
    *ret_keys = keys;
    return LINNET_OK;
}

/* ---- names of files ---- */

/* How long the end "-00001-of-00003.gguf" of a part's path is; 0: it has none. */
static size_t part_suffix(const char *path, const split_keys *keys, uint32_t no, char suffix[40])
{
    int n = snprintf(suffix, 40, "-%05u-of-%05u.gguf", (unsigned)no + 1, (unsigned)keys->count);
    size_t n_path = strlen(path), n_suffix = n > 0 ? (size_t)n : 0;
    return n_path > n_suffix && strcmp(path + n_path - n_suffix, suffix) == 0 ? n_suffix : 0;
}

/* The path of another part of the same model, owned; NULL on lack of memory. `path` has the end of part
 * `from`. */
static char *part_path(const char *path, const split_keys *keys, uint32_t from, uint32_t to)
{
    char suffix[40];
    size_t n_stem = strlen(path) - part_suffix(path, keys, from, suffix);
    (void)part_suffix(path, keys, to, suffix);
    char *other = malloc(n_stem + strlen(suffix) + 1);
    if (!other)
        return NULL;
    memcpy(other, path, n_stem);
    memcpy(other + n_stem, suffix, strlen(suffix) + 1);
    return other;
}

/* Another part than the first cannot be opened. */
static linnet_status not_first(const linnet_gguf *gguf, const split_keys *keys, linnet_error *err)
{
    char suffix[40];
    char *first =
        part_suffix(gguf->path, keys, keys->no, suffix) > 0 ? part_path(gguf->path, keys, keys->no, 0) : NULL;
    linnet_status status =
        linnet_fail(err, LINNET_ERR_ARG, "GGUF file '%s' is part %u of %u; open the first%s%s%s", gguf->path,
                    (unsigned)keys->no + 1, (unsigned)keys->count, first ? ", '" : "", first ? first : "",
                    first ? "'" : "");
    free(first);
    return status;
}

/* ---- joining ---- */

static linnet_status check_part(const linnet_gguf *whole, const split_keys *keys, const linnet_gguf *part,
                                uint32_t no, linnet_error *err)
{
    split_keys own;
    linnet_status status = read_split(part, &own, err);
    if (status != LINNET_OK)
        return status;
    if (own.count != keys->count || own.no != no)
        return linnet_fail(
            err, LINNET_ERR_FORMAT, "GGUF file '%s' says that it is part %u of %u, not part %u of %u",
            part->path, (unsigned)own.no + 1, (unsigned)own.count, (unsigned)no + 1, (unsigned)keys->count);
    if (own.n_tensors != UINT32_MAX && own.n_tensors != keys->n_tensors)
        return linnet_fail(err, LINNET_ERR_FORMAT,
                           "GGUF file '%s': split.tensors.count is %u, that of the first part %u", part->path,
                           (unsigned)own.n_tensors, (unsigned)keys->n_tensors);
    /* Some writers align all parts as the first one says; others then mean the default. */
    if (linnet_gguf_find(whole, "general.alignment") && !linnet_gguf_find(part, "general.alignment"))
        return linnet_fail(err, LINNET_ERR_UNSUPPORTED,
                           "GGUF file '%s' does not say general.alignment, which the first part does",
                           part->path);
    return LINNET_OK;
}

/* The tensors of all parts in one table. */
static linnet_status join_tensors(linnet_gguf *whole, const split_keys *keys, linnet_error *err)
{
    size_t n = whole->n_tensors, at = whole->n_tensors;
    for (size_t i = 0; i < whole->n_parts; i++)
        n += whole->parts[i]->n_tensors; /* at most PARTS_MAX * TENSORS_MAX */
    if (n > LINNET_GGUF_TENSORS_MAX)
        return linnet_fail(err, LINNET_ERR_LIMIT,
                           "the parts of '%s' have %zu tensors; at most %d are allowed", whole->path, n,
                           LINNET_GGUF_TENSORS_MAX);
    if (n != keys->n_tensors)
        return linnet_fail(err, LINNET_ERR_FORMAT,
                           "the parts of '%s' have %zu tensors, its split.tensors.count is %u", whole->path,
                           n, (unsigned)keys->n_tensors);
    linnet_gguf_tensor *tensors = calloc(n + 1, sizeof(tensors[0])); /* + 1: no request for 0 bytes */
    const linnet_gguf_tensor **by_name = calloc(n + 1, sizeof(by_name[0]));
    if (!tensors || !by_name) {
        free(tensors);
        free(by_name);
        return linnet_fail(err, LINNET_ERR_NOMEM, "no memory for the %zu tensors of '%s'", n, whole->path);
    }
    memcpy(tensors, whole->tensors, whole->n_tensors * sizeof(tensors[0]));
    for (size_t i = 0; i < whole->n_parts; i++) {
        const linnet_gguf *part = whole->parts[i];
        memcpy(tensors + at, part->tensors, part->n_tensors * sizeof(tensors[0]));
        at += part->n_tensors;
    }
    free(whole->tensors);
    free(whole->tensors_by_name);
    whole->tensors = tensors;
    whole->tensors_by_name = by_name;
    whole->n_tensors = n;
    linnet_status status = linnet_gguf_sort_tensors(whole, err);
    return status == LINNET_OK ? LINNET_OK
                               : linnet_error_prefix(err, status, "the parts of '%s'", whole->path);
}

static linnet_status hide_split_keys(linnet_gguf *gguf, linnet_error *err)
{
    size_t n = 0;
    for (size_t i = 0; i < gguf->n_values; i++) {
        linnet_text name = gguf->values[i].name;
        if (!linnet_text_is(name, "split.no") && !linnet_text_is(name, "split.count") &&
            !linnet_text_is(name, "split.tensors.count"))
            gguf->values[n++] = gguf->values[i];
    }
    gguf->n_values = n;
    return linnet_gguf_sort_values(gguf, err);
}

/* The first part has room for the others in parts, which it then owns, and all of them are there. */
static linnet_status join(linnet_gguf *whole, const split_keys *keys, linnet_error *err)
{
    linnet_status status = LINNET_OK;
    if (keys->n_tensors == UINT32_MAX)
        return linnet_fail(err, LINNET_ERR_FORMAT, "GGUF file '%s' has no key 'split.tensors.count'",
                           whole->path);
    for (size_t i = 0; i < whole->n_parts && status == LINNET_OK; i++)
        status = check_part(whole, keys, whole->parts[i], (uint32_t)i + 1, err);
    if (status == LINNET_OK)
        status = join_tensors(whole, keys, err);
    return status == LINNET_OK ? hide_split_keys(whole, err) : status;
}

/* ---- opening ---- */

static linnet_status open_file(const char *path, linnet_gguf **ret_gguf, linnet_error *err)
{
    linnet_map map = {0};
    linnet_status status = linnet_map_open(path, &map, err);
    if (status != LINNET_OK)
        return status;
    status = linnet_gguf_parse(path, map.bytes, map.n_bytes, ret_gguf, err);
    if (status == LINNET_OK)
        (*ret_gguf)->map = map; /* ownership moves to the object */
    else
        linnet_map_close(&map);
    return status;
}

static linnet_status allocate_parts(linnet_gguf *whole, const split_keys *keys, linnet_error *err)
{
    whole->parts = calloc(keys->count, sizeof(linnet_gguf *));
    return whole->parts ? LINNET_OK
                        : linnet_fail(err, LINNET_ERR_NOMEM, "no memory for the %u parts of '%s'",
                                      (unsigned)keys->count, whole->path);
}

static linnet_status open_files(linnet_gguf *whole, const split_keys *keys, linnet_error *err)
{
    char suffix[40];
    if (keys->no != 0)
        return not_first(whole, keys, err);
    if (part_suffix(whole->path, keys, 0, suffix) == 0)
        return linnet_fail(err, LINNET_ERR_ARG,
                           "GGUF file '%s' is the first of %u; its name must end in '%s', so that the others "
                           "are found",
                           whole->path, (unsigned)keys->count, suffix);
    linnet_status status = allocate_parts(whole, keys, err);
    for (uint32_t no = 1; no < keys->count && status == LINNET_OK; no++) {
        char *path = part_path(whole->path, keys, 0, no);
        status = path ? open_file(path, &whole->parts[no - 1], err)
                      : linnet_fail(err, LINNET_ERR_NOMEM, "no memory for a path");
        free(path);
        if (status != LINNET_OK)
            return linnet_error_prefix(err, status, "part %u of %u", (unsigned)no + 1, (unsigned)keys->count);
        whole->n_parts++;
    }
    return status == LINNET_OK ? join(whole, keys, err) : status;
}

linnet_status linnet_gguf_open(const char *path, linnet_gguf **ret_gguf, linnet_error *err)
{
    linnet_gguf *gguf = NULL;
    split_keys keys = {.count = 1};
    struct stat st;
    if (stat(path, &st) == 0 && S_ISDIR(st.st_mode))
        return linnet_checkpoint_open(path, ret_gguf, err);
    linnet_status status = open_file(path, &gguf, err);
    if (status == LINNET_OK)
        status = read_split(gguf, &keys, err);
    if (status == LINNET_OK && keys.count > 1)
        status = open_files(gguf, &keys, err);
    if (status != LINNET_OK) {
        linnet_gguf_close(gguf);
        return status;
    }
    *ret_gguf = gguf;
    return LINNET_OK;
}

static linnet_status open_more_bytes(linnet_gguf *whole, const split_keys *keys, const linnet_map *parts,
                                     size_t n_parts, linnet_error *err)
{
    if (keys->no != 0)
        return not_first(whole, keys, err);
    if (n_parts != keys->count)
        return linnet_fail(err, LINNET_ERR_ARG, "%zu of the %u parts of a model", n_parts,
                           (unsigned)keys->count);
    linnet_status status = allocate_parts(whole, keys, err);
    for (size_t i = 1; i < n_parts && status == LINNET_OK; i++) {
        status = linnet_gguf_parse("", parts[i].bytes, parts[i].n_bytes, &whole->parts[i - 1], err);
        whole->n_parts += status == LINNET_OK;
    }
    return status == LINNET_OK ? join(whole, keys, err) : status;
}

linnet_status linnet_gguf_open_parts(const linnet_map *parts, size_t n_parts, linnet_gguf **ret_gguf,
                                     linnet_error *err)
{
    linnet_gguf *gguf = NULL;
    split_keys keys = {.count = 1};
    if (n_parts == 0)
        return linnet_fail(err, LINNET_ERR_ARG, "a model of no files");
    linnet_status status = linnet_gguf_parse("", parts[0].bytes, parts[0].n_bytes, &gguf, err);
    if (status == LINNET_OK)
        status = read_split(gguf, &keys, err);
    if (status == LINNET_OK && (keys.count > 1 || n_parts > 1))
        status = open_more_bytes(gguf, &keys, parts, n_parts, err);
    if (status != LINNET_OK) {
        linnet_gguf_close(gguf);
        return status;
    }
    *ret_gguf = gguf;
    return LINNET_OK;
}

linnet_status linnet_gguf_open_bytes(const void *bytes, size_t n_bytes, linnet_gguf **ret_gguf,
                                     linnet_error *err)
{
    const linnet_map part = {.bytes = bytes, .n_bytes = n_bytes};
    return linnet_gguf_open_parts(&part, 1, ret_gguf, err);
}

linnet_status linnet_gguf_hash(const linnet_gguf *gguf, linnet_hash *ret_hash, linnet_error *err)
{
    if (gguf->checkpoint)
        return linnet_fail(err, LINNET_ERR_UNSUPPORTED,
                           "a task's model is a GGUF file; make one of '%s' with 'linnet-client quantize'",
                           gguf->path);
    linnet_hasher hasher;
    linnet_hasher_init(&hasher, LINNET_LABEL_OBJECT);
    linnet_hasher_update(&hasher, gguf->bytes, gguf->n_bytes);
    for (size_t i = 0; i < gguf->n_parts; i++)
        linnet_hasher_update(&hasher, gguf->parts[i]->bytes, gguf->parts[i]->n_bytes);
    *ret_hash = linnet_hasher_final(&hasher);
    return LINNET_OK;
}
