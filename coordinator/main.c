/* SPDX-License-Identifier: Apache-2.0 */
/* linnet-coordinator: sets up a task, invites devices, runs the rounds, reports. */
#include "commands.h"

int main(int argc, char **argv)
{
    const linnet_command commands[] = {
        coordinator_command_init,      coordinator_command_serve,      coordinator_command_invite,
        coordinator_command_status,    coordinator_command_rounds,     coordinator_command_devices,
        coordinator_command_privacy,   coordinator_command_audit,      coordinator_command_verify,
        coordinator_command_revoke,    coordinator_command_pause,      coordinator_command_resume,
        coordinator_command_authority, coordinator_command_plan_check, coordinator_command_export,
        coordinator_command_rollback,
    };
    linnet_error err = {0};
    if (linnet_crypto_init(&err) != LINNET_OK) {
        fprintf(stderr, "linnet-coordinator: %s\n", err.message);
        return 1;
    }
    return linnet_cli_main("linnet-coordinator", "Runs federated rounds over many devices.", commands,
                           ARRAY_LEN(commands), argc, argv);
}
