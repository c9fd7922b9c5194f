/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_GGUF_H
#define LINNET_GGUF_H

/* The GGUF v3 container, read from a map and written: metadata and tensor placement, no arithmetic. A
 * directory of Hugging Face is seen as one. Every count, offset and size of a file is hostile until checked;
 * after a successful open all that the getters return is in bounds. */

#include "linnet/file.h"
#include "linnet/hash.h"

#include <stdio.h>

typedef enum linnet_tensor_type { /* GGUF's own numbers */
                                  LINNET_TENSOR_F32 = 0,
                                  LINNET_TENSOR_F16 = 1,
                                  LINNET_TENSOR_Q4_0 = 2,
                                  LINNET_TENSOR_Q4_1 = 3,
                                  LINNET_TENSOR_Q5_0 = 6,
                                  LINNET_TENSOR_Q5_1 = 7,
                                  LINNET_TENSOR_Q8_0 = 8,
                                  LINNET_TENSOR_Q2_K = 10,
                                  LINNET_TENSOR_Q3_K = 11,
                                  LINNET_TENSOR_Q4_K = 12,
                                  LINNET_TENSOR_Q5_K = 13,
                                  LINNET_TENSOR_Q6_K = 14,
                                  LINNET_TENSOR_IQ4_NL = 20,
                                  LINNET_TENSOR_BF16 = 30,
} linnet_tensor_type;

/** Elements in a block and bytes of a block ("F32" 1, 4; "Q8_0" 32, 34). False for a type linnet does not
 * know. */
bool linnet_tensor_type_info(uint32_t type, size_t *ret_block_elements, size_t *ret_block_bytes);
/** "Q8_0"; "type 23" has no name: NULL. */
const char *linnet_tensor_type_name(uint32_t type);

typedef enum linnet_gguf_kind { /* GGUF's own numbers */
                                LINNET_GGUF_U8 = 0,
                                LINNET_GGUF_I8,
                                LINNET_GGUF_U16,
                                LINNET_GGUF_I16,
                                LINNET_GGUF_U32,
                                LINNET_GGUF_I32,
                                LINNET_GGUF_F32,
                                LINNET_GGUF_BOOL,
                                LINNET_GGUF_STRING,
                                LINNET_GGUF_ARRAY,
                                LINNET_GGUF_U64,
                                LINNET_GGUF_I64,
                                LINNET_GGUF_F64,
} linnet_gguf_kind;

/** A string in the file: borrowed, not zero terminated, any bytes. */
typedef struct linnet_text {
    const char *bytes;
    size_t n_bytes;
} linnet_text;
static inline bool linnet_text_is(linnet_text text, const char *other)
{
    return text.n_bytes == strlen(other) && memcmp(text.bytes, other, text.n_bytes) == 0;
}

typedef struct linnet_gguf_value {
    linnet_text name;
    linnet_gguf_kind kind;         /* of the value, ARRAY for arrays */
    linnet_gguf_kind element_kind; /* of an array's elements */
    uint64_t n_elements;           /* of an array; else 1 */
    const uint8_t *bytes; /* the value or the first element, unaligned, borrowed from the map; a string is its
                             u64 length, then its bytes (use the typed reads below) */
    size_t n_bytes;
} linnet_gguf_value;

typedef struct linnet_gguf_tensor {
    linnet_text name;
    uint32_t type;        /* known to linnet_tensor_type_info, or the open fails */
    uint32_t n_dims;      /* 1..4 */
    uint64_t dims[4];     /* dims[0] is the row length (columns); unused ones are 1 */
    const uint8_t *bytes; /* borrowed from the map; in a GGUF file aligned as it says */
    size_t n_bytes;
    uint32_t n_hf_heads; /* q and k of a checkpoint whose rows GGUF orders otherwise: their heads; else 0 */
} linnet_gguf_tensor;

typedef struct linnet_gguf linnet_gguf;

/** Map and check a model file. Of a model in several files (NAME-00001-of-00003.gguf, split.count) `path` is
 * the first, and all are mapped: values are those of the first less split.*, tensors those of all in their
 * order. Errors name the path, the byte and what is wrong there; of another part, the first one.
 *
 * A directory is a checkpoint of llama or qwen2 as Hugging Face's transformers saves it (config.json,
 * tokenizer.json, *.safetensors): keys and tensors have the names that they would have in GGUF, weights stay
 * in their maps. Rows of llama's q and k are in another order there, see n_hf_heads. UNSUPPORTED names what
 * linnet would not compute. */
linnet_status linnet_gguf_open(const char *path, linnet_gguf **ret_gguf, linnet_error *err) LINNET_NODISCARD;
/** The same over borrowed bytes that outlive the object (for tests and fuzzing). */
linnet_status linnet_gguf_open_bytes(const void *bytes, size_t n_bytes, linnet_gguf **ret_gguf,
                                     linnet_error *err) LINNET_NODISCARD;
/** The same over the n_parts files of one model. */
linnet_status linnet_gguf_open_parts(const linnet_map *parts, size_t n_parts, linnet_gguf **ret_gguf,
                                     linnet_error *err) LINNET_NODISCARD;
void linnet_gguf_close(linnet_gguf *gguf);

size_t linnet_gguf_n_values(const linnet_gguf *gguf);
const linnet_gguf_value *linnet_gguf_value_at(const linnet_gguf *gguf, size_t index);
const linnet_gguf_value *linnet_gguf_find(const linnet_gguf *gguf, const char *name); /* NULL: absent */
size_t linnet_gguf_n_tensors(const linnet_gguf *gguf);
const linnet_gguf_tensor *linnet_gguf_tensor_at(const linnet_gguf *gguf, size_t index);
const linnet_gguf_tensor *linnet_gguf_find_tensor(const linnet_gguf *gguf,
                                                  const char *name); /* NULL: absent */
const char *linnet_gguf_path(const linnet_gguf *gguf);               /* "" for bytes */
size_t linnet_gguf_n_bytes(const linnet_gguf *gguf);                 /* of all its files */
bool linnet_gguf_is_checkpoint(const linnet_gguf *gguf);             /* a directory of Hugging Face */
/** H(OBJECT) over the files in their order, as they were mapped: the model of a task. Of one file that is its
 * content address. UNSUPPORTED for a checkpoint, whose adapters order rows otherwise. */
linnet_status linnet_gguf_hash(const linnet_gguf *gguf, linnet_hash *ret_hash,
                               linnet_error *err) LINNET_NODISCARD;

/** Typed reads of a key. Integer kinds convert where the value fits. NOT_FOUND (absent), FORMAT (other kind),
 * RANGE. */
linnet_status linnet_gguf_get_u32(const linnet_gguf *gguf, const char *name, uint32_t *ret,
                                  linnet_error *err) LINNET_NODISCARD;
linnet_status linnet_gguf_get_f32(const linnet_gguf *gguf, const char *name, float *ret,
                                  linnet_error *err) LINNET_NODISCARD;
linnet_status linnet_gguf_get_bool(const linnet_gguf *gguf, const char *name, bool *ret,
                                   linnet_error *err) LINNET_NODISCARD;
linnet_status linnet_gguf_get_text(const linnet_gguf *gguf, const char *name, linnet_text *ret,
                                   linnet_error *err) LINNET_NODISCARD;

/** Walk an array of strings: *at starts at 0 and is advanced; false at the end. The open has checked every
 * length. */
bool linnet_gguf_array_text(const linnet_gguf_value *array, size_t *at, linnet_text *ret);
/** Element i of an array of numbers as a double (FORMAT for strings; RANGE past the end). */
linnet_status linnet_gguf_array_number(const linnet_gguf_value *array, uint64_t i,
                                       double *ret) LINNET_NODISCARD;

/* ---- writing: add all values, then all tensors, then write; data is borrowed until then ---- */
typedef struct linnet_gguf_writer linnet_gguf_writer;
linnet_gguf_writer *
linnet_gguf_writer_create(void); /* NULL on lack of memory; the calls below then fail with NOMEM */
void linnet_gguf_writer_destroy(linnet_gguf_writer *writer);
void linnet_gguf_writer_text(linnet_gguf_writer *writer, const char *name, const char *value);
void linnet_gguf_writer_u32(linnet_gguf_writer *writer, const char *name, uint32_t value);
void linnet_gguf_writer_f32(linnet_gguf_writer *writer, const char *name, float value);
void linnet_gguf_writer_bool(linnet_gguf_writer *writer, const char *name, bool value);
/** An array of n elements of one kind, encoded as in a file: strings each behind their u64 length. Copied. */
void linnet_gguf_writer_array(linnet_gguf_writer *writer, const char *name, linnet_gguf_kind element_kind,
                              uint64_t n, const linnet_buffer *elements);
/** Copy a value of another file as it is (for merges and conversions). */
void linnet_gguf_writer_copy(linnet_gguf_writer *writer, const linnet_gguf_value *value);
void linnet_gguf_writer_tensor(linnet_gguf_writer *writer, const char *name, uint32_t type, uint32_t n_dims,
                               const uint64_t *dims, const void *bytes, size_t n_bytes);
/** Makes the n_bytes of the tensor `name` when the file is written; runs on the writing thread. A failure
 * stops it. */
typedef linnet_status linnet_gguf_produce_fn(void *context, const char *name, void *bytes, size_t n_bytes,
                                             linnet_error *err);
/** A tensor whose bytes are made in its turn, so that memory holds one such tensor at a time. */
void linnet_gguf_writer_tensor_produced(linnet_gguf_writer *writer, const char *name, uint32_t type,
                                        uint32_t n_dims, const uint64_t *dims, size_t n_bytes,
                                        linnet_gguf_produce_fn *produce, void *context);
/** Append the file's header, up to the first byte of data. The first error of the calls above comes out here.
 */
linnet_status linnet_gguf_writer_header(const linnet_gguf_writer *writer, linnet_buffer *ret_bytes,
                                        linnet_error *err) LINNET_NODISCARD;
/** All or nothing: a temporary file, fsync, rename. The first error of the calls above comes out here. */
linnet_status linnet_gguf_writer_write(linnet_gguf_writer *writer, const char *path,
                                       linnet_error *err) LINNET_NODISCARD;

#endif
