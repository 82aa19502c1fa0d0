"""Being asked to stop. Ctrl-C drains: nothing new is started, what runs may finish. Ctrl-C again, or SIGTERM, or SIGHUP,
stops what runs; it goes on from its checkpoints later. A third Ctrl-C is a KeyboardInterrupt.

Ray Tune handles SIGINT alone, and a SIGTERM of the driver left ranks behind (measured, orchestration.md 3.5).
"""

import contextlib
import signal
import threading
from collections.abc import Iterator

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupt:
    """`is_draining`: asked to start nothing new. `is_set`: asked to stop what runs, too."""

    is_draining = False
    is_set = False

    def listen(self) -> None:
        """Take over the signals, unless a stop has been asked for already. Only the main thread can."""
        if threading.current_thread() is threading.main_thread() and not self.is_set:
            for number in _SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
                    signal.signal(number, self._remember)

    def _remember(self, number: int, _: object) -> None:
        self.is_set = self.is_draining or number != signal.SIGINT
        self.is_draining = True
        if self.is_set:
            signal.signal(signal.SIGINT, signal.default_int_handler)


@contextlib.contextmanager
def catch_interrupts() -> Iterator[Interrupt]:
    """Remember requests to stop for the length of a `with`. In a thread other than the main one nothing is caught."""
    interrupt = Interrupt()
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    interrupt.listen()
    try:
        yield interrupt
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)
