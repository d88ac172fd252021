"""The committed artefact: that it loads, fits this code, scores sensibly and refuses to be anything else."""

from __future__ import annotations

import json
import shutil
from itertools import product
from pathlib import Path

import pytest

from domain.risk import RiskAction
from fraud.events import PaymentEvent, Place
from fraud.features import FEATURE_NAMES, MODEL_FEATURES, feature_values
from fraud.model import METRICS_FILE, MODEL_FILE, FraudModel, ModelMismatch, ScoringFailed, Thresholds, load_model
from fraud.rules import DEFAULT_RULES
from fraud.state import StreamingState

_ARTIFACTS = Path(__file__).parents[3] / "fraud" / "artifacts"
_NOON_MS = 1_793_620_800_000


@pytest.fixture(scope="module")
def model() -> FraudModel:
    return FraudModel.load(_ARTIFACTS)


@pytest.fixture
def artifacts(tmp_path: Path) -> Path:
    return Path(shutil.copytree(_ARTIFACTS, tmp_path / "artifacts"))


def _burst(payments: int, cents: int) -> dict[str, float]:
    state = StreamingState()
    rows = [
        feature_values(event, state.observe(event))
        for event in (
            PaymentEvent(f"p{n}", f"c{n}", "u", "m", 5732, cents, _NOON_MS + n * 20_000, "d", "i")
            for n in range(payments)
        )
    ]
    return rows[-1]


def test_the_artefact_is_small_and_made_for_these_features(model: FraudModel) -> None:
    assert (_ARTIFACTS / MODEL_FILE).stat().st_size < 1_000_000
    assert model.features == MODEL_FEATURES
    metrics = json.loads((_ARTIFACTS / METRICS_FILE).read_text())
    assert metrics["version"] == model.version
    assert metrics["thresholds"]["step_up"] == model.thresholds.step_up


def test_no_demographics_and_no_label_is_a_feature(model: FraudModel) -> None:
    for word in ("gender", "birth", "pop", "state", "fraud", "scenario", "label", "merchant_count"):
        assert not any(word in name for name in model.features)


def test_held_out_figures_are_recorded_for_each_data_set() -> None:
    metrics = json.loads((_ARTIFACTS / METRICS_FILE).read_text())
    for figures in metrics["data_sets"].values():
        assert figures["auc"] > 0.95
        assert figures["average_precision"] > 0.8
        assert figures["rows"]["test"] > 10_000


def test_a_plain_first_payment_is_allowed_at_any_hour_with_any_signals(model: FraudModel) -> None:
    for cents, hour, category, signals in product(
        (1000, 2500, 9900, 20_000), range(0, 24, 4), (0, 5411, 5732, 5734, 5812, 7995), range(4)
    ):
        event = PaymentEvent(
            "p", "c", "u", "m", category, cents, _NOON_MS + hour * 3_600_000,
            "d" if signals > 0 else None, "i" if signals > 1 else None, Place(40.7, -74.0) if signals > 2 else None,
        )  # fmt: skip
        features = feature_values(event, StreamingState().observe(event))
        action = model.thresholds.action(model.score(features))
        assert DEFAULT_RULES.ignores_score(features) or action is RiskAction.ALLOW
        assert DEFAULT_RULES.judge(features)[0] is RiskAction.ALLOW


def test_many_new_cards_on_one_device_score_higher_than_one(model: FraudModel) -> None:
    assert model.score(_burst(1, 40_000)) < model.thresholds.review < model.score(_burst(8, 40_000))


def test_the_main_contributions_are_features_that_raised_the_score(model: FraudModel) -> None:
    main = model.main_contributions(_burst(8, 40_000))
    assert 1 <= len(main) <= 3
    assert set(main) <= set(MODEL_FEATURES)


def test_thresholds_turn_scores_into_actions() -> None:
    thresholds = Thresholds(0.1, 0.5, 0.9)
    actions = [thresholds.action(score) for score in (0.0, 0.0999, 0.1, 0.5, 0.9, 1.0)]
    assert actions == [
        RiskAction.ALLOW, RiskAction.ALLOW, RiskAction.STEP_UP, RiskAction.REVIEW, RiskAction.BLOCK, RiskAction.BLOCK,
    ]  # fmt: skip
    with pytest.raises(ValueError, match="rise"):
        Thresholds(0.5, 0.4, 0.9)


def test_a_row_that_lacks_a_feature_is_not_scored(model: FraudModel) -> None:
    with pytest.raises(ScoringFailed):
        model.score({name: 0.0 for name in FEATURE_NAMES if name != "amount"})


def test_where_there_is_no_model_none_is_loaded(tmp_path: Path) -> None:
    assert load_model(tmp_path) is None


def test_a_changed_model_file_is_refused(artifacts: Path) -> None:
    content = bytearray((artifacts / MODEL_FILE).read_bytes())
    content[len(content) // 2] ^= 1
    (artifacts / MODEL_FILE).write_bytes(content)
    with pytest.raises(ModelMismatch, match="not the file"):
        load_model(artifacts)


def test_a_model_without_its_record_is_refused(artifacts: Path) -> None:
    (artifacts / METRICS_FILE).unlink()
    with pytest.raises(ModelMismatch, match="FileNotFoundError"):
        load_model(artifacts)


def test_a_model_of_another_version_of_the_features_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fraud.features.FEATURES_VERSION", 2)
    with pytest.raises(ModelMismatch, match="another version"):
        load_model(_ARTIFACTS)


def test_a_model_that_wants_a_feature_that_is_gone_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fraud.model.FEATURE_NAMES", FEATURE_NAMES[1:])
    with pytest.raises(ModelMismatch, match="not computed: amount"):
        load_model(_ARTIFACTS)
