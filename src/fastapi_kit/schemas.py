"""Field types and helpers for hosts' Pydantic models. None of them echoes its input in an error."""

import re
import unicodedata
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Annotated, TypeAlias

from pydantic import (
    AfterValidator,
    AwareDatetime,
    EmailStr,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    GetPydanticSchema,
    SecretStr,
    ValidatorFunctionWrapHandler,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticKnownError, core_schema

from fastapi_kit._partial import has_rules_across_fields, partial_model, validate_merged
from fastapi_kit._text import is_encodable
from fastapi_kit.errors import UserInputError

__all__ = [
    "Email",
    "Int32",
    "Int64",
    "NonBlank",
    "Password",
    "Phone",
    "SafeText",
    "Slug",
    "UTCDatetime",
    "Username",
    "has_rules_across_fields",
    "partial_model",
    "validate_merged",
]


@dataclass(frozen=True, kw_only=True)
class _Text:
    """Constraints of a text. Rust reads the pattern whatever the model's config says: in Python's engine ``$`` lets a line break pass."""

    pattern: str
    min_length: int | None = None
    max_length: int | None = None
    strip_whitespace: bool | None = None
    to_lower: bool | None = None

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.str_schema(**asdict(self), regex_engine="rust-regex")


_NO_NUL = r"^[^\x00]*$"

# Whitespace, controls, fillers and what only formats its neighbours, of the basic plane: escapes that every engine of patterns reads.
_UNSEEN = (
    r"\x00-\x20\x7f-\xa0\xad\u034f\u061c\u115f\u1160\u1680\u17b4\u17b5\u180b-\u180f\u2000-\u200f\u2028-\u202f\u205f-\u206f"
    r"\u2800\u3000\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffb"
)

SafeText: TypeAlias = Annotated[str, _Text(pattern=_NO_NUL)]
"""Text that every database stores and every encoding carries: no NUL, no lone surrogate (which a JSON schema cannot say).

A ``pattern`` that a field adds takes the place of the type's own, here and in the types below; lengths apply beside it.
"""

NonBlank: TypeAlias = Annotated[str, _Text(pattern=rf"^[^\x00]*[^{_UNSEEN}][^\x00]*$", min_length=1, strip_whitespace=True)]
"""SafeText without whitespace at its ends, in which something can be seen: zero-width characters alone are blank.

Lengths count the trimmed text: ``Annotated[NonBlank, Field(max_length=200)]``. That whitespace at the ends does not count is more than a
JSON schema can say.
"""

Username: TypeAlias = Annotated[str, _Text(pattern=r"^[A-Za-z][A-Za-z0-9_.-]*$", min_length=3, max_length=32, to_lower=True)]
"""3 to 32 of a-z, 0-9, ``_``, ``.`` and ``-``, the first a letter. Capitals are accepted and made small; nothing is trimmed."""

Slug: TypeAlias = Annotated[str, _Text(pattern=r"^[a-z0-9]+(?:-[a-z0-9]+)*$", min_length=1, max_length=80)]
"""1 to 80 of a-z and 0-9, in words joined by single hyphens. Nothing is changed: capitals are refused."""

Phone: TypeAlias = Annotated[str, _Text(pattern=r"^\+[1-9][0-9]*$", min_length=8, max_length=16)]
"""A number in the international form of ITU-T E.164: ``+``, the country code, 7 to 15 digits in all, no separators.

Fifteen digits are the recommendation's limit; the shortest subscriber numbers in use have seven. In a query string ``+`` is ``%2B``.
"""

Int32: TypeAlias = Annotated[int, Field(ge=-(2**31), le=2**31 - 1, json_schema_extra={"format": "int32"})]
"""An int that fits an INTEGER column, read as pydantic reads ``int``: unless strict, "1", 1.0 and true are 1, beside the JSON schema."""

Int64: TypeAlias = Annotated[int, Field(ge=-(2**63), le=2**63 - 1, json_schema_extra={"format": "int64"})]
"""An int that fits a BIGINT column, read as pydantic reads ``int``."""


def _in_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise UserInputError("is before the year 1 or after the year 9999 in UTC") from None


UTCDatetime: TypeAlias = Annotated[AwareDatetime, AfterValidator(_in_utc)]
"""A moment with an offset from UTC, converted to UTC and written with ``Z``. One without is refused (code ``timezone_aware``).

Read as pydantic reads ``datetime``, unless strict also from seconds since 1970. Leap seconds, and moments that lie outside of the
years 1 to 9999 in UTC, are refused, though the JSON schema admits them.
"""


def _schema_of(kind: type[object]) -> GetPydanticSchema:
    # The JSON schema of a class stays below what a field adds to it; that of an annotation would replace it.
    return GetPydanticSchema(lambda _source, handler: handler.generate_schema(kind))


# --- E-mail addresses ---

_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_LABEL = r"[A-Za-z0-9]+(?:-[A-Za-z0-9]+)*"
# Two to six letters, and by the first letter none of arpa, test, local, onion, invalid and localhost.
_TOP_LABEL = r"(?:[A-Za-z]{2,3}|[B-SU-Zb-su-z][A-Za-z]{3}|[A-KMNP-Za-kmnp-z][A-Za-z]{4}|[A-Za-z]{6})"
_PLAIN_ADDRESS = rf"^{_ATOM}(?:\.{_ATOM})*@(?:{_LABEL}\.)+{_TOP_LABEL}$"
_MAX_LOCAL_PART = 64
_MAX_ADDRESS = 254


class _Address:
    """EmailStr, in one form per mailbox. What the pattern of plain addresses knows to be valid never leaves Rust."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        # An address of 64 characters cannot break a limit on any of its parts.
        plain = core_schema.str_schema(pattern=_PLAIN_ADDRESS, max_length=64, to_lower=True, regex_engine="rust-regex")
        other = core_schema.no_info_wrap_validator_function(_one_form, handler.generate_schema(EmailStr))
        address = core_schema.union_schema(
            [plain, other],
            mode="left_to_right",
            custom_error_type="email",
            custom_error_message="is not a valid e-mail address",
        )
        return core_schema.chain_schema([core_schema.str_schema(strip_whitespace=True, max_length=_MAX_ADDRESS), address])

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"type": "string", "format": "email", "maxLength": _MAX_ADDRESS}


def _one_form(text: str, check: ValidatorFunctionWrapHandler) -> str:
    """Return the address in a form that stays as it is when it is checked again."""
    if "<" in text:
        raise ValueError("a name is no part of an address")
    address = _folded(check(text))
    if address != text and _folded(check(address)) != address:
        raise ValueError("another address once it is normalised")
    if _INVISIBLE.search(address):
        raise ValueError("another mailbox that looks the same")
    if len(address.rpartition("@")[0].encode()) > _MAX_LOCAL_PART:
        raise ValueError("the part before the @ is too long")
    return address


_INVISIBLE = re.compile(f"[{_UNSEEN}\U000e0000-\U000e0fff]")


def _folded(address: str) -> str:
    local, at, domain = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", address).lower()).rpartition("@")
    # A capital sigma becomes one or the other small one by its place in the word.
    return f"{local.replace('ς', 'σ')}{at}{domain}"


Email: TypeAlias = Annotated[str, _schema_of(_Address)]
"""An e-mail address in one form per mailbox: trimmed, NFKC, lower case, a domain in Punycode as Unicode.

At most 254 octets, 64 before the @ (RFC 5321, 4.5.3.1). Valid is what pydantic's EmailStr takes, domains for special use refused and
nothing looked up, less ``Name <address>`` and what becomes another address when normalised. A plain ASCII address, of up to 64 characters
and below a top-level domain of two to six letters, is checked in Rust: many times faster, and past any settings of ``email_validator``.
``a+tag`` and ``a`` are two mailboxes. A JSON schema can say no more than the format; whitespace around an address is taken beside it.
"""


# --- Passwords ---

_MIN_PASSWORD, _MAX_PASSWORD = 8, 128


class _Hidden:
    """A password that is wrapped before it is checked, so that no error has it as its input."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        steps = [core_schema.no_info_plain_validator_function(step) for step in (_hide, _check_password)]
        return core_schema.chain_schema([*steps], serialization=core_schema.to_string_ser_schema(when_used="json"))

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        lengths = {"minLength": _MIN_PASSWORD, "maxLength": _MAX_PASSWORD}
        return {"type": "string", "format": "password", "writeOnly": True, "pattern": _NO_NUL, **lengths}


def _hide(value: object) -> SecretStr | None:
    if isinstance(value, str):
        return SecretStr(value)
    return value if isinstance(value, SecretStr) else None


def _check_password(secret: SecretStr | None) -> SecretStr:
    if secret is None:
        raise PydanticKnownError("string_type")
    password = secret.get_secret_value()
    if len(password) < _MIN_PASSWORD:
        raise PydanticKnownError("string_too_short", {"min_length": _MIN_PASSWORD})
    if len(password) > _MAX_PASSWORD:
        raise PydanticKnownError("string_too_long", {"max_length": _MAX_PASSWORD})
    if not is_encodable(password):
        raise PydanticKnownError("string_unicode")
    if "\0" in password:
        raise PydanticKnownError("string_pattern_mismatch", {"pattern": _NO_NUL})
    return secret


Password: TypeAlias = Annotated[SecretStr, _schema_of(_Hidden)]
"""A SecretStr of 8 to 128 characters, kept as typed: no trimming, whatever the model's config says. No NUL, no lone surrogate.

Errors show it as ``**********``, those of pydantic too. A constraint that a field adds is checked on the outside and shows the text in
pydantic's own ``str(error)``, unless the model has ``hide_input_in_errors``. The policy is checked where the password is hashed.
"""
