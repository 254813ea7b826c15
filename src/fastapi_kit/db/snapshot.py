"""What was loaded stays readable: the state of loaded objects, put back after a rollback."""

from collections.abc import Generator, Iterable
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import inspect
from sqlalchemy.orm import InstanceState, Mapper, Session
from sqlalchemy.orm.attributes import set_committed_value
from sqlalchemy.orm.collections import collection_adapter

__all__ = ["MAX_OBJECTS", "Snapshot", "keeping_relations"]

MAX_OBJECTS = 1000
"""Above this a copy of every loaded object costs more than a savepoint, whose rollback leaves untouched objects alone."""

_Values = dict[str, Any]

_collections: WeakKeyDictionary[Mapper[Any], tuple[str, ...]] = WeakKeyDictionary()


class Snapshot:
    """The values of objects that a rollback would expire; ``restore`` puts them back without a statement.

    A rollback expires every object of a session, and on an async session the next attribute access then fails.
    Objects that are new or changed when the snapshot is taken are left out: their values were never in the database.
    """

    def __init__(self) -> None:
        self._kept: list[tuple[InstanceState[Any], object, _Values]] = []

    @classmethod
    def of_loaded(cls, session: Session) -> "Snapshot":
        """Keep every loaded, unmodified object of *session*; none if there are more than ``MAX_OBJECTS``."""
        snapshot = cls()
        if 0 < len(session.identity_map) <= MAX_OBJECTS:
            snapshot._keep(state for state in session.identity_map.all_states() if not state.modified)
        return snapshot

    def keep(self, row: object) -> None:
        """Keep *row* as it is now, changed or not."""
        self._keep([inspect(row, raiseerr=True)])

    def restore(self) -> None:
        """Put the values back on the objects that are still persistent. Relationships stay loaded, nothing becomes dirty."""
        for state, row, values in self._kept:
            if state.persistent:
                _put_back(state, row, values)

    def _keep(self, states: Iterable[InstanceState[Any]]) -> None:
        for state in states:
            row = state.obj()
            if row is not None:
                self._kept.append((state, row, _copy(state)))


@contextmanager
def keeping_relations(session: Session, mapper: Mapper[Any], key: tuple[object, ...] | None = None) -> Generator[None]:
    """Read the row with *key*, or any rows, anew inside (``populate_existing``) and keep loaded relationships, which that would unload."""
    known = session.identity_map
    loaded = known.all_states() if key is None else [inspect(row) for row in [known.get(mapper.identity_key_from_primary_key(key))] if row]
    names = {relation.key for relation in mapper.relationships}
    kept = [(state, state.obj(), _copy(state)) for state in loaded if state.mapper.isa(mapper) and not names.isdisjoint(state.dict)]
    yield
    for state, row, values in kept:
        _put_back(state, row, {name: values[name] for name in names & values.keys() if name not in state.dict})


def _copy(state: InstanceState[Any]) -> _Values:
    values = dict(state.dict)
    for name in _collection_names(state.mapper):
        if values.get(name) is not None:
            values[name] = list(collection_adapter(values[name]))
    return values


def _put_back(state: InstanceState[Any], row: object, values: _Values) -> None:
    for name, value in values.items():
        if name in state.manager:
            set_committed_value(row, name, value)


def _collection_names(mapper: Mapper[Any]) -> tuple[str, ...]:
    if mapper not in _collections:
        _collections[mapper] = tuple(relation.key for relation in mapper.relationships if relation.uselist)
    return _collections[mapper]
