"""Recorded histories replay on today's workflow code. If one does not, payments that are under way would be stuck."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from temporalio import workflow
from temporalio.worker import Replayer
from temporalio.workflow import NondeterminismError

from temporal.codec import ENCODING
from tests.replay.changed_workflows import AuthorizesBeforeTheRiskIsKnown, OmitsTheAdvice, WaitsFirst
from tests.replay.codec import replay_converter
from tests.replay.history_files import load, names, workflow_type
from workers.registry import WORKFLOWS
from workers.sandbox import sandbox


def _replayer(workflows: Sequence[type]) -> Replayer:
    return Replayer(workflows=workflows, workflow_runner=sandbox(), data_converter=replay_converter())


@pytest.mark.parametrize("name", names())
async def test_a_recorded_history_replays(name: str) -> None:
    await _replayer(WORKFLOWS).replay_workflow(load(name))


@pytest.mark.parametrize("changed", [WaitsFirst, OmitsTheAdvice, AuthorizesBeforeTheRiskIsKnown])
async def test_a_change_of_a_running_workflow_is_found(changed: type) -> None:
    with pytest.raises(NondeterminismError):
        await _replayer([changed]).replay_workflow(load("payment_manual_capture_and_partial_refund"))


def test_every_workflow_of_the_registry_has_a_recorded_history() -> None:
    recorded = {workflow_type(load(name)) for name in names()}
    assert {_defined_name(each) for each in WORKFLOWS} <= recorded


def _defined_name(each: type) -> str | None:
    return workflow._Definition.must_from_class(each).name


# Of what the SDK and the server write themselves, neither is ours to encrypt: search attributes, by which operators
# find payments, the kind and number of a local activity in its marker, and the name of a patch in its own.
_CLEAR = {"searchAttributes", "data", "patch-data"}


@pytest.mark.parametrize("name", names())
def test_a_recorded_history_is_encrypted_and_names_no_machine(name: str) -> None:
    for key, value in _fields(json.loads(load(name).to_json())):
        match key:
            case "payloads" | "encodedAttributes":
                payloads = value if isinstance(value, list) else [value]
                assert all(b64decode(payload["metadata"]["encoding"]) == ENCODING for payload in payloads)
            case "message":
                assert value == "Encoded failure"
            case "stackTrace":
                assert value == ""
            case "identity":
                assert value == "recorder"
            case _:
                continue


def _fields(node: Any) -> Iterator[tuple[str, Any]]:
    """Every field of a JSON document, at any depth."""
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in children:
        if key not in _CLEAR:
            yield str(key), value
            yield from _fields(value)
