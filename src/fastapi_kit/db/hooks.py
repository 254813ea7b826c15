"""What belongs to a transaction of a session: calls that wait for its commit, and the mark that something was written in it.

SQLAlchemy's own events keep the record true, whoever commits or rolls back.
"""

import asyncio
import inspect
import logging
import re
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import ParamSpec

from sqlalchemy import TextClause, event
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import ORMExecuteState, Session, SessionTransaction
from sqlalchemy.util import await_only

from fastapi_kit.db.sessions import OWN

__all__ = [
    "OWN_LISTENERS",
    "drop_waiting_calls",
    "has_uncommitted_writes",
    "note_writes",
    "on_commit",
    "refusing_statements",
    "restore_calls",
    "save_calls",
]

P = ParamSpec("P")

_RECORD = "fastapi_kit.on_commit"
_REFUSES = "fastapi_kit.refuses"
_WRITES = re.compile(
    r"\s*(INSERT|UPDATE|DELETE|MERGE|REPLACE|TRUNCATE|CREATE|ALTER|DROP|COPY|CALL|WITH\b.*\b(INSERT|UPDATE|DELETE))\b", re.I | re.S
)
_log = logging.getLogger("fastapi_kit.db")


def on_commit(session: AsyncSession, fn: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
    """Call *fn*, sync or async, once, directly after the outermost COMMIT of *session*'s transaction and before the response.

    The call belongs to the transaction or savepoint that is open now, and is dropped if that is rolled back, and by nothing else. Where
    none is open it belongs to the next one that commits or rolls back, such as that of a service's write. Calls run in the order of
    registration and get no session. One that fails, times out or is cancelled is logged, and neither stops the others nor undoes anything.
    A crash between the commit and the call loses it.
    """
    _record_of(session.sync_session).entries.append(_Entry(_innermost(session.sync_session), partial(fn, *args, **kwargs)))


def note_writes(sessions: type[Session]) -> None:
    """From now on record what the sessions of this class write, so that ``has_uncommitted_writes`` can tell."""
    event.listen(sessions, "after_flush", _note_flush)
    event.listen(sessions, "do_orm_execute", _note_statement)
    event.listen(sessions, "after_commit", _note_commit)
    event.listen(sessions, "after_transaction_end", _settle)


def has_uncommitted_writes(session: Session) -> bool:
    """Return whether something was written in the open transaction that its end would lose."""
    record: _Record | None = session.info.get(_RECORD)
    return record is not None and any(entry.fn is None for entry in record.entries)


def drop_waiting_calls(session: Session) -> None:
    """Drop the calls that wait for the next transaction: the write they waited for was refused before it began one."""
    record: _Record | None = session.info.get(_RECORD)
    if record is not None and not session.in_transaction():
        record.entries.clear()


def save_calls(session: Session) -> Sequence["_Entry"]:
    """Return the calls that wait, for ``restore_calls`` after a transaction that they must outlive."""
    record: _Record | None = session.info.get(_RECORD)
    return [replace(entry) for entry in record.entries] if record is not None else ()


def restore_calls(session: Session, saved: Sequence["_Entry"]) -> None:
    """Let the *saved* calls wait again; those of the transaction that ended belong to the one that is open now."""
    if saved:
        for entry in saved:
            entry.transaction = None if entry.transaction is None else session.get_transaction()
        _record_of(session).entries = list(saved)


@dataclass(eq=False)
class _Entry:
    transaction: SessionTransaction | None
    """Where it belongs; None: the next transaction that ends."""
    fn: Callable[[], object] | None = None
    """None: something was written."""


@dataclass
class _Record:
    entries: list[_Entry] = field(default_factory=list[_Entry])
    committed: SessionTransaction | None = None


def _record_of(session: Session) -> _Record:
    record: _Record | None = session.info.get(_RECORD)
    if record is None:
        record = session.info[_RECORD] = _Record()
        if session.info.get(OWN) is not type(session):
            event.listen(session, "after_commit", _note_commit)
            event.listen(session, "after_transaction_end", _settle)
    return record


@contextmanager
def refusing_statements(session: Session) -> Generator[None]:
    """Refuse every statement of *session* in the block, lazy loads included, by InvalidRequestError."""
    # It costs little where the session's class listens already, and a millisecond where this session must.
    listens = session.info.get(OWN) is type(session)
    session.info[_REFUSES] = True
    if not listens:
        event.listen(session, "do_orm_execute", _note_statement, insert=True)
    try:
        yield
    finally:
        del session.info[_REFUSES]
        if not listens:
            event.remove(session, "do_orm_execute", _note_statement)


def _note_flush(session: Session, _context: object) -> None:
    _note_write(session)


def _note_statement(state: ORMExecuteState) -> None:
    if state.session.info.get(_REFUSES):
        raise InvalidRequestError("a response is built from what is loaded")
    statement = state.statement
    if not state.is_select and not (isinstance(statement, TextClause) and not _WRITES.match(statement.text)):
        _note_write(state.session)


OWN_LISTENERS: frozenset[object] = frozenset({_note_flush, _note_statement})
"""The only listeners of a session that are the library's."""


def _note_write(session: Session) -> None:
    transaction, record = _innermost(session), _record_of(session)
    if not any(entry.fn is None and entry.transaction is transaction for entry in record.entries):
        record.entries.append(_Entry(transaction))


def _note_commit(session: Session) -> None:
    # The event fires on RELEASE too; only the transaction that ends next has committed.
    record: _Record | None = session.info.get(_RECORD)
    if record is not None:
        record.committed = _innermost(session)


def _settle(session: Session, ended: SessionTransaction) -> None:
    record: _Record | None = session.info.get(_RECORD)
    if record is None:
        return
    committed = record.committed is ended
    if ended.nested:
        if committed:
            for entry in record.entries:
                entry.transaction = ended.parent if entry.transaction is ended else entry.transaction
        else:
            record.entries = [entry for entry in record.entries if entry.transaction is not ended]
    elif ended.parent is None:
        entries, record.entries = record.entries, []
        if committed:
            _run([entry.fn for entry in entries if entry.fn is not None])


def _run(calls: Sequence[Callable[[], object]]) -> None:
    cancelled: asyncio.CancelledError | None = None
    for call in calls:
        try:
            result = call()
            if inspect.isawaitable(result):
                await_only(result)
        except asyncio.CancelledError as error:
            _log.warning("on_commit: a call was cancelled after the commit; the others go on")
            cancelled = error
        except Exception:
            _log.exception("on_commit: a call failed after the commit; the others go on")
    if cancelled is not None:
        raise cancelled


def _innermost(session: Session) -> SessionTransaction | None:
    return session.get_nested_transaction() or session.get_transaction()
