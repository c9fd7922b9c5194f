/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of architectures. Sources: the families' papers and their modules in Hugging Face transformers;
 * names of keys and tensors: the GGUF specification and llama.cpp's converters.
 */
#include "linnet/architecture.h"

#define BIT(target) (UINT32_C(1) << LINNET_TARGET_##target)
#define QKV_BIASES (BIT(ATTN_Q) | BIT(ATTN_K) | BIT(ATTN_V))
#define ALL_BIASES (QKV_BIASES | BIT(ATTN_OUTPUT) | BIT(FFN_UP) | BIT(FFN_DOWN))

/* clang-format off */
#define LLAMA_MODULES \
    .hf_layers = "model.layers", \
    .hf = {[LINNET_TARGET_ATTN_Q] = "self_attn.q_proj", [LINNET_TARGET_ATTN_K] = "self_attn.k_proj", \
           [LINNET_TARGET_ATTN_V] = "self_attn.v_proj", [LINNET_TARGET_ATTN_OUTPUT] = "self_attn.o_proj", \
           [LINNET_TARGET_FFN_GATE] = "mlp.gate_proj", [LINNET_TARGET_FFN_UP] = "mlp.up_proj", \
           [LINNET_TARGET_FFN_DOWN] = "mlp.down_proj"}
/* clang-format on */

static const linnet_architecture table[] = {
    /* LLaMA 2 and 3, Vicuna, Alpaca, TinyLlama, SmolLM2, and Mistral, whose window is a key of the file */
    {.name = "llama", .rope = LINNET_ROPE_PAIRS, LLAMA_MODULES},
    {.name = "mistral", .rope = LINNET_ROPE_PAIRS, LLAMA_MODULES},
    {.name = "granite", .rope = LINNET_ROPE_PAIRS, .has_multipliers = true, LLAMA_MODULES},
    {.name = "qwen2", .rope = LINNET_ROPE_HALVES, .biases = QKV_BIASES, LLAMA_MODULES},
    {.name = "qwen3", .rope = LINNET_ROPE_HALVES, .has_qk_norms = true, LLAMA_MODULES},
    {.name = "gemma2",
     .activation = LINNET_ACTIVATION_GEGLU,
     .rope = LINNET_ROPE_HALVES,
     .has_post_norms = true,
     .scales_embedding = true,
     .window_period = 2,
     .window = 4096,
     .attention_cap = 50,
     .logit_cap = 30,
     .wide_layers = 46,
     LLAMA_MODULES},
    {.name = "gemma3",
     .activation = LINNET_ACTIVATION_GEGLU,
     .rope = LINNET_ROPE_HALVES,
     .has_post_norms = true,
     .has_qk_norms = true,
     .scales_embedding = true,
     .window_period = 6,
     .local_rope_base = 10000,
     .wide_layers = 62,
     LLAMA_MODULES},
    {.name = "phi2",
     .norm = LINNET_NORM_LAYER,
     .activation = LINNET_ACTIVATION_GELU,
     .rope = LINNET_ROPE_HALVES,
     .is_parallel = true,
     .biases = ALL_BIASES,
     .has_output_bias = true,
     .hf_layers = "model.layers",
     .hf = {[LINNET_TARGET_ATTN_Q] = "self_attn.q_proj",
            [LINNET_TARGET_ATTN_K] = "self_attn.k_proj",
            [LINNET_TARGET_ATTN_V] = "self_attn.v_proj",
            [LINNET_TARGET_ATTN_OUTPUT] = "self_attn.dense",
            [LINNET_TARGET_FFN_UP] = "mlp.fc1",
            [LINNET_TARGET_FFN_DOWN] = "mlp.fc2"}},
    {.name = "phi3",
     .rope = LINNET_ROPE_HALVES,
     .has_fused_gate = true,
     .hf_layers = "model.layers",
     .hf = {[LINNET_TARGET_ATTN_OUTPUT] = "self_attn.o_proj",
            [LINNET_TARGET_FFN_UP] = "mlp.gate_up_proj",
            [LINNET_TARGET_FFN_DOWN] = "mlp.down_proj",
            [LINNET_TARGET_ATTN_QKV] = "self_attn.qkv_proj"}},
    {.name = "starcoder2",
     .norm = LINNET_NORM_LAYER,
     .activation = LINNET_ACTIVATION_GELU,
     .rope = LINNET_ROPE_HALVES,
     .biases = ALL_BIASES,
     .hf_layers = "model.layers",
     .hf = {[LINNET_TARGET_ATTN_Q] = "self_attn.q_proj",
            [LINNET_TARGET_ATTN_K] = "self_attn.k_proj",
            [LINNET_TARGET_ATTN_V] = "self_attn.v_proj",
            [LINNET_TARGET_ATTN_OUTPUT] = "self_attn.o_proj",
            [LINNET_TARGET_FFN_UP] = "mlp.c_fc",
            [LINNET_TARGET_FFN_DOWN] = "mlp.c_proj"}},
    {.name = "gpt2",
     .norm = LINNET_NORM_LAYER,
     .activation = LINNET_ACTIVATION_GELU,
     .biases = ALL_BIASES,
     .hf_layers = "transformer.h",
     .hf = {[LINNET_TARGET_ATTN_OUTPUT] = "attn.c_proj",
            [LINNET_TARGET_FFN_UP] = "mlp.c_fc",
            [LINNET_TARGET_FFN_DOWN] = "mlp.c_proj",
            [LINNET_TARGET_ATTN_QKV] = "attn.c_attn"},
     .hf_is_transposed = true},
    /* BERT, TinyBERT: encoders that classify */
    {.name = "bert",
     .norm = LINNET_NORM_LAYER,
     .activation = LINNET_ACTIVATION_GELU_ERF,
     .norms_sums = true,
     .is_bidirectional = true,
     .has_embedding_norm = true,
     .has_token_types = true,
     .has_pooled_head = true,
     .biases = ALL_BIASES,
     .hf_layers = "bert.encoder.layer",
     .hf = {[LINNET_TARGET_ATTN_Q] = "attention.self.query",
            [LINNET_TARGET_ATTN_K] = "attention.self.key",
            [LINNET_TARGET_ATTN_V] = "attention.self.value",
            [LINNET_TARGET_ATTN_OUTPUT] = "attention.output.dense",
            [LINNET_TARGET_FFN_UP] = "intermediate.dense",
            [LINNET_TARGET_FFN_DOWN] = "output.dense",
            [LINNET_TARGET_CLS] = "bert.pooler.dense",
            [LINNET_TARGET_CLS_OUTPUT] = "classifier"}},
};

/* llama as a checkpoint of Hugging Face has it. */
static const linnet_architecture llama_in_halves = {
    .name = "llama", .rope = LINNET_ROPE_HALVES, LLAMA_MODULES};

const linnet_architecture *linnet_architecture_at(size_t i)
{
    return i < ARRAY_LEN(table) ? &table[i] : NULL;
}

const linnet_architecture *linnet_architecture_find(linnet_text name)
{
    for (size_t i = 0; i < ARRAY_LEN(table); i++)
        if (linnet_text_is(name, table[i].name))
            return &table[i];
    return NULL;
}

static linnet_status unknown(const linnet_gguf *gguf, linnet_text name, linnet_error *err)
{
    linnet_buffer known = {0};
    for (size_t i = 0; i < ARRAY_LEN(table); i++)
        linnet_buffer_append_format(&known, "%s%s", i > 0 ? ", " : "", table[i].name);
    linnet_buffer_append(&known, "", 1);
    linnet_status status =
        linnet_fail(err, LINNET_ERR_UNSUPPORTED, "model '%s' has architecture '%.*s'; linnet runs %s",
                    linnet_gguf_path(gguf), name.n_bytes < 40 ? (int)name.n_bytes : 40, name.bytes,
                    known.failed ? "llama and others" : (const char *)known.bytes);
    linnet_buffer_release(&known);
    return status;
}

linnet_status linnet_architecture_of(const linnet_gguf *gguf, const linnet_architecture **ret_architecture,
                                     linnet_error *err)
{
    linnet_text name = {"", 0};
    linnet_status status = linnet_gguf_get_text(gguf, "general.architecture", &name, err);
    if (status == LINNET_ERR_NOT_FOUND)
        return linnet_fail(err, LINNET_ERR_UNSUPPORTED, "model '%s' has no key 'general.architecture'",
                           linnet_gguf_path(gguf));
    if (status != LINNET_OK)
        return status;
    *ret_architecture = linnet_architecture_find(name);
    if (linnet_gguf_is_checkpoint(gguf) && linnet_text_is(name, llama_in_halves.name))
        *ret_architecture = &llama_in_halves;
    return *ret_architecture ? LINNET_OK : unknown(gguf, name, err);
}
