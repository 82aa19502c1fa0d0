"""Copies what docs/tutorial.md and docs/analysis.ipynb need of a finished run: `python docs/record_example.py RUN`.

Records and training logs, without weights, artifacts and code. The path of the working folder becomes `/work`.
"""

import shutil
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parent / "example"
_KEPT = (
    "sweep.yaml", "ledger.jsonl", "provenance.json", "trials/*/config.json", "trials/*/result.json",
    "trained/*/events.jsonl", "trained/*/training.json",
)  # fmt: skip


def record(run: Path) -> None:
    shutil.rmtree(EXAMPLE / run.name, ignore_errors=True)
    for source in sorted(path for pattern in _KEPT for path in run.glob(pattern)):
        target = EXAMPLE / run.name / source.relative_to(run)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(source.read_text().replace(str(run.absolute().parents[1]), "/work"))


if __name__ == "__main__":
    record(Path(sys.argv[1]))
