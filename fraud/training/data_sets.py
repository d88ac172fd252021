"""The two sets of labelled payments and how each is cut into periods."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet

from fraud.events import PaymentEvent, Place
from fraud.features import MODEL_FEATURES, feature_values
from fraud.rules import DEFAULT_RULES
from fraud.state import StreamingState
from fraud.training import generator
from fraud.windows import DAY_MS, HOUR_MS

DATA = Path(__file__).parent / "data"
PAYMENTS_FILE = "sparkov_A_days000_272.parquet"
CARDS_FILE = "sparkov_A_cards.parquet"

# A chargeback or a complaint takes about this long: a period's labels are not known before.
LABEL_DELAY_DAYS = 7

_SPARKOV_START_MS = int(datetime(2019, 1, 1, tzinfo=UTC).timestamp() * 1000)

# The simulator's categories as merchant category codes (ISO 18245).
_SPARKOV_CATEGORIES = {
    "entertainment": 7832, "food_dining": 5812, "gas_transport": 5541, "grocery_net": 5411, "grocery_pos": 5411,
    "health_fitness": 7997, "home": 5200, "kids_pets": 5641, "misc_net": 5999, "misc_pos": 5331,
    "personal_care": 7298, "shopping_net": 5964, "shopping_pos": 5311, "travel": 4722,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Periods:
    """Days in order of time: training, then validation (thresholds), then test (figures), `LABEL_DELAY_DAYS` apart."""

    train_end: int
    validation_end: int
    test_end: int

    def masks(self, days: np.ndarray) -> dict[str, np.ndarray]:
        return {
            "train": days < self.train_end,
            "validation": (days >= self.train_end + LABEL_DELAY_DAYS) & (days < self.validation_end),
            "test": (days >= self.validation_end + LABEL_DELAY_DAYS) & (days < self.test_end),
        }


@dataclass(frozen=True, slots=True)
class DataSet:
    """Rows in order of time: `features` (rows, len(MODEL_FEATURES)), `labels` and `days`.

    `flagged` are the rows that a rule matches, `ignored` those whose score the rules let not count; both are filled
    for the test period only. `version` is a digest of what the rows came from.
    """

    name: str
    version: str
    periods: Periods
    features: np.ndarray
    labels: np.ndarray
    days: np.ndarray
    flagged: np.ndarray
    ignored: np.ndarray


def sparkov() -> DataSet:
    content = hashlib.sha256((DATA / PAYMENTS_FILE).read_bytes() + (DATA / CARDS_FILE).read_bytes()).hexdigest()
    rows = parquet.read_metadata(DATA / PAYMENTS_FILE).num_rows
    return played("sparkov", content[:16], Periods(180, 220, 273), _sparkov_events(), rows, _SPARKOV_START_MS)


def generated() -> DataSet:
    payments = generator.generate()
    return played(
        "generated",
        generator.digest(payments)[:16],
        Periods(50, 72, generator.DAYS),
        ((payment.event, payment.fraud) for payment in payments),
        len(payments),
        generator.START_MS,
    )


def played(
    name: str,
    version: str,
    periods: Periods,
    events: Iterable[tuple[PaymentEvent, bool]],
    rows: int,
    start_ms: int,
) -> DataSet:
    """Plays the events through the streaming state, as serving would: each row knows only what came before it."""
    features = np.empty((rows, len(MODEL_FEATURES)), dtype=np.float32)
    labels, flagged, ignored = (np.zeros(rows, dtype=bool) for _ in range(3))
    days = np.empty(rows, dtype=np.int32)
    state = StreamingState()
    test_start = periods.validation_end + LABEL_DELAY_DAYS
    for row, (event, fraud) in enumerate(events):
        values = feature_values(event, state.observe(event))
        features[row] = [values[name] for name in MODEL_FEATURES]
        labels[row], days[row] = fraud, (event.at_ms - start_ms) // DAY_MS
        if days[row] >= test_start:
            flagged[row] = any(rule.matches(values) for rule in DEFAULT_RULES.rules)
            ignored[row] = DEFAULT_RULES.ignores_score(values)
    return DataSet(name, version, periods, features, labels, days, flagged, ignored)


def _sparkov_events() -> Iterator[tuple[PaymentEvent, bool]]:
    cards = parquet.read_table(DATA / CARDS_FILE, columns=["card", "home_lat", "home_long"]).to_pydict()
    homes = {
        card: Place(latitude, longitude)
        for card, latitude, longitude in zip(cards["card"], cards["home_lat"], cards["home_long"], strict=True)
    }
    row = 0
    columns = ["t", "card", "merchant", "category", "amount_cents", "fraud"]
    for batch in parquet.ParquetFile(DATA / PAYMENTS_FILE).iter_batches(columns=columns):
        for payment in batch.to_pylist():
            home = homes[payment["card"]]
            row += 1
            # The set's clock is the payer's; ours is UTC. Neighbours in time may change places, as in real life.
            local_ms = _SPARKOV_START_MS + payment["t"] * 1000
            yield (
                PaymentEvent(
                    payment=f"p{row}",
                    card=f"c{payment['card']}",
                    user=f"u{payment['card']}",
                    merchant=f"m{payment['merchant']}",
                    category=_SPARKOV_CATEGORIES[payment["category"]],
                    cents=payment["amount_cents"],
                    at_ms=local_ms - int(home.longitude / 15 * HOUR_MS),
                    place=home,
                ),
                payment["fraud"],
            )
