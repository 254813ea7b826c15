"""Answers with the fields that a client asks for."""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, ClassVar, Generic, TypeAlias, TypeVar, cast

from pydantic import BaseModel, GetJsonSchemaHandler, ValidationInfo, create_model, field_validator
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, PydanticCustomError

from fastapi_kit.crud._parameters import Parameters, argument_of
from fastapi_kit.crud.read_plan.parts import check_separable
from fastapi_kit.errors import ConfigurationError

__all__ = ["ReadAs", "SparseModel", "SparseSpec", "choices_of", "chosen_by", "hidden_by", "is_sparse", "schema_of", "with_choice"]

SchemaT = TypeVar("SchemaT", bound=BaseModel)


class SparseModel(BaseModel):
    """A read schema of which a client may ask for some fields: ``class ItemRead(SparseModel)``.

    ``fields=id,name`` asks for these fields, and ``include=author`` adds those of ``include_fields``, which an answer has for the asking
    only. The names are those in JSON. Without parameters, an answer has all fields but ``include_fields``. What was not asked for is not
    read from the database, is not in the answer, and reading the attribute raises AttributeError.

    Each field must be its own: a schema with computed fields, model validators, serializers of the model or of fields as methods,
    validators that take ``info``, or ``extra="allow"`` is rejected when it is first used, by ``crud_router``, ``SparseSpec`` or a service.
    """

    always_fields: ClassVar[Sequence[str]] = ()
    """Fields that every answer has: ``("id",)``."""
    include_fields: ClassVar[Sequence[str]] = ()
    """Fields that an answer has only if ``include`` names them, such as relationships: ``("author", "tags")``."""

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Show which fields every answer has."""
        document = handler(core_schema)
        if handler.mode == "serialization":
            shape = handler.resolve_ref_schema(document)
            shape.pop("required", None)
            if cls.always_fields:
                shape["required"] = [name for name, field in choices_of(cls).names.items() if field in cls.always_fields]
        return document


class Choices:
    """What may be asked for of a SparseModel: the fields by their *names* in JSON."""

    def __init__(self, schema: type[SparseModel]) -> None:
        fields = {name: info for name, info in schema.model_fields.items() if info.exclude is not True}
        self.names = {info.serialization_alias or name: name for name, info in fields.items()}
        for option in ("always_fields", "include_fields"):
            named: Sequence[str] = getattr(schema, option)
            if isinstance(named, str) or not fields.keys() >= set(named):
                raise ConfigurationError(f"{schema.__name__}.{option} must name fields of the schema that are shown: {', '.join(fields)}")
        if both := sorted({*schema.always_fields} & {*schema.include_fields}):
            raise ConfigurationError(f"{schema.__name__}: {', '.join(both)} cannot be in always_fields and in include_fields")
        if not fields.keys() - {*schema.include_fields}:
            raise ConfigurationError(f"{schema.__name__} needs a field that is not in include_fields")
        if len(self.names) < len(fields) or any("," in name or not name for name in self.names):
            raise ConfigurationError(f"{schema.__name__}: each field needs a name of its own in JSON, without commas")
        check_separable(schema)
        self.always = frozenset(schema.always_fields)
        self.included = {name: field for name, field in self.names.items() if field in schema.include_fields}
        self.plain = {name: field for name, field in self.names.items() if field not in schema.include_fields}
        self.options = {"fields": self.plain, "include": self.included}
        self.default = frozenset(self.plain.values())
        self.whole = frozenset(self.names.values())

    def asked(self, fields: str | None, include: str | None) -> frozenset[str]:
        """Return the fields that *fields* and *include*, which are checked, ask for."""
        plain = self.default if fields is None else self.always.union(self.plain[name] for name in fields.split(","))
        return plain if include is None else plain.union(self.included[name] for name in include.split(","))


@lru_cache(maxsize=512)
def choices_of(schema: type[SparseModel]) -> Choices:
    """Return what may be asked for of *schema*.

    Raises:
        ConfigurationError: A field may depend on another one, or ``always_fields`` or ``include_fields`` name no fields.
    """
    return Choices(schema)


class SparseSpec(Parameters, Generic[SchemaT]):
    """The parameters ``fields`` and ``include`` of an answer: ``query: Annotated[SparseSpec[ItemRead], Query()]``.

    Give it to a service in the place of the schema: ``get_as(query, id)``. In a list it is part of the declaration:
    ``class ItemQuery(SparseSpec[ItemRead], QuerySpec[Item])``, and ``page_as(ItemRead, query)`` answers what *query* asks for. In Python
    it is ``SparseSpec[ItemRead](fields="id,name", include="author")``.

    Names are separated by commas. A name that is unknown, empty or there twice is rejected. Without ``include_fields`` there is no
    ``include``.

    Raises:
        ConfigurationError: When the class is made: the schema is no SparseModel, or one whose fields depend on each other.
        ValidationError: When an instance is made: a name is not allowed, or a parameter is not declared.
    """

    fields: str | None = None
    """The fields of the answer. None: all but ``include_fields``."""
    include: str | None = None
    """Which of ``include_fields`` the answer has. None: none."""

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """Show what may be asked for."""
        schema = cls.schema_class()
        if schema is not None:
            if not issubclass(schema, SparseModel):
                raise ConfigurationError(f"{schema.__name__} is answered as a whole: derive it from SparseModel")
            fields, choices = cls.own_fields(), choices_of(schema)
            for name, names in choices.options.items():
                if not names:
                    del fields[name]
                    continue
                describe(fields[name], names)
                if not allows(names, fields[name].default):
                    raise ConfigurationError(f"{cls.__name__}: the default of {name} takes each of {', '.join(names)} once")
        super().__pydantic_init_subclass__(**kwargs)
        cls.note_parameters()

    @classmethod
    def schema_class(cls) -> type[SchemaT] | None:
        """Return the schema of the answer, or None for a class without one."""
        return argument_of(cls, SparseSpec)

    @classmethod
    def choices(cls) -> Choices:
        """Return what may be asked for. Raises ConfigurationError for a class without a schema."""
        schema = cls.schema_class()
        if schema is None:
            raise ConfigurationError(f"{cls.__name__} needs a schema: SparseSpec[ItemRead]")
        return choices_of(cast("type[SparseModel]", schema))

    @field_validator("fields", "include", check_fields=False)
    @classmethod
    def check_names(cls, value: str | None, info: ValidationInfo) -> str | None:
        """Raise ValueError for a name that may not be asked for, or that comes twice."""
        allowed = cls.choices().options[info.field_name or ""]
        if not allows(allowed, value):
            raise PydanticCustomError("invalid_fields", cast("Any", f"takes each of {', '.join(allowed)} once, separated by commas"))
        return value

    def asked(self) -> frozenset[str]:
        """Return the fields of the answer."""
        return self.choices().asked(self.fields, getattr(self, "include", None))

    @property
    def is_given(self) -> bool:
        """Whether the client asked for anything."""
        return self.fields is not None or getattr(self, "include", None) is not None


ReadAs: TypeAlias = type[SchemaT] | SparseSpec[SchemaT]
"""How rows are shown: a schema, or some fields of one."""


def is_sparse(shown: ReadAs[Any]) -> bool:
    """Return whether *shown* leaves fields out, or may."""
    return isinstance(shown, SparseSpec) or issubclass(shown, SparseModel)


def schema_of(shown: ReadAs[SchemaT]) -> type[SchemaT]:
    """Return the schema of *shown*. Raises ConfigurationError for a spec without one."""
    if not isinstance(shown, SparseSpec):
        return shown
    shown.choices()
    return cast("type[SchemaT]", shown.schema_class())


def hidden_by(shown: ReadAs[Any]) -> frozenset[str]:
    """Return the names in JSON of the fields that *shown* leaves out."""
    if isinstance(shown, SparseSpec):
        choices, asked = shown.choices(), shown.asked()
    elif issubclass(shown, SparseModel):
        choices = choices_of(shown)
        asked = choices.default
    else:
        return frozenset()
    return frozenset(name for name, field in choices.names.items() if field not in asked)


def chosen_by(query: object, shown: ReadAs[SchemaT]) -> ReadAs[SchemaT]:
    """Return what *query* asks for of *shown*, if it chooses fields.

    Raises:
        ConfigurationError: *query* chooses fields of another schema.
    """
    if not isinstance(query, SparseSpec) or isinstance(shown, SparseSpec):
        return shown
    chosen = cast("SparseSpec[SchemaT]", query)
    if chosen.schema_class() is not shown:
        name = type(cast("object", query)).__name__
        raise ConfigurationError(f"{name} chooses fields of another schema than {shown.__name__}, which the answer shows")
    return chosen


def with_choice(query: type[BaseModel], schema: type[BaseModel]) -> type[BaseModel]:
    """Return *query* with the parameters ``fields`` and ``include``, if *schema* is a SparseModel.

    Raises:
        ConfigurationError: *query* chooses fields of another schema.
    """
    own = argument_of(query, SparseSpec)
    if own not in {None, schema}:
        raise ConfigurationError(f"{query.__name__} chooses fields of another schema than {schema.__name__}, which the list shows")
    if own is schema or not issubclass(schema, SparseModel):
        return query
    if taken := sorted(SparseSpec.model_fields.keys() & query.model_fields.keys()):
        raise ConfigurationError(f"{query.__name__} has {', '.join(taken)} already, which would choose fields of {schema.__name__}")
    bases: Any = (SparseSpec.__class_getitem__(schema), query)
    return create_model(query.__name__, __base__=bases, __module__=query.__module__)


def allows(names: Mapping[str, str], value: str | None) -> bool:
    """Return whether *value* is None, or has only *names*, each once."""
    parts = [] if value is None else value.split(",")
    return len(set(parts)) == len(parts) and names.keys() >= set(parts)


def describe(info: FieldInfo, names: Mapping[str, str]) -> None:
    """Show in OpenAPI which *names* a parameter takes."""
    one = "|".join(re.sub(r"[.^$*+?()\[\]{}|\\]", r"\\\g<0>", name) for name in names)
    info.description = f"{', '.join(names)}, separated by commas"
    info.json_schema_extra = {"pattern": f"^({one})(,({one}))*$"}
