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
from ullage_runtime.engines.onnx.conversion.folders import ConversionError
from ullage_runtime.engines.onnx.conversion.precision import Precision


def convert(
    source: Annotated[
        Path,
        typer.Argument(
            help="An encoder's folder (safetensors), or an ONNX model's file or folder."
        ),
    ],
    target: Annotated[Path, typer.Argument(help="The folder to write; it must not exist.")],
    *,
    precision: Annotated[
        Precision, typer.Option(help="What weights are written as.")
    ] = Precision.F32,
    as_json: JsonOption = False,
) -> None:
    """Write an encoder or cross-encoder as ONNX, and check that it computes the same."""
    try:
        from ullage_runtime.engines.onnx.conversion.converting import convert

        with err.status("[dim]converting[/]"):
            done = convert(source, target, precision)
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
    near = done.comparison
    close = (
        f"a score is off by at most {near.score_difference:.6f}"
        if near.least_cosine is None
        else f"the least cosine is {near.least_cosine:.6f}, the mean {near.mean_cosine:.6f}"
    )
    if near.weight_difference is not None:
        close += f"; a token's weight is off by at most {near.weight_difference:.6f} of the largest"
    if near.least_token_cosine is not None:
        close += f"; of tokens' vectors the least cosine is {near.least_token_cosine:.6f}"
    out.print(
        f"{escape(str(done.target))}: {done.precision}, {human_bytes(done.target_bytes)} of "
        f"{human_bytes(done.source_bytes)}; of {near.texts} random texts {close}"
    )
