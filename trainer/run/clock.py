"""The training clock: what the challenge's 600 seconds count.

Runs from the first optimizer step to the end of averaging; compile, warm-up, validation and checks are off the clock.
Rank 0's reading is everyone's, so that all ranks take the same decisions at the same step.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from trainer.run.dist import DistContext


class TrainingClock:
    def __init__(self, dist: DistContext, elapsed_s: float = 0.0) -> None:
        self._dist = dist
        self._banked_s = elapsed_s
        self._started: float | None = None
        self._pending: list[torch.cuda.Event] = []

    def start(self) -> None:
        self._settle()
        self._started = time.perf_counter()

    def stop(self) -> float:
        """Stop and return this rank's elapsed seconds, with all device work done."""
        self._settle()
        if self._started is not None:
            self._banked_s += time.perf_counter() - self._started
            self._started = None
        return self._banked_s

    def agreed_s(self) -> float:
        """Rank 0's elapsed seconds, on every rank.

        On CUDA the host may run one step ahead of the device, no more: it waits for the end of the step before last,
        so the reading is true to a step and the device is never left idle.
        """
        if self._dist.device.type == "cuda":
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record()
            self._pending.append(event)
            if len(self._pending) > 1:
                self._pending.pop(0).synchronize()
        running = time.perf_counter() - self._started if self._started is not None else 0.0
        return self._dist.agree(self._banked_s + running)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Off the clock: device work before it counts, device work within it does not."""
        self.stop()
        try:
            yield
        finally:
            self.start()

    def _settle(self) -> None:
        if self._dist.device.type == "cuda":
            torch.cuda.synchronize(self._dist.device)
        self._pending.clear()
