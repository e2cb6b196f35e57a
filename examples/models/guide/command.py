"""The command line of the training script: what to train, from what, and where it goes."""

from __future__ import annotations

import hashlib
import json
import platform
import sys
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import torch
import typer
from transformers import LlamaForCausalLM

from .corpus import CORPUS_FOLDER, REVISIONS, Entry, read_corpus
from .release import RECORD_FOLDER, TOKENIZER_FILE, release
from .training import LossPoint, Schedule, Shape, fit, mean_weights, new_model, settings
from .vocabulary import read_tokenizer, trained_tokenizer

BUILD_FOLDER = CORPUS_FOLDER.parent / "build"

SEED = 20_260_101
SHAPE = Shape()
# Long sequences that differ in nothing but their end are the hardest to keep.
COUNTS = ("count-10", "count-20", "count-50", "count-100")
# First everything; then mostly telling questions apart, which is where a small model errs; then
# both together, with the counting that the second stage wears down; then a gentle polish.
STAGES = {
    "v1": (
        Schedule(steps=600, peak_rate=8e-3, warmup_steps=20),
        Schedule(
            steps=140,
            peak_rate=2e-3,
            warmup_steps=10,
            lengths=(128, 256, 512, 1024),
            length_shares=(0.5, 0.25, 0.1, 0.15),
            drill_share=0.6,
        ),
        Schedule(
            steps=130,
            peak_rate=3e-3,
            warmup_steps=10,
            lengths=(128, 256, 512, 1024),
            length_shares=(0.5, 0.2, 0.15, 0.15),
            weight_decay=0.1,
            emphasis=COUNTS[1:],
            drill_share=0.35,
        ),
        Schedule(
            steps=40,
            peak_rate=3e-4,
            warmup_steps=4,
            tokens_per_step=2048,
            lengths=(128, 512),
            length_shares=(0.6, 0.4),
            emphasis=(*COUNTS, "what-is-ullage"),
            averages=2,
        ),
    ),
    "v2": (
        Schedule(
            steps=70,
            peak_rate=8e-4,
            warmup_steps=4,
            tokens_per_step=2048,
            lengths=(128, 512, 1024),
            length_shares=(0.5, 0.15, 0.35),
            emphasis=(*COUNTS, "what-is-ullage", "version", "story"),
        ),
    ),
}

app = typer.Typer(add_completion=False)


@dataclass(frozen=True, slots=True)
class Record:
    """What a run was, kept beside the model so that it can be judged and repeated."""

    revision: str
    seed: int
    parameters: int
    final_loss: float
    wall_seconds: float
    threads: int
    processor: str
    versions: dict[str, str]
    corpus_sha256: str
    settings: dict[str, object]
    loss_curves: list[list[LossPoint]]


@app.command()
def main(
    *,
    revision: Annotated[str, typer.Option(help="v1 or v2")] = "v1",
    threads: Annotated[int, typer.Option(help="processor threads")] = 2,
    export_only: Annotated[bool, typer.Option(help="use the checkpoint of an earlier run")] = False,
) -> None:
    """Train one revision of the guide, write its GGUF file and prove it good enough."""
    if revision not in REVISIONS:
        raise typer.BadParameter(f"there is no revision {revision!r}; choose v1 or v2")
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(mode=True)
    entries = read_corpus()
    if not export_only:
        if revision == "v2" and not _checkpoint("v1").exists():
            _train("v1", entries)
        _train(revision, entries)
    release(revision, entries, _loaded(revision))


def _train(revision: str, entries: tuple[Entry, ...]) -> None:
    if revision == "v1":
        tokenizer = trained_tokenizer(entries)
        RECORD_FOLDER.mkdir(exist_ok=True)
        tokenizer.save(str(TOKENIZER_FILE))
        model = new_model(tokenizer, SHAPE, SEED)
    else:
        tokenizer = read_tokenizer(TOKENIZER_FILE)
        model = _loaded("v1")
    BUILD_FOLDER.mkdir(exist_ok=True)

    def saved(point: LossPoint) -> None:
        sys.stderr.write(f"{revision} step {point.step}: loss {point.loss} ({point.seconds} s)\n")
        torch.save(model.state_dict(), _checkpoint(revision, partial=True))

    begun = time.monotonic()
    curves: list[list[LossPoint]] = []
    ends: list[dict[str, torch.Tensor]] = [_copied(model)]
    for number, stage in enumerate(STAGES[revision]):
        model.load_state_dict(mean_weights(ends[-stage.averages :]))
        curve = fit(
            model,
            entries,
            revision=revision,
            tokenizer=tokenizer,
            schedule=stage,
            seed=SEED + 2 * number,
            on_point=saved,
        )
        curves.append(curve)
        ends.append(_copied(model))
    _checkpoint(revision, partial=True).replace(_checkpoint(revision))
    _write_record(revision, model, curves, time.monotonic() - begun)


def _write_record(
    revision: str, model: LlamaForCausalLM, curves: list[list[LossPoint]], seconds: float
) -> None:
    record = Record(
        revision=revision,
        seed=SEED,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        final_loss=curves[-1][-1].loss,
        wall_seconds=round(seconds, 1),
        threads=torch.get_num_threads(),
        processor=platform.machine(),
        versions={name: version(name) for name in ("torch", "transformers", "tokenizers", "numpy")},
        corpus_sha256=_corpus_digest(),
        settings=settings(SHAPE, STAGES[revision]),
        loss_curves=curves,
    )
    text = json.dumps(asdict(record), indent=1) + "\n"
    (RECORD_FOLDER / f"guide-{revision}.json").write_text(text, encoding="utf-8")


def _copied(model: LlamaForCausalLM) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def _loaded(revision: str) -> LlamaForCausalLM:
    model = new_model(read_tokenizer(TOKENIZER_FILE), SHAPE, SEED)
    model.load_state_dict(torch.load(_checkpoint(revision), weights_only=True))
    return model.eval()


def _checkpoint(revision: str, *, partial: bool = False) -> Path:
    return BUILD_FOLDER / f"guide-{revision}{'.partial' if partial else ''}.pt"


def _corpus_digest() -> str:
    digest = hashlib.sha256()
    for path in sorted(CORPUS_FOLDER.glob("*.yaml")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
