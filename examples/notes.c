/* SPDX-License-Identifier: Apache-2.0 */
/* A model that learns to write like its owner: generate, train on the lines of a text file for some seconds,
 * generate again. usage: notes MODEL.gguf NOTES.txt SECONDS [PROMPT]
 *
 * cc notes.c $(pkg-config --cflags --libs linnet-device) */
#include <linnet-device.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MEMORY_MAX (64u << 20) /* what a small device can spare beside the mapped model */

static int fail(const char *what, const lin_error *err)
{
    fprintf(stderr, "%s: %s\n", what, err->message);
    return 1;
}

/* Pieces are whole characters, so they can be shown as they come. */
static int show(void *user, const char *text, size_t n_bytes)
{
    (void)user;
    fwrite(text, 1, n_bytes, stdout);
    fflush(stdout);
    return 0; /* go on */
}

static lin_status write_on(lin_model *model, const char *prompt, lin_error *err)
{
    static const char *const stop[] = {"\n"};
    lin_generate_options options;
    memset(&options, 0, sizeof(options)); /* 0 is the default of everything */
    options.size = sizeof(options);
    options.max_tokens = 40;
    options.stop = stop;
    options.n_stop = 1;
    printf("  %s", prompt);
    lin_status status = lin_generate(model, prompt, &options, show, NULL, NULL, err);
    printf("\n");
    return status;
}

static lin_status read_notes(lin_texts *texts, const char *path, lin_error *err)
{
    char line[4096];
    FILE *file = fopen(path, "r");
    lin_status status = file ? LIN_OK : LIN_ERR_NOT_FOUND;
    if (!file)
        snprintf(err->message, sizeof(err->message), "cannot read '%s'", path);
    while (status == LIN_OK && fgets(line, sizeof(line), file)) {
        line[strcspn(line, "\r\n")] = '\0';
        if (line[0] != '\0')
            status = lin_texts_add(texts, line, err);
    }
    if (file)
        fclose(file);
    return status;
}

static lin_status learn(lin_model *model, const lin_texts *texts, double seconds, lin_error *err)
{
    lin_training *training = NULL;
    lin_training_options options;
    lin_progress progress;
    memset(&options, 0, sizeof(options));
    options.size = sizeof(options);
    options.n_steps = 1000000; /* time ends it */
    options.learning_rate = 5e-3;
    options.context_tokens = 64;
    memset(&progress, 0, sizeof(progress));
    progress.size = sizeof(progress);
    lin_status status = lin_training_create(model, texts, &options, &training, err);
    if (status == LIN_OK)
        status = lin_training_run(training, (uint64_t)(seconds * 1000), &progress, err);
    if (status == LIN_OK)
        status = lin_training_use(training, err); /* a copy: the training may go */
    if (status == LIN_OK)
        printf("%u steps, loss %.2f, %.1f MB\n", (unsigned)progress.step, progress.loss,
               (double)(progress.arena_bytes + progress.state_bytes) / 1e6);
    lin_training_close(training);
    return status;
}

int main(int argc, char **argv)
{
    lin_error err = {0};
    lin_model *model = NULL;
    lin_texts *texts = NULL;
    lin_model_options options = {0};
    if (argc < 4) {
        fprintf(stderr, "usage: notes MODEL.gguf NOTES.txt SECONDS [PROMPT]\n");
        return 2;
    }
    const char *prompt = argc > 4 ? argv[4] : "Morning log:";
    options.size = sizeof(options);
    options.memory_max = MEMORY_MAX;
    lin_status status = lin_model_open(argv[1], &options, &model, &err);
    if (status == LIN_OK)
        status = lin_texts_create(&texts, &err);
    if (status == LIN_OK)
        status = read_notes(texts, argv[2], &err);
    if (status == LIN_OK)
        status = write_on(model, prompt, &err);
    if (status == LIN_OK)
        status = learn(model, texts, atof(argv[3]), &err);
    if (status == LIN_OK)
        status = write_on(model, prompt, &err);
    lin_texts_close(texts);
    lin_model_close(model);
    return status == LIN_OK ? 0 : fail("notes", &err);
}
