/* SPDX-License-Identifier: Apache-2.0 */
/* The device's policy file. */
#include "linnet/device.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    linnet_policy policy;
    linnet_error err = {0};
    (void)linnet_policy_parse("fuzz", (const char *)data, size, &policy,
                              &err); /* it only must not fall over */
    return 0;
}
