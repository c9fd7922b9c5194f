/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_HASH_H
#define LINNET_HASH_H

/* Labelled BLAKE2b-256: H(label, m) and K(label, key, m) of SECURE-AGGREGATION 2.2. One label, one use. */

#include "linnet/bytes.h"

#define LINNET_HASH_BYTES 32
typedef struct linnet_hash {
    uint8_t bytes[LINNET_HASH_BYTES];
} linnet_hash;

/* X(name, five characters): the label is "linnet.sa1." + the five characters, exactly 16 bytes (BLAKE2b
 * `personal`). */
/* clang-format off */
#define LINNET_LABEL_LIST(X) \
    X(MODEL, "model") X(ANNOUNCE, "annou") X(ROSTER, "rostr") X(LEAF, "leaf.") \
    X(SHARERS, "setu2") X(SURVIVOR_LIST, "survl") X(SURVIVORS, "setu3") X(LAYOUT, "layou") \
    X(PLAN, "plan.") X(VECTOR, "vecho") X(DEVICE_ID, "devid") X(KX_SECRET, "kxsec") \
    X(SELF_COMMIT, "selfc") X(SELF_MASK, "selfm") X(PAIR_MASK, "pairm") X(SHARE_ENCRYPT, "shenc") \
    X(ROTATE, "rotat") X(ENROLL, "enrol") X(ADVERT, "advrt") X(SHARE, "share") \
    X(MASKED, "maskd") X(ATTEST, "attst") X(UNMASK, "unmsk") X(COMPLAINT, "compl") \
    X(ABORT, "abort") X(REQUEST_SIGNATURE, "reqst") X(CERTIFICATE, "certf") X(REVOCATION, "revok") \
    X(TOKEN, "token") X(RECEIPT, "recpt") X(VOID, "void.") X(CHECKPOINT, "check") \
    X(TRANSCRIPT, "trans") X(CHANNEL_KEY, "chkey") X(CHANNEL_HEADER, "chhdr") X(CHANNEL_REQUEST, "chreq") \
    X(CHANNEL_RESPONSE, "chres") X(OBJECT, "objct") X(INVITE, "invit") X(CONSORTIUM, "conso") \
    X(ROUND_KEY, "rdkey") X(LEDGER, "ledgr")
/* clang-format on */

typedef enum linnet_label {
#define LINNET_LABEL_ENUM(name, text) LINNET_LABEL_##name,
    LINNET_LABEL_LIST(LINNET_LABEL_ENUM)
#undef LINNET_LABEL_ENUM
        LINNET_LABELS
} linnet_label;

/** The 16 bytes of a label (not zero terminated). */
const uint8_t *linnet_label_bytes(linnet_label label);

/** H(label, bytes): BLAKE2b-256 with `personal` = label and a zero salt. */
linnet_hash linnet_hash_of(linnet_label label, const void *bytes, size_t n_bytes);

/** K(label, key, bytes): the same, keyed with a secret of 16 to 64 bytes. */
linnet_hash linnet_hash_keyed(linnet_label label, const void *key, size_t key_bytes, const void *bytes,
                              size_t n_bytes);

/** H over a stream. The state is plain data: it may be copied and needs no alignment. Final wipes it. */
typedef struct linnet_hasher {
    uint8_t opaque[448];
} linnet_hasher;
void linnet_hasher_init(linnet_hasher *hasher, linnet_label label);
void linnet_hasher_update(linnet_hasher *hasher, const void *bytes, size_t n_bytes);
linnet_hash linnet_hasher_final(linnet_hasher *hasher);

/** H(OBJECT, whole file), streamed: the content address of a base model or a downloaded object. */
linnet_status linnet_hash_file(linnet_label label, const char *path, linnet_hash *ret_hash,
                               linnet_error *err) LINNET_NODISCARD;

/** Constant-time equality. */
bool linnet_hash_equal(const linnet_hash *a, const linnet_hash *b);

/** Once per process, before threads: initialises libsodium. */
linnet_status linnet_crypto_init(linnet_error *err) LINNET_NODISCARD;
/** n_bytes from the system's generator. */
void linnet_random_bytes(void *bytes, size_t n_bytes);
/** Fills n_bytes with random bytes: the system's generator (context NULL) on devices and coordinators, a
 * seeded stream in simulations. */
typedef void linnet_random_fn(void *context, void *bytes, size_t n_bytes);
void linnet_system_random(void *context, void *bytes, size_t n_bytes);
/** A stream of ChaCha20 under a key that the system's generator gave it and that is kept nowhere else: as
 * good as that generator, without a system call for every kilobyte. For noise and rounding; release wipes it.
 * linnet_random_stream_fill is a linnet_random_fn whose context is the stream. One thread at a time. */
typedef struct linnet_random_stream {
    uint8_t key[32];
    uint64_t n_calls; /* the nonce of the next one */
} linnet_random_stream;
void linnet_random_stream_init(linnet_random_stream *stream);
void linnet_random_stream_fill(void *stream, void *bytes, size_t n_bytes);
void linnet_random_stream_release(linnet_random_stream *stream);
/** sodium_memzero: a wipe that the compiler keeps. */
void linnet_wipe(void *bytes, size_t n_bytes);
/** Zero the stack below the caller, where functions that have returned may have left secrets: libsodium's
 * hashes and ciphers, and whatever the compiler spilled. The caller wipes its own variables itself. */
void linnet_stack_wipe(void);

#endif
