"""Refuses scores that an evaluation of that name cannot give: the log then holds another evaluation under the name.

The limits come from the logs of 1,160 pull requests of openai/parameter-golf in which nothing else changed.
"""

import math
from collections.abc import Mapping

MIN_GAP = -0.008  # bpb: quantization improves a score by less than this, through rounding and late QAT
_SLIDING_GAIN = 0.036  # share of the plain bpb that a sliding window saves at most; 0.015 to 0.033 in the logs
_TTT_GAIN = 0.030  # share of the sliding bpb that score-first test-time training saves at most
_AVERAGING_GAIN = 0.045  # share of the bpb that an average of the weights saves at most
_UNTRAINED_FROM = 2.0  # bpb: models above it have barely learned, and gain much more
LOWEST_VALID = 0.95  # bpb: no public score of a valid evaluation is lower
_OF_ARTIFACT = ("post_quant_bpb", "sliding_bpb", "ttt_bpb")


def implausible(scores: Mapping[str, float]) -> dict[str, str]:
    """Return column -> why its score is refused.

    Args:
        scores: bpb by column, those that the log gives.
    """
    refused = _of_gap(scores)
    of_ttt = {"sliding_bpb": _TTT_GAIN, **dict.fromkeys(("post_quant_bpb", "float_bpb"), _TTT_GAIN + _SLIDING_GAIN)}
    for column, gains in (
        ("sliding_bpb", dict.fromkeys(("post_quant_bpb", "float_bpb"), _SLIDING_GAIN)),
        ("ttt_bpb", of_ttt),
    ):
        if column not in scores or column in refused:
            continue
        is_broken = scores.get("post_quant_bpb", math.inf) > scores.get("raw_bpb", 0.0) * (1 + _AVERAGING_GAIN)
        if "float_bpb" not in scores and is_broken:  # else a better score of the weights that it began with is known
            gains |= {"raw_bpb": max(gains.values()) + _AVERAGING_GAIN}
        known = {name: scores[name] for name in gains if name in scores and name not in refused}
        if not known:
            if scores[column] < LOWEST_VALID:
                refused[column] = f"{scores[column]} is lower than any model reaches, and no other score confirms it"
            continue
        # test-time training also repairs what quantization broke, so it is held against the best of the others
        name = next(iter(known)) if column == "sliding_bpb" else min(known, key=lambda n: known[n] * (1 - gains[n]))
        is_trained = known[name] < _UNTRAINED_FROM
        if is_trained and scores[column] < known[name] * (1 - gains[name]):
            gain = known[name] - scores[column]
            refused[column] = f"{scores[column]} is {gain:.4f} bpb better than {name}, more than {column[:-4]} can give"
    return refused


def _of_gap(scores: Mapping[str, float]) -> dict[str, str]:
    """Return what is refused because the quantized weights score better than the float ones."""
    plain, floats, raw = (scores.get(name) for name in ("post_quant_bpb", "float_bpb", "raw_bpb"))
    if plain is None:
        return {}
    if plain < _UNTRAINED_FROM <= min(score for score in (floats, raw, math.inf) if score is not None):
        broken = (
            "the float weights score as if untrained, the quantized ones do not: they were trained for one quantizer"
        )
        return {"float_bpb": broken} if floats is not None else {}
    if floats is not None and plain - floats < MIN_GAP:
        better = f"{floats - plain:.4f} bpb better than float_bpb {floats}, more than quantization can give"
        if raw is not None and plain >= raw + MIN_GAP:
            return {"float_bpb": f"post_quant_bpb is {better}: other weights were exported"}
    elif floats is None and raw is not None and plain < raw * (1 - _AVERAGING_GAIN):
        better = f"{raw - plain:.4f} bpb better than raw_bpb {raw}, more than averaging can give"
    else:
        return {}
    return dict.fromkeys((name for name in _OF_ARTIFACT if name in scores), f"post_quant_bpb {plain} is {better}")
