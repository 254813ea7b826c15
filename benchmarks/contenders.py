"""The ways in which either side is put to work."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from fastapi import FastAPI
from sqlalchemy.ext.asyncio import AsyncSession

from benchmarks import by_hand, with_kit
from benchmarks.models import UserCreate, UserUpdate, new_user, new_users
from benchmarks.stage import Stage

__all__ = [
    "Contender",
    "Turn",
    "Work",
    "by_hand_over_http",
    "each_by_hand",
    "each_with_kit",
    "in_one_session",
    "kit_over_http",
]

ServiceT = TypeVar("ServiceT")


@dataclass(frozen=True)
class Turn:
    """What one call works with; each is another since the table was filled."""

    stage: Stage
    number: int

    @property
    def id(self) -> int:
        """The key of a stored user."""
        return self.number % self.stage.rows + 1

    @property
    def email(self) -> str:
        """The address of a stored user."""
        return f"user{self.number % 7}@example.org"

    @property
    def new_user(self) -> UserCreate:
        """A user who is not stored."""
        return new_user(self.number)

    @property
    def new_users(self) -> list[UserCreate]:
        """Many users who are not stored."""
        return new_users(self.stage.bulk_rows)

    @property
    def change(self) -> UserUpdate:
        """What no user has yet."""
        return UserUpdate(full_name=f"Renamed {self.number}")


Work: TypeAlias = Callable[[Turn], Awaitable[object]]
"""Does the work once and returns its answer."""

Contender: TypeAlias = Callable[[Stage], AbstractAsyncContextManager[Work]]
"""Makes ready to work on a stage."""


def in_one_session(service: Callable[[AsyncSession], ServiceT], work: Callable[[ServiceT, Turn], Awaitable[object]]) -> Contender:
    """All calls share a hand-made session that is in a transaction: what differs is the service's own cost, undiluted."""

    @asynccontextmanager
    async def ready(stage: Stage) -> AsyncGenerator[Work]:
        async with stage.sessions() as session:
            yield lambda turn: work(service(session), turn)

    return ready


def each_by_hand(work: Callable[[by_hand.UserService, Turn], Awaitable[object]]) -> Contender:
    """Each call has a hand-made session of its own."""
    return _each_in_a_session(lambda stage: stage.sessions(), by_hand.UserService, work)


def each_with_kit(work: Callable[[with_kit.UserService, Turn], Awaitable[object]]) -> Contender:
    """Each call has a session of its own, as the library gives one to a request."""
    return _each_in_a_session(lambda stage: stage.kit_session(), with_kit.UserService, work)


def by_hand_over_http(call: Callable[[FastAPI, Turn], Awaitable[object]]) -> Contender:
    """Each call is a request to the hand-written routes."""
    return _over_http(lambda stage: stage.app_by_hand, call)


def kit_over_http(call: Callable[[FastAPI, Turn], Awaitable[object]]) -> Contender:
    """Each call is a request to the library's routes."""
    return _over_http(lambda stage: stage.kit_app, call)


def _over_http(app_of: Callable[[Stage], FastAPI], call: Callable[[FastAPI, Turn], Awaitable[object]]) -> Contender:
    @asynccontextmanager
    async def ready(stage: Stage) -> AsyncGenerator[Work]:
        app = app_of(stage)
        yield lambda turn: call(app, turn)

    return ready


def _each_in_a_session(
    sessions: Callable[[Stage], AbstractAsyncContextManager[AsyncSession]],
    service: Callable[[AsyncSession], ServiceT],
    work: Callable[[ServiceT, Turn], Awaitable[object]],
) -> Contender:
    @asynccontextmanager
    async def ready(stage: Stage) -> AsyncGenerator[Work]:
        async def once(turn: Turn) -> object:
            async with sessions(stage) as session:
                return await work(service(session), turn)

        yield once

    return ready
