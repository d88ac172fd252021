"""The ledger in memory: what `ledger.transfers.apply` ought to do, in the fewest words."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from ledger.transfers import (
    ExpirePending,
    Limit,
    OpenAccount,
    Pending,
    Post,
    PostPending,
    Step,
    Transfer,
    VoidPending,
)


class Refused(Exception):
    """`args` are the code and the index of the step that was refused."""


@dataclass
class Account:
    opened: OpenAccount
    debits_pending: int = 0
    debits_posted: int = 0
    credits_pending: int = 0
    credits_posted: int = 0

    def sums(self) -> tuple[int, int, int, int]:
        return self.debits_pending, self.debits_posted, self.credits_pending, self.credits_posted


@dataclass
class Hold:
    pending: Pending
    remaining: int
    state: str = "pending"


class Model:
    def __init__(self) -> None:
        self.accounts: dict[str, Account] = {}
        self.transfers: dict[str, Transfer] = {}
        self.holds: dict[str, Hold] = {}

    def apply(self, chain: Sequence[Step]) -> list[bool]:
        """For each step whether it is a replay. A refused chain leaves the model as it was."""
        before = copy.deepcopy(self.__dict__)
        new: set[int] = set()
        for index, step in self._in_order(chain):
            try:
                if self._open(step) if isinstance(step, OpenAccount) else self._transfer(step):
                    new.add(index)
            except Refused as refusal:
                self.__dict__ = before
                raise Refused(*refusal.args, index) from None
        # A step that stands twice in a chain was new once, and both say so.
        applied = {self._key(chain[index]) for index in new}
        return [self._key(step) not in applied for step in chain]

    @staticmethod
    def _in_order(chain: Sequence[Step]) -> list[tuple[int, Step]]:
        """All accounts come before all transfers, by their ids."""
        steps = list(enumerate(chain))
        opens = [(index, step) for index, step in steps if isinstance(step, OpenAccount)]
        transfers = [(index, step) for index, step in steps if not isinstance(step, OpenAccount)]
        return [*sorted(opens, key=lambda each: each[1].id), *transfers]

    @staticmethod
    def _key(step: Step) -> tuple[bool, str]:
        return isinstance(step, OpenAccount), step.id

    def _open(self, step: OpenAccount) -> bool:
        if step.id in self.accounts:
            if self.accounts[step.id].opened != step:
                raise Refused("account_exists_with_different_content")
            return False
        self.accounts[step.id] = Account(step)
        return True

    def _transfer(self, step: Transfer) -> bool:
        # What no transfer may be is refused before anyone looks whether the id is taken, as in TigerBeetle.
        if isinstance(step, Post | Pending) and step.debit_account == step.credit_account:
            raise Refused("accounts_must_be_different")
        if step.id in self.transfers:
            if self.transfers[step.id] != step:
                raise Refused("exists_with_different_content")
            return False
        match step:
            case Post():
                self._move(step, posted=step.amount_minor)
            case Pending():
                self._move(step, pending=step.amount_minor)
                self.holds[step.id] = Hold(step, step.amount_minor)
            case PostPending() | VoidPending() | ExpirePending():
                self._second_phase(step)
        self.transfers[step.id] = step
        return True

    def _second_phase(self, step: PostPending | VoidPending | ExpirePending) -> None:
        hold = self._standing(step)
        posted = step.amount_minor if isinstance(step, PostPending) else 0
        if posted > hold.remaining:
            raise Refused("exceeds_pending_transfer_amount")
        released = posted if isinstance(step, PostPending) and not step.final else hold.remaining
        hold.remaining -= released
        if hold.remaining == 0:
            hold.state = {PostPending: "posted", VoidPending: "voided", ExpirePending: "expired"}[type(step)]
        self._move(hold.pending, posted=posted, pending=-released)

    def _standing(self, step: PostPending | VoidPending | ExpirePending) -> Hold:
        if step.pending_id not in self.transfers:
            raise Refused("pending_transfer_not_found")
        if step.pending_id not in self.holds:
            raise Refused("pending_transfer_not_pending")
        hold = self.holds[step.pending_id]
        if hold.state == "expired":
            raise Refused("pending_transfer_expired")
        if hold.state != "pending":
            raise Refused(f"pending_transfer_already_{hold.state}")
        overdue = hold.pending.expires_at is not None and hold.pending.expires_at <= datetime.now(UTC)
        if overdue and not isinstance(step, ExpirePending):
            raise Refused("pending_transfer_expired")
        if isinstance(step, ExpirePending) and not overdue:
            raise Refused("pending_transfer_not_expired")
        return hold

    def _move(self, transfer: Post | Pending, *, posted: int = 0, pending: int = 0) -> None:
        released = pending < 0
        debit = self.accounts.get(transfer.debit_account)
        credit = self.accounts.get(transfer.credit_account)
        broken = []
        if debit is not None:
            debit.debits_pending += pending
            debit.debits_posted += posted
            if (
                debit.opened.limit is Limit.DEBITS_MUST_NOT_EXCEED_CREDITS
                and debit.debits_pending + debit.debits_posted > debit.credits_posted
            ):
                broken.append("exceeds_credits")
        if credit is not None:
            credit.credits_pending += pending
            credit.credits_posted += posted
            if (
                credit.opened.limit is Limit.CREDITS_MUST_NOT_EXCEED_DEBITS
                and credit.credits_pending + credit.credits_posted > credit.debits_posted
            ):
                broken.append("exceeds_debits")
        if broken:
            # PostgreSQL names the one that it comes to first.
            raise Refused(" or ".join(broken))
        if debit is None:
            raise Refused("debit_account_not_found")
        if credit is None:
            raise Refused("credit_account_not_found")
        if debit.opened.currency is not credit.opened.currency:
            raise Refused("accounts_must_have_same_currency")
        if transfer.currency is not debit.opened.currency:
            raise Refused("transfer_must_have_same_currency_as_accounts")
        # A second phase is not covered anew: its hold was.
        if transfer.covered and not released and debit.debits_pending + debit.debits_posted > debit.credits_posted:
            raise Refused("exceeds_credits")
