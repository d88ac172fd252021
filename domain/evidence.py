"""The evidence with which a merchant answers a dispute: named texts, and files of few types and of bounded size."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class TextField(StrEnum):
    """What can be said in words. The names are those that Stripe's disputes have made usual."""

    PRODUCT_DESCRIPTION = "product_description"
    CUSTOMER_NAME = "customer_name"
    CUSTOMER_EMAIL = "customer_email"
    CUSTOMER_PURCHASE_IP = "customer_purchase_ip"
    BILLING_ADDRESS = "billing_address"
    SERVICE_DATE = "service_date"
    SHIPPING_ADDRESS = "shipping_address"
    SHIPPING_DATE = "shipping_date"
    SHIPPING_CARRIER = "shipping_carrier"
    SHIPPING_TRACKING_NUMBER = "shipping_tracking_number"
    REFUND_POLICY_DISCLOSURE = "refund_policy_disclosure"
    REFUND_REFUSAL_EXPLANATION = "refund_refusal_explanation"
    CANCELLATION_POLICY_DISCLOSURE = "cancellation_policy_disclosure"
    DUPLICATE_CHARGE_EXPLANATION = "duplicate_charge_explanation"
    UNCATEGORIZED_TEXT = "uncategorized_text"


class FilePurpose(StrEnum):
    """What a file shows."""

    RECEIPT = "receipt"
    CUSTOMER_COMMUNICATION = "customer_communication"
    CUSTOMER_SIGNATURE = "customer_signature"
    SHIPPING_DOCUMENTATION = "shipping_documentation"
    SERVICE_DOCUMENTATION = "service_documentation"
    REFUND_POLICY = "refund_policy"
    CANCELLATION_POLICY = "cancellation_policy"
    DUPLICATE_CHARGE_DOCUMENTATION = "duplicate_charge_documentation"
    UNCATEGORIZED_FILE = "uncategorized_file"


class ContentType(StrEnum):
    """The media types that an issuer can be expected to open."""

    PDF = "application/pdf"
    PNG = "image/png"
    JPEG = "image/jpeg"


MAX_TEXT_LENGTH = 5_000
# Issuers take a few megabytes for a whole case.
MAX_FILE_BYTES = 5 * 1024 * 1024
MAX_FILES = 10
MAX_FILE_NAME_LENGTH = 100

# The network's message has room for one line. What contradicts the cardholder comes before what describes the sale.
MAX_STATEMENT_LENGTH = 90
_STATEMENTS = (
    TextField.UNCATEGORIZED_TEXT,
    TextField.REFUND_REFUSAL_EXPLANATION,
    TextField.DUPLICATE_CHARGE_EXPLANATION,
    TextField.PRODUCT_DESCRIPTION,
)


def statement_of(texts: Mapping[str, str]) -> str:
    """One line of printable ASCII, 90 characters at most, in the merchant's words; empty if nothing of it is said."""
    said = next((texts[field] for field in _STATEMENTS if texts.get(field)), "")
    plain = unicodedata.normalize("NFKD", said).encode("ascii", "ignore").decode()
    line = " ".join("".join(character if character.isprintable() else " " for character in plain).split())
    return line[:MAX_STATEMENT_LENGTH].rstrip()


@dataclass(frozen=True, slots=True)
class EvidenceFile:
    """One stored file. `name` is what its sender called it, shown and never used; `sha256` is in hexadecimal."""

    file_id: str
    purpose: FilePurpose
    name: str
    content_type: ContentType
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class FrozenEvidence:
    """What an answer consists of: the digest of its manifest (SHA-256, hexadecimal), and how many files it names."""

    sha256: str
    documents: int
