"""Recorded histories as files: one event a line, payloads encrypted, the workflow's id beside them."""

from __future__ import annotations

import json
from pathlib import Path

from temporalio.client import WorkflowHistory

FOLDER = Path(__file__).parent / "histories"


def save(name: str, history: WorkflowHistory) -> None:
    """Writes `name`.json. The id is kept because the payloads are bound to it."""
    events = ",\n".join(json.dumps(event, sort_keys=True) for event in json.loads(history.to_json())["events"])
    content = f'{{"workflow_id": {json.dumps(history.workflow_id)}, "events": [\n{events}\n]}}\n'
    (FOLDER / f"{name}.json").write_text(content)


def names() -> list[str]:
    return sorted(file.stem for file in FOLDER.glob("*.json"))


def load(name: str) -> WorkflowHistory:
    content = json.loads((FOLDER / f"{name}.json").read_text())
    return WorkflowHistory.from_json(content["workflow_id"], {"events": content["events"]})


def workflow_type(history: WorkflowHistory) -> str:
    return history.events[0].workflow_execution_started_event_attributes.workflow_type.name
