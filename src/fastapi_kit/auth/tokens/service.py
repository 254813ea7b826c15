"""Signed tokens: each is created for one purpose and rejected for every other."""

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from typing import Protocol, Self

from pydantic import JsonValue, SecretStr

from fastapi_kit.auth.tokens._compact import JsonObject, encode_segment, read_kid, split_token, write_object
from fastapi_kit.auth.tokens.claims import TOKEN_TYPES, TokenClaims, TokenType, read_claims, write_claims
from fastapi_kit.auth.tokens.keys import Algorithm, JWKSet, Key, Keyring, check_algorithm, read_payload
from fastapi_kit.auth.tokens.policy import Clock, TokenPolicy, check_type, utc_now
from fastapi_kit.errors import ConfigurationError
from fastapi_kit.settings import KitSettings, check_settings

__all__ = ["Clock", "JWTService", "TokenVerifier", "utc_now"]

DEFAULT_POLICY = TokenPolicy()
CLOCK_MESSAGE = "the clock must return a datetime with a time zone: datetime.now(UTC)"


class TokenVerifier(Protocol):
    """Verifies the access token of a request: a ``JWTService``, logins, a ``RemoteIssuer``, or a class of your own."""

    async def verify(self, token: str, /) -> TokenClaims:
        """Return the claims of an access token that is valid now. Raises InvalidTokenError.

        One that asks a store or another server raises UnavailableError if that does not answer.
        """
        ...


class JWTService:
    """Create and decode signed tokens.

    Instances hold no state. Share one between threads and event loops. A keyring of public keys makes a service that only decodes.

    Example:
        ```python
        from fastapi_kit.auth import JWTService

        tokens = JWTService(secret_key="mD3vY7qT1kR9wX5zB8nL2pC6hJ4gF0sA")

        token = tokens.create_access_token("7", scopes=["reports:read"])
        claims = tokens.decode(token)
        assert claims.subject(int) == 7
        assert claims.scopes == {"reports:read"}
        ```
    """

    policy: TokenPolicy

    def __init__(
        self,
        *,
        secret_key: str | bytes | SecretStr | None = None,
        algorithm: Algorithm = "HS256",
        keyring: Keyring | None = None,
        policy: TokenPolicy = DEFAULT_POLICY,
        clock: Clock = utc_now,
    ) -> None:
        """Take either *secret_key* with its *algorithm*, or *keyring*.

        Args:
            secret_key: A random secret for HS256, HS384 and HS512, a PEM for the other algorithms.
            algorithm: The algorithm of *secret_key*.
            keyring: Several keys, or keys with a ``kid``. Each has its own algorithm.
            policy: Lifetimes, issuer, audience and limits.
            clock: Returns the current time, with a time zone. Tests pass a ``FrozenClock``.

        Raises:
            ConfigurationError: Both or neither are given, or a key is weak or does not fit its algorithm.
            TypeError: An argument has another type, or the clock returns a time without a time zone.
        """
        check_type(policy, TokenPolicy, "policy must be a TokenPolicy")
        if (keyring is None) == (secret_key is None):
            raise ConfigurationError("give either a secret_key with its algorithm, or a keyring")
        if keyring is not None and algorithm != "HS256":
            raise ConfigurationError("the keys of a keyring have their algorithms: leave algorithm out")
        if secret_key is not None:
            keyring = Keyring(Key(secret_key, algorithm))
        if not isinstance(keyring, Keyring):
            raise TypeError("keyring must be a Keyring")
        self.policy = policy
        self._keyring = keyring
        self._clock = clock
        check_type(clock(), datetime, CLOCK_MESSAGE)
        self.now()

    @classmethod
    def from_settings(cls, settings: KitSettings) -> Self:
        """Build a service from SECRET_KEY, ALGORITHM, both lifetimes, TOKEN_ISSUER and TOKEN_AUDIENCE.

        SECRET_KEY is a random secret for HS256, HS384 and HS512, a PEM for the other algorithms.

        Raises:
            ConfigurationError: SECRET_KEY is weak, or does not fit ALGORITHM, or *settings* has not all of these fields.
        """
        lifetimes = ("ACCESS_TOKEN_EXPIRE_MINUTES", "REFRESH_TOKEN_EXPIRE_DAYS")
        check_settings(settings, "SECRET_KEY", "ALGORITHM", *lifetimes, "TOKEN_ISSUER", "TOKEN_AUDIENCE")
        return cls(
            secret_key=settings.SECRET_KEY,
            algorithm=check_algorithm(settings.ALGORITHM),
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
        actor: str | None = None,
        extra: Mapping[str, JsonValue] | None = None,
    ) -> str:
        """Return an access token.

        Args:
            subject: An id that never changes: ``str(user.id)``, not an e-mail address.
            scopes: What the token allows (RFC 6749, 3.3).
            lifetime: Without it, the policy's ``access_lifetime``.
            sid: The id of the login that the token belongs to.
            actor: The id of another user, who acts as *subject*. See ``Impersonation``.
            extra: Claims of your own, as plain JSON.

        Raises:
            ConfigurationError: *extra* contains a claim that the library writes, a string cannot be printed, a scope is malformed, the
                token is longer than the policy's ``max_length``, or the key is public.
            TypeError: An argument has another type.
        """
        lifetime = self.policy.access_lifetime if lifetime is None else lifetime
        return self._create(subject, "access", lifetime, scopes=scopes, sid=sid, actor=actor, extra=extra)

    def create_refresh_token(
        self,
        subject: str,
        *,
        scopes: Collection[str] = (),
        lifetime: timedelta | None = None,
        sid: str | None = None,
        jti: str | None = None,
    ) -> str:
        """Return a refresh token, which can be used until it expires.

        Without *lifetime* it lives as long as the policy's ``refresh_lifetime``. *jti* is the id of the token, a random string of 16
        characters or more; without it, one is made. Raises as ``create_access_token`` does.
        """
        lifetime = self.policy.refresh_lifetime if lifetime is None else lifetime
        return self._create(subject, "refresh", lifetime, scopes=scopes, sid=sid, jti=jti)

    def create_token(self, subject: str, *, type: TokenType, lifetime: timedelta, extra: Mapping[str, JsonValue] | None = None) -> str:
        """Return a token of any *type*, such as the token in a reset link. Raises as ``create_access_token`` does."""
        if type not in TOKEN_TYPES:
            raise ConfigurationError(f"the type of a token is one of {', '.join(TOKEN_TYPES)}")
        return self._create(subject, type, lifetime, extra=extra)

    def decode(self, token: str, *, type: TokenType = "access") -> TokenClaims:
        """Return the claims of a valid token of this *type*.

        Raises:
            InvalidTokenError: For every reason, whatever *token* is; nothing else is raised. *reason* is a fixed text that contains
                nothing of the token.
        """
        parts = split_token(token, max_length=self.policy.max_length)
        payload = read_payload(parts, self._keyring.find(read_kid(parts.header, types={"jwt"})))
        return read_claims(payload, type=type, policy=self.policy, now=self.now().timestamp())

    async def verify(self, token: str, /) -> TokenClaims:
        """Return the claims of a valid access token: ``decode``, in the form of a ``TokenVerifier``."""
        return self.decode(token)

    def now(self) -> datetime:
        """Return the time by which tokens are created and decoded. Raises TypeError if the clock returns no time zone."""
        now = self._clock()
        if now.utcoffset() is None:
            raise TypeError(CLOCK_MESSAGE)
        return now

    def jwks(self) -> JWKSet:
        """Return the public keys, for ``/.well-known/jwks.json``. The list is empty if the keys are secrets."""
        return self._keyring.jwks()

    def _create(
        self,
        subject: str,
        type: TokenType,
        lifetime: timedelta,
        *,
        scopes: Collection[str] = (),
        sid: str | None = None,
        jti: str | None = None,
        actor: str | None = None,
        extra: Mapping[str, JsonValue] | None = None,
    ) -> str:
        key = self._keyring.keys[0]
        header: JsonObject = {"alg": key.algorithm, "typ": "JWT"}
        if key.kid is not None:
            header["kid"] = key.kid
        claims = write_claims(
            subject,
            type=type,
            lifetime=lifetime,
            now=self.now(),
            policy=self.policy,
            scopes=scopes,
            sid=sid,
            jti=jti,
            actor=actor,
            extra=extra,
        )
        signing_input = encode_segment(write_object(header)) + b"." + encode_segment(write_object(claims))
        token = signing_input + b"." + encode_segment(key.sign(signing_input))
        if len(token) > self.policy.max_length:
            raise ConfigurationError("the token is longer than max_length: put less into its extra claims and scopes")
        return token.decode("ascii")
