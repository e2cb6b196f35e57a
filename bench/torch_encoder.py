"""The bench's encoder in PyTorch, and sentence-transformers' speed.

It runs in the embedders' environment.

`write embed|rank SOURCE TARGET` writes an encoder of random weights, of the size and with the
tokenizer that SOURCE has. `measure embed|rank FOLDER TEXTS BATCHES SECONDS THREADS` prints a JSON
object of texts a second by batch.
"""

import itertools
import json
import sys
import time
from pathlib import Path

# They are installed in the embedders' environment only.
import torch
from sentence_transformers import CrossEncoder, SentenceTransformer, models
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    PreTrainedTokenizerFast,
)


def write(kind: str, source: Path, target: Path) -> None:
    """Write a model that both sentence-transformers and infinity-emb load."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(source / "tokenizer.json"),
        pad_token="[PAD]",  # noqa: S106 - likewise
        unk_token="[UNK]",  # noqa: S106 - likewise
        cls_token="[CLS]",  # noqa: S106 - no password
        sep_token="[SEP]",  # noqa: S106 - likewise
        model_max_length=512,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )
    config = BertConfig.from_pretrained(source, vocab_size=len(tokenizer), num_labels=1)
    model = BertModel(config) if kind == "embed" else BertForSequenceClassification(config)
    model.eval().save_pretrained(target)
    tokenizer.save_pretrained(target)
    if kind == "embed":
        transformer = models.Transformer(str(target))
        pooling = models.Pooling(config.hidden_size, "mean")
        whole = SentenceTransformer(modules=[transformer, pooling], device="cpu")
        whole.save(str(target), create_model_card=False)


def measure(kind: str, folder: str, texts: str, batches: str, seconds: str, threads: str) -> None:
    """Print texts, or pairs, a second for each size of a batch."""
    torch.set_num_threads(int(threads))
    given = itertools.cycle(json.loads(Path(texts).read_text()))
    model = SentenceTransformer(folder, device="cpu") if kind == "embed" else None
    ranker = CrossEncoder(folder, device="cpu") if kind == "rank" else None

    def compute(batch: int) -> None:
        some = list(itertools.islice(given, batch))
        if model is not None:
            model.encode(some, batch_size=batch, show_progress_bar=False)
        if ranker is not None:
            ranker.predict(some, batch_size=batch, show_progress_bar=False)

    found = {}
    for batch in map(int, batches.split(",")):
        compute(batch)
        count, began = 0, time.perf_counter()
        while time.perf_counter() - began < float(seconds):
            compute(batch)
            count += batch
        found[batch] = count / (time.perf_counter() - began)
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    command, kind, *rest = sys.argv[1:]
    if command == "write":
        write(kind, *map(Path, rest))
    else:
        measure(kind, *rest)
