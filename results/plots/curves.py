"""Training curves of a run, and below them each curve's difference from the control's at the same step and seed.

All runs of a sweep read the data in the same order, so this difference has far less noise than the curves themselves.
Arms that share their training runs share a line.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from results.loading.arm_labels import labelled, shortened
from results.loading.runs import current
from results.plots.labels import spread
from results.plots.style import GREY, MOST_ARMS, Style, empty, figure, listed, padded, safe, styles
from results.schema import Row, records
from trainer.records.states import TrialState

_PANEL_PX, _GAP_PX, _AXIS_PX = 260, 36, 44  # one panel, between the panels, tick labels and title of the x axis
_LABEL_PX = 13
_MOST_LABELS = 14
_NAME_CHARS = 15
_FAILED = (TrialState.FAILED, TrialState.KILLED, TrialState.LOST)
_GATES = {"qat_on": ("triangle-up", "▲", "QAT starts"), "recurrence_on": ("square", "■", "recurrence starts")}
_METRICS = {"val_bpb": "validation bpb, raw weights", "train_loss_nats": "training loss, nats per token"}
_Curve = dict[int, float]
"""Step -> value."""


@dataclass(frozen=True)
class _Line:
    """The training runs that these arms share. name: of the first arm, shortened. gates: step -> gate that opened there."""

    arms: tuple[str, ...]
    name: str
    by_seed: dict[int, _Curve]
    gates: dict[int, str]
    has_failed: bool

    @property
    def label(self) -> str:
        more = f" +{len(self.arms) - 1}" if len(self.arms) > 1 else ""
        return self.name + more + (" ✕" if self.has_failed else "")

    @property
    def last_step(self) -> int:
        return max(max(curve) for curve in self.by_seed.values() if curve)

    @property
    def last_value(self) -> float:
        """The mean over the seeds; infinite if a trial failed."""
        return math.inf if self.has_failed else statistics.fmean(c[max(c)] for c in self.by_seed.values() if c)


def learning_curves(curves: pd.DataFrame, trials: pd.DataFrame | None = None, control: str | None = None) -> go.Figure:
    """Draw validation bpb by step, or training loss if a run was only validated at its end, and the differences below.

    Args:
        curves: as from `results.curves`.
        trials: rows as from `results.load`; they name the failed trials and the control.
        control: None: that of `trials.attrs`, else the first arm.
    """
    title = "Training curves"
    rows = records(curves)
    if trials is not None:
        trials, control = labelled(trials, control)
        arm_of = dict(zip(trials["trial_id"], trials["arm"], strict=True))
        rows = [row | {"arm": arm_of.get(row["trial_id"], row["arm"])} for row in rows]
    metric = _metric(rows)
    if metric is None:
        return empty(title, "no training run has logged anything yet")
    asked = control or (trials.attrs.get("control") if trials is not None else None)
    arms = list(dict.fromkeys(row["arm"] for row in rows))
    control = str(asked if asked in arms else arms[0])
    lines = found = _lines(rows, metric, control, trials)
    if len(found) > MOST_ARMS:
        lines = [found[0], *sorted(found[1:], key=lambda line: line.last_value)[: MOST_ARMS - 1]]
    panels = [[_mean(list(line.by_seed.values())) for line in lines]]
    against = [_mean(_differences(line, lines[0])) for line in lines]
    if control in lines[0].arms and any(against[1:]):
        panels.append(against)
    note = _note(lines, metric, has_difference=len(panels) > 1)
    note += f" The best {len(lines)} of {len(found)} training runs." if len(lines) < len(found) else ""
    height_px = len(panels) * _PANEL_PX + (len(panels) - 1) * _GAP_PX
    chart = figure(title, note, height_px + _AXIS_PX, is_wide=True)
    make_subplots(len(panels), 1, shared_xaxes=True, vertical_spacing=_GAP_PX / height_px, figure=chart)
    style_of = styles(arms if trials is None else list(dict.fromkeys(current(trials)["arm"])), control)
    x_range = _steps_shown(panels[0], lines)
    label_x = x_range[1] + 0.02 * (x_range[1] - x_range[0])
    for i, (panel, name) in enumerate(zip(panels, (_METRICS[metric], "minus the control"), strict=False), start=1):
        y_range = _range(panel, lines, x_range[0])
        traces = [t for line, curve in zip(lines, panel, strict=True) for t in _traces(line, curve, style_of, i == 1)]
        chart.add_traces(traces, rows=i, cols=1)
        for text, step, value, shift_px in _labels(lines, panel, x_range, y_range):
            chart.add_annotation(
                text=text, x=step, y=value, ax=label_x, axref=f"x{i}".removesuffix("1"), ay=shift_px,
                showarrow=True, xanchor="left", borderpad=1, font={"size": 11}, row=i, col=1,
            )  # fmt: skip
        chart.update_yaxes(title={"text": name}, range=list(y_range), row=i, col=1)
    chart.update_xaxes(nticks=5, range=list(x_range))
    chart.update_xaxes(title={"text": "step"}, row=len(panels), col=1)
    return chart.update_layout(margin={"r": 32 + round(6.6 * max(len(line.label) for line in lines))})


def _metric(rows: Sequence[Row]) -> str | None:
    """Return the column to draw: validations if there are any before the end, else training losses."""
    if any(row["val_bpb"] is not None and "end" not in (row["event"] or "") for row in rows):
        return "val_bpb"
    return "train_loss_nats" if any(row["train_loss_nats"] is not None for row in rows) else None


def _lines(rows: Sequence[Row], metric: str, control: str, trials: pd.DataFrame | None) -> list[_Line]:
    """Return one line per set of training runs, the control's first."""
    failed = {row["trial_id"] for row in records(trials) if row["status"] in _FAILED} if trials is not None else set()
    by_arm: dict[str, dict[str, list[Row]]] = {}  # arm -> trial -> rows
    for row in rows:
        by_arm.setdefault(row["arm"], {}).setdefault(row["trial_id"], []).append(row)
    names = shortened(by_arm.keys(), _NAME_CHARS)
    sharing: dict[tuple[str, ...], list[str]] = {}
    for arm in sorted(by_arm, key=lambda arm: arm != control):
        sharing.setdefault(tuple(own[0]["train_fingerprint"] for own in by_arm[arm].values()), []).append(arm)
    lines = []
    for arms in sharing.values():
        own = by_arm[arms[0]].values()
        by_seed = {points[0]["seed"]: {p["step"]: p[metric] for p in points if p[metric] is not None} for points in own}
        gates = {p["step"]: gate for points in own for p in points for gate in _GATES if gate in (p["event"] or "")}
        has_failed = any(trial in failed for arm in arms for trial in by_arm[arm])
        lines.append(_Line(tuple(arms), names[arms[0]], by_seed, gates, has_failed))
    return [line for line in lines if any(line.by_seed.values())]


def _mean(curves: Sequence[_Curve]) -> _Curve:
    """Average over the seeds at the steps that all have, and at the mean last step if the runs end at different steps."""
    curves = [curve for curve in curves if curve]
    if not curves:
        return {}
    mean = {step: statistics.fmean(curve[step] for curve in curves) for step in set.intersection(*map(set, curves))}
    ends = [max(curve) for curve in curves]
    if len(set(ends)) > 1:
        mean[round(statistics.fmean(ends))] = statistics.fmean(c[e] for c, e in zip(curves, ends, strict=True))
    return dict(sorted(mean.items()))


def _differences(line: _Line, control: _Line) -> list[_Curve]:
    pairs = [(curve, control.by_seed[seed]) for seed, curve in line.by_seed.items() if seed in control.by_seed]
    return [{step: mine[step] - theirs[step] for step in mine if step in theirs} for mine, theirs in pairs]


def _without_failed(curves: Sequence[_Curve], lines: Sequence[_Line]) -> list[_Curve]:
    """Return the curves without those of failed runs if others exist."""
    good = [curve for curve, line in zip(curves, lines, strict=True) if curve and not line.has_failed]
    return good or [curve for curve in curves if curve]


def _steps_shown(curves: Sequence[_Curve], lines: Sequence[_Line]) -> tuple[float, float]:
    """Return the x range: the last three quarters of training, which the steep beginning would flatten."""
    last_step = max(step for curve in _without_failed(curves, lines) for step in curve)
    return (last_step / 4, last_step) if last_step else (0, 1)


def _range(curves: Sequence[_Curve], lines: Sequence[_Line], first_step: float) -> tuple[float, float]:
    """Return the y range of the curves from this step on."""
    chosen = _without_failed(curves, lines)
    return padded([value for curve in chosen for step, value in curve.items() if step >= first_step])


def _traces(line: _Line, curve: _Curve, style_of: dict[str, Style], has_band: bool) -> list[go.Scatter]:
    if not curve:
        return []
    style, names = style_of[line.arms[0]], safe(", ".join(line.arms))
    x, y = list(curve), list(curve.values())
    traces = [
        go.Scatter(
            x=x, y=y, mode="lines", name=safe(line.label), hoverinfo="x+y+name", hoverlabel={"namelength": -1},
            line={"color": style.color, "dash": style.dash, "width": 3 if style.color == GREY else 1.8},
        )
    ]  # fmt: skip
    runs = [run for run in line.by_seed.values() if run]
    shared = [step for step in x if all(step in run for run in runs)]
    if has_band and len(runs) > 1 and len(shared) > 1:
        low, high = ([pick(run[step] for run in runs) for step in shared] for pick in (min, max))
        rgb = tuple(int(style.color[i : i + 2], 16) for i in (1, 3, 5))
        traces.append(
            go.Scatter(
                x=[*shared, *shared[::-1]], y=[*high, *low[::-1]], fill="toself", mode="none", hoverinfo="skip",
                fillcolor=f"rgba{(*rgb, 0.12)}",
            )
        )  # fmt: skip
    if line.has_failed:
        cross = {"symbol": "x", "size": 8, "color": style.color}
        traces.append(go.Scatter(x=x[-1:], y=y[-1:], mode="markers", marker=cross, hoverinfo="skip"))
    for step, gate in line.gates.items():
        marker = {"symbol": _GATES[gate][0], "size": 10, "color": style.color, "line": {"width": 1, "color": "#ffffff"}}
        traces.append(
            go.Scatter(
                x=[step], y=[float(np.interp(step, x, y))], mode="markers", cliponaxis=False, marker=marker,
                hovertext=[f"{_GATES[gate][2]} at step {step:,}<br>{names}"], hoverinfo="text",
            )
        )  # fmt: skip
    return traces


def _labels(
    lines: Sequence[_Line], curves: Sequence[_Curve], x_range: tuple[float, float], y_range: tuple[float, float]
) -> list[tuple[str, int, float, float]]:
    """Return label, last step, last value and how many pixels to move the label down, for lines that end in the ranges."""
    low, high = y_range
    ends = [(safe(line.label), *list(curve.items())[-1]) for line, curve in zip(lines, curves, strict=True) if curve]
    ends = [end for end in ends if x_range[0] <= end[1] <= x_range[1] and low <= end[2] <= high][:_MOST_LABELS]
    heights = [(high - value) / (high - low) * _PANEL_PX for _, _, value in ends]
    return [(*end, to - at) for end, at, to in zip(ends, heights, spread(heights, _LABEL_PX), strict=True)]


def _note(lines: Sequence[_Line], metric: str, *, has_difference: bool) -> str:
    parts = ["Means over seeds; band: their range."] if any(len(line.by_seed) > 1 for line in lines) else []
    if has_difference:
        parts.append(f"Below: minus {lines[0].arms[0]} at the same step and seed.")
    opened = {gate for line in lines for gate in line.gates.values()}
    parts += [f"{sign} {meaning}." for gate, (_, sign, meaning) in _GATES.items() if gate in opened]
    if any(len(line.arms) > 1 for line in lines):
        parts.append("+N: N more arms with the same training run.")
    failed = [f"{line.label} at step {line.last_step:,}" for line in lines if line.has_failed]
    if failed:
        parts.append(f"✕ a trial failed or was killed: {listed(failed)}.")
    if len(lines) > _MOST_LABELS:
        parts.append(f"{_MOST_LABELS} of {len(lines)} lines are labelled; hover for the others.")
    if metric == "train_loss_nats":
        parts.append("Training loss, because no validations were made during training.")
    return " ".join([*parts, "Shown: the last three quarters of the steps; double-click for all."])
