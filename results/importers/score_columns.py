"""Puts the scores of a run into columns: one for each kind of evaluation if it is plausible, else `other_bpb` or null."""

import math
import re
from collections.abc import Sequence
from dataclasses import replace

from results.importers.imported_run import RowBuilder
from results.importers.log_events import LogRun
from results.importers.log_scores import ROUNDING, ScoreLine
from results.importers.score_checks import LOWEST_VALID, implausible

PUBLISHED_SPLIT_BYTES = {62_021_632: 151_080_363}
"""Scored tokens -> scored bytes of the challenge's sp1024 validation split at sequence length 2048."""

_FROM_SCORES = (
    # kind of evaluation, column, what the log lacks if the column is null
    ("float", "float_bpb", "the bpb after averaging, before quantization"),
    ("plain", "post_quant_bpb", "a non-sliding bpb of the quantized model"),
    ("sliding", "sliding_bpb", "a sliding-window bpb of the quantized model"),
    ("ttt", "ttt_bpb", "a bpb with test-time training"),
)
_TOO_LOW = "lower than any model reaches on the published text: it was trained on it, or saw what it predicted"
_IN_LABEL = {
    "float": r"pre-?quant|ema",
    "plain": r"roundtrip|quantized(?!_)",
    "sliding": r"slid|\bsw|_sw",
    "ttt": r"ttt",
}
"""What the label of a score for that column usually contains: then other_bpb is the reason why the column is null."""


def set_scores(run: LogRun, scores: Sequence[ScoreLine], row: RowBuilder) -> None:
    """Set one score for each kind of evaluation, as far as it is plausible, and the last of all others as other_bpb."""
    chosen: dict[str, ScoreLine] = {}
    unclear = [score for score in scores if score.kind == "unclear"]
    for kind, column, _ in _FROM_SCORES:
        found = _best([score for score in scores if score.kind == kind])
        if kind == "float" and len({score.bpb for score in found}) > 1:
            named = [score.bpb for score in scores if score.kind == "choice"]
            found = [score for score in found if named and abs(score.bpb - named[-1]) <= ROUNDING] or found
        if len({score.bpb for score in found}) == 1:
            chosen[column] = found[-1]
        elif found:
            row.set_null(column, f"several scores: {', '.join(f'{s.bpb} ({row.at(s.lines[0])})' for s in found)}")
        elif unclear and kind in ("plain", "sliding"):
            row.set_null(column, f"{unclear[-1].why} ({row.at(unclear[-1].lines[0])})")
    known = {column: score.bpb for column, score in chosen.items()}
    raw = row.columns.get("raw_bpb")
    others = [score for score in scores if score.kind == "other"]
    low = {column: score for column, score in chosen.items() if score.bpb < LOWEST_VALID}
    refused = {column: _TOO_LOW for column, score in low.items() if _is_of_published_split(score)}
    refused |= implausible(known | ({"raw_bpb": float(raw)} if raw is not None else {}))
    for column, reason in refused.items():
        score = chosen.pop(column)
        row.set_null(column, f"{reason} ({row.at(score.lines[0])})")
        others += [replace(score, why=reason)] if column != "float_bpb" else []
    for column, score in chosen.items():
        row.set(column, score.bpb, score.lines[0])
        if column in low:
            row.add_note(
                f"{column} {score.bpb} is lower than any valid public score: another denominator?", score.lines[0]
            )
    _other(others, row)
    if not row.has("ttt_bpb") and (chunks := run.all("ttt_chunk")) and not any(s.kind == "other" for s in scores):
        at = f"chunk {chunks[-1]['chunk']} of {chunks[-1]['of']}, running bpb {chunks[-1]['bpb']}"
        row.set_null("ttt_bpb", f"the log ends during test-time training: {at} ({row.at(chunks[-1].line)})")
    of_artifact = [score for column, score in chosen.items() if column != "float_bpb"]
    _evaluations(of_artifact, row)
    _bytes_per_token(of_artifact, row)
    for _, column, lacking in _FROM_SCORES:
        row.set_null(column, f"no line gives {lacking}")


def _is_of_published_split(score: ScoreLine) -> bool:
    """Return whether the score has the bytes per token of the challenge's sp1024 split, so that no denominator explains it."""
    ratio = _bytes_per_token_of(score)
    return any(ratio is not None and abs(ratio * t / b - 1) <= 1e-3 for t, b in PUBLISHED_SPLIT_BYTES.items())


def _bytes_per_token_of(score: ScoreLine) -> float | None:
    """Return bytes per token = nats / ln 2 / bpb if the line holds both."""
    usable = score.loss and math.isfinite(score.bpb * score.loss) and min(score.bpb, score.loss) > 0
    return score.loss / math.log(2) / score.bpb if usable and score.loss else None


def _best(found: Sequence[ScoreLine]) -> list[ScoreLine]:
    """Return the scores of one kind that count: those of the smallest stride, without the rounded twins of exact ones."""
    smallest = min((score.stride for score in found if score.stride), default=None)
    found = [score for score in found if score.stride in (None, smallest)]
    exact = [score.bpb for score in found if score.is_exact]
    return [score for score in found if score.is_exact or all(abs(score.bpb - bpb) > ROUNDING for bpb in exact)]


def _other(others: Sequence[ScoreLine], row: RowBuilder) -> None:
    """Set other_bpb to the last score that belongs in no column; its reason is the null reason of the other columns."""
    usable = [score for score in others if math.isfinite(score.bpb)]
    if not usable:
        row.set_null("other_bpb", "no score of another kind")
        row.set_null("other_label", "other_bpb is null")
        return
    score = max(usable, key=lambda score: score.lines[0])
    row.set("other_bpb", score.bpb, score.lines[0])
    row.set("other_label", f"{score.label}: {score.why}", score.lines[0])
    for kind, column, _ in _FROM_SCORES:
        named = [s for s in usable if re.search(_IN_LABEL[kind], s.label, re.I)]
        if named and not row.has(column):
            row.set_null(column, f"{named[-1].label} {named[-1].bpb}: {named[-1].why} ({row.at(named[-1].lines[0])})")


def _evaluations(chosen: Sequence[ScoreLine], row: RowBuilder) -> None:
    """Set what the lines of the chosen scores hold besides their bpb."""
    for score in chosen:
        if score.kind == "plain" and score.loss is not None:
            row.set("val_loss_nats", score.loss, score.lines[0])
        if score.kind == "sliding" and score.stride and score.stride_line:
            row.set("eval_stride", score.stride, score.stride_line)
        if score.eval_seq_len:
            row.set("eval_seq_len", score.eval_seq_len, *score.lines)
        _check_bytes(score, row)
    times = [score.eval_s for score in chosen if score.eval_s is not None]
    if times and len(times) == len(chosen):
        row.set("eval_s", round(math.fsum(times), 3), *(line for score in chosen for line in score.lines))
    elif chosen:
        row.set_null("eval_s", "some evaluations have no time")
    row.set_null("val_loss_nats", "it is the loss of post_quant_bpb, which is null")


def _bytes_per_token(chosen: Sequence[ScoreLine], row: RowBuilder) -> None:
    """Set the bytes per token of one score line, an exact one if there is one."""
    for score in sorted(chosen, key=lambda s: not s.is_exact):
        if (ratio := _bytes_per_token_of(score)) is not None:
            row.set("bytes_per_token", ratio, score.lines[0])
    row.set_null("bytes_per_token", "no score of the quantized model gives both its loss and its bpb")


def _check_bytes(score: ScoreLine, row: RowBuilder) -> None:
    """Derive the scored bytes from bpb = nats / ln 2 x tokens / bytes, and check them on the published split.

    The sliding windows of these scripts score the last tokens of the split many times: 2.7e-6 off in every published log.
    """
    tokens = row.columns.get("scored_tokens")
    known = PUBLISHED_SPLIT_BYTES.get(tokens) if isinstance(tokens, int) else None
    if known is None or not (score.loss and score.loss > 0 and score.bpb > 0 and math.isfinite(score.bpb * score.loss)):
        return
    num_bytes = score.loss / math.log(2) * int(tokens or 0) / score.bpb
    tolerance = 2e-4 if not score.is_exact else 1e-7 if score.kind == "plain" else 1e-5
    if abs(num_bytes / known - 1) <= tolerance:
        row.set("scored_bytes", known, score.lines[0], *row.lines_of("scored_tokens"))
    else:
        ratio, expected = score.bpb / score.loss, int(tokens or 0) / known / math.log(2)
        row.add_note(
            f"{score.label}: bpb per nat {ratio:.5f}, but the published split has {expected:.5f}", *score.lines
        )
