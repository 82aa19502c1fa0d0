"""Assigns score lines to an evaluation: plain, sliding window or test-time training. The label alone does not decide.

#1002 prints a sliding score as `final_int8_zlib_roundtrip`; #975 and #1032 repeat the sliding score under such a name; the
challenge's baseline prints a plain score under it. The line's neighbours decide, else how long the evaluation took.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from results.importers.log_events import Event, LogRun
from results.importers.log_patterns import FIELD, SCORE_KINDS, STRIDE_IN_LABEL, Kind

_MAX_SCORES = 200  # per run, from the end; no script of this family prints more
_ROUNDING = 0.000051  # a 4-decimal line and its `_exact` twin differ by no more
_FORWARD_SHARE = 1 / 3  # of a training step's time is its forward pass
_PLAIN_BELOW, _SLIDING_ABOVE = 3.0, 25.0
"""Evaluation time, in forward passes over the validation split. In the challenge's logs a plain evaluation takes 0.7 to 15
(compilation included), a sliding one of stride 64 takes 30 to 130. Between the limits the kind is unknown."""


@dataclass(frozen=True)
class ScoreLine:
    label: str
    lines: tuple[int, ...]  # the line of the value, then its twin's
    loss: float  # nats per token
    bpb: float
    is_exact: bool
    kind: Kind = "unclear"
    why: str = ""  # kind unclear: the reason
    stride: int | None = None
    stride_line: int | None = None
    eval_s: float | None = None
    eval_seq_len: int | None = None


def read_scores(run: LogRun) -> list[ScoreLine]:
    """Return the final scores of a run, each with its kind; a rounded line and its exact twin are one score."""
    scores: list[ScoreLine] = []
    for event in run.all("score")[-_MAX_SCORES:]:
        score = _parse(event)
        twin = next((other for other in reversed(scores) if _are_twins(score, other)), None)
        at = scores.index(twin) if twin else len(scores)
        scores[at : at + 1] = [_merged(twin, score) if twin else score]
    sliding = [score for score in scores if score.kind == "sliding"]
    return [_classified(score, sliding, run) if score.kind == "plain" else score for score in scores]


def _parse(event: Event) -> ScoreLine:
    """Parse a score line. Its kind is that of its label; a roundtrip counts as plain until `_classified` checks it."""
    text = str(event["text"])
    label = re.split(r"\s+(?:\w+[:=]|sliding val_loss)", text, maxsplit=1)[0].strip()
    fields = {name: float(value) for name, value in FIELD.findall(text)}
    named = next((kind for kind, pattern in SCORE_KINDS if pattern.search(label)), None)
    if named in ("plain", None):
        named = next((kind for kind, pattern in SCORE_KINDS[:2] if pattern.search(text)), named)
    stride_in_label = STRIDE_IN_LABEL.search(label)
    stride = fields.get("stride", float(stride_in_label[1]) if stride_in_label else None)
    return ScoreLine(
        label=label.removesuffix("_exact"),
        lines=(event.line,),
        loss=float(event["loss"]),
        bpb=float(event["bpb"]),
        is_exact=label.endswith("_exact") or len(text.partition("val_bpb")[2].split()[0].partition(".")[2]) > 6,
        kind=named or "unclear",
        why=f"the score label {label} is unknown",
        stride=None if stride is None else int(stride),
        stride_line=None if stride is None else event.line,
        eval_s=fields["eval_time"] / 1000 if "eval_time" in fields else fields.get("elapsed"),
        eval_seq_len=int(fields["eval_seq_len"]) if "eval_seq_len" in fields else None,
    )


def _are_twins(a: ScoreLine, b: ScoreLine) -> bool:
    same_name = a.label == b.label or (a.kind == b.kind == "ttt")
    return same_name and abs(a.bpb - b.bpb) <= _ROUNDING and abs(a.loss - b.loss) <= _ROUNDING


def _merged(first: ScoreLine, second: ScoreLine) -> ScoreLine:
    """Return the exact one's value with what either line holds about the evaluation."""
    value, other = (first, second) if first.is_exact and not second.is_exact else (second, first)
    about = ("stride", "stride_line", "eval_s", "eval_seq_len")
    absent: dict[str, Any] = {name: getattr(other, name) for name in about if getattr(value, name) is None}
    return replace(value, lines=value.lines + other.lines, **absent)


def _classified(score: ScoreLine, sliding: Sequence[ScoreLine], run: LogRun) -> ScoreLine:
    """Return the score of a roundtrip line with its kind, by the first evidence found."""
    first = min(score.lines)
    last_score = max((e.line for e in run.all("score") if e.line < first), default=0)
    since_last_score = [event for event in run.events if last_score < event.line < first]
    modes = [event for event in since_last_score if event.kind == "eval_mode"]
    if any(score.bpb == other.bpb and score.loss == other.loss for other in sliding):
        return replace(score, kind="duplicate")
    if modes and modes[-1]["mode"] == "sliding_window":
        if not score.stride and (stride := modes[-1].values.get("stride")):
            score = replace(score, stride=int(stride), stride_line=modes[-1].line)
        return replace(score, kind="sliding")
    if any(event.kind == "sliding_progress" for event in since_last_score):
        return replace(score, kind="sliding")
    if modes or sliding:
        return score
    passes = _forward_passes(score, run)
    if passes is not None and not _PLAIN_BELOW < passes < _SLIDING_ABOVE:
        return replace(score, kind="plain" if passes <= _PLAIN_BELOW else "sliding")
    took = "its evaluation time is unknown" if passes is None else f"it took {passes:.1f} forward passes"
    return replace(score, kind="unclear", why=f"{score.label} may be plain or sliding: no line decides, and {took}")


def _forward_passes(score: ScoreLine, run: LogRun) -> float | None:
    """Return the evaluation time in forward passes over the validation split, at the speed of the training."""
    step, batch, split = run.last("train"), run.last("batch"), run.last("val_data")
    if score.eval_s is None or not (step and batch and split):
        return None
    tokens_per_s = float(batch["batch_tokens"]) / (float(step["step_ms"]) / 1000) if step["step_ms"] else 0.0
    one_pass_s = float(split["tokens"]) / tokens_per_s * _FORWARD_SHARE if tokens_per_s else 0.0
    return score.eval_s / one_pass_s if one_pass_s else None
