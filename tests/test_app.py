"""The app factory."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.datastructures import DefaultPlaceholder
from fastapi.responses import JSONResponse
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pydantic import BaseModel, SecretStr
from sqlalchemy import Column, Integer, MetaData, Table, inspect
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.types import ASGIApp, Receive, Scope, Send
from tests.tables.zoo import ZooBase
from tests.versions import needs_telemetry

from fastapi_kit.app import Lifespan, create_app
from fastapi_kit.db import Database
from fastapi_kit.errors import ConfigurationError, NotFoundError
from fastapi_kit.handlers import Problem, problem_response, problem_responses
from fastapi_kit.health import PROBE_PATHS, HealthCheck, is_probe
from fastapi_kit.settings import KitSettings
from fastapi_kit.testing.client import app_client


def settings(**values: Any) -> KitSettings:
    return KitSettings(SECRET_KEY=SecretStr("k" * 32), **values)


def step(name: str, events: list[str], *, state: dict[str, object] | None = None, fails: bool = False) -> Lifespan:
    """Return a lifespan that notes its start and end."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, object] | None]:
        events.append(f"{name} starts")
        if fails:
            raise RuntimeError(name)
        yield state
        events.append(f"{name} stops")

    return lifespan


class NotedDatabase(Database):
    """A database that notes what is done to it."""

    def __init__(self, path: Path, events: list[str]) -> None:
        super().__init__(f"sqlite+aiosqlite:///{path / 'app.db'}")
        self.events = events

    async def create_tables(self, *arguments: Any) -> None:
        self.events.append("tables")

    async def dispose(self) -> None:
        self.events.append("dispose")
        await super().dispose()


async def run(app: FastAPI) -> None:
    async with app_client(app):
        pass


def test_the_settings_name_the_app() -> None:
    """Title, version and debug come from the settings, and the document is under the prefix."""
    app = create_app(settings(PROJECT_NAME="Zenith", VERSION="2.0", API_V1_STR="/api/v2", DEBUG=True))

    assert (app.title, app.version, app.debug) == ("Zenith", "2.0", True)
    assert (app.openapi_url, app.docs_url) == ("/api/v2/openapi.json", "/docs")


def test_it_is_a_plain_fastapi() -> None:
    """The app is a plain FastAPI without a default response class."""
    app = create_app(settings())

    assert type(app) is FastAPI
    assert isinstance(app.router.default_response_class, DefaultPlaceholder)


def test_fastapis_own_arguments_pass_through_and_win() -> None:
    """Arguments of FastAPI win over the settings."""
    app = create_app(settings(), title="Other", docs_url=None, openapi_url="/spec.json", summary="Short")

    assert (app.title, app.docs_url, app.openapi_url, app.summary) == ("Other", None, "/spec.json", "Short")


@pytest.mark.parametrize("name", ["titel", "extra", "self"])
def test_an_unknown_argument_raises(name: str) -> None:
    """A misspelt argument raises TypeError that names it."""
    arguments: dict[str, Any] = {name: "x"}

    with pytest.raises(TypeError, match=name):
        create_app(settings(), **arguments)


def test_tables_need_a_database() -> None:
    """create_tables without a database raises TypeError."""
    with pytest.raises(TypeError, match="database"):
        create_app(settings(), create_tables=True)
    with pytest.raises(TypeError, match="create_tables"):
        create_app(settings(), database=Database("sqlite://"), metadata=MetaData())


BY_HAND = MetaData()
Table("made_by_hand", BY_HAND, Column("id", Integer, primary_key=True))


@pytest.mark.parametrize("metadata", [ZooBase.metadata, BY_HAND])
async def test_tables_of_an_own_base_are_created(database: Database, metadata: MetaData) -> None:
    """metadata= creates the tables of any declarative base, and those made by hand."""
    async with app_client(create_app(settings(), database=database, create_tables=True, metadata=metadata)), database.begin() as session:
        names = await session.run_sync(lambda each: inspect(each.connection()).get_table_names())
    assert set(names) == set(metadata.tables)


async def test_no_tables_are_never_created_silently(database: Database) -> None:
    """If the metadata has no tables, such as that of Base in an application with a base of its own, the app does not start."""
    app = create_app(settings(), database=database, create_tables=True, metadata=MetaData())

    with pytest.raises(ConfigurationError, match=r"metadata=YourBase\.metadata"):
        await run(app)
    with pytest.raises(ConfigurationError, match="import the modules of your models"):
        await database.create_tables(MetaData())


async def test_routers_are_under_the_prefix() -> None:
    """routers= are included under API_V1_STR."""
    router = APIRouter(prefix="/things")

    @router.get("")
    async def read() -> str:
        return "thing"

    async with app_client(create_app(settings(), routers=[router])) as client:
        assert (await client.get("/api/v1/things")).json() == "thing"


async def test_errors_are_problems() -> None:
    """FastAPI's own errors are problems."""
    router = APIRouter()

    @router.get("/missing")
    async def read() -> None:
        raise NotFoundError(dict, 1)

    async with app_client(create_app(settings(), routers=[router])) as client:
        for path in ("/api/v1/missing", "/nope"):
            response = await client.get(path)

            assert (response.status_code, response.headers["content-type"]) == (404, "application/problem+json")


class Complaint(BaseModel):
    text: str


def complain(problem: Problem) -> Complaint:
    return Complaint(text=problem.detail)


async def test_the_error_body_can_be_replaced() -> None:
    """body= is the body of every error."""
    async with app_client(create_app(settings(), body=complain)) as client:
        assert (await client.get("/nope")).json() == {"text": "Not Found"}


async def test_errors_of_the_application_have_their_status() -> None:
    """statuses= and body= are for the routes, for problem_response() in a middleware, and for the document."""

    class SoldOutError(Exception):
        """An error of the application."""

    class Closing(BaseHTTPMiddleware):
        async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
            return problem_response(request, SoldOutError()) if request.url.path == "/closed" else await call_next(request)

    app = create_app(settings(), body=complain, statuses={SoldOutError: 410}, middleware=[Middleware(Closing)])

    @app.get("/sold-out", responses=problem_responses(410))
    async def sold_out() -> None:
        raise SoldOutError

    async with app_client(app) as client:
        answers = [await client.get(path) for path in ("/sold-out", "/closed")]

    assert [(answer.status_code, answer.json()) for answer in answers] == [(410, {"text": "Gone"})] * 2
    shown = app.openapi()["paths"]["/sold-out"]["get"]["responses"]["410"]["content"]
    assert shown["application/json"]["schema"] == {"$ref": "#/components/schemas/Complaint"}


async def test_own_exception_handlers_go_first() -> None:
    """Handlers in exception_handlers= replace those of the library."""

    async def answer(request: Request, error: Exception) -> Response:
        return JSONResponse("mine", 410)

    async with app_client(create_app(settings(), exception_handlers={HTTPException: answer})) as client:
        assert (await client.get("/nope")).status_code == 410


@pytest.mark.parametrize(
    ("allowed", "origin", "credentials"),
    [(["https://a.example"], "https://a.example", "true"), (["*"], "*", None), (["*", "https://a.example"], "*", None)],
)
async def test_a_wildcard_allows_no_credentials(allowed: list[str], origin: str, credentials: str | None) -> None:
    """With * in ALLOWED_ORIGINS there are no credentials; named origins have them."""
    async with app_client(create_app(settings(ALLOWED_ORIGINS=allowed))) as client:
        response = await client.get("/livez", headers={"Origin": "https://a.example", "Cookie": "a=b"})

    assert response.headers["access-control-allow-origin"] == origin
    assert response.headers.get("access-control-allow-credentials") == credentials


async def test_another_origin_is_not_allowed() -> None:
    """Only ALLOWED_ORIGINS may read, and an empty list means no CORS."""
    for allowed in ([], ["https://a.example"]):
        async with app_client(create_app(settings(ALLOWED_ORIGINS=allowed))) as client:
            response = await client.get("/livez", headers={"Origin": "https://b.example"})

        assert "access-control-allow-origin" not in response.headers


async def test_a_rejected_preflight_is_a_problem() -> None:
    """A rejected preflight is a problem that allows and repeats nothing."""
    asked = {"Origin": "https://b.example", "Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "hush"}

    async with app_client(create_app(settings(ALLOWED_ORIGINS=["https://a.example"]))) as client:
        response = await client.options("/livez", headers=asked)

    assert (response.status_code, response.headers["content-type"]) == (400, "application/problem+json")
    assert "hush" not in str(response.headers)
    assert "Origin" in response.headers["vary"]
    assert not [name for name in response.headers if name.startswith("access-control")]


async def test_a_bug_is_readable_for_the_allowed_origin() -> None:
    """A 500 has its CORS headers."""
    router = APIRouter()

    @router.get("/bug")
    async def fail() -> None:
        raise ZeroDivisionError

    async with app_client(create_app(settings(ALLOWED_ORIGINS=["https://a.example"]), routers=[router])) as client:
        response = await client.get("/api/v1/bug", headers={"Origin": "https://a.example"})

    assert (response.status_code, response.headers["access-control-allow-origin"]) == (500, "https://a.example")


def stacked_app(**values: Any) -> FastAPI:
    """Return an app with a route that returns the size of its body, and one that fails."""
    app = create_app(settings(ALLOWED_ORIGINS=["https://a.example"], **values))

    @app.post("/sizes/{name}")
    async def read_size(name: str, request: Request) -> int:
        return len(await request.body())

    @app.get("/bug")
    async def fail() -> None:
        raise ZeroDivisionError

    return app


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/livez", 200), ("GET", "/nope", 404), ("GET", "/bug", 500), ("OPTIONS", "/bug", 200)]
)
async def test_every_answer_has_the_headers(method: str, path: str, status: int) -> None:
    """Bugs, unknown paths and preflights have a request id and security headers."""
    headers = {"Origin": "https://a.example", "Access-Control-Request-Method": "GET", "X-Request-ID": "abc-1"}

    async with app_client(stacked_app()) as client:
        response = await client.request(method, path, headers=headers)

    assert response.status_code == status
    assert response.headers["x-request-id"] == "abc-1"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["access-control-allow-origin"] == "https://a.example"
    if status >= 400:
        assert response.json()["request_id"] == "abc-1"


async def test_a_request_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """A request is logged once with its template, and a health check is not."""
    caplog.set_level(logging.INFO, "fastapi_kit.access")

    async with app_client(stacked_app()) as client:
        await client.get("/livez")
        response = await client.post("/sizes/hush?token=hush", content=b"1234")

    [record] = [record for record in caplog.records if record.name == "fastapi_kit.access"]
    assert response.json() == 4
    assert vars(record)["route"] == "/sizes/{name}"
    assert vars(record)["request_id"] == response.headers["x-request-id"]
    assert "hush" not in str(vars(record))


async def test_a_body_has_the_limit_of_the_settings() -> None:
    """A body over MAX_BODY_BYTES is a 413 that a browser may read."""
    async with app_client(stacked_app(MAX_BODY_BYTES=10)) as client:
        most = await client.post("/sizes/a", content=b"x" * 10)
        more = await client.post("/sizes/a", content=b"x" * 11, headers={"Origin": "https://a.example"})

    assert (most.status_code, more.status_code) == (200, 413)
    assert (more.headers["content-type"], more.json()["code"]) == ("application/problem+json", "content_too_large")
    assert more.headers["access-control-allow-origin"] == "https://a.example"


class Timing(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        return await call_next(request)


async def test_the_body_limit_works_under_base_http_middleware() -> None:
    """The limit is inside an own BaseHTTPMiddleware, which would turn the 413 into a 500."""
    app = create_app(settings(MAX_BODY_BYTES=10), middleware=[Middleware(Timing)])

    @app.post("/raw")
    async def read_size(request: Request) -> int:
        return len(await request.body())

    async with app_client(app) as client:
        assert (await client.post("/raw", content=b"x" * 11)).status_code == 413


async def test_health_checks_need_no_dependencies() -> None:
    """dependencies= of the app are not for health checks."""

    async def forbid() -> None:
        raise HTTPException(401)

    app = create_app(settings(), dependencies=[Depends(forbid)])

    @app.get("/thing")
    async def read() -> None: ...

    async with app_client(app) as client:
        assert [(await client.get(path)).status_code for path in ("/livez", "/readyz", "/health", "/thing")] == [200, 200, 200, 401]


@pytest.mark.parametrize("kind", [Exception, 500])
async def test_an_own_handler_of_exceptions_is_called(kind: type[Exception] | int) -> None:
    """An own handler for Exception is called, and its response has the headers of the middleware."""

    async def answer(request: Request, error: Exception) -> Response:
        return JSONResponse({"reported": type(error).__name__}, 500)

    app = create_app(settings(), exception_handlers={kind: answer})

    @app.get("/bug")
    async def fail() -> None:
        raise ZeroDivisionError

    async with app_client(app) as client:
        response = await client.get("/bug")

    assert (response.status_code, response.json()) == (500, {"reported": "ZeroDivisionError"})
    assert "x-request-id" in response.headers


async def test_a_mounted_app_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """A request to a mounted app is logged once, by the outer app."""
    caplog.set_level(logging.INFO, "fastapi_kit.access")
    outer = create_app(settings())
    outer.mount("/sub", stacked_app())

    async with app_client(outer) as client:
        await client.post("/sub/sizes/a", content=b"1")

    assert [vars(record)["route"] for record in caplog.records if record.name == "fastapi_kit.access"] == ["/sub/sizes/{name}"]


async def test_hsts_comes_from_the_settings() -> None:
    """HSTS_SECONDS sends HSTS, only over https."""
    async with app_client(stacked_app(HSTS_SECONDS=60)) as client:
        secure = await client.get("https://testserver/livez")
        plain = await client.get("http://testserver/livez")

    assert secure.headers["strict-transport-security"] == "max-age=60"
    assert "strict-transport-security" not in plain.headers


async def test_own_middleware_sees_the_request_id() -> None:
    """Own middleware= is inside request id and access log."""
    seen: list[object] = []

    class Watching:
        def __init__(self, app: ASGIApp) -> None:
            self.app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            seen.append(scope.get("state", {}).get("request_id"))
            await self.app(scope, receive, send)

    async with app_client(create_app(settings(), middleware=[Middleware(Watching)])) as client:
        await client.get("/nope", headers={"X-Request-ID": "abc-1"})

    assert "abc-1" in seen


def test_operation_ids_are_tag_and_name() -> None:
    """Operation ids are {tag}_{name}."""
    router = APIRouter(tags=["things"])

    @router.get("/things/{number}")
    async def get_thing(number: int) -> None: ...

    app = create_app(settings(), routers=[router])

    assert app.openapi()["paths"]["/api/v1/things/{number}"]["get"]["operationId"] == "things_get_thing"


async def test_two_operations_with_one_id_raise_at_startup() -> None:
    """Two operations with the same id raise ConfigurationError at start-up."""
    router = APIRouter(tags=["things"])

    @router.get("/things")
    async def list_things() -> None: ...

    app = create_app(settings(), routers=[router])
    app.include_router(router, prefix="/again")

    with pytest.raises(ConfigurationError, match="things_list_things"):
        await run(app)


async def test_health_has_the_database_and_own_checks(database: Database) -> None:
    """/health has the database, own checks and the version of the app."""

    async def fail() -> None:
        raise RuntimeError

    app = create_app(settings(VERSION="3.1"), database=database, checks=[HealthCheck("mail", fail, critical=False)])
    async with app_client(app) as client:
        report = (await client.get("/health")).json()

    assert report == {"status": "degraded", "version": "3.1", "checks": {"database": "ok", "mail": "failed"}}


@needs_telemetry
@pytest.mark.parametrize("telemetry", [{}, {"operation_spans": False}])
async def test_health_checks_are_not_traced(telemetry: dict[str, Any]) -> None:
    """Health checks are excluded from telemetry, and own telemetry options are kept."""
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    app = create_app(settings(), telemetry={"tracer_provider": provider, **telemetry})

    async with app_client(app) as client:
        for path in (*PROBE_PATHS, "/nowhere"):
            await client.get(path)

    assert [span.name for span in spans.get_finished_spans()] == ["GET"]


@needs_telemetry
async def test_an_own_exclude_wins() -> None:
    """An own exclude= for telemetry wins."""
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    app = create_app(settings(), telemetry={"tracer_provider": provider, "exclude": lambda scope: not is_probe(scope)})

    async with app_client(app) as client:
        await client.get("/nowhere")
        await client.get("/livez")

    assert spans.get_finished_spans()[-1].name == "GET /livez"


async def test_a_lost_database_makes_the_app_unready() -> None:
    """The app starts without its database, and /readyz is a 503."""
    app = create_app(settings(), database=Database("postgresql+asyncpg://127.0.0.1:1/none"))

    async with app_client(app) as client:
        assert (await client.get("/readyz")).status_code == 503
        assert (await client.get("/livez")).status_code == 200


async def test_lifespans_run_in_order_and_close_in_reverse(tmp_path: Path) -> None:
    """The database starts first, then the tables, lifespans= in order and FastAPI's own; they close in reverse."""
    events: list[str] = []
    app = create_app(
        settings(),
        database=NotedDatabase(tmp_path, events),
        create_tables=True,
        lifespans=[step("first", events), step("second", events)],
        lifespan=step("own", events),
    )
    await run(app)

    starts = ["tables", "first starts", "second starts", "own starts"]
    assert events == [*starts, "own stops", "second stops", "first stops", "dispose"]


async def test_a_failing_start_closes_what_was_opened(tmp_path: Path) -> None:
    """If a lifespan fails to start, those before it are closed."""
    events: list[str] = []

    @asynccontextmanager
    async def careful(app: FastAPI) -> AsyncIterator[None]:
        try:
            yield
        finally:
            events.append("closed")

    app = create_app(settings(), database=NotedDatabase(tmp_path, events), lifespans=[careful, step("second", events, fails=True)])
    with pytest.raises(RuntimeError, match="second"):
        await run(app)

    assert events == ["second starts", "closed", "dispose"]


async def test_what_lifespans_yield_is_the_requests_state() -> None:
    """Mappings of all lifespans are together in request.state."""
    router = APIRouter(lifespan=step("router", [], state={"c": 3}))

    @router.get("/state")
    async def read(request: Request) -> list[int]:
        return [request.state.a, request.state.b, request.state.c]

    app = create_app(settings(), lifespans=[step("first", [], state={"a": 1})], lifespan=step("own", [], state={"b": 2}), routers=[router])
    async with app_client(app) as client:
        assert (await client.get("/api/v1/state")).json() == [1, 2, 3]


async def test_routers_included_later_are_started_too() -> None:
    """The lifespan of a router that is included later runs too."""
    events: list[str] = []
    app = create_app(settings(), lifespans=[step("first", events)])
    app.include_router(APIRouter(lifespan=step("router", events)))
    await run(app)

    assert events == ["first starts", "router starts", "router stops", "first stops"]
