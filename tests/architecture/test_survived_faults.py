"""What CONTRIBUTING.md says is survived, a test says too."""

from __future__ import annotations

import ast
import re
from pathlib import Path

_ROOT = Path(__file__).parents[2]
_ROW = re.compile(r"^\| [^|]+ \| [^|]+ \| (\[tests/.*) \|$", re.MULTILINE)
_NAMED = re.compile(r"\[(tests/[\w/]+\.py)\]\([^)]*\)((?: `\w+`)+)")


def _claims() -> list[tuple[str, set[str]]]:
    """The files and tests that each row of the table names."""
    rows = _ROW.findall((_ROOT / "CONTRIBUTING.md").read_text("utf-8"))
    return [
        (file, set(re.findall(r"`(\w+)`", tests))) for row in rows for file, tests in _NAMED.findall(row)
    ]  # fmt: skip


def _tests_in(file: str) -> set[str]:
    tree = ast.parse((_ROOT / file).read_text("utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_every_fault_that_is_said_to_be_survived_has_its_test() -> None:
    missing = [(file, name) for file, tests in _claims() for name in sorted(tests - _tests_in(file))]
    assert missing == []


def test_every_case_of_the_kit_is_in_the_table() -> None:
    told = {file for file, _ in _claims()}
    # The proxy's own tests are about the tool.
    cases = {str(path.relative_to(_ROOT)) for path in (_ROOT / "tests/faults").glob("test_*.py")}
    assert cases - {"tests/faults/test_proxy.py"} <= told


def test_the_table_was_found() -> None:
    assert len(_claims()) > 35
