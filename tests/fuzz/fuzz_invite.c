/* SPDX-License-Identifier: Apache-2.0 */
/* Invite text: as it came; and the fuzzed bytes as an invite, written and read back. */
#include "fuzz_crypto.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    linnet_invite invite, again;
    char written[LINNET_INVITE_TEXT_MAX];
    (void)fuzz_identity(); /* starts libsodium */
    char *text = malloc(n_bytes + 1);
    if (!text)
        return 0;
    if (n_bytes > 0)
        memcpy(text, data, n_bytes);
    text[n_bytes] = '\0';
    linnet_status status = linnet_invite_read(text, &invite);
    free(text);
    REQUIRE(status == LINNET_OK || status == LINNET_ERR_FORMAT);
    if (status != LINNET_OK) {
        if (n_bytes < sizeof(invite))
            return 0;
        memcpy(&invite, data, sizeof(invite));
    }
    linnet_invite_write(&invite, written);
    REQUIRE(linnet_invite_read(written, &again) == LINNET_OK);
    REQUIRE(memcmp(&again, &invite, sizeof(invite)) == 0);
    return 0;
}
