"""The log lines of the train_gpt.py family that hold values, as a table: kind of event -> pattern.

A pattern is a regular expression with `<name:int>`, `<name:float>` and `<name>` (one word) for values. It must match
from the first character; a blank and any further text may follow it, since variants of the script append values.
Sources of the formats: the logs of about 1,160 pull requests of openai/parameter-golf.
"""

import re

RULER = re.compile(r"={40,}")
SOURCE_BEGINS = re.compile(r"(?:from|import) \w+|[rR]?(?:\"\"\"|''')|#!")
"""First line of a Python file: logs of this family start with a dump of the script."""
SOURCE_LINE = re.compile(
    r"\s*(?:(?:from|import|def|class|return|@)\b|(?:if|for|while|with|try|else|elif|except)\b.*:$"
    r"|[A-Za-z_][\w.]* ?(?:: ?\w+ )?= |[\w.]+\(|\"\"\"|'''|#)",
    re.A,
)
SOURCE_ENDS = re.compile(r"if __name__ ?== ?[\"']__main__[\"']:")
"""Last statement of a script. A dump ends at the first line after its block, or at a ruler or a line of the log's head."""

PREFIX = re.compile(
    # what a launcher or logger writes before each line: rank, time, level
    r"(?:\[(?:default|rank|gpu|node|run|modal|eval) ?\d*\]:? ?"
    r"|\[?\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d)?(?:[.,]\d{1,9})?(?:Z|[+-]\d\d:?\d\d)?\]? "
    r"|\[\d\d:\d\d:\d\d\] |\d{9,11}\.\d{1,9} |(?:INFO|DEBUG): )+",
    re.A,
)

_VALUES = {
    "int": r"\d{1,15}",
    "count": r"\d{1,3}(?:,\d{3}){1,5}|\d{1,15}",
    "float": r"[-+]?(?:\d{1,15}(?:\.\d{1,20})?(?:e[-+]?\d{1,3})?|nan|inf)",
    None: r"[^\s,]+",
}
_BPB = r"(?:sliding )?(?:val_)?bpb[:=] ?<bpb:float>"
_LABEL = r"(?!step:)[A-Za-z].{0,120}?"

_LINES: tuple[tuple[str, str], ...] = (
    # most lines; `log_events.py` reads the fields
    ("step", r"(?:step:|s:)?<step:int>/<of:int> (?P<fields>.*\b(?:(?:train_|val_)?loss|tl|vl): ?[-\d.naif]+.*)"),
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
    ("params_named", r"(?i:(?:total )?param(?:eter)?s:) ?(?:total=)?<num_params:count>"),
    # training
    ("stop", r"stop tt: ?<train_ms:int>ms s: ?<step:int>(?:/<of:int>)?"),
    ("stop", r"Stopping early at step <step:int>"),
    ("stop", r"stopping_early: ?\w+(?:=\d+)? train_time: ?<train_ms:int>ms(?: step: ?<step:int>(?:/<of:int>)?)?"),
    ("memory", r"(?i:peak[ _]mem(?:ory)?):?(?: allocated)?: ?<mib:int> MiB"),
    ("qat_on", r"late_qat:enabled(?: \w+=\w+){0,8}(?: at)? step[: ]<step:int>"),
    ("qat_on", r"(?i:.{0,30}?\bqat\b.{0,40}?\b(?:enabled|activated|started|on)\b.{0,40}?\bstep[ :=]{1,2}<step:int>).*"),
    ("qat_on", r"(?i:.{0,30}?_qat:enabled\b.{0,20}?\bstep[ :=]{1,2}<step:int>).*"),
    ("qat_on", r"(?i:\W*step[ :]<step:int>:? (?:qat|late_qat)[ :_](?:activated|started|enabled)).*"),
    ("qat_on", r"qat:enabled|QAT enabled:(?!.*\bstep\b).*"),
    # the last average applied is exported
    (
        "ema",
        r"ema:\s?(?:apply(?:ing)?|loading)(?! best)\b.*|EMA: loading smoothed weights|(?:=== )?Applying EMA weights.*",
    ),
    ("swa", r"swa:\s?(?:applying|averaging)|SWA: (?:averag(?:ing|ed)|applying)|SWA: loaded averaged model"),
    ("lawa", r"lawa:applying LAWA|LAWA: using averaged weights"),
    ("sqwa", r"sqwa:applying SQWA"),
    # artifact
    ("raw_model", r"Serialized model: ?<bytes:int> bytes"),
    ("model", r"(?:\w+ \w+ s|S)erialized model (?P<codec>[^\s:]+): ?<bytes:int> bytes"),
    ("model", r"(?:\w+ ){1,2}serialized model: ?<bytes:int> bytes"),
    ("model", r"serialized_model_(?P<codec>[^\s:]+): ?<bytes:int> bytes"),
    ("code", r"(?:Code size(?: \(compressed\))?|code_size|Packed code): ?<bytes:int> bytes"),
    ("total", r"Total (?P<codec>\w+) submission: ?<bytes:int> bytes"),
    ("total", r"(?:Total(?: \w+)? submission|Submission)(?: size)?(?: (?P<codec>[^\s:]+))?: ?<bytes:int> bytes"),
    ("total", r"total_submission_size_(?P<codec>[^\s:]+): ?<bytes:int> bytes"),
    ("total", r"(?P<codec>[\w+]+): ?<model_bytes:count> bytes \| code: ?<code_bytes:count> \| total: ?<bytes:count>"),
    ("total", r"(?P<codec>[\w+]+) model: ?<model_bytes:int> bytes \| Total submission: ?<bytes:int> bytes"),
    ("total", r"artifact: ?<bytes:int> bytes \(model:<model_bytes:int> code:<code_bytes:int>\)"),
    ("total", r"artifact: ?<model_bytes:int> bytes .{0,20}\bcode: ?<code_bytes:int> total: ?<bytes:int> bytes"),
    # evaluation
    ("eval_mode", r"final_eval_mode:(?P<mode>sliding_window|standard)(?: stride:<stride:int>)?"),
    ("sliding_progress", r"\s*sliding_eval \[.*"),
    ("ttt_chunk", r"\s*(?:\w*ttt_chunk |tc ?)\[<chunk:int>/<of:int>\] ?(?:cum_)?bpb=<bpb:float>"),
    ("score", r"(?P<text>[A-Za-z]\w*(?:mix|ppm)\w* .{0,80}?\b\w*mix_bpb=<bpb:float>(?!\w).*)"),
    ("score", rf"(?P<text>{_LABEL}\bval_loss[:=] ?<loss:float> {_BPB}(?!\w).*)"),
    ("score", rf"(?P<text>{_LABEL} vl: ?<loss:float> {_BPB}(?!\w).*)"),
    ("score", rf"(?P<text>{_LABEL}(?<!\w)(?:val_)?bpb(?: \(.{{0,30}}?\))?[:=] ?<bpb:float>(?!\w).*)"),
    (
        "score",
        r"(?P<text> *[A-Za-z][A-Za-z -]{0,40} (?:BPB|val_bpb)(?: \([^)\d]{0,20}\d{0,2}\))?: *<bpb:float>(?!\w).*)",
    ),
    # ends
    ("oom", r".{0,200}(?:CUDA out of memory|OutOfMemoryError).*"),
    ("traceback", r"(?:\[rank\d+\]: )?Traceback \(most recent call last\):"),
    ("averages", r"(?i:.*\b(?:ema|swa|lawa|sqwa|averag\w*)(?:\b|_).*)"),  # mentions an average without applying it
)

HEADER = ("tokenizer", "train_data", "val_data", "params", "world", "batch", "seed", "warmup")
AVERAGES = ("ema", "swa", "lawa", "sqwa")
RUN_MARKS = frozenset({"tokenizer", "params", "train", "val", "stop", "score"})
"""A text with none of these is not a run."""

WINDOW = re.compile(r"(?i:sliding|\bslide|stride)")
INLINE = (
    # facts that some scripts print within a line of the head, or in a list of settings
    ("seed_named", re.compile(r"(?i:(?:^|[\s,])seed[:=] ?)(?P<seed>\d{1,15})(?![\w.])", re.A)),
    ("world_named", re.compile(r"(?i:(?:^|\s)world[_ ]size: ?)(?P<world_size>\d{1,6})(?![\w.])", re.A)),
)
TUNED_ON_VALIDATION = re.compile(
    # test-time training that is not score-first: epochs over the validation text, or over each of its documents, before
    # it is scored. A burst repeats training batches; chunks are scored first.
    r"(?i:(?!.{0,20}burst)[^=]{0,30}?ttt\w*:? ?"
    r"(?:(?:start|rank\d|starting)\b(?!.*\bchunks?=).*?\bepochs[=: ]{1,2}(?P<epochs>\d+)"
    r"|starting rank=\d.{0,40}?\bepochs=(?P<passes>\d+)"
    r"|short=\d+ .{0,60}\bepochs=(?P<each>\d+)|(?:starting )?(?P<count>\d+) (?:epochs|passes)\b(?!.*\bchunks?=)"
    r"|(?:\w+[ :])?[:_ ]? ?epoch[ :=]*\d+/(?P<of>\d+)).*)",
    re.A,
)
TUNES_AS_IT_SCORES = re.compile(
    r"(?i:\s*\w*ttt\w*: ?start (?=.*\bchunks=).*|TTT: epochs=.*\bchunk=.*|\s*\w*ttt_chunk \[.*|tttg: c\d+/.*"
    r"|ttt_progress: batch.*|ttt:c=\d.*)",
    re.A,
)
MIXES_A_MODEL = re.compile(
    # another predictor or an adapted state joins the model: its scores are not those of the weights
    r"(?i:(?:(?<![a-z])(?:n-?gram|ppm|slot|knn|hedge|dyneval|two_pass)|paid_prefix|cache_eval|correction table))"
)
SETTING = re.compile(r"[^\w.]*[\w.]+ ?[:=] ?\S*|\S+", re.A)
"""A line that only names a setting or a file: it tells what could be, not what was."""
SWITCHED_OFF = re.compile(
    r"(?i:.*(?:enabled|use|active)\w*[=:] ?(?:0|false|off|no)\b|.*\b(?:disabled|skipp(?:ed|ing))\b|\w+_time:)"
)


def _compiled(pattern: str) -> re.Pattern[str]:
    body = re.sub(r"(?<!\?P)<(\w+)(?::(\w+))?>", lambda m: f"(?P<{m[1]}>{_VALUES[m[2]]})", pattern)
    return re.compile(f"(?:{body})(?:\\s.*)?", re.A)


PATTERNS: tuple[tuple[str, re.Pattern[str]], ...] = tuple((kind, _compiled(text)) for kind, text in _LINES)
HEADER_PATTERNS = tuple(pattern for kind, pattern in PATTERNS if kind in HEADER)
