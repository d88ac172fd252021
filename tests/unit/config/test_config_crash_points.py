"""Crash points strike once, where they are armed, and in no process that the fault tests did not start."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from config.crash_points import (
    CRASH_AT,
    CRASH_KIT,
    KIT_FILE,
    CrashPoints,
    CrashPointsRefused,
    armed_crash_points,
    marker,
)

ROOT = Path(__file__).parent.parent.parent.parent
_PROGRAM = """
from config.crash_points import armed_crash_points
points = armed_crash_points()
points.reached("books.open.after", "payment/pay_other")
print("passed", flush=True)
points.reached("books.open.before", "payment/pay_a")
points.reached("books.open.after", "payment/pay_a")
print("survived", flush=True)
"""


def _run(folder: Path, places: str) -> subprocess.CompletedProcess[str]:
    environment = {CRASH_AT: places, CRASH_KIT: str(folder)}
    return subprocess.run(
        [sys.executable, "-c", _PROGRAM], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture
def kit(tmp_path: Path) -> Path:
    (tmp_path / KIT_FILE).write_text(str(os.getpid()))
    return tmp_path


def test_a_process_kills_itself_at_the_named_place_of_the_named_workflow_and_only_once(kit: Path) -> None:
    armed = "ledger.record.after, books.open.after@payment/pay_a"
    first = _run(kit, armed)
    assert (first.returncode, first.stdout) == (-signal.SIGKILL, "passed\n")
    assert marker(kit, "books.open.after").exists()
    again = _run(kit, armed)
    assert (again.returncode, again.stdout) == (0, "passed\nsurvived\n")


def test_without_the_variable_there_are_no_crash_points() -> None:
    assert armed_crash_points({}) is None
    assert armed_crash_points({CRASH_KIT: "/tmp"}) is None


def test_a_process_that_another_program_started_refuses_them(kit: Path) -> None:
    (kit / KIT_FILE).write_text(str(os.getpid() + 1))
    refused = _run(kit, "books.open.after")
    assert refused.returncode == 1
    assert "CrashPointsRefused" in refused.stderr
    assert refused.stdout == ""


@pytest.mark.parametrize("folder", ["", "/", "missing"])
def test_a_process_without_the_kits_folder_refuses_them(folder: str, tmp_path: Path) -> None:
    environment = {CRASH_AT: "books.open.after", CRASH_KIT: str(tmp_path / folder) if folder else ""}
    with pytest.raises(CrashPointsRefused):
        armed_crash_points(environment)
    with pytest.raises(CrashPointsRefused):
        armed_crash_points({CRASH_AT: "books.open.after"})


def test_an_unarmed_place_is_passed(tmp_path: Path) -> None:
    CrashPoints(tmp_path, {"books.open.after": "payment/pay_a"}).reached("books.open.after", "payment/pay_b")
    CrashPoints(tmp_path, {"books.open.after": None}).reached("books.record.after", "payment/pay_b")
    assert list(tmp_path.iterdir()) == []
