"""Names in plain Latin letters, so that one can be held against another however it was written.

ICAO Doc 9303-3, section 6 says how names of other scripts and with other letters are written in travel documents; the
tables here are its tables for Latin and Cyrillic, and ISO 843's for Greek.
"""

from __future__ import annotations

import unicodedata

# ICAO 9303-3, table 6A: letters that stand for two in a travel document. Umlauts may lose their dots instead.
_LATIN = {
    "Æ": "AE", "Œ": "OE", "Ø": "OE", "ß": "SS", "ẞ": "SS", "Þ": "TH", "Ð": "D", "Đ": "D", "Ł": "L", "Ħ": "H",
    "ı": "I", "Ĳ": "IJ", "Ŋ": "N", "ĸ": "Q", "Ŧ": "T", "Ə": "E",
}  # fmt: skip
_DIGRAPHS = {"Ä": "AE", "Ö": "OE", "Ü": "UE", "Å": "AA", "Ñ": "N"}


def _table(letters: str, spellings: str) -> dict[str, str]:
    """Each of `letters` with its spelling; `-` is none."""
    return dict(zip(letters, spellings.replace("-", "").split(" "), strict=True))


# ICAO 9303-3, table 6B.
_CYRILLIC = _table("АБВГДЕЁЖЗИЙКЛМНОПРСТУФ", "A B V G D E E ZH Z I I K L M N O P R S T U F")
_CYRILLIC |= _table("ХЦЧШЩЪЫЬЭЮЯЄІЇҐЎЂЈЉЊЋЏЅЌЃ", "KH TS CH SH SHCH IE Y - E IU IA IE I I G U D J LJ NJ C DZ DZ K G")
# ISO 843, transcription.
_GREEK = _table("ΑΒΓΔΕΖΗΘΙΚΛΜ", "A V G D E Z I TH I K L M")
_GREEK |= _table("ΝΞΟΠΡΣΤΥΦΧΨΩ", "N X O P R S T Y F CH PS O")


def plain(name: str) -> str:
    """`name` in the letters A–Z with single spaces: diacritics dropped, other letters as ICAO 9303-3 writes them.

    What no table knows (CJK, say) is left out, so the result may be empty.
    """
    return _spelled(name, {})


def spellings(name: str) -> tuple[str, ...]:
    """`name` as travel documents may write it: with umlauts as two letters (Mueller), and without dots (Muller)."""
    return tuple(dict.fromkeys((plain(name), _spelled(name, _DIGRAPHS))))


def _spelled(name: str, digraphs: dict[str, str]) -> str:
    letters = []
    for character in unicodedata.normalize("NFC", name).upper():
        if character in digraphs:
            letters.append(digraphs[character])
        elif (known := _known(character)) is not None:
            letters.append(known)
        else:
            base = unicodedata.normalize("NFKD", character)[:1]
            letters.append(_known(base) or (base if "A" <= base <= "Z" else _separator(character)))
    return " ".join("".join(letters).split())


def _known(character: str) -> str | None:
    return _LATIN.get(character, _CYRILLIC.get(character, _GREEK.get(character)))


def _separator(character: str) -> str:
    """An apostrophe joins (O'Neill is ONEILL, as in a document); anything else parts."""
    return "" if character in "'’ʼ`" or unicodedata.category(character) == "Mn" else " "
