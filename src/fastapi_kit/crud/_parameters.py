"""Query parameters as a model that rejects every other parameter, and says which there are."""

from collections.abc import Sequence
from typing import Any, ClassVar, Self, cast

from pydantic import BaseModel, ConfigDict, ModelWrapValidatorHandler, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import InitErrorDetails, PydanticCustomError

from fastapi_kit._text import is_mapping

__all__ = ["Parameters", "argument_of"]


class Parameters(BaseModel):
    """The parameters of a request."""

    model_config = ConfigDict(extra="forbid")

    model_parameters: ClassVar[frozenset[object]] = frozenset()
    """The names and aliases of all parameters. The library sets it."""

    @classmethod
    def own_fields(cls) -> dict[str, FieldInfo]:
        """Return the fields, to change them before ``note_parameters``."""
        return cast("dict[str, FieldInfo]", cast("Any", cls).__pydantic_fields__)

    @classmethod
    def note_parameters(cls) -> None:
        """Build the class again after its fields were changed."""
        fields = cls.own_fields()
        aliases = {alias for info in fields.values() for alias in (info.alias, info.validation_alias) if isinstance(alias, str)}
        cls.model_parameters = frozenset({*fields, *aliases})
        cls.model_rebuild(force=True)

    @model_validator(mode="wrap")
    @classmethod
    def reject_unknown(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Raise ValidationError with what is allowed for each parameter that is not declared."""
        if is_mapping(data) and cls.model_config.get("extra") == "forbid" and not cls.model_parameters.issuperset(data):
            allowed = ", ".join(sorted(cls.model_fields))
            error = PydanticCustomError("unknown_parameter", cast("Any", f"is not a parameter; the parameters are {allowed or 'none'}"))
            unknown = [InitErrorDetails(type=error, loc=(str(name),), input=None) for name in data if name not in cls.model_parameters]
            raise ValidationError.from_exception_data(cls.__name__, unknown)
        return handler(data)


def argument_of(cls: type[BaseModel], generic: type[BaseModel]) -> type[Any] | None:
    """Return the class that *cls*, or a base of it, gives the class *generic* in brackets. None if there is none."""
    for base in cls.__mro__:
        arguments: Sequence[object] = getattr(base, "__pydantic_generic_metadata__", {}).get("args", ())
        if issubclass(base, generic) and arguments and isinstance(arguments[0], type) and arguments[0] is not Any:
            return arguments[0]
    return None
