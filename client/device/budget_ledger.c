/* SPDX-License-Identifier: Apache-2.0 */

/* The ledger of privacy: a file of slots of fixed width that only grows, each with a checksum, written whole
 * and synced under a file lock, so that processes may share it. A slot that does not read is damaged: it
 * counts as the costliest participation that is known, and the next entry goes behind it. What is taken back
 * is a slot of its own, since nothing is ever written over. */

#include "linnet/budget_ledger.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <sys/file.h>
#include <unistd.h>

#include "linnet/file.h"

#define MAGIC 0x4c504e4c /* "LNPL" */
#define AT_KIND 4
#define AT_TASK 8
#define AT_DEVICE 24
#define AT_ROUND 40
#define AT_ANNOUNCEMENT 48
#define AT_MECHANISM 80
#define AT_UNIT 84
#define AT_NOISE 88
#define AT_PROBABILITY 96
#define AT_STEPS 104
#define AT_CHECKSUM 112 /* first half of H over what is before */
#define SLOT_BYTES 128
#define LEDGER_BYTES_MAX ((size_t)64 << 20)

typedef enum slot_kind { SLOT_COUNTED = 1, SLOT_TAKEN_BACK = 2 } slot_kind;

struct linnet_budget_ledger {
    char *directory, *path;
};

typedef struct slot {
    slot_kind kind;
    linnet_privacy_entry entry;
} slot;

/* All slots as they were read under the lock. */
typedef struct contents {
    slot *slots; /* owned; the good ones */
    size_t n_slots, n_damaged;
    size_t n_bytes; /* of the file */
} contents;

/* ---- slots ---- */

static void slot_pack(slot_kind kind, const linnet_privacy_entry *e, uint8_t bytes[SLOT_BYTES])
{
    memset(bytes, 0, SLOT_BYTES);
    linnet_store_le32(bytes, MAGIC);
    linnet_store_le32(bytes + AT_KIND, (uint32_t)kind);
    memcpy(bytes + AT_TASK, e->task, sizeof(e->task));
    memcpy(bytes + AT_DEVICE, e->device.bytes, sizeof(e->device.bytes));
    linnet_store_le64(bytes + AT_ROUND, e->round);
    memcpy(bytes + AT_ANNOUNCEMENT, e->announcement.bytes, LINNET_HASH_BYTES);
    linnet_store_le32(bytes + AT_MECHANISM, (uint32_t)e->mechanism);
    linnet_store_le32(bytes + AT_UNIT, (uint32_t)e->unit);
    linnet_store_f64(bytes + AT_NOISE, e->noise_multiplier);
    linnet_store_f64(bytes + AT_PROBABILITY, e->probability);
    linnet_store_le32(bytes + AT_STEPS, e->n_steps);
    linnet_hash sum = linnet_hash_of(LINNET_LABEL_LEDGER, bytes, AT_CHECKSUM);
    memcpy(bytes + AT_CHECKSUM, sum.bytes, SLOT_BYTES - AT_CHECKSUM);
}

static bool is_sound(const slot *s)
{
    const linnet_privacy_entry *e = &s->entry;
    bool is_sampled = e->mechanism == LINNET_DP_RECORD_LOCAL;
    return (s->kind == SLOT_COUNTED || s->kind == SLOT_TAKEN_BACK) && e->mechanism > LINNET_DP_NONE &&
           e->mechanism <= LINNET_DP_CENTRAL && e->noise_multiplier > 0 && isfinite(e->noise_multiplier) &&
           (!is_sampled || (e->probability > 0 && e->probability <= 1 && e->n_steps > 0));
}

static bool slot_open(const uint8_t bytes[SLOT_BYTES], slot *ret_slot)
{
    linnet_hash sum = linnet_hash_of(LINNET_LABEL_LEDGER, bytes, AT_CHECKSUM);
    slot s = {.kind = (slot_kind)linnet_load_le32(bytes + AT_KIND)};
    linnet_privacy_entry *e = &s.entry;
    memcpy(e->task, bytes + AT_TASK, sizeof(e->task));
    memcpy(e->device.bytes, bytes + AT_DEVICE, sizeof(e->device.bytes));
    e->round = linnet_load_le64(bytes + AT_ROUND);
    memcpy(e->announcement.bytes, bytes + AT_ANNOUNCEMENT, LINNET_HASH_BYTES);
    e->mechanism = (linnet_dp_mechanism)linnet_load_le32(bytes + AT_MECHANISM);
    e->unit = (linnet_dp_unit)linnet_load_le32(bytes + AT_UNIT);
    e->noise_multiplier = linnet_load_f64(bytes + AT_NOISE);
    e->probability = linnet_load_f64(bytes + AT_PROBABILITY);
    e->n_steps = linnet_load_le32(bytes + AT_STEPS);
    *ret_slot = s;
    return linnet_load_le32(bytes) == MAGIC &&
           memcmp(sum.bytes, bytes + AT_CHECKSUM, SLOT_BYTES - AT_CHECKSUM) == 0 && is_sound(&s);
}

/* ---- the file ---- */

static linnet_status contents_of(const linnet_buffer *bytes, contents *ret_contents, linnet_error *err)
{
    size_t n = (bytes->n_bytes + SLOT_BYTES - 1) / SLOT_BYTES;
    contents c = {.slots = calloc(n + 1, sizeof(*c.slots)), .n_bytes = bytes->n_bytes};
    if (!c.slots)
        return linnet_fail(err, LINNET_ERR_NOMEM, "ledger of %zu entries", n);
    for (size_t i = 0; i < n; i++) {
        bool is_whole = (i + 1) * SLOT_BYTES <= bytes->n_bytes;
        if (is_whole && slot_open(bytes->bytes + i * SLOT_BYTES, &c.slots[c.n_slots]))
            c.n_slots++;
        else
            c.n_damaged++;
    }
    *ret_contents = c;
    return LINNET_OK;
}

static linnet_status read_contents(const linnet_budget_ledger *ledger, contents *ret_contents,
                                   linnet_error *err)
{
    linnet_buffer bytes = {0};
    linnet_status status = linnet_file_read(ledger->path, LEDGER_BYTES_MAX, &bytes, err);
    if (status == LINNET_ERR_NOT_FOUND)
        status = LINNET_OK; /* nothing was spent yet */
    if (status == LINNET_OK)
        status = contents_of(&bytes, ret_contents, err);
    linnet_buffer_release(&bytes);
    return status;
}

/* One slot behind everything that is there, on the disk when this returns. */
static linnet_status append_slot(const linnet_budget_ledger *ledger, int fd, size_t n_bytes,
                                 const uint8_t slot_bytes[SLOT_BYTES], linnet_error *err)
{
    size_t at = (n_bytes + SLOT_BYTES - 1) / SLOT_BYTES * SLOT_BYTES;
    size_t n_done = 0;
    while (n_done < SLOT_BYTES) {
        ssize_t n = pwrite(fd, slot_bytes + n_done, SLOT_BYTES - n_done, (off_t)(at + n_done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return linnet_fail_errno(err, n < 0 ? errno : ENOSPC, "cannot write '%s'", ledger->path);
        n_done += (size_t)n;
    }
    if (fsync(fd) != 0)
        return linnet_fail_errno(err, errno, "cannot sync '%s'", ledger->path);
    return at == 0 ? linnet_directory_sync(ledger->directory, err) : LINNET_OK;
}

/* The file, locked until it is closed. */
static linnet_status open_locked(const linnet_budget_ledger *ledger, int *ret_fd, linnet_error *err)
{
    int fd = open(ledger->path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600), rc;
    if (fd < 0)
        return linnet_fail_errno(err, errno, "cannot open '%s'", ledger->path);
    do
        rc = flock(fd, LOCK_EX); /* held for one entry at most */
    while (rc != 0 && errno == EINTR);
    if (rc != 0) {
        linnet_status status = linnet_fail_errno(err, errno, "cannot lock '%s'", ledger->path);
        close(fd);
        return status;
    }
    *ret_fd = fd;
    return LINNET_OK;
}

linnet_status linnet_budget_ledger_open(const char *directory, linnet_budget_ledger **ret_ledger,
                                        linnet_error *err)
{
    linnet_budget_ledger *ledger = calloc(1, sizeof(*ledger));
    linnet_status status = linnet_directory_create(directory, err);
    if (ledger) {
        ledger->directory = strdup(directory);
        ledger->path = linnet_path_join(directory, "privacy.ledger");
    }
    if (status == LINNET_OK && !(ledger && ledger->directory && ledger->path))
        status = linnet_fail(err, LINNET_ERR_NOMEM, "ledger '%s'", directory);
    if (status != LINNET_OK) {
        linnet_budget_ledger_close(ledger);
        return status;
    }
    *ret_ledger = ledger;
    return LINNET_OK;
}

void linnet_budget_ledger_close(linnet_budget_ledger *ledger)
{
    if (!ledger)
        return;
    free(ledger->directory);
    free(ledger->path);
    free(ledger);
}

/* ---- sums ---- */

static bool is_same(const linnet_privacy_entry *a, const linnet_privacy_entry *b)
{
    return memcmp(a->device.bytes, b->device.bytes, sizeof(a->device.bytes)) == 0 &&
           linnet_hash_equal(&a->announcement, &b->announcement);
}

/* Is this entry counted: the last word about its device and announcement? */
static bool is_counted(const contents *c, const linnet_privacy_entry *entry)
{
    for (size_t i = c->n_slots; i > 0; i--)
        if (is_same(&c->slots[i - 1].entry, entry))
            return c->slots[i - 1].kind == SLOT_COUNTED;
    return false;
}

static void spend(const linnet_privacy_entry *e, double n_rounds, linnet_rdp *rdp)
{
    const linnet_privacy privacy = {.mechanism = e->mechanism,
                                    .noise_multiplier = e->noise_multiplier,
                                    .probability = e->probability,
                                    .n_steps = e->n_steps};
    linnet_privacy_spend(&privacy, n_rounds, rdp);
}

/* What one entry costs by itself, to compare entries with. */
static double cost_of(const linnet_privacy_entry *e)
{
    linnet_rdp rdp = {{0}};
    spend(e, 1, &rdp);
    return linnet_dp_epsilon(&rdp, 1e-5, NULL);
}

static bool costs_the_same(const linnet_privacy_entry *a, const linnet_privacy_entry *b)
{
    return a->mechanism == b->mechanism && a->noise_multiplier == b->noise_multiplier &&
           a->probability == b->probability && a->n_steps == b->n_steps;
}

/* Counted entries that cost the same come one behind another in most ledgers: they are spent at once. */
static void sum_entries(const contents *c, linnet_privacy_total *total, linnet_privacy_entry *costliest,
                        double *cost)
{
    const linnet_privacy_entry *run = NULL;
    double n_run = 0;
    for (size_t i = 0; i < c->n_slots; i++) {
        const linnet_privacy_entry *e = &c->slots[i].entry;
        bool is_last_word = c->slots[i].kind == SLOT_COUNTED;
        for (size_t j = i + 1; j < c->n_slots && is_last_word; j++)
            is_last_word = !is_same(e, &c->slots[j].entry);
        if (!is_last_word)
            continue;
        total->n_entries++;
        total->has_device_unit = total->has_device_unit || e->unit == LINNET_DP_UNIT_DEVICE;
        total->has_record_unit = total->has_record_unit || e->unit == LINNET_DP_UNIT_RECORD;
        if (run && !costs_the_same(run, e)) {
            spend(run, n_run, &total->rdp);
            run = NULL;
            n_run = 0;
        }
        if (!run && cost_of(e) > *cost) {
            *cost = cost_of(e);
            *costliest = *e;
        }
        run = e;
        n_run++;
    }
    if (run)
        spend(run, n_run, &total->rdp);
}

/* Damaged entries as the costliest; where none is known, nothing bounds them. */
static void sum_contents(const contents *c, const linnet_privacy_entry *next, linnet_privacy_total *ret_total)
{
    linnet_privacy_total total = {.n_damaged = c->n_damaged};
    linnet_privacy_entry costliest = {.mechanism = LINNET_DP_NONE};
    double cost = 0;
    if (next) {
        costliest = *next;
        cost = cost_of(next);
    }
    sum_entries(c, &total, &costliest, &cost);
    total.n_entries += c->n_damaged;
    if (c->n_damaged > 0 && costliest.mechanism != LINNET_DP_NONE)
        spend(&costliest, (double)c->n_damaged, &total.rdp);
    for (size_t i = 0; c->n_damaged > 0 && costliest.mechanism == LINNET_DP_NONE && i < LINNET_RENYI_ORDERS;
         i++)
        total.rdp.at[i] = INFINITY;
    *ret_total = total;
}

linnet_status linnet_budget_ledger_total(linnet_budget_ledger *ledger, const linnet_privacy_entry *next,
                                         linnet_privacy_total *ret_total, linnet_error *err)
{
    contents c = {0};
    linnet_status status = read_contents(ledger, &c, err);
    if (status == LINNET_OK)
        sum_contents(&c, next, ret_total);
    free(c.slots);
    return status;
}

static linnet_status check_limit(const contents *c, const linnet_privacy_entry *entry,
                                 const linnet_privacy_limit *limit, linnet_error *err)
{
    linnet_privacy_total total;
    if (limit->dp_epsilon_max <= 0)
        return LINNET_OK;
    sum_contents(c, entry, &total);
    spend(entry, 1, &total.rdp);
    double dp_epsilon = linnet_dp_epsilon(&total.rdp, limit->dp_delta, NULL);
    if (dp_epsilon <= limit->dp_epsilon_max)
        return LINNET_OK;
    return linnet_fail(err, LINNET_ERR_DENIED, "policy: one more round would spend epsilon %.4g of %.4g",
                       dp_epsilon, limit->dp_epsilon_max);
}

/* Under the lock: what is there decides whether the slot is added. */
static linnet_status change(const linnet_budget_ledger *ledger, slot_kind kind,
                            const linnet_privacy_entry *entry, const linnet_privacy_limit *limit,
                            linnet_error *err)
{
    uint8_t bytes[SLOT_BYTES];
    contents c = {0};
    int fd = -1;
    linnet_status status = open_locked(ledger, &fd, err);
    if (status != LINNET_OK)
        return status;
    status = read_contents(ledger, &c, err);
    bool is_done = status == LINNET_OK && is_counted(&c, entry) == (kind == SLOT_COUNTED);
    if (status == LINNET_OK && !is_done && limit)
        status = check_limit(&c, entry, limit, err);
    if (status == LINNET_OK && !is_done) {
        slot_pack(kind, entry, bytes);
        status = append_slot(ledger, fd, c.n_bytes, bytes, err);
    }
    free(c.slots);
    close(fd);
    return status;
}

linnet_status linnet_budget_ledger_add(linnet_budget_ledger *ledger, const linnet_privacy_entry *entry,
                                       const linnet_privacy_limit *limit, linnet_error *err)
{
    return change(ledger, SLOT_COUNTED, entry, limit, err);
}

linnet_status linnet_budget_ledger_take_back(linnet_budget_ledger *ledger, const linnet_privacy_entry *entry,
                                             linnet_error *err)
{
    return change(ledger, SLOT_TAKEN_BACK, entry, NULL, err);
}
