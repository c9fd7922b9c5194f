/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_PRETOKENIZER_H
#define LINNET_PRETOKENIZER_H

/* Cuts a text into the pieces that byte pair encoding then looks at one by one, by the regular expressions of
 * a model's publisher, which `tokenizer.ggml.pre` names. Immutable once made: threads may share one. */

#include "linnet/gguf.h"

typedef struct linnet_pretokenizer linnet_pretokenizer;

/** name is empty where the file has none: "default". UNSUPPORTED, with the name, for one linnet does not
 * know.
 */
linnet_status linnet_pretokenizer_create(linnet_text name, linnet_pretokenizer **ret_pretokenizer,
                                         linnet_error *err) LINNET_NODISCARD;
void linnet_pretokenizer_destroy(linnet_pretokenizer *p);

/** Is a piece that is a token taken as it is, without merges? */
bool linnet_pretokenizer_takes_whole(const linnet_pretokenizer *p);
/** Do models of this kind want begin-of-text in front where the file does not say? */
bool linnet_pretokenizer_adds_begin(const linnet_pretokenizer *p);

/** Takes one piece, borrowed for the call, at least one byte. */
typedef linnet_status linnet_piece_fn(void *context, const char *bytes, size_t n_bytes);

/** Cut n_bytes of any bytes: `take` sees every byte once, in order. A run of bytes that is not UTF-8 is one
 * piece, and the text on each of its sides is cut as if it stood alone. NOMEM, LIMIT where an expression asks
 * for too many steps, or what `take` returned. */
linnet_status linnet_pretokenizer_cut(const linnet_pretokenizer *p, const char *text, size_t n_bytes,
                                      linnet_piece_fn *take, void *context) LINNET_NODISCARD;

#endif
