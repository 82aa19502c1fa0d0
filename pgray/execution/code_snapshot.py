"""Copy the project's packages into the run folder at launch, into a folder named after their content.

Every job runs from this snapshot, so editing the checkout during a sweep changes nothing, and nodes need Ray, torch and the
run folder but not this project. Snapshots are small and are kept: they show the code behind each row, and
`PYTHONPATH=RUN/code/<sha> python -m pgray run SWEEP` continues a sweep with the code that it started with.
"""

import hashlib
import shutil
import tempfile
from pathlib import Path

from trainer.records.layout import RunLayout

_ROOT = Path(__file__).resolve().parents[2]
_PACKAGES = ("trainer", "results", "pgray")


def snapshot_code(layout: RunLayout, root: Path = _ROOT) -> Path:
    """Copy the packages under `root` into the run folder, unless they are there. Returns the folder to run from.

    Call it only while holding the run's lock.
    """
    files = _sources(root)
    content_sha = hashlib.sha256()
    for name, content in files.items():
        content_sha.update(f"{name}\0{len(content)}\0".encode() + content)
    folder = layout.code(content_sha.hexdigest()[:12])
    if folder.is_dir():
        if _sources(folder) == files:
            return folder
        shutil.rmtree(folder)  # the copy was edited
    folder.parent.mkdir(parents=True, exist_ok=True)
    for unfinished in folder.parent.glob(".new-*"):  # of a driver that was killed
        shutil.rmtree(unfinished)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".new-", ignore_cleanup_errors=True) as temporary:
        for name, content in files.items():
            path = Path(temporary, folder.name, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        Path(temporary, folder.name).rename(folder)
    return folder


def _sources(root: Path) -> dict[str, bytes]:
    """Map paths below `root` to contents, for all files of the packages except hidden and compiled ones."""
    files = {}
    for package in _PACKAGES:
        for path in sorted((root / package).rglob("*")):
            below = path.relative_to(root)
            if path.suffix != ".pyc" and path.is_file() and not any(part.startswith(".") for part in below.parts):
                files[below.as_posix()] = path.read_bytes()
    return files
