"""What is compared: a row for each kind of work, the library's way beside the hand-written one, with its target."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from fastapi import FastAPI

from benchmarks import by_hand, empty_route, lists, with_kit
from benchmarks.asgi import request
from benchmarks.contenders import Contender, Turn, by_hand_over_http, each_by_hand, each_with_kit, in_one_session, kit_over_http
from benchmarks.login import AUTHORIZATION
from benchmarks.models import UserRead
from benchmarks.stage import Place
from fastapi_kit.pagination import PageParams

__all__ = ["ROWS", "Row", "Target"]


@dataclass(frozen=True)
class Target:
    """What must and should be reached: a *speed* of at least, or a *time* of at most, so many times the hand-written code's."""

    must: float
    aim: float | None = None
    measure: Literal["speed", "time"] = "speed"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One kind of work.

    *writes* has the table filled anew before each batch, and stamps left out of the comparison. *comparable* picks from the library's
    answer what the hand-written one has. *sqlite_target* is for where SQLite's differs. Only rows with a *distant_target* are run
    against the database that is 1 ms away, and rows that use no database are run once. Rows that are *is_large* read the large table.
    """

    name: str
    title: str
    kit: Contender
    by_hand: Contender
    target: Target | None = None
    sqlite_target: Target | None = None
    distant_target: Target | None = None
    writes: bool = False
    uses_database: bool = True
    is_large: bool = False
    comparable: Callable[[Any], object] = lambda answer: answer

    def target_on(self, place: Place) -> Target | None:
        """Return the target on a database."""
        match place:
            case "SQLite":
                return self.sqlite_target or self.target
            case "PostgreSQL":
                return self.target
            case "PostgreSQL, 1 ms away":
                return self.distant_target

    def is_run_on(self, place: Place) -> bool:
        """Return whether the row is part of what is run against that database."""
        match place:
            case "SQLite":
                return True
            case "PostgreSQL":
                return self.uses_database
            case "PostgreSQL, 1 ms away":
                return self.distant_target is not None


_BARE_SELECT = Target(1.05, 1.02, "time")


async def _get_list(app: FastAPI, _turn: Turn) -> bytes:
    return await request(app, "GET", "/users")


async def _get_plain_list(app: FastAPI, _turn: Turn) -> bytes:
    return await request(app, "GET", "/plain-users")


async def _get_guarded_list(app: FastAPI, _turn: Turn) -> bytes:
    return await request(app, "GET", "/guarded-users", headers=[AUTHORIZATION])


async def _get_one(app: FastAPI, turn: Turn) -> bytes:
    return await request(app, "GET", f"/users/{turn.id}")


async def _get_guarded_one(app: FastAPI, turn: Turn) -> bytes:
    return await request(app, "GET", f"/guarded-users/{turn.id}", headers=[AUTHORIZATION])


async def _get_eight_guarded(app: FastAPI, turn: Turn) -> list[bytes]:
    return await asyncio.gather(*(_get_guarded_one(app, Turn(turn.stage, turn.number * 8 + place)) for place in range(8)))


async def _post(app: FastAPI, turn: Turn) -> bytes:
    return await request(app, "POST", "/users", turn.new_user.model_dump_json().encode())


ROWS = [
    Row(
        name="get",
        title="get, against a bare select",
        kit=in_one_session(with_kit.UserService, lambda users, turn: users.get(turn.id)),
        by_hand=in_one_session(by_hand.UserService, lambda users, turn: users.get(turn.id)),
        target=_BARE_SELECT,
    ),
    Row(
        name="get_by",
        title="get_by, against a bare select",
        kit=in_one_session(with_kit.UserService, lambda users, turn: users.get_by(email=turn.email)),
        by_hand=in_one_session(by_hand.UserService, lambda users, turn: users.get_by_email(turn.email)),
        target=_BARE_SELECT,
    ),
    Row(
        name="list",
        title="list of 100, against a bare select",
        kit=in_one_session(with_kit.UserService, lambda users, _: users.list()),
        by_hand=in_one_session(by_hand.UserService, lambda users, _: users.list()),
        target=_BARE_SELECT,
    ),
    Row(
        name="list_as",
        title="list of 100 as schema instances",
        kit=each_with_kit(lambda users, _: users.list_as(UserRead)),
        by_hand=each_by_hand(lambda users, _: users.list_read()),
        target=Target(3, 4.5),
    ),
    Row(
        name="page",
        title="page of 100 with exact total",
        kit=each_with_kit(lambda users, _: users.page_as(UserRead, PageParams())),
        by_hand=each_by_hand(lambda users, _: users.page()),
        target=Target(0.95, 1.2),
        comparable=lambda page: {"items": page["items"], "total": page["total"]},
    ),
    Row(
        name="create",
        title="create",
        kit=each_with_kit(lambda users, turn: users.create(turn.new_user)),
        by_hand=each_by_hand(lambda users, turn: users.create(turn.new_user)),
        writes=True,
    ),
    Row(
        name="update",
        title="update",
        kit=each_with_kit(lambda users, turn: users.update(turn.id, turn.change)),
        by_hand=each_by_hand(lambda users, turn: users.update(turn.id, turn.change)),
        target=Target(1.5, 2.3),
        writes=True,
    ),
    Row(
        name="delete",
        title="delete",
        kit=each_with_kit(lambda users, turn: users.delete(turn.id)),
        by_hand=each_by_hand(lambda users, turn: users.delete(turn.id)),
        target=Target(2, 2.5),
        writes=True,
    ),
    Row(
        name="create_many",
        title="create_many of 10,000",
        kit=each_with_kit(lambda users, turn: users.create_many(turn.new_users)),
        by_hand=each_by_hand(lambda users, turn: users.create_many(turn.new_users)),
        target=Target(2.5, 10),
        sqlite_target=Target(8, 20),
        writes=True,
    ),
    Row(
        name="http_list",
        title="GET list of 100, with EmailStr",
        kit=kit_over_http(_get_list),
        by_hand=by_hand_over_http(_get_list),
        target=Target(3.3, 5),
        distant_target=Target(3),
        comparable=lambda page: page["items"],
    ),
    Row(
        name="http_list_plain",
        title="GET list of 100, without EmailStr",
        kit=kit_over_http(_get_plain_list),
        by_hand=by_hand_over_http(_get_plain_list),
        target=Target(1.5, 2.3),
        comparable=lambda page: page["items"],
    ),
    Row(
        name="http_list_auth",
        title="GET list of 100, authenticated",
        kit=kit_over_http(_get_guarded_list),
        by_hand=by_hand_over_http(_get_guarded_list),
        target=Target(2.7, 4.4),
        distant_target=Target(2.2),
        comparable=lambda page: page["items"],
    ),
    Row(
        name="http_get",
        title="GET one",
        kit=kit_over_http(_get_one),
        by_hand=by_hand_over_http(_get_one),
        target=Target(1.4, 2.5),
        distant_target=Target(2.5),
    ),
    Row(
        name="http_get_auth",
        title="GET one, authenticated",
        kit=kit_over_http(_get_guarded_one),
        by_hand=by_hand_over_http(_get_guarded_one),
        target=Target(1.3, 2),
        distant_target=Target(2.2),
    ),
    Row(
        name="http_get_auth_8",
        title="the same, 8 at a time",
        kit=kit_over_http(_get_eight_guarded),
        by_hand=by_hand_over_http(_get_eight_guarded),
        target=Target(1.3, 2),
    ),
    Row(
        name="http_create",
        title="POST create",
        kit=kit_over_http(_post),
        by_hand=by_hand_over_http(_post),
        target=Target(1.4, 2.4),
        sqlite_target=Target(1.4, 1.8),
        distant_target=Target(1.9),
        writes=True,
    ),
    Row(
        name="keyset",
        title="keyset page, against deep OFFSET",
        kit=lists.keyset_page,
        by_hand=lists.offset_page,
        is_large=True,
        target=Target(20, 60),
        comparable=lambda page: page["items"],
    ),
    Row(
        name="uncounted",
        title="page without total, against count",
        kit=lists.page_without_total,
        by_hand=lists.page_with_count,
        is_large=True,
        target=Target(15, 20),
        sqlite_target=Target(1.8, 2.2),
        comparable=lambda page: page["items"],
    ),
    Row(
        name="filtered",
        title="filtered, sorted list of 100",
        kit=lists.filtered,
        by_hand=lists.filtered_by_hand,
        is_large=True,
        target=Target(0.95, 1.2),
    ),
    Row(
        name="export",
        title="NDJSON of 10,000, row by row",
        kit=lists.export,
        by_hand=lists.export_by_hand,
        is_large=True,
        target=Target(10, 16),
    ),
    Row(
        name="export_users",
        title="NDJSON of 1,000, with EmailStr",
        kit=lists.export_users,
        by_hand=lists.export_users_by_hand,
        target=Target(10, 16),
    ),
    Row(
        name="parameters",
        title="parameters of a list, against none",
        kit=lists.with_parameters,
        by_hand=lists.without_parameters,
        is_large=True,
        target=Target(1.05, measure="time"),
    ),
    Row(
        name="parameters_plain",
        title="the same, against a plain model",
        kit=lists.with_parameters,
        by_hand=lists.with_plain_parameters,
        is_large=True,
        target=Target(1.05, measure="time"),
    ),
    Row(
        name="parameters_fastapi",
        title="a plain model, against none",
        kit=lists.with_plain_parameters,
        by_hand=lists.without_parameters,
        is_large=True,
    ),
    Row(
        name="middleware",
        title="default middleware, against none",
        kit=empty_route.with_kit,
        by_hand=empty_route.bare,
        uses_database=False,
        target=Target(0.8, 0.9),
    ),
    Row(
        name="middleware_no_log",
        title="the same, its log at WARNING",
        kit=empty_route.with_kit_but_no_log,
        by_hand=empty_route.bare,
        uses_database=False,
        target=Target(0.8, 0.9),
    ),
    Row(
        name="middleware_log",
        title="against a line of log by hand",
        kit=empty_route.with_kit,
        by_hand=empty_route.with_access_log,
        uses_database=False,
    ),
    Row(
        name="middleware_base",
        title="against one BaseHTTPMiddleware",
        kit=empty_route.with_kit,
        by_hand=empty_route.with_base_http_middleware,
        uses_database=False,
        target=Target(1, 1.5),
    ),
]
