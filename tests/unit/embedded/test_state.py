"""Secrets, ports and the lock of the stack's folder."""

from __future__ import annotations

import socket
import stat
from pathlib import Path

import pytest

from embedded.processes import PortTaken
from embedded.state import PORTS, AlreadyRunning, Running, StateFolder, make_secret


@pytest.fixture
def state(tmp_path: Path) -> StateFolder:
    folder = StateFolder(tmp_path / "state")
    folder.create()
    return folder


def test_a_secret_is_made_once_and_only_its_owner_can_read_it(state: StateFolder) -> None:
    assert state.secret("hsm_pin") == state.secret("hsm_pin")
    file = state.path / "secrets" / "hsm_pin"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_each_byte_of_the_issuers_master_key_has_odd_parity() -> None:
    key = bytes.fromhex(make_secret("imk_ac"))
    assert len(key) == 16
    assert all(byte.bit_count() % 2 for byte in key)


def test_ports_stay_the_same_from_start_to_start(state: StateFolder) -> None:
    ports = state.ports({})
    assert set(ports) == set(PORTS)
    assert len(set(ports.values())) == len(ports)
    assert state.ports({}) == ports == state.kept_ports()


def test_a_port_that_somebody_else_took_is_named(state: StateFolder) -> None:
    state.ports({})
    with socket.socket() as other:
        other.bind(("127.0.0.1", state.kept_ports()["database"]))
        other.listen()
        with pytest.raises(PortTaken, match=f"{state.kept_ports()['database']}, wanted for database"):
            state.ports({})


def test_the_stack_runs_once_at_most(state: StateFolder) -> None:
    with state.held(), pytest.raises(AlreadyRunning), state.held():
        pass


def test_nothing_runs_once_the_lock_is_gone(state: StateFolder) -> None:
    with state.held():
        state.publish(Running(pid=4242, processes={"API": 4243}))
        assert state.running() == Running(pid=4242, processes={"API": 4243})
    assert state.running() is None


def test_a_running_stack_is_not_deleted(state: StateFolder) -> None:
    with state.held(), pytest.raises(AlreadyRunning):
        state.delete()
    state.delete()
    assert not state.path.exists()
