"""The training clock, which measures the challenge's 600 seconds.

It runs from the first optimizer step to the end of averaging, except during compilation, warm-up, validation and checks.
All ranks use rank 0's reading, so they make the same decisions at the same step.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from trainer.run.dist import DistContext


class TrainingClock:
    def __init__(self, dist: DistContext, elapsed_s: float = 0.0) -> None:
        self._dist = dist
        self._stopped_s = elapsed_s
        self._started: float | None = None
        self._pending: list[torch.cuda.Event] = []

    def start(self) -> None:
        self._synchronize()
        self._started = time.perf_counter()

    def stop(self) -> float:
        """Wait for the device, stop, and return this rank's elapsed seconds."""
        self._synchronize()
        if self._started is not None:
            self._stopped_s += time.perf_counter() - self._started
            self._started = None
        return self._stopped_s

    def agreed_s(self) -> float:
        """Return rank 0's elapsed seconds, on every rank.

        On CUDA it first waits for the end of the step before last: the host runs at most one step ahead of the device,
        so the reading is right to one step, and the device never waits.
        """
        if self._dist.device.type == "cuda":
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record()
            self._pending.append(event)
            if len(self._pending) > 1:
                self._pending.pop(0).synchronize()
        running = time.perf_counter() - self._started if self._started is not None else 0.0
        return self._dist.agree(self._stopped_s + running)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stop the clock inside the block. Device work that began before it still counts."""
        self.stop()
        try:
            yield
        finally:
            self.start()

    def _synchronize(self) -> None:
        if self._dist.device.type == "cuda":
            torch.cuda.synchronize(self._dist.device)
        self._pending.clear()
