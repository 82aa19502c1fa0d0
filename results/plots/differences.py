"""The chart of differences from the control: `deltas`."""

import pandas as pd
import plotly.graph_objects as go

from results.analysis.ablation import ablation
from results.analysis.comparability import Arms, by_seed, measured, nats_per_unit
from results.analysis.headline import headline_of
from results.analysis.statistics import paired_seeds
from results.loading.arm_labels import labelled
from results.plots.compared import grouped, label, missing, nothing, why_missing
from results.plots.style import GREY, MOST_ARMS, Style, core, empty, figure, padded, safe, styles
from results.schema import Row, records
from trainer.limits import WIN_NATS
from trainer.records.text import count_of

_ENDS = ("ci_low", "delta", "ci_high")


def deltas(trials: pd.DataFrame, control: str | None = None, metric: str | None = None) -> go.Figure:
    """Draw each arm's difference from the control with its 95 % interval, and the difference of each pair of seeds."""
    metric = metric or headline_of(trials)
    title = f"Difference in {label(metric)} from the control"
    trials, control = labelled(trials, control)
    arms = grouped(trials, control, metric)
    lines = records(ablation(trials, control, metric, on_mismatch="mark"))[1:] if arms.rows else []
    if not lines:
        return empty(title, nothing(arms, metric))
    known = sorted(line["delta"] for line in lines if line["delta"] is not None)
    if not known:
        return empty(title, f"no comparison possible: {missing(arms, metric)}")
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
        [
            trace for i, line in enumerate(lines) if line["delta"] is not None
            for trace in _delta_traces(i, line, arms, metric, style_of[line["arm"]])
        ],
        is_wide=True,
        xaxis={
            "title": {"text": f"{label(metric)}, arm − {style_of[arms.control].label}"},
            "nticks": 5, "range": list(x_range),
        },
        yaxis={
            "tickvals": list(range(len(lines))), "ticktext": [_tick(line, style_of[line["arm"]]) for line in lines],
            "range": [len(lines) - 0.4, -0.6], "showgrid": False, "zeroline": False,
        },
    )  # fmt: skip
    chart.add_vline(0)
    for i, line in enumerate(lines):
        if line["delta"] is None:
            why = safe(_why_no_delta(line, arms))
            chart.add_annotation(text=why, y=i, x=0, xref="paper", xanchor="left", xshift=6, font={"color": GREY})
        elif not x_range[0] <= line["delta"] <= x_range[1]:
            is_right = line["delta"] > x_range[1]
            arrow = f"{line['delta']:+.4f} ▶" if is_right else f"◀ {line['delta']:+.4f}"
            edge = {"x": 1, "xanchor": "right"} if is_right else {"x": 0, "xanchor": "left"}
            chart.add_annotation(text=arrow, y=i, xref="paper", font={"color": style_of[line["arm"]].color}, **edge)
    nats = nats_per_unit(metric, [row for rows in arms.rows.values() for row in rows])
    if nats:
        for side in (-1, 1):
            chart.add_vline(side * WIN_NATS / nats, line={"dash": "dot", "width": 1})
        text = f"dotted: ±{WIN_NATS} nats per token"
        chart.add_annotation(text=text, x=0, y=1, xref="paper", yref="paper", yanchor="bottom", xanchor="left")
    return chart


def _tick(line: Row, style: Style) -> str:
    verdict = (line["verdict"] or "").lower() if line["delta"] is not None else ""
    return f'{style.label}<br><span style="font-size:10px">{safe(verdict)}</span>'


def _why_no_delta(line: Row, arms: Arms) -> str:
    is_lacking = line["arm"] in arms.problems or not line["n"]
    return why_missing(line["arm"], arms) if is_lacking else "the control has no result"


def _delta_traces(y: int, line: Row, arms: Arms, metric: str, style: Style) -> list[go.Scatter]:
    """Return the traces of one arm in `deltas`: its pairs of seeds, its mean with the interval."""
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
        x=[line["delta"]], y=[y], mode="markers", name=style.label, hovertext=[hover], hoverinfo="text",
        marker={"symbol": symbol, "color": style.color, "size": 11, "line": {"width": 2, "color": style.color}},
        error_x=interval,
    )  # fmt: skip
    return [*([dots] if len(pairs) > 1 else []), mean]
