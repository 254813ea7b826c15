"""Cross-origin requests."""

from collections.abc import Awaitable

from starlette.middleware import cors
from starlette.types import Message, Receive, Scope, Send

from fastapi_kit.middleware._headers import replaced, sent_values

__all__ = ["CORSMiddleware"]


class CORSMiddleware(cors.CORSMiddleware):
    """Starlette's CORSMiddleware, with ``Vary: Origin`` in every response, and faster for requests without an ``Origin``."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer a preflight."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        def send_varying(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                headers = [*message.get("headers", ())]
                given = [value for name, value in headers if name.lower() == b"vary"]
                # Starlette 1.6 adds it only where the response names an origin.
                if b"origin" not in b",".join(given).lower():
                    own = (b"vary", b", ".join([*given, b"Origin"]))
                    message = {**message, "headers": replaced(headers, own) if given else [*headers, own]}
            return send(message)

        if sent_values(scope, b"origin"):
            await super().__call__(scope, receive, send_varying)
        else:
            await self.app(scope, receive, send_varying)
