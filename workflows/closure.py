"""The end of a wallet: open money first, then everything that opens or pays, and years later the person's data.

The wait for the end of the retention is a timer of this workflow, so that nobody has to remember to erase.
"""

from __future__ import annotations

import contextlib
from datetime import datetime, timedelta

from temporalio import workflow
from temporalio.common import WorkflowIDReusePolicy
from temporalio.exceptions import ApplicationError, WorkflowAlreadyStartedError

with workflow.unsafe.imports_passed_through():
    from activities.contracts import CardRef, ClosureActivities, PersonalKeyActivities, UserRef
    from domain.closure import CloseOrder, ClosureOrder, ClosureStatus, Erased, EraseOrder, Obstacles
    from domain.ids import provisioning_workflow_id, removal_workflow_id
    from temporal.search_attributes import ACCOUNT_ID, CLOSURE_STATUS
    from workflows.cards import CardRemovalWorkflow
    from workflows.messages import CardRemoval, TokenProvisioning
    from workflows.onboarding_messages import ClosureSnapshot, WithdrawRequest
    from workflows.options import OBSTACLE_INTERVAL, ONBOARDING_CALL, PERSONAL_KEY_CALL
    from workflows.steps import DurableSteps
    from workflows.token_lifecycle import TokenProvisioningWorkflow
    from workflows.updates import named_update


@workflow.defn(name="closure")
class ClosureWorkflow(DurableSteps):
    @workflow.init
    def __init__(self, order: ClosureOrder) -> None:
        super().__init__()
        self._order = order
        self._user = UserRef(order.user_id)
        self._status = ClosureStatus.WAITING
        self._waiting_for: tuple[str, ...] = ()
        self._looked = False
        # From here on there is no way back.
        self._decided = False
        self._withdrawn = False

    @workflow.run
    async def run(self, order: ClosureOrder) -> ClosureSnapshot:
        return await self._whatever_comes(self._live())

    async def _live(self) -> ClosureSnapshot:
        workflow.upsert_search_attributes([ACCOUNT_ID.value_set(self._order.account_id)])
        self._show(ClosureStatus.WAITING)
        await self._until_done(
            "closure.begin",
            lambda: workflow.execute_activity_method(ClosureActivities.begin, self._order, **ONBOARDING_CALL),
        )
        if await self._nothing_is_open():
            erase_after = await self._close()
            await self._erase(erase_after)
        else:
            await self._until_done(
                "closure.withdraw",
                lambda: workflow.execute_activity_method(ClosureActivities.withdraw, self._user, **ONBOARDING_CALL),
            )
            self._show(ClosureStatus.WITHDRAWN)
        await self._background_done()
        return self.snapshot()

    async def _nothing_is_open(self) -> bool:
        """Waits until all money is where it belongs; False if the user stays."""
        while not self._withdrawn:
            found = await self._obstacles()
            self._waiting_for = found.open
            self._looked = True
            self._show(ClosureStatus.WAITING)
            if not found.open and not self._withdrawn:
                self._decided = True
                return True
            for token_id in found.registering:
                await _register(token_id)
            try:
                await workflow.wait_condition(lambda: self._withdrawn, timeout=OBSTACLE_INTERVAL)
            except TimeoutError:
                continue
        return False

    async def _obstacles(self) -> Obstacles:
        return await self._until_done(
            "closure.obstacles",
            lambda: workflow.execute_activity_method(ClosureActivities.obstacles, self._user, **ONBOARDING_CALL),
        )

    async def _close(self) -> datetime:
        """Everything that opens or pays ends; then the retention begins. Returns when it is over."""
        tokens = await self._until_done(
            "closure.shut",
            lambda: workflow.execute_activity_method(ClosureActivities.shut, self._user, **ONBOARDING_CALL),
        )
        for card in tokens.cards:
            await _remove(card)
        await self._until_done(
            "vault.remove_tokens",
            lambda: workflow.execute_activity_method(PersonalKeyActivities.remove_tokens, tokens, **PERSONAL_KEY_CALL),
        )
        await self._until_done(
            "closure.end_onboarding",
            lambda: workflow.execute_activity_method(ClosureActivities.end_onboarding, self._user, **ONBOARDING_CALL),
        )
        await self._until_done(
            "personal_keys.retire",
            lambda: workflow.execute_activity_method(PersonalKeyActivities.retire, self._user, **PERSONAL_KEY_CALL),
        )
        order = CloseOrder(self._order.user_id, workflow.now())
        closed = await self._until_done(
            "closure.close",
            lambda: workflow.execute_activity_method(ClosureActivities.close, order, **ONBOARDING_CALL),
        )
        self._show(ClosureStatus.CLOSED, f", erased after {closed.erase_after:%Y-%m-%d}")
        return closed.erase_after

    async def _erase(self, erase_after: datetime) -> Erased:
        """The key first: from then on everything is unreadable, whatever of the rest is still to be done."""
        await workflow.sleep(max(erase_after - workflow.now(), timedelta(0)))
        destroyed = await self._until_done(
            "personal_keys.destroy",
            lambda: workflow.execute_activity_method(PersonalKeyActivities.destroy, self._user, **PERSONAL_KEY_CALL),
        )
        order = EraseOrder(self._order.user_id, destroyed.key_id, workflow.now())
        erased = await self._until_done(
            "closure.erase",
            lambda: workflow.execute_activity_method(ClosureActivities.erase, order, **ONBOARDING_CALL),
        )
        self._show(ClosureStatus.ERASED)
        return erased

    @named_update("decide")
    async def decide(self) -> ClosureSnapshot:
        """Returns as soon as it is known whether the closure waits."""
        await workflow.wait_condition(lambda: self._looked or self._withdrawn)
        return self.snapshot()

    @named_update("withdraw")
    async def withdraw(self, request: WithdrawRequest) -> ClosureSnapshot:
        """The user stays."""
        self._withdrawn = True
        await workflow.wait_condition(lambda: self._status is ClosureStatus.WITHDRAWN)
        return self.snapshot()

    @withdraw.validator
    def _may_withdraw(self, request: WithdrawRequest) -> None:
        if self._decided or self._status is not ClosureStatus.WAITING:
            raise ApplicationError("the wallet is closed already", type="closure_unexpected_state")

    @workflow.query(name="snapshot")
    def snapshot(self) -> ClosureSnapshot:
        return ClosureSnapshot(self._order.user_id, self._status, self._waiting_for, self.needs_attention())

    def _show(self, status: ClosureStatus, more: str = "") -> None:
        self._status = status
        workflow.upsert_search_attributes([CLOSURE_STATUS.value_set(status)])
        waits = f", waits for {', '.join(self._waiting_for)}" if self._waiting_for else ""
        workflow.set_current_details(f"**{status}**{waits}{more}")


async def _remove(card: CardRef) -> None:
    """Begins the card's own removal, unless its user has. It outlives this workflow: the network may take hours, and
    whoever leaves need not wait for it."""
    with contextlib.suppress(WorkflowAlreadyStartedError):
        await workflow.start_child_workflow(
            CardRemovalWorkflow.run,
            CardRemoval(card.payment_method_id, card.token_id),
            id=removal_workflow_id(card.payment_method_id),
            id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
            parent_close_policy=workflow.ParentClosePolicy.ABANDON,
        )


async def _register(token_id: str) -> None:
    """A card that the network may or may not know cannot be taken from it: its registration is brought to an end, also
    where whoever began it is gone."""
    with contextlib.suppress(WorkflowAlreadyStartedError):
        await workflow.start_child_workflow(
            TokenProvisioningWorkflow.run,
            TokenProvisioning(token_id),
            id=provisioning_workflow_id(token_id),
            id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
            parent_close_policy=workflow.ParentClosePolicy.ABANDON,
        )
