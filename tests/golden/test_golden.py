"""Golden files hold. A refactoring leaves them alone; a numeric change rewrites them with `make golden`, and says why."""

import importlib.util
import json
from pathlib import Path

import pytest

HERE = Path(__file__).parent
spec = importlib.util.spec_from_file_location("regenerate", HERE / "regenerate.py")
assert spec is not None
assert spec.loader is not None
regenerate = importlib.util.module_from_spec(spec)
spec.loader.exec_module(regenerate)


def test_training_losses() -> None:
    """QNA, then QAT at int4, then nothing else. Tolerance: CPUs differ in the order of their sums, which QAT's rounding
    amplifies; up to the switch at step 12 the losses are far closer."""
    expected = json.loads((HERE / "losses.json").read_text())
    found = regenerate.losses()
    assert found[:12] == pytest.approx(expected[:12], abs=2e-4)
    assert found == pytest.approx(expected, abs=2e-2)
    assert found[-1] < found[0] - 0.5


def test_quantizer_content() -> None:
    assert regenerate.quantizer_hashes() == json.loads((HERE / "quantizer.json").read_text())


def test_a_default_changes_only_with_the_fingerprint_version() -> None:
    """Values at their defaults are not in a fingerprint. A new key is fine; a changed default needs a new version."""
    expected, found = json.loads((HERE / "defaults.json").read_text()), regenerate.defaults()
    if found["fingerprint_version"] == expected["fingerprint_version"]:
        assert {key: found.get(key) for key in expected} == expected, "raise FINGERPRINT_VERSION, then `make golden`"


def test_help() -> None:
    assert regenerate.help_text() == (HERE / "help.txt").read_text()
