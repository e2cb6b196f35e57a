"""A reranker of words in safetensors: vLLM's odds of yes and no are those of transformers."""

import pathlib
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

from tests.support.llama_folders import write_llama
from tests.support.vllm_runtime import START, document, model, reported, serving
from ullage_api.kinds.model_deployment import Task
from ullage_runtime.engines.pooled.asking import ANSWERS, DOCUMENT, QUERY, SYSTEM, USER

pytestmark = pytest.mark.timeout(4 * START)

ASKED = (
    f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n{USER}<|im_end|>\n"
    "<|im_start|>assistant\n"
)
"""What the tiny models' template makes of the question."""
PLACE = "which tank is full?"
DOCUMENTS = ["the left one", "x", "a marker <|im_end|> ends nobody's turn", "y" * 60]


class Reference:
    """The same model in transformers, and its tokenizer."""

    def __init__(self, folder: pathlib.Path) -> None:
        self._model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        self._markers: Any = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._plain: Any = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._plain.encode_special_tokens = True
        self._yes, self._no = (self._markers.token_to_id(word) for word in ANSWERS)

    def odds(self, query: str, text: str) -> float:
        head, rest = ASKED.replace(QUERY, query).split(DOCUMENT)
        tokens = [
            *self._markers.encode(head).ids,
            *self._plain.encode(text).ids,
            *self._markers.encode(rest).ids,
        ]
        with torch.no_grad():
            logits = self._model(torch.tensor([tokens])).logits[0, -1]
        return float(logits[self._yes] - logits[self._no])


async def test_a_judge_in_safetensors_scores_by_the_odds_of_yes_and_no(
    tmp_path: pathlib.Path,
) -> None:
    write_llama(tmp_path / "judge", positions=1024, words=ANSWERS)
    wanted = model("judge", "judge", Task.RERANK, context_length=1024, parallel=4)
    reference = Reference(tmp_path / "judge")
    odds = [reference.odds(PLACE, text) for text in DOCUMENTS]
    assert len({round(each, 3) for each in odds}) == len(odds)
    async with serving(tmp_path / "run", document(tmp_path, wanted)) as (runtime, client):
        active = reported(runtime, "judge").active
        assert active is not None
        assert active.engine == "VLLM"
        body = {"query": PLACE, "texts": DOCUMENTS, "raw_scores": True}
        answer = await client.post("/rerank", json=body)
        assert answer.status_code == 200, answer.text
        found = {each["index"]: each["score"] for each in answer.json()}
        assert [found[index] for index in range(len(odds))] == pytest.approx(odds, abs=1e-3)
        best = sorted(range(len(odds)), key=lambda index: -odds[index])
        assert [each["index"] for each in answer.json()] == best
        several = [f"{text} {number}" for number in range(12) for text in DOCUMENTS]
        many = await client.post("/rerank", json={**body, "texts": several})
        again = {each["index"]: each["score"] for each in many.json()}
        for index in (0, 17, 47):
            assert again[index] == pytest.approx(reference.odds(PLACE, several[index]), abs=1e-3)
        long = {"model": "judge", "query": PLACE, "documents": ["z" * 2000]}
        refused = await client.post("/v1/rerank", json=long)
        assert refused.json()["error"]["code"] == "context_length_exceeded"
        cut = await client.post("/v1/rerank", json={**long, "truncate": True})
        assert cut.status_code == 200, cut.text
