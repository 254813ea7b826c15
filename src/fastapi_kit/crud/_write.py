"""Updating and deleting one row: by one statement, or by a flush if the mapping or a listener needs it."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import ColumnElement, Result, Select, and_, bindparam, delete, false, null, or_, select, true, update
from sqlalchemy.orm import Mapper, Session
from sqlalchemy.orm.attributes import instance_dict
from sqlalchemy.orm.exc import StaleDataError
from sqlalchemy.types import TypeEngine

from fastapi_kit._compat import criteria_options, mark_deleted, mark_updated, options_of
from fastapi_kit.crud._base_query import BaseQuery
from fastapi_kit.crud._conversions import is_sql
from fastapi_kit.crud._flushing import flushing_of
from fastapi_kit.crud._objects import change
from fastapi_kit.crud._rows import loading_of
from fastapi_kit.crud.attributes import Values, attributes_of
from fastapi_kit.crud.identity import identity_of, may_hold
from fastapi_kit.db.checks.values import check_offsets
from fastapi_kit.db.sessions import execute
from fastapi_kit.errors import ConfigurationError, ConflictError, NotFoundError, StaleVersionError

__all__ = ["Target"]


class Target:
    """The row with the key *ident* among those of *base*. It must have *expected_version* unless that is None.

    Its methods run inside a write of *session*.

    Raises:
        NotFoundError: No row can have the key.
        ConfigurationError: A version is expected, and the model has none; or the key has another shape or type.
    """

    def __init__(self, session: Session, mapper: Mapper[Any], base: Select[Any], ident: object, expected_version: int | None) -> None:
        self.session = session
        self.mapper = mapper
        self.ident = ident
        self.expected_version = expected_version
        self.identity = identity_of(mapper)
        self.loading = loading_of(mapper)
        self.version = flushing_of(mapper).version_name
        self.query = BaseQuery(base, mapper)
        self.options = criteria_options(base)
        self.key = self.identity.key_of(ident)
        if expected_version is not None and self.version is None:
            raise ConfigurationError(f"{mapper.class_.__name__} counts no versions: set version_id_col in its __mapper_args__")
        if not self.identity.is_possible(self.key, session):
            raise NotFoundError(mapper.class_, ident)
        # The conditions of *base* are in the statement: a row that no longer meets them is not written.
        self.where = self.query.row(self.identity.has(self.key))

    def update(self, values: Values, *, flushes: bool) -> Any:
        """Store *values* and return the row. Nothing is written if they are stored already."""
        check_offsets(self.mapper, values, self.session.get_bind(self.mapper).dialect)
        self.wait_for_others()
        if not values:
            row = self.read()[0]
        elif flushes:
            row = self.flush_update(values)
        else:
            row = self.update_or_find(values)
        if len(options_of(self.query.statement)) > len(self.options):
            # Load what the base query loads with the row. The row may no longer be one of the base query.
            self.loading.load_fresh(self.session, self.select(confined=False))
        return row

    def delete(self, *, flushes: bool) -> None:
        """Delete the row."""
        self.wait_for_others()
        if flushes:
            self.flush_delete()
            return
        held = self.identity.held(self.session, self.key)
        statement = delete(self.mapper.class_).where(*self.where, *self.at_version()).options(*self.options)
        # SQLite's driver does not count the deleted rows of a statement that begins with a CTE.
        if self.execute(statement.returning(*self.identity.attributes)).first() is None:
            self.read()
            raise self.not_stored()
        if held is not None:
            mark_deleted(self.session, held)

    # --- By one statement ---

    def update_or_find(self, values: Values) -> Any:
        columns, attrs = attributes_of(self.mapper).columns, self.mapper.attrs
        differs = or_(*(differs_from(attrs[name].class_attribute, columns[name].type, value) for name, value in values.items()))
        # Twice, if another session changes the row between the two statements, or if only the spelling differs.
        for _ in range(2):
            row = self.update_where(differs, values)
            if row is not None:
                return row
            row, still_differs = self.read(differs, names=values)
            if not still_differs:
                if all(is_spelled(getattr(row, name), value) for name, value in values.items()):
                    return row
                differs = true()
        raise self.not_stored()

    def update_where(self, differs: ColumnElement[bool], values: Values) -> Any:
        """Update the row if it *differs*, and return it as it is stored. Return None if it was not updated."""
        held, counted = self.identity.held(self.session, self.key), dict[str, Any]()
        if self.version is not None:
            counted[self.version] = self.mapper.attrs[self.version].class_attribute + 1
        statement = update(self.mapper.class_).where(*self.where, *self.at_version(), differs).values({**values, **counted})
        if held is None:
            returning = statement.options(*self.options, *self.loading.undeferred(values)).returning(self.mapper.class_)
            row = self.execute(returning, populate_existing=True).scalars().unique().one_or_none()
        else:
            shown = self.loading.attributes({*values, *instance_dict(held)})
            stored = self.execute(statement.options(*self.options).returning(*shown.values())).one_or_none()
            row = None if stored is None else held
            if stored is not None:
                self.loading.refresh(held, dict(zip(shown, stored, strict=True)))
        if row is not None:
            mark_updated(self.session, row)
        return row

    def execute(self, statement: Any, **options: Any) -> Result[Any]:
        given = self.query.statement.get_execution_options()
        return execute(self.session, statement.execution_options(**given) if given else statement, synchronize_session=False, **options)

    # --- By a flush ---

    def flush_update(self, values: Values) -> Any:
        row = self.read(names=values, lock=True)[0]
        with self.session.no_autoflush:
            # A setter of the application, or a collection, may run a query, which must not flush a half-changed row.
            change(row, values)
        if self.session.is_modified(row):
            self.flush(row)
            self.loading.reload(self.session, [row])
        return row

    def flush_delete(self) -> None:
        row = self.read(lock=True)[0]
        self.session.delete(row)
        self.flush(row)
        # SQLAlchemy warns when nothing was deleted, and goes on.
        remaining = select(*self.identity.attributes).where(*self.identity.has(self.key))
        if self.loading.reads_where_it_writes(self.session) and execute(self.session, remaining).first() is not None:
            raise self.not_stored()

    def flush(self, row: object) -> None:
        version = self.version_of(row)
        try:
            self.session.flush()
        except StaleDataError as error:
            if version is None:
                raise self.not_stored() from error
            raise StaleVersionError(expected=version) from error

    # --- Both ---

    def read(self, *columns: ColumnElement[Any], names: Mapping[str, Any] | tuple[()] = (), lock: bool = False) -> tuple[Any, ...]:
        """Return the row as it is stored, with deferred columns among *names*, and the values of *columns*.

        Raises:
            NotFoundError: No row has the key.
            StaleVersionError: The row has another version than expected.
        """
        statement = self.select().add_columns(*columns).options(*self.loading.undeferred(names))
        if lock and self.loading.reads_where_it_writes(self.session):
            statement = statement.with_for_update(of=self.mapper, key_share=True)
        found = self.loading.load_fresh(self.session, statement, names=names)
        if not found:
            raise NotFoundError(self.mapper.class_, self.ident)
        version = self.version_of(found[0][0])
        if self.expected_version is not None and version != self.expected_version:
            raise StaleVersionError(expected=self.expected_version, found=version)
        return found[0]

    def select(self, *, confined: bool = True) -> Select[Any]:
        """Return the select of the row, with what the base query loads. If *confined*, only if it is a row of the base query."""
        key = self.identity.has(self.key)
        return self.query.rows(key) if self.query.loads_from_joins else self.query.of_model().where(*(self.where if confined else key))

    def wait_for_others(self) -> None:
        """Lock the row if the base query joins. A subquery of the write would see the row as it was before the write waited for a lock."""
        has_locks = self.session.get_bind(self.mapper).dialect.name != "sqlite"
        if not self.query.is_plain and has_locks and self.loading.reads_where_it_writes(self.session):
            row = select(*self.identity.attributes).where(*self.identity.has(self.key))
            execute(self.session, row.with_for_update(key_share=True)).all()

    def at_version(self) -> list[ColumnElement[bool]]:
        if self.expected_version is None or self.version is None:
            return []
        column = attributes_of(self.mapper).columns[self.version]
        if not may_hold(column, self.expected_version, self.session, self.mapper):
            return [false()]
        return [self.mapper.attrs[self.version].class_attribute == self.expected_version]

    def version_of(self, row: object) -> int | None:
        version: int | None = getattr(row, self.version) if self.version else None
        return version

    def not_stored(self) -> ConflictError:
        # A trigger has dropped the write.
        return ConflictError(table=self.mapper.local_table.description)


def differs_from(attribute: Any, type_: TypeEngine[Any], value: object) -> ColumnElement[bool]:
    """Return the SQL condition that *attribute* differs from *value*."""
    differs: ColumnElement[bool] = attribute.is_distinct_from(value if is_sql(value) else bindparam(None, value, type_=type_))
    # None is stored as the null of JSON or as SQL's NULL.
    return and_(attribute.is_not(null()), differs) if value is None and type_.should_evaluate_none else differs


def is_spelled(stored: object, value: object) -> bool:
    """Return whether *value*, which is equal to *stored* for the database, is spelled alike: a collation may ignore case and accents.

    Blanks at the end do not count. If they mattered to the column, the database would not see the two as equal.
    """
    if not isinstance(stored, str) or not isinstance(value, str):
        return True
    return stored.rstrip(" ") == value.rstrip(" ")
