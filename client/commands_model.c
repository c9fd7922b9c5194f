/* SPDX-License-Identifier: Apache-2.0 */
/* generate, chat, tokenize: what one does with a model as it is. */
#include "commands.h"

#include "linnet/dataset.h"
#include "linnet/generation.h"

#include <stdlib.h>
#include <unistd.h>

#define TEXT_FILE_BYTES_MAX ((size_t)256 << 20)

/* ---- generation, for generate and chat ---- */

static bool print_text(void *context, const char *text, size_t n_bytes)
{
    FILE *stream = context;
    (void)fwrite(text, 1, n_bytes, stream); /* checked at the end */
    (void)fflush(stream);
    return true;
}

/* Text goes to stdout as it comes, where people read. */
static void stream_text(const linnet_cli *cli, linnet_generation *g)
{
    g->on_text = cli->json ? NULL : print_text;
    g->context = cli->out;
}

static const char *stop_name(linnet_stop stopped)
{
    static const char *const names[] = {[LINNET_STOP_END] = "end",
                                        [LINNET_STOP_TOKENS] = "tokens",
                                        [LINNET_STOP_CONTEXT] = "context",
                                        [LINNET_STOP_STRING] = "string",
                                        [LINNET_STOP_CALLER] = "caller"};
    return names[stopped];
}

static double rate(size_t n, double seconds)
{
    return seconds > 0 ? (double)n / seconds : 0;
}

static void emit_generation(const linnet_cli *cli, const linnet_ids *prompt, const linnet_generation *g)
{
    size_t n_fed = g->ids.n_items > 0 ? g->ids.n_items - 1 : 0; /* the last token is drawn, not fed */
    json_t *result = client_event("result");
    client_put_ids(result, "prompt_ids", prompt->items, prompt->n_items);
    client_put_ids(result, "ids", g->ids.items, g->ids.n_items);
    client_put_text(result, "text", g->text.bytes, g->text.n_bytes);
    client_put_text(result, "stopped", stop_name(g->stopped), strlen(stop_name(g->stopped)));
    client_put_number(result, "prefill_tokens_per_second", rate(prompt->n_items, g->prefill_seconds));
    client_put_number(result, "decode_tokens_per_second", rate(n_fed, g->decode_seconds));
    linnet_cli_emit(cli, result);
}

typedef struct sampling_options {
    uint64_t n_tokens, seed;
    double temperature, top_p;
} sampling_options;

static linnet_status run_generate(const linnet_cli *cli, const client_model *m, const char *prompt,
                                  const sampling_options *s, linnet_error *err)
{
    linnet_ids ids = {0};
    linnet_generation g = {.n_tokens = s->n_tokens, .end_of_turn = -1};
    linnet_sampler_init(&g.sampler, s->temperature, s->top_p, s->seed);
    linnet_status status = linnet_tokenize(m->tokenizer, prompt, strlen(prompt),
                                           LINNET_TOKENIZE_BEGIN | LINNET_TOKENIZE_PREFIX, &ids, err);
    uint32_t context = linnet_generation_context(m->model, ids.n_items, s->n_tokens);
    if (status == LINNET_OK)
        status = linnet_generation_check(&ids, context, err);
    if (status == LINNET_OK)
        status = linnet_generation_open(&g, m, context, err);
    if (status == LINNET_OK) {
        stream_text(cli, &g);
        if (!cli->json)
            fputs(prompt, cli->out);
        status = linnet_generation_run(&g, &ids, err);
        if (!cli->json)
            fputc('\n', cli->out);
    }
    if (status == LINNET_OK)
        emit_generation(cli, &ids, &g);
    linnet_generation_release(&g);
    linnet_ids_release(&ids);
    return status;
}

static int command_generate(linnet_cli *cli, int argc, char **argv)
{
    const char *path = NULL, *prompt = NULL;
    linnet_texts adapters = {0};
    sampling_options s = {.n_tokens = 64, .top_p = 1};
    linnet_option options[] = {
        CLIENT_REQUIRED("model", &path, "FILE", "GGUF model, or a checkpoint's folder"),
        CLIENT_ADAPTERS(&adapters),
        CLIENT_REQUIRED("prompt", &prompt, "TEXT", "text to continue"),
        CLIENT_COUNT("tokens", &s.n_tokens, 0, 0, "tokens to generate at most"),
        CLIENT_NUMBER("temperature", &s.temperature, 0, 100, "0: the likeliest token"),
        CLIENT_NUMBER("top-p", &s.top_p, 0, 1, "draw from the likeliest tokens of this share; 1: all"),
        CLIENT_COUNT("seed", &s.seed, 0, 0, "of the random draws"),
    };
    int exit_status =
        linnet_cli_parse(cli, &client_command_generate, options, ARRAY_LEN(options), argc, argv, 0, 0);
    if (exit_status >= 0)
        return exit_status;
    client_model m = {0};
    linnet_error err = {0};
    linnet_status status = client_model_open(cli, path, &adapters, &m, &err);
    if (status == LINNET_OK)
        status = run_generate(cli, &m, prompt, &s, &err);
    client_model_close(&m);
    return status == LINNET_OK ? 0 : linnet_cli_fail(cli, &err);
}

const linnet_command client_command_generate = {"generate", NULL, "Continue a text.", command_generate};

/* ---- chat ---- */

typedef struct conversation {
    linnet_message *items; /* owned */
    size_t n_items;
} conversation;

static linnet_status say_turn(conversation *c, const char *role, const char *content, linnet_error *err)
{
    linnet_message *items = realloc(c->items, (c->n_items + 1) * sizeof(*items));
    if (items)
        c->items = items;
    linnet_message turn = {strdup(role), strdup(content)};
    if (!items || !turn.role || !turn.content) {
        free(turn.role);
        free(turn.content);
        return linnet_fail(err, LINNET_ERR_NOMEM, "no memory for the conversation");
    }
    c->items[c->n_items++] = turn;
    return LINNET_OK;
}

static void forget_oldest(conversation *c, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        free(c->items[i].role);
        free(c->items[i].content);
    }
    if (n < c->n_items)
        memmove(c->items, c->items + n, (c->n_items - n) * sizeof(*c->items));
    c->n_items -= n;
}

/* The conversation's ids, forgetting its oldest turns as long as less than a quarter of the context is left.
 */
static linnet_status fit_conversation(conversation *c, const client_model *m, uint32_t context,
                                      linnet_ids *ids, int32_t *end_of_turn, linnet_error *err)
{
    for (;;) {
        linnet_status status = linnet_chat_encode(c->items, c->n_items, m->tokenizer, ids, end_of_turn, err);
        if (status != LINNET_OK)
            return status;
        if (ids->n_items <= context - context / 4)
            return LINNET_OK;
        if (c->n_items < 3)
            return linnet_generation_check(ids, context, err);
        linnet_ids_release(ids);
        forget_oldest(c, 2);
    }
}

static linnet_status answer(const linnet_cli *cli, const client_model *m, linnet_generation *g,
                            conversation *c, uint64_t n_tokens, linnet_error *err)
{
    uint32_t context = linnet_model_shape_of(m->model)->context;
    linnet_ids ids = {0};
    g->n_tokens = n_tokens;
    linnet_status status = fit_conversation(c, m, context, &ids, &g->end_of_turn, err);
    if (status == LINNET_OK)
        status = linnet_generation_run(g, &ids, err);
    if (status == LINNET_OK) {
        if (!cli->json)
            fputc('\n', cli->out);
        json_t *turn = client_event("answer");
        client_put_text(turn, "text", g->text.bytes, g->text.n_bytes);
        client_put_ids(turn, "ids", g->ids.items, g->ids.n_items);
        linnet_cli_emit(cli, turn);
        linnet_buffer_append_u8(&g->text, 0);
        const char *said = g->text.failed ? "" : (const char *)g->text.bytes;
        status =
            say_turn(c, "assistant", said + strspn(said, " "), err); /* formats put their own space there */
    }
    linnet_ids_release(&ids);
    return status;
}

static linnet_status run_chat(const linnet_cli *cli, const client_model *m, const char *system,
                              const sampling_options *s, linnet_error *err)
{
    bool ask = isatty(STDIN_FILENO) && !cli->json && !cli->quiet;
    conversation c = {0};
    linnet_generation g = {.end_of_turn = -1};
    char *line = NULL;
    size_t line_capacity = 0, n_answers = 0;
    linnet_sampler_init(&g.sampler, s->temperature, s->top_p, s->seed);
    stream_text(cli, &g);
    linnet_status status = linnet_generation_open(&g, m, 0, err);
    if (status == LINNET_OK && system)
        status = say_turn(&c, "system", system, err);
    while (status == LINNET_OK) {
        if (ask)
            linnet_cli_say(cli, "> ");
        ssize_t n = getline(&line, &line_capacity, stdin);
        if (n < 0)
            break;
        line[strcspn(line, "\r\n")] = '\0';
        if (line[0] == '\0')
            continue;
        status = say_turn(&c, "user", line, err);
        if (status == LINNET_OK)
            status = answer(cli, m, &g, &c, s->n_tokens, err);
        n_answers++;
    }
    if (status == LINNET_OK) {
        json_t *result = client_event("result");
        client_put_count(result, "answers", n_answers);
        linnet_cli_emit(cli, result);
    }
    free(line);
    forget_oldest(&c, c.n_items);
    free(c.items);
    linnet_generation_release(&g);
    return status;
}

static int command_chat(linnet_cli *cli, int argc, char **argv)
{
    const char *path = NULL, *system = NULL;
    linnet_texts adapters = {0};
    sampling_options s = {.n_tokens = 256, .top_p = 0.9, .temperature = 0.7};
    linnet_option options[] = {
        CLIENT_REQUIRED("model", &path, "FILE", "GGUF model, or a checkpoint's folder"),
        CLIENT_ADAPTERS(&adapters),
        CLIENT_TEXT("system", &system, "TEXT", "what the assistant is told first"),
        CLIENT_COUNT("tokens", &s.n_tokens, 0, 0, "tokens of an answer at most"),
        CLIENT_NUMBER("temperature", &s.temperature, 0, 100, "0: the likeliest token"),
        CLIENT_NUMBER("top-p", &s.top_p, 0, 1, "draw from the likeliest tokens of this share; 1: all"),
        CLIENT_COUNT("seed", &s.seed, 0, 0, "of the random draws"),
    };
    int exit_status =
        linnet_cli_parse(cli, &client_command_chat, options, ARRAY_LEN(options), argc, argv, 0, 0);
    if (exit_status >= 0)
        return exit_status;
    client_model m = {0};
    linnet_error err = {0};
    linnet_status status = client_model_open(cli, path, &adapters, &m, &err);
    if (status == LINNET_OK)
        status = run_chat(cli, &m, system, &s, &err);
    client_model_close(&m);
    return status == LINNET_OK ? 0 : linnet_cli_fail(cli, &err);
}

const linnet_command client_command_chat = {
    "chat", NULL, "Talk with a model: one line of stdin is one turn; its own chat format where it has one.",
    command_chat};

/* ---- tokenize ---- */

static void print_ids(const linnet_cli *cli, const linnet_tokenizer *t, const linnet_ids *ids)
{
    static const char *const headers[] = {"id", "piece"};
    linnet_table *table = linnet_table_create(headers, ARRAY_LEN(headers));
    for (size_t i = 0; i < ids->n_items; i++) {
        linnet_text piece = linnet_token_piece(t, ids->items[i]);
        linnet_buffer line = {0};
        client_append_line(&line, piece.bytes, piece.n_bytes);
        linnet_table_cell(table, "%d", (int)ids->items[i]);
        linnet_table_cell(table, "%.*s", (int)line.n_bytes, line.bytes ? (const char *)line.bytes : "");
        linnet_buffer_release(&line);
    }
    linnet_table_print(table, cli->out);
    linnet_table_destroy(table);
}

static linnet_status run_tokenize(const linnet_cli *cli, const char *path, const char *text, size_t n_bytes,
                                  bool special, linnet_error *err)
{
    linnet_gguf *gguf = NULL; /* not a model: files with a vocabulary alone will do */
    linnet_tokenizer *tokenizer = NULL;
    linnet_ids ids = {0};
    unsigned flags = LINNET_TOKENIZE_PREFIX;
    if (special)
        flags |= LINNET_TOKENIZE_BEGIN | LINNET_TOKENIZE_SPECIAL | LINNET_TOKENIZE_END;
    linnet_status status = linnet_gguf_open(path, &gguf, err);
    if (status == LINNET_OK)
        status = linnet_tokenizer_create(gguf, &tokenizer, err);
    if (status == LINNET_OK)
        status = linnet_tokenize(tokenizer, text, n_bytes, flags, &ids, err);
    if (status == LINNET_OK) {
        json_t *result = client_event("result");
        client_put_ids(result, "ids", ids.items, ids.n_items);
        linnet_cli_emit(cli, result);
        if (!cli->json && !cli->quiet)
            print_ids(cli, tokenizer, &ids);
    }
    linnet_ids_release(&ids);
    linnet_tokenizer_destroy(tokenizer);
    linnet_gguf_close(gguf);
    return status;
}

static int command_tokenize(linnet_cli *cli, int argc, char **argv)
{
    const char *path = NULL, *text = NULL, *file = NULL;
    bool special = false;
    linnet_option options[] = {
        CLIENT_REQUIRED("model", &path, "FILE", "GGUF model or vocabulary"),
        CLIENT_TEXT("text", &text, "TEXT", "what to tokenise"),
        CLIENT_TEXT("file", &file, "FILE", "a file to tokenise instead"),
        CLIENT_FLAG("special", &special, "begin and end as the file says, special tokens by name"),
    };
    int exit_status =
        linnet_cli_parse(cli, &client_command_tokenize, options, ARRAY_LEN(options), argc, argv, 0, 0);
    if (exit_status >= 0)
        return exit_status;
    if (!text == !file)
        return linnet_cli_usage(cli, "one of --text and --file is wanted");
    linnet_buffer bytes = {0};
    linnet_error err = {0};
    linnet_status status = LINNET_OK;
    if (file)
        status = linnet_file_read(file, TEXT_FILE_BYTES_MAX, &bytes, &err);
    if (status == LINNET_OK && file)
        status = run_tokenize(cli, path, (const char *)bytes.bytes, bytes.n_bytes, special, &err);
    else if (status == LINNET_OK)
        status = run_tokenize(cli, path, text, strlen(text), special, &err);
    linnet_buffer_release(&bytes);
    return status == LINNET_OK ? 0 : linnet_cli_fail(cli, &err);
}

const linnet_command client_command_tokenize = {"tokenize", NULL, "Show the tokens of a text.",
                                                command_tokenize};
