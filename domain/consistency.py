"""What was found to contradict itself, across the ledger, the network's journal, the payments and their workflows."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """`invariant` is broken by `subjects` (ids, at most a few); `detail` has the first one's figures."""

    invariant: str
    subjects: tuple[str, ...]
    detail: str = ""
