"""The picture of how training went: every training run's curve, and its difference from the control's at the same step.

The order of the data is the same in every run of a sweep, so the difference at a step has far less noise than the curves.
Arms that share their training runs share a line.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from results.loading.runs import current
from results.plots.labels import spread
from results.plots.style import GREY, MOST_ARMS, Style, empty, figure, listed, padded, safe, short, styles
from results.schema import Row, records
from trainer.records.states import TrialState

_PANEL_PX, _GAP_PX, _BELOW_PX = 260, 36, 44  # one panel, between the two, and the x axis's words
_LABEL_PX = 13
_MOST_LABELS = 14
_NAME_CHARS = 15
_FAILED = (TrialState.FAILED, TrialState.KILLED, TrialState.LOST)
_GATES = {"qat_on": "triangle-up", "recurrence_on": "square"}
_METRICS = {"val_bpb": "validation bpb, raw weights", "train_loss_nats": "training loss, nats per token"}
_Curve = dict[int, float]
"""Step -> value."""


@dataclass(frozen=True)
class _Line:
    """The mean curve of the training runs that these arms share, over the seeds; `gates`: step -> what switched on."""

    arms: tuple[str, ...]
    by_seed: dict[int, _Curve]
    gates: dict[int, str]
    has_failed: bool

    @property
    def label(self) -> str:
        more = f" +{len(self.arms) - 1}" if len(self.arms) > 1 else ""
        return short(self.arms[0], _NAME_CHARS - len(more)) + more + (" ✕" if self.has_failed else "")


def learning_curves(curves: pd.DataFrame, trials: pd.DataFrame | None = None, control: str | None = None) -> go.Figure:
    """Validation bpb by step, or training loss where fewer than two validations were made, and the difference below it.

    Args:
        curves: as from `results.curves`.
        trials: rows as from `results.load`; say which trials failed, and the control.
        control: None: that of `trials.attrs`, else the first arm.
    """
    title = "How training went"
    rows = records(curves)
    metric = _metric(rows)
    if metric is None:
        return empty(title, "no training run has logged anything yet")
    asked = control or (trials.attrs.get("control") if trials is not None else None)
    arms = list(dict.fromkeys(row["arm"] for row in rows))
    chosen = str(asked if asked in arms else arms[0])
    found = _lines(rows, metric, chosen, _failed(trials))
    lines = found if len(found) <= MOST_ARMS else [found[0], *sorted(found[1:], key=_end)[: MOST_ARMS - 1]]
    means = [_mean(list(line.by_seed.values())) for line in lines]
    against = [_mean(_differences(line, lines[0])) for line in lines]
    look = styles(arms if trials is None else list(dict.fromkeys(current(trials)["arm"])), chosen)
    panels = [means, against] if chosen in lines[0].arms and any(against[1:]) else [means]
    note = _note(lines, metric, bool(panels[1:]))
    note += f" The best {len(lines)} of {len(found)} training runs." if len(lines) < len(found) else ""
    drawn = figure(title, note, _height(len(panels)))
    last = max(step for curve in means for step in curve)
    for number, panel in enumerate(panels, start=1):
        seen = _range(panel, lines)
        axis = "y" if number == 1 else "y2"
        for line, curve in zip(lines, panel, strict=True):
            drawn.add_traces(_traces(line, curve, look[line.arms[0]], axis, has_band=number == 1))
        for text, step, value, shift_px in _labels(lines, panel, seen):
            drawn.add_annotation(
                text=text, x=step, y=value, yref=axis, ax=1.02 * last, axref="x", ay=shift_px, showarrow=True,
                xanchor="left", borderpad=1, font={"size": 11},
            )  # fmt: skip
        drawn.update_layout({f"{axis[0]}axis{axis[1:]}": {"range": list(seen), "tickformat": ".4f"}})
    drawn.update_layout(
        margin={"r": 26 + round(6.6 * max(len(line.label) for line in lines))},
        xaxis={
            "title": {"text": "step"},
            "nticks": 5,
            "tickformat": "~s",
            "range": [0, last],
            "anchor": "y2" if panels[1:] else "y",
        },
        yaxis={"title": {"text": _METRICS[metric]}, "domain": [_share(len(panels)), 1]},
    )
    if panels[1:]:
        drawn.update_layout(
            yaxis2={
                "title": {"text": "minus the control"},
                "domain": [0, 1 - _share(2) - _GAP_PX * (1 - _share(2)) / _PANEL_PX],
            }
        )
    return drawn


def _end(line: _Line) -> float:
    """The mean of its last values; infinite for one that failed."""
    return math.inf if line.has_failed else statistics.fmean(run[max(run)] for run in line.by_seed.values() if run)


def _height(num_panels: int) -> int:
    return num_panels * _PANEL_PX + (num_panels - 1) * _GAP_PX + _BELOW_PX


def _share(num_panels: int) -> float:
    """Where the upper panel begins, as a share of the height of the drawn area."""
    return 0.0 if num_panels == 1 else (_PANEL_PX + _GAP_PX) / (2 * _PANEL_PX + _GAP_PX)


def _metric(rows: Sequence[Row]) -> str | None:
    """What can be drawn: validations where there are any but the last, else losses."""
    if any(row["val_bpb"] is not None and "end" not in (row["event"] or "") for row in rows):
        return "val_bpb"
    return "train_loss_nats" if any(row["train_loss_nats"] is not None for row in rows) else None


def _failed(trials: pd.DataFrame | None) -> set[str]:
    if trials is None:
        return set()
    return {row["trial_id"] for row in records(trials) if row["status"] in _FAILED}


def _lines(rows: Sequence[Row], metric: str, control: str, failed: set[str]) -> list[_Line]:
    """One per set of training runs, the control's first."""
    runs: dict[str, dict[int, str]] = {}  # arm -> seed -> training run
    logged: dict[str, list[Row]] = {}
    bad: set[str] = set()
    for row in rows:
        runs.setdefault(row["arm"], {})[row["seed"]] = row["train_fingerprint"]
        logged.setdefault(row["trial_id"], []).append(row)
        if row["trial_id"] in failed:
            bad.add(row["arm"])
    sharing: dict[tuple[str, ...], list[str]] = {}
    for arm in sorted(runs, key=lambda arm: arm != control):
        sharing.setdefault(tuple(runs[arm].values()), []).append(arm)
    found = []
    for arms in sharing.values():
        own = [points for points in logged.values() if points[0]["arm"] == arms[0]]
        by_seed = {points[0]["seed"]: _curve(points, metric) for points in own}
        gates = {
            point["step"]: name
            for points in own for point in points for name in _GATES if name in (point["event"] or "")
        }  # fmt: skip
        found.append(_Line(tuple(arms), by_seed, gates, bool(bad.intersection(arms))))
    return [line for line in found if any(line.by_seed.values())]


def _curve(points: Sequence[Row], metric: str) -> _Curve:
    return {point["step"]: point[metric] for point in points if point[metric] is not None}


def _mean(curves: Sequence[_Curve]) -> _Curve:
    """Over the seeds, at the steps that all of them have; then the mean end, since clocks end runs at different steps."""
    curves = [curve for curve in curves if curve]
    if not curves:
        return {}
    shared = sorted(set.intersection(*(set(curve) for curve in curves)))
    mean = {step: statistics.fmean(curve[step] for curve in curves) for step in shared}
    ends = [max(curve) for curve in curves]
    if len(set(ends)) > 1:
        mean[round(statistics.fmean(ends))] = statistics.fmean(c[e] for c, e in zip(curves, ends, strict=True))
    return dict(sorted(mean.items()))


def _differences(line: _Line, control: _Line) -> list[_Curve]:
    return [
        {step: value - control.by_seed[seed][step] for step, value in curve.items() if step in control.by_seed[seed]}
        for seed, curve in line.by_seed.items()
        if seed in control.by_seed
    ]


def _range(curves: Sequence[_Curve], lines: Sequence[_Line]) -> tuple[float, float]:
    """What is seen at first: the last three quarters of training, by the runs that did not fail where there are any."""
    good = [curve for curve, line in zip(curves, lines, strict=True) if curve and not line.has_failed]
    chosen = good or [curve for curve in curves if curve]
    last = max(step for curve in chosen for step in curve)
    late = [value for curve in chosen for step, value in curve.items() if step >= last / 4]
    return padded(late)


def _traces(line: _Line, curve: _Curve, style: Style, axis: str, *, has_band: bool) -> list[go.Scatter]:
    if not curve:
        return []
    name = safe(", ".join(line.arms))
    x, y = list(curve), list(curve.values())
    drawn = [
        go.Scatter(
            x=x, y=y, yaxis=axis, mode="lines", name=short(line.label, 40), hoverinfo="x+y+name",
            line={"color": style.color, "dash": style.dash, "width": 3 if style.color == GREY else 1.8},
            hoverlabel={"namelength": -1},
        )
    ]  # fmt: skip
    runs = [run for run in line.by_seed.values() if run]
    shared = [step for step in x if all(step in run for run in runs)]
    if has_band and len(runs) > 1 and len(shared) > 1:
        low, high = ([pick(run[step] for run in runs) for step in shared] for pick in (min, max))
        drawn.append(
            go.Scatter(
                x=[*shared, *shared[::-1]], y=[*high, *low[::-1]], yaxis=axis, fill="toself", mode="none",
                fillcolor=f"rgba{(*_rgb(style.color), 0.12)}", hoverinfo="skip",
            )
        )  # fmt: skip
    if line.has_failed:
        cross = {"symbol": "x", "size": 8, "color": style.color}
        drawn.append(go.Scatter(x=x[-1:], y=y[-1:], yaxis=axis, mode="markers", marker=cross, hoverinfo="skip"))
    for step, gate in line.gates.items():
        drawn.append(
            go.Scatter(
                x=[step], y=[float(np.interp(step, x, y))], yaxis=axis, mode="markers", cliponaxis=False,
                marker={"symbol": _GATES[gate], "size": 10, "color": style.color, "line": {"width": 1, "color": "#ffffff"}},
                hovertext=[f"{gate} at step {step:,}<br>{name}"], hoverinfo="text",
            )
        )  # fmt: skip
    return drawn


def _rgb(color: str) -> tuple[int, ...]:
    return tuple(int(color[i : i + 2], 16) for i in (1, 3, 5))


def _labels(
    lines: Sequence[_Line], curves: Sequence[_Curve], seen: tuple[float, float]
) -> list[tuple[str, int, float, float]]:
    """For the first lines that end in sight: name, step, value, and how many pixels lower its name stands."""
    ends = [(line.label, *list(curve.items())[-1]) for line, curve in zip(lines, curves, strict=True) if curve]
    ends = [end for end in ends if seen[0] <= end[2] <= seen[1]][:_MOST_LABELS]
    heights = [(seen[1] - value) / (seen[1] - seen[0]) * _PANEL_PX for _, _, value in ends]
    return [(*end, to - at) for end, at, to in zip(ends, heights, spread(heights, _LABEL_PX), strict=True)]


def _note(lines: Sequence[_Line], metric: str, has_difference: bool) -> str:
    parts = ["Means over seeds; band: their range."] if any(len(line.by_seed) > 1 for line in lines) else []
    if has_difference:
        parts.append(f"Below: minus {lines[0].arms[0]} at the same step and seed.")
    seen = {gate for line in lines for gate in line.gates.values()}
    parts += [f"{'▲' if gate == 'qat_on' else '■'} {gate}." for gate in _GATES if gate in seen]
    if any(len(line.arms) > 1 for line in lines):
        parts.append("+N: N more arms with the same training run.")
    failed = [line.label for line in lines if line.has_failed]
    if failed:
        parts.append(f"✕ a trial failed or was killed: {listed(failed)}.")
    if len(lines) > _MOST_LABELS:
        parts.append(f"{_MOST_LABELS} of {len(lines)} lines have their name; hover for the others.")
    if metric == "train_loss_nats":
        parts.append("Training loss, as no validations were made on the way.")
    return " ".join([*parts, "Shown: the last three quarters; double-click for all."])
