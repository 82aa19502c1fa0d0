"""Being asked to stop: the first SIGINT, SIGTERM or SIGHUP is remembered, a second SIGINT is a KeyboardInterrupt.

Ray Tune handles SIGINT alone, and a SIGTERM of the driver left ranks behind (measured, orchestration.md 3.5).
"""

import contextlib
import signal
import threading
from collections.abc import Iterator

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupt:
    """`is_set` turns true when the process has been asked to stop."""

    is_set = False


@contextlib.contextmanager
def catch_interrupts() -> Iterator[Interrupt]:
    """Remember requests to stop for the length of a `with`. In a thread other than the main one nothing is caught."""
    interrupt = Interrupt()
    if threading.current_thread() is not threading.main_thread():
        yield interrupt
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}

    def remember(number: int, _: object) -> None:
        interrupt.is_set = True
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    for number in _SIGNALS:
        signal.signal(number, remember)
    try:
        yield interrupt
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
