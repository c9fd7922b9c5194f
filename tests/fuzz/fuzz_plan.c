/* SPDX-License-Identifier: Apache-2.0 */
/* Plans: what parses is written in canonical form, which parses to the same plan. */
#include <stdlib.h>

#include "linnet/plan.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    linnet_plan plan, again;
    linnet_buffer text = {0};
    linnet_error err = {0};
    if (linnet_plan_parse("fuzz", (const char *)data, size, &plan, &err) != LINNET_OK)
        return 0;
    if (linnet_plan_write(&plan, &text, &err) != LINNET_OK ||
        linnet_plan_parse("again", (const char *)text.bytes, text.n_bytes, &again, &err) != LINNET_OK ||
        memcmp(&plan, &again, sizeof(plan)) != 0)
        abort();
    linnet_buffer_release(&text);
    return 0;
}
