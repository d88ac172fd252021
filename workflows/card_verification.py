"""One verification of a card: its issuer is asked about it for no money at all, and what it says is kept.

Nothing moves, so a lost answer leaves nothing to be reversed; but the issuer may have counted the question. It is asked
anew a few times, each time as a question of its own, and then nobody knows: that is a result too, with its reason, and
whoever wants to know asks for another verification.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError

with workflow.unsafe.imports_passed_through():
    from activities.contracts import CredentialRequest, NetworkActivities, PaymentMethodActivities, VaultActivities
    from domain.declines import decline_code
    from domain.ids import effect_key
    from domain.money import Money
    from domain.network import SealedCredential, VerifyCommand
    from domain.outcomes import Approved, Declined, Unknown
    from domain.verifications import VerificationOpening, VerificationResult, VerificationStatus
    from temporal.search_attributes import ACCOUNT_ID, VERIFICATION_STATUS
    from workflows.messages import CardVerification
    from workflows.options import CREDENTIAL_LIFETIME, LOCAL_STEP, NETWORK_CALL, VAULT_CALL, VERIFICATION_PAUSES
    from workflows.steps import DurableSteps, failure_type


S = VerificationStatus


@dataclass(frozen=True, slots=True)
class _NoAnswer:
    """Why a question got none. `final`: another one would get none for the same reason."""

    reason: str
    rrn: str | None = None
    final: bool = False


@workflow.defn(name="card-verification")
class CardVerificationWorkflow(DurableSteps):
    @workflow.init
    def __init__(self, request: CardVerification) -> None:
        super().__init__()
        self._request = request
        self._unknown_shown = False

    @workflow.run
    async def run(self, request: CardVerification) -> VerificationResult:
        return await self._whatever_comes(self._live())

    async def _live(self) -> VerificationResult:
        request = self._request
        opening = VerificationOpening(
            request.verification_id,
            request.payment_method_id,
            request.currency,
            request.merchant,
            request.requested_at,
        )
        await self._until_done(
            "card_verifications.open",
            lambda: workflow.execute_local_activity_method(
                PaymentMethodActivities.open_verification, opening, **LOCAL_STEP
            ),
        )
        result = await self._decided()
        await self._until_done(
            "card_verifications.record",
            lambda: workflow.execute_local_activity_method(
                PaymentMethodActivities.record_verification, result, **LOCAL_STEP
            ),
        )
        self._show_result(result)
        await self._background_done()
        return result

    async def _decided(self) -> VerificationResult:
        attempt = 0
        while True:
            attempt += 1
            match await self._ask(attempt):
                case Approved(rrn=rrn, approval_code=approval, checks=checks):
                    return self._result(S.VERIFIED, attempt, rrn=rrn, approval_code=approval or None, checks=checks)
                case Declined(rrn=rrn, response_code=response_code, checks=checks):
                    code = decline_code(response_code).code
                    return self._result(S.DECLINED, attempt, rrn=rrn, decline_code=code, checks=checks)
                case _NoAnswer() as missing:
                    self._show_no_answer(attempt, missing)
                    if missing.final or attempt > len(VERIFICATION_PAUSES):
                        return self._result(S.UNKNOWN, attempt, rrn=missing.rrn, reason=missing.reason)
                    await workflow.sleep(VERIFICATION_PAUSES[attempt - 1])

    async def _ask(self, attempt: int) -> Approved | Declined | _NoAnswer:
        """What the issuer says to the question of this `attempt`, which has a key and a credential of its own."""
        request = self._request
        try:
            credential = await self._credential(attempt)
        except ActivityError as error:
            return _NoAnswer(f"credential_{failure_type(error)}", final=_is_final(error))
        command = VerifyCommand(
            effect_key=effect_key(request.verification_id, "verify", attempt),
            reference=request.verification_id,
            currency=request.currency,
            merchant=request.merchant,
            credential=credential,
        )
        try:
            outcome = await workflow.execute_activity_method(NetworkActivities.verify, command, **NETWORK_CALL)
        except ActivityError as error:
            # A credential that ran out on the way was not sent; the next question has a new one.
            final = _is_final(error) and failure_type(error) != "CredentialExpired"
            return _NoAnswer(f"network_{failure_type(error)}", final=final)
        return _NoAnswer(outcome.reason.value, outcome.rrn or None) if isinstance(outcome, Unknown) else outcome

    async def _credential(self, attempt: int) -> SealedCredential:
        """The one that came with the request, or a fresh one: a credential serves one question."""
        request = self._request
        if attempt == 1 and request.credential and workflow.now() - request.requested_at < CREDENTIAL_LIFETIME:
            return request.credential
        order = CredentialRequest(
            effect_key=effect_key(request.verification_id, "credential", attempt),
            token_id=request.token_id,
            user_id=request.user_id,
            money=Money(0, request.currency),
            merchant=request.merchant,
            requested_at=workflow.now(),
        )
        return await workflow.execute_activity_method(VaultActivities.issue_credential, order, **VAULT_CALL)

    def _result(self, status: VerificationStatus, attempts: int, **more: Any) -> VerificationResult:
        return VerificationResult(self._request.verification_id, status, attempts, workflow.now(), **more)

    def _show_no_answer(self, attempt: int, missing: _NoAnswer) -> None:
        workflow.set_current_details(f"question {attempt} got no answer: {missing.reason}")
        if not self._unknown_shown:
            self._unknown_shown = True
            workflow.upsert_search_attributes(
                [
                    VERIFICATION_STATUS.value_set(S.UNKNOWN.value),
                    ACCOUNT_ID.value_set(self._request.account_id),
                ]
            )

    def _show_result(self, result: VerificationResult) -> None:
        why = result.decline_code or result.reason
        workflow.set_current_details(f"{result.status.value}{f': {why}' if why else ''}")
        if self._unknown_shown and result.status is not S.UNKNOWN:
            workflow.upsert_search_attributes([VERIFICATION_STATUS.value_set(result.status.value)])


def _is_final(error: ActivityError) -> bool:
    return isinstance(error.cause, ApplicationError) and error.cause.non_retryable
