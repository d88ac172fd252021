"""Decline codes: what DE39 means to a caller, and whether trying again can help.

The categories follow Visa's decline-code groups (never retry, retry later, fix the data first). Sources disagree on
03, 14, 62, 78 and 93; the stricter reading is taken. The table is versioned because networks change it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

TABLE_VERSION = "2026-10"


class Retry(StrEnum):
    NEVER = "never"
    LATER = "later"
    FIX_DATA = "fix_data"


@dataclass(frozen=True, slots=True)
class DeclineCode:
    """`code` is what our API shows, `retry` whether and how the caller may try again, `message` is for the payer."""

    code: str
    retry: Retry
    message: str


_GENERIC = DeclineCode("generic_decline", Retry.LATER, "The card was declined.")

_TABLE: dict[str, DeclineCode] = {
    "01": DeclineCode("call_issuer", Retry.LATER, "The card was declined; the payer should contact the card's issuer."),
    "03": DeclineCode("merchant_not_accepted", Retry.NEVER, "The card cannot be used with this merchant."),
    "04": DeclineCode("pickup_card", Retry.NEVER, "The card was declined."),
    "05": _GENERIC,
    "07": DeclineCode("pickup_card", Retry.NEVER, "The card was declined."),
    "12": DeclineCode("invalid_transaction", Retry.NEVER, "The card does not allow this transaction."),
    "13": DeclineCode("invalid_amount", Retry.FIX_DATA, "The amount is not valid for this card."),
    "14": DeclineCode("incorrect_number", Retry.FIX_DATA, "The card number is not known to the issuer."),
    "15": DeclineCode("no_such_issuer", Retry.NEVER, "The card's issuer is not known."),
    "41": DeclineCode("lost_card", Retry.NEVER, "The card was declined."),
    "43": DeclineCode("stolen_card", Retry.NEVER, "The card was declined."),
    "51": DeclineCode("insufficient_funds", Retry.LATER, "The card has insufficient funds."),
    "54": DeclineCode("expired_card", Retry.FIX_DATA, "The card has expired."),
    "55": DeclineCode("incorrect_pin", Retry.FIX_DATA, "The PIN is wrong."),
    "57": DeclineCode("transaction_not_permitted", Retry.NEVER, "The card does not allow this transaction."),
    "59": DeclineCode("suspected_fraud", Retry.LATER, "The card was declined."),
    "61": DeclineCode("withdrawal_limit_exceeded", Retry.LATER, "The card's limit is exceeded."),
    "62": DeclineCode("restricted_card", Retry.NEVER, "The card was declined."),
    "65": DeclineCode("card_velocity_exceeded", Retry.LATER, "The card was used too often."),
    "75": DeclineCode("pin_tries_exceeded", Retry.LATER, "Too many wrong PIN entries."),
    "78": DeclineCode("card_not_active", Retry.NEVER, "The card is not active."),
    "82": DeclineCode("incorrect_cvc", Retry.FIX_DATA, "The card's security code or cryptogram is wrong."),
    "91": DeclineCode("issuer_not_available", Retry.LATER, "The card's issuer could not be reached."),
    "93": DeclineCode("transaction_not_permitted", Retry.NEVER, "The card does not allow this transaction."),
    "96": DeclineCode("processing_error", Retry.LATER, "The network could not process the payment."),
    "N7": DeclineCode("incorrect_cvc", Retry.FIX_DATA, "The card's security code is wrong."),
    "R0": DeclineCode("stop_payment_order", Retry.NEVER, "The payer stopped this payment."),
    "R1": DeclineCode("revocation_of_authorization", Retry.NEVER, "The payer revoked this authorization."),
    "R3": DeclineCode("revocation_of_all_authorizations", Retry.NEVER, "The payer revoked all authorizations."),
}

# Refusals that whoever tries out card numbers collects: wrong number, date or code, and cards reported lost or stolen.
# A lack of funds is not among them: it happens to honest people.
CARD_TESTING_CODES = frozenset({"14", "41", "43", "54", "82", "N7"})

# Not an answer of the network: nothing was sent, so nothing can have been charged.
NETWORK_UNAVAILABLE = DeclineCode("network_unavailable", Retry.LATER, "The card network could not be reached.")


def decline_code(response_code: str) -> DeclineCode:
    """The meaning of DE39 `response_code`; an unknown code is a generic decline."""
    return _TABLE.get(response_code, _GENERIC)
