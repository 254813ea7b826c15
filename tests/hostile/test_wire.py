"""The same app under uvicorn: what clients and test clients do not send, as bytes on a socket."""

import asyncio
import socket
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import pytest
from fastapi import FastAPI
from tests.hostile.asgi import Answer
from tests.hostile.promise import CANARY, broken
from tests.hostile.sites import Sites, open_site
from uvicorn import Config, Server

from fastapi_kit.db import Database

_C = CANARY.encode()


def request(line: bytes, *headers: bytes, body: bytes = b"") -> bytes:
    return b"\r\n".join([line + b" HTTP/1.1", b"Host: test", b"Connection: close", *headers, b"", body])


def post(body: bytes, *headers: bytes) -> bytes:
    return request(b"POST /notes", b"Content-Type: application/json", b"Content-Length: %d" % len(body), *headers, body=body)


REQUESTS: tuple[bytes, ...] = (
    *(
        request(b"GET /" + path)
        for path in (b"\xff", b"notes/%00", b"notes/%ff", b"notes/%2e%2e", b"notes\x7f", b"#" + _C, b"a" * 60_000, b"?" + b"a" * 60_000)
    ),
    *(request(b"GET /notes/1" + tail) for tail in (b"\xff", b"%", b"%zz", b"%0d%0aA:b", b";a=b", b"\\", b'"<>`{|}^')),
    *(
        request(b"GET /notes?" + query)
        for query in (b"\xff=1", b"skip=\xed\xa0\x80", b"skip=%00", b"skip=\x01", b"[]", b"skip=1#" + _C, b"\\")
    ),
    *(
        request(line)
        for line in (
            b"GET http://" + _C + b"/notes",
            b"GET //" + _C + b"/notes",
            b"OPTIONS *",
            b"GET *",
            b"CONNECT " + _C + b":443",
            b"GET notes",
        )
    ),
    *(
        request(method + b" /notes")
        for method in (b"FOO", b"get", b"TRACE", b"HEAD", b"PUT", b"PRI", b"M-SEARCH", b"A" * 5000, b"G\xffT", b"")
    ),
    *(
        request(b"GET /notes", header)
        for header in (
            b"A: \xff\xfe",
            b"Cookie: \xff",
            b"A: " + b"a" * 30_000,
            b"Range: bytes=0-0",
            b'If-Match: "' + _C + b'"',
            b"A : b",
            b"\xff: a",
        )
    ),
    *(
        post(body)
        for body in (
            b"",
            b"{",
            b'{"title":"\\u0000"}',
            b'{"title":"\\ud800"}',
            b'{"title":"\xff"}',
            b"[" * 60_000,
            b'{"title":["' + _C + b'"]}',
        )
    ),
    request(b"POST /notes", b"Content-Type: application/json", b"Transfer-Encoding: chunked", body=b"3\r\n\x00\xff[\r\n0\r\n\r\n"),
    request(b"POST /notes", b"Content-Type: application/json\xff", b"Content-Length: 2", body=b"{}"),
    request(b"POST /notes", b"Content-Type: application/json", b"Content-Encoding: gzip", b"Content-Length: 4", body=b"\x1f\x8b\x08\x00"),
)

RAW_QUERIES = tuple(
    request(b"GET " + path + b"?skip=" + raw + b"&skip=0") for path in (b"/notes", b"/notes/") for raw in (b"\xff", b"\xed\xa0\x80")
)


@pytest.fixture
async def site(sqlite_database: Database, log: pytest.LogCaptureFixture) -> AsyncIterator[Sites]:
    """Apps of this test's own: one that a server has stopped is not ready any more."""
    async with open_site(sqlite_database) as own, Sites([own], log).in_use() as sites:
        yield sites


@asynccontextmanager
async def served(app: FastAPI, http: str) -> AsyncGenerator[int]:
    """Serve *app* on a free port."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = Server(Config(app, http=http, ws="none", log_config=None, access_log=False, timeout_graceful_shutdown=1))
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        await task


async def answer_on_the_wire(port: int, sent: bytes) -> Answer:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(sent)
        received = await asyncio.wait_for(reader.read(), 10)
    finally:
        writer.close()
    head, _, body = received.partition(b"\r\n\r\n")
    status, *lines = head.split(b"\r\n")
    pairs = [line.partition(b": ") for line in lines]
    return Answer(int(status.split()[1]) if status else 0, [(name.lower(), value) for name, _, value in pairs], body)


async def keep_promise_on_the_wire(sites: Sites, http: str, requests: tuple[bytes, ...]) -> None:
    """The server may reject a request itself, but not with a 5xx; all other answers come from the app."""
    faults: list[str] = []
    async with served(sites.every[0].apps["made"], http) as port:
        for sent in requests:
            answer = await answer_on_the_wire(port, sent)
            own = answer.status == 400 and answer.header(b"content-type") == b"text/plain; charset=utf-8"
            headless = sent.startswith(b"HEAD ")
            if not (own or (headless and answer.status < 500)):
                faults += [f"{sent[:80]!r} -> {answer.status}: {problem}" for problem in broken(answer)]
    faults += ["what was sent is in the log"] if CANARY in sites.log.text.lower() else []
    assert not faults, "\n".join(faults)


@pytest.mark.only_full
@pytest.mark.parametrize("http", ["h11", "httptools"])
async def test_bytes_on_the_wire(site: Sites, http: str) -> None:
    """Behind both of uvicorn's parsers whatever reaches the app is answered by a problem, never by a 5xx or a closed socket."""
    await keep_promise_on_the_wire(site, http, REQUESTS)


@pytest.mark.parametrize("http", ["h11", "httptools"])
async def test_a_query_of_bytes_on_the_wire(site: Sites, http: str) -> None:
    """A query that is no UTF-8, as far as the parser lets it through."""
    await keep_promise_on_the_wire(site, http, RAW_QUERIES)
