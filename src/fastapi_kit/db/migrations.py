"""Alembic: the call that makes an ``env.py``. Needs the extra ``migrations``."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from copy import copy
from logging.config import fileConfig
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import Connection, MetaData, event
from sqlalchemy.ext.asyncio import AsyncEngine

from fastapi_kit.db.database import Database, lock_tables
from fastapi_kit.db.engines.postgres import WITHOUT_LIMITS
from fastapi_kit.errors import ConfigurationError

if TYPE_CHECKING:
    from alembic.autogenerate.api import AutogenContext
    from alembic.operations.ops import MigrationScript, UpgradeOps

__all__ = ["render_item", "run_migrations"]

_log = logging.getLogger("fastapi_kit.db")


def run_migrations(database: Database, metadata: MetaData | Sequence[MetaData], **options: Any) -> None:
    """Do what the ``alembic`` command asks for, on *database*. This call is a whole ``env.py``.

    It uses the engine of *database* with connections of its own, on which a statement may take as long as it needs. A migration is one
    transaction, on SQLite too, and processes that migrate together wait for each other. On SQLite tables are rebuilt where ``ALTER TABLE``
    cannot do it, without touching the rows that refer to them.

    Args:
        database: The application's.
        metadata: What the tables should be: ``Base.metadata``, with every model imported.
        options: Passed to Alembic's ``context.configure``. They override what this function sets.

    Raises:
        ConfigurationError: An event loop is running in this thread; or, on SQLite, rows refer to rows that a migration removed.
    """
    # Alembic is here only where it runs: nothing else of the library needs it.
    from alembic import context

    dialect = database.engine.dialect.name
    configuration: dict[str, Any] = {"target_metadata": metadata, "render_item": render_item}
    if dialect == "sqlite":
        configuration |= {"render_as_batch": True, "transactional_ddl": True, "process_revision_directives": warn_of_differences}
    configuration |= options

    def migrate(connection: Connection) -> None:
        context.configure(connection=connection, **configuration)
        with context.begin_transaction():
            lock_tables(connection)
            before = broken_references(connection)
            context.run_migrations()
            if broken := broken_references(connection) - before:
                raise ConfigurationError(
                    f"after the migration, rows refer to rows that do not exist: (table, row, referred table) {broken}"
                )

    log_as_configured()
    if not context.is_offline_mode():
        run_in_a_loop(database.engine, migrate)
        return
    context.configure(dialect_name=dialect, literal_binds=True, dialect_opts={"paramstyle": "named"}, **configuration)
    with context.begin_transaction():
        context.run_migrations()


def render_item(kind: str, item: Any, context: "AutogenContext") -> Literal[False]:
    """Import the module of a column type that is not SQLAlchemy's into the new migration. For Alembic's option of this name."""
    module: str = getattr(item, "__module__", "sa")
    if kind == "type" and module != "sa" and not module.startswith("sqlalchemy."):
        context.imports.add(f"import {module}")
    return False


def log_as_configured() -> None:
    """Configure logging by ``alembic.ini`` when ``alembic`` was called as a command, and switch no logger off."""
    from alembic import context

    config = context.config
    if config.cmd_opts is not None and config.config_file_name is not None and config.file_config.has_section("loggers"):
        fileConfig(config.config_file_name, disable_existing_loggers=False)


def run_in_a_loop(engine: AsyncEngine, migrate: Callable[[Connection], None]) -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        asyncio.run(run_apart(engine, migrate))
    else:
        raise ConfigurationError("an event loop is running in this thread: await asyncio.to_thread(command.upgrade, config, 'head')")


async def run_apart(engine: AsyncEngine, migrate: Callable[[Connection], None]) -> None:
    """Call *migrate* with a connection of *engine* that its pool never gets: the pool may belong to the event loop of another thread."""
    WITHOUT_LIMITS.set(True)
    apart = copy(engine.sync_engine)
    apart.pool = apart.pool.recreate()
    if engine.dialect.name == "sqlite":
        event.listen(apart.pool, "connect", ignore_foreign_keys)
    own = AsyncEngine(apart)
    try:
        async with own.connect() as connection:
            await connection.run_sync(migrate)
    finally:
        await own.dispose()


def ignore_foreign_keys(connection: Any, _record: object) -> None:
    # To rebuild a table is to drop it, and that would delete the rows that refer to it with ON DELETE CASCADE.
    cursor = connection.cursor()
    cursor.execute("PRAGMA foreign_keys=OFF")
    cursor.close()


def broken_references(connection: Connection) -> set[tuple[str, int, str]]:
    """Return table, row and referred table of each reference to a missing row. Only SQLite can have one."""
    if connection.dialect.name != "sqlite":
        return set()
    return {(row[0], row[1], row[2]) for row in connection.exec_driver_sql("PRAGMA foreign_key_check")}


def warn_of_differences(_context: object, _revision: object, directives: "list[MigrationScript]") -> None:
    """Log each line of a migration generated on SQLite that would be another line on PostgreSQL."""
    for operations in (each for directive in directives for each in directive.upgrade_ops_list):
        for here, there in zip(lines_of(operations, "sqlite"), lines_of(operations, "postgresql"), strict=False):
            if here != there:
                _log.warning("A line of this migration is for SQLite alone: %s On PostgreSQL it would be: %s", here, there)


def lines_of(operations: "UpgradeOps", dialect: str) -> list[str]:
    from alembic.autogenerate import render_python_code
    from alembic.runtime.migration import MigrationContext

    code = render_python_code(operations, render_as_batch=True, migration_context=MigrationContext.configure(dialect_name=dialect))
    # Both databases know both spellings.
    return [line.strip().replace("(CURRENT_TIMESTAMP)", "now()") for line in code.splitlines()]
