"""The hard limits that a submission must meet, judged from a trial's own numbers: bytes and the two clocks.

The flag `is_within_cap` of a record is not trusted: it is computed again from the bytes.
"""

import re

from results.schema import Row
from trainer.limits import ARTIFACT_CAP_BYTES, EVAL_CAP_S, TARGET_GPUS, TRAIN_CAP_S, latest_train_s

_ON_CPU = re.compile(r"\bcpu\b|\(\d+ cores?\)", re.I)
_GPU_COUNT = re.compile(r"^\s*(\d+)\s*x|x\s*(\d+)\s*$", re.I)  # `8 x NVIDIA H100`, `8xH100`, `NVIDIA H100 x8`


def artifact_size(row: Row) -> int | None:
    """Return model_bytes + code_bytes or artifact_bytes, whichever is larger; None if neither is known."""
    parts = (row["model_bytes"], row["code_bytes"])
    total = None if None in parts else sum(parts)
    return max((size for size in (row["artifact_bytes"], total) if size is not None), default=None)


def is_within_cap(row: Row) -> bool | None:
    """Return whether the artifact fits the cap; None if its size is unknown, and no known part of it is over the cap.

    Without bytes, a record that calls itself too big is believed, and one that claims to fit is not.
    """
    size = artifact_size(row)
    parts = [row[name] for name in ("model_bytes", "code_bytes") if row[name] is not None]
    if size is None and max(parts, default=0) <= ARTIFACT_CAP_BYTES:
        return False if row["is_within_cap"] is False else None
    return size is not None and size <= ARTIFACT_CAP_BYTES


def size_note(row: Row) -> str | None:
    """Return a note if the bytes contradict each other or the record's flag; None if they agree."""
    model, code, stated = row["model_bytes"], row["code_bytes"], row["artifact_bytes"]
    if None not in (model, code, stated) and model + code != stated:
        sums = f"model_bytes + code_bytes is {model + code:,}"
        return f"artifact_bytes {stated:,} but {sums}: the larger one is checked against the cap"
    if artifact_size(row) is not None and row["is_within_cap"] not in (None, is_within_cap(row)):
        return f"is_within_cap {row['is_within_cap']} contradicts {artifact_size(row):,} bytes and is not used"
    return None


def train_limit_s(row: Row) -> float | None:
    """Return the limit of the training clock in seconds: 600 on 8 GPUs, else the trial's own; None if unknown."""
    own = row["train_limit_s"]
    return TRAIN_CAP_S if is_target_machine(row) else None if own is None else float(own)


def is_target_machine(row: Row) -> bool:
    """Return whether the trial ran on 8 GPUs, the machine of the challenge. A trial on CPU ranks did not."""
    hardware = row["hardware"] or ""
    if _ON_CPU.search(hardware):
        return False
    counted = _GPU_COUNT.search(hardware)
    num_gpus = (
        row["world_size"] if row["world_size"] is not None else int(counted[1] or counted[2]) if counted else None
    )
    return bool(num_gpus == TARGET_GPUS)


def broken_clocks(row: Row) -> list[str]:
    """Return the clocks that passed their limit, as `trained 640.0 s of 600 s`.

    The training clock may pass it by two steps, because it is read between steps. Evaluation has a limit on 8 GPUs only.
    """
    limit_s, train_s, eval_s, found = train_limit_s(row), row["train_s"], row["eval_s"], []
    if limit_s is not None and train_s is not None and train_s > latest_train_s(row["step_ms"] or 0.0, limit_s):
        found.append(f"trained {train_s:,.1f} s of {limit_s:,.0f} s")
    if is_target_machine(row) and eval_s is not None and eval_s > EVAL_CAP_S:
        found.append(f"evaluated {eval_s:,.1f} s of {EVAL_CAP_S:,.0f} s")
    return found
