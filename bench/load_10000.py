"""Measures how long a run folder of 10,000 trials takes to read, first and after one more trial has finished.

    python bench/load_10000.py [--trials 10000] [--seeds 10]

The temporary folder holds real records, with a byte ledger of 70 tensors in each result. A separate process is timed; its
peak memory is counted without its imports. The last line is the table, which a driver rewrites after each trial.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # tests/ is not installed


def write_run(root: Path, num_trials: int, num_seeds: int) -> None:
    from tests.results.synthetic import Run, result
    from trainer.records.ledger import LedgerEntry
    from trainer.records.results import TensorBytes

    tensors = [
        TensorBytes(name=f"blocks.{i}.w", tensor_class="mlp", stored_as="int", bits=6, num_elements=9216, entropy_bytes=6543.2)
        for i in range(70)
    ]  # fmt: skip
    layout = Run(root).layout
    with layout.ledger.open("w") as ledger:
        for index in range(num_trials):
            arm, seed = f"arm{index // num_seeds}", index % num_seeds
            bpb = 2.5 + index % 97 / 1000
            record = result(arm, seed, bpb, sliding_bpb=bpb - 0.05, eval_stride=64, tensors=tensors)
            folder = layout.trial(record.trial_id).root
            folder.mkdir(parents=True)
            layout.trial(record.trial_id).result.write_text(record.model_dump_json(indent=1))
            entry = LedgerEntry(
                at=0.0, sweep="bits", arm=arm, seed=seed, trial_id=record.trial_id,
                train_fingerprint=record.train_fingerprint, state="queued",
            )  # fmt: skip
            for state in ("queued", "running", "finished"):
                ledger.write(entry.model_copy(update={"state": state}).model_dump_json() + "\n")


def measure(root: Path) -> None:
    import results
    from results.present.files import write_all
    from tests.results.synthetic import Run

    results.load  # noqa: B018  pandas is imported here, not on the clock
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    figures: dict[str, tuple[float, float]] = {}

    def clocked(name: str, work: Callable[[Path], object]) -> object:
        wall, cpu = time.perf_counter(), time.process_time()
        done = work(root)
        figures[name] = (time.perf_counter() - wall, time.process_time() - cpu)
        return done

    trials = clocked("cold", results.load)
    peak_mib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib) / 1024
    Run(root, (root / "sweep.yaml").read_text()).finish("int8", 42, sliding_bpb=2.4, eval_stride=64)
    again = clocked("one more trial", results.load)
    assert len(again) == len(trials) + 1  # type: ignore[arg-type]
    clocked("table.md, .csv, .parquet", write_all)
    for name, (wall_s, cpu_s) in figures.items():
        print(f"{name:26}{wall_s:6.2f} s, of which {cpu_s:.2f} s of CPU")
    print(f"peak memory of the cold load: {peak_mib:.0f} MiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.measure:
        measure(asked.measure)
        return
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "run"
        started = time.perf_counter()
        write_run(root, asked.trials, asked.seeds)
        print(
            f"written in {time.perf_counter() - started:.1f} s: {asked.trials:,} trials, {asked.seeds} seeds an arm",
            flush=True,
        )
        subprocess.run([sys.executable, __file__, "--measure", str(root)], check=True, cwd=ROOT)


if __name__ == "__main__":
    main()
