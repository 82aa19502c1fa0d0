"""The training loop: from initial weights to the trained float weights and their averages.

All ranks use rank 0's clock reading of each step, so they agree on the learning rate, the gates and the end. A gate changes
the weights that the compiled graph gets, never the graph.
"""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.averaging.base import Average, build_average
from trainer.config import Config
from trainer.data.stream import Batch, TokenStream
from trainer.errors import DeadTechniqueError, DivergedError
from trainer.evaluation.diagnostics import QatCheck, check_qat
from trainer.evaluation.scoring import CompiledModel, Validation
from trainer.model.model import Model
from trainer.optim.optimizer import Optimizer
from trainer.optim.schedule import TrainProgress, is_open, train_progress
from trainer.optim.weights import NO_GATES, Gates, Weights
from trainer.records.events import EventLog
from trainer.run.checkpoint import Checkpoint, TrainState
from trainer.run.clock import TrainingClock
from trainer.run.dist import DistContext


@dataclass(frozen=True)
class Trained:
    """The outcome of a training run. `weights`: average key -> parameter name -> float32, on the device."""

    averages: list[Average]
    weights: dict[str, dict[str, Tensor]]
    steps: int
    train_s: float
    final_loss_nats: float | None
    qat_on_step: int | None
    qat: QatCheck | None
    recurrence_on_step: int | None = None


class TrainingRun:
    """The state of one training run, and the loop that advances it."""

    def __init__(
        self, config: Config, model: Model, forward: CompiledModel, wanted: Mapping[str, Config], stream: TokenStream,
        dist: DistContext, events: EventLog, validation: Validation, checkpoint: Checkpoint,
    ) -> None:  # fmt: skip
        self.config, self.forward, self.stream, self.dist = config, forward, stream, dist
        self.events, self.validation, self.checkpoint = events, validation, checkpoint
        self.weights = Weights(model, config, dist)
        self.optimizer = Optimizer(self.weights.master, config, dist)
        self.averages = [build_average(c, self.weights.master) for c in wanted.values()]
        self.step = 0
        self.qat_on_step: int | None = None
        self.qat: QatCheck | None = None
        self.recurrence_on_step: int | None = None
        self.loss_nats: float | None = None

    def run(self) -> Trained:
        """Warm up, then step until the training clock or the steps run out.

        Raises:
            DivergedError: the loss is not finite.
            DeadTechniqueError: QAT is switched on and measured to have no effect.
        """
        self._warm_up()
        clock = self._resume()
        last_checkpoint = time.monotonic()
        loss, gates = None, NO_GATES  # a resumed run may have no step left
        clock.start()
        while (now := train_progress(self.config, self.step, clock.agreed_s())).progress < 1:
            batch = self.stream.batch(self.step)
            self.forward.is_looped = self._is_looped(now)
            is_qat = self._is_qat(now)
            gates = self.weights.gates(now, is_qat)
            if is_qat and (self.qat is None or not self.qat.is_final):
                with clock.paused():
                    self._switch_qat_on(now, batch)
            self.weights.write(gates)
            loss = self._forward_backward(batch)
            self.optimizer.step(self.weights.compute, now)
            self.step += 1
            after = train_progress(self.config, self.step, now.elapsed_s)
            for average in self.averages:
                average.update(self.weights.master, after, is_qat)
            if self.step % self.config.train.log_every == 0:
                self._log_step(now, gates, loss)
            if self.config.train.val_every and self.step % self.config.train.val_every == 0:
                with clock.paused():
                    self._validate(now)
            if self._is_checkpoint_due(last_checkpoint):
                with clock.paused():
                    self._save(clock)
                last_checkpoint = time.monotonic()
        if loss is not None and self.step % self.config.train.log_every:
            self._log_step(now, gates, loss)
        self._check_finite()
        averaged = {average.key: average.weights(self.weights.master) for average in self.averages}
        train_s = self.dist.agree(clock.stop())
        return Trained(
            self.averages, averaged, self.step, train_s, self.loss_nats, self.qat_on_step, self._final_qat_check(),
            self.recurrence_on_step,
        )  # fmt: skip

    def _is_qat(self, now: TrainProgress) -> bool:
        """Return whether QAT is on. Its gate never closes again."""
        qat = self.config.qat
        return qat.enabled and (self.qat_on_step is not None or is_open(qat.start, now))

    def _is_looped(self, now: TrainProgress) -> bool:
        """Return whether partial recurrence runs its second pass. Its gate never closes again. Other kinds return True."""
        recurrence = self.config.recurrence
        if recurrence.kind != "partial":
            return True
        if self.recurrence_on_step is None and is_open(recurrence.start, now):
            self.recurrence_on_step = self.step
            self.events.write("gate", gate="recurrence", step=self.step, train_s=now.elapsed_s, lr_scale=now.lr_scale)
        return self.recurrence_on_step is not None

    def _forward_backward(self, batch: Batch) -> Tensor:
        """Set the compute weights' gradients of the mean loss over this rank's tokens. Return that loss, detached."""
        for p in self.weights.compute.values():
            p.grad = None
        micro_batches = batch.tokens_MBT.size(0)
        total = torch.zeros((), device=self.dist.device)
        for tokens, targets in zip(batch.tokens_MBT, batch.targets_MBT, strict=True):
            loss = self.forward(tokens, targets).mean() / micro_batches
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        return total

    def _warm_up(self) -> None:
        """Run a few steps before the clock starts, for compilation and caches, and undo them."""
        is_partial = self.config.recurrence.kind == "partial"
        graphs = (2 if is_partial else 1) if self.forward.is_compiled else 0  # to compile before the clock starts
        steps = max(self.config.train.warmup_steps, graphs)
        if not steps:
            return
        initial = self.weights.snapshot()
        now = TrainProgress(0, 0.0, 0.0, 1.0)
        for step in range(steps):
            self.forward.is_looped = step % 2 == 1 or not is_partial  # compile both graphs
            batch = self.stream.batch(step)
            self.weights.write(NO_GATES)
            self._forward_backward(batch)
            self.optimizer.step(self.weights.compute, now)
        self.weights.load(initial)
        self.optimizer.reset()

    def _resume(self) -> TrainingClock:
        state = self.checkpoint.load(self.weights, self.optimizer, self.averages)
        if state is None:
            if self.checkpoint.problem:
                self.events.write("fresh_start", reason=f"the checkpoint is not used: {self.checkpoint.problem}")
            return TrainingClock(self.dist)
        self.step, self.qat_on_step = state.step, state.qat_on_step
        self.qat, self.recurrence_on_step = state.qat, state.recurrence_on_step
        self.events.write("resumed", step=state.step, train_s=state.elapsed_s)
        return TrainingClock(self.dist, state.elapsed_s)

    def _switch_qat_on(self, now: TrainProgress, batch: Batch) -> None:
        self.qat_on_step = self.step if self.qat_on_step is None else self.qat_on_step
        is_start = self.step < 3
        tokens, targets = batch.tokens_MBT[0], batch.targets_MBT[0]
        self.qat = check_qat(self.weights, self.config, self.forward, tokens, targets, is_start)
        is_live = self.dist.all_true(self.qat.is_live)
        self.events.write(
            "gate", gate="qat", step=self.step, train_s=now.elapsed_s, lr_scale=now.lr_scale, is_live=is_live,
            coverage=self.qat.coverage, note=self.qat.note,
        )  # fmt: skip
        if not is_live:
            raise DeadTechniqueError(f"QAT is not live at step {self.step}: {self.qat.note}")

    def _log_step(self, now: TrainProgress, gates: Gates, loss: Tensor) -> None:
        mean = self.dist.mean_(loss.clone())
        self.loss_nats = float(mean.item())
        if not math.isfinite(self.loss_nats):
            raise DivergedError(f"training loss is {self.loss_nats} at step {self.step}")
        self.events.write(
            "step", step=self.step, steps=self.config.train.iterations, train_loss_nats=self.loss_nats,
            train_s=now.elapsed_s, progress=now.progress, lr_scale=now.lr_scale,
            **{f"{section}_gate": gate for section, gate in gates.items()},
        )  # fmt: skip

    def _validate(self, now: TrainProgress) -> None:
        """Score the float weights, off the clock. The next step writes the compute weights again."""
        self.weights.write(NO_GATES)
        score = self.validation.score(self.forward, self.config.eval, self.config.eval.seq_len)
        if not math.isfinite(score.nats):
            raise DivergedError(f"validation loss is {score.nats} at step {self.step}")
        self.events.write(
            "val", step=self.step, train_s=now.elapsed_s, raw_bpb=score.bpb, val_loss_nats=score.loss_nats
        )

    def _check_finite(self) -> None:
        """Raise DivergedError if the last step made weights that are not finite: no loss has been computed from them yet."""
        bad = [name for name, w in self.weights.master.items() if not bool(w.isfinite().all())]
        if bad:
            raise DivergedError(f"weights are not finite after step {self.step}: {', '.join(bad[:3])}")

    def _is_checkpoint_due(self, last: float) -> bool:
        every = self.config.train.checkpoint_every_s
        return bool(every) and self.dist.agree(float(time.monotonic() - last >= every)) == 1

    def _save(self, clock: TrainingClock) -> None:
        state = TrainState(
            self.step, clock.stop(), self.qat_on_step, self.qat, self.dist.world_size, self.recurrence_on_step
        )
        self.checkpoint.save(state, self.weights, self.optimizer, self.averages)
        self.events.write("checkpoint", step=self.step)

    def _final_qat_check(self) -> QatCheck | None:
        if self.qat is not None or not self.config.qat.enabled:
            return self.qat
        return QatCheck(False, 0.0, "QAT is enabled, but its gate never opened")
