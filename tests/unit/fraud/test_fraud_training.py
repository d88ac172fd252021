"""Training on a small generated set: same seed, same model; periods in order; labels never early."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from fraud.features import MODEL_FEATURES
from fraud.model import MODEL_FILE, Thresholds
from fraud.training import generator
from fraud.training.data_sets import LABEL_DELAY_DAYS, DataSet, Periods, played
from fraud.training.train import choose_thresholds, fit, scores_of, write


@pytest.fixture(scope="module")
def small() -> DataSet:
    payments = generator.generate(seed=5, days=45, users=60)
    events = ((payment.event, payment.fraud) for payment in payments)
    return played("small", "1", Periods(20, 32, 45), events, len(payments), generator.START_MS)


def test_one_seed_gives_one_set_of_payments() -> None:
    first, again, other = (generator.generate(seed=seed, days=8, users=20) for seed in (1, 1, 2))
    assert generator.digest(first) == generator.digest(again) != generator.digest(other)


def test_generated_payments_come_in_order_with_each_kind_of_fraud() -> None:
    payments = generator.generate(seed=3, days=30, users=80)
    times = [payment.event.at_ms for payment in payments]
    assert times == sorted(times)
    assert len({payment.event.payment for payment in payments}) == len(payments)
    kinds = {"genuine", "card_testing", "account_takeover", "cloned_card", "bust_out", "stolen_cards"}
    assert {payment.scenario for payment in payments} == kinds
    assert all(payment.fraud is (payment.scenario != "genuine") for payment in payments)


def test_periods_follow_each_other_with_the_label_delay_between(small: DataSet) -> None:
    masks = small.periods.masks(small.days)
    spans = [(small.days[masks[period]].min(), small.days[masks[period]].max()) for period in masks]
    for earlier, later in pairwise(spans):
        assert later[0] - earlier[1] > LABEL_DELAY_DAYS


def test_no_label_changes_a_feature(small: DataSet) -> None:
    payments = generator.generate(seed=5, days=45, users=60)
    events = ((payment.event, not payment.fraud) for payment in payments)
    turned = played("small", "1", small.periods, events, len(payments), generator.START_MS)
    assert np.array_equal(turned.features, small.features)
    assert not np.array_equal(turned.labels, small.labels)


def test_a_row_is_the_same_whatever_comes_after_it(small: DataSet) -> None:
    payments = generator.generate(seed=5, days=45, users=60)[:1500]
    cut = played("cut", "1", small.periods, ((item.event, item.fraud) for item in payments), 1500, generator.START_MS)
    assert np.array_equal(cut.features, small.features[:1500])


def test_the_same_training_gives_the_same_file(small: DataSet, tmp_path: Path) -> None:
    for folder in ("one", "two"):
        write(fit([small]), tmp_path / folder, "test", Thresholds(0.1, 0.5, 0.9))
    assert (tmp_path / "one" / MODEL_FILE).read_bytes() == (tmp_path / "two" / MODEL_FILE).read_bytes()


def test_thresholds_keep_the_wanted_precision_where_they_were_chosen(small: DataSet) -> None:
    classifier = fit([small])
    thresholds = choose_thresholds(classifier, [small])
    mask = small.periods.masks(small.days)["validation"]
    labels, scores = small.labels[mask], scores_of(classifier, small.features[mask])
    assert labels[scores >= thresholds.step_up].mean() >= 0.69
    assert small.features.shape[1] == len(MODEL_FEATURES)
