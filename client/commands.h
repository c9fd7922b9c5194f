/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_COMMANDS_H
#define LINNET_COMMANDS_H

/* The commands of linnet-client and what they share. */

#include "linnet/cli.h"
#include "linnet/runtime.h"

/* commands_model.c */
extern const linnet_command client_command_generate, client_command_chat, client_command_tokenize;
/* command_inspect.c */
extern const linnet_command client_command_inspect;
/* command_evaluate.c */
extern const linnet_command client_command_evaluate;
/* command_classify.c */
extern const linnet_command client_command_classify;
/* command_train.c */
extern const linnet_command client_command_train;
/* command_adapter.c */
extern const linnet_command client_command_adapter;
/* command_quantize.c */
extern const linnet_command client_command_quantize;
/* command_bench.c */
extern const linnet_command client_command_bench;
/* command_serve.c */
extern const linnet_command client_command_serve;
/* commands_device.c */
extern const linnet_command client_command_enroll, client_command_run, client_command_status;
extern const linnet_command client_command_data, client_command_forget;

/** What most commands open first. Zero-initialise; close takes half-open ones. */
typedef linnet_runtime client_model;

/** adapters (NULL: none) are paths, each with ":SCALE" behind it if wanted; several are summed. On failure
 * what is open is left to client_model_close. */
linnet_status client_model_open(const linnet_cli *cli, const char *path, const linnet_texts *adapters,
                                client_model *m, linnet_error *err) LINNET_NODISCARD;
void client_model_close(client_model *m);
/** The context to work with: `wanted`, or `usual` where that is 0, at most the model's; LIMIT if more is
 * wanted. */
linnet_status client_context(const client_model *m, uint64_t wanted, uint32_t usual, uint32_t *ret_context,
                             linnet_error *err) LINNET_NODISCARD;

/** An object {"event": event}; NULL on lack of memory, which all calls below take. */
json_t *client_event(const char *event);
void client_put_number(json_t *object, const char *name, double value); /* null where not finite */
void client_put_count(json_t *object, const char *name, uint64_t value);
/** Any bytes: what is not UTF-8 becomes U+FFFD. */
json_t *client_json_text(const void *bytes, size_t n_bytes);
void client_put_text(json_t *object, const char *name, const void *bytes, size_t n_bytes);
void client_put_ids(json_t *object, const char *name, const int32_t *ids, size_t n);

/** Append bytes of a file, fit for a terminal: control bytes become spaces. */
void client_append_line(linnet_buffer *line, const void *bytes, size_t n_bytes);

double client_seconds(void);    /* monotonic */
uint64_t client_peak_rss(void); /* bytes */

/* Rows of an option table. */
#define CLIENT_OPTION(kind_, name_, value_, argument_, help_, min_, max_, required_)                         \
    {                                                                                                        \
        .name = (name_), .kind = LINNET_OPTION_##kind_, .value = (value_), .argument = (argument_),          \
        .help = (help_), .min = (min_), .max = (max_), .required = (required_)                               \
    }
#define CLIENT_REQUIRED(name, value, argument, help)                                                         \
    CLIENT_OPTION(TEXT, name, value, argument, help, 0, 0, true)
#define CLIENT_TEXT(name, value, argument, help) CLIENT_OPTION(TEXT, name, value, argument, help, 0, 0, false)
#define CLIENT_TEXTS(name, value, argument, help)                                                            \
    CLIENT_OPTION(TEXTS, name, value, argument, help, 0, 0, false)
#define CLIENT_ADAPTERS(value)                                                                               \
    CLIENT_TEXTS("adapter", value, "PATH[:SCALE]", "PEFT directory or GGUF adapter; several are summed")
#define CLIENT_FLAG(name, value, help) CLIENT_OPTION(FLAG, name, value, NULL, help, 0, 0, false)
#define CLIENT_SWITCH(name, value, help) CLIENT_OPTION(SWITCH, name, value, NULL, help, 0, 0, false)
#define CLIENT_CHOICE(name, value, choices, help)                                                            \
    CLIENT_OPTION(CHOICE, name, value, choices, help, 0, 0, false)
#define CLIENT_COUNT(name, value, min, max, help)                                                            \
    CLIENT_OPTION(COUNT, name, value, "N", help, min, max, false)
#define CLIENT_NUMBER(name, value, min, max, help)                                                           \
    CLIENT_OPTION(NUMBER, name, value, "X", help, min, max, false)

#endif
