"""Small files of each kind, right and wrong."""

from __future__ import annotations

import zlib

PDF = b"%PDF-1.7\n1 0 obj\n<< /Type /Catalog >>\nendobj\ntrailer\n<< /Root 1 0 R >>\nstartxref\n9\n%%EOF\n"
# The start of every Windows program: the DOS header and its message.
EXE = (
    b"MZ\x90\x00\x03\x00\x00\x00"
    + bytes(52)
    + b"\x80\x00\x00\x00"
    + b"This program cannot be run in DOS mode.\r\r\n$"
    + bytes(400)
)
ELF = b"\x7fELF\x02\x01\x01" + bytes(200)
ZIP = b"PK\x03\x04\x14\x00" + bytes(60)
HTML = b"<!doctype html><script>alert(1)</script>"
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
GIF = (
    b"GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff,\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02D\x01\x00;"
)


def png() -> bytes:
    """One black pixel."""
    header = (1).to_bytes(4, "big") * 2 + b"\x08\x00\x00\x00\x00"
    return (
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", header)
        + _chunk(b"IDAT", zlib.compress(b"\x00\x00"))
        + _chunk(b"IEND", b"")
    )


def jpeg(trailer: bytes = b"") -> bytes:
    """The segments of a baseline image, with a scan of a few bytes."""
    return (
        b"\xff\xd8"
        + _segment(0xE0, b"JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00")
        + _segment(0xC0, b"\x08\x00\x01\x00\x01\x01\x01\x11\x00")
        + _segment(0xDA, b"\x01\x01\x00\x00\x3f\x00")
        + b"\xd2\xcf\x20\xff\xd9"
        + trailer
    )


def pdf_of(size: int) -> bytes:
    """A PDF of exactly so many bytes."""
    return PDF[:9] + b"%" * (size - len(PDF)) + PDF[9:]


def _chunk(kind: bytes, data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")


def _segment(marker: int, data: bytes) -> bytes:
    return bytes((0xFF, marker)) + (len(data) + 2).to_bytes(2, "big") + data
