"""What logs must not say."""

import subprocess
import sys

import pytest

BREAK = """
def broken(key):
    raise KeyError("nothing here")
try:
    broken("s3cr" + "3t")
except KeyError:
    structlog.get_logger("x").exception("it broke")
"""
OPERATOR = """
import structlog
from ullage_operator.adapters.logs import configure_logs
configure_logs("info", "json")
"""
RUNTIME = """
import structlog
from ullage_runtime.logs import set_up_logging
from ullage_runtime.settings import Settings
set_up_logging(Settings(log_format="json"))
"""


@pytest.mark.parametrize("begin", [OPERATOR, RUNTIME], ids=["operator", "runtime"])
def test_a_traceback_shows_where_it_broke_and_no_values(begin: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", begin + BREAK], capture_output=True, text=True, check=True
    )
    assert "broken" in done.stderr
    assert "nothing here" in done.stderr
    assert "s3cr3t" not in done.stderr
