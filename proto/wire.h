/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_WIRE_H
#define LINNET_WIRE_H

/* The two calls through which every protobuf message goes; protobuf-c is seen by this folder only. */

#include "arena_allocator.h"
#include "linnet/bytes.h"

/** Append the packed message to bytes. LIMIT where it is larger than n_max. */
linnet_status linnet_wire_pack(const ProtobufCMessage *message, size_t n_max, linnet_buffer *bytes,
                               linnet_error *err) LINNET_NODISCARD;

/** Unpack into arena (initialised here; released by the caller in every case). LIMIT over n_max bytes, FORMAT
 * where the bytes are no such message or hold a field it does not have. */
linnet_status linnet_wire_unpack(const ProtobufCMessageDescriptor *type, const void *bytes, size_t n_bytes,
                                 size_t n_max, linnet_arena_allocator *arena, ProtobufCMessage **ret_message,
                                 linnet_error *err) LINNET_NODISCARD;

/** Borrowed bytes as protobuf-c wants them; it only reads them while packing. */
static inline ProtobufCBinaryData linnet_wire_bytes(const void *bytes, size_t n_bytes)
{
    return (ProtobufCBinaryData){.len = n_bytes, .data = (uint8_t *)(uintptr_t)bytes};
}

/** Copy a field of exactly n_bytes. FORMAT names the field where its length differs. */
linnet_status linnet_wire_exact(const char *field, const ProtobufCBinaryData *data, void *ret_bytes,
                                size_t n_bytes, linnet_error *err) LINNET_NODISCARD;

#endif
