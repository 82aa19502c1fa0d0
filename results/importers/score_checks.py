"""Refuses scores that an evaluation of that name cannot give: the log then holds another evaluation under the name.

The limits come from the logs of 1,160 pull requests of openai/parameter-golf in which nothing else changed.
"""

from collections.abc import Mapping

MIN_GAP = -0.008  # bpb: quantization improves a score by less than this, through rounding and late QAT
_SLIDING_GAIN = 0.036  # share of the plain bpb that a sliding window saves at most; 0.015 to 0.033 in the logs
_TTT_GAIN = 0.030  # share of the sliding bpb that score-first test-time training saves at most
_AVERAGING_GAIN = 0.045  # share of the bpb that an average of the weights saves at most
_OF_ARTIFACT = ("post_quant_bpb", "sliding_bpb", "ttt_bpb")


def implausible(scores: Mapping[str, float]) -> dict[str, str]:
    """Return column -> why its score is refused.

    Args:
        scores: bpb by column, those that the log gives.
    """
    refused = _of_gap(scores)
    for column, references in (
        ("sliding_bpb", {"post_quant_bpb": _SLIDING_GAIN, "float_bpb": _SLIDING_GAIN}),
        (
            "ttt_bpb",
            {"sliding_bpb": _TTT_GAIN, **dict.fromkeys(("post_quant_bpb", "float_bpb"), _TTT_GAIN + _SLIDING_GAIN)},
        ),
    ):
        limits = references | {"raw_bpb": max(references.values()) + _AVERAGING_GAIN}
        known = {name: scores[name] for name in limits if name in scores and name not in refused}
        if column not in scores or column in refused or not known:
            continue
        name, reference = next(iter(known.items()))
        if scores[column] < reference * (1 - limits[name]):
            gain = reference - scores[column]
            refused[column] = f"{scores[column]} is {gain:.4f} bpb better than {name}, more than {column[:-4]} can give"
    return refused


def _of_gap(scores: Mapping[str, float]) -> dict[str, str]:
    """Return what is refused because the quantized weights score better than the float ones."""
    plain, floats, raw = (scores.get(name) for name in ("post_quant_bpb", "float_bpb", "raw_bpb"))
    if plain is None:
        return {}
    if floats is not None and plain - floats < MIN_GAP:
        better = f"{floats - plain:.4f} bpb better than float_bpb {floats}, more than quantization can give"
        if raw is not None and plain >= raw + MIN_GAP:
            return {"float_bpb": f"post_quant_bpb is {better}: other weights were exported"}
    elif floats is None and raw is not None and plain < raw * (1 - _AVERAGING_GAIN):
        better = f"{raw - plain:.4f} bpb better than raw_bpb {raw}, more than averaging can give"
    else:
        return {}
    return dict.fromkeys((name for name in _OF_ARTIFACT if name in scores), f"post_quant_bpb {plain} is {better}")
