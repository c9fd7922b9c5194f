/* SPDX-License-Identifier: Apache-2.0 */
/* The table of chat formats and how a conversation is written in one. The formats are those of the models'
 * own templates (tests/reference/chat_templates.py); a new one is a row. Left out are tools, and text that
 * depends on the day. Qwen 3's empty thoughts in front of a last answer are left out too, in training and in
 * chat alike. */
#include "chat_template.h"

static const linnet_chat_family lines = {
    .name = "lines",
    .close_system = "\n",
    .close_user = "\n",
    .close_assistant = "\n",
};

#define CHATML                                                                                               \
    .open_system = "\1<|im_start|>\1system\n", .close_system = "\1<|im_end|>\1\n",                           \
    .open_user = "\1<|im_start|>\1user\n", .close_user = "\1<|im_end|>\1\n",                                 \
    .open_assistant = "\1<|im_start|>\1assistant\n", .end_of_turn = "<|im_end|>", .close_assistant = "\n"

#define LLAMA3                                                                                               \
    .close_system = "\1<|eot_id|>\1", .open_user = "\1<|start_header_id|>\1user\1<|end_header_id|>\1\n\n",   \
    .close_user = "\1<|eot_id|>\1",                                                                          \
    .open_assistant = "\1<|start_header_id|>\1assistant\1<|end_header_id|>\1\n\n",                           \
    .end_of_turn = "<|eot_id|>", .trims = true

#define LLAMA2                                                                                               \
    .system = LINNET_CHAT_SYSTEM_FIRST, .open_system = "<<SYS>>\n", .close_system = "\n<</SYS>>\n\n",        \
    .open_user = "[INST] ", .close_user = " [/INST]", .open_answer = " ", .close_answer = " ", .trims = true

#define ZEPHYR                                                                                               \
    .open_system = "\1<|system|>\1\n", .close_system = "\2\n", .open_user = "\1<|user|>\1\n",                \
    .close_user = "\2\n", .open_assistant = "\1<|assistant|>\1\n", .close_assistant = "\n"

/* The order matters: a row is tried before those whose words are part of it. */
static const linnet_chat_family families[] = {
    {
        .name = "Phi 4",
        .marks = {"<|im_start|>", "<|im_sep|>"},
        .open_system = "\1<|im_start|>\1system\1<|im_sep|>\1",
        .close_system = "\1<|im_end|>\1",
        .open_user = "\1<|im_start|>\1user\1<|im_sep|>\1",
        .close_user = "\1<|im_end|>\1",
        .open_assistant = "\1<|im_start|>\1assistant\1<|im_sep|>\1",
        .end_of_turn = "<|im_end|>",
    },
    {
        .name = "Qwen 2.5",
        .marks = {"<|im_start|>", "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."},
        .default_system = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.",
        CHATML,
    },
    {
        .name = "SmolLM 2",
        .marks = {"<|im_start|>", "You are a helpful AI assistant named SmolLM, trained by Hugging Face"},
        .default_system = "You are a helpful AI assistant named SmolLM, trained by Hugging Face",
        CHATML,
    },
    {
        .name = "Qwen 2",
        .marks = {"<|im_start|>", "You are a helpful assistant.<|im_end|>"},
        .default_system = "You are a helpful assistant.",
        CHATML,
    },
    {.name = "ChatML", .marks = {"<|im_start|>"}, CHATML},
    {
        .name = "Llama 3.1",
        .marks = {"<|start_header_id|>", "Cutting Knowledge Date: December 2023"},
        .default_system = "",
        /* The day that the templates name where they are told none. */
        .open_system = "\1<|start_header_id|>\1system\1<|end_header_id|>\1\n\n"
                       "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n",
        LLAMA3,
    },
    {
        .name = "Llama 3",
        .marks = {"<|start_header_id|>"},
        .open_system = "\1<|start_header_id|>\1system\1<|end_header_id|>\1\n\n",
        LLAMA3,
    },
    {
        .name = "Granite",
        .marks = {"<|start_of_role|>"},
        .open_system = "\1<|start_of_role|>\1system\1<|end_of_role|>\1",
        .close_system = "\2\n",
        .open_user = "\1<|start_of_role|>\1user\1<|end_of_role|>\1",
        .close_user = "\2\n",
        .open_assistant = "\1<|start_of_role|>\1assistant\1<|end_of_role|>\1",
        .close_assistant = "\n",
    },
    {
        .name = "Gemma",
        .marks = {"<start_of_turn>"},
        .system = LINNET_CHAT_SYSTEM_FIRST,
        .close_system = "\n\n",
        .open_user = "\1<start_of_turn>\1user\n",
        .close_user = "\1<end_of_turn>\1\n",
        .open_assistant = "\1<start_of_turn>\1model\n",
        .end_of_turn = "<end_of_turn>",
        .close_assistant = "\n",
        .trims = true,
    },
    {
        .name = "DeepSeek 3",
        .marks = {"<｜User｜>", "<｜Assistant｜>"},
        .open_user = "\1<｜User｜>\1",
        .open_assistant = "\1<｜Assistant｜>\1",
    },
    {
        .name = "DeepSeek Coder",
        .marks = {"### Instruction:", "<|EOT|>"},
        .default_system =
            "You are an AI programming assistant, utilizing the Deepseek Coder model, developed by Deepseek "
            "Company, and you only answer questions related to computer science. For politically sensitive "
            "questions, security and privacy issues, and other non-computer science questions, you will "
            "refuse to answer\n",
        .open_user = "### Instruction:\n",
        .close_user = "\n",
        .open_assistant = "### Response:\n",
        .close_answer = "\n",
        .end_of_turn = "<|EOT|>",
        .close_assistant = "\n",
    },
    {
        .name = "DeepSeek 2",
        .marks = {"'Assistant: ' + message['content'] + eos_token"},
        .close_system = "\n\n",
        .open_user = "User: ",
        .close_user = "\n\n",
        .open_assistant = "Assistant:",
        .open_answer = " ",
    },
    {
        .name = "Mistral 7",
        .marks = {"[SYSTEM_PROMPT] "},
        .open_system = "\1[SYSTEM_PROMPT]\1 ",
        .close_system = "\1[/SYSTEM_PROMPT]\1",
        .open_user = "\1[INST]\1 ",
        .close_user = "\1[/INST]\1",
        .open_answer = " ",
    },
    {
        .name = "Mistral 7 Tekken",
        .marks = {"[SYSTEM_PROMPT]"},
        .open_system = "\1[SYSTEM_PROMPT]\1",
        .close_system = "\1[/SYSTEM_PROMPT]\1",
        .open_user = "\1[INST]\1",
        .close_user = "\1[/INST]\1",
    },
    {
        .name = "Mistral 1",
        .marks = {"' [INST] ' + system_message"},
        .system = LINNET_CHAT_SYSTEM_FIRST,
        .close_system = "\n\n",
        .open_user = " [INST] ",
        .close_user = " [/INST]",
        .open_answer = " ",
    },
    {
        .name = "Mistral 3 Tekken",
        .marks = {"[AVAILABLE_TOOLS]", "\"[INST]\""},
        .system = LINNET_CHAT_SYSTEM_LAST,
        .close_system = "\n\n",
        .open_user = "\1[INST]\1",
        .close_user = "\1[/INST]\1",
    },
    {
        .name = "Mistral 3",
        .marks = {"[AVAILABLE_TOOLS]", "[INST]"},
        .system = LINNET_CHAT_SYSTEM_LAST,
        .close_system = "\n\n",
        .open_user = "\1[INST]\1 ",
        .close_user = "\1[/INST]\1",
        .open_answer = " ",
    },
    {.name = "Llama 2",
     .marks = {"[INST]", "<<SYS>>", "bos_token + '[INST]"},
     .open_later_user = "\3[INST] ",
     LLAMA2},
    {.name = "Llama 2 without inner begins", .marks = {"[INST]", "<<SYS>>"}, LLAMA2},
    {
        .name = "Mistral 0.2",
        .marks = {"[INST]"},
        .system = LINNET_CHAT_SYSTEM_FIRST,
        .close_system = "\n\n",
        .open_user = "[INST] ",
        .close_user = " [/INST]",
    },
    {
        .name = "Phi 3",
        .marks = {"<|user|>", "<|end|>"},
        .open_system = "\1<|system|>\1\n",
        .close_system = "\1<|end|>\1\n",
        .open_user = "\1<|user|>\1\n",
        .close_user = "\1<|end|>\1\n",
        .open_assistant = "\1<|assistant|>\1\n",
        .end_of_turn = "<|end|>",
        .close_assistant = "\n",
    },
    {
        .name = "Tulu",
        .marks = {"'<|user|>\\n' + message['content'] + '\\n'"},
        .open_system = "\1<|system|>\1\n",
        .close_system = "\n",
        .open_user = "\1<|user|>\1\n",
        .close_user = "\n",
        .open_assistant = "\1<|assistant|>\1\n",
        .close_assistant = "\n",
    },
    {.name = "Zephyr", .marks = {"<|user|>", "eos_token"}, ZEPHYR},
    {.name = "Zephyr", .marks = {"<|user|>", "<|endoftext|>"}, ZEPHYR},
    {
        .name = "Alpaca",
        .marks = {"### Instruction"},
        .close_system = "\n\n",
        .open_user = "### Instruction:\n",
        .close_user = "\n\n",
        .open_assistant = "### Response:\n",
        .close_assistant = "\n\n",
    },
    {
        .name = "Vicuna with a named system",
        .marks = {"USER:", "ASSISTANT:", "SYSTEM: "},
        .open_system = "SYSTEM: ",
        .close_system = "\n",
        .open_user = "USER: ",
        .close_user = "\n",
        .open_assistant = "ASSISTANT:",
        .open_answer = " ",
        .close_assistant = "\n",
    },
    {
        .name = "Vicuna",
        .marks = {"USER:", "ASSISTANT:"},
        .close_system = "\n\n",
        .open_user = "USER: ",
        .close_user = "\n",
        .open_assistant = "ASSISTANT:",
        .open_answer = " ",
        .close_assistant = "\n",
    },
};

static bool contains(linnet_text text, const char *word)
{
    size_t n = strlen(word);
    for (size_t at = 0; at + n <= text.n_bytes; at++) {
        if (memcmp(text.bytes + at, word, n) == 0)
            return true;
    }
    return false;
}

const linnet_chat_family *linnet_chat_family_find(linnet_text chat_template)
{
    if (chat_template.n_bytes == 0)
        return &lines;
    for (size_t i = 0; i < ARRAY_LEN(families); i++) {
        const char *const *marks = families[i].marks;
        size_t n = 0;
        while (n < ARRAY_LEN(families[i].marks) && marks[n] && contains(chat_template, marks[n]))
            n++;
        if (n == ARRAY_LEN(families[i].marks) || !marks[n])
            return &families[i];
    }
    return NULL;
}

/* ---- writing ---- */

typedef struct rendering {
    const linnet_chat_family *family;
    linnet_chat_part_fn *take;
    void *context;
    linnet_status status; /* once it is not OK nothing more is taken */
    linnet_error *err;
} rendering;

static void put(rendering *r, linnet_chat_part_kind kind, const char *bytes, size_t n_bytes)
{
    if (r->status == LINNET_OK)
        r->status = r->take(r->context, kind, (linnet_text){bytes, n_bytes}, r->err);
}

static void put_markup(rendering *r, const char *markup)
{
    while (markup && *markup) {
        size_t n = strcspn(markup, "\1\2\3");
        if (n > 0)
            put(r, LINNET_CHAT_TEXT, markup, n);
        markup += n;
        if (*markup == '\1') {
            n = strcspn(++markup, "\1");
            put(r, LINNET_CHAT_SPECIAL, markup, n);
            markup += n + 1;
        } else if (*markup) {
            put(r, *markup == '\2' ? LINNET_CHAT_END : LINNET_CHAT_BEGIN, "", 0);
            markup++;
        }
    }
}

static bool is_blank(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static void put_content(rendering *r, linnet_chat_part_kind kind, const char *content, bool trims)
{
    size_t n = strlen(content);
    while (trims && n > 0 && is_blank(content[n - 1]))
        n--;
    for (; trims && n > 0 && is_blank(*content); n--)
        content++;
    put(r, kind, content, n);
}

static bool is_role(const linnet_message *m, const char *role)
{
    return strcmp(m->role, role) == 0;
}

static void put_system(rendering *r, const char *content)
{
    put_markup(r, r->family->open_system);
    put_content(r, LINNET_CHAT_TEXT, content,
                r->family->trims && r->family->system == LINNET_CHAT_SYSTEM_TURN);
    put_markup(r, r->family->close_system);
}

/* A user's turn with what the system said in messages[from..to) in front; content NULL: with that alone. */
static void put_user(rendering *r, const linnet_message *messages, size_t from, size_t to, bool is_first,
                     const char *content)
{
    bool later = !is_first && r->family->open_later_user;
    put_markup(r, later ? r->family->open_later_user : r->family->open_user);
    for (size_t i = from; i < to; i++) {
        if (is_role(&messages[i], "system"))
            put_system(r, messages[i].content);
    }
    if (content)
        put_content(r, LINNET_CHAT_TEXT, content, r->family->trims);
    put_markup(r, r->family->close_user);
}

static void put_assistant(rendering *r, const char *content)
{
    put_markup(r, r->family->open_assistant);
    if (r->family->open_answer)
        put(r, LINNET_CHAT_ANSWER, r->family->open_answer, strlen(r->family->open_answer));
    put_content(r, LINNET_CHAT_ANSWER, content, r->family->trims);
    if (r->family->close_answer)
        put(r, LINNET_CHAT_ANSWER, r->family->close_answer, strlen(r->family->close_answer));
    put(r, LINNET_CHAT_TURN_END, "", 0);
    put_markup(r, r->family->close_assistant);
}

static bool is_user(const linnet_message *m)
{
    return !is_role(m, "system") && !is_role(m, "assistant");
}

/* Turns, where what the system says stands in front of a user's words: of the next, or of the last. */
static void put_folded_turns(rendering *r, const linnet_message *messages, size_t n)
{
    size_t n_told = 0, last = n; /* messages up to n_told have been written as far as the system's go */
    for (size_t i = 0; i < n; i++)
        last = is_user(&messages[i]) ? i : last;
    bool is_first = true, is_left = false;
    for (size_t i = 0; i < n; i++) {
        const linnet_message *m = &messages[i];
        if (is_role(m, "system")) {
            is_left = true;
            continue;
        }
        if (is_role(m, "assistant")) {
            put_assistant(r, m->content);
        } else if (r->family->system == LINNET_CHAT_SYSTEM_FIRST || i == last) {
            put_user(r, messages, n_told, i, is_first, m->content);
            n_told = i;
            is_left = false;
        } else {
            put_user(r, messages, i, i, is_first, m->content);
        }
        is_first = false;
    }
    if (is_left) /* nobody to speak in front of */
        put_user(r, messages, n_told, n, is_first, NULL);
}

static void put_turns(rendering *r, const linnet_message *messages, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (is_role(&messages[i], "assistant"))
            put_assistant(r, messages[i].content);
        else if (is_role(&messages[i], "system"))
            put_system(r, messages[i].content);
        else
            put_user(r, messages, i, i, i == 0, messages[i].content);
    }
}

linnet_status linnet_chat_render(const linnet_chat_family *family, const linnet_message *messages,
                                 size_t n_messages, bool prompt, linnet_chat_part_fn *take, void *context,
                                 linnet_error *err)
{
    rendering r = {.family = family, .take = take, .context = context, .err = err};
    if (family->default_system && (n_messages == 0 || !is_role(&messages[0], "system")))
        put_system(&r, family->default_system);
    if (family->system == LINNET_CHAT_SYSTEM_TURN)
        put_turns(&r, messages, n_messages);
    else
        put_folded_turns(&r, messages, n_messages);
    if (prompt)
        put_markup(&r, family->open_assistant);
    return r.status;
}
