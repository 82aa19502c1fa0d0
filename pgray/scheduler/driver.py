"""The story of `pgray run`: plan, lock, clean up, decide, run jobs, write tables. Start reading here.

The ledger of the run folder is the truth. Each run expands the sweep again, compares it with the ledger and launches only
the difference. So running again is always safe: after a crash, and after adding an arm or a seed.
"""

import contextlib
import logging
import os
import socket
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from pgray.data.check import preflight
from pgray.execution.code_snapshot import snapshot_code
from pgray.execution.executor import Executor, RayLostError, RunNeeds, make_executor
from pgray.execution.launchers.base import LaunchSettings
from pgray.execution.orphans import end_orphans
from pgray.execution.run_lock import hold_lock
from pgray.planning.decision import Decision, decide
from pgray.planning.forecast import forecast
from pgray.planning.model_check import ModelCheck
from pgray.planning.planner import Plan, make_plan
from pgray.scheduler.curve_monitor import CurveMonitor
from pgray.scheduler.driver_log import open_driver_log
from pgray.scheduler.ledger_writer import LedgerWriter, close_dead_jobs
from pgray.scheduler.loop import RunFolderGoneError, SweepLoop, write_tables
from pgray.scheduler.progress import ProgressReporter
from pgray.scheduler.provenance import write_provenance
from pgray.scheduler.queue import JobQueue, Proposer
from pgray.scheduler.signals import Interrupt, catch_interrupts
from pgray.spec.sweep import Sweep
from pgray.stopping.rule import stopping_rules
from pgray.store.ledger import Ledger
from pgray.store.planned import PLANNED_FILE, write_planned
from pgray.store.storage_errors import why_unwritable
from trainer.records.files import write_json
from trainer.records.layout import RunLayout
from trainer.records.states import TrialState
from trainer.records.text import count_of
from trainer.run.bundle import code_sha

if TYPE_CHECKING:
    from pgray.execution.cluster import Cluster


@dataclass(frozen=True)
class Outcome:
    """How a run ended. `counts`: state -> number of the sweep's trials. `paused`: why it stopped before all had run."""

    run_root: Path
    control: str
    counts: dict[str, int]
    num_launched_jobs: int
    num_launched_trials: int
    is_interrupted: bool
    paused: str | None = None

    @property
    def exit_code(self) -> int:
        """0 finished; 3 finished, some trials failed; 4 paused by budget, circuit breaker or disk; 130 interrupted."""
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
    reporter: ProgressReporter | None = None,
    trainer_command: Sequence[str] | None = None,
    grace_s: float = 10.0,
    timeout_s: float | None = None,
) -> Outcome:
    """Run the trials that the ledger of `runs/<sweep name>` lacks, and wait until they have ended.

    Args:
        sweep: what to run.
        runs: the folder that holds run folders.
        address: of a Ray cluster; None for RAY_ADDRESS, else a Ray that is started on this machine.
        reporter: shows progress; None shows nothing.
        trainer_command: replaces `python -m trainer` under the sweep's launcher; gets `--config JOB --out RUN`.
        grace_s: seconds that a job that must stop gets before it is killed.
        timeout_s: wall-clock limit of one job; None for twice the training clock and generous time for exports.
    Raises:
        InputError, DataError: the input is wrong; nothing has been launched, and no run folder made.
    """
    reporter = reporter or ProgressReporter()
    layout = RunLayout(Path(runs).absolute() / sweep.name)
    check_data = cache(partial(preflight, reads_all=True, say=reporter.say))
    plan = make_plan(sweep, check_data=check_data)
    queue: JobQueue | None = None
    unwritable: str | None = None
    is_refused = False
    with (
        catch_interrupts() as interrupt,
        hold_lock(layout.root) as driver,
        open_driver_log(layout.driver_log) as log,
        contextlib.ExitStack() as at_end,
    ):
        command = tuple(trainer_command) if trainer_command else None
        launch = LaunchSettings(
            layout.root, sweep.machine, command, grace_s, timeout_s, sweep.file.failures.stall_s, driver
        )
        try:
            end_orphans(layout, grace_s)
            close_dead_jobs(layout, sweep, log)
            if plan.study is not None:
                plan = make_plan(sweep, layout=layout, check_data=check_data)  # with the earlier proposals
            decision = decide(plan, layout)
            proposer = _make_proposer(plan, layout)
            has_work = bool(decision.with_action("run")) or not proposer.is_exhausted
            cluster = None
            if has_work:
                at_end.callback((layout.root / PLANNED_FILE).unlink, missing_ok=True)
                write_planned(layout.root, decision.with_action("run"))
                most_jobs = len(decision.jobs_to_run()) if proposer.is_exhausted else sys.maxsize
                address = address or os.environ.get("RAY_ADDRESS")
                where = None if address == "local" else address
                executor = make_executor(RunNeeds(layout.root, sweep.machine, most_jobs, sweep.origin, where))
                at_end.callback(executor.close)
                cluster = _connect(plan, executor, reporter, interrupt)
            is_refused = has_work and cluster is None  # interrupted before anything was written
            is_changed = not is_refused and (has_work or decision.has_ledger_changes)
            if not is_refused:
                _announce_plan(decision, layout, cluster, reporter, log)
            if is_changed:
                if has_work:
                    launch = replace(launch, code=snapshot_code(layout), code_sha=code_sha())
                git_sha = write_provenance(layout, sweep, plan.expansion, launch, plan.data_warnings)
                history = LedgerWriter(layout, decision, log)
                history.begin(decision)
                proposer.start()
                if has_work:
                    rules = stopping_rules(sweep.file.stopping, plan.expansion.control)
                    queue = JobQueue(decision, layout, history, launch, rules, git_sha, proposer)
                    queue.start()
                    monitor = CurveMonitor(rules, plan.expansion.control, queue.trials, layout)
                    _run_jobs(launch, executor, SweepLoop(queue, monitor, reporter, log, interrupt))
            if is_changed or not (is_refused or layout.table("md").exists()):
                if plan.study is not None:
                    write_json(layout.study, plan.study.summary())  # before the table, which repeats it
                write_tables(layout)
                _write_report(layout, reporter)
        except (RayLostError, RunFolderGoneError) as error:
            unwritable = str(error)
        except OSError as error:
            unwritable = why_unwritable(error)
        paused = (queue.paused if queue else None) or unwritable
        outcome = _outcome(plan, layout, queue, interrupt, paused)
        if paused:
            reporter.say(f"paused: {paused}")
        counts = ", ".join(f"{count} {state}" for state, count in outcome.counts.items())
        if is_refused and not layout.ledger.exists():
            return outcome  # the folder was made only to be locked, and is removed
        log.info("end: %s%s; exit code %d", counts, f"; paused: {paused}" if paused else "", outcome.exit_code)
        return outcome


def _connect(plan: Plan, executor: Executor, reporter: ProgressReporter, interrupt: Interrupt) -> "Cluster | None":
    """Connect to Ray. Refuse, before anything is written, a job that fits on no node, or a model that cannot be built.

    Returns:
        None if interrupted before.
    """
    check = ModelCheck(plan.expansion.arms, plan.sweep.origin)
    with check, reporter.waiting("connecting to Ray"):
        cluster = executor.connect(reporter.say, lambda: interrupt.is_draining)
        if cluster is None or interrupt.is_draining:
            return None
        check.wait()
    return cluster


def _make_proposer(plan: Plan, layout: RunLayout) -> Proposer:
    if plan.study is None:
        return Proposer()
    from pgray.scheduler.proposer import Searcher

    return Searcher(plan, plan.study, layout)


def _run_jobs(launch: LaunchSettings, executor: Executor, loop: SweepLoop) -> None:
    with loop.reporter:
        try:
            if loop.poll():
                executor.run_jobs(launch, loop)
        except RayLostError as error:
            loop.halt(str(error))
        finally:
            loop.finish()
    if loop.is_folder_gone:
        raise RunFolderGoneError(loop.queue.paused)


def _outcome(
    plan: Plan, layout: RunLayout, queue: JobQueue | None, interrupt: Interrupt, paused: str | None
) -> Outcome:
    states = Ledger(layout.ledger).states()
    trials = queue.trials if queue else [trial.trial_id for trial in plan.trials]
    return Outcome(
        run_root=layout.root,
        control=plan.expansion.control,
        counts=dict(Counter(states[name].state if name in states else TrialState.QUEUED for name in trials)),
        num_launched_jobs=queue.num_started if queue else 0,
        num_launched_trials=queue.num_started_trials if queue else 0,
        is_interrupted=interrupt.is_draining,
        paused=paused,
    )


def _write_report(layout: RunLayout, reporter: ProgressReporter) -> None:
    try:
        from results.report.html import write_report

        reporter.say(f"report: {write_report(layout.root)}")
    except Exception as error:  # the report is an extra: a run that has finished must not fail because of it
        first_line = (str(error).splitlines() or [""])[0]
        problem = f"{type(error).__name__}: {first_line}"
        reporter.say(f"no report, since drawing it failed ({problem}); try pgray report {layout.root}")


def _announce_plan(
    decision: Decision,
    layout: RunLayout,
    cluster: "Cluster | None",
    reporter: ProgressReporter,
    log: logging.Logger,
) -> None:
    """Show and log the warnings, and what this run will do."""
    warnings = [*(forecast(decision, layout).warnings if cluster else decision.plan.warnings), *decision.warnings]
    finished = decision.with_action("finished")
    groups = decision.jobs_to_run()
    num_run = sum(len(group) for group in groups)
    parts = [f"{count_of(len(decision.plan.trials), 'trial')}: {len(finished)} finished"]
    if recovered := decision.with_action("recover"):
        parts.append(f"{len(recovered)} found finished on disk")
    if left := decision.with_action("leave"):
        parts.append(f"{len(left)} failed earlier (pgray retry queues them)")
    parts.append(f"{num_run} to run in {count_of(len(groups), 'job')}" if num_run else "nothing to run")
    study = decision.plan.study
    if study is not None:
        parts.append(f"{len(study.proposals)} of {count_of(study.search.trials, 'proposal')} done")
    if cluster:
        parts.append(f"{cluster.slots(decision.plan.sweep.machine)} at a time on {cluster}")
    log.info("start: process %d on %s", os.getpid(), socket.gethostname())
    for text in (*(f"warning: {warning}" for warning in warnings), ", ".join(parts)):
        log.info(text)
        reporter.say(text)
