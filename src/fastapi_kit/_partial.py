"""The PATCH form of a schema, and its rules on the row that a PATCH makes."""

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from functools import lru_cache, wraps
from inspect import signature
from typing import Annotated, Any, TypeVar, cast, get_args

from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    BeforeValidator,
    Field,
    PlainValidator,
    RootModel,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    create_model,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import MISSING, ErrorDetails, PydanticCustomError, PydanticOmit
from pydantic_core.core_schema import ErrorType

from fastapi_kit.errors import ConfigurationError, FieldError, UserInputError

__all__ = ["has_rules_across_fields", "partial_model", "validate_merged"]

SchemaT = TypeVar("SchemaT", bound=BaseModel)

_ORIGINAL = "__partial_of__"


def partial_model(schema: type[SchemaT], *, name: str | None = None) -> type[SchemaT]:
    """Return *schema* with every field optional, types and validators kept: the PATCH form of a create schema.

    A subclass named *name*, by default ``Partial`` and the schema's, in the schema's module. What is not sent is not there: no default
    takes its place, reading it raises AttributeError, and no dump has it. An explicit null is refused where the field does not take
    None. Nested models stay whole. Computed fields are in no dump.

    A rule over several fields (a model validator, ``model_post_init``) ends where it reads a field that was not sent: it is not applied.
    ``CRUDService.update`` applies it to the row with the change in it, as ``validate_merged`` does. A field that a validator compares with
    another one, by ``info.data["other"]``, is refused without it. Serializers must expect an incomplete model.

    Each call makes a class: make it once, beside the schema. Raises ConfigurationError for a RootModel, for a mapped class (SQLModel's
    ``table=True``) and for a generic model without its parameters.
    """
    if issubclass(schema, RootModel):
        raise ConfigurationError(f"{schema.__name__} is a RootModel: it has no fields to leave out")
    if hasattr(schema, "__mapper__"):
        raise ConfigurationError(f"{schema.__name__} is a mapped class: give the schema without table=True")
    if schema.__pydantic_generic_metadata__["parameters"]:
        raise ConfigurationError(f"{schema.__name__} is generic: give its parameters, as in partial_model({schema.__name__}[int])")
    schema.model_rebuild()
    namespace: dict[str, Any] = {
        "_omit_unsent": field_validator("*", mode="wrap")(_omit_unsent),
        _ORIGINAL: schema,
        **_rules_of_what_is_there(schema),
    }
    fields: dict[str, Any] = {field: _optional(info) for field, info in schema.model_fields.items()}
    partial = create_model(
        name or f"Partial{schema.__name__}", __base__=schema, __module__=schema.__module__, __validators__=namespace, **fields
    )
    if partial.model_computed_fields:
        partial.__pydantic_decorators__.computed_fields.clear()
        partial.model_rebuild(force=True)
    return partial


_DEFAULTS = {"default", "default_factory", "validate_default"}


def _optional(info: FieldInfo) -> Any:
    """Return the definition of a field whose default is validated, so that _omit_unsent can leave it out."""
    declared = info.asdict()
    attributes = {key: value for key, value in declared["attributes"].items() if value is not None and key not in _DEFAULTS}
    field = Field(**attributes, default=MISSING, validate_default=True)
    return cast("Any", Annotated)[(declared["annotation"], *declared["metadata"], field)]


_INCOMPLETE = "incomplete"


def _omit_unsent(cls: type[BaseModel], value: object, handler: ValidatorFunctionWrapHandler, info: ValidationInfo) -> object:
    """Outermost of a field's validators: those of the schema never see that it was not sent."""
    if value is MISSING:
        raise PydanticOmit
    if isinstance(info.context, _Known) and info.field_name in info.context.names:
        return value
    try:
        return handler(value)
    except KeyError as error:
        # A validator looks up another field in info.data.
        if error.args[:1] and error.args[0] in cls.model_fields and error.args[0] not in info.data:
            raise PydanticCustomError(_INCOMPLETE, "Can be changed together with {field} only", {"field": str(error.args[0])}) from None
        raise


# --- Rules over several fields ---


def _rules_of_what_is_there(schema: type[BaseModel]) -> Mapping[str, Any]:
    """Return the rules of *schema*, each of which ends where it reads a field that is not there."""
    rules: dict[str, Any] = {}
    for name, each in schema.__pydantic_decorators__.model_validators.items():
        function = getattr(each.func, "__func__", each.func)
        if each.info.mode == "after":
            rules[name] = model_validator(mode="after")(_ending_at_unsent(function))
        elif each.info.mode == "wrap" and function is not each.func:
            method: Any = classmethod(_wrap_ending_at_unsent(function))
            rules[name] = model_validator(mode="wrap")(method)
    if schema.model_post_init is not BaseModel.model_post_init:
        rules["model_post_init"] = _ending_at_unsent(schema.model_post_init)
    return rules


def _ending_at_unsent(rule: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(rule)
    def judged(self: BaseModel, *args: Any) -> Any:
        try:
            return rule(self, *args)
        except AttributeError as error:
            if _is_of_unsent(error, self):
                return self
            raise

    return judged


def _wrap_ending_at_unsent(rule: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(rule)
    def judged(cls: type[BaseModel], value: object, handler: ValidatorFunctionWrapHandler, *args: Any) -> Any:
        made: list[object] = []

        def keep(value: object) -> object:
            made.append(handler(value))
            return made[-1]

        try:
            return rule(cls, value, keep, *args)
        except AttributeError as error:
            if made and _is_of_unsent(error, made[-1]):
                return made[-1]
            raise

    return judged


def _is_of_unsent(error: AttributeError, model: object) -> bool:
    if not isinstance(model, BaseModel) or error.obj is not model:
        return False
    return error.name in type(model).model_fields and error.name not in model.__dict__


@lru_cache(maxsize=512)
def has_rules_across_fields(form: type[BaseModel]) -> bool:
    """Return whether *form* is one of partial_model whose schema has rules that may read several fields.

    These are model validators, ``model_post_init``, and validators of fields that take ``info``: only they need ``validate_merged``.
    """
    original = getattr(form, _ORIGINAL, None)
    if original is None:
        return False
    decorators = form.__pydantic_decorators__
    return (
        bool(decorators.model_validators)
        or original.model_post_init is not BaseModel.model_post_init
        or any(_takes_info(each.func, each.info.mode) for name, each in decorators.field_validators.items() if name != "_omit_unsent")
        or any(_takes_info(each.func, mode) for info in form.model_fields.values() for each, mode in _annotated_validators(info))
    )


_MODES = {AfterValidator: "after", BeforeValidator: "before", PlainValidator: "plain", WrapValidator: "wrap"}


def _annotated_validators(info: FieldInfo) -> Iterable[tuple[Any, str]]:
    return ((each, _MODES[type(each)]) for each in info.metadata if type(each) in _MODES)


def _takes_info(validator: Callable[..., Any], mode: str) -> bool:
    try:
        given = len(signature(validator).parameters)
    except ValueError:
        # A function of C has no signature, and takes no info.
        return False
    return given > (2 if mode == "wrap" else 1)


# --- The row that a change makes ---


def validate_merged(changes: BaseModel, current: Mapping[str, object]) -> None:
    """Judge the rules of a partial form on *current* with *changes* in it. Does nothing where ``has_rules_across_fields`` is false.

    *current* are the values of the row by the names of the schema's fields. A field that the row does not have is left out, and a rule
    that reads it is not applied; so is one that reads a stored value which the schema refuses by itself, such as one from before the rule.
    A validator is called again with what it has returned.

    Raises:
        UserInputError: it names the fields at fault as clients call them, or all that were sent where a rule names none. It shows no value.
    """
    form = type(changes)
    sent = {name: getattr(changes, name) for name in changes.model_fields_set if name in form.model_fields}
    if not sent or not has_rules_across_fields(form):
        return
    stored = {name: current[name] for name in form.model_fields if name in current and name not in sent}
    errors = _errors_of(form, stored | sent)
    if errors:
        unreadable = _refused_alone(form, stored)
        readable = {name: value for name, value in stored.items() if name not in unreadable}
        errors = _errors_of(form, readable | sent, known=_refused_alone(form, sent))
    if errors:
        raise UserInputError("The change does not go together with what is stored.", errors=_field_errors(form, errors, sent))


class _Known(dict[str, object]):
    """A context that looks like none to the validators of a schema. Fields of these *names* are not validated."""

    def __init__(self, names: Set[str]) -> None:
        super().__init__()
        self.names = names


def _errors_of(form: type[BaseModel], values: Mapping[str, object], *, known: Set[str] = frozenset()) -> Sequence[ErrorDetails]:
    given = {_key_of(form, name): value for name, value in values.items()}
    try:
        # SQLModel's own model_validate() knows no by_name.
        TypeAdapter(form).validate_python(given, strict=False, by_alias=True, by_name=True, context=_Known(known))
    except ValidationError as error:
        return error.errors(include_url=False, include_input=False)
    return []


def _key_of(form: type[BaseModel], name: str) -> str:
    """Return what clients call the field."""
    alias = form.model_fields[name].validation_alias
    first = alias.choices[0] if isinstance(alias, AliasChoices) else alias
    return first if isinstance(first, str) else name


def _refused_alone(form: type[BaseModel], values: Mapping[str, object]) -> Set[str]:
    """Return the fields whose values the schema refuses whatever the others are: some types do not read what they give, such as Json."""
    names = {_key_of(form, name): name for name in values}
    refused = (error["loc"][:1] for error in _errors_of(form, values) if error["type"] != _INCOMPLETE)
    return {names[key] for loc in refused for key in loc if isinstance(key, str) and key in names}


def _field_errors(form: type[BaseModel], errors: Sequence[ErrorDetails], sent: Iterable[str]) -> list[FieldError]:
    everything = [(_key_of(form, name),) for name in sent]
    return [
        FieldError(loc, error["type"], _text_of(error)) for error in errors for loc in ([error["loc"][:1]] if error["loc"] else everything)
    ]


_KNOWN_TYPES = frozenset(get_args(ErrorType))


def _text_of(error: ErrorDetails) -> str:
    """Return the text of an error, if it cannot hold a value."""
    declared = error.get("ctx", {}).get("error")
    if isinstance(declared, UserInputError) and declared.detail:
        return declared.detail
    return error["msg"] if "ctx" not in error and error["type"] not in _KNOWN_TYPES else "is not valid"
