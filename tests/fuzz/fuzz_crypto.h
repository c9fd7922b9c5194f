/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_FUZZ_CRYPTO_H
#define LINNET_FUZZ_CRYPTO_H

/* What the targets of crypto share: fixed keys, made once, and a check that survives NDEBUG. A record is
 * parsed only behind a good signature, which a fuzzer cannot forge; so each target also signs the fuzzed body
 * and opens that. */

#include "linnet/identity.h"

#include <stdlib.h>

/* Stop where a promise is broken; the fuzzer reports the input. */
#define REQUIRE(claim)                                                                                       \
    do {                                                                                                     \
        if (!(claim))                                                                                        \
            abort();                                                                                         \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

/** The one identity of a fuzz run: signer of everything. */
static inline const linnet_identity *fuzz_identity(void)
{
    static linnet_identity *identity;
    if (!identity) {
        uint8_t seed[LINNET_SEED_BYTES] = {1, 2, 3};
        REQUIRE(linnet_crypto_init(NULL) == LINNET_OK);
        REQUIRE(linnet_identity_from_seed(seed, &identity, NULL) == LINNET_OK);
    }
    return identity;
}

/** Put the signature of bytes[0 .. n_body) behind them. */
static inline void fuzz_sign(linnet_label label, uint8_t *bytes, size_t n_body)
{
    linnet_signature signature = linnet_sign(fuzz_identity(), label, bytes, n_body);
    memcpy(bytes + n_body, signature.bytes, sizeof(signature.bytes));
}

#endif
