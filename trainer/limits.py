"""The limits of the challenge. Source: README of openai/parameter-golf."""

ARTIFACT_CAP_BYTES = 16_000_000
"""Code plus compressed weights, in bytes. Decimal: 16,000,000, not 16 MiB."""

TRAIN_CAP_S = 600.0
"""Training clock on 8xH100, in seconds. Averaging and recompiles count; first compile, warm-up and validation do not."""

EVAL_CAP_S = 600.0
"""Evaluation, in seconds, test-time training included."""

WIN_NATS = 0.005
"""A record must beat the last one by this many nats per token ..."""

WIN_P_VALUE = 0.01
"""... with p below this ..."""

WIN_MIN_SEEDS = 3
"""... over at least this many seeds."""

TRAIN_OVERRUN_STEPS = 2
"""Steps by which a run may pass the limit of its clock: the last step, and one more because the reading may lag by one."""

TARGET_GPUS = 8
"""GPUs of the machine that the two time limits apply to."""

PRACTICE_P_VALUE = 0.25
"""One-sided p below which records were accepted in practice, against the previous record. Source: PR 1902."""


def latest_train_s(step_ms: float, limit_s: float = TRAIN_CAP_S) -> float:
    """Return the largest training clock, in seconds, that a limit checked between steps of `step_ms` allows."""
    return limit_s + TRAIN_OVERRUN_STEPS * step_ms / 1000
