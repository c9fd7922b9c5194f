/* SPDX-License-Identifier: Apache-2.0 */
/* (body, signature) pairs: what opens has exactly one encoding, and the body lies inside the input. */
#include <stdlib.h>

#include "linnet/messages.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    linnet_signed opened;
    linnet_buffer again = {0};
    if (linnet_signed_open(data, size, &opened, NULL) != LINNET_OK)
        return 0;
    if (linnet_signed_pack(opened.body, opened.n_body, &opened.signature, &again, NULL) != LINNET_OK ||
        again.n_bytes != size || memcmp(again.bytes, data, size) != 0)
        abort();
    linnet_buffer_release(&again);
    return 0;
}
