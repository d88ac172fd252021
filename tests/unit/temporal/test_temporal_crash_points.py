"""Where crash points lie, and that nothing lies there otherwise."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest
from temporalio import client, worker
from temporalio.testing import ActivityEnvironment

from config.crash_points import CRASH_AT, CRASH_KIT, KIT_FILE, CrashPoints
from temporal.crash_points import AtEveryEdge, crash_point_interceptors


@dataclass
class _Seen:
    """Stands for crash points, and notes what comes to them."""

    places: list[tuple[str, str]] = field(default_factory=list)

    def reached(self, place: str, workflow_id: str = "") -> None:
        self.places.append((place, workflow_id))


@pytest.fixture
def armed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # This process stands in for one that the kit started.
    (tmp_path / KIT_FILE).write_text(str(os.getppid()))
    monkeypatch.setenv(CRASH_AT, "network.authorize.after")
    monkeypatch.setenv(CRASH_KIT, str(tmp_path))


def test_without_armed_crash_points_nothing_intercepts_anything() -> None:
    assert list(crash_point_interceptors()) == []


@pytest.mark.usefixtures("armed")
def test_armed_crash_points_intercept_a_client_and_its_workers() -> None:
    [interceptor] = crash_point_interceptors()
    assert isinstance(interceptor, worker.Interceptor)


async def test_an_activity_has_one_before_and_one_after_it() -> None:
    seen = _Seen()

    class Last(worker.ActivityInboundInterceptor):
        def __init__(self) -> None:
            pass

        async def execute_activity(self, input: worker.ExecuteActivityInput) -> Any:
            seen.places.append(("", ""))
            return 7

    intercepted = AtEveryEdge(cast(CrashPoints, seen)).intercept_activity(Last())
    run = ActivityEnvironment().run
    assert await run(intercepted.execute_activity, cast(worker.ExecuteActivityInput, None)) == 7
    info = ActivityEnvironment().info
    around = [(f"{info.activity_type}.{edge}", info.workflow_id) for edge in ("before", "after")]
    assert seen.places == [around[0], ("", ""), around[1]]


async def test_a_call_that_changes_a_workflow_has_one_before_and_one_after_it() -> None:
    seen = _Seen()

    class Last(client.OutboundInterceptor):
        def __init__(self) -> None:
            pass

        async def start_workflow(self, input: Any) -> Any:
            return None

        start_workflow_update = start_update_with_start_workflow = start_workflow

    @dataclass
    class Asked:
        """The part of each input that a crash point is named by."""

        workflow: str = "payment"
        update: str = "capture"
        id: str = "payment/pay_a"

        @property
        def start_workflow_input(self) -> Asked:
            return self

        @property
        def update_workflow_input(self) -> Asked:
            return self

    intercepted = AtEveryEdge(cast(CrashPoints, seen)).intercept_client(Last())
    asked: Any = Asked()
    await intercepted.start_workflow(asked)
    await intercepted.start_workflow_update(asked)
    await intercepted.start_update_with_start_workflow(asked)
    calls = ("payment", "capture", "capture")
    assert seen.places == [(f"client.{call}.{edge}", asked.id) for call in calls for edge in ("before", "after")]
