/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_ADAPTER_H
#define LINNET_ADAPTER_H

/* A LoRA adapter as data (Hu et al. 2021): per adapted matrix W (rows, columns) the factors A (rank, columns)
 * and B (rows, rank), float32, row-major; y = W x + (alpha / rank) B (A x). The layout says which, in which
 * order. */

#include "linnet/gguf.h"
#include "linnet/hash.h"
#include "linnet/rng.h"

#define LINNET_RANK_MAX 256
#define LINNET_LAYOUT_ENTRIES_MAX 4096
#define LINNET_ADAPTER_BYTES_MAX ((size_t)1 << 30) /* files larger than this are refused */

/* The matrices of a block that an adapter may have factors for; a target set is a bit mask of them. The first
 * seven are the linears in the order in which they run. Some files keep q, k and v in one matrix. The last
 * two are no block's, but those of a model's classification head: the pooler, and the rows of labels. */
/* clang-format off */
#define LINNET_TARGET_LIST(X) \
    X(ATTN_Q, "attn_q") \
    X(ATTN_K, "attn_k") \
    X(ATTN_V, "attn_v") \
    X(ATTN_OUTPUT, "attn_output") \
    X(FFN_GATE, "ffn_gate") \
    X(FFN_UP, "ffn_up") \
    X(FFN_DOWN, "ffn_down") \
    X(ATTN_QKV, "attn_qkv") \
    X(CLS, "cls") \
    X(CLS_OUTPUT, "cls.output")
/* clang-format on */
typedef enum linnet_target {
#define LINNET_TARGET_ENUM(name, gguf) LINNET_TARGET_##name,
    LINNET_TARGET_LIST(LINNET_TARGET_ENUM)
#undef LINNET_TARGET_ENUM
        LINNET_TARGETS
} linnet_target;
#define LINNET_TARGETS_ALL ((UINT32_C(1) << LINNET_TARGETS) - 1) /* those that a model has */
const char *linnet_target_name(linnet_target target);            /* "attn_q" */
enum { LINNET_BLOCK_TARGETS = LINNET_TARGET_CLS };               /* those that every block has again */
/** Is it of the classification head, of which a model has one? */
static inline bool linnet_target_is_head(linnet_target target)
{
    return (size_t)target >= LINNET_BLOCK_TARGETS;
}
/** Where an entry of the head stands in a layout: behind those of all blocks. */
#define LINNET_LAYER_HEAD ((uint32_t)LINNET_LAYOUT_ENTRIES_MAX)
/** "all", or names with commas: GGUF's "attn_q,attn_v", or Hugging Face's of any architecture,
 * "q_proj,v_proj", "c_attn". ARG names the unknown one. */
linnet_status linnet_targets_parse(const char *text, uint32_t *ret_mask, linnet_error *err) LINNET_NODISCARD;

/** The factors of an adapter; a delta, a release and an encoding each name the ones that are active. */
typedef enum linnet_factors {
    LINNET_FACTOR_A = 1,
    LINNET_FACTOR_B = 2,
    LINNET_FACTORS_BOTH = 3
} linnet_factors;

typedef struct linnet_layout_entry {
    char name[64];  /* GGUF name of the adapted matrix: "blk.0.attn_q.weight", "cls.output.weight" */
    uint32_t layer; /* block index; LINNET_LAYER_HEAD of the head's */
    linnet_target target;
    uint32_t rows, columns, rank;
    float alpha;           /* of this matrix where it differs from the layout's; else 0 */
    uint32_t n_rope_heads; /* q and k that turn in pairs (LINNET_ROPE_PAIRS): heads whose rows Hugging Face
                              orders otherwise; else 0 */
    uint32_t
        n_hf_heads; /* the same of a checkpoint of Hugging Face: heads whose rows GGUF orders otherwise */
    size_t a_offset,
        b_offset; /* first float of A (rank x columns) and of B (rows x rank) in the adapter's data */
} linnet_layout_entry;

/** Ordered list of adapted matrices: by layer, then by target, the head's last. Immutable once made. */
typedef struct linnet_layout {
    float alpha;
    size_t n_entries;
    linnet_layout_entry *entries; /* owned */
    size_t n_parameters;          /* floats of A and B of all entries */
    size_t n_a, n_b;              /* floats of all A, of all B */
} linnet_layout;

/** The layout of these targets on a model file, with shapes and head counts from its metadata. Of
 * LINNET_TARGETS_ALL those are taken that the model has; of any other mask UNSUPPORTED names what is missing.
 * The same model, rank, alpha and targets give the same layout everywhere. */
linnet_status linnet_layout_create(const linnet_gguf *model, uint32_t rank, float alpha, uint32_t target_mask,
                                   linnet_layout **ret_layout, linnet_error *err) LINNET_NODISCARD;
/** The same for a list of names and patterns with ranks and alphas of their own, the first that fits a matrix
 * deciding: "attn_q:16,blk.[0-3].ffn_*:4:8,v_proj". NAME is a shell pattern over GGUF's names (attn_q,
 * blk.3.attn_q) and Hugging Face's (q_proj, self_attn.q_proj, layers.3.self_attn.q_proj); "all" is every
 * matrix. by_root: products count alpha / sqrt(rank), as rsLoRA wants. ARG for a bad list, UNSUPPORTED for an
 * item that names nothing. */
linnet_status linnet_layout_create_for(const linnet_gguf *model, const char *targets, uint32_t rank,
                                       float alpha, bool by_root, linnet_layout **ret_layout,
                                       linnet_error *err) LINNET_NODISCARD;
/** alpha / rank of an entry: what its product B A counts. */
static inline double linnet_layout_scale(const linnet_layout *layout, const linnet_layout_entry *entry)
{
    return (double)(entry->alpha != 0 ? entry->alpha : layout->alpha) / entry->rank;
}
linnet_layout *linnet_layout_copy(const linnet_layout *layout); /* NULL on lack of memory */
void linnet_layout_destroy(linnet_layout *layout);
bool linnet_layout_equal(const linnet_layout *a, const linnet_layout *b);
/** H("layou") over the canonical bytes: alpha f32, n u32, then per entry name length u16, name, rank u32,
 * rows u32, columns u32, dtype u8 = 0 (F32), offset of A and of B u64; all little-endian. Where an entry has
 * an alpha of its own, which no plan gives, those of all entries (f32) follow; then, where rows are in the
 * order of a checkpoint, n_hf_heads u32 of all entries. No task has either. */
linnet_hash linnet_layout_hash(const linnet_layout *layout);
/** The canonical bytes that the hash is over, appended. */
linnet_status linnet_layout_write(const linnet_layout *layout, linnet_buffer *ret_bytes,
                                  linnet_error *err) LINNET_NODISCARD;
/** From canonical bytes, which may be anybody's: a layout without entries, but with the lengths of all A and
 * of all B. Nothing in it is owned. */
linnet_status linnet_layout_lengths(const void *bytes, size_t n_bytes,
                                    linnet_layout *ret_layout) LINNET_NODISCARD;
const linnet_layout_entry *linnet_layout_find(const linnet_layout *layout, const char *name);

typedef struct linnet_adapter {
    linnet_layout *layout; /* owned */
    float *data;           /* owned, n_parameters floats: per entry A, then B */
    /* DoRA (Liu et al. 2024): row i of W + s B A counts magnitude_i over its own length. Of every entry the
     * rows, in layout order. Such an adapter is read, applied and merged; it is not trained or written. */
    float *magnitudes; /* owned; NULL: plain LoRA */
    float *gains;      /* owned: magnitude over length; NULL until linnet_model_prepare_adapter */
} linnet_adapter;

/** UNSUPPORTED for an adapter with magnitudes: what (a verb: "trained") is not done with DoRA. */
linnet_status linnet_adapter_require_plain(const linnet_adapter *adapter, const char *what,
                                           linnet_error *err) LINNET_NODISCARD;
/** A zero adapter; the layout is copied. */
linnet_status linnet_adapter_create(const linnet_layout *layout, linnet_adapter **ret_adapter,
                                    linnet_error *err) LINNET_NODISCARD;
linnet_status linnet_adapter_copy(const linnet_adapter *adapter, linnet_adapter **ret_adapter,
                                  linnet_error *err) LINNET_NODISCARD;
void linnet_adapter_destroy(linnet_adapter *adapter);
/** The start of every training: A has orthonormal rows (Gram-Schmidt of normal draws, one stream per entry)
 * times 1/sqrt(3), B is zero. Bits depend on seed, entry name, rank and columns only. */
void linnet_adapter_init(linnet_adapter *adapter, uint64_t seed);
static inline float *linnet_adapter_a(const linnet_adapter *adapter, size_t entry)
{
    return adapter->data + adapter->layout->entries[entry].a_offset;
}
static inline float *linnet_adapter_b(const linnet_adapter *adapter, size_t entry)
{
    return adapter->data + adapter->layout->entries[entry].b_offset;
}
/** Floats of magnitudes and gains before those of an entry; of entry n_entries: all. */
size_t linnet_layout_rows_before(const linnet_layout *layout, size_t entry);
/** RANGE, naming the tensor, where a value is NaN or infinite. */
linnet_status linnet_adapter_check_finite(const linnet_adapter *adapter, linnet_error *err) LINNET_NODISCARD;

/** The wire and store form: magic "LNAD", version u32 = 1, layout hash 32, n_parameters u64, floats LE. Its
 * H(OBJECT) is the adapter hash of a release. ret_bytes is appended to. */
linnet_status linnet_adapter_pack(const linnet_adapter *adapter, linnet_buffer *ret_bytes,
                                  linnet_error *err) LINNET_NODISCARD;
/** MISMATCH where the bytes are of another layout. */
linnet_status linnet_adapter_unpack(const linnet_layout *layout, const void *bytes, size_t n_bytes,
                                    linnet_adapter **ret_adapter, linnet_error *err) LINNET_NODISCARD;
linnet_hash linnet_adapter_hash(const linnet_adapter *adapter); /* H(OBJECT) of the packed form, streamed */

/* ---- files ---- */
/** A PEFT directory (adapter_config.json + adapter_model.safetensors) or a GGUF adapter file, told by what
 * `path` is. `model` gives shapes and head counts; MISMATCH names the tensor that does not fit it. Both
 * factors of q and k come into the model's row order. use_rslora, use_dora and patterns of ranks and alphas
 * are honoured; biases: UNSUPPORTED. */
linnet_status linnet_adapter_load(const char *path, const linnet_gguf *model, linnet_adapter **ret_adapter,
                                  linnet_error *err) LINNET_NODISCARD;
/** Write a PEFT directory that peft loads, with the module names of an architecture (base_model_name_or_path
 * from the argument; may be ""). Creates the directory. UNSUPPORTED for a matrix that has no module there. */
linnet_status linnet_adapter_save_peft(const linnet_adapter *adapter, const char *architecture,
                                       const char *directory, const char *base_model_name,
                                       linnet_error *err) LINNET_NODISCARD;
/** Write a GGUF adapter that llama.cpp loads: general.type adapter, adapter.type lora, adapter.lora.alpha,
 * tensors NAME.lora_a / NAME.lora_b in F32, general.architecture of the base. An alpha of an entry's own goes
 * into its B. */
linnet_status linnet_adapter_save_gguf(const linnet_adapter *adapter, const char *architecture,
                                       const char *path, linnet_error *err) LINNET_NODISCARD;
/** base + adapter into a new GGUF: adapted matrices become `type` (F32 or F16), everything else is copied.
 * UNSUPPORTED unless the base matrices are F32, F16 or BF16. */
linnet_status linnet_adapter_merge(const linnet_adapter *adapter, const linnet_gguf *model, uint32_t type,
                                   const char *path, linnet_error *err) LINNET_NODISCARD;

/** n >= 1 adapters of one model, each times its scale, as one adapter: its ranks are the sums of theirs.
 * MISMATCH where they are of different models, LIMIT where a sum exceeds LINNET_RANK_MAX. */
linnet_status linnet_adapter_blend(const linnet_adapter *const *adapters, const float *scales, size_t n,
                                   linnet_adapter **ret_adapter, linnet_error *err) LINNET_NODISCARD;

/* ---- deltas: raw factors in layout order, never scaled by alpha/rank ---- */
/** Floats of the active factors of a layout. */
size_t linnet_factors_length(const linnet_layout *layout, linnet_factors factors);
/** Gather / scatter-add between the adapter's data and a vector of one factor (A or B, not both) in layout
 * order. */
void linnet_factor_gather(const linnet_layout *layout, linnet_factors factor, const float *data,
                          float *vector);
void linnet_factor_scatter(const linnet_layout *layout, linnet_factors factor, const float *vector,
                           float *data);
/** delta = after - before for one factor, into vector[linnet_factors_length]. */
void linnet_delta_of(const linnet_adapter *after, const linnet_adapter *before, linnet_factors factor,
                     float *vector);

#endif
