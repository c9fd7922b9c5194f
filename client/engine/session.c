/* SPDX-License-Identifier: Apache-2.0 */
/* Inference with a key/value cache. Tokens are fed in chunks: all of a chunk go through a layer together, so
 * that weights are decoded once a chunk; a single token takes the products' dot-product path. Keys and values
 * are kept as float32, keys rotated. In the last layer only the last token's output is needed. */
#include <stdlib.h>

#include "attention.h"
#include "block.h"
#include "ops.h"

enum { CHUNK_TOKENS = 256 };

struct linnet_session {
    const linnet_model *model; /* borrowed */
    size_t context_tokens, n_tokens;
    linnet_workspace work;
    linnet_lora_table lora;
    linnet_block block;
    float *k, *v;  /* [layer][context_tokens][kv_width] */
    float *x;      /* the residual stream of a chunk */
    float *logits; /* vocabulary */
    void *memory;  /* owned: the buffers above */
    float *h;      /* owned: of the current adapter */
    size_t n_bytes;
};

static linnet_status place_buffers(linnet_session *session, linnet_error *err)
{
    const linnet_model *model = session->model;
    size_t n_cached, n_bytes;
    size_t chunk = session->context_tokens < CHUNK_TOKENS ? session->context_tokens : CHUNK_TOKENS;
    if (!linnet_size_mul(model->shape.n_layers, session->context_tokens, &n_cached))
        return linnet_fail(err, LINNET_ERR_LIMIT, "a context of %zu tokens is too long",
                           session->context_tokens);
    session->block = (linnet_block){.model = model, .work = &session->work, .n_tokens_max = chunk};
    linnet_part parts[LINNET_BLOCK_PARTS + 4] = {
        {&session->k, n_cached, model->kv_width},
        {&session->v, n_cached, model->kv_width},
        {&session->x, chunk, model->shape.width},
        {&session->logits, 1, model->shape.vocabulary},
    };
    linnet_block_parts(&session->block, false, parts + 4);
    linnet_status status = linnet_parts_place(parts, ARRAY_LEN(parts), &session->memory, &n_bytes, err);
    if (status != LINNET_OK)
        return status;
    linnet_block_share(&session->block, false);
    session->n_bytes = sizeof(*session) + session->work.n_bytes + n_bytes;
    return LINNET_OK;
}

linnet_status linnet_session_create(const linnet_model *model, linnet_thread_pool *pool,
                                    uint32_t context_tokens, linnet_session **ret_session, linnet_error *err)
{
    if (linnet_model_is_encoder(model))
        return linnet_fail(err, LINNET_ERR_UNSUPPORTED,
                           "model '%s' is an encoder, which reads texts and writes none",
                           linnet_gguf_path(model->gguf));
    linnet_session *session = calloc(1, sizeof(*session));
    if (!session)
        return linnet_fail(err, LINNET_ERR_NOMEM, "no memory for a session");
    session->model = model;
    session->context_tokens = context_tokens == 0 ? model->shape.context : context_tokens;
    linnet_status status = linnet_workspace_init(&session->work, model, pool, session->context_tokens,
                                                 LINNET_ATTENTION_ROWS, err);
    if (status == LINNET_OK)
        status = linnet_lora_table_init(&session->lora, model, err);
    if (status == LINNET_OK)
        status = place_buffers(session, err);
    if (status != LINNET_OK) {
        linnet_session_destroy(session);
        return status;
    }
    *ret_session = session;
    return LINNET_OK;
}

void linnet_session_destroy(linnet_session *session)
{
    if (!session)
        return;
    linnet_workspace_release(&session->work);
    linnet_lora_table_release(&session->lora);
    free(session->memory);
    free(session->h);
    free(session);
}

linnet_status linnet_session_set_adapter(linnet_session *session, const linnet_adapter *adapter,
                                         linnet_error *err)
{
    linnet_session_reset(session);
    return linnet_session_swap_adapter(session, adapter, err);
}

linnet_status linnet_session_swap_adapter(linnet_session *session, const linnet_adapter *adapter,
                                          linnet_error *err)
{
    linnet_status status = linnet_lora_bind(&session->lora, session->model, adapter, err);
    if (status != LINNET_OK)
        return status;
    /* At most LINNET_LINEARS x LINNET_RANK_MAX columns for a chunk: far from overflow. */
    size_t n_floats = session->block.n_tokens_max * session->lora.rank_sum;
    float *h = malloc((n_floats > 0 ? n_floats : 1) * sizeof(float));
    if (!h) {
        linnet_lora_unbind(&session->lora, session->model);
        return linnet_fail(err, LINNET_ERR_NOMEM, "no memory for the adapter's activations");
    }
    free(session->h);
    session->h = session->block.h = h;
    return LINNET_OK;
}

void linnet_session_reset(linnet_session *session)
{
    session->n_tokens = 0;
}

size_t linnet_session_n_tokens(const linnet_session *session)
{
    return session->n_tokens;
}

size_t linnet_session_bytes(const linnet_session *session)
{
    return session->n_bytes + session->block.n_tokens_max * session->lora.rank_sum * sizeof(float);
}

static linnet_status check_ids(const linnet_session *session, const int32_t *ids, size_t n, linnet_error *err)
{
    if (n == 0)
        return linnet_fail(err, LINNET_ERR_ARG, "no tokens to feed");
    for (size_t i = 0; i < n; i++)
        if (ids[i] < 0 || (uint32_t)ids[i] >= session->model->shape.vocabulary)
            return linnet_fail(err, LINNET_ERR_RANGE, "token %zu has id %ld, outside the vocabulary of %u", i,
                               (long)ids[i], (unsigned)session->model->shape.vocabulary);
    if (n > session->context_tokens - session->n_tokens)
        return linnet_fail(err, LINNET_ERR_LIMIT, "%zu tokens after %zu do not fit a context of %zu", n,
                           session->n_tokens, session->context_tokens);
    return LINNET_OK;
}

/* The last token's output of the last layer ends in row 0 of x. */
static void feed_chunk(linnet_session *session, const int32_t *ids, size_t n)
{
    const linnet_model *model = session->model;
    size_t cache_stride = session->context_tokens * model->kv_width;
    linnet_embed(&session->work, model, ids, n, session->n_tokens, session->x);
    for (uint32_t layer = 0; layer < model->shape.n_layers; layer++) {
        linnet_block_pass pass = {.layer = layer,
                                  .lora = session->lora.entries + (size_t)layer * LINNET_LINEARS,
                                  .n_tokens = n,
                                  .position = session->n_tokens,
                                  .k = session->k + layer * cache_stride,
                                  .v = session->v + layer * cache_stride};
        size_t skip = layer + 1 == model->shape.n_layers ? n - 1 : 0;
        linnet_block_forward(&session->block, &pass, session->x, skip, session->x);
    }
    session->n_tokens += n;
}

linnet_status linnet_session_feed(linnet_session *session, const int32_t *ids, size_t n,
                                  const float **ret_logits, linnet_error *err)
{
    const linnet_model *model = session->model;
    linnet_status status = check_ids(session, ids, n, err);
    if (status != LINNET_OK)
        return status;
    for (size_t at = 0, chunk; at < n; at += chunk) {
        chunk = n - at < session->block.n_tokens_max ? n - at : session->block.n_tokens_max;
        feed_chunk(session, ids + at, chunk);
    }
    linnet_norm_forward(&session->work, &model->output_norm, session->x, 1, model->shape.width, session->x);
    linnet_product_forward(&session->work.product, &model->output, session->x, 1, session->logits);
    linnet_finish_logits(session->work.product.kernels, model, 0, model->shape.vocabulary, session->logits);
    *ret_logits = session->logits;
    return LINNET_OK;
}
