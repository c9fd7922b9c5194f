/* SPDX-License-Identifier: Apache-2.0 */
/* authority: the enrolment authority's own commands, meant for another person's machine, without network.
 * Everything travels as files: `authority invite` there makes invites, whose ids `authority import` takes to
 * the coordinator; `authority requests` on the coordinator's side writes what waits, `authority sign` there
 * signs it, `authority import` brings certificates or a revocation list back. */
#include "commands.h"

#include "linnet/authority.h"
#include "linnet/file.h"

#include <stdlib.h>

typedef struct arguments {
    const char *state, *in, *out, *coordinator_key, *authority_key, *expires;
    uint64_t count;
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

static int run_make_invites(linnet_cli *cli, const arguments *args)
{
    linnet_error err = {0};
    linnet_public_key coordinator;
    linnet_buffer texts = {0}, tokens = {0};
    uint64_t seconds = 0;
    if (!args->coordinator_key ||
        linnet_hex_read(args->coordinator_key, coordinator.bytes, sizeof(coordinator.bytes)) != LINNET_OK)
        return linnet_cli_usage(cli, "invite needs --coordinator-key, 64 hex digits, as 'init' prints it");
    if (!coordinator_parse_duration(args->expires, &seconds))
        return linnet_cli_usage(cli, "--expires: '%s' is no time such as 90s, 30m, 12h or 7d", args->expires);
    uint64_t expires_s = (uint64_t)(coordinator_now_ms() / 1000) + seconds;
    linnet_status status =
        linnet_authority_invite(args->state, &coordinator, args->count, expires_s, &texts, &tokens, &err);
    if (status == LINNET_OK)
        status = linnet_file_write(args->out, tokens.bytes, tokens.n_bytes, 0600, &err);
    if (status == LINNET_OK) {
        json_t *codes = json_array();
        for (size_t at = 0; at < texts.n_bytes;) {
            const char *line = (const char *)texts.bytes + at;
            size_t n = (size_t)((const char *)memchr(line, '\n', texts.n_bytes - at) - line);
            linnet_cli_say(cli, "%.*s\n", (int)n, line);
            (void)json_array_append_new(codes, json_stringn(line, n)); /* a full memory: a shorter list */
            at += n + 1;
        }
        linnet_cli_emit(cli, json_pack("{s:s, s:s, s:o, s:I}", "event", "result", "action", "invite",
                                       "invites", codes, "expires_s", (json_int_t)expires_s));
    }
    if (texts.bytes)
        linnet_wipe(texts.bytes, texts.capacity);
    linnet_buffer_release(&texts);
    linnet_buffer_release(&tokens);
    return status == LINNET_OK ? 0 : linnet_cli_fail(cli, &err);
}

static int run_list(linnet_cli *cli, const arguments *args)
{
    linnet_error err = {0};
    linnet_authority_report r;
    char hex[2 * LINNET_PUBLIC_KEY_BYTES + 1];
    if (linnet_authority_list(args->state, &r, &err) != LINNET_OK)
        return linnet_cli_fail(cli, &err);
    for (size_t i = 0; i < r.n_certified; i++) {
        const linnet_certificate *c = &r.certified[i].certificate;
        linnet_hex_write(c->device_id.bytes, sizeof(c->device_id.bytes), hex);
        linnet_cli_say(cli, "%s  serial %llu, class %u, until %llu%s\n", hex, (unsigned long long)c->serial,
                       c->device_class, (unsigned long long)c->not_after,
                       r.certified[i].is_revoked ? ", revoked" : "");
        linnet_cli_emit(cli, json_pack("{s:s, s:s, s:o, s:I, s:I, s:I, s:I, s:b}", "event", "certificate",
                                       "device", hex, "public_key",
                                       linnet_json_hex(&c->public_key, sizeof(c->public_key)), "serial",
                                       (json_int_t)c->serial, "class", (json_int_t)c->device_class,
                                       "not_before", (json_int_t)c->not_before, "not_after",
                                       (json_int_t)c->not_after, "revoked", r.certified[i].is_revoked));
    }
    linnet_hex_write(r.authority.bytes, sizeof(r.authority.bytes), hex);
    linnet_cli_say(cli, "authority %s, %zu certificates, revocation list %llu\n%s\n", hex, r.n_certified,
                   (unsigned long long)r.revocation_number,
                   r.makes_invites ? "Only invites made here are signed: the coordinator enrols nobody alone."
                                   : "No invite was made here: whoever runs the coordinator decides who is "
                                     "enrolled, one certificate an invite.");
    linnet_cli_emit(cli, json_pack("{s:s, s:s, s:s, s:I, s:I, s:b}", "event", "result", "authority", hex,
                                   "action", "list", "count", (json_int_t)r.n_certified, "revocation_number",
                                   (json_int_t)r.revocation_number, "makes_invites", r.makes_invites));
    free(r.certified);
    return 0;
}

static int run_consortium(linnet_cli *cli, const arguments *args)
{
    linnet_error err = {0};
    linnet_buffer text = {0};
    linnet_status status = linnet_authority_consortium(args->state, &text, &err);
    if (status == LINNET_OK)
        status = linnet_file_write(args->out, text.bytes, text.n_bytes, 0644, &err);
    linnet_buffer_release(&text);
    return status == LINNET_OK ? tell_result(cli, "consortium", "list of members written", 1)
                               : linnet_cli_fail(cli, &err);
}

static int run_check_consortium(linnet_cli *cli, const arguments *args)
{
    linnet_error err = {0};
    linnet_public_key authority;
    linnet_buffer text = {0};
    size_t n = 0;
    if (cli->n_positionals != 2 || !args->authority_key ||
        linnet_hex_read(args->authority_key, authority.bytes, sizeof(authority.bytes)) != LINNET_OK)
        return linnet_cli_usage(cli, "verify: name a list of members and --authority-key, 64 hex digits");
    linnet_status status = linnet_file_read(cli->positionals[1], LINNET_AUTHORITY_FILE_MAX, &text, &err);
    if (status == LINNET_OK)
        status = linnet_consortium_verify(text.bytes, text.n_bytes, &authority, &n, &err);
    linnet_buffer_release(&text);
    return status == LINNET_OK ? tell_result(cli, "verify", "members, signed by the authority", n)
                               : linnet_cli_fail(cli, &err);
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
    return status == LINNET_OK
               ? tell_result(cli, "import", "certificates, revocations or invites taken over", n)
               : linnet_cli_fail(cli, &err);
}

static const struct {
    const char *name;
    int (*run)(linnet_cli *cli, const arguments *args);
    bool needs_state, needs_in, needs_out;
} actions[] = {
    {"init", run_make, true, false, false},
    {"invite", run_make_invites, true, false, true},
    {"sign", run_sign, true, true, true},
    {"revoke", run_revoke_there, true, false, true},
    {"list", run_list, true, false, false},
    {"consortium", run_consortium, true, false, true},
    {"verify", run_check_consortium, false, false, false},
    {"requests", run_requests, true, false, true},
    {"import", run_import, true, true, false},
};

static int run_authority(linnet_cli *cli, int argc, char **argv)
{
    arguments args = {.count = 1, .expires = "7d"};
    linnet_option options[] = {
        {.name = "state",
         .kind = LINNET_OPTION_TEXT,
         .value = &args.state,
         .argument = "DIR",
         .help = "the authority's directory, or the coordinator's (requests, import)"},
        {.name = "in",
         .kind = LINNET_OPTION_TEXT,
         .value = &args.in,
         .argument = "FILE",
         .help = "sign: requests; import: certificates, a revocation list, or invites"},
        {.name = "out",
         .kind = LINNET_OPTION_TEXT,
         .value = &args.out,
         .argument = "FILE",
         .help = "where to write requests, certificates, a list, or the ids of invites"},
        {.name = "coordinator-key",
         .kind = LINNET_OPTION_TEXT,
         .value = &args.coordinator_key,
         .argument = "HEX",
         .help = "invite: public key of the task's coordinator"},
        {.name = "count",
         .kind = LINNET_OPTION_COUNT,
         .value = &args.count,
         .argument = "N",
         .help = "invite: how many",
         .min = 1,
         .max = 1000000},
        {.name = "expires",
         .kind = LINNET_OPTION_TEXT,
         .value = &args.expires,
         .argument = "TIME",
         .help = "invite: life of an unused one, a number and s, m, h or d"},
        {.name = "authority-key",
         .kind = LINNET_OPTION_TEXT,
         .value = &args.authority_key,
         .argument = "HEX",
         .help = "verify: public key of the authority"},
    };
    int done =
        linnet_cli_parse(cli, &coordinator_command_authority, options, ARRAY_LEN(options), argc, argv, 1, 2);
    if (done >= 0)
        return done;
    for (size_t i = 0; i < ARRAY_LEN(actions); i++) {
        if (strcmp(cli->positionals[0], actions[i].name) != 0)
            continue;
        if (actions[i].needs_state && !args.state)
            return linnet_cli_usage(cli, "--state is missing");
        if ((actions[i].needs_in && !args.in) || (actions[i].needs_out && !args.out))
            return linnet_cli_usage(cli, "%s needs --%s FILE", actions[i].name,
                                    actions[i].needs_in && !args.in ? "in" : "out");
        return actions[i].run(cli, &args);
    }
    return linnet_cli_usage(
        cli, "'%s' is none of init, invite, sign, revoke, list, consortium, verify, requests, import",
        cli->positionals[0]);
}

const linnet_command coordinator_command_authority = {
    .name = "authority",
    .arguments = "init|invite|sign|revoke|list|consortium|verify|requests|import [DEVICE|FILE]",
    .summary = "The enrolment authority, on another machine if wanted",
    .run = run_authority};
