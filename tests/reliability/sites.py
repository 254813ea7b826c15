"""The apps that the failures are tried on: the library's own routes, and routes written by hand."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, HTTPException
from httpx import AsyncClient, Response
from pydantic import BaseModel, ConfigDict
from sqlalchemy import URL, insert, select, update
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from starlette.types import ASGIApp, Receive, Scope, Send
from tests.reliability.aside import telling_words
from tests.tables.library import Loan, LoanCreate, LoanService, Tag, TagCreate, TagService, TagUpdate
from tests.thorough import few

from fastapi_kit import KitSettings, create_app, crud_router
from fastapi_kit.db import Database, DatabaseOptions
from fastapi_kit.db.transactions import typed_errors, unit_of_work
from fastapi_kit.errors import UnavailableError
from fastapi_kit.handlers import register_exception_handlers
from fastapi_kit.testing import app_client

__all__ = ["ACTIONS", "KINDS", "Site", "assert_discreet", "assert_rejected", "assert_unavailable", "open_site"]

KINDS = few(("kit", "mixed", "by hand"))
"""``kit``: create_app, Database and crud_router. ``mixed``: crud_router on a session of the application. ``by hand``: handlers only."""

ACTIONS = ("create", "list", "get", "update", "delete", "pair")


class TagRead(TagCreate):
    model_config = ConfigDict(from_attributes=True)
    id: int


class LoanRead(LoanCreate):
    model_config = ConfigDict(from_attributes=True)
    id: int


class Pair(BaseModel):
    first: str
    second: str


class Move(BaseModel):
    first: int
    second: int


class Attempt(BaseModel):
    first: str
    attempted: str
    last: str


async def no_hook() -> None:
    """Do nothing."""


@dataclass
class Hooks:
    """What a test does in the middle of a request."""

    between: Callable[[], Awaitable[object]] = no_hook
    """In ``/moves``, ``/attempts``: between two writes. In the hand-written PATCH: between read and write."""
    before_refresh: Callable[[], Awaitable[object]] = no_hook
    """In the hand-written POST and PATCH: after the COMMIT."""


@dataclass
class Site:
    """A running app with a client to it, and its engine."""

    kind: str
    app: FastAPI
    client: AsyncClient
    engine: AsyncEngine
    hooks: Hooks

    @property
    def checked_out(self) -> int:
        """How many connections are out of the pool."""
        pool: Any = self.engine.pool
        return int(pool.checkedout())

    async def act(self, action: str, *, key: int = 0, name: str = "new") -> Response:
        """Send the request that *action* names; *key* is the row to read, change (first) or delete, *name* the new name."""
        async with asyncio.timeout(10):
            return await self._send(action, key, name)

    async def _send(self, action: str, key: int, name: str) -> Response:
        match action:
            case "create":
                return await self.client.post("/tags", json={"name": name, "weight": 7})
            case "move":
                return await self.client.post("/moves", json={"first": key, "second": -1 - key})
            case "pair":
                return await self.client.post("/pairs", json={"first": f"{name} 1", "second": f"{name} 2"})
            case "list":
                return await self.client.get("/tags")
            case "get":
                return await self.client.get(f"/tags/{key}")
            case "update":
                return await self.client.patch(f"/tags/{key}", json={"name": name})
            case _:
                return await self.client.delete(f"/tags/{key}")


@dataclass(frozen=True)
class Served:
    """Lets requests look as a server sends them: then the server logs tracebacks, and the library's own lines have none."""

    app: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app({**scope, "asgi": {**scope["asgi"], "spec_version": "2.3"}}, receive, send)


@asynccontextmanager
async def open_site(kind: str, url: URL | str, *, extra: Sequence[APIRouter] = (), **options: Any) -> AsyncGenerator[Site]:
    """Start the app of *kind* on the database at *url*, with the routes *extra*; *options* are those of ``DatabaseOptions``."""
    database = Database(url, options=DatabaseOptions(**options)) if kind == "kit" else None
    engine = database.engine if database is not None else _application_engine(url, DatabaseOptions(**options))
    hooks = Hooks()
    app = _kit_app(database, hooks) if database is not None else _application(kind, async_sessionmaker(engine), hooks)
    for router in extra:
        app.include_router(router)
    app.add_middleware(Served)
    try:
        async with app_client(app) as client:
            yield Site(kind, app, client, engine, hooks)
    finally:
        await engine.dispose()


def _application_engine(url: URL | str, options: DatabaseOptions) -> AsyncEngine:
    arguments: dict[str, Any] = {"timeout": options.pool_timeout}
    if "asyncpg" in str(url):
        arguments["command_timeout"] = options.command_timeout
        if options.statement_timeout is not None:
            arguments["server_settings"] = {"statement_timeout": str(int(options.statement_timeout * 1000))}
    elif "psycopg" in str(url):
        arguments = {"connect_timeout": 2}
    sizes = {"pool_size": options.pool_size, "max_overflow": options.max_overflow, "pool_timeout": options.pool_timeout}
    return create_async_engine(url, connect_args=arguments, **sizes)


def _kit_app(database: Database, hooks: Hooks) -> FastAPI:
    app = create_app(KitSettings(API_V1_STR="", SECRET_KEY="0123456789abcdef0123456789abcdef"), database=database)  # type: ignore[arg-type]
    app.include_router(crud_router(TagService, read=TagRead, session=database.session), prefix="/tags")
    app.include_router(crud_router(LoanService, read=LoanRead, session=database.session), prefix="/loans")

    @app.post("/pairs", status_code=201)
    async def create_pair(pair: Pair, session: Annotated[AsyncSession, database.transaction]) -> None:
        tags = TagService(session)
        await tags.create(TagCreate(name=pair.first))
        await tags.create(TagCreate(name=pair.second))

    @app.post("/moves", status_code=204)
    async def move(move: Move, session: Annotated[AsyncSession, database.transaction]) -> None:
        await TagService(session).update(move.first, TagUpdate(weight=10))
        await hooks.between()
        await TagService(session).update(move.second, TagUpdate(weight=20))

    @app.post("/attempts", status_code=201)
    async def attempt(attempt: Attempt, session: Annotated[AsyncSession, database.transaction]) -> None:
        await write_stubbornly(session, attempt, hooks)

    @app.post("/loose-attempts", status_code=201)
    async def attempt_loosely(attempt: Attempt, session: Annotated[AsyncSession, database.session]) -> None:
        await write_loosely(session, attempt, hooks)

    return app


async def write_stubbornly(session: AsyncSession, attempt: Attempt, hooks: Hooks) -> None:
    """Write three tags, and go on if the database fails at the second."""
    await TagService(session).create(TagCreate(name=attempt.first))
    await hooks.between()
    with suppress(UnavailableError):
        async with typed_errors(session):
            await session.execute(insert(Tag).values(name=attempt.attempted))
    await TagService(session).create(TagCreate(name=attempt.last))


async def write_loosely(session: AsyncSession, attempt: Attempt, hooks: Hooks) -> None:
    """Likewise, in no unit: the first by hand and not committed, the last by a service, whose write commits both."""
    await session.execute(insert(Tag).values(name=attempt.first))
    await hooks.between()
    with suppress(UnavailableError):
        async with typed_errors(session):
            await session.execute(insert(Tag).values(name=attempt.attempted))
    await TagService(session).create(TagCreate(name=attempt.last))


def _application(kind: str, sessions: async_sessionmaker[AsyncSession], hooks: Hooks) -> FastAPI:
    async def get_db() -> AsyncIterator[AsyncSession]:
        async with sessions() as session:
            yield session

    app = FastAPI()
    if kind == "mixed":
        app.include_router(crud_router(TagService, read=TagRead, session=Depends(get_db)), prefix="/tags")
        app.include_router(crud_router(LoanService, read=LoanRead, session=Depends(get_db)), prefix="/loans")

        @app.post("/pairs", status_code=201)
        async def create_pair(pair: Pair, session: Annotated[AsyncSession, Depends(get_db)]) -> None:
            async with unit_of_work(session):
                await TagService(session).create(TagCreate(name=pair.first))
                await TagService(session).create(TagCreate(name=pair.second))

        @app.post("/moves", status_code=204)
        async def move(move: Move, session: Annotated[AsyncSession, Depends(get_db)]) -> None:
            async with unit_of_work(session):
                await TagService(session).update(move.first, TagUpdate(weight=10))
                await hooks.between()
                await TagService(session).update(move.second, TagUpdate(weight=20))

        @app.post("/attempts", status_code=201)
        async def attempt(attempt: Attempt, session: Annotated[AsyncSession, Depends(get_db)]) -> None:
            async with unit_of_work(session):
                await write_stubbornly(session, attempt, hooks)

        @app.post("/loose-attempts", status_code=201)
        async def attempt_loosely(attempt: Attempt, session: Annotated[AsyncSession, Depends(get_db)]) -> None:
            await write_loosely(session, attempt, hooks)

    else:
        _add_handwritten(app, get_db, hooks)
    register_exception_handlers(app)
    return app


def _add_handwritten(app: FastAPI, get_db: Any, hooks: Hooks) -> None:
    async def tag_of(tag_id: int, db: AsyncSession) -> Tag:
        if (tag := await db.get(Tag, tag_id)) is None:
            raise HTTPException(404)
        return tag

    @app.post("/tags", status_code=201, response_model=TagRead)
    async def create_tag(data: TagCreate, db: Annotated[AsyncSession, Depends(get_db)]) -> Tag:
        tag = Tag(**data.model_dump())
        db.add(tag)
        await db.commit()
        await hooks.before_refresh()
        await db.refresh(tag)
        return tag

    @app.get("/tags", response_model=list[TagRead])
    async def list_tags(db: Annotated[AsyncSession, Depends(get_db)]) -> Sequence[Tag]:
        return (await db.scalars(select(Tag).order_by(Tag.id))).all()

    @app.get("/tags/{tag_id}", response_model=TagRead)
    async def get_tag(tag_id: int, db: Annotated[AsyncSession, Depends(get_db)]) -> Tag:
        return await tag_of(tag_id, db)

    @app.patch("/tags/{tag_id}", response_model=TagRead)
    async def update_tag(tag_id: int, changes: TagUpdate, db: Annotated[AsyncSession, Depends(get_db)]) -> Tag:
        tag = await tag_of(tag_id, db)
        await hooks.between()
        for name, value in changes.model_dump(exclude_unset=True).items():
            setattr(tag, name, value)
        await db.commit()
        await hooks.before_refresh()
        await db.refresh(tag)
        return tag

    @app.delete("/tags/{tag_id}", status_code=204)
    async def delete_tag(tag_id: int, db: Annotated[AsyncSession, Depends(get_db)]) -> None:
        await db.delete(await tag_of(tag_id, db))
        await db.commit()

    @app.post("/pairs", status_code=201)
    async def create_pair(pair: Pair, db: Annotated[AsyncSession, Depends(get_db)]) -> None:
        async with db.begin():
            db.add(Tag(name=pair.first))
            await db.flush()
            db.add(Tag(name=pair.second))

    @app.post("/moves", status_code=204)
    async def move(move: Move, db: Annotated[AsyncSession, Depends(get_db)]) -> None:
        async with db.begin():
            await db.execute(update(Tag).where(Tag.id == move.first).values(weight=10))
            await hooks.between()
            await db.execute(update(Tag).where(Tag.id == move.second).values(weight=20))

    @app.post("/loans", status_code=201, response_model=LoanRead)
    async def create_loan(data: LoanCreate, db: Annotated[AsyncSession, Depends(get_db)]) -> Loan:
        loan = Loan(**data.model_dump())
        db.add(loan)
        await db.commit()
        await db.refresh(loan)
        return loan


def assert_unavailable(answer: Response, *, retry_after: int = 1) -> None:
    """Check that *answer* says "try again later" and nothing else."""
    said = answer.json()
    assert (answer.status_code, said["code"]) == (503, "unavailable")
    assert {key: value for key, value in said.items() if key not in {"request_id", "instance"}} == {
        "type": "about:blank",
        "title": "Service Unavailable",
        "status": 503,
        "detail": "The service cannot answer now. Try again later.",
        "code": "unavailable",
    }
    assert (answer.headers["content-type"], answer.headers["retry-after"]) == ("application/problem+json", str(retry_after))
    assert_discreet(answer)


def assert_rejected(answer: Response, status: int, code: str) -> None:
    """Check that *answer* is a problem of the client's, of this *status* and *code*."""
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert (answer.json()["status"], answer.headers["content-type"]) == (status, "application/problem+json")
    assert "retry-after" not in answer.headers
    assert_discreet(answer)


def assert_discreet(answer: Response) -> None:
    """Check that *answer* tells nothing of statements, stack, address or names of the database, in its body or a header."""
    assert not telling_words(f"{answer.text} {answer.headers}")
