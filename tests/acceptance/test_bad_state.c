/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE /* unshare, prlimit */
/* Disks and processes that fail under a fleet: full and read-only disks, states of another version, in use,
 * or not there, ports that are taken, signals at any moment. What was accepted stays accepted, once, and work
 * goes on. */
#include "acceptance.h"

#include "coordinator/rows.h"
#include "coordinator/store.h"
#include "linnet/device.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define SIM LINNET_BIN "/linnet-sim"

static bool has_mounts; /* this process may mount, in a namespace of its own */

static int set_up(void **state)
{
    has_mounts = unshare(CLONE_NEWNS) == 0 && mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0;
    return acceptance_set_up(state);
}

/* A disk of its own for a state; the test is skipped where no disk can be made. */
static void make_disk(const char *directory, const char *size)
{
    char options[64];
    if (!has_mounts) {
        print_message("needs the right to mount a tmpfs\n");
        skip();
    }
    (void)snprintf(options, sizeof(options), "size=%s", size);
    assert_int_equal(mkdir(directory, 0700), 0);
    assert_int_equal(mount("tmpfs", directory, "tmpfs", 0, options), 0);
}

static void drop_disk(void)
{
    (void)umount2("disk", MNT_DETACH); /* nothing is mounted where the test was skipped */
    (void)rmdir("disk");
}

/* Test fixture: nobody is left who uses the disk, then it goes. */
static int clean_disk(void **state)
{
    (void)acceptance_clean(state);
    drop_disk();
    return 0;
}

/* Fill a disk to its last byte. */
static void fill(const char *file)
{
    static const char zeros[65536];
    int fd = open(file, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    for (size_t n = sizeof(zeros); n > 0;) {
        ssize_t written = write(fd, zeros, n);
        if (written < 0)
            n /= 2;
    }
    (void)close(fd);
}

/* ---- states and ports ---- */

static void a_port_in_use_is_said(void **state)
{
    (void)state;
    make_task("one");
    make_task("two");
    server s = serve("one", 0, "");
    must_fail("is in use by another program: choose another address",
              "$K serve --state two --listen 127.0.0.1:%d", s.port);
    stop(&s, SIGTERM);
    s = serve("two", s.port, ""); /* at once: the port is free again */
    stop(&s, SIGKILL);
    s = serve("one", s.port, "");
    stop(&s, SIGTERM);
}

static void a_state_in_use_is_not_used_twice(void **state)
{
    (void)state;
    make_plain_task("busy-task");
    server s = serve("busy-task", 0, "");
    must_fail("another process serves 'busy-task' already",
              "$K serve --state busy-task --listen 127.0.0.1:0");
    enroll("busy-device", "busy-task", s.port);
    pid_t device = start_device("busy-device", "");
    await_count("busy-task", "accepted", 1);
    must_fail("busy-device", "$C run --state busy-device --model $M --data few.jsonl");
    must_fail("busy-device", "$C data --state busy-device --add few.jsonl");
    must_fail("busy-device", "$C forget --state busy-device --yes");
    must_do("$C status --state busy-device"); /* looking is allowed */
    assert_true(is_running(device));
    assert_int_equal(end(device, SIGTERM), 0);
    must_do("$C forget --state busy-device --yes");
    assert_false(file_exists("busy-device"));
    must_fail("enroll first", "$C status --state busy-device");
    stop(&s, SIGTERM);
}

static void a_state_that_is_none_names_the_next_step(void **state)
{
    (void)state;
    static const char *const commands[] = {
        "serve --listen 127.0.0.1:0",
        "status",
        "rounds",
        "devices",
        "audit",
        "invite",
        "pause",
        "resume",
        "export --format peft --out x",
        "revoke 00112233445566778899aabbccddeeff",
    };
    static const char *const device_commands[] = {"run --model $M --data few.jsonl", "status",
                                                  "data --add few.jsonl", "forget --yes"};
    must_do(
        "mkdir -p hollow/store empty && echo text >hollow/store/data.mdb && echo text >hollow/device.mdb");
    for (size_t i = 0; i < ARRAY_LEN(commands); i++) {
        must_fail("init", "$K %s --state nowhere", commands[i]);
        must_fail("init", "$K %s --state empty", commands[i]);
        must_fail("hollow", "$K %s --state hollow", commands[i]);
    }
    for (size_t i = 0; i < ARRAY_LEN(device_commands); i++) {
        must_fail("enroll first", "$C %s --state nowhere", device_commands[i]);
        must_fail("enroll first", "$C %s --state empty", device_commands[i]);
        if (i < 3)
            must_fail("hollow", "$C %s --state hollow", device_commands[i]);
    }
    assert_false(file_exists("nowhere"));
}

static linnet_status put_format(linnet_store_txn *txn, void *context, linnet_error *err)
{
    (void)context;
    return linnet_config_put_u64(txn, "format", LINNET_STORE_FORMAT + 1, err);
}

static void a_state_of_a_newer_version_is_left_alone(void **state)
{
    (void)state;
    linnet_error err = {0};
    linnet_store *store = NULL;
    linnet_kv kv;
    const uint8_t number[4] = {99, 0, 0, 0};
    const linnet_kv_item item = {"format", number, sizeof(number)};
    make_task("new-task");
    server s = serve("new-task", 0, "");
    enroll("new-device", "new-task", s.port);
    stop(&s, SIGTERM);
    assert_ok(linnet_store_open("new-task/store", false, true, &store, &err), &err);
    assert_ok(linnet_store_update(store, put_format, NULL, &err), &err);
    linnet_store_close(store);
    assert_ok(linnet_kv_open_lmdb("new-device", false, &kv, &err), &err);
    assert_ok(kv.put(kv.context, &item, 1, &err), &err);
    kv.close(kv.context);
    must_fail("newer", "$K serve --state new-task --listen 127.0.0.1:0");
    must_fail("newer", "$K invite --state new-task");
    must_fail("newer", "$C run --state new-device --model $M --data few.jsonl");
    must_fail("newer", "$C status --state new-device");
}

/* What a disk makes of a store: bytes from `first` on become others, or the file ends at `n_left`. */
static const struct damage {
    const char *name;
    size_t first, n_bytes, n_left;
} damages[] = {
    {"the first meta page", 0, 4096, SIZE_MAX},
    {"the second meta page", 4096, 4096, SIZE_MAX},
    {"both meta pages", 0, 8192, SIZE_MAX},
    {"one number of the first meta page", 140, 8, SIZE_MAX},
    {"one number of the second meta page", 4096 + 140, 8, SIZE_MAX},
    {"the pages behind them", 8192, SIZE_MAX, SIZE_MAX},
    {"a cut in the first page", 0, 0, 100},
    {"a cut behind the first page", 0, 0, 4096},
    {"a cut behind the meta pages", 0, 0, 8192},
    {"a cut in the middle", 0, 0, 5 * 4096 + 100},
};

static void damage_file(const char *name, const linnet_buffer *good, const struct damage *d)
{
    linnet_buffer bad = {0};
    linnet_buffer_append(&bad, good->bytes, d->n_left < good->n_bytes ? d->n_left : good->n_bytes);
    assert_false(bad.failed);
    for (size_t i = d->first; i < bad.n_bytes && i - d->first < d->n_bytes; i++)
        bad.bytes[i] ^= (uint8_t)(0xa5 + i % 7);
    put_file(name, bad.bytes, bad.n_bytes);
    linnet_buffer_release(&bad);
}

static void a_damaged_store_is_said_and_crashes_nothing(void **state)
{
    (void)state;
    make_plain_task("worn-task");
    server s = serve("worn-task", 0, "");
    enroll("worn-device", "worn-task", s.port);
    must_do("$C run --state worn-device --model $M --data few.jsonl --policy plain.policy --once --quiet");
    stop(&s, SIGTERM);
    linnet_buffer store = take_file("worn-task/store/data.mdb"), kv = take_file("worn-device/device.mdb");
    assert_true(store.n_bytes > 6 * 4096 && kv.n_bytes > 6 * 4096);
    for (size_t i = 0; i < ARRAY_LEN(damages); i++) {
        print_message("  %s\n", damages[i].name);
        damage_file("worn-task/store/data.mdb", &store, &damages[i]);
        damage_file("worn-device/device.mdb", &kv, &damages[i]);
        static const char *const commands[] = {"serve --listen 127.0.0.1:0", "status", "invite"};
        for (size_t j = 0; j < ARRAY_LEN(commands); j++) {
            must_fail("worn-task/store/data.mdb' is damaged: it ", "$K %s --state worn-task", commands[j]);
            must_fail("restore the state from a backup", "$K %s --state worn-task", commands[j]);
        }
        static const char *const device_commands[] = {"run --model $M --data few.jsonl", "status"};
        for (size_t j = 0; j < ARRAY_LEN(device_commands); j++) {
            must_fail("worn-device/device.mdb' is damaged: it ", "$C %s --state worn-device",
                      device_commands[j]);
            must_fail("'forget' it and enroll as a new device", "$C %s --state worn-device",
                      device_commands[j]);
        }
    }
    put_file("worn-task/store/data.mdb", store.bytes, store.n_bytes);
    put_file("worn-device/device.mdb", kv.bytes, kv.n_bytes);
    must_do("$K status --state worn-task"); /* nothing was changed by the looking */
    must_do("$C status --state worn-device");
    damage_file("worn-device/device.mdb", &kv, &damages[2]);
    must_do("$C forget --state worn-device --yes"); /* the next step works */
    s = serve("worn-task", 0, "");
    enroll("worn-device", "worn-task", s.port);
    stop(&s, SIGTERM);
    linnet_buffer_release(&store);
    linnet_buffer_release(&kv);
}

/* ---- disks ---- */

static int count_rounds(const char *coordinator, const char *round_state)
{
    char words[48];
    int n = 0;
    (void)snprintf(words, sizeof(words), "\"state\":\"%s\"", round_state);
    const outcome *o = run("$K rounds --state %s --json", coordinator);
    for (const char *at = o->out; (at = strstr(at, words)) != NULL; at++)
        n++;
    return n;
}

/* Does some member of a task say these words within so long? */
static bool member_says(const char *task, const char *words, int64_t patience_ms)
{
    for (int64_t until = now_ms() + patience_ms; now_ms() < until; pause_ms(20))
        if (run("cat %s-device-?.out %s-device-?.err | grep -q '%s'", task, task, words)->status == 0)
            return true;
    return false;
}

static void await_member(const char *task, const char *words)
{
    if (!member_says(task, words, DEADLINE_MS))
        fail_msg("no member of '%s' ever said '%s'", task, words);
}

/* Forget what the members have said so far. */
static void clear_words(const char *task)
{
    must_do("rm -f %s-device-?.out %s-device-?.err", task, task);
}

static void fill_disk_of_coordinator(const fleet_profile *profile)
{
    pid_t members[MEMBERS_MAX];
    char task[32];
    const char *calm = calm_adapter(profile);
    (void)snprintf(task, sizeof(task), "full-%s", profile->name);
    make_disk("disk", "16m");
    make_profile_task("disk/task", profile);
    server s = serve("disk/task", 0, "");
    enroll_members(task, "disk/task", profile, s.port);
    fill("disk/filler");
    start_members(task, profile, "", members);
    await_member(task, "disk is full");
    must_fail("make room", "$K invite --state disk/task");
    must_fail("make room", "$K pause --state disk/task");
    assert_int_equal(number_of("accepted", "$K status --state disk/task --json"),
                     0); /* looking needs no room */
    stop_members(profile, members);
    assert_true(is_running(s.pid));
    assert_int_equal(unlink("disk/filler"), 0);
    finish_rounds(task, "disk/task", profile, 1, 1); /* the same process serves on */
    assert_string_equal(text_of("adapter_hash", "$K status --state disk/task --json"), calm);

    clear_words(task); /* and once more, now between the joining and the end of a round */
    start_members(task, profile, "", members);
    await_count("disk/task", "joined", profile->n_members);
    fill("disk/filler");
    /* On a busy machine the round may be over before the disk is full, and those after it use pages of the
     * store again: then nobody has anything to say. */
    if (!member_says(task, "disk is full", 15000))
        print_message("  %s: the round was faster than the disk\n", task);
    long long version = number_of("version", "$K status --state disk/task --json");
    stop(&s, SIGKILL);
    assert_int_equal(unlink("disk/filler"), 0);
    stop_members(profile, members); /* they would wait for half a minute */
    s = serve("disk/task", s.port, "");
    start_members(task, profile, "", members);
    await_count("disk/task", "version", version + 1);
    stop_members(profile, members);
    assert_true(count_rounds("disk/task", "void") <= 1);
    assert_int_equal(count_rounds("disk/task", "closed"),
                     number_of("version", "$K status --state disk/task --json"));
    assert_int_equal(number_of("flaws", "$K audit --state disk/task --json"), 0);
    stop(&s, SIGTERM);
    drop_disk();
}

static void a_full_disk_of_the_coordinator_delays_and_loses_nothing(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(profiles); i++)
        fill_disk_of_coordinator(&profiles[i]);
}

/* The same without the right to mount: no write of the process gets through. */
static void a_coordinator_that_may_not_write_answers_and_goes_on_later(void **state)
{
    (void)state;
    static const char *const tasks[] = {"limit-task", "plain-limit-task"};
    const struct rlimit none = {.rlim_cur = 0, .rlim_max = RLIM_INFINITY};
    const struct rlimit all = {.rlim_cur = RLIM_INFINITY, .rlim_max = RLIM_INFINITY};
    for (size_t path = 0; path < ARRAY_LEN(profiles); path++) {
        char out[80];
        make_profile_task(tasks[path], &profiles[path]);
        server s = serve(tasks[path], 0, "");
        enroll_members(tasks[path], tasks[path], &profiles[path], s.port);
        if (prlimit(s.pid, RLIMIT_FSIZE, &none, NULL) != 0) {
            print_message("needs the right to limit a child\n");
            skip();
        }
        pid_t device = start_device(member(tasks[path], 0), "");
        (void)snprintf(out, sizeof(out), "%s.out", member(tasks[path], 0));
        await_text(out, "disk is full");
        assert_int_equal(end(device, SIGTERM), 0);
        assert_true(is_running(s.pid));
        assert_int_equal(prlimit(s.pid, RLIMIT_FSIZE, &all, NULL), 0);
        finish_rounds(tasks[path], tasks[path], &profiles[path], 1, 1);
        stop(&s, SIGKILL); /* its log lost lines, which its exit status would say */
    }
}

/* The disk of one member fills between two messages of a masked round: it leaves the round and says why, the
 * round ends, and the next one has everybody. */
static void fill_disk_in_a_round(const char *task, const fleet_profile *profile)
{
    pid_t members[MEMBERS_MAX];
    long long version = number_of("version", "$K status --state %s --json", task);
    clear_words(task);
    start_members(task, profile, "", members);
    await_text("small-secure-device-0.out", "\"phase\":\"sharing\"");
    fill("disk/filler");
    await_text("small-secure-device-0.err", "make room on its disk; trying again in a minute");
    assert_int_equal(end(members[0], SIGTERM), 0);
    assert_int_equal(unlink("disk/filler"), 0);
    members[0] = start_device(member(task, 0), "");
    await_count(task, "version", version + 1);
    stop_members(profile, members);
    assert_true(count_rounds(task, "void") <= 1);
    assert_true(count_rounds(task, "closed") > version);
}

static void fill_disk_of_device(const fleet_profile *profile)
{
    char task[32];
    const char *calm = calm_adapter(profile);
    fleet_profile brief = *profile;
    if (profile == &profiles[0]) {
        must_do("sed -e 's/^phase_deadline.*/phase_deadline = 10s/' tiny.ini >brief.ini");
        brief.plan = "brief.ini";
    }
    (void)snprintf(task, sizeof(task), "small-%s", profile->name);
    make_profile_task(task, &brief);
    server s = serve(task, 0, "");
    make_disk("disk", "4m");
    fill("disk/filler");
    must_fail("", "$C enroll --state disk/one --coordinator http://127.0.0.1:%d --invite %s", s.port,
              invite(task));
    must_do("rm disk/filler");
    enroll("disk/one", task, s.port);
    for (int i = 1; i < profile->n_members; i++)
        enroll(member(task, i), task, s.port);
    fill("disk/filler");
    for (int i = 0; i < 3; i++)
        must_fail("No space left", "$C run --state disk/one --model $M --data few.jsonl --policy "
                                   "plain.policy --once --quiet");
    must_do("$C status --state disk/one --quiet");
    assert_int_equal(symlink("disk/one", member(task, 0)), 0); /* what it says goes elsewhere */
    pid_t device = start_device(member(task, 0), "");          /* without --once it waits for room */
    await_member(task, "make room on its disk; trying again in a minute");
    assert_int_equal(end(device, SIGTERM), 0);
    assert_int_equal(number_of("accepted", "$K status --state %s --json", task), 0);
    assert_int_equal(unlink("disk/filler"), 0);
    finish_rounds(task, task, profile, 1, 1);
    assert_string_equal(text_of("adapter_hash", "$K status --state %s --json", task), calm);
    if (profile == &profiles[0])
        fill_disk_in_a_round(task, profile);
    assert_int_equal(number_of("flaws", "$K audit --state %s --json", task), 0);
    stop(&s, SIGTERM);
    drop_disk();
}

static void a_full_disk_of_a_device_is_said_and_loses_nothing(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(profiles); i++)
        fill_disk_of_device(&profiles[i]);
}

static void a_read_only_disk_is_said(void **state)
{
    (void)state;
    make_disk("disk", "8m");
    must_do("$K init --state disk/task --plan tiny.ini --model $M --quiet");
    server s = serve("disk/task", 0, "");
    enroll("disk/device", "disk/task", s.port);
    stop(&s, SIGTERM);
    assert_int_equal(mount("tmpfs", "disk", "tmpfs", MS_REMOUNT | MS_RDONLY, NULL), 0);
    must_fail("Read-only", "$K serve --state disk/task --listen 127.0.0.1:0");
    must_fail("Read-only", "$K invite --state disk/task");
    must_fail("Read-only", "$K init --state disk/second --plan tiny.ini --model $M");
    must_fail("Read-only", "$C run --state disk/device --model $M --data few.jsonl");
    must_do("$C status --state disk/device"); /* looking is allowed */
    must_fail("Read-only", "$C forget --state disk/device --yes");
    must_fail("Read-only", "$C train --model $M --data few.jsonl --steps 1 --out disk/adapter");
    assert_int_equal(mount("tmpfs", "disk", "tmpfs", MS_REMOUNT, NULL), 0);
    must_do("$C status --state disk/device");
    must_do("$K status --state disk/task");
}

/* ---- ends at any moment ---- */

static void devices_outlive_their_coordinator(void **state)
{
    (void)state;
    static const char *const tasks[] = {"again-task", "plain-again-task"};
    for (size_t path = 0; path < ARRAY_LEN(profiles); path++) {
        pid_t members[MEMBERS_MAX];
        int n = profiles[path].n_members;
        make_profile_task(tasks[path], &profiles[path]);
        server s = serve(tasks[path], 0, "");
        enroll_members(tasks[path], tasks[path], &profiles[path], s.port);
        start_members(tasks[path], &profiles[path], "--rounds 4", members);
        for (long long version = 1; version <= 2; version++) {
            await_count(tasks[path], "version", version);
            stop(&s, SIGKILL);
            s = serve(tasks[path], s.port, ""); /* the same address: devices find it */
        }
        for (int i = 0; i < n; i++)
            assert_int_equal(end(members[i], 0), 0);
        const outcome *o = run("$K rounds --state %s --json", tasks[path]);
        for (const char *at = o->out; (at = strstr(at, "\"state\":\"closed\"")) != NULL; at++)
            assert_int_equal(atoi(strstr(at, "\"accepted\":") + 11), n);
        await_count(tasks[path], "version", 4);
        for (int i = 0; i < n; i++)
            assert_int_equal(number_of("accepted", "$C status --state %s --json", member(tasks[path], i)), 4);
        assert_int_equal(number_of("flaws", "$K audit --state %s --json", tasks[path]), 0);
        stop(&s, SIGTERM);
    }
}

/* Processes die by SIGKILL at random moments; the outcome is that of an undisturbed run in memory. */
static void kills_at_random_moments_change_no_bit(void **state)
{
    (void)state;
    put_text("scenario.ini", "[scenario]\nkills = 5\n");
    must_do("sed -e 's/^goal = 2/goal = 3/' -e 's/^minimum = 1/minimum = 3/' plain.ini >plain-kills.ini");
    static const char *const plans[] = {"tiny.ini", "plain-kills.ini"};
    for (size_t i = 0; i < ARRAY_LEN(plans); i++) {
        char calm[128], options[256];
        (void)snprintf(
            options, sizeof(options),
            "--model $M --data $D --plan %s --devices 3 --rounds 5 --seed 3 --baselines off --json",
            plans[i]);
        must_do(SIM " run %s --out calm-%zu", options, i);
        must_do(SIM " run %s --processes --scenario scenario.ini --out killed-%zu", options, i);
        assert_true(number_of("kills", "tail -n 1 killed-%zu/run.jsonl", i) >= 1);
        static const char *const hashes[] = {"transcript_hash", "adapter_hash"};
        for (size_t j = 0; j < ARRAY_LEN(hashes); j++) {
            (void)snprintf(calm, sizeof(calm), "%s", text_of(hashes[j], "tail -n 1 calm-%zu/run.jsonl", i));
            assert_string_equal(text_of(hashes[j], "tail -n 1 killed-%zu/run.jsonl", i), calm);
        }
    }
}

/* Two rounds with noise, then one member comes back from a backup from before them, ledger and all, as after
 * a reboot: its receipts tell it what it has spent. */
static void a_restored_backup_spends_what_it_had_spent(void **state)
{
    (void)state;
    pid_t members[3];
    char runtime[] = "/dev/shm/linnet-backup-XXXXXX"; /* of its own, so that it can be lost */
    const char *before = getenv("XDG_RUNTIME_DIR");
    char *kept = before ? strdup(before) : NULL;
    bool has_runtime = mkdtemp(runtime) && setenv("XDG_RUNTIME_DIR", runtime, 1) == 0;
    put_text("noised.ini",
             "[task]\nrounds = 9\n[adapter]\nrank = 2\nalpha = 2\n[training]\nlocal_steps = 1\n"
             "batch_records = 1\ncontext_tokens = 16\nheld_out = 0\n[cohort]\ngoal = 3\nminimum = 3\n"
             "over_selection = 1\ndeadline = 10m\npoll = 1s\n[secure]\nprofile = secure+dp\n"
             "phase_deadline = 20s\n[privacy]\nmechanism = distributed\nnoise_multiplier = 0.7\nclip = 0.1\n"
             "[encoding]\nring_bits = 32\nweight_unit_tokens = 0\n[aggregation]\nrule = ffa\n");
    must_do("$K init --state noised --plan noised.ini --model $M --quiet");
    server s = serve("noised", 0, "");
    for (int i = 0; i < 3; i++)
        enroll(member("noised", i), "noised", s.port);
    must_do("cp -r noised-device-0 noised-backup");
    for (int rounds = 2; rounds >= 1; rounds--) { /* two, then one more */
        for (int i = 0; i < 3; i++)
            members[i] = start_device(member("noised", i), rounds == 2 ? "--rounds 2" : "--rounds 1");
        for (int i = 0; i < 3; i++)
            assert_int_equal(end(members[i], 0), 0);
        if (rounds == 1)
            break;
        must_do("rm -r noised-device-0 && mv noised-backup noised-device-0");
        if (has_runtime)
            must_do("rm -f %s/linnet-*.key", runtime);
    }
    double dp_epsilon[3];
    for (int i = 0; i < 3; i++) {
        json_t *status = result_of("$C status --state %s --json", member("noised", i));
        dp_epsilon[i] = json_number_value(json_object_get(status, "dp_epsilon"));
        assert_int_equal(json_integer_value(json_object_get(status, "accepted")), 3);
        json_decref(status);
    }
    assert_true(dp_epsilon[0] > 0);
    assert_memory_equal(&dp_epsilon[0], &dp_epsilon[1], sizeof(double)); /* to the last bit */
    assert_memory_equal(&dp_epsilon[0], &dp_epsilon[2], sizeof(double));
    stop(&s, SIGTERM);
    must_do("$K audit --state noised --export noised.log --quiet"); /* and an auditor takes what came back */
    must_do("$C status --state noised-device-0 --receipts noised.receipts --quiet");
    json_t *verified = result_of("$K verify noised.log --receipts noised.receipts --json");
    assert_int_equal(json_integer_value(json_object_get(verified, "flaws")), 0);
    assert_int_equal(json_integer_value(json_object_get(verified, "included")), 3);
    json_decref(verified);
    for (int i = 0; i < 3; i++) { /* rounds are left: each has a key, which goes with the state */
        if (has_runtime)
            must_do("test $(ls %s | wc -l) = %d", runtime, 3 - i);
        must_do("$C forget --state %s --yes", member("noised", i));
    }
    if (has_runtime)
        must_do("rmdir %s", runtime);
    assert_int_equal(kept ? setenv("XDG_RUNTIME_DIR", kept, 1) : unsetenv("XDG_RUNTIME_DIR"), 0);
    free(kept);
}

static void a_simulator_that_ends_leaves_no_process_behind(void **state)
{
    (void)state;
    static const int signals[] = {SIGTERM, SIGKILL};
    for (size_t i = 0; i < ARRAY_LEN(signals); i++) {
        char folder[32];
        (void)snprintf(folder, sizeof(folder), "left-%zu", i);
        pid_t sim =
            start(folder,
                  SIM " run --model $M --data $D --plan tiny.ini --devices 3 --rounds 1000 --baselines off "
                      "--processes --json --out %s",
                  folder);
        char log[64];
        (void)snprintf(log, sizeof(log), "%s/run.jsonl", folder);
        await_text(log, "\"round\"");
        (void)end(sim, signals[i]);
        for (int64_t until = now_ms() + DEADLINE_MS;;
             pause_ms(20)) { /* their locks are free when they are gone */
            const outcome *o =
                run("flock -n %s/coordinator/serve.lock true && flock -n %s/devices/0/lock true && "
                    "flock -n %s/devices/1/lock true",
                    folder, folder, folder);
            if (o->status == 0)
                break;
            assert_true(now_ms() < until);
        }
    }
}

/* A signal at any moment of a training, then --resume: the adapter of an undisturbed run, byte for byte. */
static void an_interrupted_training_goes_on_to_the_same_bits(void **state)
{
    (void)state;
    static const char train[] =
        "$C train --model $M --data $D --steps 40 --batch 4 --context 64 --rank 2 --seed 5 "
        "--threads 1 --json";
    must_do("%s --out straight", train);
    pid_t pid = start("broken", "%s --out broken", train);
    await_text("broken.out", "\"step\"");
    int status = end(pid, SIGINT);
    if (status != 0) { /* 0: it was done before the signal came */
        assert_int_equal(status, 1);
        linnet_buffer err = take_file("broken.err");
        assert_non_null(strstr((const char *)err.bytes, "--resume goes on"));
        linnet_buffer_release(&err);
        for (int i = 0; i < 3; i++) { /* and again, in the middle of going on */
            pid = start("broken", "%s --out broken --resume", train);
            pause_ms(20L * i);
            (void)end(pid, i == 1 ? SIGKILL : SIGINT);
        }
        must_do("%s --out broken --resume", train);
    }
    must_do("cmp straight/adapter_model.safetensors broken/adapter_model.safetensors");
    must_do("cmp straight/adapter.gguf broken/adapter.gguf");
}

static void an_interrupted_setup_is_told_apart_from_a_state(void **state)
{
    (void)state;
    for (int i = 0; i < 12; i++) { /* whatever is left, it is a state, or init says what to do */
        pid_t pid = start("torn", "$K init --state torn --plan tiny.ini --model $M --quiet");
        pause_ms(2L * i);
        if (end(pid, SIGKILL) == 0) {
            must_do("$K status --state torn");
        } else if (file_exists("torn")) {
            const outcome *o = run("$K serve --state torn --listen 127.0.0.1:notaport");
            assert_int_equal(o->status, 1);
            assert_int_equal(o->n_lines, 1);
        }
        must_do("rm -rf torn");
    }
    make_plain_task("torn");
    server s = serve("torn", 0, "");
    char code[1024];
    (void)snprintf(code, sizeof(code), "%s", invite("torn"));
    for (int i = 0; i < 8; i++) {
        pid_t pid = start("torn-device",
                          "$C enroll --state torn-device --coordinator http://127.0.0.1:%d --invite %s",
                          s.port, code);
        pause_ms(i);
        (void)end(pid, SIGKILL);
    }
    const outcome *o =
        run("$C enroll --state torn-device --coordinator http://127.0.0.1:%d --invite %s", s.port, code);
    assert_true(o->status == 0 || strstr(o->err, "enrolled already") != NULL);
    assert_int_equal(number_of("devices", "$K status --state torn --json"), 1);
    must_do("$C run --state torn-device --model $M --data few.jsonl --policy plain.policy --once "
            "--quiet");
    assert_int_equal(number_of("accepted", "$K status --state torn --json"), 1);
    stop(&s, SIGTERM);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(a_port_in_use_is_said, acceptance_clean),
        cmocka_unit_test_teardown(a_state_in_use_is_not_used_twice, acceptance_clean),
        cmocka_unit_test_teardown(a_state_that_is_none_names_the_next_step, acceptance_clean),
        cmocka_unit_test_teardown(a_state_of_a_newer_version_is_left_alone, acceptance_clean),
        cmocka_unit_test_teardown(a_damaged_store_is_said_and_crashes_nothing, acceptance_clean),
        cmocka_unit_test_teardown(a_full_disk_of_the_coordinator_delays_and_loses_nothing, clean_disk),
        cmocka_unit_test_teardown(a_coordinator_that_may_not_write_answers_and_goes_on_later,
                                  acceptance_clean),
        cmocka_unit_test_teardown(a_full_disk_of_a_device_is_said_and_loses_nothing, clean_disk),
        cmocka_unit_test_teardown(a_read_only_disk_is_said, clean_disk),
        cmocka_unit_test_teardown(devices_outlive_their_coordinator, acceptance_clean),
        cmocka_unit_test_teardown(kills_at_random_moments_change_no_bit, acceptance_clean),
        cmocka_unit_test_teardown(a_restored_backup_spends_what_it_had_spent, acceptance_clean),
        cmocka_unit_test_teardown(a_simulator_that_ends_leaves_no_process_behind, acceptance_clean),
        cmocka_unit_test_teardown(an_interrupted_training_goes_on_to_the_same_bits, acceptance_clean),
        cmocka_unit_test_teardown(an_interrupted_setup_is_told_apart_from_a_state, acceptance_clean),
    };
    cmocka_set_test_filter(getenv("LINNET_TEST"));
    return cmocka_run_group_tests(tests, set_up, acceptance_tear_down);
}
