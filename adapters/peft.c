/* SPDX-License-Identifier: Apache-2.0 */
/*
 * LoRA adapters as PEFT directories (huggingface/peft): adapter_config.json says how,
 * adapter_model.safetensors holds lora_A [rank, columns] and lora_B [rows, rank] per module, under Hugging
 * Face's names. Rows of B of q and k are moved between Hugging Face's and GGUF's order (layout.h). A
 * configuration is read for everything that would change what the adapter computes; whatever linnet does not
 * do is refused by name rather than ignored. Patterns of ranks and alphas are regular expressions there;
 * those that are names, which peft's own are, are understood. Left out: .bin weights (pickles run code when
 * they are read), writing DoRA, biases, embeddings.
 */
#include "adapter_load.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "linnet/json_load.h"
#include "limits.h"
#include "linnet/safetensors.h"

#define CONFIG_FILE "adapter_config.json"
#define WEIGHTS_FILE "adapter_model.safetensors"
#define MAGNITUDE ".lora_magnitude_vector"
#define MODEL_PREFIX "base_model.model." /* of every name in the file of weights */
#define PATTERN_MAX 128                  /* bytes of a pattern of ranks or alphas */

typedef struct peft_config {
    json_t *json; /* owned */
    uint32_t rank;
    double alpha;
    bool by_root;        /* rsLoRA: alpha / sqrt(rank) */
    bool has_magnitudes; /* DoRA */
} peft_config;

/* ---- the configuration ---- */

static linnet_status refuse(linnet_error *err, const char *key)
{
    return linnet_fail(err, LINNET_ERR_UNSUPPORTED, "%s: '%s' has a value that linnet does not support",
                       CONFIG_FILE, key);
}

/* Absent, null, false, {} and [] all mean that a feature is off. */
static bool is_off(const json_t *value)
{
    return !value || json_is_null(value) || json_is_false(value) ||
           (json_is_object(value) && json_object_size(value) == 0) ||
           (json_is_array(value) && json_array_size(value) == 0);
}

/* Starts that leave the base model as it is; PiSSA, OLoRA and LoftQ change it, so their factors fit another
 * base. */
static bool is_plain_init(const json_t *value)
{
    static const char *const plain[] = {"gaussian", "eva", "orthogonal"};
    if (!value || json_is_null(value) || json_is_boolean(value))
        return true;
    for (size_t i = 0; i < ARRAY_LEN(plain); i++)
        if (json_is_string(value) && strcmp(json_string_value(value), plain[i]) == 0)
            return true;
    return false;
}

static linnet_status check_features(const json_t *config, const linnet_architecture *architecture,
                                    linnet_error *err)
{
    static const char *const off[] = {
        "use_qalora",
        "lora_bias",
        "modules_to_save",
        "layer_replication",
        "trainable_token_indices",
        "target_parameters",
        "alora_invocation_tokens",
    };
    const char *type = json_string_value(json_object_get(config, "peft_type"));
    const json_t *bias = json_object_get(config, "bias");
    if (!type || strcmp(type, "LORA") != 0)
        return refuse(err, "peft_type");
    for (size_t i = 0; i < ARRAY_LEN(off); i++)
        if (!is_off(json_object_get(config, off[i])))
            return refuse(err, off[i]);
    if (!architecture->hf_is_transposed && !is_off(json_object_get(config, "fan_in_fan_out")))
        return refuse(err, "fan_in_fan_out");
    if (!is_off(bias) && (!json_is_string(bias) || strcmp(json_string_value(bias), "none") != 0))
        return refuse(err, "bias");
    if (!is_plain_init(json_object_get(config, "init_lora_weights")))
        return refuse(err, "init_lora_weights");
    return LINNET_OK;
}

/* ---- patterns: {"q_proj": 16, "^model.layers.0.self_attn.v_proj": 4} ---- */

/* A name, dots escaped or not, after a ^ or not: what a pattern must be. NULL: it is another expression. */
static const char *pattern_name(const char *pattern, char name[PATTERN_MAX])
{
    size_t n = 0;
    for (const char *at = pattern[0] == '^' ? pattern + 1 : pattern; *at; at++) {
        bool is_name = (*at >= 'a' && *at <= 'z') || (*at >= 'A' && *at <= 'Z') ||
                       (*at >= '0' && *at <= '9') || *at == '_' || *at == '.';
        if (*at == '\\' && at[1] == '.')
            continue;
        if (!is_name || n + 1 >= PATTERN_MAX)
            return NULL;
        name[n++] = *at;
    }
    name[n] = '\0';
    return n > 0 ? name : NULL;
}

static linnet_status check_pattern(const json_t *config, const char *key, linnet_error *err)
{
    json_t *patterns = json_object_get(config, key), *value;
    const char *pattern;
    char name[PATTERN_MAX];
    if (is_off(patterns))
        return LINNET_OK;
    if (!json_is_object(patterns))
        return refuse(err, key);
    json_object_foreach(patterns, pattern, value)
    {
        if (!pattern_name(pattern, name))
            return linnet_fail(err, LINNET_ERR_UNSUPPORTED,
                               "%s: '%s' has an expression that is no name, '%.60s'", CONFIG_FILE, key,
                               pattern);
        if (!json_is_number(value) || !(json_number_value(value) > 0) || json_number_value(value) > 1e8)
            return linnet_fail(err, LINNET_ERR_RANGE, "%s: '%s' of '%.60s' is not positive", CONFIG_FILE, key,
                               pattern);
    }
    return LINNET_OK;
}

/* What a pattern says of a module: the first whose name is the module's or its end behind a dot, as peft does
 * it. Else `usual`. */
static double by_pattern(const json_t *config, const char *key, const char *module, double usual)
{
    json_t *patterns = json_object_get(config, key), *value;
    const char *pattern;
    char name[PATTERN_MAX];
    size_t n_module = strlen(module);
    json_object_foreach(patterns, pattern, value)
    {
        size_t n = pattern_name(pattern, name) ? strlen(name) : SIZE_MAX;
        if (n <= n_module && strcmp(module + n_module - n, name) == 0 &&
            (n == n_module || (pattern[0] != '^' && module[n_module - n - 1] == '.')))
            return json_number_value(value);
    }
    return usual;
}

static linnet_status parse_config(const json_t *config, const linnet_architecture *architecture,
                                  peft_config *ret_config, linnet_error *err)
{
    const json_t *rank = json_object_get(config, "r"), *alpha = json_object_get(config, "lora_alpha");
    linnet_status status = check_features(config, architecture, err);
    if (status != LINNET_OK)
        return status;
    if (!json_is_integer(rank) || json_integer_value(rank) < 1 || json_integer_value(rank) > LINNET_RANK_MAX)
        return linnet_fail(err, LINNET_ERR_FORMAT, "%s: 'r' is no rank in 1..%d", CONFIG_FILE,
                           LINNET_RANK_MAX);
    if (!json_is_number(alpha))
        return linnet_fail(err, LINNET_ERR_FORMAT, "%s: 'lora_alpha' is no number", CONFIG_FILE);
    ret_config->rank = (uint32_t)json_integer_value(rank);
    ret_config->alpha = json_number_value(alpha);
    ret_config->by_root = !is_off(json_object_get(config, "use_rslora"));
    ret_config->has_magnitudes = !is_off(json_object_get(config, "use_dora"));
    if (ret_config->has_magnitudes && architecture->hf_is_transposed) /* lengths of columns there */
        return refuse(err, "use_dora");
    if (!(ret_config->alpha > 0) || ret_config->alpha > 1e8)
        return linnet_fail(err, LINNET_ERR_RANGE, "%s: 'lora_alpha' is not positive", CONFIG_FILE);
    status = check_pattern(config, "rank_pattern", err);
    return status == LINNET_OK ? check_pattern(config, "alpha_pattern", err) : status;
}

static linnet_status read_config(const char *directory, const linnet_architecture *architecture,
                                 peft_config *ret_config, linnet_error *err)
{
    linnet_buffer bytes = {0};
    json_t *config = NULL;
    char *path = linnet_path_join(directory, CONFIG_FILE);
    if (!path)
        return linnet_fail(err, LINNET_ERR_NOMEM, "no memory to read '%s'", CONFIG_FILE);
    linnet_status status = linnet_file_read(path, LINNET_PEFT_CONFIG_BYTES_MAX, &bytes, err);
    if (status == LINNET_OK) {
        status = linnet_json_load(bytes.bytes, bytes.n_bytes, &config, err);
        if (status != LINNET_OK)
            (void)linnet_error_prefix(err, status, "%s", CONFIG_FILE); /* the status stays */
    }
    if (status == LINNET_OK)
        status = parse_config(config, architecture, ret_config, err);
    ret_config->json = config;
    linnet_buffer_release(&bytes);
    free(path);
    return status;
}

/* ---- names of modules ---- */

enum { MODULE_MAX = 160 };

/* "model.layers.3.self_attn.q_proj"; of the head "classifier". */
static void module_path(const linnet_architecture *architecture, uint32_t layer, linnet_target target,
                        char path[MODULE_MAX])
{
    if (linnet_target_is_head(target))
        (void)snprintf(path, MODULE_MAX, "%s", architecture->hf[target]);
    else
        (void)snprintf(path, MODULE_MAX, "%s.%u.%s", architecture->hf_layers, (unsigned)layer,
                       architecture->hf[target]);
}

/* What of a path is enough for peft, which goes by the ends of names: "layers.3.self_attn.q_proj". */
static void module_short_path(const linnet_architecture *architecture, const linnet_layout_entry *entry,
                              char path[MODULE_MAX])
{
    char whole[MODULE_MAX];
    size_t n_before = strlen(architecture->hf_layers) - strlen(strrchr(architecture->hf_layers, '.') + 1);
    module_path(architecture, entry->layer, entry->target, whole);
    (void)snprintf(path, MODULE_MAX, "%s", whole + (linnet_target_is_head(entry->target) ? 0 : n_before));
}

/* ---- the weights ---- */

/* In front of ".lora_A.weight": one of the modules of a block, or of the head. */
static bool parse_module(const linnet_architecture *architecture, const char *rest, bool is_head,
                         found_factor *factor)
{
    for (uint32_t t = 0; t < LINNET_TARGETS; t++) {
        bool is_known = architecture->hf[t] && linnet_target_is_head((linnet_target)t) == is_head;
        for (int is_b = 0; is_known && is_b <= 1; is_b++) {
            char wanted[64];
            (void)snprintf(wanted, sizeof(wanted), "%s.lora_%c.weight", architecture->hf[t],
                           is_b ? 'B' : 'A');
            if (strcmp(rest, wanted) != 0)
                continue;
            factor->target = (linnet_target)t;
            factor->factor = is_b ? LINNET_FACTOR_B : LINNET_FACTOR_A;
            return true;
        }
    }
    return false;
}

/* "base_model.model.model.layers.N" and a module; without a head on the model, one "model." less. */
static bool parse_name(const linnet_architecture *architecture, const char *name, found_factor *factor)
{
    const char *headless = strchr(architecture->hf_layers, '.') + 1; /* "model.layers" -> "layers" */
    char prefixes[2][64];
    size_t n_digits = 0;
    factor->layer = LINNET_LAYER_HEAD;
    if (strncmp(name, MODEL_PREFIX, strlen(MODEL_PREFIX)) == 0 &&
        parse_module(architecture, name + strlen(MODEL_PREFIX), true, factor))
        return true;
    (void)snprintf(prefixes[0], sizeof(prefixes[0]), MODEL_PREFIX "%s.", architecture->hf_layers);
    (void)snprintf(prefixes[1], sizeof(prefixes[1]), MODEL_PREFIX "%s.", headless);
    for (size_t p = 0; p < ARRAY_LEN(prefixes); p++) {
        size_t n_prefix = strlen(prefixes[p]);
        if (strncmp(name, prefixes[p], n_prefix) != 0)
            continue;
        const char *rest = name + n_prefix;
        if (!linnet_layout_parse_index((linnet_text){rest, strlen(rest)}, &factor->layer, &n_digits))
            return false;
        return rest[n_digits] == '.' && parse_module(architecture, rest + n_digits + 1, false, factor);
    }
    return false;
}

/* Rank and alpha of the factor's module, as the configuration says. */
static linnet_status check_module(const peft_config *config, const linnet_architecture *architecture,
                                  const char *name, found_factor *factor, linnet_error *err)
{
    char module[MODULE_MAX];
    module_path(architecture, factor->layer, factor->target, module);
    double rank = by_pattern(config->json, "rank_pattern", module, config->rank);
    double alpha = by_pattern(config->json, "alpha_pattern", module, config->alpha);
    uint64_t found = factor->factor == LINNET_FACTOR_A ? factor->rows : factor->columns;
    if ((double)found != rank)
        return linnet_fail(err, LINNET_ERR_FORMAT, "tensor '%s' has not the rank %.0f that %s says", name,
                           rank, CONFIG_FILE);
    factor->alpha = (float)(config->by_root ? alpha * sqrt(rank) : alpha);
    return LINNET_OK;
}

static linnet_status find_factor(const linnet_safetensors_tensor *tensor, const peft_config *config,
                                 const linnet_architecture *architecture, found_factors *found,
                                 linnet_error *err)
{
    found_factor factor = {.rows = tensor->dims[0], .columns = tensor->dims[1], .source = tensor};
    if (!parse_name(architecture, tensor->name, &factor))
        return linnet_fail(err, LINNET_ERR_UNSUPPORTED, "tensor '%s' is no LoRA factor of a %s linear",
                           tensor->name, architecture->name);
    if (tensor->n_dims != 2)
        return linnet_fail(err, LINNET_ERR_FORMAT, "tensor '%s' is no matrix", tensor->name);
    linnet_status status = check_module(config, architecture, tensor->name, &factor, err);
    return status == LINNET_OK ? linnet_found_add(found, factor, err) : status;
}

/* The alpha of all; factors that agree with it have none of their own. */
static float common_alpha(const peft_config *config, found_factors *found)
{
    float alpha = (float)(config->by_root ? config->alpha * sqrt((double)config->rank) : config->alpha);
    for (size_t i = 0; i < found->n; i++)
        if (found->items[i].alpha == alpha)
            found->items[i].alpha = 0;
    return alpha;
}

static void read_tensor(const void *source, float *values)
{
    linnet_safetensors_read(source, values);
}

static linnet_status open_weights(const char *directory, linnet_safetensors **ret_file, linnet_error *err)
{
    char *path = linnet_path_join(directory, WEIGHTS_FILE);
    if (!path)
        return linnet_fail(err, LINNET_ERR_NOMEM, "no memory to read '%s'", WEIGHTS_FILE);
    linnet_status status = linnet_safetensors_open(path, ret_file, err);
    if (status == LINNET_ERR_NOT_FOUND)
        status = linnet_fail(err, status, "no file '%s'; save the adapter with safe_serialization", path);
    free(path);
    return status;
}

/* ---- magnitudes of DoRA ---- */

/* "...q_proj.lora_magnitude_vector.weight", or without ".weight" as older versions wrote it. */
static const linnet_safetensors_tensor *find_magnitude(const linnet_safetensors *file,
                                                       const linnet_architecture *architecture,
                                                       const linnet_layout_entry *entry)
{
    char path[MODULE_MAX], module[MODULE_MAX + 1];
    module_short_path(architecture, entry, path);
    int n = snprintf(module, sizeof(module), ".%s", path);
    for (size_t i = 0; i < linnet_safetensors_n_tensors(file); i++) {
        const linnet_safetensors_tensor *tensor = linnet_safetensors_at(file, i);
        const char *end = strstr(tensor->name, MAGNITUDE);
        if (end && end - tensor->name > n && memcmp(end - n, module, (size_t)n) == 0)
            return tensor;
    }
    return NULL;
}

static bool is_row_vector(const linnet_safetensors_tensor *tensor, uint32_t n)
{
    return (tensor->n_dims == 1 && tensor->dims[0] == n) ||
           (tensor->n_dims == 2 && tensor->dims[0] == 1 && tensor->dims[1] == n);
}

/* One length for each row of an adapted matrix, into the model's order; rows: room for them. */
static linnet_status read_magnitude(const linnet_safetensors *file, const linnet_architecture *architecture,
                                    const linnet_layout_entry *entry, float *rows, float *magnitudes,
                                    linnet_error *err)
{
    const linnet_safetensors_tensor *tensor = find_magnitude(file, architecture, entry);
    linnet_layout_entry one = *entry; /* they are moved as the rows of a B of rank 1 are */
    if (!tensor || !is_row_vector(tensor, entry->rows))
        return linnet_fail(err, LINNET_ERR_FORMAT, "%s says use_dora, but %s has no %u magnitudes of '%s'",
                           CONFIG_FILE, WEIGHTS_FILE, (unsigned)entry->rows, entry->name);
    one.rank = 1;
    linnet_safetensors_read(tensor, rows);
    linnet_permute_rows(&one, one.n_rope_heads, true, rows, magnitudes);
    for (size_t r = 0; r < entry->rows; r++)
        if (!isfinite(magnitudes[r]))
            return linnet_fail(err, LINNET_ERR_RANGE, "a magnitude of '%s' is NaN or infinite", entry->name);
    return LINNET_OK;
}

static linnet_status read_magnitudes(const linnet_safetensors *file, const linnet_architecture *architecture,
                                     linnet_adapter *adapter, linnet_error *err)
{
    const linnet_layout *layout = adapter->layout;
    size_t n_all = linnet_layout_rows_before(layout, layout->n_entries), at = 0;
    float *rows = malloc(n_all * sizeof(float));
    linnet_status status = LINNET_OK;
    adapter->magnitudes = malloc(n_all * sizeof(float));
    if (!rows || !adapter->magnitudes)
        status = linnet_fail(err, LINNET_ERR_NOMEM, "no memory for %zu magnitudes", n_all);
    for (size_t e = 0; e < layout->n_entries && status == LINNET_OK; at += layout->entries[e++].rows)
        status = read_magnitude(file, architecture, &layout->entries[e], rows, adapter->magnitudes + at, err);
    free(rows);
    return status;
}

linnet_status linnet_adapter_load_peft(const char *directory, const layout_model *model,
                                       linnet_adapter **ret_adapter, linnet_error *err)
{
    peft_config config = {0};
    linnet_safetensors *file = NULL;
    found_factors found = {0};
    linnet_status status = read_config(directory, model->architecture, &config, err);
    if (status == LINNET_OK)
        status = open_weights(directory, &file, err);
    for (size_t i = 0; status == LINNET_OK && i < linnet_safetensors_n_tensors(file); i++)
        if (!config.has_magnitudes || !strstr(linnet_safetensors_at(file, i)->name, MAGNITUDE))
            status = find_factor(linnet_safetensors_at(file, i), &config, model->architecture, &found, err);
    if (status == LINNET_OK)
        status = linnet_found_assemble(&found, model, common_alpha(&config, &found), true, read_tensor,
                                       ret_adapter, err);
    if (status == LINNET_OK && config.has_magnitudes) {
        status = read_magnitudes(file, model->architecture, *ret_adapter, err);
        if (status != LINNET_OK) {
            linnet_adapter_destroy(*ret_adapter);
            *ret_adapter = NULL;
        }
    }
    free(found.items);
    linnet_safetensors_close(file);
    json_decref(config.json);
    return status;
}

/* ---- writing ---- */

/* Does every layer from 0 to the last have the same targets? */
static bool has_equal_layers(const linnet_layout *layout)
{
    size_t n = layout->n_entries;
    while (n > 0 && layout->entries[n - 1].layer == LINNET_LAYER_HEAD)
        n--;
    size_t n_layers = n > 0 ? (size_t)layout->entries[n - 1].layer + 1 : 1;
    if (n % n_layers != 0)
        return false;
    size_t n_targets = n / n_layers;
    for (size_t e = 0; e < n; e++)
        if (layout->entries[e].layer != e / n_targets ||
            layout->entries[e].target != layout->entries[e % n_targets].target)
            return false;
    return true;
}

/* Does peft take a target for the module of this name? It goes by the end of names. */
static bool is_named(const linnet_architecture *architecture, uint32_t target, const char *name)
{
    const char *module = architecture->hf[target];
    while (module && *module && strcmp(module, name) != 0)
        module = linnet_module_end(module);
    return module && *module;
}

/* "q_proj" for "self_attn.q_proj", unless another target's module ends so too, as gpt2's "c_proj". */
static const char *short_name(const linnet_architecture *architecture, linnet_target target)
{
    const char *module = architecture->hf[target], *dot = strrchr(module, '.');
    for (uint32_t t = 0; dot && t < LINNET_TARGETS; t++)
        if (t != (uint32_t)target && is_named(architecture, t, dot + 1))
            return module;
    return dot ? dot + 1 : module;
}

/* Do short names say which matrices are adapted? Not bert's "output.dense", which names those of
 * "attention.output.dense" too, unless they are adapted as well. */
static bool is_uniform(const linnet_layout *layout, const linnet_architecture *architecture)
{
    uint32_t adapted = 0;
    for (size_t e = 0; e < layout->n_entries; e++)
        adapted |= UINT32_C(1) << layout->entries[e].target;
    for (uint32_t target = 0; target < LINNET_TARGETS; target++)
        for (uint32_t t = 0; (adapted >> target & 1) != 0 && t < LINNET_TARGETS; t++)
            if ((adapted >> t & 1) == 0 &&
                is_named(architecture, t, short_name(architecture, (linnet_target)target)))
                return false;
    return has_equal_layers(layout);
}

/* peft matches names by their end: "q_proj", or "layers.3.self_attn.q_proj" for just that one. NULL: no
 * memory. */
static json_t *target_modules(const linnet_layout *layout, const linnet_architecture *architecture)
{
    bool uniform = is_uniform(layout, architecture);
    json_t *modules = json_array();
    for (size_t e = 0; modules && e < layout->n_entries; e++) {
        const linnet_layout_entry *entry = &layout->entries[e];
        char path[MODULE_MAX];
        module_short_path(architecture, entry, path);
        if (uniform && entry->layer > 0 && entry->layer != LINNET_LAYER_HEAD)
            continue;
        json_t *name = json_string(uniform ? short_name(architecture, entry->target) : path);
        if (json_array_append_new(modules, name) != 0) { /* fails for a NULL name too */
            json_decref(modules);
            return NULL;
        }
    }
    return modules;
}

/* {"layers.0.self_attn.q_proj": value} for every entry whose rank or alpha is not the usual one. NULL: no
 * memory. */
static json_t *pattern_object(const linnet_layout *layout, const linnet_architecture *architecture,
                              bool of_rank)
{
    json_t *object = json_object();
    for (size_t e = 0; object && e < layout->n_entries; e++) {
        const linnet_layout_entry *entry = &layout->entries[e];
        char name[MODULE_MAX];
        if (of_rank ? entry->rank == layout->entries[0].rank : entry->alpha == 0)
            continue;
        module_short_path(architecture, entry, name);
        json_t *value = of_rank ? json_integer((json_int_t)entry->rank) : json_real((double)entry->alpha);
        if (json_object_set_new(object, name, value) != 0) {
            json_decref(object);
            return NULL;
        }
    }
    return object;
}

/* lora_dropout is a setting for whoever trains on, not a property of the factors, which may be sums of many
 * trainings: it is 0, whatever was dropped in making them. */
static linnet_status save_config(const linnet_layout *layout, const linnet_architecture *architecture,
                                 const char *directory, const char *base_model_name, linnet_error *err)
{
    linnet_status status = LINNET_OK;
    char *path = linnet_path_join(directory, CONFIG_FILE), *text = NULL;
    /* Of a task SEQ_CLS peft would keep a copy of the classifier beside its LoRA: an encoder has no task. */
    json_t *config =
        json_pack("{s:s, s:s?, s:i, s:f, s:o, s:f, s:s, s:b, s:b, s:b, s:b, s:b, s:s, s:n, s:n, s:o, s:o}",
                  "peft_type", "LORA", "task_type", architecture->has_pooled_head ? NULL : "CAUSAL_LM", "r",
                  (int)layout->entries[0].rank, "lora_alpha", (double)layout->alpha, "target_modules",
                  target_modules(layout, architecture), "lora_dropout", 0.0, "bias", "none", "fan_in_fan_out",
                  architecture->hf_is_transposed, "use_rslora", 0, "use_dora", 0, "init_lora_weights", 1,
                  "inference_mode", 1, "base_model_name_or_path", base_model_name, "modules_to_save",
                  "layers_to_transform", "rank_pattern", pattern_object(layout, architecture, true),
                  "alpha_pattern", pattern_object(layout, architecture, false));
    if (config && layout->alpha == floorf(layout->alpha) && /* people write 16, not 16.0 */
        json_object_set_new(config, "lora_alpha", json_integer((json_int_t)layout->alpha)) != 0) {
        json_decref(config);
        config = NULL;
    }
    if (config)
        text = json_dumps(config, JSON_INDENT(2));
    if (!path || !text)
        status = linnet_fail(err, LINNET_ERR_NOMEM, "cannot make %s in memory", CONFIG_FILE);
    else
        status = linnet_file_write(path, text, strlen(text), 0644, err);
    json_decref(config);
    free(text);
    free(path);
    return status;
}

static void describe_factor(const linnet_layout_entry *entry, const linnet_architecture *architecture,
                            char letter, const float *values, linnet_safetensors_tensor *tensor)
{
    bool is_a = letter == 'A';
    char module[MODULE_MAX];
    module_path(architecture, entry->layer, entry->target, module);
    (void)snprintf(tensor->name, sizeof(tensor->name), MODEL_PREFIX "%s.lora_%c.weight", module, letter);
    tensor->type = LINNET_SAFETENSORS_F32;
    tensor->n_dims = 2;
    tensor->dims[0] = is_a ? entry->rank : entry->rows;
    tensor->dims[1] = is_a ? entry->columns : entry->rank;
    tensor->bytes = (const uint8_t *)values;
    tensor->n_bytes = (size_t)(tensor->dims[0] * tensor->dims[1]) * sizeof(float);
}

static linnet_status save_weights(const linnet_adapter *adapter, const linnet_architecture *architecture,
                                  const char *directory, linnet_error *err)
{
    const linnet_layout *layout = adapter->layout;
    linnet_status status = LINNET_OK;
    char *path = linnet_path_join(directory, WEIGHTS_FILE);
    linnet_safetensors_tensor *tensors = calloc(2 * layout->n_entries, sizeof(tensors[0]));
    float *b_rows = malloc(layout->n_b * sizeof(float)), *at = b_rows; /* every B, in Hugging Face's order */
    if (!path || !tensors || !b_rows) {
        status = linnet_fail(err, LINNET_ERR_NOMEM, "no memory to write '%s'", WEIGHTS_FILE);
    } else {
        for (size_t e = 0; e < layout->n_entries; e++) {
            const linnet_layout_entry *entry = &layout->entries[e];
            linnet_permute_rows(entry, entry->n_rope_heads, false, linnet_adapter_b(adapter, e), at);
            describe_factor(entry, architecture, 'A', linnet_adapter_a(adapter, e), &tensors[2 * e]);
            describe_factor(entry, architecture, 'B', at, &tensors[2 * e + 1]);
            at += (size_t)entry->rows * entry->rank;
        }
        status = linnet_safetensors_write(path, tensors, 2 * layout->n_entries, err);
    }
    free(b_rows);
    free(tensors);
    free(path);
    return status;
}

/* A module for every matrix. */
static linnet_status check_entries(const linnet_layout *layout, const linnet_architecture *architecture,
                                   linnet_error *err)
{
    for (size_t e = 0; e < layout->n_entries; e++) {
        const linnet_layout_entry *entry = &layout->entries[e];
        if (!architecture->hf[entry->target])
            return linnet_fail(err, LINNET_ERR_UNSUPPORTED,
                               "'%s' is no module of a %s model in PEFT; write GGUF instead", entry->name,
                               architecture->name);
    }
    return LINNET_OK;
}

linnet_status linnet_adapter_save_peft(const linnet_adapter *adapter, const char *architecture,
                                       const char *directory, const char *base_model_name, linnet_error *err)
{
    const linnet_architecture *row =
        linnet_architecture_find((linnet_text){architecture, strlen(architecture)});
    if (!row)
        return linnet_fail(err, LINNET_ERR_ARG, "unknown architecture '%s'", architecture);
    linnet_status status = linnet_adapter_require_plain(adapter, "written", err);
    if (status == LINNET_OK)
        status = check_entries(adapter->layout, row, err);
    if (status != LINNET_OK)
        return status;
    if (!linnet_utf8_is_valid(base_model_name, strlen(base_model_name)))
        return linnet_fail(err, LINNET_ERR_ARG, "the base model's name is no UTF-8");
    status = linnet_directory_create(directory, err);
    if (status == LINNET_OK)
        status = save_weights(adapter, row, directory, err);
    if (status == LINNET_OK)
        status = save_config(adapter->layout, row, directory, base_model_name, err);
    return status;
}
