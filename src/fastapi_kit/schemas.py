"""Field types and helpers for your Pydantic models. Their errors do not contain the rejected value."""

import re
import unicodedata
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Annotated, Final, TypeAlias

from pydantic import (
    AfterValidator,
    AwareDatetime,
    EmailStr,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    GetPydanticSchema,
    PlainSerializer,
    SecretStr,
    ValidatorFunctionWrapHandler,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticKnownError, core_schema

from fastapi_kit._partial import has_rules_across_fields, partial_model, validate_merged
from fastapi_kit._text import is_encodable
from fastapi_kit.errors import UserInputError

__all__ = [
    "NO_NUL",
    "Email",
    "Int32",
    "Int64",
    "NonBlank",
    "Password",
    "Phone",
    "SafeText",
    "Slug",
    "UTCDatetime",
    "UTCDatetimeMillis",
    "Username",
    "has_rules_across_fields",
    "partial_model",
    "pattern_message",
    "slugify",
    "validate_merged",
]


@dataclass(frozen=True, kw_only=True)
class TextRules:
    """Constraints of a string. Rust reads the pattern, whatever the model's config says: in Python's engine ``$`` accepts a line break."""

    pattern: str
    min_length: int | None = None
    max_length: int | None = None
    strip_whitespace: bool | None = None
    to_lower: bool | None = None

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.str_schema(**asdict(self), regex_engine="rust-regex")


NO_NUL = r"^[^\x00]*$"
NAME = r"^[A-Za-z][A-Za-z0-9_.-]*$"
WORDS = r"^[a-z0-9]+(?:-[a-z0-9]+)*$"
E164 = r"^\+[1-9][0-9]*$"

# White space, control characters, fillers and format characters of the basic plane, as escapes that every regex engine reads.
INVISIBLE = (
    r"\x00-\x20\x7f-\xa0\xad\u034f\u061c\u115f\u1160\u1680\u17b4\u17b5\u180b-\u180f\u2000-\u200f\u2028-\u202f\u205f-\u206f"
    r"\u2800\u3000\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffb"
)
VISIBLE = rf"^[^\x00]*[^{INVISIBLE}][^\x00]*$"

_PATTERN_MESSAGES: Final = {
    NO_NUL: "must not contain a NUL character",
    VISIBLE: "must contain a visible character and no NUL character",
    NAME: "must begin with a letter and contain only the letters a to z, digits, '_', '.' and '-'",
    WORDS: "must consist of lower-case letters a to z and digits, in words joined by single hyphens",
    E164: "must be '+', the country code and the number, digits only",
}


def pattern_message(pattern: str) -> str | None:
    """Return in words what *pattern* asks for, if it is the pattern of a type of this module. Problem bodies show these words."""
    return _PATTERN_MESSAGES.get(pattern)


SafeText: TypeAlias = Annotated[str, TextRules(pattern=NO_NUL)]
"""Text that every database can store and every encoding can carry: no NUL and no lone surrogate.

A JSON schema cannot express the rule about surrogates. If a field adds a ``pattern``, it replaces the pattern of the type, here and
in the types below. Lengths are added to those of the type.
"""

NonBlank: TypeAlias = Annotated[str, TextRules(pattern=VISIBLE, min_length=1, strip_whitespace=True)]
"""SafeText with at least one visible character. White space at its ends is removed; zero-width characters alone are rejected.

Lengths count the trimmed text: ``Annotated[NonBlank, Field(max_length=200)]``. A JSON schema cannot express that.
"""

Username: TypeAlias = Annotated[str, TextRules(pattern=NAME, min_length=3, max_length=32, to_lower=True)]
"""3 to 32 of the characters a-z, 0-9, ``_``, ``.`` and ``-``; the first is a letter. Capitals become lower case. Nothing is trimmed."""

MAX_SLUG = 80

Slug: TypeAlias = Annotated[str, TextRules(pattern=WORDS, min_length=1, max_length=MAX_SLUG)]
"""1 to 80 of the characters a-z and 0-9, in words joined by single hyphens. Capitals are rejected."""

# Letters without a decomposition in Unicode.
LETTERS = str.maketrans({"ß": "ss", "æ": "ae", "œ": "oe", "ø": "o", "đ": "d", "ð": "d", "þ": "th", "ł": "l", "ħ": "h", "ı": "i"})


def slugify(text: str, *, max_length: int = MAX_SLUG, default: str | None = None) -> str:
    """Return *text* as a Slug: ``slugify("Don't panic, Zoë!")`` is ``dont-panic-zoe``.

    Accents are dropped, apostrophes join, and everything else separates words. A long slug ends with a whole word where it can. Two texts
    may have the same slug: keep the column unique, and add a number when ``create`` raises ConflictError.

    Args:
        text: A title or a name.
        max_length: The most characters of the slug.
        default: The slug of a text without a Latin letter or digit.

    Raises:
        UserInputError: The text has no Latin letter or digit, and there is no *default*.
    """
    letters = unicodedata.normalize("NFKD", text.lower().translate(LETTERS)).lower()
    joined = "".join(each for each in letters if each not in "'`’" and unicodedata.category(each) not in {"Mn", "Cf"})
    slug = "-".join(re.findall(r"[a-z0-9]+", joined))
    if len(slug) > max_length:
        # One character more shows whether a word ends here.
        head = slug[: max_length + 1]
        slug = head.rpartition("-")[0] or head[:max_length]
    if slug:
        return slug
    if default is None:
        raise UserInputError("A text without Latin letters and digits has no slug.")
    return default


Phone: TypeAlias = Annotated[str, TextRules(pattern=E164, min_length=8, max_length=16)]
"""A number in the international form of ITU-T E.164: ``+``, the country code, 7 to 15 digits in all, no separators.

E.164 allows at most fifteen digits; the shortest numbers in use have seven. In a query string ``+`` is written ``%2B``.
"""

Int32: TypeAlias = Annotated[int, Field(ge=-(2**31), le=2**31 - 1, json_schema_extra={"format": "int32"})]
"""An int that fits an INTEGER column. Unless the model is strict, "1", 1.0 and true are read as 1, as for ``int``."""

Int64: TypeAlias = Annotated[int, Field(ge=-(2**63), le=2**63 - 1, json_schema_extra={"format": "int64"})]
"""An int that fits a BIGINT column. It is read as ``int`` is."""


def to_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise UserInputError("is before the year 1 or after the year 9999 in UTC") from None


UTCDatetime: TypeAlias = Annotated[AwareDatetime, AfterValidator(to_utc)]
"""An aware datetime, converted to UTC and written with ``Z``. A naive one is rejected (code ``timezone_aware``).

Unless the model is strict, seconds since 1970 are accepted too. Leap seconds, and moments outside of the years 1 to 9999 in UTC,
are rejected, although the JSON schema allows them.
"""


def write_millis(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


JSONMoment: TypeAlias = Annotated[str, Field(json_schema_extra={"format": "date-time"})]

UTCDatetimeMillis: TypeAlias = Annotated[UTCDatetime, PlainSerializer(write_millis, return_type=JSONMoment, when_used="json")]
"""A UTCDatetime that JSON shows with three decimals, as JavaScript does: ``2026-01-31T12:00:00.000Z``.

Microseconds are cut off, not rounded. They stay in Python and in the database.
"""


def schema_of(kind: type[object]) -> GetPydanticSchema:
    # The JSON schema of a class is merged with what a field adds. That of an annotation would replace it.
    return GetPydanticSchema(lambda _source, handler: handler.generate_schema(kind))


# --- E-mail addresses ---

ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
LABEL = r"[A-Za-z0-9]+(?:-[A-Za-z0-9]+)*"
# No top-level domain of two or three letters is reserved, as test and localhost are.
PLAIN_ADDRESS = rf"^{ATOM}(?:\.{ATOM})*@(?:{LABEL}\.)+[A-Za-z]{{2,3}}$"
MAX_LOCAL_PART = 64
MAX_ADDRESS = 254


class Address:
    """EmailStr in one form per mailbox. Plain addresses are validated in Rust, about 50 times faster."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        # In an address of 64 characters no part can be too long.
        plain = core_schema.str_schema(pattern=PLAIN_ADDRESS, max_length=64, to_lower=True, regex_engine="rust-regex")
        other = core_schema.no_info_wrap_validator_function(normalize_address, handler.generate_schema(EmailStr))
        address = core_schema.union_schema(
            [plain, other],
            mode="left_to_right",
            custom_error_type="email",
            custom_error_message="is not a valid e-mail address",
        )
        return core_schema.chain_schema([core_schema.str_schema(strip_whitespace=True, max_length=MAX_ADDRESS), address])

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"type": "string", "format": "email", "maxLength": MAX_ADDRESS}


def normalize_address(text: str, check: ValidatorFunctionWrapHandler) -> str:
    """Return the address in a form that does not change when it is read again."""
    if "<" in text:
        raise ValueError("a name is not part of an address")
    address = fold_case(check(text))
    if address != text and fold_case(check(address)) != address:
        raise ValueError("another address after normalisation")
    if re.search(f"[{INVISIBLE}\U000e0000-\U000e0fff]", address):
        raise ValueError("another mailbox that looks the same")
    if len(address.rpartition("@")[0].encode()) > MAX_LOCAL_PART:
        raise ValueError("the part before the @ is too long")
    return address


def fold_case(address: str) -> str:
    local, at, domain = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", address).lower()).rpartition("@")
    # A capital sigma becomes one of two small ones, depending on its place in the word.
    return f"{local.replace('ς', 'σ')}{at}{domain}"


Email: TypeAlias = Annotated[str, schema_of(Address)]
"""An e-mail address in one form per mailbox: trimmed, NFKC, lower case, a Punycode domain as Unicode.

At most 254 octets, 64 before the @ (RFC 5321, 4.5.3.1). Accepts what Pydantic's EmailStr accepts, except ``Name <address>`` and
addresses that normalisation turns into another address. Domains for special use are rejected, and nothing is looked up.
``a+tag`` and ``a`` are two mailboxes. The JSON schema has the format only.

A plain ASCII address of up to 64 characters, with a top-level domain of two or three letters, is validated in Rust, many times
faster. The global settings of ``email_validator`` do not apply to it.
"""


# --- Passwords ---

MIN_PASSWORD, MAX_PASSWORD = 8, 128


class HiddenText:
    """A password, wrapped before it is checked. So no error has it as its input."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        steps = [core_schema.no_info_plain_validator_function(step) for step in (hide_text, check_password)]
        return core_schema.chain_schema([*steps], serialization=core_schema.to_string_ser_schema(when_used="json"))

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        lengths = {"minLength": MIN_PASSWORD, "maxLength": MAX_PASSWORD}
        return {"type": "string", "format": "password", "writeOnly": True, "pattern": NO_NUL, **lengths}


def hide_text(value: object) -> SecretStr | None:
    if isinstance(value, str):
        return SecretStr(value)
    return value if isinstance(value, SecretStr) else None


def check_password(secret: SecretStr | None) -> SecretStr:
    if secret is None:
        raise PydanticKnownError("string_type")
    password = secret.get_secret_value()
    if len(password) < MIN_PASSWORD:
        raise PydanticKnownError("string_too_short", {"min_length": MIN_PASSWORD})
    if len(password) > MAX_PASSWORD:
        raise PydanticKnownError("string_too_long", {"max_length": MAX_PASSWORD})
    if not is_encodable(password):
        raise PydanticKnownError("string_unicode")
    if "\0" in password:
        raise PydanticKnownError("string_pattern_mismatch", {"pattern": NO_NUL})
    return secret


Password: TypeAlias = Annotated[SecretStr, schema_of(HiddenText)]
"""A SecretStr of 8 to 128 characters, without NUL and lone surrogates. It is never trimmed, whatever the model's config says.

Errors show it as ``**********``, those of Pydantic too. If a field adds a constraint, Pydantic's own ``str(error)`` shows the text,
unless the model has ``hide_input_in_errors``. The password policy is checked where the password is hashed.
"""
