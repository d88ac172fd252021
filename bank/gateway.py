"""What the platform asks of its bank, each effect once: journal, account number, file, what its answers mean.

The order that everything rests on: the file's row with id and digest is committed, then turned to `sending` and
committed again, then the first byte is written. What may have been sent is asked for by its id, and sent again only
after the bank has said that it has no such file; the bank takes a file once per id and digest, so even a request that
was under way meanwhile doubles nothing. A file is taken whole or not at all: both deposits and the debit, or none.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from bank import store
from bank.calendar import EASTERN, effective_date
from bank.client import BankClient, FileReport, FileStatus, Lost
from bank.errors import BankUnreachable, FieldInvalid, FileNotRebuilt
from bank.files import FileNumbers, Originator, Receiver, digest, micro_deposit_file, nacha_name, traces
from bank.journal import FileJournal, FileState, JournaledFile, NewFile
from domain.bank_accounts import BankAccountType
from domain.errors import NotFound
from domain.ids import ACH_FILE, derived_id
from domain.micro_deposits import (
    ConfirmAttempt,
    ConfirmVerdict,
    InquiryOutcome,
    NotReceived,
    OriginateCommand,
    Originated,
    OriginationOutcome,
    OriginationRefused,
    OriginationUnknown,
)
from sealing import BANK_ACCOUNT_PURPOSE, Sealer, Unsealer

_UNPOSTED_AT_ONCE = 500


class BankGateway:
    """The bank worker's only way to the bank. `corrections` closes boxes for the vault, `clock` gives the time (UTC).
    `passing` hears at which named place a file is now, and of which verification: `created`, `sending`, `answered`.

    All methods may be called again with the same command at any time, by any process; they answer what was decided.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        unsealer: Unsealer,
        client: BankClient,
        originator: Originator,
        *,
        corrections: Sealer,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        passing: Callable[[str, str], None] = lambda place, micro_deposit_id: None,
    ) -> None:
        self._engine = engine
        self._journal = FileJournal(engine, corrections)
        self._unsealer = unsealer
        self._client = client
        self._originator = originator
        self._clock = clock
        self._passing = passing

    async def originate(self, command: OriginateCommand) -> OriginationOutcome:
        """Hands the file of a verification over, once.

        Raises:
            BankUnreachable: nothing was sent; ask again.
            FileNotRebuilt: the file cannot be made again as it was journaled.
            SealBroken: the box of the account number cannot be opened.
        """
        receiver = self._opened(command)
        known = await self._journal.find(command.effect_key)
        if known is None:
            try:
                known = await self._open(command, receiver)
            except FieldInvalid as error:
                return OriginationRefused(f"{error.field}_invalid")
        match known.state:
            case FileState.SENT | FileState.REFUSED:
                return _known(known)
            case FileState.SENDING | FileState.UNANSWERED:
                return OriginationUnknown(known.numbers.file_id)
            case FileState.CREATED:
                return await self._send(command, known, receiver)

    async def inquire(self, command: OriginateCommand) -> InquiryOutcome:
        """Asks the bank for a file that may have reached it.

        Raises:
            NotFound: no such file was ever made.
            BankDoesNotSay: ask again.
        """
        known = await self._journal.find(command.effect_key)
        if known is None:
            raise NotFound("ACH file", command.effect_key)
        if known.state in (FileState.SENT, FileState.REFUSED):
            return _known(known)
        file_id = known.numbers.file_id
        report = await self._client.find(file_id)
        if report is None:
            await self._journal.not_received(file_id)
            return NotReceived(file_id)
        decided = await self._note(known, report)
        if isinstance(decided, OriginationUnknown):
            raise FileNotRebuilt(f"the bank has another file under {file_id}")
        return decided

    async def confirm(self, attempt: ConfirmAttempt) -> ConfirmVerdict:
        """Counts a guess, commits that, and then compares.

        Raises:
            NotFound: there is no such verification.
        """
        async with self._engine.begin() as connection:
            verdict = await store.count_attempt(connection, attempt)
        if verdict is not None:
            return verdict
        async with self._engine.begin() as connection:
            return await store.judge(connection, attempt)

    async def postings(self) -> list[store.Posting]:
        """What the bank has posted and nobody was told of yet.

        Raises:
            BankDoesNotSay: ask again.
        """
        async with self._engine.connect() as connection:
            waiting = await store.unposted(connection, _UNPOSTED_AT_ONCE)
        found = []
        for file_id, micro_deposit_id in waiting:
            report = await self._client.find(file_id)
            if report is not None and report.status is FileStatus.POSTED and report.posted_on is not None:
                async with self._engine.begin() as connection:
                    await store.posted(connection, file_id, report.posted_on)
                found.append(store.Posting(micro_deposit_id, file_id, report.posted_on))
        return found

    async def returns(self) -> list[store.ReturnedEntry]:
        """Reads the bank's files of returns that are new; all entries whose effect has not been seen yet.

        Raises:
            BankDoesNotSay: ask again.
            BankFileInvalid, NachaInvalid: an operator has to look; nothing of that file is kept.
        """
        async with self._engine.connect() as connection:
            last = await store.last_return_file(connection)
        for file in await self._client.returns(last):
            await self._journal.keep_returns(file)
        async with self._engine.connect() as connection:
            return await store.untold(connection)

    def _opened(self, command: OriginateCommand) -> Receiver:
        content = self._unsealer.open(BANK_ACCOUNT_PURPOSE, command.sealed_account)
        return Receiver(
            content["routing_number"], content["account_number"], BankAccountType(content["account_type"]), ""
        )

    async def _open(self, command: OriginateCommand, receiver: Receiver) -> JournaledFile:
        """Makes the file and its row. Two who do so at once get the same row: the second one finds the first one's."""
        moment = self._clock()
        async with self._engine.begin() as connection:
            created_on, modifier, block = await self._journal.next_numbers(
                connection, moment.astimezone(EASTERN).replace(tzinfo=None)
            )
            # Numbering lets one through at a time, so the second one sees the first one's.
            if await self._journal.find_in(connection, command.effect_key) is None:
                file_id = derived_id(ACH_FILE, command.effect_key)
                numbers = FileNumbers(file_id, created_on, modifier, effective_date(moment), block)
                await self._add(connection, command, receiver, numbers)
        known = await self._journal.find(command.effect_key)
        if known is None:
            raise NotFound("ACH file", command.effect_key)
        return known

    async def _add(
        self, connection: AsyncConnection, command: OriginateCommand, receiver: Receiver, numbers: FileNumbers
    ) -> None:
        chosen = await store.amounts(connection, command.micro_deposit_id)
        name = nacha_name(await store.receiver_name(connection, command.micro_deposit_id))
        text = self._file(receiver, name, chosen, numbers)
        cents = (chosen.first_minor, chosen.second_minor, chosen.first_minor + chosen.second_minor)
        entries = list(
            zip(("credit_1", "credit_2", "debit"), traces(self._originator, numbers.block), cents, strict=True)
        )
        new = NewFile(numbers, command.effect_key, command.micro_deposit_id, digest(text), name, entries)
        await self._journal.open(connection, new)

    def _file(self, receiver: Receiver, name: str, chosen: store.Amounts, numbers: FileNumbers) -> str:
        named = Receiver(receiver.routing_number, receiver.account_number, receiver.account_type, name)
        return micro_deposit_file(self._originator, named, (chosen.first_minor, chosen.second_minor), numbers)

    async def _send(self, command: OriginateCommand, known: JournaledFile, receiver: Receiver) -> OriginationOutcome:
        file_id = known.numbers.file_id
        async with self._engine.connect() as connection:
            chosen = await store.amounts(connection, command.micro_deposit_id)
        self._passing("created", command.micro_deposit_id)
        text = self._file(receiver, known.receiver_name, chosen, known.numbers)
        if digest(text) != known.sha256:
            raise FileNotRebuilt(f"{file_id} is not the file that was journaled")
        if not await self._journal.begin(file_id):
            return OriginationUnknown(file_id)  # another process is sending it
        self._passing("sending", command.micro_deposit_id)
        try:
            answer = await self._client.send(file_id, text)
        except BankUnreachable:
            await self._journal.unsend(file_id)
            raise
        self._passing("answered", command.micro_deposit_id)
        if isinstance(answer, Lost):
            await self._journal.give_up(file_id)
            return OriginationUnknown(file_id)
        return await self._note(known, answer)

    async def _note(self, known: JournaledFile, report: FileReport) -> OriginationOutcome:
        """Keeps what the bank has said, if it speaks of this file."""
        file_id = known.numbers.file_id
        if report.file_id != file_id or report.sha256 != known.sha256.hex():
            await self._journal.give_up(file_id)
            return OriginationUnknown(file_id)
        if report.status is FileStatus.REFUSED:
            reason = report.reason or "refused"
            await self._journal.answered(file_id, FileState.REFUSED, reason)
            return OriginationRefused(reason)
        await self._journal.answered(file_id, FileState.SENT)
        return Originated(file_id, known.numbers.effective_on)


def _known(known: JournaledFile) -> Originated | OriginationRefused:
    if known.state is FileState.REFUSED:
        return OriginationRefused(known.reason or "refused")
    return Originated(known.numbers.file_id, known.numbers.effective_on)
