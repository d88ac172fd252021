"""`durapay demo` from nothing: it plays its story on the whole platform and leaves neither process nor card number."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass

import pytest
import pytest_asyncio

from embedded.servers import binary
from embedded.state import ROOT, StateFolder

# Seconds on an idle machine; two busy cores need longer.
_DEMO_SECONDS = 400
pytestmark = pytest.mark.timeout(_DEMO_SECONDS + 20)

_CARD_NUMBERS = (b"4242424242424242", b"5555555555554444", b"4000000000009995", b"4000990000010003")


@dataclass(frozen=True, slots=True)
class Demo:
    state: StateFolder
    code: int | None
    output: str


@pytest_asyncio.fixture(scope="module")
async def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    state = StateFolder(tmp_path_factory.mktemp("demo") / "state")
    code, output = await _durapay(state, "demo")
    return Demo(state, code, output)


async def test_the_demonstration_plays_to_its_end(demo: Demo) -> None:
    assert demo.code == 0, demo.output
    for outcome in ("authorized", "captured", "succeeded", "declined", "blocked", "voided"):
        assert outcome in demo.output


async def test_nothing_runs_after_the_demonstration(demo: Demo) -> None:
    code, output = await _durapay(demo.state, "status")
    assert code == 1
    assert "not running" in output


def test_no_card_number_is_left_in_a_database_history_cache_journal_or_log(demo: Demo) -> None:
    files = [path for path in demo.state.path.rglob("*") if path.is_file()]
    assert any(path.name == "temporal.db" for path in files)
    assert any(path.name == "PG_VERSION" for path in files)
    assert not [path for path in files if any(number in path.read_bytes() for number in _CARD_NUMBERS)]


async def _durapay(state: StateFolder, *arguments: str) -> tuple[int | None, str]:
    process = await asyncio.create_subprocess_exec(
        binary("durapay"),
        *arguments,
        cwd=ROOT,
        env=os.environ | {"DURAPAY_STATE": str(state.path)},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(process.communicate(), _DEMO_SECONDS)
    return process.returncode, output.decode()
