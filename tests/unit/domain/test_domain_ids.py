from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.ids import (
    PAYMENT,
    derived_id,
    effect_key,
    new_id,
    payment_workflow_id,
    provisioning_workflow_id,
    refund_workflow_id,
)

SHAPE = re.compile(r"pay_[a-z2-7]{24}")
texts = st.text(max_size=8)


def test_random_ids_differ_and_show_what_they_name() -> None:
    made = {new_id(PAYMENT) for _ in range(1000)}
    assert len(made) == 1000
    assert all(SHAPE.fullmatch(identifier) for identifier in made)


def test_a_derived_id_never_changes_because_running_workflows_bear_it() -> None:
    assert derived_id(PAYMENT, "acct_1", "order-42") == "pay_7qvjgq7f5lzq3awz4dxxcata"


@given(st.lists(texts, max_size=4), st.lists(texts, max_size=4))
def test_derived_ids_are_equal_exactly_when_their_parts_are(first: list[str], second: list[str]) -> None:
    assert SHAPE.fullmatch(derived_id(PAYMENT, *first))
    assert (derived_id(PAYMENT, *first) == derived_id(PAYMENT, *second)) == (first == second)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (("ab", "c"), ("a", "bc")),
        (("a", ""), ("", "a")),
        (("a",), ("a", "")),
        ((), ("",)),
        (("a\x00b",), ("a", "b")),
        (("\x00\x00\x00\x01a",), ("", "a")),
    ],
)
def test_where_one_part_ends_belongs_to_the_id(first: tuple[str, ...], second: tuple[str, ...]) -> None:
    assert derived_id(PAYMENT, *first) != derived_id(PAYMENT, *second)


def test_the_prefix_is_no_part_of_the_digest() -> None:
    assert derived_id("pay", "x").removeprefix("pay_") == derived_id("re", "x").removeprefix("re_")


def test_an_id_shows_nothing_of_what_it_is_derived_from() -> None:
    assert "ada" not in derived_id(PAYMENT, "ada@example.com", "ada")


def test_an_effect_has_one_key_for_each_deliberate_attempt() -> None:
    assert effect_key("pay_1", "authorize") == "pay_1:authorize:1"
    assert effect_key("pay_1", "capture", 2) == "pay_1:capture:2"


def test_workflow_ids_name_the_workflow_and_its_subject() -> None:
    assert payment_workflow_id("pay_1") == "payment/pay_1"
    assert refund_workflow_id("re_1") == "refund/re_1"
    assert provisioning_workflow_id("tok_1") == "token-provisioning/tok_1"
