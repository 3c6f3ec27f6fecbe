"""Chats become the very prompts that transformers would make of them."""

from typing import Any

import pytest
import tokenizers

from cluster.text.chat_template import ChatTemplate, ChatTemplateError
from tests.unit.text.factories import CHAT_TEMPLATE, tokenizer_json

pytestmark = pytest.mark.unit

MESSAGES = [
    {"role": "system", "content": " Be <brief> & 'kind'. "},
    {"role": "user", "content": "Grüße"},
    {"role": "assistant", "content": "<think>\nhm\n</think>\n\nHallo"},
    {"role": "user", "content": "And now?"},
]
LLAMA_LIKE = """{{- bos_token }}
{%- if not date_string is defined %}
    {%- set date_string = strftime_now("%d %b %Y") %}
{%- endif %}
{%- for message in messages %}
    {{- '<|start|>' + message['role'] + '<|end|>\\n\\n' + message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"""
QWEN_LIKE = """{% set ns = namespace(last=-1) %}
{% for message in messages %}
    {% if message.role == "assistant" %}{% continue %}{% endif %}
    {% set ns.last = loop.index0 %}
{% endfor %}
{{ messages | tojson }} {{ messages[0] | tojson(indent=2) }}
  {% for message in messages %}
    {% generation %}<|im_start|>{{ message.content.split('</think>')[-1].lstrip('\\n') }}{% endgeneration %}
  {% endfor %}
{{ ns.last }}{{ enable_thinking is defined and enable_thinking is false }}{{ tools is none }}
"""


@pytest.mark.parametrize("add_generation_prompt", [True, False])
@pytest.mark.parametrize("template", [CHAT_TEMPLATE, LLAMA_LIKE, QWEN_LIKE], ids=["ours", "llama", "qwen"])
def test_a_chat_is_rendered_as_transformers_renders_it(template: str, add_generation_prompt: bool) -> None:
    transformers = pytest.importorskip("transformers")
    backend = tokenizers.Tokenizer.from_str(tokenizer_json())
    reference = transformers.PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>")
    options: dict[str, Any] = {"enable_thinking": False, "date_string": "1 May 2026"}
    expected = reference.apply_chat_template(
        MESSAGES, chat_template=template, tokenize=False, add_generation_prompt=add_generation_prompt, **options
    )
    ours = ChatTemplate(template, {"bos_token": "<s>"})
    assert ours.render(MESSAGES, add_generation_prompt=add_generation_prompt, variables=options) == expected


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{{ messages[0].content + 1 }}", "refused the messages"),
        ("{{ messages.append(1) }}", "refused the messages"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
    ],
    ids=["its own refusal", "a type error", "writing to its input", "leaving the sandbox"],
)
def test_what_goes_wrong_in_a_template_is_one_error(template: str, said: str) -> None:
    with pytest.raises(ChatTemplateError, match=said):
        ChatTemplate(template).render(MESSAGES)


def test_variables_of_the_client_cannot_replace_the_messages() -> None:
    template = ChatTemplate("{{ messages | length }}")
    assert template.render(MESSAGES, variables={"messages": [], "add_generation_prompt": 1}) == "4"
