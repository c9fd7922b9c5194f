/* SPDX-License-Identifier: Apache-2.0 */
/* Ids back into text: one token at a time, and as a stream that gives out whole characters only. */
#include "tokenizer_state.h"

static void append_byte_piece(linnet_text piece, linnet_buffer *text)
{
    uint8_t byte;
    char digits[3] = {0};
    if (piece.n_bytes != 6 || memcmp(piece.bytes, "<0x", 3) != 0)
        return;
    memcpy(digits, piece.bytes + 3, 2);
    if (linnet_hex_read(digits, &byte, 1) == LINNET_OK)
        linnet_buffer_append_u8(text, byte);
}

static void append_spaced(linnet_text piece, linnet_buffer *text)
{
    for (size_t at = 0; at < piece.n_bytes;) {
        bool is_space = piece.n_bytes - at >= 3 && memcmp(piece.bytes + at, LINNET_SPACE_MARK, 3) == 0;
        linnet_buffer_append(text, is_space ? " " : piece.bytes + at, 1);
        at += is_space ? 3 : 1;
    }
}

void linnet_detokenize(const linnet_tokenizer *tokenizer, int32_t id, linnet_buffer *text)
{
    linnet_text piece = linnet_token_piece(tokenizer, id);
    if (piece.n_bytes == 0)
        return;
    switch (tokenizer->types[id]) {
    case PIECE_CONTROL:
    case PIECE_UNKNOWN:
        return;
    case PIECE_USER_DEFINED:
        linnet_buffer_append(text, piece.bytes, piece.n_bytes);
        return;
    case PIECE_BYTE:
        append_byte_piece(piece, text);
        return;
    default:
        break;
    }
    if (tokenizer->kind == TOKENIZER_BPE)
        linnet_bpe_detokenize(piece, text);
    else
        append_spaced(piece, text);
}

void linnet_detokenizer_init(linnet_detokenizer *d, const linnet_tokenizer *tokenizer)
{
    *d = (linnet_detokenizer){.tokenizer = tokenizer};
}

/* Bytes at the end of a text that begin a character and may go on: 0 to 3. */
static size_t unfinished_bytes(const uint8_t *bytes, size_t n_bytes)
{
    for (size_t n = 1; n <= 3 && n <= n_bytes; n++) {
        uint8_t byte = bytes[n_bytes - n];
        if (byte >= 0xc0) {
            size_t length = byte < 0xe0 ? 2 : byte < 0xf0 ? 3 : 4;
            return byte < 0xf8 && n < length ? n : 0;
        }
        if (byte < 0x80)
            return 0;
    }
    return 0;
}

void linnet_detokenizer_push(linnet_detokenizer *d, int32_t id, linnet_buffer *text)
{
    size_t n_before = text->n_bytes;
    linnet_buffer_append(text, d->held, d->n_held);
    linnet_detokenize(d->tokenizer, id, text);
    if (text->failed)
        return;
    size_t n_new = text->n_bytes - n_before;
    d->n_held = n_new > 0 ? unfinished_bytes(text->bytes + n_before, n_new) : 0;
    if (d->n_held > 0)
        memcpy(d->held, text->bytes + text->n_bytes - d->n_held, d->n_held);
    text->n_bytes -= d->n_held;
}

void linnet_detokenizer_finish(linnet_detokenizer *d, linnet_buffer *text)
{
    linnet_buffer_append(text, d->held, d->n_held);
    d->n_held = 0;
}
