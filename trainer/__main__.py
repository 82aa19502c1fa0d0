"""Runs one job without Ray: `torchrun --standalone --nproc_per_node=N -m trainer --config job.json --out DIR`.

Exit codes: 0 every trial has a result; 1 the job failed; 2 the input is wrong; 3 some exports failed. The reason is in
`DIR/jobs/<job_id>/failure.json`, because torchrun hides a rank's exit code.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.errors import InputError

if TYPE_CHECKING:
    from trainer.records.job import Job


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="trainer", description="Train, quantize, pack, unpack and evaluate one job.")
    parser.add_argument("--config", type=Path, required=True, help="job.json, or YAML/JSON {preset: NAME, set: {...}}")
    parser.add_argument("--out", type=Path, required=True, help="run folder for weights, artifacts and results")
    args = parser.parse_args(argv)

    from trainer.records.job import load_job

    try:
        job = load_job(args.config)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return run(job, args.out)


def run(job: "Job", out: Path) -> int:
    """Run a job on the ranks that torchrun started, or in this process alone. Return the exit code."""
    from trainer.pipeline import run_job  # imports torch, so only after the arguments and the job are checked
    from trainer.run.dist import start_ranks, stop_ranks, watch_parent

    try:
        dist = start_ranks(job.config.train.device)
        if dist.world_size > 1:
            watch_parent()
        results = run_job(job, out, dist)
        stop_ranks()
    except Exception as error:
        return report_failure(error, job, out)
    return 0 if len(results) == len(job.trials) else 3


def report_failure(error: Exception, job: "Job", out: Path) -> int:
    """Record and print why a job stopped. Of several failing ranks, the first one's reason is kept. Return the exit code."""
    from trainer.records.failures import failure_of, is_reported
    from trainer.records.files import write_json
    from trainer.records.layout import RunLayout

    failure, path = failure_of(error), RunLayout(out).job(job.job_id).failure
    if not path.is_file():
        write_json(path, failure.model_dump(mode="json"))
    if not is_reported(error):
        print(failure.trace, file=sys.stderr)
    print(f"error: {failure.reason}", file=sys.stderr, flush=True)
    return 2 if is_reported(error) and failure.kind in ("user_error", "data_error") else 1


if __name__ == "__main__":
    sys.exit(main())
