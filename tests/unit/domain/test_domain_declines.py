from __future__ import annotations

import re

import pytest

from domain.declines import _TABLE, CARD_TESTING_CODES, NETWORK_UNAVAILABLE, Retry, decline_code

ALL = [*_TABLE.values(), NETWORK_UNAVAILABLE]


@pytest.mark.parametrize(
    ("response_code", "code", "retry"),
    [
        ("05", "generic_decline", Retry.LATER),
        ("51", "insufficient_funds", Retry.LATER),
        ("54", "expired_card", Retry.FIX_DATA),
        ("14", "incorrect_number", Retry.FIX_DATA),
        ("N7", "incorrect_cvc", Retry.FIX_DATA),
        ("04", "pickup_card", Retry.NEVER),
        ("41", "lost_card", Retry.NEVER),
        ("43", "stolen_card", Retry.NEVER),
        ("R1", "revocation_of_authorization", Retry.NEVER),
        ("91", "issuer_not_available", Retry.LATER),
    ],
)
def test_a_response_code_means_what_the_networks_say(response_code: str, code: str, retry: Retry) -> None:
    assert (decline_code(response_code).code, decline_code(response_code).retry) == (code, retry)


@pytest.mark.parametrize("response_code", ["", "00", "ZZ", "5", "051", "n7"])
def test_an_unknown_code_is_a_generic_decline_and_never_an_approval(response_code: str) -> None:
    assert decline_code(response_code).code == "generic_decline"


def test_no_approving_code_is_in_the_table() -> None:
    assert not {"00", "08", "10", "11", "85"} & set(_TABLE)


@pytest.mark.parametrize("response_code", ["04", "07", "41", "43", "59", "62"])
def test_whoever_holds_a_stolen_card_is_told_nothing_of_it(response_code: str) -> None:
    assert decline_code(response_code).message == decline_code("05").message


def test_a_code_says_the_same_thing_wherever_it_is_used() -> None:
    retries = {(decline.code, decline.retry) for decline in ALL}
    assert len(retries) == len({decline.code for decline in ALL})


def test_codes_are_words_and_messages_sentences() -> None:
    assert all(re.fullmatch("[a-z]+(_[a-z]+)*", decline.code) for decline in ALL)
    assert all(decline.message[0].isupper() and decline.message.endswith(".") for decline in ALL)


def test_card_testing_is_told_from_honest_declines() -> None:
    assert set(_TABLE) >= CARD_TESTING_CODES
    assert not {"05", "51", "61", "65", "91", "96"} & CARD_TESTING_CODES
