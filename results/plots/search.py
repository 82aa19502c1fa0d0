"""Pictures of a search: which parameters mattered, and its proposals. Made from the summary `study.json` of a run folder."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from results.plots.style import COLORS, GREY, core, empty, figure, padded, safe, short

_MOST_PARAMETERS = 15
_LOOKS = {  # state of a proposal -> symbol; the feasible ones that are nobody's best are hollow
    "best": ("star", COLORS[0], 12), "feasible": ("circle-open", COLORS[0], 8), "infeasible": ("x-thin-open", COLORS[3], 8),
}  # fmt: skip


def proposals(summary: Mapping[str, Any]) -> pd.DataFrame:
    """The proposals of a search, one row each: name, state, look (best, feasible, infeasible or null), reason, and a
    column for each objective: the mean over seeds, null where there is none. `attrs`: `objectives`, name -> min or max."""
    best = set(summary.get("best") or [])
    lines = []
    for trial in summary.get("trials") or []:
        is_scored = trial.get("state") == "complete"
        look = "best" if trial["name"] in best else "feasible" if trial.get("is_feasible") else "infeasible"
        values = {name: (trial.get("values") or {}).get(name) for name in summary.get("objectives") or {}}
        about = {"name": trial["name"], "state": trial.get("state"), "reason": trial.get("reason")}
        lines.append(about | {"look": look if is_scored else None} | values)
    columns = ["name", "state", "reason", "look", *(summary.get("objectives") or {})]
    made = pd.DataFrame(lines, columns=columns)
    made.attrs["objectives"] = dict(summary.get("objectives") or {})
    return made


def importances(summary: Mapping[str, Any]) -> pd.DataFrame:
    """parameter, share: how much of the best proposals' distinction lies in it; largest first."""
    shares = summary.get("importances") or {}
    return pd.DataFrame({"parameter": list(shares), "share": [float(share) for share in shares.values()]})


def importance_plot(shares: pd.DataFrame) -> go.Figure:
    """Bars of `importances`."""
    title = "Which parameters mattered"
    if shares.empty:
        return empty(title, "too few feasible proposals to tell")
    shown = shares.sort_values("share", ascending=False).head(_MOST_PARAMETERS)
    names, values = shown["parameter"].tolist(), shown["share"].tolist()
    bars = go.Bar(
        x=values, y=list(range(len(values))), orientation="h", marker={"color": COLORS[0]}, width=0.6,
        text=[f"{value:.0%}" for value in values], textposition="outside", cliponaxis=False,
        hovertext=[safe(f"{name}: {value:.1%}") for name, value in zip(names, values, strict=True)], hoverinfo="text",
    )  # fmt: skip
    return figure(
        title,
        "PED-ANOVA: how much the best proposals differ from all others in each parameter.",
        60 + 26 * len(values),
        [bars],
        xaxis={"tickformat": ".0%", "range": [0, 1.15 * max(values) or 1], "nticks": 5},
        yaxis={
            "tickvals": list(range(len(values))), "ticktext": [short(name, 28) for name in names],
            "range": [len(values) - 0.4, -0.6], "showgrid": False,
        },
    )  # fmt: skip


def proposal_plot(made: pd.DataFrame) -> go.Figure:
    """The proposals of a search: with two objectives or more their plane (the first two), with one its history.

    Args:
        made: as from `proposals`.
    """
    directions: dict[str, str] = made.attrs.get("objectives", {})
    objectives = list(directions)
    title = "The search's proposals"
    scored = made[made["look"].notna()]
    if scored.empty or not objectives:
        return empty(title, "no proposal has been scored yet")
    lost = len(made) - len(scored)
    note = "★ best. ○ feasible. × breaks a constraint. " + (
        f"{lost} open, failed or outside, not drawn." if lost else ""
    )
    has_plane = len(objectives) > 1
    x_name, y_name = (objectives[0], objectives[1]) if has_plane else ("proposal", objectives[0])
    x = scored[x_name].tolist() if has_plane else [int(number) for number in scored.index]
    y = scored[y_name].tolist()
    traces = []
    if not has_plane:
        feasible = scored[scored["look"] != "infeasible"]
        values = feasible[y_name].astype(float)
        best_so_far = (values.cummin() if directions[y_name] == "min" else values.cummax()).tolist()
        numbers = [int(number) for number in feasible.index]
        line = {"shape": "hv", "color": GREY, "dash": "dot"}
        traces.append(go.Scatter(x=numbers, y=best_so_far, mode="lines", line=line, hoverinfo="skip"))
        note += " Dotted: the best so far."
    for look, (symbol, color, size) in _LOOKS.items():
        chosen = [i for i, kind in enumerate(scored["look"]) if kind == look]
        traces.append(
            go.Scatter(
                x=[x[i] for i in chosen], y=[y[i] for i in chosen], mode="markers", name=look, cliponaxis=False,
                marker={"symbol": symbol, "color": color, "size": size, "line": {"width": 2, "color": color}},
                hovertext=[f"{scored['name'].iloc[i]}<br>{x_name} {x[i]:,.6g}<br>{y_name} {y[i]:,.6g}" for i in chosen],
                hoverinfo="text",
            )
        )  # fmt: skip
    return figure(
        title, note.strip(), 400, traces,
        xaxis={"title": {"text": x_name}, "range": list(padded(x)), "tickformat": ",.6~g" if has_plane else ",d"},
        yaxis={"title": {"text": y_name}, "range": list(padded(core(y))), "tickformat": ",.6~g"},
    )  # fmt: skip
