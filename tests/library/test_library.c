/* SPDX-License-Identifier: Apache-2.0 */
/* liblinnet-device on real models, through its header and the shared library alone. What it gives is what
 * linnet-client gives. */
#include "testing.h"

#include <linnet-device.h>

#include <jansson.h>
#include <math.h>
#include <pthread.h>
#include <stdbool.h>
#include <sys/stat.h>
#include <unistd.h>

#define BUNDLED LINNET_SOURCE "/sims/bundled/"
#define MODEL BUNDLED "linnet-notes-Q8_0.gguf"
#define CLIENT LINNET_EMULATOR " " LINNET_BIN "/linnet-client "

static char folder[] = "/tmp/linnet-test-library-XXXXXX";
static lin_error err;

#define must(call)                                                                                           \
    do {                                                                                                     \
        lin_status status_ = (call);                                                                         \
        if (status_ != LIN_OK)                                                                               \
            fail_msg("%s: %s: %s", #call, lin_status_text(status_), err.message);                            \
    } while (0)
#define must_be(wanted, call)                                                                                \
    do {                                                                                                     \
        lin_status status_ = (call);                                                                         \
        if (status_ != (wanted))                                                                             \
            fail_msg("%s: %s (%s), not %s", #call, lin_status_text(status_), err.message,                    \
                     lin_status_text(wanted));                                                               \
    } while (0)

static int make_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    char command[64];
    (void)state;
    (void)snprintf(command, sizeof(command), "rm -rf '%s'", folder);
    return system(command);
}

static const char *in_folder(const char *name)
{
    static char paths[8][256];
    static size_t next;
    char *path = paths[next++ % ARRAY_LEN(paths)];
    (void)snprintf(path, sizeof(paths[0]), "%s/%s", folder, name);
    return path;
}

static lin_model *open_model(const char *path, uint64_t memory_max)
{
    const lin_model_options options = {.size = sizeof(options), .n_threads = 1, .memory_max = memory_max};
    lin_model *model = NULL;
    must(lin_model_open(path, &options, &model, &err));
    return model;
}

static lin_texts *some_texts(void)
{
    lin_texts *texts = NULL;
    must(lin_texts_create(&texts, &err));
    must(lin_texts_load(texts, BUNDLED "notes-test.jsonl", &err));
    return texts;
}

/* ---- linnet-client ---- */

/* The last line that it prints, as JSON; owned. */
static json_t *client(const char *format, ...) __attribute__((format(printf, 1, 2)));
static json_t *client(const char *format, ...)
{
    static char command[8192], line[65536], last[65536];
    va_list args;
    va_start(args, format);
    int n = snprintf(command, sizeof(command), "%s", CLIENT);
    n += vsnprintf(command + n, sizeof(command) - (size_t)n, format, args);
    va_end(args);
    assert_true((size_t)n < sizeof(command));
    FILE *out = popen(command, "r");
    assert_non_null(out);
    while (fgets(line, sizeof(line), out))
        memcpy(last, line, sizeof(last));
    assert_int_equal(pclose(out), 0);
    json_t *result = json_loads(last, 0, NULL);
    assert_non_null(result);
    return result;
}

/* The same number, as far as it is printed. */
static void assert_told(double got, const json_t *result, const char *field)
{
    double want = json_number_value(json_object_get(result, field));
    if (!(fabs(got - want) <= 1e-10 * fabs(want)))
        fail_msg("%s: %.17g, linnet-client says %.17g", field, got, want);
}

/* ---- text as it comes ---- */

typedef struct heard {
    char text[8192];
    size_t n_bytes, n_pieces, stop_after; /* pieces; 0: never */
    lin_model *model;                     /* for what is done in between */
    int (*between)(struct heard *);       /* nonzero: stop */
} heard;

static bool is_utf8(const char *text, size_t n_bytes)
{
    json_t *value = json_stringn(text, n_bytes); /* which checks */
    json_decref(value);
    return value != NULL;
}

static int hear(void *user, const char *text, size_t n_bytes)
{
    heard *h = user;
    if (n_bytes == 0 || !is_utf8(text, n_bytes))
        fail_msg("a piece of %zu bytes is no UTF-8", n_bytes);
    assert_true(h->n_bytes + n_bytes < sizeof(h->text));
    memcpy(h->text + h->n_bytes, text, n_bytes);
    h->n_bytes += n_bytes;
    h->text[h->n_bytes] = '\0';
    h->n_pieces++;
    if (h->between)
        return h->between(h);
    return h->n_pieces == h->stop_after;
}

/* ---- versions, structs, arguments ---- */

static void the_library_says_which_it_is(void **state)
{
    (void)state;
    assert_int_equal(lin_abi(), LIN_ABI);
    assert_true(strlen(lin_version()) >= 5);
    assert_string_equal(lin_status_text(LIN_OK), "success");
    assert_string_equal(lin_status_text((lin_status)12345), "unknown status");
    for (int status = LIN_OK; status <= LIN_ERR_INTERNAL; status++)
        assert_string_not_equal(lin_status_text((lin_status)status), "unknown status");
}

static void structs_of_older_and_newer_programs_are_taken(void **state)
{
    (void)state;
    lin_model *model = open_model(MODEL, 0);
    struct {
        lin_generate_options known;
        uint64_t unknown[2];
    } options = {.known = {.size = sizeof(options), .max_tokens = 2}};
    lin_generate_result result = {.size = sizeof(result)};
    must(lin_generate(model, "Pill", &options.known, NULL, NULL, &result, &err));
    assert_int_equal(result.n_tokens, 2);
    options.unknown[1] = 1; /* it means something that this library cannot do */
    must_be(LIN_ERR_UNSUPPORTED, lin_generate(model, "Pill", &options.known, NULL, NULL, &result, &err));
    options.known.size = offsetof(lin_generate_options, top_p); /* older: what is behind is not read */
    options.known.top_p = 77;
    must(lin_generate(model, "Pill", &options.known, NULL, NULL, &result, &err));
    static const uint32_t no_sizes[] = {0, 1, 8, UINT32_MAX};
    for (size_t i = 0; i < ARRAY_LEN(no_sizes); i++) {
        options.known.size = no_sizes[i];
        must_be(LIN_ERR_ARG, lin_generate(model, "Pill", &options.known, NULL, NULL, NULL, &err));
    }
    struct {
        lin_model_info known;
        uint64_t unknown;
    } info;
    memset(&info, 0xaa, sizeof(info));
    info.known.size = sizeof(info);
    must(lin_model_describe(model, &info.known, &err));
    assert_int_equal(info.known.size, sizeof(info));
    assert_int_equal(info.unknown, 0);
    memset(&info, 0xaa, sizeof(info));
    info.known.size = offsetof(lin_model_info, n_threads);
    must(lin_model_describe(model, &info.known, &err));
    assert_true(info.known.n_layers > 0 && info.known.n_threads == 0xaaaaaaaa);
    lin_model_close(model);
}

static void a_model_is_described(void **state)
{
    (void)state;
    struct stat file;
    lin_model *model = open_model(MODEL, 0);
    lin_model_info info = {.size = sizeof(info)};
    must(lin_model_describe(model, &info, &err));
    assert_int_equal(stat(MODEL, &file), 0);
    assert_string_equal(info.architecture, "llama");
    assert_string_equal(info.type, "Q8_0");
    assert_int_equal(info.mapped_bytes, file.st_size);
    assert_int_equal(info.n_threads, 1);
    assert_true(info.vocabulary > 100 && info.context_tokens >= 64);
    lin_model_close(model);
}

static void bad_arguments_are_errors_with_a_line(void **state)
{
    (void)state;
    lin_model *model = open_model(MODEL, 0), *none = NULL;
    lin_texts *texts = some_texts(), *empty = NULL;
    lin_training *training = NULL;
    lin_agent *agent = NULL;
    double loss;
    const lin_message strange = {"narrator", "so"}, fine = {"user", "so"};
    lin_generate_options hot = {.size = sizeof(hot), .temperature = -1};
    const char *no_stop[] = {""};
    lin_generate_options stops = {.size = sizeof(stops), .stop = no_stop, .n_stop = 1};
    lin_generate_options wide = {.size = sizeof(wide), .context_tokens = 1u << 30};
    lin_training_options odd = {.size = sizeof(odd), .optimizer = 7};
    lin_training_options flagged = {.size = sizeof(flagged), .flags = 1u << 31};
    lin_training_options deaf = {.size = sizeof(deaf), .dropout = 1};
    lin_training_options aimless = {.size = sizeof(aimless), .targets = "attn_z"};
    lin_agent_options nowhere = {.size = sizeof(nowhere), .model = model, .texts = texts};
    must(lin_texts_create(&empty, &err));
    must_be(LIN_ERR_ARG, lin_model_open(NULL, NULL, &none, &err));
    must_be(LIN_ERR_ARG, lin_model_open(MODEL, NULL, NULL, &err));
    must_be(LIN_ERR_NOT_FOUND, lin_model_open("/no/such.gguf", NULL, &none, &err));
    assert_non_null(strstr(err.message, "/no/such.gguf"));
    assert_int_equal(err.status, LIN_ERR_NOT_FOUND);
    must_be(LIN_ERR_FORMAT,
            lin_model_open(BUNDLED "demo.ini", NULL, &none, NULL)); /* an error is not needed */
    must_be(LIN_ERR_ARG, lin_generate(model, NULL, NULL, NULL, NULL, NULL, &err));
    must_be(LIN_ERR_ARG, lin_generate(NULL, "a", NULL, NULL, NULL, NULL, &err));
    must_be(LIN_ERR_ARG, lin_generate(model, "a", &hot, NULL, NULL, NULL, &err));
    must_be(LIN_ERR_ARG, lin_generate(model, "a", &stops, NULL, NULL, NULL, &err));
    must_be(LIN_ERR_LIMIT, lin_generate(model, "a", &wide, NULL, NULL, NULL, &err));
    must_be(LIN_ERR_ARG, lin_chat(model, &fine, 0, NULL, NULL, NULL, NULL, &err));
    must_be(LIN_ERR_ARG, lin_chat(model, &strange, 1, NULL, NULL, NULL, NULL, &err));
    must_be(LIN_ERR_ARG, lin_training_create(model, texts, &odd, &training, &err));
    must_be(LIN_ERR_UNSUPPORTED, lin_training_create(model, texts, &flagged, &training, &err));
    must_be(LIN_ERR_ARG, lin_training_create(model, texts, &deaf, &training, &err));
    assert_non_null(strstr(err.message, "dropout"));
    must_be(LIN_ERR_ARG, lin_training_create(model, empty, NULL, &training, &err));
    must_be(LIN_ERR_ARG, lin_evaluate(model, empty, 0, &loss, NULL, &err));
    assert_int_not_equal(lin_training_create(model, texts, &aimless, &training, &err), LIN_OK);
    must_be(LIN_ERR_ARG, lin_training_run(NULL, 0, NULL, &err));
    must_be(LIN_ERR_ARG, lin_agent_open(NULL, &agent, &err));
    must_be(LIN_ERR_ARG, lin_agent_open(&nowhere, &agent, &err));
    nowhere.state_directory = in_folder("no-state");
    must_be(LIN_ERR_NOT_FOUND, lin_agent_open(&nowhere, &agent, &err));
    must_be(LIN_ERR_ARG, lin_enroll(in_folder("no-state"), "http://127.0.0.1:1", "no invite", 0, &err));
    assert_true(!none && !training && !agent);
    lin_model_close(NULL);
    lin_texts_close(NULL);
    lin_training_close(NULL);
    lin_agent_close(NULL);
    lin_free(NULL);
    lin_model_cancel(NULL);
    lin_training_cancel(NULL);
    lin_agent_cancel(NULL);
    lin_texts_close(empty);
    lin_texts_close(texts);
    lin_model_close(model);
}

/* ---- generating ---- */

static void compare_with_client(const char *path, const char *prompt, const lin_generate_options *options)
{
    heard h = {0};
    lin_model *model = open_model(path, 0);
    lin_generate_result result = {.size = sizeof(result)};
    must(lin_generate(model, prompt, options, hear, &h, &result, &err));
    json_t *want =
        client("generate --json --threads 1 --model '%s' --prompt '%s' --tokens %u --temperature %g "
               "--top-p %g --seed %llu",
               path, prompt, (unsigned)options->max_tokens, options->temperature,
               options->top_p == 0 ? 1 : options->top_p, (unsigned long long)options->seed);
    assert_string_equal(h.text, json_string_value(json_object_get(want, "text")));
    assert_int_equal(result.n_tokens, json_array_size(json_object_get(want, "ids")));
    assert_int_equal(result.n_prompt_tokens, json_array_size(json_object_get(want, "prompt_ids")));
    json_decref(want);
    lin_model_close(model);
}

static void it_generates_what_linnet_client_does(void **state)
{
    (void)state;
    const lin_generate_options greedy = {.size = sizeof(greedy), .max_tokens = 40};
    const lin_generate_options drawn = {
        .size = sizeof(drawn), .max_tokens = 40, .temperature = 0.8, .top_p = 0.9, .seed = 3};
    compare_with_client(MODEL, "Pill tick:", &greedy);
    compare_with_client(MODEL, "Pill tick:", &drawn);
    const char *shared = testing_shared("models/stories260K-F32.gguf");
    if (shared)
        compare_with_client(shared, "Once upon a time", &drawn);
}

static void it_chats_as_linnet_client_does(void **state)
{
    (void)state;
    heard h = {0};
    const lin_message messages[] = {{"system", "Be brief."}, {"user", "Morning"}};
    const lin_generate_options options = {.size = sizeof(options), .max_tokens = 24};
    lin_model *model = open_model(MODEL, 0);
    must(lin_chat(model, messages, ARRAY_LEN(messages), &options, hear, &h, NULL, &err));
    json_t *want =
        client("chat --json --threads 1 --model '%s' --system 'Be brief.' --tokens 24 --temperature 0 "
               "<<'END' | sed -n 1p\nMorning\nEND",
               MODEL);
    assert_true(h.n_bytes > 0);
    assert_string_equal(h.text, json_string_value(json_object_get(want, "text")));
    json_decref(want);
    lin_model_close(model);
}

/* At such a temperature all tokens are alike, among them single bytes. hear checks every piece. */
static void pieces_are_whole_characters(void **state)
{
    (void)state;
    lin_model *model = open_model(MODEL, 0);
    for (uint64_t seed = 0; seed < 8; seed++) {
        heard h = {0};
        const lin_generate_options options = {
            .size = sizeof(options), .max_tokens = 60, .temperature = 100, .seed = seed};
        must(lin_generate(model, "Diary", &options, hear, &h, NULL, &err));
        assert_true(h.n_pieces > 0);
    }
    lin_model_close(model);
}

static void a_callback_stops_it(void **state)
{
    (void)state;
    heard h = {.stop_after = 3};
    lin_model *model = open_model(MODEL, 0);
    lin_generate_result result = {.size = sizeof(result)};
    must(lin_generate(model, "Pill tick:", NULL, hear, &h, &result, &err));
    assert_int_equal(h.n_pieces, 3);
    assert_int_equal(result.stopped, LIN_STOPPED_CALLBACK);
    lin_model_close(model);
}

static void a_stop_string_ends_the_text_before_it(void **state)
{
    (void)state;
    heard whole = {0};
    lin_model *model = open_model(MODEL, 0);
    lin_generate_options options = {.size = sizeof(options), .max_tokens = 40};
    lin_generate_result result = {.size = sizeof(result)};
    must(lin_generate(model, "Morning log:", &options, hear, &whole, NULL, &err));
    assert_true(whole.n_bytes > 20);
    /* Strings of every length from one place: over the borders of tokens. */
    for (size_t n = 1; n <= 12; n++) {
        heard h = {0};
        char stop[16] = "";
        memcpy(stop, whole.text + 8, n);
        const char *const stops[] = {"never in it", stop};
        options.stop = stops;
        options.n_stop = ARRAY_LEN(stops);
        must(lin_generate(model, "Morning log:", &options, hear, &h, &result, &err));
        size_t first = (size_t)(strstr(whole.text, stop) - whole.text);
        assert_int_equal(result.stopped, LIN_STOPPED_STRING);
        assert_int_equal(h.n_bytes, first);
        assert_memory_equal(h.text, whole.text, first);
    }
    lin_model_close(model);
}

static void *cancel_model(void *model)
{
    lin_model_cancel(model);
    return NULL;
}

static int cancel_at_the_second(heard *h)
{
    pthread_t other;
    if (h->n_pieces == 2) {
        assert_int_equal(pthread_create(&other, NULL, cancel_model, h->model), 0);
        assert_int_equal(pthread_join(other, NULL), 0);
    }
    return 0;
}

static void another_thread_cancels_it_within_a_token(void **state)
{
    (void)state;
    heard h = {.model = open_model(MODEL, 0), .between = cancel_at_the_second};
    must_be(LIN_ERR_CANCELLED, lin_generate(h.model, "Pill tick:", NULL, hear, &h, NULL, &err));
    assert_int_equal(h.n_pieces, 2);
    lin_model_cancel(h.model); /* nothing is running: nothing happens */
    heard again = {0};
    must(lin_generate(h.model, "Pill tick:", NULL, hear, &again, NULL, &err));
    assert_true(again.n_pieces > 2);
    lin_model_close(h.model);
}

static int generate_inside(heard *h)
{
    lin_model_info info = {.size = sizeof(info)};
    must_be(LIN_ERR_BUSY, lin_generate(h->model, "Pill", NULL, NULL, NULL, NULL, &err));
    must(lin_model_describe(h->model, &info, &err));
    return 1;
}

static void a_model_works_for_one_at_a_time(void **state)
{
    (void)state;
    heard h = {.model = open_model(MODEL, 0), .between = generate_inside};
    must(lin_generate(h.model, "Pill tick:", NULL, hear, &h, NULL, &err));
    assert_int_equal(h.n_pieces, 1);
    lin_model_close(h.model);
}

static void memory_max_bounds_a_generation(void **state)
{
    (void)state;
    lin_model *model = open_model(MODEL, 0);
    lin_generate_result result = {.size = sizeof(result)};
    const lin_generate_options options = {.size = sizeof(options), .max_tokens = 2, .context_tokens = 64};
    must(lin_generate(model, "Pill", &options, NULL, NULL, &result, &err));
    lin_model_close(model);
    model = open_model(MODEL, result.memory_bytes);
    must(lin_generate(model, "Pill", &options, NULL, NULL, NULL, &err));
    lin_model_close(model);
    model = open_model(MODEL, result.memory_bytes - 1);
    must_be(LIN_ERR_LIMIT, lin_generate(model, "Pill", &options, NULL, NULL, NULL, &err));
    assert_int_equal(err.needed_bytes, result.memory_bytes);
    lin_model_close(model);
}

/* ---- texts ---- */

static void bad_lines_are_named_and_change_nothing(void **state)
{
    (void)state;
    lin_texts *texts = NULL;
    must(lin_texts_create(&texts, &err));
    must(lin_texts_add(texts, "one", &err));
    must(lin_texts_add_completion(texts, "two", "three", &err));
    static const char good[] = "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"},"
                               "{\"role\":\"assistant\",\"content\":\"b\"}]}\n";
    must(lin_texts_add_json(texts, good, strlen(good), &err));
    assert_int_equal(lin_texts_count(texts), 3);
    must_be(LIN_ERR_FORMAT, lin_texts_add_json(texts, "{\"txt\":\"secret\"}", 16, &err));
    assert_non_null(strstr(err.message, "line 4"));
    assert_null(strstr(err.message, "secret"));
    must_be(LIN_ERR_FORMAT, lin_texts_add(texts, "\xff", &err));
    must_be(LIN_ERR_ARG, lin_texts_add(texts, NULL, &err));
    must_be(LIN_ERR_ARG, lin_texts_add_completion(texts, "a", NULL, &err));
    FILE *file = fopen(in_folder("bad.jsonl"), "w");
    assert_non_null(file);
    assert_true(fputs("{\"text\":\"a\"}\n{\"text\":1}\n", file) >= 0);
    assert_int_equal(fclose(file), 0);
    must_be(LIN_ERR_FORMAT, lin_texts_load(texts, in_folder("bad.jsonl"), &err));
    assert_non_null(strstr(err.message, "bad.jsonl:2"));
    must_be(LIN_ERR_NOT_FOUND, lin_texts_load(texts, in_folder("none.jsonl"), &err));
    assert_int_equal(lin_texts_count(texts), 3);
    lin_texts_close(texts);
}

static void its_loss_is_linnet_clients(void **state)
{
    (void)state;
    double loss = 0;
    uint64_t n_tokens = 0;
    lin_model *model = open_model(MODEL, 0);
    lin_texts *texts = some_texts();
    must(lin_evaluate(model, texts, 64, &loss, &n_tokens, &err));
    json_t *want = client("evaluate --json --threads 1 --model '%s' --data '%s' --context 64", MODEL,
                          BUNDLED "notes-test.jsonl");
    assert_told(loss, want, "loss");
    assert_int_equal(n_tokens, json_integer_value(json_object_get(want, "tokens")));
    json_decref(want);
    lin_texts_close(texts);
    lin_model_close(model);
}

/* ---- training ---- */

static const lin_training_options small = {.size = sizeof(small),
                                           .rank = 4,
                                           .alpha = 8,
                                           .learning_rate = 5e-3,
                                           .n_steps = 4,
                                           .batch_texts = 2,
                                           .context_tokens = 48,
                                           .seed = 7,
                                           .dropout = 0.1};

static lin_training *start(lin_model *model, const lin_texts *texts, const lin_training_options *options)
{
    lin_training *training = NULL;
    must(lin_training_create(model, texts, options, &training, &err));
    return training;
}

static void assert_same_file(const char *a, const char *b)
{
    char command[1024];
    (void)snprintf(command, sizeof(command), "cmp -s '%s' '%s'", a, b);
    if (system(command) != 0)
        fail_msg("%s and %s differ", a, b);
}

static void it_trains_what_linnet_client_does(void **state)
{
    (void)state;
    char out[256];
    lin_model *model = open_model(MODEL, 0);
    lin_texts *texts = some_texts();
    lin_training *training = start(model, texts, &small);
    lin_progress progress = {.size = sizeof(progress)};
    must(lin_training_run(training, 0, &progress, &err)); /* no time at all: one step */
    assert_int_equal(progress.step, 1);
    assert_false(progress.is_done);
    must(lin_training_run(training, LIN_FOREVER, &progress, &err));
    assert_int_equal(progress.step, 4);
    assert_true(progress.is_done && isfinite(progress.loss) && progress.n_tokens > 0);
    must(lin_training_run(training, LIN_FOREVER, &progress, &err)); /* nothing is left */
    assert_int_equal(progress.step, 4);
    (void)snprintf(out, sizeof(out), "%s", in_folder("by-client"));
    json_t *want = client("train --json --threads 1 --model '%s' --data '%s' --out '%s' --rank 4 --alpha 8 "
                          "--learning-rate 5e-3 --steps 4 --batch 2 --context 48 --seed 7 --dropout 0.1",
                          MODEL, BUNDLED "notes-test.jsonl", out);
    assert_told(progress.loss, want, "loss_last");
    json_decref(want);
    must(lin_training_save_gguf(training, in_folder("ours.gguf"), &err));
    must(lin_training_save_peft(training, in_folder("ours"), &err));
    assert_same_file(in_folder("ours.gguf"), in_folder("by-client/adapter.gguf"));
    assert_same_file(in_folder("ours/adapter_model.safetensors"),
                     in_folder("by-client/adapter_model.safetensors"));
    assert_same_file(in_folder("ours/adapter_config.json"), in_folder("by-client/adapter_config.json"));
    lin_training_close(training);
    lin_texts_close(texts);
    lin_model_close(model);
}

typedef struct watched {
    lin_training *training;
    uint32_t n_calls, act_at;
    bool stops, cancels;
} watched;

static void *cancel_training(void *training)
{
    lin_training_cancel(training);
    return NULL;
}

static int watch(void *user, const lin_progress *progress)
{
    watched *w = user;
    pthread_t other;
    w->n_calls++;
    assert_int_equal(progress->size, sizeof(*progress));
    must_be(LIN_ERR_BUSY, lin_training_run(w->training, 0, NULL, &err));
    if (progress->step == w->act_at && w->cancels) {
        assert_int_equal(pthread_create(&other, NULL, cancel_training, w->training), 0);
        assert_int_equal(pthread_join(other, NULL), 0);
    }
    return w->stops && progress->step == w->act_at;
}

static void another_thread_cancels_training_within_a_step(void **state)
{
    (void)state;
    watched w = {.act_at = 2, .cancels = true};
    lin_training_options options = small;
    lin_model *model = open_model(MODEL, 0);
    lin_texts *texts = some_texts();
    lin_progress progress = {.size = sizeof(progress)};
    options.n_steps = 6;
    options.on_step = watch;
    options.user = &w;
    w.training = start(model, texts, &options);
    must_be(LIN_ERR_CANCELLED, lin_training_run(w.training, LIN_FOREVER, &progress, &err));
    assert_int_equal(progress.step, 2);
    assert_int_equal(w.n_calls, 2);
    lin_training_cancel(w.training); /* between two runs: the next one does not begin */
    must_be(LIN_ERR_CANCELLED, lin_training_run(w.training, LIN_FOREVER, &progress, &err));
    assert_int_equal(progress.step, 2);
    w = (watched){.training = w.training, .act_at = 4, .stops = true};
    must(lin_training_run(w.training, LIN_FOREVER, &progress, &err)); /* and goes on; the callback ends it */
    assert_int_equal(progress.step, 4);
    lin_training_close(w.training);
    lin_texts_close(texts);
    lin_model_close(model);
}

static void memory_max_shortens_the_context_or_says_what_is_needed(void **state)
{
    (void)state;
    lin_model *model = open_model(MODEL, 0);
    lin_texts *texts = some_texts();
    lin_training_options options = small;
    lin_progress full = {.size = sizeof(full)}, less = {.size = sizeof(less)};
    lin_training *training = start(model, texts, &options);
    must(lin_training_progress(training, &full, &err));
    assert_int_equal(full.context_tokens, 48);
    assert_true(isnan(full.loss) && full.step == 0);
    lin_training_close(training);
    uint64_t bytes = full.arena_bytes + full.state_bytes;
    static const double shares[] = {1, 0.95, 0.8};
    for (size_t i = 0; i < ARRAY_LEN(shares); i++) {
        options.memory_max = (uint64_t)((double)bytes * shares[i]);
        training = start(model, texts, &options);
        must(lin_training_run(training, LIN_FOREVER, &less, &err));
        assert_true(less.arena_bytes + less.state_bytes <= options.memory_max);
        assert_int_equal(less.state_bytes, full.state_bytes);
        if (shares[i] == 1 ? less.context_tokens != 48 : less.context_tokens >= 48)
            fail_msg("%g of the memory: a context of %u", shares[i], (unsigned)less.context_tokens);
        lin_training_close(training);
    }
    options.memory_max = 1000;
    training = NULL;
    must_be(LIN_ERR_LIMIT, lin_training_create(model, texts, &options, &training, &err));
    assert_null(training);
    options.memory_max = err.needed_bytes; /* which is just enough */
    training = start(model, texts, &options);
    must(lin_training_progress(training, &less, &err));
    assert_int_equal(less.arena_bytes + less.state_bytes, options.memory_max);
    assert_int_equal(less.context_tokens, 16);
    lin_training_close(training);
    options.memory_max--;
    must_be(LIN_ERR_LIMIT, lin_training_create(model, texts, &options, &training, &err));
    assert_int_equal(err.needed_bytes, options.memory_max + 1);
    lin_texts_close(texts);
    lin_model_close(model);
}

static void a_restored_training_goes_on_to_the_same_bits(void **state)
{
    (void)state;
    uint8_t *bytes = NULL;
    size_t n_bytes = 0;
    lin_model *model = open_model(MODEL, 0);
    lin_texts *texts = some_texts();
    lin_progress progress = {.size = sizeof(progress)};
    lin_training *training = start(model, texts, &small);
    must(lin_training_run(training, 0, NULL, &err));
    must(lin_training_run(training, 0, NULL, &err));
    must(lin_training_checkpoint(training, &bytes, &n_bytes, &err));
    must(lin_training_checkpoint_file(training, in_folder("checkpoint"), &err));
    must(lin_training_run(training, LIN_FOREVER, NULL, &err));
    must(lin_training_save_gguf(training, in_folder("straight.gguf"), &err));
    lin_training_close(training);
    for (int from_file = 0; from_file < 2; from_file++) {
        training = start(model, texts, &small);
        if (from_file)
            must(lin_training_restore_file(training, in_folder("checkpoint"), &err));
        else
            must(lin_training_restore(training, bytes, n_bytes, &err));
        must(lin_training_progress(training, &progress, &err));
        assert_int_equal(progress.step, 2);
        must(lin_training_run(training, LIN_FOREVER, NULL, &err));
        must(lin_training_save_gguf(training, in_folder("resumed.gguf"), &err));
        assert_same_file(in_folder("straight.gguf"), in_folder("resumed.gguf"));
        lin_training_close(training);
    }
    lin_training_options other = small;
    other.dropout = 0;
    training = start(model, texts, &other);
    must_be(LIN_ERR_MISMATCH, lin_training_restore(training, bytes, n_bytes, &err));
    bytes[n_bytes / 2] ^= 1;
    must_be(LIN_ERR_FORMAT, lin_training_restore(training, bytes, n_bytes, &err));
    must_be(LIN_ERR_FORMAT, lin_training_restore(training, bytes, 3, &err));
    must_be(LIN_ERR_NOT_FOUND, lin_training_restore_file(training, in_folder("nothing"), &err));
    must(lin_training_progress(training, &progress, &err));
    assert_int_equal(progress.step, 0);
    lin_training_close(training);
    lin_free(bytes);
    lin_texts_close(texts);
    lin_model_close(model);
}

/* ---- adapters ---- */

static const char *adapter_path;

static int swap_at_the_third(heard *h)
{
    if (h->n_pieces == 3)
        must(lin_model_use_adapters(h->model, &adapter_path, NULL, 1, &err));
    return 0;
}

static void adapters_are_used_scaled_and_swapped_in_mid_text(void **state)
{
    (void)state;
    heard base = {0}, trained = {0}, again = {0};
    double before = 0, after = 0, of_training = 0;
    lin_model *model = open_model(MODEL, 0);
    lin_texts *texts = some_texts();
    lin_training_options options = small;
    options.n_steps = 12;
    options.learning_rate = 3e-2;
    lin_training *training = start(model, texts, &options);
    must(lin_generate(model, "Pill tick:", NULL, hear, &base, NULL, &err));
    must(lin_evaluate(model, texts, 48, &before, NULL, &err));
    must(lin_training_run(training, LIN_FOREVER, NULL, &err));
    must(lin_training_evaluate(training, NULL, &of_training, NULL, &err));
    must(lin_training_evaluate(training, texts, &after, NULL, &err));
    assert_true(after == of_training && after < before);
    must(lin_training_use(training, &err));
    must(lin_training_save_gguf(training, in_folder("swap.gguf"), &err));
    lin_training_close(training); /* the model has its own copy */
    must(lin_evaluate(model, texts, 48, &after, NULL, &err));
    assert_true(after == of_training);
    must(lin_generate(model, "Pill tick:", NULL, hear, &trained, NULL, &err));
    assert_string_not_equal(base.text, trained.text);
    must(lin_model_use_adapters(model, NULL, NULL, 0, &err));
    must(lin_generate(model, "Pill tick:", NULL, hear, &again, NULL, &err));
    assert_string_equal(base.text, again.text);
    static char path[256];
    (void)snprintf(path, sizeof(path), "%s", in_folder("swap.gguf"));
    adapter_path = path;
    const char *const twice[] = {path, path};
    const float halves[] = {0.5f, 0.5f}, cancelled[] = {1, -1};
    heard summed = {0}, nothing = {0};
    must(lin_model_use_adapters(model, twice, halves, 2, &err));
    must(lin_generate(model, "Pill tick:", NULL, hear, &summed, NULL, &err));
    assert_string_equal(trained.text, summed.text);
    must(lin_model_use_adapters(model, twice, cancelled, 2, &err));
    must(lin_generate(model, "Pill tick:", NULL, hear, &nothing, NULL, &err));
    assert_string_equal(base.text, nothing.text);
    const char *const missing = "/no/such/adapter";
    assert_int_not_equal(lin_model_use_adapters(model, &missing, NULL, 1, &err), LIN_OK);
    must(lin_model_use_adapters(model, NULL, NULL, 0, &err));
    heard swapped = {.model = model, .between = swap_at_the_third};
    must(lin_generate(model, "Pill tick:", NULL, hear, &swapped, NULL, &err));
    assert_string_not_equal(swapped.text, base.text);
    assert_memory_equal(swapped.text, base.text, 3); /* what was said by then stays */
    heard kept = {0};
    must(lin_generate(model, "Pill tick:", NULL, hear, &kept, NULL, &err));
    assert_string_equal(kept.text, trained.text);
    lin_texts_close(texts);
    lin_model_close(model);
}

static void handles_are_closed_in_any_order(void **state)
{
    (void)state;
    lin_model *model = open_model(MODEL, 0);
    lin_texts *texts = some_texts();
    lin_training *training = start(model, texts, &small);
    lin_model_close(model);
    lin_texts_close(texts);
    must(lin_training_run(training, 0, NULL, &err));
    lin_training_close(training);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_library_says_which_it_is),
        cmocka_unit_test(structs_of_older_and_newer_programs_are_taken),
        cmocka_unit_test(a_model_is_described),
        cmocka_unit_test(bad_arguments_are_errors_with_a_line),
        cmocka_unit_test(it_generates_what_linnet_client_does),
        cmocka_unit_test(it_chats_as_linnet_client_does),
        cmocka_unit_test(pieces_are_whole_characters),
        cmocka_unit_test(a_callback_stops_it),
        cmocka_unit_test(a_stop_string_ends_the_text_before_it),
        cmocka_unit_test(another_thread_cancels_it_within_a_token),
        cmocka_unit_test(a_model_works_for_one_at_a_time),
        cmocka_unit_test(memory_max_bounds_a_generation),
        cmocka_unit_test(bad_lines_are_named_and_change_nothing),
        cmocka_unit_test(its_loss_is_linnet_clients),
        cmocka_unit_test(it_trains_what_linnet_client_does),
        cmocka_unit_test(another_thread_cancels_training_within_a_step),
        cmocka_unit_test(memory_max_shortens_the_context_or_says_what_is_needed),
        cmocka_unit_test(a_restored_training_goes_on_to_the_same_bits),
        cmocka_unit_test(adapters_are_used_scaled_and_swapped_in_mid_text),
        cmocka_unit_test(handles_are_closed_in_any_order),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
