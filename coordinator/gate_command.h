/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_GATE_COMMAND_H
#define LINNET_GATE_COMMAND_H

/* A gate that is a command of the operator: it gets the path of a GGUF adapter and prints, as the last JSON
 * object among its lines, one with a "loss". `linnet-client evaluate --json` does. Part of the program. */

#include "linnet/coordinator.h"

#define LINNET_GATE_ARGUMENTS_MAX 64
#define LINNET_GATE_TIMEOUT_S 600

typedef struct linnet_gate_command {
    char *text;                                     /* owned: the arguments, zero-terminated */
    char *arguments[LINNET_GATE_ARGUMENTS_MAX + 2]; /* into text; the place of the path is NULL until asked */
    size_t n_arguments, path_at;
    char adapter_path[4096];  /* where the adapter is written for it */
    const char *architecture; /* of the base model; borrowed */
    int timeout_ms;
    int stop_fd; /* readable: stop waiting; -1: none */
} linnet_gate_command;

/** Split at spaces; no shell, no quotes. The argument "{}" stands for the adapter's path, which otherwise
 * comes last. ARG where there is nothing, or too much. */
linnet_status linnet_gate_command_init(const char *text, linnet_gate_command *command,
                                       linnet_error *err) LINNET_NODISCARD;
void linnet_gate_command_release(linnet_gate_command *command);
/** A linnet_coordinator_gate_fn; context is the command. A "loss" of null is NaN. ARG: it cannot be run,
 * failed, took too long, or printed no loss; what it started is ended. BUSY: stop_fd became readable. */
linnet_status linnet_gate_command_ask(void *context, const linnet_adapter *adapter, double *ret_loss,
                                      linnet_error *err) LINNET_NODISCARD;

#endif
