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
    """Call *notice* at the first SIGTERM within the block, and the server's own handler *delay* seconds later.

    A second SIGTERM is passed on at once. Nothing changes outside the main thread, or if SIGTERM has no handler. A handler that was
    added by asyncio's ``add_signal_handler`` is called by the event loop, without the delay.
    """
    handler = signal.getsignal(signal.SIGTERM) if current_thread() is main_thread() else None
    if not callable(handler):
        yield
        return
    interceptor = Interceptor(notice, handler, delay)
    signal.signal(signal.SIGTERM, interceptor)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGTERM) is interceptor:
            signal.signal(signal.SIGTERM, handler)


class Interceptor:
    """A signal handler in front of another one."""

    def __init__(self, notice: Callable[[], None], handler: Callable[[int, FrameType | None], object], delay: float) -> None:
        self.notice = notice
        self.handler = handler
        self.delay = delay
        self.was_called = False
        self.loop = asyncio.get_running_loop()

    def __call__(self, number: int, frame: FrameType | None) -> None:
        is_delayed = self.delay and not self.was_called
        self.was_called = True
        self.notice()
        if is_delayed:
            # Threadsafe, so that a loop that waits in the kernel wakes up and sets the timer.
            self.loop.call_soon_threadsafe(self.loop.call_later, self.delay, self.handler, number, frame)
        else:
            self.handler(number, frame)
