"""Main effects and interactions of a sweep whose arms are a full cross of two or more factors: `effects`."""

import itertools
import json
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from results.analysis.comparability import Arms, circumstances, group, measured, nats_per_unit
from results.analysis.headline import headline_of
from results.analysis.statistics import holm
from results.loading.configs import config_of
from results.schema import Dtype, Row, typed_frame
from trainer.errors import InputError
from trainer.presets.resolve import flatten
from trainer.records.text import count_of

_ROUNDING = 1e-12  # a residual below this share of the values' size is floating-point rounding
_DTYPES: dict[str, Dtype] = {
    "term": "string", "levels": "string", "estimate": "Float64", "ci_low": "Float64", "ci_high": "Float64",
    "p": "Float64", "p_holm": "Float64", "n": "Int64", "estimate_nats": "Float64", "reason": "string",
}  # fmt: skip
Factors = Mapping[str, Mapping[str, object]]
"""Factor -> arm -> level."""
_Weights = NDArray[np.float64]


def effects(
    trials: pd.DataFrame,
    factors: Factors | Sequence[str] | None = None,
    control: str | None = None,
    metric: str | None = None,
) -> pd.DataFrame:
    """Return the effect of each factor averaged over the others, and the interactions of two or more.

    Least squares on one mean per arm plus one per seed (seeds are blocks), so with equal numbers of seeds an effect
    is a difference of means of arms, and its error is the residual after arms and seeds.

    Args:
        trials: rows as from `results.load`; without arms that do not belong to the cross.
        factors: config keys such as `qat.enabled`, or the start of several, such as `quant.bits`; or factor -> arm ->
            level. None: the config keys in which the arms differ; keys that change together are one factor.
        control: the arm whose levels are the reference. None: the sweep's own, else the first arm.
        metric: any numeric column. None: as `results.ablation` chooses it.
    Returns:
        A row for each term and choice of levels. Main effect `a against b`: mean of all arms with a minus mean of all
        arms with b. Interaction of two factors: the effect of the one at the other's first level minus that at its second
        (a difference of differences, not halved), averaged over further factors; of three: the difference of two such.
        estimate with 95 % interval and p; p_holm over all rows; n trials in the model; estimate_nats per token; reason:
        why a number is null, or what is not in it. Null = unknown.
    Raises:
        InputError: arms are not the full cross of these factors, each cell one arm; no such control or metric.
        NotComparableError: the rows were scored on other tokens, bytes, data, tokenizer or evaluation settings.
    """
    metric = metric or headline_of(trials)
    arms = group(trials, control, metric)
    cross = _cross(arms, factors if isinstance(factors, Mapping) else _from_configs(trials, arms, factors))
    rows = [row for own in arms.rows.values() for row in measured(own, metric)]
    estimate, reason = _fit(rows, cross, metric)
    asked = [row for own in arms.rows.values() for row in own]
    over_cap = sum(row["is_within_cap"] is False for row in rows)
    notes = [
        reason,
        f"{len(asked) - len(rows)} of {len(asked)} trials have no result" if len(rows) < len(asked) else None,
        f"{count_of(over_cap, 'trial')} over the cap in the means" if over_cap else None,
        *circumstances(rows, arms.reference),
    ]
    scale = nats_per_unit(metric, rows)
    lines = []
    for term, levels, weights in cross.contrasts():
        line: Row = {"term": term, "levels": levels, "n": len(rows), "reason": "; ".join(filter(None, notes)) or None}
        line |= estimate(weights) if estimate else {}
        if scale is not None and "estimate" in line:
            line["estimate_nats"] = line["estimate"] * scale
        lines.append(line)
    for line, p_holm in zip(lines, holm([line.get("p") for line in lines]), strict=True):
        line["p_holm"] = p_holm
    return typed_frame(lines, _DTYPES)


def cell_means(
    trials: pd.DataFrame,
    factors: Factors | Sequence[str] | None = None,
    control: str | None = None,
    metric: str | None = None,
) -> pd.DataFrame:
    """Return a row for each cell of the cross: its arm, the level of each factor, and the mean of the metric.

    Arguments and errors are those of `effects`. An arm without a result has a null mean.
    """
    metric = metric or headline_of(trials)
    arms = group(trials, control, metric)
    cross = _cross(arms, factors if isinstance(factors, Mapping) else _from_configs(trials, arms, factors))
    lines: list[Row] = []
    for (arm, _), levels in zip(cross.cell.items(), itertools.product(*cross.levels.values()), strict=True):
        values = [float(row[metric]) for row in measured(arms.rows[arm], metric)]
        mean = statistics.fmean(values) if values else None
        lines.append({"arm": arm, **dict(zip(cross.levels, levels, strict=True)), metric: mean})
    dtypes: dict[str, Dtype] = dict.fromkeys(["arm", *cross.levels], "string")
    return typed_frame(lines, dtypes | {metric: "Float64"})


@dataclass(frozen=True)
class _Cross:
    """The arms as a grid: one axis per factor, the control's level first; `cell`: arm -> flat index."""

    levels: dict[str, list[str]]
    cell: dict[str, int]

    def contrasts(self) -> list[tuple[str, str, _Weights]]:
        """Return term, levels and weights of the cells' means, main effects first."""
        found = []
        units = {name: np.eye(len(levels)) for name, levels in self.levels.items()}
        for order in range(1, len(self.levels) + 1):
            for chosen in itertools.combinations(self.levels, order):
                for picks in itertools.product(*(range(1, len(self.levels[name])) for name in chosen)):
                    pick = dict(zip(chosen, picks, strict=True))
                    # Weights along a factor: the mean over its levels, or a level against the first.
                    axes = [unit[pick[n]] - unit[0] if n in pick else unit.mean(axis=0) for n, unit in units.items()]
                    words = (f"{self.levels[name][i]} against {self.levels[name][0]}" for name, i in pick.items())
                    found.append((" × ".join(chosen), ", ".join(words), reduce(np.multiply.outer, axes).ravel()))
        return found


def _cross(arms: Arms, factors: Factors) -> _Cross:
    names = ", ".join(factors) or "none"
    if len(factors) < 2:
        raise InputError("effects", "factors", names, "give two or more in which the arms differ")
    levels: dict[str, list[str]] = {}
    for name, by_arm in factors.items():
        missing = next((arm for arm in arms.rows if arm not in by_arm), None)
        if missing:
            raise InputError("effects", f"factors.{name}", missing, "this arm has no level; give one or leave it out")
        levels[name] = list(dict.fromkeys(_word(by_arm[arm]) for arm in arms.rows))  # the control comes first
        if len(levels[name]) < 2:
            raise InputError("effects", f"factors.{name}", levels[name][0], "the same in every arm; leave it out")
    arm_of: dict[tuple[str, ...], str] = {}
    for arm in arms.rows:
        other = arm_of.setdefault(tuple(_word(factors[name][arm]) for name in levels), arm)
        if other != arm:
            raise InputError("effects", "factors", names, f"{other} and {arm} have the same levels; leave one out")
    cells = list(itertools.product(*levels.values()))
    empty = next((cell for cell in cells if cell not in arm_of), None)
    if empty:
        which = ", ".join(f"{name} = {level}" for name, level in zip(levels, empty, strict=True))
        raise InputError("effects", "factors", names, f"not a full cross: no arm has {which}")
    return _Cross(levels, {arm_of[cell]: index for index, cell in enumerate(cells)})


def _word(level: object) -> str:
    return level if isinstance(level, str) else json.dumps(level)


def _from_configs(trials: pd.DataFrame, arms: Arms, asked: Sequence[str] | None) -> Factors:
    """Return the levels by config key, read from the trials' config.json."""
    configs = {arm: config_of(rows, trials.attrs.get("runs", [])) for arm, rows in arms.rows.items()}
    unknown = next((arm for arm, config in configs.items() if not config), None)
    if unknown:
        fix = "no config.json of this arm: none of its trials has started; leave it out or give its levels"
        raise InputError("effects", "factors", unknown, fix)
    flat = {arm: dict(flatten(config)) for arm, config in configs.items()}
    keys = list(dict.fromkeys(key for values in flat.values() for key in values))
    if asked is None:
        return _finest({key: {arm: values.get(key) for arm, values in flat.items()} for key in keys if key != "seed"})
    chosen: dict[str, dict[str, object]] = {}
    for name in asked:
        below = [key for key in keys if key == name or key.startswith(f"{name}.")]
        if not below:
            raise InputError("effects", "factors", name, "no such config key; see docs/config.md")
        changing = [key for key in below if len({_word(values.get(key)) for values in flat.values()}) > 1] or below[:1]
        chosen[name] = {
            arm: values.get(name) if below == [name] else {key[len(name) + 1 :]: values.get(key) for key in changing}
            for arm, values in flat.items()
        }
    return chosen


def _finest(keys: Factors) -> Factors:
    """Return the keys that distinguish arms. A key that differs only where another does is merged into that one."""
    parts = {key: tuple(map(_word, by_arm.values())) for key, by_arm in keys.items()}
    parts = {key: part for key, part in parts.items() if len(set(part)) > 1}

    def follows(key: str, other: str) -> bool:
        return len(set(zip(parts[key], parts[other], strict=True))) == len(set(parts[other]))

    kept: dict[str, list[str]] = {}
    for key in parts:
        is_stronger = (other for other in parts if follows(key, other) and not follows(other, key))
        if not any(is_stronger) and not any(follows(key, other) for other in kept):
            kept[key] = [other for other in parts if follows(other, key) and other != key]
    return {f"{key} (+{len(more)} keys)" if more else key: keys[key] for key, more in kept.items()}


def _fit(rows: list[Row], cross: _Cross, metric: str) -> tuple[Callable[[_Weights], Row] | None, str | None]:
    """Fit the least-squares model. Return the estimate of a contrast's weights, None if a cell is empty; and a note."""
    seen = {row["arm"] for row in rows}
    lacking = [arm for arm in cross.cell if arm not in seen]
    if lacking:
        return None, f"no result of {', '.join(lacking)}: effects need every cell of the cross"
    from statsmodels.regression.linear_model import OLS

    y = np.array([float(row[metric]) for row in rows])
    cells = np.array([cross.cell[row["arm"]] for row in rows])[:, None] == np.arange(len(cross.cell))
    seeds = sorted({row["seed"] for row in rows})
    blocks = np.array([row["seed"] for row in rows])[:, None] == np.array(seeds[1:])
    x = np.hstack([cells, blocks]).astype(float)
    notes = []
    if np.linalg.matrix_rank(x) < x.shape[1]:
        x = cells.astype(float)
        notes.append("seeds do not pair: they are not blocks")
    fit = OLS(y - y.mean(), x).fit()
    has_error = fit.df_resid > 0
    if not has_error:
        notes.append("one result per mean: no interval")
    elif math.sqrt(fit.ssr / fit.df_resid) <= _ROUNDING * np.abs(y).max():
        has_error = False
        notes.append("the same differences on every seed (is the seed used?): no interval")

    def estimate(weights: _Weights) -> Row:
        padded = np.pad(weights, (0, x.shape[1] - len(weights)))
        if not has_error:
            return {"estimate": float(padded @ fit.params)}
        test = fit.t_test(padded)
        low, high = test.conf_int()[0]
        values = {"estimate": test.effect[0], "ci_low": low, "ci_high": high, "p": test.pvalue}
        return {name: float(value) for name, value in values.items()}

    return estimate, "; ".join(notes) or None
