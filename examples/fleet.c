/* SPDX-License-Identifier: Apache-2.0 */
/* One device of a federated fleet, in a program with a loop of its own: enrol once, then do what is due in
 * slices of time, and something else in between. usage: fleet STATE MODEL.gguf TEXTS.jsonl [URL INVITE]
 *
 * cc fleet.c $(pkg-config --cflags --libs linnet-device) */
#define _POSIX_C_SOURCE 200809L
#include <linnet-device.h>

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#define SLICE_MS 200  /* of training, before the loop looks at other things */
#define NAP_MS 60000u /* so does it at least so often */

static volatile sig_atomic_t must_end;

static void on_signal(int number)
{
    (void)number;
    must_end = 1; /* poll returns; every state is durable */
}

static void tell(lin_agent *agent)
{
    static char last[16 + 208];
    char now[sizeof(last)];
    lin_agent_report r;
    memset(&r, 0, sizeof(r));
    r.size = sizeof(r);
    if (lin_agent_describe(agent, &r, NULL) != LIN_OK)
        return;
    snprintf(now, sizeof(now), "%s%s", r.phase, r.note);
    if (strcmp(now, last) != 0)
        printf("%-9s version %llu, %llu accepted, %llu bytes sent, epsilon %.3g%s%s\n", r.phase,
               (unsigned long long)r.version, (unsigned long long)r.n_contributions,
               (unsigned long long)r.bytes_up, r.dp_epsilon, r.note[0] ? "; " : "", r.note);
    fflush(stdout);
    memcpy(last, now, sizeof(last));
}

/* Until the task is finished. */
static lin_status take_part(lin_agent *agent, lin_error *err)
{
    lin_agent_what what;
    memset(&what, 0, sizeof(what));
    what.size = sizeof(what);
    while (!must_end) {
        lin_status status = lin_agent_step(agent, SLICE_MS, &what, err);
        if (status != LIN_OK && status != LIN_ERR_NO_SPACE) /* a full disk is waited out */
            return status;
        tell(agent);
        if (what.did == LIN_AGENT_EVALUATED)
            (void)lin_agent_use(agent, NULL); /* the app writes with the newest adapter */
        if (what.did == LIN_AGENT_FINISHED)
            return LIN_OK;
        /* An app's own descriptors would stand here; without any, poll only sleeps. */
        (void)poll(NULL, 0, (int)(what.wake_in_ms < NAP_MS ? what.wake_in_ms : NAP_MS));
    }
    return LIN_OK;
}

int main(int argc, char **argv)
{
    struct sigaction action;
    lin_error err = {0};
    lin_model *model = NULL;
    lin_texts *texts = NULL;
    lin_agent *agent = NULL;
    lin_status status = LIN_OK;
    lin_agent_options options;
    if (argc != 4 && argc != 6) {
        fprintf(stderr, "usage: fleet STATE MODEL.gguf TEXTS.jsonl [URL INVITE]\n");
        return 2;
    }
    memset(&action, 0, sizeof(action));
    action.sa_handler = on_signal;
    (void)sigaction(SIGINT, &action, NULL);
    (void)sigaction(SIGTERM, &action, NULL);
    if (argc == 6)
        status = lin_enroll(argv[1], argv[4], argv[5], 0, &err);
    if (status == LIN_OK)
        status = lin_model_open(argv[2], NULL, &model, &err);
    if (status == LIN_OK)
        status = lin_texts_create(&texts, &err);
    if (status == LIN_OK)
        status = lin_texts_load(texts, argv[3], &err);
    memset(&options, 0, sizeof(options));
    options.size = sizeof(options);
    options.state_directory = argv[1];
    options.model = model;
    options.texts = texts;
    if (status == LIN_OK)
        status = lin_agent_open(&options, &agent, &err);
    lin_texts_close(texts); /* the agent keeps them */
    lin_model_close(model);
    if (status == LIN_OK)
        status = take_part(agent, &err);
    lin_agent_close(agent);
    if (status != LIN_OK)
        fprintf(stderr, "fleet: %s\n", err.message);
    return status == LIN_OK ? 0 : 1;
}
