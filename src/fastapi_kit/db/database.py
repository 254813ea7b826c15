"""One database: engine, sessions, and the ways to get a session."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Self, cast

from sqlalchemy import URL, Connection, MetaData, event, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session

from fastapi_kit.db.base import Base
from fastapi_kit.db.engines.make import adopt_engine, make_engine
from fastapi_kit.db.engines.options import DatabaseOptions
from fastapi_kit.db.engines.sqlite import PrivateFile, begin_immediate
from fastapi_kit.db.engines.urls import masked
from fastapi_kit.db.errors.translate import as_kit_error, typed
from fastapi_kit.db.hooks import OWN, has_uncommitted_writes, note_writes
from fastapi_kit.db.sessions import NO_AUTOCOMMIT, Place, close, log_application_commits, report_second_commit
from fastapi_kit.db.transactions import keep_clean, put_back_kept, unit_of_work
from fastapi_kit.errors import ConfigurationError, UnavailableError
from fastapi_kit.settings import KitSettings

if TYPE_CHECKING:
    from fastapi.params import Depends

    class SessionDepends(Depends):
        """A marker for ``Annotated`` that is also a dependency."""

        async def __call__(self, session: AsyncSession) -> AsyncSession: ...


__all__ = ["Database", "DatabaseOptions"]

_TABLES_LOCK = 0x666B_7461_626C_6573
"""Key of the PostgreSQL advisory lock that ``lock_tables`` takes: "fktables" as a number."""
_log = logging.getLogger("fastapi_kit.db")


class Database:
    """An engine and its sessions. Nothing connects before the first statement; ``lifespan`` checks and disposes.

    SQLite gets working savepoints, foreign keys, a busy timeout and WAL, and ``:memory:`` means a private temporary file that ``dispose``
    empties and that goes with the engine; ``postgres://`` URLs get an installed async driver. The URL never shows a password. Several
    databases work side by side.
    """

    def __init__(self, url: str | URL | AsyncEngine, *, options: DatabaseOptions | None = None) -> None:
        """Wrap *url*, or the application's own engine before its first connection.

        Raises ConfigurationError if *url* cannot be read or says what its driver cannot do; no value of it is shown.
        """
        options = options or DatabaseOptions()
        self.autocommit_reads = options.autocommit_reads
        self._file: PrivateFile | None = None
        if isinstance(url, AsyncEngine):
            self.engine = url
            adopt_engine(url, options)
        else:
            self.engine, self._file = make_engine(url, options)
        self.sessions: async_sessionmaker[AsyncSession] = self._make_sessions()
        self._reported: set[Place] = set()

    @classmethod
    def from_settings(cls, settings: KitSettings) -> Self:
        """Build it from DATABASE_URL, DB_POOL_SIZE, DB_MAX_OVERFLOW and DB_STATEMENT_TIMEOUT_SECONDS."""
        options = DatabaseOptions(
            pool_size=settings.DB_POOL_SIZE,
            max_overflow=settings.DB_MAX_OVERFLOW,
            statement_timeout=settings.DB_STATEMENT_TIMEOUT_SECONDS,
        )
        return cls(settings.DATABASE_URL, options=options)

    def __repr__(self) -> str:
        return f"Database({masked(self.engine.url)!r})"

    @property
    def session(self) -> "SessionDepends":
        """Marker for ``Annotated[AsyncSession, db.session]``: the request's one session; each service write commits itself."""
        return make_marker(self.get_session)

    @property
    def transaction(self) -> "SessionDepends":
        """Marker for ``Annotated[AsyncSession, db.transaction]``: the same session, the whole request one transaction.

        It is committed when the handler has returned and before the response starts, and rolled back on any exception.
        """
        return make_marker(self._get_transaction)

    async def get_session(self) -> AsyncIterator[AsyncSession]:
        """Give a request its session; the plain dependency behind ``session``.

        For ``Depends(db.get_session, scope="function")`` and ``dependency_overrides``: with that scope the session is closed, and its
        connection back in the pool, before the response is sent. What is still open then is rolled back, and the session cannot be used
        again. Raises ConfigurationError where the request ends well with something written, added or marked
        as deleted that nobody committed or rolled back.
        """
        async with self._open_session() as session:
            report_second_commit(session, reported=self._reported)
            yield session
            if has_uncommitted_writes(session.sync_session):
                raise ConfigurationError(
                    "the request added or wrote something that nobody committed: use Annotated[AsyncSession, db.transaction], put the"
                    " writes into unit_of_work(session), or await session.commit(); await session.rollback() says that it is not wanted"
                )

    @cached_property
    def _get_transaction(self) -> Callable[..., AsyncIterator[AsyncSession]]:
        async def get_transaction(session: Annotated[AsyncSession, self.session]) -> AsyncIterator[AsyncSession]:
            async with unit_of_work(session):
                yield session

        return get_transaction

    @asynccontextmanager
    async def begin(self) -> AsyncGenerator[AsyncSession]:
        """Open a session of one's own in one transaction: commits at the end, rolls back on error.

        For scripts, tasks and streamed bodies, whatever outlives the request. A failing COMMIT is raised as a typed error.
        """
        async with self._open_session() as session, unit_of_work(session):
            yield session

    async def create_tables(self, metadata: MetaData | None = None) -> None:
        """Create missing tables of *metadata*, or of ``Base``, one process at a time. For development and tests; commits.

        Raises UnavailableError if the database does not answer.
        """
        bound = self._bound_connection
        with typed(None):
            async with nullcontext(bound) if bound is not None else self.engine.begin() as connection:
                await connection.run_sync(create_all, metadata or Base.metadata)

    async def ping(self) -> None:
        """Ask the database for an answer. Raises UnavailableError; a mistake, such as an argument unknown to the driver, as it comes."""
        try:
            async with self.engine.connect() as connection:
                await connection.execute(text("SELECT 1"))
        except Exception as error:
            mapped = as_kit_error(error)
            if isinstance(mapped, UnavailableError):
                raise mapped from error
            raise

    async def dispose(self) -> None:
        """Close every pooled connection. The next statement opens a new one; what was in a ``:memory:`` database is gone.

        While a test has the database isolated, nothing is closed: its data must outlive the lifespan of the app under test.
        """
        if self._bound_connection is not None:
            return
        await self.engine.dispose()
        if self._file is not None:
            await asyncio.to_thread(self._file.empty)

    @asynccontextmanager
    async def lifespan(self, app: object) -> AsyncGenerator[None]:
        """Try the database, and dispose the engine at the end: a lifespan for applications that compose their own.

        A database that does not answer yet is logged and stops nothing: requests get 503 until it does. A mistake in its URL or its
        arguments is raised.
        """
        try:
            await self.ping()
        except UnavailableError as error:
            _log.warning("The %s database does not answer yet: %s", self.engine.dialect.name, error)
        try:
            yield
        finally:
            await self.dispose()

    @property
    def _bound_connection(self) -> AsyncConnection | None:
        """The connection that every session is bound to while a test has the database isolated."""
        bind: object = self.sessions.kw.get("bind")
        return bind if isinstance(bind, AsyncConnection) else None

    def _make_sessions(self) -> async_sessionmaker[AsyncSession]:
        # A class of this database's own, so that its events are not every session's.
        session_class = type("Session", (Session,), {})
        event.listen(session_class, "after_commit", log_application_commits)
        event.listen(session_class, "after_rollback", keep_clean)
        event.listen(session_class, "after_transaction_end", put_back_kept)
        note_writes(session_class, self.engine.sync_engine)
        info = {OWN: session_class, NO_AUTOCOMMIT: not self.autocommit_reads}
        return async_sessionmaker(self.engine, expire_on_commit=False, close_resets_only=False, sync_session_class=session_class, info=info)

    @asynccontextmanager
    async def _open_session(self) -> AsyncGenerator[AsyncSession]:
        session = self.sessions()
        try:
            yield session
        finally:
            await close(session)


def make_marker(dependency: Callable[..., AsyncIterator[AsyncSession]]) -> "SessionDepends":
    # The only FastAPI below the web floor: a script that uses a Database never imports it.
    from fastapi.params import Depends

    marker = Depends(dependency, scope="function")

    class Marker(Depends):
        # Depends(db.session) gives the same session, in the same scope.
        async def __call__(self, session: Annotated[AsyncSession, marker]) -> AsyncSession:
            return session

    return cast("SessionDepends", Marker(dependency, scope="function"))


def create_all(connection: Connection, metadata: MetaData) -> None:
    lock_tables(connection)
    metadata.create_all(connection)


def lock_tables(connection: Connection) -> None:
    """Wait for other processes that create or change tables, and keep them waiting until the transaction of *connection* ends."""
    if connection.dialect.name == "sqlite":
        begin_immediate(connection)
    elif connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _TABLES_LOCK})
