"""Inserting many rows in few statements, and getting them back in the order given."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from sqlalchemy import insert, inspect, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.sql import ClauseElement

from fastapi_kit.crud.changing import making_room
from fastapi_kit.crud.construction import build
from fastapi_kit.crud.facts import ModelFacts
from fastapi_kit.crud.shortcuts import inserts_plainly
from fastapi_kit.db.session import execute

__all__ = ["insert_rows", "load_missing"]

ModelT = TypeVar("ModelT")

_Row = dict[str, Any]

_MAX_KEYS = 5000


async def insert_rows(session: AsyncSession, model: type[ModelT], facts: ModelFacts, rows: Sequence[Mapping[str, Any]]) -> list[ModelT]:
    """Insert *rows* and return them as objects in the same order. Flushes; the caller commits.

    One INSERT per set of columns that get their default, where plain statements do what the unit of work would; else one flush of objects.
    """
    dialect = session.sync_session.get_bind(facts.mapper).dialect
    plain = inserts_plainly(facts, session.sync_session) and dialect.insert_executemany_returning
    if not plain or any(_needs_unit_of_work(facts, row) for row in rows):
        return await _flush_rows(session, model, facts, rows)
    inserted: dict[int, ModelT] = {}
    for positions, group in _groups(facts, rows):
        inserted.update(zip(positions, await _insert(session, model, facts, group, numbered_late=dialect.name == "sqlite"), strict=True))
    return [inserted[position] for position in range(len(rows))]


def _needs_unit_of_work(facts: ModelFacts, row: Mapping[str, Any]) -> bool:
    return bool(row.keys() - facts.columns.keys()) or any(
        isinstance(value, ClauseElement) or hasattr(value, "__clause_element__") for value in row.values()
    )


async def _flush_rows(session: AsyncSession, model: type[ModelT], facts: ModelFacts, rows: Sequence[Mapping[str, Any]]) -> list[ModelT]:
    objects = await session.run_sync(lambda _: [build(model, row) for row in rows])
    with making_room(session.sync_session, facts, objects):
        session.add_all(objects)
        await session.flush()
        await load_missing(session, facts, objects)
    return objects


async def load_missing(session: AsyncSession, facts: ModelFacts, rows: Sequence[object]) -> None:
    """Load what the database made of flushed *rows* and did not return, such as SQL expressions; mostly there is nothing."""
    expressions = facts.loaded_with_rows - facts.columns.keys()
    states = ((row, inspect(row, raiseerr=True)) for row in rows)
    missing = [row for row, state in states if facts.loaded_with_rows & state.expired_attributes or expressions & state.unloaded]
    for start in range(0, len(missing), _MAX_KEYS):
        keys = [facts.key_of_row(row) for row in missing[start : start + _MAX_KEYS]]
        await execute(session, select(facts.mapper).where(facts.any_key(keys)))


def _groups(facts: ModelFacts, rows: Sequence[Mapping[str, Any]]) -> Iterator[tuple[list[int], list[_Row]]]:
    """Yield rows, with their positions, that name the same columns: None means the default where there is one, as it does to the ORM."""
    nulls = facts.nulls_of_their_own
    plain = {name for row in rows for name in row} - facts.defaulted
    groups: dict[frozenset[str], tuple[list[int], list[_Row]]] = {}
    for position, row in enumerate(rows):
        defaulted = {name: value for name, value in row.items() if name in facts.defaulted and (value is not None or name in nulls)}
        positions, group = groups.setdefault(frozenset(defaulted), ([], []))
        positions.append(position)
        group.append({name: row.get(name) for name in plain} | defaulted)
    yield from groups.values()


async def _insert(
    session: AsyncSession, model: type[ModelT], facts: ModelFacts, rows: list[_Row], *, numbered_late: bool
) -> Sequence[ModelT]:
    # A row may have been deleted by another session, and its key be used again, while this one still holds the old object.
    # SQLite numbers the rows of one INSERT in their order, but SQLAlchemy can only tell which is which by one INSERT a row.
    by_key = numbered_late and facts.key_is_made_by_server and facts.key_names[0] not in rows[0]
    statement = insert(model).returning(model, sort_by_parameter_order=not by_key)
    inserted = (await execute(session, statement, rows, render_nulls=True, populate_existing=True)).scalars().unique().all()
    return sorted(inserted, key=facts.key_of_row) if by_key else inserted
