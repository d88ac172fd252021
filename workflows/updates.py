"""`workflow.update(name=…)` with the result type of an async handler.

The SDK's own overload takes such a handler for one that returns a coroutine, and every caller would have to cast.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import ParamSpec, TypeVar, cast

from temporalio import workflow
from temporalio.workflow import UpdateMethodMultiParam

P = ParamSpec("P")
R = TypeVar("R")


def named_update(name: str) -> Callable[[Callable[P, Awaitable[R]]], UpdateMethodMultiParam[P, R]]:
    """Marks an async method as the update handler `name`, which is wire format."""
    return cast(Callable[[Callable[P, Awaitable[R]]], UpdateMethodMultiParam[P, R]], workflow.update(name=name))
