"""A pod's process with real models, as its container would run it: keys, token, both ports."""

import contextlib
import pathlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import httpx

from tests.support.processes import (
    POD,
    environment,
    free_port,
    running_process,
    wait_until_answers,
)
from ullage_api.conditions import Reason
from ullage_api.profile import RuntimeSettings
from ullage_api.wire.pod_report import PodReport
from ullage_api.wire.pool_desired import DesiredModel, PoolDesired
from ullage_runtime.http.auth import entry_line

KEY = "ullage-conformance-key"
NARROW_KEY = "ullage-key-for-one-model"
TOKEN = "the-token-of-the-pool"


@dataclass(frozen=True, slots=True)
class Pod:
    """Where a running pod is reached."""

    url: str
    internal_url: str
    document: PoolDesired
    """What it was asked to serve."""

    @property
    def api(self) -> str:
        """The address that OpenAI's clients are given."""
        return f"{self.url}/v1"


@contextlib.contextmanager
def running_pod(
    folder: pathlib.Path,
    roots: Sequence[pathlib.Path],
    models: Sequence[DesiredModel],
    *,
    narrow: str,
) -> Iterator[Pod]:
    """Run a pod that serves models whose files lie in these folders.

    One key is for all of them, another one for the model that `narrow` names.
    """
    document = PoolDesired(
        namespace="default",
        pool="default",
        settings=RuntimeSettings(file_roots=tuple(str(root) for root in roots)),
        models=tuple(models),
    ).sealed(1)
    keys = folder / "keys"
    keys.mkdir()
    (keys / "tests").write_text(entry_line(KEY))
    (keys / "narrow").write_text(entry_line(NARROW_KEY, (narrow,)))
    (folder / "token").write_text(TOKEN)
    (folder / "desired.json").write_text(document.model_dump_json(by_alias=True))
    port, internal_port = free_port(), free_port()
    env = environment(
        folder,
        host="127.0.0.1",
        port=port,
        internal_host="127.0.0.1",
        internal_port=internal_port,
        internal_token_file=folder / "token",
        desired_file=folder / "desired.json",
        api_keys_dir=keys,
        pod_name="ullage-default-0",
        drain_seconds=1,
        log_format="json",
    )
    with running_process(POD, env, cwd=folder) as process:
        pod = Pod(f"http://127.0.0.1:{port}", f"http://127.0.0.1:{internal_port}", document)
        wait_until_answers(f"{pod.url}/readyz", process)
        yield pod


def report(pod: Pod, after: int = -1, seconds: float = 0) -> PodReport:
    """Return the pod's report, as the operator gets it."""
    answer = httpx.get(
        f"{pod.internal_url}/internal/v1/report",
        params={"after": after, "timeoutSeconds": seconds},
        headers={"Authorization": f"Bearer {TOKEN}"},
        timeout=seconds + 10,
        trust_env=False,
    )
    return PodReport.model_validate(answer.raise_for_status().json())


def wait_until_serving(pod: Pod, seconds: float = 120) -> None:
    """Wait until the pod reports that every one of its models serves."""
    deadline = time.monotonic() + seconds
    after = -1
    while (left := deadline - time.monotonic()) > 0:
        data = report(pod, after, min(left, 30))
        if len(data.models) == len(pod.document.models) and all(
            m.reason is Reason.SERVING for m in data.models
        ):
            return
        after = data.sequence
    raise AssertionError(f"not every model serves: {data}")
