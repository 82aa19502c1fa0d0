"""Finds the files that a sweep names by relative paths, wherever the command is called from."""

from pathlib import Path

from pgray.spec.sweep import Sweep


def data_path(path: str, key: str, sweep: Sweep) -> str:
    """Return the absolute path of a config's `data.path` or `data.tokenizer`.

    A relative path is looked up in the folder of the sweep file, then in every folder above it, so in the project that the
    file belongs to. A value from `--set`, and one that exists nowhere there, is relative to the working folder.
    """
    if Path(path).is_absolute() or key in sweep.overrides:
        return str(Path(path).absolute())
    origin = Path(sweep.origin)
    above = origin.resolve().parents if origin.is_file() else ()
    return str(next((folder / path for folder in above if (folder / path).exists()), Path(path).absolute()))
