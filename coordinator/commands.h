/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_COORDINATOR_COMMANDS_H
#define LINNET_COORDINATOR_COMMANDS_H

#include "linnet/cli.h"
#include "linnet/coordinator.h"

extern const linnet_command coordinator_command_init, coordinator_command_serve, coordinator_command_invite,
    coordinator_command_revoke, coordinator_command_pause, coordinator_command_resume,
    coordinator_command_authority, coordinator_command_status, coordinator_command_rounds,
    coordinator_command_devices, coordinator_command_privacy, coordinator_command_audit,
    coordinator_command_verify, coordinator_command_plan_check, coordinator_command_export,
    coordinator_command_rollback;

/** The wall clock in milliseconds since 1970. */
int64_t coordinator_now_ms(void);
/** Open a state beside a process that may be serving it. */
linnet_status coordinator_open_beside(const char *state, linnet_coordinator **ret_coordinator,
                                      linnet_error *err) LINNET_NODISCARD;
/** "90s", "30m", "12h", "7d" into seconds. */
bool coordinator_parse_duration(const char *text, uint64_t *ret_seconds);
/** What most reports start with: parse --state and open it. -1 to go on, else the exit status. */
int coordinator_report_begin(linnet_cli *cli, const linnet_command *self, int argc, char **argv,
                             linnet_coordinator **ret_coordinator);
/** Hash, key or id as a short text for tables. */
const char *coordinator_short_hex(const void *bytes, char text[17]);
/** What a round's --json object says; epsilon is what all rounds up to and with it have spent. */
json_t *coordinator_round_json(linnet_coordinator *coordinator, const char *event,
                               const linnet_round_report *round);
/** Who holds the enrolment authority's key, and which promise is left. */
const char *coordinator_authority_text(const linnet_coordinator_report *report);

/** The sentence of the trial set-up, printed wherever a promise is made. */
#define COORDINATOR_TRIAL_TEXT                                                                               \
    "The enrolment authority's key lies with the coordinator (trial set-up): whoever runs this machine can " \
    "enrol devices at will, so the promise against a malicious operator does not hold."

#endif
