"""Copies what tables and curves need from run folders on other machines, by any fsspec address.

Examples: `s3://bucket/runs/late-qat`, `gs://`, `ssh://`, `https://`, `memory://`. If fsspec needs another package for an
address, the error names it. Weights and artifacts are not copied.
"""

import atexit
import hashlib
import re
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.errors import InputError

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

_COPIED = re.compile(
    r"(sweep\.yaml|provenance\.json|ledger\.jsonl|study\.json|imported/[^/]+\.json"
    r"|trials/[^/]+/(config|result)\.json|(trained|trials)/[^/]+/events\.jsonl)"
)


def copy_runs(address: str) -> list[Path]:
    """Copy the present state of a run folder, or of those that a pattern such as `s3://bucket/runs/qat-*` matches.

    Returns:
        The copies, in name order. They are deleted when this process ends; a further call replaces them.
    Raises:
        InputError: no such folder or file system, or the package for it is missing.
    """
    from fsspec.core import url_to_fs

    try:
        files, root = url_to_fs(address)
        folders = sorted(files.glob(root)) if any(sign in root for sign in "*?[") else [root]
        copies = [_copy(files, str(folder).rstrip("/"), address) for folder in folders if files.isdir(folder)]
    except (OSError, ValueError, ImportError) as error:
        raise InputError("results.load", "run", address, f"cannot be read: {error}") from error
    if not copies:
        raise InputError("results.load", "run", address, "no such folder; give the address of a run or a pattern")
    return copies


def _copy(files: "AbstractFileSystem", folder: str, address: str) -> Path:
    key = hashlib.sha256(f"{address} {folder}".encode()).hexdigest()[:12]
    target = _copies_dir() / key / folder.rsplit("/", 1)[-1]
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for path in files.find(folder):
        name = str(path)[len(folder) :].lstrip("/")
        if _COPIED.fullmatch(name):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            files.get_file(path, str(target / name))
    return target


@cache
def _copies_dir() -> Path:
    folder = tempfile.mkdtemp(prefix="pgray-runs-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)
