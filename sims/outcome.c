/* SPDX-License-Identifier: Apache-2.0 */
/* What a run tells: JSON events into run.jsonl (and stdout with --json), adapter files, a table and a curve.
 */
#include "simulate.h"

#include <math.h>
#include <stdlib.h>

void outcome_event(const outcome *o, json_t *event)
{
    char *line = event ? json_dumps(event, JSON_COMPACT | JSON_REAL_PRECISION(12)) : NULL;
    if (line && o->log) {
        fprintf(o->log, "%s\n", line);
        fflush(o->log); /* errors stick to the stream and are found when it is closed */
    }
    free(line);
    linnet_cli_emit(o->cli, event);
}

void outcome_round(const outcome *o, const linnet_simulation_round *round)
{
    outcome_event(o, json_pack("{s:s,s:I,s:o,s:i,s:i,s:I,s:I}", "event", "round", "round",
                               (json_int_t)round->round, "loss", linnet_json_number(round->loss), "accepted",
                               (int)round->accepted, "dropped", (int)round->dropped, "bytes_up",
                               (json_int_t)round->bytes_up, "bytes_down", (json_int_t)round->bytes_down));
}

static json_t *number_list(const double *values, size_t n)
{
    json_t *list = json_array();
    for (size_t i = 0; list && i < n; i++)
        (void)json_array_append_new(
            list, linnet_json_number(values[i])); /* a failed append shortens a report, no more */
    return list;
}

static json_t *name_list(const fleet *f)
{
    json_t *list = json_array();
    for (size_t i = 0; list && i < f->n_devices; i++)
        (void)json_array_append_new(list, json_string(f->shares->items[i].name));
    return list;
}

static double gap_closed(const linnet_simulation_result *result)
{
    return (result->loss_base - result->loss_federated) / (result->loss_base - result->loss_central);
}

linnet_status outcome_finish(const outcome *o, const fleet *f, const linnet_adapter *adapter,
                             const linnet_simulation_result *result, linnet_error *err)
{
    const char *directory = f->config->out_directory;
    char *peft = linnet_path_join(directory, "adapter"), *gguf = linnet_path_join(directory, "adapter.gguf"),
         *plan = linnet_path_join(directory, "plan.ini"),
         *report = linnet_path_join(directory, "report.html");
    linnet_buffer text = {0};
    linnet_status status = peft && gguf && plan && report
                               ? LINNET_OK
                               : linnet_fail(err, LINNET_ERR_NOMEM, "no memory for paths");
    if (status == LINNET_OK)
        status = linnet_adapter_save_peft(adapter, linnet_model_architecture(f->model), peft, "", err);
    if (status == LINNET_OK)
        status = linnet_adapter_save_gguf(adapter, linnet_model_architecture(f->model), gguf, err);
    if (status == LINNET_OK)
        status = linnet_plan_write(&f->config->plan, &text, err);
    if (status == LINNET_OK)
        status = linnet_file_write(plan, text.bytes, text.n_bytes, 0644, err);
    if (status == LINNET_OK) {
        json_t *event = json_pack(
            "{s:s,s:i,s:i,s:o,s:o,s:o,s:o,s:o,s:I,s:I,s:o}", "event", "result", "devices",
            (int)result->n_devices, "rounds", (int)result->n_rounds, "loss_base",
            linnet_json_number(result->loss_base), "loss_local", linnet_json_number(result->loss_local),
            "loss_central", linnet_json_number(result->loss_central), "loss_federated",
            linnet_json_number(result->loss_federated), "gap_closed", linnet_json_number(gap_closed(result)),
            "clients_better_than_base", (json_int_t)result->clients_better_than_base, "clients_evaluated",
            (json_int_t)result->n_evaluated, "worst_tenth", linnet_json_number(result->worst_tenth));
        if (event) {
            (void)json_object_set_new(event, "general_base",
                                      linnet_json_number(result->general_base)); /* as above */
            (void)json_object_set_new(event, "general_federated",
                                      linnet_json_number(result->general_federated));
            (void)json_object_set_new(event, "general_central", linnet_json_number(result->general_central));
            (void)json_object_set_new(event, "bytes_up", json_integer((json_int_t)result->bytes_up));
            (void)json_object_set_new(event, "bytes_down", json_integer((json_int_t)result->bytes_down));
            (void)json_object_set_new(event, "device_seconds", linnet_json_number(result->device_seconds));
            (void)json_object_set_new(event, "kills", json_integer((json_int_t)result->kills));
            (void)json_object_set_new(event, "peak_rss_bytes",
                                      json_integer((json_int_t)result->peak_rss_bytes));
            (void)json_object_set_new(event, "transcript_hash",
                                      linnet_json_hex(result->transcript.bytes, LINNET_HASH_BYTES));
            (void)json_object_set_new(event, "adapter_hash",
                                      linnet_json_hex(result->adapter.bytes, LINNET_HASH_BYTES));
            (void)json_object_set_new(event, "device_names", name_list(f));
            (void)json_object_set_new(event, "device_base",
                                      number_list(result->device_base, result->n_devices));
            (void)json_object_set_new(event, "device_federated",
                                      number_list(result->device_federated, result->n_devices));
            (void)json_object_set_new(event, "device_local",
                                      number_list(result->device_local, result->n_devices));
            (void)json_object_set_new(event, "rule",
                                      json_string(linnet_rule_name((linnet_rule)f->config->plan.rule)));
            (void)json_object_set_new(event, "seed", json_integer((json_int_t)f->config->seed));
            (void)json_object_set_new(event, "adapter", json_string(peft));
            (void)json_object_set_new(event, "report", json_string(report));
        }
        outcome_event(o, event);
    }
    linnet_buffer_release(&text);
    free(peft);
    free(gguf);
    free(plan);
    free(report);
    return status;
}

static void table_loss(linnet_table *table, const char *name, double loss, double base, double central)
{
    if (!isfinite(loss))
        return;
    linnet_table_cell(table, "%s", name);
    linnet_table_cell(table, "%.4f", loss);
    linnet_table_cell(table, "%.1f", exp(loss));
    if (isfinite(central) && base != central)
        linnet_table_cell(table, "%.1f %%", 100 * (base - loss) / (base - central));
    else
        linnet_table_cell(table, "-");
}

void linnet_simulation_print(const linnet_cli *cli, const linnet_simulation_result *result)
{
    static const char *const headers[] = {"held-out", "loss", "perplexity", "gap closed"};
    char up[16], down[16], rss[16], hash[2 * LINNET_HASH_BYTES + 1];
    double *curve = calloc(result->n_rounds + 1, sizeof(*curve));
    linnet_table *table = linnet_table_create(headers, ARRAY_LEN(headers));
    if (cli->json || cli->quiet) {
        linnet_table_destroy(table);
        free(curve);
        return;
    }
    if (curve) {
        curve[0] = result->loss_base;
        for (size_t i = 0; i < result->n_rounds; i++)
            curve[i + 1] = result->rounds[i].loss;
        linnet_plot_print(cli->out, "held-out loss by round", curve, result->n_rounds + 1, 60, 12);
        fputc('\n', cli->out);
    }
    table_loss(table, "base", result->loss_base, result->loss_base, result->loss_central);
    table_loss(table, "local-only", result->loss_local, result->loss_base, result->loss_central);
    table_loss(table, "federated", result->loss_federated, result->loss_base, result->loss_central);
    table_loss(table, "centralised", result->loss_central, result->loss_base, result->loss_central);
    linnet_table_print(table, cli->out);
    linnet_table_destroy(table);
    linnet_cli_say(cli, "\n%zu of %zu devices better than the base, worst tenth %.4f\n",
                   result->clients_better_than_base, result->n_evaluated, result->worst_tenth);
    if (isfinite(result->general_base))
        linnet_cli_say(cli, "general text: base %.4f, federated %.4f, centralised %.4f\n",
                       result->general_base, result->general_federated, result->general_central);
    linnet_cli_say(cli, "%zu rounds, %s up, %s down, %.1f device seconds, peak memory %s\n", result->n_rounds,
                   linnet_human_bytes(result->bytes_up, up), linnet_human_bytes(result->bytes_down, down),
                   result->device_seconds, linnet_human_bytes(result->peak_rss_bytes, rss));
    linnet_hex_write(result->transcript.bytes, LINNET_HASH_BYTES, hash);
    linnet_cli_say(cli, "transcript %s\n", hash);
    free(curve);
}
