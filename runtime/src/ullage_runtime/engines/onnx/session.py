"""Session: an encoder's graph on onnxruntime."""

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
import onnxruntime

from ullage_api.conditions import Reason
from ullage_runtime.core.errors import EngineFailed, InsufficientMemory, LoadError, invalid_model
from ullage_runtime.engines.onnx.heads import Head, Numbers
from ullage_runtime.engines.pooled.texts import Pair

VERSION: Final = str(onnxruntime.__version__)
BATCH: Final = 512
"""Tokens that are computed together: more are no faster on a CPU, and queries wait for them."""
RUN_TOKENS: Final = 32
"""Tokens that take as long as beginning a run does."""
LINE_LENGTH: Final = 300
"""Characters of onnxruntime's message that ours quotes: files have a say in it."""

_ONLY_ERRORS: Final = 3
_INTEGERS: Final = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}
_FLOATS: Final = frozenset({"tensor(float)", "tensor(float16)", "tensor(double)"})
_TOKENS, _MASK, _TYPES = "input_ids", "attention_mask", "token_type_ids"
_KNOWN_INPUTS: Final = (_TOKENS, _MASK, _TYPES)
_ALLOCATION: Final = ("alloc", "out of memory")
_OF_TEXTS: Final = 2

T = TypeVar("T")


class Session:
    """One loaded graph; owned by one thread."""

    def __init__(self, path: Path, *, threads: int, padding: int, second_type: int) -> None:
        """Load it; raises LoadError.

        `padding` is the token that short texts are filled up with, `second_type` what the tokens of
        a pair's second text are called, where the graph wants to know.
        """
        self._padding = padding
        self._second_type = second_type
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = _ONLY_ERRORS
        # Threads that wait sleep: a model that nobody asks must not cost a CPU.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # The arena keeps what the largest batch took, and takes no more than that: what a model
        # takes is known once it has computed its largest batch. With patterns of its own for each
        # shape of a batch it would grow with their number.
        options.enable_mem_pattern = False
        provider = ("CPUExecutionProvider", {"arena_extend_strategy": "kSameAsRequested"})
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=[provider])
        except Exception as error:  # its exceptions have no common parent
            raise _refused(error) from error
        self._integers = _checked_inputs(self._session)
        self.outputs = {
            each.name: tuple(each.shape)
            for each in self._session.get_outputs()
            if each.type in _FLOATS
        }
        """Shapes of the outputs that are numbers, by their names."""

    def run(self, texts: Sequence[Sequence[int]], heads: Sequence[Head]) -> list[Sequence[Numbers]]:
        """Return what each head makes of each text, as arrays of 32-bit floats.

        The graph is computed once. Raises EngineFailed, and MemoryError when there is not enough.
        """
        lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
        names = [head.output for head in heads]
        try:
            found = self._session.run(names, self._fed(texts, lengths))
        except Exception as error:  # its exceptions have no common parent
            if any(sign in str(error).lower() for sign in _ALLOCATION):
                raise MemoryError from error
            raise EngineFailed(
                f"onnxruntime could not compute a batch of {len(texts)} texts: {_line(error)}",
                retry_after=1,
            ) from error
        return [
            list(head.rows(np.asarray(values, dtype=np.float32), lengths))
            for head, values in zip(heads, found, strict=True)
        ]

    def _fed(self, texts: Sequence[Sequence[int]], lengths: "np.ndarray[Any, Any]") -> Any:
        """Return the graph's inputs: each text a row, the short ones filled up."""
        shape = (len(texts), int(lengths.max()))
        tokens = np.full(shape, self._padding, dtype=np.int64)
        types = np.zeros(shape, dtype=np.int64)
        for row, text in enumerate(texts):
            tokens[row, : len(text)] = text
            if isinstance(text, Pair):
                types[row, text.second : len(text)] = self._second_type
        places = np.arange(shape[1])
        given = {
            _TOKENS: tokens,
            _MASK: places < lengths[:, None],
            _TYPES: types,
        }
        return {name: given[name].astype(kind) for name, kind in self._integers.items()}


def tried_in_halves(
    compute: Callable[[Sequence[Sequence[int]]], list[T]], texts: Sequence[Sequence[int]]
) -> list[T]:
    """Return what is computed of texts, in two halves when together they take too much memory.

    Raises InsufficientMemory when a half takes too much as well.
    """
    try:
        return compute(texts)
    except MemoryError:
        middle = math.ceil(len(texts) / 2)
    try:
        halves = [compute(half) for half in (texts[:middle], texts[middle:]) if half]
    except MemoryError as error:
        raise InsufficientMemory(
            f"there is no memory for {middle} texts of up to {max(map(len, texts))} tokens: send "
            "shorter ones, or set engine.contextLength lower"
        ) from error
    return [each for half in halves for each in half]


def runs_of(texts: Sequence[Sequence[int]]) -> Iterator[Sequence[Sequence[int]]]:
    """Yield texts in runs that are filled up to at most `BATCH` tokens, unless one alone is longer.

    A run costs as much as the filling of `RUN_TOKENS`, so what needs more of it begins another.
    """
    start, longest = 0, 0
    for place, text in enumerate(texts):
        count, grown = place - start, max(longest, len(text))
        filling = count * (grown - longest)
        if count and (filling > RUN_TOKENS or (count + 1) * grown > BATCH):
            yield texts[start:place]
            start, longest = place, len(text)
        else:
            longest = grown
    if texts:
        yield texts[start:]


def _checked_inputs(session: Any) -> dict[str, type[Any]]:
    """Return the inputs' types by their names; raises LoadError for what we cannot give it."""
    found = {}
    for each in session.get_inputs():
        if each.name not in _KNOWN_INPUTS or each.type not in _INTEGERS:
            raise invalid_model(
                f"the graph wants an input {each.name[:64]!r} of {each.type[:64]}; a text encoder "
                f"takes {', '.join(_KNOWN_INPUTS)} as integers"
            )
        if any(isinstance(size, int) for size in each.shape) or len(each.shape) != _OF_TEXTS:
            raise invalid_model(
                f"the graph takes {each.name} in one shape only, {each.shape}: export it with "
                "dynamic axes for texts and tokens"
            )
        found[each.name] = _INTEGERS[each.type]
    if _TOKENS not in found:
        raise invalid_model(f"the graph has no input {_TOKENS}, so it is no text encoder")
    return found


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:LINE_LENGTH]


def _refused(error: Exception) -> LoadError:
    passing = any(sign in str(error).lower() for sign in _ALLOCATION)
    return LoadError(
        Reason.LOAD_FAILED if passing else Reason.INVALID_MODEL,
        f"onnxruntime cannot load the file: {_line(error)}",
        final=not passing,
    )
