"""A verifier for the access tokens of another issuer."""

from collections.abc import Collection
from datetime import timedelta

from fastapi_kit.auth.tokens._compact import read_kid, split_token
from fastapi_kit.auth.tokens.claims import TokenClaims
from fastapi_kit.auth.tokens.keys import Algorithm, check_algorithm, read_payload
from fastapi_kit.auth.tokens.policy import Clock, TokenPolicy, check_type, utc_now
from fastapi_kit.auth.tokens.remote.claims import AudienceClaim, read_foreign_claims
from fastapi_kit.auth.tokens.remote.fetch import Fetch, check_url, get_fetch
from fastapi_kit.auth.tokens.remote.keys import RemoteKeys
from fastapi_kit.errors import ConfigurationError, InvalidTokenError

__all__ = ["RemoteIssuer"]

TYPES = frozenset({"jwt", "at+jwt"})
RS256: tuple[Algorithm, ...] = ("RS256",)
SHORTEST = timedelta(seconds=1)


class RemoteIssuer:
    """Verify the access tokens of another issuer by the keys that it publishes. It is a ``TokenVerifier``.

    A token must be signed by a published key with one of *algorithms*, be an access token of *issuer* for *audience*, and have ``exp``,
    ``iat`` and ``sub``. ID tokens, refresh tokens and logout tokens are rejected.

    The keys are fetched with the first token. They are fetched again after *cache_lifetime*, and when a token names a key that is not
    there, but never more often than *min_refetch*. Requests that wait for them share one fetch. If a fetch fails, the old keys go on
    working until they are *max_stale* old. After that, and if there never were any, ``verify`` raises UnavailableError (503).

    Args:
        issuer: The claim ``iss`` of the tokens, character by character.
        audience: One of the audiences in the tokens: the name of your API at the issuer. It must not be the id of a client.
        algorithms: Those that the issuer signs with. The default is RS256. HS256, HS384 and HS512 are not possible.
        jwks_url: The address of the keys: https, or http on this machine. Without it, ``/.well-known/jwks.json`` under *issuer*.
        scope_claim: The claim with the scopes, a string or a list: ``scope``, or ``scp`` of Entra ID and Okta.
        audience_claim: The claim to find *audience* in. Access tokens of Cognito have ``client_id`` instead of ``aud``.
        cache_lifetime: At least *min_refetch*.
        max_stale: At least *cache_lifetime*.
        min_refetch: At least a second. While there are no keys at all, 5 seconds are enough.
        timeout: Seconds for one fetch.
        leeway: Allowance for clocks that differ, 0 to 300 seconds.
        max_length: The longest token to accept, in characters.
        fetch: Gets the document instead of httpx: returns the body at a URL. Do not follow redirects there.
        clock: Returns the current time, with a time zone.

    Raises:
        ConfigurationError: An argument is out of bounds, an algorithm is unknown or takes a secret, or the URL is not https.
        MissingExtraError: The extra ``remote`` is not installed, and there is no *fetch*.
        TypeError: *algorithms* is one string.
    """

    def __init__(
        self,
        issuer: str,
        *,
        audience: str,
        algorithms: Collection[Algorithm] = RS256,
        jwks_url: str | None = None,
        scope_claim: str = "scope",
        audience_claim: AudienceClaim = "aud",
        cache_lifetime: timedelta = timedelta(minutes=10),
        max_stale: timedelta = timedelta(hours=1),
        min_refetch: timedelta = timedelta(seconds=30),
        timeout: float = 5.0,
        leeway: timedelta = timedelta(seconds=10),
        max_length: int = 8192,
        fetch: Fetch | None = None,
        clock: Clock = utc_now,
    ) -> None:
        check_type(issuer, str, "issuer must be a str")
        check_type(audience, str, "audience must be a str")
        url = issuer.rstrip("/") + "/.well-known/jwks.json" if jwks_url is None else jwks_url
        check_url(url)
        if not SHORTEST <= min_refetch <= cache_lifetime <= max_stale:
            raise ConfigurationError("one second, min_refetch, cache_lifetime and max_stale must be in ascending order")
        if not 0 < timeout <= 60:
            raise ConfigurationError("timeout must be more than 0 and at most 60 seconds")
        self._policy = TokenPolicy(issuer=issuer, audience=audience, leeway=leeway, max_length=max_length)
        self._algorithms = check_algorithms(algorithms)
        self._scope_claim = scope_claim
        self._audience_claim: AudienceClaim = audience_claim
        self._clock = clock
        self._keys = RemoteKeys(
            url,
            algorithms=self._algorithms,
            lifetime=cache_lifetime,
            max_stale=max_stale,
            min_refetch=min_refetch,
            timeout=timeout,
            fetch=get_fetch() if fetch is None else fetch,
            clock=clock,
        )

    async def verify(self, token: str, /) -> TokenClaims:
        """Return the claims of an access token.

        Raises:
            InvalidTokenError: The token is not accepted. *reason* is a fixed text that contains nothing of it.
            UnavailableError: The keys of the issuer cannot be fetched.
        """
        parts = split_token(token, max_length=self._policy.max_length)
        kid, algorithm = read_kid(parts.header, types=TYPES), parts.header.get("alg")
        if not isinstance(algorithm, str) or algorithm not in self._algorithms:
            raise InvalidTokenError("another algorithm")
        payload = read_payload(parts, await self._keys.find(kid, algorithm))
        return read_foreign_claims(
            parts,
            payload,
            policy=self._policy,
            now=self._clock().timestamp(),
            scope_claim=self._scope_claim,
            audience_claim=self._audience_claim,
        )


def check_algorithms(algorithms: Collection[Algorithm]) -> frozenset[Algorithm]:
    """Return *algorithms*. Raises ConfigurationError, TypeError."""
    if isinstance(algorithms, str):
        raise TypeError("algorithms is a collection: write algorithms=['RS256']")
    checked = frozenset[Algorithm](check_algorithm(algorithm) for algorithm in algorithms)
    if not checked:
        raise ConfigurationError("name the algorithms that the issuer signs with")
    if any(algorithm.startswith("HS") for algorithm in checked):
        raise ConfigurationError("HS256, HS384 and HS512 take a shared secret, which an issuer does not publish")
    return checked
