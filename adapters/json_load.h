/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_ADAPTERS_JSON_LOAD_H
#define LINNET_ADAPTERS_JSON_LOAD_H

/* Inside of adapters: a JSON object from foreign bytes, with depth and number of values bounded before
 * parsing. */

#include "linnet/bytes.h"

#include <jansson.h>

/** FORMAT unless it is one object without duplicate names; LIMIT above the caps. Free with json_decref. */
linnet_status linnet_json_load(const void *bytes, size_t n_bytes, json_t **ret_object,
                               linnet_error *err) LINNET_NODISCARD;

#endif
