"""A day's clearing from both ends: what the network's file says, and what of our journal belongs into it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from domain.clearing import Clearable, ClearingKind, ClearingRecord, ClearingTotal
from domain.currency import Currency
from domain.network import AuthorizeCommand, CaptureCommand, RefundCommand, ReverseCommand
from domain.outcomes import Acknowledged, Approved, Reversed, Unknown
from network.clearing import ClearingHouse
from network.clearing_journal import clearable
from network.errors import (
    AdviceRefused,
    ClearingFileInvalid,
    ClearingNotReady,
    ClearingUnreachable,
    JournalUnavailable,
    NotAcknowledged,
    Unreachable,
)
from network.gateway import NetworkGateway
from network.simulator import SimulatorServer
from store.engine import create_engine
from tests.integration.network.rig import (
    Rig,
    closed_port,
    journaled,
    simulator_config,
    until_reachable,
    until_sent,
    usd,
)

CONTROL_TOKEN = "a-control-token-of-this-test"
CLEARING_TOKEN = "a-clearing-token-of-this-test"
REFUND_RETURNED = "4000000000005126"


@dataclass
class Clock:
    now: datetime

    def __call__(self) -> datetime:
        return self.now

    @property
    def day(self) -> date:
        return self.now.date()

    def next_day(self) -> None:
        self.now += timedelta(days=1)


@dataclass
class Desk:
    """A network with a clock of its own, and both sides' access to its clearing."""

    rig: Rig
    clock: Clock
    simulator: SimulatorServer
    control: httpx.AsyncClient
    house: ClearingHouse
    gateway: NetworkGateway

    async def sale(self, amount_minor: int, pan: str = "4242424242424242") -> AuthorizeCommand:
        command = replace(await self.rig.command(await self.rig.token(self.gateway, pan), amount_minor), sale=True)
        assert isinstance(await self.gateway.authorize(command), Approved)
        return command

    async def authorized(self, amount_minor: int) -> AuthorizeCommand:
        command = await self.rig.command(await self.rig.token(self.gateway), amount_minor)
        assert isinstance(await self.gateway.authorize(command), Approved)
        return command

    async def captured(self, original: AuthorizeCommand, amount_minor: int, *, final: bool = True) -> CaptureCommand:
        command = CaptureCommand(self.rig.key("capture"), original.effect_key, usd(amount_minor), final=final)
        assert isinstance(await self.gateway.capture(command), Acknowledged)
        return command

    async def refunded(self, original: AuthorizeCommand, amount_minor: int) -> RefundCommand:
        command = RefundCommand(self.rig.key("refund"), original.effect_key, original.payment_id, usd(amount_minor))
        assert isinstance(await self.gateway.refund(command), Approved)
        return command

    async def reversed(self, effect_key: str) -> ReverseCommand:
        command = ReverseCommand(self.rig.key("reverse"), effect_key)
        assert isinstance(await until_reachable(self.gateway.reverse, command), Reversed)
        return command

    async def close(self, day: date) -> date:
        answered = await self.control.post(f"/clearing/{day}/close")
        assert answered.status_code == 200, answered.text
        return date.fromisoformat(answered.json()["open"])

    async def script(self, day: date, **wanted: object) -> int:
        return (await self.control.post(f"/clearing/{day}/breaks", json=wanted)).status_code

    async def records(self, day: date) -> list[ClearingRecord]:
        return list((await self.house.page(day, 0, 1_000)).records)

    async def ours(self, day: date, *originals: AuthorizeCommand) -> list[Clearable]:
        """What we say of the payments of this test: the database is shared, and so is today."""
        payments = {original.payment_id for original in originals}
        items = (await clearable(self.rig.engine, day, limit=10_000)).items
        return [item for item in items if item.payment_id in payments]


_DAYS = iter(range(1, 150))


@pytest_asyncio.fixture
async def desk(rig: Rig, tmp_path: Path) -> AsyncIterator[Desk]:
    # Days of this test's own, and near enough that DE15, which has no year, is understood.
    clock = Clock(datetime.now(UTC).replace(hour=12) + timedelta(days=next(_DAYS)))
    folder = tmp_path / "clearing"
    folder.mkdir()
    config = simulator_config(
        folder, control_port=0, control_token=CONTROL_TOKEN, clearing_token=CLEARING_TOKEN, clock=clock
    )
    async with SimulatorServer(config) as simulator:
        url = f"http://127.0.0.1:{simulator.control_port}"
        house = ClearingHouse(url, CLEARING_TOKEN)
        headers = {"Authorization": f"Bearer {CONTROL_TOKEN}"}
        async with httpx.AsyncClient(base_url=url, headers=headers) as control:
            yield Desk(rig, clock, simulator, control, house, await rig.gateway(port=simulator.port))
        await house.aclose()


def essence(record: ClearingRecord | Clearable) -> tuple[ClearingKind, str | None, str | None, str | None, int]:
    """What both sides have to say alike."""
    return (record.kind, record.rrn, record.stan, record.approval_code, record.money.amount_minor)


async def test_both_sides_tell_the_same_of_a_day(desk: Desk) -> None:
    day = desk.clock.day
    sale = await desk.sale(1000)
    authorization = await desk.authorized(3000)
    await desk.captured(authorization, 1200, final=False)
    await desk.captured(authorization, 800)
    await desk.refunded(sale, 300)
    await desk.refunded(authorization, 2000)
    void = await desk.authorized(500)
    await desk.reversed(void.effect_key)
    await desk.close(day)
    records = [record for record in await desk.records(day) if record.kind is not ClearingKind.FEE]
    ours = await desk.ours(day, sale, authorization, void)
    assert sorted(map(essence, records)) == sorted(map(essence, ours))
    assert sorted((record.kind, record.money.amount_minor) for record in records) == [
        ("presentment", 800),
        ("presentment", 1000),
        ("presentment", 1200),
        ("refund", 300),
        ("refund", 2000),
    ]
    assert all(item.certain for item in ours)
    assert len({record.arn for record in records}) == 5
    assert {record.day for record in records} == {day}


async def test_a_file_is_given_once_the_day_is_closed_and_stays_the_same(desk: Desk) -> None:
    day = desk.clock.day
    sale = await desk.sale(1000)
    with pytest.raises(ClearingNotReady):
        await desk.house.file(day)
    answered = await desk.control.get(f"/clearing/{day}")
    assert (answered.status_code, answered.json()["reason"]) == (404, "day_not_closed")
    assert await desk.close(day) == day + timedelta(days=1)
    first = await desk.house.file(day)
    await desk.refunded(sale, 100)
    desk.clock.next_day()
    fresh = ClearingHouse(str(desk.control.base_url), CLEARING_TOKEN)
    assert await fresh.file(day) == first
    await fresh.aclose()
    assert await desk.script(day, kind="drop", rrn="0" * 12) == 409
    assert (await desk.control.delete(f"/clearing/{day}/breaks")).status_code == 409
    assert await desk.close(day) == day + timedelta(days=1), "closing it again changes nothing"


async def test_a_file_is_the_same_after_a_restart(rig: Rig, tmp_path: Path) -> None:
    folder = tmp_path / "restarted"
    folder.mkdir()
    clock = Clock(datetime.now(UTC))
    contents: list[bytes] = []
    for _ in range(2):
        async with SimulatorServer(simulator_config(folder, clock=clock)) as simulator:
            if not contents:
                gateway = await rig.gateway(port=simulator.port)
                await gateway.authorize(replace(await rig.command(await rig.token(gateway)), sale=True))
                await gateway.close()
                await simulator.close_day(clock.day)
            contents.append(await simulator.clearing_file(clock.day))
    assert contents[0] == contents[1]
    assert len(contents[0]) == 1014


async def test_what_follows_an_early_close_belongs_to_the_next_day_on_both_sides(desk: Desk) -> None:
    day, next_day = desk.clock.day, desk.clock.day + timedelta(days=1)
    before = await desk.sale(1000)
    assert await desk.close(day) == next_day
    after = await desk.sale(2000)
    stored = await journaled(desk.rig.engine, after.effect_key)
    assert stored["settlement_date"] == next_day
    refused = await desk.control.post(f"/clearing/{next_day + timedelta(days=1)}/close")
    assert (refused.status_code, refused.json()["reason"]) == (409, "day_not_begun")
    await desk.close(next_day)
    for of_day, amount in ((day, 1000), (next_day, 2000)):
        assert [record.money.amount_minor for record in await desk.records(of_day)][:1] == [amount]
        assert [item.money.amount_minor for item in await desk.ours(of_day, before, after)] == [amount]


async def test_a_day_that_is_over_closes_by_itself(desk: Desk) -> None:
    day = desk.clock.day
    await desk.sale(1000)
    desk.clock.next_day()
    desk.clock.next_day()
    assert (await desk.house.file(day)).records == 2
    assert (await desk.house.file(day + timedelta(days=1))).records == 0
    with pytest.raises(ClearingNotReady):
        await desk.house.file(day + timedelta(days=2))
    assert (await desk.house.file(day - timedelta(days=400))).records == 0


async def test_a_reversal_leaves_no_trace_of_its_own_day_and_takes_back_what_an_earlier_file_has(desk: Desk) -> None:
    day = desk.clock.day
    same_day, later = await desk.sale(1000), await desk.sale(2000)
    refunded = await desk.sale(4000)
    refund = await desk.refunded(refunded, 700)
    await desk.reversed(same_day.effect_key)
    desk.clock.next_day()
    taken_back = [await desk.reversed(later.effect_key), await desk.reversed(refund.effect_key)]
    await desk.close(desk.clock.day)
    first, second = await desk.records(day), await desk.records(desk.clock.day)
    assert [(record.kind, record.money.amount_minor) for record in first[:-1]] == [
        ("presentment", 2000),
        ("presentment", 4000),
        ("refund", 700),
    ]
    assert [(record.kind, record.money.amount_minor) for record in second] == [
        ("presentment_reversal", 2000),
        ("refund_reversal", 700),
    ]
    sales = (same_day, later, refunded)
    assert sorted(map(essence, await desk.ours(day, *sales))) == sorted(map(essence, first[:-1]))
    ours = await desk.ours(desk.clock.day, *sales)
    assert sorted(map(essence, ours)) == sorted(map(essence, second))
    assert sorted(item.effect_key for item in ours) == sorted(command.effect_key for command in taken_back)
    assert all(item.certain for item in ours)


async def test_a_refund_that_fails_later_comes_back_the_next_day_and_can_be_made_again(desk: Desk) -> None:
    day = desk.clock.day
    sale = await desk.sale(1000, REFUND_RETURNED)
    refund = await desk.refunded(sale, 1000)
    desk.clock.next_day()
    assert [record.kind for record in await desk.records(day)] == ["presentment", "refund", "fee"]
    await desk.close(desk.clock.day)
    [returned] = await desk.records(desk.clock.day)
    stored = await journaled(desk.rig.engine, refund.effect_key)
    assert (returned.kind, returned.rrn, returned.money) == ("refund_returned", stored["rrn"], usd(1000))
    assert returned.kind.owed_to_us
    journal = await desk.simulator.journal()
    assert [entry["state"] for entry in journal["refunds"]] == ["returned"]
    assert journal["authorizations"][0]["refunded_minor"] == 0
    with pytest.raises(AdviceRefused):
        await desk.gateway.reverse(ReverseCommand(desk.rig.key("reverse"), refund.effect_key))
    await desk.refunded(sale, 1000)


async def test_a_reversed_refund_does_not_come_back(desk: Desk) -> None:
    day = desk.clock.day
    refund = await desk.refunded(await desk.sale(1000, REFUND_RETURNED), 1000)
    await desk.reversed(refund.effect_key)
    desk.clock.next_day()
    desk.clock.next_day()
    assert [record.kind for record in await desk.records(day)] == ["presentment", "fee"]
    assert await desk.records(day + timedelta(days=1)) == []


async def test_a_sale_that_was_never_answered_is_listed_without_certainty(desk: Desk) -> None:
    impatient = await desk.rig.impatient(port=desk.simulator.port)
    desk.clock.now = datetime.now(UTC)
    day = desk.clock.day
    command = replace(await desk.rig.command(await desk.rig.token(desk.gateway)), sale=True)
    desk.simulator.faults.drop_answers = 1
    assert isinstance(await until_sent(impatient.authorize, command), Unknown)
    [item] = await desk.ours(day, command)
    assert (item.kind, item.certain, item.money) == ("presentment", False, usd(1050))
    desk.clock.next_day()
    await desk.close(desk.clock.day)
    [record, _] = await desk.records(day)
    assert (record.kind, record.rrn, record.stan) == ("presentment", item.rrn, item.stan)
    # The host's day is over: its reversal is taken back in the next file.
    reversal = await desk.reversed(command.effect_key)
    settled = (await journaled(desk.rig.engine, reversal.effect_key))["settlement_date"]
    assert settled == day + timedelta(days=2)
    await desk.close(settled)
    [taken_back] = await desk.ours(settled, command)
    assert (taken_back.kind, taken_back.effect_key, taken_back.certain) == (
        "presentment_reversal",
        reversal.effect_key,
        False,
    )
    assert [essence(record)[:3] for record in await desk.records(settled)] == [essence(taken_back)[:3]]


async def test_a_sale_in_doubt_that_is_reversed_on_its_day_is_nowhere(desk: Desk) -> None:
    impatient = await desk.rig.impatient(port=desk.simulator.port)
    desk.clock.now = datetime.now(UTC)
    day = desk.clock.day
    command = replace(await desk.rig.command(await desk.rig.token(desk.gateway)), sale=True)
    desk.simulator.faults.drop_answers = 1
    assert isinstance(await until_sent(impatient.authorize, command), Unknown)
    await desk.reversed(command.effect_key)
    for of_day in (day, day + timedelta(days=1)):
        assert await desk.ours(of_day, command) == []
    await desk.close(day)
    assert await desk.records(day) == []


async def test_an_advice_on_its_way_is_listed_without_certainty_until_it_is_acknowledged(desk: Desk) -> None:
    impatient = await desk.rig.impatient(port=desk.simulator.port)
    authorization = await desk.authorized(1000)
    today = datetime.now(UTC).date()
    capture = CaptureCommand(desk.rig.key("capture"), authorization.effect_key, usd(1000))
    desk.simulator.faults.drop_answers = 1
    with pytest.raises(NotAcknowledged):
        await _attempted(impatient.capture, capture)
    for later in (0, 1, 30):
        [item] = await desk.ours(today + timedelta(days=later), authorization)
        assert (item.effect_key, item.certain) == (capture.effect_key, False)
    await until_reachable(desk.gateway.capture, capture)
    assert await desk.ours(today, authorization) == []
    [item] = await desk.ours(desk.clock.day, authorization)
    assert item.certain


async def _attempted(call: Callable[[CaptureCommand], Awaitable[object]], command: CaptureCommand) -> None:
    while True:
        try:
            await call(command)
        except Unreachable:
            await asyncio.sleep(0.02)


async def test_scripted_breaks_are_in_the_file(desk: Desk) -> None:
    day = desk.clock.day
    sales = {amount: await desk.sale(amount) for amount in (1000, 2000, 3000, 4000, 5000)}
    rrn = {amount: (await journaled(desk.rig.engine, sale.effect_key))["rrn"] for amount, sale in sales.items()}
    assert await desk.script(day, kind="drop", rrn=rrn[1000]) == 200
    assert await desk.script(day, kind="duplicate", rrn=rrn[2000]) == 200
    assert await desk.script(day, kind="change_amount", rrn=rrn[3000], amount_minor=3001) == 200
    assert await desk.script(day, kind="change_currency", rrn=rrn[4000], currency="EUR") == 200
    assert await desk.script(day, kind="invent", rrn="9" * 12, amount_minor=77, currency="USD") == 200
    assert len((await desk.control.get(f"/clearing/{day}/breaks")).json()) == 5
    await desk.close(day)
    found = [
        (record.rrn, record.money.amount_minor, record.money.currency.value)
        for record in await desk.records(day)
        if record.kind is ClearingKind.PRESENTMENT
    ]
    assert found == [
        (rrn[2000], 2000, "USD"),
        (rrn[2000], 2000, "USD"),
        (rrn[3000], 3001, "USD"),
        (rrn[4000], 4000, "EUR"),
        (rrn[5000], 5000, "USD"),
        ("9" * 12, 77, "USD"),
    ]


async def test_a_break_strikes_the_kind_of_record_that_it_names_and_can_be_forgotten(desk: Desk) -> None:
    day = desk.clock.day
    authorization = await desk.authorized(1000)
    await desk.captured(authorization, 400, final=False)
    rrn = (await journaled(desk.rig.engine, authorization.effect_key))["rrn"]
    await desk.script(day, kind="drop", rrn=rrn, record="refund")
    await desk.close(day)
    assert [record.kind for record in await desk.records(day)] == ["presentment", "fee"]
    next_day = day + timedelta(days=1)
    await desk.captured(authorization, 600)
    await desk.script(next_day, kind="drop", rrn=rrn)
    assert (await desk.control.delete(f"/clearing/{next_day}/breaks")).json() == []
    await desk.close(next_day)
    assert [record.kind for record in await desk.records(next_day)] == ["presentment", "fee"]


@pytest.mark.parametrize(
    "wanted",
    [
        {"kind": "drop"},
        {"kind": "drop", "rrn": "1"},
        {"kind": "change_amount", "rrn": "1" * 12},
        {"kind": "change_amount", "rrn": "1" * 12, "amount_minor": 0},
        {"kind": "drop", "rrn": "1" * 12, "amount_minor": 5},
        {"kind": "invent", "rrn": "1" * 12, "amount_minor": 5},
        {"kind": "invent", "rrn": "1" * 12, "amount_minor": 5, "currency": "USD", "record": "fee"},
        {"kind": "change_currency", "rrn": "1" * 12, "currency": "XXX"},
        {"kind": "lose", "rrn": "1" * 12},
    ],
)
async def test_a_break_that_makes_no_sense_is_refused(desk: Desk, wanted: dict[str, object]) -> None:
    assert await desk.script(desk.clock.day, **wanted) == 422


@pytest.mark.parametrize("record", [kind.value for kind in ClearingKind if kind is not ClearingKind.FEE])
async def test_a_record_of_any_kind_can_be_invented(desk: Desk, record: str) -> None:
    day = desk.clock.day
    await desk.script(day, kind="invent", rrn="8" * 12, amount_minor=77, currency="JPY", record=record)
    await desk.close(day)
    [invented] = await desk.records(day)
    assert (invented.kind, invented.rrn, invented.money.amount_minor) == (record, "8" * 12, 77)


async def test_a_file_is_read_page_by_page_and_comes_to_its_totals(desk: Desk) -> None:
    day = desk.clock.day
    sales = [await desk.sale(amount) for amount in (1000, 2000, 3005)]
    refund = await desk.refunded(sales[2], 5)
    await desk.close(day)
    file = await desk.house.file(day)
    fee = (18 + 10) + (36 + 10) + (54 + 10)
    assert file.totals == (ClearingTotal(Currency.USD, 5, owed_to_us_minor=6005, owed_by_us_minor=5 + fee),)
    assert (file.day, file.records, len(file.sha256)) == (day, 5, 64)
    pages, offset = [], 0
    while True:
        page = await desk.house.page(day, offset, 2)
        assert page.file == file
        pages.append(page.records)
        if page.next_offset is None:
            break
        offset = page.next_offset
    assert [len(page) for page in pages] == [2, 2, 1]
    assert [record for page in pages for record in page] == await desk.records(day)
    assert (await desk.house.page(day, 5, 10)).records == ()
    fees = [record for page in pages for record in page if record.kind is ClearingKind.FEE]
    assert [(record.money.amount_minor, record.rrn, record.reason_code) for record in fees] == [(fee, None, "7800")]
    for offset, limit in ((-1, 1), (0, 0), (0, 10_001)):
        with pytest.raises(ValueError, match="page"):
            await desk.house.page(day, offset, limit)
    assert refund.money == usd(5)


async def test_our_items_are_read_page_by_page(desk: Desk) -> None:
    day = desk.clock.day
    sales = [await desk.sale(amount) for amount in (1000, 2000, 3000)]
    found: list[str] = []
    after: str | None = ""
    while after is not None:
        page = await clearable(desk.rig.engine, day, after, 2)
        found += [item.effect_key for item in page.items]
        after = page.next_after
    assert found == sorted(sale.effect_key for sale in sales)
    for limit in (0, 10_001):
        with pytest.raises(ValueError, match="page"):
            await clearable(desk.rig.engine, day, "", limit)


async def test_the_clearing_token_opens_nothing_but_the_files(desk: Desk) -> None:
    day = desk.clock.day
    await desk.close(day)
    base_url, headers = desk.control.base_url, {"Authorization": f"Bearer {CLEARING_TOKEN}"}
    async with httpx.AsyncClient(base_url=base_url, headers=headers) as client:
        assert (await client.get(f"/clearing/{day}")).status_code == 200
        for method, path in (
            ("GET", "/journal"),
            ("POST", f"/clearing/{day}/close"),
            ("GET", f"/clearing/{day}/breaks"),
            ("DELETE", f"/clearing/{day}/breaks"),
        ):
            assert (await client.request(method, path)).status_code == 401
    stranger = ClearingHouse(str(base_url), "no-token-of-anybody")
    with pytest.raises(ClearingUnreachable):
        await stranger.file(day)
    await stranger.aclose()


async def test_a_service_that_is_away_is_a_typed_error() -> None:
    house = ClearingHouse(f"http://127.0.0.1:{await closed_port()}", CLEARING_TOKEN)
    with pytest.raises(ClearingUnreachable):
        await house.file(date(2025, 10, 21))
    await house.aclose()


async def test_a_file_that_is_cut_off_is_refused_and_fetched_anew_when_asked_again(desk: Desk) -> None:
    day = desk.clock.day
    for _ in range(8):
        await desk.sale(1000)
    await desk.close(day)
    whole = (await desk.control.get(f"/clearing/{day}")).content
    answers = [whole[:1014], whole]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = answers.pop(0)
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        house = ClearingHouse(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", CLEARING_TOKEN)
        with pytest.raises(ClearingFileInvalid, match="truncated"):
            await house.file(day)
        assert (await house.file(day)).records == 9
        assert answers == []
        assert (await house.page(day, 0, 3)).next_offset == 3, "the checked file is at hand"
        await house.aclose()


async def test_many_readers_of_a_day_fetch_it_once(desk: Desk) -> None:
    day = desk.clock.day
    await desk.sale(1000)
    await desk.close(day)
    pages = await asyncio.gather(*(desk.house.page(day, 0, 10) for _ in range(20)))
    assert len({page.records for page in pages}) == 1
    for later in (1, 2, 3):
        await desk.close(day + timedelta(days=later))
        await desk.house.file(day + timedelta(days=later))
    assert (await desk.house.page(day, 0, 10)).records == pages[0].records


async def test_a_file_shows_no_card_number(desk: Desk) -> None:
    day = desk.clock.day
    dpan = await desk.rig.token(desk.gateway, "5555555555554444")
    await desk.gateway.authorize(replace(await desk.rig.command(dpan), sale=True))
    await desk.close(day)
    content = (await desk.control.get(f"/clearing/{day}")).content
    assert b"555555******4444" in content
    assert dpan.encode() not in content
    assert b"5555555555554444" not in content


async def test_a_journal_that_is_gone_is_a_typed_error() -> None:
    engine = create_engine(f"postgresql+psycopg://nobody@127.0.0.1:{await closed_port()}/nothing")
    with pytest.raises(JournalUnavailable):
        await clearable(engine, date(2025, 10, 21))
    await engine.dispose()
