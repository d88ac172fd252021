"""What a file is, told from its content: a name and a declared type are only what somebody says.

Each format is followed as far as its outer structure goes, so that neither a program with the first bytes of a
document nor half of an upload passes for one.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable

from documents.errors import DocumentRefused
from domain.evidence import MAX_FILE_BYTES, ContentType

# ISO 32000-2, 7.5.2 and 7.5.5: the header; and the end, which says where the cross-references are. Readers look for it
# in the last 1024 bytes.
_PDF_HEADER = re.compile(rb"%PDF-[12]\.\d")
_PDF_END = re.compile(rb"startxref\s+\d+\s+%%EOF")
_PDF_TAIL_BYTES = 1024

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"

_JPEG_START = b"\xff\xd8"
_JPEG_START_OF_SCAN = 0xDA
# ITU T.81, table B.1: the frame headers are C0 to CF but for DHT (C4), JPG (C8) and DAC (CC).
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def recognised(content: bytes) -> ContentType:
    """The type of `content`.

    Raises:
        DocumentRefused: it is empty (`file_empty`), larger than is taken (`file_too_large`), or neither a PDF nor a PNG
            nor a JPEG (`file_type_unsupported`).
    """
    if not content:
        raise DocumentRefused("file_empty", "the file is empty")
    if len(content) > MAX_FILE_BYTES:
        raise DocumentRefused("file_too_large", f"a file may have {MAX_FILE_BYTES} bytes at most")
    for content_type, is_one in _FORMATS.items():
        if is_one(content):
            return content_type
    raise DocumentRefused("file_type_unsupported", "the file must be a complete PDF, PNG or JPEG")


def _is_pdf(content: bytes) -> bool:
    return _PDF_HEADER.match(content) is not None and _PDF_END.search(content[-_PDF_TAIL_BYTES:]) is not None


def _is_png(content: bytes) -> bool:
    """A signature and chunks (length, type, data, CRC-32) from IHDR to IEND, with nothing behind (W3C PNG, 5)."""
    if not content.startswith(_PNG_SIGNATURE):
        return False
    position, kinds = len(_PNG_SIGNATURE), list[bytes]()
    while position + 12 <= len(content):
        length = int.from_bytes(content[position : position + 4], "big")
        end = position + 8 + length
        if int.from_bytes(content[end : end + 4], "big") != zlib.crc32(content[position + 4 : end]):
            return False
        kinds.append(content[position + 4 : position + 8])
        position = end + 4
    return position == len(content) and kinds[:1] == [b"IHDR"] and kinds[-1:] == [b"IEND"] and b"IDAT" in kinds


def _is_jpeg(content: bytes) -> bool:
    """Segments from the start of the image to its first scan, with a frame among them (ITU T.81, annex B).

    What follows the scans is not looked at: telephones put whole previews behind their pictures.
    """
    if not content.startswith(_JPEG_START):
        return False
    position, framed = len(_JPEG_START), False
    while content[position : position + 1] == b"\xff" and position + 4 <= len(content):
        marker, length = content[position + 1], int.from_bytes(content[position + 2 : position + 4], "big")
        if marker == 0xFF:  # a fill byte
            position += 1
            continue
        if marker == _JPEG_START_OF_SCAN:
            return framed and len(content) > position + 2 + length
        framed = framed or marker in _JPEG_FRAMES
        position += 2 + length
    return False


_FORMATS: dict[ContentType, Callable[[bytes], bool]] = {
    ContentType.PDF: _is_pdf,
    ContentType.PNG: _is_png,
    ContentType.JPEG: _is_jpeg,
}
