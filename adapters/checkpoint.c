/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A checkpoint of Hugging Face as a view: keys made from its JSON files, in a header of our own that is
 * parsed like any other; tensors in the maps of its safetensors files, under GGUF's names. Nothing is copied:
 * q and k of llama keep their rows in the order of halves (llama_in_halves in architecture.c) and say how
 * many heads they have, for those who write GGUF. A tensor without a name there is refused. Sources:
 * safetensors' index files as transformers writes them; llama.cpp's gguf-py/gguf/tensor_mapping.py.
 */
#include "checkpoint.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "gguf_inner.h"
#include "linnet/json_load.h"
#include "limits.h"
#include "linnet/safetensors.h"

#define ONE_FILE "model.safetensors"
#define INDEX_FILE "model.safetensors.index.json"
#define FACTORS_NAME "rope_freqs.weight"

typedef char tensor_name[LINNET_GGUF_TENSOR_NAME_BYTES_MAX];

struct checkpoint {
    linnet_buffer header;       /* our own: keys and no tensors */
    linnet_safetensors **files; /* owned */
    size_t n_files;
    tensor_name *names; /* owned: those of the view's tensors */
    float *factors;     /* owned: the tensor that is in no file; NULL: none */
};

void linnet_checkpoint_release(checkpoint *c)
{
    if (!c)
        return;
    for (size_t i = 0; i < c->n_files; i++)
        linnet_safetensors_close(c->files[i]);
    free(c->files);
    free(c->names);
    free(c->factors);
    linnet_buffer_release(&c->header);
    free(c);
}

size_t linnet_checkpoint_n_bytes(const checkpoint *c)
{
    size_t n_bytes = 0;
    for (size_t i = 0; i < c->n_files; i++)
        n_bytes += linnet_safetensors_n_bytes(c->files[i]); /* all of them are mapped at once */
    return n_bytes;
}

/* ---- files of weights ---- */

static linnet_status open_file(checkpoint *c, const char *directory, const char *name, linnet_error *err)
{
    char *path = linnet_path_join(directory, name);
    linnet_status status = path ? linnet_safetensors_open(path, &c->files[c->n_files], err)
                                : linnet_fail(err, LINNET_ERR_NOMEM, "no memory for a path");
    c->n_files += status == LINNET_OK;
    free(path);
    return status;
}

static linnet_status allocate_files(checkpoint *c, size_t n, linnet_error *err)
{
    c->files = calloc(n + 1, sizeof(linnet_safetensors *)); /* + 1: no request for 0 bytes */
    return c->files ? LINNET_OK : linnet_fail(err, LINNET_ERR_NOMEM, "no memory for %zu files", n);
}

/* A file beside the index, and nowhere else. */
static bool is_file_name(const char *name)
{
    return name && name[0] != '\0' && name[0] != '.' && !strchr(name, '/');
}

static bool has_tensor(const linnet_safetensors *file, const char *name)
{
    for (size_t i = 0; i < linnet_safetensors_n_tensors(file); i++)
        if (strcmp(linnet_safetensors_at(file, i)->name, name) == 0)
            return true;
    return false;
}

/* Every file of the map, and in it every tensor that the map says is there. `opened` has a file's number
 * under its name. */
static linnet_status open_mapped(checkpoint *c, const char *directory, json_t *map, json_t *opened,
                                 linnet_error *err)
{
    const char *tensor;
    json_t *value;
    json_object_foreach(map, tensor, value)
    {
        const char *name = json_string_value(value);
        linnet_status status = LINNET_OK;
        if (!is_file_name(name))
            return linnet_fail(err, LINNET_ERR_FORMAT, "'%s' names no file for the tensor '%.100s'",
                               INDEX_FILE, tensor);
        if (!json_object_get(opened, name)) {
            if (c->n_files == LINNET_SHARDS_MAX)
                return linnet_fail(err, LINNET_ERR_LIMIT, "'%s' names more than %d files", INDEX_FILE,
                                   LINNET_SHARDS_MAX);
            status = open_file(c, directory, name, err);
            if (status == LINNET_OK &&
                json_object_set_new(opened, name, json_integer((json_int_t)c->n_files - 1)) != 0)
                status = linnet_fail(err, LINNET_ERR_NOMEM, "no memory for the names of files");
        }
        if (status != LINNET_OK)
            return status;
        if (!has_tensor(c->files[json_integer_value(json_object_get(opened, name))], tensor))
            return linnet_fail(err, LINNET_ERR_FORMAT, "'%s/%s' has no tensor '%.100s', as its index says",
                               directory, name, tensor);
    }
    return LINNET_OK;
}

static linnet_status open_shards(checkpoint *c, const char *directory, linnet_error *err)
{
    json_t *index = NULL, *opened = json_object();
    linnet_status status = linnet_json_load_file(directory, INDEX_FILE, LINNET_INDEX_BYTES_MAX,
                                                 LINNET_JSON_VALUES_MAX, 0, &index, err);
    json_t *map = json_object_get(index, "weight_map");
    if (status == LINNET_OK && !opened)
        status = linnet_fail(err, LINNET_ERR_NOMEM, "no memory for '%s'", INDEX_FILE);
    if (status == LINNET_OK && (!json_is_object(map) || json_object_size(map) == 0))
        status = linnet_fail(err, LINNET_ERR_FORMAT, "'%s/%s' has no weight_map", directory, INDEX_FILE);
    if (status == LINNET_OK && json_object_size(map) > LINNET_GGUF_TENSORS_MAX)
        status = linnet_fail(err, LINNET_ERR_LIMIT, "'%s/%s' has %zu tensors; at most %d are allowed",
                             directory, INDEX_FILE, json_object_size(map), LINNET_GGUF_TENSORS_MAX);
    if (status == LINNET_OK)
        status = allocate_files(c, LINNET_SHARDS_MAX, err);
    if (status == LINNET_OK)
        status = open_mapped(c, directory, map, opened, err);
    json_decref(opened);
    json_decref(index);
    return status;
}

static linnet_status open_weights(checkpoint *c, const char *directory, linnet_error *err)
{
    char *one = linnet_path_join(directory, ONE_FILE), *index = linnet_path_join(directory, INDEX_FILE);
    linnet_status status;
    if (!one || !index) {
        status = linnet_fail(err, LINNET_ERR_NOMEM, "no memory for a path");
    } else if (access(one, F_OK) == 0) { /* as transformers prefers it */
        status = allocate_files(c, 1, err);
        if (status == LINNET_OK)
            status = open_file(c, directory, ONE_FILE, err);
    } else if (access(index, F_OK) == 0) {
        status = open_shards(c, directory, err);
    } else {
        status = linnet_fail(err, LINNET_ERR_NOT_FOUND, "'%s' has neither %s nor %s", directory, ONE_FILE,
                             INDEX_FILE);
    }
    free(one);
    free(index);
    return status;
}

/* ---- names ---- */

typedef struct renaming {
    const char *hf, *gguf;
} renaming;

/* NULL: it is not in the list. */
static const char *renamed(const renaming *list, size_t n, const char *hf)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(hf, list[i].hf) == 0)
            return list[i].gguf;
    return NULL;
}

/* "weight" or "bias" behind a module of a block: its name in GGUF. False for a module that is none. */
static bool name_in_block(const checkpoint_config *config, uint32_t layer, const char *module,
                          tensor_name name, uint32_t *ret_target)
{
    static const renaming norms[] = {{"input_layernorm.weight", "attn_norm.weight"},
                                     {"post_attention_layernorm.weight", "ffn_norm.weight"}};
    static const renaming bert_norms[] = {
        {"attention.output.LayerNorm.weight", "attn_output_norm.weight"},
        {"attention.output.LayerNorm.bias", "attn_output_norm.bias"},
        {"output.LayerNorm.weight", "layer_output_norm.weight"},
        {"output.LayerNorm.bias", "layer_output_norm.bias"},
    };
    const char *norm = config->architecture->has_pooled_head
                           ? renamed(bert_norms, ARRAY_LEN(bert_norms), module)
                           : renamed(norms, ARRAY_LEN(norms), module);
    if (norm) {
        (void)snprintf(name, sizeof(tensor_name), "blk.%u.%s", (unsigned)layer, norm);
        return true;
    }
    for (uint32_t t = 0; t < LINNET_BLOCK_TARGETS; t++) {
        const char *hf = config->architecture->hf[t];
        size_t n = hf ? strlen(hf) : 0;
        if (!hf || strncmp(module, hf, n) != 0 ||
            (strcmp(module + n, ".weight") != 0 && strcmp(module + n, ".bias") != 0))
            continue;
        (void)snprintf(name, sizeof(tensor_name), "blk.%u.%s%s", (unsigned)layer,
                       linnet_target_name((linnet_target)t), module + n);
        *ret_target = t;
        return true;
    }
    return false;
}

/* GGUF's name of a tensor; false: it has none. */
static bool name_of(const checkpoint_config *config, const char *hf, tensor_name name, uint32_t *ret_layer,
                    uint32_t *ret_target)
{
    static const renaming ends[] = {{"model.embed_tokens.weight", "token_embd.weight"},
                                    {"model.norm.weight", "output_norm.weight"},
                                    {"lm_head.weight", "output.weight"}};
    static const renaming bert_ends[] = {
        {"bert.embeddings.word_embeddings.weight", "token_embd.weight"},
        {"bert.embeddings.position_embeddings.weight", "position_embd.weight"},
        {"bert.embeddings.token_type_embeddings.weight", "token_types.weight"},
        {"bert.embeddings.LayerNorm.weight", "token_embd_norm.weight"},
        {"bert.embeddings.LayerNorm.bias", "token_embd_norm.bias"},
        {"bert.pooler.dense.weight", "cls.weight"},
        {"bert.pooler.dense.bias", "cls.bias"},
        {"classifier.weight", "cls.output.weight"},
        {"classifier.bias", "cls.output.bias"},
    };
    const char *layers = config->architecture->hf_layers;
    char *end;
    size_t n = strlen(layers);
    const char *one = config->architecture->has_pooled_head ? renamed(bert_ends, ARRAY_LEN(bert_ends), hf)
                                                            : renamed(ends, ARRAY_LEN(ends), hf);
    if (one) {
        (void)snprintf(name, sizeof(tensor_name), "%s", one);
        return true;
    }
    if (strncmp(hf, layers, n) != 0 || hf[n] != '.' || hf[n + 1] < '0' || hf[n + 1] > '9')
        return false;
    unsigned long layer = strtoul(hf + n + 1, &end, 10);
    bool has_zeros = hf[n + 1] == '0' && end > hf + n + 2;
    if (has_zeros || *end != '.' || layer >= config->n_layers)
        return false;
    *ret_layer = (uint32_t)layer;
    return name_in_block(config, (uint32_t)layer, end + 1, name, ret_target);
}

/* Buffers that older versions saved, and the copy of an embedding that is the output too. */
static bool is_left_out(const checkpoint_config *config, const char *hf)
{
    static const char buffer[] = ".rotary_emb.inv_freq";
    size_t n = strlen(hf), n_buffer = sizeof(buffer) - 1;
    return (n > n_buffer && strcmp(hf + n - n_buffer, buffer) == 0) ||
           (config->is_tied && strcmp(hf, "lm_head.weight") == 0);
}

/* ---- tensors ---- */

/* What a view is made with. */
typedef struct making {
    checkpoint *c;
    checkpoint_config config;
    linnet_gguf *gguf;
    size_t n_biases;
    linnet_error *err;
} making;

/* Room in the view for one more, under a name that is there already. */
static linnet_gguf_tensor *next_tensor(making *m)
{
    size_t i = m->gguf->n_tensors++;
    linnet_gguf_tensor *tensor = &m->gguf->tensors[i];
    tensor->name = (linnet_text){m->c->names[i], strlen(m->c->names[i])};
    return tensor;
}

static linnet_status add_tensor(making *m, const linnet_safetensors_tensor *from)
{
    static const uint32_t types[] = {[LINNET_SAFETENSORS_F32] = LINNET_TENSOR_F32,
                                     [LINNET_SAFETENSORS_F16] = LINNET_TENSOR_F16,
                                     [LINNET_SAFETENSORS_BF16] = LINNET_TENSOR_BF16};
    const checkpoint_config *config = &m->config;
    uint32_t layer = 0, target = LINNET_TARGETS;
    if (is_left_out(config, from->name))
        return LINNET_OK;
    if (!name_of(config, from->name, m->c->names[m->gguf->n_tensors], &layer, &target))
        return linnet_fail(m->err, LINNET_ERR_UNSUPPORTED,
                           "tensor '%s' is none that linnet computes with in a %s of %u layers", from->name,
                           config->architecture->name, (unsigned)config->n_layers);
    bool is_bias = target != LINNET_TARGETS && from->n_dims == 1, is_q = target == LINNET_TARGET_ATTN_Q;
    if (from->n_dims != 1 && from->n_dims != 2)
        return linnet_fail(m->err, LINNET_ERR_FORMAT, "tensor '%s' is neither matrix nor vector", from->name);
    if (is_bias && (config->biases >> target & 1) == 0)
        return linnet_fail(m->err, LINNET_ERR_UNSUPPORTED,
                           "tensor '%s' is there, but config.json has no bias", from->name);
    m->n_biases += is_bias;
    linnet_gguf_tensor *tensor = next_tensor(m);
    tensor->type = types[from->type];
    tensor->n_dims = from->n_dims;
    for (uint32_t d = 0; d < 4; d++)
        tensor->dims[d] = d < from->n_dims ? from->dims[from->n_dims - 1 - d] : 1;
    tensor->bytes = from->bytes;
    tensor->n_bytes = from->n_bytes;
    if (config->architecture->rope == LINNET_ROPE_PAIRS && (is_q || target == LINNET_TARGET_ATTN_K))
        tensor->n_hf_heads = is_q ? config->n_heads : config->n_kv_heads;
    if (tensor->n_hf_heads != 0 &&
        from->dims[0] != (uint64_t)tensor->n_hf_heads * config->head_width) /* width is even */
        return linnet_fail(
            m->err, LINNET_ERR_FORMAT, "tensor '%s' has %llu rows, not those of %u heads of %u", from->name,
            (unsigned long long)from->dims[0], (unsigned)tensor->n_hf_heads, (unsigned)config->head_width);
    return LINNET_OK;
}

/* Llama 3's divisors of frequencies are in no file. */
static void add_factors(making *m)
{
    memcpy(m->c->names[m->gguf->n_tensors], FACTORS_NAME, sizeof(FACTORS_NAME));
    linnet_gguf_tensor *tensor = next_tensor(m);
    uint32_t n = m->config.head_width / 2;
    *tensor = (linnet_gguf_tensor){.name = tensor->name,
                                   .type = LINNET_TENSOR_F32,
                                   .n_dims = 1,
                                   .dims = {n, 1, 1, 1},
                                   .bytes = (const uint8_t *)m->c->factors,
                                   .n_bytes = n * sizeof(float)};
}

static linnet_status check_tensors(const making *m)
{
    const checkpoint_config *config = &m->config;
    const linnet_gguf_tensor *embedding = linnet_gguf_find_tensor(m->gguf, "token_embd.weight");
    size_t n_biases = 0;
    for (uint32_t t = 0; t < LINNET_BLOCK_TARGETS; t++)
        n_biases += (config->biases >> t & 1) != 0 ? config->n_layers : 0;
    if (!embedding || embedding->dims[1] != config->vocabulary)
        return linnet_fail(m->err, LINNET_ERR_FORMAT, "no embedding of the %u tokens of vocab_size",
                           (unsigned)config->vocabulary);
    bool needs_output = !config->is_tied && !config->architecture->has_pooled_head;
    if (needs_output && !linnet_gguf_find_tensor(m->gguf, "output.weight"))
        return linnet_fail(m->err, LINNET_ERR_FORMAT,
                           "no tensor 'lm_head.weight', and tie_word_embeddings is off");
    if (m->n_biases != n_biases)
        return linnet_fail(m->err, LINNET_ERR_FORMAT, "%zu biases of linears; its configuration has %zu",
                           m->n_biases, n_biases);
    return LINNET_OK;
}

static linnet_status make_tensors(making *m)
{
    linnet_gguf *gguf = m->gguf;
    size_t n = 1; /* the factors */
    for (size_t i = 0; i < m->c->n_files; i++)
        n += linnet_safetensors_n_tensors(m->c->files[i]);
    if (n > LINNET_GGUF_TENSORS_MAX)
        return linnet_fail(m->err, LINNET_ERR_LIMIT, "%zu tensors; at most %d are allowed", n,
                           LINNET_GGUF_TENSORS_MAX);
    free(gguf->tensors); /* of none */
    free(gguf->tensors_by_name);
    gguf->tensors = calloc(n, sizeof(gguf->tensors[0]));
    gguf->tensors_by_name = calloc(n, sizeof(gguf->tensors_by_name[0]));
    m->c->names = calloc(n, sizeof(m->c->names[0]));
    if (!gguf->tensors || !gguf->tensors_by_name || !m->c->names)
        return linnet_fail(m->err, LINNET_ERR_NOMEM, "no memory for %zu tensors", n);
    linnet_status status = LINNET_OK;
    for (size_t f = 0; f < m->c->n_files; f++)
        for (size_t i = 0; i < linnet_safetensors_n_tensors(m->c->files[f]) && status == LINNET_OK; i++)
            status = add_tensor(m, linnet_safetensors_at(m->c->files[f], i));
    if (status == LINNET_OK && m->c->factors)
        add_factors(m);
    if (status == LINNET_OK)
        status = linnet_gguf_sort_tensors(gguf, m->err);
    return status == LINNET_OK ? check_tensors(m) : status;
}

/* ---- the view ---- */

/* llama.cpp's numbers of what most of a file is. */
static uint32_t file_type_of(const checkpoint *c)
{
    size_t n_of[3] = {0, 0, 0};
    for (size_t f = 0; f < c->n_files; f++)
        for (size_t i = 0; i < linnet_safetensors_n_tensors(c->files[f]); i++)
            n_of[linnet_safetensors_at(c->files[f], i)->type]++;
    return n_of[LINNET_SAFETENSORS_F16] > n_of[LINNET_SAFETENSORS_F32]    ? 1
           : n_of[LINNET_SAFETENSORS_BF16] > n_of[LINNET_SAFETENSORS_F32] ? 32
                                                                          : 0;
}

static linnet_status make_header(making *m, const char *directory)
{
    linnet_gguf_writer *writer = linnet_gguf_writer_create();
    linnet_status status = linnet_checkpoint_read_config(directory, writer, &m->config, m->err);
    if (status == LINNET_OK)
        m->c->factors = m->config.factors; /* ownership moves to the checkpoint */
    if (status == LINNET_OK)
        status = open_weights(m->c, directory, m->err);
    if (status == LINNET_OK)
        linnet_gguf_writer_u32(writer, "general.file_type", file_type_of(m->c));
    if (status == LINNET_OK)
        status = linnet_checkpoint_read_tokenizer(directory, &m->config, writer, m->err);
    if (status == LINNET_OK)
        status = linnet_gguf_writer_header(writer, &m->c->header, m->err);
    linnet_gguf_writer_destroy(writer);
    return status;
}

linnet_status linnet_checkpoint_open(const char *directory, linnet_gguf **ret_gguf, linnet_error *err)
{
    making m = {.err = err, .c = calloc(1, sizeof(checkpoint))};
    if (!m.c)
        return linnet_fail(err, LINNET_ERR_NOMEM, "checkpoint '%s'", directory);
    linnet_status status = make_header(&m, directory);
    if (status == LINNET_OK)
        status = linnet_gguf_parse(directory, m.c->header.bytes, m.c->header.n_bytes, &m.gguf, err);
    if (status != LINNET_OK) {
        linnet_checkpoint_release(m.c);
        return linnet_error_prefix(err, status, "checkpoint '%s'", directory);
    }
    m.gguf->checkpoint = m.c; /* ownership moves to the object */
    status = make_tensors(&m);
    if (status != LINNET_OK) {
        linnet_gguf_close(m.gguf);
        return linnet_error_prefix(err, status, "checkpoint '%s'", directory);
    }
    *ret_gguf = m.gguf;
    return LINNET_OK;
}
