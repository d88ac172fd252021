"""Every error that the API answers with: one catalogue, one shape.

`{"error": {"type", "code", "decline_code", "message", "param", "doc_url", "request_id"}}`. The page at `/errors` is
made from the same catalogue, and each error's `doc_url` points into it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from config.logs import redacted

API_ERROR = "api_error"
CARD_ERROR = "card_error"
IDEMPOTENCY_ERROR = "idempotency_error"
INVALID_REQUEST = "invalid_request_error"
AUTHENTICATION_ERROR = "authentication_error"
RATE_LIMIT_ERROR = "rate_limit_error"

_LONGEST_MESSAGE = 300
_LONGEST_PARAM = 100


@dataclass(frozen=True, slots=True)
class ErrorCode:
    """One documented refusal. `meaning` is for the developer who reads the page."""

    code: str
    status: int
    type: str
    meaning: str


_CATALOGUE = (
    ErrorCode("api_key_missing", 401, AUTHENTICATION_ERROR, "The request has no `Authorization: Bearer …` header."),
    ErrorCode("credentials_invalid", 401, AUTHENTICATION_ERROR, "The API key or session token is unknown or forged."),
    ErrorCode("session_expired", 401, AUTHENTICATION_ERROR, "The session token has expired; refresh the session."),
    ErrorCode("refresh_token_invalid", 401, AUTHENTICATION_ERROR, "The refresh token is no good; sign in again."),
    ErrorCode("sign_in_failed", 401, AUTHENTICATION_ERROR, "There is no user with this contact and password."),
    ErrorCode(
        "password_incorrect", 401, AUTHENTICATION_ERROR, "The current password is wrong, or the sign-in too old."
    ),
    ErrorCode("sign_in_locked", 429, RATE_LIMIT_ERROR, "Too many attempts failed; `Retry-After` says when one counts."),
    ErrorCode(
        "too_many_codes", 429, RATE_LIMIT_ERROR, "The address was sent enough codes. `Retry-After` says when to."
    ),
    ErrorCode(
        "verification_limit_reached",
        429,
        RATE_LIMIT_ERROR,
        "Issuers were asked often enough about the card, or for the user. `Retry-After` says when to ask again.",
    ),
    ErrorCode("rate_limited", 429, RATE_LIMIT_ERROR, "Too many requests. `Retry-After` says when the next may come."),
    ErrorCode("passkey_not_accepted", 401, AUTHENTICATION_ERROR, "The passkey is unknown, removed, or signed wrongly."),
    ErrorCode("passkey_suspended", 403, AUTHENTICATION_ERROR, "The passkey's counter went back, as a copy's does."),
    ErrorCode("reauthentication_required", 403, AUTHENTICATION_ERROR, "The sign-in is too old; sign in again."),
    ErrorCode("device_proof_missing", 401, AUTHENTICATION_ERROR, "The session's device must sign this (`DPoP`)."),
    ErrorCode("device_proof_invalid", 401, AUTHENTICATION_ERROR, "The proof is not of this request, or was used."),
    ErrorCode("permission_denied", 403, AUTHENTICATION_ERROR, "The key or session may not do this."),
    ErrorCode("resource_missing", 404, INVALID_REQUEST, "There is no such object, or it is not yours."),
    ErrorCode("route_missing", 404, INVALID_REQUEST, "There is no such route."),
    ErrorCode("method_not_allowed", 405, INVALID_REQUEST, "The route does not know this method."),
    ErrorCode("idempotency_key_missing", 400, IDEMPOTENCY_ERROR, "Every POST needs an `Idempotency-Key` header."),
    ErrorCode("idempotency_key_invalid", 400, IDEMPOTENCY_ERROR, "The key must have 1 to 255 printable characters."),
    ErrorCode(
        "idempotency_key_reused", 422, IDEMPOTENCY_ERROR, "The key was used with other parameters; use a new one."
    ),
    ErrorCode("password_refused", 422, INVALID_REQUEST, "The password is too short, too long, or easily guessed."),
    ErrorCode(
        "code_incorrect", 422, INVALID_REQUEST, "The code is wrong; `attempts_remaining` says how many are left."
    ),
    ErrorCode("code_expired", 409, INVALID_REQUEST, "The code was good for ten minutes; have another one sent."),
    ErrorCode("code_used", 409, INVALID_REQUEST, "The code was used; what it proves is proved."),
    ErrorCode(
        "code_attempts_exceeded", 409, INVALID_REQUEST, "No attempt is left, also for the right code; begin anew."
    ),
    ErrorCode("contact_taken", 409, INVALID_REQUEST, "Another user has proved that the address or number is theirs."),
    ErrorCode("body_invalid", 400, INVALID_REQUEST, "The body is not valid JSON."),
    ErrorCode("body_too_large", 413, INVALID_REQUEST, "The body is larger than the server takes."),
    ErrorCode(
        "content_type_unsupported",
        415,
        INVALID_REQUEST,
        "The body must be `application/json`, evidence `multipart/form-data`.",
    ),
    ErrorCode("parameter_missing", 422, INVALID_REQUEST, "A required parameter is absent."),
    ErrorCode("parameter_unknown", 422, INVALID_REQUEST, "The parameter is not known."),
    ErrorCode("parameter_invalid", 422, INVALID_REQUEST, "The parameter's value is not acceptable."),
    ErrorCode("card_number_refused", 422, INVALID_REQUEST, "Card numbers go into `number` of a card, nowhere else."),
    ErrorCode("amount_invalid", 422, INVALID_REQUEST, "The amount must be a positive integer of minor units."),
    ErrorCode("amount_above_limit", 422, INVALID_REQUEST, "The amount is above what one payment may be."),
    ErrorCode("amount_too_large", 422, INVALID_REQUEST, "The amount is more than what is left to capture or refund."),
    ErrorCode("currency_unknown", 422, INVALID_REQUEST, "The currency is not an ISO 4217 code."),
    ErrorCode("incorrect_number", 422, CARD_ERROR, "The card number is wrong (length, range or check digit)."),
    ErrorCode("card_brand_unsupported", 422, CARD_ERROR, "No supported network issues this card number."),
    ErrorCode("expired_card", 422, CARD_ERROR, "The card has expired."),
    ErrorCode("invalid_cvc", 422, CARD_ERROR, "The card's security code must have three digits (four for Amex)."),
    ErrorCode("card_declined", 402, CARD_ERROR, "The issuer declined; `decline_code` says why. Nothing was charged."),
    ErrorCode("payment_blocked", 402, CARD_ERROR, "Fraud rules stopped the payment. Nothing was sent or charged."),
    ErrorCode("payment_method_pending", 409, INVALID_REQUEST, "The card is still being registered with its network."),
    ErrorCode("payment_method_unusable", 409, INVALID_REQUEST, "The payment method was removed or suspended."),
    ErrorCode("payment_method_no_card", 409, INVALID_REQUEST, "The payment method is no card, and this takes one."),
    ErrorCode("payment_unexpected_state", 409, INVALID_REQUEST, "The payment's state does not allow this."),
    ErrorCode(
        "payment_partly_captured", 409, INVALID_REQUEST, "What was captured is refunded, not voided, and does not grow."
    ),
    ErrorCode(
        "increment_declined", 402, CARD_ERROR, "The issuer authorized no more; what it authorized before stands."
    ),
    ErrorCode(
        "increment_in_doubt",
        409,
        INVALID_REQUEST,
        "The network did not answer; the increment is reversed, not counted.",
    ),
    ErrorCode("payment_closed", 409, INVALID_REQUEST, "The payment has ended; nothing more can be done with it."),
    ErrorCode("step_up_code_incorrect", 422, INVALID_REQUEST, "The one-time code is wrong; attempts are limited."),
    ErrorCode("step_up_attempts_exceeded", 409, INVALID_REQUEST, "No attempt is left; the payment was stopped."),
    ErrorCode("step_up_challenge_expired", 409, INVALID_REQUEST, "The challenge is good no more; ask for a new one."),
    ErrorCode("step_up_challenge_used", 409, INVALID_REQUEST, "The challenge was answered before; ask for a new one."),
    ErrorCode(
        "step_up_assertion_invalid",
        422,
        INVALID_REQUEST,
        "It is not signed by a passkey of the payer for this payment, amount and payee.",
    ),
    ErrorCode("challenge_expired", 409, INVALID_REQUEST, "The challenge was used, has expired, or is not yours."),
    ErrorCode("passkey_invalid", 422, INVALID_REQUEST, "The passkey is of another origin, unverified, or malformed."),
    ErrorCode("passkey_exists", 409, INVALID_REQUEST, "The passkey is known already."),
    ErrorCode("passkey_limit_reached", 409, INVALID_REQUEST, "The user has as many passkeys as one may have."),
    ErrorCode("passkey_last", 409, INVALID_REQUEST, "Without it, and without a password, the user could not sign in."),
    ErrorCode("device_invalid", 422, INVALID_REQUEST, "The device's proof or attestation is no good."),
    ErrorCode("device_exists", 409, INVALID_REQUEST, "The key is that of a device that is known, or was revoked."),
    ErrorCode("reason_required", 422, INVALID_REQUEST, "An operator's decision needs a reason."),
    ErrorCode("user_closed", 409, INVALID_REQUEST, "The user's wallet is closed, or about to be."),
    ErrorCode("onboarding_unexpected_state", 409, INVALID_REQUEST, "The onboarding's state does not allow this."),
    ErrorCode("onboarding_details_missing", 409, INVALID_REQUEST, "The user has not said who they are yet."),
    ErrorCode("onboarding_documents_exceeded", 409, INVALID_REQUEST, "The case has as many documents as it may have."),
    ErrorCode("closure_unexpected_state", 409, INVALID_REQUEST, "The closure's state does not allow this."),
    ErrorCode("date_of_birth_invalid", 422, INVALID_REQUEST, "Nobody alive was born on that day."),
    ErrorCode("underage", 422, INVALID_REQUEST, "A user must be 18 years old."),
    ErrorCode("country_unknown", 422, INVALID_REQUEST, "The country is not an ISO 3166-1 code of two letters."),
    ErrorCode("tax_id_invalid", 422, INVALID_REQUEST, "It is neither an SSN nor an ITIN that can be assigned."),
    ErrorCode("document_expired", 422, INVALID_REQUEST, "The identity document has expired."),
    ErrorCode("mrz_invalid", 422, INVALID_REQUEST, "The machine-readable zone is missing, or a check digit is wrong."),
    ErrorCode("mrz_mismatch", 422, INVALID_REQUEST, "The machine-readable zone says something else."),
    ErrorCode("refund_exists", 409, INVALID_REQUEST, "This refund exists already."),
    ErrorCode(
        "payment_disputed",
        409,
        INVALID_REQUEST,
        "A dispute has taken what is to be refunded; it cannot be given twice.",
    ),
    ErrorCode("dispute_unexpected_state", 409, INVALID_REQUEST, "The dispute's state does not allow this."),
    ErrorCode("evidence_missing", 422, INVALID_REQUEST, "There is neither a text nor a file to answer with."),
    ErrorCode("evidence_limit_reached", 409, INVALID_REQUEST, "The dispute has as many files as it may have."),
    ErrorCode("file_empty", 422, INVALID_REQUEST, "The file has no content."),
    ErrorCode("file_too_large", 413, INVALID_REQUEST, "The file is larger than five megabytes (5,242,880 bytes)."),
    ErrorCode(
        "file_type_unsupported", 422, INVALID_REQUEST, "By its content the file is no complete PDF, PNG or JPEG."
    ),
    ErrorCode("file_name_invalid", 422, INVALID_REQUEST, "The file's name is a path, too long, or not printable."),
    ErrorCode("incorrect_routing_number", 422, INVALID_REQUEST, "The routing number is wrong (length or check digit)."),
    ErrorCode("incorrect_account_number", 422, INVALID_REQUEST, "The account number must have 4 to 17 digits."),
    ErrorCode("bank_account_type_unsupported", 422, INVALID_REQUEST, "Accounts of this type are not taken here."),
    ErrorCode("bank_account_locked", 409, INVALID_REQUEST, "The account was tried three times; it stays locked."),
    ErrorCode("bank_account_unusable", 409, INVALID_REQUEST, "The bank account was removed or revoked; add it again."),
    ErrorCode("bank_account_verified", 409, INVALID_REQUEST, "The bank account is verified already."),
    ErrorCode("micro_deposit_in_progress", 409, INVALID_REQUEST, "The account has a verification under way."),
    ErrorCode("micro_deposit_not_posted", 409, INVALID_REQUEST, "The deposits have not arrived yet."),
    ErrorCode("micro_deposit_unexpected_state", 409, INVALID_REQUEST, "The verification's state does not allow this."),
    ErrorCode(
        "micro_deposit_amounts_incorrect", 422, INVALID_REQUEST, "These are not the amounts; attempts are limited."
    ),
    ErrorCode("micro_deposit_attempts_exceeded", 422, INVALID_REQUEST, "No attempt is left; the verification failed."),
    ErrorCode("service_unavailable", 503, API_ERROR, "A part is down. Try again with the same key."),
    ErrorCode("internal_error", 500, API_ERROR, "A fault of ours; it was logged under the request id."),
)

CATALOGUE: dict[str, ErrorCode] = {entry.code: entry for entry in _CATALOGUE}


@dataclass(slots=True)
class ApiError(Exception):
    """A refusal from the catalogue. `extra` adds objects, e.g. the declined payment."""

    code: str
    message: str
    param: str | None = None
    decline_code: str | None = None
    retry_after_seconds: int | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def status(self) -> int:
        return CATALOGUE[self.code].status

    def body(self, base_url: str, request_id: str) -> dict[str, Any]:
        """What the caller gets. Parameters are named by whoever sent them, and ids come back as they came: should a
        card number be among them, it goes no further."""
        return {
            "error": {
                "type": CATALOGUE[self.code].type,
                "code": self.code,
                "decline_code": self.decline_code,
                "message": redacted(self.message)[:_LONGEST_MESSAGE],
                "param": redacted(self.param)[:_LONGEST_PARAM] if self.param else None,
                "doc_url": f"{base_url}/errors#{self.code}",
                "request_id": request_id,
                **self.extra,
            }
        }


def missing(kind: str, identifier: str, param: str | None = None) -> ApiError:
    return ApiError("resource_missing", f"No such {kind}: {identifier}", param)


def user_closed(param: str | None = None) -> ApiError:
    return ApiError("user_closed", "The user's wallet is closed, or about to be.", param)


def unavailable(part: str) -> ApiError:
    return ApiError("service_unavailable", f"The {part} cannot be reached. Nothing was changed.", retry_after_seconds=2)
