"""Writes files atomically, reads JSON files, and tells if a file is still the one that was written; names the cache folder."""

import contextlib
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from pydantic import BaseModel  # a supervisor imports this module, and has no time for pydantic

Model = TypeVar("Model", bound="BaseModel")
_SEAL = re.compile(rb',\s*"own_sha256":\s*"([^"]*)"\s*\}\s*\Z')


def user_cache() -> Path:
    """Return the folder for what may be deleted at any time: `$XDG_CACHE_HOME/pgray`, by default `~/.cache/pgray`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pgray"


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Name the file in an OSError: a failed write, such as on a full disk, does not."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file by write, fsync and rename: a reader sees the old content or the new, never a part."""
    with naming(path):
        _write_bytes(path, content)


def _write_bytes(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: Path, content: str) -> None:
    write_bytes(path, content.encode())


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def write_sealed(path: Path, value: dict[str, Any]) -> None:
    """Write an object as JSON whose last key, `own_sha256`, is the sha256 of the text before it: see `is_changed`."""
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False).removesuffix("\n}")
    seal = hashlib.sha256(text.encode()).hexdigest()
    write_text(path, f'{text},\n "own_sha256": "{seal}"\n}}\n')


def is_changed(content: bytes) -> bool:
    """Return whether the content of a file from `write_sealed` is not what was written.

    A file without `own_sha256`, as older versions write it, does not count as changed.
    """
    seal = _SEAL.search(content)
    return seal is not None and hashlib.sha256(content[: seal.start()]).hexdigest().encode() != seal[1]


def changed_problem(path: Path) -> str | None:
    """Return that a file from `write_sealed` is not what was written, in words; None if it is, or cannot be read."""
    try:
        return f"{_named(path)} has been changed since it was written" if is_changed(path.read_bytes()) else None
    except OSError:
        return None


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file; {} if the file is missing, broken or holds something else."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def read_model(cls: "type[Model]", path: Path) -> "Model | None":
    """Return the record in a JSON file; None if the file is missing, or does not fit the pydantic model `cls`."""
    try:
        return cls.model_validate_json(path.read_bytes())
    except (OSError, ValueError):
        return None


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file's content, in hex. A process reads a file once, and again only if it has changed."""
    stat = path.stat()
    return _sha256_of(path, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size, stat.st_ino)


@lru_cache(maxsize=100_000)
def _sha256_of(path: Path, *stat: int) -> str:  # noqa: ARG001
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_problem(path: Path, sha256: str | None, num_bytes: int | None = None) -> str | None:
    """Return what is wrong with a file, in words; None if nothing is.

    Args:
        sha256: of the content that was written. None, as in records of versions before 3: the content is not checked.
        num_bytes: its size, which is checked where no sha256 is known.
    """
    name = _named(path)
    try:
        found = sha256_of(path)
    except FileNotFoundError:
        return f"{name} is missing"
    except OSError as error:
        return f"{name} cannot be read ({error.strerror})"
    if sha256 is not None:
        facts = None if sha256 == found else f"sha256 {found[:12]}, recorded {sha256[:12]}"
    else:
        size = path.stat().st_size
        facts = None if num_bytes in (None, size) else f"{size:,} bytes, recorded {num_bytes:,}"
    return f"{name} is not the file that was written ({facts})" if facts else None


def _named(path: Path) -> str:
    """Return a path from the run folder on, such as `trials/<trial_id>/artifact.pgz`."""
    return "/".join(path.parts[-3:])
