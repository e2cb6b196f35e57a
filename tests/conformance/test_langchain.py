"""LangChain's standard integration tests, with its client of OpenAI's API."""

from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from langchain_core.language_models import BaseChatModel
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from langchain_tests.integration_tests import (
    ChatModelIntegrationTests,
    EmbeddingsIntegrationTests,
)

from tests.conformance.applicability import Suite, exemptions
from tests.conformance.conftest import ALIAS, CHAT, OBLIGING, VECTORS
from tests.support.pods import KEY, Pod

CONSTRAINED = ("tool", "structured", "json_mode", "agent")
"""What is in the names of tests that ask for an answer of a certain form."""


# The client's own: it serialises what it parsed beside a type that it left open, and it takes
# another way for classes of pydantic 1, which one test brings.
@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
@pytest.mark.filterwarnings("ignore:Received a Pydantic BaseModel V1 schema")
class TestChat(ChatModelIntegrationTests):
    """`ChatOpenAI` talks to the pod."""

    suite = Suite.CHAT

    @pytest.fixture(autouse=True)
    async def _clients(self, pod: Pod, request: pytest.FixtureRequest) -> AsyncIterator[None]:
        is_constrained = any(word in request.node.name for word in CONSTRAINED)
        self.name = OBLIGING if is_constrained else CHAT
        # LangChain would keep one client for all event loops, and each test has its own.
        async with openai.DefaultAsyncHttpxClient(trust_env=False) as in_loop:
            with openai.DefaultHttpxClient(trust_env=False) as blocking:
                self.reached = {
                    "base_url": pod.api,
                    "api_key": KEY,
                    "http_client": blocking,
                    "http_async_client": in_loop,
                }
                yield

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatOpenAI

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {
            "model": self.name,
            **self.reached,
            "temperature": 0,
            # Left to itself, the client asks for the usage of streams at OpenAI only.
            "stream_usage": True,
        }

    @property
    def supports_model_override(self) -> bool:
        return True

    @property
    def model_override_value(self) -> str:
        return ALIAS

    @property
    def supports_json_mode(self) -> bool:
        return True


def test_every_exemption_names_a_test() -> None:
    assert all(hasattr(TestChat, test) for test in exemptions(Suite.CHAT))


class TestEmbeddings(EmbeddingsIntegrationTests):
    """`OpenAIEmbeddings` talks to the pod."""

    @pytest.fixture(autouse=True)
    async def _clients(self, pod: Pod) -> AsyncIterator[None]:
        async with openai.DefaultAsyncHttpxClient(trust_env=False) as in_loop:
            with openai.DefaultHttpxClient(trust_env=False) as blocking:
                self.reached = {
                    "base_url": pod.api,
                    "api_key": KEY,
                    "http_client": blocking,
                    "http_async_client": in_loop,
                }
                yield

    @property
    def embeddings_class(self) -> type[OpenAIEmbeddings]:
        return OpenAIEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        # Otherwise the client sends tokens of a vocabulary that is not the model's.
        return {"model": VECTORS, "check_embedding_ctx_length": False, **self.reached}
