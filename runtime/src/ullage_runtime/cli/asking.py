"""`ullage run` and `ullage chat`: one question, or a conversation."""

import contextlib
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from rich.markup import escape

from ullage_runtime.cli.client import Answer, ApiClient
from ullage_runtime.cli.console import USAGE, CliError, err
from ullage_runtime.cli.listing import UrlOption
from ullage_runtime.cli.loading import effective_settings
from ullage_runtime.cli.private import private_server, source_of

ModelArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A model's name on a running server, a GGUF file, or a URI (hf://…, https://…).",
    ),
]
SystemOption = Annotated[
    str | None, typer.Option("--system", "-s", help="Instructions that precede the conversation.")
]
TemperatureOption = Annotated[
    float | None,
    typer.Option("--temperature", "-t", min=0, max=2, help="0 picks the likeliest token."),
]
MaxTokensOption = Annotated[
    int | None, typer.Option("--max-tokens", "-n", min=1, help="Longest answer, in tokens.")
]
SeedOption = Annotated[int | None, typer.Option("--seed", help="The same seed, the same answer.")]
TopPOption = Annotated[
    float | None,
    typer.Option("--top-p", min=0.000001, max=1, help="Nucleus of tokens to choose from."),
]
ContextOption = Annotated[
    int | None,
    typer.Option("--context-length", min=32, help="Tokens of context, for a file or a URI."),
]
HttpOption = Annotated[
    bool, typer.Option("--allow-http", help="Let a URI be plain http:// to another machine.")
]


@dataclass(frozen=True, slots=True)
class _Options:
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()

    def to_wire(self) -> dict[str, Any]:
        given: dict[str, Any] = {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "max_tokens": self.max_tokens,
            "seed": self.seed,
            "stop": list(self.stop) or None,
        }
        return {name: value for name, value in given.items() if value is not None}


@contextlib.contextmanager
def _server(
    model: str, url: str | None, context_length: int | None, *, allow_http: bool
) -> Iterator[tuple[ApiClient, str]]:
    """Yield a client and the name to ask for: of a running server, or of our own for a file."""
    loaded = effective_settings({"url": url}, quiet=True)
    settings = loaded.values
    source = source_of(model)
    if source is not None:
        with private_server(
            settings, source, context_length=context_length, allow_http=allow_http
        ) as server:
            yield server
        return
    key = settings.api_key.get_secret_value() if settings.api_key else None
    with ApiClient(settings.url, api_key=key) as client:
        yield client, model


def run(
    model: ModelArgument,
    prompt: Annotated[
        str | None, typer.Option("--prompt", "-p", help="The question. Default: standard input.")
    ] = None,
    system: SystemOption = None,
    *,
    raw: Annotated[
        bool, typer.Option("--raw", help="Continue the text as it is, without a chat template.")
    ] = False,
    temperature: TemperatureOption = None,
    top_p: TopPOption = None,
    max_tokens: MaxTokensOption = None,
    seed: SeedOption = None,
    stop: Annotated[
        list[str] | None, typer.Option("--stop", help="Text that ends the answer; repeatable.")
    ] = None,
    context_length: ContextOption = None,
    allow_http: HttpOption = False,
    url: UrlOption = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object instead of the text.")
    ] = False,
) -> None:
    """Ask one question and print the answer as it is made.

    [dim]ullage run guide --prompt "What is Ullage?"[/]

    [dim]ullage run ./model.gguf < question.txt[/]
    """
    question = prompt if prompt is not None else _read_question()
    options = _Options(temperature, top_p, max_tokens, seed, tuple(stop or ()))
    with _server(model, url, context_length, allow_http=allow_http) as (client, name):
        if raw:
            # Completions stop after 16 tokens unless told otherwise, which nobody expects here.
            limits = {"max_tokens": 512, **options.to_wire()}
            answers = client.complete(name, question, limits)
        else:
            answers = client.chat(name, _messages(system, question), options.to_wire())
        answer = _printed(answers, to_json=as_json)
    if as_json:
        sys.stdout.write(json.dumps(answer.to_wire(), ensure_ascii=False) + "\n")
    elif err.is_terminal and sys.stdout.isatty():
        err.print(f"[dim]{_footer(answer)}[/]")


def _read_question() -> str:
    if sys.stdin.isatty():
        raise CliError(
            "there is no question", "give one with --prompt TEXT, or on standard input", USAGE
        )
    question = sys.stdin.read().strip()
    if not question:
        raise CliError("standard input is empty", "give a question with --prompt TEXT", USAGE)
    return question


def _messages(system: str | None, question: str) -> list[dict[str, str]]:
    first = [{"role": "system", "content": system}] if system else []
    return [*first, {"role": "user", "content": question}]


def _printed(answers: Iterator[Answer], *, to_json: bool = False) -> Answer:
    """Print an answer as it grows and return it."""
    shown, answer = 0, Answer()
    for answer in answers:
        if not to_json:
            sys.stdout.write(answer.text[shown:])
            sys.stdout.flush()
            shown = len(answer.text)
    if not to_json:
        sys.stdout.write("\n")
        sys.stdout.flush()
    return answer


def _footer(answer: Answer) -> str:
    usage = answer.usage
    parts = [
        f"{usage.get('prompt_tokens', 0)} + {usage.get('completion_tokens', 0)} tokens",
        f"{answer.seconds:.1f} s",
    ]
    speed = answer.tokens_per_second
    if speed:
        parts.append(f"{speed:.0f} tokens/s")
    if answer.finish_reason == "length":
        parts.append("cut off at its longest; raise --max-tokens")
    return " · ".join(parts)


def chat(
    model: ModelArgument,
    system: SystemOption = None,
    *,
    temperature: TemperatureOption = None,
    top_p: TopPOption = None,
    max_tokens: MaxTokensOption = None,
    seed: SeedOption = None,
    context_length: ContextOption = None,
    allow_http: HttpOption = False,
    url: UrlOption = None,
) -> None:
    """Talk with a model: /exit ends, /reset forgets, Ctrl-C stops an answer."""
    options = _Options(temperature, top_p, max_tokens, seed)
    with _server(model, url, context_length, allow_http=allow_http) as (client, name):
        _converse(client, name, system, options.to_wire())


def _converse(client: ApiClient, name: str, system: str | None, options: dict[str, Any]) -> None:
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 - importing it gives input() history and line editing
    err.print(f"[bold]{escape(name)}[/] [dim]· /exit ends · /reset forgets · Ctrl-C stops[/]")
    opening = [{"role": "system", "content": system}] if system else []
    history = list(opening)
    while True:
        question = _question()
        if question is None or question in {"/exit", "/quit", "/bye"}:
            return
        if question in {"/reset", "/clear"}:
            history = list(opening)
            err.print("[dim]forgotten[/]")
        elif question.startswith("/"):
            err.print("[dim]/exit ends · /reset forgets what was said[/]")
        elif question:
            history.append({"role": "user", "content": question})
            _reply(client, name, history, options)


def _question() -> str | None:
    """Return the next line of the user, or None at the end of input."""
    try:
        is_interactive = sys.stdin.isatty() and sys.stdout.isatty()
        return input("> " if is_interactive else "").strip()
    except EOFError:
        if err.is_terminal:
            err.print()
        return None
    except KeyboardInterrupt:
        err.print("\n[dim]/exit ends[/]")
        return ""


def _reply(
    client: ApiClient, name: str, history: list[dict[str, str]], options: dict[str, Any]
) -> None:
    """Answer the last question; an answer that was stopped counts as far as it came."""
    said = ""
    try:
        for answer in client.chat(name, history, options):
            sys.stdout.write(answer.text[len(said) :])
            sys.stdout.flush()
            said = answer.text
        sys.stdout.write("\n")
    except KeyboardInterrupt:
        sys.stdout.write("\n")
        err.print("[dim]stopped[/]")
    except CliError as error:
        sys.stdout.write("\n" if said else "")
        err.print(f"[bold red]error:[/] {escape(str(error))}")
        if not said:
            # The question was not answered: it must not precede the next one.
            history.pop()
            return
    history.append({"role": "assistant", "content": said})
