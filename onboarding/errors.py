"""What can go wrong while a customer is being known. No message says anything of the person."""

from __future__ import annotations

from domain.errors import DurapayError, Unavailable


class ProviderUnavailable(Unavailable):
    """The identity provider did not answer, or not now: nothing is known, which is neither a yes nor a no."""


class LoanLapsed(Unavailable):
    """The user's key was lent for too short a time; it must be asked for again."""

    def __init__(self) -> None:
        super().__init__("the loan of the key has lapsed")


class OnboardingUnavailable(Unavailable):
    """Database or cache could not be reached. Nothing was changed, or the same change was made before."""


class WatchListInvalid(DurapayError):
    """The file is no watch list; `line` is where it stops being one (1 is the first)."""

    def __init__(self, line: int, why: str) -> None:
        super().__init__(f"the watch list is wrong in line {line}: {why}")
        self.line = line


class DetailsMissing(DurapayError):
    """The case has no details that could be checked."""

    def __init__(self, user_id: str) -> None:
        super().__init__(f"the case of {user_id} has no details")


class KeyMismatch(DurapayError):
    """The lent key is of another user, or not the one under which the details are."""

    def __init__(self, user_id: str) -> None:
        super().__init__(f"the lent key is not that of the details of {user_id}")


class ChangeOutOfOrder(DurapayError):
    """A change of a case came before the one it follows; its workflow is the only one that writes it, one by one."""

    def __init__(self, user_id: str, sequence: int) -> None:
        super().__init__(f"change {sequence} of {user_id} does not follow the last one")
