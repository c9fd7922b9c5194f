/* SPDX-License-Identifier: Apache-2.0 */
/* Options become values, mistakes become status 2 and one line, output is text or JSON Lines. */
#include "testing.h"

#include "linnet/cli.h"

typedef struct values {
    bool flag, on;
    uint64_t count;
    double number;
    const char *text;
    int choice;
    linnet_texts texts;
} values;

static int parse(values *v, linnet_cli *cli, char *line)
{
    static char *argv[32]; /* positionals point into it after the return */
    memset(argv, 0, sizeof(argv));
    int argc = 0;
    for (char *word = strtok(line, " "); word; word = strtok(NULL, " "))
        argv[argc++] = word;
    linnet_option options[] = {
        {.name = "flag", .kind = LINNET_OPTION_FLAG, .value = &v->flag, .help = "a flag"},
        {.name = "shuffle", .kind = LINNET_OPTION_SWITCH, .value = &v->on, .help = "a switch"},
        {.name = "steps",
         .kind = LINNET_OPTION_COUNT,
         .value = &v->count,
         .argument = "N",
         .help = "a count",
         .min = 1,
         .max = 100},
        {.name = "rate",
         .kind = LINNET_OPTION_NUMBER,
         .value = &v->number,
         .argument = "X",
         .help = "a number",
         .min = 0,
         .max = 1},
        {.name = "model",
         .kind = LINNET_OPTION_TEXT,
         .value = &v->text,
         .argument = "FILE",
         .help = "a text",
         .required = true},
        {.name = "format",
         .kind = LINNET_OPTION_CHOICE,
         .value = &v->choice,
         .argument = "peft|gguf",
         .help = "a choice"},
        {.name = "add", .kind = LINNET_OPTION_TEXTS, .value = &v->texts, .argument = "X", .help = "texts"},
    };
    static const linnet_command self = {.name = "train", .arguments = "FILE", .summary = "Train."};
    return linnet_cli_parse(cli, &self, options, ARRAY_LEN(options), argc, argv, 0, 1);
}

static void options_become_values(void **state)
{
    (void)state;
    values v = {0};
    linnet_cli cli = {.program = "p", .command = "train", .out = stdout, .log = stderr};
    char line[] = "train --flag place --shuffle on --steps 7 --rate=0.25 --model m --format gguf --add a "
                  "--add b --json --threads 3";
    assert_int_equal(parse(&v, &cli, line), -1);
    assert_true(v.flag && v.on && v.count == 7 && v.number == 0.25 && v.choice == 1);
    assert_string_equal(v.text, "m");
    assert_int_equal(v.texts.n_items, 2);
    assert_true(cli.json && cli.n_threads == 3);
    assert_int_equal(cli.n_positionals, 1);
    assert_string_equal(cli.positionals[0], "place");
}

static void wrong_usage_is_status_2_and_names_the_mistake(void **state)
{
    (void)state;
    static const struct {
        const char *line, *says;
    } cases[] = {
        {"train", "--model is missing"},
        {"train --model m --stepps 3", "did you mean --steps?"},
        {"train --model m --steps 0", "from 1 to 100"},
        {"train --model m --steps -3", "whole number"},
        {"train --model m --steps 3x", "whole number"},
        {"train --model m --rate nan", "a number is wanted"},
        {"train --model m --rate 2", "from 0 to 1"},
        {"train --model m --shuffle maybe", "on or off"},
        {"train --model m --format onnx", "one of peft|gguf"},
        {"train --model", "wants a value"},
        {"train --model m a b", "unexpected argument 'b'"},
        {"train --model m --threads 1000", "from 0 to 256"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char *text = NULL, line[128];
        size_t n = 0;
        values v = {0};
        linnet_cli cli = {
            .program = "p", .command = "train", .out = stdout, .log = open_memstream(&text, &n)};
        (void)snprintf(line, sizeof(line), "%s", cases[i].line);
        int result = parse(&v, &cli, line);
        assert_int_equal(fclose(cli.log), 0);
        if (result != 2 || !strstr(text, cases[i].says))
            fail_msg("%s: %d, %s", cases[i].line, result, text);
        free(text);
    }
}

static void help_shows_defaults(void **state)
{
    (void)state;
    char *text = NULL, line[] = "train --help";
    size_t n = 0;
    values v = {.count = 10, .on = true, .choice = 1};
    linnet_cli cli = {.program = "p", .command = "train", .out = open_memstream(&text, &n), .log = stderr};
    assert_int_equal(parse(&v, &cli, line), 0);
    assert_int_equal(fclose(cli.out), 0);
    assert_non_null(strstr(text, "--steps N"));
    assert_non_null(strstr(text, "[10]"));
    assert_non_null(strstr(text, "[on]"));
    assert_non_null(strstr(text, "[gguf]"));
    free(text);
}

static void a_table_lines_up(void **state)
{
    (void)state;
    static const char *const headers[] = {"name", "bytes"};
    char *text = NULL;
    size_t n = 0;
    linnet_table *table = linnet_table_create(headers, 2);
    linnet_table_cell(table, "%s", "a");
    linnet_table_cell(table, "%d", 10);
    linnet_table_cell(table, "%s", "longer");
    linnet_table_cell(table, "%d", 7);
    FILE *out = open_memstream(&text, &n);
    linnet_table_print(table, out);
    assert_int_equal(fclose(out), 0);
    linnet_table_destroy(table);
    assert_string_equal(text, "name    bytes\na          10\nlonger      7\n");
    free(text);
}

static void json_lines_replace_text(void **state)
{
    (void)state;
    char *text = NULL;
    size_t n = 0;
    linnet_cli cli = {.program = "p", .json = true, .out = open_memstream(&text, &n), .log = stderr};
    linnet_cli_say(&cli, "for people\n");
    linnet_cli_emit(&cli, json_pack("{s:s,s:o}", "event", "result", "loss", linnet_json_number(1.0 / 0.0)));
    assert_int_equal(fclose(cli.out), 0);
    assert_string_equal(text, "{\"event\":\"result\",\"loss\":null}\n");
    free(text);
}

static void bytes_are_told_as_people_say_them(void **state)
{
    (void)state;
    char text[16];
    assert_string_equal(linnet_human_bytes(0, text), "0 B");
    assert_string_equal(linnet_human_bytes(999, text), "999 B");
    assert_string_equal(linnet_human_bytes(1234567, text), "1.23 MB");
    assert_string_equal(linnet_human_bytes(999999, text), "1.00 MB");
    assert_string_equal(linnet_human_bytes(123456789012, text), "123.5 GB");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(options_become_values),
        cmocka_unit_test(wrong_usage_is_status_2_and_names_the_mistake),
        cmocka_unit_test(help_shows_defaults),
        cmocka_unit_test(a_table_lines_up),
        cmocka_unit_test(json_lines_replace_text),
        cmocka_unit_test(bytes_are_told_as_people_say_them),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
