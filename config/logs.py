"""Logging: one line an event on standard error, with card numbers and keys struck out whatever wrote them."""

from __future__ import annotations

import logging
import re

from domain.cards import LONGEST_NUMBER, luhn_valid, network_numbers

# Digits as people and programs group them.
_DIGIT_RUN = re.compile(r"[0-9](?:[ .-]{0,2}[0-9]){12,}")
_BEARER = re.compile(r"(sk_(?:test|live)_)[A-Za-z0-9_-]+|(eyJ[\w-]+\.)[\w-]+\.[\w-]+")
_STRUCK = "[card number]"


def redacted(text: str) -> str:
    """`text` without card numbers, API keys and session tokens.

    A card number is a run of 13–19 digits that passes the Luhn check, or a part of a longer one (a number with its
    expiry or length beside it) that belongs to a known network as well: one run in ten passes the check by chance.
    """
    struck = _DIGIT_RUN.sub(lambda match: _without_card_numbers(match.group()), text)
    return _BEARER.sub(lambda match: f"{match.group(1) or match.group(2)}[secret]", struck)


def _without_card_numbers(run: str) -> str:
    places = [place for place, character in enumerate(run) if character.isdigit()]
    digits = "".join(run[place] for place in places)
    # A decimal fraction is no card number as a whole.
    if "." not in run and len(digits) <= LONGEST_NUMBER and luhn_valid(digits):
        return _STRUCK
    kept, end = [], 0  # `end`: behind the last character struck
    for first, length in network_numbers(digits):
        begin, stop = places[first], places[first + length - 1] + 1
        if begin >= end:
            kept += [run[end:begin], _STRUCK]
        end = max(end, stop)
    return "".join([*kept, run[end:]])


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
