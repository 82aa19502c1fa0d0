"""The model check builds each distinct model once, in one subprocess, and an error names its arm."""

from pathlib import Path
from typing import Any

import pytest

from pgray.planning.model_check import ModelCheck, model_key
from pgray.spec.expand import Arm
from trainer.errors import InputError
from trainer.model.shapes import num_params
from trainer.presets.resolve import build_config


def arm(name: str, **model: Any) -> Arm:
    return Arm(name, {}, build_config({f"model.{key}": value for key, value in model.items()}, name))


def test_all_arms_share_one_process_and_cached_models_need_none(tmp_path: Path) -> None:
    arms = [arm("a", layers=2), arm("same", layers=2), arm("b", layers=3)]
    found = ModelCheck(arms, "sweep.yaml", tmp_path).wait()
    assert found["a"] == found["same"] != found["b"]
    assert found["b"].num_params == num_params(arms[2].config)
    assert sorted(path.stem for path in tmp_path.iterdir()) == sorted({model_key(a.config) for a in arms})
    again = ModelCheck(arms, "sweep.yaml", tmp_path)
    assert again._process is None
    assert again.wait() == found


def test_an_error_names_the_arm_whose_model_cannot_be_built(tmp_path: Path) -> None:
    good, bad = arm("good", layers=2), arm("bad", layers=3)
    broken = bad.config.model_copy(update={"model": bad.config.model.model_copy(update={"vocab_size": -1})})
    check = ModelCheck([good, Arm("bad", {}, broken)], "sweep.yaml", tmp_path)
    with pytest.raises(InputError, match=r"sweep.yaml: arm bad: model: cannot be built: .*vocab_size"):
        check.wait()
    assert len(list(tmp_path.iterdir())) == 1  # errors are not cached


def test_a_cancelled_check_leaves_no_process(tmp_path: Path) -> None:
    check = ModelCheck([arm("a", layers=2)], "sweep.yaml", tmp_path)
    process = check._process
    assert process is not None
    check.cancel()
    check.cancel()
    assert process.poll() is not None
