"""What the endpoints of one router share: names, paths, where rows come from, how they are shown."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any

from fastapi import Request
from fastapi.params import Depends
from pydantic import BaseModel
from sqlalchemy import Column
from sqlalchemy.orm import Mapper

from fastapi_kit.crud.attributes import mapper_of
from fastapi_kit.crud.identity import Identity, Key, identity_of
from fastapi_kit.dependencies import declare
from fastapi_kit.errors import ConfigurationError
from fastapi_kit.routing._paths import column_in_path, key_in_path, may_be_key, row_path
from fastapi_kit.routing._rows import ChildRows, Parent, Rows, Service

__all__ = ["Resource"]


@dataclass(frozen=True)
class Resource:
    """What the endpoints of one router share.

    *serve* makes the service of what the dependency *source* gives: a session, or the service itself.
    """

    service_class: type[Service]
    source: Depends
    serve: Callable[[Any], Service]
    read: type[BaseModel]
    item: type[BaseModel]
    parent_column: object
    max_batch: int
    max_total: int | None

    @cached_property
    def mapper(self) -> Mapper[Any]:
        return mapper_of(self.declared("model"))

    @cached_property
    def parent(self) -> Parent | None:
        return None if self.parent_column is None else Parent.of(self.mapper, self.parent_column)

    @cached_property
    def given(self) -> Depends:
        """Dependency on what ``rows`` takes: the session or the service; under a parent, the rows themselves."""
        parent, serve = self.parent, self.serve
        if parent is None:
            return self.source

        async def get_rows(source: Annotated[Any, self.source], __value__: Any) -> Rows:
            return ChildRows(serve(source), parent, __value__)

        return Depends(declare(get_rows, __value__=column_in_path(parent.column, parent.name, of=self.plural)))

    def rows(self, given: Any) -> Rows:
        """Return the rows that the path and the service allow."""
        return Rows(self.serve(given)) if self.parent is None else given

    @cached_property
    def key(self) -> Any:
        """The type of the primary key in the path. Raises ConfigurationError if it cannot stand there."""
        return key_in_path(self._key_columns, of=self.singular)

    @property
    def path(self) -> str:
        """The path of one row under the collection."""
        return "".join(f"/{{{name}}}" for name in self._segments)

    @property
    def name(self) -> str:
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", self.mapper.class_.__name__).lower()

    @property
    def table(self) -> str:
        return getattr(self.mapper.local_table, "name", None) or self.name

    @property
    def singular(self) -> str:
        return self.name.replace("_", " ")

    @property
    def plural(self) -> str:
        return self.table.replace("_", " ")

    @property
    def confined(self) -> str:
        """Which rows they are, in words."""
        return "" if self.parent is None else f" with this {self.parent.name.replace('_', ' ')}"

    def declared(self, name: str) -> type[Any]:
        """Return what the service's class says under *name*. Raises ConfigurationError if it says nothing."""
        value: type[Any] | None = getattr(self.service_class, name, None)
        if value is None:
            raise ConfigurationError(f"{self.service_class.__name__} has no {name}")
        return value

    @property
    def errors_of_new_rows(self) -> tuple[int, ...]:
        """The statuses of a refused insert; a parent may be missing."""
        return (400, 409, 413, 422, 503) if self.parent is None else (400, 404, 409, 413, 422, 503)

    def may_be_key(self, segment: str) -> bool:
        """Return whether *segment* alone could be the key of a row in a path."""
        return len(self._segments) == 1 and may_be_key(self._key_columns[self._segments[0]], segment)

    def location(self, request: Request, key: Key) -> str:
        """Return the path of a new row."""
        parts = dict(zip(self._identity.names, key, strict=True))
        return row_path(request.scope, [parts[name] for name in self._segments])

    @property
    def _segments(self) -> list[str]:
        # A parent that is part of the key stands in the prefix.
        return [name for name in self._identity.names if self.parent is None or name != self.parent.name]

    @property
    def _identity(self) -> Identity:
        return identity_of(self.mapper)

    @property
    def _key_columns(self) -> Mapping[str, Column[Any]]:
        return dict(zip(self._identity.names, self._identity.columns, strict=True))
