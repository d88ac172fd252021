"""Disputes all the way: the simulated issuer says so on the link, and takes the merchant's answer from it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.integration.api.test_api_disputes import hand_in
from tests.support.disputes import dispute_events, moved_minor
from tests.support.platform import Access
from tests.support.shop import GOOD_CARD, Json, Shop, until
from tests.unit.documents.files import jpeg

FRAUDULENT, NOT_RECEIVED = "4000000000000259", "4000000000002685"


class Issuer:
    """The issuer's own record of its cases, and its decisions by hand."""

    def __init__(self, access: Access, engine: AsyncEngine) -> None:
        headers = {"Authorization": f"Bearer {access.simulator_token}"}
        self._http = httpx.AsyncClient(base_url=access.simulator, headers=headers, timeout=30, trust_env=False)
        self._engine = engine

    async def case(self, chargeback_id: str) -> Json:
        cases: list[Json] = (await self._http.get("/chargebacks")).raise_for_status().json()
        return next(case for case in cases if case["chargeback_id"] == chargeback_id)

    async def disputes(self, payment: Json, **wanted: Any) -> None:
        async with self._engine.connect() as connection:
            rrn = await connection.scalar(
                text("SELECT rrn FROM platform.payments WHERE id = :id"), {"id": payment["id"]}
            )
        (await self._http.post("/chargebacks", json={"rrn": rrn} | wanted)).raise_for_status()

    async def escalates(self, dispute: Json, **wanted: Any) -> None:
        (await self._http.post(f"/chargebacks/{dispute['network_case']}/escalate", json=wanted)).raise_for_status()

    async def decides(self, dispute: Json, outcome: str) -> None:
        decision = {"outcome": outcome}
        (await self._http.post(f"/chargebacks/{dispute['network_case']}/decision", json=decision)).raise_for_status()

    async def close(self) -> None:
        await self._http.aclose()


@pytest_asyncio.fixture(scope="module")
async def issuer(platform: Access, database: AsyncEngine) -> AsyncIterator[Issuer]:
    issuer = Issuer(platform, database)
    yield issuer
    await issuer.close()


async def paid(shop: Shop, number: str) -> Json:
    return await shop.captured((await shop.wallet(number)).card_id)


async def dispute_of(shop: Shop, payment: Json, status: str) -> Json:
    """The payment's dispute, once it has `status`."""

    async def found() -> list[Json]:
        listed: list[Json] = (await shop.get("/v1/disputes", payment=payment["id"], status=status))["data"]
        return listed

    (dispute,) = await until(found, bool)
    return dict(dispute)


async def submit(shop: Shop, dispute: Json) -> None:
    response = await shop.post(f"/v1/disputes/{dispute['id']}/submit")
    assert response.status_code == 200, response.text


@pytest.mark.parametrize(
    ("card", "reason", "statement", "outcome"),
    [(FRAUDULENT, "fraudulent", "winning_evidence", "won"), (NOT_RECEIVED, "consumer", "losing_evidence", "lost")],
)
async def test_a_card_disputes_by_itself_and_the_issuer_decides_by_the_evidence(
    shop: Shop, issuer: Issuer, database: AsyncEngine, card: str, reason: str, statement: str, outcome: str
) -> None:
    payment = await paid(shop, card)
    dispute = await dispute_of(shop, payment, "needs_response")
    assert (dispute["reason"], dispute["amount_minor"], dispute["kind"]) == (
        reason,
        payment["amount_captured_minor"],
        "chargeback",
    )
    await hand_in(shop, dispute, jpeg(), "delivery.jpg", texts={"uncategorized_text": statement})
    await submit(shop, dispute)
    decided = await dispute_of(shop, payment, outcome)
    case = await issuer.case(dispute["network_case"])
    assert (case["state"], case["documents"], case["statement"]) == (outcome, 1, statement)
    moved = {"merchant_payable": -2000, "network_receivable": 2000} if outcome == "lost" else {}
    assert await moved_minor(database, dispute["id"]) == moved
    # Of its two acknowledgements, the issuer's word and that of the network's host, either may come first.
    shown = await until(
        lambda: shop.get(f"/v1/disputes/{dispute['id']}"), lambda each: each["evidence"]["acknowledged_at"] is not None
    )
    assert shown["evidence"]["sha256"] == case["evidence_sha256"]
    assert decided["status_reason"] == "decided_by_issuer"
    events = [event["type"] for event in await dispute_events(database, dispute["id"])]
    assert sorted(events) == sorted(["created", "evidence_added", "submitted", "represented", "closed"])


async def test_giving_in_reaches_the_issuer(shop: Shop, issuer: Issuer) -> None:
    payment = await paid(shop, FRAUDULENT)
    dispute = await dispute_of(shop, payment, "needs_response")
    response = await shop.post(f"/v1/disputes/{dispute['id']}/accept")
    assert response.json()["status"] == "lost"
    await until(lambda: issuer.case(dispute["network_case"]), lambda case: case["state"] == "accepted")


async def test_an_inquiry_is_answered_escalated_and_decided_and_comes_back(
    shop: Shop, issuer: Issuer, database: AsyncEngine
) -> None:
    payment = await paid(shop, GOOD_CARD)
    await until(lambda: shop.get(f"/v1/payments/{payment['id']}"), lambda each: each["status"] == "captured")
    await issuer.disputes(payment, kind="inquiry", reason_code="13.1")
    inquiry = await dispute_of(shop, payment, "inquiry")
    assert (inquiry["kind"], inquiry["reason"]) == ("inquiry", "consumer")
    await hand_in(shop, inquiry, texts={"product_description": "Forty-two cups of coffee"})
    await submit(shop, inquiry)
    await until(lambda: issuer.case(inquiry["network_case"]), lambda case: case["state"] == "answered")

    await issuer.escalates(inquiry, amount_minor=1500)
    chargeback = await dispute_of(shop, payment, "needs_response")
    assert (chargeback["id"], chargeback["kind"], chargeback["amount_minor"]) == (inquiry["id"], "chargeback", 1500)
    await submit(shop, chargeback)
    await until(lambda: issuer.case(inquiry["network_case"]), lambda case: case["state"] == "answered")

    await issuer.decides(inquiry, "won")
    await dispute_of(shop, payment, "won")
    assert await moved_minor(database, inquiry["id"]) == {}
    # A case that is lost after all is charged back anew in the same breath.
    await issuer.decides(inquiry, "lost")
    await dispute_of(shop, payment, "lost")
    assert await moved_minor(database, inquiry["id"]) == {"merchant_payable": -1500, "network_receivable": 1500}
    notices = await issuer.case(inquiry["network_case"])
    assert all(notice["response_code"] == "00" for notice in notices["notices"])
