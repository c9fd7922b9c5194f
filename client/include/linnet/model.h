/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_MODEL_H
#define LINNET_MODEL_H

/* A frozen model in a mapped GGUF file, and what one does with it: generate (a session with a KV cache),
 * score, and train a LoRA adapter beside it (an arena with per-layer checkpointing). A language model
 * predicts the next token; an encoder (BERT) with a head gives a text one of its labels. */

#include "linnet/adapter.h"
#include "linnet/thread_pool.h"

/* ---- the model: immutable after open, shared by all sessions, arenas and threads ---- */
typedef struct linnet_model linnet_model;

typedef struct linnet_model_shape {
    uint32_t n_layers, width, ffn_width, n_heads, n_kv_heads, head_width, vocabulary,
        context; /* context: as trained */
    float norm_epsilon, rope_base;
    uint32_t rope_width; /* leading elements of a head that turn */
    bool tied_output;
} linnet_model_shape;

/** Map and check a GGUF model. UNSUPPORTED names the architecture, type or key that is missing. */
linnet_status linnet_model_open(const char *path, linnet_model **ret_model,
                                linnet_error *err) LINNET_NODISCARD;
void linnet_model_close(linnet_model *model);
const linnet_model_shape *linnet_model_shape_of(const linnet_model *model);
const linnet_gguf *linnet_model_gguf(const linnet_model *model); /* borrowed, for tokenizer and layout */
/** "llama", and the type most weights have, "Q8_0". */
const char *linnet_model_architecture(const linnet_model *model);
const char *linnet_model_type(const linnet_model *model);

/* ---- labels, of encoders ---- */
enum { LINNET_LABELS_MAX = 1 << 16 }; /* of one model */
/** Does the model read whole texts, rather than write them? */
bool linnet_model_is_encoder(const linnet_model *model);
uint32_t linnet_model_n_labels(const linnet_model *model); /* 0: it has no head */
/** The name of a label, borrowed from the model: the file's, or LABEL_N; empty past the last. */
linnet_text linnet_model_label(const linnet_model *model, uint32_t label);
/** NOT_FOUND for a name that no label has; of several the first. */
linnet_status linnet_model_find_label(const linnet_model *model, const char *name,
                                      uint32_t *ret_label) LINNET_NODISCARD;
/** UNSUPPORTED, naming what is missing, for a model that cannot classify. */
linnet_status linnet_model_require_head(const linnet_model *model, linnet_error *err) LINNET_NODISCARD;

/** What an adapter with magnitudes (DoRA) needs once before it is used; nothing for others. MISMATCH where it
 * is of another model. */
linnet_status linnet_model_prepare_adapter(const linnet_model *model, linnet_adapter *adapter,
                                           linnet_error *err) LINNET_NODISCARD;

/* ---- inference ---- */
typedef struct linnet_session linnet_session;
/** A KV cache for context_tokens (0: the model's context). pool is borrowed, NULL: one thread. UNSUPPORTED
 * for an encoder. */
linnet_status linnet_session_create(const linnet_model *model, linnet_thread_pool *pool,
                                    uint32_t context_tokens, linnet_session **ret_session,
                                    linnet_error *err) LINNET_NODISCARD;
void linnet_session_destroy(linnet_session *session);
/** Borrow an adapter for what follows (NULL: none); MISMATCH where it is of another model. Resets the
 * session. */
linnet_status linnet_session_set_adapter(linnet_session *session, const linnet_adapter *adapter,
                                         linnet_error *err) LINNET_NODISCARD;
/** The same in mid-text: what was fed stays as the old adapter made it, and goes on with the new one. After
 * an error the session has no adapter. */
linnet_status linnet_session_swap_adapter(linnet_session *session, const linnet_adapter *adapter,
                                          linnet_error *err) LINNET_NODISCARD;
void linnet_session_reset(linnet_session *session);
/** Feed n >= 1 ids behind those fed before; logits of the last one (vocabulary floats) are borrowed until the
 * next call. RANGE for an id outside the vocabulary; LIMIT where the cache is full. */
linnet_status linnet_session_feed(linnet_session *session, const int32_t *ids, size_t n,
                                  const float **ret_logits, linnet_error *err) LINNET_NODISCARD;
size_t linnet_session_n_tokens(const linnet_session *session); /* fed so far */
size_t linnet_session_bytes(const linnet_session *session);    /* with its present adapter's activations */

/* ---- scoring and training ---- */
/** Memory for one sequence at a time of up to context_tokens: checkpoints, one layer's activations, loss
 * tiles. One per worker thread; never shared. With train false only what scoring needs. context_tokens 0: the
 * model's context. All is allocated here, but for the adapter's activations (rank sum of a layer x context),
 * which grow with the first adapter of a larger rank. UNSUPPORTED for an encoder without a head. */
typedef struct linnet_arena linnet_arena;
linnet_status linnet_arena_create(const linnet_model *model, linnet_thread_pool *pool,
                                  uint32_t context_tokens, bool train, linnet_arena **ret_arena,
                                  linnet_error *err) LINNET_NODISCARD;
/** The same within a budget: the longest context up to *context_tokens whose arena, with what the adapter
 * (may be NULL) makes it grow by, takes at most bytes_max. LIMIT where context_min takes more: *ret_needed,
 * set then too (else 0), is what it takes. */
linnet_status linnet_arena_create_within(const linnet_model *model, linnet_thread_pool *pool,
                                         const linnet_adapter *adapter, size_t bytes_max,
                                         uint32_t context_min, bool train, uint32_t *context_tokens,
                                         size_t *ret_needed, linnet_arena **ret_arena,
                                         linnet_error *err) LINNET_NODISCARD;
void linnet_arena_destroy(linnet_arena *arena);
size_t linnet_arena_bytes(const linnet_arena *arena);

/** A tokenised record: ids, and for each id whether it is a counted target (counted[0] is ignored: nothing
 * predicts it). Or ids and the one label of them all, for a model with a head; that counts as one target. */
typedef struct linnet_sequence {
    const int32_t *ids;
    const uint8_t *counted; /* not looked at where it has a label */
    size_t n_ids;
    bool has_label;
    uint32_t label;
} linnet_sequence;

/** Sum of -ln p over the counted targets, in nats (double), and their number. adapter may be NULL. ret_each
 * (may be NULL) gets n_ids losses, 0 where not counted; that of a label is the first. LIMIT for a sequence
 * beyond the context, RANGE for an id outside the vocabulary, a label that the model has not, and a loss that
 * is not finite, UNSUPPORTED for a label where the model has none and the other way round, MISMATCH for an
 * adapter of another model. */
linnet_status linnet_arena_score(linnet_arena *arena, const linnet_adapter *adapter,
                                 const linnet_sequence *sequence, double *ret_loss_sum, size_t *ret_n_counted,
                                 float *ret_each, linnet_error *err) LINNET_NODISCARD;

/** LoRA dropout of one gradient pass: every adapted matrix's side path sees its input with a share of the
 * elements dropped and the others divided by 1 - share. Which ones is a function of all four numbers, the
 * matrix, the token's place and the column, and of nothing else. */
typedef struct linnet_dropout {
    double share; /* 0: off; below 1; in steps of 1/65536, the smallest where it is less */
    uint64_t seed, step, record;
} linnet_dropout;

/** Add scale x d(loss sum)/d(factor) of the active factors to gradient (n_parameters floats in the adapter's
 * data order; inactive factors untouched), and return the loss sum as score does. The whole pass: forward
 * with checkpoints per layer, loss in vocabulary tiles, backward with recomputation down to the lowest
 * adapted layer. In a B-only phase inputs of linears are not kept. dropout may be NULL: none; scoring has
 * none ever. Errors as score's, ARG for a scoring arena; the gradient is then untouched. */
linnet_status linnet_arena_gradient(linnet_arena *arena, const linnet_adapter *adapter,
                                    linnet_factors factors, const linnet_dropout *dropout,
                                    const linnet_sequence *sequence, double scale, float *gradient,
                                    double *ret_loss_sum, size_t *ret_n_counted,
                                    linnet_error *err) LINNET_NODISCARD;

/** Logits of a text's labels (linnet_model_n_labels floats), borrowed until the arena is used again or
 * destroyed. Errors as score's. */
linnet_status linnet_arena_classify(linnet_arena *arena, const linnet_adapter *adapter, const int32_t *ids,
                                    size_t n_ids, const float **ret_logits,
                                    linnet_error *err) LINNET_NODISCARD;
/** Those of the sequence that was scored last; NULL for a model without a head. */
const float *linnet_arena_logits(const linnet_arena *arena);

#endif
