"""Header fields as ASGI has them: pairs of bytes, names in lower case."""

import re
from collections.abc import Iterable
from typing import TypeAlias

from starlette.types import Scope

from fastapi_kit.errors import ConfigurationError

__all__ = ["Field", "header_name", "header_value", "is_token", "replaced", "sent_values"]

Field: TypeAlias = tuple[bytes, bytes]

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")


def is_token(text: str) -> bool:
    """Return whether *text* is a token (RFC 9110, 5.6.2)."""
    return _TOKEN.fullmatch(text) is not None


def header_name(text: str) -> bytes:
    """Return the name of a header field as ASGI has it. Raises ConfigurationError if it is not a valid name (RFC 9110, 5.1)."""
    if not is_token(text):
        raise ConfigurationError(f"{text!r} is not the name of a header")
    return text.lower().encode()


def header_value(name: str, text: str) -> bytes:
    """Return the value of the field *name*. Raises ConfigurationError for a line break, a control or a character outside Latin-1."""
    if _VALUE.fullmatch(text) is None:
        raise ConfigurationError(f"the value of {name} cannot be sent in a header")
    return text.encode("latin-1")


def sent_values(scope: Scope, name: bytes) -> list[bytes]:
    """Return the value of each field *name* of the request. Servers give names in lower case."""
    return [value for key, value in scope["headers"] if key == name]


def replaced(headers: Iterable[Field], field: Field) -> list[Field]:
    """Return *headers* of an answer with *field* last, and without others of its name. Apps may write names in any case."""
    name = field[0]
    fields = [pair for pair in headers if pair[0].lower() != name]
    fields.append(field)
    return fields
