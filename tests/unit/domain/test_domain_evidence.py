"""The line that the network's message has room for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.evidence import MAX_STATEMENT_LENGTH, TextField, statement_of


@pytest.mark.parametrize(
    ("texts", "statement"),
    [
        ({}, ""),
        ({"customer_name": "Ada Lovelace", "billing_address": "12 St James's Square"}, ""),
        ({"product_description": "42 cups"}, "42 cups"),
        ({"product_description": "42 cups", "uncategorized_text": "They were here"}, "They were here"),
        ({"product_description": "42 cups", "uncategorized_text": ""}, "42 cups"),
        ({"refund_refusal_explanation": "Café crème,\n\tgetrunken – bezahlt"}, "Cafe creme, getrunken bezahlt"),
        ({"product_description": "x" * 89 + " y" * 50}, "x" * 89),
    ],
)
def test_the_statement_is_one_line_of_what_the_merchant_says(texts: dict[str, str], statement: str) -> None:
    assert statement_of(texts) == statement


@given(st.dictionaries(st.sampled_from(TextField), st.text(max_size=300)))
def test_the_statement_is_always_printable_ascii_and_short(texts: dict[str, str]) -> None:
    statement = statement_of(texts)
    assert len(statement) <= MAX_STATEMENT_LENGTH
    assert statement.isascii()
    assert statement == "" or statement.isprintable()
    assert statement == statement.strip()
