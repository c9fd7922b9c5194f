/* SPDX-License-Identifier: Apache-2.0 */
/* Checkpoints of Hugging Face seen as GGUF files (tests/reference/checkpoints.py makes them): nothing is
 * copied, what is written from them has GGUF's rows, and what would be computed otherwise is refused by name.
 */
#include "fixture.h"

#include "linnet/quantize.h"
#include "linnet/safetensors.h"

#include <jansson.h>

static const char *const kinds[] = {"llama", "qwen2", "bert"};

static const char *vector_folder(const char *kind)
{
    static char path[512];
    (void)snprintf(path, sizeof(path), "%s/checkpoints/%s", LINNET_VECTORS, kind);
    return path;
}

static linnet_gguf *open_vector(const char *kind)
{
    linnet_error err = {0};
    linnet_gguf *gguf = NULL;
    assert_ok(linnet_gguf_open(vector_folder(kind), &gguf, &err), &err);
    return gguf;
}

/* A copy that may be changed, as "folder/changed". */
static const char *copy_vector(const char *kind)
{
    char command[1024];
    const char *to = in_folder("changed");
    (void)snprintf(command, sizeof(command), "rm -rf '%s' && cp -r '%s' '%s'", to, vector_folder(kind), to);
    assert_int_equal(system(command), 0);
    return to;
}

/* Set what lies at "a.b.0" of a JSON file to a value; an empty one removes it. */
static void change(const char *file, const char *at, const char *value)
{
    json_error_t error;
    char path[300], name[100];
    (void)snprintf(path, sizeof(path), "%s/%s", in_folder("changed"), file);
    json_t *root = json_load_file(
               path, JSON_DECODE_INT_AS_REAL * (strcmp(file, "tokenizer_config.json") == 0), &error),
           *object = root;
    assert_non_null(root);
    for (const char *dot; (dot = strchr(at, '.')) && json_is_object(object); at = dot + 1) {
        (void)snprintf(name, sizeof(name), "%.*s", (int)(dot - at), at);
        if (!json_object_get(object, name))
            break; /* names of tensors have dots */
        object = json_object_get(object, name);
    }
    if (json_is_array(object))
        assert_int_equal(
            json_array_set_new(object, (size_t)atoi(at), json_loads(value, JSON_DECODE_ANY, &error)), 0);
    else if (value[0] == '\0')
        assert_int_equal(json_object_del(object, at), 0);
    else
        assert_int_equal(json_object_set_new(object, at, json_loads(value, JSON_DECODE_ANY, &error)), 0);
    assert_int_equal(json_dump_file(root, path, 0), 0);
    json_decref(root);
}

static void expect(const char *what, linnet_status want, const char *message)
{
    linnet_error err = {0};
    linnet_gguf *gguf = NULL;
    linnet_status got = linnet_gguf_open(in_folder("changed"), &gguf, &err);
    if (got != want || (message && !strstr(err.message, message)))
        fail_msg("%s: got %s (%s), want %s (%s)", what, linnet_status_name(got), err.message,
                 linnet_status_name(want), message ? message : "");
    if (want != LINNET_OK)
        assert_null(gguf);
    linnet_gguf_close(gguf);
}

/* ---- the view ---- */

static void weights_lie_in_their_files(void **state)
{
    (void)state;
    linnet_gguf *llama = open_vector("llama"), *qwen2 = open_vector("qwen2");
    linnet_hash hash;
    linnet_error err = {0};
    const linnet_gguf_tensor *q = linnet_gguf_find_tensor(llama, "blk.1.attn_q.weight");
    assert_true(linnet_gguf_is_checkpoint(llama));
    assert_int_equal(q->dims[0], 24);
    assert_int_equal(q->dims[1], 32);
    assert_int_equal(q->n_hf_heads, 4);
    assert_int_equal(linnet_gguf_find_tensor(llama, "blk.0.attn_k.bias")->n_hf_heads, 2);
    assert_int_equal(linnet_gguf_find_tensor(llama, "blk.0.attn_v.weight")->n_hf_heads, 0);
    assert_int_equal(linnet_gguf_find_tensor(qwen2, "blk.0.attn_q.weight")->n_hf_heads, 0);
    assert_null(linnet_gguf_find_tensor(llama, "output.weight")); /* tied */
    assert_non_null(linnet_gguf_find_tensor(llama, "rope_freqs.weight"));
    assert_int_equal(linnet_gguf_n_tensors(llama), 35);
    assert_int_equal(linnet_gguf_n_tensors(qwen2), 27);
    assert_int_equal(linnet_gguf_hash(llama, &hash, &err), LINNET_ERR_UNSUPPORTED);
    assert_non_null(strstr(err.message, "quantize"));
    linnet_gguf_close(qwen2);
    linnet_gguf_close(llama);
}

/* ---- refusals ---- */

typedef struct changed {
    const char *file, *at, *value;
    linnet_status want;
    const char *message;
} changed;

static void run_changes(const char *kind, const changed *list, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        char what[300];
        (void)snprintf(what, sizeof(what), "%s: %s = %.100s", list[i].file, list[i].at, list[i].value);
        (void)copy_vector(kind);
        change(list[i].file, list[i].at, list[i].value);
        expect(what, list[i].want, list[i].message);
    }
}

#define CONFIG "config.json"
#define TOKENIZER "tokenizer.json"
#define BAD LINNET_ERR_UNSUPPORTED

static void settings_that_would_change_the_computation_are_refused_by_name(void **state)
{
    (void)state;
    static const changed llama[] = {
        {CONFIG, "model_type", "\"mixtral\"", BAD, "'mixtral'"},
        {CONFIG, "architectures", "[\"LlamaForSequenceClassification\"]", BAD, "LlamaForCausalLM"},
        {CONFIG, "quantization_config", "{\"bits\": 4}", BAD, "'quantization_config'"},
        {CONFIG, "final_logit_softcapping", "30.0", BAD, "'final_logit_softcapping'"},
        {CONFIG, "something_new", "true", BAD, "'something_new'"},
        {CONFIG, "something_new", "null", LINNET_OK, NULL},
        {CONFIG, "something_new", "false", LINNET_OK, NULL},
        {CONFIG, "sliding_window", "16", BAD, "'sliding_window'"},
        {CONFIG, "hidden_act", "\"gelu\"", BAD, "'hidden_act'"},
        {CONFIG, "hidden_size", "", LINNET_ERR_FORMAT, "no 'hidden_size'"},
        {CONFIG, "hidden_size", "0", LINNET_ERR_RANGE, "'hidden_size'"},
        {CONFIG, "hidden_size", "1e300", LINNET_ERR_RANGE, "'hidden_size'"},
        {CONFIG, "hidden_size", "-24", LINNET_ERR_RANGE, "'hidden_size'"},
        {CONFIG, "head_dim", "7", LINNET_ERR_RANGE, "heads of 7"},
        {CONFIG, "head_dim", "6", LINNET_ERR_FORMAT, "heads of 6"},
        {CONFIG, "num_attention_heads", "65537", LINNET_ERR_RANGE, "'num_attention_heads'"},
        {CONFIG, "num_key_value_heads", "", LINNET_ERR_FORMAT, "k_proj"},
        {CONFIG, "rms_norm_eps", "\"small\"", LINNET_ERR_RANGE, "'rms_norm_eps'"},
        {CONFIG, "vocab_size", "368", LINNET_ERR_FORMAT, "vocab_size"},
        {CONFIG, "vocab_size", "400", LINNET_ERR_FORMAT, "400 tokens"},
        {CONFIG, "attention_bias", "false", BAD, "no bias"},
        {CONFIG, "mlp_bias", "false", BAD, "no bias"},
        {CONFIG, "tie_word_embeddings", "false", LINNET_ERR_FORMAT, "lm_head.weight"},
        {CONFIG, "tie_word_embeddings", "1", LINNET_ERR_FORMAT, "'tie_word_embeddings'"},
        {CONFIG, "num_hidden_layers", "1", BAD, "model.layers.1."},
        {CONFIG, "num_hidden_layers", "3", LINNET_ERR_FORMAT, "biases"},
        {CONFIG, "rope_parameters.rope_type", "\"dynamic\"", BAD, "'dynamic'"},
        {CONFIG, "rope_parameters.rope_type", "\"linear\"", BAD, "_freq_factor'"},
        {CONFIG, "rope_parameters.mrope_section", "[1, 2]", BAD, "'mrope_section'"},
        {CONFIG, "rope_parameters.partial_rotary_factor", "0.5", BAD, "'partial_rotary_factor'"},
        {CONFIG, "rope_parameters.partial_rotary_factor", "1.0", LINNET_OK, NULL},
        {CONFIG, "rope_parameters.factor", "0.5", LINNET_ERR_RANGE, "'factor'"},
        {CONFIG, "rope_parameters.factor", "", LINNET_ERR_FORMAT, "'factor'"},
        {CONFIG, "rope_parameters.low_freq_factor", "4.0", LINNET_ERR_RANGE, "'high_freq_factor'"},
        {CONFIG, "rope_parameters", "7", LINNET_ERR_FORMAT, "rope"},
        {CONFIG, "rope_parameters", "null", LINNET_OK, NULL},
        {CONFIG, "rope_theta", "10000", BAD, "'rope_theta'"},
        {CONFIG, "rope_theta", "500", LINNET_OK, NULL},
        {CONFIG, "rope_scaling", "{\"type\": \"linear\", \"factor\": 2}", BAD, "both"},
        {CONFIG, "eos_token_id", "[2, 1]", LINNET_OK, NULL},
    };
    static const changed qwen2[] = {
        {CONFIG, "rope_parameters.truncate", "false", BAD, "'truncate'"},
        {CONFIG, "rope_parameters.truncate", "true", LINNET_OK, NULL},
        {CONFIG, "rope_parameters.mscale", "0.7", BAD, "'mscale'"},
        {CONFIG, "rope_parameters.attention_factor", "1.5", LINNET_OK, NULL},
        {CONFIG, "layer_types", "[\"full_attention\"]", BAD, "'layer_types'"},
        {CONFIG, "layer_types", "[\"full_attention\", \"linear_attention\"]", BAD, "'layer_types'"},
        {CONFIG, "use_sliding_window", "false", BAD, "'layer_types'"},
        {CONFIG, "max_window_layers", "\"1\"", LINNET_ERR_RANGE, "'max_window_layers'"},
        {CONFIG, "sliding_window", "null", LINNET_ERR_FORMAT, "'sliding_window'"},
        {CONFIG, "num_key_value_heads", "", LINNET_ERR_FORMAT, "'num_key_value_heads'"},
        {CONFIG, "attention_bias", "true", BAD, "'attention_bias'"},
    };
    static const changed bert[] = {
        {CONFIG, "architectures", "[\"BertForMaskedLM\"]", BAD, "BertForSequenceClassification"},
        {CONFIG, "hidden_act", "\"gelu_new\"", BAD, "'hidden_act'"},
        {CONFIG, "hidden_act", "7", BAD, "'hidden_act'"},
        {CONFIG, "position_embedding_type", "\"relative_key\"", BAD, "'position_embedding_type'"},
        {CONFIG, "position_embedding_type", "\"absolute\"", LINNET_OK, NULL},
        {CONFIG, "problem_type", "\"regression\"", BAD, "'problem_type'"},
        {CONFIG, "problem_type", "\"single_label_classification\"", LINNET_OK, NULL},
        {CONFIG, "is_decoder", "true", BAD, "'is_decoder'"},
        {CONFIG, "rope_theta", "10000", BAD, "'rope_theta'"},
        {CONFIG, "embedding_size", "12", BAD, "'embedding_size'"},
        {CONFIG, "layer_norm_eps", "0", LINNET_ERR_RANGE, "'layer_norm_eps'"},
        {CONFIG, "type_vocab_size", "0", LINNET_ERR_RANGE, "'type_vocab_size'"},
        {CONFIG, "vocab_size", "127", LINNET_ERR_FORMAT, "vocab_size"},
        {CONFIG, "num_hidden_layers", "1", BAD, "bert.encoder.layer.1."},
        {CONFIG, "num_hidden_layers", "3", LINNET_ERR_FORMAT, "biases"},
        {CONFIG, "id2label", "{\"0\": \"a\", \"2\": \"b\"}", LINNET_ERR_FORMAT, "label 1"},
        {CONFIG, "id2label", "{\"0\": \"a\", \"1\": 7}", LINNET_ERR_FORMAT, "label 1"},
        {CONFIG, "id2label", "null", LINNET_OK, NULL}, /* the rows of the classifier are looked at later */
    };
    run_changes("llama", llama, ARRAY_LEN(llama));
    run_changes("qwen2", qwen2, ARRAY_LEN(qwen2));
    run_changes("bert", bert, ARRAY_LEN(bert));
}

static void tokenizers_that_cut_otherwise_are_refused_by_name(void **state)
{
    (void)state;
    static const changed llama[] = {
        {TOKENIZER, "model.type", "\"Unigram\"", BAD, "'Unigram'"},
        {TOKENIZER, "model.dropout", "0.1", BAD, "dropout"},
        {TOKENIZER, "model.continuing_subword_prefix", "\"##\"", BAD, "continuing_subword_prefix"},
        {TOKENIZER, "model.end_of_word_suffix", "\"</w>\"", BAD, "end_of_word_suffix"},
        {TOKENIZER, "model.ignore_merges", "true", BAD, "ignore_merges"},
        {TOKENIZER, "model.byte_fallback", "false", BAD, "normalizer"},
        {TOKENIZER, "model.vocab", "[]", LINNET_ERR_FORMAT, "no vocab"},
        {TOKENIZER, "model.merges", "", LINNET_ERR_FORMAT, "no merges"},
        {TOKENIZER, "model.merges", "[]", BAD, "SentencePiece"},
        {TOKENIZER, "model.merges.0", "[\"e\", \"h\"]", LINNET_ERR_FORMAT, "merge 0"},
        {TOKENIZER, "model.merges.0", "[\"h \", \"e\"]", LINNET_ERR_FORMAT, "merge 0"},
        {TOKENIZER, "model.merges.0", "\"he\"", LINNET_ERR_FORMAT, "merge 0"},
        {TOKENIZER, "model.merges.0", "\"h e\"", LINNET_OK, NULL},
        {TOKENIZER, "model.merges.0", "[\"h\"]", LINNET_ERR_FORMAT, "merge 0"},
        {TOKENIZER, "model.merges.1", "[\"h\", \"e\"]", BAD, "SentencePiece"},
        {TOKENIZER, "model.vocab.<0x41>", "", LINNET_ERR_FORMAT, "'<0x41>'"},
        {TOKENIZER, "model.vocab.new", "369", LINNET_ERR_FORMAT, "'new'"},
        {TOKENIZER, "model.vocab.new", "-1", LINNET_ERR_FORMAT, "'new'"},
        {TOKENIZER, "model.vocab.new", "5", LINNET_ERR_FORMAT, "one id"},
        {TOKENIZER, "model.vocab.he", "\"x\"", LINNET_ERR_FORMAT, "'he'"},
        {TOKENIZER, "normalizer", "null", BAD, "SentencePiece"},
        {TOKENIZER, "normalizer", "{\"type\": \"NFKC\"}", BAD, "SentencePiece"},
        {TOKENIZER, "pre_tokenizer", "{\"type\": \"Whitespace\"}", BAD, "SentencePiece"},
        {TOKENIZER, "post_processor", "{\"type\": \"RobertaProcessing\"}", BAD, "post_processor"},
        {TOKENIZER, "post_processor.single.0.SpecialToken.id", "\"</s>\"", BAD, "post_processor"},
        {TOKENIZER, "post_processor", "null", LINNET_OK, NULL},
        {TOKENIZER, "added_tokens.0",
         "{\"id\": 0, \"content\": \"<unk>\", \"special\": true, \"rstrip\": true}", BAD, "'<unk>'"},
        {TOKENIZER, "added_tokens.0", "{\"id\": 7, \"content\": \"<unk>\"}", LINNET_ERR_FORMAT, "'<unk>'"},
        {TOKENIZER, "added_tokens.0", "{\"id\": 7, \"content\": \"\"}", LINNET_ERR_FORMAT, "no content"},
    };
    static const changed qwen2[] = {
        {TOKENIZER, "pre_tokenizer", "null", BAD, "pre_tokenizer"},
        {TOKENIZER, "pre_tokenizer",
         "{\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"Split\", \"pattern\": {\"Regex\": "
         "\"[a-z]+\"}, "
         "\"behavior\": \"Isolated\"}, {\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"use_regex\": "
         "false}]}",
         BAD, "'[a-z]+'"},
        {TOKENIZER, "pre_tokenizer", "{\"type\": \"ByteLevel\", \"add_prefix_space\": true}", BAD,
         "add_prefix_space"},
        {TOKENIZER, "pre_tokenizer", "{\"type\": \"ByteLevel\", \"add_prefix_space\": false}", LINNET_OK,
         NULL},
        {TOKENIZER, "normalizer", "{\"type\": \"Lowercase\"}", BAD, "normalizer"},
        {TOKENIZER, "normalizer", "null", LINNET_OK, NULL},
        {TOKENIZER, "model.ignore_merges", "true", BAD, "ignore_merges"},
        {TOKENIZER, "model.byte_fallback", "true", BAD, "SentencePiece"},
    };
    static const changed bert[] = {
        {TOKENIZER, "model.type", "\"BPE\"", BAD, "WordPiece"},
        {TOKENIZER, "model.vocab", "[]", LINNET_ERR_FORMAT, "no vocab"},
        {TOKENIZER, "model.continuing_subword_prefix", "\"@@\"", BAD, "continuing_subword_prefix"},
        {TOKENIZER, "model.unk_token", "\"<unk>\"", LINNET_ERR_FORMAT, "unk_token"},
        {TOKENIZER, "normalizer", "null", BAD, "BertNormalizer"},
        {TOKENIZER, "normalizer.clean_text", "false", BAD, "BertNormalizer"},
        {TOKENIZER, "normalizer.handle_chinese_chars", "false", BAD, "BertNormalizer"},
        {TOKENIZER, "normalizer.lowercase", "false", LINNET_OK, NULL},
        {TOKENIZER, "normalizer.strip_accents", "false", LINNET_OK, NULL},
        {TOKENIZER, "pre_tokenizer", "{\"type\": \"Whitespace\"}", BAD, "BertPreTokenizer"},
        {TOKENIZER, "post_processor", "null", BAD, "post_processor"},
        {TOKENIZER, "post_processor.single.0.SpecialToken.id", "\"[SEP]\"", BAD, "post_processor"},
        {TOKENIZER, "post_processor",
         "{\"type\": \"BertProcessing\", \"sep\": [\"[SEP]\", 3], \"cls\": [\"[CLS]\", 2]}", LINNET_OK, NULL},
    };
    run_changes("llama", llama, ARRAY_LEN(llama));
    run_changes("qwen2", qwen2, ARRAY_LEN(qwen2));
    run_changes("bert", bert, ARRAY_LEN(bert));
}

#define INDEX "model.safetensors.index.json"

static void files_of_weights_are_those_of_the_index(void **state)
{
    (void)state;
    static const changed list[] = {
        {INDEX, "weight_map", "{}", LINNET_ERR_FORMAT, "no weight_map"},
        {INDEX, "weight_map", "{\"a\": \"../llama/model-00001-of-00002.safetensors\"}", LINNET_ERR_FORMAT,
         "names no file"},
        {INDEX, "weight_map", "{\"a\": \"/etc/passwd\"}", LINNET_ERR_FORMAT, "names no file"},
        {INDEX, "weight_map", "{\"a\": 3}", LINNET_ERR_FORMAT, "names no file"},
        {INDEX, "weight_map", "{\"a\": \"b.safetensors\"}", LINNET_ERR_NOT_FOUND, "b.safetensors"},
        {INDEX, "weight_map.model.norm.weight2", "\"model-00001-of-00002.safetensors\"", LINNET_ERR_FORMAT,
         "no tensor 'model.norm.weight2'"},
    };
    char command[1024];
    run_changes("llama", list, ARRAY_LEN(list));
    const char *folder = copy_vector("llama");
    (void)snprintf(command, sizeof(command), "rm '%s'/model-00002-of-00002.safetensors", folder);
    assert_int_equal(system(command), 0);
    expect("a shard is missing", LINNET_ERR_NOT_FOUND, "model-00002-of-00002.safetensors");
    (void)snprintf(command, sizeof(command), "rm '%s'/*.index.json", copy_vector("llama"));
    assert_int_equal(system(command), 0);
    expect("no weights", LINNET_ERR_NOT_FOUND, "neither model.safetensors nor");
    (void)snprintf(command, sizeof(command),
                   "cd '%s' && cp model-00001-of-00002.safetensors model.safetensors", copy_vector("llama"));
    assert_int_equal(system(command), 0);
    expect("a part of the weights", LINNET_ERR_FORMAT, NULL);
    (void)snprintf(command, sizeof(command),
                   "cd '%s' && cp model-00001-of-00002.safetensors twice.safetensors", copy_vector("llama"));
    assert_int_equal(system(command), 0);
    change(INDEX, "weight_map.model.norm.weight", "\"twice.safetensors\"");
    expect("a tensor in two files", LINNET_ERR_FORMAT, NULL);
    static const char *const files[] = {CONFIG, TOKENIZER};
    for (size_t i = 0; i < ARRAY_LEN(files); i++) {
        (void)snprintf(command, sizeof(command), "rm '%s'/%s", copy_vector("llama"), files[i]);
        assert_int_equal(system(command), 0);
        expect("no such file", LINNET_ERR_NOT_FOUND, files[i]);
        (void)snprintf(command, sizeof(command), "echo '[' > '%s'/%s", copy_vector("llama"), files[i]);
        assert_int_equal(system(command), 0);
        expect("no JSON", LINNET_ERR_FORMAT, files[i]);
    }
}

static void a_tensor_of_another_model_is_refused(void **state)
{
    (void)state;
    static const char *const names[] = {
        "model.layers.0.self_attn.q_norm.weight", "model.layers.00.mlp.up_proj.bias",
        "model.layers.7.mlp.up_proj.weight", "score.weight", "model.layers.0.block_sparse_moe.gate.weight"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        static const float values[4];
        linnet_safetensors_tensor tensor = {
            .n_dims = 1, .dims = {4, 1, 1, 1}, .bytes = (const uint8_t *)values, .n_bytes = sizeof(values)};
        char path[300], value[] = "\"more.safetensors\"", at[200];
        linnet_error err = {0};
        (void)snprintf(tensor.name, sizeof(tensor.name), "%s", names[i]);
        (void)snprintf(path, sizeof(path), "%s/more.safetensors", copy_vector("llama"));
        assert_ok(linnet_safetensors_write(path, &tensor, 1, &err), &err);
        (void)snprintf(at, sizeof(at), "weight_map.%s", names[i]);
        change(INDEX, at, value);
        expect(names[i], LINNET_ERR_UNSUPPORTED, names[i]);
    }
}

/* ---- rows ---- */

static double value_at(const linnet_gguf_tensor *tensor, size_t i)
{
    if (tensor->type == LINNET_TENSOR_F32)
        return linnet_load_f32(tensor->bytes + 4 * i);
    uint32_t bits = (uint32_t)linnet_load_le16(tensor->bytes + 2 * i) << 16;
    float value;
    memcpy(&value, &bits, sizeof(value));
    return value;
}

/* The row of Hugging Face's order that stands at a row of GGUF's. */
static size_t hf_row(size_t row, size_t rows, size_t n_heads)
{
    size_t head = rows / n_heads, at = row % head;
    return row / head * head + (at % 2) * (head / 2) + at / 2;
}

/* A merge of nothing copies a model: pairs beside each other, vectors in F32. */
static void what_is_written_has_the_rows_of_gguf(void **state)
{
    (void)state;
    for (size_t k = 0; k < ARRAY_LEN(kinds); k++) {
        linnet_error err = {0};
        linnet_gguf *model = open_vector(kinds[k]), *merged = NULL;
        linnet_layout *layout = NULL;
        linnet_adapter *nothing = NULL;
        assert_ok(linnet_layout_create(model, 1, 1, LINNET_TARGETS_ALL, &layout, &err), &err);
        assert_ok(linnet_adapter_create(layout, &nothing, &err), &err);
        assert_ok(linnet_adapter_merge(nothing, model, LINNET_TENSOR_F32, in_folder("merged.gguf"), &err),
                  &err);
        assert_ok(linnet_gguf_open(in_folder("merged.gguf"), &merged, &err), &err);
        assert_false(linnet_gguf_is_checkpoint(merged));
        assert_int_equal(linnet_gguf_n_tensors(merged), linnet_gguf_n_tensors(model));
        for (size_t t = 0; t < linnet_gguf_n_tensors(model); t++) {
            const linnet_gguf_tensor *from = linnet_gguf_tensor_at(model, t),
                                     *to = linnet_gguf_tensor_at(merged, t);
            size_t rows = from->n_dims == 1 ? from->dims[0] : from->dims[1];
            size_t columns = from->n_dims == 1 ? 1 : from->dims[0];
            assert_memory_equal(from->dims, to->dims, sizeof(to->dims));
            if (to->n_dims == 1)
                assert_int_equal(to->type, LINNET_TENSOR_F32);
            for (size_t i = 0; i < rows * columns; i++) {
                size_t row = from->n_hf_heads ? hf_row(i / columns, rows, from->n_hf_heads) : i / columns;
                assert_true(value_at(to, i) == value_at(from, row * columns + i % columns));
            }
        }
        linnet_gguf_close(merged);
        linnet_adapter_destroy(nothing);
        linnet_layout_destroy(layout);
        linnet_gguf_close(model);
    }
}

/* An adapter of a checkpoint and the same one of its GGUF file are one in either form. */
static void adapters_go_between_a_checkpoint_and_its_gguf_file(void **state)
{
    (void)state;
    linnet_error err = {0};
    linnet_quantize_summary summary;
    linnet_gguf *model = open_vector("llama"), *file = NULL;
    linnet_layout *layout = NULL;
    linnet_adapter *adapter = NULL, *back[4] = {NULL};
    assert_ok(linnet_quantize_file(model, LINNET_TENSOR_F16, in_folder("model.gguf"), &summary, &err), &err);
    assert_ok(linnet_gguf_open(in_folder("model.gguf"), &file, &err), &err);
    assert_ok(linnet_layout_create(model, 2, 4, LINNET_TARGETS_ALL, &layout, &err), &err);
    assert_ok(linnet_adapter_create(layout, &adapter, &err), &err);
    for (size_t i = 0; i < layout->n_parameters; i++)
        adapter->data[i] = (float)i;
    assert_ok(linnet_adapter_save_peft(adapter, "llama", in_folder("peft"), "", &err), &err);
    assert_ok(linnet_adapter_save_gguf(adapter, "llama", in_folder("adapter.gguf"), &err), &err);
    for (size_t i = 0; i < 4; i++)
        assert_ok(linnet_adapter_load(in_folder(i % 2 ? "adapter.gguf" : "peft"), i < 2 ? model : file,
                                      &back[i], &err),
                  &err);
    assert_true(linnet_layout_equal(back[0]->layout, layout));
    assert_memory_equal(back[0]->data, adapter->data, layout->n_parameters * sizeof(float));
    assert_memory_equal(back[1]->data, adapter->data, layout->n_parameters * sizeof(float));
    assert_memory_equal(back[2]->data, back[3]->data, layout->n_parameters * sizeof(float));
    assert_memory_not_equal(back[2]->data, adapter->data, layout->n_parameters * sizeof(float));
    assert_false(linnet_layout_equal(back[2]->layout, layout));
    linnet_hash of_checkpoint = linnet_layout_hash(layout), of_file = linnet_layout_hash(back[2]->layout);
    assert_false(linnet_hash_equal(&of_checkpoint, &of_file));
    for (size_t i = 0; i < 4; i++)
        linnet_adapter_destroy(back[i]);
    linnet_adapter_destroy(adapter);
    linnet_layout_destroy(layout);
    linnet_gguf_close(file);
    linnet_gguf_close(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(weights_lie_in_their_files),
        cmocka_unit_test(settings_that_would_change_the_computation_are_refused_by_name),
        cmocka_unit_test(tokenizers_that_cut_otherwise_are_refused_by_name),
        cmocka_unit_test(files_of_weights_are_those_of_the_index),
        cmocka_unit_test(a_tensor_of_another_model_is_refused),
        cmocka_unit_test(what_is_written_has_the_rows_of_gguf),
        cmocka_unit_test(adapters_go_between_a_checkpoint_and_its_gguf_file),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
