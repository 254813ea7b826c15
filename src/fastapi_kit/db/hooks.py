"""What runs after a commit: a queue per session, kept true by SQLAlchemy's own transaction events."""

import inspect
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ParamSpec

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session, SessionTransaction
from sqlalchemy.util import await_only

__all__ = ["drop_hooks", "on_commit"]

P = ParamSpec("P")

_KEY = "fastapi_kit.on_commit"
_log = logging.getLogger("fastapi_kit.db")


def on_commit(session: AsyncSession, fn: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
    """Call *fn* after the next commit of *session*'s transaction, a service's own commit included.

    It runs once, in the order of registration, directly after the outermost COMMIT and before the response; sync or async.
    It is dropped when its savepoint or transaction rolls back, or when the write it was queued for is refused. It gets no session; its
    errors are logged and stop nothing. A crash between the commit and the call loses it.
    """
    queue = session.info.get(_KEY)
    if queue is None:
        queue = session.info[_KEY] = _Queue(session.sync_session)
    queue.add(partial(fn, *args, **kwargs))


def drop_hooks(session: AsyncSession) -> None:
    """Forget everything that was queued on *session*."""
    queue = session.info.get(_KEY)
    if queue is not None:
        queue.calls.clear()


@dataclass
class _Call:
    fn: Callable[[], object]
    transaction: SessionTransaction | None
    """The innermost transaction at registration; None: the next one that commits."""


class _Queue:
    def __init__(self, session: Session) -> None:
        self.session = session
        self.calls: list[_Call] = []
        self.committed: SessionTransaction | None = None
        event.listen(session, "after_commit", self.note_commit)
        event.listen(session, "after_transaction_end", self.settle)

    def add(self, fn: Callable[[], object]) -> None:
        self.calls.append(_Call(fn, _innermost(self.session)))

    def note_commit(self, session: Session) -> None:
        # The event fires on RELEASE too; only the transaction that ends next has committed.
        self.committed = _innermost(session)

    def settle(self, _session: Session, transaction: SessionTransaction) -> None:
        committed = self.committed is transaction
        if transaction.nested:
            self.leave_savepoint(transaction, committed=committed)
        elif transaction.parent is None:
            self.leave_transaction(transaction, committed=committed)

    def leave_savepoint(self, savepoint: SessionTransaction, *, committed: bool) -> None:
        if committed:
            for call in self.calls:
                if call.transaction is savepoint:
                    call.transaction = savepoint.parent
        else:
            self.calls = [call for call in self.calls if call.transaction is not savepoint]

    def leave_transaction(self, transaction: SessionTransaction, *, committed: bool) -> None:
        if not committed:
            self.calls = [call for call in self.calls if call.transaction is not transaction]
            return
        calls, self.calls = self.calls, []
        for call in calls:
            _run(call.fn)


def _run(fn: Callable[[], object]) -> None:
    try:
        result = fn()
        if inspect.isawaitable(result):
            await_only(result)
    except Exception:
        _log.exception("on_commit: a call failed after the commit; the others go on")


def _innermost(session: Session) -> SessionTransaction | None:
    return session.get_nested_transaction() or session.get_transaction()
