"""`ullage up` with a manifest that has adapters, asked by OpenAI's own Python client."""

import pathlib
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest

from tests.support.lora_files import write_adapter
from tests.support.processes import (
    ULLAGE,
    environment,
    free_port,
    manifest,
    running_process,
    wait_until_answers,
)

GUIDE = pathlib.Path(__file__).parents[2] / "examples" / "models" / "guide-v1.gguf"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[openai.OpenAI]:
    folder = tmp_path_factory.mktemp("up")
    shutil.copy(GUIDE, folder / "guide.gguf")
    write_adapter(folder / "tone.gguf", GUIDE, seed=3)
    adapters = [
        {"name": "tone", "uri": "file:tone.gguf"},
        {"name": "off", "uri": "file:tone.gguf", "scale": "0"},
    ]
    model = {"uri": "file:guide.gguf", "adapters": adapters}
    text = manifest("guide", "", model=model, aliases=["light"])
    (folder / "models.yaml").write_text(text)
    port = free_port()
    command = ("up", "models.yaml", "--port", str(port))
    with running_process(ULLAGE, environment(folder), *command, cwd=folder) as process:
        wait_until_answers(f"http://127.0.0.1:{port}/readyz", process)
        url = f"http://127.0.0.1:{port}/v1"
        with openai.OpenAI(base_url=url, api_key="any", max_retries=0, timeout=120) as client:
            yield client


def said(client: openai.OpenAI, model: str) -> str:
    answer = client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": "What is Ullage?"}],
        max_tokens=30,
        temperature=0,
    )
    assert answer.model == model
    return answer.choices[0].message.content or ""


def test_each_request_gets_the_adapter_it_names_alone_and_at_once(client: openai.OpenAI) -> None:
    base, tone = said(client, "guide"), said(client, "guide:tone")
    assert base.startswith("Ullage is a self-service platform")
    assert tone != base
    assert said(client, "light:tone") == tone
    assert said(client, "guide:off") == base
    names = ["guide", "guide:tone", "light", "guide:off"] * 2
    with ThreadPoolExecutor(len(names)) as threads:
        answers = list(threads.map(lambda name: said(client, name), names))
    for name, text in zip(names, answers, strict=True):
        assert (text == base) == (name != "guide:tone")


def test_a_stream_with_an_adapter_says_what_the_whole_answer_says(client: openai.OpenAI) -> None:
    chunks = client.chat.completions.create(
        model="guide:tone",
        messages=[{"role": "user", "content": "What is Ullage?"}],
        max_tokens=30,
        temperature=0,
        stream=True,
    )
    parts = [chunk.choices[0].delta.content or "" for chunk in chunks]
    assert "".join(parts) == said(client, "guide:tone")


def test_adapters_are_models_with_a_parent(client: openai.OpenAI) -> None:
    parents = {m.id: m.model_dump()["parent"] for m in client.models.list()}
    assert parents == {"guide": None, "guide:tone": "guide", "guide:off": "guide"}
    assert client.models.retrieve("light:tone").id == "guide:tone"


def test_an_adapter_that_is_not_there_is_the_clients_own_not_found(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="its adapters are: tone, off") as missing:
        said(client, "guide:other")
    assert missing.value.code == "model_not_found"
