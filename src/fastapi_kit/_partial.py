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

ORIGINAL = "__partial_of__"
INCOMPLETE = "incomplete"


def partial_model(schema: type[SchemaT], *, name: str = "") -> type[SchemaT]:
    """Return *schema* with every field optional: the PATCH form of a create schema. Types and validators stay.

    As a decorator, type checkers know the form as the class that is decorated:

        @partial_model
        class NoteUpdate(NoteCreate): ...

    The form is a subclass in the module of *schema*. A field that was not sent has no value: reading it raises AttributeError, and
    it is in no dump. No default takes its place. An explicit null is rejected unless the field accepts None. Nested models are sent
    whole. Computed fields are in no dump.

    A model validator of mode ``after``, or ``model_post_init``, stops where it reads a field that was not sent. ``CRUDService.update``
    and ``validate_merged`` apply it to the stored row with the change. Validators of mode ``before`` and ``wrap``, and serializers,
    must accept an incomplete model. A field whose validator reads ``info.data["other"]`` is rejected if ``other`` was not sent.

    Each call creates a class. Call it once, beside the schema.

    Args:
        schema: The schema whose fields become optional.
        name: The name of the new class. Without it the class has the name of *schema*, whose place it takes.

    Raises:
        ConfigurationError: *schema* is a RootModel, a mapped class (SQLModel's ``table=True``), or generic without parameters.
    """
    if issubclass(schema, RootModel):
        raise ConfigurationError(f"{schema.__name__} is a RootModel: it has no fields to leave out")
    if hasattr(schema, "__mapper__"):
        raise ConfigurationError(f"{schema.__name__} is a mapped class: give the schema without table=True")
    if schema.__pydantic_generic_metadata__["parameters"]:
        raise ConfigurationError(f"{schema.__name__} is generic: give its parameters, as in partial_model({schema.__name__}[int])")
    schema.model_rebuild()
    namespace: dict[str, Any] = {"omit_unsent": field_validator("*", mode="wrap")(omit_unsent), ORIGINAL: schema}
    for key, each in schema.__pydantic_decorators__.model_validators.items():
        if each.info.mode == "after":
            namespace[key] = model_validator(mode="after")(stop_at_unsent(getattr(each.func, "__func__", each.func)))
    if schema.model_post_init is not BaseModel.model_post_init:
        namespace["model_post_init"] = stop_at_unsent(schema.model_post_init)
    fields: dict[str, Any] = {field: optional(info) for field, info in schema.model_fields.items()}
    partial = create_model(name or schema.__name__, __base__=schema, __module__=schema.__module__, __validators__=namespace, **fields)
    if not name:
        partial.__qualname__, partial.__doc__ = schema.__qualname__, schema.__doc__
    if partial.model_computed_fields:
        partial.__pydantic_decorators__.computed_fields.clear()
        partial.model_rebuild(force=True)
    return partial


def optional(info: FieldInfo) -> Any:
    """Return the field with MISSING as its default. The default is validated, so that omit_unsent can leave it out."""
    declared = info.asdict()
    replaced = {"default", "default_factory", "validate_default"}
    attributes = {key: value for key, value in declared["attributes"].items() if value is not None and key not in replaced}
    field = Field(**attributes, default=MISSING, validate_default=True)
    return cast("Any", Annotated)[(declared["annotation"], *declared["metadata"], field)]


def omit_unsent(cls: type[BaseModel], value: object, handler: ValidatorFunctionWrapHandler, info: ValidationInfo) -> object:
    """Leave out a field that was not sent. Runs first, so the validators of the schema are not called."""
    if value is MISSING:
        raise PydanticOmit
    if isinstance(info.context, Known) and info.field_name in info.context.names:
        return value
    try:
        return handler(value)
    except KeyError as error:
        # A validator reads another field in info.data.
        if error.args[:1] and error.args[0] in cls.model_fields and error.args[0] not in info.data:
            raise PydanticCustomError(INCOMPLETE, "Can be changed together with {field} only", {"field": str(error.args[0])}) from None
        raise


def stop_at_unsent(rule: Callable[..., Any]) -> Callable[..., Any]:
    """Return *rule*, which ends where it reads a field of the model that was not sent."""

    @wraps(rule)
    def apply(self: BaseModel, *args: Any) -> Any:
        try:
            return rule(self, *args)
        except AttributeError as error:
            if error.obj is self and error.name in type(self).model_fields and error.name not in self.__dict__:
                return self
            raise

    return apply


VALIDATORS = {AfterValidator: "after", BeforeValidator: "before", PlainValidator: "plain", WrapValidator: "wrap"}


@lru_cache(maxsize=512)
def has_rules_across_fields(form: type[BaseModel]) -> bool:
    """Return whether *form* comes from partial_model and its schema has rules that may read several fields.

    These are model validators, ``model_post_init``, and validators of fields that take ``info``. Only they need ``validate_merged``.
    """
    original = getattr(form, ORIGINAL, None)
    if original is None:
        return False
    decorators = form.__pydantic_decorators__
    declared = [(each.func, each.info.mode) for name, each in decorators.field_validators.items() if name != "omit_unsent"]
    annotations = [each for info in form.model_fields.values() for each in info.metadata if type(each) in VALIDATORS]
    return (
        bool(decorators.model_validators)
        or original.model_post_init is not BaseModel.model_post_init
        or any(takes_info(func, mode) for func, mode in declared)
        or any(takes_info(each.func, VALIDATORS[type(each)]) for each in annotations)
    )


def takes_info(validator: Callable[..., Any], mode: str) -> bool:
    try:
        return len(signature(validator).parameters) > (2 if mode == "wrap" else 1)
    except ValueError:
        # Functions written in C may have no signature. They take no info.
        return False


# --- The row that a change makes ---


def validate_merged(changes: BaseModel, current: Mapping[str, object]) -> None:
    """Apply the rules of a partial form to *current* with *changes* in it. Does nothing if ``has_rules_across_fields`` is false.

    A rule is not applied if it reads a field that *current* does not have, or a stored value that the schema itself rejects (it may
    be older than the schema). Validators are called again with the values that they have returned.

    Args:
        changes: An instance of the partial form.
        current: The values of the row, by the names of the schema's fields.

    Raises:
        UserInputError: A rule rejects the row. The error names the wrong fields, or all sent fields if the rule names none. It
            contains no value.
    """
    form = type(changes)
    sent = {name: getattr(changes, name) for name in changes.model_fields_set if name in form.model_fields}
    if not sent or not has_rules_across_fields(form):
        return
    stored = {name: current[name] for name in form.model_fields if name in current and name not in sent}
    errors = errors_of(form, stored | sent)
    if errors:
        rejected = rejected_alone(form, stored)
        readable = {name: value for name, value in stored.items() if name not in rejected}
        errors = errors_of(form, readable | sent, known=rejected_alone(form, sent))
    if errors:
        raise UserInputError("The change does not go together with what is stored.", errors=field_errors(form, errors, sent))


class Known(dict[str, object]):
    """An empty validation context for the validators of a schema. The fields *names* are not validated."""

    def __init__(self, names: Set[str]) -> None:
        super().__init__()
        self.names = names


def errors_of(form: type[BaseModel], values: Mapping[str, object], *, known: Set[str] = frozenset()) -> Sequence[ErrorDetails]:
    given = {key_of(form, name): value for name, value in values.items()}
    try:
        # Not form.model_validate: SQLModel's has no by_name.
        TypeAdapter(form).validate_python(given, strict=False, by_alias=True, by_name=True, context=Known(known))
    except ValidationError as error:
        return error.errors(include_url=False, include_input=False)
    return []


def key_of(form: type[BaseModel], name: str) -> str:
    """Return the name that clients use for the field."""
    alias = form.model_fields[name].validation_alias
    first = alias.choices[0] if isinstance(alias, AliasChoices) else alias
    return first if isinstance(first, str) else name


def rejected_alone(form: type[BaseModel], values: Mapping[str, object]) -> Set[str]:
    """Return the fields that the schema rejects whatever the others are. Some types do not accept what they return, such as Json."""
    names = {key_of(form, name): name for name in values}
    rejected = (error["loc"][:1] for error in errors_of(form, values) if error["type"] != INCOMPLETE)
    return {names[key] for loc in rejected for key in loc if isinstance(key, str) and key in names}


def field_errors(form: type[BaseModel], errors: Sequence[ErrorDetails], sent: Iterable[str]) -> list[FieldError]:
    all_sent = [(key_of(form, name),) for name in sent]
    return [
        FieldError(loc, error["type"], safe_message(error))
        for error in errors
        for loc in ([error["loc"][:1]] if error["loc"] else all_sent)
    ]


KNOWN_TYPES = frozenset(get_args(ErrorType))


def safe_message(error: ErrorDetails) -> str:
    """Return the text of an error if it cannot contain a value."""
    declared = error.get("ctx", {}).get("error")
    if isinstance(declared, UserInputError) and declared.detail:
        return declared.detail
    return error["msg"] if "ctx" not in error and error["type"] not in KNOWN_TYPES else "is not valid"
