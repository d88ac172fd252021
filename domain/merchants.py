"""The card acceptor as the network knows it (ISO 8583 DE18, DE42, DE43)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Merchant:
    """`merchant_id` is DE42 (at most 15 characters), `category_code` the four-digit MCC of ISO 18245 (DE18).

    `name` (at most 22 characters), `city` (at most 13) and `country` (ISO 3166-1 alpha-2) make up DE43.
    """

    merchant_id: str
    name: str
    category_code: str
    city: str = ""
    country: str = "US"
