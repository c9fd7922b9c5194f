/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LIN_LINNET_DEVICE_H
#define LIN_LINNET_DEVICE_H

/* liblinnet-device: a small language model inside an app or a firmware. It generates text from a GGUF model,
 * trains a LoRA adapter on texts of the device, and takes part in federated rounds.
 *
 * Handles (lin_model, lin_texts, lin_training, lin_agent) are opaque. A training and an agent keep what they
 * were made from alive: handles may be closed in any order. Closing takes NULL.
 *
 * Structs begin with their size. Zero one, set `size` to sizeof it, then the fields that matter: in options 0
 * is always the default. A library that is older than the header takes a larger struct whose unknown tail is
 * zero; a newer one takes a smaller struct. Structs that the library fills are filled up to `size`, and what
 * it does not know is zero. Strings and arrays in options are borrowed during the call, unless it says
 * otherwise.
 *
 * Errors: a call returns LIN_OK or a code, and then fills the lin_error that it was given (NULL: none); ret_*
 * are set on LIN_OK only. The library does not print, log, exit, abort or install signal handlers. Messages
 * are one line; they name files and numbers, never the user's texts.
 *
 * Threads: one call at a time works with a model, its trainings and its agents; another one meanwhile, also
 * from a callback, returns LIN_ERR_BUSY and changes nothing. An exchange of an agent over the network does
 * not occupy the model. From any thread, and from callbacks, at any time: lin_model_cancel,
 * lin_training_cancel, lin_agent_cancel, lin_training_progress, lin_model_describe, and
 * lin_model_use_adapters for a generation under way. Different models are independent. Texts are not to be
 * changed while another thread uses them. Callbacks run on the thread that called; they must not close the
 * handle that they were called for. A fork without exec must not go on with handles of its parent.
 *
 * Repeatable: same seed, same inputs, same instruction set, same bits, for any number of threads. */

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__) || defined(__clang__)
#define LIN_API __attribute__((visibility("default")))
#else
#define LIN_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ---- versions, errors ---- */

/** Of the interface: a program that was built with another major ABI does not fit. */
#define LIN_ABI 0

#define LIN_FOREVER UINT64_MAX /* milliseconds */

LIN_API const char *lin_version(void); /* "0.1.0"; static */
LIN_API uint32_t lin_abi(void);        /* LIN_ABI of the library that is loaded */

typedef enum lin_status {
    LIN_OK = 0,
    LIN_ERR_ARG = 1,         /* an argument makes no sense */
    LIN_ERR_NOMEM = 2,       /* no memory */
    LIN_ERR_IO = 3,          /* a file or the network failed */
    LIN_ERR_NOT_FOUND = 4,   /* no such file, or not enrolled */
    LIN_ERR_EXISTS = 5,      /* is there already */
    LIN_ERR_FORMAT = 6,      /* malformed file, line or text */
    LIN_ERR_RANGE = 7,       /* a number out of range; a loss that is not finite */
    LIN_ERR_LIMIT = 8,       /* over a limit; `needed_bytes` where memory_max is it */
    LIN_ERR_UNSUPPORTED = 9, /* an architecture, a type, or a newer option */
    LIN_ERR_MISMATCH = 10,   /* of another model, or of other settings */
    LIN_ERR_CRYPTO = 11,     /* a signature or a seal does not hold */
    LIN_ERR_DENIED = 12,     /* refused: rights, policy, a revoked device */
    LIN_ERR_EXPIRED = 13,    /* an invite, a key */
    LIN_ERR_CONFLICT = 14,   /* with what is stored */
    LIN_ERR_NO_SPACE = 15,   /* a full disk: what could not be stored did not happen; try later */
    LIN_ERR_BUSY = 16,       /* another call, or another process, is using it */
    LIN_ERR_AGAIN = 17,      /* try later */
    LIN_ERR_CANCELLED = 18,  /* as was asked for */
    LIN_ERR_INTERNAL = 19    /* a mistake in linnet */
} lin_status;

/** What a code means; static, never NULL. */
LIN_API const char *lin_status_text(lin_status status);

/** The caller's; frozen, so without a size. */
typedef struct lin_error {
    int32_t status;        /* a lin_status */
    uint32_t reserved;     /* 0 */
    uint64_t needed_bytes; /* of LIN_ERR_LIMIT by memory_max: what would do; else 0 */
    char message[496];     /* one line of UTF-8, zero at its end */
} lin_error;

/** Free memory that a call handed out. Takes NULL. */
LIN_API void lin_free(void *memory);

/* ---- a model ---- */

typedef struct lin_model lin_model;

typedef struct lin_model_options {
    uint32_t size;
    uint32_t n_threads;  /* 0: one per core */
    uint64_t memory_max; /* bytes that a generation, an evaluation or a training may take beside the mapped
                            weights; 0: no limit */
} lin_model_options;

/** Map a GGUF model, read-only; its pages are shared with other processes and may be dropped. options NULL:
 * all defaults. LIN_ERR_UNSUPPORTED and LIN_ERR_FORMAT name what is missing or wrong in the file. */
LIN_API lin_status lin_model_open(const char *path, const lin_model_options *options, lin_model **ret_model,
                                  lin_error *err);
LIN_API void lin_model_close(lin_model *model);

typedef struct lin_model_info {
    uint32_t size;
    uint32_t context_tokens; /* as trained */
    uint32_t vocabulary;     /* tokens */
    uint32_t n_layers;
    uint32_t n_threads;
    uint32_t has_chat_template; /* 0: messages are joined by newlines */
    uint64_t mapped_bytes;      /* of the file */
    char architecture[32];      /* "llama" */
    char type[16];              /* that most weights have: "Q8_0" */
} lin_model_info;

LIN_API lin_status lin_model_describe(const lin_model *model, lin_model_info *ret_info, lin_error *err);

/** Use n adapter files (PEFT directories, GGUF adapters), each times its scale (scales NULL: 1 each), summed;
 * n 0: none. On failure those before stay. A generation that runs in another thread, or that called back,
 * goes on with the new ones from its next token. */
LIN_API lin_status lin_model_use_adapters(lin_model *model, const char *const *paths, const float *scales,
                                          size_t n, lin_error *err);

/** End the generation or evaluation that is running on the model with LIN_ERR_CANCELLED, within one token
 * (256 tokens of a prompt, one record of an evaluation). Where none is running nothing happens. */
LIN_API void lin_model_cancel(lin_model *model);

/* ---- generating ---- */

typedef struct lin_generate_options {
    uint32_t size;
    uint32_t max_tokens;     /* 0: 64 */
    double temperature;      /* 0: always the likeliest token */
    double top_p;            /* draw from the likeliest tokens of this share; 0: 1, all */
    uint64_t seed;           /* of the draws */
    const char *const *stop; /* n_stop strings; one that comes ends the text and is not part of it */
    uint32_t n_stop;
    uint32_t context_tokens; /* 0: what prompt and max_tokens need, at most the model's */
} lin_generate_options;

typedef enum lin_stopped {
    LIN_STOPPED_END = 0,     /* the model ended the text, or its turn */
    LIN_STOPPED_TOKENS = 1,  /* max_tokens */
    LIN_STOPPED_CONTEXT = 2, /* the context is full */
    LIN_STOPPED_STRING = 3,  /* a stop string */
    LIN_STOPPED_CALLBACK = 4 /* the callback said so */
} lin_stopped;

typedef struct lin_generate_result {
    uint32_t size;
    uint32_t stopped; /* a lin_stopped */
    uint64_t n_prompt_tokens, n_tokens;
    double prefill_seconds, decode_seconds;
    uint64_t memory_bytes; /* that it took */
} lin_generate_result;

/** A piece of the text: n_bytes >= 1 of valid UTF-8, whole characters, no zero at the end; borrowed during
 * the call. Bytes that are no UTF-8 come as U+FFFD. Return 0 to go on, anything else to stop. */
typedef int lin_text_fn(void *user, const char *text, size_t n_bytes);

/** Continue a prompt (UTF-8). options, on_text and result may be NULL; result->size is set by the caller.
 * LIN_ERR_LIMIT where the prompt does not fit the context, or the context memory_max. */
LIN_API lin_status lin_generate(lin_model *model, const char *prompt, const lin_generate_options *options,
                                lin_text_fn *on_text, void *user, lin_generate_result *result,
                                lin_error *err);

typedef struct lin_message {
    const char *role; /* "system", "user", "assistant" */
    const char *content;
} lin_message; /* frozen */

/** The assistant's next turn of n >= 1 messages, in the model's own chat format. The rest as lin_generate. */
LIN_API lin_status lin_chat(lin_model *model, const lin_message *messages, size_t n,
                            const lin_generate_options *options, lin_text_fn *on_text, void *user,
                            lin_generate_result *result, lin_error *err);

/* ---- texts ---- */

typedef struct lin_texts lin_texts;

LIN_API lin_status lin_texts_create(lin_texts **ret_texts, lin_error *err);
LIN_API void lin_texts_close(lin_texts *texts);
/** All of the text is learned. LIN_ERR_FORMAT where it is no UTF-8; texts is then as before, as after every
 * failure below. */
LIN_API lin_status lin_texts_add(lin_texts *texts, const char *text, lin_error *err);
/** The completion is learned, behind the prompt. */
LIN_API lin_status lin_texts_add_completion(lin_texts *texts, const char *prompt, const char *completion,
                                            lin_error *err);
/** One line of a data file, with or without its newline: {"text"}, {"prompt","completion"} or {"messages"};
 * for an encoder {"text","label"}. The error names the line by the number that it would have had among these
 * texts, from 1. */
LIN_API lin_status lin_texts_add_json(lin_texts *texts, const char *line, size_t n_bytes, lin_error *err);
/** All lines of a data file; the error names file and line. */
LIN_API lin_status lin_texts_load(lin_texts *texts, const char *path, lin_error *err);
LIN_API size_t lin_texts_count(const lin_texts *texts);

/** Mean loss of texts under the model and the adapters in use, in nats a token. context_tokens 0: the
 * model's, or as many as memory_max allows, which longer texts are cut to. ret_tokens may be NULL.
 * LIN_ERR_ARG where no text has a token to score. */
LIN_API lin_status lin_evaluate(lin_model *model, const lin_texts *texts, uint32_t context_tokens,
                                double *ret_loss, uint64_t *ret_tokens, lin_error *err);

/* ---- training ---- */

typedef struct lin_training lin_training;

typedef enum lin_optimizer { LIN_ADAMW = 0, LIN_SGD = 1 } lin_optimizer;
typedef enum lin_schedule { LIN_CONSTANT = 0, LIN_COSINE = 1 } lin_schedule; /* cosine: down to a fiftieth */

#define LIN_TRAIN_IN_ORDER 1u     /* texts in their order, again and again; else shuffled in every pass */
#define LIN_TRAIN_NO_END_TOKEN 2u /* the end of a text is not learned */
#define LIN_TRAIN_RANK_ROOT 4u    /* scale by alpha / sqrt(rank) */

typedef struct lin_progress {
    uint32_t size;
    uint32_t step, n_steps; /* taken; planned */
    uint32_t is_done;       /* step == n_steps */
    double loss;            /* mean of the last step's batch before the step, nats a token; NaN: none yet */
    double learning_rate;   /* of the last step */
    uint64_t n_tokens;      /* that this handle has trained on */
    uint64_t n_texts;       /* with something to learn */
    uint64_t arena_bytes;   /* activations, of the context below */
    uint64_t state_bytes;   /* adapter, gradient and the optimizer's moments */
    uint32_t context_tokens;
    uint32_t reserved;
} lin_progress;

/** After every step, on the thread that runs it. Return 0 to go on, anything else to return from the run with
 * LIN_OK. */
typedef int lin_step_fn(void *user, const lin_progress *progress);

typedef struct lin_training_options {
    uint32_t size;
    uint32_t rank;       /* 0: 8 */
    double alpha;        /* the adapter is scaled by alpha / rank; 0: 16 */
    const char *targets; /* NULL: "all"; or "attn_q,attn_v", "q_proj:16", as linnet-client's --targets */
    const char *start_adapter; /* path; its rank, alpha and targets hold. NULL: a fresh one */
    double learning_rate;      /* of factor B; 0: 1e-3 */
    double learning_rate_a;    /* of factor A; 0: the same */
    double weight_decay;       /* 0: off */
    double clip_norm;          /* longest gradient; 0: 1; negative: off */
    int32_t warmup_steps;      /* until the full rate; 0: 3; negative: off */
    uint32_t n_steps;          /* 0: one pass over the texts */
    uint32_t batch_texts;      /* a step; 0: 4 */
    uint32_t context_tokens;   /* that a text is cut to; 0: 256, or the model's */
    uint32_t context_min;      /* memory_max may shorten it to this; 0: 16 */
    uint32_t optimizer;        /* a lin_optimizer */
    uint32_t schedule;         /* a lin_schedule */
    uint32_t flags;            /* LIN_TRAIN_... */
    uint64_t seed;             /* of the adapter's start, the order of texts and dropout */
    uint64_t memory_max;       /* bytes of arena and state together; 0: the model's memory_max */
    lin_step_fn *on_step;      /* may be NULL; with user kept for the training's life */
    void *user;
    double dropout; /* LoRA dropout while it trains: share that side paths do not see of their inputs; below
                       1; 0: off */
} lin_training_options;

/** Texts are tokenised now; later changes of them mean nothing. Where memory_max is too small for the
 * context, it is shortened down to context_min; LIN_ERR_LIMIT says in needed_bytes what that would take.
 * LIN_ERR_ARG where no text has a token to learn. */
LIN_API lin_status lin_training_create(lin_model *model, const lin_texts *texts,
                                       const lin_training_options *options, lin_training **ret_training,
                                       lin_error *err);
LIN_API void lin_training_close(lin_training *training);

/** Take steps until all are taken or budget_ms are over: at least one, and it returns behind the step that
 * passes the budget. progress may be NULL; it is set after a failure in here too. LIN_ERR_RANGE where the
 * loss is not finite: the adapter is then as before that step. After LIN_ERR_CANCELLED it can be called again
 * and goes on. */
LIN_API lin_status lin_training_run(lin_training *training, uint64_t budget_ms, lin_progress *progress,
                                    lin_error *err);
/** End the run under way, or else the next one, with LIN_ERR_CANCELLED: no step begins after this. */
LIN_API void lin_training_cancel(lin_training *training);
LIN_API lin_status lin_training_progress(const lin_training *training, lin_progress *ret_progress,
                                         lin_error *err);
/** Mean loss of texts (NULL: those that are trained on) with the adapter as it is now; as lin_evaluate. */
LIN_API lin_status lin_training_evaluate(lin_training *training, const lin_texts *texts, double *ret_loss,
                                         uint64_t *ret_tokens, lin_error *err);
/** The model uses the adapter as it is now (a copy) in place of those in use. */
LIN_API lin_status lin_training_use(lin_training *training, lin_error *err);

/** Write the adapter: a directory that peft loads, or a GGUF file that llama.cpp loads. LIN_ERR_RANGE where a
 * value is not finite. */
LIN_API lin_status lin_training_save_peft(lin_training *training, const char *directory, lin_error *err);
LIN_API lin_status lin_training_save_gguf(lin_training *training, const char *path, lin_error *err);

/** All that a later process needs to go on to the same bits, with the same model, texts and options. The
 * bytes are the caller's (lin_free). A file is replaced as a whole. They hold what was learned: keep them
 * private. */
LIN_API lin_status lin_training_checkpoint(lin_training *training, uint8_t **ret_bytes, size_t *ret_n_bytes,
                                           lin_error *err);
LIN_API lin_status lin_training_checkpoint_file(lin_training *training, const char *path, lin_error *err);
/** LIN_ERR_MISMATCH for a checkpoint of other settings or texts, LIN_ERR_FORMAT for a damaged one; the
 * training is then as before. */
LIN_API lin_status lin_training_restore(lin_training *training, const void *bytes, size_t n_bytes,
                                        lin_error *err);
LIN_API lin_status lin_training_restore_file(lin_training *training, const char *path, lin_error *err);

/* ---- the federated agent ---- */

typedef struct lin_agent lin_agent;

/** Join a task. The state directory (mode 0700) is made where it is absent. Needs the network, for as long as
 * its answers take. A device whose answer was lost asks again with the same call. The first call of
 * lin_enroll and lin_agent_open in a process is to be made before other threads use libcurl. */
LIN_API lin_status lin_enroll(const char *state_directory, const char *coordinator_url,
                              const char *invite_code, uint32_t device_class, lin_error *err);

typedef struct lin_agent_options {
    uint32_t size;
    uint32_t has_seed; /* trials: data order and rounding from `seed`, not from the system */
    uint64_t seed;
    const char *state_directory;
    lin_model *model;             /* the task's base model */
    const lin_texts *texts;       /* the device's own; may be added to between two steps */
    const lin_texts *held_out;    /* that new adapters are measured on; NULL: a part of texts */
    const char *policy_path;      /* what this device refuses, an INI file; NULL: the defaults */
    const char *consortium_path;  /* the only members to join with; NULL: the policy's, or anybody */
    const char *ledger_directory; /* where spent privacy is counted; share it among all tasks on the same
                                     texts. NULL: the state directory */
} lin_agent_options;

/** Take part with a state that was enrolled, from where it is: a process may be killed at any point, and what
 * was stored goes on. LIN_ERR_NOT_FOUND before lin_enroll; LIN_ERR_BUSY where another process has the state.
 * Reads the whole model file once, to know its hash. */
LIN_API lin_status lin_agent_open(const lin_agent_options *options, lin_agent **ret_agent, lin_error *err);
LIN_API void lin_agent_close(lin_agent *agent);

typedef enum lin_agent_did {
    LIN_AGENT_WAITED = 0,    /* nothing is due */
    LIN_AGENT_EXCHANGED = 1, /* one request and its answer, or no answer */
    LIN_AGENT_TRAINED = 2,   /* a slice of a local training */
    LIN_AGENT_EVALUATED = 3, /* a new adapter; see the report for whether it is installed */
    LIN_AGENT_FINISHED = 4   /* the task has ended */
} lin_agent_did;

typedef struct lin_agent_what {
    uint32_t size;
    uint32_t did;         /* a lin_agent_did */
    uint64_t wake_in_ms;  /* call again then; 0: there is more to do now; LIN_FOREVER: never */
    uint32_t n_steps;     /* of training, in this call */
    uint32_t is_in_round; /* a masked round is in flight: who goes away now drops out of it */
} lin_agent_what;

/** Do the next thing that is due, and only that: one exchange (as long as the network takes, at most about a
 * minute of silence), training for at most budget_ms (at least one step, as lin_training_run), or an
 * evaluation. The network failing is no error: it is tried later. LIN_ERR_NO_SPACE: what was to be done is
 * not done; make room and call again. LIN_ERR_DENIED: the device was revoked; LIN_ERR_MISMATCH: the task has
 * another base model; both stay so. LIN_ERR_LIMIT: the plan's context does not fit the model's memory_max.
 * After a failure `what` is set too, with did LIN_AGENT_WAITED and a time to try again. */
LIN_API lin_status lin_agent_step(lin_agent *agent, uint64_t budget_ms, lin_agent_what *ret_what,
                                  lin_error *err);
/** End the training slice under way, or else the next one, with LIN_ERR_CANCELLED within one step. */
LIN_API void lin_agent_cancel(lin_agent *agent);

typedef struct lin_agent_report {
    uint32_t size;
    uint32_t step, n_steps; /* of the training in progress */
    uint32_t is_finished, is_revoked, is_other_model, is_in_round;
    uint32_t operator_is_authority; /* nothing here protects against a malicious operator */
    uint64_t version;               /* newest release known */
    uint64_t round;                 /* last one joined */
    uint64_t n_contributions;       /* accepted */
    uint64_t bytes_up, bytes_down;
    double train_loss;           /* of the last step; NaN: none yet */
    double held_out_loss;        /* of the installed adapter; NaN: not measured */
    double dp_epsilon, dp_delta; /* spent, by the ledger, at dp_delta */
    double dp_epsilon_max;       /* the policy's; 0: no limit */
    char phase[16];     /* "idle", "fetching", "training", "ready", "uploading", "finished", "revoked"; of a
                           masked round "joining", "sharing", "uploading", "attesting", "unmasking" */
    char profile[16];   /* "plain", "secure", "secure+dp", "central-dp"; empty before the first plan */
    char device_id[40]; /* hex */
    char adapter[72];   /* hash of the installed one, hex; empty: none */
    char note[208];     /* why it waits or refuses, one line; may be empty */
} lin_agent_report;

LIN_API lin_status lin_agent_describe(const lin_agent *agent, lin_agent_report *ret_report, lin_error *err);
/** The model uses the installed adapter (a copy) in place of those in use; none before the first is
 * installed. Its files lie in the state directory too, in adapter/current. */
LIN_API lin_status lin_agent_use(lin_agent *agent, lin_error *err);

#ifdef __cplusplus
}
#endif

#endif
