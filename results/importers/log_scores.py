"""Assigns score lines to an evaluation: plain, sliding window, test-time training or another. The label alone does not decide.

#1002 prints a sliding score as `final_int8_zlib_roundtrip`; #975 and #1032 repeat the sliding score under such a name; the
challenge's baseline prints a plain score under it; others print scores with an n-gram model, or after training on the
validation text, under all of these names. The lines before it decide, else how long the evaluation took.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from results.importers.log_events import Event, LogRun
from results.importers.score_labels import Kind, is_running_value, kind_of

_MAX_SCORES = 200  # per run, from the end; no script of this family prints more
ROUNDING = 0.000051  # a 4-decimal line and its `_exact` twin differ by no more
_FORWARD_SHARE = 1 / 3  # of a training step's time is its forward pass
_PLAIN_BELOW, _MAYBE_SLIDING_FROM, _SLIDING_ABOVE = 3.0, 8.0, 25.0
"""Evaluation time, in forward passes over the validation split. In the challenge's logs a plain evaluation takes 0.7 to 15
(compilation included), a sliding one of stride 64 takes 30 to 130. Between the limits other evidence decides."""
_NO_BETTER = 0.004  # bpb: quantization may improve a plain score by this much; a sliding window gains at least 0.01
_FIELD = re.compile(r"\b(stride|eval_time|eval_seq_len|elapsed|time|t)[:=] ?(\d{1,12}(?:\.\d{1,6})?)(ms|s)?", re.A)
_STRIDE_IN_LABEL = re.compile(r"_s(?:lide)?(\d{1,6})(?:_exact)?$", re.A)


@dataclass(frozen=True)
class ScoreLine:
    label: str
    lines: tuple[int, ...]  # the line of the value, then its twin's
    bpb: float
    is_exact: bool
    loss: float | None = None  # nats per token
    kind: Kind = "unclear"
    why: str = ""  # kind other or unclear: the reason
    stride: int | None = None
    stride_line: int | None = None
    eval_s: float | None = None
    eval_seq_len: int | None = None


def read_scores(run: LogRun) -> list[ScoreLine]:
    """Return the final scores of a run, each with its kind; a rounded line and its exact twin are one score."""
    codecs = " ".join(str(event.values.get("codec", "")) for event in run.all("model", "total"))
    codec_words = frozenset(re.findall(r"[^\W\d_]+", codecs.lower()))
    scores: list[ScoreLine] = []
    for event in run.all("score")[-_MAX_SCORES:]:
        score = _parse(event, codec_words)
        if score is None:
            continue
        twin = next((other for other in reversed(scores) if _are_twins(score, other)), None)
        at = scores.index(twin) if twin else len(scores)
        scores[at : at + 1] = [_merged(twin, score) if twin else score]
    found: list[ScoreLine] = []
    for score in scores:
        found.append(_in_context(score, found, scores, run))
    return found


def _parse(event: Event, codec_words: frozenset[str]) -> ScoreLine | None:
    """Parse a score line, None if it shows a running value. Its kind is that of its label."""
    text = str(event["text"])
    label = re.split(r"\s+(?:\w+[:=]|sliding val_loss)|\s*[:=]? *(?=[-+]?\d+\.\d)", text, maxsplit=1)[0].strip()
    label = label.removeprefix("Final BPB: ").strip()
    if is_running_value(label):
        return None
    rest = text[len(label) :]
    fields = {name: (float(value), unit) for name, value, unit in reversed(_FIELD.findall(rest))}
    kind, why = kind_of(label, rest, codec_words)
    stride_in_label = _STRIDE_IN_LABEL.search(label)
    stride = fields["stride"][0] if "stride" in fields else float(stride_in_label[1]) if stride_in_label else None
    eval_s, unit = next((fields[name] for name in ("eval_time", "elapsed", "time", "t") if name in fields), (None, ""))
    is_ms = unit == "ms" or (not unit and "eval_time" in fields)
    decimals = re.search(r"bpb[^.]{0,40}\.(\d+)", text)
    return ScoreLine(
        label=label.removesuffix("_exact").removesuffix("_x"),
        lines=(event.line,),
        bpb=float(event["bpb"]),
        is_exact=label.endswith("_exact") or (decimals is not None and len(decimals[1]) > 6),
        loss=float(event["loss"]) if "loss" in event.values else None,
        kind=kind,
        why=why,
        stride=None if stride is None else int(stride),
        stride_line=None if stride is None else event.line,
        eval_s=None if eval_s is None else eval_s / 1000 if is_ms else eval_s,
        eval_seq_len=int(fields["eval_seq_len"][0]) if "eval_seq_len" in fields else None,
    )


def _are_twins(a: ScoreLine, b: ScoreLine) -> bool:
    is_unnamed = "unclear" in (a.kind, b.kind) and a.loss is not None and b.loss is not None
    same_name = a.label == b.label or (a.kind == b.kind == "ttt") or is_unnamed
    if a.is_exact and b.is_exact and a.bpb != b.bpb:
        return False
    losses = abs(a.loss - b.loss) if a.loss is not None and b.loss is not None else 0.0
    return same_name and abs(a.bpb - b.bpb) <= ROUNDING and losses <= ROUNDING


def _merged(first: ScoreLine, second: ScoreLine) -> ScoreLine:
    """Return the exact one's value with what either line holds about the evaluation."""
    value, other = (first, second) if first.is_exact and not second.is_exact else (second, first)
    about = ("loss", "stride", "stride_line", "eval_s", "eval_seq_len")
    absent: dict[str, Any] = {name: getattr(other, name) for name in about if getattr(value, name) is None}
    named = other if value.kind == "unclear" else value
    return replace(value, kind=named.kind, why=named.why, label=named.label, lines=value.lines + other.lines, **absent)


def _in_context(score: ScoreLine, before: Sequence[ScoreLine], scores: Sequence[ScoreLine], run: LogRun) -> ScoreLine:
    """Return the score with the kind that the lines before it show."""
    first = min(score.lines)
    if score.kind in ("other", "unclear", "choice"):
        return score
    if mixture := next((s for s in before if s.kind == "other" and abs(s.bpb - score.bpb) <= ROUNDING), None):
        return replace(score, kind="other", label=mixture.label, why=mixture.why)
    if any(s.bpb == score.bpb and s.loss == score.loss and s.kind not in (score.kind, "float") for s in before):
        return replace(score, kind="duplicate")
    last_score = max((s.lines[-1] for s in before if max(s.lines) < first), default=0)
    if why := _changed_by(score, first, last_score, run):
        return replace(score, kind="other", why=why)
    passes = _forward_passes(score, run)
    if score.kind == "float" and passes is not None and passes >= _SLIDING_ABOVE:
        why = f"weights that are not quantized; it took {passes:.1f} forward passes, as long as a sliding window"
        return replace(score, kind="other", why=why)
    if score.kind == "plain":
        return _plain_or_sliding(score, scores, [e for e in run.events if last_score < e.line < first], run)
    return score


def _changed_by(score: ScoreLine, first: int, last_score: int, run: LogRun) -> str:
    """Return what makes this a score of something else than the quantized weights; empty if nothing does."""
    earlier = [event for event in run.events if event.line < first]
    tuned = [event for event in earlier if event.kind == "tuned" and (score.kind != "ttt" or int(event["epochs"]) > 1)]
    if tuned:
        return f"the weights were trained on the validation text before it (line {tuned[-1].line})"
    tunes = [event for event in earlier if event.kind == "tunes"]
    if tunes and score.kind != "ttt":
        return f"test-time training began before it (line {tunes[0].line})"
    mixes = [event for event in earlier if event.kind == "mixes" and event.line > last_score]
    if mixes and score.kind in ("sliding", "ttt"):
        return f"another model is mixed in (line {mixes[-1].line})"
    packed = [event.line for event in run.all("model", "total") if "codec" in event.values]
    names_artifact = re.search(r"quant|int\d|roundtrip", score.label, re.I) is not None
    if score.kind in ("ttt", "sliding") and packed and min(packed) > first and not names_artifact:
        return f"it comes before the weights were quantized (line {min(packed)})"
    return ""


def _plain_or_sliding(
    score: ScoreLine, scores: Sequence[ScoreLine], since_last_score: Sequence[Event], run: LogRun
) -> ScoreLine:
    """Return the score of a roundtrip line with its kind, by the first evidence found."""
    modes = [event for event in since_last_score if event.kind == "eval_mode"]
    if modes and modes[-1]["mode"] == "sliding_window":
        if not score.stride and (stride := modes[-1].values.get("stride")):
            score = replace(score, stride=int(stride), stride_line=modes[-1].line)
        return replace(score, kind="sliding")
    if any(event.kind == "sliding_progress" for event in since_last_score):
        return replace(score, kind="sliding")
    says_plain = not re.search(r"round-?trip|_rt\b", score.label, re.I)  # `quantized`: its script names the sliding one
    if modes or says_plain or any(other.kind == "sliding" for other in scores):
        return score
    passes = _forward_passes(score, run)
    if passes is not None and (passes <= _PLAIN_BELOW or passes >= _SLIDING_ABOVE):
        return replace(score, kind="plain" if passes <= _PLAIN_BELOW else "sliding")
    floats = [other.bpb for other in scores if other.kind == "float"] + [float(e["bpb"]) for e in run.all("val")[-1:]]
    is_short = not run.last("window") or (passes is not None and passes < _MAYBE_SLIDING_FROM)
    if floats and score.bpb > min(floats) - _NO_BETTER and is_short:
        return score
    took = "its evaluation time is unknown" if passes is None else f"it took {passes:.1f} forward passes"
    return replace(score, kind="unclear", why=f"{score.label} may be plain or sliding: no line decides, and {took}")


def _forward_passes(score: ScoreLine, run: LogRun) -> float | None:
    """Return the evaluation time in forward passes over the validation split, at the speed of the training."""
    timed = [event for event in run.all("train") if event.values.get("step_ms")]
    batch, split = run.last("batch"), run.last("val_data")
    if score.eval_s is None or not (timed and batch and split):
        return None
    tokens_per_s = float(batch["batch_tokens"]) / (float(timed[-1]["step_ms"]) / 1000)
    one_pass_s = float(split["tokens"]) / tokens_per_s * _FORWARD_SHARE if tokens_per_s else 0.0
    return score.eval_s / one_pass_s if one_pass_s and math.isfinite(one_pass_s) else None
