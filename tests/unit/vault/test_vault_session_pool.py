"""The session pool's order and renewal. The sessions are plain objects: the pool never looks into them."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from vault.hsm.pool import SessionPool
from vault.hsm.provider import HsmUnavailable


class Sessions:
    """Opens numbered sessions and remembers which were closed."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.opened: list[Any] = []
        self.closed: list[Any] = []
        self.down = False

    def open(self) -> list[Any]:
        if self.down:
            raise HsmUnavailable("down")
        fresh = [object() for _ in range(self.size)]
        self.opened += fresh
        return fresh


def _pool(sessions: Sessions, wait_seconds: float = 10.0) -> SessionPool:
    return SessionPool(sessions.open, sessions.closed.append, wait_seconds)


def test_sessions_are_handed_out_in_the_order_of_asking() -> None:
    pool = _pool(Sessions(1))
    order: list[int] = []
    threads = []

    def ask(number: int) -> None:
        with pool.session():
            order.append(number)

    with pool.session():
        for number in range(5):
            thread = threading.Thread(target=ask, args=(number,))
            thread.start()
            threads.append(thread)
            while len(pool._queue) <= number:
                threading.Event().wait(0.001)
    for thread in threads:
        thread.join(10)
    assert order == [0, 1, 2, 3, 4]


def test_a_caller_that_gets_no_session_in_time_is_told_so_and_leaves_the_queue() -> None:
    pool = _pool(Sessions(1), wait_seconds=0.01)
    with pool.session(), pytest.raises(HsmUnavailable), pool.session():
        pass
    with pool.session():
        pass


def test_sessions_are_renewed_once_per_loss_however_many_noticed_it() -> None:
    sessions = Sessions(2)
    pool = _pool(sessions)
    threads = [threading.Thread(target=pool.renew, args=(0,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(sessions.opened) == 4
    assert sessions.closed == sessions.opened[:2]


def test_no_session_is_closed_under_a_thread_that_uses_it() -> None:
    sessions = Sessions(2)
    pool = _pool(sessions)
    renewal = threading.Thread(target=pool.renew, args=(0,))
    with pool.session():
        renewal.start()
        renewal.join(0.05)
        assert renewal.is_alive()
        assert not sessions.closed
    renewal.join(10)
    assert len(sessions.closed) == 2


def test_a_failed_renewal_leaves_the_pool_to_the_next_attempt() -> None:
    sessions = Sessions(2)
    pool = _pool(sessions)
    sessions.down = True
    with pytest.raises(HsmUnavailable):
        pool.renew(0)
    sessions.down = False
    pool.renew(0)
    with pool.session() as entry:
        assert entry.generation == 1
