/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_SECAGG_H
#define LINNET_SECAGG_H

/* The protocol linnet-sa1 (SECURE-AGGREGATION 2.4): one cohort, one announcement A, one roster T1, one set of
 * sharers T2, one set of survivors T3. Both sides are state machines that take bytes and give bytes: no
 * socket, store or clock. Whoever drives them commits what the table of section 7 asks for (the machine's
 * saved form, or the messages themselves) before an output leaves.
 *
 * Messages, all integers little-endian, all lengths exact; n is the roster's size, bitmaps have ceil(n / 8)
 * bytes, bit i = roster index i, unused bits zero:
 *
 *   M1 advert       A 32, device_id 16, pk_x 32, pk_e 32, cb 32, nonce 16 | sig `advrt` 64 | certificate 142
 *   M2 roster       sig of T1 64, n u32, n adverts by increasing device_id
 *   M3 shares       T1 32, device_id 16, n - 1 boxes of 104 by index, oneself left out | sig `share` 64
 *   M4 sharers      sig of T2 64, bitmap U2, |U2| - 1 boxes for this device by index, itself left out
 *   M5 header       the signed upload header of messages.h with chain = T2
 *   M6 survivors    sig of T3 64, bitmap U3, |U3| x (Hy 32, sig of the M5 header 64) by index
 *   M7 attestation  T3 32, device_id 16 | sig `attst` over T3 alone 64
 *   M8 certificate  M6, count u32, count x (index u32, sig `attst` 64) by increasing index
 *   M9 unmask       T3 32, device_id 16, |U2| - 1 x (kind u8, share 32) by index, itself left out | `unmsk`
 *   complaint       T2 32, device_id 16, index u32 | sig `compl` 64
 *   abort           A 32, device_id 16, reason u8 | sig `abort` 64
 */

#include "linnet/identity.h"
#include "linnet/secagg_mask.h"

#define LINNET_SECAGG_MEMBERS_MAX 1024
#define LINNET_SECAGG_VECTORS_MAX 3
#define LINNET_SECAGG_BITMAP_MAX (LINNET_SECAGG_MEMBERS_MAX / 8)
#define LINNET_ADVERT_BODY_BYTES (32 + 16 + 32 + 32 + 32 + 16)
#define LINNET_ADVERT_BYTES (LINNET_ADVERT_BODY_BYTES + 64 + LINNET_SIGNED_CERTIFICATE_BYTES)
#define LINNET_ATTESTATION_BYTES (32 + 16 + 64)
#define LINNET_COMPLAINT_BYTES (32 + 16 + 4 + 64)
#define LINNET_ABORT_BYTES (32 + 16 + 1 + 64)

typedef struct linnet_secagg_vector {
    uint32_t id, bits; /* 16, 20, 24, 32 */
    uint64_t length;   /* coordinates */
} linnet_secagg_vector;

/** What the announcement fixes for its cohort. Plain data. */
typedef struct linnet_secagg_params {
    linnet_hash announcement; /* A */
    linnet_public_key coordinator;
    uint32_t n_min, n_max, m_min, corrupt_permille;
    uint32_t n_vectors;
    linnet_secagg_vector vectors[LINNET_SECAGG_VECTORS_MAX]; /* in the order in which they are packed */
} linnet_secagg_params;

/** What machines of one process have checked already: a simulator's virtual devices all get the same roster
 * and certificate, and check every signature in it once instead of a thousand times. Only for machines whose
 * trust is the same. Thread-safe. Real devices have none. */
typedef struct linnet_secagg_cache linnet_secagg_cache;
linnet_status linnet_secagg_cache_create(linnet_secagg_cache **ret_cache, linnet_error *err) LINNET_NODISCARD;
void linnet_secagg_cache_destroy(linnet_secagg_cache *cache); /* takes NULL */

/** Whom a member of a roster must be certified by. All borrowed for the call, but for the cache, which is for
 * the life of the machine. */
typedef struct linnet_secagg_trust {
    const linnet_public_key *authority;
    uint64_t now_s;                      /* 0: skip the clock */
    const linnet_revocation *revocation; /* NULL: none */
    const linnet_public_key *consortium; /* pinned members, NULL: whoever the authority certified */
    size_t n_consortium;
    linnet_secagg_cache *cache; /* NULL: check everything */
} linnet_secagg_trust;

/** Thresholds of 2.5 for a roster of n: computed by everybody, never sent. */
typedef struct linnet_secagg_thresholds {
    uint32_t corrupt;       /* C = max(1, ceil(c n)) */
    uint32_t shares;        /* t = floor((n - 1 + C) / 2) + 1 */
    uint32_t signatures;    /* q = floor((n + C) / 2) + 1 */
    uint32_t sharers_min;   /* |U2| >= max(n_min, m_min, t + 1) */
    uint32_t survivors_min; /* |U3| >= max(m_min, t + 1) */
    uint32_t drop_outs;     /* tolerated over all phases after the roster: min(n - (t + 1), n - q) */
} linnet_secagg_thresholds;
linnet_secagg_thresholds linnet_secagg_thresholds_of(const linnet_secagg_params *params, uint32_t n);

/* ---- bitmaps ---- */
static inline bool linnet_bitmap_has(const uint8_t *bitmap, uint32_t i)
{
    return bitmap[i / 8] >> (i % 8) & 1;
}
static inline void linnet_bitmap_set(uint8_t *bitmap, uint32_t i)
{
    bitmap[i / 8] = (uint8_t)(bitmap[i / 8] | 1u << (i % 8));
}
static inline size_t linnet_bitmap_bytes(uint32_t n)
{
    return ((size_t)n + 7) / 8;
}
uint32_t linnet_bitmap_count(const uint8_t *bitmap, uint32_t n);
/** FORMAT where an unused bit is set. */
linnet_status linnet_bitmap_check(const uint8_t *bitmap, uint32_t n) LINNET_NODISCARD;

/* ---- the chain ---- */
/** H("leaf.", one whole advert with signature and certificate). */
linnet_hash linnet_secagg_leaf(const uint8_t *advert);
/** T1 = H("rostr", A || LE32 n || leaves). */
linnet_hash linnet_secagg_t1(const linnet_hash *announcement, const linnet_hash *leaves, uint32_t n);
/** T2 = H("setu2", T1 || bitmap). */
linnet_hash linnet_secagg_t2(const linnet_hash *t1, const uint8_t *bitmap, uint32_t n);
/** R = H("survl", list of Hy || signature); T3 = H("setu3", T2 || bitmap || R). */
linnet_hash linnet_secagg_survivor_list(const uint8_t *list, size_t n_survivors);
linnet_hash linnet_secagg_t3(const linnet_hash *t2, const uint8_t *bitmap, uint32_t n, const linnet_hash *r);

/** Why a device left a round: names a check of the protocol, never anything about data or training. */
typedef enum linnet_abort_reason { /* values are on the wire */
                                   LINNET_ABORT_NONE = 0,
                                   LINNET_ABORT_ROSTER = 1,       /* M2 fails a check */
                                   LINNET_ABORT_SHARERS = 2,      /* M4 fails a check */
                                   LINNET_ABORT_BOXES = 3,        /* more than C boxes do not open */
                                   LINNET_ABORT_SURVIVORS = 4,    /* M6 fails a check */
                                   LINNET_ABORT_CERTIFICATE = 5,  /* M8 fails a check */
                                   LINNET_ABORT_EQUIVOCATION = 6, /* a second, different message */
                                   LINNET_ABORT_ECHO = 7,         /* other bytes under one mask */
                                   LINNET_ABORT_TIME = 8,         /* a deadline passed, or a restart */
} linnet_abort_reason;
const char *linnet_abort_reason_text(linnet_abort_reason reason);

/* ---- the device ---- */

typedef enum linnet_secagg_phase {
    LINNET_SECAGG_ADVERTISED = 1, /* M1 made; waits for M2. Secrets in memory only */
    LINNET_SECAGG_SHARED = 2,     /* T1 fixed, M3 made; waits for M4 */
    LINNET_SECAGG_MASKING = 3,    /* T2 fixed, masks can be made; waits for the echo, the upload and M6 */
    LINNET_SECAGG_ATTESTED = 4,   /* T3 fixed, M7 made; waits for M8 */
    LINNET_SECAGG_RELEASED = 5,   /* M9 made; round secrets are gone but for M9's bytes */
    LINNET_SECAGG_EXCLUDED = 6,   /* a valid certificate leaves this device out: its delta is fresh again */
    LINNET_SECAGG_ABORTED = 7,    /* secrets are gone */
} linnet_secagg_phase;

typedef struct linnet_secagg_device linnet_secagg_device;

/** Draw r_s, r_b and sk_e from the system's generator and make M1. identity is borrowed for life, certificate
 * (own, signed, LINNET_SIGNED_CERTIFICATE_BYTES) is copied. ARG for parameters that are none. */
linnet_status linnet_secagg_device_create(const linnet_secagg_params *params, const linnet_identity *identity,
                                          const uint8_t *certificate, linnet_secagg_device **ret_device,
                                          linnet_error *err) LINNET_NODISCARD;
/** Wipes every secret. Takes NULL. */
void linnet_secagg_device_destroy(linnet_secagg_device *device);

linnet_secagg_phase linnet_secagg_device_phase(const linnet_secagg_device *device);
linnet_abort_reason linnet_secagg_device_abort_reason(const linnet_secagg_device *device);

/** Take M2, M4, M6 or M8, in this order. OK: the phase has advanced, or the same message came again. A
 * message that fails a check of the protocol, or a second and different one, is CRYPTO, FORMAT, RANGE,
 * MISMATCH, EXPIRED, DENIED or CONFLICT with a text: the machine is then ABORTED and its secrets are gone.
 * ARG: not the time for this message, nothing happened. NOMEM: nothing happened. */
linnet_status linnet_secagg_device_take_roster(linnet_secagg_device *device, const linnet_secagg_trust *trust,
                                               const void *m2, size_t n_bytes,
                                               linnet_error *err) LINNET_NODISCARD;
linnet_status linnet_secagg_device_take_sharers(linnet_secagg_device *device, const void *m4, size_t n_bytes,
                                                linnet_error *err) LINNET_NODISCARD;
linnet_status linnet_secagg_device_take_survivors(linnet_secagg_device *device, const void *m6,
                                                  size_t n_bytes, linnet_error *err) LINNET_NODISCARD;
/** Without an attestation the certified set is adopted; with another one: CONFLICT. Also taken in MASKING for
 * a device that is not in U3: phase EXCLUDED. */
linnet_status linnet_secagg_device_take_certificate(linnet_secagg_device *device, const void *m8,
                                                    size_t n_bytes, linnet_error *err) LINNET_NODISCARD;

/** What was made: borrowed until the device changes; NULL and 0 in a phase that has none. A retry gives the
 * same bytes. */
const uint8_t *linnet_secagg_device_advert(const linnet_secagg_device *device, size_t *ret_n);
const uint8_t *linnet_secagg_device_shares(const linnet_secagg_device *device, size_t *ret_n);
const uint8_t *linnet_secagg_device_attestation(const linnet_secagg_device *device, size_t *ret_n);
const uint8_t *linnet_secagg_device_unmask(const linnet_secagg_device *device, size_t *ret_n);
/** Signed complaints about peers whose box did not open, one behind the other, LINNET_COMPLAINT_BYTES
 * each. */
const uint8_t *linnet_secagg_device_complaints(const linnet_secagg_device *device, size_t *ret_n);
/** A signed abort with the reason; valid in every phase (used when a deadline or a restart ends a round). */
void linnet_secagg_device_abort(linnet_secagg_device *device, linnet_abort_reason reason,
                                uint8_t ret_message[LINNET_ABORT_BYTES]);

/** T1, T2, T3 as far as they are fixed, else NULL; borrowed. */
const linnet_hash *linnet_secagg_device_t1(const linnet_secagg_device *device);
const linnet_hash *linnet_secagg_device_t2(const linnet_secagg_device *device);
const linnet_hash *linnet_secagg_device_t3(const linnet_secagg_device *device);
/** Roster and survivor counts as far as known, else 0. */
uint32_t linnet_secagg_device_members(const linnet_secagg_device *device);
uint32_t linnet_secagg_device_survivors(const linnet_secagg_device *device);

/** In MASKING: packed[.] of n coordinates from `first` (a multiple of LINNET_PACK_CHUNK, n at most that) of
 * vector `index` (position in params) += self mask + all pair masks, modulo 2^b, in place. */
linnet_status linnet_secagg_device_mask(const linnet_secagg_device *device, uint32_t index, uint64_t first,
                                        size_t n, uint8_t *packed, linnet_error *err) LINNET_NODISCARD;
/** In MASKING: fix Hy of all masked bytes and the signature of the M5 header. The same again is OK; another
 * Hy or signature is CONFLICT and aborts. Commit before the first byte leaves. */
linnet_status linnet_secagg_device_fix_echo(linnet_secagg_device *device, const linnet_hash *echo,
                                            const linnet_signature *header_signature,
                                            linnet_error *err) LINNET_NODISCARD;
/** The fixed echo, NULL before. */
const linnet_hash *linnet_secagg_device_echo(const linnet_secagg_device *device);

/** The round record: everything a restarted process needs, secrets included; the caller seals it, and wipes
 * the buffer (linnet_buffer_release does not). ARG before SHARED: until then secrets are in memory only. */
linnet_status linnet_secagg_device_save(const linnet_secagg_device *device, linnet_buffer *ret_bytes,
                                        linnet_error *err) LINNET_NODISCARD;
/** FORMAT for a damaged record; MISMATCH where it is of another announcement or identity. */
linnet_status linnet_secagg_device_load(const linnet_secagg_params *params, const linnet_identity *identity,
                                        const void *bytes, size_t n_bytes, linnet_secagg_device **ret_device,
                                        linnet_error *err) LINNET_NODISCARD;

/* ---- the coordinator ---- */

typedef enum linnet_secagg_server_phase {
    LINNET_SERVER_OPEN = 1,    /* takes adverts */
    LINNET_SERVER_ROSTER = 2,  /* roster fixed, takes shares */
    LINNET_SERVER_SHARERS = 3, /* U2 fixed, takes masked vectors */
    LINNET_SERVER_FROZEN = 4,  /* U3 fixed, takes attestations and unmaskings */
    LINNET_SERVER_OPENED = 5,  /* secrets rebuilt: masks can be taken off */
} linnet_secagg_server_phase;

typedef struct linnet_secagg_server linnet_secagg_server;

/** identity signs T1, T2, T3: the announcing coordinator's; borrowed for life. The machine holds no messages
 * but adverts, headers and shares: M3 is read back through linnet_secagg_read_fn. Not thread-safe, except
 * linnet_secagg_server_unmask in phase OPENED. It is rebuilt after a restart by taking the stored messages
 * again in the same order of phases: signatures are deterministic, so T1, T2 and T3 come out the same. */
linnet_status linnet_secagg_server_create(const linnet_secagg_params *params, const linnet_identity *identity,
                                          linnet_secagg_server **ret_server,
                                          linnet_error *err) LINNET_NODISCARD;
void linnet_secagg_server_destroy(linnet_secagg_server *server);
linnet_secagg_server_phase linnet_secagg_server_phase_of(const linnet_secagg_server *server);
uint32_t linnet_secagg_server_members(const linnet_secagg_server *server); /* adverts, then n */
/** Roster index, or -1. */
int32_t linnet_secagg_server_index(const linnet_secagg_server *server, const linnet_device_id *device);
const linnet_device_id *linnet_secagg_server_device(const linnet_secagg_server *server, uint32_t index);

/* Messages of devices. OK: counts from now on. EXISTS: the same is there already. CONFLICT: another one is
 * there (evidence). Others: refused, with a text; nothing happened. `check` does everything but count, so
 * that the caller can commit between the two: the same call with commit true cannot fail after a check that
 * was OK. */
linnet_status linnet_secagg_server_advert(linnet_secagg_server *server, const linnet_secagg_trust *trust,
                                          const void *m1, size_t n_bytes, bool commit,
                                          linnet_error *err) LINNET_NODISCARD;
/** Sort, drop nothing (bad keys were refused one by one), fix n, T1 and M2. RANGE below n_min or above
 * n_max. */
linnet_status linnet_secagg_server_close_roster(linnet_secagg_server *server,
                                                linnet_error *err) LINNET_NODISCARD;
linnet_status linnet_secagg_server_shares(linnet_secagg_server *server, const void *m3, size_t n_bytes,
                                          bool commit, linnet_error *err) LINNET_NODISCARD;
/** Fix U2 and T2. RANGE where too few shared. */
linnet_status linnet_secagg_server_close_sharers(linnet_secagg_server *server,
                                                 linnet_error *err) LINNET_NODISCARD;
/** An accepted, complete upload of a member of U2 (the caller has checked header, hash and lengths). */
linnet_status linnet_secagg_server_masked(linnet_secagg_server *server, const linnet_device_id *device,
                                          const linnet_hash *echo, const linnet_signature *header_signature,
                                          bool commit, linnet_error *err) LINNET_NODISCARD;
/** Fix U3, R, T3 and M6. RANGE where too few survived. */
linnet_status linnet_secagg_server_freeze(linnet_secagg_server *server, linnet_error *err) LINNET_NODISCARD;
linnet_status linnet_secagg_server_attestation(linnet_secagg_server *server, const void *m7, size_t n_bytes,
                                               bool commit, linnet_error *err) LINNET_NODISCARD;
linnet_status linnet_secagg_server_unmasking(linnet_secagg_server *server, const void *m9, size_t n_bytes,
                                             bool commit, linnet_error *err) LINNET_NODISCARD;
/** A complaint or an abort of a member: its signature is checked. ret_about: index complained about. */
linnet_status linnet_secagg_server_complaint(linnet_secagg_server *server, const void *bytes, size_t n_bytes,
                                             uint32_t *ret_about, linnet_error *err) LINNET_NODISCARD;
linnet_status linnet_secagg_server_abort(linnet_secagg_server *server, const void *bytes, size_t n_bytes,
                                         linnet_abort_reason *ret_reason, linnet_error *err) LINNET_NODISCARD;

/** Read `n_bytes` at `offset` of the stored M3 of member `owner`. */
typedef linnet_status linnet_secagg_read_fn(void *context, uint32_t owner, size_t offset, void *bytes,
                                            size_t n_bytes, linnet_error *err);
/* Messages to devices, appended to ret_bytes. NOT_FOUND: not yet, or not a member to whom it is due. */
linnet_status linnet_secagg_server_make_roster(const linnet_secagg_server *server, linnet_buffer *ret_bytes,
                                               linnet_error *err) LINNET_NODISCARD;
linnet_status linnet_secagg_server_make_sharers(const linnet_secagg_server *server,
                                                const linnet_device_id *device, linnet_secagg_read_fn *read,
                                                void *read_context, linnet_buffer *ret_bytes,
                                                linnet_error *err) LINNET_NODISCARD;
linnet_status linnet_secagg_server_make_survivors(const linnet_secagg_server *server,
                                                  linnet_buffer *ret_bytes,
                                                  linnet_error *err) LINNET_NODISCARD;
/** NOT_FOUND below q attestations. The first q that came are taken: later calls give the same bytes. */
linnet_status linnet_secagg_server_make_certificate(const linnet_secagg_server *server,
                                                    linnet_buffer *ret_bytes,
                                                    linnet_error *err) LINNET_NODISCARD;

typedef struct linnet_secagg_server_counts {
    uint32_t members, sharers, masked, survivors, attestations, unmaskings;
    linnet_secagg_thresholds thresholds; /* of the roster, or of the adverts so far */
} linnet_secagg_server_counts;
linnet_secagg_server_counts linnet_secagg_server_count(const linnet_secagg_server *server);
/** T1, T2, T3 as far as they are fixed, else NULL. */
const linnet_hash *linnet_secagg_server_t1(const linnet_secagg_server *server);
const linnet_hash *linnet_secagg_server_t2(const linnet_secagg_server *server);
const linnet_hash *linnet_secagg_server_t3(const linnet_secagg_server *server);
bool linnet_secagg_server_is_sharer(const linnet_secagg_server *server, uint32_t index);
bool linnet_secagg_server_is_survivor(const linnet_secagg_server *server, uint32_t index);
bool linnet_secagg_server_has_unmasking(const linnet_secagg_server *server, uint32_t index);

/** Are t shares there for every secret that must be rebuilt, whether they fit or not? */
bool linnet_secagg_server_can_open(const linnet_secagg_server *server);
/** Rebuild r_b of U3 and r_s of U2 \ U3 and compare them with cb and pk_x. Of m that hold shares of a secret,
 * (m - t) / 2 may hand in wrong ones, in a small cohort nearly always m - t. Who is found wrong is passed
 * over as long as others suffice: it may have been the owner who dealt shares that do not fit together.
 * AGAIN: too few shares yet. CRYPTO: those of one secret do not agree, and the round is void unless more
 * come; what was rebuilt is kept until then. ret_n_wrong: holders found wrong so far, set whatever comes out;
 * may be NULL. */
linnet_status linnet_secagg_server_open(linnet_secagg_server *server, uint32_t *ret_n_wrong,
                                        linnet_error *err) LINNET_NODISCARD;
/** In OPENED: take all masks off the folded sum of vector `index`: n coordinates (at most LINNET_PACK_CHUNK)
 * from `first` (a multiple of it). Threads may call it for different chunks at once. */
linnet_status linnet_secagg_server_unmask(const linnet_secagg_server *server, uint32_t index, uint64_t first,
                                          size_t n, uint32_t *sum, linnet_error *err) LINNET_NODISCARD;

#endif
