"""Charts of a run: one function per question, trials in, a plotly figure out."""

from results.plots.cross import interactions
from results.plots.curves import learning_curves
from results.plots.differences import deltas
from results.plots.figures import gaps, sizes, step_tax

__all__ = ["deltas", "gaps", "interactions", "learning_curves", "sizes", "step_tax"]
