"""The same tokens for Starlette's ``AuthenticationMiddleware``."""

from collections.abc import Awaitable, Callable

from starlette.authentication import AuthCredentials, AuthenticationBackend, AuthenticationError, BaseUser
from starlette.requests import HTTPConnection

from fastapi_kit.auth.tokens import TokenClaims, TokenVerifier
from fastapi_kit.auth.transports import BearerTransport, Transport
from fastapi_kit.errors import InvalidTokenError

__all__ = ["TokenBackend", "TokenUser"]

_BEARER = BearerTransport()


class TokenUser(BaseUser):
    """The user of a token, as far as the token tells."""

    def __init__(self, claims: TokenClaims) -> None:
        self.claims = claims

    @property
    def is_authenticated(self) -> bool:
        """Always true."""
        return True

    @property
    def display_name(self) -> str:
        """The subject."""
        return self.claims.sub

    @property
    def identity(self) -> str:
        """The subject."""
        return self.claims.sub


class TokenBackend(AuthenticationBackend):
    """Fills ``request.user`` and ``request.auth`` from a token, for HTTP and WebSocket; no token is no user.

    ``request.auth.scopes`` are the token's. *load_user* gives the host's user for its claims, or None: the token is then refused. A bad
    token raises Starlette's AuthenticationError, whose ``__cause__`` is the InvalidTokenError: give the middleware an ``on_error`` that
    answers it with ``problem_response``. Starlette's own answer is a 400 without ``WWW-Authenticate``.
    """

    def __init__(
        self,
        tokens: TokenVerifier,
        *,
        load_user: Callable[[TokenClaims], Awaitable[BaseUser | None]] | None = None,
        transport: Transport = _BEARER,
    ) -> None:
        self._tokens = tokens
        self._load_user = load_user
        self._transport = transport

    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, BaseUser] | None:
        """Return the scopes and the user of the connection, or None."""
        try:
            claims = await self._transport.authenticate(conn, self._tokens)
            return None if claims is None else (AuthCredentials(sorted(claims.scopes)), await self._user_of(claims))
        except InvalidTokenError as error:
            raise AuthenticationError("the token is refused") from error

    async def _user_of(self, claims: TokenClaims) -> BaseUser:
        user = TokenUser(claims) if self._load_user is None else await self._load_user(claims)
        if user is None:
            raise InvalidTokenError("its user does not exist")
        return user
