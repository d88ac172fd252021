"""One refund's dialogue with the network. The payment's workflow has reserved the amount and keeps the books."""

from __future__ import annotations

from temporalio import workflow
from temporalio.exceptions import ActivityError

with workflow.unsafe.imports_passed_through():
    from activities.contracts import NetworkActivities
    from domain.declines import NETWORK_UNAVAILABLE, decline_code
    from domain.ids import effect_key, payment_workflow_id
    from domain.network import RefundCommand, ReverseCommand
    from domain.outcomes import Approved, Declined, DoubtReason, NeverSent, Reversed, Unknown
    from workflows.messages import RefundInDoubt, RefundOrder, RefundResult, Resolution
    from workflows.options import NETWORK_ADVICE, NETWORK_CALL
    from workflows.steps import DurableSteps


@workflow.defn(name="refund")
class RefundWorkflow(DurableSteps):
    @workflow.run
    async def run(self, order: RefundOrder) -> RefundResult:
        return await self._whatever_comes(self._live(order))

    async def _live(self, order: RefundOrder) -> RefundResult:
        outcome = await self._request_refund(order)
        match outcome:
            case Approved():
                return RefundResult(succeeded=True)
            case Declined():
                return RefundResult(succeeded=False, failure_code=decline_code(outcome.response_code).code)
            case Unknown():
                return await self._resolve_doubt(order)

    async def _request_refund(self, order: RefundOrder) -> Approved | Declined | Unknown:
        command = RefundCommand(
            effect_key=effect_key(order.refund_id, "refund"),
            original_effect_key=order.authorization_key,
            payment_id=order.payment_id,
            money=order.money,
        )
        try:
            return await workflow.execute_activity_method(
                NetworkActivities.refund,
                command,
                **NETWORK_CALL,
            )
        except ActivityError:
            return Unknown(DoubtReason.WORKER_LOST)

    async def _resolve_doubt(self, order: RefundOrder) -> RefundResult:
        """A refund nobody can vouch for is reversed; only then may the amount be refunded again."""
        payment = workflow.get_external_workflow_handle(payment_workflow_id(order.payment_id))
        await payment.signal("refund_in_doubt", RefundInDoubt(order.refund_id))
        command = ReverseCommand(effect_key(order.refund_id, "reverse"), effect_key(order.refund_id, "refund"))
        outcome: Approved | Reversed | NeverSent = await self._until_done(
            "network.reverse",
            lambda: self._reverse(command),
            {
                Resolution.REVERSED: Reversed(workflow.now()),
                Resolution.AUTHORIZED: Approved(order.money.amount_minor, "", "", "", workflow.now()),
            },
        )
        match outcome:
            case Approved():
                return RefundResult(succeeded=True)
            case Reversed():
                return RefundResult(succeeded=False, failure_code="reversed_after_doubt")
            case NeverSent():
                return RefundResult(succeeded=False, failure_code=NETWORK_UNAVAILABLE.code)

    async def _reverse(self, command: ReverseCommand) -> Reversed | NeverSent:
        return await workflow.execute_activity_method(
            NetworkActivities.reverse,
            command,
            **NETWORK_ADVICE,
        )
