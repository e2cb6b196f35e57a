"""Chat templates: the model's own text, kept from what it may not reach."""

import pytest

from ullage_runtime.engines.prompting.prompts import CHATML
from ullage_runtime.engines.templates.environment import MAX_TEXT, Template, TemplateFailed

MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi <b>"}]


def rendered(source: str, **variables: object) -> str:
    template = Template(source, {"bos_token": "<s>", "eos_token": "</s>"})
    return template.rendered({"messages": MESSAGES, "add_generation_prompt": True, **variables})


def test_chatml_is_what_it_should_be() -> None:
    assert rendered(CHATML) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        "<|im_start|>user\nHi <b><|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_a_template_has_what_those_of_models_expect() -> None:
    source = (
        "{{ bos_token }}{%- for m in messages %}{%- if loop.index0 == 1 %}{% break %}{%- endif %}"
        "{{ m['role'] }}:{{ m['content'] | trim | tojson }}{%- endfor %}"
        "{{ strftime_now('%Y')[:2] }}"
        "{{ tools | tojson(indent=None, separators=(',', ':'), ensure_ascii=False) }}"
        "{% if nothing is undefined %}{{ eos_token }}{% endif %}"
    )
    assert rendered(source, tools=[{"a": "é"}]) == '<s>system:"Be brief."20[{"a":"é"}]</s>'


def test_a_template_that_complains_is_quoted_and_blames_the_messages() -> None:
    with pytest.raises(TemplateFailed, match="roles must alternate") as failed:
        rendered("{{ raise_exception('roles must alternate') }}")
    assert failed.value.blames_messages


@pytest.mark.parametrize("source", ["{{ 1 / 0 }}", "{{ nothing.at.all }}", "{{ messages + 1 }}"])
def test_a_template_that_stumbles_blames_the_messages(source: str) -> None:
    with pytest.raises(TemplateFailed) as failed:
        rendered(source)
    assert failed.value.blames_messages


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "unsafe"),
        ("{{ messages.append(1) }}", "unsafe"),
        ("{% for i in range(10 ** 9) %}x{% endfor %}", "Range too big"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "recursion"),
        (f"{{% for i in range(99999) %}}{'x' * 1000}{{% endfor %}}", str(MAX_TEXT)),
    ],
)
def test_a_template_that_reaches_too_far_is_stopped(source: str, words: str) -> None:
    with pytest.raises(TemplateFailed, match=words) as failed:
        rendered(source)
    assert not failed.value.blames_messages


@pytest.mark.parametrize("source", ["{% if %}", "{% if 1 %}" * 3000 + "{% endif %}" * 3000])
def test_a_template_that_is_no_jinja_is_named(source: str) -> None:
    with pytest.raises(TemplateFailed, match="broken") as failed:
        rendered(source)
    assert not failed.value.blames_messages
