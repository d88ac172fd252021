"""Passwords: which ones are taken, and their hashes (Argon2id, RFC 9106).

Hashing is slow on purpose: it runs on threads of its own, a few at a time, so that it neither holds up other requests
nor lets many sign-ins at once fill the memory.
"""

from __future__ import annotations

import asyncio
import secrets
import unicodedata
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from identity.errors import Busy, PasswordRefused

T = TypeVar("T")

# OWASP's password storage cheat sheet: 19 MiB, two passes, one lane. About 25 ms of one core here.
_MEMORY_KIB = 19 * 1024
_PASSES = 2
_LANES = 1
# Two at once use 38 MiB and both cores of a small machine; who would have to wait for more than a second is refused.
_AT_ONCE = 2
_WAITING = 48

# NIST SP 800-63B-4 section 3.1.1.2: fifteen characters where the password is all that is asked for; at least 64 taken.
SHORTEST = 15
LONGEST = 128
# Parts of a name or an address that are shorter than this are in too many passwords by chance.
_LEAST_TELLING = 4

_COMMON = frozenset(
    line for line in (Path(__file__).parent / "common_passwords.txt").read_text("utf-8").splitlines() if line
)


def prepared(password: str) -> str:
    """The password in normal form: the same characters, however a keyboard makes them (NFKC, SP 800-63B-4)."""
    return unicodedata.normalize("NFKC", password)


def check(password: str, personal: Iterable[str]) -> None:
    """Length and guessability, and no rules of composition (SP 800-63B-4 section 3.1.1.2).

    `personal` are the user's name and addresses, which are the first guesses.

    Raises:
        PasswordRefused: with what is wrong with it.
    """
    value = prepared(password)
    if len(value) < SHORTEST:
        raise PasswordRefused(f"must have at least {SHORTEST} characters; a few words do well")
    if len(value) > LONGEST:
        raise PasswordRefused(f"must have at most {LONGEST} characters")
    plain = "".join(value.casefold().split())
    if plain in _COMMON or _is_pattern(plain):
        raise PasswordRefused("is one of those that are guessed first")
    parts = {part for text in personal for part in _words(text)} | {"durapay"}
    left = plain
    for part in sorted(parts, key=len, reverse=True):
        left = left.replace(part, "")
    # What somebody adds to their own name to make a password is guessed right after the name.
    if len(left) <= SHORTEST // 2:
        raise PasswordRefused("must not be made of your name or address")


def _words(text: str) -> list[str]:
    words = "".join(character if character.isalnum() else " " for character in text.casefold()).split()
    return [word for word in words if len(word) >= _LEAST_TELLING]


def _is_pattern(plain: str) -> bool:
    """One short piece over and over, one common password over and over, or a run such as 123456789012345."""
    for size in range(1, len(plain) // 2 + 1):
        piece = plain[:size]
        if (piece * (len(plain) // size + 1))[: len(plain)] == plain and (size <= 4 or piece in _COMMON):
            return True
    steps = {(ord(after) - ord(before)) % 10 for before, after in pairwise(plain)}
    return (plain.isdigit() and steps <= {1}) or (plain.isdigit() and steps <= {9})


class Passwords:
    """Hashes and verifies."""

    def __init__(self) -> None:
        self._hasher = PasswordHasher(time_cost=_PASSES, memory_cost=_MEMORY_KIB, parallelism=_LANES)
        self._threads = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="argon2")
        self._under_way = 0
        # What an unknown user's password is compared with, so that it takes as long as a known one's.
        self._nobodys = self._hasher.hash(secrets.token_urlsafe(32))

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def hash(self, password: str) -> str:
        """
        Raises:
            Busy: too many are being hashed.
        """
        return await self._run(lambda: self._hasher.hash(prepared(password)))

    async def verify(self, hashed: str | None, password: str) -> bool:
        """Whether `password` belongs to `hashed`. None is never right, and takes as long.

        Raises:
            Busy: too many are being hashed.
        """
        right = await self._run(lambda: self._verify(hashed or self._nobodys, prepared(password)))
        return right and hashed is not None

    def is_outdated(self, hashed: str) -> bool:
        """Whether it was made with other parameters than today's."""
        return self._hasher.check_needs_rehash(hashed)

    def _verify(self, hashed: str, password: str) -> bool:
        try:
            return self._hasher.verify(hashed, password)
        except (VerificationError, InvalidHashError):
            return False

    async def _run(self, work: Callable[[], T]) -> T:
        if self._under_way >= _WAITING:
            raise Busy("too many passwords are being hashed")
        self._under_way += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        finally:
            self._under_way -= 1
