/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_CLI_H
#define LINNET_CLI_H

/* The command line of the three programs: one option table makes the parser, --help and the completion;
 * output is a table for people or JSON Lines for programs, chosen by --json. Exit status: 0 done, 1 failed, 2
 * wrong usage. */

#include "linnet/status.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

typedef enum linnet_option_kind {
    LINNET_OPTION_FLAG,   /* bool */
    LINNET_OPTION_TEXT,   /* const char *, borrowed from argv */
    LINNET_OPTION_COUNT,  /* uint64_t, min..max */
    LINNET_OPTION_NUMBER, /* double, min..max */
    LINNET_OPTION_SWITCH, /* bool from on|off */
    LINNET_OPTION_CHOICE, /* int index into choices, "a|b|c" */
    LINNET_OPTION_TEXTS,  /* linnet_texts: may be given more than once */
} linnet_option_kind;

#define LINNET_TEXTS_MAX 32
typedef struct linnet_texts {
    const char *items[LINNET_TEXTS_MAX];
    size_t n_items;
} linnet_texts;

/** One long option. The value holds the default before parsing; help says units and meaning (the default is
 * added). */
typedef struct linnet_option {
    const char *name; /* without dashes: "learning-rate" */
    linnet_option_kind kind;
    void *value;          /* of the kind's type */
    const char *argument; /* as shown by --help: "DIR"; for CHOICE "a|b|c" */
    const char *help;
    double min, max; /* COUNT and NUMBER; both 0: no bound */
    bool required;
    bool is_set; /* out: was it given? */
} linnet_option;

typedef struct linnet_cli {
    const char *program, *command; /* "linnet-client", "train" */
    bool json, quiet;
    uint64_t n_threads; /* 0: one per core */
    int n_positionals;
    char **positionals; /* what is left after the options */
    FILE *out, *log;    /* stdout, stderr */
} linnet_cli;

/** One command: its own options are declared inside run, which calls linnet_cli_parse first. */
typedef struct linnet_command {
    const char *name, *arguments, *summary; /* arguments: positionals for --help, e.g. "FILE" */
    /* argv[0] is the command's name; returns the exit status. */
    int (*run)(linnet_cli *cli, int argc, char **argv);
} linnet_command;

/** main of a program: picks the command, answers --help and --version, exit status 2 with the nearest known
 * name on a wrong one. */
int linnet_cli_main(const char *program, const char *summary, const linnet_command *commands,
                    size_t n_commands, int argc, char **argv);

/** Parse a command's options and the common ones (--help --version --json --quiet --threads N). Returns -1 to
 * go on, else the exit status (0 after --help, 2 on wrong usage, after one line on stderr). n_positionals_max
 * < 0: any number. */
int linnet_cli_parse(linnet_cli *cli, const linnet_command *self, linnet_option *options, size_t n_options,
                     int argc, char **argv, int n_positionals_min, int n_positionals_max);

/** One line on stderr: "linnet-client: train: MESSAGE"; returns 1 (2 for LINNET_ERR_ARG with usage true). */
int linnet_cli_fail(const linnet_cli *cli, const linnet_error *err);
int linnet_cli_usage(const linnet_cli *cli, const char *format, ...) LINNET_PRINTF(2, 3);

/** With --json, one JSON object a line (steals the reference); without, nothing. Flushes. */
void linnet_cli_emit(const linnet_cli *cli, json_t *object);
/** Without --json and --quiet, text on stdout. */
void linnet_cli_say(const linnet_cli *cli, const char *format, ...) LINNET_PRINTF(2, 3);
/** A number for JSON: null where it is not finite. Rounds nothing. */
json_t *linnet_json_number(double value);
/** Bytes as lower-case hex. */
json_t *linnet_json_hex(const void *bytes, size_t n_bytes);

/** The nearest of n names to `name` by edit distance, or NULL where none is near; for "did you mean". */
const char *linnet_nearest_name(const char *name, const char *const *names, size_t n_names);

/* ---- a progress bar on stderr, shown only where stderr is a terminal and output is for people ---- */
typedef struct linnet_progress {
    const linnet_cli *cli;
    const char *label;
    uint64_t total;
    int64_t started_ms, shown_ms;
    bool active;
} linnet_progress;
void linnet_progress_start(linnet_progress *progress, const linnet_cli *cli, const char *label,
                           uint64_t total);
/** note (may be NULL) stands behind the bar: "loss 2.31". Redraws at most ten times a second. */
void linnet_progress_update(linnet_progress *progress, uint64_t done, const char *note);
void linnet_progress_finish(linnet_progress *progress);

/* ---- a table for people: columns as wide as their widest cell, numbers to the right ---- */
typedef struct linnet_table linnet_table;
/** NULL on lack of memory; all calls take NULL. Cells are given row by row. */
linnet_table *linnet_table_create(const char *const *headers, size_t n_columns);
void linnet_table_cell(linnet_table *table, const char *format, ...) LINNET_PRINTF(2, 3);
void linnet_table_print(const linnet_table *table, FILE *out);
void linnet_table_destroy(linnet_table *table);
/** "1.2 MB" (powers of 1000) into text. */
const char *linnet_human_bytes(uint64_t n_bytes, char text[16]);

/* ---- a terminal curve: y over x as rows of block characters, axis labels left and below ---- */
void linnet_plot_print(FILE *out, const char *title, const double *y, size_t n, int width, int height);

#endif
