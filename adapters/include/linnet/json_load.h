/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_JSON_LOAD_H
#define LINNET_JSON_LOAD_H

/* A JSON object from foreign bytes, with depth and number of values bounded before
 * parsing. */

#include "linnet/bytes.h"

#include <jansson.h>

/** FORMAT unless it is one object without duplicate names; LIMIT above the caps. Free with json_decref. */
linnet_status linnet_json_load(const void *bytes, size_t n_bytes, json_t **ret_object,
                               linnet_error *err) LINNET_NODISCARD;
/** The object in the file directory/name of at most n_bytes_max and n_values_max; flags are jansson's. Errors
 * name the file; NOT_FOUND. */
linnet_status linnet_json_load_file(const char *directory, const char *name, size_t n_bytes_max,
                                    size_t n_values_max, size_t flags, json_t **ret_object,
                                    linnet_error *err) LINNET_NODISCARD;

#endif
