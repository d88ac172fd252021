"""From a service's fault to what Temporal retries. Only here is it decided whether a fault may pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from temporalio.exceptions import ApplicationError

from domain.errors import DurapayError, Unavailable
from network.errors import InDoubt, JournalUnavailable, NotAcknowledged, StanExhausted
from notify.errors import DeliveryIncomplete, TemporaryFailure

# These pass by themselves. Any other error of ours is a refusal or a bug, and asking again would get it again.
_RETRYABLE: tuple[type[DurapayError], ...] = (
    Unavailable,
    NotAcknowledged,
    JournalUnavailable,
    StanExhausted,
    InDoubt,
    DeliveryIncomplete,
    TemporaryFailure,
)


@contextmanager
def translated() -> Iterator[None]:
    """Raises a service's error as an ApplicationError whose type is the error's class name.

    Errors that are not ours (a driver's, say) pass as they are: Temporal retries them.
    """
    try:
        yield
    except DurapayError as error:
        raise as_application_error(error) from error


def as_application_error(error: DurapayError) -> ApplicationError:
    """`error` for Temporal, with the delay that its source asked for, if it did. Its message holds no card data."""
    delay = error.retry_after_seconds if isinstance(error, DeliveryIncomplete | TemporaryFailure) else None
    return ApplicationError(
        str(error),
        type=type(error).__name__,
        non_retryable=not isinstance(error, _RETRYABLE),
        next_retry_delay=timedelta(seconds=delay) if delay else None,
    )
