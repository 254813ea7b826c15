"""What the library notes about the transactions of a session: calls that wait for the commit, and whether something was written.

Listeners of SQLAlchemy's events keep the notes, so they are right whoever commits or rolls back.
"""

import asyncio
import inspect
import logging
import re
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal, ParamSpec
from weakref import WeakKeyDictionary, ref

from anyio import CancelScope
from sqlalchemy import Connection, Engine, event
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session, SessionTransaction
from sqlalchemy.util import await_only

__all__ = [
    "OWN",
    "OWN_LISTENERS",
    "close_reading",
    "dropping_calls",
    "has_uncommitted_writes",
    "note_writes",
    "on_commit",
    "on_rollback",
    "restore_calls",
    "save_calls",
]

P = ParamSpec("P")

OWN = "fastapi_kit.own"
"""Key in ``session.info`` of the session class that a ``Database`` made."""
_RECORD = "fastapi_kit.on_commit"
_STATEMENT = re.compile(
    r"(?:\s|--[^\n]*\n|/\*.*?\*/|\()*"
    r"(?:(INSERT|UPDATE|DELETE|MERGE|REPLACE|TRUNCATE|CREATE|ALTER|DROP|COPY|CALL|DO|REFRESH|GRANT|REVOKE|COMMENT|NOTIFY)|(WITH))\b",
    re.IGNORECASE | re.DOTALL,
)
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"|--[^\n]*|/\*.*?\*/|(\$\w*\$).*?\1", re.DOTALL)
_WRITE_IN_WITH = re.compile(r"\b(?:INSERT\s+INTO|REPLACE\s+INTO|MERGE\s+INTO|DELETE\s+FROM|(?<!FOR\s)(?<!KEY\s)UPDATE)\b", re.IGNORECASE)
_SESSIONS = WeakKeyDictionary[Connection, "ref[Session]"]()
"""Connection -> the session that has begun a transaction on it."""
_log = logging.getLogger("fastapi_kit.db")


def on_commit(session: AsyncSession, fn: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
    """Call *fn*, sync or async, once, directly after the outermost COMMIT of *session*'s transaction and before the response.

    The call belongs to the transaction or savepoint that is open now, and is dropped only if that is rolled back. Without an open one it
    belongs to the next transaction that ends, such as that of a service's write. Calls run in the order of registration. A call that
    fails, times out or is cancelled is logged: the others still run, and nothing is undone. A crash between the COMMIT and the call
    loses the call.

    Args:
        session: The session whose COMMIT to wait for.
        fn: The function to call. It gets no session.
        args: Its positional arguments.
        kwargs: Its keyword arguments.
    """
    record_of(session.sync_session).entries.append(Entry(innermost(session.sync_session), partial(fn, *args, **kwargs)))


def on_rollback(session: AsyncSession, fn: Callable[[], object]) -> None:
    """Call *fn*, sync or async, if the transaction or savepoint of *session* that is open now is rolled back, and directly after that.

    A COMMIT that fails counts as a rollback. An error of *fn* is logged. A crash loses the call.
    """
    record_of(session.sync_session).entries.append(Entry(innermost(session.sync_session), undo=fn))


def note_writes(sessions: type[Session], engine: Engine) -> None:
    """From now on note what sessions of the class *sessions* write to *engine*, for ``has_uncommitted_writes``."""
    event.listen(sessions, "after_begin", note_begin)
    event.listen(engine, "after_cursor_execute", note_statement)
    event.listen(sessions, "after_commit", note_commit)
    event.listen(sessions, "after_transaction_end", settle)


def has_uncommitted_writes(session: Session) -> bool:
    """Return whether the open transaction has written something, or *session* has objects to insert or delete, that would be lost."""
    record: Record | None = session.info.get(_RECORD)
    has_written = record is not None and any(entry.is_write for entry in record.entries)
    return has_written or bool(session.new or session.deleted)


@contextmanager
def dropping_calls(session: AsyncSession) -> Generator[None]:
    """Drop the calls that wait for the next transaction if the block, which prepares a write, raises."""
    try:
        yield
    except Exception:
        record: Record | None = session.sync_session.info.get(_RECORD)
        if record is not None and not session.sync_session.in_transaction():
            record.entries.clear()
        raise


def save_calls(session: Session) -> Sequence["Entry"]:
    """Return the waiting calls, for ``restore_calls`` after a transaction that they must outlive."""
    record: Record | None = session.info.get(_RECORD)
    # A call of on_rollback is made when the transaction ends, and does not outlive it.
    return [replace(entry) for entry in record.entries if entry.undo is None] if record is not None else ()


def restore_calls(session: Session, saved: Sequence["Entry"]) -> None:
    """Let the *saved* calls wait again. Those of the transaction that ended now belong to the open one."""
    if saved:
        for entry in saved:
            entry.transaction = None if entry.transaction is None else session.get_transaction()
        record_of(session).entries = list(saved)


def close_reading(session: Session) -> None:
    """End a transaction in which *session* only read. It is closed without a commit or rollback: calls still wait, nothing expires."""
    transaction = session.get_transaction()
    if transaction is not None:
        record = session.info.pop(_RECORD, None)
        transaction.close()
        if record is not None:
            session.info[_RECORD] = record


@dataclass(eq=False)
class Entry:
    transaction: SessionTransaction | None
    """The transaction that it belongs to. None: the next one that ends."""
    fn: Callable[[], object] | None = None
    """The call after the commit."""
    undo: Callable[[], object] | None = None
    """The call after a rollback."""

    @property
    def is_write(self) -> bool:
        """Whether the entry has no call, and notes that something was written."""
        return self.fn is None and self.undo is None


@dataclass
class Record:
    entries: list[Entry] = field(default_factory=list[Entry])
    committed: SessionTransaction | None = None


def record_of(session: Session) -> Record:
    record: Record | None = session.info.get(_RECORD)
    if record is None:
        record = session.info[_RECORD] = Record()
        if session.info.get(OWN) is not type(session):
            event.listen(session, "after_commit", note_commit)
            event.listen(session, "after_transaction_end", settle)
    return record


def note_begin(session: Session, _transaction: SessionTransaction, connection: Connection) -> None:
    _SESSIONS[connection] = ref(session)


OWN_LISTENERS: frozenset[object] = frozenset({note_begin})
"""The library's listeners of ``after_begin``. They send nothing."""


def note_statement(connection: Connection, _cursor: object, statement: str, *_: object) -> None:
    # A listener of after_cursor_execute, because a statement that fails has written nothing.
    found = _STATEMENT.match(statement)
    if found is None or (found[1] is None and not _WRITE_IN_WITH.search(_QUOTED.sub("", statement))):
        return
    owner = _SESSIONS.get(connection)
    session = owner() if owner is not None else None
    if session is None or not session.in_transaction():
        return
    transaction, record = innermost(session), record_of(session)
    if not any(entry.is_write and entry.transaction is transaction for entry in record.entries):
        record.entries.append(Entry(transaction))


def note_commit(session: Session) -> None:
    # The event fires for savepoints too: what has committed is the innermost transaction.
    record: Record | None = session.info.get(_RECORD)
    if record is not None:
        record.committed = innermost(session)


def settle(session: Session, ended: SessionTransaction) -> None:
    record: Record | None = session.info.get(_RECORD)
    if record is None:
        return
    committed = record.committed is ended
    if ended.nested:
        if committed:
            for entry in record.entries:
                entry.transaction = ended.parent if entry.transaction is ended else entry.transaction
        else:
            undone = [entry for entry in record.entries if entry.transaction is ended]
            record.entries = [entry for entry in record.entries if entry.transaction is not ended]
            run([entry.undo for entry in undone if entry.undo is not None], after="rollback")
    elif ended.parent is None:
        entries, record.entries = record.entries, []
        if committed:
            run([entry.fn for entry in entries if entry.fn is not None], after="commit")
        else:
            run([entry.undo for entry in entries if entry.undo is not None], after="rollback")


def run(calls: Sequence[Callable[[], object]], *, after: Literal["commit", "rollback"]) -> None:
    cancelled: asyncio.CancelledError | None = None
    for call in calls:
        try:
            result = call()
            if inspect.isawaitable(result):
                await_only(wait_for(result, shield=cancelled is not None))
        except asyncio.CancelledError as error:
            _log.warning("on_%s: a call was cancelled after the %s; the others still run", after, after)
            cancelled = error
        except Exception:
            _log.exception("on_%s: a call failed after the %s; the others still run", after, after)
    if cancelled is not None:
        raise cancelled


async def wait_for(result: Awaitable[object], *, shield: bool) -> None:
    # A cancelled scope of anyio would cancel all following calls too.
    with CancelScope(shield=shield):
        await result


def innermost(session: Session) -> SessionTransaction | None:
    return session.get_nested_transaction() or session.get_transaction()
