"""`pgray run` in a process of its own with the fake trainer, to be killed: `python -m tests.pgray.drive plain|torchrun SWEEP ...`."""

import functools
import sys

import pgray.driver
from pgray.cli import main
from tests.pgray.conftest import PLAIN, TORCHRUN

if __name__ == "__main__":
    start = {"plain": PLAIN, "torchrun": TORCHRUN}[sys.argv[1]]
    pgray.driver.run_sweep = functools.partial(pgray.driver.run_sweep, trainer_command=start, grace_s=3.0)
    sys.exit(main(["run", *sys.argv[2:]]))
