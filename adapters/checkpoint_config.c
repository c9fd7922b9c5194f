/* SPDX-License-Identifier: Apache-2.0 */
/*
 * config.json of a checkpoint as keys of a GGUF file. What transformers computes follows from this file, so a
 * setting that is not known here is refused by name, unless it is null or false. Both forms of rope settings
 * are read: rope_theta and rope_scaling of transformers 4, rope_parameters of 5. Sources: transformers'
 * configuration_llama.py, configuration_qwen2.py, configuration_bert.py and modeling_rope_utils.py;
 * llama.cpp's convert_hf_to_gguf.py for the names of keys. Left out: rope types dynamic and longrope, mscale
 * of YaRN.
 */
#include "checkpoint.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "linnet/json_load.h"
#include "limits.h"

enum { LAYERS_MAX = LINNET_LAYOUT_ENTRIES_MAX, WIDTH_MAX = 1 << 20, COUNT_MAX = INT32_MAX };

typedef enum family { LLAMA, QWEN2, BERT } family;

typedef struct reading {
    const json_t *object; /* config.json */
    linnet_gguf_writer *writer;
    checkpoint_config config;
    family family;
    linnet_error *err;
} reading;

/* Read below. */
static const char *const read_keys[] = {
    "architectures",       "model_type",        "hidden_size",
    "intermediate_size",   "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "head_dim",          "max_position_embeddings",
    "vocab_size",          "rms_norm_eps",      "hidden_act",
    "rope_theta",          "rope_scaling",      "rope_parameters",
    "tie_word_embeddings", "bos_token_id",      "eos_token_id",
};
static const char *const llama_keys[] = {"attention_bias", "mlp_bias"};
static const char *const qwen2_keys[] = {"use_sliding_window", "sliding_window", "max_window_layers",
                                         "layer_types"};
static const char *const bert_keys[] = {
    "architectures",
    "model_type",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "vocab_size",
    "max_position_embeddings",
    "hidden_act",
    "layer_norm_eps",
    "type_vocab_size",
    "position_embedding_type",
    "problem_type",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "classifier_dropout",
    "tie_word_embeddings",
    "bos_token_id",
    "eos_token_id",
};
/* These change training, what is returned, or nothing; id2label is read for its names. */
static const char *const idle_keys[] = {
    "transformers_version",
    "torch_dtype",
    "dtype",
    "use_cache",
    "initializer_range",
    "attention_dropout",
    "pretraining_tp",
    "pad_token_id",
    "id2label",
    "label2id",
    "return_dict",
    "output_hidden_states",
    "output_attentions",
    "chunk_size_feed_forward",
};

/* ---- single settings ---- */

static bool is_among(const char *name, const char *const *names, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(name, names[i]) == 0)
            return true;
    return false;
}

static bool is_off(const json_t *value)
{
    return !value || json_is_null(value) || json_is_false(value);
}

static const json_t *find(const json_t *object, const char *name)
{
    const json_t *value = json_object_get(object, name);
    return json_is_null(value) ? NULL : value;
}

static linnet_status refuse(const reading *r, const char *name)
{
    return linnet_fail(r->err, LINNET_ERR_UNSUPPORTED, "it sets '%s', which linnet does not compute", name);
}

/* Is it read for this family? */
static bool is_of_family(const reading *r, const char *name)
{
    if (r->family == BERT)
        return is_among(name, bert_keys, ARRAY_LEN(bert_keys));
    return is_among(name, read_keys, ARRAY_LEN(read_keys)) ||
           (r->family == LLAMA ? is_among(name, llama_keys, ARRAY_LEN(llama_keys))
                               : is_among(name, qwen2_keys, ARRAY_LEN(qwen2_keys)));
}

static linnet_status refuse_unknown(const reading *r)
{
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)r->object, name, value) /* only read */
    {
        bool is_known = is_among(name, idle_keys, ARRAY_LEN(idle_keys)) || is_of_family(r, name);
        bool is_mark = name[0] == '_' || strncmp(name, "unsloth_", 8) == 0; /* who saved it, and how */
        if (!is_known && !is_mark && !is_off(value))
            return refuse(r, name);
    }
    return LINNET_OK;
}

/* A count in 1..high. An absent one takes the value that *ret has, or fails where that is 0. */
static linnet_status get_count(const reading *r, const json_t *object, const char *name, uint32_t high,
                               uint32_t *ret)
{
    const json_t *value = find(object, name);
    json_int_t number = json_integer_value(value);
    if (!value && *ret != 0)
        return LINNET_OK;
    if (!value)
        return linnet_fail(r->err, LINNET_ERR_FORMAT, "it has no '%s'", name);
    if (!json_is_integer(value) || number < 1 || number > (json_int_t)high)
        return linnet_fail(r->err, LINNET_ERR_RANGE, "'%s' is no integer in 1..%u", name, (unsigned)high);
    *ret = (uint32_t)number;
    return LINNET_OK;
}

/* A positive, finite number; absent as above. */
static linnet_status get_positive(const reading *r, const json_t *object, const char *name, double *ret)
{
    const json_t *value = find(object, name);
    double number = json_number_value(value);
    if (!value && *ret != 0)
        return LINNET_OK;
    if (!value)
        return linnet_fail(r->err, LINNET_ERR_FORMAT, "it has no '%s'", name);
    if (!json_is_number(value) || !((float)number > 0) || !isfinite((float)number))
        return linnet_fail(r->err, LINNET_ERR_RANGE, "'%s' is no positive, finite number", name);
    *ret = number;
    return LINNET_OK;
}

static linnet_status get_flag(const reading *r, const char *name, bool *ret)
{
    const json_t *value = find(r->object, name);
    if (value && !json_is_boolean(value))
        return linnet_fail(r->err, LINNET_ERR_FORMAT, "'%s' is neither true nor false", name);
    *ret = json_is_true(value);
    return LINNET_OK;
}

/* A token id, or the first of several; -1 where there is none. */
static int64_t token_of(const json_t *object, const char *name)
{
    const json_t *value = find(object, name);
    if (json_is_array(value))
        value = json_array_get(value, 0);
    return json_is_integer(value) && json_integer_value(value) >= 0 ? (int64_t)json_integer_value(value) : -1;
}

/* ---- keys ---- */

static const char *key_of(const reading *r, const char *name, char key[96])
{
    (void)snprintf(key, 96, "%s.%s", r->config.architecture->name, name); /* both are ours and short */
    return key;
}

static void put_u32(const reading *r, const char *name, uint32_t value)
{
    char key[96];
    linnet_gguf_writer_u32(r->writer, key_of(r, name, key), value);
}

static void put_f32(const reading *r, const char *name, double value)
{
    char key[96];
    linnet_gguf_writer_f32(r->writer, key_of(r, name, key), (float)value);
}

static void put_text(const reading *r, const char *name, const char *value)
{
    char key[96];
    linnet_gguf_writer_text(r->writer, key_of(r, name, key), value);
}

/* ---- what the file is of ---- */

static linnet_status read_family(reading *r)
{
    static const struct {
        const char *type, *class;
    } families[] = {[LLAMA] = {"llama", "LlamaForCausalLM"},
                    [QWEN2] = {"qwen2", "Qwen2ForCausalLM"},
                    [BERT] = {"bert", "BertForSequenceClassification"}};
    const char *type = json_string_value(json_object_get(r->object, "model_type"));
    const json_t *classes = find(r->object, "architectures");
    const char *class = json_string_value(json_array_get(classes, 0));
    for (size_t i = 0; type && i < ARRAY_LEN(families); i++) {
        if (strcmp(type, families[i].type) != 0)
            continue;
        if (classes && (!class || json_array_size(classes) != 1 || strcmp(class, families[i].class) != 0))
            return linnet_fail(r->err, LINNET_ERR_UNSUPPORTED, "its 'architectures' is not %s",
                               families[i].class);
        r->config.architecture = linnet_architecture_find((linnet_text){type, strlen(type)});
        r->family = (family)i;
        linnet_gguf_writer_text(r->writer, "general.architecture", type);
        return LINNET_OK;
    }
    return linnet_fail(r->err, LINNET_ERR_UNSUPPORTED,
                       "its model_type is '%.40s'; llama, qwen2 and bert are read from checkpoints, other "
                       "models from GGUF files",
                       type ? type : "");
}

/* What all families say alike. */
static linnet_status read_sizes(reading *r, uint32_t *ret_width, uint32_t *ret_context)
{
    checkpoint_config *c = &r->config;
    uint32_t width = 0, ffn_width = 0, context = 0;
    linnet_status status = get_count(r, r->object, "hidden_size", WIDTH_MAX, &width);
    if (status == LINNET_OK)
        status = get_count(r, r->object, "intermediate_size", WIDTH_MAX, &ffn_width);
    if (status == LINNET_OK)
        status = get_count(r, r->object, "num_hidden_layers", LAYERS_MAX, &c->n_layers);
    if (status == LINNET_OK)
        status = get_count(r, r->object, "num_attention_heads", LINNET_HEADS_MAX, &c->n_heads);
    if (status == LINNET_OK)
        status = get_count(r, r->object, "max_position_embeddings", COUNT_MAX, &context);
    if (status == LINNET_OK)
        status = get_count(r, r->object, "vocab_size", LINNET_TOKENS_MAX, &c->vocabulary);
    if (status != LINNET_OK)
        return status;
    put_u32(r, "block_count", c->n_layers);
    put_u32(r, "embedding_length", width);
    put_u32(r, "feed_forward_length", ffn_width);
    put_u32(r, "context_length", context);
    put_u32(r, "vocab_size", c->vocabulary);
    put_u32(r, "attention.head_count", c->n_heads);
    *ret_width = width;
    *ret_context = context;
    return LINNET_OK;
}

static linnet_status read_shape(reading *r, uint32_t *ret_context)
{
    checkpoint_config *c = &r->config;
    uint32_t width = 0;
    double epsilon = 0;
    const char *activation = json_string_value(json_object_get(r->object, "hidden_act"));
    linnet_status status = read_sizes(r, &width, ret_context);
    c->n_kv_heads = r->family == LLAMA ? c->n_heads : 0;
    if (status == LINNET_OK)
        status = get_count(r, r->object, "num_key_value_heads", LINNET_HEADS_MAX, &c->n_kv_heads);
    if (status == LINNET_OK && c->n_heads > 0)
        c->head_width = width / c->n_heads;
    if (status == LINNET_OK)
        status = get_count(r, r->object, "head_dim", WIDTH_MAX, &c->head_width);
    if (status == LINNET_OK)
        status = get_positive(r, r->object, "rms_norm_eps", &epsilon);
    if (status != LINNET_OK)
        return status;
    if (activation && strcmp(activation, "silu") != 0 && strcmp(activation, "swish") != 0)
        return refuse(r, "hidden_act");
    if (c->head_width % 2 != 0)
        return linnet_fail(r->err, LINNET_ERR_RANGE, "heads of %u cannot turn in pairs",
                           (unsigned)c->head_width);
    put_u32(r, "attention.head_count_kv", c->n_kv_heads);
    put_u32(r, "attention.key_length", c->head_width);
    put_u32(r, "attention.value_length", c->head_width);
    put_u32(r, "rope.dimension_count", c->head_width);
    put_f32(r, "attention.layer_norm_rms_epsilon", epsilon);
    return LINNET_OK;
}

static linnet_status read_flags(reading *r)
{
    bool in_attention = false, in_ffn = false;
    linnet_status status = get_flag(r, "tie_word_embeddings", &r->config.is_tied);
    if (status == LINNET_OK && r->family == LLAMA)
        status = get_flag(r, "attention_bias", &in_attention);
    if (status == LINNET_OK && r->family == LLAMA)
        status = get_flag(r, "mlp_bias", &in_ffn);
    r->config.biases = r->config.architecture->biases;
    for (uint32_t t = LINNET_TARGET_ATTN_Q; t <= LINNET_TARGET_FFN_DOWN; t++)
        if (t <= LINNET_TARGET_ATTN_OUTPUT ? in_attention : in_ffn)
            r->config.biases |= UINT32_C(1) << t;
    r->config.begin = token_of(r->object, "bos_token_id");
    r->config.end = token_of(r->object, "eos_token_id");
    return status;
}

/* ---- rotary positions ---- */

/* Llama 3 divides low frequencies by `factor` and leaves high ones, with a ramp between them. */
static linnet_status read_llama3(reading *r, const json_t *rope, double base, double factor)
{
    double low = 0, high = 0, original = 0;
    uint32_t n = r->config.head_width / 2;
    linnet_status status = get_positive(r, rope, "low_freq_factor", &low);
    if (status == LINNET_OK)
        status = get_positive(r, rope, "high_freq_factor", &high);
    if (status == LINNET_OK)
        status = get_positive(r, rope, "original_max_position_embeddings", &original);
    if (status == LINNET_OK && !(high > low))
        status = linnet_fail(r->err, LINNET_ERR_RANGE, "'high_freq_factor' is not above 'low_freq_factor'");
    if (status != LINNET_OK)
        return status;
    r->config.factors = calloc(n, sizeof(float)); /* at least 1: widths are even */
    if (!r->config.factors)
        return linnet_fail(r->err, LINNET_ERR_NOMEM, "no memory for %u rope factors", (unsigned)n);
    for (uint32_t i = 0; i < n; i++) {
        double wave = 2 * 3.14159265358979323846 * pow(base, (double)i / n), share = original / wave;
        double smooth = (share - low) / (high - low);
        smooth = smooth < 0 ? 0 : smooth > 1 ? 1 : smooth;
        r->config.factors[i] = (float)(1 / ((1 - smooth) / factor + smooth));
    }
    return LINNET_OK;
}

static linnet_status read_yarn(reading *r, const json_t *rope, double factor, uint32_t context)
{
    const json_t *attention = find(rope, "attention_factor");
    double usual = 1 + 0.1 * log(factor), wanted = usual, fast = 32, slow = 1;
    uint32_t original = context;
    if (find(rope, "truncate") && !json_is_true(find(rope, "truncate")))
        return refuse(r, "truncate");
    linnet_status status = get_count(r, rope, "original_max_position_embeddings", COUNT_MAX, &original);
    if (status == LINNET_OK)
        status = get_positive(r, rope, "beta_fast", &fast);
    if (status == LINNET_OK)
        status = get_positive(r, rope, "beta_slow", &slow);
    if (status == LINNET_OK && attention)
        status = get_positive(r, rope, "attention_factor", &wanted);
    if (status != LINNET_OK)
        return status;
    put_text(r, "rope.scaling.type", "yarn");
    put_f32(r, "rope.scaling.factor", factor);
    put_u32(r, "rope.scaling.original_context_length", original);
    put_f32(r, "rope.scaling.yarn_beta_fast", fast);
    put_f32(r, "rope.scaling.yarn_beta_slow", slow);
    if (attention)
        put_f32(r, "rope.scaling.attn_factor", wanted / usual);
    return LINNET_OK;
}

/* What a type of scaling reads; everything else would be something new. */
static linnet_status check_rope_keys(const reading *r, const json_t *rope, const char *type)
{
    static const char *const always[] = {"rope_theta", "rope_type", "type",
                                         "original_max_position_embeddings"};
    static const char *const llama3[] = {"factor", "low_freq_factor", "high_freq_factor"};
    static const char *const yarn[] = {"factor", "beta_fast", "beta_slow", "attention_factor", "truncate"};
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)rope, name, value) /* only read */
    {
        bool is_known = is_among(name, always, ARRAY_LEN(always));
        if (strcmp(type, "linear") == 0 || strcmp(type, "default") == 0)
            is_known = is_known || strcmp(name, "factor") == 0;
        else if (strcmp(type, "llama3") == 0)
            is_known = is_known || is_among(name, llama3, ARRAY_LEN(llama3));
        else
            is_known = is_known || is_among(name, yarn, ARRAY_LEN(yarn));
        if (strcmp(name, "partial_rotary_factor") == 0)
            is_known = json_number_value(value) == 1;
        if (!is_known && !json_is_null(value))
            return refuse(r, name);
    }
    return LINNET_OK;
}

static linnet_status read_scaling(reading *r, const json_t *rope, double base, uint32_t context)
{
    const json_t *named = find(rope, "rope_type") ? find(rope, "rope_type") : find(rope, "type");
    const char *type = named ? json_string_value(named) : "default";
    double factor = 0;
    if (!type || (strcmp(type, "default") != 0 && strcmp(type, "linear") != 0 &&
                  strcmp(type, "llama3") != 0 && strcmp(type, "yarn") != 0))
        return linnet_fail(r->err, LINNET_ERR_UNSUPPORTED,
                           "its rope type is '%.40s'; default, linear, llama3 and yarn are computed",
                           type ? type : "");
    linnet_status status = check_rope_keys(r, rope, type);
    if (status != LINNET_OK || strcmp(type, "default") == 0)
        return status;
    status = get_positive(r, rope, "factor", &factor);
    if (status == LINNET_OK && factor < 1)
        status = linnet_fail(r->err, LINNET_ERR_RANGE, "the 'factor' of its rope is below 1");
    if (status == LINNET_OK && strcmp(type, "llama3") == 0)
        return read_llama3(r, rope, base, factor);
    if (status == LINNET_OK && strcmp(type, "yarn") == 0)
        return read_yarn(r, rope, factor, context);
    if (status == LINNET_OK) {
        put_text(r, "rope.scaling.type", "linear");
        put_f32(r, "rope.scaling.factor", factor);
    }
    return status;
}

static linnet_status read_rope(reading *r, uint32_t context)
{
    const json_t *scaling = find(r->object, "rope_scaling"), *parameters = find(r->object, "rope_parameters");
    const json_t *rope = scaling ? scaling : parameters;
    double base = 10000, inner = 0;
    linnet_status status = get_positive(r, r->object, "rope_theta", &base);
    if (status == LINNET_OK && scaling && parameters)
        return linnet_fail(r->err, LINNET_ERR_UNSUPPORTED,
                           "it has both 'rope_scaling' and 'rope_parameters'");
    if (status == LINNET_OK && rope && !json_is_object(rope))
        return linnet_fail(r->err, LINNET_ERR_FORMAT, "its rope settings are no object");
    inner = base;
    if (status == LINNET_OK && rope)
        status = get_positive(r, rope, "rope_theta", &inner);
    if (status == LINNET_OK && inner != base && find(r->object, "rope_theta"))
        status = linnet_fail(r->err, LINNET_ERR_UNSUPPORTED, "it has two values of 'rope_theta'");
    if (status != LINNET_OK)
        return status;
    put_f32(r, "rope.freq_base", inner);
    return rope ? read_scaling(r, rope, inner, context) : LINNET_OK;
}

/* ---- windows ---- */

/* Does layer i of qwen2 have a window? layer_types says it, or max_window_layers: so many have none. */
static linnet_status layer_has_window(const reading *r, uint32_t i, uint32_t first, uint8_t *ret)
{
    const json_t *types = find(r->object, "layer_types");
    const char *type = types ? json_string_value(json_array_get(types, i)) : NULL;
    if (!types) {
        *ret = i >= first;
        return LINNET_OK;
    }
    bool slides = type && strcmp(type, "sliding_attention") == 0;
    if (json_array_size(types) != r->config.n_layers ||
        (!slides && (!type || strcmp(type, "full_attention") != 0)))
        return linnet_fail(
            r->err, LINNET_ERR_UNSUPPORTED,
            "'layer_types' is no list of full_attention and sliding_attention for its %u layers",
            (unsigned)r->config.n_layers);
    *ret = slides;
    return LINNET_OK;
}

static linnet_status read_windows(reading *r)
{
    const json_t *layers = find(r->object, "max_window_layers");
    bool uses = false, any = false;
    char key[96];
    uint32_t window = 0, first = 28; /* transformers' default */
    linnet_buffer flags = {0};
    linnet_status status = get_flag(r, "use_sliding_window", &uses);
    if (json_is_integer(layers) && json_integer_value(layers) == 0) /* all have one */
        first = 0;
    else if (status == LINNET_OK)
        status = get_count(r, r->object, "max_window_layers", COUNT_MAX, &first);
    for (uint32_t i = 0; i < r->config.n_layers && status == LINNET_OK; i++) {
        uint8_t has = 0;
        status = layer_has_window(r, i, uses && find(r->object, "sliding_window") ? first : UINT32_MAX, &has);
        any = any || has;
        linnet_buffer_append_u8(&flags, has);
    }
    if (status == LINNET_OK && any && !uses)
        status = refuse(r, "layer_types");
    if (status == LINNET_OK && any)
        status = get_count(r, r->object, "sliding_window", COUNT_MAX, &window);
    if (status == LINNET_OK && any) {
        put_u32(r, "attention.sliding_window", window);
        linnet_gguf_writer_array(r->writer, key_of(r, "attention.sliding_window_pattern", key),
                                 LINNET_GGUF_BOOL, r->config.n_layers, &flags);
    }
    linnet_buffer_release(&flags);
    return status;
}

/* ---- bert ---- */

/* A setting must be absent or this text. */
static linnet_status want_text(const reading *r, const char *name, const char *wanted)
{
    const json_t *value = find(r->object, name);
    const char *text = json_string_value(value);
    return !value || (text && strcmp(text, wanted) == 0) ? LINNET_OK : refuse(r, name);
}

/* Names of the labels: id2label has them by number; without it there are two. */
static linnet_status read_labels(const reading *r)
{
    const json_t *names = find(r->object, "id2label");
    uint32_t n = names ? (uint32_t)json_object_size(names) : 2;
    linnet_buffer elements = {0};
    linnet_status status = LINNET_OK;
    for (uint32_t i = 0; i < n && status == LINNET_OK; i++) {
        char number[16], usual[24];
        (void)snprintf(number, sizeof(number), "%u", (unsigned)i);
        (void)snprintf(usual, sizeof(usual), "LABEL_%u", (unsigned)i);
        const char *name = names ? json_string_value(json_object_get(names, number)) : usual;
        if (!name)
            status =
                linnet_fail(r->err, LINNET_ERR_FORMAT, "'id2label' has no name of label %u", (unsigned)i);
        linnet_buffer_append_le64(&elements, name ? strlen(name) : 0);
        linnet_buffer_append_text(&elements, name ? name : "");
    }
    char key[96];
    if (status == LINNET_OK)
        linnet_gguf_writer_array(r->writer, key_of(r, "classifier.output_labels", key), LINNET_GGUF_STRING, n,
                                 &elements);
    linnet_buffer_release(&elements);
    return status;
}

static linnet_status read_bert(reading *r)
{
    enum { RANK = 4 }; /* how llama.cpp pools a text for a head */
    char key[96];
    uint32_t width = 0, context = 0, n_types = 2; /* transformers' default */
    double epsilon = 1e-12;
    linnet_status status = read_sizes(r, &width, &context);
    if (status == LINNET_OK)
        status = get_positive(r, r->object, "layer_norm_eps", &epsilon);
    if (status == LINNET_OK)
        status = get_count(r, r->object, "type_vocab_size", COUNT_MAX, &n_types);
    if (status == LINNET_OK)
        status = want_text(r, "hidden_act", "gelu");
    if (status == LINNET_OK)
        status = want_text(r, "position_embedding_type", "absolute");
    if (status == LINNET_OK)
        status = want_text(r, "problem_type", "single_label_classification");
    if (status == LINNET_OK)
        status = read_labels(r);
    if (status != LINNET_OK)
        return status;
    r->config.n_kv_heads = r->config.n_heads;
    r->config.biases = r->config.architecture->biases;
    r->config.begin = r->config.end = -1;
    put_f32(r, "attention.layer_norm_epsilon", epsilon);
    linnet_gguf_writer_bool(r->writer, key_of(r, "attention.causal", key), false);
    put_u32(r, "pooling_type", RANK);
    linnet_gguf_writer_u32(r->writer, "tokenizer.ggml.token_type_count", n_types);
    return LINNET_OK;
}

/* ---- the file ---- */

/* llama and qwen2. */
static linnet_status read_decoder(reading *r)
{
    uint32_t context = 0;
    linnet_status status = read_shape(r, &context);
    if (status == LINNET_OK)
        status = read_flags(r);
    if (status == LINNET_OK)
        status = read_rope(r, context);
    return status == LINNET_OK && r->family == QWEN2 ? read_windows(r) : status;
}

linnet_status linnet_checkpoint_read_config(const char *directory, linnet_gguf_writer *writer,
                                            checkpoint_config *ret_config, linnet_error *err)
{
    json_t *object = NULL;
    linnet_status status = linnet_json_load_file(directory, "config.json", LINNET_CONFIG_BYTES_MAX,
                                                 LINNET_JSON_VALUES_MAX, 0, &object, err);
    if (status != LINNET_OK)
        return status;
    reading r = {.object = object, .writer = writer, .err = err};
    status = read_family(&r);
    if (status == LINNET_OK)
        status = refuse_unknown(&r);
    if (status == LINNET_OK)
        status = r.family == BERT ? read_bert(&r) : read_decoder(&r);
    json_decref(object);
    if (status != LINNET_OK) {
        free(r.config.factors);
        return linnet_error_prefix(err, status, "'%s/config.json'", directory);
    }
    *ret_config = r.config;
    return LINNET_OK;
}
