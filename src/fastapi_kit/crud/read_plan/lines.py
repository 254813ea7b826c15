"""Plain rows as lines of JSON."""

from typing import Any

from pydantic import BaseModel
from pydantic_core import SchemaSerializer

from fastapi_kit.crud.read_plan.fields import Node, SchemaReader, core_schema_of
from fastapi_kit.crud.read_plan.parts import reasons_against
from fastapi_kit.crud.read_plan.validation import ListValidator

__all__ = ["LineWriter", "line_of"]


class LineWriter:
    """Validates rows as *schema* does and writes them as its instances would be, without making these, which takes most of the time.

    *core* is the core schema of *schema* or of a part of it, whose fields do not depend on each other.
    """

    def __init__(self, schema: type[BaseModel], core: Node) -> None:
        dicts: Any = {**core, "schema": as_dict(core["schema"])} if core["type"] == "definitions" else as_dict(core)
        self._validate = ListValidator[Any](schema, dicts)
        self._to_json = SchemaSerializer(dicts, {"serialize_by_alias": True}).to_json

    @classmethod
    def of(cls, schema: type[BaseModel], core: Node | None = None) -> "LineWriter | None":
        """Return the writer for *schema*, or None if only an instance can be written."""
        node: Node = core_schema_of(schema) if core is None else core
        return None if any(reasons_against(schema, node, SchemaReader())) else cls(schema, node)

    def __call__(self, rows: list[dict[str, object]]) -> list[bytes]:
        """Return *rows*, each by the names of its columns, as JSON.

        Raises:
            ValidationError: pydantic rejects a row.
        """
        return list(map(self._to_json, self._validate(rows)))


def as_dict(model: Node) -> Node:
    """Return the node of a dict with the fields of *model*."""
    fields: dict[str, dict[str, Any]] = {name: {**each, "type": "typed-dict-field"} for name, each in model["schema"]["fields"].items()}
    for each in fields.values():
        each["required"] = each["schema"]["type"] != "default"
        each.pop("frozen", None)
    return {"type": "typed-dict", "fields": fields, "config": {**model.get("config", {}), "extra_fields_behavior": "ignore"}}


def line_of(row: BaseModel) -> bytes:
    """Return an instance of a schema as JSON, as FastAPI sends it."""
    return row.__pydantic_serializer__.to_json(row, by_alias=True)
