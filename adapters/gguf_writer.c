/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing GGUF v3. Keys are encoded as they are added; tensors are noted with borrowed data, or with a
 * producer that makes the bytes when their turn comes, so that a whole model passes through the memory of one
 * tensor. The file appears all or nothing: temporary file beside the target, fsync, rename, fsync of the
 * directory. The first error of any call sticks and comes out of the write. Source: the GGUF specification
 * (ggml, docs/gguf.md).
 */
#include "linnet/gguf.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "limits.h"

typedef struct pending_tensor {
    char name[LINNET_GGUF_TENSOR_NAME_BYTES_MAX + 1];
    uint32_t type, n_dims;
    uint64_t dims[4];
    size_t n_bytes;
    const void *bytes; /* borrowed; NULL where a producer makes them */
    linnet_gguf_produce_fn *produce;
    void *context;
} pending_tensor;

struct linnet_gguf_writer {
    linnet_buffer values; /* encoded keys and values */
    uint64_t n_values;
    pending_tensor *tensors; /* owned */
    size_t n_tensors, capacity;
    uint32_t alignment;
    linnet_error error; /* the first one; sticks */
};

linnet_gguf_writer *linnet_gguf_writer_create(void)
{
    linnet_gguf_writer *writer = calloc(1, sizeof(*writer));
    if (writer)
        writer->alignment = LINNET_GGUF_ALIGNMENT_DEFAULT;
    return writer;
}

void linnet_gguf_writer_destroy(linnet_gguf_writer *writer)
{
    if (!writer)
        return;
    linnet_buffer_release(&writer->values);
    free(writer->tensors);
    free(writer);
}

/* ---- values ---- */

static bool is_usable(const linnet_gguf_writer *writer)
{
    return writer && writer->error.status == LINNET_OK;
}

static void append_string(linnet_buffer *buffer, const char *bytes, size_t n_bytes)
{
    linnet_buffer_append_le64(buffer, n_bytes);
    linnet_buffer_append(buffer, bytes, n_bytes);
}

static void begin_value(linnet_gguf_writer *writer, linnet_text name, linnet_gguf_kind kind)
{
    if (name.n_bytes == 0 || name.n_bytes > LINNET_GGUF_KEY_BYTES_MAX)
        (void)linnet_fail(&writer->error, LINNET_ERR_ARG, "a key of %zu bytes cannot be written",
                          name.n_bytes);
    append_string(&writer->values, name.bytes, name.n_bytes);
    linnet_buffer_append_le32(&writer->values, (uint32_t)kind);
    writer->n_values++;
}

void linnet_gguf_writer_text(linnet_gguf_writer *writer, const char *name, const char *value)
{
    if (!is_usable(writer))
        return;
    begin_value(writer, (linnet_text){name, strlen(name)}, LINNET_GGUF_STRING);
    append_string(&writer->values, value, strlen(value));
}

static void set_alignment(linnet_gguf_writer *writer, uint32_t alignment)
{
    if (alignment < LINNET_GGUF_ALIGNMENT_MIN || alignment > LINNET_GGUF_ALIGNMENT_MAX ||
        (alignment & (alignment - 1)) != 0)
        (void)linnet_fail(&writer->error, LINNET_ERR_ARG, "general.alignment %u cannot be written",
                          (unsigned)alignment);
    else
        writer->alignment = alignment;
}

void linnet_gguf_writer_u32(linnet_gguf_writer *writer, const char *name, uint32_t value)
{
    if (!is_usable(writer))
        return;
    begin_value(writer, (linnet_text){name, strlen(name)}, LINNET_GGUF_U32);
    linnet_buffer_append_le32(&writer->values, value);
    if (strcmp(name, "general.alignment") == 0)
        set_alignment(writer, value);
}

void linnet_gguf_writer_f32(linnet_gguf_writer *writer, const char *name, float value)
{
    uint8_t bytes[4];
    if (!is_usable(writer))
        return;
    begin_value(writer, (linnet_text){name, strlen(name)}, LINNET_GGUF_F32);
    linnet_store_f32(bytes, value);
    linnet_buffer_append(&writer->values, bytes, sizeof(bytes));
}

void linnet_gguf_writer_bool(linnet_gguf_writer *writer, const char *name, bool value)
{
    if (!is_usable(writer))
        return;
    begin_value(writer, (linnet_text){name, strlen(name)}, LINNET_GGUF_BOOL);
    linnet_buffer_append_u8(&writer->values, value);
}

void linnet_gguf_writer_array(linnet_gguf_writer *writer, const char *name, linnet_gguf_kind element_kind,
                              uint64_t n, const linnet_buffer *elements)
{
    linnet_gguf_value value = {.name = {name, strlen(name)},
                               .kind = LINNET_GGUF_ARRAY,
                               .element_kind = element_kind,
                               .n_elements = n,
                               .bytes = elements->bytes,
                               .n_bytes = elements->n_bytes};
    if (is_usable(writer) && elements->failed)
        (void)linnet_fail(&writer->error, LINNET_ERR_NOMEM, "no memory for key '%s'", name);
    linnet_gguf_writer_copy(writer, &value);
}

void linnet_gguf_writer_copy(linnet_gguf_writer *writer, const linnet_gguf_value *value)
{
    if (!is_usable(writer))
        return;
    begin_value(writer, value->name, value->kind);
    if (value->kind == LINNET_GGUF_ARRAY) {
        linnet_buffer_append_le32(&writer->values, (uint32_t)value->element_kind);
        linnet_buffer_append_le64(&writer->values, value->n_elements);
    }
    linnet_buffer_append(&writer->values, value->bytes, value->n_bytes);
    if (linnet_text_is(value->name,
                       "general.alignment")) /* the reader has checked that it is a small integer */
        set_alignment(writer, value->n_bytes >= 4   ? linnet_load_le32(value->bytes)
                              : value->n_bytes == 2 ? linnet_load_le16(value->bytes)
                                                    : value->bytes[0]);
}

/* ---- tensors ---- */

static linnet_status check_shape(const pending_tensor *tensor, linnet_error *err)
{
    size_t block_elements, block_bytes, n = 1;
    if (!linnet_tensor_type_info(tensor->type, &block_elements, &block_bytes))
        return linnet_fail(err, LINNET_ERR_UNSUPPORTED, "tensor '%s' has type %u, which cannot be written",
                           tensor->name, (unsigned)tensor->type);
    for (size_t i = 0; i < 4; i++) {
        if (tensor->dims[i] == 0 || tensor->dims[i] > SIZE_MAX ||
            !linnet_size_mul(n, (size_t)tensor->dims[i], &n))
            return linnet_fail(err, LINNET_ERR_ARG, "tensor '%s' has an impossible shape", tensor->name);
    }
    if (tensor->dims[0] % block_elements != 0 || !linnet_size_mul(n / block_elements, block_bytes, &n) ||
        n != tensor->n_bytes)
        return linnet_fail(err, LINNET_ERR_ARG, "tensor '%s': %zu bytes do not fit its shape", tensor->name,
                           tensor->n_bytes);
    return LINNET_OK;
}

static bool grow_tensors(linnet_gguf_writer *writer)
{
    size_t capacity = writer->capacity ? 2 * writer->capacity : 64;
    pending_tensor *tensors = realloc(writer->tensors, capacity * sizeof(tensors[0]));
    if (!tensors)
        return false;
    writer->tensors = tensors;
    writer->capacity = capacity;
    return true;
}

static void add_tensor(linnet_gguf_writer *writer, const char *name, pending_tensor tensor,
                       const uint64_t *dims)
{
    if (!is_usable(writer))
        return;
    if (strlen(name) >= sizeof(tensor.name) || tensor.n_dims < 1 || tensor.n_dims > 4 ||
        writer->n_tensors >= LINNET_GGUF_TENSORS_MAX) {
        (void)linnet_fail(&writer->error, LINNET_ERR_ARG, "tensor '%s' cannot be written", name);
        return;
    }
    memcpy(tensor.name, name, strlen(name) + 1);
    for (uint32_t i = 0; i < 4; i++)
        tensor.dims[i] = i < tensor.n_dims ? dims[i] : 1;
    if (check_shape(&tensor, &writer->error) != LINNET_OK)
        return; /* the error is noted */
    if (writer->n_tensors == writer->capacity && !grow_tensors(writer)) {
        (void)linnet_fail(&writer->error, LINNET_ERR_NOMEM, "no memory for tensor '%s'", name);
        return;
    }
    writer->tensors[writer->n_tensors++] = tensor;
}

void linnet_gguf_writer_tensor(linnet_gguf_writer *writer, const char *name, uint32_t type, uint32_t n_dims,
                               const uint64_t *dims, const void *bytes, size_t n_bytes)
{
    pending_tensor tensor = {.type = type, .n_dims = n_dims, .bytes = bytes, .n_bytes = n_bytes};
    add_tensor(writer, name, tensor, dims);
}

void linnet_gguf_writer_tensor_produced(linnet_gguf_writer *writer, const char *name, uint32_t type,
                                        uint32_t n_dims, const uint64_t *dims, size_t n_bytes,
                                        linnet_gguf_produce_fn *produce, void *context)
{
    pending_tensor tensor = {
        .type = type, .n_dims = n_dims, .n_bytes = n_bytes, .produce = produce, .context = context};
    add_tensor(writer, name, tensor, dims);
}

/* ---- the file ---- */

static uint64_t align_up(uint64_t at, uint32_t alignment)
{
    return (at + alignment - 1) / alignment * alignment;
}

static void append_header(const linnet_gguf_writer *writer, linnet_buffer *header)
{
    uint64_t offset = 0;
    linnet_buffer_append(header, "GGUF", 4);
    linnet_buffer_append_le32(header, 3);
    linnet_buffer_append_le64(header, writer->n_tensors);
    linnet_buffer_append_le64(header, writer->n_values);
    linnet_buffer_append(header, writer->values.bytes, writer->values.n_bytes);
    for (size_t i = 0; i < writer->n_tensors; i++) {
        const pending_tensor *tensor = &writer->tensors[i];
        append_string(header, tensor->name, strlen(tensor->name));
        linnet_buffer_append_le32(header, tensor->n_dims);
        for (uint32_t d = 0; d < tensor->n_dims; d++)
            linnet_buffer_append_le64(header, tensor->dims[d]);
        linnet_buffer_append_le32(header, tensor->type);
        linnet_buffer_append_le64(header, offset);
        offset = align_up(offset + tensor->n_bytes, writer->alignment);
    }
    while (!header->failed && header->n_bytes % writer->alignment != 0)
        linnet_buffer_append_u8(header, 0);
}

linnet_status linnet_gguf_writer_header(const linnet_gguf_writer *writer, linnet_buffer *ret_bytes,
                                        linnet_error *err)
{
    if (!writer)
        return linnet_fail(err, LINNET_ERR_NOMEM, "no memory for a GGUF header");
    if (writer->error.status != LINNET_OK)
        return linnet_fail(err, writer->error.status, "a GGUF header: %s", writer->error.message);
    append_header(writer, ret_bytes);
    return ret_bytes->failed || writer->values.failed
               ? linnet_fail(err, LINNET_ERR_NOMEM, "no memory for a GGUF header")
               : LINNET_OK;
}

static linnet_status put(FILE *file, const void *bytes, size_t n_bytes, const char *path, linnet_error *err)
{
    if (n_bytes > 0 && fwrite(bytes, 1, n_bytes, file) != n_bytes)
        return linnet_fail_errno(err, errno, "cannot write '%s'", path);
    return LINNET_OK;
}

static linnet_status put_produced(FILE *file, const pending_tensor *tensor, const char *path,
                                  linnet_error *err)
{
    uint8_t *bytes = malloc(tensor->n_bytes);
    if (!bytes)
        return linnet_fail(err, LINNET_ERR_NOMEM, "no memory for the %zu bytes of tensor '%s'",
                           tensor->n_bytes, tensor->name);
    linnet_status status = tensor->produce(tensor->context, tensor->name, bytes, tensor->n_bytes, err);
    if (status == LINNET_OK)
        status = put(file, bytes, tensor->n_bytes, path, err);
    free(bytes);
    return status;
}

static linnet_status put_tensors(const linnet_gguf_writer *writer, FILE *file, const char *path,
                                 linnet_error *err)
{
    static const uint8_t zeros[64];
    linnet_status status = LINNET_OK;
    for (size_t i = 0; status == LINNET_OK && i < writer->n_tensors; i++) {
        const pending_tensor *tensor = &writer->tensors[i];
        if (tensor->produce)
            status = put_produced(file, tensor, path, err);
        else
            status = put(file, tensor->bytes, tensor->n_bytes, path, err);
        size_t n_pad = (size_t)(align_up(tensor->n_bytes, writer->alignment) - tensor->n_bytes);
        while (status == LINNET_OK && n_pad > 0) {
            size_t n = n_pad < sizeof(zeros) ? n_pad : sizeof(zeros);
            status = put(file, zeros, n, path, err);
            n_pad -= n;
        }
    }
    return status;
}

static linnet_status put_file(linnet_gguf_writer *writer, int fd, const char *path, linnet_error *err)
{
    linnet_buffer header = {0};
    linnet_status status = LINNET_OK;
    FILE *file = fdopen(fd, "wb");
    if (!file) {
        status = linnet_fail_errno(err, errno, "cannot write '%s'", path);
        (void)close(fd); /* nothing is written yet */
        return status;
    }
    append_header(writer, &header);
    if (header.failed || writer->values.failed)
        status = linnet_fail(err, LINNET_ERR_NOMEM, "no memory to write '%s'", path);
    if (status == LINNET_OK)
        status = put(file, header.bytes, header.n_bytes, path, err);
    if (status == LINNET_OK)
        status = put_tensors(writer, file, path, err);
    if (status == LINNET_OK && (fflush(file) != 0 || fchmod(fd, 0644) != 0 || fsync(fd) != 0))
        status = linnet_fail_errno(err, errno, "cannot write '%s'", path);
    if (fclose(file) != 0 && status == LINNET_OK)
        status = linnet_fail_errno(err, errno, "cannot write '%s'", path);
    linnet_buffer_release(&header);
    return status;
}

/* Make the renamed entry durable in the directory that holds it. */
static linnet_status sync_parent(char *temporary, linnet_error *err)
{
    char *slash = strrchr(temporary, '/');
    if (!slash)
        return linnet_directory_sync(".", err);
    slash[slash == temporary ? 1 : 0] = '\0';
    return linnet_directory_sync(temporary, err);
}

linnet_status linnet_gguf_writer_write(linnet_gguf_writer *writer, const char *path, linnet_error *err)
{
    if (!writer)
        return linnet_fail(err, LINNET_ERR_NOMEM, "no memory to write '%s'", path);
    if (writer->error.status != LINNET_OK)
        return linnet_fail(err, writer->error.status, "cannot write '%s': %s", path, writer->error.message);
    size_t n_path = strlen(path) + sizeof(".XXXXXX");
    char *temporary = malloc(n_path);
    if (!temporary)
        return linnet_fail(err, LINNET_ERR_NOMEM, "no memory to write '%s'", path);
    (void)snprintf(temporary, n_path, "%s.XXXXXX", path);
    int fd = mkstemp(temporary);
    if (fd < 0) {
        linnet_status status = linnet_fail_errno(err, errno, "cannot create a file beside '%s'", path);
        free(temporary);
        return status;
    }
    linnet_status status = put_file(writer, fd, path, err);
    if (status == LINNET_OK && rename(temporary, path) != 0)
        status = linnet_fail_errno(err, errno, "cannot rename '%s' to '%s'", temporary, path);
    if (status != LINNET_OK)
        (void)unlink(temporary); /* best effort on the way out of a failure */
    else
        status = sync_parent(temporary, err);
    free(temporary);
    return status;
}
