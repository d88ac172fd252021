"""Disputes on the link: what the network says of a case, and what the acquirer answers.

Both are administrative advices (0620, repeated as 0621 until a 0630) with DE124: sub-fields of two digits of name, two
of length, and the value. DE37 is the RRN of the disputed authorization or sale, DE4 and DE49 are what is disputed.

| sub-field | holds |
|---|---|
| 01 | the network's number of the case, at most 10 letters and digits |
| 02 | `O`, `W`, `L`: opened, won or lost, says the network; `R`, `A`: represented or accepted, says the acquirer |
| 03 | `I` or `C`: inquiry or chargeback |
| 04 | the reason, in the scheme's own code |
| 05, 06 | when the network issued it, and by when it wants an answer: `YYYYMMDDhhmmss`, UTC |
| 07, 08 | SHA-256 of the evidence's manifest, and the number of its documents |
| 09 | a line in the merchant's words |

A notice of what moves money has its day of clearing in DE15.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Final, TypeVar

from domain.disputes import DisputeKind, NoticeStage
from domain.money import Money
from network.codec import Message
from network.errors import MessageInvalid
from network.messages import Purchase, Trace, amount, ascii_text, parse_subfields, settlement_date, subfields

_T = TypeVar("_T")

_DATA: Final = 124
_CASE, _WHAT, _KIND, _REASON, _ISSUED, _RESPOND_BY, _DIGEST, _DOCUMENTS, _STATEMENT = (
    f"{number:02d}" for number in range(1, 10)
)
_STAGES: Final[Mapping[NoticeStage, str]] = {NoticeStage.OPENED: "O", NoticeStage.WON: "W", NoticeStage.LOST: "L"}
_KINDS: Final[Mapping[DisputeKind, str]] = {DisputeKind.INQUIRY: "I", DisputeKind.CHARGEBACK: "C"}
_REPRESENTED: Final = "R"
_ACCEPTED: Final = "A"
_TIME: Final = "%Y%m%d%H%M%S"
_TIME_DIGITS: Final = 14
_CASE_NUMBER: Final = re.compile(r"[0-9A-Z]{1,10}", re.ASCII)
_REASON_CODE: Final = re.compile(r"[0-9A-Z.]{1,4}", re.ASCII)
_MAX_STATEMENT: Final = 90


@dataclass(frozen=True, slots=True)
class CaseNotice:
    """What the network says. `settlement_date` is there when the disputed money moves with it."""

    chargeback_id: str
    kind: DisputeKind
    stage: NoticeStage
    rrn: str
    money: Money
    reason_code: str
    issued_at: datetime
    respond_by: datetime | None = None
    settlement_date: date | None = None


@dataclass(frozen=True, slots=True)
class CaseAnswer:
    """What the acquirer says: with evidence it contests the case, without any it gives in."""

    chargeback_id: str
    evidence_sha256: str | None = None
    documents: int = 0
    statement: str = ""


def is_about_case(message: Message) -> bool:
    """Whether an administrative advice is about a dispute."""
    return _DATA in message.fields


def notice(case: CaseNotice, trace: Trace, *, repeat: bool = False) -> Message:
    """0620 or 0621 from the network. `trace` has the RRN of the disputed payment and the acquirer's number."""
    data = {
        _CASE: case.chargeback_id,
        _WHAT: _STAGES[case.stage],
        _KIND: _KINDS[case.kind],
        _REASON: case.reason_code,
        _ISSUED: f"{case.issued_at:{_TIME}}",
    }
    if case.respond_by is not None:
        data[_RESPOND_BY] = f"{case.respond_by:{_TIME}}"
    fields = {4: f"{case.money.amount_minor:012d}", 49: case.money.currency.numeric, **trace.fields()}
    if case.settlement_date is not None:
        fields[15] = f"{case.settlement_date:%m%d}"
    return Message("0621" if repeat else "0620", {**fields, _DATA: subfields(data)})


def parse_notice(message: Message, today: date) -> CaseNotice:
    """What a 0620 or 0621 of the network says. `today` tells the year of its day of clearing.

    Raises:
        MessageInvalid: it says nothing that is understood.
    """
    data = parse_subfields(message.get(_DATA), _DATA)
    kind, stage = _named(_KINDS, data, _KIND), _named(_STAGES, data, _WHAT)
    settled = settlement_date(message, today)
    if (kind is DisputeKind.CHARGEBACK and stage is not NoticeStage.LOST) != (settled is not None):
        raise MessageInvalid("a chargeback and its return have a day of clearing, and nothing else has", 15)
    if amount(message).amount_minor == 0:
        raise MessageInvalid("nothing is disputed", 4)
    return CaseNotice(
        _matching(_CASE_NUMBER, data, _CASE),
        kind,
        stage,
        message.get(37),
        amount(message),
        _matching(_REASON_CODE, data, _REASON),
        _time(data.get(_ISSUED, "")),
        _time(data[_RESPOND_BY]) if _RESPOND_BY in data else None,
        settled,
    )


def answer(purchase: Purchase, given: CaseAnswer, *, repeat: bool = False) -> Message:
    """0620 or 0621 to the network. `purchase` has the RRN of the disputed payment and what is disputed."""
    data = {_CASE: given.chargeback_id, _WHAT: _ACCEPTED}
    if given.evidence_sha256 is not None:
        data |= {_WHAT: _REPRESENTED, _DIGEST: given.evidence_sha256, _DOCUMENTS: str(given.documents)}
        if statement := ascii_text(given.statement, _MAX_STATEMENT):
            data[_STATEMENT] = statement
    money = {4: f"{purchase.money.amount_minor:012d}", 49: purchase.money.currency.numeric}
    fields = {**money, **purchase.trace.fields(), **purchase.acceptor.fields(), _DATA: subfields(data)}
    return Message("0621" if repeat else "0620", fields)


def parse_answer(message: Message) -> CaseAnswer:
    """What a 0620 or 0621 of the acquirer says.

    Raises:
        MessageInvalid: it says nothing that is understood.
    """
    data = parse_subfields(message.get(_DATA), _DATA)
    case = _matching(_CASE_NUMBER, data, _CASE)
    match data.get(_WHAT):
        case "A":
            return CaseAnswer(case)
        case "R" if _DIGEST in data and data.get(_DOCUMENTS, "").isdecimal():
            return CaseAnswer(case, data[_DIGEST], int(data[_DOCUMENTS]), data.get(_STATEMENT, ""))
    raise MessageInvalid("not an answer to a dispute", _DATA)


def _named(names: Mapping[_T, str], data: Mapping[str, str], name: str) -> _T:
    for meaning, code in names.items():
        if data.get(name) == code:
            return meaning
    raise MessageInvalid(f"sub-field {name} has no meaning", _DATA)


def _matching(pattern: re.Pattern[str], data: Mapping[str, str], name: str) -> str:
    value = data.get(name, "")
    if not pattern.fullmatch(value):
        raise MessageInvalid(f"sub-field {name} is not in its format", _DATA)
    return value


def _time(text: str) -> datetime:
    try:
        if len(text) != _TIME_DIGITS:
            raise ValueError("parts of a time are missing")
        return datetime.strptime(text, _TIME).replace(tzinfo=UTC)
    except ValueError:
        raise MessageInvalid("a time is none", _DATA) from None
