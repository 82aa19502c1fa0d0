"""Identities of training runs and trials: hashes of the settings that can change their numbers.

A training run's identity covers all settings that change the trained weights; a trial's identity adds the rest. Averaging,
bit widths without QAT, codec and evaluation do not change the trained weights, so arms that differ only in these share one
training run.
"""

import hashlib
import json
from typing import Any

from trainer.averaging.config import ACTING_KEYS
from trainer.config import Config

FINGERPRINT_VERSION = 2
"""Raise it when the default of a config key changes or a fix changes what a config means: values at their defaults are not
in the hash, so old results would pass for the new behaviour. A golden file holds the defaults to notice such a change."""

LAST_WEIGHTS = "last"
"""Key of the weights of the last step, without averaging; every training run keeps them."""

_DOES_NOT_MOVE_WEIGHTS = ("average", "export", "eval", "data")
_EXPORT_ONLY_QUANT = {"prune_frac", "svd_rank"}
_DOES_NOT_MOVE_WEIGHTS_OF_QAT = {"mode", *(key for acting in ACTING_KEYS.values() for key in acting.qat)}


def training_part(config: Config) -> dict[str, Any]:
    """Return the settings that change the trained float weights, in JSON types.

    Values at their defaults and switched-off techniques are left out, so a new key changes no fingerprint of old runs.
    The quantization scheme counts only if a technique uses it in training (QAT, QNA).
    """
    leave_out: dict[str, Any] = dict.fromkeys(_DOES_NOT_MOVE_WEIGHTS, True)
    leave_out["train"] = {"checkpoint_every_s", "log_every"}
    leave_out["qat"] = _DOES_NOT_MOVE_WEIGHTS_OF_QAT
    techniques = config.weight_techniques
    leave_out |= {name: True for name, section in techniques.items() if not section.is_on}
    uses_quant = any(section.is_on for section in techniques.values())
    leave_out["quant"] = _EXPORT_ONLY_QUANT if uses_quant else True
    return config.model_dump(mode="json", exclude=leave_out, exclude_defaults=True)


def average_part(config: Config) -> dict[str, Any]:
    """Return the settings that change the exported average of the weights."""
    kind = config.average.kind
    acting = ACTING_KEYS[kind]
    part: dict[str, Any] = {"kind": kind, **{key: getattr(config.average, key) for key in acting.average}}
    if config.qat.enabled:
        part |= {key: getattr(config.qat, key) for key in acting.qat}
    if acting.uses_quant:
        part["quant"] = config.quant.model_dump(mode="json", exclude=_EXPORT_ONLY_QUANT, exclude_defaults=True)
    return part


def digest(value: object, length: int = 12) -> str:
    """Return the first `length` hex digits of the sha256 of `value` as canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def average_key(config: Config) -> str:
    """Return the name of the average that a config exports, e.g. `ema-1f0c22d94a6b`; `LAST_WEIGHTS` without averaging."""
    if config.average.kind == "none":
        return LAST_WEIGHTS
    return f"{config.average.kind}-{digest(average_part(config))}"


def train_fingerprint(config: Config, data_sha: str, tokenizer_sha: str, world_size: int, device: str) -> str:
    """Return the identity of a training run.

    Args:
        config: a trial's config; only its training part counts.
        data_sha, tokenizer_sha: hashes of the data's content, so that a moved folder changes nothing.
        world_size: number of ranks on all nodes; the order of floating-point sums depends on it.
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


def config_sha(config: Config, data_sha: str, tokenizer_sha: str, world_size: int, device: str) -> str:
    """Return the identity of an arm's configuration: what its trials have in common apart from the seed.

    Args: as for `train_fingerprint`. Two trials of one arm and seed have the same id exactly if they agree in this.
    """
    unseeded = config.model_copy(update={"seed": 0})
    training = train_fingerprint(unseeded, data_sha, tokenizer_sha, world_size, device)
    return digest([training, average_part(config), _export_part(config)], 10)


def slug(arm: str) -> str:
    """Return an arm's name in a form that fits into file names."""
    return "".join(c if c.isalnum() or c in "._+=-" else "_" for c in arm)[:60]


def trial_id(arm: str, config: Config, fingerprint: str) -> str:
    """Return `<arm>-s<seed>-<hash>`; the hash covers the arm, the training run and the settings of the export."""
    identity = [arm, fingerprint, average_part(config), _export_part(config)]
    return f"{slug(arm)}-s{config.seed}-{digest(identity, 10)}"


def _export_part(config: Config) -> dict[str, Any]:
    return config.model_dump(mode="json", include={"export", "eval", "quant"}, exclude_defaults=True)
