"""Measures the driver's cost per trial, and whether it grows, by 1,000 trials whose jobs take no time.

    python bench/thousand_trials.py [--trials 1000]

Driver, Ray, supervisors and files are real; only the trainer is a substitute that writes a valid result at once. CPU time is
the driver process's: in the sweep loop (queue, ledger, table), and the rest, in Ray Tune. It starts a Ray with eight
logical CPUs, in a temporary folder.

Measured on two shared cores: 566 s, most of it to start 2,000 processes; 34 ms of the
driver's CPU for each of the first hundred trials (sweep loop 15, Ray Tune 19), 35 ms for each of the last (8, 27); 254 MiB
with 20 trials, 305 with 1,000; again, with nothing to do: 0.7 s.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # tests/ is not installed
INSTANT = str(ROOT / "tests/pgray/instant_trainer.py")
SEEDS = 4
SWEEP = """
name: thousand
preset: cpu-smoke
set: {{data.path: {data}, model.vocab_size: 320}}
seeds: {seeds}
grid: {{optim.matrix_lr: {rates}}}
resources: {{cpus: 1}}
launcher: plain
"""


def prepare(folder: Path, num_trials: int) -> None:
    """Put a data folder, a sweep file and a result to copy into `folder`."""
    from tests.pgray.conftest import write_data
    from tests.results.synthetic import result

    write_data(folder / "data")
    rates = [round(0.01 + i / 10_000, 4) for i in range(num_trials // SEEDS)]
    (folder / "thousand.yaml").write_text(SWEEP.format(data=folder / "data", rates=rates, seeds=list(range(SEEDS))))
    (folder / "result.json").write_text(result("a", 1, 2.5, sliding_bpb=2.45, eval_stride=64).model_dump_json())


def drive(folder: Path) -> None:
    """Run the sweep and print measurements as JSON: `ends` has [wall s, CPU s, sweep loop's CPU s] for each job's end."""
    import ray

    from pgray.execution.cluster import prepare_ray
    from pgray.scheduler.driver import run_sweep
    from pgray.scheduler.loop import SweepLoop
    from pgray.spec.sweep import Sweep

    ends: list[list[float]] = []
    own_s = 0.0

    def clocked(name: str) -> None:
        method = getattr(SweepLoop, name)

        def timed(*arguments: Any) -> Any:
            nonlocal own_s
            before = time.thread_time()
            try:
                return method(*arguments)
            finally:
                own_s += time.thread_time() - before
                if name == "on_ended":
                    ends.append([time.perf_counter(), time.process_time(), own_s])

        setattr(SweepLoop, name, timed)

    for name in ("next_job", "on_started", "on_progress", "on_ended", "poll"):
        clocked(name)
    began = time.perf_counter()
    sweep = Sweep.from_yaml(folder / "thousand.yaml")
    if not (folder / "runs").exists():
        prepare_ray()
        ray.init("local", num_cpus=8, include_dashboard=False, log_to_driver=False, object_store_memory=128 * 1024**2)
    start = (sys.executable, "-S", "-E", INSTANT, str(folder / "result.json"))
    outcome = run_sweep(sweep, folder / "runs", trainer_command=start)
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    took = {"wall_s": time.perf_counter() - began, "cpu_s": time.process_time(), "peak_mib": peak_mib, "ends": ends}
    print(json.dumps({**took, "exit_code": outcome.exit_code, "counts": outcome.counts}))


def drive_in_its_own_process(folder: Path) -> dict[str, Any]:
    command = [sys.executable, __file__, "--drive", str(folder)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main(num_trials: int) -> None:
    import results

    with tempfile.TemporaryDirectory(prefix="pgray-bench-") as name:
        folder = Path(name)
        prepare(folder, num_trials)
        first = drive_in_its_own_process(folder)
        again = drive_in_its_own_process(folder)
        rows = results.load(folder / "runs" / "thousand")
        assert (rows["status"] == "finished").sum() == num_trials, rows["status"].value_counts()
    ends, window = first["ends"], min(100, num_trials // 2)
    print(
        f"{num_trials} trials: {first['wall_s']:.0f} s, driver {first['cpu_s']:.0f} s CPU, {first['peak_mib']:.0f} MiB"
    )
    for title, (start, end) in {"first": (0, window), "last": (len(ends) - window - 1, len(ends) - 1)}.items():
        wall, cpu, own = (1000 * (ends[end][i] - ends[start][i]) / window for i in range(3))
        print(
            f"{title} {window}: {wall:.0f} ms per trial, of the driver's CPU {cpu:.1f} ms: "
            f"sweep loop {own:.1f} ms, Ray Tune {cpu - own:.1f} ms"
        )
    print(f"again, nothing to do: {again['wall_s']:.1f} s, {again['cpu_s']:.1f} s CPU, {again['peak_mib']:.0f} MiB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--drive", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.drive:
        drive(arguments.drive)
    else:
        main(arguments.trials)
