/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of the round key: where it lies, what survives what, and what is no key of ours. */
#include "linnet/file.h"
#include "linnet/round_vault.h"
#include "testing.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct place {
    char root[64], state[80], other_state[80], run[80], boot[80], machine[80];
    const char *directories[2];
    linnet_vault_sources sources;
    linnet_device_id id;
} place;

static bool always(const char *directory)
{
    (void)directory;
    return true;
}

static bool never(const char *directory)
{
    (void)directory;
    return false;
}

static void write_text(const char *path, const char *text)
{
    linnet_error err = {0};
    assert_ok(linnet_file_write(path, text, strlen(text), 0600, &err), &err);
}

static place *place_make(void)
{
    place *p = calloc(1, sizeof(*p));
    assert_non_null(p);
    (void)snprintf(p->root, sizeof(p->root), "/tmp/linnet-vault-XXXXXX");
    assert_non_null(mkdtemp(p->root));
    (void)snprintf(p->state, sizeof(p->state), "%s/state", p->root);
    (void)snprintf(p->other_state, sizeof(p->other_state), "%s/copy", p->root);
    (void)snprintf(p->run, sizeof(p->run), "%s/run", p->root);
    (void)snprintf(p->boot, sizeof(p->boot), "%s/boot_id", p->root);
    (void)snprintf(p->machine, sizeof(p->machine), "%s/machine-id", p->root);
    assert_int_equal(mkdir(p->state, 0700), 0);
    assert_int_equal(mkdir(p->other_state, 0700), 0);
    assert_int_equal(mkdir(p->run, 0700), 0);
    write_text(p->boot, "first boot");
    write_text(p->machine, "this machine");
    p->directories[0] = p->run;
    p->sources = (linnet_vault_sources){.directories = p->directories,
                                        .is_volatile = always,
                                        .boot_id_path = p->boot,
                                        .machine_id_path = p->machine};
    memcpy(p->id.bytes, "a device of ours", sizeof(p->id.bytes));
    return p;
}

static void place_free(place *p)
{
    char command[100];
    (void)snprintf(command, sizeof(command), "rm -r '%s'", p->root); /* made by mkdtemp above */
    assert_int_equal(system(command), 0);
    free(p);
}

static linnet_round_vault *vault_open(const place *p, bool on_disk)
{
    linnet_round_vault *vault = NULL;
    linnet_error err = {0};
    assert_ok(linnet_round_vault_open(p->state, &p->id, on_disk, &p->sources, &vault, &err), &err);
    return vault;
}

/* The one file of a directory, into path; "" where there is none. */
static void find_key(const char *directory, char path[256])
{
    char command[160];
    path[0] = '\0';
    (void)snprintf(command, sizeof(command), "ls -d %s/*.key 2>/dev/null", directory);
    FILE *out = popen(command, "r");
    assert_non_null(out);
    if (fgets(path, 256, out))
        path[strcspn(path, "\n")] = '\0';
    (void)pclose(out);
}

static void seal_one(linnet_round_vault *vault, linnet_buffer *ret_sealed)
{
    linnet_error err = {0};
    assert_ok(linnet_round_vault_seal(vault, "name", 5, "secret", 6, ret_sealed, &err), &err);
    assert_ok(linnet_round_vault_advance(vault, 5, &err), &err);
}

static linnet_status unseal_one(const linnet_round_vault *vault, const char *name,
                                const linnet_buffer *sealed)
{
    linnet_buffer plain = {0};
    linnet_status status =
        linnet_round_vault_unseal(vault, name, sealed->bytes, sealed->n_bytes, &plain, NULL);
    if (status == LINNET_OK)
        assert_true(plain.n_bytes == 6 && memcmp(plain.bytes, "secret", 6) == 0);
    linnet_buffer_release(&plain);
    return status;
}

static void the_key_survives_a_kill(void **state)
{
    (void)state;
    for (int on_disk = 0; on_disk < 2; on_disk++) {
        place *p = place_make();
        struct stat info;
        char path[256];
        linnet_buffer sealed = {0};
        linnet_round_vault *vault = vault_open(p, on_disk);
        assert_int_equal(linnet_round_vault_place(vault),
                         on_disk ? LINNET_VAULT_DISK : LINNET_VAULT_VOLATILE);
        assert_true(linnet_round_vault_is_new(vault));
        find_key(on_disk ? p->state : p->run, path);
        assert_string_equal(path, ""); /* made with the first value */
        seal_one(vault, &sealed);
        linnet_round_vault_close(vault);
        find_key(on_disk ? p->state : p->run, path);
        assert_int_equal(stat(path, &info), 0);
        assert_int_equal(info.st_mode & 07777, 0600);
        vault = vault_open(p, on_disk);
        assert_false(linnet_round_vault_is_new(vault));
        assert_int_equal(linnet_round_vault_generation(vault), 5);
        assert_int_equal(unseal_one(vault, "name", &sealed), LINNET_OK);
        assert_int_equal(unseal_one(vault, "other", &sealed), LINNET_ERR_CRYPTO);
        sealed.bytes[0] ^= 1; /* another generation */
        assert_int_equal(unseal_one(vault, "name", &sealed), LINNET_ERR_CRYPTO);
        linnet_round_vault_close(vault);
        linnet_buffer_release(&sealed);
        place_free(p);
    }
}

/* What makes the file of a live process no key for the next one. */
typedef enum loss {
    LOSS_POWER,    /* the volatile file is gone */
    LOSS_BOOT,     /* it lies there, but of another boot */
    LOSS_MACHINE,  /* copied here from another machine */
    LOSS_DEVICE,   /* of another device */
    LOSS_PATH,     /* of another state directory */
    LOSS_READABLE, /* others may read it */
    LOSS_LINK,     /* a link in its place */
    LOSS_CUT,
    LOSS_MAGIC,
    LOSSES
} loss;

static void lose(place *p, loss kind, const char *path)
{
    char moved[300];
    uint8_t zero[4] = {0};
    int fd = -1;
    switch (kind) {
    case LOSS_POWER:
        assert_int_equal(unlink(path), 0);
        break;
    case LOSS_BOOT:
        write_text(p->boot, "second boot");
        break;
    case LOSS_MACHINE:
        write_text(p->machine, "that machine");
        break;
    case LOSS_DEVICE:
        p->id.bytes[0] ^= 1;
        break;
    case LOSS_PATH:
        memcpy(p->state, p->other_state, sizeof(p->state));
        break;
    case LOSS_READABLE:
        assert_int_equal(chmod(path, 0644), 0);
        break;
    case LOSS_LINK:
        (void)snprintf(moved, sizeof(moved), "%s.moved", path);
        assert_int_equal(rename(path, moved), 0);
        assert_int_equal(symlink(moved, path), 0);
        break;
    case LOSS_CUT:
        assert_int_equal(truncate(path, 100), 0);
        break;
    case LOSS_MAGIC:
        fd = open(path, O_WRONLY);
        assert_int_equal(pwrite(fd, zero, sizeof(zero), 0), sizeof(zero));
        assert_int_equal(close(fd), 0);
        break;
    case LOSSES:
        break;
    }
}

static void the_key_dies_with_power_machine_and_place(void **state)
{
    (void)state;
    for (int kind = 0; kind < LOSSES; kind++) {
        place *p = place_make();
        char path[256];
        linnet_buffer sealed = {0}, again = {0};
        linnet_round_vault *vault = vault_open(p, false);
        seal_one(vault, &sealed);
        linnet_round_vault_close(vault);
        find_key(p->run, path);
        lose(p, (loss)kind, path);
        vault = vault_open(p, false);
        assert_true(linnet_round_vault_is_new(vault));
        assert_int_equal(linnet_round_vault_generation(vault), 0);
        assert_int_equal(unseal_one(vault, "name", &sealed), LINNET_ERR_CRYPTO);
        seal_one(vault, &again); /* and it goes on with a key of its own */
        assert_int_equal(unseal_one(vault, "name", &again), LINNET_OK);
        linnet_round_vault_close(vault);
        linnet_buffer_release(&sealed);
        linnet_buffer_release(&again);
        place_free(p);
    }
}

static void a_key_on_disk_outlives_a_boot_and_no_machine(void **state)
{
    (void)state;
    place *p = place_make();
    linnet_buffer sealed = {0};
    linnet_round_vault *vault = vault_open(p, true);
    seal_one(vault, &sealed);
    linnet_round_vault_close(vault);
    write_text(p->boot, "second boot");
    vault = vault_open(p, true);
    assert_int_equal(unseal_one(vault, "name", &sealed), LINNET_OK);
    linnet_round_vault_close(vault);
    write_text(p->machine, "that machine");
    vault = vault_open(p, true);
    assert_int_equal(unseal_one(vault, "name", &sealed), LINNET_ERR_CRYPTO);
    linnet_round_vault_close(vault);
    linnet_buffer_release(&sealed);
    place_free(p);
}

static void without_a_volatile_file_system_the_key_stays_in_memory(void **state)
{
    (void)state;
    place *p = place_make();
    char path[256];
    linnet_buffer sealed = {0};
    p->sources.is_volatile = never;
    linnet_round_vault *vault = vault_open(p, false);
    assert_int_equal(linnet_round_vault_place(vault), LINNET_VAULT_MEMORY);
    seal_one(vault, &sealed);
    assert_int_equal(unseal_one(vault, "name", &sealed), LINNET_OK);
    linnet_round_vault_close(vault);
    find_key(p->run, path);
    assert_string_equal(path, "");
    find_key(p->state, path);
    assert_string_equal(path, "");
    vault = vault_open(p, false);
    assert_int_equal(unseal_one(vault, "name", &sealed), LINNET_ERR_CRYPTO);
    linnet_round_vault_close(vault);
    p->sources.is_volatile = always;
    p->sources.boot_id_path = "/nowhere/boot_id"; /* a file could be of any boot then */
    vault = vault_open(p, false);
    assert_int_equal(linnet_round_vault_place(vault), LINNET_VAULT_MEMORY);
    linnet_round_vault_close(vault);
    linnet_buffer_release(&sealed);
    place_free(p);
}

static void a_second_process_is_noticed(void **state)
{
    (void)state;
    place *p = place_make();
    linnet_error err = {0};
    linnet_buffer sealed = {0};
    linnet_round_vault *first = vault_open(p, false);
    seal_one(first, &sealed);
    linnet_round_vault *second = vault_open(p, false);
    assert_ok(linnet_round_vault_advance(second, 6, &err), &err);
    assert_int_equal(linnet_round_vault_advance(first, 6, &err), LINNET_ERR_CONFLICT);
    linnet_round_vault_close(first);
    linnet_round_vault_close(second);
    linnet_buffer_release(&sealed);
    place_free(p);
}

/* A log-out takes the runtime directory away under a running process. */
static void a_file_that_is_taken_away_is_given_up_for_memory(void **state)
{
    (void)state;
    place *p = place_make();
    char path[256];
    linnet_error err = {0};
    linnet_buffer sealed = {0};
    linnet_round_vault *vault = vault_open(p, false);
    seal_one(vault, &sealed);
    find_key(p->run, path);
    assert_int_equal(unlink(path), 0);
    assert_ok(linnet_round_vault_advance(vault, 6, &err), &err);
    assert_int_equal(linnet_round_vault_place(vault), LINNET_VAULT_MEMORY);
    assert_int_equal(unseal_one(vault, "name", &sealed), LINNET_OK);
    linnet_round_vault_close(vault);
    linnet_buffer_release(&sealed);
    place_free(p);
}

static void renewal_leaves_nothing_that_opens_what_was_sealed(void **state)
{
    (void)state;
    for (int restarts = 0; restarts < 2; restarts++) {
        place *p = place_make();
        linnet_buffer sealed = {0};
        linnet_round_vault *vault = vault_open(p, false);
        seal_one(vault, &sealed);
        linnet_round_vault_renew(vault);
        if (restarts) {
            linnet_round_vault_close(vault);
            vault = vault_open(p, false);
            assert_false(linnet_round_vault_is_new(vault));
            assert_int_equal(linnet_round_vault_generation(vault), 5);
        }
        assert_int_equal(unseal_one(vault, "name", &sealed), LINNET_ERR_CRYPTO);
        linnet_round_vault_close(vault);
        linnet_buffer_release(&sealed);
        place_free(p);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_key_survives_a_kill),
        cmocka_unit_test(the_key_dies_with_power_machine_and_place),
        cmocka_unit_test(a_key_on_disk_outlives_a_boot_and_no_machine),
        cmocka_unit_test(without_a_volatile_file_system_the_key_stays_in_memory),
        cmocka_unit_test(a_second_process_is_noticed),
        cmocka_unit_test(a_file_that_is_taken_away_is_given_up_for_memory),
        cmocka_unit_test(renewal_leaves_nothing_that_opens_what_was_sealed),
    };
    if (linnet_crypto_init(NULL) != LINNET_OK)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
