"""SecurityHeadersMiddleware: what browsers act on, where the answer has none."""

from collections.abc import Mapping
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.responses import HTMLResponse
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send
from tests.middleware.asgi import Answer, ask, http_scope, websocket_scope

from fastapi_kit.errors import ConfigurationError
from fastapi_kit.middleware import SecurityHeadersMiddleware

EVERYWHERE = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "cross-origin-resource-policy": "same-site",
    "cache-control": "no-store",
}
NOT_ON_PAGES = {
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cross-origin-opener-policy": "same-origin",
}
OWN = {"content-length", "content-type"}


def headers_of(answer: Answer) -> dict[str, str]:
    """Return the headers except those of the body, each of which is there once."""
    names = [name.decode() for name, _ in answer.start["headers"]]
    assert len(set(names)) == len(names)
    return {name.decode(): value.decode() for name, value in answer.start["headers"] if name.decode() not in OWN}


async def get(response: Response, *, scheme: str = "http", **options: Any) -> dict[str, str]:
    return headers_of(await ask(SecurityHeadersMiddleware(response, **options), http_scope(scheme=scheme)))


async def test_an_answer_has_them_all() -> None:
    """A JSON response has the headers of the OWASP list, without HSTS."""
    assert await get(JSONResponse({})) == EVERYWHERE | NOT_ON_PAGES


@pytest.mark.parametrize("kind", ["text/html", "text/html; charset=utf-8", "Text/HTML", "application/xhtml+xml"])
async def test_a_page_has_no_policy_of_its_content(kind: str) -> None:
    """HTML has no Content-Security-Policy and no Cross-Origin-Opener-Policy."""
    assert await get(Response("<p>", media_type=kind)) == EVERYWHERE


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
async def test_the_documentation_works(path: str) -> None:
    """The headers forbid nothing that Swagger UI or Redoc needs."""
    app = FastAPI()
    app.add_middleware(SecurityHeadersMiddleware)

    answer = await ask(app, http_scope(path))

    assert answer.status == 200
    assert NOT_ON_PAGES.keys().isdisjoint(headers_of(answer))


async def test_a_response_without_type_is_not_html() -> None:
    """A response without Content-Type has the headers of JSON."""
    assert await get(Response(status_code=204)) == EVERYWHERE | NOT_ON_PAGES


@pytest.mark.parametrize("header", ["ETag", "Last-Modified", "Expires"])
async def test_what_may_be_validated_may_be_stored(header: str) -> None:
    """A response with a validator has no Cache-Control: no-store."""
    found = await get(JSONResponse({}, headers={header: "a"}))

    assert "cache-control" not in found


async def test_the_apps_own_headers_stay() -> None:
    """A header of the app is neither replaced nor doubled."""
    sent = {"Cache-Control": "max-age=60", "x-frame-options": "SAMEORIGIN", "Content-Security-Policy": "default-src 'self'"}

    found = await get(JSONResponse({}, headers=sent))

    assert {name: found[name.lower()] for name in sent} == sent


async def test_names_in_capitals_are_known() -> None:
    """A header of the app in capitals counts too."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": ((b"X-Frame-Options", b"SAMEORIGIN"),)})

    answer = await ask(SecurityHeadersMiddleware(app), http_scope())

    assert answer.values("x-frame-options") == ["SAMEORIGIN"]


async def test_a_message_without_headers_gets_them() -> None:
    """A message without headers gets all of them."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 204})

    assert headers_of(await ask(SecurityHeadersMiddleware(app), http_scope())) == EVERYWHERE | NOT_ON_PAGES


async def test_a_response_that_is_sent_twice_stays_as_it_is() -> None:
    """The list of headers of the app is not changed."""
    cached = JSONResponse({})
    before = [*cached.raw_headers]

    await get(cached)

    assert (cached.raw_headers, await get(cached)) == (before, EVERYWHERE | NOT_ON_PAGES)


@pytest.mark.parametrize("page", [True, False])
async def test_given_headers_override_and_add(page: bool) -> None:
    """headers= replaces defaults and adds others, on HTML and on responses with a validator too."""
    given = {"content-security-policy": "default-src 'self'", "Cache-Control": "private", "X-Robots-Tag": "none"}
    response = HTMLResponse("<p>", headers={"ETag": "a"}) if page else JSONResponse({}, headers={"ETag": "a"})

    found = await get(response, headers=given)

    assert {name: found[name.lower()] for name in given} == given


@pytest.mark.parametrize("name", [*EVERYWHERE, *NOT_ON_PAGES, "Strict-Transport-Security"])
async def test_an_empty_value_removes(name: str) -> None:
    """An empty value in headers= removes a default."""
    found = await get(JSONResponse({}), scheme="https", hsts_seconds=60, headers={name.title(): ""})

    expected = EVERYWHERE | NOT_ON_PAGES | {"strict-transport-security": "max-age=60"}
    del expected[name.lower()]
    assert found == expected


@pytest.mark.parametrize(
    ("scheme", "options", "sent"),
    [
        ("https", {}, None),
        ("http", {"hsts_seconds": 60}, None),
        ("https", {"hsts_seconds": 60}, "max-age=60"),
        ("https", {"hsts_seconds": 60, "headers": {"Strict-Transport-Security": "max-age=1; preload"}}, "max-age=1; preload"),
        ("http", {"headers": {"Strict-Transport-Security": "max-age=1"}}, None),
    ],
)
async def test_hsts_is_for_https(scheme: str, options: Mapping[str, Any], sent: str | None) -> None:
    """HSTS is sent only over https (RFC 6797, 7.2), and only if hsts_seconds is set."""
    found = await get(JSONResponse({}), scheme=scheme, **options)

    assert found.get("strict-transport-security") == sent


@pytest.mark.parametrize(
    "headers",
    [{"a b": "c"}, {"": "c"}, {"ä": "c"}, {"a": "b\r\nc: d"}, {"a": "b\nc"}, {"a": "b\x00"}, {"a": "€"}, {"Referrer-Policy:": "a"}],
)
def test_an_invalid_header_raises(headers: Mapping[str, str]) -> None:
    """An invalid name or value in headers= raises ConfigurationError at start-up."""
    with pytest.raises(ConfigurationError):
        SecurityHeadersMiddleware(JSONResponse({}), headers=headers)


def test_negative_seconds_raise() -> None:
    """A negative hsts_seconds raises ConfigurationError."""
    with pytest.raises(ConfigurationError, match="negative"):
        SecurityHeadersMiddleware(JSONResponse({}), hsts_seconds=-1)


@pytest.mark.parametrize("scope", [websocket_scope(), {"type": "lifespan"}])
async def test_other_connections_pass_through(scope: Scope) -> None:
    """WebSockets get no headers."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})

    answer = await ask(SecurityHeadersMiddleware(app), scope)

    assert answer.messages == [{"type": "websocket.accept"}]
