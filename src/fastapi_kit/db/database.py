"""One database: its engine, its sessions, and the dependencies that give a request its session."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Self, cast

from sqlalchemy import URL, Connection, MetaData, event, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session

from fastapi_kit.db.atomic import keep_clean, put_back_kept
from fastapi_kit.db.base import Base
from fastapi_kit.db.engines.make import adopt_engine, make_engine
from fastapi_kit.db.engines.options import DatabaseOptions
from fastapi_kit.db.engines.sqlite import PrivateFile, begin_immediate
from fastapi_kit.db.engines.urls import masked
from fastapi_kit.db.errors.translate import as_kit_error, typed
from fastapi_kit.db.hooks import OWN, has_uncommitted_writes, note_writes
from fastapi_kit.db.sessions import NO_AUTOCOMMIT, Place, close, log_application_commits, report_second_commit
from fastapi_kit.db.transactions import unit_of_work
from fastapi_kit.errors import ConfigurationError, UnavailableError
from fastapi_kit.settings import KitSettings

if TYPE_CHECKING:
    from fastapi.params import Depends

    class SessionDepends(Depends):
        """A marker for ``Annotated`` that can also be passed to ``Depends``."""

        async def __call__(self, session: AsyncSession) -> AsyncSession: ...


__all__ = ["Database", "DatabaseOptions"]

_TABLES_LOCK = 0x666B_7461_626C_6573
"""Key of the PostgreSQL advisory lock that ``create_tables`` takes: "fktables" as a number."""
_log = logging.getLogger("fastapi_kit.db")


class Database:
    """An engine and its sessions. It connects with the first statement. An application may have several.

    SQLite gets working savepoints, foreign keys, a busy timeout and WAL. ``:memory:`` means a private temporary file: ``dispose`` empties
    it, and it is removed with the engine. ``postgres://`` URLs get an installed async driver. The repr never shows a password.

    ``session`` and ``transaction`` give a request its session, ``begin`` opens one for scripts and tasks. ``sessions`` is SQLAlchemy's
    ``async_sessionmaker`` and ``engine`` its ``AsyncEngine``.

    Example:
        ```python
        import asyncio

        from sqlalchemy import select
        from sqlalchemy.orm import Mapped, mapped_column

        from fastapi_kit import Base, Database


        class Note(Base):
            __tablename__ = "notes"
            id: Mapped[int] = mapped_column(primary_key=True)
            title: Mapped[str]


        db = Database("sqlite:///:memory:")


        async def main() -> None:
            await db.create_tables()
            async with db.begin() as session:  # commits at the end
                session.add(Note(title="first"))
            async with db.begin() as session:
                assert await session.scalar(select(Note.title)) == "first"
            await db.dispose()


        asyncio.run(main())
        ```
    """

    def __init__(self, url: str | URL | AsyncEngine, *, options: DatabaseOptions | None = None) -> None:
        """Create the engine, or adopt one.

        Args:
            url: A database URL, or an engine of the application that has not connected yet.
            options: How to connect. The default is ``DatabaseOptions()``.

        Raises:
            ConfigurationError: The URL cannot be parsed, or says something that its driver cannot do. The text shows no value of it.
            MissingExtraError: The URL names PostgreSQL, and no driver for it is installed.
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
        """Create the database from DATABASE_URL, DB_POOL_SIZE, DB_MAX_OVERFLOW and DB_STATEMENT_TIMEOUT_SECONDS.

        Raises:
            ConfigurationError: As in ``Database(...)``.
        """
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
        """Marker for ``Annotated[AsyncSession, db.session]``: the one session of the request. Each write of a service commits itself."""
        return make_marker(self.get_session)

    @property
    def transaction(self) -> "SessionDepends":
        """Marker for ``Annotated[AsyncSession, db.transaction]``: the same session, with one transaction for the whole request.

        It commits after the handler has returned and before the response starts. Any exception rolls it back.
        """
        return make_marker(self._get_transaction)

    async def get_session(self) -> AsyncIterator[AsyncSession]:
        """Yield the session of a request. The plain dependency behind ``session``, for ``Depends`` and ``dependency_overrides``.

        Use ``Depends(db.get_session, scope="function")``: with that scope the session is closed, and its connection is back in the pool,
        before the response is sent. Closing rolls back an open transaction. A closed session cannot be used again.

        Raises:
            ConfigurationError: The request ends without an error, but leaves something written, added or marked as deleted that was
                neither committed nor rolled back.
        """
        async with self._open_session() as session:
            report_second_commit(session, reported=self._reported)
            yield session
            if has_uncommitted_writes(session.sync_session):
                raise ConfigurationError(
                    "the request added or wrote something that was not committed: use Annotated[AsyncSession, db.transaction], put the"
                    " writes into unit_of_work(session), or await session.commit(); to discard it, await session.rollback()"
                )

    @cached_property
    def _get_transaction(self) -> Callable[..., AsyncIterator[AsyncSession]]:
        async def get_transaction(session: Annotated[AsyncSession, self.session]) -> AsyncIterator[AsyncSession]:
            async with unit_of_work(session):
                yield session

        return get_transaction

    @asynccontextmanager
    async def begin(self) -> AsyncGenerator[AsyncSession]:
        """Open a new session in a transaction that commits at the end of the block. Any exception rolls it back.

        For scripts, tasks and streamed bodies: for everything that outlives the request.

        Raises:
            KitError: The COMMIT failed, for example ConflictError for a deferred constraint.
        """
        async with self._open_session() as session, unit_of_work(session):
            yield session

    async def create_tables(self, metadata: MetaData | None = None) -> None:
        """Create the tables that are missing, and commit. For development and tests. Processes do it one after the other.

        Args:
            metadata: The metadata of the tables. None: that of ``Base``.

        Raises:
            UnavailableError: The database does not answer.
        """
        bound = self._bound_connection
        with typed(None):
            async with nullcontext(bound) if bound is not None else self.engine.begin() as connection:
                await connection.run_sync(create_all, metadata or Base.metadata)

    async def ping(self) -> None:
        """Send ``SELECT 1``.

        Raises:
            UnavailableError: The database does not answer. Any other error, such as an unknown argument of the driver, is raised unchanged.
        """
        try:
            async with self.engine.connect() as connection:
                await connection.execute(text("SELECT 1"))
        except Exception as error:
            mapped = as_kit_error(error)
            if isinstance(mapped, UnavailableError):
                raise mapped from error
            raise

    async def dispose(self) -> None:
        """Close every connection in the pool, and empty a ``:memory:`` database. The next statement connects again.

        While a test uses ``fastapi_kit.testing.isolated``, it does nothing: the data must outlive the lifespan of the app under test.
        """
        if self._bound_connection is not None:
            return
        await self.engine.dispose()
        if self._file is not None:
            await asyncio.to_thread(self._file.empty)

    @asynccontextmanager
    async def lifespan(self, app: object) -> AsyncGenerator[None]:
        """Ping the database at the start and dispose the engine at the end. For applications that compose their own lifespan.

        If the database does not answer yet, a warning is logged and the application starts: requests get 503 until it does. Any other
        error, such as an unknown argument in the URL, is raised.
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
        """The connection that every session is bound to while a test uses ``isolated``."""
        bind: object = self.sessions.kw.get("bind")
        return bind if isinstance(bind, AsyncConnection) else None

    def _make_sessions(self) -> async_sessionmaker[AsyncSession]:
        # A session class of this database only, so that its events do not fire for other sessions.
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
    # The only import of FastAPI in the data layer: a script that uses a Database never loads it.
    from fastapi.params import Depends

    marker = Depends(dependency, scope="function")

    class Marker(Depends):
        # Depends(db.session) gives the same session in the same scope.
        async def __call__(self, session: Annotated[AsyncSession, marker]) -> AsyncSession:
            return session

    return cast("SessionDepends", Marker(dependency, scope="function"))


def create_all(connection: Connection, metadata: MetaData) -> None:
    if connection.dialect.name == "sqlite":
        begin_immediate(connection)
    elif connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _TABLES_LOCK})
    metadata.create_all(connection)
