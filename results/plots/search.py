"""Charts of a search: the importance of its parameters, and its proposals."""

import itertools

import plotly.graph_objects as go

from results.loading.study import StudySummary
from results.plots.style import COLORS, GREY, core, empty, figure, padded, safe, short

_MOST_PARAMETERS = 15
_MARKERS = {  # symbol, color, size
    "best": ("star", COLORS[0], 12), "feasible": ("circle-open", COLORS[0], 8), "infeasible": ("x-thin-open", COLORS[3], 8),
}  # fmt: skip


def importance_plot(study: StudySummary) -> go.Figure:
    """Draw the importances as bars, the largest first."""
    title = "Parameter importances"
    if not study.importances:
        return empty(title, "too few feasible proposals to tell")
    bars = sorted(study.importances.items(), key=lambda bar: -bar[1])[:_MOST_PARAMETERS]
    ticks, shares = list(range(len(bars))), [share for _, share in bars]
    trace = go.Bar(
        x=shares, y=ticks, orientation="h", marker={"color": COLORS[0]}, width=0.6,
        text=[f"{share:.0%}" for share in shares], textposition="outside", cliponaxis=False,
        hovertext=[safe(f"{name}: {share:.1%}") for name, share in bars], hoverinfo="text",
    )  # fmt: skip
    return figure(
        title,
        "PED-ANOVA: how much the best proposals differ from all others in each parameter.",
        60 + 26 * len(bars),
        [trace],
        xaxis={"tickformat": ".0%", "range": [0, 1.15 * max(shares) or 1], "nticks": 5},
        yaxis={
            "tickvals": ticks, "ticktext": [short(name, 28) for name, _ in bars],
            "range": [len(bars) - 0.4, -0.6], "showgrid": False,
        },
    )  # fmt: skip


def proposal_plot(study: StudySummary) -> go.Figure:
    """Draw the scored proposals: one objective by the number of the proposal, or the first two against each other."""
    title, scored = "Proposals of the search", study.scored
    if not scored or not study.objectives:
        return empty(title, "no proposal has been scored yet")
    is_plane = len(study.objectives) > 1
    x_name, y_name = list(study.objectives)[:2] if is_plane else ("proposal", *study.objectives)
    number = {trial.name: i for i, trial in enumerate(study.trials)}
    x = {t.name: t.values[x_name] if is_plane else number[t.name] for t in scored}
    y = {t.name: t.values[y_name] for t in scored}
    kinds = {t.name: "feasible" if t.is_feasible else "infeasible" for t in scored} | dict.fromkeys(study.best, "best")
    num_unscored = len(study.trials) - len(scored)
    note = "★ best. ○ feasible. × breaks a constraint."
    note += f" Omitted: {num_unscored} open, failed or outside the space." if num_unscored else ""
    traces = []
    if not is_plane:
        pick = min if study.objectives[y_name] == "min" else max
        feasible = [trial.name for trial in scored if trial.is_feasible]
        best_so_far = list(itertools.accumulate((y[name] for name in feasible), pick))
        line = {"shape": "hv", "color": GREY, "dash": "dot"}
        traces.append(
            go.Scatter(x=[x[name] for name in feasible], y=best_so_far, mode="lines", line=line, hoverinfo="skip")
        )
        note += " Dotted: the best so far."
    for kind, (symbol, color, size) in _MARKERS.items():
        names = [name for name in x if kinds[name] == kind]
        traces.append(
            go.Scatter(
                x=[x[name] for name in names], y=[y[name] for name in names], mode="markers", name=kind, cliponaxis=False,
                marker={"symbol": symbol, "color": color, "size": size, "line": {"width": 2, "color": color}},
                hovertext=[f"{name}<br>{x_name} {x[name]:,.6g}<br>{y_name} {y[name]:,.6g}" for name in names],
                hoverinfo="text",
            )
        )  # fmt: skip
    return figure(
        title, note, 400, traces,
        xaxis={
            "title": {"text": x_name}, "range": list(padded(list(x.values()))), "tickformat": ",.6~g" if is_plane else ",d",
        },
        yaxis={"title": {"text": y_name}, "range": list(padded(core(list(y.values())))), "tickformat": ",.6~g"},
    )  # fmt: skip
