"""Steps that never give up silently: a step whose retry budget is spent parks its workflow, visibly.

A parked step shows in the search attribute `NeedsAttention` and in the workflow's current details. It goes on when an
operator sends `retry`, by itself after a while if the fault was a passing one, or ends with the outcome that two
different operators give it by `resolve`, where the step allows one.
"""

from __future__ import annotations

import asyncio
import contextlib
import unicodedata
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError, ChildWorkflowError
from temporalio.exceptions import TimeoutError as ActivityTimeout

from temporal.search_attributes import NEEDS_ATTENTION
from workflows.messages import Resolution, ResolveRequest, ResolveResult, RetryRequest
from workflows.options import FIRST_SELF_RETRY, LONGEST_SELF_RETRY
from workflows.updates import named_update

T = TypeVar("T")
R = TypeVar("R")

# What a step's call can fail with. A local activity that fails for good raises its own error bare, unlike any other.
Failure = ActivityError | ChildWorkflowError | ApplicationError
_FAILURES = (ActivityError, ChildWorkflowError, ApplicationError)


@dataclass(slots=True)
class _Step:
    """One running step. `parked_since` is set while it waits; `proposal` is the first operator's word."""

    resolutions: Mapping[Resolution, object]
    parked_since: datetime | None = None
    reason: str = ""
    retry_now: bool = False
    proposal: ResolveRequest | None = None
    resolution: Resolution | None = None


class DurableSteps:
    """What every workflow here is made of. Its updates `retry` and `resolve` are the operators' handles."""

    def __init__(self) -> None:
        self._steps: dict[str, _Step] = {}
        self._background: set[asyncio.Task[None]] = set()
        self._shown_attention: str | None = None
        # By step: the two operators who forced its outcome, and the second one's reason.
        self._resolved_by: dict[str, tuple[str, str, str]] = {}

    @named_update("retry")
    async def retry(self, request: RetryRequest) -> None:
        """Try a parked step again (all of them if none is named)."""
        for name in [request.step] if request.step else list(self._steps):
            self._steps[name].retry_now = True

    @retry.validator
    def _may_retry(self, request: RetryRequest) -> None:
        parked = self.needs_attention()
        if (request.step and request.step not in parked) or not parked:
            raise ApplicationError("no such step waits for a retry", type="step_not_parked")

    @named_update("resolve")
    async def resolve(self, request: ResolveRequest) -> ResolveResult:
        """Force the outcome of a step: applied when a second, different operator sends the same outcome."""
        step = self._steps[request.step]
        if step.proposal is None or step.proposal.outcome is not request.outcome:
            step.proposal = request
            return ResolveResult(applied=False)
        if step.proposal.operator == request.operator:
            return ResolveResult(applied=False)
        step.resolution = request.outcome
        self._resolved_by[request.step] = (step.proposal.operator, request.operator, request.reason)
        return ResolveResult(applied=True)

    @resolve.validator
    def _may_resolve(self, request: ResolveRequest) -> None:
        step = self._steps.get(request.step)
        if step is None or request.outcome not in step.resolutions:
            raise ApplicationError("no such step can be resolved that way", type="step_not_resolvable")
        if not request.reason.strip() or not request.operator.strip():
            raise ApplicationError("a resolution needs an operator and a reason", type="reason_required")
        if step.proposal is not None and _respelled(step.proposal.operator, request.operator):
            raise ApplicationError("the same operator's name is spelled in another way", type="operator_respelled")

    def needs_attention(self) -> tuple[str, ...]:
        return tuple(name for name, step in self._steps.items() if step.parked_since is not None)

    async def _until_done(
        self,
        name: str,
        call: Callable[[], Awaitable[T]],
        resolutions: Mapping[Resolution, R] | None = None,
    ) -> T | R:
        """The result of `call`, however long that takes, or the value of `resolutions` that two operators chose."""
        step = _Step(resolutions or {})
        self._steps[name] = step
        result = await self._attempts(name, step, call, resolutions or {})
        # Not in a `finally`: an evicted workflow's coroutines are closed outside of any workflow.
        del self._steps[name]
        return result

    async def _attempts(
        self, name: str, step: _Step, call: Callable[[], Awaitable[T]], resolutions: Mapping[Resolution, R]
    ) -> T | R:
        pause = FIRST_SELF_RETRY
        while True:
            attempt = asyncio.ensure_future(call())
            await workflow.wait_condition(lambda: attempt.done() or step.resolution is not None)  # noqa: B023
            if step.resolution is None:
                try:
                    return attempt.result()
                except _FAILURES as error:
                    await self._park(name, step, error, pause)
                    pause = min(pause * 2, LONGEST_SELF_RETRY)
            if step.resolution is not None:
                attempt.cancel()
                with contextlib.suppress(asyncio.CancelledError, *_FAILURES):
                    await attempt
                return resolutions[step.resolution]

    async def _park(self, name: str, step: _Step, error: Failure, pause: timedelta) -> None:
        step.parked_since = workflow.now()
        step.reason = failure_type(error)
        step.retry_now = False
        self._show_attention()
        workflow.logger.warning("step %s needs attention: %s", name, step.reason)
        awaited = workflow.wait_condition(
            lambda: step.retry_now or step.resolution is not None,
            timeout=None if _is_final(error) else pause,
        )
        try:
            await awaited
        except TimeoutError:
            workflow.logger.info("step %s tries again by itself", name)
        step.parked_since = None
        self._show_attention()

    def _show_attention(self) -> None:
        wanted = next(iter(self.needs_attention()), None)
        if wanted != self._shown_attention:
            self._shown_attention = wanted
            workflow.upsert_search_attributes(
                [NEEDS_ATTENTION.value_unset() if wanted is None else NEEDS_ATTENTION.value_set(wanted)]
            )

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` beside what follows. The workflow does not complete before it has ended."""
        task = asyncio.ensure_future(work)
        self._background.add(task)

    async def _background_done(self) -> None:
        """Waits for background work and running update handlers; what a task raised is raised here."""
        while self._background or not workflow.all_handlers_finished():
            while self._background:
                await self._background.pop()
            await workflow.wait_condition(workflow.all_handlers_finished)

    async def _whatever_comes(self, life: Coroutine[Any, Any, T]) -> T:
        """The result of `life`, also when somebody cancels the workflow: money has no state "canceled half-way"."""
        task = asyncio.ensure_future(life)
        while True:
            try:
                return await asyncio.shield(task)
            except asyncio.CancelledError:
                if task.cancelled():  # not the workflow's cancellation: its life itself is being taken down
                    raise
                workflow.logger.warning("a cancellation was refused: use the workflow's own updates")


def _respelled(first: str, second: str) -> bool:
    """Whether two different strings are one name but for capitals, spaces and the form of their characters.

    Asked by a validator, which leaves nothing in a history, so what was resolved earlier replays as it was.
    """
    return first != second and _letters(first) == _letters(second)


def _letters(name: str) -> str:
    # Compatibility forms look alike to whoever reads the history afterwards (Unicode Standard Annex #15, NFKC).
    return "".join(unicodedata.normalize("NFKC", name).casefold().split())


def failure_type(error: Failure) -> str:
    """The machine-readable type of what made an activity fail, e.g. `NotAcknowledged` or `timeout`."""
    cause = _cause(error)
    if isinstance(cause, ApplicationError):
        return cause.type or "error"
    if isinstance(cause, ActivityTimeout):
        return "timeout"
    return type(cause).__name__ if cause else "error"


def _is_final(error: Failure) -> bool:
    """Whether trying again by itself cannot help: the fault was marked as not retryable."""
    cause = _cause(error)
    return isinstance(cause, ApplicationError) and cause.non_retryable


def _cause(error: Failure) -> BaseException | None:
    return error if isinstance(error, ApplicationError) else error.cause
