"""Validation of lists of objects or rows in one call, with e-mail addresses checked in Rust where possible."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Generic, TypeVar, cast

from pydantic import BaseModel, EmailStr, TypeAdapter, ValidationError
from pydantic_core import SchemaError, SchemaValidator, core_schema

from fastapi_kit._compat import validator_of
from fastapi_kit.crud.read_plan.fields import NO_NODES, core_schema_of, has_own_init, is_node

__all__ = ["ListValidator"]

SchemaT = TypeVar("SchemaT", bound=BaseModel)

_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_LABEL = r"[a-z0-9]+(?:-[a-z0-9]+)*"
# Two to six letters. The first letter excludes arpa, test, local, onion, invalid and localhost.
_TOP_LABEL = r"(?:[a-z]{2,3}|[b-su-z][a-z]{3}|[a-kmnp-z][a-z]{4}|[a-z]{6})"
_PLAIN_ADDRESS = core_schema.str_schema(
    pattern=rf"^{_ATOM}(?:\.{_ATOM})*@(?:{_LABEL}\.)+{_TOP_LABEL}$",
    # An address of at most 64 characters is within the limits of each part.
    max_length=64,
    regex_engine="rust-regex",
)
_EMAIL_FUNCTION: Any = dict(TypeAdapter(EmailStr).core_schema).get("function")


class ListValidator(Generic[SchemaT]):
    """Validates lists into instances of *schema*, as ``schema.model_validate(each, from_attributes=True)`` does for one object.

    Fields are read by alias or by name, whatever the config of the schema says. Addresses that ``EmailStr`` returns unchanged are
    validated without Python. Fields that are not in *part*, a core schema, are left out of the instances.
    """

    def __init__(self, schema: type[SchemaT], part: Any = None) -> None:
        items: Any = core_schema.list_schema(core_schema_of(schema) if part is None else part)
        own = None if part is None else schema
        self._exact = self._fast = validator_of(items, part_of=own)
        rewritten = rewrite(items)
        if rewritten is not items:
            with suppress(SchemaError):
                self._fast = validator_of(rewritten, part_of=own)

    def __call__(self, inputs: list[Any]) -> list[SchemaT]:
        """Return *inputs*, objects or mappings, as instances of the schema.

        Raises:
            ValidationError: pydantic rejects one of them.
        """
        try:
            return self._run(self._fast, inputs)
        except ValidationError:
            if self._fast is self._exact:
                raise
            return self._run(self._exact, inputs)

    @staticmethod
    def _run(validator: SchemaValidator, inputs: list[Any]) -> list[SchemaT]:
        found: list[SchemaT] = validator.validate_python(inputs, from_attributes=True, by_alias=True, by_name=True)
        return found


def rewrite(value: object) -> object:
    """Return the core schema *value* with a pattern before each use of EmailStr's function, and without calls of SQLModel's ``__init__``.

    If it has neither, return *value* itself.
    """
    if is_node(value):
        node = {key: part if key in NO_NODES else rewrite(part) for key, part in value.items()}
        if value["type"] == "function-after" and value["function"] == _EMAIL_FUNCTION:
            return plain_or(node)
        if value["type"] == "model" and value.get("custom_init") and not has_own_init(value):
            return {**node, "custom_init": False}
        return node if any(node[key] is not value[key] for key in value) else value
    if isinstance(value, Mapping):
        named = cast("Mapping[str, object]", value)
        parts = {key: rewrite(part) for key, part in named.items()}
        return parts if any(parts[key] is not named[key] for key in named) else named
    if isinstance(value, list | tuple):
        items = cast("Sequence[object]", value)
        new = tuple(rewrite(part) for part in items)
        if all(part is old for part, old in zip(new, items, strict=True)):
            return items
        return new if isinstance(value, tuple) else list(new)
    return value


def plain_or(email: Any) -> Any:
    # The inner schema of EmailStr applies the config for strings first, such as strip_whitespace or max_length.
    choice = core_schema.union_schema([_PLAIN_ADDRESS, email], mode="left_to_right")
    return core_schema.chain_schema([email["schema"], choice])
