/* SPDX-License-Identifier: Apache-2.0 */
/* What a whole round of secure aggregation costs: real machines, real messages, real vectors with discrete
 * Gaussian noise, in two processes. The coordinator's process holds nothing but the coordinator's part, so
 * that its peak memory is its own; the other one plays all devices in turn. Both talk over a socket pair that
 * is not timed, and processor time is read around each step on the thread's own clock.
 *
 * The cohort is played up to M5 once. Devices upload one after the other, and at each wanted number of
 * survivors both processes fork: the children freeze the round, which is the costly moment to lose a device
 * (all of its pair masks must come off again), open it, and compare the sum, coordinate by coordinate.
 *
 * Left out: the channel's sealing of messages, the network, the store (M3 lies in a file), and training.
 * With --slice all but the sampled devices mask the first coordinates only and the coordinator unmasks only
 * those; its folding and unmasking are then scaled by length / slice, which the output says. Masks cost the
 * same for every chunk. */
#include "linnet/dp_encode.h"
#include "linnet/messages.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SAMPLED 8 /* devices that are timed over the whole vector */
#define DROPS_MAX 8
#define CHUNK_BYTES_MAX (4 * LINNET_PACK_CHUNK)

/* ---- small things ---- */

static void must(linnet_status status, const linnet_error *err)
{
    if (status == LINNET_OK)
        return;
    (void)fprintf(stderr, "bench_secagg_round: %s: %s\n", linnet_status_text(status),
                  err ? err->message : "");
    exit(1);
}

static void *must_have(void *memory)
{
    must(memory ? LINNET_OK : LINNET_ERR_NOMEM, NULL);
    return memory;
}

static double cpu_seconds(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now); /* cannot fail for this clock */
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static uint64_t peak_bytes(void)
{
    struct rusage usage;
    (void)getrusage(RUSAGE_SELF, &usage); /* cannot fail for this process */
    return (uint64_t)usage.ru_maxrss * 1024;
}

static void write_all(int fd, const void *bytes, size_t n_bytes)
{
    const uint8_t *p = bytes;
    while (n_bytes > 0) {
        ssize_t n = write(fd, p, n_bytes);
        must(n > 0 ? LINNET_OK : LINNET_ERR_IO, NULL);
        p += n;
        n_bytes -= (size_t)n;
    }
}

/* False where the other end has closed. */
static bool read_all(int fd, void *bytes, size_t n_bytes)
{
    uint8_t *p = bytes;
    while (n_bytes > 0) {
        ssize_t n = read(fd, p, n_bytes);
        if (n <= 0)
            return false;
        p += n;
        n_bytes -= (size_t)n;
    }
    return true;
}

/* ---- what both processes know ---- */

typedef struct setup {
    uint32_t n;
    uint64_t length, slice; /* coordinates; slice <= length, whole chunks unless it is the length */
    linnet_secagg_params params;
    linnet_ring_spec ring;
    linnet_dp_spec dp;
    linnet_secagg_trust trust;
    linnet_public_key authority_key;
    linnet_identity *coordinator, *authority;
    linnet_identity **identities;
    uint8_t (*certificates)[LINNET_SIGNED_CERTIFICATE_BYTES];
} setup;

static void setup_encoding(setup *s, uint32_t bits)
{
    linnet_secagg_thresholds thresholds = linnet_secagg_thresholds_of(&s->params, s->n);
    s->ring = (linnet_ring_spec){.length = s->length, .bits = bits, .exponent = 15, .weight_max = 1};
    s->dp = (linnet_dp_spec){.clip = 1};
    while (s->dp.sigma2 == 0 && s->ring.exponent > 0) { /* small cohorts need a coarser lattice */
        s->ring.exponent--;
        uint64_t bound2 = linnet_dp_bound2(s->dp.clip, s->ring.exponent, s->length);
        s->dp.sigma2 = linnet_dp_device_variance(1, bound2, s->params.m_min - thresholds.corrupt);
    }
    s->ring.clamp = linnet_dp_clamp_max(bits, s->n, s->dp.sigma2);
    linnet_error err = {0};
    must(linnet_dp_check(&s->ring, &s->dp, s->n, &err), &err);
}

static void setup_init(setup *s, uint32_t n, uint64_t length, uint64_t slice, uint32_t bits)
{
    linnet_error err = {0};
    *s = (setup){.n = n, .length = length, .slice = slice};
    must(linnet_identity_create(&s->coordinator, &err), &err);
    must(linnet_identity_create(&s->authority, &err), &err);
    s->authority_key = *linnet_identity_public_key(s->authority);
    s->trust = (linnet_secagg_trust){.authority = &s->authority_key, .now_s = 1000};
    s->params = (linnet_secagg_params){.coordinator = *linnet_identity_public_key(s->coordinator),
                                       .n_min = n,
                                       .n_max = n,
                                       .m_min = n * 6 / 10,
                                       .corrupt_permille = 50,
                                       .n_vectors = 1,
                                       .vectors = {{.id = 0, .bits = bits, .length = length}}};
    linnet_random_bytes(&s->params.announcement, sizeof(s->params.announcement));
    setup_encoding(s, bits);
    s->identities = must_have(calloc(n, sizeof(*s->identities)));
    s->certificates = must_have(calloc(n, sizeof(*s->certificates)));
    for (uint32_t i = 0; i < n; i++) {
        must(linnet_identity_create(&s->identities[i], &err), &err);
        linnet_certificate certificate = {.public_key = *linnet_identity_public_key(s->identities[i]),
                                          .serial = i + 1,
                                          .not_before = 1,
                                          .not_after = 5000};
        certificate.device_id = linnet_device_id_of(&certificate.public_key);
        linnet_certificate_sign(&certificate, s->authority, s->certificates[i]);
    }
}

static void setup_release(setup *s)
{
    for (uint32_t i = 0; i < s->n; i++)
        linnet_identity_destroy(s->identities[i]);
    free(s->identities);
    free(s->certificates);
    linnet_identity_destroy(s->coordinator);
    linnet_identity_destroy(s->authority);
}

static size_t chunk_of(uint64_t length, uint64_t first)
{
    return length - first < LINNET_PACK_CHUNK ? (size_t)(length - first) : LINNET_PACK_CHUNK;
}

/* One request or answer: this, then n_bytes. */
typedef enum operation {
    OP_ADVERT,
    OP_ROSTER,
    OP_SHARES,
    OP_SHARERS,
    OP_UPLOAD, /* payload: the signed header; the packed bytes, n_packed of them, follow */
    OP_BRANCH,
    OP_SURVIVORS,
    OP_ATTEST,
    OP_CERTIFICATE,
    OP_UNMASK,
    OP_OPEN, /* answers with costs, then the sum of the slice */
} operation;

typedef struct frame {
    uint32_t op, device; /* device: by creation */
    uint64_t n_bytes, n_packed;
} frame;

/* ---- the coordinator's process ---- */

typedef struct costs {
    double messages, fold, open, unmask; /* processor seconds */
    uint64_t memory_bytes;               /* peak beyond the start and the accumulator */
} costs;

typedef struct coordinator {
    const setup *setup;
    int fd;
    linnet_secagg_server *server;
    FILE *shares; /* all M3, by roster index */
    size_t n_m3;
    uint32_t *sum;
    linnet_buffer in, out;
    costs costs;
    uint64_t start_bytes;
} coordinator;

static linnet_status read_shares(void *context, uint32_t owner, size_t offset, void *bytes, size_t n_bytes,
                                 linnet_error *err)
{
    const coordinator *c = context;
    off_t at = (off_t)(owner * c->n_m3 + offset);
    if (pread(fileno(c->shares), bytes, n_bytes, at) != (ssize_t)n_bytes)
        return linnet_fail_errno(err, errno, "stored shares");
    return LINNET_OK;
}

static linnet_device_id device_of(const setup *s, uint32_t device)
{
    return linnet_device_id_of(linnet_identity_public_key(s->identities[device]));
}

typedef linnet_status take_fn(linnet_secagg_server *server, const void *bytes, size_t n_bytes, bool commit,
                              linnet_error *err);

/* Checked and then counted, as a round does that stores in between. */
static void take(coordinator *c, take_fn *message)
{
    linnet_error err = {0};
    must(message(c->server, c->in.bytes, c->in.n_bytes, false, &err), &err);
    must(message(c->server, c->in.bytes, c->in.n_bytes, true, &err), &err);
}

static void take_advert(coordinator *c)
{
    linnet_error err = {0};
    const linnet_secagg_trust *trust = &c->setup->trust;
    must(linnet_secagg_server_advert(c->server, trust, c->in.bytes, c->in.n_bytes, false, &err), &err);
    must(linnet_secagg_server_advert(c->server, trust, c->in.bytes, c->in.n_bytes, true, &err), &err);
}

static void take_shares(coordinator *c, const frame *f)
{
    linnet_error err = {0};
    linnet_device_id id = device_of(c->setup, f->device);
    take(c, linnet_secagg_server_shares);
    c->n_m3 = c->in.n_bytes;
    off_t at = (off_t)((size_t)linnet_secagg_server_index(c->server, &id) * c->n_m3);
    if (pwrite(fileno(c->shares), c->in.bytes, c->n_m3, at) != (ssize_t)c->n_m3)
        must(linnet_fail_errno(&err, errno, "storing shares"), &err);
}

static void make_sharers(coordinator *c, const frame *f)
{
    linnet_error err = {0};
    linnet_device_id id = device_of(c->setup, f->device);
    if (linnet_secagg_server_phase_of(c->server) == LINNET_SERVER_ROSTER)
        must(linnet_secagg_server_close_sharers(c->server, &err), &err);
    must(linnet_secagg_server_make_sharers(c->server, &id, read_shares, c, &c->out, &err), &err);
}

/* Chunk by chunk as they come: hashed, and the slice folded. */
static linnet_hash take_packed(coordinator *c, uint64_t n_packed)
{
    uint8_t chunk[CHUNK_BYTES_MAX];
    linnet_hasher hasher;
    uint32_t bits = c->setup->ring.bits;
    size_t chunk_bytes = linnet_pack_bytes(bits, LINNET_PACK_CHUNK);
    linnet_hasher_init(&hasher, LINNET_LABEL_VECTOR);
    for (uint64_t at = 0, first = 0; at < n_packed; at += chunk_bytes, first += LINNET_PACK_CHUNK) {
        size_t n = n_packed - at < chunk_bytes ? (size_t)(n_packed - at) : chunk_bytes;
        must(read_all(c->fd, chunk, n) ? LINNET_OK : LINNET_ERR_IO, NULL);
        if (first >= c->setup->slice)
            continue;
        double start = cpu_seconds();
        linnet_hasher_update(&hasher, chunk, n);
        linnet_pack_add(bits, chunk, chunk_of(c->setup->slice, first), c->sum + first);
        c->costs.fold += cpu_seconds() - start;
    }
    return linnet_hasher_final(&hasher);
}

static void take_upload(coordinator *c, const frame *f)
{
    linnet_error err = {0};
    linnet_signed header;
    linnet_upload_header parsed;
    linnet_device_id id = device_of(c->setup, f->device);
    linnet_hash echo = take_packed(c, f->n_packed);
    double start = cpu_seconds();
    must(linnet_signed_open(c->in.bytes, c->in.n_bytes, &header, &err), &err);
    must(linnet_verify(linnet_identity_public_key(c->setup->identities[f->device]), LINNET_LABEL_MASKED,
                       header.body, header.n_body, &header.signature),
         NULL);
    must(linnet_upload_header_unpack(header.body, header.n_body, &parsed, &err), &err);
    must(linnet_hash_equal(&echo, &parsed.echo) ? LINNET_OK : LINNET_ERR_MISMATCH, NULL);
    must(linnet_secagg_server_masked(c->server, &id, &echo, &header.signature, true, &err), &err);
    c->costs.messages += cpu_seconds() - start;
}

static void open_round(coordinator *c)
{
    linnet_error err = {0};
    double start = cpu_seconds();
    must(linnet_secagg_server_open(c->server, NULL, &err), &err);
    double opened = cpu_seconds();
    for (uint64_t first = 0; first < c->setup->slice; first += LINNET_PACK_CHUNK)
        must(linnet_secagg_server_unmask(c->server, 0, first, chunk_of(c->setup->slice, first),
                                         c->sum + first, &err),
             &err);
    c->costs.open = opened - start;
    c->costs.unmask = cpu_seconds() - opened;
    uint64_t apart = c->start_bytes + c->setup->slice * sizeof(*c->sum), peak = peak_bytes();
    c->costs.memory_bytes = peak > apart ? peak - apart : 0;
    linnet_buffer_append(&c->out, &c->costs, sizeof(c->costs));
    linnet_buffer_append(&c->out, c->sum, (size_t)c->setup->slice * sizeof(*c->sum));
}

static void serve_message(coordinator *c, const frame *f)
{
    linnet_error err = {0};
    double start = cpu_seconds();
    switch ((operation)f->op) {
    case OP_ADVERT:
        take_advert(c);
        break;
    case OP_ROSTER:
        must(linnet_secagg_server_close_roster(c->server, &err), &err);
        must(linnet_secagg_server_make_roster(c->server, &c->out, &err), &err);
        break;
    case OP_SHARES:
        take_shares(c, f);
        break;
    case OP_SHARERS:
        make_sharers(c, f);
        break;
    case OP_SURVIVORS:
        must(linnet_secagg_server_freeze(c->server, &err), &err);
        must(linnet_secagg_server_make_survivors(c->server, &c->out, &err), &err);
        break;
    case OP_ATTEST:
        take(c, linnet_secagg_server_attestation);
        break;
    case OP_CERTIFICATE:
        must(linnet_secagg_server_make_certificate(c->server, &c->out, &err), &err);
        break;
    case OP_UNMASK:
        take(c, linnet_secagg_server_unmasking);
        break;
    case OP_UPLOAD:
    case OP_BRANCH:
    case OP_OPEN:
        break;
    }
    c->costs.messages += cpu_seconds() - start;
}

/* In the child: true. The parent waits for the child's end and goes on where both were. */
static bool branch(void)
{
    int ended = 0;
    pid_t child = fork();
    must(child >= 0 ? LINNET_OK : LINNET_ERR_NOMEM, NULL);
    if (child == 0)
        return true;
    if (waitpid(child, &ended, 0) != child || ended != 0)
        exit(1);
    return false;
}

/* Until the other end closes, or in a child until the round is open. */
static void coordinator_run(coordinator *c)
{
    frame f;
    while (read_all(c->fd, &f, sizeof(f))) {
        linnet_buffer_clear(&c->in);
        linnet_buffer_clear(&c->out);
        must(linnet_buffer_reserve(&c->in, f.n_bytes + 1) ? LINNET_OK : LINNET_ERR_NOMEM, NULL);
        must(read_all(c->fd, c->in.bytes, f.n_bytes) ? LINNET_OK : LINNET_ERR_IO, NULL);
        c->in.n_bytes = f.n_bytes;
        if (f.op == OP_BRANCH && !branch())
            continue; /* the child answered */
        if (f.op == OP_UPLOAD)
            take_upload(c, &f);
        else if (f.op == OP_OPEN)
            open_round(c);
        else
            serve_message(c, &f);
        must(c->out.failed ? LINNET_ERR_NOMEM : LINNET_OK, NULL);
        f.n_bytes = c->out.n_bytes;
        write_all(c->fd, &f, sizeof(f));
        write_all(c->fd, c->out.bytes, c->out.n_bytes);
        if (f.op == OP_OPEN)
            break;
    }
}

static void coordinator_main(const setup *s, int fd)
{
    linnet_error err = {0};
    coordinator c = {.setup = s, .fd = fd, .start_bytes = peak_bytes()};
    c.shares = must_have(tmpfile());
    c.sum = must_have(calloc((size_t)s->slice, sizeof(*c.sum)));
    must(linnet_secagg_server_create(&s->params, s->coordinator, &c.server, &err), &err);
    coordinator_run(&c);
    linnet_secagg_server_destroy(c.server);
    linnet_buffer_release(&c.in);
    linnet_buffer_release(&c.out);
    free(c.sum);
    (void)fclose(c.shares); /* a temporary file */
}

/* ---- the devices' process ---- */

/* clang-format off */
#define PHASE_LIST(X) \
    X(ADVERT, "M1") X(ENCODE, "encode") X(SHARES, "M2-M3") X(SHARERS, "M4") X(MASKS, "masks") \
    X(ATTEST, "M6-M7") X(UNMASK, "M8-M9")
/* clang-format on */
enum {
#define PHASE_ENUM(name, text) PHASE_##name,
    PHASE_LIST(PHASE_ENUM)
#undef PHASE_ENUM
        PHASES
};
static const char *const phase_names[] = {
#define PHASE_TEXT(name, text) text,
    PHASE_LIST(PHASE_TEXT)
#undef PHASE_TEXT
};

typedef struct cohort {
    const setup *setup;
    int fd;
    bool json;
    linnet_secagg_device **devices;
    double (*cost)[PHASES]; /* of each device, seconds */
    uint64_t n_up, n_down;  /* bytes of device 0, the packed vector included */
    uint32_t *want;         /* sum of the survivors' plain values in the slice */
    linnet_buffer answer;   /* to the last request */
} cohort;

static void ask(cohort *c, operation op, uint32_t device, const void *bytes, size_t n_bytes,
                const linnet_buffer *packed)
{
    frame f = {.op = op, .device = device, .n_bytes = n_bytes, .n_packed = packed ? packed->n_bytes : 0};
    write_all(c->fd, &f, sizeof(f));
    write_all(c->fd, bytes, n_bytes);
    if (packed)
        write_all(c->fd, packed->bytes, packed->n_bytes);
    must(read_all(c->fd, &f, sizeof(f)) ? LINNET_OK : LINNET_ERR_IO, NULL);
    linnet_buffer_clear(&c->answer);
    must(linnet_buffer_reserve(&c->answer, f.n_bytes + 1) ? LINNET_OK : LINNET_ERR_NOMEM, NULL);
    must(read_all(c->fd, c->answer.bytes, f.n_bytes) ? LINNET_OK : LINNET_ERR_IO, NULL);
    c->answer.n_bytes = f.n_bytes;
    if (device == 0)
        c->n_up += n_bytes + (packed ? packed->n_bytes : 0);
}

static void play_adverts(cohort *c)
{
    linnet_error err = {0};
    size_t n_bytes;
    for (uint32_t i = 0; i < c->setup->n; i++) {
        double start = cpu_seconds();
        must(linnet_secagg_device_create(&c->setup->params, c->setup->identities[i],
                                         c->setup->certificates[i], &c->devices[i], &err),
             &err);
        c->cost[i][PHASE_ADVERT] = cpu_seconds() - start;
        const uint8_t *m1 = linnet_secagg_device_advert(c->devices[i], &n_bytes);
        ask(c, OP_ADVERT, i, m1, n_bytes, NULL);
    }
}

static void play_shares(cohort *c)
{
    linnet_error err = {0};
    linnet_buffer m2;
    size_t n_bytes;
    ask(c, OP_ROSTER, UINT32_MAX, NULL, 0, NULL);
    m2 = c->answer; /* moves */
    c->answer = (linnet_buffer){0};
    c->n_down += m2.n_bytes;
    for (uint32_t i = 0; i < c->setup->n; i++) {
        double start = cpu_seconds();
        must(linnet_secagg_device_take_roster(c->devices[i], &c->setup->trust, m2.bytes, m2.n_bytes, &err),
             &err);
        c->cost[i][PHASE_SHARES] = cpu_seconds() - start;
        const uint8_t *m3 = linnet_secagg_device_shares(c->devices[i], &n_bytes);
        ask(c, OP_SHARES, i, m3, n_bytes, NULL);
    }
    linnet_buffer_release(&m2);
}

/* The same values in every program that is compared: they repeat, and are spread over [-1, 1). */
static void values_make(uint32_t device, float *values, size_t n)
{
    for (size_t k = 0; k < n; k++) {
        uint32_t h = (uint32_t)k * 2654435761u + (device + 1) * 40503u;
        values[k] = (float)(h >> 8) / 8388608.0f - 1.0f;
    }
}

static void encode(const cohort *c, uint32_t i, uint64_t length, linnet_buffer *packed)
{
    linnet_error err = {0};
    linnet_ring_spec ring = c->setup->ring;
    ring.length = length;
    float *values = must_have(calloc((size_t)length, sizeof(*values)));
    values_make(i, values, (size_t)length);
    must(linnet_buffer_reserve(packed, linnet_ring_bytes(&ring)) ? LINNET_OK : LINNET_ERR_NOMEM, NULL);
    double start = cpu_seconds();
    must(linnet_dp_encode(&ring, &c->setup->dp, &c->setup->params.announcement, values, (size_t)length,
                          linnet_system_random, NULL, packed->bytes, &err),
         &err);
    c->cost[i][PHASE_ENCODE] = cpu_seconds() - start;
    packed->n_bytes = linnet_ring_bytes(&ring);
    free(values);
}

/* Masks, Hy and the signed header. */
static void mask(const cohort *c, uint32_t i, uint64_t length, linnet_buffer *packed, linnet_buffer *header)
{
    linnet_error err = {0};
    linnet_buffer body = {0};
    uint32_t bits = c->setup->ring.bits;
    double start = cpu_seconds();
    for (uint64_t first = 0; first < length; first += LINNET_PACK_CHUNK)
        must(linnet_secagg_device_mask(c->devices[i], 0, first, chunk_of(length, first),
                                       packed->bytes + first / 8 * bits, &err),
             &err);
    /* what lies behind the slice is neither hashed nor folded by the coordinator */
    size_t n_hashed = length > c->setup->slice ? linnet_pack_bytes(bits, c->setup->slice) : packed->n_bytes;
    linnet_upload_header h = {.chain = *linnet_secagg_device_t2(c->devices[i]),
                              .device_id = device_of(c->setup, i),
                              .n_vectors = 1,
                              .lengths = {c->setup->length},
                              .n_bytes = packed->n_bytes,
                              .echo = linnet_hash_of(LINNET_LABEL_VECTOR, packed->bytes, packed->n_bytes)};
    double hashed = cpu_seconds();
    if (n_hashed < packed->n_bytes)
        h.echo = linnet_hash_of(LINNET_LABEL_VECTOR, packed->bytes, n_hashed);
    double again = cpu_seconds() - hashed;
    must(linnet_upload_header_pack(&h, &body, &err), &err);
    linnet_signature signature =
        linnet_sign(c->setup->identities[i], LINNET_LABEL_MASKED, body.bytes, body.n_bytes);
    must(linnet_secagg_device_fix_echo(c->devices[i], &h.echo, &signature, &err), &err);
    must(linnet_signed_pack(body.bytes, body.n_bytes, &signature, header, &err), &err);
    c->cost[i][PHASE_MASKS] = cpu_seconds() - start - again;
    linnet_buffer_release(&body);
}

/* M4 to M5 of one device. */
static void play_upload(cohort *c, uint32_t i)
{
    linnet_error err = {0};
    linnet_buffer packed = {0}, header = {0};
    uint64_t length = i < SAMPLED ? c->setup->length : c->setup->slice;
    ask(c, OP_SHARERS, i, NULL, 0, NULL);
    c->n_down += i == 0 ? c->answer.n_bytes : 0;
    double start = cpu_seconds();
    must(linnet_secagg_device_take_sharers(c->devices[i], c->answer.bytes, c->answer.n_bytes, &err), &err);
    c->cost[i][PHASE_SHARERS] = cpu_seconds() - start;
    encode(c, i, length, &packed);
    linnet_pack_add(c->setup->ring.bits, packed.bytes, (size_t)c->setup->slice, c->want);
    mask(c, i, length, &packed, &header);
    ask(c, OP_UPLOAD, i, header.bytes, header.n_bytes, &packed);
    linnet_buffer_release(&packed);
    linnet_buffer_release(&header);
}

static void play_closing(cohort *c, uint32_t n_survivors)
{
    linnet_error err = {0};
    size_t n_bytes;
    ask(c, OP_SURVIVORS, UINT32_MAX, NULL, 0, NULL);
    linnet_buffer m6 = c->answer; /* moves */
    c->answer = (linnet_buffer){0};
    for (uint32_t i = 0; i < n_survivors; i++) {
        double start = cpu_seconds();
        must(linnet_secagg_device_take_survivors(c->devices[i], m6.bytes, m6.n_bytes, &err), &err);
        c->cost[i][PHASE_ATTEST] = cpu_seconds() - start;
        const uint8_t *m7 = linnet_secagg_device_attestation(c->devices[i], &n_bytes);
        ask(c, OP_ATTEST, i, m7, n_bytes, NULL);
    }
    ask(c, OP_CERTIFICATE, UINT32_MAX, NULL, 0, NULL);
    linnet_buffer m8 = c->answer; /* moves */
    c->answer = (linnet_buffer){0};
    c->n_down += m6.n_bytes + m8.n_bytes;
    for (uint32_t i = 0; i < n_survivors; i++) {
        double start = cpu_seconds();
        must(linnet_secagg_device_take_certificate(c->devices[i], m8.bytes, m8.n_bytes, &err), &err);
        c->cost[i][PHASE_UNMASK] = cpu_seconds() - start;
        const uint8_t *m9 = linnet_secagg_device_unmask(c->devices[i], &n_bytes);
        ask(c, OP_UNMASK, i, m9, n_bytes, NULL);
    }
    linnet_buffer_release(&m6);
    linnet_buffer_release(&m8);
}

static bool sum_is_exact(const cohort *c, const uint8_t *bytes)
{
    uint32_t bits = c->setup->ring.bits, modulus = bits == 32 ? UINT32_MAX : (1u << bits) - 1, difference = 0;
    for (uint64_t k = 0; k < c->setup->slice; k++) {
        uint32_t opened;
        memcpy(&opened, bytes + 4 * k, sizeof(opened));
        difference |= (opened ^ c->want[k]) & modulus;
    }
    return difference == 0;
}

/* ---- output ---- */

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Median of a phase over the sampled devices. */
static double phase_seconds(const cohort *c, int phase)
{
    double all[SAMPLED];
    uint32_t n = c->setup->n < SAMPLED ? c->setup->n : SAMPLED;
    for (uint32_t i = 0; i < n; i++)
        all[i] = c->cost[i][phase];
    qsort(all, n, sizeof(all[0]), compare_doubles);
    return n % 2 ? all[n / 2] : (all[n / 2 - 1] + all[n / 2]) / 2;
}

static void print_json(const cohort *c, uint32_t n_survivors, const costs *k, double scale)
{
    const setup *s = c->setup;
    double device = 0;
    (void)printf(
        "{\"n\": %u, \"d\": %llu, \"bits\": %u, \"survivors\": %u, \"threshold\": %u, \"slice\": %llu, ",
        (unsigned)s->n, (unsigned long long)s->length, (unsigned)s->ring.bits, (unsigned)n_survivors,
        (unsigned)linnet_secagg_thresholds_of(&s->params, s->n).shares, (unsigned long long)s->slice);
    for (int p = 0; p < PHASES; p++) {
        (void)printf("\"device_%s_s\": %.6f, ", phase_names[p], phase_seconds(c, p));
        device += phase_seconds(c, p);
    }
    (void)printf("\"device_s\": %.6f, \"up_bytes\": %llu, \"down_bytes\": %llu, \"expansion\": %.4f, ",
                 device, (unsigned long long)c->n_up, (unsigned long long)c->n_down,
                 (double)c->n_up / (double)linnet_ring_bytes(&s->ring));
    (void)printf(
        "\"coordinator_messages_s\": %.4f, \"coordinator_fold_s\": %.4f, \"coordinator_open_s\": %.4f, "
        "\"coordinator_unmask_s\": %.4f, \"coordinator_s\": %.4f, \"coordinator_bytes\": %llu}\n",
        k->messages, scale * k->fold, k->open, scale * k->unmask,
        k->messages + k->open + scale * (k->fold + k->unmask), (unsigned long long)k->memory_bytes);
}

static void print_table(const cohort *c, uint32_t n_survivors, const costs *k, double scale, FILE *out)
{
    const setup *s = c->setup;
    double device = 0;
    (void)fprintf(out, "n = %u, d = %llu, b = %u, %u drop out before M5, the sum is exact\n", (unsigned)s->n,
                  (unsigned long long)s->length, (unsigned)s->ring.bits, (unsigned)(s->n - n_survivors));
    (void)fprintf(out, "  device, ms          ");
    for (int p = 0; p < PHASES; p++) {
        (void)fprintf(out, " %s %.1f", phase_names[p], 1e3 * phase_seconds(c, p));
        device += phase_seconds(c, p);
    }
    (void)fprintf(out, " | all %.1f\n", 1e3 * device);
    (void)fprintf(out, "  device, bytes        up %llu (%.3f of the packed vector) down %llu\n",
                  (unsigned long long)c->n_up, (double)c->n_up / (double)linnet_ring_bytes(&s->ring),
                  (unsigned long long)c->n_down);
    (void)fprintf(out, "  coordinator, s       messages %.2f fold %.2f open %.2f unmask %.2f | all %.2f\n",
                  k->messages, scale * k->fold, k->open, scale * k->unmask,
                  k->messages + k->open + scale * (k->fold + k->unmask));
    (void)fprintf(out, "  coordinator, memory  %.1f MB beyond the accumulator\n",
                  (double)k->memory_bytes / 1e6);
    if (s->slice < s->length)
        (void)fprintf(out, "  fold and unmask were measured on %llu coordinates and multiplied by %.2f\n",
                      (unsigned long long)s->slice, scale);
}

/* Both processes' children play this survivor set to its end. */
static void play_branch(cohort *c, uint32_t n_survivors)
{
    costs k;
    double scale = (double)c->setup->length / (double)c->setup->slice;
    play_closing(c, n_survivors);
    ask(c, OP_OPEN, UINT32_MAX, NULL, 0, NULL);
    memcpy(&k, c->answer.bytes, sizeof(k));
    if (!sum_is_exact(c, c->answer.bytes + sizeof(k))) {
        (void)fprintf(stderr, "bench_secagg_round: the opened sum is wrong\n");
        exit(1);
    }
    print_table(c, n_survivors, &k, scale, c->json ? stderr : stdout);
    if (c->json)
        print_json(c, n_survivors, &k, scale);
}

static void cohort_play(cohort *c, const uint32_t *survivors, size_t n_drops)
{
    uint32_t uploaded = 0;
    play_adverts(c);
    play_shares(c);
    for (size_t k = 0; k < n_drops; k++) {
        for (; uploaded < survivors[k]; uploaded++)
            play_upload(c, uploaded);
        ask(c, OP_BRANCH, UINT32_MAX, NULL, 0, NULL);
        if (branch()) {
            play_branch(c, survivors[k]);
            return;
        }
    }
}

static void cohort_main(const setup *s, int fd, bool json, const uint32_t *survivors, size_t n_drops)
{
    cohort c = {.setup = s, .fd = fd, .json = json};
    c.devices = must_have(calloc(s->n, sizeof(*c.devices)));
    c.cost = must_have(calloc(s->n, sizeof(*c.cost)));
    c.want = must_have(calloc((size_t)s->slice, sizeof(*c.want)));
    cohort_play(&c, survivors, n_drops);
    (void)fflush(stdout);
    for (uint32_t i = 0; i < s->n; i++)
        linnet_secagg_device_destroy(c.devices[i]);
    linnet_buffer_release(&c.answer);
    free(c.devices);
    free(c.cost);
    free(c.want);
}

/* ---- the command line ---- */

typedef struct options {
    uint32_t n, bits, survivors[DROPS_MAX];
    size_t n_drops;
    uint64_t length, slice;
    bool json;
} options;

static int usage(void)
{
    (void)fprintf(stderr,
                  "usage: bench_secagg_round [--json] N D BITS SLICE DROPPED...\n"
                  "  N devices (8 to 1024), D coordinates, BITS 16, 20, 24 or 32; SLICE coordinates are\n"
                  "  played by all devices (0: all); DROPPED per cent, falling, at most 40; with --json the\n"
                  "  table goes to standard error and JSON Lines to standard output\n");
    return 2;
}

static bool options_read(int argc, char **argv, options *o)
{
    int at = 1;
    if (at < argc && strcmp(argv[at], "--json") == 0) {
        o->json = true;
        at++;
    }
    if (argc - at < 5 || argc - at > 4 + DROPS_MAX)
        return false;
    o->n = (uint32_t)strtoul(argv[at], NULL, 10);
    o->length = strtoull(argv[at + 1], NULL, 10);
    o->bits = (uint32_t)strtoul(argv[at + 2], NULL, 10);
    o->slice = strtoull(argv[at + 3], NULL, 10) / LINNET_PACK_CHUNK * LINNET_PACK_CHUNK;
    if (o->slice == 0 || o->slice > o->length)
        o->slice = o->length;
    for (int k = at + 4; k < argc; k++) {
        unsigned long percent = strtoul(argv[k], NULL, 10);
        uint32_t left = percent > 40 ? 0 : o->n - (uint32_t)(o->n * percent / 100);
        if (left == 0 || (o->n_drops > 0 && left < o->survivors[o->n_drops - 1]))
            return false;
        o->survivors[o->n_drops++] = left;
    }
    return o->n >= SAMPLED && o->n <= LINNET_SECAGG_MEMBERS_MAX && o->length > 0 && o->length <= 1u << 28 &&
           linnet_pack_is_width(o->bits);
}

int main(int argc, char **argv)
{
    setup s;
    options o = {0};
    int ends[2], ended = 0;
    linnet_error err = {0};
    if (!options_read(argc, argv, &o))
        return usage();
    must(linnet_crypto_init(&err), &err);
    must(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0 ? LINNET_OK : LINNET_ERR_IO, NULL);
    setup_init(&s, o.n, o.length, o.slice, o.bits);
    pid_t child = fork();
    must(child >= 0 ? LINNET_OK : LINNET_ERR_NOMEM, NULL);
    (void)close(ends[child == 0 ? 0 : 1]); /* the other one's end */
    if (child == 0)
        coordinator_main(&s, ends[1]);
    else
        cohort_main(&s, ends[0], o.json, o.survivors, o.n_drops);
    (void)close(ends[child == 0 ? 1 : 0]); /* tells the coordinator that this was all */
    if (child > 0)
        (void)waitpid(child, &ended, 0); /* fails at once in a branch, whose child this is not */
    setup_release(&s);
    return ended == 0 ? 0 : 1;
}
