"""Pictures of a run: one function per question, trials in, a plotly figure out.

Each takes the rows of `results.load`, and compares as `results.ablation` does: current trials only, on the control's seeds;
arms that cannot be compared, failed or are over the cap are shown as such. Where there is nothing to draw, the figure says
why. Heading and reading aid are in the figure's `layout.meta` as well. Learning curves: `curve_plot.py`; searches:
`search_plots.py`.
"""

import statistics
from collections import Counter
from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go

from results.analysis.ablation import Arms, ablation, by_seed, group, measured, nats_per_unit
from results.analysis.decomposition import decompose
from results.analysis.pareto import frontier
from results.analysis.statistics import paired_seeds
from results.plots.curves import learning_curves as learning_curves
from results.plots.style import (
    GREY,
    MOST_ARMS,
    Point,
    Style,
    core,
    empty,
    figure,
    listed,
    padded,
    plane,
    safe,
    short,
    styles,
)
from results.schema import Row, frame, records
from trainer.limits import ARTIFACT_CAP_BYTES, WIN_NATS
from trainer.records.results import METRICS
from trainer.records.states import TrialState

_ENDS = ("ci_low", "delta", "ci_high")
_NEAR_CAP = 0.6  # share of the cap from which on the axis reaches to it
_ALIKE = 0.001  # share of a step's time that two arms may differ by and count as one training


def deltas(trials: pd.DataFrame, control: str | None = None, metric: str = "sliding_bpb") -> go.Figure:
    """Every arm's difference from the control with its 95 % interval, and that of each pair of seeds.

    Args: as `results.ablation`. Raises: InputError: no such control or metric.
    """
    title = f"Difference in {_called(metric)} from the control"
    arms = _grouped(trials, control, metric)
    lines = records(ablation(trials, control, metric, on_mismatch="mark"))[1:] if arms else []
    if arms is None or not lines:
        return empty(title, _no_arms(arms))
    if all(line["delta"] is None for line in lines):
        return empty(title, f"no difference can be said: {_missing(arms, metric)}")
    num_lines = len(lines)
    best = sorted(line["delta"] for line in lines if line["delta"] is not None)[:MOST_ARMS]
    lines = lines if num_lines <= MOST_ARMS else [line for line in lines if line["delta"] in best]
    look = styles(list(arms.rows), arms.control)
    traces = [trace for row, line in enumerate(lines) for trace in _row_of(row, line, arms, metric, look[line["arm"]])]
    seen = padded([0.0, *core([line[name] for line in lines for name in _ENDS if line[name] is not None])])
    drawn = figure(
        title,
        f"Left of 0 is better than {arms.control}. Line: 95 % interval; dots: pairs of seeds; solid marker: WIN or LOSS."
        + (f" The best {len(lines)} of {num_lines} arms." if len(lines) < num_lines else ""),
        70 + 38 * len(lines),
        traces,
        xaxis={
            "title": {"text": f"{_called(metric)}, arm − {short(arms.control)}"},
            "tickformat": "+.4~f", "nticks": 5, "range": list(seen),
        },
        yaxis={
            "tickvals": list(range(len(lines))), "ticktext": [_tick(line, arms) for line in lines],
            "range": [len(lines) - 0.4, -0.6], "showgrid": False, "zeroline": False,
        },
    )  # fmt: skip
    drawn.add_vline(0)
    for row, line in enumerate(lines):
        if line["delta"] is not None and not seen[0] <= line["delta"] <= seen[1]:
            is_right = line["delta"] > seen[1]
            text = f"{line['delta']:+.4f} ▶" if is_right else f"◀ {line['delta']:+.4f}"
            edge = {"x": 1, "xanchor": "right"} if is_right else {"x": 0, "xanchor": "left"}
            drawn.add_annotation(text=text, y=row, xref="paper", font={"color": look[line["arm"]].color}, **edge)
    scale = nats_per_unit(metric, [row for rows in arms.rows.values() for row in rows])
    if scale:
        for side in (-1, 1):
            drawn.add_vline(side * WIN_NATS / scale, line={"dash": "dot", "width": 1})
        text = f"dotted: ±{WIN_NATS} nats per token"
        drawn.add_annotation(text=text, x=1, y=1, xref="paper", yref="paper", yanchor="bottom", xanchor="right")
    return drawn


def sizes(trials: pd.DataFrame, control: str | None = None, metric: str = "sliding_bpb") -> go.Figure:
    """Artifact bytes against bpb: means over seeds, the largest artifact, the Pareto front within the cap.

    Args: as `results.ablation`. Raises: InputError: no such control or metric.
    """
    title = f"Artifact bytes and {_called(metric)}"
    arms = _grouped(trials, control, metric)
    points, rows = [], []
    for arm, own in _comparable(arms, metric, "artifact_bytes"):
        num_bytes = max(row["artifact_bytes"] for row in own)
        is_over = any(row["is_within_cap"] is False for row in own)
        point = _point(
            arm, num_bytes, own, metric, f"{num_bytes:,} bytes{', over the cap' if is_over else ''}", is_over
        )
        points.append(point)
        rows.append(
            {
                "arm": arm,
                "status": TrialState.FINISHED,
                "artifact_bytes": num_bytes,
                "is_within_cap": not is_over,
                metric: point.y,
            }
        )
    if arms is None or not points:
        return empty(title, _nothing(arms, metric))
    front = frontier(frame(rows), metric)
    largest = max(point.x for point in points)
    is_near = largest >= _NEAR_CAP * ARTIFACT_CAP_BYTES
    num_over = sum(point.is_open for point in points)
    drawn = plane(
        title,
        "Down and left is better. Dotted: the Pareto front of the arms within the cap. Bars: the range over seeds. "
        + (f"Hollow: over the cap ({num_over}). " if num_over else "")
        + ("" if is_near else f"The cap of {ARTIFACT_CAP_BYTES:,} bytes is far to the right. ")
        + _missing(arms, metric, "artifact_bytes"),
        points,
        styles(list(arms.rows), arms.control),
        [arms.control, *front["arm"]],
        x_range=padded([*(p.x for p in points), *([ARTIFACT_CAP_BYTES] if is_near else [])], 0.12),
        extra=[_front(front["artifact_bytes"].tolist(), front[metric].tolist())],
        xaxis={"title": {"text": "artifact bytes (largest seed)"}, "tickformat": ".4~s", "nticks": 5},
        yaxis={"title": {"text": _called(metric)}, "tickformat": ".4f"},
    )
    if is_near:
        drawn.add_vline(ARTIFACT_CAP_BYTES, line={"dash": "longdash", "width": 2})
        text = f"cap {ARTIFACT_CAP_BYTES:,}"
        drawn.add_annotation(text=text, x=ARTIFACT_CAP_BYTES, y=1, yref="paper", yanchor="bottom")
    return drawn


def gaps(trials: pd.DataFrame, control: str | None = None) -> go.Figure:
    """What quantization costs (quant_gap) against what the weights take: stored bits per parameter, after the codec.

    Args: as `results.ablation`. Raises: InputError: no such control.
    """
    title = "Quantization gap and stored bits"
    arms = _grouped(trials, control, "quant_gap")
    points = []
    for arm, own in _comparable(arms, "quant_gap", "model_bytes", "num_params"):
        bits = statistics.fmean(8 * row["model_bytes"] / row["num_params"] for row in own)
        points.append(_point(arm, bits, own, "quant_gap", f"{bits:.2f} bits per parameter"))
    if arms is None or not points:
        return empty(title, _nothing(arms, "quant_gap"))
    return plane(
        title,
        "quant_gap = post-quant − float bpb, non-sliding. Bits: 8 × model_bytes / num_params, means over seeds. "
        + _missing(arms, "quant_gap", "model_bytes", "num_params"),
        points,
        styles(list(arms.rows), arms.control),
        [arms.control],
        xaxis={"title": {"text": "stored bits per parameter"}},
        yaxis={"title": {"text": "quantization gap, bpb"}, "tickformat": "+.4f"},
    )


def step_tax(
    trials: pd.DataFrame, control: str | None = None, metric: str = "sliding_bpb", curves: pd.DataFrame | None = None
) -> go.Figure:
    """What a slower step costs: step time relative to the control against the difference, at the end and at equal steps.

    Args: as `results.decompose`. Raises: InputError: no such control or metric.
    """
    title = "Step time and what it costs"
    arms = _grouped(trials, control, metric)
    lines = records(decompose(trials, control, metrics=[metric], curves=curves)) if arms else []
    known = [line for line in lines if line["delta"] is not None and line["step_ms"] and line["control_step_ms"]]
    slower = {line["arm"]: 100 * (line["step_ms"] / line["control_step_ms"] - 1) for line in known}
    own = [line for line in known if abs(slower[line["arm"]]) > 100 * _ALIKE or line["steps"] != line["control_steps"]]
    if arms is None or not known:
        return empty(title, _nothing(arms, metric))
    if not own:
        return empty(title, f"every arm takes as long per step as {arms.control}: they differ after training only")
    look = styles(list(arms.rows), arms.control)
    points, extra = [], []
    for line in own:
        arm, end, tax = line["arm"], line["delta"], line["fewer_steps"] or 0.0
        hover = f"{safe(arm)}<br>step time {slower[arm]:+.1f} %<br>difference {end:+.4f}"
        hover += f"<br>at equal steps {end - tax:+.4f}" if line["fewer_steps"] is not None else "<br>not split by steps"
        points.append(Point(arm, slower[arm], end, min(end, end - tax), max(end, end - tax), hover))
        if tax:
            open_end = {"symbol": f"{look[arm].symbol}-open", "size": [0, 9], "color": look[arm].color}
            extra.append(
                go.Scatter(
                    x=2 * [slower[arm]], y=[end, end - tax], mode="lines+markers", hoverinfo="skip",
                    line={"color": look[arm].color, "width": 1.5, "dash": "dot"}, marker=open_end,
                )
            )  # fmt: skip
    same = [line["arm"] for line in known if line not in own]
    drawn = plane(
        title,
        f"Solid: the difference from {arms.control} at the end. Hollow: at equal steps, without what fewer or more steps "
        f"change. {f'Not shown, as slow as the control: {listed(same)}. ' if same else ''}{_missing(arms, metric)}",
        [Point(p.arm, p.x, p.y, p.y, p.y, p.hover) for p in points],
        look,
        x_range=padded([0.0, *(p.x for p in points)], 0.12),
        y_range=padded([0.0, *core([value for p in points for value in (p.low, p.high)])], 0.1),
        extra=extra,
        xaxis={"title": {"text": "step time against the control, %"}, "tickformat": "+"},
        yaxis={"title": {"text": f"Δ {_called(metric)}"}, "tickformat": "+.4f"},
    )
    drawn.add_hline(0)
    return drawn.add_vline(0)


def _called(metric: str) -> str:
    return (METRICS[metric].label if metric in METRICS else "") or metric


def _grouped(trials: pd.DataFrame, control: str | None, metric: str) -> Arms | None:
    """The arms, None where there are none. Raises InputError for a control or metric that is not there."""
    return group(trials, control, metric, on_mismatch="mark") if len(trials) else None


def _comparable(arms: Arms | None, *needed: str) -> list[tuple[str, list[Row]]]:
    """The arms that compare with the control, with the finished rows in which all of these were measured."""
    if arms is None:
        return []
    found = []
    for arm, rows in arms.rows.items():
        own = [row for row in measured(rows, needed[0]) if all(row[name] is not None for name in needed)]
        if own and arm not in arms.problems:
            found.append((arm, own))
    return found


def _missing(arms: Arms, *needed: str) -> str:
    """The arms that are in no picture of this kind, and why, as a sentence; empty where all are."""
    shown = {arm for arm, _ in _comparable(arms, *needed)}
    absent = [f"{arm} ({_why(arm, arms)})" for arm in arms.rows if arm not in shown]
    return f"Not in the picture: {listed(absent)}." if absent else ""


def _why(arm: str, arms: Arms) -> str:
    if arm in arms.problems:
        return "not comparable"
    states = Counter(
        f"{row['status']}: {row['failure_kind']}" if row["failure_kind"] else row["status"]
        for row in arms.rows[arm]
        if row["status"] != TrialState.FINISHED
    )
    if not states:
        return "not measured"
    return ", ".join(f"{count} {state}" if count > 1 else state for state, count in states.items())


def _nothing(arms: Arms | None, metric: str) -> str:
    return (_missing(arms, metric) if arms else "") or _no_arms(arms)


def _no_arms(arms: Arms | None) -> str:
    return f"{arms.control} is the only arm: there is nothing to compare it with" if arms else "there are no trials yet"


def _point(arm: str, x: float, rows: list[Row], name: str, about_x: str, is_open: bool = False) -> Point:
    values = [float(row[name]) for row in rows]
    mean = statistics.fmean(values)
    hover = f"{safe(arm)}<br>{_called(name)} {mean:.4f}, {len(values)} seeds<br>{about_x}"
    return Point(arm, x, mean, min(values), max(values), hover, is_open)


def _front(x: Sequence[float], y: Sequence[float]) -> go.Scatter:
    return go.Scatter(
        x=x, y=y, mode="lines", hoverinfo="skip", line={"shape": "hv", "dash": "dot", "color": GREY, "width": 1.5}
    )


def _tick(line: Row, arms: Arms) -> str:
    said = "" if line["delta"] is not None and line["verdict"] is None else (line["verdict"] or "").lower()
    if line["delta"] is None:
        said = _why(line["arm"], arms) if line["arm"] in arms.problems or not line["n"] else "the control has no number"
    return f'{short(line["arm"])}<br><span style="font-size:10px">{safe(said)}</span>'


def _row_of(row: int, line: Row, arms: Arms, metric: str, style: Style) -> list[go.Scatter]:
    """The traces of one arm in `deltas`: its pairs of seeds, its mean with the interval. A cross on 0 has no number."""
    if line["delta"] is None:
        marker = {"symbol": "x-thin-open", "color": GREY, "size": 10, "line": {"width": 2}}
        text = f"{safe(line['arm'])}: {safe(line['reason'] or 'no number')}"
        return [go.Scatter(x=[0], y=[row], mode="markers", marker=marker, hovertext=[text], hoverinfo="text")]
    mine = by_seed(measured(arms.rows[line["arm"]], metric), metric)
    theirs = by_seed(arms.reference, metric)
    pairs = [mine[seed] - theirs[seed] for seed in paired_seeds(mine, theirs)]
    has_interval = line["ci_low"] is not None
    interval = (
        f"<br>95 % {line['ci_low']:+.4f} … {line['ci_high']:+.4f}, p_holm {line['p_holm']:.2g}" if has_interval else ""
    )
    hover = f"{safe(line['arm'])}: {line['verdict'] or ''}<br>{line['delta']:+.4f}, {line['n_pairs']} seeds{interval}"
    is_settled = line["verdict"] in ("WIN", "LOSS")
    symbol = "x" if line["verdict"] == "INFEASIBLE" else style.symbol if is_settled else f"{style.symbol}-open"
    dots = go.Scatter(
        x=pairs, y=len(pairs) * [row + 0.22], mode="markers", hoverinfo="skip",
        marker={"color": style.color, "size": 4, "opacity": 0.7},
    )  # fmt: skip
    mean = go.Scatter(
        x=[line["delta"]], y=[row], mode="markers", name=safe(line["arm"]), hovertext=[hover], hoverinfo="text",
        marker={"symbol": symbol, "color": style.color, "size": 11, "line": {"width": 2, "color": style.color}},
        error_x={
            "type": "data", "symmetric": False, "array": [line["ci_high"] - line["delta"]],
            "arrayminus": [line["delta"] - line["ci_low"]], "thickness": 2, "width": 4,
        } if has_interval else None,
    )  # fmt: skip
    return [*([dots] if len(pairs) > 1 else []), mean]
