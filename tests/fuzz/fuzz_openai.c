/* SPDX-License-Identifier: Apache-2.0 */
/* A request of the local server, of both kinds: it is refused with a status and one line, or within its
 * bounds. What it says goes out again as an answer, which must be JSON. */
#include "../../client/serve/openai.h"

#include <stdlib.h>

static void check(const openai_request *r)
{
    if (r->n_prompts == 0 || r->n_choices == 0 || r->n_prompts * r->n_choices > OPENAI_CHOICES_MAX)
        abort();
    if (!(r->temperature >= 0 && r->temperature <= 2) || !(r->top_p > 0 && r->top_p <= 1))
        abort();
    for (size_t i = 0; i < r->n_stops; i++)
        if (r->stops[i][0] == '\0')
            abort();
    for (size_t i = 0; i < r->n_messages; i++)
        if (!r->messages[i].role || !r->messages[i].content)
            abort();
    for (size_t i = 0; !r->is_chat && i < r->n_prompts; i++)
        if (!r->prompts[i].text && r->prompts[i].ids.n_items == 0)
            abort();
}

/* Its own texts, as somebody's answer. */
static void answer(const openai_request *r)
{
    openai_answer a;
    linnet_buffer body = {0};
    openai_choice choice = {.finish = "stop"};
    const char *text = r->is_chat ? r->messages[0].content : r->prompts[0].text;
    openai_usage usage = {1, 2};
    openai_answer_init(&a, r->is_chat, "fuzz");
    linnet_buffer_append_text(&choice.text, text ? text : "");
    openai_write_answer(&a, &choice, 1, &usage, &body);
    json_t *object = body.failed ? NULL : json_loadb((const char *)body.bytes, body.n_bytes, 0, NULL);
    if (!object)
        abort();
    json_decref(object);
    linnet_buffer_release(&choice.text);
    linnet_buffer_release(&body);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    for (int is_chat = 0; is_chat < 2; is_chat++) {
        openai_request request;
        openai_fault fault;
        linnet_error err = {0};
        linnet_status status = openai_request_parse(data, n_bytes, is_chat, &request, &fault, &err);
        if (status == LINNET_OK) {
            check(&request);
            answer(&request);
        } else if ((fault.status != 400 && fault.status != 500) || err.message[0] == '\0') {
            abort();
        }
        openai_request_release(&request);
    }
    return 0;
}
