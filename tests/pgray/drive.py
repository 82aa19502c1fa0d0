"""`pgray run` in a process of its own with the fake trainer, to be killed: `python -m tests.pgray.drive SWEEP ...`."""

import functools
import sys

import pgray.driver
from pgray.cli import main
from tests.pgray.conftest import PLAIN

if __name__ == "__main__":
    pgray.driver.run_sweep = functools.partial(pgray.driver.run_sweep, trainer_command=PLAIN, grace_s=3.0)
    sys.exit(main(["run", *sys.argv[1:]]))
