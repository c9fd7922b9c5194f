/* SPDX-License-Identifier: Apache-2.0 */

/* The round key and its file of fixed width: magic, generation, key, hash of the boot id, hash of the machine
 * id (SECURE-AGGREGATION 7). It is rewritten in place, since the only crash that a volatile file survives is
 * that of the process, and a write of some bytes is whole or absent then. A file of another boot or machine,
 * of another owner, or readable by others is no key: it is removed, and everything that it sealed is lost. A
 * live snapshot of a machine that restores memory too cannot be told from the machine. */

#include "linnet/round_vault.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "linnet/file.h"
#include "linnet/seal.h"

#define MAGIC 0x31564e4c /* "LNV1" */
#define AT_GENERATION 4
#define AT_KEY 12
#define AT_BOOT 44
#define AT_MACHINE 76
#define FILE_BYTES 108
#define TMPFS_TYPE 0x01021994
#define RAMFS_TYPE 0x858458f6
#define ID_BYTES_MAX 256
#define SEALED_NAME_MAX 64

struct linnet_round_vault {
    linnet_vault_place place;
    char *path; /* NULL in memory */
    bool has_file, is_new;
    uint64_t generation;
    uint8_t key[LINNET_SEAL_KEY_BYTES];
    linnet_hash boot, machine;
};

/* ---- what the system says ---- */

static bool is_volatile(const char *directory)
{
    struct statfs info;
    return statfs(directory, &info) == 0 &&
           ((uint32_t)info.f_type == TMPFS_TYPE || (uint32_t)info.f_type == RAMFS_TYPE);
}

/* H of a one-line id; zero and false where there is none. */
static bool hash_id(const char *path, linnet_hash *ret_hash)
{
    linnet_buffer text = {0};
    bool is_there = linnet_file_read(path, ID_BYTES_MAX, &text, NULL) == LINNET_OK && text.n_bytes > 0;
    *ret_hash =
        is_there ? linnet_hash_of(LINNET_LABEL_ROUND_KEY, text.bytes, text.n_bytes) : (linnet_hash){{0}};
    linnet_buffer_release(&text);
    return is_there;
}

/* Sources in which everything is said. */
static linnet_vault_sources complete(const linnet_vault_sources *sources)
{
    linnet_vault_sources s = sources ? *sources : (linnet_vault_sources){0};
    s.is_volatile = s.is_volatile ? s.is_volatile : is_volatile;
    s.boot_id_path = s.boot_id_path ? s.boot_id_path : "/proc/sys/kernel/random/boot_id";
    s.machine_id_path = s.machine_id_path ? s.machine_id_path : "/etc/machine-id";
    return s;
}

/* ---- the path ---- */

/* One name for one state directory and device, whatever path leads there. */
static char *file_name(const char *state_directory, const linnet_device_id *device)
{
    char hex[33], *name = NULL, *real = realpath(state_directory, NULL);
    linnet_buffer bytes = {0};
    linnet_buffer_append(&bytes, device->bytes, sizeof(device->bytes));
    linnet_buffer_append_text(&bytes, real ? real : state_directory);
    if (!bytes.failed) {
        linnet_hash hash = linnet_hash_of(LINNET_LABEL_ROUND_KEY, bytes.bytes, bytes.n_bytes);
        linnet_buffer_clear(&bytes);
        linnet_hex_write(hash.bytes, 16, hex);
        linnet_buffer_append_format(&bytes, "linnet-%s.key", hex);
        name = bytes.failed ? NULL : strdup((const char *)bytes.bytes);
    }
    free(real);
    linnet_buffer_release(&bytes);
    return name;
}

static char *path_in(const char *directory, const char *name, const linnet_vault_sources *s)
{
    return s->is_volatile(directory) && access(directory, W_OK | X_OK) == 0
               ? linnet_path_join(directory, name)
               : NULL;
}

/* The first directory that is volatile and may be written; NULL: none. */
static char *volatile_path(const char *name, const linnet_vault_sources *s)
{
    char user[40];
    const char *runtime = getenv("XDG_RUNTIME_DIR");
    (void)snprintf(user, sizeof(user), "/run/user/%lu", (unsigned long)geteuid());
    const char *const usual[] = {runtime && runtime[0] == '/' ? runtime : user, user, "/run", "/dev/shm",
                                 NULL};
    char *path = NULL;
    for (const char *const *d = s->directories ? s->directories : usual; *d && !path; d++)
        path = path_in(*d, name, s);
    return path;
}

/* ---- the file ---- */

static void give_up_file(linnet_round_vault *vault)
{
    if (vault->has_file)
        (void)unlink(vault->path); /* what cannot be removed is refused for its generation or boot */
    vault->has_file = false;
    vault->place = LINNET_VAULT_MEMORY;
}

/* Only a plain file of our own that nobody else may read. */
static int open_own(const char *path)
{
    struct stat info;
    int fd = open(path, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return -1;
    if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode) || info.st_uid != geteuid() ||
        (info.st_mode & 077) != 0 || info.st_size != FILE_BYTES) {
        close(fd);
        errno = EINVAL;
        return -1;
    }
    return fd;
}

static void pack(const linnet_round_vault *vault, uint8_t bytes[FILE_BYTES])
{
    linnet_store_le32(bytes, MAGIC);
    linnet_store_le64(bytes + AT_GENERATION, vault->generation);
    memcpy(bytes + AT_KEY, vault->key, sizeof(vault->key));
    memcpy(bytes + AT_BOOT, vault->boot.bytes, LINNET_HASH_BYTES);
    memcpy(bytes + AT_MACHINE, vault->machine.bytes, LINNET_HASH_BYTES);
}

/* The key of the file, if it is one of this boot and machine. */
static bool take_file(linnet_round_vault *vault)
{
    uint8_t bytes[FILE_BYTES];
    int fd = open_own(vault->path);
    if (fd < 0)
        return false;
    bool is_whole = pread(fd, bytes, sizeof(bytes), 0) == FILE_BYTES && linnet_load_le32(bytes) == MAGIC;
    bool is_ours = is_whole && memcmp(bytes + AT_MACHINE, vault->machine.bytes, LINNET_HASH_BYTES) == 0 &&
                   (vault->place == LINNET_VAULT_DISK ||
                    memcmp(bytes + AT_BOOT, vault->boot.bytes, LINNET_HASH_BYTES) == 0);
    close(fd);
    if (is_ours) {
        vault->generation = linnet_load_le64(bytes + AT_GENERATION);
        memcpy(vault->key, bytes + AT_KEY, sizeof(vault->key));
        vault->has_file = true;
        vault->is_new = false;
    }
    linnet_wipe(bytes, sizeof(bytes));
    return is_ours;
}

/* Make the file. Whatever lies there is none of ours, or take_file would have taken it. */
static bool make_file(linnet_round_vault *vault)
{
    uint8_t bytes[FILE_BYTES];
    (void)unlink(vault->path);
    int fd = open(vault->path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return false;
    vault->has_file = true;
    pack(vault, bytes);
    bool is_written = pwrite(fd, bytes, sizeof(bytes), 0) == FILE_BYTES &&
                      (vault->place != LINNET_VAULT_DISK || fsync(fd) == 0);
    linnet_wipe(bytes, sizeof(bytes));
    return close(fd) == 0 && is_written;
}

typedef enum rewrite_result { REWRITE_DONE, REWRITE_FAILED, REWRITE_FOREIGN } rewrite_result;

/* Write over the present contents, which must still be what this process wrote last. */
static rewrite_result rewrite(const linnet_round_vault *vault, uint64_t known_generation)
{
    uint8_t bytes[FILE_BYTES];
    rewrite_result result = REWRITE_FAILED;
    int fd = open_own(vault->path);
    if (fd < 0)
        return result;
    if (pread(fd, bytes, sizeof(bytes), 0) == FILE_BYTES) {
        bool is_known = linnet_load_le64(bytes + AT_GENERATION) == known_generation;
        pack(vault, bytes);
        result = !is_known ? REWRITE_FOREIGN
                 : pwrite(fd, bytes, sizeof(bytes), 0) == FILE_BYTES &&
                         (vault->place != LINNET_VAULT_DISK || fsync(fd) == 0)
                     ? REWRITE_DONE
                     : REWRITE_FAILED;
    }
    linnet_wipe(bytes, sizeof(bytes));
    close(fd);
    return result;
}

/* ---- the vault ---- */

linnet_status linnet_round_vault_open_memory(linnet_round_vault **ret_vault, linnet_error *err)
{
    linnet_round_vault *vault = calloc(1, sizeof(*vault));
    if (!vault)
        return linnet_fail(err, LINNET_ERR_NOMEM, "round vault");
    vault->is_new = true;
    linnet_random_bytes(vault->key, sizeof(vault->key));
    *ret_vault = vault;
    return LINNET_OK;
}

linnet_status linnet_round_vault_open(const char *state_directory, const linnet_device_id *device,
                                      bool on_disk, const linnet_vault_sources *sources,
                                      linnet_round_vault **ret_vault, linnet_error *err)
{
    const linnet_vault_sources s = complete(sources);
    linnet_round_vault *vault = NULL;
    char *name = file_name(state_directory, device);
    linnet_status status = name ? linnet_round_vault_open_memory(&vault, err)
                                : linnet_fail(err, LINNET_ERR_NOMEM, "round vault of '%s'", state_directory);
    if (status != LINNET_OK) {
        free(name);
        return status;
    }
    bool knows_boot = hash_id(s.boot_id_path, &vault->boot);
    (void)hash_id(s.machine_id_path, &vault->machine);
    if (on_disk)
        vault->path = linnet_path_join(state_directory, "round.key");
    else if (knows_boot) /* else a file could be of any boot */
        vault->path = volatile_path(name, &s);
    free(name);
    if (vault->path) {
        vault->place = on_disk ? LINNET_VAULT_DISK : LINNET_VAULT_VOLATILE;
        (void)take_file(vault); /* none: made with the first value */
    }
    *ret_vault = vault;
    return LINNET_OK;
}

void linnet_round_vault_close(linnet_round_vault *vault)
{
    if (!vault)
        return;
    free(vault->path);
    linnet_wipe(vault, sizeof(*vault));
    free(vault);
}

void linnet_round_vault_forget(linnet_round_vault *vault)
{
    if (vault)
        give_up_file(vault);
    linnet_round_vault_close(vault);
}

linnet_vault_place linnet_round_vault_place(const linnet_round_vault *vault)
{
    return vault->place;
}

const linnet_hash *linnet_round_vault_machine(const linnet_round_vault *vault)
{
    return &vault->machine;
}

bool linnet_round_vault_is_new(const linnet_round_vault *vault)
{
    return vault->is_new;
}

uint64_t linnet_round_vault_generation(const linnet_round_vault *vault)
{
    return vault->generation;
}

linnet_status linnet_round_vault_advance(linnet_round_vault *vault, uint64_t generation, linnet_error *err)
{
    uint64_t known = vault->generation;
    vault->generation = generation;
    vault->is_new = false;
    if (vault->place == LINNET_VAULT_MEMORY)
        return LINNET_OK;
    if (!vault->has_file) {
        if (!make_file(vault))
            give_up_file(vault);
        return LINNET_OK;
    }
    switch (rewrite(vault, known)) {
    case REWRITE_DONE:
        return LINNET_OK;
    case REWRITE_FOREIGN:
        return linnet_fail(err, LINNET_ERR_CONFLICT,
                           "the round key '%s' was written by another process: one process for each state",
                           vault->path);
    case REWRITE_FAILED: /* also where a user's log-out has taken the directory away */
        give_up_file(vault);
        return LINNET_OK;
    }
    return LINNET_ERR_INTERNAL;
}

void linnet_round_vault_renew(linnet_round_vault *vault)
{
    linnet_random_bytes(vault->key, sizeof(vault->key));
    if (vault->has_file && rewrite(vault, vault->generation) != REWRITE_DONE)
        give_up_file(vault);
}

/* ---- values ---- */

/* Name, zero, generation. */
static size_t associated(const char *name, uint64_t generation, uint8_t bytes[SEALED_NAME_MAX + 9])
{
    size_t n = strnlen(name, SEALED_NAME_MAX);
    memcpy(bytes, name, n);
    bytes[n] = 0;
    linnet_store_le64(bytes + n + 1, generation);
    return n + 9;
}

linnet_status linnet_round_vault_seal(const linnet_round_vault *vault, const char *name, uint64_t generation,
                                      const void *plain, size_t n_plain, linnet_buffer *ret_sealed,
                                      linnet_error *err)
{
    uint8_t bound[SEALED_NAME_MAX + 9];
    size_t n_bound = associated(name, generation, bound);
    linnet_buffer_append_le64(ret_sealed, generation);
    if (ret_sealed->failed)
        return linnet_fail(err, LINNET_ERR_NOMEM, "sealed value '%s'", name);
    return linnet_seal(vault->key, bound, n_bound, plain, n_plain, ret_sealed, err);
}

linnet_status linnet_round_vault_unseal(const linnet_round_vault *vault, const char *name, const void *sealed,
                                        size_t n_sealed, linnet_buffer *ret_plain, linnet_error *err)
{
    uint8_t bound[SEALED_NAME_MAX + 9];
    if (n_sealed < 8)
        return linnet_fail(err, LINNET_ERR_CRYPTO, "sealed value '%s' is cut short", name);
    size_t n_bound = associated(name, linnet_load_le64(sealed), bound);
    linnet_status status =
        linnet_unseal(vault->key, bound, n_bound, (const uint8_t *)sealed + 8, n_sealed - 8, ret_plain, err);
    return status == LINNET_OK ? LINNET_OK : linnet_error_prefix(err, status, "value '%s'", name);
}
