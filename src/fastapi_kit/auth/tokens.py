"""Signed tokens: made for one purpose, refused for any other."""

import secrets
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime, timedelta
from typing import Protocol, Self, TypeAlias

from pydantic import JsonValue, SecretStr

from fastapi_kit.auth._claims import TOKEN_TYPES, TokenClaims, TokenPolicy, TokenType, check_lifetime, check_type, read_claims
from fastapi_kit.auth._compact import JsonObject, encode_segment, join_token, parse_object, split_token
from fastapi_kit.auth._encoding import extra_claims, later, printable, scope_claim, session_claim, whole_seconds, write_part
from fastapi_kit.auth.keys import Algorithm, JWKSet, Key, Keyring, algorithm_named
from fastapi_kit.errors import ConfigurationError, InvalidTokenError, PermissionDeniedError
from fastapi_kit.settings import KitSettings

__all__ = ["Clock", "JWTService", "TokenClaims", "TokenPolicy", "TokenType", "TokenVerifier"]

Clock: TypeAlias = Callable[[], datetime]
"""Returns the moment it is, with a time zone."""


_DEFAULTS = TokenPolicy()


def _utc_now() -> datetime:
    return datetime.now(UTC)


class TokenVerifier(Protocol):
    """Turns an access token into claims: JWTService, RemoteIssuer, or the host's own."""

    async def verify(self, token: str, /) -> TokenClaims:
        """Return the claims of an access token. Raises InvalidTokenError, and nothing else."""
        ...


class JWTService:
    """Make and check tokens. Give a *secret_key* with its *algorithm*, or a *keyring*.

    A keyring of public keys makes a service that only checks. Instances hold no state and may be shared by threads.
    """

    policy: TokenPolicy

    def __init__(
        self,
        *,
        secret_key: str | bytes | SecretStr | None = None,
        algorithm: Algorithm = "HS256",
        keyring: Keyring | None = None,
        policy: TokenPolicy = _DEFAULTS,
        clock: Clock = _utc_now,
    ) -> None:
        """Raises ConfigurationError on both, neither, or weak keys, TypeError on other types and on a clock without a time zone."""
        check_type(policy, TokenPolicy, "policy must be a TokenPolicy")
        self.policy = policy
        self._keyring = _one_keyring(secret_key, algorithm, keyring)
        self._clock = clock
        self.now()

    @classmethod
    def from_settings(cls, settings: KitSettings) -> Self:
        """Build it from SECRET_KEY, ALGORITHM, the lifetimes, TOKEN_ISSUER and TOKEN_AUDIENCE.

        SECRET_KEY is a secret for HS*, else a PEM. Raises ConfigurationError where it is weak, or does not fit ALGORITHM.
        """
        return cls(
            secret_key=settings.SECRET_KEY,
            algorithm=algorithm_named(settings.ALGORITHM),
            policy=TokenPolicy(
                access_lifetime=timedelta(minutes=settings.ACCESS_TOKEN_EXPIRE_MINUTES),
                refresh_lifetime=timedelta(days=settings.REFRESH_TOKEN_EXPIRE_DAYS),
                issuer=settings.TOKEN_ISSUER,
                audience=settings.TOKEN_AUDIENCE,
            ),
        )

    def create_access_token(
        self,
        subject: str,
        *,
        scopes: Collection[str] = (),
        lifetime: timedelta | None = None,
        sid: str | None = None,
        extra: Mapping[str, JsonValue] | None = None,
    ) -> str:
        """Return an access token for *subject*, an id that never changes: ``str(user.id)``, never an e-mail address.

        *extra* is copied and cannot touch reserved claims (``sub``, ``exp``, ``scope``, ...). Raises ConfigurationError on that, on
        texts that do not print, on names that are not valid scopes (RFC 6749, 3.3), on NaN, and on a token longer than *max_length*;
        TypeError on other types.
        """
        claims = {**extra_claims(extra), **scope_claim(scopes), **session_claim(sid)}
        return self._sign(subject, "access", _or_default(lifetime, self.policy.access_lifetime), claims)

    def create_refresh_token(
        self, subject: str, *, scopes: Collection[str] = (), lifetime: timedelta | None = None, sid: str | None = None
    ) -> str:
        """Return a refresh token. It can be used until it expires. Raises as create_access_token does."""
        claims = {**scope_claim(scopes), **session_claim(sid)}
        return self._sign(subject, "refresh", _or_default(lifetime, self.policy.refresh_lifetime), claims)

    def create_token(self, subject: str, *, type: TokenType, lifetime: timedelta, extra: Mapping[str, JsonValue] | None = None) -> str:
        """Return a token of another *type*, such as a reset link's. Raises as create_access_token does."""
        if type not in TOKEN_TYPES:
            raise ConfigurationError(f"the type of a token is one of {', '.join(TOKEN_TYPES)}")
        return self._sign(subject, type, lifetime, extra_claims(extra))

    def create_impersonation_token(self, subject: str, *, actor: TokenClaims, lifetime: timedelta | None = None) -> str:
        """Return an access token for *subject* that names *actor*. Raises PermissionDeniedError if *actor* itself is impersonated.

        It has no scopes and no session. Whether *actor* may do this is for the caller to check.
        """
        if actor.actor is not None:
            raise PermissionDeniedError("who is impersonated cannot impersonate")
        return self._sign(subject, "access", _or_default(lifetime, self.policy.access_lifetime), {"act": {"sub": actor.sub}})

    def decode(self, token: str, *, type: TokenType = "access") -> TokenClaims:
        """Return the claims of a valid token of this *type*. Raises InvalidTokenError, and nothing else, whatever *token* is.

        The error's *reason* is a fixed text: nothing of the token is in it.
        """
        parts = split_token(token, max_length=self.policy.max_length)
        if not self._find_key(parts.header, type).verify(parts.signing_input, parts.signature):
            raise InvalidTokenError("the signature does not match")
        payload = parse_object(parts.payload, of="payload")
        return read_claims(payload, type=type, policy=self.policy, now=self.now().timestamp())

    async def verify(self, token: str, /) -> TokenClaims:
        """Return the claims of a valid access token: ``decode`` as a TokenVerifier."""
        return self.decode(token)

    def now(self) -> datetime:
        """Return the moment by which tokens are made and checked. Raises TypeError on a clock without a time zone."""
        now = self._clock()
        check_type(now, datetime, _CLOCK)
        if now.utcoffset() is None:
            raise TypeError(_CLOCK)
        return now

    def jwks(self) -> JWKSet:
        """Return the public keys, for ``/.well-known/jwks.json``. Empty where the keys are secrets."""
        return self._keyring.jwks()

    def _sign(self, subject: str, type: TokenType, lifetime: timedelta, claims: JsonObject) -> str:
        key = self._keyring.keys[0]
        payload = {**self._profile_claims(type), **claims, **self._registered_claims(subject, type, lifetime)}
        signing_input = join_token(write_part(self._header(key, type)), write_part(payload))
        token = signing_input + b"." + encode_segment(key.sign(signing_input))
        if len(token) > self.policy.max_length:
            raise ConfigurationError("the token is longer than max_length: put less into its extra claims and scopes")
        return token.decode("ascii")

    def _header(self, key: Key, type: TokenType) -> JsonObject:
        header: JsonObject = {"alg": key.algorithm, "typ": "at+jwt" if self._is_profiled(type) else "JWT"}
        return header if key.kid is None else {**header, "kid": key.kid}

    def _registered_claims(self, subject: str, type: TokenType, lifetime: timedelta) -> JsonObject:
        check_type(subject, str, "the subject must be a text: str(user.id)")
        check_lifetime(lifetime)
        now = self.now()
        claims: JsonObject = {
            "sub": printable(subject, "the subject"),
            "type": type,
            "jti": secrets.token_urlsafe(16),
            "iat": whole_seconds(now),
            "exp": whole_seconds(later(now, lifetime)),
        }
        given: JsonObject = {"iss": self.policy.issuer, "aud": self.policy.audience}
        return claims | {name: value for name, value in given.items() if value is not None}

    def _profile_claims(self, type: TokenType) -> JsonObject:
        return {"client_id": self.policy.client_id} if self._is_profiled(type) else {}

    def _is_profiled(self, type: TokenType) -> bool:
        return type == "access" and self.policy.profile == "rfc9068"

    def _find_key(self, header: JsonObject, type: TokenType) -> Key:
        """Return the key that *header* names. What it says of keys elsewhere (jku, x5u, x5c, jwk) is never looked at."""
        if "crit" in header or header.get("b64", True) is not True:
            raise InvalidTokenError("the header demands an extension")
        if not _is_typed(header, at_jwt=self._is_profiled(type)):
            raise InvalidTokenError("another typ in the header")
        kid = header.get("kid")
        if "kid" in header and not isinstance(kid, str):
            raise InvalidTokenError("kid is not a text")
        key = self._keyring.find(kid if isinstance(kid, str) else None)
        if key is None:
            raise InvalidTokenError("kid is missing or unknown")
        if header.get("alg") != key.algorithm:
            raise InvalidTokenError("another algorithm than the key's")
        return key


def _one_keyring(secret_key: str | bytes | SecretStr | None, algorithm: Algorithm, keyring: Keyring | None) -> Keyring:
    if keyring is None and secret_key is not None:
        return Keyring(Key(secret_key, algorithm))
    if keyring is None or secret_key is not None:
        raise ConfigurationError("give either a secret_key with its algorithm, or a keyring")
    check_type(keyring, Keyring, "keyring must be a Keyring")
    if algorithm != "HS256":
        raise ConfigurationError("with a keyring the keys say their algorithms: leave algorithm out")
    return keyring


_CLOCK = "the clock must return a datetime with a time zone: datetime.now(UTC)"


def _or_default(lifetime: timedelta | None, default: timedelta) -> timedelta:
    return default if lifetime is None else lifetime


def _is_typed(header: JsonObject, *, at_jwt: bool) -> bool:
    typ = header.get("typ")
    if not isinstance(typ, str):
        return not at_jwt and "typ" not in header
    return typ.lower().removeprefix("application/") == ("at+jwt" if at_jwt else "jwt")
