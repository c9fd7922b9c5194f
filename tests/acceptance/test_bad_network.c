/* SPDX-License-Identifier: Apache-2.0 */
/* What a network and its people do to a fleet: bad invites, lost answers, eavesdroppers who replay and alter,
 * noise, slow peers, proxies, revoked devices. Nothing is enrolled, counted or changed by what should not
 * be. */
#include "acceptance.h"
#include "relay.h"

#include "linnet/http.h"
#include "linnet/limits.h"
#include "linnet/rng.h"

#include <signal.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* What a coordinator has decided so far, as one text: rounds, devices, transcript; without times and
 * traffic. */
static linnet_buffer decisions(const char *coordinator)
{
    static const char *const commands[] = {"rounds", "devices", "audit"};
    static const char *const left_out[] = {"bytes_up", "bytes_down", "last_seen_s", "invited"};
    linnet_buffer text = {0};
    for (size_t i = 0; i < ARRAY_LEN(commands); i++) {
        const outcome *o = run("$K %s --state %s --json", commands[i], coordinator);
        assert_int_equal(o->status, 0);
        for (const char *line = o->out; *line; line = strchr(line, '\n') + 1) {
            json_t *object = json_loadb(line, strcspn(line, "\n"), 0, NULL);
            assert_non_null(object);
            for (size_t j = 0; j < ARRAY_LEN(left_out); j++)
                (void)json_object_del(object, left_out[j]); /* not every object has them */
            char *kept = json_dumps(object, JSON_COMPACT);
            linnet_buffer_append_text(&text, kept);
            linnet_buffer_append_text(&text, "\n");
            free(kept);
            json_decref(object);
        }
    }
    linnet_buffer_append_u8(&text, 0);
    assert_false(text.failed);
    return text;
}

static void check_decisions(const char *coordinator, const linnet_buffer *before)
{
    linnet_buffer after = decisions(coordinator);
    assert_string_equal((const char *)after.bytes, (const char *)before->bytes);
    linnet_buffer_release(&after);
}

static void check_alive(int port)
{
    static const char hello[] = "GET /v1/hello HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    assert_int_equal(http_status(port, hello, sizeof(hello) - 1), 200);
}

static void await_status_of_device(const char *device, const char *field, const char *value)
{
    char name[64], wanted[128];
    (void)snprintf(name, sizeof(name), "%s.out", device);
    (void)snprintf(wanted, sizeof(wanted), "\"%s\":%s", field, value);
    await_text(name, wanted);
}

/* ---- invites ---- */

static void an_invite_that_is_none_enrols_nobody(void **state)
{
    (void)state;
    char good[1024], bad[1024];
    make_task("i-task");
    server s = serve("i-task", 0, "");
    (void)snprintf(good, sizeof(good), "%s", invite("i-task"));
    static const char *const words[] = {"''", "hello", "linnet1-", "linnet2-00000000", "ÄÖÜ"};
    for (size_t i = 0; i < ARRAY_LEN(words); i++)
        must_fail("invite", "$C enroll --state i-device --coordinator http://127.0.0.1:%d --invite %s",
                  s.port, words[i]);
    for (size_t i = 0; i < 40; i++) { /* one letter altered, or the end missing: the code checks itself */
        (void)snprintf(bad, sizeof(bad), "%s", good);
        size_t at = 8 + i * (strlen(bad) - 9) / 40;
        if (i % 4 == 3)
            bad[at] = '\0';
        else
            bad[at] = bad[at] == '-' ? 'Z' : bad[at] == 'K' ? 'M' : 'K';
        must_fail("invite", "$C enroll --state i-device --coordinator http://127.0.0.1:%d --invite %s",
                  s.port, bad);
    }
    assert_int_equal(number_of("devices", "$K status --state i-task --json"), 0);
    assert_int_equal(number_of("invites_open", "$K status --state i-task --json"), 1);
    must_do("$C enroll --state i-device --coordinator http://127.0.0.1:%d --invite %s", s.port, good);
    must_fail("enrolled already", "$C enroll --state i-device --coordinator http://127.0.0.1:%d --invite %s",
              s.port, good);
    must_fail("already used by another device",
              "$C enroll --state i-second --coordinator http://127.0.0.1:%d --invite %s", s.port, good);
    assert_int_equal(number_of("devices", "$K status --state i-task --json"), 1);
    stop(&s, SIGTERM);
}

static void an_invite_of_another_coordinator_or_of_yesterday_is_refused(void **state)
{
    (void)state;
    make_task("e-task");
    make_task("e-other");
    server s = serve("e-task", 0, "");
    must_fail("pinned", "$C enroll --state e-device --coordinator http://127.0.0.1:%d --invite %s", s.port,
              invite("e-other"));
    const outcome *o = run("$K invite --state e-task --expires 1s");
    char code[1024];
    (void)snprintf(code, sizeof(code), "%.*s", (int)strcspn(o->out, "\n"), o->out);
    for (time_t made = time(NULL); time(NULL) < made + 3;) /* until the second after its last */
        pause_ms(50);
    must_fail("expired: ask for a new one",
              "$C enroll --state e-device --coordinator http://127.0.0.1:%d --invite %s", s.port, code);
    assert_int_equal(number_of("devices", "$K status --state e-task --json"), 0);
    enroll("e-device", "e-task", s.port); /* what failed left nothing in the way */
    assert_int_equal(number_of("devices", "$K status --state e-task --json"), 1);
    stop(&s, SIGTERM);
}

static void a_lost_answer_to_an_enrolment_is_asked_for_again(void **state)
{
    (void)state;
    char code[1024], id[64];
    make_plain_task("l-task");
    server s = serve("l-task", 0, "");
    relay *r = relay_start(s.port);
    (void)snprintf(code, sizeof(code), "%s", invite("l-task"));
    relay_lose_answers(r, LINNET_PATH_ENROLL,
                       9); /* curl asks twice by itself where a kept connection breaks */
    must_fail("127.0.0.1", "$C enroll --state l-device --coordinator http://127.0.0.1:%d --invite %s",
              relay_port(r), code);
    assert_int_equal(number_of("devices", "$K status --state l-task --json"), 1); /* it did arrive */
    must_fail("", "$C run --state l-device --model $M --data few.jsonl --policy plain.policy --once");
    relay_lose_answers(r, LINNET_PATH_ENROLL, 0);
    must_do("$C enroll --state l-device --coordinator http://127.0.0.1:%d --invite %s", relay_port(r), code);
    assert_int_equal(number_of("devices", "$K status --state l-task --json"), 1);
    (void)snprintf(id, sizeof(id), "%s", text_of("device_id", "$C status --state l-device --json"));
    const outcome *o = run("$K devices --state l-task --json");
    assert_non_null(strstr(o->out, id));
    relay_stop(r);
    stop(&s, SIGTERM);
}

static void a_coordinator_that_is_not_there_is_named(void **state)
{
    (void)state;
    make_plain_task("n-task");
    char code[1024];
    (void)snprintf(code, sizeof(code), "%s", invite("n-task"));
    must_fail("http://", "$C enroll --state n-device --coordinator ftp://127.0.0.1 --invite %s", code);
    must_fail("127.0.0.1:1", "$C enroll --state n-device --coordinator http://127.0.0.1:1 --invite %s", code);
    must_fail("nowhere.invalid",
              "$C enroll --state n-device --coordinator http://nowhere.invalid --invite %s", code);
    server s = serve("n-task", 0, "");
    must_fail("", "$C enroll --state n-device --coordinator https://127.0.0.1:%d --invite %s", s.port, code);
    must_fail("404", "$C enroll --state n-device --coordinator http://127.0.0.1:%d/prefix --invite %s",
              s.port, code);
    must_do("$C enroll --state n-device --coordinator http://127.0.0.1:%d/ --invite %s", s.port, code);
    stop(&s, SIGTERM);
    must_do(
        "$C run --state n-device --model $M --data few.jsonl --policy plain.policy --once"); /* later,
                                                                                     then; not a failure */
}

/* ---- who takes part ---- */

/* The default policy: no round with one who sees single deltas, and a reason. */
static void a_plain_task_is_joined_only_by_those_who_allow_it(void **state)
{
    (void)state;
    make_plain_task("o-task");
    server s = serve("o-task", 0, "");
    enroll("o-device", "o-task", s.port);
    pid_t device = start("o-device", "$C run --state o-device --model $M --data few.jsonl --json");
    await_text("o-device.out", "allow_plain");
    assert_int_equal(end(device, SIGTERM), 0);
    assert_int_equal(number_of("joined", "$K status --state o-task --json"), 0);
    device = start_device("o-device", "");
    await_count("o-task", "accepted", 1);
    assert_int_equal(end(device, SIGTERM), 0);
    stop(&s, SIGTERM);
}

static void a_device_with_another_model_refuses_to_train(void **state)
{
    (void)state;
    char other[4096];
    const char *path = testing_shared("models/stories260K-Q8_0.gguf");
    if (!path)
        skip();
    (void)snprintf(other, sizeof(other), "%s", path);
    make_plain_task("m-task");
    server s = serve("m-task", 0, "");
    enroll("m-device", "m-task", s.port);
    for (int i = 0; i < 2; i++)
        must_fail("is not the base model of this task",
                  "$C run --state m-device --model %s --data few.jsonl --policy plain.policy --quiet", other);
    assert_int_equal(number_of("joined", "$K status --state m-task --json"), 0);
    pid_t device = start_device("m-device", ""); /* nothing is spoilt for the right one */
    await_count("m-task", "accepted", 1);
    assert_int_equal(end(device, SIGTERM), 0);
    stop(&s, SIGTERM);
}

/* One device is revoked before, one after its contribution: the first is not taken, the second stays. */
static void a_revoked_device_is_told_and_what_it_gave_before_stays(void **state)
{
    (void)state;
    char early[64], late[64];
    make_plain_task("r-task");
    server s = serve("r-task", 0, "");
    relay *r = relay_start(s.port);
    must_do("$C enroll --state r-early --coordinator http://127.0.0.1:%d --invite %s", relay_port(r),
            invite("r-task"));
    enroll("r-late", "r-task", s.port);
    enroll("r-third", "r-task", s.port);
    (void)snprintf(early, sizeof(early), "%s", text_of("device_id", "$C status --state r-early --json"));
    (void)snprintf(late, sizeof(late), "%s", text_of("device_id", "$C status --state r-late --json"));

    pid_t gives = start_device("r-late", "");
    await_count("r-task", "accepted", 1);
    relay_alter(r, LINNET_PATH_UPLOAD); /* it joins, and no byte of its upload arrives whole */
    pid_t tries = start_device("r-early", "");
    await_status_of_device("r-early", "phase", "\"uploading\"");
    must_do("$K revoke --state r-task %s", early);
    must_do("$K revoke --state r-task %s", late);
    relay_alter(r, NULL);

    assert_int_equal(end(tries, 0), 1);
    assert_int_equal(end(gives, 0), 1);
    static const char *const names[] = {"r-early", "r-late"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        char err[64];
        (void)snprintf(err, sizeof(err), "%s.err", names[i]);
        linnet_buffer text = take_file(err);
        assert_non_null(strstr((const char *)text.bytes, "revoked"));
        linnet_buffer_release(&text);
        must_fail("revoked", "$C run --state %s --model $M --data few.jsonl --policy plain.policy --quiet",
                  names[i]);
    }
    assert_int_equal(number_of("accepted", "$C status --state r-early --json"), 0);
    assert_int_equal(number_of("accepted", "$C status --state r-late --json"), 1);
    assert_int_equal(number_of("accepted", "$K status --state r-task --json"), 1);

    contribute("r-third", 1); /* the round goes on with what it has */
    const outcome *o = run("$K rounds --state r-task --json");
    assert_non_null(strstr(o->out, "\"round\":1,\"state\":\"closed\""));
    assert_non_null(strstr(o->out, "\"accepted\":2"));
    assert_int_equal(number_of("revoked", "$K status --state r-task --json"), 2);
    assert_int_equal(number_of("flaws", "$K audit --state r-task --json"), 0);
    relay_stop(r);
    stop(&s, SIGTERM);
}

/* The open round is announced again with the new list: who joined before finishes, who comes later joins. */
static void a_revocation_leaves_the_others_of_a_round_alone(void **state)
{
    (void)state;
    char lost[64];
    make_plain_task("v-task");
    server s = serve("v-task", 0, "");
    relay *r = relay_start(s.port);
    must_do("$C enroll --state v-before --coordinator http://127.0.0.1:%d --invite %s", relay_port(r),
            invite("v-task"));
    enroll("v-lost", "v-task", s.port);
    enroll("v-after", "v-task", s.port);
    (void)snprintf(lost, sizeof(lost), "%s", text_of("device_id", "$C status --state v-lost --json"));
    relay_alter(r, LINNET_PATH_UPLOAD);
    pid_t before = start_device("v-before", "--rounds 1");
    await_status_of_device("v-before", "phase", "\"uploading\"");
    must_do("$K revoke --state v-task %s", lost);
    relay_alter(r, NULL);
    await_count("v-task", "accepted", 1);
    contribute("v-after", 1);
    assert_int_equal(end(before, 0), 0);
    assert_int_equal(number_of("accepted", "$C status --state v-before --json"), 1);
    const outcome *o = run("$K rounds --state v-task --json");
    assert_non_null(strstr(o->out, "\"round\":1,\"state\":\"closed\""));
    assert_int_equal(number_of("flaws", "$K audit --state v-task --json"), 0);
    relay_stop(r);
    stop(&s, SIGTERM);
}

/* A state directory copied to a second machine: one device, twice awake. */
static void a_copied_device_counts_as_one(void **state)
{
    (void)state;
    make_plain_task("k-task");
    server s = serve("k-task", 0, "");
    enroll("k-first", "k-task", s.port);
    enroll("k-other", "k-task", s.port);
    must_do("cp -r k-first k-copy");
    pid_t first = start_device("k-first", ""), copy = start_device("k-copy", "");
    contribute("k-other", 3);
    assert_true(is_running(first));
    assert_true(is_running(copy));
    assert_int_equal(end(first, SIGTERM), 0);
    assert_int_equal(end(copy, SIGTERM), 0);
    long long n_closed = 0, n_contributions = 0, n_devices = 0;
    const outcome *o = run("$K rounds --state k-task --json");
    for (const char *line = o->out; *line; line = strchr(line, '\n') + 1) {
        json_t *round = json_loadb(line, strcspn(line, "\n"), 0, NULL);
        const char *is = json_string_value(json_object_get(round, "state"));
        long long accepted = json_integer_value(json_object_get(round, "accepted"));
        assert_true(accepted <= 2);
        n_closed += is && strcmp(is, "closed") == 0;
        n_contributions += is ? accepted : 0;
        json_decref(round);
    }
    assert_true(n_closed >= 3);
    o = run("$K devices --state k-task --json");
    for (const char *line = o->out; *line; line = strchr(line, '\n') + 1) {
        json_t *device = json_loadb(line, strcspn(line, "\n"), 0, NULL);
        n_devices += json_integer_value(json_object_get(device, "rounds_accepted"));
        json_decref(device);
    }
    assert_int_equal(n_devices, n_contributions);
    assert_int_equal(number_of("flaws", "$K audit --state k-task --json"), 0);
    stop(&s, SIGTERM);
}

/* ---- eavesdroppers ---- */

/* The last is of masked rounds only. */
static const char *const sealed_paths[] = {LINNET_PATH_ENROLL, LINNET_PATH_CHECKIN, LINNET_PATH_UPLOAD,
                                           LINNET_PATH_ROUND};

static void enroll_over(const char *device, const char *task, const relay *r)
{
    must_do("$C enroll --state %s --coordinator http://127.0.0.1:%d --invite %s", device, relay_port(r),
            invite(task));
}

/* The first round is closed, with all members, and came to what it would have come to in peace. */
static void check_round(const char *task, const fleet_profile *profile)
{
    const outcome *o = run("$K rounds --state %s --json", task);
    char words[32];
    (void)snprintf(words, sizeof(words), "\"accepted\":%d", profile->n_members);
    assert_non_null(strstr(o->out, "\"round\":1,\"state\":\"closed\""));
    assert_non_null(strstr(o->out, words));
    assert_string_equal(text_of("adapter_hash", "$K status --state %s --json", task), calm_adapter(profile));
    assert_int_equal(number_of("flaws", "$K audit --state %s --json", task), 0);
}

/* Send again everything that was recorded; every answer must be one that changes nothing. */
static size_t replay_all(relay *r, int port)
{
    size_t n = 0;
    for (size_t p = 0; p < ARRAY_LEN(sealed_paths); p++) {
        const linnet_buffer *request;
        for (size_t i = 0; (request = relay_request(r, sealed_paths[p], i)) != NULL; i++, n++) {
            int got = http_status(port, request->bytes, request->n_bytes);
            if (got < 200 || got >= 500)
                fail_msg("a replay to %s is answered %d", sealed_paths[p], got);
        }
    }
    return n;
}

/* Every message of a round comes again at once, with those before it of all members; the whole round comes
 * again after its end, at another coordinator, and after a restart. */
static void replay_a_round(const fleet_profile *profile)
{
    pid_t members[MEMBERS_MAX];
    char task[32], other_task[32];
    (void)calm_adapter(profile);
    (void)snprintf(task, sizeof(task), "p-%s", profile->name);
    (void)snprintf(other_task, sizeof(other_task), "p-other-%s", profile->name);
    make_profile_task(task, profile);
    make_profile_task(other_task, profile);
    server s = serve(task, 0, ""), other = serve(other_task, 0, "");
    relay *r = relay_start(s.port);
    for (int i = 0; i < profile->n_members; i++)
        enroll_over(member(task, i), task, r);
    relay_repeat(r, 16);
    start_members(task, profile, "--rounds 1", members);
    for (int i = 0; i < profile->n_members; i++)
        assert_int_equal(end(members[i], 0), 0);
    assert_true(relay_n_repeated(r) > 16);
    assert_int_equal(relay_n_failures(r), 0);
    assert_non_null(relay_request(r, LINNET_PATH_UPLOAD, 0));
    assert_true((relay_request(r, LINNET_PATH_ROUND, 0) != NULL) == (profile == &profiles[0]));
    check_round(task, profile);
    for (int i = 0; i < profile->n_members; i++)
        assert_int_equal(number_of("accepted", "$C status --state %s --json", member(task, i)), 1);

    linnet_buffer before = decisions(task);
    for (int i = 0; i < 3; i++)
        assert_true(replay_all(r, s.port) >= 3);
    check_decisions(task, &before); /* in the next round */
    linnet_buffer elsewhere = decisions(other_task);
    (void)replay_all(r, other.port);
    check_decisions(other_task, &elsewhere); /* at another coordinator */
    stop(&s, SIGKILL);
    s = serve(task, 0, "");
    (void)replay_all(r, s.port);
    check_decisions(task, &before); /* and after a restart */
    linnet_buffer_release(&before);
    linnet_buffer_release(&elsewhere);
    relay_stop(r);
    stop(&s, SIGTERM);
    stop(&other, SIGTERM);
}

static void a_replayed_message_counts_nothing_twice(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(profiles); i++)
        replay_a_round(&profiles[i]);
}

/* One recorded request, altered in many ways: each is refused. */
static void alter_request(linnet_rng *rng, int port, const linnet_buffer *request, const char *path)
{
    size_t n_head = relay_body_offset(request), n_body = request->n_bytes - n_head;
    linnet_buffer body = {0};
    linnet_buffer_append(&body, request->bytes + n_head, n_body);
    linnet_buffer_append_u8(&body, 0);
    assert_false(body.failed);
    for (size_t i = 0; i < 60; i++) { /* every byte of the start, then anywhere */
        size_t at = i < 30 ? i : (size_t)linnet_rng_below(rng, n_body);
        uint8_t bit = (uint8_t)(1u << linnet_rng_below(rng, 8));
        body.bytes[at] ^= bit;
        int got = http_post(port, path, body.bytes, n_body);
        if (got < 400 || got >= 500)
            fail_msg("%s with byte %zu altered is answered %d", path, at, got);
        body.bytes[at] ^= bit;
    }
    static const size_t cuts[] = {0, 1, 8, 40, 100};
    for (size_t i = 0; i < ARRAY_LEN(cuts) + 2; i++) { /* cut, one byte short, one byte long */
        size_t n = i < ARRAY_LEN(cuts) ? cuts[i] : i == ARRAY_LEN(cuts) ? n_body - 1 : n_body + 1;
        int got = http_post(port, path, body.bytes, n);
        if (got < 400 || got >= 500)
            fail_msg("%s cut to %zu of %zu bytes is answered %d", path, n, n_body, got);
    }
    for (size_t q = 0; q < ARRAY_LEN(sealed_paths); q++) /* sealed for another path */
        if (strcmp(sealed_paths[q], path) != 0)
            assert_int_equal(http_post(port, sealed_paths[q], body.bytes, n_body), 400);
    linnet_buffer_release(&body);
}

/* One member speaks through a relay that spoils two of five exchanges, either way: everything is said again,
 * and comes to the same. What the relay recorded changes nothing afterwards, in whatever way it is altered.
 */
static void alter_a_round(const fleet_profile *profile)
{
    char task[32];
    linnet_rng rng;
    linnet_rng_init(&rng, 11, 3);
    (void)calm_adapter(profile);
    (void)snprintf(task, sizeof(task), "a-%s", profile->name);
    make_profile_task(task, profile);
    server s = serve(task, 0, "");
    relay *r = relay_start(s.port);
    enroll_over(member(task, 0), task, r);
    for (int i = 1; i < profile->n_members; i++)
        enroll(member(task, i), task, s.port);
    relay_alter_some(r, true);
    finish_rounds(task, task, profile, 1, 1);
    check_round(task, profile);
    relay_alter_some(r, false);
    linnet_buffer before = decisions(task);
    for (size_t p = 0; p < ARRAY_LEN(sealed_paths); p++) {
        const linnet_buffer *request = relay_request(r, sealed_paths[p], 0);
        if (request)
            alter_request(&rng, s.port, request, sealed_paths[p]);
        else
            assert_string_equal(sealed_paths[p], LINNET_PATH_ROUND);
    }
    check_decisions(task, &before);
    check_alive(s.port);
    linnet_buffer_release(&before);
    relay_stop(r);
    stop(&s, SIGTERM);
}

static void an_altered_message_changes_nothing(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(profiles); i++)
        alter_a_round(&profiles[i]);
}

/* Nothing that one member of a masked round says from here on arrives whole: the round is void, both sides
 * say why, and the next one has everybody. */
static void what_never_arrives_whole_voids_one_masked_round(void **state)
{
    (void)state;
    pid_t members[MEMBERS_MAX];
    const fleet_profile brief = {"secure", "brief.ini", 3};
    must_do("sed -e 's/^phase_deadline.*/phase_deadline = 6s/' tiny.ini >brief.ini");
    make_profile_task("b-task", &brief);
    server s = serve("b-task", 0, "");
    relay *r = relay_start(s.port);
    enroll_over(member("b-task", 0), "b-task", r);
    for (int i = 1; i < brief.n_members; i++)
        enroll(member("b-task", i), "b-task", s.port);
    relay_alter(r, LINNET_PATH_UPLOAD);
    start_members("b-task", &brief, "--rounds 1", members);
    await_text("b-task.err", "round 1 void: too few devices at its deadline");
    await_text("b-task-device-0.out", "/v1/upload: HTTP status 400");
    await_text("b-task-device-1.out", "the round failed");
    relay_alter(r, NULL);
    for (int i = 0; i < brief.n_members; i++)
        assert_int_equal(end(members[i], 0), 0);
    const outcome *o = run("$K rounds --state b-task --json");
    assert_non_null(strstr(o->out, "\"round\":1,\"state\":\"void\""));
    assert_non_null(strstr(o->out, "\"state\":\"closed\""));
    assert_int_equal(number_of("version", "$K status --state b-task --json"), 1);
    for (int i = 0; i < brief.n_members;
         i++) /* the receipts of the void round are kept, and counted as such */
        assert_true(number_of("accepted", "$C status --state %s --json", member("b-task", i)) >= 1);
    assert_int_equal(number_of("flaws", "$K audit --state b-task --json"), 0);
    relay_stop(r);
    stop(&s, SIGTERM);
}

/* A connection that stands still costs a part of the phase, and not the round. */
static void a_connection_that_dies_silently_does_not_cost_the_round(void **state)
{
    (void)state;
    const fleet_profile *secure = &profiles[0];
    (void)calm_adapter(secure);
    make_profile_task("q-task", secure);
    server s = serve("q-task", 0, "");
    relay *r = relay_start(s.port);
    enroll_over(member("q-task", 0), "q-task", r);
    for (int i = 1; i < secure->n_members; i++)
        enroll(member("q-task", i), "q-task", s.port);
    relay_swallow(r, LINNET_PATH_UPLOAD, 1);
    finish_rounds("q-task", "q-task", secure, 1, 1);
    assert_int_equal(relay_n_to_swallow(r), 0);
    check_round("q-task", secure);
    relay_stop(r);
    stop(&s, SIGTERM);
}

/* ---- noise ---- */

static void a_body_over_the_cap_is_turned_away(void **state)
{
    (void)state;
    make_task("c-task");
    server s = serve("c-task", 0, "");
    size_t n = LINNET_REQUEST_BYTES_MAX + 1;
    uint8_t *body = calloc(1, n);
    assert_non_null(body);
    for (size_t p = 0; p < ARRAY_LEN(sealed_paths); p++) {
        int got = http_post(s.port, sealed_paths[p], body, n);
        if (got != 413 && got != 0)
            fail_msg("%zu bytes to %s are answered %d", n, sealed_paths[p], got);
        assert_int_equal(http_post(s.port, sealed_paths[p], body, n - 1), 400);
    }
    free(body);
    static const char huge[] = "POST /v1/upload HTTP/1.1\r\nHost: x\r\nContent-Length: 1099511627776\r\n\r\n";
    int got = http_probe(s.port, huge, sizeof(huge) - 1);
    assert_true(got == 413 || got == 400 || got == 0);
    check_alive(s.port);
    stop(&s, SIGTERM);
}

static void noise_is_answered_and_forgotten(void **state)
{
    (void)state;
    static const char *const probes[] = {
        "POST /v1/checkin HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: "
        "chunked\r\n\r\n0\r\n\r\nGET "
        "/v1/hello HTTP/1.1\r\nHost: x\r\n\r\n",
        "POST /v1/checkin HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 0\r\n\r\nhello",
        "POST /v1/checkin HTTP/1.1\r\nHost: x\r\nContent-Length : 5\r\n\r\nhello",
        "POST /v1/checkin HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\nhello",
        "POST /v1/checkin HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n",
        "POST /v1/checkin HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
        "POST /v1/checkin HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /v1/hello HTTP/1.1\r\n\r\n",
        "GET /v1/objects/../../coordinator.key HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        "GET /v1/objects/%2e%2e%2fcoordinator.key HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        "GET /v1/objects/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        "DELETE /v1/hello HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        "CONNECT example.org:443 HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET http://example.org/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "\x16\x03\x01\x02\x01\xfc\x03\x03\r\n\r\n",
        "\r\n\r\n\r\n\r\n",
    };
    linnet_rng rng;
    linnet_rng_init(&rng, 5, 4);
    make_task("h-task");
    server s = serve("h-task", 0, "");
    linnet_buffer before = decisions("h-task");
    for (size_t i = 0; i < ARRAY_LEN(probes); i++) {
        int got = http_probe(s.port, probes[i], strlen(probes[i]));
        if (got == 200 || (got >= 500 && got != 505))
            fail_msg("'%.60s' is answered %d", probes[i], got);
    }
    for (size_t i = 0; i < 200; i++) { /* hung up on in the middle, whatever it was */
        char noise[600];
        size_t n = 1 + (size_t)linnet_rng_below(&rng, sizeof(noise) - 1);
        for (size_t j = 0; j < n; j++)
            noise[j] = (char)linnet_rng_below(&rng, 256);
        size_t n_probe = i % 2 ? strlen(probes[i % ARRAY_LEN(probes)]) / 2 : 0;
        memcpy(noise, probes[i % ARRAY_LEN(probes)], n_probe < n ? n_probe : n);
        int fd = dial(s.port);
        (void)send(fd, noise, n, MSG_NOSIGNAL); /* it may close before the end */
        (void)close(fd);
    }
    for (size_t i = 0; i < 40; i++) { /* well-formed HTTP around random bodies */
        uint8_t body[512];
        size_t n = (size_t)linnet_rng_below(&rng, sizeof(body));
        for (size_t j = 0; j < n; j++)
            body[j] = (uint8_t)linnet_rng_below(&rng, 256);
        int got = http_post(s.port, sealed_paths[i % ARRAY_LEN(sealed_paths)], body, n);
        if (got < 400 || got >= 500)
            fail_msg("%zu random bytes are answered %d", n, got);
    }
    check_alive(s.port);
    check_decisions("h-task", &before);
    linnet_buffer_release(&before);
    stop(&s, SIGTERM);
    linnet_buffer log = take_file("h-task.err");
    assert_true(log.n_bytes < 4096); /* noise does not fill the log */
    linnet_buffer_release(&log);
}

static void slow_peers_hold_up_nobody(void **state)
{
    (void)state;
    enum { SLOW = 60 };
    static const char head[] = "POST /v1/checkin HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n";
    int fds[SLOW];
    make_plain_task("w-task");
    server s = serve("w-task", 0, "");
    for (size_t i = 0; i < SLOW; i++) {
        fds[i] = dial(s.port);
        size_t n = i % 3 == 0 ? 0 : i % 3 == 1 ? 20 : sizeof(head) - 1;
        assert_int_equal(send(fds[i], head, n, MSG_NOSIGNAL), n);
        if (i % 6 == 5)
            assert_int_equal(send(fds[i], "\r\nbody", 6, MSG_NOSIGNAL), 6);
    }
    enroll("w-device", "w-task", s.port);
    pid_t device = start_device("w-device", "");
    await_count("w-task", "accepted", 1);
    assert_int_equal(end(device, SIGTERM), 0);
    for (size_t i = 0; i < SLOW; i++)
        (void)close(fds[i]);
    stop(&s, SIGTERM);
}

/* ---- proxies ---- */

static void a_proxy_from_the_environment_carries_everything(void **state)
{
    (void)state;
    make_plain_task("x-task");
    server s = serve("x-task", 0, "");
    relay *r = relay_start(s.port);
    char proxy[64];
    (void)snprintf(proxy, sizeof(proxy), "http_proxy=http://127.0.0.1:%d", relay_port(r));
    must_do("%s $C enroll --state x-device --coordinator http://coordinator.invalid:8440 --invite %s", proxy,
            invite("x-task"));
    size_t n_enrol = relay_n_proxied(r);
    assert_true(n_enrol >= 2);
    must_do("%s $C run --state x-device --model $M --data few.jsonl --policy plain.policy --once", proxy);
    assert_true(relay_n_proxied(r) > n_enrol + 3);
    assert_int_equal(relay_n_proxied(r), relay_n_requests(r));
    assert_int_equal(number_of("accepted", "$K status --state x-task --json"), 1);
    relay_stop(r);
    must_fail("c.invalid", "%s $C enroll --state x-two --coordinator http://c.invalid --invite %s", proxy,
              invite("x-task"));
    stop(&s, SIGTERM);
}

/* Login pages, other servers, endless bodies: one line, nothing believed, and the device goes on later. */
static void what_answers_may_be_anything(void **state)
{
    (void)state;
    enum { ENDLESS = 1 << 20 };
    static const struct {
        const char *answer;
        const char *wanted;
    } cases[] = {
        {"HTTP/1.1 200 OK\r\nContent-Length: 18\r\n\r\n<html>login</html>",
         "is no coordinator; check the URL"},
        {"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "protocol version"},
        {"HTTP/1.1 302 Found\r\nLocation: http://portal.invalid/\r\nContent-Length: 0\r\n\r\n",
         "HTTP status 302"},
        {"HTTP/1.1 503 Busy\r\nRetry-After: 99999999999999\r\nContent-Length: 0\r\n\r\n", "HTTP status 503"},
        {"HTTP/1.1 407 Proxy\r\nContent-Length: 0\r\n\r\n", "HTTP status 407"},
        {"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\nabc", "127.0.0.1"},
        {"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999\r\n\r\nabc", "127.0.0.1"},
        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzzz\r\n", "127.0.0.1"},
        {"\x16\x03\x01 what is this", "127.0.0.1"},
        {NULL, "larger than"},
    };
    static char endless[ENDLESS] = "HTTP/1.1 200 OK\r\n\r\n";
    memset(endless + strlen(endless), 'x', ENDLESS - strlen(endless));
    make_plain_task("y-task");
    server s = serve("y-task", 0, "");
    relay *r = relay_start(s.port);
    char code[1024];
    (void)snprintf(code, sizeof(code), "%s", invite("y-task"));
    must_do("$C enroll --state y-device --coordinator http://127.0.0.1:%d --invite %s", relay_port(r),
            invite("y-task"));
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        const char *answer = cases[i].answer ? cases[i].answer : endless;
        relay_answer(r, answer, cases[i].answer ? strlen(answer) : ENDLESS);
        must_fail(cases[i].wanted, "$C enroll --state y-new --coordinator http://127.0.0.1:%d --invite %s",
                  relay_port(r), code);
    }
    pid_t device = start_device("y-device", ""); /* the endless one; it keeps asking */
    await_text("y-device.out", "larger than");
    relay_answer(r, NULL, 0);
    await_count("y-task", "accepted", 1);
    assert_int_equal(end(device, SIGTERM), 0);
    must_do("$C enroll --state y-new --coordinator http://127.0.0.1:%d --invite %s", relay_port(r), code);
    relay_stop(r);
    stop(&s, SIGTERM);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(an_invite_that_is_none_enrols_nobody, acceptance_clean),
        cmocka_unit_test_teardown(an_invite_of_another_coordinator_or_of_yesterday_is_refused,
                                  acceptance_clean),
        cmocka_unit_test_teardown(a_lost_answer_to_an_enrolment_is_asked_for_again, acceptance_clean),
        cmocka_unit_test_teardown(a_coordinator_that_is_not_there_is_named, acceptance_clean),
        cmocka_unit_test_teardown(a_device_with_another_model_refuses_to_train, acceptance_clean),
        cmocka_unit_test_teardown(a_plain_task_is_joined_only_by_those_who_allow_it, acceptance_clean),
        cmocka_unit_test_teardown(a_revoked_device_is_told_and_what_it_gave_before_stays, acceptance_clean),
        cmocka_unit_test_teardown(a_revocation_leaves_the_others_of_a_round_alone, acceptance_clean),
        cmocka_unit_test_teardown(a_copied_device_counts_as_one, acceptance_clean),
        cmocka_unit_test_teardown(a_replayed_message_counts_nothing_twice, acceptance_clean),
        cmocka_unit_test_teardown(an_altered_message_changes_nothing, acceptance_clean),
        cmocka_unit_test_teardown(a_connection_that_dies_silently_does_not_cost_the_round, acceptance_clean),
        cmocka_unit_test_teardown(what_never_arrives_whole_voids_one_masked_round, acceptance_clean),
        cmocka_unit_test_teardown(a_body_over_the_cap_is_turned_away, acceptance_clean),
        cmocka_unit_test_teardown(noise_is_answered_and_forgotten, acceptance_clean),
        cmocka_unit_test_teardown(slow_peers_hold_up_nobody, acceptance_clean),
        cmocka_unit_test_teardown(what_answers_may_be_anything, acceptance_clean),
        cmocka_unit_test_teardown(a_proxy_from_the_environment_carries_everything, acceptance_clean),
    };
    return acceptance_main(tests);
}
