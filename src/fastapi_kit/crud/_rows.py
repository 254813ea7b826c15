"""Loading rows as objects, and refreshing objects that the session holds already."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sqlalchemy import Select, insert, inspect, select
from sqlalchemy.orm import Mapper, QueryableAttribute, RelationshipDirection, Session, undefer
from sqlalchemy.orm.attributes import instance_dict

from fastapi_kit._compat import demands_unique, refresh_row
from fastapi_kit.crud.attributes import per_mapper
from fastapi_kit.crud.identity import identity_of
from fastapi_kit.db.sessions import execute

__all__ = ["MOST_KEYS", "Loading", "chunks", "loading_of"]

MOST_KEYS = 10_000
"""Most parameters of a statement that reads by many keys. Drivers allow 32,766."""


def chunks(items: Sequence[Any], size: int) -> list[Sequence[Any]]:
    """Return *items* in chunks of at most *size*."""
    return [items[start : start + size] for start in range(0, len(items), size)]


@dataclass(frozen=True, eq=False)
class Loading:
    """Loads rows of one model as objects.

    An object that the session holds already stays the same object and keeps its collections. Its columns get the stored values.
    """

    mapper: Mapper[Any]

    @cached_property
    def names(self) -> frozenset[str]:
        """The columns and expressions that a select of the model loads, without deferred ones."""
        return frozenset(attribute.key for attribute in self.mapper.column_attrs if not attribute.deferred)

    @cached_property
    def joined_collections(self) -> tuple[str, ...]:
        """The collections that a select of the model joins, so that rows come more than once."""
        return tuple(relation.key for relation in self.mapper.relationships if relation.uselist and relation.lazy == "joined")

    def attributes(self, names: Iterable[str] = ()) -> dict[str, QueryableAttribute[Any]]:
        """Return the attributes that a select of the model loads, and the deferred ones among *names*."""
        names = self.names | self.deferred.intersection(names)
        return {name: self.mapper.attrs[name].class_attribute for name in sorted(names)}

    def load(self, session: Session, statement: Select[Any], parameters: Mapping[str, Any] | None = None, *, fresh: bool) -> list[Any]:
        """Run a select of the model and return its objects, each once. If *fresh*, objects that were held before are refreshed."""
        held = fresh and any(state.mapper.isa(self.mapper) for state in session.identity_map.all_states())
        if held:
            return [row for row, *_ in self.load_fresh(session, statement, parameters)]
        found = execute(session, statement, parameters)
        return list((found.scalars().unique() if demands_unique(found) else found.scalars()).all())

    def load_fresh(
        self, session: Session, statement: Select[Any], parameters: Mapping[str, Any] | None = None, *, names: Iterable[str] = ()
    ) -> list[tuple[Any, ...]]:
        """Run a select of the model and of other columns. Return for each row the object, refreshed, and the other columns.

        Deferred columns are refreshed if they are among *names*, or if an object in *session* has loaded them.
        """
        held = [row for row in session.identity_map.values() if isinstance(row, self.mapper.class_)]
        loaded = {name for row in held for name in instance_dict(row)} if self.deferred else set[str]()
        shown, before = self.attributes({*names, *loaded}), set(map(id, held))
        found = execute(session, statement.add_columns(*shown.values()), parameters)
        rows = {id(row[0]): row for row in (found.unique(lambda row: id(row[0])) if demands_unique(found) else found)}
        for key, row in rows.items():
            if key in before:
                self.refresh(row[0], dict(zip(shown, row[-len(shown) :], strict=True)))
        return [tuple(row[: -len(shown)]) for row in rows.values()]

    def reload(self, session: Session, rows: Sequence[object]) -> None:
        """Refresh *rows*, which were flushed, with what the database has stored. Not if the session reads from another database."""
        if not self.reads_where_it_writes(session):
            return
        identity = identity_of(self.mapper)
        by_key = {identity.key_of_row(row): row for row in rows}
        for keys in chunks(list(by_key), MOST_KEYS // len(identity.names)):
            statement = select(self.mapper).where(identity.among(keys))
            self.load_fresh(session, statement)

    def reads_where_it_writes(self, session: Session) -> bool:
        """Return whether *session* reads from the database that it writes to. If not, a lock of a read would block its own write."""
        return session.get_bind(self.mapper) is session.get_bind(self.mapper, clause=insert(self.mapper.class_))

    def refresh(self, row: object, values: Mapping[str, Any]) -> None:
        """Set the stored *values* on *row*. Many-to-one relationships whose foreign key changed are expired."""
        loaded = instance_dict(row)
        outdated = [
            name
            for name, keys in self.references.items()
            if name in loaded and any(key in values and loaded.get(key, values[key]) != values[key] for key in keys)
        ]
        refresh_row(row, values)
        if outdated:
            session: Session = inspect(row, raiseerr=True).session
            session.expire(row, outdated)

    def undeferred(self, names: Any) -> list[Any]:
        """Return the loader options for the deferred columns among *names*."""
        return [undefer(self.mapper.attrs[name].class_attribute) for name in sorted(self.deferred.intersection(names))]

    @cached_property
    def deferred(self) -> frozenset[str]:
        return frozenset(attribute.key for attribute in self.mapper.column_attrs if attribute.deferred)

    @cached_property
    def references(self) -> Mapping[str, Sequence[str]]:
        """Many-to-one relationship -> the attributes of its foreign key."""
        names: dict[object, str] = {attribute.columns[0]: attribute.key for attribute in self.mapper.column_attrs}
        relations = (relation for relation in self.mapper.relationships if relation.direction is RelationshipDirection.MANYTOONE)
        return {relation.key: [names[column] for column in relation.local_columns if column in names] for relation in relations}


loading_of = per_mapper(Loading)
