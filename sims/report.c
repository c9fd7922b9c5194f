/* SPDX-License-Identifier: Apache-2.0 */
/* The report: one HTML page with everything in it (no script, no network), drawn from run.jsonl alone. */
#include "linnet/simulation.h"

#include "linnet/file.h"

#include <math.h>
#include <stdlib.h>

#define RUN_BYTES_MAX ((size_t)256 << 20)

typedef struct run_data {
    json_t *rounds; /* owned array of round events */
    json_t *result; /* owned, NULL before the end */
} run_data;

static linnet_status read_run(const char *directory, run_data *ret_run, linnet_error *err)
{
    char *path = linnet_path_join(directory, "run.jsonl");
    linnet_buffer text = {0};
    run_data run = {.rounds = json_array()};
    linnet_status status = path && run.rounds
                               ? linnet_file_read(path, RUN_BYTES_MAX, &text, err)
                               : linnet_fail(err, LINNET_ERR_NOMEM, "no memory for the report");
    size_t line = 0;
    for (size_t at = 0; status == LINNET_OK && at < text.n_bytes; line++) {
        const char *start = (const char *)text.bytes + at, *end = memchr(start, '\n', text.n_bytes - at);
        size_t n = end ? (size_t)(end - start) : text.n_bytes - at;
        json_t *event = json_loadb(start, n, JSON_REJECT_DUPLICATES, NULL);
        const char *kind = json_string_value(json_object_get(event, "event"));
        if (!kind)
            status = linnet_fail(err, LINNET_ERR_FORMAT, "%s:%zu: no event", path, line + 1);
        else if (strcmp(kind, "round") == 0)
            (void)json_array_append(run.rounds, event); /* a failed append shortens the curve, no more */
        else if (strcmp(kind, "result") == 0 && !run.result)
            run.result = json_incref(event);
        json_decref(event);
        at += n + 1;
    }
    linnet_buffer_release(&text);
    free(path);
    if (status == LINNET_OK) {
        *ret_run = run;
    } else {
        json_decref(run.rounds);
        json_decref(run.result);
    }
    return status;
}

static double number_of(const json_t *object, const char *name)
{
    const json_t *value = json_object_get(object, name);
    return json_is_number(value) ? json_number_value(value) : (double)NAN;
}

static void append_escaped(linnet_buffer *html, const char *text)
{
    for (; text && *text; text++) {
        if (*text == '<')
            linnet_buffer_append_text(html, "&lt;");
        else if (*text == '&')
            linnet_buffer_append_text(html, "&amp;");
        else if (*text == '"')
            linnet_buffer_append_text(html, "&quot;");
        else
            linnet_buffer_append(html, text, 1);
    }
}

/* ---- a curve with dashed reference lines ---- */

enum { PLOT_WIDTH = 720, PLOT_HEIGHT = 320, PLOT_LEFT = 60, PLOT_BOTTOM = 40, PLOT_TOP = 16 };

typedef struct axes {
    double low, high;
    size_t n;
} axes;

static double plot_x(const axes *a, double round)
{
    return PLOT_LEFT + round / (a->n > 1 ? (double)(a->n - 1) : 1) * (PLOT_WIDTH - PLOT_LEFT - 120);
}

static double plot_y(const axes *a, double loss)
{
    return PLOT_TOP + (a->high - loss) / (a->high - a->low) * (PLOT_HEIGHT - PLOT_TOP - PLOT_BOTTOM);
}

static void append_reference(linnet_buffer *html, const axes *a, const char *name, const char *colour,
                             double loss)
{
    if (!isfinite(loss))
        return;
    double y = plot_y(a, loss), right = plot_x(a, (double)(a->n - 1));
    linnet_buffer_append_format(
        html,
        "<line x1='%d' y1='%.1f' x2='%.1f' y2='%.1f' stroke='%s' stroke-dasharray='5 4'/>"
        "<text x='%.1f' y='%.1f' fill='%s'>%s %.3f</text>\n",
        PLOT_LEFT, y, right, y, colour, right + 6, y + 4, colour, name, loss);
}

static void append_curve(linnet_buffer *html, const run_data *run)
{
    static const struct {
        const char *field, *name, *colour;
    } references[] = {{"loss_base", "base", "#888"},
                      {"loss_local", "local", "#b5651d"},
                      {"loss_central", "central", "#2a7f3f"}};
    double base = number_of(run->result, "loss_base");
    axes a = {.low = base, .high = base, .n = json_array_size(run->rounds) + 1};
    for (size_t i = 0; i < ARRAY_LEN(references); i++) {
        double y = number_of(run->result, references[i].field);
        a.low = fmin(a.low, y);
        a.high = fmax(a.high, y);
    }
    for (size_t i = 0; i + 1 < a.n; i++) {
        double y = number_of(json_array_get(run->rounds, i), "loss");
        a.low = fmin(a.low, y);
        a.high = fmax(a.high, y);
    }
    if (!isfinite(a.low) || !isfinite(a.high))
        return;
    a.high += a.high == a.low;
    linnet_buffer_append_format(html,
                                "<svg viewBox='0 0 %d %d' role='img' aria-label='held-out loss by round'>\n",
                                PLOT_WIDTH, PLOT_HEIGHT);
    for (int i = 0; i <= 4; i++) {
        double loss = a.low + (a.high - a.low) * i / 4, y = plot_y(&a, loss);
        linnet_buffer_append_format(html,
                                    "<line x1='%d' y1='%.1f' x2='%.1f' y2='%.1f' stroke='#ddd'/><text x='%d' "
                                    "y='%.1f' text-anchor='end'>%.2f</text>\n",
                                    PLOT_LEFT, y, plot_x(&a, (double)(a.n - 1)), y, PLOT_LEFT - 6, y + 4,
                                    loss);
    }
    for (size_t i = 0; i < ARRAY_LEN(references); i++)
        append_reference(html, &a, references[i].name, references[i].colour,
                         number_of(run->result, references[i].field));
    linnet_buffer_append_format(html,
                                "<polyline fill='none' stroke='#1f5fbf' stroke-width='2' points='%.1f,%.1f",
                                plot_x(&a, 0), plot_y(&a, base));
    for (size_t i = 0; i + 1 < a.n; i++) {
        double y = number_of(json_array_get(run->rounds, i), "loss");
        if (isfinite(y))
            linnet_buffer_append_format(html, " %.1f,%.1f", plot_x(&a, (double)(i + 1)), plot_y(&a, y));
    }
    linnet_buffer_append_format(
        html,
        "'/>\n<text x='%d' y='%d'>round 0</text><text x='%.1f' y='%d' text-anchor='end'>%zu</text>\n</svg>\n",
        PLOT_LEFT, PLOT_HEIGHT - 14, plot_x(&a, (double)(a.n - 1)), PLOT_HEIGHT - 14, a.n - 1);
}

/* ---- tables ---- */

static void append_summary(linnet_buffer *html, const json_t *result)
{
    static const struct {
        const char *field, *name;
        int decimals;
    } rows[] = {
        {"devices", "devices", 0},
        {"rounds", "rounds", 0},
        {"loss_base", "loss, base model", 4},
        {"loss_local", "loss, local-only", 4},
        {"loss_federated", "loss, federated", 4},
        {"loss_central", "loss, centralised", 4},
        {"gap_closed", "share of the gap closed", 3},
        {"clients_better_than_base", "devices better than the base", 0},
        {"worst_tenth", "loss, worst tenth of the devices", 4},
        {"general_base", "general text, base", 4},
        {"general_federated", "general text, federated", 4},
        {"general_central", "general text, centralised", 4},
        {"bytes_up", "bytes up", 0},
        {"bytes_down", "bytes down", 0},
        {"device_seconds", "device seconds", 1},
        {"peak_rss_bytes", "peak memory of the simulator, bytes", 0},
    };
    linnet_buffer_append_text(html, "<table>\n");
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        char text[64];
        double value = number_of(result, rows[i].field);
        if (!isfinite(value))
            continue;
        (void)snprintf(text, sizeof(text), "%.*f", rows[i].decimals, value);
        linnet_buffer_append_format(html, "<tr><th>%s</th><td>%s</td></tr>\n", rows[i].name, text);
    }
    linnet_buffer_append_text(html, "</table>\n");
}

static void append_devices(linnet_buffer *html, const json_t *result)
{
    const json_t *names = json_object_get(result, "device_names");
    static const char *const fields[] = {"device_base", "device_local", "device_federated"};
    linnet_buffer_append_text(
        html, "<table>\n<tr><th>device</th><th>base</th><th>local-only</th><th>federated</th></tr>\n");
    for (size_t i = 0; i < json_array_size(names) && i < 1000; i++) {
        linnet_buffer_append_text(html, "<tr><th>");
        append_escaped(html, json_string_value(json_array_get(names, i)));
        linnet_buffer_append_text(html, "</th>");
        for (size_t j = 0; j < ARRAY_LEN(fields); j++) {
            const json_t *value = json_array_get(json_object_get(result, fields[j]), i);
            if (json_is_number(value))
                linnet_buffer_append_format(html, "<td>%.4f</td>", json_number_value(value));
            else
                linnet_buffer_append_text(html, "<td>-</td>");
        }
        linnet_buffer_append_text(html, "</tr>\n");
    }
    linnet_buffer_append_text(html, "</table>\n");
}

static void append_rounds(linnet_buffer *html, const json_t *rounds)
{
    linnet_buffer_append_text(html, "<table>\n<tr><th>round</th><th>loss</th><th>accepted</th><th>dropped</"
                                    "th><th>bytes up</th><th>bytes down</th></tr>\n");
    for (size_t i = 0; i < json_array_size(rounds); i++) {
        const json_t *round = json_array_get(rounds, i);
        linnet_buffer_append_format(
            html, "<tr><td>%.0f</td><td>%.4f</td><td>%.0f</td><td>%.0f</td><td>%.0f</td><td>%.0f</td></tr>\n",
            number_of(round, "round"), number_of(round, "loss"), number_of(round, "accepted"),
            number_of(round, "dropped"), number_of(round, "bytes_up"), number_of(round, "bytes_down"));
    }
    linnet_buffer_append_text(html, "</table>\n");
}

static void append_page(linnet_buffer *html, const run_data *run)
{
    linnet_buffer_append_text(html, "<!DOCTYPE html>\n<html lang='en'><head><meta charset='utf-8'><meta "
                                    "name='viewport' content='width=device-width'>\n"
                                    "<title>linnet: federated run</title>\n<style>body{font:15px/1.5 "
                                    "sans-serif;max-width:60em;margin:2em auto;padding:0 1em;color:#222}"
                                    "table{border-collapse:collapse;margin:1em 0}td,th{padding:.2em "
                                    ".8em;border-bottom:1px solid #ddd;text-align:right}"
                                    "th:first-child{text-align:left}svg{width:100%;font-size:12px}code{word-"
                                    "break:break-all}</style></head><body>\n"
                                    "<h1>Federated run</h1>\n<h2>Held-out loss by round</h2>\n");
    append_curve(html, run);
    linnet_buffer_append_text(html, "<h2>Result</h2>\n");
    append_summary(html, run->result);
    linnet_buffer_append_text(html, "<p>Rule <code>");
    append_escaped(html, json_string_value(json_object_get(run->result, "rule")));
    linnet_buffer_append_text(html, "</code>, transcript <code>");
    append_escaped(html, json_string_value(json_object_get(run->result, "transcript_hash")));
    linnet_buffer_append_text(html, "</code>. Losses are nats a scored token, on records that no device "
                                    "trained on.</p>\n<h2>Devices</h2>\n");
    append_devices(html, run->result);
    linnet_buffer_append_text(html, "<h2>Rounds</h2>\n");
    append_rounds(html, run->rounds);
    linnet_buffer_append_text(html, "</body></html>\n");
}

linnet_status linnet_report_write(const char *out_directory, linnet_error *err)
{
    run_data run = {0};
    linnet_buffer html = {0};
    char *path = NULL;
    linnet_status status = read_run(out_directory, &run, err);
    if (status != LINNET_OK)
        return status;
    append_page(&html, &run);
    path = linnet_path_join(out_directory, "report.html");
    if (!path || html.failed)
        status = linnet_fail(err, LINNET_ERR_NOMEM, "no memory for the report");
    else
        status = linnet_file_write(path, html.bytes, html.n_bytes, 0644, err);
    json_decref(run.rounds);
    json_decref(run.result);
    linnet_buffer_release(&html);
    free(path);
    return status;
}

linnet_status linnet_report_result(const char *out_directory, json_t **ret_result, linnet_error *err)
{
    run_data run = {0};
    linnet_status status = read_run(out_directory, &run, err);
    if (status != LINNET_OK)
        return status;
    json_decref(run.rounds);
    if (!run.result)
        return linnet_fail(err, LINNET_ERR_NOT_FOUND, "'%s' holds no finished run", out_directory);
    *ret_result = run.result;
    return LINNET_OK;
}
