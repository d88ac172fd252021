"""A small pool of HSM sessions, handed out in the order of asking and renewed as a whole when one is lost."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pkcs11

from vault.hsm.provider import HsmUnavailable


@dataclass(slots=True, eq=False)
class PooledSession:
    """A session and the key handles found in it so far, by label; a look-up costs ten times an encryption."""

    session: pkcs11.Session
    generation: int
    keys: dict[str, pkcs11.Key] = field(default_factory=dict)


class SessionPool:
    """`open_sessions` gives the sessions to hand out; `close_session` disposes of one.

    More sessions than two to four add tail latency, not throughput. With SoftHSM, whose work is this process's own,
    two are enough: each further one only passes the interpreter's lock around.
    """

    def __init__(
        self,
        open_sessions: Callable[[], list[pkcs11.Session]],
        close_session: Callable[[pkcs11.Session], None],
        wait_seconds: float,
    ) -> None:
        self._open_sessions = open_sessions
        self._close_session = close_session
        self._wait_seconds = wait_seconds
        self._changed = threading.Condition()
        self._queue: deque[object] = deque()
        self._generation = 0
        self._renewing = False
        self._all = [PooledSession(session, self._generation) for session in open_sessions()]
        self._idle = deque(self._all)

    @contextmanager
    def session(self) -> Iterator[PooledSession]:
        """A session for the time of the block.

        Raises:
            HsmUnavailable: none became free in time.
        """
        entry = self._take()
        try:
            yield entry
        finally:
            with self._changed:
                self._idle.append(entry)
                self._changed.notify_all()

    def renew(self, generation: int) -> None:
        """Replaces all sessions, unless that was done since `generation`. The caller holds no session.

        No session is closed while another thread is inside it: that would crash a module, so this waits for all.
        If no new ones can be opened the old ones stay; the next caller fails on one and comes here again.

        Raises:
            HsmUnavailable: new sessions cannot be opened, or a call hangs in an old one.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: not self._renewing, self._wait_seconds):
                raise HsmUnavailable("the HSM sessions are not renewed in time")
            if generation != self._generation:
                return
            self._renewing = True
            try:
                if not self._changed.wait_for(lambda: len(self._idle) == len(self._all), self._wait_seconds):
                    raise HsmUnavailable("a call hangs in the HSM")
                lost = self._all
                self._all = [PooledSession(session, generation + 1) for session in self._open_sessions()]
                self._idle = deque(self._all)
                self._generation = generation + 1
                for entry in lost:
                    self._close_session(entry.session)
            finally:
                self._renewing = False
                self._changed.notify_all()

    def close(self) -> None:
        """Closes every session once it is back; whoever asks for one after this waits in vain."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._idle) == len(self._all), self._wait_seconds):
                raise HsmUnavailable("a call hangs in the HSM")
            for entry in self._all:
                self._close_session(entry.session)
            self._all = []
            self._idle.clear()

    def _take(self) -> PooledSession:
        ticket = object()
        with self._changed:
            self._queue.append(ticket)
            try:
                if not self._changed.wait_for(lambda: self._is_turn_of(ticket), self._wait_seconds):
                    raise HsmUnavailable("no HSM session became free in time")
                return self._idle.popleft()
            finally:
                self._queue.remove(ticket)
                if self._queue:
                    self._changed.notify_all()

    def _is_turn_of(self, ticket: object) -> bool:
        return self._queue[0] is ticket and bool(self._idle) and not self._renewing
