"""E-mail addresses in read schemas: validated in Rust with the same result as EmailStr."""

import itertools
from collections.abc import Iterator
from typing import Annotated, Any, TypeVar

import email_validator
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import AfterValidator, BaseModel, ConfigDict, EmailStr, Field, NameEmail, Tag, TypeAdapter, ValidationError
from tests.thorough import FULL
from tests.versions import needs_own_validators

from fastapi_kit.crud.read_plan.validation import ListValidator
from fastapi_kit.schemas import Email

T = TypeVar("T")


class Contact(BaseModel):
    email: EmailStr


def verdict(read: Any, address: object) -> object:
    """Return the validated address, or the errors of pydantic."""
    try:
        return read(address)
    except ValidationError as error:
        return [(each["type"], each["msg"]) for each in error.errors()]


exact = TypeAdapter(EmailStr).validate_python
contacts = ListValidator(Contact)


def fast(address: object) -> object:
    return contacts([{"email": address}])[0].email


LOCAL_PARTS = [
    *(
        "a",
        "A",
        "a.b",
        "a+b",
        "!#$%&'*+/=?^_`{|}~-",
        "a..b",
        ".a",
        "a.",
        "",
        " a",
        "a ",
        "a b",
        '"a b"',
        '"a"',
        "ä",
        "a\u0308",
        "ﬁ",
        "日本",
    ),
    *("a" * 64, "a" * 65, "a\n", "a\r", "a\t", "a\x00", "a,b", "a<b", "(a)", "a@b", "xn--a", "a\u200b", "Ⓐ", "a\u202e", "'a'", "Name <a"),
]
DOMAINS = [
    *(
        "b.co",
        "B.co",
        "b.CO",
        "b.Co",
        "example.com",
        "example.org",
        "mail.example",
        "b-c.co",
        "b--c.co",
        "-b.co",
        "b-.co",
        "b_c.co",
        "b.c-o",
    ),
    *("test", "b.test", "b.local", "local.b.co", "b.localhost", "localhost", "b.invalid", "b.onion", "b.arpa", "in-addr.arpa", "b.example"),
    *(
        "b.tests",
        "b.loca",
        "b.onio",
        "b.arp",
        "b.invali",
        "b.info",
        "b.onions",
        "b.museum",
        "b.technology",
        "b.c",
        "b.1",
        "b.12",
        "b.co1",
        "1.co",
    ),
    *(
        "xn--bcher-kva.co",
        "bücher.co",
        "b.xn--p1ai",
        "xn--a.co",
        "b.рф",
        "B\u0308.co",
        "ﬁ.co",
        "b。co",
        "b.co.",
        ".b.co",
        "b..co",
        "b",
        "",
        "b.co>",
    ),
    *(
        "b" * 63 + ".co",
        "b" * 64 + ".co",
        ".".join(["b" * 60] * 4) + ".co",
        ".".join(["b" * 62] * 4) + ".co",
        "[1.2.3.4]",
        "[IPv6:::1]",
        "1.2.3.4",
    ),
    *(
        "b.co ",
        " b.co",
        "b.co\n",
        "b.co\r",
        "b.co\t",
        "b.co\x00",
        "b .co",
        "b.c\u200bo",
        "b.co\u2028",
        "a.b.c.d.e.f.g.co",
        "b.zz--zz",
        "aa--b.co",
    ),
]


@pytest.mark.parametrize("local", LOCAL_PARTS)
def test_hostile_addresses_are_read_as_by_email_str(local: str) -> None:
    """Unusual addresses give the same value or the same error as EmailStr, at each length around the limits."""
    for domain in DOMAINS:
        address = f"{local}@{domain}"
        assert verdict(fast, address) == verdict(exact, address), address


def lengths() -> Iterator[object]:
    for local, domain in itertools.product(range(1, 67), (1, 30, 59, 60, 61, 62, 63, 64)):
        yield f"{'a' * local}@{'b' * domain}.co"
    yield from ("a", "", "@", "a@", "@b.co", None, 1, b"a@b.co", "a@b.co" * 100, "x" * 3000)


def test_addresses_of_every_length() -> None:
    """The limits are 64 octets before the @, 63 in a label and 254 in all, as with EmailStr."""
    for address in lengths():
        assert verdict(fast, address) == verdict(exact, address), address


LABELS = st.text(st.sampled_from("abcdeilnoprstvyzABZ019-._xnäßß\u0301。 "), min_size=1, max_size=12)
ADDRESSES = st.one_of(
    st.builds("{}@{}".format, LABELS, LABELS),
    st.builds("{}@{}.{}".format, LABELS, LABELS, LABELS),
    st.builds("{}@{}.{}".format, LABELS, LABELS, st.sampled_from([*email_validator.SPECIAL_USE_DOMAIN_NAMES, "com", "de", "info"])),
    st.emails(),
    st.text(max_size=70),
)


@settings(max_examples=1500 if FULL else 100, deadline=None)
@given(ADDRESSES)
def test_any_address_is_read_as_by_email_str(address: str) -> None:
    """Any text gives the same result as EmailStr."""
    assert verdict(fast, address) == verdict(exact, address)


class Person(BaseModel):
    email: EmailStr | None = None
    friends: "list[Person]" = []
    aliases: dict[str, set[EmailStr]] = {}
    short: Annotated[EmailStr, Field(max_length=8)] = "a@b.co"
    loud: Annotated[EmailStr, AfterValidator(str.upper)] = "a@b.co"
    named: NameEmail | None = None
    own: Email | None = None
    tagged: Annotated[int, Tag("number")] | Annotated[EmailStr, Tag("address")] = 0


class Trimmed(BaseModel):
    model_config = ConfigDict(str_strip_whitespace=True, str_to_lower=True, str_max_length=10, strict=True)
    email: EmailStr


class Upper(BaseModel):
    model_config = ConfigDict(str_to_upper=True)
    email: EmailStr


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        (Person, {"email": "a@B.co", "friends": [{"email": "b@b.co", "friends": [{"email": "c@C.co"}]}], "aliases": {"x": ["a@b.co"]}}),
        (Person, {"friends": [{"friends": [{"email": "c@c.test"}]}]}),
        (Person, {"short": "abc@b.co", "loud": "x@y.zz", "named": "Ada <a@B.co>", "own": " A@b.CO", "tagged": "a@B.co"}),
        (Person, {"short": "abcd@b.co"}),
        (Trimmed, {"email": " A@B.co "}),
        (Trimmed, {"email": "abcdef@b.co"}),
        (Trimmed, {"email": b"a@b.co"}),
        (Upper, {"email": "a@b.co"}),
    ],
)
def test_addresses_anywhere_in_a_schema(schema: type[BaseModel], value: dict[str, Any]) -> None:
    """Addresses in nested schemas, trees and collections keep the constraints and the config of their schema."""

    def read(value: object) -> BaseModel:
        return ListValidator(schema)([value])[0]

    def errors(check: Any) -> Any:
        try:
            found = check(value)
        except ValidationError as error:
            return [(each["type"], each["msg"], each["loc"][-1]) for each in error.errors()]
        return found, found.model_fields_set, type(found)

    assert errors(read) == errors(schema.model_validate)


@needs_own_validators
def test_plain_addresses_need_no_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plain address is validated without a call of email_validator, in nested schemas too."""

    def reject(*_: object, **__: object) -> None:
        raise AssertionError("called")

    monkeypatch.setattr(email_validator, "validate_email", reject)
    people = ListValidator(Person)(
        [{"email": "a+b@mail.example.org", "friends": [{"email": "b@b.co"}], "aliases": {"x": ["c@c.co"]}, "tagged": "d@d.co"}]
    )

    assert people[0].friends[0].email == "b@b.co"
    with pytest.raises(ValidationError, match="called"):
        ListValidator(Person)([{"email": "a@B.co"}])


def test_the_schema_itself_stays_as_it_is() -> None:
    """Validating with the schema itself still calls email_validator."""
    before = repr(Contact.__pydantic_validator__)
    ListValidator(Contact)
    assert repr(Contact.__pydantic_validator__) == before
