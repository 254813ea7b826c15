"""CORSMiddleware: Starlette's answers, with and without an Origin."""

from collections.abc import Sequence
from typing import Any

import pytest
from starlette.middleware.cors import CORSMiddleware as StarletteCORSMiddleware
from starlette.responses import PlainTextResponse, Response
from starlette.types import Message, Receive, Scope, Send
from tests.middleware.asgi import Answer, Headers, ask, http_scope, websocket_scope

from fastapi_kit.middleware.cors import CORSMiddleware

ORIGIN = b"https://a.example"
OPTIONS = [
    {"allow_origins": ["https://a.example"], "allow_credentials": True},
    {"allow_origins": ["*"]},
    {"allow_origins": ["*"], "allow_credentials": True},
    {"allow_origin_regex": r"https://.*\.example", "expose_headers": ["ETag"]},
]
REQUESTS: list[tuple[str, Headers]] = [
    ("GET", []),
    ("OPTIONS", []),
    ("GET", [(b"origin", ORIGIN)]),
    ("GET", [(b"origin", b"")]),
    ("GET", [(b"origin", b"https://evil.test")]),
    ("OPTIONS", [(b"origin", ORIGIN), (b"access-control-request-method", b"GET")]),
    ("OPTIONS", [(b"origin", b"https://evil.test"), (b"access-control-request-method", b"GET")]),
]


def fields(answer: Answer) -> dict[str, str]:
    """Return the headers of a response, each of which is there once."""
    pairs: Sequence[tuple[bytes, bytes]] = answer.start["headers"]
    found = {name.decode().lower(): value.decode() for name, value in pairs}
    assert len(found) == len(pairs)
    return found


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize(("method", "headers"), REQUESTS)
@pytest.mark.parametrize("vary", [None, "Accept", "Accept, Cookie"])
async def test_the_answer_is_that_of_starlette(options: dict[str, Any], method: str, headers: Headers, vary: str | None) -> None:
    """Every response is the same as with Starlette's CORSMiddleware."""
    answers = [
        await ask(middleware(PlainTextResponse("text", headers={"Vary": vary} if vary else None), **options), scope)
        for middleware in (CORSMiddleware, StarletteCORSMiddleware)
        for scope in [http_scope(method=method, headers=headers)]
    ]

    theirs = fields(answers[1])
    if "Origin" not in theirs.get("vary", ""):
        # Starlette 1.6 says it only where the response names an origin.
        theirs["vary"] = ", ".join(filter(None, [theirs.get("vary"), "Origin"]))
    assert (answers[0].status, fields(answers[0]), answers[0].body) == (answers[1].status, theirs, answers[1].body)


async def test_a_response_that_is_sent_twice_stays_as_it_is() -> None:
    """The list of headers of the app is not changed."""
    cached = Response("text", headers={"Vary": "Accept"})
    before = [*cached.raw_headers]
    app = CORSMiddleware(cached, allow_origins=["*"])

    await ask(app, http_scope())
    answer = await ask(app, http_scope())

    assert (answer.values("vary"), cached.raw_headers) == (["Accept, Origin"], before)


@pytest.mark.parametrize("headers", [{}, {"headers": ((b"Vary", b"Accept"), (b"VARY", b"Cookie"))}])
async def test_headers_may_be_missing_or_written_in_capitals(headers: dict[str, object]) -> None:
    """A message may have no headers, names in capitals, or several Vary headers."""
    start: Message = {"type": "http.response.start", "status": 204, **headers}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start)

    answer = await ask(CORSMiddleware(app, allow_origins=["*"]), http_scope())

    assert answer.values("vary") == (["Accept, Cookie, Origin"] if headers else ["Origin"])


async def test_websockets_pass_through() -> None:
    """WebSockets pass through."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})

    answer = await ask(CORSMiddleware(app, allow_origins=["*"]), websocket_scope())

    assert answer.messages == [{"type": "websocket.accept"}]
