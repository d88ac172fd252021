"""What a person says must be right by itself: dates, formats, check digits."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import pytest

from domain.personal import (
    Address,
    DocumentType,
    IdentityDocument,
    PersonalDetails,
    age_years,
    from_json,
    is_us_tax_id,
    problems,
    to_json,
)
from domain.travel_documents import MrzInvalid, check_digit, read

TODAY = date(2026, 11, 22)

# The specimens of ICAO Doc 9303: part 4 appendix B, part 5 appendix B, part 6 appendix B. Their holders are the same.
PASSPORT = ("P<UTOERIKSSON<<ANNA<MARIA<<<<<<<<<<<<<<<<<<<", "L898902C36UTO7408122F1204159ZE184226B<<<<<10")
CARD = ("I<UTOD231458907<<<<<<<<<<<<<<<", "7408122F1204159UTO<<<<<<<<<<<6", "ERIKSSON<<ANNA<MARIA<<<<<<<<<<")
SMALL_CARD = ("I<UTOERIKSSON<<ANNA<MARIA<<<<<<<<<<<", "D231458907UTO7408122F1204159<<<<<<<6")
# 9303-5, appendix C: a number that goes on in the optional data.
LONG_NUMBER = ("I<UTOD23145890<7349<<<<<<<<<<<", "3407127M9507122UTO<<<<<<<<<<<2", "STEVENSON<<PETER<JOHN<<<<<<<<<")


@pytest.mark.parametrize("lines", [PASSPORT, CARD, SMALL_CARD])
def test_the_specimens_of_the_standard_are_read(lines: tuple[str, ...]) -> None:
    zone = read(lines, TODAY)
    assert (zone.issuer, zone.surname, zone.given_names) == ("UTO", "ERIKSSON", "ANNA MARIA")
    assert (zone.born_on, zone.expires_on) == (date(1974, 8, 12), date(2012, 4, 15))


def test_a_long_number_goes_on_behind_the_filler() -> None:
    zone = read(LONG_NUMBER, TODAY)
    assert zone.number == "D23145890734"
    assert zone.born_on == date(1934, 7, 12)


@pytest.mark.parametrize("lines", [PASSPORT, CARD, SMALL_CARD, LONG_NUMBER])
def test_no_digit_can_be_changed_unnoticed(lines: tuple[str, ...]) -> None:
    """Of the characters that a check digit covers; names and codes of states have none."""
    for number, line in enumerate(lines):
        for place, character in enumerate(line):
            if character.isdecimal():
                other = line[:place] + str((int(character) + 1) % 10) + line[place + 1 :]
                with pytest.raises(MrzInvalid):
                    read([*lines[:number], other, *lines[number + 1 :]], TODAY)


@pytest.mark.parametrize(
    "lines", [(), ("A" * 44,), ("A" * 44, "A" * 30), (PASSPORT[0], PASSPORT[1].lower()), ("é" * 30,) * 3]
)
def test_what_is_no_zone_is_refused(lines: tuple[str, ...]) -> None:
    with pytest.raises(MrzInvalid):
        read(lines, TODAY)


def test_the_check_digit_is_the_standards() -> None:
    assert [check_digit(text) for text in ("520727", "AB2134<<<", "L898902C3")] == ["3", "5", "6"]


@pytest.mark.parametrize(
    ("born_on", "age"),
    [(date(2008, 11, 22), 18), (date(2008, 11, 23), 17), (date(2008, 2, 29), 18), (date(1926, 11, 22), 100)],
)
def test_an_age_is_counted_in_completed_years(born_on: date, age: int) -> None:
    assert age_years(born_on, TODAY) == age


@pytest.mark.parametrize("text", ["123-45-6789", "123456789", "900-70-1234", "988-99-0001", "078-05-1120"])
def test_what_can_be_assigned_is_taken_for_a_tax_id(text: str) -> None:
    assert is_us_tax_id(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "000-12-3456",
        "666-12-3456",
        "123-00-4567",
        "123-45-0000",
        "900-45-1234",
        "900-93-1234",
        "12345678",
        "१२३456789",
    ],
)
def test_what_cannot_be_assigned_is_no_tax_id(text: str) -> None:
    assert not is_us_tax_id(text)


DETAILS = PersonalDetails(
    legal_name="Anna Maria Eriksson",
    date_of_birth=date(1974, 8, 12),
    address=Address("1 Ocean Drive", "Zenith", "10001", "SE"),
    document=IdentityDocument(DocumentType.DRIVING_LICENCE, "D 231-458", "SE", date(2030, 1, 1)),
    us_tax_id="123-45-6789",
)


def _codes(details: PersonalDetails) -> list[tuple[str, str]]:
    return [(problem.code, problem.param) for problem in problems(details, TODAY)]


def test_what_is_in_order_has_no_problem() -> None:
    assert _codes(DETAILS) == []


def test_each_problem_names_its_place_and_nothing_of_the_person() -> None:
    document = DETAILS.document
    assert document is not None
    wrong = replace(
        DETAILS,
        date_of_birth=date(2010, 1, 1),
        address=replace(DETAILS.address, country="XX"),
        document=replace(document, type=DocumentType.PASSPORT, expires_on=date(2026, 11, 21), country="UK"),
        us_tax_id="666-00-0000",
    )
    assert _codes(wrong) == [
        ("underage", "date_of_birth"),
        ("country_unknown", "address.country"),
        ("tax_id_invalid", "us_tax_id"),
        ("country_unknown", "document.country"),
        ("document_expired", "document.expires_on"),
        ("mrz_invalid", "document.mrz"),
    ]
    assert not any("666" in problem.message or "2010" in problem.message for problem in problems(wrong, TODAY))


@pytest.mark.parametrize(
    ("field", "value", "param"),
    [("number", "L898902C4", "document.number"), ("expires_on", date(2012, 4, 16), "document.expires_on")],
)
def test_what_a_document_is_said_to_be_must_agree_with_its_zone(field: str, value: object, param: str) -> None:
    long_ago = date(2011, 1, 1)
    document = IdentityDocument(DocumentType.PASSPORT, "L898902C3", "SE", date(2012, 4, 15), PASSPORT)
    assert problems(replace(DETAILS, document=document), long_ago) == []
    # `dataclasses.replace` with a name that is only known here.
    other = IdentityDocument(**({name: getattr(document, name) for name in document.__slots__} | {field: value}))
    found = problems(replace(DETAILS, document=other), long_ago)
    assert [(problem.code, problem.param) for problem in found] == [("mrz_mismatch", param)]


def test_nobody_alive_is_older_than_anybody_was() -> None:
    for born_on in (date(1880, 1, 1), date(2026, 11, 23)):
        assert _codes(replace(DETAILS, date_of_birth=born_on)) == [("date_of_birth_invalid", "date_of_birth")]


def test_details_survive_being_written_and_read() -> None:
    assert from_json(to_json(DETAILS)) == DETAILS
    assert from_json(to_json(replace(DETAILS, document=None, us_tax_id=None))).document is None


def test_nothing_personal_is_in_a_repr() -> None:
    shown = repr(DETAILS)
    assert not any(secret in shown for secret in ("Anna", "1974", "Ocean", "231", "6789"))
