/* SPDX-License-Identifier: Apache-2.0 */
/* What an outside program does first: include the public headers, call one function of each layer. */
#include <linnet/device.h>
#include <linnet/model.h>
#include <linnet/plan.h>

#include <stdio.h>

int main(void)
{
    linnet_error err = {0};
    linnet_model *model = NULL;
    linnet_plan plan;
    linnet_policy policy = linnet_policy_default();
    linnet_plan_default(&plan);
    linnet_status status = linnet_model_open("no-such-file.gguf", &model, &err);
    printf("%s, goal %u, smallest cohort %u\n", linnet_status_name(status), (unsigned)plan.goal,
           (unsigned)policy.cohort_min);
    linnet_model_close(model);
    return status == LINNET_ERR_NOT_FOUND ? 0 : 1;
}
