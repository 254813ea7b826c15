"""The rules of a partial model, on the row that a PATCH makes."""

from collections.abc import Callable, Mapping
from datetime import date
from typing import Annotated, Any, Literal, Self

import pytest
from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    Json,
    TypeAdapter,
    ValidationInfo,
    create_model,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError
from sqlmodel import SQLModel

from fastapi_kit.errors import FieldError, UserInputError
from fastapi_kit.schemas import Email, NonBlank, Password, has_rules_across_fields, partial_model, validate_merged


class Twice(BaseModel):
    pw: str
    again: str

    @field_validator("again")
    @classmethod
    def _same(cls, value: str, info: ValidationInfo) -> str:
        if value != info.data["pw"]:
            raise ValueError("differ")
        return value


class Span(BaseModel):
    """One rule of each kind."""

    model_config = ConfigDict(extra="forbid")

    name: NonBlank = "x"
    low: int
    high: int = Field(alias="upperEnd")
    top: int = Field(default=100, validation_alias=AliasChoices("t", "ceiling"))
    secret: Password

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.high < self.low:
            raise UserInputError("The end lies before the beginning.")
        return self

    @model_validator(mode="wrap")
    @classmethod
    def _below_the_top(cls, data: object, handler: Callable[[object], Self]) -> Self:
        made = handler(data)
        if hasattr(made, "high") and hasattr(made, "top") and made.high > made.top:
            raise PydanticCustomError("too_high", "lies above the top")
        return made

    @model_validator(mode="before")
    @classmethod
    def _not_both_zero(cls, data: dict[str, object]) -> dict[str, object]:
        if data.get("low") == data.get("upperEnd") == 0:
            raise ValueError(f"{data} is nothing")
        return data

    @model_validator(mode="after")
    def _secret_is_no_name(self) -> Self:
        if self.secret.get_secret_value() == self.name:
            raise ValueError("is the name")
        return self

    @field_validator("top")
    @classmethod
    def _top_above_low(cls, top: int, info: ValidationInfo) -> int:
        if "low" in info.data and top < info.data["low"]:
            raise ValueError(f"{top} is too low")
        return top

    def model_post_init(self, context: object, /) -> None:
        if self.low == 13 and self.name == "unlucky":
            raise UserInputError("Not that one.")


SpanUpdate = partial_model(Span, name="SpanUpdate")
ROW: dict[str, object] = {"id": 1, "name": "x", "low": 1, "high": 2, "top": 100, "hashed_secret": "$2b$"}


def judge(form: type[BaseModel], sent: object, row: Mapping[str, object]) -> list[FieldError]:
    """Return the errors of the row with the change in it."""
    changes = form.model_validate(sent)
    try:
        validate_merged(changes, row)
    except UserInputError as error:
        return list(error.errors)
    return []


@pytest.mark.parametrize(
    ("stored", "sent", "expected"),
    [
        ({}, {"upperEnd": 0}, [("upperEnd", "value_error", "The end lies before the beginning.")]),
        ({}, {"low": 3}, [("low", "value_error", "The end lies before the beginning.")]),
        ({}, {"name": "y", "low": 3}, [(name, "value_error", "The end lies before the beginning.") for name in ("low", "name")]),
        ({}, {"upperEnd": 101}, [("upperEnd", "too_high", "lies above the top")]),
        ({}, {"t": 0}, [("t", "value_error", "is not valid")]),
        ({"low": 0}, {"upperEnd": 0}, [("upperEnd", "value_error", "is not valid")]),
        ({"name": "unlucky"}, {"low": 13, "upperEnd": 14}, [(name, "value_error", "Not that one.") for name in ("low", "upperEnd")]),
    ],
)
def test_a_rule_holds_for_what_is_sent_and_stored_together(
    stored: dict[str, object], sent: dict[str, Any], expected: list[tuple[str, str, str]]
) -> None:
    """Rules of every mode apply. The errors have the field names of the client and contain no value."""
    found = [(error.loc[0], error.code, error.message) for error in judge(SpanUpdate, sent, {**ROW, **stored})]

    assert sorted(found) == sorted(expected)


def test_the_error_is_a_422_with_a_text_of_its_own() -> None:
    """A broken rule raises UserInputError."""
    with pytest.raises(UserInputError, match="The change does not go together with what is stored"):
        validate_merged(SpanUpdate.model_validate({"low": 3}), ROW)


@pytest.mark.parametrize(
    "sent",
    [{}, {"low": 2}, {"upperEnd": 100}, {"low": 200, "upperEnd": 300, "ceiling": 300}, {"name": "y"}, {"secret": "a secret of mine"}],
)
def test_a_change_that_keeps_the_rules_passes(sent: dict[str, Any]) -> None:
    """No error is raised, with and without fields that the row has."""
    assert judge(SpanUpdate, sent, ROW) == []


def test_a_rule_whose_field_is_not_on_the_row_is_not_applied() -> None:
    """A password is stored as a hash under another name. The other rules are still applied."""
    assert judge(SpanUpdate, {"name": "a secret of mine"}, ROW) == []
    assert judge(SpanUpdate, {"secret": "a secret of mine"}, {**ROW, "name": "a secret of mine"}) != []
    assert judge(SpanUpdate, {"upperEnd": 0, "secret": "a secret of mine"}, ROW) != []


def test_a_stored_value_that_the_schema_rejects_is_ignored() -> None:
    """It may be older than the schema. Rules that do not read it are applied, and no error mentions it."""
    old = {**ROW, "name": " ", "top": None}

    assert judge(SpanUpdate, {"low": 2}, old) == []
    assert [error.loc for error in judge(SpanUpdate, {"low": 3}, old)] == [("low",)]


def test_a_type_that_does_not_accept_its_own_value_works() -> None:
    """A JSON string becomes a list. The rule reads the list, whether it is sent or stored."""

    class Create(BaseModel):
        words: Json[list[str]]
        most: int

        @model_validator(mode="after")
        def _few(self) -> Self:
            if len(self.words) > self.most:
                raise ValueError("too many")
            return self

    Update = partial_model(Create)  # noqa: N806
    row = {"words": ["a"], "most": 1}

    assert judge(Update, {"words": '["a"]'}, row) == []
    assert [error.loc for error in judge(Update, {"words": '["a", "b"]'}, row)] == [("words",)]
    assert judge(Update, {"most": 2}, row) == []


def test_a_comparison_by_info_is_judged_where_the_other_field_changes() -> None:
    """The error names the field whose validator compares, although another field was sent."""
    Update = partial_model(Twice)  # noqa: N806

    assert [(error.loc, error.code) for error in judge(Update, {"pw": "x"}, {"pw": "y", "again": "y"})] == [(("again",), "value_error")]
    assert judge(Update, {"pw": "x", "again": "x"}, {"pw": "y", "again": "y"}) == []


def test_nested_models_are_read_from_what_is_stored() -> None:
    """A JSON column contains dicts. Stored values are read without strict mode."""

    class Place(BaseModel):
        floor: int

    class Create(BaseModel):
        model_config = ConfigDict(strict=True)
        place: Place
        level: Literal["low", "high"]
        day: date

        @model_validator(mode="after")
        def _fits(self) -> Self:
            if self.level == "low" and self.place.floor > 3:
                raise ValueError("is high")
            return self

    Update = partial_model(Create)  # noqa: N806
    row = {"place": {"floor": 5}, "level": "high", "day": "2024-01-01"}

    assert [error.loc for error in judge(Update, {"level": "low"}, row)] == [("level",)]
    assert judge(Update, {"place": {"floor": 1}}, row) == []


def test_a_schema_of_sqlmodel_is_judged() -> None:
    """SQLModel schemas work as Pydantic schemas do."""

    class Create(SQLModel):
        low: int
        high: int

        @model_validator(mode="after")
        def _ordered(self) -> Self:
            if self.high < self.low:
                raise ValueError("wrong order")
            return self

    Update = partial_model(Create)  # noqa: N806

    assert [error.loc for error in judge(Update, {"high": 0}, {"low": 1, "high": 2})] == [("high",)]
    assert judge(Update, {"high": 3}, {"low": 1, "high": 2}) == []


def test_keys_of_the_client_are_not_repeated() -> None:
    """The location of an error ends at the field."""

    class Create(BaseModel):
        sizes: dict[str, int]
        most: int

        @field_validator("most")
        @classmethod
        def _all_below(cls, most: int, info: ValidationInfo) -> int:
            TypeAdapter(dict[str, Annotated[int, Field(le=most)]]).validate_python(info.data.get("sizes", {}))
            return most

    error = judge(partial_model(Create), {"sizes": {"my secret": 7}}, {"sizes": {}, "most": 3})

    assert "secret" not in repr(error)
    assert {each.loc for each in error} == {("most",)}


def test_a_bug_in_a_rule_is_not_the_clients_error() -> None:
    """An AttributeError of the rule itself is raised as it is."""

    class Create(BaseModel):
        a: int
        b: int

        @model_validator(mode="after")
        def _broken(self) -> Self:
            return self.nonsense  # type: ignore[attr-defined, no-any-return]

    with pytest.raises(AttributeError, match="nonsense"):
        judge(partial_model(Create), {}, {}) or judge(partial_model(Create), {"a": 1}, {"b": 1})


def _with_info(value: int, info: ValidationInfo) -> int:
    return value


class Ruled(BaseModel):
    a: int

    @model_validator(mode="after")
    def _rule(self) -> Self:
        return self


class Posted(BaseModel):
    a: int

    def model_post_init(self, context: object, /) -> None: ...


class OneField(BaseModel):
    a: Annotated[NonBlank, AfterValidator(str.lower)] = "x"
    email: Email
    secret: Password

    @field_validator("a", mode="wrap")
    @classmethod
    def _alone(cls, value: object, handler: Callable[[object], object]) -> object:
        return handler(value)


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        (Span, True),
        (Twice, True),
        (Ruled, True),
        (Posted, True),
        (create_model("Annotated", a=Annotated[int, AfterValidator(_with_info)]), True),
        (create_model("Sub", __base__=Ruled, b=int), True),
        (OneField, False),
        (create_model("Plain", a=int), False),
    ],
)
def test_whether_a_form_has_rules_across_fields(schema: type[BaseModel], expected: bool) -> None:
    """Only forms of partial_model whose rules may read several fields need the stored row."""
    form = partial_model(schema)

    assert has_rules_across_fields(form) is has_rules_across_fields(create_model("Own", __base__=form)) is expected
    assert has_rules_across_fields(partial_model(form)) is expected
    assert not has_rules_across_fields(schema)
