/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_AGENT_H
#define LINNET_AGENT_H

/* The agent of linnet/device.h with all that it works with in a state directory: store, policy, round key,
 * ledger, members, HTTP. It does what is next when it is told to, and writes every adapter that was installed
 * as files beside the state; when to do it, and whether to sleep in between, is the caller's. linnet-client
 * and the embeddable library are both this. */

#include "linnet/device.h"
#include "linnet/runtime.h"

typedef struct linnet_agent linnet_agent;

/** Join a task: everything of linnet_device_enroll with a directory, an address and the invite's code. A
 * device that enrolled but could not be told so is fine: the same call asks again. */
linnet_status linnet_agent_enroll(const char *state_directory, const char *coordinator_url,
                                  const char *invite_code, uint32_t device_class,
                                  linnet_device_report *ret_report, linnet_error *err) LINNET_NODISCARD;

typedef struct linnet_agent_config {
    const char *state_directory;
    const char *policy_path;      /* NULL: linnet_policy_default */
    const char *consortium_path;  /* NULL: the policy's, or none */
    const char *ledger_directory; /* NULL: the state directory */
} linnet_agent_config;            /* strings are borrowed during the call, but for the state directory's */

/** Open the state, which is this process's until close (BUSY where it is another's). */
linnet_status linnet_agent_open(const linnet_agent_config *config, linnet_agent **ret_agent,
                                linnet_error *err) LINNET_NODISCARD;

typedef struct linnet_agent_work {
    const linnet_runtime *runtime;
    const char *model_path; /* of the runtime's model; its hash is what the task's plan names */
    const linnet_dataset *dataset, *held_out; /* held_out NULL: a part of the dataset */
    bool has_seed;
    uint64_t seed;
    size_t arena_bytes_max; /* 0: no limit. More is LIMIT, when there is something to train or evaluate */
} linnet_agent_work;

/** Make the device, once; all of the work is borrowed for the agent's life. */
linnet_status linnet_agent_start(linnet_agent *agent, const linnet_agent_work *work,
                                 linnet_error *err) LINNET_NODISCARD;
void linnet_agent_close(linnet_agent *agent); /* takes NULL */

/** The device, for its report and its adapter; NULL before the start. */
linnet_device *linnet_agent_device(linnet_agent *agent);
/** Unix milliseconds that no clock change moves while the process runs. */
int64_t linnet_agent_now_ms(const linnet_agent *agent);
/** What linnet_device_next wants is done now: one exchange, whatever its wake time; one training step; or the
 * evaluation. What a person has to put right is DENIED (revoked) or MISMATCH (another base model), once the
 * device has nothing else to do. */
linnet_status linnet_agent_act(linnet_agent *agent, linnet_error *err) LINNET_NODISCARD;
/** Bytes that the plan's context needs, where an act failed with LIMIT over them; else 0. */
size_t linnet_agent_needed_bytes(const linnet_agent *agent);
/** The same two, for a caller that has no more to do. */
linnet_status linnet_agent_check(const linnet_agent *agent, linnet_error *err) LINNET_NODISCARD;

#endif
