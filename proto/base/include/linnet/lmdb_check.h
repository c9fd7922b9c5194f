/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_LMDB_CHECK_H
#define LINNET_LMDB_CHECK_H

/* Is an LMDB data file what LMDB will take it for? LMDB maps its pages and follows what they say. */

#include "linnet/status.h"

#include <stdint.h>

/**
 * Walk a data file of LMDB 0.9 with one unnamed database and no duplicates, before LMDB opens it.
 *
 * path       the data file; one that is absent or empty is fine: LMDB makes it, or says so
 * map_bytes  the map that it will be opened with; no page may lie behind it
 * next_step  what the user can do about a damage; ends the error's text
 *
 * FORMAT with one line that names the file, what is wrong and where, and the next step; IO or NOMEM where it
 * could not be looked at. A file that another process writes meanwhile is looked at again, and trusted where
 * that goes on: its writer has checked it. Reads every page except the rest of long values: about a
 * millisecond for each MiB of short ones.
 */
linnet_status linnet_lmdb_check(const char *path, uint64_t map_bytes, const char *next_step,
                                linnet_error *err) LINNET_NODISCARD;

/**
 * Remove a data file whose making was cut short, by a kill or the power, before its two meta pages were
 * there: nothing was ever committed to it, and LMDB would refuse it for ever. Any other file stays. For
 * whoever is about to make a store, and alone with it.
 */
void linnet_lmdb_clear_unborn(const char *path);

#endif
