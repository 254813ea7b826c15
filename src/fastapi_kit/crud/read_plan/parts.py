"""Parts of a read schema: some of its fields, which are validated as in the whole."""

from collections.abc import Iterator, Set
from typing import Any

from pydantic import BaseModel

from fastapi_kit.crud.read_plan.fields import Node, SchemaReader, core_schema_of, has_own_init, is_pydantics
from fastapi_kit.errors import ConfigurationError

__all__ = ["check_separable", "part_of", "reasons_against"]


def part_of(schema: type[BaseModel], names: Set[str]) -> Any:
    """Return the core schema of *schema* with the fields *names* only. ``check_separable`` says whether there is one."""
    core = core_schema_of(schema)
    return {**core, "schema": narrowed(core["schema"], names)} if core["type"] == "definitions" else narrowed(core, names)


def narrowed(model: Node, names: Set[str]) -> Node:
    fields: Node = model["schema"]
    return {**model, "schema": {**fields, "fields": {name: each for name, each in fields["fields"].items() if name in names}}}


def check_separable(schema: type[BaseModel]) -> None:
    """Check that no field of *schema* depends on another one, so that each may be left out.

    Raises:
        ConfigurationError: One may. The text says which code may read the others, and the remedy.
    """
    reader, core = SchemaReader(), core_schema_of(schema)
    for reason in reasons_against(schema, core, reader):
        raise ConfigurationError(f"{schema.__name__} cannot be answered in part: {reason}")


def reasons_against(schema: type[BaseModel], core: Node, reader: SchemaReader) -> Iterator[str]:
    """Yield what may read several fields of *schema*, and the remedy."""
    model = next(reader.walk(core, set()))
    if model["type"] != "model" or model["schema"]["type"] != "model-fields":
        yield "its model validator needs all fields. Move the check to where the row is written"
    elif model["root_model"]:
        yield "a RootModel has no fields"
    elif "serialization" in model:
        yield "its model serializer needs all fields. Give fields a serialization_alias, or a PlainSerializer"
    elif has_own_init(model) or "post_init" in model:
        yield "its __init__, model_post_init or private attributes need all fields. Leave them out"
    elif computed := ", ".join(each["property_name"] for each in model["schema"]["computed_fields"]):
        yield f"its computed field {computed} may read any field. Make it a hybrid_property of the model and a plain field of the schema"
    elif schema.model_config.get("extra") == "allow":
        yield 'it has extra="allow", so its fields are not known'
    else:
        for name, field in model["schema"]["fields"].items():
            for node in reader.walk(field["schema"], set()):
                for reason in reasons_against_field(node):
                    yield f"the field {name} {reason}"


def reasons_against_field(node: Node) -> Iterator[str]:
    serialization: Node = node.get("serialization", {})
    if serialization.get("is_field_serializer"):
        yield "has a field_serializer, which gets all fields. Use Annotated[..., PlainSerializer(...)], which gets the value"
    function: Node = node.get("function", {}) if node["type"].startswith("function-") else {}
    if function.get("type") == "with-info" and not is_pydantics(function["function"]):
        yield "has a validator that takes info, and so the other fields. Let it take the value only"
    if node.get("default_factory_takes_data"):
        yield "has a default that depends on other fields. Give it another default"
    if node["type"] == "model" and hasattr(node["cls"], "include_fields"):
        yield f"contains {node['cls'].__name__}, which is answered in part itself. Give it a schema of its own"
