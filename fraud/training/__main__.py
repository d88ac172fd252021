"""`python -m fraud.training [FOLDER]`: trains and writes the artefact, by default where the engine reads it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from fraud.training.train import train

_ARTIFACTS = Path(__file__).parent.parent / "artifacts"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m fraud.training", description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=_ARTIFACTS)
    report = train(parser.parse_args().folder)
    for name, figures in report["data_sets"].items():
        sys.stdout.write(f"{name}: AUC {figures['auc']:.4f}, AP {figures['average_precision']:.4f} on held-out days\n")


if __name__ == "__main__":
    main()
