"""Field types, alone and over HTTP, and partial models up to the row that a PATCH changes."""

import copy
import json
import pickle
import re
import unicodedata
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from decimal import Decimal
from functools import cache
from math import inf, nan
from typing import Annotated, Any, Generic, Literal, Self, TypeVar

import email_validator
import pytest
from fastapi import FastAPI, Form
from httpx import AsyncClient
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    EmailStr,
    Field,
    PrivateAttr,
    RootModel,
    SecretStr,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    computed_field,
    field_serializer,
    field_validator,
    model_validator,
)
from pydantic.alias_generators import to_camel
from sqlmodel import Field as SQLField
from sqlmodel import SQLModel
from tests.tables.accounts import AccountsBase, Member

from fastapi_kit import schemas
from fastapi_kit.crud import CRUDService
from fastapi_kit.db import Database
from fastapi_kit.errors import ConfigurationError, UserInputError
from fastapi_kit.handlers import register_exception_handlers
from fastapi_kit.routing import crud_router
from fastapi_kit.schemas import (
    Email,
    Int32,
    Int64,
    NonBlank,
    Password,
    Phone,
    SafeText,
    Slug,
    Username,
    UTCDatetime,
    UTCDatetimeMillis,
    partial_model,
    slugify,
)
from fastapi_kit.testing.client import app_client

TEXT_TYPES = {"SafeText": SafeText, "NonBlank": NonBlank, "Username": Username, "Slug": Slug, "Phone": Phone}
TYPES = {**TEXT_TYPES, "Email": Email, "Password": Password, "UTCDatetime": UTCDatetime, "Int32": Int32, "Int64": Int64}
VALID: dict[str, Any] = {
    "SafeText": " a\nb ",
    "NonBlank": "Ada L.",
    "Username": "ada.l",
    "Slug": "a-b-2",
    "Phone": "+4930123456",
    "Email": "ada@example.com",
    "Password": "correct horse",
    "UTCDatetime": "2026-02-03T04:05:06Z",
    "Int32": -7,
    "Int64": 2**40,
}

# The machine may be busy, and few of the texts of a pattern have the right length.
fuzz = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])


@cache
def adapter(name: str) -> TypeAdapter[Any]:
    return TypeAdapter(TYPES[name])


def verdict(kind: TypeAdapter[Any], value: object) -> Any:
    """Return the validated value, or None if it is rejected."""
    try:
        return kind.validate_python(value)
    except ValidationError:
        return None


def error_of(read: Callable[[], object]) -> ValidationError | None:
    try:
        read()
    except ValidationError as error:
        return error
    return None


def rejection(kind: TypeAdapter[Any], value: object) -> ValidationError:
    with pytest.raises(ValidationError) as caught:
        kind.validate_python(value)
    return caught.value


def code(kind: TypeAdapter[Any], value: object) -> str:
    (found,) = rejection(kind, value).errors()
    return str(found["type"])


def admits(schema: dict[str, Any], text: str) -> bool:
    """Return whether the lengths and the pattern of a JSON schema allow *text*."""
    shortest, longest = schema.get("minLength", 0), schema.get("maxLength", len(text))
    return shortest <= len(text) <= longest and re.search(schema["pattern"].replace("$", r"\Z"), text) is not None


# --- All types ---


@pytest.mark.parametrize("name", TYPES)
def test_a_type_stands_anywhere(name: str) -> None:
    """Each type works in models with defaults and None, from attributes, from strict JSON, and inside containers."""
    kind, value = TYPES[name], VALID[name]

    class Model(BaseModel):
        model_config = ConfigDict(from_attributes=True, strict=True)
        one: kind  # type: ignore[valid-type]
        other: kind | None = None  # type: ignore[valid-type]
        several: list[kind] = []  # type: ignore[valid-type]

    class Row:
        one = adapter(name).validate_python(value)

    read = Model.model_validate_json(TypeAdapter(dict[str, Any]).dump_json({"one": value, "several": [value, value]}))

    assert read.one == Row.one == Model.model_validate(Row()).one
    assert read.several == [Row.one, Row.one]
    assert read.other is None
    assert read.model_dump()["one"] == Row.one
    assert read.model_dump(mode="json")["one"] == ("**********" if name == "Password" else value)


@pytest.mark.parametrize("name", TYPES)
def test_the_json_schema_is_one_for_both_directions(name: str) -> None:
    """A type has one JSON schema for reading and writing, so a model is one component of the OpenAPI document."""
    assert adapter(name).json_schema(mode="validation") == adapter(name).json_schema(mode="serialization")


@pytest.mark.parametrize(
    ("name", "schema"),
    [
        ("Username", {"type": "string", "pattern": "^[A-Za-z][A-Za-z0-9_.-]*$", "minLength": 3, "maxLength": 32}),
        ("Slug", {"type": "string", "pattern": "^[a-z0-9]+(?:-[a-z0-9]+)*$", "minLength": 1, "maxLength": 80}),
        ("Phone", {"type": "string", "pattern": r"^\+[1-9][0-9]*$", "minLength": 8, "maxLength": 16}),
        ("SafeText", {"type": "string", "pattern": r"^[^\x00]*$"}),
        ("Email", {"type": "string", "format": "email", "maxLength": 254}),
        (
            "Password",
            {
                "type": "string",
                "format": "password",
                "writeOnly": True,
                "pattern": r"^[^\x00]*$",
                "minLength": 8,
                "maxLength": 128,
            },
        ),
        ("UTCDatetime", {"type": "string", "format": "date-time"}),
        ("Int32", {"type": "integer", "format": "int32", "minimum": -(2**31), "maximum": 2**31 - 1}),
        ("Int64", {"type": "integer", "format": "int64", "minimum": -(2**63), "maximum": 2**63 - 1}),
    ],
)
def test_the_json_schema_says_what_is_taken(name: str, schema: dict[str, Any]) -> None:
    """Patterns, lengths, formats and bounds are in the JSON schema."""
    assert adapter(name).json_schema() == schema


@pytest.mark.parametrize("name", [*TEXT_TYPES, "Password"])
@fuzz
@given(data=st.data())
def test_what_the_json_schema_admits_is_taken(name: str, data: st.DataObject) -> None:
    """Every text that the JSON schema allows is accepted."""
    schema = adapter(name).json_schema()
    text = data.draw(st.from_regex(schema["pattern"].replace("$", r"\Z"), alphabet=st.characters(exclude_categories=["Cs"])))
    assume(admits(schema, text))

    assert verdict(adapter(name), text) is not None


@pytest.mark.parametrize("name", [*TEXT_TYPES, "Password"])
@fuzz
@given(text=st.text(st.characters() | st.sampled_from("\0 \n\u200b\ud800Aa-_.+1"), max_size=140))
@example(text="abc\n")
@example(text="abcdefghi\0")
@example(text="\x1f\x1f\x1f")
def test_what_is_taken_the_json_schema_admits(name: str, text: str) -> None:
    """Every accepted text is allowed by the JSON schema. Only the white space that NonBlank trims is not in it."""
    taken = verdict(adapter(name), text)

    assert taken is None or admits(adapter(name).json_schema(), text)


ODD_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([10**5000, -(10**400), 2**31, 2**63, -(2**63) - 1, 1.5, 1e308, nan, inf, -inf, Decimal("NaN"), Decimal("1e9999")]),
    st.floats(),
    st.text(st.characters() | st.sampled_from("\0\ud800\udfff\u202e@+-.\u0130"), max_size=300),
    st.binary(max_size=300),
    st.emails(),
    st.datetimes(timezones=st.none() | st.timezones()),
    st.sampled_from([object(), str, SecretStr("\ud800" * 9), [], {}, b"\xff", "1" * 5000, "1e400", "NaN", "9" * 400]),
    st.lists(st.text(), max_size=2),
)


@pytest.mark.parametrize("name", TYPES)
@fuzz
@given(value=ODD_VALUES)
def test_nothing_but_a_validation_error_is_raised(name: str, value: object) -> None:
    """Every value is either accepted or rejected with a ValidationError that can be printed."""
    error = error_of(lambda: adapter(name).validate_python(value))

    assert error is None or (str(error) and error.errors())


@pytest.mark.parametrize("name", TYPES)
@fuzz
@given(
    text=st.text(max_size=40)
    | st.from_regex(r'\A"(\\u[0-9a-fA-F]{4}|[ -!#-\[\]-~])*"\Z')
    | st.from_regex(r"\A-?\d{1,5000}(\.\d+)?(e\d+)?\Z")
)
@example(text='"\\ud800"')
@example(text='"abcdefgh\\u0000"')
@example(text="NaN")
@example(text="[" * 10_000)
@example(text="true")
def test_nothing_but_a_validation_error_is_raised_for_json(name: str, text: str) -> None:
    """The same for JSON, strict or not, and for damaged JSON."""
    document = text.encode("utf-8", "surrogatepass")

    errors = [
        error_of(lambda: adapter(name).validate_json(document, strict=False)),
        error_of(lambda: adapter(name).validate_json(document, strict=True)),
    ]

    assert all(error is None or (str(error) and error.errors()) for error in errors)


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize(
    "text", ["a" * 10_000_000, " " * 10_000_000, "a." * 5_000_000 + "@b.de", "1" * 10_000_000], ids=["a", "blank", "mail", "1"]
)
def test_a_text_of_ten_megabytes_is_read_in_one_go(name: str, text: str) -> None:
    """Long text raises no other error. Types with a maximum length reject it."""
    taken = verdict(adapter(name), text)

    assert taken is None or name in {"SafeText", "NonBlank"}


MARK = "Zq7-marker"


@pytest.mark.parametrize("name", TYPES)
@fuzz
@given(before=st.text(max_size=20), after=st.text(max_size=300))
@example(before="", after="@localhost")
@example(before="a@", after=".de")
@example(before="", after="\ud800" * 9)
@example(before="", after="\0")
@example(before="12345", after="")
def test_an_error_does_not_echo(name: str, before: str, after: str) -> None:
    """Neither the message nor the context of an error contains the value."""
    error = error_of(lambda: adapter(name).validate_python(before + MARK + after))

    assert error is None or MARK not in repr([(found["msg"], found.get("ctx")) for found in error.errors()])


# --- Texts ---


@pytest.mark.parametrize(
    ("name", "given_", "taken"),
    [
        ("SafeText", "", ""),
        ("SafeText", "\u200b\x1f\n", "\u200b\x1f\n"),
        ("NonBlank", "\u3000 Ada\n", "Ada"),
        ("NonBlank", "\u200bAda", "\u200bAda"),
        ("NonBlank", "👩\u200d🚀", "👩\u200d🚀"),
        ("Username", "Ada_L.0-", "ada_l.0-"),
        ("Username", "a" * 32, "a" * 32),
        ("Slug", "0", "0"),
        ("Slug", "a" * 80, "a" * 80),
        ("Phone", "+6834000", "+6834000"),
        ("Phone", "+123456789012345", "+123456789012345"),
    ],
)
def test_a_good_text_is_taken(name: str, given_: str, taken: str) -> None:
    """Each type returns the expected text."""
    assert adapter(name).validate_python(given_) == taken


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("SafeText", "a\0b", "string_pattern_mismatch"),
        ("SafeText", "a\udc80", "string_unicode"),
        ("NonBlank", "", "string_too_short"),
        ("NonBlank", " \t\n\u3000", "string_too_short"),
        ("NonBlank", "\u200b\ufeff\u2800 \u3164", "string_pattern_mismatch"),
        ("NonBlank", "a\0", "string_pattern_mismatch"),
        ("Username", "ad", "string_too_short"),
        ("Username", "a" * 33, "string_too_long"),
        ("Username", "1ada", "string_pattern_mismatch"),
        ("Username", "ada ", "string_pattern_mismatch"),
        ("Username", "ada\u212a", "string_pattern_mismatch"),
        ("Slug", "a--b", "string_pattern_mismatch"),
        ("Slug", "-a", "string_pattern_mismatch"),
        ("Slug", "A", "string_pattern_mismatch"),
        ("Slug", "a" * 81, "string_too_long"),
        ("Phone", "4930123456", "string_pattern_mismatch"),
        ("Phone", "+0930123456", "string_pattern_mismatch"),
        ("Phone", "+49 30 12345", "string_pattern_mismatch"),
        ("Phone", "+1234567890123456", "string_too_long"),
        ("Phone", "+683400", "string_too_short"),
        ("Phone", "+٤٩٣٠١٢٣٤٥", "string_pattern_mismatch"),
    ],
)
def test_a_bad_text_is_rejected(name: str, text: str, expected: str) -> None:
    """The errors have Pydantic's codes."""
    assert code(adapter(name), text) == expected


@pytest.mark.parametrize("name", ["Username", "Slug", "Phone"])
def test_a_line_break_at_the_end_passes_no_engine(name: str) -> None:
    """A line break at the end is rejected, also in a model that uses Python's regex engine."""
    kind = TYPES[name]

    class Model(BaseModel):
        model_config = ConfigDict(regex_engine="python-re")
        value: kind  # type: ignore[valid-type]

    with pytest.raises(ValidationError):
        Model(value=VALID[name] + "\n")


def test_lengths_count_the_trimmed_text() -> None:
    """Further constraints apply to the trimmed text and are in the JSON schema."""
    title = TypeAdapter[str](Annotated[NonBlank, Field(max_length=5)])

    assert title.validate_python("  a b c  ") == "a b c"
    assert code(title, "abcdef") == "string_too_long"
    assert title.json_schema()["maxLength"] == 5


# --- E-mail addresses ---


@pytest.fixture(scope="module")
def slow() -> TypeAdapter[str]:
    """Email without the fast path for plain addresses."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schemas, "PLAIN_ADDRESS", r"[^\s\S]")
        return TypeAdapter(Email)


@pytest.mark.parametrize(
    ("address", "taken"),
    [
        ("ada@example.com", "ada@example.com"),
        ("  Ada.Lovelace+News@Example.COM\n", "ada.lovelace+news@example.com"),
        ("o'brien@mail.example.museum", "o'brien@mail.example.museum"),
        ("ada@Bücher.example", "ada@bücher.example"),
        ("ada@xn--bcher-kva.example", "ada@bücher.example"),
        ("ada@BU\u0308CHER.example", "ada@bücher.example"),
        ("JOSE\u0301@example.com", "josé@example.com"),
        ("\ufb01ona@example.com", "fiona@example.com"),
        ("ada@example。com", "ada@example.com"),
        ("\U0001d400da@example.com", "ada@example.com"),
        ("\u03aa\u0301da@example.com", "\u0390da@example.com"),
        ("\u0393\u03a3@example.com", "\u03b3\u03c3@example.com"),
        ("a" * 64 + "@example.com", "a" * 64 + "@example.com"),
    ],
)
def test_a_mailbox_has_one_form(address: str, taken: str) -> None:
    """R51: trimmed, NFKC, lower case, the domain as Unicode; the form stays as it is when it is read again."""
    assert adapter("Email").validate_python(address) == taken
    assert adapter("Email").validate_python(taken) == taken


@pytest.mark.parametrize(
    "address",
    [
        "",
        "ada",
        "ada@",
        "@example.com",
        "ada@example",
        "a..b@example.com",
        ".ada@example.com",
        "ada@exa_mple.com",
        "ada@-example.com",
        "ada@ab--cd.com",
        "ada@xn--zz.com",
        "ada@[127.0.0.1]",
        '"ada l"@example.com',
        "Ada <ada@example.com>",
        "<ada@example.com>",
        "ada@example.com\nbcc:eve@example.com",
        "ada\0@example.com",
        "ada\u200b@example.com",
        "ada＠example.com",
        "eve﹫example.org@example.com",
        "\u2024ada@example.com",
        "a" * 65 + "@example.com",
        "é" * 33 + "@example.com",
        f"ada@{'a' * 64}.com",
        f"ada@{'a.' * 124}com",
        "ada@app.test",
        "ada@localhost",
        "ada@box.localhost",
        "ada@example.invalid",
    ],
)
def test_what_is_not_an_address_is_rejected(address: str) -> None:
    """There is one error, with its own code, and it does not contain the address."""
    (found,) = rejection(adapter("Email"), address).errors(include_input=False, include_url=False)

    assert found in (
        {"type": "email", "loc": (), "msg": "is not a valid e-mail address"},
        {"type": "string_too_long", "loc": (), "msg": "String should have at most 254 characters", "ctx": {"max_length": 254}},
    )


ATOMS = st.text("abzABZ059!#$%&'*+/=?^_`{|}~-", min_size=1, max_size=12)
LABELS = st.text("abxnzABZ059-", min_size=1, max_size=12)
TOP_LABELS = st.sampled_from(
    [*email_validator.SPECIAL_USE_DOMAIN_NAMES, "com", "DE", "c", "info", "tech", "online", "xn--p1ai", "c0m", "museum"]
)
PLAIN = st.builds(
    lambda local, domain, top: f"{'.'.join(local)}@{'.'.join([*domain, top])}",
    st.lists(ATOMS, min_size=1, max_size=6),
    st.lists(LABELS, max_size=7),
    TOP_LABELS | st.text("abcdefghijklmnopqrstuvwxyz", min_size=1, max_size=7) | LABELS,
)
ODD = st.builds(
    lambda text, local, domain: local + text + domain,
    st.sampled_from('@.＠﹫ -\n\0\u0130\u1e9e\ufb01\u2024\u00a8\u200d\u0301<>"\\'),
    st.text(max_size=8) | ATOMS,
    st.sampled_from(["@example.com", "example.com", "@EXAMPLE.com ", ".de", "@bücher.de", "@xn--bcher-kva.de", "@e\u0301.fr"]),
)


@fuzz
@given(address=PLAIN | ODD | st.emails() | st.from_regex(schemas.PLAIN_ADDRESS.removesuffix("$") + r"\Z"))
@example(address="ada@foo.LOCAL")
@example(address="\u212aim@example.com")
@example(address="a@b.c-d")
def test_the_short_cut_decides_alike(slow: TypeAdapter[str], address: str) -> None:
    """The fast path and the slow path give the same result for every address."""
    assert verdict(adapter("Email"), address) == verdict(slow, address)


@fuzz
@given(address=PLAIN | ODD | st.emails())
@example(address="a@b.de\n")
@example(address="Ada <ada@example.com>")
@example(address="\u0130@example.com")
def test_what_is_taken_emailstr_takes(address: str) -> None:
    """An accepted address is accepted by EmailStr. Plain addresses that EmailStr accepts are accepted in lower case."""
    taken, theirs = verdict(adapter("Email"), address), verdict(TypeAdapter(EmailStr), address.strip())

    if taken is not None:
        assert theirs is not None
        assert taken == unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", theirs).lower())
        assert adapter("Email").validate_python(taken) == taken
    elif theirs is not None:
        assert not address.isascii() or "<" in address or theirs.index("@") > 64


@pytest.mark.parametrize("name", sorted(email_validator.SPECIAL_USE_DOMAIN_NAMES))
def test_special_domains_never_take_the_short_cut(name: str) -> None:
    """Domains for special use are rejected. A new one in email_validator fails here if the pattern of plain addresses accepts it."""
    assert verdict(adapter("Email"), f"ada@{name}") is None
    assert verdict(adapter("Email"), f"ada@example.{name.upper()}") is None


@pytest.mark.parametrize("address", ["ada@example.com", " Ada.L+news@MAIL.example-shop.co.uk ", "a_b@x.io"])
def test_a_plain_address_does_not_leave_rust(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    """The validation does not call email_validator."""
    monkeypatch.delattr(email_validator, "validate_email")

    assert adapter("Email").validate_python(address) == address.strip().lower()


def test_an_odd_address_is_looked_up_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """No name server is queried, even if email_validator is configured to do so."""
    monkeypatch.setattr(email_validator, "CHECK_DELIVERABILITY", True)
    monkeypatch.setattr("email_validator.deliverability.validate_email_deliverability", None)

    assert adapter("Email").validate_python("ada@bücher.example") == "ada@bücher.example"


def test_a_field_may_shorten_an_address() -> None:
    """The bounds of a field apply to the normalised address and are in the JSON schema of both directions."""
    short = TypeAdapter[str](Annotated[Email, Field(max_length=15)])

    assert short.validate_python("   ada@example.com") == "ada@example.com"
    assert verdict(short, "adas@example.com") is None
    assert {short.json_schema(mode=mode)["maxLength"] for mode in ("validation", "serialization")} == {15}


# --- Passwords ---


@pytest.mark.parametrize("password", ["12345678", "  ÄÖ  aB ", "👩‍🚀" * 40, "p" * 128, "\x01\x02\x03\x04\x05\x06\x07\x08"])
def test_a_password_stays_as_it_was_typed(password: str) -> None:
    """Nothing is trimmed, folded or normalised, even if the model's config says so."""

    class Model(BaseModel):
        model_config = ConfigDict(str_strip_whitespace=True, str_to_lower=True, str_max_length=5)
        password: Password

    assert Model(password=SecretStr(password)).password.get_secret_value() == password
    assert Model.model_validate({"password": password}).password.get_secret_value() == password


@pytest.mark.parametrize(
    ("password", "expected"),
    [
        ("1234567", "string_too_short"),
        ("p" * 129, "string_too_long"),
        ("\ud800" * 8, "string_unicode"),
        ("hush-hush\0", "string_pattern_mismatch"),
        (SecretStr("hush"), "string_too_short"),
        (b"hush-hush", "string_type"),
        (1234567890, "string_type"),
    ],
)
def test_a_rejected_password_is_not_shown(password: Any, expected: str) -> None:
    """Pydantic's own error, printed or read, does not contain the password."""
    error = rejection(adapter("Password"), password)

    assert [found["type"] for found in error.errors()] == [expected]
    for text in (str(error), repr(error.errors()), error.json()):
        assert not any(part in text for part in ("hush", "123456789", "ppppp", "ud800"))


# --- Moments ---


@pytest.mark.parametrize(
    "moment",
    [
        "2026-01-01T01:30:00+02:00",
        "2025-12-31T23:30:00Z",
        datetime(2026, 1, 1, 5, tzinfo=timezone(timedelta(hours=5, minutes=30))),
        1767223800,
    ],
)
def test_a_moment_is_converted_to_utc(moment: object) -> None:
    """The zone is UTC, and the datetime is written with Z."""
    taken = adapter("UTCDatetime").validate_python(moment)

    assert (taken, taken.tzinfo) == (datetime(2025, 12, 31, 23, 30, tzinfo=UTC), UTC)
    assert adapter("UTCDatetime").dump_json(taken) == b'"2025-12-31T23:30:00Z"'


class Nowhere(tzinfo):
    """A datetime whose zone has no offset is naive, so it is rejected."""

    def utcoffset(self, moment: datetime | None, /) -> None:
        return None


@pytest.mark.parametrize("moment", ["2026-01-01T00:00:00", "2026-01-01", datetime(2026, 1, 1), datetime(2026, 1, 1, tzinfo=Nowhere())])  # noqa: DTZ001
def test_a_naive_moment_is_rejected(moment: object) -> None:
    """No zone is assumed."""
    assert code(adapter("UTCDatetime"), moment) == "timezone_aware"


@pytest.mark.parametrize(
    "moment", ["0001-01-01T00:00:00+00:01", "9999-12-31T23:59:59-00:01", datetime.min.replace(tzinfo=timezone(timedelta(hours=14)))]
)
def test_a_moment_out_of_the_calendar_is_rejected(moment: object) -> None:
    """A moment outside of the years 1 to 9999 in UTC is a validation error."""
    assert rejection(adapter("UTCDatetime"), moment).errors()[0]["msg"] == "Value error, is before the year 1 or after the year 9999 in UTC"


# --- Integers ---


@pytest.mark.parametrize(("name", "bits"), [("Int32", 31), ("Int64", 63)])
def test_an_integer_fits_its_column(name: str, bits: int) -> None:
    """The bounds are those of the column. Otherwise the value is read as an int, from a query string too."""
    kind = adapter(name)

    assert [kind.validate_python(value) for value in (-(2**bits), str(2**bits - 1), 1.0, True)] == [-(2**bits), 2**bits - 1, 1, 1]
    assert code(kind, 2**bits) == "less_than_equal"
    assert code(kind, str(-(2**bits) - 1)) == "greater_than_equal"
    assert code(kind, 1.5) == "int_from_float"


# --- Over HTTP ---


@pytest.fixture
async def client() -> AsyncIterator[AsyncClient]:
    """Routes with the types in every place."""
    app = FastAPI()
    register_exception_handlers(app)

    @app.get("/people/{username}/{number}")
    async def search(username: Username, number: Int32, phone: Phone, since: UTCDatetime, title: NonBlank | None = None) -> list[Any]:
        return [username, number, phone, since, title]

    @app.post("/login")
    async def login(email: Annotated[Email, Form()], password: Annotated[Password, Form()]) -> str:
        return f"{email} {len(password.get_secret_value())}"

    @app.post("/people")
    async def register(email: Annotated[Email, Field(max_length=50)], slugs: list[Slug]) -> str:
        return email

    async with app_client(app) as client:
        yield client


async def test_types_are_parameters(client: AsyncClient) -> None:
    """The types work in paths, queries and forms."""
    query = {"phone": "+4930123456", "since": "2026-01-01T00:00:00+01:00", "title": " a "}
    found = await client.get("/people/Ada/-7", params=query)
    login = await client.post("/login", data={"email": "ADA@example.com", "password": " correct horse "})

    assert found.json() == ["ada", -7, "+4930123456", "2025-12-31T23:00:00Z", "a"]
    assert login.json() == "ada@example.com 15"


async def test_a_rejected_parameter_is_not_echoed(client: AsyncClient) -> None:
    """A problem body names the field and the rule and contains no value."""
    answer = await client.post("/login", data={"email": "eve@evil.localhost", "password": "hushhh"})

    assert answer.status_code == 422
    assert answer.json()["errors"] == [
        {"loc": ["body", "email"], "code": "email", "message": "is not a valid e-mail address"},
        {"loc": ["body", "password"], "code": "string_too_short", "message": "String should have at least 8 characters"},
    ]
    assert not any(part in answer.text for part in ("eve", "evil", "hush"))


async def test_bad_parameters_are_rejected_together(client: AsyncClient) -> None:
    """Each field has its own entry."""
    answer = await client.get("/people/1/99999999999", params={"phone": "030", "since": "2026-01-01T00:00:00", "title": "\u200b"})

    assert [(error["loc"][-1], error["code"]) for error in answer.json()["errors"]] == [
        ("username", "string_too_short"),
        ("number", "less_than_equal"),
        ("phone", "string_too_short"),
        ("since", "timezone_aware"),
        ("title", "string_pattern_mismatch"),
    ]


async def test_a_lone_surrogate_in_a_body_is_rejected(client: AsyncClient) -> None:
    """JSON can contain a lone surrogate. It is rejected at its field."""
    answer = await client.post("/people?email=ada@example.com", content=rb'["\ud800"]', headers={"content-type": "application/json"})

    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (422, "string_unicode")


# --- Partial models ---


class EventCreate(BaseModel):
    """An event."""

    model_config = ConfigDict(extra="forbid", validate_default=True)

    _seen: list[str] = PrivateAttr(default_factory=list)
    title: Annotated[NonBlank, Field(max_length=20, description="what is on the poster")]
    start: int
    end: int = 10
    note: NonBlank | None = None
    seats: int = Field(default=5, alias="numberOfSeats", ge=1)
    tags: list[Slug] = Field(default_factory=list)
    code: str = Field(default="x", exclude=True)

    @field_validator("title", mode="before")
    @classmethod
    def _known(cls, value: object) -> object:
        assert isinstance(value, str), "is no text"
        return value.replace("_", " ")

    @field_validator("end")
    @classmethod
    def _not_before_start(cls, end: int, info: ValidationInfo) -> int:
        if "start" in info.data and end < info.data["start"]:
            raise ValueError("ends too early")
        return end

    @model_validator(mode="after")
    def _not_too_long(self, info: ValidationInfo) -> Self:
        if self.end - self.start > 100:
            raise ValueError("is too long")
        return self

    @field_serializer("title")
    def _as_poster(self, title: str) -> str:
        return title.upper()

    @computed_field
    @property
    def length(self) -> int:
        return self.end - self.start


PartialEventCreate = partial_model(EventCreate, name="PartialEventCreate")


def partial(**values: object) -> EventCreate:
    return PartialEventCreate.model_validate(values)


@pytest.mark.parametrize(
    ("sent", "dumped"),
    [
        ({}, {}),
        ({"title": " a_b "}, {"title": "A B"}),
        ({"note": None}, {"note": None}),
        ({"numberOfSeats": 5, "end": 10}, {"seats": 5, "end": 10}),
        ({"tags": []}, {"tags": []}),
        ({"start": 1, "end": 2}, {"start": 1, "end": 2}),
        ({"code": "secret"}, {}),
    ],
)
def test_a_partial_form_holds_what_was_sent(sent: dict[str, Any], dumped: dict[str, Any]) -> None:
    """A dump contains only what was sent: no default, no computed field. Aliases, serializers and exclusions stay."""
    given_ = partial(**sent)

    assert given_.model_dump() == given_.model_dump(exclude_unset=True) == given_.model_dump(mode="json") == dumped
    assert given_.model_dump(by_alias=True, exclude_unset=True).keys() == sent.keys() - {"code"}
    assert len(given_.model_fields_set) == len(sent)


@pytest.mark.parametrize(
    ("sent", "loc", "expected"),
    [
        ({"start": None}, ("start",), "int_type"),
        ({"title": None}, ("title",), "assertion_error"),
        ({"tags": None}, ("tags",), "list_type"),
        ({"numberOfSeats": None}, ("numberOfSeats",), "int_type"),
        ({"numberOfSeats": 0}, ("numberOfSeats",), "greater_than_equal"),
        ({"title": "a" * 21}, ("title",), "string_too_long"),
        ({"note": " "}, ("note",), "string_too_short"),
        ({"tags": ["A"]}, ("tags", 0), "string_pattern_mismatch"),
        ({"start": 3, "end": 2}, ("end",), "value_error"),
        ({"start": 0, "end": 200}, (), "value_error"),
        ({"other": 1}, ("other",), "extra_forbidden"),
        ({"seats": 3}, ("seats",), "extra_forbidden"),
    ],
)
def test_a_partial_form_keeps_the_rules(sent: dict[str, Any], loc: tuple[Any, ...], expected: str) -> None:
    """Types, constraints, aliases, config and validators stay. Null is rejected unless the field accepts None."""
    with pytest.raises(ValidationError) as caught:
        partial(**sent)

    assert [(found["loc"], found["type"]) for found in caught.value.errors()] == [(loc, expected)]


def test_what_was_not_sent_is_not_there() -> None:
    """Reading a field that was not sent raises AttributeError. Sent fields, private attributes and methods work."""
    given_ = partial(end=3)

    assert (given_.end, given_._seen, repr(given_)) == (3, [], "PartialEventCreate(end=3)")
    for name in ("start", "seats", "length"):
        with pytest.raises(AttributeError):
            getattr(given_, name)
    assert partial(start=1, end=3).length == 2


def test_validators_of_fields_do_not_see_what_was_not_sent() -> None:
    """A missing field is not in ``info.data``, and its validators are not called."""
    seen: list[object] = []

    class Create(BaseModel):
        first: int = 1
        second: int = Field(default=2, validate_default=True)

        @field_validator("*", mode="wrap")
        @classmethod
        def _note(cls, value: object, handler: Callable[[object], object], info: ValidationInfo) -> object:
            seen.append((info.field_name, value, dict(info.data)))
            return handler(value)

    partial_model(Create).model_validate({"second": 3})

    assert seen == [("second", 3, {})]


def test_a_rule_over_several_fields_waits_for_all_of_them() -> None:
    """A rule that reads a field which was not sent is not applied. Any other AttributeError is raised."""

    class Create(BaseModel):
        low: int
        high: int

        @model_validator(mode="after")
        def _ordered(self) -> Self:
            if self.high < self.low:
                raise ValueError("wrong order")
            return self

        @model_validator(mode="after")
        def _broken(self) -> Self:
            if self.high == 13:
                self.nonsense  # type: ignore[attr-defined]  # noqa: B018
            return self

    Update = partial_model(Create)  # noqa: N806

    assert Update.model_validate({"low": 5}).model_dump() == {"low": 5}
    assert Update.model_validate({"high": 5}).model_dump() == {"high": 5}
    with pytest.raises(ValidationError, match="wrong order"):
        Update.model_validate({"low": 5, "high": 4})
    with pytest.raises(AttributeError, match="nonsense"):
        Update.model_validate({"high": 13})


def test_before_and_wrap_validators_are_called_as_ever() -> None:
    """They get what was sent, and the model made of it."""

    class Create(BaseModel):
        name: str
        rank: int

        @model_validator(mode="before")
        @classmethod
        def _rename(cls, data: dict[str, object]) -> dict[str, object]:
            return {key.lower(): value for key, value in data.items()}

        @model_validator(mode="wrap")
        @classmethod
        def _named(cls, data: object, handler: Callable[[object], Self]) -> Self:
            made = handler(data)
            if made.model_fields_set == {"rank"}:
                raise ValueError("no rank without a name")
            return made

    Update = partial_model(Create)  # noqa: N806

    assert Update.model_validate({"NAME": "Ada"}).model_dump() == {"name": "Ada"}
    with pytest.raises(ValidationError, match="no rank without a name"):
        Update.model_validate({"RANK": 1})


def test_post_init_waits_likewise() -> None:
    """``model_post_init`` stops where it reads a field that was not sent."""

    class Create(BaseModel):
        name: str
        _initial: str = PrivateAttr(default="?")

        def model_post_init(self, context: object, /) -> None:
            self._initial = self.name[0]

    Update = partial_model(Create)  # noqa: N806

    assert Update.model_validate({})._initial == "?"
    assert Update.model_validate({"name": "Ada"})._initial == "A"


def test_the_json_schema_of_a_partial_form_is_true() -> None:
    """Nothing is required, there are no defaults, null is allowed only where it is accepted, descriptions stay."""
    schema, whole = PartialEventCreate.model_json_schema(), EventCreate.model_json_schema()

    assert schema.keys() == {"additionalProperties", "properties", "title", "type"}
    assert schema["title"] == "PartialEventCreate"
    for name, declared in whole["properties"].items():
        assert schema["properties"][name] == {key: value for key, value in declared.items() if key != "default"}


def test_a_partial_form_is_copied_pickled_and_compared() -> None:
    """It works as any model, and is found under its name in the module of its schema."""
    given_ = partial(end=3, note=None)

    assert PartialEventCreate.__module__ == EventCreate.__module__
    for other in (copy.deepcopy(given_), pickle.loads(pickle.dumps(given_)), given_.model_copy(), partial(end=3, note=None)):
        assert other == given_
        assert other.model_dump() == {"end": 3, "note": None}
    assert given_ != partial(end=3)
    assert given_.model_copy(update={"start": 1}).model_dump() == {"end": 3, "note": None, "start": 1}
    assert PartialEventCreate.model_construct(end=3).model_dump() == {"end": 3}


@partial_model
class EventUpdate(EventCreate):
    """What may change."""

    reason: str


def test_a_decorated_class_is_the_partial_form() -> None:
    """As a decorator the form takes the place of the class: its name, its text, its own fields and a place to be pickled from."""

    @partial_model
    class Local(EventCreate): ...

    changes = EventUpdate.model_validate({"reason": "rain"})

    assert changes.model_dump() == {"reason": "rain"}
    assert isinstance(changes, EventCreate)
    assert pickle.loads(pickle.dumps(changes)) == changes
    assert (EventUpdate.__name__, EventUpdate.__qualname__, EventUpdate.__doc__) == ("EventUpdate", "EventUpdate", "What may change.")
    assert EventUpdate.model_json_schema()["title"] == "EventUpdate"
    assert Local.__qualname__.endswith("<locals>.Local")
    assert rejection(TypeAdapter(EventUpdate), {"reason": 1}).title == "EventUpdate"


def test_the_name_can_be_chosen() -> None:
    """Each call creates a class and leaves the schema unchanged. A partial form may have a partial form."""
    first, second = partial_model(EventCreate, name="EventUpdate"), partial_model(EventCreate, name="EventUpdate")
    again = partial_model(first, name="Again")

    assert first.__name__ == first.__qualname__ == first.model_json_schema()["title"] == "EventUpdate"
    assert first is not second
    assert issubclass(first, EventCreate)
    assert EventCreate(title="a", start=1).model_dump()["length"] == 9
    assert again.model_validate({"start": 1}).model_dump() == {"start": 1}


ItemT = TypeVar("ItemT")


class Box(BaseModel, Generic[ItemT]):
    item: ItemT
    label: str = ""


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int = 9


class Dog(BaseModel):
    kind: Literal["dog"]


class Kennel(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, validate_by_name=True, validate_assignment=True)

    main_pet: Cat | Dog = Field(discriminator="kind")
    spare_pet: Annotated[Cat | Dog, Field(discriminator="kind")] | None = None
    number: int = Field(default=1, validation_alias=AliasChoices("n", "no"))
    inner: "Kennel | None" = None


def test_parametrised_models_have_partial_forms() -> None:
    """The type arguments of a generic model are checked. Without them ConfigurationError is raised."""
    Update = partial_model(Box[int])  # noqa: N806

    assert Update.model_validate({"label": "a"}).model_dump() == {"label": "a"}
    assert [found["type"] for found in rejection(TypeAdapter(Update), {"item": "x"}).errors()] == ["int_parsing"]
    with pytest.raises(ConfigurationError, match=r"partial_model\(Box\[int\]\)"):
        partial_model(Box)


def test_a_root_model_is_rejected() -> None:
    """A RootModel has no fields."""

    class Names(RootModel[list[str]]): ...

    with pytest.raises(ConfigurationError, match="Names is a RootModel"):
        partial_model(Names)


def test_unions_aliases_and_nested_models_are_kept() -> None:
    """Discriminators choose, aliases are read, assignments are checked, and a nested model is sent whole."""
    Update = partial_model(Kennel)  # noqa: N806
    kind = TypeAdapter(Update)

    pet = Update.model_validate({"mainPet": {"kind": "cat"}, "no": 3})
    pet.spare_pet = None

    assert pet.model_dump(exclude_unset=True) == {"main_pet": {"kind": "cat"}, "number": 3, "spare_pet": None}
    assert Update.model_validate({"main_pet": {"kind": "dog"}}).model_dump() == {"main_pet": {"kind": "dog"}}
    assert code(kind, {"mainPet": {"kind": "cow"}}) == "union_tag_invalid"
    assert code(kind, {"mainPet": None}) == "model_attributes_type"
    assert code(kind, {"inner": {}}) == "missing"
    with pytest.raises(ValidationError):
        pet.main_pet = None  # type: ignore[assignment]


def test_attributes_of_an_object_are_read() -> None:
    """With from_attributes the attributes of an object are read."""

    class Create(BaseModel):
        model_config = ConfigDict(from_attributes=True, frozen=True)
        a: int
        b: int = 2

    class Thing:
        a = 1

    taken = partial_model(Create).model_validate(Thing())

    assert taken.model_dump() == {"a": 1}
    assert hash(taken) == hash(taken.model_copy())


# --- Partial models, to the row ---


class MemberCreate(BaseModel):
    email: Email
    name: Annotated[NonBlank, Field(max_length=50)]
    nickname: NonBlank | None = None
    points: Int32 = 10


class MemberRead(MemberCreate):
    id: int


class MemberService(CRUDService[Member, MemberCreate, MemberCreate]):
    update_schema = partial_model(MemberCreate, name="MemberUpdate")


@pytest.fixture
async def members(database: Database) -> AsyncIterator[AsyncClient]:
    """Routes over members, and one member."""
    await database.create_tables(AccountsBase.metadata)
    app = FastAPI()
    register_exception_handlers(app)
    app.include_router(crud_router(MemberService, read=MemberRead, session=database.session), prefix="/members")
    async with app_client(app) as client:
        await client.post("/members", json={"email": "Ada@Example.com", "name": " Ada ", "nickname": "Countess", "points": 3})
        yield client


@pytest.mark.parametrize(
    ("sent", "changed"),
    [
        ({}, {}),
        ({"points": 10}, {"points": 10}),
        ({"nickname": None}, {"nickname": None}),
        ({"email": " ADA@bücher.example", "name": "Ada L."}, {"email": "ada@bücher.example", "name": "Ada L."}),
    ],
)
async def test_a_patch_changes_what_it_names(members: AsyncClient, sent: dict[str, Any], changed: dict[str, Any]) -> None:
    """Other columns keep their values, defaults are not written, and null clears a nullable column."""
    answer = await members.patch("/members/1", json=sent)

    expected = {"id": 1, "email": "ada@example.com", "name": "Ada", "nickname": "Countess", "points": 3, **changed}
    assert (answer.status_code, answer.json()) == (200, expected)
    assert (await members.get("/members/1")).json() == expected


@pytest.mark.parametrize("sent", [{"name": None}, {"points": None}, {"email": None}, {"name": "  "}, {"email": "ada"}, {"points": 2**31}])
async def test_a_bad_patch_stops_at_the_schema(members: AsyncClient, sent: dict[str, Any]) -> None:
    """The answer is a 422 that names the field, and nothing is written."""
    before = (await members.get("/members/1")).json()

    answer = await members.patch("/members/1", json=sent)

    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert [error["loc"] for error in answer.json()["errors"]] == [["body", *sent]]
    assert (await members.get("/members/1")).json() == before


async def test_the_document_shows_the_patch_form(members: AsyncClient) -> None:
    """It is its own component, with the given name."""
    document = (await members.get("/openapi.json")).json()

    body = document["paths"]["/members/{id}"]["patch"]["requestBody"]["content"]["application/json"]["schema"]
    assert body == {"$ref": "#/components/schemas/MemberUpdate"}
    assert "required" not in document["components"]["schemas"]["MemberUpdate"]
    assert document["components"]["schemas"]["MemberCreate"]["required"] == ["email", "name"]


class Twice(BaseModel):
    pw: str
    again: str

    @field_validator("again")
    @classmethod
    def _same(cls, value: str, info: ValidationInfo) -> str:
        if value != info.data["pw"]:
            raise ValueError("differ")
        return value


def test_a_field_that_is_compared_with_one_that_was_not_sent_is_rejected() -> None:
    """A KeyError of the validator is a validation error, not a bug."""
    partial = partial_model(Twice)

    with pytest.raises(ValidationError, match="together with pw only"):
        partial.model_validate({"again": "x"})
    assert partial.model_validate({"pw": "x", "again": "x"}).model_dump() == {"pw": "x", "again": "x"}


def test_a_mapped_class_has_no_partial_form() -> None:
    """The attributes of a mapped class are columns."""

    class Hero(SQLModel, table=True):
        id: int | None = SQLField(default=None, primary_key=True)

    with pytest.raises(ConfigurationError, match="mapped class"):
        partial_model(Hero)


class Clock(BaseModel):
    at: UTCDatetimeMillis
    end: UTCDatetimeMillis | None = None


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        ("2026-01-31T12:00:00Z", "2026-01-31T12:00:00.000Z"),
        ("2026-01-31T13:00:00.123999+01:00", "2026-01-31T12:00:00.123Z"),
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00.000Z"),
    ],
)
def test_milliseconds_are_always_three_decimals(sent: str, shown: str) -> None:
    """JSON shows three decimals, also of a whole second. Python keeps the microseconds."""
    clock = Clock.model_validate({"at": sent, "end": sent})

    assert json.loads(clock.model_dump_json()) == {"at": shown, "end": shown}
    assert clock.at == datetime.fromisoformat(sent)
    assert clock.model_dump()["at"] == clock.at
    assert Clock.model_validate_json(clock.model_dump_json()).at <= clock.at
    assert Clock.model_json_schema(mode="serialization")["properties"]["at"]["format"] == "date-time"


@pytest.mark.parametrize(
    ("text", "slug"),
    [
        ("Don't panic, Zoë!", "dont-panic-zoe"),
        ("It’s a—dash_and  blanks", "its-a-dash-and-blanks"),
        ("Straße Æther Łódź №5", "strasse-aether-lodz-no5"),
        ("  --C++ / C#--  ", "c-c"),
        ("İstanbul Ⅷ ﬁn", "istanbul-viii-fin"),
        ("日本 2026", "2026"),
        ("a" * 100, "a" * 80),
        ("one " * 30, "-".join(["one"] * 20)),
        ("x" * 79 + " two", "x" * 79),
        ("x" * 80 + " two", "x" * 80),
    ],
)
def test_a_title_becomes_a_slug(text: str, slug: str) -> None:
    """Accents and apostrophes go, words are joined by hyphens, and the end is a whole word where it can be."""
    assert slugify(text) == slug
    assert TypeAdapter(Slug).validate_python(slug) == slug


@given(st.text(max_size=200), st.integers(min_value=1, max_value=80))
def test_every_slug_is_valid(text: str, max_length: int) -> None:
    """Whatever the text, the result is a Slug of the length that is asked for, and its own slug."""
    slug = slugify(text, max_length=max_length, default="n")

    assert TypeAdapter(Slug).validate_python(slug) == slug
    assert len(slug) <= max_length
    assert slugify(slug, max_length=max_length) == slug


def test_a_text_without_latin_letters_has_no_slug() -> None:
    """It is the client's error (422), unless there is a default."""
    assert slugify("日本", default="untitled") == "untitled"
    with pytest.raises(UserInputError, match="no slug"):
        slugify("!?")


async def test_patterns_are_explained_in_words() -> None:
    """A problem body says what is wanted in words. The pattern of a field of your own is shown as it is."""
    app = FastAPI()
    register_exception_handlers(app)

    class Form(BaseModel):
        title: Annotated[NonBlank, Field(max_length=10)]
        slug: Slug
        phone: Phone | None = None
        word: Annotated[str, Field(pattern="^x$")] = "x"

    @app.post("/")
    async def take(form: Form) -> None: ...

    async with app_client(app) as client:
        answer = await client.post("/", json={"title": "\u200b", "slug": "Not A Slug", "phone": "0301234567", "word": "y"})

    assert {error["loc"][1]: error["message"] for error in answer.json()["errors"]} == {
        "title": "must contain a visible character and no NUL character",
        "slug": "must consist of lower-case letters a to z and digits, in words joined by single hyphens",
        "phone": "must be '+', the country code and the number, digits only",
        "word": "String should match pattern '^x$'",
    }
    assert {error["code"] for error in answer.json()["errors"]} == {"string_pattern_mismatch"}
