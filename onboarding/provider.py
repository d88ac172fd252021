"""The port through which a person is checked, and the provider that does it here, with what is in this house.

A provider that does not answer raises: that nothing is known is never a yes. What it finds are codes, never names.
"""

from __future__ import annotations

from datetime import date
from typing import Protocol

from domain.names import plain
from domain.onboarding import Checked, CheckOutcome
from domain.personal import PersonalDetails, machine_readable, problems
from domain.travel_documents import MrzInvalid
from onboarding.watch_list import WatchList

# More would only repeat what a person sees anyway.
_MAX_REASONS = 10


class IdentityProvider(Protocol):
    """Whoever checks persons: this house, or a vendor behind an adapter."""

    @property
    def list_version(self) -> str:
        """The version of the watch list that a check looks at now."""

    async def check(self, details: PersonalDetails, today: date) -> Checked:
        """What is to be said of this person today.

        Raises:
            ProviderUnavailable: nothing is known.
        """


class LocalProvider:
    """Dates, formats and check digits; the name against the machine-readable zone and against the watch list."""

    def __init__(self, watch_list: WatchList) -> None:
        self._watch_list = watch_list

    @property
    def list_version(self) -> str:
        return self._watch_list.version

    async def check(self, details: PersonalDetails, today: date) -> Checked:
        wrong = problems(details, today)
        if wrong:
            reasons = tuple(dict.fromkeys(problem.code for problem in wrong))
            return Checked(CheckOutcome.FAIL, reasons[:_MAX_REASONS], self.list_version)
        doubts = [*self._doubts(details, today), *self._screened(details)]
        outcome = CheckOutcome.REFER if doubts else CheckOutcome.CLEAR
        return Checked(outcome, tuple(doubts[:_MAX_REASONS]), self.list_version)

    def _doubts(self, details: PersonalDetails, today: date) -> list[str]:
        if not plain(details.legal_name):
            # No letter of it is known here, so it was held against nothing.
            return ["name_not_comparable"]
        if details.document is None:
            return []
        try:
            zone = machine_readable(details.document, today)
        except MrzInvalid:
            return ["mrz_invalid"]
        if zone is None:
            return []
        said = set(plain(details.legal_name).split())
        # A long name is cut in the zone, so its last part may only begin as the person's does.
        read = f"{zone.surname} {zone.given_names}".split()
        agrees = all(part in said or any(word.startswith(part) for word in said) for part in read)
        return [] if read and agrees else ["name_differs_from_document"]

    def _screened(self, details: PersonalDetails) -> list[str]:
        hits = self._watch_list.hits(details.legal_name, details.date_of_birth)
        return [f"watch_list:{hit.entry_id}:{hit.score:.0f}" for hit in hits]
