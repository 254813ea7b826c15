"""A rejected statement: its table, constraint and columns, from the driver's report, the statement and the metadata."""

import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sqlalchemy import Column, MetaData, Table
from sqlalchemy.orm import Mapper
from sqlalchemy.orm.exc import UnmappedColumnError

from fastapi_kit.db.errors.constraints import Rule, columns_named_in, find_rule
from fastapi_kit.db.errors.drivers import Failure
from fastapi_kit.db.errors.written import Written

__all__ = ["RejectedStatement"]


@dataclass(frozen=True, eq=False)
class RejectedStatement:
    """What is known about a rejected statement. *written* is None for a COMMIT and on an engine that is not watched."""

    failure: Failure
    verb: str
    written: Written | None
    metadata: MetaData | None
    mapper: Mapper[Any] | None

    @cached_property
    def tables(self) -> Sequence[Table]:
        """All tables of the metadata."""
        return list(self.metadata.tables.values()) if self.metadata is not None else []

    @cached_property
    def table(self) -> Table | None:
        """The table that the driver names, or that of the statement."""
        written, name, schema = self.written, self.failure.table, self.failure.schema
        own: Table | None = None
        if written is not None and (name is None or (name == written.table.name and schema in {None, written.schema or schema})):
            own, name, schema = written.table, written.table.name, written.table.schema or schema
        if self.metadata is None or name is None:
            return own
        exact = self.metadata.tables.get(f"{schema}.{name}", self.metadata.tables.get(name))
        # The metadata may leave out the schema, such as "public".
        namesakes = [table for table in self.tables if table.name == name] if exact is None else [exact]
        return namesakes[0] if len(namesakes) == 1 else own

    @property
    def table_name(self) -> str | None:
        """The table's name, with its schema if the metadata has one."""
        return self.table.fullname if self.table is not None else self.failure.table

    @cached_property
    def rule(self) -> Rule | None:
        """The constraint that the driver names."""
        name = self.failure.constraint
        if name is None:
            return None
        return find_rule(self.tables if self.table is None else [self.table], name)

    @property
    def columns(self) -> Sequence[Column[Any] | str]:
        """The columns that the driver names, or those in PostgreSQL's DETAIL."""
        names = self.failure.columns or self.key.split(", ")
        if self.failure.columns or all(name.isidentifier() for name in names):
            known = {column.name: column for column in self.table.columns} if self.table is not None else {}
            return [known.get(name, name) for name in names]
        return columns_named_in(self.key, self.table) if self.table is not None else []

    @property
    def key(self) -> str:
        """The columns or expressions in ``Key (a, b)=(1, 2)``, the part of PostgreSQL's DETAIL that is the same in every language."""
        found = re.search(r"\((.+?)\)=\(", self.failure.text)
        return found[1] if found else ""

    def fields(self, columns: Iterable[Column[Any] | str]) -> tuple[str, ...]:
        """Return the attributes that map *columns*, or the keys of unmapped columns."""
        names: list[str] = []
        for column in columns:
            names.append(column if isinstance(column, str) else column.key)
            if self.mapper is not None and not isinstance(column, str):
                with suppress(UnmappedColumnError):
                    names[-1] = self.mapper.get_property_by_column(column).key
        return tuple(names)
