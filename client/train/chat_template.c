/* SPDX-License-Identifier: Apache-2.0 */
/* The table of chat formats. The formats are those of the models' own cards; a new one is a row. */
#include "chat_template.h"

static const linnet_chat_family lines = {
    .name = "lines",
    .open_system = "",
    .close_system = "\n",
    .open_user = "",
    .open_user_after_system = "",
    .close_user = "\n",
    .open_assistant = "",
    .close_assistant = "\n",
};

/* The order matters: a row is tried before those whose words are part of it. */
static const linnet_chat_family families[] = {
    {
        .name = "ChatML",
        .marks = {"<|im_start|>"},
        .open_system = "\1<|im_start|>\1system\n",
        .close_system = "\1<|im_end|>\1\n",
        .open_user = "\1<|im_start|>\1user\n",
        .open_user_after_system = "\1<|im_start|>\1user\n",
        .close_user = "\1<|im_end|>\1\n",
        .open_assistant = "\1<|im_start|>\1assistant\n",
        .end_of_turn = "<|im_end|>",
        .close_assistant = "\n",
    },
    {
        .name = "Llama 3",
        .marks = {"<|start_header_id|>"},
        .open_system = "\1<|start_header_id|>\1system\1<|end_header_id|>\1\n\n",
        .close_system = "\1<|eot_id|>\1",
        .open_user = "\1<|start_header_id|>\1user\1<|end_header_id|>\1\n\n",
        .open_user_after_system = "\1<|start_header_id|>\1user\1<|end_header_id|>\1\n\n",
        .close_user = "\1<|eot_id|>\1",
        .open_assistant = "\1<|start_header_id|>\1assistant\1<|end_header_id|>\1\n\n",
        .end_of_turn = "<|eot_id|>",
        .close_assistant = "",
    },
    {
        .name = "Phi 3",
        .marks = {"<|user|>", "<|end|>"},
        .open_system = "\1<|system|>\1\n",
        .close_system = "\1<|end|>\1\n",
        .open_user = "\1<|user|>\1\n",
        .open_user_after_system = "\1<|user|>\1\n",
        .close_user = "\1<|end|>\1\n",
        .open_assistant = "\1<|assistant|>\1\n",
        .end_of_turn = "<|end|>",
        .close_assistant = "\n",
    },
    {
        .name = "Zephyr",
        .marks = {"<|user|>"},
        .open_system = "<|system|>\n",
        .close_system = "\1</s>\1\n",
        .open_user = "<|user|>\n",
        .open_user_after_system = "<|user|>\n",
        .close_user = "\1</s>\1\n",
        .open_assistant = "<|assistant|>\n",
        .close_assistant = "\n",
    },
    {
        .name = "Llama 2",
        .marks = {"[INST]"},
        .open_system = "[INST] <<SYS>>\n",
        .close_system = "\n<</SYS>>\n\n",
        .open_user = "[INST] ",
        .open_user_after_system = "",
        .close_user = " [/INST]",
        .open_assistant = "",
        .close_assistant = "\1<s>\1",
        .prefix_assistant = true,
    },
    {
        .name = "Alpaca",
        .marks = {"### Instruction"},
        .open_system = "",
        .close_system = "\n\n",
        .open_user = "### Instruction:\n",
        .open_user_after_system = "### Instruction:\n",
        .close_user = "\n\n",
        .open_assistant = "### Response:\n",
        .close_assistant = "\n\n",
    },
    {
        .name = "Vicuna",
        .marks = {"USER:", "ASSISTANT:"},
        .open_system = "",
        .close_system = "\n\n",
        .open_user = "USER: ",
        .open_user_after_system = "USER: ",
        .close_user = "\n",
        .open_assistant = "ASSISTANT:",
        .close_assistant = "\n",
        .prefix_assistant = true,
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

linnet_status linnet_chat_family_of(const linnet_tokenizer *tokenizer, const linnet_chat_family **ret_family,
                                    linnet_error *err)
{
    linnet_text text = linnet_tokenizer_chat_template(tokenizer);
    if (text.n_bytes == 0) {
        *ret_family = &lines;
        return LINNET_OK;
    }
    for (size_t i = 0; i < ARRAY_LEN(families); i++) {
        const char *second = families[i].marks[1];
        if (contains(text, families[i].marks[0]) && (!second || contains(text, second))) {
            *ret_family = &families[i];
            return LINNET_OK;
        }
    }
    return linnet_fail(err, LINNET_ERR_UNSUPPORTED,
                       "the model's chat template ('%.*s...') is of no family that linnet knows; use text or "
                       "prompt and completion records",
                       text.n_bytes > 60 ? 60 : (int)text.n_bytes, text.bytes);
}
