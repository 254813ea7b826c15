"""Behind a proxy: the addresses that the app gives are those that the client can use."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from httpx import AsyncClient, Response
from tests.served.servers import gunicorn, uvicorn
from tests.served.sites import Site

CLAIMS = {
    "host": "evil.test",
    "x-forwarded-host": "evil.test",
    "x-forwarded-prefix": "/evil.test",
    "x-forwarded-for": "203.0.113.9",
    "x-forwarded-proto": "https",
    "forwarded": "host=evil.test;proto=https",
}


@dataclass(frozen=True)
class Proxy:
    """What serves ``/api`` of the outside world: it *strips* the prefix, or it keeps it."""

    client: AsyncClient
    strips: bool

    async def send(self, method: str, path: str, **options: object) -> Response:
        assert path.startswith("/api/")
        return await self.client.request(method, path.removeprefix("/api") if self.strips else path, **options)  # type: ignore[arg-type]


# uvicorn puts the root path before each path, gunicorn expects it there.
COMMANDS = [(uvicorn("--root-path", "/api"), True), (gunicorn("--root-path", "/api"), False)]


@pytest.fixture(scope="module", params=COMMANDS, ids=lambda param: str(param[0]))
async def proxy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Proxy]:
    command, strips = request.param
    async with Site(command).open(tmp_path_factory.mktemp("proxied")) as (server, _), server.client() as client:
        yield Proxy(client, strips)


@pytest.mark.only_full
async def test_a_new_row_is_found_where_location_says(proxy: Proxy) -> None:
    """Location has the prefix of the proxy."""
    created = await proxy.send("POST", "/api/notes", json={"title": "behind"})

    assert created.headers["location"] == f"/api/notes/{created.json()['id']}"
    assert (await proxy.send("GET", created.headers["location"])).json() == created.json()


@pytest.mark.only_full
async def test_the_documentation_finds_its_schema(proxy: Proxy) -> None:
    """The page of the documentation loads the schema through the proxy, and the schema names the proxy as its server."""
    page = await proxy.send("GET", "/api/docs")
    schema = await proxy.send("GET", "/api/api/v1/openapi.json")

    assert (page.status_code, schema.status_code) == (200, 200)
    assert "url: '/api/api/v1/openapi.json'" in page.text
    assert schema.json()["servers"] == [{"url": "/api"}]
    assert "/notes/{id}" in schema.json()["paths"]


@pytest.mark.only_full
@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/api/notes"), ("GET", "/api/notes"), ("GET", "/api/docs"), ("GET", "/api/api/v1/openapi.json"), ("GET", "/api/nowhere")],
)
async def test_no_address_comes_from_the_client(proxy: Proxy, method: str, path: str) -> None:
    """No answer contains what a request claims about its host."""
    answer = await proxy.send(method, path, headers=CLAIMS, **({"json": {"title": "claimed"}} if method == "POST" else {}))

    assert answer.status_code in {200, 201, 404}
    assert "evil.test" not in str(answer.headers) + answer.text
    assert answer.headers.get("location", "/api/").startswith("/api/")
