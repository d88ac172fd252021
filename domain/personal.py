"""Who a person is, as they say it, and what must be right about it before anybody looks further.

What is here exists in clear in the process that receives it and in the one that checks it, for the length of a call.
Everywhere else it is ciphertext, so none of these types travels through a workflow.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import date
from enum import StrEnum
from typing import Any

from domain.countries import NUMERIC_BY_ALPHA_2
from domain.travel_documents import MachineReadable, MrzInvalid, read

# Full legal age in nearly all countries; the platform's terms know no other.
MINIMUM_AGE_YEARS = 18
_OLDEST_YEARS = 125


class DocumentType(StrEnum):
    PASSPORT = "passport"
    ID_CARD = "id_card"
    DRIVING_LICENCE = "driving_licence"


@dataclass(frozen=True, slots=True)
class Address:
    """`country` is ISO 3166-1 alpha-2."""

    line1: str = field(repr=False)
    city: str = field(repr=False)
    postal_code: str = field(repr=False)
    country: str
    line2: str = field(default="", repr=False)
    region: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class IdentityDocument:
    """`mrz` are the lines of its machine-readable zone; a passport or identity card has one, a licence has none."""

    type: DocumentType
    number: str = field(repr=False)
    country: str
    expires_on: date
    mrz: tuple[str, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class PersonalDetails:
    """`us_tax_id` is an SSN or ITIN, nine digits, with or without hyphens."""

    legal_name: str = field(repr=False)
    date_of_birth: date = field(repr=False)
    address: Address
    document: IdentityDocument | None = None
    us_tax_id: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Problem:
    """`code` says what is wrong, `param` where. Neither holds anything of the person."""

    code: str
    param: str
    message: str


def problems(details: PersonalDetails, today: date) -> list[Problem]:
    """What is wrong with `details` by itself: dates, formats, check digits. Nothing outside is asked."""
    return [
        *_of_birth(details.date_of_birth, today),
        *_of_country(details.address.country, "address.country"),
        *_of_tax_id(details.us_tax_id),
        *(_of_document(details.document, details, today) if details.document else ()),
    ]


def machine_readable(document: IdentityDocument, today: date) -> MachineReadable | None:
    """What its machine-readable zone says, if it has one.

    Raises:
        MrzInvalid: a check digit is wrong, or it is no such zone.
    """
    return read(document.mrz, today) if document.mrz else None


def age_years(born_on: date, today: date) -> int:
    """Completed years. Who was born on 29 February has their birthday on 1 March in other years."""
    return today.year - born_on.year - ((today.month, today.day) < (born_on.month, born_on.day))


def is_us_tax_id(text: str) -> bool:
    """Whether `text` can be an SSN (SSA, POMS RM 10201.035) or an ITIN (IRS, IRM 3.21.263)."""
    match = re.fullmatch(r"(\d{3})-?(\d{2})-?(\d{4})", text, re.ASCII)
    if match is None:
        return False
    area, group, serial = match.groups()
    if area[0] == "9":
        return 50 <= int(group) <= 65 or 70 <= int(group) <= 88 or 90 <= int(group) <= 92 or 94 <= int(group) <= 99
    return area not in ("000", "666") and group != "00" and serial != "0000"


def to_json(details: PersonalDetails) -> bytes:
    """For encryption; `from_json` reads it again."""
    return json.dumps(asdict(details), default=str, ensure_ascii=False, sort_keys=True).encode()


def from_json(content: bytes) -> PersonalDetails:
    found: dict[str, Any] = json.loads(content)
    document = found["document"]
    return PersonalDetails(
        legal_name=found["legal_name"],
        date_of_birth=date.fromisoformat(found["date_of_birth"]),
        address=Address(**found["address"]),
        document=None
        if document is None
        else IdentityDocument(
            type=DocumentType(document["type"]),
            number=document["number"],
            country=document["country"],
            expires_on=date.fromisoformat(document["expires_on"]),
            mrz=tuple(document["mrz"]),
        ),
        us_tax_id=found["us_tax_id"],
    )


def _of_birth(born_on: date, today: date) -> Iterator[Problem]:
    if born_on > today or age_years(born_on, today) > _OLDEST_YEARS:
        yield Problem("date_of_birth_invalid", "date_of_birth", "nobody alive was born then")
    elif age_years(born_on, today) < MINIMUM_AGE_YEARS:
        yield Problem("underage", "date_of_birth", f"the user must be {MINIMUM_AGE_YEARS} years old")


def _of_country(country: str, param: str) -> Iterator[Problem]:
    if country not in NUMERIC_BY_ALPHA_2:
        yield Problem("country_unknown", param, "must be an ISO 3166-1 code of two letters")


def _of_tax_id(tax_id: str | None) -> Iterator[Problem]:
    if tax_id is not None and not is_us_tax_id(tax_id):
        yield Problem("tax_id_invalid", "us_tax_id", "must be an SSN or ITIN of nine digits that can be assigned")


def _of_document(document: IdentityDocument, details: PersonalDetails, today: date) -> Iterator[Problem]:
    yield from _of_country(document.country, "document.country")
    if document.expires_on < today:
        yield Problem("document_expired", "document.expires_on", "the document has expired")
    if document.type is DocumentType.PASSPORT and not document.mrz:
        yield Problem("mrz_invalid", "document.mrz", "a passport has a machine-readable zone")
    try:
        zone = machine_readable(document, today)
    except MrzInvalid as error:
        yield Problem("mrz_invalid", "document.mrz", error.what)
        return
    if zone is not None:
        said = {
            "document.number": zone.number == re.sub(r"[^A-Z0-9]", "", document.number.upper()),
            "document.expires_on": zone.expires_on == document.expires_on,
            "date_of_birth": zone.born_on == details.date_of_birth,
        }
        yield from (
            Problem("mrz_mismatch", param, "is not what the machine-readable zone says")
            for param, agrees in said.items()
            if not agrees
        )
