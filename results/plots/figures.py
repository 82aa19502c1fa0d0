"""Charts of a run: differences from the control, artifact sizes, quantization gaps and step times.

Each function takes the rows of `results.load` and compares them as `results.ablation` does: current trials only, paired with
the control's seeds. Arms that failed, are over the cap or cannot be compared are marked or named as missing. A chart
without data shows the reason. Arguments are those of `results.ablation`; an unknown control or metric raises InputError.
"""

import statistics
from collections import Counter
from collections.abc import Iterator

import pandas as pd
import plotly.graph_objects as go

from results.analysis.ablation import ablation
from results.analysis.comparability import Arms, by_seed, group, measured, nats_per_unit
from results.analysis.decomposition import decompose
from results.analysis.pareto import frontier
from results.analysis.statistics import paired_seeds
from results.plots.scatter import Point, arm_scatter
from results.plots.style import GREY, MOST_ARMS, Style, core, empty, figure, listed, padded, safe, short, styles
from results.schema import Row, frame, records
from trainer.limits import ARTIFACT_CAP_BYTES, WIN_NATS
from trainer.records.results import METRICS
from trainer.records.states import TrialState
from trainer.records.text import count_of

_ENDS = ("ci_low", "delta", "ci_high")
_NEAR_CAP = 0.6  # draw the cap where the largest artifact takes at least this share of it
_SAME_STEP_TIME = 0.001  # relative difference below which two step times count as equal


def deltas(trials: pd.DataFrame, control: str | None = None, metric: str = "sliding_bpb") -> go.Figure:
    """Draw each arm's difference from the control with its 95 % interval, and the difference of each pair of seeds."""
    title = f"Difference in {_label(metric)} from the control"
    arms = _grouped(trials, control, metric)
    lines = records(ablation(trials, control, metric, on_mismatch="mark"))[1:] if arms.rows else []
    if not lines:
        return empty(title, _nothing(arms, metric))
    known = sorted(line["delta"] for line in lines if line["delta"] is not None)
    if not known:
        return empty(title, f"no comparison possible: {_missing(arms, metric)}")
    num_lines = len(lines)
    if num_lines > MOST_ARMS:
        lines = [line for line in lines if line["delta"] in known[:MOST_ARMS]]
    style_of = styles(list(arms.rows), arms.control)
    x_range = padded([0.0, *core([line[name] for line in lines for name in _ENDS if line[name] is not None])])
    chart = figure(
        title,
        f"Left of 0 is better than {arms.control}. Line: 95 % interval; dots: pairs of seeds; solid marker: WIN or LOSS."
        + (f" The best {len(lines)} of {num_lines} arms." if len(lines) < num_lines else ""),
        70 + 38 * len(lines),
        [trace for i, line in enumerate(lines) for trace in _delta_traces(i, line, arms, metric, style_of[line["arm"]])],
        xaxis={
            "title": {"text": f"{_label(metric)}, arm − {short(arms.control)}"},
            "tickformat": "+.4~f", "nticks": 5, "range": list(x_range),
        },
        yaxis={
            "tickvals": list(range(len(lines))), "ticktext": [_tick(line, arms) for line in lines],
            "range": [len(lines) - 0.4, -0.6], "showgrid": False, "zeroline": False,
        },
    )  # fmt: skip
    chart.add_vline(0)
    for i, line in enumerate(lines):
        if line["delta"] is not None and not x_range[0] <= line["delta"] <= x_range[1]:
            is_right = line["delta"] > x_range[1]
            text = f"{line['delta']:+.4f} ▶" if is_right else f"◀ {line['delta']:+.4f}"
            edge = {"x": 1, "xanchor": "right"} if is_right else {"x": 0, "xanchor": "left"}
            chart.add_annotation(text=text, y=i, xref="paper", font={"color": style_of[line["arm"]].color}, **edge)
    nats = nats_per_unit(metric, [row for rows in arms.rows.values() for row in rows])
    if nats:
        for side in (-1, 1):
            chart.add_vline(side * WIN_NATS / nats, line={"dash": "dot", "width": 1})
        text = f"dotted: ±{WIN_NATS} nats per token"
        chart.add_annotation(text=text, x=0, y=1, xref="paper", yref="paper", yanchor="bottom", xanchor="left")
    return chart


def sizes(trials: pd.DataFrame, control: str | None = None, metric: str = "sliding_bpb") -> go.Figure:
    """Draw bpb (mean over seeds) by artifact bytes (largest seed), with the cap and the Pareto front within it."""
    title = f"Artifact bytes and {_label(metric)}"
    arms = _grouped(trials, control, metric)
    points = []
    for arm, own in _comparable(arms, metric, "artifact_bytes"):
        num_bytes = max(row["artifact_bytes"] for row in own)
        is_over = any(row["is_within_cap"] is False for row in own)
        about = f"{num_bytes:,} bytes{', over the cap' if is_over else ''}"
        points.append(_point(arm, num_bytes, own, metric, about, is_hollow=is_over))
    if not points:
        return empty(title, _nothing(arms, metric))
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
        + _missing(arms, metric, "artifact_bytes"),
        points,
        styles(list(arms.rows), arms.control),
        [arms.control, *front["arm"]],
        x_name="artifact bytes (largest seed)",
        y_name=_label(metric),
        x_include=[ARTIFACT_CAP_BYTES] if is_near else [],
        background=[
            go.Scatter(
                x=front["artifact_bytes"].tolist(), y=front[metric].tolist(), mode="lines", hoverinfo="skip",
                showlegend=False, line={"shape": "hv", "dash": "dot", "color": GREY, "width": 1.5},
            )
        ],
    )  # fmt: skip
    chart.update_layout(xaxis={"tickformat": ".4~s", "nticks": 5}, yaxis={"tickformat": ".4f"})
    if is_near:
        chart.add_vline(ARTIFACT_CAP_BYTES, line={"dash": "longdash", "width": 2})
        text = f"cap {ARTIFACT_CAP_BYTES:,}"
        chart.add_annotation(text=text, x=ARTIFACT_CAP_BYTES, y=1, yref="paper", yanchor="bottom", xanchor="right")
    return chart


def gaps(trials: pd.DataFrame, control: str | None = None) -> go.Figure:
    """Draw the quantization gap by stored bits per parameter, after the codec."""
    title = "Quantization gap and stored bits"
    needed = ("quant_gap", "model_bytes", "num_params")
    arms = _grouped(trials, control, "quant_gap")
    points = []
    for arm, own in _comparable(arms, *needed):
        bits = statistics.fmean(8 * row["model_bytes"] / row["num_params"] for row in own)
        points.append(_point(arm, bits, own, "quant_gap", f"{bits:.2f} bits per parameter"))
    if not points:
        return empty(title, _nothing(arms, "quant_gap"))
    chart = arm_scatter(
        title,
        "quant_gap = post-quant − float bpb, non-sliding. Bits: 8 × model_bytes / num_params, means over seeds. "
        + _missing(arms, *needed),
        points,
        styles(list(arms.rows), arms.control),
        [arms.control],
        x_name="stored bits per parameter",
        y_name="quantization gap, bpb",
    )
    return chart.update_layout(yaxis={"tickformat": "+.4f"})


def step_tax(
    trials: pd.DataFrame, control: str | None = None, metric: str = "sliding_bpb", curves: pd.DataFrame | None = None
) -> go.Figure:
    """Draw the difference from the control by relative step time, at the end of training and at equal steps.

    Args:
        curves: as in `results.decompose`.
    """
    title = "Cost of step time"
    arms = _grouped(trials, control, metric)
    lines = records(decompose(trials, control, metrics=[metric], curves=curves)) if arms.rows else []
    known = [line for line in lines if line["delta"] is not None and line["step_ms"] and line["control_step_ms"]]
    if not known:
        return empty(title, _nothing(arms, metric))
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
        f"steps. {f'Omitted, same step time as the control: {listed(same)}. ' if same else ''}{_missing(arms, metric)}",
        points,
        style_of,
        [],
        x_name="step time against the control, %",
        y_name=f"Δ {_label(metric)}",
        x_include=[0.0],
        y_include=[0.0],
        background=equal_steps,
    )
    chart.update_layout(xaxis={"tickformat": "+"}, yaxis={"tickformat": "+.4f"})
    chart.add_hline(0)
    return chart.add_vline(0)


def _label(metric: str) -> str:
    return (METRICS[metric].label if metric in METRICS else "") or metric


def _grouped(trials: pd.DataFrame, control: str | None, metric: str) -> Arms:
    """Return the arms; none without trials. Raises InputError for an unknown control or metric."""
    return group(trials, control, metric, on_mismatch="mark") if len(trials) else Arms("", {}, [], {})


def _comparable(arms: Arms, *needed: str) -> Iterator[tuple[str, list[Row]]]:
    """Yield the arms that compare with the control, with the finished rows that have all `needed` columns."""
    for arm, rows in arms.rows.items():
        own = [row for row in measured(rows, needed[0]) if all(row[name] is not None for name in needed)]
        if own and arm not in arms.problems:
            yield arm, own


def _missing(arms: Arms, *needed: str) -> str:
    """Name the arms that the chart omits, and why; empty if it shows all."""
    shown = {arm for arm, _ in _comparable(arms, *needed)}
    absent = [f"{arm} ({_why(arm, arms)})" for arm in arms.rows if arm not in shown]
    return f"Omitted: {listed(absent)}." if absent else ""


def _why(arm: str, arms: Arms) -> str:
    if arm in arms.problems:
        return "not comparable"
    states = Counter(
        f"{row['status']}: {row['failure_kind']}" if row["failure_kind"] else row["status"]
        for row in arms.rows[arm]
        if row["status"] != TrialState.FINISHED
    )
    return ", ".join(f"{n} {state}" if n > 1 else state for state, n in states.items()) or "not measured"


def _nothing(arms: Arms, metric: str) -> str:
    """Return why a chart shows nothing."""
    if not arms.rows:
        return "there are no trials yet"
    return _missing(arms, metric) or f"{arms.control} is the only arm: there is nothing to compare it with"


def _point(arm: str, x: float, rows: list[Row], metric: str, about_x: str, *, is_hollow: bool = False) -> Point:
    values = [float(row[metric]) for row in rows]
    mean = statistics.fmean(values)
    hover = f"{safe(arm)}<br>{_label(metric)} {mean:.4f}, {count_of(len(values), 'seed')}<br>{about_x}"
    return Point(arm, x, mean, min(values), max(values), hover, is_hollow)


def _tick(line: Row, arms: Arms) -> str:
    text = (line["verdict"] or "").lower()
    if line["delta"] is None:
        text = _why(line["arm"], arms) if line["arm"] in arms.problems or not line["n"] else "the control has no result"
    return f'{short(line["arm"])}<br><span style="font-size:10px">{safe(text)}</span>'


def _delta_traces(y: int, line: Row, arms: Arms, metric: str, style: Style) -> list[go.Scatter]:
    """Return the traces of one arm in `deltas`: its pairs of seeds, its mean with the interval; a cross without a delta."""
    if line["delta"] is None:
        marker = {"symbol": "x-thin-open", "color": GREY, "size": 10, "line": {"width": 2}}
        text = f"{safe(line['arm'])}: {safe(line['reason'] or 'no result')}"
        return [go.Scatter(x=[0], y=[y], mode="markers", marker=marker, hovertext=[text], hoverinfo="text")]
    mine = by_seed(measured(arms.rows[line["arm"]], metric), metric)
    theirs = by_seed(arms.reference, metric)
    pairs = [mine[seed] - theirs[seed] for seed in paired_seeds(mine, theirs)]
    hover = f"{safe(line['arm'])}: {line['verdict'] or ''}<br>{line['delta']:+.4f}, {count_of(line['n_pairs'], 'seed')}"
    interval = None
    if line["ci_low"] is not None:
        hover += f"<br>95 % {line['ci_low']:+.4f} … {line['ci_high']:+.4f}, p (Holm) {line['p_holm']:.2g}"
        interval = {
            "type": "data", "symmetric": False, "array": [line["ci_high"] - line["delta"]],
            "arrayminus": [line["delta"] - line["ci_low"]], "thickness": 2, "width": 4,
        }  # fmt: skip
    symbol = style.symbol if line["verdict"] in ("WIN", "LOSS") else f"{style.symbol}-open"
    symbol = "x" if line["verdict"] == "INFEASIBLE" else symbol
    dots = go.Scatter(
        x=pairs, y=len(pairs) * [y + 0.22], mode="markers", hoverinfo="skip",
        marker={"color": style.color, "size": 4, "opacity": 0.7},
    )  # fmt: skip
    mean = go.Scatter(
        x=[line["delta"]], y=[y], mode="markers", name=short(line["arm"]), hovertext=[hover], hoverinfo="text",
        marker={"symbol": symbol, "color": style.color, "size": 11, "line": {"width": 2, "color": style.color}},
        error_x=interval,
    )  # fmt: skip
    return [*([dots] if len(pairs) > 1 else []), mean]
