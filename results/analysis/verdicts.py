"""The verdicts on an arm, and the rule that gives them."""

from dataclasses import dataclass
from typing import Literal, get_args

from trainer.limits import WIN_MIN_SEEDS, WIN_NATS, WIN_P_VALUE

Verdict = Literal[
    "CONTROL", "WIN", "LOSS", "SMALL", "NOISE", "INCONCLUSIVE", "INCOMPLETE", "TOO FEW SEEDS", "INFEASIBLE",
    "NOT COMPARABLE", "KILLED", "FAILED",
]  # fmt: skip
MEANINGS: dict[Verdict, str] = {
    "CONTROL": "the arm that the others are compared with",
    "WIN": "better by 0.005 nats per token or more, p < 0.01 after Holm's correction, 3 seeds or more",
    "LOSS": "worse by 0.005 nats per token or more, p < 0.01 after Holm's correction, 3 seeds or more",
    "SMALL": "the 95 % interval excludes 0, but the difference is below 0.005 nats per token",
    "NOISE": "the 95 % interval includes 0 and lies within ±0.005 nats per token: no effect of that size",
    "INCONCLUSIVE": "these seeds cannot tell: more of them could show an effect of 0.005 nats per token, or that there is none",
    "INCOMPLETE": "seeds that failed or were killed are missing, and those that are left may flatter the arm",
    "TOO FEW SEEDS": "fewer than 3 seeds to compare",
    "INFEASIBLE": "a seed is over the 16,000,000 bytes or over the time limit for training or evaluation",
    "NOT COMPARABLE": "scored in another way than the control, or with another tokenizer or data",
    "KILLED": "no result: a stopping rule ended every trial",
    "FAILED": "no result: every trial failed or was killed, and at least one failed",
}
"""Every verdict and what it means, for docs and reports."""

_PAGE = """# Verdicts

<!-- Generated from results/analysis/verdicts.py by `python docs/generate.py`. Do not edit. -->

Every arm of a table has one verdict, the first that applies: CONTROL, NOT COMPARABLE, KILLED or FAILED, INFEASIBLE, then
the rule of the challenge on the numbers, which gives one of the others. INCOMPLETE replaces it where lost seeds may
flatter an arm. `reason` in `results.ablation`, and the footnotes of the table, say why.

| verdict | meaning |
|---|---|
"""
OnFailedSeeds = Literal["incomplete", "ignore"]
ON_FAILED_SEEDS: tuple[OnFailedSeeds, ...] = get_args(OnFailedSeeds)


def as_markdown() -> str:
    """Return the text of docs/verdicts.md."""
    return _PAGE + "".join(f"| {verdict} | {meaning} |\n" for verdict, meaning in MEANINGS.items())


@dataclass(frozen=True)
class Trials:
    """How the trials of one arm ended."""

    finished: int
    failed: int
    killed: int
    pending: int

    @property
    def lost(self) -> int:
        """The trials whose seeds have no number and will have none."""
        return self.failed + self.killed


def without_result(trials: Trials) -> Verdict | None:
    """Return KILLED or FAILED for an arm that will have no result unless it is run again, else None."""
    if trials.finished or trials.pending or not trials.lost:
        return None
    return "FAILED" if trials.failed else "KILLED"


def by_numbers(
    delta_nats: float | None, interval_nats: tuple[float, float] | None, p: float | None, num_seeds: int
) -> Verdict | None:
    """Apply the challenge's rule: at least 0.005 nats per token better, p < 0.01, at least 3 seeds.

    Args:
        delta_nats: arm minus control in nats per token; below zero is better. None = cannot be converted.
        interval_nats: 95 % interval of delta_nats; None without a spread.
        p: of the difference, corrected for the number of arms compared.
        num_seeds: seeds on each side of the difference.
    Returns:
        See `MEANINGS`; LOSS mirrors WIN. None: delta_nats is unknown.
    """
    if num_seeds < WIN_MIN_SEEDS:
        return "TOO FEW SEEDS"
    if delta_nats is None:
        return None
    if p is not None and p < WIN_P_VALUE and abs(delta_nats) >= WIN_NATS:
        return "WIN" if delta_nats < 0 else "LOSS"
    if interval_nats is None:
        return "INCONCLUSIVE"
    low, high = interval_nats
    if low > 0 or high < 0:
        return "SMALL" if abs(delta_nats) < WIN_NATS else "INCONCLUSIVE"
    return "NOISE" if low >= -WIN_NATS and high <= WIN_NATS else "INCONCLUSIVE"


def with_lost_seeds(
    verdict: Verdict | None, arm: Trials, control: Trials, on_failed_seeds: OnFailedSeeds = "incomplete"
) -> Verdict | None:
    """Return INCOMPLETE if the seeds that are left may flatter the side that the verdict favours, else the verdict.

    Bad seeds fail and are killed more often than good ones. So only a LOSS holds for an arm that lost seeds, and a LOSS
    does not hold against a control that lost seeds.
    """
    if on_failed_seeds == "ignore" or verdict in (None, "INFEASIBLE", "NOT COMPARABLE", "CONTROL"):
        return verdict
    is_open = control.lost if verdict == "LOSS" else arm.lost
    return "INCOMPLETE" if is_open else verdict
