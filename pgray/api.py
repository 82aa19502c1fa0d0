"""The Python interface: `from pgray import Sweep`."""

from pathlib import Path

from pgray.scheduler.driver import Outcome, run_sweep
from pgray.spec import sweep

__all__ = ["Outcome", "Sweep", "run_sweep"]


class Sweep(sweep.Sweep):
    """A sweep file that can be run: `Sweep.from_yaml("sweeps/quickstart.yaml").run(runs="runs")`."""

    def run(self, runs: str | Path = "runs", *, address: str | None = None) -> Outcome:
        """Run the trials that `runs/<name>` does not have yet, and wait for them. See `run_sweep`."""
        return run_sweep(self, runs, address=address)
