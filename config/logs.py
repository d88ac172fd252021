"""Logging: one line an event on standard error, with card numbers and keys struck out whatever wrote them."""

from __future__ import annotations

import logging
import re

from domain.cards import luhn_valid

_DIGIT_RUN = re.compile(r"(?<![0-9A-Za-z])(?:\d[ -]?){11,18}\d(?![0-9A-Za-z])")
_BEARER = re.compile(r"(sk_(?:test|live)_)[A-Za-z0-9_-]+|(eyJ[\w-]+\.)[\w-]+\.[\w-]+")


def redacted(text: str) -> str:
    """`text` without card numbers (runs of 12–19 digits that pass the Luhn check), API keys and session tokens."""

    def strike(match: re.Match[str]) -> str:
        digits = re.sub(r"\D", "", match.group())
        return "[card number]" if luhn_valid(digits) else match.group()

    return _BEARER.sub(lambda match: f"{match.group(1) or match.group(2)}[secret]", _DIGIT_RUN.sub(strike, text))


class _RedactingFormatter(logging.Formatter):
    """The last line of defence: it sees the whole text, with exception and stack."""

    def format(self, record: logging.LogRecord) -> str:
        return redacted(super().format(record))


def configure_logging(level: int = logging.INFO) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(_RedactingFormatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for chatty in ("httpx", "httpcore", "botocore", "urllib3", "twilio.http_client"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
