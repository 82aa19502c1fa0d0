"""A driver in a process of its own, to be killed: `python drive.py SWEEP RUNS [ADDRESS]`. Exits as `pgray run` does."""

import sys

from pgray.driver import run_sweep
from pgray.progress import Terminal
from pgray.sweep import Sweep
from tests.pgray.conftest import PLAIN

if __name__ == "__main__":
    path, runs, *address = sys.argv[1:]
    sweep = Sweep.from_yaml(path)
    outcome = run_sweep(
        sweep, runs, address=address[0] if address else None, show=Terminal(), trainer_command=PLAIN, grace_s=3.0
    )
    sys.exit(outcome.exit_code)
