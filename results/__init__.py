"""pandas: collect, compare, draw. `load`, `ablation`, `effects`, `decompose`, `curves`, `frontier`.

pandas is imported when one of them is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from results.collect import load as load
    from results.compare import NotComparableError as NotComparableError
    from results.compare import ablation as ablation
    from results.decomposition import decompose as decompose
    from results.factorial import effects as effects
    from results.pareto import frontier as frontier
    from results.publications import published as published
    from results.trajectory import curves as curves

# No module may be called like a function here: importing results.ablation would replace results.ablation().
_HOMES = {
    "load": "results.collect",
    "ablation": "results.compare",
    "NotComparableError": "results.compare",
    "curves": "results.trajectory",
    "decompose": "results.decomposition",
    "effects": "results.factorial",
    "frontier": "results.pareto",
    "published": "results.publications",
}
__all__ = ["NotComparableError", "ablation", "curves", "decompose", "effects", "frontier", "load", "published"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'results' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
