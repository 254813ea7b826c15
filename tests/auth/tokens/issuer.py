"""An issuer of tokens, as Auth0 or Keycloak is: it signs with PyJWT and publishes its keys on a real server."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from starlette.types import Receive, Scope, Send
from tests.middleware.asgi import serving

from fastapi_kit.auth.tokens.remote import RemoteIssuer
from fastapi_kit.testing import FrozenClock

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey

FIRST = rsa.generate_private_key(65537, 2048)
SECOND = rsa.generate_private_key(65537, 2048)


def jwk_of(key: PrivateKey, **members: Any) -> dict[str, Any]:
    """Return the public key as a JWK. A member that is ... is left out."""
    kind: Any = {rsa.RSAPrivateKey: RSAAlgorithm, ec.EllipticCurvePrivateKey: ECAlgorithm}.get(
        next(base for base in (rsa.RSAPrivateKey, ec.EllipticCurvePrivateKey, object) if isinstance(key, base)), OKPAlgorithm
    )
    jwk = {**json.loads(kind.to_jwk(key.public_key())), **members}
    return {name: value for name, value in jwk.items() if value is not ...}


class Issuer:
    """What it publishes, how it answers, and how often it was asked."""

    def __init__(self, url: str = "https://tenant.example.org") -> None:
        self.clock = FrozenClock()
        self.fetches = 0
        self.keys = [jwk_of(FIRST, kid="first", use="sig", alg="RS256")]
        self.body: Callable[[], bytes] = lambda: json.dumps({"keys": self.keys}).encode()
        self.status = 200
        self.headers: list[tuple[bytes, bytes]] = []
        self.chunks_left = 0
        self.open = asyncio.Event()
        self.open.set()
        self.url = url
        self.asked = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the document with the keys."""
        self.fetches += 1
        self.asked.set()
        await self.open.wait()
        status = 200 if scope["path"] == "/elsewhere" else self.status
        await send({"type": "http.response.start", "status": status, "headers": self.headers})
        if self.chunks_left:
            await self.send_much(receive, send)
        await send({"type": "http.response.body", "body": self.body()})

    async def send_much(self, receive: Receive, send: Send) -> None:
        """Send chunk after chunk until the client leaves."""

        async def wait_for_end() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass

        end = asyncio.create_task(wait_for_end())
        while self.chunks_left and not end.done():
            self.chunks_left -= 1
            await send({"type": "http.response.body", "body": b" " * 65536, "more_body": True})
            await asyncio.sleep(0)
        end.cancel()

    async def fetch(self, url: str) -> bytes:
        """Return the document without a network."""
        self.fetches += 1
        if self.status != 200:
            raise ConnectionError
        return self.body()

    def token(self, key: PrivateKey = FIRST, algorithm: str = "RS256", *, kid: Any = "first", typ: Any = "JWT", **claims: Any) -> str:
        """Return an access token. A claim that is ... is left out."""
        now = int(self.clock().timestamp())
        usual = {"iss": self.url, "aud": "https://api.example.org", "sub": "auth0|7", "iat": now, "exp": now + 3600}
        payload = {name: value for name, value in {**usual, **claims}.items() if value is not ...}
        headers = {name: value for name, value in {"kid": kid, "typ": typ}.items() if value is not ...}
        return jwt.encode(payload, key, algorithm, headers=headers)

    def verifier(self, **options: Any) -> RemoteIssuer:
        """Return our side."""
        usual: dict[str, Any] = {"audience": "https://api.example.org", "clock": self.clock, "timeout": 30.0}
        if self.url.startswith("https://"):
            usual["fetch"] = self.fetch
        return RemoteIssuer(self.url, **{**usual, **options})

    def advance(self, **by: float) -> None:
        self.clock.advance(timedelta(**by))


@asynccontextmanager
async def running(issuer: Issuer) -> AsyncIterator[Issuer]:
    """Serve *issuer* on this machine."""
    async with serving(issuer, "h11") as served:
        issuer.url = f"http://127.0.0.1:{served.port}"
        yield issuer
        issuer.open.set()
