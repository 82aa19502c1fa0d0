"""The log lines of the train_gpt.py family that hold values, as a table: kind of event -> pattern.

A pattern is a regular expression with `<name:int>`, `<name:float>` and `<name>` (one word) for values. It must match
from the first character; a blank and any further text may follow it, since variants of the script append values.
Sources of the formats: pull requests 51, 488, 549, 975, 1002 and 1032 of openai/parameter-golf.
"""

import re
from typing import Literal

RULER = "=" * 100
SOURCE_BEGINS = re.compile(r"(?:from|import) \w+|[rR]?(?:\"\"\"|''')|#!")
"""First line of a Python file: logs of this family start with a dump of the script."""

_VALUES = {"int": r"\d{1,15}", "float": r"[-+]?(?:\d{1,15}(?:\.\d{1,20})?(?:e[-+]?\d{1,3})?|nan|inf)", None: r"[^\s,]+"}

_LINES: tuple[tuple[str, str], ...] = (
    # environment, between two rulers
    ("python", r"Running Python <python>"),
    ("torch", r"Running PyTorch <torch>"),
    ("gpu", r"\|\s+\d+\s+(?P<gpu>\S.{0,60}?)\s+(?:On|Off|N/A)\s+\|\s+[0-9A-F]{8}:[0-9A-F]{2}:.*"),
    # header
    ("tokenizer", r"val_bpb:enabled tokenizer_kind=<kind> tokenizer_path=<path>"),
    ("train_data", r"train_loader:dataset:<dataset> train_shards:<shards:int>"),
    ("val_data", r"val_loader:shards pattern=<glob> tokens:<tokens:int>"),
    ("params", r"model_params:<num_params:int>"),
    ("world", r"world_size:<world_size:int> grad_accum_steps:<grad_accum:int>"),
    ("batch", r"train_batch_tokens:<batch_tokens:int> train_seq_len:<seq_len:int> iterations:<iterations:int>"),
    ("seed", r"seed:<seed:int>"),
    ("warmup", r"warmup_step:<step:int>/<of:int>"),
    # training
    (
        "train",
        r"step:<step:int>/<of:int> train_loss:<loss:float> train_time:<train_ms:int>ms step_avg:<step_ms:float>ms",
    ),
    (
        "val",
        r"step:<step:int>/<of:int> val_loss:<loss:float> val_bpb:<bpb:float> train_time:<train_ms:int>ms"
        r"(?: step_avg:<step_ms:float>ms)?",
    ),
    ("stop", r"stopping_early: ?wallclock_cap train_time: ?<train_ms:int>ms(?: step: ?<step:int>/<of:int>)?"),
    ("memory", r"peak memory allocated: ?<mib:int> MiB"),
    ("qat_on", r"late_qat:enabled(?: \w+=\w+){0,8}(?: at)? step[: ]<step:int>"),
    ("qat_on", r"QAT activated at step <step:int>"),
    ("qat_on", r"qat:enabled"),
    # the last average applied is exported
    ("ema", r"ema:applying|EMA: loading smoothed weights"),
    ("swa", r"swa:applying averaged|SWA: averaging|SWA: loaded averaged model"),
    ("lawa", r"lawa:applying LAWA|LAWA: using averaged weights"),
    ("sqwa", r"sqwa:applying SQWA"),
    # artifact
    ("raw_model", r"Serialized model: ?<bytes:int> bytes"),
    ("model", r"Serialized model (?P<codec>[^\s:]+): ?<bytes:int> bytes"),
    ("code", r"Code size: ?<bytes:int> bytes"),
    ("total", r"Total submission size(?: (?P<codec>[^\s:]+))?: ?<bytes:int> bytes"),
    # evaluation
    ("eval_mode", r"final_eval_mode:(?P<mode>sliding_window|standard)(?: stride:<stride:int>)?"),
    ("sliding_progress", r"\s*sliding_eval \[.*"),
    ("ttt_chunk", r"\s*ttt_chunk \[<chunk:int>/<of:int>\] bpb=<bpb:float>"),
    ("score", r"(?P<text>(?!step:)[A-Za-z].{0,120}?\bval_loss[:=]<loss:float> (?:sliding )?val_bpb[:=]<bpb:float>.*)"),
    # ends
    ("oom", r".{0,200}(?:CUDA out of memory|OutOfMemoryError).*"),
    ("traceback", r"(?:\[rank\d+\]: )?Traceback \(most recent call last\):"),
    ("averages", r"(?i:.*\b(?:ema|swa|lawa|sqwa|averag\w*)(?:\b|_).*)"),  # mentions an average without applying it
)

HEADER = ("tokenizer", "train_data", "val_data", "params", "world", "batch", "seed", "warmup")
AVERAGES = ("ema", "swa", "lawa", "sqwa")
RUN_MARKS = frozenset({"tokenizer", "params", "train", "val", "stop", "score"})
"""A text with none of these is not a run."""

Kind = Literal["float", "plain", "sliding", "ttt", "unclear", "duplicate"]
SCORE_KINDS: tuple[tuple[Kind, re.Pattern[str]], ...] = (
    # Kind of evaluation by the line's label, first match; a roundtrip counts as plain, but may turn out to be sliding.
    ("ttt", re.compile(r"ttt", re.I)),
    ("sliding", re.compile(r"sliding", re.I)),
    ("float", re.compile(r"post[_-]ema|pre[_-]?quant", re.I)),
    ("plain", re.compile(r"roundtrip|^(?:diagnostic )?quantized$", re.I)),
)
FIELD = re.compile(r"\b(stride|eval_time|eval_seq_len|elapsed)[:=](\d{1,12}(?:\.\d{1,6})?)", re.A)
STRIDE_IN_LABEL = re.compile(r"_s(\d{1,6})(?:_exact)?$", re.A)


def _compiled(pattern: str) -> re.Pattern[str]:
    body = re.sub(r"(?<!\?P)<(\w+)(?::(\w+))?>", lambda m: f"(?P<{m[1]}>{_VALUES[m[2]]})", pattern)
    return re.compile(f"(?:{body})(?:\\s.*)?", re.A)


PATTERNS: tuple[tuple[str, re.Pattern[str]], ...] = tuple((kind, _compiled(text)) for kind, text in _LINES)
