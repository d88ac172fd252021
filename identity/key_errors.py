"""What can go wrong with passkeys, devices and what they sign. No message holds a key, a challenge or a signature."""

from __future__ import annotations

from domain.errors import DurapayError, Unavailable


class ChallengesUnavailable(Unavailable):
    """Challenges, or the proofs that were seen before, cannot be looked up, so nothing that is signed counts."""


class ChallengeRefused(DurapayError):
    """What was signed was never asked for, or not lately, or by somebody else, or was used before."""


class PasskeyRefused(DurapayError):
    """The credential is malformed, unknown, removed, of another origin, without user verification, or signed wrongly.

    Who signs in learns no more; the reason is for tests and people who debug an app.
    """


class PasskeySuspended(DurapayError):
    """The passkey's counter went back, as that of a copy does: it is suspended, and its user has been told."""


class PasskeyTaken(DurapayError):
    """The credential is known already, perhaps of somebody who removed it."""


class TooManyPasskeys(DurapayError):
    """The user has as many passkeys as one may have."""


class LastWayIn(DurapayError):
    """Without this passkey the user, who has no password, could sign in no more."""


class DeviceRefused(DurapayError):
    """The device's key, its proof of possession, or its attestation is no good; `reason` says which."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class DeviceTaken(DurapayError):
    """The key is that of a device which is known, or was revoked."""


class ProofRefused(DurapayError):
    """The proof of a device is forged, of another request, too old, or was seen before; `reason` says which."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class StepUpExpired(DurapayError):
    """The payment's question to its payer has run out; ask for a new one."""


class StepUpUsed(DurapayError):
    """The question was answered before: this answer is a replay."""


class StepUpNotWaiting(DurapayError):
    """The payment waits for no answer of its payer."""
