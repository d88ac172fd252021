"""A file is what its content says, whatever it is called."""

from __future__ import annotations

import contextlib
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from documents.errors import DocumentRefused
from documents.evidence import described, file_key
from documents.recognition import recognised
from domain.evidence import MAX_FILE_BYTES, ContentType, FilePurpose
from tests.unit.documents.files import ELF, EXE, GIF, HTML, PDF, SVG, ZIP, jpeg, pdf_of, png


@pytest.mark.parametrize(
    ("content", "content_type"),
    [
        (PDF, ContentType.PDF),
        (PDF.replace(b"1.7", b"2.0"), ContentType.PDF),
        (PDF + b"\n" * 1000, ContentType.PDF),
        (png(), ContentType.PNG),
        (jpeg(), ContentType.JPEG),
        (jpeg(b"a preview behind the picture"), ContentType.JPEG),
        (jpeg().replace(b"\xff\xc0", b"\xff\xff\xff\xc2"), ContentType.JPEG),
    ],
)
def test_the_three_types_are_recognised(content: bytes, content_type: ContentType) -> None:
    assert recognised(content) is content_type


NOT_TAKEN = {
    "a Windows program": EXE,
    "a Linux program": ELF,
    "an archive": ZIP,
    "a page": HTML,
    "a drawing with a script": SVG,
    "a GIF": GIF,
    "a text": b"just words",
    "a program that ends like a PDF": EXE + b"%%EOF",
    "a page before a PDF": HTML + PDF,
    "half a PDF": PDF[: len(PDF) // 2],
    "the frame of a PDF": b"%PDF-1.7\n%%EOF\n",
    "a PDF of no version": PDF.replace(b"1.7", b"x.y"),
    "the first bytes of a PNG before a program": b"\x89PNG\r\n\x1a\n" + EXE,
    "half a PNG": png()[:-6],
    "a PNG with a program behind it": png() + EXE,
    "a PNG with a flipped bit": png().replace(b"IDAT", b"IDAU"),
    "a PNG without pixels": png()[:33] + png()[-12:],
    "the first bytes of a JPEG before a program": b"\xff\xd8\xff\xe0" + EXE,
    "a JPEG without a frame": jpeg().replace(b"\xff\xc0", b"\xff\xe1"),
    "a JPEG that ends before its scan": jpeg()[:40],
    "a JPEG whose scan is empty": jpeg()[: jpeg().index(b"\xff\xda") + 10],
    "only the start of a JPEG": b"\xff\xd8",
}


@pytest.mark.parametrize("content", NOT_TAKEN.values(), ids=NOT_TAKEN.keys())
def test_anything_else_is_refused(content: bytes) -> None:
    with pytest.raises(DocumentRefused) as refusal:
        recognised(content)
    assert refusal.value.code == "file_type_unsupported"


def test_an_empty_file_is_refused() -> None:
    with pytest.raises(DocumentRefused) as refusal:
        recognised(b"")
    assert refusal.value.code == "file_empty"


def test_a_file_may_have_five_megabytes_and_no_byte_more() -> None:
    assert recognised(pdf_of(MAX_FILE_BYTES)) is ContentType.PDF
    with pytest.raises(DocumentRefused) as refusal:
        recognised(pdf_of(MAX_FILE_BYTES + 1))
    assert refusal.value.code == "file_too_large"


@given(
    st.binary(min_size=1, max_size=300), st.sampled_from([b"", b"%PDF-1.4", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0"])
)
def test_no_content_breaks_the_recognition(content: bytes, start: bytes) -> None:
    with contextlib.suppress(DocumentRefused):
        assert recognised(start + content) in ContentType


def test_what_is_recorded_of_a_file_comes_from_its_content() -> None:
    file = described("file_1", FilePurpose.RECEIPT, "invoice.exe", PDF)
    assert (file.content_type, file.size_bytes) == (ContentType.PDF, len(PDF))
    assert file.sha256 == hashlib.sha256(PDF).hexdigest()
    with pytest.raises(DocumentRefused):
        described("file_1", FilePurpose.RECEIPT, "invoice.pdf", EXE)


def test_a_file_is_kept_under_its_ids_alone() -> None:
    assert file_key("dp_1", "file_1") == "disputes/dp_1/file_1"
