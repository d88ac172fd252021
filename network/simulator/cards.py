"""Which card number behaves how. Those of the first three groups are Stripe's, and mean what one expects.

A number that is in no group is approved. Amounts, codes and addresses change nothing: it depends on the card alone what
its issuer says of them. Most say that a code and an address are right; the card for a wrong security code is declined
whatever code comes with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Behaviour(StrEnum):
    """What the issuer and the network do with a card, by name; the simulator's journal keeps the name only."""

    APPROVE = "approve"
    DECLINE = "decline"
    # The issuer vouches for the card and declines its payments.
    PAYMENT_DECLINE = "payment_decline"
    REFUND_DECLINE = "refund_decline"
    # Its refund is approved, and comes back in the clearing file of the next day.
    REFUND_RETURN = "refund_return"
    INCREMENT_DECLINE = "increment_decline"
    # Approved or declined at the host; the answer to the 0100 is never sent. A repeat (0101) is answered.
    TIMEOUT_THEN_APPROVE = "timeout_then_approve"
    TIMEOUT_THEN_DECLINE = "timeout_then_decline"
    # Approved; the answer comes after the platform stopped waiting (`late_answer_seconds`).
    LATE_ANSWER = "late_answer"
    # As a timeout, and the first acknowledgements (0430) of its reversal are lost too (`lost_acknowledgements`).
    LOST_REVERSAL = "lost_reversal"
    # Approved and, once it is captured, disputed by itself (`dispute_delay_seconds`).
    DISPUTE_FRAUDULENT = "dispute_fraudulent"
    DISPUTE_NOT_RECEIVED = "dispute_not_received"
    INQUIRY = "inquiry"
    # Approved; the answer is sent twice.
    DUPLICATE_ANSWER = "duplicate_answer"
    # Approved; the connection is closed instead of answering.
    DROPPED_CONNECTION = "dropped_connection"
    # Approved; the answer names one minor unit more than was asked for.
    WRONG_AMOUNT = "wrong_amount"
    # Approved; what came along is not what the issuer has, or the issuer does not say.
    CVC_FAIL = "cvc_fail"
    ADDRESS_FAIL = "address_fail"
    LINE1_FAIL = "line1_fail"
    POSTAL_CODE_FAIL = "postal_code_fail"
    ADDRESS_UNAVAILABLE = "address_unavailable"


# The payment itself is approved.
DECLINING_LATER: Final = frozenset({Behaviour.REFUND_DECLINE, Behaviour.INCREMENT_DECLINE})


@dataclass(frozen=True, slots=True)
class TestCard:
    """`name` is what the simulator's journal shows; `response_code` is DE39 where the card is not simply approved."""

    name: str
    behaviour: Behaviour
    response_code: str = "00"

    # pytest would take a class of this name for a collection of tests.
    __test__ = False


APPROVED_CARD: Final = TestCard("approved", Behaviour.APPROVE)

_APPROVED: Final = {
    "4242424242424242": "visa",
    "4000056655665556": "visa debit",
    "5555555555554444": "mastercard",
    "2223003122003222": "mastercard 2-series",
    "5200828282828210": "mastercard debit",
    "5105105105105100": "mastercard prepaid",
    "378282246310005": "american express",
    "371449635398431": "american express",
    "6011111111111117": "discover",
    "6011000990139424": "discover",
    "6011981111111113": "discover debit",
    "3056930009020004": "diners club",
    "36227206271667": "diners club, 14 digits",
    "6555900000604105": "discover global network",
    "3566002020360505": "jcb",
    "6200000000000005": "unionpay",
    "6200000000000047": "unionpay debit",
    "6205500000000000004": "unionpay, 19 digits",
    # Approved by the issuer; what they are for happens elsewhere: fraud scoring, step-up.
    "4000000000007726": "refund succeeds later",
    "4000000000005423": "early fraud warning",
    "4100000000000019": "highest risk, always blocked",
    "4000000000004954": "highest risk",
    "4000000000009235": "elevated risk",
    "4000002500003155": "step-up unless set up",
    "4000002760003184": "step-up always",
    "4000000000003220": "step-up required",
    "4000000000003055": "step-up supported",
}

_DECLINED: Final = {
    "4000000000000002": ("declined", "05"),
    "4000000000009995": ("insufficient funds", "51"),
    "4000000000009987": ("lost", "41"),
    "4000000000009979": ("stolen", "43"),
    "4000000000000069": ("expired", "54"),
    "4000000000000127": ("wrong security code", "N7"),
    "4000000000000119": ("processing error", "96"),
    "4000000000006975": ("used too often", "65"),
    "4000008260003178": ("step-up, then insufficient funds", "51"),
    "4000008400001629": ("step-up, then declined", "05"),
}

# Our own, for what no public test card does: faults between the host and the platform.
SCRIPTED: Final = {
    "4000990000010003": TestCard("timeout then approve", Behaviour.TIMEOUT_THEN_APPROVE),
    "4000990000020002": TestCard("timeout then decline", Behaviour.TIMEOUT_THEN_DECLINE, "05"),
    "4000990000030001": TestCard("late answer", Behaviour.LATE_ANSWER),
    "4000990000040000": TestCard("lost reversal", Behaviour.LOST_REVERSAL),
    "4000990000050009": TestCard("duplicate answer", Behaviour.DUPLICATE_ANSWER),
    "4000990000060008": TestCard("dropped connection", Behaviour.DROPPED_CONNECTION),
    "4000990000070007": TestCard("wrong amount", Behaviour.WRONG_AMOUNT),
    "4000990000080006": TestCard("issuer not available", Behaviour.DECLINE, "91"),
    "4000990000090005": TestCard("refund declined", Behaviour.REFUND_DECLINE, "05"),
    "4000990000100002": TestCard("increment declined", Behaviour.INCREMENT_DECLINE, "51"),
}

_CHECKED: Final = {
    "4000000000000101": TestCard("security code fails", Behaviour.CVC_FAIL),
    "4000000000000010": TestCard("address fails", Behaviour.ADDRESS_FAIL),
    "4000000000000028": TestCard("street fails", Behaviour.LINE1_FAIL),
    "4000000000000036": TestCard("postal code fails", Behaviour.POSTAL_CODE_FAIL),
    "4000000000000044": TestCard("address unavailable", Behaviour.ADDRESS_UNAVAILABLE),
}

TEST_CARDS: Final[dict[str, TestCard]] = {
    **{number: TestCard(name, Behaviour.APPROVE) for number, name in _APPROVED.items()},
    **{number: TestCard(name, Behaviour.DECLINE, code) for number, (name, code) in _DECLINED.items()},
    "4000000000000341": TestCard("declined after being added", Behaviour.PAYMENT_DECLINE, "05"),
    "4000000000005126": TestCard("refund fails later", Behaviour.REFUND_RETURN),
    "4000000000000259": TestCard("dispute as fraudulent", Behaviour.DISPUTE_FRAUDULENT),
    "4000000000002685": TestCard("dispute as not received", Behaviour.DISPUTE_NOT_RECEIVED),
    "4000000000001976": TestCard("inquiry", Behaviour.INQUIRY),
    **_CHECKED,
    **SCRIPTED,
}


def card(number: str) -> TestCard:
    """How the card `number` behaves."""
    return TEST_CARDS.get(number, APPROVED_CARD)
