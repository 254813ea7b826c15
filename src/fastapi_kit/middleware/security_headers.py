"""Headers that browsers act on."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

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
    _always: list[Field] = field(init=False, repr=False)
    _unless_html: list[Field] = field(init=False, repr=False)
    _unless_validated: list[Field] = field(init=False, repr=False)
    _https: list[Field] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.hsts_seconds < 0:
            raise ConfigurationError("hsts_seconds cannot be negative")
        hsts = {_HSTS: f"max-age={self.hsts_seconds}"} if self.hsts_seconds else {}
        given = {header_name(name): header_value(name, value) for name, value in self.headers.items()}
        wanted = {name: value for name, value in given.items() if value}
        self._https = [*_fields(hsts, without=given), *_taken(wanted, header_name(_HSTS))]
        self._unless_html = _fields(_UNLESS_HTML, without=given)
        self._unless_validated = _fields(_UNLESS_VALIDATED, without=given)
        self._always = [*_fields(_ALWAYS, without=given), *wanted.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and complete the headers of its answer."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        is_https = scope.get("scheme") == "https"

        async def send_completed(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": self._completed(message.get("headers", ()), is_https=is_https)}
            await send(message)

        await self.app(scope, receive, send_completed)

    def _completed(self, headers: Iterable[Field], *, is_https: bool) -> list[Field]:
        present = [*headers]
        values = {name.lower(): value for name, value in present}
        wanted = self._always
        if not values.get(b"content-type", b"").lower().startswith(_HTML):
            wanted = wanted + self._unless_html
        if _VALIDATORS.isdisjoint(values):
            wanted = wanted + self._unless_validated
        if is_https:
            wanted = wanted + self._https
        return [*present, *(pair for pair in wanted if pair[0] not in values)]


def _fields(headers: Mapping[str, str], *, without: Mapping[bytes, bytes]) -> list[Field]:
    fields = ((header_name(name), header_value(name, value)) for name, value in headers.items())
    return [(name, value) for name, value in fields if name not in without]


def _taken(fields: dict[bytes, bytes], name: bytes) -> list[Field]:
    """Take the field *name* out, if it is there."""
    return [(name, fields.pop(name))] if name in fields else []
