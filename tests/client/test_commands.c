/* SPDX-License-Identifier: Apache-2.0 */
/* The built linnet-client on the shared models: results against the references, exit statuses, one line of
 * error. Commands are shell lines; $M is the folder of shared models, $T a scratch folder. */
#include "client/command_fixture.h"

#include <jansson.h>
#include <math.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- inference ---- */

static void generate_gives_the_greedy_tokens_of_the_reference(void **state)
{
    (void)state;
    char path[512];
    json_t *root = json_load_file(shared_path("models/ground-truth.json", path), 0, NULL);
    const json_t *files = json_object_get(root, "files");
    const json_t *truth = json_object_get(json_object_get(files, "stories3M-F32.gguf"), "greedy");
    for (size_t i = 0; i < json_array_size(truth); i++) {
        const json_t *greedy = json_array_get(truth, i);
        (void)setenv("P", json_string_value(json_object_get(greedy, "prompt")), 1);
        json_t *result = result_of("generate --model $M/stories3M-F32.gguf --prompt \"$P\" --json");
        assert_true(json_equal(json_object_get(result, "ids"), json_object_get(greedy, "ids")));
        assert_true(json_equal(json_object_get(result, "prompt_ids"), json_object_get(greedy, "prompt_ids")));
        assert_true(number(result, "prefill_tokens_per_second") > 0);
        assert_true(number(result, "decode_tokens_per_second") > 0);
        json_decref(result);
    }
    json_decref(root);
}

static void generate_prints_the_prompt_and_its_continuation(void **state)
{
    (void)state;
    need_models();
    outcome o = run("generate --model $M/stories3M-F32.gguf --prompt 'Once upon a time' --tokens 7");
    assert_int_equal(o.status, 0);
    assert_string_equal((const char *)o.out.bytes, "Once upon a time, there was a little girl named\n");
    release(&o);
}

static void sampling_repeats_with_its_seed(void **state)
{
    (void)state;
    static const char *const lines[] = {"generate --model $M/stories260K-F32.gguf --prompt Tom --temperature "
                                        "1.2 --top-p 0.95 --seed 7 --json",
                                        "generate --model $M/stories260K-F32.gguf --prompt Tom --temperature "
                                        "1.2 --top-p 0.95 --seed 7 --json --threads 3",
                                        "generate --model $M/stories260K-F32.gguf --prompt Tom --temperature "
                                        "1.2 --top-p 0.95 --seed 8 --json"};
    need_models();
    json_t *results[3];
    for (size_t i = 0; i < 3; i++)
        results[i] = result_of(lines[i]);
    assert_true(json_equal(json_object_get(results[0], "ids"), json_object_get(results[1], "ids")));
    assert_false(json_equal(json_object_get(results[0], "ids"), json_object_get(results[2], "ids")));
    for (size_t i = 0; i < 3; i++)
        json_decref(results[i]);
}

static void generation_stops_where_the_context_is_full(void **state)
{
    (void)state;
    need_models();
    json_t *result =
        result_of("generate --model $M/babyllama105-Q8_0.gguf --prompt Tom --tokens 1000 --json");
    size_t n = json_array_size(json_object_get(result, "prompt_ids")) +
               json_array_size(json_object_get(result, "ids"));
    assert_in_range(n, 2, 257); /* the last token needs no place */
    json_decref(result);
}

static void chat_answers_every_line(void **state)
{
    (void)state;
    need_models();
    shell("printf 'Hello\\n\\nWho are you?\\n' | " PROGRAM
          "chat --model $M/stories260K-F32.gguf --tokens 5 --json >$T/chat 2>$T/err");
    linnet_buffer text = take_file("chat");
    assert_int_equal(n_lines(&text), 3);
    assert_non_null(strstr((const char *)text.bytes, "\"answers\":2"));
    linnet_buffer_release(&text);
}

static void tokenize_gives_ids(void **state)
{
    (void)state;
    static const struct {
        const char *arguments, *want;
    } cases[] = {
        {"tokenize --model $M/stories3M-Q4_0.gguf --text 'Once upon a time' --json", "[403,407,261,378]"},
        {"tokenize --model $M/stories3M-Q4_0.gguf --text 'Once upon a time' --special --json",
         "[1,403,407,261,378]"},
        {"tokenize --model $M/stories3M-Q4_0.gguf --text '' --json", "[]"},
        {"tokenize --model $M/stories3M-Q4_0.gguf --text '</s>' --special --json", "[1,2]"},
        {"tokenize --model $M/stories3M-Q4_0.gguf --file $T/once --json", "[403,407,261,378]"},
    };
    need_models();
    shell("printf 'Once upon a time' >$T/once");
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        json_t *result = result_of(cases[i].arguments), *want = json_loads(cases[i].want, 0, NULL);
        if (!json_equal(json_object_get(result, "ids"), want))
            fail_msg("%s: other ids", cases[i].arguments);
        json_decref(result);
        json_decref(want);
    }
}

static void inspect_tells_what_is_in_a_file(void **state)
{
    (void)state;
    need_models();
    json_t *result = result_of("inspect $M/stories260K-Q4_0.gguf --json");
    assert_string_equal(json_string_value(json_object_get(result, "architecture")), "llama");
    assert_int_equal(number(result, "parameters"), 260032);
    assert_int_equal(json_array_size(json_object_get(result, "tensors")), 47);
    assert_int_equal(number(json_object_get(result, "tokenizer"), "vocabulary"), 512);
    assert_int_equal(number(json_object_get(result, "metadata"), "llama.context_length"), 512);
    json_decref(result);
}

static void bench_measures_every_figure(void **state)
{
    (void)state;
    static const char *const figures[] = {"prefill_tokens_per_second", "decode_tokens_per_second",
                                          "train_tokens_per_second",   "peak_rss_bytes",
                                          "read_gb_per_second",        "threads"};
    need_models();
    json_t *result = result_of("bench --model $M/stories260K-Q8_0.gguf --runs 1 --threads 2 --json");
    for (size_t i = 0; i < ARRAY_LEN(figures); i++)
        assert_true(number(result, figures[i]) > 0);
    assert_int_equal(number(result, "threads"), 2);
    assert_string_equal(json_string_value(json_object_get(result, "type")), "Q8_0");
    json_decref(result);
}

/* ---- evaluation ---- */

/* Every n-th record of a shared test file as text, the first hundred: the set of
 * ../shared/models/baselines.json. */
static void write_baseline_set(const char *name)
{
    char path[512], file[128];
    (void)snprintf(file, sizeof(file), "data/%s/test.jsonl", name);
    linnet_buffer data = read_file(shared_path(file, path));
    linnet_error err = {0};
    linnet_buffer kept = {0};
    size_t stride = n_lines(&data) / 100, line = 0, n_kept = 0;
    for (size_t at = 0; at < data.n_bytes && n_kept < 100; line++) {
        const uint8_t *newline = memchr(data.bytes + at, '\n', data.n_bytes - at);
        assert_non_null(newline);
        size_t n = (size_t)(newline - data.bytes) - at + 1;
        if (line % stride == 0) {
            linnet_buffer_append(&kept, data.bytes + at, n);
            n_kept++;
        }
        at += n;
    }
    (void)snprintf(path, sizeof(path), "%s/baseline.jsonl", scratch);
    must(linnet_file_write(path, kept.bytes, kept.n_bytes, 0600, &err), &err);
    linnet_buffer_release(&data);
    linnet_buffer_release(&kept);
}

/* Into a file of its own, and in place of its source. */
static void quantize_writes_what_computes_as_others_files_do(void **state)
{
    (void)state;
    need_models();
    const char *prompt = "--prompt 'Once upon a time' --tokens 20 --json";
    char line[400];
    (void)snprintf(line, sizeof(line), "generate --model $M/stories3M-Q8_0.gguf %s", prompt);
    json_t *want = result_of(line);
    shell("cp $M/stories3M-F32.gguf $T/own.gguf && chmod u+w $T/own.gguf");
    static const char *const quantize[] = {
        "quantize --model $M/stories3M-F32.gguf --out $T/small.gguf --json",
        "quantize --model $T/own.gguf --out $T/own.gguf --type Q8_0 --json",
    };
    static const char *const files[] = {"small.gguf", "own.gguf"};
    for (size_t i = 0; i < ARRAY_LEN(quantize); i++) {
        char path[128];
        struct stat st;
        json_t *result = result_of(quantize[i]);
        (void)snprintf(path, sizeof(path), "%s/%s", scratch, files[i]);
        assert_int_equal(stat(path, &st), 0);
        assert_true(number(result, "bytes_after") == (double)st.st_size);
        assert_true(number(result, "bytes_before") > 3 * (double)st.st_size);
        assert_true(number(result, "quantized") == 43);
        (void)snprintf(line, sizeof(line), "generate --model $T/%s %s", files[i], prompt);
        json_t *got = result_of(line);
        assert_true(json_equal(json_object_get(got, "ids"), json_object_get(want, "ids")));
        json_decref(got);
        json_decref(result);
    }
    json_decref(want);
}

static void evaluate_reproduces_the_baselines_of_text_records(void **state)
{
    (void)state;
    static const char *const sets[] = {"tinystories", "shakespeare"};
    char path[512];
    json_t *root = json_load_file(shared_path("models/baselines.json", path), 0, NULL);
    for (size_t i = 0; i < ARRAY_LEN(sets); i++) {
        const json_t *want =
            json_object_get(json_object_get(json_object_get(root, "data"), sets[i]), "stories260K-F32");
        write_baseline_set(sets[i]);
        json_t *result = result_of(
            "evaluate --model $M/stories260K-F32.gguf --data $T/baseline.jsonl --end-token off --json");
        assert_int_equal(number(result, "tokens"), number(want, "tokens"));
        assert_int_equal(number(result, "records"), 100);
        assert_true(fabs(number(result, "loss") - number(want, "mean_nll")) <= 6e-5);
        assert_true(fabs(number(result, "perplexity") - exp(number(result, "loss"))) < 1e-6);
        json_decref(result);
    }
    json_decref(root);
}

/* The first thirty or so records of six clients: the base row of FEDERATED-LORA 12.3. */
static void write_clinics_set(void)
{
    static const char *const clients[] = {"fam-sochx", "genhx",        "pastmedicalhx",
                                          "cc",        "pastsurgical", "allergy"};
    char path[512], line[1024];
    (void)shared_path("data/clinic-notes/test.jsonl", path);
    shell(": >$T/clinics.jsonl");
    for (size_t i = 0; i < ARRAY_LEN(clients); i++) {
        (void)snprintf(line, sizeof(line),
                       "grep '\"client\": *\"%s\"' %s >$T/one; n=$(wc -l <$T/one);"
                       "awk -v s=$(((n + 39) / 40)) 'NR %% s == 1 || s == 1' $T/one >>$T/clinics.jsonl",
                       clients[i], path);
        shell(line);
    }
}

static void evaluate_reproduces_the_base_loss_of_the_clinics(void **state)
{
    (void)state;
    write_clinics_set();
    json_t *result =
        result_of("evaluate --model $M/stories3M-Q8_0.gguf --data $T/clinics.jsonl --context 256 "
                  "--end-token off --json");
    assert_int_equal(number(result, "records"), 143);
    assert_int_equal(number(result, "tokens"), 8189);
    assert_true(fabs(number(result, "loss") - 5.6672) < 1e-4);
    json_decref(result);
}

static void each_record_has_its_line_and_loss(void **state)
{
    (void)state;
    need_models();
    shell("printf '{\"text\":\"Tom\"}\\n{\"prompt\":\"a\",\"completion\":\" b\"}\\n' >$T/two.jsonl");
    outcome o = run("evaluate --model $M/stories260K-F32.gguf --data $T/two.jsonl --each --json");
    assert_int_equal(o.status, 0);
    assert_int_equal(n_lines(&o.out), 3);
    const char *at = (const char *)o.out.bytes;
    double sum = 0, tokens = 0;
    for (int line = 1; line <= 3; line++) {
        json_t *object = json_loads(at, JSON_DISABLE_EOF_CHECK, NULL);
        if (line < 3) {
            assert_int_equal(number(object, "line"), line);
            sum += number(object, "loss") * number(object, "tokens");
            tokens += number(object, "tokens");
        } else {
            assert_true(fabs(number(object, "loss") - sum / tokens) < 1e-6);
            assert_int_equal(number(object, "tokens"), tokens);
        }
        json_decref(object);
        at = strchr(at, '\n') + 1;
    }
    release(&o);
}

/* ---- training ---- */

#define TRAIN                                                                                                \
    "train --model $M/stories260K-F32.gguf --data $T/train.jsonl --eval $T/train.jsonl --rank 4 --batch 2 "

static void write_training_data(void)
{
    need_models();
    shell("for i in 1 2 3 4 5; do printf '{\"client\":\"c\",\"text\":\"The number of the clinic is %d and "
          "not more.\"}\\n' "
          "$i; done >$T/train.jsonl");
}

static void expect_same_adapter(const char *a, const char *b)
{
    char line[512];
    (void)snprintf(line, sizeof(line), "cmp $T/%s/adapter_model.safetensors $T/%s/adapter_model.safetensors",
                   a, b);
    shell(line);
}

static void train_writes_both_adapter_forms_and_a_log(void **state)
{
    (void)state;
    write_training_data();
    json_t *result = result_of(TRAIN "--out $T/run --steps 20 --learning-rate 1e-2 --json");
    assert_int_equal(number(result, "steps"), 20);
    assert_true(number(result, "loss_last") < number(result, "loss_first"));
    assert_true(number(result, "eval_loss_after") < number(result, "eval_loss_before") - 0.5);
    assert_true(number(result, "tokens_per_second") > 0 && number(result, "peak_rss_bytes") > 0);
    double after = number(result, "eval_loss_after");
    outcome o = run("evaluate --model $M/stories260K-F32.gguf --data $T/train.jsonl --context 256");
    release(&o);
    assert_true(fabs(result_number("evaluate --model $M/stories260K-F32.gguf --adapter $T/run --context 256 "
                                   "--data $T/train.jsonl --json",
                                   "loss") -
                     after) < 1e-6);
    assert_true(fabs(result_number("evaluate --model $M/stories260K-F32.gguf --adapter $T/run/adapter.gguf "
                                   "--context 256 --data $T/train.jsonl --json",
                                   "loss") -
                     after) < 1e-6);
    linnet_buffer log = take_file("run/train.jsonl");
    assert_int_equal(n_lines(&log), 21);
    linnet_buffer_release(&log);
    json_decref(result);
}

static void epochs_are_passes_over_the_records(void **state)
{
    (void)state;
    write_training_data();
    assert_int_equal(result_number(TRAIN "--out $T/epochs --epochs 2 --json", "steps"), 5);
    assert_int_equal(result_number(TRAIN "--out $T/epochs --json", "steps"), 3);
}

#define PRIVATE                                                                                              \
    TRAIN "--targets attn_q --out $T/private --privacy-probability 0.04 --privacy-noise 1.5 "                \
          "--privacy-units 5 --json "

/* Epsilon against SECURE-AGGREGATION 3.5, row 14: probability 0.04, noise 1.5, 500 steps, delta 1e-5. A run
 * that was resumed counts all its steps; most draws here are empty, and have no loss. */
static void private_training_tells_the_epsilon_of_all_its_steps(void **state)
{
    (void)state;
    write_training_data();
    json_t *first = result_of(PRIVATE "--epochs 10"), *whole = result_of(PRIVATE "--epochs 20 --resume");
    assert_int_equal(number(first, "steps"), 250);
    assert_int_equal(number(whole, "steps"), 500);
    assert_int_equal(number(whole, "units"), 5);
    assert_true(number(first, "dp_epsilon") < 4);
    assert_true(fabs(number(whole, "dp_epsilon") - 4.063201313934) < 1e-9);
    assert_true(number(whole, "dp_delta") == 1e-5);
    assert_true(number(whole, "loss_first") == number(first, "loss_first") && number(whole, "loss_last") > 0);
    json_decref(first);
    json_decref(whole);
    json_t *public = result_of(TRAIN "--out $T/public --steps 1 --json");
    assert_null(json_object_get(public, "dp_epsilon"));
    json_decref(public);
}

static void a_finished_run_can_be_made_longer_to_the_same_bits(void **state)
{
    (void)state;
    write_training_data();
    json_decref(result_of(TRAIN "--out $T/whole --steps 7 --dropout 0.2 --json"));
    json_decref(result_of(TRAIN "--out $T/parts --steps 3 --dropout 0.2 --json"));
    json_t *result = result_of(TRAIN "--out $T/parts --steps 7 --dropout 0.2 --resume --threads 3 --json");
    linnet_buffer log = take_file("parts/train.jsonl");
    assert_int_equal(n_lines(&log), 8);
    linnet_buffer_release(&log);
    json_t *whole = result_of(TRAIN "--out $T/whole --steps 7 --dropout 0.2 --json");
    json_t *none = result_of(TRAIN "--out $T/undropped --steps 7 --json");
    assert_true(number(result, "loss_first") == number(whole, "loss_first"));
    assert_true(number(none, "loss_last") != number(whole, "loss_last"));
    expect_same_adapter("whole", "parts");
    json_decref(none);
    json_decref(result);
    json_decref(whole);
}

/* Starts a long training, asks it to stop after its first step, returns its exit status. */
static int train_and_stop(int signal_number)
{
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        (void)dup2(ends[1], STDOUT_FILENO);
        (void)close(ends[0]);
        (void)close(ends[1]);
        (void)execl("/bin/sh", "sh", "-c",
                    "exec " PROGRAM TRAIN "--out $T/stopped --steps 100000 --json 2>$T/stop-err",
                    (char *)NULL);
        _exit(127);
    }
    (void)close(ends[1]);
    FILE *out = fdopen(ends[0], "r");
    assert_non_null(out);
    char line[4096];
    assert_non_null(fgets(line, sizeof(line), out)); /* the first step was taken */
    assert_int_equal(kill(child, signal_number), 0);
    while (fgets(line, sizeof(line), out))
        ; /* what it says until it ends */
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    (void)fclose(out);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void a_signal_leaves_a_checkpoint_from_which_the_same_bits_follow(void **state)
{
    (void)state;
    static const int signals[] = {SIGINT, SIGTERM};
    write_training_data();
    for (size_t i = 0; i < ARRAY_LEN(signals); i++) {
        char line[256];
        assert_int_equal(train_and_stop(signals[i]), 1);
        linnet_buffer message = take_file("stop-err");
        assert_int_equal(n_lines(&message), 1);
        const char *after = strstr((const char *)message.bytes, "after step ");
        assert_non_null(after);
        assert_non_null(strstr(after, "--resume"));
        unsigned n_steps = (unsigned)strtoul(after + strlen("after step "), NULL, 10) + 2;
        (void)snprintf(line, sizeof(line), TRAIN "--out $T/stopped --steps %u --resume --json", n_steps);
        assert_int_equal(result_number(line, "steps"), n_steps);
        (void)snprintf(line, sizeof(line), TRAIN "--out $T/unstopped --steps %u --json", n_steps);
        assert_int_equal(result_number(line, "steps"), n_steps);
        expect_same_adapter("stopped", "unstopped");
        linnet_buffer_release(&message);
    }
}

/* ---- adapters ---- */

static void adapters_convert_and_merge_without_changing_the_loss(void **state)
{
    (void)state;
    write_training_data();
    json_decref(result_of(TRAIN "--out $T/tuned --steps 10 --learning-rate 1e-2 --json"));
    static const char *const made[] = {"adapter convert --model $M/stories260K-F32.gguf --adapter $T/tuned "
                                       "--out $T/tuned.gguf --format gguf --json",
                                       "adapter convert --model $M/stories260K-F32.gguf --adapter "
                                       "$T/tuned.gguf --out $T/again --format peft --json",
                                       "adapter merge --model $M/stories260K-F32.gguf --adapter $T/again "
                                       "--out $T/merged.gguf --type F32 --json",
                                       "adapter unmerge --model $T/merged.gguf --adapter $T/tuned "
                                       "--out $T/unmerged.gguf --type F32 --json"};
    for (size_t i = 0; i < ARRAY_LEN(made); i++)
        json_decref(result_of(made[i]));
    expect_same_adapter("tuned", "again");
    double tuned = result_number(
        "evaluate --model $M/stories260K-F32.gguf --adapter $T/tuned --data $T/train.jsonl --json", "loss");
    double merged = result_number("evaluate --model $T/merged.gguf --data $T/train.jsonl --json", "loss");
    assert_true(fabs(tuned - merged) < 1e-4);
    double base =
        result_number("evaluate --model $M/stories260K-F32.gguf --data $T/train.jsonl --json", "loss");
    double unmerged = result_number("evaluate --model $T/unmerged.gguf --data $T/train.jsonl --json", "loss");
    assert_true(fabs(base - unmerged) < 1e-5 && fabs(base - merged) > 1e-3);
    /* halves of it add up to it */
    double halves = result_number("evaluate --model $M/stories260K-F32.gguf --adapter $T/tuned:0.5 --adapter "
                                  "$T/tuned.gguf:0.5 --data $T/train.jsonl --json",
                                  "loss");
    assert_true(fabs(tuned - halves) < 1e-4);
    json_t *shown = result_of("adapter show --model $M/stories260K-F32.gguf --adapter $T/tuned --json");
    assert_int_equal(number(shown, "rank"), 4);
    assert_int_equal(json_array_size(json_object_get(shown, "entries")), 35);
    json_decref(shown);
    shown = result_of("adapter show --adapter $T/tuned --json");
    assert_int_equal(json_array_size(json_object_get(shown, "tensors")), 70);
    json_decref(shown);
}

/* ---- errors ---- */

static void failures_exit_with_1_and_one_line_that_names_the_input(void **state)
{
    (void)state;
    static const struct {
        const char *arguments, *words;
    } cases[] = {
        {"generate --model $T/none.gguf --prompt a", "none.gguf"},
        {"generate --model $T/cut.gguf --prompt a", "cut.gguf"},
        {"generate --model $T/zeros.gguf --prompt a", "zeros.gguf"},
        {"generate --model $T --prompt a", scratch},
        {"generate --model $M/stories260K-F32.gguf --prompt a --adapter $T/none", "none"},
        {"generate --model $M/stories260K-F32.gguf --prompt a --adapter $T/hurt", "hurt"},
        {"generate --model $M/stories3M-F32.gguf --prompt a --adapter $T/good", "blk.0"},
        {"generate --model $M/stories260K-F32.gguf --prompt \"$(head -c 4000 $T/long)\"", "context"},
        {"tokenize --model $T/none.gguf --text a", "none.gguf"},
        {"tokenize --model $M/stories260K-F32.gguf --file $T/none", "none"},
        {"evaluate --model $M/stories260K-F32.gguf --data $T/bad.jsonl", "bad.jsonl:2: "},
        {"evaluate --model $M/stories260K-F32.gguf --data $T/empty.jsonl", "empty.jsonl"},
        {"evaluate --model $M/stories260K-F32.gguf --data $T/train.jsonl --context 100000", "--context"},
        {"evaluate --model $M/stories260K-F32.gguf --data $T/train.jsonl --context 1", "context"},
        {TRAIN "--out $T/new --steps 1 --resume", "--resume"},
        {TRAIN "--out $T/good --steps 9 --resume --learning-rate 0.5", "settings"},
        {TRAIN "--out $T/good --steps 9 --resume --dropout 0.1", "settings"},
        {TRAIN "--out $T/good --steps 9 --resume --rank 5", "layout"},
        {TRAIN "--out $T/good --steps 9 --resume --context 12", "data"},
        {TRAIN "--out $T/x --targets attn_z", "attn_z"},
        {TRAIN "--out $T/train.jsonl/x --steps 1", "train.jsonl"},
        {TRAIN "--out $T/wild --optimizer sgd --clip-norm 0 --warmup 0 --learning-rate 1000 --weight-decay "
               "1000 --steps 50",
         "learning rate"},
        {"adapter show --model $M/stories3M-F32.gguf --adapter $T/good", "blk.0"},
        {"adapter merge --model $M/stories260K-Q8_0.gguf --adapter $T/good --out $T/m.gguf", "Q8_0"},
        {"inspect $T/cut.gguf", "cut.gguf"},
        {"inspect $T/train.jsonl", "train.jsonl"},
        {"bench --model $T/none.gguf", "none.gguf"},
    };
    write_training_data();
    json_decref(result_of(TRAIN "--out $T/good --steps 1 --json"));
    shell("head -c 300000 $M/stories260K-F32.gguf >$T/cut.gguf; head -c 4096 /dev/zero >$T/zeros.gguf;"
          "mkdir -p $T/hurt; cp $T/good/adapter_config.json $T/hurt;"
          "head -c 1000 $T/good/adapter_model.safetensors >$T/hurt/adapter_model.safetensors;"
          "for i in $(seq 1000); do printf 'word '; done >$T/long; : >$T/empty.jsonl;"
          "printf '{\"text\":\"good\"}\\n{\"text\":7}\\n' >$T/bad.jsonl");
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        outcome o = run(cases[i].arguments);
        const char *message = (const char *)o.err.bytes;
        if (o.status != 1 || n_lines(&o.err) != 1 || !strstr(message, cases[i].words) ||
            strncmp(message, "linnet-client ", 14) != 0)
            fail_msg("%s: exit status %d, '%s'", cases[i].arguments, o.status, message);
        release(&o);
    }
}

static void wrong_usage_exits_with_2_and_one_line(void **state)
{
    (void)state;
    static const struct {
        const char *arguments, *words;
    } cases[] = {
        {"generate --prompt a", "--model"},
        {"generate --model a", "--prompt"},
        {"generate --model a --prompt b --tokns 3", "did you mean --tokens"},
        {"generate --model a --prompt b --tokens x", "--tokens"},
        {"generate --model a --prompt b --top-p 2", "--top-p"},
        {"generat", "did you mean generate"},
        {"tokenize --model a", "--text"},
        {"tokenize --model a --text b --file c", "--text"},
        {"train --model a --data b --out c --steps 1 --epochs 1", "--epochs"},
        {"train --model a --data b --out c --optimizer adam", "adamw|sgd"},
        {"train --model a --data b --out c --rank 0", "--rank"},
        {"train --model a --data b --out c --dropout 1", "--dropout"},
        {"train --model a --data b --out c --privacy-probability 0.1", "--privacy-units"},
        {"train --model a --data b --out c --privacy-probability 2", "--privacy-probability"},
        {"adapter show", "--adapter"},
        {"adapter paint --adapter a", "paint"},
        {"adapter convert --adapter a --model b --out c", "--format"},
        {"adapter merge --adapter a --model b", "--out"},
        {"inspect", "FILE"},
        {"inspect a b", "'b'"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        outcome o = run(cases[i].arguments);
        if (o.status != 2 || n_lines(&o.err) != 1 || !strstr((const char *)o.err.bytes, cases[i].words))
            fail_msg("%s: exit status %d, '%s'", cases[i].arguments, o.status, (const char *)o.err.bytes);
        release(&o);
    }
}

static void every_command_tells_about_itself(void **state)
{
    (void)state;
    static const char *const commands[] = {"generate", "chat",    "tokenize", "evaluate",
                                           "train",    "adapter", "inspect",  "bench"};
    for (size_t i = 0; i < ARRAY_LEN(commands); i++) {
        char line[64];
        (void)snprintf(line, sizeof(line), "%s --help", commands[i]);
        outcome o = run(line);
        assert_int_equal(o.status, 0);
        assert_non_null(strstr((const char *)o.out.bytes, "--json"));
        assert_int_equal(o.err.n_bytes, 1);
        release(&o);
        (void)snprintf(line, sizeof(line), "%s --version", commands[i]);
        o = run(line);
        assert_int_equal(o.status, 0);
        release(&o);
    }
}

static void bad_lines_are_skipped_and_counted_on_request(void **state)
{
    (void)state;
    need_models();
    shell("printf '{\"text\":\"good\"}\\nnonsense\\n{\"text\":\"too\"}\\n' >$T/mixed.jsonl");
    json_t *result =
        result_of("evaluate --model $M/stories260K-F32.gguf --data $T/mixed.jsonl --skip-bad --json");
    assert_int_equal(number(result, "records"), 2);
    assert_int_equal(number(result, "lines_skipped"), 1);
    json_decref(result);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(generate_gives_the_greedy_tokens_of_the_reference),
        cmocka_unit_test(generate_prints_the_prompt_and_its_continuation),
        cmocka_unit_test(sampling_repeats_with_its_seed),
        cmocka_unit_test(generation_stops_where_the_context_is_full),
        cmocka_unit_test(chat_answers_every_line),
        cmocka_unit_test(tokenize_gives_ids),
        cmocka_unit_test(inspect_tells_what_is_in_a_file),
        cmocka_unit_test(bench_measures_every_figure),
        cmocka_unit_test(quantize_writes_what_computes_as_others_files_do),
        cmocka_unit_test(evaluate_reproduces_the_baselines_of_text_records),
        cmocka_unit_test(evaluate_reproduces_the_base_loss_of_the_clinics),
        cmocka_unit_test(each_record_has_its_line_and_loss),
        cmocka_unit_test(train_writes_both_adapter_forms_and_a_log),
        cmocka_unit_test(epochs_are_passes_over_the_records),
        cmocka_unit_test(private_training_tells_the_epsilon_of_all_its_steps),
        cmocka_unit_test(a_finished_run_can_be_made_longer_to_the_same_bits),
        cmocka_unit_test(a_signal_leaves_a_checkpoint_from_which_the_same_bits_follow),
        cmocka_unit_test(adapters_convert_and_merge_without_changing_the_loss),
        cmocka_unit_test(failures_exit_with_1_and_one_line_that_names_the_input),
        cmocka_unit_test(wrong_usage_exits_with_2_and_one_line),
        cmocka_unit_test(every_command_tells_about_itself),
        cmocka_unit_test(bad_lines_are_skipped_and_counted_on_request),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
