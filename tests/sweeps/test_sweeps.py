"""Every sweep expands at full scale and at cpu-smoke, and agrees with its header and with sweeps/README.md."""

import re
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

from pgray.spec.expand import Expansion, expand, identical_arms
from pgray.spec.sweep import PresetOverrides, Sweep
from trainer.config import Config
from trainer.records.fingerprint import train_fingerprint, training_part, trial_id

SWEEPS = Path(__file__).parents[2] / "sweeps"
BOOK = (SWEEPS / "README.md").read_text(encoding="utf-8")
FILES = sorted(path.stem for path in SWEEPS.glob("*.yaml"))
QUESTIONS = [stem for stem in FILES if stem != "quickstart"]  # the quickstart has no full scale
SIZES = ("full", "cpu-smoke")

# Sweeps about the five pull requests -> (arms, training runs per seed after sharing, at both sizes). Later sweeps need no
# entry: `test_cost_matches_the_plan` checks the numbers in their headers.
EXPECTED = {
    "bit_widths": (17, 1),
    "codecs": (15, 1),
    "dead_qat": (5, 4),
    "ema_reset": (5, 1),
    "novel_techniques": (15, 11),
    "qat_timing": (7, 5),
    "qat_x_averaging": (7, 2),
    "qna_sqwa": (4, 2),
    "quant_noise": (4, 4),
    "recurrence": (10, 5),
    "warmdown_averaging": (12, 4),
}
_NO_OVERRIDES = PresetOverrides()
FIELDS = ("Question", "Source", "Published", "Confound", "Prediction", "Cost")
TRAIN_S, LEAST_EXPORT_S, EACH_EXPORT_S = 600, 600, 100  # of a job on 8xH100, as in sweeps/README.md


@cache
def _sweep(stem: str, size: str) -> Sweep:
    if size == "cpu-smoke":
        return Sweep.from_yaml(SWEEPS / f"{stem}.yaml", preset="cpu-smoke", seeds=[1])
    return Sweep.from_yaml(SWEEPS / f"{stem}.yaml")


@cache
def _expansion(stem: str, size: str) -> Expansion:
    return expand(_sweep(stem, size))


def _configs(stem: str, size: str) -> dict[str, Config]:
    return {arm.name: arm.config for arm in _expansion(stem, size).arms}


def _jobs(stem: str, size: str) -> Counter[str]:
    """Training run -> how many trials share it."""
    return Counter(train_fingerprint(t.config, "", "", 1, "") for t in _expansion(stem, size).trials)


def _num_proposed(stem: str, size: str) -> int:
    """Return how many trials a search adds, one job each; the searches here are over exports and add no training run."""
    sweep = _sweep(stem, size)
    return sweep.search.trials * len(sweep.seeds) if sweep.search else 0


def _header(stem: str) -> dict[str, str]:
    """Return field -> text of the comment at the top of the file; indented lines continue a field."""
    fields: dict[str, str] = {}
    last = ""
    for line in (SWEEPS / f"{stem}.yaml").read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        if match := re.match(r"# (\w+) +(.*)", line):
            last = match[1]
            fields[last] = match[2]
        else:
            fields[last] += " " + line.lstrip("# ")
    return fields


def _words(text: str) -> str:
    return " ".join(text.split())


def test_every_question_of_the_pull_requests_has_a_sweep() -> None:
    assert EXPECTED.keys() <= set(QUESTIONS)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("stem", FILES)
def test_it_expands_to_arms_that_all_differ(stem: str, size: str) -> None:
    expansion = _expansion(stem, size)
    assert expansion.control in {arm.name for arm in expansion.arms}
    assert not expansion.merged
    assert not expansion.dropped
    assert identical_arms(expansion.arms) == []
    acting = Counter(
        trial_id("", config, train_fingerprint(config, "", "", 1, "")) for config in _configs(stem, size).values()
    )
    assert max(acting.values()) == 1, "two arms differ only in keys that have no effect"


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("stem", EXPECTED)
def test_sharing(stem: str, size: str) -> None:
    arms, runs = EXPECTED[stem]
    seeds = len(_sweep(stem, size).seeds)
    assert len(_expansion(stem, size).arms) == arms
    assert len(_jobs(stem, size)) == runs * seeds


@pytest.mark.parametrize("stem", EXPECTED)
def test_full_scale_is_the_challenge(stem: str) -> None:
    sweep = _sweep(stem, "full")
    assert sweep.preset.name == "sp1024-11l"
    assert (sweep.machine.gpus, sweep.machine.nproc, sweep.machine.nodes) == (8, 8, 1)
    assert sweep.seeds == (42, 1337, 7)
    for config in _configs(stem, "full").values():
        assert config.train.wallclock_s == 600
        assert config.train.batch_tokens % (sweep.machine.world_size * config.train.seq_len) == 0


@pytest.mark.parametrize("stem", EXPECTED)
def test_cpu_smoke_asks_the_same_question(stem: str) -> None:
    """The same arms change the same keys, only values differ, and everything fits a run of 250 steps."""
    full, smoke = (_expansion(stem, size) for size in SIZES)
    assert [arm.name for arm in smoke.arms] == [arm.name for arm in full.arms]
    for big, small in zip(full.arms, smoke.arms, strict=True):
        assert big.changes.keys() == small.changes.keys(), big.name
        config = small.config
        assert config.train.iterations <= 250
        assert config.average.every * 5 <= config.train.iterations
        assert config.model.dim <= 144


@pytest.mark.parametrize("stem", EXPECTED)
def test_cpu_smoke_keeps_shares_of_the_run(stem: str) -> None:
    """EMA memory and warm-down are equal shares of 7,170 and of 250 steps in sweeps about them."""
    for name, small in _configs(stem, "cpu-smoke").items():
        big = _configs(stem, "full")[name]
        warmdowns = [config.optim.warmdown for config in (big, small)]
        assert warmdowns[0].kind == warmdowns[1].kind
        if warmdowns[0].kind == "iterations":
            assert warmdowns[1].value / 250 == pytest.approx(warmdowns[0].value / 7170, rel=0.05)
        if "average.decay" in _sweep(stem, "cpu-smoke").file.at.get("cpu-smoke", _NO_OVERRIDES).set:
            assert (1 - small.average.decay) * 250 == pytest.approx((1 - big.average.decay) * 7170, rel=0.1)


def test_the_grid_of_qat_and_averaging_is_complete() -> None:
    cells = {(c.qat.enabled, c.average.kind, c.qat.stop_swa) for c in _configs("qat_x_averaging", "full").values()}
    assert cells == {(qat, kind, False) for qat in (False, True) for kind in ("none", "ema", "swa")} | {
        (True, "swa", True)
    }


def test_loops_is_the_model_of_pr_51() -> None:
    config = _configs("recurrence", "full")["loops"]
    recurrence = config.recurrence
    assert (config.model.layers, config.model.dim, config.model.mlp_mult) == (3, 768, 2)
    assert (recurrence.kind, recurrence.loops, recurrence.lora_rank) == ("loops", 4, 4)


@pytest.mark.parametrize("size", SIZES)
def test_the_dead_arm_covers_only_what_is_stored_in_fp16(size: str) -> None:
    config = _configs("dead_qat", size)["fp16-only"]
    assert config.qat.enabled
    assert {getattr(config.quant.bits, name) for name in config.qat.scope} == {16}


@pytest.mark.parametrize("size", SIZES)
def test_arms_of_one_width_differ_only_in_their_codec(size: str) -> None:
    configs = _configs("codecs", size)
    assert len({repr(training_part(config)) for config in configs.values()}) == 1
    for name, config in configs.items():
        width, codec = name.split("-")
        assert config.export.codec == codec
        assert {config.quant.bits.mlp, config.quant.bits.attn} == {int(width.removeprefix("int"))}


@pytest.mark.parametrize("stem", QUESTIONS)
def test_header(stem: str) -> None:
    header = _header(stem)
    assert [field for field in FIELDS if not header.get(field)] == []
    assert _words(header["Question"]) == _words(_sweep(stem, "full").file.question)
    for number in re.findall(r"\d+", _sweep(stem, "full").file.source):
        assert number in header["Source"], f"PR {number} is in source: but not in the header"


@pytest.mark.parametrize("stem", QUESTIONS)
def test_cost_matches_the_plan(stem: str) -> None:
    jobs, proposed = _jobs(stem, "full"), _num_proposed(stem, "full")
    seconds = sum(TRAIN_S + max(LEAST_EXPORT_S, EACH_EXPORT_S * trials) for trials in jobs.values())
    hours = (seconds + proposed * LEAST_EXPORT_S) * _sweep(stem, "full").machine.gpus / 3600
    small, small_proposed = _jobs(stem, "cpu-smoke"), _num_proposed(stem, "cpu-smoke")
    num_jobs, num_small_jobs = len(jobs) + proposed, len(small) + small_proposed
    full_text = f"8xH100: {jobs.total() + proposed} trials in {num_jobs} jobs, {hours:.0f} GPU-hours."
    jobs_text = f"{num_small_jobs} job{'s' * (num_small_jobs > 1)}"
    small_text = f"cpu-smoke, 1 seed: {small.total() + small_proposed} trials in {jobs_text}, about "
    assert re.match(re.escape(f"{full_text} {small_text}") + r"\d+ minutes", _words(_header(stem)["Cost"]))
    assert f"{num_jobs} jobs, {hours:.0f} GPU-hours" in _section(stem)


@pytest.mark.parametrize("stem", QUESTIONS)
def test_readme_has_its_section(stem: str) -> None:
    section, sweep = _words(_section(stem)), _sweep(stem, "full")
    assert sweep.name == stem.replace("_", "-")
    assert f"[{stem}.yaml]({stem}.yaml)" in section
    assert _words(sweep.file.question) in section
    for mark in (f"<!-- table:{sweep.name} -->", f"<!-- /table:{sweep.name} -->", f"<!-- verdict:{sweep.name} -->"):
        assert section.count(mark) == 1, mark
    for number in re.findall(r"PRs? (\d+)", sweep.file.source):
        assert number in section


def _section(stem: str) -> str:
    """The part of sweeps/README.md under the heading with the sweep's name."""
    sections = re.split(r"^## ", BOOK, flags=re.MULTILINE)
    (found,) = (part for part in sections if part.startswith(stem.replace("_", "-") + "\n"))
    return found
