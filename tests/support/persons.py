"""Persons for tests: users in the database, and what they say of themselves."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import date

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from domain.ids import ACCOUNT, USER, new_id
from domain.personal import Address, DocumentType, IdentityDocument, PersonalDetails
from domain.travel_documents import check_digit


@dataclass(frozen=True, slots=True)
class AddedUser:
    user_id: str
    account_id: str


async def add_user(engine: AsyncEngine) -> AddedUser:
    user = AddedUser(new_id(USER), new_id(ACCOUNT))
    async with engine.begin() as connection:
        name = {"account": user.account_id, "name": f"persons-{secrets.token_hex(6)}"}
        await connection.execute(text("INSERT INTO platform.accounts (id, name) VALUES (:account, :name)"), name)
        await connection.execute(
            text("""
            INSERT INTO platform.users (id, account_id, name, email, phone)
            VALUES (:user, :account, 'Anna Eriksson', 'anna@example.com', '+46700000000')
            """),
            {"user": user.user_id, "account": user.account_id},
        )
    return user


def passport(
    number: str = "L898902C3",
    *,
    surname: str = "ERIKSSON",
    given: str = "ANNA<MARIA",
    born_on: date = date(1974, 8, 12),
    expires_on: date = date(2031, 4, 15),
) -> tuple[str, str]:
    """The machine-readable zone of a passport (ICAO 9303-4), with its check digits."""
    first = f"P<UTO{surname}<<{given}".ljust(44, "<")
    filled = number.ljust(9, "<")
    birth, expiry = f"{born_on:%y%m%d}", f"{expires_on:%y%m%d}"
    optional = "<" * 14
    head = f"{filled}{check_digit(filled)}"
    middle = f"{birth}{check_digit(birth)}"
    tail = f"{expiry}{check_digit(expiry)}{optional}{check_digit(optional)}"
    return first, f"{head}UTO{middle}F{tail}{check_digit(head + middle + tail)}"


def details(
    name: str = "Anna Maria Eriksson",
    *,
    born_on: date = date(1974, 8, 12),
    expires_on: date | None = date(2031, 4, 15),
) -> PersonalDetails:
    """A person who is in order; without `expires_on` one without a document."""
    document = None
    if expires_on is not None:
        mrz = passport(born_on=born_on, expires_on=expires_on)
        document = IdentityDocument(DocumentType.PASSPORT, "L898902C3", "SE", expires_on, mrz)
    return PersonalDetails(name, born_on, Address("1 Ocean Drive", "Zenith", "10001", "SE"), document)
