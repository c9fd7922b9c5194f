/* SPDX-License-Identifier: Apache-2.0 */
/* The command line of the three programs. One table of options makes the parser (getopt_long), the help and
 * the checks of ranges; messages name the option and the nearest known name. Output: text for people or JSON
 * Lines, never both. */
#include "linnet/cli.h"

#include "linnet/bytes.h"

#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#define OPTIONS_MAX 64 /* of one command, the common ones included */
#define COMMON_OPTIONS 5
enum { COMMON_HELP = 1000, COMMON_VERSION, COMMON_JSON, COMMON_QUIET, COMMON_THREADS };

/* Levenshtein distance of two short names, capped rows on the stack. */
static size_t edit_distance(const char *a, const char *b)
{
    size_t row[64], n = strlen(b);
    if (n >= ARRAY_LEN(row))
        return SIZE_MAX;
    for (size_t j = 0; j <= n; j++)
        row[j] = j;
    for (size_t i = 1; a[i - 1]; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= n; j++) {
            size_t best = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            if (row[j] + 1 < best)
                best = row[j] + 1;
            if (row[j - 1] + 1 < best)
                best = row[j - 1] + 1;
            row[j] = best;
        }
    }
    return row[n];
}

const char *linnet_nearest_name(const char *name, const char *const *names, size_t n_names)
{
    const char *nearest = NULL;
    size_t least = strlen(name) / 2 + 1; /* farther than this is another word */
    for (size_t i = 0; i < n_names; i++) {
        size_t distance = edit_distance(name, names[i]);
        if (distance <= least && (!nearest || distance < least)) {
            nearest = names[i];
            least = distance;
        }
    }
    return nearest;
}

int linnet_cli_usage(const linnet_cli *cli, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fprintf(cli->log, "%s%s%s: ", cli->program, cli->command ? " " : "", cli->command ? cli->command : "");
    vfprintf(cli->log, format, args);
    va_end(args);
    fprintf(cli->log, "; see %s%s%s --help\n", cli->program, cli->command ? " " : "",
            cli->command ? cli->command : "");
    return 2;
}

int linnet_cli_fail(const linnet_cli *cli, const linnet_error *err)
{
    const char *message = err->message[0] ? err->message : linnet_status_text(err->status);
    fprintf(cli->log, "%s%s%s: %s\n", cli->program, cli->command ? " " : "", cli->command ? cli->command : "",
            message);
    return 1;
}

void linnet_cli_emit(const linnet_cli *cli, json_t *object)
{
    if (cli->json && object) {
        char *line = json_dumps(object, JSON_COMPACT | JSON_REAL_PRECISION(12));
        if (line) {
            fprintf(cli->out, "%s\n", line);
            fflush(cli->out);
        }
        free(line);
    }
    json_decref(object);
}

void linnet_cli_say(const linnet_cli *cli, const char *format, ...)
{
    if (cli->json || cli->quiet)
        return;
    va_list args;
    va_start(args, format);
    vfprintf(cli->out, format, args);
    va_end(args);
    fflush(cli->out);
}

json_t *linnet_json_number(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

json_t *linnet_json_hex(const void *bytes, size_t n_bytes)
{
    char text[129];
    if (n_bytes > 64)
        return NULL;
    linnet_hex_write(bytes, n_bytes, text);
    return json_string(text);
}

/* ---- help ---- */

static void print_default(FILE *out, const linnet_option *option)
{
    switch (option->kind) {
    case LINNET_OPTION_COUNT:
        fprintf(out, " [%llu]", (unsigned long long)*(const uint64_t *)option->value);
        break;
    case LINNET_OPTION_NUMBER:
        fprintf(out, " [%g]", *(const double *)option->value);
        break;
    case LINNET_OPTION_SWITCH:
        fprintf(out, " [%s]", *(const bool *)option->value ? "on" : "off");
        break;
    case LINNET_OPTION_TEXT:
        if (*(const char *const *)option->value)
            fprintf(out, " [%s]", *(const char *const *)option->value);
        break;
    case LINNET_OPTION_CHOICE: {
        const char *at = option->argument;
        for (int i = *(const int *)option->value; i > 0 && at; i--)
            at = strchr(at, '|') ? strchr(at, '|') + 1 : NULL;
        if (at)
            fprintf(out, " [%.*s]", (int)strcspn(at, "|"), at);
        break;
    }
    case LINNET_OPTION_FLAG:
    case LINNET_OPTION_TEXTS:
        break;
    }
}

static void print_option(FILE *out, const char *name, const char *argument, const char *help)
{
    char left[96];
    (void)snprintf(left, sizeof(left), "--%s%s%s", name, argument ? " " : "", argument ? argument : "");
    fprintf(out, "  %-26s %s", left, help);
}

static void print_command_help(const linnet_cli *cli, const linnet_command *self,
                               const linnet_option *options, size_t n_options)
{
    FILE *out = cli->out;
    fprintf(out, "usage: %s %s [options]%s%s\n\n%s\n\noptions:\n", cli->program, self->name,
            self->arguments ? " " : "", self->arguments ? self->arguments : "", self->summary);
    for (size_t i = 0; i < n_options; i++) {
        print_option(out, options[i].name,
                     options[i].kind == LINNET_OPTION_SWITCH ? "on|off" : options[i].argument,
                     options[i].help);
        if (options[i].required)
            fputs(" (required)", out);
        else
            print_default(out, &options[i]);
        fputc('\n', out);
    }
    fputs("\ncommon options:\n", out);
    print_option(out, "json", NULL, "JSON Lines on stdout, one object a line\n");
    print_option(out, "quiet", NULL, "no text on stdout, no progress\n");
    print_option(out, "threads", "N", "threads to compute with; 0: one per core [0]\n");
    print_option(out, "help", NULL, "this text\n");
    print_option(out, "version", NULL, "the version\n");
    fputs("\nexit status: 0 done, 1 failed, 2 wrong usage\n", out);
}

/* ---- parsing ---- */

static int choice_index(const char *choices, const char *text)
{
    size_t n = strlen(text);
    for (int i = 0; choices; i++) {
        size_t length = strcspn(choices, "|");
        if (length == n && memcmp(choices, text, n) == 0)
            return i;
        choices = choices[length] ? choices + length + 1 : NULL;
    }
    return -1;
}

static int bad_range(const linnet_cli *cli, const linnet_option *option, const char *text)
{
    return linnet_cli_usage(cli, "--%s %s: a number from %g to %g is wanted", option->name, text, option->min,
                            option->max);
}

static int set_count(const linnet_cli *cli, linnet_option *option, const char *text)
{
    char *end = NULL;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end || errno)
        return linnet_cli_usage(cli, "--%s '%s': a whole number is wanted", option->name, text);
    if ((option->min != 0 || option->max != 0) &&
        ((double)value < option->min || (double)value > option->max))
        return bad_range(cli, option, text);
    *(uint64_t *)option->value = value;
    return -1;
}

static int set_number(const linnet_cli *cli, linnet_option *option, const char *text)
{
    char *end = NULL;
    double value = strtod(text, &end);
    if (end == text || *end || !isfinite(value))
        return linnet_cli_usage(cli, "--%s '%s': a number is wanted", option->name, text);
    if ((option->min != 0 || option->max != 0) && (value < option->min || value > option->max))
        return bad_range(cli, option, text);
    *(double *)option->value = value;
    return -1;
}

static int set_option(const linnet_cli *cli, linnet_option *option, const char *text)
{
    linnet_texts *texts = option->value;
    int choice;
    option->is_set = true;
    switch (option->kind) {
    case LINNET_OPTION_FLAG:
        *(bool *)option->value = true;
        return -1;
    case LINNET_OPTION_TEXT:
        *(const char **)option->value = text;
        return -1;
    case LINNET_OPTION_COUNT:
        return set_count(cli, option, text);
    case LINNET_OPTION_NUMBER:
        return set_number(cli, option, text);
    case LINNET_OPTION_SWITCH:
        if (strcmp(text, "on") != 0 && strcmp(text, "off") != 0)
            return linnet_cli_usage(cli, "--%s '%s': on or off is wanted", option->name, text);
        *(bool *)option->value = text[1] == 'n';
        return -1;
    case LINNET_OPTION_CHOICE:
        choice = choice_index(option->argument, text);
        if (choice < 0)
            return linnet_cli_usage(cli, "--%s '%s': one of %s is wanted", option->name, text,
                                    option->argument);
        *(int *)option->value = choice;
        return -1;
    case LINNET_OPTION_TEXTS:
        if (texts->n_items == LINNET_TEXTS_MAX)
            return linnet_cli_usage(cli, "--%s is given more than %d times", option->name, LINNET_TEXTS_MAX);
        texts->items[texts->n_items++] = text;
        return -1;
    }
    return -1;
}

static int unknown_option(const linnet_cli *cli, const char *argument, const linnet_option *options,
                          size_t n_options)
{
    const char *names[OPTIONS_MAX + COMMON_OPTIONS] = {"help", "version", "json", "quiet", "threads"};
    char name[64];
    size_t n = COMMON_OPTIONS;
    for (size_t i = 0; i < n_options; i++)
        names[n++] = options[i].name;
    (void)snprintf(name, sizeof(name), "%.*s", (int)strcspn(argument + 2, "="), argument + 2);
    const char *nearest = strncmp(argument, "--", 2) == 0 ? linnet_nearest_name(name, names, n) : NULL;
    if (nearest)
        return linnet_cli_usage(cli, "unknown option '%s', did you mean --%s?", argument, nearest);
    return linnet_cli_usage(cli, "unknown option '%s'", argument);
}

static void fill_long_options(struct option *longs, const linnet_option *options, size_t n_options)
{
    static const struct option common[COMMON_OPTIONS] = {
        {"help", no_argument, NULL, COMMON_HELP},
        {"version", no_argument, NULL, COMMON_VERSION},
        {"json", no_argument, NULL, COMMON_JSON},
        {"quiet", no_argument, NULL, COMMON_QUIET},
        {"threads", required_argument, NULL, COMMON_THREADS}};
    for (size_t i = 0; i < n_options; i++)
        longs[i] = (struct option){options[i].name,
                                   options[i].kind == LINNET_OPTION_FLAG ? no_argument : required_argument,
                                   NULL, (int)i + 1};
    memcpy(longs + n_options, common, sizeof(common));
    longs[n_options + COMMON_OPTIONS] = (struct option){0};
}

int linnet_cli_parse(linnet_cli *cli, const linnet_command *self, linnet_option *options, size_t n_options,
                     int argc, char **argv, int n_positionals_min, int n_positionals_max)
{
    struct option longs[OPTIONS_MAX + COMMON_OPTIONS + 1];
    linnet_option threads = {
        .name = "threads", .kind = LINNET_OPTION_COUNT, .value = &cli->n_threads, .min = 0, .max = 256};
    if (n_options > OPTIONS_MAX)
        return linnet_cli_usage(cli, "too many options");
    fill_long_options(longs, options, n_options);
    optind = 0; /* glibc: start over */
    opterr = 0;
    for (;;) {
        int found = getopt_long(argc, argv, ":", longs, NULL); /* moves positionals behind the options */
        int result = -1;
        if (found == -1)
            break;
        if (found == '?')
            return unknown_option(cli, argv[optind - 1], options, n_options);
        if (found == ':')
            return linnet_cli_usage(cli, "%s wants a value", argv[optind - 1]);
        if (found == COMMON_HELP) {
            print_command_help(cli, self, options, n_options);
            return 0;
        }
        if (found == COMMON_VERSION) {
            fprintf(cli->out, "%s %s\n", cli->program, LINNET_VERSION);
            return 0;
        }
        if (found == COMMON_JSON)
            cli->json = true;
        else if (found == COMMON_QUIET)
            cli->quiet = true;
        else if (found == COMMON_THREADS)
            result = set_option(cli, &threads, optarg);
        else
            result = set_option(cli, &options[found - 1], optarg);
        if (result >= 0)
            return result;
    }
    cli->n_positionals = argc - optind;
    cli->positionals = argv + optind;
    for (size_t i = 0; i < n_options; i++)
        if (options[i].required && !options[i].is_set)
            return linnet_cli_usage(cli, "--%s is missing", options[i].name);
    if (cli->n_positionals < n_positionals_min)
        return linnet_cli_usage(cli, "%s is missing", self->arguments ? self->arguments : "an argument");
    if (n_positionals_max >= 0 && cli->n_positionals > n_positionals_max)
        return linnet_cli_usage(cli, "unexpected argument '%s'", cli->positionals[n_positionals_max]);
    return -1;
}

/* ---- programs ---- */

static void print_program_help(FILE *out, const char *program, const char *summary,
                               const linnet_command *commands, size_t n_commands)
{
    fprintf(out, "usage: %s COMMAND [options]\n\n%s\n\ncommands:\n", program, summary);
    for (size_t i = 0; i < n_commands; i++)
        fprintf(out, "  %-12s %.*s\n", commands[i].name, (int)strcspn(commands[i].summary, "\n"),
                commands[i].summary);
    fprintf(out, "\n%s COMMAND --help tells more about one of them.\n", program);
}

/* A full disk or a closed pipe is a failure, not a silence. */
static int check_output(const linnet_cli *cli, int result)
{
    bool is_flushed = fflush(cli->out) == 0;
    if (is_flushed && !ferror(cli->out))
        return result;
    fprintf(cli->log, "%s%s%s: cannot write the output: %s\n", cli->program, cli->command ? " " : "",
            cli->command ? cli->command : "", is_flushed ? "a part of it is lost" : strerror(errno));
    return result ? result : 1;
}

static int run_command(linnet_cli *cli, const linnet_command *command, int argc, char **argv)
{
    cli->command = command->name;
    return check_output(cli, command->run(cli, argc, argv));
}

int linnet_cli_main(const char *program, const char *summary, const linnet_command *commands,
                    size_t n_commands, int argc, char **argv)
{
    linnet_cli cli = {.program = program, .out = stdout, .log = stderr};
    const char *names[OPTIONS_MAX];
    /* A reader that went away (also of a TLS connection) and a file size limit become errors of the write. */
    (void)signal(SIGPIPE, SIG_IGN);
    (void)signal(SIGXFSZ, SIG_IGN);
    if (argc < 2) {
        print_program_help(stderr, program, summary, commands, n_commands);
        return 2;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0) {
        print_program_help(stdout, program, summary, commands, n_commands);
        return check_output(&cli, 0);
    }
    if (strcmp(argv[1], "--version") == 0) {
        printf("%s %s\n", program, LINNET_VERSION);
        return check_output(&cli, 0);
    }
    for (size_t i = 0; i < n_commands && i < ARRAY_LEN(names); i++) {
        if (strcmp(argv[1], commands[i].name) == 0)
            return run_command(&cli, &commands[i], argc - 1, argv + 1);
        names[i] = commands[i].name;
    }
    const char *nearest = linnet_nearest_name(argv[1], names, n_commands);
    if (nearest)
        return linnet_cli_usage(&cli, "unknown command '%s', did you mean %s?", argv[1], nearest);
    return linnet_cli_usage(&cli, "unknown command '%s'", argv[1]);
}
