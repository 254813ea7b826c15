"""The options of a ``Database``."""

from dataclasses import dataclass

__all__ = ["DatabaseOptions"]


@dataclass(frozen=True, kw_only=True)
class DatabaseOptions:
    """How to connect. Times are in seconds.

    Args:
        pool_size: Connections that the pool keeps open. Ignored where the pool has no size.
        max_overflow: Connections that the pool may open beyond *pool_size*. Ignored where the pool has no size.
        pool_timeout: How long to wait for a free connection, for a new connection, and on SQLite for another writer.
        ping_after_idle: A connection that was idle for longer is pinged before it is used. SQLite needs no ping.
        command_timeout: The client's limit for one statement (asyncpg). It ends the wait for a frozen server.
        statement_timeout: The server's limit for one statement (PostgreSQL). None: no limit.
        pgbouncer: A pooler in transaction mode is in front of PostgreSQL. No prepared statement is kept, and no setting is sent when a
            connection is opened.
        autocommit_reads: Read on PostgreSQL without a transaction where the application depends on none: one round trip instead of three.
    """

    pool_size: int = 10
    max_overflow: int = 20
    pool_timeout: float = 5.0
    ping_after_idle: float = 30.0
    command_timeout: float = 10.0
    statement_timeout: float | None = None
    pgbouncer: bool = False
    autocommit_reads: bool = True
