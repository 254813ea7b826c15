"""Reads of a service that are answered from a cache."""

import builtins
import inspect
from collections.abc import Awaitable, Callable, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import lru_cache, partial
from hashlib import sha256
from types import GenericAlias
from typing import Any, ClassVar, Generic, TypeVar, cast
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy import URL, ColumnExpressionArgument, Engine, Select
from sqlalchemy.orm import Mapper

from fastapi_kit.cache.cache import Cache, check_lifetime
from fastapi_kit.cache.codec import Codec
from fastapi_kit.crud._conversions import is_sql
from fastapi_kit.crud._generics import overrides
from fastapi_kit.crud.attributes import mapper_of
from fastapi_kit.crud.identity import Key
from fastapi_kit.crud.ordering import OrderBy
from fastapi_kit.crud.reads import ReadService
from fastapi_kit.crud.sparse import ReadAs, is_sparse, schema_of
from fastapi_kit.db.hooks import on_commit
from fastapi_kit.db.sessions import has_own_rows
from fastapi_kit.errors import ConfigurationError

__all__ = ["CachedReadsMixin"]

ModelT = TypeVar("ModelT")
SchemaT = TypeVar("SchemaT", bound=BaseModel)
ResultT = TypeVar("ResultT")

MOST_DROPS = 100
"""For more rows than this, all entries of the model are dropped at once."""
CONFINING = ("base_query", "read_options", "get", "get_one", "list")
"""Methods that can make the result depend on the user or tenant."""


class CachedReadsMixin(ReadService[ModelT], Generic[ModelT]):
    """Answer ``get_as`` and ``list_as`` from a cache: ``class NoteService(CachedReadsMixin[Note], CRUDService[Note, ...])``.

    A write of a service with this mixin drops the entries of the row and of all lists, after its commit, in every process that uses the
    same cache. A write that is rolled back drops nothing. What was read before a commit is never shown after the entries were dropped.

    The database answers, and nothing is stored, in an open transaction, also in one that only reads; on a session that is bound to a
    connection, as in tests; for ``get_as`` with conditions; for a SparseModel; if the cache is gone; and if a listener of the
    application's may restrict what the session finds, unless the service has ``cache_key_parts``.

    Not noticed are writes that no such service makes: SQL of your own, cascades of the database, rows of other tables that *schema* or
    ``base_query`` reads. Name these models in ``cache_drops`` of the services that write them, or call ``forget``.

    Raises:
        ConfigurationError: When the class is created: *cache* or *cache_lifetime* is missing, the mixin is not in front of the service, or
            a method that can restrict rows is overridden without ``cache_key_parts``.
    """

    cache: ClassVar[Cache]
    cache_lifetime: ClassVar[timedelta]
    """How long an entry is kept at most, and so how old an answer can be after a write that is not noticed."""
    cache_drops: ClassVar[Sequence[type[object]]] = ()
    """Other models whose cached rows show rows of this one. A write drops all their entries, too."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if inspect.getattr_static(cls, "_note_write") is not CachedReadsMixin.__dict__["_note_write"]:
            raise ConfigurationError(f"{cls.__name__}: CachedReadsMixin must be in front of the service")
        behind = super()
        confining = [name for name in CONFINING if overrides(cls, ReadService, name)]
        confining += [name for name in ("get_as", "list_as") if getattr(behind, name) is not getattr(ReadService, name)]
        if confining and not overrides(cls, CachedReadsMixin, "cache_key_parts"):
            raise ConfigurationError(
                f"{cls.__name__} overrides {', '.join(confining)} and caches what it finds: also override cache_key_parts(), and return"
                " there what the result depends on, such as the id of the tenant; [] if it is the same for everyone"
            )
        if hasattr(cls, "model"):
            if not hasattr(cls, "cache") or not hasattr(cls, "cache_lifetime"):
                raise ConfigurationError(f"{cls.__name__} needs cache = Cache(...) and cache_lifetime = timedelta(...)")
            check_lifetime(cls.cache_lifetime)

    def cache_key_parts(self) -> Sequence[int | str | UUID | None] | None:
        """Return what a result depends on besides key and schema, such as the id of the tenant or user. None: do not cache."""
        return ()

    async def forget(self, *idents: object) -> None:
        """Drop the entries of these rows and of all lists now; without *idents* all entries of the model.

        After SQL of your own: ``on_commit(session, notes.forget, ident)``.
        """
        await self.cache.delete(*self._groups_of([self._identity.key_of(ident) for ident in idents]))

    async def get_as(self, schema: ReadAs[SchemaT], ident: object, *conditions: ColumnExpressionArgument[bool]) -> SchemaT:
        """Return the row as ``ReadService.get_as`` does, from the cache if it has it."""
        load = partial(super().get_as, schema, ident, *conditions)
        kind = schema_of(schema)
        place = None if conditions or is_sql(ident) or is_sparse(schema) else self._place(kind)
        if place is None:
            return await load()
        row = f"row {row_name(self._identity.key_of(ident))}"
        return await self._fetch(f"{row} {place}", load, codec_of(kind), group=row)

    async def list_as(
        self,
        schema: ReadAs[SchemaT],
        *conditions: ColumnExpressionArgument[bool],
        skip: int = 0,
        limit: int | None = 100,
        order_by: OrderBy = (),
    ) -> builtins.list[SchemaT]:
        """Return the rows as ``ReadService.list_as`` does, from the cache if it has the list."""
        load = partial(super().list_as, schema, *conditions, skip=skip, limit=limit, order_by=order_by)
        kind = schema_of(schema)
        place = None if is_sparse(schema) else self._place(kind)
        statement = None if place is None else self._window(conditions, skip=skip, limit=limit, order_by=order_by)
        name = None if statement is None else self._name_of(statement)
        if name is None:
            return await load()
        return await self._fetch(f"{name} {place}", load, codec_of(GenericAlias(builtins.list, kind)), group="list")

    async def _fetch(self, name: str, load: Callable[[], Awaitable[ResultT]], codec: Codec[ResultT], *, group: str) -> ResultT:
        table = table_name(self.mapper)
        groups = [table, f"{table} {group}"]
        return await self.cache.fetch(f"{table} {name}", load, codec=codec, lifetime=self.cache_lifetime, groups=groups)

    def _place(self, schema: type[BaseModel]) -> str | None:
        """Return what besides table and key an entry is for: service, schema, database, and who asks. None: the database must answer."""
        parts, session = self.cache_key_parts(), self.session.sync_session
        bind = session.get_bind(self.mapper)
        # What a transaction sees may be its own uncommitted rows, or older than what others have committed.
        if parts is None or session.in_transaction() or not isinstance(bind, Engine):
            return None
        if not overrides(type(self), CachedReadsMixin, "cache_key_parts") and has_own_rows(session, bind):
            return None
        if not all(isinstance(part, PARTS) for part in cast("Sequence[object]", parts)):
            raise ConfigurationError(f"{type(self).__name__}.cache_key_parts() may contain numbers, texts, UUIDs and None")
        service, database = f"{type(self).__module__}.{type(self).__qualname__}", database_name(bind.url)
        schemas = bind.get_execution_options().get("schema_translate_map")
        return f"{service} {schema_name(schema)} {database} {schemas!r} {(*parts,)!r}"

    def _note_write(self, written: object) -> None:
        if isinstance(written, builtins.list):
            keys = [self._identity.key_of_row(row) for row in cast("builtins.list[object]", written)]
        else:
            keys = [self._identity.key_of(written)]
        others = [table_name(mapper_of(model)) for model in self.cache_drops]
        on_commit(self.session, self.cache.delete, *self._groups_of(keys), *others)

    def _groups_of(self, keys: Sequence[Key]) -> builtins.list[str]:
        table = table_name(self.mapper)
        # Two texts can be one key to the database, in upper and lower case for example.
        if not 0 < len(keys) <= MOST_DROPS or not all(kind in {int, UUID} for kind in self._identity.types):
            return [table]
        return [f"{table} list", *(f"{table} row {row_name(key)}" for key in keys)]

    def _name_of(self, statement: Select[Any]) -> str | None:
        """Return a name for the result of *statement*, or None if one of its values has no text that is its own."""
        compiled = statement.compile(dialect=self.session.sync_session.get_bind(self.mapper).dialect)
        if not all(map(is_plain, compiled.params.values())):
            return None
        return f"list {sha256(f'{compiled} {sorted(compiled.params.items())!r}'.encode(errors='surrogatepass')).hexdigest()}"


PARTS = (int, str, UUID, type(None))
PLAIN = (int, float, str, bytes, bool, Decimal, UUID, date, datetime, time, timedelta, Enum)


def is_plain(value: object) -> bool:
    if isinstance(value, builtins.list | tuple):
        return all(map(is_plain, cast("Sequence[object]", value)))
    return value is None or isinstance(value, PLAIN)


def row_name(key: Key) -> str:
    # int() and str(): a member of an IntEnum is the same key as its number.
    return repr(tuple(int(value) if isinstance(value, int) else str(value) for value in key))


def table_name(mapper: Mapper[Any]) -> str:
    # The base: a row of a subclass is a row of its parents, too.
    return str(mapper.base_mapper.local_table)


@lru_cache(maxsize=64)
def database_name(url: URL) -> str:
    return sha256(url.render_as_string(hide_password=True).encode()).hexdigest()[:16]


@lru_cache(maxsize=512)
def schema_name(schema: type[BaseModel]) -> str:
    # With its fields, so that an entry of another version of the schema is not used.
    fields = [(name, repr(field.annotation), field.is_required()) for name, field in schema.model_fields.items()]
    return f"{schema.__module__}.{schema.__qualname__} {sha256(repr(fields).encode()).hexdigest()[:16]}"


@lru_cache(maxsize=512)
def codec_of(kind: Any) -> Codec[Any]:
    return Codec(kind, name=repr(kind))
