"""Addresses as they are written to, and as they are found."""

from __future__ import annotations

import pytest

from domain.contact_codes import ContactCodes
from identity import contacts
from identity.errors import ContactInvalid


@pytest.mark.parametrize(
    ("written", "address", "lookup"),
    [
        ("Ada@Example.COM", "Ada@example.com", "ada@example.com"),
        (" ada+shop@example.com ", "ada+shop@example.com", "ada+shop@example.com"),
        ("ada@Bücher.example", "ada@xn--bcher-kva.example", "ada@xn--bcher-kva.example"),
        ("ada@faß.de", "ada@xn--fa-hia.de", "ada@xn--fa-hia.de"),  # IDNA 2008, not "fass.de" of 2003
        ("ada@例え.テスト", "ada@xn--r8jz45g.xn--zckzah", "ada@xn--r8jz45g.xn--zckzah"),
        (f"{'a' * 64}@example.com", f"{'a' * 64}@example.com", f"{'a' * 64}@example.com"),
    ],
)
def test_an_address_keeps_its_local_part_and_is_found_whatever_the_case(
    written: str, address: str, lookup: str
) -> None:
    found = contacts.email(written)
    assert (found.address, found.lookup) == (address, lookup)
    assert address not in repr(found)


@pytest.mark.parametrize(
    "written",
    [
        "",
        "ada",
        "@example.com",
        "ada@",
        "ada@localhost",
        "ada@example.com.",
        "ada@example..com",
        "ada@-example.com",
        "ada@exa mple.com",
        ".ada@example.com",
        "ada.@example.com",
        "a..da@example.com",
        "ada lovelace@example.com",
        "ada@example.com\r\nBcc: eve@example.com",
        '"ada"@example.com',
        "adä@example.com",
        f"{'a' * 65}@example.com",
        f"a@{'b' * 64}.com",
        f"a@{'b.' * 130}com",
    ],
)
def test_what_nobody_can_be_reached_at_is_refused(written: str) -> None:
    with pytest.raises(ContactInvalid) as refused:
        contacts.email(written)
    assert refused.value.kind == "email"
    assert not written or written not in str(refused.value)


@pytest.mark.parametrize("written", ["+1 (415) 555-0100", "+1-415-555-0100", "+14155550100"])
def test_a_number_is_e164(written: str) -> None:
    found = contacts.phone(written)
    assert (found.address, found.lookup) == ("+14155550100", "+14155550100")


@pytest.mark.parametrize("written", ["", "4155550100", "+1", "+1415555010000000000", "call me"])
def test_a_number_without_its_country_or_of_no_possible_length_is_refused(written: str) -> None:
    with pytest.raises(ContactInvalid):
        contacts.phone(written)


def test_a_code_is_of_its_request_its_sending_and_its_address_alone() -> None:
    codes = ContactCodes(bytes(range(32)))
    made = {
        codes.code(request, sending, address)
        for request in ("otc_1", "otc_2")
        for sending in (1, 2)
        for address in ("a@example.com", "b@example.com")
    }
    assert len(made) == 8
    assert all(len(code) == 6 and code.isdigit() for code in made)
    assert codes.matches("otc_1", 1, "a@example.com", codes.code("otc_1", 1, "a@example.com"))
    assert not codes.matches("otc_1", 2, "a@example.com", codes.code("otc_1", 1, "a@example.com"))
    assert ContactCodes(bytes(32)).code("otc_1", 1, "a@example.com") not in made
