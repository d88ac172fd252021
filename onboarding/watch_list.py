"""The watch list: names of persons with whom no business is done, and how like one of them a name is.

A name is compared in plain letters, in each of its spellings, and without regard to the order of its parts: the score
is rapidfuzz's `token_sort_ratio`, 0 to 100 (normalised indel distance of the sorted parts).
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from rapidfuzz import fuzz, process

from domain.names import spellings
from onboarding.errors import WatchListInvalid

_COLUMNS = ["id", "name", "aliases", "birth_year", "programme"]
_VERSION = "# version "

# With one letter wrong in a name of twelve the score is about 92, with two about 83: one slip must be found.
SIMILAR = 88.0
# Who was born in another year than the person of the list is that person only if the name is all but the same.
_SAME_NAME = 97.0
# Lists often know the year of birth by hearsay.
_YEARS_APART = 2


@dataclass(frozen=True, slots=True)
class Entry:
    """One person of the list. `birth_year` None: not known."""

    id: str
    names: tuple[str, ...] = field(repr=False)
    birth_year: int | None
    programme: str


@dataclass(frozen=True, slots=True)
class Hit:
    """`score` is of the best pair of spellings."""

    entry_id: str
    programme: str
    score: float


class WatchList:
    """One version of a list. Nothing of it changes after it is read."""

    def __init__(self, version: str, entries: Sequence[Entry]) -> None:
        self.version = version
        self._entries = {entry.id: entry for entry in entries}
        # All spellings of all names, and whose each is.
        self._spelled: list[str] = []
        self._owners: list[str] = []
        for entry in entries:
            for name in dict.fromkeys(spelled for given in entry.names for spelled in spellings(given)):
                self._spelled.append(name)
                self._owners.append(entry.id)

    @classmethod
    def load(cls, path: Path) -> WatchList:
        """The list in `path`: CSV in UTF-8 behind a line `# version …`, with the columns id, name, aliases (parted by
        semicolons), birth_year (may be empty) and programme.

        Raises:
            WatchListInvalid: it is no such file.
        """
        lines = path.read_text(encoding="utf-8").splitlines()
        if not lines or not lines[0].startswith(_VERSION) or not lines[0].removeprefix(_VERSION).strip():
            raise WatchListInvalid(1, "there is no version")
        if lines[1:2] != [",".join(_COLUMNS)]:
            raise WatchListInvalid(2, "there are other columns")
        entries = list(_entries(lines[2:]))
        if len({entry.id for entry in entries}) != len(entries):
            raise WatchListInvalid(len(lines), "two entries have one id")
        return cls(lines[0].removeprefix(_VERSION).strip(), entries)

    def __len__(self) -> int:
        return len(self._entries)

    def hits(self, name: str, born_on: date) -> list[Hit]:
        """The persons who may be meant by `name`, the most alike first."""
        best: dict[str, float] = {}
        for spelled in spellings(name):
            for _, score, place in process.extract(
                spelled, self._spelled, scorer=fuzz.token_sort_ratio, score_cutoff=SIMILAR, limit=None
            ):
                owner = self._owners[place]
                best[owner] = max(score, best.get(owner, 0.0))
        hits = [
            Hit(owner, self._entries[owner].programme, score)
            for owner, score in best.items()
            if score >= self._needed(self._entries[owner], born_on)
        ]
        return sorted(hits, key=lambda hit: (-hit.score, hit.entry_id))

    def _needed(self, entry: Entry, born_on: date) -> float:
        apart = entry.birth_year is not None and abs(entry.birth_year - born_on.year) > _YEARS_APART
        return _SAME_NAME if apart else SIMILAR


def _entries(lines: Sequence[str]) -> Iterator[Entry]:
    for number, row in enumerate(csv.reader(lines), start=3):
        if len(row) != len(_COLUMNS):
            raise WatchListInvalid(number, f"it has {len(row)} columns")
        identifier, name, aliases, birth_year, programme = (column.strip() for column in row)
        if not identifier or not name or not programme or (birth_year and not birth_year.isdecimal()):
            raise WatchListInvalid(number, "id, name or programme is empty, or the year is none")
        names = (name, *(alias.strip() for alias in aliases.split(";") if alias.strip()))
        if not all(any(spellings(given)) for given in names):
            raise WatchListInvalid(number, "a name has no letter that can be compared")
        yield Entry(identifier, names, int(birth_year) if birth_year else None, programme)
