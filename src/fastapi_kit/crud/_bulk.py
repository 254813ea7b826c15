"""Inserting rows in few statements and returning them in the order given."""

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import CHAR, Column, Integer, String, Uuid, insert
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.orm import Mapper, Session

from fastapi_kit._compat import mark_inserted
from fastapi_kit.crud._flushing import flushing_of
from fastapi_kit.crud._objects import build
from fastapi_kit.crud._rows import loading_of
from fastapi_kit.crud.attributes import Values, attributes_of
from fastapi_kit.crud.identity import identity_of
from fastapi_kit.db.checks.values import check_offsets
from fastapi_kit.db.sessions import execute
from fastapi_kit.errors import ConflictError

__all__ = ["insert_rows"]

_Row = dict[str, Any]


def insert_rows(session: Session, mapper: Mapper[Any], rows: Sequence[Values]) -> list[Any]:
    """Insert *rows* and return them as objects, as they are stored, in the same order. Runs inside a write of *session*.

    It takes one INSERT for each set of columns that get their default; or one flush of objects if the model needs a flush.
    """
    bind = session.get_bind(mapper, clause=insert(mapper.class_))
    for row in rows:
        check_offsets(mapper, row, bind.dialect)
    if not bind.dialect.insert_executemany_returning or flushing_of(mapper).is_needed_to_insert(session, rows):
        return flush_rows(session, mapper, rows)
    inserted: dict[int, Any] = {}
    with making_room(session, mapper, rows):
        for positions, group in by_columns(mapper, rows):
            for at, batch in batches(mapper, positions, group):
                inserted.update(zip(at, insert_batch(session, mapper, batch, numbered_late=bind.dialect.name == "sqlite"), strict=True))
    made = [inserted[position] for position in range(len(rows))]
    mark_inserted(session, made)
    return made


def flush_rows(session: Session, mapper: Mapper[Any], rows: Sequence[Values]) -> list[Any]:
    with session.no_autoflush:
        # A setter of the application may run a query, which must not flush half-made objects.
        objects = [build(mapper.class_, row) for row in rows]
    names = identity_of(mapper).names
    with making_room(session, mapper, [{name: getattr(each, name) for name in names} for each in objects]):
        session.add_all(objects)
        session.flush()
    loading_of(mapper).reload(session, objects)
    return objects


@contextmanager
def making_room(session: Session, mapper: Mapper[Any], rows: Sequence[Values]) -> Generator[None]:
    """Remove objects with the keys of new *rows* from *session*, and add them again if the block raises.

    Another session may have deleted their rows. SQLAlchemy would warn about the objects, whether the database rejects the key or not.
    """
    identity = identity_of(mapper)
    keys = (tuple(row.get(name) for name in identity.names) for row in rows)
    held = [found for key in keys if None not in key and (found := identity.held(session, key)) is not None]
    for each in held:
        session.expunge(each)
    try:
        yield
    except BaseException:
        for each in held:
            session.add(each)
        raise


def by_columns(mapper: Mapper[Any], rows: Sequence[Values]) -> Iterator[tuple[list[int], list[_Row]]]:
    """Yield groups of rows, with their positions, that give values for the same columns with a default. Other missing values are null."""
    defaulted, version = attributes_of(mapper).defaulted, flushing_of(mapper).version_name
    plain = {name for row in rows for name in row} - defaulted
    first = {} if version is None else {version: 1}
    groups: dict[frozenset[str], tuple[list[int], list[_Row]]] = {}
    for position, row in enumerate(rows):
        positions, group = groups.setdefault(frozenset(row.keys() & defaulted), ([], []))
        positions.append(position)
        group.append({**dict.fromkeys(plain), **first, **row})
    yield from groups.values()


def batches(mapper: Mapper[Any], positions: list[int], rows: list[_Row]) -> Iterator[tuple[list[int], list[_Row]]]:
    """Yield all *rows* at once; or one by one if the database may return a key in another form, by which no row can be matched."""
    identity = identity_of(mapper)
    if all(name not in rows[0] or comes_back_as_given(column) for name, column in zip(identity.names, identity.columns, strict=True)):
        yield positions, rows
    else:
        yield from (([position], [row]) for position, row in zip(positions, rows, strict=True))


def comes_back_as_given(column: Column[Any]) -> bool:
    type_ = column.type
    return isinstance(type_, Integer | Uuid) or (isinstance(type_, String) and not isinstance(type_, CHAR) and type_.collation is None)


def insert_batch(session: Session, mapper: Mapper[Any], rows: list[_Row], *, numbered_late: bool) -> Sequence[Any]:
    # SQLite numbers the rows of one INSERT in their order. SQLAlchemy does not rely on that, and would send one INSERT for each row.
    identity = identity_of(mapper)
    by_key = len(rows) > 1 and numbered_late and identity.is_made_by_server and identity.names[0] not in rows[0]
    statement = insert(mapper.class_).returning(mapper.class_, sort_by_parameter_order=len(rows) > 1 and not by_key)
    statement = statement.options(*loading_of(mapper).undeferred(rows[0]))
    try:
        # The session may hold an old object with a key that the database uses again.
        inserted = execute(session, statement, rows, render_nulls=True, populate_existing=True).scalars().unique().all()
    except InvalidRequestError as error:
        if "sentinel" not in str(error):
            raise
        raise ConflictError(table=mapper.local_table.description) from error
    if len(inserted) != len(rows):
        # A trigger has dropped some of them.
        raise ConflictError(table=mapper.local_table.description)
    return sorted(inserted, key=identity.key_of_row) if by_key else inserted
