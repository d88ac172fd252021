"""The `durapay` command: the whole platform on one machine."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import json
import os
import select
import shlex
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, NoReturn
from urllib.parse import urlsplit

import typer
from rich.console import Console
from rich.table import Table
from sqlalchemy import RowMapping
from temporalio.client import Client

from activities.consistency import RULES
from activities.consistency import findings as find_contradictions
from domain.consistency import Finding
from domain.currency import Currency
from domain.errors import DurapayError
from domain.money import Money
from domain.scopes import Scope
from embedded import bank_commands, key_commands
from embedded.blueprint import Addresses, Blueprint
from embedded.processes import LOOPBACK
from embedded.stack import Stack
from embedded.state import PORTS, Running, StateFolder
from ledger.batches import verify as verify_chain
from store.api_keys import create_api_key
from store.engine import create_engine
from store.settlement_queries import find_day, list_days, open_breaks_of

_STOP_SECONDS = 60
_ACCOUNT = "demo"
# 128 + SIGINT, as shells have it.
_INTERRUPTED = 130

# In a file or a pipe there is no screen whose width would matter.
_console = Console(highlight=False, width=None if sys.stdout.isatty() else 140)
_errors = Console(stderr=True, highlight=False)
app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)
keys = typer.Typer(no_args_is_help=True, help="API keys.")
app.add_typer(keys, name="api-key")
bank = typer.Typer(no_args_is_help=True, help="The simulated bank.")
app.add_typer(bank, name="bank")

PortOption = Annotated[
    list[str] | None,
    typer.Option(
        "--port", metavar="NAME=NUMBER", help=f"The port of one part ({', '.join(PORTS)}); kept from then on."
    ),
]


class NotRunning(DurapayError):
    """The command needs the stack, which is down."""

    def __init__(self) -> None:
        super().__init__("the stack is not running; `durapay up` starts it")


@app.command()
def up(port: PortOption = None) -> None:
    """Start everything and keep it running until Ctrl-C."""

    async def say_where(addresses: Addresses) -> None:
        _print_addresses(addresses)
        _console.print("Ctrl-C stops it. Logs are in", str(StateFolder.default().logs))
        await asyncio.Event().wait()

    _run_stack(_port_overrides(port), say_where)


@app.command()
def demo(port: PortOption = None) -> None:
    """Play payments through the public API, on the running stack or on one started for it."""
    # The story needs an HTTP client and what it prints with; `durapay stop` does not.
    from embedded.story import play

    state = StateFolder.default()
    stays_up = state.running() is not None

    async def tell(addresses: Addresses) -> None:
        key = await asyncio.to_thread(_own_key, state)
        await play(addresses, key, _console)
        if not stays_up:
            _console.print("It stops now. `make up` keeps it running, with all that was played, at")
        _print_addresses(addresses)

    if stays_up:
        asyncio.run(tell(Addresses.of(state.kept_ports())))
    else:
        _run_stack(_port_overrides(port), tell, code_when_stopped=_INTERRUPTED)


@app.command()
def status() -> None:
    """Show what runs and where. Ends with 1 if the stack is down."""
    state = StateFolder.default()
    running = _running(state)
    table = Table("part", "process", "state")
    for name, pid in running.processes.items():
        table.add_row(name, str(pid), "running" if Path(f"/proc/{pid}").exists() else "[red]gone[/]")
    _console.print(table)
    _print_addresses(Addresses.of(state.kept_ports()))


@app.command()
def stop() -> None:
    """Stop the running stack and wait until it is down."""
    running = _running(StateFolder.default())
    descriptor = os.pidfd_open(running.pid)
    signal.pidfd_send_signal(descriptor, signal.SIGTERM)
    readable, _, _ = select.select([descriptor], [], [], _STOP_SECONDS)
    if not readable:
        _fail(f"process {running.pid} did not end within {_STOP_SECONDS} s")
    _console.print("stopped")


@app.command()
def reset(yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False) -> None:
    """Delete all data, secrets, ports and logs of the stack."""
    state = StateFolder.default()
    if not yes:
        typer.confirm(f"Delete {state.path} with all its data and keys?", abort=True)
    state.delete()
    _console.print("deleted", str(state.path))


@app.command()
def verify(
    as_json: Annotated[bool, typer.Option("--json", help="Findings as JSON, for programs.")] = False,
) -> None:
    """Check that ledger, journal, payments, workflows and the ledger's hash chain agree."""
    state = StateFolder.default()
    _running(state)
    findings, batches = asyncio.run(_verified(state))
    if as_json:
        print(json.dumps([dataclasses.asdict(finding) for finding in findings]))
    else:
        _print_findings(findings, batches)
    if findings:
        raise typer.Exit(1)


async def _verified(state: StateFolder) -> tuple[list[Finding], int]:
    """What does not hold, and how many batches of transfers the chain has."""
    engine = create_engine(_database_url(state), pool_size=2)
    try:
        with _errors.status("the ledger, the network's journal, payments and their workflows"):
            client = await Client.connect(Addresses.of(state.kept_ports()).temporal)
            found = await find_contradictions(engine, client)
        with _errors.status("the hash chain"):
            chain = await verify_chain(engine)
    finally:
        await engine.dispose()
    found += [
        Finding("hash_chain", (each.transfer_id or f"batch {each.batch}",), f"{each.trace} in batch {each.batch}")
        for each in chain.findings
    ]
    return found, chain.batches


def _print_findings(findings: list[Finding], batches: int) -> None:
    broken = {finding.invariant: finding for finding in findings}
    table = Table(title="invariants")
    for heading in ("", "invariant", "what it means", "broken by"):
        table.add_column(heading)
    chain = f"Closed batches of transfers are as they were closed ({batches} batches)."
    for invariant, meaning in {**RULES, "hash_chain": chain}.items():
        finding = broken.get(invariant)
        mark = "[red]✗[/red]" if finding else "[green]✓[/green]"
        table.add_row(mark, invariant, meaning, ", ".join(finding.subjects) if finding else "")
    _console.print(table)


@app.command()
def settlement(
    day: Annotated[
        datetime | None, typer.Argument(formats=["%Y-%m-%d"], help="The day; absent: the last one that was settled.")
    ] = None,
) -> None:
    """Show what a day's settlement came to: totals, what agreed, open differences and payouts."""
    state = StateFolder.default()
    _running(state)
    report, breaks = asyncio.run(_settled_day(state, day.date() if day else None))
    if report is None:
        _fail("no such day was settled; POST /v1/settlement/days settles one")
    _print_settlement(report, breaks)


async def _settled_day(state: StateFolder, day: date | None) -> tuple[RowMapping | None, Sequence[RowMapping]]:
    engine = create_engine(_database_url(state), pool_size=1)
    try:
        async with engine.connect() as connection:
            if day is not None:
                report = await find_day(connection, day)
            else:
                newest, _ = await list_days(connection, 1, None)
                report = newest[0] if newest else None
            breaks = await open_breaks_of(connection, report["day"]) if report else []
    finally:
        await engine.dispose()
    return report, breaks


def _print_settlement(report: RowMapping, breaks: Sequence[RowMapping]) -> None:
    state = "settled" if report["finished_at"] else "[red]not finished[/]"
    found = ", ".join(f"{count} {verdict}" for verdict, count in sorted(report["verdicts"].items())) or "nothing"
    _console.print(f"[bold]{report['day']}[/] {state}: file {report['file_id']}, {report['records']} records ({found})")
    table = Table()
    for heading in ("", "records", "owed to us", "owed by us", "net", "agreed", "fees", "open breaks", "paid out"):
        table.add_column(heading, justify="right")
    for each in report["currencies"]:
        currency = Currency[each["currency"]]
        amounts = (
            "owed_to_us_minor", "owed_by_us_minor", "net_minor", "matched_minor", "fees_minor", "open_breaks_minor",
            "paid_out_minor",
        )  # fmt: skip
        shown = [_signed(each[name], currency) for name in amounts]
        table.add_row(currency.value, str(each["records"]), *shown)
    _console.print(table)
    waiting = f", [red]{report['payouts_waiting']} wait to be covered[/]" if report["payouts_waiting"] else ""
    _console.print(f"{report['payouts']} payouts{waiting}; {report['open_breaks']} open breaks")
    for found_break in breaks:
        parts = ", ".join(
            f"{Money(part['amount_minor'], Currency[part['currency']])} too much {part['excess']} on {part['account']}"
            for part in found_break["parts"]
        )
        _console.print(f"  {found_break['kind']}: {parts} (workflow break/{found_break['id']})")


def _signed(amount_minor: int, currency: Currency) -> str:
    return f"{'-' if amount_minor < 0 else ''}{Money(abs(amount_minor), currency)}"


@app.command()
def env() -> None:
    """Print exports for the shell: eval "$(durapay env)"."""
    state = StateFolder.default()
    _running(state)
    addresses = Addresses.of(state.kept_ports())
    exports = {
        "DURAPAY_URL": addresses.api,
        "DURAPAY_KEY": _own_key(state),
        "DURAPAY_OPERATOR_KEY": _own_key(state, operator=True),
        "TEMPORAL_ADDRESS": addresses.temporal,
    }
    for name, value in exports.items():
        typer.echo(f"export {name}={shlex.quote(value)}")


@keys.command("create")
def create_key(
    account: Annotated[str, typer.Option(help="The account's name; it is opened if there is none.")],
    operator: Annotated[bool, typer.Option("--operator", help="A key that may decide reviews and doubts.")] = False,
    publishable: Annotated[bool, typer.Option("--publishable", help="A key for an app: register, sign in.")] = False,
    scope: Annotated[
        list[Scope] | None, typer.Option(help="What it may do; several are given one by one. Absent: everything.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="What it is called in lists.")] = None,
    days: Annotated[int | None, typer.Option(help="For how many days it is good. Absent: until revoked.")] = None,
) -> None:
    """Print a new API key. It is shown this once."""
    state = StateFolder.default()
    _running(state)
    key = create_api_key(
        _database_url(state),
        account,
        operator=operator,
        publishable=publishable,
        scopes=scope or None,
        name=name,
        lifetime=None if days is None else timedelta(days=days),
    )
    typer.echo(key)


@keys.command("list")
def list_keys(account: Annotated[str, typer.Option(help="The account's name.")]) -> None:
    """Show an account's keys that are good, without what proves them."""
    state = StateFolder.default()
    _running(state)
    _console.print(key_commands.table_of(_database_url(state), account))


@keys.command("roll")
def roll_key(
    key: Annotated[str, typer.Argument(metavar="ID", help="The id, key_…, as `list` shows it.")],
    overlap_hours: Annotated[int, typer.Option(min=0, max=168, help="For how long the old one is good still.")] = 24,
) -> None:
    """Print a new key that may do the same as an old one."""
    state = StateFolder.default()
    _running(state)
    typer.echo(key_commands.roll(_database_url(state), key, timedelta(hours=overlap_hours)))


@keys.command("revoke")
def revoke_key(key: Annotated[str, typer.Argument(metavar="ID", help="The id, key_…, as `list` shows it.")]) -> None:
    """Let a key open nothing any more."""
    state = StateFolder.default()
    _running(state)
    key_commands.revoke(_database_url(state), key)
    _console.print("revoked", key)


@bank.command("forward")
def forward_bank(
    days: Annotated[int, typer.Option(min=1, max=60, help="How many days; weekends and holidays post nothing.")] = 5,
) -> None:
    """Let days pass at the bank and read what it posted: deposits take one or two banking days."""
    state = StateFolder.default()
    _running(state)
    now = _simulated_bank(state).forward(days)
    bank_commands.read_day(Addresses.of(state.kept_ports()).api, _own_key(state, operator=True))
    typer.echo(f"At the bank it is {now:%A, %Y-%m-%d} now.")


@bank.command("statement")
def bank_statement(
    last4: Annotated[str, typer.Argument(metavar="LAST4", help="The account's last four digits.")],
) -> None:
    """Show what was posted to an account, as its holder sees it: the amounts of deposits that verify it."""
    state = StateFolder.default()
    _running(state)
    posted = _simulated_bank(state).statement(last4)
    table = Table("day", "what", "cents", title=f"Account …{last4}")
    for line in posted:
        table.add_row(f"{line.day}", line.text, f"{line.amount_minor:+d}")
    if not posted:
        typer.echo(f"Nothing was posted to an account …{last4}.")
        return
    _console.print(table)


def _simulated_bank(state: StateFolder) -> bank_commands.SimulatedBank:
    url = f"http://{LOOPBACK}:{state.kept_ports()['bank']}"
    return bank_commands.SimulatedBank(url, state.secret("bank_control_token"))


@app.command("rotate-signing-key")
def rotate_signing_key(
    distrust: Annotated[
        bool, typer.Option("--distrust", help="What the old key signed counts no more: users refresh, and go on.")
    ] = False,
) -> None:
    """Let the next key sign session tokens. It happens by itself every thirty days."""
    state = StateFolder.default()
    _running(state)
    secret = base64.b64decode(state.secret("identity_secret"))
    key_id = key_commands.rotate_signing_key(_database_url(state), secret, distrust)
    _console.print("session tokens are signed by", key_id)


def main() -> None:
    try:
        app()
    except DurapayError as error:
        _fail(str(error))


def _run_stack(
    overrides: Mapping[str, int], work: Callable[[Addresses], Awaitable[None]], *, code_when_stopped: int = 0
) -> NoReturn:
    """Starts the stack, does `work` on it, and stops it when that is done, on a signal, or when a part fails.

    The process ends with 0 when the work was done, with 1 when something failed, and with `code_when_stopped` on a
    signal.
    """
    state = StateFolder.default()
    state.create()
    with state.held():
        ports = state.ports(overrides)
        state.rotate_logs()
        code = asyncio.run(_serve(state, ports, work, code_when_stopped))
    # The Temporal SDK's threads need a moment: ending at once aborts the interpreter now and then.
    sys.stdout.flush()
    os._exit(code)


async def _serve(
    state: StateFolder,
    ports: Mapping[str, int],
    work: Callable[[Addresses], Awaitable[None]],
    code_when_stopped: int,
) -> int:
    stack = Stack(Blueprint(state, ports).parts(), state, _console)
    told_to_stop = asyncio.Event()
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(name, told_to_stop.set)

    async def live() -> None:
        started = time.monotonic()
        _console.print("[bold]Starting durapay[/]")
        await stack.start()
        _console.print(f"[bold]Ready after {time.monotonic() - started:.1f} s[/]")
        supervision = asyncio.create_task(stack.supervise())
        await _first_done(asyncio.ensure_future(work(Addresses.of(ports))), supervision)

    try:
        await _first_done(asyncio.create_task(live()), asyncio.create_task(told_to_stop.wait()))
    except DurapayError as error:
        _print_error(str(error))
        return 1
    finally:
        _console.print("Stopping …")
        await stack.stop()
    return code_when_stopped if told_to_stop.is_set() else 0


async def _first_done(*tasks: asyncio.Future[Any]) -> None:
    """Waits for the first task to end, cancels the others, and raises what it raised."""
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    for task in pending:
        with contextlib.suppress(asyncio.CancelledError):
            await task
    for task in done:
        task.result()


def _running(state: StateFolder) -> Running:
    running = state.running()
    if running is None:
        raise NotRunning
    return running


def _own_key(state: StateFolder, *, operator: bool = False) -> str:
    """The key of the account `demo` for this machine's shell; made once."""
    name = "demo_operator_key" if operator else "demo_key"
    key = state.find_secret(name)
    if key is None:
        key = create_api_key(_database_url(state), _ACCOUNT, operator=operator)
        state.keep_secret(name, key)
    return key


def _database_url(state: StateFolder) -> str:
    return Blueprint(state, state.kept_ports()).database_url


def _port_overrides(options: list[str] | None) -> dict[str, int]:
    """`--port api=9000` or DURAPAY_API_PORT=9000; the option wins."""
    overrides = {}
    for name in PORTS:
        value = os.environ.get(f"DURAPAY_{name.upper()}_PORT")
        if value is not None:
            overrides[name] = _port_number(value)
    for option in options or []:
        name, _, value = option.partition("=")
        if name not in PORTS:
            raise typer.BadParameter(f"no part is called {name!r}; there are {', '.join(PORTS)}")
        overrides[name] = _port_number(value)
    return overrides


def _port_number(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 65_536:
        raise typer.BadParameter(f"{text!r} is not a port number")
    return int(text)


def _print_addresses(addresses: Addresses) -> None:
    table = Table(show_header=False, box=None, padding=(0, 2))
    table.add_row("API and its documentation", f"{addresses.api}/docs")
    # Passkeys belong to a domain: the page is of no use under an IP address.
    table.add_row("Wallet, for developers", f"http://localhost:{urlsplit(addresses.api).port}/wallet")
    table.add_row("Temporal UI", addresses.temporal_ui)
    table.add_row("Temporal", addresses.temporal)
    table.add_row("SMS, mails and pushes sent", addresses.sandbox)
    table.add_row("Codec server (for the UI)", addresses.codec_server)
    _console.print(table)


def _fail(message: str) -> NoReturn:
    _print_error(message)
    sys.exit(1)


def _print_error(message: str) -> None:
    _errors.print("[red]✗[/]", end=" ")
    # It may quote a log: brackets in there are no markup, and long lines stay as they are.
    _errors.print(message, markup=False, soft_wrap=True)
