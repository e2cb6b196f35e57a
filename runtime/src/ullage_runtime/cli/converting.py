"""`ullage convert`: a model in another format, or smaller, held against its source."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from ullage_runtime.cli.console import CliError, err, out
from ullage_runtime.cli.listing import JsonOption, print_json
from ullage_runtime.core.errors import LoadError
from ullage_runtime.core.sizes import human_bytes
from ullage_runtime.engines.conversion import ConversionError, Converted, Precision


def convert(
    source: Annotated[
        Path,
        typer.Argument(
            help="The folder of an encoder or of a Llama (safetensors), an ONNX model's file or "
            "folder, or a GGUF file."
        ),
    ],
    target: Annotated[
        Path,
        typer.Argument(help="A .gguf file, or a folder for ONNX; it must not exist."),
    ],
    *,
    precision: Annotated[
        Precision, typer.Option(help="What weights are written as: f32 or int8 in ONNX.")
    ] = Precision.F32,
    as_json: JsonOption = False,
) -> None:
    """Write a model as ONNX or GGUF, or smaller, and check that it computes the same."""
    try:
        with err.status("[dim]converting[/]"):
            done = _converted(source, target, precision)
    except ImportError as error:
        raise CliError(
            f"converting needs what is not installed here: {error.name}",
            "pip install 'ullage-runtime[convert]'",
        ) from error
    except (ConversionError, LoadError) as error:
        raise CliError(str(error)) from error
    if as_json:
        print_json(asdict(done) | {"target": str(done.target)})
        return
    out.print(
        f"{escape(str(done.target))}: {done.precision}, {human_bytes(done.target_bytes)} of "
        f"{human_bytes(done.source_bytes)}; {escape(done.comparison.summary)}"
    )


def _converted(source: Path, target: Path, precision: Precision) -> Converted:
    if target.suffix == ".gguf":
        from ullage_runtime.engines.llamacpp.conversion.converting import convert as to_gguf

        return to_gguf(source, target, precision)
    from ullage_runtime.engines.onnx.conversion.converting import convert as to_onnx

    return to_onnx(source, target, precision)
