/* SPDX-License-Identifier: Apache-2.0 */
/* rollback: release an older adapter again. Works beside a serving process, which finds it in the store. */
#include "commands.h"

static int run_rollback(linnet_cli *cli, int argc, char **argv)
{
    const char *state = NULL;
    uint64_t to = 0, version = 0;
    linnet_option options[] = {
        {.name = "state",
         .kind = LINNET_OPTION_TEXT,
         .value = &state,
         .argument = "DIR",
         .help = "state directory",
         .required = true},
        {.name = "to",
         .kind = LINNET_OPTION_COUNT,
         .value = &to,
         .argument = "VERSION",
         .help = "version whose adapter comes back; without it the newest that differs"},
    };
    int done =
        linnet_cli_parse(cli, &coordinator_command_rollback, options, ARRAY_LEN(options), argc, argv, 0, 0);
    if (done >= 0)
        return done;
    linnet_error err = {0};
    linnet_coordinator *c = NULL;
    linnet_status status = coordinator_open_beside(state, &c, &err);
    if (status == LINNET_OK)
        status = linnet_coordinator_rollback(c, options[1].is_set ? to : UINT64_MAX, coordinator_now_ms(),
                                             &version, &err);
    linnet_coordinator_close(c);
    if (status != LINNET_OK)
        return linnet_cli_fail(cli, &err);
    linnet_cli_say(cli, "Version %llu releases the older adapter; open rounds are void.\n",
                   (unsigned long long)version);
    linnet_cli_emit(cli, json_pack("{s:s, s:I}", "event", "result", "version", (json_int_t)version));
    return 0;
}

const linnet_command coordinator_command_rollback = {
    .name = "rollback", .summary = "Release an older adapter again", .run = run_rollback};
