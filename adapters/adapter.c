/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An adapter in memory: one block of floats in layout order, its start for training, its packed form with a
 * hash, and the deltas of one factor that travel. Source of the start: FEDERATED-LORA 7.1 (orthonormal rows
 * scaled to the row norm of the usual Kaiming-uniform A).
 */
#include "linnet/adapter.h"

#include <math.h>
#include <stdlib.h>

#define PACK_MAGIC "LNAD"
#define PACK_VERSION 1
#define PACK_HEAD_BYTES (4 + 4 + LINNET_HASH_BYTES + 8)

linnet_status linnet_adapter_create(const linnet_layout *layout, linnet_adapter **ret_adapter,
                                    linnet_error *err)
{
    linnet_adapter *adapter = calloc(1, sizeof(*adapter));
    if (adapter) {
        adapter->layout = linnet_layout_copy(layout);
        adapter->data = calloc(layout->n_parameters, sizeof(adapter->data[0]));
    }
    if (!adapter || !adapter->layout || !adapter->data) {
        linnet_adapter_destroy(adapter);
        return linnet_fail(err, LINNET_ERR_NOMEM, "no memory for an adapter of %zu parameters",
                           layout->n_parameters);
    }
    *ret_adapter = adapter;
    return LINNET_OK;
}

linnet_status linnet_adapter_copy(const linnet_adapter *adapter, linnet_adapter **ret_adapter,
                                  linnet_error *err)
{
    linnet_status status = linnet_adapter_require_plain(adapter, "copied", err);
    if (status == LINNET_OK)
        status = linnet_adapter_create(adapter->layout, ret_adapter, err);
    if (status == LINNET_OK)
        memcpy((*ret_adapter)->data, adapter->data, adapter->layout->n_parameters * sizeof(float));
    return status;
}

void linnet_adapter_destroy(linnet_adapter *adapter)
{
    if (!adapter)
        return;
    linnet_layout_destroy(adapter->layout);
    free(adapter->data);
    free(adapter->magnitudes);
    free(adapter->gains);
    free(adapter);
}

linnet_status linnet_adapter_require_plain(const linnet_adapter *adapter, const char *what, linnet_error *err)
{
    if (!adapter->magnitudes)
        return LINNET_OK;
    return linnet_fail(err, LINNET_ERR_UNSUPPORTED,
                       "this adapter has magnitudes (DoRA) and cannot be %s; merge it into its model instead",
                       what);
}

size_t linnet_layout_rows_before(const linnet_layout *layout, size_t entry)
{
    size_t n = 0;
    for (size_t e = 0; e < entry; e++)
        n += layout->entries[e].rows;
    return n;
}

/* ---- the start of training ---- */

/* FNV-1a: only a number for the random stream, so that an entry's bits do not depend on its neighbours. */
static uint64_t name_number(const char *name)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (; *name; name++)
        hash = (hash ^ (uint8_t)*name) * UINT64_C(0x100000001b3);
    return hash;
}

static double dot(const float *x, const float *y, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)x[i] * y[i];
    return sum;
}

/* Take from `row` its part along `other`, a row of norm 1/sqrt(3). */
static void project_out(float *row, const float *other, size_t n)
{
    double along = 3 * dot(row, other, n);
    for (size_t i = 0; i < n; i++)
        row[i] = (float)(row[i] - along * other[i]);
}

/* Gram-Schmidt, each row twice because once loses digits. Past `columns` rows nothing orthogonal is left:
 * those are only scaled. */
static void orthonormal_rows(linnet_rng *rng, float *a, size_t rank, size_t columns)
{
    for (size_t r = 0; r < rank; r++) {
        float *row = a + r * columns;
        for (size_t i = 0; i < columns; i++)
            row[i] = (float)linnet_rng_normal(rng);
        for (size_t pass = 0; pass < 2 && r < columns; pass++)
            for (size_t other = 0; other < r; other++)
                project_out(row, a + other * columns, columns);
        double scale = 1 / sqrt(3 * dot(row, row, columns));
        for (size_t i = 0; i < columns; i++)
            row[i] = (float)(row[i] * scale);
    }
}

void linnet_adapter_init(linnet_adapter *adapter, uint64_t seed)
{
    const linnet_layout *layout = adapter->layout;
    for (size_t e = 0; e < layout->n_entries; e++) {
        const linnet_layout_entry *entry = &layout->entries[e];
        linnet_rng rng;
        linnet_rng_init(&rng, seed, name_number(entry->name));
        orthonormal_rows(&rng, linnet_adapter_a(adapter, e), entry->rank, entry->columns);
        memset(linnet_adapter_b(adapter, e), 0, (size_t)entry->rows * entry->rank * sizeof(float));
    }
}

linnet_status linnet_adapter_check_finite(const linnet_adapter *adapter, linnet_error *err)
{
    const linnet_layout *layout = adapter->layout;
    for (size_t e = 0; e < layout->n_entries; e++) {
        const linnet_layout_entry *entry = &layout->entries[e];
        size_t n_a = (size_t)entry->rank * entry->columns, n = n_a + (size_t)entry->rank * entry->rows;
        const float *values = linnet_adapter_a(adapter, e); /* B follows A */
        for (size_t i = 0; i < n; i++)
            if (!isfinite(values[i]))
                return linnet_fail(err, LINNET_ERR_RANGE, "value %zu of '%s.%s' is NaN or infinite",
                                   i < n_a ? i : i - n_a, entry->name, i < n_a ? "lora_a" : "lora_b");
    }
    return LINNET_OK;
}

/* ---- the packed form ---- */

static void pack_head(const linnet_layout *layout, uint8_t *head)
{
    linnet_hash hash = linnet_layout_hash(layout);
    memcpy(head, PACK_MAGIC, 4);
    linnet_store_le32(head + 4, PACK_VERSION);
    memcpy(head + 8, hash.bytes, LINNET_HASH_BYTES);
    linnet_store_le64(head + 8 + LINNET_HASH_BYTES, layout->n_parameters);
}

linnet_status linnet_adapter_pack(const linnet_adapter *adapter, linnet_buffer *ret_bytes, linnet_error *err)
{
    size_t n = adapter->layout->n_parameters;
    uint8_t head[PACK_HEAD_BYTES];
    linnet_status status = linnet_adapter_require_plain(adapter, "sent", err);
    if (status != LINNET_OK)
        return status;
    if (!linnet_buffer_reserve(ret_bytes, PACK_HEAD_BYTES + 4 * n))
        return linnet_fail(err, LINNET_ERR_NOMEM, "no memory to pack an adapter of %zu parameters", n);
    pack_head(adapter->layout, head);
    linnet_buffer_append(ret_bytes, head, sizeof(head));
    for (size_t i = 0; i < n; i++)
        linnet_store_f32(ret_bytes->bytes + ret_bytes->n_bytes + 4 * i, adapter->data[i]);
    ret_bytes->n_bytes += 4 * n;
    return LINNET_OK;
}

linnet_status linnet_adapter_unpack(const linnet_layout *layout, const void *bytes, size_t n_bytes,
                                    linnet_adapter **ret_adapter, linnet_error *err)
{
    uint8_t head[PACK_HEAD_BYTES];
    const uint8_t *at = bytes;
    linnet_adapter *adapter = NULL;
    if (n_bytes < PACK_HEAD_BYTES || memcmp(at, PACK_MAGIC, 4) != 0)
        return linnet_fail(err, LINNET_ERR_FORMAT, "%zu bytes are no packed adapter", n_bytes);
    if (linnet_load_le32(at + 4) != PACK_VERSION)
        return linnet_fail(err, LINNET_ERR_UNSUPPORTED,
                           "packed adapter of version %u; version %d is supported",
                           (unsigned)linnet_load_le32(at + 4), PACK_VERSION);
    pack_head(layout, head);
    if (memcmp(at, head, sizeof(head)) != 0)
        return linnet_fail(err, LINNET_ERR_MISMATCH, "a packed adapter is of another layout");
    if (n_bytes - PACK_HEAD_BYTES != 4 * layout->n_parameters)
        return linnet_fail(err, LINNET_ERR_FORMAT, "a packed adapter has %zu bytes, %zu are wanted", n_bytes,
                           PACK_HEAD_BYTES + 4 * layout->n_parameters);
    linnet_status status = linnet_adapter_create(layout, &adapter, err);
    if (status != LINNET_OK)
        return status;
    for (size_t i = 0; i < layout->n_parameters; i++)
        adapter->data[i] = linnet_load_f32(at + PACK_HEAD_BYTES + 4 * i);
    *ret_adapter = adapter;
    return LINNET_OK;
}

linnet_hash linnet_adapter_hash(const linnet_adapter *adapter)
{
    linnet_hasher hasher;
    uint8_t bytes[4096];
    size_t n = adapter->layout->n_parameters;
    linnet_hasher_init(&hasher, LINNET_LABEL_OBJECT);
    pack_head(adapter->layout, bytes);
    linnet_hasher_update(&hasher, bytes, PACK_HEAD_BYTES);
    for (size_t at = 0; at < n; at += sizeof(bytes) / 4) {
        size_t n_now = n - at < sizeof(bytes) / 4 ? n - at : sizeof(bytes) / 4;
        for (size_t i = 0; i < n_now; i++)
            linnet_store_f32(bytes + 4 * i, adapter->data[at + i]);
        linnet_hasher_update(&hasher, bytes, 4 * n_now);
    }
    return linnet_hasher_final(&hasher);
}

/* ---- deltas ---- */

size_t linnet_factors_length(const linnet_layout *layout, linnet_factors factors)
{
    return (factors & LINNET_FACTOR_A ? layout->n_a : 0) + (factors & LINNET_FACTOR_B ? layout->n_b : 0);
}

/* Where one factor of an entry lies in the data. */
static size_t factor_place(const linnet_layout_entry *entry, linnet_factors factor, size_t *ret_n)
{
    bool is_a = factor == LINNET_FACTOR_A;
    *ret_n = (size_t)entry->rank * (is_a ? entry->columns : entry->rows);
    return is_a ? entry->a_offset : entry->b_offset;
}

void linnet_factor_gather(const linnet_layout *layout, linnet_factors factor, const float *data,
                          float *vector)
{
    for (size_t e = 0; e < layout->n_entries; e++) {
        size_t n, place = factor_place(&layout->entries[e], factor, &n);
        memcpy(vector, data + place, n * sizeof(float));
        vector += n;
    }
}

void linnet_factor_scatter(const linnet_layout *layout, linnet_factors factor, const float *vector,
                           float *data)
{
    for (size_t e = 0; e < layout->n_entries; e++) {
        size_t n, place = factor_place(&layout->entries[e], factor, &n);
        for (size_t i = 0; i < n; i++)
            data[place + i] += vector[i];
        vector += n;
    }
}

void linnet_delta_of(const linnet_adapter *after, const linnet_adapter *before, linnet_factors factor,
                     float *vector)
{
    for (size_t e = 0; e < after->layout->n_entries; e++) {
        size_t n, place = factor_place(&after->layout->entries[e], factor, &n);
        for (size_t i = 0; i < n; i++)
            vector[i] = after->data[place + i] - before->data[place + i];
        vector += n;
    }
}
