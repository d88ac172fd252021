"""Names are wire format: written down, used once, and implemented by somebody."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import pkgutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from temporalio import activity, workflow

import activities
import workflows
from activities import contracts
from tests.unit.temporal.messages import message_types
from workers.registry import WORKFLOWS

# A validator has no name of its own.
_NAMED = {"workflow.defn", "workflow.update", "workflow.signal", "workflow.query", "activity.defn"}


def _definition(workflow_class: type) -> Any:
    return workflow._Definition.must_from_class(workflow_class)


def _sources() -> list[Path]:
    return sorted(file for package in (workflows, activities) for file in Path(package.__path__[0]).glob("*.py"))


def _decorators(file: Path) -> Iterator[tuple[str, ast.expr]]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            for decorator in node.decorator_list:
                target = decorator.func if isinstance(decorator, ast.Call) else decorator
                if ast.unparse(target) in _NAMED:
                    yield node.name, decorator


@pytest.mark.parametrize("file", _sources(), ids=lambda file: f"{file.parent.name}/{file.name}")
def test_every_name_on_the_wire_is_written_down_and_not_taken_from_the_code(file: Path) -> None:
    for name, decorator in _decorators(file):
        assert isinstance(decorator, ast.Call), name
        given = [keyword.value for keyword in decorator.keywords if keyword.arg == "name"]
        assert [value for value in given if isinstance(value, ast.Constant) and isinstance(value.value, str)], name


def test_the_decorators_were_found() -> None:
    assert sum(len(list(_decorators(file))) for file in _sources()) > 30


def test_no_two_workflows_share_a_name() -> None:
    names = [_definition(each).name for each in WORKFLOWS]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("workflow_class", WORKFLOWS)
def test_updates_signals_and_queries_of_a_workflow_share_no_name(workflow_class: type) -> None:
    definition = _definition(workflow_class)
    names = Counter([*definition.updates, *definition.signals, *definition.queries])
    assert None not in names
    assert max(names.values(), default=1) == 1


def _activities(owner: type) -> dict[str, Any]:
    """Name → function of the activities that a class declares itself."""
    found = {}
    for member in vars(owner).values():
        definition = activity._Definition.from_callable(member) if inspect.isfunction(member) else None
        if definition is not None and definition.name is not None:
            assert definition.name not in found
            found[definition.name] = member
    return found


def _declared() -> dict[str, Any]:
    classes = [
        each for each in vars(contracts).values() if inspect.isclass(each) and each.__module__ == contracts.__name__
    ]
    every = [item for each in classes for item in _activities(each).items()]
    assert max(Counter(name for name, _ in every).values()) == 1
    return dict(every)


def _implemented() -> dict[str, Any]:
    names = (module.name for module in pkgutil.iter_modules(activities.__path__, "activities."))
    modules = [importlib.import_module(name) for name in names if name != contracts.__name__]
    classes = [
        each
        for module in modules
        for each in vars(module).values()
        if inspect.isclass(each) and each.__module__ == module.__name__
    ]
    every = [item for each in classes for item in _activities(each).items()]
    assert max(Counter(name for name, _ in every).values()) == 1
    return dict(every)


def test_every_activity_that_workflows_call_is_implemented_and_no_other() -> None:
    assert set(_declared()) == set(_implemented())


@pytest.mark.parametrize("name", sorted(_declared()))
def test_an_activity_takes_and_answers_what_its_contract_says(name: str) -> None:
    assert get_type_hints(_implemented()[name]) == get_type_hints(_declared()[name])


def _handlers() -> list[tuple[str, Any]]:
    """Everything that is called over the wire: its name and its function."""
    found = [(f"activity {name}", function) for name, function in _declared().items()]
    for each in WORKFLOWS:
        definition = _definition(each)
        found.append((f"workflow {definition.name}", definition.run_fn))
        for kind, handlers in (
            ("update", definition.updates),
            ("signal", definition.signals),
            ("query", definition.queries),
        ):
            found += [(f"{kind} {definition.name}.{name}", handler.fn) for name, handler in handlers.items()]
    return found


@pytest.mark.parametrize(("name", "function"), _handlers(), ids=lambda value: value if isinstance(value, str) else "")
def test_what_is_called_over_the_wire_takes_at_most_one_message(name: str, function: Any) -> None:
    hints = get_type_hints(function)
    hints.pop("return")
    assert len(hints) <= 1
    assert all(dataclasses.is_dataclass(hint) and hint in message_types() for hint in hints.values())
