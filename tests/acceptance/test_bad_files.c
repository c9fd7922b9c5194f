/* SPDX-License-Identifier: Apache-2.0 */
/* Files that are cut, altered, of another kind, or somebody else's: every command says in one line which
 * file, where in it, and what to do, and leaves everything else as it was. */
#include "acceptance.h"

#include "linnet/rng.h"

/* The commands that read a model, each with the file's name as %s. */
static const char *const model_commands[] = {
    "$C inspect %s",
    "$C generate --model %s --prompt a --tokens 1",
    "$C evaluate --model %s --data few.jsonl --context 16",
    "$C train --model %s --data few.jsonl --steps 1 --batch 1 --context 16 --rank 1 --out never",
    "$K init --state never --plan tiny.ini --model %s",
    "$K plan-check tiny.ini --model %s",
};

#if defined(__GNUC__)
#pragma GCC diagnostic ignored "-Wformat-nonliteral" /* the table above holds the formats */
#endif

/* Where the words stand in bytes. */
static size_t find(const linnet_buffer *bytes, const char *words)
{
    size_t n = strlen(words);
    for (size_t i = 0; i + n <= bytes->n_bytes; i++)
        if (memcmp(bytes->bytes + i, words, n) == 0)
            return i;
    fail_msg("no '%s' in the file", words);
    return 0;
}

/* ---- models ---- */

static void a_model_that_is_cut_is_refused_wherever_it_is_cut(void **state)
{
    (void)state;
    linnet_buffer model = {0};
    must_do("cat \"$M\" >whole.gguf");
    model = take_file("whole.gguf");
    assert_true(model.n_bytes > 100000);
    static const size_t early[] = {0, 1, 3, 4, 7, 8, 15, 16, 23, 24, 31, 32, 40, 63, 100, 500, 941, 950};
    for (size_t i = 0; i < ARRAY_LEN(early) + 24; i++) {
        size_t n = i < ARRAY_LEN(early) ? early[i] : (i - ARRAY_LEN(early) + 1) * model.n_bytes / 25 + i % 3;
        put_file("cut.gguf", model.bytes, n);
        must_fail("'cut.gguf'", "$C inspect cut.gguf");
        must_fail("'cut.gguf'", model_commands[1 + i % (ARRAY_LEN(model_commands) - 1)], "cut.gguf");
    }
    put_file("cut.gguf", model.bytes, model.n_bytes - 1); /* the last byte counts too */
    for (size_t i = 0; i < ARRAY_LEN(model_commands); i++)
        must_fail("'cut.gguf'", model_commands[i], "cut.gguf");
    assert_false(file_exists("never"));
    linnet_buffer_release(&model);
}

/* Eight bytes of a count or a size, or four of a type, become something no file holds. */
static void counts_sizes_and_types_of_a_model_are_checked_before_use(void **state)
{
    (void)state;
    static const struct {
        const char *what,
            *near; /* altered: `n` bytes, `skip` after this text; NULL: from the start of the file */
        size_t skip, n;
        uint8_t value;
    } cases[] = {
        {"magic", NULL, 0, 4, 0x47},
        {"version", NULL, 4, 4, 0xff},
        {"version zero", NULL, 4, 4, 0},
        {"tensors", NULL, 8, 8, 0xff},
        {"many tensors", NULL, 10, 2, 0x7f},
        {"keys", NULL, 16, 8, 0xff},
        {"many keys", NULL, 18, 2, 0x7f},
        {"length of a name", NULL, 24, 8, 0xff},
        {"type of a value", "general.architecture", 20, 4, 0xff},
        {"length of a text", "general.architecture", 24, 8, 0xff},
        {"no blocks", "llama.block_count", 21, 4, 0},
        {"blocks without end", "llama.block_count", 21, 4, 0xff},
        {"width", "llama.embedding_length", 26, 4, 0xff},
        {"width zero", "llama.embedding_length", 26, 4, 0},
        {"heads", "llama.attention.head_count", 30, 4, 0xff},
        {"heads zero", "llama.attention.head_count", 30, 4, 0},
        {"elements of an array", "tokenizer.ggml.tokens", 29, 8, 0xff},
        {"type of elements", "tokenizer.ggml.scores", 25, 4, 0x09},
        {"dimensions of a tensor", "token_embd.weight", 17, 4, 0xff},
        {"size of a tensor", "token_embd.weight", 21, 8, 0xff},
        {"type of a tensor", "token_embd.weight", 37, 4, 0xff},
        {"place of a tensor", "token_embd.weight", 41, 8, 0xff},
        {"place between blocks", "token_embd.weight", 41, 1, 0x01},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        linnet_buffer model = {0};
        must_do("cat \"$M\" >whole.gguf");
        model = take_file("whole.gguf");
        size_t at = cases[i].skip + (cases[i].near ? find(&model, cases[i].near) : 0);
        memset(model.bytes + at, cases[i].value, cases[i].n);
        put_file("altered.gguf", model.bytes, model.n_bytes);
        for (size_t j = 0; j < 5; j++) { /* inspect and init may take a file that no engine would run */
            const outcome *o = run(model_commands[j], "altered.gguf");
            bool must_refuse = j >= 1 && j <= 3;
            if (o->status < must_refuse || o->status > 1 || o->n_lines != (size_t)o->status)
                fail_msg("%s: '%s' has status %d, stderr:\n%s", cases[i].what, model_commands[j], o->status,
                         o->err);
        }
        must_do("rm -rf never");
        linnet_buffer_release(&model);
    }
}

static void no_altered_byte_of_a_header_is_more_than_an_error(void **state)
{
    (void)state;
    linnet_rng rng;
    const uint64_t seed = 20261120;
    print_message("seed %llu\n", (unsigned long long)seed);
    linnet_rng_init(&rng, seed, 1);
    linnet_buffer model = {0};
    must_do("cat \"$M\" >whole.gguf");
    model = take_file("whole.gguf");
    for (size_t i = 0; i < 120; i++) {
        size_t at = (size_t)linnet_rng_below(&rng, i % 3 == 0 ? 27000 : 1000);
        uint8_t before = model.bytes[at];
        model.bytes[at] ^= (uint8_t)(1 + linnet_rng_below(&rng, 255));
        put_file("altered.gguf", model.bytes, model.n_bytes);
        const char *command = i % 4 == 3
                                  ? "$C train --model %s --data few.jsonl --steps 1 --batch 1 --context 16 "
                                    "--rank 1 --out altered-%s-out --quiet"
                                  : model_commands[i % 3];
        const outcome *o = run(command, "altered.gguf", "x");
        if (o->status > 1 || o->status < 0 || o->n_lines != (size_t)o->status)
            fail_msg("byte %zu from %u to %u: '%s' has status %d, stderr:\n%s", at, before, model.bytes[at],
                     command, o->status, o->err);
        model.bytes[at] = before;
    }
    linnet_buffer_release(&model);
}

static void what_is_no_model_is_called_by_its_name(void **state)
{
    (void)state;
    put_text("notes.txt", "Dear diary, this is no model.\n");
    for (size_t i = 0; i < ARRAY_LEN(model_commands); i++) {
        must_fail("none.gguf", model_commands[i], "none.gguf");
        must_fail("notes.txt", model_commands[i], "notes.txt");
        must_fail("'/tmp'", model_commands[i], "/tmp");
        must_fail("'/dev/zero'", model_commands[i], "/dev/zero");
    }
}

/* ---- adapters ---- */

static void make_adapter(void)
{
    if (!file_exists("good"))
        must_do("$C train --model $M --data few.jsonl --steps 1 --batch 1 --context 16 --rank 2 --out good "
                "--quiet");
    must_do("rm -rf bad && cp -r good bad");
}

static void an_adapter_that_is_cut_is_refused_in_both_forms(void **state)
{
    (void)state;
    static const char *const forms[][2] = {{"bad/adapter_model.safetensors", "bad"},
                                           {"bad/adapter.gguf", "bad/adapter.gguf"}};
    make_adapter();
    for (size_t form = 0; form < ARRAY_LEN(forms); form++) {
        linnet_buffer whole = take_file(forms[form][0]);
        static const size_t early[] = {0, 1, 7, 8, 9, 30, 100, 1000};
        for (size_t i = 0; i < ARRAY_LEN(early) + 12; i++) {
            size_t n = i < ARRAY_LEN(early) ? early[i] : (i - ARRAY_LEN(early) + 1) * whole.n_bytes / 12 - 1;
            put_file(forms[form][0], whole.bytes, n);
            must_fail(forms[form][0], "$C generate --model $M --adapter %s --prompt a --tokens 1",
                      forms[form][1]);
        }
        put_file(forms[form][0], whole.bytes, whole.n_bytes);
        linnet_buffer_release(&whole);
    }
    must_do("$C generate --model $M --adapter bad --prompt a --tokens 1");
}

static void no_altered_byte_of_an_adapter_is_more_than_an_error(void **state)
{
    (void)state;
    linnet_rng rng;
    linnet_rng_init(&rng, 7, 2);
    make_adapter();
    linnet_buffer whole = take_file("bad/adapter_model.safetensors");
    for (size_t i = 0; i < 60; i++) {
        size_t at = (size_t)linnet_rng_below(&rng, i < 16 ? 8 : 3000);
        uint8_t before = whole.bytes[at];
        whole.bytes[at] ^= (uint8_t)(1 + linnet_rng_below(&rng, 255));
        put_file("bad/adapter_model.safetensors", whole.bytes, whole.n_bytes);
        const outcome *o = run("$C generate --model $M --adapter bad --prompt a --tokens 1");
        if (o->status > 1 || o->status < 0 || o->n_lines != (size_t)o->status)
            fail_msg("byte %zu: status %d, stderr:\n%s", at, o->status, o->err);
        whole.bytes[at] = before;
    }
    linnet_buffer_release(&whole);
}

static void a_broken_adapter_config_is_named(void **state)
{
    (void)state;
    static const char *const configs[] = {
        "",
        "{",
        "[]",
        "{}",
        "{\"r\":8,\"lora_alpha\":16}",
        "{\"r\":0,\"lora_alpha\":16,\"target_modules\":[\"q_proj\"],\"peft_type\":\"LORA\"}",
        "{\"r\":99999999999999999999,\"lora_alpha\":16,\"peft_type\":\"LORA\"}",
        "{\"r\":2,\"lora_alpha\":1e999,\"peft_type\":\"LORA\"}",
        "{\"r\":2,\"lora_alpha\":4,\"target_modules\":[\"q_proj\"],\"peft_type\":\"IA3\"}",
        "{\"r\":3,\"lora_alpha\":4,\"target_modules\":[\"q_proj\"],\"peft_type\":\"LORA\"}",
        "{\"r\":2,\"lora_alpha\":4,\"target_modules\":[\"q_proj\"],\"peft_type\":\"LORA\",\"use_dora\":true}",
    };
    make_adapter();
    for (size_t i = 0; i < ARRAY_LEN(configs); i++) {
        put_text("bad/adapter_config.json", configs[i]);
        must_fail("adapter_config.json", "$C generate --model $M --adapter bad --prompt a --tokens 1");
    }
    must_do("rm bad/adapter_config.json");
    must_fail("adapter_config.json", "$C generate --model $M --adapter bad --prompt a --tokens 1");
    must_fail("'nowhere'", "$C generate --model $M --adapter nowhere --prompt a --tokens 1");
}

static void an_adapter_of_another_model_is_not_used(void **state)
{
    (void)state;
    char other[4096];
    const char *path = testing_shared("models/stories260K-Q8_0.gguf");
    if (!path)
        skip();
    (void)snprintf(other, sizeof(other), "%s", path);
    make_adapter();
    static const char *const forms[] = {"bad", "bad/adapter.gguf"};
    for (size_t i = 0; i < ARRAY_LEN(forms); i++) {
        must_fail("is it this model's adapter?", "$C generate --model %s --adapter %s --prompt a", other,
                  forms[i]);
        must_fail("is it this model's adapter?", "$C evaluate --model %s --adapter %s --data few.jsonl",
                  other, forms[i]);
        must_fail("is it this model's adapter?",
                  "$C train --model %s --adapter %s --data few.jsonl --steps 1 --out n", other, forms[i]);
    }
    must_fail("adapter", "$C generate --model $M --adapter $M --prompt a"); /* a model is no adapter */
    must_fail("bad/adapter.gguf",
              "$C generate --model bad/adapter.gguf --prompt a"); /* and the other way round */
}

/* ---- records ---- */

static void a_bad_record_is_named_with_file_and_line(void **state)
{
    (void)state;
    static const struct {
        const char *line, *wanted;
    } cases[] = {
        {"{\"text\":}", "bad.jsonl:3: no valid JSON at byte 9"},
        {"{\"text\":\"never closed", "bad.jsonl:3: no valid JSON"},
        {"{\"text\":\"\xff\xfe\"}", "bad.jsonl:3: no valid JSON"},
        {"{\"text\":\"\xed\xa0\x80\"}", "bad.jsonl:3: no valid JSON"}, /* a surrogate */
        {"{\"text\":\"a\\u0000b\"}", "bad.jsonl:3: no valid JSON"},
        {"{\"text\":\"a\",\"text\":\"b\"}", "bad.jsonl:3: no valid JSON"},
        {"{\"text\":\"a\"} {\"text\":\"b\"}", "bad.jsonl:3: no valid JSON"},
        {"{\"text\":\"a\",\"prompt\":\"b\",\"completion\":\"c\"}", "bad.jsonl:3: more than one"},
        {"{\"text\":\"a\",\"messages\":[]}", "bad.jsonl:3: more than one"},
        {"{\"text\":5}", "bad.jsonl:3: \"text\" is no string"},
        {"{\"prompt\":\"a\"}", "bad.jsonl:3: \"completion\" is missing"},
        {"{\"messages\":[]}", "bad.jsonl:3: \"messages\""},
        {"{\"messages\":[{\"role\":\"king\",\"content\":\"x\"}]}", "bad.jsonl:3: message 1"},
        {"{\"note\":\"x\"}", "bad.jsonl:3: "},
        {"[1]", "bad.jsonl:3: no JSON object"},
        {"text", "bad.jsonl:3: no valid JSON"},
        {"", "bad.jsonl:3: the line is blank"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char file[512];
        (void)snprintf(
            file, sizeof(file),
            "{\"text\":\"Morning log.\"}\n{\"text\":\"At noon.\"}\n%s\n{\"text\":\"Evening log.\"}\n",
            cases[i].line);
        put_text("bad.jsonl", file);
        must_fail(cases[i].wanted, "$C evaluate --model $M --data bad.jsonl");
        if (i % 4 == 0)
            must_fail(cases[i].wanted, "$C train --model $M --data bad.jsonl --steps 1 --out never");
        assert_int_equal(number_of("records", "$C evaluate --model $M --data bad.jsonl --skip-bad --json"),
                         3);
        assert_int_equal(
            number_of("lines_skipped", "$C evaluate --model $M --data bad.jsonl --skip-bad --json"), 1);
    }
    assert_false(file_exists("never"));
}

static void records_that_are_not_there_are_missed(void **state)
{
    (void)state;
    put_text("empty.jsonl", "");
    put_text("blank.jsonl", "\n\n");
    must_fail("'none.jsonl'", "$C evaluate --model $M --data none.jsonl");
    must_fail("'empty.jsonl'", "$C evaluate --model $M --data empty.jsonl");
    must_fail("'blank.jsonl'", "$C evaluate --model $M --data blank.jsonl");
    must_fail("'empty.jsonl'", "$C train --model $M --data empty.jsonl --steps 1 --out never");
    must_fail("'none.jsonl'", "$C train --model $M --data few.jsonl --eval none.jsonl --steps 1 --out never");
    must_fail("directory", "$C evaluate --model $M --data /tmp");
    put_text("bad.jsonl", "{\n{\n");
    must_fail("bad.jsonl", "$C evaluate --model $M --data bad.jsonl --skip-bad");
    assert_false(file_exists("never"));
}

static void a_line_over_the_cap_is_named_and_can_be_skipped(void **state)
{
    (void)state;
    must_do("{ echo '{\"text\":\"short\"}'; printf '{\"text\":\"'; head -c 9000000 /dev/zero | tr '\\0' x; "
            "echo '\"}'; "
            "echo '{\"text\":\"short\"}'; } >long.jsonl");
    must_fail("long.jsonl:2: the line is longer than 8388608 bytes",
              "$C evaluate --model $M --data long.jsonl");
    assert_int_equal(number_of("records", "$C evaluate --model $M --data long.jsonl --skip-bad --json"), 2);
    must_do("head -c 300000 /dev/zero | tr '\\0' '[' >deep.jsonl");
    must_fail("deep.jsonl:1: ", "$C evaluate --model $M --data deep.jsonl");
}

static void records_as_other_systems_write_them_are_read(void **state)
{
    (void)state;
    put_text("windows.jsonl", "\xef\xbb\xbf{\"text\":\"one two\"}\r\n{\"text\":\"three\"}\r\n\r\n");
    assert_int_equal(number_of("records", "$C evaluate --model $M --data windows.jsonl --json"), 2);
    put_text("open.jsonl", "{\"text\":\"one two\"}\n{\"text\":\"no line feed at the end\"}");
    assert_int_equal(number_of("records", "$C evaluate --model $M --data open.jsonl --json"), 2);
}

/* ---- plans ---- */

static void a_bad_plan_is_refused_with_line_key_and_range(void **state)
{
    (void)state;
    static const struct {
        const char *text, *wanted;
    } cases[] = {
        {"[adapter]\nrnk = 8\n",
         "line 2: there is no key 'rnk' in section [adapter]; the nearest known one is adapter.rank"},
        {"[training]\nrank = 8\n", "the nearest known one is adapter.rank"},
        {"[adaptr]\nrank = 8\n", "the nearest known one is adapter.rank"},
        {"rank = 8\n", "line 1"},
        {"[adapter]\nrank = 0\n", "line 2: adapter.rank: '0' is not allowed, must be 1 to 256"},
        {"[adapter]\nrank = -1\n", "adapter.rank"},
        {"[adapter]\nrank = 8x\n", "adapter.rank"},
        {"[adapter]\nrank = 99999999999999999999999999\n", "adapter.rank"},
        {"[adapter]\nrank = 8\nrank = 9\n", "line 3"},
        {"[adapter\nrank = 8\n", "line 1"},
        {"[adapter]\nrank\n", "line 2"},
        {"[training]\nlearning_rate_b = nan\n", "learning_rate_b"},
        {"[cohort]\ndeadline = 5 parsecs\n", "cohort.deadline"},
        {"[cohort]\ngoal = 5\nminimum = 9\n", "cohort.minimum"},
        {"[cohort]\ngoal = 5000\nminimum = 1\n", "cohort.goal"},
        {"[encoding]\nring_bits = 17\n", "encoding.ring_bits"},
        {"[task]\npreset = submarine\n", "task.preset"},
        {"[model]\nbase_hash = 12\n", "model.base_hash"},
        {"[secure]\nprofile = none\n", "secure.profile"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        put_text("bad.ini", cases[i].text);
        must_fail("'bad.ini'", "$K plan-check bad.ini");
        must_fail(cases[i].wanted, "$K plan-check bad.ini --model $M");
        must_fail(cases[i].wanted, "$K init --state never --plan bad.ini --model $M");
    }
    must_do("head -c 3000 \"$M\" >bad.ini");
    must_fail("'bad.ini', line 1", "$K plan-check bad.ini");
    must_do("head -c 3000 /dev/zero >bad.ini");
    must_fail("'bad.ini'", "$K init --state never --plan bad.ini --model $M");
    must_do("yes '; long' | head -c 100000 >bad.ini");
    must_fail("'bad.ini'", "$K init --state never --plan bad.ini --model $M");
    must_fail("'none.ini'", "$K init --state never --plan none.ini --model $M");
    assert_false(file_exists("never"));
}

static void a_plan_of_another_model_makes_no_task(void **state)
{
    (void)state;
    put_text("other.ini", "[model]\nbase_hash = "
                          "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\n");
    must_fail("base_hash", "$K init --state never --plan other.ini --model $M");
    must_fail("base_hash", "$K plan-check other.ini --model $M");
    put_text("long.ini", "[training]\ncontext_tokens = 8000\n");
    must_fail("context_tokens", "$K init --state never --plan long.ini --model $M");
    must_fail("context_tokens", "$K plan-check long.ini --model $M");
    assert_false(file_exists("never"));
}

static void a_bad_scenario_or_fleet_is_refused_before_anything_is_made(void **state)
{
    (void)state;
    static const char sim[] = LINNET_BIN "/linnet-sim run --model $M --data $D --rounds 1 --out never";
    static const struct {
        const char *text, *wanted;
    } cases[] = {
        {"[scenario]\nkill = 5\n", "did you mean [scenario] kills"},
        {"[scenario]\nkills = -5\n", "kills = '-5': a number from 0 to 10000 is wanted"},
        {"[scenario]\ndrop_out = 7\n", "drop_out = '7': a number from 0 to 1 is wanted"},
        {"[scenario]\ndrop_out = nan\n", "drop_out"},
        {"[scenario]\ndrop_out\n", "line 2"},
        {"\x1b[31m\x07 = 5\n", "this is no text"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        put_text("bad.ini", cases[i].text);
        must_fail("'bad.ini'", "%s --devices 2 --scenario bad.ini", sim);
        must_fail(cases[i].wanted, "%s --devices 2 --scenario bad.ini", sim);
    }
    must_fail("'none.ini'", "%s --devices 2 --scenario none.ini", sim);
    must_fail("99 devices", "%s --devices 99", sim);
    must_refuse_usage("--devices 0", "%s --devices 0", sim);
    must_fail("run.jsonl", LINNET_BIN "/linnet-sim compare never");
    must_do("rmdir never"); /* at most an empty folder, in which the next attempt may work */
}

/* ---- what is written ---- */

static void what_exists_is_not_written_over_by_accident(void **state)
{
    (void)state;
    make_adapter();
    must_do("mkdir -p kept && echo precious >kept/file");
    must_fail("'kept' is not empty", "$K init --state kept --plan tiny.ini --model $M");
    must_fail("'kept' is not empty",
              LINNET_BIN "/linnet-sim run --model $M --data $D --devices 2 --rounds 1 --out kept");
    must_do("grep -q precious kept/file && test $(ls kept | wc -l) = 1");
    must_fail("kept/file", "$C train --model $M --data few.jsonl --steps 1 --out kept/file");
    must_fail("", "$C train --model $M --data few.jsonl --steps 1 --out /proc/nowhere");
    must_fail("start without --resume",
              "$C train --model $M --data few.jsonl --steps 1 --out fresh --resume");
    put_text("bad/checkpoint.bin", "no checkpoint at all");
    must_fail(
        "bad/checkpoint.bin",
        "$C train --model $M --data few.jsonl --steps 2 --batch 1 --context 16 --rank 2 --out bad --resume");
}

static void output_that_nobody_can_read_is_a_failure(void **state)
{
    (void)state;
    make_task("output-task");
    static const char *const commands[] = {
        "$C inspect $M",
        "$C --version",
        "$C --help",
        "$C train --help",
        "$C generate --model $M --prompt a --tokens 2",
        "$C generate --model $M --prompt a --tokens 2 --json",
        "$C evaluate --model $M --data few.jsonl --json",
        "$C tokenize --model $M --text a",
        "$K plan-check tiny.ini",
        "$K status --state output-task",
        "$K rounds --state output-task --json",
        LINNET_BIN "/linnet-sim --help",
    };
    for (size_t i = 0; i < ARRAY_LEN(commands); i++) {
        must_fail("cannot write the output", "{ %s; } >/dev/full", commands[i]);
        must_fail("cannot write the output", "{ %s; } >&-", commands[i]);
    }
    must_fail("cannot write the output", "mkfifo pipe; : <pipe & exec 3>pipe; wait; $C inspect $M >&3");
}

static void a_file_size_limit_is_an_error_and_no_death(void **state)
{
    (void)state;
    must_fail(
        "small",
        "ulimit -f 4; $C train --model $M --data few.jsonl --steps 1 --batch 1 --context 16 --out small");
    assert_false(file_exists("small/adapter_model.safetensors"));
    must_fail("", "ulimit -f 4; $K init --state small-state --plan tiny.ini --model $M");
    assert_false(file_exists("small-state"));
    must_do("$C train --model $M --data few.jsonl --steps 1 --batch 1 --context 16 --out small --quiet");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_model_that_is_cut_is_refused_wherever_it_is_cut),
        cmocka_unit_test(counts_sizes_and_types_of_a_model_are_checked_before_use),
        cmocka_unit_test(no_altered_byte_of_a_header_is_more_than_an_error),
        cmocka_unit_test(what_is_no_model_is_called_by_its_name),
        cmocka_unit_test(an_adapter_that_is_cut_is_refused_in_both_forms),
        cmocka_unit_test(no_altered_byte_of_an_adapter_is_more_than_an_error),
        cmocka_unit_test(a_broken_adapter_config_is_named),
        cmocka_unit_test(an_adapter_of_another_model_is_not_used),
        cmocka_unit_test(a_bad_record_is_named_with_file_and_line),
        cmocka_unit_test(records_that_are_not_there_are_missed),
        cmocka_unit_test(a_line_over_the_cap_is_named_and_can_be_skipped),
        cmocka_unit_test(records_as_other_systems_write_them_are_read),
        cmocka_unit_test(a_bad_plan_is_refused_with_line_key_and_range),
        cmocka_unit_test(a_plan_of_another_model_makes_no_task),
        cmocka_unit_test(a_bad_scenario_or_fleet_is_refused_before_anything_is_made),
        cmocka_unit_test(what_exists_is_not_written_over_by_accident),
        cmocka_unit_test(output_that_nobody_can_read_is_a_failure),
        cmocka_unit_test(a_file_size_limit_is_an_error_and_no_death),
    };
    return acceptance_main(tests);
}
