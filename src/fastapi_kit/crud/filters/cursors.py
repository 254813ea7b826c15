"""Cursors: the position of a row in a list, as text for clients."""

import hashlib
import hmac
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any, NamedTuple, cast
from uuid import UUID

from fastapi_kit.errors import ConfigurationError, FieldError, InvalidQueryError

__all__ = ["CursorCodec", "Position", "invalid_cursor"]

_DIGEST_BYTES = 16


class Position(NamedTuple):
    """A place in a list: next to the row with *values*."""

    values: tuple[Any, ...]
    backward: bool = False
    """Whether the page ends there, instead of starting there."""
    inclusive: bool = False
    """Whether the row itself is on the page."""


@dataclass(frozen=True)
class CursorCodec:
    """Writes positions as cursors, and reads them.

    A cursor is valid for its *context* only: the model, the filters and the sort. *key* signs it; without one it has a checksum.
    """

    context: str
    key: bytes | None

    def encode(self, position: Position) -> str:
        """Return the cursor of *position*.

        Raises:
            ConfigurationError: A value has a type that cursors do not support.
        """
        flags = position.backward + 2 * position.inclusive
        content = json.dumps([flags, *map(write, position.values)], separators=(",", ":"), ensure_ascii=False).encode()
        return urlsafe_b64encode(self.digest(content) + content).decode().rstrip("=")

    def decode(self, cursor: str, *, length: int) -> Position:
        """Return the position of *cursor*, which must have *length* values.

        Raises:
            InvalidQueryError: The cursor is malformed, or of another context.
        """
        try:
            raw = urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4))
            digest, content = raw[:_DIGEST_BYTES], raw[_DIGEST_BYTES:]
            if not hmac.compare_digest(digest, self.digest(content)):
                raise invalid_cursor()
            flags, *values = json.loads(content)
            position = Position(tuple(map(read, values)), bool(flags & 1), bool(flags & 2))
        except (ValueError, ArithmeticError, TypeError, LookupError, RecursionError):
            raise invalid_cursor() from None
        if len(values) != length:
            raise invalid_cursor()
        return position

    def digest(self, content: bytes) -> bytes:
        """Return the signature or the checksum of *content* in the context."""
        text = self.context.encode("utf-8", "surrogatepass") + b"\0" + content
        return (hmac.digest(self.key, text, "sha256") if self.key else hashlib.sha256(text).digest())[:_DIGEST_BYTES]


def invalid_cursor() -> InvalidQueryError:
    """Return the error for a cursor that is not one of the list."""
    error = FieldError(("query", "cursor"), "invalid_cursor", "is not a cursor of this list with these filters and this sort")
    return InvalidQueryError("The cursor is not valid.", errors=[error])


def write(value: Any) -> Any:
    """Return *value* as JSON: other types than JSON's as a pair of their name and their text."""
    match value:
        case Enum():
            return value.name
        case str() | int() | float() | None:
            return value
        case datetime():
            return ["datetime", value.isoformat()]
        case date():
            return ["date", value.isoformat()]
        case time():
            return ["time", value.isoformat()]
        case timedelta():
            return ["span", f"{value.days},{value.seconds},{value.microseconds}"]
        case Decimal():
            return ["decimal", str(value)]
        case UUID():
            return ["uuid", str(value)]
        case bytes():
            return ["bytes", value.hex()]
        case _:
            raise ConfigurationError(f"a list in keyset pages cannot be sorted by values of the type {type(value).__name__}")


_READERS: Mapping[str, Callable[[str], Any]] = {
    "datetime": datetime.fromisoformat,
    "date": date.fromisoformat,
    "time": time.fromisoformat,
    "span": lambda text: timedelta(*map(int, text.split(","))),
    "decimal": Decimal,
    "uuid": UUID,
    "bytes": bytes.fromhex,
}


def read(value: Any) -> Any:
    """Return the value that ``write`` wrote. Raises ValueError, ArithmeticError, TypeError or LookupError for another."""
    if isinstance(value, dict):
        raise TypeError("a cursor has no objects")
    if not isinstance(value, list):
        return value
    name, text = cast("list[str]", value)
    return _READERS[name](text)
