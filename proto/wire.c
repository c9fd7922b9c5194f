/* SPDX-License-Identifier: Apache-2.0 */

/* Packing and unpacking through protobuf-c with its known weaknesses closed: the bytes are capped before they
 * are looked at, the memory is capped by the arena, and a message that carries unknown fields, at any depth,
 * is refused. Depth is bounded because no type contains itself (a test walks the descriptors). */

#include "wire.h"

#include "linnet/limits.h"

linnet_status linnet_wire_pack(const ProtobufCMessage *message, size_t n_max, linnet_buffer *bytes,
                               linnet_error *err)
{
    size_t n = protobuf_c_message_get_packed_size(message);
    if (n > n_max)
        return linnet_fail(err, LINNET_ERR_LIMIT, "message %s: %zu bytes, at most %zu",
                           message->descriptor->short_name, n, n_max);
    if (!linnet_buffer_reserve(bytes, n + 1)) /* + 1: an empty message has an address too */
        return linnet_fail(err, LINNET_ERR_NOMEM, "message %s", message->descriptor->short_name);
    protobuf_c_message_pack(message, bytes->bytes + bytes->n_bytes);
    bytes->n_bytes += n;
    return LINNET_OK;
}

static bool has_unknown_fields(const ProtobufCMessage *message)
{
    if (message->n_unknown_fields != 0)
        return true;
    for (unsigned i = 0; i < message->descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *field = &message->descriptor->fields[i];
        if (field->type != PROTOBUF_C_TYPE_MESSAGE)
            continue;
        const char *base = (const char *)message;
        size_t n = 1;
        ProtobufCMessage *const *members = (ProtobufCMessage *const *)(const void *)(base + field->offset);
        if (field->label == PROTOBUF_C_LABEL_REPEATED) {
            n = *(const size_t *)(const void *)(base + field->quantifier_offset);
            members = *(ProtobufCMessage *const *const *)(const void *)(base + field->offset);
        }
        for (size_t k = 0; k < n; k++)
            if (members[k] && has_unknown_fields(members[k]))
                return true;
    }
    return false;
}

linnet_status linnet_wire_unpack(const ProtobufCMessageDescriptor *type, const void *bytes, size_t n_bytes,
                                 size_t n_max, linnet_arena_allocator *arena, ProtobufCMessage **ret_message,
                                 linnet_error *err)
{
    linnet_arena_allocator_init(arena, LINNET_MESSAGE_MEMORY_MAX);
    if (n_bytes > n_max)
        return linnet_fail(err, LINNET_ERR_LIMIT, "message %s: %zu bytes, at most %zu", type->short_name,
                           n_bytes, n_max);
    ProtobufCMessage *message = protobuf_c_message_unpack(type, &arena->allocator, n_bytes, bytes);
    if (!message)
        return linnet_fail(err, LINNET_ERR_FORMAT, "message %s: malformed, or too large in memory",
                           type->short_name);
    if (has_unknown_fields(message))
        return linnet_fail(err, LINNET_ERR_FORMAT, "message %s: holds a field that version 1 does not have",
                           type->short_name);
    *ret_message = message;
    return LINNET_OK;
}

linnet_status linnet_wire_exact(const char *field, const ProtobufCBinaryData *data, void *ret_bytes,
                                size_t n_bytes, linnet_error *err)
{
    if (data->len != n_bytes)
        return linnet_fail(err, LINNET_ERR_FORMAT, "field %s: %zu bytes, must be %zu", field, data->len,
                           n_bytes);
    memcpy(ret_bytes, data->data, n_bytes);
    return LINNET_OK;
}
