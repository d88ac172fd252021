"""Named places at which a process of the fault tests kills itself, so that a crash there is a case and not luck.

`CRASH_AT=network.authorize.after` in the environment of one process makes it end by SIGKILL when it comes to that place
for the first time; `CRASH_AT=network.authorize.after@payment/pay_…` only for that workflow; several are separated by
commas. A marker file in the folder that `CRASH_KIT` names sees to "for the first time", across restarts too.

Nothing of this can be switched on in production. Neither variable belongs to a zone's settings, so no deployment hands
them to a process; and a process that is given CRASH_AT starts only as the direct child of the program that wrote its
own process id into the folder of CRASH_KIT. A container's program, or one under an init system, is no such child and
refuses to start. Without CRASH_AT nothing is installed anywhere.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from domain.errors import DurapayError

CRASH_AT = "CRASH_AT"
CRASH_KIT = "CRASH_KIT"
# The process id of the program that runs the fault tests, in the folder of CRASH_KIT.
KIT_FILE = "kit.pid"


class CrashPointsRefused(DurapayError):
    """CRASH_AT is set in a process that the fault tests did not start."""


@dataclass(frozen=True, slots=True)
class CrashPoints:
    """The armed places: name → the workflow for which it counts, or None for any."""

    folder: Path
    places: Mapping[str, str | None]

    def reached(self, place: str, workflow_id: str = "") -> None:
        """Ends this process at once if `place` is armed for `workflow_id` and did not strike before."""
        if place not in self.places:
            return
        wanted = self.places[place]
        if wanted is not None and wanted != workflow_id:
            return
        try:
            # Made by one process only, and there before it ends: whoever comes here later goes on.
            os.close(os.open(marker(self.folder, place), os.O_CREAT | os.O_EXCL, 0o600))
        except FileExistsError:
            return
        os.kill(os.getpid(), signal.SIGKILL)


def marker(folder: Path, place: str) -> Path:
    """The file that is there once `place` has struck."""
    return folder / f"{place}.struck"


def armed_crash_points(environment: Mapping[str, str] = os.environ) -> CrashPoints | None:
    """What the environment arms; None, as always outside of the fault tests, when CRASH_AT is not set.

    Raises:
        CrashPointsRefused: it is set, and this process is no child of the fault tests.
    """
    if CRASH_AT not in environment:
        return None
    folder = Path(environment.get(CRASH_KIT, ""))
    kit = folder / KIT_FILE
    if CRASH_KIT not in environment or not kit.is_file() or kit.read_text() != str(os.getppid()):
        raise CrashPointsRefused(f"{CRASH_AT} is for processes that the fault tests start; unset it")
    pairs = (entry.strip().partition("@") for entry in environment[CRASH_AT].split(","))
    return CrashPoints(folder, {place: workflow_id or None for place, _, workflow_id in pairs})
