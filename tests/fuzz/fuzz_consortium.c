/* SPDX-License-Identifier: Apache-2.0 */
/* The pinned list of a consortium: what is taken holds keys, none of them twice. */
#include <stdlib.h>

#include "linnet/device.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    linnet_consortium list;
    linnet_error err = {0};
    if (linnet_consortium_parse("fuzz", (const char *)data, size, &list, &err) != LINNET_OK)
        return 0;
    if (list.n_keys == 0 || list.n_keys > LINNET_CONSORTIUM_MAX)
        abort();
    for (size_t i = 1; i < list.n_keys; i++)
        if (memcmp(&list.keys[0], &list.keys[i], sizeof(list.keys[0])) == 0)
            abort();
    linnet_consortium_release(&list);
    return 0;
}
