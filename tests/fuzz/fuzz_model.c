/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a model: opened, and where that works, run for two tokens and differentiated, an encoder for
 * its first label. Weights may be anything, so that losses may be too; what must hold is that nothing outside
 * the bounds is touched. */
#define _GNU_SOURCE /* memfd_create */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "linnet/model.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes);

static void differentiate(const linnet_model *model)
{
    static const int32_t ids[2] = {0, 0};
    static const uint8_t counted[2] = {0, 1};
    const linnet_sequence sequence = {
        .ids = ids, .counted = counted, .n_ids = 2, .has_label = linnet_model_is_encoder(model)};
    linnet_layout *layout = NULL;
    linnet_adapter *adapter = NULL;
    linnet_arena *arena = NULL;
    double loss;
    size_t n_counted;
    if (linnet_layout_create(linnet_model_gguf(model), 1, 1, LINNET_TARGETS_ALL, &layout, NULL) !=
            LINNET_OK ||
        linnet_adapter_create(layout, &adapter, NULL) != LINNET_OK ||
        linnet_arena_create(model, NULL, 2, true, &arena, NULL) != LINNET_OK)
        goto done;
    linnet_adapter_init(adapter, 1);
    float *gradient = calloc(layout->n_parameters, sizeof(float));
    if (gradient && linnet_arena_gradient(arena, adapter, LINNET_FACTORS_BOTH, NULL, &sequence, 1, gradient,
                                          &loss, &n_counted, NULL) != LINNET_OK)
        n_counted = 0; /* a loss that is not finite */
    free(gradient);
done:
    linnet_arena_destroy(arena);
    linnet_adapter_destroy(adapter);
    linnet_layout_destroy(layout);
}

static void feed(const linnet_model *model)
{
    static const int32_t ids[2] = {0, 0};
    linnet_session *session = NULL;
    const float *logits;
    if (linnet_session_create(model, NULL, 4, &session, NULL) != LINNET_OK)
        return;
    if (linnet_session_feed(session, ids, 2, &logits, NULL) != LINNET_OK ||
        linnet_session_feed(session, ids, 1, &logits, NULL) != LINNET_OK)
        abort(); /* id 0 is in every vocabulary, and three tokens fit */
    linnet_session_destroy(session);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes)
{
    char path[64];
    linnet_model *model = NULL;
    int fd = memfd_create("model", 0);
    if (fd < 0 || write(fd, bytes, n_bytes) != (ssize_t)n_bytes)
        abort();
    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    if (linnet_model_open(path, &model, NULL) == LINNET_OK) {
        feed(model);
        differentiate(model);
    }
    linnet_model_close(model);
    (void)close(fd);
    return 0;
}
