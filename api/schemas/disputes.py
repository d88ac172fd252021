"""Disputes and their evidence, as given and as shown."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from api.schemas.common import FREE_TEXT, STORABLE, RequestModel, ResponseModel, Timestamp
from domain.disputes import DisputeKind, DisputeReason, DisputeStatus
from domain.evidence import MAX_FILES, MAX_TEXT_LENGTH, ContentType, FilePurpose, TextField

# Kept in clear, so it is looked through as every free text is; a file cannot be.
EvidenceText = Annotated[str, StringConstraints(strip_whitespace=True, max_length=MAX_TEXT_LENGTH), STORABLE, FREE_TEXT]

_EXAMPLES = {
    TextField.PRODUCT_DESCRIPTION: "Forty-two cups of coffee",
    TextField.CUSTOMER_PURCHASE_IP: "203.0.113.7",
    TextField.SERVICE_DATE: "2026-11-02",
}

# The form of evidence for the API's documentation: it is read by hand, once its sender is known.
EVIDENCE_FORM: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {
                        **{
                            field.value: {
                                "type": "string",
                                "maxLength": MAX_TEXT_LENGTH,
                                **({"example": _EXAMPLES[field]} if field in _EXAMPLES else {}),
                            }
                            for field in TextField
                        },
                        "file": {
                            "type": "string",
                            "format": "binary",
                            "description": "A PDF, PNG or JPEG, told from its content, of 5,242,880 bytes at most; "
                            f"a dispute takes {MAX_FILES}.",
                        },
                        "purpose": {
                            "type": "string",
                            "enum": [purpose.value for purpose in FilePurpose],
                            "default": FilePurpose.UNCATEGORIZED_FILE.value,
                            "description": "What the file shows.",
                        },
                    },
                }
            }
        },
    }
}


class SubmitBody(RequestModel):
    """Nothing needs to be said; the evidence that is there is the answer."""


class AcceptBody(RequestModel):
    """Nothing needs to be said."""


class EvidenceFileObject(ResponseModel):
    """A file of the evidence. `sha256` is its digest in hexadecimal."""

    object: Literal["evidence_file"] = "evidence_file"
    id: str = Field(examples=["file_…"])
    purpose: FilePurpose
    name: str = Field(examples=["receipt.pdf"])
    content_type: ContentType
    size_bytes: int
    sha256: str
    created: Timestamp


class EvidenceObject(ResponseModel):
    """`sha256` is the digest of what the network took note of; both it and `acknowledged_at` follow the submission."""

    texts: dict[TextField, str] = Field(examples=[{"product_description": "Forty-two cups of coffee"}])
    files: list[EvidenceFileObject]
    submitted_at: Timestamp | None
    acknowledged_at: Timestamp | None
    sha256: str | None


class DisputeObject(ResponseModel):
    """`due_by` is when the answer is due, or, while it is under review, the network's decision. `fee_minor` is what the
    dispute costs if it is lost, besides its amount."""

    object: Literal["dispute"] = "dispute"
    id: str = Field(examples=["dp_…"])
    payment: str = Field(examples=["pay_…"])
    kind: DisputeKind
    status: DisputeStatus
    status_reason: str | None = Field(examples=["decided_by_issuer"])
    amount_minor: int = Field(examples=[1050])
    currency: str = Field(examples=["USD"])
    fee_minor: int
    reason: DisputeReason
    reason_code: str = Field(description="The card network's own", examples=["10.4"])
    network_case: str = Field(description="The card network's number of the case")
    due_by: Timestamp | None
    overdue: bool
    evidence: EvidenceObject
    livemode: bool
    created: Timestamp
    closed: Timestamp | None


class FileLinkObject(ResponseModel):
    """Whoever has `url` can download the file until `expires_at`."""

    object: Literal["evidence_file_link"] = "evidence_file_link"
    file: EvidenceFileObject
    url: str
    expires_at: Timestamp
