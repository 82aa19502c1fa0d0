"""Fetch the challenge's published FineWeb shards from the Hugging Face hub.

The export's own manifest, `datasets/manifest.json`, lists every dataset with its number of shards and its tokenizer. A folder
holds files of one commit of the repo, recorded in `source.json`. An interrupted fetch resumes: complete files are not
downloaded again. A file gets its final name after its length, its sha256 (if the hub lists one) and its shard header are
checked. The tokens are not checked here: run `pgray data check` on the folder.

Source: layout as in `data/cached_challenge_fineweb.py` and `data/README.md` of openai/parameter-golf.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from pgray.data.hub_files import HubFiles
from trainer.data.shards import TOKEN_BYTES, Split, read_num_tokens
from trainer.errors import DataError, InputError
from trainer.records.files import write_json

REPO = "willdepueoai/parameter-golf"
ROOT = "datasets"  # folder of the export within the repo
SOURCE_NAME = "source.json"
_COMMAND = "pgray data fetch"


@dataclass(frozen=True)
class Source:
    """The origin of a data folder, and the numbers of shards available there: `source.json`."""

    repo: str
    commit: str
    variant: str
    dataset: str  # folder name of the dataset within the export
    tokenizer: str  # path of the model within the export
    train_shards: int
    val_shards: int
    train_tokens: int | None  # over all training shards

    def paths(self, shards: int) -> list[str]:
        """Paths within the repo: the tokenizer, the validation split, the first `shards` training shards."""
        folder = f"{ROOT}/datasets/{self.dataset}"
        val = [f"{folder}/fineweb_val_{shard:06d}.bin" for shard in range(self.val_shards)]
        train = [f"{folder}/fineweb_train_{shard:06d}.bin" for shard in range(shards)]
        return [f"{ROOT}/{self.tokenizer}", *val, *train]


@dataclass(frozen=True)
class FetchReport:
    """The requested files and what this call did."""

    folder: Path
    tokenizer: Path
    repo: str
    commit: str
    variant: str
    train_shards: int
    val_shards: int
    train_tokens: int
    val_tokens: int
    fetched: tuple[str, ...]  # names of the files downloaded by this call
    present: tuple[str, ...]  # names of the files that were already there


def fetch(
    variant: str = "sp1024",
    *,
    shards: int,
    out: Path | None = None,
    repo: str = REPO,
    endpoint: str | None = None,
    report: Callable[[str], None] = lambda _: None,
) -> FetchReport:
    """Download the tokenizer, the whole validation split and the first training shards of a variant.

    Needs no network if the folder already holds all of them.

    Args:
        variant: `sp1024`, `sp4096`, ...: the dataset `fineweb10B_<variant>` of the export.
        shards: how many training shards, 1 or more; the first ones in the export's order.
        out: folder to fill; None = `data/fineweb10B_<variant>`.
        repo: dataset repo on the hub.
        endpoint: address of the hub; None = huggingface.co, or HF_ENDPOINT.
        report: called with one line per file.
    Raises:
        InputError: unknown variant, more shards than there are, not enough disk, or `out` holds other data.
        DataError: the hub cannot be reached, its manifest is invalid, or a file arrived damaged.
    """
    if shards < 1:
        raise InputError(_COMMAND, "shards", shards, "must be 1 or more")
    out = Path("data", f"fineweb10B_{variant}") if out is None else Path(out)
    source = _read_source(out, repo, variant)
    if source and shards <= source.train_shards and not _missing(out, source.paths(shards)):
        report(f"{out}: up to date")
        return _report(out, source, shards, [])

    files = HubFiles(repo, source.commit if source else None, endpoint, out / ".incoming")
    source = _read_manifest(files, variant)
    if shards > source.train_shards:
        fix = f"{variant} has {source.train_shards} training shards; ask for fewer"
        raise InputError(_COMMAND, "shards", shards, fix)
    missing = _missing(out, source.paths(shards))
    _check_disk(out, source, missing)
    write_json(out / SOURCE_NAME, asdict(source))  # first, so that no other variant can be fetched into this folder
    for number, path in enumerate(missing, start=1):
        name = PurePosixPath(path).name
        report(f"{number}/{len(missing)} {name}")
        downloaded = files.download(path)
        try:
            if name.endswith(".bin"):
                read_num_tokens(downloaded)
        except DataError:
            downloaded.unlink()  # otherwise the next call would take it from `.incoming`
            raise
        downloaded.replace(out / name)
    shutil.rmtree(files.incoming, ignore_errors=True)
    return _report(out, source, shards, missing)


def _read_source(out: Path, repo: str, variant: str) -> Source | None:
    """Return the source of an earlier fetch, if any. Raises InputError if the folder holds other data."""
    path = out / SOURCE_NAME
    try:
        source = Source(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        if out.is_dir() and (any(out.glob("*.bin")) or any(out.glob("*.model"))):
            fix = f"it holds shards but no {SOURCE_NAME}; give a new folder"
            raise InputError(_COMMAND, "out", str(out), fix) from None
        return None
    except (ValueError, TypeError, OSError):
        raise InputError(str(path), "file", "unreadable", "delete the folder and fetch again") from None
    if (source.repo, source.variant) != (repo, variant):
        fix = f"it holds {source.variant} of {source.repo}; give a new folder"
        raise InputError(_COMMAND, "out", str(out), fix)
    return source


def _read_manifest(files: HubFiles, variant: str) -> Source:
    path = f"{ROOT}/manifest.json"
    where = f"{files.repo}/{path}"
    try:
        manifest = json.loads(files.download(path).read_text(encoding="utf-8"))
        datasets: dict[str, Any] = {entry["name"]: entry for entry in manifest["datasets"]}
        models = {entry["name"]: entry.get("model_path") for entry in manifest["tokenizers"]}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        problem = f"not a manifest of datasets ({type(error).__name__})"
        raise DataError(where, problem, "check repo and endpoint") from None
    name = f"fineweb10B_{variant}"
    if name not in datasets:
        offered = ", ".join(sorted(key.removeprefix("fineweb10B_") for key in datasets)) or "nothing"
        raise InputError(_COMMAND, "variant", variant, f"not in {where}, which has {offered}")
    try:
        stats = datasets[name]["stats"]
        model = models[datasets[name]["tokenizer_name"]]
        counts = int(stats["files_train"]), int(stats["files_val"])
    except (TypeError, KeyError, ValueError) as error:
        raise DataError(where, f"entry {name} lacks {error}", "check repo and endpoint") from None
    if not model:
        raise InputError(_COMMAND, "variant", variant, "its tokenizer is not a SentencePiece model; take one of sp*")
    assert files.commit is not None  # set by the download of the manifest
    return Source(files.repo, files.commit, variant, name, str(model), *counts, stats.get("tokens_train"))


def _missing(out: Path, paths: list[str]) -> list[str]:
    return [path for path in paths if not _is_whole(out / PurePosixPath(path).name)]


def _is_whole(path: Path) -> bool:
    """Whether the file exists and, if it is a shard, has a header that fits its size."""
    try:
        return path.is_file() and (path.suffix != ".bin" or read_num_tokens(path) > 0)
    except DataError:
        return False


def _check_disk(out: Path, source: Source, missing: list[str]) -> None:
    """Raise InputError before hours of download if the shards do not fit on the disk."""
    num_shards = sum("fineweb_train_" in path for path in missing)
    needed_bytes = num_shards * TOKEN_BYTES * (source.train_tokens or 0) // max(1, source.train_shards)
    try:
        out.mkdir(parents=True, exist_ok=True)
        free_bytes = shutil.disk_usage(out).free
    except OSError as error:
        raise InputError(
            _COMMAND, "out", str(out), f"{error.strerror}; choose a folder that you may write to"
        ) from None
    if needed_bytes > free_bytes:
        fix = f"{num_shards} shards need {needed_bytes / 1e9:.1f} GB, {free_bytes / 1e9:.1f} GB are free; ask for fewer"
        raise InputError(_COMMAND, "out", str(out), fix)


def _report(out: Path, source: Source, shards: int, missing: list[str]) -> FetchReport:
    names = [PurePosixPath(path).name for path in source.paths(shards)]
    fetched = tuple(PurePosixPath(path).name for path in missing)

    def tokens(split: Split) -> int:
        return sum(read_num_tokens(out / name) for name in names if name.startswith(f"fineweb_{split}_"))

    return FetchReport(
        folder=out,
        tokenizer=out / names[0],
        repo=source.repo,
        commit=source.commit,
        variant=source.variant,
        train_shards=shards,
        val_shards=source.val_shards,
        train_tokens=tokens("train"),
        val_tokens=tokens("val"),
        fetched=fetched,
        present=tuple(name for name in names if name not in fetched),
    )
