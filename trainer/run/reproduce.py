"""Repeats the trial whose config a packed train_gpt.py carries, and prints its numbers.

    torchrun --standalone --nproc_per_node=N train_gpt.py [--data DIR] [--tokenizer FILE] [--seed N] [--out DIR]

The environment variables DATA_PATH, TOKENIZER_PATH and SEED, as in the challenge's scripts, have the same effect; an option
overrides them. Exit codes are those of `python -m trainer`.
"""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trainer.__main__ import run
from trainer.config import Config
from trainer.errors import InputError
from trainer.presets.resolve import build_config, flatten
from trainer.records.fingerprint import digest
from trainer.records.job import Job, TrialSpec
from trainer.records.layout import RunLayout
from trainer.records.results import LISTED, TrialResult

_FINAL = ("seed", "steps", "train_s", *LISTED, "val_loss_nats", "model_bytes", "code_bytes", "artifact_bytes")


def main(recorded: Mapping[str, Any], argv: Sequence[str] | None = None) -> int:
    """Run the command line. `recorded`: what the trial's config changes in the defaults. Return the exit code."""
    config = build_config(recorded, "train_gpt.py")
    parser = argparse.ArgumentParser(prog="train_gpt.py", description="Train, quantize, pack, unpack, evaluate, print.")
    parser.add_argument("--data", help=f"folder of shards; else DATA_PATH, else {config.data.path}")
    parser.add_argument("--tokenizer", help="SentencePiece model; else TOKENIZER_PATH, else as recorded")
    parser.add_argument("--seed", help=f"else SEED, else {config.seed}")
    parser.add_argument("--out", type=Path, default=Path("reproduced"), help="for weights, artifact and result.json")
    args = parser.parse_args(argv)
    try:
        config = build_config({**dict(flatten(recorded)), **_inputs(args)}, "train_gpt.py")
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return _repeat(config, args.out)


def _inputs(args: argparse.Namespace) -> dict[str, Any]:
    """Return the config keys that an option or the environment sets."""
    given = {
        "data.path": args.data or os.environ.get("DATA_PATH"),
        "data.tokenizer": args.tokenizer or os.environ.get("TOKENIZER_PATH"),
        "seed": args.seed or os.environ.get("SEED"),
    }
    return {key: int(text) if key == "seed" and text.isdecimal() else text for key, text in given.items() if text}


def _repeat(config: Config, out: Path) -> int:
    identity = f"seed{config.seed}-{digest(config.model_dump(mode='json'))}"
    path, is_main = RunLayout(out).trial(identity).result, os.environ.get("RANK", "0") == "0"
    if path.is_file():
        if is_main:
            print(f"error: {path}: already exists: remove its folder, or choose another --out", file=sys.stderr)
        return 2
    job = Job(job_id=identity, train_fingerprint=identity, trials=[TrialSpec(trial_id=identity, config=config)])
    code = run(job, out)
    if code == 0 and is_main:
        result = TrialResult.model_validate_json(path.read_bytes())
        values = {name: getattr(result, name) for name in _FINAL}
        print("final", *(f"{name}={value!r}" for name, value in values.items() if value is not None), flush=True)
        print(f"result {path}", flush=True)
    return code
