"""Fingerprints: which configs share a training run."""

from collections.abc import Callable
from typing import Any

import pytest

from trainer.config import Config
from trainer.presets.resolve import build_config, config_keys
from trainer.records.fingerprint import average_key, average_part, train_fingerprint, training_part, trial_id

SHARED: list[dict[str, Any]] = [
    {"average.kind": "ema"},
    {"export.codec": "ans"},
    {"eval.stride": 0},
    {"quant.bits.mlp": 4},
    {"quant.clip": "search"},
    {"quant.prune_frac": 0.1},
    {"qat.start": {"kind": "step", "value": 3}},  # QAT is off
    {"qat.reset_ema": True},
    {"train.checkpoint_every_s": 5},
    {"data.path": "elsewhere"},  # the content counts, not the path
]
OWN: list[dict[str, Any]] = [
    {"seed": 2},
    {"model.layers": 4},
    {"optim.matrix_lr": 0.03},
    {"qna.magnitude": 1.0},
    {"qat.enabled": True},
    {"recurrence": {"kind": "loops", "loops": 2}},
    {"train.iterations": 13},
]


def fingerprint(config: Config) -> str:
    return train_fingerprint(config, "data", "tokenizer", 1, "cpu")


@pytest.mark.parametrize("overrides", SHARED)
def test_settings_that_do_not_change_the_weights_share_the_training_run(
    tiny: Callable[..., Config], overrides: dict[str, Any]
) -> None:
    assert fingerprint(tiny(**overrides)) == fingerprint(tiny())


@pytest.mark.parametrize("overrides", OWN)
def test_settings_that_change_the_weights_do_not_share_it(
    tiny: Callable[..., Config], overrides: dict[str, Any]
) -> None:
    assert fingerprint(tiny(**overrides)) != fingerprint(tiny())


@pytest.mark.parametrize("technique", [{"qat.enabled": True}, {"qna.magnitude": 0.5}])
def test_the_quantization_scheme_counts_if_a_technique_uses_it(
    tiny: Callable[..., Config], technique: dict[str, Any]
) -> None:
    for change in ({"quant.bits.mlp": 4}, {"quant.group_rows": 8}, {"quant.keep_fp16": ["embed"]}):
        assert fingerprint(tiny(**technique, **change)) != fingerprint(tiny(**technique))
    for change in ({"quant.prune_frac": 0.1}, {"qat.reset_ema": True}, {"qat.mode": "swap"}):
        assert fingerprint(tiny(**technique, **change)) == fingerprint(tiny(**technique))


def test_defaults_are_not_in_the_fingerprint() -> None:
    """Otherwise a new key would change the fingerprint of every old run."""
    default = Config()
    assert set(training_part(default)) == set()
    assert "layers" not in training_part(default.model_copy(update={"seed": 3})).get("model", {})


def test_world_size_data_and_device_change_the_fingerprint(tiny: Callable[..., Config]) -> None:
    c = tiny()
    all_different = {
        train_fingerprint(c, "d", "t", 1, "cpu"),
        train_fingerprint(c, "e", "t", 1, "cpu"),
        train_fingerprint(c, "d", "u", 1, "cpu"),
        train_fingerprint(c, "d", "t", 8, "cpu"),
        train_fingerprint(c, "d", "t", 1, "cuda"),
    }
    assert len(all_different) == 5


def test_average_keys_depend_on_the_settings_that_act(tiny: Callable[..., Config]) -> None:
    ema = {"average.kind": "ema"}
    assert average_key(tiny()) == "last"
    assert average_key(tiny(**ema, **{"average.every": 7})) == average_key(tiny(**ema))
    assert average_key(tiny(**ema, **{"average.decay": 0.9})) != average_key(tiny(**ema))
    assert average_key(tiny(**ema, **{"qat.reset_ema": True})) == average_key(tiny(**ema))  # QAT is off
    on = {"qat.enabled": True}
    assert average_key(tiny(**ema, **on, **{"qat.reset_ema": True})) != average_key(tiny(**ema, **on))
    sqwa = {"average.kind": "sqwa"}
    assert average_key(tiny(**sqwa, **{"quant.bits.mlp": 4})) != average_key(tiny(**sqwa))


def test_trial_ids_differ_with_every_setting_and_are_readable(tiny: Callable[..., Config]) -> None:
    configs = [tiny(), *(tiny(**o) for o in SHARED[:6]), *(tiny(**o) for o in OWN)]
    names = {trial_id("qna+sqwa 1/2", c, fingerprint(c)) for c in configs}
    assert len(names) == len(configs)
    assert all(name.startswith("qna+sqwa_1_2-s") for name in names)


def test_every_config_key_has_a_default_and_a_dotted_name() -> None:
    keys = list(config_keys())
    assert len(keys) == len(set(keys)) > 80
    assert {"qat.start.kind", "quant.bits.mlp", "eval.ttt.chunk_tokens", "seed"} <= set(keys)


RECORDED = [
    ({}, "last", "last"),
    ({"kind": "ema"}, "ema-d69069122841", "ema-5ad7f90becfd"),
    ({"kind": "ema", "half_life_frac": 0.1, "start": "qat", "every": 7}, "ema-b59408f0b548", "ema-5e4df9fc2f14"),
    ({"kind": "swa", "count": 7}, "swa-2f8d4af4d225", "swa-d04bd86be163"),
    ({"kind": "swa", "every": 50, "lr_below": 0.2}, "swa-dbc2f3c9a064", "swa-ea48e0ea8936"),
    ({"kind": "lawa"}, "lawa-12f454e4c8df", "lawa-12f454e4c8df"),
    ({"kind": "lawa", "every": 100, "count": 5}, "lawa-06967fbf15c8", "lawa-06967fbf15c8"),
    ({"kind": "sqwa", "every": 10, "lr_below": 0.3}, "sqwa-374ed3febe88", "sqwa-24170bf1ab5e"),
]


@pytest.mark.parametrize(("average", "plain_key", "qat_key"), RECORDED)
def test_keys_of_finished_runs_stay_valid(average: dict[str, Any], plain_key: str, qat_key: str) -> None:
    """Run folders hold files under these names; a changed key would train a finished run again."""
    qat = {"qat.enabled": True, "qat.reset_ema": True, "qat.stop_swa": True, "qat.start": {"kind": "step", "value": 3}}
    overrides = {f"average.{key}": value for key, value in average.items()}
    plain, with_qat = build_config(overrides, "test"), build_config({**overrides, **qat}, "test")
    assert (average_key(plain), average_key(with_qat)) == (plain_key, qat_key)
    assert train_fingerprint(plain, "d", "t", 1, "cpu") == "009ed2cb6bc6"
    assert train_fingerprint(with_qat, "d", "t", 1, "cpu") == "07fce1218eed"


def test_identities_of_one_fixed_configuration() -> None:
    """Changed code must not change them: finished runs would train and export again. After a change on purpose, raise
    FINGERPRINT_VERSION and write the new values here."""
    overrides = {
        "model": {"layers": 3, "dim": 64}, "seed": 1337, "average.kind": "ema", "quant.bits.mlp": 4, "export.codec": "ans",
        "qat": {"enabled": True, "start": {"kind": "step", "value": 3}},
    }  # fmt: skip
    config = build_config(overrides, "test")
    own = train_fingerprint(config, "data", "tokenizer", 2, "cpu")
    assert (own, average_key(config)) == ("9747fe83e03f", "ema-02c27f44f6de")
    assert trial_id("qat+ema", config, own) == "qat+ema-s1337-2295663e6c"
    long_arm = "a long arm name " * 8
    assert trial_id(long_arm, config, own) == f"{'a_long_arm_name_' * 3}a_long_arm_n-s1337-0e26f80c6e"
    assert trial_id(f"{long_arm}!", config, own) != trial_id(long_arm, config, own)


def test_a_key_at_its_default_changes_no_identity(tiny: Callable[..., Config]) -> None:
    """A new config key would otherwise give every finished trial and every average a new name."""
    written = tiny(**{"eval.ttt.freeze_blocks": 2, "quant.prune_frac": 0.0, "export.codec": tiny().export.codec})
    assert trial_id("a", written, "f") == trial_id("a", tiny(), "f")
    sqwa = {"average.kind": "sqwa"}
    assert "clip_sigma" not in str(average_part(tiny(**sqwa)))
