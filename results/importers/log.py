"""Importer for logs of the train_gpt.py family: the events of each run become one row.

Every column is read from a line, follows from columns that were, or is null with a reason.
"""

import math
import re
from collections.abc import Sequence

from results.importers.imported_run import ImportedRun, RowBuilder
from results.importers.log_events import Event, LogRun, split_runs
from results.importers.log_patterns import AVERAGES
from results.importers.log_scores import ScoreLine, read_scores
from results.importers.score_checks import MIN_GAP
from results.importers.score_columns import set_scores

_PLAIN_FACTS = (
    # event, its value, column
    ("seed", "seed", "seed"),
    ("seed_named", "seed", "seed"),
    ("params", "num_params", "num_params"),
    ("params_named", "num_params", "num_params"),
    ("world", "world_size", "world_size"),
    ("world_named", "world_size", "world_size"),
    ("memory", "mib", "peak_memory_mib"),
    ("torch", "torch", "torch_version"),
    ("val_data", "tokens", "scored_tokens"),
)


def read_runs(file: str, text: str) -> list[ImportedRun] | None:
    """Return the runs in a log; None if it holds no run of this family."""
    return [_imported(run) for run in split_runs(file, text)] or None


def _imported(run: LogRun) -> ImportedRun:
    row = RowBuilder(run.file)
    scores = read_scores(run)
    for kind, name, column in _PLAIN_FACTS:
        if event := run.last(kind):
            value = event[name]
            row.set(column, float(value) if column == "peak_memory_mib" else value, event.line)
    if gpus := run.all("gpu"):
        world = row.columns.get("world_size")
        count = world if isinstance(world, int) and world <= len(gpus) else len(gpus)
        row.set("hardware", f"{gpus[0]['gpu']} x{count}", gpus[0].line, *row.lines_of("world_size"))
    _training(run, row)
    _qat(run, row)
    set_scores(run, scores, row)
    _average(run, scores, row)
    _artifact(run, scores, row)
    row.set_gap_and_cap()
    _status(run, scores, row)
    return row.finish(f"{run.file}:{run.events[0].line}-{run.last_line}", run.digest)


def _training(run: LogRun, row: RowBuilder) -> None:
    """Set the columns of training: steps and clock if the log shows its end, and the last validation."""
    steps = run.all("train", "val")
    stop = run.last("stop")
    last = steps[-1] if steps else None
    if stop and "step" in stop.values:
        row.set("steps", stop["step"], stop.line)
    elif last and (stop or last["step"] == last["of"] or (last.kind == "val" and _goes_on_after(last, run))):
        row.set("steps", last["step"], last.line)
    if not row.has("steps"):
        reason = f"the log ends during training, after step {last['step']}" if last else "no training step in the log"
        for column in ("steps", "train_s", "step_ms", "tokens"):
            row.set_null(column, reason)
    at_end = [event for event in steps if event["step"] == row.columns.get("steps")]
    clock = stop or (at_end[-1] if at_end else None)
    if clock and "train_ms" in clock.values and row.has("steps"):
        train_ms = float(clock["train_ms"])
        row.set("train_s", train_ms / 1000, clock.line)
        timed = [event for event in at_end if "step_ms" in event.values]
        if timed:
            row.set("step_ms", float(timed[-1]["step_ms"]), timed[-1].line)
        elif row.columns["steps"]:
            row.set("step_ms", train_ms / int(row.columns["steps"]), clock.line, *row.lines_of("steps"))
    if (batch := run.last("batch")) and row.has("steps"):
        row.set("tokens", int(row.columns["steps"]) * int(batch["batch_tokens"]), *row.lines_of("steps"), batch.line)
    validations = run.all("val")
    if validations and validations[-1] in at_end:
        row.set("raw_bpb", validations[-1]["bpb"], validations[-1].line)
    elif validations:
        row.set_null("raw_bpb", f"the last validation was after step {validations[-1]['step']}, not at the end")


def _goes_on_after(last: Event, run: LogRun) -> bool:
    """Return whether the last validation was the end of training: the log goes on with what comes after training."""
    return any(event.line > last.line for event in run.all("memory", "raw_model", "model", "total", *AVERAGES))


def _qat(run: LogRun, row: RowBuilder) -> None:
    switched = run.all("qat_on")
    if not switched:
        row.set_null("qat_on_step", "no line reports that QAT was switched on")
    elif "step" in switched[0].values:
        row.set("qat_on_step", switched[0]["step"], switched[0].line)
    elif not (before := [event for event in run.all("train", "val") if event.line < switched[0].line]):
        row.set("qat_on_step", 0, switched[0].line)
    else:
        after = next((event for event in run.all("train", "val") if event.line > switched[0].line), None)
        until = f" and before step {after['step']}" if after else ""
        reason = f"its line gives no step; it comes after step {before[-1]['step']}{until}"
        row.set_null("qat_on_step", f"{reason} ({row.at(switched[0].line)})")


def _average(run: LogRun, scores: Sequence[ScoreLine], row: RowBuilder) -> None:
    """Set the exported average: the last one applied; the last weights if the log of a whole run mentions none."""
    applied = run.all(*AVERAGES)
    if applied:
        row.set("average", applied[-1].kind, applied[-1].line)
    elif (
        run.all("averages")
        or any(score.kind == "float" for score in scores)
        or not (run.last("batch") and row.has("steps"))
    ):
        row.set_null("average", "no line names the average that was applied")
    else:
        row.set("average", "last", *row.lines_of("steps"))
        raw, plain = (row.columns.get(name) for name in ("raw_bpb", "post_quant_bpb"))
        if raw is not None and plain is not None and float(plain) - float(raw) < MIN_GAP:
            row.set_null(
                "float_bpb", f"post_quant_bpb is better than raw_bpb {raw}: weights were averaged, no line says so"
            )
        elif raw is not None:
            row.set_derived("float_bpb", ("raw_bpb",), raw)


def _artifact(run: LogRun, scores: Sequence[ScoreLine], row: RowBuilder) -> None:
    """Set the bytes of model, code and both. A total without a codec is skipped if it is that of the raw weights."""
    models, totals, code = run.all("model"), run.all("total"), run.last("code")
    named = [event for event in totals if "codec" in event.values]
    unpacked = {int(event["bytes"]) + (int(code["bytes"]) if code else 0) for event in run.all("raw_model")}
    packed = [event for event in totals if "codec" not in event.values and event["bytes"] not in unpacked]
    is_mixed = row.why_null("post_quant_bpb").startswith("several")  # then no artifact is the one of all scores
    labels = [score.label for score in scores if score.kind in ("plain", "sliding", "ttt") and not is_mixed]
    models += [
        Event("model", e.line, e.values | {"bytes": e["model_bytes"]}) for e in totals if "model_bytes" in e.values
    ]
    several = ""
    for column, events in (("artifact_bytes", named or packed), ("model_bytes", models)):
        values = {event["bytes"] for event in events}
        if len(values) > 1:  # the one whose codec the scores name
            events = [event for event in events if any(_names_codec(label, event) for label in labels)] or events
            values = {event["bytes"] for event in events}
        if len(values) > 1:
            shown = ", ".join(f"{event['bytes']} ({row.at(event.line)})" for event in events)
            several = several or f"several artifacts in one run: {shown}"
        if several:
            row.set_null(column, several)
        elif values:
            row.set(column, events[-1]["bytes"], events[-1].line)
    if code:
        row.set("code_bytes", code["bytes"], code.line)
    for event in totals:
        if "code_bytes" in event.values:
            row.set("code_bytes", event["code_bytes"], event.line)
    known = {name: row.columns.get(name) for name in ("artifact_bytes", "model_bytes", "code_bytes")}
    total, model, code_bytes = (int(v) if v is not None else None for v in known.values())
    if total is not None and model is not None and code_bytes is None and total >= model:
        row.set_derived("code_bytes", ("artifact_bytes", "model_bytes"), total - model)
    elif not (named or packed) and model is not None and code_bytes is not None:
        row.set_derived("artifact_bytes", ("model_bytes", "code_bytes"), model + code_bytes)
    elif total is not None and model is not None and total != model + (code_bytes or 0):
        lines = [line for name in known for line in row.lines_of(name)]
        row.add_note(f"total {total:,} bytes is not model {model:,} + code {code_bytes or 0:,}", *lines)


def _names_codec(label: str, event: Event) -> bool:
    parts = re.findall(r"[a-z]+\d*", str(event.values.get("codec", "")).lower())
    return bool(parts) and all(part in re.findall(r"[a-z]+\d*", label.lower()) for part in parts)


def _status(run: LogRun, scores: Sequence[ScoreLine], row: RowBuilder) -> None:
    """Set status and reason. A run is finished if the quantized model was scored."""
    last = run.events[-1].line
    final = [
        score for score in scores if score.kind not in ("float", "duplicate", "choice") and math.isfinite(score.bpb)
    ]
    if final:
        row.set("status", "finished", final[-1].lines[0])
        if not row.has("post_quant_bpb"):
            row.set("reason", f"no post_quant_bpb: {row.why_null('post_quant_bpb')}", last)
        return
    row.set("status", "failed", last)
    nan = [e for e in run.all("train", "val", "score") if not math.isfinite(float(e.values.get("loss", 0.0)))]
    for kind, event, problem in (
        ("oom", run.last("oom"), "out of memory"),
        ("diverged", nan[0] if nan else None, "the loss is not finite"),
        (None, run.last("traceback"), "it ended with a traceback"),
    ):
        if event:
            if kind:
                row.set("failure_kind", kind, event.line)
            row.set("reason", f"{problem} ({row.at(event.line)}); no final score", event.line)
            return
    reached = f"training ended after step {row.columns['steps']}" if row.has("steps") else row.why_null("steps")
    row.set("reason", f"{reached}; no final score up to line {last}", last)
