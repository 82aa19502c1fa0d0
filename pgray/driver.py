"""The story of `pgray run`: read -> expand -> plan -> lock -> reap -> decide -> submit -> collect. Read this file first.

The ledger of the run folder is the truth. What a sweep asks for is expanded anew each time and compared with it; only
the difference is launched. So running again is always right: after a crash of anything, after adding an arm or a seed.
"""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pgray.collect import History, job_token
from pgray.interrupt import Interrupt, catch_interrupts
from pgray.ledger import Ledger
from pgray.lock import hold_lock
from pgray.plan import Decision, decide, make_jobs, make_plan
from pgray.progress import Silent
from pgray.provenance import write_provenance
from pgray.strays import end_job, end_strays
from pgray.sweep import Sweep
from trainer.job import Job
from trainer.layout import RunLayout

if TYPE_CHECKING:
    from pgray.gang import Cluster
    from pgray.job import Launch

_TABLE_SHARE = 0.1  # of the driver's time, at most, goes into rewriting the table


@dataclass(frozen=True)
class Outcome:
    """What a run came to. `counts`: state -> trials, over the trials that the sweep asks for."""

    run_root: Path
    control: str
    counts: Mapping[str, int]
    num_launched_jobs: int
    num_launched_trials: int
    is_interrupted: bool

    @property
    def exit_code(self) -> int:
        if set(self.counts) <= {"finished"}:
            return 0
        return 130 if self.is_interrupted else 3


def run_sweep(
    sweep: Sweep,
    runs: str | Path = "runs",
    *,
    address: str | None = None,
    show: Silent | None = None,
    trainer_command: Sequence[str] | None = None,
    grace_s: float = 10.0,
    timeout_s: float | None = None,
) -> Outcome:
    """Run what the ledger of `runs/<sweep name>` lacks, and wait until it has ended.

    Args:
        sweep: what is asked for.
        runs: the folder that holds run folders.
        address: of a Ray cluster; None for RAY_ADDRESS, else a Ray of its own on this machine.
        show: hears about progress.
        trainer_command: stands in for torchrun and the trainer; gets `--config JOB --out RUN`.
        grace_s: how long a job that must stop may take before it is killed.
        timeout_s: of one job, wall clock; None for the training clock twice over and generous time for exports.
    Raises:
        InputError, DataError: the input is wrong; nothing has been launched, and no run folder made.
    """
    show = show or Silent()
    layout = RunLayout(Path(runs).absolute() / sweep.name)
    plan = make_plan(sweep)
    with catch_interrupts() as interrupt, hold_lock(layout.root) as last_driver:
        end_strays(layout, grace_s, last_driver)
        decision = decide(plan, layout)
        has_work = bool(decision.with_action("run"))
        cluster = _connect(sweep, address, show) if has_work else None
        interrupt.listen()  # again: Ray has put its own handler in the place of ours
        _say_plan(decision, cluster, show)

        history = History(layout, decision)
        jobs: dict[str, Job] = {}
        is_news = has_work or decision.with_action("recover") or decision.outdated or decision.superseded
        if is_news:
            git_sha = write_provenance(layout, sweep, plan.expansion)
            history.begin(decision)
            jobs = make_jobs(decision, layout, git_sha)
        if jobs and cluster:
            from pgray.job import Launch

            start = tuple(trainer_command) if trainer_command else None
            shared = Launch(layout.root, sweep.machine, start, grace_s, timeout_s)
            _run_jobs(
                jobs, shared, cluster.slots(sweep.machine), _Conductor(layout, jobs, history, show, interrupt, grace_s)
            )
        if is_news or not layout.table("md").exists():
            _write_tables(layout)
        states = Ledger(layout.ledger).states()
        return Outcome(
            run_root=layout.root,
            control=plan.expansion.control,
            counts=Counter(states[trial.trial_id].state for trial in plan.trials),
            num_launched_jobs=len(jobs),
            num_launched_trials=sum(len(job.trials) for job in jobs.values()),
            is_interrupted=interrupt.is_set,
        )


def _connect(sweep: Sweep, address: str | None, show: Silent) -> "Cluster":
    """The Ray cluster to run on; a job that no node of it can hold is refused before anything is written."""
    from pgray.gang import check_fits, connect

    with show.waiting("connecting to Ray" if address else "starting Ray"):
        cluster = connect(address)
    check_fits(cluster, sweep.machine, sweep.place)
    return cluster


def _run_jobs(jobs: Mapping[str, Job], shared: "Launch", slots: int, conductor: "_Conductor") -> None:
    from pgray.gang import run_jobs

    conductor.show.begin(len(jobs), slots)
    with conductor.show:
        try:
            if conductor.tick():
                run_jobs(list(jobs), jobs, shared, slots, conductor)
        finally:
            conductor.finish()


@dataclass
class _Conductor:
    """Hears from Ray what starts and ends, and writes it down. A job has ended when its supervisor has said so on disk."""

    layout: RunLayout
    jobs: Mapping[str, Job]
    history: History
    show: Silent
    interrupt: Interrupt
    grace_s: float
    _open: dict[str, float] = field(default_factory=dict)  # started, not yet collected -> when to stop waiting for it
    _worker_errors: dict[str, str | None] = field(default_factory=dict)
    _next_table: float = 0.0

    def started(self, job_id: str) -> None:
        job = self.jobs[job_id]
        self._open[job_id] = float("inf")
        self.history.started(job)
        self.show.started(job, self.history.label(job))

    def progressed(self, job_id: str, metrics: Mapping[str, Any]) -> None:
        self.show.progressed(job_id, metrics)

    def ended(self, job_id: str, worker_error: str | None = None) -> None:
        # Where the Ray worker died, its supervisor still needs a moment to end the job and to say how it ended.
        has_begun = job_token(self.layout, job_id) is not None
        self._open[job_id] = time.monotonic() + (self.grace_s + 5 if has_begun else 0)
        self._worker_errors[job_id] = worker_error

    def tick(self) -> bool:
        for job_id, deadline in list(self._open.items()):
            has_ended = deadline < float("inf")
            if has_ended and (self.layout.job(job_id).exit.exists() or time.monotonic() > deadline):
                self._collect(job_id)
        return not self.interrupt.is_set

    def finish(self) -> None:
        """Wait for the jobs that are still open: all of them are over or being stopped."""
        for job_id in list(self._open):
            self.ended(job_id)
        if self._open and self.interrupt.is_set:
            self.show.say(f"stopping {len(self._open)} jobs")
        while self._open:
            self.tick()
            time.sleep(0.05)

    def _collect(self, job_id: str) -> None:
        del self._open[job_id]
        job = self.jobs[job_id]
        if not self.layout.job(job_id).exit.exists():
            end_job(job_token(self.layout, job_id))
        entries = self.history.ended(job, self.interrupt.is_set, self._worker_errors.get(job_id))
        self.show.ended(job_id, entries)
        if time.monotonic() >= self._next_table:
            began = time.monotonic()
            _write_tables(self.layout)
            self._next_table = time.monotonic() + (time.monotonic() - began) / _TABLE_SHARE


def _write_tables(layout: RunLayout) -> None:
    from results.tables import write_all

    write_all(layout.root)


def _say_plan(decision: Decision, cluster: "Cluster | None", show: Silent) -> None:
    for warning in decision.plan.warnings:
        show.say(f"warning: {warning}")
    groups = decision.shared()
    parts = [f"{len(decision.plan.trials)} trials: {len(decision.with_action('finished'))} finished"]
    if decision.with_action("recover"):
        parts.append(f"{len(decision.with_action('recover'))} found finished on disk")
    if decision.with_action("leave"):
        parts.append(f"{len(decision.with_action('leave'))} failed before (pgray retry queues them)")
    num_run = sum(len(group) for group in groups)
    parts.append(f"{num_run} to run in {len(groups)} jobs" if num_run else "nothing to run")
    if cluster:
        parts.append(f"{cluster.slots(decision.plan.sweep.machine)} at a time on {cluster}")
    show.say(", ".join(parts))
