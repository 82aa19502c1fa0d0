"""Charts of a run: one function per question, trials in, a plotly figure out."""

from results.plots.curves import learning_curves
from results.plots.figures import deltas, gaps, sizes, step_tax

__all__ = ["deltas", "gaps", "learning_curves", "sizes", "step_tax"]
