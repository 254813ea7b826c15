"""A WebSocket ends with the login behind it."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, WebSocket
from tests.auth.people import People, Person, app_with, no_session, tokens
from tests.auth.requests.test_websocket import closed, served
from websockets.asyncio.client import connect

from fastapi_kit.auth import SubprotocolTransport, TokenClaims, accept_websocket, get_current_user_factory, while_logged_in
from fastapi_kit.auth.logins import LoginRecord, MemoryLoginStore, StoredLogins
from fastapi_kit.errors import ConfigurationError, InvalidTokenError, UnavailableError

SOON = timedelta(milliseconds=1)


class Checks:
    """A check that is good until *over* is set, and counts. *checked* is set by each."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error or InvalidTokenError("its login is over")
        self.over = False
        self.count = 0
        self.checked = asyncio.Event()

    async def __call__(self) -> None:
        self.count += 1
        self.checked.set()
        if self.over:
            raise self.error


async def for_ever() -> None:
    async with asyncio.timeout(30):
        await asyncio.Event().wait()


@pytest.mark.parametrize("error", [InvalidTokenError("over"), UnavailableError("the store of logins"), LookupError("a bug")], ids=range(3))
async def test_the_login_ends(error: Exception) -> None:
    """R49: the block goes on while the check is good, and ends with the error of the first one that is not."""
    check = Checks(error)
    ended = asyncio.Event()
    with pytest.raises(type(error)) as caught:
        async with while_logged_in(check, every=SOON):
            try:
                for _ in range(3):
                    await asyncio.wait_for(check.checked.wait(), timeout=10)
                    check.checked.clear()
                check.over = True
                await for_ever()
            finally:
                ended.set()
    assert caught.value is error
    assert ended.is_set()
    assert check.count >= 4


async def test_a_block_that_ends_first() -> None:
    """R49: a block that ends, or raises an error of its own, ends the checks."""
    check = Checks()
    async with while_logged_in(check, every=timedelta(days=1)):
        pass
    with pytest.raises(LookupError):
        async with while_logged_in(check, every=timedelta(days=1)):
            raise LookupError
    assert check.count == 0
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_check_that_is_running() -> None:
    """R49: a check that runs when the block ends is cancelled, and has ended before what comes after the block."""
    begun, ended = asyncio.Event(), asyncio.Event()

    async def check() -> None:
        begun.set()
        try:
            await for_ever()
        finally:
            await asyncio.sleep(0)  # such as a session that is closed
            ended.set()

    async with while_logged_in(check, every=timedelta(milliseconds=200)):
        await asyncio.wait_for(begun.wait(), timeout=10)
    assert ended.is_set()


async def test_a_check_that_is_cancelled() -> None:
    """R49: a check that something cancels ends the block, which does not go on unchecked."""

    async def check() -> None:
        raise asyncio.CancelledError

    with pytest.raises(UnavailableError):
        async with while_logged_in(check, every=SOON):
            await for_ever()


async def test_a_check_that_takes_too_long() -> None:
    """R49: a check without an answer ends the block: nobody knows whether the login is over."""
    with pytest.raises(UnavailableError):
        async with while_logged_in(for_ever, every=SOON):
            await for_ever()


async def test_a_cancellation_from_outside() -> None:
    """A server that stops, or any other cancellation, ends the block as it ends others."""
    begun, check = asyncio.Event(), Checks()

    async def block() -> None:
        async with while_logged_in(check, every=timedelta(days=1)):
            begun.set()
            await for_ever()

    task = asyncio.create_task(block())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_block_that_swallows_the_cancellation() -> None:
    """R49: a block that loses a cancellation is cancelled again."""
    check = Checks()
    check.over = True
    with pytest.raises(InvalidTokenError):
        async with while_logged_in(check, every=SOON):
            for _ in range(3):
                with suppress(asyncio.CancelledError):
                    await for_ever()
            await for_ever()


async def test_a_block_that_ends_with_the_login() -> None:
    """R49: what comes after the block does not run as if the login went on, even if the block takes the cancellation for its end."""
    check = Checks()
    check.over = True
    with pytest.raises(InvalidTokenError):
        async with while_logged_in(check, every=SOON):
            with suppress(asyncio.CancelledError):
                await for_ever()


@pytest.mark.parametrize("every", [timedelta(), timedelta(seconds=-1)])
async def test_a_wrong_pause(every: timedelta) -> None:
    """A pause of nothing raises ConfigurationError."""
    with pytest.raises(ConfigurationError):
        async with while_logged_in(Checks(), every=every):
            pass


# --- A real server ---


class Store(MemoryLoginStore):
    """A store that can be gone."""

    is_gone = False

    async def find(self, sid: str, /) -> LoginRecord | None:
        if self.is_gone:
            raise UnavailableError("the store of logins")
        return await super().find(sid)


class Site:
    """An app with a WebSocket that ends with the login or with the user."""

    def __init__(self) -> None:
        self.people = People(Person(1), Person(2))
        self.store = Store()
        self.left = asyncio.Event()
        self.logins = StoredLogins(tokens, self.store, check_access=True)
        get_user = get_current_user_factory(self.logins, self.people.load, session=no_session, transports=[SubprotocolTransport()])

        def build(app: FastAPI) -> None:
            @app.websocket("/talk")
            async def talk(
                socket: WebSocket,
                user: Annotated[Person, Depends(get_user)],
                claims: Annotated[TokenClaims, Depends(get_user.claims)],
            ) -> None:
                await accept_websocket(socket)

                async def check() -> None:
                    await self.logins.check_login(claims)
                    found = await self.people.load(None, claims)
                    if found is None or not found.is_active:
                        raise InvalidTokenError("its user may not log in")

                async with while_logged_in(check, every=timedelta(milliseconds=20)):
                    async for text in socket.iter_text():
                        await socket.send_text(f"{user.id} {text}")
                self.left.set()

        self.app = app_with(build)

    async def log_out(self) -> None:
        await self.logins.end_all("1")

    async def deactivate(self) -> None:
        self.people.rows[1].is_active = False

    async def delete(self) -> None:
        del self.people.rows[1]

    async def lose_the_store(self) -> None:
        self.store.is_gone = True


ENDS: list[tuple[Callable[[Site], Awaitable[None]], tuple[int, str]]] = [
    (Site.log_out, (1008, "invalid_token")),
    (Site.deactivate, (1008, "invalid_token")),
    (Site.delete, (1008, "invalid_token")),
    (Site.lose_the_store, (1013, "unavailable")),
]


@pytest.mark.parametrize(("end", "code"), ENDS, ids=[end.__name__ for end, _ in ENDS])
async def test_a_websocket_ends_with_its_login(end: Callable[[Site], Awaitable[None]], code: tuple[int, str]) -> None:
    """R41, R49: the end of the login or of the user closes an open WebSocket with 1008, and a store that is gone with 1013."""
    site = Site()
    mine, other = await site.logins.start("1"), await site.logins.start("2")
    options: dict[str, Any] = {"subprotocols": ["bearer", mine.access_token]}
    async with served(site.app) as address, connect(f"{address}/talk", **options) as socket:
        for _ in range(2):
            await socket.send("hello")
            assert await socket.recv() == "1 hello"
        await end(site)
        assert await closed(socket) == code
        if code[0] == 1008:
            async with connect(f"{address}/talk", **{**options, "subprotocols": ["bearer", other.access_token]}) as still_open:
                await still_open.send("hello")
                assert await still_open.recv() == "2 hello"


async def test_a_client_that_leaves() -> None:
    """R49: a client that leaves ends the block and the checks, and is no error."""
    site = Site()
    mine = await site.logins.start("1")
    options: dict[str, Any] = {"subprotocols": ["bearer", mine.access_token]}
    async with served(site.app) as address:
        async with connect(f"{address}/talk", **options) as socket:
            await socket.send("hello")
            await socket.recv()
        await asyncio.wait_for(site.left.wait(), timeout=30)
