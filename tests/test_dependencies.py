"""What is accepted as a dependency."""

from collections.abc import AsyncIterator, Iterator
from typing import Annotated

from fastapi import Depends, FastAPI

from fastapi_kit.dependencies import as_depends
from fastapi_kit.testing.client import app_client


async def get_numbers() -> AsyncIterator[list[int]]:
    yield []


def get_number() -> Iterator[int]:
    yield 1


def test_a_marker_stays_itself() -> None:
    """T5: a marker such as ``db.session`` keeps its scope and its identity."""
    marker = Depends(get_numbers, scope="function")

    assert as_depends(marker) is marker


def test_a_callable_is_depended_on_in_the_hosts_scope() -> None:
    """T5: a bare callable becomes what the host writes itself, without a scope of the library's."""
    assert as_depends(get_number) == Depends(get_number)
    assert as_depends(get_numbers) == Depends(get_numbers)


async def test_a_callable_is_called_once_in_a_request() -> None:
    """T5: the host's own ``Depends(get_db)`` and the library's are one session, not two."""
    app = FastAPI()

    @app.get("/")
    async def read(first: Annotated[list[int], Depends(get_numbers)], second: Annotated[list[int], as_depends(get_numbers)]) -> bool:
        return first is second

    async with app_client(app) as client:
        assert (await client.get("/")).json() is True
