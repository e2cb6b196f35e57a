"""schemathesis: whatever fits the OpenAPI documents, and much that does not, is sent to a pod.

It checks that nothing is answered 5xx, that answers are as documented, that what is valid is
accepted and what is not is refused, that keys are asked for, and that methods are told.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.conftest import MODELS, PROSE
from tests.support.pods import KEY, TOKEN, Pod, running_pod, wait_until_serving
from ullage_api.kinds.sampling import SamplingDefaults
from ullage_api.kinds.serving_limits import ServingLimits

ROOT = Path(__file__).parents[2]
SCHEMATHESIS = Path(sys.executable).with_name("schemathesis")
SECONDS = 280


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory, roots: list[Path]) -> Iterator[Pod]:
    # Nothing is asked of how long answers are; the requests that leave it open are many.
    short = ServingLimits(defaults=SamplingDefaults(max_tokens=4))
    models = [model.model_copy(update={"serving": short}) for model in MODELS]
    with running_pod(tmp_path_factory.mktemp("fuzzed"), roots, models, narrow=PROSE) as pod:
        wait_until_serving(pod)
        yield pod


@pytest.mark.parametrize("surface", ["public", "internal"])
def test_answers_are_as_documented_whatever_is_sent(
    fuzzed: Pod, tmp_path: Path, surface: str
) -> None:
    url, token = {"public": (fuzzed.url, KEY), "internal": (fuzzed.internal_url, TOKEN)}[surface]
    done = subprocess.run(
        [
            SCHEMATHESIS,
            *("--no-color", "run", f"{url}/openapi.json"),
            *("--header", f"Authorization: Bearer {token}"),
            *("--checks", "all"),
            *("--max-examples", "25"),
            *("--request-timeout", "60"),
            *("--generation-deterministic", "--continue-on-failure"),
        ],
        cwd=tmp_path,
        env={
            **os.environ,
            "SCHEMATHESIS_HOOKS": "tests.conformance.schemathesis_hooks",
            "PYTHONPATH": str(ROOT),
            "NO_PROXY": "127.0.0.1",
        },
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    said = "\n".join(line[:2000] for line in done.stdout.splitlines())
    assert done.returncode == 0, said + done.stderr
    selected, _, total = said.partition("Selected: ")[2].split()[0].partition("/")
    assert selected == total
    assert f"Tested: {total}" in said
