"""Runs `pgray run` with the fake trainer, as a process that tests can kill: `python -m tests.pgray.drive SWEEP ...`.

Where it starts a Ray of its own, the machine has four GPUs that are only numbers (`tests/pgray/fake_gpu_host.py`).
"""

import functools
import sys

import pgray.cli.run
from pgray.cli.entry import main
from pgray.execution import executor
from tests.pgray.conftest import PLAIN

if __name__ == "__main__":
    executor.HOST_MODULE = "tests.pgray.fake_gpu_host"
    pgray.cli.run.run_sweep = functools.partial(pgray.cli.run.run_sweep, trainer_command=PLAIN, grace_s=3.0)
    sys.exit(main(["run", *sys.argv[1:]]))
