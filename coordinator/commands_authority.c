/* SPDX-License-Identifier: Apache-2.0 */
/* authority: the enrolment authority's own commands, meant for another person's machine. Requests and
 * certificates travel as files: `authority requests` on the coordinator's side writes what waits, `authority
 * sign` on the authority's side signs it, `authority import` brings certificates or a revocation list back.
 */
#include "commands.h"

#include "linnet/authority.h"
#include "linnet/file.h"

#include <stdlib.h>

typedef struct arguments {
    const char *state, *in, *out;
} arguments;

static int tell_result(const linnet_cli *cli, const char *action, const char *what, uint64_t n)
{
    linnet_cli_emit(
        cli, json_pack("{s:s, s:s, s:I}", "event", "result", "action", action, "count", (json_int_t)n));
    linnet_cli_say(cli, "%llu %s.\n", (unsigned long long)n, what);
    return 0;
}

static int run_make(linnet_cli *cli, const arguments *args)
{
    linnet_error err = {0};
    linnet_public_key key;
    char hex[2 * LINNET_PUBLIC_KEY_BYTES + 1];
    if (linnet_authority_init(args->state, &key, &err) != LINNET_OK)
        return linnet_cli_fail(cli, &err);
    linnet_hex_write(key.bytes, sizeof(key.bytes), hex);
    linnet_cli_say(cli,
                   "Authority's key: %s\nNext, on the coordinator's machine: linnet-coordinator init "
                   "--authority-key %s ...\n",
                   hex, hex);
    linnet_cli_emit(cli, json_pack("{s:s, s:s, s:s}", "event", "result", "action", "init", "authority", hex));
    return 0;
}

static int run_sign(linnet_cli *cli, const arguments *args)
{
    linnet_error err = {0};
    linnet_buffer in = {0}, out = {0};
    size_t n = 0;
    linnet_status status = linnet_file_read(args->in, LINNET_AUTHORITY_FILE_MAX, &in, &err);
    if (status == LINNET_OK)
        status = linnet_authority_sign(args->state, in.bytes, in.n_bytes,
                                       (uint64_t)(coordinator_now_ms() / 1000), &out, &n, &err);
    if (status == LINNET_OK)
        status = linnet_file_write(args->out, out.bytes, out.n_bytes, 0600, &err);
    linnet_buffer_release(&in);
    linnet_buffer_release(&out);
    return status == LINNET_OK ? tell_result(cli, "sign", "requests signed", n) : linnet_cli_fail(cli, &err);
}

static int run_revoke_there(linnet_cli *cli, const arguments *args)
{
    linnet_error err = {0};
    linnet_device_id id;
    linnet_buffer out = {0};
    if (cli->n_positionals != 2 ||
        linnet_hex_read(cli->positionals[1], id.bytes, sizeof(id.bytes)) != LINNET_OK)
        return linnet_cli_usage(cli, "revoke: name one device by its id, 32 hex digits");
    linnet_status status = linnet_authority_revoke(args->state, &id, &out, &err);
    if (status == LINNET_OK)
        status = linnet_file_write(args->out, out.bytes, out.n_bytes, 0600, &err);
    linnet_buffer_release(&out);
    return status == LINNET_OK ? tell_result(cli, "revoke", "device revoked", 1) : linnet_cli_fail(cli, &err);
}

static int run_requests(linnet_cli *cli, const arguments *args)
{
    linnet_error err = {0};
    linnet_coordinator *c = NULL;
    linnet_buffer out = {0};
    size_t n = 0;
    linnet_status status = coordinator_open_beside(args->state, &c, &err);
    if (status == LINNET_OK)
        status = linnet_coordinator_requests(c, &out, &n, &err);
    if (status == LINNET_OK)
        status = linnet_file_write(args->out, out.bytes, out.n_bytes, 0600, &err);
    linnet_coordinator_close(c);
    linnet_buffer_release(&out);
    return status == LINNET_OK ? tell_result(cli, "requests", "requests wait for a signature", n)
                               : linnet_cli_fail(cli, &err);
}

static int run_import(linnet_cli *cli, const arguments *args)
{
    linnet_error err = {0};
    linnet_coordinator *c = NULL;
    linnet_buffer in = {0};
    size_t n = 0;
    linnet_status status = linnet_file_read(args->in, LINNET_AUTHORITY_FILE_MAX, &in, &err);
    if (status == LINNET_OK)
        status = coordinator_open_beside(args->state, &c, &err);
    if (status == LINNET_OK)
        status = linnet_coordinator_import(c, in.bytes, in.n_bytes, &n, &err);
    linnet_coordinator_close(c);
    linnet_buffer_release(&in);
    return status == LINNET_OK ? tell_result(cli, "import", "certificates or revocations taken over", n)
                               : linnet_cli_fail(cli, &err);
}

/* X(name, function, needs --in, needs --out) */
static const struct {
    const char *name;
    int (*run)(linnet_cli *cli, const arguments *args);
    bool needs_in, needs_out;
} actions[] = {
    {"init", run_make, false, false},          {"sign", run_sign, true, true},
    {"revoke", run_revoke_there, false, true}, {"requests", run_requests, false, true},
    {"import", run_import, true, false},
};

static int run_authority(linnet_cli *cli, int argc, char **argv)
{
    arguments args = {0};
    linnet_option options[] = {
        {.name = "state",
         .kind = LINNET_OPTION_TEXT,
         .value = &args.state,
         .argument = "DIR",
         .help = "the authority's directory (init, sign, revoke) or the coordinator's (requests, import)",
         .required = true},
        {.name = "in",
         .kind = LINNET_OPTION_TEXT,
         .value = &args.in,
         .argument = "FILE",
         .help = "sign: requests; import: certificates or a revocation list"},
        {.name = "out",
         .kind = LINNET_OPTION_TEXT,
         .value = &args.out,
         .argument = "FILE",
         .help = "where to write requests, certificates or the list"},
    };
    int done =
        linnet_cli_parse(cli, &coordinator_command_authority, options, ARRAY_LEN(options), argc, argv, 1, 2);
    if (done >= 0)
        return done;
    for (size_t i = 0; i < ARRAY_LEN(actions); i++) {
        if (strcmp(cli->positionals[0], actions[i].name) != 0)
            continue;
        if ((actions[i].needs_in && !args.in) || (actions[i].needs_out && !args.out))
            return linnet_cli_usage(cli, "%s needs --%s FILE", actions[i].name,
                                    actions[i].needs_in && !args.in ? "in" : "out");
        return actions[i].run(cli, &args);
    }
    return linnet_cli_usage(cli, "'%s' is none of init, sign, revoke, requests, import", cli->positionals[0]);
}

const linnet_command coordinator_command_authority = {
    .name = "authority",
    .arguments = "init|sign|revoke|requests|import [DEVICE]",
    .summary = "The enrolment authority, on another machine if wanted",
    .run = run_authority};
