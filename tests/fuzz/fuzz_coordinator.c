/* SPDX-License-Identifier: Apache-2.0 */
/* Whatever reaches the coordinator: a path and a body as they come, and, because no fuzzer guesses a seal,
 * the same bytes sealed by an enrolled device: as a check-in, as an upload with these bytes for its frame, as
 * an upload whose header is well signed and whose inside is not. One state, made once; the first byte
 * chooses. */
#include "linnet/channel.h"
#include "linnet/coordinator.h"

#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes);

#define NOW_MS ((int64_t)1700000000000)

static linnet_coordinator *coordinator;
static linnet_identity *device;
static uint8_t channel_key[LINNET_SIGNED_CHANNEL_KEY_BYTES];

static void must(linnet_status status)
{
    if (status != LINNET_OK)
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
    must(linnet_gguf_writer_write(writer, path, NULL));
    linnet_gguf_writer_destroy(writer);
}

/* Seal a body for a path and hand it over. */
static void send_sealed(const char *path, const void *body, size_t n_body)
{
    linnet_exchange exchange;
    linnet_buffer wire = {0};
    linnet_http_response response;
    must(linnet_request_seal(channel_key, "POST", path, device, body, n_body, &wire, &exchange, NULL));
    linnet_http_request request = {
        .method = "POST", .path = path, .body = wire.bytes, .n_body = wire.n_bytes};
    linnet_coordinator_handle(coordinator, NOW_MS, &request, &response);
    linnet_http_response_release(&response);
    linnet_buffer_release(&wire);
    linnet_exchange_release(&exchange);
}

static void send_frame(const char *path, const void *header, size_t n_header, const void *raw, size_t n_raw)
{
    linnet_buffer body = {0};
    linnet_frame frame = {.header = header, .n_header = n_header, .raw = raw, .n_raw = n_raw};
    if (linnet_frame_pack(&frame, &body, NULL) == LINNET_OK)
        send_sealed(path, body.bytes, body.n_bytes);
    linnet_buffer_release(&body);
}

static void hello(void)
{
    linnet_http_request request = {.method = "GET", .path = LINNET_PATH_HELLO};
    linnet_http_response response;
    linnet_buffer storage = {0};
    linnet_hello got;
    linnet_coordinator_handle(coordinator, NOW_MS, &request, &response);
    must(linnet_hello_unpack(response.body.bytes, response.body.n_bytes, &storage, &got, NULL));
    for (size_t i = 0; i < sizeof(channel_key); i++)
        channel_key[i] = got.channel_key[i];
    linnet_buffer_release(&storage);
    linnet_http_response_release(&response);
}

static void enroll(void)
{
    char text[LINNET_INVITE_TEXT_MAX];
    linnet_invite invite;
    uint8_t bytes[LINNET_SIGNED_CSR_BYTES];
    static const uint8_t seed[LINNET_SEED_BYTES] = {1};
    must(linnet_identity_from_seed(seed, &device, NULL));
    must(linnet_coordinator_invite(coordinator, UINT32_MAX, text, NULL));
    must(linnet_invite_read(text, &invite));
    linnet_csr csr = {.public_key = *linnet_identity_public_key(device), .coordinator = invite.coordinator};
    for (size_t i = 0; i < sizeof(csr.token_id); i++)
        csr.token_id[i] = invite.token.id[i];
    linnet_csr_sign(&csr, &invite.token, device, bytes);
    send_frame(LINNET_PATH_ENROLL, bytes, 0, bytes, sizeof(bytes));
}

static void set_up(void)
{
    static char folder[] = "/dev/shm/linnet-fuzz-XXXXXX";
    char state[64], model[64];
    linnet_plan plan;
    linnet_plan_default(&plan);
    plan.rank = 2;
    plan.targets = 1u << LINNET_TARGET_ATTN_Q;
    (void)snprintf(plan.name, sizeof(plan.name), "fuzz");
    must(linnet_crypto_init(NULL));
    if (!mkdtemp(folder))
        abort();
    (void)snprintf(state, sizeof(state), "%s/state", folder);
    (void)snprintf(model, sizeof(model), "%s/model.gguf", folder);
    model_write(model);
    must(linnet_coordinator_init(state, &plan, model, NULL, NOW_MS, NULL));
    const linnet_coordinator_options options = {.serve = true, .in_memory_speed = true};
    must(linnet_coordinator_open(state, &options, NOW_MS, &coordinator, NULL));
    hello();
    enroll();
}

/* An upload whose header is signed by the device, with the fuzzer's bytes as the header's body and as raw. */
static void send_upload(const uint8_t *bytes, size_t n_bytes)
{
    linnet_buffer header = {0}, message = {0};
    size_t n_body = n_bytes / 2;
    linnet_signature signature = linnet_sign(device, LINNET_LABEL_MASKED, bytes, n_body);
    must(linnet_signed_pack(bytes, n_body, &signature, &header, NULL));
    linnet_upload upload = {
        .header = header.bytes, .n_header = header.n_bytes, .offset = n_bytes > 8 ? bytes[n_bytes - 1] : 0};
    if (linnet_upload_pack(&upload, &message, NULL) == LINNET_OK)
        send_frame(LINNET_PATH_UPLOAD, message.bytes, message.n_bytes, bytes + n_body, n_bytes - n_body);
    linnet_buffer_release(&header);
    linnet_buffer_release(&message);
}

static void send_plain(const char *method, const char *path, const uint8_t *bytes, size_t n_bytes)
{
    linnet_http_request request = {
        .method = method, .path = path, .body = bytes, .n_body = n_bytes, .range_first = n_bytes};
    linnet_http_response response;
    linnet_coordinator_handle(coordinator, NOW_MS, &request, &response);
    if (response.status < 200 || response.status > 599)
        abort();
    linnet_http_response_release(&response);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes)
{
    static const char *const paths[] = {LINNET_PATH_ENROLL, LINNET_PATH_CHECKIN, LINNET_PATH_UPLOAD};
    char path[300];
    if (!coordinator)
        set_up();
    if (n_bytes < 1 || n_bytes > 65536)
        return 0;
    uint8_t choice = *bytes++;
    n_bytes--;
    const char *sealed = paths[choice / 8 % 3];
    switch (choice % 6) {
    case 0:
        send_plain("POST", sealed, bytes, n_bytes);
        break;
    case 1: /* a path of the fuzzer's own */
        (void)snprintf(path, sizeof(path), "%.*s", (int)(n_bytes < 256 ? n_bytes : 256), (const char *)bytes);
        send_plain("GET", path, bytes, n_bytes);
        break;
    case 2: /* a frame of the fuzzer's own */
        send_sealed(sealed, bytes, n_bytes);
        break;
    case 3:
        send_frame(sealed, bytes, n_bytes, bytes, 0);
        break;
    case 4:
        send_frame(sealed, bytes, n_bytes / 2, bytes + n_bytes / 2, n_bytes - n_bytes / 2);
        break;
    default:
        if (n_bytes >= 2)
            send_upload(bytes, n_bytes);
    }
    return 0;
}
