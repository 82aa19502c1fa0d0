"""Importer for submission.json files: a key with a clear meaning becomes a column, any other value a claim or a null.

Most files give `val_bpb` without its evaluation: plain, sliding, with test-time training, of the best seed or the mean.
Such a number goes into `claimed_bpb` and `notes`, never into a column. Spellings: a survey of 1,824 such files.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from typing import Any

from results.importers.imported_run import ImportedRun, RowBuilder
from trainer.errors import InputError
from trainer.records.results import SCORES

_SLIDING = r"(?:int\d_)?(?:sliding|sliding_window|sw)(?:_s64)?_(?:val_)?bpb(?:_exact)?|val_bpb_sliding(?:_window)?"
_ROUNDTRIP = (
    r"(?:int\d_(?:zlib_|zstd_|lzma_)?)?(?:roundtrip|post_quant|quantized)_(?:val_)?bpb|val_bpb_(?:roundtrip|quantized)"
)
_KEYS: tuple[tuple[str, str], ...] = (
    # column, its spellings; `claim`, `pre_quant` and `roundtrip` are not columns
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
_OF_ALL_SEEDS = ("hardware", "num_params", "world_size")  # given once at the top, valid for each seed
_PER_SEED = ("seed_results", "seeds", "per_seed", "per_seed_results")
_SEED = re.compile(r"(?:seed_?)?(\d{1,9})", re.A)
_MIN_BYTES = 1000  # "15.9" and "16" are megabytes
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]:,\n]')
_NUMBER = re.compile(r"[-+]?\d{1,3}(?:,\d{3})+|[-+]?\d{1,15}(?:\.\d{1,20})?(?:[eE][-+]?\d{1,2})?", re.A)
_KeyPath = tuple[str | int, ...]


def read_runs(file: str, text: str) -> list[ImportedRun] | None:
    """Return the row of a submission.json, or one per seed if it lists results by seed; None if it is not a .json file.

    Raises:
        InputError: it is not JSON, or not a mapping.
    """
    if not file.endswith(".json"):
        return None
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        problem = str(error) if isinstance(error, ValueError) else "nested too deeply"
        raise InputError(file, "JSON", problem, "repair the file, or import the log instead") from None
    if not isinstance(data, dict):
        raise InputError(file, "JSON", type(data).__name__, "a submission.json is a mapping")
    lines = _lines_of_keys(text)
    entries: list[tuple[_KeyPath, int | None, dict[str, Any]]] = [*_entries(data)] or [((), None, data)]
    return [_run(file, data, where, seed, entry, lines) for where, seed, entry in entries]


def _entries(data: dict[str, Any]) -> Iterator[tuple[_KeyPath, int, dict[str, Any]]]:
    """Yield (path, seed, results) of every seed that the file lists with a mapping."""
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
    row = RowBuilder(file)
    line = min((number for path, number in lines.items() if path[: len(where)] == where), default=1)
    claims = _read(row, entry, where, lines)
    if seed is not None:
        row.set("seed", seed, line)
        shared = {key: value for key, value in data.items() if _column(key) in _OF_ALL_SEEDS}
        _read(row, shared, (), lines)
    elif isinstance(seeds := data.get("seeds"), list) and len(seeds) > 1:
        row.set_null("seed", f"the file gives {len(seeds)} seeds together")
    row.set_gap_and_cap()
    claim = next(iter(claims), None)
    scores = [row.columns[name] for name in SCORES if row.has(name)]
    if claim is not None and claim[0] not in scores:
        row.add_note(f"claims {claim[0]} bpb without saying how it was evaluated", claim[1])
    row.set("status", "finished" if scores or claim else "failed", line)
    if not row.has("post_quant_bpb"):
        row.set_null("post_quant_bpb", "the file gives no non-sliding bpb of the artifact")
        row.set("reason", row.why_null("post_quant_bpb") if scores or claim else "the file gives no bpb", line)
    digest = hashlib.sha256(json.dumps([seed, entry], sort_keys=True).encode()).hexdigest()
    return row.finish(f"{file}:{line}", digest, claim[0] if claim else None)


def _column(key: str) -> str | None:
    return next((column for column, pattern in _PATTERNS if pattern.fullmatch(key.lower())), None)


def _read(
    row: RowBuilder, entry: dict[str, Any], where: _KeyPath, lines: dict[_KeyPath, int]
) -> list[tuple[float, int]]:
    """Set the columns of the keys. Return the claimed bpb values with their lines, `val_bpb` first if it is given."""
    found: dict[str, list[tuple[Any, int]]] = {}
    for key, raw in sorted(entry.items(), key=lambda item: item[0] != "val_bpb"):
        column = _column(key)
        if column is None or isinstance(raw, (dict, list)):
            continue
        line = lines.get((*where, key), 1)
        value, problem = _value(column, raw)
        if problem:
            row.set_null(column, f"{key} is {problem} ({row.at(line)})")
        else:
            found.setdefault(column, []).append((value, line))
    claims = [(float(value), line) for value, line in found.pop("claim", [])]
    roundtrip = found.pop("roundtrip", [])
    for value, line in found.pop("pre_quant", [])[:1]:
        row.set_null("float_bpb", f"{value} before quantization ({row.at(line)}): raw or averaged weights, not stated")
    for column, values in found.items():
        target, scale = ("train_s", 1000) if column == "train_ms" else (column, 1)
        if len({value for value, _ in values}) == 1:
            value, line = values[0]
            row.set(target, value / scale if scale != 1 else value, line)
        else:
            row.set_null(target, f"given as {' and '.join(f'{v} ({row.at(n)})' for v, n in values)}")
    if len({value for value, _ in roundtrip}) == 1:
        value, line = roundtrip[0]
        if row.columns.get("sliding_bpb", value) != value:
            row.set("post_quant_bpb", value, line)
        else:
            reason = f"{value} ({row.at(line)}) may be plain or sliding: no sliding score beside it"
            row.set_null("post_quant_bpb", reason)
    return claims


def _value(column: str, raw: Any) -> tuple[Any, str | None]:
    """Return the value, or None and what is wrong with it."""
    if raw is None:
        return None, "null"
    if column == "hardware":
        text = " ".join(str(raw).encode("utf-8", "replace").decode().split())
        return (text, None) if text else (None, "empty")
    if isinstance(raw, str):
        text = re.sub(r"\s*(?:bytes|B)$", "", raw.strip()) if column in _WHOLE else raw.strip()
        if not _NUMBER.fullmatch(text):
            return None, f"not a number: {json.dumps(raw[:60])}"
        number = float(text.replace(",", ""))
    elif isinstance(raw, bool) or abs(raw) >= 2**53 or raw != raw:
        return None, "not a usable number"
    else:
        number = float(raw)
    if column != "seed" and number <= 0:
        return None, f"{raw}, a placeholder"
    if column.endswith("_bytes") and number < _MIN_BYTES:
        return None, f"{raw}, too small for bytes"
    if column in _WHOLE:
        return (int(number), None) if number.is_integer() else (None, f"{raw}, not a whole number")
    return number, None


def _lines_of_keys(text: str) -> dict[_KeyPath, int]:
    """Return the line of every key path in a JSON text. The last of equal keys counts, as in `json`."""
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
