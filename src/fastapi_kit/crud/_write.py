"""Changing and deleting one row: by one statement, or by a flush where the mapping or a listener needs it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sqlalchemy import (
    ColumnElement,
    ColumnExpressionArgument,
    Result,
    Select,
    and_,
    bindparam,
    delete,
    false,
    null,
    or_,
    select,
    true,
    update,
)
from sqlalchemy.orm import Mapper, Session
from sqlalchemy.orm.attributes import instance_dict
from sqlalchemy.orm.exc import StaleDataError

from fastapi_kit._compat import criteria_options, mark_deleted, mark_updated, options_of
from fastapi_kit.crud._base_query import BaseQuery
from fastapi_kit.crud._conversions import is_sql
from fastapi_kit.crud._flushing import Flushing, flushing_of
from fastapi_kit.crud._objects import change
from fastapi_kit.crud._rows import Loading, loading_of
from fastapi_kit.crud.attributes import Values, attributes_of
from fastapi_kit.crud.identity import Identity, Key, identity_of, may_hold
from fastapi_kit.db.checks.values import check_offsets
from fastapi_kit.db.sessions import execute
from fastapi_kit.errors import ConfigurationError, ConflictError, NotFoundError, StaleVersionError

__all__ = ["Target"]


@dataclass(frozen=True)
class Target:
    """The row with the key *ident* among those of *base*, which must be at *expected_version* unless that is None.

    Its methods run inside a write of *session*.
    """

    session: Session
    mapper: Mapper[Any]
    base: Select[Any]
    ident: object
    expected_version: int | None

    def __post_init__(self) -> None:
        if self.expected_version is not None and self._flushing.version_name is None:
            raise ConfigurationError(f"{self.mapper.class_.__name__} counts no versions: set version_id_col in its __mapper_args__")

    def update(self, values: Values) -> Any:
        """Store *values* and return the row; nothing is written where they are stored already."""
        self._refuse_impossible()
        check_offsets(self.mapper, values, self.session.get_bind(self.mapper).dialect)
        self._wait_for_others()
        row = self._update_or_find(values)
        return self._with_relations(row) if len(options_of(self.base)) > len(self._options) else row

    def _update_or_find(self, values: Values) -> Any:
        if not values:
            return self._read()
        if self._flushing.is_needed_to_update(self.session, values):
            return self._flush_update(values)
        differs = or_(*(self._differs(name, value) for name, value in values.items()))
        # A second time if the row was changed by somebody else between the two statements, or if only its spelling differs.
        for _ in range(2):
            row = self._update(values, differs)
            if row is not None:
                return row
            row, still_differs = self._find(differs, names=values.keys())
            if not still_differs:
                if all(_is_spelled(getattr(row, name), value) for name, value in values.items()):
                    return row
                differs = true()
        raise self._not_stored()

    def delete(self) -> None:
        """Delete the row."""
        self._refuse_impossible()
        self._wait_for_others()
        if self._flushing.is_needed_to_delete(self.session):
            self._flush_delete()
            return
        held = self._identity.held(self.session, self.key)
        statement = delete(self.mapper.class_).where(*self._where, *self._at_version).options(*self._options)
        # SQLite's driver does not count what a statement that begins with a CTE has deleted.
        if self._execute(statement.returning(*self._identity.attributes)).first() is None:
            self._read()
            raise self._not_stored()
        if held is not None:
            mark_deleted(self.session, held)

    @cached_property
    def key(self) -> Key:
        """The key as a tuple."""
        return self._identity.key_of(self.ident)

    # --- By one statement ---

    def _update(self, values: Values, differs: ColumnElement[bool]) -> Any:
        held, version = self._identity.held(self.session, self.key), self._flushing.version_name
        counted = {} if version is None else {version: self._attribute(version) + 1}
        statement = update(self.mapper.class_).where(*self._where, *self._at_version, differs).values({**values, **counted})
        if held is None:
            returning: Any = statement.options(*self._options, *self._loading.undeferred(values)).returning(self.mapper.class_)
            row = self._execute(returning, populate_existing=True).scalars().unique().one_or_none()
        else:
            shown = self._loading.attributes({*values, *instance_dict(held)})
            row = self._refresh_held(held, shown, statement.options(*self._options).returning(*shown.values()))
        if row is not None:
            mark_updated(self.session, row)
        return row

    def _differs(self, name: str, value: object) -> ColumnElement[bool]:
        """Return the SQL that *value* is not what is stored."""
        attribute, type_ = self._attribute(name), attributes_of(self.mapper).columns[name].type
        differs: ColumnElement[bool] = attribute.is_distinct_from(value if is_sql(value) else bindparam(None, value, type_=type_))
        # The null of JSON and SQL's are both None.
        return and_(attribute.is_not(null()), differs) if value is None and type_.should_evaluate_none else differs

    def _refresh_held(self, held: object, shown: Iterable[str], statement: Any) -> object | None:
        """Run *statement*, which returns the *shown* columns of the row that the session holds, and put them into it."""
        stored = self._execute(statement).one_or_none()
        if stored is not None:
            self._loading.refresh(held, dict(zip(shown, stored, strict=True)))
        return None if stored is None else held

    def _execute(self, statement: Any, **options: Any) -> Result[Any]:
        given = statement.execution_options(**self.base.get_execution_options())
        return execute(self.session, given, synchronize_session=False, **options)

    # --- By a flush ---

    def _flush_update(self, values: Values) -> Any:
        row = self._read(names=values.keys(), lock=True)
        with self.session.no_autoflush:
            # A setter of the application's, or a collection, may load; what is half set must not be flushed for that.
            change(row, values)
        if self.session.is_modified(row):
            self._flush(row)
            self._loading.reload(self.session, [row])
        return row

    def _flush_delete(self) -> None:
        row = self._read(lock=True)
        self.session.delete(row)
        self._flush(row)
        # SQLAlchemy warns when nothing was deleted, and goes on.
        remaining = select(*self._identity.attributes).where(*self._identity.has(self.key))
        if self._loading.reads_where_it_writes(self.session) and execute(self.session, remaining).first() is not None:
            raise self._not_stored()

    def _flush(self, row: object) -> None:
        version = self._version_of(row)
        try:
            self.session.flush()
        except StaleDataError as error:
            if version is None:
                raise self._not_stored() from error
            raise StaleVersionError(expected=version) from error

    # --- Both ---

    def _read(self, *, names: Any = (), lock: bool = False) -> Any:
        """Return the row as it is stored, deferred columns among *names* loaded. Raises NotFoundError and StaleVersionError."""
        return self._find(names=names, lock=lock)[0]

    def _find(self, *columns: ColumnElement[Any], names: Any = (), lock: bool = False) -> tuple[Any, ...]:
        """Return the row likewise, and the values of *columns*."""
        query = self._query
        rows = query.rows(self._identity.has(self.key)) if query.loads_from_joins else query.of_model().where(*self._where)
        statement = rows.add_columns(*columns).options(*self._loading.undeferred(names))
        if lock and self._loading.reads_where_it_writes(self.session):
            statement = statement.with_for_update(of=self.mapper, key_share=True)
        found = self._loading.load_fresh(self.session, statement, names=names)
        if not found:
            raise NotFoundError(self.mapper.class_, self.ident)
        version = self._version_of(found[0][0])
        if self.expected_version is not None and version != self.expected_version:
            raise StaleVersionError(expected=self.expected_version, found=version)
        return found[0]

    def _with_relations(self, row: Any) -> Any:
        """Return *row* with what the base query loads beside it; the change may have moved it out of that."""
        query, key = self._query, self._identity.has(self.key)
        self._loading.load_fresh(self.session, query.rows(key) if query.loads_from_joins else query.of_model().where(*key))
        return row

    def _version_of(self, row: object) -> int | None:
        name = self._flushing.version_name
        version: int | None = getattr(row, name) if name else None
        return version

    def _not_stored(self) -> ConflictError:
        # A trigger has swallowed the statement.
        return ConflictError(table=self.mapper.local_table.description)

    def _refuse_impossible(self) -> None:
        if not self._identity.is_possible(self.key, self.session):
            raise NotFoundError(self.mapper.class_, self.ident)

    def _wait_for_others(self) -> None:
        """Lock the row if the base query joins: a subquery in the statement that writes would show it as it was before the wait."""
        has_locks = self.session.get_bind(self.mapper).dialect.name != "sqlite"
        if not self._query.is_plain and has_locks and self._loading.reads_where_it_writes(self.session):
            attributes = self._identity.attributes
            execute(self.session, select(*attributes).where(*self._identity.has(self.key)).with_for_update(key_share=True)).all()

    def _attribute(self, name: str) -> Any:
        return self.mapper.attrs[name].class_attribute

    @cached_property
    def _query(self) -> BaseQuery:
        return BaseQuery(self.base, self.mapper)

    @cached_property
    def _where(self) -> Sequence[ColumnExpressionArgument[bool]]:
        """The SQL that finds the row, if *base* has it: one that it has lost meanwhile is not written."""
        return self._query.row(self._identity.has(self.key))

    @property
    def _at_version(self) -> Sequence[ColumnElement[bool]]:
        version, expected = self._flushing.version_name, self.expected_version
        if expected is None or version is None:
            return []
        is_possible = may_hold(attributes_of(self.mapper).columns[version], expected, self.session, self.mapper)
        return [self._attribute(version) == expected if is_possible else false()]

    @property
    def _options(self) -> Sequence[Any]:
        return criteria_options(self.base)

    @property
    def _identity(self) -> Identity:
        return identity_of(self.mapper)

    @property
    def _loading(self) -> Loading:
        return loading_of(self.mapper)

    @property
    def _flushing(self) -> Flushing:
        return flushing_of(self.mapper)


def _is_spelled(stored: object, value: object) -> bool:
    """Return whether *value*, which the database holds equal, is what is *stored*: a collation may pass over capitals and accents.

    Blanks at the end are not written twice: a column that they make a difference for would not be equal.
    """
    if not isinstance(stored, str) or not isinstance(value, str):
        return True
    return stored.rstrip(" ") == value.rstrip(" ")
