"""Saves and restores a training run exactly: weights, optimizer, averages, random generators, clock, step. No pickle.

Each rank writes a file with its shard of the optimizer and its random generator; rank 0 also writes a common file. A
checkpoint is complete once `checkpoint/latest.json` names it, which rank 0 writes last; then it deletes older ones.
"""

import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from trainer.averaging.base import Average
from trainer.evaluation.diagnostics import QatCheck
from trainer.optim.optimizer import Optimizer
from trainer.optim.weights import Weights
from trainer.records.files import write_json
from trainer.run.dist import DistContext


@dataclass(frozen=True)
class TrainState:
    """The state of a training run, except its tensors."""

    step: int
    elapsed_s: float
    qat_on_step: int | None
    qat: QatCheck | None = None
    world_size: int = 1
    recurrence_on_step: int | None = None


class Checkpoint:
    def __init__(self, folder: Path, dist: DistContext) -> None:
        self._folder, self._dist = folder, dist

    def save(self, position: TrainState, weights: Weights, optimizer: Optimizer, averages: list[Average]) -> None:
        target = self._folder / f"step-{position.step}"
        if self._dist.is_main:
            target.mkdir(parents=True, exist_ok=True)
        self._dist.barrier()
        mine = {f"optim/{n}": w for n, w in optimizer.state().items()} | {"noise": weights.noise.get_state()}
        _save(target / f"rank-{self._dist.rank}.safetensors", mine)
        if self._dist.is_main:
            common = {f"master/{n}": w for n, w in weights.master.items()}
            for average in averages:
                common |= {f"average/{average.key}/{n}": w for n, w in average.state().items()}
            _save(target / "common.safetensors", common)
        self._dist.barrier()
        if self._dist.is_main:
            kept = [average.key for average in averages]
            write_json(self._folder / "latest.json", {"folder": target.name, "averages": kept, **asdict(position)})
            for other in self._folder.glob("step-*"):
                if other != target:
                    shutil.rmtree(other, ignore_errors=True)

    def load(self, weights: Weights, optimizer: Optimizer, averages: list[Average]) -> TrainState | None:
        """Restore the latest checkpoint into these objects. Return None, and restore nothing, if none fits.

        A checkpoint does not fit if it has another number of ranks or lacks one of the averages, for instance one of a
        trial that was added later; then the training run must start again.
        """
        found = self._read({average.key for average in averages})
        if not self._dist.all_true(found is not None) or found is None:
            return None
        position, common, local = found
        device = self._dist.device
        weights.noise.set_state(local.pop("noise"))
        optimizer.load_state({n.removeprefix("optim/"): w.to(device) for n, w in local.items()})
        weights.load({n.removeprefix("master/"): w.to(device) for n, w in common.items() if n.startswith("master/")})
        for average in averages:
            prefix = f"average/{average.key}/"
            average.load_state(
                {n.removeprefix(prefix): _to_device(w, device) for n, w in common.items() if n.startswith(prefix)}
            )
        return position

    def _read(self, wanted: set[str]) -> tuple[TrainState, dict[str, Tensor], dict[str, Tensor]] | None:
        """Read the checkpoint if it is whole and fits: state, common tensors, this rank's tensors."""
        try:
            raw = json.loads((self._folder / "latest.json").read_text())
            target = self._folder / raw.pop("folder")
            kept = set(raw.pop("averages"))
            qat = raw.pop("qat")
            position = TrainState(**raw, qat=QatCheck(**qat) if qat else None)
            if position.world_size != self._dist.world_size or not wanted <= kept:
                return None
            common = load_file(target / "common.safetensors")
            return position, common, load_file(target / f"rank-{self._dist.rank}.safetensors")
        except (OSError, ValueError, KeyError, TypeError, SafetensorError):
            return None  # missing, incomplete, or of another version

    def remove(self) -> None:
        if self._dist.is_main:
            shutil.rmtree(self._folder, ignore_errors=True)


def _to_device(w: Tensor, device: torch.device) -> Tensor:
    """Move weights to the device; counters and other numbers stay on the host."""
    return w.to(device) if w.dtype == torch.float32 else w


def _save(path: Path, named: dict[str, Tensor]) -> None:
    temporary = path.with_suffix(".partial")
    save_file({name: w.detach().cpu().contiguous() for name, w in named.items()}, temporary)
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())  # otherwise a power failure can lose the weights but keep the record
    temporary.replace(path)


def save_weights(path: Path, named: dict[str, Tensor]) -> None:
    """Write float weights as safetensors, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _save(path, named)


def load_weights(path: Path) -> dict[str, Tensor]:
    return dict(load_file(path))
