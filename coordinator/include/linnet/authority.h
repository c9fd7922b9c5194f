/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_AUTHORITY_H
#define LINNET_AUTHORITY_H

/* The enrolment authority on a machine of its own: a directory with its key and its revocation list, and
 * files that travel. A requests file is a row of (serial u64, signed CSR); a certificates file a row of
 * signed certificates; a revocation list is the signed list itself. */

#include "linnet/coordinator.h"

#define LINNET_AUTHORITY_FILE_MAX ((size_t)64 << 20) /* a quarter of a million certificates */

/** Make the key. EXISTS where the directory has one. */
linnet_status linnet_authority_init(const char *directory, linnet_public_key *ret_key,
                                    linnet_error *err) LINNET_NODISCARD;
/** Sign every request of a requests file; ret_certificates is appended to. FORMAT names the first bad one. */
linnet_status linnet_authority_sign(const char *directory, const void *requests, size_t n_bytes,
                                    uint64_t now_s, linnet_buffer *ret_certificates, size_t *ret_n,
                                    linnet_error *err) LINNET_NODISCARD;
/** The next revocation list with this device on it, kept in the directory and appended to ret_list. */
linnet_status linnet_authority_revoke(const char *directory, const linnet_device_id *device,
                                      linnet_buffer *ret_list, linnet_error *err) LINNET_NODISCARD;

/* ---- the coordinator's side ---- */
/** What waits for a signature, as a requests file. */
linnet_status linnet_coordinator_requests(linnet_coordinator *coordinator, linnet_buffer *ret_requests,
                                          size_t *ret_n, linnet_error *err) LINNET_NODISCARD;
/** Take over certificates, or a revocation list with a higher number. CRYPTO where the pinned authority did
 * not sign it; all or nothing. */
linnet_status linnet_coordinator_import(linnet_coordinator *coordinator, const void *bytes, size_t n_bytes,
                                        size_t *ret_n, linnet_error *err) LINNET_NODISCARD;

#endif
