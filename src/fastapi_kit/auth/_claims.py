"""What the payload of a token must say, and what a host gets to see of it."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Literal, TypeAlias, TypeGuard, TypeVar, get_args

from pydantic import JsonValue

from fastapi_kit.auth._compact import JsonObject
from fastapi_kit.errors import ConfigurationError, InvalidTokenError

TokenType: TypeAlias = Literal["access", "refresh", "verify", "reset", "mfa", "api"]
SubjectT = TypeVar("SubjectT")

TOKEN_TYPES: tuple[TokenType, ...] = get_args(TokenType)
RESERVED = frozenset({"iss", "sub", "aud", "exp", "nbf", "iat", "jti", "type", "scope", "sid", "act"})
"""The claims that the library reads and writes; all others are *extra*."""

_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")
_LAST_MOMENT = 253_402_300_799
_MIN_JTI = 16
_NONE: Mapping[str, JsonValue] = MappingProxyType({})


@dataclass(frozen=True, kw_only=True)
class TokenClaims:
    """What a verified token says, whichever transport brought it."""

    sub: str
    type: TokenType
    jti: str
    iat: datetime
    exp: datetime
    scopes: frozenset[str] = frozenset()
    iss: str | None = None
    aud: tuple[str, ...] = ()
    sid: str | None = None
    """The login session (family of refresh tokens) this token belongs to."""
    actor: str | None = None
    """Who acts as ``sub`` (RFC 8693 ``act``), when impersonating."""
    extra: Mapping[str, JsonValue] = field(default_factory=lambda: _NONE, hash=False)
    """All other claims; cannot be changed."""

    def subject(self, convert: Callable[[str], SubjectT]) -> SubjectT:
        """Return ``sub`` as the type of the application's key: ``claims.subject(int)``. Raises InvalidTokenError if it is not such a key.

        A class (``int``, ``UUID``) must give a value whose ``str`` is ``sub`` again, so that ``" 1"``, ``"1_0"`` and ``"{...}"`` are no
        ids. A function decides alone, by raising ValueError, TypeError or OverflowError.
        """
        try:
            value = convert(self.sub)
        except (ValueError, TypeError, OverflowError):
            raise InvalidTokenError("sub is not of the expected type") from None
        if isinstance(convert, type) and str(value) != self.sub:
            raise InvalidTokenError("sub is not of the expected type")
        return value


@dataclass(frozen=True, kw_only=True)
class TokenPolicy:
    """What is written into tokens and demanded of them. *leeway* is 0 to 300 seconds.

    Lifetimes are at least a second. *issuer* and *audience*, once set, are demanded of every token; without *audience* a token that
    names one is refused. *leeway* bridges clocks that differ, when ``exp``, ``nbf`` and ``iat`` are checked. *max_length* is in characters.

    The profile ``rfc9068`` writes access tokens as RFC 9068 has them, with the header ``typ: at+jwt``, and takes no others. It needs
    *issuer*, *audience* and *client_id*, which is the claim of that name unless a token's *extra* has one.

    Raises ConfigurationError on values out of these bounds, TypeError on other types.
    """

    access_lifetime: timedelta = timedelta(minutes=30)
    refresh_lifetime: timedelta = timedelta(days=7)
    issuer: str | None = None
    audience: str | None = None
    leeway: timedelta = timedelta(seconds=10)
    profile: Literal["plain", "rfc9068"] = "plain"
    client_id: str | None = None
    max_length: int = 8192

    def __post_init__(self) -> None:
        check_lifetime(self.access_lifetime)
        check_lifetime(self.refresh_lifetime)
        _check_leeway(self.leeway)
        for name in ("issuer", "audience", "client_id"):
            value = getattr(self, name)
            if value is not None and not is_plain_text(value):
                raise ConfigurationError(f"{name} must be a printable text, or None")
        self._check_profile()
        check_type(self.max_length, int, "max_length must be an int")
        if not 512 <= self.max_length <= 1_048_576:
            raise ConfigurationError("max_length must be from 512 to 1,048,576")

    def _check_profile(self) -> None:
        if self.profile not in ("plain", "rfc9068"):
            raise ConfigurationError("profile must be 'plain' or 'rfc9068'")
        if self.profile == "rfc9068" and None in (self.issuer, self.audience, self.client_id):
            raise ConfigurationError("the profile rfc9068 needs issuer, audience and client_id")
        if self.profile == "plain" and self.client_id is not None:
            raise ConfigurationError("client_id belongs to the profile rfc9068: put it into a token's extra, or set the profile")


def check_type(value: object, kind: type[object], message: str) -> None:
    """Raise TypeError with *message* unless *value* is of *kind*."""
    if not isinstance(value, kind):
        raise TypeError(message)


def _check_leeway(leeway: timedelta) -> None:
    check_type(leeway, timedelta, "leeway must be a timedelta")
    if not timedelta() <= leeway <= timedelta(seconds=300):
        raise ConfigurationError("leeway must be from 0 to 300 seconds")


def check_lifetime(lifetime: timedelta) -> None:
    """Raise ConfigurationError on less than a second, the resolution of ``exp``; TypeError on no timedelta."""
    check_type(lifetime, timedelta, "a lifetime must be a timedelta")
    if lifetime < timedelta(seconds=1):
        raise ConfigurationError("a lifetime must be at least one second")


def is_plain_text(value: object) -> TypeGuard[str]:
    """Return whether *value* is a text of printable characters, not all of them blank."""
    return isinstance(value, str) and value.isprintable() and bool(value.strip())


def is_scope(value: object) -> TypeGuard[str]:
    """Return whether *value* is a scope token (RFC 6749, 3.3)."""
    return isinstance(value, str) and _SCOPE.fullmatch(value) is not None


def read_claims(payload: JsonObject, *, type: TokenType, policy: TokenPolicy, now: float) -> TokenClaims:
    """Return the claims in *payload*, the token's signature being good; *now* is in seconds. Raises InvalidTokenError, and nothing else."""
    if payload.get("type") != type or type not in TOKEN_TYPES:
        raise InvalidTokenError("another type of token")
    iat, exp = _read_times(payload, leeway=policy.leeway.total_seconds(), now=now)
    if type == "access" and policy.profile == "rfc9068":
        _text(payload, "client_id")
    return TokenClaims(
        sub=_text(payload, "sub"),
        type=type,
        jti=_read_jti(payload),
        iat=datetime.fromtimestamp(iat, UTC),
        exp=datetime.fromtimestamp(exp, UTC),
        scopes=_read_scopes(payload),
        iss=_read_issuer(payload, policy.issuer),
        aud=_read_audience(payload, policy.audience),
        sid=_text(payload, "sid") if "sid" in payload else None,
        actor=_read_actor(payload),
        extra=MappingProxyType({name: value for name, value in payload.items() if name not in RESERVED}),
    )


def _read_times(payload: JsonObject, *, leeway: float, now: float) -> tuple[float, float]:
    exp, iat = _moment(payload, "exp"), _moment(payload, "iat")
    if now >= exp + leeway:
        raise InvalidTokenError("expired")
    if "nbf" in payload and _moment(payload, "nbf") > now + leeway:
        raise InvalidTokenError("not valid yet")
    if iat > now + leeway:
        raise InvalidTokenError("issued in the future")
    if iat > exp:
        raise InvalidTokenError("issued after its end")
    return iat, exp


def _moment(payload: JsonObject, name: str) -> float:
    value = payload.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _LAST_MOMENT:
        raise InvalidTokenError(f"{name} is missing or no timestamp")
    return value


def _text(payload: JsonObject, name: str) -> str:
    value = payload.get(name)
    if not is_plain_text(value):
        raise InvalidTokenError(f"{name} is missing or malformed")
    return value


def _read_jti(payload: JsonObject) -> str:
    jti = _text(payload, "jti")
    if len(jti) < _MIN_JTI:
        raise InvalidTokenError("jti is too short to be unique")
    return jti


def _read_issuer(payload: JsonObject, issuer: str | None) -> str | None:
    if issuer is None and "iss" not in payload:
        return None
    found = _text(payload, "iss")
    if issuer is not None and found != issuer:
        raise InvalidTokenError("another issuer")
    return found


def _read_audience(payload: JsonObject, audience: str | None) -> tuple[str, ...]:
    if audience is None and "aud" not in payload:
        return ()
    found = payload.get("aud")
    named = [name for name in (found if isinstance(found, list) else [found]) if is_plain_text(name)]
    if not named or (isinstance(found, list) and len(named) != len(found)):
        raise InvalidTokenError("aud is missing or malformed")
    if audience not in named:
        raise InvalidTokenError("another audience")
    return tuple(named)


def _read_scopes(payload: JsonObject) -> frozenset[str]:
    if "scope" not in payload:
        return frozenset()
    value = payload["scope"]
    scopes = value.split(" ") if isinstance(value, str) else []
    if not scopes or not all(map(is_scope, scopes)):
        raise InvalidTokenError("scope is malformed")
    return frozenset(scopes)


def _read_actor(payload: JsonObject) -> str | None:
    if "act" not in payload:
        return None
    act = payload["act"]
    if not isinstance(act, dict) or set(act) != {"sub"}:
        raise InvalidTokenError("act is malformed")
    return _text(act, "sub")
