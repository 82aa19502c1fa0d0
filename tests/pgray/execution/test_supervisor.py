"""The supervisor and its lifeline, without Ray: whichever process dies, no process of the job is left."""

import json
import multiprocessing
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import psutil
import pytest

import pgray.execution.supervisor
from pgray.execution import processes
from pgray.execution.launchers.base import LaunchSettings
from pgray.execution.orphans import end_orphans
from pgray.execution.run_lock import hold_lock
from pgray.execution.worker import archive_attempt, follow_job, write_job
from pgray.store.process_records import RAY_FILE, RayHost, SupervisorSpec, read_driver
from tests.pgray.conftest import marked, wait_for
from trainer.records.files import write_json
from trainer.records.job import Job
from trainer.records.layout import RunLayout, TrialLayout

MakeJob = Callable[..., Job]


def follow(job: Job, settings: LaunchSettings) -> dict[str, Any]:
    """Run a job to its end in this process; returns its exit record."""
    write_job(job, RunLayout(settings.run_root))
    follow_job(job, settings, lambda _: None)
    record: dict[str, Any] = json.loads(RunLayout(settings.run_root).job(job.job_id).exit.read_text())
    return record


def follow_elsewhere(job: Job, settings: LaunchSettings) -> multiprocessing.Process:
    """Run a job from a separate process, like a Ray worker, that a test can kill."""
    write_job(job, RunLayout(settings.run_root))
    worker = multiprocessing.get_context("spawn").Process(target=follow_job, args=(job, settings, print), daemon=True)
    worker.start()
    return worker


def in_thread(job: Job, settings: LaunchSettings) -> threading.Thread:
    write_job(job, RunLayout(settings.run_root))
    thread = threading.Thread(target=follow_job, args=(job, settings, lambda _: None), daemon=True)
    thread.start()
    return thread


def are_both_ranks_up(job: Job, settings: LaunchSettings) -> bool:
    log = RunLayout(settings.run_root).job(job.job_id).log
    return log.exists() and log.read_text().count("fake trainer: job") == 2


def agent(settings: LaunchSettings) -> psutil.Process:
    return next(p for p in processes.of_run(str(settings.run_root)) if "torch.distributed.run" in p.cmdline())


def supervisor_pid(job: Job, settings: LaunchSettings) -> int:
    return int(json.loads(RunLayout(settings.run_root).job(job.job_id).supervisor.read_text())["pid"])


def test_a_job_that_succeeds(make_job: MakeJob, launch_plain: LaunchSettings) -> None:
    job = make_job()
    reports: list[dict[str, Any]] = []
    write_job(job, RunLayout(launch_plain.run_root))
    follow_job(job, launch_plain, reports.append)
    layout = RunLayout(launch_plain.run_root)
    record = json.loads(layout.job(job.job_id).exit.read_text())
    assert (record["code"], record["stop"], record["killed"], record["survivors"]) == (0, None, [], [])
    trial = layout.trial(job.trials[0].trial_id)
    assert trial.result.exists()
    assert trial.log.read_text().startswith("fake trainer: job job-0")
    assert trial.log.samefile(layout.job(job.job_id).log)
    wait_for(lambda: not marked(launch_plain.run_root), 5)


def test_only_the_children_carry_the_token_and_stale_launcher_variables_are_removed(
    make_job: MakeJob, launch_plain: LaunchSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "TORCHELASTIC_RUN_ID", "RAY_JOB_ID"):
        monkeypatch.setenv(name, "7")
    job = make_job({"optim.muon_momentum_steps": 3})
    thread = in_thread(job, launch_plain)
    (child,) = wait_for(lambda: processes.of_run(str(launch_plain.run_root)))
    environment = child.environ()
    assert environment[processes.JOB_TOKEN]
    assert environment["OMP_NUM_THREADS"] == "1"
    assert environment["CUDA_VISIBLE_DEVICES"] == ""
    stale = {"RANK", "WORLD_SIZE", "MASTER_ADDR", "TORCHELASTIC_RUN_ID", "RAY_JOB_ID"}
    assert not stale & set(environment)
    supervisor = psutil.Process(supervisor_pid(job, launch_plain))
    assert processes.JOB_TOKEN not in supervisor.environ()
    supervisor.terminate()
    thread.join(20)
    wait_for(lambda: not marked(launch_plain.run_root), 5)


def test_processes_that_outlive_a_finished_job_are_killed(make_job: MakeJob, launch_plain: LaunchSettings) -> None:
    record = follow(make_job({"optim.muon_momentum_steps": 5}), launch_plain)
    assert record["code"] == 0
    assert [process["command"] for process in record["killed"]] == ["sleep 3600"]
    wait_for(lambda: not marked(launch_plain.run_root), 5)


def test_a_job_that_takes_too_long_is_stopped(make_job: MakeJob, launch_plain: LaunchSettings) -> None:
    record = follow(make_job({"optim.muon_momentum_steps": 3}), replace(launch_plain, timeout_s=2.0))
    assert record["stop"] == "timeout"
    wait_for(lambda: not marked(launch_plain.run_root), 5)


def test_a_command_that_cannot_start_gives_an_exit_record(make_job: MakeJob, launch_plain: LaunchSettings) -> None:
    record = follow(make_job(), replace(launch_plain, program=("/no/such/trainer",)))
    assert "/no/such/trainer" in record["error"]


def test_a_supervisor_that_dies_before_it_writes_its_pid_file_ends_the_job_at_once(
    make_job: MakeJob, launch_plain: LaunchSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    job = make_job()
    thread = in_thread(job, launch_plain)
    thread.join(10)
    assert json.loads(RunLayout(launch_plain.run_root).job(job.job_id).exit.read_text())["stop"] == "supervisor"


def test_a_job_of_a_replaced_driver_does_not_start(
    make_job: MakeJob, launch_plain: LaunchSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker can outlive its driver for a moment, and the next driver cannot see a supervisor that has not started."""
    layout = RunLayout(launch_plain.run_root)
    with hold_lock(layout.root):
        old = replace(launch_plain, driver=read_driver(layout.root))
    with hold_lock(layout.root):
        new = replace(launch_plain, driver=read_driver(layout.root))
        job = make_job()
        write_job(job, layout)
        follow_job(job, old, lambda _: None)
        assert not layout.job(job.job_id).launch.exists()
        # If the driver is replaced just after the worker has checked, the supervisor notices.
        with monkeypatch.context() as patch:
            patch.setattr(pgray.execution.supervisor, "is_replaced", lambda *_: False)
            assert follow(job, old)["stop"] == "replaced"
        assert not layout.job(job.job_id).log.exists()
        assert follow(make_job(job_id="job-1"), new)["code"] == 0


@pytest.mark.slow
def test_two_ranks_under_torchrun_succeed(make_job: MakeJob, launch_torchrun: LaunchSettings) -> None:
    record = follow(make_job(), launch_torchrun)
    assert (record["code"], record["killed"]) == (0, [])
    wait_for(lambda: not marked(launch_torchrun.run_root), 5)


@pytest.mark.slow
def test_when_the_worker_is_killed_the_job_ends(make_job: MakeJob, launch_torchrun: LaunchSettings) -> None:
    settings = replace(launch_torchrun, grace_s=1.0)
    job = make_job({"optim.muon_momentum_steps": 7, "train.iterations": 600, "optim.ns_steps": 10})
    worker = follow_elsewhere(job, settings)
    wait_for(lambda: are_both_ranks_up(job, settings))
    worker.kill()
    exit_file = RunLayout(settings.run_root).job(job.job_id).exit
    wait_for(exit_file.exists)
    assert json.loads(exit_file.read_text())["stop"] == "lifeline"
    wait_for(lambda: not marked(settings.run_root), 5)


@pytest.mark.slow
def test_when_the_supervisor_is_killed_the_job_ends(make_job: MakeJob, launch_torchrun: LaunchSettings) -> None:
    job = make_job({"optim.muon_momentum_steps": 7, "train.iterations": 600, "optim.ns_steps": 10})
    thread = in_thread(job, launch_torchrun)
    wait_for(lambda: are_both_ranks_up(job, launch_torchrun))
    psutil.Process(supervisor_pid(job, launch_torchrun)).kill()
    thread.join(30)
    record = json.loads(RunLayout(launch_torchrun.run_root).job(job.job_id).exit.read_text())
    assert record["stop"] == "supervisor"
    wait_for(lambda: not marked(launch_torchrun.run_root), 5)


@pytest.mark.slow
def test_when_torchrun_is_killed_its_ranks_end(make_job: MakeJob, launch_torchrun: LaunchSettings) -> None:
    job = make_job({"optim.muon_momentum_steps": 7, "train.iterations": 600, "optim.ns_steps": 10})
    thread = in_thread(job, launch_torchrun)
    wait_for(lambda: are_both_ranks_up(job, launch_torchrun))
    agent(launch_torchrun).kill()
    thread.join(30)
    record = json.loads(RunLayout(launch_torchrun.run_root).job(job.job_id).exit.read_text())
    assert record["code"] == -signal.SIGKILL
    assert len(record["killed"]) == 2
    wait_for(lambda: not marked(launch_torchrun.run_root), 5)


@pytest.mark.slow
def test_the_next_driver_ends_ranks_whose_worker_supervisor_and_torchrun_were_killed(
    make_job: MakeJob, launch_torchrun: LaunchSettings
) -> None:
    job = make_job({"optim.muon_momentum_steps": 7, "train.iterations": 600, "optim.ns_steps": 10})
    worker = follow_elsewhere(job, launch_torchrun)
    wait_for(lambda: are_both_ranks_up(job, launch_torchrun))
    worker.kill()
    psutil.Process(supervisor_pid(job, launch_torchrun)).kill()
    agent(launch_torchrun).kill()
    wait_for(lambda: len(marked(launch_torchrun.run_root)) == 2, 5)  # what was killed goes at once, but not in no time
    assert end_orphans(RunLayout(launch_torchrun.run_root), grace_s=5) == 2
    wait_for(lambda: not marked(launch_torchrun.run_root), 5)


def test_leftovers_of_a_dead_drivers_ray_are_found_by_its_folder_and_ended(tmp_path: Path) -> None:
    """A host that died is in a file of the run folder; its Ray's processes have its folder in their options."""
    with subprocess.Popen(["true"]) as host:
        identity = processes.identity_of(host.pid)
        host.wait()
    layout, scratch = RunLayout(tmp_path / "run"), tmp_path / "pgray-1"
    scratch.mkdir()
    write_json(layout.root / RAY_FILE, asdict(RayHost(**vars(identity), scratch=str(scratch), run=str(layout.root))))
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    shutil.copytree(layout.root, tmp_path / "copy")
    with (
        subprocess.Popen([*command, f"--session-dir={scratch}/session_1"]) as agent,
        subprocess.Popen([*command, f"--session-dir={scratch}7/session_1"]) as other,
        subprocess.Popen([*command, f"{scratch}/session_1/logs/x"]) as reader,
    ):
        wait_for(lambda: [process.pid for process in processes.of_ray(scratch)] == [agent.pid])
        assert end_orphans(RunLayout(tmp_path / "copy"), grace_s=1) == 0
        assert agent.poll() is None
        assert end_orphans(layout, grace_s=1) == 1
        assert agent.wait(5) == -signal.SIGKILL
        assert (other.poll(), reader.poll()) == (None, None)
        other.kill()
        reader.kill()
    assert not scratch.exists()
    assert not (layout.root / RAY_FILE).exists()


def test_a_copy_of_a_run_folder_leaves_the_supervisors_of_the_original_alone(tmp_path: Path) -> None:
    original, copy = RunLayout(tmp_path / "run"), RunLayout(tmp_path / "copy")
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as supervisor:
        job = original.job("j")
        write_json(job.launch, asdict(SupervisorSpec("token", str(original.root), "j")))
        write_json(job.supervisor, asdict(processes.identity_of(supervisor.pid)))
        shutil.copytree(original.root, copy.root)
        assert end_orphans(copy, grace_s=1) == 0
        assert supervisor.poll() is None
        assert end_orphans(original, grace_s=1) == 1
        assert supervisor.wait(5) == -signal.SIGTERM


def test_a_new_attempt_keeps_the_files_of_the_old_one(tmp_path: Path) -> None:
    trial = TrialLayout(tmp_path / "trial")
    archive_attempt(trial)
    assert not trial.root.exists()
    for number in (1, 2):
        trial.root.mkdir(exist_ok=True)
        trial.log.write_text(f"attempt {number}")
        archive_attempt(trial)
    assert sorted(path.name for path in trial.root.iterdir()) == ["attempt-1", "attempt-2"]
    assert (trial.root / "attempt-2" / "log.txt").read_text() == "attempt 2"


def test_no_secret_of_the_environment_is_written_to_disk(
    make_job: MakeJob, launch_plain: LaunchSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_API_TOKEN", "hunter2")
    job = make_job()
    follow(job, launch_plain)
    records = RunLayout(launch_plain.run_root).job(job.job_id)
    assert "hunter2" not in records.launch.read_text()
