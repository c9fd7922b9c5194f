/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_UNICODE_TABLES_H
#define LINNET_UNICODE_TABLES_H

/* What WordPiece asks of a character. Rows are sorted by their first character and do not overlap. */

#include "linnet/status.h"

#include <stddef.h>
#include <stdint.h>

/** OTHER has no rows. CONTROL is what a text is cleaned of: also formats, private use, U+0000 and U+FFFD.
 * Signs of ASCII are PUNCTUATION. */
typedef enum linnet_unicode_kind {
    LINNET_UNICODE_OTHER,
    LINNET_UNICODE_SPACE,
    LINNET_UNICODE_CONTROL,
    LINNET_UNICODE_MARK,
    LINNET_UNICODE_PUNCTUATION
} linnet_unicode_kind;

typedef struct linnet_unicode_class {
    uint32_t first, last;
    linnet_unicode_kind kind;
} linnet_unicode_class;

/** The first character of the canonical decomposition (NFD); Hangul syllables have no rows. */
typedef struct linnet_unicode_base {
    uint32_t first, last, base;
} linnet_unicode_base;

/** Every step-th character from first to last has its small letter at this distance. */
typedef struct linnet_unicode_lower {
    uint32_t first, last, step;
    int32_t distance;
} linnet_unicode_lower;

extern const linnet_unicode_class linnet_unicode_classes[];
extern const size_t linnet_unicode_classes_n;
extern const linnet_unicode_base linnet_unicode_bases[];
extern const size_t linnet_unicode_bases_n;
extern const linnet_unicode_lower linnet_unicode_lowers[];
extern const size_t linnet_unicode_lowers_n;

#endif
