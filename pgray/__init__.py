"""Ray Tune driver: one sweep file in, one ablation table out. Start at `driver.py`.

from pgray import Sweep
Sweep.from_yaml("sweeps/quickstart.yaml").run(runs="runs")
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pgray.driver import Outcome as Outcome
    from pgray.driver import run_sweep as run_sweep
    from pgray.sweep import Sweep as Sweep

# Imported when first used: `pgray --help` and the supervisor of every job import this package.
_HOMES = {"Sweep": "pgray.sweep", "run_sweep": "pgray.driver", "Outcome": "pgray.driver"}
__all__ = ["Outcome", "Sweep", "run_sweep"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'pgray' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
