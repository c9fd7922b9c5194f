/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_ARCHITECTURE_H
#define LINNET_ARCHITECTURE_H

/* What linnet knows of a family of models: one row of a table, from which the engine runs and differentiates
 * it and adapters find their names in other programs. A new family is a row in architecture.c, where it does
 * nothing that no row does yet; docs/adding-a-model.md shows it. What a file may leave out or bring along
 * (biases, a fused matrix of q, k and v, an output matrix of its own) is read from its tensors. */

#include "linnet/adapter.h"

typedef enum linnet_norm_kind {
    LINNET_NORM_RMS,  /* x / rms(x) w (Zhang and Sennrich 2019) */
    LINNET_NORM_LAYER /* (x - mean) / deviation w + b (Ba et al. 2016) */
} linnet_norm_kind;

/** The feed-forward network: down(act(gate x) * up x), or down(act(up x)) without a gate. */
typedef enum linnet_activation {
    LINNET_ACTIVATION_SWIGLU,  /* silu, gated (Shazeer 2020) */
    LINNET_ACTIVATION_GEGLU,   /* gelu in its tanh form, gated */
    LINNET_ACTIVATION_GELU,    /* gelu in its tanh form (Hendrycks and Gimpel 2016), no gate */
    LINNET_ACTIVATION_GELU_ERF /* gelu as it is defined, x times the normal distribution's share below x */
} linnet_activation;
static inline bool linnet_activation_has_gate(linnet_activation activation)
{
    return activation == LINNET_ACTIVATION_SWIGLU || activation == LINNET_ACTIVATION_GEGLU;
}

/** Rotary positions (Su et al. 2021): which elements of a head turn together. */
typedef enum linnet_rope_kind {
    LINNET_ROPE_NONE,  /* positions are learned vectors, added to the embedding */
    LINNET_ROPE_PAIRS, /* 2i and 2i + 1. Hugging Face has the rows of q and k in the order of halves */
    LINNET_ROPE_HALVES /* i and i + width / 2 */
} linnet_rope_kind;

typedef struct linnet_architecture {
    const char *name; /* general.architecture */
    linnet_norm_kind norm;
    linnet_activation activation;
    linnet_rope_kind rope;
    bool is_parallel;        /* attention and feed-forward read the same normed input (Wang 2021, GPT-J) */
    bool has_post_norms;     /* a norm behind attention and one behind the feed-forward, before each sum */
    bool norms_sums;         /* norms behind the two sums of a block, none before its branches and none behind
                                the last block (Vaswani et al. 2017) */
    bool is_bidirectional;   /* a token sees those behind it too: an encoder, which writes no text */
    bool has_embedding_norm; /* a norm behind the sum of embeddings */
    bool has_token_types;    /* embeddings of kinds of text, of which the first is added everywhere */
    bool has_pooled_head;    /* in place of an output matrix: labels from the first token, if the file has
                                cls.output; through tanh of cls, if it has that */
    bool has_qk_norms;       /* RMS norms over each head of q and of k, before they turn */
    bool has_fused_gate;     /* ffn_up holds the rows of gate, then those of up */
    bool scales_embedding;   /* by sqrt(width) */
    bool has_multipliers;    /* keys scale embedding, residual sums, scores and logits (granite) */
    uint32_t window_period;  /* with a sliding window: 0, all layers have it; n, every n-th sees everything */
    uint32_t window;         /* where the file does not say; 0: none */
    float local_rope_base;   /* of layers with a window; 0: that of the others */
    float attention_cap, logit_cap; /* where the file does not say; 0: none */
    uint32_t biases;                /* mask of linnet_target: those that must have one */
    bool has_output_bias;
    uint32_t wide_layers; /* so many layers: the largest of the family scales scores by sqrt(width / heads) */

    const char *hf_layers;          /* where Hugging Face keeps the blocks: "model.layers" */
    const char *hf[LINNET_TARGETS]; /* a target's module in a block: "self_attn.q_proj", of the head in the
                                       model: "classifier"; NULL: it has none */
    bool hf_is_transposed;          /* modules are Conv1D: PEFT says fan_in_fan_out */
} linnet_architecture;

/** The row of this name; NULL: none. */
const linnet_architecture *linnet_architecture_find(linnet_text name);
/** Row i of the table; NULL past its end. */
const linnet_architecture *linnet_architecture_at(size_t i);
/** The row of a model file; of a checkpoint of llama one whose q and k turn in halves. UNSUPPORTED names an
 * unknown architecture and those that linnet runs. */
linnet_status linnet_architecture_of(const linnet_gguf *gguf, const linnet_architecture **ret_architecture,
                                     linnet_error *err) LINNET_NODISCARD;

#endif
