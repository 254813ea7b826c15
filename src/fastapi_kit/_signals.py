"""Intercept SIGTERM before the server's handler."""

import asyncio
import signal
from collections.abc import Callable, Generator
from contextlib import contextmanager
from threading import current_thread, main_thread
from types import FrameType

__all__ = ["noticed_termination"]


@contextmanager
def noticed_termination(notice: Callable[[], None], *, delay: float) -> Generator[None]:
    """Call *notice* at the first SIGTERM within the block, and pass it on to the server's own handler *delay* seconds later.

    A second SIGTERM is passed on at once. Where nobody handles SIGTERM, and outside the main thread, nothing is changed.
    A handler of asyncio's ``add_signal_handler`` is called by the event loop, without the delay.
    """
    handler = signal.getsignal(signal.SIGTERM) if current_thread() is main_thread() else None
    if not callable(handler):
        yield
        return
    notified = _Notice(notice, handler, delay)
    signal.signal(signal.SIGTERM, notified)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGTERM) is notified:
            signal.signal(signal.SIGTERM, handler)


class _Notice:
    def __init__(self, notice: Callable[[], None], handler: Callable[[int, FrameType | None], object], delay: float) -> None:
        self._notice = notice
        self._handler = handler
        self._delay = delay
        self._noticed = False
        self._loop = asyncio.get_running_loop()

    def __call__(self, number: int, frame: FrameType | None) -> None:
        waits = self._delay and not self._noticed
        self._noticed = True
        self._notice()
        if waits:
            # Threadsafe, so that a loop that sleeps in the kernel wakes up and sets the timer.
            self._loop.call_soon_threadsafe(self._loop.call_later, self._delay, self._handler, number, frame)
        else:
            self._handler(number, frame)
