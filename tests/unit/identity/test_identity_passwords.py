"""Which passwords are taken, and what their hashes are made of."""

from __future__ import annotations

import asyncio

import pytest
from argon2 import PasswordHasher, extract_parameters

from identity import passwords
from identity.errors import Busy, PasswordRefused
from identity.passwords import LONGEST, SHORTEST, Passwords

_ADA = ("Ada Lovelace", "ada.lovelace@example.com", "+14155550100")


@pytest.mark.parametrize(
    "password",
    [
        "otters juggle on tuesdays",
        "x" * 7 + "Qp2!" + "y" * 7,
        "ein langer deutscher Satz",
        "パスワードではない長い文章です。はい",
        "a" + "🦦" * 3 + " swims upstream",
        "z9" * 3 + "q" * (LONGEST - 6),
    ],
)
def test_what_is_long_and_nobodys_first_guess_is_taken(password: str) -> None:
    passwords.check(password, _ADA)


@pytest.mark.parametrize(
    "password",
    [
        "",
        "fourteen chars",
        "z" * (SHORTEST - 1),
        "otter " * 30,
        "correct horse battery staple",
        "PasswordPassword",
        "Password1234Password1234",
        "aaaaaaaaaaaaaaaa",
        "abcabcabcabcabcabc",
        "123456789012345678",
        "987654321098765432",
        "qwertyuiopasdfgh",
        "Ada Lovelace 2026",
        "lovelace lovelace!",
        "durapay lovelace 1",
        "+14155550100+14155550100",
    ],
)
def test_what_is_short_common_or_made_of_its_owner_is_refused(password: str) -> None:
    with pytest.raises(PasswordRefused) as refused:
        passwords.check(password, _ADA)
    assert not password or password not in refused.value.reason


def test_the_list_is_in_the_form_that_it_is_compared_in() -> None:
    assert all(word == "".join(word.casefold().split()) for word in passwords._COMMON)
    assert len(passwords._COMMON) > 250


async def test_a_hash_is_argon2id_with_the_parameters_that_the_module_gives_reasons_for() -> None:
    hasher = Passwords()
    hashed = await hasher.hash("otters juggle on tuesdays")
    parameters = extract_parameters(hashed)
    assert hashed.startswith("$argon2id$")
    assert (parameters.memory_cost, parameters.time_cost, parameters.parallelism) == (19 * 1024, 2, 1)
    assert await hasher.verify(hashed, "otters juggle on tuesdays")
    assert not await hasher.verify(hashed, "Otters juggle on tuesdays")
    assert not hasher.is_outdated(hashed)
    assert hasher.is_outdated(PasswordHasher(time_cost=1, memory_cost=8192, parallelism=1).hash("x"))
    hasher.close()


async def test_the_same_characters_are_the_same_password_however_they_are_typed() -> None:
    hasher = Passwords()
    hashed = await hasher.hash("zw\u00f6lf Boxk\u00e4mpfer jagen")
    assert await hasher.verify(hashed, "zwo\u0308lf Boxka\u0308mpfer jagen")
    hasher.close()


async def test_nobody_has_no_right_password() -> None:
    hasher = Passwords()
    assert not await hasher.verify(None, "")
    assert not await hasher.verify("no hash at all", "x")
    hasher.close()


async def test_a_crowd_is_turned_away_and_the_first_of_it_are_served() -> None:
    hasher = Passwords()
    outcomes = await asyncio.gather(*(hasher.verify(None, "x") for _ in range(60)), return_exceptions=True)
    assert [outcome for outcome in outcomes if not isinstance(outcome, Busy)] == [False] * 48
    assert sum(isinstance(outcome, Busy) for outcome in outcomes) == 12
    assert await hasher.verify(None, "x") is False
    hasher.close()
