/* SPDX-License-Identifier: Apache-2.0 */
/* adapter show|convert|merge|unmerge: look at an adapter, turn a PEFT directory into a GGUF adapter or back,
 * or put it into its base model for good, or take it out again. */
#include "commands.h"
#include "linnet/architecture.h"

#include "linnet/safetensors.h"

#include <math.h>
#include <stdlib.h>
#include <sys/stat.h>

typedef struct adapter_options {
    const char *model, *adapter, *out;
    int format, type; /* index into the choices */
} adapter_options;

static bool is_directory(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

static double norm(const float *values, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)values[i] * values[i];
    return sqrt(sum);
}

/* ---- show ---- */

static void emit_adapter(const linnet_cli *cli, const linnet_adapter *adapter, const adapter_options *o)
{
    const linnet_layout *layout = adapter->layout;
    linnet_hash layout_hash = linnet_layout_hash(layout), hash = linnet_adapter_hash(adapter);
    json_t *result = client_event("result"), *entries = json_array();
    client_put_text(result, "adapter", o->adapter, strlen(o->adapter));
    client_put_count(result, "rank", layout->n_entries > 0 ? layout->entries[0].rank : 0);
    client_put_number(result, "alpha", layout->alpha);
    client_put_count(result, "parameters", layout->n_parameters);
    (void)json_object_set_new(result, "layout_hash",
                              linnet_json_hex(layout_hash.bytes, sizeof(layout_hash.bytes)));
    (void)json_object_set_new(result, "adapter_hash", linnet_json_hex(hash.bytes, sizeof(hash.bytes)));
    for (size_t i = 0; i < layout->n_entries; i++) {
        const linnet_layout_entry *e = &layout->entries[i];
        json_t *entry = json_object();
        client_put_text(entry, "name", e->name, strlen(e->name));
        client_put_count(entry, "rows", e->rows);
        client_put_count(entry, "columns", e->columns);
        client_put_count(entry, "rank", e->rank);
        client_put_number(entry, "norm_a", norm(linnet_adapter_a(adapter, i), (size_t)e->rank * e->columns));
        client_put_number(entry, "norm_b", norm(linnet_adapter_b(adapter, i), (size_t)e->rows * e->rank));
        (void)json_array_append_new(entries, entry);
    }
    (void)json_object_set_new(result, "entries", entries);
    linnet_cli_emit(cli, result);
}

static void print_adapter(const linnet_cli *cli, const linnet_adapter *adapter)
{
    static const char *const headers[] = {"matrix", "rows", "columns", "rank", "norm of A", "norm of B"};
    const linnet_layout *layout = adapter->layout;
    linnet_table *table = linnet_table_create(headers, ARRAY_LEN(headers));
    for (size_t i = 0; i < layout->n_entries; i++) {
        const linnet_layout_entry *e = &layout->entries[i];
        linnet_table_cell(table, "%s", e->name);
        linnet_table_cell(table, "%u", (unsigned)e->rows);
        linnet_table_cell(table, "%u", (unsigned)e->columns);
        linnet_table_cell(table, "%u", (unsigned)e->rank);
        linnet_table_cell(table, "%.4g", norm(linnet_adapter_a(adapter, i), (size_t)e->rank * e->columns));
        linnet_table_cell(table, "%.4g", norm(linnet_adapter_b(adapter, i), (size_t)e->rows * e->rank));
    }
    linnet_table_print(table, cli->out);
    linnet_table_destroy(table);
    linnet_cli_say(cli, "alpha %g, %zu parameters\n", (double)layout->alpha, layout->n_parameters);
}

/* Without the model only the tensors of the file can be told: their meaning needs its shapes. */
static void show_tensor(const linnet_cli *cli, json_t *tensors, linnet_table *table, const char *name,
                        const uint64_t *dims, uint32_t n_dims, size_t n_bytes)
{
    linnet_buffer shape = {0};
    json_t *object = json_object(), *array = json_array();
    for (uint32_t d = 0; d < n_dims; d++) {
        linnet_buffer_append_format(&shape, "%s%llu", d > 0 ? " x " : "", (unsigned long long)dims[d]);
        (void)json_array_append_new(array, json_integer((json_int_t)dims[d]));
    }
    client_put_text(object, "name", name, strlen(name));
    (void)json_object_set_new(object, "dims", array);
    client_put_count(object, "bytes", n_bytes);
    (void)json_array_append_new(tensors, object);
    if (!cli->json) {
        linnet_table_cell(table, "%s", name);
        linnet_table_cell(table, "%.*s", (int)shape.n_bytes, shape.bytes ? (const char *)shape.bytes : "");
        linnet_table_cell(table, "%zu", n_bytes);
    }
    linnet_buffer_release(&shape);
}

static linnet_status show_safetensors(const linnet_cli *cli, const char *directory, json_t *tensors,
                                      linnet_table *table, linnet_error *err)
{
    linnet_safetensors *file = NULL;
    char *path = linnet_path_join(directory, "adapter_model.safetensors");
    if (!path)
        return linnet_fail(err, LINNET_ERR_NOMEM, "no memory for a path");
    linnet_status status = linnet_safetensors_open(path, &file, err);
    for (size_t i = 0; status == LINNET_OK && i < linnet_safetensors_n_tensors(file); i++) {
        const linnet_safetensors_tensor *t = linnet_safetensors_at(file, i);
        show_tensor(cli, tensors, table, t->name, t->dims, t->n_dims, t->n_bytes);
    }
    linnet_safetensors_close(file);
    free(path);
    return status;
}

static linnet_status show_gguf(const linnet_cli *cli, const char *path, json_t *tensors, linnet_table *table,
                               linnet_error *err)
{
    linnet_gguf *gguf = NULL;
    linnet_status status = linnet_gguf_open(path, &gguf, err);
    for (size_t i = 0; status == LINNET_OK && i < linnet_gguf_n_tensors(gguf); i++) {
        const linnet_gguf_tensor *t = linnet_gguf_tensor_at(gguf, i);
        linnet_buffer name = {0};
        client_append_line(&name, t->name.bytes, t->name.n_bytes);
        linnet_buffer_append_u8(&name, 0);
        if (!name.failed)
            show_tensor(cli, tensors, table, (const char *)name.bytes, t->dims, t->n_dims, t->n_bytes);
        linnet_buffer_release(&name);
    }
    linnet_gguf_close(gguf);
    return status;
}

static linnet_status show_file(const linnet_cli *cli, const adapter_options *o, linnet_error *err)
{
    static const char *const headers[] = {"tensor", "shape", "bytes"};
    linnet_table *table = linnet_table_create(headers, ARRAY_LEN(headers));
    json_t *result = client_event("result"), *tensors = json_array();
    linnet_status status = is_directory(o->adapter) ? show_safetensors(cli, o->adapter, tensors, table, err)
                                                    : show_gguf(cli, o->adapter, tensors, table, err);
    client_put_text(result, "adapter", o->adapter, strlen(o->adapter));
    (void)json_object_set_new(result, "tensors", tensors);
    if (status == LINNET_OK) {
        linnet_cli_emit(cli, json_incref(result));
        if (!cli->json && !cli->quiet)
            linnet_table_print(table, cli->out);
    }
    json_decref(result);
    linnet_table_destroy(table);
    return status;
}

/* ---- the three ---- */

static linnet_status convert(const adapter_options *o, const linnet_gguf *model,
                             const linnet_adapter *adapter, linnet_error *err)
{
    const linnet_architecture *architecture;
    linnet_status status = linnet_architecture_of(model, &architecture, err);
    if (status != LINNET_OK)
        return status;
    return o->format == 0 ? linnet_adapter_save_peft(adapter, architecture->name, o->out, "", err)
                          : linnet_adapter_save_gguf(adapter, architecture->name, o->out, err);
}

static void report_written(const linnet_cli *cli, const adapter_options *o)
{
    json_t *result = client_event("result");
    client_put_text(result, "out", o->out, strlen(o->out));
    linnet_cli_emit(cli, result);
    linnet_cli_say(cli, "wrote %s\n", o->out);
}

/* The adapter times -1: merged, it takes out what was merged before. */
static linnet_status negate(linnet_adapter **adapter, linnet_error *err)
{
    const linnet_adapter *list[] = {*adapter};
    linnet_adapter *negative = NULL;
    linnet_status status = linnet_adapter_blend(list, (const float[]){-1}, 1, &negative, err);
    if (status != LINNET_OK)
        return status;
    linnet_adapter_destroy(*adapter);
    *adapter = negative;
    return LINNET_OK;
}

static linnet_status with_model(const linnet_cli *cli, const char *action, const adapter_options *o,
                                linnet_error *err)
{
    linnet_gguf *model = NULL;
    linnet_adapter *adapter = NULL;
    linnet_status status = linnet_gguf_open(o->model, &model, err);
    if (status == LINNET_OK)
        status = linnet_adapter_load(o->adapter, model, &adapter, err);
    if (status == LINNET_OK && strcmp(action, "show") == 0) {
        emit_adapter(cli, adapter, o);
        if (!cli->json && !cli->quiet)
            print_adapter(cli, adapter);
    } else if (status == LINNET_OK) {
        if (strcmp(action, "convert") == 0)
            status = convert(o, model, adapter, err);
        else if (strcmp(action, "unmerge") == 0)
            status = negate(&adapter, err);
        if (status == LINNET_OK && strcmp(action, "convert") != 0)
            status = linnet_adapter_merge(adapter, model,
                                          o->type == 0 ? LINNET_TENSOR_F16 : LINNET_TENSOR_F32, o->out, err);
        if (status == LINNET_OK)
            report_written(cli, o);
    }
    linnet_adapter_destroy(adapter);
    linnet_gguf_close(model);
    return status;
}

static int command_adapter(linnet_cli *cli, int argc, char **argv)
{
    adapter_options o = {0};
    linnet_option options[] = {
        CLIENT_REQUIRED("adapter", &o.adapter, "PATH", "PEFT directory or GGUF adapter"),
        CLIENT_TEXT("model", &o.model, "FILE", "its GGUF model; show can do without"),
        CLIENT_TEXT("out", &o.out, "PATH", "convert, merge, unmerge: what to write"),
        CLIENT_CHOICE("format", &o.format, "peft|gguf", "convert: into which form"),
        CLIENT_CHOICE("type", &o.type, "F16|F32", "merge, unmerge: of the adapted matrices"),
    };
    int exit_status =
        linnet_cli_parse(cli, &client_command_adapter, options, ARRAY_LEN(options), argc, argv, 1, 1);
    if (exit_status >= 0)
        return exit_status;
    const char *action = cli->positionals[0];
    bool show = strcmp(action, "show") == 0, converts = strcmp(action, "convert") == 0;
    if (!show && !converts && strcmp(action, "merge") != 0 && strcmp(action, "unmerge") != 0)
        return linnet_cli_usage(cli, "'%s': show, convert, merge or unmerge is wanted", action);
    if (!show && (!o.model || !o.out))
        return linnet_cli_usage(cli, "%s needs --%s", action, o.model ? "out" : "model");
    if (converts && !options[3].is_set)
        return linnet_cli_usage(cli, "convert needs --format");
    linnet_error err = {0};
    linnet_status status = o.model ? with_model(cli, action, &o, &err) : show_file(cli, &o, &err);
    return status == LINNET_OK ? 0 : linnet_cli_fail(cli, &err);
}

const linnet_command client_command_adapter = {"adapter", "show|convert|merge|unmerge",
                                               "Show, convert, merge or unmerge a LoRA adapter.",
                                               command_adapter};
