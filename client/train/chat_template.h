/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_CHAT_TEMPLATE_H
#define LINNET_CHAT_TEMPLATE_H

/* The chat formats linnet knows, as strings between the contents. A model's own template is a program in a
 * template language; it is not run, only recognised by words that stand in it. */

#include "linnet/dataset.h"

typedef enum linnet_chat_system {
    LINNET_CHAT_SYSTEM_TURN,  /* what the system says is a turn of its own, */
    LINNET_CHAT_SYSTEM_FIRST, /* or stands in front of what the user says next, */
    LINNET_CHAT_SYSTEM_LAST   /* or says last */
} linnet_chat_system;

/** Strings of one family; NULL is as good as "". In them a special token stands between \1 and \1 (where the
 * vocabulary has no such piece its text is tokenised like any other), \2 is the tokenizer's end token and \3
 * its begin token. */
typedef struct linnet_chat_family {
    const char *name;
    const char *marks[3]; /* words that a template of this family has, NULL behind the last */
    linnet_chat_system system;
    const char
        *default_system; /* what the system says in a conversation where it says nothing; NULL: no turn */
    const char *open_system, *close_system;
    const char *open_user, *close_user;
    const char *open_later_user; /* for turns that are not the first; NULL: as the first */
    const char *open_assistant;
    const char *open_answer, *close_answer; /* count as part of the content */
    const char *end_of_turn; /* the piece that ends an assistant's content; NULL: the tokenizer's end token */
    const char *close_assistant; /* behind the end of turn */
    bool trims;                  /* contents lose the white space around them */
} linnet_chat_family;

/** The family of a template, or the one that joins contents by newlines where the template is empty; NULL for
 * a template of another family. */
const linnet_chat_family *linnet_chat_family_find(linnet_text chat_template);

typedef enum linnet_chat_part_kind {
    LINNET_CHAT_TEXT,    /* markup and what others than the assistant say: does not count */
    LINNET_CHAT_SPECIAL, /* a special token, text is its piece */
    LINNET_CHAT_BEGIN,   /* the tokenizer's begin token */
    LINNET_CHAT_END,     /* the tokenizer's end token */
    LINNET_CHAT_ANSWER,  /* what the assistant says: counts */
    LINNET_CHAT_TURN_END /* the token that ends it, which counts too */
} linnet_chat_part_kind;

/** Takes one part of a conversation, its text borrowed for the call. */
typedef linnet_status linnet_chat_part_fn(void *context, linnet_chat_part_kind kind, linnet_text text,
                                          linnet_error *err);

/** A conversation's parts in order, without a begin token in front; with `prompt` up to where the assistant
 * speaks next. Fails as `take` does. */
linnet_status linnet_chat_render(const linnet_chat_family *family, const linnet_message *messages,
                                 size_t n_messages, bool prompt, linnet_chat_part_fn *take, void *context,
                                 linnet_error *err) LINNET_NODISCARD;

#endif
