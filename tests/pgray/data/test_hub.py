"""`pgray data fetch` against a real HTTP server that answers like the Hugging Face hub."""

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pgray.data.hub import REPO, SOURCE_NAME, FetchReport, fetch
from trainer.data.shards import map_tokens, write_shard
from trainer.errors import DataError, InputError

COMMIT = "0123456789abcdef0123456789abcdef01234567"
NEWER_COMMIT = "f" * 40
SHARD_TOKENS = 50_000


@dataclass
class FakeHub:
    """A hub: its files by path, the requests it got, and the faults it should show."""

    files: dict[str, bytes]
    address: str = ""
    commit: str = COMMIT
    gets: list[str] = field(default_factory=list)  # "path" or "path from byte"
    break_once: dict[str, int] = field(default_factory=dict)  # path -> bytes to send before hanging up
    corrupt: set[str] = field(default_factory=set)
    status: int | None = None


def _handler(hub: FakeHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def _answer(self, with_body: bool) -> None:
            """`/datasets/<repo>/resolve/<revision>/<path>`; big files redirect to `/cdn/<path>`, as on the hub."""
            if hub.status:
                return self._error(hub.status)
            prefix = f"/datasets/{REPO}/resolve/"
            if self.path.startswith("/cdn/"):
                return self._send(self.path.removeprefix("/cdn/"), with_body)
            if not self.path.startswith(prefix):
                return self._error(404, "RepoNotFound")
            revision, path = self.path.removeprefix(prefix).split("/", 1)
            if revision not in ("main", COMMIT, NEWER_COMMIT):
                return self._error(404, "RevisionNotFound")
            if path not in hub.files:
                return self._error(404, "EntryNotFound")
            commit = hub.commit if revision == "main" else revision
            if not path.endswith(".bin"):
                return self._send(path, with_body, {"X-Repo-Commit": commit})
            raw = hub.files[path]
            self.send_response(302)
            self.send_header("Location", f"{hub.address.replace('127.0.0.1', 'localhost')}/cdn/{path}")
            self.send_header("X-Repo-Commit", commit)
            self.send_header("X-Linked-Size", str(len(raw)))
            self.send_header("X-Linked-ETag", f'"{hashlib.sha256(raw).hexdigest()}"')
            self.send_header("Content-Length", "0")
            return self.end_headers()

        def _send(self, path: str, with_body: bool, headers: dict[str, str] | None = None) -> None:
            raw = hub.files[path]
            start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0])
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(raw) - 1}/{len(raw)}")
            self.send_header("Content-Length", str(len(raw) - start))
            self.send_header("ETag", f'"{hashlib.sha1(raw).hexdigest()}"')
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.end_headers()
            if not with_body:
                return
            name = path.rsplit("/", 1)[1]
            hub.gets.append(f"{name} from {start}" if start else name)
            body = raw[start:]
            if name in hub.corrupt:
                body = body[:-1] + bytes([body[-1] ^ 1])
            if name in hub.break_once:
                body = body[: hub.break_once.pop(name)]
                self.close_connection = True
            self.wfile.write(body)

        def _error(self, status: int, code: str = "") -> None:
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("Content-Length", "0")
            self.end_headers()

    return Handler


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[FakeHub]:
    rng = np.random.default_rng(3)
    files: dict[str, bytes] = {"datasets/tokenizers/fineweb_1024_bpe.model": b"a model"}
    for name in ("train_000000", "train_000001", "train_000002", "val_000000"):
        path = tmp_path / "shard.bin"
        write_shard(path, rng.integers(0, 1024, SHARD_TOKENS))
        files[f"datasets/datasets/fineweb10B_sp1024/fineweb_{name}.bin"] = path.read_bytes()
    stats = {"files_train": 3, "files_val": 1, "tokens_train": 3 * SHARD_TOKENS}
    manifest: dict[str, Any] = {
        "datasets": [
            {"name": "fineweb10B_sp1024", "tokenizer_name": "sp_bpe_1024", "stats": stats},
            {"name": "fineweb10B_byte260", "tokenizer_name": "bytes", "stats": stats},
        ],
        "tokenizers": [
            {"name": "sp_bpe_1024", "model_path": "tokenizers/fineweb_1024_bpe.model"},
            {"name": "bytes", "path": "tokenizers/bytes.json"},
        ],
    }
    files["datasets/manifest.json"] = json.dumps(manifest).encode()
    fake_hub = FakeHub(files)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(fake_hub))
    fake_hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield fake_hub
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def _own_hub_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ignore the user's cache, token and offline switch."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_IMPLICIT_TOKEN", True)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "data" / "fineweb10B_sp1024"


def _fetch(hub: FakeHub, out: Path, shards: int = 2, **settings: Any) -> FetchReport:
    return fetch(shards=shards, out=out, endpoint=hub.address, **settings)


def _names(out: Path) -> set[str]:
    return {path.name for path in out.iterdir()}


SHARDS = {"fineweb_val_000000.bin", "fineweb_train_000000.bin", "fineweb_train_000001.bin"}
ALL = {*SHARDS, "fineweb_1024_bpe.model", SOURCE_NAME}


def test_fetch_places_the_published_bytes(hub: FakeHub, out: Path) -> None:
    lines: list[str] = []
    result = _fetch(hub, out, report=lines.append)
    assert _names(out) == ALL
    for path, raw in hub.files.items():
        name = path.rsplit("/", 1)[1]
        if name in ALL:
            assert (out / name).read_bytes() == raw
    assert len(map_tokens(out / "fineweb_train_000001.bin")) == SHARD_TOKENS
    assert result == FetchReport(
        folder=out,
        tokenizer=out / "fineweb_1024_bpe.model",
        repo=REPO,
        commit=COMMIT,
        variant="sp1024",
        train_shards=2,
        val_shards=1,
        train_tokens=2 * SHARD_TOKENS,
        val_tokens=SHARD_TOKENS,
        fetched=("fineweb_1024_bpe.model", *sorted(SHARDS, key=lambda name: ("train" in name, name))),
        present=(),
    )
    assert lines[0] == "1/4 fineweb_1024_bpe.model"
    assert len(lines) == 4


def test_complete_files_are_not_fetched_again(hub: FakeHub, out: Path) -> None:
    _fetch(hub, out)
    hub.gets.clear()
    again = _fetch(hub, out)
    assert (hub.gets, again.fetched, set(again.present)) == ([], (), ALL - {SOURCE_NAME})
    more = _fetch(hub, out, shards=3)
    assert more.fetched == ("fineweb_train_000002.bin",)
    assert hub.gets == ["manifest.json", "fineweb_train_000002.bin"]


def test_a_complete_folder_needs_no_network(hub: FakeHub, out: Path) -> None:
    _fetch(hub, out)
    assert fetch(shards=1, out=out, endpoint="http://127.0.0.1:9").train_tokens == SHARD_TOKENS


def test_a_folder_keeps_its_commit(hub: FakeHub, out: Path) -> None:
    _fetch(hub, out, shards=1)
    hub.commit = NEWER_COMMIT
    assert _fetch(hub, out, shards=2).commit == COMMIT


def test_a_broken_connection_resumes_where_it_broke(hub: FakeHub, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)  # it resumes at whole chunks, else of 10 MB
    hub.break_once["fineweb_val_000000.bin"] = 40_000
    _fetch(hub, out)
    assert hub.gets.count("fineweb_val_000000.bin") == 1
    assert "fineweb_val_000000.bin from 40000" in hub.gets
    assert (out / "fineweb_val_000000.bin").stat().st_size == 1024 + 2 * SHARD_TOKENS


def test_an_interrupted_fetch_resumes_with_the_missing_shards(hub: FakeHub, out: Path) -> None:
    hub.corrupt.add("fineweb_train_000001.bin")
    with pytest.raises(DataError, match=r"fineweb_train_000001\.bin: content does not have the sha256 .* fetch again"):
        _fetch(hub, out)
    assert _names(out) == {*ALL - {"fineweb_train_000001.bin"}, ".incoming"}
    hub.corrupt.clear()
    hub.gets.clear()
    assert _fetch(hub, out).fetched == ("fineweb_train_000001.bin",)
    assert "fineweb_val_000000.bin" not in hub.gets
    assert _names(out) == ALL


def test_a_file_cut_short_on_disk_is_fetched_again(hub: FakeHub, out: Path) -> None:
    _fetch(hub, out)
    with (out / "fineweb_train_000000.bin").open("r+b") as file:
        file.truncate(5000)
    assert _fetch(hub, out).fetched == ("fineweb_train_000000.bin",)


def test_a_published_file_that_is_not_a_shard_is_an_error(hub: FakeHub, out: Path) -> None:
    hub.files["datasets/datasets/fineweb10B_sp1024/fineweb_val_000000.bin"] = b"PK" * 5000
    for _ in range(2):
        with pytest.raises(DataError, match=r"fineweb_val_000000\.bin: magic is .*: not a token shard"):
            _fetch(hub, out)
    assert not (out / "fineweb_val_000000.bin").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shards": 0}, "pgray data fetch: shards: 0: must be 1 or more"),
        ({"shards": 4}, "pgray data fetch: shards: 4: sp1024 has 3 training shards; ask for fewer"),
        (
            {"variant": "sp9"},
            f"pgray data fetch: variant: sp9: not in {REPO}/datasets/manifest.json, which has byte260, sp1024",
        ),
        (
            {"variant": "byte260"},
            "pgray data fetch: variant: byte260: its tokenizer is not a SentencePiece model; take one of sp*",
        ),
    ],
)
def test_wrong_input_downloads_nothing(hub: FakeHub, out: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        _fetch(hub, out, **settings)
    assert str(caught.value) == message
    assert not list(out.parent.rglob("*.bin"))


def test_a_folder_with_other_data_is_not_touched(hub: FakeHub, out: Path) -> None:
    _fetch(hub, out)
    with pytest.raises(InputError, match=f"it holds sp1024 of {REPO}; give a new folder"):
        _fetch(hub, out, variant="sp4096")
    (out / SOURCE_NAME).write_text("[")
    with pytest.raises(InputError, match="delete the folder and fetch again"):
        _fetch(hub, out)
    (out / SOURCE_NAME).unlink()
    with pytest.raises(InputError, match=f"it holds shards but no {SOURCE_NAME}"):
        _fetch(hub, out)


def test_a_disk_that_is_too_small_fails_before_the_download(hub: FakeHub, out: Path) -> None:
    manifest = json.loads(hub.files["datasets/manifest.json"])
    manifest["datasets"][0]["stats"]["tokens_train"] = 10**18
    hub.files["datasets/manifest.json"] = json.dumps(manifest).encode()
    with pytest.raises(InputError, match=r"2 shards need 1333333333\.3 GB, .* GB are free; ask for fewer"):
        _fetch(hub, out)
    assert hub.gets == ["manifest.json"]


def test_a_folder_that_cannot_be_written_is_an_error(hub: FakeHub, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises((InputError, DataError), match="folder"):
        _fetch(hub, tmp_path / "file" / "x")


def test_no_network_fails_within_seconds(out: Path) -> None:
    started = time.perf_counter()
    with pytest.raises(DataError) as caught:
        fetch(shards=1, out=out, endpoint="http://127.0.0.1:9")
    assert str(caught.value).startswith(
        f"http://127.0.0.1:9/datasets/{REPO}/datasets/manifest.json: the hub cannot be reached or broke off ("
    )
    assert str(caught.value).endswith(": check the network and fetch again; complete files are kept")
    assert time.perf_counter() - started < 5


def test_a_server_error_is_reported(hub: FakeHub, out: Path) -> None:
    hub.status = 503
    with pytest.raises(DataError, match="the hub answered HTTP 503: wait and fetch again"):
        _fetch(hub, out)


def test_a_missing_repo_or_file_is_reported(hub: FakeHub, out: Path) -> None:
    with pytest.raises(DataError, match="no such dataset repo, or it is private"):
        _fetch(hub, out, repo="some/other")
    del hub.files["datasets/datasets/fineweb10B_sp1024/fineweb_train_000001.bin"]
    with pytest.raises(DataError, match=r"fineweb_train_000001\.bin: no such file in the repo"):
        _fetch(hub, out)


@pytest.mark.parametrize(
    "manifest", [b"<html>", b"[]", b'{"datasets": [{}], "tokenizers": []}', b'{"datasets": {}, "tokenizers": 5}']
)
def test_an_invalid_manifest_is_reported(hub: FakeHub, out: Path, manifest: bytes) -> None:
    hub.files["datasets/manifest.json"] = manifest
    with pytest.raises(DataError, match=r"datasets/manifest\.json: not a manifest of datasets"):
        _fetch(hub, out)


def test_a_manifest_entry_without_counts_is_reported(hub: FakeHub, out: Path) -> None:
    manifest = json.loads(hub.files["datasets/manifest.json"])
    del manifest["datasets"][0]["stats"]["files_val"]
    hub.files["datasets/manifest.json"] = json.dumps(manifest).encode()
    with pytest.raises(DataError, match="entry fineweb10B_sp1024 lacks 'files_val'"):
        _fetch(hub, out)
