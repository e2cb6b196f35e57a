"""Exporting: from transformers' weights to a graph, by PyTorch's own exporter.

Nothing in a folder is executed: weights in safetensors are preferred and pickles are read with
`weights_only`, and code that a repository brings along is never run.
"""

import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
import transformers

from ullage_runtime.core.pooled import Output
from ullage_runtime.engines.conversion import ConversionError
from ullage_runtime.engines.onnx.conversion.folders import Source
from ullage_runtime.engines.onnx.heads import FURTHER

# What they say of themselves, and bars of progress, are of no use to whoever converts.
logging.getLogger("torch.onnx").setLevel(logging.ERROR)
transformers.utils.logging.disable_progress_bar()
transformers.utils.logging.set_verbosity_error()

_MAX_TEXTS: Final = 4096
_MAX_INNER_BYTES: Final = 1 << 30
"""Weights of more than that lie in a file of their own; one message cannot be 2 GiB long."""
_VECTORS, _SCORES, _POOLED = "last_hidden_state", "logits", "dense_vecs"


@dataclass(frozen=True, slots=True)
class Original:
    """The source as PyTorch computes it."""

    module: Any

    @property
    def weight_bytes(self) -> int:
        """Bytes of its weights, as they are computed with."""
        return sum(each.numel() * each.element_size() for each in self.module.parameters())

    def compute(self, text: Sequence[int]) -> Mapping[str, Any]:
        """Return the outputs for a text by their names, as those of a graph."""
        tokens = torch.tensor([list(text)])
        given = (tokens, torch.ones_like(tokens), torch.zeros_like(tokens))
        with torch.inference_mode():
            values = self.module(*given[: len(self.module.inputs)])
        return dict(zip(self.module.outputs, map(_numpy, values), strict=True))


def opened(source: Source) -> Original:
    """Return a source's model, ready to compute."""
    kind: Any = transformers.AutoModel
    if source.is_ranker:
        kind = transformers.AutoModelForSequenceClassification
    model = kind.from_pretrained(
        str(source.folder),
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=source.has_safetensors,
        dtype=torch.float32,
    ).eval()
    return Original(_Encoder(model, source).eval())


def save_tokenizer(source: Source, folder: Path) -> None:
    """Write a source's tokenizer as `tokenizer.json`, unless it is there already."""
    if not (folder / "tokenizer.json").is_file():
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            str(source.folder), local_files_only=True, trust_remote_code=False
        )
        tokenizer.save_pretrained(str(folder))


def export(original: Original, path: Path, longest: int) -> None:
    """Write a model as an ONNX file, for any number of texts of up to `longest` tokens."""
    module = original.module
    texts = torch.export.Dim("texts", min=1, max=_MAX_TEXTS)
    tokens = torch.export.Dim("tokens", min=1, max=longest)
    # One tensor for several inputs would make them one input.
    examples = tuple(torch.ones((2, 8), dtype=torch.int64) for _ in module.inputs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter, about itself
        program = torch.onnx.export(
            module,
            examples,
            dynamo=True,
            verbose=False,
            input_names=list(module.inputs),
            output_names=list(module.outputs),
            dynamic_shapes=tuple({0: texts, 1: tokens} for _ in module.inputs),
        )
    program.save(str(path), external_data=original.weight_bytes > _MAX_INNER_BYTES)


# PyTorch is an extra, and not there when types are checked.
class _Encoder(torch.nn.Module):  # type: ignore[misc]
    """A model as the graph is to be: plain inputs, and the outputs that are wanted."""

    def __init__(self, model: Any, source: Source) -> None:
        super().__init__()
        self.model = model
        self.inputs = ("input_ids", "attention_mask", "token_type_ids")[: 2 + source.has_types]
        self.heads = torch.nn.ModuleDict(
            {FURTHER[output]: _linear(file) for output, file in source.heads.items()}
        )
        first = _SCORES if source.is_ranker else _POOLED if source.heads else _VECTORS
        self.outputs = (first, *self.heads)

    def forward(self, tokens: Any, mask: Any, types: Any = None) -> Any:
        """Return the outputs.

        BGE-M3's are of one pass (Chen et al., "M3-Embedding", 2024): the first token's vector, a
        weight for each token, and a vector for each.
        """
        further = {} if types is None else {"token_type_ids": types}
        found = self.model(input_ids=tokens, attention_mask=mask, **further)
        if self.outputs[0] == _SCORES:
            return (found.logits,)
        vectors = found.last_hidden_state
        whole = vectors[:, 0] if self.outputs[0] == _POOLED else vectors
        return (whole, *(self._further(name, vectors) for name in self.heads))

    def _further(self, name: str, vectors: Any) -> Any:
        values = self.heads[name](vectors)
        return torch.relu(values) if name == FURTHER[Output.SPARSE] else values


def _linear(file: Path) -> Any:
    """Return the layer in a file; raises ConversionError when there is none."""
    try:
        found = torch.load(file, weights_only=True, map_location="cpu")
        rows, columns = found["weight"].shape
        layer = torch.nn.Linear(columns, rows)
        layer.load_state_dict(found)
    except Exception as error:  # unpickling raises whatever it meets
        raise ConversionError(
            f"{file.name} is no linear layer as BGE-M3 has it: {str(error)[:300]}"
        ) from error
    return layer.float()


def _numpy(values: Any) -> Any:
    return values.numpy()
