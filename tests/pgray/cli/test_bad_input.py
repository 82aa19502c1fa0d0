"""Bad input: exit code 2, one line that names file, key, value and fix, nothing launched, no run folder.

The command line runs in this process. Nothing was launched if Ray was never started.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import pgray.execution.executor
from pgray.cli.entry import main

HEAD = "name: bad\npreset: cpu-smoke\nset: {data.path: DATA, model.vocab_size: 320}\nseeds: [1, 2]\n"
ARMS = "arms: {a: {}}\n"
LEFT_OUT = "leave_one_out: {full: {}, parts: {q: {qna.magnitude: 0.0}}}"

# (what is wrong, sweep file, what the message must contain)
ROWS: list[tuple[str, str, list[str]]] = [
    ("not YAML", "name: [", ["bad.yaml", "line 1", "not valid YAML"]),
    ("not a mapping", "- 1", ["bad.yaml: document: a list: a sweep is a mapping"]),
    ("empty", "", ["bad.yaml: document: empty: a sweep is a mapping"]),
    ("text", "hello", ["bad.yaml: document: text: a sweep is a mapping"]),
    ("a tab", "\tname: a", ["bad.yaml: line 1: a tab: not valid YAML; indent with spaces"]),
    ("no timestamp", HEAD + ARMS + "question: !!timestamp x", ["bad.yaml: document: ", "a value cannot be read"]),
    ("no boolean", HEAD + ARMS + "question: !!bool x", ["bad.yaml: document: ", "a value cannot be read"]),
    ("no number", HEAD + ARMS + "question: !!int ''", ["bad.yaml: document: ", "a value cannot be read"]),
    ("unknown key", HEAD + ARMS + "sedes: 3", ["bad.yaml: sedes: 3: unknown key; did you mean seeds?"]),
    ("a misspelt key that is required", HEAD.replace("seeds", "sedes") + ARMS,
     ["sedes: [1, 2]: unknown key; did you mean seeds?"]),
    ("a misspelt key in a section", HEAD + ARMS + "failures: {stall: 3}",
     ["failures.stall: 3: unknown key; did you mean stall_s?"]),
    ("a misspelt key in a list", HEAD + ARMS + "kill: [{metrik: val_bpb}]",
     ["kill.0.metrik: val_bpb: unknown key; did you mean metric?"]),
    ("a misspelt key in a search", HEAD + "search: {trials: 3, spcae: {}}",
     ["search.spcae: {}: unknown key; did you mean space?"]),
    ("a key unlike any", HEAD + ARMS + "zzz: 3", ["bad.yaml: zzz: 3: unknown key; use one of ", " name, question, "]),
    ("an empty key", HEAD + ARMS + "'': 3", ["bad.yaml: '': 3: unknown key; use one of "]),
    ("an empty key in a section", HEAD + ARMS + "failures: {'': {}}", ["failures.'': {}: unknown key; use one of "]),
    ("missing key", "preset: cpu-smoke\nseeds: [1]\n" + ARMS, ["bad.yaml: name: not given: add it"]),
    ("bad name", HEAD.replace("bad", "Bad Name", 1) + ARMS,
     ["bad.yaml: name: Bad Name: use lower-case letters, digits and hyphens only"]),
    ("unknown preset", HEAD.replace("cpu-smoke", "cpu-smok") + ARMS,
     ["preset: cpu-smok: unknown preset; did you mean cpu-smoke?"]),
    ("a preset unlike any", HEAD.replace("cpu-smoke", "huge") + ARMS,
     ["preset: huge: unknown preset; use one of cpu-smoke", "sp1024-9l"]),
    ("zero seeds", HEAD.replace("[1, 2]", "[]") + ARMS, ["seeds: []: give at least one seed"]),
    ("a seed twice", HEAD.replace("[1, 2]", "[1, 1]") + ARMS, ["seeds.1: 1: the same seed twice"]),
    ("a seed that is not a whole number", HEAD.replace("[1, 2]", "[1.5]") + ARMS, ["seeds.0: 1.5: must be a whole number"]),
    ("a negative seed", HEAD.replace("[1, 2]", "[-1]") + ARMS, ["seeds.0: -1: must be within 0"]),
    ("no design", HEAD, ["design: none: give exactly one of arms, grid"]),
    ("two designs", HEAD + ARMS + "grid: {qna.magnitude: [1.0]}", ["design: arms and grid: give exactly one"]),
    ("no arms", HEAD + "arms: {}", ["arms: {}: is empty"]),
    ("an arm twice", HEAD + "arms:\n  a: {}\n  a: {}\n", ["bad.yaml: line 7: a: duplicate key"]),
    ("a key twice", HEAD + "arms:\n  a: {model: {layers: 3}, model.layers: 3}\n", ["arm a: model.layers: 3: given twice"]),
    ("an arm with a slash", HEAD + "arms: {a/b: {}}", ["arms: 'a/b': an arm's name must have no slash"]),
    ("an arm with a control character", HEAD + 'arms: {"a\\nb": {}}', ["arms: 'a\\nb': ", "no control characters"]),
    ("an arm that YAML reads as a boolean", HEAD + "arms: {off: {}}", ["line 5: off: YAML 1.1 reads this word as false"]),
    ("unknown control", HEAD + ARMS + "control: b", ["control: b: is not an arm; use one of a"]),
    ("a misspelt control", HEAD + "arms: {int8: {}, int4: {}}\ncontrol: imt8",
     ["control: imt8: is not an arm; did you mean int8?"]),
    ("unknown parent", HEAD + "arms: {a: {extends: x}}", ["arms.a.extends: x: no such arm; use one of a"]),
    ("circular extends", HEAD + "arms: {a: {extends: b}, b: {extends: a}}", ["circular extends: a -> b -> a"]),
    ("unknown config key", HEAD + "arms: {a: {qat.enable: true}}", ["arm a: qat.enable: True: unknown key; did you mean qat"]),
    ("unknown key in set", HEAD.replace("set: {", "set: {model.layer: 3, ") + ARMS, ["set: model.layer: 3: unknown key"]),
    ("wrong type", HEAD + 'arms: {a: {model.layers: "4"}}',
     ["arm a: model.layers: '4': must be a whole number; write 4 without quotes"]),
    ("a whole number with a point", HEAD + "arms: {a: {model.layers: 1e3}}",
     ["arm a: model.layers: 1000.0: must be a whole number; write 1000"]),
    ("no value", HEAD + "arms: {a: {model.layers: }}", ["arm a: model.layers: null: must be a whole number"]),
    ("a section as a value", HEAD + "arms: {a: {quant.bits: 4}}",
     ["arm a: quant.bits: 4: a section, not a value; set its keys, such as quant.bits.mlp: 4; they are mlp, attn, "]),
    ("a key of another section", HEAD + "arms: {a: {quant.codec: zstd}}",
     ["quant.codec: zstd: unknown key; did you mean export.codec?"]),
    ("a key of a misspelt section", HEAD + "arms: {a: {quant.bitz: {mlp: 4}}}", ["unknown key; did you mean quant.bits.mlp?"]),
    ("a value as a section", HEAD + "arms: {a: {model.layers: {a: 1}}}",
     ["arm a: model.layers: {\"a\": 1}: must be a whole number"]),
    ("a wrong data path", HEAD + "arms: {a: {}, b: {data.path: /nowhere}}",
     ["arm b: data.path: /nowhere: no such data folder"]),
    ("a long value", HEAD + f"arms: {list(range(50))}", ["bad.yaml: arms: a list of 50: must be a mapping"]),
    ("unknown codec", HEAD + "arms: {a: {export.codec: rar}}", ["arm a: export.codec: rar: must be one of ans, brotli"]),
    ("heads do not divide dim", HEAD + "arms: {a: {model: {heads: 3, kv_heads: 3, dim: 64}}}", ["heads: 3: must divide"]),
    ("bits", HEAD + "arms: {a: {quant.bits.mlp: 9}}", ["arm a: quant.bits.mlp: 9: bits must be 2 to 8"]),
    ("a seed in an arm", HEAD + "arms: {a: {seed: 3}}", ["arm a: seed: 3: ", "use seeds: [...]"]),
    ("an empty axis", HEAD + "grid: {qna.magnitude: []}", ["grid.qna.magnitude: []: is empty"]),
    ("the same point twice", HEAD + "grid: {qna.magnitude: [1.0, 1.0]}", ["grid: qna.magnitude=1.0: the same arm twice"]),
    ("a date in an axis", HEAD + "grid: {qna.magnitude: [2026-01-01]}", ["line 5: 2026-01-01: YAML reads this as a date"]),
    ("a grid of billions", HEAD + f"grid: {{{', '.join(f'k{i}: {list(range(10))}' for i in range(9))}}}",
     ["grid: 1,000,000,000 arms: more than 10,000; give fewer values, or use search"]),
    ("thousands of arms", HEAD + f"arms: {{{', '.join(f'a{i}: ' for i in range(10_001))}}}", ["arms: 10,001 arms: more than"]),
    ("too many changes", HEAD + f"one_factor: {{qna.magnitude: {list(range(10_000))}}}", ["one_factor: 10,001 arms: more"]),
    ("too many trials", HEAD.replace("[1, 2]", str(list(range(300)))) + f"grid: {{qna.magnitude: {list(range(1000))}}}",
     ["grid: 300,000 trials (1,000 arms x 300 seeds): more than 20,000; give fewer arms or seeds"]),
    ("too many proposals", HEAD + "search: {trials: 90000, space: {optim.matrix_lr: {uniform: [0.1, 1]}}}",
     ["search: 180,002 trials (90,001 arms x 2 seeds): more than 20,000"]),
    ("a seed of 400 digits", HEAD.replace("[1, 2]", f"[{'9' * 400}]") + ARMS, ["line 4: 999", "a number of 400 digits"]),
    ("an axis that is no list", HEAD + "grid: {qna.magnitude: 1.0}", ["grid.qna.magnitude: 1.0: must be a list"]),
    ("a part that full does not have", HEAD + LEFT_OUT, ["leave_one_out.parts.q.qna.magnitude: 0.0: full does not set"]),
    ("a bad condition", HEAD + ARMS + 'where: ["layers < 4"]', ["where.0: layers < 4: layers is not a config key"]),
    ("all conditions fail", HEAD + ARMS + 'where: ["model.layers > 99"]', ["where: model.layers > 99: excludes the control a"]),
    ("at an unknown preset", HEAD + ARMS + "at: {laptop: {}}", ["at.laptop: laptop: unknown preset"]),
    ("at an unknown arm", HEAD + ARMS + "at: {cpu-smoke: {arms: {b: {}}}}", ["no such arm; use one of a"]),
    ("more ranks than GPUs", HEAD + ARMS + "resources: {gpus: 2}\nnproc: 4", ["nproc: 4: more ranks than the 2 GPUs"]),
    ("a batch that does not divide", HEAD + ARMS + "nproc: 3", ["arm a: train.batch_tokens: ", "must be a multiple of ranks"]),
    ("cuda without GPU", HEAD + "arms: {a: {train.device: cuda}}", ["arm a: train.device: cuda: a job holds no GPU"]),
    ("one process for two ranks", HEAD + ARMS + "nproc: 2\nlauncher: plain", ["launcher: plain: starts one process, not 2"]),
    ("an unknown launcher", HEAD + ARMS + "launcher: mpirun", ["launcher: mpirun: must be one of: plain, srun, torchrun"]),
    ("a kill rule without an arm", HEAD + ARMS + "kill: [{arm: b*, metric: float_bpb, worse_than_control_by: 1.0}]",
     ["kill.0.arm: b*: covers no arm"]),
    ("an unknown metric", HEAD + ARMS + "kill: [{metric: bpb, worse_than_control_by: 1.0}]", ["kill.0.metric: bpb: unknown"]),
    ("a misspelt metric", HEAD + ARMS + "kill: [{metric: slidin_bpb, worse_than_control_by: 1.0}]",
     ["kill.0.metric: slidin_bpb: unknown metric; did you mean sliding_bpb?"]),
    ("a misspelt kind of failure", HEAD + ARMS + "failures: {retries: {ooom: 1}}",
     ["failures.retries: ooom: did you mean oom?"]),
    ("a misspelt choice", HEAD + ARMS + "on_failed_seeds: ignor", ["on_failed_seeds: ignor: did you mean ignore?"]),
    ("a race on what is not measured", HEAD.replace("set: {", "set: {eval.stride: 0, ") + ARMS + "race: {metric: sliding_bpb}",
     ["race.metric: sliding_bpb: arm", "does not measure it; set eval.stride"]),
    ("a budget without GPUs", HEAD + ARMS + "budget: {gpu_hours: 3}",
     ["budget: gpu_hours: would limit nothing: it counts GPU-hours, and a job holds no GPU; remove it"]),
    ("a race on nothing", HEAD + ARMS + "race: {metric: speed}", ["race.metric: speed: unknown metric"]),
    ("retrying a bug", HEAD + ARMS + "failures: {retries: {user_error: 1}}", ["failures.retries.user_error: 1"]),
    ("a search without a space", HEAD + "search: {trials: 3}", ["search.space: "]),
    ("a range in the wrong order", HEAD + "search: {trials: 3, space: {optim.matrix_lr: {uniform: [1.0, 0.1]}}}",
     ["search.space.optim.matrix_lr.uniform: [1.0, 0.1]: the first number must be below the second"]),
    ("when beside a search",
     HEAD + "when: {qat.mode: qat.enabled}\nsearch: {trials: 3, space: {optim.matrix_lr: {uniform: [0.1, 1]}}}",
     ["when: given: a search has its own"]),
    ("a foreign script", HEAD + ARMS + "script: train_gpt.py", ["script: given: not supported yet"]),
    ("dollars without a price", HEAD + ARMS + "budget: {usd: 3.0}", ["budget.usd: 3.0", "add usd_per_gpu_hour"]),
    ("vocabulary", HEAD.replace("320", "1024") + ARMS, ["tokenizer has 320 pieces, model.vocab_size is 1024"]),
    ("no data", HEAD.replace("DATA", "/no/such/folder") + ARMS, ["/no/such/folder", "pgray data"]),
    ("validation too short", HEAD + "arms: {a: {eval.seq_len: 4096}}", ["val split has", "fewer than seq_len + 1 = 4097"]),
    ("training too short", HEAD + "arms: {a: {train.batch_tokens: 256000}}", ["fewer than one batch", "lower train.b"]),
]  # fmt: skip


@pytest.fixture
def no_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("Ray was started for a sweep that is wrong")

    monkeypatch.setattr(pgray.execution.executor.HostedRay, "connect", refuse)


def test_an_address_without_a_cluster(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if "ray" in sys.modules and sys.modules["ray"].is_initialized():
        pytest.skip("this process has a Ray, and another address would not be tried")
    path = tmp_path / "good.yaml"
    path.write_text(HEAD.replace("DATA", str(data)) + ARMS)
    assert main(["run", str(path), "--runs", str(tmp_path / "runs"), "--address", "127.0.0.1:1"]) == 2
    error = capsys.readouterr().err
    assert "error: --address: address: 127.0.0.1:1: no answer" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "runs" / "bad").exists()


@pytest.mark.usefixtures("no_launch")
@pytest.mark.parametrize(("text", "parts"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
@pytest.mark.parametrize("verb", ["run", "plan"])
def test_a_bad_sweep_file(
    verb: str, text: str, parts: list[str], data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text.replace("DATA", str(data)))
    start = time.monotonic()
    assert main([verb, str(path), "--runs", str(tmp_path / "runs")]) == 2
    assert time.monotonic() - start < 10  # under one second on a machine that does nothing else
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1, captured.err
    assert captured.err.startswith("error: ")
    assert captured.out == ""
    for part in parts:
        assert part in captured.err
    assert not (tmp_path / "runs").exists()


COMMANDS: list[tuple[list[str], list[str]]] = [
    (["run", "nothing.yaml"], ["nothing.yaml: file: missing: no such file"]),
    (["run", "SWEEP", "--preset", "huge"], ["--preset: preset: huge: unknown preset"]),
    (["run", "SWEEP", "--seeds", "1,x"], ["--seeds: seeds: 1,x: give whole numbers"]),
    (["run", "SWEEP", "--seeds", "9" * 5000], ["--seeds: seeds: 9999", "give whole numbers of at most 10 digits"]),
    (
        ["run", "SWEEP", "--set", f"train.iterations={'9' * 400}"],
        ["--set train.iterations: line 1: 9999", "of 400 digits"],
    ),
    (["run", "SWEEP", "--seeds", "2,2"], ["--seeds: seeds.1: 2: the same seed twice"]),
    (["run", "SWEEP", "--set", "model.layers"], ["--set: model.layers: no value: write key=value"]),
    (
        ["run", "SWEEP", "--set", "model.layer=3"],
        ["error: --set: model.layer: 3: unknown key; did you mean model.layers?"],
    ),
    (["run", "SWEEP", "--set", "seed=3"], ["--set: seed: 3: seeds are replicates"]),
    (["run", "SWEEP", "--set", "a=1", "--set", "a=2"], ["--set: a: 2: given twice"]),
    (["run"], ["Missing argument 'SWEEP'. See pgray run --help."]),
    (["confirm", "RUNS", "--top", "0"], ["'--top': must be greater than or equal to 1. See pgray confirm --help."]),
    (["data", "fetch"], ["See pgray data fetch --help."]),
    (["fly"], ["No such command 'fly'"]),
    (["plan", "SWEEP", "--wrong"], ["No such option: --wrong"]),
    (["plan", "SWEEP", "--runs", "SWEEP"], ["good.yaml/bad/ledger.jsonl: Not a directory"]),
    (["run", "SWEEP", "--runs", "SWEEP"], ["good.yaml/bad: folder: Not a directory: cannot be written"]),
    (["plan", "SWEEP", "--runs", "x" * 300], ["/bad/ledger.jsonl: File name too long"]),
    (["plan", "x" * 300], ["File name too long"]),
    (["plan", "SWEEP", "--preset", f"{'x' * 300}.yaml"], ["File name too long"]),
    (["plan", "SWEEP", "--preset", "x" * 300], ["unknown preset"]),
    (["plan", "a\0b.yaml"], ["embedded null byte"]),
    (["status", "RUNS"], ["not a run folder"]),
    (["table", "RUNS"], ["not a run folder"]),
    (["table", "RUNS", "--format", "xls"], ["'--format': 'xls' is not one of 'md'"]),
    (["plan", "RUNS"], ["file: a folder: give the path of a file"]),
    (["table", "nosuch"], ["error: RUN: folder: nosuch: no such run folder, and none of that name in runs/"]),
    (["logs", "RUNS", "x"], ["not a run folder"]),
    (["logs", "RUNS"], ["not a run folder"]),
    (["stop", "RUNS"], ["not a run folder"]),
    (["retry", "RUNS"], ["not a run folder"]),
]


@pytest.mark.usefixtures("no_launch")
@pytest.mark.parametrize(("arguments", "parts"), COMMANDS, ids=[" ".join(arguments) for arguments, _ in COMMANDS])
def test_a_bad_command(
    arguments: list[str], parts: list[str], data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = tmp_path / "good.yaml"
    sweep.write_text(HEAD.replace("DATA", str(data)) + ARMS)
    names = {"SWEEP": str(sweep), "RUNS": str(tmp_path)}
    assert main([names.get(argument, argument) for argument in arguments]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    for part in parts:
        assert part in error


@pytest.mark.usefixtures("no_launch")
def test_a_shard_that_is_cut_off(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], copy_data: Callable[[], Path]
) -> None:
    folder = copy_data()
    shard = folder / "fineweb_val_000000.bin"
    shard.write_bytes(shard.read_bytes()[:-10])
    path = tmp_path / "bad.yaml"
    path.write_text(HEAD.replace("DATA", str(folder)) + ARMS)
    assert main(["run", str(path), "--runs", str(tmp_path / "runs")]) == 2
    error = capsys.readouterr().err
    assert str(shard) in error
    assert error.count("\n") == 1
    assert not (tmp_path / "runs").exists()


@pytest.fixture
def copy_data(data: Path, tmp_path: Path) -> Callable[[], Path]:
    def copy() -> Path:
        folder = tmp_path / "data"
        folder.mkdir()
        for path in data.iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
        return folder

    return copy


def test_an_internal_error_is_not_reported_as_bad_input(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pgray.planning.planner

    def broken(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(pgray.planning.planner, "expand", broken)
    path = tmp_path / "good.yaml"
    path.write_text(HEAD.replace("DATA", str(data)) + ARMS)
    with pytest.raises(ZeroDivisionError):
        main(["plan", str(path)])
