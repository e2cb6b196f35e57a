"""Fitting the model: a small Llama, AdamW and Muon, one fixed seed, on the CPU."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from tokenizers import Tokenizer
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM

from .chat import END, PAD, START
from .corpus import Entry
from .practice import Batch, Practice

CONTEXT_LENGTH = 1024


@dataclass(frozen=True, slots=True)
class Shape:
    """The size of the model. Every matrix row is a multiple of 32, the block of Q8_0."""

    hidden: int = 256
    layers: int = 5
    heads: int = 8
    kv_heads: int = 4
    feed_forward: int = 768


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long and how hard to train. A batch holds about `tokens_per_step` tokens.

    A stage starts from the mean of the weights at the end of the last `averages` stages: the mean
    of two neighbours understands unseen questions better than either.
    """

    steps: int
    peak_rate: float
    warmup_steps: int
    tokens_per_step: int = 3072
    lengths: tuple[int, ...] = (128, 256, 512, 1024)
    length_shares: tuple[float, ...] = (0.3, 0.35, 0.2, 0.15)
    weight_decay: float = 0.01
    emphasis: tuple[str, ...] = ()
    drill_share: float = 0.0
    averages: int = 1


@dataclass(frozen=True, slots=True)
class LossPoint:
    """The mean loss per learnt token over the steps since the previous point."""

    step: int
    loss: float
    tokens: int
    seconds: float


def new_model(tokenizer: Tokenizer, shape: Shape, seed: int) -> LlamaForCausalLM:
    """Return an untrained model whose weights follow from the seed alone."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=shape.hidden,
        intermediate_size=shape.feed_forward,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.hidden // shape.heads,
        max_position_embeddings=CONTEXT_LENGTH,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        tie_word_embeddings=True,
        bos_token_id=tokenizer.token_to_id(START),
        eos_token_id=tokenizer.token_to_id(END),
        pad_token_id=tokenizer.token_to_id(PAD),
    )
    return LlamaForCausalLM(config)


def fit(
    model: LlamaForCausalLM,
    entries: Sequence[Entry],
    *,
    revision: str,
    tokenizer: Tokenizer,
    schedule: Schedule,
    seed: int,
    on_point: Callable[[LossPoint], None],
) -> list[LossPoint]:
    """Trains `model` in place and returns the loss curve."""
    practice = Practice(
        entries,
        revision=revision,
        tokenizer=tokenizer,
        seed=seed,
        emphasis=schedule.emphasis,
        drill_share=schedule.drill_share,
    )
    lengths = np.random.default_rng(seed + 1)
    optimizers = _optimizers(model, schedule)
    curve: list[LossPoint] = []
    begun = time.monotonic()
    seen, recent = 0, []
    model.train()
    for step in range(1, schedule.steps + 1):
        length = int(lengths.choice(schedule.lengths, p=schedule.length_shares))
        batch = practice.batch(max(1, schedule.tokens_per_step // length), length)
        seen += batch.tokens.size
        recent.append(_step(model, batch, optimizers, _rate(step, schedule)))
        if step % 25 == 0 or step == schedule.steps:
            elapsed = round(time.monotonic() - begun, 1)
            curve.append(LossPoint(step, round(sum(recent) / len(recent), 5), seen, elapsed))
            recent = []
            on_point(curve[-1])
    model.eval()
    return curve


def mean_weights(ends: Sequence[Mapping[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Return the mean of several states of one model, tensor by tensor."""
    return {name: sum(end[name] for end in ends) / len(ends) for name in ends[0]}


def settings(shape: Shape, stages: Sequence[Schedule]) -> dict[str, object]:
    """Return everything that a rerun needs beside the seed, as plain data."""
    return {
        "shape": asdict(shape),
        "stages": [asdict(stage) for stage in stages],
        "context": CONTEXT_LENGTH,
    }


def _step(
    model: LlamaForCausalLM,
    batch: Batch,
    optimizers: Sequence[torch.optim.Optimizer],
    rate: float,
) -> float:
    tokens = torch.from_numpy(batch.tokens)
    # The token at i is predicted from what stands before it, so the mask moves along by one.
    learnt = torch.from_numpy(batch.learnt[:, 1:])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden = model.model(input_ids=tokens[:, :-1], use_cache=False).last_hidden_state
        logits = model.lm_head(hidden[learnt])
    loss = functional.cross_entropy(logits.float(), tokens[:, 1:][learnt])
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate * group["share"]
        optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimizer in optimizers:
        optimizer.step()
    return float(loss.detach())


def _optimizers(model: LlamaForCausalLM, schedule: Schedule) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, AdamW for embeddings and norms."""
    matrices = [p for p in model.model.layers.parameters() if p.ndim == 2]  # noqa: PLR2004
    chosen = {id(p) for p in matrices}
    rest = [p for p in model.parameters() if id(p) not in chosen]
    muon = torch.optim.Muon(
        [{"params": matrices, "share": 1.0}],
        lr=schedule.peak_rate,
        weight_decay=schedule.weight_decay,
        adjust_lr_fn="match_rms_adamw",
    )
    adam = torch.optim.AdamW(
        [{"params": rest, "share": 1.0}], lr=schedule.peak_rate, betas=(0.9, 0.98), weight_decay=0.0
    )
    return [muon, adam]


def _rate(step: int, schedule: Schedule) -> float:
    """Linear warm-up, then a cosine down to a fiftieth of the peak."""
    if step <= schedule.warmup_steps:
        return schedule.peak_rate * step / schedule.warmup_steps
    done = (step - schedule.warmup_steps) / max(1, schedule.steps - schedule.warmup_steps)
    return schedule.peak_rate * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))
