"""`python -m tests.replay.record [SCENARIO…]`: plays scenarios on real workers and books, and writes their histories.

A history of a build that was deployed is kept beside the new ones, under a name of its own: payments that the build
started go on for months, on whatever code comes after it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest
from temporalio.client import Client, WorkflowHandle
from temporalio.testing import WorkflowEnvironment

from activities.contracts import StageDone
from domain.disputes import NoticeStage
from domain.ids import (
    TOKEN,
    dispute_workflow_id,
    late_notice_workflow_id,
    new_id,
    payment_workflow_id,
    provisioning_workflow_id,
    refund_workflow_id,
    renewal_workflow_id,
)
from domain.micro_deposits import BankReturn
from domain.outcomes import Acknowledged, DoubtReason, Unknown
from embedded.servers import binary
from store.engine import create_engine
from store.migrate import migrate
from temporal import search_attributes
from temporal.search_attributes import NEEDS_ATTENTION
from temporal.task_queues import TaskQueue
from tests.replay.codec import replay_converter
from tests.replay.deposits import DEPOSITS
from tests.replay.deposits import Scenario as DepositScenario
from tests.replay.disputes import DISPUTES
from tests.replay.disputes import Scenario as DisputeScenario
from tests.replay.history_files import save
from tests.replay.onboarding import CASES, CLOSURES
from tests.replay.onboarding import Scenario as OnboardingScenario
from tests.replay.provisioning import open_provisioning
from tests.replay.scenarios import PAYMENTS, REFUNDS, WINDOWS, Scenario, Stage
from tests.support.card_world import NOTHING, open_card_world
from tests.support.deposit_world import open_deposit_world
from tests.support.dispute_world import open_dispute_world
from tests.support.onboarding_world import open_onboarding_world
from tests.support.settlement_world import open_settlement_world
from tests.support.shared import close_run, open_run, shared_server
from tests.support.world import NOW, Fault, declined, open_world
from tests.workflows.test_invariant_workflow import ScriptedChecks
from workers.registry import activity_worker, payments_worker
from workflows.bank_accounts import BankAccountRemovalWorkflow, BankReturnWorkflow
from workflows.cards import CardExpiryRemindersWorkflow, CardRemovalWorkflow
from workflows.dispute import LateNoticeWorkflow
from workflows.invariants import InvariantWorkflow
from workflows.messages import BankAccountRemoval, Resolution, ResolveRequest, RetryRequest, TokenProvisioning
from workflows.micro_deposit import BankDayWorkflow
from workflows.onboarding import RescreeningWorkflow
from workflows.settlement import BreakWorkflow
from workflows.token_lifecycle import TokenProvisioningWorkflow

# Those of disputes have names that those of payments have, too.
SCENARIOS = (
    {scenario.__name__ for scenario in (*PAYMENTS, *REFUNDS)}
    | {f"dispute_{scenario.__name__}" for scenario in DISPUTES}
    | {f"onboarding_{scenario.__name__}" for scenario in CASES}
    | {f"closure_{scenario.__name__}" for scenario in CLOSURES}
    | {f"micro_deposit_{scenario.__name__}" for scenario in DEPOSITS}
    | {"rescreening", "bank_day", "bank_account_removal", "bank_returns"}
    | {"token_provisioning", "card_verification", "cards", "settlement", "invariants", "dispute_late_notice"}
)


async def record(engine: AsyncEngine, wanted: Callable[[str], bool]) -> None:
    """Writes the histories of the scenarios that are `wanted`, over those of the same names."""
    for scenario in PAYMENTS:
        if wanted(scenario.__name__):
            await _record_payment(engine, scenario)
    for scenario in REFUNDS:
        if wanted(scenario.__name__):
            await _record_refund(engine, scenario)
    for dispute in DISPUTES:
        if wanted(f"dispute_{dispute.__name__}"):
            await _record_dispute(engine, dispute)
    for case in CASES:
        if wanted(f"onboarding_{case.__name__}"):
            await _record_onboarding(engine, case, "onboarding")
    for closure in CLOSURES:
        if wanted(f"closure_{closure.__name__}"):
            await _record_onboarding(engine, closure, "closure")
    if wanted("rescreening"):
        await _record_rescreening(engine)
    for deposit in DEPOSITS:
        if wanted(f"micro_deposit_{deposit.__name__}"):
            await _record_deposits(deposit)
    if wanted("bank_day"):
        await _record_bank_day()
    if wanted("bank_returns"):
        await _record_bank_returns()
    if wanted("bank_account_removal"):
        await _record_bank_account_removal()
    if wanted("token_provisioning"):
        await _record_provisioning()
    if wanted("card_verification"):
        await _record_verifications(engine)
    if wanted("cards"):
        await _record_cards(engine)
    if wanted("settlement"):
        await _record_settlement()
    if wanted("dispute_late_notice"):
        await _record_late_notice(engine)
    if wanted("invariants"):
        await _record_invariants()


async def _record_payment(engine: AsyncEngine, scenario: Scenario) -> None:
    async with _environment() as environment, open_world(environment.client, engine) as world:
        await scenario(Stage(world, environment))
        await world.closed()
        await _save(f"payment_{scenario.__name__}", environment.client, payment_workflow_id(world.request.payment_id))


async def _record_refund(engine: AsyncEngine, scenario: Scenario) -> None:
    """Both workflows: a refund is a dialogue with its payment's."""
    async with _environment() as environment, open_world(environment.client, engine) as world:
        stage = Stage(world, environment)
        await scenario(stage)
        await stage.skip(WINDOWS)
        await world.closed()
        await _save(scenario.__name__, environment.client, refund_workflow_id(stage.refund_id))
        await _save(
            f"payment_with_{scenario.__name__}", environment.client, payment_workflow_id(world.request.payment_id)
        )


async def _record_dispute(engine: AsyncEngine, scenario: DisputeScenario) -> None:
    s3 = shared_server("moto")["endpoint"]
    async with _environment() as environment, open_dispute_world(environment, engine, s3) as world:
        await scenario(world)
        await world.closed()
        await _save(f"dispute_{scenario.__name__}", environment.client, dispute_workflow_id(world.chargeback_id))


async def _record_late_notice(engine: AsyncEngine) -> None:
    """What is said of a case after its end, and seen to by two operators."""
    s3 = shared_server("moto")["endpoint"]
    async with _environment() as environment, open_dispute_world(environment, engine, s3) as world:
        await world.open()
        word = world.notice(stage=NoticeStage.WON, after=WINDOWS)
        workflow_id = late_notice_workflow_id(word.chargeback_id, word.kind, word.stage, word.issued_at)
        handle = await environment.client.start_workflow(
            LateNoticeWorkflow.run, word, id=workflow_id, task_queue=TaskQueue.PAYMENTS
        )
        await _parked(handle)
        for operator in ("operator-1", "operator-2"):
            request = ResolveRequest(operator, "dispute.late_notice", Resolution.ACKNOWLEDGED, "asked the issuer")
            await handle.execute_update(LateNoticeWorkflow.resolve, request)
        await handle.result()
        await _save("dispute_late_notice", environment.client, workflow_id)


async def _record_onboarding(engine: AsyncEngine, scenario: OnboardingScenario, kind: str) -> None:
    async with _environment() as environment, open_onboarding_world(environment, engine) as world:
        await scenario(world)
        await _save(f"{kind}_{scenario.__name__}", environment.client, f"{kind}/{world.user.user_id}")


async def _record_rescreening(engine: AsyncEngine) -> None:
    async with _environment() as environment, open_onboarding_world(environment, engine):
        handle = await environment.client.start_workflow(
            RescreeningWorkflow.run, id="onboarding-rescreening/recorded", task_queue=TaskQueue.PAYMENTS
        )
        await handle.result()
        await _save("rescreening", environment.client, handle.id)


async def _record_deposits(scenario: DepositScenario) -> None:
    async with _environment() as environment, open_deposit_world(environment.client) as world:
        await scenario(world, environment.sleep)
        await world.handle.result()
        await _save(f"micro_deposit_{scenario.__name__}", environment.client, world.handle.id)


async def _record_bank_day() -> None:
    async with _environment() as environment, open_deposit_world(environment.client):
        handle = await environment.client.start_workflow(
            BankDayWorkflow.run, id="bank-day/recorded", task_queue=TaskQueue.PAYMENTS
        )
        await handle.result()
        await _save("bank_day", environment.client, handle.id)


async def _record_bank_returns() -> None:
    """One that takes an account back, one that corrects it, and one that two operators write off."""
    day = NOW.date()
    late = BankReturn(7, 1, "return", "R10", 32, day, 21, "md_1", "ba_1")
    change = BankReturn(7, 2, "change", "C01", 0, day, 21, "md_1", "ba_1", "key.box")
    unmatched = BankReturn(7, 3, "return", "R03", 32, day, 21)
    for name, entry in (("late", late), ("corrected", change), ("unmatched", unmatched)):
        async with _environment() as environment, open_deposit_world(environment.client):
            handle = await environment.client.start_workflow(
                BankReturnWorkflow.run, entry, id=f"bank-return/{name}", task_queue=TaskQueue.PAYMENTS
            )
            if entry is unmatched:
                await _parked(handle)
                for operator in ("operator-1", "operator-2"):
                    request = ResolveRequest(operator, "bank.explain_return", Resolution.WRITE_OFF, "asked the bank")
                    await handle.execute_update(BankReturnWorkflow.resolve, request)
            await handle.result()
            await _save(f"bank_return_{name}", environment.client, handle.id)


async def _record_bank_account_removal() -> None:
    async with _environment() as environment, open_deposit_world(environment.client) as world:
        handle = await environment.client.start_workflow(
            BankAccountRemovalWorkflow.run,
            BankAccountRemoval(world.order.payment_method_id, world.order.bank_account_id),
            id="bank-account-removal/recorded",
            task_queue=TaskQueue.PAYMENTS,
        )
        await handle.result()
        await _save("bank_account_removal", environment.client, handle.id)


async def _record_provisioning() -> None:
    async with _environment() as environment, open_provisioning(environment.client) as network:
        handle = await _provision(environment.client)
        await handle.result()
        await _save("token_provisioning", environment.client, handle.id)

        network.then(Fault("AdviceRefused", final=True))
        handle = await _provision(environment.client)
        await _parked(handle)
        network.then(Acknowledged(NOW))
        await handle.execute_update(TokenProvisioningWorkflow.retry, RetryRequest("operator-1", "network.provision"))
        await handle.result()
        await _save("token_provisioning_parked_and_retried", environment.client, handle.id)


async def _record_verifications(engine: AsyncEngine) -> None:
    """One that is answered, one that is never, one that is answered later, and one that a provisioning begins."""
    answers: dict[str, tuple[object, ...]] = {
        "verified": (NOTHING,),
        "declined": (declined("N7"),),
        "never_answered": (Unknown(DoubtReason.TIMEOUT),),
        "answered_later": (Unknown(DoubtReason.TIMEOUT), NOTHING),
    }
    for name, answer in answers.items():
        async with _environment() as environment, open_card_world(environment.client, engine) as world:
            world.outside.verify.then(*answer)
            await world.verify()
            await _save(f"card_verification_{name}", environment.client, world.handle.id)
    async with _environment() as environment, open_card_world(environment.client, engine, "pending") as world:
        handle = await world.provision(then_verify=True)
        await handle.result()
        await world.handle.result()
        await _save("token_provisioning_and_verification", environment.client, handle.id)


async def _record_cards(engine: AsyncEngine) -> None:
    """A removal, one that the network refuses and two operators resolve, a renewal, and a day's reminders."""
    async with _environment() as environment, open_card_world(environment.client, engine) as world:
        removal = await world.remove()
        await removal.result()
        await _save("card_removal", environment.client, removal.id)
    async with _environment() as environment, open_card_world(environment.client, engine) as world:
        world.outside.deprovision.then(Fault("AdviceRefused", final=True))
        removal = await world.remove()
        await _parked(removal)
        for operator in ("operator-1", "operator-2"):
            decision = ResolveRequest(operator, "network.deprovision", Resolution.ACKNOWLEDGED, "seen at the network")
            await removal.execute_update(CardRemovalWorkflow.resolve, decision)
        await removal.result()
        await _save("card_removal_resolved", environment.client, removal.id)
    async with _environment() as environment, open_card_world(environment.client, engine) as world:
        await world.renew(2034, 7)
        renewal_id = renewal_workflow_id(world.verification.payment_method_id, 2034, 7)
        await _save("card_renewal", environment.client, renewal_id)
        reminders = await environment.client.start_workflow(
            CardExpiryRemindersWorkflow.run, id="card-expiry-reminders/recorded", task_queue=TaskQueue.PAYMENTS
        )
        await reminders.result()
        await _save("card_expiry_reminders", environment.client, reminders.id)


async def _record_settlement() -> None:
    """A day in pages that finds a break, and the break's end by two operators."""
    async with _environment() as environment, open_settlement_world(environment.client) as world:
        world.outside.stages["match"].then(StageDone("500"), StageDone())
        world.outside.stages["list_breaks"].then(StageDone(None, (world.found,)))
        world.outside.check.then("break_amount")
        handle = await world.settle()
        await handle.result()
        await _save("settlement", environment.client, handle.id)
        for operator in ("operator-1", "operator-2"):
            decision = ResolveRequest(operator, "settlement.break", Resolution.WRITE_OFF, "too small to claim")
            await world.break_handle.execute_update(BreakWorkflow.resolve, decision)
        await world.break_handle.result()
        await _save("settlement_break_written_off", environment.client, world.break_handle.id)


async def _record_invariants() -> None:
    async with _environment() as environment:
        checks = ScriptedChecks("one_approval: pay_1 (2 approvals)", None)
        async with (
            payments_worker(environment.client, [], "test"),
            activity_worker(environment.client, TaskQueue.SETTLEMENT, [checks.close_batches, checks.check], "test"),
        ):
            handle = await environment.client.start_workflow(
                InvariantWorkflow.run, id="invariants/recorded", task_queue=TaskQueue.PAYMENTS
            )
            await handle.result()
            await _save("invariants_broken_and_healed", environment.client, handle.id)


async def _provision(client: Client) -> WorkflowHandle[TokenProvisioningWorkflow, None]:
    token_id = new_id(TOKEN)
    return await client.start_workflow(
        TokenProvisioningWorkflow.run,
        TokenProvisioning(token_id),
        id=provisioning_workflow_id(token_id),
        task_queue=TaskQueue.PAYMENTS,
    )


async def _parked(handle: WorkflowHandle[Any, None]) -> None:
    """Returns when the step waits for an operator, as its search attribute shows."""
    async with asyncio.timeout(30):
        while True:
            description = await handle.describe()
            if description.typed_search_attributes.get(NEEDS_ATTENTION) is not None:
                return
            await asyncio.sleep(0.02)


async def _save(name: str, client: Client, workflow_id: str) -> None:
    save(name, await client.get_workflow_handle(workflow_id).fetch_history())
    sys.stdout.write(f"{name}\n")


@asynccontextmanager
async def _environment() -> AsyncIterator[WorkflowEnvironment]:
    async with await WorkflowEnvironment.start_time_skipping(
        test_server_existing_path=str(binary("temporal-test-server")),
        data_converter=replay_converter(),
        # Otherwise the histories would name this machine.
        identity="recorder",
    ) as environment:
        kinds = {
            name: IndexedValueType.Value(f"INDEXED_VALUE_TYPE_{kind.upper()}")
            for name, kind in search_attributes.ALL.items()
        }
        await environment.client.operator_service.add_search_attributes(
            AddSearchAttributesRequest(namespace=environment.client.namespace, search_attributes=kinds)
        )
        yield environment


async def _with_books(database_url: str, wanted: Callable[[str], bool]) -> None:
    engine = create_engine(database_url)
    try:
        await record(engine, wanted)
    finally:
        await engine.dispose()


def main(names: Sequence[str]) -> None:
    unknown = set(names) - SCENARIOS
    if unknown:
        raise SystemExit(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(sorted(SCENARIOS))}")
    # The scenarios' faults are scripted: their tracebacks would only hide a real one.
    logging.getLogger("temporalio").setLevel(logging.CRITICAL)
    open_run()
    try:
        database_url = shared_server("postgres")["url"].format(database="postgres")
        migrate(database_url)
        asyncio.run(_with_books(database_url, lambda name: not names or name in names))
    finally:
        close_run()


if __name__ == "__main__":
    main(sys.argv[1:])
    sys.stdout.flush()
    # The Temporal SDK's threads need a moment: ending at once aborts the interpreter now and then.
    os._exit(0)
