"""Cohere's client and LiteLLM, unmodified, of the pod that serves chats, vectors and rankings."""

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import cohere
import httpx
import pytest

from tests.conformance.conftest import CHAT, RANKING, VECTORS
from tests.support.pods import KEY, Pod

DOCUMENTS = ["the red fox jumped", "blue water", "how the tank model un memory"]
HELLO = [{"role": "user", "content": "Hello"}]


@pytest.fixture(scope="module")
def litellm() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        # It would ask the network for prices when it is imported.
        patch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
        import litellm

        yield litellm


@pytest.fixture
def client(pod: Pod) -> Iterator[cohere.ClientV2]:
    with httpx.Client(trust_env=False, timeout=60) as http:
        yield cohere.ClientV2(KEY, base_url=pod.url, max_retries=0, httpx_client=http)


def scores(pod: Pod, query: str) -> list[tuple[int, float]]:
    """Return what the pod says of the documents, the best first."""
    answer = httpx.post(
        f"{pod.api}/rerank",
        json={"model": RANKING, "query": query, "documents": DOCUMENTS},
        headers={"Authorization": f"Bearer {KEY}"},
        timeout=60,
    )
    assert answer.status_code == 200, answer.text
    return [(each["index"], each["relevance_score"]) for each in answer.json()["results"]]


def check_equal(found: list[tuple[int, float]], wanted: list[tuple[int, float]]) -> None:
    assert [index for index, _ in found] == [index for index, _ in wanted]
    assert [score for _, score in found] == pytest.approx([score for _, score in wanted])


def test_coheres_client_gets_a_ranking(pod: Pod, client: cohere.ClientV2) -> None:
    answer = client.rerank(model=RANKING, query="water", documents=DOCUMENTS, top_n=2)
    found = [(each.index, each.relevance_score) for each in answer.results]
    check_equal(found, scores(pod, "water")[:2])


def test_coheres_client_knows_a_refusal_by_its_status(client: cohere.ClientV2) -> None:
    with pytest.raises(cohere.errors.NotFoundError, match="no-such-model"):
        client.rerank(model="no-such-model", query="water", documents=DOCUMENTS)


def test_litellm_chats_streams_and_counts(pod: Pod, litellm: Any) -> None:
    given = {"model": f"openai/{CHAT}", "api_base": pod.api, "api_key": KEY, "temperature": 0}
    whole = litellm.completion(messages=HELLO, **given)
    assert "Ullage" in whole.choices[0].message.content
    assert whole.usage.completion_tokens > 0
    parts = litellm.completion(messages=HELLO, stream=True, **given)
    text = "".join(part.choices[0].delta.content or "" for part in parts)
    assert text == whole.choices[0].message.content


def test_litellm_embeds_the_same_vectors_as_the_pod(pod: Pod, litellm: Any) -> None:
    given = {"model": f"openai/{VECTORS}", "api_base": pod.api, "api_key": KEY}
    one, other = litellm.embedding(input=DOCUMENTS[:2], encoding_format="float", **given).data
    (again,) = litellm.embedding(input=DOCUMENTS[1:2], encoding_format="float", **given).data
    assert len(one["embedding"]) == len(other["embedding"])
    assert again["embedding"] == pytest.approx(other["embedding"], abs=1e-4)


def test_litellm_ranks_as_the_pod_does(pod: Pod, litellm: Any) -> None:
    answer = litellm.rerank(
        model=f"cohere/{RANKING}",
        query="fox",
        documents=DOCUMENTS,
        api_base=pod.url,
        api_key=KEY,
    )
    found = [(each["index"], each["relevance_score"]) for each in answer.results]
    check_equal(found, scores(pod, "fox"))


def test_litellm_tells_an_unknown_model_and_a_wrong_key(pod: Pod, litellm: Any) -> None:
    with pytest.raises(litellm.NotFoundError, match="no-such-model"):
        litellm.completion(
            model="openai/no-such-model", messages=HELLO, api_base=pod.api, api_key=KEY
        )
    with pytest.raises(litellm.AuthenticationError):
        litellm.completion(
            model=f"openai/{CHAT}", messages=HELLO, api_base=pod.api, api_key="wrong"
        )
