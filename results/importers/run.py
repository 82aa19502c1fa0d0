"""Events of one run -> one row. Each column is told by a line, follows from such columns, or is null with a reason."""

import math
from collections.abc import Sequence
from collections.abc import Set as AbstractSet

from results.importers.log import Event, LogRun
from results.importers.patterns import AVERAGES
from results.importers.record import Findings, ImportedRun
from results.importers.scores import Score, read_scores
from trainer.limits import ARTIFACT_CAP_BYTES

PUBLISHED_SPLIT_BYTES = {62_021_632: 151_080_363}
"""Scored tokens -> scored bytes of the challenge's sp1024 validation split at sequence length 2048."""

_PLAIN_FACTS = (
    # event, its value, column
    ("seed", "seed", "seed"),
    ("params", "num_params", "num_params"),
    ("world", "world_size", "world_size"),
    ("memory", "mib", "peak_memory_mib"),
    ("torch", "torch", "torch_version"),
    ("val_data", "tokens", "scored_tokens"),
)
_FROM_SCORES = (("float", "float_bpb"), ("plain", "post_quant_bpb"), ("sliding", "sliding_bpb"), ("ttt", "ttt_bpb"))
_ABSENT = {
    "float_bpb": "no line gives the bpb after averaging, before quantization",
    "post_quant_bpb": "no line gives a non-sliding bpb of the quantized model",
    "sliding_bpb": "no line gives a sliding-window bpb of the quantized model",
    "ttt_bpb": "no line gives a bpb with test-time training",
}


def imported_run(run: LogRun) -> ImportedRun:
    """The row of one run."""
    out = Findings(run.file)
    scores = read_scores(run)
    for kind, name, column in _PLAIN_FACTS:
        if event := run.last(kind):
            value = event[name]
            out.found(column, float(value) if column == "peak_memory_mib" else value, event.line)
    _hardware(run, out)
    _training(run, out)
    _qat(run, out)
    _scores(run, scores, out)
    _average(run, out)
    _artifact(run, out)
    _derived(out)
    _status(run, scores, out)
    return out.finish(f"{run.file}:{run.events[0].line}-{run.last_line}", run.digest)


def _hardware(run: LogRun, out: Findings) -> None:
    gpus = run.all("gpu")
    if gpus:
        world = out.columns.get("world_size")
        count = world if isinstance(world, int) and world <= len(gpus) else len(gpus)
        out.found("hardware", f"{gpus[0]['gpu']} x{count}", gpus[0].line, *out.lines("world_size"))


def _training(run: LogRun, out: Findings) -> None:
    """Steps taken and the training clock, if the log shows that training came to its end; and the last validation."""
    steps = run.all("train", "val")
    stop = run.last("stop")
    last = steps[-1] if steps else None
    if stop and "step" in stop.values:
        out.found("steps", stop["step"], stop.line)
    elif last and (stop or last["step"] == last["of"]):
        out.found("steps", last["step"], last.line)
    if not out.has("steps"):
        reason = f"the log ends during training, after step {last['step']}" if last else "no training step in the log"
        for column in ("steps", "train_s", "step_ms", "tokens"):
            out.missing(column, reason)
    at_end = [event for event in steps if event["step"] == out.columns.get("steps")]
    clock = stop or (at_end[-1] if at_end else None)
    if clock and out.has("steps"):
        out.found("train_s", int(clock["train_ms"]) / 1000, clock.line)
        timed = [event for event in at_end if "step_ms" in event.values]
        if timed:
            out.found("step_ms", float(timed[-1]["step_ms"]), timed[-1].line)
        elif out.columns["steps"]:
            out.found("step_ms", int(clock["train_ms"]) / int(out.columns["steps"]), clock.line, *out.lines("steps"))
    if (batch := run.last("batch")) and out.has("steps"):
        out.found("tokens", int(out.columns["steps"]) * int(batch["batch_tokens"]), *out.lines("steps"), batch.line)
    validations = run.all("val")
    if validations and validations[-1] in at_end:
        out.found("raw_bpb", validations[-1]["bpb"], validations[-1].line)
    elif validations:
        out.missing("raw_bpb", f"the last validation was after step {validations[-1]['step']}, not at the end")


def _qat(run: LogRun, out: Findings) -> None:
    switched = run.all("qat_on")
    if not switched:
        out.missing("qat_on_step", "no line says that QAT switched on")
    elif "step" in switched[0].values:
        out.found("qat_on_step", switched[0]["step"], switched[0].line)
    else:
        trained = run.all("train", "val")
        before = [event for event in trained if event.line < switched[0].line]
        after = [event for event in trained if event.line > switched[0].line]
        if not before:
            out.found("qat_on_step", 0, switched[0].line)
        else:
            until = f" and {after[0]['step']}" if after else ""
            reason = f"its line gives no step; it stands between step {before[-1]['step']}{until}"
            out.missing("qat_on_step", f"{reason} ({out.at(switched[0].line)})")


def _scores(run: LogRun, scores: Sequence[Score], out: Findings) -> None:
    """One score for each kind of evaluation; exact ones first, and of several strides the smallest."""
    taken: list[Score] = []
    unclear = [score for score in scores if score.kind == "unclear"]
    for kind, column in _FROM_SCORES:
        found = [score for score in scores if score.kind == kind]
        if kind == "sliding":
            strides = [score.stride for score in found if score.stride]
            found = [score for score in found if score.stride in (None, min(strides, default=None))]
        exact = [score for score in found if score.is_exact] or found
        if len({score.bpb for score in exact}) == 1:
            out.found(column, exact[-1].bpb, exact[-1].lines[0])
            taken += [exact[-1]] if kind != "float" else []
        elif exact:
            out.missing(column, f"several scores: {', '.join(f'{s.bpb} ({out.at(s.lines[0])})' for s in exact)}")
        elif unclear and kind in ("plain", "sliding"):
            out.missing(column, f"{unclear[-1].why} ({out.at(unclear[-1].lines[0])})")
    if not out.has("ttt_bpb") and (chunks := run.all("ttt_chunk")):
        at = f"chunk {chunks[-1]['chunk']} of {chunks[-1]['of']}, running bpb {chunks[-1]['bpb']}"
        out.missing("ttt_bpb", f"the log ends during test-time training: {at} ({out.at(chunks[-1].line)})")
    _evaluations(taken, out)
    for column, reason in _ABSENT.items():
        out.missing(column, reason)


def _evaluations(taken: Sequence[Score], out: Findings) -> None:
    """What the lines of the chosen scores say besides their bpb."""
    for score in taken:
        if score.kind == "plain":
            out.found("val_loss_nats", score.loss, score.lines[0])
        if score.kind == "sliding" and score.stride and score.stride_line:
            out.found("eval_stride", score.stride, score.stride_line)
        if score.eval_seq_len:
            out.found("eval_seq_len", score.eval_seq_len, *score.lines)
        _check_bytes(score, out)
    times = [score.eval_s for score in taken if score.eval_s is not None]
    if times and len(times) == len(taken):
        out.found("eval_s", round(math.fsum(times), 3), *(line for score in taken for line in score.lines))
    elif taken:
        out.missing("eval_s", "not every evaluation has its time")
    out.missing("val_loss_nats", "it belongs to post_quant_bpb, which is null")


def _check_bytes(score: Score, out: Findings) -> None:
    """bpb = nats / ln 2 x tokens / bytes gives the bytes; on the published split they must be the known ones.

    Sliding windows of these scripts score the last tokens of the split many times: 2.7e-6 off in every published log.
    """
    tokens = out.columns.get("scored_tokens")
    known = PUBLISHED_SPLIT_BYTES.get(tokens) if isinstance(tokens, int) else None
    if known is None or not (score.bpb > 0 and score.loss > 0 and math.isfinite(score.bpb * score.loss)):
        return
    num_bytes = score.loss / math.log(2) * int(tokens or 0) / score.bpb
    tolerance = 2e-4 if not score.is_exact else 1e-7 if score.kind == "plain" else 1e-5
    if abs(num_bytes / known - 1) <= tolerance:
        out.found("scored_bytes", known, score.lines[0], *out.lines("scored_tokens"))
    else:
        ratio, expected = score.bpb / score.loss, int(tokens or 0) / known / math.log(2)
        out.note(f"{score.label}: bpb per nat {ratio:.5f}, but the published split has {expected:.5f}", *score.lines)


def _average(run: LogRun, out: Findings) -> None:
    """Which average was exported. Where the log of a whole run speaks of none, the last weights were."""
    applied = run.all(*AVERAGES)
    if applied:
        out.found("average", applied[-1].kind, applied[-1].line)
    elif run.all("averages", "float") or out.has("float_bpb") or not (run.last("batch") and out.has("steps")):
        out.missing("average", "no line says which average was applied")
    else:
        out.found("average", "last", *out.lines("steps"))
        if out.has("raw_bpb"):
            out.derived("float_bpb", ("raw_bpb",), out.columns["raw_bpb"])


def _artifact(run: LogRun, out: Findings) -> None:
    """Bytes of model, code and both. A total without a codec may be that of the raw weights: then it is not taken."""
    models, totals, code = run.all("model"), run.all("total"), run.last("code")
    named = [event for event in totals if "codec" in event.values]
    raw = {event["bytes"] for event in run.all("raw_model")}
    packed = [e for e in totals if "codec" not in e.values and not _is_raw(e, raw, code)]
    for column, events in (("model_bytes", models), ("artifact_bytes", named or packed)):
        values = {event["bytes"] for event in events}
        if len(values) == 1:
            out.found(column, events[-1]["bytes"], events[-1].line)
        elif values:
            shown = ", ".join(f"{event['bytes']} ({out.at(event.line)})" for event in events)
            out.missing(column, f"several artifacts in one run: {shown}")
    if code:
        out.found("code_bytes", code["bytes"], code.line)
    known = {name: out.columns.get(name) for name in ("artifact_bytes", "model_bytes", "code_bytes")}
    total, model, code_bytes = (int(v) if v is not None else None for v in known.values())
    if total is not None and model is not None and code_bytes is None and total >= model:
        out.derived("code_bytes", ("artifact_bytes", "model_bytes"), total - model)
    elif not (named or packed) and model is not None and code_bytes is not None:
        out.derived("artifact_bytes", ("model_bytes", "code_bytes"), model + code_bytes)
    elif total is not None and model is not None and total != model + (code_bytes or 0):
        lines = [line for name in known for line in out.lines(name)]
        out.note(f"total {total:,} bytes is not model {model:,} + code {code_bytes or 0:,}", *lines)
    if out.has("artifact_bytes"):
        within = int(out.columns["artifact_bytes"]) <= ARTIFACT_CAP_BYTES
        out.derived("is_within_cap", ("artifact_bytes",), within)


def _is_raw(total: Event, raw: AbstractSet[object], code: Event | None) -> bool:
    code_bytes = int(code["bytes"]) if code else 0
    return any(int(total["bytes"]) - code_bytes == size for size in raw)


def _derived(out: Findings) -> None:
    if out.has("float_bpb", "post_quant_bpb"):
        gap = float(out.columns["post_quant_bpb"]) - float(out.columns["float_bpb"])
        out.derived("quant_gap", ("post_quant_bpb", "float_bpb"), gap)
    else:
        lacking = [name for name in ("float_bpb", "post_quant_bpb") if not out.has(name)]
        out.missing("quant_gap", f"{' and '.join(lacking)} {'is' if len(lacking) == 1 else 'are'} null")
    if not out.has("artifact_bytes"):
        out.missing("is_within_cap", "artifact_bytes is null")


def _status(run: LogRun, scores: Sequence[Score], out: Findings) -> None:
    """Finished: the quantized model was scored. A finished run without a plain score says why in `reason`."""
    last = run.events[-1].line
    final = [score for score in scores if score.kind not in ("float", "duplicate") and math.isfinite(score.bpb)]
    if final:
        out.found("status", "finished", final[-1].lines[0])
        if not out.has("post_quant_bpb"):
            out.found("reason", f"no post_quant_bpb: {out.reason('post_quant_bpb')}", last)
        return
    out.found("status", "failed", last)
    nan = [e for e in run.all("train", "val", "score") if not math.isfinite(float(e.values.get("loss", 0.0)))]
    for kind, event, problem in (
        ("oom", run.last("oom"), "out of memory"),
        ("diverged", nan[0] if nan else None, "the loss is not finite"),
        (None, run.last("traceback"), "it ended with a traceback"),
    ):
        if event:
            if kind:
                out.found("failure_kind", kind, event.line)
            out.found("reason", f"{problem} ({out.at(event.line)}); no final score", event.line)
            return
    reached = f"training ended after step {out.columns['steps']}" if out.has("steps") else out.reason("steps")
    out.found("reason", f"{reached}; no final score up to line {last}", last)
