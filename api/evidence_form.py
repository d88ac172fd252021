"""Reading the form of evidence: once its sender is known, and nothing in it is taken at its word."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import TypeAdapter, ValidationError
from starlette.datastructures import UploadFile

from api.errors import ApiError
from api.schemas.disputes import EvidenceText
from documents.errors import DocumentRefused
from documents.evidence import described
from domain.cards import holds_card_number
from domain.evidence import MAX_FILE_NAME_LENGTH, MAX_TEXT_LENGTH, EvidenceFile, FilePurpose, TextField

_TEXT: TypeAdapter[str] = TypeAdapter(EvidenceText)
_FILE, _PURPOSE = "file", "purpose"
_FIELDS = frozenset(TextField) | {_FILE, _PURPOSE}
# UTF-8 has four bytes for a character at most.
_LONGEST_PART_BYTES = 4 * MAX_TEXT_LENGTH


@dataclass(frozen=True, slots=True)
class GivenEvidence:
    """`file` has no id yet; `content` is what is in it."""

    texts: dict[str, str]
    file: EvidenceFile | None = None
    content: bytes = b""


async def read_evidence(request: Request) -> GivenEvidence:
    """
    Raises:
        ApiError, RequestValidationError: the form or the file is not acceptable.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "multipart/form-data":
        raise ApiError("content_type_unsupported", "Send the evidence as `multipart/form-data`.", "Content-Type")
    form = request.form(max_files=1, max_fields=len(_FIELDS), max_part_size=_LONGEST_PART_BYTES)
    async with form as parts:
        given = parts.multi_items()
        names = [name for name, _ in given]
        for name in names:
            if name not in _FIELDS:
                raise ApiError("parameter_unknown", f"{name}: is not a field of evidence.", name)
            if names.count(name) > 1:
                raise ApiError("parameter_invalid", f"{name}: may be given once.", name)
        texts = {name: _text(name, part) for name, part in given if name not in (_FILE, _PURPOSE)}
        purpose = _purpose(dict(given).get(_PURPOSE))
        upload = dict(given).get(_FILE)
        if upload is None:
            if not texts:
                raise ApiError("evidence_missing", "Give a text or a file.")
            return GivenEvidence(texts)
        if not isinstance(upload, UploadFile):
            raise ApiError("parameter_invalid", "file: must be a file with a name.", _FILE)
        content = await upload.read()
        return GivenEvidence(texts, _described(purpose, _name(upload.filename), content), content)


def _described(purpose: FilePurpose, name: str, content: bytes) -> EvidenceFile:
    try:
        return described("", purpose, name, content)
    except DocumentRefused as refusal:
        raise ApiError(refusal.code, f"The file was not accepted: {refusal}.", _FILE) from None


def _text(name: str, part: UploadFile | str) -> str:
    if isinstance(part, UploadFile):
        raise ApiError("parameter_invalid", f"{name}: must be a text.", name)
    try:
        return _TEXT.validate_python(part)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_input=False)
        raise RequestValidationError([{**problem, "loc": ("body", name)} for problem in problems]) from None


def _purpose(part: UploadFile | str | None) -> FilePurpose:
    if part is None:
        return FilePurpose.UNCATEGORIZED_FILE
    try:
        return FilePurpose(str(part))
    except ValueError:
        raise ApiError("parameter_invalid", f"purpose: must be one of {', '.join(FilePurpose)}.", _PURPOSE) from None


def _name(given: str | None) -> str:
    """The name under which the file is shown and downloaded: one that no system takes for a path."""
    name = unicodedata.normalize("NFC", given or "").strip()
    acceptable = (
        0 < len(name) <= MAX_FILE_NAME_LENGTH and name.isprintable() and not set(name) & set("/\\") and name.strip(".")
    )
    if not acceptable:
        raise ApiError("file_name_invalid", "The file's name must be a plain, printable name.", _FILE)
    if holds_card_number(name):
        raise ApiError("card_number_refused", "The file's name must not hold a card number.", _FILE)
    return name
