"""The fields of a Pydantic schema and the names that they are read by, from its core schema."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias, TypeGuard, cast

from pydantic import BaseModel
from pydantic.errors import PydanticUndefinedAnnotation

from fastapi_kit.errors import ConfigurationError

__all__ = [
    "NO_NODES",
    "Content",
    "ModelSchema",
    "Node",
    "Path",
    "ReadField",
    "SchemaReader",
    "core_schema_of",
    "has_own_init",
    "is_node",
    "is_pydantics",
]

Node: TypeAlias = Mapping[str, Any]
"""A node of a core schema (``pydantic_core.core_schema``)."""

Path: TypeAlias = tuple[str | int, ...]
"""Where a field is read: the name of an attribute, then names, keys or positions inside its value."""

NO_NODES = frozenset({"cls", "config", "custom_error_context", "default", "expected", "function", "members", "metadata", "serialization"})
"""Keys of a node whose values contain no nodes."""

_ENDS = {"dataclass", "model", "model-fields", "typed-dict"}


def core_schema_of(schema: type[BaseModel]) -> Any:
    """Return the core schema of *schema*.

    Raises:
        ConfigurationError: *schema* refers to a type that is not defined.
    """
    try:
        schema.model_rebuild()
    except PydanticUndefinedAnnotation as error:
        raise ConfigurationError(f"{schema.__name__} refers to {error.name}, which is not defined") from error
    return schema.__pydantic_core_schema__


def is_node(value: object) -> TypeGuard[Node]:
    """Return whether *value* is a node, and not a mapping of names to nodes."""
    return isinstance(value, Mapping) and isinstance(cast("Node", value).get("type"), str)


def nodes_in(node: Node) -> Iterator[Node]:
    """Yield the nodes directly below *node*."""
    for key, value in node.items():
        if key not in NO_NODES:
            yield from nodes_of(value)


def nodes_of(value: object) -> Iterator[Node]:
    if is_node(value):
        yield value
    elif isinstance(value, Mapping):
        for part in cast("Mapping[str, object]", value).values():
            yield from nodes_of(part)
    elif isinstance(value, list | tuple):
        for part in cast("Sequence[object]", value):
            yield from nodes_of(part)


def has_own_init(model: Node) -> bool:
    """Return whether the class of *model* has an ``__init__`` of the application. SQLModel's validates as pydantic's does."""
    return bool(model.get("custom_init")) and model["cls"].__init__.__module__ != "sqlmodel.main"


@dataclass(frozen=True, eq=False)
class Content:
    """The type of a field: the models in it, the application's functions that get the value, and the types of all nodes.

    If *sees_input*, a function gets the value before pydantic has validated it.
    """

    models: tuple[Node, ...]
    functions: tuple[Callable[..., Any], ...]
    types: frozenset[str]
    sees_input: bool


@dataclass(frozen=True, eq=False)
class ReadField:
    """A field of *schema*. *paths* are its aliases, then its name: pydantic reads the first that exists."""

    schema: type[BaseModel]
    name: str
    required: bool
    paths: tuple[Path, ...]
    content: Content

    def __str__(self) -> str:
        return f"{self.schema.__name__}.{self.name}"


@dataclass(frozen=True, eq=False)
class ModelSchema:
    """A model in a core schema. If *sees_input*, its validators or its ``__init__`` get the object itself."""

    cls: type[BaseModel]
    fields: tuple[ReadField, ...]
    functions: tuple[Callable[..., Any], ...]
    sees_input: bool


@dataclass(eq=False)
class SchemaReader:
    """Reads the nodes of one core schema, and follows references between them."""

    _definitions: dict[str, Node] = field(default_factory=dict[str, Node])
    _models: dict[type[BaseModel], ModelSchema] = field(default_factory=dict[type[BaseModel], ModelSchema])

    def content(self, node: Node) -> Content:
        """Return the content of *node*, down to the models in it. A RootModel is what it wraps."""
        nodes = list(self.walk(node, set()))
        models = tuple(each for each in nodes if each["type"] == "model" and not each["root_model"])
        functions = tuple(function for each in nodes for function in functions_of(each))
        return Content(models, functions, frozenset(each["type"] for each in nodes), any(map(is_input_function, nodes)))

    def model(self, node: Node) -> ModelSchema:
        """Return the model that *node* describes."""
        cls: type[BaseModel] = node["cls"]
        if cls not in self._models:
            inside = list(self.walk(node["schema"], set()))
            fields = [(name, each) for part in inside if part["type"] == "model-fields" for name, each in part["fields"].items()]
            self._models[cls] = ModelSchema(
                cls,
                fields=tuple(self.field_of(cls, *each) for each in fields),
                functions=tuple(function for part in inside for function in functions_of(part)),
                sees_input=has_own_init(node) or any(map(is_input_function, inside)),
            )
        return self._models[cls]

    def field_of(self, cls: type[BaseModel], name: str, node: Node) -> ReadField:
        """Return the field *name* of *cls*, which *node* describes."""
        alias: str | list[Any] | None = node.get("validation_alias")
        if alias is None:
            paths: list[Path] = []
        elif isinstance(alias, str):
            paths = [(alias,)]
        else:
            paths = [tuple(path) for path in (alias if isinstance(alias[0], list) else [alias])]
        return ReadField(cls, name, cls.model_fields[name].is_required(), (*paths, (name,)), self.content(node["schema"]))

    def walk(self, node: Node, seen: set[str]) -> Iterator[Node]:
        """Yield *node* and the nodes below it, but nothing inside a model other than a RootModel."""
        if node["type"] == "definitions":
            self._definitions.update((each["ref"], each) for each in node["definitions"])
            yield from self.walk(node["schema"], seen)
        elif node["type"] == "definition-ref":
            if node["schema_ref"] not in seen:
                seen.add(node["schema_ref"])
                yield from self.walk(self._definitions[node["schema_ref"]], seen)
        else:
            yield node
            if node["type"] not in _ENDS or node.get("root_model"):
                for part in nodes_in(node):
                    yield from self.walk(part, seen)


def is_input_function(node: Node) -> bool:
    return node["type"] in {"function-before", "function-wrap", "function-plain"} and not is_pydantics(node["function"]["function"])


def functions_of(node: Node) -> Iterator[Callable[..., Any]]:
    """Yield the application's functions in *node* that may get the object itself, before it is an instance of a schema."""
    serializer = node.get("serialization", {}).get("function")
    validator = node["function"]["function"] if is_input_function(node) or takes_anything(node) else None
    for function in (validator, serializer, node.get("discriminator")):
        if callable(function) and not is_pydantics(function):
            yield function


def takes_anything(node: Node) -> bool:
    """Return whether *node* is a function after a type that passes objects on unchanged."""
    inner = node
    while inner["type"] == "function-after":
        inner = inner["schema"]
    return inner is not node and inner["type"] in {"any", "is-instance"}


def is_pydantics(function: Any) -> bool:
    """Return whether *function* is pydantic's own, and not the application's."""
    module: str = getattr(function.func if isinstance(function, partial) else function, "__module__", None) or ""
    return module.startswith("pydantic.")
