"""Runs `pgray run` with the fake trainer, as a process that tests can kill: `python -m tests.pgray.drive SWEEP ...`."""

import functools
import sys

import pgray.scheduler.driver
from pgray.cli.entry import main
from tests.pgray.conftest import PLAIN

if __name__ == "__main__":
    pgray.scheduler.driver.run_sweep = functools.partial(
        pgray.scheduler.driver.run_sweep, trainer_command=PLAIN, grace_s=3.0
    )
    sys.exit(main(["run", *sys.argv[1:]]))
