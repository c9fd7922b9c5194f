/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_CHAT_TEMPLATE_H
#define LINNET_CHAT_TEMPLATE_H

/* The chat formats linnet knows, as strings between the contents. A model's own template is a program in a
 * template language; it is not run, only recognised by words that stand in it. */

#include "linnet/tokenizer.h"

/** Strings of one family. A special token stands between \1 and \1; without such a piece in the vocabulary
 * its text is tokenised like any other. */
typedef struct linnet_chat_family {
    const char *name;
    const char *marks[2]; /* words that a template of this family has, NULL: none */
    const char *open_system, *close_system;
    const char *open_user, *open_user_after_system, *close_user;
    const char *open_assistant;
    const char *end_of_turn; /* the piece that ends an assistant's content; NULL: the tokenizer's end token */
    const char *close_assistant; /* behind the end of turn */
    bool prefix_assistant;       /* is an assistant's content tokenised with a space prefix? */
} linnet_chat_family;

/** The family of the tokenizer's template, or the one that joins contents by newlines where it has none.
 * UNSUPPORTED for a template of another family. */
linnet_status linnet_chat_family_of(const linnet_tokenizer *tokenizer, const linnet_chat_family **ret_family,
                                    linnet_error *err) LINNET_NODISCARD;

#endif
