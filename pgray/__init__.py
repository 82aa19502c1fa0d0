"""Run a sweep file with Ray Tune and write its ablation table. Start reading at `pgray/scheduler/driver.py`.

from pgray import Sweep
Sweep.from_yaml("sweeps/quickstart.yaml").run(runs="runs")
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pgray.api import Outcome as Outcome
    from pgray.api import Sweep as Sweep
    from pgray.api import run_sweep as run_sweep

# Imported on first use, since `pgray --help` and every job's supervisor import this package and must start fast.
__all__ = ["Outcome", "Sweep", "run_sweep"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'pgray' has no attribute '{name}'")
    return getattr(import_module("pgray.api"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
