"""The card network loses, repeats, swaps, forges and mangles messages, and goes away. Each payment is decided once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import psutil
import pytest
from sqlalchemy import text

from embedded.zones import Zone
from network.codec import Message
from tests.faults.kit.cases import LOST_ACKNOWLEDGEMENTS, Kit, spoiled
from tests.faults.kit.platform import ANSWER_TIMEOUT_SECONDS, WORKERS
from tests.faults.kit.proxy import (
    Action,
    Direction,
    Fault,
    Stream,
    delay,
    drop,
    duplicate,
    glue_to_next,
    hold_until,
    replace_by,
    slice_bytes,
    swap_with_next,
)
from tests.faults.kit.wire import frame_of, message_of, network_message
from tests.support.shop import Json, Wallet, new_key, until

pytestmark = pytest.mark.timeout(180)

NETWORK = WORKERS[Zone.NETWORK]
ONE_MEGABYTE = 1024 * 1024


async def _pay_with(kit: Kit, wallet: Wallet, *faults: tuple[Direction, str, Action]) -> Json:
    """A payment whose messages meet these faults, once it is decided."""
    amount = kit.amount()
    armed = [
        kit.platform.network.spoil(Fault(mti, direction, network_message(mti, amount_minor=amount), action))
        for direction, mti, action in faults
    ]
    try:
        answer = await kit.shop.pay(wallet.card_id, amount, capture_method="manual")
        payment = await kit.decided(answer.json()["id"])
        assert all(fault.struck for fault in armed)
        return payment | {"told": answer.json()["status"]}
    finally:
        for fault in armed:
            kit.platform.network.forgive(fault)


async def _journal(kit: Kit, payment_id: str) -> Json:
    """The authorization as our own journal has it."""
    query = text("SELECT * FROM network.messages WHERE payment_id = :payment AND kind = 'authorize'")
    async with kit.database.connect() as connection:
        return dict((await connection.execute(query, {"payment": payment_id})).mappings().one())


async def _is_reversed(kit: Kit, payment: Json) -> None:
    """The doubt was told, and ended with the network's word that nothing stands."""
    assert (payment["told"], payment["status"]) == ("in_doubt", "voided")
    [authorization] = (await kit.network.journal(payment["id"]))["authorizations"]
    assert authorization["state"] == "reversed"
    assert (await kit.messages(payment["id"]))[:2] == ["0100", "0420"]


# ---------------------------------------------------------------------------------------------------- lost, late, twice


async def test_a_reversal_whose_acknowledgement_is_lost_five_times_is_repeated_and_has_one_effect(
    kit: Kit, unacknowledged: asyncio.Task[Json]
) -> None:
    payment = await unacknowledged
    received = (await kit.network.journal(payment["id"]))["messages"]
    reversals = [message for message in received if message["mti"] in ("0420", "0421")]
    assert len(reversals) == LOST_ACKNOWLEDGEMENTS + 1
    assert [message["answered_before"] for message in reversals] == [0] + [1] * LOST_ACKNOWLEDGEMENTS
    assert {(message["stan"], message["transmission_time"]) for message in reversals} == {
        (reversals[0]["stan"], reversals[0]["transmission_time"])
    }
    [authorization] = (await kit.network.journal(payment["id"]))["authorizations"]
    assert authorization["state"] == "reversed"
    assert (await kit.events(payment["id"])).count("payment.reversed") == 1


async def test_an_authorization_whose_answer_is_lost_is_reversed_until_that_is_acknowledged(
    kit: Kit, wallet: Wallet
) -> None:
    to_client = Direction.TO_CLIENT
    payment = await _pay_with(kit, wallet, (to_client, "0110", drop), (to_client, "0430", drop))
    await _is_reversed(kit, payment)
    assert await kit.messages(payment["id"]) == ["0100", "0420", "0421"]


async def test_an_approval_that_arrives_after_its_reversal_is_recorded_and_never_applied(
    kit: Kit, wallet: Wallet
) -> None:
    late = asyncio.Event()
    payment = await _pay_with(kit, wallet, (Direction.TO_CLIENT, "0110", hold_until(late)))
    await _is_reversed(kit, payment)
    late.set()
    journal = await until(lambda: _journal(kit, payment["id"]), lambda row: row["late_reported_at"] is not None)
    assert (journal["state"], journal["response_code"], journal["late_response_code"]) == ("unanswered", None, "00")
    assert (await kit.decided(payment["id"]))["status"] == "voided"
    assert (await kit.events(payment["id"]))[-1] == "payment.reversed"


async def test_an_approval_that_comes_twice_is_ignored_the_second_time(kit: Kit, wallet: Wallet) -> None:
    payment = await _pay_with(kit, wallet, (Direction.TO_CLIENT, "0110", duplicate))
    assert payment["status"] == "authorized"
    journal = await _journal(kit, payment["id"])
    assert (journal["state"], journal["late_response_code"]) == ("answered", None)
    await _logged(kit, f"a repeated answer to RRN {journal['rrn']}")


@pytest.mark.parametrize("spoil", [swap_with_next, glue_to_next], ids=["swapped", "in one piece"])
async def test_answers_that_come_in_another_order_or_in_one_piece_find_their_requests(
    spoil: Action, kit: Kit, wallet: Wallet
) -> None:
    """The first answer waits for the next one, whichever that is."""
    asked = {new_key(): kit.amount() for _ in range(4)}
    first = Fault("the first of them", Direction.TO_CLIENT, network_message("0110"), spoil)
    with spoiled(kit.platform.network, first):
        answers = await asyncio.gather(
            *(kit.shop.pay(wallet.card_id, amount, key=key, capture_method="manual") for key, amount in asked.items())
        )
    for answer, amount in zip(answers, asked.values(), strict=True):
        payment = answer.json()
        assert (payment["status"], payment["amount_authorized_minor"]) == ("authorized", amount)
        [theirs] = (await kit.network.journal(payment["id"]))["authorizations"]
        assert (await _journal(kit, payment["id"]))["approval_code"] == theirs["approval_code"]


async def test_answers_around_the_time_limit_decide_their_payments_once(kit: Kit, wallet: Wallet) -> None:
    """Well before it, right at it on either side, well after it."""
    around = [-0.5, -0.1, -0.05, 0.0, 0.05, 0.1, 0.5]
    payments = await asyncio.gather(
        *(
            _pay_with(kit, wallet, (Direction.TO_CLIENT, "0110", delay(ANSWER_TIMEOUT_SECONDS + offset)))
            for offset in around
        )
    )
    # `decided` has seen that one approval stands at the network for those authorized, and none for the others.
    assert (payments[0]["status"], payments[-1]["status"]) == ("authorized", "voided")
    for payment in payments:
        journal = await _journal(kit, payment["id"])
        reversed_too = "0420" in await kit.messages(payment["id"])
        assert (payment["status"], journal["state"], reversed_too) in (
            ("authorized", "answered", False),
            ("voided", "unanswered", True),
        )


# ---------------------------------------------------------------------------------------------------- forged or foreign


def _changed(number: int, value: str) -> Action:
    def change(frame: bytes) -> bytes:
        message = message_of(frame)
        assert message is not None
        return frame_of(Message(message.mti, {**message.fields, number: value}))

    return replace_by(change)


@pytest.mark.parametrize(
    ("number", "value", "log"),
    [
        (4, "000000000001", "differs from its request in DE4"),
        (37, "000000000000", "differs from its request in DE37"),
        (49, "578", "differs from its request in DE49"),
        (11, "999999", "an unsolicited answer 0110 to STAN 999999 is refused"),
    ],
    ids=["amount", "RRN", "currency", "STAN"],
)
async def test_an_approval_of_something_else_than_was_asked_for_is_refused_and_logged(
    number: int, value: str, log: str, kit: Kit, wallet: Wallet
) -> None:
    payment = await _pay_with(kit, wallet, (Direction.TO_CLIENT, "0110", _changed(number, value)))
    await _is_reversed(kit, payment)
    await _logged(kit, log)


async def test_an_unsolicited_approval_is_refused_and_disturbs_nobody(kit: Kit, wallet: Wallet) -> None:
    forged = Message(
        "0110",
        {3: "000000", 4: "000000002000", 7: "1122000000", 11: "999998", 32: "400123", 37: "000000000001", 39: "00"}
        | {38: "123456", 41: "00000001", 42: "coffee-42      ", 49: "840"},
    )
    before = kit.platform.network.connections_made
    assert kit.platform.network.inject(Direction.TO_CLIENT, frame_of(forged))
    await _logged(kit, "an unsolicited answer 0110 to STAN 999998 is refused")
    assert (await _pay_with(kit, wallet))["status"] == "authorized"
    assert kit.platform.network.connections_made == before


# -------------------------------------------------------------------------------------------------------------- mangled


async def test_messages_that_come_byte_by_byte_are_understood(kit: Kit, wallet: Wallet) -> None:
    payment = await _pay_with(
        kit, wallet, (Direction.TO_SERVER, "0100", slice_bytes), (Direction.TO_CLIENT, "0110", slice_bytes)
    )
    assert payment["status"] == "authorized"


def _too_short(frame: bytes) -> bytes:
    """The length says less than there is, so the next message begins in the middle of this one."""
    return (len(frame) - 22).to_bytes(2, "big") + frame[2:]


def _too_long(frame: bytes) -> bytes:
    """The length says more than a message may have."""
    return b"\xff\xff" + frame[2:]


def _flipped_bitmap(frame: bytes) -> bytes:
    """It names fields that are not there, and of which some do not exist."""
    return frame[:6] + bytes(byte ^ 0xFF for byte in frame[6:14]) + frame[14:]


def _huge(frame: bytes) -> bytes:
    """A field of a megabyte, in a stream whose lengths claim it all."""
    return (b"\xff\xff" + frame[2:14] + b"9" * 65_523) * (ONE_MEGABYTE // 65_536)


def _noise(frame: bytes) -> bytes:
    return bytes(range(256)) * 16


@pytest.mark.parametrize("mangle", [_too_short, _too_long, _flipped_bitmap, _huge, _noise])
async def test_garbage_resets_the_link_and_costs_neither_money_nor_the_process(
    mangle: Callable[[bytes], bytes], kit: Kit, wallet: Wallet
) -> None:
    process = psutil.Process(kit.platform.process(NETWORK).pid)
    memory, links = process.memory_info().rss, kit.platform.network.connections_made
    await _is_reversed(kit, await _pay_with(kit, wallet, (Direction.TO_CLIENT, "0110", replace_by(mangle))))
    assert kit.platform.network.connections_made == links + 1
    assert (await _pay_with(kit, wallet))["status"] == "authorized"
    assert process.is_running()
    assert process.memory_info().rss - memory < 16 * ONE_MEGABYTE


# ----------------------------------------------------------------------------------------------------------- connection


async def test_a_connection_that_is_lost_instead_of_an_answer_leaves_a_doubt_that_is_reversed(
    kit: Kit, wallet: Wallet
) -> None:
    async def lose(stream: Stream, message: bytes) -> None:
        stream.reset()

    await _is_reversed(kit, await _pay_with(kit, wallet, (Direction.TO_CLIENT, "0110", lose)))


async def test_a_refund_whose_answer_is_lost_is_reversed_and_may_be_made_again(kit: Kit, wallet: Wallet) -> None:
    amount = kit.amount()
    payment = await kit.shop.captured(wallet.card_id, amount)
    path = f"/v1/payments/{payment['id']}/refunds"
    lost = Fault("0210", Direction.TO_CLIENT, network_message("0210", amount_minor=amount), drop)
    with spoiled(kit.platform.network, lost):
        answer = await kit.shop.post(path, {"amount_minor": amount})
    assert (answer.status_code, answer.json()["status"]) == (202, "in_doubt")
    refund = await kit.shop.outcome(f"/v1/refunds/{answer.json()['id']}")
    assert (refund["status"], refund["failure_code"]) == ("failed", "reversed_after_doubt")
    again = await kit.shop.post(path, {"amount_minor": amount})
    assert (await kit.shop.outcome(f"/v1/refunds/{again.json()['id']}"))["status"] == "succeeded"
    [authorization] = (await kit.network.journal(payment["id"]))["authorizations"]
    assert authorization["refunded_minor"] == amount
    await kit.decided(payment["id"])


async def test_a_capture_that_got_lost_is_told_before_the_last_one(kit: Kit, wallet: Wallet) -> None:
    """Behind the last one the network takes none."""
    payment = await kit.shop.authorized(wallet.card_id, 5000)
    first, last = kit.amount(), kit.amount()
    lost = Fault("0220", Direction.TO_SERVER, network_message("0220", amount_minor=first), drop)
    with spoiled(kit.platform.network, lost):
        for amount, final in ((first, False), (last, True)):
            captured = await kit.shop.post(
                f"/v1/payments/{payment['id']}/capture", {"amount_minor": amount, "final": final}
            )
            assert captured.status_code == 200
        await _is_captured(kit, payment, [first, last])


async def _is_captured(kit: Kit, payment: Json, amounts: list[int]) -> None:
    """The network took these captures, in this order, and the payment shows their sum."""
    await until(lambda: _captures(kit, payment["id"]), lambda found: len(found) == len(amounts))
    assert await _captures(kit, payment["id"]) == amounts
    assert (await kit.decided(payment["id"]))["amount_captured_minor"] == sum(amounts)


async def _captures(kit: Kit, payment_id: str) -> list[int]:
    """The amounts of the captures that the network took, in their order."""
    return [
        message["amount_minor"]
        for message in (await kit.network.journal(payment_id))["messages"]
        if message["mti"] in ("0220", "0221") and message["response_code"] == "00" and not message["answered_before"]
    ]


async def _logged(kit: Kit, line: str) -> None:
    """Returns once the network worker's log says `line`."""

    async def log() -> str:
        return kit.platform.state.log(Zone.NETWORK.value).read_text()

    await until(log, lambda content: line in content)
