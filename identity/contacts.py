"""E-mail addresses and phone numbers: as they are written to, and as they are found."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum

import idna
import phonenumbers

from identity.errors import ContactInvalid

# RFC 5321 section 4.1.2 (dot-string) and section 4.5.3.1. Quoted local parts and SMTPUTF8 reach nobody by SES.
_LOCAL_PART = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
_LONGEST_LOCAL_PART = 64
_LONGEST_ADDRESS = 254


class ContactKind(StrEnum):
    EMAIL = "email"
    PHONE = "phone"


@dataclass(frozen=True, slots=True)
class Contact:
    """`address` is what messages go to. `lookup` is what it is found by: two addresses with the same are one."""

    kind: ContactKind
    address: str = field(repr=False)
    lookup: str = field(repr=False)


def email(value: str) -> Contact:
    """The local part is kept as it was written, because only its own host knows whether case matters (RFC 5321 section
    2.4); it is found whatever the case, because no two people share such addresses. The domain is the A-labels of IDNA
    2008 in lower case (RFC 5891), after the mapping of UTS 46.

    Raises:
        ContactInvalid: it is no address.
    """
    local, at, domain = value.strip().rpartition("@")
    if not at or len(local) > _LONGEST_LOCAL_PART or not _LOCAL_PART.fullmatch(local):
        raise ContactInvalid("email")
    try:
        host = idna.encode(domain, uts46=True).decode().lower()
    except (idna.IDNAError, UnicodeError):
        raise ContactInvalid("email") from None
    if "." not in host.strip(".") or host.endswith(".") or len(local) + 1 + len(host) > _LONGEST_ADDRESS:
        raise ContactInvalid("email")
    return Contact(ContactKind.EMAIL, f"{local}@{host}", f"{local.lower()}@{host}")


def phone(value: str) -> Contact:
    """E.164.

    Raises:
        ContactInvalid: it is no number in international form.
    """
    try:
        number = phonenumbers.parse(value)
    except phonenumbers.NumberParseException:
        raise ContactInvalid("phone") from None
    if not phonenumbers.is_possible_number(number):
        raise ContactInvalid("phone")
    written = phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
    return Contact(ContactKind.PHONE, written, written)
