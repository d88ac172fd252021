"""What the simulator's control API refuses."""

from __future__ import annotations

from datetime import date

from domain.errors import DurapayError


class Refused(DurapayError):
    """The control API answers with `status`, and with `reason` for a machine."""

    status = 409
    reason = "refused"


class DayNotClosed(Refused):
    """There is no file of a day that is not over."""

    status = 404
    reason = "day_not_closed"

    def __init__(self, day: date) -> None:
        super().__init__(f"{day} is not closed yet")


class DayNotBegun(Refused):
    """Days are closed one after the other."""

    reason = "day_not_begun"

    def __init__(self, day: date, open_day: date) -> None:
        super().__init__(f"{day} cannot be closed while {open_day} is open")


class DayOver(Refused):
    """The file of a closed day does not change any more."""

    reason = "day_over"

    def __init__(self, day: date) -> None:
        super().__init__(f"{day} is closed")


class CaseUnknown(Refused):
    """There is no such dispute."""

    status = 404
    reason = "case_unknown"

    def __init__(self, chargeback_id: str) -> None:
        super().__init__(f"there is no case {chargeback_id}")


class CaseClosed(Refused):
    """The dispute is not in a state for this."""

    reason = "case_closed"


class NotDisputable(Refused):
    """No dispute can be raised about this payment, or not of this amount."""

    reason = "not_disputable"
