"""The documents' links lead somewhere, and the README names every package."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

import pytest

_ROOT = Path(__file__).parents[2]
_ELSEWHERE = (".venv", ".durapay", ".git", "node_modules")
_DOCUMENTS = sorted(
    path for path in _ROOT.rglob("*.md") if not any(part in _ELSEWHERE for part in path.relative_to(_ROOT).parts)
)
_FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+\s+(.*)$", re.MULTILINE)


def _prose(document: Path) -> str:
    return _FENCE.sub("", document.read_text("utf-8"))


def _anchors(document: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    texts = (re.sub(r"[^\w\- ]", "", heading.strip().lower()) for heading in _HEADING.findall(_prose(document)))
    return {text.replace(" ", "-") for text in texts}


@pytest.mark.parametrize("document", _DOCUMENTS, ids=lambda path: str(path.relative_to(_ROOT)))
def test_every_relative_link_leads_to_a_file_and_a_heading_that_exist(document: Path) -> None:
    broken = []
    for link in _LINK.findall(_prose(document)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = unquote(link).partition("#")
        target = (document.parent / path.replace("\\", "")).resolve() if path else document
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in _anchors(target)):
            broken.append(link)
    assert broken == []


def test_the_readme_names_every_package_and_only_folders_that_exist() -> None:
    section = (_ROOT / "README.md").read_text("utf-8").split("## Folders")[1].split("\n## ")[0]
    named = set(re.findall(r"^\| \[(\w+)\]", section, re.MULTILINE))
    packages = {initial.parent.name for initial in _ROOT.glob("*/__init__.py")}
    assert packages <= named
    assert [folder for folder in sorted(named) if not (_ROOT / folder).is_dir()] == []


def test_decisions_are_numbered_without_gaps_and_named_in_their_titles() -> None:
    pages = sorted((_ROOT / "docs" / "adr").glob("*.md"))
    assert [page.name[:4] for page in pages] == [f"{number:04d}" for number in range(1, len(pages) + 1)]
    for page in pages:
        assert page.read_text("utf-8").startswith(f"# {page.name[:4]}. ")
