"""The login of a browser in cookies, with a defence against cross-site request forgery."""

import hmac
import re
import secrets
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Literal, Self

from fastapi.security import APIKeyCookie
from fastapi.security.base import SecurityBase
from starlette.requests import HTTPConnection
from starlette.responses import Response

from fastapi_kit.auth.logins.protocol import TokenPair
from fastapi_kit.auth.requests.origins import check_origin, trusted_origin
from fastapi_kit.auth.requests.transports import Transport, is_word
from fastapi_kit.auth.tokens.claims import TokenClaims
from fastapi_kit.auth.tokens.policy import check_type
from fastapi_kit.auth.tokens.service import TokenVerifier
from fastapi_kit.dependencies import SAFE_METHODS
from fastapi_kit.errors import AuthenticationError, ConfigurationError, CrossSiteRequestError, InvalidTokenError
from fastapi_kit.settings import KitSettings, check_settings

__all__ = ["CookieTransport"]

PREFIX = "__Host-"
MIN_KEY = 32
MAX_COOKIE = 4096
"""What a browser stores of one cookie, in bytes (RFC 6265bis, 5.6). It ignores a longer one."""
VALUE = re.compile(r"[A-Za-z0-9._~+/=-]+", re.ASCII)
LOGIN = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
"""The random id of a login. ``log_in`` makes one of 22 characters."""


@dataclass(frozen=True)
class Held:
    """What a cookie holds: a token, and the random id by which this login has one CSRF token. The repr hides both."""

    login: str = field(repr=False)
    token: str = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class CookieTransport(Transport):
    """The access token in a cookie that scripts cannot read, for browsers.

    A browser adds its cookies to requests that pages of other sites make. So each method but GET, HEAD, OPTIONS and TRACE needs two more
    things: an ``Origin`` (or a ``Referer``, if there is no ``Origin``) that is the application's own or trusted, and a header with the CSRF
    token, which only pages of the application can read. The handshake of a WebSocket, which has no such header, needs the ``Origin``.
    Without them the request is a CrossSiteRequestError (403), before your route runs.

    A login has three cookies: *name* with the access token, ``{name}-refresh`` with the refresh token, and ``{name}-csrf``, which scripts
    can read. The CSRF token is an HMAC of a random id in the other two. It stays the same until the login ends.

    The prefix ``__Host-`` makes browsers send the cookies to this host only, over TLS only, and keep the cookies of other hosts with
    these names out.

    Args:
        csrf_key: A random secret of 32 bytes or more, the same in all processes. With another key, users get a 403 until they log in again.
        name: The name of the cookie. It begins with ``__Host-``.
        same_site: Which requests of other sites have the cookie (RFC 6265bis, 5.6.7): ``lax`` is navigation. ``none`` is for a frontend on
            another site.
        csrf_header: The header with the CSRF token.
        trusted_origins: The other origins whose pages may use the login, such as ``https://app.example.com``.
        allow_insecure_http: For development without TLS on another host than localhost, which needs no such option: the cookies have
            neither ``Secure`` nor the prefix, so others on the network can read and replace them.
        scheme_name: The name of the entry in OpenAPI.

    Raises:
        ConfigurationError: The key is too short, a name cannot be used, an origin is malformed or a wildcard, or ``same_site="none"`` is
            combined with *allow_insecure_http*.
        TypeError: The key is not bytes.
    """

    csrf_key: bytes = field(repr=False)
    name: str = "__Host-session"
    same_site: Literal["lax", "strict", "none"] = "lax"
    csrf_header: str = "X-CSRF-Token"
    trusted_origins: Collection[str] = ()
    allow_insecure_http: bool = False
    scheme_name: str = "Cookie"

    def __post_init__(self) -> None:
        check_type(self.csrf_key, bytes, "csrf_key must be bytes")
        if len(self.csrf_key) < MIN_KEY:
            raise ConfigurationError(f"csrf_key must be {MIN_KEY} random bytes or more")
        if not self.name.startswith(PREFIX) or not is_word(self.name.removeprefix(PREFIX)):
            raise ConfigurationError(f"the name of the cookie must begin with {PREFIX}, which keeps cookies of other hosts out")
        if not is_word(self.csrf_header):
            raise ConfigurationError(f"{self.csrf_header!r} cannot be the name of a header")
        if self.same_site not in {"lax", "strict", "none"}:
            raise ConfigurationError("same_site is lax, strict or none")
        if self.same_site == "none" and self.allow_insecure_http:
            raise ConfigurationError('same_site="none" needs Secure, which allow_insecure_http leaves out')
        if isinstance(self.trusted_origins, str):
            raise ConfigurationError("trusted_origins is a collection of origins, not one string")
        object.__setattr__(self, "trusted_origins", frozenset(map(trusted_origin, self.trusted_origins)))

    @classmethod
    def from_settings(cls, settings: KitSettings) -> Self:
        """Build a transport with a key that is derived from SECRET_KEY, and with ALLOWED_ORIGINS as the trusted origins.

        For other options use ``dataclasses.replace``. Raises ConfigurationError if ALLOWED_ORIGINS has a wildcard.
        """
        check_settings(settings, "SECRET_KEY", "ALLOWED_ORIGINS")
        key = hmac.digest(settings.SECRET_KEY.get_secret_value().encode(), b"the CSRF tokens of fastapi_kit", "sha256")
        return cls(csrf_key=key, trusted_origins=settings.ALLOWED_ORIGINS)

    @property
    def scheme(self) -> SecurityBase:
        """The cookie."""
        text = f"Other methods than GET, HEAD, OPTIONS and TRACE also need the header `{self.csrf_header}`."
        return APIKeyCookie(name=self._names[0], scheme_name=self.scheme_name, description=text, auto_error=False)

    @property
    def challenge(self) -> str:
        """``Cookie``."""
        return "Cookie"

    async def authenticate(self, connection: HTTPConnection, tokens: TokenVerifier) -> TokenClaims | None:
        """Return the claims of the cookie's token. Raises InvalidTokenError, CrossSiteRequestError."""
        held = self._held(connection, self._names[0])
        if held is None:
            return None
        claims = await tokens.verify(held.token)
        if connection.scope["type"] == "websocket":
            self.check_origin(connection)
        elif connection.scope["method"] not in SAFE_METHODS:
            self._check_request(connection, held)
        return claims

    def check_origin(self, connection: HTTPConnection) -> None:
        """Raise CrossSiteRequestError unless a page of the application, or of a trusted origin, makes the request.

        Call it in a login route of your own: otherwise another site could log its visitors in as another user.
        """
        check_origin(connection, trusted=self.trusted_origins, insecure_http=self.allow_insecure_http)

    def refresh_token(self, connection: HTTPConnection) -> str:
        """Return the refresh token of the request, after the checks that a login in cookies needs.

        Raises:
            AuthenticationError: The request has no refresh token.
            InvalidTokenError: Its cookie is malformed, or there are two of them.
            CrossSiteRequestError: The CSRF token or the origin is wrong.
        """
        held = self._held(connection, self._names[1])
        if held is None:
            raise AuthenticationError
        self._check_request(connection, held)
        return held.token

    def csrf_token(self, connection: HTTPConnection) -> str | None:
        """Return the CSRF token for the login of the request, or None without a login.

        Answer it to pages of a trusted origin, which cannot read the cookie: in a GET route, which CORS protects.

        Raises:
            InvalidTokenError: The cookie is malformed, or there are two of them.
        """
        for name in self._names[:2]:
            if (held := self._held(connection, name)) is not None:
                return self._csrf_token(held.login)
        return None

    def log_in(
        self,
        response: Response,
        tokens: TokenPair | str,
        *,
        lifetime: timedelta | None = None,
        continuing: HTTPConnection | None = None,
    ) -> None:
        """Set the cookies of a login.

        Args:
            response: The response to the login, or to the refresh.
            tokens: A pair, or an access token alone. Without a refresh token the login ends with the access token.
            lifetime: How long the browser keeps the cookies. None: until it is closed. The access token of a pair is kept no longer than
                it is valid.
            continuing: The request to refresh a login: its CSRF token stays the same.

        Raises:
            ConfigurationError: A token is so long that browsers ignore its cookie, or has characters that a cookie cannot have.
        """
        pair = TokenPair(access_token=tokens, refresh_token="", expires_in=0) if isinstance(tokens, str) else tokens
        held = None if continuing is None else self._held(continuing, self._names[1])
        login = secrets.token_urlsafe(16) if held is None else held.login
        seconds = None if lifetime is None else max(int(lifetime.total_seconds()), 0)
        access_seconds = seconds if seconds is None or isinstance(tokens, str) else min(seconds, pair.expires_in)
        access, refresh, csrf = self._names
        self._set(response, access, f"{login}.{pair.access_token}", access_seconds)
        if pair.refresh_token:
            self._set(response, refresh, f"{login}.{pair.refresh_token}", seconds)
        else:
            self._delete(response, refresh)
        self._set(response, csrf, self._csrf_token(login), seconds, readable=True)

    def log_out(self, response: Response) -> None:
        """Delete the cookies. End the login itself with ``AuthFlow.logout``."""
        for name in self._names:
            self._delete(response, name)

    @property
    def _names(self) -> tuple[str, str, str]:
        name = self.name.removeprefix(PREFIX) if self.allow_insecure_http else self.name
        return name, f"{name}-refresh", f"{name}-csrf"

    def _held(self, connection: HTTPConnection, name: str) -> Held | None:
        values = cookies_named(connection, name)
        if len(values) > 1:
            raise InvalidTokenError("more than one cookie with a token")
        if not values:
            return None
        login, _, token = values[0].partition(".")
        if not LOGIN.fullmatch(login):
            raise InvalidTokenError("the cookie with a token is malformed")
        return Held(login, token)

    def _check_request(self, connection: HTTPConnection, held: Held) -> None:
        self.check_origin(connection)
        given = connection.headers.getlist(self.csrf_header)
        expected = self._csrf_token(held.login).encode()
        if len(given) != 1 or not hmac.compare_digest(given[0].encode(), expected):
            raise CrossSiteRequestError(f"The request needs the header {self.csrf_header} with the value of the cookie {self._names[2]}.")

    def _csrf_token(self, login: str) -> str:
        return hmac.digest(self.csrf_key, login.encode(), "sha256").hex()

    def _set(self, response: Response, name: str, value: str, seconds: int | None, *, readable: bool = False) -> None:
        if not VALUE.fullmatch(value):
            raise ConfigurationError("a token in a cookie has letters, digits and ._~+/=- only")
        if len(name) + len(value) > MAX_COOKIE:
            raise ConfigurationError(f"browsers ignore a cookie over {MAX_COOKIE} bytes: put less into the claims and scopes of tokens")
        response.set_cookie(
            name, value, max_age=seconds, secure=not self.allow_insecure_http, httponly=not readable, samesite=self.same_site
        )

    def _delete(self, response: Response, name: str) -> None:
        response.delete_cookie(name, secure=not self.allow_insecure_http, httponly=True, samesite=self.same_site)


def cookies_named(connection: HTTPConnection, name: str) -> list[str]:
    """Return the values of all cookies of that *name*.

    Nothing is decoded and only the space is removed: where a server takes more characters for spaces, another host can set a cookie that
    the server takes for one with the prefix.
    """
    pairs = (pair.partition("=") for header in connection.headers.getlist("cookie") for pair in header.split(";"))
    return [value.strip(" \t") for found, equals, value in pairs if equals and found.strip(" \t") == name]
