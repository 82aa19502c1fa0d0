"""pandas: collect, compare, draw. `load`, `ablation`, `frontier`; pandas is imported when one is first used."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from results.collect import load as load
    from results.compare import NotComparableError as NotComparableError
    from results.compare import ablation as ablation
    from results.pareto import frontier as frontier

# No module may be called like a function here: importing results.ablation would replace results.ablation().
_HOMES = {
    "load": "results.collect",
    "ablation": "results.compare",
    "NotComparableError": "results.compare",
    "frontier": "results.pareto",
}
__all__ = ["NotComparableError", "ablation", "frontier", "load"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'results' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
