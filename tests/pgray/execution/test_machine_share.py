"""Shares of one machine: locks that other sweeps respect."""

import multiprocessing
import os
import tempfile
import time
from pathlib import Path

import pytest

from pgray.execution.machine_share import Share, try_reserve, why_waiting
from trainer.run.config import Machine

WHOLE = Share(["0", "1", "2", "3"], ["a", "b", "c", "d"])
HOLDER: dict[str, object] = {"run": "/runs/x", "pid": 7}


@pytest.fixture(autouse=True)
def own_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def release(share: Share | None) -> None:
    assert share is not None
    for lock in share.locks:
        os.close(lock)


def test_shares_are_disjoint_and_no_larger_than_of_use() -> None:
    two_gpus = Machine(cpus=1, gpus=2)
    first, second = (try_reserve(WHOLE, two_gpus, 1, HOLDER) for _ in range(2))
    assert first is not None
    assert second is not None
    assert (len(first.cpus), len(first.gpus), len(second.gpus)) == (1, 2, 2)
    assert {*first.gpus, *second.gpus} == set(WHOLE.gpus)
    assert not {*first.cpus} & {*second.cpus}
    assert try_reserve(WHOLE, two_gpus, 1, HOLDER) is None
    cpu_job = try_reserve(WHOLE, Machine(cpus=1), 5, HOLDER)
    assert cpu_job is not None
    assert (len(cpu_job.cpus), list(cpu_job.gpus)) == (2, []), "what is free, and no GPU for a sweep on the CPU"
    assert "in use by /runs/x (process 7)." in why_waiting(WHOLE, two_gpus)
    release(first)
    third = try_reserve(WHOLE, two_gpus, 9, HOLDER)
    assert third is not None
    assert set(third.gpus) == set(first.gpus)
    for share in (second, third, cpu_job):
        release(share)


def test_what_does_not_fit_takes_nothing() -> None:
    assert try_reserve(WHOLE, Machine(cpus=5), 1, HOLDER) is None
    assert try_reserve(WHOLE, Machine(cpus=1, gpus=5), 1, HOLDER) is None
    everything = try_reserve(WHOLE, Machine(cpus=4, gpus=4), 1, HOLDER)
    assert everything is not None
    assert len(everything.locks) == 8
    release(everything)


def _hold(folder: str, ready: "multiprocessing.synchronize.Event") -> None:
    tempfile.tempdir = folder
    assert try_reserve(WHOLE, Machine(cpus=4), 1, HOLDER) is not None
    ready.set()
    time.sleep(120)  # the test kills this process


def test_a_share_is_free_when_its_holder_is_killed(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    holder = context.Process(target=_hold, args=(str(tmp_path), ready))
    holder.start()
    assert ready.wait(120)
    assert try_reserve(WHOLE, Machine(), 1, HOLDER) is None
    holder.kill()
    holder.join()
    release(try_reserve(WHOLE, Machine(), 1, HOLDER))
