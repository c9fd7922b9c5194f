/* SPDX-License-Identifier: Apache-2.0 */
/* A small program over llama.cpp's C interface, for comparisons (script/interop builds it beside a llama.cpp
 * that is on the machine): it tokenises a text, feeds it and prints one JSON object,
 *
 *     llama_peer MODEL.gguf TEXT GREEDY [ADAPTER.gguf SCALE]...
 *     {"ids": [...], "losses": [...], "logits": [... of the last token ...], "greedy": [...]}
 *
 * or, of a model with labels, {"ids": [...], "labels": [... their logits ...]}.
 *
 * Key/value cache in F32, flash attention off, one thread. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "llama.h"

enum { IDS_MAX = 4096, ADAPTERS_MAX = 8 };

static void fail(const char *what)
{
    fprintf(stderr, "llama_peer: %s\n", what);
    exit(1);
}

static void quiet(enum ggml_log_level level, const char *text, void *context)
{
    (void)context;
    if (level == GGML_LOG_LEVEL_ERROR)
        fputs(text, stderr);
}

static void feed(struct llama_context *ctx, const llama_token *ids, int n, int first)
{
    struct llama_batch batch = llama_batch_init(n, 0, 1);
    for (int i = 0; i < n; i++) {
        batch.token[i] = ids[i];
        batch.pos[i] = first + i;
        batch.n_seq_id[i] = 1;
        batch.seq_id[i][0] = 0;
        batch.logits[i] = 1;
    }
    batch.n_tokens = n;
    if (llama_decode(ctx, batch) != 0)
        fail("llama_decode");
    llama_batch_free(batch);
}

static double loss_of(const float *logits, int n_vocabulary, llama_token target)
{
    double top = logits[0], sum = 0;
    for (int i = 1; i < n_vocabulary; i++)
        top = logits[i] > top ? logits[i] : top;
    for (int i = 0; i < n_vocabulary; i++)
        sum += exp(logits[i] - top);
    return log(sum) + top - logits[target];
}

static llama_token best_of(const float *logits, int n_vocabulary)
{
    llama_token best = 0;
    for (llama_token i = 1; i < n_vocabulary; i++)
        if (logits[i] > logits[best])
            best = i;
    return best;
}

static void print_ids(const llama_token *ids, int n)
{
    printf("{\"ids\": [");
    for (int i = 0; i < n; i++)
        printf("%s%d", i ? ", " : "", ids[i]);
    printf("], ");
}

static void print_labels(struct llama_context *ctx, const llama_token *ids, int n, uint32_t n_labels)
{
    feed(ctx, ids, n, 0);
    const float *logits = llama_get_embeddings_seq(ctx, 0);
    if (!logits)
        fail("no logits of labels");
    print_ids(ids, n);
    printf("\"labels\": [");
    for (uint32_t i = 0; i < n_labels; i++)
        printf("%s%.9g", i ? ", " : "", logits[i]);
    printf("]}\n");
}

int main(int argc, char **argv)
{
    struct llama_adapter_lora *adapters[ADAPTERS_MAX];
    float scales[ADAPTERS_MAX];
    size_t n_adapters = 0;
    llama_token ids[IDS_MAX];
    if (argc < 4)
        fail("usage: llama_peer MODEL.gguf TEXT GREEDY [ADAPTER.gguf SCALE]...");
    llama_log_set(quiet, NULL);
    llama_backend_init();
    struct llama_model_params model_params = llama_model_default_params();
    model_params.n_gpu_layers = 0;
    struct llama_model *model = llama_model_load_from_file(argv[1], model_params);
    if (!model)
        fail("the model does not load");
    const struct llama_vocab *vocabulary = llama_model_get_vocab(model);
    int n_vocabulary = llama_vocab_n_tokens(vocabulary), n_greedy = atoi(argv[3]);
    int n = llama_tokenize(vocabulary, argv[2], (int32_t)strlen(argv[2]), ids, IDS_MAX / 2, true, false);
    if (n < 2)
        fail("fewer than two tokens");
    struct llama_context_params params = llama_context_default_params();
    params.n_ctx = (uint32_t)(n + n_greedy < 64 ? 64 : n + n_greedy);
    params.n_batch = params.n_ubatch = params.n_ctx;
    params.n_threads = params.n_threads_batch = 1;
    params.type_k = params.type_v = GGML_TYPE_F32;
    params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_DISABLED;
    uint32_t n_labels = llama_model_n_cls_out(model); /* 1 where it has none */
    params.embeddings = n_labels > 1;
    if (n_labels > 1)
        params.pooling_type = LLAMA_POOLING_TYPE_RANK;
    struct llama_context *ctx = llama_init_from_model(model, params);
    if (!ctx)
        fail("no context");
    for (int i = 4; i + 1 < argc && n_adapters < ADAPTERS_MAX; i += 2) {
        adapters[n_adapters] = llama_adapter_lora_init(model, argv[i]);
        if (!adapters[n_adapters])
            fail("the adapter does not load");
        scales[n_adapters++] = (float)atof(argv[i + 1]);
    }
    if (n_adapters > 0 && llama_set_adapters_lora(ctx, adapters, n_adapters, scales) != 0)
        fail("the adapters cannot be set");
    if (n_labels > 1) {
        print_labels(ctx, ids, n, n_labels);
        llama_free(ctx);
        llama_model_free(model);
        return 0;
    }
    feed(ctx, ids, n, 0);
    print_ids(ids, n);
    printf("\"losses\": [");
    for (int i = 0; i + 1 < n; i++)
        printf("%s%.9g", i ? ", " : "", loss_of(llama_get_logits_ith(ctx, i), n_vocabulary, ids[i + 1]));
    const float *logits = llama_get_logits_ith(ctx, n - 1);
    printf("], \"logits\": [");
    for (int i = 0; i < n_vocabulary; i++)
        printf("%s%.9g", i ? ", " : "", logits[i]);
    printf("], \"greedy\": [");
    for (int i = 0; i < n_greedy; i++) {
        llama_token next = best_of(logits, n_vocabulary);
        printf("%s%d", i ? ", " : "", next);
        feed(ctx, &next, 1, n + i);
        logits = llama_get_logits_ith(ctx, 0);
    }
    printf("]}\n");
    llama_free(ctx);
    llama_model_free(model);
    return 0;
}
