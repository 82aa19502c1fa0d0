"""The speed probe has no side effects, and a job planned for other code is refused."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.trainer.conftest import job_of
from trainer.config import Config
from trainer.errors import InputError
from trainer.pipeline import run_job
from trainer.run import bundle
from trainer.run.dist import DistContext
from trainer.run.hardware import probe_tflops


def test_the_probe_gives_a_speed_and_draws_no_random_numbers() -> None:
    before = torch.get_rng_state()
    assert 1e-4 < probe_tflops(torch.device("cpu")) < 1e3
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_probe_on_a_gpu_frees_its_memory() -> None:
    device = torch.device("cuda")
    before = torch.cuda.memory_allocated(device)
    assert 1 < probe_tflops(device) < 1e4
    assert torch.cuda.memory_allocated(device) == before
    assert torch.cuda.max_memory_allocated(device) == before


def test_comments_and_docstrings_are_not_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def sha_of(source: str) -> str:
        package = tmp_path / "trainer"
        package.mkdir(exist_ok=True)
        (package / "a.py").write_text(source)
        monkeypatch.setattr(bundle, "PACKAGE_DIR", package)
        bundle._sources.cache_clear()
        return bundle.code_sha()

    plain = sha_of("x = 1\n")
    assert sha_of('"""What."""\n\nx = 1  # why\n') == plain
    assert sha_of("x = 2\n") != plain
    bundle._sources.cache_clear()


def test_a_job_planned_for_other_code_is_refused(
    tiny: Callable[..., Config], tmp_path: Path, alone: DistContext
) -> None:
    job = job_of(tiny()).model_copy(update={"code_sha": "0123456789ab"})
    with pytest.raises(InputError, match="code_sha: 0123456789ab: this trainer is "):
        run_job(job, tmp_path, alone)
    results = run_job(job.model_copy(update={"code_sha": bundle.code_sha()}), tmp_path, alone)
    assert results[0].code_sha == bundle.code_sha()
    assert results[0].node_tflops is not None
    assert results[0].node_tflops > 0
