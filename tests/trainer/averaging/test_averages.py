"""Each average equals a slow float64 reference on the same made-up run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from trainer.averaging.base import Average, build_average
from trainer.averaging.config import ACTING_KEYS, AverageConfig, AverageKind
from trainer.config import Config
from trainer.optim.schedule import TrainProgress, train_progress
from trainer.quant.artifact import pack, unpack
from trainer.quant.export import store_weights
from trainer.techniques.config import QatConfig

STEPS = 40
AVERAGES = Path(__file__).parents[3] / "trainer/averaging"
Run = list[tuple[TrainProgress, dict[str, Tensor]]]


def made_up_run(config: Config) -> tuple[dict[str, Tensor], Run]:
    """Return initial weights, and (progress after the step, weights) of each step: a random walk."""
    generator = torch.Generator().manual_seed(0)
    w = {"mlp_up": torch.randn(2, 32, 16, generator=generator), "q_gain": torch.ones(3)}
    initial, run = {n: t.clone() for n, t in w.items()}, []
    for step in range(STEPS):
        w = {n: t + 0.1 * torch.randn(t.shape, generator=generator) for n, t in w.items()}
        run.append((train_progress(config, step + 1, 0.0), w))
    return initial, run


def feed(config: Config, qat_from: int = 10**9) -> tuple[dict[str, Tensor], Average, dict[str, Tensor], Run]:
    initial, run = made_up_run(config)
    average = build_average(config, initial)
    for now, w in run:
        average.update(w, now, now.step > qat_from)
    return average.weights(run[-1][1]), average, initial, run


def mean(snapshots: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {n: torch.stack([s[n].double() for s in snapshots]).mean(0).float() for n in snapshots[0]}


def assert_close(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    for name in b:
        torch.testing.assert_close(a[name], b[name], rtol=1e-5, atol=1e-5)


@pytest.fixture
def config(tiny: Callable[..., Config]) -> Callable[..., Config]:
    def build(**average: Any) -> Config:
        overrides = {(k if "." in k else f"average.{k}"): v for k, v in average.items()}
        return tiny(**{"train.iterations": STEPS, "optim.warmdown.value": 30, **overrides})

    return build


def slow_ema(start: dict[str, Tensor], later: list[dict[str, Tensor]], decay: float) -> dict[str, Tensor]:
    shadow = {n: w.double() for n, w in start.items()}
    for w in later:
        shadow = {n: decay * shadow[n] + (1 - decay) * w[n].double() for n in shadow}
    return {n: w.float() for n, w in shadow.items()}


def test_ema_from_the_start_and_its_share_of_initial_weights(config: Callable[..., Config]) -> None:
    found, average, initial, run = feed(config(kind="ema", decay=0.9))
    assert_close(found, slow_ema(initial, [w for _, w in run], 0.9))
    assert average.record().initial_share == pytest.approx(0.9**STEPS)


def test_ema_from_warmdown_and_from_qat_holds_no_initial_weights(config: Callable[..., Config]) -> None:
    found, average, _, run = feed(config(kind="ema", decay=0.9, start="warmdown"))
    inside = [w for now, w in run if now.lr_scale < 1]
    assert 0 < len(inside) < STEPS
    assert_close(found, slow_ema(inside[0], inside[1:], 0.9))
    assert average.record().initial_share == 0
    found, *_, run = feed(config(kind="ema", decay=0.9, start="qat"), qat_from=25)
    assert_close(found, slow_ema(run[25][1], [w for _, w in run[26:]], 0.9))


def test_ema_reset_at_qat_restarts_from_the_weights_of_that_step(config: Callable[..., Config]) -> None:
    on = {"qat.enabled": True}
    kept, *_, run = feed(config(kind="ema", decay=0.95, **on), qat_from=25)
    reset, average, *_ = feed(config(kind="ema", decay=0.95, **on, **{"qat.reset_ema": True}), qat_from=25)
    assert_close(reset, slow_ema(run[25][1], [w for _, w in run[26:]], 0.95))
    assert not torch.equal(kept["mlp_up"], reset["mlp_up"])
    assert average.record().initial_share == 0


def test_half_life_is_a_share_of_the_run(config: Callable[..., Config]) -> None:
    found, _, initial, run = feed(config(kind="ema", half_life_frac=0.1))
    assert_close(found, slow_ema(initial, [w for _, w in run], 0.5 ** (1 / (0.1 * STEPS))))


def test_swa_by_lr_multiplier_adds_the_last_weights_and_ignores_the_first_half(
    config: Callable[..., Config],
) -> None:
    found, average, _, run = feed(config(kind="swa", count=7))
    chosen, thresholds = [], [(7 - i) / 8 for i in range(7)]
    for now, w in run:
        if now.progress >= 0.5 and thresholds and now.lr_scale <= thresholds[0]:
            chosen.append(w)
            thresholds = [t for t in thresholds if t < now.lr_scale]
    assert 3 <= len(chosen) <= 7
    assert_close(found, mean([*chosen, run[-1][1]]))
    assert average.record().snapshots == len(chosen) + 1


def test_swa_every_n_steps_below_a_multiplier_and_stopped_by_qat(config: Callable[..., Config]) -> None:
    found, *_, run = feed(config(kind="swa", every=3, lr_below=0.5))
    chosen = [w for now, w in run if now.progress >= 0.5 and now.lr_scale < 0.5 and now.step % 3 == 0]
    assert_close(found, mean(chosen))
    stops = {"qat.enabled": True, "qat.stop_swa": True}
    found, *_, run = feed(config(kind="swa", every=3, lr_below=0.5, **stops), qat_from=33)
    assert_close(found, mean([w for now, w in run if now.lr_scale < 0.5 and now.step % 3 == 0 and now.step <= 33]))


def test_lawa_over_the_warmdown_and_of_the_latest(config: Callable[..., Config]) -> None:
    found, *_, run = feed(config(kind="lawa"))
    assert_close(found, mean([w for now, w in run if now.lr_scale < 1]))
    found, average, _, run = feed(config(kind="lawa", every=4, count=5))
    assert_close(found, mean([run[step - 1][1] for step in (24, 28, 32, 36, 40)]))
    assert average.record().snapshots == 5


def test_sqwa_is_the_mean_of_quantized_ema_snapshots(config: Callable[..., Config]) -> None:
    """Slow reference: the EMA after each chosen step goes through the real artifact, and the results are averaged."""
    c = config(kind="sqwa", decay=0.9, every=2, lr_below=0.3, **{"quant.bits.mlp": 4, "quant.clip": "search"})
    found, average, initial, run = feed(c)
    snapshots = []
    for i, (now, _) in enumerate(run):
        if now.lr_scale < 0.3 and now.step % 2 == 0 and now.progress >= 0.5:
            ema = slow_ema(initial, [w for _, w in run[: i + 1]], 0.9)
            snapshots.append(unpack(pack(store_weights(ema, c.quant), c)).weights)
    assert len(snapshots) >= 4
    assert average.record().snapshots == len(snapshots)
    expected = mean(snapshots)
    torch.testing.assert_close(found["q_gain"], expected["q_gain"])
    # float32 and float64 EMAs may fall on two sides of a rounding boundary: a few entries, each by one step
    off = (found["mlp_up"] - expected["mlp_up"]).abs() > 1e-5
    assert float(off.float().mean()) < 0.005


def test_an_average_that_never_began_is_the_last_weights(config: Callable[..., Config]) -> None:
    for average in ({"kind": "ema", "start": "qat"}, {"kind": "swa", "every": 100}, {"kind": "none"}):
        found, _, _, run = feed(config(**average))
        assert_close(found, run[-1][1])


@pytest.mark.parametrize(
    "average",
    [
        {"kind": "ema", "decay": 0.9},
        {"kind": "swa", "count": 4},
        {"kind": "swa", "every": 2},
        {"kind": "lawa"},
        {"kind": "lawa", "every": 3, "count": 4},
        {"kind": "sqwa", "decay": 0.9, "every": 2},
    ],
)
def test_a_checkpoint_in_the_middle_changes_nothing(config: Callable[..., Config], average: dict[str, Any]) -> None:
    c = config(**average)
    whole, *_ = feed(c)
    initial, run = made_up_run(c)
    first, second = build_average(c, initial), build_average(c, initial)
    for now, w in run[:28]:
        first.update(w, now, False)
    second.load_state(first.state())
    for now, w in run[28:]:
        second.update(w, now, False)
    found = second.weights(run[-1][1])
    assert all(torch.equal(found[n], whole[n]) for n in whole)


@pytest.mark.parametrize("kind", get_args(AverageKind))
def test_each_kind_has_a_module_and_its_acting_keys(config: Callable[..., Config], kind: AverageKind) -> None:
    average = build_average(config(kind=kind, count=2), made_up_run(config())[0])
    assert average.key.split("-")[0] == ("last" if kind == "none" else kind)
    assert set(ACTING_KEYS[kind].average) <= set(AverageConfig.model_fields)
    assert set(ACTING_KEYS[kind].qat) <= set(QatConfig.model_fields)
    modules = {path.stem for path in AVERAGES.glob("*.py")} - {"__init__", "base", "config"}
    assert modules == set(get_args(AverageKind)) == set(ACTING_KEYS)
