"""The issuer: what it answers, and what it keeps. One message at a time, in one transaction of its journal.

A message that came before (same DE7, DE11 and DE32, repeat or not) gets the answer that it got before.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from domain.cards import luhn_valid, masked
from domain.clearing import ClearingKind
from domain.disputes import DisputeKind
from network import tlv
from network.cases import is_about_case
from network.codec import Message
from network.errors import MessageInvalid
from network.messages import (
    APPROVED,
    Original,
    address,
    amount,
    answer,
    check_results,
    cvv,
    is_deprovisioning,
    is_final,
    is_increment,
    is_refund,
    is_verification,
    replacement_minor,
    request_key,
    token_pan,
)
from network.simulator.cards import DECLINING_LATER, Behaviour, card
from network.simulator.emv import cryptogram_valid
from network.simulator.store import Kind, Store, Token, Transaction

DECLINED: Final = "05"
INVALID_TRANSACTION: Final = "12"
INVALID_AMOUNT: Final = "13"
UNKNOWN_NUMBER: Final = "14"
NO_ACTION_TAKEN: Final = "21"
ORIGINAL_UNKNOWN: Final = "25"
FORMAT_ERROR: Final = "30"
EXPIRED: Final = "54"
NOT_ACTIVE: Final = "78"
CRYPTOGRAM_WRONG: Final = "82"
DUPLICATE: Final = "94"
# The issuer itself was not reached, or says that the code is wrong.
_NOT_ASKED: Final = frozenset({"91", "96"})
_CODE_WRONG: Final = "N7"


# The reasons are Visa's: other fraud, card absent; merchandise not received; a cardholder's request for information.
_DISPUTING: Final = {
    Behaviour.DISPUTE_FRAUDULENT: (DisputeKind.CHARGEBACK, "10.4"),
    Behaviour.DISPUTE_NOT_RECEIVED: (DisputeKind.CHARGEBACK, "13.1"),
    Behaviour.INQUIRY: (DisputeKind.INQUIRY, "30"),
}


@dataclass(frozen=True, slots=True)
class Decision:
    """An answer as it is recorded, and what happens to it on its way."""

    answer: Message
    drop: bool = False
    close_connection: bool = False
    copies: int = 1
    delay_seconds: float = 0.0
    misstated_by_minor: int = 0

    @property
    def sent(self) -> Message:
        """The answer as it is sent."""
        if not self.misstated_by_minor:
            return self.answer
        misstated = f"{int(self.answer.get(4)) + self.misstated_by_minor:012d}"
        return Message(self.answer.mti, {**self.answer.fields, 4: misstated})


class IssuerHost:
    """`imk` (16 bytes) is the issuer's master key for cryptograms, `fingerprint_key` hides card numbers in the journal.

    Test cards that answer late do so after `late_answer_seconds`; the one that loses acknowledgements of its reversal
    loses the first `lost_acknowledgements`.
    """

    def __init__(
        self,
        store: Store,
        imk: bytes,
        fingerprint_key: bytes,
        *,
        late_answer_seconds: float,
        lost_acknowledgements: int,
    ) -> None:
        self._store = store
        self._imk = imk
        self._fingerprint_key = fingerprint_key
        self._late_answer_seconds = late_answer_seconds
        self._lost_acknowledgements = lost_acknowledgements

    def handle(self, message: Message) -> Decision:
        """Decides `message` (anything but network management) and records it."""
        key = request_key(message)
        with self._store.atomic():
            before = self._store.answer(key)
            if before is not None:
                if not _same(message, before):
                    return Decision(answer(message, DUPLICATE))
                decision = Decision(before, drop=self._loses_acknowledgement(message))
            else:
                decision = self._decide(message)
                self._store.keep_answer(key, decision.answer)
            self._store.keep_message(message, decision.answer.get(39), answered_before=before is not None)
        return decision

    def _decide(self, message: Message) -> Decision:
        try:
            match message.mti[:3]:
                case "010" if is_increment(message):
                    return Decision(self._increment(message))
                case "010":
                    return self._authorize(message)
                case "020" if is_refund(message):
                    return Decision(self._refund(message))
                case "020":
                    return self._authorize(message)
                case "022":
                    return Decision(self._settled(message, self._capture(message)))
                case "042" if replacement_minor(message) is not None:
                    return Decision(answer(message, self._release(message)), drop=self._loses_acknowledgement(message))
                case "042":
                    decided = self._settled(message, self._reverse(message))
                    return Decision(decided, drop=self._loses_acknowledgement(message))
                case _ if is_about_case(message):
                    return Decision(answer(message, self._store.disputes.answer(message)))
                case _ if is_deprovisioning(message):
                    return Decision(answer(message, self._deprovision(message)))
                case _:
                    return Decision(answer(message, self._provision(message)))
        except MessageInvalid:
            return Decision(answer(message, FORMAT_ERROR))

    def _authorize(self, message: Message) -> Decision:
        """An authorization, a verification, or a sale, which is captured for its whole amount at once."""
        kind = _kind(message)
        money = amount(message)
        token = self._store.token(self._fingerprint(message.get(2)))
        response_code = self._check(message, token)
        if response_code == APPROVED and token is not None and token.deleted:
            response_code = NOT_ACTIVE
        behaviour = Behaviour(token.behaviour) if token else Behaviour.DECLINE
        asked_of_card = behaviour is Behaviour.PAYMENT_DECLINE and kind is Kind.VERIFICATION
        if response_code == APPROVED and token is not None and behaviour not in DECLINING_LATER and not asked_of_card:
            response_code = token.response_code
        more = _approval(response_code) | (_found(message, behaviour, response_code) if token else {})
        if kind is Kind.SALE:
            decided = self._settled(message, response_code, more)
        else:
            decided = answer(message, response_code, more)
        identifier = self._store.keep_transaction(message, kind, token, decided)
        if kind is Kind.SALE and response_code == APPROVED:
            self._store.capture(identifier, money.amount_minor, final=True)
            self._store.clearing.add(ClearingKind.PRESENTMENT, identifier, money.amount_minor, message=message)
            self._dispute(token, identifier, money.amount_minor)
        match behaviour:
            case Behaviour.TIMEOUT_THEN_APPROVE | Behaviour.TIMEOUT_THEN_DECLINE | Behaviour.LOST_REVERSAL:
                return Decision(decided, drop=message.mti in ("0100", "0200"))
            case Behaviour.LATE_ANSWER:
                return Decision(decided, delay_seconds=self._late_answer_seconds)
            case Behaviour.DUPLICATE_ANSWER:
                return Decision(decided, copies=2)
            case Behaviour.DROPPED_CONNECTION:
                return Decision(decided, close_connection=True)
            case Behaviour.WRONG_AMOUNT:
                return Decision(decided, misstated_by_minor=1)
            case _:
                return Decision(decided)

    def _check(self, message: Message, token: Token | None) -> str:
        """DE39 before the card's own behaviour is asked. Only a verification is about no money."""
        if self._store.reversed_ahead(_as_original(message)):
            return DECLINED
        if (amount(message).amount_minor == 0) != is_verification(message):
            return INVALID_AMOUNT
        if token is None:
            return UNKNOWN_NUMBER
        if message.get(14) < f"{datetime.now(UTC):%y%m}":
            return EXPIRED
        if 55 in message.fields and not self._cryptogram_accepted(message, token):
            return CRYPTOGRAM_WRONG
        return APPROVED

    def _cryptogram_accepted(self, message: Message, token: Token) -> bool:
        """Whether the cryptogram is right, about this amount and currency, and new.

        A lower ATC than one seen before is nothing wrong: messages overtake each other.
        """
        chip_data = tlv.parse(bytes.fromhex(message.get(55)))
        about_this = chip_data.get("9F02", b"").hex() == message.get(4) and chip_data.get("5F2A", b"").hex()[
            1:
        ] == message.get(49)
        sequence_number = message.fields.get(23, "000")[1:]
        if not about_this or not cryptogram_valid(self._imk, message.get(2), sequence_number, chip_data):
            return False
        return self._store.use_cryptogram(token.fingerprint, chip_data["9F36"].hex(), chip_data["9F26"].hex())

    def _increment(self, message: Message) -> Message:
        original = self._store.transaction_of(Original.of(message))
        token = self._store.token(self._fingerprint(message.get(2)))
        response_code = self._check(message, token)
        if response_code == APPROVED and token is not None:
            if original is None or not _capturable(original, message):
                response_code = INVALID_TRANSACTION
            elif token.behaviour == Behaviour.INCREMENT_DECLINE:
                response_code = token.response_code
            else:
                self._store.increment(original.id, amount(message).amount_minor)
        decided = answer(message, response_code, _approval(response_code))
        self._store.keep_transaction(message, Kind.INCREMENT, token, decided, original.id if original else None)
        return decided

    def _refund(self, message: Message) -> Message:
        original = self._store.transaction_of(Original.of(message))
        token = self._store.token(self._fingerprint(message.get(2)))
        money = amount(message)
        response_code = APPROVED
        if token is None:
            response_code = UNKNOWN_NUMBER
        elif self._store.reversed_ahead(_as_original(message)):
            response_code = DECLINED
        elif original is None or not _stands(original, message, Kind.AUTHORIZATION, Kind.SALE):
            response_code = INVALID_TRANSACTION
        elif original.refunded_minor + money.amount_minor > original.captured_minor:
            response_code = INVALID_AMOUNT
        elif token.behaviour == Behaviour.REFUND_DECLINE:
            response_code = token.response_code
        else:
            self._store.refund(original.id, money.amount_minor)
        decided = self._settled(message, response_code, _approval(response_code))
        refund = self._store.keep_transaction(message, Kind.REFUND, token, decided, original.id if original else None)
        if response_code == APPROVED and token is not None:
            self._store.clearing.add(ClearingKind.REFUND, refund, money.amount_minor, message=message)
            if token.behaviour == Behaviour.REFUND_RETURN:
                self._store.clearing.add_return(refund, money.amount_minor)
        return decided

    def _capture(self, message: Message) -> str:
        original = self._store.transaction_of(Original.of(message))
        money = amount(message)
        if original is None:
            return ORIGINAL_UNKNOWN
        if not _capturable(original, message):
            return INVALID_TRANSACTION
        if original.captured_minor + money.amount_minor > original.authorized_minor:
            return INVALID_AMOUNT
        self._store.capture(original.id, money.amount_minor, final=is_final(message))
        self._store.clearing.add(ClearingKind.PRESENTMENT, original.id, money.amount_minor, message=message)
        if is_final(message):
            token = self._store.token(self._fingerprint(message.get(2)))
            self._dispute(token, original.id, original.captured_minor + money.amount_minor)
        return APPROVED

    def _dispute(self, token: Token | None, transaction_id: int, captured_minor: int) -> None:
        """Some test cards dispute what was captured."""
        disputed = _DISPUTING.get(Behaviour(token.behaviour)) if token and captured_minor else None
        if disputed is not None:
            kind, reason_code = disputed
            self._store.disputes.open(transaction_id, kind, captured_minor, reason_code)

    def _reverse(self, message: Message) -> str:
        """A reversal of something that is not known (yet) is remembered: if it still comes, it is declined.

        What was captured by an advice of its own is given back by a refund only; a sale that was not refunded yet
        is taken back whole. An authorization goes with its increments; an increment goes by itself as long as nothing
        was captured.
        """
        named = Original.of(message)
        original = self._store.transaction_of(named)
        if original is None:
            self._store.remember_reversal(named)
            return APPROVED
        if original.reversed_at is not None:
            return APPROVED
        if original.response_code != APPROVED:
            self._store.reverse(original.id)
            return APPROVED
        about = self._store.transaction(original.about) if original.about is not None else None
        if _captured(about if about is not None and original.kind is Kind.INCREMENT else original):
            return NO_ACTION_TAKEN
        if self._store.clearing.returned(original.id) or self._store.disputes.disputed(original.id):
            return NO_ACTION_TAKEN
        self._store.reverse(original.id)
        self._store.clearing.take_back(original.id, message)
        if about is not None and original.kind is Kind.REFUND:
            self._store.refund(about.id, -original.amount_minor)
        if about is not None and original.kind is Kind.INCREMENT:
            self._store.increment(about.id, -original.amount_minor)
        return APPROVED

    def _release(self, message: Message) -> str:
        """Frees what is left of an authorization. What stays of it is all that was captured, or the two disagree."""
        original = self._store.transaction_of(Original.of(message))
        if original is None:
            return ORIGINAL_UNKNOWN
        if not _stands(original, message, Kind.AUTHORIZATION):
            return INVALID_TRANSACTION
        if replacement_minor(message) != original.captured_minor:
            return INVALID_AMOUNT
        if original.completed_at is None:
            self._store.capture(original.id, 0, final=True)
            self._dispute(self._store.token(self._fingerprint(message.get(2))), original.id, original.captured_minor)
        return APPROVED

    def _provision(self, message: Message) -> str:
        pan, dpan = token_pan(message), message.get(2)
        if not luhn_valid(pan) or not luhn_valid(dpan):
            return UNKNOWN_NUMBER
        test_card = card(pan)
        token = Token(
            self._fingerprint(dpan),
            self._fingerprint(pan),
            masked(pan),
            test_card.name,
            test_card.behaviour,
            test_card.response_code,
        )
        known = self._store.token(token.fingerprint)
        if known is None:
            self._store.keep_token(token, masked(dpan))
        elif known.card_fingerprint != token.card_fingerprint or known.deleted:
            return INVALID_TRANSACTION
        return APPROVED

    def _deprovision(self, message: Message) -> str:
        fingerprint = self._fingerprint(message.get(2))
        if self._store.token(fingerprint) is None:
            return UNKNOWN_NUMBER
        self._store.delete_token(fingerprint)
        return APPROVED

    def _settled(self, message: Message, response_code: str, more: Mapping[int, str] | None = None) -> Message:
        """The answer to what moves money, with the day of clearing (DE15) to which it belongs when it is approved."""
        day = {15: f"{self._store.clearing.day():%m%d}"} if response_code == APPROVED else {}
        return answer(message, response_code, {**(more or {}), **day})

    def _loses_acknowledgement(self, message: Message) -> bool:
        if message.mti not in ("0420", "0421"):
            return False
        token = self._store.token(self._fingerprint(message.get(2)))
        if token is None or token.behaviour != Behaviour.LOST_REVERSAL:
            return False
        return self._store.reversals_received(message) < self._lost_acknowledgements

    def _fingerprint(self, number: str) -> str:
        return hmac.new(self._fingerprint_key, number.encode(), hashlib.sha256).hexdigest()


def _same(message: Message, before: Message) -> bool:
    """Whether a message that claims to be a repeat is about what its first sending was about."""
    return all(message.fields.get(number) == before.fields.get(number) for number in (4, 37, 49))


def _stands(original: Transaction, message: Message, *kinds: Kind) -> bool:
    return (
        original.kind in kinds
        and original.response_code == APPROVED
        and original.reversed_at is None
        and original.currency == message.get(49)
    )


def _capturable(original: Transaction, message: Message) -> bool:
    return _stands(original, message, Kind.AUTHORIZATION) and original.completed_at is None


def _captured(original: Transaction) -> bool:
    """Whether it has gone too far to be reversed. A sale has not as long as nothing of it was refunded."""
    if original.kind is Kind.SALE:
        return original.refunded_minor > 0
    return original.captured_minor > 0 or original.completed_at is not None


def _kind(message: Message) -> Kind:
    if message.mti.startswith("020"):
        return Kind.SALE
    return Kind.VERIFICATION if is_verification(message) else Kind.AUTHORIZATION


def _as_original(message: Message) -> Original:
    """`message`, be it a first sending or a repeat, as DE90 of its reversal names it."""
    return Original(f"{message.mti[:3]}0", message.get(11), message.get(7), message.get(32).lstrip("0"))


def _found(message: Message, behaviour: Behaviour, response_code: str) -> dict[int, str]:
    """DE44: what the issuer says of the security code and the address that came along."""
    if response_code in _NOT_ASKED:
        return {}
    code_result = None
    if cvv(message) is not None:
        code_result = "N" if behaviour is Behaviour.CVC_FAIL or response_code == _CODE_WRONG else "M"
    street, postal_code = address(message)
    address_result = None
    if street is not None or postal_code is not None:
        matching = (
            street is not None and behaviour not in (Behaviour.ADDRESS_FAIL, Behaviour.LINE1_FAIL),
            postal_code is not None and behaviour not in (Behaviour.ADDRESS_FAIL, Behaviour.POSTAL_CODE_FAIL),
        )
        address_result = "U" if behaviour is Behaviour.ADDRESS_UNAVAILABLE else _ADDRESS_LETTERS[matching]
    return check_results(address_result, code_result)


# Street matches, postal code matches.
_ADDRESS_LETTERS: Final = {(True, True): "Y", (True, False): "A", (False, True): "Z", (False, False): "N"}


def _approval(response_code: str) -> dict[int, str]:
    return {38: f"{secrets.randbelow(10**6):06d}"} if response_code == APPROVED else {}
