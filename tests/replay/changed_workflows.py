"""The payment workflow with changes that nobody may deploy without a patch: replaying must find every one of them."""

from __future__ import annotations

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities.contracts import PaymentOpened
    from domain.network import CaptureCommand
    from workflows.messages import PaymentRequest, PaymentSnapshot
    from workflows.payment import PaymentWorkflow


@workflow.defn(name="payment")
class WaitsFirst(PaymentWorkflow):
    """A timer more."""

    @workflow.init
    def __init__(self, request: PaymentRequest) -> None:
        super().__init__(request)

    @workflow.run
    async def run(self, request: PaymentRequest) -> PaymentSnapshot:
        await workflow.sleep(1)
        return await super().run(request)


@workflow.defn(name="payment")
class OmitsTheAdvice(PaymentWorkflow):
    """An activity less: the capture is not told to the network."""

    @workflow.init
    def __init__(self, request: PaymentRequest) -> None:
        super().__init__(request)

    @workflow.run
    async def run(self, request: PaymentRequest) -> PaymentSnapshot:
        return await super().run(request)

    async def _advise_capture(self, number: int, command: CaptureCommand) -> None:
        return


@workflow.defn(name="payment")
class AuthorizesBeforeTheRiskIsKnown(PaymentWorkflow):
    """Another order of the same steps."""

    @workflow.init
    def __init__(self, request: PaymentRequest) -> None:
        super().__init__(request)

    @workflow.run
    async def run(self, request: PaymentRequest) -> PaymentSnapshot:
        return await super().run(request)

    async def _open(self) -> PaymentOpened:
        await self._authorize()
        return await super()._open()
