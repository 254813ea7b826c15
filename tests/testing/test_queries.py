"""Counting statements, on both databases."""

import pytest
from sqlalchemy import Executable, literal, select, text
from sqlalchemy.exc import SQLAlchemyError

from fastapi_kit.db import Database
from fastapi_kit.testing.queries import assert_max_queries, assert_no_n_plus_one


async def execute(database: Database, *statements: Executable) -> None:
    async with database.sessions() as session:
        for statement in statements:
            await session.execute(statement)


def select_each(*numbers: int) -> list[Executable]:
    return [select(literal(number)) for number in numbers]


async def test_statements_are_listed_as_they_ran(database: Database) -> None:
    """The log has the statements of the block in order."""
    await execute(database, text("SELECT 0"))
    with assert_max_queries(database, 2) as log:
        await execute(database, text("SELECT 1 AS one"), text("SELECT 2 AS two"))
    await execute(database, text("SELECT 3"))

    assert log.count == 2
    assert list(log.statements) == ["SELECT 1 AS one", "SELECT 2 AS two"]


async def test_one_statement_too_many_fails_and_is_shown(database: Database) -> None:
    """One statement too many raises AssertionError that lists them."""
    with pytest.raises(AssertionError, match=r"2 statements ran, at most 1 may(.|\n)*SELECT 2 AS two"), assert_max_queries(database, 1):
        await execute(database, text("SELECT 1 AS one"), text("SELECT 2 AS two"))


async def test_transaction_control_is_not_counted(database: Database) -> None:
    """BEGIN, COMMIT, ROLLBACK and savepoints are not counted."""
    async with database.engine.begin() as connection:
        await connection.execute(text("CREATE TABLE numbers (number INTEGER)"))

    with assert_max_queries(database, 2) as log:
        async with database.begin() as session:
            async with session.begin_nested():
                await session.execute(text("INSERT INTO numbers VALUES (1)"))
            savepoint = await session.begin_nested()
            await session.execute(text("INSERT INTO numbers VALUES (2)"))
            await savepoint.rollback()

    assert log.count == 2


async def test_an_own_engine_can_be_counted(database: Database) -> None:
    """An AsyncEngine can be passed instead of a Database."""
    with assert_max_queries(database.engine, 1) as log:
        async with database.engine.connect() as connection:
            await connection.execute(text("SELECT 1"))

    assert log.count == 1


async def test_an_error_in_the_block_is_not_hidden(database: Database) -> None:
    """An exception of the block is raised, whatever the count."""
    with pytest.raises(SQLAlchemyError), assert_max_queries(database, 0):
        await execute(database, text("SELECT 1"), text("SELECT nonsense"))


async def test_the_same_statement_with_other_values_is_found(database: Database) -> None:
    """The same statement with other values raises AssertionError."""
    with pytest.raises(AssertionError, match="4 times: SELECT"), assert_no_n_plus_one(database):
        await execute(database, *select_each(1, 2, 3, 4))


@pytest.mark.parametrize("repeats", [3, 4])
async def test_some_repeats_are_allowed(database: Database, repeats: int) -> None:
    """repeats= statements are allowed, by default three."""
    with assert_no_n_plus_one(database, repeats=repeats) as log:
        await execute(database, *select_each(*range(repeats)))

    assert log.count == repeats


@pytest.mark.parametrize(
    "statements",
    [
        [text("SELECT 'a', 1"), text("SELECT 'it''s', 22")],
        [select(literal(1).in_([1])), select(literal(1).in_([1, 2, 3]))],
    ],
    ids=["literals", "lists"],
)
async def test_written_out_values_and_lists_are_values_too(database: Database, statements: list[Executable]) -> None:
    """Literals and lists of other lengths count as the same statement."""
    with pytest.raises(AssertionError, match="2 times"), assert_no_n_plus_one(database, repeats=1):
        await execute(database, *statements)


async def test_different_statements_do_not_add_up(database: Database) -> None:
    """Different statements do not count together."""
    with assert_no_n_plus_one(database, repeats=1) as log:
        await execute(database, *(text(f"SELECT 1 AS {name}") for name in ("a", "b", "c")))

    assert log.count == 3
