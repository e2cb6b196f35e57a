"""How a conversation becomes one text: the special tokens and the chat template."""

from __future__ import annotations

END = "<|end|>"
START = "<|start|>"
PAD = "<|pad|>"
SYSTEM = "<|system|>"
USER = "<|user|>"
ASSISTANT = "<|assistant|>"
SPECIAL_TOKENS = (END, START, PAD, SYSTEM, USER, ASSISTANT)

# Text parts of a message are joined; a developer message counts as system, a tool's as the user's.
CHAT_TEMPLATE = """\
{%- for message in messages -%}
{%- if message['content'] is string -%}
{%- set content = message['content'] -%}
{%- else -%}
{%- set content = message['content'] | map(attribute='text') | join(' ') -%}
{%- endif -%}
{%- if message['role'] in ['system', 'developer'] -%}
{{- '<|system|>' + content | trim + '<|end|>' -}}
{%- elif message['role'] == 'assistant' -%}
{{- '<|assistant|>' + content | trim + '<|end|>' -}}
{%- else -%}
{{- '<|user|>' + content | trim + '<|end|>' -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|assistant|>' -}}
{%- endif -%}
"""


def prompt(question: str) -> str:
    """Return the text of one question up to where the answer begins, as the template does."""
    return f"{USER}{question.strip()}{END}{ASSISTANT}"
