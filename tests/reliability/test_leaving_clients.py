"""The client leaves, or the worker stops: the request is cancelled at each of its awaits in turn."""

import asyncio
from collections.abc import Awaitable, Callable, Generator
from types import coroutine
from typing import Any, TypeVar

import pytest
from httpx import Response
from tests.reliability.aside import Aside
from tests.reliability.proxy import Fault, Proxy
from tests.reliability.sites import KINDS, Site, open_site

ResultT = TypeVar("ResultT")

DONE = {"create": ["old", "new"], "pair": ["old", "new 1", "new 2"], "update": ["new"], "delete": [], "list": ["old"]}


@pytest.fixture
def bystanders() -> frozenset[str]:
    """SQLAlchemy reports a connection whose closing is cancelled, with a traceback."""
    return frozenset({"sqlalchemy.pool.impl.AsyncAdaptedQueuePool"})


@coroutine
def counting(work: Awaitable[ResultT], suspend: Callable[[], None]) -> Generator[Any, Any, ResultT]:
    """Await *work*, calling *suspend* each time that it waits for something."""
    steps = work.__await__()
    error: BaseException | None = None
    while True:
        try:
            waited_for = steps.throw(error) if error is not None else next(steps)
        except StopIteration as end:
            result: ResultT = end.value
            return result
        error = None
        suspend()
        try:
            yield waited_for
        except BaseException as caught:
            error = caught


async def leaving(site: Site, action: str, number: int, *, insisting: bool) -> Response | None:
    """Send the request and cancel it at its await *number*, and if *insisting* at each later one; return the answer if that came first."""

    async def request() -> Response:
        task, awaits = asyncio.current_task(), 0
        assert task is not None

        def suspend() -> None:
            nonlocal awaits
            awaits += 1
            if awaits == number or (insisting and awaits > number):
                task.cancel()

        return await counting(site.act(action), suspend)

    try:
        return await asyncio.create_task(request())
    except asyncio.CancelledError:
        return None


@pytest.mark.parametrize("insisting", [False, True], ids=["once", "again and again"])
@pytest.mark.parametrize("action", ["create", "pair", "list"])
@pytest.mark.parametrize("kind", KINDS)
async def test_a_request_cancelled_at_each_await(any_aside: Aside, kind: str, action: str, insisting: bool) -> None:
    """It is done or not done, never half; its connection is back; the next request works."""
    async with open_site(kind, any_aside.database.engine.url, pool_size=1, max_overflow=0, pool_timeout=2) as site:
        await site.act("list")
        number, answer = 0, None
        while answer is None:
            number += 1
            await any_aside.start_over()

            answer = await leaving(site, action, number, insisting=insisting)

            stored = await any_aside.names()
            assert stored in (["old"], DONE[action]), number
            assert answer is None or (answer.is_success and stored == DONE[action]), number
            next_one = await site.act("list")
            assert next_one.status_code == 200, number
            assert site.checked_out == 0, number

    assert number > 2


@pytest.mark.parametrize("action", ["create", "pair", "list"])
@pytest.mark.parametrize("kind", KINDS)
async def test_a_request_cancelled_while_the_server_works(proxy: Proxy, aside: Aside, kind: str, action: str) -> None:
    """At each statement in turn the client leaves before the server answers: nothing is half-written, the connection is back."""
    async with open_site(kind, proxy.url, pool_size=1, max_overflow=0) as site:
        await site.act("list")
        proxy.arm()
        assert (await site.act(action)).is_success
        for number in range(1, len(proxy.statements) + 1):
            await aside.start_over()
            assert (await site.act("list")).status_code == 200
            proxy.arm(Fault.HOLD, at=number)
            request = asyncio.create_task(site.act(action))
            await proxy.struck.wait()
            request.cancel()
            await asyncio.sleep(0)
            proxy.released.set()
            await asyncio.wait({request})
            proxy.arm()

            again = await site.act("list")
            stored = await aside.names()

            assert stored in (["old"], DONE[action]), number
            assert (again.status_code, site.checked_out) == (200, 0), number
