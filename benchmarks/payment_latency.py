"""What the platform adds to a durable answer: authorizations through the API, beside the bare engine on its server.

Own time is the client's whole wait, HTTP included, less what the simulated network took for this payment (the journal's
time from sending to answer); the simulator answers without delay. Throughput is counted to
completion: authorized and captured by the network, and the payer told on every channel.
"""

from __future__ import annotations

import asyncio
import base64
import os
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from rich.console import Console
from rich.table import Table
from sqlalchemy import text

from benchmarks import floor
from benchmarks.figures import Latency, closed_loop, latency, percentile, write
from benchmarks.platform import Platform, running
from config.settings import FraudSettings
from domain.currency import Currency
from domain.ids import new_id
from domain.money import Money
from domain.risk import RiskRequest
from embedded.zones import Zone
from fraud.engine import FraudEngine
from fraud.model import load_model
from sealing import Sealer
from store.engine import create_engine
from vault.credentials import IssueCredential
from vault.hsm.pkcs11_provider import Pkcs11Provider
from vault.service import Vault

_SAMPLES = {1: 150, 8: 400}
_SUSTAINED_PAYMENTS = 400
_AMOUNT = Money(1050, Currency.USD)


async def run(console: Console) -> dict[str, Any]:
    async with running(console) as platform:
        console.print("warming up")
        await closed_loop(4, 40, lambda _: floor.once(platform.temporal))
        await closed_loop(4, 40, lambda _: _authorize(platform))
        figures: dict[str, Any] = {"floor": {}, "payment": {}, "own": {}}
        for callers, samples in _SAMPLES.items():
            console.print(f"{callers} caller(s): floor, then authorizations")
            figures["floor"][callers] = await closed_loop(callers, samples, lambda _: floor.once(platform.temporal))
            await _settled(platform)
            before = platform.cpu_seconds()
            whole, own = await _authorizations(platform, callers, samples)
            figures["payment"][callers], figures["own"][callers] = whole, own
            after = platform.cpu_seconds()
        figures["cpu_ms_per_payment"] = {
            name: round((used - before[name]) * 1000 / samples, 1) for name, used in after.items()
        }
        console.print(f"{_SUSTAINED_PAYMENTS} payments to completion")
        figures["completed_per_second"] = await _sustained(platform)
        network = [seconds * 1000 for seconds in (await _network_seconds(platform)).values()]
        figures["network"] = {f"p{share}_ms": round(percentile(network, share / 100), 2) for share in (50, 99)}
        figures["vault"] = await _vault(platform)
        figures["fraud"] = await _fraud(platform)
    figures["ratios"] = _ratios(figures)
    console.print(_table(figures))
    console.print(f"written to {write('payment_latency', figures)}")
    return figures


async def _authorize(platform: Platform) -> None:
    await platform.pay("manual")


async def _authorizations(platform: Platform, callers: int, samples: int) -> tuple[Latency, Latency]:
    """The client's wait, and what of it is the platform's own."""
    waits: dict[str, float] = {}

    async def authorize(_: int) -> None:
        started = time.perf_counter()
        payment_id = await platform.pay("manual")
        waits[payment_id] = time.perf_counter() - started

    whole = await closed_loop(callers, samples, authorize)
    await _settled(platform)
    network = await _network_seconds(platform)
    own = [wait - network[payment_id] for payment_id, wait in waits.items()]
    return whole, latency(callers, own, samples / whole.per_second)


async def _sustained(platform: Platform) -> float:
    started = time.perf_counter()
    await closed_loop(8, _SUSTAINED_PAYMENTS, lambda _: _captured(platform))
    await _settled(platform)
    return round(_SUSTAINED_PAYMENTS / (time.perf_counter() - started), 1)


async def _captured(platform: Platform) -> None:
    await platform.pay("automatic")


async def _settled(platform: Platform) -> None:
    """Returns when nothing is left to do behind the answers."""
    async with asyncio.timeout(180):
        while await _outstanding(platform):  # noqa: ASYNC110 - it polls a database
            await asyncio.sleep(0.02)


async def _outstanding(platform: Platform) -> int:
    async with platform.engine.connect() as connection:
        return int((await connection.execute(_OUTSTANDING)).scalar_one())


# A payment is complete when it is captured, if it is to be, and every channel that reaches its user has its message:
# the users of a benchmark are reached in the app.
_OUTSTANDING = text("""
SELECT count(*) FROM platform.payments payment
WHERE status = 'processing'
    OR capture_method = 'automatic' AND status <> 'captured'
    OR NOT EXISTS (
        SELECT FROM notify.deliveries
        WHERE key = payment.id || ':notify:authorized' AND channel = 'in_app' AND state = 'sent')
""")


async def _network_seconds(platform: Platform) -> dict[str, float]:
    """By payment: how long the network took from sending to answer."""
    async with platform.engine.connect() as connection:
        found = await connection.execute(
            text(
                "SELECT payment_id, extract(epoch FROM answered_at - sent_at) AS seconds FROM network.messages"
                " WHERE kind = 'authorize' AND state = 'answered'"
            )
        )
        return {row.payment_id: float(row.seconds) for row in found}


async def _vault(platform: Platform) -> dict[int, Latency]:
    """Token to sealed credential, by a vault of this process on the platform's token and database."""
    environment = platform.blueprint.environment(Zone.VAULT)
    os.environ["SOFTHSM2_CONF"] = environment["SOFTHSM2_CONF"]
    module, label = Path(environment["DURAPAY_HSM_MODULE"]), environment["DURAPAY_HSM_TOKEN_LABEL"]
    sealer = Sealer(base64.b64decode(environment["DURAPAY_SEALING_PUBLIC_KEY"]))
    engine = create_engine(platform.blueprint.database_url)
    async with engine.connect() as connection:
        found = await connection.execute(text("SELECT token_id, user_id FROM platform.payment_methods"))
        tokens = [(str(row.token_id), str(row.user_id)) for row in found]
    provider = Pkcs11Provider(module, label, environment["DURAPAY_HSM_PIN"])
    redis: Redis = Redis.from_url(environment["DURAPAY_REDIS_URL"])
    vault = Vault(engine, redis, provider, sealer)

    async def issue(number: int) -> None:
        token_id, user_id = tokens[number % len(tokens)]
        key = new_id("bench")
        await vault.issue_credential(IssueCredential(token_id, user_id, key, _AMOUNT, "578", datetime.now(UTC).date()))

    try:
        return {callers: await closed_loop(callers, 600, issue) for callers in (1, 8)}
    finally:
        vault.close()
        provider.close()
        await redis.aclose()
        await engine.dispose()


async def _fraud(platform: Platform) -> dict[int, Latency]:
    """Assessments as the payments worker makes them: features from Redis, rules and model."""
    environment = platform.blueprint.environment(Zone.PAYMENTS)
    redis: Redis = Redis.from_url(environment["DURAPAY_REDIS_URL"])
    engine = FraudEngine(redis, load_model(FraudSettings().model_dir), key_prefix="bench")

    async def assess(number: int) -> None:
        await engine.assess(
            RiskRequest(
                payment_id=new_id("pay"),
                account_id="acct_bench",
                user_id=f"usr_{number % 200}",
                card_id=f"pm_{number % 200}",
                card_bin="424242",
                merchant_id="bench",
                merchant_category_code="5814",
                money=_AMOUNT,
                requested_at=datetime.now(UTC),
            )
        )

    try:
        return {callers: await closed_loop(callers, 1000, assess) for callers in (1, 8)}
    finally:
        await redis.aclose()


def _ratios(figures: dict[str, Any]) -> dict[str, float]:
    own, base = figures["own"], figures["floor"]
    return {
        "p50_at_1": round(own[1].p50_ms / base[1].p50_ms, 2),
        "p99_at_8": round(own[8].p99_ms / base[8].p99_ms, 2),
        "per_second": round(figures["completed_per_second"] / base[8].per_second, 2),
    }


def _table(figures: dict[str, Any]) -> Table:
    table = Table(title="payment latency")
    for heading in ("what", "callers", "p50 ms", "p99 ms", "per second"):
        table.add_column(heading, justify="left" if heading == "what" else "right")
    rows = {
        "floor: bare durable answer": figures["floor"],
        "authorization through the API": figures["payment"],
        "of it the platform's own": figures["own"],
    }
    rows["fraud assessment"] = figures["fraud"]
    rows["token to sealed credential"] = figures["vault"]
    for name, by_callers in rows.items():
        for measured in by_callers.values():
            values = asdict(measured)
            table.add_row(name, *(str(values[key]) for key in ("callers", "p50_ms", "p99_ms", "per_second")))
    table.add_row("of an authorization: sending to answer", "", *map(str, figures["network"].values()), "")
    table.add_row("payments to completion", "8", "", "", str(figures["completed_per_second"]))
    cpu = sorted(figures["cpu_ms_per_payment"].items(), key=lambda part: -part[1])
    for name, milliseconds in [*cpu, ("all parts", round(sum(value for _, value in cpu), 1))]:
        table.add_row(f"CPU of an authorization, ms: {name}", "8", str(milliseconds), "", "")
    aims = {"p50_at_1": "≤ 3", "p99_at_8": "≤ 3", "per_second": "≥ 0.4"}
    for name, ratio in figures["ratios"].items():
        table.add_row(f"ratio to the floor, {name} (aim {aims[name]})", "", "", "", str(ratio))
    return table
