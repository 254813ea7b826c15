"""The payload of a token: what is written into it, how it is checked, and what an application sees of it."""

import re
import secrets
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Literal, TypeAlias, TypeVar, get_args

from pydantic import JsonValue

from fastapi_kit.auth.tokens._compact import JsonObject
from fastapi_kit.auth.tokens.policy import TokenPolicy, check_lifetime, check_type, is_printable
from fastapi_kit.errors import ConfigurationError, InvalidTokenError

__all__ = [
    "RESERVED",
    "TOKEN_TYPES",
    "TokenClaims",
    "TokenType",
    "is_scope",
    "join_scopes",
    "read_actor",
    "read_audience",
    "read_claims",
    "read_text",
    "read_times",
    "write_claims",
]

TokenType: TypeAlias = Literal["access", "refresh", "verify", "reset", "mfa", "api"]
SubjectT = TypeVar("SubjectT")

TOKEN_TYPES: tuple[TokenType, ...] = get_args(TokenType)

RESERVED = frozenset({"iss", "sub", "aud", "exp", "nbf", "iat", "jti", "type", "scope", "sid", "act"})
"""The claims that the library reads and writes. All others are *extra*."""
SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")
"""A scope token (RFC 6749, 3.3)."""
LAST_SECOND = 253_402_300_799
"""The end of the year 9999."""
MIN_JTI_LENGTH = 16
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NO_CLAIMS: Mapping[str, JsonValue] = MappingProxyType({})


@dataclass(frozen=True, kw_only=True)
class TokenClaims:
    """The claims of a token that was decoded, whichever transport carried it."""

    sub: str
    type: TokenType
    jti: str
    iat: datetime
    exp: datetime
    scopes: frozenset[str] = frozenset()
    iss: str | None = None
    aud: tuple[str, ...] = ()
    sid: str | None = None
    """The login that this token belongs to."""
    actor: str | None = None
    """The user who acts as ``sub``, from the claim ``act`` (RFC 8693, 4.1). None in a token that its own user has."""
    extra: Mapping[str, JsonValue] = field(default_factory=lambda: NO_CLAIMS, hash=False)
    """All other claims. The mapping cannot be changed."""

    def subject(self, convert: Callable[[str], SubjectT]) -> SubjectT:
        """Return ``sub`` as the type of your key: ``claims.subject(int)``.

        Args:
            convert: A class such as ``int`` or ``UUID``, or a function. With a class, ``str`` of the value must be ``sub`` again, so
                ``" 1"``, ``"1_0"`` and ``"{...}"`` are rejected. A function decides alone: it rejects by ValueError, TypeError or
                OverflowError.

        Raises:
            InvalidTokenError: ``sub`` is not such a key.
        """
        try:
            value = convert(self.sub)
        except (ValueError, TypeError, OverflowError):
            raise InvalidTokenError("sub is not of the expected type") from None
        if isinstance(convert, type) and str(value) != self.sub:
            raise InvalidTokenError("sub is not of the expected type")
        return value


# --- Writing ---


def write_claims(
    subject: str,
    *,
    type: TokenType,
    lifetime: timedelta,
    now: datetime,
    policy: TokenPolicy,
    scopes: Collection[str] = (),
    sid: str | None = None,
    jti: str | None = None,
    actor: str | None = None,
    extra: Mapping[str, JsonValue] | None = None,
) -> JsonObject:
    """Return the payload of a new token, which ``read_claims`` accepts. Raises ConfigurationError, TypeError."""
    check_type(subject, str, "the subject must be a str: str(user.id)")
    check_lifetime(lifetime)
    try:
        end = now.astimezone(UTC) + lifetime
    except OverflowError:
        raise ConfigurationError("the lifetime ends after the year 9999: make it shorter") from None
    claims: JsonObject = dict(extra or {})
    if taken := RESERVED.intersection(claims):
        raise ConfigurationError(f"extra cannot set {', '.join(sorted(taken))}: the library writes it; choose another name")
    # Whole seconds, rounded down: no token lives longer than its lifetime.
    iat, exp = ((moment - EPOCH) // timedelta(seconds=1) for moment in (now, end))
    if jti is not None and len(jti) < MIN_JTI_LENGTH:
        raise ConfigurationError(f"jti must be a random string of {MIN_JTI_LENGTH} characters or more")
    claims |= {"type": type, "jti": secrets.token_urlsafe(16) if jti is None else jti, "iat": iat, "exp": exp}
    if scope := join_scopes(scopes):
        claims["scope"] = scope
    for name, text in (("sub", subject), ("sid", sid), ("jti", jti), ("iss", policy.issuer), ("aud", policy.audience)):
        if text is not None:
            check_type(text, str, f"{name} must be a str")
            if not is_printable(text):
                raise ConfigurationError(f"{name} must be a string of printable characters that is not blank")
            claims[name] = text
    if actor is not None:
        check_type(actor, str, "the actor must be a str: str(user.id)")
        if not is_printable(actor):
            raise ConfigurationError("the actor must be a string of printable characters that is not blank")
        claims["act"] = {"sub": actor}
    return claims


def join_scopes(scopes: Collection[str]) -> str:
    """Return the value of ``scope`` (RFC 9068, 2.2.3). Raises ConfigurationError, TypeError."""
    if isinstance(scopes, str | bytes):
        raise TypeError("scopes must be a collection of strings, not one string")
    names = set(scopes)
    if not all(map(is_scope, names)):
        raise ConfigurationError("a scope is printable ASCII without space, quotation mark and backslash (RFC 6749, 3.3)")
    return " ".join(sorted(names))


def is_scope(value: object) -> bool:
    """Return whether *value* is a scope token."""
    return isinstance(value, str) and SCOPE.fullmatch(value) is not None


# --- Reading ---


def read_claims(payload: JsonObject, *, type: TokenType, policy: TokenPolicy, now: float) -> TokenClaims:
    """Check every claim of a payload whose signature is good, and return them. *now* is in seconds.

    Raises:
        InvalidTokenError: A claim is missing, malformed or out of place. Nothing else is raised.
    """
    if payload.get("type") != type or type not in TOKEN_TYPES:
        raise InvalidTokenError("another type of token")
    iat, exp = read_times(payload, leeway=policy.leeway.total_seconds(), now=now)
    sub, jti = read_text(payload, "sub"), read_text(payload, "jti")
    if len(jti) < MIN_JTI_LENGTH:
        raise InvalidTokenError("jti is too short to be unique")
    iss = read_text(payload, "iss") if policy.issuer is not None or "iss" in payload else None
    if policy.issuer is not None and iss != policy.issuer:
        raise InvalidTokenError("another issuer")
    return TokenClaims(
        sub=sub,
        type=type,
        jti=jti,
        iat=datetime.fromtimestamp(iat, UTC),
        exp=datetime.fromtimestamp(exp, UTC),
        scopes=read_scopes(payload["scope"]) if "scope" in payload else frozenset(),
        iss=iss,
        aud=read_audience(payload.get("aud"), policy.audience) if policy.audience is not None or "aud" in payload else (),
        sid=read_text(payload, "sid") if "sid" in payload else None,
        actor=read_actor(payload["act"], type) if "act" in payload else None,
        extra=MappingProxyType({name: value for name, value in payload.items() if name not in RESERVED}),
    )


def read_times(payload: JsonObject, *, leeway: float, now: float) -> tuple[float, float]:
    """Check ``exp``, ``nbf`` and ``iat``; return ``iat`` and ``exp``."""
    times: dict[str, float] = {}
    for name in ("exp", "iat", "nbf") if "nbf" in payload else ("exp", "iat"):
        value = payload.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= LAST_SECOND:
            raise InvalidTokenError(f"{name} is missing or not a timestamp")
        times[name] = value
    iat, exp = times["iat"], times["exp"]
    if now >= exp + leeway:
        raise InvalidTokenError("expired")
    if times.get("nbf", 0) > now + leeway:
        raise InvalidTokenError("not valid yet")
    if iat > now + leeway:
        raise InvalidTokenError("issued in the future")
    if iat > exp:
        raise InvalidTokenError("issued after its end")
    return iat, exp


def read_text(payload: JsonObject, name: str) -> str:
    """Return a claim that must be a printable string."""
    value = payload.get(name)
    if not is_printable(value):
        raise InvalidTokenError(f"{name} is missing or malformed")
    return value


def read_actor(value: JsonValue, type: TokenType) -> str:
    """Return the user who acts. Actors before that one are ignored, as RFC 8693, 4.1 says. Only access tokens have an actor."""
    if type != "access" or not isinstance(value, dict):
        raise InvalidTokenError("act is malformed or out of place")
    return read_text(value, "sub")


def read_audience(found: JsonValue, audience: str | None) -> tuple[str, ...]:
    """Return the audiences, of which *audience* must be one."""
    written = found if isinstance(found, list) else [found]
    named = tuple(name for name in written if is_printable(name))
    if not named or len(named) != len(written):
        raise InvalidTokenError("aud is missing or malformed")
    if audience not in named:
        raise InvalidTokenError("another audience")
    return named


def read_scopes(value: JsonValue) -> frozenset[str]:
    """Return the scopes in the claim ``scope``."""
    scopes = value.split(" ") if isinstance(value, str) else []
    if not scopes or not all(map(is_scope, scopes)):
        raise InvalidTokenError("scope is malformed")
    return frozenset(scopes)
