/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_TESTS_ACCEPTANCE_H
#define LINNET_TESTS_ACCEPTANCE_H

/* The built programs as their users meet them: processes, sockets on loopback, state directories in a scratch
 * folder. Commands are shell lines that run in that folder, where these names are set: $C linnet-client, $K
 * linnet-coordinator, $M the bundled model, $D its training records, $E its held-out records. Waiting is
 * always for an event, up to a deadline that fails the test. */

#include "testing.h"

#include "linnet/bytes.h"

#include <jansson.h>
#include <stdbool.h>
#include <sys/types.h>

#define DEADLINE_MS 240000 /* for anything that is waited for: a test that fails, fails late */

/** Group fixtures: make and enter the scratch folder; end what is left running, remove the folder. */
int acceptance_set_up(void **state);
int acceptance_tear_down(void **state);
/** Test fixture: the plans `tiny.ini` (masked sums of three devices, as by default) and `plain.ini` (two
 * devices a round on the plain path), of one step each, and `plain.policy`, which allows both, are written
 * once; this ends what a failed test left running, so that one failure does not make others. */
int acceptance_clean(void **state);
/** Run the tests, or with LINNET_TEST=PATTERN in the environment those whose names match. */
#define acceptance_main(tests)                                                                               \
    (cmocka_set_test_filter(getenv("LINNET_TEST")),                                                          \
     cmocka_run_group_tests(tests, acceptance_set_up, acceptance_tear_down))

/* ---- files of the scratch folder ---- */
linnet_buffer take_file(const char *name); /* owned; followed by a zero */
void put_file(const char *name, const void *bytes, size_t n_bytes);
void put_text(const char *name, const char *text);
bool file_exists(const char *name);

/** How many devices of this program have a round key outside their state; -1: there is no place for one. */
int count_round_keys(void);

/* ---- commands that end by themselves ---- */
typedef struct outcome {
    int status; /* exit status, 128 + the signal that ended it, or -1: it did not end and was killed */
    size_t n_lines;
    char out[65536], err[8192]; /* as much as fits */
} outcome;

/** Valid until the next run. */
const outcome *run(const char *format, ...) LINNET_PRINTF(1, 2);
/** Exit status 1, exactly one line on stderr, which has the words `wanted` and begins with the program's
 * name. */
void must_fail(const char *wanted, const char *format, ...) LINNET_PRINTF(2, 3);
/** The same with exit status 2: wrong usage. */
void must_refuse_usage(const char *wanted, const char *format, ...) LINNET_PRINTF(2, 3);
/** Exit status 0 and nothing on stderr. */
void must_do(const char *format, ...) LINNET_PRINTF(1, 2);
/** The last line of a command that must do, as JSON; owned. */
json_t *result_of(const char *format, ...) LINNET_PRINTF(1, 2);
/** A field of the last line, which must be there. */
long long number_of(const char *field, const char *format, ...) LINNET_PRINTF(2, 3);
/** Text of a field of the last line, in a static buffer. */
const char *text_of(const char *field, const char *format, ...) LINNET_PRINTF(2, 3);

/* ---- commands that stay ---- */
/** Start in the background; NAME.out and NAME.err are appended to. */
pid_t start(const char *name, const char *format, ...) LINNET_PRINTF(2, 3);
/** Send a signal (0: none) and wait for the end; the status as in outcome. */
int end(pid_t pid, int signal_number);
bool is_running(pid_t pid);
int64_t now_ms(void);
void pause_ms(long ms); /* between two looks */
/** Has NAME's text these words by now? Waits for them. */
void await_text(const char *name, const char *words);

/* ---- a fleet ---- */
typedef struct server {
    pid_t pid;
    int port;
} server;

/** linnet-coordinator init with tiny.ini. */
void make_task(const char *state);
/** The same with plain.ini, for what is about messages and not about masks. */
void make_plain_task(const char *state);
/** Serve a state on a port (0: any), with what else the command line shall have; returns when it listens. */
server serve(const char *state, int port, const char *more);
/** linnet-client serve with the bundled model on a port of its own, NAME.out and NAME.err as for start. */
server serve_model(const char *name, const char *more);
/** End it with a signal; SIGTERM must give exit status 0. */
void stop(server *s, int signal_number);
/** An invite's code, in a static buffer. */
const char *invite(const char *state);
/** Enrol the device of a state directory over a port. */
void enroll(const char *device, const char *coordinator, int port);
/** linnet-client run in the background under plain.policy, seeded by the device's name, on the first records
 * of the bundled data. */
pid_t start_device(const char *device, const char *more);
/** The same with this seed, for what must come to the same bits under another name. */
pid_t start_seeded(const char *device, unsigned seed, const char *more);
/** Wait until the coordinator's status has field >= count. */
void await_count(const char *coordinator, const char *field, long long count);
/** Run a device to the end of so many rounds; it must do. */
void contribute(const char *device, int rounds);

/* ---- a fleet whose sum is masked, or is not ---- */

#define MEMBERS_MAX 3

typedef struct fleet_profile {
    const char *name, *plan;
    int n_members; /* all of a round */
} fleet_profile;
/** secure with tiny.ini, plain with plain.ini. */
extern const fleet_profile profiles[2];

void make_profile_task(const char *state, const fleet_profile *profile);
/** The name of a task's i-th member, in a static buffer. */
const char *member(const char *task, int i);
/** Enrol all members of a task, whose coordinator's state may lie elsewhere, over a port. */
void enroll_members(const char *task, const char *coordinator, const fleet_profile *profile, int port);
/** Start all members; the i-th of any task draws from the same seed. */
void start_members(const char *task, const fleet_profile *profile, const char *more, pid_t *ret_pids);
/** End them all by SIGTERM. */
void stop_members(const fleet_profile *profile, const pid_t *pids);
/** All members contribute to this many rounds more; each counts once, on both sides, and n_accepted times
 * with what it had given before. */
void finish_rounds(const char *task, const char *coordinator, const fleet_profile *profile, int n_rounds,
                   int n_accepted);
/** The adapter that the first round of a profile comes to where nothing happens to it, as hex digits. */
const char *calm_adapter(const fleet_profile *profile);

/* ---- raw HTTP ---- */
/** Connect to a port of loopback. */
int dial(int port);
/** Send a request on a new connection; the status of the first answer, 0: closed without one, -1: neither up
 * to the deadline. */
int http_status(int port, const void *bytes, size_t n_bytes);
/** The same for what may be no whole request, so that the server waits for more: -1 after five seconds. */
int http_probe(int port, const void *bytes, size_t n_bytes);
int http_post(int port, const char *path, const void *body, size_t n_body);

#endif
