from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from e2e.cluster.errors import CommandError, DeadlineError
from e2e.cluster.processes import ProcessRecord, run, start, start_time, stop, tail, wait_until


def start_sleep(folder: Path, name: str = "sleep") -> ProcessRecord:
    return start(name, ["sleep", "60"], log=folder / f"{name}.log", records=folder / "processes")


def test_a_started_process_can_be_found_again_and_ended(tmp_path: Path) -> None:
    record = start_sleep(tmp_path)
    assert ProcessRecord.load_all(tmp_path / "processes") == [record]
    assert record.alive
    stop([record])
    assert not record.alive


def test_a_process_that_only_inherited_the_pid_is_never_ended(tmp_path: Path) -> None:
    record = start_sleep(tmp_path)
    try:
        stop([replace(record, started="long ago")])
        assert record.alive
    finally:
        stop([record])


def test_a_record_without_a_start_time_names_nobody(tmp_path: Path) -> None:
    record = start_sleep(tmp_path)
    try:
        assert not replace(record, started="").alive
    finally:
        stop([record])


def test_a_process_that_ignores_the_polite_signal_is_ended_by_force(tmp_path: Path) -> None:
    script = "trap '' TERM; echo deaf; while :; do sleep 0.05; done"
    log = tmp_path / "log"
    record = start("deaf", ["sh", "-c", script], log=log, records=tmp_path)
    wait_until("it is deaf", lambda: "deaf" in tail(log), timeout=10)
    stop([record], grace=0.2)
    assert not record.alive


def test_a_process_runs_in_a_session_of_its_own(tmp_path: Path) -> None:
    record = start_sleep(tmp_path)
    try:
        assert os.getsid(record.pid) == record.pid
    finally:
        stop([record])


def test_a_dead_process_has_no_start_time(tmp_path: Path) -> None:
    record = start("true", ["true"], log=tmp_path / "log", records=tmp_path)
    wait_until("it has ended", lambda: not record.alive, timeout=10)
    assert start_time(record.pid) == ""


def test_a_wait_that_runs_out_shows_the_end_of_the_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    script = "echo the reason; sleep 60"
    record = start("slow", ["sh", "-c", script], log=log, records=tmp_path)
    try:
        wait_until("it has spoken", lambda: tail(log) != "", timeout=10)
        with pytest.raises(DeadlineError, match="the reason"):
            wait_until("it is done", lambda: False, timeout=0.1, processes=[record])
    finally:
        stop([record])


def test_a_wait_ends_at_once_when_its_process_has_ended(tmp_path: Path) -> None:
    script = "echo no such flag; exit 1"
    record = start("broken", ["sh", "-c", script], log=tmp_path / "log", records=tmp_path)
    with pytest.raises(DeadlineError, match=r"broken ended before it is ready(.|\n)*no such flag"):
        wait_until("it is ready", lambda: False, timeout=60, processes=[record])


def test_a_failing_command_says_what_it_said() -> None:
    with pytest.raises(CommandError, match="ended with 3: oh no"):
        run(["sh", "-c", "echo oh no >&2; exit 3"])


def test_a_command_that_hangs_is_ended() -> None:
    with pytest.raises(DeadlineError, match="did not end within"):
        run(["sleep", "60"], timeout=0.1)


def test_the_tail_of_a_missing_log_is_empty(tmp_path: Path) -> None:
    assert tail(tmp_path / "none") == ""


def test_the_tail_is_the_last_lines(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("\n".join(str(number) for number in range(100)))
    assert tail(log, 2) == "98\n99"
