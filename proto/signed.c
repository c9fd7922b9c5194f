/* SPDX-License-Identifier: Apache-2.0 */

/* What stands around message bodies: (body, signature) pairs, the fixed-width receipt, and the frame inside
 * the channel. None of it looks into a body; a body is parsed only after its signature was verified over the
 * bytes as received (SECURE-AGGREGATION 2.2). */

#include "linnet/messages.h"

#include "linnet.pb-c.h"
#include "wire.h"

linnet_status linnet_signed_pack(const void *body, size_t n_body, const linnet_signature *signature,
                                 linnet_buffer *ret_bytes, linnet_error *err)
{
    Linnet__V1__Signed message = LINNET__V1__SIGNED__INIT;
    message.body = linnet_wire_bytes(body, n_body);
    message.signature = linnet_wire_bytes(signature->bytes, sizeof(signature->bytes));
    return linnet_wire_pack(&message.base, LINNET_MESSAGE_BYTES_MAX, ret_bytes, err);
}

/* One length-delimited field of a small tag at the reader: tag, varint length, bytes. */
static const uint8_t *take_field(linnet_reader *reader, uint8_t tag, size_t *ret_n)
{
    uint32_t n = 0;
    if (linnet_reader_u8(reader) != tag)
        reader->failed = true;
    for (unsigned shift = 0;; shift += 7) {
        uint8_t b = linnet_reader_u8(reader);
        if (reader->failed || shift > 21 || (shift > 0 && b == 0)) {
            reader->failed = true;
            return NULL;
        }
        n |= (uint32_t)(b & 0x7f) << shift;
        if (!(b & 0x80))
            break;
    }
    *ret_n = n;
    return linnet_reader_take(reader, n);
}

/* The one message read without protobuf-c, which would copy the body: the struct borrows from the input
 * instead. Only the encoding that pack writes is accepted: body, then signature, shortest lengths, nothing
 * behind. */
linnet_status linnet_signed_open(const void *bytes, size_t n_bytes, linnet_signed *ret_signed,
                                 linnet_error *err)
{
    if (n_bytes > LINNET_MESSAGE_BYTES_MAX)
        return linnet_fail(err, LINNET_ERR_LIMIT, "signed message: %zu bytes, at most %zu", n_bytes,
                           LINNET_MESSAGE_BYTES_MAX);
    linnet_reader reader = linnet_reader_of(bytes, n_bytes);
    size_t n_body = 0, n_signature = 0;
    const uint8_t *body = take_field(&reader, 1 << 3 | 2, &n_body);
    const uint8_t *signature = take_field(&reader, 2 << 3 | 2, &n_signature);
    if (!linnet_reader_is_done(&reader) || !signature || n_body == 0 || n_signature != LINNET_SIGNATURE_BYTES)
        return linnet_fail(err, LINNET_ERR_FORMAT, "signed message: malformed at byte %zu of %zu", reader.at,
                           n_bytes);
    ret_signed->body = body;
    ret_signed->n_body = n_body;
    memcpy(ret_signed->signature.bytes, signature, LINNET_SIGNATURE_BYTES);
    return LINNET_OK;
}

#define RECEIPT_BYTES (LINNET_SIGNED_RECEIPT_BYTES - LINNET_SIGNATURE_BYTES)

void linnet_receipt_sign(const linnet_receipt *receipt, const linnet_identity *coordinator,
                         uint8_t ret_bytes[LINNET_SIGNED_RECEIPT_BYTES])
{
    uint8_t *p = ret_bytes;
    memcpy(p, receipt->chain.bytes, 32);
    memcpy(p + 32, receipt->device_id.bytes, 16);
    memcpy(p + 48, receipt->echo.bytes, 32);
    linnet_store_le64(p + 80, receipt->sequence);
    linnet_signature signature = linnet_sign(coordinator, LINNET_LABEL_RECEIPT, ret_bytes, RECEIPT_BYTES);
    memcpy(p + RECEIPT_BYTES, signature.bytes, sizeof(signature.bytes));
}

linnet_status linnet_receipt_open(const void *bytes, size_t n_bytes, const linnet_public_key *coordinator,
                                  linnet_receipt *ret_receipt)
{
    const uint8_t *p = bytes;
    if (n_bytes != LINNET_SIGNED_RECEIPT_BYTES)
        return LINNET_ERR_FORMAT;
    linnet_signature signature;
    memcpy(signature.bytes, p + RECEIPT_BYTES, sizeof(signature.bytes));
    linnet_status status = linnet_verify(coordinator, LINNET_LABEL_RECEIPT, bytes, RECEIPT_BYTES, &signature);
    if (status != LINNET_OK)
        return status;
    memcpy(ret_receipt->chain.bytes, p, 32);
    memcpy(ret_receipt->device_id.bytes, p + 32, 16);
    memcpy(ret_receipt->echo.bytes, p + 48, 32);
    ret_receipt->sequence = linnet_load_le64(p + 80);
    return LINNET_OK;
}

#define FRAME_LENGTHS 8 /* two u32 in front */

linnet_status linnet_frame_pack(const linnet_frame *frame, linnet_buffer *ret_bytes, linnet_error *err)
{
    if (frame->n_header > LINNET_RESPONSE_BYTES_MAX || frame->n_raw > LINNET_REQUEST_BYTES_MAX)
        return linnet_fail(err, LINNET_ERR_LIMIT, "frame: header of %zu, raw part of %zu bytes",
                           frame->n_header, frame->n_raw);
    size_t n = FRAME_LENGTHS + frame->n_header + frame->n_raw;
    size_t n_padding = (LINNET_PADDING_BYTES - n % LINNET_PADDING_BYTES) % LINNET_PADDING_BYTES;
    if (!linnet_buffer_reserve(ret_bytes, n + n_padding))
        return linnet_fail(err, LINNET_ERR_NOMEM, "frame of %zu bytes", n);
    linnet_buffer_append_le32(ret_bytes, (uint32_t)frame->n_header);
    linnet_buffer_append_le32(ret_bytes, (uint32_t)frame->n_raw);
    linnet_buffer_append(ret_bytes, frame->header, frame->n_header);
    linnet_buffer_append(ret_bytes, frame->raw, frame->n_raw);
    memset(ret_bytes->bytes + ret_bytes->n_bytes, 0, n_padding);
    ret_bytes->n_bytes += n_padding;
    return LINNET_OK;
}

linnet_status linnet_frame_open(const void *bytes, size_t n_bytes, linnet_frame *ret_frame, linnet_error *err)
{
    linnet_reader reader = linnet_reader_of(bytes, n_bytes);
    size_t n_header = linnet_reader_le32(&reader), n_raw = linnet_reader_le32(&reader);
    const uint8_t *header = linnet_reader_take(&reader, n_header);
    const uint8_t *raw = linnet_reader_take(&reader, n_raw);
    if (reader.failed || n_bytes % LINNET_PADDING_BYTES != 0 || n_bytes - reader.at >= LINNET_PADDING_BYTES)
        return linnet_fail(err, LINNET_ERR_FORMAT, "frame of %zu bytes: lengths do not match", n_bytes);
    for (size_t i = reader.at; i < n_bytes; i++)
        if (reader.bytes[i] != 0)
            return linnet_fail(err, LINNET_ERR_FORMAT, "frame: padding is not zero at byte %zu", i);
    *ret_frame = (linnet_frame){.header = header, .raw = raw, .n_header = n_header, .n_raw = n_raw};
    return LINNET_OK;
}
