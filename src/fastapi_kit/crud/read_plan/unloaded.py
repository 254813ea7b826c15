"""What a read schema needs and loaded objects lack."""

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from inspect import getattr_static
from traceback import walk_tb
from typing import Any

from sqlalchemy import inspect
from sqlalchemy.event import listen, remove
from sqlalchemy.exc import InvalidRequestError, SQLAlchemyError
from sqlalchemy.orm import InstanceState, ORMExecuteState, QueryableAttribute, RelationshipProperty
from sqlalchemy.orm.collections import collection_adapter
from sqlalchemy.orm.exc import DetachedInstanceError

from fastapi_kit.crud.read_plan.needs import Needs
from fastapi_kit.errors import NotLoadedError

__all__ = ["Unloaded", "error_of_unloaded", "no_lazy_loads", "unloaded_in"]


@dataclass(frozen=True, eq=False)
class Unloaded:
    """*row* lacks something of *needs*, which *error* names."""

    row: object
    needs: Needs
    error: NotLoadedError


@contextmanager
def no_lazy_loads(rows: Sequence[object]) -> Generator[None]:
    """Let lazy loads raise InvalidRequestError inside the block, where they cannot be awaited."""
    state: InstanceState[Any] | None = inspect(rows[0], raiseerr=False) if rows else None
    session = state.session if isinstance(state, InstanceState) else None
    if session is None:
        yield
        return
    listen(session, "do_orm_execute", reject_statement, insert=True)
    try:
        yield
    finally:
        remove(session, "do_orm_execute", reject_statement)


def reject_statement(_: ORMExecuteState) -> None:
    raise InvalidRequestError("a response is built from loaded attributes only")


def unloaded_in(rows: Sequence[object], needs: Needs, *, compute: bool = True) -> Iterator[Unloaded]:
    """Yield what *rows*, and the objects that they refer to, lack. With *compute*, computed attributes are read, too."""
    reached = list(reachable(rows, needs))
    for row, each in reached:
        values = vars(row)
        for attribute in (*each.columns, *each.relationships):
            if isinstance(row, attribute.parent.class_) and attribute.key not in values:
                yield Unloaded(row, each, NotLoadedError(type(row), attribute.key))
    if compute:
        errors = ((row, each, error_of_reading(row, name)) for row, each in reached for name in each.computed)
        yield from (Unloaded(row, each, error) for row, each, error in errors if error is not None)


def error_of_unloaded(error: SQLAlchemyError) -> NotLoadedError | None:
    """Return the error that names the attribute, if *error* was raised because it is not loaded. None for any other error."""
    if not isinstance(error, InvalidRequestError | DetachedInstanceError):
        return None
    readers: list[Any] = [frame.f_locals.get("self") for frame, _ in walk_tb(error.__traceback__)]
    attributes: list[Any] = [reader for reader in readers if isinstance(reader, QueryableAttribute)]
    return NotLoadedError(attributes[-1].parent.class_, attributes[-1].key) if attributes else None


def reachable(rows: Sequence[object], needs: Needs) -> Iterator[tuple[object, Needs]]:
    """Yield *rows* and the loaded objects that they refer to, once for each of their needs."""
    waiting = [(row, needs) for row in reversed(rows)]
    seen = set[tuple[int, Needs]]()
    while waiting:
        row, needs = waiting.pop()
        if (id(row), needs) not in seen:
            seen.add((id(row), needs))
            yield row, needs
            for relationship, children in needs.relationships.items():
                waiting += [(related, child) for related in related_objects(relationship, vars(row)) for child in children]


def related_objects(relationship: RelationshipProperty[Any], values: dict[str, Any]) -> Iterable[object]:
    value = values.get(relationship.key)
    if value is None:
        return ()
    return list(collection_adapter(value)) if relationship.uselist else (value,)


def error_of_reading(row: object, name: str) -> NotLoadedError | None:
    if getattr_static(type(row), name, None) is None:
        return None
    try:
        getattr(row, name)
    except SQLAlchemyError as error:
        return error_of_unloaded(error)
    except Exception:
        # An error of the property itself, which pydantic reports.
        return None
    return None
