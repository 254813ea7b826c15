"""One row on its way to be changed or deleted: read anew, checked, and what it means if it has gone meanwhile."""

from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

from sqlalchemy import CursorResult, Select, delete, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session, undefer
from sqlalchemy.orm.attributes import instance_dict
from sqlalchemy.orm.exc import StaleDataError

from fastapi_kit.crud.facts import Key, ModelFacts
from fastapi_kit.db.session import execute
from fastapi_kit.db.snapshot import Snapshot, keeping_relations
from fastapi_kit.errors import ConfigurationError, NotFoundError, StaleVersionError

__all__ = ["Target", "making_room"]

ModelT = TypeVar("ModelT")


@contextmanager
def making_room(session: Session, facts: ModelFacts, rows: Iterable[object]) -> Generator[None]:
    """Let new *rows* take keys under which *session* still holds objects; if they are refused, those come back.

    Another session may have deleted them. SQLAlchemy would warn, whether the database then refuses the key or not.
    """
    keys = (facts.key_of_row(row) for row in rows)
    known = (session.identity_map.get(facts.mapper.identity_key_from_primary_key(key)) for key in keys if None not in key)
    held = [row for row in known if row is not None]
    for row in held:
        session.expunge(row)
    try:
        yield
    except BaseException:
        for row in held:
            session.add(row)
        raise


@dataclass(frozen=True)
class Target(Generic[ModelT]):
    """The row of *model* with the key *ident*, which must be at *expected_version* unless that is None."""

    session: AsyncSession
    model: type[ModelT]
    facts: ModelFacts
    ident: object
    key: Key
    expected_version: int | None

    def __post_init__(self) -> None:
        if self.expected_version is not None and self.facts.version_name is None:
            raise ConfigurationError(f"{self.facts.name} counts no versions: set version_id_col in its __mapper_args__")

    async def read(self, statement: Select[ModelT], *, changing: Snapshot, changed: Iterable[str] = ()) -> ModelT:
        """Return the row as the database has it now, and keep it in *changing*: a change is what differs from there.

        Relationships that were loaded stay so; deferred columns are read if they were loaded or are among the *changed*.
        """
        self._refuse_impossible()
        sync, mapper = self.session.sync_session, self.facts.mapper
        known = sync.identity_map.get(mapper.identity_key_from_primary_key(self.key))
        wanted = self.facts.deferred & {*changed, *(() if known is None else instance_dict(known))}
        statement = statement.options(*(undefer(getattr(self.model, name)) for name in sorted(wanted)))
        with keeping_relations(sync, mapper, self.key):
            row: ModelT | None = (await execute(self.session, statement, populate_existing=True)).scalars().unique().one_or_none()
        if row is None:
            raise NotFoundError(self.model, self.ident)
        changing.keep(row)
        self._refuse_stale(row)
        return row

    async def lock(self) -> None:
        """Lock the row for a delete by the unit of work: SQLAlchemy only warns if it has gone by then."""
        self._refuse_impossible()
        statement = select(*self.facts.key_attributes).where(*self.facts.key_conditions(self.key))
        await execute(self.session, statement.with_for_update())

    async def delete(self) -> None:
        """Delete the row by one statement."""
        self._refuse_impossible()
        deleted = await execute(self.session, delete(self.model).where(*self.facts.key_conditions(self.key)))
        if not (isinstance(deleted, CursorResult) and deleted.rowcount):
            raise NotFoundError(self.model, self.ident)

    @contextmanager
    def flushing(self, row: ModelT) -> Generator[None]:
        """Say what it means that the *row* which was just read is no longer there to be flushed."""
        version = self._version_of(row)
        try:
            yield
        except StaleDataError as error:
            if version is None:
                raise NotFoundError(self.model, self.ident) from error
            raise StaleVersionError(expected=version) from error

    def forget_old_references(self, row: ModelT, changed: set[str]) -> None:
        """Unload relationships whose foreign key has *changed*: they show the old row."""
        if outdated := self.facts.references_through(changed) - changed:
            self.session.expire(row, sorted(outdated))

    def _version_of(self, row: ModelT) -> int | None:
        version: int | None = getattr(row, self.facts.version_name) if self.facts.version_name else None
        return version

    def _refuse_impossible(self) -> None:
        sync, mapper = self.session.sync_session, self.facts.mapper
        if not self.facts.key_is_possible(self.key, dialect=lambda: sync.get_bind(mapper).dialect.name):
            raise NotFoundError(self.model, self.ident)

    def _refuse_stale(self, row: ModelT) -> None:
        found = self._version_of(row)
        if self.expected_version is not None and found != self.expected_version:
            raise StaleVersionError(expected=self.expected_version, found=found)
