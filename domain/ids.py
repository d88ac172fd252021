"""Prefixed identifiers, in the manner of `pay_…`: what a thing is can be read from its id.

An id that belongs to an idempotent request is derived from the caller and its key, so that the same request made
twice names the same thing. It is a digest: a key may hold personal data, and ids appear in clear in Temporal.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from datetime import datetime

PAYMENT = "pay"
REFUND = "re"
PAYMENT_METHOD = "pm"
USER = "usr"
ACCOUNT = "acct"
EVENT = "evt"
DISPUTE = "dp"
EVIDENCE_FILE = "file"
TOKEN = "tok"  # noqa: S105 - a prefix
API_KEY = "key"
SESSION = "ses"
SESSION_TOKEN = "jwt"  # noqa: S105 - a prefix
REGISTRATION = "reg"
CONTACT_CODE = "otc"
FORMER_CONTACT = "fct"
SECURITY_EVENT = "sec"
PASSKEY = "pky"
DEVICE = "dev"
STEP_UP_CHALLENGE = "suc"
MESSAGE = "msg"
REQUEST = "req"
BREAK = "brk"
PERSONAL_KEY = "pk"
ONBOARDING_DOCUMENT = "doc"
PAYOUT = "po"
MICRO_DEPOSIT = "md"
ACH_FILE = "ach"
VERIFICATION = "ver"

_RANDOM_BYTES = 15  # 120 bits, 24 characters of base32


def new_id(prefix: str) -> str:
    """A random id: `prefix`, an underscore and 24 lower-case base32 characters (120 bits)."""
    return f"{prefix}_{_base32(secrets.token_bytes(_RANDOM_BYTES))}"


def derived_id(prefix: str, *parts: str) -> str:
    """The id that belongs to `parts`, always the same one (SHA-256 over the length-prefixed parts, cut to 120 bits)."""
    digest = hashlib.sha256()
    for part in parts:
        encoded = part.encode()
        digest.update(len(encoded).to_bytes(4, "big"))
        digest.update(encoded)
    return f"{prefix}_{_base32(digest.digest()[:_RANDOM_BYTES])}"


def effect_key(subject_id: str, step: str, attempt: int = 1) -> str:
    """The idempotency key of one effect: what it is for (`pay_…`, `authorize`) and which deliberate attempt it is."""
    return f"{subject_id}:{step}:{attempt}"


def payment_workflow_id(payment_id: str) -> str:
    return f"payment/{payment_id}"


def refund_workflow_id(refund_id: str) -> str:
    return f"refund/{refund_id}"


def provisioning_workflow_id(token_id: str) -> str:
    return f"token-provisioning/{token_id}"


def verification_workflow_id(verification_id: str) -> str:
    return f"card-verification/{verification_id}"


def onboarding_workflow_id(user_id: str) -> str:
    return f"onboarding/{user_id}"


def onboarding_document_key(user_id: str, document_id: str) -> str:
    """Where a document's ciphertext is kept. Nothing that its sender says is part of it."""
    return f"onboarding/{user_id}/{document_id}"


def closure_workflow_id(user_id: str) -> str:
    return f"closure/{user_id}"


def removal_workflow_id(payment_method_id: str) -> str:
    return f"card-removal/{payment_method_id}"


def bank_account_removal_workflow_id(payment_method_id: str) -> str:
    return f"bank-account-removal/{payment_method_id}"


def bank_return_workflow_id(sequence: int, line: int) -> str:
    """Of what the bank gave back in the `line`th entry of a file of returns, and no running workflow takes."""
    return f"bank-return/{sequence}/{line}"


def renewal_workflow_id(payment_method_id: str, exp_year: int, exp_month: int) -> str:
    return f"card-renewal/{payment_method_id}/{exp_year}-{exp_month:02}"


def dispute_workflow_id(chargeback_id: str) -> str:
    return f"dispute/{chargeback_id}"


def late_notice_workflow_id(chargeback_id: str, kind: str, stage: str, issued_at: datetime) -> str:
    """Of what the network says of a case whose own workflow has closed: one for each notice."""
    return f"dispute-late-notice/{chargeback_id}/{kind}/{stage}/{int(issued_at.timestamp())}"


def settlement_workflow_id(day: str | None) -> str:
    """`day` in ISO 8601; None is whichever day was yesterday when the workflow starts."""
    return f"settlement/{day or 'yesterday'}"


def micro_deposit_workflow_id(micro_deposit_id: str) -> str:
    return f"micro-deposit/{micro_deposit_id}"


def break_workflow_id(break_id: str) -> str:
    return f"break/{break_id}"


def _base32(raw: bytes) -> str:
    return base64.b32encode(raw).decode().rstrip("=").lower()
