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
