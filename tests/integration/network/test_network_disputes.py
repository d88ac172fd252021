"""Disputes on the link: what the network says is stored, acknowledged and told, and what we answer is one message."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from domain.clearing import ClearingKind
from domain.currency import Currency
from domain.disputes import AcceptCommand, ChargebackNotice, DisputeKind, NoticeStage, RepresentCommand
from domain.money import Money
from domain.network import AuthorizeCommand, CaptureCommand, RefundCommand, ReverseCommand
from domain.outcomes import Acknowledged, Approved
from network import cases
from network.cases import CaseNotice
from network.clearing import ClearingHouse
from network.clearing_journal import clearable
from network.codec import Message, encode
from network.errors import AdviceRefused, EffectKeyReused, NotAcknowledged, OriginalUnknown
from network.framing import frame
from network.gateway import NetworkGateway
from network.messages import Trace
from network.simulator import SimulatorServer
from store.engine import create_engine
from tests.integration.network.rig import (
    ACQUIRER_ID,
    Rig,
    ScriptedHost,
    approve,
    closed_port,
    eventually,
    journaled,
    simulator_config,
    until_reachable,
    until_sent,
    usd,
)

TOKEN = "a-control-token-of-this-test"
FRAUDULENT = "4000000000000259"
NOT_RECEIVED = "4000000000002685"
INQUIRY = "4000000000001976"
DIGEST = "ab" * 32


@dataclass
class Court:
    """A network that disputes, and the platform that hears of it."""

    rig: Rig
    simulator: SimulatorServer
    control: httpx.AsyncClient
    gateway: NetworkGateway

    async def sale(self, amount_minor: int = 1050, pan: str = "4242424242424242") -> AuthorizeCommand:
        command = replace(await self.rig.command(await self.rig.token(self.gateway, pan), amount_minor), sale=True)
        assert isinstance(await self.gateway.authorize(command), Approved)
        return command

    async def raised(self, original: AuthorizeCommand, **wanted: object) -> str:
        """The number of a case about a payment; the platform has heard of it."""
        rrn = (await journaled(self.rig.engine, original.effect_key))["rrn"]
        answered = await self.control.post("/chargebacks", json={"rrn": rrn, **wanted})
        assert answered.status_code == 201, answered.text
        number = str(answered.json()["chargeback_id"])
        await self.heard(number, 1)
        return number

    async def heard(self, number: str, count: int) -> list[ChargebackNotice]:
        async def told() -> bool:
            return len(self.of(number)) >= count

        await eventually(told, "the notice")
        return self.of(number)

    def of(self, number: str) -> list[ChargebackNotice]:
        return [notice for notice in self.rig.chargebacks if notice.chargeback_id == number]

    async def heard_about(self, original: AuthorizeCommand) -> ChargebackNotice:
        async def told() -> bool:
            return any(notice.payment_id == original.payment_id for notice in self.rig.chargebacks)

        await eventually(told, "the notice")
        [notice] = [notice for notice in self.rig.chargebacks if notice.payment_id == original.payment_id]
        return notice

    async def decide(self, number: str, outcome: str) -> int:
        answered = await self.control.post(f"/chargebacks/{number}/decision", json={"outcome": outcome})
        return answered.status_code

    async def case(self, number: str) -> dict[str, Any]:
        [case] = [case for case in await self.simulator.disputes() if case["chargeback_id"] == number]
        return case

    def representment(self, notice: ChargebackNotice, statement: str = "") -> RepresentCommand:
        return RepresentCommand(
            self.rig.key("represent"),
            notice.chargeback_id,
            notice.payment_id,
            notice.rrn,
            notice.money,
            notice.kind,
            notice.reason_code,
            DIGEST,
            3,
            statement,
        )

    def acceptance(self, notice: ChargebackNotice) -> AcceptCommand:
        return AcceptCommand(self.rig.key("accept"), notice.chargeback_id, notice.payment_id, notice.rrn, notice.money)


@pytest_asyncio.fixture
async def court(rig: Rig, tmp_path: Path) -> AsyncIterator[Court]:
    folder = tmp_path / "court"
    folder.mkdir()
    config = simulator_config(
        folder, control_port=0, control_token=TOKEN, dispute_delay_seconds=0.0, notice_retry_seconds=0.3
    )
    async with (
        SimulatorServer(config) as simulator,
        httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{simulator.control_port}", headers={"Authorization": f"Bearer {TOKEN}"}
        ) as control,
    ):
        yield Court(rig, simulator, control, await rig.gateway(port=simulator.port))


async def stored(engine: AsyncEngine, number: str) -> list[dict[str, Any]]:
    async with engine.connect() as connection:
        found = await connection.execute(
            text("SELECT * FROM network.chargeback_notices WHERE chargeback_id = :number ORDER BY issued_at"),
            {"number": number},
        )
        return [dict(row) for row in found.mappings()]


async def test_a_chargeback_is_stored_acknowledged_and_told(court: Court) -> None:
    sale = await court.sale()
    number = await court.raised(sale, reason_code="13.1", amount_minor=1000)
    [notice] = court.of(number)
    rrn = (await journaled(court.rig.engine, sale.effect_key))["rrn"]
    assert (notice.payment_id, notice.rrn, notice.money, notice.reason_code) == (
        sale.payment_id,
        rrn,
        usd(1000),
        "13.1",
    )
    assert (notice.kind, notice.stage) == (DisputeKind.CHARGEBACK, NoticeStage.OPENED)
    assert notice.respond_by == notice.issued_at + timedelta(days=30)
    assert abs(datetime.now(UTC) - notice.issued_at) < timedelta(minutes=2)

    async def acknowledged() -> bool:
        [sent] = (await court.case(number))["notices"]
        return bool(sent["response_code"] == "00" and sent["attempts"] == 1)

    await eventually(acknowledged, "the acknowledgement")
    [row] = await stored(court.rig.engine, number)
    assert (row["original_effect_key"], row["told_at"] is not None) == (sale.effect_key, True)


@pytest.mark.parametrize(
    ("pan", "kind", "reason_code"),
    [
        (FRAUDULENT, DisputeKind.CHARGEBACK, "10.4"),
        (NOT_RECEIVED, DisputeKind.CHARGEBACK, "13.1"),
        (INQUIRY, DisputeKind.INQUIRY, "30"),
    ],
)
async def test_some_cards_dispute_what_was_taken(court: Court, pan: str, kind: DisputeKind, reason_code: str) -> None:
    sale = await court.sale(1050, pan)
    notice = await court.heard_about(sale)
    assert (notice.kind, notice.reason_code, notice.money) == (kind, reason_code, usd(1050))
    authorization = await court.rig.command(await court.rig.token(court.gateway, pan), 2000)
    await court.gateway.authorize(authorization)
    for amount, final in ((300, False), (500, True)):
        capture = CaptureCommand(court.rig.key("capture"), authorization.effect_key, usd(amount), final=final)
        await court.gateway.capture(capture)
    assert (await court.heard_about(authorization)).money == usd(800), "the last capture is followed by the dispute"


async def test_a_notice_that_is_lost_is_repeated_and_told_once(court: Court) -> None:
    sale = await court.sale()
    court.simulator.faults.drop_notices = 2
    number = await court.raised(sale)

    async def acknowledged() -> bool:
        return bool((await court.case(number))["notices"][0]["response_code"] == "00")

    await eventually(acknowledged, "the acknowledgement")
    assert (await court.case(number))["notices"][0]["attempts"] >= 3
    assert len(court.of(number)) == 1


async def test_a_notice_that_cannot_be_stored_is_not_acknowledged(court: Court) -> None:
    sale = await court.sale()
    await court.gateway.close()
    engine, court.rig.engine = (
        court.rig.engine,
        create_engine(f"postgresql+psycopg://nobody@127.0.0.1:{await closed_port()}/nothing"),
    )
    cut_off = await court.rig.gateway(port=court.simulator.port)
    gone, court.rig.engine = court.rig.engine, engine
    rrn = (await journaled(engine, sale.effect_key))["rrn"]
    number = (await court.control.post("/chargebacks", json={"rrn": rrn})).json()["chargeback_id"]

    async def repeated() -> bool:
        return bool((await court.case(number))["notices"][0]["attempts"] >= 2)

    await eventually(repeated, "the repetition")
    assert (await court.case(number))["notices"][0]["response_code"] is None
    assert court.of(number) == []
    await cut_off.close()
    await gone.dispose()
    await court.rig.gateway(port=court.simulator.port)
    await court.heard(number, 1)


async def test_a_notice_that_could_not_be_told_is_told_by_the_next_process(court: Court) -> None:
    sale = await court.sale()
    court.rig.deaf = True
    rrn = (await journaled(court.rig.engine, sale.effect_key))["rrn"]
    number = (await court.control.post("/chargebacks", json={"rrn": rrn})).json()["chargeback_id"]

    async def acknowledged() -> bool:
        return bool((await court.case(number))["notices"][0]["response_code"] == "00")

    await eventually(acknowledged, "the acknowledgement")
    assert await court.decide(number, "lost") == 204

    async def both_stored() -> bool:
        return len(await stored(court.rig.engine, number)) == 2

    await eventually(both_stored, "the decision in the database")
    assert court.of(number) == []
    await court.gateway.close()
    court.rig.deaf = False
    await court.rig.gateway(port=court.simulator.port)
    told = await court.heard(number, 2)
    assert [notice.stage for notice in told] == [NoticeStage.OPENED, NoticeStage.LOST]


async def test_what_the_network_decides_comes_back_in_its_order(court: Court) -> None:
    sale = await court.sale(2000)
    number = await court.raised(sale, amount_minor=1500)
    assert await court.decide(number, "won") == 204
    assert await court.decide(number, "won") == 409
    assert await court.decide(number, "lost") == 204
    told = await court.heard(number, 4)
    assert [notice.stage for notice in told] == ["opened", "won", "opened", "lost"]
    assert [notice.issued_at for notice in told] == sorted({notice.issued_at for notice in told})
    assert await court.decide("0" * 10, "won") == 404


async def test_an_inquiry_becomes_a_chargeback_or_is_closed(court: Court) -> None:
    escalated = await court.raised(await court.sale(), kind="inquiry", reason_code="30", amount_minor=800)
    closed = await court.raised(await court.sale(), kind="inquiry", reason_code="30")
    assert await court.decide(escalated, "lost") == 409, "an inquiry is lost by the chargeback that follows it"
    wanted = {"reason_code": "10.4", "amount_minor": 1050}
    assert (await court.control.post(f"/chargebacks/{escalated}/escalate", json=wanted)).status_code == 204
    assert await court.decide(closed, "won") == 204
    first, second = await court.heard(escalated, 2)
    assert (first.kind, first.money, first.reason_code) == ("inquiry", usd(800), "30")
    assert (second.kind, second.stage, second.money) == ("chargeback", "opened", usd(1050))
    assert [(notice.kind, notice.stage) for notice in await court.heard(closed, 2)] == [
        ("inquiry", "opened"),
        ("inquiry", "won"),
    ]
    again = await court.control.post(f"/chargebacks/{escalated}/escalate", json={})
    assert (again.status_code, again.json()["reason"]) == (409, "case_closed")


async def test_a_dispute_of_what_was_not_taken_is_refused(court: Court) -> None:
    sale = await court.sale(1000)
    rrn = (await journaled(court.rig.engine, sale.effect_key))["rrn"]
    for wanted, status in (
        ({"rrn": "9" * 12}, 409),
        ({"rrn": rrn, "amount_minor": 1001}, 409),
        ({"rrn": rrn, "amount_minor": 0}, 422),
        ({"rrn": rrn, "reason_code": "fraud!"}, 422),
        ({"rrn": rrn, "kind": "complaint"}, 422),
        ({"rrn": rrn}, 201),
        ({"rrn": rrn}, 409),
    ):
        assert (await court.control.post("/chargebacks", json=wanted)).status_code == status, wanted
    with pytest.raises(AdviceRefused):
        await court.gateway.reverse(ReverseCommand(court.rig.key("reverse"), sale.effect_key))
    refund = RefundCommand(court.rig.key("refund"), sale.effect_key, sale.payment_id, usd(100))
    assert isinstance(await court.gateway.refund(refund), Approved), "a refund is the merchant's own business"


async def test_evidence_is_sent_once_and_decides_what_its_statement_says(court: Court) -> None:
    won = await court.raised(await court.sale())
    [notice] = court.of(won)
    command = court.representment(notice, "the parcel was signed for: winning_evidence")
    acknowledged = await court.gateway.represent(command)
    assert isinstance(acknowledged, Acknowledged)
    assert await court.gateway.represent(command) == acknowledged
    assert [told.stage for told in await court.heard(won, 2)] == ["opened", "won"]
    case = await court.case(won)
    assert (case["state"], case["evidence_sha256"], case["documents"]) == ("won", DIGEST, 3)
    lost = await court.raised(await court.sale())
    await court.gateway.represent(court.representment(court.of(lost)[0], "losing_evidence"))
    assert [told.stage for told in await court.heard(lost, 2)] == ["opened", "lost"]
    with pytest.raises(EffectKeyReused):
        await court.gateway.represent(replace(command, evidence_sha256="cd" * 32))


async def test_evidence_without_a_word_waits_for_the_issuers_decision(court: Court) -> None:
    number = await court.raised(await court.sale())
    [notice] = court.of(number)
    await court.gateway.represent(court.representment(notice))
    assert (await court.case(number))["state"] == "answered"
    with pytest.raises(AdviceRefused) as refused:
        await court.gateway.represent(court.representment(notice))
    assert refused.value.response_code == "12", "it was answered"
    assert await court.decide(number, "won") == 204
    assert [told.stage for told in await court.heard(number, 2)] == ["opened", "won"]


async def test_an_inquiry_is_answered_and_not_accepted(court: Court) -> None:
    number = await court.raised(await court.sale(), kind="inquiry", reason_code="30")
    [notice] = court.of(number)
    with pytest.raises(AdviceRefused):
        await court.gateway.accept(court.acceptance(notice))
    await court.gateway.represent(court.representment(notice, "losing_evidence"))
    assert [told.kind for told in await court.heard(number, 2)] == ["inquiry", "chargeback"]


async def test_an_accepted_chargeback_is_closed(court: Court) -> None:
    number = await court.raised(await court.sale())
    [notice] = court.of(number)
    command = court.acceptance(notice)
    acknowledged = await court.gateway.accept(command)
    assert await court.gateway.accept(command) == acknowledged
    assert (await court.case(number))["state"] == "accepted"
    assert await court.decide(number, "won") == 409
    with pytest.raises(AdviceRefused):
        await court.gateway.represent(court.representment(notice))


async def test_an_answer_that_is_not_acknowledged_is_repeated(court: Court) -> None:
    number = await court.raised(await court.sale())
    command = court.representment(court.of(number)[0])
    impatient = await court.rig.impatient(port=court.simulator.port)
    court.simulator.faults.drop_answers = 1
    with pytest.raises(NotAcknowledged):
        await until_sent(impatient.represent, command)
    assert isinstance(await until_reachable(court.gateway.represent, command), Acknowledged)
    sent = [message["mti"] for message in (await court.simulator.journal())["messages"]]
    assert sent[-2:] == ["0620", "0621"]


async def test_only_cases_of_the_payment_can_be_answered(court: Court) -> None:
    number = await court.raised(await court.sale())
    [notice] = court.of(number)
    with pytest.raises(OriginalUnknown):
        await court.gateway.represent(replace(court.representment(notice), payment_id="pay_other"))
    with pytest.raises(OriginalUnknown):
        await court.gateway.accept(replace(court.acceptance(notice), chargeback_id="X"))


async def test_chargebacks_and_their_returns_are_in_clearing_on_both_sides(court: Court) -> None:
    sale = await court.sale(2000)
    number = await court.raised(sale, amount_minor=1500, reason_code="13.1")
    assert await court.decide(number, "won") == 204
    await court.heard(number, 2)
    day = datetime.now(UTC).date()
    await court.simulator.close_day(day)
    house = ClearingHouse(str(court.control.base_url), TOKEN)
    records = [record for record in (await house.page(day, 0, 100)).records if record.chargeback_id == number]
    await house.aclose()
    ours = [
        item for item in (await clearable(court.rig.engine, day, limit=10_000)).items if item.chargeback_id == number
    ]
    expected = [(ClearingKind.CHARGEBACK, usd(1500)), (ClearingKind.CHARGEBACK_REVERSAL, usd(1500))]
    assert [(record.kind, record.money) for record in records] == expected
    assert sorted((item.kind, item.money.amount_minor) for item in ours) == [
        ("chargeback", 1500),
        ("chargeback_reversal", 1500),
    ]
    assert {record.rrn for record in records} == {item.rrn for item in ours}
    assert {record.reason_code for record in records} == {"13.1"}
    assert {item.payment_id for item in ours} == {sale.payment_id}


async def test_disputes_survive_a_restart_of_the_network(rig: Rig, tmp_path: Path) -> None:
    folder = tmp_path / "restarted"
    folder.mkdir()
    config = simulator_config(folder, dispute_delay_seconds=0.0, notice_retry_seconds=0.2)
    async with SimulatorServer(config) as first:
        gateway = await rig.gateway(port=first.port)
        first.faults.drop_notices = 1_000
        command = replace(await rig.command(await rig.token(gateway, FRAUDULENT)), sale=True)
        await gateway.authorize(command)

        async def attempted() -> bool:
            return any(case["notices"][0]["attempts"] for case in await first.disputes())

        await eventually(attempted, "the first attempt")
        await gateway.close()
    assert rig.chargebacks == []
    async with SimulatorServer(config) as second:
        await rig.gateway(port=second.port)

        async def told() -> bool:
            return any(notice.payment_id == command.payment_id for notice in rig.chargebacks)

        await eventually(told, "the notice")


# ---------------------------------------------------------------------------- a network that says what it should not


async def spoken(host: ScriptedHost, message: Message) -> str:
    """What a gateway answers to `message`."""
    answered = len(host.of_type("0630"))
    host.write(frame(encode(message)))

    async def there() -> bool:
        return len(host.of_type("0630")) > answered

    await eventually(there, "the answer")
    return host.of_type("0630")[-1].get(39)


@pytest.fixture
def case() -> CaseNotice:
    return CaseNotice(
        f"{datetime.now(UTC):%H%M%S%f}"[:10],
        DisputeKind.CHARGEBACK,
        NoticeStage.OPENED,
        "529414000042",
        Money(1050, Currency.USD),
        "10.4",
        datetime.now(UTC).replace(microsecond=0),
        settlement_date=datetime.now(UTC).date(),
    )


async def test_a_notice_about_nothing_of_ours_is_answered_so_and_not_stored(rig: Rig, case: CaseNotice) -> None:
    async with ScriptedHost(lambda message: [] if message.mti == "0630" else [approve(message)]) as host:
        await rig.gateway(port=host.port)
        trace = Trace("1021143000", "000001", ACQUIRER_ID, case.rrn)
        assert await spoken(host, cases.notice(case, trace)) == "25"
        assert await stored(rig.engine, case.chargeback_id) == []


async def test_a_repeated_notice_is_acknowledged_and_a_changed_one_refused(rig: Rig, case: CaseNotice) -> None:
    async with ScriptedHost(lambda message: [] if message.mti == "0630" else [approve(message)]) as host:
        gateway = await rig.gateway(port=host.port)
        command = replace(await rig.command(rig.new_dpan()), sale=True)
        outcome = await gateway.authorize(command)
        assert isinstance(outcome, Approved)
        known = replace(case, rrn=outcome.rrn)
        trace = Trace("1021143000", "000001", ACQUIRER_ID, outcome.rrn)
        assert await spoken(host, cases.notice(known, trace)) == "00"
        assert await spoken(host, cases.notice(known, trace, repeat=True)) == "00"
        assert await spoken(host, cases.notice(replace(known, money=usd(99_999)), trace)) == "94"
        foreign = replace(trace, acquirer_id="999999")
        another = replace(known, chargeback_id=f"X{known.chargeback_id[1:]}")
        assert await spoken(host, cases.notice(replace(another, rrn="1" * 12), replace(foreign, rrn="1" * 12))) == "25"

        async def told() -> bool:
            return any(notice.chargeback_id == known.chargeback_id for notice in rig.chargebacks)

        await eventually(told, "the notice")
        assert len([notice for notice in rig.chargebacks if notice.chargeback_id == known.chargeback_id]) == 1


@pytest.mark.parametrize("data", ["", "0102AB", "0110ABCDEFGHIJ0201X", "9999"], ids=["none", "half", "unknown", "cut"])
async def test_a_notice_that_is_not_understood_is_a_format_error(rig: Rig, case: CaseNotice, data: str) -> None:
    async with ScriptedHost(lambda message: [] if message.mti == "0630" else [approve(message)]) as host:
        await rig.gateway(port=host.port)
        whole = cases.notice(case, Trace("1021143000", "000001", ACQUIRER_ID, case.rrn))
        fields = {**whole.fields, 124: data} if data else {key: whole.fields[key] for key in whole.fields if key != 124}
        assert await spoken(host, Message("0620", fields)) == "30"


async def test_a_stored_notice_cannot_be_changed_or_deleted(court: Court) -> None:
    number = await court.raised(await court.sale())

    async def told() -> bool:
        return (await stored(court.rig.engine, number))[0]["told_at"] is not None

    await eventually(told, "the mark")
    for statement in (
        "UPDATE network.chargeback_notices SET amount_minor = 1 WHERE chargeback_id = :number",
        "UPDATE network.chargeback_notices SET told_at = now() WHERE chargeback_id = :number",
        "UPDATE network.chargeback_notices SET told_at = NULL WHERE chargeback_id = :number",
        "DELETE FROM network.chargeback_notices WHERE chargeback_id = :number",
    ):
        with pytest.raises(DBAPIError):
            async with court.rig.engine.begin() as connection:
                await connection.execute(text(statement), {"number": number})


async def test_notices_of_many_cases_at_once_are_all_told_once(court: Court) -> None:
    sales = [await court.sale(1000 + number) for number in range(10)]
    rrns = [(await journaled(court.rig.engine, sale.effect_key))["rrn"] for sale in sales]
    raised = await asyncio.gather(*(court.control.post("/chargebacks", json={"rrn": rrn}) for rrn in rrns))
    numbers = [answered.json()["chargeback_id"] for answered in raised]
    for number in numbers:
        await court.heard(number, 1)
    assert sorted(notice.money.amount_minor for number in numbers for notice in court.of(number)) == list(
        range(1000, 1010)
    )
