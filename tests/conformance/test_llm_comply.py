"""llm-comply's checks of single requests, against the schemas that OpenAI publishes."""

from collections.abc import Iterator
from pathlib import Path

import llm_comply
import pytest
from llm_comply import http, runner, tests
from llm_comply.config import ComplianceConfig
from llm_comply.result import TestStatus as Status
from llm_comply.schema import SpecLoader
from llm_comply.test_case import TestCase as Case
from llm_comply.test_case import TestCategory as Category

from tests.conformance.applicability import How, Suite, exemptions
from tests.conformance.conftest import CHAT, OBLIGING
from tests.support.pods import KEY, Pod

SPECS = Path(llm_comply.__file__).parent / "specs"
FORMATS = {
    Suite.COMPLY_RESPONSES: ("open-responses", "openresponses.json"),
    Suite.COMPLY_CHAT: ("openai-chat", "openai_chat.json"),
}

# It resolves references in a way that jsonschema has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:jsonschema.RefResolver is deprecated")


def cases(how: How | None) -> Iterator[object]:
    """Yield the cases to which the exemptions do this; None: nothing."""
    for suite, (name, spec) in FORMATS.items():
        exempt = exemptions(suite)
        for case in tests.get_tests(name):
            exemption = exempt.get(case.id)
            if (exemption.how if exemption else None) is how:
                yield pytest.param(spec, case, id=case.id)


@pytest.fixture(autouse=True, scope="module")
def _connections() -> Iterator[None]:
    yield
    http.close_client()


def result_of(pod: Pod, spec: str, case: Case) -> runner.TestResult:
    model = OBLIGING if case.category is Category.TOOLS else CHAT
    config = ComplianceConfig(base_url=pod.api, api_key=KEY, model=model, verbose=True)
    return runner.TestRunner(config, [case], SpecLoader(str(SPECS / spec))).run_one(case)


@pytest.mark.parametrize(("spec", "case"), [*cases(None)])
def test_the_check_passes(pod: Pod, spec: str, case: Case) -> None:
    result = result_of(pod, spec, case)
    assert result.status is Status.PASSED, (result.errors, result.response)
    assert not result.warnings


@pytest.mark.parametrize(("spec", "case"), [*cases(How.FAILS)])
def test_what_we_do_not_serve_is_refused_clearly(pod: Pod, spec: str, case: Case) -> None:
    result = result_of(pod, spec, case)
    assert result.status is Status.FAILED
    assert result.errors[0].startswith(("HTTP 400", "HTTP 405")), result.errors
    assert result.response["error"]["message"]


def test_every_exemption_names_a_check() -> None:
    for suite, (name, _) in FORMATS.items():
        assert set(exemptions(suite)) <= {case.id for case in tests.get_tests(name)}
