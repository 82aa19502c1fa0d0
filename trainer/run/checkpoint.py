"""Saves and restores a training run exactly: weights, optimizer, averages, random generators, clock, step. No pickle.

Each rank writes a file with its shard of the optimizer and its random generator; rank 0 also writes a common file. A
checkpoint is complete once `checkpoint/latest.json` names it, which rank 0 writes last; then it deletes older ones. The file
also has the training run's fingerprint and the sha256 of every other file and of itself: one that was damaged or exchanged is
not used.
"""

import hashlib
import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from trainer.averaging.base import Average
from trainer.errors import DataError, PgrayError
from trainer.evaluation.diagnostics import QatCheck
from trainer.optim.optimizer import Optimizer
from trainer.optim.weights import Weights
from trainer.records.files import is_changed, write_sealed
from trainer.records.layout import TrainedLayout
from trainer.records.trained import weights_origin
from trainer.run.dist import DistContext

_COMMON = "common.safetensors"


@dataclass(frozen=True)
class TrainState:
    """The state of a training run, except its tensors."""

    step: int
    elapsed_s: float
    qat_on_step: int | None
    qat: QatCheck | None = None
    world_size: int = 1
    recurrence_on_step: int | None = None


class _UnfitError(Exception):
    """A checkpoint that cannot be used; the text says why."""


class Checkpoint:
    """The checkpoint of the training run in `folder`'s parent. `problem`: why `load` used none although there is one."""

    def __init__(self, folder: Path, dist: DistContext) -> None:
        self._folder, self._dist = folder, dist
        self.problem: str | None = None

    def save(self, position: TrainState, weights: Weights, optimizer: Optimizer, averages: list[Average]) -> None:
        target = self._folder / f"step-{position.step}"
        if self._dist.is_main:
            target.mkdir(parents=True, exist_ok=True)
        self._dist.barrier()
        mine = {f"optim/{n}": w for n, w in optimizer.state().items()} | {"noise": weights.noise.get_state()}
        sha256 = self._of_all_ranks(_save(target / _of_rank(self._dist.rank), mine))
        if self._dist.is_main:
            common = {f"master/{n}": w for n, w in weights.master.items()}
            for average in averages:
                common |= {f"average/{average.key}/{n}": w for n, w in average.state().items()}
            sha256[_COMMON] = _save(target / _COMMON, common)
        self._dist.barrier()
        if self._dist.is_main:
            kept = [average.key for average in averages]
            about = {"run": self._folder.parent.name, "folder": target.name, "averages": kept, "sha256": sha256}
            write_sealed(self._folder / "latest.json", {**about, **asdict(position)})
            for other in self._folder.glob("step-*"):
                if other != target:
                    shutil.rmtree(other, ignore_errors=True)

    def load(self, weights: Weights, optimizer: Optimizer, averages: list[Average]) -> TrainState | None:
        """Restore the latest checkpoint into these objects. Return None, and restore nothing, if none fits.

        A checkpoint does not fit if it is damaged, has another number of ranks or lacks one of the averages, for
        instance one of a trial that was added later; then the training run must start again.
        """
        found, self.problem = None, None
        try:
            found = self._read({average.key for average in averages})
        except _UnfitError as error:
            self.problem = str(error)
        except (OSError, ValueError, KeyError, TypeError, SafetensorError):
            self.problem = "it is incomplete, or another version of pgray wrote it"
        if not self._dist.all_true(found is not None) or found is None:
            self.problem = "another rank cannot read its part" if found else self.problem
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
        """Read the checkpoint: state, common tensors, this rank's tensors. None if there is none."""
        latest = self._folder / "latest.json"
        if not latest.is_file():
            return None
        content = latest.read_bytes()
        if is_changed(content):
            raise _UnfitError("latest.json has been changed since it was written")
        raw = json.loads(content)
        raw.pop("own_sha256", None)
        run, target, kept, sha256, qat = (raw.pop(key) for key in ("run", "folder", "averages", "sha256", "qat"))
        position = TrainState(**raw, qat=QatCheck(**qat) if qat else None)
        if run != self._folder.parent.name:
            raise _UnfitError(f"it is that of {run}")
        if position.world_size != self._dist.world_size:
            raise _UnfitError(f"{position.world_size} ranks wrote it, and now there are {self._dist.world_size}")
        if not wanted <= set(kept):
            raise _UnfitError("it lacks an average that a trial exports")
        parts = []
        for name in (_COMMON, _of_rank(self._dist.rank)):
            content = (self._folder / target / name).read_bytes()
            if hashlib.sha256(content).hexdigest() != sha256[name]:
                raise _UnfitError(f"{target}/{name} is not the file that was written")
            parts.append(_tensors(content))
        return position, parts[0], parts[1]

    def _of_all_ranks(self, sha256: str) -> dict[str, str]:
        """Return file name -> sha256 of every rank's file."""
        own = torch.tensor(list(bytes.fromhex(sha256)), dtype=torch.uint8, device=self._dist.device)
        joined = bytes(self._dist.all_gather(own).tolist())
        return {_of_rank(r): joined[32 * r : 32 * (r + 1)].hex() for r in range(self._dist.world_size)}

    def remove(self) -> None:
        if self._dist.is_main:
            shutil.rmtree(self._folder, ignore_errors=True)


def _to_device(w: Tensor, device: torch.device) -> Tensor:
    """Move weights to the device; counters and other numbers stay on the host."""
    return w.to(device) if w.dtype == torch.float32 else w


def _tensors(content: bytes) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file by name. `load` gives them in a random order, and artifacts keep it."""
    return dict(sorted(load(content).items()))


def _of_rank(rank: int) -> str:
    return f"rank-{rank}.safetensors"


def _save(path: Path, named: dict[str, Tensor], metadata: dict[str, str] | None = None) -> str:
    """Write tensors as safetensors and return the sha256 of the content."""
    temporary = path.with_suffix(".partial")
    content = save({name: w.detach().cpu().contiguous() for name, w in named.items()}, metadata)
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())  # otherwise a power failure can lose the weights but keep the record
    temporary.replace(path)
    return hashlib.sha256(content).hexdigest()


def save_weights(folder: TrainedLayout, key: str, named: dict[str, Tensor]) -> str:
    """Write one average's float weights as safetensors, atomically. Return the sha256 of the file."""
    folder.root.mkdir(parents=True, exist_ok=True)
    return _save(folder.weights(key), named, weights_origin(folder.root.name, key))


class WeightsFile(NamedTuple):
    """Float weights on disk. sha256: of the file that was written; None: not known, so it is not checked."""

    path: Path
    sha256: str | None


def load_weights(file: WeightsFile) -> dict[str, Tensor]:
    """Read float weights.

    Raises:
        PgrayError: the file is no longer the one that was written; the next attempt trains again.
        DataError: it is no safetensors file, and no hash is known that would have shown this before.
    """
    try:
        content = file.path.read_bytes()
    except OSError as error:
        raise PgrayError(f"{file.path}: cannot be read ({error.strerror}): it was there when the job began") from None
    if file.sha256 not in (None, hashlib.sha256(content).hexdigest()):
        raise PgrayError(f"{file.path}: is no longer the file that the training run wrote: it changed during the job")
    try:
        return _tensors(content)
    except SafetensorError as error:
        fix = "remove it, and run pgray retry and the sweep: that trains again"
        raise DataError(file.path, f"holds no weights ({error})", fix) from None
