/* SPDX-License-Identifier: Apache-2.0 */
/* The spool: uploads as append-only files, spool/<round>/<device id>, 32 bytes of signed echo and then the
 * packed vectors. A file says nothing by itself: a contribution is what the store has a row for, and the row
 * is written after the file was checked and fsynced. So a crash leaves at worst a file that the device
 * continues or the sweep removes. Everything is read in chunks of LINNET_RING_CHUNK coordinates, which start
 * on a byte at every width. */
#include "state.h"

#include "linnet/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define HEAD_BYTES LINNET_HASH_BYTES
/* Left to the store and the next adapter, which make room again. */
#define FREE_BYTES_MIN ((uint64_t)4 << 20)
#define CHUNK_BYTES_MAX ((size_t)LINNET_RING_CHUNK * 4)

uint64_t linnet_specs_bytes(const linnet_ring_spec *specs, size_t n_specs)
{
    uint64_t n_bytes = 0;
    for (size_t i = 0; i < n_specs; i++)
        n_bytes += linnet_ring_bytes(&specs[i]);
    return n_bytes;
}

/* ---- paths ---- */

static linnet_status spool_path(const linnet_coordinator *c, const linnet_spool_id *id, char path[4096],
                                linnet_error *err)
{
    char name[2 * LINNET_DEVICE_ID_BYTES + 1];
    linnet_hex_write(id->device.bytes, sizeof(id->device.bytes), name);
    if (!linnet_coordinator_path(c, path, "spool/%llu/%s", (unsigned long long)id->round, name))
        return linnet_fail(err, LINNET_ERR_LIMIT, "state directory: the path is too long");
    return LINNET_OK;
}

/* Open for appending and reading; the round's directory is made by the first upload. */
static linnet_status spool_open(const linnet_coordinator *c, const linnet_spool_id *id, int flags,
                                int *ret_fd, linnet_error *err)
{
    char path[4096], directory[4096];
    linnet_status status = spool_path(c, id, path, err);
    if (status != LINNET_OK)
        return status;
    int fd = open(path, flags | O_CLOEXEC, 0600);
    if (fd < 0 && errno == ENOENT && (flags & O_CREAT)) {
        if (linnet_coordinator_path(c, directory, "spool/%llu", (unsigned long long)id->round) &&
            mkdir(directory, 0700) != 0 && errno != EEXIST)
            return linnet_fail_errno(err, errno, "cannot create '%s'", directory);
        fd = open(path, flags | O_CLOEXEC, 0600);
    }
    if (fd < 0 && (errno == EMFILE || errno == ENFILE))
        return linnet_fail(err, LINNET_ERR_BUSY,
                           "no file descriptor left for the spool: raise the limit of open files");
    if (fd < 0)
        return linnet_fail_errno(err, errno, "cannot open '%s'", path);
    *ret_fd = fd;
    return LINNET_OK;
}

/* ---- appending ---- */

static linnet_status write_fail(linnet_error *err, int error_number)
{
    if (error_number == EFBIG) /* a file size limit is a full disk of its own kind */
        error_number = ENOSPC;
    return linnet_fail_errno(err, error_number, "cannot write to the spool");
}

static linnet_status write_at(int fd, uint64_t offset, const uint8_t *bytes, size_t n_bytes,
                              linnet_error *err)
{
    while (n_bytes > 0) {
        ssize_t n = pwrite(fd, bytes, n_bytes, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return write_fail(err, errno);
        bytes += n;
        offset += (uint64_t)n;
        n_bytes -= (size_t)n;
    }
    return LINNET_OK;
}

static linnet_status read_at(int fd, uint64_t offset, uint8_t *bytes, size_t n_bytes, linnet_error *err)
{
    while (n_bytes > 0) {
        ssize_t n = pread(fd, bytes, n_bytes, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return linnet_fail_errno(err, errno, "cannot read the spool");
        if (n == 0)
            return linnet_fail(err, LINNET_ERR_IO, "a spool file is shorter than its row says");
        bytes += n;
        offset += (uint64_t)n;
        n_bytes -= (size_t)n;
    }
    return LINNET_OK;
}

/* The head of the file is this echo: written where there is none, compared where there is. */
static linnet_status claim(int fd, uint64_t *size, const linnet_hash *echo, linnet_error *err)
{
    linnet_hash there;
    if (*size < HEAD_BYTES) {
        linnet_status status = write_at(fd, 0, echo->bytes, HEAD_BYTES, err);
        *size = HEAD_BYTES;
        return status;
    }
    linnet_status status = read_at(fd, 0, there.bytes, HEAD_BYTES, err);
    if (status == LINNET_OK && !linnet_hash_equal(&there, echo))
        status = linnet_fail(err, LINNET_ERR_CONFLICT,
                             "other bytes are being uploaded under the same announcement");
    return status;
}

static linnet_status append(int fd, const linnet_hash *echo, uint64_t offset, const uint8_t *raw,
                            size_t n_raw, uint64_t *ret_length, linnet_error *err)
{
    struct stat st;
    struct statvfs disk;
    if (fstat(fd, &st) != 0)
        return linnet_fail_errno(err, errno, "cannot look at the spool");
    if (fstatvfs(fd, &disk) == 0 && (uint64_t)disk.f_bavail * disk.f_frsize < FREE_BYTES_MIN + n_raw)
        return linnet_fail(err, LINNET_ERR_NO_SPACE,
                           "less than 4 MiB left on the spool's disk: make room on it");
    uint64_t before = (uint64_t)st.st_size, size = before;
    linnet_status status = claim(fd, &size, echo, err);
    uint64_t length = size - HEAD_BYTES;
    if (status == LINNET_OK && offset <= length && offset + n_raw > length) {
        size_t n_old = (size_t)(length - offset);
        status = write_at(fd, HEAD_BYTES + length, raw + n_old, n_raw - n_old, err);
        length = offset + n_raw;
    }
    if (status == LINNET_OK)
        *ret_length = length;
    else if (status == LINNET_ERR_NO_SPACE && ftruncate(fd, (off_t)before) != 0)
        return linnet_fail_errno(err, errno, "cannot take back half a write to the spool");
    return status;
}

linnet_status linnet_spool_append(linnet_coordinator *c, const linnet_spool_id *id, const linnet_hash *echo,
                                  uint64_t offset, const uint8_t *raw, size_t n_raw, uint64_t *ret_length,
                                  linnet_error *err)
{
    int fd = -1;
    linnet_status status = spool_open(c, id, O_RDWR | O_CREAT, &fd, err);
    if (status != LINNET_OK)
        return status;
    status = append(fd, echo, offset, raw, n_raw, ret_length, err);
    if (close(fd) != 0 && status == LINNET_OK)
        status = write_fail(err, errno);
    return status;
}

linnet_status linnet_spool_sync(linnet_coordinator *c, const linnet_spool_id *id, linnet_error *err)
{
    char path[4096];
    int fd = -1;
    if (!c->is_durable)
        return LINNET_OK;
    linnet_status status = spool_open(c, id, O_RDWR, &fd, err);
    if (status != LINNET_OK)
        return status;
    if (fsync(fd) != 0)
        status = linnet_fail(err, LINNET_ERR_IO, "fsync of the spool failed (%s): what is on disk is unknown",
                             strerror(errno));
    (void)close(fd); /* fsync has spoken */
    if (status == LINNET_OK && linnet_coordinator_path(c, path, "spool/%llu", (unsigned long long)id->round))
        status = linnet_directory_sync(path, err);
    if (status == LINNET_OK && linnet_coordinator_path(c, path, "spool"))
        status = linnet_directory_sync(path, err);
    return status;
}

/* ---- reading ---- */

/* What is done with a chunk of vector i: coordinates first .. first + n, packed. */
typedef linnet_status chunk_fn(void *context, size_t i, uint64_t first, size_t n, const uint8_t *packed,
                               size_t n_bytes, linnet_error *err);

static size_t chunk_bytes(const linnet_ring_spec *spec, size_t n)
{
    return (n * spec->bits + 7) / 8;
}

static linnet_status each_chunk(int fd, const linnet_ring_spec *specs, size_t n_specs, chunk_fn *fn,
                                void *context, linnet_error *err)
{
    uint8_t packed[CHUNK_BYTES_MAX];
    uint64_t at = HEAD_BYTES;
    linnet_status status = LINNET_OK;
    for (size_t i = 0; i < n_specs && status == LINNET_OK; i++)
        for (uint64_t first = 0; first < specs[i].length && status == LINNET_OK; first += LINNET_RING_CHUNK) {
            uint64_t left = specs[i].length - first;
            size_t n = left < LINNET_RING_CHUNK ? (size_t)left : LINNET_RING_CHUNK;
            size_t n_bytes = chunk_bytes(&specs[i], n);
            status = read_at(fd, at, packed, n_bytes, err);
            if (status == LINNET_OK)
                status = fn(context, i, first, n, packed, n_bytes, err);
            at += n_bytes;
        }
    return status;
}

static linnet_status each_chunk_of(const linnet_coordinator *c, const linnet_spool_id *id,
                                   const linnet_ring_spec *specs, size_t n_specs, chunk_fn *fn, void *context,
                                   linnet_error *err)
{
    int fd = -1;
    linnet_status status = spool_open(c, id, O_RDONLY, &fd, err);
    if (status != LINNET_OK)
        return status;
    status = each_chunk(fd, specs, n_specs, fn, context, err);
    (void)close(fd); /* opened for reading: nothing can be lost */
    return status;
}

linnet_status linnet_spool_slice(linnet_coordinator *c, const linnet_spool_id *id,
                                 const linnet_ring_spec *specs, size_t i, uint64_t first, size_t n,
                                 uint32_t *ret_values, linnet_error *err)
{
    uint8_t packed[CHUNK_BYTES_MAX];
    int fd = -1;
    uint64_t at = HEAD_BYTES + linnet_specs_bytes(specs, i) + first * specs[i].bits / 8;
    linnet_status status = spool_open(c, id, O_RDONLY, &fd, err);
    if (status != LINNET_OK)
        return status;
    status = read_at(fd, at, packed, chunk_bytes(&specs[i], n), err);
    (void)close(fd); /* opened for reading: nothing can be lost */
    if (status != LINNET_OK)
        return status;
    memset(ret_values, 0, n * sizeof(*ret_values));
    linnet_ring_fold(&specs[i], 0, n, packed, ret_values);
    return LINNET_OK;
}

/* ---- checking ---- */

typedef struct check {
    const linnet_ring_spec *specs;
    linnet_hasher hasher;
    int64_t largest[LINNET_VECTORS_MAX]; /* magnitude seen in each vector */
    uint32_t lanes[LINNET_LANES];
    size_t n_lanes;
} check;

static linnet_status check_chunk(void *context, size_t i, uint64_t first, size_t n, const uint8_t *packed,
                                 size_t n_bytes, linnet_error *err)
{
    check *state = context;
    uint32_t values[LINNET_RING_CHUNK] = {0};
    linnet_ring_spec part = state->specs[i];
    part.length = n;
    linnet_hasher_update(&state->hasher, packed, n_bytes);
    if (linnet_ring_check_tail(&part, packed) != LINNET_OK)
        return linnet_fail(err, LINNET_ERR_FORMAT, "vector %u: bits behind the last coordinate are set",
                           part.vector_id);
    linnet_ring_fold(&part, 0, n, packed, values);
    for (size_t j = 0; j < n; j++) {
        int64_t value = linnet_ring_lift(part.bits, values[j]);
        value = value < 0 ? -value : value;
        if (value > state->largest[i])
            state->largest[i] = value;
    }
    if (part.vector_id == 1 && first == 0) {
        state->n_lanes = n < LINNET_LANES ? n : LINNET_LANES;
        memcpy(state->lanes, values, state->n_lanes * sizeof(uint32_t));
    }
    return LINNET_OK;
}

/* Where single contributions are seen, each is held to what the device's encoder may produce; masked ones can
 * be anything. */
static linnet_status check_values(const check *state, size_t n_specs, uint32_t weight_max, linnet_error *err)
{
    uint64_t weight = state->lanes[LINNET_LANE_WEIGHT], loss_weight = state->lanes[LINNET_LANE_LOSS_WEIGHT];
    if (state->n_lanes == LINNET_DP_LANES) /* everybody weighs 1 */
        weight = 1;
    if (state->lanes[LINNET_LANE_PARTICIPANTS] != 1 || weight < 1 || weight > weight_max)
        return linnet_fail(err, LINNET_ERR_RANGE, "the lanes do not say one participant of weight 1 to %u",
                           weight_max);
    if ((loss_weight != 0 && loss_weight != weight) ||
        state->lanes[LINNET_LANE_LOSS] > loss_weight * LINNET_LANE_LOSS_SCALE * LINNET_LANE_LOSS_MAX)
        return linnet_fail(err, LINNET_ERR_RANGE, "the lanes hold no loss of 0 to %d", LINNET_LANE_LOSS_MAX);
    for (size_t i = 0; i < n_specs; i++)
        if (state->specs[i].vector_id != 1 && (uint64_t)state->largest[i] > weight * state->specs[i].clamp)
            return linnet_fail(err, LINNET_ERR_RANGE, "vector %u exceeds its clamp",
                               state->specs[i].vector_id);
    return LINNET_OK;
}

linnet_status linnet_spool_check(linnet_coordinator *c, const linnet_spool_id *id,
                                 const linnet_ring_spec *specs, size_t n_specs, const linnet_hash *echo,
                                 linnet_error *err)
{
    check state = {.specs = specs};
    linnet_error flaw = {0};
    linnet_hasher_init(&state.hasher, LINNET_LABEL_VECTOR);
    linnet_status status = each_chunk_of(c, id, specs, n_specs, check_chunk, &state, &flaw);
    linnet_hash hash = linnet_hasher_final(&state.hasher);
    if (status == LINNET_OK && !linnet_hash_equal(&hash, echo))
        return linnet_fail(err, LINNET_ERR_CRYPTO, "the bytes do not hash to the signed echo");
    if (status == LINNET_OK && !linnet_profile_is_secure(c->plan.profile))
        status = check_values(&state, n_specs, c->plan.weight_max, &flaw);
    return status == LINNET_OK ? LINNET_OK : linnet_fail(err, status, "%s", flaw.message);
}

/* ---- folding ---- */

typedef struct fold {
    const linnet_ring_spec *specs;
    size_t starts[LINNET_VECTORS_MAX]; /* of each vector in sums */
    uint32_t *sums;
} fold;

static linnet_status fold_chunk(void *context, size_t i, uint64_t first, size_t n, const uint8_t *packed,
                                size_t n_bytes, linnet_error *err)
{
    const fold *state = context;
    (void)n_bytes;
    (void)err;
    linnet_ring_fold(&state->specs[i], first, n, packed, state->sums + state->starts[i]);
    return LINNET_OK;
}

linnet_status linnet_spool_fold(linnet_coordinator *c, const linnet_spool_id *id,
                                const linnet_ring_spec *specs, size_t n_specs, uint32_t *sums,
                                linnet_error *err)
{
    fold state = {.specs = specs, .sums = sums};
    for (size_t i = 1; i < n_specs; i++)
        state.starts[i] = state.starts[i - 1] + (size_t)specs[i - 1].length;
    return each_chunk_of(c, id, specs, n_specs, fold_chunk, &state, err);
}

/* ---- removing ---- */

void linnet_spool_drop(linnet_coordinator *c, const linnet_spool_id *id)
{
    char path[4096];
    if (spool_path(c, id, path, NULL) == LINNET_OK)
        (void)unlink(path); /* absent is as good */
}

static void directory_drop(const char *directory)
{
    char path[4096];
    DIR *dir = opendir(directory);
    if (!dir)
        return;
    for (struct dirent *entry = readdir(dir); entry; entry = readdir(dir)) {
        int n = snprintf(path, sizeof(path), "%s/%s", directory, entry->d_name);
        if (entry->d_name[0] != '.' && n > 0 && (size_t)n < sizeof(path))
            (void)unlink(path); /* what stays is swept at the next start */
    }
    (void)closedir(dir);
    (void)rmdir(directory);
}

void linnet_spool_drop_round(linnet_coordinator *c, uint64_t round)
{
    char path[4096];
    if (linnet_coordinator_path(c, path, "spool/%llu", (unsigned long long)round))
        directory_drop(path);
}

static bool is_kept(const char *name, const uint64_t *keep, size_t n_keep)
{
    char number[24];
    bool found = false;
    for (size_t i = 0; i < n_keep && !found; i++) {
        (void)snprintf(number, sizeof(number), "%llu", (unsigned long long)keep[i]);
        found = strcmp(name, number) == 0;
    }
    return found;
}

/* Of folders with an entry a round. */
static void sweep(linnet_coordinator *c, const char *folder, const uint64_t *keep, size_t n_keep)
{
    char path[4096];
    DIR *dir = linnet_coordinator_path(c, path, "%s", folder) ? opendir(path) : NULL;
    if (!dir)
        return;
    for (struct dirent *entry = readdir(dir); entry; entry = readdir(dir))
        if (entry->d_name[0] != '.' && !is_kept(entry->d_name, keep, n_keep) &&
            linnet_coordinator_path(c, path, "%s/%s", folder, entry->d_name) && unlink(path) != 0)
            directory_drop(path);
    (void)closedir(dir);
}

void linnet_spool_sweep(linnet_coordinator *c, const uint64_t *keep, size_t n_keep)
{
    sweep(c, "spool", keep, n_keep);
}

void linnet_sum_sweep(linnet_coordinator *c, const uint64_t *keep, size_t n_keep)
{
    sweep(c, "sums", keep, n_keep);
}
