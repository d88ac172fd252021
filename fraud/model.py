"""The trained model: loaded once and checked, then asked for one row at a time.

An artefact is a folder: `model.cbm` (CatBoost) and `metrics.json`. The model file carries, as metadata of its own, its
version, the features it was trained on with their schema hash, and the thresholds that training chose; `metrics.json`
carries the model file's SHA-256. Anything that does not fit this code is refused at start, not scored wrongly later.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from catboost import CatBoostClassifier, CatBoostError, Pool

from domain.errors import DurapayError
from domain.risk import RiskAction
from fraud.features import FEATURE_NAMES, schema_hash

MODEL_FILE = "model.cbm"
METRICS_FILE = "metrics.json"
METADATA_KEY = "durapay"

_log = logging.getLogger(__name__)


class ModelMismatch(DurapayError):
    """The artefact is broken, incomplete or made for other features than this code computes."""


class ScoringFailed(DurapayError):
    """The model gave no probability for a row."""


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The lowest scores that ask for a step-up, for a review and for a block, rising."""

    step_up: float
    review: float
    block: float

    def __post_init__(self) -> None:
        if not 0 < self.step_up <= self.review <= self.block:
            raise ValueError("thresholds must rise from above zero")

    def action(self, score: float) -> RiskAction:
        if score >= self.block:
            return RiskAction.BLOCK
        if score >= self.review:
            return RiskAction.REVIEW
        return RiskAction.STEP_UP if score >= self.step_up else RiskAction.ALLOW


class FraudModel:
    """One loaded artefact. Scoring one row takes about a tenth of a millisecond and holds the calling thread."""

    def __init__(
        self, classifier: CatBoostClassifier, version: str, features: tuple[str, ...], thresholds: Thresholds
    ) -> None:
        self._classifier = classifier
        self.version = version
        self.features = features
        self.thresholds = thresholds

    @classmethod
    def load(cls, directory: Path) -> FraudModel:
        """The artefact in `directory`.

        Raises:
            ModelMismatch: a file is missing or changed, or the features are not those of this code.
        """
        try:
            content = (directory / MODEL_FILE).read_bytes()
            recorded = json.loads((directory / METRICS_FILE).read_text())["model_sha256"]
            classifier = CatBoostClassifier()
            if hashlib.sha256(content).hexdigest() != recorded:
                raise ModelMismatch(f"{MODEL_FILE} is not the file that {METRICS_FILE} describes")
            classifier.load_model(blob=content)
            metadata = json.loads(classifier.get_metadata()[METADATA_KEY])
            features = tuple(metadata["features"])
            thresholds = Thresholds(**metadata["thresholds"])
            version, schema = str(metadata["version"]), metadata["features_sha256"]
        except (OSError, ValueError, KeyError, TypeError, CatBoostError) as error:
            raise ModelMismatch(f"no usable model in {directory}: {type(error).__name__}") from error
        unknown = set(features) - set(FEATURE_NAMES)
        if unknown:
            raise ModelMismatch(f"the model wants features that are not computed: {', '.join(sorted(unknown))}")
        if schema != schema_hash(features):
            raise ModelMismatch("the model was trained on another version of the features; train it again")
        return cls(classifier, version, features, thresholds)

    def score(self, features: Mapping[str, float]) -> float:
        """The probability of fraud, 0–1.

        Raises:
            ScoringFailed: the model refused the row or answered with something else.
        """
        try:
            probabilities = self._classifier.predict_proba(self._row(features), thread_count=1)
            score = float(probabilities[0, 1])
        except (CatBoostError, ValueError, TypeError, KeyError, IndexError) as error:
            raise ScoringFailed(f"scoring failed: {type(error).__name__}") from error
        if not (math.isfinite(score) and 0 <= score <= 1):
            raise ScoringFailed("the model's answer is not a probability")
        return score

    def main_contributions(self, features: Mapping[str, float], limit: int = 3) -> tuple[str, ...]:
        """The features that raised the score most (SHAP values, Lundberg 2018), the strongest first. Takes 3 ms.

        Raises:
            ScoringFailed: the model gave no contributions.
        """
        try:
            pool = Pool(self._row(features))
            values = self._classifier.get_feature_importance(pool, type="ShapValues", thread_count=1)[0, :-1]
        except (CatBoostError, ValueError, TypeError, KeyError, IndexError) as error:
            raise ScoringFailed(f"explaining failed: {type(error).__name__}") from error
        strongest = np.argsort(values)[::-1][:limit]
        return tuple(self.features[index] for index in strongest if values[index] > 0)

    def _row(self, features: Mapping[str, float]) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
        return np.array([[features[name] for name in self.features]], dtype=np.float32)


def load_model(directory: Path) -> FraudModel | None:
    """The model in `directory`, or None, with a warning, when there is none: rules decide alone then.

    Raises:
        ModelMismatch: there is one and it cannot be used. That is a mistake of deployment, not a reason to go without.
    """
    if not (directory / MODEL_FILE).exists():
        _log.warning("no fraud model in %s: rules decide alone", directory)
        return None
    return FraudModel.load(directory)
