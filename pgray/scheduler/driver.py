"""The story of `pgray run`: read -> expand -> plan -> lock -> reap -> decide -> submit -> collect. Read this file first.

The ledger of the run folder is the truth. What a sweep asks for is expanded anew each time and compared with it; only
the difference is launched. So running again is always right: after a crash of anything, after adding an arm or a seed.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pgray.execution.code_snapshot import snapshot_code
from pgray.execution.launchers.base import LaunchSettings
from pgray.execution.orphans import end_orphans
from pgray.execution.run_lock import hold_lock, read_driver
from pgray.planning.forecast import forecast
from pgray.planning.model_check import start_model_check
from pgray.planning.planner import Decision, Plan, decide, make_plan
from pgray.scheduler.curve_monitor import CurveMonitor
from pgray.scheduler.ledger_writer import LedgerWriter, settle
from pgray.scheduler.loop import SweepLoop
from pgray.scheduler.progress import ProgressReporter
from pgray.scheduler.provenance import write_provenance
from pgray.scheduler.queue import JobQueue
from pgray.scheduler.signals import Interrupt, catch_interrupts
from pgray.spec.sweep import Sweep
from pgray.store.ledger import Ledger
from pgray.store.storage_errors import why_unwritable
from trainer.records.layout import RunLayout
from trainer.records.states import TrialState
from trainer.run.bundle import code_sha

if TYPE_CHECKING:
    from pgray.execution.cluster import Cluster
    from pgray.scheduler.proposer import Searcher


@dataclass(frozen=True)
class Outcome:
    """What a run came to. `counts`: state -> trials, over the trials that the sweep asks for; `paused`: why it stopped."""

    run_root: Path
    control: str
    counts: dict[str, int]
    num_launched_jobs: int
    num_launched_trials: int
    is_interrupted: bool
    paused: str | None = None

    @property
    def exit_code(self) -> int:
        """0 finished; 3 finished, some trials failed; 4 paused by budget, breaker or disk; 130 interrupted."""
        if set(self.counts) <= {TrialState.FINISHED, TrialState.KILLED} and self.paused is None:
            return 0
        if self.is_interrupted:
            return 130
        return 3 if self.paused is None else 4


def run_sweep(
    sweep: Sweep,
    runs: str | Path = "runs",
    *,
    address: str | None = None,
    show: ProgressReporter | None = None,
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
        trainer_command: stands in for `python -m trainer`, under the sweep's launcher; gets `--config JOB --out RUN`.
        grace_s: how long a job that must stop may take before it is killed.
        timeout_s: of one job, wall clock; None for the training clock twice over and generous time for exports.
    Raises:
        InputError, DataError: the input is wrong; nothing has been launched, and no run folder made.
    """
    show = show or ProgressReporter()
    layout = RunLayout(Path(runs).absolute() / sweep.name)
    plan = make_plan(sweep)
    queue: JobQueue | None = None
    paused: str | None = None
    with catch_interrupts() as interrupt, hold_lock(layout.root) as dead_drivers:
        start, note = tuple(trainer_command) if trainer_command else None, read_driver(layout.root)
        launch = LaunchSettings(layout.root, sweep.machine, start, grace_s, timeout_s, sweep.failures.stall_s, note)
        try:
            end_orphans(layout, grace_s, dead_drivers)
            settle(layout, sweep.machine, sweep.usd_per_gpu_hour)
            if plan.study is not None:
                plan = make_plan(sweep, layout=layout)  # with what was proposed before
            decision = decide(plan, layout)
            searcher = _searcher(plan, layout)
            has_work = bool(decision.with_action("run")) or (searcher is not None and not searcher.is_exhausted)
            cluster = _connect(plan, address, show) if has_work else None
            interrupt.listen()  # again: Ray has put its own handler in the place of ours
            _say_plan(decision, layout, cluster, show)
            if decision.has_ledger_changes or has_work:
                if has_work:
                    launch = replace(launch, code=snapshot_code(layout), code_sha=code_sha())
                git_sha = write_provenance(layout, sweep, plan.expansion, launch)
                history = LedgerWriter(layout, decision)
                history.begin(decision)
                if has_work:
                    queue = JobQueue(decision, layout, history, launch, git_sha, searcher)
                    _run_jobs(queue, history, show, interrupt)
            if decision.has_ledger_changes or has_work or not layout.table("md").exists():
                _write_up(plan, layout, show)
        except OSError as error:
            paused = why_unwritable(error)
        return _outcome(plan, layout, queue, interrupt, paused, show)


def _connect(plan: Plan, address: str | None, show: ProgressReporter) -> "Cluster":
    """The Ray cluster to run on. A job that no node of it can hold, or a model that cannot be built, is refused before
    anything is written."""
    from pgray.execution.cluster import check_fits, connect

    with start_model_check(plan) as check, show.waiting("connecting to Ray" if address else "starting Ray"):
        cluster = connect(address)
        check_fits(cluster, plan.sweep.machine, plan.sweep.origin)
        check.wait()
    return cluster


def _searcher(plan: Plan, layout: RunLayout) -> "Searcher | None":
    if plan.study is None:
        return None
    from pgray.scheduler.proposer import Searcher

    return Searcher(plan, plan.study, layout)


def _run_jobs(queue: JobQueue, history: LedgerWriter, show: ProgressReporter, interrupt: Interrupt) -> None:
    from pgray.execution.ray_tune import run_jobs

    plan, layout, launch = queue.decision.plan, queue.layout, queue.launch
    watch = CurveMonitor(plan.sweep, plan.expansion.control, queue.trials, layout)
    conductor = SweepLoop(
        layout, queue, history, watch, show, interrupt, launch.end_patience_s, lambda: _write_tables(layout)
    )
    with show:
        try:
            if conductor.poll():
                run_jobs(launch, conductor)
        finally:
            conductor.finish()


def _outcome(
    plan: Plan,
    layout: RunLayout,
    queue: JobQueue | None,
    interrupt: Interrupt,
    paused: str | None,
    show: ProgressReporter,
) -> Outcome:
    paused = (queue.paused if queue else None) or paused
    if paused:
        show.say(f"paused: {paused}")
    states = Ledger(layout.ledger).states()
    trials = queue.trials if queue else [trial.trial_id for trial in plan.trials]
    return Outcome(
        run_root=layout.root,
        control=plan.expansion.control,
        counts=dict(Counter(states[name].state for name in trials if name in states)),
        num_launched_jobs=queue.num_started if queue else 0,
        num_launched_trials=queue.num_started_trials if queue else 0,
        is_interrupted=interrupt.is_draining,
        paused=paused,
    )


def _write_up(plan: Plan, layout: RunLayout, show: ProgressReporter) -> None:
    """What people read: the tables, what a search has found, the report."""
    _write_tables(layout)
    if plan.study is not None:
        plan.study.write_summary(layout.study)
    _write_report(layout, show)


def _write_tables(layout: RunLayout) -> None:
    from results.present.files import write_all

    write_all(layout.root)


def _write_report(layout: RunLayout, show: ProgressReporter) -> None:
    try:
        from results.report.html import write_report

        show.say(f"report: {write_report(layout.root)}")
    except Exception as error:  # pictures are an extra: a run that has ended well must not fail by them
        first_line = (str(error).splitlines() or [""])[0]
        show.say(
            f"no report, since drawing failed ({type(error).__name__}: {first_line}); try pgray report {layout.root}"
        )


def _say_plan(decision: Decision, layout: RunLayout, cluster: "Cluster | None", show: ProgressReporter) -> None:
    warnings = forecast(decision, layout).warnings if cluster else decision.plan.warnings
    for warning in [*warnings, *decision.warnings]:
        show.say(f"warning: {warning}")
    finished = [trial.trial_id for trial in decision.with_action("finished")]
    bare = [name for name in finished if not layout.trial(name).artifact.exists()]
    if bare:
        show.say(
            f"warning: the artifacts of {len(bare)} finished trials are gone, such as {bare[0]}; "
            "delete a trial's result.json to have it exported again"
        )
    groups = decision.jobs_to_run()
    parts = [f"{len(decision.plan.trials)} trials: {len(decision.with_action('finished'))} finished"]
    if decision.with_action("recover"):
        parts.append(f"{len(decision.with_action('recover'))} found finished on disk")
    if decision.with_action("leave"):
        parts.append(f"{len(decision.with_action('leave'))} failed before (pgray retry queues them)")
    num_run = sum(len(group) for group in groups)
    parts.append(f"{num_run} to run in {len(groups)} jobs" if num_run else "nothing to run")
    study = decision.plan.study
    if study is not None:
        parts.append(f"{len(study.proposals)} of {study.search.trials} proposals made")
    if cluster:
        parts.append(f"{cluster.slots(decision.plan.sweep.machine)} at a time on {cluster}")
    show.say(", ".join(parts))
