"""The sections of a sweep file that configure stopping rules: `kill` and `race`. The rules are in `pgray/stopping/`.

A new rule needs its section model here, a field in `StoppingSections`, and one file in `pgray/stopping/`.
"""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Literal

from pydantic import Field

from trainer.config import Config
from trainer.errors import InputError
from trainer.records.results import LOWER_IS_BETTER, METRICS
from trainer.records.text import suggestion
from trainer.section import Rules, Section

CURVE_METRICS = ("val_bpb", "train_loss_nats")


class StoppingSection(Section):
    """What configures one stopping rule. `metric`: what it judges; lower is better."""

    metric: str

    @property
    def text(self) -> str:
        """The rule in one line."""
        raise NotImplementedError


class KillRule(StoppingSection):
    """Stops an arm once it is worse than the control by a preset margin.

    `arm`: a name, or a pattern with * and ?; it never covers the control. `at`: compare with the control at the same
    `step`, or in the same `phase` (the same share of the run, so that a slower arm is judged at the same learning rate and
    with the same gates open). `after_frac`: the first share of the run, in which nothing is judged. `at` and `after_frac`
    are for curve metrics.
    """

    arm: str = "*"
    worse_than_control_by: float = Field(gt=0)
    at: Literal["step", "phase"] = "phase"
    after_frac: float = Field(0.25, ge=0, lt=1)

    def rules(self) -> Rules:
        metrics = CURVE_METRICS + LOWER_IS_BETTER
        yield self.metric not in metrics, "metric", f"unknown metric; {suggestion(self.metric, metrics)}"
        fix = f"{self.metric} is judged when a seed has finished; remove it, or use {CURVE_METRICS[0]}"
        for key in ("at", "after_frac"):
            yield not self.is_on_curve and key in self.model_fields_set, key, fix

    @property
    def is_on_curve(self) -> bool:
        return self.metric in CURVE_METRICS

    @property
    def text(self) -> str:
        rule = f"{self.arm}: {self.metric} worse than the control's by more than {self.worse_than_control_by:g}"
        if not self.is_on_curve:
            return f"{rule} at the end of a seed"
        return f"{rule} at the same {self.at}, after {self.after_frac:.0%} of the run"

    def covers(self, arm: str, control: str) -> bool:
        return arm != control and (arm == self.arm or fnmatchcase(arm, self.arm))


class Race(StoppingSection):
    """Runs a few seeds of every arm, and more only of arms that may still be the best.

    `first`: seeds that every arm gets. `confidence`: probability that the truly best arm is never dropped.
    """

    metric: str = "sliding_bpb"
    first: int = Field(2, ge=2)
    confidence: float = Field(0.95, ge=0.5, lt=1)

    def rules(self) -> Rules:
        yield (
            self.metric not in LOWER_IS_BETTER,
            "metric",
            f"unknown metric; {suggestion(self.metric, LOWER_IS_BETTER)}",
        )

    @property
    def text(self) -> str:
        return f"race on {self.metric}: after {self.first} seeds only arms that may be best ({self.confidence:.0%})"


class StoppingSections(Section):
    """The part of a sweep file that configures stopping rules."""

    kill: list[KillRule] = Field(default_factory=list)
    race: Race | None = None

    @property
    def stopping(self) -> list[StoppingSection]:
        """The sections that are given, in the order in which their rules judge; the items of a list one by one."""
        values = (getattr(self, name) for name in StoppingSections.model_fields)
        return [section for value in values if value for section in (value if isinstance(value, list) else [value])]


def check_rules(sections: StoppingSections, configs: Mapping[str, Config], control: str, origin: str) -> None:
    """Refuse a rule that could never apply. `configs`: arm -> configuration.

    Raises:
        InputError: a kill rule covers no arm, or an arm that a rule judges or compares with does not measure its metric.
    """
    judged: list[tuple[str, str, list[str]]] = []  # key of the rule, metric, arms
    for index, rule in enumerate(sections.kill):
        covered = [arm for arm in configs if rule.covers(arm, control)]
        if not covered:
            fix = f"covers no arm other than the control; use one of {', '.join(a for a in configs if a != control)}"
            raise InputError(origin, f"kill.{index}.arm", rule.arm, fix)
        judged.append((f"kill.{index}", rule.metric, [control, *covered]))
    if sections.race:
        judged.append(("race", sections.race.metric, list(configs)))
    for key, metric, arms in judged:
        for arm in arms:
            if missing := _missing_setting(metric, configs[arm]):
                raise InputError(origin, f"{key}.metric", metric, f"arm {arm} does not measure it; set {missing}")


def _missing_setting(metric: str, config: Config) -> str | None:
    """Return the setting that makes an arm measure this metric; None if it does."""
    if metric == "val_bpb" and not config.train.val_every:
        return "train.val_every, steps between validations"
    return METRICS[metric].needs if metric in METRICS and not METRICS[metric].is_measured(config) else None
