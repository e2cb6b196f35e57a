"""The CRDs in the chart are the contract's, byte for byte, and survive Helm's templates."""

import importlib.util
import shutil
from pathlib import Path

import pytest
import yaml

from tests.support.chart import CHART, KUBE_VERSION, ROOT, helm, rendered

CRDS = sorted((ROOT / "crds").glob("*.yaml"))


def test_the_chart_holds_exactly_the_generated_crds() -> None:
    copies = {path.name: path.read_bytes() for path in (CHART / "files" / "crds").iterdir()}
    assert copies == {path.name: path.read_bytes() for path in CRDS}


def test_nothing_in_the_chart_is_out_of_date(capsys: pytest.CaptureFixture[str]) -> None:
    specification = importlib.util.spec_from_file_location(
        "chart_generate", ROOT / "charts" / "generate.py"
    )
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    assert module.main(["--check"]) == 0, capsys.readouterr().err


@pytest.mark.parametrize("path", CRDS, ids=lambda path: path.name)
def test_a_rendered_crd_is_the_generated_one_but_for_its_metadata(path: Path) -> None:
    wanted = yaml.safe_load(path.read_text())
    name = wanted["metadata"]["name"]
    found = next(each for each in rendered() if each["metadata"]["name"] == name)
    metadata = found.pop("metadata")
    assert found == {key: value for key, value in wanted.items() if key != "metadata"}
    assert metadata["annotations"] == {"helm.sh/resource-policy": "keep"}


def test_crds_can_be_left_to_somebody_else() -> None:
    kinds = {each["kind"] for each in rendered("--set", "crds.install=false")}
    assert "CustomResourceDefinition" not in kinds


def test_braces_in_a_description_are_text_and_not_a_template(tmp_path: Path) -> None:
    chart = shutil.copytree(CHART, tmp_path / "ullage")
    path = next((chart / "files" / "crds").iterdir())
    crd = yaml.safe_load(path.read_text())
    text = "Written {{ .Values.like }} {{- this }}: kept."
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["description"] = text
    path.write_text(yaml.safe_dump(crd))
    done = helm("template", "x", str(chart), f"--kube-version={KUBE_VERSION}")
    assert done.returncode == 0, done.stderr
    found = [each for each in yaml.safe_load_all(done.stdout) if each]
    crds = [each for each in found if each["kind"] == "CustomResourceDefinition"]
    schema = crds[0]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    assert schema["description"] == text
