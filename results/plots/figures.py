"""Charts of a run: artifact sizes, quantization gaps and step times.

Each function takes the rows of `results.load` and compares them as `results.ablation` does: current trials only, paired with
the control's seeds. Arms that failed, are over the cap or cannot be compared are marked or named as missing. A chart
without data shows the reason. Arguments are those of `results.ablation`; an unknown control or metric raises InputError.
"""

import statistics

import pandas as pd
import plotly.graph_objects as go

from results.analysis.decomposition import decompose
from results.analysis.headline import headline_of
from results.analysis.pareto import frontier
from results.loading.arm_labels import labelled
from results.plots.compared import comparable, grouped, label, missing, nothing
from results.plots.scatter import Point, arm_scatter
from results.plots.style import GREY, empty, listed, safe, styles
from results.schema import Row, frame, records
from trainer.limits import ARTIFACT_CAP_BYTES
from trainer.records.states import TrialState
from trainer.records.text import count_of

_NEAR_CAP = 0.6  # draw the cap where the largest artifact takes at least this share of it
_SAME_STEP_TIME = 0.001  # relative difference below which two step times count as equal


def sizes(trials: pd.DataFrame, control: str | None = None, metric: str | None = None) -> go.Figure:
    """Draw bpb (mean over seeds) by artifact bytes (largest seed), with the cap and the Pareto front within it."""
    metric = metric or headline_of(trials)
    title = f"Artifact bytes and {label(metric)}"
    trials, control = labelled(trials, control)
    arms = grouped(trials, control, metric)
    points = []
    for arm, own in comparable(arms, metric, "artifact_bytes"):
        num_bytes = max(row["artifact_bytes"] for row in own)
        is_over = any(row["is_within_cap"] is False for row in own)
        about = f"{num_bytes:,} bytes{', over the cap' if is_over else ''}"
        points.append(_point(arm, num_bytes, own, metric, about, is_hollow=is_over))
    if not points:
        return empty(title, nothing(arms, metric))
    within = [
        {"arm": p.arm, "status": TrialState.FINISHED, "artifact_bytes": p.x, "is_within_cap": True, metric: p.y}
        for p in points if not p.is_hollow
    ]  # fmt: skip
    front = frontier(frame(within), metric)
    is_near = max(point.x for point in points) >= _NEAR_CAP * ARTIFACT_CAP_BYTES
    num_over = len(points) - len(within)
    chart = arm_scatter(
        title,
        "Down and left is better. Dotted: the Pareto front of the arms within the cap. Bars: the range over seeds. "
        + (f"Hollow: over the cap ({num_over}). " if num_over else "")
        + ("" if is_near else f"The cap of {ARTIFACT_CAP_BYTES:,} bytes is far to the right. ")
        + missing(arms, metric, "artifact_bytes"),
        points,
        styles(list(arms.rows), arms.control),
        [arms.control, *front["arm"]],
        x_name="artifact bytes (largest seed)",
        y_name=label(metric),
        x_include=[ARTIFACT_CAP_BYTES] if is_near else [],
        background=[
            go.Scatter(
                x=front["artifact_bytes"].tolist(), y=front[metric].tolist(), mode="lines", hoverinfo="skip",
                showlegend=False, line={"shape": "hv", "dash": "dot", "color": GREY, "width": 1.5},
            )
        ],
    )  # fmt: skip
    chart.update_layout(xaxis={"exponentformat": "SI", "nticks": 5})
    if is_near:
        chart.add_vline(ARTIFACT_CAP_BYTES, line={"dash": "longdash", "width": 2})
        text = f"cap {ARTIFACT_CAP_BYTES:,}"
        chart.add_annotation(text=text, x=ARTIFACT_CAP_BYTES, y=1, yref="paper", yanchor="bottom", xanchor="right")
    return chart


def gaps(trials: pd.DataFrame, control: str | None = None) -> go.Figure:
    """Draw the quantization gap by stored bits per parameter, after the codec."""
    title = "Quantization gap and stored bits"
    needed = ("quant_gap", "model_bytes", "num_params")
    trials, control = labelled(trials, control)
    arms = grouped(trials, control, "quant_gap")
    points = []
    for arm, own in comparable(arms, *needed):
        bits = statistics.fmean(8 * row["model_bytes"] / row["num_params"] for row in own)
        points.append(_point(arm, bits, own, "quant_gap", f"{bits:.2f} bits per parameter"))
    if not points:
        return empty(title, nothing(arms, "quant_gap"))
    return arm_scatter(
        title,
        "quant_gap = post-quant − float bpb, non-sliding. Bits: 8 × model_bytes / num_params, means over seeds. "
        + missing(arms, *needed),
        points,
        styles(list(arms.rows), arms.control),
        [arms.control],
        x_name="stored bits per parameter",
        y_name="quantization gap, bpb",
    )


def step_tax(
    trials: pd.DataFrame, control: str | None = None, metric: str | None = None, curves: pd.DataFrame | None = None
) -> go.Figure:
    """Draw the difference from the control by relative step time, at the end of training and at equal steps.

    Args:
        curves: as in `results.decompose`.
    """
    metric = metric or headline_of(trials)
    title = "Cost of step time"
    trials, control = labelled(trials, control)
    arms = grouped(trials, control, metric)
    lines = records(decompose(trials, control, metrics=[metric], curves=curves)) if arms.rows else []
    known = [line for line in lines if line["delta"] is not None and line["step_ms"] and line["control_step_ms"]]
    if not known:
        return empty(title, nothing(arms, metric))
    style_of = styles(list(arms.rows), arms.control)
    points, equal_steps, same = [], [], []
    for line in known:
        arm, end, tax = line["arm"], line["delta"], line["fewer_steps"] or 0.0
        slower = 100 * (line["step_ms"] / line["control_step_ms"] - 1)
        if abs(slower) <= 100 * _SAME_STEP_TIME and line["steps"] == line["control_steps"]:
            same.append(arm)
            continue
        hover = f"{safe(arm)}<br>step time {slower:+.1f} %<br>difference {end:+.4f}"
        hover += f"<br>at equal steps {end - tax:+.4f}" if line["fewer_steps"] is not None else "<br>not split by steps"
        points.append(Point(arm, slower, end, min(end, end - tax), max(end, end - tax), hover))
        if tax:
            marker = {"symbol": f"{style_of[arm].symbol}-open", "size": 9, "color": style_of[arm].color}
            equal_steps.append(
                go.Scatter(x=[slower], y=[end - tax], mode="markers", hoverinfo="skip", showlegend=False, marker=marker)
            )
    if not points:
        return empty(title, f"every arm has the step time of {arms.control}: they differ after training only")
    chart = arm_scatter(
        title,
        f"Solid: the difference from {arms.control} at the end. Hollow: at equal steps, without the effect of fewer or more "
        f"steps. {f'Omitted, same step time as the control: {listed(same)}. ' if same else ''}{missing(arms, metric)}",
        points,
        style_of,
        [],
        x_name="step time against the control, %",
        y_name=f"Δ {label(metric)}",
        x_include=[0.0],
        y_include=[0.0],
        background=equal_steps,
    )
    chart.add_hline(0)
    return chart.add_vline(0)


def _point(arm: str, x: float, rows: list[Row], metric: str, about_x: str, *, is_hollow: bool = False) -> Point:
    values = [float(row[metric]) for row in rows]
    mean = statistics.fmean(values)
    hover = f"{safe(arm)}<br>{label(metric)} {mean:.4f}, {count_of(len(values), 'seed')}<br>{about_x}"
    return Point(arm, x, mean, min(values), max(values), hover, is_hollow)
