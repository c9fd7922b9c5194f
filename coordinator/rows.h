/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_ROWS_H
#define LINNET_ROWS_H

/* What the store holds, as structs, and the record ids of its tables:
 *   c name            configuration and counters          k number        signed channel key record
 *   t token id        invites                              d device id     devices
 *   r version         releases                             o round         rounds
 *   n round           announcements (Signed)               a chain         announcement hash -> round
 *   s chain           announcements of an open round that a later one replaced
 *   i round device    asked while the round was open       j round device  joined
 *   b round device    accepted contributions               l round device  late uploads, deleted unread
 *   x round device    evidence: a second, different upload  h number        transcript entries
 *
 * With secure aggregation (SECURE-AGGREGATION 2.4; M1 to M9 are the messages of secagg.h):
 *   j round device    joined: its M1, byte for byte        m T2            sharers' hash -> round
 *   p round device    M3, until the round is over          v round device  M7
 *   u round device    M9, until the round is over: one value an owner and holder, so never both kinds
 *   q round number    what went to the members: 2 = M2, 4 = signature of T2 and bitmap U2, 6 = M6, 8 = M8
 *   w round about device   complaint of a device about the member of that index
 *   g round device    abort, only counted                  y round device  left out of this round's roster
 *   x round device kind    evidence: a second, different message of this kind
 *
 *   z number          signed revocation lists              e round         spent privacy (privacy_ledger.h)
 *   f round           what combining it came to (outcome.h) */

#include "linnet/messages.h"
#include "store.h"

#define LINNET_STORE_FORMAT 1

linnet_record_id linnet_record_config(const char *name);
linnet_record_id linnet_record_number(char table, uint64_t number);
linnet_record_id linnet_record_bytes(char table, const void *bytes, size_t n_bytes);
linnet_record_id linnet_record_round_device(char table, uint64_t round, const linnet_device_id *device);

typedef enum linnet_round_state { /* values are in the store */
                                  LINNET_ROUND_OPEN = 1,
                                  LINNET_ROUND_FROZEN = 2,
                                  LINNET_ROUND_CLOSED = 3,
                                  LINNET_ROUND_VOID = 4,
                                  /* with secure aggregation, between OPEN and FROZEN */
                                  LINNET_ROUND_ROSTER = 5,
                                  LINNET_ROUND_SHARERS = 6,
                                  /* and between FROZEN and CLOSED: the sum is in its file */
                                  LINNET_ROUND_OPENED = 7,
                                  LINNET_ROUND_REJECTED = 8, /* closed, but the gate kept its adapter back */
} linnet_round_state;
const char *linnet_round_state_name(linnet_round_state state);

typedef struct linnet_round_row {
    linnet_round_state state;
    uint64_t number, version;
    linnet_hash release, chain; /* V and A */
    uint32_t invited, joined, accepted;
    int64_t opened_ms, deadline_ms, closed_ms; /* deadline 0: nobody has joined yet */
    uint64_t bytes_up, bytes_down;
    bool has_loss_before, has_loss_after;
    double loss_before, loss_after;
    linnet_hash adapter; /* of the release it led to */
    /* with secure aggregation, else zero and not in the row's bytes */
    uint32_t sharers, aborts; /* |U2|; devices that said they left */
    linnet_hash sum;          /* H(OBJECT, file of the opened sum) */
} linnet_round_row;
/** It led to a release, with its own adapter or, after the gate, with the one before. */
bool linnet_round_has_release(const linnet_round_row *row);
/** Not yet over: its messages, shares and spool are of use. */
bool linnet_round_is_live(const linnet_round_row *row);

typedef struct linnet_token_row {
    uint64_t expires_s;
    bool is_used;
    uint8_t secret[LINNET_TOKEN_SECRET_BYTES]; /* zero once used */
    linnet_public_key public_key;              /* of the device that used it */
} linnet_token_row;

typedef struct linnet_device_row {
    linnet_public_key public_key;
    uint32_t device_class;
    uint64_t serial, enrolled_s, last_seen_s, rounds_accepted;
    bool is_revoked;
    bool has_certificate; /* false: its request waits for the authority's signature */
    uint8_t
        certificate[LINNET_SIGNED_CERTIFICATE_BYTES]; /* or the request, LINNET_SIGNED_CSR_BYTES at most */
    uint8_t request[LINNET_SIGNED_CSR_BYTES];
} linnet_device_row;

typedef struct linnet_release_row {
    linnet_hash hash, adapter, server_state; /* server_state: file of the optimiser's state; zero: none */
    bool is_final;
    const uint8_t *bytes; /* Signed; borrowed from the transaction */
    size_t n_bytes;
} linnet_release_row;

typedef struct linnet_contribution_row {
    linnet_hash echo;
    uint64_t n_bytes, sequence;
    linnet_signature signature; /* of the upload header */
} linnet_contribution_row;

/* A transcript entry, and the head after it: h_i = H("trans", h_(i-1) || entry). */
typedef enum linnet_entry_type {
    LINNET_ENTRY_RELEASE = 1,
    LINNET_ENTRY_ANNOUNCE,
    LINNET_ENTRY_CLOSED,
    LINNET_ENTRY_VOID,
    LINNET_ENTRY_ROSTER,
    LINNET_ENTRY_SHARERS,
    LINNET_ENTRY_SURVIVORS,
    LINNET_ENTRY_REJECTED, /* as CLOSED, with the adapter that stays */
    LINNET_ENTRY_ROLLBACK, /* the adapter of an older version is about to be released again */
    LINNET_ENTRY_LAST = LINNET_ENTRY_ROLLBACK
} linnet_entry_type;
typedef struct linnet_entry_row {
    uint8_t type;     /* linnet_entry_type */
    uint64_t round;   /* version for a release; the older version for a rollback */
    linnet_hash body; /* V, A, the new adapter, T1, T2 or T3 */
    linnet_hash head;
} linnet_entry_row;

void linnet_round_row_pack(const linnet_round_row *row, linnet_buffer *bytes);
linnet_status linnet_round_row_unpack(const void *bytes, size_t n_bytes,
                                      linnet_round_row *ret_row) LINNET_NODISCARD;
void linnet_token_row_pack(const linnet_token_row *row, linnet_buffer *bytes);
linnet_status linnet_token_row_unpack(const void *bytes, size_t n_bytes,
                                      linnet_token_row *ret_row) LINNET_NODISCARD;
void linnet_device_row_pack(const linnet_device_row *row, linnet_buffer *bytes);
linnet_status linnet_device_row_unpack(const void *bytes, size_t n_bytes,
                                       linnet_device_row *ret_row) LINNET_NODISCARD;
void linnet_release_row_pack(const linnet_release_row *row, linnet_buffer *bytes);
linnet_status linnet_release_row_unpack(const void *bytes, size_t n_bytes,
                                        linnet_release_row *ret_row) LINNET_NODISCARD;
void linnet_contribution_row_pack(const linnet_contribution_row *row, linnet_buffer *bytes);
linnet_status linnet_contribution_row_unpack(const void *bytes, size_t n_bytes,
                                             linnet_contribution_row *ret_row) LINNET_NODISCARD;
void linnet_entry_row_pack(const linnet_entry_row *row, linnet_buffer *bytes);
linnet_status linnet_entry_row_unpack(const void *bytes, size_t n_bytes,
                                      linnet_entry_row *ret_row) LINNET_NODISCARD;

/* ---- rows by id: NOT_FOUND without a message, FORMAT for a damaged row ---- */
linnet_status linnet_round_get(linnet_store_txn *txn, uint64_t round, linnet_round_row *ret_row,
                               linnet_error *err) LINNET_NODISCARD;
linnet_status linnet_round_put(linnet_store_txn *txn, const linnet_round_row *row,
                               linnet_error *err) LINNET_NODISCARD;
linnet_status linnet_device_get(linnet_store_txn *txn, const linnet_device_id *id, linnet_device_row *ret_row,
                                linnet_error *err) LINNET_NODISCARD;
linnet_status linnet_device_put(linnet_store_txn *txn, const linnet_device_row *row,
                                linnet_error *err) LINNET_NODISCARD;
linnet_status linnet_release_get(linnet_store_txn *txn, uint64_t version, linnet_release_row *ret_row,
                                 linnet_error *err) LINNET_NODISCARD;
linnet_status linnet_contribution_get(linnet_store_txn *txn, uint64_t round, const linnet_device_id *device,
                                      linnet_contribution_row *ret_row, linnet_error *err) LINNET_NODISCARD;
/** Counters and flags of the configuration; absent ones are 0. */
linnet_status linnet_config_get_u64(linnet_store_txn *txn, const char *name, uint64_t *ret_value,
                                    linnet_error *err) LINNET_NODISCARD;
linnet_status linnet_config_put_u64(linnet_store_txn *txn, const char *name, uint64_t value,
                                    linnet_error *err) LINNET_NODISCARD;
/** A configuration value as a copy in an empty buffer; absent ones are empty. */
linnet_status linnet_config_get(linnet_store_txn *txn, const char *name, linnet_buffer *ret_bytes,
                                linnet_error *err) LINNET_NODISCARD;
linnet_status linnet_config_put(linnet_store_txn *txn, const char *name, const void *bytes, size_t n_bytes,
                                linnet_error *err) LINNET_NODISCARD;
/** Put a packed row, whose buffer it releases. NOMEM where packing ran out of memory. */
linnet_status linnet_row_put(linnet_store_txn *txn, const linnet_record_id *id, linnet_buffer *row,
                             linnet_error *err) LINNET_NODISCARD;
/** In an update: delete every record whose id starts with prefix. */
linnet_status linnet_table_clear(linnet_store_txn *txn, const linnet_record_id *prefix,
                                 linnet_error *err) LINNET_NODISCARD;
/** In an update: delete the shares of a round that is over, M3 and M9. */
linnet_status linnet_shares_clear(linnet_store_txn *txn, uint64_t round, linnet_error *err) LINNET_NODISCARD;
/** Is there a record of this round and device? */
linnet_status linnet_row_exists(linnet_store_txn *txn, char table, uint64_t round,
                                const linnet_device_id *device, bool *ret_exists,
                                linnet_error *err) LINNET_NODISCARD;
linnet_status linnet_transcript_append(linnet_store_txn *txn, linnet_entry_type type, uint64_t round,
                                       const linnet_hash *body, linnet_error *err) LINNET_NODISCARD;

#endif
