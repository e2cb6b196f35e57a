"""Chat templates of our own, in the manner of those that models come with.

Each ends a prompt with `[assistant]`, or `<think>`: the scripted models of `gguf_models` need it.
"""

_TURNS = (
    "{%- for m in messages %}[{{ m.role }}]{{ m.content }}"
    "{%- if m.reasoning_content %}{thought {{ m.reasoning_content }}}{%- endif %}"
    "{%- for c in m.tool_calls or [] %}CALL{%- endfor %}"
    "{%- if m.tool_call_id %}(to {{ m.tool_call_id }}){%- endif %}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}[assistant]{%- endif %}"
)


def _turns(call: str) -> str:
    return _TURNS.replace("CALL", call)


_TOOLS = "{%- if tools %}[tools]{% for t in tools %}{{ t | tojson }}{% endfor %}{%- endif %}"

HERMES = _TOOLS + _turns("<tool_call>{{ c.function | tojson }}</tool_call>")
MISTRAL = (
    "{%- for m in messages if m.tool_call_id and m.tool_call_id | length != 9 %}"
    "{{ raise_exception('ids have nine characters') }}{%- endfor %}"
    + _TOOLS
    + _turns("[TOOL_CALLS][{{ c.function | tojson }}]")
)
LLAMA = _TOOLS + _turns(
    '<|python_tag|>{"name": "{{ c.function.name }}", '
    '"parameters": {{ c.function.arguments | tojson }}}'
)
PLAIN = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}[assistant]"

THINKING = "{#- it writes <think> and </think> #}" + HERMES
OPENED = (
    "{#- it writes </think> #}"
    "{%- if enable_thinking is not defined or enable_thinking %}"
    + THINKING.replace("[assistant]", "[assistant]<think>")
    + "{%- else %}"
    + THINKING
    + "{%- endif %}"
)
"""Opens the reasoning in the prompt unless `enable_thinking` is false."""
