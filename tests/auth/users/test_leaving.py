"""Logins of clients that have gone do not delay the logins of others."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import replace
from typing import Annotated, Any
from urllib.parse import urlencode

import pytest
from fastapi import BackgroundTasks, Depends, FastAPI
from sqlalchemy import QueuePool
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.types import Message
from tests.auth.accounts import PASSWORD, Site, UserRead, load_user, store_user

from fastapi_kit.auth import get_current_user_factory
from fastapi_kit.auth.logins import MemoryLoginStore
from fastapi_kit.auth.passwords import PasswordHasher
from fastapi_kit.auth.users import AccountChange, AuthEndpoint, MailFlow, auth_router
from fastapi_kit.db import Database, DatabaseOptions
from fastapi_kit.dependencies import Dependency, while_connected
from fastapi_kit.errors import InvalidTokenError, UserInputError
from fastapi_kit.handlers import register_exception_handlers
from fastapi_kit.testing import app_client, captured_mails

WORKERS = 2


class Gate:
    """Verifies when it is opened, and counts. *busy* is done when all threads are at work."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.begun = 0
        self.verified = 0
        self.loop = asyncio.get_running_loop()
        self.busy: asyncio.Future[None] = self.loop.create_future()

    def work(self) -> None:
        self.begun += 1
        if self.begun == WORKERS:
            self.loop.call_soon_threadsafe(self.busy.set_result, None)
        self.opened.wait(timeout=30)
        self.verified += 1

    def hash(self, secret: str, /) -> str:
        self.work()
        return secret

    def verify_and_update(self, secret: str, hash: str, /) -> tuple[bool, str | None]:
        self.work()
        return secret == hash, None


async def send(
    app: FastAPI, path: str, body: bytes, kind: str, gone: asyncio.Event, headers: Sequence[tuple[bytes, bytes]] = ()
) -> int | None:
    """Send a request whose client leaves when *gone* is set, and return the status of the answer."""
    messages: list[Message] = [{"type": "http.request", "body": body}]
    answers: list[Message] = []

    async def receive() -> Message:
        if messages:
            return messages.pop()
        await gone.wait()
        return {"type": "http.disconnect"}

    async def keep(message: Message) -> None:
        answers.append(message)
        if message["type"] == "http.response.body":
            gone.set()  # as uvicorn does

    scope: dict[str, Any] = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http"}
    place = {"path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "", "client": None, "server": None}
    scope["headers"] = [(b"content-type", kind.encode()), *headers]
    await app({**scope, **place}, receive, keep)
    return answers[0]["status"] if answers else None


FORM = urlencode({"username": "ann@example.com", "password": PASSWORD}).encode(), "application/x-www-form-urlencoded"


@pytest.fixture
async def narrow(users: Database) -> Any:
    """The same database with two connections."""
    database = Database(users.engine.url, options=DatabaseOptions(pool_size=2, max_overflow=0))
    yield database
    await database.dispose()


def slow_site(database: Database, gate: Gate) -> Site:
    site = Site(database)
    gate.opened.set()
    passwords = PasswordHasher(context=gate, max_concurrency=WORKERS)
    gate.opened.clear()
    gate.begun = gate.verified = 0
    site.flow = type(site.flow)(accounts=site.flow.accounts, logins=site.flow.logins, passwords=passwords)
    site.app.include_router(site.router(), prefix="/slow")
    return site


async def test_twenty_clients_that_have_gone(narrow: Database) -> None:
    """R31: of twenty logins whose clients have gone, only those at work are finished; the next login waits for no other."""
    await store_user(narrow, hashed_password=PASSWORD)
    gate, gone, stays = Gate(), asyncio.Event(), asyncio.Event()
    app = slow_site(narrow, gate).app

    left = [asyncio.create_task(send(app, "/slow/login", *FORM, gone)) for _ in range(20)]
    await gate.busy
    gone.set()
    statuses = await asyncio.wait_for(asyncio.gather(*left), timeout=10)
    waiting = asyncio.create_task(send(app, "/slow/login", *FORM, stays))
    gate.opened.set()

    assert await asyncio.wait_for(waiting, timeout=10) == 200
    assert statuses == [499] * 20
    assert gate.begun == WORKERS + 1


async def test_a_registration_of_a_client_that_has_gone(narrow: Database) -> None:
    """R31: a registration that waits for a thread is dropped with its client, and creates no user."""
    gate, gone = Gate(), asyncio.Event()
    site = slow_site(narrow, gate)
    body = b'{"email": "ann@example.com", "password": "correct horse battery"}', "application/json"

    left = [asyncio.create_task(send(site.app, "/slow/register", *body, gone)) for _ in range(5)]
    await gate.busy
    gone.set()
    assert await asyncio.wait_for(asyncio.gather(*left), timeout=10) == [499] * 5
    gate.opened.set()

    async with app_client(site.app) as client:
        assert (await client.post("/slow/register", json={"email": "ann@example.com", "password": PASSWORD})).status_code == 201


async def test_connections_come_back(narrow: Database) -> None:
    """R31: requests that were dropped leave no connection behind."""
    await store_user(narrow, hashed_password=PASSWORD)
    gate, gone = Gate(), asyncio.Event()
    app = slow_site(narrow, gate).app
    for _ in range(3):
        gone.clear()
        left = [asyncio.create_task(send(app, "/slow/login", *FORM, gone)) for _ in range(10)]
        await asyncio.sleep(0.05)
        gone.set()
        await asyncio.gather(*left)
    gate.opened.set()

    async with app_client(app) as client:
        form = {"username": "ann@example.com", "password": PASSWORD}
        assert (await client.post("/slow/login", data=form)).status_code == 200
    pool = narrow.engine.pool
    assert isinstance(pool, QueuePool)
    assert pool.checkedout() == 0


@pytest.mark.parametrize(("error", "status"), [(None, 200), (UserInputError("no"), 422), (TimeoutError(), None), (LookupError(), None)])
async def test_what_a_connected_request_does(error: Exception | None, status: int | None) -> None:
    """``while_connected`` changes nothing for a client that stays: results, errors and timeouts of the route are its own."""
    app = FastAPI()
    register_exception_handlers(app)

    @app.post("/")
    async def work(_: Annotated[None, while_connected]) -> str:
        await asyncio.sleep(0)
        if error is not None:
            raise error
        return "done"

    with nullcontext() if status else pytest.raises(type(error or ValueError())):
        assert await send(app, "/", b"", "text/plain", asyncio.Event()) == status


async def test_a_cancellation_that_is_lost() -> None:
    """``while_connected`` cancels again if something swallows the cancellation, as ``asyncio.wait_for`` may do in Python 3.11."""
    app, begun, gone = FastAPI(), asyncio.Event(), asyncio.Event()
    register_exception_handlers(app)

    @app.post("/", dependencies=[while_connected])
    async def work() -> None:
        begun.set()
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(30)
        await asyncio.sleep(30)

    request = asyncio.create_task(send(app, "/", b"", "text/plain", gone))
    await begun.wait()
    gone.set()
    assert await asyncio.wait_for(request, timeout=10) == 499


async def test_work_after_the_response() -> None:
    """``while_connected`` ends before the response: background tasks run although the client has got its answer and gone."""
    app, done = FastAPI(), asyncio.Event()

    async def work() -> None:
        await asyncio.sleep(0.05)
        done.set()

    @app.post("/", dependencies=[while_connected])
    async def answer(tasks: BackgroundTasks) -> None:
        tasks.add_task(work)

    assert await send(app, "/", b"", "text/plain", asyncio.Event()) == 200
    assert done.is_set()


class SlowEnd(MemoryLoginStore):
    """A store that is asked to end all logins, and waits. *asked* is set then."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = asyncio.Event()
        self.goes_on = asyncio.Event()

    async def end_all(self, subject: str, /, *, keep: str | None) -> None:
        self.asked.set()
        await self.goes_on.wait()
        await super().end_all(subject, keep=keep)


class Leaver:
    """A user with two logins, whose client leaves in a request to one of the routes that end the other login."""

    def __init__(self, database: Database, store: MemoryLoginStore) -> None:
        self.database = database
        self.site = Site(database, store=store, check_access=True)
        self.after = list[str]()
        self.site.flow = replace(self.site.flow, notify=self.notify, revoke=[self.revoke])
        self.mail = MailFlow(flow=self.site.flow, tokens=self.site.tokens, verify=no_mail, reset=no_mail)
        self.gone = asyncio.Event()

    async def revoke(self, subject: str) -> None:
        self.after.append("revoked")

    async def notify(self, change: AccountChange) -> None:
        self.after.append(f"told of {change.kind}")

    async def send(self, path: str, session: Dependency[AsyncSession]) -> int | None:
        """Send the request, and return the status of the answer. *session* is the session of the route."""
        user = await store_user(self.database)
        endpoints = AuthEndpoint.ACCOUNT | AuthEndpoint.RESET_PASSWORD
        current_user = get_current_user_factory(self.site.logins, load_user, session=session)
        router = auth_router(self.site.flow, session=session, current_user=current_user, read=UserRead, endpoints=endpoints, mail=self.mail)
        self.site.app.include_router(router, prefix="/account")
        pair, self.other = [await self.site.logins.start(str(user.id)) for _ in range(2)]
        with captured_mails(self.mail) as mails:
            async with self.database.sessions() as own:
                await (await self.mail.request_reset(own, email=user.email))()
        body = {
            "/password": {"current_password": PASSWORD, "password": "another horse battery"},
            "/password/reset": {"token": mails[0].token, "password": "another horse battery"},
            "/me/delete": {"current_password": PASSWORD},
        }[path]
        headers = [(b"authorization", f"Bearer {pair.access_token}".encode())]
        return await send(self.site.app, f"/account{path}", json.dumps(body).encode(), "application/json", self.gone, headers)


ENDING = ["/password", "/password/reset", "/me/delete"]
AFTER = {path: ["revoked"] if path == "/me/delete" else ["revoked", "told of password"] for path in ENDING}
"""What follows the commit, beside the end of the logins."""


@pytest.mark.parametrize("path", ENDING)
async def test_the_logins_of_a_client_that_has_gone(users: Database, path: str) -> None:
    """R36, R48: logins and keys end, and the user is told, although the client leaves after the commit and before the answer."""
    store = SlowEnd()
    leaver = Leaver(users, store)

    left = asyncio.create_task(leaver.send(path, users.session))
    await asyncio.wait_for(store.asked.wait(), timeout=10)
    leaver.gone.set()
    await asyncio.sleep(0.05)
    store.goes_on.set()
    assert await asyncio.wait_for(left, timeout=10) == 499

    with pytest.raises(InvalidTokenError):
        await leaver.site.logins.verify(leaver.other.access_token)
    assert leaver.after == AFTER[path]


@pytest.mark.parametrize("path", ENDING)
async def test_a_client_that_leaves_at_the_commit(users: Database, path: str) -> None:
    """R36, R48: a COMMIT at the end of a request, and what follows it, is not cancelled: whether it happened would be unknown."""
    leaver = Leaver(users, MemoryLoginStore())

    async def get_session() -> AsyncIterator[AsyncSession]:
        async with users.begin() as session:
            yield session
            leaver.gone.set()
            await asyncio.sleep(0.05)

    assert await leaver.send(path, Depends(get_session, scope="function")) == 204

    with pytest.raises(InvalidTokenError):
        await leaver.site.logins.verify(leaver.other.access_token)
    assert leaver.after == AFTER[path]


async def no_mail(*args: object) -> None:
    raise AssertionError("the mails of this test are captured")


async def test_a_server_that_repeats_the_end_of_the_body() -> None:
    """A server whose ``receive`` never waits does not keep the event loop busy."""
    app, answers, received = FastAPI(), list[Message](), 0

    async def receive() -> Message:
        nonlocal received
        received += 1
        return {"type": "http.request", "body": b"", "more_body": False}

    async def keep(message: Message) -> None:
        answers.append(message)

    @app.post("/", dependencies=[while_connected])
    async def answer() -> None:
        await asyncio.sleep(0.05)

    scope: dict[str, Any] = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http"}
    place = {"path": "/", "raw_path": b"/", "query_string": b"", "root_path": "", "client": None, "server": None, "headers": []}
    await asyncio.wait_for(app({**scope, **place}, receive, keep), timeout=10)

    assert answers[0]["status"] == 200
    assert received < 5
