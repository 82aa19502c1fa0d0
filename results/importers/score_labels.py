"""What a score is, by the words of its label. A word that is not in these lists means an evaluation that we do not know.

So a new kind of evaluation ends in `other_bpb`, not in a column where it does not belong.
"""

import re
from collections.abc import Collection
from typing import Literal, cast

Kind = Literal["float", "plain", "sliding", "ttt", "other", "unclear", "duplicate", "choice"]

_QUANTIZED = re.compile(r"round|trip|roundtrip|rt|quant|quantized|quantised")
_SLIDING = re.compile(r"sliding|slide|sw|windowed|window")
_TTT = re.compile(r"ttt")
_WITH_TTT = re.compile(r"lora|legal|phased|sgd|adamw|score|first|doc|perdoc|online|inplace|in|place|done|sliding")
_FLOAT = re.compile(r"pre|prequant|prequantization|ema|swa|lawa|avg|averaged?|raw|fp|bf|unquant|unquantized")
_NEUTRAL = re.compile(
    # codecs, number formats, and words that name no evaluation
    r"zlib|zstd|lzma|brotli|xz|bz|bshuf|rans|ans|arith|arithcode|gptq|awq|lqer|pergroup|lite|packed|trinity|codebook|vq|nf|mx"
    r"|int|q|w|b|s|x|bits?|mixed|ternary|binary|quinary|xnor|quantization|codec|mode|native|default|standard|plain|nonsliding"
    r"|final|exact|diag(?:nostics?)?|post|eval|evaluation|val|validation|bpb|loss|score|model|weights|full|exported|export"
    r"|research|pass|results?|submission|artifact|storage|the|of"
)
_FOREIGN = re.compile(
    r"n-?gram|ppm|slot|cache|knn|hedge|mix(?:er|ture)\b|dyneval|etlb|tilt|two_pass|agree|blend|correction|rescor|chained|hash"
    r"|krause|memory|retriev|paid|prefix|tara|temped",
    re.I,
)
_CHOICE = re.compile(r"(?:best|using|selected|chosen)(?:_| )", re.I)
"""Begins a line that repeats the score of the average that is exported."""
_NOT_FINAL = re.compile(
    r"running|chunk|epoch|progress|batch|\d/\d|\bbest\b|champion|delta|gain|improv|sweep|(?<!re)search|pass \d|baseline"
    r"|projected|estimate|target|\b(?:base|previous|sota|leader)\b|done$|\bvs\b|seed \d|mean\b",
    re.I,
)


def kind_of(label: str, rest: str, codec_words: Collection[str]) -> tuple[Kind, str]:
    """Return the kind of a score, and the reason if it is other or unclear.

    Args:
        label: the text before the values. rest: the text after them.
        codec_words: words of the codecs that the log's artifact lines name; they say nothing about the evaluation.
    """
    if _CHOICE.match(label):
        return "choice", ""
    label = re.sub(r"\(no \w+\)", "", label)  # what the evaluation was without
    stated = re.findall(r"\beval_mode[:=](\w+)|^ *(sliding)(?= val_)", rest)
    text = " ".join([label, *(word for pair in stated for word in pair)]).lower()
    words = set(re.findall(r"[^\W\d_]+", text)) | ({"ttt"} if re.search(r"\bttt_\w+[:=]", rest) else set())
    quantized, sliding, ttt, floats = (_any(pattern, words) for pattern in (_QUANTIZED, _SLIDING, _TTT, _FLOAT))
    known = [_QUANTIZED, _SLIDING, _TTT, _FLOAT, _NEUTRAL, *([_WITH_TTT] if ttt else [])]
    unknown = {w for w in words if w not in codec_words and not any(pattern.fullmatch(w) for pattern in known)}
    if _FOREIGN.search(label):
        return "other", "it mixes in another model or adapts a state"
    if unknown and (quantized or sliding or ttt):
        return "other", f"the word {min(unknown)} of its label is unknown"
    if unknown:
        return "unclear", f"the score label {label} is unknown"
    if ttt and (floats or ("post" in words and not quantized)):
        return "other", "test-time training of weights that are not quantized"
    if floats and sliding:
        return "other", "sliding window over weights that are not quantized"
    is_float = floats or words in ({"diagnostic"}, {"diag"})
    for kind, is_it in (("ttt", ttt), ("float", is_float), ("sliding", sliding), ("plain", quantized)):
        if is_it:
            return cast("Kind", kind), ""
    return "unclear", f"the score label {label} is unknown"


def _any(pattern: re.Pattern[str], words: Collection[str]) -> bool:
    return any(pattern.fullmatch(word) for word in words)


def is_running_value(label: str) -> bool:
    """Return whether a line shows progress, a reference or a difference instead of a final score."""
    return bool(_NOT_FINAL.search(label))
