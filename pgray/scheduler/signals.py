"""Turns signals into requests to stop a sweep.

The first Ctrl-C drains: nothing new starts, running jobs may finish. A second one, SIGTERM or SIGHUP stops the running jobs;
the next run resumes them from their checkpoints. A third Ctrl-C raises KeyboardInterrupt. Ray Tune itself handles SIGINT
alone, and after a SIGTERM of the driver it leaves ranks behind.
"""

import contextlib
import signal
import threading
from collections.abc import Iterator

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupt:
    """`is_draining`: start nothing new. `is_stopping`: stop what runs, too."""

    is_draining = False
    is_stopping = False

    def listen(self) -> None:
        """Handle the signals from now on, unless a stop was requested already. Only the main thread can."""
        if threading.current_thread() is threading.main_thread() and not self.is_stopping:
            for number in _SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:  # ignored under nohup
                    signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, _: object) -> None:
        self.is_stopping = self.is_draining or number != signal.SIGINT
        self.is_draining = True
        if self.is_stopping:
            signal.signal(signal.SIGINT, signal.default_int_handler)


@contextlib.contextmanager
def catch_interrupts() -> Iterator[Interrupt]:
    """Record requests to stop inside a `with` block. Outside the main thread nothing is caught."""
    interrupt = Interrupt()
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    interrupt.listen()
    try:
        yield interrupt
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)
