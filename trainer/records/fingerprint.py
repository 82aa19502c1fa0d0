"""What identifies a training run and a trial: hashes of the parts of a config that can change their numbers.

A training run is identified by everything that moves the weights; an export adds the rest. Averaging, bit widths
without QAT, codec and evaluation do not move the weights, so arms that differ only there share one training run.
"""

import hashlib
import json
from typing import Any

from trainer.config import Config

FINGERPRINT_VERSION = 1
"""Raise it when a default in `config.py` changes its value, or a fix changes what a config means: values at their defaults
are not in the hash, so old results would stand for the new behaviour. A golden file of the defaults reminds us."""

LAST_WEIGHTS = "last"
"""Key of the weights after the last step, not averaged; every training run keeps them."""

_DOES_NOT_MOVE_WEIGHTS = ("average", "export", "eval", "data")
_EXPORT_ONLY_QUANT = ("prune_frac", "svd_rank")


def training_part(config: Config) -> dict[str, Any]:
    """The knobs that change the trained float weights, in JSON types.

    Values at their defaults and switched-off techniques leave no trace, so a new knob changes no fingerprint of old runs.
    The quantization scheme counts as soon as a technique on the weights uses it (QAT, QNA), and not before.
    """
    leave_out: dict[str, Any] = dict.fromkeys(_DOES_NOT_MOVE_WEIGHTS, True)
    leave_out["train"] = {"checkpoint_every_s", "log_every"}
    leave_out["qat"] = {"mode", "reset_ema", "stop_swa"}
    techniques = config.weight_techniques
    leave_out |= {name: True for name, section in techniques.items() if not section.is_on}
    uses_quant = any(section.is_on for section in techniques.values())
    leave_out["quant"] = set(_EXPORT_ONLY_QUANT) if uses_quant else True
    return config.model_dump(mode="json", exclude=leave_out, exclude_defaults=True)


def average_part(config: Config) -> dict[str, Any]:
    """The knobs that say which average of the weights is exported; only those that act."""
    average = config.average
    used = {
        "none": (),
        "ema": ("decay", "half_life_frac", "start"),
        "swa": ("every", "count", "lr_below"),
        "lawa": ("every", "count"),
        "sqwa": ("decay", "half_life_frac", "start", "every", "lr_below"),
    }[average.kind]
    part: dict[str, Any] = {"kind": average.kind, **{key: getattr(average, key) for key in used}}
    if config.qat.enabled and average.kind in ("ema", "sqwa"):
        part["reset_ema"] = config.qat.reset_ema
    if config.qat.enabled and average.kind == "swa":
        part["stop_swa"] = config.qat.stop_swa
    if average.kind == "sqwa":
        part["quant"] = config.quant.model_dump(mode="json", exclude=set(_EXPORT_ONLY_QUANT))
    return part


def digest(value: object, length: int = 12) -> str:
    """The first `length` hex digits of the sha256 of `value` as canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def average_key(config: Config) -> str:
    """Name of the average a config exports, e.g. `ema-1f0c22d94a6b`; `LAST_WEIGHTS` without averaging."""
    if config.average.kind == "none":
        return LAST_WEIGHTS
    return f"{config.average.kind}-{digest(average_part(config))}"


def train_fingerprint(config: Config, data_sha: str, tokenizer_sha: str, world_size: int, device: str) -> str:
    """Identity of a training run.

    Args:
        config: a trial's config; only its training part counts.
        data_sha, tokenizer_sha: content of the data, so that moving a folder changes nothing and new data does.
        world_size: ranks over all nodes; it sets the order of floating-point sums.
        device: "cpu" or "cuda".
    """
    return digest(
        {
            "version": FINGERPRINT_VERSION,
            "training": training_part(config),
            "data": data_sha,
            "tokenizer": tokenizer_sha,
            "world": world_size,
            "device": device,
        }
    )


def slug(arm: str) -> str:
    """An arm's name as a part of file names."""
    return "".join(c if c.isalnum() or c in "._+=-" else "_" for c in arm)[:60]


def trial_id(arm: str, config: Config, fingerprint: str) -> str:
    """Readable and unique: `<arm>-s<seed>-<hash>`; the hash covers the training run and the export's knobs."""
    export = config.model_dump(mode="json", include={"export", "eval", "quant"})
    return f"{slug(arm)}-s{config.seed}-{digest([arm, fingerprint, average_part(config), export], 10)}"
