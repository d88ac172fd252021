"""Processes die by `kill -9`, at named places or with everything under way. Nothing is done twice or forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import httpx
import pytest
from temporalio.api.enums.v1 import EventType

from domain.ids import payment_workflow_id
from embedded.zones import Zone
from tests.faults.kit.cases import CARD, CVC, Kit, payment_of, spoiled
from tests.faults.kit.platform import ANSWER_TIMEOUT_SECONDS, API, WAIT_SECONDS, WORKERS
from tests.faults.kit.proxy import Direction, Fault, Stream
from tests.faults.kit.wire import network_message, statement_about, when_committed
from tests.support.shop import Wallet, new_key, until

pytestmark = pytest.mark.timeout(180)

PAYMENTS, NETWORK, VAULT = WORKERS[Zone.PAYMENTS], WORKERS[Zone.NETWORK], WORKERS[Zone.VAULT]
# Long enough to kill a process meanwhile, and shorter than the platform waits for an answer.
HELD_BACK_SECONDS = ANSWER_TIMEOUT_SECONDS * 0.6


# ------------------------------------------------------------------------------------------------- the network worker


@pytest.mark.parametrize("place", ["network.authorize.before", "network.authorize.after"])
async def test_a_network_worker_that_dies_around_its_request_has_authorized_once(
    place: str, kit: Kit, wallet: Wallet
) -> None:
    """The next attempt sends what was not sent, and finds what was answered."""
    key, amount = new_key(), kit.amount()
    payment_id = kit.shop.payment_id(key)
    crash = f"{place}@{payment_workflow_id(payment_id)}"
    await kit.platform.arm(NETWORK, crash)
    asking = asyncio.create_task(_open(kit, wallet, amount, key))
    await kit.platform.until_crashed(NETWORK, crash)
    await kit.platform.start_again(NETWORK)
    await asking
    payment = await kit.decided(payment_id)
    assert payment["status"] == "authorized"
    assert await kit.messages(payment["id"]) == ["0100"]


# -------------------------------------------------------------------------------------------------- the payments worker


async def _open(kit: Kit, wallet: Wallet, amount: int, key: str) -> httpx.Response:
    return await kit.shop.pay(wallet.card_id, amount, key=key, capture_method="manual")


@pytest.mark.parametrize(
    "place", ["payments.open.after", "network.ask.after", "ledger.record.before", "ledger.record.after"]
)
async def test_a_payments_worker_that_dies_around_the_writing_of_the_books_has_written_them_once(
    place: str, kit: Kit, wallet: Wallet
) -> None:
    """The opening; the network's answer; the authorization that is known, or written, and whose early answer was not
    given yet: the client's wait goes on, and its repeated request gets the answer that the first one got."""
    key, amount = new_key(), kit.amount()
    crash = f"{place}@{payment_workflow_id(kit.shop.payment_id(key))}"
    await kit.platform.arm(PAYMENTS, crash)
    asking = asyncio.create_task(_open(kit, wallet, amount, key))
    await kit.platform.until_crashed(PAYMENTS, crash)
    await kit.platform.start_again(PAYMENTS)
    answer = await asking
    payment = await kit.decided(kit.shop.payment_id(key))
    assert payment["status"] == "authorized"
    assert payment_of(answer)["id"] == payment["id"]
    await kit.same_answer(wallet, amount, key, payment, answer)
    assert await kit.messages(payment["id"]) == ["0100"]
    assert await kit.events(payment["id"]) == ["payment.created", "payment.authorized"]


async def test_a_payments_worker_that_dies_after_a_capture_was_booked_has_captured_once(
    kit: Kit, wallet: Wallet
) -> None:
    payment = await kit.shop.authorized(wallet.card_id, kit.amount())
    path, key = f"/v1/payments/{payment['id']}/capture", new_key()
    crash = f"ledger.record.after@{payment_workflow_id(payment['id'])}"
    await kit.platform.arm(PAYMENTS, crash)
    asking = asyncio.create_task(kit.shop.post(path, {"amount_minor": 500}, key=key))
    await kit.platform.until_crashed(PAYMENTS, crash)
    await kit.platform.start_again(PAYMENTS)
    await asking
    again = await kit.shop.post(path, {"amount_minor": 500}, key=key)
    assert (again.status_code, again.json()["amount_captured_minor"]) == (200, 500)
    await until(lambda: _captured_minor(kit, payment["id"]), lambda taken: taken == 500)
    assert (await kit.decided(payment["id"]))["amount_captured_minor"] == 500


async def test_while_no_worker_runs_the_caller_is_told_to_wait_and_the_payment_is_finished_later(
    kit: Kit, wallet: Wallet
) -> None:
    await kit.platform.kill(PAYMENTS)
    key, amount = new_key(), kit.amount()
    loop = asyncio.get_running_loop()
    started = loop.time()
    answer = await _open(kit, wallet, amount, key)
    assert (answer.status_code, answer.json()["status"]) == (202, "processing")
    assert loop.time() - started >= WAIT_SECONDS - 0.5
    await kit.platform.start_again(PAYMENTS)
    payment = await kit.decided(answer.json()["id"])
    assert payment["status"] == "authorized"
    await kit.same_answer(wallet, amount, key, payment)


# --------------------------------------------------------------------------------------------------------------- others


async def test_a_new_card_waits_for_a_vault_that_comes_back_and_a_known_one_pays_without_it(
    kit: Kit, wallet: Wallet
) -> None:
    await kit.platform.kill(VAULT)
    key, amount = new_key(), kit.amount()
    answer = await _open(kit, wallet, amount, key)
    assert (answer.status_code, answer.json()["status"]) == (201, "authorized")
    user = await kit.shop.add_user()
    card = {"user": user["id"], "number": CARD, "exp_month": 12, "exp_year": 2034, "cvc": CVC}
    added = await kit.shop.post("/v1/payment_methods/cards", card)
    assert (added.status_code, added.json()["status"]) == (202, "pending")
    refused = await kit.shop.pay(added.json()["id"], kit.amount())
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "payment_method_pending")
    await kit.platform.start_again(VAULT)
    usable = await kit.shop.outcome(f"/v1/payment_methods/{added.json()['id']}", added.json())
    assert usable["status"] == "active"
    await kit.decided((await kit.shop.authorized(usable["id"], kit.amount()))["id"])
    await kit.same_answer(wallet, amount, key, await kit.decided(kit.shop.payment_id(key)))


async def _while_the_network_has_it(kit: Kit, payment_id: str, asking: asyncio.Task[httpx.Response]) -> None:
    await kit.until_received(payment_id, "0100")
    await kit.platform.kill(API)


async def _when_it_was_told(kit: Kit, payment_id: str, asking: asyncio.Task[httpx.Response]) -> None:
    """The API had the workflow's answer, and neither kept it nor passed it on."""
    await kit.platform.until_crashed(API, "client.authorize.after")


@pytest.mark.parametrize("dies", [_while_the_network_has_it, _when_it_was_told])
async def test_an_api_that_died_after_it_had_started_a_payment_attaches_to_it_again(
    dies: Callable[[Kit, str, asyncio.Task[httpx.Response]], Awaitable[None]], kit: Kit, wallet: Wallet
) -> None:
    key, amount = new_key(), kit.amount()
    payment_id = kit.shop.payment_id(key)
    await kit.network.set_faults(delay_seconds=HELD_BACK_SECONDS)
    if dies is _when_it_was_told:
        await kit.platform.arm(API, f"client.authorize.after@{payment_workflow_id(payment_id)}")
    asking = asyncio.create_task(_open(kit, wallet, amount, key))
    await dies(kit, payment_id, asking)
    with pytest.raises(httpx.TransportError):
        await asking
    await kit.network.clear_faults()
    await kit.platform.start_again(API)
    payment = await kit.decided(payment_id)
    assert payment["status"] == "authorized"
    await kit.same_answer(wallet, amount, key, payment)
    assert await kit.messages(payment_id) == ["0100"]


async def test_authorizations_capture_and_refund_that_lost_all_processes_are_each_done_once(kit: Kit) -> None:
    """They die while the network has it all and holds back what it answers."""
    wallet = await kit.shop.wallet()
    to_refund = await kit.shop.captured(wallet.card_id, kit.amount())
    to_capture = await kit.shop.authorized(wallet.card_id, kit.amount())
    taken = to_refund["amount_captured_minor"]
    await until(lambda: _captured_minor(kit, to_refund["id"]), lambda found: found == taken)
    await kit.network.set_faults(delay_seconds=HELD_BACK_SECONDS)
    asked, refund_key = {new_key(): kit.amount(), new_key(): kit.amount()}, new_key()
    refunds = f"/v1/payments/{to_refund['id']}/refunds"
    asking = [
        *(asyncio.create_task(_open(kit, wallet, amount, key)) for key, amount in asked.items()),
        asyncio.create_task(kit.shop.post(refunds, {"amount_minor": 700}, key=refund_key)),
        asyncio.create_task(kit.shop.post(f"/v1/payments/{to_capture['id']}/capture")),
    ]
    in_flight = [(kit.shop.payment_id(key), "0100") for key in asked]
    in_flight += [(to_refund["id"], "0200"), (to_capture["id"], "0220")]
    await asyncio.gather(*(kit.until_received(payment_id, mti) for payment_id, mti in in_flight))
    everything = kit.platform.programs
    await kit.platform.kill(*everything)
    await kit.network.clear_faults()
    await kit.platform.start_again(*everything)
    await asyncio.gather(*asking, return_exceptions=True)

    for key, amount in asked.items():
        payment = await kit.decided(kit.shop.payment_id(key))
        await kit.same_answer(wallet, amount, key, payment)
        requests = [m for m in (await kit.network.journal(payment["id"]))["messages"] if m["mti"] in ("0100", "0101")]
        # Asked again, the host answers from its own journal: there is one decision.
        assert [request["answered_before"] for request in requests] in ([0], [0, 1])
    again = await kit.shop.post(refunds, {"amount_minor": 700}, key=refund_key)
    refund = await kit.shop.outcome(f"/v1/refunds/{again.json()['id']}")
    given = 700 if refund["status"] == "succeeded" else 0
    [authorization] = (await kit.network.journal(to_refund["id"]))["authorizations"]
    assert authorization["refunded_minor"] == given
    shown = await kit.decided(to_refund["id"])
    assert (shown["status"], shown["amount_refunded_minor"]) == ("captured", given)
    assert len((await kit.shop.get(refunds))["data"]) == 1
    whole = to_capture["amount_minor"]
    await until(lambda: _captured_minor(kit, to_capture["id"]), lambda found: found == whole)
    assert (await kit.decided(to_capture["id"]))["status"] == "captured"


# ------------------------------------------------------------------------------------------------------------- stalling


async def test_a_network_worker_that_stalls_beyond_its_time_has_authorized_once(kit: Kit, wallet: Wallet) -> None:
    """Temporal gives the attempt up and starts a second one; what the first one says then is ignored."""
    key, amount = new_key(), kit.amount()
    payment_id = kit.shop.payment_id(key)

    async def stall(stream: Stream, request: bytes) -> None:
        kit.platform.stop(NETWORK)
        await stream.write(request)

    request = Fault("a stalled worker", Direction.TO_SERVER, network_message("0100", amount_minor=amount), stall)
    with spoiled(kit.platform.network, request):
        asking = asyncio.create_task(_open(kit, wallet, amount, key))
        await request.once.wait()
        await until(lambda: _attempt(kit, payment_id), lambda attempt: attempt > 1)
        kit.platform.resume(NETWORK)
    await asking
    payment = await kit.decided(payment_id)
    assert payment["status"] == "authorized"
    assert await kit.messages(payment_id) == ["0100"]
    assert await kit.events(payment_id) == ["payment.created", "payment.authorized"]


async def test_a_payments_worker_that_stalls_beyond_its_time_has_written_the_books_once(
    kit: Kit, wallet: Wallet
) -> None:
    """No crash at all: Temporal gives the workflow's task to whoever is there, and it is done again."""
    key, amount = new_key(), kit.amount()
    payment_id = kit.shop.payment_id(key)

    async def stall(answers: Stream, answer: bytes) -> None:
        kit.platform.stop(PAYMENTS)
        await answers.write(answer)

    # The first statement about the payment opens it, the second one records its authorization.
    recorded = Fault(
        "a stalled worker", Direction.TO_SERVER, statement_about(payment_id), when_committed(stall), skip=1
    )
    with spoiled(kit.platform.database[Zone.PAYMENTS], recorded):
        asking = asyncio.create_task(_open(kit, wallet, amount, key))
        await recorded.once.wait()
        await until(lambda: _task_timed_out(kit, payment_id), bool)
        kit.platform.resume(PAYMENTS)
    await asking
    payment = await kit.decided(payment_id)
    assert payment["status"] == "authorized"
    assert await kit.events(payment_id) == ["payment.created", "payment.authorized"]
    assert await kit.messages(payment_id) == ["0100"]


async def _attempt(kit: Kit, payment_id: str) -> int:
    """The number of the attempt of the activity that runs now."""
    description = await kit.workflow(payment_id).describe()
    pending = description.raw_description.pending_activities
    return pending[0].attempt if pending else 0


async def _task_timed_out(kit: Kit, payment_id: str) -> bool:
    history = await kit.workflow(payment_id).fetch_history()
    return any(event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_TIMED_OUT for event in history.events)


async def _captured_minor(kit: Kit, payment_id: str) -> int:
    [authorization] = (await kit.network.journal(payment_id))["authorizations"]
    return int(authorization["captured_minor"])
