/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_TRANSCRIPT_H
#define LINNET_TRANSCRIPT_H

/* What the parties of a task hand to an auditor, and what the auditor makes of it (SECURE-AGGREGATION 7,
 * "Transcript"): the coordinator's log, a device's receipts, and evidence, which is two bodies that the
 * coordinator signed for one slot. Files of one format each, integers little-endian, lengths in front of what
 * varies, nothing behind the end. All of it is read as hostile bytes. */

#include "linnet/messages.h"

/** What is checked shows: no release, announcement, roster, set of sharers or set of survivors was replaced;
 * every member was certified and not revoked; enough of them signed one set of survivors; epsilon adds up. It
 * does not show that an adapter is the sum of its round's contributions. */

typedef struct linnet_span {
    const uint8_t *bytes; /* borrowed */
    size_t n_bytes;
} linnet_span;

/* ---- the log ---- */

/** What an entry of the transcript is about. Values are in hashes. */
typedef enum linnet_log_type {
    LINNET_LOG_RELEASE = 1,
    LINNET_LOG_ANNOUNCE = 2,
    LINNET_LOG_CLOSED = 3,
    LINNET_LOG_VOID = 4,
    LINNET_LOG_ROSTER = 5,
    LINNET_LOG_SHARERS = 6,
    LINNET_LOG_SURVIVORS = 7,
    LINNET_LOG_REJECTED = 8, /* as CLOSED, with the adapter that stays: the gate kept the new one back */
    LINNET_LOG_ROLLBACK =
        9, /* the adapter of an older version is released again; the number is its version */
} linnet_log_type;
const char *linnet_log_type_name(uint8_t type);

typedef struct linnet_log_entry {
    uint8_t type;           /* linnet_log_type */
    uint64_t number;        /* version of a release, else the round */
    linnet_hash body, head; /* V, A, T1, T2, T3 or the adapter's hash; h_i = H("trans", h_(i-1) || entry) */
    linnet_span object;     /* Signed release or announcement; M2; signature of T2 and bitmap; M6; of a closed
                               round with masks M8. Empty where there is none */
} linnet_log_entry;

typedef struct linnet_log {
    uint8_t task[16];
    linnet_public_key coordinator, authority;
    linnet_span plan;   /* canonical text */
    linnet_span layout; /* canonical bytes, linnet_layout_write */
    uint64_t dp_rounds; /* rounds that the coordinator counts, and what it says they spent; 0 without DP */
    double dp_epsilon;
    linnet_span *lists; /* signed revocation lists by increasing number; owned array */
    size_t n_lists;
    linnet_log_entry *entries; /* owned array */
    size_t n_entries;
} linnet_log;

/** magic "LNLOG\r\n\x1a", version u32 = 1, task, coordinator, authority, plan, layout, dp_rounds u64,
 * dp_epsilon f64, number of lists u32, lists, number of entries u32, entries {type u8, number u64, body,
 * head, object}. Appended to ret_bytes. */
linnet_status linnet_log_write(const linnet_log *log, linnet_buffer *ret_bytes,
                               linnet_error *err) LINNET_NODISCARD;
/** Take apart; nothing is verified. The log borrows from bytes. FORMAT, UNSUPPORTED, NOMEM. */
linnet_status linnet_log_parse(const void *bytes, size_t n_bytes, linnet_log *ret_log,
                               linnet_error *err) LINNET_NODISCARD;
void linnet_log_release(linnet_log *log);
/** h_i of an entry; before: NULL for the first. */
linnet_hash linnet_log_head(const linnet_hash *before, const linnet_log_entry *entry);

/* ---- a device's receipts ---- */

/** One contribution as its device saw it. Spans may be empty where it saw nothing. */
typedef struct linnet_contribution_record {
    uint64_t round;
    linnet_hash echo;         /* Hy */
    linnet_span release;      /* Signed */
    linnet_span announcement; /* Signed */
    linnet_span t1, t2, t3;   /* Signed, the bodies of secagg_audit.h */
    linnet_span receipt;      /* LINNET_SIGNED_RECEIPT_BYTES, or empty: none came */
} linnet_contribution_record;
/** The record alone, as a device may keep it: round u64, echo, six spans. Appended to ret_bytes. */
linnet_status linnet_contribution_record_write(const linnet_contribution_record *record,
                                               linnet_buffer *ret_bytes, linnet_error *err) LINNET_NODISCARD;
linnet_status linnet_contribution_record_parse(const void *bytes, size_t n_bytes,
                                               linnet_contribution_record *ret_record,
                                               linnet_error *err) LINNET_NODISCARD;

typedef struct linnet_receipts {
    linnet_device_id device_id;
    linnet_public_key coordinator;
    uint8_t task[16];
    linnet_span announcement; /* the last one that it saw, Signed: it carries the checkpoint; may be empty */
    linnet_contribution_record *records; /* owned array */
    size_t n_records;
} linnet_receipts;
/** magic "LNRCPT\r\n", version u32 = 1, device id, coordinator, task, announcement, number of records u32,
 * records. */
linnet_status linnet_receipts_write(const linnet_receipts *receipts, linnet_buffer *ret_bytes,
                                    linnet_error *err) LINNET_NODISCARD;
linnet_status linnet_receipts_parse(const void *bytes, size_t n_bytes, linnet_receipts *ret_receipts,
                                    linnet_error *err) LINNET_NODISCARD;
void linnet_receipts_release(linnet_receipts *receipts);

/* ---- verification ---- */

typedef struct linnet_finding {
    enum { LINNET_FINDING_LOG, LINNET_FINDING_RECEIPTS, LINNET_FINDING_OTHER } where;
    size_t index;     /* entry or record; SIZE_MAX: the file as a whole */
    const char *flaw; /* static */
} linnet_finding;

typedef struct linnet_log_report {
    linnet_finding *findings; /* owned */
    size_t n_findings;
    uint64_t n_releases, n_rounds, n_closed, n_void;
    uint64_t n_included; /* accepted contributions of the receipts that were found in R */
    uint64_t n_unlisted; /* accepted ones of rounds without R: profiles without masks name no contributions */
    uint64_t dp_rounds;  /* counted anew */
    double dp_epsilon;   /* at the plan's dp_delta; 0 without differential privacy */
    uint64_t n_equivocations;
    linnet_buffer evidence; /* of the first equivocation; owned; empty: none */
} linnet_log_report;

/** Check a log alone, and against receipts (NULL: none) and another party's log of the task (NULL: none). The
 * report is filled, with findings or without. NOMEM, and nothing else. */
linnet_status linnet_log_verify(const linnet_log *log, const linnet_receipts *receipts,
                                const linnet_log *other, linnet_log_report *ret_report,
                                linnet_error *err) LINNET_NODISCARD;
void linnet_log_report_release(linnet_log_report *report);

/* ---- evidence ---- */

typedef enum linnet_slot_kind {                            /* values are in files */
                                LINNET_SLOT_RELEASE = 1,   /* V of one task and version */
                                LINNET_SLOT_ANNOUNCE = 2,  /* A of one task and round, without masks also of
                                                              one revocation list */
                                LINNET_SLOT_ROSTER = 3,    /* T1 of one A */
                                LINNET_SLOT_SHARERS = 4,   /* T2 of one T1 */
                                LINNET_SLOT_SURVIVORS = 5, /* T3 of one T2 */
} linnet_slot_kind;

typedef struct linnet_evidence {
    linnet_public_key coordinator;
    uint8_t kind;             /* linnet_slot_kind */
    linnet_span first, other; /* Signed */
} linnet_evidence;
/** magic "LNEVID\r\n", version u32 = 1, coordinator, kind u8, two spans. */
linnet_status linnet_evidence_write(const linnet_evidence *evidence, linnet_buffer *ret_bytes,
                                    linnet_error *err) LINNET_NODISCARD;
/** Does this file prove that the owner of this key signed two bodies for one slot? FORMAT: malformed; CRYPTO:
 * a signature is not of the key; MISMATCH: the two are one, or of two slots. */
linnet_status linnet_evidence_check(const void *bytes, size_t n_bytes, linnet_evidence *ret_evidence,
                                    linnet_error *err) LINNET_NODISCARD;
const char *linnet_slot_name(uint8_t kind);

#endif
