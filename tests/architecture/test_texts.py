"""What no committed text may hold: where it was written, and where its packages came from."""

from __future__ import annotations

import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
# Put together here, so that this file does not hold them itself.
_PATHS = ["/" + "work/", "/" + "root/"]
_REGISTRIES = [
    "pypi" + ".org",
    "python" + "hosted.org",
    "npm" + "js.org",
    "proxy.golang" + ".org",
    "artifact" + "ory",
    "nexus" + "/repository",
    "/simp" + "le/",
]
# An option with an address behind it; `--no-emit-index-url` has none.
_INDEX_OPTION = re.compile(r"(?<!emit-)index-" + r"url[ =]+\S|find-" + r"links[ =]+\S|regi" + r"stry[ =:]+https?:")


@cache
def _texts() -> dict[str, str]:
    """Every committed text file by its path."""
    contents = {name: (ROOT / name).read_bytes() for name in _files() if (ROOT / name).is_file()}
    return {name: content.decode() for name, content in contents.items() if _is_text(content)}


def _files() -> list[str]:
    if (ROOT / ".git").exists():
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True).stdout.decode()
        return [name for name in listed.split("\0") if name]
    # A copy without its history: what is hidden there is a cache or the virtual environment.
    names = (str(file.relative_to(ROOT)) for file in ROOT.rglob("*"))
    return [name for name in names if not name.startswith(".") and "__pycache__" not in name]


def _is_text(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return b"\0" not in content


@pytest.mark.parametrize("words", [_PATHS, _REGISTRIES], ids=["machine paths", "registries"])
def test_no_text_names_a_machine_or_a_registry(words: list[str]) -> None:
    found = [f"{name}: {word}" for name, text in _texts().items() for word in words if _names(text, word)]
    assert found == []


def _names(text: str, word: str) -> bool:
    """A path begins at its slash: `/a/work/b` and base64 with the same letters are something else."""
    if word in _PATHS:
        return re.search(r"(?<![\w/.+-])" + re.escape(word), text) is not None
    return word in text.lower()


def test_no_text_says_where_to_fetch_packages_from() -> None:
    assert [name for name, text in _texts().items() if _INDEX_OPTION.search(text)] == []


def test_every_locked_dependency_has_hashes_and_a_version() -> None:
    for name in ("requirements.txt", "requirements-dev.txt"):
        requirements = re.split(r"\n(?=\S)", (ROOT / name).read_text())
        pinned = [each for each in requirements if not each.startswith("#")]
        assert pinned
        assert [each.split()[0] for each in pinned if "==" not in each.split()[0] or "--hash=sha256:" not in each] == []


def test_the_texts_were_found() -> None:
    assert len(_texts()) > 150
