"""Headers that browsers act on."""

from collections.abc import Awaitable, Iterable, Mapping, Sequence
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
# The pages of Swagger UI and Redoc work under neither: they load scripts, and log in through a window that they open.
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
    ``Permissions-Policy`` without camera, geolocation and microphone, ``Cross-Origin-Resource-Policy: same-site``. Unless it is HTML:
    ``Content-Security-Policy: default-src 'none'; frame-ancestors 'none'`` and ``Cross-Origin-Opener-Policy: same-origin``.
    Unless it has an ``ETag``, ``Last-Modified`` or ``Expires``: ``Cache-Control: no-store``. ``Strict-Transport-Security`` with
    *hsts_seconds* if there are any, and only over https (RFC 6797, 7.2).

    *headers* overrides and adds: what it names goes on every answer that has none, HTML included; an empty value removes.
    Raises ConfigurationError for what cannot be a header, and if *hsts_seconds* is negative.
    """

    app: ASGIApp
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    hsts_seconds: int = 0
    _wanted: Mapping[tuple[bool, bool, bool], Sequence[Field]] = field(init=False, repr=False)
    """By whether the answer is HTML, whether it can be validated, and whether it is sent over https."""

    def __post_init__(self) -> None:
        if self.hsts_seconds < 0:
            raise ConfigurationError("hsts_seconds cannot be negative")
        self._wanted = {kind: self._wanted_on(*kind) for kind in product(_EITHER, _EITHER, _EITHER)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and complete the headers of its answer."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        is_https = scope.get("scheme") == "https"

        def send_completed(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                message = {**message, "headers": self._completed(message.get("headers", ()), is_https=is_https)}
            return send(message)

        await self.app(scope, receive, send_completed)

    def _completed(self, headers: Iterable[Field], *, is_https: bool) -> list[Field]:
        present = [*headers]
        values = {name.lower(): value for name, value in present}
        is_html = values.get(b"content-type", b"").lower().startswith(_HTML)
        wanted = self._wanted[is_html, not _VALIDATORS.isdisjoint(values), is_https]
        return present + [pair for pair in wanted if pair[0] not in values]

    def _wanted_on(self, is_html: bool, is_validated: bool, is_https: bool) -> Sequence[Field]:
        """Return the fields of an answer that has none of its own. What *headers* names is on every kind of answer."""
        defaults = _encoded(_ALWAYS)
        if not is_html:
            defaults |= _encoded(_UNLESS_HTML)
        if not is_validated:
            defaults |= _encoded(_UNLESS_VALIDATED)
        if self.hsts_seconds:
            defaults |= _encoded({_HSTS: f"max-age={self.hsts_seconds}"})
        wanted = defaults | _encoded(self.headers)
        if not is_https:
            wanted.pop(header_name(_HSTS), None)
        return [(name, value) for name, value in wanted.items() if value]


def _encoded(headers: Mapping[str, str]) -> dict[bytes, bytes]:
    return {header_name(name): header_value(name, value) for name, value in headers.items()}
