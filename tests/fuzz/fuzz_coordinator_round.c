/* SPDX-License-Identifier: Apache-2.0 */
/* Messages of a round with secure aggregation, as a member might send them that follows no rules: its bytes
 * in a message with the right hash, device id and signature, or with none of it, at a coordinator that waits
 * for M1, M3, M5 or M7 and M9. The first byte chooses state, kind and shape. The round may move on by it;
 * then it is made again. Never more sharers than members, or contributions than sharers. */
#include "linnet/channel.h"
#include "linnet/coordinator.h"
#include "linnet/secagg.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes);

#define NOW_MS ((int64_t)1700000000000)
#define MEMBERS 4 /* t = 3, q = 3 */
#define STATES 4

typedef struct member {
    linnet_identity *identity;
    uint8_t certificate[LINNET_SIGNED_CERTIFICATE_BYTES];
    linnet_secagg_device *machine;
    linnet_hash a;
    linnet_announcement announcement;
    linnet_buffer raw; /* of the last answer */
    linnet_answer answer;
    linnet_buffer storage;
} member;

typedef struct world {
    char folder[64];
    linnet_coordinator *coordinator;
    linnet_public_key authority;
    uint8_t channel_key[LINNET_SIGNED_CHANNEL_KEY_BYTES];
    member members[MEMBERS];
    const char *state; /* of the round once it is set up */
} world;

static world worlds[STATES];

static void must(bool is_so)
{
    if (!is_so)
        abort();
}

static void model_write(const char *path)
{
    static const float weights[64];
    linnet_gguf_writer *writer = linnet_gguf_writer_create();
    linnet_gguf_writer_text(writer, "general.architecture", "llama");
    linnet_gguf_writer_u32(writer, "llama.block_count", 1);
    linnet_gguf_writer_u32(writer, "llama.attention.head_count", 2);
    linnet_gguf_writer_tensor(writer, "blk.0.attn_q.weight", LINNET_TENSOR_F32, 2, (const uint64_t[]){8, 8},
                              weights, 256);
    must(linnet_gguf_writer_write(writer, path, NULL) == LINNET_OK);
    linnet_gguf_writer_destroy(writer);
}

/* ---- a member that follows the rules ---- */

static void ask(world *w, member *m, const char *path, const linnet_buffer *header, const uint8_t *raw,
                size_t n_raw)
{
    static const uint8_t none;
    linnet_exchange exchange;
    linnet_frame frame = {.header = header ? header->bytes : &none,
                          .n_header = header ? header->n_bytes : 0,
                          .raw = raw ? raw : &none,
                          .n_raw = n_raw};
    linnet_buffer body = {0}, wire = {0}, plain = {0};
    linnet_http_response response;
    must(linnet_frame_pack(&frame, &body, NULL) == LINNET_OK);
    must(linnet_request_seal(w->channel_key, "POST", path, m->identity, body.bytes, body.n_bytes, &wire,
                             &exchange, NULL) == LINNET_OK);
    linnet_http_request request = {
        .method = "POST", .path = path, .body = wire.bytes, .n_body = wire.n_bytes};
    linnet_coordinator_handle(w->coordinator, NOW_MS, &request, &response);
    linnet_buffer_clear(&m->raw);
    linnet_buffer_clear(&m->storage);
    m->answer = (linnet_answer){0};
    if (response.status == 200) {
        must(linnet_response_open(&exchange, response.body.bytes, response.body.n_bytes, &plain, NULL) ==
                 LINNET_OK &&
             linnet_frame_open(plain.bytes, plain.n_bytes, &frame, NULL) == LINNET_OK &&
             linnet_answer_unpack(frame.header, frame.n_header, &m->storage, &m->answer, NULL) == LINNET_OK);
        linnet_buffer_append(&m->raw, frame.raw, frame.n_raw);
    }
    linnet_http_response_release(&response);
    linnet_exchange_release(&exchange);
    linnet_buffer_release(&body);
    linnet_buffer_release(&wire);
    linnet_buffer_release(&plain);
}

static void say(world *w, member *m, uint32_t kind, const uint8_t *raw, size_t n_raw)
{
    linnet_buffer header = {0};
    const linnet_round_message message = {.announcement = m->a, .kind = kind};
    must(linnet_round_message_pack(&message, &header, NULL) == LINNET_OK);
    ask(w, m, LINNET_PATH_ROUND, &header, raw, n_raw);
    linnet_buffer_release(&header);
}

static void enroll(world *w, member *m, uint8_t number)
{
    char text[LINNET_INVITE_TEXT_MAX];
    linnet_invite invite;
    uint8_t bytes[LINNET_SIGNED_CSR_BYTES], seed[LINNET_SEED_BYTES] = {number};
    must(linnet_identity_from_seed(seed, &m->identity, NULL) == LINNET_OK);
    must(linnet_coordinator_invite(w->coordinator, UINT32_MAX, text, NULL) == LINNET_OK &&
         linnet_invite_read(text, &invite) == LINNET_OK);
    linnet_csr csr = {.public_key = *linnet_identity_public_key(m->identity),
                      .coordinator = invite.coordinator};
    for (size_t i = 0; i < sizeof(csr.token_id); i++)
        csr.token_id[i] = invite.token.id[i];
    linnet_csr_sign(&csr, &invite.token, m->identity, bytes);
    ask(w, m, LINNET_PATH_ENROLL, NULL, bytes, sizeof(bytes));
    must(m->answer.n_certificate == sizeof(m->certificate));
    for (size_t i = 0; i < sizeof(m->certificate); i++)
        m->certificate[i] = m->answer.certificate[i];
}

static void check_in(world *w, member *m)
{
    linnet_signed opened;
    linnet_buffer header = {0};
    linnet_checkin checkin = {0};
    linnet_secagg_params params;
    must(linnet_checkin_pack(&checkin, &header, NULL) == LINNET_OK);
    ask(w, m, LINNET_PATH_CHECKIN, &header, NULL, 0);
    must(linnet_signed_open(m->answer.release, m->answer.n_release, &opened, NULL) == LINNET_OK);
    checkin.has_version = checkin.has_ready = true;
    checkin.ready = linnet_hash_of(LINNET_LABEL_MODEL, opened.body, opened.n_body);
    linnet_buffer_clear(&header);
    must(linnet_checkin_pack(&checkin, &header, NULL) == LINNET_OK);
    ask(w, m, LINNET_PATH_CHECKIN, &header, NULL, 0);
    linnet_buffer_release(&header);
    must(linnet_signed_open(m->answer.announcement, m->answer.n_announcement, &opened, NULL) == LINNET_OK &&
         linnet_announcement_unpack(opened.body, opened.n_body, &m->announcement, NULL) == LINNET_OK);
    m->a = linnet_hash_of(LINNET_LABEL_ANNOUNCE, opened.body, opened.n_body);
    must(linnet_secagg_params_of(&m->announcement, &m->a, &params, NULL) == LINNET_OK &&
         linnet_secagg_device_create(&params, m->identity, m->certificate, &m->machine, NULL) == LINNET_OK);
}

static size_t packed_bytes(const member *m)
{
    size_t n = 0;
    for (uint32_t i = 0; i < m->announcement.n_vectors; i++)
        n += linnet_ring_bytes(&m->announcement.vectors[i]);
    return n;
}

/* An upload of these bytes, whatever they are, in one request. */
static void upload(world *w, member *m, const uint8_t *packed, size_t n, bool fixes)
{
    linnet_buffer body = {0}, header = {0}, message = {0};
    linnet_upload_header h = {.device_id = linnet_device_id_of(linnet_identity_public_key(m->identity)),
                              .n_vectors = m->announcement.n_vectors,
                              .n_bytes = n,
                              .echo = linnet_hash_of(LINNET_LABEL_VECTOR, packed, n)};
    h.chain = *linnet_secagg_device_t2(m->machine);
    for (uint32_t i = 0; i < h.n_vectors; i++)
        h.lengths[i] = m->announcement.vectors[i].length;
    must(linnet_upload_header_pack(&h, &body, NULL) == LINNET_OK);
    linnet_signature signature = linnet_sign(m->identity, LINNET_LABEL_MASKED, body.bytes, body.n_bytes);
    must(linnet_signed_pack(body.bytes, body.n_bytes, &signature, &header, NULL) == LINNET_OK);
    if (fixes)
        must(linnet_secagg_device_fix_echo(m->machine, &h.echo, &signature, NULL) == LINNET_OK);
    const linnet_upload u = {.header = header.bytes, .n_header = header.n_bytes};
    must(linnet_upload_pack(&u, &message, NULL) == LINNET_OK);
    ask(w, m, LINNET_PATH_UPLOAD, &message, packed, n);
    linnet_buffer_release(&body);
    linnet_buffer_release(&header);
    linnet_buffer_release(&message);
}

/* Poll and take what is due, without an answer to it. */
static void hear(world *w, member *m)
{
    const linnet_secagg_trust trust = {.authority = &w->authority};
    say(w, m, LINNET_ROUND_POLL, NULL, 0);
    const uint8_t *raw = m->raw.bytes;
    size_t n = m->raw.n_bytes;
    linnet_status status = LINNET_OK;
    if (m->answer.phase == LINNET_PHASE_ROSTER)
        status = linnet_secagg_device_take_roster(m->machine, &trust, raw, n, NULL);
    else if (m->answer.phase == LINNET_PHASE_SHARERS)
        status = linnet_secagg_device_take_sharers(m->machine, raw, n, NULL);
    else if (m->answer.phase == LINNET_PHASE_SURVIVORS)
        status = linnet_secagg_device_take_survivors(m->machine, raw, n, NULL);
    must(status == LINNET_OK);
}

/* One phase of everybody; the first member hears and says nothing in the last one. */
static void play_phase(world *w, int phase, bool is_last)
{
    uint8_t packed[4096] = {0};
    for (size_t i = 0; i < MEMBERS; i++) {
        member *m = &w->members[i];
        size_t n = 0;
        const uint8_t *out;
        if (phase == 0)
            check_in(w, m);
        else
            hear(w, m);
        if (is_last && i == 0)
            continue;
        out = phase == 0 ? linnet_secagg_device_advert(m->machine, &n)
                         : linnet_secagg_device_shares(m->machine, &n);
        if (phase == 2)
            upload(w, m, packed, packed_bytes(m), true);
        else
            say(w, m, phase == 0 ? LINNET_ROUND_ADVERT : LINNET_ROUND_SHARES, out, n);
    }
}

static linnet_round_report round_now(world *w)
{
    linnet_round_report *rounds = NULL, report;
    size_t n = 0;
    must(linnet_coordinator_rounds(w->coordinator, &rounds, &n, NULL) == LINNET_OK && n > 0);
    report = rounds[0];
    free(rounds);
    return report;
}

static void set_up(world *w, int state)
{
    static unsigned count;
    char path[96], model[96];
    linnet_plan plan;
    linnet_buffer storage = {0};
    linnet_http_request request = {.method = "GET", .path = LINNET_PATH_HELLO};
    linnet_http_response response;
    linnet_hello hello;
    must(linnet_crypto_init(NULL) == LINNET_OK);
    linnet_plan_default(&plan);
    (void)snprintf(plan.name, sizeof(plan.name), "fuzz");
    plan.rank = 2;
    plan.targets = 1u << LINNET_TARGET_ATTN_Q;
    plan.profile = LINNET_PROFILE_SECURE;
    plan.goal = plan.minimum = MEMBERS;
    plan.over_selection = 1;
    (void)snprintf(w->folder, sizeof(w->folder), "/dev/shm/linnet-fuzz-%ld-%u", (long)getpid(), count++);
    (void)snprintf(path, sizeof(path), "%s/state", w->folder);
    (void)snprintf(model, sizeof(model), "%s.gguf", w->folder);
    model_write(model);
    must(linnet_coordinator_init(path, &plan, model, NULL, NOW_MS, NULL) == LINNET_OK);
    (void)unlink(model);
    const linnet_coordinator_options options = {.serve = true, .in_memory_speed = true};
    must(linnet_coordinator_open(path, &options, NOW_MS, &w->coordinator, NULL) == LINNET_OK);
    linnet_coordinator_handle(w->coordinator, NOW_MS, &request, &response);
    must(linnet_hello_unpack(response.body.bytes, response.body.n_bytes, &storage, &hello, NULL) ==
         LINNET_OK);
    for (size_t i = 0; i < sizeof(w->channel_key); i++)
        w->channel_key[i] = hello.channel_key[i];
    w->authority = hello.authority;
    linnet_buffer_release(&storage);
    linnet_http_response_release(&response);
    for (size_t i = 0; i < MEMBERS; i++)
        enroll(w, &w->members[i], (uint8_t)(i + 1));
    for (int phase = 0; phase <= state && phase < 3; phase++)
        play_phase(w, phase, phase == state);
    if (state == 3)
        hear(w, &w->members[0]);
    w->state = round_now(w).state;
}

static void tear_down(world *w)
{
    char command[128];
    linnet_coordinator_close(w->coordinator);
    for (size_t i = 0; i < MEMBERS; i++) {
        linnet_secagg_device_destroy(w->members[i].machine);
        linnet_identity_destroy(w->members[i].identity);
        linnet_buffer_release(&w->members[i].raw);
        linnet_buffer_release(&w->members[i].storage);
    }
    (void)snprintf(command, sizeof(command), "rm -rf '%s'", w->folder);
    must(system(command) == 0);
    *w = (world){0};
}

/* ---- and one that does not ---- */

/* The fuzzer's bytes behind the hash and the id that the kind wants, signed. */
static void say_signed(world *w, uint32_t kind, const uint8_t *bytes, size_t n_bytes)
{
    member *m = &w->members[0];
    linnet_buffer raw = {0};
    linnet_device_id id = linnet_device_id_of(linnet_identity_public_key(m->identity));
    const linnet_hash *t1 = linnet_secagg_device_t1(m->machine), *t2 = linnet_secagg_device_t2(m->machine),
                      *t3 = linnet_secagg_device_t3(m->machine), *chain = &m->a;
    linnet_label label = LINNET_LABEL_ABORT;
    if (kind == LINNET_ROUND_ADVERT) {
        label = LINNET_LABEL_ADVERT;
    } else if (kind == LINNET_ROUND_SHARES) {
        label = LINNET_LABEL_SHARE;
        chain = t1;
    } else if (kind == LINNET_ROUND_COMPLAINT) {
        label = LINNET_LABEL_COMPLAINT;
        chain = t2;
    } else if (kind != LINNET_ROUND_ABORT) {
        label = kind == LINNET_ROUND_ATTEST ? LINNET_LABEL_ATTEST : LINNET_LABEL_UNMASK;
        chain = t3;
    }
    if (!chain)
        chain = &m->a;
    linnet_buffer_append(&raw, chain->bytes, sizeof(chain->bytes));
    linnet_buffer_append(&raw, id.bytes, sizeof(id.bytes));
    linnet_buffer_append(&raw, bytes, n_bytes);
    linnet_signature signature = linnet_sign(m->identity, label, raw.bytes, raw.n_bytes);
    linnet_buffer_append(&raw, signature.bytes, sizeof(signature.bytes));
    if (kind == LINNET_ROUND_ADVERT)
        linnet_buffer_append(&raw, m->certificate, sizeof(m->certificate));
    say(w, m, kind, raw.bytes, raw.n_bytes);
    linnet_buffer_release(&raw);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes)
{
    static const uint32_t kinds[] = {LINNET_ROUND_ADVERT, LINNET_ROUND_SHARES,    LINNET_ROUND_ATTEST,
                                     LINNET_ROUND_UNMASK, LINNET_ROUND_COMPLAINT, LINNET_ROUND_ABORT};
    int64_t next_ms;
    if (n_bytes < 1 || n_bytes > 4096)
        return 0;
    uint8_t choice = *bytes++;
    n_bytes--;
    world *w = &worlds[choice % STATES];
    uint32_t kind = kinds[choice / STATES % 6];
    uint8_t shape = (uint8_t)(choice / STATES / 6);
    if (!w->coordinator)
        set_up(w, choice % STATES);
    if (shape < 7)
        say_signed(w, kind, bytes, n_bytes);
    else if (shape < 9 || !linnet_secagg_device_t2(w->members[0].machine) ||
             n_bytes != packed_bytes(&w->members[0]))
        say(w, &w->members[0], kind, bytes, n_bytes);
    else
        upload(w, &w->members[0], bytes, n_bytes, false);
    must(linnet_coordinator_tick(w->coordinator, NOW_MS, &next_ms, NULL) == LINNET_OK);
    linnet_round_report now = round_now(w);
    must(now.sharers <= now.joined && now.accepted <= now.sharers && now.joined <= MEMBERS);
    if (now.state != w->state)
        tear_down(w);
    return 0;
}
