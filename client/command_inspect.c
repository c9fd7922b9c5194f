/* SPDX-License-Identifier: Apache-2.0 */
/* inspect: a GGUF file's architecture, tensors, tokenizer and metadata. It opens whatever the container
 * allows, so that models linnet cannot run can be looked at too. */
#include "commands.h"

#include <math.h>
#include <stdlib.h>

#define SHOWN_BYTES 200 /* of a string of the metadata */

static const char *kind_name(linnet_gguf_kind kind)
{
    static const char *const names[] = {"u8",   "i8",     "u16",   "i16", "u32", "i32", "f32",
                                        "bool", "string", "array", "u64", "i64", "f64"};
    return (size_t)kind < ARRAY_LEN(names) ? names[kind] : "?";
}

/* A value as JSON: numbers, truth values and the start of strings; of an array only "512 x string". */
static json_t *value_json(const linnet_gguf_value *value)
{
    linnet_gguf_value one = *value; /* a single value lies in the file as an array of one does */
    double number = 0;
    size_t at = 0;
    linnet_text string = {"", 0};
    linnet_buffer text = {0};
    one.kind = LINNET_GGUF_ARRAY;
    one.element_kind = value->kind;
    if (value->kind == LINNET_GGUF_ARRAY) {
        linnet_buffer_append_format(&text, "%llu x %s", (unsigned long long)value->n_elements,
                                    kind_name(value->element_kind));
    } else if (value->kind == LINNET_GGUF_STRING) {
        if (linnet_gguf_array_text(&one, &at, &string))
            client_append_line(&text, string.bytes,
                               string.n_bytes < SHOWN_BYTES ? string.n_bytes : SHOWN_BYTES);
    } else if (linnet_gguf_array_number(&one, 0, &number) == LINNET_OK) {
        if (value->kind == LINNET_GGUF_BOOL)
            return json_boolean(number != 0);
        bool is_whole =
            value->kind != LINNET_GGUF_F32 && value->kind != LINNET_GGUF_F64 && fabs(number) < 9e15;
        return is_whole ? json_integer((json_int_t)number) : linnet_json_number(number);
    }
    json_t *result = client_json_text(text.bytes, text.n_bytes);
    linnet_buffer_release(&text);
    return result;
}

static uint64_t n_parameters(const linnet_gguf *gguf, uint64_t *ret_bytes)
{
    uint64_t n = 0;
    *ret_bytes = 0;
    for (size_t i = 0; i < linnet_gguf_n_tensors(gguf); i++) {
        const linnet_gguf_tensor *t = linnet_gguf_tensor_at(gguf, i);
        n += t->dims[0] * t->dims[1] * t->dims[2] * t->dims[3];
        *ret_bytes += t->n_bytes;
    }
    return n;
}

static linnet_text text_of_key(const linnet_gguf *gguf, const char *name)
{
    linnet_text text = {"", 0};
    if (linnet_gguf_get_text(gguf, name, &text, NULL) != LINNET_OK)
        return (linnet_text){"", 0};
    return text;
}

static linnet_text tensor_type(const linnet_gguf_tensor *tensor)
{
    const char *name = linnet_tensor_type_name(tensor->type);
    return name ? (linnet_text){name, strlen(name)} : (linnet_text){"?", 1};
}

/* The names of an encoder's labels; NULL: the file names none. */
static const linnet_gguf_value *find_labels(const linnet_gguf *gguf)
{
    linnet_text architecture = text_of_key(gguf, "general.architecture");
    char key[96];
    (void)snprintf(key, sizeof(key), "%.*s.classifier.output_labels",
                   architecture.n_bytes < 60 ? (int)architecture.n_bytes : 60, architecture.bytes);
    const linnet_gguf_value *labels = linnet_gguf_find(gguf, key);
    bool is_list = labels && labels->kind == LINNET_GGUF_ARRAY && labels->element_kind == LINNET_GGUF_STRING;
    return is_list ? labels : NULL;
}

/* ---- JSON ---- */

static json_t *json_of_tensor(const linnet_gguf_tensor *t)
{
    json_t *object = json_object(), *dims = json_array();
    client_put_text(object, "name", t->name.bytes, t->name.n_bytes);
    client_put_text(object, "type", tensor_type(t).bytes, tensor_type(t).n_bytes);
    for (uint32_t d = 0; d < t->n_dims; d++)
        (void)json_array_append_new(dims, json_integer((json_int_t)t->dims[d]));
    (void)json_object_set_new(object, "dims", dims);
    client_put_count(object, "bytes", t->n_bytes);
    return object;
}

static json_t *json_of_metadata(const linnet_gguf *gguf)
{
    json_t *metadata = json_object();
    for (size_t i = 0; i < linnet_gguf_n_values(gguf); i++) {
        const linnet_gguf_value *value = linnet_gguf_value_at(gguf, i);
        linnet_buffer name = {0};
        client_append_line(&name, value->name.bytes, value->name.n_bytes);
        linnet_buffer_append_u8(&name, 0);
        if (!name.failed)
            (void)json_object_set_new(metadata, (const char *)name.bytes, value_json(value));
        linnet_buffer_release(&name);
    }
    return metadata;
}

static json_t *json_of_tokenizer(const linnet_gguf *gguf)
{
    linnet_tokenizer *t = NULL;
    linnet_error err = {0};
    json_t *object = json_object();
    linnet_text model = text_of_key(gguf, "tokenizer.ggml.model");
    client_put_text(object, "model", model.bytes, model.n_bytes);
    if (linnet_tokenizer_create(gguf, &t, &err) == LINNET_OK) {
        client_put_count(object, "vocabulary", linnet_tokenizer_vocabulary(t));
        (void)json_object_set_new(object, "begin", json_integer(linnet_tokenizer_begin(t)));
        (void)json_object_set_new(object, "end", json_integer(linnet_tokenizer_end(t)));
        (void)json_object_set_new(object, "adds_begin", json_boolean(linnet_tokenizer_adds_begin(t)));
        (void)json_object_set_new(object, "chat_template",
                                  json_boolean(linnet_tokenizer_chat_template(t).n_bytes > 0));
    } else {
        client_put_text(object, "error", err.message, strlen(err.message));
    }
    linnet_tokenizer_destroy(t);
    return object;
}

static json_t *json_of_labels(const linnet_gguf_value *labels)
{
    json_t *names = json_array();
    linnet_text name;
    for (size_t at = 0; linnet_gguf_array_text(labels, &at, &name);)
        (void)json_array_append_new(names, client_json_text(name.bytes, name.n_bytes));
    return names;
}

static void emit_inspection(const linnet_cli *cli, const linnet_gguf *gguf)
{
    uint64_t tensor_bytes = 0, n = n_parameters(gguf, &tensor_bytes);
    linnet_text architecture = text_of_key(gguf, "general.architecture");
    json_t *result = client_event("result"), *tensors = json_array();
    client_put_text(result, "file", linnet_gguf_path(gguf), strlen(linnet_gguf_path(gguf)));
    client_put_count(result, "bytes", linnet_gguf_n_bytes(gguf));
    client_put_text(result, "architecture", architecture.bytes, architecture.n_bytes);
    client_put_count(result, "parameters", n);
    client_put_count(result, "tensor_bytes", tensor_bytes);
    for (size_t i = 0; i < linnet_gguf_n_tensors(gguf); i++)
        (void)json_array_append_new(tensors, json_of_tensor(linnet_gguf_tensor_at(gguf, i)));
    (void)json_object_set_new(result, "tensors", tensors);
    (void)json_object_set_new(result, "tokenizer", json_of_tokenizer(gguf));
    if (find_labels(gguf))
        (void)json_object_set_new(result, "labels", json_of_labels(find_labels(gguf)));
    (void)json_object_set_new(result, "metadata", json_of_metadata(gguf));
    linnet_cli_emit(cli, result);
}

/* ---- tables ---- */

static void print_metadata(const linnet_cli *cli, const linnet_gguf *gguf)
{
    static const char *const headers[] = {"key", "kind", "value"};
    linnet_table *table = linnet_table_create(headers, ARRAY_LEN(headers));
    for (size_t i = 0; i < linnet_gguf_n_values(gguf); i++) {
        const linnet_gguf_value *value = linnet_gguf_value_at(gguf, i);
        linnet_buffer name = {0};
        json_t *json = value_json(value);
        char *text = json_dumps(json, JSON_ENCODE_ANY | JSON_REAL_PRECISION(9));
        client_append_line(&name, value->name.bytes, value->name.n_bytes);
        linnet_table_cell(table, "%.*s", (int)name.n_bytes, (const char *)name.bytes);
        linnet_table_cell(table, "%s", kind_name(value->kind));
        linnet_table_cell(table, "%.60s", text ? text : "");
        free(text);
        json_decref(json);
        linnet_buffer_release(&name);
    }
    linnet_table_print(table, cli->out);
    linnet_table_destroy(table);
}

static void print_tensors(const linnet_cli *cli, const linnet_gguf *gguf)
{
    static const char *const headers[] = {"tensor", "type", "shape", "bytes"};
    linnet_table *table = linnet_table_create(headers, ARRAY_LEN(headers));
    for (size_t i = 0; i < linnet_gguf_n_tensors(gguf); i++) {
        const linnet_gguf_tensor *t = linnet_gguf_tensor_at(gguf, i);
        linnet_buffer name = {0}, shape = {0};
        client_append_line(&name, t->name.bytes, t->name.n_bytes);
        for (uint32_t d = 0; d < t->n_dims; d++)
            linnet_buffer_append_format(&shape, "%s%llu", d > 0 ? " x " : "", (unsigned long long)t->dims[d]);
        linnet_table_cell(table, "%.*s", (int)name.n_bytes, (const char *)name.bytes);
        linnet_table_cell(table, "%s", tensor_type(t).bytes);
        linnet_table_cell(table, "%.*s", (int)shape.n_bytes, (const char *)shape.bytes);
        linnet_table_cell(table, "%zu", t->n_bytes);
        linnet_buffer_release(&name);
        linnet_buffer_release(&shape);
    }
    linnet_table_print(table, cli->out);
    linnet_table_destroy(table);
}

static void print_labels(const linnet_cli *cli, const linnet_gguf_value *labels)
{
    linnet_buffer line = {0};
    linnet_text name;
    for (size_t at = 0, n = 0; line.n_bytes < SHOWN_BYTES && linnet_gguf_array_text(labels, &at, &name);
         n++) {
        linnet_buffer_append_text(&line, n > 0 ? ", " : "");
        client_append_line(&line, name.bytes, name.n_bytes < SHOWN_BYTES ? name.n_bytes : SHOWN_BYTES);
    }
    linnet_cli_say(cli, "%llu labels: %.*s\n", (unsigned long long)labels->n_elements, (int)line.n_bytes,
                   line.bytes ? (const char *)line.bytes : "");
    linnet_buffer_release(&line);
}

static void print_inspection(const linnet_cli *cli, const linnet_gguf *gguf)
{
    char human[16];
    uint64_t tensor_bytes = 0, n = n_parameters(gguf, &tensor_bytes);
    print_metadata(cli, gguf);
    linnet_cli_say(cli, "\n");
    print_tensors(cli, gguf);
    linnet_cli_say(cli, "\n%llu parameters in %zu tensors, %s; %zu bytes in all\n", (unsigned long long)n,
                   linnet_gguf_n_tensors(gguf), linnet_human_bytes(tensor_bytes, human),
                   linnet_gguf_n_bytes(gguf));
    if (find_labels(gguf))
        print_labels(cli, find_labels(gguf));
}

static int command_inspect(linnet_cli *cli, int argc, char **argv)
{
    int exit_status = linnet_cli_parse(cli, &client_command_inspect, NULL, 0, argc, argv, 1, 1);
    if (exit_status >= 0)
        return exit_status;
    linnet_gguf *gguf = NULL;
    linnet_error err = {0};
    if (linnet_gguf_open(cli->positionals[0], &gguf, &err) != LINNET_OK)
        return linnet_cli_fail(cli, &err);
    if (cli->json)
        emit_inspection(cli, gguf);
    else if (!cli->quiet)
        print_inspection(cli, gguf);
    linnet_gguf_close(gguf);
    return 0;
}

const linnet_command client_command_inspect = {"inspect", "FILE", "Show what is in a model.",
                                               command_inspect};
