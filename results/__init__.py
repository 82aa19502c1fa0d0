"""Loads run folders into pandas and analyses them: `load`, `ablation`, `effects`, `decompose`, `curves`, `frontier`.

pandas is imported when one of them is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from results.analysis.ablation import ablation as ablation
    from results.analysis.comparability import NotComparableError as NotComparableError
    from results.analysis.decomposition import decompose as decompose
    from results.analysis.effects import effects as effects
    from results.analysis.pareto import frontier as frontier
    from results.loading.curves import curves as curves
    from results.loading.runs import load as load
    from results.present.publications import published as published

# No module here may have the name of a function: importing it would replace the function.
_MODULES = {
    "load": "results.loading.runs",
    "ablation": "results.analysis.ablation",
    "NotComparableError": "results.analysis.comparability",
    "curves": "results.loading.curves",
    "decompose": "results.analysis.decomposition",
    "effects": "results.analysis.effects",
    "frontier": "results.analysis.pareto",
    "published": "results.present.publications",
}
__all__ = ["NotComparableError", "ablation", "curves", "decompose", "effects", "frontier", "load", "published"]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'results' has no attribute '{name}'")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
