/* SPDX-License-Identifier: Apache-2.0 */
/* Score and train on one sequence at a time. Forward, each layer's input is kept (a checkpoint) and nothing
 * else; the loss walks over vocabulary tiles, or is that of a label from the head; backward, each layer is
 * run again from its checkpoint and then differentiated (Chen et al. 2016, sublinear memory), except the
 * last, whose activations are still there, and down to the lowest adapted layer only. All memory is taken
 * when the arena is made, but for the side paths' h = A x: the first adapter of a larger rank makes that
 * grow. Tokens after the last counted target do not change the loss and are not run. */
#include <math.h>
#include <stdlib.h>

#include "attention.h"
#include "block.h"
#include "head.h"
#include "loss.h"
#include "ops.h"

struct linnet_arena {
    const linnet_model *model; /* borrowed */
    size_t context_tokens;
    bool train;
    linnet_workspace work;
    linnet_lora_table lora;
    linnet_block block;
    linnet_loss loss;       /* of a language model */
    linnet_head_state head; /* of an encoder */
    float *checkpoints;     /* train: n_layers + 1 inputs (context, width); else one that all layers share */
    float *k, *v;           /* one layer's */
    float *d_x;             /* train: the residual stream's gradient; the loss's d_hidden first */
    float *losses;          /* doubles: of the counted targets */
    float *positions;       /* uint32: token that predicts counted target i */
    float *targets;         /* int32: counted target i */
    void *memory;           /* owned: the buffers above */
    float *h;               /* owned, grows: context x h_columns */
    size_t h_columns, n_bytes;
};

static double *losses_of(const linnet_arena *arena)
{
    return (double *)(void *)arena->losses;
}

static uint32_t *positions_of(const linnet_arena *arena)
{
    return (uint32_t *)(void *)arena->positions;
}

static int32_t *targets_of(const linnet_arena *arena)
{
    return (int32_t *)(void *)arena->targets;
}

enum { ARENA_PARTS = LINNET_BLOCK_PARTS + LINNET_HEAD_PARTS + 10 };

/* The buffers of an arena whose model, context and kind are set; rows gets those of the loss. */
static linnet_status list_parts(linnet_arena *arena, float **rows, linnet_part parts[ARENA_PARTS],
                                linnet_error *err)
{
    const linnet_model *model = arena->model;
    size_t n = arena->context_tokens, width = model->shape.width;
    size_t n_scored = linnet_model_is_encoder(model) ? 0 : n; /* tokens with logits of the vocabulary */
    size_t tile_rows = linnet_loss_tile_rows(model->shape.vocabulary);
    size_t n_checkpoints = arena->train ? model->shape.n_layers + (size_t)1 : 1, n_inputs;
    if (!linnet_size_mul(n_checkpoints, n, &n_inputs))
        return linnet_fail(err, LINNET_ERR_LIMIT, "a context of %zu tokens is too long", n);
    arena->block = (linnet_block){.model = model, .work = &arena->work, .n_tokens_max = n};
    arena->head = (linnet_head_state){.model = model, .work = &arena->work};
    size_t n_slopes = arena->train && model->logit_cap > 0 ? n_scored : 0;
    const linnet_part list[] = {
        {&arena->checkpoints, n_inputs, width},
        {&arena->k, n, model->kv_width},
        {&arena->v, n, model->kv_width},
        {&arena->d_x, arena->train ? n : 0, width},
        {&arena->losses, n, sizeof(double) / sizeof(float)},
        {&arena->positions, n, 1},
        {&arena->targets, n, 1},
        {&arena->loss.logits, n_scored, tile_rows},
        {&arena->loss.slopes, n_slopes, tile_rows},
        {rows, n_scored, sizeof(linnet_loss_row) / sizeof(float)},
    };
    memcpy(parts, list, sizeof(list));
    linnet_head_parts(&arena->head, arena->train, parts + ARRAY_LEN(list));
    linnet_block_parts(&arena->block, arena->train, parts + ARRAY_LEN(list) + LINNET_HEAD_PARTS);
    return LINNET_OK;
}

static linnet_status place_buffers(linnet_arena *arena, linnet_error *err)
{
    const linnet_model *model = arena->model;
    linnet_part parts[ARENA_PARTS];
    float *rows = NULL;
    size_t n_bytes;
    linnet_status status = list_parts(arena, &rows, parts, err);
    if (status == LINNET_OK)
        status = linnet_parts_place(parts, ARENA_PARTS, &arena->memory, &n_bytes, err);
    if (status != LINNET_OK)
        return status;
    linnet_block_share(&arena->block, arena->train);
    arena->loss.work = &arena->work;
    arena->loss.model = model;
    arena->loss.tile_rows = linnet_loss_tile_rows(model->shape.vocabulary);
    arena->loss.rows = (linnet_loss_row *)(void *)rows;
    arena->n_bytes += n_bytes;
    return LINNET_OK;
}

static size_t attention_rows(bool train)
{
    return train ? LINNET_ATTENTION_ROWS_TRAIN : LINNET_ATTENTION_ROWS;
}

/* Of the arena itself and its table of an adapter's factors. */
static size_t own_bytes(const linnet_arena *arena)
{
    return sizeof(*arena) + linnet_lora_table_entries(arena->model) * sizeof(arena->lora.entries[0]);
}

linnet_status linnet_arena_create(const linnet_model *model, linnet_thread_pool *pool,
                                  uint32_t context_tokens, bool train, linnet_arena **ret_arena,
                                  linnet_error *err)
{
    linnet_status status = linnet_model_is_encoder(model) ? linnet_model_require_head(model, err) : LINNET_OK;
    if (status != LINNET_OK)
        return status;
    linnet_arena *arena = calloc(1, sizeof(*arena));
    if (!arena)
        return linnet_fail(err, LINNET_ERR_NOMEM, "no memory for an arena");
    arena->model = model;
    arena->context_tokens = context_tokens == 0 ? model->shape.context : context_tokens;
    arena->train = train;
    status =
        linnet_workspace_init(&arena->work, model, pool, arena->context_tokens, attention_rows(train), err);
    if (status == LINNET_OK)
        status = linnet_lora_table_init(&arena->lora, model, err);
    arena->n_bytes = own_bytes(arena) + arena->work.n_bytes;
    if (status == LINNET_OK)
        status = place_buffers(arena, err);
    if (status != LINNET_OK) {
        linnet_arena_destroy(arena);
        return status;
    }
    *ret_arena = arena;
    return LINNET_OK;
}

void linnet_arena_destroy(linnet_arena *arena)
{
    if (!arena)
        return;
    linnet_workspace_release(&arena->work);
    linnet_lora_table_release(&arena->lora);
    free(arena->memory);
    free(arena->h);
    free(arena);
}

size_t linnet_arena_bytes(const linnet_arena *arena)
{
    return arena->n_bytes + arena->context_tokens * arena->h_columns * sizeof(float);
}

/* ---- preparing a pass ---- */

/* Bind the adapter and make room for its h. */
static linnet_status prepare_adapter(linnet_arena *arena, const linnet_adapter *adapter, linnet_error *err)
{
    linnet_status status = linnet_lora_bind(&arena->lora, arena->model, adapter, err);
    arena->head.lora = linnet_lora_of_head(&arena->lora, arena->model);
    if (status != LINNET_OK || arena->lora.rank_sum <= arena->h_columns)
        return status;
    size_t n_floats;
    if (!linnet_size_mul(arena->context_tokens, arena->lora.rank_sum, &n_floats) ||
        n_floats > PTRDIFF_MAX / sizeof(float))
        return linnet_fail(err, LINNET_ERR_LIMIT, "the adapter's ranks are too large for this context");
    float *h = malloc(n_floats * sizeof(float));
    if (!h)
        return linnet_fail(err, LINNET_ERR_NOMEM, "no memory: %zu MB for the adapter's activations",
                           n_floats >> 18);
    free(arena->h);
    arena->h = h;
    arena->h_columns = arena->lora.rank_sum;
    arena->block.h = h;
    return LINNET_OK;
}

/* A label is for a model with labels, and such a model is for labels. */
static linnet_status check_kind(const linnet_arena *arena, const linnet_sequence *sequence, linnet_error *err)
{
    uint32_t n_labels = linnet_model_n_labels(arena->model);
    if (!sequence->has_label && n_labels == 0)
        return LINNET_OK;
    if (!sequence->has_label)
        return linnet_fail(err, LINNET_ERR_UNSUPPORTED, "the model gives labels; a sequence has none");
    linnet_status status = linnet_model_require_head(arena->model, err);
    if (status != LINNET_OK)
        return status;
    if (sequence->label >= n_labels)
        return linnet_fail(err, LINNET_ERR_RANGE, "label %u is none of the model's %u",
                           (unsigned)sequence->label, (unsigned)n_labels);
    if (sequence->n_ids == 0)
        return linnet_fail(err, LINNET_ERR_ARG, "a sequence with a label has no tokens");
    return LINNET_OK;
}

/* Check a sequence and list its counted targets. ret_n_tokens: how many tokens have to be run. */
static linnet_status prepare_sequence(linnet_arena *arena, const linnet_sequence *sequence,
                                      size_t *ret_n_counted, size_t *ret_n_tokens, linnet_error *err)
{
    size_t n_counted = 0, n_tokens = 0;
    linnet_status status = check_kind(arena, sequence, err);
    if (status != LINNET_OK)
        return status;
    if (sequence->n_ids > arena->context_tokens)
        return linnet_fail(err, LINNET_ERR_LIMIT,
                           "a sequence of %zu tokens is longer than the context of %zu", sequence->n_ids,
                           arena->context_tokens);
    for (size_t i = 0; i < sequence->n_ids; i++) {
        int32_t id = sequence->ids[i];
        if (id < 0 || (uint32_t)id >= arena->model->shape.vocabulary)
            return linnet_fail(err, LINNET_ERR_RANGE, "token %zu has id %ld, outside the vocabulary of %u", i,
                               (long)id, (unsigned)arena->model->shape.vocabulary);
        if (sequence->has_label || i == 0 || !sequence->counted[i])
            continue;
        positions_of(arena)[n_counted] = (uint32_t)(i - 1);
        targets_of(arena)[n_counted++] = id;
        n_tokens = i;
    }
    *ret_n_counted = sequence->has_label ? 1 : n_counted;
    *ret_n_tokens = sequence->has_label ? sequence->n_ids : n_tokens;
    return LINNET_OK;
}

/* ---- within a budget ---- */

/* The floats that an adapter adds for each token. */
static linnet_status measure_adapter(const linnet_model *model, const linnet_adapter *adapter,
                                     size_t *ret_columns, linnet_error *err)
{
    linnet_lora_table table = {0};
    linnet_status status = linnet_lora_table_init(&table, model, err);
    if (status == LINNET_OK)
        status = linnet_lora_bind(&table, model, adapter, err);
    *ret_columns = status == LINNET_OK ? table.rank_sum : 0;
    linnet_lora_table_release(&table);
    return status;
}

/* What linnet_arena_bytes would say of an arena whose model, context, kind and h_columns these are. */
static linnet_status measure(linnet_arena like, linnet_thread_pool *pool, size_t *ret_bytes,
                             linnet_error *err)
{
    linnet_part parts[ARENA_PARTS];
    float *rows = NULL;
    size_t n_work = 0, n_parts = 0, n_h = 0, n_bytes = own_bytes(&like);
    linnet_status status = linnet_workspace_bytes(like.model, pool, like.context_tokens,
                                                  attention_rows(like.train), &n_work, err);
    if (status == LINNET_OK)
        status = list_parts(&like, &rows, parts, err);
    if (status == LINNET_OK)
        status = linnet_parts_bytes(parts, ARENA_PARTS, &n_parts, err);
    if (status != LINNET_OK)
        return status;
    if (!linnet_size_mul(like.context_tokens * sizeof(float), like.h_columns, &n_h) ||
        !linnet_size_add(n_bytes, n_h, &n_bytes) || !linnet_size_add(n_bytes, n_work, &n_bytes) ||
        !linnet_size_add(n_bytes, n_parts, &n_bytes))
        return linnet_fail(err, LINNET_ERR_LIMIT, "a context of %zu tokens is too long", like.context_tokens);
    *ret_bytes = n_bytes;
    return LINNET_OK;
}

/* The longest context from low to high that is within bytes_max, of which low is; a longer one never takes
 * less. */
static linnet_status longest_within(linnet_arena like, linnet_thread_pool *pool, size_t bytes_max,
                                    uint32_t high, uint32_t *ret_context, linnet_error *err)
{
    uint32_t low = (uint32_t)like.context_tokens;
    while (low < high) {
        uint32_t middle = high - (high - low) / 2;
        size_t n_bytes = SIZE_MAX;
        like.context_tokens = middle;
        linnet_status status = measure(like, pool, &n_bytes, err);
        if (status != LINNET_OK && status != LINNET_ERR_LIMIT)
            return status;
        if (status == LINNET_OK && n_bytes <= bytes_max)
            low = middle;
        else
            high = middle - 1;
    }
    *ret_context = low;
    return LINNET_OK;
}

/* An arena with room for the adapter. */
static linnet_status create_for(const linnet_model *model, linnet_thread_pool *pool,
                                const linnet_adapter *adapter, uint32_t context_tokens, bool train,
                                linnet_arena **ret_arena, linnet_error *err)
{
    linnet_arena *arena = NULL;
    linnet_status status = linnet_arena_create(model, pool, context_tokens, train, &arena, err);
    if (status == LINNET_OK)
        status = prepare_adapter(arena, adapter, err);
    if (status != LINNET_OK) {
        linnet_arena_destroy(arena);
        return status;
    }
    linnet_lora_unbind(&arena->lora, arena->model); /* the room stays */
    *ret_arena = arena;
    return LINNET_OK;
}

linnet_status linnet_arena_create_within(const linnet_model *model, linnet_thread_pool *pool,
                                         const linnet_adapter *adapter, size_t bytes_max,
                                         uint32_t context_min, bool train, uint32_t *context_tokens,
                                         size_t *ret_needed, linnet_arena **ret_arena, linnet_error *err)
{
    linnet_arena like = {.model = model, .train = train};
    uint32_t most = *context_tokens == 0 ? model->shape.context : *context_tokens, context = most;
    size_t needed = 0;
    *ret_needed = 0;
    linnet_status status = measure_adapter(model, adapter, &like.h_columns, err);
    if (status == LINNET_OK && bytes_max < SIZE_MAX) {
        like.context_tokens = context_min == 0 ? 1 : context_min > most ? most : context_min;
        status = measure(like, pool, &needed, err);
        if (status == LINNET_OK && needed > bytes_max) {
            *ret_needed = needed;
            return linnet_fail(err, LINNET_ERR_LIMIT,
                               "a context of %zu tokens needs %zu bytes, more than the %zu that are allowed",
                               like.context_tokens, needed, bytes_max);
        }
        if (status == LINNET_OK)
            status = longest_within(like, pool, bytes_max, most, &context, err);
    }
    if (status == LINNET_OK)
        status = create_for(model, pool, adapter, context, train, ret_arena, err);
    if (status == LINNET_OK)
        *context_tokens = context;
    return status;
}

/* ---- passes ---- */

static float *checkpoint(const linnet_arena *arena, uint32_t layer)
{
    size_t stride = arena->context_tokens * arena->model->shape.width;
    return arena->checkpoints + (arena->train ? layer * stride : 0);
}

static linnet_block_pass pass_of(const linnet_arena *arena, uint32_t layer, size_t n_tokens)
{
    return (linnet_block_pass){.layer = layer,
                               .lora = arena->lora.entries + (size_t)layer * LINNET_LINEARS,
                               .n_tokens = n_tokens,
                               .k = arena->k,
                               .v = arena->v};
}

/* The output of all blocks, into the last checkpoint. */
static void run_blocks(linnet_arena *arena, const int32_t *ids, size_t n_tokens)
{
    const linnet_model *model = arena->model;
    linnet_embed(&arena->work, model, ids, n_tokens, 0, checkpoint(arena, 0));
    for (uint32_t layer = 0; layer < model->shape.n_layers; layer++) {
        linnet_block_pass pass = pass_of(arena, layer, n_tokens);
        linnet_block_forward(&arena->block, &pass, checkpoint(arena, layer), 0, checkpoint(arena, layer + 1));
    }
}

/* Leaves the normed hidden states that predict counted targets, packed, in block.normed. */
static void pack_hidden(linnet_arena *arena, size_t n_counted)
{
    const linnet_model *model = arena->model;
    size_t width = model->shape.width;
    float *last = checkpoint(arena, model->shape.n_layers);
    for (size_t i = 0; i < n_counted; i++) /* positions rise: no row is overwritten before it is moved */
        memmove(last + i * width, last + positions_of(arena)[i] * width, width * sizeof(float));
    linnet_norm_forward(&arena->work, &model->output_norm, last, n_counted, width, arena->block.normed);
}

/* d_x holds the packed gradient of the normed hidden states; make it that of the last layer's output. */
static void unpack_gradient(linnet_arena *arena, size_t n_tokens, size_t n_counted)
{
    const linnet_model *model = arena->model;
    size_t width = model->shape.width, i = n_counted;
    linnet_norm_backward(&arena->work, &model->output_norm, checkpoint(arena, model->shape.n_layers),
                         arena->d_x, n_counted, width, arena->d_x, false);
    for (size_t t = n_tokens; t-- > 0;) {
        float *row = arena->d_x + t * width;
        if (i > 0 && positions_of(arena)[i - 1] == t)
            memmove(row, arena->d_x + --i * width, width * sizeof(float));
        else
            memset(row, 0, width * sizeof(float));
    }
}

/* Losses of the counted targets. Unless it is for a score, a language model leaves in d_x scale times the
 * gradient of the packed hidden states. */
static void run_forward(linnet_arena *arena, const linnet_sequence *sequence, size_t n_tokens,
                        size_t n_counted, bool is_score, double scale)
{
    if (n_counted == 0)
        return;
    run_blocks(arena, sequence->ids, n_tokens);
    if (sequence->has_label) {
        linnet_head_forward(&arena->head, checkpoint(arena, arena->model->shape.n_layers));
        losses_of(arena)[0] = linnet_head_loss(&arena->head, sequence->label);
        return;
    }
    pack_hidden(arena, n_counted);
    linnet_loss_run(&arena->loss, arena->block.normed, targets_of(arena), n_counted, (float)scale,
                    losses_of(arena), is_score ? NULL : arena->d_x);
}

/* d_x becomes the gradient of the last layer's output; those of the head's factors are added. */
static void output_backward(linnet_arena *arena, const linnet_sequence *sequence, size_t n_tokens,
                            size_t n_counted, double scale, const linnet_block_gradient *gradient)
{
    size_t width = arena->model->shape.width;
    if (!sequence->has_label) {
        unpack_gradient(arena, n_tokens, n_counted);
        return;
    }
    linnet_head_backward(&arena->head, checkpoint(arena, arena->model->shape.n_layers), sequence->label,
                         scale, gradient, arena->d_x);
    memset(arena->d_x + width, 0, (n_tokens - 1) * width * sizeof(float));
}

static void run_backward(linnet_arena *arena, size_t n_tokens, const linnet_block_gradient *gradient)
{
    uint32_t n_layers = arena->model->shape.n_layers;
    for (uint32_t layer = n_layers; layer-- > arena->lora.lowest_layer;) {
        linnet_block_pass pass = pass_of(arena, layer, n_tokens);
        const float *x = checkpoint(arena, layer);
        if (layer + 1 < n_layers)
            linnet_block_forward(&arena->block, &pass, x, 0, NULL);
        linnet_block_backward(&arena->block, &pass, x, gradient, layer > arena->lora.lowest_layer,
                              arena->d_x);
    }
}

static linnet_status sum_losses(const linnet_arena *arena, size_t n_counted, double *ret_sum,
                                linnet_error *err)
{
    double sum = 0;
    for (size_t i = 0; i < n_counted; i++)
        sum += losses_of(arena)[i];
    if (!isfinite(sum))
        return linnet_fail(err, LINNET_ERR_RANGE, "the loss is not finite; are model and adapter intact?");
    *ret_sum = sum;
    return LINNET_OK;
}

linnet_status linnet_arena_score(linnet_arena *arena, const linnet_adapter *adapter,
                                 const linnet_sequence *sequence, double *ret_loss_sum, size_t *ret_n_counted,
                                 float *ret_each, linnet_error *err)
{
    size_t n_counted = 0, n_tokens = 0;
    double sum = 0;
    linnet_status status = prepare_sequence(arena, sequence, &n_counted, &n_tokens, err);
    if (status == LINNET_OK)
        status = prepare_adapter(arena, adapter, err);
    if (status != LINNET_OK)
        return status;
    run_forward(arena, sequence, n_tokens, n_counted, true, 0);
    status = sum_losses(arena, n_counted, &sum, err);
    if (status != LINNET_OK)
        return status;
    for (size_t i = 0; ret_each && i < sequence->n_ids; i++)
        ret_each[i] = 0;
    if (ret_each && sequence->has_label)
        ret_each[0] = (float)losses_of(arena)[0];
    for (size_t i = 0; ret_each && !sequence->has_label && i < n_counted; i++)
        ret_each[positions_of(arena)[i] + 1] = (float)losses_of(arena)[i];
    *ret_loss_sum = sum;
    *ret_n_counted = n_counted;
    return LINNET_OK;
}

linnet_status linnet_arena_classify(linnet_arena *arena, const linnet_adapter *adapter, const int32_t *ids,
                                    size_t n_ids, const float **ret_logits, linnet_error *err)
{
    const linnet_sequence sequence = {.ids = ids, .n_ids = n_ids, .has_label = true};
    double loss; /* of the first label */
    size_t n_counted;
    linnet_status status = linnet_arena_score(arena, adapter, &sequence, &loss, &n_counted, NULL, err);
    if (status == LINNET_OK)
        *ret_logits = arena->head.logits;
    return status;
}

const float *linnet_arena_logits(const linnet_arena *arena)
{
    return linnet_model_n_labels(arena->model) > 0 ? arena->head.logits : NULL;
}

linnet_status linnet_arena_gradient(linnet_arena *arena, const linnet_adapter *adapter,
                                    linnet_factors factors, const linnet_dropout *dropout,
                                    const linnet_sequence *sequence, double scale, float *gradient,
                                    double *ret_loss_sum, size_t *ret_n_counted, linnet_error *err)
{
    size_t n_counted = 0, n_tokens = 0;
    double sum = 0;
    if (!arena->train)
        return linnet_fail(err, LINNET_ERR_ARG, "this arena was made for scoring; training needs another");
    linnet_status status = prepare_sequence(arena, sequence, &n_counted, &n_tokens, err);
    if (status == LINNET_OK && adapter)
        status = linnet_adapter_require_plain(adapter, "trained", err);
    if (status == LINNET_OK)
        status = prepare_adapter(arena, adapter, err);
    if (status != LINNET_OK)
        return status;
    linnet_lora_drop(&arena->lora, arena->model, dropout);
    run_forward(arena, sequence, n_tokens, n_counted, false, scale);
    status = sum_losses(arena, n_counted, &sum, err);
    if (status != LINNET_OK)
        return status;
    if (n_counted > 0) {
        linnet_block_gradient into = {.factors = factors, .data = gradient};
        output_backward(arena, sequence, n_tokens, n_counted, scale, &into);
        run_backward(arena, n_tokens, &into);
    }
    *ret_loss_sum = sum;
    *ret_n_counted = n_counted;
    return LINNET_OK;
}
