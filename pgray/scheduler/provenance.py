"""Records where a sweep's numbers come from: code, versions, machine, and what the command line changed.

`provenance.json` holds the latest launch and, under `earlier`, those before it. `sweep.yaml` beside it is an unchanged copy
of the sweep file, without the overrides of the command line.
"""

import hashlib
import platform
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from pgray.execution.launchers.base import LaunchSettings
from pgray.spec.expand import Expansion
from pgray.spec.sweep import Sweep
from trainer.presets.yamlfile import read_yaml
from trainer.records.files import read_json, write_json, write_text
from trainer.records.layout import RunLayout

_PACKAGES = (
    "pgray", "torch", "ray", "numpy", "sentencepiece", "pandas", "zstandard", "brotli", "constriction", "safetensors",
    "pydantic", "PyYAML",
)  # fmt: skip


def _git_state() -> tuple[str | None, bool | None]:
    """Return the commit of this code and whether its tree has changes; (None, None) outside a git checkout."""
    try:
        _git("ls-files", "--error-unmatch", __file__)  # fails for a .venv inside another project's checkout
        return _git("rev-parse", "HEAD"), bool(_git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return None, None


def write_provenance(
    layout: RunLayout,
    sweep: Sweep,
    expansion: Expansion,
    launch: LaunchSettings | None = None,
    data_warnings: Sequence[str] = (),
) -> str | None:
    """Record this launch in the run folder. Returns the commit."""
    sha, is_dirty = _git_state()
    earlier = read_json(layout.provenance)
    history = earlier.pop("earlier", [])
    record = {
        "at": time.time(),
        "git_sha": sha,
        "git_is_dirty": is_dirty,
        "code": str(launch.code.relative_to(layout.root)) if launch and launch.code_sha else None,
        "code_sha": launch.code_sha if launch else None,
        "command": shlex.join(sys.argv),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "host": socket.gethostname(),
        "versions": {name: _version(name) for name in _PACKAGES},
        "sweep_file": sweep.origin,
        "sweep_sha256": hashlib.sha256(sweep.text.encode()).hexdigest(),
        "preset": sweep.preset.name,
        "set": dict(sweep.overrides),
        "seeds": list(sweep.seeds),
        "machine": sweep.machine.model_dump(),
        "control": expansion.control,
        "arms": [arm.name for arm in expansion.arms],
        "data_warnings": list(data_warnings),  # the table and the report repeat them
        "earlier": [earlier, *history][:100] if earlier else [],
    }
    write_json(layout.provenance, record)
    write_text(layout.sweep, sweep.text)
    return sha


def launched_sweep(layout: RunLayout) -> Sweep:
    """Return the sweep of the latest launch: the copy in the run folder, with the changes of the command line.

    Raises:
        InputError: the copy is missing or is not a sweep.
    """
    launch, file = read_json(layout.provenance), read_yaml(layout.sweep)
    preset = launch.get("preset")
    if isinstance(file, dict) and Path(str(file.get("preset"))).stem == preset:
        preset = None  # already in the file, maybe as a path
    return Sweep.from_yaml(layout.sweep, preset=preset, seeds=launch.get("seeds"), overrides=launch.get("set"))


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(Path(__file__).resolve().parents[2]), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
