"""The API as its own document describes it: what every operation takes, so that a new one is tested by itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

from api.app import create_app
from api.context import ApiContext

Json = dict[str, Any]
JSON, FORM = "application/json", "multipart/form-data"


@dataclass(frozen=True, slots=True)
class Operation:
    """`body` is the schema of what it takes as `content_type`, both None if it takes nothing."""

    method: str
    path: str
    parameters: tuple[Json, ...]
    content_type: str | None
    body: Json | None

    def __str__(self) -> str:
        return f"{self.method.upper()} {self.path}"

    def names(self, place: str) -> list[str]:
        """Of its parameters in `place` (`path`, `query`, `header`)."""
        return [parameter["name"] for parameter in self.parameters if parameter["in"] == place]

    def properties(self) -> Json:
        return {} if self.body is None else dict(resolved(self.body).get("properties", {}))


def _never() -> AbstractAsyncContextManager[ApiContext]:
    raise AssertionError("the application is only asked for its document")


DOCUMENT: Json = create_app(_never).openapi()


def operations() -> Iterator[Operation]:
    for path, methods in DOCUMENT["paths"].items():
        for method, described in methods.items():
            contents = described.get("requestBody", {}).get("content", {})
            content_type = next(iter(contents), None)
            body = contents[content_type]["schema"] if content_type else None
            yield Operation(method, path, tuple(described.get("parameters", ())), content_type, body)


def resolved(schema: Json) -> Json:
    """What `schema` refers to, if it refers to anything; of alternatives the first that is not null."""
    while True:
        if "$ref" in schema:
            schema = DOCUMENT["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        elif "anyOf" in schema:
            schema = {
                **next(each for each in schema["anyOf"] if each.get("type") != "null"),
                **{key: value for key, value in schema.items() if key != "anyOf"},
            }
        else:
            return schema


def example(schema: Json) -> Any:
    """Something that `schema` takes: its own example if it has one; of an object what it requires, or else shows.

    Raises:
        LookupError: the schema wants a text of a certain form, and shows no example of it.
    """
    schema = resolved(schema)
    if "examples" in schema:
        return schema["examples"][0]
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][0]
    match schema.get("type"):
        case "object":
            properties = schema.get("properties", {})
            shown = [name for name, each in properties.items() if "examples" in resolved(each)]
            return {name: example(properties[name]) for name in schema.get("required", shown)}
        case "array":
            return [example(schema["items"])] * schema.get("minItems", 1)
        case "integer" | "number":
            return max(schema.get("minimum", 1), schema.get("exclusiveMinimum", 0) + 1)
        case "boolean":
            return True
        case "string" if "pattern" not in schema and "format" not in schema:
            return "x" * max(1, schema.get("minLength", 1))
    raise LookupError(f"show an example of {schema}")
