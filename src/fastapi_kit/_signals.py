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
    """Call *notice* at the first SIGTERM within the block. Pass the signal on to the server's own handler *delay* seconds later.

    A second SIGTERM is passed on at once. Nothing changes outside the main thread, or if SIGTERM has no handler. A handler of asyncio's
    ``add_signal_handler`` is called by the event loop, without the delay.
    """
    handler = signal.getsignal(signal.SIGTERM) if current_thread() is main_thread() else None
    if not callable(handler):
        yield
        return
    notified = Notice(notice, handler, delay)
    signal.signal(signal.SIGTERM, notified)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGTERM) is notified:
            signal.signal(signal.SIGTERM, handler)


class Notice:
    """The handler for SIGTERM within the block."""

    def __init__(self, notice: Callable[[], None], handler: Callable[[int, FrameType | None], object], delay: float) -> None:
        self.notice = notice
        self.handler = handler
        self.delay = delay
        self.is_noticed = False
        self.loop = asyncio.get_running_loop()

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Handle the signal."""
        waits = self.delay and not self.is_noticed
        self.is_noticed = True
        self.notice()
        if waits:
            # Threadsafe, so that an event loop that waits in the kernel wakes up and sets the timer.
            self.loop.call_soon_threadsafe(self.loop.call_later, self.delay, self.handler, number, frame)
        else:
            self.handler(number, frame)
