"""The section `train`, and the machine that a job runs on. Torch-free."""

from typing import Literal

from pydantic import Field

from trainer.errors import InputError
from trainer.section import Section


class TrainConfig(Section):
    seq_len: int = Field(1024, ge=2)  # tokens per training sequence
    batch_tokens: int = Field(524_288, ge=2)  # per optimizer step, all ranks together
    micro_batch_tokens: int = Field(98_304, ge=2)  # per rank and forward pass; more are accumulated
    wallclock_s: float = Field(600.0, gt=0)  # limit of the training clock in seconds
    iterations: int = Field(20_000, ge=1)  # limit in optimizer steps; training ends at whichever limit comes first
    warmup_steps: int = Field(20, ge=0)  # run before the clock starts, then undone
    grad_clip: float = Field(0.0, ge=0)  # largest global norm of each rank's own gradient; 0 = off
    val_every: int = Field(0, ge=0)  # steps between validations of the raw weights, off the clock; 0 = at the end only
    log_every: int = Field(50, ge=1)  # steps between lines of the training log
    device: Literal["auto", "cpu", "cuda"] = "auto"  # auto: CUDA where there is a GPU
    compile: bool | None = None  # null: on for CUDA, off for CPU
    checkpoint_every_s: float = Field(60.0, ge=0)  # seconds between checkpoints; 0 = never

    def split_batch(self, world_size: int, origin: str = "config") -> tuple[int, int]:
        """Return the rows per rank and step, and the number of equal micro-batches that they are split into.

        Raises InputError, which names `origin`, if the tokens of a step cannot be divided among the ranks in whole rows.
        """
        if self.batch_tokens % (world_size * self.seq_len):
            fix = f"must be a multiple of ranks x train.seq_len = {world_size} x {self.seq_len}"
            raise InputError(origin, "train.batch_tokens", self.batch_tokens, fix)
        rows = self.batch_tokens // (world_size * self.seq_len)
        fewest = -(-rows * self.seq_len // self.micro_batch_tokens)
        return rows, next((n for n in range(max(fewest, 1), rows + 1) if rows % n == 0), rows)


class Machine(Section):
    """What one job needs on each of its nodes, and how its ranks are started: `nproc` per node. gpus 0 = CPU."""

    gpus: int = Field(0, ge=0)
    cpus: int = Field(1, ge=1)
    nodes: int = Field(1, ge=1)
    nproc: int = Field(1, ge=1)
    launcher: str = "torchrun"  # a module of pgray/execution/launchers

    @property
    def total_gpus(self) -> int:
        return self.nodes * self.gpus

    @property
    def world_size(self) -> int:
        return self.nodes * self.nproc
