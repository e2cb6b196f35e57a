"""Keep what each test of a long run came to: `pytest -p tests.support.kept_results`."""

from typing import Final

import pytest

from bench import machine
from bench.results import Kept


class Keeper:
    """Writes a results file as benchmarks do, with what tests record of themselves."""

    def __init__(self) -> None:
        self._kept: Final = Kept("soak-tests", machine.described())
        self._tests: list[dict[str, object]] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a test once it has run, or could not."""
        if report.when == "call" or not report.passed:
            test = {"test": report.nodeid, "outcome": report.outcome}
            seconds = round(report.duration, 2)
            self._tests.append({**test, "seconds": seconds, **dict(report.user_properties)})
            self._kept.write({"tests": self._tests})


def pytest_configure(config: pytest.Config) -> None:
    """Keep results, but not in the processes of a run that has several."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Keeper())
