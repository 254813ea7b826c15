"""Limits on the requests of routes."""

from collections.abc import Callable
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, Request, Response, WebSocket
from httpx import ASGITransport, AsyncClient
from starlette.testclient import TestClient
from starlette.types import ASGIApp
from starlette.websockets import WebSocketDisconnect
from tests.ratelimit.counters import limiter_on
from tests.reliability.servers import closed_port
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from fastapi_kit.errors import ConfigurationError
from fastapi_kit.handlers import register_exception_handlers
from fastapi_kit.ratelimit import RateLimiter, client_address


def app_with(*limits: Callable[..., Any]) -> FastAPI:
    """Return an app with two limited routes and a free one."""
    app = FastAPI()
    register_exception_handlers(app)

    @app.get("/search", dependencies=[Depends(limit) for limit in limits])
    async def search() -> str:
        return "found"

    @app.get("/others", dependencies=[Depends(limit) for limit in limits])
    async def others() -> str:
        return "found"

    @app.get("/free")
    async def free() -> str:
        return "found"

    return app


def client_at(app: ASGIApp, address: str | None = "192.0.2.7") -> AsyncClient:
    client: Any = None if address is None else (address, 123)
    return AsyncClient(transport=ASGITransport(app, client=client), base_url="http://test")


async def statuses(client: AsyncClient, path: str, times: int, **options: Any) -> list[int]:
    return [(await client.get(path, **options)).status_code for _ in range(times)]


@pytest.mark.parametrize("kind", ["memory", "redis"])
async def test_a_limit(kind: str) -> None:
    """Requests over the limit are a 429 that says when to come back; each answer says what is left."""
    async with limiter_on(kind) as limiter, client_at(app_with(limiter.limit("2/minute"))) as client:
        first, second, third = [await client.get("/search") for _ in range(3)]
        free = await client.get("/free")

    assert [first.status_code, second.status_code, third.status_code] == [200, 200, 429]
    assert {each.headers["ratelimit-policy"] for each in (first, second, third)} == {'"2-in-60";q=2;w=60'}
    assert [each.headers["ratelimit"].partition(";t=")[0] for each in (first, second, third)] == [
        f'"2-in-60";r={left}' for left in (1, 0, 0)
    ]
    assert third.headers["content-type"] == "application/problem+json"
    assert third.json()["code"] == "rate_limited"
    assert 1 <= int(third.headers["retry-after"]) <= 60
    assert third.headers["ratelimit"] == f'"2-in-60";r=0;t={third.headers["retry-after"]}'
    assert not [name for name in free.headers if name.startswith("ratelimit")]


async def test_each_route_alone() -> None:
    """Without a name each route counts its own requests, with one all routes of the name count together."""
    limiter = RateLimiter()
    async with client_at(app_with(limiter.limit("2/minute"))) as client:
        assert await statuses(client, "/search", 3) == [200, 200, 429]
        assert await statuses(client, "/others", 3) == [200, 200, 429]
    async with client_at(app_with(limiter.limit("2/minute", name="find"))) as client:
        assert await statuses(client, "/search", 1) + await statuses(client, "/others", 2) == [200, 200, 429]


async def test_the_methods_of_a_route() -> None:
    """A route counts all its methods together, and routes with one path, or with one name in two routers, count apart."""
    app, limit = FastAPI(), RateLimiter().limit("2/minute")
    register_exception_handlers(app)
    router = APIRouter(dependencies=[Depends(limit)])

    @router.api_route("/items", methods=["GET", "HEAD", "PUT"])
    async def items() -> None: ...

    @router.post("/items")
    async def create() -> None: ...

    for prefix in ("/a", "/b"):
        app.include_router(router, prefix=prefix)

    async with client_at(app) as client:
        found = [(await client.request(method, "/a/items")).status_code for method in ("GET", "HEAD", "PUT", "GET", "POST", "POST", "POST")]
        assert found == [200, 200, 429, 429, 200, 200, 429]
        assert await statuses(client, "/b/items", 3) == [200, 200, 429]


async def test_two_limits() -> None:
    """A route may have several limits: a short one and a long one. Its answers show both."""
    limiter = RateLimiter()
    async with client_at(app_with(limiter.limit("2/second"), limiter.limit("3 per 2 hours"))) as client:
        answer = await client.get("/search")

    assert answer.headers.get_list("ratelimit-policy") == ['"2-in-1";q=2;w=1', '"3-in-7200";q=3;w=7200']
    assert len(answer.headers.get_list("ratelimit")) == 2


async def test_who_is_counted() -> None:
    """``by`` is a dependency: a limit can count users, API keys or anything else that a request has."""

    def get_user(request: Request) -> str:
        return request.headers.get("x-user", "")

    async def by_user(user: Annotated[str, Depends(get_user)]) -> str:
        return user

    async with client_at(app_with(RateLimiter().limit("1/minute", by=by_user))) as client:
        ann, bob = ({"x-user": name} for name in ("ann", "bob"))
        assert await statuses(client, "/search", 2, headers=ann) == [200, 429]
        assert await statuses(client, "/search", 2, headers=bob) == [200, 429]


async def test_clients() -> None:
    """Clients are counted by address, IPv6 clients by network. Clients without an address are counted together."""
    app = app_with(RateLimiter().limit("1/minute"))
    for one, other, is_same in [
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8:1::1", "2001:db8:1::ffff", True),
        ("2001:db8:2::1", "2001:db8:3::1", False),
        (None, None, True),
    ]:
        async with client_at(app, one) as first, client_at(app, other) as second:
            found = await statuses(first, "/search", 1) + await statuses(second, "/search", 1)
        assert found == [200, 429 if is_same else 200]


async def test_behind_a_proxy() -> None:
    """The server says who the client is: from the header of a trusted proxy, and never from that of anybody else."""
    app = ProxyHeadersMiddleware(app_with(RateLimiter().limit("1/minute")), trusted_hosts="10.0.0.1")  # type: ignore[arg-type]

    async def ask(address: str, forwarded: str) -> int:
        async with client_at(app, address) as client:  # type: ignore[arg-type]
            return (await client.get("/search", headers={"X-Forwarded-For": forwarded})).status_code

    assert [await ask("10.0.0.1", client) for client in ("192.0.2.1", "192.0.2.2", "6.6.6.6, 192.0.2.1")] == [200, 200, 429]
    assert [await ask("198.51.100.1", client) for client in ("192.0.2.8", "192.0.2.9")] == [200, 429]


async def test_without_redis() -> None:
    """If Redis is gone, each process counts for itself, or requests are a 503 with ``fail_open=False``."""
    url = f"redis://127.0.0.1:{closed_port()}"
    async with client_at(app_with(RateLimiter(url).limit("1/minute"))) as client:
        answers = [await client.get("/search") for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 429, 429]
        assert answers[0].headers["ratelimit"].startswith('"1-in-60";r=0;t=')
    async with client_at(app_with(RateLimiter(url, fail_open=False).limit("1/minute"))) as client:
        answer = await client.get("/search")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


def test_the_document() -> None:
    """OpenAPI shows the 429 of limited routes with its fields, and the 503 where there may be one."""
    limiter = RateLimiter()
    paths = app_with(limiter.limit("1/minute")).openapi()["paths"]

    assert paths["/search"]["get"]["responses"]["429"]["headers"].keys() == {"Retry-After", "RateLimit-Policy", "RateLimit"}
    assert "429" not in paths["/free"]["get"]["responses"]
    assert "503" not in paths["/search"]["get"]["responses"]
    closed = RateLimiter(fail_open=False)
    assert "503" in app_with(closed.limit("1/minute")).openapi()["paths"]["/search"]["get"]["responses"]


async def test_a_socket() -> None:
    """A WebSocket route can be limited: over the limit the handshake is rejected."""
    app = FastAPI()
    register_exception_handlers(app)

    @app.websocket("/ws", dependencies=[Depends(RateLimiter().limit("1/minute"))])
    async def talk(socket: WebSocket) -> None:
        await socket.accept()
        await socket.close()

    with TestClient(app) as client:
        with client.websocket_connect("/ws"):
            pass
        with pytest.raises(WebSocketDisconnect), client.websocket_connect("/ws"):
            pass


async def test_a_response_of_the_route() -> None:
    """A route that returns a response is limited, too."""
    app = FastAPI()
    register_exception_handlers(app)

    @app.get("/file", dependencies=[Depends(RateLimiter().limit("1/minute"))])
    async def file() -> Response:
        return Response(b"x")

    async with client_at(app) as client:
        assert await statuses(client, "/file", 2) == [200, 429]


@pytest.mark.parametrize("rate", ["", "x", "10", "10/fortnight", "0/minute", "-1/minute", "1/second;2/minute", "1/second, 2/minute"])
def test_a_rate_that_is_none(rate: str) -> None:
    """A rate that is malformed, empty or more than one is an error when the application starts."""
    with pytest.raises(ConfigurationError):
        RateLimiter().limit(rate)


def test_a_function_that_is_no_dependency() -> None:
    """A lambda has no types: FastAPI would read its parameter from the query, where the client chooses who is counted."""
    with pytest.raises(ConfigurationError, match="request"):
        RateLimiter().limit("1/minute", by=lambda request: "x")


async def test_a_flood_of_addresses() -> None:
    """Clients without a limit on their number do not fill the memory."""
    limiter = RateLimiter(max_keys=100)
    app = app_with(limiter.limit("1/minute"))
    for number in range(300):
        async with client_at(app, f"10.0.{number // 250}.{number % 250}") as client:
            assert (await client.get("/search")).status_code == 200

    assert len(limiter._memory) == 100


async def test_the_address_of_a_client() -> None:
    """``client_address`` can be a part of a ``by`` of your own."""
    scope: dict[str, Any] = {"type": "http", "headers": [(b"x-forwarded-for", b"6.6.6.6")], "client": ("2001:db8::1", 1)}

    assert await client_address(Request(scope)) == "2001:db8::/64"
    assert await client_address(Request({**scope, "client": None})) == ""
