"""What a service writes into its tokens and requires of them, and the clock by which it does."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeAlias, TypeGuard

from fastapi_kit.errors import ConfigurationError

__all__ = ["Clock", "TokenPolicy", "check_lifetime", "check_type", "is_printable", "utc_now"]

Clock: TypeAlias = Callable[[], datetime]
"""Returns the current time, with a time zone."""


def utc_now() -> datetime:
    """Return the current time in UTC."""
    return datetime.now(UTC)


@dataclass(frozen=True, kw_only=True)
class TokenPolicy:
    """Lifetimes, issuer, audience and limits of tokens.

    Args:
        access_lifetime: At least one second.
        refresh_lifetime: At least one second.
        issuer: If set, it is written into every token and required of every token.
        audience: If set, it is written into every token and required of every token. Without it, a token that names an audience is
            rejected.
        leeway: Allowance for clocks that differ, 0 to 300 seconds. Applies to ``exp``, ``nbf`` and ``iat``.
        max_length: The longest token to create or to decode, in characters.

    Raises:
        ConfigurationError: A value is out of bounds.
        TypeError: A value has another type.
    """

    access_lifetime: timedelta = timedelta(minutes=30)
    refresh_lifetime: timedelta = timedelta(days=7)
    issuer: str | None = None
    audience: str | None = None
    leeway: timedelta = timedelta(seconds=10)
    max_length: int = 8192

    def __post_init__(self) -> None:
        check_lifetime(self.access_lifetime)
        check_lifetime(self.refresh_lifetime)
        check_type(self.leeway, timedelta, "leeway must be a timedelta")
        if not timedelta() <= self.leeway <= timedelta(seconds=300):
            raise ConfigurationError("leeway must be from 0 to 300 seconds")
        for name, value in (("issuer", self.issuer), ("audience", self.audience)):
            if value is not None and not is_printable(value):
                raise ConfigurationError(f"{name} must be a string of printable characters, or None")
        check_type(self.max_length, int, "max_length must be an int")
        if not 512 <= self.max_length <= 1_048_576:
            raise ConfigurationError("max_length must be from 512 to 1,048,576")


def check_type(value: object, kind: type[object], message: str) -> None:
    """Raise TypeError with *message* unless *value* is an instance of *kind*."""
    if not isinstance(value, kind):
        raise TypeError(message)


def check_lifetime(lifetime: timedelta) -> None:
    """Raise ConfigurationError for less than one second, which is the resolution of ``exp``. Raise TypeError for another type."""
    check_type(lifetime, timedelta, "a lifetime must be a timedelta")
    if lifetime < timedelta(seconds=1):
        raise ConfigurationError("a lifetime must be at least one second")


def is_printable(value: object) -> TypeGuard[str]:
    """Return whether *value* is a string of printable characters that is not blank."""
    return isinstance(value, str) and value.isprintable() and bool(value.strip())
