"""Security headers for browsers."""

from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastapi_kit.errors import ConfigurationError
from fastapi_kit.middleware._headers import Field, header_name, header_value

__all__ = ["SecurityHeadersMiddleware"]

_ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cross-Origin-Resource-Policy": "same-site",
}
# Swagger UI and Redoc work under neither: they load scripts, and log in through a window that they open.
_UNLESS_HTML = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
}
_UNLESS_VALIDATED = {"Cache-Control": "no-store"}

_EITHER = (False, True)
_HSTS = "Strict-Transport-Security"
_VALIDATORS = frozenset({b"etag", b"last-modified", b"expires"})
_HTML = (b"text/html", b"application/xhtml+xml")


@dataclass
class SecurityHeadersMiddleware:
    """Add the headers of the OWASP list where the response has none.

    On every answer: ``X-Content-Type-Options: nosniff``, ``X-Frame-Options: DENY``, ``Referrer-Policy: no-referrer``,
    ``Permissions-Policy`` without camera, geolocation and microphone, ``Cross-Origin-Resource-Policy: same-site``. Except on HTML:
    ``Content-Security-Policy: default-src 'none'; frame-ancestors 'none'`` and ``Cross-Origin-Opener-Policy: same-origin``.
    Without an ``ETag``, ``Last-Modified`` or ``Expires``: ``Cache-Control: no-store``.

    Args:
        headers: Headers that replace these or are added, on every answer that has none of the name, HTML included. An empty value
            removes one.
        hsts_seconds: Send ``Strict-Transport-Security`` over https (RFC 6797, 7.2). The default, 0, sends none.

    Raises:
        ConfigurationError: A header cannot be sent, or *hsts_seconds* is negative.
    """

    app: ASGIApp
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    hsts_seconds: int = 0
    _wanted: Mapping[tuple[bool, bool, bool], Sequence[Field]] = field(init=False, repr=False)
    """The headers by: the answer is HTML, the answer has a validator, the request came over https."""

    def __post_init__(self) -> None:
        if self.hsts_seconds < 0:
            raise ConfigurationError("hsts_seconds cannot be negative")
        self._wanted = {kind: self._wanted_on(*kind) for kind in product(_EITHER, _EITHER, _EITHER)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and add the headers to its answer."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        is_https = scope.get("scheme") == "https"

        def send_completed(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                present = [*message.get("headers", ())]
                values = {name.lower(): value for name, value in present}
                is_html = values.get(b"content-type", b"").lower().startswith(_HTML)
                wanted = self._wanted[is_html, not _VALIDATORS.isdisjoint(values), is_https]
                message = {**message, "headers": present + [pair for pair in wanted if pair[0] not in values]}
            return send(message)

        await self.app(scope, receive, send_completed)

    def _wanted_on(self, is_html: bool, is_validated: bool, is_https: bool) -> Sequence[Field]:
        """Return the fields for an answer that has none of its own."""
        defaults = encoded(_ALWAYS)
        if not is_html:
            defaults |= encoded(_UNLESS_HTML)
        if not is_validated:
            defaults |= encoded(_UNLESS_VALIDATED)
        if self.hsts_seconds:
            defaults |= encoded({_HSTS: f"max-age={self.hsts_seconds}"})
        wanted = defaults | encoded(self.headers)
        if not is_https:
            wanted.pop(header_name(_HSTS), None)
        return [(name, value) for name, value in wanted.items() if value]


def encoded(headers: Mapping[str, str]) -> dict[bytes, bytes]:
    """Return *headers* as ASGI has them."""
    return {header_name(name): header_value(name, value) for name, value in headers.items()}
