/* SPDX-License-Identifier: Apache-2.0 */
/* Evidence from anybody: what is accepted names a slot, and is written to the same bytes. */
#include "linnet/transcript.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes)
{
    linnet_evidence evidence;
    linnet_buffer written = {0};
    if (linnet_crypto_init(NULL) != LINNET_OK ||
        linnet_evidence_check(bytes, n_bytes, &evidence, NULL) != LINNET_OK)
        return 0;
    if (evidence.kind < LINNET_SLOT_RELEASE || evidence.kind > LINNET_SLOT_SURVIVORS ||
        linnet_evidence_write(&evidence, &written, NULL) != LINNET_OK || written.n_bytes != n_bytes ||
        memcmp(written.bytes, bytes, n_bytes) != 0)
        abort();
    linnet_buffer_release(&written);
    return 0;
}
