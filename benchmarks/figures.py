"""Percentiles, tables and result files that all benchmarks share."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds of `samples` calls made by `callers` in a closed loop, and calls per second over the whole."""

    callers: int
    samples: int
    p50_ms: float
    p99_ms: float
    per_second: float


def percentile(values: Sequence[float], share: float) -> float:
    """The nearest-rank percentile (`share` 0–1) of `values`, which need not be sorted."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, round(share * len(ordered)) - 1))]


def latency(callers: int, seconds: Sequence[float], elapsed_seconds: float) -> Latency:
    milliseconds = [value * 1000 for value in seconds]
    return Latency(
        callers=callers,
        samples=len(milliseconds),
        p50_ms=round(percentile(milliseconds, 0.50), 2),
        p99_ms=round(percentile(milliseconds, 0.99), 2),
        per_second=round(len(milliseconds) / elapsed_seconds, 1),
    )


async def closed_loop(callers: int, samples: int, call: Callable[[int], Awaitable[None]]) -> Latency:
    """`samples` calls by `callers` that each begin the next one when the last has answered."""
    numbers = iter(range(samples))
    seconds: list[float] = []

    async def caller() -> None:
        for number in numbers:
            started = time.perf_counter()
            await call(number)
            seconds.append(time.perf_counter() - started)

    started = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(callers)))
    return latency(callers, seconds, time.perf_counter() - started)


def write(name: str, figures: dict[str, Any]) -> Path:
    """Writes `figures` with the machine and the time to `benchmarks/results/NAME.json`."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    document = {
        "benchmark": name,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"cores": os.cpu_count(), "python": platform.python_version(), "load": os.getloadavg()[0]},
        **figures,
    }
    path.write_text(json.dumps(document, indent=2, default=asdict) + "\n")
    return path
