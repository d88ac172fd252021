"""From labelled payments to an artefact: features, model, thresholds, figures.

Time runs one way. The model learns from the first period, the thresholds are chosen on the second and the figures come
from the third; between two periods lie the seven days after which labels are known. No feature uses a label.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import catboost
import numpy as np
from catboost import CatBoostClassifier, Pool
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from fraud.features import FEATURES_VERSION, MODEL_FEATURES, schema_hash
from fraud.model import METADATA_KEY, METRICS_FILE, MODEL_FILE, Thresholds
from fraud.rules import DEFAULT_RULES
from fraud.training import generator
from fraud.training.data_sets import LABEL_DELAY_DAYS, DataSet, generated, sparkov

SEED = 7
THREADS = 2  # results depend on the number, so it is fixed

# The share of flagged payments that must really be fraud, in each data set's validation period.
PRECISION_WANTED = {"step_up": 0.7, "review": 0.85, "block": 0.97}

# What a decision of the trained model depends on.
_SOURCES = ("amounts.py", "events.py", "features.py", "geo.py", "state.py", "windows.py")
_TRAINING_SOURCES = ("data_sets.py", "generator.py", "train.py")

_log = logging.getLogger(__name__)


def train(folder: Path) -> dict[str, Any]:
    """Trains on both sets, writes `model.cbm` and `metrics.json` to `folder` and returns the latter's content."""
    with ProcessPoolExecutor(max_workers=2) as workers:
        futures: list[Future[DataSet]] = [workers.submit(make) for make in (sparkov, generated)]
        data_sets = [future.result() for future in futures]
    classifier = fit(data_sets)
    thresholds = choose_thresholds(classifier, data_sets)
    version = f"{_sources_digest()[:8]}-{'-'.join(data.version[:6] for data in data_sets)}"
    write(classifier, folder, version, thresholds)
    report = {
        "version": version,
        "model_sha256": hashlib.sha256((folder / MODEL_FILE).read_bytes()).hexdigest(),
        "features_version": FEATURES_VERSION,
        "features_sha256": schema_hash(MODEL_FEATURES),
        "features": list(MODEL_FEATURES),
        "thresholds": asdict(thresholds),
        "precision_wanted": PRECISION_WANTED,
        "label_delay_days": LABEL_DELAY_DAYS,
        "rules_version": DEFAULT_RULES.version,
        "code_sha256": _sources_digest(),
        "catboost": catboost.__version__,
        "trees": classifier.tree_count_,
        "seeds": {"training": SEED, "generator": generator.SEED},
        "data_sets": {data.name: figures(classifier, data, thresholds) for data in data_sets},
    }
    (folder / METRICS_FILE).write_text(json.dumps(report, indent=2) + "\n")
    return report


def fit(data_sets: Sequence[DataSet]) -> CatBoostClassifier:
    """One classifier for all sets; each set weighs the same, whatever its size."""
    classifier = CatBoostClassifier(
        iterations=400,
        depth=6,
        learning_rate=0.08,
        l2_leaf_reg=6,
        random_seed=SEED,
        thread_count=THREADS,
        loss_function="Logloss",
        eval_metric="Logloss",
        od_type="Iter",
        od_wait=40,
        allow_writing_files=False,
        verbose=False,
    )
    classifier.fit(_pool(data_sets, "train"), eval_set=_pool(data_sets, "validation"), use_best_model=True)
    return classifier


def _pool(data_sets: Sequence[DataSet], period: str) -> Pool:
    masks = [data.periods.masks(data.days)[period] for data in data_sets]
    rows = max(int(mask.sum()) for mask in masks)
    return Pool(
        np.concatenate([data.features[mask] for data, mask in zip(data_sets, masks, strict=True)]),
        np.concatenate([data.labels[mask] for data, mask in zip(data_sets, masks, strict=True)]).astype(np.int8),
        weight=np.concatenate([np.full(mask.sum(), rows / mask.sum()) for mask in masks]),
        feature_names=list(MODEL_FEATURES),
    )


def choose_thresholds(classifier: CatBoostClassifier, data_sets: Sequence[DataSet]) -> Thresholds:
    """The lowest score from which the wanted precision holds in every set's validation period."""
    chosen: dict[str, float] = {}
    for action, wanted in PRECISION_WANTED.items():
        lowest = []
        for data in data_sets:
            mask = data.periods.masks(data.days)["validation"]
            scores = scores_of(classifier, data.features[mask])
            precision, _, thresholds = precision_recall_curve(data.labels[mask], scores)
            good = np.flatnonzero(precision[:-1] >= wanted)
            lowest.append(float(thresholds[good[0]]) if len(good) else 1.0)
        chosen[action] = round(max(lowest), 4)
    review = max(chosen["step_up"], chosen["review"])
    return Thresholds(chosen["step_up"], review, max(review, chosen["block"]))


def figures(classifier: CatBoostClassifier, data: DataSet, thresholds: Thresholds) -> dict[str, Any]:
    """What the model, the rules, and both together do with the test period."""
    masks = data.periods.masks(data.days)
    labels = data.labels[masks["test"]]
    scores = scores_of(classifier, data.features[masks["test"]])
    flagged_by_rules = data.flagged[masks["test"]]
    flagged_by_score = (scores >= thresholds.step_up) & ~data.ignored[masks["test"]]
    return {
        "version": data.version,
        "periods_days": asdict(data.periods),
        "rows": {period: int(mask.sum()) for period, mask in masks.items()},
        "frauds": {period: int(data.labels[mask].sum()) for period, mask in masks.items()},
        "auc": round(float(roc_auc_score(labels, scores)), 4),
        "average_precision": round(float(average_precision_score(labels, scores)), 4),
        "at_threshold": {
            action: _caught(labels, scores >= threshold) for action, threshold in asdict(thresholds).items()
        },
        "rules_alone": _caught(labels, flagged_by_rules),
        "rules_and_model": _caught(labels, flagged_by_rules | flagged_by_score),
    }


def _caught(labels: np.ndarray, flagged: np.ndarray) -> dict[str, float]:
    right = int((labels & flagged).sum())
    return {
        "flagged_share": round(float(flagged.mean()), 5),
        "precision": round(right / max(1, int(flagged.sum())), 4),
        "recall": round(right / max(1, int(labels.sum())), 4),
    }


def scores_of(classifier: CatBoostClassifier, features: np.ndarray) -> np.ndarray:
    probabilities: np.ndarray = classifier.predict_proba(features, thread_count=THREADS)[:, 1]
    return probabilities


def write(classifier: CatBoostClassifier, folder: Path, version: str, thresholds: Thresholds) -> None:
    """The model file, with what it needs to be used as metadata of its own. The same training gives the same bytes."""
    metadata = classifier.get_metadata()
    metadata[METADATA_KEY] = json.dumps(
        {
            "version": version,
            "features": MODEL_FEATURES,
            "features_sha256": schema_hash(MODEL_FEATURES),
            "thresholds": asdict(thresholds),
        }
    )
    # CatBoost puts a random id and the time of day here.
    for name in ("model_guid", "train_finish_time"):
        metadata[name] = ""
    folder.mkdir(parents=True, exist_ok=True)
    classifier.save_model(str(folder / MODEL_FILE))


def _sources_digest() -> str:
    root = Path(__file__).parent.parent
    digest = hashlib.sha256()
    for path in [root / name for name in _SOURCES] + [root / "training" / name for name in _TRAINING_SOURCES]:
        digest.update(path.read_bytes())
    return digest.hexdigest()
