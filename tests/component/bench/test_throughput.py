"""The benchmark runs end to end: our own server, a generated file, results and a picture."""

import json
import pathlib
import subprocess
import sys

from gguf import GGMLQuantizationType, GGUFReader

from tests.support.gguf_models import Shape, write_model
from tests.support.processes import environment

ROOT = pathlib.Path(__file__).parents[3]


def test_a_small_benchmark_measures_our_server_and_keeps_what_it_found(
    tmp_path: pathlib.Path,
) -> None:
    options = ("--model", "tiny", "--servers", "ullage", "--widths", "1,2", "--repetitions", "1")
    sizes = ("--requests-each", "1", "--prompt-tokens", "16", "--output-tokens", "8")
    done = subprocess.run(
        [sys.executable, "-m", "bench", "throughput", *options, *sizes, "--out", str(tmp_path)],
        cwd=ROOT,
        env={**environment(tmp_path), "ULLAGE_CACHE_DIR": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (file,) = tmp_path.glob("throughput-tiny-*.json")
    kept = json.loads(file.read_text())
    assert [run["concurrency"] for run in kept["runs"]] == [1, 2]
    for run in kept["runs"]:
        assert run["completed"] == run["requests"] == run["concurrency"]
        # Nothing ends early and each token is text of its own, so every server's counts are equal.
        assert run["outputTokens"] == 8 * run["requests"]
        assert run["cpuSeconds"] > 0
    assert kept["machine"]["cores"] >= 1
    assert file.with_suffix(".svg").read_text().startswith("<svg")


def test_a_generated_file_is_quantized_where_it_says_so(tmp_path: pathlib.Path) -> None:
    shape = Shape(quantized=True, printable=True)
    tensors = {t.name: t for t in GGUFReader(write_model(tmp_path / "q.gguf", shape)).tensors}
    assert tensors["output.weight"].tensor_type is GGMLQuantizationType.Q8_0
    assert tensors["output_norm.weight"].tensor_type is GGMLQuantizationType.F32
