/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_AUTHORITY_H
#define LINNET_AUTHORITY_H

/* The enrolment authority on a machine of its own (SECURE-AGGREGATION 2.3): a directory with its key, its
 * revocation list, and a store of the invites it made and the certificates it issued; and files that travel.
 * A requests file is a row of (serial u64, signed CSR); a certificates file a row of signed certificates; a
 * revocation list is the signed list itself; a tokens file is "LNTOKENS" and a row of (token id 16, expires
 * u64): no secret is in any of them. */

#include "linnet/coordinator.h"

#define LINNET_AUTHORITY_FILE_MAX ((size_t)64 << 20) /* a quarter of a million certificates */
#define LINNET_TOKENS_MAGIC "LNTOKENS"
#define LINNET_TOKENS_HEAD_BYTES ((size_t)8)
#define LINNET_TOKEN_ENTRY_BYTES ((size_t)LINNET_TOKEN_ID_BYTES + 8)

/** Make the key. EXISTS where the directory has one. */
linnet_status linnet_authority_init(const char *directory, linnet_public_key *ret_key,
                                    linnet_error *err) LINNET_NODISCARD;
/** Make n invites for devices of this coordinator that expire at expires_s (unix seconds): one code a line
 * appended to ret_texts, which hold the secrets (wipe them), and a tokens file for the coordinator. From then
 * on the authority signs no request but under an invite of its own. */
linnet_status linnet_authority_invite(const char *directory, const linnet_public_key *coordinator, uint64_t n,
                                      uint64_t expires_s, linnet_buffer *ret_texts, linnet_buffer *ret_tokens,
                                      linnet_error *err) LINNET_NODISCARD;
/** Sign every request of a requests file, or none; ret_certificates is appended to. One certificate for one
 * token: it is used up in the transaction that issues, and the same request again gets the same certificate.
 * An error names the first bad request: CRYPTO not signed by its key, or not under the token's secret; DENIED
 * the token is another device's, or none of this authority's; EXPIRED.
 *
 * An authority that never made an invite takes those of the coordinator, one certificate for each: then
 * whoever runs the coordinator decides who is enrolled. */
linnet_status linnet_authority_sign(const char *directory, const void *requests, size_t n_bytes,
                                    uint64_t now_s, linnet_buffer *ret_certificates, size_t *ret_n,
                                    linnet_error *err) LINNET_NODISCARD;

typedef struct linnet_certified {
    linnet_certificate certificate;
    bool is_revoked;
} linnet_certified;
typedef struct linnet_authority_report {
    linnet_public_key authority;
    bool makes_invites;          /* its own: the coordinator cannot enrol by itself */
    uint64_t revocation_number;  /* 0: no list yet */
    linnet_certified *certified; /* owned; by device id */
    size_t n_certified;
} linnet_authority_report;
linnet_status linnet_authority_list(const char *directory, linnet_authority_report *ret_report,
                                    linnet_error *err) LINNET_NODISCARD;
/** OK where the device has a certificate of this authority, or where it never issued one by this store. */
linnet_status linnet_authority_knows(const char *directory, const linnet_device_id *device,
                                     linnet_error *err) LINNET_NODISCARD;

/** The members' keys as text for policies (key `consortium`): one key of 64 hex digits a line, '#' before
 * what is not read; revoked ones left out. The last line is "# signature ", 128 hex digits of the authority's
 * signature under `conso` over everything before it, newline. Appended. */
linnet_status linnet_authority_consortium(const char *directory, linnet_buffer *ret_text,
                                          linnet_error *err) LINNET_NODISCARD;
/** Is this such a text, whole, by this authority? FORMAT, CRYPTO. */
linnet_status linnet_consortium_verify(const void *text, size_t n_bytes, const linnet_public_key *authority,
                                       size_t *ret_n_keys, linnet_error *err) LINNET_NODISCARD;

/** The next revocation list with this device on it, kept in the directory and appended to ret_list. */
linnet_status linnet_authority_revoke(const char *directory, const linnet_device_id *device,
                                      linnet_buffer *ret_list, linnet_error *err) LINNET_NODISCARD;

/* ---- the coordinator's side ---- */
/** What waits for a signature, as a requests file. */
linnet_status linnet_coordinator_requests(linnet_coordinator *coordinator, linnet_buffer *ret_requests,
                                          size_t *ret_n, linnet_error *err) LINNET_NODISCARD;
/** Take over certificates, a revocation list with a higher number, or invites that the authority made. CRYPTO
 * where the pinned authority did not sign it; all or nothing. */
linnet_status linnet_coordinator_import(linnet_coordinator *coordinator, const void *bytes, size_t n_bytes,
                                        size_t *ret_n, linnet_error *err) LINNET_NODISCARD;

#endif
