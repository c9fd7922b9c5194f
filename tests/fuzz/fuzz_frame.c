/* SPDX-License-Identifier: Apache-2.0 */
/* Frames: what opens has exactly one encoding. */
#include <stdlib.h>

#include "linnet/messages.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    linnet_frame frame;
    linnet_buffer again = {0};
    if (size > LINNET_REQUEST_BYTES_MAX || linnet_frame_open(data, size, &frame, NULL) != LINNET_OK)
        return 0;
    if (linnet_frame_pack(&frame, &again, NULL) != LINNET_OK || again.n_bytes != size ||
        memcmp(again.bytes, data, size) != 0)
        abort();
    linnet_buffer_release(&again);
    return 0;
}
