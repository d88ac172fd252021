"""pgbench, PostgreSQL's own load generator in C: what a server does of a statement when nothing else costs anything."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

from sqlalchemy import make_url

from benchmarks.figures import Latency, latency
from embedded.servers import postgres_program

_THREADS = 2


def pgbench(url: str, script: str, *, clients: int, seconds: float, warm_up_seconds: float) -> Latency:
    """Runs `script` in a closed loop of `clients` connections, prepared, each time as a transaction of its own.

    Raises:
        subprocess.CalledProcessError: pgbench has failed; what it said is on stderr.
    """
    with tempfile.TemporaryDirectory(prefix="durapay-pgbench-") as name:
        folder = Path(name)
        (folder / "script.sql").write_text(script)
        whole = seconds + warm_up_seconds
        subprocess.run(
            [
                *(postgres_program("pgbench"), "--no-vacuum", "--protocol=prepared", "--file=script.sql"),
                *(f"--client={clients}", f"--jobs={min(clients, _THREADS)}", f"--time={whole:.0f}"),
                *("--log", "--log-prefix=transactions"),
            ],
            cwd=folder,
            env={**os.environ, **_connection(url)},
            check=True,
            stdout=subprocess.DEVNULL,
        )
        found = [line.split() for log in folder.glob("transactions*") for line in log.read_text().splitlines()]
    # Of each transaction: client, number, microseconds it took, script, and when it ended (seconds, microseconds).
    ended = [int(fields[4]) + int(fields[5]) / 1e6 for fields in found]
    counted_from = min(ended) + warm_up_seconds
    taken = [int(fields[2]) / 1e6 for fields, at in zip(found, ended, strict=True) if at >= counted_from]
    return latency(clients, taken, max(ended) - counted_from)


def _connection(url: str) -> dict[str, str]:
    """`url` as libpq's environment: a password on the command line could be seen by everybody."""
    parts = make_url(url)
    return {
        "PGHOST": str(parts.host),
        "PGPORT": str(parts.port),
        "PGUSER": str(parts.username),
        "PGPASSWORD": str(parts.password),
        "PGDATABASE": str(parts.database),
    }
