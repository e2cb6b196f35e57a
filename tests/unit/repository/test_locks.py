"""The lock of vLLM's build for CPUs has what the runtime needs, which nothing else would tell."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_vllms_own_lock_knows_every_dependency_of_the_runtime() -> None:
    wanted = tomllib.loads((ROOT / "runtime/pyproject.toml").read_text())["project"]
    names = {re.split(r"[^\w-]", each, maxsplit=1)[0] for each in wanted["dependencies"]}
    lock = tomllib.loads((ROOT / "runtime/vllm-cpu/uv.lock").read_text())
    (ours,) = [each for each in lock["package"] if each["name"] == "ullage-runtime"]
    missing = names - {each["name"] for each in ours["dependencies"]}
    assert not missing, "run `uv lock --project runtime/vllm-cpu`"
