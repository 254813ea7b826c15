"""How to connect: the options of a ``Database``."""

from dataclasses import dataclass

__all__ = ["DatabaseOptions"]


@dataclass(frozen=True, kw_only=True)
class DatabaseOptions:
    """How to connect. Pool sizes apply only where the pool has a size; times are seconds.

    *pool_timeout* bounds the wait for a connection, and on SQLite the wait for another writer. A connection that was idle longer than
    *ping_after_idle* is tried before it is used. *command_timeout* is the client's bound on one statement and finds a frozen server
    (asyncpg); *statement_timeout* is the server's (PostgreSQL).

    *pgbouncer* says that a pooler in transaction mode stands before PostgreSQL: no prepared statement outlives its use, and no setting
    is sent at the login. *autocommit_reads=False* gives every read on PostgreSQL a transaction, for three round trips instead of one.
    """

    pool_size: int = 10
    max_overflow: int = 20
    pool_timeout: float = 5.0
    ping_after_idle: float = 30.0
    command_timeout: float = 10.0
    statement_timeout: float | None = None
    pgbouncer: bool = False
    autocommit_reads: bool = True
