"""The folder `operator/` must never shadow the standard library's module of that name."""

import operator
import pathlib
import sysconfig

ROOT = pathlib.Path(__file__).parents[3]


def test_the_operator_module_is_the_standard_librarys() -> None:
    stdlib = pathlib.Path(sysconfig.get_path("stdlib"))
    assert pathlib.Path(operator.__file__ or "").parent == stdlib


def test_the_operator_folder_holds_no_module_of_its_own() -> None:
    assert list((ROOT / "operator").glob("*.py")) == []
