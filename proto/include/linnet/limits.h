/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_LIMITS_H
#define LINNET_LIMITS_H

/* Caps on what a peer may send, each with its reason. */

#include <stddef.h>

#define LINNET_UPLOAD_CHUNK_BYTES ((size_t)256 << 10) /* raw bytes of a request: fits a watch's memory */
#define LINNET_REQUEST_BYTES_MAX ((size_t)512 << 10)  /* a chunk or a message of 1024 members, and sealing */
#define LINNET_RESPONSE_BYTES_MAX ((size_t)512 << 10) /* a roster of 1024 members is 375 kB, and sealing */
#define LINNET_HELLO_BYTES_MAX ((size_t)256 << 10)  /* keys and a revocation list of some thousand devices */
#define LINNET_OBJECT_BYTES_MAX ((size_t)256 << 20) /* an adapter: rank 64 on a 1 G model */
#define LINNET_OBJECT_CHUNK_BYTES ((size_t)1 << 20) /* of one GET */
#define LINNET_MESSAGE_BYTES_MAX ((size_t)64 << 10) /* a protobuf header without its raw part */
#define LINNET_MESSAGE_MEMORY_MAX ((size_t)512 << 10) /* what unpacking one may allocate (amplification) */
#define LINNET_PLAN_BYTES_MAX ((size_t)64 << 10)
#define LINNET_VECTORS_MAX 3       /* factor B, lanes, factor A */
#define LINNET_COHORT_MAX 1024     /* n_max of linnet-sa1 */
#define LINNET_SECURE_COHORT_MIN 3 /* below it no roster meets t + 1 <= n, and a sum hides nobody */
#define LINNET_PADDING_BYTES 256   /* bodies are padded to a multiple, against size leaks */

#endif
