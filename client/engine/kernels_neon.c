/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels.h"

const linnet_kernels *linnet_kernels_neon(void)
{
    return NULL;
}
