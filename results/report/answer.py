"""The answer of a run in one sentence, and what the arm that it names sets."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from results.loading.configs import Change
from results.loading.study import StudySummary
from results.present.table_model import RunTable
from results.schema import Row, records
from trainer.limits import WIN_MIN_SEEDS
from trainer.records.text import count_of

_GROUPS = {
    "LOSS": "worse",
    "NOISE": "within the noise",
    "SMALL": "different by less than 0.005 nats",
    "INCONCLUSIVE": "too close to call",
    "INCOMPLETE": "incomplete",
    "INFEASIBLE": "over a limit",
    "NOT COMPARABLE": "not comparable",
}


@dataclass(frozen=True)
class Answer:
    """`kind`: its colour in report.css; `arm`: the winner or leader; `sets`: what it changes, with `–` for no control."""

    text: str
    kind: str
    arm: str | None = None
    sets: list[Change] | None = None


def search_answer(study: StudySummary) -> Answer:
    """Return the best proposal of a search and what it sets."""
    best = next((trial for trial in study.trials if trial.name in study.best[:1]), None)
    if best is None:
        return Answer(search_sentence(study), "open")
    sets = [Change(key, "", str(best.params[key])) for key in study.parameters if key in best.params]
    return Answer(search_sentence(study), "open", best.name, sets)


def answer(table: RunTable, configs: Mapping[str, list[Change] | None]) -> Answer:
    """Return the verdict and what the winner sets; without a winner, what the leader sets if it is ahead."""
    lines = [line for line in records(table.ablation) if line["delta"] is not None and line["verdict"] != "CONTROL"]
    wins = [line for line in lines if line["verdict"] == "WIN"]
    is_open = not any(line["verdict"] in ("LOSS", "NOISE", "SMALL") for line in lines)
    leaders = wins or [line for line in lines if is_open and line["delta"] < 0 and line["verdict"] != "INFEASIBLE"]
    leader = min(leaders, key=lambda line: line["delta"], default=None)
    kind = "good" if wins else "open" if is_open else "even"
    text = verdict_sentence(table)
    return Answer(text, kind, leader["arm"], configs.get(leader["arm"])) if leader else Answer(text, kind)


def search_sentence(study: StudySummary | None) -> str:
    """Return the best proposal of a search and how many meet its constraints; empty if there was no search."""
    if study is None:
        return ""
    num_feasible = sum(trial.is_feasible for trial in study.trials)
    feasible = f"; {num_feasible} of {count_of(len(study.trials), 'proposal')} met {' and '.join(study.constraints)}"
    feasible = f"{feasible if study.constraints else ''}."
    best = next((trial for trial in study.trials if trial.name in study.best[:1]), None)
    if best is None:
        return f"No best proposal{feasible}"
    values = ", ".join(f"{k} {v:.4f}" if v < 1000 else f"{k} {v:,.0f}" for k, v in best.values.items())
    front = f", one of {len(study.best)} non-dominated proposals" if len(study.best) > 1 else ""
    return f"Best proposal: {best.name} ({values}){front}{feasible}"


def verdict_sentence(table: RunTable) -> str:
    """Return what the run shows: the winner, or why there is none, and how many other arms had which result."""
    lines = records(table.ablation)
    if not lines:
        return "No trials yet."
    others = [line for line in lines if line["verdict"] != "CONTROL"]
    if not others:
        return f"{table.control} is the only arm: there is nothing to compare it with."
    known = [line for line in others if line["delta"] is not None]
    if not known:
        why = "the control has no result" if lines[0]["mean"] is None else "no other arm has a result to compare"
        return f"No comparison possible: {why}."
    wins = sorted((line for line in known if line["verdict"] == "WIN"), key=lambda line: line["delta"])
    if wins:
        best = wins[0]
        text = f"{best['arm']} beats {table.control} by {-best['delta']:.4f} bpb (p = {best['p_holm']:.2g} after Holm)"
        text += f", and so {'does' if len(wins) == 2 else 'do'} {_listed(wins[1:])}" if wins[1:] else ""
    elif any(line["verdict"] in ("LOSS", "NOISE", "SMALL", "INCONCLUSIVE", "INCOMPLETE") for line in known):
        text = f"No arm beats {table.control}"
    else:
        best = min([line for line in known if line["verdict"] != "INFEASIBLE"] or known, key=lambda line: line["delta"])
        lead = f"{abs(best['delta']):.4f} bpb {'ahead of' if best['delta'] < 0 else 'behind'} {table.control}"
        result = f"{best['arm']} is {lead} so far" if best["delta"] else f"none differs from {table.control} so far"
        text = f"Too few seeds: no arm has {WIN_MIN_SEEDS} to compare; {result}"
    return f"{text}{_others(others)}."


def _listed(lines: list[Row]) -> str:
    names = [str(line["arm"]) for line in lines[:3]] + ([f"{len(lines) - 3} more"] if len(lines) > 3 else [])
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _others(others: list[Row]) -> str:
    counts = Counter(
        _GROUPS.get(line["verdict"])
        if line["delta"] is not None or line["verdict"] == "NOT COMPARABLE"
        else "without a result"
        for line in others
    )
    parts = [f"{count_of(n, 'arm')} {'is' if n == 1 else 'are'} {group}" for group, n in counts.items() if group]
    return f"; {', '.join(parts)}" if parts else ""
