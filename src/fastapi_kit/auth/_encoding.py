"""From what a caller gives to what is written: nothing that the reading side would refuse."""

from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta

from pydantic import JsonValue

from fastapi_kit.auth._claims import RESERVED, check_type, is_plain_text, is_scope
from fastapi_kit.auth._compact import JsonObject, write_object
from fastapi_kit.errors import ConfigurationError

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def whole_seconds(moment: datetime) -> int:
    """Return whole seconds, rounded down, so that no token lives longer than its lifetime."""
    return (moment - _EPOCH) // timedelta(seconds=1)


def later(now: datetime, lifetime: timedelta) -> datetime:
    """Return *now* plus *lifetime*. Raises ConfigurationError beyond the calendar."""
    try:
        return now.astimezone(UTC) + lifetime
    except OverflowError:
        raise ConfigurationError("the lifetime goes beyond the year 9999: make it shorter") from None


def printable(text: str, name: str) -> str:
    """Return *text* as it is. Raises ConfigurationError on one that a claim cannot hold."""
    if not is_plain_text(text):
        raise ConfigurationError(f"{name} must be a text of printable characters that is not empty")
    return text


def session_claim(sid: str | None) -> JsonObject:
    """Return the claim of a login session, if there is one."""
    if sid is None:
        return {}
    check_type(sid, str, "sid must be a text")
    return {"sid": printable(sid, "sid")}


def scope_claim(scopes: Collection[str]) -> JsonObject:
    """Return the claim of *scopes* (RFC 9068, 2.2.3), if there are any."""
    if isinstance(scopes, str | bytes):
        raise TypeError("scopes must be a list of texts, not one text")
    if not all(map(is_scope, scopes)):
        raise ConfigurationError("a scope is printable ASCII without space, quotation mark and backslash (RFC 6749, 3.3)")
    return {"scope": " ".join(sorted(set(scopes)))} if scopes else {}


def extra_claims(extra: Mapping[str, JsonValue] | None) -> JsonObject:
    """Return a copy of *extra*. Raises ConfigurationError where it touches a claim of the library."""
    claims = dict(extra or {})
    if taken := RESERVED.intersection(claims):
        raise ConfigurationError(f"extra cannot set {', '.join(sorted(taken))}: the library writes it; choose another name")
    return claims


def write_part(value: JsonObject) -> bytes:
    """Return *value* as JSON: only what decode would take."""
    try:
        return write_object(value)
    except (ValueError, RecursionError):
        raise ConfigurationError(
            "extra claims must be finite numbers and whole texts, nested at most 100 levels, without a key twice"
        ) from None
    except TypeError:
        raise TypeError("extra claims must be plain JSON: texts, numbers, booleans, None, lists, and dicts with texts as keys") from None
