"""The code of a launch, frozen: a copy of the project's packages in the run folder, named after its content.

Every job runs from it, the worker's part included, so that editing the checkout while a sweep runs changes nothing, and
nodes need to have Ray, torch and the run folder but not this project. Bundles are small and stay: each shows the code of
the rows that were made with it, and `PYTHONPATH=RUN/code/<sha> python -m pgray run SWEEP` goes on with it.
"""

import hashlib
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from trainer.records.layout import RunLayout

_ROOT = Path(__file__).resolve().parents[2]
_PACKAGES = ("trainer", "results", "pgray")


def freeze_code(layout: RunLayout, root: Path = _ROOT) -> Path:
    """Put the packages under `root` into the run folder, unless they are there. Returns the folder to run from.

    Call it only while holding the run's lock.
    """
    files = _sources(root)
    folder = layout.code(_sha(files))
    if folder.is_dir():
        if _sources(folder) == files:
            return folder
        shutil.rmtree(folder)  # somebody edited the copy
    folder.parent.mkdir(parents=True, exist_ok=True)
    for half in folder.parent.glob(".new-*"):  # of a driver that was killed
        shutil.rmtree(half)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".new-"))
    try:
        for name, content in files.items():
            path = temporary / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        temporary.chmod(0o755)
        temporary.rename(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return folder


def _sources(root: Path) -> dict[str, bytes]:
    """Path below `root` -> content, of everything in the packages that Python did not write there itself."""
    files = {}
    for package in _PACKAGES:
        for path in sorted((root / package).rglob("*")):
            below = path.relative_to(root)
            if path.suffix != ".pyc" and path.is_file() and not any(part.startswith(".") for part in below.parts):
                files[below.as_posix()] = path.read_bytes()
    return files


def _sha(files: Mapping[str, bytes]) -> str:
    total = hashlib.sha256()
    for name, content in files.items():
        total.update(f"{name}\0{len(content)}\0".encode())
        total.update(content)
    return total.hexdigest()[:12]
