#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Conversations in the models' own chat templates, run by jinja2 as transformers runs them, without the begin token in
front. Writes tests/vectors/chat-templates.json:

    tests/reference/chat_templates.py > tests/vectors/chat-templates.json

needs jinja2. The templates are those of the models' cards, cut to what they do with plain conversations: tools are left
out, and so is what depends on the day."""
import json

from jinja2.exceptions import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment


def chatml(default=None):
    first = ""
    if default is not None:
        first = ("{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\\n" + default
                 + "<|im_end|>\\n' }}{% endif %}")
    return ("{% for message in messages %}" + first
            + "{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}"
            + "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}")


LLAMA3 = ("{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + "
          "message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}"
          "{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}"
          "{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}")

LLAMA31 = """{{- bos_token }}
{%- if not date_string is defined %}
    {%- set date_string = "26 Jul 2024" %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{{- "Cutting Knowledge Date: December 2023\\n" }}
{{- "Today Date: " + date_string + "\\n\\n" }}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""

LLAMA2 = ("{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = "
          "messages[0]['content'] %}{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}"
          "{% for message in loop_messages %}{% if loop.index0 == 0 and system_message != false %}{% set content = "
          "'<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}{% else %}{% set content = "
          "message['content'] %}{% endif %}{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + "
          "' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}"
          "{% endfor %}")

MISTRAL_02 = ("{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}{{ '[INST] ' + "
              "message['content'] + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token}}"
              "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}")

MISTRAL_1 = """{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}

{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message['role'] == 'user' %}
        {%- if loop.first and system_message is defined %}
            {{- ' [INST] ' + system_message + '\\n\\n' + message['content'] + ' [/INST]' }}
        {%- else %}
            {{- ' [INST] ' + message['content'] + ' [/INST]' }}
        {%- endif %}
    {%- elif message['role'] == 'assistant' %}
        {{- ' ' + message['content'] + eos_token}}
    {%- endif %}
{%- endfor %}
"""


def mistral_3(space):
    return """{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{#- [AVAILABLE_TOOLS] is left out here #}

{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST]SPACE" + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST]SPACE" + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message["role"] == "assistant" %}
        {{- "SPACE" + message["content"] + eos_token}}
    {%- endif %}
{%- endfor %}
""".replace("SPACE", space).replace('"[INST]" +', '"[INST]" +')


def mistral_7(space):
    return ("{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}{{ '[INST]" + space
            + "' + message['content'] + '[/INST]' }}{% elif message['role'] == 'system' %}{{ '[SYSTEM_PROMPT]" + space
            + "' + message['content'] + '[/SYSTEM_PROMPT]' }}{% elif message['role'] == 'assistant' %}{{ '" + space
            + "' + message['content'] + eos_token }}{% endif %}{% endfor %}")


GEMMA_2 = ("{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
           "{% endif %}{% for message in messages %}{% if (message['role'] == 'assistant') %}{% set role = 'model' %}"
           "{% else %}{% set role = message['role'] %}{% endif %}{{ '<start_of_turn>' + role + '\\n' + message['content'] | "
           "trim + '<end_of_turn>\\n' }}{% endfor %}{% if add_generation_prompt %}{{'<start_of_turn>model\\n'}}{% endif %}")

GEMMA_3 = """{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- set first_user_prefix = messages[0]['content'] + '\\n\\n' -%}
    {%- set loop_messages = messages[1:] -%}
{%- else -%}
    {%- set first_user_prefix = "" -%}
    {%- set loop_messages = messages -%}
{%- endif -%}
{%- for message in loop_messages -%}
    {%- if (message['role'] == 'assistant') -%}
        {%- set role = "model" -%}
    {%- else -%}
        {%- set role = message['role'] -%}
    {%- endif -%}
    {{ '<start_of_turn>' + role + '\\n' + (first_user_prefix if loop.first else "") }}
    {{- message['content'] | trim }}
    {{ '<end_of_turn>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{'<start_of_turn>model\\n'}}
{%- endif -%}
""".replace("trim }}\n    {{ '", "trim }}\n    {{- '")

PHI_3 = ("{% for message in messages %}{% if message['role'] == 'system' and message['content'] %}{{'<|system|>\\n' + "
         "message['content'] + '<|end|>\\n'}}{% elif message['role'] == 'user' %}{{'<|user|>\\n' + message['content'] + "
         "'<|end|>\\n'}}{% elif message['role'] == 'assistant' %}{{'<|assistant|>\\n' + message['content'] + '<|end|>\\n'}}"
         "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% else %}{{ eos_token }}{% endif %}")

PHI_4 = ("{% for message in messages %}{% if (message['role'] == 'system') %}{{'<|im_start|>system<|im_sep|>' + "
         "message['content'] + '<|im_end|>'}}{% elif (message['role'] == 'user') %}{{'<|im_start|>user<|im_sep|>' + "
         "message['content'] + '<|im_end|>'}}{% elif (message['role'] == 'assistant') %}{{'<|im_start|>assistant<|im_sep|>' "
         "+ message['content'] + '<|im_end|>'}}{% endif %}{% endfor %}{% if add_generation_prompt %}"
         "{{ '<|im_start|>assistant<|im_sep|>' }}{% endif %}")

ZEPHYR = """{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>\\n' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>\\n' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>\\n'  + message['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}"""

TULU = ("{% for message in messages %}{% if message['role'] == 'system' %}{{ '<|system|>\\n' + message['content'] + '\\n' }}"
        "{% elif message['role'] == 'user' %}{{ '<|user|>\\n' + message['content'] + '\\n' }}{% elif message['role'] == "
        "'assistant' %}{{ '<|assistant|>\\n' + message['content'] + eos_token + '\\n' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}")

VICUNA = ("{%- for message in messages %}{%- if message['role'] == 'system' -%}{{- 'NAME' + message['content'] + 'BREAK' -}}"
          "{%- else -%}{%- if message['role'] == 'user' -%}{{-'USER: ' + message['content'] + '\\n'-}}{%- else -%}"
          "{{-'ASSISTANT: ' + message['content'] + eos_token + '\\n' -}}{%- endif -%}{%- endif -%}{%- endfor -%}"
          "{%- if add_generation_prompt -%}{{-'ASSISTANT:'-}}{%- endif -%}")

ALPACA = ("{% for message in messages %}{% if message['role'] == 'system' %}{{ message['content'] + '\\n\\n' }}"
          "{% elif message['role'] == 'user' %}{{ '### Instruction:\\n' + message['content'] + '\\n\\n' }}{% else %}"
          "{{ '### Response:\\n' + message['content'] + eos_token + '\\n\\n' }}{% endif %}{% endfor %}"
          "{% if add_generation_prompt %}{{ '### Response:\\n' }}{% endif %}")

GRANITE = """{%- for message in messages %}
    {{- '<|start_of_role|>' + message['role'] + '<|end_of_role|>' + message['content'] + '<|end_of_text|>\\n' }}
    {%- if loop.last and add_generation_prompt %}
    {{- '<|start_of_role|>assistant<|end_of_role|>' }}
    {%- endif %}
{%- endfor %}"""

DEEPSEEK_2 = ("{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}{{ 'User: ' + message['content'] "
              "+ '\\n\\n' }}{% elif message['role'] == 'assistant' %}{{ 'Assistant: ' + message['content'] + eos_token }}"
              "{% elif message['role'] == 'system' %}{{ message['content'] + '\\n\\n' }}{% endif %}{% endfor %}"
              "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}")

DEEPSEEK_3 = ("{{ bos_token }}{% for message in messages %}{% if message['role'] == 'system' %}{{ message['content'] }}"
              "{% elif message['role'] == 'user' %}{{ '<｜User｜>' + message['content'] }}{% else %}{{ '<｜Assistant｜>' + "
              "message['content'] + '<｜end▁of▁sentence｜>' }}{% endif %}{% endfor %}{% if add_generation_prompt %}"
              "{{ '<｜Assistant｜>' }}{% endif %}")

DEEPSEEK_CODER = """{%- set ns = namespace(found=false) -%}
{%- for message in messages -%}
    {%- if message['role'] == 'system' -%}
        {%- set ns.found = true -%}
    {%- endif -%}
{%- endfor -%}
{{bos_token}}{%- if not ns.found -%}
{{'You are an AI programming assistant, utilizing the Deepseek Coder model, developed by Deepseek Company, and you only answer questions related to computer science. For politically sensitive questions, security and privacy issues, and other non-computer science questions, you will refuse to answer\\n'}}
{%- endif %}
{%- for message in messages %}
    {%- if message['role'] == 'system' %}
{{ message['content'] }}
    {%- else %}
        {%- if message['role'] == 'user' %}
{{'### Instruction:\\n' + message['content'] + '\\n'}}
        {%- else %}
{{'### Response:\\n' + message['content'] + '\\n<|EOT|>\\n'}}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{% if add_generation_prompt %}
{{'### Response:'}}
{% endif %}"""

FAMILIES = [
    # name, template, begin, end, does the template take a system?
    ("ChatML", chatml(), "", "<|im_end|>", True),
    ("Qwen 2", chatml("You are a helpful assistant."), "", "<|im_end|>", True),
    ("Qwen 2.5", chatml("You are Qwen, created by Alibaba Cloud. You are a helpful assistant."), "", "<|im_end|>", True),
    ("SmolLM 2", chatml("You are a helpful AI assistant named SmolLM, trained by Hugging Face"), "", "<|im_end|>", True),
    ("Llama 3", LLAMA3, "<|begin_of_text|>", "<|end_of_text|>", True),
    ("Llama 3.1", LLAMA31, "<|begin_of_text|>", "<|end_of_text|>", True),
    ("Llama 2", LLAMA2, "<s>", "</s>", True),
    ("Llama 2 without inner begins", LLAMA2.replace("bos_token + ", ""), "<s>", "</s>", True),
    ("Mistral 0.2", MISTRAL_02, "<s>", "</s>", False),
    ("Mistral 1", MISTRAL_1, "<s>", "</s>", True),
    ("Mistral 3", mistral_3(" "), "<s>", "</s>", True),
    ("Mistral 3 Tekken", mistral_3(""), "<s>", "</s>", True),
    ("Mistral 7", mistral_7(" "), "<s>", "</s>", True),
    ("Mistral 7 Tekken", mistral_7(""), "<s>", "</s>", True),
    ("Gemma", GEMMA_2, "<bos>", "<eos>", False),
    ("Gemma", GEMMA_3, "<bos>", "<eos>", True),
    ("Phi 3", PHI_3, "<s>", "<|endoftext|>", True),
    ("Phi 4", PHI_4, "<|endoftext|>", "<|endoftext|>", True),
    ("Zephyr", ZEPHYR, "<s>", "</s>", True),
    ("Zephyr", ZEPHYR.replace("eos_token", "'<|endoftext|>'"), "<|endoftext|>", "<|endoftext|>", True),
    ("Tulu", TULU, "<|endoftext|>", "<|endoftext|>", True),
    ("Vicuna", VICUNA.replace("NAME", "").replace("BREAK", "\\n\\n"), "<s>", "</s>", True),
    ("Vicuna with a named system", VICUNA.replace("NAME", "SYSTEM: ").replace("BREAK", "\\n"), "<s>", "</s>", True),
    ("Alpaca", ALPACA, "<s>", "</s>", True),
    ("Granite", GRANITE, "<|end_of_text|>", "<|end_of_text|>", True),
    ("DeepSeek 2", DEEPSEEK_2, "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", True),
    ("DeepSeek 3", DEEPSEEK_3, "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", True),
    ("DeepSeek Coder", DEEPSEEK_CODER, "<｜begin▁of▁sentence｜>", "<|EOT|>", True),
]

SYSTEM, ASKS, SAYS = "system", "user", "assistant"
CONVERSATIONS = [
    # with a prompt, which the assistant is to answer next
    (True, [(ASKS, "Hello")]),
    (True, [(SYSTEM, "Be brief."), (ASKS, "Hello")]),
    (True, [(ASKS, "Hello"), (SAYS, "Hi there"), (ASKS, "Who are you?\nTell me.")]),
    (True, [(SYSTEM, "Be brief."), (ASKS, "Hello"), (SAYS, "Hi there"), (ASKS, "Who?"), (SAYS, "Me."), (ASKS, "\u00c9t\u00e9?")]),
    (True, [(ASKS, "  spaces \n"), (SAYS, " around \n\n"), (ASKS, "<|im_start|> [INST] </s>")]),
    # as a record to learn from
    (False, [(ASKS, "Hello"), (SAYS, "Hi there")]),
    (False, [(SYSTEM, "Be brief."), (ASKS, "Hello"), (SAYS, "Hi there"), (ASKS, "Who?"), (SAYS, "Me.")]),
]


def render(template, messages, begin, end, prompt):
    def fail(message):
        raise TemplateError(message)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.globals["raise_exception"] = fail
    text = environment.from_string(template).render(
        messages=messages, bos_token=begin, eos_token=end, add_generation_prompt=prompt)
    return text.removeprefix(begin)


def main():
    families = []
    for name, template, begin, end, has_system in FAMILIES:
        cases = []
        for prompt, turns in CONVERSATIONS:
            messages = [{"role": role, "content": content} for role, content in turns]
            # Mistral 3's template speaks of the last message, which a record to learn from ends behind.
            if (not has_system or (name.startswith("Mistral 3") and not prompt)) and messages[0]["role"] == "system":
                continue
            cases.append({"prompt": prompt, "messages": messages, "text": render(template, messages, begin, end, prompt)})
        families.append({"name": name, "template": template, "begin": begin, "end": end, "cases": cases})
    print(json.dumps({"origin": "tests/reference/chat_templates.py", "families": families}, indent=1))


if __name__ == "__main__":
    main()
