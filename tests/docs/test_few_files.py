"""Adding a toy of each kind takes as many files as the table in CONTRIBUTING.md says.

Each test copies the packages, adds or edits that many files, and uses the toy through the public interface in a process of
its own.
"""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TABLE = dict(re.findall(r"^\| ([a-z -]+) \| \d[^|]* \| (\d)\b[^|]*\|", (ROOT / "CONTRIBUTING.md").read_text(), re.M))


@dataclass(frozen=True)
class Toy:
    """`new`: file -> content. `edits`: file -> (text that stands there once, text to put before it)."""

    script: str
    new: dict[str, str] = field(default_factory=dict)
    edits: dict[str, list[tuple[str, str]]] = field(default_factory=dict)


PLAN = """
import contextlib, io, json
from pathlib import Path
from pgray.cli import main

def plan(text):
    Path("toy.yaml").write_text("name: toy\\npreset: cpu-smoke\\nseeds: [1]\\ncontrol: base\\n" + text)
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert main(["plan", "toy.yaml", "--without-data", "--json"]) == 0
    return json.loads(out.getvalue())
"""

TECHNIQUE = Toy(
    new={
        "trainer/techniques/toy.py": """
from trainer.techniques.base import Technique


class Toy(Technique):
    section = "toy"

    def gate(self, now, is_qat):
        return self.config.toy.shift

    def apply(self, w, plan, gate, generator):
        return w + gate
"""
    },
    edits={
        "trainer/techniques/config.py": [
            (
                "class WeightTechniques(Section):",
                'class ToyConfig(WeightTechnique):\n    """A toy."""\n\n    shift: float = 0.0  # added to each weight\n\n'
                "    @property\n    def is_on(self) -> bool:\n        return self.shift > 0\n\n\n",
            ),
            ("    qat: QatConfig = QatConfig()", "    toy: ToyConfig = ToyConfig()\n"),
        ]
    },
    script=PLAN
    + """
planned = plan("arms: {base: {}, toy: {toy.shift: 0.5}}")
assert planned["arms"][1]["config"]["toy"]["shift"] == 0.5
assert len(planned["jobs"]) == 2, "a technique changes the training run"

import torch
from trainer.model.model import build_model
from trainer.optim.weights import Weights
from trainer.presets.resolve import build_config, load_preset
from trainer.run.dist import DistContext
config = build_config({**load_preset("cpu-smoke").overrides, "toy.shift": 0.5}, "toy")
weights = Weights(build_model(config, torch.device("cpu")), config, DistContext(0, 1, torch.device("cpu")))
weights.write({"toy": 0.5})
name = "mlp_up"
assert torch.equal(weights.compute[name].data, weights.master[name] + 0.5)
""",
)

CODEC = Toy(
    new={
        "trainer/quant/codecs/toy.py": """
from trainer.quant.codecs._base import ByteCodec

CODEC = ByteCodec(squeeze=lambda raw: raw[::-1], expand=lambda blob: blob[::-1])
"""
    },
    script=PLAN
    + """
planned = plan("arms: {base: {}, toy: {export.codec: toy}}")
assert planned["arms"][1]["predicted_artifact_bytes"] > 0
assert len(planned["jobs"]) == 1, "a codec changes only the export"

import torch
from trainer.config import Config
from trainer.model.shapes import parameter_shapes
from trainer.presets.resolve import build_config, load_preset
from trainer.quant.artifact import equal_weights, pack, read_artifact
from trainer.quant.export import assemble, store_weights
config = build_config({**load_preset("cpu-smoke").overrides, "export.codec": "toy"}, "toy")
stored = store_weights({name: torch.randn(shape) for name, shape in parameter_shapes(config).items()}, config.quant)
Path("toy.pgz").write_bytes(pack(stored, config))
assert equal_weights(read_artifact(Path("toy.pgz")).weights, assemble(stored))
""",
)

AVERAGE = Toy(
    new={
        "trainer/averaging/toy.py": """
from trainer.averaging.base import Average, copy_tensors
from trainer.records.results import AverageRecord


class Toy(Average):
    def update(self, master, now, is_qat):
        pass

    def weights(self, master):
        return {name: 2 * w for name, w in copy_tensors(master).items()}

    def record(self):
        return AverageRecord(key=self.key, snapshots=2)


build = Toy
"""
    },
    edits={
        "trainer/averaging/config.py": [
            ('"none", "ema"', '"toy", '),
            ('    "none": ActingKeys(),', '    "toy": ActingKeys(("count",)),\n'),
        ]
    },
    script=PLAN
    + """
planned = plan("arms: {base: {}, toy: {average.kind: toy, average.count: 3}}")
assert planned["arms"][1]["config"]["average"]["kind"] == "toy"

import torch
from trainer.averaging.base import build_average
from trainer.config import Config
from trainer.presets.resolve import build_config
from trainer.records.fingerprint import average_key
configs = [build_config({"average.kind": "toy", "average.count": count}, "toy") for count in (3, 4)]
assert len({average_key(config) for config in configs}) == 2
average = build_average(configs[0], {"w": torch.ones(2)})
assert torch.equal(average.weights({"w": torch.ones(2)})["w"], 2 * torch.ones(2))
""",
)

METRIC = Toy(
    edits={
        "trainer/records/results.py": [
            (
                "    tensors: list[TensorBytes]",
                '    toy_bpb: Annotated[float | None, Metric(_BPB, "toy bpb", ".3f")] = None\n    """A toy."""\n',
            )
        ],
        "trainer/run/describe.py": [("        raw_bpb=evaluation.last.bpb,", "        toy_bpb=2 * post_quant.bpb,\n")],
    },
    script="""
import json, subprocess, sys
from pathlib import Path
from tests.pgray.conftest import VOCAB, write_data
from pgray.spec.search import Search
from results.schema import NAMES
from trainer.records.layout import RunLayout

data = write_data(Path("data"))
overrides = {"data.path": str(data.absolute()), "model.vocab_size": VOCAB, "train.iterations": 2, "eval.stride": 0}
Path("job.json").write_text(json.dumps({"preset": "cpu-smoke", "set": overrides}))
subprocess.run([sys.executable, "-m", "trainer", "--config", "job.json", "--out", "run"], check=True)
(path,) = Path("run/trials").glob("*/result.json")
result = json.loads(path.read_text())
assert result["toy_bpb"] == 2 * result["post_quant_bpb"]
assert "toy_bpb" in NAMES
Search(trials=3, objectives={"toy_bpb": "min"}, space={"qna.magnitude": {"uniform": [0, 1]}})
""",
)

LAUNCHER = Toy(
    new={
        "pgray/execution/launchers/toy.py": """
from pgray.execution.launchers.base import Launcher, trainer_command


class Toy(Launcher):
    name = "toy"

    def problem(self, machine):
        return "starts one process; use torchrun" if machine.world_size > 1 else None

    def command(self, settings, job, rendezvous, token):
        return ["nice", *trainer_command(settings, job)]
"""
    },
    script=PLAN
    + """
assert plan("launcher: toy\\narms: {base: {}}")["machine"]["launcher"] == "toy"
Path("toy.yaml").write_text(Path("toy.yaml").read_text() + "nproc: 2\\n")
assert main(["plan", "toy.yaml", "--without-data"]) == 2
""",
)

SAMPLER = Toy(
    new={
        "pgray/search/samplers/toy.py": """
from optuna.samplers import RandomSampler

from pgray.search.samplers import SearchSampler

SAMPLER = SearchSampler(lambda _, seed: RandomSampler(seed=seed + 1), choices=False)
"""
    },
    script=PLAN
    + """
from pgray.search.samplers import load_sampler
from pgray.spec.search import Search
search = "search: {trials: 3, sampler: toy, space: {quant.bits.mlp: {%s}}}"
assert plan(search % "int: [4, 8]")["trials_to_propose"] == 3
asked = Search(trials=3, sampler="toy", space={"qna.magnitude": {"uniform": [0, 1]}})
assert type(load_sampler(asked.sampler).build(asked, 1)).__name__ == "RandomSampler"
Path("toy.yaml").write_text(Path("toy.yaml").read_text().replace("int: [4, 8]", "choice: [4, 8]"))
assert main(["plan", "toy.yaml", "--without-data"]) == 2
""",
)

IMPORTER = Toy(
    new={
        "results/importers/toy.py": """
from results.importers.imported_run import RowBuilder


def read_runs(file, text):
    if not text.startswith("toy log"):
        return None
    row = RowBuilder(file)
    row.set("status", "finished", 1)
    row.set("seed", 7, 1)
    row.set("post_quant_bpb", float(text.split()[-1]), 2)
    return [row.finish(f"{file}:1-2", "toy")]
"""
    },
    script="""
from pathlib import Path
import results
from pgray.cli import main
Path("log.txt").write_text("toy log\\nbpb 1.25\\n")
assert main(["import", "log.txt", "--into", "run", "--arm", "theirs"]) == 0
rows = results.load("run")
assert rows["post_quant_bpb"].tolist() == [1.25] and rows["arm"].tolist() == ["theirs"]
""",
)

RULE = Toy(
    new={
        "pgray/stopping/toy.py": """
from pgray.spec.stopping import ToySection
from pgray.stopping.rule import StoppingRule


class Toy(StoppingRule):
    section_type = ToySection
    label = "toy"

    def judge_results(self, results, unfinished_seeds):
        return {arm: "a toy reason" for arm, seeds in results.items() if arm != self.control and len(seeds) >= 1}
"""
    },
    edits={
        "pgray/spec/stopping.py": [
            (
                "class StoppingSections(Section):",
                'class ToySection(StoppingSection):\n    """A toy."""\n\n'
                '    @property\n    def text(self) -> str:\n        return "a toy"\n\n\n',
            ),
            ("    race: Race | None = None", "    toy: ToySection | None = None\n"),
        ]
    },
    script="""
from pathlib import Path
from pgray.spec.sweep import Sweep
from pgray.stopping.backtest import backtest
from tests.results.synthetic import Run

text = "name: toy\\npreset: cpu-smoke\\nseeds: [1, 2]\\ncontrol: int8\\narms: {int8: {}, int6: {}}\\n"
sections = Sweep.from_text(text + "toy: {metric: post_quant_bpb}\\n").file.stopping
assert [section.metric for section in sections] == ["post_quant_bpb"]
run = Run(Path("run"))
for seed in (1, 2):
    for arm in ("int8", "int6"):
        run.finish(arm, seed)
found = backtest(Path("run"), sections)
print(found)
assert "a toy reason" in str(found)
""",
)

TOYS = {
    "stopping rule": RULE,
    "weight technique": TECHNIQUE,
    "importer": IMPORTER,
    "codec": CODEC,
    "average": AVERAGE,
    "metric column": METRIC,
    "launcher": LAUNCHER,
    "sampler": SAMPLER,
}


@pytest.mark.parametrize("kind", TOYS)
def test_a_toy_takes_as_many_files_as_the_table_says(kind: str, tmp_path: Path) -> None:
    toy = TOYS[kind]
    for package in ("pgray", "results", "trainer"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name, content in toy.new.items():
        assert not (tmp_path / name).exists()
        (tmp_path / name).write_text(content)
    for name, edits in toy.edits.items():
        text = (tmp_path / name).read_text()
        for anchor, added in edits:
            assert text.count(anchor) == 1, f"{name}: {anchor}"
            text = text.replace(anchor, added + anchor)
        (tmp_path / name).write_text(text)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (tmp_path, ROOT))), "OMP_NUM_THREADS": "1"}
    check = f"import trainer\nassert trainer.__file__.startswith({str(tmp_path)!r})\n"
    done = subprocess.run(
        [sys.executable, "-c", check + toy.script], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert len(toy.new) + len(toy.edits) == int(TABLE[kind])


def test_the_table_lists_every_kind() -> None:
    assert set(TABLE) == set(TOYS)
