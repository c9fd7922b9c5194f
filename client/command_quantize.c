/* SPDX-License-Identifier: Apache-2.0 */
/* quantize: a smaller copy of a model, so that no other tool is needed. */
#include "commands.h"

#include "linnet/quantize.h"

#include <sys/stat.h>

static uint64_t size_of_file(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 ? (uint64_t)st.st_size : 0;
}

static void report(const linnet_cli *cli, const linnet_gguf *model, const char *out,
                   const linnet_quantize_summary *summary)
{
    uint64_t before = linnet_gguf_n_bytes(model), after = size_of_file(out);
    json_t *result = client_event("result");
    client_put_text(result, "out", out, strlen(out));
    client_put_count(result, "bytes_before", before);
    client_put_count(result, "bytes_after", after);
    client_put_count(result, "quantized", summary->n_quantized);
    client_put_count(result, "fallback", summary->n_fallback);
    client_put_count(result, "kept", summary->n_kept);
    linnet_cli_emit(cli, result);
    linnet_cli_say(cli, "%s: %.1f MB of %.1f MB; %zu matrices quantised, %zu vectors kept\n", out,
                   1e-6 * (double)after, 1e-6 * (double)before, summary->n_quantized, summary->n_kept);
    if (summary->n_fallback > 0)
        linnet_cli_say(cli, "%zu matrices have rows that do not fit its blocks and went into a larger type\n",
                       summary->n_fallback);
}

static int command_quantize(linnet_cli *cli, int argc, char **argv)
{
    static const uint32_t types[] = {LINNET_TENSOR_Q8_0, LINNET_TENSOR_Q4_0, LINNET_TENSOR_Q4_K,
                                     LINNET_TENSOR_F16};
    const char *model = NULL, *out = NULL;
    int type = 0;
    linnet_option options[] = {
        CLIENT_REQUIRED("model", &model, "FILE", "F32, F16 or BF16 GGUF model, or a checkpoint's folder"),
        CLIENT_REQUIRED("out", &out, "FILE", "the copy"),
        CLIENT_CHOICE("type", &type, "Q8_0|Q4_0|Q4_K|F16", "of its matrices"),
    };
    int exit_status =
        linnet_cli_parse(cli, &client_command_quantize, options, ARRAY_LEN(options), argc, argv, 0, 0);
    if (exit_status >= 0)
        return exit_status;
    linnet_error err = {0};
    linnet_gguf *gguf = NULL;
    linnet_quantize_summary summary = {0};
    linnet_status status = linnet_gguf_open(model, &gguf, &err);
    if (status == LINNET_OK)
        status = linnet_quantize_file(gguf, types[type], out, &summary, &err);
    if (status == LINNET_OK)
        report(cli, gguf, out, &summary);
    linnet_gguf_close(gguf);
    return status == LINNET_OK ? 0 : linnet_cli_fail(cli, &err);
}

const linnet_command client_command_quantize = {
    "quantize", NULL, "Write a smaller, quantised copy of a model.", command_quantize};
