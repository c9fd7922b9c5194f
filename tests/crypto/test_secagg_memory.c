/* SPDX-License-Identifier: Apache-2.0 */

/* Memory of the machines of linnet-sa1: secrets are nowhere in the process once they are of no use
 * (SECURE-AGGREGATION 6.2, property 17), stack included, and a lack of memory at any allocation changes
 * nothing. */

#include "crypto/secagg_server.h"
#include "forger.h"
#include "testing.h"

#include <fcntl.h>
#include <unistd.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define IS_SANITIZED 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define IS_SANITIZED 1
#endif
#ifndef IS_SANITIZED
#define IS_SANITIZED 0 /* with a sanitizer the address space is too large to be read */
#endif

#define N 7

/* ---- allocations that fail ---- */

/* The n-th allocation from now on fails; 0: none. The linker puts these in the place of the real ones. */
static unsigned fail_in;
static bool fails(void)
{
    return fail_in > 0 && --fail_in == 0;
}

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *memory, size_t n);
void *__real_sodium_malloc(size_t n);
void *__real_sodium_allocarray(size_t n, size_t size);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *memory, size_t n);
void *__wrap_sodium_malloc(size_t n);
void *__wrap_sodium_allocarray(size_t n, size_t size);

void *__wrap_malloc(size_t n)
{
    return fails() ? NULL : __real_malloc(n);
}
void *__wrap_calloc(size_t n, size_t size)
{
    return fails() ? NULL : __real_calloc(n, size);
}
void *__wrap_realloc(void *memory, size_t n)
{
    return fails() ? NULL : __real_realloc(memory, n);
}
void *__wrap_sodium_malloc(size_t n)
{
    return fails() ? NULL : __real_sodium_malloc(n);
}
void *__wrap_sodium_allocarray(size_t n, size_t size)
{
    return fails() ? NULL : __real_sodium_allocarray(n, size);
}

/* ---- looking for secrets ---- */

#define NEEDLES_MAX 512
#define HIDE UINT64_C(0x5aa5c33c69960ff0)

/* What must not be found: the first 16 bytes of each secret, never stored as they are. */
static struct needle {
    const char *name;
    uint64_t hidden[2];
} needles[NEEDLES_MAX];
static size_t n_needles;

static void remember(const char *name, const void *secret)
{
    const uint8_t *b = secret;
    struct needle *into = &needles[n_needles++];
    assert_true(n_needles <= NEEDLES_MAX);
    into->name = name;
    into->hidden[0] = linnet_load_le64(b) ^ HIDE;
    into->hidden[1] = linnet_load_le64(b + 8) ^ HIDE;
}

/* Everything that device i keeps to itself; `but_released`: without the shares that its M9 tells. */
static void remember_device(const forger *f, uint32_t i, forger_set u3, bool but_released)
{
    const linnet_secagg_device *d = f->m[i].device;
    remember("r_s", &d->secrets->r_s);
    remember("r_b", &d->secrets->r_b);
    remember("sk_x", d->secrets->sk_x);
    remember("sk_e", d->secrets->sk_e);
    for (uint32_t j = 0; j < f->n && d->received; j++) {
        remember(j == i ? "self mask key" : "pair mask key", &d->mask_keys[j]);
        if (j == i)
            continue;
        bool tells_self = linnet_bitmap_has(u3.bits, j);
        if (!but_released || !tells_self)
            remember("received share of r_b", &d->received[j].b);
        if (!but_released || tells_self)
            remember("received share of r_s", &d->received[j].s);
    }
}

typedef struct region {
    const uint8_t *from, *to;
    char name[64];
} region;

/* The name at the end of a line of the map: what follows its fifth space and the blanks behind. */
static void set_name(region *r, const char *text)
{
    size_t n = 0;
    for (int spaces = 0; spaces < 5 && *text != '\n'; text++)
        spaces += *text == ' ';
    while (*text == ' ')
        text++;
    for (; text[n] != '\n' && n < sizeof(r->name) - 1; n++)
        r->name[n] = text[n];
    r->name[n] = '\0';
}

/* Without stdio, which would write over the stack that is to be searched. */
static size_t read_map(region *regions, size_t max)
{
    static char text[1 << 17];
    size_t n = 0, n_text = 0;
    ssize_t got;
    int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    while ((got = read(fd, text + n_text, sizeof(text) - 1 - n_text)) > 0)
        n_text += (size_t)got;
    (void)close(fd);
    assert_true(n_text > 0 && n_text < sizeof(text) - 1);
    for (char *line = text; *line && n < max; line = strchr(line, '\n') + 1) {
        char *end;
        regions[n].from = (const uint8_t *)strtoul(line, &end, 16);  /* NOLINT(performance-no-int-to-ptr) */
        regions[n].to = (const uint8_t *)strtoul(end + 1, &end, 16); /* NOLINT(performance-no-int-to-ptr) */
        set_name(&regions[n], line);
        n += end[1] == 'r' && strncmp(regions[n].name, "[v", 2) != 0;
    }
    assert_true(n < max);
    return n;
}

static void look_for(const struct needle *needle, const region *r, bool tells, unsigned *found)
{
    const uint8_t first = (uint8_t)(needle->hidden[0] ^ HIDE);
    for (const uint8_t *p = r->from; p + 16 <= r->to; p++) {
        p = memchr(p, first, (size_t)(r->to - p) - 15);
        if (!p)
            return;
        if ((linnet_load_le64(p) ^ HIDE) != needle->hidden[0] ||
            (linnet_load_le64(p + 8) ^ HIDE) != needle->hidden[1])
            continue;
        if (tells)
            print_message("%s is in %s, %zu bytes before its end\n", needle->name,
                          r->name[0] ? r->name : "a nameless map", (size_t)(r->to - p));
        ++*found;
    }
}

/* Reads in place: a copy would be found itself. `outside`: only where no guarded page is. */
static unsigned count_found(bool outside, bool tells)
{
    static region regions[512];
    unsigned found = 0;
    size_t n = read_map(regions, ARRAY_LEN(regions));
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < n_needles && (!outside || regions[i].name[0]); k++)
            look_for(&needles[k], &regions[i], tells, &found);
    return found;
}

static unsigned n_found(void)
{
    return count_found(false, true);
}

static void start(forger *f, linnet_secagg_phase phase, forger_set u3)
{
    n_needles = 0;
    forger_init(f, N, 0);
    forger_advertise(f);
    forger_play(f, phase, forger_all(N), u3);
}

static void destroy_devices(forger *f, uint32_t from)
{
    for (uint32_t i = from; i < f->n; i++) {
        linnet_secagg_device_destroy(f->m[i].device);
        f->m[i].device = NULL;
    }
}

static void skip_where_sanitized(void)
{
    if (IS_SANITIZED) {
        print_message("memory is not searched under a sanitizer\n");
        skip();
    }
}

static void the_search_finds_what_is_there(void **state)
{
    (void)state;
    forger f;
    skip_where_sanitized();
    start(&f, LINNET_SECAGG_MASKING, forger_all(N));
    remember_device(&f, 0, forger_all(N), false);
    assert_true(count_found(false, false) >= n_needles);
    forger_release(&f);
}

/* Looked at right after each step, before anything else runs over the stack. */
static void secrets_live_in_guarded_pages_only(void **state)
{
    (void)state;
    forger f;
    linnet_buffer m = {0}, record = {0};
    uint8_t y[3 * FORGER_COORDINATES] = {0};
    skip_where_sanitized();
    start(&f, LINNET_SECAGG_SHARED, forger_all(N));
    linnet_secagg_device *d = f.m[0].device, *copy = NULL;
    forger_m4(&f, 0, &d->t1, forger_all(N), &m);
    assert_int_equal(linnet_secagg_device_take_sharers(d, m.bytes, m.n_bytes, NULL), LINNET_OK);
    remember_device(&f, 0, forger_all(N), false);
    assert_int_equal(count_found(true, true), 0);
    assert_int_equal(linnet_secagg_device_mask(d, 0, 0, FORGER_COORDINATES, y, NULL), LINNET_OK);
    assert_int_equal(count_found(true, true), 0);
    assert_int_equal(linnet_secagg_device_save(d, &record, NULL), LINNET_OK);
    assert_int_equal(
        linnet_secagg_device_load(&f.params, f.m[0].identity, record.bytes, record.n_bytes, &copy, NULL),
        LINNET_OK);
    linnet_wipe(record.bytes, record.n_bytes);
    assert_int_equal(count_found(true, true), 0);
    linnet_secagg_device_destroy(copy);
    linnet_buffer_release(&record);
    linnet_buffer_release(&m);
    forger_release(&f);
}

static void a_new_device_has_secrets_in_guarded_pages_only(void **state)
{
    (void)state;
    forger f;
    linnet_buffer m2 = {0};
    skip_where_sanitized();
    start(&f, LINNET_SECAGG_ADVERTISED, forger_all(N));
    remember_device(&f, N - 1, forger_all(N), false); /* the last one made */
    assert_int_equal(count_found(true, true), 0);
    forger_m2(&f, &m2);
    assert_int_equal(
        linnet_secagg_device_take_roster(f.m[N - 1].device, &f.trust, m2.bytes, m2.n_bytes, NULL), LINNET_OK);
    assert_int_equal(count_found(true, true), 0);
    linnet_buffer_release(&m2);
    forger_release(&f);
}

static void destroyed_devices_leave_nothing(void **state)
{
    (void)state;
    skip_where_sanitized();
    for (int phase = LINNET_SECAGG_ADVERTISED; phase <= LINNET_SECAGG_ATTESTED; phase++) {
        forger f;
        start(&f, (linnet_secagg_phase)phase, forger_all(N));
        for (uint32_t i = 0; i < N; i++)
            remember_device(&f, i, forger_all(N), false);
        destroy_devices(&f, 0);
        assert_int_equal(n_found(), 0);
        forger_release(&f);
    }
}

static void a_released_device_keeps_what_it_told_and_no_more(void **state)
{
    (void)state;
    forger f;
    forger_set u3 = forger_without(forger_all(N), 3);
    linnet_buffer m8 = {0};
    skip_where_sanitized();
    start(&f, LINNET_SECAGG_ATTESTED, u3);
    remember_device(&f, 0, u3, true);
    (void)forger_m8(&f, &f.m[0].device->t2, u3, &m8);
    assert_int_equal(linnet_secagg_device_take_certificate(f.m[0].device, m8.bytes, m8.n_bytes, NULL),
                     LINNET_OK);
    destroy_devices(&f, 1);
    assert_int_equal(n_found(), 0);
    linnet_buffer_release(&m8);
    forger_release(&f);
}

static void an_excluded_device_keeps_nothing(void **state)
{
    (void)state;
    forger f;
    forger_set u3 = forger_without(forger_all(N), 0);
    linnet_buffer m8 = {0};
    skip_where_sanitized();
    start(&f, LINNET_SECAGG_MASKING, forger_all(N));
    remember_device(&f, 0, u3, false);
    (void)forger_m8(&f, &f.m[0].device->t2, u3, &m8);
    assert_int_equal(linnet_secagg_device_take_certificate(f.m[0].device, m8.bytes, m8.n_bytes, NULL),
                     LINNET_OK);
    destroy_devices(&f, 1);
    assert_int_equal(n_found(), 0);
    linnet_buffer_release(&m8);
    forger_release(&f);
}

static void an_aborted_device_keeps_nothing(void **state)
{
    (void)state;
    skip_where_sanitized();
    for (int phase = LINNET_SECAGG_ADVERTISED; phase <= LINNET_SECAGG_ATTESTED; phase++)
        for (int how = 0; how < 2; how++) {
            forger f;
            uint8_t message[LINNET_ABORT_BYTES];
            start(&f, (linnet_secagg_phase)phase, forger_all(N));
            remember_device(&f, 0, forger_all(N), false);
            linnet_secagg_device *d = f.m[0].device;
            if (how == 0)
                linnet_secagg_device_abort(d, LINNET_ABORT_TIME, message);
            else
                assert_int_not_equal(linnet_secagg_device_take_roster(d, &f.trust, "x", 1, NULL), LINNET_OK);
            assert_int_equal(linnet_secagg_device_phase(d), LINNET_SECAGG_ABORTED);
            destroy_devices(&f, 1);
            assert_int_equal(n_found(), 0);
            forger_release(&f);
        }
}

/* Boxes that do not open: what was decrypted before is gone too. */
static void a_refused_list_of_sharers_leaves_nothing(void **state)
{
    (void)state;
    forger f;
    linnet_buffer m4 = {0};
    skip_where_sanitized();
    start(&f, LINNET_SECAGG_SHARED, forger_all(N));
    remember_device(&f, 0, forger_all(N), false);
    forger_m4(&f, 0, &f.m[0].device->t1, forger_all(N), &m4);
    for (size_t k = 1; k <= 3; k++)
        m4.bytes[m4.n_bytes - k * LINNET_SHARE_BOX_BYTES] ^= 1;
    assert_int_equal(linnet_secagg_device_take_sharers(f.m[0].device, m4.bytes, m4.n_bytes, NULL),
                     LINNET_ERR_CRYPTO);
    destroy_devices(&f, 1);
    assert_int_equal(n_found(), 0);
    linnet_buffer_release(&m4);
    forger_release(&f);
}

/* The caller wipes the record itself. */
static void saving_and_loading_leave_nothing(void **state)
{
    (void)state;
    skip_where_sanitized();
    for (int phase = LINNET_SECAGG_SHARED; phase <= LINNET_SECAGG_ATTESTED; phase++) {
        forger f;
        linnet_buffer record = {0};
        linnet_secagg_device *copy = NULL;
        start(&f, (linnet_secagg_phase)phase, forger_all(N));
        remember_device(&f, 0, forger_all(N), false);
        assert_int_equal(linnet_secagg_device_save(f.m[0].device, &record, NULL), LINNET_OK);
        assert_int_equal(
            linnet_secagg_device_load(&f.params, f.m[0].identity, record.bytes, record.n_bytes, &copy, NULL),
            LINNET_OK);
        linnet_wipe(record.bytes, record.n_bytes);
        linnet_secagg_device_destroy(copy);
        destroy_devices(&f, 0);
        assert_int_equal(n_found(), 0);
        linnet_buffer_release(&record);
        forger_release(&f);
    }
}

/* ---- the coordinator ---- */

static linnet_secagg_server *served(forger *f, forger_set u3)
{
    linnet_secagg_server *server = NULL;
    size_t n;
    assert_int_equal(linnet_secagg_server_create(&f->params, f->coordinator, &server, NULL), LINNET_OK);
    for (uint32_t i = 0; i < N; i++)
        assert_int_equal(linnet_secagg_server_advert(server, &f->trust, f->m[i].device->advert,
                                                     LINNET_ADVERT_BYTES, true, NULL),
                         LINNET_OK);
    assert_int_equal(linnet_secagg_server_close_roster(server, NULL), LINNET_OK);
    for (uint32_t i = 0; i < N; i++) {
        const uint8_t *m3 = linnet_secagg_device_shares(f->m[i].device, &n);
        assert_int_equal(linnet_secagg_server_shares(server, m3, n, true, NULL), LINNET_OK);
    }
    assert_int_equal(linnet_secagg_server_close_sharers(server, NULL), LINNET_OK);
    for (uint32_t i = 0; i < N; i++) {
        linnet_device_id id = forger_id(f, i);
        if (linnet_bitmap_has(u3.bits, i))
            assert_int_equal(
                linnet_secagg_server_masked(server, &id, &f->m[i].echo, &f->m[i].header, true, NULL),
                LINNET_OK);
    }
    assert_int_equal(linnet_secagg_server_freeze(server, NULL), LINNET_OK);
    for (uint32_t i = 0; i < N; i++) {
        if (!linnet_bitmap_has(u3.bits, i))
            continue;
        const uint8_t *m7 = linnet_secagg_device_attestation(f->m[i].device, &n);
        assert_int_equal(linnet_secagg_server_attestation(server, m7, n, true, NULL), LINNET_OK);
        const uint8_t *m9 = linnet_secagg_device_unmask(f->m[i].device, &n);
        assert_int_equal(linnet_secagg_server_unmasking(server, m9, n, true, NULL), LINNET_OK);
    }
    return server;
}

static void a_destroyed_coordinator_leaves_nothing(void **state)
{
    (void)state;
    skip_where_sanitized();
    for (int lies = 0; lies < 2; lies++) {
        forger f;
        forger_set u3 = forger_without(forger_all(N), 3);
        linnet_buffer m8 = {0};
        uint32_t sum[FORGER_COORDINATES] = {0}, n_wrong;
        start(&f, LINNET_SECAGG_ATTESTED, u3);
        for (uint32_t i = 0; i < N; i++)
            remember_device(&f, i, u3, false);
        (void)forger_m8(&f, &f.m[0].device->t2, u3, &m8);
        for (uint32_t i = 0; i < N; i++)
            if (i != 3)
                assert_int_equal(
                    linnet_secagg_device_take_certificate(f.m[i].device, m8.bytes, m8.n_bytes, NULL),
                    LINNET_OK);
        linnet_secagg_server *server = served(&f, u3);
        destroy_devices(&f, 0);
        if (lies) /* another way of rebuilding */
            server->members[0].unmask[5] ^= 1;
        assert_int_equal(linnet_secagg_server_open(server, &n_wrong, NULL), LINNET_OK);
        assert_int_equal(n_wrong, lies);
        assert_int_equal(linnet_secagg_server_unmask(server, 0, 0, FORGER_COORDINATES, sum, NULL), LINNET_OK);
        assert_true(count_found(false, false) > 0); /* as long as it lives it must know them */
        linnet_secagg_server_destroy(server);
        assert_int_equal(n_found(), 0);
        linnet_buffer_release(&m8);
        forger_release(&f);
    }
}

/* ---- lack of memory ---- */

/* Call `call` with the first, the second, ... allocation failing until it needs no more of them: NOMEM each
 * time, and nothing has changed, since it goes on to work on the same machine. */
#define UNTIL_IT_WORKS(call)                                                                                 \
    do {                                                                                                     \
        linnet_status status_ = LINNET_ERR_NOMEM;                                                            \
        for (unsigned at_ = 1; status_ == LINNET_ERR_NOMEM; at_++) {                                         \
            fail_in = at_;                                                                                   \
            status_ = (call);                                                                                \
            bool has_failed_ = fail_in == 0;                                                                 \
            fail_in = 0;                                                                                     \
            if (status_ != (has_failed_ ? LINNET_ERR_NOMEM : LINNET_OK))                                     \
                fail_msg("allocation %u: %s", at_, linnet_status_name(status_));                             \
            n_failures += has_failed_;                                                                       \
        }                                                                                                    \
    } while (0)

static void a_device_survives_lack_of_memory(void **state)
{
    (void)state;
    forger f;
    forger_set all = forger_all(N);
    linnet_buffer m = {0}, record = {0}, again = {0};
    linnet_secagg_device *d = NULL, *copy = NULL;
    uint8_t y[3 * FORGER_COORDINATES];
    unsigned n_failures = 0;
    size_t n_m3, n_m9;
    start(&f, LINNET_SECAGG_ADVERTISED, all);
    UNTIL_IT_WORKS(linnet_secagg_device_create(&f.params, f.m[0].identity, f.m[0].certificate, &d, NULL));
    linnet_secagg_device_destroy(f.m[0].device);
    f.m[0].device = d;
    forger_m2(&f, &m);
    UNTIL_IT_WORKS(linnet_secagg_device_take_roster(d, &f.trust, m.bytes, m.n_bytes, NULL));
    assert_non_null(linnet_secagg_device_shares(d, &n_m3));
    for (uint32_t i = 1; i < N; i++)
        forger_step(&f, i, LINNET_SECAGG_ADVERTISED, all, all, &m);
    forger_m4(&f, 0, &d->t1, all, &m);
    m.bytes[m.n_bytes - 1] ^= 1; /* a box that does not open: a complaint is made too */
    UNTIL_IT_WORKS(linnet_secagg_device_take_sharers(d, m.bytes, m.n_bytes, NULL));
    assert_int_equal(d->complaints.n_bytes, LINNET_COMPLAINT_BYTES);
    forger_mask(&f, 0, y);
    for (uint32_t i = 1; i < N; i++)
        forger_step(&f, i, LINNET_SECAGG_SHARED, all, all, &m);
    (void)forger_m6(&f, &d->t2, all, &m);
    UNTIL_IT_WORKS(linnet_secagg_device_take_survivors(d, m.bytes, m.n_bytes, NULL));
    UNTIL_IT_WORKS(linnet_secagg_device_save(d, &record, NULL));
    UNTIL_IT_WORKS(
        linnet_secagg_device_load(&f.params, f.m[0].identity, record.bytes, record.n_bytes, &copy, NULL));
    assert_int_equal(linnet_secagg_device_save(copy, &again, NULL), LINNET_OK);
    assert_int_equal(again.n_bytes, record.n_bytes);
    assert_memory_equal(again.bytes, record.bytes, record.n_bytes);
    (void)forger_m8(&f, &d->t2, all, &m);
    UNTIL_IT_WORKS(linnet_secagg_device_take_certificate(d, m.bytes, m.n_bytes, NULL));
    assert_non_null(linnet_secagg_device_unmask(d, &n_m9));
    assert_true(n_failures >= 15);
    linnet_secagg_device_destroy(copy);
    linnet_buffer_release(&m);
    linnet_buffer_release(&record);
    linnet_buffer_release(&again);
    forger_release(&f);
}

static linnet_status read_share(void *context, uint32_t owner, size_t offset, void *bytes, size_t n_bytes,
                                linnet_error *err)
{
    size_t n;
    const forger *f = context;
    const uint8_t *m3 = linnet_secagg_device_shares(f->m[owner].device, &n);
    (void)err;
    assert_true(m3 && offset + n_bytes <= n);
    memcpy(bytes, m3 + offset, n_bytes);
    return LINNET_OK;
}

/* What is made is appended: a failed try may leave a part of a message, which the caller throws away. */
static linnet_status make(linnet_buffer *b, const linnet_secagg_server *server, forger *f, int what)
{
    linnet_device_id id = forger_id(f, 0);
    linnet_buffer_release(b);
    return what == 0   ? linnet_secagg_server_make_roster(server, b, NULL)
           : what == 1 ? linnet_secagg_server_make_sharers(server, &id, read_share, f, b, NULL)
           : what == 2 ? linnet_secagg_server_make_survivors(server, b, NULL)
                       : linnet_secagg_server_make_certificate(server, b, NULL);
}

/* Counting needs no memory after a check that was OK. */
#define CHECKED(call_with, ...)                                                                              \
    do {                                                                                                     \
        UNTIL_IT_WORKS(call_with(__VA_ARGS__, false, NULL));                                                 \
        fail_in = 1;                                                                                         \
        assert_int_equal(call_with(__VA_ARGS__, true, NULL), LINNET_OK);                                     \
        assert_int_equal(fail_in, 1);                                                                        \
        fail_in = 0;                                                                                         \
    } while (0)

static void a_coordinator_survives_lack_of_memory(void **state)
{
    (void)state;
    forger f;
    forger_set all = forger_all(N), u3 = forger_without(all, 3);
    linnet_buffer b = {0};
    linnet_secagg_server *s = NULL;
    unsigned n_failures = 0;
    uint32_t n_wrong;
    size_t n;
    start(&f, LINNET_SECAGG_RELEASED, u3);
    UNTIL_IT_WORKS(linnet_secagg_server_create(&f.params, f.coordinator, &s, NULL));
    for (uint32_t i = 0; i < N; i++)
        CHECKED(linnet_secagg_server_advert, s, &f.trust, f.m[i].device->advert, LINNET_ADVERT_BYTES);
    UNTIL_IT_WORKS(linnet_secagg_server_close_roster(s, NULL));
    UNTIL_IT_WORKS(make(&b, s, &f, 0));
    for (uint32_t i = 0; i < N; i++) {
        const uint8_t *m3 = linnet_secagg_device_shares(f.m[i].device, &n);
        CHECKED(linnet_secagg_server_shares, s, m3, n);
    }
    UNTIL_IT_WORKS(linnet_secagg_server_close_sharers(s, NULL));
    UNTIL_IT_WORKS(make(&b, s, &f, 1));
    for (uint32_t i = 0; i < N; i++) {
        linnet_device_id id = forger_id(&f, i);
        if (i != 3)
            CHECKED(linnet_secagg_server_masked, s, &id, &f.m[i].echo, &f.m[i].header);
    }
    UNTIL_IT_WORKS(linnet_secagg_server_freeze(s, NULL));
    UNTIL_IT_WORKS(make(&b, s, &f, 2));
    for (uint32_t i = 0; i < N; i++) {
        if (i == 3)
            continue;
        const uint8_t *m7 = linnet_secagg_device_attestation(f.m[i].device, &n);
        CHECKED(linnet_secagg_server_attestation, s, m7, n);
        const uint8_t *m9 = linnet_secagg_device_unmask(f.m[i].device, &n);
        CHECKED(linnet_secagg_server_unmasking, s, m9, n);
    }
    UNTIL_IT_WORKS(make(&b, s, &f, 3));
    s->members[0].unmask[5] ^= 1; /* a liar: other ways of rebuilding run out of memory too */
    UNTIL_IT_WORKS(linnet_secagg_server_open(s, &n_wrong, NULL));
    for (uint32_t i = 1; i < N; i++)
        assert_false(s->members[i].is_wrong); /* lack of memory is nobody's lie */
    assert_true(s->members[0].is_wrong);
    assert_int_equal(n_wrong, 1);
    assert_true(n_failures >= 20);
    linnet_buffer_release(&b);
    linnet_secagg_server_destroy(s);
    forger_release(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_search_finds_what_is_there),
        cmocka_unit_test(secrets_live_in_guarded_pages_only),
        cmocka_unit_test(a_new_device_has_secrets_in_guarded_pages_only),
        cmocka_unit_test(destroyed_devices_leave_nothing),
        cmocka_unit_test(a_released_device_keeps_what_it_told_and_no_more),
        cmocka_unit_test(an_excluded_device_keeps_nothing),
        cmocka_unit_test(an_aborted_device_keeps_nothing),
        cmocka_unit_test(a_refused_list_of_sharers_leaves_nothing),
        cmocka_unit_test(saving_and_loading_leave_nothing),
        cmocka_unit_test(a_destroyed_coordinator_leaves_nothing),
        cmocka_unit_test(a_device_survives_lack_of_memory),
        cmocka_unit_test(a_coordinator_survives_lack_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
