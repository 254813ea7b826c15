"""What is accepted as a dependency."""

from collections.abc import AsyncIterator, Iterator
from typing import Annotated

import pytest
from fastapi import APIRouter, Depends, FastAPI
from sqlalchemy.ext.asyncio import AsyncSession

from fastapi_kit.db import Database
from fastapi_kit.dependencies import answering, as_depends
from fastapi_kit.errors import ConfigurationError
from fastapi_kit.handlers import register_exception_handlers
from fastapi_kit.testing.client import app_client


async def get_numbers() -> AsyncIterator[list[int]]:
    yield []


def get_number() -> Iterator[int]:
    yield 1


def test_a_marker_stays_itself() -> None:
    """A marker such as db.session is returned as it is."""
    marker = Depends(get_numbers, scope="function")

    assert as_depends(marker) is marker


def test_a_callable_becomes_a_plain_depends() -> None:
    """A callable becomes Depends(callable) without a scope."""
    assert as_depends(get_number) == Depends(get_number)
    assert as_depends(get_numbers) == Depends(get_numbers)


def test_a_dependency_that_outlives_its_session_is_rejected() -> None:
    """A dependency with yield above db.session, at any depth, is rejected with the cure, which works."""
    db = Database("sqlite://")

    async def get_db(session: Annotated[AsyncSession, db.session]) -> AsyncIterator[AsyncSession]:
        yield session

    def get_unit(session: Annotated[AsyncSession, db.transaction]) -> Iterator[AsyncSession]:
        yield session

    async def get_deeper(session: Annotated[AsyncSession, Depends(get_db)]) -> AsyncSession:
        return session

    async def get_cured(session: Annotated[AsyncSession, Depends(get_db, scope="function")]) -> AsyncSession:
        return session

    for dependency in (get_db, get_unit, get_deeper):
        with pytest.raises(ConfigurationError, match=r"write return instead of yield"):
            as_depends(dependency)
    as_depends(get_cured)
    as_depends(Depends(get_db, scope="function"))


def test_names_may_be_defined_later() -> None:
    """An annotation that cannot be read yet is no mistake."""

    async def get_db(settings: "Annotated[LaterSettings, Depends(get_later)]") -> AsyncIterator[int]:  # type: ignore[name-defined] # noqa: F821
        yield 1

    assert as_depends(get_db) == Depends(get_db)


async def test_a_callable_is_called_once_in_a_request() -> None:
    """An own Depends(get_db) and the library's share one session in a request."""
    app = FastAPI()

    @app.get("/")
    async def read(first: Annotated[list[int], Depends(get_numbers)], second: Annotated[list[int], as_depends(get_numbers)]) -> bool:
        return first is second

    async with app_client(app) as client:
        assert (await client.get("/")).json() is True


async def test_a_marked_dependency_is_documented() -> None:
    """The statuses of a marked dependency, at any depth, are in the document."""

    @answering(403, 410)
    async def guard() -> None: ...

    async def deeper(_: Annotated[None, Depends(guard)]) -> None: ...

    app, router = FastAPI(), APIRouter()
    register_exception_handlers(app)

    @router.get("/plain")
    async def plain() -> None: ...

    @router.get("/deep", dependencies=[Depends(deeper)], responses={410: {"description": "Mine"}})
    async def deep() -> None: ...

    app.include_router(router, prefix="/a")
    app.include_router(router, prefix="/b", dependencies=[Depends(guard)])

    paths = app.openapi()["paths"]
    found = {path: sorted(paths[path]["get"]["responses"]) for path in paths}
    assert found == {
        "/a/plain": ["200", "default"],
        "/a/deep": ["200", "403", "410", "default"],
        "/b/plain": ["200", "403", "410", "default"],
        "/b/deep": ["200", "403", "410", "default"],
    }
    assert paths["/a/deep"]["get"]["responses"]["410"]["description"] == "Mine"
    assert paths["/a/deep"]["get"]["responses"]["403"]["content"]["application/problem+json"]["schema"]
