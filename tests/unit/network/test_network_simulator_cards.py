from __future__ import annotations

import pytest

from domain.cards import card_brand, luhn_valid
from domain.declines import decline_code
from network.simulator.cards import SCRIPTED, TEST_CARDS, Behaviour, card


@pytest.mark.parametrize("number", sorted(TEST_CARDS))
def test_every_test_card_passes_the_checks_of_a_real_one(number: str) -> None:
    assert luhn_valid(number)
    assert card_brand(number) is not None


@pytest.mark.parametrize(
    ("number", "meaning"),
    [
        ("4000000000000002", "generic_decline"),
        ("4000000000009995", "insufficient_funds"),
        ("4000000000009987", "lost_card"),
        ("4000000000009979", "stolen_card"),
        ("4000000000000069", "expired_card"),
        ("4000000000000127", "incorrect_cvc"),
    ],
)
def test_declines_mean_what_stripes_cards_mean(number: str, meaning: str) -> None:
    assert decline_code(card(number).response_code).code == meaning


def test_every_scripted_fault_has_a_card() -> None:
    assert {entry.behaviour for entry in SCRIPTED.values()} == set(Behaviour) - {
        Behaviour.APPROVE,
        Behaviour.PAYMENT_DECLINE,
        Behaviour.REFUND_RETURN,
        Behaviour.DISPUTE_FRAUDULENT,
        Behaviour.DISPUTE_NOT_RECEIVED,
        Behaviour.INQUIRY,
        Behaviour.CVC_FAIL,
        Behaviour.ADDRESS_FAIL,
        Behaviour.LINE1_FAIL,
        Behaviour.POSTAL_CODE_FAIL,
        Behaviour.ADDRESS_UNAVAILABLE,
    }


def test_an_unknown_number_is_approved() -> None:
    assert card("4111111111111111").behaviour is Behaviour.APPROVE
