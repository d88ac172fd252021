"""Notifications, behind the payment and never in its way."""

from __future__ import annotations

from temporalio import activity

from activities import contracts
from activities.contracts import NotificationOrder
from activities.errors import translated
from domain.step_up import StepUpCodes
from notify.messages import CODE, Kind, Notification
from notify.service import Notifier


class NotifyActivities(contracts.NotifyActivities):
    def __init__(self, notifier: Notifier, codes: StepUpCodes) -> None:
        self._notifier = notifier
        self._codes = codes

    @activity.defn(name="notify.deliver")
    async def deliver(self, order: NotificationOrder) -> None:
        facts = {**order.facts, "amount": str(order.money)}
        if order.kind == Kind.STEP_UP_CODE:
            # Made here and not in the workflow, whose history is kept.
            facts[CODE] = self._codes.code(order.payment_id, order.money, order.facts["merchant"])
        with translated():
            await self._notifier.deliver(Notification(order.key, order.user_id, Kind(order.kind), facts))
