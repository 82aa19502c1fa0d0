"""Terminals and disks that cannot take the output: one line and no traceback."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pgray.cli.entry import main
from tests.results.synthetic import Run

ROOT = Path(__file__).resolve().parents[3]
PGRAY = [sys.executable, "-m", "pgray"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = Run(tmp_path_factory.mktemp("runs") / "bits", "name: bits\nquestion: Δ ≥ 0 …?\ncontrol: int8\n")
    run.finish("int8", 42)
    run.finish("Ω4", 42, 2.6)
    return run.layout.root


def pgray(*arguments: str, shell: str = '"$@"', **environment: str) -> subprocess.CompletedProcess[bytes]:
    command = ["bash", "-c", shell, "bash", *PGRAY, *arguments]
    return subprocess.run(command, capture_output=True, check=False, env={**os.environ, **environment})


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_a_terminal_without_greek_letters(root: Path, encoding: str) -> None:
    done = pgray("table", str(root), PYTHONIOENCODING=encoding)
    assert done.returncode == 0, done.stderr
    assert done.stderr == b""
    assert b"D >= 0 ...?" in done.stdout
    assert b"?4" in done.stdout  # there is no letter like Omega
    csv = pgray("table", str(root), "--format", "csv", PYTHONIOENCODING=encoding)
    assert "Ω4".encode() in csv.stdout  # a file is in UTF-8 wherever it is written


def test_a_full_standard_output(root: Path) -> None:
    for arguments in (["table"], ["table", "--json"], ["status"]):
        done = pgray(arguments[0], str(root), *arguments[1:], shell='"$@" > /dev/full')
        assert done.returncode == 2
        assert done.stderr == b"error: standard output: No space left on device\n"


def test_a_full_disk_is_named_by_the_file(root: Path) -> None:
    """A file-size limit fails writes as a full disk does: with an error that names no file."""
    done = pgray("report", str(root), shell='ulimit -f 1; "$@"')
    assert done.returncode == 2
    assert done.stderr == f"error: {root}/report.html: File too large\n".encode()


def test_a_deleted_working_folder(root: Path, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    enter = f'mkdir -p "{gone}" && cd "{gone}" && rmdir "{gone}" && "$@"'
    done = pgray("plan", str(root / "sweep.yaml"), shell=enter)
    assert done.returncode == 2
    assert done.stderr.count(b"\n") == 1
    assert b"Traceback" not in done.stderr
    assert pgray("status", str(root), shell=enter).returncode == 0
    done = pgray("import", "x.log", "--into", "new", "--arm", "a", shell=enter)
    assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize("delay_s", [0.05, 0.15, 0.3])
def test_ctrl_c_while_modules_are_imported(root: Path, delay_s: float) -> None:
    code = "import sys; from pgray.cli import main; sys.stdout.write('x'); sys.stdout.flush(); sys.exit(main())"
    started = subprocess.Popen(
        [sys.executable, "-c", code, "table", str(root)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a job in a shell's background ignores Ctrl-C
    )
    assert started.stdout is not None
    assert started.stdout.read(1) == b"x"
    time.sleep(delay_s)
    started.send_signal(signal.SIGINT)
    _, error = started.communicate()
    assert (started.returncode, error) == (130, b"interrupted\n")


def test_a_closed_pipe(root: Path) -> None:
    for arguments in (["--json"], []):
        done = pgray("table", str(root), *arguments, shell='"$@" | true; exit ${PIPESTATUS[0]}')
        assert (done.returncode, done.stderr) == (0, b"")


INTERRUPTED_RUN = """
import sys
from pathlib import Path
import pgray.cli.run as module
from pgray.cli.entry import main
from pgray.scheduler.driver import Outcome
module.run_sweep = lambda sweep, *_, **__: Outcome(Path(sys.argv[1]), "int8", {"queued": 1}, 1, 1, True)
sys.exit(main(["run", "sweeps/quickstart.yaml", sys.argv[2]]))
"""


@pytest.mark.parametrize("option", ["--set=train.iterations=1", "--json"])
def test_a_run_keeps_its_exit_code_when_nobody_reads_its_table(root: Path, option: str) -> None:
    """As when the terminal of `pgray run SWEEP | tee FILE` is closed."""
    command = ["bash", "-c", '"$@" | true; exit ${PIPESTATUS[0]}', "bash", sys.executable, "-c", INTERRUPTED_RUN]
    done = subprocess.run([*command, str(root), option], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 130
    assert ("Interrupted." in done.stderr) == (option != "--json")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("where", ["read_logs", "plan_imports", "write_imports", "write_all"])
def test_ctrl_c_inside_an_import_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], where: str
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    for name in ("read_logs", "plan_imports", "write_imports", "write_all"):
        monkeypatch.setattr(f"pgray.cli.imports.{name}", interrupt if name == where else lambda *_: [])
    assert main(["import", "x.log", "--into", str(tmp_path / "run"), "--arm", "a"]) == 130
    assert capsys.readouterr() == ("", "interrupted\n")
    assert not (tmp_path / "run").exists(), "a folder that was made only to be locked"
