"""Outputs equal the golden files. A numeric change rewrites them with `make golden` and says why in its commit."""

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
    """Losses of a run with QNA, and QAT at int4 from step 12 on.

    CPUs differ in the order of sums, and the rounding of QAT amplifies this: hence the wider tolerance after step 12."""
    expected = json.loads((HERE / "losses.json").read_text())
    found = regenerate.losses()
    assert found[:12] == pytest.approx(expected[:12], abs=2e-4)
    assert found == pytest.approx(expected, abs=2e-2)
    assert found[-1] < found[0] - 0.5


def test_quantizer_content() -> None:
    assert regenerate.quantizer_hashes() == json.loads((HERE / "quantizer.json").read_text())


def test_a_default_changes_only_with_the_fingerprint_version() -> None:
    """A fingerprint omits values at their defaults, so a changed default needs a new version. A new key does not."""
    expected, found = json.loads((HERE / "defaults.json").read_text()), regenerate.defaults()
    if found["fingerprint_version"] == expected["fingerprint_version"]:
        assert {key: found.get(key) for key in expected} == expected, "raise FINGERPRINT_VERSION, then `make golden`"


def test_help() -> None:
    assert regenerate.help_text() == (HERE / "help.txt").read_text()
