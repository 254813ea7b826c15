"""One refused statement: its table, constraint and columns, put together from the driver, the statement and the metadata."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Column, MetaData, Table
from sqlalchemy.orm import Mapper
from sqlalchemy.orm.exc import UnmappedColumnError

from fastapi_kit.db._constraints import Rule, columns_named_in, find_rule, find_table
from fastapi_kit.db._drivers import Failure
from fastapi_kit.db._statements import Written

__all__ = ["Refusal"]


@dataclass(frozen=True)
class Refusal:
    """What is known of one refused statement; *written* is None at COMMIT, *metadata* where nobody gave it."""

    failure: Failure
    written: Written | None
    metadata: MetaData | None
    mapper: Mapper[Any] | None

    @property
    def tables(self) -> Sequence[Table]:
        """Every table of the metadata."""
        return list(self.metadata.tables.values()) if self.metadata is not None else []

    @property
    def table(self) -> Table | None:
        """The table that the driver names, or else that of the statement."""
        name, schema = self.failure.table, self.failure.schema
        if self.written is not None and name in {None, self.written.table}:
            name, schema = self.written.table, schema or self.written.schema
        return find_table(self.metadata, name, schema) if self.metadata is not None and name is not None else None

    @property
    def table_name(self) -> str | None:
        """The table's name, with its schema where the metadata has one."""
        if self.table is not None:
            return self.table.fullname
        return self.failure.table or (self.written.table if self.written is not None else None)

    @property
    def rule(self) -> Rule | None:
        """The constraint that the driver names."""
        name = self.failure.constraint
        if name is None:
            return None
        own = find_rule([self.table], name) if self.table is not None else None
        return own if own is not None else find_rule(self.tables, name)

    @property
    def columns(self) -> Sequence[Column[Any] | str]:
        """The columns that the driver names, or else those of PostgreSQL's DETAIL."""
        names = self.key.split(", ")
        if self.failure.columns or all(name.isidentifier() for name in names):
            return [self.column(name) for name in self.failure.columns or names]
        return columns_named_in(self.key, self.table) if self.table is not None else []

    @property
    def key(self) -> str:
        """The columns or expressions of ``Key (a, b)=(1, 2)``, the part of PostgreSQL's DETAIL that it does not translate."""
        found = re.search(r"\((.+?)\)=\(", self.failure.text)
        return found[1] if found else ""

    def column(self, name: str) -> Column[Any] | str:
        """Return the table's column that the database calls *name*, or the name where the table is not known."""
        columns = self.table.columns if self.table is not None else ()
        return next((column for column in columns if column.name == name), name)

    def fields(self, columns: Iterable[Column[Any] | str]) -> tuple[str, ...]:
        """Return the attributes that map *columns*, or the columns' keys where none does."""
        return tuple(column if isinstance(column, str) else self._attribute(column) for column in columns)

    def _attribute(self, column: Column[Any]) -> str:
        try:
            return self.mapper.get_property_by_column(column).key if self.mapper is not None else column.key
        except UnmappedColumnError:
            return column.key
