/* SPDX-License-Identifier: Apache-2.0 */
/*
 * GGUF's kinds of tensors and values, and the typed reads of values that an opening has checked. Tensor types
 * that linnet does not decode are known by name, so that an error can name them. Source: the GGUF
 * specification (ggml, docs/gguf.md) and its numbering of tensor types.
 */
#include "gguf_kinds.h"

#include "linnet/gguf.h"

/* ---- tensor types ---- */

static const struct {
    uint32_t type;
    const char *name;
    size_t block_elements, block_bytes; /* 0: known by name only */
} tensor_types[] = {
    {LINNET_TENSOR_F32, "F32", 1, 4},
    {LINNET_TENSOR_F16, "F16", 1, 2},
    {LINNET_TENSOR_Q4_0, "Q4_0", 32, 18},
    {LINNET_TENSOR_Q8_0, "Q8_0", 32, 34},
    {LINNET_TENSOR_Q4_1, "Q4_1", 32, 20},
    {LINNET_TENSOR_Q5_0, "Q5_0", 32, 22},
    {LINNET_TENSOR_Q5_1, "Q5_1", 32, 24},
    {9, "Q8_1", 0, 0},
    {LINNET_TENSOR_Q2_K, "Q2_K", 256, 84},
    {LINNET_TENSOR_Q3_K, "Q3_K", 256, 110},
    {LINNET_TENSOR_Q4_K, "Q4_K", 256, 144},
    {LINNET_TENSOR_Q5_K, "Q5_K", 256, 176},
    {LINNET_TENSOR_Q6_K, "Q6_K", 256, 210},
    {15, "Q8_K", 0, 0},
    {16, "IQ2_XXS", 0, 0},
    {17, "IQ2_XS", 0, 0},
    {18, "IQ3_XXS", 0, 0},
    {19, "IQ1_S", 0, 0},
    {LINNET_TENSOR_IQ4_NL, "IQ4_NL", 32, 18},
    {21, "IQ3_S", 0, 0},
    {22, "IQ2_S", 0, 0},
    {23, "IQ4_XS", 0, 0},
    {24, "I8", 0, 0},
    {25, "I16", 0, 0},
    {26, "I32", 0, 0},
    {27, "I64", 0, 0},
    {28, "F64", 0, 0},
    {29, "IQ1_M", 0, 0},
    {LINNET_TENSOR_BF16, "BF16", 1, 2},
    {34, "TQ1_0", 0, 0},
    {35, "TQ2_0", 0, 0},
    {39, "MXFP4", 0, 0},
};

bool linnet_tensor_type_info(uint32_t type, size_t *ret_block_elements, size_t *ret_block_bytes)
{
    for (size_t i = 0; i < ARRAY_LEN(tensor_types); i++) {
        if (tensor_types[i].type != type || tensor_types[i].block_elements == 0)
            continue;
        *ret_block_elements = tensor_types[i].block_elements;
        *ret_block_bytes = tensor_types[i].block_bytes;
        return true;
    }
    return false;
}

const char *linnet_tensor_type_name(uint32_t type)
{
    for (size_t i = 0; i < ARRAY_LEN(tensor_types); i++)
        if (tensor_types[i].type == type)
            return tensor_types[i].name;
    return NULL;
}

/* ---- value kinds ---- */

size_t linnet_gguf_kind_bytes(uint32_t kind)
{
    static const uint8_t bytes[] = {
        [LINNET_GGUF_U8] = 1,  [LINNET_GGUF_I8] = 1,  [LINNET_GGUF_U16] = 2, [LINNET_GGUF_I16] = 2,
        [LINNET_GGUF_U32] = 4, [LINNET_GGUF_I32] = 4, [LINNET_GGUF_F32] = 4, [LINNET_GGUF_BOOL] = 1,
        [LINNET_GGUF_U64] = 8, [LINNET_GGUF_I64] = 8, [LINNET_GGUF_F64] = 8,
    };
    return kind < ARRAY_LEN(bytes) ? bytes[kind] : 0;
}

/* ---- typed reads ---- */

static linnet_status find_value(const linnet_gguf *gguf, const char *name, const linnet_gguf_value **ret,
                                linnet_error *err)
{
    *ret = linnet_gguf_find(gguf, name);
    if (!*ret)
        return linnet_fail(err, LINNET_ERR_NOT_FOUND, "GGUF file '%s' has no key '%s'",
                           linnet_gguf_path(gguf), name);
    return LINNET_OK;
}

static linnet_status wrong_kind(const linnet_gguf *gguf, const char *name, const char *wanted,
                                linnet_error *err)
{
    return linnet_fail(err, LINNET_ERR_FORMAT, "GGUF file '%s': key '%s' is not %s", linnet_gguf_path(gguf),
                       name, wanted);
}

/* Bytes of an integer kind as a 64-bit pattern and its sign; false for other kinds. */
static bool load_integer(linnet_gguf_kind kind, const uint8_t *bytes, uint64_t *ret_bits, bool *ret_negative)
{
    int64_t v = 0;
    switch (kind) {
    case LINNET_GGUF_U8:
        v = bytes[0];
        break;
    case LINNET_GGUF_I8:
        v = (int8_t)bytes[0];
        break;
    case LINNET_GGUF_U16:
        v = linnet_load_le16(bytes);
        break;
    case LINNET_GGUF_I16:
        v = (int16_t)linnet_load_le16(bytes);
        break;
    case LINNET_GGUF_U32:
        v = linnet_load_le32(bytes);
        break;
    case LINNET_GGUF_I32:
        v = (int32_t)linnet_load_le32(bytes);
        break;
    case LINNET_GGUF_I64:
        v = (int64_t)linnet_load_le64(bytes);
        break;
    case LINNET_GGUF_U64:
        *ret_bits = linnet_load_le64(bytes);
        *ret_negative = false;
        return true;
    default:
        return false;
    }
    *ret_bits = (uint64_t)v;
    *ret_negative = v < 0;
    return true;
}

static double load_f64(const uint8_t *bytes)
{
    uint64_t bits = linnet_load_le64(bytes);
    double v;
    memcpy(&v, &bits, sizeof(v));
    return v;
}

linnet_status linnet_gguf_get_u32(const linnet_gguf *gguf, const char *name, uint32_t *ret, linnet_error *err)
{
    const linnet_gguf_value *value;
    uint64_t bits;
    bool negative;
    linnet_status status = find_value(gguf, name, &value, err);
    if (status != LINNET_OK)
        return status;
    if (!load_integer(value->kind, value->bytes, &bits, &negative))
        return wrong_kind(gguf, name, "an integer", err);
    if (negative || bits > UINT32_MAX)
        return linnet_fail(err, LINNET_ERR_RANGE, "GGUF file '%s': key '%s' is negative or above 32 bits",
                           linnet_gguf_path(gguf), name);
    *ret = (uint32_t)bits;
    return LINNET_OK;
}

linnet_status linnet_gguf_get_f32(const linnet_gguf *gguf, const char *name, float *ret, linnet_error *err)
{
    const linnet_gguf_value *value;
    linnet_status status = find_value(gguf, name, &value, err);
    if (status != LINNET_OK)
        return status;
    if (value->kind == LINNET_GGUF_F32)
        *ret = linnet_load_f32(value->bytes);
    else if (value->kind == LINNET_GGUF_F64)
        *ret = (float)load_f64(value->bytes);
    else
        return wrong_kind(gguf, name, "a floating-point number", err);
    return LINNET_OK;
}

linnet_status linnet_gguf_get_bool(const linnet_gguf *gguf, const char *name, bool *ret, linnet_error *err)
{
    const linnet_gguf_value *value;
    linnet_status status = find_value(gguf, name, &value, err);
    if (status != LINNET_OK)
        return status;
    if (value->kind != LINNET_GGUF_BOOL)
        return wrong_kind(gguf, name, "a boolean", err);
    *ret = value->bytes[0] != 0;
    return LINNET_OK;
}

linnet_status linnet_gguf_get_text(const linnet_gguf *gguf, const char *name, linnet_text *ret,
                                   linnet_error *err)
{
    const linnet_gguf_value *value;
    linnet_status status = find_value(gguf, name, &value, err);
    if (status != LINNET_OK)
        return status;
    if (value->kind != LINNET_GGUF_STRING)
        return wrong_kind(gguf, name, "a string", err);
    *ret = (linnet_text){.bytes = (const char *)value->bytes + 8, .n_bytes = value->n_bytes - 8};
    return LINNET_OK;
}

bool linnet_gguf_array_text(const linnet_gguf_value *array, size_t *at, linnet_text *ret)
{
    if (array->element_kind != LINNET_GGUF_STRING || *at >= array->n_bytes)
        return false;
    size_t n = (size_t)linnet_load_le64(array->bytes + *at); /* the open has checked it */
    *ret = (linnet_text){.bytes = (const char *)array->bytes + *at + 8, .n_bytes = n};
    *at += 8 + n;
    return true;
}

linnet_status linnet_gguf_array_number(const linnet_gguf_value *array, uint64_t i, double *ret)
{
    size_t size = linnet_gguf_kind_bytes(array->element_kind);
    if (size == 0)
        return LINNET_ERR_FORMAT;
    if (i >= array->n_elements)
        return LINNET_ERR_RANGE;
    const uint8_t *bytes = array->bytes + (size_t)i * size;
    uint64_t bits;
    bool negative;
    if (array->element_kind == LINNET_GGUF_F32)
        *ret = linnet_load_f32(bytes);
    else if (array->element_kind == LINNET_GGUF_F64)
        *ret = load_f64(bytes);
    else if (array->element_kind == LINNET_GGUF_BOOL)
        *ret = bytes[0];
    else if (load_integer(array->element_kind, bytes, &bits, &negative))
        *ret = negative ? (double)(int64_t)bits : (double)bits;
    return LINNET_OK;
}
