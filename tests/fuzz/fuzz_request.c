/* SPDX-License-Identifier: Apache-2.0 */
/* Sealed request: as it came; behind a good head; and the fuzzed bytes as a plaintext that a stranger sealed.
 */
#include "fuzz_crypto.h"
#include "linnet/channel.h"

typedef struct channel {
    uint8_t secret[32], record[LINNET_SIGNED_CHANNEL_KEY_BYTES];
    linnet_channel_key key;
    linnet_hash header; /* h0 of POST /x */
} channel;

static const channel *fuzz_channel(void)
{
    static channel c;
    if (c.key.number == 0) {
        linnet_buffer wire = {0};
        linnet_exchange exchange;
        c.key = (linnet_channel_key){.number = 7, .not_before = 1, .not_after = 2};
        linnet_channel_key_draw(&c.key, c.secret);
        linnet_channel_key_sign(&c.key, fuzz_identity(), c.record);
        REQUIRE(linnet_request_seal(c.record, "POST", "/x", fuzz_identity(), NULL, 0, &wire, &exchange,
                                    NULL) == LINNET_OK);
        c.header = exchange.header;
        linnet_buffer_release(&wire);
    }
    return &c;
}

/* Open; if it opens, the pieces lie inside the plaintext, and only the true sender's key verifies. */
static linnet_status open_request(const channel *c, const uint8_t *bytes, size_t n_bytes)
{
    linnet_opened_request request;
    linnet_error err;
    uint64_t number;
    linnet_status named = linnet_request_key_number(bytes, n_bytes, &number);
    linnet_status status =
        linnet_request_open(c->record, c->secret, "POST", "/x", bytes, n_bytes, &request, &err);
    REQUIRE((named == LINNET_OK) == (status != LINNET_ERR_FORMAT));
    if (status != LINNET_OK)
        return status;
    REQUIRE(request.body == request.plaintext.bytes + LINNET_DEVICE_ID_BYTES);
    REQUIRE(request.n_body == n_bytes - LINNET_REQUEST_OVERHEAD);
    REQUIRE(linnet_request_verify(&request, linnet_identity_public_key(fuzz_identity())) ==
            LINNET_ERR_CRYPTO);
    linnet_opened_request_release(&request);
    return LINNET_OK;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    const channel *c = fuzz_channel();
    linnet_hpke context;
    uint8_t enc[32];
    linnet_buffer wire = {0};
    REQUIRE(open_request(c, data, n_bytes) != LINNET_OK);

    linnet_buffer_append_u8(&wire, 1);
    linnet_buffer_append_le64(&wire, c->key.number);
    linnet_buffer_append(&wire, data, n_bytes);
    REQUIRE(open_request(c, wire.bytes, wire.n_bytes) != LINNET_OK);

    REQUIRE(linnet_hpke_setup_sender(c->key.public_key, c->header.bytes, 32, &context, enc) == LINNET_OK);
    wire.n_bytes = 9;
    linnet_buffer_append(&wire, enc, sizeof(enc));
    REQUIRE(linnet_buffer_reserve(&wire, n_bytes + LINNET_AEAD_TAG_BYTES));
    REQUIRE(linnet_hpke_seal(&context, c->header.bytes, 32, data, n_bytes, wire.bytes + wire.n_bytes) ==
            LINNET_OK);
    wire.n_bytes += n_bytes + LINNET_AEAD_TAG_BYTES;
    REQUIRE(open_request(c, wire.bytes, wire.n_bytes) ==
            (n_bytes < LINNET_DEVICE_ID_BYTES + LINNET_SIGNATURE_BYTES ? LINNET_ERR_FORMAT : LINNET_OK));
    linnet_buffer_release(&wire);
    return 0;
}
