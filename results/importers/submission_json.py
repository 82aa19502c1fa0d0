"""submission.json, as people write it, -> rows: what a key says for certain becomes a column, the rest a claim or a null.

Most files say `val_bpb` and not how it was measured: plain, sliding, with test-time training, of the best seed or the
mean. Such a number is in `claimed_bpb` and in `notes`, never in a column. Spellings: a survey of 1,824 such files.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from results.importers.record import Findings, ImportedRun, read_text
from trainer.errors import InputError
from trainer.limits import ARTIFACT_CAP_BYTES
from trainer.records.results import SCORES

_SLIDING = r"(?:int\d_)?(?:sliding|sliding_window|sw)(?:_s64)?_(?:val_)?bpb(?:_exact)?|val_bpb_sliding(?:_window)?"
_ROUNDTRIP = (
    r"(?:int\d_(?:zlib_|zstd_|lzma_)?)?(?:roundtrip|post_quant|quantized)_(?:val_)?bpb|val_bpb_(?:roundtrip|quantized)"
)
_KEYS: tuple[tuple[str, str], ...] = (
    # column, its spellings; `claim`, `pre_quant` and `roundtrip` are no columns
    ("claim", r"val_bpb(?:_exact|_mean|_avg|_(?:3|three)_?seed_mean)?|(?:mean|best|final|average)_val_bpb"),
    ("claim", r"(?:mean_|best_|final_|average_|three_seed_mean_)?bpb|validation_bpb"),
    ("float_bpb", r"post_ema_(?:val_)?bpb|val_bpb_post_ema"),
    ("pre_quant", r"(?:pre_?quant|pre_quantization)_(?:val_)?bpb|val_bpb_pre_?quant"),
    ("sliding_bpb", _SLIDING),
    ("roundtrip", _ROUNDTRIP),
    ("ttt_bpb", r"(?:legal_|post_|final_post_)?ttt_(?:val_)?bpb|val_bpb_(?:legal_|post_)?ttt"),
    ("artifact_bytes", r"bytes_total|(?:total_)?(?:artifact|submission)(?:_size)?_bytes|total_bytes|artifact_size"),
    ("model_bytes", r"bytes_model(?:_\w+)?|(?:compressed_)?model(?:_size)?_bytes"),
    ("code_bytes", r"bytes_code|code(?:_size)?_bytes"),
    ("steps", r"step_stop|stop_step|(?:train_|training_|num_)?steps|steps_completed"),
    ("step_ms", r"step_avg_ms|ms_per_step|step_ms"),
    ("train_ms", r"(?:train|training|train_wallclock)(?:_time)?_ms"),
    ("num_params", r"(?:model|num|total)_params|param(?:eter)?s"),
    ("world_size", r"num_gpus|world_size"),
    ("hardware", r"(?:training_)?hardware|gpu(?:_type|_config)?"),
    ("seed", r"seed"),
)
_PATTERNS = tuple((column, re.compile(pattern, re.A)) for column, pattern in _KEYS)
_WHOLE = ("artifact_bytes", "model_bytes", "code_bytes", "steps", "num_params", "world_size", "seed")
_OF_ALL_SEEDS = ("hardware", "num_params", "world_size")  # said once at the top, true for each seed
_PER_SEED = ("seed_results", "seeds", "per_seed", "per_seed_results")
_SEED = re.compile(r"(?:seed_?)?(\d{1,9})", re.A)
_MIN_BYTES = 1000  # "15.9" and "16" are megabytes
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]:,\n]')
_NUMBER = re.compile(r"[-+]?\d{1,3}(?:,\d{3})+|[-+]?\d{1,15}(?:\.\d{1,20})?(?:[eE][-+]?\d{1,2})?", re.A)
_KeyPath = tuple[str | int, ...]


def read_submission(path: str | Path) -> list[ImportedRun]:
    """The row of a submission.json, or one for each seed where it lists results by seed.

    Raises:
        InputError: it cannot be read, is no JSON, or is no mapping.
    """
    text = read_text(Path(path))
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        problem = str(error) if isinstance(error, ValueError) else "nested too deeply"
        raise InputError(str(path), "JSON", problem, "mend the file, or import the log instead") from None
    if not isinstance(data, dict):
        raise InputError(str(path), "JSON", type(data).__name__, "a submission.json is a mapping")
    lines = _lines_of_keys(text)
    entries: list[tuple[_KeyPath, int | None, dict[str, Any]]] = [*_entries(data)]
    entries = entries or [((), None, data)]
    return [_run(str(path), data, where, seed, entry, lines) for where, seed, entry in entries]


def _entries(data: dict[str, Any]) -> Iterator[tuple[_KeyPath, int, dict[str, Any]]]:
    """(path, seed, results) of every seed that the file lists with a mapping of its own."""
    for key, value in data.items():
        if (name := re.fullmatch(r"seed_(\d{1,9})", key, re.A)) and isinstance(value, dict):
            yield (key,), int(name[1]), value
        if key not in _PER_SEED:
            continue
        items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for inner, results in items:
            if isinstance(results, dict):
                called = results.get("seed") if isinstance(value, list) else inner
                if name := _SEED.fullmatch(str(called)):
                    yield (key, inner), int(name[1]), results


def _run(
    file: str,
    data: dict[str, Any],
    where: _KeyPath,
    seed: int | None,
    entry: dict[str, Any],
    lines: dict[_KeyPath, int],
) -> ImportedRun:
    out = Findings(file)
    line = min((number for path, number in lines.items() if path[: len(where)] == where), default=1)
    claims = _read(out, entry, where, lines)
    if seed is not None:
        out.found("seed", seed, line)
        shared = {key: value for key, value in data.items() if _column(key) in _OF_ALL_SEEDS}
        _read(out, shared, (), lines)
    elif isinstance(seeds := data.get("seeds"), list) and len(seeds) > 1:
        out.missing("seed", f"the file speaks of {len(seeds)} seeds together")
    if out.has("float_bpb", "post_quant_bpb"):
        gap = float(out.columns["post_quant_bpb"]) - float(out.columns["float_bpb"])
        out.derived("quant_gap", ("post_quant_bpb", "float_bpb"), gap)
    else:
        out.missing("quant_gap", "float_bpb or post_quant_bpb is null")
    if out.has("artifact_bytes"):
        out.derived("is_within_cap", ("artifact_bytes",), int(out.columns["artifact_bytes"]) <= ARTIFACT_CAP_BYTES)
    claim = next(iter(claims), None)
    scores = [out.columns[name] for name in SCORES if out.has(name)]
    if claim is not None and claim[0] not in scores:
        out.note(f"claims {claim[0]} bpb without saying how it was evaluated", claim[1])
    out.found("status", "finished" if scores or claim else "failed", line)
    if not out.has("post_quant_bpb"):
        out.missing("post_quant_bpb", "the file does not say what a non-sliding evaluation of the artifact gave")
        out.found("reason", out.reason("post_quant_bpb") if scores or claim else "the file gives no bpb", line)
    digest = hashlib.sha256(json.dumps([seed, entry], sort_keys=True).encode()).hexdigest()
    return out.finish(f"{file}:{line}", digest, claim[0] if claim else None)


def _column(key: str) -> str | None:
    return next((column for column, pattern in _PATTERNS if pattern.fullmatch(key.lower())), None)


def _read(out: Findings, entry: dict[str, Any], where: _KeyPath, lines: dict[_KeyPath, int]) -> list[tuple[float, int]]:
    """Fill in what the keys say. Returns the claimed bpb values with their lines, `val_bpb` first where it is given."""
    found: dict[str, list[tuple[Any, int]]] = {}
    for key, raw in sorted(entry.items(), key=lambda item: item[0] != "val_bpb"):
        column = _column(key)
        if column is None or isinstance(raw, (dict, list)):
            continue
        line = lines.get((*where, key), 1)
        value, problem = _value(column, raw)
        if problem:
            out.missing(column, f"{key} is {problem} ({out.at(line)})")
        else:
            found.setdefault(column, []).append((value, line))
    claims = [(float(value), line) for value, line in found.pop("claim", [])]
    roundtrip = found.pop("roundtrip", [])
    for value, line in found.pop("pre_quant", [])[:1]:
        out.missing(
            "float_bpb", f"{value} before quantization ({out.at(line)}): of raw or averaged weights, is not said"
        )
    for column, values in found.items():
        target, scale = ("train_s", 1000) if column == "train_ms" else (column, 1)
        if len({value for value, _ in values}) == 1:
            value, line = values[0]
            out.found(target, value / scale if scale != 1 else value, line)
        else:
            out.missing(target, f"given as {' and '.join(f'{v} ({out.at(n)})' for v, n in values)}")
    if len({value for value, _ in roundtrip}) == 1:
        value, line = roundtrip[0]
        if out.has("sliding_bpb") and value != out.columns["sliding_bpb"]:
            out.found("post_quant_bpb", value, line)
        else:
            out.missing(
                "post_quant_bpb", f"{value} ({out.at(line)}) may be plain or sliding: no sliding score beside it"
            )
    return claims


def _value(column: str, raw: Any) -> tuple[Any, str | None]:
    """The value, or None and what is wrong with it."""
    if raw is None:
        return None, "null"
    if column == "hardware":
        text = " ".join(str(raw).encode("utf-8", "replace").decode().split())
        return (text, None) if text else (None, "empty")
    if isinstance(raw, str):
        text = re.sub(r"\s*(?:bytes|B)$", "", raw.strip()) if column in _WHOLE else raw.strip()
        if not _NUMBER.fullmatch(text):
            return None, f"no number: {json.dumps(raw[:60])}"
        number = float(text.replace(",", ""))
    elif isinstance(raw, bool) or abs(raw) >= 2**53 or raw != raw:
        return None, "no usable number"
    else:
        number = float(raw)
    if column != "seed" and number <= 0:
        return None, f"{raw}, a placeholder"
    if column.endswith("_bytes") and number < _MIN_BYTES:
        return None, f"{raw}, too small for bytes"
    if column in _WHOLE:
        return (int(number), None) if number.is_integer() else (None, f"{raw}, no whole number")
    return number, None


def _lines_of_keys(text: str) -> dict[_KeyPath, int]:
    """Path of every key -> the line it stands on; text must be JSON. The last of equal keys counts, as in `json`."""
    lines: dict[_KeyPath, int] = {}
    path: list[str | int] = []
    line, last = 1, ""
    for token in _TOKEN.findall(text):
        if token == "\n":
            line += 1
        elif token in "{[":
            path.append(0 if token == "[" else "")
        elif token in "}]":
            path.pop()
        elif token == ":":
            path[-1] = json.loads(last)
            lines[tuple(path)] = line
        elif token == "," and isinstance(path[-1], int):
            path[-1] += 1
        else:
            last = token
    return lines
