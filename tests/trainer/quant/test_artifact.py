"""The artifact unpacks to what was packed, or to an error that names the damage; the byte ledger and the packed code."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.trainer.conftest import job_of, write_job
from trainer.config import Config
from trainer.errors import DataError
from trainer.model.model import build_model
from trainer.pipeline import quantize_and_pack
from trainer.quant.artifact import byte_ledger, equal_weights, pack, unpack
from trainer.quant.codecs import codec_names
from trainer.quant.export import StoredTensor, assemble, store_weights
from trainer.run.bundle import bundle_code, code_bytes, strip_source


def _weights(config: Config) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in build_model(config, "cpu").named_parameters()}


@pytest.mark.parametrize("codec", codec_names())
@pytest.mark.parametrize("svd_rank", [0, 4])
def test_round_trip_is_bit_exact(tiny: Callable[..., Config], codec: str, svd_rank: int) -> None:
    config = tiny(**{"export.codec": codec, "quant.svd_rank": svd_rank, "quant.bits.mlp": 4, "quant.group_rows": 5})
    stored = store_weights(_weights(config), config.quant)
    blob = pack(stored, config)
    artifact = unpack(blob)
    assert {name: bits_of(w) for name, w in artifact.weights.items()} == {
        name: bits_of(w) for name, w in assemble(stored).items()
    }
    assert artifact.config.model == config.model
    assert pack(stored, config) == blob


def bits_of(w: torch.Tensor) -> tuple[tuple[int, ...], str, bytes]:
    """Return shape, dtype and bytes: compared without `equal_weights`, which the pipeline's own check uses."""
    return tuple(w.shape), str(w.dtype), w.contiguous().numpy().tobytes()


def test_equal_weights_notices_every_single_difference() -> None:
    weights = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.zeros(3), "c": torch.ones(1)}
    assert equal_weights(weights, {name: w.clone() for name, w in weights.items()})
    for name, w in weights.items():
        for position in range(w.numel()):
            changed = w.clone()
            changed.view(-1)[position] += 1e-6
            assert not equal_weights(weights, {**weights, name: changed}), f"{name}[{position}]"
        assert not equal_weights(weights, {**weights, name: w[None]}), f"{name} with another shape"
        assert not equal_weights(weights, {other: weights[other] for other in weights if other != name})
    assert not equal_weights(weights, {**weights, "d": torch.zeros(1)})


@pytest.mark.parametrize("changed_tensor", ["first", "last"])
def test_an_artifact_that_unpacks_to_other_weights_is_refused(
    changed_tensor: str, tmp_path: Path, tiny: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One element of one tensor differs after packing; all other tensors are equal."""
    config = tiny()
    weights, path, cpu = _weights(config), tmp_path / "artifact.pgz", torch.device("cpu")
    assert quantize_and_pack(weights, config, path, cpu) is None

    def packed_with_one_change(stored: list[StoredTensor], config: Config) -> bytes:
        at = 0 if changed_tensor == "first" else -1
        tensors = list(stored)
        if tensors[at].data is not None:
            data = tensors[at].data.clone()
            data.view(-1)[0] += 1
            tensors[at] = replace(tensors[at], data=data)
        else:
            q, scale = tensors[at].parts[0]
            tensors[at] = replace(tensors[at], parts=((q, scale * 2), *tensors[at].parts[1:]))
        return pack(tensors, config)

    monkeypatch.setattr("trainer.pipeline.pack", packed_with_one_change)
    failure = quantize_and_pack(weights, config, path, cpu)
    assert failure is not None
    assert "unpacks to other weights" in failure.reason


def test_damage_gives_an_error_that_names_it(tiny: Callable[..., Config]) -> None:
    config = tiny(**{"export.codec": "ans"})
    blob = pack(store_weights(_weights(config), config.quant), config)
    with pytest.raises(DataError, match="not a pgray artifact"):
        unpack(b"garbage" + blob)
    with pytest.raises(DataError, match="truncated"):
        unpack(blob[:-10])
    for position in range(40, len(blob), len(blob) // 23):
        damaged = bytearray(blob)
        damaged[position] ^= 0x55
        with pytest.raises(DataError, match=r"corrupt|truncated"):
            unpack(bytes(damaged))


def test_byte_ledger_counts_every_element_once(tiny: Callable[..., Config]) -> None:
    config = tiny()
    weights = _weights(config)
    ledger = byte_ledger(store_weights(weights, config.quant))
    assert sum(entry.num_elements for entry in ledger) == sum(w.numel() for w in weights.values())
    assert len({entry.name for entry in ledger}) == len(ledger)


def test_the_packed_code_runs_by_itself(tmp_path: Path, tiny: Callable[..., Config]) -> None:
    """In an empty folder, isolated from this checkout: --help works, and a job gives a result with the same code size."""
    packed = tmp_path / "train_gpt.py"
    packed.write_bytes(bundle_code())
    assert packed.stat().st_size == code_bytes()
    command = [sys.executable, "-I", str(packed)]
    help_run = subprocess.run([*command, "--help"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "--config" in help_run.stdout
    config = tiny(**{"train.iterations": 2, "eval.stride": 0})
    job_path = write_job(tmp_path / "job.json", job_of(config))
    run = [*command, "--config", str(job_path), "--out", str(tmp_path / "out")]
    subprocess.run(run, cwd=tmp_path, check=True, capture_output=True, timeout=120)
    result = json.loads((tmp_path / "out/trials/trial0/result.json").read_text())
    assert result["code_bytes"] == code_bytes(config)
    assert result["artifact_bytes"] == result["model_bytes"] + result["code_bytes"]


def test_stripping_keeps_the_program() -> None:
    function = 'def f(x):\n    """doc"""\n    return "kept # text"\n'
    source = f'"""doc"""\n# comment\n{function}class A:\n    """docstring"""\n    x = 1\n    """doc"""\n'
    stripped = strip_source(source)
    namespace: dict[str, object] = {}
    exec(stripped, namespace)
    assert "doc" not in stripped
    assert "comment" not in stripped
    assert namespace["f"](1) == "kept # text"  # type: ignore[operator]
    assert strip_source(stripped) == stripped


def test_indentation_by_one_space_leaves_texts_alone() -> None:
    source = 'def f(x):\n    if x:\n        return f"""a{x}\n    b""" + "c\\n    d"\n'
    namespace: dict[str, object] = {}
    stripped = strip_source(source)
    exec(stripped, namespace)
    assert stripped.splitlines()[1].startswith(" if x")
    assert namespace["f"](1) == "a1\n    bc\n    d"  # type: ignore[operator]
