/* SPDX-License-Identifier: Apache-2.0 */
/* SIGKILL inside the writes of a device's real store: the process dies in every single write and sync that
 * LMDB makes, in the middle of it, and another one opens what is left. First the store alone: a commit is
 * there or it is not, and one that was told is there. Then a masked round of a device whose every commit is
 * made by a process that may die: nothing that left the device is ever said in other words. */
#include "client/secure_world.h"
#include "faults.h"

#include <sys/mman.h>
#include <sys/wait.h>

static char directory[64];

static int make_directory(void **state)
{
    (void)state;
    (void)snprintf(directory, sizeof(directory), "/tmp/linnet-kills-XXXXXX");
    return mkdtemp(directory) ? 0 : -1;
}

static int remove_directory(void **state)
{
    (void)state;
    char command[96];
    (void)snprintf(command, sizeof(command), "rm -r '%s'", directory); /* made by mkdtemp above */
    return system(command);
}

/* ---- the store ---- */

enum { VALUES = 24, COMMITS = 10, LONGEST = 20000 };

/* What commit n leaves under a name: nothing, or so many bytes. */
static size_t value_bytes(uint64_t n, size_t i)
{
    static const size_t sizes[] = {8, 100, 1900, 5000, LONGEST};
    return n == 0 || (n + i) % 5 == 0 ? 0 : sizes[(n * 7 + i * 3) % ARRAY_LEN(sizes)];
}

static void fill_value(uint64_t n, size_t i, uint8_t bytes[LONGEST])
{
    memset(bytes, (int)(n * 31 + i), LONGEST);
    linnet_store_le64(bytes, n);
}

static linnet_status put_state(linnet_kv *kv, uint64_t n, linnet_error *err)
{
    static uint8_t bytes[VALUES][LONGEST];
    static char names[VALUES][12];
    uint8_t number[8];
    linnet_kv_item items[VALUES + 1];
    for (size_t i = 0; i < VALUES; i++) {
        fill_value(n, i, bytes[i]);
        (void)snprintf(names[i], sizeof(names[i]), "value-%zu", i);
        size_t n_bytes = value_bytes(n, i);
        items[i] = (linnet_kv_item){names[i], n_bytes > 0 ? bytes[i] : NULL, n_bytes};
    }
    linnet_store_le64(number, n);
    items[VALUES] = (linnet_kv_item){"number", number, sizeof(number)};
    return kv->put(kv->context, items, VALUES + 1, err);
}

static uint64_t get_number(linnet_kv *kv)
{
    linnet_buffer bytes = {0};
    linnet_status status = kv->get(kv->context, "number", &bytes, NULL);
    uint64_t number = status == LINNET_OK && bytes.n_bytes == 8 ? linnet_load_le64(bytes.bytes) : 0;
    linnet_buffer_release(&bytes);
    return number;
}

/* Every value is that of commit n, whole, and what it deleted is gone. */
static void check_state(linnet_kv *kv, uint64_t n)
{
    static uint8_t wanted[LONGEST];
    for (size_t i = 0; i < VALUES; i++) {
        char name[12];
        linnet_buffer bytes = {0};
        linnet_error err = {0};
        (void)snprintf(name, sizeof(name), "value-%zu", i);
        linnet_status status = kv->get(kv->context, name, &bytes, &err);
        assert_int_equal(status, value_bytes(n, i) > 0 ? LINNET_OK : LINNET_ERR_NOT_FOUND);
        assert_int_equal(bytes.n_bytes, value_bytes(n, i));
        fill_value(n, i, wanted);
        if (bytes.n_bytes > 0)
            assert_memory_equal(bytes.bytes, wanted, bytes.n_bytes);
        linnet_buffer_release(&bytes);
    }
}

static void commit_and_tell(int told, long kill_at)
{
    linnet_kv kv = {0};
    faults.kill_at = kill_at;
    faults.is_armed = true;
    if (linnet_kv_open_lmdb(directory, true, &kv, NULL) != LINNET_OK)
        _exit(1);
    for (uint64_t n = 1; n <= COMMITS; n++)
        if (put_state(&kv, n, NULL) != LINNET_OK || syscall(SYS_write, told, &n, sizeof(n)) != sizeof(n))
            _exit(2);
    _exit(0);
}

/* False: the child came to its end before its kill_at-th call. */
static bool kill_and_look(long kill_at)
{
    int told[2], status = 0;
    linnet_kv kv = {0};
    linnet_error err = {0};
    assert_int_equal(make_directory(NULL), 0);
    assert_int_equal(pipe(told), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0)
        commit_and_tell(told[1], kill_at);
    (void)close(told[1]);
    uint64_t last = 0, n = 0;
    while (read(told[0], &n, sizeof(n)) == sizeof(n))
        last = n;
    (void)close(told[0]);
    assert_int_equal(waitpid(child, &status, 0), child);
    bool was_killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
    assert_true(was_killed || (WIFEXITED(status) && WEXITSTATUS(status) == 0 && last == COMMITS));
    linnet_status status_after = linnet_kv_open_lmdb(directory, true, &kv, &err);
    if (status_after != LINNET_OK)
        fail_msg("killed at call %ld: %s", kill_at, err.message);
    n = get_number(&kv);
    if (n != last && n != last + 1)
        fail_msg("killed at call %ld: commit %u was told, %u is there", kill_at, (unsigned)last, (unsigned)n);
    check_state(&kv, n);
    for (uint64_t next = n + 1; next <= n + 3; next++) { /* and it goes on */
        assert_ok(put_state(&kv, next, &err), &err);
        check_state(&kv, next);
    }
    kv.close(kv.context);
    assert_int_equal(remove_directory(NULL), 0);
    return was_killed;
}

static void a_kill_inside_any_write_of_the_store_leaves_whole_commits(void **state)
{
    (void)state;
    long n = 1;
    while (kill_and_look(n))
        n++;
    assert_true(n > 4 * COMMITS);
    print_message("killed at each of %ld calls\n", n - 1);
}

/* ---- a masked round ---- */

/* The store of a device, opened anew for whatever is asked of it. Its commits are made by children. */
typedef struct mortal_store {
    long *n_calls; /* shared with the children: writes and syncs so far */
    long kill_at;
    bool is_dead; /* the process died in a commit */
} mortal_store;

static linnet_status mortal_get(void *context, const char *name, linnet_buffer *ret_bytes, linnet_error *err)
{
    linnet_kv kv = {0};
    (void)context;
    linnet_status status = linnet_kv_open_lmdb_reader(directory, &kv, err);
    if (status != LINNET_OK)
        return status == LINNET_ERR_NOT_FOUND ? linnet_fail(err, status, "no value yet") : status;
    status = kv.get(kv.context, name, ret_bytes, err);
    kv.close(kv.context);
    return status;
}

static void commit_in_child(const mortal_store *s, const linnet_kv_item *items, size_t n_items)
{
    linnet_kv kv = {0};
    faults.n_calls = *s->n_calls;
    faults.kill_at = s->is_dead ? 0 : s->kill_at; /* once */
    faults.is_armed = true;
    bool is_done = linnet_kv_open_lmdb(directory, true, &kv, NULL) == LINNET_OK &&
                   kv.put(kv.context, items, n_items, NULL) == LINNET_OK;
    *s->n_calls = faults.n_calls;
    _exit(is_done ? 0 : 1);
}

static linnet_status mortal_put(void *context, const linnet_kv_item *items, size_t n_items, linnet_error *err)
{
    mortal_store *s = context;
    int status = 0;
    pid_t child = fork(); /* no environment is open here */
    assert_true(child >= 0);
    if (child == 0)
        commit_in_child(s, items, n_items);
    assert_int_equal(waitpid(child, &status, 0), child);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return LINNET_OK;
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    s->is_dead = true;
    return linnet_fail(err, LINNET_ERR_IO, "the process is dead");
}

/* The agent moves from its store in memory to a real one. */
static void move_in(agent *a, linnet_kv *kv)
{
    linnet_kv_item items[STORE_VALUES];
    linnet_kv real = {0};
    linnet_error err = {0};
    for (size_t i = 0; i < a->store.now.n_values; i++) {
        const store_value *value = &a->store.now.values[i];
        items[i] = (linnet_kv_item){value->name, value->bytes.bytes, value->bytes.n_bytes};
    }
    assert_ok(linnet_kv_open_lmdb(directory, true, &real, &err), &err);
    assert_ok(real.put(real.context, items, a->store.now.n_values, &err), &err);
    real.close(real.context);
    agent_kill(a);
    a->config.kv = kv;
    agent_start(a);
}

/* One whole round; the device dies at the kill_at-th call and is started again. False: it never died. */
static bool die_and_go_on(long kill_at, long *n_calls)
{
    mortal_store mortal = {.n_calls = n_calls, .kill_at = kill_at};
    linnet_kv kv = {.context = &mortal, .get = mortal_get, .put = mortal_put};
    assert_int_equal(make_directory(NULL), 0);
    secure_world *sw = secure_create(SECURE_PLAN, 1);
    agent *a = &sw->agents[0];
    agent_until(a, "ready");
    *n_calls = 0;
    move_in(a, &kv);
    for (int round = 0; round < 3 && !sw->is_opened; round++) {
        for (int i = 0; i < 60 && !sw->is_opened; i++) {
            linnet_error err = {0};
            if (agent_try(a, &err) == LINNET_OK)
                continue;
            assert_true(mortal.is_dead);
            agent_kill(a);
            agent_start(a);
        }
        if (!sw->is_opened) /* secrets that were never committed died with it: this round goes without it */
            secure_announce(sw);
    }
    if (!sw->is_opened)
        fail_msg("killed at call %ld: the device takes part no more", kill_at);
    assert_int_equal(secure_participants(sw), 1);
    assert_true(a->n_echoes >= 1 && a->n_echoes <= 2);
    secure_destroy(sw);
    assert_int_equal(remove_directory(NULL), 0);
    return mortal.is_dead;
}

static void a_kill_inside_any_commit_of_a_round_breaks_no_promise(void **state)
{
    (void)state;
    long *n_calls = mmap(NULL, sizeof(*n_calls), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(n_calls != MAP_FAILED);
    long n = 1;
    while (die_and_go_on(n, n_calls))
        n++;
    assert_true(n > 15);
    print_message("killed at each of %ld calls\n", n - 1);
    (void)munmap(n_calls, sizeof(*n_calls));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_kill_inside_any_write_of_the_store_leaves_whole_commits),
        cmocka_unit_test(a_kill_inside_any_commit_of_a_round_breaks_no_promise),
    };
    if (linnet_crypto_init(NULL) != LINNET_OK)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
