/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_DEVICE_INTERNAL_H
#define LINNET_DEVICE_INTERNAL_H

/* What the parts of the agent share. device.c decides what comes next; device_state.c owns the durable
 * records, device_vault.c those that are sealed; device_exchange.c speaks to the coordinator;
 * device_release.c, device_train.c and device_round.c are the three things a device does, and device_secure.c
 * is a round whose sum is masked, device_receipts.c completes a ledger that may be older than its device. */

#include "linnet/channel.h"
#include "linnet/device.h"
#include "linnet/limits.h"
#include "linnet/round_vault.h"

/* Names of the values in the store. */
#define KV_IDENTITY "identity"
#define KV_CHANNEL_KEY "channel_key"
#define KV_REVOCATION "revocation"
#define KV_RELEASE "release" /* Signed */
#define KV_RECORD "record"
#define KV_CHECKPOINT "checkpoint" /* of the training in progress */
#define KV_DELTA "delta"           /* floats of the active factors, in the order of the vectors */
#define KV_UPLOAD "upload"         /* Signed upload header, n_header u32 in front, then the packed vectors */
#define KV_LEDGER "ledger.%08llu"  /* one per contribution that may have left the device */
#define KV_SEEN_ENTRY                                                                                        \
    "seen.%08llu" /* beside each entry of the ledger: what the coordinator signed for it (transcript.h) */
#define KV_SEEN_ROSTER "seen.roster" /* Signed T1 of the round in flight */
#define KV_SEEN_LAST "seen.last"     /* Signed: the last announcement that was joined */
#define KV_PART "part.%05llu"        /* parts of the object that is being fetched */
/* With masked sums; sealed under the round key, as is KV_DELTA then: */
#define KV_ROUND                                                                                             \
    "round" /* weight u32, n_announcement u32, the Signed announcement, the machine's saved form */
#define KV_VECTOR "round.vector" /* X: the encoded vectors, before the masks */
#define KV_MACHINE "machine"     /* hash of the machine's id, from the first sealed value on */

/* ---- who the device is and whom it trusts ---- */
typedef struct identity_record {
    uint8_t seed[LINNET_SEED_BYTES];
    linnet_public_key coordinator, authority; /* pinned */
    uint8_t task[16];
    uint32_t device_class;
    linnet_enrol_token token; /* wiped once enrolled */
    uint64_t enrolled_s;
    bool operator_is_authority, is_enrolled;
    char url[256];
    uint8_t certificate[LINNET_SIGNED_CERTIFICATE_BYTES];
} identity_record;

typedef enum delta_state {
    DELTA_NONE,
    DELTA_TRAINING, /* train_seed is fixed; a checkpoint may be there */
    DELTA_READY,    /* fresh: it may enter one upload */
    DELTA_SPENT,    /* committed to an upload; it never enters another, but for a masked round whose
                       certificate leaves this device out */
} delta_state;

/* ---- everything else that must survive a restart and is small ---- */
typedef struct device_record {
    bool has_release;
    uint64_t version; /* newest release seen */
    linnet_hash release;
    delta_state delta;
    uint64_t attempt, train_seed; /* trainings begun for this version; seed of the one in progress */
    uint64_t counted_tokens;      /* of the training set: the weight follows */
    uint64_t last_round;
    linnet_hash chain;      /* A of the upload in progress */
    uint64_t upload_offset; /* so much of it was there at the last answer */
    uint64_t n_ledger, n_contributions, bytes_up, bytes_down;
    uint64_t revocation_number, channel_number;
    bool is_evaluated; /* the release was, or needs not be, measured on the held-out records */
    bool has_release_loss;
    double release_loss;
    bool is_contributed; /* a delta of this version was accepted */
    int64_t contributed_ms;
    bool is_revoked;
    linnet_hash installed, previous; /* zero: none */
    uint64_t installed_version, previous_version;
    bool has_held_out_loss;
    double held_out_loss; /* of the installed adapter */
    uint64_t held_out_tokens;
    uint64_t n_parts; /* of the object being fetched */
    linnet_hash part_object;
    uint64_t
        generation;   /* of the store, counted from the first sealed value on; 0: nothing was ever sealed */
    bool has_round;   /* KV_ROUND: a masked round is in flight */
    bool is_uploaded; /* and its upload has a receipt */
    uint8_t round_phase;    /* linnet_secagg_phase at the last commit */
    uint8_t profile;        /* linnet_profile of the newest plan; 0: none yet */
    char note[200];         /* as it was at the last commit, for who asks the store alone */
    bool receipts_due;      /* the ledger may lack entries: ask before a round that spends privacy ... */
    uint64_t receipts_next; /* ... from this round on */
} device_record;

/* A masked round in flight, as far as it is in memory. */
typedef struct secure_round {
    linnet_secagg_device *machine; /* NULL: none */
    linnet_announcement announcement;
    linnet_hash chain;       /* A */
    linnet_buffer announced; /* Signed */
    linnet_buffer seen[3];   /* T1, T2, T3, Signed, as far as they were seen since the start */
    uint32_t weight;
    double noise_multiplier; /* z, as the plan says it; 0 without noise */
    linnet_buffer vector;    /* X, until the masks are on */
    size_t n_complained;
    bool is_sent;           /* what this phase has to say was answered */
    bool is_upload_refused; /* too late: only a certificate can free the delta */
    bool must_drop;         /* a commit found no space: the round goes before anything else happens */
    int64_t phase_began_ms;
    bool has_farewell; /* a signed abort, sent once */
    struct {
        linnet_hash chain; /* A */
        uint8_t message[LINNET_ABORT_BYTES];
    } farewell;
} secure_round;

struct linnet_device {
    linnet_device_config config;
    identity_record identity_record;
    linnet_identity *identity;
    device_record record;
    uint8_t channel_key[LINNET_SIGNED_CHANNEL_KEY_BYTES];
    bool has_channel_key, needs_hello;
    uint64_t channel_not_after;
    int64_t hello_again_ms; /* an expired key asks for HELLO, but not in every poll: the clock may be wrong */
    linnet_rng rng;         /* jitter only */

    linnet_release release; /* the newest one, parsed; valid with record.has_release */
    linnet_plan plan;
    bool has_plan;             /* of this release, checked */
    bool has_adapter;          /* of this release, in the cache and checked */
    bool release_is_bad;       /* a check failed: wait for another one */
    bool fetch_failed;         /* an object is not to be had: check in first, there may be a newer release */
    linnet_layout *layout;     /* made when needed; NULL while the device sleeps */
    linnet_adapter *installed; /* loaded when asked for */

    linnet_buffer part_bytes; /* of the object being fetched */
    bool parts_loaded;

    linnet_arena *arena; /* of the training in progress, borrowed */
    linnet_trainer *trainer;
    linnet_token_set *set;
    linnet_adapter *trained;
    linnet_train_step last_step;
    bool has_step, cannot_train, must_check_in;

    linnet_round_vault *vault, *own_vault; /* the config's or, without one, its own */
    secure_round round;
    uint64_t n_recovered;  /* contributions that receipts have told of since the start */
    bool receipts_failed;  /* no usable list came: check in before asking again */
    bool is_state_unknown; /* a commit may or may not be on the disk: only a new start can tell */

    linnet_buffer upload; /* value of KV_UPLOAD while an upload is under way */
    size_t n_upload_header;
    uint64_t upload_offset;
    bool has_upload_offset;

    int64_t now_ms, wake_ms;
    uint32_t n_failures;
    char note[200];
};

/* ---- device_state.c ---- */
linnet_status device_identity_load(linnet_kv *kv, identity_record *ret_identity,
                                   linnet_error *err) LINNET_NODISCARD;
linnet_status device_identity_pack(const identity_record *identity, linnet_buffer *bytes,
                                   linnet_error *err) LINNET_NODISCARD;
linnet_status device_record_load(linnet_kv *kv, device_record *ret_record,
                                 linnet_error *err) LINNET_NODISCARD;
/** Commit the record as device->record is replaced by `next`, together with other items, in one durable
 * commit. */
linnet_status device_commit(linnet_device *device, const device_record *next, const linnet_kv_item *items,
                            size_t n_items, linnet_error *err) LINNET_NODISCARD;
/** After a commit of which nobody knows whether it happened, nothing is done any more: IO. */
linnet_status device_must_end(const linnet_device *device, linnet_error *err) LINNET_NODISCARD;
/** The generation that the next commit will have, for values that are sealed for it. */
uint64_t device_next_generation(const linnet_device *device);
linnet_status device_ledger_pack(const linnet_ledger_entry *entry, linnet_buffer *bytes,
                                 linnet_error *err) LINNET_NODISCARD;

/* ---- device_vault.c ---- */
/** At the start: refuse a state of another machine; drop what is sealed where its key is gone or the store is
 * older than the key has seen (SECURE-AGGREGATION 7). */
linnet_status device_vault_attach(linnet_device *device, linnet_error *err) LINNET_NODISCARD;
/** What a commit that seals for the first time must hold too: *ret_item is the machine, next counts. */
void device_vault_arm(const linnet_device *device, device_record *next, linnet_kv_item *ret_item);
/** A value for the next commit. */
linnet_status device_seal(const linnet_device *device, const char *name, const linnet_buffer *plain,
                          linnet_buffer *ret_sealed, linnet_error *err) LINNET_NODISCARD;
/** The value as it was sealed; release it with device_wipe. NOT_FOUND, or CRYPTO where it does not open. */
linnet_status device_unseal(const linnet_device *device, const char *name, linnet_buffer *ret_plain,
                            linnet_error *err) LINNET_NODISCARD;
/** Release a buffer of secrets. */
void device_wipe(linnet_buffer *buffer);

/* ---- device_exchange.c ---- */
void device_note(linnet_device *device, const char *format, ...) LINNET_PRINTF(2, 3);
/** wake_ms = now + delay_ms + up to a quarter of it, and forget past failures. */
void device_wait(linnet_device *device, uint64_t delay_ms);
/** wake_ms by exponential back-off with full jitter, not before retry_after_ms; in a masked round no longer
 * than some of a phase. */
void device_back_off(linnet_device *device, uint64_t retry_after_ms);
linnet_status device_exchange_hello(linnet_device *device, linnet_error *err) LINNET_NODISCARD;
/** Seal, carry, open. *ret_is_answered false: no usable answer came, and the next poll is scheduled already.
 * storage is what the answer borrows from; raw, where it is not NULL, gets the answer's raw part. */
linnet_status device_exchange_sealed(linnet_device *device, const char *path, const linnet_frame *frame,
                                     linnet_buffer *storage, linnet_buffer *raw, linnet_answer *ret_answer,
                                     bool *ret_is_answered, linnet_error *err) LINNET_NODISCARD;
/** What one request needs; enrolment has it before there is a device. */
typedef struct request_route {
    const linnet_identity *identity;
    const uint8_t *channel_key;
    linnet_http_fn *http;
    void *http_context;
    const char *path;
    linnet_buffer *raw; /* gets the raw part of the answer; NULL: not wanted */
    uint32_t stall_s;   /* as in linnet_http_request */
} request_route;
typedef struct request_result {
    linnet_answer answer; /* borrows from storage */
    int http_status;      /* 0: no answer came */
    uint32_t retry_after_s;
    size_t n_sent, n_received;
} request_result;
/** AGAIN where no usable answer came (network, HTTP status, not sealed for us); other errors are local. */
linnet_status device_request(const request_route *route, const linnet_frame *frame, linnet_buffer *storage,
                             request_result *ret_result, linnet_error *err) LINNET_NODISCARD;
/** GET HELLO, unpack, check against the pins (task only where has_task), open its channel key and list. AGAIN
 * as above. */
typedef struct hello_result {
    linnet_hello hello; /* borrows from storage */
    linnet_channel_key key;
    linnet_revocation revocation; /* zero where there is none */
    int http_status;
    uint32_t retry_after_s;
    size_t n_received;
} hello_result;
linnet_status device_hello(linnet_http_fn *http, void *http_context, uint32_t stall_s,
                           const identity_record *pins, bool has_task, linnet_buffer *storage,
                           hello_result *ret_result, linnet_error *err) LINNET_NODISCARD;
/** Keep a newer channel key and a newer revocation list; the device may find itself revoked. */
linnet_status device_take_lists(linnet_device *device, const uint8_t *channel_key, size_t n_channel_key,
                                const uint8_t *revocation, size_t n_revocation,
                                linnet_error *err) LINNET_NODISCARD;

/* ---- download.c ---- */
/** One GET for the next part of an object; puts the whole into the cache when its hash agrees. */
linnet_status device_download(linnet_device *device, const linnet_hash *hash, linnet_label label,
                              size_t n_max, linnet_error *err) LINNET_NODISCARD;

/* ---- device_release.c ---- */
/** A Signed release from an answer: verify, compare with what is known, commit if new. A release that must
 * not be accepted is noted, not an error. */
linnet_status device_take_release(linnet_device *device, const uint8_t *bytes, size_t n_bytes,
                                  linnet_error *err) LINNET_NODISCARD;
/** Load what the cache holds of the current release and check it. */
linnet_status device_load_objects(linnet_device *device, linnet_error *err) LINNET_NODISCARD;
/** Fetch the next part of what is missing. */
linnet_status device_fetch(linnet_device *device, linnet_error *err) LINNET_NODISCARD;
linnet_status device_layout(linnet_device *device, const linnet_layout **ret_layout,
                            linnet_error *err) LINNET_NODISCARD;
/** An adapter object from the cache, verified; NOT_FOUND where it is not there. Owned. */
linnet_status device_adapter_load(linnet_device *device, const linnet_hash *hash,
                                  linnet_adapter **ret_adapter, linnet_error *err) LINNET_NODISCARD;
bool device_release_is_ready(const linnet_device *device);

/* ---- device_train.c ---- */
void device_training_release(linnet_device *device);

/* ---- device_encode.c ---- */
typedef struct encode_job {
    const linnet_announcement *announcement;
    const linnet_hash *chain;      /* A */
    const linnet_privacy *privacy; /* of the round, as the plan says it */
    uint32_t weight;
} encode_job;
/** The fresh delta as all vectors of the announcement, one behind another, appended to packed. RANGE, FORMAT
 * or NOT_FOUND: this delta is of no use. */
linnet_status device_encode(const linnet_device *device, const encode_job *job, linnet_buffer *packed,
                            linnet_error *err) LINNET_NODISCARD;

/* ---- device_round.c ---- */
/** A Signed announcement for the fresh delta: check, encode, commit. What must not be joined is noted. */
linnet_status device_join(linnet_device *device, const uint8_t *bytes, size_t n_bytes,
                          linnet_error *err) LINNET_NODISCARD;
/** Is this a valid announcement of a later round for the release that was already contributed to? */
bool device_announces_again(const linnet_device *device, const uint8_t *bytes, size_t n_bytes);
linnet_status device_upload(linnet_device *device, linnet_error *err) LINNET_NODISCARD;
/** Verify, unpack, and compute A. */
linnet_status device_open_announcement(const linnet_device *device, const uint8_t *bytes, size_t n_bytes,
                                       linnet_announcement *ret_announcement, linnet_hash *ret_chain,
                                       linnet_error *err) LINNET_NODISCARD;
/** The Signed upload header over packed vectors, and their hash Hy. */
linnet_status device_sign_header(const linnet_device *device, const linnet_hash *chain,
                                 const linnet_announcement *announcement, const linnet_buffer *packed,
                                 linnet_hash *ret_echo, linnet_buffer *ret_signed,
                                 linnet_error *err) LINNET_NODISCARD;
void device_ledger_name(uint64_t index, char ret_name[40]);
/** What a contribution to this announcement spends; mechanism NONE: nothing. */
linnet_privacy_entry device_privacy_entry(const linnet_device *device,
                                          const linnet_announcement *announcement, const linnet_hash *chain,
                                          double noise_multiplier);
/** Count it, before the commit that lets it leave: a crash in between counts too much. */
linnet_status device_spend(linnet_device *device, const linnet_privacy_entry *entry,
                           linnet_error *err) LINNET_NODISCARD;
/** Keep an upload in memory whose commit is done; the buffer moves. */
void device_hold_upload(linnet_device *device, linnet_buffer *upload, size_t n_header);
void device_release_upload(linnet_device *device);

/* ---- device_seen.c ---- */
void device_seen_name(uint64_t index, char ret_name[40]);
/** A message of the round that the machine took: keep what it signs. */
void device_seen_take(linnet_device *device, uint32_t phase, const linnet_buffer *message);
void device_seen_forget(secure_round *round);
/** The value beside a new entry of the ledger. */
linnet_status device_seen_pack(linnet_device *device, const linnet_ledger_entry *entry, const void *announced,
                               size_t n_announced, linnet_buffer *ret_record,
                               linnet_error *err) LINNET_NODISCARD;
/** The same value again with T3 in it; empty where there is none to change. */
linnet_status device_seen_survivors(linnet_device *device, char ret_name[40], linnet_buffer *ret_record,
                                    linnet_error *err) LINNET_NODISCARD;

/* ---- device_receipts.c ---- */
/** Is the ledger to be completed before this task's rounds may be joined? */
bool device_owes_receipts(const linnet_device *device);
/** One exchange: ask for receipts, check them, add what the ledgers lack. */
linnet_status device_ask_receipts(linnet_device *device, linnet_error *err) LINNET_NODISCARD;

/* ---- device_secure.c ---- */
/** Go on with the round that the store holds, or drop it where its record is of no use. */
linnet_status device_secure_load(linnet_device *device, linnet_error *err) LINNET_NODISCARD;
void device_secure_release(linnet_device *device);
bool device_is_in_round(const linnet_device *device);
/** A checked announcement and the encoded vectors, which move: commit the round number, make M1. */
linnet_status device_secure_join(linnet_device *device, const linnet_announcement *announcement,
                                 const linnet_hash *chain, const uint8_t *bytes, size_t n_bytes,
                                 double noise_multiplier, uint32_t weight, linnet_buffer *vector,
                                 linnet_error *err) LINNET_NODISCARD;
/** The next exchange of a round, or the farewell of one that was aborted (then has_farewell is set). */
linnet_status device_secure_poll(linnet_device *device, linnet_error *err) LINNET_NODISCARD;
/** The longest wait of those who are in a round, whose phases go on: after an upload, whose answer names the
 * pace of who has nothing to do, and after failures. */
uint64_t device_secure_delay(const linnet_device *device, uint64_t retry_after_ms);
/** How long an exchange of who is in a round may stand still, as in linnet_http_request: a part of its phase,
 * so that one dead connection does not cost the round. 0: in none. */
uint32_t device_secure_stall_s(const linnet_device *device);
/** The stored upload is damaged or gone: the round is lost. */
linnet_status device_secure_lose(linnet_device *device, linnet_error *err) LINNET_NODISCARD;
/** Name of the phase, or NULL where no round is in flight; round NULL: from the record alone. */
const char *device_secure_phase(const device_record *record, const secure_round *round);

#endif
