/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_MESSAGES_H
#define LINNET_MESSAGES_H

/* The messages as checked structs. protobuf-c only frames: its types stay inside proto/. Unpacking bounds
 * every field, refuses unknown fields, and allocates from a capped arena. Signed things travel as (body,
 * signature); a signature covers the body as received and is verified before the body is parsed. */

#include "linnet/identity.h"
#include "linnet/limits.h"
#include "linnet/plan.h"
#include "linnet/ring.h"
#include "linnet/secagg.h"

#define LINNET_PROTOCOL_VERSION 1

/* ---- (body, signature) as one byte string: protobuf message Signed ---- */
typedef struct linnet_signed {
    const uint8_t *body; /* borrowed from the bytes it was opened from */
    size_t n_body;
    linnet_signature signature;
} linnet_signed;
linnet_status linnet_signed_pack(const void *body, size_t n_body, const linnet_signature *signature,
                                 linnet_buffer *ret_bytes, linnet_error *err) LINNET_NODISCARD;
/** Frame only, nothing is verified: call linnet_verify / linnet_verify_hash with the body before parsing
 * it. */
linnet_status linnet_signed_open(const void *bytes, size_t n_bytes, linnet_signed *ret_signed,
                                 linnet_error *err) LINNET_NODISCARD;

/* ---- MODEL RELEASE; V = H("model", body), signed by the coordinator over V ---- */
typedef struct linnet_release {
    uint8_t task[16];
    uint64_t version;     /* 0 is the initial adapter */
    linnet_hash previous; /* V of version - 1; zero for version 0 */
    linnet_hash base_model, adapter, layout,
        plan;         /* H(OBJECT, file), H(OBJECT, packed adapter), layout hash, plan hash */
    uint32_t factors; /* active in the step from this version: linnet_factors */
    double learning_rate_b, learning_rate_a; /* of the local training from this version */
    bool is_final;                           /* the task has ended: install, do not train */
    uint32_t dp_unit;                        /* linnet_dp_unit of the step from this version */
} linnet_release;
linnet_status linnet_release_pack(const linnet_release *release, linnet_buffer *ret_body,
                                  linnet_error *err) LINNET_NODISCARD;
linnet_status linnet_release_unpack(const void *body, size_t n_body, linnet_release *ret_release,
                                    linnet_error *err) LINNET_NODISCARD;

/* ---- M0 ANNOUNCE; A = H("annou", body), signed by the coordinator over A ---- */
typedef struct linnet_announcement {
    uint32_t protocol_version, profile;
    linnet_public_key coordinator;
    uint8_t task[16];
    uint64_t round;      /* from 1, strictly increasing for a task */
    linnet_hash release; /* exactly one V */
    uint64_t deadline_s; /* unix seconds after which uploads are refused; 0: not fixed yet */
    uint32_t n_vectors;
    linnet_ring_spec vectors[LINNET_VECTORS_MAX];
    uint32_t chunk; /* coordinates, 4096 */
    uint32_t n_min, n_max, m_min, corrupt_permille;
    uint64_t revocation_number;
    linnet_hash revocation; /* H("revok", list) */
    linnet_hash checkpoint; /* head of the transcript */
    uint32_t phase_s;       /* seconds of each interactive phase; 0 without masks */
    /* differential privacy: all zero without it */
    uint32_t dp_mechanism, dp_unit; /* linnet_dp_mechanism, linnet_dp_unit */
    double dp_clip;                 /* Delta, in units of the weights */
    uint64_t dp_sigma2; /* lattice variance of one draw: a device's share, a step's or the sum's noise */
    bool dp_rotates;
    int32_t dp_exponent;   /* record-local: f of the gradient lattice */
    double dp_probability; /* record-local: p of drawing a unit, and the noised steps of a round */
    uint32_t dp_steps;
} linnet_announcement;
linnet_status linnet_announcement_pack(const linnet_announcement *announcement, linnet_buffer *ret_body,
                                       linnet_error *err) LINNET_NODISCARD;
linnet_status linnet_announcement_unpack(const void *body, size_t n_body,
                                         linnet_announcement *ret_announcement,
                                         linnet_error *err) LINNET_NODISCARD;

/** Everything of an announcement of a step from `version` that follows from the plan: profile, cohort,
 * phases, vectors, noise. The rest is zero and the caller's. */
linnet_status linnet_announcement_of_plan(const linnet_plan *plan, const linnet_layout *layout,
                                          uint64_t version, linnet_announcement *ret_announcement,
                                          linnet_error *err) LINNET_NODISCARD;
/** NULL where `a` says what `planned` says, else what differs, one static line: a device does not join
 * then. */
const char *linnet_announcement_difference(const linnet_announcement *a, const linnet_announcement *planned);

/** What a contribution to this round spends, from an announcement that was checked; mechanism NONE: nothing.
 * The same figures as linnet_plan_privacy of its plan, but for the divisor. RANGE where they protect
 * nothing. */
linnet_status linnet_announcement_privacy(const linnet_announcement *announcement,
                                          linnet_privacy *ret_privacy, linnet_error *err) LINNET_NODISCARD;

/** What the protocol machines need of an announcement whose hash is A. RANGE for a profile without masks. */
linnet_status linnet_secagg_params_of(const linnet_announcement *announcement, const linnet_hash *a,
                                      linnet_secagg_params *ret_params, linnet_error *err) LINNET_NODISCARD;

/* ---- M5 header; signed by the device over H("maskd", body). In profile plain the chain ends at A. ---- */
typedef struct linnet_upload_header {
    linnet_hash chain; /* A in profile plain, T2 with secure aggregation */
    linnet_device_id device_id;
    uint32_t n_vectors;
    uint64_t lengths[LINNET_VECTORS_MAX]; /* coordinates, in the announcement's order */
    uint64_t n_bytes;                     /* of all packed vectors */
    linnet_hash echo;                     /* Hy = H("vecho", all packed bytes) */
} linnet_upload_header;
linnet_status linnet_upload_header_pack(const linnet_upload_header *header, linnet_buffer *ret_body,
                                        linnet_error *err) LINNET_NODISCARD;
linnet_status linnet_upload_header_unpack(const void *body, size_t n_body, linnet_upload_header *ret_header,
                                          linnet_error *err) LINNET_NODISCARD;

/** Receipt body: chain 32, device_id 16, Hy 32, sequence u64; signed by the coordinator under `recpt`. Fixed
 * width. */
typedef struct linnet_receipt {
    linnet_hash chain, echo;
    linnet_device_id device_id;
    uint64_t sequence; /* of the acceptance in its round, from 1 */
} linnet_receipt;
#define LINNET_SIGNED_RECEIPT_BYTES (32 + 16 + 32 + 8 + 64)
void linnet_receipt_sign(const linnet_receipt *receipt, const linnet_identity *coordinator,
                         uint8_t ret_bytes[LINNET_SIGNED_RECEIPT_BYTES]);
linnet_status linnet_receipt_open(const void *bytes, size_t n_bytes, const linnet_public_key *coordinator,
                                  linnet_receipt *ret_receipt) LINNET_NODISCARD;

/* ---- a body inside the channel: header length u32, raw length u32, protobuf header, raw bytes, zeros to a
 * multiple of LINNET_PADDING_BYTES ---- */
typedef struct linnet_frame {
    const uint8_t *header, *raw; /* borrowed */
    size_t n_header, n_raw;
} linnet_frame;
linnet_status linnet_frame_pack(const linnet_frame *frame, linnet_buffer *ret_bytes,
                                linnet_error *err) LINNET_NODISCARD;
/** FORMAT on lengths that do not match or padding that is not zero or too long. */
linnet_status linnet_frame_open(const void *bytes, size_t n_bytes, linnet_frame *ret_frame,
                                linnet_error *err) LINNET_NODISCARD;

/* ---- HELLO (public): everything in it is signed by itself ---- */
typedef struct linnet_hello {
    uint32_t protocol_version;
    linnet_public_key coordinator, authority;
    uint8_t task[16];
    const uint8_t *channel_key; /* LINNET_SIGNED_CHANNEL_KEY_BYTES, borrowed */
    const uint8_t *revocation;  /* signed list, borrowed; may be empty */
    size_t n_revocation;
    bool operator_is_authority; /* the trial set-up: said openly */
} linnet_hello;
linnet_status linnet_hello_pack(const linnet_hello *hello, linnet_buffer *ret_bytes,
                                linnet_error *err) LINNET_NODISCARD;
/** The struct borrows from *storage, which the call fills; release storage afterwards. */
linnet_status linnet_hello_unpack(const void *bytes, size_t n_bytes, linnet_buffer *storage,
                                  linnet_hello *ret_hello, linnet_error *err) LINNET_NODISCARD;

/* ---- requests (headers of frames) ---- */
typedef struct linnet_checkin {
    bool has_version;
    uint64_t version; /* newest release the device knows */
    bool has_ready;
    linnet_hash ready; /* V of its fresh delta: it asks to join a round */
    uint64_t revocation_number;
} linnet_checkin;
linnet_status linnet_checkin_pack(const linnet_checkin *checkin, linnet_buffer *ret_bytes,
                                  linnet_error *err) LINNET_NODISCARD;
linnet_status linnet_checkin_unpack(const void *bytes, size_t n_bytes, linnet_checkin *ret_checkin,
                                    linnet_error *err) LINNET_NODISCARD;

typedef struct linnet_upload {
    const uint8_t *header; /* Signed upload header, in every chunk: a request stands alone; borrowed */
    size_t n_header;
    uint64_t
        offset; /* of the frame's raw bytes in the packed vectors; raw may be empty to ask where to go on */
} linnet_upload;
linnet_status linnet_upload_pack(const linnet_upload *upload, linnet_buffer *ret_bytes,
                                 linnet_error *err) LINNET_NODISCARD;
linnet_status linnet_upload_unpack(const void *bytes, size_t n_bytes, linnet_buffer *storage,
                                   linnet_upload *ret_upload, linnet_error *err) LINNET_NODISCARD;

/* ---- a message of the interactive round; the raw part of its frame is the message of secagg.h ---- */
typedef enum linnet_round_kind { /* values are on the wire: the numbers of the messages */
                                 LINNET_ROUND_POLL = 0,   /* what is the phase? raw part empty */
                                 LINNET_ROUND_ADVERT = 1, /* M1 */
                                 LINNET_ROUND_SHARES = 3, /* M3 */
                                 LINNET_ROUND_ATTEST = 7, /* M7 */
                                 LINNET_ROUND_UNMASK = 9, /* M9 */
                                 LINNET_ROUND_COMPLAINT = 10,
                                 LINNET_ROUND_ABORT = 11,
                                 LINNET_ROUND_RECEIPTS = 12, /* of no round: receipt_list.h */
} linnet_round_kind;
typedef struct linnet_round_message {
    linnet_hash announcement; /* A; zero for RECEIPTS */
    uint32_t kind;            /* linnet_round_kind */
} linnet_round_message;
linnet_status linnet_round_message_pack(const linnet_round_message *message, linnet_buffer *ret_bytes,
                                        linnet_error *err) LINNET_NODISCARD;
linnet_status linnet_round_message_unpack(const void *bytes, size_t n_bytes,
                                          linnet_round_message *ret_message,
                                          linnet_error *err) LINNET_NODISCARD;

/** What an answer to a round message brings in its raw part; values are on the wire: the message's number. */
typedef enum linnet_round_phase {
    LINNET_PHASE_NONE = 0,        /* nothing yet, or not for this device */
    LINNET_PHASE_ROSTER = 2,      /* M2 */
    LINNET_PHASE_SHARERS = 4,     /* M4 */
    LINNET_PHASE_SURVIVORS = 6,   /* M6 */
    LINNET_PHASE_CERTIFICATE = 8, /* M8 */
    LINNET_PHASE_CLOSED = 10,     /* the sum is opened; raw part empty */
    LINNET_PHASE_VOID = 11,       /* the round failed; raw part empty. Says nothing about what was learned */
} linnet_round_phase;

/* ---- the one answer type of sealed requests ---- */
typedef enum linnet_answer_code { /* values are on the wire */
                                  LINNET_ANSWER_OK = 0,
                                  LINNET_ANSWER_WAIT = 1, /* come back after retry_after_ms */
                                  LINNET_ANSWER_REFUSED =
                                      2, /* message says why; trying again does not help */
                                  LINNET_ANSWER_REVOKED = 3,
                                  LINNET_ANSWER_GONE =
                                      4, /* the round is over: the delta's chance has passed */
                                  LINNET_ANSWER_CONFLICT = 5, /* other bytes than before under the same key */
                                  LINNET_ANSWER_NO_SPACE = 6, /* the coordinator's disk is full: come back */
} linnet_answer_code;
typedef struct linnet_answer {
    uint32_t code;           /* linnet_answer_code */
    char message[200];       /* for people, one line */
    uint32_t retry_after_ms; /* 0: at once is fine */
    /* borrowed, empty where absent: */
    const uint8_t *release, *announcement; /* Signed */
    size_t n_release, n_announcement;
    const uint8_t *certificate, *receipt, *revocation, *channel_key; /* fixed-width signed bytes */
    size_t n_certificate, n_receipt, n_revocation, n_channel_key;
    uint64_t next_offset; /* of an upload */
    uint32_t phase;       /* linnet_round_phase, of an answer to a round message */
} linnet_answer;
linnet_status linnet_answer_pack(const linnet_answer *answer, linnet_buffer *ret_bytes,
                                 linnet_error *err) LINNET_NODISCARD;
linnet_status linnet_answer_unpack(const void *bytes, size_t n_bytes, linnet_buffer *storage,
                                   linnet_answer *ret_answer, linnet_error *err) LINNET_NODISCARD;

#endif
