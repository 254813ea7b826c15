"""Inserting many rows in few statements, and getting them back in the order given."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncSession

from fastapi_kit.crud.construction import build
from fastapi_kit.crud.facts import ModelFacts

__all__ = ["insert_rows"]

ModelT = TypeVar("ModelT")

_Row = dict[str, Any]


async def insert_rows(session: AsyncSession, model: type[ModelT], facts: ModelFacts, rows: Sequence[Mapping[str, Any]]) -> list[ModelT]:
    """Insert *rows* and return them as objects in the same order. Flushes; the caller commits.

    One INSERT per set of columns that get their default, where plain statements do what the unit of work would; else one flush of objects.
    """
    dialect = session.sync_session.get_bind(facts.mapper).dialect
    plain = facts.inserts_plainly(session.sync_session) and dialect.insert_executemany_returning
    if not plain or any(row.keys() - facts.columns.keys() for row in rows):
        return await _flush_rows(session, model, rows)
    inserted: dict[int, ModelT] = {}
    for positions, group in _groups(facts, rows):
        inserted.update(zip(positions, await _insert(session, model, facts, group, numbered_late=dialect.name == "sqlite"), strict=True))
    return [inserted[position] for position in range(len(rows))]


async def _flush_rows(session: AsyncSession, model: type[ModelT], rows: Sequence[Mapping[str, Any]]) -> list[ModelT]:
    objects = [build(model, row) for row in rows]
    session.add_all(objects)
    await session.flush()
    return objects


def _groups(facts: ModelFacts, rows: Sequence[Mapping[str, Any]]) -> Iterator[tuple[list[int], list[_Row]]]:
    """Yield rows, with their positions, that name the same columns: None means the default where there is one, as it does to the ORM."""
    plain = {name for row in rows for name in row} - facts.defaulted
    groups: dict[frozenset[str], tuple[list[int], list[_Row]]] = {}
    for position, row in enumerate(rows):
        defaulted = {name: value for name, value in row.items() if name in facts.defaulted and value is not None}
        positions, group = groups.setdefault(frozenset(defaulted), ([], []))
        positions.append(position)
        group.append({name: row.get(name) for name in plain} | defaulted)
    yield from groups.values()


async def _insert(
    session: AsyncSession, model: type[ModelT], facts: ModelFacts, rows: list[_Row], *, numbered_late: bool
) -> Sequence[ModelT]:
    # SQLite numbers the rows of one INSERT in their order, but SQLAlchemy can only tell which is which by one INSERT a row.
    by_key = numbered_late and facts.key_is_made_by_server and facts.key_names[0] not in rows[0]
    statement = insert(model).returning(model, sort_by_parameter_order=not by_key)
    inserted = (await session.scalars(statement, rows, execution_options={"render_nulls": True})).all()
    return sorted(inserted, key=facts.key_of_row) if by_key else inserted
