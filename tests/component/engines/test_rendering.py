"""Chat templates in their child process: what is slow, large or hostile ends there."""

import asyncio
import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.gguf_models import GUIDE, with_template
from tests.support.workers import chat, chunks_of, completion, eventually, loaded, text_of
from ullage_runtime.core.errors import EngineFailed, InvalidRequest, InvalidTemplate
from ullage_runtime.engines.templates.renderer import RENDER_SECONDS, Renderer

PLAIN = "{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
SLOW = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
EXPONENTIAL = (
    "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}"
)
SLOW_FOR_SOME = "{% if messages[0].content == 'slow' %}" + SLOW + "{% endif %}" + PLAIN
HI = {"messages": [{"role": "user", "content": "Grüße"}]}


def messages(content: str) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": content}]}


@pytest.fixture
def renderer_of() -> Iterator[Callable[[str], Renderer]]:
    with contextlib.ExitStack() as stack:

        def make(source: str) -> Renderer:
            renderer = Renderer(source, {"bos_token": "<s>", "eos_token": ""})
            stack.callback(renderer.close)
            return renderer

        yield make


def children_of(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children()


def test_a_child_renders_again_and_again(renderer_of: Callable[[str], Renderer]) -> None:
    renderer = renderer_of(PLAIN)
    renderer.start()
    pids = {child.pid for child in children_of(os.getpid())}
    assert renderer.render(HI) == "<s>[user]Grüße"
    assert renderer.render(messages("Hi")) == "<s>[user]Hi"
    assert {child.pid for child in children_of(os.getpid())} == pids


def test_a_child_has_no_secrets_no_files_and_little_memory(
    renderer_of: Callable[[str], Renderer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    known = {child.pid for child in children_of(os.getpid())}
    renderer = renderer_of(PLAIN)
    renderer.render(HI)
    (child,) = (c for c in children_of(os.getpid()) if c.pid not in known)
    assert "HF_TOKEN" not in child.environ()
    assert child.open_files() == []
    assert child.num_fds() <= 4, "three standard ones, and the socket"
    assert child.memory_info().rss < 64 << 20
    assert child.rlimit(psutil.RLIMIT_AS)[0] < 512 << 20


@pytest.mark.parametrize("source", [SLOW, EXPONENTIAL])
def test_a_template_that_takes_too_long_is_killed(
    renderer_of: Callable[[str], Renderer], source: str
) -> None:
    renderer = renderer_of(source)
    renderer.start()
    began = time.monotonic()
    with pytest.raises(InvalidTemplate, match="more than 2 s"):
        renderer.render(HI)
    assert RENDER_SECONDS <= time.monotonic() - began < RENDER_SECONDS + 10


@pytest.mark.parametrize(
    "source",
    ["{{ 'x' * 10 ** 9 }}", "{{ [messages] * 10 ** 8 }}", "{{ messages[0].content * 10 ** 8 }}"],
)
def test_a_template_that_takes_too_much_memory_is_stopped(
    renderer_of: Callable[[str], Renderer], source: str
) -> None:
    renderer = renderer_of(source)
    for _ in range(2):
        with pytest.raises(InvalidTemplate, match="memory"):
            renderer.render(HI)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("{% if %}", "broken"),
        ("{{ '\\ud800' }}", "halves of characters"),
        ("{% if 1 %}" * 3000 + "{% endif %}" * 3000, "recursion"),
    ],
)
def test_a_template_that_cannot_become_text_is_invalid(
    renderer_of: Callable[[str], Renderer], source: str, words: str
) -> None:
    with pytest.raises(InvalidTemplate, match=words):
        renderer_of(source).render(HI)


def test_messages_that_a_template_does_not_take_are_the_requests_problem(
    renderer_of: Callable[[str], Renderer],
) -> None:
    with pytest.raises(InvalidRequest, match="no users") as failed:
        renderer_of("{{ raise_exception('no users here') }}").render(HI)
    assert not isinstance(failed.value, InvalidTemplate)
    assert failed.value.param == "messages"


def test_a_killed_child_is_replaced(renderer_of: Callable[[str], Renderer]) -> None:
    known = {child.pid for child in children_of(os.getpid())}
    renderer = renderer_of(PLAIN)
    renderer.render(HI)
    (child,) = (c for c in children_of(os.getpid()) if c.pid not in known)
    child.send_signal(signal.SIGKILL)
    child.wait(timeout=10)
    with pytest.raises(InvalidTemplate, match="ended the process"):
        renderer.render(HI)
    assert renderer.render(HI) == "<s>[user]Grüße"


def test_one_slow_rendering_does_not_spoil_the_next_but_two_make_it_rest(
    renderer_of: Callable[[str], Renderer],
) -> None:
    renderer = renderer_of(SLOW_FOR_SOME)
    with pytest.raises(InvalidTemplate):
        renderer.render(messages("slow"))
    assert renderer.render(messages("fast")) == "<s>[user]fast"
    for _ in range(2):
        with pytest.raises(InvalidTemplate):
            renderer.render(messages("slow"))
    began = time.monotonic()
    with pytest.raises(InvalidTemplate, match="not tried again") as failed:
        renderer.render(messages("slow"))
    assert time.monotonic() - began < RENDER_SECONDS / 4
    assert failed.value.retry_after


def test_closing_ends_a_rendering_that_is_under_way(
    renderer_of: Callable[[str], Renderer],
) -> None:
    renderer = renderer_of(SLOW)
    renderer.start()
    errors: list[BaseException] = []
    begun = threading.Event()

    def render() -> None:
        begun.set()
        try:
            renderer.render(HI)
        except EngineFailed as error:
            errors.append(error)

    thread = threading.Thread(target=render)
    thread.start()
    begun.wait(10)
    renderer.close()
    thread.join(10)
    assert [str(error) for error in errors] == ["the model was unloaded"]
    with pytest.raises(EngineFailed):
        renderer.render(HI)


async def test_a_hostile_template_harms_no_other_generation(tmp_path: Path) -> None:
    engine = await loaded(with_template(GUIDE, tmp_path / "hostile.gguf", SLOW))
    try:
        alone = await text_of(engine, completion("Ullage is", max_tokens=40))
        over = asyncio.Event()

        async def write_on() -> list[str]:
            texts = []
            while not over.is_set():
                texts.append(await text_of(engine, completion("Ullage is", max_tokens=40)))
            return texts

        writing = asyncio.create_task(write_on())

        async def running() -> bool:
            return (await engine.stats()).steps > before

        before = (await engine.stats()).steps
        await eventually(running)
        began, steps = time.monotonic(), (await engine.stats()).steps
        chats = [asyncio.create_task(chunks_of(engine, chat("Hi"))) for _ in range(4)]
        with pytest.raises(InvalidTemplate):
            await chats[0]
        assert time.monotonic() - began < RENDER_SECONDS + 10
        assert (await engine.stats()).steps > steps, "the engine went on meanwhile"
        for refused in chats[1:]:
            with pytest.raises(InvalidTemplate):
                await refused
        over.set()
        assert set(await writing) == {alone}
    finally:
        await engine.unload()


async def test_a_chat_that_is_cancelled_while_it_is_prepared_never_runs(tmp_path: Path) -> None:
    engine = await loaded(with_template(GUIDE, tmp_path / "slow.gguf", SLOW_FOR_SOME))
    try:
        slow = asyncio.create_task(chunks_of(engine, chat("slow")))
        behind = asyncio.create_task(chunks_of(engine, chat("Hi", max_tokens=900)))

        async def waiting() -> bool:
            return (await engine.stats()).requests_waiting == 2

        await eventually(waiting)
        behind.cancel()

        async def left() -> bool:
            return (await engine.stats()).requests_waiting == 1

        await eventually(left)
        with pytest.raises(InvalidTemplate):
            await slow
        assert await text_of(engine, chat("Hi"))
        stats = await engine.stats()
        assert (stats.requests_waiting, stats.requests_running) == (0, 0)
        assert stats.generated_tokens < 100
    finally:
        await engine.unload()


async def test_a_renderer_does_not_outlive_its_worker(tmp_path: Path) -> None:
    engine = await loaded(with_template(GUIDE, tmp_path / "plain.gguf", SLOW))
    children = children_of(engine.pid)
    assert children
    stream = asyncio.create_task(chunks_of(engine, chat("Hi")))

    async def busy() -> bool:
        return any(child.cpu_times().user > 0.3 for child in children)

    await eventually(busy)
    os.kill(engine.pid, signal.SIGKILL)
    with pytest.raises(EngineFailed):
        await stream

    async def gone() -> bool:
        return not any(child.is_running() for child in children)

    await eventually(gone, seconds=10)
    await engine.unload()
