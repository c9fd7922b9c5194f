/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_STATE_H
#define LINNET_STATE_H

/* The coordinator's inside, shared by its modules. What is decided is in the store and read there each time,
 * so that a second process (invite, revoke, pause) is noticed at once; memory holds what never changes, the
 * channel keys, and counters that are only statistics. */

#include <pthread.h>

#include "linnet/channel.h"
#include "linnet/coordinator.h"
#include "linnet/secagg.h"
#include "rows.h"

#define LINNET_SPOOL_LOCKS                                                                                   \
    64 /* uploads of one device take turns; devices share these by the first byte of their id */
#define LINNET_REVOCATION_BYTES_MAX (LINNET_HELLO_BYTES_MAX / 2) /* fits HELLO and answers: 8000 devices */
#define LINNET_COHORTS_MAX 64 /* of one step; the plan's key has the same bound */
#define LINNET_CHANNEL_KEYS 4 /* alive at once: two in normal rotation, more after a clock jump */

typedef struct linnet_channel_slot {
    uint8_t record[LINNET_SIGNED_CHANNEL_KEY_BYTES], secret[32];
    uint64_t number, not_before, not_after;
} linnet_channel_slot;

/* The protocol machine of an open round: a cache of its rows. */
typedef struct linnet_secure_slot {
    uint64_t round;               /* 0: free */
    linnet_secagg_server *server; /* owned */
    bool is_opening;              /* the tick takes masks off with it, without the lock: it stays */
    uint32_t n_failed;            /* unmaskings at the last failed opening; 0: there was none */
} linnet_secure_slot;

/** Bytes of bodies that devices sent and got. */
typedef struct linnet_traffic {
    uint64_t up, down;
} linnet_traffic;

struct linnet_coordinator {
    char *directory; /* owned */
    linnet_store *store;
    linnet_plan plan;
    linnet_layout *layout;
    linnet_identity *identity, *authority; /* authority NULL: its key is elsewhere */
    linnet_public_key authority_key;
    uint8_t task[16];
    linnet_hash base_model, plan_hash;
    char architecture[64];
    bool serves, is_durable;
    int lock_fd; /* -1: not serving */
    int64_t opened_ms;

    pthread_mutex_t lock;                             /* guards everything below */
    linnet_channel_slot channel[LINNET_CHANNEL_KEYS]; /* by number, newest last */
    size_t n_channel;
    linnet_traffic traffic; /* not yet added to a round's row */
    int64_t flushed_ms;
    linnet_error failure; /* not OK: what is on disk is unknown, nothing more is answered */
    linnet_coordinator_log_fn *log;
    void *log_context;
    linnet_coordinator_gate_fn *gate;
    void *gate_context;
    bool has_gate_loss; /* what the gate said last of a release: */
    linnet_hash gate_adapter;
    double gate_loss;

    pthread_mutex_t spool_locks[LINNET_SPOOL_LOCKS];

    char *witness_path;           /* owned */
    int witness_fd;               /* -1: not serving */
    pthread_mutex_t witness_lock; /* guards the two below and the file's end */
    uint64_t witness_bytes, witness_entries;

    pthread_mutex_t secure_lock; /* guards secure; held over the commits that go with a change of it */
    linnet_secure_slot secure[LINNET_COHORTS_MAX];
    bool has_seed; /* simulations: cohorts and central noise are drawn from it */
    uint64_t seed;
};

/* ---- coordinator.c ---- */
/** One line to the log, without secrets. */
void linnet_coordinator_say(linnet_coordinator *coordinator, int priority, const char *format, ...)
    LINNET_PRINTF(3, 4);
/** Remember a status after which the disk's state is unknown (IO, FORMAT of a row): the process must end. */
linnet_status linnet_coordinator_note(linnet_coordinator *coordinator, linnet_status status,
                                      const linnet_error *err);
/** "directory/name", or with n a further number or hex name; false on lack of room. */
bool linnet_coordinator_path(const linnet_coordinator *coordinator, char path[4096], const char *format, ...)
    LINNET_PRINTF(3, 4);

/* ---- authority.c ---- */
/** Make or load the authority's key in `directory`/authority.key. NOT_FOUND where there is none. */
linnet_status linnet_authority_create(const char *directory, linnet_identity **ret_authority,
                                      linnet_error *err) LINNET_NODISCARD;
linnet_status linnet_authority_load(const char *directory, linnet_identity **ret_authority,
                                    linnet_error *err) LINNET_NODISCARD;
linnet_status linnet_seed_write(const char *path, const linnet_identity *identity,
                                linnet_error *err) LINNET_NODISCARD;
linnet_status linnet_seed_read(const char *path, linnet_identity **ret_identity,
                               linnet_error *err) LINNET_NODISCARD;
/** The certificate for a request whose signature was checked. */
void linnet_authority_certify(const linnet_identity *authority, const linnet_csr *csr, uint64_t serial,
                              uint64_t now_s, uint8_t ret_bytes[LINNET_SIGNED_CERTIFICATE_BYTES]);

/* ---- channel_keys.c ---- */
linnet_status linnet_channel_keys_load(linnet_coordinator *coordinator, linnet_error *err) LINNET_NODISCARD;
/** Make a new key where the newest is past half its life, erase the secrets of those that are over.
 *  ret_next_s: when to call again. */
linnet_status linnet_channel_keys_rotate(linnet_coordinator *coordinator, uint64_t now_s,
                                         uint64_t *ret_next_s, linnet_error *err) LINNET_NODISCARD;
/** A copy of the valid key with this number (wipe it); NOT_FOUND: unknown or expired. */
linnet_status linnet_channel_keys_find(linnet_coordinator *coordinator, uint64_t number, uint64_t now_s,
                                       linnet_channel_slot *ret_slot) LINNET_NODISCARD;
/** The record of the newest key; false where there is none. */
bool linnet_channel_keys_newest(linnet_coordinator *coordinator,
                                uint8_t ret_record[LINNET_SIGNED_CHANNEL_KEY_BYTES]);

/* ---- an answer in the making, with what it borrows ---- */
typedef struct linnet_reply {
    linnet_answer answer;
    bool is_bad_request; /* the message inside is malformed: HTTP 400 instead of an answer */
    linnet_buffer release, announcement, revocation;
    linnet_buffer raw; /* the message of the round that is due to the device */
    uint8_t certificate[LINNET_SIGNED_CERTIFICATE_BYTES], receipt[LINNET_SIGNED_RECEIPT_BYTES],
        channel_key[LINNET_SIGNED_CHANNEL_KEY_BYTES];
} linnet_reply;
void linnet_reply_set(linnet_reply *reply, linnet_answer_code code, const char *format, ...)
    LINNET_PRINTF(3, 4);
void linnet_reply_release(linnet_reply *reply);
/** How long a device should stay away: plan.poll_s on average, spread over half to one and a half of it. */
uint32_t linnet_pace_ms(const linnet_coordinator *coordinator, uint64_t serial, int64_t now_ms);

/** The same within a round of messages, where nobody may sleep through a phase. */
uint32_t linnet_round_pace_ms(const linnet_coordinator *coordinator, uint64_t serial, int64_t now_ms);

/* ---- registry.c ---- */
/** Answer an enrolment request whose channel signature was checked with csr's own key. */
linnet_status linnet_registry_enroll(linnet_coordinator *coordinator, int64_t now_ms,
                                     const uint8_t *signed_csr, const linnet_csr *csr, linnet_reply *reply,
                                     linnet_error *err) LINNET_NODISCARD;
linnet_status linnet_registry_find(linnet_coordinator *coordinator, const linnet_device_id *id,
                                   linnet_device_row *ret_row, linnet_error *err) LINNET_NODISCARD;

/** The signed list after `list` (may be empty) with one more device; the same list where it stands there
 * already. */
linnet_status linnet_revocation_extend(const linnet_buffer *list, const linnet_device_id *device,
                                       const linnet_identity *authority, linnet_buffer *ret_list,
                                       linnet_error *err) LINNET_NODISCARD;

/* ---- rounds.c ---- */
/** In an update: open the next round on release `version` and announce it; with secure aggregation one for
 * every cohort. */
linnet_status linnet_rounds_open(linnet_coordinator *coordinator, linnet_store_txn *txn, uint64_t version,
                                 const linnet_hash *release, int64_t now_ms,
                                 linnet_error *err) LINNET_NODISCARD;
/** In an update that changed the revocation list: announce the open round again, with the new list. Devices
 * refuse an announcement that is older than the list they know; those that have joined under the old one may
 * finish. */
linnet_status linnet_rounds_announce_again(linnet_coordinator *coordinator, linnet_store_txn *txn,
                                           linnet_error *err) LINNET_NODISCARD;
linnet_status linnet_rounds_checkin(linnet_coordinator *coordinator, int64_t now_ms,
                                    const linnet_device_row *device, const linnet_checkin *checkin,
                                    linnet_reply *reply, linnet_error *err) LINNET_NODISCARD;
/** In an update: open and announce one more round. */
linnet_status linnet_rounds_open_one(linnet_coordinator *coordinator, linnet_store_txn *txn, uint64_t version,
                                     const linnet_hash *release, int64_t now_ms, uint64_t *ret_round,
                                     linnet_error *err) LINNET_NODISCARD;
/** In an update: a revoked device leaves the open round; without a contribution its place is another's. */
linnet_status linnet_rounds_leave(linnet_coordinator *coordinator, linnet_store_txn *txn,
                                  const linnet_device_id *device, linnet_error *err) LINNET_NODISCARD;
/** The newest round; NOT_FOUND before the first. */
linnet_status linnet_rounds_newest(linnet_store_txn *txn, linnet_round_row *ret_row,
                                   linnet_error *err) LINNET_NODISCARD;
/** In an update, where a step leads nowhere or another release takes the present one's place: every round on
 * it that is not over is VOID, and none opens. */
linnet_status linnet_rounds_end_all(linnet_coordinator *coordinator, linnet_store_txn *txn, int64_t now_ms,
                                    linnet_error *err) LINNET_NODISCARD;
/** In an update: the round ends unpublished, in the ledger and in the log. None opens. */
linnet_status linnet_rounds_void_one(linnet_coordinator *coordinator, linnet_store_txn *txn,
                                     linnet_round_row *row, int64_t now_ms,
                                     linnet_error *err) LINNET_NODISCARD;
/** In an update, for a round that ends unpublished: VOID, and the next one opens on the same release; with
 * several cohorts once the others are settled, and if it is needed. */
linnet_status linnet_rounds_void(linnet_coordinator *coordinator, linnet_store_txn *txn,
                                 linnet_round_row *row, int64_t now_ms, linnet_error *err) LINNET_NODISCARD;

/* ---- step.c: the rounds of one step with secure aggregation, one a cohort ---- */
typedef struct linnet_step {
    size_t n;
    uint64_t rounds[LINNET_COHORTS_MAX], previous[LINNET_COHORTS_MAX]; /* the void one it stands for, or 0 */
} linnet_step;
/** n = 0 before the first. */
linnet_status linnet_step_read(linnet_store_txn *txn, linnet_step *ret_step,
                               linnet_error *err) LINNET_NODISCARD;
linnet_status linnet_step_open(linnet_coordinator *coordinator, linnet_store_txn *txn, uint64_t version,
                               const linnet_hash *release, int64_t now_ms,
                               linnet_error *err) LINNET_NODISCARD;
/** In an update: where every cohort is opened or void and not more than half are opened, new rounds open for
 * the void ones. */
linnet_status linnet_step_settle(linnet_coordinator *coordinator, linnet_store_txn *txn, int64_t now_ms,
                                 linnet_error *err) LINNET_NODISCARD;
/** In an update: void the rounds that still take members and open others, under what is known now. */
linnet_status linnet_step_open_again(linnet_coordinator *coordinator, linnet_store_txn *txn,
                                     linnet_error *err) LINNET_NODISCARD;
/** The opened rounds of a step that can be published; 0 of them where it cannot yet. */
linnet_status linnet_step_opened(linnet_store_txn *txn, linnet_round_row ret_rows[LINNET_COHORTS_MAX],
                                 size_t *ret_n, linnet_error *err) LINNET_NODISCARD;
/** The round a ready device is invited to, by these coins (any number): number 0 where there is none.
 * must_write: it is new, and written down only in an update (may_write). */
typedef struct linnet_invitation {
    linnet_round_row round;
    bool must_write;
} linnet_invitation;
linnet_status linnet_step_invite(linnet_coordinator *coordinator, linnet_store_txn *txn,
                                 const linnet_device_id *device, uint64_t coins, int64_t now_ms,
                                 bool may_write, linnet_invitation *ret_invitation,
                                 linnet_error *err) LINNET_NODISCARD;

/* ---- secure_rounds.c: phases of a round with secure aggregation. All but begin, tick and end under
 * secure_lock. ---- */
/** On start, in the serving process: frozen rounds get time again, what is left of others goes. */
linnet_status linnet_secure_begin(linnet_coordinator *coordinator, int64_t now_ms,
                                  linnet_error *err) LINNET_NODISCARD;
void linnet_secure_end(linnet_coordinator *coordinator);
/** Deadlines, opening of sums, publication; *next_ms moves forward to the earliest deadline. */
linnet_status linnet_secure_tick(linnet_coordinator *coordinator, int64_t now_ms, int64_t *next_ms,
                                 linnet_error *err) LINNET_NODISCARD;
/** The machine of a round before OPENED, rebuilt from its rows where it is not in memory. */
linnet_status linnet_secure_server(linnet_coordinator *coordinator, linnet_store_txn *txn,
                                   const linnet_round_row *row, linnet_secagg_server **ret_server,
                                   linnet_error *err) LINNET_NODISCARD;
/** The machine no longer agrees with the rows. */
void linnet_secure_forget(linnet_coordinator *coordinator, uint64_t round);
/** Whatever is due in this round now. */
linnet_status linnet_secure_advance(linnet_coordinator *coordinator, uint64_t round, int64_t now_ms,
                                    linnet_error *err) LINNET_NODISCARD;
/** Whom a member must be certified by: as of now, with the newest list in *list (released by the caller). */
linnet_status linnet_secure_trust(linnet_coordinator *coordinator, linnet_store_txn *txn, int64_t now_ms,
                                  linnet_buffer *list, linnet_revocation *revocation,
                                  linnet_secagg_trust *ret_trust, linnet_error *err) LINNET_NODISCARD;
/** More complaints about one member than could come from corrupt ones: the round is void, and the member is
 * left out of the next roster. */
linnet_status linnet_secure_give_up(linnet_coordinator *coordinator, uint64_t round,
                                    const linnet_device_id *barred, int64_t now_ms,
                                    linnet_error *err) LINNET_NODISCARD;

/* ---- secure_messages.c ---- */
/** A message of the interactive round, from an authenticated device. */
linnet_status linnet_secure_handle(linnet_coordinator *coordinator, int64_t now_ms,
                                   const linnet_device_row *device, const linnet_round_message *message,
                                   const uint8_t *raw, size_t n_raw, linnet_reply *reply,
                                   linnet_error *err) LINNET_NODISCARD;

/* ---- receipts.c ---- */
/** The device's own receipts, from the round of the query on, as many as fit an answer. */
linnet_status linnet_receipts_handle(linnet_coordinator *coordinator, const linnet_device_row *device,
                                     const linnet_round_message *message, const uint8_t *raw, size_t n_raw,
                                     linnet_reply *reply, linnet_error *err) LINNET_NODISCARD;

/* ---- witness.c ---- */
/** On start, in the serving process: MISMATCH where the store is behind the log of what it said (path NULL:
 * the one in the state directory), so that it must be a restored backup. */
linnet_status linnet_witness_open(linnet_coordinator *coordinator, const char *path,
                                  linnet_error *err) LINNET_NODISCARD;
/** Before anything leaves: the newest head of the transcript is in the log. */
linnet_status linnet_witness_keep(linnet_coordinator *coordinator, linnet_error *err) LINNET_NODISCARD;
void linnet_witness_close(linnet_coordinator *coordinator);

/* ---- uploads.c ---- */
linnet_status linnet_uploads_handle(linnet_coordinator *coordinator, int64_t now_ms,
                                    const linnet_device_row *device, const linnet_upload *upload,
                                    const uint8_t *raw, size_t n_raw, linnet_reply *reply,
                                    linnet_error *err) LINNET_NODISCARD;

/* ---- spool.c: spool/<round>/<device id>, one file an upload: the signed echo, then packed vectors ---- */
typedef struct linnet_spool_id {
    uint64_t round;
    linnet_device_id device;
} linnet_spool_id;
/** Add bytes that continue the file; what it has already is ignored, a gap is left open. ret_length: bytes
 * now there. CONFLICT where another echo's bytes lie there. NO_SPACE leaves the file as it was. */
linnet_status linnet_spool_append(linnet_coordinator *coordinator, const linnet_spool_id *id,
                                  const linnet_hash *echo, uint64_t offset, const uint8_t *raw, size_t n_raw,
                                  uint64_t *ret_length, linnet_error *err) LINNET_NODISCARD;
/** A complete file: do its bytes hash to the echo (CRYPTO), and is it a contribution of these vectors (RANGE,
 * FORMAT)? */
linnet_status linnet_spool_check(linnet_coordinator *coordinator, const linnet_spool_id *id,
                                 const linnet_ring_spec *specs, size_t n_specs, const linnet_hash *echo,
                                 linnet_error *err) LINNET_NODISCARD;
/** fsync of the file and its directories. IO: the process must end. */
linnet_status linnet_spool_sync(linnet_coordinator *coordinator, const linnet_spool_id *id,
                                linnet_error *err) LINNET_NODISCARD;
/** Add a complete file's vectors to sums (all coordinates of all vectors, one after the other), modulo
 * 2^32. */
linnet_status linnet_spool_fold(linnet_coordinator *coordinator, const linnet_spool_id *id,
                                const linnet_ring_spec *specs, size_t n_specs, uint32_t *sums,
                                linnet_error *err) LINNET_NODISCARD;
/** Coordinates first .. first + n of vector i of a complete file, modulo 2^b; first is a multiple of
 * LINNET_RING_CHUNK, n at most that. */
linnet_status linnet_spool_slice(linnet_coordinator *coordinator, const linnet_spool_id *id,
                                 const linnet_ring_spec *specs, size_t i, uint64_t first, size_t n,
                                 uint32_t *ret_values, linnet_error *err) LINNET_NODISCARD;
void linnet_spool_drop(linnet_coordinator *coordinator, const linnet_spool_id *id);
void linnet_spool_drop_round(linnet_coordinator *coordinator, uint64_t round);
/** Remove the spool of every round but these. */
void linnet_spool_sweep(linnet_coordinator *coordinator, const uint64_t *keep, size_t n_keep);
/** Bytes of all packed vectors. */
uint64_t linnet_specs_bytes(const linnet_ring_spec *specs, size_t n_specs);

/* ---- fold.c and publish.c ---- */
/** The sums of all accepted contributions of a frozen round (owned), and the lanes' totals. */
typedef struct linnet_fold {
    uint64_t round;
    linnet_hash announcement; /* A */
    linnet_ring_spec specs[LINNET_VECTORS_MAX];
    size_t n_specs;
    uint32_t *sums; /* owned: the vectors one after the other */
    size_t n_sums;
    uint64_t n_contributions;
    uint64_t lanes[LINNET_LANES];
} linnet_fold;
linnet_status linnet_fold_round(linnet_coordinator *coordinator, const linnet_round_row *round,
                                linnet_fold *ret_fold, linnet_error *err) LINNET_NODISCARD;
void linnet_fold_release(linnet_fold *fold);
/** Make an empty fold one of this round, with sums of zero. Released by the caller, after a failure too. */
linnet_status linnet_fold_begin(linnet_coordinator *coordinator, const linnet_round_row *round,
                                linnet_fold *fold, linnet_error *err) LINNET_NODISCARD;
/** Read the lanes of open sums; INTERNAL where they do not count n_contributions. */
linnet_status linnet_fold_read_lanes(linnet_fold *fold, linnet_error *err) LINNET_NODISCARD;
/** Who contributed, in the order of their ids: owned, as many as the row counts. FORMAT for other numbers. */
linnet_status linnet_contributors_list(linnet_coordinator *coordinator, const linnet_round_row *round,
                                       linnet_device_id **ret_devices, linnet_error *err) LINNET_NODISCARD;
/** The same without a look at the lanes: masks may lie on the sums. */
linnet_status linnet_fold_spool(linnet_coordinator *coordinator, const linnet_round_row *round,
                                linnet_fold *ret_fold, linnet_error *err) LINNET_NODISCARD;
/** Check the lanes of an opened sum (RANGE) and make it a durable file, whose hash the round's row names. The
 * fold's sums are bytes afterwards. */
linnet_status linnet_sum_write(linnet_coordinator *coordinator, linnet_fold *fold, linnet_hash *ret_hash,
                               linnet_error *err) LINNET_NODISCARD;
/** The fold of an opened round out of its file. */
linnet_status linnet_sum_read(linnet_coordinator *coordinator, const linnet_round_row *round,
                              linnet_fold *ret_fold, linnet_error *err) LINNET_NODISCARD;
void linnet_sum_drop(linnet_coordinator *coordinator, uint64_t round);
/** Remove the sums of every round but these. */
void linnet_sum_sweep(linnet_coordinator *coordinator, const uint64_t *keep, size_t n_keep);
/** Sign release `version` with this adapter and put its row; ret_hash is V. In an update. */
linnet_status linnet_publish_release(linnet_coordinator *coordinator, linnet_store_txn *txn, uint64_t version,
                                     const linnet_hash *previous, const linnet_hash *adapter,
                                     const linnet_hash *server_state, linnet_hash *ret_hash,
                                     linnet_error *err) LINNET_NODISCARD;
/** Remove the file of a server optimiser's state that no release needs any more; zero: there is none. */
void linnet_server_state_drop(const linnet_coordinator *coordinator, const linnet_hash *name);
/** Remove every such file but the newest release's. Only for who serves: it alone writes them, and a file is
 * there before a row names it. */
void linnet_server_state_sweep(const linnet_coordinator *coordinator);
/** From a frozen round to the next release and the next round. */
linnet_status linnet_publish_round(linnet_coordinator *coordinator, const linnet_round_row *round,
                                   int64_t now_ms, linnet_error *err) LINNET_NODISCARD;
/** From the opened rounds of a step to the next release and the next step. */
linnet_status linnet_publish_step(linnet_coordinator *coordinator, const linnet_round_row *rounds,
                                  size_t n_rounds, int64_t now_ms, linnet_error *err) LINNET_NODISCARD;
/** A file of the state, durable unless the coordinator is a simulation's. */
linnet_status linnet_state_write(const linnet_coordinator *coordinator, const char *path, const void *bytes,
                                 size_t n_bytes, linnet_error *err) LINNET_NODISCARD;
/** Bytes that become a durable object named by `name` in objects/ (or another folder). */
linnet_status linnet_object_write(const linnet_coordinator *coordinator, const char *folder,
                                  const linnet_hash *name, const void *bytes, size_t n_bytes,
                                  linnet_error *err) LINNET_NODISCARD;
linnet_status linnet_object_load_adapter(const linnet_coordinator *coordinator, const linnet_hash *hash,
                                         linnet_adapter **ret_adapter, linnet_error *err) LINNET_NODISCARD;

/* Traffic counters, read here and written back into a round's row by whoever writes one. */
void linnet_traffic_add(linnet_coordinator *coordinator, uint64_t up, uint64_t down);
/** What is to be added to a round's row, and, once that is stored, that it was. */
linnet_traffic linnet_traffic_peek(linnet_coordinator *coordinator);
void linnet_traffic_settle(linnet_coordinator *coordinator, const linnet_traffic *traffic);

#endif
