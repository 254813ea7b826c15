"""Values that only the driver rejects, in hand-written statements; and rows that are deleted while they are changed."""

import json
from typing import Any

import pytest
from fastapi import APIRouter
from pydantic import BaseModel
from sqlalchemy import insert, text
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from tests.reliability.aside import Aside
from tests.reliability.sites import KINDS, assert_discreet, assert_rejected, open_site
from tests.tables.library import Tag

JSON = {"content-type": "application/json"}


class Anything(BaseModel):
    value: Any


NAMES: list[Any] = ["\ud800", "a\ud800\udc00b\udfff", None, {"$ne": ""}, b"\x00", "a\0b", "x" * 51, 7, True]
WEIGHTS: list[Any] = [2**31, 2**63, -(2**63) - 1, 10**400, "seven", {"a": [1]}, [[]]]
VALUES: list[Any] = [2**31, 2**63, -(2**70), "\ud800", "a\0b", "one", None, [1], {}, -1]
ROWS = [*({"name": name, "weight": 1} for name in NAMES), *({"name": "fine", "weight": weight} for weight in WEIGHTS)]


@pytest.mark.parametrize("statement", [text("INSERT INTO tags (name, weight) VALUES (:name, :weight)"), insert(Tag)], ids=["text", "core"])
async def test_a_hand_written_insert(any_aside: Aside, statement: Any) -> None:
    """What the driver rejects is a 422, and what SQLite takes is stored. Nothing is a 500, and the connection goes on working."""
    engine, router = create_async_engine(any_aside.database.engine.url, pool_size=1, max_overflow=0), APIRouter()
    sessions = async_sessionmaker(engine)

    @router.post("/rows/{number}", status_code=204)
    async def write(number: int) -> None:
        async with sessions() as session:
            await session.execute(statement, ROWS[number])
            await session.commit()

    async with open_site("by hand", any_aside.database.engine.url, extra=[router]) as site:
        for number, row in enumerate(ROWS):
            await any_aside.start_over()

            answer = await site.client.post(f"/rows/{number}")

            if answer.status_code == 204:
                assert any_aside.is_sqlite, row
            else:
                assert_rejected(answer, 422, "invalid_data")
                assert await any_aside.names() == ["old"], row
    await engine.dispose()


@pytest.mark.parametrize(
    "clause", ["WHERE id = :value", "WHERE name = :value", "ORDER BY id LIMIT :value", "ORDER BY id LIMIT 1 OFFSET :value"]
)
async def test_a_hand_written_select(any_aside: Aside, clause: str) -> None:
    """A value that no column or LIMIT can take is a 422, or finds nothing; never a 500."""
    engine, router = create_async_engine(any_aside.database.engine.url, pool_size=1, max_overflow=0), APIRouter()

    @router.post("/find")
    async def find(anything: Anything) -> int:
        async with engine.connect() as connection:
            rows = await connection.execute(text(f"SELECT * FROM tags {clause}"), {"value": anything.value})
            return len(rows.all())

    async with open_site("by hand", any_aside.database.engine.url, extra=[router]) as site:
        for value in VALUES:
            answer = await site.client.post("/find", content=json.dumps({"value": value}), headers=JSON)

            if answer.status_code != 200:
                assert_rejected(answer, 422, "invalid_data")
    await engine.dispose()


@pytest.mark.parametrize("kind", KINDS)
async def test_texts_that_cannot_be_stored(any_aside: Aside, kind: str) -> None:
    """In a body they are a 422, unless SQLite can store them; and are not repeated."""
    async with open_site(kind, any_aside.database.engine.url) as site:
        for name in ["a\0b", "\ud800", "x" * 51]:
            answers = [
                await site.client.post("/tags", content=json.dumps({"name": name}), headers=JSON),
                await site.client.patch("/tags/0", content=json.dumps({"name": f"{name}!"}), headers=JSON),
            ]
            for answer in answers:
                if answer.is_success:
                    assert any_aside.is_sqlite
                else:
                    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
                    assert "xxx" not in answer.text
                    assert_discreet(answer)
            assert site.checked_out == 0


@pytest.mark.parametrize("kind", KINDS)
async def test_keys_beyond_every_range(any_aside: Aside, kind: str) -> None:
    """A number in the address that no key can be is a 404 or a 422."""
    async with open_site(kind, any_aside.database.engine.url) as site:
        keys = [2**31, 2**63, -(2**63) - 1, 10**30]
        answers = [await site.act(action, key=key) for action in ("get", "update", "delete") for key in keys]

    assert {answer.status_code for answer in answers} <= {404, 422}


@pytest.mark.parametrize("kind", KINDS)
async def test_the_second_of_two_writes_is_rejected(any_aside: Aside, kind: str) -> None:
    """Of a transaction whose second write meets a constraint nothing is stored."""
    async with open_site(kind, any_aside.database.engine.url, pool_size=1, max_overflow=0) as site:
        answer = await site.client.post("/pairs", json={"first": "first", "second": "old"})
        again = await site.client.post("/pairs", json={"first": "first", "second": "second"})

    assert_rejected(answer, 409, "conflict")
    assert again.status_code == 201
    assert await any_aside.names() == ["old", "first", "second"]


# --- Rows that go meanwhile. ---


async def test_a_row_deleted_before_a_hand_written_update(any_aside: Aside) -> None:
    """SQLAlchemy's StaleDataError is a 409."""
    async with open_site("by hand", any_aside.database.engine.url) as site:
        site.hooks.between = lambda: any_aside.run("DELETE FROM tags")
        answer = await site.act("update")
        out = site.checked_out

    assert_rejected(answer, 409, "conflict")
    assert out == 0


@pytest.mark.parametrize("action", ["create", "update"])
async def test_a_row_deleted_before_a_hand_written_refresh(any_aside: Aside, action: str) -> None:
    """SQLAlchemy's "Could not refresh instance" is a 409."""
    async with open_site("by hand", any_aside.database.engine.url) as site:
        site.hooks.before_refresh = lambda: any_aside.run("DELETE FROM tags")
        answer = await site.act(action)
        out = site.checked_out

    assert_rejected(answer, 409, "conflict")
    assert out == 0
