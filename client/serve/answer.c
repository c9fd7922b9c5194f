/* SPDX-License-Identifier: Apache-2.0 */
/* Answering one request with the model: each choice is a generation of its own, which gives the engine to the
 * others between two tokens and looks then whether its client is still there. */
#include "serve_state.h"

#include "linnet/generation.h"

#include <math.h>
#include <stdlib.h>
#include <time.h>

#define BACKLOG_MAX ((size_t)256 << 10) /* of an answer that is not read: then its generation waits */
#define PAUSE_NS 10000000L

/* One answer, and the choice that is growing. */
typedef struct answering {
    serve *serve;
    serve_job *job;
    linnet_shared_adapter *adapter; /* NULL: none */
    openai_answer answer;
    openai_choice *choices; /* owned */
    size_t n_choices, choice;
    openai_usage usage;
    linnet_generation *generation; /* of the choice */
    bool has_turn, has_adapter;
    bool has_begun;  /* the stream's head is sent */
    bool has_opened; /* the choice's first event is written */
    bool is_judged;  /* the choice's text may go out */
    bool is_handed_on;
    double log_probability; /* of the tokens that are drawn */
    linnet_buffer events;   /* that are not sent yet */
} answering;

/* ---- the engine's turns ---- */

static void end_turn(answering *a)
{
    if (a->has_turn)
        turns_end(&a->serve->engine);
    a->has_turn = false;
}

static linnet_status check_peer(const answering *a, linnet_error *err)
{
    if (serve_must_end(a->serve))
        return linnet_fail(err, LINNET_ERR_BUSY, "the server is stopping");
    if (linnet_http_reply_is_gone(a->job->reply))
        return linnet_fail(err, LINNET_ERR_CANCELLED, "the client has left");
    return LINNET_OK;
}

/* The engine for one more step, once the client has read enough. */
static linnet_status begin_turn(answering *a, linnet_error *err)
{
    const struct timespec pause = {.tv_nsec = PAUSE_NS};
    linnet_status status = check_peer(a, err);
    while (status == LINNET_OK && a->has_begun && linnet_http_reply_backlog(a->job->reply) > BACKLOG_MAX) {
        (void)nanosleep(&pause, NULL);
        status = check_peer(a, err);
    }
    if (status != LINNET_OK)
        return status;
    turns_begin(&a->serve->engine);
    a->has_turn = true;
    return LINNET_OK;
}

/* ---- what goes out ---- */

static void send_events(answering *a)
{
    if (!a->has_begun) {
        linnet_http_response head = {.status = 200, .content_type = "text/event-stream"};
        linnet_http_reply_begin(a->job->reply, &head);
        a->has_begun = true;
    }
    if (a->events.n_bytes > 0)
        (void)linnet_http_reply_write(a->job->reply, a->events.bytes, a->events.n_bytes); /* the next look
                                                                                          finds who left */
    linnet_buffer_clear(&a->events);
}

/* A piece of the choice's text, or its end, as an event. */
static void send_piece(answering *a, const char *text, size_t n_bytes, const char *finish)
{
    openai_write_piece(&a->answer, a->choice, !a->has_opened, text, n_bytes, finish, &a->events);
    a->has_opened = true;
    send_events(a);
}

/* All of the choice's text that was held back. */
static void let_out(answering *a)
{
    const linnet_buffer *text = &a->choices[a->choice].text;
    a->is_judged = true;
    if (a->job->request.streams && text->n_bytes > 0)
        send_piece(a, (const char *)text->bytes, text->n_bytes, NULL);
}

/* ---- confidence ---- */

static bool judges(const answering *a)
{
    const upstream *u = &a->serve->options.upstream;
    return u->url && u->rules.confidence_min > 0 && a->n_choices == 1;
}

/* The answer is too unsure and the upstream server has answered in its place. */
static bool hand_on(answering *a)
{
    linnet_error err = {0};
    const upstream *u = &a->serve->options.upstream;
    size_t n = a->generation->ids.n_items;
    bool is_unsure = n > 0 && exp(a->log_probability / (double)n) < u->rules.confidence_min;
    end_turn(a);
    a->is_handed_on =
        is_unsure && upstream_forward(u, &a->job->request, a->job->reply, true, &err) == LINNET_OK;
    return a->is_handed_on;
}

/* ---- the generation's callbacks ---- */

static void on_token(void *context, int32_t id, const float *logits)
{
    answering *a = context;
    uint32_t n = linnet_model_shape_of(a->serve->runtime->model)->vocabulary;
    double largest = -INFINITY, sum = 0;
    if (!judges(a) || a->is_judged)
        return;
    for (uint32_t i = 0; i < n; i++)
        largest = logits[i] > largest ? (double)logits[i] : largest;
    for (uint32_t i = 0; i < n; i++)
        sum += exp((double)logits[i] - largest);
    a->log_probability += (double)logits[id] - largest - log(sum);
}

static bool on_text(void *context, const char *text, size_t n_bytes)
{
    answering *a = context;
    openai_choice *choice = &a->choices[a->choice];
    while (a->answer.is_chat && choice->text.n_bytes == 0 && n_bytes > 0 && *text == ' ') {
        text++; /* formats put their own space there */
        n_bytes--;
    }
    linnet_buffer_append(&choice->text, text, n_bytes);
    if (a->job->request.streams && a->is_judged && n_bytes > 0)
        send_piece(a, text, n_bytes, NULL);
    return !choice->text.failed && !a->events.failed;
}

static linnet_status on_feed(void *context, linnet_session *session, linnet_error *err)
{
    answering *a = context;
    end_turn(a);
    if (!a->is_judged && a->generation->ids.n_items >= UPSTREAM_JUDGED_TOKENS) {
        if (hand_on(a))
            return linnet_fail(err, LINNET_ERR_CANCELLED, "handed on");
        let_out(a);
    }
    linnet_status status = begin_turn(a, err);
    if (status == LINNET_OK && !a->has_adapter)
        status = linnet_session_set_adapter(session, linnet_shared_adapter_get(a->adapter), err);
    a->has_adapter = true;
    return status;
}

/* ---- one choice ---- */

static uint64_t seed_of(const answering *a)
{
    uint64_t seed;
    if (a->job->request.has_seed)
        return a->job->request.seed + a->choice;
    linnet_random_bytes(&seed, sizeof(seed));
    return seed;
}

/* The text of the prompt, before what is added to it. */
static linnet_status echo(answering *a, const linnet_ids *prompt, linnet_error *err)
{
    const char *asked = a->job->request.prompts[a->choice / a->job->request.n_choices].text;
    linnet_buffer bytes = {0}, text = {0};
    for (size_t i = 0; !asked && i < prompt->n_items; i++)
        linnet_detokenize(a->serve->runtime->tokenizer, prompt->items[i], &bytes);
    if (asked)
        linnet_buffer_append_text(&bytes, asked);
    (void)linnet_utf8_repair(bytes.bytes, bytes.n_bytes, true, &text);
    bool is_good = !bytes.failed && !text.failed && on_text(a, (const char *)text.bytes, text.n_bytes);
    linnet_buffer_release(&bytes);
    linnet_buffer_release(&text);
    return is_good ? LINNET_OK : linnet_fail(err, LINNET_ERR_NOMEM, "no memory for the text");
}

static const char *finish_of(linnet_stop stopped)
{
    return stopped == LINNET_STOP_END || stopped == LINNET_STOP_STRING ? "stop" : "length";
}

static linnet_status generate(answering *a, const linnet_ids *prompt, linnet_error *err)
{
    const serve *s = a->serve;
    const openai_request *request = &a->job->request;
    linnet_generation g = {.n_tokens = request->has_n_tokens ? request->n_tokens : s->options.n_tokens,
                           .end_of_turn = a->job->end_of_turn,
                           .stops = request->stops,
                           .n_stops = request->n_stops,
                           .on_text = on_text,
                           .on_feed = on_feed,
                           .on_token = on_token,
                           .context = a};
    uint64_t context = prompt->n_items + g.n_tokens;
    linnet_sampler_init(&g.sampler, request->temperature, request->top_p, seed_of(a));
    a->generation = &g;
    a->has_adapter = a->has_opened = false;
    a->is_judged = !judges(a);
    linnet_status status = request->echoes ? echo(a, prompt, err) : LINNET_OK;
    if (status == LINNET_OK)
        status = linnet_generation_open(
            &g, s->runtime, context < s->options.context ? (uint32_t)context : s->options.context, err);
    if (status == LINNET_OK)
        status = linnet_generation_run(&g, prompt, err);
    end_turn(a);
    if (status == LINNET_OK && !a->is_judged && !hand_on(a))
        let_out(a);
    a->choices[a->choice].finish = finish_of(g.stopped);
    a->usage.n_tokens += g.ids.n_items;
    if (status == LINNET_OK && (a->choices[a->choice].text.failed || a->events.failed))
        status = linnet_fail(err, LINNET_ERR_NOMEM, "no memory for the text");
    linnet_generation_release(&g);
    a->generation = NULL;
    return status;
}

/* ---- the answer ---- */

static void finish_stream(answering *a)
{
    if (a->job->request.includes_usage)
        openai_write_usage(&a->answer, &a->usage, &a->events);
    openai_write_done(&a->events);
    bool is_whole = !a->events.failed;
    send_events(a);
    if (is_whole)
        linnet_http_reply_end(a->job->reply);
    else
        linnet_http_reply_break_off(a->job->reply);
    a->job->reply = NULL;
}

static void finish_whole(answering *a)
{
    linnet_http_response response = {.status = 200, .content_type = "application/json"};
    openai_write_answer(&a->answer, a->choices, a->n_choices, &a->usage, &response.body);
    if (response.body.failed) {
        linnet_http_response_release(&response);
        response = (linnet_http_response){.status = 500};
    }
    linnet_http_reply_send(a->job->reply, &response);
    a->job->reply = NULL;
}

static void fail_stream(answering *a, const char *message)
{
    linnet_buffer_clear(&a->events);
    a->events.failed = false;
    openai_write_failure(message, &a->events);
    send_events(a);
    linnet_http_reply_end(a->job->reply);
    a->job->reply = NULL;
}

static linnet_status run_choices(answering *a, linnet_error *err)
{
    const openai_request *request = &a->job->request;
    linnet_status status = LINNET_OK;
    for (a->choice = 0; a->choice < a->n_choices && status == LINNET_OK; a->choice++) {
        const linnet_ids *prompt = &a->job->prompts[a->choice / request->n_choices];
        if (a->choice % request->n_choices == 0)
            a->usage.n_prompt_tokens += prompt->n_items;
        status = generate(a, prompt, err);
        if (a->is_handed_on)
            return LINNET_OK;
        if (status == LINNET_OK && request->streams)
            send_piece(a, "", 0, a->choices[a->choice].finish);
    }
    return status;
}

static void conclude(answering *a, linnet_status status, const linnet_error *err)
{
    serve_job *job = a->job;
    if (a->is_handed_on) {
        job->reply = NULL;
        serve_job_done(a->serve, job, 200, true, NULL);
    } else if (status == LINNET_OK) {
        if (job->request.streams)
            finish_stream(a);
        else
            finish_whole(a);
        serve_job_done(a->serve, job, 200, false, &a->usage);
    } else if (a->has_begun) {
        fail_stream(a, err->message);
        serve_job_done(a->serve, job, status == LINNET_ERR_CANCELLED ? 499 : 500, false, &a->usage);
    } else {
        int http = status == LINNET_ERR_CANCELLED ? 499 : status == LINNET_ERR_BUSY ? 503 : 500;
        serve_job_fail(a->serve, job, http, NULL, err->message);
    }
}

void serve_run_local(void *context, serve_job *job)
{
    linnet_error err = {0};
    answering a = {
        .serve = context, .job = job, .n_choices = job->request.n_prompts * job->request.n_choices};
    if (atomic_load(&a.serve->is_closing)) {
        serve_job_fail(a.serve, job, 503, NULL, "the server is stopping");
        return;
    }
    openai_answer_init(&a.answer, job->request.is_chat, a.serve->options.name);
    a.adapter = linnet_adapter_slot_take(a.serve->adapters);
    linnet_hash hash = linnet_shared_adapter_hash(a.adapter);
    linnet_hex_write(hash.bytes, (sizeof(a.answer.fingerprint) - 1) / 2, a.answer.fingerprint);
    a.choices = calloc(a.n_choices, sizeof(*a.choices));
    linnet_status status =
        a.choices ? run_choices(&a, &err) : linnet_fail(&err, LINNET_ERR_NOMEM, "no memory for the answer");
    conclude(&a, status, &err);
    for (size_t i = 0; a.choices && i < a.n_choices; i++)
        linnet_buffer_release(&a.choices[i].text);
    free(a.choices);
    linnet_buffer_release(&a.events);
    linnet_shared_adapter_release(a.adapter);
}

void serve_run_handed_on(void *context, serve_job *job)
{
    serve *s = context;
    linnet_error err = {0};
    if (atomic_load(&s->is_closing)) {
        serve_job_fail(s, job, 503, NULL, "the server is stopping");
        return;
    }
    linnet_status status = upstream_forward(&s->options.upstream, &job->request, job->reply, false, &err);
    if (status == LINNET_OK) {
        job->reply = NULL;
        serve_job_done(s, job, 200, true, NULL);
        return;
    }
    serve_job_fail(s, job, status == LINNET_ERR_CANCELLED ? 499 : 502, NULL, err.message);
}
