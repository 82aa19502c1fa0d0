"""Nothing is lost: whatever is killed, and whenever, every trial finishes exactly once and no process is left.

The default is a few blows. `make chaos` deals more than a hundred (PGRAY_CHAOS_KILLS) and says how it went; the seed of
its random numbers is PGRAY_CHAOS_SEED.
"""

import os
import random
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.pgray.chaos import ChaosRun, Tally, results_of

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(3600), pytest.mark.usefixtures("ray")]
KILLS = int(os.environ.get("PGRAY_CHAOS_KILLS", "8"))
SEED = int(os.environ.get("PGRAY_CHAOS_SEED", "1"))
HITS_PER_SWEEP = 12

# Ten trials per seed out of five training runs.
ARMS = "".join(
    f"  {name}8: {{optim.matrix_lr: {lr}}}\n  {name}6: {{optim.matrix_lr: {lr}, quant.bits.mlp: 6}}\n"
    for name, lr in zip("abcde", (0.04, 0.041, 0.042, 0.043, 0.044), strict=True)
)
PATIENT = "failures: {retries: {infra: 1000, lost: 1000, preempted: 1000}, pause_after: 1000}\n"


@pytest.fixture
def storm(write_sweep: Callable[..., Path], tmp_path: Path, request: pytest.FixtureRequest) -> Callable[..., Tally]:
    """Storms of one kind until so many blows are dealt; all sweeps have the same results."""
    import ray

    rng = random.Random(f"{SEED} {request.node.name}")
    runs = tmp_path / "runs"
    runs.mkdir()

    def blow(hits: int, start: str = "plain", has_own_ray: bool = False, **options: object) -> Tally:
        address = None if has_own_ray else str(ray.get_runtime_context().gcs_address)
        total, number, undisturbed = Tally(), 0, None
        while undisturbed is None or total.kills.total() < hits:
            left = min(hits - total.kills.total(), HITS_PER_SWEEP) if undisturbed is not None else 0
            path = write_sweep(
                arms=ARMS, set="optim.ns_steps: 3", iterations=20, name=f"{start}-{number}", launcher=start
            )
            path.write_text(path.read_text().replace("control: int8", "control: a8") + PATIENT)
            if start == "torchrun":
                path.write_text(f"{path.read_text()}nproc: 2\n")
            ray_owner = None if has_own_ray else os.getpid()
            tally = ChaosRun(path, runs, start, rng, left, address, ray_owner, **options).run()
            found = results_of(runs / path.stem)
            undisturbed = undisturbed or found
            if found != undisturbed or len(found) != 20:
                tally.violations.append(f"{path.stem}: {len(found)} results, not those of an undisturbed run")
            total, number = total + tally, number + 1
        print("\n".join([f"\n{request.node.name}: {total}", *total.violations]))
        assert not total.violations, "\n".join([f"seed {SEED}", *total.violations])
        return total

    return blow


def test_sigkill_to_anyone(storm: Callable[..., Tally]) -> None:
    tally = storm(max(4, KILLS * 6 // 10))
    assert tally.kills.total() >= 4


@pytest.mark.skipif(KILLS < 100, reason="make chaos")
def test_sigkill_to_anyone_under_torchrun(storm: Callable[..., Tally]) -> None:
    storm(KILLS * 3 // 10, start="torchrun", mean_s=2.0)


@pytest.mark.skipif(KILLS < 100, reason="make chaos")
def test_sigkill_to_anyone_where_each_driver_has_a_ray_of_its_own(storm: Callable[..., Tally]) -> None:
    storm(KILLS // 10, has_own_ray=True, mean_s=4.0)


@pytest.mark.skipif(KILLS < 100, reason="make chaos")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=lambda number: number.name)
def test_asked_to_stop(storm: Callable[..., Tally], number: signal.Signals) -> None:
    storm(10, stop=number, mean_s=6.0)
