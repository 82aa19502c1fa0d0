"""Writes a submission folder in the form of the challenge's records: README.md, submission.json, train_gpt.py, logs.

The folder appears atomically. submission.json has the keys of published ones; `metric` names the evaluation behind
`val_bpb`, which most published ones leave open.
"""

import ast
import datetime
import shutil
import statistics
import sys
import tempfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from results.analysis.statistics import nats_per_token
from results.schema import Row
from results.submission.gather import Submission
from results.submission.readme import blurb, joined, readme
from results.submission.rules import Rule, is_record
from trainer.errors import InputError
from trainer.records.files import write_bytes, write_json, write_text
from trainer.records.results import SCORES
from trainer.run.bundle import PACKAGE_DIR

AUTHOR_PLACEHOLDER, GITHUB_PLACEHOLDER = "YOUR NAME", "YOUR GITHUB ID"


def refuse_unless_new(out: Path) -> None:
    """Raise InputError if `out` is a file or not empty, to protect an edited README.md."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError("--out", "folder", str(out), "is not empty; give a new folder, or remove this one")


def write_folder(submission: Submission, rules: Sequence[Rule], out: Path, author: str, github: str) -> list[str]:
    """Write a new folder and return the names of its files.

    Raises:
        InputError: `out` exists and is not empty, or cannot be written.
    """
    refuse_unless_new(out)
    target = out.absolute()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as name:
            folder = Path(name) / target.name
            write_bytes(folder / "train_gpt.py", submission.code)
            write_json(folder / "submission.json", summary(submission, rules, author, github))
            write_text(folder / "requirements.txt", requirements(submission))
            for row in submission.rows:
                if submission.log(row).is_file():
                    shutil.copyfile(submission.log(row), folder / f"train_seed{row['seed']}.log")
            write_text(folder / "README.md", readme(submission, rules))
            names = sorted(path.name for path in folder.iterdir())
            folder.rename(target)
    except OSError as error:
        raise InputError("--out", "folder", str(out), f"cannot be written ({error.strerror or error})") from None
    return names


def summary(s: Submission, rules: Sequence[Rule], author: str, github: str) -> dict[str, Any]:
    """Return the content of submission.json: means over the seeds, and the bytes of the largest artifact."""
    results = {str(row["seed"]): _seed_result(s, row) for row in s.rows}
    largest = max(s.rows, key=s.artifact_bytes)
    status = {rule.name: rule.status == "PASS" for rule in rules}
    return {
        "author": author,
        "github_id": github,
        "name": f"{s.sweep}: {s.arm}",
        "blurb": blurb(s),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "track": "10min_16mb" if is_record(rules) else "non_record_16mb",
        "metric": s.metric,
        **_mean_and_std("val_loss", [result["val_loss"] for result in results.values()]),
        **_mean_and_std("val_bpb", [result["val_bpb"] for result in results.values()]),
        "seeds": [row["seed"] for row in s.rows],
        "seed_results": results,
        "bytes_total": s.artifact_bytes(largest),
        "bytes_model": largest["model_bytes"],
        "bytes_code": len(s.code),
        "hardware": joined(row["hardware"] for row in s.rows),
        "pytorch_version": joined(row["torch_version"] for row in s.rows),
        "compliance": {
            "artifact_under_16mb": status["artifact bytes"],
            "train_under_600s": status["training clock"],
            "eval_under_600s": status["evaluation time"],
        },
    }


def _seed_result(s: Submission, row: Row) -> dict[str, Any]:
    values = {
        "val_loss": nats_per_token(row[s.metric], row["scored_bytes"], row["scored_tokens"]),
        "val_bpb": row[s.metric],
        **{name: row[name] for name in ("float_bpb", *reversed(SCORES))},
        "artifact_bytes": s.artifact_bytes(row),
        "model_bytes": row["model_bytes"],
        "steps": row["steps"],
        "step_avg_ms": row["step_ms"],
        "train_time_s": row["train_s"],
        "eval_time_s": row["eval_s"],
    }
    return {key: value for key, value in values.items() if value is not None}


def requirements(s: Submission) -> str:
    """Return requirements.txt: the imports of train_gpt.py with the versions that the run recorded."""
    packages = metadata.packages_distributions()
    recorded = {name.lower(): version for name, version in s.provenance.get("versions", {}).items() if version}
    recorded["torch"] = str(s.rows[0]["torch_version"])
    lines = []
    for name in sorted({distribution for module in _imports() for distribution in packages.get(module, [module])}):
        version = recorded.get(name.lower(), "").partition("+")[0]  # +cu128 is not on the index
        lines.append(f"{name}=={version}" if version else name)
    return "\n".join(lines) + "\n"


def _imports() -> set[str]:
    """Return the top-level modules outside the standard library that the trainer imports."""
    names = set()
    for path in PACKAGE_DIR.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module.partition(".")[0])
    return names - sys.stdlib_module_names - {PACKAGE_DIR.name}


def _mean_and_std(key: str, values: Sequence[float]) -> dict[str, float]:
    spread = {f"{key}_std": statistics.stdev(values)} if len(values) > 1 else {}
    return {key: statistics.fmean(values)} | spread
