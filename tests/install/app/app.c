/* SPDX-License-Identifier: Apache-2.0 */
/* What an app does first with the installed library: open a model, say what it is, write a little. */
#include <linnet-device.h>

#include <stdio.h>

static int show(void *user, const char *text, size_t n_bytes)
{
    *(size_t *)user += n_bytes;
    return fwrite(text, 1, n_bytes, stdout) != n_bytes;
}

int main(int argc, char **argv)
{
    lin_error err = {0};
    lin_model *model = NULL;
    lin_model_info info = {.size = sizeof(info)};
    size_t n_bytes = 0;
    lin_status status = argc > 1 ? lin_model_open(argv[1], NULL, &model, &err) : LIN_ERR_ARG;
    if (status == LIN_OK)
        status = lin_model_describe(model, &info, &err);
    if (status == LIN_OK)
        status = lin_generate(model, "Morning log:", NULL, show, &n_bytes, NULL, &err);
    printf("\n%s %s, %s %s\n", lin_version(), info.architecture, lin_status_text(status), err.message);
    lin_model_close(model);
    return status == LIN_OK && n_bytes > 0 ? 0 : 1;
}
