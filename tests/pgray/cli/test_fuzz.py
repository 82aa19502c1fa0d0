"""Fuzz sweep files: `pgray plan` prints a plan, or one line with exit code 2. It never prints a traceback.

The tests damage valid sweeps of every design, in their structure or as text. PGRAY_FUZZ_EXAMPLES sets the number of examples
of each kind; the default is a hundred in total.
"""

import contextlib
import io
import json
import math
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, Phase, event, given, note, settings
from hypothesis import strategies as st

import pgray.planning.model_check
from pgray.cli.entry import main
from trainer.presets.resolve import config_keys
from trainer.run.preflight import describe_or_error

NUM_EXAMPLES = int(os.environ.get("PGRAY_FUZZ_EXAMPLES", "50"))
fuzzed = settings(
    max_examples=NUM_EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # shrinking a sweep file takes minutes and helps little
)

HEAD = """
name: fuzz
question: Does it hold?
preset: cpu-smoke
set: {data.path: DATA, model.vocab_size: 320}
seeds: [1, 2]
resources: {gpus: 1, cpus: 1}
nproc: 1
budget: {gpu_hours: 3.0, usd: 10.0, usd_per_gpu_hour: 2.5}
failures: {retries: {infra: 2, oom: 1}, pause_after: 4, stall_s: 60.0}
"""
AT = "at: {cpu-smoke: {set: {quant.bits.embed: 7}}}\n"
ARMS = """
control: a
race: {metric: post_quant_bpb, first: 2, confidence: 0.9}
kill:
- {arm: b*, metric: train_loss_nats, worse_than_control_by: 0.5, at: step, after_frac: 0.1}
- {metric: quant_gap, worse_than_control_by: 0.1}
arms:
  a: {}
  b: {qat.enabled: true, quant: {bits: {mlp: 6, attn: 5}}}
  b2: {extends: b, average.kind: sqwa, optim.matrix_lr: 0.03}
at: {cpu-smoke: {set: {train.iterations: 20}, arms: {b: {qat.start: {kind: step, value: 3}}}}}
"""
DESIGNS = [
    ARMS,
    """
grid: {quant.bits.mlp: [4, 6], quant.clip: [absmax, sigma], quant.clip_sigma: [3.0, 4.0]}
when: {quant.clip_sigma: quant.clip == 'sigma'}
where: ['quant.bits.mlp > 4 or quant.clip == "absmax"']
""",
    """
one_factor: {qna.magnitude: [0.5, 1.0], export.codec: [zlib, brotli], average.kind: [none, ema]}
""",
    """
leave_one_out:
  full: {qna.magnitude: 1.0, qat.enabled: true}
  parts: {qna: {qna.magnitude: 0.0}, qat: {qat.enabled: false}}
""",
    """
search:
  trials: 3
  sampler: tpe
  objectives: {post_quant_bpb: min, artifact_bytes: min}
  constraints: {train_s: '<= 600'}
  space:
    quant.bits.mlp: {int: [3, 8]}
    optim.matrix_lr: {log_uniform: [0.001, 0.1]}
    quant.clip: {choice: [absmax, sigma]}
    quant.clip_sigma: {uniform: [2.5, 6.0]}
  when: {quant.clip_sigma: "quant.clip == 'sigma'"}
  parallel: 2
""",
]
BASES = [HEAD + AT * ("\nat:" not in design) + design for design in DESIGNS]

SECTIONS = [
    "name", "preset", "set", "seeds", "arms", "grid", "one_factor", "leave_one_out", "search", "full", "parts", "space",
    "control", "kill", "race", "budget", "failures", "retries", "at", "when", "where", "resources", "nproc", "extends",
    "trials", "sampler", "objectives", "constraints", "int", "choice", "uniform", "log_uniform", "script",
]  # fmt: skip
ODD_NAMES = [
    "a", "b", "a/b", "", " ", "\x00", "é", ".", "..", "a.b", "model..dim", "__class__", "*", "%s", "{}", "x" * 300,
    "../../etc/passwd",
]  # fmt: skip
NAMES = sorted({*config_keys(), *(key.split(".")[0] for key in config_keys()), *SECTIONS, *ODD_NAMES})
SCALARS = [
    None, True, False, 0, 1, -1, 2, 3, 5, 8, 16, 4096, 10**6, 10**12, 10**30, -(2**63), 0.0, -0.0, 0.5, 1.0, 1e-300, 1e300,
    math.inf, -math.inf, math.nan, "", " ", "a", "b", "ema", "sigma", "1", "1e-3", "null", "true", "inf", "cpu-smoke",
    "sp1024-11l", "<= 3", ">= x", "a == b", "quant.bits.mlp > 4", "quant.bits.mlp > 'x'", "(" * 100, "x" * 5000, "\n",
    "{0}", "%d", "💥", "int8\u0000", "\x1b[31m", "/dev/null", "..", "model.dim % 0", "model.dim ** 99 ** 99", "2026-01-01",
]  # fmt: skip
TOKENS = [
    "\t", " ", "  ", "\n", "\r\n", ":", ": ", "-", "- ", "[", "]", "{", "}", ",", "&a ", "*a", "!!python/object:os.system ",
    "!!binary ", "!!set ", "!!timestamp ", "<<: ", "? ", "|", ">", "#", "'", '"', "%YAML 1.1\n", "---\n", "...\n", "@", "`",
    "\x00", "\ufeff", "\u2028", "0x1f", "0o17", "1_000", "1:30", ".nan", ".inf", "~", "yes", "off", "=", "2026-01-01", "1e400",
    "9" * 400, "9" * 5000, "é", "💥",
]  # fmt: skip
values = st.one_of(
    st.sampled_from(SCALARS),
    st.lists(st.sampled_from(SCALARS), max_size=4),
    st.dictionaries(st.sampled_from(NAMES), st.sampled_from(SCALARS), max_size=3),
    st.dictionaries(st.sampled_from(NAMES), st.lists(st.sampled_from(SCALARS), max_size=3), max_size=2),
)
randoms = st.integers(0, 2**32).map(random.Random)
OPTIONS: list[list[str]] = [[], [], [], ["--seeds", "7"], ["--set", "quant.bits.mlp=5"], ["--without-data"]]
Location = tuple[Any, Any]  # a mapping or list, and one of its keys or indices


def locations(node: Any) -> Iterator[Location]:
    """Yield every location in a tree."""
    keys = list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ()
    for key in keys:
        yield node, key
        yield from locations(node[key])


def damage(tree: dict[str, Any], rng: random.Random, draw: Callable[[Any], Any]) -> str:
    """Change a sweep in one location. Returns a description of the change."""
    node, key = rng.choice(list(locations(tree)) or [(tree, "name")])
    how = rng.choice(["replace", "replace", "replace", "delete", "add", "rename", "double", "graft"])
    if how == "delete":
        node.pop(key, None) if isinstance(node, dict) else node.pop(key)
    elif how == "double" and isinstance(node, list):
        node.append(node[key])
    elif how == "add" and isinstance(node, dict):
        node[draw(st.sampled_from(NAMES))] = draw(values)
    elif how == "rename" and isinstance(node, dict):
        node[draw(st.sampled_from(NAMES))] = node.pop(key)
    elif how == "graft":
        other = yaml.safe_load(rng.choice(BASES))
        section = rng.choice(list(other))
        tree[section] = other[section]
    else:
        node[key] = draw(values)
    return f"{how} {key}"


def damage_text(text: str, rng: random.Random) -> str:
    """Change a text in one position."""
    at = rng.randrange(len(text) + 1)
    until = min(len(text), at + rng.choice([0, 0, 1, 3, 20, 200]))
    lines = text.splitlines(True)
    how = rng.choice(["put", "put", "put", "cut", "line", "shift"])
    if how == "put":
        return text[:at] + rng.choice([*TOKENS, *map(str, SCALARS)]) + text[until:]
    if how == "cut":
        return text[:at] + text[until:]
    number = rng.randrange(len(lines))
    lines.insert(number, rng.choice([" ", "\t", ""]) + lines[rng.randrange(len(lines))] if how == "line" else "  ")
    return "".join(lines)


class FinishedProcess:
    """Stands for the process of the model check; the same models are built in this process, which saves seconds."""

    returncode = 0

    def communicate(self, request: str) -> tuple[str, str]:
        asked = json.loads(request)
        return json.dumps({name: describe_or_error(sections) for name, sections in asked.items()}), ""


def no_json(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON")


@pytest.fixture
def plan(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str | bytes, list[str]], int]:
    """Plan a text, check the output and return the exit code."""
    monkeypatch.setattr(pgray.planning.model_check.ModelCheck, "_start", lambda _: FinishedProcess())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = tmp_path / "fuzz.yaml"

    def check(text: str | bytes, options: list[str]) -> int:
        content = text.encode(errors="surrogatepass") if isinstance(text, str) else text
        path.write_bytes(content.replace(b"DATA", str(data).encode()))
        output, errors = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
            code = main(["plan", str(path), "--runs", str(tmp_path / "runs"), "--json", *options])
        message = errors.getvalue()
        if code == 0:
            assert json.loads(output.getvalue())["counts"]["trials"] > 0
            assert message == ""
        else:
            assert code == 2
            assert message.startswith("error: ")
            assert message.endswith("\n")
            assert len(message.splitlines()) == 1, message
            error = json.loads(output.getvalue(), parse_constant=no_json)
            assert (error["exit_code"], f"error: {error['error']}\n") == (2, message)
        assert not (tmp_path / "runs").exists()
        return code

    return check


def test_the_sweeps_are_valid_before_damage(plan: Callable[[str | bytes, list[str]], int]) -> None:
    assert [plan(text, []) for text in BASES] == [0] * len(BASES)


@fuzzed
@given(st.data(), randoms, st.sampled_from(BASES), st.sampled_from([1, 1, 1, 1, 2, 3]))
def test_damaged_structure(
    plan: Callable[[str | bytes, list[str]], int], data: Any, rng: random.Random, base: str, count: int
) -> None:
    tree = yaml.safe_load(base)
    for _ in range(count):
        note(damage(tree, rng, data.draw))
    text = yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)
    note(text)
    event(f"exit code {plan(text, data.draw(st.sampled_from(OPTIONS)))}")


@fuzzed
@given(randoms, st.sampled_from(BASES), st.sampled_from([1, 1, 1, 2, 3]), st.booleans())
def test_damaged_text(
    plan: Callable[[str | bytes, list[str]], int], rng: random.Random, base: str, count: int, is_binary: bool
) -> None:
    for _ in range(count):
        base = damage_text(base, rng)
    text: str | bytes = base
    if is_binary and rng.random() < 0.1:
        cut = rng.randrange(len(base) + 1)
        text = base[:cut].encode() + rng.randbytes(rng.randrange(5)) + base[cut:].encode()
    note(repr(text))
    event(f"exit code {plan(text, [])}")
