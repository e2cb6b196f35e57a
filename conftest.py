"""What every test run shares: fixtures, the count of tests per group, and no skips on CI."""

import os
from collections import Counter

import pytest

pytest_plugins = ["e2e.cluster.fixtures"]

GROUPS = ("unit", "component", "contract", "conformance", "golden", "integration", "e2e")
OUTCOMES = ("passed", "failed", "error", "skipped", "xfailed")
CI = os.environ.get("CI") == "true"


def group_of(nodeid: str) -> str:
    """Return the group a test belongs to: its folder beneath `tests`, or `e2e`."""
    first, _, rest = nodeid.partition("/")
    return rest.partition("/")[0] if first == "tests" else first


def group_counts(reporter: pytest.TerminalReporter) -> dict[str, Counter[str]]:
    """Return how many tests of each group ended how."""
    counts: dict[str, Counter[str]] = {}
    for outcome in OUTCOMES:
        for report in reporter.getreports(outcome):
            counts.setdefault(group_of(report.nodeid), Counter())[outcome] += 1
    return counts


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a run on CI that left something out: there, every test must have run."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = reporter is not None and reporter.getreports("skipped")
    if CI and skipped and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how many tests ran in each group."""
    counts = group_counts(terminalreporter)
    if not counts:
        return
    terminalreporter.section("tests by group")
    known = [group for group in GROUPS if group in counts]
    for group in (*known, *sorted(set(counts) - set(GROUPS))):
        parts = [f"{counts[group][each]} {each}" for each in OUTCOMES if counts[group][each]]
        terminalreporter.write_line(f"{group:<12} {', '.join(parts)}")
    if CI and any(count["skipped"] for count in counts.values()):
        terminalreporter.write_line("CI=true: a skipped test fails the run", red=True)
